//! What was counted and billed against what was generated.

use crate::{
    cli::demo::{
        cents,
        generator::{CUSTOMERS, Expected, Usage},
        owed::Due,
    },
    error::{Error, Result},
    telemetry::Counts,
    view::View,
};
use arrow::array::{AsArray, RecordBatch};
use std::collections::BTreeMap;

use super::show::rows;

/// One row a customer that used anything: its name, then every total as text.
const TOTALS: &str = include_str!("totals.sql");
/// One row a customer that has a document: its name, then the sum of each amount as text.
const BILLED: &str = include_str!("billed.sql");

/// Compares how many of the events that were sent became what.
///
/// # Errors
/// [`Error::Demo`] with every count that differs.
pub(super) fn counts(sent: &[&Expected], found: &Counts) -> Result<()> {
    let sum = |count: fn(&Expected) -> u64| sent.iter().map(|sent| count(sent)).sum::<u64>();
    let pairs = [
        ("events", sum(|sent| sent.events), found.events),
        ("counted", sum(|sent| sent.counted), found.counted),
        ("late", sum(|sent| sent.late), found.late),
        ("repeats", sum(|sent| sent.repeats), found.repeats),
        ("rejected", sum(|sent| sent.rejected), found.rejected),
        ("unmatched", sum(|sent| sent.unmatched), found.unmatched),
        ("conflicts", sum(|sent| sent.conflicts), found.conflicts),
    ];
    let differences = pairs
        .into_iter()
        .filter(|(_, expected, found)| expected != found);
    verdict(
        differences
            .map(|(what, expected, found)| format!("{what}: {expected} generated, {found} found")),
    )
}

/// Compares what each customer used in all that was sent.
///
/// # Errors
/// [`Error::Demo`] with every customer whose totals differ; or the query failed.
pub(super) async fn totals(sent: &[&Expected], view: &View) -> Result<()> {
    let used = |place: usize| sent.iter().flat_map(move |sent| &sent.usage[place]).sum();
    let generated = (0..CUSTOMERS.len()).map(|place| texts(&used(place)));
    let found = by_name(&rows(view, TOTALS).await?.1);
    let none = texts(&Usage::default());
    verdict(that_differ(
        generated,
        found,
        &none,
        "generated, then found",
    ))
}

/// Compares all documents of each customer with what must be billed so far, in the order of [`CUSTOMERS`].
///
/// # Errors
/// [`Error::Demo`] with every customer whose amounts differ; or the query failed.
pub(super) async fn documents(due: &[Due], view: &View) -> Result<()> {
    let found = by_name(&rows(view, BILLED).await?.1);
    let none = amounts(&Due::default());
    let what = "discount, tax, total, prepaid credits and amount due, owed, then billed";
    verdict(that_differ(due.iter().map(amounts), found, &none, what))
}

/// Each customer whose values are not the expected ones, which are in the order of [`CUSTOMERS`]; who is not found has those of
/// nothing.
fn that_differ(
    expected: impl Iterator<Item = Vec<String>>,
    mut found: BTreeMap<String, Vec<String>>,
    nothing: &[String],
    what: &str,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (customer, expected) in CUSTOMERS.iter().zip(expected) {
        let name = customer.name;
        let found = found.remove(name).unwrap_or_else(|| nothing.to_vec());
        if expected != found {
            differences.push(format!("{name}: {what}: {expected:?}, {found:?}"));
        }
    }
    let unknown = found.keys();
    differences.extend(unknown.map(|name| format!("{name}: no customer, but found")));
    differences
}

/// In the order of the query's columns, with the digits of the lake.
fn amounts(due: &Due) -> Vec<String> {
    let owed = due.owed;
    let amounts = [
        owed.discount,
        owed.tax,
        owed.total,
        due.prepaid,
        owed.total - due.prepaid,
    ];
    let texts = amounts.iter().map(|amount| format!("{}00", cents(*amount)));
    texts.collect()
}

/// Rows by their first column.
fn by_name(batches: &[RecordBatch]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| column.as_string::<i32>())
            .collect();
        for row in 0..batch.num_rows() {
            let mut values = columns.iter().map(|column| column.value(row).to_owned());
            let name = values.next().unwrap_or_default();
            found.insert(name, values.collect());
        }
    }
    found
}

/// In the order of the query's columns.
fn texts(usage: &Usage) -> Vec<String> {
    let gpu_seconds = format!(
        "{}.{:06}",
        usage.gpu_us / 1_000_000,
        usage.gpu_us % 1_000_000
    );
    let tokens = usage.completions();
    let numbers = [
        tokens.calls,
        tokens.input,
        tokens.cached,
        tokens.output,
        usage.attempts,
        usage.resolved,
    ];
    numbers
        .iter()
        .map(u64::to_string)
        .chain([gpu_seconds])
        .collect()
}

fn verdict(differences: impl IntoIterator<Item = String>) -> Result<()> {
    let differences: Vec<String> = differences.into_iter().collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Demo { differences })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::owed::Owed;

    fn expected(counted: u64) -> Expected {
        Expected {
            events: 10,
            counted,
            late: 1,
            repeats: 2,
            rejected: 0,
            unmatched: 0,
            conflicts: 0,
            usage: vec![vec![Usage::default()]; CUSTOMERS.len()],
        }
    }

    #[test]
    fn a_count_that_differs_is_named_with_both_numbers() {
        let found = Counts {
            events: 10,
            counted: 8,
            late: 1,
            repeats: 2,
            ..Counts::default()
        };
        assert!(counts(&[&expected(8)], &found).is_ok());
        let message = counts(&[&expected(7)], &found).unwrap_err().to_string();
        assert!(
            message.contains("counted: 7 generated, 8 found"),
            "{message}"
        );
    }

    #[test]
    fn gpu_time_is_compared_to_the_microsecond() {
        let mut usage = Usage {
            gpu_us: 3_000_042,
            ..Usage::default()
        };
        usage.tokens[1].calls = 5;
        assert_eq!(texts(&usage), ["5", "0", "0", "0", "0", "0", "3.000042"]);
    }

    #[test]
    fn a_customer_who_is_billed_other_than_it_owes_is_named() {
        let due = |total, prepaid| Due {
            owed: Owed {
                total,
                tax: 19,
                discount: 0,
            },
            prepaid,
        };
        let owed = [due(500, 0), due(1_205, 1_000), Due::default()];
        let differ = |second: Due, others: &[&str]| {
            let (first, second) = (amounts(&owed[0]), amounts(&second));
            let [bank, labs] = [0, 1].map(|place: usize| CUSTOMERS[place].name.to_owned());
            let mut found = BTreeMap::from([(bank, first.clone()), (labs, second)]);
            found.extend(
                others
                    .iter()
                    .map(|name| ((*name).to_owned(), first.clone())),
            );
            let nothing = amounts(&Due::default());
            that_differ(
                owed.iter().map(amounts),
                found,
                &nothing,
                "owed, then billed",
            )
        };
        assert!(differ(due(1_205, 1_000), &[]).is_empty());
        let cent = r#"bluefin-labs: owed, then billed: ["0.0000", "0.1900", "12.0500", "10.0000", "2.0500"], ["0.0000", "0.1900", "12.0600", "10.0000", "2.0600"]"#;
        assert_eq!(differ(due(1_206, 1_000), &[]), [cent]);
        assert_eq!(differ(due(1_205, 1_000), &["acme"]).len(), 1);
        let unknown = differ(due(1_205, 1_000), &["nobody"]);
        assert_eq!(unknown, ["nobody: no customer, but found"]);
    }
}
