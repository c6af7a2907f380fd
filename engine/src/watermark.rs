//! Watermark, lateness, and the sequence that closes each window. Pure.
//!
//! The watermark of a shard is the running maximum, over its counted events, of min(event time,
//! ingest time): a client whose clock is wrong cannot close anything, a replay of last month closes
//! last month's windows, and it depends on the log alone. It moves after a whole message, so that
//! the order of events within one message means nothing.

use std::collections::VecDeque;
use tollgate_connectors::Sequence;
use tollgate_sql::window::{EventTime, Windowing};

/// How far the events of a shard have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    reached: EventTime,
    pending: EventTime,
    message: Option<Sequence>,
}

impl Watermark {
    /// A watermark that has reached `reached` with all messages so far.
    pub fn at(reached: EventTime) -> Self {
        Watermark {
            reached,
            pending: reached,
            message: None,
        }
    }

    /// The watermark after every message seen so far.
    pub fn now(&self) -> EventTime {
        self.pending
    }

    /// The watermark before the message with this sequence: what decides about all of its events alike.
    pub fn before(&self, sequence: Sequence) -> EventTime {
        match self.message {
            Some(message) if message == sequence => self.reached,
            _ => self.pending,
        }
    }

    /// Takes one counted event and returns the watermark *before* its message, which decides whether
    /// it is late. Events must come in rising sequence.
    pub fn observe(&mut self, sequence: Sequence, event_us: i64, ingest_us: i64) -> EventTime {
        self.reached = self.before(sequence);
        self.message = Some(sequence);
        self.pending = self.pending.max(EventTime(event_us.min(ingest_us)));
        self.reached
    }

    /// Moves on without an event, to what a commit says was reached.
    pub fn advance(&mut self, to: EventTime) {
        self.pending = self.pending.max(to);
        self.reached = self.pending;
        self.message = None;
    }
}

/// Where in the log a window closed. Everything up to `cut` is in pane 0; what comes after is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Windows that end here or before are closed.
    pub closed_end: EventTime,
    /// The message that closed them.
    pub cut: Sequence,
    /// When the stream stored that message, in microseconds.
    pub closed_at_us: i64,
}

/// The closings of one meter since its last pane was written.
#[derive(Debug, Clone)]
pub struct Closings {
    windowing: Windowing,
    closed_end: EventTime,
    next: EventTime,
    /// Windows that end here or before closed longer ago than `recent` tells.
    forgotten: EventTime,
    recent: VecDeque<Closing>,
}

impl Closings {
    /// Starts with everything closed that `watermark` closes.
    pub fn new(windowing: Windowing, watermark: EventTime) -> Self {
        let mut closings = Closings {
            windowing,
            closed_end: EventTime::MIN,
            next: EventTime::MIN,
            forgotten: windowing.closed_end(watermark),
            recent: VecDeque::new(),
        };
        closings.set_closed_end(closings.forgotten);
        closings
    }

    fn set_closed_end(&mut self, closed_end: EventTime) {
        self.closed_end = closed_end;
        self.next = match closed_end {
            EventTime::MIN => EventTime::MIN,
            EventTime(end) => self
                .windowing
                .closing_watermark(EventTime(end.saturating_add(self.windowing.width_us))),
        };
    }

    /// Notes that `watermark` was reached with the message `cut`.
    pub fn reach(&mut self, watermark: EventTime, cut: Sequence, closed_at_us: i64) {
        if watermark < self.next || watermark == EventTime::MIN {
            return;
        }
        let closed_end = self.windowing.closed_end(watermark);
        if closed_end > self.closed_end {
            self.set_closed_end(closed_end);
            self.recent.push_back(Closing {
                closed_end,
                cut,
                closed_at_us,
            });
        }
    }

    /// Windows that end here or before are closed.
    pub fn closed_end(&self) -> EventTime {
        self.closed_end
    }

    /// The watermark at which the next window closes: below it, [`Closings::reach`] does nothing.
    pub fn next(&self) -> EventTime {
        self.next
    }

    /// The closing that closed the window ending at `end`, if that happened since the last
    /// [`Closings::forget`].
    pub fn of(&self, end: EventTime) -> Option<Closing> {
        if end <= self.forgotten {
            return None;
        }
        let at = self
            .recent
            .partition_point(|closing| closing.closed_end < end);
        self.recent.get(at).copied()
    }

    /// Forgets the closings whose panes are written.
    pub fn forget(&mut self) {
        self.forgotten = self.closed_end;
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTELY: Windowing = Windowing {
        width_us: 60,
        lateness_us: 10,
    };

    #[test]
    fn the_earlier_of_event_and_ingest_time_counts() {
        let mut watermark = Watermark::at(EventTime::MIN);
        watermark.observe(Sequence(1), 4_000_000, 100);
        assert_eq!(watermark.now(), EventTime(100));
        watermark.observe(Sequence(2), 50, 101);
        assert_eq!(watermark.now(), EventTime(100));
    }

    #[test]
    fn it_moves_after_the_whole_message() {
        let mut watermark = Watermark::at(EventTime(5));
        assert_eq!(watermark.observe(Sequence(1), 100, 200), EventTime(5));
        assert_eq!(watermark.observe(Sequence(1), 7, 200), EventTime(5));
        assert_eq!(watermark.observe(Sequence(2), 7, 200), EventTime(100));
    }

    #[test]
    fn an_advance_applies_at_once() {
        let mut watermark = Watermark::at(EventTime(5));
        watermark.observe(Sequence(1), 6, 6);
        watermark.advance(EventTime(90));
        assert_eq!(watermark.observe(Sequence(1), 7, 200), EventTime(90));
        watermark.advance(EventTime(1));
        assert_eq!(watermark.now(), EventTime(90));
    }

    #[test]
    fn a_window_belongs_to_the_first_message_that_closes_it() {
        let mut closings = Closings::new(MINUTELY, EventTime::MIN);
        closings.reach(EventTime(69), Sequence(1), 1);
        closings.reach(EventTime(70), Sequence(2), 2);
        closings.reach(EventTime(80), Sequence(3), 3);
        closings.reach(EventTime(250), Sequence(4), 4);
        let cut = |end| closings.of(EventTime(end)).map(|c| c.cut.0);
        assert_eq!(cut(60), Some(2));
        assert_eq!(cut(120), Some(4));
        assert_eq!(cut(240), Some(4));
        assert_eq!(cut(300), None);
        assert_eq!(closings.closed_end(), EventTime(240));
    }

    #[test]
    fn a_window_whose_closing_is_forgotten_is_not_taken_for_a_later_one() {
        let mut closings = Closings::new(MINUTELY, EventTime::MIN);
        closings.reach(EventTime(70), Sequence(2), 2);
        closings.forget();
        closings.reach(EventTime(130), Sequence(5), 5);
        let cut = |end| closings.of(EventTime(end)).map(|c| c.cut.0);
        assert_eq!((cut(60), cut(120)), (None, Some(5)));
    }

    #[test]
    fn what_was_closed_before_a_restart_is_not_closed_again() {
        let mut closings = Closings::new(MINUTELY, EventTime(130));
        assert_eq!(closings.closed_end(), EventTime(120));
        closings.reach(EventTime(130), Sequence(9), 9);
        assert_eq!(closings.of(EventTime(120)), None);
        closings.reach(EventTime(190), Sequence(10), 10);
        assert_eq!(
            closings.of(EventTime(180)).map(|c| c.cut),
            Some(Sequence(10))
        );
    }
}
