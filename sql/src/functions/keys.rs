//! What a tier may say, as SQL and error messages name it.

use crate::money::DIGITS_MAX;
use arrow::{
    array::{Array, ArrayRef, Decimal128Array, Int64Array, StructArray},
    datatypes::{DataType, Field},
};
use datafusion::common::{ScalarValue, utils::SingleRowListArrayBuilder};
use std::sync::Arc;

/// The keys of all kinds of tiers.
pub(super) const KEYS: [&str; 8] = [
    "up_to",
    "unit_amount",
    "flat_amount",
    "cap_amount",
    "rate_percent",
    "block_size",
    "block_amount",
    "max_blocks",
];

/// Numbers that are counted exactly, or nothing at all.
pub(crate) fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..) | DataType::Null)
}

/// A list of one tier whose numbers all are 1, in the types of a list that is known row by row: from it a call knows its
/// keys and digits when it is planned. `None` when it is no list of tiers.
pub(super) fn sample(list: &DataType) -> Option<ScalarValue> {
    let DataType::List(element) = list else {
        return None;
    };
    let DataType::Struct(fields) = element.data_type() else {
        return None;
    };
    let one = |data_type: &DataType| -> Option<ArrayRef> {
        match data_type {
            DataType::Decimal128(_, scale) => {
                let digits = 10_i128.checked_pow(u32::try_from(*scale).ok()?)?;
                let one = Decimal128Array::from(vec![digits]);
                let one = one.with_precision_and_scale(DIGITS_MAX, *scale).ok()?;
                Some(Arc::new(one))
            }
            other if is_exact(other) => Some(Arc::new(Int64Array::from(vec![1]))),
            _ => None,
        }
    };
    let columns = fields.iter().map(|field| {
        let column = one(field.data_type())?;
        let field = Field::new(field.name(), column.data_type().clone(), true);
        Some((Arc::new(field), column))
    });
    let columns: Vec<_> = columns.collect::<Option<_>>()?;
    let row = StructArray::from(columns);
    Some(SingleRowListArrayBuilder::new(Arc::new(row)).build_list_scalar())
}
