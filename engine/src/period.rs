//! Billing periods: calendar months in a time zone, as instants.

use crate::error::{Error, Result};
use jiff::{ToSpan, civil::Date, tz::TimeZone};
use std::fmt;

/// A calendar month in some time zone, `[start, end)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    first_day: Date,
    last_day: Date,
    /// First instant in it, microseconds since the Unix epoch.
    pub start_us: i64,
    /// First instant after it.
    pub end_us: i64,
}

impl Period {
    /// The month `YYYY-MM` in the zone with this IANA name.
    ///
    /// A day that begins twice or not at all because clocks change begins at the first instant that
    /// carries its date.
    ///
    /// # Errors
    /// Not a month, or not a zone; the message says which and shows one that is.
    pub fn month(text: &str, zone: &str) -> Result<Self> {
        let usage = || Error::Usage(format!("`{text}` is not a billing period such as 2026-10"));
        let well_formed = text.len() == 7 && text.as_bytes()[4] == b'-';
        let first_day: Date = format!("{text}-01")
            .parse()
            .ok()
            .filter(|_| well_formed)
            .ok_or_else(usage)?;
        let next = first_day.checked_add(1.month()).map_err(|_| usage())?;
        let zone = TimeZone::get(zone).map_err(|_| Error::Config {
            file: "billing.time_zone".into(),
            problem: format!("`{zone}` is not a time zone; use an IANA name such as Europe/Berlin"),
        })?;
        let start = |day: Date| {
            day.to_zoned_datetime(zone.clone())
                .map(|at| at.timestamp().as_microsecond())
        };
        Ok(Period {
            first_day,
            last_day: first_day.last_of_month(),
            start_us: start(first_day).map_err(|_| usage())?,
            end_us: start(next).map_err(|_| usage())?,
        })
    }

    /// The first day.
    pub fn first_day(&self) -> Date {
        self.first_day
    }

    /// How many days it has.
    pub fn days(&self) -> i64 {
        i64::from(self.last_day.day())
    }
}

impl From<&Period> for tollgate_sql::invoice::Period {
    fn from(period: &Period) -> Self {
        Self {
            start_us: period.start_us,
            end_us: period.end_us,
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}-{:02}",
            self.first_day.year(),
            self.first_day.month()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_at_local_midnight() {
        // 2026-10-01T00:00Z and 2026-11-01T00:00Z.
        let utc = Period::month("2026-10", "UTC").unwrap();
        assert_eq!(
            (utc.start_us, utc.end_us),
            (1_790_812_800_000_000, 1_793_491_200_000_000)
        );
        assert_eq!(utc.days(), 31);
        // Berlin leaves summer time on 25 October: the month has 31 days and one hour.
        let berlin = Period::month("2026-10", "Europe/Berlin").unwrap();
        assert_eq!(berlin.start_us, utc.start_us - 2 * 3_600_000_000);
        assert_eq!(berlin.end_us, utc.end_us - 3_600_000_000);
        let kolkata = Period::month("2026-10", "Asia/Kolkata").unwrap();
        assert_eq!(kolkata.start_us, utc.start_us - 19_800_000_000);
    }

    #[test]
    fn months_meet_without_a_gap() {
        for zone in [
            "UTC",
            "Europe/Berlin",
            "America/St_Johns",
            "Pacific/Chatham",
        ] {
            for month in 1..12 {
                let this = Period::month(&format!("2026-{month:02}"), zone).unwrap();
                let next = Period::month(&format!("2026-{:02}", month + 1), zone).unwrap();
                assert_eq!(this.end_us, next.start_us, "{zone} {month}");
            }
        }
    }

    #[test]
    fn what_is_not_a_month_is_refused() {
        for text in [
            "2026",
            "2026-13",
            "2026-1",
            "26-10",
            "2026-10-01",
            "october",
            "",
        ] {
            assert!(Period::month(text, "UTC").is_err(), "{text}");
        }
        let message = Period::month("2026-10", "Mars/Olympus")
            .unwrap_err()
            .to_string();
        assert!(message.contains("Mars/Olympus"), "{message}");
    }
}
