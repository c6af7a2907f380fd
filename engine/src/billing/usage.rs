//! What customers used in a billing period: totals of meters, and the events that prices read.

use super::versions::parts_of;
use crate::{
    catalog::Catalog,
    customers::Customers,
    error::Result,
    view::{Totals, View, referenced},
};
use arrow::array::{AsArray, RecordBatch};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_sql::{
    definitions::PlanDefinition,
    invoice::basis::{self, Usage},
    period::Period,
    session,
};

/// What customers used, where every subject is its own customer.
#[derive(Debug)]
pub(super) struct PeriodUsage {
    catalog: Arc<Catalog>,
    /// Of each meter, in order of definition and of customers.
    meters: Vec<RecordBatch>,
    /// How many events, by customer.
    events: BTreeMap<String, Vec<Usage>>,
}

impl PeriodUsage {
    /// What totals have, and events.
    pub(super) fn new(
        catalog: &Arc<Catalog>,
        totals: &Totals,
        events: BTreeMap<String, Vec<Usage>>,
    ) -> Self {
        PeriodUsage {
            catalog: Arc::clone(catalog),
            meters: totals.meters.clone(),
            events,
        }
    }

    /// Who has an event that a price reads.
    pub(super) fn customers_with_events(&self) -> impl Iterator<Item = &String> {
        self.events.keys()
    }

    /// Whether a customer used anything.
    pub(super) fn has(&self, customer: &str) -> bool {
        let has_rows = |rows: &RecordBatch| of_customer(rows, customer).num_rows() > 0;
        self.meters.iter().any(has_rows) || self.events.contains_key(customer)
    }

    /// What a customer used, as documents keep it.
    pub(super) fn of(&self, customer: &str) -> Result<Vec<Usage>> {
        let meters = self.meters.iter().map(|rows| of_customer(rows, customer));
        let meters: Vec<RecordBatch> = meters.collect();
        let mut usage = usage_of_all(&self.catalog, &meters)?;
        let mut usage = usage.remove(customer).unwrap_or_default();
        usage.extend(self.events.get(customer).into_iter().flatten().cloned());
        Ok(usage)
    }

    /// The same of every customer.
    pub(super) fn by_customer(&self) -> Result<BTreeMap<String, Vec<Usage>>> {
        let mut all = usage_of_all(&self.catalog, &self.meters)?;
        for (customer, events) in &self.events {
            let of_customer = all.entry(customer.clone()).or_default();
            of_customer.extend(events.iter().cloned());
        }
        Ok(all)
    }
}

/// The rows of a customer, where rows are in the order of customers.
fn of_customer(rows: &RecordBatch, customer: &str) -> RecordBatch {
    let places = Customers::One(customer.to_owned()).places_in(rows["customer"].as_string());
    rows.slice(places.start, places.len())
}

/// How many events each customer has of the types that a plan's prices read.
pub(super) async fn events_of_plan(
    view: &View,
    plan: &PlanDefinition,
    period: &Period,
    totals: &Totals,
) -> Result<BTreeMap<String, Vec<Usage>>> {
    let context = session::context();
    let mut read = BTreeSet::new();
    for name in &plan.prices {
        for part in parts_of(view.catalog(), name, period)? {
            read.extend(referenced(&context, &part.price.query)?);
        }
    }
    let types = view.catalog().definitions.event_types.iter();
    let types = types.map(|event_type| event_type.name.as_str());
    let types = types.filter(|name| read.contains(*name)).collect();
    view.events_used(&types, period, totals).await
}

/// What every customer used of every meter.
pub(super) fn usage_of_all(
    catalog: &Catalog,
    totals: &[RecordBatch],
) -> Result<BTreeMap<String, Vec<Usage>>> {
    let mut all: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
    for (meter, totals) in catalog.meters.iter().zip(totals) {
        let measures = meter.measures().iter().map(|field| field.name().as_str());
        let measures: Vec<&str> = measures.collect();
        let usage = basis::usage_of(&meter.definition().name, &measures, totals)?;
        for (customer, usage) in usage {
            all.entry(customer).or_default().extend(usage);
        }
    }
    Ok(all)
}
