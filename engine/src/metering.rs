//! Open windows: the state batches of every meter, and the panes they become.
//!
//! Each meter has a [`Lane`]. Counted events pass through [`Metering::apply`] in sequence order, live
//! and again in recovery; an event goes to the lane's open state, or, when its window has closed
//! before its message, to the late state. A window's pane 0 is therefore exactly its events up to the
//! message that closed it, whatever batches they came in.
//!
//! Meters that group the events of one type alike are measured together (`Shared`); each takes what was measured as
//! its own when its windows close. Windows that take too much memory are not kept: they are metered `again` from
//! committed events.

mod again;
pub(crate) mod committed;
mod lane;
mod late_states;
pub(crate) mod pane_writer;
mod panes;
mod relation;
mod shared;
mod states;

pub use lane::Lane;
pub use panes::{Pending, Unwritten, Written, last_panes};
pub(crate) use relation::{is_counted, relation};
pub use states::States;

use crate::{
    commit::{Cut, Position},
    error::{Error, Result},
    watermark::Watermark,
};
pub(crate) use again::Again;
use arrow::{
    array::{AsArray, BooleanBufferBuilder, RecordBatch},
    buffer::BooleanBuffer,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use lane::{Counted, Measured, Sifted};
use shared::{Shared, bundles};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};
use tollgate_connectors::{Sequence, event::EventBatch};
use tollgate_sql::{meter::Alike, window::EventTime};

/// All meters of a shard, and its watermark. A clone shares the state batches.
#[derive(Debug, Clone)]
pub struct Metering {
    lanes: Vec<Lane>,
    shared: Vec<Shared>,
    watermark: Watermark,
    /// Watermarks of the shard that are known for a cut, lowest cut first: a replay begins with the first.
    known: VecDeque<Written>,
    /// When the last event was stored that was applied, in microseconds.
    last_ingest_us: i64,
    /// The most that all open windows may take.
    bytes_max: usize,
}

impl Metering {
    /// Starts from what the tables hold; events after the lowest cut must then be applied again, and
    /// before that the ones in windows that were open there. `bytes_max` bounds what open windows take
    /// in memory.
    ///
    /// # Errors
    /// [`Error::Sql`] when the meters cannot be planned together.
    pub fn new(lanes: Vec<Lane>, bytes_max: usize) -> Result<Self> {
        let mut known: Vec<Written> = lanes.iter().map(Lane::written).collect();
        known.sort_by_key(|written| written.cut);
        let meters = lanes.iter().map(|lane| lane.meter().as_ref());
        let shared = bundles(&meters.enumerate().collect::<Vec<_>>(), Alike::ByGroups)?;
        Ok(Metering {
            lanes,
            shared,
            watermark: Watermark::at(EventTime::MIN),
            known: known.into(),
            last_ingest_us: 0,
            bytes_max,
        })
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

    /// The same as it goes on with the events of the next messages.
    pub fn watermark_before(&self) -> Watermark {
        self.watermark
    }

    /// Meters a micro-batch of counted events, in rising sequence, in the schema of `events`, live or committed before;
    /// returns which of them were late for any meter, `None` when none was.
    ///
    /// An event that a meter cannot measure puts its group in error there. A meter that fails otherwise, such as for want
    /// of memory, is stopped.
    pub async fn apply(&mut self, events: &EventBatch) -> Result<Option<BooleanBuffer>> {
        let measured = self.measure(events).await?;
        let late = self.keep(measured).await?;
        Ok((!late.is_empty()).then(|| {
            let mut rows = BooleanBufferBuilder::new(events.num_rows());
            rows.append_n(events.num_rows(), false);
            late.iter()
                .for_each(|row| rows.set_bit(*row as usize, true));
            rows.finish()
        }))
    }

    /// What all meters make of the events.
    async fn measure(&mut self, events: &EventBatch) -> Result<Round> {
        let counted = self.count(events);
        self.measure_counted(&counted).await
    }

    async fn measure_counted(&mut self, counted: &Counted<'_>) -> Result<Round> {
        let sifted = self.lanes.iter_mut().map(|lane| lane.sift(counted));
        let mut sifted: Vec<Option<Sifted>> = sifted.collect();
        let mut shared = Vec::with_capacity(self.shared.len());
        for together in &self.shared {
            let states = together.measure(&self.lanes, counted, &mut sifted);
            shared.push(states.await?);
        }
        let mut lanes = Vec::with_capacity(self.lanes.len());
        for (lane, sifted) in self.lanes.iter().zip(sifted) {
            lanes.push(match lane.measure(counted, sifted).await {
                Err(error) if !error.is_of_meter() => return Err(error),
                measured => measured,
            });
        }
        Ok(Round { shared, lanes })
    }

    /// Returns the places of events that were late, of some more than once.
    async fn keep(&mut self, round: Round) -> Result<Vec<u32>> {
        self.keep_shared(round.shared).await?;
        let mut late = Vec::new();
        for (lane, measured) in self.lanes.iter_mut().zip(round.lanes) {
            let mut measured = match measured {
                Ok(measured) => measured,
                Err(error) => {
                    lane.stop(error);
                    continue;
                }
            };
            late.append(&mut measured.late_rows);
            lane.keep(measured).await?;
        }
        self.fit();
        Ok(late)
    }

    async fn keep_shared(&mut self, states: Vec<Option<RecordBatch>>) -> Result<()> {
        let mut shared = Vec::with_capacity(self.shared.len());
        for (mut together, states) in std::mem::take(&mut self.shared).into_iter().zip(states) {
            let stays = match states {
                None => true,
                Some(states) => together.keep(states).await?,
            };
            if stays {
                shared.push(together);
                continue;
            }
            let meters = together.lanes().iter();
            let meters = meters.map(|lane| (*lane, self.lanes[*lane].meter().as_ref()));
            let meters: Vec<_> = meters.collect();
            shared.extend(bundles(&meters, Alike::ByGroupsAndFilter)?);
            together.give_back(&mut self.lanes).await?;
        }
        self.shared = shared;
        Ok(())
    }

    /// Keeps the open windows that take most no more, until the others fit into memory: they are metered again from
    /// `events`.
    fn fit(&mut self) {
        while self.bytes() > self.bytes_max {
            let alone = (0..self.lanes.len()).filter(|lane| self.together_with(*lane).is_none());
            let alone = alone.map(|lane| vec![lane]);
            let together = self.shared.iter().map(|shared| shared.lanes().to_vec());
            let sizes = alone
                .chain(together)
                .map(|lanes| (self.open_bytes(&lanes), lanes));
            match sizes.max() {
                // What is late is written with the next flush.
                None | Some((0, _)) => return,
                Some((bytes, lanes)) => self.leave_to_events(&lanes, bytes),
            }
        }
    }

    /// What the open windows of some lanes take that are measured together, or of one.
    fn open_bytes(&self, lanes: &[usize]) -> usize {
        let own = lanes.iter().map(|lane| self.lanes[*lane].open.bytes);
        let shared = self.shared.iter().find(|shared| shared.lanes() == lanes);
        own.sum::<usize>() + shared.map_or(0, Shared::bytes)
    }

    fn leave_to_events(&mut self, lanes: &[usize], bytes: usize) {
        for lane in lanes {
            let starts: BTreeSet<i64> = self.starts(*lane).map(|start| start.0).collect();
            self.lanes[*lane].leave_to_events(starts, bytes, self.bytes_max);
        }
        let shared = self.shared.iter_mut();
        shared
            .filter(|shared| shared.lanes() == lanes)
            .for_each(Shared::forget);
    }

    /// What a lane is measured together with, and which member it is there.
    fn together_with(&self, lane: usize) -> Option<(&Shared, usize)> {
        let mut shared = self.shared.iter();
        shared.find_map(|shared| Some((shared, shared.member(lane)?)))
    }

    /// The starts of a lane's windows that hold events and are not taken out, some of them many times.
    fn starts(&self, lane: usize) -> impl Iterator<Item = EventTime> {
        let shared = self.together_with(lane).into_iter();
        let shared =
            shared.flat_map(move |(shared, member)| shared.starts(member, &self.lanes[lane]));
        self.lanes[lane].starts().chain(shared)
    }

    /// True when a window of a meter that overlaps `[start, end)`, in microseconds, has usage and is not closed.
    pub fn has_open_windows(&self, lane: usize, start_us: i64, end_us: i64) -> bool {
        let starts = self.starts(lane);
        self.lanes[lane].has_open(starts, start_us, end_us)
    }

    /// All kept state of a meter that is not in its table yet.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the meter could not measure some of it.
    pub fn unwritten(&self, lane: usize) -> Result<Vec<Unwritten>> {
        let mut unwritten: Vec<Unwritten> = self.lanes[lane].unwritten()?.collect();
        if let Some((shared, member)) = self.together_with(lane) {
            let states = shared.states(member, &self.lanes[lane])?.into_iter();
            unwritten.extend(states.map(|states| Unwritten {
                states,
                late_stored_us: None,
            }));
        }
        Ok(unwritten)
    }

    /// The windows of a meter that are not in its table and not kept: to be metered again from `events`.
    pub(crate) fn again(&self, lane: usize) -> Again {
        self.lanes[lane].again()
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

    fn count<'a>(&mut self, events: &'a EventBatch) -> Counted<'a> {
        let head = events.head();
        let sequences: &[i64] = head["sequence"].as_primitive::<Int64Type>().values();
        let event_times = micros(head, "event_time");
        let ingest_times = micros(head, "ingest_time");
        let mut before = Vec::with_capacity(sequences.len());
        let mut moves: Vec<(EventTime, Sequence, i64)> = Vec::new();
        for i in 0..sequences.len() {
            let sequence = Sequence(sequences[i].unsigned_abs());
            while let Some(known) = self.known.pop_front_if(|known| known.cut < sequence) {
                // What closed there closes here too, with the last message before it.
                let closed_at_us = match i {
                    0 => self.last_ingest_us,
                    _ => ingest_times[i - 1],
                };
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
        self.last_ingest_us = ingest_times.last().copied().unwrap_or(self.last_ingest_us);
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
    pub async fn restore(&mut self, events: &EventBatch) -> Result<()> {
        let head = events.head();
        let counted = Counted {
            events,
            sequences: head["sequence"].as_primitive::<Int64Type>().values(),
            event_times: micros(head, "event_time"),
            before: vec![EventTime::MIN; events.num_rows()],
            moves: Vec::new(),
        };
        let round = self.measure_counted(&counted).await?;
        self.keep(round).await.map(|_late| ())
    }

    /// True when something is closed or late that is in no table yet.
    pub fn has_pending(&self) -> bool {
        self.lanes.iter().enumerate().any(|(place, lane)| {
            let is_closed = |start| start < lane.closed_end();
            !lane.late.is_empty() || self.starts(place).any(is_closed)
        })
    }

    /// Takes up a committed position after everything up to it was applied: its watermark, and what the clock
    /// closed if the shard was caught up just there.
    pub fn settle(&mut self, position: &Position) {
        for known in self.known.drain(..) {
            self.watermark.advance(known.watermark);
        }
        self.watermark.advance(position.watermark);
        let now = self.watermark.now();
        let cut = position.cut();
        for lane in &mut self.lanes {
            lane.reach(now, cut.sequence, cut.ingest_time_us);
        }
        if let Some(caught_up) = position
            .caught_up
            .filter(|c| c.sequence == Some(position.sequence))
        {
            self.close_due(caught_up.time, cut);
        }
    }

    /// Closes, for each meter by itself, the windows that hold events and are due at `now`. The shard must be
    /// caught up with its source: what comes after the message at `cut` and belongs to them is late.
    ///
    /// The shard's watermark stays: it depends on the events alone, and so does what is late for another
    /// meter.
    pub fn close_due(&mut self, now: EventTime, cut: Cut) {
        let due = (0..self.lanes.len()).map(|lane| self.due(lane, now));
        let due: Vec<Option<EventTime>> = due.collect();
        for (lane, due) in self.lanes.iter_mut().zip(due) {
            if let Some(closing) = due {
                lane.reach(closing, cut.sequence, cut.ingest_time_us);
            }
        }
    }

    fn due(&self, lane: usize, now: EventTime) -> Option<EventTime> {
        self.lanes[lane].due(now, self.starts(lane))
    }

    /// True when a window is open that [`Metering::close_due`] would close.
    pub fn has_due(&self, now: EventTime) -> bool {
        (0..self.lanes.len()).any(|lane| self.due(lane, now).is_some())
    }

    /// What all windows take in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let own: usize = self.lanes.iter().map(Lane::bytes).sum();
        own + self.shared.iter().map(Shared::bytes).sum::<usize>()
    }

    /// Takes out the panes to be written after the commit up to `cut`.
    pub async fn take_pending(&mut self, cut: Cut) -> Result<Vec<Pending>> {
        let mut closed: Vec<Vec<RecordBatch>> = vec![Vec::new(); self.lanes.len()];
        for shared in &mut self.shared {
            for (lane, states) in shared.take_closed(&self.lanes).await? {
                closed[lane] = states;
            }
        }
        let mut pending = Vec::new();
        for ((index, lane), closed) in self.lanes.iter_mut().enumerate().zip(closed) {
            pending.extend(lane.take_pending(index, cut, closed)?);
        }
        Ok(pending)
    }

    /// A caller asks for these meters, by their places, and may do so again: what they have is kept merged more,
    /// so that each answer has less to merge.
    pub fn asked(&mut self, meters: &[usize]) {
        for meter in meters {
            if let Some(lane) = self.lanes.get_mut(*meter) {
                lane.open.asked();
            }
            let mut shared = self.shared.iter_mut();
            if let Some(shared) = shared.find(|shared| shared.member(*meter).is_some()) {
                shared.asked();
            }
        }
    }

    /// Puts back what was taken out, in a copy that is only looked at: in no table yet, it is state.
    pub(crate) fn put_back(&mut self, taken: &[Pending]) {
        for pending in taken {
            self.lanes[pending.lane].put_back(pending);
        }
    }
}

/// What all meters make of one micro-batch.
struct Round {
    /// Of each bundle.
    shared: Vec<Option<RecordBatch>>,
    /// Of each lane. An error is one of that meter alone.
    lanes: Vec<Result<Measured>>,
}

/// The microsecond values of a timestamp column.
pub(crate) fn micros<'a>(batch: &'a RecordBatch, column: &str) -> &'a [i64] {
    batch[column]
        .as_primitive::<TimestampMicrosecondType>()
        .values()
}
