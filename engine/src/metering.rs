//! Open windows: the state batches of every meter, and the panes they become.
//!
//! Each meter has a [`Lane`]. Counted events pass through [`Metering::apply`] in sequence order, live
//! and again in recovery; an event goes to the lane's open state, or, when its window has closed
//! before its message, to the late state. A window's pane 0 is therefore exactly its events up to the
//! message that closed it, whatever batches they came in.

mod lane;
mod late_states;
pub(crate) mod pane_writer;
mod panes;
mod relation;
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
use arrow::{
    array::{AsArray, BooleanBufferBuilder, RecordBatch},
    buffer::BooleanBuffer,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use lane::{Counted, Measured};
use std::{collections::VecDeque, sync::Arc};
use tollgate_connectors::{Sequence, event::EventBatch};
use tollgate_sql::window::EventTime;

/// All meters of a shard, and its watermark. A clone shares the state batches.
#[derive(Debug, Clone)]
pub struct Metering {
    lanes: Vec<Lane>,
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
    pub fn new(lanes: Vec<Lane>, bytes_max: usize) -> Self {
        let mut known: Vec<Written> = lanes.iter().map(Lane::written).collect();
        known.sort_by_key(|written| written.cut);
        Metering {
            lanes,
            watermark: Watermark::at(EventTime::MIN),
            known: known.into(),
            last_ingest_us: 0,
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

    /// What each lane makes of the events; an error within is one of the meter alone.
    async fn measure(&mut self, events: &EventBatch) -> Result<Vec<Result<Measured>>> {
        let counted = self.count(events);
        measure_each(&mut self.lanes, &counted).await
    }

    /// Returns the places of events that were late, of some more than once.
    async fn keep(&mut self, measured: Vec<Result<Measured>>) -> Result<Vec<u32>> {
        let mut late = Vec::new();
        for (lane, measured) in self.lanes.iter_mut().zip(measured) {
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
        self.stop_largest();
        Ok(late)
    }

    /// Stops meters, the largest first, until the others fit into memory.
    fn stop_largest(&mut self) {
        while self.bytes() > self.bytes_max {
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
        for lane in &mut self.lanes {
            lane.close_due(now, cut.sequence, cut.ingest_time_us);
        }
    }

    /// True when a window is open that [`Metering::close_due`] would close.
    pub fn has_due(&self, now: EventTime) -> bool {
        self.lanes.iter().any(|lane| lane.due(now).is_some())
    }

    /// What all windows take in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(Lane::bytes).sum()
    }

    /// Takes out the panes to be written after the commit up to `cut`.
    pub fn take_pending(&mut self, cut: Cut) -> Result<Vec<Pending>> {
        let mut pending = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            pending.extend(lane.take_pending(index, cut)?);
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
        }
    }

    /// Puts back what was taken out, in a copy that is only looked at: in no table yet, it is state.
    pub(crate) fn put_back(&mut self, taken: &[Pending]) {
        for pending in taken {
            self.lanes[pending.lane].put_back(pending);
        }
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

/// The microsecond values of a timestamp column.
pub(crate) fn micros<'a>(batch: &'a RecordBatch, column: &str) -> &'a [i64] {
    batch[column]
        .as_primitive::<TimestampMicrosecondType>()
        .values()
}
