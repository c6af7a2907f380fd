use super::*;
use crate::{
    accounts::{DiscountKind, GrantKind},
    money::Exact,
};
use proptest::prelude::*;

fn customer(customer: &str, name: &str, valid_from_us: Option<i64>) -> Customer {
    Customer {
        customer: customer.into(),
        name: Some(name.into()),
        email: None,
        currency: None,
        time_zone: None,
        tax_region: None,
        tax_exempt: false,
        valid_from_us,
    }
}

fn subject(subject: &str, customer: &str, valid_from_us: Option<i64>) -> Subject {
    Subject {
        subject: subject.into(),
        customer: customer.into(),
        valid_from_us,
    }
}

fn subscription(subscription: &str, customer: &str, plan: &str, starts_at_us: i64) -> Subscription {
    Subscription {
        subscription: subscription.into(),
        customer: customer.into(),
        plan: plan.into(),
        seats: 1,
        starts_at_us,
        ends_at_us: None,
        trial_ends_at_us: None,
        anchor_us: None,
        minimum: None,
        maximum: None,
    }
}

fn grant(grant: &str, customer: &str, effective_at_us: i64, voided_at_us: Option<i64>) -> Grant {
    Grant {
        grant: grant.into(),
        customer: customer.into(),
        amount: Exact::from(100_i64),
        currency: "USD".into(),
        priority: 0,
        effective_at_us,
        expires_at_us: None,
        applies_to: Vec::new(),
        kind: GrantKind::Prepaid,
        recurs_every: None,
        rollover_min: Exact::ZERO,
        rollover_max: Exact::ZERO,
        voided_at_us,
    }
}

fn discount(discount: &str, customer: &str, value: i64) -> Discount {
    Discount {
        discount: discount.into(),
        customer: customer.into(),
        kind: DiscountKind::Percent,
        value: Exact::from(value),
        currency: None,
        starts_at_us: None,
        ends_at_us: None,
        applies_to: Vec::new(),
        position: 0,
    }
}

/// Rows in the order of writing as (since, name), then what is asked and answered.
#[test]
fn newest_row_that_holds_from_before_is_what_is_said_at_an_instant() {
    type Case<'a> = (&'a [(Option<i64>, &'a str)], i64, Option<&'a str>);
    let cases: &[Case<'_>] = &[
        (&[], 0, None),
        // Since ever, at every time there is.
        (&[(None, "a")], i64::MIN, Some("a")),
        (&[(None, "a")], i64::MAX, Some("a")),
        // A row begins at its own instant.
        (&[(Some(10), "a")], 9, None),
        (&[(Some(10), "a")], 10, Some("a")),
        (&[(Some(10), "a")], 11, Some("a")),
        (&[(None, "a"), (Some(10), "b")], 9, Some("a")),
        (&[(None, "a"), (Some(10), "b")], 10, Some("b")),
        // The order of writing does not matter between times.
        (&[(Some(10), "b"), (None, "a")], 9, Some("a")),
        (&[(Some(10), "b"), (None, "a")], 10, Some("b")),
        (
            &[(Some(20), "c"), (Some(10), "b"), (None, "a")],
            19,
            Some("b"),
        ),
        // With one key and time, the row that was written later stands.
        (&[(Some(10), "a"), (Some(10), "b")], 10, Some("b")),
        (&[(Some(10), "b"), (Some(10), "a")], 10, Some("a")),
        (&[(None, "a"), (None, "b"), (Some(10), "c")], 9, Some("b")),
        (&[(None, "a"), (Some(10), "c"), (None, "b")], 9, Some("b")),
        (&[(None, "a"), (Some(10), "c"), (None, "b")], 10, Some("c")),
        // Since ever is not the earliest instant.
        (&[(Some(i64::MIN), "a"), (None, "b")], i64::MIN, Some("a")),
        (&[(Some(0), "a"), (None, "b")], -1, Some("b")),
    ];
    for (rows, at_us, expected) in cases {
        // Rows of neighbours in the order of names change nothing.
        let other = ["acm", "acme-2", "acme2", ""].map(|name| (name, (None, "no")));
        let rows = rows.iter().map(|row| ("acme", *row)).chain(other);
        let (mut customers, mut subjects) = (Vec::new(), Vec::new());
        for (key, (since, name)) in rows {
            customers.push(customer(key, name, since));
            subjects.push(subject(key, name, since));
        }
        let accounts = Accounts {
            customers,
            subjects,
            ..Accounts::default()
        };
        let index = accounts.clone().indexed();
        let found = index.customer_at("acme", *at_us);
        let found = found.and_then(|row| row.name.as_deref());
        assert_eq!(found, *expected, "{:?} at {at_us}", accounts.customers);
        assert_eq!(index.payer_at("acme", *at_us), *expected);
    }
}

#[test]
fn payers_of_a_subject_follow_one_another_without_gap_or_overlap() {
    let payer = |from_us, to_us, customer| Payer {
        from_us,
        to_us,
        customer,
    };
    type Rows<'a> = &'a [(Option<i64>, &'a str)];
    let cases: &[(Rows<'_>, &[Payer<'_>])] = &[
        (&[], &[]),
        (&[(None, "a")], &[payer(None, None, "a")]),
        (&[(Some(5), "a")], &[payer(Some(5), None, "a")]),
        (
            &[(Some(7), "b"), (None, "a")],
            &[payer(None, Some(7), "a"), payer(Some(7), None, "b")],
        ),
        // Back to the first.
        (
            &[(None, "a"), (Some(7), "b"), (Some(9), "a")],
            &[
                payer(None, Some(7), "a"),
                payer(Some(7), Some(9), "b"),
                payer(Some(9), None, "a"),
            ],
        ),
        // The same customer said again is one span.
        (
            &[(None, "a"), (Some(3), "a"), (Some(7), "b")],
            &[payer(None, Some(7), "a"), payer(Some(7), None, "b")],
        ),
        // A hand-over that was taken back by a later row for the same time.
        (
            &[(None, "a"), (Some(7), "b"), (Some(7), "a")],
            &[payer(None, None, "a")],
        ),
    ];
    for (rows, expected) in cases {
        let rows = rows.iter().map(|(since, name)| subject("s", name, *since));
        let accounts = Accounts {
            subjects: rows.chain([subject("t", "c", None)]).collect(),
            ..Accounts::default()
        };
        assert_eq!(accounts.indexed().payers_of("s"), *expected);
    }
}

#[test]
fn rows_are_found_by_customer_whatever_their_names() {
    let accounts = Accounts {
        customers: vec![customer("b", "B", None), customer("a", "A", None)],
        subjects: vec![
            subject("s2", "a", None),
            subject("s1", "b", None),
            subject("s1", "a", Some(5)),
            subject("s1", "a", Some(9)),
        ],
        subscriptions: vec![
            subscription("z", "a", "big", 10),
            subscription("m", "b", "small", 0),
            subscription("z", "a", "small", 0),
            subscription("a", "a", "extra", 3),
            // Written later for the same time.
            subscription("z", "a", "huge", 10),
        ],
        grants: vec![
            grant("g2", "a", 0, None),
            grant("g1", "a", 5, None),
            grant("g3", "b", 0, None),
            // The last row of a key stands, though it is effective before.
            grant("g1", "a", 4, Some(9)),
        ],
        discounts: vec![discount("d", "a", 10), discount("d", "a", 20)],
        ..Accounts::default()
    };
    let index = accounts.indexed();
    assert_eq!(index.customers().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(index.subjects().collect::<Vec<_>>(), ["s1", "s2"]);
    assert_eq!(index.subjects_of("a").collect::<Vec<_>>(), ["s1", "s2"]);
    assert_eq!(index.subjects_of("b").collect::<Vec<_>>(), ["s1"]);
    assert_eq!(index.subjects_of("c").count(), 0);
    let rows: Vec<Vec<(&str, &str, i64)>> = index
        .subscriptions_of("a")
        .map(|rows| {
            let row = |row: &'_ Subscription| row.starts_at_us;
            let rows = rows.iter();
            rows.map(|r| (r.subscription.as_str(), r.plan.as_str(), row(r)))
                .collect()
        })
        .collect();
    assert_eq!(
        rows,
        [
            vec![("a", "extra", 3)],
            vec![("z", "small", 0), ("z", "huge", 10)]
        ]
    );
    assert_eq!(index.subscription("m").len(), 1);
    assert_eq!(index.subscriptions().count(), 3);
    let grants: Vec<_> = index.grants_of("a").collect();
    assert_eq!(grants.len(), 2);
    assert_eq!(grants[0], &grant("g1", "a", 4, Some(9)));
    assert_eq!(index.grant("g1"), Some(grants[0]));
    assert_eq!(index.grants().len(), 3);
    assert_eq!(
        index.discounts_of("a").collect::<Vec<_>>(),
        [&discount("d", "a", 20)]
    );
    assert_eq!(index.one_offs_of("a").count(), 0);
    assert!(!index.is_empty());
    assert!(Accounts::default().indexed().is_empty());
}

/// Ends are the first instants that do not count, beginnings count.
#[test]
fn what_holds_at_an_instant_begins_at_its_start_and_not_at_its_end() {
    let mut ending = subscription("s", "c", "big", 10);
    ending.ends_at_us = Some(20);
    let mut expiring = grant("g", "c", 10, None);
    expiring.expires_at_us = Some(20);
    let mut discounted = discount("d", "c", 5);
    (discounted.starts_at_us, discounted.ends_at_us) = (Some(10), Some(20));
    let one_off = OneOff {
        one_off: "o".into(),
        customer: "c".into(),
        amount: Exact::from(1_i64),
        currency: "USD".into(),
        text: "o".into(),
        date_us: 10,
    };
    let accounts = Accounts {
        customers: vec![customer("c", "old", None), customer("c", "new", Some(10))],
        subjects: vec![subject("x", "c", Some(10))],
        subscriptions: vec![ending],
        grants: vec![expiring, grant("void", "c", 0, Some(20))],
        one_offs: vec![one_off],
        discounts: vec![discounted],
        ..Accounts::default()
    };
    let index = accounts.indexed();
    let at = |us: i64| {
        let accounts = index.at(us);
        let names = accounts
            .customers
            .iter()
            .filter_map(|row| row.name.as_deref());
        let grants = accounts.grants.iter().map(|row| row.grant.as_str());
        (
            names.collect::<Vec<_>>().join(","),
            grants.collect::<Vec<_>>().join(","),
            [
                accounts.subjects.len(),
                accounts.subscriptions.len(),
                accounts.one_offs.len(),
                accounts.discounts.len(),
            ],
        )
    };
    let texts = |names: &str, grants: &str, counts| (names.to_owned(), grants.to_owned(), counts);
    assert_eq!(at(-1), texts("old", "", [0, 0, 0, 0]));
    assert_eq!(at(9), texts("old", "void", [0, 0, 0, 0]));
    assert_eq!(at(10), texts("new", "g,void", [1, 1, 1, 1]));
    assert_eq!(at(19), texts("new", "g,void", [1, 1, 1, 1]));
    assert_eq!(at(20), texts("new", "", [1, 0, 1, 0]));
}

proptest! {
    /// The index says what reading all rows says: the last written of those with the latest time that is not after.
    #[test]
    fn index_says_what_reading_all_rows_says(
        rows in prop::collection::vec((0_u8..4, prop::option::of(-3_i64..4), 0_u8..3), 0..24),
        at_us in -5_i64..6,
    ) {
        let rows = rows.iter().map(|(key, since, payer)| {
            subject(&format!("s{key}"), &format!("c{payer}"), *since)
        });
        let subjects: Vec<Subject> = rows.collect();
        let index = Accounts { subjects: subjects.clone(), ..Accounts::default() }.indexed();
        for key in ["s0", "s1", "s2", "s3"] {
            let of_key = subjects.iter().filter(|row| row.subject == key);
            let held = of_key.filter(|row| row.valid_from_us.is_none_or(|from| from <= at_us));
            // `max_by_key` takes the last of equals.
            let newest = held.max_by_key(|row| row.valid_from_us);
            let expected = newest.map(|row| row.customer.as_str());
            prop_assert_eq!(index.payer_at(key, at_us), expected);
            let spans = index.payers_of(key);
            let within = spans.iter().filter(|span| {
                span.from_us.is_none_or(|from| from <= at_us) && span.to_us.is_none_or(|to| at_us < to)
            });
            prop_assert_eq!(within.map(|span| span.customer).collect::<Vec<_>>(), Vec::from_iter(expected));
        }
        let again = index.clone().into_accounts().indexed();
        prop_assert_eq!(again, index);
    }
}
