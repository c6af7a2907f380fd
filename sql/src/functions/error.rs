//! Why a call of a pricing function cannot be answered.

use super::tiers::TierError;
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
