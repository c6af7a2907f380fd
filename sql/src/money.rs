//! Exact numbers, money, and the only function that rounds.

/// An exact decimal, `digits / 10^scale`, of up to 38 digits: what a SQL DECIMAL holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exact {
    /// All digits, with the sign.
    pub digits: i128,
    /// How many of them are after the point.
    pub scale: u8,
}

/// An amount that cannot be represented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// Not an ISO 4217 code.
    #[error("currency `{0}` is not an ISO 4217 code")]
    Currency(String),
}
