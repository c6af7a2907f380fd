//! `divide(x, by, digits, mode)`: x / by, to so many digits after the point.
//!
//! The quotient is rounded once, as [`super::round_to`] rounds, from all its digits: `divide(2, 3, 2, 'floor')` is
//! 0.66. A `by` of zero is an error.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
    round_to::Place,
};
use crate::money::{Exact, divide};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Divide;

fn check_by(by: Exact) -> Result<(), FunctionError> {
    if !by.is_zero() {
        return Ok(());
    }
    Err(FunctionError::Range {
        function: Divide::NAME,
        argument: "by",
        value: by,
        wanted: "above or below 0",
    })
}

impl Model for Divide {
    const NAME: &'static str = "divide";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("x", Kind::Number),
        ("by", Kind::Number),
        ("digits", Kind::Whole),
        ("mode", Kind::Text),
    ];
    const REQUIRED: usize = 4;
    type Terms = Place;

    fn terms(&self, constants: &Constants<'_>) -> Result<Place, FunctionError> {
        constants.number(1).map_or(Ok(()), check_by)?;
        Place::read(constants, 2)
    }

    fn scale(place: &Place, _: &[u8]) -> u8 {
        place.scale()
    }

    fn amount(place: &Place, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        check_by(numbers[1])?;
        divide(numbers[0], numbers[1], place.digits, place.rounding).map_err(|source| {
            FunctionError::Amount {
                function: Self::NAME,
                source,
            }
        })
    }
}
