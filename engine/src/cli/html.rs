//! A document as a page that prints: one file, without a script or another file, on A4 and on Letter.

use super::statement::less;
use crate::{config::SellerSettings, error::printable};
use jiff::{Timestamp, tz::TimeZone};
use std::fmt::Write;
use tollgate_sql::{
    accounts::Customer,
    invoice::{Invoice, LineItem, LineKind, Period},
    money::Money,
};

/// Who sells, who pays, and by which clock days are told.
pub(super) struct Parties<'a> {
    pub(super) seller: &'a SellerSettings,
    /// What holds of the customer when the period ends; `None` without accounts.
    pub(super) customer: Option<&'a Customer>,
    pub(super) zone: TimeZone,
}

/// The rules of print: rows stay whole, the head of the table comes again on each sheet, and the sheet's size is the printer's.
const STYLE: &str = "
@page { margin: 18mm 16mm; }
* { box-sizing: border-box; }
body { font: 10.5pt/1.45 system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; color: #1b1f24; margin: 0; }
main { max-width: 180mm; margin: 0 auto; }
@media screen { body { background: #eef0f2; } main { background: #fff; margin: 12mm auto; padding: 18mm 16mm; box-shadow: 0 1px 6px #0003; } }
header { display: flex; justify-content: space-between; gap: 12mm; margin-bottom: 10mm; }
h1 { font-size: 19pt; font-weight: 600; margin: 0 0 1mm; }
h2 { font-size: 9pt; font-weight: 600; color: #5a6472; margin: 0 0 1mm; }
.seller { text-align: right; white-space: pre-line; }
.parties { display: flex; gap: 20mm; margin-bottom: 9mm; }
.parties p, .notes { margin: 0; white-space: pre-line; }
table { width: 100%; border-collapse: collapse; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
th { text-align: left; font-size: 9pt; color: #5a6472; border-bottom: 1.2pt solid #1b1f24; padding: 1.5mm 2mm; }
td { vertical-align: top; border-bottom: 0.5pt solid #d5dae0; padding: 1.8mm 2mm; overflow-wrap: anywhere; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.small { font-size: 9pt; color: #5a6472; }
tbody.group th { font-size: 10.5pt; color: #1b1f24; border-bottom-width: 0.5pt; padding-top: 5mm; }
.sums { margin: 6mm 0 0 auto; width: 86mm; break-inside: avoid; }
.sums td { border: 0; padding: 1mm 0; }
.sums .due td { border-top: 1.2pt solid #1b1f24; font-weight: 600; font-size: 12pt; padding-top: 2mm; }
.notes { margin-top: 12mm; }
";

/// The page of a document.
pub(super) fn page(invoice: &Invoice, parties: &Parties<'_>) -> String {
    let title = title(invoice);
    let number = invoice.number.as_deref().unwrap_or_default();
    let mut html = String::new();
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{} {}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<header>\n<div><h1>{title}</h1><div>{}</div></div>\n<div class=\"seller\"><strong>{}</strong>\n{}{}</div>\n</header>\n",
        title,
        text(number),
        text(number),
        text(&parties.seller.name),
        lines(&parties.seller.address),
        tax_id(&parties.seller.tax_id),
    );
    html += &heads(invoice, parties);
    html += &table(invoice, &parties.zone);
    html += &sums(invoice);
    if !parties.seller.notes.is_empty() {
        let _ = writeln!(
            html,
            "<p class=\"notes small\">{}</p>",
            lines(&parties.seller.notes)
        );
    }
    html + "</main>\n</body>\n</html>\n"
}

fn title(invoice: &Invoice) -> &'static str {
    match (&invoice.number, &invoice.voids, invoice.total.minor() < 0) {
        (None, _, _) => "Draft",
        (Some(_), Some(_), _) => "Cancellation",
        (Some(_), None, true) => "Credit note",
        (Some(_), None, false) => "Invoice",
    }
}

fn tax_id(id: &str) -> String {
    match id.is_empty() {
        true => String::new(),
        false => format!("\nTax ID {}", text(id)),
    }
}

/// Who pays, for which time, and when it was issued.
fn heads(invoice: &Invoice, parties: &Parties<'_>) -> String {
    let customer = parties.customer;
    let name = customer.and_then(|customer| customer.name.as_deref());
    let name = name.unwrap_or(&invoice.customer);
    let mut payer = text(name);
    let more = [
        (name != invoice.customer).then_some(invoice.customer.as_str()),
        customer.and_then(|customer| customer.email.as_deref()),
    ];
    for more in more.into_iter().flatten() {
        let _ = write!(payer, "\n<span class=\"small\">{}</span>", text(more));
    }
    let issued = invoice.issued_at_us.map(|at_us| day(at_us, &parties.zone));
    let issued = issued.map_or(String::new(), |day| {
        format!("<div><h2>Issued</h2><p>{day}</p></div>\n")
    });
    format!(
        "<section class=\"parties\">\n<div><h2>Bill to</h2><p>{payer}</p></div>\n<div><h2>Period</h2><p>{}</p></div>\n{issued}</section>\n",
        days(invoice.period, &parties.zone),
    )
}

/// The lines of the document, then those that correct earlier ones. Taxes are among the sums.
fn table(invoice: &Invoice, zone: &TimeZone) -> String {
    let printed = || invoice.lines.iter().filter(|line| !line.kind.is_tax());
    let mut html =
        "<table>\n<thead><tr><th>Description</th><th>Period</th><th class=\"number\">Quantity</th>\
                    <th class=\"number\">Amount</th></tr></thead>\n<tbody>\n"
            .to_owned();
    for line in printed().filter(|line| line.corrects.is_none()) {
        html += &row(line, zone);
    }
    html += "</tbody>\n";
    if printed().any(|line| line.corrects.is_some()) {
        let heading = match &invoice.voids {
            Some(number) => format!("Taken back of {}", text(number)),
            None => "Adjustments of earlier documents".to_owned(),
        };
        let _ = write!(
            html,
            "<tbody class=\"group\">\n<tr><th colspan=\"4\">{heading}</th></tr>\n</tbody>\n<tbody>\n"
        );
        for line in printed().filter(|line| line.corrects.is_some()) {
            html += &row(line, zone);
        }
        html += "</tbody>\n";
    }
    html + "</table>\n"
}

fn row(line: &LineItem, zone: &TimeZone) -> String {
    let what = line
        .text
        .as_deref()
        .or(line.price.as_deref())
        .unwrap_or_default();
    let what = match line.billed_kind() {
        LineKind::Minimum => format!("Minimum of {}", text(what)),
        LineKind::Maximum => format!("Maximum of {}", text(what)),
        LineKind::Credit => format!("{}, not used", text(what)),
        _ => text(what),
    };
    let mut details: Vec<String> = line
        .dimensions
        .iter()
        .map(|(name, value)| {
            format!(
                "{} {}",
                text(name),
                text(value.as_deref().unwrap_or("none"))
            )
        })
        .collect();
    if let Some(corrects) = &line.corrects {
        details.push(format!("of {}", text(&corrects.number)));
    }
    let details = match details.is_empty() {
        true => String::new(),
        false => format!("<div class=\"small\">{}</div>", details.join(", ")),
    };
    let quantity = line.quantity.map_or(String::new(), |quantity| {
        quantity.without_trailing_zeros().to_string()
    });
    format!(
        "<tr><td>{what}{details}</td><td class=\"small\">{}</td><td class=\"number\">{quantity}</td><td class=\"number\">{}</td></tr>\n",
        days(line.period, zone),
        line.amount.amount_text(),
    )
}

/// What the lines come to, what is taken off and added, and what is due.
fn sums(invoice: &Invoice) -> String {
    let zero = Money::zero(invoice.total.currency());
    let mut rows: Vec<(String, String)> = Vec::new();
    for (what, amount) in [
        ("Discounts", invoice.discount),
        ("Promotional credits", invoice.promotional),
    ] {
        if amount != zero {
            rows.push((what.to_owned(), less(amount)));
        }
    }
    for line in invoice.lines.iter().filter(|line| line.kind.is_tax()) {
        rows.push((tax_text(line), line.amount.amount_text()));
    }
    rows.push(("Total".to_owned(), invoice.total.amount_text()));
    if invoice.credits != zero {
        rows.push(("Prepaid credits".to_owned(), less(invoice.credits)));
    }
    let mut html = "<table class=\"sums\">\n".to_owned();
    for (what, amount) in rows {
        let _ = writeln!(
            html,
            "<tr><td>{what}</td><td class=\"number\">{amount}</td></tr>"
        );
    }
    let _ = writeln!(
        html,
        "<tr class=\"due\"><td>Amount due</td><td class=\"number\">{} {}</td></tr>\n</table>",
        invoice.amount_due.currency(),
        invoice.amount_due.amount_text(),
    );
    html
}

fn tax_text(line: &LineItem) -> String {
    let of = |wanted: &str| {
        let mut named = line.dimensions.iter().filter(|(name, _)| **name == *wanted);
        let value = named.next().and_then(|(_, value)| value.as_deref());
        text(value.unwrap_or_default())
    };
    let included = match line.kind {
        LineKind::TaxIncluded => "Included: tax",
        _ => "Tax",
    };
    let corrects = line.corrects.as_ref();
    let corrects = corrects.map_or(String::new(), |of| format!(", of {}", text(&of.number)));
    format!(
        "{included} {} {} %{corrects}",
        of("region"),
        of("rate_percent")
    )
}

/// A period by its first and its last day.
fn days(period: Period, zone: &TimeZone) -> String {
    let (first, last) = (day(period.start_us, zone), day(period.last_us(), zone));
    match first == last {
        true => first,
        false => format!("{first} to {last}"),
    }
}

fn day(at_us: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_microsecond(at_us).unwrap_or_default();
    zone.to_datetime(at).date().to_string()
}

/// Text that is no markup, and that nothing in it can turn around or hide.
fn text(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            other => html.push(other),
        }
    }
    html
}

/// Text of several lines.
fn lines(several: &str) -> String {
    let several: Vec<String> = several.lines().map(text).collect();
    several.join("\n")
}

#[cfg(test)]
mod tests;
