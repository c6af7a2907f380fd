//! What a plan's lines cost at most and at least.

use crate::{
    error::Result,
    functions::prorate::SHARE_DIGITS,
    money::{Currency, Exact, Money, Rounding, share},
};

/// The minimum and maximum of a plan for one billing period of a subscription, each for the days that it was active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// What the lines cost at least.
    pub minimum: Option<Exact>,
    /// What they cost at most.
    pub maximum: Option<Exact>,
}

/// A part of an amount for the days of a period that were active.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits; a period without days.
pub fn for_days(amount: Exact, active_days: i64, period_days: i64) -> Result<Exact> {
    let (part, whole) = (Exact::from(active_days), Exact::from(period_days));
    Ok(share(
        amount,
        part,
        whole,
        SHARE_DIGITS,
        Rounding::HalfAway,
    )?)
}

/// What the minimum adds to lines of this sum; zero when they cost as much.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn top_up(minimum: Exact, sum: Exact, currency: Currency) -> Result<Money> {
    let missing = minimum.checked_sub(sum)?.max(Exact::ZERO);
    Ok(Money::round(missing, currency)?)
}

/// What the maximum takes off lines of this sum, below zero or zero.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn cap(maximum: Exact, sum: Exact, currency: Currency) -> Result<Money> {
    let beyond = maximum.checked_sub(sum)?.min(Exact::ZERO);
    Ok(Money::round(beyond, currency)?)
}

/// The minimum of `minimum_less_fees`: what is left of it without the whole fee, for the days that were active. Usage alone counts
/// against it.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits; a period without days.
pub fn less_fees(
    minimum: Exact,
    whole_fee: Exact,
    active_days: i64,
    period_days: i64,
) -> Result<Exact> {
    let rest = minimum.checked_sub(whole_fee)?.max(Exact::ZERO);
    for_days(rest, active_days, period_days)
}
