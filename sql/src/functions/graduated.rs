//! `graduated(quantity, tiers [, zero_usage_first_flat])`: each unit at its own tier's price.
//!
//! The units in a tier are those above the end of the tier before and not above its own `up_to`, so 199.5
//! units in tiers up to 100 and up to 200 are 100 and 99.5. A tier is reached when any part of the
//! quantity lies in it; each tier reached adds its `flat_amount` once. A quantity of zero or less reaches
//! none and costs nothing; with `zero_usage_first_flat` it costs the first tier's flat amount, as some
//! vendors (Lago, OpenMeter) have it. A tier's `cap_amount` is the most that it adds. Never rounded. Called "graduated" or "tiered" pricing elsewhere.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
    tiers::{Tier, TierPrice, Tiers},
};
use crate::money::{Exact, MoneyError};
use datafusion::common::ScalarValue;

/// Tiers, and what they cost without usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TieredTerms {
    /// The tiers.
    pub tiers: Tiers,
    /// Whether the first tier's flat amount is due at a quantity of zero.
    pub zero_usage_first_flat: bool,
}

impl TieredTerms {
    /// What a quantity of zero or less costs.
    pub(super) fn without_usage(&self) -> Exact {
        if self.zero_usage_first_flat {
            self.tiers.first_flat()
        } else {
            Exact::ZERO
        }
    }

    /// Reads `tiers` and the flag, the second and third argument of a tiered function.
    pub(super) fn read(
        function: &'static str,
        price: TierPrice,
        constants: &Constants<'_>,
    ) -> Result<Self, FunctionError> {
        Ok(Self {
            tiers: Tiers::read(function, price, constants.required(1)?)?,
            zero_usage_first_flat: matches!(
                constants.required(2)?,
                Some(ScalarValue::Boolean(Some(true)))
            ),
        })
    }
}

/// The arguments of a tiered function.
pub(super) const TIERED_ARGUMENTS: &[(&str, Kind)] = &[
    ("quantity", Kind::Number),
    ("tiers", Kind::Tiers),
    ("zero_usage_first_flat", Kind::Flag),
];

/// What `quantity` units cost, each at its own tier's price.
///
/// # Errors
/// [`FunctionError::Tiers`] above the last tier, [`FunctionError::Amount`] past 38 digits.
pub fn graduated(quantity: Exact, terms: &TieredTerms) -> Result<Exact, FunctionError> {
    graduated_as(Graduated::NAME, quantity, terms)
}

/// The same, for the function that its errors name.
pub(super) fn graduated_as(
    function: &'static str,
    quantity: Exact,
    terms: &TieredTerms,
) -> Result<Exact, FunctionError> {
    if quantity <= Exact::ZERO {
        return Ok(terms.without_usage());
    }
    let tier = terms.tiers.holding(quantity);
    tier.map_err(|source| FunctionError::Tiers { function, source })?;
    sum_of_tiers(quantity, terms.tiers.as_slice())
        .map_err(|source| FunctionError::Amount { function, source })
}

fn sum_of_tiers(quantity: Exact, tiers: &[Tier]) -> Result<Exact, MoneyError> {
    let (mut total, mut from) = (Exact::ZERO, Exact::ZERO);
    for tier in tiers {
        if quantity <= from {
            break;
        }
        let to = tier.up_to.map_or(quantity, |up_to| up_to.min(quantity));
        total = total.checked_add(tier.cost_of(to.checked_sub(from)?)?)?;
        from = to;
    }
    Ok(total)
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Graduated;

impl Model for Graduated {
    const NAME: &'static str = "graduated";
    const ARGUMENTS: &'static [(&'static str, Kind)] = TIERED_ARGUMENTS;
    const REQUIRED: usize = 2;
    type Terms = TieredTerms;

    fn terms(&self, constants: &Constants<'_>) -> Result<TieredTerms, FunctionError> {
        TieredTerms::read(Self::NAME, TierPrice::Unit, constants)
    }

    fn scale(terms: &TieredTerms, scales: &[u8]) -> u8 {
        terms.tiers.amount_scale(scales[0])
    }

    fn amount(terms: &TieredTerms, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        graduated(numbers[0], terms)
    }
}
