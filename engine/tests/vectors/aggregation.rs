//! Aggregation cases: each is a meter, and a query over its totals or windows.

use crate::{
    case::{Case, Outcome, not_built, read, scale_of},
    run::{EVENT_TYPE, Event, Span, json, query, run},
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    aggregation: String,
    period: Period,
    #[serde(default)]
    filter: Filter,
    #[serde(default)]
    group_by: Vec<String>,
    #[serde(default)]
    carry_over: bool,
    value_from: Option<String>,
    dedupe: Option<Dedupe>,
    window: Option<Window>,
    empty_window: Option<String>,
    received: Option<Vec<Vec<BTreeMap<Bound, Timestamp>>>>,
    round_decimals: Option<i32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Period {
    from: Timestamp,
    to: Timestamp,
}

/// Values by property; `None` is an absent one.
type Values = BTreeMap<String, Vec<Option<String>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    all: Values,
    #[serde(default)]
    none: Vec<Values>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dedupe {
    key: Vec<String>,
    keep: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    size: String,
    time_zone: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
enum Bound {
    Gt,
    Gte,
    Lt,
    Lte,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    events: Vec<Reading>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    id: String,
    ts: Timestamp,
    value: Option<String>,
    #[serde(default)]
    props: BTreeMap<String, Option<String>>,
    source: Option<String>,
    received_at: Option<Timestamp>,
}

/// How the measure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Count,
    Max,
    Min,
    /// Each value is a group of the meter, so that a query can count them.
    UniqueCount,
}

/// What the engine answers.
pub(crate) async fn answer(case: &Case) -> Outcome<Value> {
    let Some(aggregate) = Aggregate::named(&case.model) else {
        return not_built("");
    };
    let plan = Plan {
        aggregate,
        params: read(&case.params)?,
        input: read(&case.input)?,
    };
    if plan.params.aggregation != case.model {
        return not_built("another aggregation");
    }
    plan.answer().await
}

impl Aggregate {
    fn named(model: &str) -> Option<Self> {
        match model {
            "sum" => Some(Aggregate::Sum),
            "count" => Some(Aggregate::Count),
            "max" => Some(Aggregate::Max),
            "min" => Some(Aggregate::Min),
            "unique_count" => Some(Aggregate::UniqueCount),
            _ => None,
        }
    }

    /// The meter's measure.
    fn measure(self) -> &'static str {
        match self {
            Aggregate::Sum => "SUM(value) AS measure",
            Aggregate::Max => "MAX(value) AS measure",
            Aggregate::Min => "MIN(value) AS measure",
            Aggregate::Count | Aggregate::UniqueCount => "COUNT(*) AS measure",
        }
    }

    /// The answer from the meter's rows of one group; there is at most one, but for unique values.
    fn result(self) -> &'static str {
        match self {
            Aggregate::Sum | Aggregate::Count => "COALESCE(MAX(measure), 0)",
            Aggregate::Max | Aggregate::Min => "MAX(measure)",
            Aggregate::UniqueCount => "COUNT(value)",
        }
    }
}

struct Plan {
    aggregate: Aggregate,
    params: Params,
    input: Input,
}

impl Plan {
    async fn answer(&self) -> Outcome<Value> {
        let properties = self.properties();
        let metered = run(&self.definitions(&properties)?, &self.events(&properties)?).await?;
        let context = metered.session(self.span()).await?;
        let mut answer = Map::new();
        let result = self.result();
        if self.params.group_by.is_empty() {
            let rows = query(&context, &format!("SELECT {result} FROM usage")).await?;
            answer.insert("value".into(), rows[0][0].clone());
        } else {
            let keys = self.keys(&properties);
            let sql = format!("SELECT {keys}, {result} FROM usage GROUP BY {keys}");
            let groups = query(&context, &sql).await?;
            let groups: Vec<Value> = groups.iter().map(|row| self.group(row)).collect();
            answer.insert("groups".into(), groups.into());
        }
        if let Some(window) = &self.params.window {
            let windows = query(&context, &self.windows_query(window)?).await?;
            let window =
                |row: &Vec<Value>| json!({"start": row[0], "end": row[1], "value": row[2]});
            answer.insert("windows".into(), windows.iter().map(window).collect());
        }
        Ok(answer.into())
    }

    /// Every property that the meter needs, in the order of its columns.
    fn properties(&self) -> BTreeSet<&str> {
        let filter = &self.params.filter;
        let filtered = filter
            .all
            .keys()
            .chain(filter.none.iter().flat_map(Values::keys));
        let names = filtered.chain(&self.params.group_by);
        names.map(String::as_str).collect()
    }

    fn definitions(&self, properties: &BTreeSet<&str>) -> Outcome<String> {
        let columns: String = (0..properties.len())
            .map(|index| format!(", property_{index} VARCHAR"))
            .collect();
        let value_type = match self.aggregate {
            Aggregate::UniqueCount => "VARCHAR".to_owned(),
            _ => format!("DECIMAL(38, {})", scale_of(self.numbers())),
        };
        let mut keys = vec!["subject".to_owned()];
        keys.extend(
            self.params
                .group_by
                .iter()
                .map(|name| column(properties, name)),
        );
        if self.aggregate == Aggregate::UniqueCount {
            keys.push("value".into());
        }
        let (keys, measure) = (keys.join(", "), self.aggregate.measure());
        let (window, condition) = (self.base_window()?, self.condition(properties));
        Ok(format!(
            "CREATE EVENT TYPE {EVENT_TYPE} (value {value_type}{columns}) WITH (type = '{EVENT_TYPE}');
CREATE METER usage WITH (window = '{window}') AS
SELECT {keys}, {measure} FROM {EVENT_TYPE} WHERE {condition} GROUP BY {keys};"
        ))
    }

    fn numbers(&self) -> impl Iterator<Item = &str> {
        self.input
            .events
            .iter()
            .filter_map(|event| self.value(event))
    }

    fn value<'a>(&'a self, event: &'a Reading) -> Option<&'a str> {
        match &self.params.value_from {
            Some(property) => event.props.get(property)?.as_deref(),
            None => event.value.as_deref(),
        }
    }

    fn base_window(&self) -> Outcome<&'static str> {
        let Some(window) = &self.params.window else {
            return Ok("1 minute");
        };
        if !self.params.group_by.is_empty() {
            return not_built("windows by group");
        }
        if window.time_zone != "UTC" {
            return not_built("windows in local time");
        }
        match window.size.as_str() {
            "MINUTE" => Ok("1 minute"),
            "HOUR" => Ok("1 hour"),
            "DAY" => Ok("1 day"),
            other => not_built(format!("windows of {other}")),
        }
    }

    fn condition(&self, properties: &BTreeSet<&str>) -> String {
        let filter = &self.params.filter;
        let mut conditions = vec!["TRUE".to_owned()];
        let all = filter.all.iter();
        conditions.extend(all.map(|(name, values)| is_one_of(&column(properties, name), values)));
        for alternative in &filter.none {
            let present = |values: &[Option<String>]| -> Vec<_> {
                values
                    .iter()
                    .filter(|value| value.is_some())
                    .cloned()
                    .collect()
            };
            let matches: Vec<String> = alternative
                .iter()
                .map(|(name, values)| is_one_of(&column(properties, name), &present(values)))
                .collect();
            conditions.push(format!("({}) IS NOT TRUE", matches.join(" AND ")));
        }
        conditions.extend(self.params.received.as_deref().map(received));
        conditions.join(" AND ")
    }

    fn events(&self, properties: &BTreeSet<&str>) -> Outcome<Vec<Event>> {
        let events = (1..).zip(&self.input.events);
        events
            .map(|(number, event)| self.event(number, event, properties))
            .collect()
    }

    fn event(&self, number: u64, event: &Reading, properties: &BTreeSet<&str>) -> Outcome<Event> {
        let value = self.value(event).map(|text| match self.aggregate {
            Aggregate::UniqueCount => json(text),
            _ => text.to_owned(),
        });
        let property = |(index, name): (usize, &&str)| {
            let text = event.props.get(*name).and_then(Option::as_deref);
            (format!("property_{index}"), text.map(json))
        };
        let mut data = vec![("value".to_owned(), value)];
        data.extend(properties.iter().enumerate().map(property));
        let (source, id) = self.identity(number, event)?;
        Ok(Event {
            id,
            source,
            time: event.ts,
            received: event.received_at,
            data,
        })
    }

    /// Events are told apart by the key of the case; by their place if it has none.
    fn identity(&self, number: u64, event: &Reading) -> Outcome<(String, String)> {
        let Some(dedupe) = &self.params.dedupe else {
            return Ok(("vectors".into(), number.to_string()));
        };
        if dedupe.keep != "first" {
            return not_built("the last of several events with one id");
        }
        let mut source = "vectors";
        let mut parts = Vec::new();
        for field in &dedupe.key {
            match field.as_str() {
                "source" => source = event.source.as_deref().unwrap_or(source),
                "id" => parts.push(json(&event.id)),
                "ts" => parts.push(json(&event.ts.to_string())),
                other => return not_built(format!("events told apart by {other}")),
            }
        }
        Ok((source.to_owned(), parts.join(",")))
    }

    fn span(&self) -> Span {
        let period = &self.params.period;
        let from_us = period.from.as_microsecond();
        Span {
            from_us: (!self.params.carry_over).then_some(from_us),
            to_us: Some(period.to.as_microsecond()),
        }
    }

    fn result(&self) -> String {
        let result = self.aggregate.result();
        match self.params.round_decimals {
            Some(decimals) => format!("ROUND({result}, {decimals})"),
            None => result.to_owned(),
        }
    }

    fn keys(&self, properties: &BTreeSet<&str>) -> String {
        let keys = self.params.group_by.iter();
        keys.map(|name| column(properties, name))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn group(&self, row: &[Value]) -> Value {
        let keys = self
            .params
            .group_by
            .iter()
            .cloned()
            .zip(row.iter().cloned());
        let key: Map<String, Value> = keys.collect();
        json!({"key": key, "value": row.last()})
    }

    fn windows_query(&self, window: &Window) -> Outcome<String> {
        let result = self.result();
        match self.params.empty_window.as_deref() {
            None => Ok(format!(
                "SELECT window_start, window_end, {result} FROM usage_windows
GROUP BY window_start, window_end ORDER BY window_start"
            )),
            Some("zero") => {
                let (size, Period { from, to }) = (&window.size, &self.params.period);
                let last = *to - SignedDuration::from_micros(1);
                Ok(format!(
                    "SELECT CAST(s.value AS TIMESTAMP(6)) AS first, CAST(s.value + INTERVAL '1 {size}' AS TIMESTAMP(6)),
COALESCE(w.result, 0)
FROM generate_series(date_trunc('{size}', TIMESTAMP '{from}'), TIMESTAMP '{last}', INTERVAL '1 {size}') AS s
LEFT JOIN (SELECT window_start, {result} AS result FROM usage_windows GROUP BY window_start) AS w
ON CAST(w.window_start AS TIMESTAMP(6)) = CAST(s.value AS TIMESTAMP(6)) ORDER BY first"
                ))
            }
            Some(other) => not_built(format!("empty windows as {other}")),
        }
    }
}

/// The column of a property, which may have any name.
fn column(properties: &BTreeSet<&str>, name: &str) -> String {
    let index = properties.iter().position(|property| *property == name);
    format!("property_{}", index.unwrap_or_default())
}

fn is_one_of(column: &str, values: &[Option<String>]) -> String {
    let quote = |text: &String| format!("'{}'", text.replace('\'', "''"));
    let mut choices = Vec::new();
    let present: Vec<String> = values.iter().flatten().map(quote).collect();
    if !present.is_empty() {
        choices.push(format!("{column} IN ({})", present.join(", ")));
    }
    if values.contains(&None) {
        choices.push(format!("{column} IS NULL"));
    }
    match choices.is_empty() {
        true => "FALSE".into(),
        false => format!("({})", choices.join(" OR ")),
    }
}

/// The stream's time is among any of these spans.
fn received(spans: &[Vec<BTreeMap<Bound, Timestamp>>]) -> String {
    let bound = |(bound, at): (&Bound, &Timestamp)| {
        let operator = match bound {
            Bound::Gt => ">",
            Bound::Gte => ">=",
            Bound::Lt => "<",
            Bound::Lte => "<=",
        };
        format!("ingest_time {operator} TIMESTAMP '{at}'")
    };
    let span = |bounds: &Vec<BTreeMap<Bound, Timestamp>>| {
        let bounds: Vec<String> = bounds.iter().flatten().map(bound).collect();
        format!("({})", bounds.join(" AND "))
    };
    let spans: Vec<String> = spans.iter().map(span).collect();
    format!("({})", spans.join(" OR "))
}
