//! A meter's query as plain batch SQL, for audits: the whole of `events` through DataFusion's ordinary
//! planner, sharing nothing with the incremental path but the aggregates themselves; for distinct values not even
//! that.

use super::{calls, syntax};
use crate::{definitions::MeterDefinition, error::Result};
use datafusion::sql::sqlparser::{
    ast::{Expr, GroupByExpr, Ident, SelectItem, SetExpr, Statement},
    dialect::GenericDialect,
    parser::{Parser, ParserError},
};

/// The query with `window_start` as its first column and group key. It reads the event type by its
/// own name.
///
/// # Errors
/// Those of planning: a query that no meter can be made of.
pub(super) fn query(definition: &MeterDefinition) -> Result<String> {
    let mut statement = syntax::parse(definition)?;
    if let Statement::Query(query) = &mut statement
        && let SetExpr::Select(select) = query.body.as_mut()
        && let Ok(window) = window_start(definition.window_us)
    {
        let alias = Ident::new("window_start");
        let first = SelectItem::ExprWithAlias {
            expr: window.clone(),
            alias,
        };
        select.projection.insert(0, first);
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            keys.insert(0, window);
        }
    }
    calls::supply(&mut statement, definition.window_us);
    Ok(statement.to_string())
}

/// `date_bin`, not our own floor: the audit must not share a mistake with the meter.
fn window_start(window_us: i64) -> std::result::Result<Expr, ParserError> {
    let text = format!("date_bin(INTERVAL '{window_us} microseconds', event_time)");
    Parser::new(&GenericDialect {})
        .try_with_sql(&text)?
        .parse_expr()
}
