//! Pricing cases: usage is metered, and one price is evaluated over the meter.

use crate::{
    case::{Case, Outcome, not_built, read, scale_of},
    price::{Limits, Number, Price, rounded},
    run::{EVENT_TYPE, Event, always, json, run},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tollgate_sql::{
    money::{Currency, Exact},
    rating::{Charge, rate},
};

/// What the engine answers.
pub(crate) async fn answer(case: &Case) -> Outcome<Value> {
    match case.model.as_str() {
        "standard" | "package" | "graduated" | "volume" | "graduated_percentage" => {
            of_quantity(case).await
        }
        "percentage" => percentage(case).await,
        "dynamic" => dynamic(case).await,
        "rounding" => rounding(case).await,
        "bucketed" => bucketed(case).await,
        "unit_conversion" => unit_conversion(case).await,
        "matrix" => matrix(case).await,
        "capacity" => capacity(case).await,
        _ => not_built(""),
    }
}

/// Readings, a meter over them, and a price over the meter.
#[derive(Debug, Default)]
struct Sale {
    /// Columns of text that tell readings apart, each with its values in the order of the readings.
    dimensions: Vec<Vec<Option<String>>>,
    /// A text for each reading that the measures may read; empty if they do not.
    labels: Vec<Option<String>>,
    /// One number for each reading, an hour apart.
    readings: Vec<Number>,
    /// What is measured, as `<expression> AS <name>, …` over `value`.
    measures: String,
    /// The price's query.
    price: String,
}

impl Sale {
    /// One measure, the sum of the readings, and an amount over it.
    fn of_sum(readings: Vec<Number>, amount: &str) -> Self {
        Sale {
            readings,
            measures: "SUM(value) AS quantity".into(),
            price: format!("SELECT customer, quantity, {amount} AS amount FROM usage"),
            ..Sale::default()
        }
    }

    async fn charges(&self) -> Outcome<Vec<Charge>> {
        let metered = run(&self.definitions(), &self.events()?).await?;
        let context = metered.session(&always()).await?;
        Ok(rate(&context, &metered.definitions.prices[0], &[])
            .await?
            .whole()?)
    }

    /// The amount of the only charge.
    async fn amount(&self) -> Outcome<Value> {
        let charges = self.charges().await?;
        match charges.as_slice() {
            [charge] => Ok(json!({"amount": charge.amount.to_string()})),
            others => Err(format!("{} charges: {others:?}", others.len()).into()),
        }
    }

    fn definitions(&self) -> String {
        let scale = scale_of(self.readings.iter().map(Number::text));
        let names: Vec<String> = (0..self.dimensions.len()).map(dimension).collect();
        let columns: String = names
            .iter()
            .map(|name| format!(", {name} VARCHAR"))
            .collect();
        let keys: String = names.iter().map(|name| format!(", {name}")).collect();
        let (measures, price) = (&self.measures, &self.price);
        format!(
            "CREATE EVENT TYPE {EVENT_TYPE} (value DECIMAL(38, {scale}) NOT NULL, label VARCHAR{columns}) WITH (type = '{EVENT_TYPE}');
CREATE METER usage WITH (window = '1 hour') AS
SELECT subject{keys}, {measures} FROM {EVENT_TYPE} GROUP BY subject{keys};
CREATE PRICE price WITH (currency = 'USD') AS {price};"
        )
    }

    fn events(&self) -> Outcome<Vec<Event>> {
        let start: Timestamp = "2026-10-01T00:00:00Z".parse()?;
        let event = |(place, reading): (usize, &Number)| -> Outcome<Event> {
            let mut data = vec![("value".to_owned(), Some(reading.text().to_owned()))];
            let label = self.labels.get(place).and_then(Option::as_deref);
            data.push(("label".to_owned(), label.map(json)));
            for (index, values) in self.dimensions.iter().enumerate() {
                data.push((dimension(index), values[place].as_deref().map(json)));
            }
            Ok(Event {
                id: place.to_string(),
                source: "vectors".into(),
                time: start.checked_add(SignedDuration::from_hours(i64::try_from(place)?))?,
                received: None,
                data,
            })
        };
        self.readings.iter().enumerate().map(event).collect()
    }
}

fn dimension(index: usize) -> String {
    format!("dimension_{index}")
}

/// Reads a price that is written as a case's terms.
fn price_of(model: &str, params: Value) -> Outcome<Price> {
    let mut params = params;
    params["model"] = model.into();
    read(&params)
}

/// The one field of an input.
fn only<T: DeserializeOwned>(input: &Value, name: &str) -> Outcome<T> {
    let mut fields: BTreeMap<String, Value> = read(input)?;
    match (fields.remove(name), fields.is_empty()) {
        (Some(value), true) => read(&value),
        _ => not_built(format!("an input other than {name}")),
    }
}

async fn of_quantity(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let price = price_of(&case.model, params)?;
    let name = match price {
        Price::GraduatedPercentage(_) => "amount_processed",
        _ => "quantity",
    };
    let quantity = only(&case.input, name)?;
    let amount = limits.apply(price.amount("quantity")?)?;
    Sale::of_sum(vec![quantity], &amount).amount().await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PercentageTerms {
    rate_percent: Number,
    fixed_amount_per_event: Option<Number>,
    free_events: Option<Number>,
    free_amount: Option<Number>,
    per_event_minimum: Option<Number>,
    per_event_maximum: Option<Number>,
    #[serde(rename = "free_allowance_rule")]
    _free_allowance_rule: Option<String>,
}

/// A rate on each event's amount: the meter adds up what each event costs.
async fn percentage(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: PercentageTerms = read(&params)?;
    if terms.free_events.is_some() || terms.free_amount.is_some() {
        return not_built("a free part, which depends on the order of events");
    }
    let mut cost = format!("value * {}", terms.rate_percent.hundredth()?.sql());
    if let Some(fixed) = &terms.fixed_amount_per_event {
        cost = format!("{cost} + {}", fixed.sql());
    }
    if let Some(maximum) = &terms.per_event_maximum {
        cost = format!("LEAST({cost}, {})", maximum.sql());
    }
    if let Some(minimum) = &terms.per_event_minimum {
        cost = format!("GREATEST({cost}, {})", minimum.sql());
    }
    let sale = Sale {
        measures: format!("SUM({cost}) AS cost"),
        price: format!(
            "SELECT customer, {} AS amount FROM usage",
            limits.apply("cost".into())?
        ),
        ..Sale::of_sum(only(&case.input, "event_amounts")?, "0")
    };
    sale.amount().await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DynamicTerms {
    multiplier: Number,
    event_amount_unit: String,
}

/// Each event says what it costs.
async fn dynamic(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: DynamicTerms = read(&params)?;
    if terms.event_amount_unit != "cents" {
        return not_built(format!("amounts in {}", terms.event_amount_unit));
    }
    let amount = format!("quantity * {}", terms.multiplier.hundredth()?.sql());
    let readings = only(&case.input, "event_amounts")?;
    Sale::of_sum(readings, &limits.apply(amount)?)
        .amount()
        .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoundingTerms {
    currency: Option<String>,
    decimals: i32,
    mode: String,
}

/// Rounded as a line item is when there is a currency, as a quantity if not.
async fn rounding(case: &Case) -> Outcome<Value> {
    let terms: RoundingTerms = read(&case.params)?;
    if terms.mode != "half_away_from_zero" {
        return not_built(format!("rounding {}", terms.mode));
    }
    let is_minor_unit = |code: &&String| {
        Currency::parse(code).is_ok_and(|found| i32::from(found.minor_digits()) == terms.decimals)
    };
    let amount = match terms.currency.as_ref().filter(is_minor_unit) {
        Some(code) => format!("round_money(quantity, '{code}')"),
        None => rounded("quantity".into(), Some(terms.decimals)),
    };
    Sale::of_sum(vec![only(&case.input, "amount")?], &amount)
        .amount()
        .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketedTerms {
    price: Price,
}

/// Each window's largest value is priced by itself.
async fn bucketed(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: BucketedTerms = read(&params)?;
    let amount = format!("SUM({})", terms.price.amount("quantity")?);
    let amount = limits.apply(amount)?;
    let sale = Sale {
        measures: "MAX(value) AS quantity".into(),
        price: format!("SELECT customer, {amount} AS amount FROM usage_windows GROUP BY customer"),
        ..Sale::of_sum(only(&case.input, "bucket_values")?, "0")
    };
    sale.amount().await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConversionTerms {
    operation: String,
    factor: Number,
    rounding: Option<String>,
    precision: Option<i32>,
    price: Price,
}

/// Another unit is billed than is measured. Whole units rounded up are packages of one factor.
async fn unit_conversion(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: ConversionTerms = read(&params)?;
    let factor = terms.factor.sql();
    let rounding = terms.rounding.as_deref().unwrap_or("none");
    let billed = match (terms.operation.as_str(), rounding, terms.precision) {
        ("divide", "ceiling", Some(0)) => format!("package(quantity, {factor}, 1)"),
        ("multiply", "none", _) => format!("quantity * {factor}"),
        (operation, rounding, _) => return not_built(format!("{operation}, rounding {rounding}")),
    };
    let amount = limits.apply(terms.price.amount("billed")?)?;
    let sale = Sale {
        price: format!(
            "SELECT customer, billed AS quantity, {amount} AS amount
FROM (SELECT customer, {billed} AS billed FROM usage)"
        ),
        ..Sale::of_sum(vec![only(&case.input, "quantity")?], "0")
    };
    let charges = sale.charges().await?;
    let charge = charges.first().ok_or("no charge")?;
    let billed = charge.quantity.ok_or("no quantity")?;
    Ok(json!({"billed_quantity": billed.to_string(), "amount": charge.amount.to_string()}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatrixTerms {
    cells: Vec<Cell>,
    #[serde(rename = "group_by")]
    _group_by: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cell {
    #[serde(rename = "match")]
    matches: BTreeMap<String, String>,
    unit_amount: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatrixUsage {
    dims: BTreeMap<String, String>,
    quantity: Number,
}

/// The unit price of the first cell that matches; a line for each combination of dimensions.
async fn matrix(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: MatrixTerms = read(&params)?;
    let usage: Vec<MatrixUsage> = only(&case.input, "usage")?;
    let named = usage.iter().flat_map(|row| row.dims.keys());
    let named = named.chain(terms.cells.iter().flat_map(|cell| cell.matches.keys()));
    let names: BTreeSet<&String> = named.collect();
    let names: Vec<&String> = names.into_iter().collect();
    let whens: String = terms.cells.iter().map(|cell| cell.sql(&names)).collect();
    let amount = limits.apply(format!("quantity * CASE {whens} END"))?;
    let values = |name: &&String| {
        usage
            .iter()
            .map(|row| row.dims.get(*name).cloned())
            .collect()
    };
    let keys: String = (0..names.len())
        .map(|index| format!(", {}", dimension(index)))
        .collect();
    let sale = Sale {
        dimensions: names.iter().map(values).collect(),
        price: format!("SELECT customer{keys}, quantity, {amount} AS amount FROM usage"),
        ..Sale::of_sum(usage.iter().map(|row| row.quantity.clone()).collect(), "0")
    };
    let charges = sale.charges().await?;
    let mut lines = Vec::new();
    for row in &usage {
        let dimensions: Vec<_> = names.iter().map(|name| row.dims.get(*name)).collect();
        let is_line = |charge: &&Charge| {
            charge
                .dimensions
                .iter()
                .map(|(_, value)| value.as_ref())
                .eq(dimensions.iter().copied())
        };
        let line = charges.iter().find(is_line).ok_or("a line is missing")?;
        lines.push(line.amount.to_string());
    }
    let add = |total: Exact, charge: &Charge| total.checked_add(charge.amount);
    let total = charges.iter().try_fold(Exact::ZERO, add)?;
    Ok(json!({"lines": lines, "amount": total.to_string()}))
}

impl Cell {
    fn sql(&self, names: &[&String]) -> String {
        let matches = |(name, value): (&String, &String)| {
            let index = names.iter().position(|known| *known == name);
            let column = dimension(index.unwrap_or_default());
            format!("{column} = '{}'", value.replace('\'', "''"))
        };
        let mut conditions: Vec<String> = self.matches.iter().map(matches).collect();
        conditions.push("TRUE".into());
        format!(
            "WHEN {} THEN {} ",
            conditions.join(" AND "),
            self.unit_amount.sql()
        )
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacityTerms {
    tiers: Vec<CapacityTier>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacityTier {
    limits: BTreeMap<String, Option<Number>>,
    amount: Number,
}

/// The lowest tier whose limits hold the usage of every unit.
async fn capacity(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: CapacityTerms = read(&params)?;
    let usage: BTreeMap<String, Number> = only(&case.input, "usage")?;
    let units: Vec<&String> = usage.keys().collect();
    let measure =
        |index| format!("SUM(value) FILTER (WHERE label = 'unit_{index}') AS unit_{index}");
    let measures: Vec<String> = (0..units.len()).map(measure).collect();
    let whens: String = terms.tiers.iter().map(|tier| tier.sql(&units)).collect();
    let amount = limits.apply(format!("CASE {whens} END"))?;
    let sale = Sale {
        labels: (0..units.len())
            .map(|index| Some(format!("unit_{index}")))
            .collect(),
        measures: measures.join(", "),
        price: format!("SELECT customer, {amount} AS amount FROM usage"),
        ..Sale::of_sum(usage.values().cloned().collect(), "0")
    };
    sale.amount().await
}

impl CapacityTier {
    fn sql(&self, units: &[&String]) -> String {
        let holds = |(unit, limit): (&String, &Option<Number>)| {
            let index = units.iter().position(|known| *known == unit)?;
            limit
                .as_ref()
                .map(|limit| format!("unit_{index} <= {}", limit.sql()))
        };
        let mut conditions: Vec<String> = self.limits.iter().filter_map(holds).collect();
        conditions.push("TRUE".into());
        format!(
            "WHEN {} THEN {} ",
            conditions.join(" AND "),
            self.amount.sql()
        )
    }
}
