//! Which of several calls is refused.
//!
//! Planning says what it refuses, seldom where: a message names a function, and the first call of it stands for
//! all. A call that is refused is refused for the same reason when the query has nothing else.

use super::{
    Meter,
    calls::{self, each_expression},
    syntax::{selected, selected_mut},
};
use crate::{
    datafusion_messages::without_alias,
    definitions::{EventType, MeterDefinition},
    error::{Error, Location},
    parser::Sql,
};
use datafusion::{
    prelude::SessionConfig,
    sql::sqlparser::{
        ast::{Expr, Ident, SelectItem, Spanned, Statement},
        parser::Parser,
    },
};

impl Meter {
    /// The same refusal, at the call that is refused by itself: the innermost, if calls are within one another.
    pub(super) async fn at_its_call(
        definition: &MeterDefinition,
        event_type: &EventType,
        config: SessionConfig,
        statement: &Statement,
        refusal: Error,
    ) -> Error {
        let Error::Definition { at, problem, hint } = refusal else {
            return refusal;
        };
        let is_refused = async |expr: Option<&Expr>| {
            let alone = alone(statement, expr)?;
            let planned = Self::plan_statement(definition, event_type, config.clone(), alone);
            match planned.await {
                Err(Error::Definition { problem: its, .. }) => {
                    (without_alias(&its) == without_alias(&problem)).then_some(())
                }
                _ => None,
            }
        };
        // A key that is refused would make every call look so.
        let mut found: Option<(Expr, Location)> = None;
        if is_refused(None).await.is_none() {
            for (call, place) in alike(definition, statement, &at) {
                // A call comes before those within it.
                let is_within = |(outer, _): &(Expr, Location)| contains(outer, &call);
                if found.as_ref().is_none_or(is_within) && is_refused(Some(&call)).await.is_some() {
                    found = Some((call, place));
                }
            }
        }
        let at = found.map_or(at, |(_, place)| place);
        Error::Definition { at, problem, hint }
    }
}

/// All calls of the functions, and uses of the operators, that start at a place, with where they are.
fn alike(
    definition: &MeterDefinition,
    statement: &Statement,
    at: &Location,
) -> Vec<(Expr, Location)> {
    let mut calls = Vec::new();
    each_expression(statement, |expr| {
        let start = expr.span().start;
        if let Some(name) = calls::name_in(expr)
            && start.line > 0
        {
            let place = definition.query_at.within(start.line, start.column);
            calls.push((name, expr.clone(), place));
        }
    });
    let here = calls.iter().filter(|(_, _, place)| place == at);
    let names: Vec<String> = here.map(|(name, _, _)| name.clone()).collect();
    calls.retain(|(name, _, _)| names.contains(name));
    let calls = calls.into_iter();
    calls.map(|(_, expr, place)| (expr, place)).collect()
}

/// A meter's query with its keys and one expression, if any.
fn alone(statement: &Statement, expr: Option<&Expr>) -> Option<Statement> {
    let mut alone = statement.clone();
    let select = selected_mut(&mut alone)?;
    select
        .projection
        .retain(|item| matches!(item_expr(item), Some(key) if !has_aggregate(key)));
    let measure = match expr {
        Some(expr) if has_aggregate(expr) => expr.clone(),
        Some(expr) => count_of(&expr.to_string())?,
        None => count_of("*")?,
    };
    select.projection.push(SelectItem::ExprWithAlias {
        expr: measure,
        alias: Ident::new("alone"),
    });
    select.selection = None;
    Some(alone)
}

fn contains(outer: &Expr, inner: &Expr) -> bool {
    let mut found = false;
    each_expression(outer, |part| found |= part == inner);
    found
}

fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn has_aggregate(expr: &Expr) -> bool {
    let mut found = false;
    each_expression(expr, |part| {
        found |= matches!(part, Expr::Function(call) if calls::is_aggregate(call));
    });
    found
}

/// `COUNT` of an expression, which takes any.
fn count_of(expr: &str) -> Option<Expr> {
    let text = format!("SELECT COUNT({expr})");
    let statement = Parser::parse_sql(&Sql, &text).ok()?;
    item_expr(selected(statement.first()?)?.projection.first()?).cloned()
}
