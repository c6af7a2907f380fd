//! `per_unit(quantity, unit_amount)`: every unit at one price.
//!
//! Linear: a quantity below zero gives an amount below zero, a credit. Never rounded. Called "standard"
//! or "per unit" pricing elsewhere.

use super::{
    call::{Constants, Kind, Model},
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
    const ARGUMENTS: &'static [(&'static str, Kind)] =
        &[("quantity", Kind::Number), ("unit_amount", Kind::Number)];
    const REQUIRED: usize = 2;
    type Terms = ();

    fn terms(_: &Constants<'_>) -> Result<(), FunctionError> {
        Ok(())
    }

    fn scale((): &(), scales: &[u8]) -> u8 {
        scales.iter().copied().fold(0, u8::saturating_add)
    }

    fn amount((): &(), numbers: &[Exact]) -> Result<Exact, FunctionError> {
        per_unit(numbers[0], numbers[1]).map_err(|source| FunctionError::Amount {
            function: Self::NAME,
            source,
        })
    }
}
