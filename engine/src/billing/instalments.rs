//! Instalments: documents of billing periods that are not over, on plans with `progressive_billing`.
//!
//! The usage of a running period is rated as that of one that closes. What it comes to so far, less what earlier instalments billed
//! of it, is a document when it has reached the plan's next threshold. The document that closes the period bills the rest.

use super::{
    assembly::MadeBy,
    billed::Billed,
    due::{Due, has_period_at, running_of},
    issued::Issued,
    starts::Calendar,
    subscribed::{Found, Rated, rate_due},
};
use crate::{
    customers::Customers,
    error::{Faulty, InError, Result, chain},
};
use std::collections::BTreeMap;
use tollgate_sql::{
    accounts::Index,
    definitions::Definitions,
    invoice::instalments::{Instalment, is_due, spend},
    money::Exact,
    subscriptions::Cycle,
};

/// Instalments of which no document has billed the rest, by customer.
pub(super) type Begun<'a> = BTreeMap<&'a str, Vec<Issued>>;

/// Gives documents the instalments of which they bill the rest.
pub(super) fn take_up(begun: &Begun<'_>, rated: &mut [Rated]) {
    for rated in rated {
        let instalments = begun.get(rated.due.customer.as_str()).into_iter().flatten();
        let of_closing = instalments.filter(|issued| {
            let mut closing = rated.due.closing.iter();
            closing.any(|cycle| is_of(&issued.instalment, cycle))
        });
        rated.begun = of_closing.cloned().collect();
    }
}

/// Gives the first document of each customer the instalments of billing periods that there are not any more: an account was changed since, so
/// no document bills their rest. A customer without a document has one for them.
///
/// # Errors
/// A plan of a subscription is not defined, or a zone is not one.
pub(super) fn take_back(
    begun: &Begun<'_>,
    (accounts, definitions): (&Index, &Definitions),
    calendar: Calendar<'_>,
    now_us: i64,
    rated: &mut Vec<Rated>,
) -> Result<()> {
    for (customer, instalments) in begun {
        let starts_us = calendar.starts.of_customer(accounts, customer);
        let mut left = Vec::new();
        for issued in instalments {
            let of = &issued.instalment;
            let subscription = (*customer, of.subscription.as_str());
            let is_known = of.start_us < starts_us
                || has_period_at(
                    accounts,
                    definitions,
                    calendar.zone,
                    subscription,
                    of.start_us,
                )?;
            left.extend((!is_known).then(|| issued.clone()));
        }
        if left.is_empty() {
            continue;
        }
        match rated
            .iter_mut()
            .find(|rated| rated.due.customer == *customer)
        {
            Some(first) => first.begun.extend(left),
            None => rated.push(Rated {
                begun: left,
                ..Rated::nothing(customer, now_us)
            }),
        }
    }
    Ok(())
}

/// Whether an instalment is of a billing period.
fn is_of(instalment: &Instalment, cycle: &Cycle) -> bool {
    let start_us = instalment.start_us;
    instalment.subscription == cycle.subscription
        && cycle.period.start_us <= start_us
        && start_us < cycle.period.end_us
}

/// The instalments that are due at an instant, of some customers.
///
/// # Errors
/// The lake cannot be read, or a price fails and it cannot be told for which customer.
pub(super) async fn instalments(
    made_by: MadeBy<'_>,
    calendar: Calendar<'_>,
    (begun, billed): (&Begun<'_>, &Billed),
    customers: &Customers,
    now_us: i64,
) -> Result<(Vec<Rated>, Found)> {
    let definitions = &made_by.view.catalog().definitions;
    let mut plans = definitions.plans.iter();
    if plans.all(|plan| plan.terms.progressive_billing.is_empty()) {
        return Ok((Vec::new(), Found::default()));
    }
    let (mut due, mut thresholds) = (Vec::new(), Vec::new());
    let known = made_by.accounts.customers();
    for customer in known.filter(|known| customers.has(known)) {
        let running = running_of(made_by.accounts, definitions, calendar, customer, now_us);
        // What has no answer has none among the documents that close either.
        for (cycle, of_plan) in running.unwrap_or_default() {
            thresholds.push(of_plan);
            let starts_us = calendar.starts.of_customer(made_by.accounts, customer);
            due.push(due_with(customer, cycle, starts_us));
        }
    }
    let (rated, mut found) = rate_due(made_by.view, made_by.accounts, due).await?;
    let mut reached = Vec::new();
    for (mut rated, thresholds) in rated.into_iter().zip(thresholds) {
        if found.is_in_error(&rated.due.customer) {
            continue;
        }
        take_up(begun, std::slice::from_mut(&mut rated));
        retain_usage(&mut rated);
        match has_reached(made_by, &rated, billed, thresholds) {
            Ok(true) => reached.push(rated),
            Ok(false) => {}
            Err(error) => {
                found.in_error.insert(InError {
                    customer: rated.due.customer.clone(),
                    what: Faulty::Invoice,
                    reason: chain(&error),
                });
            }
        }
    }
    Ok((reached, found))
}

fn due_with(customer: &str, cycle: Cycle, starts_us: i64) -> Due {
    Due {
        customer: customer.to_owned(),
        at_us: cycle.closes_us,
        closing: vec![cycle],
        opening: Vec::new(),
        one_offs: Vec::new(),
        starts_us,
    }
}

/// Makes an instalment of what is rated of a period: fixed prices are billed when it is over.
fn retain_usage(rated: &mut Rated) {
    let cycle = &rated.due.closing[0];
    let places = rated.begun.iter().map(|issued| issued.instalment.place);
    rated.instalment = Some(Instalment {
        subscription: cycle.subscription.clone(),
        start_us: cycle.period.start_us,
        place: places.max().unwrap_or(0).saturating_add(1),
    });
    for charged in &mut rated.charged {
        charged.charges.retain(|charge| !charge.is_fixed);
        charged.in_advance.clear();
    }
}

fn has_reached(
    made_by: MadeBy<'_>,
    rated: &Rated,
    billed: &Billed,
    thresholds: &[Exact],
) -> Result<bool> {
    let discounts = made_by.discounts(&rated.due.customer);
    let cycles = made_by.cycles(rated, |plan, charged, cycle| {
        billed.left_of((made_by.definitions(), plan), charged, cycle, &discounts)
    })?;
    let now = made_by.lines(rated, &cycles)?;
    let spent = spend(now.iter().map(|taxed| &taxed.line))?;
    let before = spend(rated.begun.iter().flat_map(|issued| &issued.lines))?;
    Ok(is_due(thresholds, rated.begun.len(), (spent, before))?)
}
