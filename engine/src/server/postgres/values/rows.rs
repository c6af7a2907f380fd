//! Rows as clients read them: each value as text or in binary (pure).

use super::{
    super::refusal::Refusal,
    kinds::Kind,
    numeric::Numeric,
    time::{self, Zone},
};
use crate::cli::output::{Format as RowFormat, encode_rows};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch, StringArray,
    },
    compute::cast,
    datatypes::{
        DataType, Date32Type, Decimal128Type, Decimal256Type, Field, Float32Type, Float64Type,
        Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, Schema, Time64MicrosecondType,
        TimestampMicrosecondType,
    },
};
use bytes::{BufMut, BytesMut};
use std::{fmt::Write, sync::Arc};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

/// A column as a client is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl Column {
    /// Those of a schema.
    pub(crate) fn all(schema: &Schema) -> Vec<Self> {
        let columns = schema.fields().iter().map(|field| Column {
            name: field.name().clone(),
            kind: Kind::of(field),
        });
        columns.collect()
    }
}

/// Rows whose values are ready to be written.
#[derive(Debug)]
pub(crate) struct Block {
    columns: Vec<(Kind, ArrayRef)>,
    pub(crate) rows: usize,
}

impl Block {
    /// That of a batch with these columns.
    ///
    /// # Errors
    /// A value does not fit the type that clients have for it.
    pub(crate) fn of(batch: &RecordBatch, columns: &[Column]) -> Result<Self, Refusal> {
        let columns = columns.iter().zip(batch.columns());
        let columns = columns.map(|(column, values)| {
            let values = written(&column.kind, values)?;
            Ok((column.kind.clone(), values))
        });
        Ok(Block {
            columns: columns.collect::<Result<_, Refusal>>()?,
            rows: batch.num_rows(),
        })
    }

    /// Writes the values of one row, each after its length.
    ///
    /// # Errors
    /// An instant is too far away for a calendar, or a value is too long.
    pub(crate) fn write_row(
        &self,
        row: usize,
        formats: impl Fn(usize) -> Format,
        zone: &Zone,
        out: &mut BytesMut,
    ) -> Result<(), Refusal> {
        for (index, (kind, values)) in self.columns.iter().enumerate() {
            let cell = Cell { kind, values, row };
            cell.write_sized(formats(index), zone, out)?;
        }
        Ok(())
    }
}

/// Values in the form in which they are written.
fn written(kind: &Kind, values: &ArrayRef) -> Result<ArrayRef, Refusal> {
    let cast_to = |to: &DataType| cast(values, to).map_err(|error| Refusal::of_value(&error));
    match (kind, values.data_type()) {
        (Kind::Json, _) => json(values),
        (Kind::Numeric, DataType::Decimal128(..) | DataType::Decimal256(..)) => {
            Ok(Arc::clone(values))
        }
        (Kind::Numeric, DataType::Decimal32(p, s) | DataType::Decimal64(p, s)) => {
            cast_to(&DataType::Decimal128(*p, *s))
        }
        (Kind::Numeric, _) => cast_to(&DataType::Decimal128(20, 0)),
        (Kind::Array(item), _) => {
            let list = cast_to(&list_of(values.data_type()))?;
            let list: &GenericListArray<i32> = list.as_list();
            let items = written(item, list.values())?;
            let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            let list = GenericListArray::try_new(field, offsets, items, nulls);
            Ok(Arc::new(list.map_err(|error| Refusal::of_value(&error))?))
        }
        (kind, _) => match kind.written_as() {
            Some(to) => cast_to(&to),
            None => Ok(Arc::clone(values)),
        },
    }
}

/// The list type with small offsets of the same items.
fn list_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::clone(item))
        }
        other => other.clone(),
    }
}

/// Values that have an inside as JSON, decimals with every digit.
fn json(values: &ArrayRef) -> Result<ArrayRef, Refusal> {
    let field = Field::new("v", values.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(values)]);
    let rows = rows.map_err(|error| Refusal::of_value(&error))?;
    let lines = encode_rows(&schema, &[rows], RowFormat::Ndjson)?;
    let lines = String::from_utf8_lossy(&lines);
    let texts = lines.lines().enumerate().map(|(row, line)| {
        let value = line.strip_prefix("{\"v\":")?.strip_suffix('}')?;
        values.is_valid(row).then(|| value.to_owned())
    });
    Ok(Arc::new(texts.collect::<StringArray>()))
}

/// One value.
#[derive(Clone, Copy)]
struct Cell<'a> {
    kind: &'a Kind,
    values: &'a ArrayRef,
    row: usize,
}

impl Cell<'_> {
    /// Its length and what it is; -1 for NULL.
    fn write_sized(self, format: Format, zone: &Zone, out: &mut BytesMut) -> Result<(), Refusal> {
        if self.values.is_null(self.row) {
            out.put_i32(-1);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        match format {
            Format::Text => {
                let mut text = String::new();
                self.write_text(zone, &mut text)?;
                out.put_slice(text.as_bytes());
            }
            Format::Binary => self.write_binary(zone, out)?,
        }
        let length = i32::try_from(out.len() - start - 4).map_err(|_| Refusal::too_long())?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn number(self) -> Numeric {
        let (unscaled, scale) = match self.values.data_type() {
            DataType::Decimal256(_, scale) => {
                let values = self.values.as_primitive::<Decimal256Type>();
                (values.value(self.row).to_string(), *scale)
            }
            _ => {
                let values = self.values.as_primitive::<Decimal128Type>();
                (values.value(self.row).to_string(), values.scale())
            }
        };
        Numeric::of(&unscaled, scale)
    }

    fn write_text(self, zone: &Zone, out: &mut String) -> Result<(), Refusal> {
        let Cell { kind, values, row } = self;
        match kind {
            Kind::Bool => out.push(if values.as_boolean().value(row) {
                't'
            } else {
                'f'
            }),
            Kind::Int2 => push(out, values.as_primitive::<Int16Type>().value(row)),
            Kind::Int4 => push(out, values.as_primitive::<Int32Type>().value(row)),
            Kind::Int8 | Kind::Oid => push(out, values.as_primitive::<Int64Type>().value(row)),
            Kind::Float4 => out.push_str(&float(format!(
                "{:?}",
                values.as_primitive::<Float32Type>().value(row)
            ))),
            Kind::Float8 => out.push_str(&float(format!(
                "{:?}",
                values.as_primitive::<Float64Type>().value(row)
            ))),
            Kind::Numeric => out.push_str(&self.number().text()),
            Kind::Text | Kind::Json | Kind::Uuid => {
                out.push_str(values.as_string::<i32>().value(row));
            }
            Kind::Bytea => {
                out.push_str("\\x");
                out.push_str(&crate::keys::hex(values.as_binary::<i32>().value(row)));
            }
            Kind::Date => {
                out.push_str(&time::date_text(
                    values.as_primitive::<Date32Type>().value(row),
                )?);
            }
            Kind::Time => out.push_str(&time::time_text(
                values.as_primitive::<Time64MicrosecondType>().value(row),
            )),
            Kind::Timestamp | Kind::TimestampTz => {
                let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
                let zone = matches!(kind, Kind::TimestampTz).then_some(zone);
                out.push_str(&time::timestamp_text(us, zone)?);
            }
            Kind::Interval => {
                let interval = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
                out.push_str(&time::interval_text(interval));
            }
            Kind::Array(item) => self.write_array_text(item, zone, out)?,
        }
        Ok(())
    }

    fn write_array_text(self, item: &Kind, zone: &Zone, out: &mut String) -> Result<(), Refusal> {
        let values = &items::<i32>(self.values, self.row);
        out.push('{');
        for row in 0..values.len() {
            if row > 0 {
                out.push(',');
            }
            if values.is_null(row) {
                out.push_str("NULL");
                continue;
            }
            let mut text = String::new();
            let cell = Cell {
                kind: item,
                values,
                row,
            };
            cell.write_text(zone, &mut text)?;
            let is_plain = !text.is_empty()
                && !text.eq_ignore_ascii_case("null")
                && !text.contains(|c: char| c.is_whitespace() || "{},\"\\".contains(c));
            match is_plain {
                true => out.push_str(&text),
                false => {
                    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                    out.push('"');
                    out.push_str(&text);
                    out.push('"');
                }
            }
        }
        out.push('}');
        Ok(())
    }

    fn write_binary(self, zone: &Zone, out: &mut BytesMut) -> Result<(), Refusal> {
        let Cell { kind, values, row } = self;
        match kind {
            Kind::Bool => out.put_u8(u8::from(values.as_boolean().value(row))),
            Kind::Int2 => out.put_i16(values.as_primitive::<Int16Type>().value(row)),
            Kind::Int4 => out.put_i32(values.as_primitive::<Int32Type>().value(row)),
            Kind::Int8 => out.put_i64(values.as_primitive::<Int64Type>().value(row)),
            Kind::Oid => {
                let oid = u32::try_from(values.as_primitive::<Int64Type>().value(row));
                out.put_u32(oid.map_err(|_| Refusal::too_long())?);
            }
            Kind::Float4 => out.put_f32(values.as_primitive::<Float32Type>().value(row)),
            Kind::Float8 => out.put_f64(values.as_primitive::<Float64Type>().value(row)),
            Kind::Numeric => {
                out.put_slice(&self.number().binary().ok_or_else(Refusal::too_long)?);
            }
            Kind::Text | Kind::Json | Kind::Uuid => {
                out.put_slice(values.as_string::<i32>().value(row).as_bytes());
            }
            Kind::Bytea => out.put_slice(values.as_binary::<i32>().value(row)),
            Kind::Date => {
                let days = values.as_primitive::<Date32Type>().value(row);
                out.put_i32(time::days_since_2000(days)?);
            }
            Kind::Time => {
                out.put_i64(values.as_primitive::<Time64MicrosecondType>().value(row));
            }
            Kind::Timestamp | Kind::TimestampTz => {
                let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
                out.put_i64(time::us_since_2000(us)?);
            }
            Kind::Interval => {
                let interval = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
                out.put_i64(interval.nanoseconds / 1_000);
                out.put_i32(interval.days);
                out.put_i32(interval.months);
            }
            Kind::Array(item) => self.write_array_binary(item, zone, out)?,
        }
        Ok(())
    }

    fn write_array_binary(
        self,
        item: &Kind,
        zone: &Zone,
        out: &mut BytesMut,
    ) -> Result<(), Refusal> {
        let values = &items::<i32>(self.values, self.row);
        let length = i32::try_from(values.len()).map_err(|_| Refusal::too_long())?;
        out.put_i32(i32::from(length > 0));
        out.put_i32(i32::from(values.null_count() > 0));
        out.put_u32(item.oid());
        if length > 0 {
            out.put_i32(length);
            out.put_i32(1);
        }
        for row in 0..values.len() {
            let cell = Cell {
                kind: item,
                values,
                row,
            };
            cell.write_sized(Format::Binary, zone, out)?;
        }
        Ok(())
    }
}

fn items<O: OffsetSizeTrait>(lists: &ArrayRef, row: usize) -> ArrayRef {
    lists.as_list::<O>().value(row)
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = write!(out, "{value}");
}

/// A float as PostgreSQL writes it: the shortest text that is read back as the same.
fn float(text: String) -> String {
    match text.as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        other => other.strip_suffix(".0").unwrap_or(other).to_owned(),
    }
}
