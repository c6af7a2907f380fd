//! What each customer must be billed: integers of cents, worked out from the generator's own record and from what the customer has
//! agreed to.
//!
//! It is the arithmetic of a person with the price list at hand. Nothing in it is the engine's.

use super::{
    accounts::{Plan, Region, Terms},
    generator::{MODELS, Tokens, Usage},
};
use std::ops::{Add, Range, Sub};

/// Millionths of a millionth of a dollar: what a token costs is a whole number of them.
const PICODOLLARS_PER_CENT: i128 = 10_000_000_000;

/// What a token costs in picodollars, by model: read, read from a cache, written.
const TOKEN_RATES: [(i128, i128, i128); MODELS.len()] = [
    (3_000_000, 300_000, 15_000_000),
    (800_000, 80_000, 4_000_000),
    (1_250_000, 125_000, 10_000_000),
    (150_000, 75_000, 600_000),
];

const CENTS_PER_TASK: i128 = 99;

/// What a microsecond of GPU costs in picodollars: in the first 100,000 seconds of a month, and after them.
const GPU_RATES: (i128, i128) = (900, 700);
const GPU_FIRST_US: i128 = 100_000_000_000;

const BASE_FEE_CENTS: i128 = 9_900;
const SEAT_CENTS: i128 = 1_500;
const MINIMUM_CENTS: i128 = 25_000;

/// What documents come to before prepaid credits, in cents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owed {
    /// What discounts take off its lines.
    pub(super) discount: i128,
    /// The tax on what is left.
    pub(super) tax: i128,
    /// What is left, and the tax.
    pub(super) total: i128,
}

/// What documents must say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) owed: Owed,
    /// What was paid in advance and pays of the total.
    pub(super) prepaid: i128,
}

/// One customer's books.
#[derive(Debug, Clone, Copy)]
pub(super) struct Book {
    terms: Terms,
    /// What all documents say so far.
    due: Due,
}

impl Book {
    /// Before the first month.
    pub(super) fn new(terms: Terms) -> Self {
        let due = Due::default();
        Book { terms, due }
    }

    /// Bills the first month, by what was used on each day; returns what all documents say then.
    pub(super) fn first(&mut self, days: &[Usage]) -> Due {
        self.bill(in_first_month(&self.terms, days))
    }

    /// Bills the second month, and what the first one comes to by now more than was billed.
    pub(super) fn second(&mut self, first: &[Usage], second: &[Usage]) -> Due {
        let late = in_first_month(&self.terms, first) - self.due.owed;
        self.bill(late + in_second_month(&self.terms, second))
    }

    fn bill(&mut self, owed: Owed) -> Due {
        let left = i128::from(self.terms.prepaid_dollars) * 100 - self.due.prepaid;
        self.due.prepaid += owed.total.clamp(0, left);
        self.due.owed = self.due.owed + owed;
        self.due
    }
}

impl Add for Owed {
    type Output = Owed;
    fn add(self, other: Owed) -> Owed {
        Owed {
            discount: self.discount + other.discount,
            tax: self.tax + other.tax,
            total: self.total + other.total,
        }
    }
}

impl Sub for Owed {
    type Output = Owed;
    fn sub(self, other: Owed) -> Owed {
        Owed {
            discount: self.discount - other.discount,
            tax: self.tax - other.tax,
            total: self.total - other.total,
        }
    }
}

/// The first month, in which plans begin, change and are on trial, by what was used on each day.
fn in_first_month(terms: &Terms, days: &[Usage]) -> Owed {
    let mut stretches = Vec::new();
    for (place, on) in terms.plans.iter().enumerate() {
        let next = terms.plans.get(place + 1);
        let until = next.map_or(days.len(), |next| next.from_day);
        let from = on.from_day.max(terms.trial_days);
        stretches.push((on.plan, on.seats, from..until));
    }
    owed(terms, &stretches, days)
}

/// The second month, all of it on the last plan.
fn in_second_month(terms: &Terms, days: &[Usage]) -> Owed {
    let last = terms.plans.iter().rev().take(1);
    let all: Vec<_> = last.map(|on| (on.plan, on.seats, 0..days.len())).collect();
    owed(terms, &all, days)
}

/// What a month comes to: the plans that are in force on some of its days each, less the discount, with the tax.
///
/// Only a customer without a discount has a minimum: the discount's share of each plan's lines would matter.
fn owed(terms: &Terms, stretches: &[(Plan, u32, Range<usize>)], days: &[Usage]) -> Owed {
    let plans = stretches.iter();
    let lines: i128 = plans
        .map(|(plan, seats, range)| {
            let (active, whole) = (range.len() as i128, days.len() as i128);
            let used = of_usage(&days[range.clone()].iter().sum());
            let share = |cents: i128| rounded(cents * active, whole);
            match plan {
                Plan::Payg => used,
                Plan::Team => used + share(BASE_FEE_CENTS) + share(SEAT_CENTS * i128::from(*seats)),
                Plan::Growth => used.max(share(MINIMUM_CENTS)),
            }
        })
        .sum();
    let discount = rounded(lines * i128::from(terms.percent_off), 100);
    let taxed = lines - discount;
    let tax = match terms.region {
        None => 0,
        Some(Region::Germany) => rounded(taxed * 19, 100),
        Some(Region::NewYork) => rounded(taxed * 8_875, 100_000),
    };
    Owed {
        discount,
        tax,
        total: taxed + tax,
    }
}

/// The lines of usage: one for each model, one for tasks, one for GPU time, each rounded once.
fn of_usage(usage: &Usage) -> i128 {
    let tokens = usage.tokens.iter().zip(TOKEN_RATES);
    let tokens: i128 = tokens.map(|(tokens, rates)| of_tokens(tokens, rates)).sum();
    tokens + CENTS_PER_TASK * i128::from(usage.resolved) + of_gpu(usage.gpu_us.into())
}

/// Tokens from a cache are among those that were read, and have a price of their own.
fn of_tokens(tokens: &Tokens, (read, cached, written): (i128, i128, i128)) -> i128 {
    let [input, from_cache, output] = [tokens.input, tokens.cached, tokens.output].map(i128::from);
    let picodollars = (input - from_cache) * read + from_cache * cached + output * written;
    rounded(picodollars, PICODOLLARS_PER_CENT)
}

fn of_gpu(us: i128) -> i128 {
    let first_us = us.min(GPU_FIRST_US);
    let picodollars = first_us * GPU_RATES.0 + (us - first_us) * GPU_RATES.1;
    rounded(picodollars, PICODOLLARS_PER_CENT)
}

/// A quotient of numbers that are not below zero, half of one rounded up.
fn rounded(numerator: i128, denominator: i128) -> i128 {
    (2 * numerator + denominator) / (2 * denominator)
}

#[cfg(test)]
mod tests {
    use super::{super::accounts::FEATURED, *};

    fn terms(customer: &str) -> Terms {
        *FEATURED
            .iter()
            .find(|terms| terms.customer == customer)
            .unwrap()
    }

    fn tasks(resolved: u64) -> Usage {
        Usage {
            resolved,
            ..Usage::default()
        }
    }

    #[test]
    fn usage_is_rounded_line_by_line() {
        // 1,000 at $3, 500 at $0.30, 100 at $15 a million: $0.003 + $0.00015 + $0.0015 = $0.00465, no cent.
        let little = Tokens {
            calls: 1,
            input: 1_500,
            cached: 500,
            output: 100,
        };
        assert_eq!(of_tokens(&little, TOKEN_RATES[0]), 0);
        // 995 at $3, 500 at $0.30, 124 at $15 a million: $0.002985 + $0.00015 + $0.00186 = $0.004995; with five more read $0.00501.
        let half = Tokens {
            input: 1_500,
            output: 124,
            ..little
        };
        let less = Tokens {
            input: 1_495,
            ..half
        };
        assert_eq!(of_tokens(&less, TOKEN_RATES[0]), 0);
        assert_eq!(of_tokens(&half, TOKEN_RATES[0]), 1);
        // 150,000 s: $90 for the first 100,000, and $35.
        assert_eq!(of_gpu(150_000_000_000), 12_500);
        assert_eq!(of_gpu(100_000_000_000), 9_000);
    }

    #[test]
    fn a_month_has_base_fee_seats_discount_and_tax() {
        let mut days = vec![Usage::default(); 30];
        days[3] = tasks(100);
        // 99 + 12 · 15 + 100 · 0.99 = 378.00; 37.80 off; 19 % of 340.20 is 64.638.
        let halcyon = Owed {
            discount: 3_780,
            tax: 6_464,
            total: 40_484,
        };
        assert_eq!(in_first_month(&terms("halcyon-health"), &days), halcyon);
        assert_eq!(in_second_month(&terms("halcyon-health"), &days), halcyon);
        // 8.875 % of 99.00 is 8.78625.
        let bank = in_first_month(&terms("northgate-bank"), &days);
        assert_eq!((bank.tax, bank.total), (879, 10_779));
    }

    #[test]
    fn an_upgrade_and_a_trial_are_by_the_day_and_a_minimum_is_reached() {
        let mut days = vec![Usage::default(); 31];
        days[13] = tasks(10);
        days[14] = tasks(100);
        // 108.90 of tasks, and 16 of 31 days of 99 and of 8 · 15: 51.097 and 61.935.
        let acme = in_first_month(&terms("acme"), &days);
        assert_eq!(acme.total, 10_890 + 5_110 + 6_194);
        assert_eq!(
            in_second_month(&terms("acme"), &days).total,
            10_890 + 21_900
        );
        // Ten tasks on the last day of the trial are free; 17 of 31 days of 99 and of 45 are 54.290 and 24.677.
        let kestrel = in_first_month(&terms("kestrel-air"), &days);
        assert_eq!(kestrel.total, 9_900 + 5_429 + 2_468);
        assert_eq!(in_first_month(&terms("hollow-oak"), &days).total, 25_000);
        days[20] = tasks(200);
        assert_eq!(in_second_month(&terms("hollow-oak"), &days).total, 30_690);
    }

    #[test]
    fn what_comes_late_is_on_the_next_document_and_credits_run_out() {
        let mut first = vec![Usage::default(); 30];
        let second = vec![tasks(0); 31];
        first[3] = tasks(1_200);
        let mut book = Book::new(terms("halcyon-health"));
        // 279 and 1,188 less 10 % are 1,320.30, with 19 % 1,571.157.
        let due = book.first(&first);
        assert_eq!((due.owed.total, due.prepaid), (157_116, 157_116));
        // 18.81 more: 19 % of 1,337.23 are 254.0737, 3.21 more than before; and 279 less 10 % with 19 %, 298.81.
        first[4] = tasks(19);
        let both = book.second(&first, &second);
        let next = both.owed - due.owed;
        assert_eq!(next.discount, 188 + 2_790);
        assert_eq!(next.total, 1_693 + 321 + 29_881);
        assert_eq!(both.prepaid, 180_000);
        // Below the minimum more usage costs nothing more.
        let mut book = Book::new(terms("hollow-oak"));
        assert_eq!(book.first(&[tasks(1); 30]).owed.total, 25_000);
        assert_eq!(book.second(&[tasks(2); 30], &second).owed.total, 50_000);
    }
}
