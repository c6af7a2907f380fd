//! Open windows: the state batches of every meter, and the panes they become.
//!
//! Each meter has a [`Lane`]. Counted events pass through [`Metering::apply`] in sequence order, live
//! and again in recovery; an event goes to the lane's open state, or, when its window has closed
//! before its message, to the late state. A window's pane 0 is therefore exactly its events up to the
//! message that closed it, whatever batches they came in.

use crate::{
    commit::Position,
    error::{Error, Result, chain, query_error},
    watermark::{Closing, Closings, Watermark},
    window::{EventTime, Windowing},
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    buffer::BooleanBuffer,
    compute::{concat_batches, filter_record_batch},
    datatypes::{
        DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
    },
    error::ArrowError,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tollgate_connectors::Sequence;
use tollgate_sql::{definitions::EventType, meter::Meter, schema};

/// The microsecond values of a timestamp column.
pub(crate) fn micros<'a>(batch: &'a RecordBatch, column: &str) -> &'a [i64] {
    batch[column]
        .as_primitive::<TimestampMicrosecondType>()
        .values()
}

/// State batches that belong together, merged when they pile up.
#[derive(Debug, Default, Clone)]
pub struct States {
    batches: Vec<RecordBatch>,
    /// How many of the last batches are as they came, and may be small.
    small: usize,
    rows: usize,
    rows_merged: usize,
    bytes: usize,
}

impl States {
    /// Below this many rows, merging costs more than it saves.
    const ROWS_MIN: usize = 131_072;
    /// So many batches are put together as they are: each alone costs a kilobyte or more.
    const SMALL_MAX: usize = 128;

    /// Adds a state batch, and merges all of them when they have grown fourfold since last time.
    pub async fn push(&mut self, meter: &Meter, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        self.small += 1;
        if self.rows >= Self::ROWS_MIN.max(4 * self.rows_merged) {
            self.become_one(meter.reduce(&self.batches).await?, 0);
            self.rows_merged = self.rows;
        } else if self.small == Self::SMALL_MAX {
            let from = self.batches.len() - self.small;
            let small = &self.batches[from..];
            let together = concat_batches(&small[0].schema(), small);
            self.become_one(together.map_err(query_error("collecting states"))?, from);
        }
        Ok(())
    }

    /// Puts `batch` in the place of all batches from `from` on.
    fn become_one(&mut self, batch: RecordBatch, from: usize) {
        self.batches.truncate(from);
        self.batches.push(batch);
        self.small = 0;
        self.count();
    }

    fn count(&mut self) {
        self.rows = self.batches.iter().map(RecordBatch::num_rows).sum();
        let bytes = self.batches.iter().map(RecordBatch::get_array_memory_size);
        self.bytes = bytes.sum();
    }

    /// The batches, in no particular order.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// True when there is no state.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Takes out the states of windows that start before `boundary`, leaving the others.
    fn split_off_before(&mut self, boundary: EventTime) -> Result<Vec<RecordBatch>> {
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        for batch in self.batches.drain(..) {
            let starts = micros(&batch, "window_start");
            let before = starts.iter().filter(|start| **start < boundary.0).count();
            if before == batch.num_rows() {
                taken.push(batch);
            } else if before == 0 {
                kept.push(batch);
            } else {
                let mask = BooleanBuffer::collect_bool(starts.len(), |i| starts[i] < boundary.0);
                let mask = BooleanArray::from(mask);
                let rest = arrow::compute::not(&mask).map_err(query_error("splitting states"))?;
                let split = |mask| {
                    filter_record_batch(&batch, mask).map_err(query_error("splitting states"))
                };
                taken.push(split(&mask)?);
                kept.push(split(&rest)?);
            }
        }
        self.batches = kept;
        self.small = 0;
        self.count();
        self.rows_merged = self.rows_merged.min(self.rows);
        Ok(taken)
    }

    /// The start of the first window that has state, or `None`.
    fn first_start(&self) -> Option<EventTime> {
        self.starts().min()
    }

    /// The start of the last window that has state, or `None`.
    fn last_start(&self) -> Option<EventTime> {
        self.starts().max()
    }

    fn starts(&self) -> impl Iterator<Item = EventTime> {
        let starts = self
            .batches
            .iter()
            .flat_map(|batch| micros(batch, "window_start"));
        starts.copied().map(EventTime)
    }
}

/// One meter's windows.
#[derive(Debug)]
pub struct Lane {
    meter: Arc<Meter>,
    event_type: EventType,
    windowing: Windowing,
    written: Written,
    closings: Closings,
    open: States,
    late: States,
    panes: BTreeMap<i64, i32>,
    /// Why it measures no more. Its table stays as it is, so nothing wrong is ever written.
    stopped: Option<Arc<Error>>,
}

/// What a meter's table already holds: every event up to `cut` whose window `watermark` closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The sequence up to which panes were written.
    pub cut: Sequence,
    /// The watermark at that cut.
    pub watermark: EventTime,
}

impl Written {
    /// Nothing was written yet.
    pub const NOTHING: Written = Written {
        cut: Sequence(0),
        watermark: EventTime::MIN,
    };
}

/// The panes one flush adds to a meter's table, still as state, so that finishing them can overlap
/// with reading on.
#[derive(Debug)]
pub struct Pending {
    /// Which lane.
    pub lane: usize,
    closed: Vec<RecordBatch>,
    late: Vec<RecordBatch>,
    closings: Closings,
    panes: BTreeMap<i64, i32>,
}

/// What one lane makes of one micro-batch.
#[derive(Debug, Default)]
struct Measured {
    open: Option<RecordBatch>,
    late: Option<RecordBatch>,
    /// The events that were late for this meter.
    late_rows: Option<BooleanBuffer>,
}

/// One micro-batch of counted events, with what is the same for every meter worked out once.
struct Counted<'a> {
    events: &'a RecordBatch,
    sequences: &'a [i64],
    event_times: &'a [i64],
    /// The watermark before each event's message.
    before: Vec<EventTime>,
    /// The messages that moved the watermark: watermark after it, sequence, ingest time.
    moves: Vec<(EventTime, Sequence, i64)>,
}

impl Lane {
    /// A meter that has nothing to write for this many messages says so in a commit of its own, so
    /// that recovery need not read them again.
    const BEHIND_MAX: u64 = 1_000_000;

    /// A lane that goes on from what the meter's table holds. `panes` has the number of the last
    /// late pane of each window start that has any.
    pub fn new(
        meter: Arc<Meter>,
        event_type: EventType,
        written: Written,
        panes: BTreeMap<i64, i32>,
    ) -> Self {
        let windowing = Windowing {
            width_us: meter.definition().window_us,
            lateness_us: meter.definition().lateness_us,
        };
        Lane {
            meter,
            event_type,
            windowing,
            written,
            closings: Closings::new(windowing, written.watermark),
            open: States::default(),
            late: States::default(),
            panes,
            stopped: None,
        }
    }

    /// The meter.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// How the meter cuts time.
    pub fn windowing(&self) -> Windowing {
        self.windowing
    }

    /// What its table holds.
    pub fn written(&self) -> Written {
        self.written
    }

    /// Windows that end here or before are closed.
    pub fn closed_end(&self) -> EventTime {
        self.closings.closed_end()
    }

    /// True when a window that overlaps `[start, end)`, in microseconds, has usage and is not closed.
    pub fn has_open_windows(&self, start_us: i64, end_us: i64) -> bool {
        self.open.starts().any(|start| {
            let end = self.windowing.end(start);
            start.0 < end_us && end.0 > start_us && end > self.closed_end()
        })
    }

    /// All state that is not in the table yet.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the meter could not measure some of it.
    pub fn unwritten(&self) -> Result<impl Iterator<Item = &RecordBatch>> {
        match &self.stopped {
            Some(error) => Err(Error::Stopped(Arc::clone(error))),
            None => Ok(self.open.batches().iter().chain(self.late.batches())),
        }
    }

    /// Gives this meter up, so that the others and `events` go on. It starts again where its table
    /// ends when the shard starts again.
    fn stop(&mut self, error: Error) {
        tracing::error!(
            meter = self.meter.definition().name,
            error = chain(&error),
            "meter stopped, the others go on"
        );
        self.open = States::default();
        self.late = States::default();
        self.stopped.get_or_insert(Arc::new(error));
    }

    fn bytes(&self) -> usize {
        self.open.bytes + self.late.bytes
    }

    /// Measures one micro-batch; moves nothing but the closings.
    async fn measure(&mut self, counted: &Counted<'_>) -> Result<Measured> {
        for (watermark, sequence, ingest_us) in &counted.moves {
            if *watermark >= self.closings.next() {
                self.closings.reach(*watermark, *sequence, *ingest_us);
            }
        }
        let Some(rows) = relation(counted.events, &self.event_type, &self.meter)? else {
            return Ok(Measured::default());
        };
        let covered = self.covered(counted);
        let late = self.late_rows(counted);
        if covered.is_none() && late.is_none() && self.stopped.is_none() {
            let open = Some(self.meter.partial(rows.all()?).await?);
            return Ok(Measured {
                open,
                ..Measured::default()
            });
        }
        let none = BooleanBuffer::new_unset(counted.events.num_rows());
        let covered = covered.unwrap_or_else(|| none.clone());
        let late = &late.unwrap_or(none) & &!&covered;
        let open = &!&covered & &!&late;
        let late = rows.within(late);
        let late_rows = (late.count_set_bits() > 0).then(|| late.clone());
        if self.stopped.is_some() {
            // Whether an event is late does not depend on what befell the meter.
            return Ok(Measured {
                late_rows,
                ..Measured::default()
            });
        }
        Ok(Measured {
            open: Some(self.meter.partial(rows.only(open)?).await?),
            late: Some(self.meter.partial(rows.only(late)?).await?),
            late_rows,
        })
    }

    /// Adds what was measured to the state. A sum that overflows only now stops the meter.
    async fn keep(&mut self, measured: Measured) -> Result<()> {
        match self.push(measured).await {
            Err(error) if error.is_of_meter() => {
                self.stop(error);
                Ok(())
            }
            pushed => pushed,
        }
    }

    async fn push(&mut self, measured: Measured) -> Result<()> {
        if let Some(open) = measured.open {
            self.open.push(&self.meter, open).await?;
        }
        if let Some(late) = measured.late {
            self.late.push(&self.meter, late).await?;
        }
        Ok(())
    }

    /// The events of a batch that this meter cannot measure each by itself, with the reason.
    async fn unmeasurable(&self, events: &RecordBatch) -> Result<BTreeMap<usize, String>> {
        let mut found = BTreeMap::new();
        let mut parts = vec![(0, events.num_rows())];
        while let Some((from, length)) = parts.pop() {
            let part = events.slice(from, length);
            let Some(rows) = relation(&part, &self.event_type, &self.meter)? else {
                continue;
            };
            match self.meter.partial(rows.all()?).await {
                Ok(_) => {}
                Err(error) if length == 1 => {
                    found.insert(from, chain(&error));
                }
                Err(_) => {
                    let half = length / 2;
                    parts.extend([(from, half), (from + half, length - half)]);
                }
            }
        }
        Ok(found)
    }

    /// Events that are in the table already: up to the cut, in windows closed at the cut.
    fn covered(&self, counted: &Counted<'_>) -> Option<BooleanBuffer> {
        let cut = i64::try_from(self.written.cut.0).unwrap_or(i64::MAX);
        if counted.sequences.first().is_none_or(|first| *first > cut) {
            return None;
        }
        let closed = self.windowing.closed_end(self.written.watermark).0;
        Some(BooleanBuffer::collect_bool(counted.sequences.len(), |i| {
            counted.sequences[i] <= cut && counted.event_times[i] < closed
        }))
    }

    /// Events whose window had closed before their message.
    fn late_rows(&self, counted: &Counted<'_>) -> Option<BooleanBuffer> {
        let closed = self.closings.closed_end().0;
        if counted.event_times.iter().all(|time| *time >= closed) {
            return None;
        }
        let late = BooleanBuffer::collect_bool(counted.event_times.len(), |i| {
            counted.event_times[i] < closed
                && counted.event_times[i] < self.windowing.closed_end(counted.before[i]).0
        });
        (late.count_set_bits() > 0).then_some(late)
    }

    /// Takes out what is closed or late, to be written after the commit of `position`; `None` when
    /// there is nothing to write.
    fn take_pending(&mut self, lane: usize, position: &Position) -> Result<Option<Pending>> {
        if self.stopped.is_some() {
            return Ok(None);
        }
        let closed = self.open.split_off_before(self.closings.closed_end())?;
        let late = std::mem::take(&mut self.late).batches;
        let behind = position.sequence.0.saturating_sub(self.written.cut.0);
        if closed.is_empty() && late.is_empty() && behind < Self::BEHIND_MAX {
            return Ok(None);
        }
        let starts: BTreeSet<i64> = late
            .iter()
            .flat_map(|batch| micros(batch, "window_start"))
            .copied()
            .collect();
        for start in &starts {
            *self.panes.entry(*start).or_default() += 1;
        }
        let panes = starts
            .iter()
            .map(|start| (*start, self.panes[start]))
            .collect();
        let closings = self.closings.clone();
        self.closings.forget();
        self.written = Written {
            cut: position.sequence,
            watermark: position.watermark,
        };
        Ok(Some(Pending {
            lane,
            closed,
            late,
            closings,
            panes,
        }))
    }
}

/// The rows of a micro-batch that one meter reads.
struct Relation<'a> {
    events: &'a RecordBatch,
    event_type: &'a EventType,
    meter: &'a Meter,
    /// `None` when every row is of the meter's type.
    rows: Option<BooleanBuffer>,
}

/// `None` when no row is of the meter's type.
fn relation<'a>(
    events: &'a RecordBatch,
    event_type: &'a EventType,
    meter: &'a Meter,
) -> Result<Option<Relation<'a>>> {
    let structs = &events[event_type.name.as_str()];
    let rows = match structs.nulls() {
        None => None,
        Some(nulls) if nulls.null_count() == 0 => None,
        Some(nulls) if nulls.null_count() == nulls.len() => return Ok(None),
        Some(nulls) => Some(nulls.inner().clone()),
    };
    Ok((events.num_rows() > 0).then_some(Relation {
        events,
        event_type,
        meter,
        rows,
    }))
}

impl Relation<'_> {
    fn within(&self, mask: BooleanBuffer) -> BooleanBuffer {
        match &self.rows {
            Some(rows) => rows & &mask,
            None => mask,
        }
    }

    fn all(&self) -> Result<RecordBatch> {
        match &self.rows {
            None => self.project(self.events),
            Some(rows) => self.filter(rows.clone()),
        }
    }

    fn only(&self, mask: BooleanBuffer) -> Result<RecordBatch> {
        self.filter(self.within(mask))
    }

    fn filter(&self, mask: BooleanBuffer) -> Result<RecordBatch> {
        let projected = self.project(self.events)?;
        filter_record_batch(&projected, &BooleanArray::from(mask))
            .map_err(query_error("selecting a meter's events"))
    }

    /// The columns that the meter reads, from the head or from its type's struct.
    fn project(&self, events: &RecordBatch) -> Result<RecordBatch> {
        project(events, &self.event_type.name, self.meter.input_schema())
            .map_err(query_error("selecting a meter's columns"))
    }
}

/// Projects `events` to an event type's relation: head columns by name, the others from the struct.
/// Every field becomes nullable, since rows of other types hold nulls until they are filtered out.
pub(crate) fn project(
    events: &RecordBatch,
    event_type: &str,
    wanted: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let structs = events[event_type].as_struct();
    let columns: Vec<ArrayRef> = wanted
        .fields()
        .iter()
        .map(|field| {
            let column = structs.column_by_name(field.name());
            column
                .or_else(|| events.column_by_name(field.name()))
                .map(Arc::clone)
                .ok_or_else(|| {
                    ArrowError::SchemaError(format!("`events` has no column `{}`", field.name()))
                })
        })
        .collect::<Result<_, _>>()?;
    let fields: Vec<Field> = wanted
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(events.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// All meters of a shard, and its watermark.
#[derive(Debug)]
pub struct Metering {
    lanes: Vec<Lane>,
    watermark: Watermark,
    /// Watermarks that are known for a cut, lowest cut first: in a replay they restore the advances
    /// that no event explains.
    known: VecDeque<Written>,
    /// The most that all open windows may take.
    bytes_max: usize,
}

/// What became of a micro-batch.
#[derive(Debug)]
pub enum Applied {
    /// It was measured; which of its events were late for any meter, `None` when none was.
    Measured(Option<BooleanBuffer>),
    /// Nothing has changed: these events, by their place, cannot be measured even alone, for an
    /// expression fails on them, such as a product of more than 38 digits.
    Unmeasurable(BTreeMap<usize, String>),
}

impl Metering {
    /// Starts from what the tables hold; events after the lowest cut must then be applied again, and
    /// before that the ones in windows that were open there. `bytes_max` bounds what open windows take
    /// in memory.
    pub fn new(lanes: Vec<Lane>, bytes_max: usize) -> Self {
        let mut known: Vec<Written> = lanes.iter().map(Lane::written).collect();
        known.sort_by_key(|written| written.cut);
        Metering {
            lanes,
            watermark: Watermark::at(EventTime::MIN),
            known: known.into(),
            bytes_max,
        }
    }

    /// The sequence up to which every meter has written its panes.
    pub fn lowest_cut(&self) -> Sequence {
        self.lanes
            .iter()
            .map(|lane| lane.written.cut)
            .min()
            .unwrap_or_default()
    }

    /// The meters, in order of definition.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The watermark after everything applied so far.
    pub fn watermark(&self) -> EventTime {
        self.watermark.now()
    }

    /// Meters a micro-batch of counted events, in rising sequence, in the schema of `events`.
    ///
    /// A meter that cannot measure the batch, though each of its events alone, is stopped.
    pub async fn apply(&mut self, events: &RecordBatch) -> Result<Applied> {
        let watermark = self.watermark;
        let known = self.known.clone();
        let closings: Vec<Closings> = self.lanes.iter().map(|l| l.closings.clone()).collect();
        let measured = self.measure(events).await?;
        let mut unmeasurable = BTreeMap::new();
        for (lane, measured) in self.lanes.iter().zip(&measured) {
            if measured.is_err() {
                unmeasurable.extend(lane.unmeasurable(events).await?);
            }
        }
        if !unmeasurable.is_empty() {
            self.watermark = watermark;
            self.known = known;
            for (lane, closings) in self.lanes.iter_mut().zip(closings) {
                lane.closings = closings;
            }
            return Ok(Applied::Unmeasurable(unmeasurable));
        }
        self.keep(measured).await.map(Applied::Measured)
    }

    /// Meters committed events again. Whatever a meter cannot measure now stops it: the events are
    /// counted already.
    pub async fn apply_committed(&mut self, events: &RecordBatch) -> Result<()> {
        let measured = self.measure(events).await?;
        self.keep(measured).await.map(|_late| ())
    }

    /// What each lane makes of the events; an error within is one of the meter alone.
    async fn measure(&mut self, events: &RecordBatch) -> Result<Vec<Result<Measured>>> {
        let counted = self.count(events);
        measure_each(&mut self.lanes, &counted).await
    }

    async fn keep(&mut self, measured: Vec<Result<Measured>>) -> Result<Option<BooleanBuffer>> {
        let mut late: Option<BooleanBuffer> = None;
        for (lane, measured) in self.lanes.iter_mut().zip(measured) {
            let mut measured = match measured {
                Ok(measured) => measured,
                Err(error) => {
                    lane.stop(error);
                    continue;
                }
            };
            if let Some(rows) = measured.late_rows.take() {
                late = Some(late.map_or(rows.clone(), |others| &others | &rows));
            }
            lane.keep(measured).await?;
        }
        self.stop_largest();
        Ok(late)
    }

    /// Stops meters, the largest first, until the others fit into memory.
    fn stop_largest(&mut self) {
        while self.lanes.iter().map(Lane::bytes).sum::<usize>() > self.bytes_max {
            let bytes_max = self.bytes_max;
            let Some(largest) = self.lanes.iter_mut().max_by_key(|lane| lane.bytes()) else {
                return;
            };
            let error = Error::OpenWindows {
                meter: largest.meter.definition().name.clone(),
                bytes: largest.bytes(),
                bytes_max,
            };
            largest.stop(error);
        }
    }

    /// Gives a meter up that could not finish its panes.
    pub fn stop(&mut self, lane: usize, error: Error) {
        self.lanes[lane].stop(error);
    }

    /// Why meters measure no more, in order of definition.
    pub fn stopped(&self) -> impl Iterator<Item = Arc<Error>> {
        let stopped = self.lanes.iter().filter_map(|lane| lane.stopped.as_ref());
        stopped.map(Arc::clone)
    }

    fn count<'a>(&mut self, events: &'a RecordBatch) -> Counted<'a> {
        let sequences: &[i64] = events["sequence"].as_primitive::<Int64Type>().values();
        let event_times = micros(events, "event_time");
        let ingest_times = micros(events, "ingest_time");
        let mut before = Vec::with_capacity(sequences.len());
        let mut moves: Vec<(EventTime, Sequence, i64)> = Vec::new();
        for i in 0..sequences.len() {
            let sequence = Sequence(sequences[i].unsigned_abs());
            while let Some(known) = self.known.pop_front_if(|known| known.cut < sequence) {
                // What closed there closes here too, with the last message before it.
                let closed_at_us = ingest_times[i.saturating_sub(1)];
                self.watermark.advance(known.watermark);
                moves.push((self.watermark.now(), known.cut, closed_at_us));
            }
            let was = self.watermark.now();
            before.push(
                self.watermark
                    .observe(sequence, event_times[i], ingest_times[i]),
            );
            let now = self.watermark.now();
            match moves.last_mut() {
                Some(last) if last.1 == sequence => last.0 = now,
                _ if now > was => moves.push((now, sequence, ingest_times[i])),
                _ => {}
            }
        }
        Counted {
            events,
            sequences,
            event_times,
            before,
            moves,
        }
    }

    /// Takes in events that were committed at or before every cut: those whose window is still open.
    /// They move no watermark, and may come in any order.
    pub async fn restore(&mut self, events: &RecordBatch) -> Result<()> {
        let sequences: &[i64] = events["sequence"].as_primitive::<Int64Type>().values();
        let counted = Counted {
            events,
            sequences,
            event_times: micros(events, "event_time"),
            before: vec![EventTime::MIN; events.num_rows()],
            moves: Vec::new(),
        };
        let measured = measure_each(&mut self.lanes, &counted).await?;
        self.keep(measured).await.map(|_late| ())
    }

    /// True when something is closed or late that is in no table yet.
    pub fn has_pending(&self) -> bool {
        self.lanes.iter().any(|lane| {
            let first = lane.open.first_start();
            !lane.late.is_empty() || first.is_some_and(|start| start < lane.closed_end())
        })
    }

    /// Moves the watermark without an event, closing windows at `position`'s message.
    pub fn advance(&mut self, to: EventTime, cut: Sequence, closed_at_us: i64) {
        for known in self.known.drain(..) {
            self.watermark.advance(known.watermark);
        }
        self.watermark.advance(to);
        let now = self.watermark.now();
        for lane in &mut self.lanes {
            lane.closings.reach(now, cut, closed_at_us);
        }
    }

    /// True when `watermark` would close a window that has usage.
    pub fn would_close(&self, watermark: EventTime) -> bool {
        self.lanes.iter().any(|lane| {
            let closed_end = lane.windowing.closed_end(watermark);
            let mut open = lane
                .open
                .starts()
                .filter(|start| *start >= lane.closed_end());
            closed_end > lane.closed_end() && open.any(|start| start < closed_end)
        })
    }

    /// The least watermark that closes every open window; `None` when none is open.
    pub fn closing_watermark(&self) -> Option<EventTime> {
        self.lanes
            .iter()
            .filter_map(|lane| {
                let end = lane.windowing.end(lane.open.last_start()?);
                (end > lane.closed_end()).then(|| lane.windowing.closing_watermark(end))
            })
            .max()
    }

    /// Takes out the panes to be written after the commit of `position`.
    pub fn take_pending(&mut self, position: &Position) -> Result<Vec<Pending>> {
        let mut pending = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            pending.extend(lane.take_pending(index, position)?);
        }
        Ok(pending)
    }
}

/// What each lane makes of the events. An error within is one of that meter alone.
async fn measure_each(lanes: &mut [Lane], counted: &Counted<'_>) -> Result<Vec<Result<Measured>>> {
    let mut all = Vec::with_capacity(lanes.len());
    for lane in lanes {
        all.push(match lane.measure(counted).await {
            Err(error) if !error.is_of_meter() => return Err(error),
            measured => measured,
        });
    }
    Ok(all)
}

/// The schema of a meter's table: what [`Meter::finish`] returns, then where each pane comes from.
pub fn table_schema(meter: &Meter) -> SchemaRef {
    let mut fields: Vec<Field> = meter
        .pane_schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    fields.extend([
        Field::new("pane", DataType::Int32, false),
        Field::new("shard", DataType::Utf8, false),
        Field::new("cut", DataType::Int64, false),
        Field::new("meter_version", DataType::Int32, false),
        Field::new("closed_at", schema::timestamp(), false),
    ]);
    Arc::new(Schema::new(fields))
}

impl Pending {
    /// Finishes the states: pane 0 of each window that closed, then the late panes, as rows of the
    /// meter's table.
    pub async fn panes(
        &self,
        meter: &Meter,
        shard: &str,
        position: &Position,
    ) -> Result<Vec<RecordBatch>> {
        let at = Closing {
            closed_end: EventTime::MIN,
            cut: position.sequence,
            closed_at_us: position.ingest_time_us(),
        };
        let mut panes = Vec::new();
        if !self.closed.is_empty() {
            let rows = meter.finish(&self.closed).await?;
            let of_row =
                |end: i64, _start: i64| (0, self.closings.of(EventTime(end)).unwrap_or(at));
            panes.push(with_origin(meter, rows, shard, of_row)?);
        }
        if !self.late.is_empty() {
            let rows = meter.finish(&self.late).await?;
            let of_row = |_end: i64, start: i64| (self.panes.get(&start).copied().unwrap_or(1), at);
            panes.push(with_origin(meter, rows, shard, of_row)?);
        }
        Ok(panes)
    }
}

/// Adds `pane, shard, cut, meter_version, closed_at` to finished rows.
fn with_origin(
    meter: &Meter,
    rows: RecordBatch,
    shard: &str,
    of_row: impl Fn(i64, i64) -> (i32, Closing),
) -> Result<RecordBatch> {
    let origins: Vec<(i32, Closing)> = micros(&rows, "window_end")
        .iter()
        .zip(micros(&rows, "window_start"))
        .map(|(end, start)| of_row(*end, *start))
        .collect();
    let version = i32::try_from(meter.definition().version).unwrap_or(i32::MAX);
    let cut = |closing: &Closing| i64::try_from(closing.cut.0).unwrap_or(i64::MAX);
    let mut columns = rows.columns().to_vec();
    columns.extend::<[ArrayRef; 5]>([
        Arc::new(
            origins
                .iter()
                .map(|(pane, _)| Some(*pane))
                .collect::<Int32Array>(),
        ),
        Arc::new(StringArray::from(vec![shard; origins.len()])),
        Arc::new(
            origins
                .iter()
                .map(|(_, closing)| Some(cut(closing)))
                .collect::<Int64Array>(),
        ),
        Arc::new(Int32Array::from(vec![version; origins.len()])),
        Arc::new(
            origins
                .iter()
                .map(|(_, closing)| Some(closing.closed_at_us))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
    ]);
    RecordBatch::try_new(table_schema(meter), columns).map_err(query_error("writing panes"))
}

/// The number of the last late pane of each window start, from rows `window_start, pane`.
pub fn last_panes(rows: &[RecordBatch]) -> BTreeMap<i64, i32> {
    let mut panes = BTreeMap::new();
    for batch in rows {
        let numbers = batch["pane"].as_primitive::<Int32Type>().values();
        for (start, number) in micros(batch, "window_start").iter().zip(numbers) {
            let last = panes.entry(*start).or_insert(*number);
            *last = (*last).max(*number);
        }
    }
    panes
}
