//! Prices over period totals: quantities become charges.
//!
//! A price is a query over a session that holds each meter's totals for the period, the events that are counted in it,
//! the rate tables and the subscriptions. Every row it returns is one [`Charge`]: `customer` pays `amount`, for `quantity`
//! if the price names one; its other columns are dimensions. The query must be a pure function of those
//! tables, so that a draft, a preview and the final invoice agree.

mod answer;
mod apart;
mod digits;
mod events;
mod keys;
mod lineage;
pub mod passed;
pub mod progress;
mod purity;
mod quantity;
#[cfg(test)]
mod tests;
mod tier_lists;
mod unplanned;
pub mod warnings;
mod written;

use crate::{
    definitions::PriceDefinition,
    error::{Error, Location, Result},
    money::Exact,
    session,
};
use answer::Columns;
use arrow::{array::RecordBatch, datatypes::DataType};
use datafusion::{
    common::tree_node::TreeNode,
    error::DataFusionError,
    logical_expr::{ExprSchemable, LogicalPlan, utils::merge_schema},
    physical_plan::collect,
    prelude::SessionContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// The columns of a charge that are neither its customer, its quantity nor its amount, in the price's order: each with its name, and as text;
/// `None` is NULL. A charge shares them with the line that it becomes.
pub type Dimensions = Arc<[(Arc<str>, Option<String>)]>;

/// One row of a price's answer: what becomes one line item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The price.
    pub price: Arc<str>,
    /// Its version.
    pub price_version: u32,
    /// Who pays.
    pub customer: Arc<str>,
    /// The other columns the price returned.
    pub dimensions: Dimensions,
    /// The quantity, if the price returned one.
    pub quantity: Option<Exact>,
    /// The exact, unrounded amount.
    pub amount: Exact,
    /// ISO 4217 code, or the name of a currency of one's own.
    pub currency: Arc<str>,
    /// The part of the billing period that it is for; `None` is all of it.
    pub service: Option<crate::invoice::Period>,
    /// The subscription that it is for; `None` without accounts.
    pub subscription: Option<Arc<str>>,
    /// Whether its price reads no usage: nothing but `subscription` and rate tables.
    pub is_fixed: bool,
    /// Whether it gives back what was billed in advance and not used.
    pub is_unused: bool,
}

/// What a price makes of all customers' usage.
#[derive(Debug, Default)]
pub struct Rated {
    /// What is charged, in order.
    pub charges: Vec<Charge>,
    /// Customers for whom the price has no answer, in order. They have no charge.
    pub in_error: Vec<Unrated>,
}

/// A customer for whom a price has no answer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrated {
    /// Who would pay.
    pub customer: String,
    /// The price.
    pub price: String,
    /// Where it is defined.
    pub at: Location,
    /// What is wrong, naming the customer.
    pub problem: String,
    /// What to change.
    pub hint: String,
}

/// Usage of a customer that is in error, so that a relation of the session does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The relation.
    pub relation: String,
    /// Who would pay.
    pub customer: String,
    /// Why it is in error.
    pub reason: String,
}

impl fmt::Display for Unrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unrated {
            price,
            at,
            problem,
            hint,
            ..
        } = self;
        write!(f, "{at}: price `{price}`: {problem}; {hint}")
    }
}

impl Rated {
    /// The charges, when the price has an answer for every customer.
    ///
    /// # Errors
    /// [`Error::PriceResult`] for the first customer for whom it has none.
    pub fn whole(self) -> Result<Vec<Charge>> {
        match self.in_error.into_iter().next() {
            None => Ok(self.charges),
            Some(first) => Err(Error::PriceResult {
                price: first.price,
                at: first.at,
                problem: first.problem,
                hint: first.hint,
            }),
        }
    }

    /// Notes that a price has no answer for a customer.
    fn note(
        &mut self,
        price: &PriceDefinition,
        customer: &str,
        problem: impl Into<String>,
        hint: &str,
    ) {
        self.note_at(price, price.at.clone(), customer, (problem.into(), hint));
    }

    /// The same at a place of its text.
    fn note_at(
        &mut self,
        price: &PriceDefinition,
        at: Location,
        customer: &str,
        (problem, hint): (String, &str),
    ) {
        self.in_error.push(Unrated {
            customer: customer.to_owned(),
            price: price.name.clone(),
            at,
            problem,
            hint: hint.to_owned(),
        });
    }

    /// Leaves the first reason of each customer, and no charge of a customer that has one: a part of what is due is a
    /// wrong number. Customers of whom usage was left out have neither: what was left out is the reason.
    fn settle(&mut self, left_out: &[&LeftOut]) {
        if !left_out.is_empty() {
            let names = left_out.iter().map(|known| known.customer.as_str());
            let lacking: BTreeSet<&str> = names.collect();
            self.charges
                .retain(|charge| !lacking.contains(&*charge.customer));
            self.in_error
                .retain(|unrated| !lacking.contains(unrated.customer.as_str()));
        }
        let mut first = BTreeMap::new();
        for unrated in self.in_error.drain(..) {
            first.entry(unrated.customer.clone()).or_insert(unrated);
        }
        if !first.is_empty() {
            self.charges
                .retain(|charge| !first.contains_key(&*charge.customer));
        }
        self.in_error = first.into_values().collect();
        self.charges
            .sort_by(|left, right| sort_key(left).cmp(&sort_key(right)));
    }
}

/// Evaluates one price for every customer in the session's tables. The session holds each meter's
/// period totals under the meter's name, without what is in error: `left_out` says whose that is.
///
/// Charges are ordered by customer, then dimensions (NULL first), then quantity and amount, so the same
/// tables give the same charges in the same order. A price over empty tables has none. A fault that is one customer's
/// stays with that customer: usage that was left out, a NULL amount, a number that does not fit, more quantity than was
/// used, and an evaluation that fails on the customer's rows. Where the price compares customers, what the others pay
/// may be made of what that customer lacks, so that any such fault refuses the price.
///
/// # Errors
/// [`Error::Price`] when the query cannot be planned, or fails where it cannot be told for which customer;
/// [`Error::PriceResult`] when it
/// is not one pure SELECT, or its answer is not what a price must return: `customer` text, `amount` an
/// integer or decimal, `quantity` the same, the rest text, numbers, dates, times or booleans; no NULL
/// customer; no fault of a customer where it compares them. The messages name the price and its place.
pub async fn rate(
    context: &SessionContext,
    price: &PriceDefinition,
    left_out: &[LeftOut],
) -> Result<Rated> {
    let failed = |source: DataFusionError| unplanned::failed(price, source);
    let (written, plan) = planned(context, price).await?;
    let columns = Columns::find(price, plan.schema().as_arrow())?;
    // As written: optimized away, a float constant has already been turned into a decimal.
    check_exact(price, &written)?;
    keys::check(price, &plan)?;
    tier_lists::check(context, price, &written).await?;
    let compares = apart::compares_customers(&plan);
    let read = apart::relations(&written);
    let left_out = left_out.iter();
    let left_out: Vec<&LeftOut> = left_out.filter(|l| read.contains(&l.relation)).collect();
    if let Some(first) = left_out.first().filter(|_| compares) {
        return Err(lacking(price, first));
    }
    let mut rated = Rated::default();
    let batches = match execute(context, &plan).await {
        Ok(batches) => batches,
        Err(error) if compares => {
            return Err(match digits::too_many(context, price, &error).await {
                Some(fault) => digits::refusal(price, fault),
                None => failed(error),
            });
        }
        Err(error) => apart::evaluate(context, price, (&written, &plan), error, &mut rated).await?,
    };
    columns.read(price, &batches, &mut rated)?;
    drop(batches);
    quantity::check(context, price, &plan, &mut rated).await?;
    rated.settle(&left_out);
    match rated.in_error.first().filter(|_| compares) {
        Some(first) => Err(refused(price, compared(&first.problem), &first.hint)),
        None => Ok(rated),
    }
}

/// Whether what a price makes of one customer's usage is the same without all others', be it a fault.
///
/// # Errors
/// [`Error::Price`] when the query cannot be planned; [`Error::PriceResult`] when it is not one pure SELECT.
pub async fn is_by_customer(context: &SessionContext, price: &PriceDefinition) -> Result<bool> {
    let (_, plan) = planned(context, price).await?;
    Ok(!apart::compares_customers(&plan) && !apart::repeats_common_rows(&plan))
}

/// Whether each row that a price returns is made of one row of what it reads, and not of several.
///
/// # Errors
/// [`Error::Price`] when the query cannot be planned; [`Error::PriceResult`] when it is not one pure SELECT.
pub async fn is_by_row(context: &SessionContext, price: &PriceDefinition) -> Result<bool> {
    let (written, _) = planned(context, price).await?;
    let gathers = |node: &LogicalPlan| {
        use LogicalPlan::{Aggregate, Distinct, Limit, Window};
        Ok(matches!(
            node,
            Aggregate(_) | Distinct(_) | Limit(_) | Window(_)
        ))
    };
    let gathers = written.exists(gathers);
    Ok(!gathers.map_err(|source| unplanned::failed(price, source))?)
}

/// The plan of a price as it is written, and the same optimized.
async fn planned(
    context: &SessionContext,
    price: &PriceDefinition,
) -> Result<(LogicalPlan, LogicalPlan)> {
    let state = context.state();
    let planned = match session::plan(&state, &price.query).await {
        Ok(plan) => {
            // Types are final once rules have run: a session may turn integer arithmetic into decimals.
            let written = purity::checked(context, price, plan)?;
            state.optimize(&written).map(|plan| (written, plan))
        }
        Err(source) => Err(source),
    };
    let source = match planned {
        Ok(planned) => return Ok(planned),
        Err(source) => source,
    };
    Err(match digits::too_many(context, price, &source).await {
        Some(fault) => digits::refusal(price, fault),
        None => unplanned::unplanned(&state, purity::relations(context), price, source),
    })
}

/// Refuses a price that compares customers, for usage that its relations lack.
fn lacking(price: &PriceDefinition, first: &LeftOut) -> Error {
    let LeftOut {
        relation,
        customer,
        reason,
    } = first;
    let problem =
        format!("`{relation}` lacks usage of customer `{customer}`, which is in error: {reason}");
    let hint = format!(
        "mend that usage, which `SELECT window_start, subject, error FROM {relation} WHERE error IS NOT NULL` shows, \
         or let each row of the price be made of its own customer's usage"
    );
    refused(price, compared(&problem), hint)
}

/// Why the fault of one customer is one of the whole price.
fn compared(problem: &str) -> String {
    format!("what it makes of one customer's usage depends on others', and {problem}")
}

/// Runs a plan that has been optimized; a `DataFrame` would optimize it again.
async fn execute(
    context: &SessionContext,
    plan: &LogicalPlan,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let state = context.state();
    let physical = state
        .query_planner()
        .create_physical_plan(plan, &state)
        .await?;
    collect(physical, context.task_ctx()).await
}

/// What charges of one price are ordered by.
fn sort_key(charge: &Charge) -> impl Ord + '_ {
    (
        &charge.customer,
        &charge.dimensions,
        charge.quantity,
        charge.amount,
    )
}

/// An answer that a price may not give.
fn refused(price: &PriceDefinition, problem: impl Into<String>, hint: impl Into<String>) -> Error {
    refused_at(price, price.at.clone(), problem, hint)
}

/// What a price may not have at a place of its text.
fn refused_at(
    price: &PriceDefinition,
    at: Location,
    problem: impl Into<String>,
    hint: impl Into<String>,
) -> Error {
    Error::PriceResult {
        price: price.name.clone(),
        at,
        problem: problem.into(),
        hint: hint.into(),
    }
}

/// Refuses a float anywhere on the way: cast back to a decimal, its error would look exact.
fn check_exact(price: &PriceDefinition, plan: &LogicalPlan) -> Result<()> {
    match float_in(plan) {
        None => Ok(()),
        Some(expr) => Err(refused(
            price,
            format!("`{expr}` is a float, which is not exact"),
            "calculate with DECIMAL; `package(x, 60, 1)` counts begun 60s exactly, and `x * 0.001` is exact for `x / 1000`",
        )),
    }
}

/// The first expression in the plan, sub-queries included, that is a float.
fn float_in(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|root| {
            root.apply(|expr| {
                // What has no type by itself, such as a wildcard, is no number either.
                let is_float = expr.get_type(&schema).is_ok_and(|t| holds_floats(&t));
                found = found.take().or_else(|| is_float.then(|| expr.to_string()));
                Ok(purity::stop_when(found.is_some()))
            })
        })
    });
    // The walk itself cannot fail: its steps only look.
    walked.ok().and(found)
}

/// Whether a type is a float or holds one.
fn holds_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => fields.iter().any(|field| holds_floats(field.data_type())),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::Map(element, _) => holds_floats(element.data_type()),
        other => other.is_floating(),
    }
}
