//! What the demo's customers have agreed to, and the files of accounts that say so.

use super::generator::{CUSTOMERS, Customer};
use std::fmt::Write;
use tollgate_sql::period::Period;

/// The plans of `prices.sql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Usage alone.
    Payg,
    /// Usage, a base fee and seats.
    Team,
    /// Usage, and a minimum.
    Growth,
}

/// A plan from a day of the first month on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OnPlan {
    pub(super) plan: Plan,
    pub(super) seats: u32,
    /// Counted from 0.
    pub(super) from_day: usize,
}

/// Where a customer is taxed, as `tax_rates.csv` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Region {
    Germany,
    NewYork,
}

/// What one customer has agreed to. Both months begin at midnight UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) customer: &'static str,
    /// The same in words; empty for who only pays what it uses.
    pub(super) words: &'static str,
    /// In the order of time, each up to the next.
    pub(super) plans: &'static [OnPlan],
    /// How many of the first month's days are free.
    pub(super) trial_days: usize,
    /// Per cent off everything.
    pub(super) percent_off: u8,
    /// Paid before the first month, in whole dollars.
    pub(super) prepaid_dollars: u32,
    pub(super) region: Option<Region>,
}

const PAYG: OnPlan = on(Plan::Payg, 1, 0);

/// Usage alone, by the name of nobody.
const USUAL: Terms = Terms {
    customer: "",
    words: "",
    plans: &[PAYG],
    trial_days: 0,
    percent_off: 0,
    prepaid_dollars: 0,
    region: None,
};

/// Who has more than usage to pay.
pub(super) const FEATURED: [Terms; 5] = [
    Terms {
        customer: "acme",
        words: "upgrades in mid-month: payg, and from the 16th team with 8 seats",
        plans: &[PAYG, on(Plan::Team, 8, 15)],
        ..USUAL
    },
    Terms {
        customer: "halcyon-health",
        words: "team with 12 seats, 10 % off, German tax of 19 %, $1800 paid in advance",
        plans: &[on(Plan::Team, 12, 0)],
        percent_off: 10,
        prepaid_dollars: 1_800,
        region: Some(Region::Germany),
        ..USUAL
    },
    Terms {
        customer: "hollow-oak",
        words: "growth: usage, and at least $250 a month",
        plans: &[on(Plan::Growth, 1, 0)],
        ..USUAL
    },
    Terms {
        customer: "kestrel-air",
        words: "team with 3 seats, after a trial of 14 days",
        plans: &[on(Plan::Team, 3, 0)],
        trial_days: 14,
        ..USUAL
    },
    Terms {
        customer: "northgate-bank",
        words: "payg, taxed in New York with 8.875 %",
        region: Some(Region::NewYork),
        ..USUAL
    },
];

const fn on(plan: Plan, seats: u32, from_day: usize) -> OnPlan {
    OnPlan {
        plan,
        seats,
        from_day,
    }
}

/// What a customer has agreed to.
pub(super) fn terms_of(customer: &Customer) -> Terms {
    let customer = customer.name;
    let own = FEATURED.iter().find(|terms| terms.customer == customer);
    own.copied().unwrap_or(Terms { customer, ..USUAL })
}

/// The names of the files, and what is in them: everyone, from the first month on.
pub(super) fn files(first: &Period) -> [(&'static str, String); 5] {
    let mut customers = "customer,currency,tax_region\n".to_owned();
    let mut subjects = "subject,customer\n".to_owned();
    let mut subscriptions = "subscription,customer,plan,seats,starts_at,trial_ends_at\n".to_owned();
    let mut grants = "grant,customer,amount,currency,kind,effective_at\n".to_owned();
    let mut discounts = "discount,customer,kind,value,starts_at\n".to_owned();
    let start = day(first, 0);
    for terms in CUSTOMERS.iter().map(terms_of) {
        let name = terms.customer;
        let region = terms.region.map_or("", Region::code);
        // Writing to a string cannot fail.
        let _ = writeln!(customers, "{name},USD,{region}");
        let _ = writeln!(subjects, "{name},{name}");
        for on in terms.plans {
            let (plan, seats, from) = (on.plan.name(), on.seats, day(first, on.from_day));
            let trial_ends = match terms.trial_days {
                0 => String::new(),
                days => day(first, days),
            };
            let _ = writeln!(
                subscriptions,
                "{name}-1,{name},{plan},{seats},{from},{trial_ends}"
            );
        }
        if terms.prepaid_dollars > 0 {
            let dollars = terms.prepaid_dollars;
            let _ = writeln!(
                grants,
                "{name}-paid,{name},{dollars}.00,USD,prepaid,{start}"
            );
        }
        if terms.percent_off > 0 {
            let percent = terms.percent_off;
            let _ = writeln!(discounts, "{name}-off,{name},percent,{percent},{start}");
        }
    }
    [
        ("customers.csv", customers),
        ("subjects.csv", subjects),
        ("subscriptions.csv", subscriptions),
        ("grants.csv", grants),
        ("discounts.csv", discounts),
    ]
}

/// A day of a month, counted from 0, as files of accounts have it.
fn day(month: &Period, day: usize) -> String {
    format!("{month}-{:02}", day + 1)
}

impl Plan {
    fn name(self) -> &'static str {
        match self {
            Plan::Payg => "payg",
            Plan::Team => "team",
            Plan::Growth => "growth",
        }
    }
}

impl Region {
    fn code(self) -> &'static str {
        match self {
            Region::Germany => "DE",
            Region::NewYork => "US-NY",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_than_usage_to_pay_is_a_customer_of_the_generator() {
        for terms in FEATURED {
            let known = CUSTOMERS.iter().filter(|c| c.name == terms.customer);
            assert_eq!(known.count(), 1, "{}", terms.customer);
            assert!(!terms.words.is_empty());
        }
    }

    #[test]
    fn the_files_say_it_in_rows() {
        let first = Period::month("2026-09", "UTC").unwrap();
        let files = files(&first);
        let has = |file: usize, row: &str| {
            assert!(files[file].1.lines().any(|line| line == row), "{row}");
        };
        has(0, "halcyon-health,USD,DE");
        has(0, "pixelforge,USD,");
        has(2, "acme-1,acme,payg,1,2026-09-01,");
        has(2, "acme-1,acme,team,8,2026-09-16,");
        has(2, "kestrel-air-1,kestrel-air,team,3,2026-09-01,2026-09-15");
        has(
            3,
            "halcyon-health-paid,halcyon-health,1800.00,USD,prepaid,2026-09-01",
        );
        has(4, "halcyon-health-off,halcyon-health,percent,10,2026-09-01");
        assert_eq!(files[1].1.lines().count(), 1 + 40);
        assert_eq!(files[2].1.lines().count(), 1 + 41);
    }
}
