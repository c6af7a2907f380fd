//! What subscriptions were billed for fixed prices, so that each is billed once, whether in advance or not.

use super::{documents::lines_in, subscribed::Charged};
use crate::error::{Error, Result};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Decimal128Type, TimestampMicrosecondType},
};
use std::collections::BTreeMap;
use tollgate_sql::{
    accounts::Discount,
    definitions::{Definitions, PlanDefinition},
    functions::prorate::sum_of_shares,
    invoice::{
        self, LineItem, LineKind,
        discounts::{self, Discounted},
    },
    money::{Currency, Exact, Money},
    rating::Charge,
    subscriptions::{Cycle, Part},
};

/// Lines by subscription and price.
#[derive(Debug, Default)]
pub(super) struct Billed(BTreeMap<(String, String), Vec<BilledLine>>);

/// A line that was billed.
#[derive(Debug, Clone, Copy)]
struct BilledLine {
    /// The time that it is for.
    period: invoice::Period,
    amount: Exact,
    discount: Exact,
}

impl Billed {
    /// What issued documents have, by their rows. `line_items` may lack the last of them: a crash can come before it has them.
    pub(super) fn of(issued: &[RecordBatch]) -> Result<Self> {
        let mut billed = Billed::default();
        let lines = lines_in(issued)?;
        let kinds = lines["kind"].as_string::<i32>();
        let corrected = lines["corrects_kind"].as_string::<i32>();
        let is_fixed = |row: &usize| {
            let kind = match corrected.is_valid(*row) {
                true => corrected.value(*row),
                false => kinds.value(*row),
            };
            LineKind::parse(kind).is_some_and(is_fixed)
        };
        for row in (0..lines.num_rows()).filter(is_fixed) {
            billed.add_row(&lines, row)?;
        }
        Ok(billed)
    }

    fn add_row(&mut self, rows: &RecordBatch, row: usize) -> Result<()> {
        let text = |name: &str| {
            let column = rows[name].as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let instant = |name: &str| {
            rows[name]
                .as_primitive::<TimestampMicrosecondType>()
                .value(row)
        };
        let (Some(subscription), Some(price)) = (text("subscription"), text("price")) else {
            return Ok(());
        };
        let amount = |name: &str| -> Result<Exact> {
            let amounts = rows[name].as_primitive::<Decimal128Type>();
            // Lines from before there were discounts say nothing of them.
            if amounts.is_null(row) {
                return Ok(Exact::ZERO);
            }
            let amount = Exact::from_decimal(amounts.value(row), amounts.scale());
            Ok(amount.map_err(tollgate_sql::Error::from)?)
        };
        let line = BilledLine {
            period: invoice::Period {
                start_us: instant("period_start"),
                end_us: instant("period_end"),
            },
            amount: amount("amount")?,
            discount: amount("discount")?,
        };
        let of_price = self.0.entry((subscription, price)).or_default();
        of_price.push(line);
        Ok(())
    }

    /// Adds what a document has that is made now.
    pub(super) fn add<'a>(&mut self, lines: impl IntoIterator<Item = &'a LineItem>) {
        for line in lines
            .into_iter()
            .filter(|line| is_fixed(line.billed_kind()))
        {
            if let (Some(subscription), Some(price)) = (&line.subscription, &line.price) {
                let of_price = self
                    .0
                    .entry((subscription.to_string(), price.to_string()))
                    .or_default();
                of_price.push(BilledLine {
                    period: line.period,
                    amount: line.amount.to_exact(),
                    discount: line.discount.to_exact(),
                });
            }
        }
    }

    /// What was billed of a price for a billing period of a subscription.
    fn of_price(
        &self,
        subscription: &str,
        price: &str,
        cycle: &Cycle,
    ) -> impl Iterator<Item = &BilledLine> {
        let (start_us, end_us) = (cycle.period.start_us, cycle.period.end_us);
        let key = (subscription.to_owned(), price.to_owned());
        let lines = self.0.get(&key).into_iter().flatten();
        lines.filter(move |line| start_us <= line.period.start_us && line.period.end_us <= end_us)
    }

    /// What the prices in advance of a plan were billed at for a billing period of a subscription, less their discounts, as far as lines are
    /// its own: it counts toward the minimum and the maximum of that period.
    fn in_advance(
        &self,
        (subscription, plan): (&str, &PlanDefinition),
        cycle: &Cycle,
        is_own: &IsOwn<'_>,
    ) -> Result<Exact> {
        let number = |error| Error::from(tollgate_sql::Error::from(error));
        let mut sum = Exact::ZERO;
        for price in &plan.terms.in_advance {
            let lines = self.of_price(subscription, price, cycle);
            for line in lines.filter(|line| is_own(price, line)) {
                let net = line.amount.checked_sub(line.discount).map_err(number)?;
                sum = sum.checked_add(net).map_err(number)?;
            }
        }
        Ok(sum)
    }

    /// What of a plan's charges for a billing period is left to bill, and what counts toward the plan's bounds beside it.
    pub(super) fn left_of(
        &self,
        (definitions, plan): (&Definitions, &PlanDefinition),
        charged: &Charged,
        cycle: &Cycle,
        discounts: &[&Discount],
    ) -> Result<(Vec<Charge>, Exact)> {
        let of = (cycle.subscription.as_str(), plan);
        let is_own = |price: &str, line: &BilledLine| is_of(definitions, plan, price, cycle, line);
        if charged.is_opening {
            let left = self.left(of, cycle, &charged.charges, (discounts, &is_own))?;
            return Ok((left, Exact::ZERO));
        }
        let mut charges = charged.charges.clone();
        charges.extend(self.left(of, cycle, &charged.in_advance, (discounts, &is_own))?);
        Ok((charges, self.in_advance(of, cycle, &is_own)?))
    }

    /// What was billed in advance for a billing period that closes, see [`Billed::left_of`].
    pub(super) fn counted(
        &self,
        (definitions, plan): (&Definitions, &PlanDefinition),
        charged: &Charged,
        cycle: &Cycle,
    ) -> Result<Exact> {
        let is_own = |price: &str, line: &BilledLine| is_of(definitions, plan, price, cycle, line);
        match charged.is_opening {
            true => Ok(Exact::ZERO),
            false => self.in_advance((&cycle.subscription, plan), cycle, &is_own),
        }
    }

    /// What is left to bill of the charges of fixed prices for a billing period of a subscription. A price that was not billed
    /// for it yet has its charges; of any other it is one difference, below zero where less was used than was paid. What was
    /// billed may be for time after the period closed: it was billed before that was known. What discounts took off is not given back.
    fn left(
        &self,
        (subscription, plan): (&str, &PlanDefinition),
        cycle: &Cycle,
        charges: &[Charge],
        (discounts, is_own): (&[&Discount], &IsOwn<'_>),
    ) -> Result<Vec<Charge>> {
        let mut left = Vec::new();
        for price in &plan.terms.in_advance {
            let billed = self.of_price(subscription, price, cycle);
            let billed: Vec<&BilledLine> = billed.filter(|line| is_own(price, line)).collect();
            let now = charges.iter().filter(|charge| *charge.price == **price);
            let now: Vec<&Charge> = now.collect();
            if billed.is_empty() {
                left.extend(now.into_iter().cloned());
                continue;
            }
            let Some(template) = now.first().map(|charge| (*charge).clone()) else {
                continue;
            };
            let period = invoice::Period {
                end_us: cycle.closes_us,
                ..(&cycle.period).into()
            };
            let difference = difference(plan, &billed, &now, period, discounts);
            let difference = difference.map_err(Error::from)?;
            if difference.is_zero() {
                continue;
            }
            left.push(Charge {
                amount: difference,
                currency: plan.currency.as_str().into(),
                quantity: None,
                dimensions: [].into(),
                service: Some(period),
                is_unused: difference.is_negative(),
                ..template
            });
        }
        Ok(left)
    }
}

/// Whether a line of a price was billed on the plan that is meant.
type IsOwn<'a> = dyn Fn(&str, &BilledLine) -> bool + 'a;

/// Whether a line that was billed of a price is a plan's, of those of a billing period that bill the price in advance: it is that of the plan
/// that is in force when the line begins, else of the first. A plan that is in the period no more has all lines.
fn is_of(
    definitions: &Definitions,
    plan: &PlanDefinition,
    price: &str,
    cycle: &Cycle,
    line: &BilledLine,
) -> bool {
    if cycle.parts.iter().all(|part| part.plan != plan.name) {
        return true;
    }
    let bills = |part: &&Part| {
        let known = definitions.plan(&part.plan);
        known.is_some_and(|plan| plan.terms.in_advance.iter().any(|name| name == price))
    };
    let start_us = line.period.start_us;
    let in_force = |part: &&Part| {
        let mut segments = part.segments.iter();
        segments.any(|segment| segment.from_us <= start_us && start_us < segment.until_us)
    };
    let parts = || cycle.parts.iter().filter(bills);
    let owner = parts().find(in_force).or_else(|| parts().next());
    owner.is_none_or(|owner| owner.plan == plan.name)
}

/// What a price comes to now, rounded, less what was billed of it. What is above zero is before discounts, as any charge; what comes
/// back is without the part of them that is for what comes back.
fn difference(
    plan: &PlanDefinition,
    billed: &[&BilledLine],
    now: &[&Charge],
    period: invoice::Period,
    discounts: &[&Discount],
) -> tollgate_sql::error::Result<Exact> {
    let currency = Currency::parse(&plan.currency)?;
    let (mut before, mut discount_before) = (Exact::ZERO, Exact::ZERO);
    for line in billed {
        before = before.checked_add(line.amount)?;
        discount_before = discount_before.checked_add(line.discount)?;
    }
    let (mut exact, mut after) = (Exact::ZERO, Money::zero(currency));
    let mut lines = Vec::with_capacity(now.len());
    for charge in now {
        exact = exact.checked_add(invoice::amount_on(plan, charge, currency)?.0)?;
        // Rounded cumulatively, and before the difference: half a cent more and half a cent less are not rounded alike.
        let sum = Money::round(sum_of_shares(exact), currency)?;
        lines.push(Discounted {
            price: Some(&charge.price),
            last_us: charge.service.unwrap_or(period).last_us(),
            amount: sum.checked_sub(after)?,
        });
        after = sum;
    }
    let more = after.to_exact().checked_sub(before)?;
    if !more.is_negative() {
        return Ok(more);
    }
    let mut discount_after = Exact::ZERO;
    for off in discounts::off(&lines, discounts, plan.terms.discount_order, currency)? {
        discount_after = discount_after.checked_add(off.to_exact())?;
    }
    let unpaid = discount_before.checked_sub(discount_after.min(discount_before))?;
    Ok(more.checked_add(unpaid)?.min(Exact::ZERO))
}

/// Whether lines of a kind are of prices that read no usage.
pub(super) fn is_fixed(kind: LineKind) -> bool {
    matches!(kind, LineKind::Base | LineKind::Credit)
}

/// What charges come to in a plan's currency, exactly.
pub(super) fn sum_on<'a>(
    plan: &PlanDefinition,
    charges: impl Iterator<Item = &'a Charge>,
) -> Result<Exact> {
    let number = |error| Error::from(tollgate_sql::Error::from(error));
    let currency = Currency::parse(&plan.currency).map_err(number)?;
    let mut sum = Exact::ZERO;
    for charge in charges {
        let (amount, _) = invoice::amount_on(plan, charge, currency)?;
        sum = sum.checked_add(amount).map_err(number)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_sql::{
        accounts::DiscountKind, definitions::PlanTerms, error::Location, period::Period,
        subscriptions::Cycle,
    };

    fn plan() -> PlanDefinition {
        PlanDefinition {
            name: "pro".into(),
            currency: "USD".into(),
            worth: Vec::new(),
            prices: vec!["base".into()],
            terms: PlanTerms {
                in_advance: vec!["base".into()],
                ..PlanTerms::default()
            },
            at: Location::default(),
        }
    }

    /// June 2026, closed at some instant of it.
    fn june(closes_us: Option<i64>) -> Cycle {
        let period = Period::month("2026-06", "UTC").unwrap();
        Cycle {
            subscription: "s".into(),
            customer: "acme".into(),
            opens_us: period.start_us,
            closes_us: closes_us.unwrap_or(period.end_us),
            period,
            parts: Vec::new(),
        }
    }

    fn charge(amount: &str) -> Charge {
        Charge {
            price: "base".into(),
            price_version: 1,
            customer: "acme".into(),
            dimensions: [].into(),
            quantity: None,
            amount: Exact::parse(amount).unwrap(),
            currency: "USD".into(),
            service: None,
            subscription: Some("s".into()),
            is_fixed: true,
            is_unused: false,
        }
    }

    /// 20.00 for all of June, less a discount of 5.00.
    fn billed(cycle: &Cycle) -> Billed {
        let line = BilledLine {
            period: (&cycle.period).into(),
            amount: Exact::from(20_i64),
            discount: Exact::from(5_i64),
        };
        let key = ("s".to_owned(), "base".to_owned());
        Billed(BTreeMap::from([(key, vec![line])]))
    }

    fn discount(kind: DiscountKind, value: i64) -> Discount {
        Discount {
            discount: "d".into(),
            customer: "acme".into(),
            kind,
            value: Exact::from(value),
            currency: Some("USD".into()),
            starts_at_us: None,
            ends_at_us: None,
            applies_to: Vec::new(),
            position: 0,
        }
    }

    /// What is left of June.
    fn left(cycle: &Cycle, now: &str, discounts: &[&Discount]) -> Vec<(String, bool)> {
        let billed = billed(cycle);
        let left = billed
            .left(
                ("s", &plan()),
                cycle,
                &[charge(now)],
                (discounts, &|_, _| true),
            )
            .unwrap();
        let left = left.into_iter();
        left.map(|charge| {
            (
                charge.amount.without_trailing_zeros().to_string(),
                charge.is_unused,
            )
        })
        .collect()
    }

    #[test]
    fn what_was_billed_for_a_whole_period_is_known_when_it_closes_early() {
        let whole = june(None);
        let early = june(Some(whole.period.start_us + 10 * 86_400_000_000));
        let fixed = discount(DiscountKind::Fixed, 5);
        assert_eq!(left(&whole, "20", &[&fixed]), []);
        // 5 of 20 are taken off, and of 6.67 too.
        assert_eq!(
            left(&early, "6.666666", &[&fixed]),
            [("-13.33".to_owned(), true)]
        );
    }

    #[test]
    fn what_was_not_paid_is_not_given_back() {
        let june = june(None);
        // 15 were paid. A quarter of 6.67 is 1.67, so 5.00 are owed.
        let percent = discount(DiscountKind::Percent, 25);
        assert_eq!(
            left(&june, "6.666666", &[&percent]),
            [("-10".to_owned(), true)]
        );
        // It is not in force any more: 6.67 are owed.
        assert_eq!(left(&june, "6.666666", &[]), [("-8.33".to_owned(), true)]);
        // All of it is taken off now, but no more than was.
        let whole = discount(DiscountKind::Percent, 100);
        assert_eq!(left(&june, "10", &[&whole]), [("-10".to_owned(), true)]);
        assert_eq!(left(&june, "18", &[]), []);
        // More is charged like any line, and a discount is taken off it later.
        assert_eq!(left(&june, "30", &[&percent]), [("10".to_owned(), false)]);
    }

    #[test]
    fn what_was_billed_in_advance_counts_less_its_discounts() {
        let june = june(None);
        let in_advance = billed(&june).in_advance(("s", &plan()), &june, &|_, _| true);
        assert_eq!(in_advance.unwrap(), Exact::from(15_i64));
        let other = Billed::default().in_advance(("s", &plan()), &june, &|_, _| true);
        assert_eq!(other.unwrap(), Exact::ZERO);
    }

    #[test]
    fn what_a_price_comes_to_now_is_rounded_before_what_was_billed_is_taken_off() {
        // 10.005 is 10.01, and 20.00 were billed; 9.995 less would be 10.00.
        let fixed = discount(DiscountKind::Fixed, 5);
        assert_eq!(
            left(&june(None), "10.005", &[&fixed]),
            [("-9.99".to_owned(), true)]
        );
        assert_eq!(left(&june(None), "20.004", &[&fixed]), []);
    }
}
