use super::*;
use crate::{
    accounts::{Grant, GrantKind},
    credits::Burn,
    invoice::{
        Invoice, InvoiceId,
        document::{Document, Tax, document},
        tables::{line_items_batch, line_items_of},
    },
};
use std::sync::Arc;

const JANUARY: Period = Period {
    start_us: 0,
    end_us: 1_000,
};
const FEBRUARY: Period = Period {
    start_us: 1_000,
    end_us: 2_000,
};

fn usd() -> Currency {
    Currency::parse("USD").unwrap()
}

fn cents(minor: i128) -> Money {
    Money::of_minor(minor, usd())
}

/// A line of January.
fn line(kind: LineKind, price: Option<&str>, minor: i128) -> LineItem {
    LineItem {
        price: price.map(Arc::from),
        quantity: price.map(|_| Exact::new(minor, 0).unwrap()),
        ..LineItem::of(kind, cents(minor), JANUARY)
    }
}

fn usage(minor: i128) -> LineItem {
    line(LineKind::Usage, Some("api"), minor)
}

fn ten_percent() -> TaxOf {
    TaxOf {
        region: "X".into(),
        rate_percent: Exact::from(10_i64),
        is_included: false,
    }
}

fn taxed(lines: &[LineItem], tax: Option<TaxOf>) -> Vec<Taxed> {
    let lines = lines.iter().cloned();
    lines
        .map(|line| Taxed {
            line,
            tax: tax.clone(),
        })
        .collect()
}

fn correction(issued: &[LineItem], now: &[LineItem], tax: Option<TaxOf>) -> Correction {
    Correction {
        number: Some("INV-000001".into()),
        period: JANUARY,
        issued: issued.to_vec(),
        now: taxed(now, tax),
        beside: Vec::new(),
    }
}

/// A document of February with nothing of its own.
fn correcting(correction: &Correction, grants: &[&Grant], burnt: &[Burn]) -> Invoice {
    correcting_all(std::slice::from_ref(correction), grants, burnt)
}

fn correcting_all(corrections: &[Correction], grants: &[&Grant], burnt: &[Burn]) -> Invoice {
    let of = Document {
        id: InvoiceId::of_document("acme", FEBRUARY.end_us),
        customer: "acme",
        period: FEBRUARY,
        cut: "{}",
        currency: "USD",
        one_offs: &[],
        discounts: &[],
        tax: Tax::default(),
        grants,
        burnt,
        corrections,
        begun: &[],
    };
    document(of, &[]).unwrap()
}

fn grant(kind: GrantKind, expires_at_us: Option<i64>) -> Grant {
    Grant {
        grant: "g".into(),
        customer: "acme".into(),
        amount: Exact::from(100_i64),
        currency: "USD".into(),
        priority: 0,
        effective_at_us: 0,
        expires_at_us,
        applies_to: Vec::new(),
        kind,
        recurs_every: None,
        rollover_min: Exact::ZERO,
        rollover_max: Exact::ZERO,
        voided_at_us: None,
    }
}

fn burnt(minor: i128) -> Burn {
    Burn {
        grant: "g".into(),
        at_us: JANUARY.last_us(),
        amount: cents(minor).to_exact(),
    }
}

/// Kind, kind of what is corrected, amount and discount in cents.
fn told(lines: &[LineItem]) -> Vec<(LineKind, LineKind, i128, i128)> {
    let lines = lines.iter();
    lines
        .map(|line| {
            (
                line.kind,
                line.billed_kind(),
                line.amount.minor(),
                line.discount.minor(),
            )
        })
        .collect()
}

#[test]
fn each_difference_is_a_line_with_the_period_that_it_is_for() {
    use LineKind::{Adjustment, Minimum, Usage};
    // Usage of 30 topped up to 50; 10 more shrinks the top-up.
    let minimum = |minor| line(Minimum, None, minor);
    let issued = [usage(3_000), minimum(2_000)];
    let of = correction(&issued, &[usage(4_000), minimum(1_000)], None);
    let lines = of.differences(usd()).unwrap();
    assert_eq!(
        told(&lines),
        [
            (Adjustment, Usage, 1_000, 0),
            (Adjustment, Minimum, -1_000, 0)
        ]
    );
    assert_eq!(lines[0].quantity, Some(Exact::from(1_000_i64)));
    assert!(lines.iter().all(|line| line.period == JANUARY));
    assert_eq!(lines[0].corrects.as_ref().unwrap().number, "INV-000001");
    let invoice = correcting(&of, &[], &[]);
    assert_eq!((invoice.lines.len(), invoice.total.minor()), (2, 0));
    // What was corrected is not corrected again.
    let corrected = [&issued[..], &invoice.lines].concat();
    let again = correction(&corrected, &[usage(4_000), minimum(1_000)], None);
    assert_eq!(told(&again.differences(usd()).unwrap()), []);
    // All of it is gone.
    let gone = correction(&corrected, &[], None)
        .differences(usd())
        .unwrap();
    assert_eq!(
        told(&gone),
        [
            (Adjustment, Usage, -4_000, 0),
            (Adjustment, Minimum, -1_000, 0)
        ]
    );
}

#[test]
fn a_discount_is_what_it_is_now_less_what_was_given() {
    // 20 off down to zero: 10 of 10, then 20 of 25.
    let with = |minor, discount| LineItem {
        discount: cents(discount),
        ..usage(minor)
    };
    let of = correction(&[with(1_000, 1_000)], &[with(2_500, 2_000)], None);
    let invoice = correcting(&of, &[], &[]);
    assert_eq!(invoice.lines[0].discount.minor(), 1_000);
    assert_eq!(
        (invoice.discount.minor(), invoice.total.minor()),
        (1_000, 500)
    );
    assert_eq!(invoice.corrected("INV-000001").unwrap(), Exact::from(5_i64));
}

#[test]
fn taxes_are_cumulative() {
    // 10 % of 10.04 is 1.00; of 10.08 it is 1.01, though 10 % of 0.04 is nothing.
    let tax = |minor, amount| LineItem {
        dimensions: ten_percent().dimensions(),
        quantity: Some(cents(minor).to_exact()),
        ..line(LineKind::Tax, None, amount)
    };
    let issued = [usage(1_004), tax(1_004, 100)];
    let of = correction(&issued, &[usage(1_008)], Some(ten_percent()));
    let invoice = correcting(&of, &[], &[]);
    let kinds: Vec<_> = told(&invoice.lines);
    assert_eq!(
        kinds,
        [
            (LineKind::Adjustment, LineKind::Usage, 4, 0),
            (LineKind::Tax, LineKind::Tax, 1, 0)
        ]
    );
    assert_eq!(invoice.lines[1].quantity, Some(cents(4).to_exact()));
    assert_eq!((invoice.tax.minor(), invoice.total.minor()), (1, 5));
    // A rate that is another now: 20 % instead.
    let twenty = TaxOf {
        rate_percent: Exact::from(20_i64),
        ..ten_percent()
    };
    let of = correction(&issued, &[usage(1_004)], Some(twenty));
    let invoice = correcting(&of, &[], &[]);
    let amounts: Vec<i128> = invoice
        .lines
        .iter()
        .map(|line| line.amount.minor())
        .collect();
    assert_eq!(amounts, [-100, 201]);
}

#[test]
fn what_is_taken_back_goes_back_to_the_grant_that_paid() {
    // 10.00 were paid by a promotional grant, so that there was no tax. 4.00 are left.
    let paid = LineItem {
        promotional: cents(1_000),
        ..usage(1_000)
    };
    let of = correction(&[paid], &[usage(400)], Some(ten_percent()));
    let lasting = grant(GrantKind::Promotional, None);
    let invoice = correcting(&of, &[&lasting], &[burnt(1_000)]);
    assert_eq!(
        (
            invoice.total.minor(),
            invoice.promotional.minor(),
            invoice.tax.minor()
        ),
        (0, -600, 0)
    );
    assert_eq!(invoice.burns, [burnt(-600)]);
    // Where the grant has expired since, it is owed.
    let expired = grant(GrantKind::Promotional, Some(1_500));
    let invoice = correcting(&of, &[&expired], &[burnt(1_000)]);
    assert_eq!(
        (
            invoice.total.minor(),
            invoice.promotional.minor(),
            invoice.tax.minor()
        ),
        (-600, 0, 0)
    );
    // 11.00 with tax were prepaid.
    let tax = LineItem {
        dimensions: ten_percent().dimensions(),
        quantity: Some(cents(1_000).to_exact()),
        ..line(LineKind::Tax, None, 100)
    };
    let of = correction(&[usage(1_000), tax], &[usage(400)], Some(ten_percent()));
    let prepaid = grant(GrantKind::Prepaid, None);
    let invoice = correcting(&of, &[&prepaid], &[burnt(1_100)]);
    assert_eq!(
        (
            invoice.total.minor(),
            invoice.credits.minor(),
            invoice.amount_due.minor()
        ),
        (-660, -660, 0)
    );
    assert_eq!(invoice.burns, [burnt(-660)]);
}

#[test]
fn what_is_added_is_paid_by_what_is_left_of_grants() {
    let of = correction(&[usage(1_000)], &[usage(1_700)], None);
    let prepaid = grant(GrantKind::Prepaid, None);
    let invoice = correcting(&of, &[&prepaid], &[burnt(9_500)]);
    assert_eq!(
        (
            invoice.total.minor(),
            invoice.credits.minor(),
            invoice.amount_due.minor()
        ),
        (700, 500, 200)
    );
    assert_eq!(invoice.burns, [burnt(500)]);
}

#[test]
fn lines_read_back_as_they_were_written() {
    let of = LineItem {
        dimensions: Dimensions::from([("z".into(), None), ("a".into(), Some("\"q\"".into()))]),
        subscription: Some("s1".into()),
        text: Some("once".into()),
        price_version: Some(3),
        promotional: cents(7),
        discount: cents(5),
        ..usage(1_000)
    };
    let invoice = correcting(
        &correction(&[], &[of, line(LineKind::Minimum, None, 3)], None),
        &[],
        &[],
    );
    let rows = line_items_batch(std::slice::from_ref(&invoice)).unwrap();
    assert_eq!(line_items_of(&rows).unwrap(), invoice.lines);
}

/// What a document of January bills of these lines with 10 % tax, where earlier ones billed others of the same month.
fn rest_of(begun: &[LineItem], now: &[LineItem]) -> Vec<(LineKind, i128, Option<Corrects>)> {
    let rest = Correction {
        number: None,
        ..correction(begun, now, Some(ten_percent()))
    };
    let lines = rest.differences(usd()).unwrap();
    let taxes = rest.taxes(&lines, usd()).unwrap();
    let all = lines
        .into_iter()
        .chain(taxes.into_iter().map(|(tax, _)| tax));
    all.map(|line| (line.kind, line.amount.minor(), line.corrects))
        .collect()
}

#[test]
fn the_rest_of_a_period_is_lines_of_its_own_and_the_tax_is_cumulative() {
    // 0.15 bear 0.02 of tax, 0.30 bear 0.03.
    let tax = LineItem {
        dimensions: ten_percent().dimensions(),
        ..line(LineKind::Tax, None, 2)
    };
    let now = [usage(30), line(LineKind::Base, Some("zero"), 0)];
    assert_eq!(
        rest_of(&[usage(15), tax], &now),
        [
            (LineKind::Usage, 15, None),
            (LineKind::Base, 0, None),
            (LineKind::Tax, 1, None)
        ]
    );
}

#[test]
fn what_was_billed_of_a_period_and_is_not_any_more_comes_back() {
    assert_eq!(rest_of(&[usage(15)], &[]), [(LineKind::Usage, -15, None)]);
    // Nothing more is no line, but the tax that was not charged yet.
    assert_eq!(
        rest_of(&[usage(15)], &[usage(15)]),
        [(LineKind::Tax, 2, None)]
    );
}

#[test]
fn what_a_grant_paid_of_a_document_beside_does_not_go_back_to_it() {
    // Of a grant of 100.00, a fee of 50.00 had 50.00, and 80.00 of usage the rest: 30.00 were paid in money.
    let fee = line(LineKind::Base, Some("fee"), 5_000);
    let beside = Beside {
        number: "INV-000000".into(),
        issued: vec![fee.clone()],
    };
    let grant = grant(GrantKind::Prepaid, None);
    for (now, back) in [(6_700, 0), (5_000, 0), (4_500, 500)] {
        let of = Correction {
            beside: vec![beside.clone()],
            ..correction(&[usage(8_000)], &[usage(now)], None)
        };
        let invoice = correcting(&of, &[&grant], &[burnt(10_000)]);
        let (total, credits) = (invoice.total.minor(), invoice.credits.minor());
        assert_eq!((total, credits), (now - 8_000, -back), "{now}");
    }
    // The fee is 40.00 now: 40.00 and 55.00 are less than what was paid.
    let of_fee = Correction {
        number: Some("INV-000000".into()),
        beside: vec![Beside {
            number: "INV-000001".into(),
            issued: vec![usage(8_000)],
        }],
        ..correction(&[fee], &[line(LineKind::Base, Some("fee"), 4_000)], None)
    };
    let of_usage = Correction {
        beside: vec![beside],
        ..correction(&[usage(8_000)], &[usage(5_500)], None)
    };
    let invoice = correcting_all(&[of_fee, of_usage], &[&grant], &[burnt(10_000)]);
    let (total, credits) = (invoice.total.minor(), invoice.credits.minor());
    assert_eq!((total, credits), (-3_500, -500));
}

#[test]
fn a_document_beside_comes_to_its_lines_with_their_share_of_its_tax() {
    let later = LineItem {
        period: FEBRUARY,
        ..line(LineKind::Base, Some("fee"), 3_000)
    };
    let beside = Beside {
        number: "INV-000000".into(),
        issued: vec![usage(1_000), later, line(LineKind::Tax, None, 400)],
    };
    let owed = |at_us: i64| {
        let owed = beside.owed(|_, last_us| last_us == at_us, usd());
        owed.unwrap().minor()
    };
    assert_eq!(owed(JANUARY.last_us()), 1_100);
    assert_eq!(owed(FEBRUARY.last_us()), 3_300);
}
