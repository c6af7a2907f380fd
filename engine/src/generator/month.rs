//! A month of AI usage as it might be, with what goes wrong on the way.

use super::{
    customers::{CUSTOMERS, Customer},
    faults::{Fault, unknown_event},
    random::Random,
    text::{Times, put_hex, put_number, put_six},
};
use std::ops::AddAssign;

const HOUR_US: i64 = 3_600_000_000;
/// An hour's share of a day's usage, UTC: nobody sleeps everywhere, but most customers do.
const HOUR_WEIGHTS: [u64; 24] = [
    30, 25, 22, 20, 20, 24, 34, 48, 66, 80, 88, 92, 90, 94, 100, 98, 96, 90, 82, 74, 64, 54, 44, 36,
];
/// A day's share of a week's, from Monday, in tenths.
const DAY_WEIGHTS: [u64; 7] = [10, 10, 10, 10, 9, 5, 4];

const MODELS: [&str; 4] = ["atlas-large", "atlas-small", "nimbus-2", "quill-mini"];
const REGIONS: [&str; 3] = ["us-west-2", "eu-central-1", "ap-southeast-1"];
const TASKS: [&str; 5] = [
    "refund",
    "order-status",
    "appointment",
    "address-change",
    "contract-review",
];
const OUTCOMES: [&str; 3] = ["resolved", "escalated", "failed"];
const GPUS: [&str; 3] = ["h100", "a100", "l4"];

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

/// What a metering of the month must find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Lines of any kind.
    pub events: u64,
    /// Events that count, the late ones included.
    pub counted: u64,
    /// Events whose window had closed before their message.
    pub late: u64,
    /// Byte-identical repeats.
    pub repeats: u64,
    /// Events that cannot be counted as they are.
    pub rejected: u64,
    /// Events of a type that is not defined.
    pub unmatched: u64,
    /// Events with the id of another event and other content.
    pub conflicts: u64,
    /// What each customer used, in the order of [`CUSTOMERS`].
    pub usage: Vec<Usage>,
}

/// What one customer used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Completions.
    pub calls: u64,
    /// Tokens read, the cached ones included.
    pub input_tokens: u64,
    /// Tokens read from a cache.
    pub cached_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Agent tasks.
    pub attempts: u64,
    /// Agent tasks that ended well.
    pub resolved: u64,
    /// GPU time in microseconds.
    pub gpu_us: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.calls += other.calls;
        self.input_tokens += other.input_tokens;
        self.cached_tokens += other.cached_tokens;
        self.output_tokens += other.output_tokens;
        self.attempts += other.attempts;
        self.resolved += other.resolved;
        self.gpu_us += other.gpu_us;
    }
}

impl Expected {
    fn nothing() -> Self {
        Expected {
            events: 0,
            counted: 0,
            late: 0,
            repeats: 0,
            rejected: 0,
            unmatched: 0,
            conflicts: 0,
            usage: vec![Usage::default(); CUSTOMERS.len()],
        }
    }

    /// What all customers used.
    pub fn total(&self) -> Usage {
        self.usage
            .iter()
            .fold(Usage::default(), |mut total, usage| {
                total += *usage;
                total
            })
    }
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

#[derive(Debug, Clone, Copy)]
struct Event {
    id: u128,
    customer: usize,
    time_us: i64,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    Completion {
        model: &'static str,
        region: &'static str,
        input: u64,
        cached: u64,
        output: u64,
    },
    Task {
        task: &'static str,
        outcome: &'static str,
    },
    Gpu {
        gpu: &'static str,
        us: u64,
    },
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
            expected: Expected::nothing(),
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
        let customer = customer(random);
        let Customer { tasks, gpu, .. } = CUSTOMERS[customer];
        let behind_us = random.below(DISORDER_US).cast_signed();
        let content = match random.below(100) {
            n if n < tasks => Content::task(random),
            n if n < tasks + gpu => Content::gpu(random),
            _ => Content::completion(random),
        };
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
        self.expected.usage[event.customer] += event.content.usage();
        self.append(event);
    }

    fn append(&mut self, event: &Event) {
        if self.pending.events > 0 {
            self.pending.payload.push(b'\n');
        }
        event.write(&mut self.times, &mut self.pending.payload);
        self.pending.events += 1;
    }

    fn single(
        &mut self,
        time_us: i64,
        write: impl FnOnce(&mut Random, u128, &str, &str) -> String,
    ) -> Batch {
        let mut time = Vec::new();
        self.times.put(&mut time, time_us);
        let id = self.random.next_u128();
        let subject = CUSTOMERS[customer(&mut self.random)].name;
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
}

/// Spreads the lines over the month's hours, in order.
#[derive(Debug, Clone)]
struct Hours {
    start_us: i64,
    /// Lines up to the end of each hour.
    ends: Vec<u64>,
    hour: usize,
    made: u64,
}

impl Hours {
    fn new(settings: &MonthSettings) -> Self {
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
    fn is_new(&self) -> bool {
        self.ends.get(self.hour) == Some(&self.made)
    }

    /// The time of the next line, never earlier than the last.
    fn next_us(&mut self, random: &mut Random) -> Option<i64> {
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
fn weight(us: i64) -> u64 {
    let hours = us.div_euclid(HOUR_US);
    let hour = usize::try_from(hours.rem_euclid(24)).expect("it is below 24");
    // The epoch's first day was a Thursday.
    let day = usize::try_from((hours.div_euclid(24) + 3).rem_euclid(7)).expect("it is below 7");
    HOUR_WEIGHTS[hour] * DAY_WEIGHTS[day]
}

fn customer(random: &mut Random) -> usize {
    const WEIGHT: u64 = {
        let (mut sum, mut n) = (0, 0);
        while n < CUSTOMERS.len() {
            sum += CUSTOMERS[n].weight;
            n += 1;
        }
        sum
    };
    let mut left = random.below(WEIGHT);
    CUSTOMERS
        .iter()
        .position(|customer| match left.checked_sub(customer.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
        .expect("the number is below the sum of the weights")
}

/// The first is the likeliest: half of all, then half of the rest, and so on.
fn one_of(random: &mut Random, names: &[&'static str]) -> &'static str {
    let place = usize::try_from(random.next_u64().trailing_zeros()).expect("it is at most 64");
    names[place % names.len()]
}

impl Content {
    fn completion(random: &mut Random) -> Self {
        let input = random.skewed(7, 14);
        // Two prompts of five begin with something that was read before.
        let cached = if random.below(5) < 2 {
            random.below(input)
        } else {
            0
        };
        Content::Completion {
            model: one_of(random, &MODELS),
            region: one_of(random, &REGIONS),
            input,
            cached,
            output: random.skewed(5, 11),
        }
    }

    fn task(random: &mut Random) -> Self {
        let outcome = match random.below(100) {
            0..72 => OUTCOMES[0],
            72..91 => OUTCOMES[1],
            _ => OUTCOMES[2],
        };
        Content::Task {
            task: one_of(random, &TASKS),
            outcome,
        }
    }

    /// From a second to about 17 minutes.
    fn gpu(random: &mut Random) -> Self {
        Content::Gpu {
            gpu: one_of(random, &GPUS),
            us: 1_000_000 + random.skewed(20, 30),
        }
    }

    fn usage(&self) -> Usage {
        match *self {
            Content::Completion {
                input,
                cached,
                output,
                ..
            } => Usage {
                calls: 1,
                input_tokens: input,
                cached_tokens: cached,
                output_tokens: output,
                ..Usage::default()
            },
            Content::Task { outcome, .. } => Usage {
                attempts: 1,
                resolved: u64::from(outcome == OUTCOMES[0]),
                ..Usage::default()
            },
            Content::Gpu { us, .. } => Usage {
                gpu_us: us,
                ..Usage::default()
            },
        }
    }

    /// The same with something else in it.
    fn altered(self) -> Self {
        match self {
            Content::Completion {
                model,
                region,
                input,
                cached,
                output,
            } => Content::Completion {
                model,
                region,
                input,
                cached,
                output: output + 1,
            },
            Content::Task { task, outcome } => {
                let other = if outcome == OUTCOMES[0] {
                    OUTCOMES[1]
                } else {
                    OUTCOMES[0]
                };
                Content::Task {
                    task,
                    outcome: other,
                }
            }
            Content::Gpu { gpu, us } => Content::Gpu { gpu, us: us + 1 },
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Content::Completion { .. } => "llm.completion",
            Content::Task { .. } => "agent.task",
            Content::Gpu { .. } => "gpu.usage",
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Content::Completion {
                model,
                region,
                input,
                cached,
                output,
            } => {
                put_text(out, r#"{"model":""#, model);
                put_text(out, r#"","region":""#, region);
                put_text(out, r#"","input_tokens":"#, "");
                put_number(out, input);
                put_text(out, r#","cached_tokens":"#, "");
                put_number(out, cached);
                put_text(out, r#","output_tokens":"#, "");
                put_number(out, output);
            }
            Content::Task { task, outcome } => {
                put_text(out, r#"{"task":""#, task);
                put_text(out, r#"","outcome":""#, outcome);
                out.push(b'"');
            }
            Content::Gpu { gpu, us } => {
                put_text(out, r#"{"gpu":""#, gpu);
                put_text(out, r#"","gpu_seconds":"#, "");
                put_number(out, us / 1_000_000);
                out.push(b'.');
                put_six(out, us % 1_000_000);
            }
        }
        out.push(b'}');
    }
}

impl Event {
    fn write(&self, times: &mut Times, out: &mut Vec<u8>) {
        put_text(out, r#"{"specversion":"1.0","id":""#, "");
        put_hex(out, self.id);
        put_text(
            out,
            r#"","source":"demo","type":""#,
            self.content.type_name(),
        );
        put_text(out, r#"","subject":""#, CUSTOMERS[self.customer].name);
        put_text(out, r#"","time":""#, "");
        times.put(out, self.time_us);
        put_text(out, r#"","data":"#, "");
        self.content.write(out);
        out.push(b'}');
    }
}

fn put_text(out: &mut Vec<u8>, before: &str, text: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
