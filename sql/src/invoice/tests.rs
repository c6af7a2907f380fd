use super::{tables::*, *};
use crate::schema::invoices::{line_items_schema, money_type};
use crate::{
    definitions::PlanTerms,
    error::{ErrorKind, Location},
};
use arrow::{array::Array, util::display::array_value_to_string};

const OCTOBER: Period = Period {
    start_us: 1_790_812_800_000_000,
    end_us: 1_793_491_200_000_000,
};

fn plan(currency: &str) -> PlanDefinition {
    PlanDefinition {
        name: "pro".into(),
        currency: currency.into(),
        worth: Vec::new(),
        terms: PlanTerms::default(),
        prices: vec!["base".into(), "tokens".into()],
        at: Location::default(),
    }
}

fn charge(price: &str, model: Option<&str>, amount: &str) -> Charge {
    Charge {
        price: price.into(),
        price_version: 1,
        customer: "acme".into(),
        dimensions: [("model".into(), model.map(str::to_owned))].into(),
        quantity: Some(Exact::parse("333").unwrap()),
        amount: Exact::parse(amount).unwrap(),
        currency: "USD".into(),
        service: None,
        subscription: None,
        is_fixed: false,
        is_unused: false,
    }
}

fn invoice(charges: &[Charge]) -> Result<Invoice> {
    let plan = plan("USD");
    let terms = Terms {
        customer: "acme",
        plan: &plan,
        period: OCTOBER,
        cut: r#"{"USAGE":9}"#,
    };
    assemble(&terms, charges)
}

#[test]
fn every_line_is_rounded_once_and_the_total_is_their_sum() {
    let thirds = [
        charge("tokens", Some("a"), "0.335"),
        charge("tokens", Some("b"), "0.335"),
        charge("tokens", Some("c"), "-0.335"),
    ];
    let invoice = invoice(&thirds).unwrap();
    let amounts: Vec<String> = invoice
        .lines
        .iter()
        .map(|line| line.amount.to_string())
        .collect();
    assert_eq!(amounts, ["0.34 USD", "0.34 USD", "-0.34 USD"]);
    assert_eq!(invoice.total.to_string(), "0.34 USD");
    assert_eq!(
        invoice.lines[0].amount_exact,
        Exact::parse("0.335").unwrap()
    );
}

#[test]
fn a_line_is_taxed_by_the_region_of_the_customer_when_its_service_ended() {
    let plan = plan("USD");
    let (start_us, end_us) = (OCTOBER.start_us, OCTOBER.end_us);
    let moved_us = start_us + 10;
    let of_time = |amount: &str, start_us, end_us| Charge {
        service: Some(Period { start_us, end_us }),
        ..charge("base", None, amount)
    };
    let charges = [
        of_time("100", start_us, moved_us),
        of_time("200", start_us, moved_us + 1),
        // In advance: its time is still to come.
        of_time("400", end_us, end_us + 10),
    ];
    let rate = |region: &str, percent: i64| taxes::TaxRate {
        region: region.into(),
        rate_percent: Exact::from(percent),
        from_us: None,
        to_us: None,
    };
    let rates = [rate("DE", 19), rate("FR", 20)];
    let exempt_us = end_us + 5;
    let regions = [
        (start_us, Some("DE")),
        (moved_us, Some("FR")),
        (exempt_us, None),
    ];
    let of_plan = OfPlan {
        plan: &plan,
        subscription: None,
        period: OCTOBER,
        charges: &charges,
        bounds: Bounds::default(),
        counted: Exact::ZERO,
    };
    let of = Document {
        id: InvoiceId::of_document("acme", end_us),
        customer: "acme",
        period: OCTOBER,
        cut: "{}",
        currency: "USD",
        one_offs: &[],
        discounts: &[],
        tax: Tax {
            regions: &regions,
            rates: &rates,
        },
        grants: &[],
        burnt: &[],
        corrections: &[],
        begun: &[],
    };
    let invoice = document::document(of, &[of_plan]).unwrap();
    let taxes = invoice
        .lines
        .iter()
        .filter(|line| line.kind == LineKind::Tax);
    let taxes: Vec<String> = taxes
        .map(|line| format!("{:?} {}", line.dimensions[0].1, line.amount))
        .collect();
    assert_eq!(
        taxes,
        [r#"Some("DE") 19.00 USD"#, r#"Some("FR") 40.00 USD"#]
    );
}

#[test]
fn lines_follow_the_plan_then_the_dimensions_whatever_order_charges_come_in() {
    let mut charges = vec![
        charge("tokens", Some("b"), "1"),
        charge("tokens", None, "2"),
        charge("base", Some("z"), "49"),
        charge("tokens", Some("a"), "0"),
        charge("tokens", Some("a"), "-1"),
    ];
    let expected = invoice(&charges).unwrap();
    let amounts: Vec<String> = expected
        .lines
        .iter()
        .map(|line| line.amount_exact.to_string())
        .collect();
    assert_eq!(amounts, ["49", "2", "-1", "0", "1"]);
    charges.reverse();
    assert_eq!(invoice(&charges).unwrap(), expected);
    charges.rotate_left(2);
    assert_eq!(invoice(&charges).unwrap(), expected);
}

#[test]
fn a_charge_of_zero_keeps_its_line() {
    let invoice = invoice(&[charge("tokens", None, "0")]).unwrap();
    assert_eq!((invoice.lines.len(), invoice.total.minor()), (1, 0));
    assert!(invoice.lines[0].quantity.is_some());
}

#[test]
fn no_charges_make_an_empty_draft() {
    let invoice = invoice(&[]).unwrap();
    assert_eq!(
        (invoice.lines.len(), invoice.total.to_string().as_str()),
        (0, "0.00 USD")
    );
    assert_eq!(
        (invoice.status, invoice.number, invoice.issued_at_us),
        (Status::Draft, None, None)
    );
}

#[test]
fn charges_that_do_not_belong_are_refused() {
    let mut other_customer = charge("tokens", None, "1");
    other_customer.customer = "globex".into();
    let mut other_currency = charge("tokens", None, "1");
    other_currency.currency = "EUR".into();
    for (charge, problem) in [
        (other_customer, "a charge is for customer `globex`"),
        (other_currency, "price `tokens` is in EUR, the plan in USD"),
        (
            charge("seats", None, "1"),
            "price `seats` is not in the plan",
        ),
    ] {
        let error = invoice(&[charge]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invoice of customer `acme` on plan `pro`: {problem}")
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn totals_past_38_digits_are_errors() {
    let huge = "999999999999999999999999999999999999";
    assert!(invoice(&[charge("tokens", None, huge)]).is_ok());
    let twice = [
        charge("tokens", Some("a"), huge),
        charge("tokens", Some("b"), huge),
    ];
    assert!(matches!(invoice(&twice), Err(Error::Money(_))));
}

#[test]
fn ids_are_pinned_and_depend_on_every_part() {
    let id = InvoiceId::new("acme", "pro", OCTOBER);
    assert_eq!(id, InvoiceId::new("acme", "pro", OCTOBER));
    assert_eq!(id.as_str(), "07e65f7b6efc1d6d86b8746c373eb247");
    let later = Period {
        end_us: OCTOBER.end_us + 1,
        ..OCTOBER
    };
    for other in [
        InvoiceId::new("acm", "epro", OCTOBER),
        InvoiceId::new("acmep", "ro", OCTOBER),
        InvoiceId::new("acme", "pro", later),
    ] {
        assert_ne!(id, other);
    }
}

fn row(batch: &arrow::array::RecordBatch, row: usize) -> Vec<String> {
    let columns = batch.columns().iter();
    columns
        .map(|column| array_value_to_string(column, row).unwrap())
        .collect()
}

#[test]
fn invoices_and_lines_become_rows() {
    let invoice = invoice(&[
        charge(
            "tokens",
            Some("say \"hi\""),
            "0.0049999999999999999999999999",
        ),
        charge("base", None, "49"),
    ])
    .unwrap();
    let invoices = std::slice::from_ref(&invoice);
    let id = invoice.id.as_str();
    let (start, end) = ("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z");
    assert_eq!(
        row(&invoices_batch(invoices).unwrap(), 0),
        [
            id,
            "",
            "acme",
            "pro",
            "USD",
            start,
            end,
            "draft",
            "2",
            "49.0000",
            r#"{"USAGE":9}"#,
            "",
            "0.0000",
            "0.0000",
            "0.0000",
            "0.0000",
            "49.0000",
            "invoice",
            "",
            ""
        ]
    );
    let lines = line_items_batch(invoices).unwrap();
    assert_eq!(lines.num_rows(), 2);
    assert_eq!(
        row(&lines, 0),
        [
            id,
            "1",
            "charge",
            "acme",
            "base",
            "1",
            r#"{"model":null}"#,
            "333",
            "49",
            "49.0000",
            "USD",
            start,
            end,
            r#"{"USAGE":9}"#,
            "0.0000",
            "0.0000",
            "",
            "",
            "",
            ""
        ]
    );
    assert_eq!(
        row(&lines, 1)[6..10],
        [
            r#"{"model":"say \"hi\""}"#,
            "333",
            "0.0049999999999999999999999999",
            "0.0000"
        ]
    );
}

#[test]
fn no_invoices_are_batches_without_rows() {
    assert_eq!(invoices_batch(&[]).unwrap().num_rows(), 0);
    let lines = line_items_batch(&[]).unwrap();
    assert_eq!((lines.num_rows(), lines.schema()), (0, line_items_schema()));
    assert_eq!(lines.column(9).data_type(), &money_type());
}

#[test]
fn dimensions_keep_their_order_in_json() {
    let dimensions = [("z".into(), Some("1".to_owned())), ("a".into(), None)];
    assert_eq!(dimensions_json(&dimensions), r#"{"z":"1","a":null}"#);
    assert_eq!(dimensions_json(&[]), "{}");
}
