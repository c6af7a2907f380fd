//! Tiers: bands of a quantity, each with its own price.
//!
//! In SQL they are a list, lowest first:
//!
//! ```sql
//! [{up_to: 1000, unit_amount: 0}, {up_to: NULL, unit_amount: 0.002, flat_amount: 1.50}]
//! ```
//!
//! A list is written in the query, or is made of the rows of a table by the aggregate [`LIST`].
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
use crate::money::{DIGITS_MAX, Exact, MoneyError};
use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, StructArray},
    datatypes::{DataType, Field, Fields},
};
use datafusion::common::{ScalarValue, utils::SingleRowListArrayBuilder};
use std::sync::Arc;

/// What a tier's price is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TierPrice {
    /// Units, by `unit_amount`.
    Unit,
    /// An amount, by `rate_percent`.
    Rate,
}

impl TierPrice {
    fn key(self) -> &'static str {
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
    fn of_rows(bands: &StructArray, price: TierPrice) -> Result<Self, TierError> {
        (0..bands.len())
            .map(|row| read_row(bands, row, price))
            .collect::<Result<_, _>>()
            .and_then(Self::new)
    }
}

/// The aggregate that makes a list of rows, and the one that says what is wrong with such a list.
pub(crate) const LIST: &str = "tiers";
/// See [`LIST`].
pub(crate) const LIST_FAULT: &str = "tiers_fault";

/// The key that says the place of a row among the tiers.
pub(crate) const TIER: &str = "tier";

/// What the rows of a table are, each of which is a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TierRows {
    /// Tiers of a quantity or an amount.
    Bands(TierPrice, Place),
    /// Tiers of blocks.
    Blocks,
}

/// By what rows follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `up_to`, NULL last.
    End,
    /// `tier`.
    Number,
}

impl TierRows {
    /// # Errors
    /// A key that no tier has, one that is no exact number, or blocks without a place.
    pub(crate) fn of(fields: &Fields) -> Result<Self, FunctionError> {
        let refused = |source| FunctionError::Tiers {
            function: LIST,
            source,
        };
        for field in fields {
            let name = field.name().as_str();
            if name != TIER && !KEYS.contains(&name) {
                return Err(refused(TierError::Key {
                    tier: 1,
                    key: name.to_owned(),
                }));
            }
            if !is_exact(field.data_type()) {
                return Err(FunctionError::Type {
                    function: LIST,
                    argument: KEYS.iter().find(|key| **key == name).unwrap_or(&TIER),
                    given: field.data_type().clone(),
                    wanted: Kind::Number.wanted(),
                });
            }
        }
        let has = |name: &str| fields.iter().any(|field| field.name() == name);
        let place = match has(TIER) {
            true => Place::Number,
            false => Place::End,
        };
        match (has("block_size"), has("rate_percent")) {
            (true, _) if place == Place::End => {
                Err(refused(TierError::Missing { tier: 1, key: TIER }))
            }
            (true, _) => Ok(TierRows::Blocks),
            (false, true) => Ok(TierRows::Bands(TierPrice::Rate, place)),
            (false, false) => Ok(TierRows::Bands(TierPrice::Unit, place)),
        }
    }

    /// The rows in their order.
    ///
    /// # Errors
    /// Two rows have one place, or one has none.
    pub(crate) fn order(self, rows: &StructArray) -> Result<Vec<u64>, FunctionError> {
        let refused = |source| FunctionError::Tiers {
            function: LIST,
            source,
        };
        let key = match self {
            TierRows::Bands(_, Place::End) => "up_to",
            TierRows::Bands(_, Place::Number) | TierRows::Blocks => TIER,
        };
        let mut places = Vec::with_capacity(rows.len());
        for (row, place) in (0..rows.len()).zip(0_u64..) {
            places.push((read_number(rows, row, key).map_err(refused)?, place));
        }
        // No end is beyond every end.
        places.sort_by_key(|(number, _)| (number.is_none(), *number));
        if key == TIER {
            for (tier, (number, _)) in (1..).zip(&places) {
                let value = number.ok_or_else(|| refused(TierError::Missing { tier, key }))?;
                if places
                    .get(tier)
                    .is_some_and(|(next, _)| *next == Some(value))
                {
                    return Err(refused(TierError::Outside {
                        tier,
                        key,
                        value,
                        wanted: "a number that no other tier has",
                    }));
                }
            }
        }
        Ok(places.into_iter().map(|(_, place)| place).collect())
    }

    /// Checks rows in their order as a literal list is checked.
    ///
    /// # Errors
    /// The first tier that does not fit.
    pub(crate) fn check(self, rows: &StructArray) -> Result<(), FunctionError> {
        let checked = match self {
            TierRows::Bands(price, _) => {
                check_prices(rows, price).and_then(|()| Tiers::of_rows(rows, price).map(drop))
            }
            TierRows::Blocks => super::blocks::check(rows),
        };
        checked.map_err(|source| FunctionError::Tiers {
            function: LIST,
            source,
        })
    }
}

/// Refuses a row without a price: beside a flat amount of zero a NULL would be a free tier.
fn check_prices(rows: &StructArray, price: TierPrice) -> Result<(), TierError> {
    let key = price.key();
    for row in (0..rows.len()).filter(|_| rows.column_by_name(key).is_some()) {
        let flat = read_number(rows, row, "flat_amount")?;
        if read_number(rows, row, key)?.is_none() && flat.is_none_or(Exact::is_zero) {
            let tier = row + 1;
            return Err(TierError::NoPrice { tier, price: key });
        }
    }
    Ok(())
}

/// Numbers that are counted exactly, or nothing at all.
pub(super) fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..) | DataType::Null)
}

/// A list of one tier whose numbers all are 1, in the types of a list that is known row by row: from it a call knows its
/// keys and digits when it is planned. `None` when it is no list of tiers.
pub(super) fn sample(list: &DataType) -> Option<ScalarValue> {
    let DataType::List(element) = list else {
        return None;
    };
    let DataType::Struct(fields) = element.data_type() else {
        return None;
    };
    let one = |data_type: &DataType| -> Option<ArrayRef> {
        match data_type {
            DataType::Decimal128(_, scale) => {
                let digits = 10_i128.checked_pow(u32::try_from(*scale).ok()?)?;
                let one = Decimal128Array::from(vec![digits]);
                let one = one.with_precision_and_scale(DIGITS_MAX, *scale).ok()?;
                Some(Arc::new(one))
            }
            other if is_exact(other) => Some(Arc::new(Int64Array::from(vec![1]))),
            _ => None,
        }
    };
    let columns = fields.iter().map(|field| {
        let column = one(field.data_type())?;
        let field = Field::new(field.name(), column.data_type().clone(), true);
        Some((Arc::new(field), column))
    });
    let columns: Vec<_> = columns.collect::<Option<_>>()?;
    let row = StructArray::from(columns);
    Some(SingleRowListArrayBuilder::new(Arc::new(row)).build_list_scalar())
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
