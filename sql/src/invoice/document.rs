//! One document of a customer: what several subscriptions are charged at one instant.

use super::{Invoice, InvoiceId, LineItem, LineKind, Period, Status, total};
use crate::{
    definitions::PlanDefinition,
    error::{Error, Result},
    money::{Currency, Exact, Money},
    rating::Charge,
};

/// What a document is made for.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// Who pays.
    pub customer: &'a str,
    /// When it is due, in microseconds: with the customer it names the document for ever.
    pub at_us: i64,
    /// The time that it is for.
    pub period: Period,
    /// Up to where usage is known, as [`super::Terms::cut`] says.
    pub cut: &'a str,
}

/// What a plan charges for a billing period of one subscription.
#[derive(Debug, Clone, Copy)]
pub struct OfPlan<'a> {
    /// The plan whose prices gave the charges.
    pub plan: &'a PlanDefinition,
    /// The billing period.
    pub period: Period,
    /// The charges.
    pub charges: &'a [Charge],
}

/// Makes the draft of one document.
///
/// Lines follow the order of the plans, in each that of its prices, then dimensions and time. Charges of one price and
/// dimensions for times that follow one another are rounded cumulatively: what they come to up to the end of each, rounded,
/// less what was rounded before, so that three thirds of 10.00 are 10.00.
///
/// # Errors
/// [`Error::Invoice`] for a charge of another customer or plan, or plans in two currencies; [`Error::Money`] for an amount or
/// total that does not fit 38 digits.
pub fn document(document: &Document<'_>, plans: &[OfPlan<'_>]) -> Result<Invoice> {
    let refused = |plan: &PlanDefinition, problem: String| Error::Invoice {
        customer: document.customer.to_owned(),
        plan: plan.name.clone(),
        problem,
    };
    let Some(first) = plans.first() else {
        return Err(Error::Invoice {
            customer: document.customer.to_owned(),
            plan: String::new(),
            problem: "a document has no plan".into(),
        });
    };
    let currency = Currency::parse(&first.plan.currency)?;
    let mut lines = Vec::new();
    for of_plan in plans {
        if of_plan.plan.currency != first.plan.currency {
            let problem = format!(
                "it is in {}, and plan `{}` of the same document in {}",
                of_plan.plan.currency, first.plan.name, first.plan.currency
            );
            return Err(refused(of_plan.plan, problem));
        }
        lines.extend(lines_of(document, of_plan, currency)?);
    }
    let mut names: Vec<&str> = plans.iter().map(|of| of.plan.name.as_str()).collect();
    names.dedup();
    Ok(Invoice {
        id: InvoiceId::of_document(document.customer, document.at_us),
        number: None,
        customer: document.customer.to_owned(),
        plan: names.join(", "),
        period: document.period,
        status: Status::Draft,
        issued_at_us: None,
        cut: document.cut.to_owned(),
        total: total(&lines, currency)?,
        lines,
    })
}

fn lines_of(
    document: &Document<'_>,
    of_plan: &OfPlan<'_>,
    currency: Currency,
) -> Result<Vec<LineItem>> {
    let terms = super::Terms {
        customer: document.customer,
        plan: of_plan.plan,
        period: of_plan.period,
        cut: document.cut,
    };
    let mut placed = Vec::with_capacity(of_plan.charges.len());
    for charge in of_plan.charges {
        let service = charge.service.unwrap_or(of_plan.period);
        placed.push((super::place(&terms, charge)?, service, charge));
    }
    placed.sort_by_key(|(place, service, charge)| {
        (
            *place,
            &charge.dimensions,
            *service,
            charge.price_version,
            charge.quantity,
            charge.amount,
        )
    });
    let mut lines = Vec::with_capacity(placed.len());
    // What charges of one price and dimensions come to so far, exactly and rounded, and until when.
    let mut so_far: Option<(&Charge, Period, Exact, Money)> = None;
    for (_, service, charge) in placed {
        let (exact, _) = super::amount_on(of_plan.plan, charge, currency)?;
        let goes_on = so_far.filter(|(before, until, ..)| {
            charge.is_fixed
                && before.price == charge.price
                && before.dimensions == charge.dimensions
                && until.end_us <= service.start_us
        });
        let (before, rounded_before) = match goes_on {
            Some((_, _, before, rounded)) => (before, rounded),
            None => (Exact::ZERO, Money::zero(currency)),
        };
        let sum = before.checked_add(exact)?;
        let rounded = Money::round(sum, currency)?;
        let amount = rounded.to_exact().checked_sub(rounded_before.to_exact())?;
        lines.push(LineItem {
            kind: match charge.is_fixed {
                true => LineKind::Base,
                false => LineKind::Usage,
            },
            price: Some(charge.price.clone()),
            price_version: Some(charge.price_version),
            dimensions: charge.dimensions.clone(),
            quantity: charge.quantity,
            amount_exact: exact,
            amount: Money::round(amount, currency)?,
            period: service,
        });
        so_far = Some((charge, service, sum, rounded));
    }
    Ok(lines)
}
