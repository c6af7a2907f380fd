//! Cases of what comes after a charge: proration, discounts, minimums and taxes.

use crate::{
    case::{Case, Outcome, read, unread},
    price::Number,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_sql::{
    accounts::DiscountKind,
    functions::prorate::prorate,
    invoice::{
        bounds::{for_days, less_fees, top_up},
        discounts::taken_off,
        proration::{SeatsAtMost, capped_credit, for_the_rest},
        shares::shares,
        taxes::on_top,
    },
    money::{Currency, Exact, Money, round},
    period::{days_ended, zone_of},
};

/// A currency whose minor unit has this many fraction digits.
fn currency_of(digits: u8) -> Outcome<Currency> {
    match digits {
        0 => Ok(Currency::parse("JPY")?),
        2 => Ok(Currency::parse("USD")?),
        3 => Ok(Currency::parse("KWD")?),
        4 => Ok(Currency::parse("CLF")?),
        other => unread(format!("money of {other} fraction digits")),
    }
}

/// The currency in which all of these amounts are whole numbers of minor units.
fn currency_for<'a>(amounts: impl IntoIterator<Item = &'a Number>) -> Outcome<Currency> {
    let scale = crate::case::scale_of(amounts.into_iter().map(Number::text));
    currency_of(if scale == 1 { 2 } else { scale })
}

fn money(amount: &Number, currency: Currency) -> Outcome<Money> {
    Ok(Money::round(amount.exact()?, currency)?)
}

fn missing<T>(number: Option<T>, name: &str) -> Outcome<T> {
    Ok(number.ok_or_else(|| format!("the case has no {name}"))?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProrationTerms {
    old_amount: Option<Number>,
    new_amount: Option<Number>,
    remaining_days: Option<Number>,
    period_days: Option<Number>,
    round_decimals: Option<u8>,
    unit_amount: Option<Number>,
    days_in_period: Option<Number>,
    rule: Option<String>,
    period_start: Option<Timestamp>,
    period_end: Option<Timestamp>,
    time_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProrationInput {
    #[serde(default)]
    events: Vec<SeatChange>,
    potential_credit: Option<Number>,
    original_amount: Option<Number>,
    previous_credits: Option<Number>,
    amount: Option<Number>,
    at: Option<Timestamp>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatChange {
    day_of_period: String,
    delta: Number,
}

/// A part of an amount, by the rule that the case names.
pub(crate) fn proration(case: &Case) -> Outcome<Value> {
    let terms: ProrationTerms = read(&case.params)?;
    let input: ProrationInput = read(&case.input)?;
    let rule = terms.rule.as_deref().unwrap_or_default();
    match rule.split(':').next().unwrap_or_default() {
        "" => change_of_plan(&terms),
        "credit_cap" => {
            let original = missing(input.original_amount, "original_amount")?.exact()?;
            let credit = missing(input.potential_credit, "potential_credit")?.exact()?;
            let given = input.previous_credits.map(|given| given.exact());
            let given = given.transpose()?.unwrap_or(Exact::ZERO);
            let capped = capped_credit(credit, original, given)?;
            Ok(json!({"credit": rounded(&terms, capped)?.to_string()}))
        }
        "second_based" => {
            let at_us = missing(input.at, "at")?.as_microsecond();
            let start_us = missing(terms.period_start, "period_start")?.as_microsecond();
            let end_us = missing(terms.period_end, "period_end")?.as_microsecond();
            let amount = missing(input.amount, "amount")?.exact()?;
            let part = for_the_rest(amount, at_us, start_us, end_us)?;
            Ok(json!({"prorated_amount": rounded(&terms, part)?.to_string()}))
        }
        "calendar_days" => {
            let zone = zone_of(terms.time_zone.as_deref().unwrap_or("UTC"))?;
            let from_us = missing(input.from, "from")?.as_microsecond();
            let to_us = missing(input.to, "to")?.as_microsecond();
            Ok(json!({"days": days_ended(from_us, to_us, &zone).to_string()}))
        }
        text if text.contains("high-water mark") => seats(&terms, &input.events),
        _ => unread(format!("proration by {rule}")),
    }
}

fn rounded(terms: &ProrationTerms, amount: Exact) -> Outcome<Exact> {
    match terms.round_decimals {
        Some(digits) => Ok(round(amount, digits)?),
        None => Ok(amount),
    }
}

/// What is left of the old amount comes back, and the new one is charged for the same days: two lines, each rounded once.
fn change_of_plan(terms: &ProrationTerms) -> Outcome<Value> {
    let number = |number: &Option<Number>, name| missing(number.as_ref(), name)?.exact();
    let left = number(&terms.remaining_days, "remaining_days")?;
    let whole = number(&terms.period_days, "period_days")?;
    let part = |amount| rounded(terms, prorate(amount, left, whole)?);
    let charge = part(number(&terms.new_amount, "new_amount")?)?;
    let old = part(number(&terms.old_amount, "old_amount")?)?;
    let credit = Exact::ZERO.checked_sub(old)?;
    let net = charge.checked_add(credit)?;
    Ok(json!({
        "credit": credit.to_string(),
        "charge": charge.to_string(),
        "net": net.to_string(),
    }))
}

/// What seats cost after each change, in cents unless the case says otherwise.
fn seats(terms: &ProrationTerms, events: &[SeatChange]) -> Outcome<Value> {
    let unit = missing(terms.unit_amount.as_ref(), "unit_amount")?.exact()?;
    let days = missing(terms.days_in_period.as_ref(), "days_in_period")?;
    let mut seats = SeatsAtMost::new(unit, days.text().parse()?);
    let (mut amounts, mut units) = (Vec::new(), Vec::new());
    for event in events {
        seats.change(event.day_of_period.parse()?, event.delta.exact()?)?;
        let digits = terms.round_decimals.unwrap_or(2);
        amounts.push(round(seats.amount(), digits)?.to_string());
        units.push(seats.seats().to_string());
    }
    Ok(json!({"cumulative_amount": amounts, "units": units}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CouponTerms {
    #[serde(default)]
    steps: Vec<Step>,
    order: Option<String>,
    allocate: Option<String>,
    discount_total: Option<Number>,
    tax_rates_percent: Option<Vec<Number>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(rename = "type")]
    kind: String,
    value: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CouponInput {
    subtotal: Option<Number>,
    lines: Option<Vec<Number>>,
}

/// Discounts off a subtotal, spread over its lines, and taxes on what is left of them.
pub(crate) fn coupon(case: &Case) -> Outcome<Value> {
    let terms: CouponTerms = read(&case.params)?;
    let input: CouponInput = read(&case.input)?;
    if let Some(other) = terms
        .allocate
        .as_deref()
        .filter(|way| *way != "largest_remainder")
    {
        return unread(format!("an allocation by {other}"));
    }
    let lines = input.lines.as_deref().or(input.subtotal.as_slice().into());
    let lines = lines.filter(|lines| !lines.is_empty());
    let lines = missing(lines, "lines and no subtotal")?;
    let mut steps = terms.steps_in_order()?;
    steps.extend(
        terms
            .discount_total
            .iter()
            .map(|given| (DiscountKind::Fixed, given)),
    );
    let fixed = steps
        .iter()
        .filter(|(kind, _)| *kind == DiscountKind::Fixed);
    let amounts = fixed.map(|(_, value)| *value).chain(lines);
    let currency = currency_for(amounts.chain(&input.subtotal))?;
    let lines = lines.iter().map(|line| Ok(money(line, currency)?.minor()));
    let lines = lines.collect::<Outcome<Vec<i128>>>()?;
    let of_minor = |minor: i128| Exact::new(minor, currency.minor_digits());
    let subtotal: i128 = lines.iter().sum();
    let mut left = Money::round(of_minor(subtotal)?, currency)?;
    for (kind, value) in steps {
        let off = taken_off(kind, value.exact()?, left)?;
        left = Money::round(left.to_exact().checked_sub(off.to_exact())?, currency)?;
    }
    let discount = subtotal - left.minor();
    let off = shares(discount, &lines);
    let after: Vec<i128> = lines
        .iter()
        .zip(off)
        .map(|(line, off)| line - off)
        .collect();
    let text = |minor: i128| Outcome::Ok(of_minor(minor)?.to_string());
    let texts = |minors: &[i128]| {
        minors
            .iter()
            .map(|minor| text(*minor))
            .collect::<Outcome<Vec<_>>>()
    };
    let taxes = taxes(
        terms.tax_rates_percent.as_deref().unwrap_or_default(),
        &after,
        currency,
    )?;
    let total = after.iter().chain(&taxes).sum();
    Ok(json!({
        "discount_total": text(discount)?,
        "lines_after": texts(&after)?,
        "taxes": texts(&taxes)?,
        "total": text(total)?,
    }))
}

impl CouponTerms {
    /// The steps in the order in which they apply.
    fn steps_in_order(&self) -> Outcome<Vec<(DiscountKind, &Number)>> {
        let kind = |step: &Step| match step.kind.as_str() {
            "percent" => Ok(DiscountKind::Percent),
            "fixed" => Ok(DiscountKind::Fixed),
            other => unread(format!("a discount by {other}")),
        };
        let steps = self.steps.iter();
        let steps = steps.map(|step| Ok((kind(step)?, &step.value)));
        let mut steps = steps.collect::<Outcome<Vec<_>>>()?;
        match self.order.as_deref().unwrap_or("listed") {
            "listed" => {}
            order if order.starts_with("percent steps first, then fixed") => {
                steps.sort_by_key(|(kind, _)| *kind != DiscountKind::Percent);
            }
            other => return unread(format!("discounts in the order {other}")),
        }
        Ok(steps)
    }
}

/// With as many rates as lines, each line has its own; else each rate is for all of them. Each tax is rounded once.
fn taxes(rates: &[Number], lines: &[i128], currency: Currency) -> Outcome<Vec<i128>> {
    let all = [lines.iter().sum::<i128>()];
    let taxed = match rates.len() == lines.len() {
        true => lines,
        false => all.as_slice(),
    };
    let tax = |(rate, minor): (&Number, &i128)| {
        let taxable = Money::round(Exact::new(*minor, currency.minor_digits())?, currency)?;
        Ok(on_top(rate.exact()?, taxable)?.minor())
    };
    rates.iter().zip(taxed.iter().cycle()).map(tax).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaxTerms {
    rate_percent: Number,
    currency: Option<String>,
    decimals: Option<u8>,
}

/// The tax on top of an amount, rounded once.
pub(crate) fn tax(case: &Case) -> Outcome<Value> {
    let terms: TaxTerms = read(&case.params)?;
    let taxable: Number = crate::pricing::only(&case.input, "taxable_amount")?;
    let currency = match (&terms.currency, terms.decimals) {
        (Some(code), digits) => {
            let currency = Currency::parse(code)?;
            match digits.is_none_or(|digits| digits == currency.minor_digits()) {
                true => currency,
                false => return unread(format!("{code} of another minor unit")),
            }
        }
        (None, digits) => currency_of(digits.unwrap_or(2))?,
    };
    let tax = on_top(terms.rate_percent.exact()?, money(&taxable, currency)?)?;
    Ok(json!({"tax_amount": tax.amount_text()}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitTerms {
    minimum_amount: Number,
    days_active: Option<String>,
    days_in_period: Option<String>,
    round_decimals: Option<u8>,
    prorated_on: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitInput {
    charged_amount: Number,
    subscription_fee: Option<Number>,
}

/// What a minimum adds.
pub(crate) fn min_commit(case: &Case) -> Outcome<Value> {
    let terms: CommitTerms = read(&case.params)?;
    let input: CommitInput = read(&case.input)?;
    let days = |text: &Option<String>| text.as_deref().unwrap_or("1").parse::<i64>();
    let (active, whole) = (days(&terms.days_active)?, days(&terms.days_in_period)?);
    let minimum = terms.minimum_amount.exact()?;
    let charged = input.charged_amount.exact()?;
    let fee = input.subscription_fee.map(|fee| fee.exact());
    let fee = fee.transpose()?.unwrap_or(Exact::ZERO);
    let (minimum, counted) = match terms.prorated_on.as_deref() {
        None => (for_days(minimum, active, whole)?, charged.checked_add(fee)?),
        Some("minimum_minus_full_subscription_fee") => {
            (less_fees(minimum, fee, active, whole)?, charged)
        }
        Some(other) => return unread(format!("a minimum prorated on {other}")),
    };
    let currency = currency_of(terms.round_decimals.unwrap_or(2))?;
    let added = top_up(minimum, counted, currency)?;
    Ok(json!({"true_up_amount": added.amount_text()}))
}
