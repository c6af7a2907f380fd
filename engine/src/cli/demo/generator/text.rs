//! Numbers and times as text, appended to a buffer without an allocation.

use tollgate_sql::window::DAY_US;
const DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut n, mut tens, mut ones) = (0, b'0', b'0');
    while n < pairs.len() {
        pairs[n] = [tens, ones];
        n += 1;
        ones += 1;
        if ones > b'9' {
            ones = b'0';
            tens += 1;
        }
    }
    pairs
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `n` below 100 as two digits.
#[inline]
fn pair(n: u64) -> [u8; 2] {
    DIGIT_PAIRS[usize::try_from(n % 100).expect("it is below 100")]
}

/// Appends a whole number.
#[inline]
pub(super) fn put_number(out: &mut Vec<u8>, n: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = n;
    while rest >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(rest));
        rest /= 100;
    }
    if rest > 0 || n == 0 {
        at -= 1;
        digits[at] = pair(rest)[1];
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the last six digits of a number, with leading zeros.
#[inline]
pub(super) fn put_six(out: &mut Vec<u8>, n: u64) {
    for part in [n / 10_000, n / 100, n] {
        out.extend_from_slice(&pair(part));
    }
}

/// Appends 32 hexadecimal digits.
#[inline]
pub(super) fn put_hex(out: &mut Vec<u8>, n: u128) {
    let mut digits = [0_u8; 32];
    for (byte, digits) in n.to_be_bytes().into_iter().zip(digits.chunks_exact_mut(2)) {
        digits[0] = HEX[usize::from(byte >> 4)];
        digits[1] = HEX[usize::from(byte & 15)];
    }
    out.extend_from_slice(&digits);
}

/// Writes instants as `2026-07-31T23:55:00.000000Z`; remembers the last day, since finding a date
/// is the slow part.
#[derive(Debug, Clone)]
pub(super) struct Times {
    day: i64,
    text: Vec<u8>,
}

impl Times {
    pub(super) fn new() -> Self {
        Times {
            day: 0,
            text: b"1970-01-01".to_vec(),
        }
    }

    /// Appends an instant given in microseconds since the Unix epoch. An instant that no calendar
    /// has (before the year -9999 or after 9999) is written as the nearest that one has.
    #[inline]
    pub(super) fn put(&mut self, out: &mut Vec<u8>, time_us: i64) {
        let day = time_us.div_euclid(DAY_US);
        if day != self.day {
            self.turn_to(day);
        }
        let us = time_us.rem_euclid(DAY_US).unsigned_abs();
        let (seconds, us) = (us / 1_000_000, us % 1_000_000);
        out.extend_from_slice(&self.text);
        for (mark, part) in [
            (b'T', seconds / 3_600),
            (b':', seconds / 60 % 60),
            (b':', seconds % 60),
        ] {
            out.push(mark);
            out.extend_from_slice(&pair(part));
        }
        out.push(b'.');
        put_six(out, us);
        out.push(b'Z');
    }

    fn turn_to(&mut self, day: i64) {
        let midnight = jiff::Timestamp::from_second(day.saturating_mul(86_400));
        let limit = if day < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        };
        let date = midnight
            .unwrap_or(limit)
            .to_zoned_datetime(jiff::tz::TimeZone::UTC)
            .date();
        self.text = date.to_string().into_bytes();
        self.day = day;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for n in (0..2_000).chain([9_999, 10_000, 99_999, 100_000, u64::MAX - 1, u64::MAX]) {
            assert_eq!(text(|out| put_number(out, n)), n.to_string());
        }
    }

    #[test]
    fn six_digits_keep_their_zeros() {
        assert_eq!(text(|out| put_six(out, 0)), "000000");
        assert_eq!(text(|out| put_six(out, 1_203)), "001203");
        assert_eq!(text(|out| put_six(out, 999_999)), "999999");
    }

    #[test]
    fn hex_has_thirty_two_digits() {
        assert_eq!(
            text(|out| put_hex(out, 0xa4bc)),
            "0000000000000000000000000000a4bc"
        );
        assert_eq!(text(|out| put_hex(out, u128::MAX)), "f".repeat(32));
    }

    #[test]
    fn instants_are_written_to_the_microsecond() {
        let mut times = Times::new();
        let mut at = |us| text(|out| times.put(out, us));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        // 2026-07-31 is day 20,665 after the epoch.
        assert_eq!(
            at(20_665 * DAY_US + 86_100_000_001),
            "2026-07-31T23:55:00.000001Z"
        );
        assert_eq!(at(20_665 * DAY_US - 1), "2026-07-30T23:59:59.999999Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59.999999Z");
    }
}
