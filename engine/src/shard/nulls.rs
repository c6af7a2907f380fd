//! Columns that a meter reads and that no event of a day has a value in: most likely a path that names nothing.
//!
//! What is seen of the running day is kept in memory alone. After a crash the day begins anew, which at worst says
//! less or says it again.

use arrow::{
    array::{Array, AsArray, StructArray},
    datatypes::Date32Type,
    temporal_conversions::date32_to_datetime,
};
use std::sync::Arc;
use tollgate_connectors::event::EventBatch;
use tollgate_sql::{
    definitions::{Column, Definitions},
    meter::Meter,
};

/// The columns that are watched, by event type, and what the running day has of them.
#[derive(Debug)]
pub(super) struct NullColumns {
    types: Vec<Watched>,
    /// Days since the Unix epoch; `None` before the first event.
    day: Option<i32>,
}

/// One event type on one day.
#[derive(Debug)]
struct Watched {
    event_type: String,
    columns: Vec<WatchedColumn>,
    /// Counted events of the type.
    events: u64,
}

#[derive(Debug)]
struct WatchedColumn {
    name: String,
    path: String,
    meters: Vec<String>,
    has_values: bool,
}

/// A column that was NULL in all events of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NullColumn {
    pub(super) event_type: String,
    pub(super) column: String,
    /// Where its values are in `data`.
    pub(super) path: String,
    /// Those that read it.
    pub(super) meters: String,
    /// Days since the Unix epoch.
    pub(super) day: i32,
    pub(super) events: u64,
}

impl NullColumns {
    /// Watches each nullable column that a meter reads.
    pub(super) fn new(definitions: &Definitions, meters: &[Arc<Meter>]) -> Self {
        let types = definitions.event_types.iter().map(|event_type| {
            let readers = |column: &Column| -> Vec<String> {
                let of_type = meters
                    .iter()
                    .filter(|meter| meter.definition().event_type == event_type.name);
                let reads = |meter: &&Arc<Meter>| {
                    let mut columns = meter.input_columns();
                    columns.any(|read| read == column.name)
                };
                let readers = of_type.filter(reads);
                readers
                    .map(|meter| meter.definition().name.clone())
                    .collect()
            };
            let nullable = event_type.columns.iter().filter(|column| column.nullable);
            let watched = nullable.map(|column| WatchedColumn {
                name: column.name.clone(),
                path: column.path_text(),
                meters: readers(column),
                has_values: false,
            });
            Watched {
                event_type: event_type.name.clone(),
                columns: watched.filter(|column| !column.meters.is_empty()).collect(),
                events: 0,
            }
        });
        NullColumns {
            types: types
                .filter(|watched| !watched.columns.is_empty())
                .collect(),
            day: None,
        }
    }

    /// Looks at counted events in order of sequence; returns what is known of the days that they end.
    pub(super) fn observe(&mut self, counted: &EventBatch) -> Vec<NullColumn> {
        let mut found = Vec::new();
        if self.types.is_empty() || counted.num_rows() == 0 {
            return found;
        }
        let days = counted.head()["ingest_day"]
            .as_primitive::<Date32Type>()
            .values();
        let mut from = 0;
        while let Some(day) = days.get(from).copied() {
            let length = days[from..]
                .iter()
                .take_while(|other| **other == day)
                .count();
            if self.day.is_some_and(|running| running < day) {
                found.extend(self.end_day());
            }
            self.day = self.day.max(Some(day));
            match length == days.len() {
                true => self.add(counted),
                false => self.add(&counted.slice(from, length)),
            }
            from += length;
        }
        found
    }

    fn add(&mut self, events: &EventBatch) {
        for watched in &mut self.types {
            if let Some(rows) = events.of_type(&watched.event_type) {
                watched.add(rows.values());
            }
        }
    }

    /// What is known of the running day, which begins anew.
    pub(super) fn end_day(&mut self) -> Vec<NullColumn> {
        let Some(day) = self.day else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for watched in &mut self.types {
            let events = std::mem::take(&mut watched.events);
            for column in &mut watched.columns {
                if events > 0 && !column.has_values {
                    found.push(NullColumn {
                        event_type: watched.event_type.clone(),
                        column: column.name.clone(),
                        path: column.path.clone(),
                        meters: column.meters.join(", "),
                        day,
                        events,
                    });
                }
                column.has_values = false;
            }
        }
        found
    }
}

impl Watched {
    fn add(&mut self, events: &StructArray) {
        self.events += events.len() as u64;
        // A column that has a value is not looked at again that day.
        for column in self.columns.iter_mut().filter(|column| !column.has_values) {
            let values = events.column_by_name(&column.name);
            column.has_values =
                values.is_some_and(|values| values.logical_null_count() < values.len());
        }
    }
}

/// Says each once.
pub(super) fn warn(found: Vec<NullColumn>) {
    for NullColumn {
        event_type,
        column,
        path,
        meters,
        day,
        events,
    } in found
    {
        let day = date32_to_datetime(day).map_or(String::new(), |day| day.date().to_string());
        tracing::warn!(
            event_type,
            column,
            path,
            meters,
            day,
            events,
            "a column that a meter reads was NULL in all events of a day, see that its path names what is sent"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{ArrayRef, Date32Array, Int64Array, RecordBatch},
        buffer::NullBuffer,
        datatypes::{DataType, Field, Fields, Schema},
    };
    use tollgate_sql::definitions::SourceFile;

    const DEFINITIONS: &str = "
        CREATE EVENT TYPE call (n BIGINT NOT NULL, cost BIGINT OPTIONS (path = '$.billing.cost'), region VARCHAR, unread BIGINT)
        WITH (type = 'call');
        CREATE METER calls WITH (window = '1 hour') AS SELECT subject, region, SUM(n) AS n FROM call GROUP BY subject, region;
        CREATE METER costs WITH (window = '1 hour') AS SELECT subject, SUM(cost) AS cost FROM call GROUP BY subject;
        CREATE METER spent WITH (window = '1 hour') AS SELECT subject, SUM(cost * n) AS cost FROM call GROUP BY subject;";

    async fn watched() -> NullColumns {
        let file = SourceFile {
            name: "f.sql".into(),
            text: DEFINITIONS.into(),
        };
        let definitions = Definitions::parse(&[file]).unwrap();
        let mut meters = Vec::new();
        for meter in &definitions.meters {
            let planned = Meter::plan(meter, &definitions.event_types[0]).await;
            meters.push(Arc::new(planned.unwrap()));
        }
        NullColumns::new(&definitions, &meters)
    }

    /// Rows of `day`, `cost`, and whether the row is of the type.
    fn events(rows: &[(i32, Option<i64>, bool)]) -> EventBatch {
        let costs: Int64Array = rows.iter().map(|row| row.1).collect();
        let days = Date32Array::from_iter_values(rows.iter().map(|row| row.0));
        let regions = arrow::array::StringArray::from(vec![Some("eu"); rows.len()]);
        let fields = Fields::from(vec![
            Field::new("cost", DataType::Int64, true),
            Field::new("region", DataType::Utf8, true),
        ]);
        let of_type: Vec<bool> = rows.iter().map(|row| row.2).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(costs), Arc::new(regions)];
        let structs = StructArray::new(fields.clone(), columns, Some(NullBuffer::from(of_type)));
        let schema = Schema::new(vec![
            Field::new("call", DataType::Struct(fields), true),
            Field::new("ingest_day", DataType::Date32, false),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(structs), Arc::new(days)];
        EventBatch::split(&RecordBatch::try_new(Arc::new(schema), columns).unwrap()).unwrap()
    }

    fn null_cost(day: i32, events: u64) -> NullColumn {
        NullColumn {
            event_type: "call".into(),
            column: "cost".into(),
            path: "$.billing.cost".into(),
            meters: "costs, spent".into(),
            day,
            events,
        }
    }

    #[tokio::test]
    async fn a_column_that_is_null_all_day_is_said_once_when_the_day_ends() {
        let mut watched = watched().await;
        let first = events(&[(1, None, true), (1, None, true), (1, Some(9), false)]);
        assert_eq!(watched.observe(&first), []);
        assert_eq!(watched.observe(&first), []);
        // The second day has a value, the third has none of the type, the fourth is running.
        let rest = events(&[
            (1, None, true),
            (2, None, true),
            (2, Some(1), true),
            (3, None, false),
            (4, None, true),
        ]);
        assert_eq!(watched.observe(&rest), [null_cost(1, 5)]);
        assert_eq!(watched.observe(&events(&[(4, None, true)])), []);
        assert_eq!(watched.end_day(), [null_cost(4, 2)]);
        assert_eq!(watched.end_day(), []);
    }

    #[tokio::test]
    async fn a_value_anywhere_in_the_day_is_enough() {
        let mut watched = watched().await;
        for day in [
            events(&[(1, Some(0), true), (1, None, true)]),
            events(&[(1, None, true)]),
        ] {
            assert_eq!(watched.observe(&day), []);
        }
        assert_eq!(watched.end_day(), []);
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_ends_no_day() {
        let mut watched = watched().await;
        let back = events(&[(2, None, true), (1, Some(3), true), (2, None, true)]);
        assert_eq!(watched.observe(&back), []);
        assert_eq!(watched.end_day(), []);
    }
}
