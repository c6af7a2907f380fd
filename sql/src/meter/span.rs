//! The time that totals are asked for, and what it makes of states.
//!
//! A state of an aggregate that weighs usage by time says for which time: its window. For the totals
//! of a period each state is restated: what happened in the period keeps its instant or day, and what
//! happened before it is there from its first moment.

use super::{Meter, shape::ERROR};
use crate::{
    aggregates::{Timed, weighted},
    error::Result,
    schema,
    window::DAY_US,
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, ListArray,
        RecordBatch, TimestampMicrosecondArray, new_null_array,
    },
    compute::filter_record_batch,
    datatypes::{DataType, Decimal128Type, FieldRef, TimestampMicrosecondType},
};
use datafusion::{
    common::{exec_err, internal_err},
    error::DataFusionError,
};
use jiff::{Timestamp, civil::date, tz::TimeZone};
use std::{ops::Range, sync::Arc};

type PlanResult<T> = std::result::Result<T, DataFusionError>;

/// The time that totals are asked for, `[from, until)`, and the whole that usage is prorated over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// First instant, microseconds since the Unix epoch.
    pub from_us: i64,
    /// First instant after it; above `from_us`.
    pub until_us: i64,
    /// How long the whole is, above zero: that of the span itself, or of the billing period of
    /// which the span is a part.
    pub whole_us: i64,
    /// How many days the whole has, above zero.
    pub whole_days: i64,
    /// Where days begin.
    pub zone: TimeZone,
}

impl Span {
    /// A span that is the whole.
    pub fn new(from_us: i64, until_us: i64, zone: TimeZone) -> Self {
        let mut span = Self {
            from_us,
            until_us,
            whole_us: until_us.saturating_sub(from_us),
            whole_days: 1,
            zone,
        };
        let days = span.days();
        span.whole_days = days.end.saturating_sub(days.start);
        span
    }

    /// A part of it, prorated over the same whole.
    pub fn part(self, from_us: i64, until_us: i64) -> Self {
        Self {
            from_us,
            until_us,
            ..self
        }
    }

    /// The days from the one that holds the first instant to the one that holds the last, counted
    /// from 1970-01-01.
    fn days(&self) -> Range<i64> {
        let last = self.day_of(self.until_us.saturating_sub(1));
        self.day_of(self.from_us)..last.saturating_add(1)
    }

    fn day_of(&self, time_us: i64) -> i64 {
        day_of(time_us, &self.zone)
    }
}

/// The day of an instant in a zone, counted from 1970-01-01. Beyond the years that a calendar knows,
/// days are those of UTC.
fn day_of(time_us: i64, zone: &TimeZone) -> i64 {
    let utc = time_us.div_euclid(DAY_US);
    if *zone == TimeZone::UTC {
        return utc;
    }
    let Ok(time) = Timestamp::from_microsecond(time_us) else {
        return utc;
    };
    let day = zone.to_datetime(time).date();
    let since = date(1970, 1, 1).until(day);
    since.map_or(utc, |since| since.get_days().into())
}

/// Where the states of one aggregate are in a state batch, and how they depend on time.
#[derive(Debug, Clone)]
pub(super) struct StateOf {
    pub(super) columns: Range<usize>,
    pub(super) timed: Option<Timed>,
    /// Whether it is the fault of a group, which no time mends.
    pub(super) is_fault: bool,
}

/// Whether states are of the span or from before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Within,
    Before,
}

impl Meter {
    /// Whether totals of a span depend on usage before it: pass its states to
    /// [`Meter::totals_over`].
    pub fn carries(&self) -> bool {
        self.definition.carry_over || self.states_of_time(Timed::Microseconds).next().is_some()
    }

    /// Whether some measure weighs usage by time, so that totals are over a span only.
    pub fn is_timed(&self) -> bool {
        self.states.iter().any(|state| state.timed.is_some())
    }

    /// Merges states of a span over all their windows, like [`Meter::totals`].
    ///
    /// `within` has the states of the events in the span. `before` has those of all earlier events if
    /// the meter [carries](Meter::carries) usage over, and is empty otherwise: `time_weighted_sum`
    /// and `time_weighted_avg` begin with the level that they left, and with `carry_over` every
    /// measure counts them. A group without usage in the span has a row if it is carried over and
    /// its level is not zero, or the meter has `carry_over`.
    ///
    /// # Errors
    /// [`crate::Error::Measure`]; its window is `any`.
    pub async fn totals_over(
        &self,
        within: &[RecordBatch],
        before: &[RecordBatch],
        span: &Span,
    ) -> Result<RecordBatch> {
        if !self.is_timed() && before.is_empty() {
            return self.totals(within).await;
        }
        let measuring = |source| self.measure_error("any".to_owned(), source);
        let restate = |states: &[RecordBatch], when| -> PlanResult<Vec<RecordBatch>> {
            let states = states.iter();
            states
                .map(|state| self.restate(state, span, when))
                .collect()
        };
        let mut states = restate(within, When::Within).map_err(measuring)?;
        let carried = restate(before, When::Before).map_err(measuring)?;
        if !carried.is_empty() {
            let carried = self.reduce(&carried).await?;
            states.push(self.without_nothing(&carried).map_err(measuring)?);
        }
        self.merge_windows(&states).await
    }

    fn states_of_time(&self, timed: Timed) -> impl Iterator<Item = &StateOf> {
        let states = self.states.iter();
        states.filter(move |state| state.timed == Some(timed))
    }

    fn restate(&self, states: &RecordBatch, span: &Span, when: When) -> PlanResult<RecordBatch> {
        let starts = states.column(0).as_primitive::<TimestampMicrosecondType>();
        if when == When::Within && self.states_of_time(Timed::Days).next().is_some() {
            self.check_days(starts.values(), &span.zone)?;
        }
        let mut columns = states.columns().to_vec();
        if when == When::Before {
            // One window for all, so that they merge.
            let start = TimestampMicrosecondArray::from_value(span.from_us, states.num_rows());
            columns[0] = Arc::new(start.with_data_type(schema::timestamp()));
        }
        let schema = states.schema();
        for state in &self.states {
            let fields = &schema.fields()[state.columns.clone()];
            let of_state = &mut columns[state.columns.clone()];
            match state.timed {
                _ if when == When::Before && !self.carries_state(state) => {
                    forget(of_state, fields)?
                }
                Some(Timed::Operations) => restate_operations(of_state, span)?,
                Some(timed) => restate_sums(of_state, span, timed, (when, starts))?,
                None => {}
            }
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    /// Usage prorated by days takes its day from its window, which must therefore lie in one day.
    fn check_days(&self, starts: &[i64], zone: &TimeZone) -> PlanResult<()> {
        let width_us = self.definition.window_us;
        let is_of_two_days = |start: &&i64| {
            day_of(**start, zone) != day_of(start.saturating_add(width_us - 1), zone)
        };
        match starts.iter().find(is_of_two_days) {
            None => Ok(()),
            Some(start) => exec_err!(
                "the window that starts at {} lies in two days of the billing time zone, so \
                 PRORATED_SUM cannot tell the day: use window = '15 minutes'",
                Timestamp::from_microsecond(*start).unwrap_or_default()
            ),
        }
    }

    /// Without `carry_over` a level is all that earlier usage leaves.
    fn carries_state(&self, state: &StateOf) -> bool {
        self.definition.carry_over || state.is_fault || state.timed == Some(Timed::Microseconds)
    }

    /// Leaves out the groups whose level has come back to zero.
    fn without_nothing(&self, carried: &RecordBatch) -> PlanResult<RecordBatch> {
        if self.definition.carry_over {
            return Ok(carried.clone());
        }
        let levels: Vec<(&Decimal128Array, &ArrayRef)> = self
            .states_of_time(Timed::Microseconds)
            .map(|state| {
                let level = carried.column(state.columns.start);
                // The digits of a level that is wide.
                let wide = carried.column(state.columns.start + 5);
                (level.as_primitive::<Decimal128Type>(), wide)
            })
            .collect();
        let faults = carried.column_by_name(ERROR);
        let has_level = |row| {
            let mut levels = levels.iter();
            let has_level = levels.any(|(level, wide)| {
                wide.is_valid(row) || level.is_valid(row) && level.value(row) != 0
            });
            Some(has_level || faults.is_some_and(|faults| faults.is_valid(row)))
        };
        let kept: BooleanArray = (0..carried.num_rows()).map(has_level).collect();
        Ok(filter_record_batch(carried, &kept)?)
    }
}

/// The states of no events: zero for a count, NULL for everything else.
fn forget(columns: &mut [ArrayRef], fields: &[FieldRef]) -> PlanResult<()> {
    for (column, field) in columns.iter_mut().zip(fields) {
        *column = match (field.is_nullable(), field.data_type()) {
            (false, DataType::Int64) => Arc::new(Int64Array::from_value(0, column.len())),
            (true, data_type) => new_null_array(data_type, column.len()),
            (false, other) => return internal_err!("a state of {other} cannot be left out"),
        };
    }
    Ok(())
}

/// Three columns of bounds, NULL where there is no state.
fn bounds(columns: &mut [ArrayRef], bounds: [i64; 3]) {
    for (column, bound) in columns.iter_mut().zip(bounds) {
        let bounds = (0..column.len()).map(|row| column.is_valid(row).then_some(bound));
        *column = Arc::new(bounds.collect::<Int64Array>());
    }
}

/// `change, moment, from, until, whole` for this span.
fn restate_sums(
    columns: &mut [ArrayRef],
    span: &Span,
    timed: Timed,
    (when, starts): (When, &TimestampMicrosecondArray),
) -> PlanResult<()> {
    let days = span.days();
    let (from, at): (i64, Box<dyn Fn(usize) -> i64>) = match (timed, when) {
        (Timed::Microseconds, When::Within) => {
            bounds(
                &mut columns[2..5],
                [span.from_us, span.until_us, span.whole_us],
            );
            return Ok(());
        }
        (Timed::Microseconds, When::Before) => (span.from_us, Box::new(|_| span.from_us)),
        // A window lies in one day; at an edge of the span it may begin before the span does.
        (_, When::Within) => (
            days.start,
            Box::new(|row| {
                span.day_of(starts.value(row))
                    .clamp(days.start, days.end - 1)
            }),
        ),
        (_, When::Before) => (days.start, Box::new(|_| days.start)),
    };
    weighted::moments(columns, at)?;
    let (until, whole) = match timed {
        Timed::Microseconds => (span.until_us, span.whole_us),
        Timed::Days | Timed::Operations => (days.end, span.whole_days),
    };
    bounds(&mut columns[2..5], [from, until, whole]);
    Ok(())
}

/// The day of each operation where the span is, and the days of the span.
fn restate_operations(columns: &mut [ArrayRef], span: &Span) -> PlanResult<()> {
    let times = columns[2].as_list::<i32>();
    let instants = times.values().as_primitive::<TimestampMicrosecondType>();
    let days = instants
        .values()
        .iter()
        .map(|time_us| span.day_of(*time_us));
    let days = Int64Array::from_iter_values(days);
    let DataType::List(field) = columns[6].data_type() else {
        return internal_err!("days are {}, not lists", columns[6].data_type());
    };
    let (offsets, nulls) = (times.offsets().clone(), times.nulls().cloned());
    let days = ListArray::try_new(Arc::clone(field), offsets, Arc::new(days), nulls)?;
    columns[6] = Arc::new(days);
    let days = span.days();
    bounds(&mut columns[7..], [days.start, days.end, span.whole_days]);
    Ok(())
}
