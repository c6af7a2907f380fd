//! Which documents are due when: what closes and what opens at one instant, of one customer (pure).
//!
//! A billing period is billed when it closes. Prices in advance are billed when the period that they are for opens, and
//! what closes and opens at one instant is on one document.

use super::starts::{Calendar, since};
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet};
use tollgate_sql::{
    accounts::{Index, OneOff},
    definitions::Definitions,
    invoice,
    money::Exact,
    period::Period,
    subscriptions::{Cycle, Zones, cycles},
};

/// A document that is due at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// Who pays.
    pub(super) customer: String,
    /// When, in microseconds.
    pub(super) at_us: i64,
    /// The billing periods that are over then, by subscription.
    pub(super) closing: Vec<Cycle>,
    /// Those that begin then and have prices in advance, by subscription.
    pub(super) opening: Vec<Cycle>,
    /// What is billed once, by time and name.
    pub(super) one_offs: Vec<OneOff>,
    /// From when on the customer is billed.
    pub(super) starts_us: i64,
}

impl Due {
    /// The name of its document.
    pub(super) fn id(&self) -> invoice::InvoiceId {
        invoice::InvoiceId::of_document(&self.customer, self.at_us)
    }

    /// Whether nothing is due.
    pub(super) fn is_nothing(&self) -> bool {
        self.closing.is_empty() && self.opening.is_empty() && self.one_offs.is_empty()
    }

    /// The time that the document is for: of what closes from its first start, else of what opens.
    pub(super) fn period(&self) -> invoice::Period {
        let of = |cycles: &[Cycle]| {
            let starts = cycles.iter().map(|cycle| cycle.period.start_us);
            let ends = cycles.iter().map(|cycle| cycle.period.end_us);
            let (start_us, end_us) = (starts.min()?.max(self.starts_us), ends.max()?);
            Some(invoice::Period { start_us, end_us })
        };
        let nothing = invoice::Period {
            start_us: self.at_us,
            end_us: self.at_us,
        };
        let closed = of(&self.closing).map(|closed| invoice::Period {
            end_us: self.at_us,
            ..closed
        });
        closed.or_else(|| of(&self.opening)).unwrap_or(nothing)
    }

    /// When it is issued: after the longest delay of a plan that closes.
    pub(super) fn issued_from_us(&self, definitions: &Definitions) -> i64 {
        let plans = self.closing.iter().flat_map(|cycle| &cycle.parts);
        let plans = plans.filter_map(|part| definitions.plan(&part.plan));
        let delay = plans.map(|plan| plan.terms.issue_after_us).max();
        self.at_us.saturating_add(delay.unwrap_or(0))
    }
}

/// The documents of a customer that are due after `from_us` and by `until_us`, in order of time.
///
/// # Errors
/// A plan of a subscription is not defined, or a zone is not one.
pub(super) fn due_of(
    accounts: &Index,
    definitions: &Definitions,
    calendar: Calendar<'_>,
    customer: &str,
    (from_us, until_us): (i64, i64),
) -> Result<Vec<Due>> {
    let zones = zones_of(accounts, calendar.zone, customer)?;
    let starts_us = calendar.starts.of_customer(accounts, customer);
    let mut due: BTreeMap<i64, Due> = BTreeMap::new();
    let is_due = |at_us: i64| from_us < at_us && at_us <= until_us && starts_us <= at_us;
    let nothing = |at_us: &i64| Due {
        customer: customer.to_owned(),
        at_us: *at_us,
        closing: Vec::new(),
        opening: Vec::new(),
        one_offs: Vec::new(),
        starts_us,
    };
    for rows in accounts.subscriptions_of(customer) {
        let rows: Vec<_> = rows.iter().collect();
        let plan = |name: &str| definitions.plan(name);
        let cycles = cycles(&rows, plan, &zones, (from_us, until_us))?;
        for cycle in cycles
            .into_iter()
            .filter_map(|cycle| since(cycle, starts_us))
        {
            if is_due(cycle.opens_us) && has_prices_in_advance(&cycle, definitions) {
                due.entry(cycle.opens_us)
                    .or_insert_with_key(nothing)
                    .opening
                    .push(cycle.clone());
            }
            if is_due(cycle.closes_us) {
                due.entry(cycle.closes_us)
                    .or_insert_with_key(nothing)
                    .closing
                    .push(cycle);
            }
        }
    }
    let one_offs = one_offs_due(accounts, definitions, &zones, customer, until_us)?;
    let one_offs = one_offs.into_iter();
    let one_offs =
        one_offs.filter(|(at_us, one_off)| is_due(*at_us) && starts_us <= one_off.date_us);
    for (at_us, one_off) in one_offs {
        let at = due.entry(at_us).or_insert_with_key(nothing);
        at.one_offs.push(one_off.clone());
    }
    Ok(due.into_values().collect())
}

/// The billing periods of a customer that run at an instant, by subscription.
///
/// # Errors
/// Those of [`due_of`].
pub(super) fn running(
    accounts: &Index,
    definitions: &Definitions,
    calendar: Calendar<'_>,
    customer: &str,
    now_us: i64,
) -> Result<Vec<Cycle>> {
    let zones = zones_of(accounts, calendar.zone, customer)?;
    let starts_us = calendar.starts.of_customer(accounts, customer);
    let mut running = Vec::new();
    for rows in accounts.subscriptions_of(customer) {
        let rows: Vec<_> = rows.iter().collect();
        let plan = |name: &str| definitions.plan(name);
        let cycles = cycles(&rows, plan, &zones, (now_us, now_us))?.into_iter();
        let cycles = cycles.filter_map(|cycle| since(cycle, starts_us));
        running.extend(cycles.filter(|cycle| cycle.opens_us <= now_us && now_us < cycle.closes_us));
    }
    Ok(running)
}

/// The documents that would close the billing periods of a customer that run at an instant, in order of time. What opens when they
/// close is of the next periods, and a one-off counts from its time on.
///
/// # Errors
/// Those of [`due_of`].
pub(super) fn running_due(
    accounts: &Index,
    definitions: &Definitions,
    calendar: Calendar<'_>,
    customer: &str,
    now_us: i64,
) -> Result<Vec<Due>> {
    let running = running(accounts, definitions, calendar, customer, now_us)?;
    let Some(until_us) = running.iter().map(|cycle| cycle.closes_us).max() else {
        return Ok(Vec::new());
    };
    let time = (now_us, until_us);
    let mut due = due_of(accounts, definitions, calendar, customer, time)?;
    for due in &mut due {
        due.opening.clear();
        due.closing.retain(|cycle| cycle.opens_us <= now_us);
        due.one_offs.retain(|one_off| one_off.date_us <= now_us);
    }
    due.retain(|due| !due.closing.is_empty());
    Ok(due)
}

/// The billing periods of a customer that run at an instant on a plan that is billed in instalments, with the thresholds of the plan.
///
/// # Errors
/// Those of [`due_of`].
pub(super) fn running_of<'a>(
    accounts: &Index,
    definitions: &'a Definitions,
    calendar: Calendar<'_>,
    customer: &str,
    now_us: i64,
) -> Result<Vec<(Cycle, &'a [Exact])>> {
    let mut by_threshold = Vec::new();
    for mut cycle in running(accounts, definitions, calendar, customer, now_us)? {
        // A plan that comes later in the period has charged nothing yet.
        let has_begun = |(from_us, _): &(i64, i64)| *from_us <= now_us;
        cycle.parts.retain(|part| part.usage.iter().any(has_begun));
        let mut plans = cycle.parts.iter().rev();
        let in_force = plans.find(|part| {
            let mut usage = part.usage.iter();
            usage.any(|(from_us, until_us)| *from_us <= now_us && now_us < *until_us)
        });
        let plan = in_force.and_then(|part| definitions.plan(&part.plan));
        let thresholds = plan.map_or(&[][..], |plan| &plan.terms.progressive_billing);
        if !thresholds.is_empty() {
            by_threshold.push((cycle, thresholds));
        }
    }
    Ok(by_threshold)
}

/// Whether a subscription has a billing period at an instant, and is a customer's.
///
/// # Errors
/// Those of [`due_of`].
pub(super) fn has_period_at(
    accounts: &Index,
    definitions: &Definitions,
    default_zone: &str,
    (customer, subscription): (&str, &str),
    at_us: i64,
) -> Result<bool> {
    let zones = zones_of(accounts, default_zone, customer)?;
    let rows: Vec<_> = accounts.subscription(subscription).iter().collect();
    if rows.is_empty() {
        return Ok(false);
    }
    let plan = |name: &str| definitions.plan(name);
    let cycles = cycles(&rows, plan, &zones, (at_us, at_us))?;
    let has_it = |cycle: &Cycle| {
        cycle.customer == customer && cycle.period.start_us <= at_us && at_us < cycle.period.end_us
    };
    Ok(cycles.iter().any(has_it))
}

/// When each one-off of a customer is due by `until_us`, in order: when the first billing period closes that is not over at its time, or
/// at its time when no subscription goes on after it.
fn one_offs_due<'a>(
    accounts: &'a Index,
    definitions: &Definitions,
    zones: &Zones,
    customer: &str,
    until_us: i64,
) -> Result<Vec<(i64, &'a OneOff)>> {
    let mut one_offs: Vec<&OneOff> = accounts.one_offs_of(customer).collect();
    one_offs.retain(|one_off| one_off.date_us <= until_us);
    one_offs.sort_by_key(|one_off| (one_off.date_us, &one_off.one_off));
    let Some(first_us) = one_offs.first().map(|one_off| one_off.date_us) else {
        return Ok(Vec::new());
    };
    let mut closes = BTreeSet::new();
    for rows in accounts.subscriptions_of(customer) {
        let rows: Vec<_> = rows.iter().collect();
        let plan = |name: &str| definitions.plan(name);
        let all = cycles(&rows, plan, zones, (first_us, until_us))?;
        closes.extend(all.into_iter().map(|cycle| cycle.closes_us));
    }
    let due = one_offs.into_iter().filter_map(|one_off| {
        let next = closes.range(one_off.date_us.saturating_add(1)..).next();
        match next {
            Some(at_us) => Some((*at_us, one_off)),
            // Its period closes later.
            None if accounts.goes_on_after(customer, one_off.date_us) => None,
            None => Some((one_off.date_us, one_off)),
        }
    });
    Ok(due.collect())
}

/// Whether a plan that is in force when the period opens, or later in it, is billed in advance.
fn has_prices_in_advance(cycle: &Cycle, definitions: &Definitions) -> bool {
    let plans = cycle.parts.iter();
    let mut plans = plans.filter_map(|part| definitions.plan(&part.plan));
    plans.any(|plan| !plan.terms.in_advance.is_empty())
}

/// The zones of a customer: a row without one has the default.
pub(super) fn zones_of(accounts: &Index, default_zone: &str, customer: &str) -> Result<Zones> {
    let zone = |name: &Option<String>| name.as_deref().unwrap_or(default_zone).to_owned();
    let rows = accounts.customer(customer);
    let zones: Vec<(i64, String)> = rows
        .iter()
        .map(|row| (row.valid_from_us.unwrap_or(i64::MIN), zone(&row.time_zone)))
        .collect();
    let first = zones.first().map_or(default_zone, |(_, zone)| zone);
    let later = zones.iter().skip(1);
    let later = later.map(|(from_us, zone)| (*from_us, zone.as_str()));
    Ok(Zones::new(first, later)?)
}

/// Whether a document belongs to a month: the last instant before it is due lies in it, by the customer's zone.
pub(super) fn is_of_month(due: &Due, month: &str, default_zone: &str) -> Result<bool> {
    let cycles = due.closing.iter().chain(&due.opening);
    let zone = cycles.map(|cycle| cycle.period.zone()).next();
    let month = Period::month(month, zone.unwrap_or(default_zone))?;
    Ok(month.start_us < due.at_us && due.at_us <= month.end_us)
}
