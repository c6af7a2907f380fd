//! Totals of a period that are not merged yet. A job goes through customers range by range, and each range merges its own, beside the others.

use super::{Keys, Totals, View, apart, with_customer};
use crate::{
    customers::{Customers, in_order},
    error::{Error, Result, query_error},
};
use arrow::{
    array::{AsArray, RecordBatch, StringArray, UInt32Array},
    compute::take_record_batch,
};
use tokio::task::spawn_blocking;
use tollgate_sql::period::Period;

/// The states of every meter in a period, where every subject is its own customer.
pub(crate) struct Unmerged {
    period: Period,
    meters: Vec<OfMeter>,
}

/// Batches of states, each in the order of subjects.
struct OfMeter {
    within: Vec<RecordBatch>,
    /// From before the period, of a meter that carries usage over.
    before: Vec<RecordBatch>,
}

impl View {
    /// What [`View::all_totals`] merges.
    pub(crate) async fn unmerged_totals(&self, period: &Period) -> Result<Unmerged> {
        let mut meters = Vec::with_capacity(self.catalog.meters.len());
        for index in 0..self.catalog.meters.len() {
            let times = [(period.start_us, period.end_us)];
            let within = self.states_in(index, &times, None).await?;
            let before = self.states_carried(index, period.start_us, None).await?;
            meters.push(OfMeter {
                within: by_subject(within).await?,
                before: by_subject(before).await?,
            });
        }
        Ok(Unmerged {
            period: period.clone(),
            meters,
        })
    }
}

impl Unmerged {
    /// Who may have totals, be they in error, by name.
    pub(crate) fn customers(&self) -> StringArray {
        let names = self.batches().flat_map(|rows| subjects(rows).iter());
        in_order(names.flatten())
    }

    /// What of some memory is left beside them: a quarter of it at least.
    pub(crate) fn bytes_beside(&self, bytes: usize) -> usize {
        let own = self.batches().map(RecordBatch::get_array_memory_size);
        bytes.saturating_sub(own.sum()).max(bytes / 4)
    }

    fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        let meters = self.meters.iter();
        meters.flat_map(|meter| meter.within.iter().chain(&meter.before))
    }

    /// The totals of some customers, none of whom a price compares with others.
    pub(crate) async fn of_customers(&self, view: &View, customers: &Customers) -> Result<Totals> {
        let of_these = |batches: &[RecordBatch]| -> Vec<RecordBatch> {
            let batches = batches.iter().map(|rows| of_customers(rows, customers));
            batches.collect()
        };
        let mut totals = Totals {
            keys: Keys::customers(customers),
            are_apart: true,
            ..Totals::default()
        };
        let span = self.period.span();
        for (meter, states) in view.catalog.meters.iter().zip(&self.meters) {
            let (within, before) = (of_these(&states.within), of_these(&states.before));
            let rows = meter.totals_over(&within, &before, &span);
            let rows = with_customer(meter, &rows.await?, None, &[], None)?;
            totals
                .meters
                .push(apart(meter, &rows, &mut totals.in_error)?);
        }
        Ok(totals)
    }
}

/// The rows of customers who are neighbours, of rows in the order of subjects.
fn of_customers(rows: &RecordBatch, customers: &Customers) -> RecordBatch {
    let places = customers.places_in(subjects(rows));
    rows.slice(places.start, places.len())
}

fn subjects(states: &RecordBatch) -> &StringArray {
    states["subject"].as_string()
}

/// Each batch in the order of subjects, in which it mostly is.
async fn by_subject(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let sorts: Vec<_> = batches
        .into_iter()
        .map(|rows| spawn_blocking(move || sorted(rows)))
        .collect();
    let mut all = Vec::with_capacity(sorts.len());
    for sort in sorts {
        let rows = sort.await.map_err(|_| Error::Contradiction {
            what: "rows that are sorted have names",
        })?;
        all.push(rows?);
    }
    Ok(all)
}

fn sorted(rows: RecordBatch) -> Result<RecordBatch> {
    let names = subjects(&rows);
    if names.iter().is_sorted() {
        return Ok(rows);
    }
    let mut order: Vec<(Option<&str>, u32)> = names.iter().zip(0..).collect();
    order.sort_unstable();
    let order: UInt32Array = order.into_iter().map(|(_, row)| row).collect();
    take_record_batch(&rows, &order).map_err(query_error("sorting states"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn rows_come_in_the_order_of_subjects_and_a_range_has_those_of_its_names() {
        let names = StringArray::from(vec!["c", "a", "d", "b", "a"]);
        let rows = RecordBatch::try_from_iter([("subject", Arc::new(names) as _)]).unwrap();
        let sorted = by_subject(vec![rows]).await.unwrap();
        let of = |from: Option<&str>, until: Option<&str>| -> Vec<String> {
            let range = Customers::between(from.map(str::to_owned), until.map(str::to_owned));
            let rows = of_customers(&sorted[0], &range);
            let names = subjects(&rows).iter().flatten();
            names.map(str::to_owned).collect()
        };
        assert_eq!(of(None, None), ["a", "a", "b", "c", "d"]);
        assert_eq!(of(Some("b"), Some("d")), ["b", "c"]);
        assert_eq!(of(None, Some("b")), ["a", "a"]);
        assert_eq!(of(Some("e"), None), Vec::<String>::new());
    }
}
