//! What no invoice has billed of billing periods that are over. Pure.
//!
//! The time of each customer is told once: by the periods of the customer's own invoices, and by the calendar where there
//! is none. So what invoices billed and what is unissued add up to what all of it comes to, whatever time zone or plan
//! there was in between, and nothing is in both.

use super::{
    Invoice, Period,
    changes::{Cause, Change},
};
use crate::schema::invoices::money_type;
use crate::{
    error::{Error, Result},
    money::{Exact, MINOR_DIGITS_MAX},
    schema::timestamp,
};
use arrow::{
    array::{ArrayRef, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use std::{collections::BTreeMap, sync::Arc};

/// A customer's charges of a period that are on no invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unissued {
    /// Who pays.
    pub customer: String,
    /// The plan by which it is rated.
    pub plan: String,
    /// The billing period, or the part of one that no invoice covers.
    pub period: Period,
    /// The invoice that would be another now; `None` when there is none.
    pub number: Option<String>,
    /// ISO 4217 code.
    pub currency: String,
    /// What is missing, or was billed too much when it is negative; `None` when that cannot be told.
    pub amount: Option<Exact>,
    /// Why it is on no invoice.
    pub cause: String,
}

/// The time that a customer's own invoices cover, each period with its plan.
pub type Covered = BTreeMap<Period, String>;

/// The billing periods of a customer in order: those of own invoices, and `calendar` where these leave time, on `plan`.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use tollgate_sql::invoice::{Period, unissued::periods};
/// let period = |start_us, end_us| Period { start_us, end_us };
/// let own = BTreeMap::from([(period(8, 18), "old".to_owned())]);
/// let found = periods(&own, &[period(0, 10), period(10, 20)], "new");
/// let expected = [(period(0, 8), "new"), (period(8, 18), "old"), (period(18, 20), "new")];
/// assert_eq!(found, expected.map(|(period, plan)| (period, plan.to_owned())));
/// ```
pub fn periods(own: &Covered, calendar: &[Period], plan: &str) -> Vec<(Period, String)> {
    let mut all: Vec<(Period, String)> = own
        .iter()
        .map(|(period, plan)| (*period, plan.clone()))
        .collect();
    for month in calendar {
        let mut from_us = month.start_us;
        for covered in own.keys().filter(|covered| covered.end_us > month.start_us) {
            let until_us = covered.start_us.min(month.end_us);
            if from_us < until_us {
                all.push((
                    Period {
                        start_us: from_us,
                        end_us: until_us,
                    },
                    plan.to_owned(),
                ));
            }
            from_us = from_us.max(covered.end_us);
        }
        if from_us < month.end_us {
            let rest = Period {
                start_us: from_us,
                ..*month
            };
            all.push((rest, plan.to_owned()));
        }
    }
    all.sort();
    all
}

impl Unissued {
    /// Charges of a customer without an invoice for the period.
    pub fn of_draft(draft: &Invoice) -> Self {
        Unissued {
            customer: draft.customer.clone(),
            plan: draft.plan.clone(),
            period: draft.period,
            number: None,
            currency: draft.total.currency().code().to_owned(),
            amount: Some(draft.total.to_exact()),
            cause: "no invoice was issued".to_owned(),
        }
    }

    /// What an issued invoice lacks now, or has too much.
    pub fn of_change(change: &Change, plan: &str, period: Period) -> Self {
        Unissued {
            customer: change.customer.clone(),
            plan: plan.to_owned(),
            period,
            number: Some(change.number.clone()),
            currency: change.currency.clone(),
            amount: Some(change.difference),
            cause: changed(&change.causes),
        }
    }
}

/// The cause of what an issued document lacks, in words.
pub fn changed(causes: &[Cause]) -> String {
    let causes: Vec<String> = causes.iter().map(ToString::to_string).collect();
    format!("{} has changed since it was issued", causes.join(", "))
}

/// The schema of `unissued`.
pub fn unissued_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("customer", DataType::Utf8, false),
        Field::new("plan", DataType::Utf8, false),
        Field::new("period_start", timestamp(), false),
        Field::new("period_end", timestamp(), false),
        Field::new("number", DataType::Utf8, true),
        Field::new("currency", DataType::Utf8, false),
        Field::new("amount", money_type(), true),
        Field::new("cause", DataType::Utf8, false),
    ]))
}

/// Rows of `unissued`, in their order.
///
/// # Errors
/// [`Error::Money`] for an amount that has more than 34 digits before the point.
pub fn unissued_batch(rows: &[Unissued]) -> Result<RecordBatch> {
    let engine = |error: ArrowError| Error::Engine {
        doing: "writing what is unissued as rows",
        source: Box::new(error.into()),
    };
    let text = |of: fn(&Unissued) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let instants = |of: fn(&Period) -> i64| -> ArrayRef {
        let instants = rows.iter().map(|row| Some(of(&row.period)));
        Arc::new(
            instants
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        )
    };
    let digits = rows.iter().map(|row| {
        row.amount
            .map(|amount| amount.digits_at(MINOR_DIGITS_MAX))
            .transpose()
    });
    let amounts: Decimal128Array = digits.collect::<Result<_, _>>()?;
    let amounts = amounts.with_data_type(money_type());
    let columns = vec![
        text(|row| Some(&row.customer)),
        text(|row| Some(&row.plan)),
        instants(|period| period.start_us),
        instants(|period| period.end_us),
        text(|row| row.number.as_deref()),
        text(|row| Some(&row.currency)),
        Arc::new(amounts),
        text(|row| Some(&row.cause)),
    ];
    RecordBatch::try_new(unissued_schema(), columns).map_err(engine)
}

#[cfg(test)]
mod tests;
