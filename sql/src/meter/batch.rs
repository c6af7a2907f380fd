//! A meter's query as plain batch SQL, for audits: the whole of `events` through DataFusion's ordinary
//! planner, sharing nothing with the incremental path but the aggregates themselves; for distinct values not even
//! that.

use super::{calls, syntax};
use crate::{
    definitions::{Frame, MeterDefinition},
    error::{Error, Result},
    parser::Sql,
};
use arrow::datatypes::Schema;
use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{
        ast::{
            BinaryOperator, Expr, GroupByExpr, Ident, Select, SelectItem, SetExpr, Statement,
            TableFactor, Value,
        },
        parser::{Parser, ParserError},
    },
};

/// The query with `window_start` as its first column and group key, then the columns of `totals`. It
/// reads the event type by its own name.
///
/// # Errors
/// Those of planning: a query that no meter can be made of.
pub(super) fn query(definition: &MeterDefinition, totals: &Schema) -> Result<String> {
    let versions: Vec<&MeterDefinition> = definition.earlier.iter().chain([definition]).collect();
    let next = versions[1..].iter().map(|next| next.effective_from_us);
    let untils = next.chain([None]);
    if let ([version], None) = (&versions[..], definition.effective_from_us) {
        return version_query(version, None);
    }
    let names = totals.fields().iter().map(|field| field.name().as_str());
    let columns = ["window_start"].into_iter().chain(names);
    let columns: Vec<String> = columns
        .map(|name| Ident::with_quote('"', name).to_string())
        .collect();
    let columns = columns.join(", ");
    let parts = versions.iter().zip(untils).map(|(version, until_us)| {
        Ok(format!(
            "SELECT {columns} FROM ({})",
            version_query(version, until_us)?
        ))
    });
    Ok(parts.collect::<Result<Vec<_>>>()?.join(" UNION ALL "))
}

/// One version's query over the events of its own windows.
fn version_query(definition: &MeterDefinition, until_us: Option<i64>) -> Result<String> {
    let mut statement = syntax::parse(definition)?;
    if let Statement::Query(query) = &mut statement
        && let SetExpr::Select(select) = query.body.as_mut()
    {
        complete(select, definition, until_us).map_err(|error| Error::PlanMeter {
            meter: definition.name.clone(),
            at: definition.at.clone(),
            source: Box::new(DataFusionError::from(error)),
        })?;
    }
    calls::supply(&mut statement, definition.window_us);
    Ok(statement.to_string())
}

fn complete(
    select: &mut Select,
    definition: &MeterDefinition,
    until_us: Option<i64>,
) -> std::result::Result<(), ParserError> {
    let keys = keys(select);
    let from = definition.effective_from_us.map(|from_us| (">=", from_us));
    for (compared, us) in from.into_iter().chain(until_us.map(|us| ("<", us))) {
        let bound = parse(&format!("event_time {compared} to_timestamp_micros({us})"))?;
        select.selection = Some(match select.selection.take() {
            None => bound,
            Some(filter) => Expr::BinaryOp {
                left: Box::new(Expr::Nested(Box::new(filter))),
                op: BinaryOperator::And,
                right: Box::new(bound),
            },
        });
    }
    let (window, group) = match definition.frame {
        Frame::Tumbling => {
            let window = window_start(definition.window_us)?;
            (window.clone(), window)
        }
        Frame::Hopping { size_us } => {
            hop(select, definition.window_us, size_us)?;
            let window = format!("{} - __hop", window_start(definition.window_us)?);
            (parse(&window)?, parse(&window)?)
        }
        Frame::Session { gap_us } => {
            tell_sessions(select, &keys, gap_us)?;
            (parse("MIN(event_time)")?, parse("__session")?)
        }
    };
    let first = SelectItem::ExprWithAlias {
        expr: window,
        alias: Ident::new("window_start"),
    };
    select.projection.insert(0, first);
    let keys = [group].into_iter().chain(keys).collect();
    select.group_by = GroupByExpr::Expressions(keys, Vec::new());
    Ok(())
}

/// The group keys as expressions over events, where they are written as places or names of the SELECT.
fn keys(select: &Select) -> Vec<Expr> {
    let selected = |key: &Expr| {
        let items = &select.projection;
        if let Expr::Value(value) = key
            && let Value::Number(place, _) = &value.value
        {
            let place = place.parse::<usize>().ok()?.checked_sub(1)?;
            return match items.get(place)? {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    Some(expr.clone())
                }
                _ => None,
            };
        }
        items.iter().find_map(|item| match (item, key) {
            (SelectItem::ExprWithAlias { expr, alias }, Expr::Identifier(name))
                if alias.value.eq_ignore_ascii_case(&name.value)
                    && alias.quote_style == name.quote_style =>
            {
                Some(expr.clone())
            }
            _ => None,
        })
    };
    match &select.group_by {
        GroupByExpr::Expressions(keys, _) => keys
            .iter()
            .map(|key| selected(key).unwrap_or_else(|| key.clone()))
            .collect(),
        GroupByExpr::All(_) => Vec::new(),
    }
}

/// Every event once for each window over its own: `__hop` is how far back that starts.
fn hop(select: &mut Select, every_us: i64, size_us: i64) -> std::result::Result<(), ParserError> {
    let hops =
        (0..size_us / every_us).map(|hop| format!("(INTERVAL '{} microseconds')", hop * every_us));
    let hops = hops.collect::<Vec<_>>().join(", ");
    let (events, alias) = source(select);
    read_from(
        select,
        &format!("(SELECT * FROM {events} CROSS JOIN (VALUES {hops}) AS __hops(__hop)) AS {alias}"),
    )
}

/// Every event that passes the filter, with the number of its session among those of its keys.
fn tell_sessions(
    select: &mut Select,
    keys: &[Expr],
    gap_us: i64,
) -> std::result::Result<(), ParserError> {
    let (events, alias) = source(select);
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let order = format!("(PARTITION BY {} ORDER BY event_time)", keys.join(", "));
    let filter = select.selection.take();
    let filter = filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
    read_from(
        select,
        &format!(
            "(SELECT *, SUM(__first) OVER {order} AS __session FROM (
                SELECT *, CASE WHEN event_time < LAG(event_time) OVER {order} + \
             INTERVAL '{gap_us} microseconds' THEN 0 ELSE 1 END AS __first
                FROM {events}{filter}
            ) AS {alias}) AS {alias}"
        ),
    )
}

/// What the query reads, as it is written, and the name by which it speaks of that.
fn source(select: &Select) -> (String, String) {
    let relation = select.from.first().map(|from| &from.relation);
    let events = relation.map(ToString::to_string).unwrap_or_default();
    let alias = match relation {
        Some(TableFactor::Table {
            alias: Some(alias), ..
        }) => alias.name.to_string(),
        Some(TableFactor::Table { name, .. }) => name.to_string(),
        _ => String::new(),
    };
    (events, alias)
}

fn read_from(select: &mut Select, relation: &str) -> std::result::Result<(), ParserError> {
    let query = Parser::new(&Sql)
        .try_with_sql(&format!("SELECT 1 FROM {relation}"))?
        .parse_query()?;
    if let SetExpr::Select(other) = *query.body {
        select.from = other.from;
    }
    Ok(())
}

/// `date_bin`, not our own floor: the audit must not share a mistake with the meter.
fn window_start(window_us: i64) -> std::result::Result<Expr, ParserError> {
    parse(&format!(
        "date_bin(INTERVAL '{window_us} microseconds', event_time)"
    ))
}

fn parse(text: &str) -> std::result::Result<Expr, ParserError> {
    Parser::new(&Sql).try_with_sql(text)?.parse_expr()
}
