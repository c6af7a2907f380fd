//! Tiers: bands of a quantity, each with its own price.
//!
//! In SQL they are a list, lowest first:
//!
//! ```sql
//! [{up_to: 1000, unit_amount: 0}, {up_to: NULL, unit_amount: 0.002, flat_amount: 1.50}]
//! ```
//!
//! * `up_to` is inclusive: unit 1000 belongs to the first tier, and so does 999.5; 1000.5 has half a unit
//!   in the second. A tier begins where the one before ends, so no fraction of a unit is lost. NULL, or
//!   no `up_to`, means no limit, and is for the last tier only.
//! * `unit_amount` is the price of one unit, `flat_amount` is added once; either may be left out (0), not
//!   both. They may be negative.
//! * When the last tier has a limit, a quantity above it is an error: nothing says what it costs.

use super::error::{FunctionError, TierError};
use crate::money::Exact;
use arrow::array::{Array, AsArray, StructArray};
use datafusion::common::ScalarValue;

/// The keys of a tier.
pub(super) const KEYS: [&str; 3] = ["up_to", "unit_amount", "flat_amount"];

/// One band of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The last quantity in it, inclusive; `None` means no limit.
    pub up_to: Option<Exact>,
    /// What one unit costs.
    pub unit_amount: Exact,
    /// Added once.
    pub flat_amount: Exact,
}

/// Tiers that follow each other, from zero up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers(Vec<Tier>);

impl Tiers {
    /// Checks that the tiers follow each other.
    ///
    /// # Errors
    /// `TierError` names the first tier that does not fit.
    pub fn new(tiers: Vec<Tier>) -> Result<Self, TierError> {
        if tiers.is_empty() {
            return Err(TierError::Empty);
        }
        let mut previous = Exact::ZERO;
        for (tier, band) in (1..).zip(&tiers) {
            match band.up_to {
                Some(up_to) if up_to <= previous => {
                    return Err(TierError::Order {
                        tier,
                        previous,
                        up_to,
                    });
                }
                Some(up_to) => previous = up_to,
                None if tier < tiers.len() => return Err(TierError::Unreachable { tier }),
                None => {}
            }
        }
        Ok(Self(tiers))
    }

    /// The tiers, lowest first; there is at least one.
    pub fn as_slice(&self) -> &[Tier] {
        &self.0
    }

    /// The tier that holds this quantity: the first whose `up_to` is not below it.
    ///
    /// # Errors
    /// `TierError::Above` when the last tier has a limit below it.
    pub fn holding(&self, quantity: Exact) -> Result<&Tier, TierError> {
        let holds = |tier: &&Tier| tier.up_to.is_none_or(|up_to| quantity <= up_to);
        let last = self.0.last().and_then(|tier| tier.up_to);
        self.0.iter().find(holds).ok_or(TierError::Above {
            quantity,
            tier: self.0.len(),
            up_to: last.unwrap_or(Exact::ZERO),
        })
    }

    /// The first tier's flat amount, which some sell as due without any usage.
    pub(super) fn first_flat(&self) -> Exact {
        self.0.first().map_or(Exact::ZERO, |tier| tier.flat_amount)
    }

    /// Fraction digits that a quantity of `scale` times a unit amount, and a flat amount, need.
    pub(super) fn amount_scale(&self, quantity_scale: u8) -> u8 {
        let widest = |number: fn(&Tier) -> u8| self.0.iter().map(number).max().unwrap_or(0);
        let quantity = quantity_scale.max(widest(|tier| tier.up_to.map_or(0, |n| n.scale)));
        let product = quantity.saturating_add(widest(|tier| tier.unit_amount.scale));
        product.max(widest(|tier| tier.flat_amount.scale))
    }

    /// Reads the constant that a tier list becomes when a query is planned.
    pub(super) fn read(
        function: &'static str,
        list: Option<&ScalarValue>,
    ) -> Result<Self, FunctionError> {
        let bands = list.and_then(structs).ok_or(FunctionError::Constant {
            function,
            argument: "tiers",
            wanted: "[{up_to: 1000, unit_amount: 0.01}, {up_to: NULL, unit_amount: 0.005}]",
        })?;
        (0..bands.len())
            .map(|row| read_row(&bands, row))
            .collect::<Result<_, _>>()
            .and_then(Self::new)
            .map_err(|source| FunctionError::Tiers { function, source })
    }
}

/// The structs in a constant list, if it is one.
fn structs(list: &ScalarValue) -> Option<StructArray> {
    match list {
        ScalarValue::List(list) if list.len() == 1 => list.value(0).as_struct_opt().cloned(),
        _ => None,
    }
}

fn read_row(bands: &StructArray, row: usize) -> Result<Tier, TierError> {
    let tier = row + 1;
    let number = |key: &'static str| match bands.column_by_name(key) {
        None => Ok(None),
        Some(column) => {
            Exact::from_array(column, row).map_err(|source| TierError::Digits { key, source })
        }
    };
    let (unit_amount, flat_amount) = (number("unit_amount")?, number("flat_amount")?);
    if unit_amount.is_none() && flat_amount.is_none() {
        return Err(TierError::NoPrice { tier });
    }
    Ok(Tier {
        up_to: number("up_to")?,
        unit_amount: unit_amount.unwrap_or(Exact::ZERO),
        flat_amount: flat_amount.unwrap_or(Exact::ZERO),
    })
}
