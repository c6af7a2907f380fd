//! Cases of credits: what grants pay, and what is left of them.

use crate::{
    case::{Case, Outcome, read, unread},
    price::{Limits, Number, Price},
    pricing::{Sale, only},
};
use jiff::{Span, SpanRelativeTo, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use tollgate_sql::{
    accounts::{Grant, GrantKind},
    credits::{Burn, EntryKind, balance, burn, carried, ledger},
    money::Exact,
};

const DAY_US: i64 = 86_400_000_000;

/// What is in force since 2026 and pays everything, once.
fn grant(name: String, amount: Exact) -> Grant {
    Grant {
        grant: name,
        customer: "acme".into(),
        amount,
        currency: "USD".into(),
        priority: 0,
        effective_at_us: 0,
        expires_at_us: None,
        applies_to: Vec::new(),
        kind: GrantKind::Prepaid,
        recurs_every: None,
        rollover_min: Exact::ZERO,
        rollover_max: Exact::ZERO,
        voided_at_us: None,
    }
}

/// Burns as much as there is; returns what is left to pay.
fn pay(grants: &[&Grant], burnt: &mut Vec<Burn>, at_us: i64, owed: Exact) -> Outcome<Exact> {
    let burns = burn(grants, burnt, at_us, GrantKind::Prepaid, &[(None, owed)])?;
    let left = burns
        .iter()
        .try_fold(owed, |left, burn| left.checked_sub(burn.amount));
    burnt.extend(burns);
    Ok(left?)
}

/// Any case of credits.
pub(crate) async fn credits(case: &Case) -> Outcome<Value> {
    let has = |name: &str| case.input.get(name).is_some();
    if has("used_per_period") {
        by_period(case)
    } else if has("quantity") {
        of_an_amount(case).await
    } else {
        over_time(case)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AmountTerms {
    price: Price,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AmountInput {
    quantity: Number,
    #[serde(default)]
    credit_balances: Vec<Number>,
}

/// What is due after credits have paid what a quantity costs.
async fn of_an_amount(case: &Case) -> Outcome<Value> {
    let (limits, params) = Limits::take(&case.params)?;
    let terms: AmountTerms = read(&params)?;
    let input: AmountInput = read(&case.input)?;
    let amount = limits.apply(terms.price.amount("quantity")?)?;
    let charges = Sale::of_sum(vec![input.quantity], &amount)
        .charges()
        .await?;
    let charge = charges.first().ok_or("no charge")?;
    let balances = input.credit_balances.iter().enumerate();
    let grants = balances.map(|(place, left)| Ok(grant(format!("{place:04}"), left.exact()?)));
    let grants = grants.collect::<Outcome<Vec<Grant>>>()?;
    let due = pay(
        &grants.iter().collect::<Vec<_>>(),
        &mut Vec::new(),
        0,
        charge.amount,
    )?;
    Ok(json!({"amount_due": due.to_string()}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeriodTerms {
    grant_per_period: Number,
    rollover: Option<String>,
}

/// The same is granted at the start of each period; a day stands for a period.
fn by_period(case: &Case) -> Outcome<Value> {
    let terms: PeriodTerms = read(&case.params)?;
    let used: Vec<Number> = only(&case.input, "used_per_period")?;
    let amount = terms.grant_per_period.exact()?;
    let periods = i64::try_from(used.len())?;
    let rollover_max = match terms.rollover.as_deref() {
        None | Some("none") => Exact::ZERO,
        Some("all") => amount.checked_mul(Exact::from(periods))?,
        Some(other) => return unread(format!("a rollover of {other}")),
    };
    let grant = Grant {
        recurs_every: Some("day".into()),
        rollover_max,
        ..grant("g".into(), amount)
    };
    let mut burnt = Vec::new();
    for (period, used) in (1..).zip(&used) {
        pay(&[&grant], &mut burnt, period * DAY_US - 1, used.exact()?)?;
    }
    let next = balance(&grant, &burnt, periods * DAY_US)?;
    Ok(json!({"next_period_start_balance": next.to_string()}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Terms {
    grants: Vec<Given>,
    #[serde(default)]
    resets: Vec<String>,
    #[serde(default)]
    preserve_overage: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    id: String,
    amount: Number,
    priority: Option<String>,
    effective_at: Option<String>,
    expires_at: Option<String>,
    recurs_every: Option<String>,
    recurrence_anchor: Option<String>,
    voided_at: Option<String>,
    starting_balance: Option<Number>,
    rollover_max: Option<Number>,
    rollover_min: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    usage: Vec<Used>,
    as_of: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    at: String,
    quantity: Number,
}

/// An instant, or how long after the start it is, in microseconds.
fn instant(text: &str) -> Outcome<i64> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant.as_microsecond());
    }
    match text {
        "0" => Ok(0),
        _ => length(text).map_or_else(|| unread(format!("the time {text}")), Ok),
    }
}

/// A length of time that does not depend on the calendar.
fn length(text: &str) -> Option<i64> {
    let text = match text.to_ascii_lowercase().as_str() {
        "hourly" | "hour" => "1h",
        "daily" | "day" => "1d",
        "weekly" | "week" => "1w",
        _ => text,
    };
    let span: Span = text.parse().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    i64::try_from(length.as_micros()).ok()
}

/// Time as the case has it, stretched so that each length after which a grant recurs is a whole number of days.
#[derive(Debug, Clone, Copy)]
struct Clock {
    factor: i64,
}

impl Clock {
    fn of(grants: &[Given]) -> Outcome<Self> {
        let every = grants
            .iter()
            .filter_map(|given| given.recurs_every.as_deref());
        let lengths = every.filter_map(length).chain([DAY_US]);
        let unit = lengths.fold(0, greatest_common_divisor);
        match unit > 0 && DAY_US % unit == 0 {
            true => Ok(Clock {
                factor: DAY_US / unit,
            }),
            false => unread("lengths that have no unit"),
        }
    }

    fn stretched(self, us: i64) -> Outcome<i64> {
        Ok(us
            .checked_mul(self.factor)
            .ok_or("a time is too far away")?)
    }

    fn instant(self, text: &str) -> Outcome<i64> {
        self.stretched(instant(text)?)
    }

    fn maybe(self, text: Option<&String>) -> Outcome<Option<i64>> {
        text.map(|text| self.instant(text)).transpose()
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}

/// A grant as the engine has it, and what that has no field for.
struct Held {
    grant: Grant,
    /// The engine's grant is effective when its recurrences are counted from.
    effective_us: i64,
    starts_with: Option<Exact>,
    rollover: (Exact, Exact),
}

impl Held {
    fn new(given: &Given, clock: Clock, until_us: i64) -> Outcome<Self> {
        let effective_us = clock.maybe(given.effective_at.as_ref())?.unwrap_or(0);
        let anchor_us = clock.maybe(given.recurrence_anchor.as_ref())?;
        let every = given.recurs_every.as_deref();
        let (recurs_every, effective_at_us) = match every.map(|text| (text, length(text))) {
            None => (None, effective_us),
            Some((text, None)) if anchor_us.is_none_or(|anchor| anchor == effective_us) => {
                (Some(text.to_owned()), effective_us)
            }
            Some((text, None)) => return unread(format!("another anchor for each {text}")),
            Some((_, Some(every_us))) => {
                let every_us = clock.stretched(every_us)?;
                let anchor_us = anchor_us.unwrap_or(effective_us);
                let past_us = (effective_us - anchor_us).rem_euclid(every_us);
                let from_us = effective_us - past_us;
                let recurs = from_us.saturating_add(every_us) <= until_us;
                let days = every_us / DAY_US;
                // A name has up to 100 of a unit.
                let text = match days % 7 {
                    0 => format!("{} weeks", days / 7),
                    _ => format!("{days} days"),
                };
                (recurs.then_some(text), from_us)
            }
        };
        let number = |number: &Option<Number>| number.as_ref().map(Number::exact).transpose();
        let (min, max) = (number(&given.rollover_min)?, number(&given.rollover_max)?);
        let grant = Grant {
            priority: given.priority.as_deref().unwrap_or("0").parse()?,
            effective_at_us,
            expires_at_us: clock.maybe(given.expires_at.as_ref())?,
            recurs_every,
            voided_at_us: clock.maybe(given.voided_at.as_ref())?,
            ..grant(given.id.clone(), given.amount.exact()?)
        };
        Ok(Held {
            grant,
            effective_us,
            starts_with: number(&given.starting_balance)?,
            rollover: (min.unwrap_or(Exact::ZERO), max.unwrap_or(Exact::ZERO)),
        })
    }

    /// Makes the balance at an instant another one.
    fn set(&self, burnt: &mut Vec<Burn>, at_us: i64, wanted: Exact) -> Outcome<()> {
        let left = balance(&self.grant, burnt, at_us)?;
        burnt.push(Burn {
            grant: self.grant.grant.clone(),
            at_us,
            amount: left.checked_sub(wanted)?,
        });
        Ok(())
    }

    fn is_in_force(&self, at_us: i64) -> bool {
        let is_before = |end_us: Option<i64>| end_us.is_none_or(|end_us| at_us < end_us);
        let grant = &self.grant;
        self.effective_us <= at_us
            && is_before(grant.expires_at_us)
            && is_before(grant.voided_at_us)
    }

    /// When it is granted, first or anew.
    fn turns(&self, until_us: i64) -> Outcome<BTreeSet<i64>> {
        let entries = ledger(&[&self.grant], &[], until_us)?;
        let granted = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Recur);
        let first = [self.effective_us].into_iter().filter(|at| *at <= until_us);
        Ok(granted.map(|entry| entry.at_us).chain(first).collect())
    }
}

/// What happens at one instant, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Starts(usize),
    Reset,
    Granted,
    Used(usize),
}

/// Usage burns what is in force; what it finds nothing for burns what is granted later.
fn over_time(case: &Case) -> Outcome<Value> {
    let terms: Terms = read(&case.params)?;
    let input: Input = read(&case.input)?;
    let clock = Clock::of(&terms.grants)?;
    let as_of_us = clock.instant(&input.as_of)?;
    let held = terms
        .grants
        .iter()
        .map(|given| Held::new(given, clock, as_of_us));
    let held = held.collect::<Outcome<Vec<Held>>>()?;
    let mut steps: Vec<(i64, Step)> = Vec::new();
    for (place, one) in held.iter().enumerate() {
        if one.starts_with.is_some() {
            steps.push((one.effective_us.max(0), Step::Starts(place)));
        }
        let turns = one.turns(as_of_us)?;
        steps.extend(turns.into_iter().map(|at_us| (at_us, Step::Granted)));
    }
    for reset in &terms.resets {
        steps.push((clock.instant(reset)?, Step::Reset));
    }
    for (place, used) in input.usage.iter().enumerate() {
        steps.push((clock.instant(&used.at)?, Step::Used(place)));
    }
    steps.sort();
    let (mut burnt, mut overage) = (Vec::new(), Exact::ZERO);
    for (at_us, step) in steps {
        if at_us > as_of_us {
            break;
        }
        match step {
            Step::Starts(place) => {
                let wanted = held[place].starts_with.unwrap_or(Exact::ZERO);
                held[place].set(&mut burnt, at_us, wanted)?;
            }
            Step::Reset => {
                for one in &held {
                    // What is granted at this very instant is whole.
                    if one.is_in_force(at_us) && !one.turns(at_us)?.contains(&at_us) {
                        let left = balance(&one.grant, &burnt, at_us)?;
                        let (min, max) = one.rollover;
                        one.set(&mut burnt, at_us, carried(left, min, max))?;
                    }
                }
                if !terms.preserve_overage {
                    overage = Exact::ZERO;
                }
            }
            Step::Granted => {}
            Step::Used(place) => {
                overage = overage.checked_add(input.usage[place].quantity.exact()?)?;
            }
        }
        let effective = held.iter().filter(|one| one.effective_us <= at_us);
        let grants: Vec<&Grant> = effective.map(|one| &one.grant).collect();
        overage = pay(&grants, &mut burnt, at_us, overage)?;
    }
    let mut balances = Map::new();
    for one in &held {
        let left = match one.effective_us <= as_of_us {
            true => balance(&one.grant, &burnt, as_of_us)?,
            false => Exact::ZERO,
        };
        balances.insert(one.grant.grant.clone(), left.to_string().into());
    }
    Ok(json!({"balances": balances, "overage": overage.to_string()}))
}
