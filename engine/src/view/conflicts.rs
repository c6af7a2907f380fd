//! What conflicts say otherwise than the events that were counted: the relation `conflicts`.
//!
//! It is worked out when it is asked for, by one pass over `events` for all conflicts together. A shard that looked for the
//! counted event of each conflict would read `events` once for every mistake of a publisher.

use crate::{
    error::{Result, printable, query_error},
    metering::{is_counted, micros},
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Int32Type, Int64Type},
    error::ArrowError,
    util::display::array_value_to_string,
};
use datafusion::{
    catalog::TableProvider,
    common::JoinType,
    error::Result as Planned,
    logical_expr::ident,
    prelude::{DataFrame, Expr, SessionConfig, SessionContext, col, lit},
};
use futures::TryStreamExt;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::event::{Difference, Status, json_differences};
use tollgate_sql::{definitions::EventType, schema::conflicts::conflicts_schema};

const DOING: &str = "comparing conflicts";

/// Differences that are told of one conflict.
const DIFFERENCES_MAX: usize = 8;

/// Where an event is in the log: shard, sequence, ordinal.
type Place = (String, i64, i32);

/// A conflict, and the event that it is compared with.
struct Conflict {
    ingest_us: i64,
    source: Option<String>,
    event_id: Option<String>,
    counted: Option<Counted>,
}

struct Counted {
    place: Place,
    differences: Vec<Difference>,
}

/// The rows of `conflicts`, in order of shard, sequence and ordinal.
pub(super) async fn conflicts(
    events: Option<&Arc<dyn TableProvider>>,
    types: &[EventType],
) -> Result<RecordBatch> {
    let Some(events) = events else {
        return Ok(RecordBatch::new_empty(conflicts_schema()));
    };
    let pairs = pairs(events).map_err(query_error(DOING))?;
    let mut pairs = pairs.execute_stream().await.map_err(query_error(DOING))?;
    let mut found = BTreeMap::new();
    while let Some(batch) = pairs.try_next().await.map_err(query_error(DOING))? {
        note(&batch, types, &mut found).map_err(query_error(DOING))?;
    }
    rows(&found).map_err(query_error(DOING))
}

/// Columns of `events` that say nothing of what differs, or only that something does.
const NOT_COMPARED: [&str; 5] = [
    "reason",
    "raw",
    "content_hash",
    "content_version",
    "ingest_day",
];

/// Each conflict beside each counted event of its source and id: the columns of `events` twice.
fn pairs(events: &Arc<dyn TableProvider>) -> Planned<DataFrame> {
    // The first side is in memory while the other goes by, so it must stay the one with the conflicts.
    let config = SessionConfig::new().set_bool("datafusion.optimizer.join_reordering", false);
    let session = SessionContext::new_with_config(config);
    let is_conflict = col("status").eq(lit(Status::Conflict.as_str()));
    let schema = events.schema();
    let fields = schema.fields().iter().map(|field| field.name());
    let compared = fields.filter(|name| !NOT_COMPARED.contains(&name.as_str()));
    let compared: Vec<Expr> = compared.map(ident).collect();
    let some = |which: Expr| {
        let rows = session.read_table(Arc::clone(events))?.filter(which)?;
        rows.select(compared.clone())
    };
    let (conflicts, counted) = (some(is_conflict)?, some(is_counted())?);
    let (conflicts, counted) = (conflicts.alias("conflict")?, counted.alias("counted")?);
    let of_conflict = ["conflict.source", "conflict.event_id"];
    let of_counted = ["counted.source", "counted.event_id"];
    conflicts.join(counted, JoinType::Left, &of_conflict, &of_counted, None)
}

/// Notes the conflicts of a batch of pairs, each with the counted event that is nearest to it so far.
fn note(
    batch: &RecordBatch,
    types: &[EventType],
    found: &mut BTreeMap<Place, Conflict>,
) -> Result<(), ArrowError> {
    let width = batch.num_columns() / 2;
    let conflicts = batch.project(&(0..width).collect::<Vec<_>>())?;
    let counted = batch.project(&(width..2 * width).collect::<Vec<_>>())?;
    let text = |name: &str, row| {
        let column = conflicts[name].as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    for row in 0..batch.num_rows() {
        let at = place(&conflicts, row);
        let known = found.entry(at.clone()).or_insert_with(|| Conflict {
            ingest_us: micros(&conflicts, "ingest_time")[row],
            source: text("source", row),
            event_id: text("event_id", row),
            counted: None,
        });
        if counted["shard"].is_null(row) {
            continue;
        }
        let pair = Pair {
            conflicts: &conflicts,
            counted: &counted,
            row,
        };
        let place = place(&counted, row);
        let is_nearer = |other: &Counted| nearness(&at, &place) > nearness(&at, &other.place);
        if known.counted.as_ref().is_none_or(is_nearer) {
            known.counted = Some(Counted {
                place,
                differences: pair.differences(types)?,
            });
        }
    }
    Ok(())
}

fn place(events: &RecordBatch, row: usize) -> Place {
    let shard = events["shard"].as_string::<i32>().value(row).to_owned();
    let sequence = events["sequence"].as_primitive::<Int64Type>().value(row);
    (
        shard,
        sequence,
        events["ordinal"].as_primitive::<Int32Type>().value(row),
    )
}

/// How near a counted event is to a conflict: the last one before it in its shard is the nearest; an id of another shard
/// can only be one that was taken over.
fn nearness<'p>(conflict: &Place, counted: &'p Place) -> (bool, &'p Place) {
    (counted.0 == conflict.0 && counted < conflict, counted)
}

/// A conflict and a counted event, as rows of `events`.
struct Pair<'a> {
    conflicts: &'a RecordBatch,
    counted: &'a RecordBatch,
    row: usize,
}

impl Pair<'_> {
    /// What both say otherwise of what counts as their content: type, subject, time and `data`.
    fn differences(&self, types: &[EventType]) -> Result<Vec<Difference>, ArrowError> {
        let mut found = Vec::new();
        for attribute in ["type", "subject"] {
            found.extend(self.of_column(attribute, attribute)?);
        }
        if self.was_sent_with_time() {
            found.extend(self.of_column("event_time", "time")?);
        }
        if found
            .first()
            .is_some_and(|difference| difference.path == "type")
        {
            // What is in `data` was declared otherwise.
            return Ok(found);
        }
        for field in self.conflicts.schema().fields() {
            if matches!(field.data_type(), DataType::Struct(_)) {
                let of_name = types
                    .iter()
                    .find(|event_type| event_type.name == *field.name());
                self.of_values(field.name(), of_name, &mut found)?;
            }
        }
        found.extend(self.of_extra());
        found.truncate(DIFFERENCES_MAX);
        Ok(found)
    }

    /// An event without a time happened when it was stored. That says nothing, so it is no difference if neither had one.
    fn was_sent_with_time(&self) -> bool {
        let has_time = |events: &RecordBatch| {
            micros(events, "event_time")[self.row] != micros(events, "ingest_time")[self.row]
        };
        has_time(self.conflicts) || has_time(self.counted)
    }

    fn of_column(&self, column: &str, path: &str) -> Result<Option<Difference>, ArrowError> {
        let (first, second) = (&self.conflicts[column], &self.counted[column]);
        difference(path.to_owned(), first, second, self.row, Spelled::Bare)
    }

    /// The declared columns of one event type, if both are of it.
    fn of_values(
        &self,
        name: &str,
        event_type: Option<&EventType>,
        found: &mut Vec<Difference>,
    ) -> Result<(), ArrowError> {
        let (first, second) = (
            self.conflicts[name].as_struct(),
            self.counted[name].as_struct(),
        );
        if first.is_null(self.row) || second.is_null(self.row) {
            return Ok(());
        }
        for (child, values) in first.column_names().into_iter().zip(first.columns()) {
            let column = event_type.and_then(|event_type| {
                event_type
                    .columns
                    .iter()
                    .find(|column| column.name == child)
            });
            let path = column.map_or_else(|| format!("$.{child}"), |column| column.path_text());
            let other = child_of(second, child)?;
            found.extend(difference(path, values, other, self.row, Spelled::AsJson)?);
        }
        Ok(())
    }

    /// The fields of `data` that are not declared.
    fn of_extra(&self) -> Vec<Difference> {
        let text = |events: &RecordBatch| {
            let extra = events["extra"].as_string::<i32>();
            let is_there = extra.is_valid(self.row);
            if is_there {
                extra.value(self.row).to_owned()
            } else {
                "{}".to_owned()
            }
        };
        json_differences(&text(self.conflicts), &text(self.counted), DIFFERENCES_MAX)
    }
}

fn child_of<'a>(of: &'a StructArray, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError(format!("`events` has no column `{name}`"));
    of.column_by_name(name).ok_or_else(missing)
}

/// How a text is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelled {
    Bare,
    AsJson,
}

fn difference(
    path: String,
    first: &ArrayRef,
    second: &ArrayRef,
    row: usize,
    spelled: Spelled,
) -> Result<Option<Difference>, ArrowError> {
    if first.slice(row, 1) == second.slice(row, 1) {
        return Ok(None);
    }
    let shown = |values: &ArrayRef| -> Result<Option<String>, ArrowError> {
        if values.is_null(row) {
            return Ok(None);
        }
        let text = array_value_to_string(values, row)?;
        let is_text = matches!(values.data_type(), DataType::Utf8);
        Ok(Some(match spelled == Spelled::AsJson && is_text {
            true => shorten(&serde_json::Value::from(text).to_string()),
            false => shorten(&text),
        }))
    };
    let (first, second) = (shown(first)?, shown(second)?);
    Ok(Some(Difference {
        path,
        first,
        second,
    }))
}

/// At most forty characters.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A row for each difference; one for a conflict without any that is stored.
fn rows(found: &BTreeMap<Place, Conflict>) -> Result<RecordBatch, ArrowError> {
    let all = found.iter().flat_map(|(at, conflict)| {
        let differences = conflict
            .counted
            .iter()
            .flat_map(|counted| &counted.differences);
        let mut differences: Vec<Option<&Difference>> = differences.map(Some).collect();
        if differences.is_empty() {
            differences.push(None);
        }
        differences
            .into_iter()
            .map(move |difference| (at, conflict, difference))
    });
    let all: Vec<_> = all.collect();
    let text = |of: &dyn Fn(&Conflict) -> Option<String>| -> ArrayRef {
        Arc::new(
            all.iter()
                .map(|(_, conflict, _)| of(conflict))
                .collect::<StringArray>(),
        )
    };
    let told = |of: &dyn Fn(&Difference) -> Option<&str>| -> ArrayRef {
        let told = all
            .iter()
            .map(|(.., difference)| difference.and_then(of).map(printable));
        Arc::new(told.collect::<StringArray>())
    };
    let ingest_times: TimestampMicrosecondArray = all
        .iter()
        .map(|(_, conflict, _)| Some(conflict.ingest_us))
        .collect();
    let counted_sequences: Int64Array = all
        .iter()
        .map(|(_, conflict, _)| conflict.counted.as_ref().map(|counted| counted.place.1))
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            all.iter()
                .map(|(at, ..)| Some(at.0.as_str()))
                .collect::<StringArray>(),
        ),
        Arc::new(all.iter().map(|(at, ..)| at.1).collect::<Int64Array>()),
        Arc::new(all.iter().map(|(at, ..)| at.2).collect::<Int32Array>()),
        Arc::new(ingest_times.with_timezone("UTC")),
        text(&|conflict| conflict.source.clone()),
        text(&|conflict| conflict.event_id.clone()),
        told(&|difference| Some(&difference.path)),
        told(&|difference| difference.first.as_deref()),
        told(&|difference| difference.second.as_deref()),
        text(&|conflict| {
            conflict
                .counted
                .as_ref()
                .map(|counted| counted.place.0.clone())
        }),
        Arc::new(counted_sequences),
    ];
    RecordBatch::try_new(conflicts_schema(), columns)
}
