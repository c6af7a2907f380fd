//! Prices over period totals: quantities become charges.
//!
//! A price is a query over a session that holds each meter's totals for the period, the rate tables and
//! the subscriptions. Every row it returns is one [`Charge`]: `customer` pays `amount`, for `quantity`
//! if the price names one; its other columns are dimensions. The query must be a pure function of those
//! tables, so that a draft, a preview and the final invoice agree.

mod answer;
mod keys;
mod purity;
mod quantity;
#[cfg(test)]
mod tests;

use crate::{
    definitions::PriceDefinition,
    error::{Error, Result},
    money::Exact,
    session,
};
use answer::Columns;
use arrow::array::RecordBatch;
use datafusion::{
    common::tree_node::TreeNode,
    error::DataFusionError,
    logical_expr::{ExprSchemable, LogicalPlan, utils::merge_schema},
    physical_plan::collect,
    prelude::SessionContext,
};

/// One row of a price's answer: what becomes one line item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The price.
    pub price: String,
    /// Its version.
    pub price_version: u32,
    /// Who pays.
    pub customer: String,
    /// The other columns the price returned, in its order, as text; `None` is NULL.
    pub dimensions: Vec<(String, Option<String>)>,
    /// The quantity, if the price returned one.
    pub quantity: Option<Exact>,
    /// The exact, unrounded amount.
    pub amount: Exact,
    /// ISO 4217 code.
    pub currency: String,
}

/// Evaluates one price for every customer in the session's tables. The session holds each meter's
/// period totals under the meter's name.
///
/// Charges are ordered by customer, then dimensions (NULL first), then quantity and amount, so the same
/// tables give the same charges in the same order. A price over empty tables has none.
///
/// # Errors
/// [`Error::Price`] when the query cannot be planned or fails on its rows; [`Error::PriceResult`] when it
/// is not one pure SELECT, or its answer is not what a price must return: `customer` text, `amount` an
/// integer or decimal, `quantity` the same, the rest text, numbers, dates, times or booleans; no NULL
/// customer or amount. The messages name the price, its place and, where there is one, the customer.
pub async fn rate(context: &SessionContext, price: &PriceDefinition) -> Result<Vec<Charge>> {
    let failed = |source: DataFusionError| Error::Price {
        price: price.name.clone(),
        at: price.at.clone(),
        source: Box::new(source),
    };
    let state = context.state();
    let plan = session::plan(&state, &price.query).await.map_err(failed)?;
    // Types are final once rules have run: a session may turn integer arithmetic into decimals.
    let written = purity::checked(context, price, plan)?;
    let plan = state.optimize(&written).map_err(failed)?;
    let columns = Columns::find(price, plan.schema().as_arrow())?;
    // As written: optimized away, a float constant has already been turned into a decimal.
    check_exact(price, &written)?;
    keys::check(price, &plan)?;
    let batches = execute(context, &plan).await.map_err(failed)?;
    let mut charges = Vec::with_capacity(batches.iter().map(|batch| batch.num_rows()).sum());
    for batch in &batches {
        columns.read(price, batch, &mut charges)?;
    }
    quantity::check(context, price, &plan, &charges).await?;
    charges.sort_by(|left, right| sort_key(left).cmp(&sort_key(right)));
    Ok(charges)
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
    Error::PriceResult {
        price: price.name.clone(),
        at: price.at.clone(),
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
                let is_float = expr.get_type(&schema).is_ok_and(|t| t.is_floating());
                found = found.take().or_else(|| is_float.then(|| expr.to_string()));
                Ok(purity::stop_when(found.is_some()))
            })
        })
    });
    // The walk itself cannot fail: its steps only look.
    walked.ok().and(found)
}
