//! Sums that leave 38 digits on the way and may come back.
//!
//! Whether a sum fits is decided when it is finished, or the order in which events come and states merge would
//! decide. So a state keeps a sum that fits as a decimal, and one that does not as the text of its digits, which
//! every table can keep: one of the two is NULL, and both are for no values.

use super::values::{fits, scale_of, widest};
use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, StringArray},
    datatypes::{DataType, Decimal128Type, i256},
};
use datafusion::common::{Result, exec_datafusion_err, exec_err, internal_err};
use std::sync::Arc;

/// What the name of a state column of such texts holds. A meter names them apart from its other states.
pub(crate) const MARK: &str = "[wide";

/// The type of the second column.
pub(super) const DIGITS: DataType = DataType::Utf8;

/// A number of at most 38 digits.
pub(super) fn narrow(digits: i256) -> Option<i128> {
    digits.to_i128().filter(|digits| fits(*digits))
}

/// The two columns of these sums.
pub(super) fn columns(sums: &[Option<i256>], scale: i8) -> Result<(ArrayRef, ArrayRef)> {
    let fitting = sums.iter().map(|sum| sum.and_then(narrow));
    let fitting: Decimal128Array = fitting.collect();
    let others = sums.iter().map(|sum| {
        sum.filter(|sum| narrow(*sum).is_none())
            .map(|sum| sum.to_string())
    });
    let others: StringArray = others.collect();
    Ok((
        Arc::new(fitting.with_data_type(widest(scale))),
        Arc::new(others),
    ))
}

/// The sums of two state columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums<'a> {
    fitting: &'a Decimal128Array,
    others: Option<&'a StringArray>,
}

impl<'a> Sums<'a> {
    pub(super) fn of(fitting: &'a ArrayRef, others: &'a ArrayRef, scale: i8) -> Result<Self> {
        if scale_of(fitting.data_type())? != scale {
            return internal_err!("a sum at scale {scale} was given {}", fitting.data_type());
        }
        let Some(digits) = others.as_string_opt::<i32>() else {
            return internal_err!("digits are {}, not text", others.data_type());
        };
        Ok(Sums {
            fitting: fitting.as_primitive::<Decimal128Type>(),
            others: (digits.null_count() < digits.len()).then_some(digits),
        })
    }

    /// The sums that fit, if all do.
    pub(super) fn all_fitting(&self) -> Option<&'a Decimal128Array> {
        self.others.is_none().then_some(self.fitting)
    }

    /// `None` is the sum of no values.
    pub(super) fn value(&self, row: usize) -> Result<Option<i256>> {
        if let Some(others) = self.others
            && others.is_valid(row)
        {
            let digits = i256::from_string(others.value(row));
            return match digits {
                Some(digits) => Ok(Some(digits)),
                None => exec_err!("`{}` are no digits of a sum", others.value(row)),
            };
        }
        let fits = self.fitting.is_valid(row);
        Ok(fits.then(|| i256::from_i128(self.fitting.value(row))))
    }
}

/// Adds. 256 bits hold the sum of more values than there can be events.
pub(super) fn add(to: &mut i256, more: i256) -> Result<()> {
    let sum = to.checked_add(more);
    *to = sum.ok_or_else(|| exec_datafusion_err!("a sum needs more than 256 bits"))?;
    Ok(())
}
