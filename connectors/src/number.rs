//! JSON numbers to exact integers and decimals, from their text. Never through a float.

use std::fmt;

/// Why a number does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberFault {
    /// It has more fraction digits than the column, and they are not all zero.
    Fraction,
    /// It has more whole digits than the column.
    Range,
}

impl fmt::Display for NumberFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NumberFault::Fraction => "has more fraction digits than",
            NumberFault::Range => "is out of range for",
        })
    }
}

/// The exact value of a JSON number as an `i64`. `5.0` and `1e3` are the integers 5 and 1000, for
/// their value is; `1.5` is not.
///
/// `token` must follow the grammar of JSON.
pub(crate) fn integer(token: &str) -> Result<i64, NumberFault> {
    if let Some(value) = short_integer(token.as_bytes()) {
        return Ok(value);
    }
    i64::try_from(scaled(token, 0)?).map_err(|_| NumberFault::Range)
}

/// The exact value of a JSON number, times ten to the `scale`, when it has at most `precision` digits
/// (at most 38).
///
/// `token` must follow the grammar of JSON.
pub(crate) fn decimal(token: &str, precision: u8, scale: u32) -> Result<i128, NumberFault> {
    let value = scaled(token, scale)?;
    match 10u128.checked_pow(u32::from(precision)) {
        Some(limit) if value.unsigned_abs() < limit => Ok(value),
        _ => Err(NumberFault::Range),
    }
}

/// Appends the exact value of a JSON number in the one way that all spellings of it share: the digits from the first to
/// the last that is not zero, the exponent of the last one in sixteen bytes, the sign. Nothing but `0` for zero.
///
/// The exponent is taken modulo two to the 128: what is compared by hashes is so too.
///
/// `token` must follow the grammar of JSON.
pub(crate) fn put_value(token: &str, out: &mut Vec<u8>) {
    let (negative, unsigned) = match token.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, token),
    };
    let first = out.len();
    let mut shift = 0i128;
    let mut bytes = unsigned.bytes();
    let mut is_fraction = false;
    for byte in bytes.by_ref() {
        match byte {
            b'.' => is_fraction = true,
            b'e' | b'E' => break,
            digit => {
                shift -= i128::from(is_fraction);
                if digit != b'0' || out.len() > first {
                    out.push(digit);
                }
            }
        }
    }
    while out.len() > first && out.last() == Some(&b'0') {
        out.pop();
        shift += 1;
    }
    if out.len() == first {
        out.push(b'0');
        return;
    }
    let mut exponent = 0i128;
    let mut is_below_one = false;
    for byte in bytes {
        match byte {
            b'-' => is_below_one = true,
            b'+' => {}
            digit => {
                let digit = i128::from(digit.wrapping_sub(b'0'));
                exponent = exponent.wrapping_mul(10).wrapping_add(digit);
            }
        }
    }
    if is_below_one {
        exponent = exponent.wrapping_neg();
    }
    out.extend_from_slice(&exponent.wrapping_add(shift).to_le_bytes());
    out.push(if negative { b'-' } else { b'+' });
}

/// Up to 18 digits and nothing else: what nearly every count is.
fn short_integer(token: &[u8]) -> Option<i64> {
    if token.len() > 18 {
        return None;
    }
    token.iter().try_fold(0i64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + i64::from(digit))
    })
}

/// The value of a token times ten to the `scale`, when that is a whole number of at most 38 digits.
fn scaled(token: &str, scale: u32) -> Result<i128, NumberFault> {
    let number = Parts::of(token);
    if number.is_zero {
        return Ok(0);
    }
    let shift = number.exponent + i64::from(scale);
    let shift = u32::try_from(shift).map_err(|_| too_fine_or_too_large(shift))?;
    let factor = 10i128.checked_pow(shift).ok_or(NumberFault::Range)?;
    let magnitude = number.coefficient.and_then(|c| c.checked_mul(factor));
    let magnitude = magnitude.ok_or(NumberFault::Range)?;
    Ok(if number.negative {
        -magnitude
    } else {
        magnitude
    })
}

fn too_fine_or_too_large(shift: i64) -> NumberFault {
    if shift < 0 {
        NumberFault::Fraction
    } else {
        NumberFault::Range
    }
}

/// A number as coefficient times ten to the exponent, where the coefficient ends in a digit that is
/// not zero; so a negative exponent means that fraction digits are really needed.
struct Parts {
    negative: bool,
    is_zero: bool,
    /// `None` when it has too many digits for an `i128`.
    coefficient: Option<i128>,
    exponent: i64,
}

impl Parts {
    fn of(token: &str) -> Self {
        let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
        let unsigned = mantissa.strip_prefix('-');
        let digits = unsigned.unwrap_or(mantissa);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mut parts = Parts {
            negative: unsigned.is_some(),
            is_zero: true,
            coefficient: Some(0),
            exponent: written_exponent(exponent),
        };
        // A digit moves the point by one place; a fraction digit that ends as trailing zero moves
        // it back.
        let mut zeros = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            parts.push(byte.wrapping_sub(b'0'), &mut zeros);
        }
        parts.exponent += i64::from(zeros) - length(fraction);
        parts
    }

    fn push(&mut self, digit: u8, zeros: &mut u32) {
        if digit == 0 {
            *zeros += u32::from(!self.is_zero);
            return;
        }
        self.is_zero = false;
        let shifted = 10i128
            .checked_pow(*zeros + 1)
            .zip(self.coefficient)
            .and_then(|(factor, coefficient)| coefficient.checked_mul(factor));
        self.coefficient = shifted.and_then(|c| c.checked_add(i128::from(digit)));
        *zeros = 0;
    }
}

/// The exponent, held within a billion: beyond any token's length, so the verdict is the same.
fn written_exponent(text: &str) -> i64 {
    const BOUND: i64 = 1_000_000_000;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let magnitude = unsigned.bytes().fold(0i64, |value, byte| {
        (value * 10 + i64::from(byte.wrapping_sub(b'0'))).min(BOUND)
    });
    if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    }
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::NumberFault::{Fraction, Range};
    use super::*;

    #[test]
    fn integers_are_exact_where_floats_are_not() {
        assert_eq!(integer("9007199254740993"), Ok(9_007_199_254_740_993)); // 2^53 + 1
        assert_eq!(integer("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer("9223372036854775808"), Err(Range));
        assert_eq!(integer("-9223372036854775809"), Err(Range));
        assert_eq!(integer("999999999999999999"), Ok(999_999_999_999_999_999));
        assert_eq!(
            integer("1000000000000000000"),
            Ok(1_000_000_000_000_000_000)
        );
    }

    #[test]
    fn integers_go_by_value_not_by_spelling() {
        assert_eq!(integer("5.0"), Ok(5));
        assert_eq!(integer("1e3"), Ok(1000));
        assert_eq!(integer("1.5E1"), Ok(15));
        assert_eq!(integer("1500e-2"), Ok(15));
        assert_eq!(integer("-0"), Ok(0));
        assert_eq!(integer("0e999999999999999999999"), Ok(0));
        assert_eq!(integer("1.5"), Err(Fraction));
        assert_eq!(integer("15e-2"), Err(Fraction));
        assert_eq!(integer("1e400"), Err(Range));
        assert_eq!(integer("1e-400"), Err(Fraction));
        assert_eq!(integer("1e99999999999999999999999"), Err(Range));
        assert_eq!(integer("1e-99999999999999999999999"), Err(Fraction));
    }

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        assert_eq!(decimal("0.1", 18, 9), Ok(100_000_000));
        assert_eq!(
            decimal("0.30000000000000004", 18, 17),
            Ok(30_000_000_000_000_004)
        );
        assert_eq!(decimal("1.123456789", 18, 9), Ok(1_123_456_789));
        assert_eq!(decimal("1.1234567890000", 18, 9), Ok(1_123_456_789));
        assert_eq!(decimal("1.1234567891", 18, 9), Err(Fraction));
        assert_eq!(decimal("-2.50", 5, 2), Ok(-250));
        assert_eq!(decimal("25e-1", 5, 2), Ok(250));
        assert_eq!(decimal("0.000000001e9", 5, 2), Ok(100));
        assert_eq!(decimal("999.99", 5, 2), Ok(99_999));
        assert_eq!(decimal("1000", 5, 2), Err(Range));
        assert_eq!(decimal("999.999", 5, 2), Err(Fraction));
    }

    #[test]
    fn thirty_eight_digits_fit_and_thirty_nine_do_not() {
        let nines = "9".repeat(38);
        assert_eq!(decimal(&nines, 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(decimal(&format!("-{nines}"), 38, 0), Ok(1 - 10i128.pow(38)));
        assert_eq!(decimal(&format!("1{}", "0".repeat(38)), 38, 0), Err(Range));
        assert_eq!(decimal(&"9".repeat(300), 38, 0), Err(Range));
        assert_eq!(
            decimal(&format!("0.{}", "9".repeat(38)), 38, 38),
            Ok(10i128.pow(38) - 1)
        );
        assert_eq!(
            decimal(&format!("0.{}", "9".repeat(39)), 38, 38),
            Err(Fraction)
        );
        assert_eq!(decimal(&format!("1{}e-60", "0".repeat(60)), 38, 0), Ok(1));
    }
}
