//! Faults stay small: which group an event puts in error, and what is seen of it.
//!
//! An event on which an argument of an aggregate fails puts its group in error; one on which WHERE or a key fails, all
//! of its subject, for its group cannot be told. Rows that fail are found by themselves, so that a fault is a function
//! of its event, whatever batch it came in. It is kept as state ([`fault`]), and a group in error stays in error.
//! Values that cannot be made of a group's states, such as a sum of more than 38 digits, are a fault of what the group
//! holds now: no state keeps it, for more events may mend it.

use super::{
    Meter, Version,
    columns::{columns_of, sorted},
    merging,
    pipeline::Stage,
    shape::{ERROR, WINDOW_END},
    window,
};
use crate::{
    aggregates::{fault::About, wide},
    definitions::Frame,
    error::{Result, is_of_values},
    schema,
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray,
        TimestampMicrosecondArray, new_null_array,
    },
    compute::{concat_batches, filter_record_batch, is_null, kernels::zip::zip, nullif},
    datatypes::{Field, FieldRef, Schema, SchemaRef, TimestampMicrosecondType},
};
use datafusion::{
    common::{ScalarValue, exec_datafusion_err},
    error::DataFusionError,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

type PlanResult<T> = std::result::Result<T, DataFusionError>;

/// Where a subject in error takes its other groups along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// In rows that start when the fault's row does.
    SameStart,
    /// In rows that share a moment with it.
    Overlapping,
    /// Nowhere yet: fragments of sessions are put together later.
    No,
}

impl Meter {
    /// The states of events of which some fail: each of these is found, and puts its group or subject in error.
    pub(super) async fn partial_apart(
        &self,
        version: &Version,
        events: &RecordBatch,
    ) -> Result<RecordBatch> {
        let mut states = Vec::new();
        let mut parts = vec![(0, events.num_rows())];
        while let Some((from, length)) = parts.pop() {
            let part = events.slice(from, length);
            match version.partial.run(vec![part.clone()]).await {
                Ok(good) => {
                    states.push(super::with_schema(&good, &self.layout.state).map_err(merging)?)
                }
                Err(error) if !is_of_values(&error) => {
                    return Err(self.measure_error("any".to_owned(), error));
                }
                Err(error) if length == 1 => states.push(self.fault(version, part, error).await?),
                Err(_) => {
                    let half = length / 2;
                    parts.extend([(from + half, length - half), (from, half)]);
                }
            }
        }
        concat_batches(&self.layout.state, &states).map_err(|error| merging(error.into()))
    }

    /// The state of one event that cannot be measured.
    async fn fault(
        &self,
        version: &Version,
        event: RecordBatch,
        error: DataFusionError,
    ) -> Result<RecordBatch> {
        let (about, cause, keys) = match version.keys.run(vec![event.clone()]).await {
            Ok(keys) if keys.num_rows() == 1 => (About::Group, error, Some(keys)),
            Ok(_) => return Err(self.measure_error("any".to_owned(), error)),
            Err(cause) => (About::Subject, cause, None),
        };
        let text = about.text(&cause.find_root().strip_backtrace());
        let state = self.state_of_fault(&event, keys.as_ref(), &text);
        state.map_err(merging)
    }

    fn state_of_fault(
        &self,
        event: &RecordBatch,
        keys: Option<&RecordBatch>,
        text: &str,
    ) -> PlanResult<RecordBatch> {
        let times = column(event, "event_time")?.as_primitive::<TimestampMicrosecondType>();
        let fields = self.layout.state.fields().iter().enumerate();
        let columns = fields.map(|(index, field)| {
            let column: ArrayRef = match (index, keys) {
                (_, Some(keys)) if index <= self.layout.key_count => Arc::clone(keys.column(index)),
                (0, None) => Arc::new(window::window_starts(times, self.key_width_us())?),
                (1, None) => Arc::clone(column(event, "subject")?),
                _ if field.name() == ERROR => Arc::new(StringArray::from(vec![text])),
                _ => match (self.definition.frame, field.name().as_str()) {
                    (Frame::Session { gap_us }, WINDOW_END) => {
                        let end = times.value(0).checked_add(gap_us);
                        let end =
                            end.ok_or_else(|| exec_datafusion_err!("the session has no end"))?;
                        let end = TimestampMicrosecondArray::from(vec![end]);
                        Arc::new(end.with_data_type(schema::timestamp()))
                    }
                    _ => nothing(field, 1)?,
                },
            };
            Ok(column)
        });
        let columns = columns.collect::<PlanResult<Vec<_>>>()?;
        Ok(RecordBatch::try_new(
            Arc::clone(&self.layout.state),
            columns,
        )?)
    }

    /// The width of the windows that are group keys.
    fn key_width_us(&self) -> i64 {
        match self.definition.frame {
            Frame::Session { .. } => 1,
            Frame::Tumbling | Frame::Hopping { .. } => self.definition.window_us,
        }
    }

    /// What a stage makes of states; `None` when it fails on the values of some group.
    pub(super) async fn finish_whole(
        &self,
        stage: &Stage,
        states: Vec<RecordBatch>,
    ) -> Result<Option<RecordBatch>> {
        match stage.run(states).await {
            Ok(finished) => Ok(Some(finished)),
            Err(error) if is_of_values(&error) => Ok(None),
            Err(error) => Err(self.measure_error("any".to_owned(), error)),
        }
    }

    /// What a stage makes of states, one row for each group, from the `first` column on; a group on whose values it
    /// fails is in error.
    pub(super) async fn finish_each(
        &self,
        stage: &Stage,
        states: &RecordBatch,
        first: usize,
    ) -> Result<RecordBatch> {
        let finished_as = loose(stage.schema());
        let columns: Vec<usize> = (first..states.num_columns()).collect();
        let states = states
            .project(&columns)
            .map_err(|error| merging(error.into()))?;
        let mut finished = Vec::new();
        let mut parts = vec![(0, states.num_rows())];
        while let Some((from, length)) = parts.pop() {
            let part = states.slice(from, length);
            match stage.run(vec![part.clone()]).await {
                Ok(good) => {
                    finished.push(super::with_schema(&good, &finished_as).map_err(merging)?)
                }
                Err(error) if !is_of_values(&error) => {
                    return Err(self.measure_error("any".to_owned(), error));
                }
                Err(error) if length == 1 => {
                    let text = About::Value.text(&error.find_root().strip_backtrace());
                    finished.push(in_error(&part, &finished_as, text).map_err(merging)?);
                }
                Err(_) => {
                    let half = length / 2;
                    parts.extend([(from + half, length - half), (from, half)]);
                }
            }
        }
        concat_batches(&finished_as, &finished).map_err(|error| merging(error.into()))
    }

    /// Rows as they may be seen: no values beside a fault, and of a subject in error its fault alone. Columns are those
    /// of panes or of totals, and the order is by the first `sorted_by` of them.
    pub(super) fn settled(
        &self,
        rows: RecordBatch,
        spread: Spread,
        sorted_by: usize,
    ) -> PlanResult<RecordBatch> {
        let faults = column(&rows, ERROR)?.as_string::<i32>();
        if faults.null_count() == faults.len() {
            return Ok(rows);
        }
        let about: Vec<Option<About>> = faults.iter().map(|text| text.map(About::of)).collect();
        let is = |wanted: fn(About) -> bool| -> BooleanArray {
            about
                .iter()
                .map(|about| Some(about.is_some_and(wanted)))
                .collect()
        };
        let lasting = is(|about| about != About::Value);
        let of_subject = is(|about| about == About::Subject);
        let mut columns = rows.columns().to_vec();
        let names: BTreeSet<&str> = self.measures().iter().map(|f| f.name().as_str()).collect();
        let dimensions: BTreeSet<&str> = self
            .dimensions()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        let schema = rows.schema();
        for (column, field) in columns.iter_mut().zip(schema.fields()) {
            if names.contains(field.name().as_str()) {
                *column = nullif(column, &lasting)?;
            } else if dimensions.contains(field.name().as_str()) {
                *column = nullif(column, &of_subject)?;
            }
        }
        let rows = RecordBatch::try_new(schema, columns)?;
        if of_subject.true_count() == 0 || spread == Spread::No {
            return Ok(rows);
        }
        let taken = taken_along(&rows, &of_subject, spread)?;
        sorted(&filter_record_batch(&rows, &taken)?, sorted_by)
    }

    /// States from columns of panes: what a table did not keep before is NULL, and what a fault left out is nothing.
    pub(super) fn restored(&self, panes: &RecordBatch) -> PlanResult<RecordBatch> {
        let mut schema = panes.schema().fields().to_vec();
        let mut columns = panes.columns().to_vec();
        let rows = panes.num_rows();
        for field in self.layout.state.fields() {
            let later = field.name() == ERROR || self.layout.wide.contains(field.name());
            match panes.schema().index_of(field.name()) {
                Ok(at) if field.name() == ERROR => columns[at] = lasting(&columns[at]),
                Ok(at) if !field.is_nullable() && columns[at].null_count() > 0 => {
                    let nothing = nothing(field, rows)?;
                    let nulls = is_null(&columns[at])?;
                    let typed = arrow::compute::cast(&columns[at], field.data_type())?;
                    columns[at] = zip(&nulls, &nothing, &typed)?;
                }
                Err(_) if later => {
                    schema.push(Arc::clone(field));
                    columns.push(new_null_array(field.data_type(), rows));
                }
                _ => {}
            }
        }
        let fields = schema.iter().zip(&columns).map(|(field, column)| {
            let nullable = field.as_ref().clone().with_nullable(true);
            nullable.with_data_type(column.data_type().clone())
        });
        let fields: Vec<Field> = fields.collect();
        let panes = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        columns_of(&panes, &self.layout.state)
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> PlanResult<&'a ArrayRef> {
    let column = batch.column_by_name(name);
    column.ok_or_else(|| exec_datafusion_err!("column `{name}` is missing"))
}

/// The state of no events, or a key that stands for none: NULL, or the default of a type that has no NULL.
fn nothing(field: &Field, rows: usize) -> PlanResult<ArrayRef> {
    match field.is_nullable() {
        true => Ok(new_null_array(field.data_type(), rows)),
        false => ScalarValue::new_default(field.data_type())?.to_array_of_size(rows),
    }
}

/// Faults that merge, without those of values.
fn lasting(faults: &ArrayRef) -> ArrayRef {
    let Some(faults) = faults.as_string_opt::<i32>() else {
        return Arc::clone(faults);
    };
    let lasting = faults
        .iter()
        .map(|text| text.filter(|text| About::of(text) != About::Value));
    Arc::new(lasting.collect::<StringArray>())
}

/// The same columns, each of which may be NULL.
fn loose(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields = fields.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

/// The row of one state of which no values can be made. Measures that are states are kept, or nothing could be added
/// to them later.
fn in_error(state: &RecordBatch, schema: &SchemaRef, text: String) -> PlanResult<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let of_state = state.column_by_name(field.name());
        let of_state = of_state.filter(|column| column.data_type() == field.data_type());
        let column: ArrayRef = match of_state {
            Some(fault) if field.name() == ERROR && fault.is_null(0) => {
                Arc::new(StringArray::from(vec![text.as_str()]))
            }
            Some(column) => Arc::clone(column),
            None => new_null_array(field.data_type(), 1),
        };
        column
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
}

/// Which rows are left when a subject's fault takes its other groups along.
fn taken_along(
    rows: &RecordBatch,
    of_subject: &BooleanArray,
    spread: Spread,
) -> PlanResult<BooleanArray> {
    let subjects = column(rows, "subject")?.as_string::<i32>();
    let time = |name: &str| {
        let column = rows.column_by_name(name);
        column.map(|column| column.as_primitive::<TimestampMicrosecondType>())
    };
    // Totals have no time: all of it is one.
    let span = |row: usize| {
        let at = |name, none| time(name).map_or(none, |times| times.value(row));
        (at("window_start", 0), at(WINDOW_END, 0))
    };
    let mut faults: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    for row in (0..rows.num_rows()).filter(|row| of_subject.value(*row)) {
        faults
            .entry(subjects.value(row))
            .or_default()
            .push(span(row));
    }
    let is_taken = |row: usize| {
        let (start, end) = span(row);
        let mut faults = faults.get(subjects.value(row)).into_iter().flatten();
        faults.any(|(from, to)| match spread {
            Spread::SameStart => *from == start,
            Spread::Overlapping => *from < end && start < *to,
            Spread::No => false,
        })
    };
    let kept = (0..rows.num_rows()).map(|row| Some(of_subject.value(row) || !is_taken(row)));
    Ok(kept.collect())
}

/// Whether a state column holds the digits of wide sums, by DataFusion's name of it.
pub(super) fn is_wide(state: &Field) -> bool {
    state.name().contains(wide::MARK)
}
