//! Discounts: per cent of what is left, or an amount down to zero, spread over the lines that they apply to.

use super::{LineItem, shares::shares};
use crate::{
    accounts::{Discount, DiscountKind},
    definitions::DiscountOrder,
    error::Result,
    money::{Currency, Exact, Money},
};

/// How much one discount takes off what is left, which is not below zero: never more than that.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn taken_off(kind: DiscountKind, value: Exact, left: Money) -> Result<Money> {
    let currency = left.currency();
    let amount = match kind {
        DiscountKind::Percent => {
            let hundredth = Exact::new(1, 2)?;
            left.to_exact().checked_mul(value.checked_mul(hundredth)?)?
        }
        DiscountKind::Fixed => value,
    };
    let amount = amount
        .max(Exact::ZERO)
        .min(left.to_exact().max(Exact::ZERO));
    Ok(Money::round(amount, currency)?)
}

/// What a discount may be taken off: a line, or what would be one.
#[derive(Debug, Clone, Copy)]
pub struct Discounted<'a> {
    /// The price it comes from.
    pub price: Option<&'a str>,
    /// The last instant of its service period, in microseconds.
    pub last_us: i64,
    /// What it comes to.
    pub amount: Money,
}

/// What discounts take off each of some lines, in the discounts' order. One applies to the lines of its prices, or to all, whose last instant of
/// service it is in force at; lines at or below zero are left as they are.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn off(
    lines: &[Discounted<'_>],
    discounts: &[&Discount],
    order: DiscountOrder,
    currency: Currency,
) -> Result<Vec<Money>> {
    let mut all = vec![Money::zero(currency); lines.len()];
    for discount in in_order(discounts, order) {
        let lines = lines.iter().zip(&all);
        let left: Vec<i128> = lines
            .map(|(line, off)| match applies(discount, line) {
                true => (line.amount.minor() - off.minor()).max(0),
                false => 0,
            })
            .collect();
        let mut sum = Money::zero(currency);
        for minor in &left {
            sum = sum.checked_add(Money::of_minor(*minor, currency))?;
        }
        let taken = taken_off(discount.kind, discount.value, sum)?;
        for (off, share) in all.iter_mut().zip(shares(taken.minor(), &left)) {
            *off = off.checked_add(Money::of_minor(share, currency))?;
        }
    }
    Ok(all)
}

/// Takes discounts off the lines of a document.
///
/// # Errors
/// Those of [`off`].
pub(super) fn apply(
    lines: &mut [LineItem],
    discounts: &[&Discount],
    order: DiscountOrder,
    currency: Currency,
) -> Result<()> {
    let discounted: Vec<Discounted<'_>> = lines
        .iter()
        .map(|line| Discounted {
            price: line.price.as_deref(),
            last_us: line.period.last_us(),
            amount: line.amount,
        })
        .collect();
    let all = off(&discounted, discounts, order, currency)?;
    for (line, off) in lines.iter_mut().zip(all) {
        line.discount = off;
    }
    Ok(())
}

/// By position, of one position by name; those in per cent first where a plan says so.
fn in_order<'a>(discounts: &[&'a Discount], order: DiscountOrder) -> Vec<&'a Discount> {
    let mut all = discounts.to_vec();
    all.sort_by_key(|discount| {
        let is_last = order == DiscountOrder::PercentFirst && discount.kind == DiscountKind::Fixed;
        (is_last, discount.position, &discount.discount)
    });
    all
}

fn applies(discount: &Discount, line: &Discounted<'_>) -> bool {
    let last_us = line.last_us;
    let is_named = |price: &str| discount.applies_to.iter().any(|name| name == price);
    let of_price = discount.applies_to.is_empty() || line.price.is_some_and(is_named);
    of_price
        && discount
            .starts_at_us
            .is_none_or(|start_us| start_us <= last_us)
        && discount.ends_at_us.is_none_or(|end_us| last_us < end_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cents(minor: i128) -> Money {
        Money::of_minor(minor, Currency::parse("USD").unwrap())
    }

    #[test]
    fn a_discount_never_takes_more_than_is_left() {
        use DiscountKind::{Fixed, Percent};
        for (kind, value, left, expected) in [
            (Percent, "10", 12_000, 1_200),
            // 12.5 cents, half away from zero.
            (Percent, "12.5", 100, 13),
            (Percent, "100", 14_450, 14_450),
            (Percent, "0", 100, 0),
            (Fixed, "10.00", 2_500, 1_000),
            (Fixed, "30.00", 2_500, 2_500),
            (Fixed, "30.00", 0, 0),
        ] {
            let off = taken_off(kind, Exact::parse(value).unwrap(), cents(left)).unwrap();
            assert_eq!(off, cents(expected), "{kind:?} {value} of {left}");
        }
    }
}
