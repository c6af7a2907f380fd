//! What the prices of a plan make of a billing period, by customer.

use super::{
    in_one_line,
    kept::Inputs,
    subscription, unrated,
    versions::{Part, parts_of},
};
use crate::{
    catalog::Catalog,
    error::{Faulty, InError, Result, chain, query_error},
    view::{Totals, View, referenced},
};
use datafusion::prelude::SessionContext;
use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    sync::Arc,
    vec,
};
use tollgate_sql::{
    definitions::PlanDefinition,
    invoice::{self, basis::RatedBy},
    period::Period,
    rating::{Charge, is_by_customer, progress, rate},
    session, subscriptions,
};

/// What is rated, and what has come of it so far.
pub(super) struct Rating<'a> {
    view: &'a View,
    plan: &'a PlanDefinition,
    period: &'a Period,
    /// Of the whole period.
    totals: &'a Totals,
    /// From the start of the period to where a version takes over, by when that is.
    until: BTreeMap<i64, Totals>,
    /// The rows of `subscription`; none where [`reads_subscription`] says that no price reads them.
    subscribed: &'a [subscriptions::Row],
    pub(super) charges: Charges,
    pub(super) in_error: BTreeSet<InError>,
    pub(super) rated_by: RatedBy,
    pub(super) inputs: Inputs,
}

impl<'a> Rating<'a> {
    pub(super) fn new(
        view: &'a View,
        plan: &'a PlanDefinition,
        period: &'a Period,
        totals: &'a Totals,
        subscribed: &'a [subscriptions::Row],
    ) -> Self {
        Rating {
            view,
            plan,
            period,
            totals,
            until: BTreeMap::new(),
            subscribed,
            charges: Charges::default(),
            in_error: totals.in_error.iter().cloned().collect(),
            rated_by: RatedBy::default(),
            inputs: Inputs::default(),
        }
    }

    /// Rates some prices of the plan. False when one cannot be answered from the usage of some customers.
    pub(super) async fn rate(&mut self, prices: &[String]) -> Result<bool> {
        let fixed = fixed_prices(self.view.catalog(), prices)?;
        for name in prices {
            let parts = parts_of(self.view.catalog(), name, self.period)?;
            self.inputs
                .note_price(name, &parts, self.plan, &mut self.rated_by);
            for part in &parts {
                if !self.rate_part(part, fixed.contains(name)).await? {
                    return Ok(false);
                }
            }
        }
        let in_error = self.in_error.iter();
        self.charges.left_out = in_error.map(|known| known.customer.clone()).collect();
        Ok(true)
    }

    /// Rates a part of the period by its version: what the period comes to at the end of the part, less what it came to
    /// at its start.
    async fn rate_part(&mut self, part: &Part<'_>, is_fixed: bool) -> Result<bool> {
        let Some(mut charges) = self.rate_until(part, part.until_us).await? else {
            return Ok(false);
        };
        if part.from_us != self.period.start_us {
            let Some(before) = self.rate_until(part, part.from_us).await? else {
                return Ok(false);
            };
            charges = self.since(part, before, charges);
        }
        let is_whole = part.from_us == self.period.start_us && part.until_us == self.period.end_us;
        let service = (!is_whole).then_some(invoice::Period {
            start_us: part.from_us,
            end_us: part.until_us,
        });
        for charge in &mut charges {
            charge.service = service;
            charge.is_fixed = is_fixed;
        }
        self.charges.add(charges);
        Ok(true)
    }

    /// The charges at the end of a part less those at its start, both in the order of customers.
    fn since(&mut self, part: &Part<'_>, before: Vec<Charge>, after: Vec<Charge>) -> Vec<Charge> {
        let (mut before, mut after) = (Charges::of(before), Charges::of(after));
        let mut all = Vec::new();
        while let Some(customer) = Charges::next_of([&mut before, &mut after]) {
            match progress::since(&before.take(&customer), after.take(&customer)) {
                Ok(charges) if charges.is_empty() => {
                    self.charges.of_nothing.insert(customer);
                }
                Ok(charges) => all.extend(charges),
                Err(error) => {
                    self.in_error.insert(InError {
                        customer: customer.as_ref().to_owned(),
                        what: Faulty::Price,
                        reason: format!(
                            "price `{}` cannot be split: {}",
                            part.price.name,
                            chain(&tollgate_sql::Error::from(error))
                        ),
                    });
                }
            }
        }
        all
    }

    /// The charges from the start of the period to an instant by one version, in the order of customers; `None` when they cannot be told
    /// from the usage of some customers.
    async fn rate_until(&mut self, part: &Part<'_>, until_us: i64) -> Result<Option<Vec<Charge>>> {
        let price = part.price;
        let time = match until_us == self.period.end_us {
            true => self.period.clone(),
            false => self.period.between(self.period.start_us, until_us),
        };
        if until_us != self.period.end_us && !self.until.contains_key(&until_us) {
            let totals = self.view.totals_of_same(self.totals, &time).await?;
            self.in_error.extend(totals.in_error.iter().cloned());
            self.until.insert(until_us, totals);
        }
        let totals = self.until.get(&until_us).unwrap_or(self.totals);
        let subscribed = self.subscribed.iter();
        let subscribed = subscribed.filter_map(|row| row.until(until_us, self.period));
        let subscribed: Vec<subscriptions::Row> = subscribed.collect();
        let subscription = subscription(&subscribed, self.period)?;
        let session = self
            .view
            .period_session(&time, &price.query, totals, subscription)
            .await?;
        if self.totals.may_lack_others() && !is_by_customer(&session.context, price).await? {
            return Ok(None);
        }
        self.note_tables(&session.context, &price.name)?;
        let rated = rate(&session.context, price, &session.left_out).await;
        let rated = rated.map_err(in_one_line)?;
        self.in_error.extend(session.windows_in_error);
        self.in_error.extend(rated.in_error.iter().map(unrated));
        Ok(Some(rated.charges))
    }

    /// Notes what the rate tables are that a price's session has.
    fn note_tables(&mut self, session: &SessionContext, price: &str) -> Result<()> {
        let catalog = self.view.catalog();
        let tables = catalog.definitions.rate_tables.iter();
        for table in tables.zip(&catalog.rate_tables) {
            let is_read = session
                .table_exist(table.0.name.as_str())
                .map_err(query_error("looking for rate tables"))?;
            if is_read {
                let reads = self.rated_by.reads.entry(price.to_owned()).or_default();
                reads.insert(table.0.name.clone());
                self.inputs.note_rate_table(table, &mut self.rated_by)?;
            }
        }
        Ok(())
    }
}

/// The charges of several prices, each price's in the order of customers.
#[derive(Debug, Default)]
pub(super) struct Charges {
    of_prices: Vec<Peekable<vec::IntoIter<Charge>>>,
    /// Customers who have none.
    left_out: BTreeSet<String>,
    /// Customers of whom a later part of the period left nothing: they have a document all the same.
    of_nothing: BTreeSet<Arc<str>>,
}

impl Charges {
    fn of(of_price: Vec<Charge>) -> Self {
        let mut charges = Charges::default();
        charges.add(of_price);
        charges
    }

    fn add(&mut self, of_price: Vec<Charge>) {
        if !of_price.is_empty() {
            self.of_prices.push(of_price.into_iter().peekable());
        }
    }

    /// The first customer of those that were not taken.
    pub(super) fn next_customer(&mut self) -> Option<Arc<str>> {
        let of_nothing = self.of_nothing.first().cloned();
        of_nothing.into_iter().chain(Self::next_of([self])).min()
    }

    /// Whether a customer has no document.
    pub(super) fn are_left_out(&self, customer: &str) -> bool {
        self.left_out.contains(customer)
    }

    fn next_of<'c>(of: impl IntoIterator<Item = &'c mut Self>) -> Option<Arc<str>> {
        let of_prices = of.into_iter().flat_map(|charges| &mut charges.of_prices);
        let next = of_prices.filter_map(|charges| Some(&charges.peek()?.customer));
        next.min().map(Arc::clone)
    }

    /// How many charges are left of the price that has most: about as many as there are customers.
    pub(super) fn longest(&self) -> usize {
        let of_prices = self.of_prices.iter().map(ExactSizeIterator::len);
        of_prices.max().unwrap_or(0)
    }

    /// The charges of a customer, price by price; those of customers before are dropped, so that customers are asked for in the order of
    /// their names.
    pub(super) fn take(&mut self, customer: &str) -> Vec<Charge> {
        let mut taken = Vec::new();
        self.of_nothing.remove(customer);
        for charges in &mut self.of_prices {
            while let Some(next) = charges.peek() {
                let place = (*next.customer).cmp(customer);
                if place.is_gt() {
                    break;
                }
                let charge = charges.next();
                taken.extend(charge.filter(|_| place.is_eq()));
            }
        }
        if self.left_out.contains(customer) {
            taken.clear();
        }
        taken
    }
}

/// Whether a version of some prices reads `subscription`.
pub(super) fn reads_subscription<'n>(
    catalog: &Catalog,
    prices: impl IntoIterator<Item = &'n String>,
) -> Result<bool> {
    let context = session::context();
    for name in prices {
        let versions = catalog.definitions.prices.iter();
        for version in versions.filter(|price| price.name == *name) {
            if referenced(&context, &version.query)?.contains("subscription") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Those of some prices that read no usage: nothing but `subscription` and rate tables.
pub(super) fn fixed_prices(catalog: &Catalog, prices: &[String]) -> Result<BTreeSet<String>> {
    let context = session::context();
    let definitions = &catalog.definitions;
    let mut fixed = BTreeSet::new();
    for name in prices {
        let mut read = BTreeSet::new();
        for version in definitions
            .prices
            .iter()
            .filter(|price| price.name == *name)
        {
            read.extend(referenced(&context, &version.query)?);
        }
        let is_usage = |relation: &String| {
            let meter = relation.strip_suffix("_windows").unwrap_or(relation);
            let mut meters = definitions.meters.iter();
            meters.any(|known| known.name == *relation || known.name == meter)
                || definitions.event_type(relation).is_some()
        };
        if !read.iter().any(is_usage) {
            fixed.insert(name.clone());
        }
    }
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A charge of a customer, by its amount.
    fn charge(customer: &str, amount: i64) -> Charge {
        Charge {
            price: "p".into(),
            price_version: 1,
            customer: customer.into(),
            dimensions: [].into(),
            quantity: None,
            amount: amount.into(),
            currency: "USD".into(),
            service: None,
            subscription: None,
            is_fixed: false,
            is_unused: false,
        }
    }

    #[test]
    fn charges_of_several_prices_come_customer_by_customer() {
        let mut charges = Charges::of(vec![charge("a", 1), charge("c", 2), charge("c", 3)]);
        charges.add(vec![charge("b", 4), charge("c", 5), charge("d", 6)]);
        charges.left_out = BTreeSet::from(["b".to_owned()]);
        charges.of_nothing = BTreeSet::from(["aa".into(), "c".into()]);
        let mut all = Vec::new();
        while let Some(customer) = charges.next_customer() {
            let of_customer = charges.take(&customer).into_iter();
            let amounts: Vec<String> = of_customer.map(|of| of.amount.to_string()).collect();
            all.push(format!("{customer} {}", amounts.join(" ")));
        }
        assert_eq!(all, ["a 1", "aa ", "b ", "c 2 3 5", "d 6"]);
    }

    #[test]
    fn charges_of_customers_that_are_not_asked_for_are_dropped() {
        let mut charges = Charges::of(vec![charge("a", 1), charge("b", 2), charge("d", 3)]);
        assert_eq!(charges.take("b"), [charge("b", 2)]);
        assert_eq!(charges.take("c"), []);
        assert_eq!(charges.take("d"), [charge("d", 3)]);
        assert_eq!(charges.next_customer(), None);
    }
}
