//! Some time as whole windows and what is left at its edges.

use super::asked::Starts;
use crate::{
    error::{Result, query_error},
    metering::micros,
};
use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use tollgate_sql::{
    meter::Meter,
    window::{EventTime, window_start},
};

/// The windows of some width that lie wholly in some time, and what is left at its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inside {
    first_us: i64,
    last_us: i64,
    period: (i64, i64),
}

impl Inside {
    /// A period, `[start, end)`.
    pub(super) fn of(start_us: i64, end_us: i64, width_us: i64) -> Self {
        let floor = |us| window_start(EventTime(us), width_us).0;
        let ceil = |us| {
            if floor(us) == us {
                us
            } else {
                floor(us) + width_us
            }
        };
        let (first_us, last_us) = match (ceil(start_us), floor(end_us)) {
            (first, last) if first <= last => (first, last),
            // It lies within one window: all of it is an edge.
            _ => (end_us, end_us),
        };
        Inside {
            first_us,
            last_us,
            period: (start_us, end_us),
        }
    }

    /// Everything before an instant.
    pub(super) fn before(start_us: i64, width_us: i64) -> Self {
        let last_us = window_start(EventTime(start_us), width_us).0;
        Inside {
            first_us: i64::MIN,
            last_us,
            period: (i64::MIN, start_us),
        }
    }

    /// The windows of a meter that start in this time; `None` when that may be all. Sessions, and windows that
    /// hop, are made of base windows that start elsewhere too: of them it is all.
    pub(super) fn around(starts: Starts, meter: &Meter) -> Option<Self> {
        if starts == Starts::EVER || !meter.has_plain_windows() {
            return None;
        }
        let width_us = meter.definition().window_us;
        let floor = |us| window_start(EventTime(us), width_us).0;
        let first_us = match starts.from_us {
            i64::MIN => i64::MIN,
            from_us => floor(from_us),
        };
        let last_us = match starts.to_us {
            i64::MAX => i64::MAX,
            to_us => floor(to_us).saturating_add(width_us),
        };
        Some(Inside {
            first_us,
            last_us,
            period: (first_us, last_us),
        })
    }

    /// The time itself, as `[from, to)`.
    pub(super) fn time(&self) -> (i64, i64) {
        self.period
    }

    /// The time of the whole windows, as `[from, to)`.
    pub(super) fn windows(&self) -> (i64, i64) {
        (self.first_us, self.last_us)
    }

    /// What no whole window covers, as `[from, to)`.
    pub(super) fn edges(&self) -> impl Iterator<Item = (i64, i64)> {
        let (start_us, end_us) = self.period;
        [(start_us, self.first_us), (self.last_us, end_us)]
            .into_iter()
            .filter(|(from, to)| from < to)
    }

    /// The states of whole windows.
    pub(super) fn select(&self, states: &RecordBatch) -> Result<RecordBatch> {
        let starts = micros(states, "window_start");
        let mask: BooleanArray = starts
            .iter()
            .map(|us| Some(*us >= self.first_us && *us < self.last_us))
            .collect();
        filter_record_batch(states, &mask).map_err(query_error("selecting a period's windows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole windows of 60 in some time, and its edges.
    fn parts(start: i64, end: i64) -> ((i64, i64), Vec<(i64, i64)>) {
        let inside = Inside::of(start, end, 60);
        ((inside.first_us, inside.last_us), inside.edges().collect())
    }

    #[test]
    fn windows_and_edges_are_the_time_once() {
        assert_eq!(parts(60, 180), ((60, 180), vec![]));
        assert_eq!(parts(30, 180), ((60, 180), vec![(30, 60)]));
        assert_eq!(parts(30, 200), ((60, 180), vec![(30, 60), (180, 200)]));
        // No whole window: two edges that meet, or one.
        assert_eq!(parts(30, 90), ((60, 60), vec![(30, 60), (60, 90)]));
        assert_eq!(parts(70, 110), ((110, 110), vec![(70, 110)]));
    }

    #[test]
    fn before_an_instant_are_all_windows_that_end_by_it_and_one_edge() {
        let before = Inside::before(90, 60);
        assert_eq!(before.edges().collect::<Vec<_>>(), [(60, 90)]);
        assert_eq!(before.last_us, 60);
    }
}
