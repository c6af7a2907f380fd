//! `prorate(amount, part, whole)`: the part's share of an amount, such as the days that a subscription was active.
//!
//! It is `amount · part / whole`, rounded once, half away from zero, at 18 digits after the point; a third of 10 is
//! 3.333333333333333333. `whole` is above zero, and `part` from 0 to `whole`.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
};
use crate::money::{Exact, Rounding, share};

/// Fraction digits of a share.
pub const SHARE_DIGITS: i8 = 18;

/// The part's share of the amount.
///
/// # Errors
/// [`FunctionError::Range`] for a whole that is not above zero and a part outside of it,
/// [`FunctionError::Amount`] past 38 digits.
pub fn prorate(amount: Exact, part: Exact, whole: Exact) -> Result<Exact, FunctionError> {
    check_whole(whole)?;
    if part.is_negative() || part > whole {
        return Err(FunctionError::Range {
            function: Prorate::NAME,
            argument: "part",
            value: part,
            wanted: "from 0 to `whole`",
        });
    }
    let share = share(amount, part, whole, SHARE_DIGITS, Rounding::HalfAway);
    share.map_err(|source| FunctionError::Amount {
        function: Prorate::NAME,
        source,
    })
}

fn check_whole(whole: Exact) -> Result<(), FunctionError> {
    if whole > Exact::ZERO {
        return Ok(());
    }
    Err(FunctionError::Range {
        function: Prorate::NAME,
        argument: "whole",
        value: whole,
        wanted: "above 0",
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Prorate;

impl Model for Prorate {
    const NAME: &'static str = "prorate";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("amount", Kind::Number),
        ("part", Kind::Number),
        ("whole", Kind::Number),
    ];
    const REQUIRED: usize = 3;
    type Terms = ();

    fn terms(constants: &Constants<'_>) -> Result<(), FunctionError> {
        constants.number(2).map_or(Ok(()), check_whole)
    }

    fn scale((): &(), _: &[u8]) -> u8 {
        SHARE_DIGITS.unsigned_abs()
    }

    fn amount((): &(), numbers: &[Exact]) -> Result<Exact, FunctionError> {
        prorate(numbers[0], numbers[1], numbers[2])
    }
}
