//! `tollgate price`: what some usage would cost, tier by tier. It needs no lake: usage is given on the command line.

use crate::{
    billing::{
        price_in_force,
        trial::{Row, Trial, TrialSession},
    },
    cli::{load, output},
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result, printable},
};
use clap::Args;
use std::{collections::BTreeMap, fmt::Write};
use tollgate_sql::{
    definitions::{Definitions, PlanDefinition, PriceDefinition},
    functions::explain::{Called, TierPart, note_calls},
    invoice::amount_on,
    money::{Currency, Exact, Money, MoneyError, round},
    parser::did_you_mean,
    period::Period,
    rating::{Charge, rate},
};

/// Flags of `tollgate price`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A price, or a plan, whose prices are tried together.
    pub name: String,
    /// What was used, as columns of a meter: 'input=1200000, output=50000'. Write 'tokens: input=…' where several meters have
    /// these columns, and 'subscription: seats=5' for a customer's. Once for each row.
    #[arg(long, value_name = "COLUMN=VALUE, …")]
    pub input: Vec<String>,
    /// Who used it.
    #[arg(long, default_value = "example", value_name = "SUBJECT")]
    pub subject: String,
    /// Who pays; the subject itself where it is not given.
    #[arg(long, value_name = "CUSTOMER")]
    pub customer: Option<String>,
    /// The billing period, whose version of each price is in force: a month such as 2026-10. Without it, this month and the
    /// newest version of each price.
    #[arg(long, value_name = "YYYY-MM")]
    pub period: Option<String>,
}

/// Prints what some usage would cost.
///
/// # Errors
/// There is no such price or plan, the usage is not what the price reads, or the price has no answer for it.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let catalog = load(settings).await?;
    let period = match &arguments.period {
        Some(month) => settings.month(month)?,
        None => this_month(&settings.billing.time_zone)?,
    };
    let definitions = &catalog.definitions;
    let (plan, names) = asked_for(definitions, &arguments.name)?;
    let prices = names.iter().map(|name| match arguments.period {
        Some(_) => price_in_force(&catalog, name, &period),
        None => newest(definitions, name),
    });
    let prices: Vec<&PriceDefinition> = prices.collect::<Result<_>>()?;
    let on_plan = plan.map_or("", |plan| plan.name.as_str());
    let trial = Trial::new(&catalog, period, on_plan).await?;
    let rows = arguments.input.iter().map(|input| {
        let (relation, values) = parse(input)?;
        Ok(Row {
            relation,
            customer: arguments
                .customer
                .clone()
                .unwrap_or(arguments.subject.clone()),
            subject: arguments.subject.clone(),
            values,
        })
    });
    let rows: Vec<Row> = rows.collect::<Result<_>>()?;
    let rows = trial.place(&prices, &rows).await?;
    let mut text = String::new();
    let mut total: Option<Money> = None;
    for price in &prices {
        let TrialSession {
            context, relations, ..
        } = trial.session(price, &rows).await?;
        let calls = note_calls(&context);
        let charges = rate(&context, price, &[]).await?.whole()?;
        let mut lines = Vec::with_capacity(charges.len());
        for charge in &charges {
            let shown = match definitions
                .currencies
                .iter()
                .find(|own| own.name == price.currency)
            {
                // What it is worth, a plan says.
                Some(own) if plan.is_none() => {
                    let rounded = exactly(round(charge.amount, own.digits))?;
                    format!("in all {} {}", rounded.to_text_with_scale(), own.name)
                }
                _ => {
                    let amount = on_invoice(plan, charge)?;
                    total = Some(match total {
                        Some(total) => exactly(total.checked_add(amount))?,
                        None => amount,
                    });
                    format!("on the invoice {amount}")
                }
            };
            lines.push((charge, shown));
        }
        let unused = relations.into_iter().filter(|(_, of, _)| {
            of != "subscription" && !rows.iter().any(|row| row.relation.as_ref() == Some(of))
        });
        let unused: Vec<String> = unused
            .map(|(relation, ..)| format!("`{relation}`"))
            .collect();
        text += &listing(price, &lines, &calls.sorted(), &unused);
    }
    if let Some(total) = total {
        let _ = writeln!(text, "total {total}");
    }
    output::print(&text)
}

/// The plan, where the name is one's, and the prices that are tried.
fn asked_for<'a>(
    definitions: &'a Definitions,
    name: &'a str,
) -> Result<(Option<&'a PlanDefinition>, Vec<&'a str>)> {
    let is_price = definitions.prices.iter().any(|price| price.name == name);
    match definitions.plan(name) {
        Some(_) if is_price => Err(Error::Usage(format!(
            "`{name}` is a price and a plan: give one of them another name"
        ))),
        Some(plan) => Ok((Some(plan), plan.prices.iter().map(String::as_str).collect())),
        None if is_price => Ok((None, vec![name])),
        None => {
            let prices = definitions.prices.iter().map(|price| price.name.as_str());
            let plans = definitions.plans.iter().map(|plan| plan.name.as_str());
            let mut known: Vec<&str> = prices.chain(plans).collect();
            known.dedup();
            Err(Error::Usage(format!(
                "there is no price or plan `{name}`; {}",
                did_you_mean(name, "prices and plans", &known)
            )))
        }
    }
}

fn newest<'a>(definitions: &'a Definitions, name: &str) -> Result<&'a PriceDefinition> {
    let versions = definitions.prices.iter().filter(|price| price.name == name);
    versions
        .max_by_key(|price| price.version)
        .ok_or(Error::Contradiction {
            what: "every price of a plan is defined",
        })
}

fn this_month(zone: &str) -> Result<Period> {
    let now_us = SystemClock.now_us();
    // The last of the months that have begun.
    let months = Period::months(now_us, now_us.saturating_add(32 * 86_400_000_000), zone)?;
    months.into_iter().next().ok_or(Error::Contradiction {
        what: "this month ends within 32 days",
    })
}

/// Reads `relation: column=value, …`; a value with a comma stands in quotes, in which a quote is doubled.
fn parse(input: &str) -> Result<(Option<String>, BTreeMap<String, String>)> {
    let refused = |problem: String| {
        Error::Usage(format!(
            "--input '{input}': {problem}; write columns and values, such as 'model=sage-2, input=1200000'"
        ))
    };
    let (relation, mut rest) = match input.split_once(':') {
        Some((relation, rest)) if !relation.contains(['=', ',']) => {
            (Some(relation.trim().to_lowercase()), rest)
        }
        _ => (None, input),
    };
    let mut values = BTreeMap::new();
    while !rest.trim().is_empty() {
        let (column, after) = rest
            .split_once('=')
            .ok_or_else(|| refused(format!("`{}` has no `=`", rest.trim())))?;
        let column = column.trim().to_lowercase();
        let (value, after) = value(after).map_err(&refused)?;
        if column.is_empty() {
            return Err(refused("a value has no column".into()));
        }
        if values.insert(column.clone(), value).is_some() {
            return Err(refused(format!("`{column}` is given twice")));
        }
        rest = after;
    }
    if values.is_empty() {
        return Err(refused("it gives no column".into()));
    }
    Ok((relation, values))
}

/// The value that a text begins with, and what follows its comma.
fn value(text: &str) -> Result<(String, &str), String> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('\'') else {
        let (value, after) = text.split_once(',').unwrap_or((text, ""));
        return Ok((value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('\'').ok_or("a quote is not closed")?;
        value += part;
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => match after.trim_start() {
                "" => return Ok((value, "")),
                after => {
                    let after = after
                        .strip_prefix(',')
                        .ok_or("a comma is missing after a quote")?;
                    return Ok((value, after));
                }
            },
        }
    }
}

/// What a charge is on an invoice of the plan, or by itself.
fn on_invoice(plan: Option<&PlanDefinition>, charge: &Charge) -> Result<Money> {
    let code = plan.map_or(&*charge.currency, |plan| plan.currency.as_str());
    let currency = exactly(Currency::parse(code))?;
    match plan {
        Some(plan) => Ok(amount_on(plan, charge, currency)?.1),
        None => exactly(Money::round(charge.amount, currency)),
    }
}

fn exactly<T>(result: Result<T, MoneyError>) -> Result<T> {
    result.map_err(|error| tollgate_sql::Error::from(error).into())
}

/// What one price makes of the usage: its lines, and the calls that they are made of.
fn listing(
    price: &PriceDefinition,
    lines: &[(&Charge, String)],
    calls: &[Called],
    unused: &[String],
) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "price {}, version {}, {}",
        price.name, price.version, price.at
    );
    if !unused.is_empty() {
        let _ = writeln!(text, "  no usage is given of {}", unused.join(", "));
    }
    if lines.is_empty() {
        let _ = writeln!(text, "  no line: the price returns no row for this usage");
    }
    for (charge, amount) in lines {
        let dimensions = charge.dimensions.iter().map(|(name, value)| {
            let value = value.as_deref().map_or("NULL".into(), printable);
            format!(", {name} {value}")
        });
        let quantity = charge.quantity;
        let quantity = quantity.map_or(String::new(), |quantity| format!("quantity {quantity}, "));
        let _ = writeln!(
            text,
            "  {}{}: {quantity}amount {}, {amount}",
            printable(&charge.customer),
            dimensions.collect::<String>(),
            charge.amount,
        );
    }
    for called in calls {
        let _ = writeln!(
            text,
            "    {}({}) is {}",
            called.function,
            printable(&called.arguments.join(", ")),
            called.amount
        );
        for tier in &called.tiers {
            let _ = writeln!(text, "      {}", tier_text(tier));
        }
    }
    text
}

/// One tier: where it begins and ends, how much is in it, and what that comes to.
pub(super) fn tier_text(tier: &TierPart) -> String {
    let up_to = tier.up_to.map(|up_to| format!("up to {up_to}"));
    let above = match (tier.above == Exact::ZERO, &up_to) {
        (true, Some(_)) => None,
        _ => Some(format!("above {}", tier.above)),
    };
    let between: Vec<String> = above.into_iter().chain(up_to).collect();
    format!(
        "{}: {} for {}",
        between.join(" "),
        tier.quantity,
        tier.amount
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_columns_and_values() {
        let read = |input: &str| {
            let (relation, values) = parse(input).unwrap();
            let values = values
                .into_iter()
                .map(|(column, value)| format!("{column}={value}"));
            (relation, values.collect::<Vec<_>>())
        };
        assert_eq!(
            read("input=1200000, output=50000"),
            (None, vec!["input=1200000".into(), "output=50000".into()])
        );
        assert_eq!(
            read("Tokens: model='a, ''b'' c' , Input = 1"),
            (
                Some("tokens".into()),
                vec!["input=1".into(), "model=a, 'b' c".into()]
            )
        );
        assert_eq!(
            read("window_start=2026-10-05T10:00:00Z"),
            (None, vec!["window_start=2026-10-05T10:00:00Z".into()])
        );
        let refused = |input: &str| parse(input).unwrap_err().to_string();
        for (input, problem) in [
            ("", "it gives no column"),
            ("tokens:", "it gives no column"),
            ("1200000", "`1200000` has no `=`"),
            ("input=1, 2", "`2` has no `=`"),
            ("=1", "a value has no column"),
            ("a=1, A=2", "`a` is given twice"),
            ("a='1", "a quote is not closed"),
            ("a='1' 2", "a comma is missing after a quote"),
        ] {
            assert_eq!(
                refused(input),
                format!(
                    "--input '{input}': {problem}; write columns and values, such as 'model=sage-2, input=1200000'"
                )
            );
        }
    }
}
