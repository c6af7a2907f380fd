//! `per_unit(quantity, unit_amount [, free_units])`: every unit at one price.
//!
//! Linear: a quantity below zero gives an amount below zero, a credit. With
//! `free_units`, which come off first, a quantity that they cover costs nothing, and neither does one below zero. Never rounded. Called "standard"
//! or "per unit" pricing elsewhere.

use super::{
    call::{Constants, Kind, Model, check_not_negative},
    error::FunctionError,
};
use crate::money::{Exact, MoneyError};

/// What `quantity` units cost at `unit_amount` each.
///
/// # Errors
/// [`MoneyError::Overflow`] past 38 digits.
pub fn per_unit(quantity: Exact, unit_amount: Exact) -> Result<Exact, MoneyError> {
    quantity.checked_mul(unit_amount)
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PerUnit;

impl Model for PerUnit {
    const NAME: &'static str = "per_unit";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("quantity", Kind::Number),
        ("unit_amount", Kind::Number),
        ("free_units", Kind::Number),
    ];
    const REQUIRED: usize = 2;
    type Terms = ();

    fn terms(&self, constants: &Constants<'_>) -> Result<(), FunctionError> {
        constants.number(2).map_or(Ok(()), check_free_units)
    }

    fn scale((): &(), scales: &[u8]) -> u8 {
        let free = scales.get(2).copied().unwrap_or(0);
        scales[0].max(free).saturating_add(scales[1])
    }

    fn amount((): &(), numbers: &[Exact]) -> Result<Exact, FunctionError> {
        let paid = match numbers.get(2) {
            None => Ok(numbers[0]),
            Some(free) => {
                check_free_units(*free)?;
                let paid = numbers[0].checked_sub(*free);
                paid.map(|paid| paid.max(Exact::ZERO))
            }
        };
        paid.and_then(|paid| per_unit(paid, numbers[1]))
            .map_err(|source| FunctionError::Amount {
                function: Self::NAME,
                source,
            })
    }
}

fn check_free_units(free_units: Exact) -> Result<(), FunctionError> {
    check_not_negative(PerUnit::NAME, "free_units", free_units)
}
