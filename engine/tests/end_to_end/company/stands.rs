//! What stands in the lake in the end, in the words of the oracle, and how it differs from what the oracle says.

use crate::books::Books;
use arrow::{array::AsArray, datatypes::TimestampMicrosecondType};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};
use tollgate::{billing, view::View};
use tollgate_sql::money::Exact;

/// Documents by when they were issued, customer, and their place among those.
pub(super) type Documents = BTreeMap<(i64, String, usize), Value>;

/// Documents in the order in which they were issued, by what tells them apart.
pub(super) fn keyed(documents: impl IntoIterator<Item = Value>) -> Documents {
    let mut all = Documents::new();
    for document in documents {
        let customer = document["customer"].as_str().unwrap();
        let issued_at_us = document["issued_at"].as_i64().unwrap();
        let key = |place| (issued_at_us, customer.to_owned(), place);
        let place = all.range(key(0)..key(usize::MAX)).count();
        all.insert(key(place), document);
    }
    all
}

const INVOICES: &str = "
SELECT number, customer, currency, document_kind, voids, CAST(CAST(period_start AS BIGINT) AS VARCHAR) AS starts,
       CAST(CAST(period_end AS BIGINT) AS VARCHAR) AS ends, CAST(CAST(issued_at AS BIGINT) AS VARCHAR) AS issued,
       CAST(discount AS VARCHAR) AS discount, CAST(promotional AS VARCHAR) AS promotional, CAST(tax AS VARCHAR) AS tax,
       CAST(total AS VARCHAR) AS total, CAST(credits_applied AS VARCHAR) AS credits, CAST(amount_due AS VARCHAR) AS due, document
FROM invoices ORDER BY serial";
const LINES: &str = "
SELECT i.number, CAST(l.line AS VARCHAR) AS place, l.kind, l.price, l.subscription, l.corrects, l.corrects_kind, l.dimensions,
       l.quantity, CAST(l.amount AS VARCHAR) AS amount, CAST(l.discount AS VARCHAR) AS discount,
       CAST(l.promotional AS VARCHAR) AS promotional, CAST(CAST(l.period_start AS BIGINT) AS VARCHAR) AS starts,
       CAST(CAST(l.period_end AS BIGINT) AS VARCHAR) AS ends
FROM line_items AS l JOIN invoices AS i ON i.invoice = l.invoice ORDER BY i.serial, l.line";

/// All documents, each with the rows of `line_items` that are its own. They are also what the document itself keeps as its lines.
pub(super) async fn documents(books: &Books) -> Documents {
    let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in books.rows(LINES).await {
        let of_document = lines.entry(row[0].clone()).or_default();
        of_document.push(line(&row));
        assert_eq!(row[1], of_document.len().to_string(), "{row:?}");
    }
    let all = books
        .rows("SELECT CAST(COUNT(*) AS VARCHAR) FROM line_items")
        .await;
    let of_documents: usize = lines.values().map(Vec::len).sum();
    assert_eq!(all[0][0], of_documents.to_string());
    let rows = books.rows(INVOICES).await.into_iter();
    keyed(rows.map(|row| {
        let lines = lines.remove(&row[0]).unwrap_or_default();
        assert_eq!(kept(&row[14]), of_json(&lines), "{}", row[0]);
        document(&row, lines)
    }))
}

fn document(row: &[String], lines: Vec<Value>) -> Value {
    json!({
        "number": row[0], "customer": row[1], "currency": row[2], "kind": row[3], "voids": text(&row[4]),
        "period": [micros(&row[5]), micros(&row[6])], "issued_at": micros(&row[7]), "lines": lines,
        "discount": plain(&row[8]), "promotional": plain(&row[9]), "tax": plain(&row[10]), "total": plain(&row[11]),
        "credits": plain(&row[12]), "amount_due": plain(&row[13]),
    })
}

fn line(row: &[String]) -> Value {
    let mut dimensions: Map<String, Value> = serde_json::from_str(&row[7]).unwrap();
    if let Some(rate) = dimensions.get_mut("rate_percent") {
        *rate = plain(rate.as_str().unwrap());
    }
    json!({
        "kind": row[2], "price": text(&row[3]), "subscription": text(&row[4]), "corrects": text(&row[5]),
        "corrects_kind": text(&row[6]), "dimensions": dimensions,
        "quantity": if row[8].is_empty() { Value::Null } else { plain(&row[8]) },
        "amount": plain(&row[9]), "discount": plain(&row[10]), "promotional": plain(&row[11]),
        "period": [micros(&row[12]), micros(&row[13])],
    })
}

fn text(cell: &str) -> Value {
    if cell.is_empty() {
        Value::Null
    } else {
        cell.into()
    }
}

fn micros(cell: &str) -> i64 {
    cell.parse().unwrap()
}

fn plain(number: &str) -> Value {
    let number = Exact::parse(number).unwrap();
    number.without_trailing_zeros().to_string().into()
}

/// What the lines that a document keeps say, as far as `line_items` is compared with it: kind, price, what it corrects, and amounts.
fn kept(document: &str) -> Vec<[Value; 6]> {
    let lines = document.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let named = |name: &str| line.get(name).cloned().unwrap_or_default();
        let amount = |name: &str| match named(name) {
            Value::String(text) => plain(&text),
            // An amount of cents has few digits.
            number => plain(&number.to_string()),
        };
        [
            named("kind"),
            named("price"),
            named("corrects"),
            amount("amount"),
            amount("discount"),
            amount("promotional"),
        ]
    });
    lines.collect()
}

fn of_json(lines: &[Value]) -> Vec<[Value; 6]> {
    let names = [
        "kind",
        "price",
        "corrects",
        "amount",
        "discount",
        "promotional",
    ];
    let lines = lines.iter();
    lines
        .map(|line| names.map(|name| line[name].clone()))
        .collect()
}

/// The number of the last document of a customer that stands.
pub(super) async fn last_of(books: &Books, customer: &str) -> Option<String> {
    let last = format!(
        "SELECT number FROM invoices WHERE customer = '{customer}' AND voids IS NULL \
         AND number NOT IN (SELECT voids FROM invoices WHERE voids IS NOT NULL) ORDER BY serial DESC LIMIT 1"
    );
    let rows = books.rows(&last).await;
    rows.first().map(|row| row[0].clone())
}

/// What the rows of `credit_ledger` add up to at an instant, by grant.
pub(super) async fn balances(books: &Books, at_us: i64) -> Value {
    let lake = books.lake().await;
    let rows = billing::credit_ledger(&lake, at_us).await.unwrap();
    let accounts = billing::accounts::load(&lake).await.unwrap().indexed();
    let grants = accounts.grants().iter().map(|grant| grant.grant.clone());
    let mut sums: BTreeMap<String, Exact> = grants.map(|name| (name, Exact::ZERO)).collect();
    for row in 0..rows.num_rows() {
        let name = rows["grant"].as_string::<i32>().value(row);
        let amount = Exact::from_array(&rows["amount"], row).unwrap();
        let sum = sums.get_mut(name).unwrap();
        *sum = sum.checked_add(amount.unwrap()).unwrap();
    }
    let sums = sums.into_iter();
    Value::Object(
        sums.map(|(name, sum)| (name, plain(&sum.to_string())))
            .collect(),
    )
}

/// The rows of `unissued` at an instant, in the words of the oracle.
pub(super) async fn unissued(books: &Books, at_us: i64) -> Vec<Value> {
    let lake = books.lake().await;
    let view = View::open(books.catalog().await, &lake).await.unwrap();
    let rows = billing::unissued(&view, &lake, &books.settings.billing, at_us).await;
    let rows = rows.unwrap();
    let text = |name: &str, row: usize| rows[name].as_string::<i32>().value(row);
    let micros = |name: &str, row: usize| {
        let instants = rows[name].as_primitive::<TimestampMicrosecondType>();
        instants.value(row)
    };
    let of_row = |row| {
        let amount = Exact::from_array(&rows["amount"], row).unwrap().unwrap();
        json!({
            "customer": text("customer", row), "number": self::text(text("number", row)), "currency": text("currency", row),
            "period": [micros("period_start", row), micros("period_end", row)],
            "amount": plain(&amount.to_string()), "cause": text("cause", row),
        })
    };
    (0..rows.num_rows()).map(of_row).collect()
}

/// That lists are the same, in any order.
pub(super) fn assert_alike(expected: &[Value], got: &[Value], what: &str) {
    let lacks = |all: &[Value], some: &[Value]| -> Vec<String> {
        let lacking = some.iter().filter(|one| !all.contains(one));
        lacking.map(ToString::to_string).collect()
    };
    let (missing, more) = (lacks(got, expected), lacks(expected, got));
    let are_alike = missing.is_empty() && more.is_empty() && expected.len() == got.len();
    assert!(are_alike, "{what}:\nmissing {missing:#?}\nmore {more:#?}");
}

/// How many documents differ, and how the first of them do.
pub(super) fn differences(expected: &Documents, billed: &Documents) -> String {
    let mut text = String::new();
    let keys: BTreeSet<_> = expected.keys().chain(billed.keys()).collect();
    let differ: Vec<_> = keys
        .into_iter()
        .filter(|key| expected.get(*key) != billed.get(*key))
        .collect();
    for key in differ.iter().take(8) {
        let _ = write!(text, "\n{key:?}");
        match (expected.get(*key), billed.get(*key)) {
            (Some(expected), Some(billed)) => differing(expected, billed, "", &mut text),
            (Some(expected), None) => drop(write!(text, ": not issued: {expected}")),
            (None, billed) => drop(write!(text, ": issued: {billed:?}")),
        }
    }
    if !differ.is_empty() {
        let _ = write!(text, "\n{} documents differ", differ.len());
    }
    text
}

/// The parts of two values that are not alike.
fn differing(expected: &Value, billed: &Value, at: &str, text: &mut String) {
    match (expected, billed) {
        (Value::Object(expected), Value::Object(billed)) => {
            for (name, value) in expected {
                let other = billed.get(name).unwrap_or(&Value::Null);
                differing(value, other, &format!("{at} {name}"), text);
            }
        }
        (Value::Array(expected), Value::Array(billed)) if expected.len() == billed.len() => {
            for (place, (value, other)) in expected.iter().zip(billed).enumerate() {
                differing(value, other, &format!("{at} {place}"), text);
            }
        }
        _ if expected != billed => {
            let _ = write!(text, "\n {at}: expected {expected}, got {billed}");
        }
        _ => {}
    }
}
