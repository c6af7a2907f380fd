//! Event time to windows. Pure.

/// Microseconds since the Unix epoch, UTC, when something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every event: where a watermark starts.
    pub const MIN: EventTime = EventTime(i64::MIN);

    /// As an instant to be shown; one beyond the calendar is shown as the epoch.
    pub fn instant(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or_default()
    }
}

/// How a meter cuts time: windows of `width_us`, which close `lateness_us` after their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Windowing {
    /// Width of a window in microseconds, above zero.
    pub width_us: i64,
    /// How long after its end a window waits, in microseconds, zero or more.
    pub lateness_us: i64,
}

impl Windowing {
    /// The end of the window that holds `event_time`: the first instant that is no longer in it.
    pub fn end(&self, event_time: EventTime) -> EventTime {
        EventTime(
            window_start(event_time, self.width_us)
                .0
                .saturating_add(self.width_us),
        )
    }

    /// True when `watermark` has closed the window that ends at `end`.
    ///
    /// A window closes when the watermark *reaches* its end plus lateness, so equality closes.
    pub fn is_closed(&self, end: EventTime, watermark: EventTime) -> bool {
        end.0.saturating_add(self.lateness_us) <= watermark.0
    }

    /// The end of the last window that `watermark` has closed; a window is closed if and only if it
    /// ends there or before. `EventTime::MIN` when the watermark has not moved yet.
    ///
    /// ```
    /// # use tollgate_sql::window::{EventTime, Windowing};
    /// let hourly = Windowing { width_us: 60, lateness_us: 10 };
    /// assert_eq!(hourly.closed_end(EventTime(129)), EventTime(60));
    /// assert_eq!(hourly.closed_end(EventTime(130)), EventTime(120));
    /// ```
    pub fn closed_end(&self, watermark: EventTime) -> EventTime {
        if watermark == EventTime::MIN {
            return EventTime::MIN;
        }
        window_start(
            EventTime(watermark.0.saturating_sub(self.lateness_us)),
            self.width_us,
        )
    }

    /// The least watermark that closes the window that ends at `end`.
    pub fn closing_watermark(&self, end: EventTime) -> EventTime {
        EventTime(end.0.saturating_add(self.lateness_us))
    }
}

/// A day in microseconds.
pub const DAY_US: i64 = 86_400_000_000;

/// The start of the window of `width_us` that holds an instant, both in microseconds; `None` before the first instant that
/// 64 bits can tell. [`window_start`] has the rule.
pub fn start_of(time_us: i64, width_us: i64) -> Option<i64> {
    time_us
        .checked_rem_euclid(width_us)
        .and_then(|into| time_us.checked_sub(into))
}

/// Returns the start of the tumbling window that holds `event_time`.
///
/// Windows are half-open, `[start, start + width_us)`, and aligned to the Unix epoch: an event on
/// a boundary belongs to the later window. `width_us` is in microseconds and above zero.
///
/// ```
/// # use tollgate_sql::window::{EventTime, window_start};
/// assert_eq!(window_start(EventTime(59), 60), EventTime(0));
/// assert_eq!(window_start(EventTime(60), 60), EventTime(60));
/// assert_eq!(window_start(EventTime(-1), 60), EventTime(-60));
/// ```
pub fn window_start(event_time: EventTime, width_us: i64) -> EventTime {
    EventTime(start_of(event_time.0, width_us).unwrap_or(i64::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTELY: Windowing = Windowing {
        width_us: 60,
        lateness_us: 10,
    };

    #[test]
    fn a_boundary_belongs_to_the_later_window() {
        assert_eq!(MINUTELY.end(EventTime(59)), EventTime(60));
        assert_eq!(MINUTELY.end(EventTime(60)), EventTime(120));
        assert_eq!(MINUTELY.end(EventTime(-1)), EventTime(0));
    }

    #[test]
    fn a_window_closes_exactly_when_the_watermark_reaches_end_plus_lateness() {
        assert!(!MINUTELY.is_closed(EventTime(60), EventTime(69)));
        assert!(MINUTELY.is_closed(EventTime(60), EventTime(70)));
    }

    #[test]
    fn closed_end_agrees_with_is_closed_at_every_watermark() {
        for watermark in -300..300 {
            let closed = MINUTELY.closed_end(EventTime(watermark));
            for end in (-240..240).step_by(60) {
                let expected = MINUTELY.is_closed(EventTime(end), EventTime(watermark));
                assert_eq!(
                    EventTime(end) <= closed,
                    expected,
                    "end {end} watermark {watermark}"
                );
            }
        }
    }

    #[test]
    fn before_the_first_event_nothing_is_closed() {
        assert_eq!(MINUTELY.closed_end(EventTime::MIN), EventTime::MIN);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        assert_eq!(MINUTELY.end(EventTime(i64::MAX)), EventTime(i64::MAX));
        assert!(window_start(EventTime(i64::MIN), 60) <= EventTime(i64::MIN + 60));
    }
}
