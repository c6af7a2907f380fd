use super::*;
use std::slice::from_ref;
use tollgate_sql::{
    accounts::Discount,
    invoice::{
        InvoiceId,
        adjustments::Correction,
        document::{Document, OfPlan, Tax, document},
        taxes::TaxRate,
    },
    money::Exact,
};

/// 2026-01-31T23:00:00Z and a month of 31 days before: January in Berlin.
const JANUARY: Period = Period {
    start_us: 1_767_222_000_000_000,
    end_us: 1_769_900_400_000_000,
};

fn one_off(text: &str, amount: &str) -> tollgate_sql::accounts::OneOff {
    tollgate_sql::accounts::OneOff {
        one_off: "o".into(),
        customer: "acme".into(),
        amount: Exact::parse(amount).unwrap(),
        currency: "EUR".into(),
        text: text.into(),
        date_us: JANUARY.start_us,
    }
}

/// A document of one-offs with 19 % tax, which corrects another.
fn invoice(text: &str, amount: &str, corrections: &[Correction]) -> Invoice {
    let one_off = one_off(text, amount);
    let rates = [TaxRate {
        region: "DE".into(),
        rate_percent: Exact::from(19_i64),
        from_us: None,
        to_us: None,
    }];
    let regions = [(i64::MIN, Some("DE"))];
    let (plans, discounts): ([OfPlan<'_>; 0], [&Discount; 0]) = ([], []);
    let of = Document {
        id: InvoiceId::of_document("acme", JANUARY.end_us),
        customer: "acme",
        period: JANUARY,
        cut: "{}",
        currency: "EUR",
        one_offs: &[&one_off],
        discounts: &discounts,
        tax: Tax {
            regions: &regions,
            rates: &rates,
        },
        grants: &[],
        burnt: &[],
        corrections,
        begun: &[],
    };
    document(of, &plans).unwrap()
}

fn of(invoice: &Invoice) -> String {
    let seller = SellerSettings {
        name: "Seller & Sons".into(),
        address: "1 Road\nTown".into(),
        tax_id: "DE1".into(),
        notes: "Pay <soon>".into(),
    };
    let parties = Parties {
        seller: &seller,
        customer: None,
        zone: TimeZone::get("Europe/Berlin").unwrap(),
    };
    page(invoice, &parties)
}

#[test]
fn a_page_has_every_line_and_sum_and_days_by_the_customers_clock() {
    let mut issued = invoice("Setup", "100.00", &[]);
    issued.number = Some("INV-000007".into());
    issued.issued_at_us = Some(JANUARY.end_us + 3_600_000_000);
    let html = of(&issued);
    for expected in [
        "<title>Invoice INV-000007</title>",
        "<strong>Seller &amp; Sons</strong>\n1 Road\nTown\nTax ID DE1</div>",
        "<h2>Bill to</h2><p>acme</p>",
        "<h2>Period</h2><p>2026-01-01 to 2026-01-31</p>",
        "<h2>Issued</h2><p>2026-02-01</p>",
        "<tr><td>Setup</td><td class=\"small\">2026-01-01</td><td class=\"number\"></td><td class=\"number\">100.00</td></tr>",
        "<tr><td>Tax DE 19 %</td><td class=\"number\">19.00</td></tr>\n<tr><td>Total</td><td class=\"number\">119.00</td></tr>",
        "<td>Amount due</td><td class=\"number\">EUR 119.00</td>",
        "<p class=\"notes small\">Pay &lt;soon&gt;</p>",
    ] {
        assert!(html.contains(expected), "{expected}\nis not in\n{html}");
    }
    // One file: nothing is fetched, and nothing runs.
    for absent in ["<script", "http", "url(", "@import"] {
        assert!(!html.contains(absent), "{absent}");
    }
}

#[test]
fn what_corrects_stands_apart_and_a_total_below_zero_is_a_credit_note() {
    let before = invoice("Setup", "100.00", &[]);
    let correction = Correction {
        number: Some("INV-000007".into()),
        period: JANUARY,
        issued: before.lines,
        now: Vec::new(),
        beside: Vec::new(),
    };
    let mut note = invoice("Once", "10.00", from_ref(&correction));
    note.number = Some("CN-000001".into());
    let html = of(&note);
    for expected in [
        "<h1>Credit note</h1><div>CN-000001</div>",
        "<tr><th colspan=\"4\">Adjustments of earlier documents</th></tr>\n</tbody>\n<tbody>\n\
         <tr><td>Setup<div class=\"small\">of INV-000007</div></td>",
        "<td class=\"number\">-100.00</td>",
        "<tr><td>Tax DE 19 %</td><td class=\"number\">1.90</td></tr>",
        "<tr><td>Tax DE 19 %, of INV-000007</td><td class=\"number\">-19.00</td></tr>",
        "<td>Amount due</td><td class=\"number\">EUR -107.10</td>",
    ] {
        assert!(html.contains(expected), "{expected}\nis not in\n{html}");
    }
    note.voids = Some("INV-000007".into());
    let html = of(&note);
    assert!(html.contains("<h1>Cancellation</h1><div>CN-000001</div>"));
    assert!(html.contains("<th colspan=\"4\">Taken back of INV-000007</th>"));
}

#[test]
fn no_text_of_others_is_markup() {
    let html = of(&invoice("<b onload='x'>\u{202e}&\u{1b}[2J", "1.00", &[]));
    let expected = "<tr><td>&lt;b onload=&#39;x&#39;&gt;\\u{202e}&amp;\\u{1b}[2J</td>";
    assert!(html.contains(expected), "{html}");
}
