//! The exact aggregates that meters use.
//!
//! An aggregate belongs in [`METERED`] only if its result depends on nothing but the events: not on
//! their order, their split into batches, or the order in which states are merged. `count`, `min` and
//! `max` are DataFusion's, which are exact for every type a meter may aggregate; the others are ours,
//! because DataFusion's wrap, truncate, go through floats or depend on the order of rows.
//!
//! Each is a `Kind` (name, types, state columns) with an `Aggregate` (what a group keeps), and
//! `docs/meters.md` has its rule. Some need more than their arguments, the place of an event or its
//! window: a meter supplies that (`crate::meter`), anyone else writes it out. `tiers` is for prices alone.

use datafusion::{logical_expr::AggregateUDF, prelude::SessionContext};

mod active;
mod average;
mod distinct;
mod event_order;
pub(crate) mod fault;
mod fold;
mod latest;
mod percentile;
mod sum;
mod tier_list;
mod values;
pub(crate) mod weighted;
pub(crate) mod wide;

pub use sum::CheckedSum;

/// The SQL names of the aggregates that a meter may use.
pub const METERED: &[&str] = &[
    "sum",
    "count",
    "min",
    "max",
    "avg",
    "count_distinct",
    "first",
    "latest",
    "percentile",
    "percentile_cont",
    "median",
    "time_weighted_sum",
    "time_weighted_avg",
    "prorated_sum",
    "unique_count",
    "prorated_unique_count",
];

/// DataFusion's aggregates that give a plausible wrong number: they truncate decimals or integers,
/// or compute with floats.
const INEXACT: &[&str] = &["avg", "mean", "median", "percentile_cont", "quantile_cont"];

/// Registers the exact aggregates under their SQL names, in place of DataFusion's own, and takes
/// away those that would silently lose digits.
pub fn register(context: &SessionContext) {
    for name in INEXACT {
        context.deregister_udaf(name);
    }
    let exact = [
        AggregateUDF::from(CheckedSum::new()),
        udaf(average::Avg),
        udaf(distinct::CountDistinct),
        udaf(latest::End::First),
        udaf(latest::End::Latest),
        udaf(percentile::Percentile::Rank),
        udaf(percentile::Percentile::Line),
        udaf(percentile::Percentile::Median),
        udaf(weighted::Weighted::Seconds),
        udaf(weighted::Weighted::Level),
        udaf(weighted::Weighted::Days),
        udaf(active::Active::AtEnd),
        udaf(active::Active::Days),
        udaf(tier_list::TierList::Checked),
        udaf(tier_list::TierList::Fault),
    ];
    for aggregate in exact {
        context.register_udaf(aggregate);
    }
}

fn udaf(kind: impl fold::Kind) -> AggregateUDF {
    AggregateUDF::from(fold::Exact::new(kind))
}

/// How a state depends on the time that totals are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    /// `change, moment, from, until, whole`, in microseconds.
    Microseconds,
    /// The same in days.
    Days,
    /// Lists of operations, then `from, until, whole` in days.
    Operations,
}

/// How the states of an aggregate depend on the time that totals are asked for, if they do.
pub(crate) fn timed(name: &str) -> Option<Timed> {
    match name {
        "time_weighted_sum" | "time_weighted_avg" => Some(Timed::Microseconds),
        "prorated_sum" => Some(Timed::Days),
        "unique_count" | "prorated_unique_count" => Some(Timed::Operations),
        _ => None,
    }
}
