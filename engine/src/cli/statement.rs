//! A document as a person reads it: its lines, what is taken off and added, and what is due.

use super::price::tier_text;
use crate::error::printable;
use jiff::{Timestamp, tz::TimeZone};
use std::fmt::Write;
use tollgate_sql::{
    functions::explain::TierPart,
    invoice::{Invoice, LineItem, Period},
    money::Money,
};

/// A row: what kind of line it is, what it is for, when, and the amount.
type Row = [String; 4];

/// One document, its columns aligned, each line with the tiers that it passes, if there are any; nothing in it is obeyed by a
/// terminal.
pub(super) fn statement(invoice: &Invoice, tiers: &[Vec<TierPart>]) -> String {
    let mut rows: Vec<Row> = Vec::with_capacity(invoice.lines.len());
    for (place, line) in invoice.lines.iter().enumerate() {
        rows.push(row(line));
        let of_line = tiers.get(place).into_iter().flatten();
        rows.extend(of_line.map(tier_row));
    }
    let zero = Money::zero(invoice.total.currency());
    let taken_off = [
        ("discounts", invoice.discount),
        ("promotional credits", invoice.promotional),
    ];
    for (what, amount) in taken_off.into_iter().filter(|(_, amount)| *amount != zero) {
        rows.push(sum(what, less(amount)));
    }
    rows.push(sum("total", invoice.total.amount_text()));
    if invoice.credits != zero {
        rows.push(sum("prepaid credits", less(invoice.credits)));
    }
    rows.push(sum("amount due", invoice.amount_due.amount_text()));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let [kinds, whats, whens, amounts] = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}  {}  {}  {}",
        invoice.number.as_deref().unwrap_or("draft"),
        printable(&invoice.customer),
        when(invoice.period),
        invoice.total.currency()
    );
    for [kind, what, when, amount] in &rows {
        let _ = writeln!(
            text,
            "  {kind:<kinds$}  {what:<whats$}  {when:<whens$}  {amount:>amounts$}"
        );
    }
    text
}

/// An amount that is taken off; one below zero is added.
pub(super) fn less(amount: Money) -> String {
    match amount.amount_text() {
        text if text.starts_with('-') => text[1..].to_owned(),
        text => format!("-{text}"),
    }
}

fn sum(what: &str, amount: String) -> Row {
    [what.to_owned(), String::new(), String::new(), amount]
}

fn tier_row(tier: &TierPart) -> Row {
    let [none, when, amount] = [const { String::new() }; 3];
    [none, format!("  {}", tier_text(tier)), when, amount]
}

fn row(line: &LineItem) -> Row {
    let mut what: Vec<String> = line
        .price
        .as_deref()
        .into_iter()
        .chain(line.text.as_deref())
        .map(printable)
        .collect();
    if let Some(corrects) = &line.corrects {
        what.push(format!("of {}", printable(&corrects.number)));
    }
    for (name, value) in line.dimensions.iter() {
        what.push(format!(
            "{name} {}",
            printable(value.as_deref().unwrap_or("NULL"))
        ));
    }
    if let Some(quantity) = line.quantity {
        what.push(quantity.without_trailing_zeros().to_string());
    }
    let amount = line.amount.amount_text();
    [
        line.kind.as_str().to_owned(),
        what.join(", "),
        when(line.period),
        amount,
    ]
}

/// A period by its first day and the day on which it ends, in UTC; an instant that is no midnight in full.
fn when(period: Period) -> String {
    let instant = |us: i64| {
        let at = Timestamp::from_microsecond(us).unwrap_or_default();
        let text = at.to_string();
        match TimeZone::UTC.to_datetime(at).time() == jiff::civil::Time::midnight() {
            true => text.split('T').next().unwrap_or_default().to_owned(),
            false => text,
        }
    };
    match period.start_us == period.end_us {
        true => instant(period.start_us),
        false => format!("{} to {}", instant(period.start_us), instant(period.end_us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_sql::{
        definitions::{PlanDefinition, PlanTerms},
        error::Location,
        invoice::{Terms, assemble},
        money::Exact,
        rating::Charge,
    };

    #[test]
    fn a_document_is_aligned_and_ends_with_what_is_due() {
        let plan = PlanDefinition {
            name: "pro".into(),
            currency: "USD".into(),
            worth: Vec::new(),
            prices: vec!["calls".into()],
            terms: PlanTerms {
                minimum: Some(Exact::from(20_i64)),
                ..PlanTerms::default()
            },
            at: Location::default(),
        };
        let charge = Charge {
            price: "calls".into(),
            price_version: 1,
            customer: "acme".into(),
            dimensions: [("model".into(), Some("sage\u{1b}[2J".into()))].into(),
            quantity: Exact::parse("6000.50").ok(),
            amount: Exact::parse("12.004").unwrap(),
            currency: "USD".into(),
            service: None,
            subscription: None,
            is_fixed: false,
            is_unused: false,
        };
        // 2026-06-01 and 2026-07-01, 00:00:30.
        let terms = Terms {
            customer: "acme",
            plan: &plan,
            period: Period {
                start_us: 1_780_272_000_000_000,
                end_us: 1_782_864_030_000_000,
            },
            cut: "{}",
        };
        let invoice = assemble(&terms, &[charge]).unwrap();
        let when = "2026-06-01 to 2026-07-01T00:00:30Z";
        let blank = " ".repeat(when.len());
        let model = "calls, model sage\\u{1b}[2J, 6000.5";
        let (pad, plan) = (" ".repeat(34), format!("pro{}", " ".repeat(31)));
        assert_eq!(model.len(), 34);
        assert_eq!(
            statement(&invoice, &[]),
            format!(
                "draft  acme  {when}  USD\n  \
                 charge      {model}  {when}  12.00\n  \
                 minimum     {plan}  {when}   8.00\n  \
                 total       {pad}  {blank}  20.00\n  \
                 amount due  {pad}  {blank}  20.00\n"
            )
        );
    }
}
