//! One meter: its SQL planned once, split into partial, reduce and finish.
//!
//! ```text
//!  events ──partial──▶ states ──reduce──▶ fewer states ──finish──▶ panes ──states_of──▶ states
//!  (one batch)         (any number of batches, any order)    └────totals──▶ period totals
//! ```
//!
//! A *state* is one row for a window and its group keys, with columns that can be merged. States of
//! any batches, reduced at any moments in any order, finish to the same rows: every aggregate of a
//! meter is exact, and the rows come sorted by window and keys. What fails puts its group in error, or its
//! subject where the group cannot be told, and no other.

use crate::{
    aggregates,
    definitions::{EventType, Frame, MeterDefinition},
    error::{Error, Result},
    schema::{self, panes::panes_schema},
};
use arrow::{
    array::{AsArray, RecordBatch, TimestampMicrosecondArray, new_null_array},
    compute::concat_batches,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimestampMicrosecondType},
};
use columns::{columns_of, sorted, with_schema, without_first_column};
use datafusion::{
    common::{exec_datafusion_err, internal_err},
    error::DataFusionError,
    prelude::SessionConfig,
    sql::{parser::Statement, sqlparser},
};
use faults::Spread;
use frame::Joined;
use futures::{Stream, StreamExt};
use layout::Layout;
use pipeline::{Halves, Stage};
use planning::{check_alike, check_types, halves, planner};
use span::StateOf;
use std::sync::Arc;

mod aggregation;
mod batch;
mod blame;
mod bundle;
mod calls;
mod canonical;
mod columns;
pub(crate) mod constants;
mod faults;
mod fingerprint;
mod frame;
mod layout;
mod leaf;
mod part;
mod pipeline;
mod planning;
mod refused_call;
pub(crate) mod shape;
mod span;
pub(crate) mod syntax;
mod version;
mod window;

pub use aggregation::{Aggregated, Aggregation};
pub use bundle::{Alike, Bundle};
pub(crate) use calls::{each_expression, name_in};
pub use fingerprint::Fingerprint;
pub use part::{Part, SubjectsInError};
pub use shape::ERROR;
pub use span::Span;
pub use version::Version;

/// A planned meter. Cheap to share; every method may run at the same time as any other.
#[derive(Debug)]
pub struct Meter {
    definition: MeterDefinition,
    input: SchemaRef,
    layout: Layout,
    states: Vec<StateOf>,
    versions: Vec<Version>,
    reduce: Stage,
    finish: Stage,
    totals: Stage,
    reduce_totals: Stage,
}

impl Meter {
    /// Plans a meter over the event type that its query reads.
    ///
    /// # Errors
    /// [`Error::Definition`] for a query that no meter can be made of, with a hint, and
    /// [`Error::PlanMeter`] for one that DataFusion cannot plan.
    pub async fn plan(definition: &MeterDefinition, event_type: &EventType) -> Result<Self> {
        Self::plan_with(definition, event_type, SessionConfig::new()).await
    }

    async fn plan_with(
        definition: &MeterDefinition,
        event_type: &EventType,
        config: SessionConfig,
    ) -> Result<Self> {
        let (mut meter, finishing) =
            Self::plan_version(definition, event_type, config.clone()).await?;
        for earlier in definition.earlier.iter().rev() {
            let (earlier, its) = Self::plan_version(earlier, event_type, config.clone()).await?;
            meter.precede(earlier, (&finishing, &its))?;
        }
        meter.input = version::input_of(&meter.versions, event_type);
        Ok(meter)
    }

    async fn plan_version(
        definition: &MeterDefinition,
        event_type: &EventType,
        config: SessionConfig,
    ) -> Result<(Self, shape::Finishing)> {
        let statement = syntax::parse(definition)?;
        let planned =
            Self::plan_statement(definition, event_type, config.clone(), statement.clone());
        // Planning is large, and done once.
        match Box::pin(planned).await {
            Ok((meter, finishing)) => {
                meter.check_frame()?;
                Ok((meter, finishing))
            }
            Err(refusal) => {
                let placed = Self::at_its_call(definition, event_type, config, &statement, refusal);
                Err(Box::pin(placed).await)
            }
        }
    }

    async fn plan_statement(
        definition: &MeterDefinition,
        event_type: &EventType,
        config: SessionConfig,
        mut statement: sqlparser::ast::Statement,
    ) -> Result<(Self, shape::Finishing)> {
        let planning = |source| shape::plan_error(definition, source);
        calls::count_distinct(&mut statement);
        calls::supply(&mut statement, definition.window_us);
        let state = planner(event_type, config).map_err(planning)?;
        let statement = Statement::Statement(Box::new(statement));
        let plan = state.statement_to_plan(statement).await;
        let shape = shape::shape(definition, &plan.map_err(planning)?)?;
        check_types(definition, &state, &shape.per_window)?;
        let per_window = halves(&state, &shape.per_window).await.map_err(planning)?;
        let in_total = halves(&state, &shape.in_total).await.map_err(planning)?;
        let meter = Self::assemble(definition, event_type, &shape, &per_window, &in_total);
        Ok((meter.map_err(planning)?, shape.finishing))
    }

    fn assemble(
        definition: &MeterDefinition,
        event_type: &EventType,
        shape: &shape::Shape,
        per_window: &Halves,
        in_total: &Halves,
    ) -> Result<Self, DataFusionError> {
        check_alike(shape, per_window, in_total)?;
        let states = per_window.state_schema();
        let finish = per_window.finish()?;
        let counts = per_window.state_counts()?;
        let layout = Layout::new(shape, &states, &counts, finish.schema());
        let fingerprint = fingerprint::of(
            definition,
            event_type,
            &per_window.input,
            &layout.fingerprinted,
        )?;
        let input = Arc::clone(&per_window.input);
        let stages = (per_window.partial()?, per_window.keys()?);
        Ok(Self {
            definition: definition.clone(),
            input: Arc::clone(&input),
            versions: vec![Version::new(definition, fingerprint, input, stages)],
            reduce: per_window.reduce()?,
            finish,
            totals: in_total.finish()?,
            reduce_totals: in_total.reduce()?,
            states: states_of(1 + shape.keys.len(), per_window)?,
            layout,
        })
    }

    /// What the meter was planned from: its newest version.
    pub fn definition(&self) -> &MeterDefinition {
        &self.definition
    }

    /// The columns that [`Meter::partial`] reads, a subset of [`schema::event_relation`] in its
    /// order; `event_time` is always among them.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The names of [`Meter::input_schema`].
    pub fn input_columns(&self) -> impl Iterator<Item = &str> {
        self.input
            .fields()
            .iter()
            .map(|field| field.name().as_str())
    }

    /// Columns of a state batch: `window_start`, group keys, states.
    pub fn state_schema(&self) -> &SchemaRef {
        &self.layout.state
    }

    /// Columns of [`Meter::finish`]: `window_start`, `window_end`, `subject`, dimensions, measures,
    /// then the state columns that the measures alone do not restore (`<measure>__state<n>`), then `error`: why a
    /// row has no values. A subject that is in error as a whole has one row a window, without dimensions.
    pub fn pane_schema(&self) -> &SchemaRef {
        &self.layout.pane
    }

    /// The schema of the meter's table: [`panes_schema`] of what [`Meter::finish`] returns.
    pub fn table_schema(&self) -> SchemaRef {
        panes_schema(self.pane_schema())
    }

    /// Columns of [`Meter::totals`]: `subject`, dimensions, measures.
    pub fn totals_schema(&self) -> &SchemaRef {
        &self.layout.totals
    }

    /// The group keys besides `window_start` and `subject`, with their types.
    pub fn dimensions(&self) -> &[FieldRef] {
        &self.layout.totals.fields()[1..self.layout.key_count]
    }

    /// The measures, with their types.
    pub fn measures(&self) -> &[FieldRef] {
        &self.layout.totals.fields()[self.layout.key_count..]
    }

    /// The same query as plain batch SQL over all events, with `window_start` as its first column, then
    /// keys and measures: what an audit compares with. Each version sees the events of its own windows. Rows
    /// are in no particular order.
    ///
    /// # Errors
    /// None for a meter that was planned.
    pub fn batch_query(&self) -> Result<String> {
        batch::query(&self.definition, &self.layout.totals)
    }

    /// What the meter reads, keeps and does, for a person; not a stable format.
    pub fn describe(&self) -> String {
        let names = |schema: &SchemaRef| {
            let fields = schema.fields().iter();
            let columns = fields.map(|f| format!("{} {}", f.name(), f.data_type()));
            columns.collect::<Vec<_>>().join(", ")
        };
        format!(
            "meter {}\n  window: {}\n  reads: {}\n  state: {}\n  panes: {}\n{}",
            self.definition.name,
            window_text(self.definition.window_us),
            names(&self.input),
            names(&self.layout.state),
            names(&self.layout.pane),
            indented(&self.newest().partial.describe()),
        )
    }

    fn newest(&self) -> &Version {
        let newest = self.versions.last();
        newest.expect("a meter is planned with its own version")
    }

    /// The states of one batch of events: filtered, projected and aggregated by window and keys.
    ///
    /// The batch has the columns of [`Meter::input_schema`], by name and type; others are ignored.
    ///
    /// # Errors
    /// [`Error::Measure`] when memory runs short; [`Error::Engine`] for a batch without the columns. What an event
    /// makes fail puts its group in error.
    pub async fn partial(&self, events: RecordBatch) -> Result<RecordBatch> {
        let events = self.select_input(&events).map_err(reading_events)?;
        let mut states = Vec::new();
        for (version, events) in self.by_version(&events).map_err(reading_events)? {
            states.push(self.partial_by(version, events).await?);
        }
        match states.len() {
            1 => Ok(states.swap_remove(0)),
            _ => {
                let states = concat_batches(&self.layout.state, &states);
                states.map_err(|error| merging(error.into()))
            }
        }
    }

    async fn partial_by(&self, version: &Version, events: RecordBatch) -> Result<RecordBatch> {
        match version.partial.run(vec![events.clone()]).await {
            Ok(states) => {
                let states = with_schema(&states, &self.layout.state).map_err(merging)?;
                self.fragments(states).await
            }
            Err(_) => {
                let states = self.partial_apart(version, &events).await?;
                self.fragments(states).await
            }
        }
    }

    /// Merges states into one batch, with one row for each window and keys, in no particular order.
    ///
    /// # Errors
    /// [`Error::Measure`] with the first window that fails.
    pub async fn reduce(&self, states: &[RecordBatch]) -> Result<RecordBatch> {
        let states = &self
            .joined(states, Joined::InBaseWindows)
            .map_err(merging)?;
        self.reduce_joined(states).await
    }

    /// Merges states into one batch as they come, without their windows: that takes memory by groups and not by windows, and
    /// [`Meter::totals_over`] makes the same totals of it. Not for a meter that [weighs usage by time](Meter::is_timed), nor for
    /// sessions, which are what they are by their time.
    ///
    /// # Errors
    /// What the states come from fails, or a merge does; it is not told in which window.
    pub async fn reduce_without_windows(
        &self,
        states: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
    ) -> Result<RecordBatch> {
        let states = states.map(|states| without_first_column(&states?));
        let reduced = self.reduce_totals.run_stream(states).await;
        let reduced = reduced.and_then(|reduced| {
            let start = TimestampMicrosecondArray::from_value(0, reduced.num_rows());
            let mut columns = reduced.columns().to_vec();
            columns.insert(0, Arc::new(start.with_data_type(schema::timestamp())));
            Ok(RecordBatch::try_new(
                Arc::clone(&self.layout.state),
                columns,
            )?)
        });
        reduced.map_err(|source| self.measure_error("any".to_owned(), source))
    }

    async fn reduce_joined(&self, states: &[RecordBatch]) -> Result<RecordBatch> {
        match self.reduce.run(states.to_vec()).await {
            Ok(reduced) => with_schema(&reduced, &self.layout.state).map_err(merging),
            Err(error) => Err(self.blame_states(&self.reduce, states, error).await),
        }
    }

    /// The panes of these states: one row for each base window and keys, sorted by window, then keys,
    /// NULL first. Of a session, what is in one base window is a row.
    ///
    /// # Errors
    /// [`Error::Measure`] with the first window that fails.
    pub async fn finish(&self, states: &[RecordBatch]) -> Result<RecordBatch> {
        let states = &self
            .joined(states, Joined::InBaseWindows)
            .map_err(merging)?;
        let spread = match self.has_sessions() {
            true => Spread::No,
            false => Spread::SameStart,
        };
        self.finish_joined(states, spread).await
    }

    async fn finish_joined(&self, states: &[RecordBatch], spread: Spread) -> Result<RecordBatch> {
        let key_count = 1 + self.layout.key_count;
        if self.layout.is_restored_by_measures()
            && let Some(finished) = self.finish_whole(&self.finish, states.to_vec()).await?
        {
            let finished = sorted(&finished, key_count).map_err(merging)?;
            return self.pane(&finished, None, spread).map_err(merging);
        }
        let reduced = self.reduce_joined(states).await?;
        let reduced = sorted(&reduced, key_count).map_err(merging)?;
        let finished = self.finish_each(&self.finish, &reduced, 0).await?;
        let finished = sorted(&finished, key_count).map_err(merging)?;
        self.pane(&finished, Some(&reduced), spread)
            .map_err(merging)
    }

    /// The states from which stored panes were finished, to be merged with others. Columns that a
    /// table adds to [`Meter::pane_schema`] are ignored.
    ///
    /// # Errors
    /// [`Error::Engine`] when a column is missing or has another type: the panes are not this
    /// meter's.
    pub fn states_of(&self, panes: &RecordBatch) -> Result<RecordBatch> {
        self.restored(panes).map_err(|source| Error::Engine {
            doing: "restoring a meter's states from its stored panes",
            source: Box::new(source),
        })
    }

    /// Merges states over all their windows: one row for each `subject` and dimensions, sorted by
    /// them, NULL first: the columns of [`Meter::totals_schema`], then `error`, which says why a row has no values.
    /// A subject that is in error as a whole has one row, without dimensions.
    ///
    /// # Errors
    /// [`Error::Measure`] when memory runs short. [`Error::Engine`] for a meter that [weighs usage by time](Meter::is_timed), whose totals are those of a span.
    pub async fn totals(&self, states: &[RecordBatch]) -> Result<RecordBatch> {
        if self.is_timed() {
            return Err(merging(exec_datafusion_err!(
                "meter `{}` weighs usage by time: its totals are over a span",
                self.definition.name
            )));
        }
        self.merge_windows(states).await
    }

    /// States without their windows: what they merge into takes memory by groups and not by windows, and
    /// [`Meter::totals_over`] makes the same totals of it. Not for a meter that [weighs usage by time](Meter::is_timed), nor for
    /// sessions, which are what they are by their time.
    ///
    /// # Errors
    /// [`Error::Engine`] for states that are not this meter's.
    pub fn without_windows(&self, states: &RecordBatch) -> Result<RecordBatch> {
        in_one_window(states).map_err(merging)
    }

    async fn merge_windows(&self, states: &[RecordBatch]) -> Result<RecordBatch> {
        let without_window = states.iter().map(without_first_column);
        let without_window: Vec<RecordBatch> = without_window
            .collect::<Result<_, DataFusionError>>()
            .map_err(merging)?;
        let totals = match self.finish_whole(&self.totals, without_window).await? {
            Some(totals) => totals,
            None => {
                // One window for all, so that they merge.
                let states = states.iter().map(in_one_window);
                let states: Vec<RecordBatch> = states
                    .collect::<Result<_, DataFusionError>>()
                    .map_err(merging)?;
                let reduced = self.reduce_joined(&states).await?;
                self.finish_each(&self.totals, &reduced, 1).await?
            }
        };
        self.totals_of(&totals).map_err(merging)
    }

    fn totals_of(&self, finished: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let totals = sorted(finished, self.layout.key_count)?;
        let own = self.layout.totals.fields();
        let mut fields: Vec<FieldRef> = own.iter().cloned().collect();
        fields.push(Arc::new(Field::new(ERROR, DataType::Utf8, true)));
        let columns = totals.columns()[..=own.len()].to_vec();
        let totals = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        self.settled(totals, Spread::SameStart, self.layout.key_count)
    }

    fn select_input(&self, events: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        if events.schema_ref() == &self.input {
            return Ok(events.clone());
        }
        columns_of(events, &self.input)
    }

    /// Adds `window_end`, the kept states and `error` to finished rows. `reduced` has the states, sorted by the same
    /// keys, each once; without it none is kept but wide sums, and none is wide.
    fn pane(
        &self,
        finished: &RecordBatch,
        reduced: Option<&RecordBatch>,
        spread: Spread,
    ) -> Result<RecordBatch, DataFusionError> {
        let keys = 1 + self.layout.key_count;
        if reduced.is_some_and(|reduced| finished.columns()[..keys] != reduced.columns()[..keys]) {
            return internal_err!("finished rows are not those of the states");
        }
        let starts = finished
            .column(0)
            .as_primitive::<TimestampMicrosecondType>();
        let own = &finished.columns()[1..=self.layout.totals.fields().len()];
        let ends = match self.definition.frame {
            Frame::Session { .. } => Arc::clone(finished.column(own.len() + 2)),
            Frame::Tumbling | Frame::Hopping { .. } => Arc::new(self.window_ends(starts)?),
        };
        let mut columns = vec![Arc::clone(finished.column(0)), ends];
        columns.extend(own.iter().cloned());
        columns.extend(self.layout.kept.iter().map(|index| match reduced {
            Some(reduced) => Arc::clone(reduced.column(*index)),
            None => {
                let data_type = self.layout.state.field(*index).data_type();
                new_null_array(data_type, finished.num_rows())
            }
        }));
        columns.push(Arc::clone(finished.column(own.len() + 1)));
        let pane = RecordBatch::try_new(Arc::clone(&self.layout.pane), columns)?;
        self.settled(pane, spread, 1 + keys)
    }

    fn window_ends(
        &self,
        starts: &TimestampMicrosecondArray,
    ) -> Result<TimestampMicrosecondArray, DataFusionError> {
        let end = |start: i64| {
            start
                .checked_add(self.definition.window_us)
                .ok_or_else(|| exec_datafusion_err!("the window at {start} µs has no end"))
        };
        let ends: TimestampMicrosecondArray = starts.try_unary(end)?;
        Ok(ends.with_data_type(schema::timestamp()))
    }
}

/// Where the states of each aggregate are, after the first columns of a state batch.
fn states_of(first: usize, halves: &Halves) -> Result<Vec<StateOf>, DataFusionError> {
    let mut from = first;
    let counts = halves.state_counts()?.into_iter();
    let states = counts.zip(halves.aggregate_names()).map(|(count, name)| {
        let columns = from..from + count;
        from = columns.end;
        StateOf {
            columns,
            timed: aggregates::timed(name),
            is_fault: name == aggregates::fault::NAME,
        }
    });
    Ok(states.collect())
}

/// The states as if all were of one window.
fn in_one_window(states: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
    let start = TimestampMicrosecondArray::from_value(0, states.num_rows());
    let mut columns = states.columns().to_vec();
    columns[0] = Arc::new(start.with_data_type(schema::timestamp()));
    Ok(RecordBatch::try_new(states.schema(), columns)?)
}

/// The length of a window in its largest unit: it divides a day, in whole minutes.
fn window_text(window_us: i64) -> String {
    let minutes = window_us / 60_000_000;
    let (count, unit) = match (minutes % 1_440, minutes % 60) {
        (0, _) => (minutes / 1_440, "day"),
        (_, 0) => (minutes / 60, "hour"),
        _ => (minutes, "minute"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn reading_events(source: DataFusionError) -> Error {
    Error::Engine {
        doing: "reading a batch of events for a meter",
        source: Box::new(source),
    }
}

fn merging(source: DataFusionError) -> Error {
    Error::Engine {
        doing: "putting a meter's columns together",
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests;
