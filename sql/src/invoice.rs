//! Charges to line items to totals.
//!
//! An [`Invoice`] is what one customer owes at one time: without accounts on one plan for one billing period, with them for all
//! subscriptions whose periods end together. Its parts are made in this order, each a module of its own:
//!
//! ```text
//!  charges ─▶ lines, each rounded once          fixed prices cumulatively by segment
//!          ─▶ discounts                         shares of the lines they apply to
//!          ─▶ maximum, then minimum of a plan   lines of their own
//!          ─▶ adjustments                       what documents that were issued before lack now
//!          ─▶ promotional credits               shares of the lines they pay
//!          ─▶ taxes by region and rate          each rounded once
//!          ─▶ total                             lines − discounts − promotional credits + taxes on top; checked
//!          ─▶ prepaid credits, amount due       what grants pay of the total
//! ```

pub mod adjustments;
pub mod basis;
pub mod bounds;
pub mod changes;
pub mod discounts;
pub mod document;
pub mod instalments;
pub mod kept;
pub mod proration;
pub mod shares;
pub mod tables;
pub mod taxes;
#[cfg(test)]
mod tests;
pub mod unissued;
pub mod void;

use crate::{
    credits::Burn,
    definitions::PlanDefinition,
    error::{Error, Result},
    money::{Currency, Exact, Money, MoneyError},
    rating::{Charge, Dimensions},
};
use adjustments::Corrects;
use bounds::Bounds;
use document::{Document, OfPlan, Tax};
use std::{fmt, sync::Arc};
use xxhash_rust::xxh3::Xxh3;

/// A half-open span `[start_us, end_us)` in microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period {
    /// The first microsecond in it.
    pub start_us: i64,
    /// The first microsecond after it.
    pub end_us: i64,
}

/// Names an invoice for ever: the same customer, plan and period have the same id in every run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InvoiceId(String);

impl Period {
    /// The last instant in it.
    pub fn last_us(&self) -> i64 {
        self.end_us.saturating_sub(1).max(self.start_us)
    }
}

impl InvoiceId {
    /// The id: XXH3-128 in 32 hex digits over customer, plan and the period's start and end.
    ///
    /// Each part is preceded by its length in bytes, so no two sets of parts run together the same way.
    pub fn new(customer: &str, plan: &str, period: Period) -> Self {
        let (start, end) = (period.start_us.to_le_bytes(), period.end_us.to_le_bytes());
        Self::of_parts(&[customer.as_bytes(), plan.as_bytes(), &start, &end])
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Xxh3::new();
        for part in parts {
            // 128 bits hold any length, so the prefix is the same on every machine.
            hash.update(&(part.len() as u128).to_le_bytes());
            hash.update(part);
        }
        Self(format!("{:032x}", hash.digest128()))
    }

    /// The id of what a customer's subscriptions owe at an instant.
    pub fn of_document(customer: &str, at_us: i64) -> Self {
        // No plan is called so.
        let at = Period {
            start_us: at_us,
            end_us: at_us,
        };
        Self::new(customer, "", at)
    }

    /// The id of a document of a billing period of a subscription that is not over, by its place among those of the period, from 1.
    pub fn of_instalment(customer: &str, subscription: &str, start_us: i64, place: u32) -> Self {
        let (start, place) = (start_us.to_le_bytes(), place.to_le_bytes());
        Self::of_parts(&[
            customer.as_bytes(),
            subscription.as_bytes(),
            b"instalment",
            &start,
            &place,
        ])
    }

    /// The id of the document that takes another back, by that one's number.
    pub fn of_void(number: &str) -> Self {
        Self::of_parts(&[number.as_bytes(), b"void"])
    }

    /// The id of a document that is issued again, after it was void so often; the same for zero times.
    pub fn again(&self, times: u32) -> Self {
        match times {
            0 => self.clone(),
            times => Self::of_parts(&[self.0.as_bytes(), b"again", &times.to_le_bytes()]),
        }
    }

    /// The 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InvoiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of a document whose total is below zero.
pub const CREDIT_NOTE: &str = "credit_note";

/// The kind of a document that takes another back whole.
pub const VOID: &str = "void";

/// How far an invoice has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// May still change; has no number.
    Draft,
    /// Issued, numbered, and never changed again.
    Final,
}

impl Status {
    /// The text in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Draft => "draft",
            Status::Final => "final",
        }
    }
}

/// What a line item is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LineKind {
    /// One charge of one price, of a customer without a subscription.
    Charge,
    /// A charge of a price that reads no usage.
    Base,
    /// A charge of a price of usage.
    Usage,
    /// What is billed once.
    OneOff,
    /// What was billed in advance and not used.
    Credit,
    /// What a plan's maximum takes off.
    Maximum,
    /// What a plan's minimum adds.
    Minimum,
    /// What a line of an earlier document lacked, or had too much.
    Adjustment,
    /// A tax on top of the other lines.
    Tax,
    /// A tax that the other lines have in them: it adds nothing.
    TaxIncluded,
}

impl LineKind {
    /// The text in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            LineKind::Charge => "charge",
            LineKind::Base => "base",
            LineKind::Usage => "usage",
            LineKind::OneOff => "one_off",
            LineKind::Credit => "credit",
            LineKind::Maximum => "maximum",
            LineKind::Minimum => "minimum",
            LineKind::Adjustment => "adjustment",
            LineKind::Tax => "tax",
            LineKind::TaxIncluded => "tax_included",
        }
    }

    /// The kind with this text in tables; `None` when there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            LineKind::Charge,
            LineKind::Base,
            LineKind::Usage,
            LineKind::OneOff,
            LineKind::Credit,
            LineKind::Maximum,
            LineKind::Minimum,
            LineKind::Adjustment,
            LineKind::Tax,
            LineKind::TaxIncluded,
        ];
        all.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it is a tax, on top of other lines or in them.
    pub fn is_tax(self) -> bool {
        matches!(self, LineKind::Tax | LineKind::TaxIncluded)
    }
}

/// One printed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineItem {
    /// What it is for.
    pub kind: LineKind,
    /// The price it comes from; `None` for kinds that belong to the whole invoice.
    pub price: Option<Arc<str>>,
    /// That price's version.
    pub price_version: Option<u32>,
    /// The price's dimensions in its order; `None` is NULL.
    pub dimensions: Dimensions,
    /// How much was used, if the price says so.
    pub quantity: Option<Exact>,
    /// The amount before rounding.
    pub amount_exact: Exact,
    /// The amount that is owed, before discounts.
    pub amount: Money,
    /// What discounts take off it.
    pub discount: Money,
    /// What promotional credits take off it.
    pub promotional: Money,
    /// When the usage happened; a later correction keeps the period it corrects.
    pub period: Period,
    /// The subscription that it is for; `None` without accounts, and for lines of the whole document.
    pub subscription: Option<Arc<str>>,
    /// What it is, in words, where no price says so.
    pub text: Option<String>,
    /// The line of an earlier document that it corrects; `None` of a line of its own document.
    pub corrects: Option<Corrects>,
}

impl LineItem {
    /// A line of a kind and an amount for some time, with nothing else.
    pub fn of(kind: LineKind, amount: Money, period: Period) -> Self {
        let zero = Money::zero(amount.currency());
        LineItem {
            kind,
            price: None,
            price_version: None,
            dimensions: Dimensions::from([]),
            quantity: None,
            amount_exact: amount.to_exact(),
            amount,
            discount: zero,
            promotional: zero,
            period,
            subscription: None,
            text: None,
            corrects: None,
        }
    }

    /// Its kind, and that of the line that it corrects where it is an adjustment.
    pub fn billed_kind(&self) -> LineKind {
        self.corrects.as_ref().map_or(self.kind, |of| of.kind)
    }
}

/// What one customer owes on one plan for one billing period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The same in every run.
    pub id: InvoiceId,
    /// The gapless number; `None` until it is final.
    pub number: Option<String>,
    /// Who pays.
    pub customer: String,
    /// The plan.
    pub plan: String,
    /// The billing period.
    pub period: Period,
    /// How far it has come.
    pub status: Status,
    /// When it became final, in microseconds since the Unix epoch.
    pub issued_at_us: Option<i64>,
    /// Who issued it, if that is known.
    pub issued_by: Option<String>,
    /// The number of the document that it takes back whole.
    pub voids: Option<String>,
    /// Up to where usage was known, as [`Terms::cut`] said.
    pub cut: String,
    /// The lines, in the order they are printed.
    pub lines: Vec<LineItem>,
    /// What discounts take off the lines.
    pub discount: Money,
    /// What promotional credits take off the lines.
    pub promotional: Money,
    /// The taxes, on top or in the lines.
    pub tax: Money,
    /// The sum of the lines less their discounts and promotional credits, with taxes.
    pub total: Money,
    /// What prepaid credits pay of the total.
    pub credits: Money,
    /// What is left to pay.
    pub amount_due: Money,
    /// What each grant pays, in order.
    pub burns: Vec<Burn>,
}

impl Invoice {
    /// What it is called in tables: `void` when it takes another back, `credit_note` when its total is below zero, else `invoice`.
    pub fn kind(&self) -> &'static str {
        match (&self.voids, self.total.minor() < 0) {
            (Some(_), _) => VOID,
            (None, true) => CREDIT_NOTE,
            (None, false) => "invoice",
        }
    }

    /// What it bills of an earlier document, by its number: a part of the total.
    ///
    /// # Errors
    /// [`crate::money::MoneyError`] past 38 digits.
    pub fn corrected(&self, number: &str) -> Result<Exact, MoneyError> {
        let mut sum = Money::zero(self.total.currency());
        let lines = self.lines.iter().filter(|line| {
            line.kind != LineKind::TaxIncluded
                && line.corrects.as_ref().is_some_and(|of| of.number == number)
        });
        for line in lines {
            sum = sum.checked_add(line.amount)?.checked_sub(line.discount)?;
            sum = sum.checked_sub(line.promotional)?;
        }
        Ok(sum.to_exact())
    }
}

/// What an invoice is made for.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Who pays.
    pub customer: &'a str,
    /// The plan whose prices gave the charges.
    pub plan: &'a PlanDefinition,
    /// The billing period.
    pub period: Period,
    /// Up to where usage is known: a JSON object from shard to sequence, such as `{"USAGE":1042}`.
    pub cut: &'a str,
}

/// Makes the draft invoice of one customer from the charges of the plan's prices.
///
/// Lines follow the plan's order of prices, then dimensions (NULL first), then version, quantity and amount,
/// whatever the order of the charges. A charge of zero keeps its line, because its quantity is part of
/// what the customer is told. With no charges the invoice has no lines and a total of zero.
///
/// # Errors
/// [`Error::Invoice`] for a charge of another customer, currency or plan; [`Error::Money`] for an amount
/// or total that does not fit 38 digits, or a currency without a minor unit.
pub fn assemble(terms: &Terms<'_>, charges: &[Charge]) -> Result<Invoice> {
    let plan = OfPlan {
        plan: terms.plan,
        subscription: None,
        period: terms.period,
        charges,
        bounds: Bounds {
            minimum: terms.plan.terms.minimum,
            maximum: terms.plan.terms.maximum,
        },
        counted: Exact::ZERO,
    };
    let document = Document {
        id: InvoiceId::new(terms.customer, &terms.plan.name, terms.period),
        customer: terms.customer,
        period: terms.period,
        cut: terms.cut,
        currency: &terms.plan.currency,
        one_offs: &[],
        discounts: &[],
        tax: Tax::default(),
        grants: &[],
        burnt: &[],
        corrections: &[],
        begun: &[],
    };
    document::document(document, &[plan])
}

/// Where the charge's price stands in the plan, once it is certain that it belongs there.
fn place(terms: &Terms<'_>, charge: &Charge) -> Result<usize> {
    let refused = |problem: String| Error::Invoice {
        customer: terms.customer.to_owned(),
        plan: terms.plan.name.clone(),
        problem,
    };
    if *charge.customer != *terms.customer {
        return Err(refused(format!(
            "a charge is for customer `{}`",
            charge.customer
        )));
    }
    if terms.plan.worth_of(&charge.currency).is_none() {
        let (price, plan) = (&charge.currency, &terms.plan.currency);
        let name = &charge.price;
        return Err(refused(format!(
            "price `{name}` is in {price}, the plan in {plan}"
        )));
    }
    let mut prices = terms.plan.prices.iter();
    prices
        .position(|price| **price == *charge.price)
        .ok_or_else(|| refused(format!("price `{}` is not in the plan", charge.price)))
}

/// What a charge is on a plan: its amount in the plan's currency, exactly, and the same rounded to the minor unit. An
/// amount in a currency of one's own is rounded there and nowhere before.
///
/// # Errors
/// [`Error::Money`] for an amount that does not fit 38 digits.
pub fn amount_on(
    plan: &PlanDefinition,
    charge: &Charge,
    currency: Currency,
) -> Result<(Exact, Money)> {
    let amount = match plan.worth_of(&charge.currency) {
        Some(worth) if *charge.currency != *plan.currency => charge.amount.checked_mul(worth)?,
        _ => charge.amount,
    };
    Ok((amount, Money::round(amount, currency)?))
}
