//! What a run counts and measures, with units; tracing setup.

pub(crate) mod traces;

use crate::{
    commit::Position,
    epoch::Epoch,
    error::{Error, Result, printable},
};
use hdrhistogram::Histogram;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Serialize;
use std::{fmt, io::IsTerminal, ops::AddAssign, sync::Arc, time::Duration};
use tollgate_connectors::Sequence;
use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt,
    filter::{FilterExt, filter_fn},
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How many of what passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages read.
    pub messages: u64,
    /// Sequences without a message that the source explained.
    pub holes: u64,
    /// Events in those messages, good or bad.
    pub events: u64,
    /// Events that count, the late ones included.
    pub counted: u64,
    /// Events that count in a later pane.
    pub late: u64,
    /// Events that count and happened longer before the watermark than ids are remembered, in a shard that had events
    /// then: an earlier copy of one would not be recognised.
    pub older_than_horizon: u64,
    /// Events kept with a reason, not counted.
    pub rejected: u64,
    /// Events of a type that is not defined, kept.
    pub unmatched: u64,
    /// Events with an id that was counted with other content, kept.
    pub conflicts: u64,
    /// Exact repeats of a counted event, not stored.
    pub repeats: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.messages += other.messages;
        self.holes += other.holes;
        self.events += other.events;
        self.counted += other.counted;
        self.late += other.late;
        self.older_than_horizon += other.older_than_horizon;
        self.rejected += other.rejected;
        self.unmatched += other.unmatched;
        self.conflicts += other.conflicts;
        self.repeats += other.repeats;
    }
}

/// Where a run is, for the caller that watches it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// The owner's number; 0 before the shard was owned.
    pub epoch: Epoch,
    /// The last message handled.
    pub position: Sequence,
    /// The source's end when the run started.
    pub end: Sequence,
    /// What passed so far.
    pub counts: Counts,
    /// Whether the shard is acquired and recovered, and reads.
    pub is_reading: bool,
    /// The last message that the source is known to hold; at least `position`.
    pub known_end: Sequence,
    /// Everything that the source had stored by this time is handled, by its clock, in microseconds since the Unix epoch.
    pub read_until_us: Option<i64>,
    /// The watermark, in microseconds since the Unix epoch; `None` before the first event.
    pub watermark_us: Option<i64>,
    /// What open windows take in memory, in bytes.
    pub windows_bytes: usize,
    /// Ids that are remembered.
    pub ids: usize,
    /// Meters that were given up since the shard started.
    pub meters_stopped: usize,
    /// What flushes wrote since the shard started.
    pub flushes: Flushes,
}

/// What flushes wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flushes {
    /// From the start of a flush to its last commit.
    pub durations: Durations,
    /// Bytes of files of `events`.
    pub bytes: u64,
    /// Rows added to the meters' tables.
    pub panes: u64,
    /// How many of them are in error.
    pub panes_in_error: u64,
}

impl Flushes {
    fn add(&mut self, flush: Flushed) {
        let took_us = flush.elapsed_us.unsigned_abs();
        self.durations.add(Duration::from_micros(took_us));
        self.bytes += flush.bytes;
        self.panes += flush.panes;
        self.panes_in_error += flush.in_error;
    }
}

impl AddAssign for Flushes {
    fn add_assign(&mut self, other: Flushes) {
        self.durations += other.durations;
        self.bytes += other.bytes;
        self.panes += other.panes;
        self.panes_in_error += other.panes_in_error;
    }
}

/// Upper bounds of durations, in microseconds: from a millisecond to half a minute.
pub const BOUNDS_US: [u128; 9] = [
    1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// How long things took, as a histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many took at most as long as each of [`BOUNDS_US`] says.
    pub at_most: [u64; BOUNDS_US.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum, in microseconds.
    pub sum_us: u128,
}

impl AddAssign for Durations {
    fn add_assign(&mut self, other: Durations) {
        for (at_most, others) in self.at_most.iter_mut().zip(other.at_most) {
            *at_most += others;
        }
        self.count += other.count;
        self.sum_us += other.sum_us;
    }
}

impl Durations {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        let took_us = took.as_micros();
        for (bound_us, at_most) in BOUNDS_US.iter().zip(&mut self.at_most) {
            *at_most += u64::from(took_us <= *bound_us);
        }
        self.count += 1;
        self.sum_us += took_us;
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Report {
    /// The shard.
    pub shard: String,
    /// What passed.
    pub counts: Counts,
    /// What was written.
    pub flushes: Flushes,
    /// Groups of open windows that were in error when the run ended.
    pub open_in_error: u64,
    /// Where the run ended.
    pub position: Position,
    /// Why meters were given up on the way, in order of definition.
    pub stopped: Vec<Arc<Error>>,
    /// Time from the start of a flush to its last commit, in microseconds.
    pub flush_us: Histogram<u64>,
}

impl Report {
    /// Nothing was done yet.
    pub fn new(shard: &str) -> Self {
        Report {
            shard: shard.to_owned(),
            counts: Counts::default(),
            flushes: Flushes::default(),
            open_in_error: 0,
            position: Position::START,
            stopped: Vec::new(),
            flush_us: Histogram::new(3).expect("three significant digits are allowed"),
        }
    }

    /// The same with what an earlier run of the shard did in this process. Where it ended, and what is in error then, is by the later one.
    pub fn after(mut self, before: Option<Report>) -> Self {
        let Some(before) = before else {
            return self;
        };
        self.counts += before.counts;
        self.flushes += before.flushes;
        // Both have three significant digits, so neither has a value that the other cannot hold.
        let _ = self.flush_us.add(before.flush_us);
        self
    }

    /// Adds one flush.
    pub fn committed(&mut self, position: Position, flush: Flushed) {
        self.flushes.add(flush);
        self.position = position;
        self.flush_us
            .saturating_record(flush.elapsed_us.unsigned_abs());
    }
}

/// What one flush wrote.
#[derive(Debug, Clone, Copy)]
pub struct Flushed {
    /// Bytes of events.
    pub bytes: u64,
    /// Rows added to the meters' tables.
    pub panes: u64,
    /// How many of them are in error.
    pub in_error: u64,
    /// From its start to its last commit, in microseconds.
    pub elapsed_us: i64,
}

/// Sends logs to stderr; colour only goes to a terminal. `filter` is a level, which then holds for
/// Tollgate alone, or directives as in `RUST_LOG`.
///
/// Sends traces to a collector where a variable names one.
///
/// # Errors
/// The filter, or the collector's address, cannot be read.
pub fn start_logging(filter: &str) -> Result<Logging> {
    let is_level = filter.parse::<tracing::Level>().is_ok();
    let directives = match is_level {
        // Every crate of ours starts with this; our libraries speak from `warn` on.
        true => format!("warn,tollgate={filter}"),
        false => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Error::Usage(format!("--log `{filter}`: {error}")))?;
    let provider = traces::provider()?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .fmt_fields(log_fields())
        // Spans are for traces: a line says all that it has to say itself.
        .with_filter(filter.and(filter_fn(|metadata| metadata.is_event())));
    let spans = provider.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tollgate"));
        layer.with_filter(filter_fn(|metadata| {
            metadata.is_span() && metadata.target().starts_with("tollgate")
        }))
    });
    // A second call in one process keeps the first: tests start many commands.
    let _already_started = tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init();
    Ok(Logging { provider })
}

/// What is to be ended before the process ends.
#[derive(Debug)]
#[must_use]
pub struct Logging {
    provider: Option<SdkTracerProvider>,
}

impl Logging {
    /// Sends the traces that were not sent yet.
    pub async fn end(self) {
        if let Some(provider) = self.provider {
            traces::end(provider).await;
        }
    }
}

/// Writes the fields of a line of the log, the message first. What came with an event stays on its line, and a terminal
/// obeys nothing of it.
fn log_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let write = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let value = printable(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    };
    debug_fn(write).delimited(" ")
}

/// What the kernel says a process has in memory, in KiB: `VmRSS` is now, `VmHWM` the most so far. None
/// where there is no `/proc` or no such process.
pub fn memory_kib(process: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    kib_in(&status, field)
}

fn kib_in(status: &str, field: &str) -> Option<u64> {
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let (_, kib) = fields.find(|(name, _)| *name == field)?;
    kib.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::is_obeyed;
    use proptest::prelude::*;
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    #[test]
    fn memory_is_read_of_what_the_kernel_says() {
        let status = "VmHWM:\t  200 kB\nVmRSS:\t  12345 kB\nRssAnon: 1 kB\n";
        assert_eq!(kib_in(status, "VmRSS"), Some(12_345));
        assert_eq!(kib_in("VmRSS: much", "VmRSS"), None);
    }

    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a text in every way that a field can have one.
    fn logged(text: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let logger = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .fmt_fields(log_fields())
            .finish();
        tracing::subscriber::with_default(logger, || {
            tracing::warn!(text, shown = %text, debugged = ?text, bytes = 5, "events were set aside: {text}");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_of_the_log_has_the_message_and_then_its_fields() {
        let line = logged("a\n\u{202e}b");
        let said = "events were set aside: a\\n\\u{202e}b text=\"a\\n\\u{202e}b\" shown=a\\n\\u{202e}b \
                    debugged=\"a\\n\\u{202e}b\" bytes=5\n";
        assert!(line.ends_with(said), "{line}");
    }

    proptest! {
        #[test]
        fn what_publishers_choose_is_one_line_of_the_log(text in "(\\PC|\u{1b}\\[2J|[\u{7}\u{9b}\r\n\u{202e}\u{2066}\u{2028}]|.){0,12}") {
            let line = logged(&text);
            prop_assert_eq!(line.lines().count(), 1, "{}", line);
            prop_assert!(!line.trim_end_matches('\n').contains(is_obeyed), "{}", line);
        }
    }
}
