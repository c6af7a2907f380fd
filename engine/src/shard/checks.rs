//! The checks of event types on a batch: which accepted events are refused, and why.

use crate::{
    error::{Result, query_error},
    metering::project,
};
use arrow::{
    array::{Array, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
};
use std::{collections::BTreeMap, sync::Arc};
use tollgate_sql::event_checks::EventChecks;

/// The rows of decoded events that fail a check, and the first that each fails. Only an accepted event
/// has a value in its type's struct, so no other is looked at.
pub(crate) fn refused(
    checks: &[Arc<EventChecks>],
    events: &RecordBatch,
) -> Result<BTreeMap<usize, String>> {
    let mut refused = BTreeMap::new();
    for checks in checks {
        let accepted = match events[checks.event_type()].nulls() {
            Some(nulls) => nulls.inner().clone(),
            None => BooleanBuffer::new_set(events.num_rows()),
        };
        if accepted.count_set_bits() == 0 {
            continue;
        }
        let rows: Vec<usize> = accepted.set_indices().collect();
        let of_type = project(events, checks.event_type(), checks.input_schema())
            .and_then(|columns| filter_record_batch(&columns, &BooleanArray::from(accepted)))
            .map_err(query_error("selecting the events of a type"))?;
        let failed = checks.refused(&of_type);
        refused.extend(failed.into_iter().map(|(row, reason)| (rows[row], reason)));
    }
    Ok(refused)
}
