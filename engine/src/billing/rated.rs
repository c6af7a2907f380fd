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
use std::collections::{BTreeMap, BTreeSet};
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
    /// The rows of `subscription`.
    subscribed: &'a [subscriptions::Row],
    pub(super) charges: BTreeMap<String, Vec<Charge>>,
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
            charges: BTreeMap::new(),
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
        let in_error = &self.in_error;
        self.charges
            .retain(|customer, _| !in_error.iter().any(|known| known.customer == *customer));
        Ok(true)
    }

    /// Rates a part of the period by its version: what the period comes to at the end of the part, less what it came to
    /// at its start.
    async fn rate_part(&mut self, part: &Part<'_>, is_fixed: bool) -> Result<bool> {
        let Some(after) = self.rate_until(part, part.until_us).await? else {
            return Ok(false);
        };
        let mut before = match part.from_us == self.period.start_us {
            true => BTreeMap::new(),
            false => match self.rate_until(part, part.from_us).await? {
                Some(before) => before,
                None => return Ok(false),
            },
        };
        let is_whole = part.from_us == self.period.start_us && part.until_us == self.period.end_us;
        let service = (!is_whole).then_some(invoice::Period {
            start_us: part.from_us,
            end_us: part.until_us,
        });
        let gone = before
            .keys()
            .filter(|customer| !after.contains_key(*customer));
        let gone: Vec<(String, Vec<Charge>)> = gone
            .map(|customer| (customer.clone(), Vec::new()))
            .collect();
        for (customer, after) in after.into_iter().chain(gone) {
            let before = before.remove(&customer).unwrap_or_default();
            let charges = match part.from_us == self.period.start_us {
                true => Ok(after),
                false => progress::since(&before, after),
            };
            match charges {
                Ok(charges) => {
                    let of_part = charges.into_iter().map(|charge| Charge {
                        service,
                        is_fixed,
                        ..charge
                    });
                    self.charges.entry(customer).or_default().extend(of_part);
                }
                Err(error) => {
                    self.in_error.insert(InError {
                        customer,
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
        Ok(true)
    }

    /// The charges from the start of the period to an instant by one version; `None` when they cannot be told from the
    /// usage of some customers.
    async fn rate_until(
        &mut self,
        part: &Part<'_>,
        until_us: i64,
    ) -> Result<Option<BTreeMap<String, Vec<Charge>>>> {
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
        if self.totals.is_of_some() && !is_by_customer(&session.context, price).await? {
            return Ok(None);
        }
        self.note_tables(&session.context, &price.name)?;
        let rated = rate(&session.context, price, &session.left_out).await;
        let rated = rated.map_err(in_one_line)?;
        self.in_error.extend(session.windows_in_error);
        self.in_error.extend(rated.in_error.iter().map(unrated));
        let mut charges: BTreeMap<String, Vec<Charge>> = BTreeMap::new();
        for charge in rated.charges {
            let of_customer = charges.entry(charge.customer.clone());
            of_customer.or_default().push(charge);
        }
        Ok(Some(charges))
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
