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
//!
//! A price or a rate table that was edited since is no row: it holds for all time, so it reaches back. Without being asked to correct, the
//! document that closes the period rates what was billed in advance as it was rated then.

use super::{
    accounts,
    billed::is_fixed,
    due::{Due, due_of},
    issued::{Document, History},
    kept::{self, restore},
    starts::Calendar,
    subscribed::{Charged, Rated, rate_due},
};
use crate::{
    customers::Customers,
    error::{Faulty, InError, Result},
    view::View,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::{Accounts, Index, Subscription},
    invoice::basis::{Named, RatedBy},
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

/// A subscription of which not all that is known now is meant, and the document's customer and time.
struct Meant {
    customer: String,
    at_us: i64,
    subscription: String,
    /// The rows that were known, and those since that are meant.
    rows: Vec<Subscription>,
    /// The prices and rate tables that are not meant as they are now.
    rated_by: RatedBy,
}

/// What tells what is meant apart: customer, time and subscription.
type MeantKey = (String, i64, String);

impl Meant {
    fn key(&self) -> MeantKey {
        (self.customer.clone(), self.at_us, self.subscription.clone())
    }
}

impl InAdvance<'_> {
    /// Takes out of what documents bill at the close of periods what changes come to that reach back before the document in advance.
    /// Returns customers of whom that cannot be told.
    ///
    /// # Errors
    /// The lake cannot be read, or a price fails and it cannot be told for which customer.
    pub(super) async fn leave_out_reaching_back(
        &self,
        issued: &History<'_>,
        rated: &mut [Rated],
    ) -> Result<BTreeSet<InError>> {
        let customers = rated
            .iter()
            .filter(|rated| self.has_closing_in_advance(&rated.due));
        let customers: BTreeSet<&str> =
            customers.map(|rated| rated.due.customer.as_str()).collect();
        if customers.is_empty() || issued.heads.is_empty() {
            return Ok(BTreeSet::new());
        }
        let documents = issued.by_customer(|customer| customers.contains(customer))?;
        let (mut known, mut meant) = (Known::default(), Vec::new());
        for rated in &*rated {
            let documents = documents.get(rated.due.customer.as_str());
            for cycle in &rated.due.closing {
                let mut documents = documents.into_iter().flatten();
                let opened = documents.find(|document| document.head.at_us == cycle.opens_us);
                if let Some((opened, (serial, issued_at_us))) =
                    opened.and_then(|opened| Some((opened, opened.known()?)))
                {
                    let is_ordinary = |changes_us: i64| issued_at_us < changes_us;
                    let edited = edited(opened, cycle, &rated.rated_by);
                    let of = (rated.due.at_us, cycle, edited);
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
                let of = (rated.due.at_us, cycle, RatedBy::default());
                meant.extend(self.meant(&mut known, serial, of, reaches_back).await?);
            }
        }
        self.replace(&meant, rated, |due| &due.opening, replace_opening)
            .await?;
        Ok(())
    }

    /// Rates again by what is meant, and replaces what that is of the billing periods that open, or that close. Returns customers of whom
    /// it cannot be told.
    async fn replace(
        &self,
        meant: &[Meant],
        rated: &mut [Rated],
        cycles_of: impl Fn(&Due) -> &[Cycle],
        replace: impl Fn(&mut Rated, usize, Option<&Rated>),
    ) -> Result<BTreeSet<InError>> {
        let (by_meant, in_error) = self.rated(meant).await?;
        let meant: BTreeSet<MeantKey> = meant.iter().map(Meant::key).collect();
        for rated in rated {
            let key_of = |cycle: &Cycle| {
                (
                    cycle.customer.clone(),
                    rated.due.at_us,
                    cycle.subscription.clone(),
                )
            };
            let keys: Vec<MeantKey> = cycles_of(&rated.due).iter().map(key_of).collect();
            for (place, key) in keys.iter().enumerate() {
                if meant.contains(key) {
                    replace(rated, place, by_meant.get(key).map(Arc::as_ref));
                }
            }
        }
        Ok(in_error)
    }

    fn has_closing_in_advance(&self, due: &Due) -> bool {
        let definitions = &self.view.catalog().definitions;
        let plans = due.closing.iter().flat_map(|cycle| &cycle.parts);
        let mut plans = plans.filter_map(|part| definitions.plan(&part.plan));
        plans.any(|plan| !plan.terms.in_advance.is_empty())
    }

    /// The rows of a subscription that were known when an import was the last, and those since for whose effect something holds;
    /// `None` when it holds for all since and no price is meant as it was.
    async fn meant(
        &self,
        known: &mut Known,
        serial: i64,
        (at_us, cycle, rated_by): (i64, &Cycle, RatedBy),
        is_meant: impl Fn(i64) -> bool,
    ) -> Result<Option<Meant>> {
        let now = self.accounts.subscription(&cycle.subscription);
        let rows = match serial == self.accounts.serial() {
            true => None,
            false => {
                let before = known.of(self.lake, serial, self.customers).await?;
                meant_rows(before.subscription(&cycle.subscription), now, is_meant)
            }
        };
        if rows.is_none() && rated_by == RatedBy::default() {
            return Ok(None);
        }
        Ok(Some(Meant {
            customer: cycle.customer.clone(),
            at_us,
            subscription: cycle.subscription.clone(),
            rows: rows.unwrap_or_else(|| now.to_vec()),
            rated_by,
        }))
    }

    /// Documents rated by what is meant, and customers of whom that cannot be told.
    async fn rated(
        &self,
        meant: &[Meant],
    ) -> Result<(BTreeMap<MeantKey, Arc<Rated>>, BTreeSet<InError>)> {
        let (mut rated, mut in_error) = (BTreeMap::new(), BTreeSet::new());
        let mut by_rated_by: BTreeMap<&RatedBy, Vec<&Meant>> = BTreeMap::new();
        for meant in meant {
            by_rated_by.entry(&meant.rated_by).or_default().push(meant);
        }
        for (rated_by, meant) in by_rated_by {
            let Some(kept) = restore(self.lake, rated_by).await? else {
                in_error.extend(meant.iter().map(|meant| gone(meant)));
                continue;
            };
            let kept_view;
            let view = match *rated_by == RatedBy::default() {
                true => self.view,
                false => {
                    let catalog = Arc::new(kept.catalog(self.view.catalog()));
                    kept_view = View::open(catalog, self.lake).await?;
                    &kept_view
                }
            };
            for round in rounds(&meant) {
                let of_round = self.rated_at_once(view, &round).await?;
                let of_round: BTreeMap<(String, i64), Arc<Rated>> = of_round
                    .into_iter()
                    .map(|rated| {
                        let key = (rated.due.customer.clone(), rated.due.at_us);
                        (key, Arc::new(rated))
                    })
                    .collect();
                for meant in round {
                    let of = of_round.get(&(meant.customer.clone(), meant.at_us));
                    rated.extend(of.map(|of| (meant.key(), Arc::clone(of))));
                }
            }
        }
        Ok((rated, in_error))
    }

    /// Documents rated with the rows that are meant, which are the same of each subscription for all of them.
    async fn rated_at_once(&self, view: &View, meant: &[&Meant]) -> Result<Vec<Rated>> {
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
            let definitions = &view.catalog().definitions;
            // What has no answer here has none among the documents themselves.
            let of_customer = due_of(&accounts, definitions, self.calendar, customer, time);
            due.extend(of_customer.unwrap_or_default());
        }
        // What cannot be told here cannot be told of the documents themselves.
        let (rated, _) = rate_due(view, &accounts, due).await?;
        Ok(rated)
    }
}

/// The prices that a document in advance billed for a billing period and the rate tables that they read, as far as they are others now: as they
/// were by what the document stands.
fn edited(opened: &Document<'_>, cycle: &Cycle, now: &RatedBy) -> RatedBy {
    let mut edited = RatedBy::default();
    let Some(then) = opened.basis.as_ref().map(|basis| &basis.rated_by) else {
        return edited;
    };
    let (start_us, end_us) = (cycle.period.start_us, cycle.period.end_us);
    let billed = opened.lines.iter().filter(|line| {
        line.corrects.is_none()
            && is_fixed(line.kind)
            && line.subscription.as_deref() == Some(cycle.subscription.as_str())
            && start_us <= line.period.start_us
            && line.period.end_us <= end_us
    });
    let prices: BTreeSet<&str> = billed.filter_map(|line| line.price.as_deref()).collect();
    for price in prices {
        let tables = then.reads.get(price).into_iter().flatten();
        let tables: Vec<&String> = tables.collect();
        let is_other = |before: &Named, after: &Named, name: &str| match after.get(name) {
            Some(after) => before.get(name).is_some_and(|before| before != after),
            None => false,
        };
        let is_edited = is_other(&then.prices, &now.prices, price)
            || tables
                .iter()
                .any(|table| is_other(&then.rate_tables, &now.rate_tables, table));
        if !is_edited {
            continue;
        }
        let named = |names: &Named, name: &str| Some((name.to_owned(), names.get(name)?.clone()));
        edited.prices.extend(named(&then.prices, price));
        let tables = tables.into_iter();
        let tables = tables.filter_map(|table| named(&then.rate_tables, table));
        edited.rate_tables.extend(tables);
    }
    edited
}

/// That the prices are gone by which a fee was billed in advance.
fn gone(meant: &Meant) -> InError {
    let names: Vec<&str> = meant.rated_by.prices.keys().map(String::as_str).collect();
    InError {
        customer: meant.customer.clone(),
        what: Faulty::Invoice,
        reason: format!(
            "a fee of subscription `{}` was billed in advance, and what it was rated by ({}) is not in the lake's folder `{}` any more: bring the folder back",
            meant.subscription,
            names.join(", "),
            kept::FOLDER
        ),
    }
}

/// Rows that were known, and those of now for whose effect something holds; `None` when it holds for all that are new.
fn meant_rows(
    before: &[Subscription],
    now: &[Subscription],
    is_meant: impl Fn(i64) -> bool,
) -> Option<Vec<Subscription>> {
    let since: Vec<&Subscription> = now.iter().filter(|row| !before.contains(row)).collect();
    let is_meant = |row: &&Subscription| is_meant(changes_us(before, row));
    if since.iter().all(is_meant) {
        return None;
    }
    let since = since.into_iter().filter(is_meant);
    Some(before.iter().chain(since).cloned().collect())
}

/// What is meant, in rounds in each of which the same rows of a subscription are meant for all documents. Rows that were not known when one
/// document was issued may have been when a later one was.
fn rounds<'a>(meant: &[&'a Meant]) -> Vec<Vec<&'a Meant>> {
    let mut of_document: BTreeMap<(&str, i64), Vec<&Meant>> = BTreeMap::new();
    for meant in meant.iter().copied() {
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
