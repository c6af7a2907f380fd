//! The invoice job: one invoice per customer and billing period, ever.
//!
//! A draft is a query: the prices of the plan over the period's totals, at the newest cut. Issuing
//! commits to `invoices` first, with the numbers and each invoice's lines as its document; that commit
//! is the point of no return. What they are rated by is kept before it. `line_items` has what those documents say, so a
//! crash between the two is mended by deriving what is missing, before anything else is issued.
//!
//! A job goes through customers range by range, so that what it takes in memory is that of two ranges.

pub mod accounts;
mod advance;
mod assembly;
mod before;
mod billed;
mod burnt;
mod corrections;
mod credits;
mod documents;
mod due;
mod instalments;
mod issued;
mod job;
pub mod kept;
mod numbering;
mod ranges;
mod rated;
mod rehearsal;
mod review;
mod running;
mod standing;
mod starts;
mod subscribed;
mod tiers;
pub mod trial;
mod unbilled;
mod unissued;
mod usage;
mod versions;
mod voids;

use crate::{
    catalog::Catalog,
    clock::Clock,
    config::{BillingSettings, Settings},
    customers::Customers,
    error::{Error, Faulty, InError, Result, chain, printable, query_error},
    view::{Totals, Unfinished, View, one_batch},
};
use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use datafusion::prelude::col;
use futures::FutureExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::{
    definitions::{Definitions, PlanDefinition, PriceDefinition},
    invoice::{
        self, Invoice, Terms,
        basis::{Basis, RatedBy, Usage},
    },
    parser::did_you_mean,
    period::Period,
    rating::{Unrated, rate},
    schema::{self, invoices::invoices_schema},
    session, subscriptions,
};

pub use before::{Before, billed_before, left_to_issue};
pub use burnt::Burnt;
pub use credits::credit_ledger;
pub use documents::{IssuedAs, issued_as};
use documents::{RatedAs, issued_table, lines_in, of_customers, rows_where, within};
pub use job::{Asked, Documents, DocumentsInRanges, Issuing, Which, documents_of, issue_documents};
use kept::Inputs;
use numbering::Numbering;
use ranges::{DOCUMENT_BYTES, InRanges, LINE_BYTES, Weighed, compares_customers};
use rated::{Rating, reads_subscription};
pub use rehearsal::warnings;
pub use review::{Gap, Refused, Review, Reviewing, Untold, causes_text, review_of};
pub use running::{Left, OfCustomer, Used};
use standing::{Taken, standing};
pub use tiers::tiers_of;
pub use unbilled::{Unbilled, unbilled, unbilled_batch};
pub use unissued::{ever, unissued};
use usage::{PeriodUsage, events_of_plan};
pub use versions::price_in_force;
pub use voids::issue_void;

/// What issuing did.
#[derive(Debug, Default)]
pub struct Issued {
    /// Invoices issued now, numbered.
    pub issued: Vec<Invoice>,
    /// Customers who had their invoice for this period already, untouched.
    pub already: Vec<String>,
    /// What else there is to say.
    pub review: Review,
}

/// The drafts of a period, and what they were made from.
#[derive(Debug)]
pub struct Drafts {
    /// The invoice of every customer with a charge, by customer.
    pub invoices: Vec<Invoice>,
    /// Customers who get no invoice until their usage or a price is mended, and why, in order. Those that are not asked
    /// for are among them: what one of them was billed cannot be compared then.
    in_error: BTreeSet<InError>,
    /// Whose drafts were made.
    customers: Customers,
    /// The one customer that is asked for, and the drafts of the others; `None` when they were not made.
    only: Option<String>,
    others: Option<Vec<Invoice>>,
    plan: String,
    period: Period,
    used: PeriodUsage,
    rated_by: Arc<RatedBy>,
    inputs: Inputs,
    /// Who issues them, if that is to be kept.
    pub issued_by: Option<String>,
}

impl Drafts {
    /// Leaves the drafts of one customer. What the others' come to is kept, to be compared with.
    pub fn retain(&mut self, customer: &str) {
        let drafts = std::mem::take(&mut self.invoices).into_iter();
        let (asked_for, others) = drafts.partition(|draft| draft.customer == customer);
        self.invoices = asked_for;
        self.others = Some(others);
        self.only = Some(customer.to_owned());
    }

    /// Customers that are asked for and get no invoice until their usage or a price is mended, and why, in order.
    pub fn in_error(&self) -> BTreeSet<InError> {
        let asked_for = self.in_error.iter();
        let asked_for = asked_for.filter(|known| self.is_asked_for(&known.customer));
        asked_for.cloned().collect()
    }

    /// Whether a customer is one that is asked for.
    fn is_asked_for(&self, customer: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == customer)
    }

    /// What a customer's invoice is made from.
    fn basis(&self, customer: &str) -> Result<Basis> {
        Ok(self.basis_of(self.used.of(customer)?))
    }

    /// What an invoice of this usage is made from.
    fn basis_of(&self, usage: Vec<Usage>) -> Basis {
        Basis {
            usage,
            rated_by: Arc::clone(&self.rated_by),
            zone: Some(self.period.zone().to_owned()),
            ..Basis::default()
        }
    }

    /// By what they are rated.
    fn rated_as(&self) -> RatedAs {
        RatedAs::of(&self.period, &self.plan)
    }

    fn lacks_others(&self) -> bool {
        self.others.is_none()
    }

    /// The same with the drafts of the customers that are not asked for.
    async fn with_others(&self, view: &View) -> Result<Self> {
        let plan = view.catalog().definitions.plan(&self.plan);
        let plan = plan.ok_or(Error::Contradiction {
            what: "a draft's plan is defined",
        })?;
        let mut drafts = draft_on(view, plan, &self.period, &Customers::All).await?;
        if let Some(customer) = &self.only {
            drafts.retain(customer);
        }
        Ok(drafts)
    }

    fn of(&self, customer: &str) -> Option<&Invoice> {
        let mut invoices = self.invoices.iter().chain(self.others.iter().flatten());
        invoices.find(|draft| draft.customer == customer)
    }
}

/// Drafts the invoice of every customer with usage in the period. A customer whose usage is in error in any meter, or
/// for whom a price has no answer, has none: what is left would be a wrong number.
///
/// # Errors
/// There is no such plan, or a price fails and it cannot be told for which customer.
pub async fn draft(view: &View, settings: &BillingSettings, period: &Period) -> Result<Drafts> {
    draft_on(view, plan(view, settings)?, period, &Customers::All).await
}

/// The same of one customer: of it, what [`draft`] says. Others' usage is read only where a price compares customers.
///
/// # Errors
/// Those of [`draft`].
pub async fn draft_of(
    view: &View,
    settings: &BillingSettings,
    period: &Period,
    customer: &str,
) -> Result<Drafts> {
    let plan = plan(view, settings)?;
    let one = Customers::One(customer.to_owned());
    let mut drafts = draft_on(view, plan, period, &one).await?;
    let has_others = drafts.customers == Customers::All;
    // A rate table may name more customers.
    drafts.retain(customer);
    if !has_others {
        drafts.others = None;
    }
    drafts.customers = Customers::All;
    Ok(drafts)
}

/// The drafts of some customers by what is rated so. Where they cannot be made, because a price or a meter refuses the whole period, no one
/// has an invoice: the customers with usage, and these others, are in error for that reason.
///
/// # Errors
/// The lake cannot be read.
async fn draft_or_causes(
    view: &View,
    terms: &RatedAs,
    asked_for: &Customers,
    mut customers: BTreeSet<String>,
) -> Result<Drafts> {
    let drafts = async {
        let period = Period::of(terms.period, &terms.zone)?;
        let plan = view.catalog().definitions.plan(&terms.plan);
        let plan = plan.ok_or_else(|| Error::Billing {
            problem: format!("plan `{}` is not defined any more", terms.plan),
            hint: "define it again: what was issued on a plan is compared by it".into(),
        })?;
        draft_on(view, plan, &period, asked_for).await
    };
    let error = match drafts.await {
        Err(error) if is_of_definitions(&error) => error,
        other => return other,
    };
    let period =
        Period::of(terms.period, &terms.zone).or_else(|_| Period::of(terms.period, "UTC"))?;
    let mut used = customers_in(view, &terms.plan, &period).await?;
    used.retain(|customer| asked_for.has(customer));
    customers.extend(used);
    let reason = chain(&error).replace("\n  hint: ", "; ");
    let in_error = customers.into_iter().map(|customer| InError {
        customer,
        what: Faulty::Price,
        reason: reason.clone(),
    });
    Ok(Drafts {
        invoices: Vec::new(),
        in_error: in_error.collect(),
        customers: asked_for.clone(),
        only: None,
        others: Some(Vec::new()),
        plan: terms.plan.clone(),
        period,
        used: PeriodUsage::new(view.catalog(), &Totals::default(), BTreeMap::new()),
        rated_by: Arc::default(),
        inputs: Inputs::default(),
        issued_by: None,
    })
}

/// Whether an error says that a plan, a price or a meter has no answer for a period: another period may have one.
fn is_of_definitions(error: &Error) -> bool {
    use tollgate_sql::Error as Sql;
    matches!(
        error,
        Error::Billing { .. }
            | Error::Meter { .. }
            | Error::Sql(
                Sql::Price { .. }
                    | Sql::PriceResult { .. }
                    | Sql::Invoice { .. }
                    | Sql::Zone { .. }
            )
    )
}

/// Who has usage in a period, be it in error.
///
/// # Errors
/// The lake cannot be read.
pub async fn customers_with_usage(
    view: &View,
    settings: &BillingSettings,
    period: &Period,
) -> Result<BTreeSet<String>> {
    customers_in(view, &settings.default_plan, period).await
}

/// Who has usage in a period, be it in error: by its totals and the events that a plan prices, or by all its events where
/// a meter does not have it.
async fn customers_in(view: &View, plan: &str, period: &Period) -> Result<BTreeSet<String>> {
    let used = async {
        let totals = view.all_totals(period).await?;
        let mut customers = totals.customers();
        if let Some(plan) = view.catalog().definitions.plan(plan) {
            match events_of_plan(view, plan, period, &totals).await {
                Ok(events) => customers.extend(events.into_keys()),
                Err(error) if is_of_definitions(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(customers)
    };
    match used.await {
        Ok(customers) => return Ok(customers),
        Err(error) if is_of_definitions(&error) => {}
        Err(error) => return Err(error),
    }
    let doing = "looking for who has usage";
    let time = col("event_time");
    let within = time
        .clone()
        .gt_eq(schema::instant(period.start_us))
        .and(time.lt(schema::instant(period.end_us)));
    let sql = "SELECT subject, event_time FROM events WHERE status IN ('ok', 'late')";
    let frame = session::query(&view.session(sql).await?, sql)
        .await
        .and_then(|frame| frame.filter(within))
        .and_then(|frame| frame.select_columns(&["subject"]))
        .and_then(|frame| frame.distinct())
        .map_err(query_error(doing))?;
    let rows = frame.collect().await.map_err(query_error(doing))?;
    let mut customers = BTreeSet::new();
    for rows in &rows {
        let names = rows["subject"].as_string::<i32>().iter();
        customers.extend(names.flatten().map(str::to_owned));
    }
    Ok(customers)
}

/// The drafts of some customers; those of all where a price compares customers.
async fn draft_on(
    view: &View,
    plan: &PlanDefinition,
    period: &Period,
    customers: &Customers,
) -> Result<Drafts> {
    if *customers != Customers::All {
        let totals = view.customer_totals(period, customers).await?;
        if let Some(mut drafts) = draft_from(view, plan, period, &totals).await? {
            drafts.customers.clone_from(customers);
            return Ok(drafts);
        }
    }
    let totals = view.all_totals(period).await?;
    let drafts = draft_from(view, plan, period, &totals).await?;
    drafts.ok_or(EVERY_PRICE_ANSWERS)
}

const EVERY_PRICE_ANSWERS: Error = Error::Contradiction {
    what: "every price has an answer from all customers' usage",
};

/// `None` when a price cannot be answered from the usage of these customers.
async fn draft_from(
    view: &View,
    plan: &PlanDefinition,
    period: &Period,
    totals: &Totals,
) -> Result<Option<Drafts>> {
    let events = events_of_plan(view, plan, period, totals).await?;
    let used = PeriodUsage::new(view.catalog(), totals, events);
    let subscribed = match reads_subscription(view.catalog(), &plan.prices)? {
        true => {
            let mut customers = totals.customers();
            customers.extend(used.customers_with_events().cloned());
            on_default(customers, &plan.name, period)
        }
        false => Vec::new(),
    };
    let mut rating = Rating::new(view, plan, period, totals, &subscribed);
    if !rating.rate(&plan.prices).await? {
        return Ok(None);
    }
    let Rating {
        mut charges,
        mut in_error,
        mut rated_by,
        mut inputs,
        ..
    } = rating;
    inputs.note_plan(plan, &mut rated_by);
    let cut = cut(view).await?;
    let mut invoices = Vec::with_capacity(charges.longest());
    // A customer's charges go when its invoice is made: together they are as large as all invoices.
    while let Some(customer) = charges.next_customer() {
        let is_left_out = charges.are_left_out(&customer);
        let charges = charges.take(&customer);
        if is_left_out {
            continue;
        }
        let terms = Terms {
            customer: &customer,
            plan,
            period: period.into(),
            cut: &cut,
        };
        match invoice::assemble(&terms, &charges) {
            Ok(invoice) => invoices.push(invoice),
            // Amounts that fit by themselves may be too many digits together: it is this customer's invoice alone.
            Err(error @ tollgate_sql::Error::Money(_)) => {
                in_error.insert(InError {
                    customer: customer.as_ref().to_owned(),
                    what: Faulty::Invoice,
                    reason: format!("no invoice can be made of its charges: {}", chain(&error)),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(Drafts {
        invoices,
        in_error,
        customers: Customers::All,
        only: None,
        others: Some(Vec::new()),
        plan: plan.name.clone(),
        period: period.clone(),
        used,
        rated_by: Arc::new(rated_by),
        inputs,
        issued_by: None,
    }))
}

fn unrated(unrated: &Unrated) -> InError {
    InError {
        customer: unrated.customer.clone(),
        what: Faulty::Price,
        reason: unrated.to_string(),
    }
}

/// What is wrong with a price names customers and their events, which must not be able to draw lines of their own.
fn in_one_line(error: tollgate_sql::Error) -> Error {
    use tollgate_sql::Error::PriceResult;
    match error {
        PriceResult {
            price,
            at,
            problem,
            hint,
        } => PriceResult {
            price,
            at,
            problem: printable(&problem),
            hint,
        },
        other => other,
    }
    .into()
}

/// Evaluates every price over meters without usage, so that a mistake in one is found before the first
/// event, not at the end of the month: each price that cannot be planned, or does not return what a price must, and each plan that
/// bills usage in advance.
///
/// # Errors
/// A meter cannot be evaluated.
pub async fn wrong_prices(catalog: &Arc<Catalog>) -> Result<Vec<Error>> {
    let view = View::empty(Arc::clone(catalog));
    let period = Period::month("2026-01", "UTC")?;
    let totals = view.all_totals(&period).await?;
    let mut errors = Vec::new();
    for price in &catalog.definitions.prices {
        errors.extend(try_price(&view, price, &period, &totals).await.err());
    }
    for plan in &catalog.definitions.plans {
        let Ok(fixed) = rated::fixed_prices(catalog, &plan.terms.in_advance) else {
            // One of its prices is wrong, which is said.
            continue;
        };
        let mut in_advance = plan.terms.in_advance.iter();
        if let Some(name) = in_advance.find(|name| !fixed.contains(*name)) {
            let error = tollgate_sql::Error::Definition {
                at: plan.at.clone(),
                problem: format!(
                    "plan `{}`: price `{name}` reads usage, which is not known in advance",
                    plan.name
                ),
                hint: "take it out of in_advance: usage is billed when its period closes".into(),
            };
            errors.push(error.into());
        }
    }
    Ok(errors)
}

async fn try_price(
    view: &View,
    price: &PriceDefinition,
    period: &Period,
    totals: &Totals,
) -> Result<()> {
    let no_rows = subscription(&[], period)?;
    let session = view
        .period_session(period, &price.query, totals, no_rows)
        .await?;
    // A rate that a rate table lacks is its customer's fault: it stops that invoice, and no other command.
    rate(&session.context, price, &session.left_out).await?;
    Ok(())
}

/// The error that `billing.default_plan` is none of the plans, where there are any. Without accounts every customer is on it.
pub fn no_default_plan(definitions: &Definitions, settings: &Settings) -> Option<Error> {
    let names = definitions.plans.iter().map(|plan| plan.name.as_str());
    let names: Vec<&str> = names.collect();
    let wanted = &settings.billing.default_plan;
    let is_missing = !names.is_empty() && !names.contains(&wanted.as_str());
    is_missing.then(|| Error::Config {
        file: settings.place_of("billing.default_plan"),
        problem: format!(
            "there is no plan `{wanted}`\n  hint: set billing.default_plan; {}",
            did_you_mean(wanted, "plans", &names)
        ),
    })
}

fn plan<'a>(view: &'a View, settings: &BillingSettings) -> Result<&'a PlanDefinition> {
    let definitions = &view.catalog().definitions;
    definitions.plan(&settings.default_plan).ok_or_else(|| {
        let names = definitions.plans.iter().map(|plan| plan.name.as_str());
        let names: Vec<&str> = names.collect();
        Error::Billing {
            problem: format!("there is no plan `{}`", settings.default_plan),
            hint: match names.is_empty() {
                true => "define one with CREATE PLAN".into(),
                false => format!(
                    "set billing.default_plan; {}",
                    did_you_mean(&settings.default_plan, "plans", &names)
                ),
            },
        }
    })
}

/// The position of each shard, as JSON, by shard.
async fn cut(view: &View) -> Result<String> {
    let cuts: BTreeMap<String, u64> = view
        .cuts()
        .await?
        .into_iter()
        .map(|(shard, position)| (shard, position.sequence.0))
        .collect();
    Ok(serde_json::json!(cuts).to_string())
}

/// One row for each customer with usage: without accounts, all are on one plan all the time. Usage that is in error is
/// usage: a price may count customers.
fn on_default(customers: BTreeSet<String>, plan: &str, period: &Period) -> Vec<subscriptions::Row> {
    let rows = customers.into_iter();
    rows.map(|customer| subscriptions::Row::of_default(customer, plan, period))
        .collect()
}

/// The relation `subscription`.
fn subscription(rows: &[subscriptions::Row], period: &Period) -> Result<RecordBatch> {
    subscriptions::relation(rows, period).map_err(query_error("listing subscriptions"))
}

/// The drafts of a period, of one range of customers after the other.
pub struct DraftsInRanges(InRanges<Drafts>);

impl DraftsInRanges {
    /// Begins with the first customer, or with the one that is asked for. The panes of all are read once.
    ///
    /// # Errors
    /// Those of [`draft`].
    pub async fn begin(
        view: &View,
        settings: &BillingSettings,
        period: &Period,
        customer: Option<&str>,
    ) -> Result<Self> {
        match customer {
            Some(customer) => Ok(Self::of_one(view, settings, period, customer)),
            None => Self::of_all(view, settings, period).await,
        }
    }

    fn of_one(view: &View, settings: &BillingSettings, period: &Period, customer: &str) -> Self {
        let names = StringArray::from_iter_values([customer]);
        let customer = customer.to_owned();
        let shared = Arc::new((view.clone(), settings.clone(), period.clone(), customer));
        let make = move |_| {
            let shared = Arc::clone(&shared);
            async move {
                let (view, settings, period, customer) = &*shared;
                draft_of(view, settings, period, customer).await
            }
            .boxed()
        };
        DraftsInRanges(InRanges::new(names, usize::MAX, make))
    }

    async fn of_all(view: &View, settings: &BillingSettings, period: &Period) -> Result<Self> {
        let plan = plan(view, settings)?.clone();
        let totals = view.unmerged_totals(period).await?;
        let is_of_plan = |price: &str| plan.prices.iter().any(|name| name == price);
        let bytes_max = match compares_customers(view.catalog(), is_of_plan).await? {
            true => usize::MAX,
            false => totals.bytes_beside(settings.max_bytes.0),
        };
        let names = totals.customers();
        let shared = Arc::new((view.clone(), plan, period.clone(), totals));
        let make = move |customers: Customers| {
            let shared = Arc::clone(&shared);
            async move {
                let (view, plan, period, totals) = &*shared;
                let totals = totals.of_customers(view, &customers).await?;
                let drafts = draft_from(view, plan, period, &totals).await?;
                let mut drafts = drafts.ok_or(EVERY_PRICE_ANSWERS)?;
                drafts.customers = customers;
                Ok(drafts)
            }
            .boxed()
        };
        Ok(DraftsInRanges(InRanges::new(names, bytes_max, make)))
    }

    /// The drafts of the next customers, in the order of their names; `None` when all are made.
    ///
    /// # Errors
    /// Those of [`draft`].
    pub async fn next(&mut self) -> Result<Option<Drafts>> {
        self.0.next().await
    }

    /// Of how many customers drafts are made, and how many there are.
    pub fn progress(&self) -> (usize, usize) {
        self.0.progress()
    }
}

impl Weighed for Drafts {
    fn bytes(&self) -> usize {
        let lines = self.invoices.iter().map(|invoice| invoice.lines.len());
        lines.sum::<usize>() * LINE_BYTES + self.invoices.len() * DOCUMENT_BYTES
    }
}

/// Invoices of a period that are being issued, part by part.
pub struct PeriodIssuing<'a> {
    view: &'a View,
    period: &'a Period,
    numbering: Numbering,
    reviewing: Reviewing,
    /// Drafts that are issued after all others, each with what it is made from.
    held: Vec<(Invoice, String)>,
    inputs: Inputs,
}

impl<'a> PeriodIssuing<'a> {
    /// Begins: nothing is issued before [`PeriodIssuing::commit`].
    ///
    /// # Errors
    /// The period has not ended, or a window in it is still open; the lake cannot be written.
    pub async fn begin(
        view: &'a View,
        lake: &Lake,
        period: &'a Period,
        clock: &dyn Clock,
    ) -> Result<Self> {
        check_over(view, period, clock).await?;
        let numbering = Numbering::begin(lake, clock.now_us()).await?;
        Ok(PeriodIssuing {
            reviewing: Reviewing::begin(Some(numbering.issued() as &dyn Table), period).await?,
            view,
            period,
            numbering,
            held: Vec::new(),
            inputs: Inputs::default(),
        })
    }

    /// Numbers drafts, each of a customer who has no invoice for the period, and writes them where no reader sees them yet.
    ///
    /// # Errors
    /// A customer has an invoice for other time that overlaps; the lake cannot be read or written.
    pub async fn add(&mut self, mut drafts: Drafts) -> Result<Issued> {
        let (view, period) = (self.view, self.period);
        let invoices: &dyn Table = self.numbering.issued();
        let (issued_before, taken) = issued_in(invoices, period, &drafts.customers).await?;
        for draft in &mut drafts.invoices {
            draft.id = taken.unused(&draft.id);
            draft.issued_by.clone_from(&drafts.issued_by);
        }
        check_overlap(invoices, &drafts, period).await?;
        let reviewed = self.reviewing.add(view, Some(invoices), &drafts, period);
        let (review, held) = reviewed.await?;
        let refused = review.refused.iter();
        let refused: BTreeSet<&str> = refused.map(|refused| refused.customer.as_str()).collect();
        let mut usage = drafts.used.by_customer()?;
        let (mut issued, mut bases) = (Vec::new(), Vec::new());
        for draft in std::mem::take(&mut drafts.invoices) {
            let customer = draft.customer.as_str();
            if issued_before.contains_key(draft.id.as_str()) || refused.contains(customer) {
                continue;
            }
            let usage = usage.remove(customer).unwrap_or_default();
            let basis = drafts.basis_of(usage).to_json();
            match held.contains(customer) {
                true => self.held.push((draft, basis)),
                false => {
                    issued.push(draft);
                    bases.push(basis);
                }
            }
        }
        self.numbering.add(&mut issued, bases).await?;
        let already = issued_before.into_values();
        let already = already.filter(|customer| drafts.is_asked_for(customer));
        let already = already.collect();
        self.inputs.extend(drafts.inputs);
        Ok(Issued {
            issued,
            already,
            review,
        })
    }

    /// Issues all that was added; returns what was not told before: invoices that were issued last, and who gets none.
    ///
    /// # Errors
    /// Another job issued since; the lake cannot be written. Running the job again is safe after any of them.
    pub async fn commit(mut self, lake: &Lake) -> Result<Issued> {
        let refused = self.reviewing.billed_elsewhere();
        let mut held = self.held;
        held.retain(|(draft, _)| refused.iter().all(|known| known.customer != draft.customer));
        let (mut issued, bases): (Vec<Invoice>, Vec<String>) = held.into_iter().unzip();
        self.numbering.add(&mut issued, bases).await?;
        self.numbering.commit(lake, &self.inputs).await?;
        let mut outcome = Issued {
            issued,
            ..Issued::default()
        };
        outcome.review.refused = refused;
        Ok(outcome)
    }
}

impl Issued {
    /// Adds what else was done.
    pub fn extend(&mut self, other: Issued) {
        self.issued.extend(other.issued);
        self.already.extend(other.already);
        self.review.extend(other.review);
    }
}

/// Issues drafts: numbers them without a gap and commits them, once for each customer and period.
///
/// # Errors
/// The period has not ended, or a window in it is still open; another job issued at the same time;
/// the lake cannot be written. Running it again is safe after any of them.
pub async fn issue(
    view: &View,
    lake: &Lake,
    drafts: Drafts,
    period: &Period,
    clock: &dyn Clock,
) -> Result<Issued> {
    let mut issuing = PeriodIssuing::begin(view, lake, period, clock).await?;
    let mut outcome = issuing.add(drafts).await?;
    outcome.extend(issuing.commit(lake).await?);
    Ok(outcome)
}

async fn check_over(view: &View, period: &Period, clock: &dyn Clock) -> Result<()> {
    if clock.now_us() < period.end_us {
        return Err(Error::Billing {
            problem: format!("billing period {period} has not ended"),
            hint: "leave out --finalize for a draft".into(),
        });
    }
    match view.unfinished_shard(period).await? {
        None => Ok(()),
        Some(Unfinished {
            shard,
            caught_up,
            wanted,
        }) => Err(Error::Billing {
            problem: format!(
                "shard `{shard}` was not read to its end since billing period {period} ended, or has \
                 windows of it that are still open: it was last caught up {}, and must be at {} or later",
                caught_up.map_or("never".to_owned(), |at| format!("at {}", at.instant())),
                wanted.instant(),
            ),
            hint: format!(
                "let `tollgate run` catch up, or run `tollgate run --until-end`; if nothing more comes from it, \
                 `tollgate shard retire {shard}`"
            ),
        }),
    }
}

/// The invoices issued for a period, of one customer or of all, and their lines: rows of the tables
/// `invoices` and `line_items` as any reader sees them, in order of number. They may be very many, so `take` has some after the others.
///
/// # Errors
/// The lake cannot be read, or those of `take`.
pub async fn issued_in_parts(
    lake: &Lake,
    period: &Period,
    customer: Option<&str>,
    mut take: impl FnMut(&RecordBatch, &RecordBatch) -> Result<()>,
) -> Result<()> {
    let Some(invoices) = issued_table(lake).await? else {
        return Ok(());
    };
    let of = within(period).and(of_customers(&Customers::named(customer)));
    let schema = invoices_schema();
    for serials in numbering::parts_of(&invoices) {
        let rows = rows_where(&invoices, of.clone().and(serials)).await?;
        let lines = lines_in(&rows)?;
        let printed = rows.iter().map(|rows| {
            let columns = schema.fields().iter();
            let columns = columns.map(|field| rows.schema().index_of(field.name()));
            rows.project(&columns.collect::<Result<Vec<_>, _>>()?)
        });
        let printed = printed.collect::<Result<Vec<_>, _>>();
        let printed = printed.map_err(query_error("reading issued invoices"))?;
        take(&one_batch(&schema, &printed)?, &lines)?;
    }
    Ok(())
}

/// Refuses to bill a customer again for time that an issued invoice covers under another plan or in
/// another time zone.
async fn check_overlap(invoices: &dyn Table, drafts: &Drafts, period: &Period) -> Result<()> {
    let starts_before = col("period_start").lt(schema::instant(period.end_us));
    let overlaps = starts_before.and(col("period_end").gt(schema::instant(period.start_us)));
    let overlaps = overlaps.and(of_customers(&drafts.customers));
    let drafts = drafts.invoices.iter();
    let ids: BTreeMap<&str, &str> = drafts
        .map(|draft| (draft.customer.as_str(), draft.id.as_str()))
        .collect();
    for batch in standing(rows_where(invoices, overlaps).await?)? {
        let column = |name| batch[name].as_string::<i32>();
        let (issued, customers, numbers) =
            (column("invoice"), column("customer"), column("number"));
        for row in 0..batch.num_rows() {
            let customer = customers.value(row);
            if ids.get(customer).is_some_and(|id| *id != issued.value(row)) {
                let number = numbers.value(row);
                return Err(Error::Billing {
                    problem: format!(
                        "customer `{customer}` has invoice {number}, which covers a part of {period} \
                         under another plan or in another time zone"
                    ),
                    hint:
                        "issue with the billing.default_plan and billing.time_zone of that invoice"
                            .into(),
                });
            }
        }
    }
    Ok(())
}

/// Who has which invoice for a period, by its id, and the ids of those that were voided.
async fn issued_in(
    invoices: &dyn Table,
    period: &Period,
    customers: &Customers,
) -> Result<(BTreeMap<String, String>, Taken)> {
    let mut issued = BTreeMap::new();
    let rows = rows_where(invoices, within(period).and(of_customers(customers))).await?;
    let taken = Taken::of(&rows);
    for batch in standing(rows)? {
        let ids = batch["invoice"].as_string::<i32>();
        let customers = batch["customer"].as_string::<i32>();
        let of_row = |row| (ids.value(row).to_owned(), customers.value(row).to_owned());
        issued.extend((0..ids.len()).map(of_row));
    }
    Ok((issued, taken))
}
