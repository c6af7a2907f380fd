//! Which of several calls is refused.
//!
//! Planning says what it refuses, seldom where: a message names a function, and the first call of it stands for
//! all. A call that is refused is refused by itself, too.

use super::{Meter, calls};
use crate::{
    definitions::{EventType, MeterDefinition},
    error::{Error, Location},
};
use datafusion::{
    prelude::SessionConfig,
    sql::sqlparser::{
        ast::{Expr, Spanned, Statement, Visit, visit_expressions},
        dialect::GenericDialect,
        parser::Parser,
    },
};
use std::{convert::Infallible, ops::ControlFlow};

impl Meter {
    /// The same refusal, at the call that is refused by itself.
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
        let calls = alike(definition, statement, &at);
        // A single one needs no second look.
        for (call, place) in calls.iter().filter(|_| calls.len() > 1) {
            let Some(alone) = alone(statement, call) else {
                continue;
            };
            let planned = Self::plan_statement(definition, event_type, config.clone(), alone).await;
            if planned.is_err() {
                let at = place.clone();
                return Error::Definition { at, problem, hint };
            }
        }
        Error::Definition { at, problem, hint }
    }
}

/// The calls of the function that is called at a place, or uses of the operator.
fn alike(
    definition: &MeterDefinition,
    statement: &Statement,
    at: &Location,
) -> Vec<(Expr, Location)> {
    let mut calls = Vec::new();
    each_expression(statement, |expr| {
        let start = expr.span().start;
        if let Some(name) = name_of(expr) {
            let place = definition.query_at.within(start.line, start.column);
            calls.push((name, expr.clone(), place));
        }
    });
    // The innermost is last: `sum(a) + sum(b)` starts where `sum(a)` does.
    let named = calls.iter().rfind(|(_, _, place)| place == at);
    let name = named.map(|(name, _, _)| name.clone());
    let alike = calls
        .into_iter()
        .filter(|(other, _, _)| Some(other) == name.as_ref());
    alike.map(|(_, expr, place)| (expr, place)).collect()
}

/// A meter's query with one expression and nothing else that could be refused.
fn alone(statement: &Statement, expr: &Expr) -> Option<Statement> {
    let Statement::Query(query) = statement else {
        return None;
    };
    let from = query.body.as_select()?.from.first()?;
    let mut is_measure = false;
    each_expression(expr, |part| {
        is_measure |= matches!(part, Expr::Function(call) if calls::is_aggregate(call));
    });
    let text = match is_measure {
        true => format!("SELECT subject, {expr} AS alone FROM {from} GROUP BY subject"),
        false => format!(
            "SELECT subject, COUNT(*) AS alone FROM {from} WHERE ({expr}) IS NOT NULL GROUP BY subject"
        ),
    };
    Parser::parse_sql(&GenericDialect {}, &text).ok()?.pop()
}

/// A function, or an operator, as messages name it.
fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(call) => Some(calls::planned_name(call)),
        Expr::BinaryOp { op, .. } => Some(op.to_string()),
        _ => None,
    }
}

fn each_expression(node: &impl Visit, mut see: impl FnMut(&Expr)) {
    // The visitor is never told to stop.
    let ControlFlow::Continue(()) = visit_expressions(node, |expr| {
        see(expr);
        ControlFlow::<Infallible>::Continue(())
    });
}
