//! Dates and instants from text, as definitions and rate tables write them.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// A date as `YYYY-MM-DD`; looser forms that a calendar library takes are refused.
pub(crate) fn parse_date(text: &str) -> Option<Date> {
    let shaped = text.len() == 10
        && text.bytes().enumerate().all(|(i, byte)| match i {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shaped.then(|| text.parse().ok()).flatten()
}

/// A date, `YYYY-MM-DD`, as its midnight in UTC, or an instant as RFC 3339 writes it.
pub fn parse_instant(text: &str) -> Option<Timestamp> {
    match parse_date(text) {
        Some(date) => TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok(),
        None => text.parse().ok(),
    }
}

/// Microseconds since the Unix epoch.
pub(crate) fn instant_us(text: &str) -> Result<i64, String> {
    let instant: Timestamp = text
        .parse()
        .map_err(|_| "not an instant such as 2026-10-01T00:00:00Z")?;
    if instant.subsec_nanosecond() % 1_000 != 0 {
        return Err("finer than a microsecond".to_owned());
    }
    Ok(instant.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_year_month_day_only() {
        assert_eq!(
            parse_date("2026-10-01"),
            Some(jiff::civil::date(2026, 10, 1))
        );
        for text in [
            "2026-10-1",
            "20261001",
            "2026-02-30",
            "2026-10-01T00:00",
            "01-10-2026",
            "é026-10-1",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
