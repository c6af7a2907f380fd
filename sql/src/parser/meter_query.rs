//! What a meter's query may be, as far as its syntax tells: one aggregate SELECT over one event type,
//! grouped by `subject`.
//!
//! Everything refused here would make a window depend on something other than its own events, or a
//! measure that cannot be merged. Aggregates, volatile functions and floats in the data are judged
//! when the meter is planned.

use super::{
    cursor::{Name, fold},
    query::ParsedQuery,
};
use crate::error::{Error, Location, Result};
use datafusion::sql::sqlparser::ast::{
    DataType, Expr, GroupByExpr, Query, Select, SelectFlavor, SelectItem, SetExpr, Spanned,
    TableFactor, Value, Visit, Visitor,
};
use std::ops::ControlFlow;

/// The event type in FROM, after checking that the query can be a meter's.
///
/// # Errors
/// The first construct that a meter cannot have, where it is, and what to write instead.
pub(super) fn event_type(query: &ParsedQuery) -> Result<Name> {
    refuse_clauses(query, &query_clauses(&query.ast))?;
    let select = select(query)?;
    refuse_clauses(query, &select_clauses(select))?;
    let event_type = from(query, select)?;
    refuse_expressions(query)?;
    refuse_wildcards(query, select)?;
    check_subject(query, select)?;
    Ok(event_type)
}

/// A clause that a meter cannot have.
struct Clause {
    present: bool,
    /// The word that opens it.
    keyword: &'static str,
    problem: &'static str,
    hint: &'static str,
}

const NO_ORDER: &str =
    "a meter keeps every group of every window: order and limit when you query the meter";

fn query_clauses(query: &Query) -> [Clause; 5] {
    let other = query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty()
        || !query.locks.is_empty();
    [
        Clause {
            present: query.with.is_some(),
            keyword: "WITH",
            problem: "a meter cannot use WITH",
            hint: "write one SELECT over one event type; combine meters in a price or a query",
        },
        Clause {
            present: query.order_by.is_some(),
            keyword: "ORDER",
            problem: "a meter cannot use ORDER BY",
            hint: NO_ORDER,
        },
        Clause {
            present: query.limit_clause.is_some(),
            keyword: "LIMIT",
            problem: "a meter cannot use LIMIT or OFFSET",
            hint: NO_ORDER,
        },
        Clause {
            present: query.fetch.is_some(),
            keyword: "FETCH",
            problem: "a meter cannot use FETCH",
            hint: NO_ORDER,
        },
        Clause {
            present: other,
            keyword: "SELECT",
            problem: "a meter cannot use clauses after the SELECT",
            hint: "write SELECT … FROM … WHERE … GROUP BY … only",
        },
    ]
}

fn select_clauses(select: &Select) -> [Clause; 6] {
    let other = select.top.is_some()
        || select.into.is_some()
        || select.exclude.is_some()
        || select.prewhere.is_some()
        || select.value_table_mode.is_some()
        || select.flavor != SelectFlavor::Standard
        || !select.lateral_views.is_empty()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty();
    [
        Clause {
            present: select.distinct.is_some(),
            keyword: "DISTINCT",
            problem: "a meter cannot use SELECT DISTINCT",
            hint: "GROUP BY already gives one row a group; to count distinct values, use COUNT(DISTINCT column)",
        },
        Clause {
            present: select.having.is_some(),
            keyword: "HAVING",
            problem: "a meter cannot use HAVING",
            hint: "a group that fails it in one window may pass it over a month: filter events with WHERE, or totals in a price",
        },
        Clause {
            present: !select.named_window.is_empty(),
            keyword: "WINDOW",
            problem: "a meter cannot use window functions",
            hint: NO_OVER,
        },
        Clause {
            present: select.qualify.is_some(),
            keyword: "QUALIFY",
            problem: "a meter cannot use QUALIFY",
            hint: NO_OVER,
        },
        Clause {
            present: matches!(select.group_by, GroupByExpr::All(_)),
            keyword: "ALL",
            problem: "a meter cannot use GROUP BY ALL",
            hint: "name the columns: GROUP BY subject, …",
        },
        Clause {
            present: other,
            keyword: "SELECT",
            problem: "a meter cannot use this form of SELECT",
            hint: "write SELECT … FROM … WHERE … GROUP BY … only",
        },
    ]
}

const NO_OVER: &str =
    "use an aggregate with GROUP BY; compare rows when you query the meter's windows";

fn refuse_clauses(query: &ParsedQuery, clauses: &[Clause]) -> Result<()> {
    match clauses.iter().find(|clause| clause.present) {
        None => Ok(()),
        Some(clause) => {
            Err(query.refuse(query.keyword(clause.keyword), clause.problem, clause.hint))
        }
    }
}

fn select(query: &ParsedQuery) -> Result<&Select> {
    let hint = "write one SELECT; combine meters in a price or a query";
    match query.ast.body.as_ref() {
        SetExpr::Select(select) => Ok(select),
        SetExpr::SetOperation { op, .. } => {
            let operator = op.to_string();
            let problem = format!("a meter cannot use {operator}");
            Err(query.refuse(query.keyword(&operator), &problem, hint))
        }
        _ => Err(query.refuse(query.start.clone(), "a meter is one SELECT", hint)),
    }
}

/// The one relation in FROM; whether it is an event type is for the check of the whole.
fn from(query: &ParsedQuery, select: &Select) -> Result<Name> {
    let [from] = select.from.as_slice() else {
        return Err(not_one_relation(query, select));
    };
    if !from.joins.is_empty() {
        return Err(query.refuse(query.keyword("JOIN"), "a meter cannot use JOIN", NO_JOIN));
    }
    let name = relation(query, &from.relation)?;
    if name.text.contains('.') {
        let problem = format!("`{}` is not the name of an event type", name.text);
        let hint = "write the event type's name alone, without a schema";
        return Err(query.refuse(name.at, &problem, hint));
    }
    Ok(name)
}

const NO_JOIN: &str = "a meter reads one event type; join rates and customers in a price, where their history is known";

fn not_one_relation(query: &ParsedQuery, select: &Select) -> Error {
    match select.from.get(1) {
        Some(second) => {
            let problem = "a meter cannot read a second relation";
            query.refuse(query.at(second.span()), problem, NO_JOIN)
        }
        None => {
            let problem = "a meter needs FROM";
            query.refuse(
                query.start.clone(),
                problem,
                "add FROM and the name of an event type",
            )
        }
    }
}

fn relation(query: &ParsedQuery, factor: &TableFactor) -> Result<Name> {
    let hint = "write `FROM event_type`, with an alias if you like";
    match factor {
        TableFactor::Table {
            name,
            args: None,
            sample: None,
            version: None,
            json_path: None,
            with_ordinality: false,
            with_hints,
            partitions,
            index_hints,
            ..
        } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
            Ok(query.relation(name))
        }
        TableFactor::Derived { subquery, .. } => {
            let at = query.at(subquery.span());
            Err(query.refuse(at, "a meter cannot use a sub-query", NO_SUBQUERY))
        }
        _ => {
            let at = query.at(factor.span());
            Err(query.refuse(at, "a meter reads an event type and nothing else", hint))
        }
    }
}

const NO_SUBQUERY: &str =
    "a meter sees the events of one window only: use WHERE, CASE or FILTER on their columns";

fn refuse_expressions(query: &ParsedQuery) -> Result<()> {
    match query.ast.visit(&mut Refusals { query }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Expressions that no meter can have, wherever they are.
struct Refusals<'a> {
    query: &'a ParsedQuery,
}

impl Visitor for Refusals<'_> {
    type Break = Box<Error>;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        let (problem, hint) = match expr {
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
                ("a meter cannot use a sub-query", NO_SUBQUERY)
            }
            Expr::Function(function) if function.over.is_some() => {
                ("a meter cannot use window functions", NO_OVER)
            }
            Expr::Cast { data_type, .. } if is_float(data_type) => (
                "a meter cannot use floats: they are not exact",
                "cast to DECIMAL(p, s)",
            ),
            Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => (
                "a meter cannot use ROLLUP, CUBE or GROUPING SETS",
                "group by the finest columns; add groups up when you query the meter",
            ),
            _ => return ControlFlow::Continue(()),
        };
        let at = self.query.at(expr.span());
        ControlFlow::Break(Box::new(self.query.refuse(at, problem, hint)))
    }
}

fn is_float(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Float(_)
            | DataType::Float4
            | DataType::Float8
            | DataType::Float32
            | DataType::Float64
            | DataType::Real
            | DataType::Double(_)
            | DataType::DoublePrecision
    )
}

fn refuse_wildcards(query: &ParsedQuery, select: &Select) -> Result<()> {
    let wildcard = select.projection.iter().find(|item| {
        matches!(
            item,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    });
    match wildcard {
        None => Ok(()),
        Some(item) => Err(query.refuse(
            query.at(item.span()),
            "a meter cannot select `*`",
            "name the columns that GROUP BY names, and the aggregates",
        )),
    }
}

/// A quantity belongs to a subject, so the groups and the answer must both have it.
fn check_subject(query: &ParsedQuery, select: &Select) -> Result<()> {
    let GroupByExpr::Expressions(groups, modifiers) = &select.group_by else {
        return Ok(());
    };
    let no_group = |at: Location| {
        let problem = "a meter must group by `subject`";
        query.refuse(
            at,
            problem,
            "write GROUP BY subject, and any dimensions after it",
        )
    };
    if groups.is_empty() {
        return Err(no_group(query.start.clone()));
    }
    let group_by = query.keyword("GROUP");
    if !modifiers.is_empty() {
        let problem = "a meter cannot use modifiers of GROUP BY";
        return Err(query.refuse(group_by, problem, "name the columns only"));
    }
    let is_group =
        |group: &Expr| is_subject(group) || ordinal(group, select).is_some_and(is_subject);
    if !groups.iter().any(is_group) {
        return Err(no_group(group_by));
    }
    if !select.projection.iter().any(selects_subject) {
        let problem = "a meter must select `subject`";
        let hint = "add `subject` to the SELECT list, under that name";
        return Err(query.refuse(query.start.clone(), problem, hint));
    }
    Ok(())
}

/// `subject`, or `alias.subject`.
fn is_subject(expr: &Expr) -> bool {
    let ident = match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(idents) => idents.last().filter(|_| idents.len() == 2),
        _ => None,
    };
    ident.is_some_and(|ident| fold(&ident.value, ident.quote_style) == "subject")
}

/// The selected expression that `GROUP BY 1` means.
fn ordinal<'a>(group: &Expr, select: &'a Select) -> Option<&'a Expr> {
    let Expr::Value(value) = group else {
        return None;
    };
    let Value::Number(text, _) = &value.value else {
        return None;
    };
    let index = text.parse::<usize>().ok()?.checked_sub(1)?;
    match select.projection.get(index)? {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn selects_subject(item: &SelectItem) -> bool {
    match item {
        SelectItem::UnnamedExpr(expr) => is_subject(expr),
        SelectItem::ExprWithAlias { expr, alias } => {
            is_subject(expr) && fold(&alias.value, alias.quote_style) == "subject"
        }
        _ => false,
    }
}
