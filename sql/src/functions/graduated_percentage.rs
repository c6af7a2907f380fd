//! `graduated_percentage(amount, tiers [, zero_usage_first_flat])`: each part of an amount at its own tier's rate.
//!
//! The rule is that of [`super::graduated`], with `rate_percent` in place of `unit_amount`: a rate of 1.5 is 1.5 % of the
//! part of the amount that lies in the tier. Never rounded.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
    graduated::{TieredTerms, graduated_as},
    tiers::TierPrice,
};
use crate::money::Exact;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct GraduatedPercentage;

impl Model for GraduatedPercentage {
    const NAME: &'static str = "graduated_percentage";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("amount", Kind::Number),
        ("tiers", Kind::Rates),
        ("zero_usage_first_flat", Kind::Flag),
    ];
    const REQUIRED: usize = 2;
    type Terms = TieredTerms;

    fn terms(&self, constants: &Constants<'_>) -> Result<TieredTerms, FunctionError> {
        TieredTerms::read(Self::NAME, TierPrice::Rate, constants)
    }

    fn scale(terms: &TieredTerms, scales: &[u8]) -> u8 {
        terms.tiers.amount_scale(scales[0])
    }

    fn amount(terms: &TieredTerms, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        graduated_as(Self::NAME, numbers[0], terms)
    }
}
