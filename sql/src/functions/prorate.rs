//! `prorate(amount, part, whole)`: the part's share of an amount, such as the days that a subscription was active.
//!
//! It is `amount · part / whole`, rounded once, half away from zero, at 18 digits after the point; a third of 10 is
//! 3.333333333333333333. `whole` is above zero, and `part` from 0 to `whole`.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
};
use crate::money::{Exact, Rounding, round_to, share};

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

/// A sum of shares without what rounding left of each, which is below the 15th digit after the point: shares that make half a cent
/// together are half a cent. A sum too large for 15 digits stays as it is.
///
/// ```
/// # use tollgate_sql::{functions::prorate::{prorate, sum_of_shares}, money::Exact};
/// let fee = Exact::parse("49.99").unwrap();
/// let share = |days: i64| prorate(fee, Exact::from(days), Exact::from(30_i64)).unwrap();
/// let sum = share(1).checked_add(share(4)).unwrap().checked_add(share(10)).unwrap();
/// assert_eq!(sum, Exact::parse("24.994999999999999999").unwrap());
/// assert_eq!(sum_of_shares(sum), Exact::parse("24.995").unwrap());
/// ```
pub fn sum_of_shares(sum: Exact) -> Exact {
    round_to(sum, SHARE_DIGITS - 3, Rounding::HalfAway).unwrap_or(sum)
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

    fn terms(&self, constants: &Constants<'_>) -> Result<(), FunctionError> {
        constants.number(2).map_or(Ok(()), check_whole)
    }

    fn scale((): &(), _: &[u8]) -> u8 {
        SHARE_DIGITS.unsigned_abs()
    }

    fn amount((): &(), numbers: &[Exact]) -> Result<Exact, FunctionError> {
        prorate(numbers[0], numbers[1], numbers[2])
    }
}
