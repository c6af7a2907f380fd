//! The load: one kind of event, many subjects, written as fast as memory allows.

use super::{
    random::Random,
    text::{Times, put_hex, put_number},
};
use std::{collections::BTreeMap, ops::AddAssign};

/// Subjects are `cust_00000` to `cust_09999`.
const SUBJECTS: u64 = 10_000;
/// Coprime to [`SUBJECTS`], so that rank to number is one to one and the busy ones are spread out.
const SUBJECT_STEP: u64 = 7_919;
const MODELS: u64 = 10;
const MODELS_PER_SUBJECT: u64 = 3;
const REGIONS: [&str; 4] = ["us-west-2", "us-east-1", "eu-central-1", "ap-southeast-1"];
/// One event in so many repeats an earlier one: 0.5 %.
const REPEAT_ONE_IN: u64 = 200;
/// One event in so many comes [`LATE_US`] late: 0.1 %.
const LATE_ONE_IN: u64 = 1_000;
const LATE_US: i64 = 300_000_000;
const DISORDER_US: u64 = 5_000_000;
/// A repeat repeats one of so many events before it.
const RECENT: usize = 1_024;

/// What load to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Another seed, another load.
    pub seed: u64,
    /// How many events, repeats included.
    pub events: u64,
    /// No event is earlier; microseconds since the Unix epoch.
    pub start_us: i64,
    /// Events in a second of event time: the load spans `events / events_per_second` seconds. 0 is
    /// taken as 1.
    pub events_per_second: u64,
}

/// One `llm.completion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The event's id.
    pub id: u128,
    /// The number in `cust_00000`.
    pub subject: u64,
    /// The number in `model-0`.
    pub model: u64,
    /// When it happened, microseconds since the Unix epoch.
    pub time_us: i64,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// True for the byte-identical repeat of an earlier event.
    pub is_repeat: bool,
}

/// What a load adds up to, each event counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that are no repeats.
    pub events: u64,
    /// Events that are.
    pub repeats: u64,
    /// Sum of `input_tokens`.
    pub input_tokens: u64,
    /// Sum of `output_tokens`.
    pub output_tokens: u64,
}

impl Totals {
    /// Adds one event.
    #[inline]
    pub fn add(&mut self, event: &Completion) {
        if event.is_repeat {
            self.repeats += 1;
        } else {
            self.events += 1;
            self.input_tokens += event.input_tokens;
            self.output_tokens += event.output_tokens;
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.events += other.events;
        self.repeats += other.repeats;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
    }
}

/// The events of a [`Load`], in the order they are sent.
///
/// An event looks like this, about 260 bytes:
/// ```text
/// {"specversion":"1.0","id":"a4bcaee7d57e19735590b480feaebddb","source":"api-gateway",
///  "type":"llm.completion","subject":"cust_04441","time":"2026-07-31T23:55:00.000000Z","data":
///  {"model":"model-7","region":"us-west-2","input_tokens":4950,"output_tokens":1375}}
/// ```
/// Ranks follow Zipf's law, each subject has three of ten models, 0.5 % are repeats, times are up to
/// 5 s out of order, and 0.1 % are five minutes late.
///
/// ```
/// use tollgate::cli::demo::generator::{Load, Workload};
///
/// let mut workload = Workload::new(Load { seed: 1, events: 1_000, start_us: 0, events_per_second: 10 });
/// let mut payload = Vec::new();
/// while workload.write(100, &mut payload) > 0 {
///     payload.clear();
/// }
/// let totals = workload.totals();
/// assert_eq!(totals.events + totals.repeats, 1_000);
/// ```
#[derive(Debug, Clone)]
pub struct Workload {
    load: Load,
    random: Random,
    made: u64,
    recent: Vec<Completion>,
    times: Times,
    totals: Totals,
}

impl Workload {
    /// A load from its start.
    pub fn new(load: Load) -> Self {
        Workload {
            load,
            random: Random::new(load.seed),
            made: 0,
            recent: Vec::with_capacity(RECENT),
            times: Times::new(),
            totals: Totals::default(),
        }
    }

    /// Appends the next events, at most `events` of them, a line each with a line break between;
    /// returns how many there were, 0 at the end.
    pub fn write(&mut self, events: usize, out: &mut Vec<u8>) -> usize {
        for written in 0..events {
            let Some(event) = self.next() else {
                return written;
            };
            if written > 0 {
                out.push(b'\n');
            }
            event.write(&mut self.times, out);
        }
        events
    }

    /// What the events made so far add up to.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What a whole load adds up to, by subject and model as they are written. Makes the load once
    /// more, without writing it.
    pub fn totals_by_subject_and_model(load: Load) -> BTreeMap<(String, String), Totals> {
        let mut by_number: BTreeMap<(u64, u64), Totals> = BTreeMap::new();
        for event in Workload::new(load) {
            by_number
                .entry((event.subject, event.model))
                .or_default()
                .add(&event);
        }
        let named =
            |((subject, model), totals)| ((subject_name(subject), model_name(model)), totals);
        by_number.into_iter().map(named).collect()
    }

    #[inline]
    fn fresh(&mut self) -> Completion {
        let subject = self.subject();
        let model = (subject + 3 * self.random.below(MODELS_PER_SUBJECT)) % MODELS;
        Completion {
            id: self.random.next_u128(),
            subject,
            model,
            time_us: self.time_us(),
            input_tokens: self.random.skewed(5, 13),
            output_tokens: self.random.skewed(4, 11),
            is_repeat: false,
        }
    }

    /// Zipf's law in integers: a rank's number of bits is uniform, and so is the rank among those with
    /// as many bits. The n-th busiest is then as likely as 1/n, up to a step.
    #[inline]
    fn subject(&mut self) -> u64 {
        loop {
            let first = 1 << self.random.below(u64::from(SUBJECTS.ilog2()) + 1);
            let rank = first + self.random.below(first) - 1;
            if rank < SUBJECTS {
                return rank * SUBJECT_STEP % SUBJECTS;
            }
        }
    }

    #[inline]
    fn time_us(&mut self) -> i64 {
        let elapsed_us =
            u128::from(self.made) * 1_000_000 / u128::from(self.load.events_per_second.max(1));
        let elapsed_us = i64::try_from(elapsed_us).unwrap_or(i64::MAX);
        let late_us = if self.random.one_in(LATE_ONE_IN) {
            LATE_US
        } else {
            0
        };
        let behind_us = self.random.below(DISORDER_US + 1).cast_signed() + late_us;
        self.load
            .start_us
            .saturating_add((elapsed_us - behind_us).max(0))
    }

    #[inline]
    fn remember(&mut self, event: Completion) {
        if self.recent.len() < RECENT {
            self.recent.push(event);
        } else {
            let oldest = self.made % RECENT as u64;
            self.recent[usize::try_from(oldest).expect("it is below RECENT")] = event;
        }
    }
}

impl Iterator for Workload {
    type Item = Completion;

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        if self.made == self.load.events {
            return None;
        }
        let event = if !self.recent.is_empty() && self.random.one_in(REPEAT_ONE_IN) {
            let repeated = self.recent[self.random.index(self.recent.len())];
            Completion {
                is_repeat: true,
                ..repeated
            }
        } else {
            let fresh = self.fresh();
            self.remember(fresh);
            fresh
        };
        self.made += 1;
        self.totals.add(&event);
        Some(event)
    }
}

impl Completion {
    #[inline]
    fn write(&self, times: &mut Times, out: &mut Vec<u8>) {
        out.reserve(320);
        out.extend_from_slice(br#"{"specversion":"1.0","id":""#);
        put_hex(out, self.id);
        out.extend_from_slice(br#"","source":"api-gateway","type":"llm.completion","subject":""#);
        put_subject(out, self.subject);
        out.extend_from_slice(br#"","time":""#);
        times.put(out, self.time_us);
        out.extend_from_slice(br#"","data":{"model":"model-"#);
        put_number(out, self.model);
        out.extend_from_slice(br#"","region":""#);
        out.extend_from_slice(self.region().as_bytes());
        out.extend_from_slice(br#"","input_tokens":"#);
        put_number(out, self.input_tokens);
        out.extend_from_slice(br#","output_tokens":"#);
        put_number(out, self.output_tokens);
        out.extend_from_slice(b"}}");
    }

    /// A subject is always in the same region.
    #[inline]
    fn region(&self) -> &'static str {
        let region = self.subject / MODELS % REGIONS.len() as u64;
        REGIONS[usize::try_from(region).expect("it is below the number of regions")]
    }
}

fn put_subject(out: &mut Vec<u8>, subject: u64) {
    out.extend_from_slice(b"cust_");
    for place in [10_000, 1_000, 100, 10, 1] {
        put_number(out, subject / place % 10);
    }
}

fn subject_name(subject: u64) -> String {
    format!("cust_{subject:05}")
}

fn model_name(model: u64) -> String {
    format!("model-{model}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const LOAD: Load = Load {
        seed: 42,
        events: 20_000,
        start_us: 1_785_542_100_000_000,
        events_per_second: 100,
    };

    fn lines(load: Load, per_message: usize) -> Vec<String> {
        let mut workload = Workload::new(load);
        let mut lines = Vec::new();
        let mut payload = Vec::new();
        while workload.write(per_message, &mut payload) > 0 {
            lines.extend(
                String::from_utf8(std::mem::take(&mut payload))
                    .unwrap()
                    .lines()
                    .map(str::to_owned),
            );
        }
        lines
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_in_any_batches() {
        assert_eq!(lines(LOAD, 1), lines(LOAD, 777));
        assert_ne!(lines(LOAD, 100), lines(Load { seed: 43, ..LOAD }, 100));
    }

    #[test]
    fn an_event_has_the_documented_shape() {
        let event = Completion {
            id: 0xa4bc_aee7_d57e_1973_5590_b480_feae_bddb,
            subject: 4_440,
            model: 7,
            time_us: 1_785_542_100_000_000,
            input_tokens: 4_950,
            output_tokens: 1_375,
            is_repeat: false,
        };
        let mut out = Vec::new();
        event.write(&mut Times::new(), &mut out);
        let expected = r#"{"specversion":"1.0","id":"a4bcaee7d57e19735590b480feaebddb","source":"api-gateway","type":"llm.completion","subject":"cust_04440","time":"2026-07-31T23:55:00.000000Z","data":{"model":"model-7","region":"us-west-2","input_tokens":4950,"output_tokens":1375}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    /// Parses what was written with another parser and adds it up again.
    #[test]
    fn totals_are_those_of_the_written_lines() {
        let mut by_id: BTreeMap<String, String> = BTreeMap::new();
        let mut expected = Totals::default();
        for line in lines(LOAD, 100) {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            let id = event["id"].as_str().unwrap().to_owned();
            if let Some(first) = by_id.get(&id) {
                assert_eq!(first, &line);
                expected.repeats += 1;
            } else {
                expected.events += 1;
                expected.input_tokens += event["data"]["input_tokens"].as_u64().unwrap();
                expected.output_tokens += event["data"]["output_tokens"].as_u64().unwrap();
                by_id.insert(id, line);
            }
        }
        let mut workload = Workload::new(LOAD);
        while workload.write(100, &mut Vec::new()) > 0 {}
        assert_eq!(workload.totals(), expected);
        let mut sum = Totals::default();
        for totals in Workload::totals_by_subject_and_model(LOAD).values() {
            sum += *totals;
        }
        assert_eq!(sum, expected);
    }

    #[test]
    fn half_a_percent_repeats_and_a_thousandth_is_five_minutes_late() {
        let load = Load {
            events: 200_000,
            events_per_second: 100,
            ..LOAD
        };
        let mut late = 0;
        for (event, n) in Workload::new(load)
            .zip(0_i64..)
            .filter(|(event, _)| !event.is_repeat)
        {
            let due_us = load.start_us + n * 10_000;
            let behind_us = due_us - event.time_us;
            let is_late = (LATE_US..=LATE_US + 5_000_000).contains(&behind_us);
            late += u32::from(is_late);
            let is_first = event.time_us == load.start_us;
            assert!(
                is_late || is_first || (0..=5_000_000).contains(&behind_us),
                "{behind_us}"
            );
        }
        let totals = Workload::new(load).fold(Totals::default(), |mut totals, event| {
            totals.add(&event);
            totals
        });
        assert!((900..1_100).contains(&totals.repeats), "{}", totals.repeats);
        assert!((130..230).contains(&late), "{late}");
    }

    #[test]
    fn subjects_are_skewed_and_have_three_models_each() {
        let load = Load {
            events: 200_000,
            ..LOAD
        };
        let mut events: BTreeMap<u64, u64> = BTreeMap::new();
        let mut models: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for event in Workload::new(load) {
            *events.entry(event.subject).or_default() += 1;
            models.entry(event.subject).or_default().insert(event.model);
        }
        assert!(events.len() > 9_000, "{}", events.len());
        assert!(models.values().all(|models| models.len() <= 3));
        assert_eq!(models[&0].len(), 3);
        let mut counts: Vec<u64> = events.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let busiest: u64 = counts.iter().take(100).sum();
        assert!((80_000..130_000).contains(&busiest), "{busiest}");
    }
}
