//! Pricing cases: usage is metered, and one price is evaluated over the meter.

use crate::{
    case::{Case, Outcome, not_built, read, scale_of, unread},
    credits::credits,
    invoicing,
    price::{Limits, Number, Price, Tiers},
    run::{EVENT_TYPE, Event, always, check_exact, json, run},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tollgate_sql::{
    invoice::{
        self, LineItem, LineKind,
        adjustments::{Correction, Taxed},
    },
    money::{Currency, Exact, Money},
    rating::{
        Charge,
        progress::{self, Terms},
        rate,
    },
};

/// What the engine answers.
pub(crate) async fn answer(case: &Case) -> Outcome<Value> {
    match case.model.as_str() {
        "standard" | "package" | "graduated" | "graduated_percentage" => of_quantity(case).await,
        "volume" => volume(case).await,
        "block_tiers" => block_tiers(case).await,
        "prorated_graduated" => prorated_graduated(case).await,
        "windowed_commit" => windowed_commit(case).await,
        "incremental_line" => incremental_line(case).await,
        "late_correction" => late_correction(case).await,
        "percentage" => percentage(case).await,
        "dynamic" => dynamic(case).await,
        "rounding" => rounding(case).await,
        "bucketed" => bucketed(case).await,
        "unit_conversion" => unit_conversion(case).await,
        "matrix" => matrix(case).await,
        "capacity" => capacity(case).await,
        "credits" => credits(case).await,
        "coupon" => invoicing::coupon(case),
        "min_commit" => invoicing::min_commit(case),
        "progressive_billing" => progressive_billing(case).await,
        "proration" => invoicing::proration(case),
        "tax" => invoicing::tax(case),
        _ => not_built(""),
    }
}

/// Readings, a meter over them, and a price over the meter.
#[derive(Debug, Default)]
pub(crate) struct Sale {
    /// Columns of text that tell readings apart, each with its values in the order of the readings.
    dimensions: Vec<Vec<Option<String>>>,
    /// A text for each reading that the measures may read; empty if they do not.
    labels: Vec<Option<String>>,
    /// One number for each reading, an hour apart.
    readings: Vec<Number>,
    /// Another number of each reading; empty if there is none.
    seconds: Vec<Number>,
    /// What is measured, as `<expression> AS <name>, …` over `value`.
    measures: String,
    /// The price's query.
    price: String,
}

impl Sale {
    /// One measure, the sum of the readings, and an amount over it.
    pub(crate) fn of_sum(readings: Vec<Number>, amount: &str) -> Self {
        Sale {
            readings,
            measures: "SUM(value) AS quantity".into(),
            price: format!("SELECT customer, quantity, {amount} AS amount FROM usage"),
            ..Sale::default()
        }
    }

    pub(crate) async fn charges(&self) -> Outcome<Vec<Charge>> {
        let metered = run(&self.definitions(), &self.events()?).await?;
        let context = metered.session(&always()).await?;
        let price = &metered.definitions.prices[0];
        check_exact(&context, &price.query).await?;
        Ok(rate(&context, price, &[]).await?.whole()?)
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
        let second = scale_of(self.seconds.iter().map(Number::text));
        let names: Vec<String> = (0..self.dimensions.len()).map(dimension).collect();
        let columns: String = names
            .iter()
            .map(|name| format!(", {name} VARCHAR"))
            .collect();
        let keys: String = names.iter().map(|name| format!(", {name}")).collect();
        let (measures, price) = (&self.measures, &self.price);
        format!(
            "CREATE EVENT TYPE {EVENT_TYPE} (value DECIMAL(38, {scale}) NOT NULL, second DECIMAL(38, {second}), label VARCHAR{columns}) WITH (type = '{EVENT_TYPE}');
CREATE METER usage WITH (window = '1 hour') AS
SELECT subject{keys}, {measures} FROM {EVENT_TYPE} GROUP BY subject{keys};
CREATE PRICE price WITH (currency = 'USD') AS {price};"
        )
    }

    fn events(&self) -> Outcome<Vec<Event>> {
        let start: Timestamp = "2026-10-01T00:00:00Z".parse()?;
        let event = |(place, reading): (usize, &Number)| -> Outcome<Event> {
            let mut data = vec![("value".to_owned(), Some(reading.text().to_owned()))];
            let second = self.seconds.get(place).map(Number::text);
            data.push(("second".to_owned(), second.map(str::to_owned)));
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
pub(crate) fn only<T: DeserializeOwned>(input: &Value, name: &str) -> Outcome<T> {
    let mut fields: BTreeMap<String, Value> = read(input)?;
    match (fields.remove(name), fields.is_empty()) {
        (Some(value), true) => read(&value),
        _ => unread(format!("an input other than {name}")),
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
    free_allowance_rule: Option<String>,
}

/// Every event in order, with how many and how much there were up to it.
const RUNNING: &str = "SELECT customer, value, second, ROW_NUMBER() OVER in_order AS n, SUM(value) OVER in_order AS so_far
FROM reading WINDOW in_order AS (PARTITION BY customer ORDER BY event_time)";

/// A rate on each event's amount, less what is free of all of them together.
async fn percentage(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: PercentageTerms = read(&params)?;
    let is_by_amount = match terms.free_allowance_rule.as_deref() {
        None | Some("first_exhausted") => false,
        Some("amount_dominates") => terms.free_amount.is_some(),
        Some(other) => return unread(format!("the free part by {other}")),
    };
    let sql = |number: &Option<Number>| number.as_ref().map(Number::sql);
    let (fixed, rate) = (sql(&terms.fixed_amount_per_event), terms.rate_percent.sql());
    let free_events = sql(&terms.free_events).filter(|_| !is_by_amount);
    // An event is free, or pays on a part or all of its amount.
    let paid = match (free_events, sql(&terms.free_amount)) {
        (None, None) => "value".to_owned(),
        (Some(events), None) => format!("CASE WHEN n > {events} THEN value END"),
        (None, Some(amount)) => {
            format!("CASE WHEN so_far > {amount} THEN LEAST(value, so_far - {amount}) END")
        }
        (Some(events), Some(amount)) => format!(
            "CASE WHEN n > {events} THEN value WHEN so_far > {amount} THEN LEAST(value, so_far - {amount}) END"
        ),
    };
    let mut cost = format!("percentage(paid, {rate}, {})", fixed.unwrap_or("0".into()));
    if let Some(maximum) = sql(&terms.per_event_maximum) {
        cost = format!("LEAST({cost}, {maximum})");
    }
    if let Some(minimum) = sql(&terms.per_event_minimum) {
        cost = format!("GREATEST({cost}, {minimum})");
    }
    let amount = limits.apply("COALESCE(cost, 0)".into())?;
    let sale = Sale {
        price: format!(
            "WITH running AS ({RUNNING}),
paying AS (SELECT customer, {paid} AS paid FROM running),
paid AS (SELECT customer, SUM(CASE WHEN paid IS NOT NULL THEN {cost} END) AS cost FROM paying GROUP BY customer)
SELECT s.customer, {amount} AS amount FROM subscription s LEFT JOIN paid ON paid.customer = s.customer"
        ),
        ..Sale::of_sum(only(&case.input, "event_amounts")?, "0")
    };
    sale.amount().await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProratedInput {
    event_units: Vec<Number>,
    event_prorated_units: Vec<Number>,
}

/// Each unit at its own tier's price and for the part of the period that it is there; the flat amounts of all tiers that
/// were ever reached are whole.
async fn prorated_graduated(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let tiers: Tiers = read(&params)?;
    if tiers.has_cap() {
        return unread("a cap beside prorated units");
    }
    let input: ProratedInput = read(&case.input)?;
    if input.event_units.len() != input.event_prorated_units.len() {
        return unread("events without prorated units");
    }
    let first = tiers.first_unit();
    let (units, flats) = tiers.parts();
    let flats = Tiers {
        zero_usage_first_flat: true,
        ..flats
    };
    // Below zero units are the first tier's.
    let cost_of = |quantity: &str| -> Outcome<String> {
        let above = units.call("graduated", quantity)?;
        Ok(format!("({above} + LEAST({quantity}, 0) * {first})"))
    };
    let (after, before) = (cost_of("so_far")?, cost_of("so_far - value")?);
    let flats = flats.call("graduated", "COALESCE(most, 0)")?;
    let amount = limits.apply(format!(
        "CASE WHEN \"left\" < 0 THEN 0 ELSE COALESCE(cost, 0) + {flats} END"
    ))?;
    let sale = Sale {
        seconds: input.event_prorated_units,
        price: format!(
            "WITH running AS ({RUNNING}),
costs AS (SELECT customer, SUM(value) AS \"left\", MAX(so_far) AS most,
    SUM(CASE WHEN value <> 0 THEN divide(({after} - {before}) * second, value, 18, 'half_away') END) AS cost
    FROM running GROUP BY customer)
SELECT s.customer, {amount} AS amount FROM subscription s LEFT JOIN costs ON costs.customer = s.customer"
        ),
        ..Sale::of_sum(input.event_units, "0")
    };
    sale.amount().await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeInput {
    quantity: Number,
    prorated_quantity: Option<Number>,
}

/// All units at one price; where they are prorated, whole units choose the tier.
async fn volume(case: &Case) -> Outcome<Value> {
    let input: VolumeInput = read(&case.input)?;
    let Some(prorated) = &input.prorated_quantity else {
        return of_quantity(case).await;
    };
    let (limits, params) = Limits::take(&case.params)?;
    let tiers: Tiers = read(&params)?;
    if tiers.has_cap() {
        return unread("a cap beside a prorated quantity");
    }
    let (units, flats) = tiers.parts();
    let (units, flats) = (
        units.call("volume", "quantity")?,
        flats.call("volume", "quantity")?,
    );
    let prorated = prorated.sql();
    let amount = format!(
        "CASE WHEN quantity > 0 THEN divide({units} * {prorated}, quantity, 18, 'half_away') ELSE 0 END + {flats}"
    );
    Sale::of_sum(vec![input.quantity], &limits.apply(amount)?)
        .amount()
        .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockTerms {
    tiers: Vec<Block>,
    policy: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Block {
    block_size: Number,
    block_amount: Number,
    max_blocks: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockInput {
    quantity: Number,
    already_billed: Option<Number>,
}

/// Tiers that are priced by blocks, less the amount that was billed already.
async fn block_tiers(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: BlockTerms = read(&params)?;
    let input: BlockInput = read(&case.input)?;
    let block = |block: &Block| {
        let most = block.max_blocks.as_ref().map_or("NULL".into(), Number::sql);
        let (size, amount) = (block.block_size.sql(), block.block_amount.sql());
        format!("{{block_size: {size}, block_amount: {amount}, max_blocks: {most}}}")
    };
    let tiers: Vec<String> = terms.tiers.iter().map(block).collect();
    let (tiers, policy) = (tiers.join(", "), terms.policy);
    let billed = input
        .already_billed
        .map_or("0".into(), |billed| billed.sql());
    let amount = format!("blocks(quantity, [{tiers}], '{policy}') - {billed}");
    Sale::of_sum(vec![input.quantity], &limits.apply(amount)?)
        .amount()
        .await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitTerms {
    /// The rule in words.
    #[serde(rename = "rule")]
    _rule: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommittedWindow {
    quantity: Number,
    unit_amount: Number,
    commitment_amount: Option<Number>,
    overage_factor: Option<Number>,
    #[serde(default)]
    true_up: bool,
}

/// Each window by itself: up to its commitment at the price, above it by a factor, and below it filled up.
async fn windowed_commit(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let CommitTerms { .. } = read(&params)?;
    let windows: Vec<CommittedWindow> = only(&case.input, "windows")?;
    let name = |index: usize| format!("window_{index}");
    let terms = windows.iter().enumerate().map(|(index, window)| {
        let commitment = window.commitment_amount.as_ref();
        let commitment = commitment.map_or("NULL".into(), Number::sql);
        let factor = window
            .overage_factor
            .as_ref()
            .map_or("1".into(), Number::sql);
        let (name, unit, true_up) = (name(index), window.unit_amount.sql(), window.true_up);
        format!("('{name}', {unit}, {commitment}, {factor}, {true_up})")
    });
    let terms = terms.collect::<Vec<_>>().join(", ");
    let readings: Vec<Number> = windows
        .iter()
        .map(|window| window.quantity.clone())
        .collect();
    let names = (0..windows.len()).map(|index| Some(name(index)));
    let sale = Sale {
        dimensions: vec![names.collect()],
        price: format!(
            "WITH rated AS (SELECT customer, quantity * unit_amount AS base, commitment, factor, true_up
    FROM usage_windows JOIN (VALUES {terms}) AS t(name, unit_amount, commitment, factor, true_up) ON name = dimension_0),
parts AS (SELECT customer, SUM(LEAST(base, COALESCE(commitment, base))) AS utilized,
    SUM(COALESCE(GREATEST(base - commitment, 0) * factor, 0)) AS overage,
    SUM(CASE WHEN true_up THEN COALESCE(GREATEST(commitment - base, 0), 0) ELSE 0 END) AS true_up
    FROM rated GROUP BY customer)
SELECT customer, 'utilized_amount' AS part, utilized AS amount FROM parts
UNION ALL SELECT customer, 'overage_amount', overage FROM parts
UNION ALL SELECT customer, 'true_up_amount', true_up FROM parts
UNION ALL SELECT customer, 'amount', {} FROM parts",
            limits.apply("utilized + overage + true_up".into())?
        ),
        ..Sale::of_sum(readings, "0")
    };
    let mut answer = serde_json::Map::new();
    for charge in sale.charges().await? {
        let part = charge.dimensions.first().and_then(|(_, part)| part.clone());
        answer.insert(part.unwrap_or_default(), charge.amount.to_string().into());
    }
    Ok(answer.into())
}

/// A price and what is done to its period's amount.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressTerms {
    price: Price,
    usage_discount_units: Option<Number>,
    mode: Option<String>,
}

/// How a period goes on.
struct Period {
    terms: ProgressTerms,
    limits: Terms,
}

impl Period {
    fn read(params: &Value) -> Outcome<Self> {
        let (limits, params) = Limits::take(params)?;
        if limits.round_decimals.is_some() {
            return unread("the rounding of a line");
        }
        let exact = |number: &Option<Number>| number.as_ref().map(Number::exact).transpose();
        Ok(Self {
            terms: read(&params)?,
            limits: Terms {
                percent_discount: exact(&limits.percent_discount)?,
                maximum: exact(&limits.maximum_amount)?,
                minimum: exact(&limits.minimum_amount)?,
            },
        })
    }

    /// The price of a quantity, after the units that are free.
    async fn rated(&self, quantity: Exact) -> Outcome<Exact> {
        let paid = match &self.terms.usage_discount_units {
            Some(free) => format!("GREATEST(quantity - {}, 0)", free.sql()),
            None => "quantity".to_owned(),
        };
        let reading: Number = read(&quantity.to_string().into())?;
        let sale = Sale::of_sum(vec![reading], &self.terms.price.amount(&paid)?);
        match sale.charges().await?.as_slice() {
            [charge] => Ok(charge.amount),
            others => Err(format!("{} charges: {others:?}", others.len()).into()),
        }
    }

    /// How the period stands after a quantity.
    async fn standing(&self, quantity: Exact) -> Outcome<Exact> {
        Ok(self.limits.standing(self.rated(quantity).await?)?)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineInput {
    quantity_before: Number,
    quantity_in_line: Number,
    billed_before: Number,
    #[serde(default)]
    final_line_of_period: bool,
}

/// One line of a period that was billed before.
async fn incremental_line(case: &Case) -> Outcome<Value> {
    let period = Period::read(&case.params)?;
    let input: LineInput = read(&case.input)?;
    let (before, billed) = (input.quantity_before.exact()?, input.billed_before.exact()?);
    let after = before.checked_add(input.quantity_in_line.exact()?)?;
    // Before the first line nothing is rated: a flat amount that is due without usage is in that line.
    let rated_before = match before.is_zero() && billed.is_zero() {
        true => Exact::ZERO,
        false => period.rated(before).await?,
    };
    let rated_after = period.rated(after).await?;
    let is_last = input.final_line_of_period;
    let line = period
        .limits
        .line(rated_before, rated_after, billed, is_last)?;
    let progress::Line {
        net,
        discount,
        minimum_top_up,
    } = line;
    Ok(json!({
        "net_amount": net.to_string(),
        "discount_amount": discount.to_string(),
        "minimum_top_up": minimum_top_up.to_string(),
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressiveTerms {
    unit_amount: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressiveInput {
    quantity: Option<Number>,
    #[serde(default)]
    period_end_fees: Vec<Number>,
    already_progressively_billed: Option<Number>,
}

/// A document of a running period, or the last one of it, after a part was billed.
async fn progressive_billing(case: &Case) -> Outcome<Value> {
    let terms: ProgressiveTerms = read(&case.params)?;
    let input: ProgressiveInput = read(&case.input)?;
    let mut amounts = Vec::new();
    if let (Some(unit_amount), Some(quantity)) = (terms.unit_amount, input.quantity) {
        let amount = format!("quantity * {}", unit_amount.sql());
        let charges = Sale::of_sum(vec![quantity], &amount).charges().await?;
        amounts.extend(charges.into_iter().map(|charge| charge.amount));
    }
    let of_usage = amounts.len();
    for fee in &input.period_end_fees {
        amounts.push(fee.exact()?);
    }
    let already = input.already_progressively_billed;
    let already = already.map(|already| already.exact()).transpose()?;
    let so_far = rest(&amounts[..of_usage], already)?;
    let all = rest(&amounts, already)?;
    Ok(json!({"threshold_invoice_amount": so_far.to_string(), "amount_due": all.to_string()}))
}

/// What lines of these amounts come to after an amount was billed of the last of them.
fn rest(amounts: &[Exact], billed: Option<Exact>) -> Outcome<Exact> {
    let usd = Currency::parse("USD")?;
    let line = |place: usize, amount: Exact| -> Outcome<LineItem> {
        let period = invoice::Period {
            start_us: 0,
            end_us: 1,
        };
        Ok(LineItem {
            price: Some(place.to_string().into()),
            amount_exact: amount,
            ..LineItem::of(LineKind::Usage, Money::round(amount, usd)?, period)
        })
    };
    let mut now = Vec::new();
    for (place, amount) in (1..).zip(amounts) {
        let line = line(place, *amount)?;
        now.push(Taxed { line, tax: None });
    }
    let issued = billed.map(|billed| line(amounts.len(), billed));
    let of_period = Correction {
        number: None,
        period: invoice::Period {
            start_us: 0,
            end_us: 1,
        },
        issued: issued.into_iter().collect::<Outcome<_>>()?,
        now,
        beside: Vec::new(),
    };
    let mut sum = Exact::ZERO;
    for line in of_period.differences(usd)? {
        sum = sum.checked_add(line.amount_exact)?;
    }
    Ok(sum)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CorrectionInput {
    cumulative_quantities: Option<Vec<Number>>,
    runs: Option<Vec<Vec<Number>>>,
    #[serde(default)]
    final_run: bool,
}

/// Usage that came later, or was taken back: each run bills the difference to what was billed before.
async fn late_correction(case: &Case) -> Outcome<Value> {
    let period = Period::read(&case.params)?;
    let input: CorrectionInput = read(&case.input)?;
    let mode = period.terms.mode.as_deref();
    match (mode, &input.cumulative_quantities, &input.runs) {
        (None | Some("delta"), Some(quantities), None) => {
            lines(&period, quantities, input.final_run).await
        }
        (Some("period_preserving"), None, Some(runs)) => {
            lines_by_period(&period, runs, input.final_run).await
        }
        _ => unread("a correction of this mode and input"),
    }
}

async fn lines(period: &Period, quantities: &[Number], ends: bool) -> Outcome<Value> {
    let (mut before, mut billed, mut top_up) = (Exact::ZERO, Exact::ZERO, Exact::ZERO);
    let mut amounts = Vec::new();
    for (place, quantity) in (1..).zip(quantities) {
        let after = period.rated(quantity.exact()?).await?;
        let is_last = ends && place == quantities.len();
        let line = period.limits.line(before, after, billed, is_last)?;
        amounts.push(line.net.to_string());
        billed = billed.checked_add(line.net)?;
        top_up = line.minimum_top_up;
        before = after;
    }
    Ok(json!({"line_amounts": amounts, "minimum_top_up": top_up.to_string()}))
}

/// Each run knows the usage up to the end of every period so far.
async fn lines_by_period(period: &Period, runs: &[Vec<Number>], ends: bool) -> Outcome<Value> {
    let mut billed: Vec<Exact> = Vec::new();
    let (mut totals, mut deltas) = (Vec::new(), Vec::new());
    for run in runs {
        let (mut before, mut total, mut run_deltas) = (Exact::ZERO, Exact::ZERO, Vec::new());
        for (place, quantity) in run.iter().enumerate() {
            let standing = period.standing(quantity.exact()?).await?;
            let amount = standing.checked_sub(before)?;
            if place == billed.len() {
                billed.push(Exact::ZERO);
            }
            let delta = amount.checked_sub(billed[place])?;
            billed[place] = amount;
            total = total.checked_add(delta)?;
            run_deltas.push(delta.to_string());
            before = standing;
        }
        totals.push(total.to_string());
        deltas.push(run_deltas);
    }
    let mut standing = Exact::ZERO;
    for amount in &billed {
        standing = standing.checked_add(*amount)?;
    }
    let top_up = match period.limits.minimum {
        Some(minimum) if ends => minimum.checked_sub(standing)?.max(Exact::ZERO),
        _ => Exact::ZERO,
    };
    Ok(json!({
        "run_totals": totals,
        "run_period_deltas": deltas,
        "minimum_top_up": top_up.to_string(),
    }))
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
    let multiplier = match terms.event_amount_unit.as_str() {
        "cents" => terms.multiplier.hundredth()?,
        "currency" => terms.multiplier,
        other => return unread(format!("amounts in {other}")),
    };
    let amount = format!("quantity * {}", multiplier.sql());
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

/// The mode of `round_to` that a case means.
fn mode_of(name: &str) -> Outcome<&'static str> {
    match name {
        "half_away_from_zero" | "half_away" | "half_up" => Ok("half_away"),
        "half_even" => Ok("half_even"),
        "floor" => Ok("floor"),
        "ceil" | "ceiling" => Ok("ceil"),
        other => unread(format!("rounding by {other}")),
    }
}

/// Rounded as a line item is when there is a currency, as a quantity if not.
async fn rounding(case: &Case) -> Outcome<Value> {
    let terms: RoundingTerms = read(&case.params)?;
    let mode = mode_of(&terms.mode)?;
    let is_minor_unit = |code: &&String| {
        Currency::parse(code).is_ok_and(|found| i32::from(found.minor_digits()) == terms.decimals)
    };
    let amount = match terms.currency.as_ref().filter(is_minor_unit) {
        Some(code) if mode == "half_away" => format!("round_money(quantity, '{code}')"),
        _ => format!("round_to(quantity, {}, '{mode}')", terms.decimals),
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

/// Digits of a quotient that no case rounds.
const UNROUNDED: i32 = 18;

/// Another unit is billed than is measured.
async fn unit_conversion(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: ConversionTerms = read(&params)?;
    let factor = terms.factor.sql();
    let rounding = match terms.rounding.as_deref().unwrap_or("none") {
        "none" => None,
        named => Some((mode_of(named)?, terms.precision.unwrap_or(0))),
    };
    let billed = match (terms.operation.as_str(), rounding) {
        ("divide", rounding) => {
            let (mode, digits) = rounding.unwrap_or(("half_away", UNROUNDED));
            format!("divide(quantity, {factor}, {digits}, '{mode}')")
        }
        ("multiply", None) => format!("quantity * {factor}"),
        ("multiply", Some((mode, digits))) => {
            format!("round_to(quantity * {factor}, {digits}, '{mode}')")
        }
        (other, _) => return unread(format!("a conversion by {other}")),
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
