//! The checks of event types on a batch: which accepted events are refused, and why.

use crate::{
    error::{Result, query_error},
    metering::relation,
};
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::event::EventBatch;
use tollgate_sql::event_checks::EventChecks;

/// The rows of decoded events that fail a check, and the first that each fails. Only an accepted event
/// has values of its type, so no other is looked at.
pub(crate) fn refused(
    checks: &[Arc<EventChecks>],
    events: &EventBatch,
) -> Result<BTreeMap<usize, String>> {
    let mut refused = BTreeMap::new();
    for checks in checks {
        let Some(rows) = events.of_type(checks.event_type()) else {
            continue;
        };
        let of_type = relation(events.head(), rows, checks.input_schema())
            .map_err(query_error("selecting the events of a type"))?;
        let failed = checks.refused(&of_type).into_iter();
        let places = rows.places();
        refused.extend(failed.map(|(row, reason)| (places[row] as usize, reason)));
    }
    Ok(refused)
}
