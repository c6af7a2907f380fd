//! Values of any exact type as bytes that compare as the values do, and lists of them as state.

use crate::schema::type_name;
use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, new_null_array},
    buffer::OffsetBuffer,
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field},
    row::{RowConverter, Rows, SortField},
};
use datafusion::common::{Result, exec_err, internal_err, plan_err};
use std::sync::Arc;

/// The largest magnitude that fits 38 digits: 10^38 - 1.
pub(super) const LARGEST: i128 = 10_i128.pow(38) - 1;

/// Whether a number has at most 38 digits.
pub(super) fn fits(digits: i128) -> bool {
    (-LARGEST..=LARGEST).contains(&digits)
}

/// A number that fits the 38 digits of its type.
pub(super) fn within_38_digits(name: &str, digits: Option<i128>) -> Result<i128> {
    match digits.filter(|digits| fits(*digits)) {
        Some(digits) => Ok(digits),
        None => overflow(name),
    }
}

/// The error of an aggregate whose result has more than 38 digits.
pub(super) fn overflow<T>(name: &str) -> Result<T> {
    exec_err!("{name} overflow: the result needs more than 38 digits")
}

/// The decimal type in which an aggregate takes its numbers.
pub(super) fn as_decimal(name: &str, argument: &DataType) -> Result<DataType> {
    match argument {
        DataType::Null => Ok(DataType::Decimal128(1, 0)),
        DataType::UInt64 => Ok(DataType::Decimal128(20, 0)),
        integer if integer.is_integer() => Ok(DataType::Decimal128(19, 0)),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            Ok(DataType::Decimal128(*precision, *scale))
        }
        other => {
            refuse_float(name, other)?;
            let other = type_name(other);
            plan_err!("{name} does not take {other}: it takes integers and decimals")
        }
    }
}

/// A type whose values are equal or ordered exactly.
pub(super) fn as_exact(name: &str, argument: &DataType) -> Result<DataType> {
    refuse_float(name, argument)?;
    if argument.is_nested() {
        return plan_err!("{name} does not take {argument}: it takes one value");
    }
    Ok(argument.clone())
}

fn refuse_float(name: &str, argument: &DataType) -> Result<()> {
    if argument.is_floating() {
        return plan_err!(
            "{name} does not take floating-point numbers: declare or cast the value as DECIMAL"
        );
    }
    Ok(())
}

/// The scale of a decimal type.
pub(super) fn scale_of(data_type: &DataType) -> Result<i8> {
    match data_type {
        DataType::Decimal128(_, scale) => Ok(*scale),
        other => internal_err!("{other} is no decimal"),
    }
}

/// A decimal with all the digits there are.
pub(super) fn widest(scale: i8) -> DataType {
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale)
}

/// The type of a list of values, none of them NULL.
pub(super) fn list_of(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", data_type, false)))
}

/// Lists of these lengths, cut from one column.
pub(super) fn lists(lengths: Vec<usize>, column: ArrayRef) -> Result<ArrayRef> {
    let field = Field::new("element", column.data_type().clone(), false);
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(
        Arc::new(field),
        offsets,
        column,
        None,
    )?))
}

/// Where the list of a row begins and ends in the column of all elements; empty for NULL.
pub(super) fn elements(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
    if lists.is_null(row) {
        return 0..0;
    }
    let at = |index: usize| usize::try_from(lists.value_offsets()[index]).unwrap_or_default();
    at(row)..at(row + 1)
}

/// A state column as lists.
pub(super) fn as_lists(column: &ArrayRef) -> Result<&ListArray> {
    match column.as_list_opt::<i32>() {
        Some(lists) => Ok(lists),
        None => internal_err!("a state is {}, not a list", column.data_type()),
    }
}

/// Turns values of one type into bytes in their order, and back. The bytes are never stored.
#[derive(Debug, Clone)]
pub(super) struct Values {
    converter: Arc<RowConverter>,
    null: Box<[u8]>,
}

impl Values {
    pub(super) fn of(data_type: &DataType) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        let null = converter.convert_columns(&[new_null_array(data_type, 1)])?;
        Ok(Self {
            null: null.row(0).data().into(),
            converter: Arc::new(converter),
        })
    }

    /// Each row of a column as bytes.
    pub(super) fn rows(&self, column: &ArrayRef) -> Result<Rows> {
        Ok(self.converter.convert_columns(&[Arc::clone(column)])?)
    }

    /// The column of these values; `None` is NULL.
    pub(super) fn column<'a>(
        &'a self,
        values: impl IntoIterator<Item = Option<&'a [u8]>>,
    ) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let values: Vec<&[u8]> = values
            .into_iter()
            .map(|value| value.unwrap_or(&self.null))
            .collect();
        let rows = values.iter().map(|value| parser.parse(value));
        let mut columns = self.converter.convert_rows(rows)?;
        match columns.pop() {
            Some(column) => Ok(column),
            None => internal_err!("a value has no column"),
        }
    }
}
