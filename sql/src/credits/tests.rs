use super::{turns::Turns, *};
use crate::Error;
use jiff::Timestamp;
use proptest::prelude::*;

fn us(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_microsecond()
}

/// Midnight of a day, UTC.
fn day(text: &str) -> i64 {
    us(&format!("{text}T00:00:00Z"))
}

/// The last instant before a day.
fn before(text: &str) -> i64 {
    day(text) - 1
}

fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

/// A prepaid grant of 100 that is in force from 2026 on.
fn grant(name: &str) -> Grant {
    Grant {
        grant: name.into(),
        customer: "acme".into(),
        amount: exact("100"),
        currency: "USD".into(),
        priority: 0,
        effective_at_us: day("2026-01-01"),
        expires_at_us: None,
        applies_to: Vec::new(),
        kind: GrantKind::Prepaid,
        recurs_every: None,
        rollover_min: Exact::ZERO,
        rollover_max: Exact::ZERO,
        voided_at_us: None,
    }
}

fn monthly(min: &str, max: &str) -> Grant {
    Grant {
        recurs_every: Some("month".into()),
        rollover_min: exact(min),
        rollover_max: exact(max),
        ..grant("g")
    }
}

fn burnt(grant: &str, at_us: i64, amount: &str) -> Burn {
    Burn {
        grant: grant.into(),
        at_us,
        amount: exact(amount),
    }
}

/// `grant amount` of each burn for one line of a price.
fn paid(grants: &[&Grant], so_far: &[Burn], at_us: i64, amount: &str) -> Vec<String> {
    let owed = [(Some("api"), exact(amount))];
    let burns = burn(grants, so_far, at_us, GrantKind::Prepaid, &owed).unwrap();
    let text = |burn: &Burn| format!("{} {}", burn.grant, burn.amount);
    burns.iter().map(text).collect()
}

#[test]
fn a_grant_is_in_force_from_its_start_to_before_its_end() {
    let of = |expires: Option<&str>, voided: Option<&str>| Grant {
        expires_at_us: expires.map(day),
        voided_at_us: voided.map(day),
        ..grant("g")
    };
    for (grant, at_us, left) in [
        (of(None, None), before("2026-01-01"), "0"),
        (of(None, None), day("2026-01-01"), "100"),
        (of(None, None), day("2999-01-01"), "100"),
        (of(Some("2026-02-01"), None), before("2026-02-01"), "100"),
        (of(Some("2026-02-01"), None), day("2026-02-01"), "0"),
        (of(None, Some("2026-02-01")), before("2026-02-01"), "100"),
        (of(None, Some("2026-02-01")), day("2026-02-01"), "0"),
        (
            of(Some("2026-03-01"), Some("2026-02-01")),
            day("2026-02-01"),
            "0",
        ),
        (
            of(Some("2026-02-01"), Some("2026-03-01")),
            day("2026-02-01"),
            "0",
        ),
        // Voided before it began: it never was.
        (of(None, Some("2025-12-01")), day("2026-01-01"), "0"),
        (of(None, Some("2026-01-01")), day("2026-01-01"), "0"),
    ] {
        assert_eq!(
            balance(&grant, &[], at_us).unwrap(),
            exact(left),
            "{grant:?} {at_us}"
        );
        let paid = paid(&[&grant], &[], at_us, "1000");
        let expected = (left != "0").then(|| format!("g {left}"));
        assert_eq!(paid, Vec::from_iter(expected), "{grant:?} {at_us}");
    }
}

#[test]
fn grants_pay_by_priority_then_expiry_then_start_then_name() {
    let low = Grant {
        priority: -1,
        ..grant("z")
    };
    let soon = Grant {
        expires_at_us: Some(day("2026-06-01")),
        ..grant("y")
    };
    let later = Grant {
        expires_at_us: Some(day("2026-07-01")),
        ..grant("x")
    };
    let older = Grant {
        effective_at_us: day("2025-01-01"),
        ..grant("w")
    };
    let (a, b) = (grant("a"), grant("b"));
    let high = Grant {
        priority: 1,
        expires_at_us: Some(day("2026-05-01")),
        ..grant("0")
    };
    let at_us = before("2026-02-01");
    let grants = [&high, &b, &older, &a, &later, &soon, &low];
    assert_eq!(
        paid(&grants, &[], at_us, "650.5"),
        [
            "z 100", "y 100", "x 100", "w 100", "a 100", "b 100", "0 50.5"
        ]
    );
    // Never more than is owed, and never more than there is.
    assert_eq!(paid(&grants, &[], at_us, "100"), ["z 100"]);
    assert_eq!(paid(&grants, &[], at_us, "701").len(), 7);
    for nothing in ["0", "-5"] {
        assert!(paid(&grants, &[], at_us, nothing).is_empty());
    }
    // What was burnt is not burnt again.
    let so_far = [burnt("z", at_us, "99.99"), burnt("y", at_us, "100")];
    assert_eq!(paid(&grants, &so_far, at_us, "1"), ["z 0.01", "x 0.99"]);
}

#[test]
fn a_grant_pays_the_lines_of_its_prices_in_their_order() {
    let limited = Grant {
        applies_to: vec!["api".into(), "storage".into()],
        ..grant("a")
    };
    let all = grant("b");
    let promotional = Grant {
        kind: GrantKind::Promotional,
        ..grant("p")
    };
    let lines = [
        (Some("seats"), exact("30")),
        (Some("storage"), exact("80")),
        (Some("api"), exact("-10")),
        (None, exact("15")),
        (Some("api"), exact("60")),
    ];
    let grants = [&promotional, &all, &limited];
    let pay = |kind| -> Vec<(usize, String)> {
        let paid = pay(&grants, &[], day("2026-02-01"), kind, &lines).unwrap();
        let text = |paid: Payment| {
            (
                paid.line,
                format!("{} {}", paid.burn.grant, paid.burn.amount),
            )
        };
        paid.into_iter().map(text).collect()
    };
    let rows = |rows: &[(usize, &str)]| -> Vec<(usize, String)> {
        rows.iter()
            .map(|(line, text)| (*line, (*text).to_owned()))
            .collect()
    };
    assert_eq!(
        pay(GrantKind::Prepaid),
        rows(&[
            (1, "a 80"),
            (4, "a 20"),
            (0, "b 30"),
            (3, "b 15"),
            (4, "b 40")
        ])
    );
    assert_eq!(
        pay(GrantKind::Promotional),
        rows(&[(0, "p 30"), (1, "p 70")])
    );
}

#[test]
fn a_recurrence_sets_the_balance_anew_and_carries_over_what_it_may() {
    // 100, burnt at the end of January, and what is left on 1 February.
    for (min, max, burn, left) in [
        ("0", "0", "30", "100"),
        ("0", "50", "30", "150"),
        ("0", "50", "80", "120"),
        ("0", "1000", "30", "170"),
        ("25", "50", "80", "125"),
        ("25", "50", "100", "125"),
        // The most is less than the least: the most holds.
        ("25", "10", "100", "110"),
    ] {
        let grant = monthly(min, max);
        let so_far = [burnt("g", before("2026-02-01"), burn)];
        let rest = exact("100").checked_sub(exact(burn)).unwrap();
        let at = |at_us| balance(&grant, &so_far, at_us).unwrap();
        assert_eq!(at(before("2026-02-01")), rest, "{min} {max} {burn}");
        assert_eq!(at(day("2026-02-01")), exact(left), "{min} {max} {burn}");
    }
    // From the 31st, it recurs on the last day of shorter months, and goes back to the 31st.
    let grant = Grant {
        effective_at_us: us("2026-01-31T12:00:00Z"),
        ..monthly("0", "0")
    };
    let so_far = ["2026-02-10", "2026-03-10", "2026-04-10"].map(|text| burnt("g", day(text), "40"));
    for (at, left) in [
        ("2026-02-28T11:59:59.999999Z", "60"),
        ("2026-02-28T12:00:00Z", "100"),
        ("2026-03-31T11:59:59Z", "60"),
        ("2026-03-31T12:00:00Z", "100"),
        ("2026-04-30T11:59:59Z", "60"),
        ("2026-04-30T12:00:00Z", "100"),
    ] {
        assert_eq!(
            balance(&grant, &so_far, us(at)).unwrap(),
            exact(left),
            "{at}"
        );
    }
    // Not at its end, and not after it.
    let ends = Grant {
        expires_at_us: Some(day("2026-02-01")),
        ..monthly("0", "0")
    };
    assert_eq!(balance(&ends, &[], day("2026-02-01")).unwrap(), Exact::ZERO);
    let unread = Grant {
        recurs_every: Some("fortnight".into()),
        ..grant
    };
    match balance(&unread, &[], 0) {
        Err(error @ Error::Credits { .. }) => assert_eq!(
            error.to_string(),
            "grant `g`: `fortnight` is not how often a grant recurs"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn late_usage_takes_nothing_that_later_burns_have_taken() {
    let (january, february) = (before("2026-02-01"), before("2026-03-01"));
    let once = grant("g");
    let so_far = [burnt("g", february, "80")];
    assert_eq!(paid(&[&once], &so_far, january, "50"), ["g 20"]);
    assert_eq!(balance(&once, &so_far, january).unwrap(), exact("100"));
    // A reset begins anew: January's rest is lost in any case.
    assert_eq!(
        paid(&[&monthly("0", "0")], &so_far, january, "50"),
        ["g 50"]
    );
    // 100 + 40 carried over, of which 130 were burnt: 30 of the 40 are gone.
    let so_far = [burnt("g", february, "130")];
    assert_eq!(
        paid(&[&monthly("0", "40")], &so_far, january, "90"),
        ["g 70"]
    );
    // The least that is carried over comes by itself.
    assert_eq!(
        paid(&[&monthly("30", "40")], &so_far, january, "120"),
        ["g 100"]
    );
    // What came back may be burnt again.
    let back = [burnt("g", february, "80"), burnt("g", february, "-50")];
    assert_eq!(paid(&[&once], &back, january, "90"), ["g 70"]);
}

#[test]
fn what_a_grant_had_paid_goes_back_while_its_occurrence_is_in_force() {
    let (january, march) = (before("2026-02-01"), before("2026-04-01"));
    let so_far = [burnt("a", january, "100"), burnt("b", january, "20")];
    let (a, b) = (grant("a"), grant("b"));
    let back = |grants: &[&Grant], by_us, amount: &str| -> Vec<String> {
        let less = [(Some("api"), exact(amount))];
        let paid = give_back(grants, &so_far, (january, by_us), GrantKind::Prepaid, &less).unwrap();
        let text = |paid: Payment| {
            assert_eq!((paid.line, paid.burn.at_us), (0, january));
            format!("{} {}", paid.burn.grant, paid.burn.amount)
        };
        paid.into_iter().map(text).collect()
    };
    assert_eq!(back(&[&a, &b], march, "50"), ["b -20", "a -30"]);
    // Never more than was paid.
    assert_eq!(back(&[&a, &b], march, "500"), ["b -20", "a -100"]);
    let gone = Grant {
        expires_at_us: Some(march),
        ..b.clone()
    };
    assert_eq!(back(&[&a, &gone], march, "50"), ["a -50"]);
    let void = Grant {
        voided_at_us: Some(march),
        ..a.clone()
    };
    assert_eq!(back(&[&void, &b], march, "50"), ["b -20"]);
    // The occurrence that paid is over: what would come back would be lost.
    let recurs = Grant {
        recurs_every: Some("month".into()),
        ..b.clone()
    };
    assert_eq!(back(&[&a, &recurs], january, "50"), ["b -20", "a -30"]);
    assert_eq!(back(&[&a, &recurs], march, "50"), ["a -50"]);
    let other = Grant {
        applies_to: vec!["seats".into()],
        ..b
    };
    assert_eq!(back(&[&a, &other], march, "50"), ["a -50"]);
}

fn told(entries: &[Entry]) -> Vec<String> {
    let text = |entry: &Entry| {
        let at = Timestamp::from_microsecond(entry.at_us + 1).unwrap();
        let at = at.strftime("%m-%d").to_string();
        let document = entry.document.as_deref().unwrap_or("-");
        format!(
            "{} {} {} {at} {document}",
            entry.grant,
            entry.kind.as_str(),
            entry.amount
        )
    };
    entries.iter().map(text).collect()
}

#[test]
fn the_rows_of_the_ledger_say_all_that_happened() {
    let recurs = Grant {
        expires_at_us: Some(day("2026-04-01")),
        ..monthly("25", "50")
    };
    let void = Grant {
        voided_at_us: Some(day("2026-03-01")),
        ..grant("v")
    };
    let never = Grant {
        voided_at_us: Some(day("2025-03-01")),
        ..grant("n")
    };
    let burns = [
        burnt("g", before("2026-02-01"), "30"),
        burnt("v", before("2026-02-01"), "10"),
        burnt("v", before("2026-02-01"), "-4"),
        burnt("g", before("2026-03-01"), "145"),
    ];
    let numbers = ["1", "1", "3", "2"];
    let issued = burns.iter().zip(numbers);
    let issued: Vec<Issued<'_>> = issued
        .map(|(burn, document)| Issued { burn, document })
        .collect();
    let grants = [&void, &recurs, &never];
    let entries = ledger(&grants, &issued, before("2026-05-01")).unwrap();
    assert_eq!(
        told(&entries),
        [
            "g grant 100 01-01 -",
            "g burn -30 02-01 1",
            "g expire -20 02-01 -",
            "g recur 100 02-01 -",
            "g burn -145 03-01 2",
            "g rollover 20 03-01 -",
            "g recur 100 03-01 -",
            "g expire -125 04-01 -",
            "v grant 100 01-01 -",
            "v burn -10 02-01 1",
            "v return 4 02-01 3",
            "v void -94 03-01 -",
        ]
    );
    check(&entries).unwrap();
    // No row is later than the time.
    let entries = ledger(&grants, &issued, day("2026-02-01")).unwrap();
    assert_eq!(told(&entries)[3], "g recur 100 02-01 -");
    assert_eq!(entries.len(), 7);
}

#[test]
fn the_table_holds_the_rows_as_they_are() {
    let burn = burnt("g", before("2026-02-01"), "0.01");
    let issued = [Issued {
        burn: &burn,
        document: "7",
    }];
    let entries = ledger(&[&grant("g")], &issued, day("2026-05-01")).unwrap();
    let rows = credit_ledger_batch(&entries).unwrap();
    let rows = arrow::util::pretty::pretty_format_batches(&[rows]).unwrap();
    let expected = "\
+-------+----------+-------+----------+----------+-----------------------------+----------+
| grant | customer | kind  | amount   | currency | at                          | document |
+-------+----------+-------+----------+----------+-----------------------------+----------+
| g     | acme     | grant | 100.0000 | USD      | 2026-01-01T00:00:00Z        |          |
| g     | acme     | burn  | -0.0100  | USD      | 2026-01-31T23:59:59.999999Z | 7        |
+-------+----------+-------+----------+----------+-----------------------------+----------+";
    assert_eq!(rows.to_string(), expected);
    let finer = Entry {
        amount: exact("0.00001"),
        ..entries[0].clone()
    };
    assert_eq!(
        credit_ledger_batch(&[finer]).unwrap_err().to_string(),
        "0.00001 does not fit exactly into 38 digits with 4 after the point"
    );
}

#[test]
fn a_void_that_reaches_back_leaves_what_was_burnt_after_it() {
    let void = Grant {
        voided_at_us: Some(day("2026-02-01")),
        ..grant("g")
    };
    let burn = burnt("g", before("2026-03-01"), "30");
    let issued = [Issued {
        burn: &burn,
        document: "1",
    }];
    let entries = ledger(&[&void], &issued, day("2026-05-01")).unwrap();
    assert_eq!(
        told(&entries),
        [
            "g grant 100 01-01 -",
            "g void -70 02-01 -",
            "g burn -30 03-01 1"
        ]
    );
    check(&entries).unwrap();
    assert!(paid(&[&void], &[burn], day("2026-02-01"), "1").is_empty());
}

#[test]
fn rows_that_do_not_add_up_are_refused() {
    let small = grant("g");
    let burn = burnt("g", before("2026-02-01"), "100.01");
    let issued = [Issued {
        burn: &burn,
        document: "1",
    }];
    let entries = ledger(&[&small], &issued, day("2026-05-01")).unwrap();
    assert_eq!(
        check(&entries).unwrap_err().to_string(),
        "grant `g`: 100 USD was granted until 2026-01-31T23:59:59.999999Z, and its rows in `credit_ledger` add up to -0.01"
    );
    let burn = burnt("g", before("2026-02-01"), "-0.01");
    let issued = [Issued {
        burn: &burn,
        document: "1",
    }];
    let entries = ledger(&[&small], &issued, day("2026-05-01")).unwrap();
    assert_eq!(
        check(&entries).unwrap_err().to_string(),
        "grant `g`: 100 USD was granted until 2026-01-31T23:59:59.999999Z, and its rows in `credit_ledger` add up to 100.01"
    );
}

const DAY_US: i64 = 86_400_000_000;

fn any_grant(name: usize) -> impl Strategy<Value = Grant> {
    let times = (
        0..20_i64,
        prop::option::of(1..60_i64),
        prop::option::of(1..60_i64),
    );
    let amounts = (1..500_i64, 0..100_i64, 0..100_i64);
    let recurs = prop::option::of(prop::sample::select(vec![
        "day", "week", "10 days", "month",
    ]));
    let limits = prop::sample::subsequence(vec!["api", "seats"], 0..=1);
    (times, amounts, recurs, limits, 0..2_i64).prop_map(
        move |((from, expires, voided), (amount, min, max), recurs, limits, priority)| Grant {
            amount: Exact::new(amount.into(), 2).unwrap(),
            priority,
            effective_at_us: from * DAY_US,
            expires_at_us: expires.map(|after| (from + after) * DAY_US),
            voided_at_us: voided.map(|at| at * DAY_US),
            applies_to: limits.into_iter().map(str::to_owned).collect(),
            recurs_every: recurs.map(str::to_owned),
            rollover_min: Exact::new(min.into(), 2).unwrap(),
            rollover_max: Exact::new(max.into(), 2).unwrap(),
            ..grant(&format!("g{name}"))
        },
    )
}

fn any_grants() -> impl Strategy<Value = Vec<Grant>> {
    (any_grant(0), any_grant(1), any_grant(2)).prop_map(|(a, b, c)| vec![a, b, c])
}

/// What is owed at some instants, in any order of time; below zero is taken back.
fn any_usage() -> impl Strategy<Value = Vec<(i64, bool, i64)>> {
    prop::collection::vec((0..70_i64, any::<bool>(), -150..400_i64), 0..12)
}

/// All burns, document by document.
fn run(grants: &[&Grant], usage: &[(i64, bool, i64)]) -> Vec<Burn> {
    let mut burns: Vec<Burn> = Vec::new();
    let mut now_us = 0;
    for (day, is_api, cents) in usage {
        let at_us = day * DAY_US - 1;
        now_us = now_us.max(at_us);
        let price = if *is_api { "api" } else { "seats" };
        let owed = [(Some(price), Exact::new(i128::from(cents.abs()), 2).unwrap())];
        let payments = match *cents < 0 {
            false => pay(grants, &burns, at_us, GrantKind::Prepaid, &owed),
            true => give_back(grants, &burns, (at_us, now_us), GrantKind::Prepaid, &owed),
        };
        let payments = payments.unwrap();
        let mut sum = Exact::ZERO;
        for payment in &payments {
            assert_eq!(payment.burn.amount.is_negative(), *cents < 0);
            sum = sum.checked_add(payment.burn.amount).unwrap();
        }
        let size = if *cents < 0 {
            Exact::ZERO.checked_sub(sum).unwrap()
        } else {
            sum
        };
        assert!(size <= owed[0].1);
        burns.extend(payments.into_iter().map(|payment| payment.burn));
    }
    burns
}

proptest! {
    #[test]
    fn the_order_of_grants_does_not_matter(grants in any_grants(), usage in any_usage()) {
        let forward: Vec<&Grant> = grants.iter().collect();
        let backward: Vec<&Grant> = grants.iter().rev().collect();
        prop_assert_eq!(run(&forward, &usage), run(&backward, &usage));
    }

    #[test]
    fn rows_add_up_to_the_balance_at_every_instant(grants in any_grants(), usage in any_usage()) {
        let grants: Vec<&Grant> = grants.iter().collect();
        let burns = run(&grants, &usage);
        let issued: Vec<Issued<'_>> = burns.iter().map(|burn| Issued { burn, document: "1" }).collect();
        for day in 0..75 {
            for at_us in [day * DAY_US - 1, day * DAY_US] {
                let entries = ledger(&grants, &issued, at_us).unwrap();
                prop_assert!(check(&entries).is_ok(), "{:?}", check(&entries));
                for grant in &grants {
                    let own = entries.iter().filter(|entry| entry.grant == grant.grant);
                    let sum = own.fold(Exact::ZERO, |sum, entry| sum.checked_add(entry.amount).unwrap());
                    prop_assert_eq!(sum, balance(grant, &burns, at_us).unwrap());
                }
            }
        }
        // What was granted is what was burnt, what is gone and what is left.
        let entries = ledger(&grants, &issued, 75 * DAY_US).unwrap();
        for grant in &grants {
            let sum_of = |kinds: &[EntryKind]| {
                let own = entries.iter().filter(|entry| entry.grant == grant.grant && kinds.contains(&entry.kind));
                own.fold(Exact::ZERO, |sum, entry| sum.checked_add(entry.amount).unwrap())
            };
            let granted = sum_of(&[EntryKind::Grant, EntryKind::Recur, EntryKind::Rollover]);
            let gone = sum_of(&[EntryKind::Expire, EntryKind::Void]);
            let own = burns.iter().filter(|burn| burn.grant == grant.grant);
            let burnt = own.fold(Exact::ZERO, |sum, burn| sum.checked_add(burn.amount).unwrap());
            let left = balance(grant, &burns, 75 * DAY_US).unwrap();
            let all = burnt.checked_add(left).unwrap().checked_sub(gone).unwrap();
            prop_assert_eq!(granted, all);
        }
    }

    #[test]
    fn all_that_is_available_can_be_burnt_and_no_more(grants in any_grants(), usage in any_usage(), day in 0..70_i64) {
        let refs: Vec<&Grant> = grants.iter().collect();
        let burns = run(&refs, &usage);
        let at_us = day * DAY_US;
        for grant in &grants {
            let available = Turns::of(grant, &burns, at_us).unwrap().available(at_us).unwrap();
            let adds_up = |amount: Exact| {
                let mut burns = burns.clone();
                burns.push(Burn { grant: grant.grant.clone(), at_us, amount });
                let issued: Vec<Issued<'_>> = burns.iter().map(|burn| Issued { burn, document: "1" }).collect();
                check(&ledger(&[grant], &issued, 75 * DAY_US).unwrap()).is_ok()
            };
            prop_assert!(adds_up(available));
            let cent = Exact::new(1, 2).unwrap();
            let mut ends = grant.expires_at_us.into_iter().chain(grant.voided_at_us);
            // A row that ended a grant after it was burnt leaves what was burnt.
            prop_assume!(ends.all(|end_us| at_us < end_us));
            prop_assert!(!adds_up(available.checked_add(cent).unwrap()));
        }
    }
}
