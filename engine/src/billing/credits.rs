//! The relation `credit_ledger`: what happened to each grant until now, as it follows from the grants and from what issued documents
//! burnt of them.

use super::{accounts, burnt::burning};
use crate::error::Result;
use arrow::array::RecordBatch;
use std::collections::BTreeMap;
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::Grant,
    credits::{Burn, Issued, check, credit_ledger_batch, ledger},
};

/// The rows of all grants up to an instant, by customer, grant and time. The rows of a grant add up to its balance.
///
/// # Errors
/// The lake cannot be read, or an amount does not fit.
pub async fn credit_ledger(lake: &Lake, until_us: i64) -> Result<RecordBatch> {
    let accounts = accounts::load(lake).await?.indexed();
    let mut grants: BTreeMap<&str, Vec<&Grant>> = BTreeMap::new();
    for grant in accounts.grants() {
        grants.entry(&grant.customer).or_default().push(grant);
    }
    let documents = burning(lake).await?;
    let mut issued: BTreeMap<&str, Vec<Issued<'_>>> = BTreeMap::new();
    for document in &documents {
        let of_document = document.burns.iter().map(|burn| Issued {
            burn,
            document: &document.number,
        });
        let of_customer = issued.entry(&document.customer).or_default();
        of_customer.extend(of_document);
    }
    let mut entries = Vec::new();
    for (customer, grants) in grants {
        let issued = issued.get(customer).map_or(&[][..], Vec::as_slice);
        entries.extend(ledger(&grants, issued, until_us)?);
    }
    Ok(credit_ledger_batch(&entries)?)
}

/// Checks that a customer's grants have rows that add up when a document burns this after what was burnt before: never below
/// zero, and never above what was granted.
///
/// # Errors
/// [`tollgate_sql::Error::Credits`] names the grant and the sum.
pub(super) fn check_burns(grants: &[&Grant], before: &[Burn], burns: &[Burn]) -> Result<()> {
    let Some(until_us) = burns.iter().chain(before).map(|burn| burn.at_us).max() else {
        return Ok(());
    };
    if burns.is_empty() {
        return Ok(());
    }
    let all = before.iter().chain(burns);
    // No row is kept here, so none needs the number that the document has later.
    let issued: Vec<Issued<'_>> = all.map(|burn| Issued { burn, document: "" }).collect();
    Ok(check(&ledger(grants, &issued, until_us)?)?)
}
