//! What a billing job must say beside its invoices: what has changed since a period was issued, whose invoice
//! would bill something twice, and what lies between two billing periods.

use super::{
    Drafts,
    documents::{Document, Now, RatedAs, compare, documents, of_customers, within},
    draft_or_causes,
};
use crate::{
    customers::Customers,
    error::{InError, Result, printable, query_error},
    tables,
    view::View,
};
use arrow::{
    array::{Array, AsArray},
    datatypes::TimestampMicrosecondType,
};
use datafusion::{
    functions_aggregate::expr_fn::max,
    prelude::{Expr, SessionContext, col},
};
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
    /// Adds what there is to say of other customers.
    pub fn extend(&mut self, other: Review) {
        self.changed.extend(other.changed);
        self.changed.sort_by(|a, b| a.number.cmp(&b.number));
        self.untold.extend(other.untold);
        self.untold.sort_by(|a, b| a.number.cmp(&b.number));
        self.refused.extend(other.refused);
        self.refused.sort_by(|a, b| a.customer.cmp(&b.customer));
        match (&mut self.gap, other.gap) {
            (Some(gap), Some(other)) => {
                gap.invoices.extend(other.invoices);
                gap.in_error.extend(other.in_error);
            }
            (gap @ None, other) => *gap = other,
            (Some(_), None) => {}
        }
    }

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
    let invoices = lake.existing(tables::INVOICES).await?;
    let invoices = invoices.as_ref().map(|invoices| invoices as &dyn Table);
    let mut reviewing = Reviewing::begin(invoices, period).await?;
    let (mut review, _) = reviewing.add(view, invoices, drafts, period).await?;
    review.refused.extend(reviewing.billed_elsewhere());
    review.refused.sort_by(|a, b| a.customer.cmp(&b.customer));
    Ok(review)
}

/// What is found while the drafts of one range of customers after the other are looked at.
#[derive(Debug, Default)]
pub struct Reviewing {
    /// Whether invoices of the period were issued before.
    has_documents: bool,
    /// When the newest billing period before this one ends, if it does not end where this one begins.
    gap_from_us: Option<i64>,
    /// The issued invoice with the first number that billed more than it would now, by another price or rate table.
    moved: Option<Change>,
    /// Drafts of customers without usage and invoice, of a period that has invoices: customer, total and currency.
    held: Vec<(String, String, &'static str)>,
}

impl Reviewing {
    /// Begins before the first draft of a period.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn begin(invoices: Option<&dyn Table>, period: &Period) -> Result<Self> {
        let Some(invoices) = invoices else {
            return Ok(Reviewing::default());
        };
        let before = col("period_end")
            .lt_eq(schema::instant(period.start_us))
            .and(col("period_end").gt(schema::instant(period.start_us.saturating_sub(GAP_US_MAX))));
        let ended_us = last_end(invoices, before).await?;
        Ok(Reviewing {
            has_documents: last_end(invoices, within(period)).await?.is_some(),
            gap_from_us: ended_us.filter(|end_us| *end_us < period.start_us),
            ..Reviewing::default()
        })
    }

    /// What there is to say of drafts, and which of their customers may be refused when all are looked at.
    ///
    /// # Errors
    /// The lake cannot be read, or a price fails.
    pub async fn add(
        &mut self,
        view: &View,
        invoices: Option<&dyn Table>,
        drafts: &Drafts,
        period: &Period,
    ) -> Result<(Review, BTreeSet<String>)> {
        let Some(invoices) = invoices else {
            return Ok((Review::default(), BTreeSet::new()));
        };
        let of_range = within(period).and(of_customers(&drafts.customers));
        let documents = match self.has_documents {
            true => documents(invoices, of_range).await?,
            false => Vec::new(),
        };
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
        let of = (documents.as_slice(), &drafts.customers);
        for (document, now) in compare(view, of, period.zone(), Some(drafts)).await? {
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
        let held = self.hold(&documents, &review.changed, drafts);
        review.refused = moved_sessions(view, invoices, drafts, period).await?;
        review.refused.sort_by(|a, b| a.customer.cmp(&b.customer));
        review.refused.dedup_by(|a, b| a.customer == b.customer);
        review.gap = self.gap(view, drafts, period).await?;
        review.retain(|customer| drafts.is_asked_for(customer));
        Ok((review, held))
    }

    /// Notes what is told by all drafts together.
    fn hold(
        &mut self,
        documents: &[Document],
        changed: &[Change],
        drafts: &Drafts,
    ) -> BTreeSet<String> {
        let is_rating = |cause: &Cause| *cause != Cause::Usage;
        let moved = changed
            .iter()
            .find(|change| change.difference.is_negative() && change.causes.iter().any(is_rating));
        if let Some(moved) = moved
            && self
                .moved
                .as_ref()
                .is_none_or(|known| moved.number < known.number)
        {
            self.moved = Some(moved.clone());
        }
        if !self.has_documents {
            return BTreeSet::new();
        }
        let issued = documents.iter().map(|document| &document.issued.customer);
        let issued: BTreeSet<&String> = issued.collect();
        let drafts = drafts
            .invoices
            .iter()
            .filter(|draft| !issued.contains(&draft.customer) && !drafts.used.has(&draft.customer));
        let mut held = BTreeSet::new();
        for draft in drafts {
            let (total, currency) = (draft.total.amount_text(), draft.total.currency().code());
            self.held.push((draft.customer.clone(), total, currency));
            held.insert(draft.customer.clone());
        }
        held
    }

    /// Customers without usage of their own whose first invoice of an issued period could be for what others were billed
    /// for: a price or rate table that was changed since may have moved it.
    pub fn billed_elsewhere(&self) -> Vec<Refused> {
        let Some(moved) = &self.moved else {
            return Vec::new();
        };
        let refused = self.held.iter().map(|(customer, total, currency)| Refused {
            customer: customer.clone(),
            reason: format!(
                "its {total} {currency} may be a part of what invoice {} of `{}` billed: that was {}, and would be {} now, because \
                 {} has changed",
                moved.number,
                moved.customer,
                moved.issued,
                moved.now,
                causes_text(&moved.causes),
            ),
        });
        refused.collect()
    }

    /// What was used between the end of the newest billing period before this one and its start.
    async fn gap(&self, view: &View, drafts: &Drafts, period: &Period) -> Result<Option<Gap>> {
        let Some(end_us) = self.gap_from_us else {
            return Ok(None);
        };
        let between = period.between(end_us, period.start_us);
        let terms = RatedAs::of(&between, &drafts.plan);
        let drafts = draft_or_causes(view, &terms, &drafts.customers, BTreeSet::new()).await?;
        let is_nothing = drafts.invoices.is_empty() && drafts.in_error.is_empty();
        Ok((!is_nothing).then_some(Gap {
            period: between,
            invoices: drafts.invoices,
            in_error: drafts.in_error,
        }))
    }
}

/// When the last period ends of issued invoices for which something holds.
async fn last_end(invoices: &dyn Table, condition: Expr) -> Result<Option<i64>> {
    let doing = "reading issued invoices";
    let frame = SessionContext::new()
        .read_table(invoices.provider()?)
        .and_then(|frame| frame.filter(condition))
        .and_then(|frame| frame.aggregate(vec![], vec![max(col("period_end")).alias("last")]))
        .map_err(query_error(doing))?;
    let rows = frame.collect().await.map_err(query_error(doing))?;
    let last = rows.iter().find_map(|rows| {
        let last = rows["last"].as_primitive::<TimestampMicrosecondType>();
        (last.len() > last.null_count()).then(|| last.value(0))
    });
    Ok(last)
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
    let crossing = crossing_sessions(view, period, &drafts.customers).await?;
    let Some(first_us) = crossing.values().min() else {
        return Ok(Vec::new());
    };
    let before = col("period_end")
        .gt(schema::instant(*first_us))
        .and(col("period_end").lt_eq(schema::instant(period.start_us)))
        .and(of_customers(&drafts.customers));
    let mut documents = documents(invoices, before).await?;
    documents.retain(|document| crossing.contains_key(&document.issued.customer));
    let mut refused = Vec::new();
    let of = (documents.as_slice(), &drafts.customers);
    for (document, now) in compare(view, of, period.zone(), None).await? {
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
async fn crossing_sessions(
    view: &View,
    period: &Period,
    of: &Customers,
) -> Result<BTreeMap<String, i64>> {
    let mut crossing: BTreeMap<String, i64> = BTreeMap::new();
    for (index, meter) in view.catalog().meters.iter().enumerate() {
        if !meter.has_sessions() {
            continue;
        }
        let sessions = view.windows_of_customers(index, period, of).await?;
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
