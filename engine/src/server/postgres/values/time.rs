//! Dates and times as clients read and send them (pure). PostgreSQL counts from the year 2000.

use super::super::refusal::Refusal;
use arrow::datatypes::IntervalMonthDayNano;
use jiff::{
    SignedDuration, Span, Timestamp,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

/// The zone in which instants are shown.
pub(crate) type Zone = TimeZone;

/// From 1970 to 2000.
const DAYS: i32 = 10_957;
const MICROSECONDS: i64 = 946_684_800_000_000;

const SECOND: i64 = 1_000_000;

pub(super) fn days_since_2000(days: i32) -> Result<i32, Refusal> {
    days.checked_sub(DAYS).ok_or_else(Refusal::out_of_calendar)
}

pub(super) fn us_since_2000(us: i64) -> Result<i64, Refusal> {
    us.checked_sub(MICROSECONDS)
        .ok_or_else(Refusal::out_of_calendar)
}

/// Days since 1970 of days since 2000.
pub(super) fn days_since_1970(days: i32) -> Option<i32> {
    days.checked_add(DAYS)
}

/// Microseconds since 1970 of microseconds since 2000.
pub(super) fn us_since_1970(us: i64) -> Option<i64> {
    us.checked_add(MICROSECONDS)
}

/// The date that is so many days after 1 January 1970.
pub(super) fn date_of(days: i32) -> Result<Date, Refusal> {
    let since = Span::new().try_days(days);
    let date = since.and_then(|since| Date::constant(1970, 1, 1).checked_add(since));
    date.map_err(|_| Refusal::out_of_calendar())
}

/// The instant that is so many microseconds after 1970.
pub(super) fn instant_of(us: i64) -> Result<Timestamp, Refusal> {
    Timestamp::from_microsecond(us).map_err(|_| Refusal::out_of_calendar())
}

pub(super) fn date_text(days: i32) -> Result<String, Refusal> {
    let date = date_of(days)?;
    let (year, era) = era(date.year());
    Ok(format!(
        "{year:04}-{:02}-{:02}{era}",
        date.month(),
        date.day()
    ))
}

/// There is no year 0: before 1 is 1 BC.
fn era(year: i16) -> (i32, &'static str) {
    match i32::from(year) {
        year if year > 0 => (year, ""),
        year => (1 - year, " BC"),
    }
}

/// The time of a day, in microseconds since midnight.
pub(super) fn time_text(us: i64) -> String {
    let (seconds, fraction) = (us.div_euclid(SECOND), us.rem_euclid(SECOND));
    let (minutes, second) = (seconds.div_euclid(60), seconds.rem_euclid(60));
    let (hour, minute) = (minutes.div_euclid(60), minutes.rem_euclid(60));
    format!(
        "{hour:02}:{minute:02}:{second:02}{}",
        fraction_text(fraction)
    )
}

/// A fraction of a second in microseconds, without zeros at its end.
fn fraction_text(us: i64) -> String {
    match us {
        0 => String::new(),
        us => format!(".{us:06}").trim_end_matches('0').to_owned(),
    }
}

/// An instant in a zone, with its offset; or without a zone as it is.
pub(super) fn timestamp_text(us: i64, zone: Option<&Zone>) -> Result<String, Refusal> {
    let instant = instant_of(us)?;
    let (at, offset) = match zone {
        None => (TimeZone::UTC.to_datetime(instant), String::new()),
        Some(zone) => (
            zone.to_datetime(instant),
            offset_text(zone.to_offset(instant).seconds()),
        ),
    };
    let (year, era) = era(at.year());
    let day = format!("{year:04}-{:02}-{:02}", at.month(), at.day());
    let time = format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    let fraction = fraction_text(us.rem_euclid(SECOND));
    Ok(format!("{day} {time}{fraction}{offset}{era}"))
}

fn offset_text(seconds: i32) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, rest) = (seconds.abs() / 3_600, seconds.abs() % 3_600);
    match (rest / 60, rest % 60) {
        (0, 0) => format!("{sign}{hours:02}"),
        (minutes, 0) => format!("{sign}{hours:02}:{minutes:02}"),
        (minutes, seconds) => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// A length of time as PostgreSQL writes it: `1 year 2 mons 3 days 04:05:06.5`.
pub(super) fn interval_text(interval: IntervalMonthDayNano) -> String {
    let mut parts = Vec::new();
    let mut part = |count: i32, one: &str| {
        if count != 0 {
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{count} {one}{plural}"));
        }
    };
    part(interval.months / 12, "year");
    part(interval.months % 12, "mon");
    part(interval.days, "day");
    let us = interval.nanoseconds / 1_000;
    if us != 0 || parts.is_empty() {
        let sign = if us < 0 { "-" } else { "" };
        let length = SignedDuration::from_micros(us).abs();
        let us = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
        parts.push(format!("{sign}{}", time_text(us)));
    }
    parts.join(" ")
}

/// The microseconds since 1970 of an instant as it is written; one without an offset is in the zone.
pub(super) fn read_instant(text: &str, zone: &Zone) -> Option<i64> {
    let text = text.trim();
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant.as_microsecond());
    }
    let at: DateTime = text.parse().ok()?;
    Some(zone.to_timestamp(at).ok()?.as_microsecond())
}

/// A date as it is written.
pub(super) fn read_date(text: &str) -> Option<Date> {
    text.trim().parse().ok()
}

/// A date and a time as they are written, as SQL has them; an offset is passed over, as PostgreSQL does.
pub(super) fn read_datetime(text: &str) -> Option<String> {
    let at: DateTime = text.trim().parse().ok()?;
    Some(at.to_string())
}

/// A time of a day as it is written.
pub(super) fn read_time(text: &str) -> Option<Time> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_shown_in_a_zone_with_its_offset() {
        let us = 1_768_471_200_500_000; // 2026-01-15T10:00:00.5Z
        for (zone, text) in [
            ("UTC", "2026-01-15 10:00:00.5+00"),
            ("Europe/Berlin", "2026-01-15 11:00:00.5+01"),
            ("Asia/Kolkata", "2026-01-15 15:30:00.5+05:30"),
            ("America/New_York", "2026-01-15 05:00:00.5-05"),
        ] {
            let zone = TimeZone::get(zone).unwrap();
            assert_eq!(timestamp_text(us, Some(&zone)).unwrap(), text);
            assert_eq!(read_instant(text, &TimeZone::UTC), Some(us), "{text}");
        }
        assert_eq!(timestamp_text(us, None).unwrap(), "2026-01-15 10:00:00.5");
        let before = timestamp_text(-62_135_596_800_000_001, None).unwrap();
        assert_eq!(before, "0001-12-31 23:59:59.999999 BC");
        assert_eq!(us_since_2000(MICROSECONDS).unwrap(), 0);
        assert!(timestamp_text(i64::MAX, None).is_err());
        assert!(us_since_2000(i64::MIN).is_err());
    }

    #[test]
    fn an_instant_without_an_offset_is_in_the_zone() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let ten = Some(1_768_471_200_000_000);
        for text in [
            "2026-01-15 11:00:00",
            "2026-01-15T10:00:00Z",
            "2026-01-15 10:00:00+00",
            "2026-01-15 10:00:00+00:00",
            "2026-01-15 02:00:00.000000-08",
        ] {
            assert_eq!(read_instant(text, &zone), ten, "{text}");
        }
        let midnight = read_instant("2026-01-15", &TimeZone::UTC);
        assert_eq!(midnight, Some(1_768_435_200_000_000));
        for text in ["", "now", "2026-13-01", "infinity"] {
            assert_eq!(read_instant(text, &zone), None, "{text}");
        }
    }

    #[test]
    fn days_times_and_lengths_are_written_as_postgresql_does() {
        assert_eq!(date_text(0).unwrap(), "1970-01-01");
        assert_eq!(date_text(20_468).unwrap(), "2026-01-15");
        assert_eq!(days_since_2000(10_957).unwrap(), 0);
        assert!(date_text(i32::MAX).is_err());
        assert_eq!(time_text(0), "00:00:00");
        assert_eq!(time_text(86_399_999_990), "23:59:59.99999");
        let of = |months, days, nanoseconds| {
            interval_text(IntervalMonthDayNano::new(months, days, nanoseconds))
        };
        assert_eq!(of(0, 0, 0), "00:00:00");
        assert_eq!(
            of(14, 3, 14_706_500_000_000),
            "1 year 2 mons 3 days 04:05:06.5"
        );
        assert_eq!(of(0, -1, -1_000_000_000), "-1 days -00:00:01");
        assert_eq!(of(-1, 0, 0), "-1 mons");
    }
}
