//! Exact numbers, money, and the only functions that round.
//!
//! An amount stays an [`Exact`] from the first product to the last sum. It becomes [`Money`], a whole
//! number of the currency's minor units, once: at the line item, by [`round`]. Totals are then sums of
//! what is printed, so an invoice always adds up.

mod exact;
mod rounding;
#[cfg(test)]
mod tests;

pub use exact::{DIGITS_MAX, Exact};
pub use rounding::{Rounding, divide, round_to, share};

use arrow::datatypes::i256;
use std::fmt;

/// Fraction digits that hold any ISO 4217 minor unit: `CLF` and `UYW` have four, every other fewer.
pub const MINOR_DIGITS_MAX: u8 = 4;

/// A number or amount that cannot be represented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// Not an ISO 4217 code.
    #[error("currency `{0}` is not an ISO 4217 code")]
    Currency(String),
    /// A code such as `XAU`, for which nothing says where to round.
    #[error("currency `{0}` has no minor unit, so amounts in it cannot be rounded")]
    MinorUnit(String),
    /// Not a plain decimal.
    #[error("`{text}` is not a number: {problem}")]
    Parse {
        /// What was read, shortened.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A sum, difference or product of more than 38 digits.
    #[error("{left} {operator} {right} needs more than {DIGITS_MAX} digits")]
    Overflow {
        /// The left operand.
        left: Exact,
        /// `+`, `-` or `*`.
        operator: char,
        /// The right operand.
        right: Exact,
    },
    /// A number that needs more fraction digits, or more digits in all, than its place has.
    #[error("{value} does not fit exactly into {DIGITS_MAX} digits with {scale} after the point")]
    Unfit {
        /// The number.
        value: Exact,
        /// Fraction digits of the place.
        scale: u8,
    },
    /// Amounts in two currencies, which cannot be added.
    #[error("an amount in {left} cannot be added to one in {right}")]
    Currencies {
        /// The first.
        left: Currency,
        /// The second.
        right: Currency,
    },
}

/// A currency that money can be rounded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    code: iso_currency::Currency,
    minor_digits: u8,
}

impl Currency {
    /// Reads an ISO 4217 code, upper case.
    ///
    /// # Errors
    /// [`MoneyError::Currency`] for anything else; [`MoneyError::MinorUnit`] for codes without a minor
    /// unit, such as precious metals and `XXX`.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        let known = iso_currency::Currency::from_code(code)
            .ok_or_else(|| MoneyError::Currency(code.to_owned()))?;
        let minor_digits = known
            .exponent()
            .and_then(|digits| u8::try_from(digits).ok())
            .filter(|digits| *digits <= MINOR_DIGITS_MAX)
            .ok_or_else(|| MoneyError::MinorUnit(code.to_owned()))?;
        Ok(Self {
            code: known,
            minor_digits,
        })
    }

    /// The ISO 4217 code.
    pub fn code(self) -> &'static str {
        self.code.code()
    }

    /// Fraction digits of the minor unit: 2 for `USD`, 0 for `JPY`, 3 for `KWD`; at most
    /// [`MINOR_DIGITS_MAX`].
    pub fn minor_digits(self) -> u8 {
        self.minor_digits
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A rounded amount: a whole number of a currency's minor units. Negative amounts are credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i128,
    currency: Currency,
}

impl Money {
    /// Nothing, in a currency.
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// Rounds an exact amount to the currency's minor unit, half away from zero.
    ///
    /// ```
    /// # use tollgate_sql::money::{Currency, Exact, Money};
    /// let dollars = |text| Money::round(Exact::parse(text)?, Currency::parse("USD")?);
    /// assert_eq!(dollars("0.005")?.to_string(), "0.01 USD");
    /// assert_eq!(dollars("-0.005")?.to_string(), "-0.01 USD");
    /// assert_eq!(dollars("0.00499")?.to_string(), "0.00 USD");
    /// # Ok::<(), tollgate_sql::money::MoneyError>(())
    /// ```
    ///
    /// # Errors
    /// [`MoneyError::Unfit`] when the amount in minor units has more than 38 digits.
    pub fn round(amount: Exact, currency: Currency) -> Result<Self, MoneyError> {
        let rounded = round(amount, currency.minor_digits)?;
        Ok(Self {
            minor: rounded.digits,
            currency,
        })
    }

    /// So many minor units.
    pub fn of_minor(minor: i128, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// The amount in minor units: cents for `USD`.
    pub fn minor(self) -> i128 {
        self.minor
    }

    /// The currency.
    pub fn currency(self) -> Currency {
        self.currency
    }

    /// The same amount as a number, with the minor unit's fraction digits.
    pub fn to_exact(self) -> Exact {
        Exact {
            digits: self.minor,
            scale: self.currency.minor_digits,
        }
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::Currencies`] for two currencies, [`MoneyError::Overflow`] past 38 digits.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Currencies {
                left: self.currency,
                right: other.currency,
            });
        }
        let sum = self.to_exact().checked_add(other.to_exact())?;
        Ok(Self {
            minor: sum.digits_at(self.currency.minor_digits)?,
            currency: self.currency,
        })
    }

    /// The difference.
    ///
    /// # Errors
    /// As for [`Money::checked_add`].
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.checked_add(Self {
            minor: -other.minor,
            ..other
        })
    }

    /// The amount alone, always with every digit of the minor unit: `2.00`, `-0.05`, `100` for `JPY`.
    pub fn amount_text(self) -> String {
        self.to_exact().to_text_with_scale()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount_text(), self.currency)
    }
}

/// Rounds to `scale` fraction digits, half away from zero: 0.5 becomes 1, -0.5 becomes -1, 0.4999 becomes
/// 0. This and `quotient` are the only functions that round; everything else either keeps every digit
/// or fails.
///
/// The result has exactly `scale` fraction digits, also where the value had fewer.
///
/// # Errors
/// [`MoneyError::Unfit`] when that takes more than 38 digits.
pub fn round(value: Exact, scale: u8) -> Result<Exact, MoneyError> {
    let Some(dropped) = value.scale.checked_sub(scale).filter(|digits| *digits > 0) else {
        return Ok(Exact {
            digits: value.digits_at(scale)?,
            scale,
        });
    };
    let digits = match exact::power_of_ten(dropped) {
        Some(unit) => {
            let narrow = Rounding::HalfAway.narrow(value.digits, 0, unit);
            let digits = narrow.or_else(|| quotient(value.digits, 0, unit));
            digits.expect("a tenth of a number of 38 digits has fewer")
        }
        // The unit is 10^39 or more, so a value of at most 38 digits is less than half of it.
        None => 0,
    };
    Exact::new(digits, scale)
}

/// `digits · 10^zeros / divisor`, rounded half away from zero to a whole number; `divisor` is above
/// zero. `None` when it takes more than 38 digits, or more than 76 on the way.
pub(crate) fn quotient(digits: impl Into<i256>, zeros: u8, divisor: i128) -> Option<i128> {
    Rounding::HalfAway.whole(digits.into(), zeros.into(), i256::from_i128(divisor))
}
