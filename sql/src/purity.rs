//! Whether a plan is exact and repeatable: no floats, no inexact operators, no answer that could be another one the next
//! time. Meters and the checks of event types ask; what a price may read besides is [`crate::rating`]'s.

use crate::{aggregates, session::arithmetic};
use datafusion::{
    common::{
        Result,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, LogicalPlan, Volatility,
        expr::{AggregateFunction, ScalarFunction},
        utils::merge_schema,
    },
};

/// A construct and what to write instead.
pub(crate) type Found = Option<(String, &'static str)>;

/// A floating-point value, an inexact operator, or an aggregate that is a list.
pub(crate) fn inexact(expr: &Expr, node: &LogicalPlan) -> Result<Found> {
    let schema = merge_schema(&node.inputs());
    let data_type = expr.get_type(&schema)?;
    if data_type.is_floating() {
        let hint = "calculate with BIGINT and DECIMAL(p, s); leave casts to floating point, and functions such as sqrt, out";
        return Ok(Some((format!("`{expr}` is floating point"), hint)));
    }
    match expr {
        Expr::AggregateFunction(_) if data_type.is_list() => {
            let hint = "measure its length or an element, such as MAX(array_length(tags))";
            Ok(Some((format!("`{expr}` is a list"), hint)))
        }
        Expr::BinaryExpr(BinaryExpr { op, .. })
            if arithmetic::is_arithmetic(*op) && arithmetic::is_exact(&data_type) =>
        {
            let hint = "cast both sides to BIGINT, or to DECIMAL(p, s) with as many digits after the point as they have";
            Ok(Some((format!("`{expr}` is not exact"), hint)))
        }
        _ => Ok(None),
    }
}

/// What a check finds first among all expressions of a plan.
pub(crate) fn first_found(
    plan: &LogicalPlan,
    check: impl Fn(&Expr, &LogicalPlan) -> Result<Found>,
) -> Result<Found> {
    let mut found: Found = None;
    plan.apply(|node| {
        node.apply_expressions(|root| {
            root.apply(|expr| {
                found = check(expr, node)?;
                Ok(match found {
                    Some(_) => TreeNodeRecursion::Stop,
                    None => TreeNodeRecursion::Continue,
                })
            })
        })
    })?;
    Ok(found)
}

/// Whatever could make two evaluations of the same events differ.
pub(crate) fn nondeterministic(expr: &Expr) -> Found {
    match expr {
        Expr::AggregateFunction(function) => unmetered(function),
        Expr::ScalarFunction(function) => changing(function),
        Expr::WindowFunction(_) => Some((
            format!("`{expr}` is a window function"),
            "use a plain aggregate",
        )),
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
            Some(("it has a sub-query".to_owned(), "join in the price"))
        }
        Expr::GroupingSet(_) => Some((
            format!("`{expr}` groups in several ways"),
            "list the keys: GROUP BY subject, …",
        )),
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => Some((
            format!("`{expr}` has no fixed value"),
            "write the value itself",
        )),
        _ => None,
    }
}

fn unmetered(function: &AggregateFunction) -> Found {
    let name = function.func.name();
    let params = &function.params;
    if !aggregates::METERED.contains(&name) {
        let hint =
            "docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …";
        return Some((format!("the aggregate `{name}` is not for meters"), hint));
    }
    if params.distinct {
        let hint = "count or sum all values";
        return Some((format!("`{name}` has DISTINCT"), hint));
    }
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        let hint = "leave the order out; the result does not depend on it";
        return Some((
            format!("`{name}` has an order or a treatment of NULL"),
            hint,
        ));
    }
    None
}

fn changing(function: &ScalarFunction) -> Found {
    let signature = function.func.signature();
    (signature.volatility != Volatility::Immutable).then(|| {
        let problem = format!("`{}` does not always return the same", function.name());
        (
            problem,
            "use `event_time` for time, and columns of the event",
        )
    })
}
