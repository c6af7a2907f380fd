//! What a price may read and call, judged by its resolved plan, where a name means what it means.
//!
//! A price reads the relations of its session and nothing else. Its answer depends on their rows and not on
//! the order in which these come: an order that decides something is completed by all columns, so that only
//! equal rows tie, and what has no order is refused. An order by the time of events is completed by their place
//! ([`super::events`]).

use super::{
    events::{ByTime, is_span},
    refused,
};
use crate::{aggregates::METERED, definitions::PriceDefinition, error::Result, session};
use datafusion::{
    common::{
        Result as Planned,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Distinct, Expr, LogicalPlan, SortExpr, Volatility, Window, WindowFrameBound,
        WindowFrameUnits, WindowFunctionDefinition,
        expr::{AggregateFunction, WindowFunction},
    },
    prelude::SessionContext,
};
use std::collections::BTreeSet;

/// What is wrong, and what to write instead.
type Refusal = (String, String);

/// Aggregates besides [`METERED`] that give one answer in any order of their rows.
const UNORDERED: &[&str] = &[
    "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "grouping", "tiers",
];

/// Aggregates whose answer depends on the order of their rows.
const ORDERED: &[&str] = &[
    "array_agg",
    "first_value",
    "last_value",
    "nth_value",
    "string_agg",
];

/// Functions that count as immutable and say something of the program.
const SESSION: &[&str] = &["version"];

/// The plan with every order completed.
///
/// # Errors
/// [`crate::Error::PriceResult`] with what makes the price depend on more than its relations' rows.
pub(super) fn checked(
    context: &SessionContext,
    price: &PriceDefinition,
    plan: LogicalPlan,
) -> Result<LogicalPlan> {
    session::read_only_options()
        .verify_plan(&plan)
        .map_err(|error| refused(price, error.strip_backtrace(), "write one SELECT"))?;
    if let Some((problem, hint)) = refusal(&plan, &relations(context)) {
        return Err(refused(price, problem, hint));
    }
    let completed = plan.transform_up_with_subqueries(complete);
    let completed = completed.map_err(|source| crate::Error::Price {
        price: price.name.clone(),
        at: price.at.clone(),
        source: Box::new(source),
    })?;
    Ok(completed.data)
}

/// The names of a session's relations.
pub(super) fn relations(context: &SessionContext) -> BTreeSet<String> {
    let catalogs = context.catalog_names().into_iter();
    let catalogs = catalogs.filter_map(|name| context.catalog(&name));
    let schemas = catalogs.flat_map(|catalog| {
        let names = catalog.schema_names().into_iter();
        names.filter_map(move |name| catalog.schema(&name))
    });
    schemas.flat_map(|schema| schema.table_names()).collect()
}

fn refusal(plan: &LogicalPlan, relations: &BTreeSet<String>) -> Option<Refusal> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        found = found.take().or_else(|| refused_node(node, relations));
        node.apply_expressions(|root| {
            root.apply(|expr| {
                found = found.take().or_else(|| refused_expr(expr));
                Ok(stop_when(found.is_some()))
            })
        })
    });
    // The walk itself cannot fail: its steps only look.
    walked.ok().and(found)
}

/// What ends a walk over a plan.
pub(super) fn stop_when(found: bool) -> TreeNodeRecursion {
    if found {
        TreeNodeRecursion::Stop
    } else {
        TreeNodeRecursion::Continue
    }
}

fn refused_node(node: &LogicalPlan, relations: &BTreeSet<String>) -> Option<Refusal> {
    match node {
        LogicalPlan::TableScan(scan) if !relations.contains(scan.table_name.table()) => Some((
            format!("it reads `{}`", scan.table_name),
            "read meters, `<meter>_windows`, event types, rate tables and `subscription`"
                .to_owned(),
        )),
        LogicalPlan::Limit(limit) if !is_sorted(&limit.input) => Some((
            "it has LIMIT, OFFSET or FETCH without ORDER BY beside it".to_owned(),
            "add ORDER BY in the same SELECT: rows come in any order".to_owned(),
        )),
        LogicalPlan::Distinct(Distinct::On(on)) if on.sort_expr.is_none() => Some((
            "it has DISTINCT ON without ORDER BY".to_owned(),
            "add ORDER BY: rows come in any order".to_owned(),
        )),
        LogicalPlan::Distinct(Distinct::On(on)) => {
            let order = on.sort_expr.as_deref().unwrap_or_default();
            ByTime::of(order, &on.input)
                .as_ref()
                .and_then(lacking_place)
        }
        LogicalPlan::Window(window) => {
            let mut calls = window.window_expr.iter();
            calls.find_map(|expr| match expr {
                Expr::WindowFunction(call) => refused_window(call, &window.input),
                _ => None,
            })
        }
        LogicalPlan::Extension(extension) => Some((
            format!("it needs `{}`", extension.node.name()),
            "write it with joins, filters and aggregates".to_owned(),
        )),
        _ => None,
    }
}

/// Refuses an order by the time of events over rows that do not tell apart events of one time.
fn lacking_place(by_time: &ByTime<'_>) -> Option<Refusal> {
    (!by_time.is_whole()).then(|| {
        let problem = format!(
            "it orders events of `{}` by `event_time`, but not by what tells events of one time apart",
            by_time.relation
        );
        let hint = "select `sequence`, `ordinal` and `shard` too in the sub-query, beside `event_time`";
        (problem, hint.to_owned())
    })
}

/// Whether rows come out in the order of an ORDER BY of the same SELECT.
fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        _ => false,
    }
}

fn refused_expr(expr: &Expr) -> Option<Refusal> {
    match expr {
        Expr::ScalarFunction(call) => {
            let name = call.func.name();
            let changes = call.func.signature().volatility != Volatility::Immutable;
            (changes || SESSION.contains(&name)).then(|| impure(name))
        }
        Expr::AggregateFunction(call) => match call.func.signature().volatility {
            Volatility::Immutable => refused_aggregate(call),
            _ => Some(impure(call.func.name())),
        },
        Expr::WindowFunction(call) => match call.fun.signature().volatility {
            // The rest is a question of the rows that it is called on.
            Volatility::Immutable => None,
            _ => Some(impure(call.fun.name())),
        },
        _ => None,
    }
}

fn impure(name: &str) -> Refusal {
    (
        format!("`{name}` does not give the same answer every time"),
        "use the usage and the period's columns instead of the clock or random numbers".to_owned(),
    )
}

fn refused_aggregate(call: &AggregateFunction) -> Option<Refusal> {
    let name = call.func.name();
    if is_unordered(name) {
        return None;
    }
    if !ORDERED.contains(&name) {
        return Some(unknown(name));
    }
    let value = call.params.args.first()?;
    let orders = &call.params.order_by;
    let is_total = orders.iter().any(|order| order.expr == *value);
    (!is_total).then(|| {
        let first: Vec<String> = orders.iter().map(|order| order.expr.to_string()).collect();
        let order = [first, vec![value.to_string()]].concat().join(", ");
        (
            format!("the answer of `{name}` depends on the order of rows"),
            format!("write `{name}(… ORDER BY {order})`, or use MIN or MAX"),
        )
    })
}

fn refused_window(call: &WindowFunction, input: &LogicalPlan) -> Option<Refusal> {
    let by_time = match is_span(call) {
        true => None,
        false => ByTime::of(&call.params.order_by, input),
    };
    if let Some(refusal) = by_time.as_ref().and_then(lacking_place) {
        return Some(refusal);
    }
    let name = call.fun.name();
    let is_aggregate = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_));
    if is_aggregate && !is_unordered(name) {
        return Some(unknown(name));
    }
    if !is_positional(call) {
        return None;
    }
    if by_time.is_some_and(|by_time| by_time.is_total()) {
        return None;
    }
    let frame = &call.params.window_frame;
    if call.params.order_by.is_empty() {
        return Some((
            format!("the answer of `{name}` depends on the order of rows"),
            "add ORDER BY in OVER (…)".to_owned(),
        ));
    }
    let whole = frame.start_bound.is_unbounded()
        && (name == "first_value" || frame.end_bound.is_unbounded());
    let peers = matches!(name, "last_value" | "nth_value" | "first_value")
        && frame.units != WindowFrameUnits::Rows
        && !whole;
    peers.then(|| {
        (
            format!("the answer of `{name}` depends on the order of rows that tie"),
            "write the frame by rows: ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW".to_owned(),
        )
    })
}

fn is_unordered(name: &str) -> bool {
    METERED.contains(&name) || UNORDERED.contains(&name)
}

fn unknown(name: &str) -> Refusal {
    (
        format!("`{name}` is not known to give one answer in any order of rows"),
        "use SUM, COUNT, MIN, MAX, AVG or another aggregate of docs/sql.md".to_owned(),
    )
}

/// Whether a window function tells rows apart that its ORDER BY does not.
fn is_positional(call: &WindowFunction) -> bool {
    let frame = &call.params.window_frame;
    match &call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => {
            let is_bounded = |bound: &WindowFrameBound| !bound.is_unbounded();
            frame.units == WindowFrameUnits::Rows
                && (is_bounded(&frame.start_bound) || is_bounded(&frame.end_bound))
        }
        // Rows that tie have one rank.
        WindowFunctionDefinition::WindowUDF(function) => !matches!(
            function.name(),
            "rank" | "dense_rank" | "percent_rank" | "cume_dist"
        ),
    }
}

/// Completes the orders of one node.
fn complete(node: LogicalPlan) -> Planned<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Sort(mut sort) => {
            by_place(&mut sort.expr, &sort.input);
            extend(&mut sort.expr, &sort.input);
            Ok(Transformed::yes(LogicalPlan::Sort(sort)))
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            if let Some(order) = &mut on.sort_expr {
                by_place(order, &on.input);
                extend(order, &on.input);
            }
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(on))))
        }
        LogicalPlan::Window(Window {
            input, window_expr, ..
        }) => {
            let completed = window_expr.into_iter().map(|expr| match expr {
                Expr::WindowFunction(mut call) if !is_span(&call) => {
                    // Others know the column by the name that the written order gives it.
                    let name = Expr::WindowFunction(call.clone()).schema_name().to_string();
                    let order = &mut call.params.order_by;
                    let is_total = by_place(order, &input);
                    if is_positional(&call) && !is_total {
                        extend(&mut call.params.order_by, &input);
                    }
                    Expr::WindowFunction(call).alias(name)
                }
                other => other,
            });
            let window = Window::try_new(completed.collect(), input)?;
            Ok(Transformed::yes(LogicalPlan::Window(window)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Completes an order by the time of events; true when no two rows tie then.
fn by_place(order: &mut Vec<SortExpr>, input: &LogicalPlan) -> bool {
    let Some(by_time) = ByTime::of(order, input) else {
        return false;
    };
    let is_total = by_time.is_total();
    by_time.complete(order);
    is_total
}

/// Adds every column that an order does not have yet.
fn extend(order: &mut Vec<SortExpr>, input: &LogicalPlan) {
    for column in input.schema().columns() {
        let column = Expr::Column(column);
        if !order.iter().any(|known| known.expr == column) {
            order.push(column.sort(true, true));
        }
    }
}
