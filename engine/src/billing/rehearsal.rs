//! What `tollgate check` finds likely wrong in prices and plans that are lawful: each price is evaluated over usage that
//! reaches every number in its text, and its joins are looked at.

use super::trial::{Trial, TrialSession};
use crate::{catalog::Catalog, error::Result};
use arrow::{array::AsArray, datatypes::DataType};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_sql::{
    definitions::{Definitions, PriceDefinition},
    money::Exact,
    period::Period,
    rating::{
        rate,
        warnings::{Warning, begun_anew, numbers, silent_joins},
    },
};

/// How many quantities a price is tried with, and how many values of a dimension.
const QUANTITIES_MAX: usize = 200;
const VALUES_MAX: usize = 8;

/// All warnings: of prices in the order of their definition, then of plans.
///
/// # Errors
/// A price or a meter cannot be planned.
pub async fn warnings(catalog: &Arc<Catalog>) -> Result<Vec<Warning>> {
    let definitions = &catalog.definitions;
    // Any month will do.
    let mut trial = Trial::new(catalog, Period::month("2026-01", "UTC")?, "").await?;
    let mut warnings = Vec::new();
    for price in &definitions.prices {
        let plan = plan_of(definitions, &price.name);
        if plan.is_none() && is_newest(definitions, price) {
            warnings.push(no_plan_has(price));
        }
        trial.put_on(plan.unwrap_or_default());
        let session = trial.session(price, &[]).await?;
        warnings.extend(silent_joins(&session.context, price).await?);
        warnings.extend(begun_anew(&session.context, price).await?);
        warnings.extend(tried(&trial, price, &session).await?);
    }
    let bare = definitions
        .plans
        .iter()
        .filter(|plan| plan.prices.is_empty());
    warnings.extend(bare.map(|plan| Warning {
        at: plan.at.clone(),
        problem: format!(
            "plan `{}`: it has no price, so all usage on it is free",
            plan.name
        ),
        hint: "list its prices: AS (price_one, price_two)".into(),
    }));
    Ok(warnings)
}

fn plan_of<'a>(definitions: &'a Definitions, price: &str) -> Option<&'a str> {
    let mut plans = definitions.plans.iter();
    let found = plans.find(|plan| plan.prices.iter().any(|name| name == price));
    found.map(|plan| plan.name.as_str())
}

fn is_newest(definitions: &Definitions, price: &PriceDefinition) -> bool {
    let mut versions = definitions
        .prices
        .iter()
        .filter(|other| other.name == price.name);
    versions.all(|other| other.version <= price.version)
}

fn no_plan_has(price: &PriceDefinition) -> Warning {
    Warning {
        at: price.at.clone(),
        problem: format!(
            "price `{}`: no plan has it, so it is never charged",
            price.name
        ),
        hint: format!("add it to a plan: CREATE PLAN … AS (…, {})", price.name),
    }
}

/// Warns of amounts below zero, and of an amount that falls as usage grows.
async fn tried(
    trial: &Trial<'_>,
    price: &PriceDefinition,
    session: &TrialSession,
) -> Result<Vec<Warning>> {
    let quantities = quantities(&numbers(&session.context, price).await?);
    let choices = choices(session).await?;
    let mut rows = Vec::new();
    let mut used: BTreeMap<String, (usize, Exact)> = BTreeMap::new();
    for (choice, values) in choices.iter().enumerate() {
        for quantity in &quantities {
            let customer = format!("customer-{}", used.len());
            rows.extend(session.rows(&customer, values, *quantity));
            used.insert(customer, (choice, *quantity));
        }
    }
    // What cannot be evaluated here says nothing: usage that is made up may be none that can be.
    let Ok(TrialSession { context, .. }) = trial.session(price, &rows).await else {
        return Ok(Vec::new());
    };
    let Ok(rated) = rate(&context, price, &[]).await else {
        return Ok(Vec::new());
    };
    let mut amounts: BTreeMap<(usize, Exact), Exact> = BTreeMap::new();
    for charge in rated.charges {
        let Some(place) = used.get(&*charge.customer) else {
            continue;
        };
        let before = amounts.get(place).copied().unwrap_or(Exact::ZERO);
        if let Ok(sum) = before.checked_add(charge.amount) {
            amounts.insert(*place, sum);
        }
    }
    Ok(below_zero(price, &amounts)
        .into_iter()
        .chain(falling(price, &amounts))
        .collect())
}

fn below_zero(
    price: &PriceDefinition,
    amounts: &BTreeMap<(usize, Exact), Exact>,
) -> Option<Warning> {
    let ((_, quantity), amount) = amounts.iter().find(|(_, amount)| amount.is_negative())?;
    Some(Warning {
        at: price.at.clone(),
        problem: format!(
            "price `{}`: its amount can be below zero: {amount} {} where every measure is {quantity}",
            price.name, price.currency
        ),
        hint: "a credit may be meant; if it is not, write GREATEST(…, 0) around the amount".into(),
    })
}

fn falling(price: &PriceDefinition, amounts: &BTreeMap<(usize, Exact), Exact>) -> Option<Warning> {
    let pairs = amounts.iter().zip(amounts.iter().skip(1));
    let mut falling = pairs.filter(|(((choice, _), before), ((next, _), after))| {
        choice == next && after < before && !before.is_negative()
    });
    let (((_, less), before), ((_, more), after)) = falling.next()?;
    Some(Warning {
        at: price.at.clone(),
        problem: format!(
            "price `{}`: more usage costs less: {before} {currency} where every measure is {less}, {after} {currency} where \
             it is {more}",
            price.name,
            currency = price.currency
        ),
        hint: "a volume price does that at each tier; if it is not meant, use graduated, or a cap_amount for each tier".into(),
    })
}

/// The whole quantities to try: each number, the one before and the one after, from 0 on.
fn quantities(numbers: &BTreeSet<Exact>) -> Vec<Exact> {
    let mut found = BTreeSet::from([0_i64, 1]);
    for number in numbers {
        let unit = 10_i128.checked_pow(number.scale.into());
        let floor = unit.map(|unit| number.digits.div_euclid(unit));
        // What is larger is no quantity that a tier begins at, and sums of it would not fit.
        let floor = floor
            .and_then(|floor| i64::try_from(floor).ok())
            .filter(|floor| (0..1_000_000_000_000).contains(floor));
        found.extend(floor.into_iter().flat_map(|floor| [floor, floor + 1]));
    }
    found
        .into_iter()
        .take(QUANTITIES_MAX)
        .map(Exact::from)
        .collect()
}

/// Values of dimensions that are worth a try: those that rate tables have under the same name.
async fn choices(session: &TrialSession) -> Result<Vec<BTreeMap<String, String>>> {
    let mut dimensions = BTreeSet::new();
    for (.., schema) in &session.relations {
        let texts = schema
            .fields()
            .iter()
            .filter(|field| field.data_type() == &DataType::Utf8);
        dimensions.extend(texts.map(|field| field.name().clone()));
    }
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rows in &session.rates {
        for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
            if !dimensions.contains(field.name()) || field.data_type() != &DataType::Utf8 {
                continue;
            }
            let values = known.entry(field.name().clone()).or_default();
            for value in column.as_string::<i32>().iter().flatten() {
                if values.len() < VALUES_MAX && !values.iter().any(|known| known == value) {
                    values.push(value.to_owned());
                }
            }
        }
    }
    let count = known.values().map(Vec::len).max().unwrap_or(1).max(1);
    let choice = |place: usize| {
        let values = known.iter().filter(|(_, values)| !values.is_empty());
        values
            .map(|(name, values)| (name.clone(), values[place % values.len()].clone()))
            .collect()
    };
    Ok((0..count).map(choice).collect())
}
