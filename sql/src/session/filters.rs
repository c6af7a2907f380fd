//! FILTER shields the arguments of its aggregate.
//!
//! DataFusion evaluates an aggregate's arguments on all rows and leaves rows out afterwards, so that `SUM(CAST(text AS
//! BIGINT)) FILTER (WHERE kind = 'number')` fails on a text that the filter leaves out. So an argument that can fail
//! becomes `CASE WHEN filter THEN argument END`, whose branches are evaluated only where they are taken. The filter stays.

use datafusion::{
    common::{DFSchema, Result, config::ConfigOptions, tree_node::Transformed},
    logical_expr::{Expr, SortExpr, expr_rewriter::FunctionRewrite, when},
};

/// Lets a FILTER decide before the arguments of its aggregate are evaluated.
#[derive(Debug)]
pub(super) struct FilterFirst;

impl FunctionRewrite for FilterFirst {
    fn name(&self) -> &str {
        "filter_first"
    }

    fn rewrite(
        &self,
        mut expr: Expr,
        _schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let changed = match &mut expr {
            Expr::AggregateFunction(call) => {
                let params = &mut call.params;
                shield(
                    params.filter.as_deref(),
                    &mut params.args,
                    &mut params.order_by,
                )?
            }
            Expr::WindowFunction(call) => {
                let params = &mut call.params;
                shield(params.filter.as_deref(), &mut params.args, &mut [])?
            }
            _ => false,
        };
        Ok(Transformed::new_transformed(expr, changed))
    }
}

/// Puts the filter before each argument and order that can fail; true when there is one.
fn shield(filter: Option<&Expr>, arguments: &mut [Expr], orders: &mut [SortExpr]) -> Result<bool> {
    let Some(filter) = filter else {
        return Ok(false);
    };
    let orders = orders.iter_mut().map(|order| &mut order.expr);
    let mut changed = false;
    for argument in arguments.iter_mut().chain(orders) {
        if can_fail(argument) && !is_shielded(argument, filter) {
            *argument = when(filter.clone(), argument.clone()).end()?;
            changed = true;
        }
    }
    Ok(changed)
}

/// A column has a value, and so has a literal, which some aggregates want as it is.
fn can_fail(argument: &Expr) -> bool {
    !argument.column_refs().is_empty() && !matches!(argument, Expr::Column(_))
}

/// A plan may be analysed more than once.
fn is_shielded(argument: &Expr, filter: &Expr) -> bool {
    match argument {
        Expr::Case(case) => {
            let first = case.when_then_expr.first();
            case.expr.is_none() && first.is_some_and(|(when, _)| **when == *filter)
        }
        _ => false,
    }
}
