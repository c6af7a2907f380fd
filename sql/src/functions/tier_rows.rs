//! Rows of a table that are tiers: their place, their order, and whether they make a list.

use super::{
    blocks,
    call::Kind,
    error::{FunctionError, TierError},
    keys::{KEYS, is_exact},
    tiers::{TierPrice, Tiers, read_number},
};
use crate::money::Exact;
use arrow::{
    array::{Array, StructArray},
    datatypes::Fields,
};

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
            TierRows::Blocks => blocks::check(rows),
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
