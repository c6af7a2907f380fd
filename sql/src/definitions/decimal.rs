//! The one reader of exact decimals from text: a number that does not fit is refused, never rounded.

/// Longest text that is read as a decimal, in bytes. 38 digits with sign, point and exponent fit
/// several times; anything longer is a mistake or an attack.
pub const DECIMAL_TEXT_BYTES_MAX: usize = 128;

/// Why a text is not a decimal of the wanted precision and scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecimalError {
    /// More than [`DECIMAL_TEXT_BYTES_MAX`] bytes.
    #[error("longer than {DECIMAL_TEXT_BYTES_MAX} characters")]
    TooLong,
    /// Not `[+-]digits[.digits][e[+-]digits]`.
    #[error("not a decimal number")]
    NotANumber,
    /// Digits after the point that the scale has no place for.
    #[error("more than {scale} digits after the point")]
    TooFine {
        /// Digits after the point that fit.
        scale: i8,
    },
    /// Digits before the point that the precision has no place for.
    #[error("too large for DECIMAL({precision}, {scale})")]
    TooLarge {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
}

/// Reads a decimal and returns it multiplied by `10^scale`, exactly, as Arrow stores a
/// `Decimal128(precision, scale)`.
///
/// Takes an optional sign, digits with at most one point (a digit on one side is enough) and an
/// exponent: `7`, `-0.5`, `.5`, `1.5e-07`. Zeros that say nothing are ignored, so `1.500` fits a
/// scale of 1. `-0` is 0. Spaces, `NaN`, `Infinity`, `1_000` and `1,000` are not numbers.
///
/// ```
/// # use tollgate_sql::definitions::{parse_decimal, DecimalError};
/// assert_eq!(parse_decimal("1.5e-07", 38, 18), Ok(150_000_000_000));
/// assert_eq!(parse_decimal("0.105", 18, 2), Err(DecimalError::TooFine { scale: 2 }));
/// ```
///
/// # Errors
/// See [`DecimalError`].
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, DecimalError> {
    if text.len() > DECIMAL_TEXT_BYTES_MAX {
        return Err(DecimalError::TooLong);
    }
    let number = read(text).ok_or(DecimalError::NotANumber)?;
    if number.digits.is_empty() {
        return Ok(0);
    }
    let too_large = DecimalError::TooLarge { precision, scale };
    // The last digit is not zero, so a shift to the right would lose it.
    let shift = number.exponent.saturating_add(i64::from(scale));
    let shift = usize::try_from(shift).map_err(|_| DecimalError::TooFine { scale })?;
    if number.digits.len().saturating_add(shift) > usize::from(precision) {
        return Err(too_large);
    }
    let digits = number.digits + &"0".repeat(shift);
    let value: i128 = digits.parse().map_err(|_| too_large)?;
    Ok(if number.negative { -value } else { value })
}

/// `±digits × 10^exponent`, in which `digits` neither starts nor ends with 0; empty for zero.
struct Number {
    negative: bool,
    digits: String,
    exponent: i64,
}

fn read(text: &str) -> Option<Number> {
    let (negative, unsigned) = sign(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if !is_digits(&digits) {
        return None;
    }
    let kept = digits.trim_end_matches('0');
    let dropped = digits.len() - kept.len();
    let places = i64::try_from(fraction.len()).ok()? - i64::try_from(dropped).ok()?;
    Some(Number {
        negative,
        digits: kept.trim_start_matches('0').to_owned(),
        exponent: exponent.checked_sub(places)?,
    })
}

fn read_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = sign(text);
    if !is_digits(digits) {
        return None;
    }
    // An exponent this long fits no column, unless the number is 0; its sign is all that counts.
    let size = digits.parse::<i32>().unwrap_or(i32::MAX);
    Some(if negative {
        -i64::from(size)
    } else {
        i64::from(size)
    })
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_read_exactly() {
        for (text, precision, scale, value) in [
            ("0", 1, 0, 0),
            ("-0", 1, 0, 0),
            ("0e999999999999", 1, 0, 0),
            ("007", 1, 0, 7),
            ("+12", 2, 0, 12),
            ("-12.34", 4, 2, -1234),
            (".5", 2, 1, 5),
            ("5.", 2, 1, 50),
            ("1.500", 2, 1, 15),
            ("1.5e-07", 38, 18, 150_000_000_000),
            ("1.5E3", 4, 0, 1500),
            ("1500e-2", 2, 0, 15),
            ("12e1", 3, 0, 120),
            ("1200", 2, -2, 12),
            (
                "99999999999999999999999999999999999999",
                38,
                0,
                10_i128.pow(38) - 1,
            ),
            (
                "-0.99999999999999999999999999999999999999",
                38,
                38,
                1 - 10_i128.pow(38),
            ),
            ("0.000000000000000001", 38, 18, 1),
        ] {
            assert_eq!(parse_decimal(text, precision, scale), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        let fine = |scale| Err(DecimalError::TooFine { scale });
        let large = |precision, scale| Err(DecimalError::TooLarge { precision, scale });
        assert_eq!(parse_decimal("0.105", 18, 2), fine(2));
        assert_eq!(parse_decimal("1e-999999999999", 18, 2), fine(2));
        assert_eq!(parse_decimal("1250", 2, -2), fine(-2));
        assert_eq!(parse_decimal("100", 2, 0), large(2, 0));
        assert_eq!(parse_decimal("10", 3, 2), large(3, 2));
        assert_eq!(parse_decimal("1e999999999999", 38, 0), large(38, 0));
        assert_eq!(parse_decimal(&"9".repeat(39), 38, 0), large(38, 0));
    }

    #[test]
    fn a_text_that_is_no_number_is_refused() {
        for text in [
            "", "-", "+", ".", "-.", "e5", "1e", "1e+", "1e1.5", "1.2.3", "--1", "+-1", " 1", "1 ",
            "1_000", "1,000", "0x10", "NaN", "inf", "١", "1e--2", "1-", "1.-5", "1.+5",
        ] {
            assert_eq!(
                parse_decimal(text, 38, 9),
                Err(DecimalError::NotANumber),
                "{text}"
            );
        }
    }

    #[test]
    fn a_text_is_read_up_to_its_longest_length() {
        let zeros = "0".repeat(DECIMAL_TEXT_BYTES_MAX - 1);
        assert_eq!(parse_decimal(&format!("{zeros}7"), 1, 0), Ok(7));
        assert_eq!(
            parse_decimal(&format!("{zeros}07"), 1, 0),
            Err(DecimalError::TooLong)
        );
    }
}
