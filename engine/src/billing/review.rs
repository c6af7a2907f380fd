//! What a billing job must say beside its invoices: what has changed since a period was issued, whose invoice
//! would bill something twice, and what lies between two billing periods.

use super::{Drafts, draft_on, lines_of, rows_where};
use crate::{
    error::{Error, Result, printable},
    tables,
    view::View,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Decimal128Type, TimestampMicrosecondType},
};
use datafusion::prelude::{Expr, col};
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::{
    invoice::{
        Invoice,
        basis::Basis,
        changes::{Cause, Change, Issued as Document, IssuedLine, change},
    },
    money::{Exact, MoneyError},
    period::Period,
    schema,
    window::DAY_US,
};

/// What there is to say about a billing period beside its invoices.
#[derive(Debug, Default)]
pub struct Review {
    /// Invoices of the period that would be others now, by number. They stand.
    pub changed: Vec<Change>,
    /// Drafts that are not issued, by customer.
    pub refused: Vec<Refused>,
    /// The time between the billing period that was issued before and this one, if there is any.
    pub gap: Option<Gap>,
}

impl Review {
    /// Leaves what concerns customers for whom something holds.
    fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.changed.retain(|change| is_wanted(&change.customer));
        self.refused.retain(|refused| is_wanted(&refused.customer));
        if let Some(gap) = &mut self.gap {
            gap.invoices.retain(|invoice| is_wanted(&invoice.customer));
        }
    }
}

/// A customer who gets no invoice, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The customer.
    pub customer: String,
    /// What would be billed twice, with the amounts and the invoice that has it.
    pub reason: String,
}

/// Time that is in no billing period, because the billing time zone changed.
#[derive(Debug)]
pub struct Gap {
    /// From when to when.
    pub period: Period,
    /// What the usage in it comes to, by customer.
    pub invoices: Vec<Invoice>,
}

/// The longest time between two billing periods that is a change of time zone, not a period that was left out.
const GAP_US_MAX: i64 = 2 * DAY_US;

/// The review of drafts that are not to be issued.
///
/// # Errors
/// The lake cannot be read, or a price fails.
pub async fn review_of(
    view: &View,
    lake: &Lake,
    drafts: &Drafts,
    period: &Period,
) -> Result<Review> {
    match lake.existing(tables::INVOICES).await? {
        Some(invoices) => review(view, &invoices, drafts, period).await,
        None => Ok(Review::default()),
    }
}

pub(super) async fn review(
    view: &View,
    invoices: &dyn Table,
    drafts: &Drafts,
    period: &Period,
) -> Result<Review> {
    let documents = documents(invoices, super::within(period)).await?;
    let changed = changes(&documents, drafts)?;
    let mut refused = billed_elsewhere(&documents, &changed, drafts);
    refused.extend(moved_sessions(view, invoices, drafts, period).await?);
    refused.sort_by(|a, b| a.customer.cmp(&b.customer));
    refused.dedup_by(|a, b| a.customer == b.customer);
    let mut review = Review {
        changed,
        refused,
        gap: gap_before(view, invoices, drafts, period).await?,
    };
    review.retain(|customer| drafts.is_asked_for(customer));
    Ok(review)
}

/// Compares every document with what it would be now, where that can be told.
fn changes(documents: &[Document], drafts: &Drafts) -> Result<Vec<Change>> {
    let mut changed = Vec::new();
    let is_known = |document: &&Document| {
        let mut in_error = drafts.in_error.iter();
        !in_error.any(|known| known.customer == document.customer)
    };
    for document in documents.iter().filter(is_known) {
        let customer = &document.customer;
        let now = change(document, drafts.of(customer), &drafts.basis(customer));
        changed.extend(now.map_err(tollgate_sql::Error::from)?);
    }
    Ok(changed)
}

/// Customers without usage of their own whose first invoice of an issued period could be for what others were billed
/// for: a price or rate table that was changed since may have moved it.
fn billed_elsewhere(documents: &[Document], changed: &[Change], drafts: &Drafts) -> Vec<Refused> {
    let is_rating = |cause: &Cause| *cause != Cause::Usage;
    let moved = changed
        .iter()
        .find(|change| change.difference.is_negative() && change.causes.iter().any(is_rating));
    let Some(moved) = moved else {
        return Vec::new();
    };
    let was_issued = |draft: &Invoice| documents.iter().any(|d| d.customer == draft.customer);
    let drafts = drafts
        .invoices
        .iter()
        .filter(|draft| !was_issued(draft) && !drafts.usage.contains_key(&draft.customer));
    let refused = drafts.map(|draft| Refused {
        customer: draft.customer.clone(),
        reason: format!(
            "its {} {} may be a part of what invoice {} of `{}` billed: that was {}, and would be {} now, because \
             {} has changed",
            draft.total.amount_text(),
            draft.total.currency().code(),
            moved.number,
            moved.customer,
            moved.issued,
            moved.now,
            causes_text(&moved.causes),
        ),
    });
    refused.collect()
}

/// Causes, joined.
pub fn causes_text(causes: &[Cause]) -> String {
    let causes: Vec<String> = causes.iter().map(Cause::to_string).collect();
    causes.join(", ")
}

/// Customers with a session that ends in this period and began before it, while the invoice for the time in which
/// it began billed other usage than there is now: the session moved here after it was billed there.
async fn moved_sessions(
    view: &View,
    invoices: &dyn Table,
    drafts: &Drafts,
    period: &Period,
) -> Result<Vec<Refused>> {
    let crossing = crossing_sessions(view, period).await?;
    let Some(first_us) = crossing.values().min() else {
        return Ok(Vec::new());
    };
    let before = col("period_end")
        .gt(schema::instant(*first_us))
        .and(col("period_end").lt_eq(schema::instant(period.start_us)));
    let mut refused = Vec::new();
    for (start_us, end_us) in periods(invoices, before).await? {
        let earlier = period.between(start_us, end_us);
        let documents = documents(invoices, super::within(&earlier)).await?;
        let of_sessions = |document: &Document| crossing.contains_key(&document.customer);
        let documents: Vec<Document> = documents.into_iter().filter(of_sessions).collect();
        let then = draft_on(view, &drafts.plan, &earlier).await?;
        // What that invoice would be now cannot be told, so neither can it be whether the session moved.
        for known in &then.in_error {
            let document = documents.iter().find(|d| d.customer == known.customer);
            refused.extend(document.map(|document| Refused {
                customer: known.customer.clone(),
                reason: format!(
                    "a session that ends in this period began before it, and it cannot be told whether invoice {} \
                     billed a part of it: {}",
                    document.number,
                    printable(&known.reason)
                ),
            }));
        }
        for change in changes(&documents, &then)? {
            let is_of_usage = |cause: &Cause| matches!(cause, Cause::Usage | Cause::Rating);
            if !change.causes.iter().any(is_of_usage) {
                continue;
            }
            let draft = drafts.of(&change.customer);
            let total = draft.map_or("0".to_owned(), |draft| draft.total.amount_text());
            refused.push(Refused {
                reason: format!(
                    "a session that ends in this period began before it, and invoice {} billed {} for that time, which \
                     would be {} now: an invoice of {total} {} would bill a part of it twice",
                    change.number, change.issued, change.now, change.currency
                ),
                customer: change.customer,
            });
        }
    }
    Ok(refused)
}

/// Customers with a session that ends in a period and began before it, and when the first of theirs did.
async fn crossing_sessions(view: &View, period: &Period) -> Result<BTreeMap<String, i64>> {
    let mut crossing: BTreeMap<String, i64> = BTreeMap::new();
    for (index, meter) in view.catalog().meters.iter().enumerate() {
        if !meter.has_sessions() {
            continue;
        }
        let sessions = view.windows(index, Some(period)).await?;
        let customers = sessions["customer"].as_string::<i32>();
        let starts = sessions["window_start"].as_primitive::<TimestampMicrosecondType>();
        for row in (0..sessions.num_rows()).filter(|row| starts.value(*row) < period.start_us) {
            let first = crossing.entry(customers.value(row).to_owned());
            let first = first.or_insert(starts.value(row));
            *first = (*first).min(starts.value(row));
        }
    }
    Ok(crossing)
}

/// What was used between the end of the newest billing period before this one and its start.
async fn gap_before(
    view: &View,
    invoices: &dyn Table,
    drafts: &Drafts,
    period: &Period,
) -> Result<Option<Gap>> {
    let before = col("period_end")
        .lt_eq(schema::instant(period.start_us))
        .and(col("period_end").gt(schema::instant(period.start_us.saturating_sub(GAP_US_MAX))));
    let ends = periods(invoices, before)
        .await?
        .into_iter()
        .map(|(_, end)| end);
    let Some(end_us) = ends.max().filter(|end_us| *end_us < period.start_us) else {
        return Ok(None);
    };
    let between = period.between(end_us, period.start_us);
    let drafts = draft_on(view, &drafts.plan, &between).await?;
    Ok((!drafts.invoices.is_empty()).then_some(Gap {
        period: between,
        invoices: drafts.invoices,
    }))
}

/// The billing periods of invoices for which something holds, in microseconds, each once.
async fn periods(invoices: &dyn Table, condition: Expr) -> Result<BTreeSet<(i64, i64)>> {
    let mut periods = BTreeSet::new();
    for batch in rows_where(invoices, condition).await? {
        let [starts, ends] = ["period_start", "period_end"].map(|name| {
            batch[name]
                .as_primitive::<TimestampMicrosecondType>()
                .clone()
        });
        periods.extend(
            starts
                .values()
                .iter()
                .copied()
                .zip(ends.values().iter().copied()),
        );
    }
    Ok(periods)
}

/// Issued documents for which something holds, in order of number.
async fn documents(invoices: &dyn Table, condition: Expr) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for batch in rows_where(invoices, condition).await? {
        for row in 0..batch.num_rows() {
            documents.push(document(&batch, row)?);
        }
    }
    Ok(documents)
}

pub(super) fn document(batch: &RecordBatch, row: usize) -> Result<Document> {
    let text = |name: &str| batch[name].as_string::<i32>().value(row).to_owned();
    let lines = lines_of(&text("document"), &text("cut"))?;
    let number = |error: MoneyError| Error::from(tollgate_sql::Error::from(error));
    let mut all = Vec::with_capacity(lines.num_rows());
    for line in 0..lines.num_rows() {
        let text = |name: &str| {
            let column = lines[name].as_string::<i32>();
            column.is_valid(line).then(|| column.value(line).to_owned())
        };
        let quantity = text("quantity").map(|quantity| Exact::parse(&quantity));
        let amount = text("amount_exact").unwrap_or_default();
        all.push(IssuedLine {
            price: text("price").unwrap_or_default(),
            dimensions: text("dimensions").unwrap_or_default(),
            quantity: quantity.transpose().map_err(number)?,
            amount_exact: Exact::parse(&amount).map_err(number)?,
        });
    }
    let basis = batch
        .column_by_name("basis")
        .map(|column| column.as_string::<i32>());
    let basis = basis.filter(|basis| basis.is_valid(row));
    let total = batch["total"].as_primitive::<Decimal128Type>();
    Ok(Document {
        number: text("number"),
        customer: text("customer"),
        lines: all,
        basis: basis.and_then(|basis| Basis::from_json(basis.value(row))),
        total: Exact::from_decimal(total.value(row), total.scale())
            .map_err(number)?
            .without_trailing_zeros(),
        currency: text("currency"),
    })
}
