//! The relation `unissued`: what no invoice has billed of billing periods that are over.

use super::{
    Drafts,
    documents::{Document, Now, RatedAs, customers_of, documents, untold},
    draft_or_causes,
    job::unissued_documents,
    plan,
};
use crate::{
    config::BillingSettings,
    customers::Customers,
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
        unissued::{Covered, Unissued, periods, unissued_batch},
    },
    period::Period,
    session,
};

/// What is told by the drafts of one period, plan and calendar.
#[derive(Debug, Default)]
struct Told<'a> {
    documents: Vec<&'a Document>,
    /// Customers of whose time their own invoices leave this out.
    customers: BTreeSet<&'a str>,
    /// Whether customers without any invoice are told by it too.
    is_of_calendar: bool,
}

/// The rows of `unissued` at a time: periods that end by then, from the first counted event on, by customer and period.
///
/// # Errors
/// The lake cannot be read, or there is no default plan.
pub async fn unissued(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    now_us: i64,
) -> Result<RecordBatch> {
    if super::accounts::are_there(lake).await? {
        let rows = unissued_documents(view, lake, settings, now_us).await?;
        return Ok(unissued_batch(&rows)?);
    }
    let plan = plan(view, settings)?;
    let zone = &settings.time_zone;
    let calendar = match first_event(view).await? {
        Some(first_us) => Period::months(first_us, now_us, zone)?,
        None => Vec::new(),
    };
    let starts_us = settings.starts_us()?.unwrap_or(i64::MIN);
    let months = calendar.iter().map(invoice::Period::from);
    let months = months.filter(|month| starts_us < month.end_us);
    let months = months.map(|month| invoice::Period {
        start_us: month.start_us.max(starts_us),
        ..month
    });
    let months: Vec<invoice::Period> = months.collect();
    let mut documents = match lake.existing(tables::INVOICES).await? {
        Some(invoices) => documents(&invoices, lit(true)).await?,
        None => Vec::new(),
    };
    documents.retain(|document| starts_us <= document.period.start_us);
    let mut covered: BTreeMap<&str, Covered> = BTreeMap::new();
    let mut told: BTreeMap<RatedAs, Told<'_>> = BTreeMap::new();
    for document in &documents {
        let own = covered.entry(&document.issued.customer).or_default();
        own.insert(document.period, document.plan.clone());
        let of_document = told.entry(document.rated_as(zone)).or_default();
        of_document.documents.push(document);
    }
    let by_default = |period: invoice::Period| RatedAs {
        period,
        plan: plan.name.clone(),
        zone: zone.clone(),
    };
    for month in &months {
        told.entry(by_default(*month)).or_default().is_of_calendar = true;
    }
    for (customer, own) in &covered {
        let all = periods(own, &months, &plan.name).into_iter();
        for (period, _) in all.filter(|(period, _)| !own.contains_key(period)) {
            let left = told.entry(by_default(period)).or_default();
            left.customers.insert(customer);
        }
    }
    let mut rows = Vec::new();
    for (terms, told) in &told {
        let customers = customers_of(&told.documents);
        let drafts = draft_or_causes(view, terms, &Customers::All, customers).await?;
        rows.extend(rows_of_documents(told, &drafts)?);
        let is_told = |customer: &str| {
            told.customers.contains(customer)
                || (told.is_of_calendar && !covered.contains_key(customer))
        };
        rows.extend(rows_of_rest(plan, terms.period, &drafts, is_told));
    }
    rows.sort_by(|a, b| (&a.customer, a.period).cmp(&(&b.customer, b.period)));
    Ok(unissued_batch(&rows)?)
}

/// What issued invoices lack now, or have too much.
fn rows_of_documents(told: &Told<'_>, drafts: &Drafts) -> Result<Vec<Unissued>> {
    let mut rows = Vec::new();
    for document in &told.documents {
        match document.now(drafts)? {
            Now::Same => {}
            Now::Changed(change) => rows.push(Unissued::of_change(
                &change,
                &document.plan,
                document.period,
            )),
            Now::Untold(reason) => rows.push(Unissued {
                customer: document.issued.customer.clone(),
                plan: document.plan.clone(),
                period: document.period,
                number: Some(document.issued.number.clone()),
                currency: document.issued.currency.clone(),
                amount: None,
                cause: untold(&reason),
            }),
        }
    }
    Ok(rows)
}

/// What those customers used without an invoice for whom something holds, by the default plan.
fn rows_of_rest(
    plan: &PlanDefinition,
    period: invoice::Period,
    drafts: &Drafts,
    is_told: impl Fn(&str) -> bool,
) -> Vec<Unissued> {
    let mut first = BTreeMap::new();
    for known in drafts.in_error.iter().filter(|k| is_told(&k.customer)) {
        first.entry(&known.customer).or_insert(&known.reason);
    }
    let in_error = first.into_iter().map(|(customer, reason)| Unissued {
        customer: customer.clone(),
        plan: plan.name.clone(),
        period,
        number: None,
        currency: plan.currency.clone(),
        amount: None,
        cause: untold(reason),
    });
    let drafts = drafts.invoices.iter();
    let drafts = drafts.filter(|draft| is_told(&draft.customer));
    in_error.chain(drafts.map(Unissued::of_draft)).collect()
}

/// The time from the first counted event to an instant.
///
/// # Errors
/// The lake cannot be read.
pub async fn ever(view: &View, until_us: i64) -> Result<invoice::Period> {
    let start_us = first_event(view).await?.unwrap_or(until_us).min(until_us);
    Ok(invoice::Period {
        start_us,
        end_us: until_us,
    })
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
