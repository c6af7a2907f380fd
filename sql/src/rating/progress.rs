//! Progress within a period: what is billed next is what the period costs now, less what was billed before.
//!
//! A price is rated over everything that is known of a period. The percent discount comes off, then the maximum caps
//! what is left: that is how the period stands. A line is the difference to what was billed before, so it counts
//! late usage, usage that was taken back, and a maximum that earlier lines have reached. The last line of a period tops it up
//! to the minimum. However often a period is billed, its lines add up to how it stands in the end.
//!
//! A part of a period that has a price version of its own is the same difference ([`since`]).

use super::{Charge, Dimensions};
use crate::money::{Exact, MoneyError};
use std::{collections::BTreeMap, sync::Arc};

/// What is done to a period's rated amount, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// Taken off first, in percent of the rated amount.
    pub percent_discount: Option<Exact>,
    /// The most that a period costs.
    pub maximum: Option<Exact>,
    /// The least that a whole period costs.
    pub minimum: Option<Exact>,
}

/// What is billed next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// What the line costs; below zero it gives back.
    pub net: Exact,
    /// How much less than the difference of the rated amounts that is.
    pub discount: Exact,
    /// What the minimum adds beside it.
    pub minimum_top_up: Exact,
}

impl Terms {
    /// How a period stands whose usage was rated so, without its minimum.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] past 38 digits.
    pub fn standing(&self, rated: Exact) -> Result<Exact, MoneyError> {
        let left = match self.percent_discount {
            None => rated,
            Some(percent) => {
                let hundred = Exact::from(100_i64);
                let hundredth = Exact {
                    digits: 1,
                    scale: 2,
                };
                let kept = hundred.checked_sub(percent)?.checked_mul(hundredth)?;
                rated.checked_mul(kept)?
            }
        };
        Ok(self.maximum.map_or(left, |maximum| left.min(maximum)))
    }

    /// The line that follows what was `billed`, earlier amounts up to the minimum included, from the rated amounts before
    /// and after its usage.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] past 38 digits.
    pub fn line(
        &self,
        rated_before: Exact,
        rated_after: Exact,
        billed: Exact,
        is_last: bool,
    ) -> Result<Line, MoneyError> {
        let standing = self.standing(rated_after)?;
        let net = standing.checked_sub(billed)?;
        let discount = rated_after.checked_sub(rated_before)?.checked_sub(net)?;
        let minimum_top_up = match self.minimum {
            Some(minimum) if is_last && minimum > standing => minimum.checked_sub(standing)?,
            _ => Exact::ZERO,
        };
        Ok(Line {
            net,
            discount,
            minimum_top_up,
        })
    }
}

/// What one price's charges for one customer come to in a later part of a period: what they are at its end, less what
/// they are at its start by the same version. So tiers go on. Charges of the same dimensions are one; what stands as it
/// stood is left out.
///
/// # Errors
/// [`MoneyError::Overflow`] past 38 digits.
pub fn since(before: &[Charge], after: Vec<Charge>) -> Result<Vec<Charge>, MoneyError> {
    type Sums = (Exact, Option<Exact>);
    let add = |sums: &mut Sums, charge: &Charge| -> Result<(), MoneyError> {
        sums.0 = sums.0.checked_add(charge.amount)?;
        if let Some(quantity) = charge.quantity {
            sums.1 = Some(sums.1.unwrap_or(Exact::ZERO).checked_add(quantity)?);
        }
        Ok(())
    };
    let mut at_start: BTreeMap<&Dimensions, (Sums, &Charge)> = BTreeMap::new();
    for charge in before {
        let known = at_start.entry(&charge.dimensions);
        let (sums, _) = known.or_insert(((Exact::ZERO, None), charge));
        add(sums, charge)?;
    }
    let mut at_end: BTreeMap<Dimensions, (Sums, Charge)> = BTreeMap::new();
    for charge in after {
        let known = at_end.entry(Arc::clone(&charge.dimensions));
        let (sums, _) = known.or_insert(((Exact::ZERO, None), charge.clone()));
        add(sums, &charge)?;
    }
    // What is gone at the end is given back.
    for (dimensions, (_, charge)) in &at_start {
        let gone = ((Exact::ZERO, None), (*charge).clone());
        at_end.entry(Arc::clone(*dimensions)).or_insert(gone);
    }
    let mut all = Vec::new();
    for (dimensions, ((amount, quantity), charge)) in at_end {
        let was = at_start.get(&dimensions).map(|(sums, _)| *sums);
        let (amount_was, quantity_was) = was.unwrap_or((Exact::ZERO, None));
        let line = Terms::default().line(amount_was, amount, amount_was, false)?;
        let quantity = match (quantity, quantity_was) {
            (None, None) => None,
            (now, was) => {
                let was = was.unwrap_or(Exact::ZERO);
                Some(now.unwrap_or(Exact::ZERO).checked_sub(was)?)
            }
        };
        let stands = line.net.is_zero() && quantity.is_none_or(Exact::is_zero);
        if was.is_none() || !stands {
            all.push(Charge {
                amount: line.net,
                quantity,
                ..charge
            });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{Charge, Line, Terms, since};
    use crate::money::Exact;
    use proptest::prelude::*;

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    fn line(terms: Terms, numbers: [&str; 3], is_last: bool) -> [String; 3] {
        let [before, after, billed] = numbers.map(exact);
        let Line {
            net,
            discount,
            minimum_top_up,
        } = terms.line(before, after, billed, is_last).unwrap();
        [net, discount, minimum_top_up].map(|amount| amount.to_string())
    }

    #[test]
    fn the_discount_comes_off_before_the_maximum_which_counts_what_was_billed() {
        let capped = Terms {
            maximum: Some(exact("100")),
            ..Terms::default()
        };
        assert_eq!(line(capped, ["0", "100", "0"], false), ["100", "0", "0"]);
        assert_eq!(line(capped, ["70", "120", "70"], false), ["30", "20", "0"]);
        assert_eq!(line(capped, ["120", "150", "100"], false), ["0", "30", "0"]);
        // Usage that is taken back above the maximum gives nothing back, below it does.
        assert_eq!(
            line(capped, ["150", "120", "100"], false),
            ["0", "-30", "0"]
        );
        assert_eq!(
            line(capped, ["150", "80", "100"], false),
            ["-20", "-50", "0"]
        );
        // 270 less a half is 135, at most 100, of which 35 were billed.
        let half = Terms {
            percent_discount: Some(exact("50")),
            ..capped
        };
        assert_eq!(line(half, ["70", "270", "35"], false), ["65", "135", "0"]);
    }

    #[test]
    fn only_the_last_line_is_topped_up_to_the_minimum() {
        let terms = Terms {
            percent_discount: Some(exact("10")),
            minimum: Some(exact("100")),
            ..Terms::default()
        };
        assert_eq!(line(terms, ["50", "80", "45"], false), ["27", "3", "0"]);
        assert_eq!(line(terms, ["50", "80", "45"], true), ["27", "3", "28"]);
        assert_eq!(line(terms, ["50", "200", "45"], true), ["135", "15", "0"]);
        // A minimum above the maximum is due all the same: it is what was agreed for a whole period.
        let both = Terms {
            maximum: Some(exact("60")),
            ..terms
        };
        assert_eq!(line(both, ["0", "80", "0"], true), ["60", "20", "40"]);
    }

    /// `model quantity amount` of charges.
    fn charges(lines: &[&str]) -> Vec<Charge> {
        let charge = |line: &&str| {
            let parts: Vec<&str> = line.split(' ').collect();
            Charge {
                price: "p".into(),
                price_version: 2,
                customer: "acme".into(),
                dimensions: [("model".into(), Some(parts[0].into()))].into(),
                quantity: (parts[1] != "-").then(|| exact(parts[1])),
                amount: exact(parts[2]),
                currency: "USD".into(),
                service: None,
                subscription: None,
                is_fixed: false,
                is_unused: false,
            }
        };
        lines.iter().map(charge).collect()
    }

    #[test]
    fn a_later_part_is_what_has_changed_since_its_start() {
        for (before, after, expected) in [
            // What is used on goes on, what is not stands, what is new is whole, what is gone is given back.
            (
                &["a 10 1.00", "b 5 2.50", "d 1 9"][..],
                &["a 15 1.25", "b 5 2.50", "c 1 0.10"][..],
                &["a 5 0.25", "c 1 0.1", "d -1 -9"][..],
            ),
            // Several charges of the same dimensions are one.
            (
                &["a 1 1", "a 2 5"],
                &["a 1 1", "a 2 5", "a 4 1"],
                &["a 4 1"],
            ),
            // A dearer tier may be cheaper for all; a quantity that comes and an amount that stays is a line.
            (
                &["a 100 210", "b - 5"],
                &["a 101 101", "b - 7"],
                &["a 1 -109", "b - 2"],
            ),
            (&["a 1 2"], &["a 3 2"], &["a 2 0"]),
            // A charge of zero that is new keeps its line.
            (&[], &["a 0 0"], &["a 0 0"]),
            (&["a 0 0"], &["a 0 0"], &[]),
        ] {
            let found = since(&charges(before), charges(after)).unwrap();
            let found = found.iter().map(|charge| {
                let model = charge.dimensions[0].1.as_deref().unwrap_or_default();
                let quantity = charge
                    .quantity
                    .map_or("-".into(), |number| number.to_string());
                format!("{model} {quantity} {}", charge.amount)
            });
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn lines_add_up_to_how_the_period_stands(
            rated in prop::collection::vec(-100_000_i128..100_000, 1..8),
            percent in 0_i128..=100, maximum in prop::option::of(0_i128..80_000), minimum in prop::option::of(0_i128..80_000)
        ) {
            let amount = |digits| Exact { digits, scale: 2 };
            let terms = Terms {
                percent_discount: Some(Exact { digits: percent, scale: 0 }),
                maximum: maximum.map(amount),
                minimum: minimum.map(amount),
            };
            let (mut before, mut billed, mut topped_up) = (Exact::ZERO, Exact::ZERO, Exact::ZERO);
            for (place, digits) in rated.iter().enumerate() {
                let after = amount(*digits);
                let is_last = place + 1 == rated.len();
                let next = terms.line(before, after, billed, is_last).unwrap();
                let gross = after.checked_sub(before).unwrap();
                prop_assert_eq!(next.net.checked_add(next.discount).unwrap(), gross);
                billed = billed.checked_add(next.net).unwrap();
                topped_up = topped_up.checked_add(next.minimum_top_up).unwrap();
                before = after;
            }
            let standing = terms.standing(before).unwrap();
            prop_assert_eq!(billed, standing);
            let due = terms.minimum.map_or(standing, |minimum| standing.max(minimum));
            prop_assert_eq!(billed.checked_add(topped_up).unwrap(), due);
        }
    }
}
