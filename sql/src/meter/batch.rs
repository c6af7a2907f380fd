//! A meter's query as plain batch SQL, for audits: the whole of `events` through DataFusion's ordinary
//! planner, sharing nothing with the incremental path but the aggregates themselves; for distinct values not even
//! that.

use super::{calls, syntax};
use crate::{
    definitions::MeterDefinition,
    error::{Error, Result},
};
use arrow::datatypes::Schema;
use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{
        ast::{BinaryOperator, Expr, GroupByExpr, Ident, Select, SelectItem, SetExpr, Statement},
        dialect::GenericDialect,
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
    let window = window_start(definition.window_us)?;
    let first = SelectItem::ExprWithAlias {
        expr: window.clone(),
        alias: Ident::new("window_start"),
    };
    select.projection.insert(0, first);
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        keys.insert(0, window);
    }
    let from = definition.effective_from_us.map(|from_us| (">=", from_us));
    for (compared, us) in from.into_iter().chain(until_us.map(|us| ("<", us))) {
        let bound = parse(&format!("event_time {compared} to_timestamp_micros({us})"))?;
        let bounded = match select.selection.take() {
            None => bound,
            Some(filter) => Expr::BinaryOp {
                left: Box::new(Expr::Nested(Box::new(filter))),
                op: BinaryOperator::And,
                right: Box::new(bound),
            },
        };
        select.selection = Some(bounded);
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
    Parser::new(&GenericDialect {})
        .try_with_sql(text)?
        .parse_expr()
}
