//! Prices in advance, when a subscription is changed in a period for which they were issued.
//!
//! A change that starts after the document was issued is ordinary: the difference is on the document that closes the period. One
//! that reaches back before waits in `unissued` until a job is asked to correct it. A document keeps which accounts it knew, so what
//! was billed in advance is compared by the rows that were known then, with those of the rows since that are meant.
//!
//! | | rows since that are meant |
//! |---|---|
//! | the document that closes the period, in a job that does not correct | those that start after the document in advance was issued |
//! | what a document in advance would be now | those that start before it was issued |

use super::{
    accounts,
    due::{Due, due_of},
    issued::{Document, History},
    starts::Calendar,
    subscribed::{Charged, Rated, rate_due},
};
use crate::{customers::Customers, error::Result, view::View};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::{Accounts, Index, Subscription},
    subscriptions::Cycle,
};

/// By what prices in advance are rated again.
#[derive(Clone, Copy)]
pub(super) struct InAdvance<'a> {
    pub(super) view: &'a View,
    pub(super) lake: &'a Lake,
    pub(super) accounts: &'a Index,
    /// Whose documents these are.
    pub(super) customers: &'a Customers,
    pub(super) calendar: Calendar<'a>,
}

/// A subscription whose rows since a document in advance are not all meant, and the document's customer and time.
struct Meant {
    customer: String,
    at_us: i64,
    subscription: String,
    /// The rows that were known, and those since that are meant.
    rows: Vec<Subscription>,
}

impl Meant {
    fn key(&self) -> (&str, i64, &str) {
        (&self.customer, self.at_us, &self.subscription)
    }
}

impl InAdvance<'_> {
    /// Takes out of what documents bill at the close of periods what changes come to that reach back before the document in advance.
    ///
    /// # Errors
    /// The lake cannot be read, or a price fails and it cannot be told for which customer.
    pub(super) async fn leave_out_reaching_back(
        &self,
        issued: &History<'_>,
        rated: &mut [Rated],
    ) -> Result<()> {
        let customers = rated
            .iter()
            .filter(|rated| self.has_closing_in_advance(&rated.due));
        let customers: BTreeSet<&str> =
            customers.map(|rated| rated.due.customer.as_str()).collect();
        if customers.is_empty() || issued.heads.is_empty() {
            return Ok(());
        }
        let documents = issued.by_customer(|customer| customers.contains(customer))?;
        let (mut known, mut meant) = (Known::default(), Vec::new());
        for rated in &*rated {
            let documents = documents.get(rated.due.customer.as_str());
            for cycle in &rated.due.closing {
                let mut documents = documents.into_iter().flatten();
                let opened = documents.find(|document| document.head.at_us == cycle.opens_us);
                if let Some((serial, issued_at_us)) = opened.and_then(Document::known) {
                    let is_ordinary = |changes_us: i64| issued_at_us < changes_us;
                    let of = (rated.due.at_us, cycle);
                    meant.extend(self.meant(&mut known, serial, of, is_ordinary).await?);
                }
            }
        }
        self.replace(&meant, rated, |due| &due.closing, replace_in_advance)
            .await
    }

    /// Makes what documents billed in advance by the rows that were known or start before they were issued.
    ///
    /// # Errors
    /// Those of [`InAdvance::leave_out_reaching_back`].
    pub(super) async fn without_ordinary<'d>(
        &self,
        documents: impl Iterator<Item = &'d Document<'d>>,
        rated: &mut [Rated],
    ) -> Result<()> {
        let documents: BTreeMap<(&str, i64), &Document<'_>> = documents
            .map(|document| ((document.head.customer, document.head.at_us), document))
            .collect();
        let (mut known, mut meant) = (Known::default(), Vec::new());
        for rated in &*rated {
            let document = documents.get(&(rated.due.customer.as_str(), rated.due.at_us));
            let Some((serial, issued_at_us)) =
                document.and_then(|document| document.known_at_first())
            else {
                continue;
            };
            for cycle in &rated.due.opening {
                let reaches_back = |changes_us: i64| changes_us <= issued_at_us;
                let of = (rated.due.at_us, cycle);
                meant.extend(self.meant(&mut known, serial, of, reaches_back).await?);
            }
        }
        self.replace(&meant, rated, |due| &due.opening, replace_opening)
            .await
    }

    /// Rates again with the rows that are meant, and replaces what that is of the billing periods that open, or that close.
    async fn replace(
        &self,
        meant: &[Meant],
        rated: &mut [Rated],
        cycles_of: impl Fn(&Due) -> &[Cycle],
        replace: impl Fn(&mut Rated, usize, Option<&Rated>),
    ) -> Result<()> {
        let by_meant = self.rated(meant).await?;
        let meant: BTreeSet<(&str, i64, &str)> = meant.iter().map(Meant::key).collect();
        for rated in rated {
            let at_us = rated.due.at_us;
            let is_meant = |cycle: &Cycle| {
                meant.contains(&(cycle.customer.as_str(), at_us, cycle.subscription.as_str()))
            };
            let cycles = cycles_of(&rated.due).iter().enumerate();
            let places = cycles.filter(|(_, cycle)| is_meant(cycle));
            let places: Vec<usize> = places.map(|(place, _)| place).collect();
            let by_meant = by_meant.get(&(rated.due.customer.clone(), at_us));
            for place in places {
                replace(rated, place, by_meant);
            }
        }
        Ok(())
    }

    fn has_closing_in_advance(&self, due: &Due) -> bool {
        let definitions = &self.view.catalog().definitions;
        let plans = due.closing.iter().flat_map(|cycle| &cycle.parts);
        let mut plans = plans.filter_map(|part| definitions.plan(&part.plan));
        plans.any(|plan| !plan.terms.in_advance.is_empty())
    }

    /// The rows of a subscription that were known when an import was the last, and those since for whose effect something holds;
    /// `None` when it holds for all since.
    async fn meant(
        &self,
        known: &mut Known,
        serial: i64,
        (at_us, cycle): (i64, &Cycle),
        is_meant: impl Fn(i64) -> bool,
    ) -> Result<Option<Meant>> {
        if serial == self.accounts.serial() {
            return Ok(None);
        }
        let before = known.of(self.lake, serial, self.customers).await?;
        let before = before.subscription(&cycle.subscription);
        let now = self.accounts.subscription(&cycle.subscription).iter();
        let since: Vec<&Subscription> = now.filter(|row| !before.contains(row)).collect();
        let is_meant = |row: &&Subscription| is_meant(changes_us(before, row));
        if since.iter().all(is_meant) {
            return Ok(None);
        }
        let since = since.into_iter().filter(is_meant);
        Ok(Some(Meant {
            customer: cycle.customer.clone(),
            at_us,
            subscription: cycle.subscription.clone(),
            rows: before.iter().chain(since).cloned().collect(),
        }))
    }

    /// Documents rated with the rows that are meant, by customer and time.
    async fn rated(&self, meant: &[Meant]) -> Result<BTreeMap<(String, i64), Rated>> {
        let mut rated = BTreeMap::new();
        for round in rounds(meant) {
            rated.extend(self.rated_at_once(&round).await?);
        }
        Ok(rated)
    }

    /// The same, of documents for which the same rows of each subscription are meant.
    async fn rated_at_once(&self, meant: &[&Meant]) -> Result<BTreeMap<(String, i64), Rated>> {
        let customers: BTreeSet<&str> = meant.iter().map(|meant| meant.customer.as_str()).collect();
        let mut accounts: Accounts = self.accounts.of_customers(&customers);
        for meant in meant {
            let is_other = |row: &Subscription| row.subscription != meant.subscription;
            accounts.subscriptions.retain(is_other);
            accounts.subscriptions.extend(meant.rows.iter().cloned());
        }
        let accounts = accounts.indexed();
        let mut due = Vec::new();
        for (customer, at_us) in meant
            .iter()
            .map(|meant| (meant.customer.as_str(), meant.at_us))
            .collect::<BTreeSet<_>>()
        {
            let time = (at_us.saturating_sub(1), at_us);
            let definitions = &self.view.catalog().definitions;
            // What has no answer here has none among the documents themselves.
            let of_customer = due_of(&accounts, definitions, self.calendar, customer, time);
            due.extend(of_customer.unwrap_or_default());
        }
        // What cannot be told here cannot be told of the documents themselves.
        let (rated, _) = rate_due(self.view, &accounts, due).await?;
        let by_time = rated.into_iter();
        Ok(by_time
            .map(|rated| ((rated.due.customer.clone(), rated.due.at_us), rated))
            .collect())
    }
}

/// What is meant, in rounds in each of which the same rows of a subscription are meant for all documents. Rows that were not known when one
/// document was issued may have been when a later one was.
fn rounds(meant: &[Meant]) -> Vec<Vec<&Meant>> {
    let mut of_document: BTreeMap<(&str, i64), Vec<&Meant>> = BTreeMap::new();
    for meant in meant {
        let of_document = of_document.entry((&meant.customer, meant.at_us));
        of_document.or_default().push(meant);
    }
    let mut rounds: Vec<Vec<&Meant>> = Vec::new();
    let mut of_customer: BTreeMap<&str, Vec<BTreeMap<&str, &[Subscription]>>> = BTreeMap::new();
    for ((customer, _), meant) in of_document {
        let rows = meant.iter();
        let rows = rows.map(|meant| (meant.subscription.as_str(), meant.rows.as_slice()));
        let rows: BTreeMap<&str, &[Subscription]> = rows.collect();
        let known = of_customer.entry(customer).or_default();
        let place = known.iter().position(|known| *known == rows);
        let place = place.unwrap_or(known.len());
        if place == known.len() {
            known.push(rows);
        }
        if place == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[place].extend(meant);
    }
    rounds
}

/// From when on a row changes what rows before it say: from its start, or from the earlier end where nothing but an end is another.
fn changes_us(before: &[Subscription], row: &Subscription) -> i64 {
    let replaced = before
        .iter()
        .find(|known| known.starts_at_us == row.starts_at_us);
    let Some(replaced) = replaced else {
        return row.starts_at_us;
    };
    let but_for_ends = Subscription {
        ends_at_us: replaced.ends_at_us,
        trial_ends_at_us: replaced.trial_ends_at_us,
        ..row.clone()
    };
    if but_for_ends != *replaced {
        return row.starts_at_us;
    }
    let ends = [
        (replaced.ends_at_us, row.ends_at_us),
        (replaced.trial_ends_at_us, row.trial_ends_at_us),
    ];
    let differing = ends.into_iter().filter(|(before, now)| before != now);
    let first = differing
        .flat_map(|(before, now)| [before, now])
        .flatten()
        .min();
    first.unwrap_or(row.starts_at_us)
}

/// Accounts as they were when an import was the last.
#[derive(Default)]
struct Known(BTreeMap<i64, Index>);

impl Known {
    async fn of(&mut self, lake: &Lake, serial: i64, customers: &Customers) -> Result<&Index> {
        match self.0.entry(serial) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unread) => {
                let known = accounts::load_until(lake, serial, customers).await?;
                Ok(unread.insert(known.indexed()))
            }
        }
    }
}

/// Replaces what prices in advance come to at the close of a billing period.
fn replace_in_advance(rated: &mut Rated, place: usize, by: Option<&Rated>) {
    let subscription = rated.due.closing[place].subscription.clone();
    let mut of_plan = of_subscription(by, &subscription, false);
    for charged in &mut rated.charged {
        if !charged.is_opening && charged.cycle == place {
            charged.in_advance = of_plan
                .remove(charged.plan.as_str())
                .map_or(Vec::new(), |of| of.in_advance.clone());
        }
    }
    // Plans that the subscription has been taken off since: what was billed on them stands.
    rated
        .charged
        .extend(of_plan.into_values().map(|of| Charged {
            is_opening: false,
            cycle: place,
            plan: of.plan.clone(),
            charges: Vec::new(),
            in_advance: of.in_advance.clone(),
        }));
}

/// Replaces what is billed in advance when a billing period opens.
fn replace_opening(rated: &mut Rated, place: usize, by: Option<&Rated>) {
    let subscription = rated.due.opening[place].subscription.clone();
    rated
        .charged
        .retain(|charged| !(charged.is_opening && charged.cycle == place));
    let of_plan = of_subscription(by, &subscription, true).into_values();
    rated.charged.extend(of_plan.map(|of| Charged {
        is_opening: true,
        cycle: place,
        plan: of.plan.clone(),
        charges: of.charges.clone(),
        in_advance: Vec::new(),
    }));
}

/// What a subscription is charged, by plan, of what opens or of what closes.
fn of_subscription<'a>(
    rated: Option<&'a Rated>,
    subscription: &str,
    is_opening: bool,
) -> BTreeMap<&'a str, &'a Charged> {
    let charged = rated.into_iter().flat_map(|rated| {
        let of = rated
            .charged
            .iter()
            .filter(move |charged| charged.is_opening == is_opening);
        of.map(move |charged| (charged.cycle_of(&rated.due), charged))
    });
    let own = charged.filter(|(cycle, _)| cycle.subscription == subscription);
    own.map(|(_, charged)| (charged.plan.as_str(), charged))
        .collect()
}
