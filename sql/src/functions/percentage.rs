//! `percentage(amount, rate_percent [, fixed_amount, free_amount, minimum, maximum])`: a percentage of an amount
//! and a fixed part, as card payments are sold.
//!
//! A `rate_percent` of 1.5 is 1.5 %. `free_amount` comes off first; an amount that it covers costs nothing at all,
//! neither the fixed part nor the minimum. What is left costs its percentage plus `fixed_amount`, then at most
//! `maximum` and at least `minimum`. Without a free part an amount of zero costs the fixed part, and one below zero
//! gives back its percentage, less the fixed part, unless a minimum is given, which leaves no credit. Never rounded.

use super::{
    call::{Constants, Kind, Model, check_not_negative},
    error::FunctionError,
    tiers::hundredth,
};
use crate::money::{Exact, MoneyError};

/// What a percentage is of, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentageTerms {
    /// In percent.
    pub rate_percent: Exact,
    /// Added once.
    pub fixed_amount: Exact,
    /// What costs nothing; not below zero.
    pub free_amount: Exact,
    /// The least that an amount costs, if there is a least.
    pub minimum: Option<Exact>,
    /// The most that it costs, if there is a most; not below the least.
    pub maximum: Option<Exact>,
}

/// What an amount costs.
///
/// # Errors
/// [`FunctionError::Range`] for a free part below zero or a maximum below the minimum,
/// [`FunctionError::Amount`] past 38 digits.
pub fn percentage(amount: Exact, terms: PercentageTerms) -> Result<Exact, FunctionError> {
    let free = terms.free_amount;
    check_not_negative(Percentage::NAME, "free_amount", free)?;
    if let (Some(minimum), Some(maximum)) = (terms.minimum, terms.maximum)
        && maximum < minimum
    {
        return Err(FunctionError::Range {
            function: Percentage::NAME,
            argument: "maximum",
            value: maximum,
            wanted: "`minimum` or more",
        });
    }
    if free > Exact::ZERO && amount <= free {
        return Ok(Exact::ZERO);
    }
    let cost = cost_of(amount, terms).map_err(|source| FunctionError::Amount {
        function: Percentage::NAME,
        source,
    })?;
    let capped = terms.maximum.map_or(cost, |maximum| cost.min(maximum));
    Ok(terms.minimum.map_or(capped, |minimum| capped.max(minimum)))
}

fn cost_of(amount: Exact, terms: PercentageTerms) -> Result<Exact, MoneyError> {
    amount
        .checked_sub(terms.free_amount)?
        .checked_mul(hundredth(terms.rate_percent)?)?
        .checked_add(terms.fixed_amount)
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Percentage;

impl Model for Percentage {
    const NAME: &'static str = "percentage";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("amount", Kind::Number),
        ("rate_percent", Kind::Number),
        ("fixed_amount", Kind::Number),
        ("free_amount", Kind::Number),
        ("minimum", Kind::Number),
        ("maximum", Kind::Number),
    ];
    const REQUIRED: usize = 2;
    type Terms = ();

    fn terms(&self, _: &Constants<'_>) -> Result<(), FunctionError> {
        Ok(())
    }

    fn scale((): &(), scales: &[u8]) -> u8 {
        let free = scales.get(3).copied().unwrap_or(0);
        let product = scales[0]
            .max(free)
            .saturating_add(scales[1])
            .saturating_add(2);
        let others = [2, 4, 5].map(|index: usize| scales.get(index).copied().unwrap_or(0));
        others.into_iter().fold(product, u8::max)
    }

    fn amount((): &(), numbers: &[Exact]) -> Result<Exact, FunctionError> {
        let number = |index: usize| numbers.get(index).copied();
        let terms = PercentageTerms {
            rate_percent: numbers[1],
            fixed_amount: number(2).unwrap_or(Exact::ZERO),
            free_amount: number(3).unwrap_or(Exact::ZERO),
            minimum: number(4),
            maximum: number(5),
        };
        percentage(numbers[0], terms)
    }
}
