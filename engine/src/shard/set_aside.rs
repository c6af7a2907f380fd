//! What a flush set aside, told in the log: how many events, and for which reasons.

use crate::{error::printable, telemetry::Counts};
use arrow::array::{Array, AsArray, RecordBatch};
use std::{cmp::Reverse, collections::HashMap};
use tollgate_connectors::event::Status;

/// One in so many events that is set aside is worth a warning: a publisher's version or a definition is wrong then, and
/// not an event.
const WARNED_SHARE: u64 = 100;
/// Reasons that are told; the lake has all.
const SHOWN_REASONS: usize = 3;
/// Characters of a reason that are told.
const SHOWN_CHARACTERS: usize = 120;

/// Logs what these rows set aside; nothing when they are all counted.
pub(super) fn log<'r>(shard: &str, rows: impl Iterator<Item = &'r RecordBatch>, counts: &Counts) {
    let Counts {
        rejected,
        unmatched,
        conflicts,
        events,
        ..
    } = *counts;
    let set_aside = rejected + unmatched + conflicts;
    if set_aside == 0 {
        return;
    }
    let reasons = reasons(rows);
    let look = match conflicts == set_aside {
        true => "SELECT * FROM conflicts",
        false => {
            "SELECT status, reason, COUNT(*) FROM events WHERE status NOT IN ('ok', 'late') GROUP BY status, reason"
        }
    };
    if is_worth_a_warning(set_aside, events) {
        tracing::warn!(
            shard,
            rejected,
            unmatched,
            conflicts,
            events,
            reasons,
            look,
            "events were set aside, and are not counted"
        );
    } else {
        tracing::info!(
            shard,
            rejected,
            unmatched,
            conflicts,
            events,
            reasons,
            "events were set aside, and are not counted"
        );
    }
}

fn is_worth_a_warning(set_aside: u64, events: u64) -> bool {
    set_aside.saturating_mul(WARNED_SHARE) > events
}

/// The commonest reasons, with how many events have each: `412 rejected: field …; 3 unmatched: …`.
fn reasons<'r>(rows: impl Iterator<Item = &'r RecordBatch>) -> String {
    let mut counted: HashMap<(&str, &str), u64> = HashMap::new();
    for rows in rows {
        let (statuses, reasons) = (
            rows["status"].as_string::<i32>(),
            rows["reason"].as_string::<i32>(),
        );
        let with_reasons = (0..rows.num_rows()).filter(|row| reasons.is_valid(*row));
        for row in with_reasons {
            *counted
                .entry((statuses.value(row), reasons.value(row)))
                .or_default() += 1;
        }
    }
    let mut counted: Vec<_> = counted.into_iter().collect();
    counted.sort_unstable_by_key(|(reason, count)| (Reverse(*count), *reason));
    let others = counted.len().saturating_sub(SHOWN_REASONS);
    let shown = counted.iter().take(SHOWN_REASONS);
    let shown = shown.map(|((status, reason), count)| {
        let reason: String = printable(reason).chars().take(SHOWN_CHARACTERS).collect();
        match *status == Status::Conflict.as_str() {
            true => format!("{count} conflicts: {reason}"),
            false => format!("{count} {status}: {reason}"),
        }
    });
    let more = (others > 0).then(|| format!("{others} other reasons"));
    shown.chain(more).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};
    use std::sync::Arc;

    #[test]
    fn reasons_are_told_by_how_many_events_have_them() {
        let of = |all: Vec<(&str, Option<&str>)>| {
            let statuses: StringArray = all.iter().map(|(status, _)| Some(*status)).collect();
            let reasons: StringArray = all.iter().map(|(_, reason)| *reason).collect();
            let columns = [
                ("status", Arc::new(statuses) as ArrayRef),
                ("reason", Arc::new(reasons)),
            ];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let (n, kind) = (
            "field `n`: expected BIGINT",
            "no event type is defined for `\u{1b}[2J`",
        );
        let first = of(vec![
            ("ok", None),
            ("rejected", Some(n)),
            ("unmatched", Some(kind)),
            ("late", None),
        ]);
        let again = of(vec![
            ("rejected", Some(n)),
            ("conflict", Some("c")),
            ("rejected", Some("z")),
        ]);
        assert_eq!(
            reasons([first.clone(), again].iter()),
            "2 rejected: field `n`: expected BIGINT; 1 conflicts: c; 1 rejected: z; 1 other reasons"
        );
        assert_eq!(
            reasons([first].iter()),
            "1 rejected: field `n`: expected BIGINT; 1 unmatched: no event type is defined for `\\u{1b}[2J`"
        );
        assert_eq!(reasons([].iter()), "");
    }

    #[test]
    fn more_than_one_in_a_hundred_is_a_warning() {
        assert!(!is_worth_a_warning(1, 100));
        assert!(is_worth_a_warning(1, 99));
        assert!(is_worth_a_warning(2, 199));
        assert!(!is_worth_a_warning(2, 200));
    }
}
