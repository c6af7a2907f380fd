//! Tiers: bands of a quantity, each with its own price.
//!
//! In SQL they are a list, lowest first:
//!
//! ```sql
//! [{up_to: 1000, unit_amount: 0}, {up_to: NULL, unit_amount: 0.002, flat_amount: 1.50}]
//! ```
//!
//! A list is written in the query, or is made of the rows of a table by the aggregate `tiers`.
//!
//! * `up_to` is inclusive: unit 1000 belongs to the first tier, and so does 999.5; 1000.5 has half a unit
//!   in the second. A tier begins where the one before ends, so no fraction of a unit is lost. NULL, or
//!   no `up_to`, means no limit, and is for the last tier only.
//! * `unit_amount` is the price of one unit, `flat_amount` is added once; either may be left out (0), not
//!   both. They may be negative. `rate_percent` is in place of `unit_amount` where a tier is of an amount.
//! * `cap_amount` is the most that the tier costs, its flat amount included; none means no limit.
//! * When the last tier has a limit, a quantity above it is an error: nothing says what it costs.

use super::{
    call::Kind,
    error::{FunctionError, TierError},
    keys::KEYS,
};
use crate::money::{Exact, MoneyError};
use arrow::array::{Array, AsArray, StructArray};
use datafusion::common::ScalarValue;

/// What a tier's price is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TierPrice {
    /// Units, by `unit_amount`.
    Unit,
    /// An amount, by `rate_percent`.
    Rate,
}

impl TierPrice {
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Unit => "unit_amount",
            Self::Rate => "rate_percent",
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &["up_to", "unit_amount", "flat_amount", "cap_amount"],
            Self::Rate => &["up_to", "rate_percent", "flat_amount", "cap_amount"],
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Unit => Kind::Tiers.wanted(),
            Self::Rate => Kind::Rates.wanted(),
        }
    }
}

/// One band of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The last quantity in it, inclusive; `None` means no limit.
    pub up_to: Option<Exact>,
    /// What one unit costs.
    pub unit_amount: Exact,
    /// Added once.
    pub flat_amount: Exact,
    /// The most it costs, its flat amount included; `None` means no limit.
    pub cap_amount: Option<Exact>,
}

impl Tier {
    /// What units of this tier cost.
    pub(super) fn cost_of(&self, units: Exact) -> Result<Exact, MoneyError> {
        let cost = units
            .checked_mul(self.unit_amount)?
            .checked_add(self.flat_amount)?;
        Ok(self.cap_amount.map_or(cost, |cap| cost.min(cap)))
    }

    /// What it costs to be in it with no units.
    fn flat(&self) -> Exact {
        let cap = self.cap_amount;
        cap.map_or(self.flat_amount, |cap| self.flat_amount.min(cap))
    }
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
        self.0.first().map_or(Exact::ZERO, Tier::flat)
    }

    /// Fraction digits that a quantity of `scale` times a unit amount, and a flat amount, need.
    pub(super) fn amount_scale(&self, quantity_scale: u8) -> u8 {
        let widest = |number: fn(&Tier) -> u8| self.0.iter().map(number).max().unwrap_or(0);
        let quantity = quantity_scale.max(widest(|tier| tier.up_to.map_or(0, |n| n.scale)));
        let product = quantity.saturating_add(widest(|tier| tier.unit_amount.scale));
        let flat = widest(|tier| tier.flat_amount.scale);
        let cap = widest(|tier| tier.cap_amount.map_or(0, |cap| cap.scale));
        product.max(flat).max(cap)
    }

    /// Reads the constant that a tier list becomes when a query is planned.
    pub(super) fn read(
        function: &'static str,
        price: TierPrice,
        list: Option<&ScalarValue>,
    ) -> Result<Self, FunctionError> {
        let bands = list.and_then(structs).ok_or(FunctionError::Constant {
            function,
            argument: "tiers",
            wanted: price.wanted(),
        })?;
        Self::of_rows(&bands, price).map_err(|source| FunctionError::Tiers { function, source })
    }

    /// Reads and checks tiers in their order.
    pub(super) fn of_rows(bands: &StructArray, price: TierPrice) -> Result<Self, TierError> {
        (0..bands.len())
            .map(|row| read_row(bands, row, price))
            .collect::<Result<_, _>>()
            .and_then(Self::new)
    }
}

/// The structs in a constant list, if it is one.
pub(super) fn structs(list: &ScalarValue) -> Option<StructArray> {
    match list {
        ScalarValue::List(list) if list.len() == 1 => list.value(0).as_struct_opt().cloned(),
        _ => None,
    }
}

fn read_row(bands: &StructArray, row: usize, price: TierPrice) -> Result<Tier, TierError> {
    let tier = row + 1;
    check_keys(bands, row, price.keys())?;
    let key = price.key();
    let number = |key| read_number(bands, row, key);
    let (unit, flat_amount) = (number(key)?, number("flat_amount")?);
    if unit.is_none() && flat_amount.is_none() {
        return Err(TierError::NoPrice { tier, price: key });
    }
    let unit = unit.unwrap_or(Exact::ZERO);
    Ok(Tier {
        up_to: number("up_to")?,
        unit_amount: match price {
            TierPrice::Unit => unit,
            TierPrice::Rate => {
                hundredth(unit).map_err(|source| TierError::Digits { key, source })?
            }
        },
        flat_amount: flat_amount.unwrap_or(Exact::ZERO),
        cap_amount: number("cap_amount")?,
    })
}

/// The number under a key, if the tier has one.
pub(super) fn read_number(
    rows: &StructArray,
    row: usize,
    key: &'static str,
) -> Result<Option<Exact>, TierError> {
    match rows.column_by_name(key) {
        None => Ok(None),
        Some(column) => {
            Exact::from_array(column, row).map_err(|source| TierError::Digits { key, source })
        }
    }
}

/// Refuses a tier that has a value under a key of another kind of tiers.
pub(super) fn check_keys(
    rows: &StructArray,
    row: usize,
    keys: &'static [&'static str],
) -> Result<(), TierError> {
    let has = |key: &&str| {
        rows.column_by_name(key)
            .is_some_and(|column| !column.is_null(row))
    };
    let foreign = KEYS.into_iter().find(|key| !keys.contains(key) && has(key));
    match foreign {
        Some(key) => Err(TierError::Foreign {
            tier: row + 1,
            key,
            keys,
        }),
        None => Ok(()),
    }
}

/// A hundredth: a rate of 1.5 % is 0.015.
pub(super) fn hundredth(percent: Exact) -> Result<Exact, MoneyError> {
    percent.checked_mul(Exact {
        digits: 1,
        scale: 2,
    })
}
