//! What a month amounts to.

use super::super::customers::CUSTOMERS;
use std::ops::AddAssign;

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
    pub(super) fn nothing() -> Self {
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
