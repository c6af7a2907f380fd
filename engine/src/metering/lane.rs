//! One meter's windows: what is open, what is late, and what its table holds.

use super::{
    Pending, States, Unwritten, Written,
    again::Again,
    late_states::{Late, LatePart},
    micros,
    relation::relation,
};
use crate::{
    commit::Cut,
    error::{Error, Result, chain, query_error},
    watermark::Closings,
};
use arrow::{
    array::{BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};
use tollgate_connectors::{Sequence, event::EventBatch};
use tollgate_sql::{
    definitions::{EventType, LatePolicy},
    meter::Meter,
    window::{EventTime, Windowing, window_start},
};

/// One meter's windows.
#[derive(Debug, Clone)]
pub struct Lane {
    pub(super) meter: Arc<Meter>,
    event_type: EventType,
    pub(super) windowing: Windowing,
    pub(super) written: Written,
    pub(super) closings: Closings,
    /// What is measured of this meter alone; what is measured together with others is not here.
    pub(super) open: States,
    /// Windows that start earlier were taken out.
    pub(super) open_from: EventTime,
    /// The starts of windows that are not kept for want of memory: they are metered again from `events`.
    again: BTreeSet<i64>,
    /// Whether the log says so since the last flush.
    is_again_told: bool,
    /// When the last row ends that is made of several base windows, in microseconds.
    last_end_us: Option<i64>,
    /// Windows that this watermark closes were closed before every event still to come: by the clock of a
    /// source that was caught up, or because their panes are written.
    closed_at_cut: EventTime,
    /// By when they were stored, where that decides the window and the period they count in.
    pub(super) late: BTreeMap<i64, Late>,
    /// The time of the windows that it measures, in microseconds.
    range: Range<i64>,
    panes: BTreeMap<i64, i32>,
    /// In a copy that is only looked at: what was taken out and is in no table yet.
    taken: Option<Pending>,
    /// Why it measures no more. Its table stays as it is, so nothing wrong is ever written.
    pub(super) stopped: Option<Arc<Error>>,
}

/// Billing periods of every time zone begin on a quarter hour.
const QUARTER_US: i64 = 900_000_000;

/// The greatest number that divides both; they are above zero.
fn greatest_divisor(a: i64, b: i64) -> i64 {
    match a % b {
        0 => b,
        rest => greatest_divisor(b, rest),
    }
}

/// What one lane makes of one micro-batch.
#[derive(Debug, Default)]
pub(super) struct Measured {
    open: Option<RecordBatch>,
    late: Vec<(i64, LatePart)>,
    /// The places of events that were late for this meter.
    pub(super) late_rows: Vec<u32>,
}

/// Which events of one micro-batch a lane takes, of those of its type.
pub(super) struct Sifted {
    /// Those whose window is open and kept; `None` for all.
    pub(super) open: Option<BooleanBuffer>,
    late: Option<BooleanBuffer>,
}

/// One micro-batch of counted events, with what is the same for every meter worked out once.
pub(super) struct Counted<'a> {
    pub(super) events: &'a EventBatch,
    pub(super) sequences: &'a [i64],
    pub(super) event_times: &'a [i64],
    /// The watermark before each event's message.
    pub(super) before: Vec<EventTime>,
    /// The messages that moved the watermark: watermark after it, sequence, ingest time.
    pub(super) moves: Vec<(EventTime, Sequence, i64)>,
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
            closings: Closings::new(windowing, written.closed),
            open: States::default(),
            open_from: EventTime::MIN,
            again: BTreeSet::new(),
            is_again_told: false,
            last_end_us: None,
            closed_at_cut: written.closed,
            late: BTreeMap::new(),
            range: i64::MIN..i64::MAX,
            panes,
            taken: None,
            stopped: None,
        }
    }

    /// The same for the windows of some time only, in microseconds; it begins and ends where a window
    /// does.
    pub fn within(self, range: Range<i64>) -> Self {
        Lane { range, ..self }
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

    /// The time of the windows that it measures, in microseconds: from `i64::MIN` on unless a backfill
    /// began later.
    pub fn range(&self) -> &Range<i64> {
        &self.range
    }

    /// The message that closed the window ending at `end`, if no pane of it is written yet.
    pub fn closing_cut(&self, end: EventTime) -> Option<Sequence> {
        let taken = self.taken.as_ref().and_then(|taken| taken.closings.of(end));
        taken.or(self.closings.of(end)).map(|closing| closing.cut)
    }

    /// The same where rows made of several base windows end at this time, in microseconds.
    pub(crate) fn seen_until(self, last_end_us: Option<i64>) -> Self {
        Lane {
            last_end_us,
            ..self
        }
    }

    /// The least watermark that closes every open window that holds events and is due at `now`: its end plus
    /// lateness is not after it. `None` when no window is. `starts` are those of the windows that hold events.
    ///
    /// A window without events is not closed for its own sake: its first event may still come in time.
    pub(super) fn due(
        &self,
        now: EventTime,
        starts: impl Iterator<Item = EventTime>,
    ) -> Option<EventTime> {
        let closed_end = self.windowing.closed_end(now);
        let open = starts.map(|start| self.windowing.end(start));
        // A row that is made of several base windows ends behind the last one that holds events.
        let rows = self.last_end().map(|end| end.min(closed_end));
        open.filter(|end| *end <= closed_end)
            .max()
            .max(rows)
            .filter(|end| *end > self.closed_end())
            .map(|end| self.windowing.closing_watermark(end))
    }

    /// Closes what `watermark` closes before every event still to come.
    pub(super) fn reach(&mut self, watermark: EventTime, cut: Sequence, closed_at_us: i64) {
        self.closings.reach(watermark, cut, closed_at_us);
        self.closed_at_cut = self.closed_at_cut.max(watermark);
    }

    /// Where the base window ends that closes the last row made of several.
    fn last_end(&self) -> Option<EventTime> {
        // The instant of the end itself is in the next one.
        let last = |end_us: i64| self.windowing.end(EventTime(end_us.saturating_sub(1)));
        self.last_end_us.map(last)
    }

    /// True when one of these windows overlaps `[start, end)`, in microseconds, and is not closed.
    pub(super) fn has_open(
        &self,
        mut starts: impl Iterator<Item = EventTime>,
        start_us: i64,
        end_us: i64,
    ) -> bool {
        // A session that ends in this time may begin, and still grow, before it.
        let start_us = match self.meter.has_sessions() {
            true => i64::MIN,
            false => start_us,
        };
        starts.any(|start| {
            let end = self.windowing.end(start);
            start.0 < end_us && end.0 > start_us && end > self.closed_end()
        })
    }

    /// Its own state that is not in the table yet.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the meter could not measure some of it.
    pub(super) fn unwritten(&self) -> Result<impl Iterator<Item = Unwritten>> {
        if let Some(error) = &self.stopped {
            return Err(Error::Stopped(Arc::clone(error)));
        }
        let open = self.open.batches().iter().map(|states| Unwritten {
            states: states.clone(),
            late_stored_us: None,
        });
        let late = self.late.values().flat_map(|late| {
            late.states.batches().iter().map(|states| Unwritten {
                states: states.clone(),
                late_stored_us: Some(late.stored_us),
            })
        });
        let taken = self.taken.iter().flat_map(Pending::unwritten);
        Ok(open.chain(late).chain(taken))
    }

    /// The starts of the windows whose events it takes or took, but for those that are measured together with other
    /// meters; some of them many times.
    pub(super) fn starts(&self) -> impl Iterator<Item = EventTime> {
        let again = self.again.iter().copied().map(EventTime);
        self.open.starts().chain(again)
    }

    /// The windows that are in no table yet and not kept either.
    pub(super) fn again(&self) -> Again {
        let taken = self.taken.iter().flat_map(|taken| taken.again.windows());
        let own = self.again.iter().map(|start| (*start, self.until(*start)));
        Again::new(self.windowing.width_us, taken.chain(own).collect())
    }

    /// The last message whose events are in the pane of a window's close.
    fn until(&self, start: i64) -> Sequence {
        let closing = self.closings.of(self.windowing.end(EventTime(start)));
        closing.map_or(Sequence(u64::MAX), |closing| closing.cut)
    }

    /// Keeps the state of these windows no more, nor any of its own: they are metered again from `events`.
    pub(super) fn leave_to_events(
        &mut self,
        starts: BTreeSet<i64>,
        bytes: usize,
        bytes_max: usize,
    ) {
        if self.stopped.is_some() {
            return;
        }
        let own = self.open.starts().map(|start| start.0);
        self.again.extend(own.chain(starts));
        self.open = States::default();
        if !std::mem::replace(&mut self.is_again_told, true) {
            tracing::warn!(
                meter = self.meter.definition().name,
                bytes,
                bytes_max,
                windows = self.again.len(),
                "open windows took too much memory, they are metered again from `events` when they close"
            );
        }
    }

    /// Gives this meter up, so that the others and `events` go on. It starts again where its table
    /// ends when the shard starts again.
    pub(super) fn stop(&mut self, error: Error) {
        if self.stopped.is_some() {
            return;
        }
        tracing::error!(
            meter = self.meter.definition().name,
            error = chain(&error),
            "meter stopped, the others go on"
        );
        self.open = States::default();
        self.again = BTreeSet::new();
        self.late = BTreeMap::new();
        self.last_end_us = None;
        self.stopped = Some(Arc::new(error));
    }

    /// What its own state takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let late = self.late.values().map(|late| late.states.bytes);
        self.open.bytes + late.sum::<usize>()
    }

    /// Sifts one micro-batch; moves nothing but the closings. `None` when it has no event of the type.
    pub(super) fn sift(&mut self, counted: &Counted<'_>) -> Option<Sifted> {
        // Watermarks rise: what comes before the first that closes something closes nothing.
        let next = self.closings.next();
        let from = counted.moves.partition_point(|(now, ..)| *now < next);
        for (watermark, sequence, ingest_us) in &counted.moves[from..] {
            if *watermark >= self.closings.next() {
                self.closings.reach(*watermark, *sequence, *ingest_us);
            }
        }
        let places = counted.events.of_type(&self.event_type.name)?.places();
        let covered = self.left_out(counted, places);
        let late = self.late_rows(counted, places);
        let late = match (late, &covered) {
            (Some(late), Some(covered)) => Some(&late & &!covered),
            (late, _) => late,
        };
        let not_kept = self.not_kept(counted, places);
        let left = [covered.as_ref(), late.as_ref(), not_kept.as_ref()];
        let left = left.into_iter().flatten().cloned();
        let open = left.reduce(|some, more| &some | &more).map(|left| !&left);
        Some(Sifted { open, late })
    }

    /// Measures what was sifted; moves nothing.
    pub(super) async fn measure(
        &self,
        counted: &Counted<'_>,
        sifted: Option<Sifted>,
    ) -> Result<Measured> {
        let typed = counted.events.of_type(&self.event_type.name);
        let Some((sifted, typed)) = sifted.zip(typed) else {
            return Ok(Measured::default());
        };
        let none_open = matches!(&sifted.open, Some(open) if open.count_set_bits() == 0);
        if none_open && sifted.late.is_none() {
            return Ok(Measured::default());
        }
        let rows = relation(counted.events.head(), typed, self.meter.input_schema())
            .map_err(query_error("selecting a meter's columns"))?;
        let places = typed.places();
        let mut measured = Measured::default();
        if let Some(late) = sifted.late {
            for (arrival, (mask, stored_us)) in self.arrivals(counted, places, &late) {
                let states = self.meter.partial(select(&rows, mask)?).await?;
                measured
                    .late
                    .push((arrival, LatePart { states, stored_us }));
            }
            measured.late_rows = late.set_indices().map(|row| places[row]).collect();
        }
        measured.open = match sifted.open {
            _ if none_open => None,
            None => Some(self.meter.partial(rows).await?),
            Some(open) => Some(self.meter.partial(select(&rows, open)?).await?),
        };
        Ok(measured)
    }

    /// Late ones of the events in these places by the time for which it matters when they were stored, and when the last
    /// of each was.
    fn arrivals(
        &self,
        counted: &Counted<'_>,
        places: &[u32],
        late: &BooleanBuffer,
    ) -> BTreeMap<i64, (BooleanBuffer, i64)> {
        let stored = micros(counted.events.head(), "ingest_time");
        let stored = |row: usize| stored[places[row] as usize];
        // So that all of it counts in one window, and in one period of any zone.
        let apart_us = greatest_divisor(self.windowing.width_us, QUARTER_US);
        let arrival = |row: usize| match self.meter.definition().late {
            LatePolicy::NextPeriod => stored(row).div_euclid(apart_us),
            LatePolicy::Correct | LatePolicy::Quarantine => 0,
        };
        let arrivals: BTreeSet<i64> = late.set_indices().map(arrival).collect();
        let part = |wanted: i64| {
            let mask = BooleanBuffer::collect_bool(late.len(), |row| {
                late.value(row) && arrival(row) == wanted
            });
            let last = mask.set_indices().map(stored).max();
            (wanted, (mask, last.unwrap_or_default()))
        };
        arrivals.into_iter().map(part).collect()
    }

    /// Adds what was measured to the state. A meter whose states cannot be merged is stopped.
    pub(super) async fn keep(&mut self, measured: Measured) -> Result<()> {
        if self.stopped.is_some() {
            // It was measured all the same: which events count, and which are late, does not depend on
            // what befell a meter.
            return Ok(());
        }
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
            self.push_open(open).await?;
        }
        for (arrival, part) in measured.late {
            let late = self.late.entry(arrival).or_default();
            late.push(&self.meter, part).await?;
        }
        Ok(())
    }

    async fn push_open(&mut self, states: RecordBatch) -> Result<()> {
        self.last_end_us = self.last_end_us.max(self.meter.last_end_us(&states));
        self.open.push(&self.meter, states).await
    }

    /// Takes states as its own that were measured together with other meters.
    pub(super) async fn take_over(&mut self, states: Vec<RecordBatch>) -> Result<()> {
        for states in states {
            match self.push_open(states).await {
                _ if self.stopped.is_some() => return Ok(()),
                Err(error) if error.is_of_meter() => self.stop(error),
                pushed => pushed?,
            }
        }
        Ok(())
    }

    /// Events in these places that are in the table already, up to the cut in windows closed at the cut; and those in
    /// no window of this lane.
    fn left_out(&self, counted: &Counted<'_>, places: &[u32]) -> Option<BooleanBuffer> {
        let cut = self.written.cut.signed();
        let after_cut = counted.sequences.first().is_none_or(|first| *first > cut);
        if after_cut && self.range == (i64::MIN..i64::MAX) {
            return None;
        }
        let closed = self.windowing.closed_end(self.written.closed).0;
        Some(BooleanBuffer::collect_bool(places.len(), |row| {
            let place = places[row] as usize;
            let time_us = counted.event_times[place];
            counted.sequences[place] <= cut && time_us < closed || !self.range.contains(&time_us)
        }))
    }

    /// Events in these places whose windows are metered again later.
    fn not_kept(&self, counted: &Counted<'_>, places: &[u32]) -> Option<BooleanBuffer> {
        if self.again.is_empty() {
            return None;
        }
        let start = |row: usize| {
            let time = EventTime(counted.event_times[places[row] as usize]);
            window_start(time, self.windowing.width_us).0
        };
        let is_again = |row| self.again.contains(&start(row));
        let rows = BooleanBuffer::collect_bool(places.len(), is_again);
        (rows.count_set_bits() > 0).then_some(rows)
    }

    /// Events in these places whose window had closed before their message.
    fn late_rows(&self, counted: &Counted<'_>, places: &[u32]) -> Option<BooleanBuffer> {
        let closed = self.closings.closed_end().0;
        let is_late = |place: usize| {
            let before = counted.before[place].max(self.closed_at_cut);
            let time_us = counted.event_times[place];
            time_us < closed && time_us < self.windowing.closed_end(before).0
        };
        let late = BooleanBuffer::collect_bool(places.len(), |row| is_late(places[row] as usize));
        (late.count_set_bits() > 0).then_some(late)
    }

    /// Takes out what is closed or late, to be written after the commit up to `cut`; `None` when
    /// there is nothing to write. `closed` is what was measured together with other meters.
    pub(super) fn take_pending(
        &mut self,
        lane: usize,
        cut: Cut,
        mut closed: Vec<RecordBatch>,
    ) -> Result<Option<Pending>> {
        if self.stopped.is_some() {
            return Ok(None);
        }
        let closed_end = self.closings.closed_end();
        self.open_from = closed_end;
        self.is_again_told = false;
        closed.extend(self.open.split_off_before(closed_end)?);
        let open = self.again.split_off(&closed_end.0);
        let again = std::mem::replace(&mut self.again, open).into_iter();
        let again = again.map(|start| (start, self.until(start))).collect();
        let again = Again::new(self.windowing.width_us, again);
        let late = std::mem::take(&mut self.late);
        let behind = cut.sequence.0.saturating_sub(self.written.cut.0);
        if closed.is_empty() && again.is_empty() && late.is_empty() && behind < Self::BEHIND_MAX {
            return Ok(None);
        }
        let late = late.into_values().map(|late| {
            let starts: BTreeSet<i64> = late.starts().collect();
            let mut number = |start: i64| {
                let last = self.panes.entry(start).or_default();
                *last += 1;
                (start, *last)
            };
            let numbers = starts.into_iter().map(&mut number).collect();
            late.pending(numbers)
        });
        let late = late.collect();
        let closings = self.closings.clone();
        self.closings.forget();
        self.written = self.written_at(cut);
        Ok(Some(Pending {
            lane,
            written: self.written,
            closed,
            again,
            late,
            closings,
        }))
    }

    /// What the table holds when everything that is closed at `cut` is in it.
    pub(crate) fn written_at(&self, cut: Cut) -> Written {
        Written {
            cut: cut.sequence,
            watermark: cut.watermark,
            closed: cut.watermark.max(self.closed_at_cut),
        }
    }

    /// Puts back what was taken out last.
    pub(super) fn put_back(&mut self, taken: &Pending) {
        self.taken = Some(taken.clone());
    }
}

pub(super) fn select(rows: &RecordBatch, mask: BooleanBuffer) -> Result<RecordBatch> {
    filter_record_batch(rows, &BooleanArray::from(mask))
        .map_err(query_error("selecting a meter's events"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_usage_is_kept_apart_by_windows_and_by_periods() {
        let minutes = |minutes: i64| minutes * 60_000_000;
        for (width, apart) in [(1, 1), (15, 15), (24, 3), (40, 5), (60, 15), (1_440, 15)] {
            assert_eq!(
                greatest_divisor(minutes(width), QUARTER_US),
                minutes(apart),
                "{width}"
            );
        }
    }
}
