//! Why a call of a pricing function cannot be answered.

use super::keys::KEYS;
use crate::{
    money::{Exact, MoneyError},
    parser::suggest::nearest,
    schema::type_name,
};
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
    #[error("`{function}`: `{argument}` is {}, but must be {wanted}", type_name(.given))]
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

/// Names of other systems and of everyday speech, and the keys that are meant.
const MEANT: [(&str, &str); 22] = [
    ("unit_price", "unit_amount"),
    ("unit_cost", "unit_amount"),
    ("price_per_unit", "unit_amount"),
    ("price", "unit_amount"),
    ("amount", "unit_amount"),
    ("cost", "unit_amount"),
    ("unit", "unit_amount"),
    ("flat_fee", "flat_amount"),
    ("flat_price", "flat_amount"),
    ("flat", "flat_amount"),
    ("fee", "flat_amount"),
    ("fixed", "flat_amount"),
    ("fixed_amount", "flat_amount"),
    ("last_unit", "up_to"),
    ("limit", "up_to"),
    ("to", "up_to"),
    ("max", "up_to"),
    ("cap", "cap_amount"),
    ("maximum", "cap_amount"),
    ("rate", "rate_percent"),
    ("percent", "rate_percent"),
    ("percentage", "rate_percent"),
];

impl TierError {
    /// What to do about it.
    pub(crate) fn way_out(&self) -> String {
        const GUIDE: &str = "docs/sql.md says what a tier has";
        let hint = match self {
            Self::Key { key, .. } => {
                let meant = MEANT.iter().find(|(name, _)| name == key);
                let meant = meant
                    .map(|(_, meant)| *meant)
                    .or_else(|| nearest(key, &KEYS));
                return match meant {
                    Some(meant) => format!("did you mean `{meant}`? {GUIDE}"),
                    None => GUIDE.to_owned(),
                };
            }
            Self::Foreign { key, .. } => {
                let of = match *key {
                    "rate_percent" => "graduated_percentage",
                    "block_size" | "block_amount" | "max_blocks" => "blocks",
                    _ => "graduated",
                };
                return format!("remove it; `{of}` reads it");
            }
            Self::Empty => "write at least one tier: [{up_to: NULL, unit_amount: 0.01}]",
            Self::Order { .. } => {
                "list the tiers from the lowest `up_to` to the highest, the one without a limit last: each begins where the one before ends"
            }
            Self::Unreachable { .. } => "put it last, or give it an `up_to`",
            Self::NoLimit { .. } => "put it last, or give it `max_blocks`",
            Self::NoPrice { .. } => "give it one of the two: 0 is free",
            Self::RepeatedKey { .. } => "keep one of the two",
            Self::Missing { .. } => "add it: {block_size: 100, block_amount: 1.50}",
            Self::Digits { .. } => "write fewer digits after the point",
            Self::Above { .. } => {
                "end the list with a tier without a limit: {up_to: NULL, unit_amount: 0.01}"
            }
            Self::Value { .. } => {
                "write the number itself, without quotes: {up_to: 1000, unit_amount: 0.01}"
            }
            Self::Outside { .. } => GUIDE,
        };
        hint.to_owned()
    }
}

impl From<TierError> for DataFusionError {
    fn from(error: TierError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}
