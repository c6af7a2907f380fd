//! Aggregation cases: each is a meter, and a query over its totals for the period and for each window.

use crate::{
    case::{Case, Outcome, not_built, read, scale_of, unread, whole_digits_of},
    run::{EVENT_TYPE, Event, Metered, json, query, run},
};
use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tollgate_sql::{
    definitions::BillingPeriod,
    meter::Span,
    money::Exact,
    period::{LocalUnit, Recurrence, local_window},
};

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
    /// Whether the period is from the start of its first window to the end of its last.
    #[serde(default)]
    expand_period_to_windows: bool,
    received: Option<Vec<Vec<BTreeMap<Bound, Timestamp>>>>,
    round_decimals: Option<u8>,
    round_mode: Option<String>,
    /// How long the billing period is that the period is a part of.
    days_in_period: Option<String>,
    /// Whether events add and remove their values.
    #[serde(default)]
    operations: bool,
    /// How many days all usage weighs, whenever it was.
    persisted_days: Option<String>,
    /// The level at the period's start.
    initial_value: Option<String>,
    time_zone: Option<String>,
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
    /// A text, a truth or NULL.
    #[serde(default)]
    value: Value,
    #[serde(default)]
    props: BTreeMap<String, Option<String>>,
    source: Option<String>,
    received_at: Option<Timestamp>,
    operation: Option<String>,
}

/// How the measure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Count,
    Max,
    Min,
    Avg,
    Latest,
    UniqueCount,
    WeightedSum,
    ProratedSum,
    ProratedUniqueCount,
}

/// What the engine answers.
pub(crate) async fn answer(case: &Case) -> Outcome<Value> {
    if case.model == "billing_period" {
        return billing_period(case);
    }
    let Some(aggregate) = Aggregate::named(&case.model) else {
        return not_built("");
    };
    let plan = Plan {
        aggregate,
        params: read(&case.params)?,
        input: read(&case.input)?,
    };
    if plan.params.aggregation != case.model {
        return unread("another aggregation");
    }
    plan.answer().await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodParams {
    anchor_date: Option<Date>,
    /// An instant or a date, in place of `anchor_date`.
    anchor: Option<String>,
    interval_months: i32,
    time_zone: String,
}

impl PeriodParams {
    /// What the clocks of the zone show when the first period begins.
    fn anchor(&self, zone: &TimeZone) -> Outcome<DateTime> {
        match (self.anchor_date, self.anchor.as_deref()) {
            (Some(date), None) => Ok(date.into()),
            (None, Some(text)) => match (text.parse::<Timestamp>(), text.parse::<DateTime>()) {
                (Ok(instant), _) => Ok(zone.to_datetime(instant)),
                (_, Ok(local)) => Ok(local),
                _ => unread(format!("the anchor {text}")),
            },
            _ => unread("a period that has not one anchor"),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Day {
    date: Option<Date>,
    at: Option<Timestamp>,
}

fn billing_period(case: &Case) -> Outcome<Value> {
    let params: PeriodParams = read(&case.params)?;
    let zone = TimeZone::get(&params.time_zone)?;
    let anchor = params.anchor(&zone)?;
    if params.interval_months < 1 {
        return unread("an interval of less than a month");
    }
    let step = BillingPeriod::Months(params.interval_months);
    let periods = |anchor| Recurrence::new(anchor, step);
    match read(&case.input)? {
        Day {
            date: Some(date),
            at: None,
        } => {
            let (periods, at) = (periods(anchor.date().into()), date.into());
            let k = periods.occurrence(at).ok_or("a time beyond the calendar")?;
            let start = |k| periods.start(k).map(|start| start.date().to_string());
            let is_start = periods.start(k) == Some(at);
            match at < anchor.date().into() {
                true => Ok(json!({"is_period_start": false, "from": null, "to": null})),
                false => {
                    Ok(json!({"is_period_start": is_start, "from": start(k), "to": start(k + 1)}))
                }
            }
        }
        Day {
            date: None,
            at: Some(at),
        } => {
            let periods = periods(anchor);
            let start = |k| periods.start(k).ok_or("a time beyond the calendar");
            let instant = |local: DateTime| zone.to_timestamp(local);
            let k = periods.occurrence(zone.to_datetime(at));
            let k = k.ok_or("a time beyond the calendar")?;
            let (from, to) = (instant(start(k)?)?, instant(start(k + 1)?)?);
            let (is_start, from, to) = (from == at, from.to_string(), to.to_string());
            Ok(json!({"is_period_start": is_start, "from": from, "to": to}))
        }
        _ => unread("a period that is asked for by a date and an instant, or neither"),
    }
}

impl Aggregate {
    fn named(model: &str) -> Option<Self> {
        match model {
            "sum" => Some(Aggregate::Sum),
            "count" => Some(Aggregate::Count),
            "max" => Some(Aggregate::Max),
            "min" => Some(Aggregate::Min),
            "avg" => Some(Aggregate::Avg),
            "latest" => Some(Aggregate::Latest),
            "unique_count" => Some(Aggregate::UniqueCount),
            "weighted_sum" => Some(Aggregate::WeightedSum),
            "prorated_sum" => Some(Aggregate::ProratedSum),
            "prorated_unique_count" => Some(Aggregate::ProratedUniqueCount),
            _ => None,
        }
    }

    /// The meter's measure.
    fn measure(self, operations: bool) -> &'static str {
        match self {
            Aggregate::Sum => "SUM(value)",
            Aggregate::Max => "MAX(value)",
            Aggregate::Min => "MIN(value)",
            Aggregate::Avg => "AVG(value)",
            Aggregate::Latest => "LATEST(value)",
            Aggregate::Count => "COUNT(*)",
            Aggregate::UniqueCount if operations => {
                "UNIQUE_COUNT(value, operation IS DISTINCT FROM 'remove')"
            }
            Aggregate::UniqueCount => "COUNT(DISTINCT value)",
            Aggregate::WeightedSum => "TIME_WEIGHTED_AVG(value)",
            Aggregate::ProratedSum => "PRORATED_SUM(value)",
            Aggregate::ProratedUniqueCount if operations => {
                "PRORATED_UNIQUE_COUNT(value, operation IS DISTINCT FROM 'remove')"
            }
            Aggregate::ProratedUniqueCount => "PRORATED_UNIQUE_COUNT(value, TRUE)",
        }
    }

    /// The answer from the meter's rows of one group, of which there is at most one.
    fn result(self) -> &'static str {
        match self {
            Aggregate::Max | Aggregate::Min | Aggregate::Avg | Aggregate::Latest => "MAX(measure)",
            Aggregate::Sum
            | Aggregate::Count
            | Aggregate::UniqueCount
            | Aggregate::WeightedSum
            | Aggregate::ProratedSum
            | Aggregate::ProratedUniqueCount => "COALESCE(MAX(measure), 0)",
        }
    }

    /// Whether values are told apart, not computed with.
    fn is_of_texts(self) -> bool {
        matches!(
            self,
            Aggregate::UniqueCount | Aggregate::ProratedUniqueCount
        )
    }
}

/// The id of the event that sets a level before all others.
const INITIAL: &str = "initial";

struct Plan {
    aggregate: Aggregate,
    params: Params,
    input: Input,
}

impl Plan {
    async fn answer(&self) -> Outcome<Value> {
        let properties = self.properties();
        let metered = run(&self.definitions(&properties)?, &self.events(&properties)?).await?;
        let context = metered.session(&self.span()?).await?;
        let mut answer = Map::new();
        let result = self.result()?;
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
            let windows = self.windows(window, &metered).await?;
            answer.insert("windows".into(), windows.into());
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
        let value_type = match self.aggregate.is_of_texts() {
            true => "VARCHAR".to_owned(),
            false => {
                let (whole, scale) = (whole_digits_of(self.numbers()), scale_of(self.numbers()));
                format!("DECIMAL({}, {scale})", (whole + scale).clamp(1, 38))
            }
        };
        let mut keys = vec!["subject".to_owned()];
        keys.extend(
            self.params
                .group_by
                .iter()
                .map(|name| column(properties, name)),
        );
        let keys = keys.join(", ");
        let measure = self.aggregate.measure(self.params.operations);
        let (window, condition) = (self.base_window()?, self.condition(properties)?);
        let carry_over = self.params.carry_over || self.params.persisted_days.is_some();
        Ok(format!(
            "CREATE EVENT TYPE {EVENT_TYPE} (value {value_type}, operation VARCHAR{columns}) WITH (type = '{EVENT_TYPE}');
CREATE METER usage WITH (window = '{window}', carry_over = '{carry_over}') AS
SELECT {keys}, {measure} AS measure FROM {EVENT_TYPE} WHERE {condition} GROUP BY {keys};"
        ))
    }

    fn numbers(&self) -> impl Iterator<Item = &str> {
        let values = self.input.events.iter();
        let values = values.filter_map(|event| self.value(event));
        values.chain(self.params.initial_value.as_deref())
    }

    fn value<'a>(&'a self, event: &'a Reading) -> Option<&'a str> {
        let text = match &self.params.value_from {
            Some(property) => event.props.get(property)?.as_deref(),
            None => event.value.as_str(),
        };
        // What is no number has no value to compute with, and is counted all the same.
        text.filter(|text| self.aggregate.is_of_texts() || Exact::parse(text).is_ok())
    }

    fn base_window(&self) -> Outcome<&'static str> {
        let Some(window) = &self.params.window else {
            return Ok("1 hour");
        };
        if !self.params.group_by.is_empty() {
            return unread("windows by group");
        }
        match window.unit()? {
            LocalUnit::Minute => Ok("1 minute"),
            LocalUnit::Hour | LocalUnit::Day => Ok("1 hour"),
        }
    }

    fn condition(&self, properties: &BTreeSet<&str>) -> Outcome<String> {
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
        if self.aggregate == Aggregate::WeightedSum && !self.params.carry_over {
            let from = self.params.period.from;
            conditions.push(format!("event_time >= TIMESTAMP '{from}'"));
        }
        let condition = conditions.join(" AND ");
        match &self.params.initial_value {
            None => Ok(condition),
            Some(_) if self.params.carry_over || !self.params.group_by.is_empty() => {
                unread("an initial value beside earlier events, or by group")
            }
            Some(_) => Ok(format!("event_id = '{INITIAL}' OR ({condition})")),
        }
    }

    fn events(&self, properties: &BTreeSet<&str>) -> Outcome<Vec<Event>> {
        let initial = self.params.initial_value.iter().map(|value| {
            Ok(Event {
                id: INITIAL.into(),
                source: "vectors".into(),
                time: self.params.period.from,
                received: None,
                data: vec![("value".to_owned(), Some(value.clone()))],
            })
        });
        let events = (1..).zip(&self.input.events);
        let events = events.map(|(number, event)| self.event(number, event, properties));
        initial.chain(events).collect()
    }

    fn event(&self, number: u64, event: &Reading, properties: &BTreeSet<&str>) -> Outcome<Event> {
        let value = self
            .value(event)
            .map(|text| match self.aggregate.is_of_texts() {
                true => json(text),
                false => text.to_owned(),
            });
        let property = |(index, name): (usize, &&str)| {
            let text = event.props.get(*name).and_then(Option::as_deref);
            (format!("property_{index}"), text.map(json))
        };
        let operation = event.operation.as_deref().map(json);
        let mut data = vec![
            ("value".to_owned(), value),
            ("operation".to_owned(), operation),
        ];
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
                other => return unread(format!("events told apart by {other}")),
            }
        }
        Ok((source.to_owned(), parts.join(",")))
    }

    fn span(&self) -> Outcome<Span> {
        let zone = match &self.params.time_zone {
            Some(name) => TimeZone::get(name)?,
            None => TimeZone::UTC,
        };
        let period = &self.params.period;
        let (from_us, to_us) = (period.from.as_microsecond(), period.to.as_microsecond());
        let days = |text: &String| text.parse::<i64>();
        let mut span = Span::new(from_us, to_us, zone);
        if let (true, Some(window)) = (self.params.expand_period_to_windows, &self.params.window) {
            let zone = TimeZone::get(&window.time_zone)?;
            let around = |us| -> Outcome<(i64, i64)> {
                Ok(local_window(us, window.unit()?, &zone).ok_or("a time beyond the calendar")?)
            };
            span.from_us = around(from_us)?.0;
            span.until_us = around(to_us - 1)?.1;
        }
        if let Some(persisted) = &self.params.persisted_days {
            // All usage weighs as if it had been there for so many days.
            span.from_us = to_us;
            span.until_us = to_us + days(persisted)? * 86_400_000_000;
        }
        if let Some(whole) = &self.params.days_in_period {
            span.whole_days = days(whole)?;
        }
        Ok(span)
    }

    fn result(&self) -> Outcome<String> {
        let result = self.aggregate.result();
        let Some(decimals) = self.params.round_decimals else {
            return Ok(result.to_owned());
        };
        let rounded = format!("ROUND({result}, {decimals})");
        let unit = Exact::new(1, decimals)?;
        match self.params.round_mode.as_deref() {
            None | Some("half_up" | "half_away") => Ok(rounded),
            Some("ceil") => Ok(format!(
                "{rounded} + CASE WHEN {rounded} - {result} < 0 THEN {unit} ELSE 0 END"
            )),
            Some("floor") => Ok(format!(
                "{rounded} - CASE WHEN {rounded} - {result} > 0 THEN {unit} ELSE 0 END"
            )),
            Some(other) => unread(format!("rounding by {other}")),
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

    /// The answer for each window of the period that has events, or for every one.
    async fn windows(&self, window: &Window, metered: &Metered) -> Outcome<Vec<Value>> {
        let zone = TimeZone::get(&window.time_zone)?;
        let fills = match self.params.empty_window.as_deref() {
            None => false,
            Some("zero") => true,
            Some(other) => return unread(format!("empty windows as {other}")),
        };
        let (period, result) = (self.span()?, self.result()?);
        let mut windows = Vec::new();
        let mut at_us = period.from_us;
        while at_us < period.until_us {
            let local = local_window(at_us, window.unit()?, &zone);
            let (start_us, end_us) = local.ok_or("a time beyond the calendar")?;
            at_us = end_us;
            let (from_us, until_us) = (start_us.max(period.from_us), end_us.min(period.until_us));
            let row = |value: Value| {
                let instant = |us| Timestamp::from_microsecond(us).map(|time| time.to_string());
                Outcome::Ok(
                    json!({"start": instant(start_us)?, "end": instant(end_us)?, "value": value}),
                )
            };
            let has_events = self
                .input
                .events
                .iter()
                .any(|event| (from_us..until_us).contains(&event.ts.as_microsecond()));
            let mut rows = Vec::new();
            if has_events {
                let span = Span::new(from_us, until_us, zone.clone());
                let context = metered.session(&span).await?;
                rows = query(
                    &context,
                    &format!("SELECT {result} FROM usage HAVING COUNT(*) > 0"),
                )
                .await?;
            }
            match rows.first() {
                Some(found) => windows.push(row(found[0].clone())?),
                None if fills => windows.push(row("0".into())?),
                None => {}
            }
        }
        Ok(windows)
    }
}

impl Window {
    fn unit(&self) -> Outcome<LocalUnit> {
        match self.size.as_str() {
            "MINUTE" => Ok(LocalUnit::Minute),
            "HOUR" => Ok(LocalUnit::Hour),
            "DAY" => Ok(LocalUnit::Day),
            other => unread(format!("windows of {other}")),
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
