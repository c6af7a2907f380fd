//! When things happen in a month.

use super::{super::random::Random, HOUR_US, MonthSettings};

/// An hour's share of a day's usage, UTC: usage never stops, but most customers sleep at night.
const HOUR_WEIGHTS: [u64; 24] = [
    30, 25, 22, 20, 20, 24, 34, 48, 66, 80, 88, 92, 90, 94, 100, 98, 96, 90, 82, 74, 64, 54, 44, 36,
];
/// A day's share of a week's, from Monday, in tenths.
const DAY_WEIGHTS: [u64; 7] = [10, 10, 10, 10, 9, 5, 4];

/// Spreads the lines over the month's hours, in order.
#[derive(Debug, Clone)]
pub(super) struct Hours {
    start_us: i64,
    /// Lines up to the end of each hour.
    ends: Vec<u64>,
    hour: usize,
    made: u64,
}

impl Hours {
    pub(super) fn new(settings: &MonthSettings) -> Self {
        let hours = (settings.end_us - settings.start_us) / HOUR_US;
        let weights: Vec<u64> = (0..hours.max(1))
            .map(|hour| weight(settings.start_us + hour * HOUR_US))
            .collect();
        let total: u64 = weights.iter().sum();
        let mut sum = 0;
        let mut ends = Vec::with_capacity(weights.len());
        for weight in weights {
            sum += weight;
            let end = u128::from(settings.events) * u128::from(sum) / u128::from(total);
            ends.push(u64::try_from(end).expect("a share is at most the whole"));
        }
        Hours {
            start_us: settings.start_us,
            ends,
            hour: 0,
            made: 0,
        }
    }

    /// True when the next line belongs to another hour than the last.
    pub(super) fn is_new(&self) -> bool {
        self.ends.get(self.hour) == Some(&self.made)
    }

    /// The time of the next line, never earlier than the last.
    pub(super) fn next_us(&mut self, random: &mut Random) -> Option<i64> {
        while self.is_new() {
            self.hour += 1;
        }
        let end = *self.ends.get(self.hour)?;
        let start = self
            .hour
            .checked_sub(1)
            .map_or(0, |before| self.ends[before]);
        let gap_us = HOUR_US.unsigned_abs() / (end - start);
        let within_us = gap_us * (self.made - start) + random.below(gap_us);
        self.made += 1;
        let hours = i64::try_from(self.hour).ok()?;
        Some(self.start_us + hours * HOUR_US + within_us.cast_signed())
    }
}

/// How busy the hour that starts at `us` is.
pub(super) fn weight(us: i64) -> u64 {
    let hours = us.div_euclid(HOUR_US);
    let hour = usize::try_from(hours.rem_euclid(24)).expect("it is below 24");
    // The epoch's first day was a Thursday.
    let day = usize::try_from((hours.div_euclid(24) + 3).rem_euclid(7)).expect("it is below 7");
    HOUR_WEIGHTS[hour] * DAY_WEIGHTS[day]
}
