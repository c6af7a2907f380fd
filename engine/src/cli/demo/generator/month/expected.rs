//! What a month amounts to.

use super::super::customers::CUSTOMERS;
use std::{iter::Sum, ops::AddAssign};

/// The models that completions are of.
pub const MODELS: [&str; 4] = ["atlas-large", "atlas-small", "nimbus-2", "quill-mini"];

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
    /// What each customer used on each of the month's days: customers in the order of [`CUSTOMERS`].
    pub usage: Vec<Vec<Usage>>,
}

/// What one customer used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Completions, by model in the order of [`MODELS`].
    pub tokens: [Tokens; MODELS.len()],
    /// Agent tasks.
    pub attempts: u64,
    /// Agent tasks that ended well.
    pub resolved: u64,
    /// GPU time in microseconds.
    pub gpu_us: u64,
}

/// Completions, and what they read and wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Completions.
    pub calls: u64,
    /// Tokens read, the cached ones included.
    pub input: u64,
    /// Tokens read from a cache.
    pub cached: u64,
    /// Tokens written.
    pub output: u64,
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Tokens) {
        self.calls += other.calls;
        self.input += other.input;
        self.cached += other.cached;
        self.output += other.output;
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        for (tokens, other) in self.tokens.iter_mut().zip(other.tokens) {
            *tokens += other;
        }
        self.attempts += other.attempts;
        self.resolved += other.resolved;
        self.gpu_us += other.gpu_us;
    }
}

impl<'a> Sum<&'a Usage> for Usage {
    fn sum<I: Iterator<Item = &'a Usage>>(parts: I) -> Usage {
        parts.fold(Usage::default(), |mut sum, part| {
            sum += *part;
            sum
        })
    }
}

impl Usage {
    /// The completions of all models.
    pub fn completions(&self) -> Tokens {
        self.tokens
            .iter()
            .fold(Tokens::default(), |mut sum, tokens| {
                sum += *tokens;
                sum
            })
    }
}

impl Expected {
    pub(super) fn nothing(days: usize) -> Self {
        Expected {
            events: 0,
            counted: 0,
            late: 0,
            repeats: 0,
            rejected: 0,
            unmatched: 0,
            conflicts: 0,
            usage: vec![vec![Usage::default(); days]; CUSTOMERS.len()],
        }
    }

    /// Adds what else was sent of the same month.
    pub fn add(&mut self, other: &Expected) {
        self.events += other.events;
        self.counted += other.counted;
        self.late += other.late;
        self.repeats += other.repeats;
        self.rejected += other.rejected;
        self.unmatched += other.unmatched;
        self.conflicts += other.conflicts;
        let days = self.usage.iter_mut().flatten();
        for (day, other) in days.zip(other.usage.iter().flatten()) {
            *day += *other;
        }
    }
}
