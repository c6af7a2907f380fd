//! The invoice job over subscriptions: the documents that are due, rated, assembled and issued once.

use super::{
    Issued, commit_invoices, cut, derive_line_items,
    documents::rows_where,
    due::{Due, due_of, is_of_month},
    subscribed::{Rated, rate_due},
};
use crate::{
    clock::Clock,
    config::BillingSettings,
    error::{Error, Faulty, InError, Result, chain},
    tables,
    view::View,
};
use arrow::array::AsArray;
use datafusion::prelude::lit;
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::Index,
    invoice::{
        self, Invoice,
        basis::Basis,
        document::{Document, OfPlan, document},
    },
    period::Period,
    schema::invoices::{issued_invoices_schema, line_items_schema},
};

/// Which documents a job makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those whose last instant lies in a month, `YYYY-MM`, by the customer's zone.
    Month(String),
    /// All that were due by now and are not issued, each after the delay of its plans.
    Due,
}

/// The documents of subscriptions, none of which is issued.
#[derive(Debug, Default)]
pub struct Documents {
    /// In order of time and customer.
    pub invoices: Vec<Invoice>,
    /// When each is due, and what it is made from, as JSON.
    made: Vec<(i64, String)>,
    /// Customers who get none until their usage, a price or an account is mended, and why.
    pub in_error: BTreeSet<InError>,
    /// Customers whose document of the same time was issued before.
    pub already: Vec<String>,
    /// When documents are due that wait: for that time, or for usage that may still be on its way.
    pub waiting: BTreeSet<i64>,
}

/// Makes the documents of subscriptions that are asked for, of one customer or all.
///
/// # Errors
/// The lake cannot be read; a price fails and it cannot be told for which customer; the month is not one.
pub async fn documents_of(
    view: &View,
    lake: &Lake,
    settings: &BillingSettings,
    accounts: &Index,
    (which, customer): (&Which, Option<&str>),
    now_us: i64,
) -> Result<Documents> {
    let mut documents = Documents::default();
    let due = asked_for(
        view,
        settings,
        accounts,
        (which, customer),
        now_us,
        &mut documents,
    )?;
    let issued = issued_ids(lake).await?;
    let is_issued = |due: &Due| {
        issued.contains(invoice::InvoiceId::of_document(&due.customer, due.at_us).as_str())
    };
    let (before, due): (Vec<Due>, Vec<Due>) = due.into_iter().partition(is_issued);
    documents.already = before.into_iter().map(|due| due.customer).collect();
    let (rated, in_error) = rate_due(view, accounts, due).await?;
    documents.in_error.extend(in_error);
    let cut = cut(view).await?;
    for rated in rated {
        let customer = &rated.due.customer;
        if documents
            .in_error
            .iter()
            .any(|known| known.customer == *customer)
        {
            continue;
        }
        match assembled(view, &rated, &cut) {
            Ok(None) => {}
            Ok(Some(invoice)) => {
                documents.invoices.push(invoice);
                let basis = basis_of(&rated).to_json();
                documents.made.push((rated.due.at_us, basis));
            }
            Err(error) => {
                documents.in_error.insert(InError {
                    customer: customer.clone(),
                    what: Faulty::Invoice,
                    reason: format!("no invoice can be made of its charges: {}", chain(&error)),
                });
            }
        }
    }
    let due: BTreeSet<i64> = documents.made.iter().map(|(at_us, _)| *at_us).collect();
    for at_us in due {
        if at_us > now_us || !is_complete(view, at_us).await? {
            documents.waiting.insert(at_us);
        }
    }
    Ok(documents)
}

/// What is due, in order of time and customer. Customers whose subscriptions make no sense are in error.
fn asked_for(
    view: &View,
    settings: &BillingSettings,
    accounts: &Index,
    (which, customer): (&Which, Option<&str>),
    now_us: i64,
    documents: &mut Documents,
) -> Result<Vec<Due>> {
    let zone = &settings.time_zone;
    let definitions = &view.catalog().definitions;
    let time = match which {
        Which::Month(month) => {
            // Every zone's month lies in it.
            let month = Period::month(month, "UTC")?;
            let day_us = tollgate_sql::window::DAY_US;
            (
                month.start_us.saturating_sub(day_us),
                month.end_us.saturating_add(day_us),
            )
        }
        Which::Due => (i64::MIN, now_us),
    };
    let mut customers: BTreeSet<&str> = accounts.customers().collect();
    customers.extend(
        accounts
            .subscriptions()
            .map(|rows| rows[0].customer.as_str()),
    );
    customers.retain(|known| customer.is_none_or(|asked| asked == *known));
    let mut all = Vec::new();
    for customer in customers {
        match due_of(accounts, definitions, zone, customer, time) {
            Ok(due) => all.extend(due),
            Err(error) => {
                documents.in_error.insert(InError {
                    customer: customer.to_owned(),
                    what: Faulty::Invoice,
                    reason: chain(&error),
                });
            }
        }
    }
    let mut asked_for = Vec::with_capacity(all.len());
    for due in all {
        let is_asked_for = match which {
            Which::Month(month) => is_of_month(&due, month, zone)?,
            Which::Due => due.issued_from_us(definitions) <= now_us,
        };
        asked_for.extend(is_asked_for.then_some(due));
    }
    asked_for.sort_by(|a, b| (a.at_us, &a.customer).cmp(&(b.at_us, &b.customer)));
    Ok(asked_for)
}

/// The document; `None` when there is nothing to bill.
fn assembled(view: &View, rated: &Rated, cut: &str) -> Result<Option<Invoice>> {
    let mut plans = Vec::new();
    for charged in &rated.charged {
        let plan = view.catalog().definitions.plan(&charged.plan);
        let plan = plan.ok_or(Error::Contradiction {
            what: "a plan with charges is defined",
        })?;
        plans.push(OfPlan {
            plan,
            period: (&charged.cycle_of(&rated.due).period).into(),
            charges: &charged.charges,
        });
    }
    if plans.iter().all(|of_plan| of_plan.charges.is_empty()) {
        return Ok(None);
    }
    let due = &rated.due;
    let of = Document {
        customer: &due.customer,
        at_us: due.at_us,
        period: due.period(),
        cut,
    };
    Ok(Some(document(&of, &plans)?))
}

fn basis_of(rated: &Rated) -> Basis {
    let cycles = rated.due.closing.iter().chain(&rated.due.opening);
    Basis {
        usage: rated.usage.clone(),
        rated_by: rated.rated_by.clone(),
        zone: cycles.map(|cycle| cycle.period.zone().to_owned()).next(),
    }
}

/// Whether every shard is caught up to an instant, with all windows before it closed.
async fn is_complete(view: &View, at_us: i64) -> Result<bool> {
    let until = Period::of(
        invoice::Period {
            start_us: at_us.saturating_sub(1),
            end_us: at_us,
        },
        "UTC",
    )?;
    Ok(view.unfinished_shard(&until).await?.is_none())
}

/// The ids of all issued documents.
async fn issued_ids(lake: &Lake) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    if let Some(invoices) = lake.existing(tables::INVOICES).await? {
        for batch in rows_where(&invoices, lit(true)).await? {
            let column = batch["invoice"].as_string::<i32>();
            ids.extend(column.iter().flatten().map(str::to_owned));
        }
    }
    Ok(ids)
}

/// Issues documents that do not wait, in order.
///
/// # Errors
/// Another job issued at the same time; the lake cannot be written. Running it again is safe after any of them.
pub async fn issue_documents(
    lake: &Lake,
    documents: Documents,
    clock: &dyn Clock,
) -> Result<Issued> {
    let mut invoices = lake
        .table(
            tables::INVOICES,
            &issued_invoices_schema(),
            &[],
            &BTreeMap::new(),
        )
        .await?;
    let mut line_items = lake
        .table(
            tables::LINE_ITEMS,
            &line_items_schema(),
            &[],
            &BTreeMap::new(),
        )
        .await?;
    derive_line_items(&invoices, &mut line_items).await?;
    let now_us = clock.now_us();
    let mut outcome = Issued {
        already: documents.already,
        ..Issued::default()
    };
    let mut bases = Vec::new();
    for (draft, (at_us, basis)) in documents.invoices.into_iter().zip(documents.made) {
        if !documents.waiting.contains(&at_us) {
            outcome.issued.push(draft);
            bases.push(basis);
        }
    }
    if !outcome.issued.is_empty() {
        commit_invoices(&mut invoices, &mut outcome.issued, bases, now_us).await?;
        derive_line_items(&invoices, &mut line_items).await?;
    }
    Ok(outcome)
}
