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

/// Takes discounts off lines, in their order. One applies to the lines of its prices, or to all, whose last instant of
/// service it is in force at; lines at or below zero are left as they are.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub(super) fn apply(
    lines: &mut [LineItem],
    discounts: &[&Discount],
    order: DiscountOrder,
    currency: Currency,
) -> Result<()> {
    for discount in in_order(discounts, order) {
        let left: Vec<i128> = lines
            .iter()
            .map(|line| match applies(discount, line) {
                true => (line.amount.minor() - line.discount.minor()).max(0),
                false => 0,
            })
            .collect();
        let mut sum = Money::zero(currency);
        for minor in &left {
            sum = sum.checked_add(Money::of_minor(*minor, currency))?;
        }
        let off = taken_off(discount.kind, discount.value, sum)?;
        for (line, share) in lines.iter_mut().zip(shares(off.minor(), &left)) {
            line.discount = line
                .discount
                .checked_add(Money::of_minor(share, currency))?;
        }
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

fn applies(discount: &Discount, line: &LineItem) -> bool {
    let last_us = line.period.last_us();
    let price = line.price.as_ref();
    let of_price = discount.applies_to.is_empty()
        || price.is_some_and(|price| discount.applies_to.contains(price));
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
