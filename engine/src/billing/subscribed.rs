//! What the prices of subscriptions' plans make of the billing periods that documents are due for.
//!
//! A usage price is rated once for each subscription, plan and billing period, over the time in which the plan is in force.
//! A fixed price, which reads nothing but `subscription` and rate tables, is rated once for each segment. All subscriptions
//! on a plan with one billing period are rated at once, in rounds in which each customer has one subscription.
//! A fixed price that gathers rows, as by GROUP BY, is rated once over all segments.

use super::{
    due::Due,
    issued::Issued,
    kept::Inputs,
    rated::{Rating, fixed_prices, reads_subscription},
    subscription,
    usage::{events_of_plan, usage_of_all},
};
use crate::{
    error::{Error, Faulty, InError, Result},
    view::{Paid, Totals, View},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_sql::{
    accounts::Index,
    definitions::PlanDefinition,
    invoice::{
        self, InvoiceId,
        basis::{RatedBy, Usage},
        instalments::Instalment,
    },
    period::Period,
    rating::{Charge, is_by_row},
    subscriptions::{Cycle, Part, Row, Segment},
};

/// The dimension by which a price says for which subscription a row is.
const SUBSCRIPTION: &str = "subscription";

/// A document that is due, with what it bills and what that was made from.
#[derive(Debug)]
pub(super) struct Rated {
    pub(super) due: Due,
    /// What each plan charges, in the order of the cycles: what closes before what opens.
    pub(super) charged: Vec<Charged>,
    pub(super) usage: Vec<Usage>,
    pub(super) rated_by: Arc<RatedBy>,
    /// Which instalment it is of a billing period that is not over.
    pub(super) instalment: Option<Instalment>,
    /// Instalments of which it bills the rest.
    pub(super) begun: Vec<Issued>,
}

impl Rated {
    /// The name of its document.
    pub(super) fn id(&self) -> InvoiceId {
        let Some(of) = &self.instalment else {
            return self.due.id();
        };
        InvoiceId::of_instalment(&self.due.customer, &of.subscription, of.start_us, of.place)
    }

    /// A document of a customer that bills nothing by itself.
    pub(super) fn nothing(customer: &str, at_us: i64) -> Self {
        Rated {
            due: Due {
                customer: customer.to_owned(),
                at_us,
                closing: Vec::new(),
                opening: Vec::new(),
                one_offs: Vec::new(),
                starts_us: i64::MIN,
            },
            charged: Vec::new(),
            usage: Vec::new(),
            rated_by: Arc::default(),
            instalment: None,
            begun: Vec::new(),
        }
    }

    /// Whether it bills nothing by itself.
    pub(super) fn is_nothing(&self) -> bool {
        self.due.is_nothing()
    }
}

/// What a plan charges for a billing period of a subscription.
#[derive(Debug)]
pub(super) struct Charged {
    /// Whether the period opens, so that these are its charges in advance.
    pub(super) is_opening: bool,
    /// Its place among the cycles that open or close.
    pub(super) cycle: usize,
    pub(super) plan: String,
    /// Charges in arrears when it closes, in advance when it opens.
    pub(super) charges: Vec<Charge>,
    /// What the prices in advance come to by what is known when it closes: the rest of it was billed when it opened.
    pub(super) in_advance: Vec<Charge>,
}

impl Charged {
    /// The billing period.
    pub(super) fn cycle_of<'a>(&self, due: &'a Due) -> &'a Cycle {
        match self.is_opening {
            true => &due.opening[self.cycle],
            false => &due.closing[self.cycle],
        }
    }
}

/// One subscription on one plan in one billing period.
#[derive(Debug, Clone, Copy)]
struct Unit<'a> {
    /// The place of its document.
    document: usize,
    is_opening: bool,
    cycle: (usize, &'a Cycle),
    part: &'a Part,
}

/// What is found beside the charges of documents.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Customers of whom something cannot be rated, and why.
    pub(super) in_error: BTreeSet<InError>,
    /// What all documents are rated by.
    pub(super) inputs: Inputs,
    /// What a round is rated by, so far.
    rated_by: RatedBy,
}

impl Found {
    /// Whether a customer is in error.
    pub(super) fn is_in_error(&self, customer: &str) -> bool {
        self.in_error.iter().any(|known| known.customer == customer)
    }
}

/// By what units are rated at once.
type Alike<'a> = (invoice::Period, &'a str, &'a str, bool);

/// Rates the documents that are due. Customers of whom something cannot be rated are in error, with the reason; their
/// documents are among the others all the same.
///
/// # Errors
/// The lake cannot be read, or a price fails and it cannot be told for which customer.
pub(super) async fn rate_due(
    view: &View,
    accounts: &Index,
    due: Vec<Due>,
) -> Result<(Vec<Rated>, Found)> {
    let mut found = Found::default();
    let mut made: Vec<Made> = due.iter().map(|_| Made::default()).collect();
    let mut alike: BTreeMap<Alike<'_>, Vec<Unit<'_>>> = BTreeMap::new();
    for (document, due) in due.iter().enumerate() {
        for unit in units(document, due) {
            let period = &unit.cycle.1.period;
            let key = (
                period.into(),
                period.zone(),
                unit.part.plan.as_str(),
                unit.is_opening,
            );
            alike.entry(key).or_default().push(unit);
        }
    }
    for ((_, _, plan, _), units) in &alike {
        let plan = view.catalog().definitions.plan(plan);
        let plan = plan.ok_or(Error::Contradiction {
            what: "a plan with billing periods is defined",
        })?;
        for round in rounds(units) {
            let round = Round::of(view, accounts, plan, &round);
            round.rate(&mut made, &mut found).await?;
        }
    }
    for (due, made) in due.iter().zip(&mut made) {
        // What was due before the customer was billed here is not billed at the close.
        let of_before = made.charged.iter_mut();
        let of_before = of_before.filter(|charged| charged.cycle_of(due).opens_us < due.starts_us);
        of_before.for_each(|charged| charged.in_advance.clear());
        made.charged.sort_by_key(|charged| {
            let cycle = &charged.cycle_of(due).parts;
            let place = cycle.iter().position(|part| part.plan == charged.plan);
            (charged.is_opening, charged.cycle, place)
        });
    }
    found.in_error.extend(billed_twice(&due, &made));
    let rated = due.into_iter().zip(made).map(|(due, made)| Rated {
        due,
        charged: made.charged,
        usage: made.usage,
        rated_by: made.rated_by,
        instalment: None,
        begun: Vec::new(),
    });
    Ok((rated.collect(), found))
}

/// What has come of a document so far.
#[derive(Debug, Default)]
struct Made {
    charged: Vec<Charged>,
    usage: Vec<Usage>,
    rated_by: Arc<RatedBy>,
    /// Prices that say for which subscription a row is.
    says_which: BTreeSet<String>,
}

impl Made {
    /// Adds what a round is rated by, which its documents share.
    fn is_rated_by(&mut self, rated_by: &Arc<RatedBy>) {
        match *self.rated_by == RatedBy::default() {
            true => self.rated_by = Arc::clone(rated_by),
            false => Arc::make_mut(&mut self.rated_by).extend(rated_by),
        }
    }
}

fn units(document: usize, due: &Due) -> impl Iterator<Item = Unit<'_>> {
    let closing = due.closing.iter().enumerate().map(|cycle| (false, cycle));
    let opening = due.opening.iter().enumerate().map(|cycle| (true, cycle));
    closing.chain(opening).flat_map(move |(is_opening, cycle)| {
        cycle.1.parts.iter().map(move |part| Unit {
            document,
            is_opening,
            cycle,
            part,
        })
    })
}

/// Units in rounds in which each customer has one at most.
fn rounds<'a>(units: &[Unit<'a>]) -> Vec<Vec<Unit<'a>>> {
    let mut rounds: Vec<Vec<Unit<'a>>> = Vec::new();
    let mut of_customer: BTreeMap<&str, usize> = BTreeMap::new();
    for unit in units {
        let round = of_customer.entry(&unit.cycle.1.customer).or_default();
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(*unit);
        *round += 1;
    }
    rounds
}

/// What is rated at once: a plan, a billing period, and one unit of each customer.
struct Round<'a> {
    view: &'a View,
    accounts: &'a Index,
    plan: &'a PlanDefinition,
    units: BTreeMap<&'a str, Unit<'a>>,
}

impl<'a> Round<'a> {
    fn of(
        view: &'a View,
        accounts: &'a Index,
        plan: &'a PlanDefinition,
        units: &[Unit<'a>],
    ) -> Self {
        let units = units.iter();
        Round {
            view,
            accounts,
            plan,
            units: units
                .map(|unit| (unit.cycle.1.customer.as_str(), *unit))
                .collect(),
        }
    }

    async fn rate(&self, made: &mut [Made], found: &mut Found) -> Result<()> {
        let Some(first) = self.units.values().next() else {
            return Ok(());
        };
        let period = &first.cycle.1.period;
        let fixed = fixed_prices(self.view.catalog(), &self.plan.prices)?;
        let is_in_advance = |name: &&String| self.plan.terms.in_advance.contains(name);
        let (in_advance, in_arrears): (Vec<&String>, Vec<&String>) =
            self.plan.prices.iter().partition(is_in_advance);
        let mut charges: BTreeMap<&str, (Vec<Charge>, Vec<Charge>)> = BTreeMap::new();
        found.inputs.note_plan(self.plan, &mut found.rated_by);
        if !first.is_opening {
            let (fixed, usage) = in_arrears
                .into_iter()
                .partition(|name| fixed.contains(*name));
            self.rate_usage(period, usage, made, found, &mut charges)
                .await?;
            let all = self.rate_fixed(period, fixed, made, found).await?;
            for (customer, all) in all {
                charges.entry(customer).or_default().0.extend(all);
            }
        }
        let all = self.rate_fixed(period, in_advance, made, found).await?;
        for (customer, all) in all {
            let (in_arrears, in_advance) = charges.entry(customer).or_default();
            match first.is_opening {
                true => in_arrears.extend(all),
                false => in_advance.extend(all),
            }
        }
        let rated_by = Arc::new(std::mem::take(&mut found.rated_by));
        for (customer, unit) in &self.units {
            let (charges, in_advance) = charges.remove(customer).unwrap_or_default();
            made[unit.document].is_rated_by(&rated_by);
            made[unit.document].charged.push(Charged {
                is_opening: unit.is_opening,
                cycle: unit.cycle.0,
                plan: self.plan.name.clone(),
                charges,
                in_advance,
            });
        }
        Ok(())
    }

    /// Rates prices of usage over the time of each unit.
    async fn rate_usage(
        &self,
        period: &Period,
        prices: Vec<&String>,
        made: &mut [Made],
        found: &mut Found,
        charges: &mut BTreeMap<&'a str, (Vec<Charge>, Vec<Charge>)>,
    ) -> Result<()> {
        if prices.is_empty() {
            return Ok(());
        }
        let prices: Vec<String> = prices.into_iter().cloned().collect();
        let totals = self.view.paid_totals(period, self.paid()).await?;
        let mut usage = usage_of_all(self.view.catalog(), &totals.meters)?;
        let events = events_of_plan(self.view, self.plan, period, &totals).await?;
        for (customer, events) in events {
            usage.entry(customer).or_default().extend(events);
        }
        let rows = match reads_subscription(self.view.catalog(), &prices)? {
            true => self.rows(|_| true),
            false => Vec::new(),
        };
        let mut rating = Rating::new(self.view, self.plan, period, &totals, &rows);
        rating.rate(&prices).await?;
        for (customer, unit) in &self.units {
            let made = &mut made[unit.document];
            made.usage
                .extend(usage.remove(*customer).unwrap_or_default());
            let of_customer = rating.charges.take(customer);
            let whole = invoice::Period::from(period);
            let used = hull(&unit.part.usage).filter(|used| *used != whole);
            let of_customer = of_customer.into_iter().map(|charge| Charge {
                service: charge.service.or(used),
                ..charge
            });
            match of_unit(self.accounts, unit, of_customer, made) {
                Ok(of_unit) => charges.entry(customer).or_default().0.extend(of_unit),
                Err(error) => {
                    found.in_error.insert(error);
                }
            }
        }
        found.in_error.extend(rating.in_error);
        found.inputs.extend(rating.inputs);
        found.rated_by.extend(&rating.rated_by);
        Ok(())
    }

    /// Rates fixed prices: what each customer is charged. A price of which each row is made of one segment is rated segment by
    /// segment, one that gathers segments once for all of them.
    async fn rate_fixed(
        &self,
        period: &Period,
        prices: Vec<&String>,
        made: &mut [Made],
        found: &mut Found,
    ) -> Result<BTreeMap<&'a str, Vec<Charge>>> {
        let mut all: BTreeMap<&str, Vec<Charge>> = BTreeMap::new();
        if prices.is_empty() {
            return Ok(all);
        }
        let totals = self.view.paid_totals(period, Paid::default()).await?;
        let (mut by_segment, mut gathering) = (Vec::new(), Vec::new());
        for name in prices {
            match is_by_segment(self.view, period, &totals, name).await? {
                true => by_segment.push(name.clone()),
                false => gathering.push(name.clone()),
            }
        }
        let segments = self.units.values().map(|unit| unit.part.segments.len());
        let segments = segments.max().unwrap_or(0);
        let each = (0..segments).map(|place| (place..place + 1, &by_segment));
        for (places, prices) in each.chain([(0..segments, &gathering)]) {
            if prices.is_empty() {
                continue;
            }
            let rows = self.rows(|segment| places.contains(&segment));
            let mut rating = Rating::new(self.view, self.plan, period, &totals, &rows);
            rating.rate(prices).await?;
            for (customer, unit) in &self.units {
                let of_customer = rating.charges.take(customer);
                let segments = unit.part.segments.iter().enumerate();
                let segments = segments.filter(|(place, _)| places.contains(place));
                let segments: Vec<(i64, i64)> = segments
                    .map(|(_, segment)| (segment.from_us, segment.until_us))
                    .collect();
                let Some(service) = hull(&segments) else {
                    continue;
                };
                let of_customer = of_customer.into_iter().map(|charge| Charge {
                    service: charge.service.or(Some(service)),
                    ..charge
                });
                let of_unit = of_unit(self.accounts, unit, of_customer, &mut made[unit.document]);
                match of_unit {
                    Ok(of_unit) => all.entry(customer).or_default().extend(of_unit),
                    Err(error) => {
                        found.in_error.insert(error);
                    }
                }
            }
            found.in_error.extend(rating.in_error);
            found.inputs.extend(rating.inputs);
            found.rated_by.extend(&rating.rated_by);
        }
        Ok(all)
    }

    /// The rows of `subscription`, of those segments for whose place something holds.
    fn rows(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<Row> {
        let row = |unit: &Unit<'_>, segment: &Segment| Row {
            customer: unit.cycle.1.customer.clone(),
            subscription: Some(unit.cycle.1.subscription.clone()),
            plan: unit.part.plan.clone(),
            segment: segment.clone(),
        };
        let mut rows = Vec::new();
        for unit in self.units.values() {
            let segments = unit.part.segments.iter().enumerate();
            let segments = segments.filter(|(place, _)| is_wanted(*place));
            rows.extend(segments.map(|(_, segment)| row(unit, segment)));
        }
        rows
    }

    /// Who pays for which usage: each customer for its subjects, in the time in which its plan is in force.
    fn paid(&self) -> Paid {
        let mut paid = Paid::default();
        for (customer, unit) in &self.units {
            for subject in self.accounts.subjects_of(customer) {
                let mut times = Vec::new();
                for payer in self.accounts.payers_of(subject) {
                    if payer.customer != *customer {
                        continue;
                    }
                    let (from_us, to_us) = (
                        payer.from_us.unwrap_or(i64::MIN),
                        payer.to_us.unwrap_or(i64::MAX),
                    );
                    let used = unit.part.usage.iter();
                    let used =
                        used.map(|(from, until)| ((*from).max(from_us), (*until).min(to_us)));
                    times.extend(used.filter(|(from, until)| from < until));
                }
                times.sort_unstable();
                paid.add(subject, customer, times);
            }
        }
        paid
    }
}

/// Whether every version of a fixed price makes each of its rows of one segment.
async fn is_by_segment(view: &View, period: &Period, totals: &Totals, name: &str) -> Result<bool> {
    let prices = &view.catalog().definitions.prices;
    for price in prices.iter().filter(|price| price.name == name) {
        let nothing = subscription(&[], period)?;
        let session = view
            .period_session(period, &price.query, totals, nothing)
            .await?;
        if !is_by_row(&session.context, price).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The time from the first to the last of some times.
fn hull(times: &[(i64, i64)]) -> Option<invoice::Period> {
    Some(invoice::Period {
        start_us: times.first()?.0,
        end_us: times.last()?.1,
    })
}

/// The charges of a unit, each with its subscription. A price may say for which subscription a row is: rows of another of
/// the customer's are its own.
fn of_unit(
    accounts: &Index,
    unit: &Unit<'_>,
    charges: impl Iterator<Item = Charge>,
    made: &mut Made,
) -> std::result::Result<Vec<Charge>, InError> {
    let (customer, own) = (&unit.cycle.1.customer, &unit.cycle.1.subscription);
    let subscription: Arc<str> = own.as_str().into();
    let mut all = Vec::new();
    for mut charge in charges {
        let is_named = |of: &&(Arc<str>, Option<String>)| &*of.0 == SUBSCRIPTION;
        let mut named = None;
        if charge.dimensions.iter().any(|of| is_named(&of)) {
            made.says_which.insert(charge.price.to_string());
            let (of_subscription, others): (Vec<_>, Vec<_>) =
                charge.dimensions.iter().partition(is_named);
            named = of_subscription
                .into_iter()
                .find_map(|(_, value)| value.clone());
            charge.dimensions = others.into_iter().cloned().collect();
        }
        match named {
            Some(named) if named == *own => {}
            None => {}
            Some(named) => {
                let mut others = accounts.subscriptions_of(customer);
                if others.any(|rows| rows.iter().any(|row| row.subscription == named)) {
                    continue;
                }
                return Err(InError {
                    customer: customer.clone(),
                    what: Faulty::Price,
                    reason: format!(
                        "price `{}` bills subscription `{named}`, which the customer does not have",
                        charge.price
                    ),
                });
            }
        }
        charge.subscription = Some(Arc::clone(&subscription));
        all.push(charge);
    }
    Ok(all)
}

/// Customers with two subscriptions that one price bills for the same time, without saying which of them a row is for.
fn billed_twice(due: &[Due], made: &[Made]) -> BTreeSet<InError> {
    type Billed<'a> = (&'a str, i64, i64);
    let mut billed: BTreeMap<(&str, &str), Vec<Billed<'_>>> = BTreeMap::new();
    let mut in_error = BTreeSet::new();
    for (due, made) in due.iter().zip(made) {
        for charged in made.charged.iter().filter(|charged| !charged.is_opening) {
            let cycle = charged.cycle_of(due);
            let part = cycle.parts.iter().find(|part| part.plan == charged.plan);
            let used = part.and_then(|part| hull(&part.usage));
            let prices = charged.charges.iter().filter(|charge| !charge.is_fixed);
            let prices = prices.map(|charge| &charge.price);
            let prices = prices.filter(|price| !made.says_which.contains(&***price));
            for price in prices.collect::<BTreeSet<_>>() {
                let Some(used) = used else {
                    continue;
                };
                let of_price = billed.entry((&cycle.customer, price)).or_default();
                let clash = of_price.iter().find(|(other, from_us, until_us)| {
                    *other != cycle.subscription
                        && *from_us < used.end_us
                        && used.start_us < *until_us
                });
                if let Some((other, ..)) = clash {
                    in_error.insert(InError {
                        customer: cycle.customer.clone(),
                        what: Faulty::Price,
                        reason: format!(
                            "price `{}` bills the same usage for subscription `{other}` and for `{}`: let it return a column \
                             `subscription` that says which of them each row is for, or take it out of one plan",
                            price, cycle.subscription
                        ),
                    });
                }
                of_price.push((&cycle.subscription, used.start_us, used.end_us));
            }
        }
    }
    in_error
}
