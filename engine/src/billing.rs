//! The invoice job: one invoice per customer and billing period, ever.
//!
//! A draft is a query: the prices of the plan over the period's totals, at the newest cut. Issuing
//! commits to `invoices` first, with the numbers and each invoice's lines as its document; that commit
//! is the point of no return. What they are rated by is kept before it. `line_items` is derived from those documents, so a
//! crash between the two is mended by deriving what is missing, before anything else is issued.

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
mod versions;
mod voids;

use crate::{
    catalog::Catalog,
    clock::Clock,
    config::{BillingSettings, Settings},
    error::{Error, Faulty, InError, Result, chain, printable, query_error},
    tables,
    view::{Totals, Unfinished, View, one_batch, referenced},
};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::{col, lit};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::{
    Attempt, CommitId, Error as ConnectorError, Table,
    lake::{DeltaTable, Lake},
};
use tollgate_sql::{
    definitions::{Definitions, PlanDefinition, PriceDefinition},
    invoice::{
        self, CREDIT_NOTE, Invoice, Status, Terms, VOID,
        basis::{self, Basis, RatedBy, Usage},
        tables::invoices_batch,
    },
    parser::did_you_mean,
    period::Period,
    rating::{Unrated, rate},
    schema::{
        self,
        invoices::{invoices_schema, issued_invoices_schema, line_items_schema},
    },
    session, subscriptions,
};

pub use before::{Before, billed_before, left_to_issue};
pub use burnt::Burnt;
pub use credits::credit_ledger;
pub use documents::{IssuedAs, issued_as};
use documents::{RatedAs, document_of, issued_table, lines_in, of_customer, rows_where, within};
pub use job::{Asked, Documents, Which, documents_of, issue_documents};
use kept::{Inputs, keep};
use rated::Rating;
pub use rehearsal::warnings;
use review::review;
pub use review::{Gap, Refused, Review, Untold, causes_text, review_of};
pub use running::{Left, OfCustomer, Used};
use standing::{Taken, standing};
pub use tiers::tiers_of;
pub use unbilled::{Unbilled, unbilled, unbilled_batch};
pub use unissued::{ever, unissued};
use versions::parts_of;
pub use versions::price_in_force;
pub use voids::issue_void;

/// The `txn` app id, in `invoices` and in `line_items`, of the last number they hold.
const NUMBER_MARK: &str = "invoices/number";

/// The `txn` app id, in `invoices`, of how many of them are credit notes, which have numbers of their own.
const CREDIT_NOTES_MARK: &str = "invoices/credit_notes";

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
    /// The one customer that is asked for, and the drafts of the others; `None` when they were not made.
    only: Option<String>,
    others: Option<Vec<Invoice>>,
    plan: String,
    period: Period,
    usage: BTreeMap<String, Vec<Usage>>,
    rated_by: RatedBy,
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
    fn basis(&self, customer: &str) -> Basis {
        Basis {
            usage: self.usage.get(customer).cloned().unwrap_or_default(),
            rated_by: self.rated_by.clone(),
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
        let mut drafts = draft_on(view, plan, &self.period).await?;
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
    draft_on(view, plan(view, settings)?, period).await
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
    let totals = view.customer_totals(period, customer).await?;
    if let Some(mut drafts) = draft_from(view, plan, period, &totals).await? {
        // A rate table may name more customers.
        drafts.retain(customer);
        drafts.others = None;
        return Ok(drafts);
    }
    let mut drafts = draft_on(view, plan, period).await?;
    drafts.retain(customer);
    Ok(drafts)
}

/// The drafts of what is rated so. Where they cannot be made, because a price or a meter refuses the whole period, no one
/// has an invoice: the customers with usage, and these others, are in error for that reason.
///
/// # Errors
/// The lake cannot be read.
async fn draft_or_causes(
    view: &View,
    terms: &RatedAs,
    mut customers: BTreeSet<String>,
) -> Result<Drafts> {
    let drafts = async {
        let period = Period::of(terms.period, &terms.zone)?;
        let plan = view.catalog().definitions.plan(&terms.plan);
        let plan = plan.ok_or_else(|| Error::Billing {
            problem: format!("plan `{}` is not defined any more", terms.plan),
            hint: "define it again: what was issued on a plan is compared by it".into(),
        })?;
        draft_on(view, plan, &period).await
    };
    let error = match drafts.await {
        Err(error) if is_of_definitions(&error) => error,
        other => return other,
    };
    let period =
        Period::of(terms.period, &terms.zone).or_else(|_| Period::of(terms.period, "UTC"))?;
    customers.extend(customers_in(view, &terms.plan, &period).await?);
    let reason = chain(&error).replace("\n  hint: ", "; ");
    let in_error = customers.into_iter().map(|customer| InError {
        customer,
        what: Faulty::Price,
        reason: reason.clone(),
    });
    Ok(Drafts {
        invoices: Vec::new(),
        in_error: in_error.collect(),
        only: None,
        others: Some(Vec::new()),
        plan: terms.plan.clone(),
        period,
        usage: BTreeMap::new(),
        rated_by: RatedBy::default(),
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

async fn draft_on(view: &View, plan: &PlanDefinition, period: &Period) -> Result<Drafts> {
    let totals = view.all_totals(period).await?;
    let drafts = draft_from(view, plan, period, &totals).await?;
    drafts.ok_or(Error::Contradiction {
        what: "every price has an answer from all customers' usage",
    })
}

/// `None` when a price cannot be answered from one customer's usage.
async fn draft_from(
    view: &View,
    plan: &PlanDefinition,
    period: &Period,
    totals: &Totals,
) -> Result<Option<Drafts>> {
    let mut usage = usage_of_all(view.catalog(), &totals.meters)?;
    for (customer, events) in events_of_plan(view, plan, period, totals).await? {
        usage.entry(customer).or_default().extend(events);
    }
    let mut customers = totals.customers();
    customers.extend(usage.keys().cloned());
    let subscribed = on_default(customers, &plan.name, period);
    let mut rating = Rating::new(view, plan, period, totals, &subscribed);
    if !rating.rate(&plan.prices).await? {
        return Ok(None);
    }
    let Rating {
        charges,
        mut in_error,
        mut rated_by,
        mut inputs,
        ..
    } = rating;
    inputs.note_plan(plan, &mut rated_by);
    let cut = cut(view).await?;
    let mut invoices = Vec::with_capacity(charges.len());
    // A customer's charges go when its invoice is made: together they are as large as all invoices.
    for (customer, charges) in charges {
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
                    customer: customer.clone(),
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
        only: None,
        others: Some(Vec::new()),
        plan: plan.name.clone(),
        period: period.clone(),
        usage,
        rated_by,
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

/// How many events each customer has of the types that a plan's prices read.
async fn events_of_plan(
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
fn usage_of_all(catalog: &Catalog, totals: &[RecordBatch]) -> Result<BTreeMap<String, Vec<Usage>>> {
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

/// Issues drafts: numbers them without a gap and commits them, once for each customer and period.
///
/// # Errors
/// The period has not ended, or a window in it is still open; another job issued at the same time;
/// the lake cannot be written. Running it again is safe after any of them.
pub async fn issue(
    view: &View,
    lake: &Lake,
    mut drafts: Drafts,
    period: &Period,
    clock: &dyn Clock,
) -> Result<Issued> {
    check_over(view, period, clock).await?;
    let (mut invoices, mut line_items) = tables_to_issue(lake).await?;
    let (issued_before, taken) = issued_in(&invoices, period).await?;
    for draft in &mut drafts.invoices {
        draft.id = taken.unused(&draft.id);
        draft.issued_by.clone_from(&drafts.issued_by);
    }
    check_overlap(&invoices, &drafts.invoices, period).await?;
    let mut outcome = Issued {
        review: review(view, &invoices, &drafts, period).await?,
        ..Issued::default()
    };
    let mut bases = Vec::new();
    for draft in &drafts.invoices {
        let is_refused = |refused: &Refused| refused.customer == draft.customer;
        if !issued_before.contains_key(draft.id.as_str())
            && !outcome.review.refused.iter().any(is_refused)
        {
            outcome.issued.push(draft.clone());
            bases.push(drafts.basis(&draft.customer).to_json());
        }
    }
    let already = issued_before.into_values();
    outcome.already = already.filter(|c| drafts.is_asked_for(c)).collect();
    if !outcome.issued.is_empty() {
        keep(lake, &drafts.inputs).await?;
        commit_invoices(&mut invoices, &mut outcome.issued, bases, clock.now_us()).await?;
        derive_line_items(&invoices, &mut line_items).await?;
    }
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
/// `invoices` and `line_items` as any reader sees them, in order of number.
///
/// # Errors
/// The lake cannot be read.
pub async fn issued(
    lake: &Lake,
    period: &Period,
    customer: Option<&str>,
) -> Result<(RecordBatch, RecordBatch)> {
    let mut rows = Vec::new();
    if let Some(invoices) = issued_table(lake).await? {
        rows = rows_where(&invoices, within(period).and(of_customer(customer))).await?;
    }
    let lines = lines_in(&rows)?;
    let schema = invoices_schema();
    let printed = rows.iter().map(|rows| {
        let columns = schema.fields().iter();
        let columns = columns.map(|field| rows.schema().index_of(field.name()));
        rows.project(&columns.collect::<Result<Vec<_>, _>>()?)
    });
    let invoices = printed.collect::<Result<Vec<_>, _>>();
    let invoices = invoices.map_err(query_error("reading issued invoices"))?;
    Ok((one_batch(&schema, &invoices)?, lines))
}

/// Refuses to bill a customer again for time that an issued invoice covers under another plan or in
/// another time zone.
async fn check_overlap(invoices: &dyn Table, drafts: &[Invoice], period: &Period) -> Result<()> {
    let starts_before = col("period_start").lt(schema::instant(period.end_us));
    let overlaps = starts_before.and(col("period_end").gt(schema::instant(period.start_us)));
    let ids: BTreeMap<&str, &str> = drafts
        .iter()
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
) -> Result<(BTreeMap<String, String>, Taken)> {
    let mut issued = BTreeMap::new();
    let rows = rows_where(invoices, within(period)).await?;
    let taken = Taken::of(&rows);
    for batch in standing(rows)? {
        let ids = batch["invoice"].as_string::<i32>();
        let customers = batch["customer"].as_string::<i32>();
        let of_row = |row| (ids.value(row).to_owned(), customers.value(row).to_owned());
        issued.extend((0..ids.len()).map(of_row));
    }
    Ok((issued, taken))
}

/// The tables `invoices` and `line_items`, the second with every line of the first.
async fn tables_to_issue(lake: &Lake) -> Result<(DeltaTable, DeltaTable)> {
    let invoices = lake
        .table(
            tables::INVOICES,
            &issued_invoices_schema(),
            &[],
            &BTreeMap::new(),
        )
        .await?
        .keeping_together("customer");
    let mut line_items = lake
        .table(
            tables::LINE_ITEMS,
            &line_items_schema(),
            &[],
            &BTreeMap::new(),
        )
        .await?;
    derive_line_items(&invoices, &mut line_items).await?;
    Ok((invoices, line_items))
}

/// Numbers and commits invoices; the compare-and-swap on the last number keeps them gapless.
async fn commit_invoices(
    table: &mut dyn Table,
    invoices: &mut [Invoice],
    bases: Vec<String>,
    now_us: i64,
) -> Result<()> {
    let last = table.mark(NUMBER_MARK).unwrap_or(0);
    let mut credit_notes = table.mark(CREDIT_NOTES_MARK).unwrap_or(0);
    let mut serials = Vec::with_capacity(invoices.len());
    for (serial, invoice) in (last + 1..).zip(invoices.iter_mut()) {
        serials.push(serial);
        let is_credit_note = matches!(invoice.kind(), CREDIT_NOTE | VOID);
        credit_notes += i64::from(is_credit_note);
        invoice.number = Some(match is_credit_note {
            true => format!("CN-{credit_notes:06}"),
            false => format!("INV-{:06}", serial - credit_notes),
        });
        invoice.status = Status::Final;
        invoice.issued_at_us = Some(now_us);
    }
    let documents = invoices
        .iter()
        .map(document_of)
        .collect::<Result<Vec<_>>>()?;
    let number = serials.last().copied().unwrap_or(last);
    let mut columns = invoices_batch(invoices)?.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(serials)));
    columns.push(Arc::new(StringArray::from(documents)));
    columns.push(Arc::new(StringArray::from(bases)));
    let burns = invoices
        .iter()
        .map(|invoice| burnt::text_of(&invoice.burns));
    columns.push(Arc::new(burns.collect::<StringArray>()));
    let rows = RecordBatch::try_new(issued_invoices_schema(), columns)
        .map_err(query_error("writing invoices"))?;
    let marks = [(NUMBER_MARK, number), (CREDIT_NOTES_MARK, credit_notes)];
    commit(table, &[rows], &marks).await
}

/// Writes the lines of every invoice whose lines are not in `line_items` yet.
async fn derive_line_items(invoices: &dyn Table, line_items: &mut dyn Table) -> Result<()> {
    let issued = invoices.mark(NUMBER_MARK).unwrap_or(0);
    let derived = line_items.mark(NUMBER_MARK).unwrap_or(0);
    if issued == derived {
        return Ok(());
    }
    let missing = rows_where(invoices, col("serial").gt(lit(derived))).await?;
    commit(line_items, &[lines_in(&missing)?], &[(NUMBER_MARK, issued)]).await
}

/// Commits rows and the numbers they bring the table to. A conflict means that another job issued.
async fn commit(table: &mut dyn Table, rows: &[RecordBatch], marks: &[(&str, i64)]) -> Result<()> {
    let nonce = uuid::Uuid::now_v7().simple();
    let marks = marks
        .iter()
        .map(|(name, number)| ((*name).to_owned(), *number));
    let attempt = Attempt {
        commit_id: CommitId(format!("invoices-{nonce}")),
        marks: marks.collect(),
        info: BTreeMap::new(),
    };
    let staged = table.stage(&attempt.commit_id, rows).await?;
    match table.commit(&attempt, &staged).await {
        Ok(_) => Ok(()),
        Err(ConnectorError::Fenced { .. }) => Err(issued_meanwhile()),
        Err(error) => Err(error.into()),
    }
}

/// Another job issued documents since this one read them.
fn issued_meanwhile() -> Error {
    Error::Billing {
        problem: "another invoice job issued at the same time".into(),
        hint: "run it again: what is issued is not issued twice".into(),
    }
}
