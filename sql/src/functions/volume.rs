//! `volume(quantity, tiers [, zero_usage_first_flat])`: all units at the price of the tier that holds
//! the whole quantity.
//!
//! The tier is the first whose `up_to` is not below the quantity, so exactly `up_to` is still in it and
//! any fraction more is in the next. Its `flat_amount` is added once. A volume price is not monotonic: one
//! unit more can cost less in all. A quantity of zero or less costs nothing, or with
//! `zero_usage_first_flat` the first tier's flat amount. Never rounded. Called "volume" pricing elsewhere.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
    graduated::{TIERED_ARGUMENTS, TieredTerms},
    tiers::TierPrice,
};
use crate::money::Exact;

/// What `quantity` units cost, all at the price of the tier that holds it.
///
/// # Errors
/// [`FunctionError::Tiers`] above the last tier, [`FunctionError::Amount`] past 38 digits.
pub fn volume(quantity: Exact, terms: &TieredTerms) -> Result<Exact, FunctionError> {
    if quantity <= Exact::ZERO {
        return Ok(terms.without_usage());
    }
    let tier = terms.tiers.holding(quantity);
    let tier = tier.map_err(|source| FunctionError::Tiers {
        function: Volume::NAME,
        source,
    })?;
    tier.cost_of(quantity)
        .map_err(|source| FunctionError::Amount {
            function: Volume::NAME,
            source,
        })
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Volume;

impl Model for Volume {
    const NAME: &'static str = "volume";
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
        volume(numbers[0], terms)
    }
}
