//! Which issued documents stand: neither voided nor voids.

use crate::error::{Result, query_error};
use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::Int64Type,
};
use std::collections::{BTreeMap, BTreeSet};
use tollgate_sql::invoice::InvoiceId;

/// The rows of issued documents that stand: without those that were voided, and without voids.
pub(super) fn standing(rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let voided = voided_in(&rows);
    if voided.is_empty() {
        return Ok(rows);
    }
    rows.iter().map(|rows| but(rows, &voided)).collect()
}

/// Rows without those of some documents that were voided, and without voids.
pub(super) fn but(rows: &RecordBatch, voided: &BTreeSet<String>) -> Result<RecordBatch> {
    let numbers = rows["number"].as_string::<i32>();
    let stand = (0..rows.num_rows())
        .map(|row| voids(rows, row).is_none() && !voided.contains(numbers.value(row)));
    let stand = BooleanArray::from(stand.collect::<Vec<bool>>());
    filter_record_batch(rows, &stand).map_err(query_error("reading issued invoices"))
}

/// The numbers of documents that were voided.
pub(super) fn voided_in(rows: &[RecordBatch]) -> BTreeSet<String> {
    let voided = rows.iter().flat_map(|rows| {
        let voided = (0..rows.num_rows()).filter_map(|row| voids(rows, row));
        voided.map(str::to_owned)
    });
    voided.collect()
}

/// Which document a row is the void of. Tables of before there were any have no such column.
pub(super) fn voids(rows: &RecordBatch, row: usize) -> Option<&str> {
    let column = rows.column_by_name("voids")?.as_string::<i32>();
    column.is_valid(row).then(|| column.value(row))
}

/// The ids of documents that were voided, and of instalments, each with its serial: a document that is issued again has another id, and
/// its place.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeMap<String, i64>);

impl Taken {
    /// Those in some rows.
    pub(super) fn of(rows: &[RecordBatch]) -> Self {
        let voided = voided_in(rows);
        if voided.is_empty() {
            return Taken::default();
        }
        let mut taken = BTreeMap::new();
        for rows in rows {
            let (ids, numbers) = (
                rows["invoice"].as_string::<i32>(),
                rows["number"].as_string::<i32>(),
            );
            let serials = rows["serial"].as_primitive::<Int64Type>();
            let rows = (0..rows.num_rows()).filter(|row| voided.contains(numbers.value(*row)));
            taken.extend(rows.map(|row| (ids.value(row).to_owned(), serials.value(row))));
        }
        Taken(taken)
    }

    /// Adds issued instalments. One that was taken back without a void has its place in the period again.
    pub(super) fn extend<'a>(&mut self, instalments: impl Iterator<Item = (&'a str, i64)>) {
        self.0
            .extend(instalments.map(|(id, serial)| (id.to_owned(), serial)));
    }

    /// The serial of the first document that was due of a customer at an instant; `None` when that was never voided.
    pub(super) fn first(&self, customer: &str, at_us: i64) -> Option<i64> {
        if self.0.is_empty() {
            return None;
        }
        let id = InvoiceId::of_document(customer, at_us);
        self.0.get(id.as_str()).copied()
    }

    /// The id of a document that may be issued again.
    pub(super) fn unused(&self, id: &InvoiceId) -> InvoiceId {
        let mut times = 0;
        loop {
            let again = id.again(times);
            // There are fewer documents than numbers.
            if !self.0.contains_key(again.as_str()) {
                return again;
            }
            times += 1;
        }
    }
}
