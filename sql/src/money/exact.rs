//! Decimals that are never rounded, wrapped or truncated.

use super::MoneyError;
use arrow::{
    array::{Array, AsArray},
    datatypes::{
        DataType, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
        UInt32Type, UInt64Type, i256,
    },
};
use std::{cmp::Ordering, fmt, hash, iter};

/// How many digits a number may have, before and after the point together: what DECIMAL holds.
pub const DIGITS_MAX: u8 = 38;

/// The first whole number with more than [`DIGITS_MAX`] digits.
const LIMIT: i128 = 10_i128.pow(38);

/// An exact decimal, `digits / 10^scale`, of up to 38 digits: what a SQL DECIMAL holds.
///
/// Two numbers are equal, ordered, hashed and printed by value: `1.50` and `1.5` are the same, and both
/// print as `1.5`. The scale only says how many fraction digits the number was written with.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    /// All digits, with the sign.
    pub digits: i128,
    /// How many of them are after the point.
    pub scale: u8,
}

impl Exact {
    /// Nothing.
    pub const ZERO: Self = Self {
        digits: 0,
        scale: 0,
    };

    /// A number of at most 38 digits and 38 fraction digits; where it is written with more, zeros at the
    /// end are left off to make it fit.
    ///
    /// # Errors
    /// [`MoneyError::Unfit`] when it does not.
    pub fn new(digits: i128, scale: u8) -> Result<Self, MoneyError> {
        let written = Self { digits, scale };
        if written.fits() {
            return Ok(written);
        }
        let short = written.without_trailing_zeros();
        if short.fits() {
            Ok(short)
        } else {
            Err(written.unfit(scale.min(DIGITS_MAX)))
        }
    }

    /// What a Decimal128 of this scale holds; a negative scale stands for zeros before the point.
    ///
    /// # Errors
    /// [`MoneyError::Unfit`] for more than 38 digits.
    pub fn from_decimal(digits: i128, scale: i8) -> Result<Self, MoneyError> {
        match u8::try_from(scale) {
            Ok(scale) => Self::new(digits, scale),
            Err(_) => power_of_ten(scale.unsigned_abs())
                .and_then(|zeros| digits.checked_mul(zeros))
                .ok_or_else(|| Self { digits, scale: 0 }.unfit(0))
                .and_then(|whole| Self::new(whole, 0)),
        }
    }

    /// One row of a column of integers or Decimal128; `None` where it is NULL.
    ///
    /// # Errors
    /// [`MoneyError::Parse`] for a column of another type, [`MoneyError::Unfit`] for a decimal outside its
    /// own precision.
    pub fn from_array(array: &dyn Array, row: usize) -> Result<Option<Self>, MoneyError> {
        // A column of type Null has no validity bits: there every row is NULL.
        if array.is_null(row) || array.data_type() == &DataType::Null {
            return Ok(None);
        }
        let whole: i128 = match array.data_type() {
            DataType::Decimal128(_, scale) => {
                let digits = array.as_primitive::<Decimal128Type>().value(row);
                return Self::from_decimal(digits, *scale).map(Some);
            }
            DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
            DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
            DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
            DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
            DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
            DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
            other => {
                return Err(MoneyError::Parse {
                    text: other.to_string(),
                    problem: "a column of this type holds no exact numbers",
                });
            }
        };
        Self::new(whole, 0).map(Some)
    }

    /// Reads a plain decimal: an optional sign, digits, and optionally a point with digits after it. No
    /// exponent, no spaces, no separators. Keeps the scale it is written with.
    ///
    /// # Errors
    /// [`MoneyError::Parse`] for anything else and for more than 38 digits.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let fail = |problem| MoneyError::Parse {
            text: text.chars().take(60).collect(),
            problem,
        };
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((_, "")) => return Err(fail("digits must follow the point")),
            Some(parts) => parts,
            None => (unsigned, ""),
        };
        if whole.is_empty() {
            return Err(fail("it does not begin with a digit"));
        }
        let mut digits: i128 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return Err(fail("only digits, one sign and one point are allowed"));
            }
            digits = digits
                .checked_mul(10)
                .and_then(|shifted| shifted.checked_add((byte - b'0').into()))
                .ok_or_else(|| fail("it has more than 38 digits"))?;
        }
        if text.starts_with('-') {
            digits = -digits;
        }
        let scale = u8::try_from(fraction.len()).map_err(|_| fail("it has too many digits"))?;
        Self::new(digits, scale).map_err(|_| fail("it has more than 38 digits"))
    }

    /// The sum, exactly.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] when it needs more than 38 digits.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, '+', i128::checked_add, i256::checked_add)
    }

    /// The difference, exactly.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] when it needs more than 38 digits.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, '-', i128::checked_sub, i256::checked_sub)
    }

    /// The product, exactly; its scale is the sum of the scales unless it only fits without zeros at the
    /// end.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] when it needs more than 38 digits.
    pub fn checked_mul(self, other: Self) -> Result<Self, MoneyError> {
        let scale = u16::from(self.scale) + u16::from(other.scale);
        let narrow = self.digits.checked_mul(other.digits);
        if let Some(exact) = narrow.and_then(|digits| fit_as_it_is(digits, scale)) {
            return Ok(exact);
        }
        narrow
            .map(i256::from_i128)
            .or_else(|| wide(self.digits).checked_mul(wide(other.digits)))
            .and_then(|product| fit(product, scale))
            .ok_or_else(|| self.overflow('*', other))
    }

    /// This number's digits when it is written with exactly `scale` after the point.
    ///
    /// # Errors
    /// [`MoneyError::Unfit`] when that would lose a digit or take more than 38.
    pub fn digits_at(self, scale: u8) -> Result<i128, MoneyError> {
        let digits = if scale >= self.scale {
            power_of_ten(scale - self.scale).and_then(|zeros| self.digits.checked_mul(zeros))
        } else {
            power_of_ten(self.scale - scale)
                .filter(|unit| self.digits % unit == 0)
                .map(|unit| self.digits / unit)
        };
        digits
            .or((self.digits == 0).then_some(0))
            .filter(|digits| (-LIMIT < *digits) && (*digits < LIMIT))
            .ok_or_else(|| self.unfit(scale))
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.digits == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.digits < 0
    }

    /// The text with all `scale` fraction digits; `Display` leaves zeros at the end off.
    pub fn to_text_with_scale(self) -> String {
        let scale = usize::from(self.scale);
        let digits = self.digits.unsigned_abs().to_string();
        let mut text = String::with_capacity(digits.len() + scale + 3);
        if self.digits < 0 {
            text.push('-');
        }
        // One digit more than the fraction has, so that there is always one before the point.
        let zeros = (scale + 1).saturating_sub(digits.len());
        text.extend(iter::repeat_n('0', zeros));
        text.push_str(&digits);
        if scale > 0 {
            text.insert(text.len() - scale, '.');
        }
        text
    }

    /// The same value with the fewest fraction digits.
    pub fn without_trailing_zeros(self) -> Self {
        // 128 bits are divided ten times slower than 64.
        if let Ok(mut digits) = i64::try_from(self.digits) {
            let mut scale = self.scale;
            while scale > 0 && digits % 10 == 0 {
                digits /= 10;
                scale -= 1;
            }
            return Self {
                digits: digits.into(),
                scale,
            };
        }
        let mut short = self;
        while short.scale > 0 && short.digits % 10 == 0 {
            short.digits /= 10;
            short.scale -= 1;
        }
        short
    }

    /// Brings both to one scale and combines them, in 256 bits when 128 are too few.
    fn combine(
        self,
        other: Self,
        operator: char,
        narrow: fn(i128, i128) -> Option<i128>,
        wide: fn(i256, i256) -> Option<i256>,
    ) -> Result<Self, MoneyError> {
        let scale = self.scale.max(other.scale);
        let quick = || narrow(self.narrow_digits(scale)?, other.narrow_digits(scale)?);
        let quick = quick();
        if let Some(exact) = quick.and_then(|digits| fit_as_it_is(digits, scale.into())) {
            return Ok(exact);
        }
        quick
            .map(i256::from_i128)
            .or_else(|| wide(self.wide_digits(scale)?, other.wide_digits(scale)?))
            .and_then(|result| fit(result, scale.into()))
            .ok_or_else(|| self.overflow(operator, other))
    }

    /// The digits at a larger scale, if 128 bits hold them.
    fn narrow_digits(self, scale: u8) -> Option<i128> {
        if scale == self.scale {
            return Some(self.digits);
        }
        power_of_ten(scale - self.scale)?.checked_mul(self.digits)
    }

    /// The digits at a larger scale, if 256 bits hold them; they do up to 38 digits more.
    fn wide_digits(self, scale: u8) -> Option<i256> {
        wide(power_of_ten(scale - self.scale)?).checked_mul(wide(self.digits))
    }

    fn fits(self) -> bool {
        self.scale <= DIGITS_MAX && self.digits < LIMIT && self.digits > -LIMIT
    }

    fn unfit(self, scale: u8) -> MoneyError {
        MoneyError::Unfit { value: self, scale }
    }

    fn overflow(self, operator: char, right: Self) -> MoneyError {
        MoneyError::Overflow {
            left: self,
            operator,
            right,
        }
    }
}

/// 10^`exponent`, if 128 bits hold it: up to 38.
pub(super) fn power_of_ten(exponent: u8) -> Option<i128> {
    POWERS_OF_TEN.get(usize::from(exponent)).copied()
}

/// The powers of ten that 128 bits hold.
const POWERS_OF_TEN: [i128; 39] = {
    let mut powers = [1; 39];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

fn wide(digits: i128) -> i256 {
    i256::from_i128(digits)
}

/// The number, if it fits without leaving off zeros.
fn fit_as_it_is(digits: i128, scale: u16) -> Option<Exact> {
    let scale = u8::try_from(scale).ok()?;
    Some(Exact { digits, scale }).filter(|exact| exact.fits())
}

/// The number, after leaving off as many zeros at its end as it takes to fit 38 digits.
fn fit(digits: i256, scale: u16) -> Option<Exact> {
    let ten = wide(10);
    let (mut digits, mut scale) = (digits, scale);
    loop {
        let narrow = digits.to_i128().zip(u8::try_from(scale).ok());
        let exact = narrow.map(|(digits, scale)| Exact { digits, scale });
        if let Some(exact) = exact.filter(|exact| exact.fits()) {
            return Some(exact);
        }
        if scale == 0 || digits.checked_rem(ten)? != i256::ZERO {
            return None;
        }
        digits = digits.checked_div(ten)?;
        scale -= 1;
    }
}

/// [`rust_decimal::Decimal`] is what Rust services hold amounts in: 28 digits always fit.
impl From<rust_decimal::Decimal> for Exact {
    fn from(value: rust_decimal::Decimal) -> Self {
        let scale = u8::try_from(value.scale()).expect("a Decimal has at most 28 fraction digits");
        Self {
            digits: value.mantissa(),
            scale,
        }
    }
}

/// The other way, for numbers of up to 28 digits; a longer one is refused, never rounded.
impl TryFrom<Exact> for rust_decimal::Decimal {
    type Error = MoneyError;

    fn try_from(value: Exact) -> Result<Self, MoneyError> {
        let value = value.without_trailing_zeros();
        Self::try_from_i128_with_scale(value.digits, u32::from(value.scale))
            .map_err(|_| value.unfit(value.scale))
    }
}

impl From<i64> for Exact {
    fn from(whole: i64) -> Self {
        Self {
            digits: whole.into(),
            scale: 0,
        }
    }
}

impl From<u64> for Exact {
    fn from(whole: u64) -> Self {
        Self {
            digits: whole.into(),
            scale: 0,
        }
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.without_trailing_zeros().to_text_with_scale())
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        if let (Some(left), Some(right)) = (self.narrow_digits(scale), other.narrow_digits(scale)) {
            return left.cmp(&right);
        }
        match (self.wide_digits(scale), other.wide_digits(scale)) {
            (Some(left), Some(right)) => left.cmp(&right),
            // More than 38 fraction digits apart: the one with fewer is larger in size, unless it is zero.
            (None, _) if self.digits != 0 => self.digits.cmp(&0),
            (_, None) if other.digits != 0 => 0.cmp(&other.digits),
            _ => self.digits.cmp(&other.digits),
        }
    }
}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Exact {}

impl hash::Hash for Exact {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        let short = self.without_trailing_zeros();
        (short.digits, short.scale).hash(state);
    }
}
