//! Time by the calendar of a zone: billing periods, and windows of local time, as instants. Pure.

use crate::{
    definitions::BillingPeriod,
    error::{Error, Result},
    meter::Span,
    parser::suggest::nearest,
};
use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime, date},
    tz::TimeZone,
};
use std::fmt;

/// Some time by the calendar of a zone, `[start, end)`: a month, or the billing period of a subscription.
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

    /// The month of a zone that has an instant.
    ///
    /// # Errors
    /// Not a zone.
    pub fn month_at(at_us: i64, zone: &str) -> Result<Self> {
        let day = Self::within(&zone_of(zone)?, at_us, at_us.saturating_add(1)).first_day;
        Self::month(&day.strftime("%Y-%m").to_string(), zone)
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

    /// The same in a zone that is known.
    pub fn in_zone(zone: &TimeZone, start_us: i64, end_us: i64) -> Self {
        Self::within(zone, start_us, end_us)
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

    /// How many days end in it or with it: 28 from 31 January, half past ten, to 28 February.
    ///
    /// ```
    /// # use tollgate_sql::period::Period;
    /// let october = Period::month("2026-10", "UTC").unwrap();
    /// let half_past_ten = 10 * 3_600_000_000 + 30 * 60_000_000;
    /// let late = october.between(october.start_us + half_past_ten, october.end_us + half_past_ten);
    /// assert_eq!((october.days_ended(), late.days_ended(), late.days()), (31, 31, 32));
    /// ```
    pub fn days_ended(&self) -> i64 {
        self.days_ended_in(self.start_us, self.end_us)
    }

    /// How many days end in some time or with it, by its zone: a day that is cut belongs to the time in which it ends.
    pub fn days_ended_in(&self, from_us: i64, until_us: i64) -> i64 {
        days_ended(from_us, until_us, &self.zone)
    }

    /// The time that a meter's totals are over.
    pub fn span(&self) -> Span {
        Span::new(self.start_us, self.end_us, self.zone.clone())
    }
}

/// Billing periods that recur, by the local clock.
///
/// Occurrence `k` begins `k` steps after the anchor, on the anchor's day or, where the month has no such day, on its last,
/// at the anchor's time of day. It is counted from the anchor each time, so the day never drifts: monthly from 31 January,
/// periods begin on 28 February and on 31 March. Occurrences below 0 are before the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    anchor: DateTime,
    step: BillingPeriod,
}

impl Recurrence {
    /// Periods counted from an anchor.
    pub fn new(anchor: DateTime, step: BillingPeriod) -> Self {
        Self { anchor, step }
    }

    /// Periods of the calendar: months begin on their 1st, quarters and years in January, weeks on Monday. Several of one are
    /// counted from 1970: every second year begins in an even one.
    pub fn by_calendar(step: BillingPeriod) -> Self {
        let anchor = match step {
            // A Monday.
            BillingPeriod::Days(_) => date(1970, 1, 5),
            BillingPeriod::Months(_) => date(1970, 1, 1),
        };
        Self::new(anchor.at(0, 0, 0, 0), step)
    }

    /// When occurrence `k` begins; `None` beyond the calendar.
    pub fn start(&self, k: i32) -> Option<DateTime> {
        let span = match self.step {
            BillingPeriod::Days(days) => jiff::Span::new().try_days(k.checked_mul(days)?),
            BillingPeriod::Months(months) => jiff::Span::new().try_months(k.checked_mul(months)?),
        };
        self.anchor.checked_add(span.ok()?).ok()
    }

    /// The occurrence that a time lies in; `None` beyond the calendar.
    pub fn occurrence(&self, at: DateTime) -> Option<i32> {
        let k = match self.step {
            BillingPeriod::Days(days) => days_between(self.anchor.date(), at.date())
                .div_euclid(i64::from(days))
                .try_into()
                .ok()?,
            BillingPeriod::Months(months) => {
                let months_of = |at: DateTime| i32::from(at.year()) * 12 + i32::from(at.month());
                (months_of(at) - months_of(self.anchor)).div_euclid(months)
            }
        };
        let begun = self.start(k)? <= at;
        Some(if begun { k } else { k - 1 })
    }

    /// When occurrence `k` begins by the clock of a zone, in microseconds. A time that the clock skips is the first one after
    /// it; of two that it shows, the earlier. `None` beyond the calendar.
    pub fn start_us(&self, k: i32, zone: &TimeZone) -> Option<i64> {
        let at = zone.to_timestamp(self.start(k)?).ok()?;
        Some(at.as_microsecond())
    }
}

/// How many days the second is after the first.
fn days_between(from: Date, until: Date) -> i64 {
    let seconds = until.duration_since(from).as_secs();
    seconds.div_euclid(86_400)
}

/// The day and time of day of an instant in a zone; those of 1970 beyond the calendar.
pub(crate) fn local(time_us: i64, zone: &TimeZone) -> DateTime {
    zone.to_datetime(Timestamp::from_microsecond(time_us).unwrap_or_default())
}

/// How many days of a zone end in `[from, until)` or with it: a day that is cut belongs to the time in which it ends.
pub fn days_ended(from_us: i64, until_us: i64, zone: &TimeZone) -> i64 {
    days_between(local(from_us, zone).date(), local(until_us, zone).date())
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

/// The zone with an IANA name.
///
/// # Errors
/// There is none.
pub fn zone_of(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|_| unknown_zone(name))
}

/// The error that a name is no zone, with the one that could have been meant.
pub fn unknown_zone(name: &str) -> Error {
    Error::Zone {
        zone: name.to_owned(),
        hint: zone_instead_of(name),
    }
}

/// What to write for a name that is no zone: the one that could have been meant, by its whole name or by its city.
pub(crate) fn zone_instead_of(name: &str) -> String {
    const LIKE: &str = "write a name of the IANA database such as Europe/Berlin";
    let mut known: Vec<String> = jiff::tz::db()
        .available()
        .map(|zone| zone.to_string())
        .collect();
    known.sort();
    let cities: Vec<&str> = known
        .iter()
        .map(|zone| zone.rsplit('/').next().unwrap_or(zone))
        .collect();
    let of_city = || {
        let city = nearest(name, &cities)?;
        let place = cities.iter().position(|known| *known == city)?;
        known.get(place).map(String::as_str)
    };
    // An abbreviation such as CET+1 is near to other abbreviations, which are not meant.
    let is_name = name.len() > 4
        && name
            .chars()
            .all(|c| c.is_alphabetic() || matches!(c, '/' | '_' | '-'));
    let meant = nearest(name, &known).or_else(of_city).filter(|_| is_name);
    match meant {
        Some(meant) => format!("did you mean {meant}? {LIKE}"),
        None => LIKE.to_owned(),
    }
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
    /// `2026-10` of a month of the calendar, of anything else its first day and the day on which it ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first_day;
        let end = local(self.end_us, &self.zone).date();
        match first.day() == 1 && first.checked_add(1.month()).is_ok_and(|next| next == end) {
            true => write!(f, "{:04}-{:02}", first.year(), first.month()),
            false => write!(f, "{first} to {end}"),
        }
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
        let every = |months, anchor| {
            Recurrence::new(day(anchor).at(0, 0, 0, 0), BillingPeriod::Months(months))
        };
        let at = |text| day(text).at(0, 0, 0, 0);
        let starts = |periods: Recurrence| -> Vec<String> {
            let starts = (-1..4).map(|k| periods.start(k).unwrap().date().to_string());
            starts.collect()
        };
        let monthly = every(1, "2026-01-31");
        assert_eq!(
            starts(monthly),
            [
                "2025-12-31",
                "2026-01-31",
                "2026-02-28",
                "2026-03-31",
                "2026-04-30"
            ]
        );
        for (text, k) in [
            ("2026-02-27", 0),
            ("2026-02-28", 1),
            ("2026-03-30", 1),
            ("2026-03-31", 2),
            ("2026-01-30", -1),
        ] {
            assert_eq!(monthly.occurrence(at(text)), Some(k), "{text}");
        }
        assert_eq!(
            starts(every(12, "2020-02-29")),
            [
                "2019-02-28",
                "2020-02-29",
                "2021-02-28",
                "2022-02-28",
                "2023-02-28"
            ]
        );
        assert_eq!(every(12, "2020-02-29").start(4), Some(at("2024-02-29")));
        assert_eq!(every(3, "2021-11-30").start(1), Some(at("2022-02-28")));
    }

    #[test]
    fn an_occurrence_begins_at_the_time_of_day_of_its_anchor() {
        let anchor: DateTime = "2026-03-29T02:30:00".parse().unwrap();
        let daily = Recurrence::new(anchor, BillingPeriod::Days(1));
        assert_eq!(
            daily.occurrence("2026-03-31T02:29:59".parse().unwrap()),
            Some(1)
        );
        assert_eq!(
            daily.occurrence("2026-03-31T02:30:00".parse().unwrap()),
            Some(2)
        );
        // Berlin skips from 2:00 to 3:00 on that day: half past two is half past three.
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let first = Timestamp::from_microsecond(daily.start_us(0, &berlin).unwrap()).unwrap();
        assert_eq!(first.to_string(), "2026-03-29T01:30:00Z");
    }

    #[test]
    fn the_calendar_says_where_periods_begin() {
        use BillingPeriod::{Days, Months};
        for (step, start) in [
            (Days(1), "2026-11-29"),
            // A Sunday.
            (Days(7), "2026-11-23"),
            (Months(1), "2026-11-01"),
            (Months(3), "2026-10-01"),
            (Months(12), "2026-01-01"),
            (Months(2), "2026-11-01"),
            (Months(24), "2026-01-01"),
        ] {
            let periods = Recurrence::by_calendar(step);
            let k = periods
                .occurrence(day("2026-11-29").at(13, 0, 0, 0))
                .unwrap();
            assert_eq!(
                periods.start(k),
                Some(day(start).at(0, 0, 0, 0)),
                "{step:?}"
            );
        }
        let weeks = Recurrence::by_calendar(Days(7));
        let before = weeks.occurrence(day("1969-12-31").at(0, 0, 0, 0)).unwrap();
        assert_eq!(weeks.start(before), Some(day("1969-12-29").at(0, 0, 0, 0)));
    }

    #[test]
    fn a_day_that_is_cut_belongs_to_the_time_in_which_it_ends() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_microsecond();
        for (from, until, days) in [
            ("2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z", 30),
            ("2026-04-01T12:00:00Z", "2026-04-16T00:00:00Z", 15),
            ("2026-04-01T00:00:00Z", "2026-04-15T23:59:59Z", 14),
            ("2026-04-15T01:00:00Z", "2026-04-15T02:00:00Z", 0),
        ] {
            assert_eq!(
                days_ended(at(from), at(until), &TimeZone::UTC),
                days,
                "{from}"
            );
        }
    }

    #[test]
    fn a_period_is_called_by_its_month_or_its_days() {
        let october = Period::month("2026-10", "Europe/Berlin").unwrap();
        assert_eq!(october.to_string(), "2026-10");
        let anchored = october.between(october.start_us + 14 * 86_400_000_000, october.end_us);
        assert_eq!(anchored.to_string(), "2026-10-15 to 2026-11-01");
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
