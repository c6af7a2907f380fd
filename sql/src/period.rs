//! Time by the calendar of a zone: billing periods, and windows of local time, as instants. Pure.

use crate::error::{Error, Result};
use crate::meter::Span;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
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
    zone: TimeZone,
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
        let usage = || Error::Month {
            text: text.to_owned(),
        };
        let well_formed = text.len() == 7 && text.as_bytes()[4] == b'-';
        let first_day: Date = format!("{text}-01")
            .parse()
            .ok()
            .filter(|_| well_formed)
            .ok_or_else(usage)?;
        let next = first_day.checked_add(1.month()).map_err(|_| usage())?;
        let zone = TimeZone::get(zone).map_err(|_| Error::Zone {
            zone: zone.to_owned(),
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
            zone,
        })
    }

    /// The months of a zone that are over at `now_us`, from the one on that has `first_us`.
    ///
    /// # Errors
    /// Not a zone.
    pub fn months(first_us: i64, now_us: i64, zone: &str) -> Result<Vec<Self>> {
        let mut months = Vec::new();
        // The zone is checked before the calendar is.
        let any = Self::month("2026-01", zone)?;
        let mut day = any.between(first_us, first_us.saturating_add(1)).first_day;
        loop {
            let month = Self::month(&day.strftime("%Y-%m").to_string(), zone)?;
            if month.end_us > now_us {
                return Ok(months);
            }
            day = month
                .first_day
                .checked_add(1.month())
                .map_err(|_| Error::Month {
                    text: month.to_string(),
                })?;
            months.push(month);
        }
    }

    /// Any time from one instant to a later one in this period's zone, such as an earlier billing period's.
    pub fn between(&self, start_us: i64, end_us: i64) -> Self {
        let day = |us: i64| {
            let instant = Timestamp::from_microsecond(us).unwrap_or_default();
            self.zone.to_datetime(instant).date()
        };
        Period {
            first_day: day(start_us),
            last_day: day(end_us.saturating_sub(1)),
            start_us,
            end_us,
            zone: self.zone.clone(),
        }
    }

    /// The first day.
    pub fn first_day(&self) -> Date {
        self.first_day
    }

    /// How many days it has.
    pub fn days(&self) -> i64 {
        i64::from(self.last_day.day())
    }

    /// The time that a meter's totals are over.
    pub fn span(&self) -> Span {
        Span::new(self.start_us, self.end_us, self.zone.clone())
    }
}

/// Billing periods that recur from a day, `interval_months` long.
///
/// Occurrence `k` begins `k` intervals after the anchor, on the anchor's day or, where the month has
/// no such day, on its last. It is counted from the anchor each time, so the day never drifts: monthly
/// from 31 January, periods begin on 28 February and on 31 March.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    anchor: Date,
    interval_months: i32,
}

impl Recurrence {
    /// Periods from `anchor` on; `None` when the interval is not at least a month.
    pub fn new(anchor: Date, interval_months: i32) -> Option<Self> {
        (interval_months > 0).then_some(Self {
            anchor,
            interval_months,
        })
    }

    /// The first day of occurrence `k`, from 0; `None` before the anchor or beyond the calendar.
    pub fn start(&self, k: i32) -> Option<Date> {
        let months = k.checked_mul(self.interval_months).filter(|_| k >= 0)?;
        self.anchor
            .checked_add(jiff::Span::new().try_months(months).ok()?)
            .ok()
    }

    /// The occurrence that a day lies in; `None` before the anchor.
    pub fn occurrence(&self, day: Date) -> Option<i32> {
        let months_of = |day: Date| i32::from(day.year()) * 12 + i32::from(day.month());
        let months = months_of(day) - months_of(self.anchor);
        let k = months.div_euclid(self.interval_months);
        let begun = self.start(k)? <= day;
        Some(if begun { k } else { k - 1 }).filter(|k| *k >= 0)
    }

    /// Whether a period begins on this day.
    pub fn is_start(&self, day: Date) -> bool {
        let start = self.occurrence(day).and_then(|k| self.start(k));
        start == Some(day)
    }
}

/// A unit of the local clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalUnit {
    /// From one minute of the clock to the next.
    Minute,
    /// From one hour of the clock to the next.
    Hour,
    /// From midnight to midnight, 23 to 25 hours where clocks change.
    Day,
}

/// The window of the local clock that holds an instant, `[start, end)` in microseconds; `None` beyond
/// the years that the calendar knows.
pub fn local_window(time_us: i64, unit: LocalUnit, zone: &TimeZone) -> Option<(i64, i64)> {
    let time = Timestamp::from_microsecond(time_us).ok()?;
    let width_us = match unit {
        LocalUnit::Minute => 60_000_000,
        LocalUnit::Hour => 3_600_000_000,
        LocalUnit::Day => {
            let day = zone.to_datetime(time).date();
            let midnight = |day: Date| {
                let start = day.to_zoned_datetime(zone.clone()).ok()?;
                Some(start.timestamp().as_microsecond())
            };
            return Some((midnight(day)?, midnight(day.tomorrow().ok()?)?));
        }
    };
    let offset_us = i64::from(zone.to_offset(time).seconds()) * 1_000_000;
    let start_us = time_us - (time_us + offset_us).rem_euclid(width_us);
    Some((start_us, start_us + width_us))
}

impl From<&Period> for crate::invoice::Period {
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

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn recurring_periods_are_clamped_to_the_month_and_do_not_drift() {
        let monthly = Recurrence::new(day("2026-01-31"), 1).unwrap();
        let starts: Vec<String> = (0..4)
            .map(|k| monthly.start(k).unwrap().to_string())
            .collect();
        assert_eq!(
            starts,
            ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]
        );
        assert_eq!(monthly.occurrence(day("2026-02-27")), Some(0));
        assert_eq!(monthly.occurrence(day("2026-02-28")), Some(1));
        assert_eq!(monthly.occurrence(day("2026-03-30")), Some(1));
        assert_eq!(monthly.occurrence(day("2026-01-30")), None);
        assert_eq!(monthly.start(-1), None);
        assert!(monthly.is_start(day("2026-04-30")));
        assert!(!monthly.is_start(day("2026-04-29")));
        let leap = Recurrence::new(day("2020-02-29"), 12).unwrap();
        assert!(leap.is_start(day("2021-02-28")));
        assert!(leap.is_start(day("2024-02-29")));
        assert!(!leap.is_start(day("2024-02-28")));
        let quarterly = Recurrence::new(day("2021-11-30"), 3).unwrap();
        assert!(quarterly.is_start(day("2022-02-28")));
        assert!(!quarterly.is_start(day("2022-03-30")));
        assert!(Recurrence::new(day("2021-11-30"), 0).is_none());
    }

    #[test]
    fn a_local_day_is_as_long_as_its_clock_says() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        let angeles = TimeZone::get("America/Los_Angeles").unwrap();
        let (start, end) =
            local_window(at("2025-11-02T18:00:00Z"), LocalUnit::Day, &angeles).unwrap();
        assert_eq!(start, at("2025-11-02T07:00:00Z"));
        assert_eq!(end, at("2025-11-03T08:00:00Z"));
        let before = local_window(start - 1, LocalUnit::Day, &angeles).unwrap();
        assert_eq!(before, (at("2025-11-01T07:00:00Z"), start));
        let kolkata = TimeZone::get("Asia/Kolkata").unwrap();
        let hour = local_window(at("2025-11-02T18:10:00Z"), LocalUnit::Hour, &kolkata).unwrap();
        assert_eq!(
            hour,
            (at("2025-11-02T17:30:00Z"), at("2025-11-02T18:30:00Z"))
        );
        let minute = local_window(-1, LocalUnit::Minute, &TimeZone::UTC).unwrap();
        assert_eq!(minute, (-60_000_000, 0));
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
