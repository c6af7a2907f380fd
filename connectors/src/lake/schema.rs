//! What a table must look like, and whether one that is there does.

use crate::error::{Error, Result};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use std::{collections::BTreeMap, sync::Arc};

mod json;

pub(crate) use json::{from_delta, to_delta};

/// Keys of a table's configuration that are compared when it is opened.
const OURS: &str = "tollgate.";

/// What differs, and what to do.
type Refusal = (String, &'static str);

/// The table that a caller asks for.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Columns with the caller's metadata.
    pub(crate) schema: SchemaRef,
    pub(crate) partition: Option<String>,
    pub(crate) configuration: BTreeMap<String, String>,
}

/// The table that is there.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) schema: SchemaRef,
    pub(crate) partition: Vec<String>,
    pub(crate) configuration: BTreeMap<String, String>,
}

/// What opening a table must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Nothing: the columns are the same.
    Same,
    /// Nullable columns are missing, or columns may be NULL now: the table gets this schema.
    Widen(SchemaRef),
}

impl Wanted {
    pub(crate) fn new(
        table: &str,
        schema: &Schema,
        partition_columns: &[&str],
        configuration: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let data = |problem: String| Error::Data {
            table: table.to_owned(),
            problem,
        };
        to_delta(table, schema)?;
        let partition = match partition_columns {
            [] => None,
            [one] => Some((*one).to_owned()),
            _ => {
                return Err(data(
                    "a table is partitioned by one column at most".to_owned(),
                ));
            }
        };
        if let Some(column) = &partition {
            let found = schema.field_with_name(column).map(Field::data_type);
            if !matches!(found, Ok(DataType::Date32)) {
                return Err(data(format!("partition column `{column}` must be a DATE")));
            }
        }
        Ok(Wanted {
            schema: Arc::new(schema.clone()),
            partition,
            configuration: configuration.clone(),
        })
    }

    /// Compares with the table that is there.
    pub(crate) fn compare(&self, table: &str, stored: &Stored) -> Result<Fit> {
        let other = |(problem, hint): Refusal| Error::OtherTable {
            table: table.to_owned(),
            problem,
            hint: hint.to_owned(),
        };
        compare_configuration(&self.configuration, &stored.configuration).map_err(other)?;
        let partition: Vec<String> = self.partition.iter().cloned().collect();
        if partition != stored.partition {
            let problem = format!(
                "it is partitioned by {:?}, not by {partition:?}",
                stored.partition
            );
            return Err(other((problem, ANOTHER_LAKE)));
        }
        let widened = compare_fields("", self.schema.fields(), stored.schema.fields());
        match widened.map_err(other)? {
            true => Ok(Fit::Widen(Arc::clone(&self.schema))),
            false => Ok(Fit::Same),
        }
    }
}

const ANOTHER_LAKE: &str = "set another lake url, or use the definitions this lake was made with";
const KEEP_COLUMN: &str = "put it back: what is stored stays readable, and it is NULL where it is not sent; or set another lake url";
const KEEP_TYPE: &str = "give it back its type and read the field into a column of another name too; or set another lake url";

fn compare_configuration(
    wanted: &BTreeMap<String, String>,
    stored: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let ours = wanted.iter().filter(|(key, _)| key.starts_with(OURS));
    for (key, value) in ours {
        match stored.get(key) {
            Some(found) if found == value => {}
            Some(found) => {
                let problem = format!("it was made with {key} = `{found}`, not `{value}`");
                return Err((problem, ANOTHER_LAKE));
            }
            None => {
                let problem = format!("it was not made by Tollgate: {key} is not set");
                return Err((problem, "set another lake url"));
            }
        }
    }
    Ok(())
}

/// Compares columns by name; true when nullable ones are missing in `stored`, or may not be NULL there.
fn compare_fields(under: &str, wanted: &Fields, stored: &Fields) -> Result<bool, Refusal> {
    if let Some(extra) = stored.iter().find(|f| wanted.find(f.name()).is_none()) {
        let name = extra.name();
        let problem = format!("it has a column `{under}{name}` that the definitions do not have");
        return Err((problem, KEEP_COLUMN));
    }
    let mut missing = false;
    for field in wanted {
        let path = format!("{under}{}", field.name());
        missing |= match stored.find(field.name()) {
            Some((_, found)) => compare_field(&path, field, found)?,
            None if field.is_nullable() => true,
            None => {
                let problem = format!("it has no column `{path}`, which may not be NULL");
                return Err((problem, ANOTHER_LAKE));
            }
        };
    }
    Ok(missing)
}

fn compare_field(path: &str, wanted: &Field, stored: &Field) -> Result<bool, Refusal> {
    if stored.is_nullable() && !wanted.is_nullable() {
        let problem = format!("its column `{path}` may be NULL");
        return Err((problem, ANOTHER_LAKE));
    }
    let relaxed = wanted.is_nullable() && !stored.is_nullable();
    match (wanted.data_type(), stored.data_type()) {
        (DataType::Struct(wanted), DataType::Struct(stored)) => {
            Ok(compare_fields(&format!("{path}."), wanted, stored)? | relaxed)
        }
        (wanted, stored) if wanted.equals_datatype(stored) => Ok(relaxed),
        (wanted, stored) => {
            let problem = format!("its column `{path}` is {stored}, not {wanted}");
            Err((problem, KEEP_TYPE))
        }
    }
}

/// The same columns without field metadata, for readers and for the log.
pub(crate) fn plain(schema: &Schema) -> Schema {
    Schema::new(plain_fields(schema.fields()))
}

fn plain_fields(fields: &Fields) -> Fields {
    fields.iter().map(|f| plain_field(f)).collect()
}

fn plain_field(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Struct(children) => DataType::Struct(plain_fields(children)),
        DataType::List(item) => DataType::List(Arc::new(plain_field(item))),
        other => other.clone(),
    };
    Field::new(field.name(), data_type, field.is_nullable())
}

/// The stored columns in their order, with the metadata of the caller's columns of the same name.
pub(crate) fn with_metadata_of(stored: &Schema, wanted: &Schema) -> Schema {
    let fields = stored.fields().iter().map(|field| {
        let ours = wanted.fields().find(field.name()).map(|(_, f)| f);
        ours.map_or_else(|| Arc::clone(field), Arc::clone)
    });
    Schema::new(fields.collect::<Fields>())
}
