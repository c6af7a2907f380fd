//! Time by the calendar of a zone: billing periods, and windows of local time, as instants. Pure.

use crate::error::{Error, Result};
use crate::meter::Span;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use std::fmt;

/// A calendar month in some time zone, `[start, end)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    first_day: Date,
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
        let zone = zone_of(zone)?;
        let start = |day: Date| {
            day.to_zoned_datetime(zone.clone())
                .map(|at| at.timestamp().as_microsecond())
        };
        Ok(Period {
            first_day,
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
        let first = Self::within(&zone_of(zone)?, first_us, first_us.saturating_add(1));
        let mut day = first.first_day;
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

    /// Any time from one instant to a later one by the calendar of the zone with this IANA name, such as that of an issued
    /// invoice.
    ///
    /// # Errors
    /// Not a zone.
    pub fn of(time: crate::invoice::Period, zone: &str) -> Result<Self> {
        Ok(Self::within(&zone_of(zone)?, time.start_us, time.end_us))
    }

    /// Any time from one instant to a later one in this period's zone, such as the time before it that no period has.
    pub fn between(&self, start_us: i64, end_us: i64) -> Self {
        Self::within(&self.zone, start_us, end_us)
    }

    fn within(zone: &TimeZone, start_us: i64, end_us: i64) -> Self {
        let start = Timestamp::from_microsecond(start_us).unwrap_or_default();
        Period {
            first_day: zone.to_datetime(start).date(),
            start_us,
            end_us,
            zone: zone.clone(),
        }
    }

    /// The IANA name of its zone.
    pub fn zone(&self) -> &str {
        // A zone without a name is made of an offset, and every zone here was found by its name.
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The first day.
    pub fn first_day(&self) -> Date {
        self.first_day
    }

    /// The instant within it at which a day begins in its zone, in microseconds; `None` for days that begin before, with it
    /// or after it.
    pub fn day_within(&self, day: Date) -> Option<i64> {
        let start = day.to_zoned_datetime(self.zone.clone()).ok()?;
        let start_us = start.timestamp().as_microsecond();
        (self.start_us < start_us && start_us < self.end_us).then_some(start_us)
    }

    /// How many days it has, from the one that holds its first instant to the one that holds its last.
    ///
    /// ```
    /// # use tollgate_sql::period::Period;
    /// let october = Period::month("2026-10", "UTC").unwrap();
    /// assert_eq!(october.days(), 31);
    /// // From 30 September, 22:00, by a clock that is two hours early.
    /// let early = october.between(october.start_us - 7_200_000_000, october.end_us - 7_200_000_000);
    /// assert_eq!(early.days(), 32);
    /// ```
    pub fn days(&self) -> i64 {
        self.span().whole_days
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

fn zone_of(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|_| Error::Zone {
        zone: name.to_owned(),
    })
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
    fn days_are_counted_from_the_first_to_the_last() {
        let hour_us = 3_600_000_000;
        let october = Period::month("2026-10", "UTC").unwrap();
        let (start, end) = (october.start_us, october.end_us);
        for (from_us, until_us, days) in [
            (start - hour_us, end - hour_us, 32),
            // The evening of 30 September is one day, not thirty.
            (start - 4 * hour_us, start, 1),
            (start - 4 * hour_us, start + 1, 2),
            (start + 24 * hour_us, end, 30),
            (start, end + 24 * hour_us, 32),
        ] {
            assert_eq!(october.between(from_us, until_us).days(), days, "{from_us}");
        }
        // October of Berlin in UTC begins on 30 September, by its own calendar on 1 October.
        let berlin = Period::month("2026-10", "Europe/Berlin").unwrap();
        let read = Period::of((&berlin).into(), berlin.zone()).unwrap();
        assert_eq!(read, berlin);
        assert_eq!((read.days(), read.zone()), (31, "Europe/Berlin"));
        let other = Period::of((&berlin).into(), "UTC").unwrap();
        assert_eq!((other.days(), other.first_day()), (32, day("2026-09-30")));
        let zones = ["UTC", "Etc/UTC", "Asia/Calcutta", "Pacific/Apia"];
        assert_eq!(
            zones.map(|zone| Period::month("2026-10", zone).unwrap().zone().to_owned()),
            zones
        );
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
