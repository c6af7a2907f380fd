//! The exact aggregates that meters use.
//!
//! `sum` is ours, because DataFusion's wraps silently; `count`, `min` and `max` are DataFusion's,
//! which are exact for every type a meter may aggregate. An aggregate belongs in [`METERED`] only if
//! its result depends on nothing but the events: not on their order, their split into batches, or
//! the order in which states are merged.
//!
//! Each further aggregate (count of distinct values, average, first, latest, time-weighted sum,
//! percentile) is one file here, one `AggregateUDFImpl` with its own state columns, one line in
//! [`register`] and one in [`METERED`].

use datafusion::{logical_expr::AggregateUDF, prelude::SessionContext};

mod sum;

pub use sum::CheckedSum;

/// The SQL names of the aggregates that a meter may use.
pub const METERED: &[&str] = &["sum", "count", "min", "max"];

/// DataFusion's aggregates that give a plausible wrong number: they truncate decimals or integers.
const INEXACT: &[&str] = &["avg", "mean", "median"];

/// Registers the exact aggregates under their SQL names, in place of DataFusion's own, and takes
/// away those that would silently lose digits.
pub fn register(context: &SessionContext) {
    for name in INEXACT {
        context.deregister_udaf(name);
    }
    context.register_udaf(AggregateUDF::from(CheckedSum::new()));
}
