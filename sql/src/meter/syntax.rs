//! What a meter's query may not contain, seen in its text, where each construct still has a place.

use super::calls;
use crate::{
    definitions::MeterDefinition,
    error::{Error, Result},
};
use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{
        ast::{
            BinaryOperator, Expr, Function, GroupByExpr, Query, Select, SelectItem, SetExpr,
            Spanned, Statement, TableFactor, Visit, visit_expressions,
        },
        dialect::GenericDialect,
        parser::Parser,
        tokenizer::{Span, Token, Tokenizer},
    },
};
use std::ops::ControlFlow;

/// A construct that is not allowed: where, what, and what to write instead.
struct Refusal {
    span: Span,
    construct: String,
    hint: String,
}

type Check = std::result::Result<(), Refusal>;

/// Parses the query and refuses what no meter can be made of.
///
/// # Errors
/// [`Error::Definition`] with the first construct that is not allowed, and its line and column in
/// the query.
pub(super) fn parse(definition: &MeterDefinition) -> Result<Statement> {
    let statement = single_statement(definition)?;
    let checked = match &statement {
        Statement::Query(query) => check_query(query, definition),
        other => refuse(other.span(), "this statement", "write a SELECT"),
    };
    match checked {
        Ok(()) => Ok(statement),
        Err(refusal) => Err(refusal.into_error(definition)),
    }
}

/// The query without layout, comments and letter case of keywords and unquoted names: queries that
/// differ in these alone are the same.
pub(super) fn normalised(query: &str) -> Result<Vec<String>, DataFusionError> {
    let tokens = Tokenizer::new(&GenericDialect {}, query)
        .tokenize()
        .map_err(|error| DataFusionError::Plan(error.to_string()))?;
    let text = |token| match token {
        Token::Whitespace(_) => None,
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
        other => Some(other.to_string()),
    };
    Ok(tokens.into_iter().filter_map(text).collect())
}

impl Refusal {
    fn into_error(self, definition: &MeterDefinition) -> Error {
        let problem = format!("a meter cannot have {}", self.construct);
        let start = self.span.start;
        refused(definition, &problem, (start.line, start.column), &self.hint)
    }
}

/// A refusal that names the meter, and the place in its query if that is known (not 0).
pub(super) fn refused(
    definition: &MeterDefinition,
    problem: &str,
    (line, column): (u64, u64),
    hint: &str,
) -> Error {
    let place = match line {
        0 => String::new(),
        _ => format!(" (line {line}, column {column} of its query)"),
    };
    Error::Definition {
        at: definition.at.clone(),
        problem: format!("meter `{}`: {problem}{place}", definition.name),
        hint: hint.to_owned(),
    }
}

fn refuse(span: Span, construct: impl Into<String>, hint: impl Into<String>) -> Check {
    Err(Refusal {
        span,
        construct: construct.into(),
        hint: hint.into(),
    })
}

fn single_statement(definition: &MeterDefinition) -> Result<Statement> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, &definition.query)
        .map_err(|error| refused(definition, &error.to_string(), (0, 0), "correct the query"))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => {
            let problem = "its query is not one statement";
            Err(refused(definition, problem, (0, 0), "write one SELECT"))
        }
    }
}

fn check_query(query: &Query, definition: &MeterDefinition) -> Check {
    if let Some(with) = &query.with {
        return refuse(with.span(), "WITH", "put the expressions into the SELECT");
    }
    if let Some(order) = &query.order_by {
        return refuse(order.span(), "ORDER BY", "sort when you query the meter");
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return refuse(query.span(), "LIMIT", "limit when you query the meter");
    }
    if !query.pipe_operators.is_empty() || !query.locks.is_empty() {
        return refuse(query.span(), "pipes or locks", "write a plain SELECT");
    }
    match &*query.body {
        SetExpr::Select(select) => {
            check_select(select)?;
            check_from(select, definition)?;
            check_expressions(query)
        }
        body => refuse(
            body.span(),
            "UNION or another set operation",
            "make one meter for each and add them in the price",
        ),
    }
}

fn check_select(select: &Select) -> Check {
    if select.distinct.is_some() {
        return refuse(
            select.span(),
            "DISTINCT",
            "GROUP BY already makes rows distinct",
        );
    }
    if let Some(having) = &select.having {
        let hint = "filter when you query the meter; a window's value may still grow";
        return refuse(having.span(), "HAVING", hint);
    }
    if let Some(qualify) = &select.qualify {
        return refuse(qualify.span(), "QUALIFY", "filter when you query the meter");
    }
    if select.top.is_some() {
        return refuse(select.span(), "TOP", "limit when you query the meter");
    }
    if let Some(window) = select.named_window.first() {
        return refuse(window.span(), "a window function", WINDOW_HINT);
    }
    for item in &select.projection {
        if let SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) = item {
            let hint = "name `subject`, the dimensions and the measures";
            return refuse(item.span(), "`*` in SELECT", hint);
        }
    }
    match &select.group_by {
        GroupByExpr::Expressions(_, modifiers) if modifiers.is_empty() => Ok(()),
        group_by => refuse(
            group_by.span(),
            "GROUP BY ALL, ROLLUP or CUBE",
            "list the keys: GROUP BY subject, …",
        ),
    }
}

const WINDOW_HINT: &str = "use a plain aggregate, or the window function in a query over the meter";

fn check_from(select: &Select, definition: &MeterDefinition) -> Check {
    let [from] = &select.from[..] else {
        let hint = "read one event type: FROM its name";
        return refuse(select.span(), "no table or several tables in FROM", hint);
    };
    if let Some(join) = from.joins.first() {
        let hint = "join in the price, where the meter is a table";
        return refuse(join.relation.span(), "a join", hint);
    }
    match &from.relation {
        TableFactor::Table {
            name,
            args: None,
            version: None,
            sample: None,
            ..
        } if name
            .to_string()
            .trim_matches('"')
            .eq_ignore_ascii_case(&definition.event_type) =>
        {
            Ok(())
        }
        TableFactor::Derived { .. } => refuse(
            from.relation.span(),
            "a sub-query in FROM",
            "read the event type itself and filter with WHERE",
        ),
        other => refuse(
            other.span(),
            format!("`{other}` in FROM"),
            "read the event type itself",
        ),
    }
}

/// The first construct of an expression that depends on more than one event, or is not exact: where it
/// is, what it is, and what to write instead.
pub(crate) fn refusal_in(expr: &Expr) -> Option<(Span, String, String)> {
    let refusal = check_expressions(expr).err()?;
    Some((refusal.span, refusal.construct, refusal.hint))
}

fn check_expressions(node: &impl Visit) -> Check {
    let visited = visit_expressions(node, |expr| match check_expression(expr) {
        Ok(()) => ControlFlow::Continue(()),
        Err(refusal) => ControlFlow::Break(refusal),
    });
    match visited {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

fn check_expression(expr: &Expr) -> Check {
    match expr {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => refuse(
            expr.span(),
            "a sub-query",
            "a meter sees one event at a time: join in the price",
        ),
        Expr::Function(function) => check_function(function, expr.span()),
        Expr::BinaryOp {
            op: op @ (BinaryOperator::Divide | BinaryOperator::Modulo),
            ..
        } => refuse(
            expr.span(),
            format!("`{op}`, which loses digits"),
            "multiply by an exact decimal, such as `x * 0.001` for `x / 1000`",
        ),
        _ => Ok(()),
    }
}

fn check_function(function: &Function, span: Span) -> Check {
    if function.over.is_some() {
        return refuse(span, "a window function", WINDOW_HINT);
    }
    match calls::check(function) {
        Some((construct, hint)) => refuse(span, construct, hint),
        None => Ok(()),
    }
}
