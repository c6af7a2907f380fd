//! Tiers that are made of the rows of rate tables are checked as a literal list is: all of them, used or not, and the
//! error names the group.

use super::{apart, execute, refused};
use crate::{
    definitions::PriceDefinition,
    error::{Error, Result},
    functions::tier_rows::{LIST, LIST_FAULT},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    util::display::array_value_to_string,
};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result as Planned},
    execution::FunctionRegistry,
    logical_expr::{
        Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, SortExpr, expr::AggregateFunction,
    },
    prelude::{SessionContext, col},
};
use std::sync::Arc;

const FAULT: &str = "fault";

/// Refuses a price for the first group whose rows are no tiers.
pub(super) async fn check(
    context: &SessionContext,
    price: &PriceDefinition,
    written: &LogicalPlan,
) -> Result<()> {
    for aggregate in lists(written) {
        let fault = fault(context, &aggregate).await;
        let fault = fault.map_err(|source| Error::Price {
            price: price.name.clone(),
            at: price.at.clone(),
            source: Box::new(source),
        })?;
        if let Some((group, fault)) = fault {
            let problem = match group.is_empty() {
                true => fault,
                false => format!("{fault}, where {group}"),
            };
            let hint = "mend these rows of the rate table: `up_to` ends each tier, is NULL in the last alone, and \
                        every tier has a price";
            return Err(refused(price, problem, hint));
        }
    }
    Ok(())
}

/// The steps that make lists of tiers of rows that no customer has.
fn lists(plan: &LogicalPlan) -> Vec<Aggregate> {
    let mut found = Vec::new();
    // The walk cannot fail: its steps only look.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node
            && aggregate.aggr_expr.iter().any(|expr| call(expr).is_some())
            && apart::is_common(&aggregate.input)
            && node.all_out_ref_exprs().is_empty()
        {
            found.push(aggregate.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn call(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::AggregateFunction(call) if call.func.name() == LIST => Some(call),
        _ => None,
    }
}

/// The first group that has a fault, as `column = value`, and the fault.
async fn fault(
    context: &SessionContext,
    aggregate: &Aggregate,
) -> Planned<Option<(String, String)>> {
    let state = context.state();
    let function = state.udaf(LIST_FAULT)?;
    for list in aggregate.aggr_expr.iter().filter_map(call) {
        let fault = Expr::AggregateFunction(AggregateFunction {
            func: Arc::clone(&function),
            params: list.params.clone(),
        });
        let input = LogicalPlanBuilder::from(aggregate.input.as_ref().clone());
        let groups = aggregate.group_expr.clone();
        let named = groups.len();
        let plan = input
            .aggregate(groups, vec![fault.alias(FAULT)])?
            .filter(col(FAULT).is_not_null())?
            .build()?;
        let columns = plan.schema().columns().into_iter().take(named);
        let order = columns.map(|column| Expr::Column(column).sort(true, true));
        let order: Vec<SortExpr> = order.collect();
        let plan = match order.is_empty() {
            true => plan,
            false => {
                let sorted = LogicalPlanBuilder::from(plan).sort(order)?;
                sorted.limit(0, Some(1))?.build()?
            }
        };
        let plan = state.optimize(&plan)?;
        let rows = execute(context, &plan).await?;
        if let Some(rows) = rows.iter().find(|rows| rows.num_rows() > 0) {
            return first(rows, named).map(Some);
        }
    }
    Ok(None)
}

fn first(rows: &RecordBatch, named: usize) -> Planned<(String, String)> {
    let schema = rows.schema();
    let group = schema.fields().iter().zip(rows.columns()).take(named);
    let group =
        group.map(|(field, column)| Ok(format!("`{}` is {}", field.name(), value(column)?)));
    let group: Vec<String> = group.collect::<Planned<_>>()?;
    let fault = rows[FAULT].as_string::<i32>().value(0).to_owned();
    Ok((group.join(" and "), fault))
}

fn value(column: &ArrayRef) -> Result<String, DataFusionError> {
    match column.is_null(0) {
        true => Ok("NULL".to_owned()),
        false => Ok(format!("`{}`", array_value_to_string(column, 0)?)),
    }
}
