//! Rows that are made of base windows: windows that hop, and sessions.
//!
//! A meter keeps base windows, whatever its rows are. A window that hops is the merge of those it spans. A
//! session is kept as fragments, each of what happened in one base window, from its first event to the gap's length
//! after its last; fragments that overlap are one session. Overlapping does not depend on the order in which
//! events come or fragments merge, so late events join sessions like any others.

use super::{Meter, faults::Spread, merging, shape::WINDOW_END, syntax::refused_option};
use crate::{
    definitions::{Frame, LatePolicy},
    error::Result,
    schema,
};
use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray},
    compute::{
        SortColumn, SortOptions, concat_batches, filter_record_batch, lexsort_to_indices, max,
        partition, take_record_batch,
    },
    datatypes::TimestampMicrosecondType,
};
use datafusion::{common::exec_datafusion_err, error::DataFusionError};
use std::sync::Arc;

/// Where fragments of sessions are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// Within each base window, as they are kept.
    InBaseWindows,
    /// Everywhere: into sessions.
    Whole,
}

type PlanResult<T> = std::result::Result<T, DataFusionError>;

impl Meter {
    /// The rows of a meter as people see them: base windows, windows that hop, or sessions; columns and
    /// order as in [`Meter::finish`].
    ///
    /// # Errors
    /// [`crate::Error::Measure`] with the first window that fails.
    pub async fn rows(&self, states: &[RecordBatch]) -> Result<RecordBatch> {
        match self.definition.frame {
            Frame::Tumbling => self.finish(states).await,
            Frame::Session { .. } => {
                let sessions = self.joined(states, Joined::Whole).map_err(merging)?;
                self.finish_joined(&sessions, Spread::Overlapping).await
            }
            Frame::Hopping { size_us } => {
                let hops = self.hops(states, size_us).map_err(merging)?;
                let rows = self.finish_joined(&hops, Spread::SameStart).await?;
                with_ends(&rows, size_us).map_err(merging)
            }
        }
    }

    /// The same in no particular order: sorting takes as long as merging, and who asks ten times a second
    /// seldom needs it.
    ///
    /// # Errors
    /// [`crate::Error::Measure`] with the first window that fails.
    pub async fn rows_in_any_order(&self, states: &[RecordBatch]) -> Result<RecordBatch> {
        if self.definition.frame == Frame::Tumbling
            && self.layout.is_restored_by_measures()
            && let Some(finished) = self.finish_whole(&self.finish, states.to_vec()).await?
        {
            return self
                .pane(&finished, None, Spread::SameStart)
                .map_err(merging);
        }
        self.rows(states).await
    }

    /// The states of the sessions that end in `(from, until]`, in microseconds: the last event of each is
    /// before `until`, so nothing that happens later can change them. Of a meter without sessions, all.
    ///
    /// # Errors
    /// [`crate::Error::Measure`] with the first window that fails.
    pub async fn sessions_ending(
        &self,
        states: Vec<RecordBatch>,
        (from_us, until_us): (i64, i64),
    ) -> Result<Vec<RecordBatch>> {
        if !self.has_sessions() {
            return Ok(states);
        }
        let sessions = self.joined(&states, Joined::Whole).map_err(merging)?;
        let sessions = self.reduce_joined(&sessions).await?;
        let ends = self.ends(&sessions).values().iter();
        let within = ends.map(|end| Some(*end > from_us && *end <= until_us));
        let within: BooleanArray = within.collect();
        let sessions = filter_record_batch(&sessions, &within);
        Ok(vec![sessions.map_err(|error| merging(error.into()))?])
    }

    /// When the last of the rows ends, in microseconds, that these states or panes are part of, where that is
    /// later than their base windows do; `None` for plain windows, and for no states.
    pub fn last_end_us(&self, states: &RecordBatch) -> Option<i64> {
        let last = |column: &str| {
            let instants = states.column_by_name(column)?;
            max(instants.as_primitive::<TimestampMicrosecondType>())
        };
        match self.definition.frame {
            Frame::Tumbling => None,
            Frame::Hopping { size_us } => last("window_start")?.checked_add(size_us),
            Frame::Session { .. } => last(WINDOW_END),
        }
    }

    /// Whether its rows are sessions.
    pub fn has_sessions(&self) -> bool {
        matches!(self.definition.frame, Frame::Session { .. })
    }

    /// Whether its rows are base windows.
    pub fn has_plain_windows(&self) -> bool {
        self.definition.frame == Frame::Tumbling
    }

    /// Refuses what has no meaning for windows that are no base windows.
    pub(super) fn check_frame(&self) -> Result<()> {
        let definition = &self.definition;
        let (option, problem, hint) = match definition.frame {
            Frame::Session { .. } | Frame::Hopping { .. }
                if definition.effective_from_us.is_some() =>
            {
                (
                    "effective_from",
                    "a session, or a window that hops, could be of two versions",
                    "create a meter under another name",
                )
            }
            Frame::Session { .. } if definition.late == LatePolicy::NextPeriod => (
                "late",
                "a session cannot have late = 'next_period', for it belongs to the period in which it ends",
                "write late = 'correct' or 'quarantine'",
            ),
            Frame::Session { .. } | Frame::Hopping { .. } if self.is_timed() => (
                "window",
                "usage that weighs by time needs windows of a fixed length side by side",
                "write a window such as '1 hour'",
            ),
            Frame::Tumbling if definition.late == LatePolicy::NextPeriod && self.is_timed() => (
                "late",
                "usage that weighs by time cannot have late = 'next_period', for it weighs from when it happened",
                "write late = 'correct' or 'quarantine'",
            ),
            _ => return Ok(()),
        };
        Err(refused_option(definition, option, problem, hint))
    }

    /// The states of a micro-batch as they are kept.
    pub(super) async fn fragments(&self, states: RecordBatch) -> Result<RecordBatch> {
        match self.has_sessions() {
            true => self.reduce(&[states]).await,
            false => Ok(states),
        }
    }

    /// States in which fragments of one session start together, so that they merge; others as they are.
    pub(super) fn joined(
        &self,
        states: &[RecordBatch],
        joined: Joined,
    ) -> PlanResult<Vec<RecordBatch>> {
        if !self.has_sessions() || states.is_empty() {
            return Ok(states.to_vec());
        }
        let states = concat_batches(&self.layout.state, states)?;
        let by_key = self.sorted_by_key(&states)?;
        let starts = starts(&by_key).values();
        let ends = self.ends(&by_key).values();
        let base = |us: i64| us.div_euclid(self.definition.window_us);
        let keys = &by_key.columns()[1..=self.layout.key_count];
        let mut joined_starts = Vec::with_capacity(starts.len());
        for group in partition(keys)?.ranges() {
            let mut session = None;
            for row in group {
                let (start, end) = (starts[row], ends[row]);
                session = match session {
                    Some((first, last))
                        if start < last
                            && (joined == Joined::Whole || base(first) == base(start)) =>
                    {
                        Some((first, end.max(last)))
                    }
                    _ => Some((start, end)),
                };
                joined_starts.extend(session.map(|(first, _)| first));
            }
        }
        Ok(vec![with_starts(&by_key, joined_starts)?])
    }

    /// Each state once for every window that hops over its base window.
    fn hops(&self, states: &[RecordBatch], size_us: i64) -> PlanResult<Vec<RecordBatch>> {
        let every_us = self.definition.window_us;
        let mut hops = Vec::new();
        for back in 0..size_us / every_us {
            for states in states {
                let start = |start: &i64| {
                    let hop = start.checked_sub(back * every_us);
                    hop.ok_or_else(|| exec_datafusion_err!("no window starts before {start} µs"))
                };
                let starts = starts(states).values().iter().map(start);
                hops.push(with_starts(states, starts.collect::<PlanResult<_>>()?)?);
            }
        }
        Ok(hops)
    }

    /// The ends of fragments: the last state column.
    fn ends<'a>(&self, states: &'a RecordBatch) -> &'a TimestampMicrosecondArray {
        let last = self.layout.state.fields().len() - 1;
        states.column(last).as_primitive()
    }

    fn sorted_by_key(&self, states: &RecordBatch) -> PlanResult<RecordBatch> {
        let options = Some(SortOptions::default());
        let column = |index: usize| SortColumn {
            values: Arc::clone(states.column(index)),
            options,
        };
        let order: Vec<SortColumn> = (1..=self.layout.key_count).chain([0]).map(column).collect();
        Ok(take_record_batch(
            states,
            &lexsort_to_indices(&order, None)?,
        )?)
    }
}

fn starts(states: &RecordBatch) -> &TimestampMicrosecondArray {
    states.column(0).as_primitive::<TimestampMicrosecondType>()
}

fn with_starts(states: &RecordBatch, starts: Vec<i64>) -> PlanResult<RecordBatch> {
    replaced(states, 0, starts)
}

fn with_ends(rows: &RecordBatch, size_us: i64) -> PlanResult<RecordBatch> {
    let end = |start: &i64| {
        let end = start.checked_add(size_us);
        end.ok_or_else(|| exec_datafusion_err!("the window at {start} µs has no end"))
    };
    let ends = starts(rows).values().iter().map(end);
    replaced(rows, 1, ends.collect::<PlanResult<_>>()?)
}

fn replaced(rows: &RecordBatch, column: usize, instants: Vec<i64>) -> PlanResult<RecordBatch> {
    let instants = TimestampMicrosecondArray::from(instants).with_data_type(schema::timestamp());
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[column] = Arc::new(instants);
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}
