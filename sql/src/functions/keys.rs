//! What a tier may say, as SQL and error messages name it.

/// The keys of all kinds of tiers.
pub(super) const KEYS: [&str; 8] = [
    "up_to",
    "unit_amount",
    "flat_amount",
    "cap_amount",
    "rate_percent",
    "block_size",
    "block_amount",
    "max_blocks",
];
