//! What a billing job must say beside its invoices: what has changed since a period was issued, whose invoice
//! would bill something twice, and what lies between two billing periods.

use super::{
    Drafts,
    documents::{Document, Now, RatedAs, compare, documents, rows_where, within},
    draft_or_causes,
};
use crate::{
    error::{InError, Result, printable},
    tables,
    view::View,
};
use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use datafusion::prelude::col;
use std::collections::{BTreeMap, BTreeSet};
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::{
    invoice::{
        Invoice,
        changes::{Cause, Change},
    },
    money::Exact,
    period::Period,
    schema,
    window::DAY_US,
};

/// What there is to say about a billing period beside its invoices.
#[derive(Debug, Default)]
pub struct Review {
    /// Invoices of the period that would be others now, by number. They stand.
    pub changed: Vec<Change>,
    /// Invoices of the period of which it cannot be told what they would be now, by number. They stand.
    pub untold: Vec<Untold>,
    /// Drafts that are not issued, by customer.
    pub refused: Vec<Refused>,
    /// The time between the billing period that was issued before and this one, if there is any.
    pub gap: Option<Gap>,
}

impl Review {
    /// Leaves what concerns customers for whom something holds.
    fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.changed.retain(|change| is_wanted(&change.customer));
        self.untold.retain(|untold| is_wanted(&untold.customer));
        self.refused.retain(|refused| is_wanted(&refused.customer));
        if let Some(gap) = &mut self.gap {
            gap.invoices.retain(|invoice| is_wanted(&invoice.customer));
            gap.in_error.retain(|known| is_wanted(&known.customer));
        }
    }
}

/// An issued invoice of which it cannot be told what it would be now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// Its customer.
    pub customer: String,
    /// Its number.
    pub number: String,
    /// What it billed.
    pub issued: Exact,
    /// ISO 4217 code.
    pub currency: String,
    /// Why.
    pub reason: String,
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
    /// Customers of whom that cannot be told.
    pub in_error: BTreeSet<InError>,
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
    let documents = documents(invoices, within(period)).await?;
    let with_others;
    let drafts = match drafts.lacks_others() && !documents.is_empty() {
        true => {
            // What one customer has to pay may have been billed to another.
            with_others = drafts.with_others(view).await?;
            &with_others
        }
        false => drafts,
    };
    let mut review = Review::default();
    for (document, now) in compare(view, &documents, period.zone(), Some(drafts)).await? {
        match now {
            Now::Same => {}
            Now::Changed(change) => review.changed.push(change),
            // Customers whose drafts are in error are named with them.
            Now::Untold(_) if document.rated_as(period.zone()) == drafts.rated_as() => {}
            Now::Untold(reason) => review.untold.push(Untold {
                customer: document.issued.customer.clone(),
                number: document.issued.number.clone(),
                issued: document.issued.total,
                currency: document.issued.currency.clone(),
                reason,
            }),
        }
    }
    review.refused = billed_elsewhere(&documents, &review.changed, drafts);
    let moved = moved_sessions(view, invoices, drafts, period).await?;
    review.refused.extend(moved);
    review.refused.sort_by(|a, b| a.customer.cmp(&b.customer));
    review.refused.dedup_by(|a, b| a.customer == b.customer);
    review.gap = gap_before(view, invoices, drafts, period).await?;
    review.retain(|customer| drafts.is_asked_for(customer));
    Ok(review)
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
    let was_issued = |draft: &Invoice| {
        documents
            .iter()
            .any(|d| d.issued.customer == draft.customer)
    };
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
    let mut documents = documents(invoices, before).await?;
    documents.retain(|document| crossing.contains_key(&document.issued.customer));
    let mut refused = Vec::new();
    for (document, now) in compare(view, &documents, period.zone(), None).await? {
        let customer = document.issued.customer.clone();
        let reason = match now {
            Now::Changed(change) if is_of_usage(&change) => {
                let draft = drafts.of(&customer);
                let total = draft.map_or("0".to_owned(), |draft| draft.total.amount_text());
                format!(
                    "a session that ends in this period began before it, and invoice {} billed {} for that time, which \
                     would be {} now: an invoice of {total} {} would bill a part of it twice",
                    change.number, change.issued, change.now, change.currency
                )
            }
            Now::Same | Now::Changed(_) => continue,
            // So neither can it be told whether the session moved.
            Now::Untold(reason) => format!(
                "a session that ends in this period began before it, and it cannot be told whether invoice {} \
                 billed a part of it: {}",
                document.issued.number,
                printable(&reason)
            ),
        };
        refused.push(Refused { customer, reason });
    }
    Ok(refused)
}

fn is_of_usage(change: &Change) -> bool {
    let mut causes = change.causes.iter();
    causes.any(|cause| matches!(cause, Cause::Usage | Cause::Rating))
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
    let mut end_us = None;
    for batch in rows_where(invoices, before).await? {
        let ends = batch["period_end"].as_primitive::<TimestampMicrosecondType>();
        end_us = end_us.max(ends.values().iter().copied().max());
    }
    let Some(end_us) = end_us.filter(|end_us| *end_us < period.start_us) else {
        return Ok(None);
    };
    let between = period.between(end_us, period.start_us);
    let terms = RatedAs::of(&between, &drafts.plan);
    let drafts = draft_or_causes(view, &terms, BTreeSet::new()).await?;
    let is_nothing = drafts.invoices.is_empty() && drafts.in_error.is_empty();
    Ok((!is_nothing).then_some(Gap {
        period: between,
        invoices: drafts.invoices,
        in_error: drafts.in_error,
    }))
}
