//! Terms of a price, and the SQL expression that they are.

use crate::case::{Outcome, unread};
use serde::Deserialize;
use serde_json::{Map, Value};
use tollgate_sql::money::Exact;

/// How a quantity becomes an amount, before limits and rounding.
#[derive(Debug, Deserialize)]
#[serde(tag = "model", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Price {
    /// Every unit at one price.
    Standard {
        /// Of one unit.
        unit_amount: Number,
        /// Units that cost nothing.
        free_units: Option<Number>,
        /// Units that were credited.
        credited_units: Option<Number>,
        /// A quantity below zero costs nothing instead of giving a credit.
        #[serde(default)]
        clamp_negative_to_zero: bool,
    },
    /// Whole packages.
    Package {
        /// Of one package.
        package_amount: Number,
        /// Units in one.
        package_size: Number,
        /// Units that cost nothing.
        free_units: Option<Number>,
        /// What becomes of one that is begun.
        partial_package: Option<String>,
    },
    /// Each unit at its tier's price.
    Graduated(Tiers),
    /// All units at the last tier's price.
    Volume(Tiers),
    /// Each part of an amount at its tier's rate.
    GraduatedPercentage(Tiers),
    /// The quantity is an amount.
    Dynamic {
        /// By which it is multiplied.
        multiplier: Number,
        /// To how many digits the product is rounded.
        round_decimals: Option<i32>,
    },
}

/// Tiers and what they cost without usage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tiers {
    pub(crate) tiers: Vec<Tier>,
    #[serde(default)]
    pub(crate) zero_usage_first_flat: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tier {
    up_to: Option<Number>,
    unit_amount: Option<Number>,
    rate_percent: Option<Number>,
    flat_amount: Option<Number>,
    cap_amount: Option<Number>,
}

/// A decimal, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Number(String);

impl TryFrom<String> for Number {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = Exact::parse(&text).map_err(|error| error.to_string())?;
        Ok(Number(number.to_text_with_scale()))
    }
}

impl Number {
    /// As a literal, which a sign does not tear apart.
    pub(crate) fn sql(&self) -> String {
        match self.0.starts_with('-') {
            true => format!("({})", self.0),
            false => self.0.clone(),
        }
    }

    /// The text, for a field of an event.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Its value.
    pub(crate) fn exact(&self) -> Outcome<Exact> {
        Ok(Exact::parse(&self.0)?)
    }

    /// A hundredth of it, for percentages.
    pub(crate) fn hundredth(&self) -> Outcome<Number> {
        let number = Exact::parse(&self.0)?;
        let hundredth = number.checked_mul(Exact::new(1, 2)?)?;
        Ok(Number(hundredth.to_text_with_scale()))
    }
}

impl Price {
    /// The amount for a quantity, both as SQL.
    pub(crate) fn amount(&self, quantity: &str) -> Outcome<String> {
        match self {
            Price::Standard {
                unit_amount,
                free_units,
                credited_units,
                clamp_negative_to_zero,
            } => {
                let free: Vec<String> = [free_units, credited_units]
                    .into_iter()
                    .flatten()
                    .map(Number::sql)
                    .collect();
                let unit_amount = unit_amount.sql();
                let amount = match free.is_empty() {
                    true => format!("per_unit({quantity}, {unit_amount})"),
                    false => format!("per_unit({quantity}, {unit_amount}, {})", free.join(" + ")),
                };
                Ok(match clamp_negative_to_zero {
                    true => format!("GREATEST({amount}, 0)"),
                    false => amount,
                })
            }
            Price::Package {
                package_amount,
                package_size,
                free_units,
                partial_package,
            } => {
                let partial = partial_package.as_deref().unwrap_or("round_up");
                let free = free_units.as_ref().map_or("0".to_owned(), Number::sql);
                let (size, amount) = (package_size.sql(), package_amount.sql());
                Ok(format!(
                    "package({quantity}, {size}, {amount}, {free}, '{partial}')"
                ))
            }
            Price::Graduated(tiers) => tiers.call("graduated", quantity),
            Price::Volume(tiers) => tiers.call("volume", quantity),
            Price::GraduatedPercentage(tiers) => tiers.call("graduated_percentage", quantity),
            Price::Dynamic {
                multiplier,
                round_decimals,
            } => Ok(rounded(
                format!("{quantity} * {}", multiplier.sql()),
                *round_decimals,
            )),
        }
    }
}

impl Tiers {
    /// The same tiers without flat amounts, and without all else.
    pub(crate) fn parts(self) -> (Self, Self) {
        let none = |tier: &Tier| Tier {
            up_to: tier.up_to.clone(),
            unit_amount: None,
            rate_percent: None,
            flat_amount: None,
            cap_amount: None,
        };
        let units = self.tiers.iter().map(|tier| Tier {
            unit_amount: tier.unit_amount.clone(),
            ..none(tier)
        });
        let flats = self.tiers.iter().map(|tier| Tier {
            flat_amount: tier.flat_amount.clone(),
            ..none(tier)
        });
        let units = Tiers {
            tiers: units.collect(),
            zero_usage_first_flat: false,
        };
        let flats = Tiers {
            tiers: flats.collect(),
            zero_usage_first_flat: self.zero_usage_first_flat,
        };
        (units, flats)
    }

    /// What a unit of the first tier costs.
    pub(crate) fn first_unit(&self) -> String {
        let first = self.tiers.first();
        let unit = first.and_then(|tier| tier.unit_amount.as_ref());
        unit.map_or("0".into(), Number::sql)
    }

    /// Whether a tier has a cap, which holds its flat amount too.
    pub(crate) fn has_cap(&self) -> bool {
        self.tiers.iter().any(|tier| tier.cap_amount.is_some())
    }

    pub(crate) fn call(&self, function: &str, quantity: &str) -> Outcome<String> {
        let tiers = self.tiers.iter().map(Tier::sql);
        let tiers = tiers.collect::<Outcome<Vec<_>>>()?.join(", ");
        let first_flat = self.zero_usage_first_flat;
        Ok(format!("{function}({quantity}, [{tiers}], {first_flat})"))
    }
}

impl Tier {
    fn sql(&self) -> Outcome<String> {
        let price = match (&self.unit_amount, &self.rate_percent) {
            (Some(amount), None) => format!("unit_amount: {}, ", amount.sql()),
            (None, Some(percent)) => format!("rate_percent: {}, ", percent.sql()),
            (None, None) if self.flat_amount.is_none() => "unit_amount: 0, ".into(),
            (None, None) => String::new(),
            (Some(_), Some(_)) => return unread("a unit amount beside a rate"),
        };
        let or = |number: &Option<Number>, none: &str| {
            number.as_ref().map_or(none.to_owned(), Number::sql)
        };
        let (up_to, cap) = (or(&self.up_to, "NULL"), or(&self.cap_amount, "NULL"));
        let flat_amount = or(&self.flat_amount, "0");
        Ok(format!(
            "{{up_to: {up_to}, {price}flat_amount: {flat_amount}, cap_amount: {cap}}}"
        ))
    }
}

/// What is done to an amount after it was priced, in this order.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Limits {
    pub(crate) percent_discount: Option<Number>,
    pub(crate) maximum_amount: Option<Number>,
    pub(crate) minimum_amount: Option<Number>,
    pub(crate) round_decimals: Option<i32>,
}

impl Limits {
    const KEYS: [&str; 4] = [
        "percent_discount",
        "maximum_amount",
        "minimum_amount",
        "round_decimals",
    ];

    /// Takes the limits out of a case's terms, which keep the rest.
    pub(crate) fn take(params: &Value) -> Outcome<(Self, Value)> {
        let mut rest = params.as_object().cloned().unwrap_or_default();
        let taken = Self::KEYS
            .iter()
            .filter_map(|key| rest.remove_entry(*key))
            .collect::<Map<String, Value>>();
        Ok((crate::case::read(&taken.into())?, rest.into()))
    }

    /// The limited amount as SQL.
    pub(crate) fn apply(&self, amount: String) -> Outcome<String> {
        let mut amount = amount;
        if let Some(percent) = &self.percent_discount {
            let off = percent.hundredth()?.sql();
            amount = format!("({amount} * (1 - {off}))");
        }
        if let Some(maximum) = &self.maximum_amount {
            amount = format!("LEAST({amount}, {})", maximum.sql());
        }
        if let Some(minimum) = &self.minimum_amount {
            amount = format!("GREATEST({amount}, {})", minimum.sql());
        }
        Ok(rounded(amount, self.round_decimals))
    }
}

/// Rounded half away from zero, as SQL's `ROUND` does for decimals.
pub(crate) fn rounded(amount: String, decimals: Option<i32>) -> String {
    match decimals {
        Some(decimals) => format!("ROUND({amount}, {decimals})"),
        None => amount,
    }
}
