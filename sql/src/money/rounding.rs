//! The ways to round a quotient to a whole number.

use super::{Exact, MoneyError, exact::power_of_ten};
use arrow::datatypes::i256;
use std::cmp::Ordering;

/// How a number between two neighbours is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearer one, and from the middle away from zero: 2.5 is 3, -2.5 is -3.
    HalfAway,
    /// To the nearer one, and from the middle to the even one: 2.5 is 2, 3.5 is 4.
    HalfEven,
    /// Down: 2.9 is 2, -2.1 is -3.
    Floor,
    /// Up: 2.1 is 3, -2.9 is -2.
    Ceil,
}

impl Rounding {
    /// The mode that SQL calls so.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "half_away" => Some(Self::HalfAway),
            "half_even" => Some(Self::HalfEven),
            "floor" => Some(Self::Floor),
            "ceil" => Some(Self::Ceil),
            _ => None,
        }
    }

    /// `numerator · 10^exponent / denominator` as a whole number; `None` when it takes more than 38 digits
    /// or the denominator is zero. Neither has more than 76 digits.
    pub(crate) fn whole(self, numerator: i256, exponent: i32, denominator: i256) -> Option<i128> {
        let (numerator, denominator) = if denominator < i256::ZERO {
            (numerator.checked_neg()?, denominator.checked_neg()?)
        } else {
            (numerator, denominator)
        };
        if numerator == i256::ZERO {
            return (denominator != i256::ZERO).then_some(0);
        }
        let narrow = numerator.to_i128().zip(denominator.to_i128());
        let narrow = narrow
            .and_then(|(numerator, denominator)| self.narrow(numerator, exponent, denominator));
        let rounded = narrow.or_else(|| self.wide(numerator, exponent, denominator));
        rounded.filter(|digits| Exact::new(*digits, 0).is_ok())
    }

    /// [`Rounding::whole`] where all of it fits 128 bits; the denominator is above zero.
    pub(super) fn narrow(self, numerator: i128, exponent: i32, denominator: i128) -> Option<i128> {
        let power = power_of_ten(u8::try_from(exponent.unsigned_abs()).ok()?)?;
        let (numerator, denominator) = match exponent >= 0 {
            true => (numerator.checked_mul(power)?, denominator),
            false => (numerator, denominator.checked_mul(power)?),
        };
        let quotient = divided(numerator, denominator)?;
        let rest = numerator.checked_sub(quotient.checked_mul(denominator)?)?;
        let size = rest.checked_abs()?;
        let half = size.cmp(&denominator.checked_sub(size)?);
        self.stepped(quotient, rest.signum(), half)
    }

    /// The same in 256 bits.
    pub(super) fn wide(self, numerator: i256, exponent: i32, denominator: i256) -> Option<i128> {
        let power = i256::from_i128(10).checked_pow(exponent.unsigned_abs());
        let (numerator, denominator) = if exponent >= 0 {
            (numerator.checked_mul(power?)?, denominator)
        } else {
            let divisor = power.and_then(|power| denominator.checked_mul(power));
            // A denominator of more than 256 bits is more than twice any numerator of 76 digits.
            (numerator, divisor.unwrap_or(i256::MAX))
        };
        let quotient = numerator.checked_div(denominator)?.to_i128()?;
        let rest = numerator.checked_rem(denominator)?;
        let size = match rest < i256::ZERO {
            true => rest.checked_neg()?,
            false => rest,
        };
        let half = size.cmp(&denominator.checked_sub(size)?);
        self.stepped(quotient, rest.signum().to_i128()?, half)
    }

    /// `quotient`, cut toward zero, or one further from zero: by the sign of the rest, and how its size compares with half of the
    /// denominator.
    fn stepped(self, quotient: i128, sign: i128, half: Ordering) -> Option<i128> {
        let is_away = match self {
            Self::HalfAway => half.is_ge(),
            Self::HalfEven => half.is_gt() || (half.is_eq() && quotient % 2 != 0),
            Self::Floor => sign < 0,
            Self::Ceil => sign > 0,
        };
        match is_away {
            true => quotient.checked_add(sign),
            false => Some(quotient),
        }
    }
}

/// The quotient, cut toward zero. 64 bits, which are enough mostly, are divided several times faster than 128.
fn divided(numerator: i128, denominator: i128) -> Option<i128> {
    match (i64::try_from(numerator), i64::try_from(denominator)) {
        (Ok(numerator), Ok(denominator)) => numerator.checked_div(denominator).map(i128::from),
        _ => numerator.checked_div(denominator),
    }
}

/// The value to `digits` after the point, or before it where `digits` is below zero.
///
/// # Errors
/// [`MoneyError::Unfit`] when that takes more than 38 digits.
pub fn round_to(value: Exact, digits: i8, rounding: Rounding) -> Result<Exact, MoneyError> {
    let exponent = i32::from(digits) - i32::from(value.scale);
    let whole = rounding.whole(i256::from_i128(value.digits), exponent, i256::ONE);
    whole
        .and_then(|whole| placed(whole, digits))
        .ok_or(MoneyError::Unfit {
            value,
            scale: u8::try_from(digits).unwrap_or(0),
        })
}

/// The quotient to `digits` after the point.
///
/// # Errors
/// [`MoneyError::Overflow`] when that takes more than 38 digits, and for a quotient by zero.
pub fn divide(
    value: Exact,
    by: Exact,
    digits: i8,
    rounding: Rounding,
) -> Result<Exact, MoneyError> {
    let exponent = i32::from(digits) + i32::from(by.scale) - i32::from(value.scale);
    let (numerator, denominator) = (i256::from_i128(value.digits), i256::from_i128(by.digits));
    rounding
        .whole(numerator, exponent, denominator)
        .and_then(|whole| placed(whole, digits))
        .ok_or(MoneyError::Overflow {
            left: value,
            operator: '/',
            right: by,
        })
}

/// `amount · part / whole` to `digits` after the point, rounded once.
///
/// # Errors
/// [`MoneyError::Overflow`] when that takes more than 38 digits, and for a whole of zero.
pub fn share(
    amount: Exact,
    part: Exact,
    whole: Exact,
    digits: i8,
    rounding: Rounding,
) -> Result<Exact, MoneyError> {
    let scales = i32::from(whole.scale) - i32::from(amount.scale) - i32::from(part.scale);
    i256::from_i128(amount.digits)
        .checked_mul(i256::from_i128(part.digits))
        .and_then(|product| {
            let exponent = i32::from(digits) + scales;
            rounding.whole(product, exponent, i256::from_i128(whole.digits))
        })
        .and_then(|found| placed(found, digits))
        .ok_or(MoneyError::Overflow {
            left: amount,
            operator: '*',
            right: part,
        })
}

/// A whole number of units of the last of `digits` after the point.
fn placed(whole: i128, digits: i8) -> Option<Exact> {
    match u8::try_from(digits) {
        Ok(scale) => Exact::new(whole, scale).ok(),
        Err(_) => Exact::from_decimal(whole, digits).ok(),
    }
}
