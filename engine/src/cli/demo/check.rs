//! What was counted against what was generated.

use crate::{
    cli::demo::generator::{CUSTOMERS, Expected, Usage},
    error::{Error, Result},
    telemetry::Counts,
    view::View,
};
use arrow::array::{AsArray, RecordBatch};
use std::collections::BTreeMap;

use super::show::rows;

/// One row a customer that used anything: its name, then every total as text.
const TOTALS: &str = include_str!("totals.sql");

/// Compares how many events became what.
///
/// # Errors
/// [`Error::Demo`] with every count that differs.
pub(super) fn counts(expected: &Expected, found: &Counts) -> Result<()> {
    let pairs = [
        ("events", expected.events, found.events),
        ("counted", expected.counted, found.counted),
        ("late", expected.late, found.late),
        ("repeats", expected.repeats, found.repeats),
        ("rejected", expected.rejected, found.rejected),
        ("unmatched", expected.unmatched, found.unmatched),
        ("conflicts", expected.conflicts, found.conflicts),
    ];
    let differences = pairs
        .into_iter()
        .filter(|(_, expected, found)| expected != found);
    verdict(
        differences
            .map(|(what, expected, found)| format!("{what}: {expected} generated, {found} found")),
    )
}

/// Compares what each customer used.
///
/// # Errors
/// [`Error::Demo`] with every customer whose totals differ; or the query failed.
pub(super) async fn totals(expected: &Expected, view: &View) -> Result<()> {
    let mut found = by_customer(&rows(view, TOTALS).await?.1);
    let mut differences = Vec::new();
    for (customer, usage) in CUSTOMERS.iter().zip(&expected.usage) {
        let expected = texts(usage);
        let found = found
            .remove(customer.name)
            .unwrap_or_else(|| texts(&Usage::default()));
        if expected != found {
            differences.push(format!(
                "{}: {expected:?} generated, {found:?} found",
                customer.name
            ));
        }
    }
    differences.extend(
        found
            .keys()
            .map(|name| format!("{name}: not generated, but found")),
    );
    verdict(differences)
}

fn by_customer(batches: &[RecordBatch]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| column.as_string::<i32>())
            .collect();
        for row in 0..batch.num_rows() {
            let mut values = columns.iter().map(|column| column.value(row).to_owned());
            let customer = values.next().unwrap_or_default();
            found.insert(customer, values.collect());
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
    let numbers = [
        usage.calls,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
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

    fn expected(counted: u64) -> Expected {
        Expected {
            events: 10,
            counted,
            late: 1,
            repeats: 2,
            rejected: 0,
            unmatched: 0,
            conflicts: 0,
            usage: vec![Usage::default(); CUSTOMERS.len()],
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
        assert!(counts(&expected(8), &found).is_ok());
        let message = counts(&expected(7), &found).unwrap_err().to_string();
        assert!(
            message.contains("counted: 7 generated, 8 found"),
            "{message}"
        );
    }

    #[test]
    fn gpu_time_is_compared_to_the_microsecond() {
        let usage = Usage {
            gpu_us: 3_000_042,
            calls: 5,
            ..Usage::default()
        };
        assert_eq!(texts(&usage), ["5", "0", "0", "0", "0", "0", "3.000042"]);
    }
}
