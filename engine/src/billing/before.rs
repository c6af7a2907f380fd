//! What is to be issued, and what its customers were billed for the period before: what a person is told who is to say yes.

use super::{
    Drafts,
    documents::{issued_table, of_customers, rows_where, total_of},
    issued_in,
    standing::standing,
};
use crate::{customers::Customers, error::Result};
use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use datafusion::prelude::col;
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{invoice::Invoice, money::Money, period::Period, schema};

/// Totals by customer, the end of the period that they are for, and the code of their currency.
pub type Before = BTreeMap<(String, i64, String), Money>;

/// What the customers of some drafts were billed for the periods that end where the drafts' begin.
///
/// # Errors
/// The lake cannot be read, or totals do not fit 38 digits.
pub async fn billed_before(lake: &Lake, drafts: &[&Invoice]) -> Result<Before> {
    let starts: BTreeSet<i64> = drafts.iter().map(|draft| draft.period.start_us).collect();
    let mut before = Before::new();
    let (Some(invoices), false) = (issued_table(lake).await?, starts.is_empty()) else {
        return Ok(before);
    };
    let starts = starts.into_iter().map(schema::instant).collect();
    let names = || drafts.iter().map(|draft| draft.customer.as_str());
    // The first name after the last one.
    let until = names().max().map(|last| format!("{last}\0"));
    let of = Customers::between(names().min().map(str::to_owned), until);
    let ending = col("period_end").in_list(starts, false);
    let ending = rows_where(&invoices, ending.and(of_customers(&of))).await?;
    for rows in standing(ending)? {
        let text = |name: &str, row: usize| rows[name].as_string::<i32>().value(row).to_owned();
        let ends = rows["period_end"].as_primitive::<TimestampMicrosecondType>();
        for row in 0..rows.num_rows() {
            let total = total_of(&rows, row)?;
            let key = (
                text("customer", row),
                ends.value(row),
                text("currency", row),
            );
            let sum = before.entry(key).or_insert(Money::zero(total.currency()));
            *sum = sum.checked_add(total).map_err(tollgate_sql::Error::from)?;
        }
    }
    Ok(before)
}

/// The drafts of customers who have no invoice for the period.
///
/// # Errors
/// The lake cannot be read.
pub async fn left_to_issue<'a>(
    lake: &Lake,
    drafts: &'a Drafts,
    period: &Period,
) -> Result<Vec<&'a Invoice>> {
    let issued = match issued_table(lake).await? {
        Some(invoices) => {
            let issued = issued_in(&invoices, period, &drafts.customers);
            issued.await?.0
        }
        None => BTreeMap::new(),
    };
    let customers: BTreeSet<&String> = issued.values().collect();
    let left = drafts.invoices.iter();
    Ok(left
        .filter(|draft| !customers.contains(&draft.customer))
        .collect())
}
