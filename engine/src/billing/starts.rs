//! From when on this engine bills: `billing.starts_at`, and for the subjects of invoices from before there were accounts, the end of these.
//!
//! What is earlier was billed elsewhere, or by those invoices: it is not issued, not adjusted and not unbilled. Of a billing period that
//! began before, usage and fixed prices are billed from then on, and prices in advance are not billed: they were due when it began.

use super::{
    documents::{issued_table, rows_where},
    issued::History,
    standing::{Taken, but, voided_in},
};
use crate::{
    config::BillingSettings,
    error::{Result, query_error},
};
use datafusion::prelude::{Expr, SessionContext, col, lit};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use tollgate_connectors::{
    Table,
    lake::{DeltaTable, Lake},
};
use tollgate_sql::{accounts::Index, subscriptions::Cycle};

/// From when on customers and subjects are billed.
#[derive(Debug, Clone, Default)]
pub(super) struct Starts {
    /// Of all.
    all_us: Option<i64>,
    /// When the last invoice ends that a subject had as its own customer.
    before_accounts: BTreeMap<String, i64>,
}

/// By what billing periods are made: the zone of customers without one, and from when on they are billed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calendar<'a> {
    pub(super) zone: &'a str,
    pub(super) starts: &'a Starts,
}

impl Starts {
    /// By the settings, and by the invoices from before there were accounts.
    pub(super) fn new(
        settings: &BillingSettings,
        before_accounts: BTreeMap<String, i64>,
    ) -> Result<Self> {
        Ok(Starts {
            all_us: settings.starts_us()?,
            before_accounts,
        })
    }

    /// By the settings, and by the invoices in the lake.
    pub(super) async fn in_lake(lake: &Lake, settings: &BillingSettings) -> Result<Self> {
        let invoices = issued_table(lake).await?;
        Self::in_table(invoices.as_ref(), settings).await
    }

    /// The same by their table, if there is one.
    pub(super) async fn in_table(
        invoices: Option<&DeltaTable>,
        settings: &BillingSettings,
    ) -> Result<Self> {
        let before_accounts = match invoices {
            Some(invoices) => ends_where(invoices, lit(true)).await?,
            None => BTreeMap::new(),
        };
        Self::new(settings, before_accounts)
    }

    /// The same of one customer, by the invoices that it and its subjects had.
    pub(super) async fn of_one(
        invoices: Option<&DeltaTable>,
        settings: &BillingSettings,
        (accounts, customer): (&Index, &str),
    ) -> Result<Self> {
        let names = accounts.subjects_of(customer).chain([customer]).map(lit);
        let named = col("customer").in_list(names.collect(), false);
        let before_accounts = match invoices {
            Some(invoices) => ends_where(invoices, named).await?,
            None => BTreeMap::new(),
        };
        Self::new(settings, before_accounts)
    }

    /// From when on a subject's usage may be unbilled.
    pub(super) fn of_subject(&self, subject: &str) -> i64 {
        let issued_us = self.before_accounts.get(subject).copied();
        issued_us.max(self.all_us).unwrap_or(i64::MIN)
    }

    /// From when on a customer is billed: all of its subjects at once.
    pub(super) fn of_customer(&self, accounts: &Index, customer: &str) -> i64 {
        let own_us = self.of_subject(customer);
        if self.before_accounts.is_empty() {
            return own_us;
        }
        let subjects = accounts.subjects_of(customer);
        let subjects = subjects.map(|subject| self.of_subject(subject));
        subjects.max().unwrap_or(own_us).max(own_us)
    }

    /// Whether a subject had an invoice of its own.
    pub(super) fn has_subject(&self, subject: &str) -> bool {
        self.before_accounts.contains_key(subject)
    }

    /// Subjects that had invoices of their own.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.before_accounts.keys().map(String::as_str)
    }
}

/// When the last invoice from before there were accounts ends, by the name that it was issued to, of those for which something holds.
/// Documents are read one after the other: they may be very many, and few are from then.
async fn ends_where(invoices: &dyn Table, condition: Expr) -> Result<BTreeMap<String, i64>> {
    let doing = "reading issued invoices";
    let voiding = condition.clone().and(col("voids").is_not_null());
    let voided = voided_in(&rows_where(invoices, voiding).await?);
    let frame = SessionContext::new()
        .read_table(invoices.provider()?)
        .and_then(|frame| frame.filter(condition))
        .and_then(|frame| frame.drop_columns(&["document", "burns"]))
        .map_err(query_error(doing))?;
    let mut rows = frame.execute_stream().await.map_err(query_error(doing))?;
    let mut ends: BTreeMap<String, i64> = BTreeMap::new();
    while let Some(rows) = rows.try_next().await.map_err(query_error(doing))? {
        let rows = [but(&rows, &voided)?];
        for (name, end_us) in History::of(&rows, &Taken::default()).before_accounts() {
            let known = ends.entry(name).or_insert(end_us);
            *known = (*known).max(end_us);
        }
    }
    Ok(ends)
}

/// What of a billing period lies after an instant; `None` when it is over by then.
pub(super) fn since(mut cycle: Cycle, starts_us: i64) -> Option<Cycle> {
    if cycle.closes_us <= starts_us {
        return None;
    }
    if cycle.opens_us >= starts_us {
        return Some(cycle);
    }
    for part in &mut cycle.parts {
        for (from_us, _) in &mut part.usage {
            *from_us = (*from_us).max(starts_us);
        }
        part.usage.retain(|(from_us, until_us)| from_us < until_us);
        part.segments.retain(|segment| starts_us < segment.until_us);
        for segment in &mut part.segments {
            if segment.from_us < starts_us {
                segment.from_us = starts_us;
                segment.active_days = cycle.period.days_ended_in(starts_us, segment.until_us);
            }
        }
    }
    cycle
        .parts
        .retain(|part| !part.usage.is_empty() || !part.segments.is_empty());
    Some(cycle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_sql::{
        period::Period,
        subscriptions::{Part, Segment},
    };

    const DAY_US: i64 = 86_400_000_000;

    /// June 2026 with a change of seats after ten days.
    fn june() -> Cycle {
        let period = Period::month("2026-06", "UTC").unwrap();
        let (start_us, end_us) = (period.start_us, period.end_us);
        let change_us = start_us + 10 * DAY_US;
        let segment = |from_us, until_us, seats, active_days| Segment {
            from_us,
            until_us,
            seats,
            active_days,
            minimum: None,
            maximum: None,
        };
        Cycle {
            subscription: "s".into(),
            customer: "acme".into(),
            opens_us: start_us,
            closes_us: end_us,
            period,
            parts: vec![Part {
                plan: "p".into(),
                usage: vec![(start_us, end_us)],
                segments: vec![
                    segment(start_us, change_us, 1, 10),
                    segment(change_us, end_us, 2, 20),
                ],
            }],
        }
    }

    #[test]
    fn a_period_is_billed_from_the_start_on() {
        let whole = june();
        let start_us = whole.period.start_us;
        assert_eq!(since(june(), start_us), Some(june()));
        assert_eq!(since(june(), i64::MIN), Some(june()));
        assert_eq!(since(june(), whole.closes_us), None);
        let from_us = start_us + 12 * DAY_US;
        let rest = since(june(), from_us).unwrap();
        let part = &rest.parts[0];
        assert_eq!(part.usage, [(from_us, whole.closes_us)]);
        let segments = part.segments.iter();
        let segments: Vec<(i64, i64, i64)> = segments
            .map(|segment| (segment.from_us, segment.seats, segment.active_days))
            .collect();
        assert_eq!(segments, [(from_us, 2, 18)]);
        // When it opened is what tells that its prices in advance were due before.
        assert_eq!(rest.opens_us, start_us);
    }

    #[test]
    fn a_customer_begins_where_the_last_invoice_of_a_subject_ends() {
        use tollgate_sql::accounts::{Accounts, Subject};
        let subject = |name: &str| Subject {
            subject: name.into(),
            customer: "acme".into(),
            valid_from_us: None,
        };
        let accounts = Accounts {
            subjects: vec![subject("u"), subject("v")],
            ..Accounts::default()
        };
        let accounts = accounts.indexed();
        let starts = |all_us, own: &[(&str, i64)]| {
            let own = own
                .iter()
                .map(|(name, end_us)| ((*name).to_owned(), *end_us));
            let starts = Starts {
                all_us,
                before_accounts: own.collect(),
            };
            starts.of_customer(&accounts, "acme")
        };
        assert_eq!(starts(None, &[]), i64::MIN);
        assert_eq!(starts(Some(5), &[]), 5);
        assert_eq!(starts(None, &[("u", 7), ("v", 9), ("other", 11)]), 9);
        assert_eq!(starts(Some(12), &[("u", 7)]), 12);
        assert_eq!(starts(None, &[("acme", 13), ("u", 7)]), 13);
    }
}
