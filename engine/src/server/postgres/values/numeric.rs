//! NUMERIC as clients send and read it, exact to every digit: as text, and as groups of four digits (pure).
//!
//! In binary a number is `count, weight, sign, scale` and then so many groups, each two bytes: `weight` is the power of 10,000 of the
//! first group, `scale` says how many digits stand after the point.

/// A number by its digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numeric {
    is_negative: bool,
    /// All digits without the point, at least one more than stand after it.
    digits: String,
    /// How many of them stand after the point.
    scale: usize,
}

/// A number has at most so many digits on either side of the point; the widest decimal there is has 76.
const DIGITS_MAX: usize = 1_000;

const NEGATIVE: u16 = 0x4000;

impl Numeric {
    /// That of a decimal: an integer's digits, maybe with a sign, and how many of them stand after the point.
    pub(crate) fn of(unscaled: &str, scale: i8) -> Self {
        let (is_negative, digits) = match unscaled.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, unscaled),
        };
        let after = usize::try_from(scale).unwrap_or(0);
        let before = usize::from(scale.unsigned_abs()) - after;
        let digits = format!("{digits}{}", "0".repeat(before));
        Numeric::normal(is_negative, &digits, after)
    }

    /// The same number always in the same form: no zero is before the first digit but the one before the point, and zero has
    /// no sign.
    fn normal(is_negative: bool, digits: &str, scale: usize) -> Self {
        let digits = digits.trim_start_matches('0');
        Numeric {
            is_negative: is_negative && !digits.is_empty(),
            digits: format!("{digits:0>width$}", width = scale + 1),
            scale,
        }
    }

    /// As SQL and people write it, with all digits after the point.
    pub(crate) fn text(&self) -> String {
        let (whole, fraction) = self.digits.split_at(self.digits.len() - self.scale);
        let sign = if self.is_negative { "-" } else { "" };
        match fraction {
            "" => format!("{sign}{whole}"),
            fraction => format!("{sign}{whole}.{fraction}"),
        }
    }

    /// As the protocol has it in binary; `None` for more groups than it can count.
    pub(crate) fn binary(&self) -> Option<Vec<u8>> {
        let (whole, fraction) = self.digits.split_at(self.digits.len() - self.scale);
        let before = whole.len().div_ceil(4);
        let digits = format!(
            "{whole:0>before$}{fraction:0<after$}",
            before = before * 4,
            after = self.scale.div_ceil(4) * 4
        );
        let groups = digits.as_bytes().chunks(4).map(|group| {
            let digits = group.iter().map(|digit| u16::from(digit - b'0'));
            digits.fold(0, |value, digit| value * 10 + digit)
        });
        let groups: Vec<u16> = groups.collect();
        let leading = groups.iter().take_while(|group| **group == 0).count();
        let trailing = groups.iter().rev().take_while(|group| **group == 0).count();
        let kept = groups.get(leading..groups.len() - trailing).unwrap_or(&[]);
        let weight = match kept {
            [] => 0,
            _ => i16::try_from(before).ok()? - 1 - i16::try_from(leading).ok()?,
        };
        let sign = if self.is_negative { NEGATIVE } else { 0 };
        let mut bytes = Vec::with_capacity(8 + kept.len() * 2);
        bytes.extend(u16::try_from(kept.len()).ok()?.to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(u16::try_from(self.scale).ok()?.to_be_bytes());
        bytes.extend(kept.iter().flat_map(|group| group.to_be_bytes()));
        Some(bytes)
    }

    /// Reads a number as it is written, with an exponent too.
    ///
    /// # Errors
    /// It is no number, is not finite, or has too many digits.
    pub(crate) fn read_text(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no number that has an exact value");
        let text = text.trim();
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i16>().map_err(|_| refused())?)
            }
            None => (text, 0),
        };
        let (is_negative, unsigned) = match mantissa.strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole) || !are_digits(fraction) || whole.len() + fraction.len() == 0 {
            return Err(refused());
        }
        let digits = format!("{whole}{fraction}");
        let before = isize::try_from(whole.len()).map_err(|_| refused())?;
        Numeric::at_point(is_negative, &digits, before + isize::from(exponent), None)
    }

    /// Reads a number in binary.
    ///
    /// # Errors
    /// It is none, is not finite, or has too many digits.
    pub(crate) fn read_binary(bytes: &[u8]) -> Result<Self, String> {
        let refused = || "a NUMERIC is not written as the protocol has it".to_owned();
        let (words, rest) = bytes.as_chunks::<2>();
        let words: Vec<u16> = words.iter().map(|word| u16::from_be_bytes(*word)).collect();
        let [count, weight, sign, scale, groups @ ..] = words.as_slice() else {
            return Err(refused());
        };
        let is_whole = usize::from(*count) == groups.len() && rest.is_empty();
        if !is_whole || groups.iter().any(|group| *group > 9_999) {
            return Err(refused());
        }
        let is_negative = match *sign {
            0 => false,
            NEGATIVE => true,
            0xC000 | 0xD000 | 0xF000 => {
                return Err("NaN and Infinity are no numbers that have an exact value".to_owned());
            }
            _ => return Err(refused()),
        };
        let digits: String = groups.iter().map(|group| format!("{group:04}")).collect();
        let weight = isize::from(weight.cast_signed());
        let scale = Some(usize::from(*scale));
        Numeric::at_point(is_negative, &digits, (weight + 1) * 4, scale)
    }

    /// The number of these digits, of which so many stand before the point: fewer than none when zeros follow it, more than all
    /// when zeros precede it. Digits beyond `scale` are zeros.
    fn at_point(
        is_negative: bool,
        digits: &str,
        before: isize,
        scale: Option<usize>,
    ) -> Result<Self, String> {
        let too_long = || format!("a number has more than {DIGITS_MAX} digits");
        let most = isize::try_from(DIGITS_MAX).map_err(|_| too_long())?;
        if digits.len() > DIGITS_MAX || before.abs() > most || scale > Some(DIGITS_MAX) {
            return Err(too_long());
        }
        let (whole, fraction) = match usize::try_from(before) {
            Ok(before) if before <= digits.len() => {
                let (whole, fraction) = digits.split_at(before);
                (whole.to_owned(), fraction.to_owned())
            }
            Ok(before) => (format!("{digits:0<before$}"), String::new()),
            Err(_) => {
                let zeros = "0".repeat(before.unsigned_abs());
                (String::new(), format!("{zeros}{digits}"))
            }
        };
        let scale = scale.unwrap_or(fraction.len());
        let (kept, beyond) = fraction.split_at(scale.min(fraction.len()));
        if beyond.bytes().any(|digit| digit != b'0') {
            return Err("a NUMERIC has digits beyond its scale".to_owned());
        }
        let digits = format!("{whole}{kept:0<scale$}");
        Ok(Numeric::normal(is_negative, &digits, scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(number: &Numeric) -> Vec<u16> {
        let bytes = number.binary().unwrap();
        let (words, []) = bytes.as_chunks::<2>() else {
            panic!("an odd number of bytes");
        };
        words.iter().map(|word| u16::from_be_bytes(*word)).collect()
    }

    #[test]
    fn a_decimal_is_written_with_every_digit() {
        let most = "99999999999999999999999999999999999999";
        for (unscaled, scale, text) in [
            ("0", 0, "0"),
            ("0", 2, "0.00"),
            ("-5", 3, "-0.005"),
            ("12345", 2, "123.45"),
            ("100", -3, "100000"),
            (most, 0, most),
            (most, 38, "0.99999999999999999999999999999999999999"),
            (
                "-12345678901234567890123456789012345678",
                18,
                "-12345678901234567890.123456789012345678",
            ),
        ] {
            let number = Numeric::of(unscaled, scale);
            assert_eq!(number.text(), text);
            assert_eq!(Numeric::read_text(text).unwrap(), number, "{text}");
            let binary = number.binary().unwrap();
            assert_eq!(Numeric::read_binary(&binary).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn groups_are_as_postgresql_sends_them() {
        // From `SELECT numeric_send(…)` of PostgreSQL.
        let weight = |weight: i16| weight.cast_unsigned();
        for (text, expected) in [
            ("0", vec![0, 0, 0, 0]),
            ("0.00", vec![0, 0, 0, 2]),
            ("1", vec![1, 0, 0, 0, 1]),
            ("10000", vec![1, 1, 0, 0, 1]),
            ("-123.45", vec![2, 0, NEGATIVE, 2, 123, 4500]),
            ("0.0001", vec![1, weight(-1), 0, 4, 1]),
            ("0.00001", vec![1, weight(-2), 0, 5, 1000]),
            ("12345678.9", vec![3, 1, 0, 1, 1234, 5678, 9000]),
            ("100000000.0001", vec![4, 2, 0, 4, 1, 0, 0, 1]),
        ] {
            assert_eq!(
                words(&Numeric::read_text(text).unwrap()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_written_otherwise_is_the_same_number() {
        for (text, same) in [
            (" +7 ", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("007", "7"),
            ("-0.0", "0.0"),
            ("1e3", "1000"),
            ("1.25E+1", "12.5"),
            ("125e-2", "1.25"),
            ("5e-4", "0.0005"),
        ] {
            assert_eq!(Numeric::read_text(text).unwrap().text(), same, "{text}");
        }
    }

    #[test]
    fn what_is_no_exact_number_is_refused() {
        for text in [
            "", ".", "-", "1,5", "0x10", "NaN", "Infinity", "1e", "1e99999", "1e2000", "--1", "١",
        ] {
            assert!(Numeric::read_text(text).is_err(), "{text}");
        }
        assert!(Numeric::read_text(&"1".repeat(1_001)).is_err());
        for words in [
            vec![],
            vec![1, 0, 0, 0],
            vec![0, 0, 0, 0, 1],
            vec![1, 0, 0, 0, 10_000],
            vec![0, 0, 0xC000, 0],
            vec![0, 0, 7, 0],
            vec![1, 0x7FFF, 0, 0, 1],
            vec![1, u16::MAX, 0, 2, 1],
        ] {
            let bytes: Vec<u8> = words
                .iter()
                .flat_map(|word: &u16| word.to_be_bytes())
                .collect();
            assert!(Numeric::read_binary(&bytes).is_err(), "{words:?}");
        }
        assert!(Numeric::read_binary(&[0; 9]).is_err());
    }

    proptest! {
        #[test]
        fn every_number_of_38_digits_comes_back(
            digits in "-?[1-9][0-9]{0,37}",
            scale in 0_i8..=38,
        ) {
            let number = Numeric::of(&digits, scale);
            prop_assert_eq!(&Numeric::read_text(&number.text()).unwrap(), &number);
            let binary = number.binary().unwrap();
            prop_assert_eq!(Numeric::read_binary(&binary).unwrap(), number);
        }
    }
}
