//! Windows that are metered again from `events`, because their state was not kept.
//!
//! A window's pane is a function of its counted events up to the message that closed it, so nothing is lost with its
//! state but time. What is metered again has a bound of its own: groups that do not fit are metered in parts, each from
//! the events anew.

use super::{States, committed::Committed, micros, relation::relation};
use crate::error::{Result, query_error};
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::Int64Type,
};
use datafusion::prelude::{Expr, col, lit};
use futures::TryStreamExt;
use std::{collections::BTreeMap, ops::Range};
use tollgate_connectors::{Sequence, event::EventBatch};
use tollgate_sql::{
    meter::{Meter, Part, SubjectsInError},
    schema,
    window::{EventTime, window_start},
};

const DOING: &str = "metering events again";

/// Windows of one meter, each with the last message whose events are in it.
#[derive(Debug, Clone)]
pub(crate) struct Again {
    width_us: i64,
    windows: BTreeMap<i64, Sequence>,
}

impl Again {
    pub(super) fn new(width_us: i64, windows: BTreeMap<i64, Sequence>) -> Self {
        Again { width_us, windows }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Each window's start, and the last message whose events are in it.
    pub(super) fn windows(&self) -> impl Iterator<Item = (i64, Sequence)> {
        self.windows.iter().map(|(start, until)| (*start, *until))
    }

    /// The events that may be in some of these windows.
    pub(crate) fn filter(&self) -> Expr {
        let time = self.time();
        let from = col("event_time").gt_eq(schema::instant(time.start));
        let until = self.windows.values().max().copied().unwrap_or_default();
        from.and(col("event_time").lt(schema::instant(time.end)))
            .and(col("sequence").lt_eq(lit(until.signed())))
    }

    fn time(&self) -> Range<i64> {
        let mut starts = self.windows.keys();
        let first = starts.next().copied().unwrap_or_default();
        let last = starts.next_back().copied().unwrap_or(first);
        first..last.saturating_add(self.width_us)
    }

    /// The states of those of these events that are in some of these windows.
    pub(crate) async fn measure(
        &self,
        meter: &Meter,
        events: &EventBatch,
    ) -> Result<Option<RecordBatch>> {
        let Some(typed) = events.of_type(&meter.definition().event_type) else {
            return Ok(None);
        };
        let sequences = events.head()["sequence"]
            .as_primitive::<Int64Type>()
            .values();
        let times = micros(events.head(), "event_time");
        let is_in = |row: usize| {
            let place = typed.places()[row] as usize;
            let start = window_start(EventTime(times[place]), self.width_us).0;
            let until = self.windows.get(&start);
            until.is_some_and(|until| sequences[place] <= until.signed())
        };
        let rows = BooleanBuffer::collect_bool(typed.places().len(), is_in);
        if rows.count_set_bits() == 0 {
            return Ok(None);
        }
        let events =
            relation(events.head(), typed, meter.input_schema()).map_err(query_error(DOING))?;
        let events = filter_record_batch(&events, &BooleanArray::from(rows));
        let states = meter.partial(events.map_err(query_error(DOING))?).await?;
        Ok(Some(states))
    }

    /// These windows metered from committed events, in parts.
    pub(crate) fn parts<'a>(
        &'a self,
        meter: &'a Meter,
        events: Committed<'a>,
        bytes_max: usize,
    ) -> Parts<'a> {
        let todo = match self.is_empty() {
            true => Vec::new(),
            false => vec![Part::WHOLE],
        };
        Parts {
            again: self,
            meter,
            events,
            bytes_max,
            todo,
            in_error: None,
        }
    }
}

/// Windows that are metered again, one part of their groups after another.
pub(crate) struct Parts<'a> {
    again: &'a Again,
    meter: &'a Meter,
    events: Committed<'a>,
    bytes_max: usize,
    todo: Vec<Part>,
    /// Known when all events were read once.
    in_error: Option<SubjectsInError>,
}

impl Parts<'_> {
    /// The states of the next part: merged, and of about `bytes_max` bytes at most. `None` when there is no more.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(part) = self.todo.pop() {
            let states = self.measure(part).await?;
            if states.is_empty() {
                continue;
            }
            let states = self.meter.reduce(states.batches()).await?;
            let in_error = self.in_error.get_or_insert_default();
            return Ok(Some(self.meter.without_taken_along(&states, in_error)?));
        }
        Ok(None)
    }

    /// Reads all events, and keeps as much of a part as fits; the rest of it is to be done.
    async fn measure(&mut self, mut part: Part) -> Result<States> {
        let (again, meter) = (self.again, self.meter);
        let mut states = States::default();
        let mut in_error = SubjectsInError::new();
        let event_type = &meter.definition().event_type;
        let mut rows = self.events.of_type(event_type, again.filter()).await?;
        while let Some(batch) = rows.try_next().await.map_err(query_error(DOING))? {
            let batch = EventBatch::split(&batch).map_err(query_error(DOING))?;
            let Some(measured) = again.measure(meter, &batch).await? else {
                continue;
            };
            if self.in_error.is_none() {
                in_error.extend(meter.subjects_in_error(&measured)?);
            }
            states.push(meter, meter.part_of(&measured, part)?).await?;
            if states.bytes > self.bytes_max {
                let mut merged = meter.reduce(states.batches()).await?;
                // Half of the bound stays free, or the next batch would have it merged again.
                while merged.get_array_memory_size() > self.bytes_max / 2 && !part.is_least() {
                    let (kept, other) = part.halves();
                    self.todo.push(other);
                    part = kept;
                    merged = meter.part_of(&merged, part)?;
                }
                states.become_merged(merged);
            }
        }
        self.in_error.get_or_insert(in_error);
        Ok(states)
    }
}
