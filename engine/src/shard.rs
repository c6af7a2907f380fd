//! The loop of one shard: read, decode, dedupe, place, meter, flush, close.
//!
//! ```text
//!  reader task            shard loop                        writer task (one flush at a time)
//!  Source ─▶ Decoder ──▶ Dedupe ─▶ Metering ─▶ buffer ──▶ stage ─▶ commit `events` ─▶ commit panes
//!          2 batches        in sequence order             the commit point
//! ```
//!
//! Three stages overlap, each bounded: the reader is at most two batches ahead, and the next flush
//! waits until the last one is committed. Any error drops the shard and its memory; starting again
//! rebuilds everything from the lake.
//!
//! Between two batches the loop answers [`crate::live::Live`]'s questions with a copy of what it holds.

mod begin;
mod checks;
mod nulls;
mod pin;
mod questions;
mod reader;
mod set_aside;
mod verdicts;
mod writer;

pub(crate) use checks::refused;

use crate::{
    clock::Clock,
    commit::{self, CaughtUp, Owner, Position},
    config::Start,
    dedupe::{self, Dedupe},
    error::{Error, Result},
    metering::{
        Metering,
        pane_writer::{PaneWriter, count_in_error},
    },
    over::{self, Over},
    recovery::{self, Seen, Sink},
    several::several,
    standing::{self, Beginning},
    telemetry::{Counts, Progress, Report},
};
use arrow::array::RecordBatch;
use futures::FutureExt;
use nulls::NullColumns;
use questions::Moment;
use reader::{Batch, Input, Reader};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tollgate_connectors::{
    Anchor, Attempt, Bounds, Sequence, Source, Staged, Table,
    event::{Decoder, EventBatch},
};
use tollgate_sql::{
    definitions::Definitions, event_checks::EventChecks, meter::Meter, window::EventTime,
};
use verdicts::{judge, with_late};
use writer::{Flush, Writer, WriterSlot};

pub(crate) use pin::Pinned;
pub(crate) use questions::Question;
pub use questions::Questions;

/// What a shard is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where events come from.
    pub source: Box<dyn Source>,
    /// Payloads to columns.
    pub decoder: Decoder,
    /// What is measured.
    pub definitions: Definitions,
    /// The checks of its event types, planned.
    pub checks: Vec<Arc<EventChecks>>,
    /// Its meters, planned.
    pub meters: Vec<Arc<Meter>>,
    /// The `events` table.
    pub events: Box<dyn Table>,
    /// The table of each meter, in the same order.
    pub tables: Vec<Box<dyn Table>>,
    /// When to flush; nothing that is counted depends on it.
    pub clock: Arc<dyn Clock>,
}

/// When to flush and what to remember.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of messages read and handled together.
    pub batch_bytes: usize,
    /// Longest wait of an event in memory, in microseconds.
    pub flush_interval_us: i64,
    /// Bytes of decoded events that make a flush due.
    pub flush_bytes: usize,
    /// The most that the open windows of all meters may take in memory.
    pub windows_bytes: usize,
    /// How far back event ids are remembered.
    pub dedupe: dedupe::Options,
    /// Stop at the source's present end, with every window closed that is due by the source's clock.
    pub until_end: bool,
    /// Where to begin when the shard has no position yet; `None` at the stream's first message, which must be there.
    pub start: Option<Start>,
    /// Shards whose place this one takes: they are fenced for good, and their ids are known here.
    pub replaces: Vec<String>,
}

/// One running shard.
#[derive(Debug)]
pub struct Shard {
    options: Options,
    clock: Arc<dyn Clock>,
    checks: Vec<Arc<EventChecks>>,
    input: mpsc::Receiver<Input>,
    reader: JoinHandle<Result<()>>,
    dedupe: Dedupe,
    metering: Metering,
    nulls: NullColumns,
    position: Position,
    buffer: Buffer,
    writer: WriterSlot,
    report: Report,
    progress: watch::Sender<Progress>,
    /// Whether a message says that all from before its time are read.
    stores_in_order: bool,
    /// When ids were last begun to be kept for the next start, in microseconds.
    kept_us: i64,
}

/// Ids are kept for the next start this often, in microseconds: what comes after is read from the lake after a crash.
/// More often makes more files to ask about each id.
const KEEP_EVERY_US: i64 = 3_600_000_000;

/// An idle shard records that it is caught up this often, in microseconds: on the quarter hours, where
/// the billing periods of every time zone begin.
const CAUGHT_UP_EVERY_US: i64 = 900_000_000;

/// What waits for the next flush.
#[derive(Debug, Default)]
struct Buffer {
    batches: Vec<EventBatch>,
    counts: Counts,
    bytes: usize,
    since_us: Option<i64>,
}

/// Runs a shard until its source ends, it is told to stop, or it fails; returns what it did.
///
/// `stop` becomes true to stop gracefully: what was read is flushed first. `questions` are those of
/// [`crate::live::live`], or [`Questions::none`].
///
/// # Errors
/// Whatever the source, the lake or a meter cannot do; see [`Error::kind`] for what to do then.
pub async fn run(
    parts: Parts,
    options: Options,
    stop: watch::Receiver<bool>,
    progress: watch::Sender<Progress>,
    questions: &mut Questions,
) -> Result<Report> {
    let mut shard = Box::pin(Shard::start(parts, options, stop, progress)).await?;
    let reached_end = match shard.process_all(questions).await {
        Ok(reached_end) => reached_end,
        Err(error) => {
            shard.reader.abort();
            return Err(error);
        }
    };
    shard.flush(questions).await?;
    shard.written(questions).await?;
    if !reached_end {
        reader_result(&mut shard.reader).await?;
    }
    shard.collect_written();
    shard.dedupe.finish(shard.position.sequence);
    nulls::warn(shard.nulls.end_day());
    shard.report.open_in_error = shard.open_in_error().await?;
    shard.report.position = shard.position;
    shard.report.stopped = shard.metering.stopped().collect();
    Ok(shard.report)
}

/// A shard that is ours.
struct Acquired {
    owner: Owner,
    position: Position,
    /// Whether the lake says where the shard began.
    has_begun: bool,
}

/// Makes the shard ours, where `source.start` says if it has no position yet, and with the places of those it replaces.
async fn acquire(
    source: &mut dyn Source,
    events: &mut dyn Table,
    options: &Options,
    clock: &dyn Clock,
    progress: &watch::Sender<Progress>,
) -> Result<Acquired> {
    let shard = source.shard().to_owned();
    // A source that cannot be read takes no shard over.
    let before = source.bounds().await?;
    let start = match options.start {
        Some(start) if !standing::has_begun(events, &shard) => {
            Some(begin::after(source, before, start).await?)
        }
        Some(_) | None => None,
    };
    let beginning = Beginning {
        shard: &shard,
        start,
        replaces: &options.replaces,
        now_us: before.asked_us.unwrap_or_else(|| clock.now_us()),
    };
    let nonce = uuid::Uuid::now_v7().simple().to_string();
    let (owner, mut position) = standing::acquire(events, &beginning, nonce, clock).await?;
    // At once: whatever fails from here on, the shard is ours when we try again.
    progress.send_modify(|p| p.epoch = owner.epoch);
    if start.is_some() {
        let first = position.sequence.0 + 1;
        let skipped = first.saturating_sub(source.origin().0);
        tracing::warn!(
            shard,
            first,
            skipped,
            "shard begins where source.start says, what is before is never read"
        );
    }
    if !options.replaces.is_empty() {
        tracing::info!(shard, replaces = ?options.replaces, "shard has the place of others");
    }
    let has_begun = standing::has_begun(events, &shard);
    if !has_begun {
        // Its numbers may have been made to begin later: nothing is missing before the first.
        position.sequence = Sequence(source.origin().0.saturating_sub(1));
    }
    Ok(Acquired {
        owner,
        position,
        has_begun,
    })
}

/// Refuses a source that is not the one that was read; returns what it holds now.
async fn check_source(source: &mut dyn Source, acquired: &Acquired) -> Result<Bounds> {
    let bounds = source.bounds().await?;
    let anchor = match acquired.position.anchor {
        None => None,
        Some((sequence, _)) => source.anchor(sequence).await?,
    };
    let seen = Seen {
        bounds,
        anchor,
        has_begun: acquired.has_begun,
    };
    recovery::check_stream(source.shard(), &acquired.position, &seen)?;
    Ok(bounds)
}

impl Shard {
    /// Acquires the shard, rebuilds its memory from the lake, and starts reading.
    async fn start(
        parts: Parts,
        options: Options,
        stop: watch::Receiver<bool>,
        progress: watch::Sender<Progress>,
    ) -> Result<Self> {
        let Parts {
            mut source,
            decoder,
            definitions,
            checks,
            meters,
            mut events,
            mut tables,
            clock,
        } = parts;
        let shard = source.shard().to_owned();
        let acquired = acquire(&mut *source, &mut *events, &options, &*clock, &progress).await?;
        let asked_us = clock.now_us();
        // Only now: the owner before us may have committed more until we were in.
        let bounds = check_source(&mut *source, &acquired).await?;
        let Acquired {
            owner, position, ..
        } = acquired;
        let owned = tables
            .iter_mut()
            .map(|table| take_over_panes(table.as_mut(), &owner, clock.as_ref()).boxed());
        several(owned.collect::<Vec<_>>()).await?;
        let over = Over {
            events: events.as_ref(),
            definitions: &definitions,
            meters: &meters,
            clock: Arc::clone(&clock),
            bytes: options.flush_bytes,
        };
        tables = over::close_replaced(&over, &shard, tables).await?;
        let known: Vec<Option<&dyn Table>> = tables.iter().map(|t| Some(t.as_ref())).collect();
        let lanes = recovery::lanes(
            &definitions,
            &meters,
            &known,
            &owner.marks,
            &position,
            recovery::For::Writing,
        )
        .await?;
        let nulls = NullColumns::new(&definitions, &meters);
        let mut panes = PaneWriter {
            owner,
            meters,
            tables,
            clock: Arc::clone(&clock),
            again_bytes: options.windows_bytes / 4,
            rows: 0,
            in_error: 0,
        };
        panes.register_versions().await?;
        let sink = Sink {
            panes: &mut panes,
            bytes: options.flush_bytes,
        };
        let metering = recovery::open_windows(
            Metering::new(lanes, options.windows_bytes)?,
            events.as_ref(),
            &shard,
            &position,
            Some(sink),
        )
        .await?;
        let dedupe =
            recovery::dedupe(events.as_ref(), &shard, &position, options.dedupe.clone()).await?;
        tracing::info!(
            shard,
            epoch = panes.owner.epoch.0,
            sequence = position.sequence.0,
            keys = dedupe.len(),
            "shard acquired"
        );
        // Rebuilding took a while: the anchor is compared again before the first message is read.
        source.seek(position.sequence, position.anchor).await?;
        let stores_in_order = source.stores_in_order();
        let (sender, input) = mpsc::channel(2);
        let reader = Reader {
            source,
            decoder,
            position: position.sequence,
            until: options.until_end.then_some(bounds.last),
            batch_bytes: options.batch_bytes,
            clock: Arc::clone(&clock),
            asked_us,
            end_asked_us: bounds.asked_us.unwrap_or(asked_us),
        };
        progress.send_modify(|p| {
            p.position = position.sequence;
            p.end = bounds.last;
            p.known_end = bounds.last;
            p.is_reading = true;
        });
        let writer = Writer { events, panes };
        // Panes that a crash kept from being written, or a new meter's, do not wait for an event.
        let since_us = metering.has_pending().then(|| clock.now_us());
        let buffer = Buffer {
            since_us,
            ..Buffer::default()
        };
        Ok(Shard {
            options,
            clock,
            checks,
            input,
            reader: tokio::spawn(reader.run(sender, stop)),
            dedupe,
            metering,
            nulls,
            position,
            buffer,
            writer: WriterSlot::new(writer)?,
            report: Report::new(&shard),
            progress,
            stores_in_order,
            kept_us: asked_us,
        })
    }

    /// Handles all input; true when the source's end was reached.
    async fn process_all(&mut self, questions: &mut Questions) -> Result<bool> {
        while let Some(input) = self.next(questions).await {
            match input {
                Input::Batch(batch) => self.process(*batch).await?,
                Input::Idle { caught_up_us } => {
                    let end = caught_up_us.map(|_| self.position.sequence);
                    self.tell(end, caught_up_us);
                    if self.idle(caught_up_us) {
                        // Where the clock closed windows is told by the commit at that message alone.
                        self.flush(questions).await?;
                    }
                }
                Input::End { asked_us } => {
                    self.caught_up(EventTime(asked_us));
                    return Ok(true);
                }
            }
            self.writer.collect(&mut self.report).await?;
            self.collect_written();
            self.keep_ids()?;
            if self.is_flush_due() {
                self.flush(questions).await?;
            }
        }
        Ok(false)
    }

    /// The next input. One question is answered before each, and all that come while there is none: so
    /// neither waits for the other, however many there are.
    async fn next(&mut self, questions: &mut Questions) -> Option<Input> {
        if let Some(question) = questions.try_next() {
            self.answer(question);
        }
        loop {
            tokio::select! {
                biased;
                input = self.input.recv() => return input,
                Some(question) = questions.next() => self.answer(question),
            }
        }
    }

    /// Waits until the last flush is written, answering questions meanwhile.
    async fn written(&mut self, questions: &mut Questions) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                written = self.writer.wait(&mut self.report) => return written,
                Some(question) = questions.next() => self.answer(question),
            }
        }
    }

    /// Says where the shard is, and goes on. The caller that asked does the work.
    fn answer(&mut self, question: Question) {
        self.metering.asked(&question.meters);
        let (pinned, flush) = self.writer.pinned();
        question.answer(Moment {
            shard: self.report.shard.clone(),
            position: self.position,
            metering: self.metering.clone(),
            rows: self.buffer.batches.clone(),
            flush: flush.map(Arc::clone),
            pinned: pinned.clone(),
        });
    }

    async fn process(&mut self, batch: Batch) -> Result<()> {
        let refused = refused(&self.checks, &batch.decoded.events)?;
        let before = self.metering.watermark_before();
        let judged = judge(&mut self.dedupe, before, &batch, &refused)?;
        let late = self.metering.apply(&judged.counted).await?;
        nulls::warn(self.nulls.observe(&judged.counted));
        let rows = with_late(&judged, late.as_ref())?;
        if let Some(last) = batch.messages.last() {
            self.position.anchor = Some((last.sequence, Anchor::of(last)));
            let stored = EventTime(last.ingest_time_us.saturating_sub(1));
            self.read_until(stored);
        }
        self.position.sequence = batch.last;
        self.position.watermark = self.metering.watermark();
        let sequence = self.position.sequence;
        self.dedupe
            .settle(self.position.watermark, Some(sequence))?;
        let counts = Counts {
            messages: batch.messages.len() as u64,
            holes: batch.holes,
            late: late.map_or(0, |late| late.count_set_bits() as u64),
            ..judged.counts
        };
        self.buffer.add(rows, counts, self.clock.now_us());
        self.report.counts += counts;
        let stored_us = batch.messages.last().map(|last| last.ingest_time_us);
        self.tell(batch.known_end, stored_us);
        Ok(())
    }

    /// Tells whoever watches where the shard is, and what it holds. Until `read_until_us` everything is handled.
    fn tell(&self, known_end: Option<Sequence>, read_until_us: Option<i64>) {
        let position = self.position.sequence;
        let watermark = Some(self.position.watermark).filter(|now| *now > EventTime::MIN);
        self.progress.send_modify(|p| {
            p.position = position;
            p.known_end = known_end.unwrap_or(p.known_end).max(position);
            p.read_until_us = read_until_us.or(p.read_until_us);
            p.watermark_us = watermark.map(|now| now.0);
            p.windows_bytes = self.metering.bytes();
            p.ids = self.dedupe.len();
            p.meters_stopped = self.metering.stopped().count();
            p.counts = self.report.counts;
            p.flushes = self.report.flushes;
        });
    }

    /// Begins to keep the ids for the next start, every now and then.
    fn keep_ids(&mut self) -> Result<()> {
        let now_us = self.clock.now_us();
        if now_us.saturating_sub(self.kept_us) < KEEP_EVERY_US {
            return Ok(());
        }
        self.kept_us = now_us;
        self.dedupe.keep(self.position.sequence)
    }

    /// Takes in what the writer did: what is committed may be kept for the next start, and the meters are given up whose
    /// panes could not be finished.
    fn collect_written(&mut self) {
        if let Some((position, proof)) = self.writer.take_committed() {
            self.dedupe.committed(&position, proof);
        }
        for (lane, error) in self.writer.take_failed() {
            self.metering.stop(lane, error);
        }
    }

    fn is_flush_due(&self) -> bool {
        let waited_us = self
            .buffer
            .since_us
            .map(|since| self.clock.now_us() - since);
        self.buffer.bytes >= self.options.flush_bytes
            || waited_us.is_some_and(|waited| waited >= self.options.flush_interval_us)
    }

    /// How many groups of windows that are still open are in error now.
    async fn open_in_error(&self) -> Result<u64> {
        let mut in_error = 0;
        for (place, lane) in self.metering.lanes().iter().enumerate() {
            // Of a meter that was stopped there is nothing to see.
            let Ok(states) = self.metering.unwritten(place) else {
                continue;
            };
            let states: Vec<RecordBatch> = states.into_iter().map(|part| part.states).collect();
            if !states.is_empty() {
                in_error += count_in_error(&[lane.meter().finish(&states).await?]);
            }
            let again = self.metering.again(place);
            in_error += self.writer.in_error(lane.meter(), &again).await?;
        }
        Ok(in_error)
    }

    /// A stream that is never idle says by its messages how far it is read. That closes no window: events of an older
    /// time may be on their way.
    fn read_until(&mut self, stored: EventTime) {
        let said = self.position.caught_up.map(|said| said.time);
        let due = said.is_none_or(|said| stored.0.saturating_sub(said.0) >= CAUGHT_UP_EVERY_US);
        if self.stores_in_order && due {
            self.position.caught_up = Some(CaughtUp {
                time: stored,
                sequence: None,
            });
        }
    }

    /// Nothing came for a while. If that is known to be the stream's end, the shard goes by the clock,
    /// where that closes a window; and says every now and then that nothing is missing. True when a window was closed.
    fn idle(&mut self, caught_up_us: Option<i64>) -> bool {
        let Some(now_us) = caught_up_us else {
            return false;
        };
        let quarter = |us: i64| us.div_euclid(CAUGHT_UP_EVERY_US);
        let said = self.position.caught_up.map(|said| quarter(said.time.0));
        let is_due = self.metering.has_due(EventTime(now_us));
        if is_due || said != Some(quarter(now_us)) {
            self.caught_up(EventTime(now_us));
        }
        is_due
    }

    /// Everything that the source had stored by `now`, its own time, is read: closes what is due, and says so
    /// in the next commit, from which recovery closes the same windows at the same message.
    ///
    /// A clock that was ahead and went back takes its claim back too.
    fn caught_up(&mut self, now: EventTime) {
        self.position.caught_up = Some(CaughtUp {
            time: now,
            sequence: Some(self.position.sequence),
        });
        self.metering.close_due(now, self.position.cut());
        self.buffer.since_us.get_or_insert(self.clock.now_us());
    }

    /// Hands what is new to the writer, waiting for the flush before to finish.
    async fn flush(&mut self, questions: &mut Questions) -> Result<()> {
        self.written(questions).await?;
        self.collect_written();
        let pending = self.metering.take_pending(self.position.cut()).await?;
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.since_us.is_none() && pending.is_empty() {
            return Ok(());
        }
        let flush = Flush {
            buffer,
            position: self.position,
            pending,
        };
        self.writer.begin(flush);
        Ok(())
    }
}

impl Buffer {
    fn add(&mut self, rows: EventBatch, counts: Counts, now_us: i64) {
        if rows.num_rows() > 0 {
            self.bytes += rows.memory_size();
            self.batches.push(rows);
        }
        self.counts += counts;
        self.since_us.get_or_insert(now_us);
    }
}

/// The error that ended the reader, if it was one.
async fn reader_result(reader: &mut JoinHandle<Result<()>>) -> Result<()> {
    match reader.await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Ok(()),
        Err(_) => Err(Error::TaskEnded { task: "reader" }),
    }
}

/// Commits the owner's epoch to a meter's table, so that no older owner can write panes any more.
async fn take_over_panes(table: &mut dyn Table, owner: &Owner, clock: &dyn Clock) -> Result<()> {
    for step in 0..commit::TAKE_OVER_TRIES {
        table.refresh().await?;
        if owner
            .marks
            .epoch_in(table)
            .is_some_and(|epoch| epoch > owner.epoch)
        {
            break;
        }
        let attempt = Attempt {
            commit_id: owner.commit_id(Sequence(0), u64::from(step)),
            marks: BTreeMap::from([(owner.marks.epoch(), owner.epoch.0)]),
            info: BTreeMap::new(),
        };
        match commit::commit_once(table, &attempt, &Staged::default(), owner, clock).await {
            // The owner before us may have been writing panes just then: they are in, and it is out.
            Err(Error::Fenced { .. }) => {}
            done => return done.map(|_| ()),
        }
    }
    let theirs = owner.marks.epoch_in(table);
    Err(owner.fenced(theirs))
}
