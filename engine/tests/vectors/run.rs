//! From definitions and events to a session over what was metered: the whole path, in memory.

use crate::case::{Failure, Outcome};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray},
    compute::{concat_batches, filter_record_batch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType},
};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{ExprSchemable, utils::merge_schema},
    prelude::SessionContext,
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;
use std::{iter::once, ops::Range, path::Path, sync::Arc};
use tokio::sync::watch;
use tollgate::{
    clock::ManualClock,
    dedupe,
    shard::{self, Options, Parts, Questions},
    telemetry::Progress,
};
use tollgate_connectors::{
    Message, Sequence,
    event::{DecodeOptions, Decoder},
    memory::{MemoryStream, MemoryTable},
};
use tollgate_sql::{
    definitions::{Definitions, SourceFile},
    meter::{Meter, Span},
    money::Exact,
    schema, session,
};

/// Who used what a case says.
const SUBJECT: &str = "customer";

/// The one event type of a case.
pub(crate) const EVENT_TYPE: &str = "reading";

/// One event as a publisher sends it.
#[derive(Debug)]
pub(crate) struct Event {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `time`.
    pub time: Timestamp,
    /// When the stream stored it; at its time or with the event before it if nothing says so.
    pub received: Option<Timestamp>,
    /// Fields of `data` as JSON text; `None` is left out.
    pub data: Vec<(String, Option<String>)>,
}

impl Event {
    fn payload(&self) -> String {
        let present = |(name, text): &(String, Option<String>)| {
            text.as_ref().map(|text| format!("{}:{text}", json(name)))
        };
        let data: Vec<String> = self.data.iter().filter_map(present).collect();
        format!(
            r#"{{"specversion":"1.0","id":{},"source":{},"type":"{EVENT_TYPE}","subject":"{SUBJECT}","time":"{}","data":{{{}}}}}"#,
            json(&self.id),
            json(&self.source),
            self.time,
            data.join(",")
        )
    }
}

/// A text as JSON.
pub(crate) fn json(text: &str) -> String {
    Value::from(text).to_string()
}

/// All time.
pub(crate) fn always() -> Span {
    Span::new(i64::MIN, i64::MAX, TimeZone::UTC)
}

/// What a shard made of the events: their table, and the panes of the one meter, `usage`.
#[derive(Debug)]
pub(crate) struct Metered {
    /// What was measured, and what it costs.
    pub definitions: Definitions,
    meter: Arc<Meter>,
    events: Vec<RecordBatch>,
    panes: Vec<RecordBatch>,
}

/// Runs events through a shard until every window is closed.
///
/// Definitions have one event type, [`EVENT_TYPE`], and one meter, `usage`.
pub(crate) async fn run(sql: &str, events: &[Event]) -> Outcome<Metered> {
    let file = SourceFile {
        name: "case.sql".into(),
        text: sql.into(),
    };
    let definitions =
        Definitions::parse(&[file]).map_err(|error| Failure::Error(format!("{error}\n{sql}")))?;
    let meter = &definitions.meters[0];
    let event_type = &definitions.event_types[0];
    let meter = Meter::plan(meter, event_type).await;
    let meter = Arc::new(meter.map_err(|error| Failure::Error(format!("{error}\n{sql}")))?);
    let schema = schema::usage_events(&definitions.event_types);
    let table = MemoryTable::new("events", Arc::clone(&schema));
    let panes = MemoryTable::new("usage", meter.table_schema());
    let parts = Parts {
        source: Box::new(stream(events).source("vectors")),
        decoder: Decoder::new(schema, "vectors", DecodeOptions::default())?,
        definitions: definitions.clone(),
        checks: Vec::new(),
        meters: vec![Arc::clone(&meter)],
        events: Box::new(table.clone()),
        tables: vec![Box::new(panes.clone())],
        // By 2100 every window is due.
        clock: Arc::new(ManualClock::at(4_102_444_800_000_000)),
    };
    let (_stop, stopped) = watch::channel(false);
    let progress = watch::Sender::new(Progress::default());
    let mut nobody = Questions::none();
    let ids = tempfile::tempdir()?;
    Box::pin(shard::run(
        parts,
        options(ids.path()),
        stopped,
        progress,
        &mut nobody,
    ))
    .await?;
    let events = table.rows();
    check_accepted(&events)?;
    Ok(Metered {
        definitions,
        meter,
        events,
        panes: panes.rows(),
    })
}

fn options(ids: &Path) -> Options {
    Options {
        batch_bytes: 1_000,
        flush_interval_us: i64::MAX,
        flush_bytes: 2_000,
        windows_bytes: usize::MAX,
        dedupe: dedupe::Options {
            horizon_us: i64::MAX,
            memory_bytes: 1_000_000,
            directory: ids.to_owned(),
        },
        until_end: true,
        start: None,
        replaces: Vec::new(),
    }
}

fn stream(events: &[Event]) -> MemoryStream {
    let stream = MemoryStream::default();
    let mut clock_us = i64::MIN;
    for (sequence, event) in (1..).zip(events) {
        let stored_us = event.received.map(Timestamp::as_microsecond);
        clock_us = stored_us.unwrap_or_else(|| clock_us.max(event.time.as_microsecond()));
        stream.append(Message {
            sequence: Sequence(sequence),
            ingest_time_us: clock_us,
            headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
            payload: event.payload().into(),
            unread: None,
        });
    }
    stream
}

/// An event that was set aside for what it says would be missing from the answer.
fn check_accepted(events: &[RecordBatch]) -> Outcome<()> {
    for batch in events {
        for row in 0..batch.num_rows() {
            let status = batch["status"].as_string::<i32>().value(row);
            if status == "rejected" || status == "unmatched" {
                let reason = batch["reason"].as_string::<i32>().value(row);
                return Err(Failure::Error(format!("an event is {status}: {reason}")));
            }
        }
    }
    Ok(())
}

impl Metered {
    /// A session over a span: `usage` has its totals, `usage_windows` its windows and `reading` its events, all with
    /// the paying `customer`.
    pub(crate) async fn session(&self, span: &Span) -> Outcome<SessionContext> {
        let states = self.states(span.from_us..span.until_us).await?;
        let context = session::context();
        let before = match self.meter.carries() {
            true => self.states(i64::MIN..span.from_us).await?,
            false => Vec::new(),
        };
        let totals = self.meter.totals_over(&states, &before, span).await?;
        context.register_batch("usage", with_customer(&totals)?)?;
        let windows = with_customer(&self.meter.finish(&states).await?)?;
        context.register_batch("usage_windows", windows)?;
        context.register_batch(EVENT_TYPE, self.priced_events(span)?)?;
        let subscribed = RecordBatch::try_from_iter([(
            "customer",
            Arc::new(StringArray::from(vec![SUBJECT])) as ArrayRef,
        )])?;
        context.register_batch("subscription", subscribed)?;
        Ok(context)
    }

    /// Panes of windows that lie in the time, and the state of its events in windows that do not.
    async fn states(&self, time: Range<i64>) -> Outcome<Vec<RecordBatch>> {
        let width_us = self.meter.definition().window_us;
        let is_inside =
            |start: i64| time.contains(&start) && time.contains(&(start + width_us - 1));
        let mut states = Vec::new();
        for pane in &self.panes {
            let starts = pane["window_start"].as_primitive::<TimestampMicrosecondType>();
            let inside: BooleanArray = starts
                .values()
                .iter()
                .map(|us| Some(is_inside(*us)))
                .collect();
            states.push(self.meter.states_of(&filter_record_batch(pane, &inside)?)?);
        }
        for events in &self.events {
            let times = events["event_time"].as_primitive::<TimestampMicrosecondType>();
            let statuses = events["status"].as_string::<i32>();
            let at_edge = |row: usize| {
                let us = times.value(row);
                let counted = matches!(statuses.value(row), "ok" | "late");
                counted && time.contains(&us) && !is_inside(us - us.rem_euclid(width_us))
            };
            let edge: BooleanArray = (0..events.num_rows())
                .map(|row| Some(at_edge(row)))
                .collect();
            let events = self.relation(&filter_record_batch(events, &edge)?)?;
            states.push(self.meter.partial(events).await?);
        }
        Ok(states)
    }

    /// The columns of `events` that the meter reads.
    fn relation(&self, events: &RecordBatch) -> Outcome<RecordBatch> {
        relation(events, self.meter.input_schema())
    }

    /// The counted events of a span.
    fn priced_events(&self, span: &Span) -> Outcome<RecordBatch> {
        let time = span.from_us..span.until_us;
        let schema = schema::event_relation(&self.definitions.event_types[0]);
        let mut parts = Vec::new();
        for events in &self.events {
            let times = events["event_time"].as_primitive::<TimestampMicrosecondType>();
            let statuses = events["status"].as_string::<i32>();
            let is_priced = |row| {
                let counted = matches!(statuses.value(row), "ok" | "late");
                counted && time.contains(&times.value(row))
            };
            let rows = 0..events.num_rows();
            let priced: BooleanArray = rows.map(|row| Some(is_priced(row))).collect();
            parts.push(relation(&filter_record_batch(events, &priced)?, &schema)?);
        }
        with_customer(&concat_batches(&schema, &parts)?)
    }
}

/// Columns of `events`, those of the event type included.
fn relation(events: &RecordBatch, schema: &SchemaRef) -> Outcome<RecordBatch> {
    let data = events[EVENT_TYPE].as_struct();
    let column = |field: &Arc<Field>| {
        let found = data.column_by_name(field.name());
        found
            .or_else(|| events.column_by_name(field.name()))
            .cloned()
    };
    let columns: Option<Vec<ArrayRef>> = schema.fields().iter().map(column).collect();
    let columns = columns.ok_or("`events` lacks a column")?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Every subject is its own customer.
fn with_customer(rows: &RecordBatch) -> Outcome<RecordBatch> {
    let schema = rows.schema();
    let subject = schema.field_with_name("subject")?.clone();
    let customer = Arc::new(subject.with_name("customer"));
    let fields: Vec<_> = once(customer)
        .chain(schema.fields().iter().cloned())
        .collect();
    let columns = once(Arc::clone(&rows["subject"])).chain(rows.columns().iter().cloned());
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.collect(),
    )?)
}

/// That no step of a price is a float: what is written, what is left of it when it is optimized, and what is executed.
pub(crate) async fn check_exact(context: &SessionContext, sql: &str) -> Outcome<()> {
    let state = context.state();
    let written = session::plan(&state, sql).await?;
    let optimized = state.optimize(&written)?;
    let physical = state
        .query_planner()
        .create_physical_plan(&optimized, &state)
        .await?;
    let mut floats = Vec::new();
    for plan in [&written, &optimized] {
        plan.apply_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            node.apply_expressions(|root| {
                root.apply(|expr| {
                    if expr
                        .get_type(&schema)
                        .is_ok_and(|found| holds_floats(&found))
                    {
                        floats.push(expr.to_string());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
    }
    let mut steps = vec![physical];
    while let Some(step) = steps.pop() {
        let schema = step.schema();
        let columns = schema
            .fields()
            .iter()
            .filter(|field| holds_floats(field.data_type()));
        floats.extend(columns.map(|field| format!("{} of {}", field.name(), step.name())));
        steps.extend(step.children().into_iter().cloned());
    }
    match floats.first() {
        None => Ok(()),
        Some(float) => Err(Failure::Error(format!("`{float}` is a float: {sql}"))),
    }
}

fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        DataType::List(element) => holds_floats(element.data_type()),
        other => other.is_floating(),
    }
}

/// The rows of a query, as decimal strings, times, texts and nulls.
pub(crate) async fn query(context: &SessionContext, sql: &str) -> Outcome<Vec<Vec<Value>>> {
    let frame = session::query(context, sql).await;
    let frame = frame.map_err(|error| Failure::Error(format!("{error}\n{sql}")))?;
    let mut rows = Vec::new();
    for batch in frame.collect().await? {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| cell(column, row));
            rows.push(cells.collect::<Outcome<_>>()?);
        }
    }
    Ok(rows)
}

fn cell(column: &ArrayRef, row: usize) -> Outcome<Value> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().value(row).into()),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            let us = column.as_primitive::<TimestampMicrosecondType>().value(row);
            Ok(Timestamp::from_microsecond(us)?.to_string().into())
        }
        _ => match Exact::from_array(column, row)? {
            Some(number) => Ok(number.to_string().into()),
            None => Ok(Value::Null),
        },
    }
}
