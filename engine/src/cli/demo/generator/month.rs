//! A month of AI usage as it might be, with what goes wrong on the way.

mod event;
mod expected;
mod hours;
mod stragglers;
#[cfg(test)]
mod tests;

pub use expected::{Expected, MODELS, Tokens, Usage};
pub use stragglers::stragglers;

use super::{
    customers::{self, CUSTOMERS},
    faults::{Fault, unknown_event},
    random::Random,
    text::Times,
};
use event::{Content, Event};
use hours::Hours;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// How rare what goes wrong is: one line in so many.
const REPEAT_ONE_IN: u64 = 250;
const LATE_ONE_IN: u64 = 1_000;
const CONFLICT_ONE_IN: u64 = 8_000;
const REJECTED_ONE_IN: u64 = 800;
const UNKNOWN_ONE_IN: u64 = 1_200;

const RECENT: usize = 200;
const DISORDER_US: u64 = 5_000_000;
/// The demo's windows are an hour wide and wait ten minutes; a late event misses that by 1 µs to 18 h.
const LATE_US_MIN: i64 = HOUR_US + 600_000_000;
const LATE_US_SPREAD: u64 = 64_800_000_000;

/// Which month, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthSettings {
    /// Another seed, another month.
    pub seed: u64,
    /// How many lines to make, good and bad.
    pub events: u64,
    /// The month's first instant, microseconds since the Unix epoch, on a full hour.
    pub start_us: i64,
    /// The first instant after it.
    pub end_us: i64,
    /// How many events go into one message at most.
    pub batch: usize,
}

impl MonthSettings {
    fn days(&self) -> usize {
        usize::try_from((self.end_us - self.start_us) / DAY_US).unwrap_or(0)
    }

    /// On which of its days an instant lies.
    fn day_of(&self, us: i64) -> usize {
        usize::try_from((us - self.start_us) / DAY_US).unwrap_or(0)
    }
}

/// Events that are sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// NDJSON, without a line break at the end.
    pub payload: Vec<u8>,
    /// How many lines.
    pub events: u64,
    /// True for a single event, sent as a message of its own.
    pub is_single: bool,
}

/// A month of events in the order they are sent, as the messages they are sent in.
///
/// Events follow the rhythm of day and week. A message holds events of one hour, at most
/// [`MonthSettings::batch`]; what is malformed or of an unknown type goes alone. Which events are late
/// does not depend on when the month is sent, or on whether messages are split into lines: a late
/// event's window had closed long before by the events of earlier messages.
#[derive(Debug, Clone)]
pub struct Month {
    settings: MonthSettings,
    random: Random,
    hours: Hours,
    recent: Vec<Event>,
    pending: Batch,
    /// The latest event in the messages before the pending one.
    sent_us: i64,
    /// The latest event in the pending message too.
    made_us: i64,
    times: Times,
    expected: Expected,
}

/// What the next line is.
enum Line {
    Event(Event),
    Repeat(Event),
    Conflict(Event),
    Late(Event),
    Rejected,
    Unknown,
}

impl Month {
    /// A month from its start.
    pub fn new(settings: MonthSettings) -> Self {
        Month {
            settings,
            random: Random::new(settings.seed),
            hours: Hours::new(&settings),
            recent: Vec::with_capacity(RECENT),
            pending: Batch::empty(),
            sent_us: settings.start_us,
            made_us: settings.start_us,
            times: Times::new(),
            expected: Expected::nothing(settings.days()),
        }
    }

    /// What the lines made so far amount to; after the last batch, the whole month.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    fn take_pending(&mut self) -> Option<Batch> {
        self.sent_us = self.made_us;
        let batch = std::mem::replace(&mut self.pending, Batch::empty());
        (batch.events > 0).then_some(batch)
    }

    /// Makes one line: adds it to the pending message, or returns it as a message of its own.
    fn make(&mut self, time_us: i64) -> Option<Batch> {
        self.expected.events += 1;
        match self.line(time_us) {
            Line::Event(event) => {
                self.made_us = self.made_us.max(event.time_us);
                self.remember(event);
                self.count(&event);
            }
            Line::Late(event) => {
                self.expected.late += 1;
                self.count(&event);
            }
            Line::Repeat(event) => {
                self.expected.repeats += 1;
                self.append(&event);
            }
            Line::Conflict(event) => {
                self.expected.conflicts += 1;
                self.append(&event);
            }
            Line::Rejected => {
                self.expected.rejected += 1;
                return Some(self.single(time_us, |random, id, subject, time| {
                    Fault::ALL[random.index(Fault::ALL.len())].event(id, subject, time)
                }));
            }
            Line::Unknown => {
                self.expected.unmatched += 1;
                return Some(self.single(time_us, |_, id, subject, time| {
                    unknown_event(id, subject, time)
                }));
            }
        }
        None
    }

    fn line(&mut self, time_us: i64) -> Line {
        if self.random.one_in(REJECTED_ONE_IN) {
            return Line::Rejected;
        }
        if self.random.one_in(UNKNOWN_ONE_IN) {
            return Line::Unknown;
        }
        if !self.recent.is_empty() && self.random.one_in(REPEAT_ONE_IN) {
            return Line::Repeat(self.recent[self.random.index(self.recent.len())]);
        }
        if !self.recent.is_empty() && self.random.one_in(CONFLICT_ONE_IN) {
            let event = self.recent[self.random.index(self.recent.len())];
            return Line::Conflict(Event {
                content: event.content.altered(),
                ..event
            });
        }
        let is_late = self.random.one_in(LATE_ONE_IN);
        let event = self.event(time_us);
        match self.late_us().filter(|_| is_late) {
            Some(time_us) => Line::Late(Event { time_us, ..event }),
            None => Line::Event(event),
        }
    }

    /// A time in a window that earlier messages have closed; `None` in the month's first hours.
    fn late_us(&mut self) -> Option<i64> {
        let behind_us = LATE_US_MIN + self.random.below(LATE_US_SPREAD).cast_signed();
        Some(self.sent_us - behind_us).filter(|us| *us >= self.settings.start_us)
    }

    fn event(&mut self, time_us: i64) -> Event {
        let random = &mut self.random;
        let customer = customers::pick(random);
        let behind_us = random.below(DISORDER_US).cast_signed();
        let content = Content::of(&CUSTOMERS[customer], random);
        Event {
            id: random.next_u128(),
            customer,
            time_us: (time_us - behind_us).max(self.settings.start_us),
            content,
        }
    }

    fn remember(&mut self, event: Event) {
        if self.recent.len() < RECENT {
            self.recent.push(event);
        } else {
            let replaced = self.random.index(RECENT);
            self.recent[replaced] = event;
        }
    }

    /// Counts an event and appends it.
    fn count(&mut self, event: &Event) {
        self.expected.counted += 1;
        let day = self.settings.day_of(event.time_us);
        self.expected.usage[event.customer][day] += event.content.usage();
        self.append(event);
    }

    fn append(&mut self, event: &Event) {
        self.pending.append(event, &mut self.times);
    }

    fn single(
        &mut self,
        time_us: i64,
        write: impl FnOnce(&mut Random, u128, &str, &str) -> String,
    ) -> Batch {
        let mut time = Vec::new();
        self.times.put(&mut time, time_us);
        let id = self.random.next_u128();
        let subject = CUSTOMERS[customers::pick(&mut self.random)].name;
        let event = write(
            &mut self.random,
            id,
            subject,
            &String::from_utf8_lossy(&time),
        );
        Batch {
            payload: event.into_bytes(),
            events: 1,
            is_single: true,
        }
    }
}

impl Iterator for Month {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        loop {
            let is_full = self.pending.events >= self.settings.batch as u64;
            if (is_full || self.hours.is_new())
                && let Some(batch) = self.take_pending()
            {
                return Some(batch);
            }
            let Some(time_us) = self.hours.next_us(&mut self.random) else {
                return self.take_pending();
            };
            if let Some(single) = self.make(time_us) {
                return Some(single);
            }
        }
    }
}

impl Batch {
    fn empty() -> Self {
        Batch {
            payload: Vec::new(),
            events: 0,
            is_single: false,
        }
    }

    fn append(&mut self, event: &Event, times: &mut Times) {
        if self.events > 0 {
            self.payload.push(b'\n');
        }
        event.write(times, &mut self.payload);
        self.events += 1;
    }
}
