//! The relation `unissued`: what no invoice has billed of billing periods that are over.

use super::{Drafts, draft_on, plan, review::document, rows_where};
use crate::{
    config::BillingSettings,
    error::{Result, query_error},
    tables,
    view::View,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use datafusion::prelude::lit;
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    definitions::PlanDefinition,
    invoice::{
        self,
        changes::{Issued, change},
        unissued::{Covered, Unissued, periods, unissued_batch},
    },
    period::Period,
    session,
};

/// An issued invoice, and what it covers.
struct Document {
    plan: String,
    period: invoice::Period,
    issued: Issued,
}

/// The rows of `unissued` at a time: periods that end by then, from the first counted event on, by customer and period.
///
/// # Errors
/// The lake cannot be read, there is no default plan, or a price fails and it cannot be told for which customer.
pub async fn unissued(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    now_us: i64,
) -> Result<RecordBatch> {
    let plan = plan(view, settings)?;
    let calendar = match first_event(view).await? {
        Some(first_us) => Period::months(first_us, now_us, &settings.time_zone)?,
        None => Vec::new(),
    };
    let months: Vec<invoice::Period> = calendar.iter().map(invoice::Period::from).collect();
    let documents = documents(lake).await?;
    let mut covered: BTreeMap<&str, Covered> = BTreeMap::new();
    for document in &documents {
        let own = covered.entry(&document.issued.customer).or_default();
        own.insert(document.period, document.plan.clone());
    }
    // Who is told by which periods; customers without an invoice are told by the calendar.
    let mut told: BTreeMap<(invoice::Period, String), BTreeSet<&str>> = BTreeMap::new();
    for month in &months {
        told.entry((*month, plan.name.clone())).or_default();
    }
    for (customer, own) in &covered {
        for of_customer in periods(own, &months, &plan.name) {
            told.entry(of_customer).or_default().insert(customer);
        }
    }
    let in_months: BTreeSet<invoice::Period> = months.iter().copied().collect();
    let zone = Period::month("2026-01", &settings.time_zone)?;
    let mut rows = Vec::new();
    for ((period, plan_name), customers) in &told {
        let plans = &view.catalog().definitions.plans;
        // A plan that is no longer defined is rated by the one that is in force.
        let of_period = plans
            .iter()
            .find(|known| known.name == *plan_name)
            .unwrap_or(plan);
        let part = zone.between(period.start_us, period.end_us);
        let drafts = draft_on(view, of_period, &part).await?;
        let by_calendar = *plan_name == plan.name && in_months.contains(period);
        let is_told = |customer: &str| {
            customers.contains(customer) || (by_calendar && !covered.contains_key(customer))
        };
        rows.extend(rows_of(&drafts, of_period, *period, &documents, is_told)?);
    }
    rows.sort_by(|a, b| (&a.customer, a.period).cmp(&(&b.customer, b.period)));
    Ok(unissued_batch(&rows)?)
}

/// The rows of one period and plan.
fn rows_of(
    drafts: &Drafts,
    plan: &PlanDefinition,
    period: invoice::Period,
    documents: &[Document],
    is_told: impl Fn(&str) -> bool,
) -> Result<Vec<Unissued>> {
    let of_period = || {
        documents
            .iter()
            .filter(|document| document.period == period)
    };
    let mut rows = Vec::new();
    let mut in_error = BTreeSet::new();
    for known in drafts
        .in_error
        .iter()
        .filter(|known| is_told(&known.customer))
    {
        if in_error.insert(known.customer.as_str()) {
            let mut documents = of_period();
            let issued = documents.find(|document| document.issued.customer == known.customer);
            rows.push(Unissued {
                customer: known.customer.clone(),
                plan: plan.name.clone(),
                period,
                number: issued.map(|document| document.issued.number.clone()),
                currency: plan.currency.clone(),
                amount: None,
                cause: format!("it cannot be told: {}", known.reason),
            });
        }
    }
    let mut issued = BTreeSet::new();
    for document in of_period() {
        let customer = document.issued.customer.as_str();
        issued.insert(customer);
        if !in_error.contains(customer) {
            let now = change(
                &document.issued,
                drafts.of(customer),
                &drafts.basis(customer),
            );
            let now = now.map_err(tollgate_sql::Error::from)?;
            rows.extend(now.map(|change| Unissued::of_change(&change, &document.plan, period)));
        }
    }
    let drafts = drafts.invoices.iter();
    let drafts = drafts
        .filter(|draft| !issued.contains(draft.customer.as_str()) && is_told(&draft.customer));
    rows.extend(drafts.map(Unissued::of_draft));
    Ok(rows)
}

/// When the first counted event happened.
async fn first_event(view: &View) -> Result<Option<i64>> {
    let doing = "looking for the first event";
    let sql = "SELECT MIN(event_time) AS first FROM events WHERE status IN ('ok', 'late')";
    let context = view.session(sql).await?;
    let frame = session::query(&context, sql)
        .await
        .map_err(query_error(doing))?;
    let rows = frame.collect().await.map_err(query_error(doing))?;
    let first = rows.iter().find_map(|rows| {
        let first = rows["first"].as_primitive::<TimestampMicrosecondType>();
        (first.len() > first.null_count()).then(|| first.value(0))
    });
    Ok(first)
}

/// Every issued invoice.
async fn documents(lake: &Lake) -> Result<Vec<Document>> {
    let Some(invoices) = lake.existing(tables::INVOICES).await? else {
        return Ok(Vec::new());
    };
    let mut documents = Vec::new();
    for batch in rows_where(&invoices, lit(true)).await? {
        let plans = batch["plan"].as_string::<i32>();
        let [starts, ends] = ["period_start", "period_end"]
            .map(|name| batch[name].as_primitive::<TimestampMicrosecondType>());
        for row in 0..batch.num_rows() {
            documents.push(Document {
                plan: plans.value(row).to_owned(),
                period: invoice::Period {
                    start_us: starts.value(row),
                    end_us: ends.value(row),
                },
                issued: document(&batch, row)?,
            });
        }
    }
    Ok(documents)
}
