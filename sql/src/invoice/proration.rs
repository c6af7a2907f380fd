//! Shares of what was paid for a period, where more than the part of time decides.
//!
//! A plan has a price rated by segment, and its credits follow from `rate(now) − what was issued`. These are the rules of
//! contracts that say otherwise.

use super::bounds::for_days;
use crate::{
    error::Result,
    functions::prorate::SHARE_DIGITS,
    money::{Exact, Rounding, share},
};

/// An amount for what is left of a period at an instant, by elapsed time: all of it at its start and before, nothing from its
/// end on. A period without time has nothing left.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn for_the_rest(amount: Exact, at_us: i64, start_us: i64, end_us: i64) -> Result<Exact> {
    let whole_us = i128::from(end_us) - i128::from(start_us);
    let left_us = (i128::from(end_us) - i128::from(at_us)).min(whole_us);
    if left_us <= 0 {
        return Ok(Exact::ZERO);
    }
    let (part, whole) = (Exact::new(left_us, 0)?, Exact::new(whole_us, 0)?);
    Ok(share(
        amount,
        part,
        whole,
        SHARE_DIGITS,
        Rounding::HalfAway,
    )?)
}

/// How much of a credit is given for a line of `original` of which `given` was given back before: never more than the rest of the
/// line, and never below zero.
///
/// # Errors
/// [`crate::Error::Money`] past 38 digits.
pub fn capped_credit(credit: Exact, original: Exact, given: Exact) -> Result<Exact> {
    let rest = original.checked_sub(given)?;
    Ok(credit.min(rest).max(Exact::ZERO))
}

/// Seats of one period that are paid up to the most there were: one above that pays for the days that are left, with the day on
/// which it comes. One that goes gives nothing back, and the next one in its place costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatsAtMost {
    unit_amount: Exact,
    period_days: i64,
    seats: Exact,
    most: Exact,
    amount: Exact,
}

impl SeatsAtMost {
    /// A period without seats, in which one costs this for all days.
    pub fn new(unit_amount: Exact, period_days: i64) -> Self {
        Self {
            unit_amount,
            period_days,
            seats: Exact::ZERO,
            most: Exact::ZERO,
            amount: Exact::ZERO,
        }
    }

    /// Seats come (or go, below zero) on a day of the period, counted from 1. Changes come in order of time.
    ///
    /// # Errors
    /// [`crate::Error::Money`] past 38 digits, and for a period without days.
    pub fn change(&mut self, day: i64, seats: Exact) -> Result<()> {
        self.seats = self.seats.checked_add(seats)?;
        if self.seats > self.most {
            let added = self.seats.checked_sub(self.most)?;
            let days = (self.period_days - day + 1).clamp(0, self.period_days);
            let full = self.unit_amount.checked_mul(added)?;
            let part = for_days(full, days, self.period_days)?;
            self.amount = self.amount.checked_add(part)?;
            self.most = self.seats;
        }
        Ok(())
    }

    /// How many there are.
    pub fn seats(&self) -> Exact {
        self.seats
    }

    /// What they cost so far.
    pub fn amount(&self) -> Exact {
        self.amount
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    #[test]
    fn the_rest_of_a_period_is_by_elapsed_time() {
        for (at_us, rest) in [
            (-5, "90"),
            (0, "90"),
            (10, "60"),
            (20, "30"),
            (30, "0"),
            (31, "0"),
        ] {
            assert_eq!(
                for_the_rest(exact("90"), at_us, 0, 30).unwrap(),
                exact(rest),
                "{at_us}"
            );
        }
        let third = for_the_rest(exact("10"), 20, 0, 30).unwrap();
        assert_eq!(third, exact("3.333333333333333333"));
        assert_eq!(for_the_rest(exact("90"), 0, 0, 0).unwrap(), Exact::ZERO);
        assert_eq!(for_the_rest(exact("90"), 5, 7, 3).unwrap(), Exact::ZERO);
        let all = for_the_rest(exact("90"), i64::MIN, i64::MIN, i64::MAX);
        assert_eq!(all.unwrap(), exact("90"));
    }

    #[test]
    fn a_credit_is_at_most_what_is_left_of_its_line() {
        for (credit, original, given, expected) in [
            ("30", "100", "0", "30"),
            ("300", "200", "50", "150"),
            ("20", "200", "180", "20"),
            ("20.01", "200", "180", "20"),
            ("1", "200", "200", "0"),
            ("1", "200", "250", "0"),
            ("-1", "200", "0", "0"),
        ] {
            let capped = capped_credit(exact(credit), exact(original), exact(given));
            assert_eq!(
                capped.unwrap(),
                exact(expected),
                "{credit} {original} {given}"
            );
        }
    }

    #[test]
    fn seats_are_paid_up_to_the_most_there_were() {
        let mut seats = SeatsAtMost::new(exact("30"), 30);
        // Day by day: seats that come, how many there are, what they cost so far.
        for (day, change, now, amount) in [
            (1, "10", "10", "300"),
            (11, "-4", "6", "300"),
            (16, "3", "9", "300"),
            // One of the three is above ten: 15 of 30 days.
            (16, "2", "11", "315"),
            (30, "1", "12", "316"),
            (30, "-12", "0", "316"),
            (31, "20", "20", "316"),
        ] {
            seats.change(day, exact(change)).unwrap();
            assert_eq!(seats.seats(), exact(now), "{day} {change}");
            assert_eq!(seats.amount(), exact(amount), "{day} {change}");
        }
        assert!(
            SeatsAtMost::new(exact("1"), 0)
                .change(1, exact("1"))
                .is_err()
        );
    }
}
