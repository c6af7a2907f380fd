//! What subscriptions were billed for fixed prices, so that each is billed once, whether in advance or not.

use super::documents::lines_in;
use crate::error::{Error, Result};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Decimal128Type, TimestampMicrosecondType},
};
use std::collections::BTreeMap;
use tollgate_sql::{
    definitions::PlanDefinition,
    invoice::{self, LineItem, LineKind},
    money::{Currency, Exact, Money},
    rating::Charge,
};

/// Amounts by subscription and price, each with the time that it is for.
#[derive(Debug, Default)]
pub(super) struct Billed(BTreeMap<(String, String), Vec<(invoice::Period, Exact)>>);

impl Billed {
    /// What issued documents have, by their rows. `line_items` may lack the last of them: a crash can come before it has them.
    pub(super) fn of(issued: &[RecordBatch]) -> Result<Self> {
        let mut billed = Billed::default();
        let lines = lines_in(issued)?;
        let kinds = lines["kind"].as_string::<i32>();
        let is_fixed = |kind: &str| {
            [LineKind::Base, LineKind::Credit]
                .iter()
                .any(|of| of.as_str() == kind)
        };
        for row in (0..lines.num_rows()).filter(|row| is_fixed(kinds.value(*row))) {
            billed.add_row(&lines, row)?;
        }
        Ok(billed)
    }

    fn add_row(&mut self, rows: &RecordBatch, row: usize) -> Result<()> {
        let text = |name: &str| {
            let column = rows[name].as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let instant = |name: &str| {
            rows[name]
                .as_primitive::<TimestampMicrosecondType>()
                .value(row)
        };
        let (Some(subscription), Some(price)) = (text("subscription"), text("price")) else {
            return Ok(());
        };
        let amounts = rows["amount"].as_primitive::<Decimal128Type>();
        let amount = Exact::from_decimal(amounts.value(row), amounts.scale());
        let amount = amount.map_err(tollgate_sql::Error::from)?;
        let period = invoice::Period {
            start_us: instant("period_start"),
            end_us: instant("period_end"),
        };
        let of_price = self.0.entry((subscription, price)).or_default();
        of_price.push((period, amount));
        Ok(())
    }

    /// Adds what a document has that is made now.
    pub(super) fn add(&mut self, lines: &[LineItem]) {
        let fixed = lines
            .iter()
            .filter(|line| matches!(line.kind, LineKind::Base | LineKind::Credit));
        for line in fixed {
            if let (Some(subscription), Some(price)) = (&line.subscription, &line.price) {
                let of_price = self
                    .0
                    .entry((subscription.clone(), price.clone()))
                    .or_default();
                of_price.push((line.period, line.amount.to_exact()));
            }
        }
    }

    /// What is left to bill of the charges of fixed prices for a billing period of a subscription. A price that was not billed
    /// for it yet has its charges; of any other it is one difference, below zero where less was used than was paid.
    pub(super) fn left(
        &self,
        (subscription, plan): (&str, &PlanDefinition),
        period: invoice::Period,
        charges: &[Charge],
    ) -> Result<Vec<Charge>> {
        let number = |error| Error::from(tollgate_sql::Error::from(error));
        let currency = Currency::parse(&plan.currency).map_err(number)?;
        let mut left = Vec::new();
        for price in &plan.terms.in_advance {
            let key = (subscription.to_owned(), price.clone());
            let billed = self.0.get(&key).into_iter().flatten();
            let within =
                |of: &invoice::Period| period.start_us <= of.start_us && of.end_us <= period.end_us;
            let billed: Vec<Exact> = billed
                .filter(|(of, _)| within(of))
                .map(|(_, amount)| *amount)
                .collect();
            let now: Vec<&Charge> = charges
                .iter()
                .filter(|charge| charge.price == *price)
                .collect();
            if billed.is_empty() {
                left.extend(now.into_iter().cloned());
                continue;
            }
            let mut difference = sum_on(plan, now.iter().copied())?;
            for amount in billed {
                difference = difference.checked_sub(amount).map_err(number)?;
            }
            let template = now.first().map(|charge| (*charge).clone());
            let Some(template) = template else {
                continue;
            };
            if Money::round(difference, currency).map_err(number)? == Money::zero(currency) {
                continue;
            }
            left.push(Charge {
                amount: difference,
                currency: plan.currency.clone(),
                quantity: None,
                dimensions: Vec::new(),
                service: Some(period),
                is_unused: difference.is_negative(),
                ..template
            });
        }
        Ok(left)
    }
}

/// What charges come to in a plan's currency, exactly.
pub(super) fn sum_on<'a>(
    plan: &PlanDefinition,
    charges: impl Iterator<Item = &'a Charge>,
) -> Result<Exact> {
    let number = |error| Error::from(tollgate_sql::Error::from(error));
    let currency = Currency::parse(&plan.currency).map_err(number)?;
    let mut sum = Exact::ZERO;
    for charge in charges {
        let (amount, _) = invoice::amount_on(plan, charge, currency)?;
        sum = sum.checked_add(amount).map_err(number)?;
    }
    Ok(sum)
}
