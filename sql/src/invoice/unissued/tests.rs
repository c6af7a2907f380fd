//! What documents billed and what is unissued is the whole, and nothing is in both.

use super::*;
use crate::{
    definitions::{PlanDefinition, PlanTerms},
    error::Location,
    invoice::{
        Terms, assemble,
        basis::Basis,
        changes::{Issued, IssuedLine, change},
    },
    rating::Charge,
};
use proptest::prelude::*;

/// Billing periods are 100 long and begin at a time zone's offset.
const LENGTH: i64 = 100;
const NOW: i64 = 1_000;

/// What happens, in order.
#[derive(Debug, Clone)]
enum Step {
    /// Usage, or a correction when it is negative.
    Used {
        customer: usize,
        at: i64,
        units: i64,
    },
    /// Every customer on the plan and in the zone that hold now gets an invoice for the period that has this time, if no
    /// invoice covers a part of it.
    Issued { at: i64 },
    /// Periods begin elsewhere from now on.
    Zone { offset: i64 },
    /// A unit costs so much from now on: another plan.
    Plan { cost: usize },
}

const CUSTOMERS: [&str; 3] = ["acme", "cargo", "globex"];
const PLANS: [&str; 3] = ["free", "one", "two"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let used = (0..3_usize, 0..NOW, -9..99_i64).prop_map(|(customer, at, units)| Step::Used {
        customer,
        at,
        units,
    });
    let step = prop_oneof![
        6 => used,
        3 => (0..NOW).prop_map(|at| Step::Issued { at }),
        1 => (0..LENGTH).prop_map(|offset| Step::Zone { offset }),
        1 => (0..3_usize).prop_map(|cost| Step::Plan { cost }),
    ];
    prop::collection::vec(step, 0..40)
}

/// The billing periods of a zone that are over.
fn calendar(offset: i64) -> Vec<Period> {
    let starts = (-1..20).map(|n| offset + n * LENGTH);
    let periods = starts.map(|start_us| Period {
        start_us,
        end_us: start_us + LENGTH,
    });
    periods.filter(|period| period.end_us <= NOW).collect()
}

type Usage = Vec<(usize, i64, i64)>;

/// The invoice of a customer, of what is known now; `None` without usage.
fn draft(usage: &Usage, customer: usize, period: Period, plan: &str) -> Option<Invoice> {
    let cost = PLANS.iter().position(|known| *known == plan).unwrap();
    let within = |(who, at, _): &&(usize, i64, i64)| {
        *who == customer && *at >= period.start_us && *at < period.end_us
    };
    let units: Vec<i64> = usage
        .iter()
        .filter(within)
        .map(|(.., units)| *units)
        .collect();
    if units.is_empty() {
        return None;
    }
    let units: i64 = units.iter().sum();
    let plan = PlanDefinition {
        name: plan.into(),
        currency: "USD".into(),
        worth: Vec::new(),
        terms: PlanTerms::default(),
        prices: vec!["units".into()],
        at: Location::default(),
    };
    let charge = Charge {
        price: "units".into(),
        price_version: 1,
        customer: CUSTOMERS[customer].into(),
        dimensions: [].into(),
        quantity: Some(units.into()),
        amount: (units * i64::try_from(cost).unwrap()).into(),
        currency: "USD".into(),
        service: None,
        subscription: None,
        is_fixed: false,
        is_unused: false,
    };
    let terms = Terms {
        customer: CUSTOMERS[customer],
        plan: &plan,
        period,
        cut: "{}",
    };
    Some(assemble(&terms, &[charge]).unwrap())
}

/// A draft as a document.
fn issued(draft: &Invoice, number: usize) -> Issued {
    let lines = draft.lines.iter().map(|line| IssuedLine {
        price: line.price.as_deref().unwrap().to_owned(),
        dimensions: "{}".into(),
        quantity: line.quantity,
        amount_exact: line.amount_exact,
    });
    Issued {
        number: format!("INV-{number}"),
        customer: draft.customer.clone(),
        lines: lines.collect(),
        basis: None,
        total: draft.total.to_exact(),
        currency: "USD".into(),
    }
}

#[derive(Default)]
struct World {
    usage: Usage,
    offset: i64,
    plan: usize,
    /// Of each customer: period, plan and document.
    documents: Vec<(usize, Period, &'static str, Issued)>,
}

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Used {
                customer,
                at,
                units,
            } => self.usage.push((customer, at, units)),
            Step::Zone { offset } => self.offset = offset,
            Step::Plan { cost } => self.plan = cost,
            Step::Issued { at } => {
                let calendar = calendar(self.offset);
                let Some(period) = calendar
                    .into_iter()
                    .find(|p| p.start_us <= at && at < p.end_us)
                else {
                    return;
                };
                for customer in 0..CUSTOMERS.len() {
                    let overlaps = |(who, other, ..): &(usize, Period, &str, Issued)| {
                        *who == customer
                            && other.start_us < period.end_us
                            && period.start_us < other.end_us
                    };
                    if self.documents.iter().any(overlaps) {
                        continue;
                    }
                    if let Some(draft) = draft(&self.usage, customer, period, PLANS[self.plan]) {
                        let document = issued(&draft, self.documents.len());
                        self.documents
                            .push((customer, period, PLANS[self.plan], document));
                    }
                }
            }
        }
    }

    fn unissued(&self) -> Vec<Unissued> {
        let mut rows = Vec::new();
        for customer in 0..CUSTOMERS.len() {
            let own = || self.documents.iter().filter(|(who, ..)| *who == customer);
            let covered = own()
                .map(|(_, period, plan, _)| (*period, (*plan).to_owned()))
                .collect();
            for (period, plan) in periods(&covered, &calendar(self.offset), PLANS[self.plan]) {
                let now = draft(&self.usage, customer, period, &plan);
                let document = own().find(|(_, covered, ..)| *covered == period);
                match (document, now) {
                    (Some((.., document)), now) => {
                        let nothing = Basis::default();
                        let changed = change(document, now.as_ref(), &nothing).unwrap();
                        rows.extend(
                            changed.map(|changed| Unissued::of_change(&changed, &plan, period)),
                        );
                    }
                    (None, Some(now)) => rows.push(Unissued::of_draft(&now)),
                    (None, None) => {}
                }
            }
        }
        rows
    }

    /// What a unit of a customer at a time costs; `None` when the time is in no period that is over.
    fn cost(&self, customer: usize, at: i64) -> Option<usize> {
        let covers = |period: &Period| period.start_us <= at && at < period.end_us;
        let own = self
            .documents
            .iter()
            .find(|(who, period, ..)| *who == customer && covers(period));
        let of = |plan: &str| PLANS.iter().position(|known| *known == plan);
        match own {
            Some((_, _, plan, _)) => of(plan),
            None => calendar(self.offset)
                .iter()
                .any(covers)
                .then_some(self.plan),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_billed_and_what_is_unissued_is_the_whole_and_nothing_twice(steps in steps()) {
        let mut world = World::default();
        steps.iter().for_each(|step| world.take(step));
        let rows = world.unissued();
        for (customer, name) in CUSTOMERS.into_iter().enumerate() {
            // Worked out event by event, without periods.
            let whole = world.usage.iter().filter(|(who, ..)| *who == customer);
            let whole: i64 = whole
                .filter_map(|(_, at, units)| world.cost(customer, *at).map(|cost| units * i64::try_from(cost).unwrap()))
                .sum();
            let of = |row: &&Unissued| row.customer == name;
            let billed = world.documents.iter().filter(|(who, ..)| *who == customer);
            let amounts = billed
                .map(|(.., document)| document.total)
                .chain(rows.iter().filter(of).filter_map(|row| row.amount));
            let sum = amounts.fold(Exact::from(0_i64), |sum, amount| sum.checked_add(amount).unwrap());
            prop_assert_eq!(sum, Exact::from(whole));
            // No moment is in two rows, nor in a row of its own beside an invoice.
            let mut times: Vec<Period> = rows.iter().filter(of).map(|row| row.period).collect();
            times.sort();
            prop_assert!(times.windows(2).all(|pair| pair[0].end_us <= pair[1].start_us));
            for row in rows.iter().filter(of).filter(|row| row.number.is_none()) {
                let mut own = world.documents.iter().filter(|(who, ..)| *who == customer);
                let is_apart = |p: &Period| p.end_us <= row.period.start_us || row.period.end_us <= p.start_us;
                prop_assert!(own.all(|(_, period, ..)| is_apart(period)));
            }
        }
    }
}

#[test]
fn a_period_that_is_covered_in_part_is_told_in_parts() {
    let period = |start_us, end_us| Period { start_us, end_us };
    let own = |periods: &[(i64, i64)]| -> Covered {
        let periods = periods
            .iter()
            .map(|(start, end)| (period(*start, *end), "p".to_owned()));
        periods.collect()
    };
    let calendar = [period(0, 100), period(100, 200)];
    for (covered, expected) in [
        (&[][..], &[(0, 100), (100, 200)][..]),
        (&[(0, 100)], &[(0, 100), (100, 200)]),
        (&[(-20, 80)], &[(-20, 80), (80, 100), (100, 200)]),
        (&[(20, 120)], &[(0, 20), (20, 120), (120, 200)]),
        (&[(-50, 250)], &[(-50, 250)]),
        (
            &[(0, 20), (50, 60)],
            &[(0, 20), (20, 50), (50, 60), (60, 100), (100, 200)],
        ),
        (&[(300, 400)], &[(0, 100), (100, 200), (300, 400)]),
    ] {
        let found = periods(&own(covered), &calendar, "p");
        let found: Vec<(i64, i64)> = found.iter().map(|(p, _)| (p.start_us, p.end_us)).collect();
        assert_eq!(found, expected, "{covered:?}");
    }
}
