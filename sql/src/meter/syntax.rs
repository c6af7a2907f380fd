//! What a meter's query may not contain, seen in its text, where each construct still has a place.

use super::calls::{self, each_expression};
use crate::{
    definitions::MeterDefinition,
    error::{Error, Location, Result},
    parser::Sql,
    session::arithmetic,
};
use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{
        ast::{
            BinaryOperator, Expr, Function, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr,
            Spanned, Statement, TableFactor, Visit, visit_expressions, visit_expressions_mut,
        },
        parser::Parser,
        tokenizer::{Span, Token, Tokenizer},
    },
};
use std::{collections::BTreeSet, convert::Infallible, ops::ControlFlow};

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

/// The query's tokens as the parser prints them, without layout, comments and letter case of keywords and unquoted names.
/// Their fingerprint is stored in tables from before [`canonical`](super::canonical).
pub(super) fn tokens_as_printed(query: &str) -> Result<Vec<String>, DataFusionError> {
    let tokens = Tokenizer::new(&Sql, query)
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
        refused(definition, &problem, place(self.span), &self.hint)
    }
}

/// A refusal that names the meter, at a place in its query, or else where the meter is.
pub(super) fn refused(
    definition: &MeterDefinition,
    problem: &str,
    (line, column): Place,
    hint: &str,
) -> Error {
    let at = match line {
        0 => definition.at.clone(),
        _ => definition.query_at.within(line, column),
    };
    refused_at(at, definition, problem, hint)
}

/// A refusal at the value of an option, or else where the meter is.
pub(super) fn refused_option(
    definition: &MeterDefinition,
    option: &str,
    problem: &str,
    hint: &str,
) -> Error {
    let at = definition.option_at(option).clone();
    refused_at(at, definition, problem, hint)
}

fn refused_at(at: Location, definition: &MeterDefinition, problem: &str, hint: &str) -> Error {
    Error::Definition {
        at,
        problem: format!("meter `{}`: {problem}", definition.name),
        hint: hint.to_owned(),
    }
}

/// Where something is in a query, line and column from 1; `(0, 0)` when the place is unknown.
pub(super) type Place = (u64, u64);

/// Where a query begins: its text has nothing before it.
pub(super) const START: Place = (1, 1);

/// Where the first call of a function or use of an operator is that has one of these names, or else the first
/// expression that is written so.
pub(super) fn place_of(definition: &MeterDefinition, names: &[&str]) -> Option<Place> {
    let statement = single_statement(definition).ok()?;
    let (mut called, mut written) = (None, None);
    each_expression(&statement, |expr| {
        let is_called = |name: String| names.contains(&name.as_str());
        if called.is_none() && calls::name_in(expr).is_some_and(is_called) {
            called = Some(place(expr.span()));
        }
        if written.is_none() && names.contains(&expr.to_string().as_str()) {
            written = Some(place(expr.span()));
        }
    });
    called.or(written)
}

/// Where the second of two aggregates or group keys is that differ in casts alone.
pub(super) fn place_of_twin(definition: &MeterDefinition) -> Option<Place> {
    let statement = single_statement(definition).ok()?;
    let mut twins: Vec<Expr> = Vec::new();
    each_expression(&statement, |expr| {
        if matches!(expr, Expr::Function(call) if calls::is_aggregate(call)) {
            twins.push(expr.clone());
        }
    });
    if let GroupByExpr::Expressions(keys, _) = &selected(&statement)?.group_by {
        twins.extend(keys.iter().cloned());
    }
    let bare: Vec<String> = twins.iter().map(without_casts).collect();
    let is_second =
        |at: &usize| (0..*at).any(|first| bare[first] == bare[*at] && twins[first] != twins[*at]);
    let second = (0..twins.len()).find(is_second)?;
    Some(place(twins[second].span()))
}

fn without_casts(expr: &Expr) -> String {
    let mut bare = expr.clone();
    // The visitor is never told to stop.
    let ControlFlow::Continue(()) = visit_expressions_mut(&mut bare, |part| {
        while let Expr::Cast { expr: inner, .. } = part {
            *part = (**inner).clone();
        }
        ControlFlow::<Infallible>::Continue(())
    });
    bare.to_string()
}

/// Where an expression of GROUP BY is that is written so.
pub(super) fn place_of_written_key(definition: &MeterDefinition, text: &str) -> Place {
    place_in(definition, |select| match &select.group_by {
        GroupByExpr::Expressions(keys, _) => {
            let key = keys.iter().find(|key| key.to_string() == text);
            key.map(Spanned::span)
        }
        GroupByExpr::All(_) => None,
    })
}

/// Where the condition of WHERE is.
pub(super) fn place_of_where(definition: &MeterDefinition) -> Place {
    place_in(definition, |select| {
        select.selection.as_ref().map(Spanned::span)
    })
}

/// Where the last item is that is selected under a name.
pub(super) fn place_of_alias(definition: &MeterDefinition, name: &str) -> Option<Place> {
    let statement = single_statement(definition).ok()?;
    let mut items = selected(&statement)?.projection.iter();
    let named = items.rfind(
        |item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if folded(alias) == name),
    );
    named.map(|item| place(item.span()))
}

/// Where a selected item is, by its number from 0.
pub(super) fn place_of_item(definition: &MeterDefinition, index: usize) -> Place {
    place_in(definition, |select| {
        select.projection.get(index).map(Spanned::span)
    })
}

/// Where an expression of GROUP BY is, by its number from 0.
pub(super) fn place_of_key(definition: &MeterDefinition, index: usize) -> Place {
    place_in(definition, |select| match &select.group_by {
        GroupByExpr::Expressions(keys, _) => keys.get(index).map(Spanned::span),
        GroupByExpr::All(_) => None,
    })
}

fn place_in(definition: &MeterDefinition, find: impl Fn(&Select) -> Option<Span>) -> Place {
    let found = match single_statement(definition) {
        Ok(statement) => selected(&statement).and_then(find),
        Err(_) => None,
    };
    found.map_or(START, place)
}

/// The SELECT that a statement is.
pub(super) fn selected(statement: &Statement) -> Option<&Select> {
    match statement {
        Statement::Query(query) => query.body.as_select(),
        _ => None,
    }
}

/// The same, to be changed.
pub(super) fn selected_mut(statement: &mut Statement) -> Option<&mut Select> {
    let Statement::Query(query) = statement else {
        return None;
    };
    match &mut *query.body {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

/// Where a span begins; some constructs have none, which stands for the whole query.
fn place(span: Span) -> Place {
    match span.start.line {
        0 => START,
        line => (line, span.start.column),
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
    let mut statements = Parser::parse_sql(&Sql, &definition.query).map_err(|error| {
        refused(
            definition,
            &error.to_string(),
            (0, 0),
            "correct the query at this place",
        )
    })?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => {
            let problem = "its query is not one statement";
            Err(refused(definition, problem, START, "write one SELECT"))
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
            check_expressions(query)?;
            check_places(select)
        }
        body @ SetExpr::SetOperation { .. } => refuse(
            body.span(),
            "UNION or another set operation",
            "make one meter for each and add them in the price",
        ),
        body => refuse(body.span(), "anything but a SELECT", "write one SELECT"),
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

/// What DataFusion refuses without saying where.
fn check_places(select: &Select) -> Check {
    check_columns(select)?;
    if let Some(condition) = &select.selection {
        let hint = "filter events there; filter totals when you query the meter";
        check_no_aggregate(condition, "an aggregate in WHERE", hint)?;
    }
    match &select.group_by {
        GroupByExpr::Expressions(keys, _) => check_group_by(keys),
        GroupByExpr::All(_) => Ok(()),
    }
}

fn check_columns(select: &Select) -> Check {
    let mut names = BTreeSet::new();
    for item in &select.projection {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => folded(alias),
            SelectItem::UnnamedExpr(Expr::Identifier(column)) => folded(column),
            item => item.to_string(),
        };
        if names.contains(&name) {
            let hint = "name the column with AS: letters, digits and `_`";
            return refuse(item.span(), format!("two columns called `{name}`"), hint);
        }
        names.insert(name);
    }
    Ok(())
}

fn folded(name: &Ident) -> String {
    match name.quote_style {
        None => name.value.to_ascii_lowercase(),
        Some(_) => name.value.clone(),
    }
}

fn check_group_by(keys: &[Expr]) -> Check {
    let mut seen = BTreeSet::new();
    for key in keys {
        let hint = "group by what each event has, and aggregate in SELECT";
        check_no_aggregate(key, "an aggregate in GROUP BY", hint)?;
        if !seen.insert(key.to_string()) {
            let construct = format!("`{key}` twice in GROUP BY");
            return refuse(key.span(), construct, "name each key once");
        }
    }
    Ok(())
}

fn check_no_aggregate(expr: &Expr, construct: &str, hint: &str) -> Check {
    let visited = visit_expressions(expr, |part| match part {
        Expr::Function(call) if calls::is_aggregate(call) => ControlFlow::Break(part.span()),
        _ => ControlFlow::Continue(()),
    });
    match visited {
        ControlFlow::Break(span) => refuse(span, construct, hint),
        ControlFlow::Continue(()) => Ok(()),
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
        Expr::Identifier(name) if name.value.starts_with('@') => {
            refuse(expr.span(), "a variable", "write the value itself")
        }
        Expr::BinaryOp {
            op: op @ (BinaryOperator::Divide | BinaryOperator::Modulo),
            ..
        } => refuse(
            expr.span(),
            format!("`{op}`, which loses digits"),
            match op {
                BinaryOperator::Modulo => arithmetic::INSTEAD_OF_A_REMAINDER,
                _ => arithmetic::INSTEAD_OF_DIVIDING,
            },
        ),
        _ => Ok(()),
    }
}

fn check_function(function: &Function, span: Span) -> Check {
    if function.over.is_some() {
        return refuse(span, "a window function", WINDOW_HINT);
    }
    if calls::name_of(function) == "unnest" {
        let hint = "publish an event for each element: an event is one row";
        return refuse(span, "`unnest`", hint);
    }
    match calls::check(function) {
        Some((construct, hint)) => refuse(span, construct, hint),
        None => Ok(()),
    }
}
