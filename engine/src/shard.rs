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

use crate::{
    clock::Clock,
    commit::{self, Marks, Owner, Position},
    dedupe::{Dedupe, Verdict},
    error::{Error, Result, query_error},
    metering::{Metering, Pending},
    recovery::{self, Seen},
    telemetry::{Counts, Progress, Report},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, RecordBatch, StringArray},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tollgate_connectors::{
    Anchor, Attempt, Message, ReadLimit, Sequence, Source, Staged, Table,
    event::{Decoded, Decoder, Status},
};
use tollgate_sql::{definitions::Definitions, meter::Meter};

/// What a shard is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where events come from.
    pub source: Box<dyn Source>,
    /// Payloads to columns.
    pub decoder: Decoder,
    /// What is measured.
    pub definitions: Definitions,
    /// The same, planned.
    pub meters: Vec<Arc<Meter>>,
    /// The `events` table.
    pub events: Box<dyn Table>,
    /// The table of each meter, in the same order.
    pub tables: Vec<Box<dyn Table>>,
    /// When to flush; nothing that is counted depends on it.
    pub clock: Arc<dyn Clock>,
}

/// When to flush and what to remember.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Payload bytes read and handled together.
    pub batch_bytes: usize,
    /// Longest wait of an event in memory, in microseconds.
    pub flush_interval_us: i64,
    /// Payload bytes that make a flush due.
    pub flush_bytes: usize,
    /// Dedupe horizon in microseconds of ingest time.
    pub horizon_us: i64,
    /// Stop at the source's present end, with every window closed.
    pub until_end: bool,
}

/// One running shard.
#[derive(Debug)]
pub struct Shard {
    options: Options,
    clock: Arc<dyn Clock>,
    input: mpsc::Receiver<Input>,
    reader: JoinHandle<Result<()>>,
    dedupe: Dedupe,
    metering: Metering,
    position: Position,
    buffer: Buffer,
    writer: WriterSlot,
    report: Report,
    progress: watch::Sender<Progress>,
}

/// What the reader hands over.
#[derive(Debug)]
enum Input {
    Batch(Box<Batch>),
    /// Nothing came for a while: the shard is caught up.
    Idle,
    /// The source's end, as it was at the start, is reached.
    End,
}

#[derive(Debug)]
struct Batch {
    decoded: Decoded,
    messages: Vec<Message>,
    /// The last sequence that is read or explained.
    last: Sequence,
    holes: u64,
    bytes: usize,
}

/// What waits for the next flush.
#[derive(Debug, Default)]
struct Buffer {
    batches: Vec<RecordBatch>,
    counts: Counts,
    bytes: usize,
    since_us: Option<i64>,
}

/// Runs a shard until its source ends, it is told to stop, or it fails; returns what it did.
///
/// `stop` becomes true to stop gracefully: what was read is flushed first.
///
/// # Errors
/// Whatever the source, the lake or a meter cannot do; see [`Error::kind`] for what to do then.
pub async fn run(
    parts: Parts,
    options: Options,
    stop: watch::Receiver<bool>,
    progress: watch::Sender<Progress>,
) -> Result<Report> {
    let mut shard = Shard::start(parts, options, stop, progress).await?;
    let reached_end = match shard.process_all().await {
        Ok(reached_end) => reached_end,
        Err(error) => {
            shard.reader.abort();
            return Err(error);
        }
    };
    if reached_end && options.until_end {
        shard.close_everything();
    }
    shard.flush().await?;
    shard.writer.wait(&mut shard.report).await?;
    if !reached_end {
        reader_result(&mut shard.reader).await?;
    }
    shard.report.position = shard.position;
    Ok(shard.report)
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
            meters,
            mut events,
            mut tables,
            clock,
        } = parts;
        let shard = source.shard().to_owned();
        let bounds = source.bounds().await?;
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let (owner, position) =
            commit::acquire(events.as_mut(), &shard, nonce, clock.as_ref()).await?;
        let anchor = match position.sequence {
            Sequence(0) => None,
            sequence => source.anchor(sequence).await?,
        };
        recovery::check_stream(&shard, &position, &Seen { bounds, anchor })?;
        for table in &mut tables {
            take_over(table.as_mut(), &owner, clock.as_ref()).await?;
        }
        let known: Vec<Option<&dyn Table>> = tables.iter().map(|t| Some(t.as_ref())).collect();
        let lanes = recovery::lanes(&definitions, &meters, &known, &owner.marks).await?;
        let metering = recovery::open_windows(lanes, events.as_ref(), &shard, &position).await?;
        let dedupe =
            recovery::dedupe(events.as_ref(), &shard, &position, options.horizon_us).await?;
        tracing::info!(
            shard,
            epoch = owner.epoch,
            sequence = position.sequence.0,
            keys = dedupe.len(),
            "shard acquired"
        );
        source.seek(position.sequence).await?;
        let (sender, input) = mpsc::channel(2);
        let reader = Reader {
            source,
            decoder,
            position: position.sequence,
            until: options.until_end.then_some(bounds.last),
            batch_bytes: options.batch_bytes,
        };
        progress.send_modify(|p| {
            p.position = position.sequence;
            p.end = bounds.last;
        });
        let writer = Writer {
            owner,
            meters,
            events,
            tables,
            clock: Arc::clone(&clock),
        };
        Ok(Shard {
            options,
            clock,
            input,
            reader: tokio::spawn(reader.run(sender, stop)),
            dedupe,
            metering,
            position,
            buffer: Buffer::default(),
            writer: WriterSlot::Free(Box::new(writer)),
            report: Report::new(&shard),
            progress,
        })
    }

    /// Handles all input; true when the source's end was reached.
    async fn process_all(&mut self) -> Result<bool> {
        while let Some(input) = self.input.recv().await {
            match input {
                Input::Batch(batch) => self.process(*batch).await?,
                Input::Idle => self.advance_if_idle(),
                Input::End => return Ok(true),
            }
            self.writer.collect(&mut self.report).await?;
            if self.is_flush_due() {
                self.flush().await?;
            }
        }
        Ok(false)
    }

    async fn process(&mut self, batch: Batch) -> Result<()> {
        let judged = judge(&mut self.dedupe, &batch)?;
        let late = self.metering.apply(&judged.counted).await?;
        let rows = with_late(&judged, late.as_ref())?;
        if let Some(last) = batch.messages.last() {
            self.dedupe.prune(last.ingest_time_us);
            self.position.anchor = (last.sequence == batch.last)
                .then(|| Anchor::of(last))
                .or(self.position.anchor);
        }
        self.position.sequence = batch.last;
        self.position.watermark = self.metering.watermark();
        let counts = Counts {
            messages: batch.messages.len() as u64,
            holes: batch.holes,
            late: late.map_or(0, |late| late.count_set_bits() as u64),
            ..judged.counts
        };
        self.buffer
            .add(rows, counts, batch.bytes, self.clock.now_us());
        self.report.counts += counts;
        let counts = self.report.counts;
        self.progress.send_modify(|p| {
            p.position = batch.last;
            p.counts = counts;
        });
        Ok(())
    }

    fn is_flush_due(&self) -> bool {
        let waited_us = self
            .buffer
            .since_us
            .map(|since| self.clock.now_us() - since);
        self.buffer.bytes >= self.options.flush_bytes
            || waited_us.is_some_and(|waited| waited >= self.options.flush_interval_us)
    }

    /// An idle shard that is caught up goes by the clock, if that closes a window.
    fn advance_if_idle(&mut self) {
        let now_us = self.clock.now_us();
        let due = self
            .metering
            .closing_watermark()
            .is_some_and(|closing| closing.0 <= now_us);
        if due && !self.options.until_end {
            self.advance(crate::window::EventTime(now_us));
        }
    }

    /// The input has ended: closes every window that is open, and no later one.
    fn close_everything(&mut self) {
        if let Some(closing) = self.metering.closing_watermark() {
            self.advance(closing);
        }
    }

    fn advance(&mut self, to: crate::window::EventTime) {
        let closed_at_us = self
            .position
            .anchor
            .map_or(to.0, |anchor| anchor.ingest_time_us);
        self.metering
            .advance(to, self.position.sequence, closed_at_us);
        self.position.watermark = self.metering.watermark();
        self.buffer.since_us.get_or_insert(self.clock.now_us());
    }

    /// Hands what is new to the writer, waiting for the flush before to finish.
    async fn flush(&mut self) -> Result<()> {
        let pending = self.metering.take_pending(&self.position)?;
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.since_us.is_none() && pending.is_empty() {
            return Ok(());
        }
        let flush = Flush {
            buffer,
            position: self.position,
            pending,
        };
        self.writer.wait(&mut self.report).await?;
        self.writer.begin(flush);
        Ok(())
    }
}

impl Buffer {
    fn add(&mut self, rows: RecordBatch, counts: Counts, bytes: usize, now_us: i64) {
        if rows.num_rows() > 0 {
            self.batches.push(rows);
        }
        self.counts += counts;
        self.bytes += bytes;
        self.since_us.get_or_insert(now_us);
    }
}

/// The error that ended the reader, if it was one.
async fn reader_result(reader: &mut JoinHandle<Result<()>>) -> Result<()> {
    match reader.await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Ok(()),
        Err(_) => Err(Error::Stage("reader")),
    }
}

/// Commits the owner's epoch to a meter's table, so that no older owner can write panes any more.
async fn take_over(table: &mut dyn Table, owner: &Owner, clock: &dyn Clock) -> Result<()> {
    table.refresh().await?;
    let attempt = Attempt {
        commit_id: owner.commit_id(Sequence(0), 0),
        marks: BTreeMap::from([(owner.marks.epoch(), owner.epoch)]),
        info: BTreeMap::new(),
    };
    commit::commit_once(table, &attempt, &Staged::default(), owner, clock).await?;
    Ok(())
}

/// A batch after dedupe: no repeats any more.
struct Judged {
    /// What is stored.
    rows: RecordBatch,
    /// Which of them are counted.
    is_counted: BooleanBuffer,
    /// Those alone.
    counted: RecordBatch,
    /// Rows of `rows` with an id that was seen with other content, and their payloads.
    conflicts: BTreeMap<usize, Vec<u8>>,
    counts: Counts,
}

/// Drops repeats and finds conflicts. Only an event that counts claims its id, so one that was
/// rejected may be corrected and sent again.
fn judge(dedupe: &mut Dedupe, batch: &Batch) -> Result<Judged> {
    let events = &batch.decoded.batch;
    let contents = events["content_hash"].as_primitive::<Int64Type>();
    let ingest_times = events["ingest_time"].as_primitive::<TimestampMicrosecondType>();
    let mut counts = Counts {
        events: events.num_rows() as u64,
        ..Counts::default()
    };
    let mut keep = Vec::with_capacity(events.num_rows());
    let mut is_counted = Vec::with_capacity(events.num_rows());
    let mut conflicts = BTreeMap::new();
    for row in 0..events.num_rows() {
        let verdict = match batch.decoded.statuses[row] {
            Status::Ok => Some(dedupe.judge(
                batch.decoded.keys[row],
                contents.value(row),
                ingest_times.value(row),
            )),
            Status::Unmatched => {
                counts.unmatched += 1;
                None
            }
            Status::Rejected | Status::Late | Status::Conflict => {
                counts.rejected += 1;
                None
            }
        };
        if verdict == Some(Verdict::Conflict) {
            counts.conflicts += 1;
            let raw = batch.decoded.raw(&batch.messages, row).unwrap_or_default();
            conflicts.insert(is_counted.len(), raw.into_owned());
        }
        counts.repeats += u64::from(verdict == Some(Verdict::Repeat));
        counts.counted += u64::from(verdict == Some(Verdict::New));
        keep.push(verdict != Some(Verdict::Repeat));
        if verdict != Some(Verdict::Repeat) {
            is_counted.push(verdict == Some(Verdict::New));
        }
    }
    let rows = select(events, BooleanBuffer::from(keep))?;
    let is_counted = BooleanBuffer::from(is_counted);
    let counted = select(&rows, is_counted.clone())?;
    Ok(Judged {
        rows,
        is_counted,
        counted,
        conflicts,
        counts,
    })
}

fn select(batch: &RecordBatch, mask: BooleanBuffer) -> Result<RecordBatch> {
    if mask.count_set_bits() == batch.num_rows() {
        return Ok(batch.clone());
    }
    filter_record_batch(batch, &BooleanArray::from(mask)).map_err(query_error("selecting events"))
}

/// Writes `late` and `conflict` into the status column, and a conflict's reason and payload.
fn with_late(judged: &Judged, late: Option<&BooleanBuffer>) -> Result<RecordBatch> {
    if late.is_none() && judged.conflicts.is_empty() {
        return Ok(judged.rows.clone());
    }
    let rows = &judged.rows;
    let statuses = rows["status"].as_string::<i32>();
    let reasons = rows["reason"].as_string::<i32>();
    let raws = rows["raw"].as_binary::<i32>();
    let mut counted = 0;
    let mut status = Vec::with_capacity(rows.num_rows());
    let mut reason = Vec::with_capacity(rows.num_rows());
    let mut raw = BinaryBuilder::new();
    for row in 0..rows.num_rows() {
        let is_late = judged.is_counted.value(row) && late.is_some_and(|late| late.value(counted));
        counted += usize::from(judged.is_counted.value(row));
        match judged.conflicts.get(&row) {
            Some(payload) => {
                status.push(Status::Conflict.as_str());
                reason.push(Some(
                    "this source and id were counted before with other content",
                ));
                raw.append_value(payload);
            }
            None => {
                status.push(if is_late {
                    Status::Late.as_str()
                } else {
                    statuses.value(row)
                });
                reason.push(reasons.is_valid(row).then(|| reasons.value(row)));
                raw.append_option(raws.is_valid(row).then(|| raws.value(row)));
            }
        }
    }
    let mut columns = rows.columns().to_vec();
    let replaced: [(&str, ArrayRef); 3] = [
        ("status", Arc::new(StringArray::from(status))),
        ("reason", Arc::new(StringArray::from(reason))),
        ("raw", Arc::new(raw.finish())),
    ];
    for (name, column) in replaced {
        let at = rows
            .schema()
            .index_of(name)
            .map_err(query_error("marking late events"))?;
        columns[at] = column;
    }
    RecordBatch::try_new(rows.schema(), columns).map_err(query_error("marking late events"))
}

/// Reads and decodes ahead of the shard.
struct Reader {
    source: Box<dyn Source>,
    decoder: Decoder,
    position: Sequence,
    until: Option<Sequence>,
    batch_bytes: usize,
}

/// How long a read waits for the first message before the shard counts as idle.
const IDLE_MS: u64 = 200;

impl Reader {
    async fn run(
        mut self,
        sender: mpsc::Sender<Input>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let limit = ReadLimit {
            bytes: self.batch_bytes,
            wait_ms: IDLE_MS,
        };
        loop {
            if self.until.is_some_and(|until| self.position >= until) {
                let _ = sender.send(Input::End).await;
                return Ok(());
            }
            let messages = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                messages = self.source.read(limit) => messages?,
            };
            let (reader, input) = self.decode(messages).await?;
            self = reader;
            if sender.send(input).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Decodes off the async threads; a position past `until` belongs to the next run.
    async fn decode(mut self, mut messages: Vec<Message>) -> Result<(Self, Input)> {
        let until = self.until.unwrap_or(Sequence(u64::MAX));
        messages.truncate(messages.partition_point(|message| message.sequence <= until));
        let mut last = messages
            .last()
            .map_or(self.position, |message| message.sequence);
        let mut holes = 0;
        for hole in self.source.holes() {
            last = last.max((*hole.end()).min(until));
            holes += hole.end().0 - hole.start().0 + 1;
        }
        if last == self.position {
            return Ok((self, Input::Idle));
        }
        self.position = last;
        let bytes = messages.iter().map(|message| message.payload.len()).sum();
        tokio::task::spawn_blocking(move || {
            let decoded = self.decoder.decode(&messages)?;
            Ok((
                self,
                Input::Batch(Box::new(Batch {
                    decoded,
                    messages,
                    last,
                    holes,
                    bytes,
                })),
            ))
        })
        .await
        .map_err(|_| Error::Stage("decoder"))?
    }
}

/// Everything one commit of `events`, and the panes it closes, is made from.
#[derive(Debug)]
struct Flush {
    buffer: Buffer,
    position: Position,
    pending: Vec<Pending>,
}

/// Owns the tables and writes one flush at a time.
#[derive(Debug)]
struct Writer {
    owner: Owner,
    meters: Vec<Arc<Meter>>,
    events: Box<dyn Table>,
    tables: Vec<Box<dyn Table>>,
    clock: Arc<dyn Clock>,
}

/// What one flush wrote.
#[derive(Debug)]
struct Written {
    position: Position,
    bytes: u64,
    panes: u64,
    elapsed_us: i64,
}

impl Writer {
    async fn write(&mut self, flush: Flush) -> Result<Written> {
        let started_us = self.clock.now_us();
        let staged = self.commit_events(&flush).await?;
        let mut panes = 0;
        for pending in &flush.pending {
            panes += self.commit_panes(pending, &flush.position).await?;
        }
        let elapsed_us = self.clock.now_us() - started_us;
        tracing::info!(
            sequence = flush.position.sequence.0,
            events = flush.buffer.counts.counted,
            bytes = staged.bytes,
            panes,
            elapsed_us,
            "flush committed"
        );
        Ok(Written {
            position: flush.position,
            bytes: staged.bytes,
            panes,
            elapsed_us,
        })
    }

    async fn commit_events(&mut self, flush: &Flush) -> Result<Staged> {
        let position = &flush.position;
        let step = self.events.version().unsigned_abs();
        let commit_id = self.owner.commit_id(position.sequence, step);
        let staged = self.events.stage(&commit_id, &flush.buffer.batches).await?;
        let info = serde_json::json!({
            "sequence": position.sequence.0,
            "watermark_us": position.watermark.0,
            "counts": flush.buffer.counts,
        });
        let attempt = Attempt {
            commit_id,
            marks: position.marks(&self.owner.marks, self.owner.epoch),
            info: BTreeMap::from([("flush".to_owned(), info)]),
        };
        let clock = self.clock.as_ref();
        commit::commit_once(self.events.as_mut(), &attempt, &staged, &self.owner, clock).await?;
        Ok(staged)
    }

    async fn commit_panes(&mut self, pending: &Pending, position: &Position) -> Result<u64> {
        let meter = &self.meters[pending.lane];
        let table = self.tables[pending.lane].as_mut();
        let panes = pending.panes(meter, &self.owner.shard, position).await?;
        let commit_id = self
            .owner
            .commit_id(position.sequence, table.version().unsigned_abs());
        let staged = table.stage(&commit_id, &panes).await?;
        let marks: &Marks = &self.owner.marks;
        let attempt = Attempt {
            commit_id,
            marks: BTreeMap::from([
                (
                    marks.cut(),
                    i64::try_from(position.sequence.0).unwrap_or(i64::MAX),
                ),
                (marks.closed(), position.watermark.0),
                (marks.epoch(), self.owner.epoch),
            ]),
            info: BTreeMap::new(),
        };
        commit::commit_once(table, &attempt, &staged, &self.owner, self.clock.as_ref()).await?;
        Ok(staged.rows)
    }
}

/// The writer, at rest or at work.
#[derive(Debug)]
enum WriterSlot {
    Free(Box<Writer>),
    Busy(JoinHandle<(Box<Writer>, Result<Written>)>),
    Lost,
}

impl WriterSlot {
    fn begin(&mut self, flush: Flush) {
        *self = match std::mem::replace(self, WriterSlot::Lost) {
            WriterSlot::Free(mut writer) => WriterSlot::Busy(tokio::spawn(async move {
                let written = writer.write(flush).await;
                (writer, written)
            })),
            other => other,
        };
    }

    /// Takes the result of a finished flush without waiting.
    async fn collect(&mut self, report: &mut Report) -> Result<()> {
        match self {
            WriterSlot::Busy(task) if task.is_finished() => self.wait(report).await,
            _ => Ok(()),
        }
    }

    /// Waits until the writer is free.
    async fn wait(&mut self, report: &mut Report) -> Result<()> {
        match std::mem::replace(self, WriterSlot::Lost) {
            WriterSlot::Busy(task) => {
                let (writer, written) = task.await.map_err(|_| Error::Stage("writer"))?;
                let written = written?;
                *self = WriterSlot::Free(writer);
                report.committed(
                    written.position,
                    written.bytes,
                    written.panes,
                    written.elapsed_us,
                );
            }
            WriterSlot::Free(writer) => *self = WriterSlot::Free(writer),
            WriterSlot::Lost => return Err(Error::Stage("writer")),
        }
        Ok(())
    }
}
