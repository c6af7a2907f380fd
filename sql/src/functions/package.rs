//! `package(quantity, package_size, package_amount [, free_units, partial_package])`: whole packages; one that is
//! begun is paid whole, or with `'round_down'` not at all.
//!
//! The free units come off first; what is left, divided by the size and rounded up, is the number of
//! packages. 10 units in packages of 10 are one package, 10.001 are two, 0 or less are none. Rounded down, 19.999
//! are one. The amount
//! itself is not rounded. Called "package" pricing with partial packages rounded up elsewhere.

use super::{
    call::{Constants, Kind, Model, check_not_negative},
    error::FunctionError,
};
use crate::money::{Exact, MoneyError, Rounding, divide};

/// What a package holds and costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageTerms {
    /// Units in a package; above zero.
    pub size: Exact,
    /// What a package costs.
    pub amount: Exact,
    /// Units that cost nothing; not below zero.
    pub free_units: Exact,
    /// What becomes of one that is begun: up, it is paid whole; down, not at all.
    pub partial: Rounding,
}

/// What `quantity` units cost in packages.
///
/// # Errors
/// [`FunctionError::Range`] for a size of zero or less or free units below zero,
/// [`FunctionError::Amount`] past 38 digits.
pub fn package(quantity: Exact, terms: PackageTerms) -> Result<Exact, FunctionError> {
    check_size(terms.size)?;
    check_free_units(terms.free_units)?;
    let paid = quantity.checked_sub(terms.free_units).map_err(fail)?;
    if paid <= Exact::ZERO {
        return Ok(Exact::ZERO);
    }
    divide(paid, terms.size, 0, terms.partial)
        .and_then(|packages| packages.checked_mul(terms.amount))
        .map_err(fail)
}

/// How many packages of this size a quantity begins: `quantity / size`, rounded up.
pub(super) fn packages_begun(quantity: Exact, size: Exact) -> Result<Exact, MoneyError> {
    divide(quantity, size, 0, Rounding::Ceil)
}

fn check_size(size: Exact) -> Result<(), FunctionError> {
    if size > Exact::ZERO {
        return Ok(());
    }
    Err(FunctionError::Range {
        function: Package::NAME,
        argument: "package_size",
        value: size,
        wanted: "above 0",
    })
}

fn check_free_units(free_units: Exact) -> Result<(), FunctionError> {
    check_not_negative(Package::NAME, "free_units", free_units)
}

fn fail(source: MoneyError) -> FunctionError {
    FunctionError::Amount {
        function: Package::NAME,
        source,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Package;

impl Model for Package {
    const NAME: &'static str = "package";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("quantity", Kind::Number),
        ("package_size", Kind::Number),
        ("package_amount", Kind::Number),
        ("free_units", Kind::Number),
        ("partial_package", Kind::Text),
    ];
    const REQUIRED: usize = 3;
    type Terms = Rounding;

    /// Sizes written in the query are refused while it is planned, others when they are met.
    fn terms(&self, constants: &Constants<'_>) -> Result<Rounding, FunctionError> {
        constants.number(1).map_or(Ok(()), check_size)?;
        constants.number(3).map_or(Ok(()), check_free_units)?;
        if constants.required(4)?.is_none() {
            return Ok(Rounding::Ceil);
        }
        match constants.text(4)? {
            "round_up" => Ok(Rounding::Ceil),
            "round_down" => Ok(Rounding::Floor),
            other => Err(constants.refused(4, format!("'{other}'"), "'round_up' or 'round_down'")),
        }
    }

    fn scale(_: &Rounding, scales: &[u8]) -> u8 {
        scales[2]
    }

    fn amount(partial: &Rounding, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        let terms = PackageTerms {
            size: numbers[1],
            amount: numbers[2],
            free_units: numbers.get(3).copied().unwrap_or(Exact::ZERO),
            partial: *partial,
        };
        package(numbers[0], terms)
    }
}
