//! Meters that are measured together: one aggregation for those that group the events of one type alike.
//!
//! Each event's group is found once for all of them, and the keys of a group are kept once. A row of a bundle's states
//! has the states of all its meters; where their filters differ, a count says in which of them the group is. States of
//! one meter are columns of those of the bundle, so a bundle changes no value: it is a matter of cost alone.
//!
//! A bundle knows no faults. Where an expression fails on an event, each meter measures the batch by itself.

use super::{
    Meter,
    columns::{columns_of, sorted, with_schema},
    merging,
    pipeline::Stage,
    reading_events,
};
use crate::{
    aggregates::fault,
    definitions::Frame,
    error::{Error, Result},
};
use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::{Field, FieldRef, Int64Type, Schema, SchemaRef, TimestampMicrosecondType},
};
use datafusion::{
    error::DataFusionError,
    functions_aggregate::count::count_udaf,
    logical_expr::AggregateUDF,
    physical_expr::{
        PhysicalExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
        expressions::{CaseExpr, Column, Literal, lit},
        utils::reassign_expr_columns,
    },
    physical_plan::{ExecutionPlan, filter::FilterExec, projection::ProjectionExec},
};
use std::{ops::Range, sync::Arc};

type PlanResult<T> = std::result::Result<T, DataFusionError>;
type Expression = Arc<dyn PhysicalExpr>;

/// Which meters are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alike {
    /// Those that group the same events or others by the same keys and windows.
    ByGroups,
    /// Those of them with the same filter.
    ByGroupsAndFilter,
}

/// Some meters, planned to be measured together. Every method may run at the same time as any other.
#[derive(Debug)]
pub struct Bundle {
    /// Places among the meters that were given.
    meters: Vec<usize>,
    members: Vec<Member>,
    input: SchemaRef,
    state: SchemaRef,
    /// The window among them.
    key_count: usize,
    partial: Stage,
    reduce: Stage,
}

/// Where the states of a meter are among those of its bundle.
#[derive(Debug)]
struct Member {
    /// A column of the bundle's states for each of its own; `None` for the fault that no state of a bundle has.
    columns: Vec<Option<usize>>,
    /// The column that counts the group's events that pass the meter's filter; `None` when the group is in the meter.
    count: Option<usize>,
    state: SchemaRef,
}

/// A planned meter, taken apart.
struct Parts {
    event_type: String,
    keys: Vec<Expression>,
    filter: Option<Expression>,
    /// Without the last, which is that of faults.
    aggregates: Vec<Measured>,
    input: SchemaRef,
    state: SchemaRef,
    plan: Stage,
}

/// An aggregate over columns of events, and which events it takes.
#[derive(Clone)]
struct Measured {
    aggregate: Arc<AggregateFunctionExpr>,
    filter: Option<Expression>,
    states: usize,
}

impl Bundle {
    /// The bundles of these meters. A meter that is like no other, that has sessions or hops, or that has versions is in
    /// none.
    ///
    /// # Errors
    /// [`Error::Engine`] when a plan cannot be made of planned meters.
    pub fn of(meters: &[(usize, &Meter)], alike: Alike) -> Result<Vec<Self>> {
        let planning = |source| Error::Engine {
            doing: "planning meters together",
            source: Box::new(source),
        };
        let mut groups: Vec<Vec<(usize, Parts)>> = Vec::new();
        for (place, meter) in meters {
            let Some(parts) = Parts::of(meter).map_err(planning)? else {
                continue;
            };
            let is_like = |group: &&mut Vec<(usize, Parts)>| parts.is_like(&group[0].1, alike);
            match groups.iter_mut().find(is_like) {
                Some(group) => group.push((*place, parts)),
                None => groups.push(vec![(*place, parts)]),
            }
        }
        let together = groups.into_iter().filter(|group| group.len() > 1);
        let bundles = together.map(|group| Self::plan(group).map_err(planning));
        bundles.collect()
    }

    fn plan(group: Vec<(usize, Parts)>) -> PlanResult<Self> {
        let (meters, parts): (Vec<usize>, Vec<Parts>) = group.into_iter().unzip();
        let input = Arc::new(union(parts.iter()));
        let first = &parts[0];
        let keys = first.keys.iter().enumerate();
        let keys = keys.map(|(at, key)| Ok((on(key, &input)?, format!("key_{at}"))));
        let keys: Vec<(Expression, String)> = keys.collect::<PlanResult<_>>()?;
        let filters = parts.iter().map(|part| part.filter.as_ref());
        let filters = filters.map(|filter| filter.map(|filter| on(filter, &input)).transpose());
        let filters = filters.collect::<PlanResult<Vec<_>>>()?;
        let same_filter = filters.iter().all(|other| *other == filters[0]);
        let mut aggregates = Aggregates::new(Arc::clone(&input));
        let mut members = Vec::with_capacity(parts.len());
        for (part, filter) in parts.iter().zip(&filters) {
            let filter = filter.as_ref().filter(|_| !same_filter);
            members.push(aggregates.add(part, first, keys.len(), filter)?);
        }
        let filter = filters[0].clone().filter(|_| same_filter);
        let aggregates = aggregates.known.into_iter();
        let aggregates = aggregates.map(|known| (known.aggregate, known.filter));
        let aggregates = aggregates.collect();
        let (partial, reduce) = first.plan.aggregates(&input, filter, keys, aggregates)?;
        let named = partial.schema().fields().iter().enumerate();
        let named = named.map(|(at, field)| {
            let name = match at {
                0 => "window_start".to_owned(),
                _ => format!("column_{at}"),
            };
            Field::new(name, field.data_type().clone(), field.is_nullable())
        });
        let state = Arc::new(Schema::new(named.collect::<Vec<Field>>()));
        Ok(Self {
            meters,
            members,
            input,
            state,
            key_count: first.keys.len(),
            partial,
            reduce,
        })
    }

    /// The places of its meters; a member's number is its place here.
    pub fn meters(&self) -> &[usize] {
        &self.meters
    }

    /// The columns that [`Bundle::partial`] reads.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The states of one batch of events, for all its meters; `None` when that fails, on whatever event of whichever
    /// meter: [`Meter::partial`] tells.
    ///
    /// # Errors
    /// [`Error::Engine`] for a batch without the columns.
    pub async fn partial(&self, events: &RecordBatch) -> Result<Option<RecordBatch>> {
        let events = columns_of(events, &self.input).map_err(reading_events)?;
        match self.partial.run(vec![events]).await {
            Ok(states) => with_schema(&states, &self.state).map(Some).map_err(merging),
            Err(_) => Ok(None),
        }
    }

    /// Merges states into one batch, with one row for each window and keys; `None` when that fails: [`Meter::reduce`] of
    /// each meter's own tells why.
    pub async fn reduce(&self, states: &[RecordBatch]) -> Option<RecordBatch> {
        let reduced = self.reduce.run(states.to_vec()).await.ok()?;
        with_schema(&reduced, &self.state).ok()
    }

    /// The same, sorted by window and keys: then each meter's own stages neither merge nor sort again.
    pub async fn reduce_sorted(&self, states: &[RecordBatch]) -> Option<RecordBatch> {
        let reduced = self.reduce(states).await?;
        sorted(&reduced, self.key_count).ok()
    }

    /// The states of one of its meters that start in `[from, until)`, in microseconds, as [`Meter::partial`] makes them.
    ///
    /// # Errors
    /// [`Error::Engine`] for states of another bundle.
    pub fn states_of(
        &self,
        member: usize,
        states: &RecordBatch,
        within: &Range<i64>,
    ) -> Result<RecordBatch> {
        let rows = self.rows_of(member, states, within);
        let member = &self.members[member];
        let fields = member.state.fields().iter().zip(&member.columns);
        let columns = fields.map(|(field, column)| match column {
            Some(column) => Arc::clone(states.column(*column)),
            None => new_null_array(field.data_type(), states.num_rows()),
        });
        let own = RecordBatch::try_new(
            Arc::clone(&member.state),
            columns.collect::<Vec<ArrayRef>>(),
        );
        let own = own.and_then(|own| match rows {
            None => Ok(own),
            Some(rows) => filter_record_batch(&own, &BooleanArray::from(rows)),
        });
        own.map_err(|error| merging(error.into()))
    }

    /// When the windows start in which one of its meters has groups, in no particular order, some of them many times.
    pub fn starts_of<'a>(
        &'a self,
        member: usize,
        states: &'a RecordBatch,
    ) -> impl Iterator<Item = i64> + 'a {
        let starts = starts(states);
        let count = self.count_of(member, states);
        let is_in = move |row: &usize| count.is_none_or(|count| count[*row] > 0);
        (0..states.num_rows()).filter(is_in).map(|row| starts[row])
    }

    /// Whether most states are of groups that are not in a meter: then each meter by itself takes less.
    pub fn is_sparse(&self, states: &RecordBatch) -> bool {
        let groups = states.num_rows();
        let in_member = |member: usize| match self.count_of(member, states) {
            None => groups,
            Some(count) => count.iter().filter(|count| **count > 0).count(),
        };
        let all: usize = (0..self.members.len()).map(in_member).sum();
        4 * all < groups * self.members.len()
    }

    /// The rows of one of its meters; `None` for all.
    fn rows_of(
        &self,
        member: usize,
        states: &RecordBatch,
        within: &Range<i64>,
    ) -> Option<BooleanBuffer> {
        let starts = starts(states);
        let count = self.count_of(member, states);
        let is_in =
            |row: usize| within.contains(&starts[row]) && count.is_none_or(|count| count[row] > 0);
        let rows = BooleanBuffer::collect_bool(starts.len(), is_in);
        (rows.count_set_bits() < starts.len()).then_some(rows)
    }

    fn count_of<'a>(&self, member: usize, states: &'a RecordBatch) -> Option<&'a [i64]> {
        let column = self.members[member].count?;
        Some(states.column(column).as_primitive::<Int64Type>().values())
    }
}

fn starts(states: &RecordBatch) -> &[i64] {
    let starts = states.column(0);
    starts.as_primitive::<TimestampMicrosecondType>().values()
}

impl Parts {
    /// `None` for a meter that is measured by itself.
    fn of(meter: &Meter) -> PlanResult<Option<Self>> {
        let [version] = meter.versions() else {
            return Ok(None);
        };
        if version.from_us != i64::MIN || meter.definition.frame != Frame::Tumbling {
            return Ok(None);
        }
        let Some((aggregate, below)) = version.partial.apart() else {
            return Ok(None);
        };
        let mut filter = None;
        for node in below {
            let predicate = node.downcast_ref::<FilterExec>().map(FilterExec::predicate);
            match predicate {
                Some(predicate) if filter.is_none() => filter = Some(Arc::clone(predicate)),
                None if leaves_columns_out(node) => {}
                Some(_) | None => return Ok(None),
            }
        }
        let mut aggregates = Vec::new();
        for (expr, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
            if expr.is_distinct() || expr.ignore_nulls() || !expr.order_bys().is_empty() {
                return Ok(None);
            }
            aggregates.push(Measured {
                aggregate: Arc::clone(expr),
                filter: filter.clone(),
                states: expr.state_fields()?.len(),
            });
        }
        match aggregates.pop() {
            Some(last) if last.aggregate.fun().name() == fault::NAME => {}
            Some(_) | None => return Ok(None),
        }
        Ok(Some(Self {
            event_type: meter.definition.event_type.clone(),
            keys: aggregate.group_expr().input_exprs(),
            filter,
            aggregates,
            input: Arc::clone(&version.input),
            state: Arc::clone(&meter.layout.state),
            plan: version.partial.clone(),
        }))
    }

    fn is_like(&self, other: &Self, alike: Alike) -> bool {
        // Places of columns differ with what else a meter reads; their names do not.
        let all = union([self, other]);
        let same = |a: &Expression, b: &Expression| match (on(a, &all), on(b, &all)) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        let has = |key: &Expression| self.keys.iter().any(|own| same(own, key));
        let same_filter = || match (&self.filter, &other.filter) {
            (None, None) => true,
            (Some(a), Some(b)) => same(a, b),
            _ => false,
        };
        self.event_type == other.event_type
            && self.keys.len() == other.keys.len()
            && other.keys.iter().all(has)
            && (alike == Alike::ByGroups || same_filter())
    }
}

/// Whether a node does nothing but leave columns out.
fn leaves_columns_out(node: &Arc<dyn ExecutionPlan>) -> bool {
    let Some(projection) = node.downcast_ref::<ProjectionExec>() else {
        return false;
    };
    let mut columns = projection.expr().iter();
    columns.all(|column| {
        let own = column.expr.downcast_ref::<Column>();
        own.is_some_and(|own| own.name() == column.alias)
    })
}

/// The columns that any of these meters reads.
fn union<'a>(parts: impl IntoIterator<Item = &'a Parts>) -> Schema {
    let mut fields: Vec<FieldRef> = Vec::new();
    for field in parts.into_iter().flat_map(|part| part.input.fields()) {
        if fields.iter().all(|known| known.name() != field.name()) {
            fields.push(Arc::clone(field));
        }
    }
    Schema::new(fields)
}

/// An expression over the same columns of another schema.
fn on(expr: &Expression, input: &Schema) -> PlanResult<Expression> {
    reassign_expr_columns(Arc::clone(expr), input)
}

/// The aggregates of a bundle, each once.
struct Aggregates {
    input: SchemaRef,
    known: Vec<Measured>,
}

impl Aggregates {
    fn new(input: SchemaRef) -> Self {
        Self {
            input,
            known: Vec::new(),
        }
    }

    /// Adds what a meter measures of the events that pass its filter; says where its states are.
    fn add(
        &mut self,
        part: &Parts,
        first: &Parts,
        key_count: usize,
        filter: Option<&Expression>,
    ) -> PlanResult<Member> {
        let mut columns = Vec::new();
        for key in &part.keys {
            let key = on(key, &self.input)?;
            let mut keys = first.keys.iter();
            let is_key = |other| on(other, &self.input).is_ok_and(|other| other.eq(&key));
            columns.push(keys.position(is_key));
        }
        let mut count = None;
        for measured in &part.aggregates {
            let of_all = measured.filter.is_none() && is_count_of_all(&measured.aggregate);
            let measured = self.passing(measured, filter)?;
            let from = key_count + self.place(measured.clone());
            columns.extend((from..from + measured.states).map(Some));
            if of_all && filter.is_some() {
                count = Some(from);
            }
        }
        if let (Some(filter), None) = (filter, count) {
            let all = self.build(count_udaf(), vec![lit(1_i64)])?;
            let all = Measured {
                states: all.state_fields()?.len(),
                aggregate: Arc::new(all),
                filter: Some(Arc::clone(filter)),
            };
            count = Some(key_count + self.place(all));
        }
        columns.push(None);
        Ok(Member {
            columns,
            count,
            state: Arc::clone(&part.state),
        })
    }

    /// An aggregate of the events that pass the meter's filter. Its arguments are not evaluated on others, where they
    /// could fail.
    fn passing(&self, measured: &Measured, filter: Option<&Expression>) -> PlanResult<Measured> {
        let guarded = |expr: &Expression| {
            let expr = on(expr, &self.input)?;
            match filter {
                Some(filter) if !expr.is::<Column>() && !expr.is::<Literal>() => {
                    let when = vec![(Arc::clone(filter), expr)];
                    Ok(Arc::new(CaseExpr::try_new(None, when, None)?) as Expression)
                }
                Some(_) | None => Ok(expr),
            }
        };
        let expressions = measured.aggregate.expressions();
        let arguments = expressions.iter().map(guarded);
        let arguments = arguments.collect::<PlanResult<Vec<_>>>()?;
        let aggregate = self.build(Arc::new(measured.aggregate.fun().clone()), arguments)?;
        let filter = match &measured.filter {
            Some(own) => Some(guarded(own)?),
            None => filter.cloned(),
        };
        Ok(Measured {
            aggregate: Arc::new(aggregate),
            filter,
            states: measured.states,
        })
    }

    fn build(
        &self,
        function: Arc<AggregateUDF>,
        arguments: Vec<Expression>,
    ) -> PlanResult<AggregateFunctionExpr> {
        AggregateExprBuilder::new(function, arguments)
            .schema(Arc::clone(&self.input))
            .alias("measured")
            .build()
    }

    /// The first state column of an aggregate, after the keys; of one that is known, the same.
    fn place(&mut self, measured: Measured) -> usize {
        let mut from = 0;
        for known in &self.known {
            if known.aggregate == measured.aggregate && known.filter == measured.filter {
                return from;
            }
            from += known.states;
        }
        self.known.push(measured);
        from
    }
}

/// Whether an aggregate counts all events of a group.
fn is_count_of_all(aggregate: &AggregateFunctionExpr) -> bool {
    let arguments = aggregate.expressions();
    let is_known = |argument: &Expression| {
        let literal = argument.downcast_ref::<Literal>();
        literal.is_some_and(|literal| !literal.value().is_null())
    };
    aggregate.fun().name() == "count" && !aggregate.is_distinct() && arguments.iter().all(is_known)
}
