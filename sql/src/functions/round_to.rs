//! `round_to(x, digits, mode)`: x to so many digits after the point.
//!
//! The mode says which neighbour is taken: `half_away` and `half_even` take the nearer one, and from the
//! middle the one away from zero or the even one; `floor` is down and `ceil` up, below zero too. With digits
//! below zero it rounds before the point: `round_to(1250, -2, 'half_even')` is 1200.

use super::{
    call::{Constants, Kind, Model},
    error::FunctionError,
};
use crate::money::{Exact, Rounding, round_to};

/// To how many digits, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Digits after the point; below zero, before it.
    pub digits: i8,
    /// Which neighbour is taken.
    pub rounding: Rounding,
}

impl Place {
    /// Reads the digits and the mode, two arguments that follow each other.
    pub(super) fn read(constants: &Constants<'_>, digits: usize) -> Result<Self, FunctionError> {
        let name = constants.text(digits + 1)?;
        Ok(Self {
            digits: constants.whole(digits, -38..=27, "a whole number from -38 to 27")?,
            rounding: Rounding::parse(name).ok_or_else(|| {
                let wanted = "'half_away', 'half_even', 'floor' or 'ceil'";
                constants.refused(digits + 1, format!("'{name}'"), wanted)
            })?,
        })
    }

    /// Fraction digits of a result.
    pub(super) fn scale(self) -> u8 {
        u8::try_from(self.digits).unwrap_or(0)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RoundTo;

impl Model for RoundTo {
    const NAME: &'static str = "round_to";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("x", Kind::Number),
        ("digits", Kind::Whole),
        ("mode", Kind::Text),
    ];
    const REQUIRED: usize = 3;
    type Terms = Place;

    fn terms(&self, constants: &Constants<'_>) -> Result<Place, FunctionError> {
        Place::read(constants, 1)
    }

    fn scale(place: &Place, _: &[u8]) -> u8 {
        place.scale()
    }

    fn amount(place: &Place, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        round_to(numbers[0], place.digits, place.rounding).map_err(|source| FunctionError::Amount {
            function: Self::NAME,
            source,
        })
    }
}
