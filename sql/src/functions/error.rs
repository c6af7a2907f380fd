//! Why a call of a pricing function cannot be answered.

use super::keys::KEYS;
use crate::money::{Exact, MoneyError};
use arrow::datatypes::DataType;
use datafusion::error::DataFusionError;

/// A call of a pricing function that cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionError {
    /// Too few or too many arguments.
    #[error("`{function}` takes {takes}, not {given} arguments")]
    Count {
        /// The function.
        function: &'static str,
        /// Its arguments, as they are written.
        takes: String,
        /// How many there were.
        given: usize,
    },
    /// An argument of the wrong type.
    #[error("`{function}`: `{argument}` is {given}, but must be {wanted}")]
    Type {
        /// The function.
        function: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Its type.
        given: DataType,
        /// What it may be.
        wanted: &'static str,
    },
    /// An argument that must be known when the query is planned, but is not.
    #[error("`{function}`: `{argument}` must be written in the query, as {wanted}")]
    Constant {
        /// The function.
        function: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What it may be.
        wanted: &'static str,
    },
    /// An argument outside its range.
    #[error("`{function}`: `{argument}` is {value}, but must be {wanted}")]
    Range {
        /// The function.
        function: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// Its value.
        value: Exact,
        /// Its range.
        wanted: &'static str,
    },
    /// A value that is none of those an argument may have.
    #[error("`{function}`: `{argument}` is {value}, but must be {wanted}")]
    Choice {
        /// The function.
        function: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What was written.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// Tiers that contradict each other or do not reach far enough.
    #[error("`{function}`: {source}")]
    Tiers {
        /// The function.
        function: &'static str,
        /// What is wrong with them.
        source: TierError,
    },
    /// An amount that does not fit.
    #[error("`{function}`: {source}")]
    Amount {
        /// The function.
        function: &'static str,
        /// Why.
        source: MoneyError,
    },
}

impl From<FunctionError> for DataFusionError {
    fn from(error: FunctionError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

/// Tiers that do not make sense, or do not reach far enough. Tiers are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// There is none.
    #[error("there is no tier")]
    Empty,
    /// A tier that ends where it begins, or before.
    #[error("tier {tier} ends at {up_to}, not above {previous}")]
    Order {
        /// The tier.
        tier: usize,
        /// Where the one before ends; 0 for the first.
        previous: Exact,
        /// Where it ends.
        up_to: Exact,
    },
    /// A tier after one without a limit.
    #[error("tier {tier} has no `up_to`, so no quantity reaches tier {}", tier + 1)]
    Unreachable {
        /// The tier without a limit.
        tier: usize,
    },
    /// A tier without a price.
    #[error("tier {tier} has neither `{price}` nor `flat_amount`")]
    NoPrice {
        /// The tier.
        tier: usize,
        /// The key of what a unit costs.
        price: &'static str,
    },
    /// A key that no tier has.
    #[error("tier {tier} has the key `{key}`; there are {}", KEYS.join(", "))]
    Key {
        /// The tier.
        tier: usize,
        /// The key.
        key: String,
    },
    /// A key of other functions' tiers.
    #[error("tier {tier} has `{key}`, which this function does not read; it reads {}", keys.join(", "))]
    Foreign {
        /// The tier.
        tier: usize,
        /// The key.
        key: &'static str,
        /// The keys that the function reads.
        keys: &'static [&'static str],
    },
    /// A tier without a key that it needs.
    #[error("tier {tier} has no `{key}`")]
    Missing {
        /// The tier.
        tier: usize,
        /// The key.
        key: &'static str,
    },
    /// A number outside its range.
    #[error("tier {tier}: `{key}` is {value}, but must be {wanted}")]
    Outside {
        /// The tier.
        tier: usize,
        /// The key.
        key: &'static str,
        /// What was written.
        value: Exact,
        /// Its range.
        wanted: &'static str,
    },
    /// A tier after one of blocks without a limit.
    #[error("tier {tier} has no `max_blocks`, so no quantity reaches tier {}", tier + 1)]
    NoLimit {
        /// The tier without a limit.
        tier: usize,
    },
    /// A key given twice.
    #[error("tier {tier} has the key `{key}` twice")]
    RepeatedKey {
        /// The tier.
        tier: usize,
        /// The key.
        key: String,
    },
    /// Something other than a number.
    #[error("tier {tier}: `{key}` is {value}, but must be an exact number or NULL")]
    Value {
        /// The tier.
        tier: usize,
        /// The key.
        key: String,
        /// What was written.
        value: String,
    },
    /// Numbers under one key that do not fit one DECIMAL together.
    #[error("the tiers' `{key}` need too many digits: {source}")]
    Digits {
        /// The key.
        key: &'static str,
        /// Why.
        source: MoneyError,
    },
    /// A quantity above the last tier.
    #[error("quantity {quantity} is above {up_to}, where the last tier ends (tier {tier})")]
    Above {
        /// The quantity.
        quantity: Exact,
        /// The last tier.
        tier: usize,
        /// Where it ends.
        up_to: Exact,
    },
}

impl From<TierError> for DataFusionError {
    fn from(error: TierError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}
