//! The pricing functions, one file per price model.
//!
//! | SQL | an amount for |
//! |---|---|
//! | [`per_unit`]`(quantity, unit_amount [, free_units])` | every unit at one price |
//! | [`package`]`(quantity, package_size, package_amount [, free_units, partial_package])` | whole packages, begun ones included or not |
//! | [`blocks`]`(quantity, tiers, policy)` | tiers that are priced by blocks |
//! | [`graduated`]`(quantity, tiers [, zero_usage_first_flat])` | each unit at its own tier's price |
//! | [`volume`]`(quantity, tiers [, zero_usage_first_flat])` | all units at the price of the tier the total is in |
//! | [`percentage`]`(amount, rate_percent [, fixed_amount, free_amount, minimum, maximum])` | a percentage and a fixed part |
//! | [`graduated_percentage`]`(amount, tiers [, zero_usage_first_flat])` | each part of an amount at its own tier's rate |
//! | [`prorate`]`(amount, part, whole)` | the part's share |
//! | [`divide`]`(x, by, digits, mode)`, [`round_to`]`(x, digits, mode)` | a quotient or a number, rounded as it is said |
//! | [`round_money`]`(amount, currency)` | the amount as it would be printed |
//!
//! [`local_time`]`(instant, zone)` and [`arm`]`(key, salt, n)` are no amounts: a time of day for surge prices, and an arm of
//! a price experiment.
//!
//! What they share:
//!
//! * Arguments are integers or decimals; floats are refused when the query is planned. NULL in, NULL out.
//! * The result is DECIMAL(38, s), exact: s is the sum of the scales multiplied (at most
//!   [`SCALE_MAX`]), and a result that does not fit is an error. Nothing is divided or rounded, except
//!   where a package is begun, in `prorate`, `divide` and `round_to`, and in `round_money`.
//! * Tiers are a literal list, checked when the query is planned, or the rows of a table: see [`tiers`].
//! * A tiered or package price of a quantity below zero is that of zero; `per_unit` is linear, so its
//!   amount is then below zero too.
//!
//! A file holds the rule as a plain function over [`Exact`](crate::money::Exact) numbers; `call` makes SQL functions of them.

mod call;
mod error;
mod keys;
mod literal;
#[cfg(test)]
mod tests;
pub(crate) mod tier_rows;

pub mod arm;
pub mod blocks;
pub mod divide;
pub mod explain;
pub mod graduated;
pub mod graduated_percentage;
pub mod local_time;
pub mod package;
pub mod per_unit;
pub mod percentage;
pub mod prorate;
pub mod round_money;
pub mod round_to;
pub mod tiers;
pub mod volume;

pub use call::SCALE_MAX;
pub use error::FunctionError;
pub(crate) use error::TierError;
pub(crate) use keys::is_exact;

use crate::definitions::CurrencyDefinition;
use datafusion::{execution::SessionStateBuilder, prelude::SessionContext};
use std::sync::Arc;

/// Registers all of them under their SQL names, and the reading of tier lists.
///
/// The session parses decimals exactly, as [`session::context`](crate::session::context) sets it up;
/// otherwise a price such as `0.002` is a float, which every function refuses.
pub fn register(context: &SessionContext) {
    for function in [
        call::function(per_unit::PerUnit),
        call::function(package::Package),
        call::function(graduated::Graduated),
        call::function(volume::Volume),
        call::function(round_money::RoundMoney::default()),
        call::function(blocks::Blocks),
        call::function(percentage::Percentage),
        call::function(graduated_percentage::GraduatedPercentage),
        call::function(prorate::Prorate),
        call::function(divide::Divide),
        call::function(round_to::RoundTo),
        local_time::function(),
        arm::function(),
    ] {
        context.register_udf(function);
    }
    read_tiers_first(context);
}

/// Lets `round_money` round in these currencies too.
pub fn register_currencies(context: &SessionContext, currencies: &[CurrencyDefinition]) {
    let round_money = round_money::RoundMoney::with(currencies);
    context.register_udf(call::function(round_money));
}

/// Puts the reader of tier lists before the planners DataFusion has, since the first that takes an
/// array wins and theirs takes any.
fn read_tiers_first(context: &SessionContext) {
    let state = context.state_ref();
    let mut state = state.write();
    let mut planners = state.expr_planners().to_vec();
    planners.insert(0, Arc::new(literal::TierListPlanner));
    *state = SessionStateBuilder::new_from_existing(state.clone())
        .with_session_id(context.session_id())
        .with_expr_planners(planners)
        .build();
}
