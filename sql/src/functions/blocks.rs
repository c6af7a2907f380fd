//! `blocks(quantity, tiers, policy)`: tiers that are priced by blocks, a begun one whole.
//!
//! ```sql
//! blocks(quantity, [{block_size: 100, block_amount: 1.50, max_blocks: 10}, {block_size: 1000, block_amount: 8}], 'ALL_TIERS')
//! ```
//!
//! A tier holds `max_blocks` blocks of `block_size` units; the quantity fills the tiers from the first on, and
//! exactly full is still in the tier. `ALL_TIERS`: each tier's blocks at their own price; a quantity that the
//! tiers do not hold is an error. `TOP_TIER`: the whole quantity in blocks of the tier that its last unit is in,
//! and above the last tier of the last. A quantity of zero or less costs nothing. Never rounded.

use super::{
    call::{Constants, Kind, Model},
    error::{FunctionError, TierError},
    package::packages_begun,
    tiers::{read_number, structs},
};
use crate::money::{Exact, MoneyError};
use arrow::array::{Array, StructArray};
use datafusion::common::ScalarValue;

/// The keys of a tier of blocks.
pub(super) const BLOCK_KEYS: [&str; 3] = ["block_size", "block_amount", "max_blocks"];

/// Which tiers price a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each block its own.
    AllTiers,
    /// All blocks that of the last unit.
    TopTier,
}

/// One tier of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockTier {
    /// Units in a block.
    pub size: Exact,
    /// What a block costs.
    pub amount: Exact,
    /// How many blocks it holds; `None` means no limit.
    pub max_blocks: Option<Exact>,
}

/// Tiers of blocks, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTerms {
    tiers: Vec<BlockTier>,
    policy: Policy,
}

impl BlockTerms {
    /// Checks the tiers.
    ///
    /// # Errors
    /// `TierError` names the first tier that does not fit.
    pub fn new(tiers: Vec<BlockTier>, policy: Policy) -> Result<Self, TierError> {
        if tiers.is_empty() {
            return Err(TierError::Empty);
        }
        for (tier, block) in (1..).zip(&tiers) {
            let outside = |key, value, wanted| TierError::Outside {
                tier,
                key,
                value,
                wanted,
            };
            if block.size <= Exact::ZERO {
                return Err(outside("block_size", block.size, "above 0"));
            }
            match block.max_blocks {
                Some(most) if most <= Exact::ZERO || most.without_trailing_zeros().scale > 0 => {
                    return Err(outside("max_blocks", most, "a whole number above 0"));
                }
                None if tier < tiers.len() => return Err(TierError::NoLimit { tier }),
                Some(_) | None => {}
            }
        }
        Ok(Self { tiers, policy })
    }
}

/// What `quantity` units cost in blocks.
///
/// # Errors
/// [`FunctionError::Tiers`] for a quantity that all tiers together do not hold, [`FunctionError::Amount`] past 38
/// digits.
pub fn blocks(quantity: Exact, terms: &BlockTerms) -> Result<Exact, FunctionError> {
    if quantity <= Exact::ZERO {
        return Ok(Exact::ZERO);
    }
    let (mut left, mut total) = (quantity, Exact::ZERO);
    for tier in &terms.tiers {
        let begun = packages_begun(left, tier.size).map_err(fail)?;
        let Some(most) = tier.max_blocks.filter(|most| begun > *most) else {
            return match terms.policy {
                Policy::AllTiers => tier.cost_of(begun).and_then(|last| total.checked_add(last)),
                Policy::TopTier => tier.cost_of_units(quantity),
            }
            .map_err(fail);
        };
        total = tier
            .cost_of(most)
            .and_then(|full| total.checked_add(full))
            .map_err(fail)?;
        let held = most.checked_mul(tier.size);
        left = held.and_then(|held| left.checked_sub(held)).map_err(fail)?;
    }
    match (terms.policy, terms.tiers.last()) {
        (Policy::TopTier, Some(last)) => last.cost_of_units(quantity).map_err(fail),
        _ => Err(FunctionError::Tiers {
            function: Blocks::NAME,
            source: TierError::Above {
                quantity,
                tier: terms.tiers.len(),
                up_to: quantity.checked_sub(left).map_err(fail)?,
            },
        }),
    }
}

impl BlockTier {
    fn cost_of(&self, blocks: Exact) -> Result<Exact, MoneyError> {
        blocks.checked_mul(self.amount)
    }

    fn cost_of_units(&self, quantity: Exact) -> Result<Exact, MoneyError> {
        self.cost_of(packages_begun(quantity, self.size)?)
    }
}

fn fail(source: MoneyError) -> FunctionError {
    FunctionError::Amount {
        function: Blocks::NAME,
        source,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Blocks;

impl Blocks {
    fn tiers(
        list: Option<&ScalarValue>,
        wanted: &'static str,
    ) -> Result<Vec<BlockTier>, FunctionError> {
        let rows = list.and_then(structs).ok_or(FunctionError::Constant {
            function: Self::NAME,
            argument: "tiers",
            wanted,
        })?;
        read_blocks(&rows).map_err(|source| FunctionError::Tiers {
            function: Self::NAME,
            source,
        })
    }
}

/// Checks tiers of blocks in their order.
pub(super) fn check(rows: &StructArray) -> Result<(), TierError> {
    BlockTerms::new(read_blocks(rows)?, Policy::AllTiers).map(drop)
}

fn read_blocks(rows: &StructArray) -> Result<Vec<BlockTier>, TierError> {
    (0..rows.len()).map(|row| read_block(rows, row)).collect()
}

fn read_block(rows: &StructArray, row: usize) -> Result<BlockTier, TierError> {
    let tier = row + 1;
    super::tiers::check_keys(rows, row, &BLOCK_KEYS)?;
    let required = |key| read_number(rows, row, key)?.ok_or(TierError::Missing { tier, key });
    Ok(BlockTier {
        size: required("block_size")?,
        amount: required("block_amount")?,
        max_blocks: read_number(rows, row, "max_blocks")?,
    })
}

impl Model for Blocks {
    const NAME: &'static str = "blocks";
    const ARGUMENTS: &'static [(&'static str, Kind)] = &[
        ("quantity", Kind::Number),
        ("tiers", Kind::Blocks),
        ("policy", Kind::Text),
    ];
    const REQUIRED: usize = 3;
    type Terms = BlockTerms;

    fn terms(&self, constants: &Constants<'_>) -> Result<BlockTerms, FunctionError> {
        let policy = match constants.text(2)? {
            "ALL_TIERS" => Policy::AllTiers,
            "TOP_TIER" => Policy::TopTier,
            other => {
                return Err(constants.refused(
                    2,
                    format!("'{other}'"),
                    "'ALL_TIERS' or 'TOP_TIER'",
                ));
            }
        };
        let tiers = Self::tiers(constants.required(1)?, Kind::Blocks.wanted())?;
        BlockTerms::new(tiers, policy).map_err(|source| FunctionError::Tiers {
            function: Self::NAME,
            source,
        })
    }

    fn scale(terms: &BlockTerms, _: &[u8]) -> u8 {
        let scales = terms.tiers.iter().map(|tier| tier.amount.scale);
        scales.max().unwrap_or(0)
    }

    fn amount(terms: &BlockTerms, numbers: &[Exact]) -> Result<Exact, FunctionError> {
        blocks(numbers[0], terms)
    }
}
