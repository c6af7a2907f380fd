//! Who pays for which usage, when there are accounts: some time of each subject, and the customer who pays for it (pure).
//!
//! Totals are made apart for each set of times, over exactly these times, so that usage before and after a change of hands is
//! split to the microsecond.

use super::keys::Keys;
use crate::{
    customers::place_after,
    error::{Result, query_error},
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray,
        TimestampMicrosecondArray, UInt64Array,
    },
    compute::{filter_record_batch, take_record_batch},
    datatypes::{DataType, Field, Schema},
};
use std::{collections::BTreeMap, sync::Arc};
use tollgate_sql::schema;

/// From how many subjects on all are read, and those that are not asked for left out.
const NAMED_MAX: usize = 500;

/// Times, `[from, until)` in microseconds, in order, no two of which meet.
pub(super) type Times = Vec<(i64, i64)>;

/// Who pays for each subject in which times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Paid {
    groups: BTreeMap<Times, Payers>,
}

/// Who pays for each of some subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Payers(BTreeMap<String, String>);

impl Paid {
    /// Adds that a customer pays for a subject in some times. A subject has one payer at a time: times of one subject do not
    /// meet.
    pub(crate) fn add(&mut self, subject: &str, customer: &str, times: Vec<(i64, i64)>) {
        if !times.is_empty() {
            let Payers(payers) = self.groups.entry(times).or_default();
            payers.insert(subject.to_owned(), customer.to_owned());
        }
    }

    /// Whether nothing is paid for.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// What of it lies in some time.
    pub(super) fn within(&self, start_us: i64, end_us: i64) -> Self {
        let mut within = Paid::default();
        for (times, Payers(payers)) in &self.groups {
            let times = times.iter();
            let times = times
                .map(|(from_us, until_us)| ((*from_us).max(start_us), (*until_us).min(end_us)));
            let times: Times = times
                .filter(|(from_us, until_us)| from_us < until_us)
                .collect();
            for (subject, customer) in payers {
                within.add(subject, customer, times.clone());
            }
        }
        within
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&Times, &Payers)> {
        self.groups.iter()
    }

    /// The condition on groups of meters, and on events, that belong to these subjects; `None` when they are too many to be
    /// named.
    pub(super) fn keys(&self) -> Option<Keys> {
        let names: Vec<&str> = self.groups.values().flat_map(Payers::subjects).collect();
        (names.len() <= NAMED_MAX).then(|| Keys::subjects(&names))
    }

    /// A row for each time: `subject, customer, from, until`, called so that no column of an event type has their names.
    pub(super) fn rows(&self) -> Result<RecordBatch> {
        let mut rows = Vec::new();
        for (times, Payers(payers)) in &self.groups {
            for (subject, customer) in payers {
                rows.extend(
                    times
                        .iter()
                        .map(|(from_us, until_us)| (subject, customer, *from_us, *until_us)),
                );
            }
        }
        let instants = |of: fn(&(&String, &String, i64, i64)) -> i64| {
            let instants = TimestampMicrosecondArray::from_iter_values(rows.iter().map(of));
            Arc::new(instants.with_timezone("UTC")) as ArrayRef
        };
        let texts = |of: fn(&(&String, &String, i64, i64)) -> String| {
            Arc::new(StringArray::from_iter_values(rows.iter().map(of))) as ArrayRef
        };
        let columns = vec![
            texts(|row| row.0.clone()),
            texts(|row| row.1.clone()),
            instants(|row| row.2),
            instants(|row| row.3),
        ];
        let schema = Schema::new(vec![
            Field::new(SUBJECT, DataType::Utf8, false),
            Field::new(CUSTOMER, DataType::Utf8, false),
            Field::new(FROM, schema::timestamp(), false),
            Field::new(UNTIL, schema::timestamp(), false),
        ]);
        RecordBatch::try_new(Arc::new(schema), columns).map_err(query_error("listing who pays"))
    }
}

/// The columns of [`Paid::rows`].
pub(super) const SUBJECT: &str = "$subject";
pub(super) const CUSTOMER: &str = "$customer";
pub(super) const FROM: &str = "$from";
pub(super) const UNTIL: &str = "$until";

impl Payers {
    pub(super) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The condition on groups of meters that belong to these subjects; `None` when they are too many to be named.
    pub(super) fn keys(&self) -> Option<Keys> {
        let names: Vec<&str> = self.subjects().collect();
        (names.len() <= NAMED_MAX).then(|| Keys::subjects(&names))
    }

    /// The rows of these subjects, by the column `subject`.
    pub(super) fn select(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let subjects = rows["subject"].as_string::<i32>().iter();
        let known =
            subjects.map(|subject| subject.is_some_and(|subject| self.0.contains_key(subject)));
        let known: BooleanArray = known.map(Some).collect();
        filter_record_batch(rows, &known).map_err(query_error("selecting what is paid for"))
    }

    /// The same of rows that are sorted by subject, however many others they have.
    pub(super) fn take(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let subjects = rows["subject"].as_string::<i32>();
        let mut places = Vec::new();
        let mut from = 0;
        for subject in self.subjects() {
            from = place_after(subjects, from, |known| known < subject);
            while from < subjects.len() && subjects.value(from) == subject {
                places.push(from as u64);
                from += 1;
            }
        }
        let places = UInt64Array::from(places);
        take_record_batch(rows, &places).map_err(query_error("selecting what is paid for"))
    }

    /// Who pays for each of some subjects; NULL where that is not known.
    pub(super) fn customers(&self, subjects: &ArrayRef) -> ArrayRef {
        let subjects = subjects.as_string::<i32>().iter();
        let customers = subjects.map(|subject| subject.and_then(|subject| self.0.get(subject)));
        Arc::new(customers.collect::<StringArray>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_some_time_is_cut_at_its_edges() {
        let mut paid = Paid::default();
        paid.add("bot", "acme", vec![(0, 10), (20, 30)]);
        paid.add("bot", "globex", vec![(10, 20)]);
        paid.add("cat", "acme", vec![(0, 5)]);
        let mut expected = Paid::default();
        expected.add("bot", "acme", vec![(5, 10), (20, 25)]);
        expected.add("bot", "globex", vec![(10, 20)]);
        assert_eq!(paid.within(5, 25), expected);
        assert_eq!(paid.within(30, 40), Paid::default());
    }

    #[test]
    fn rows_of_other_subjects_are_left_out_and_customers_are_named() {
        let mut paid = Paid::default();
        paid.add("bot", "acme", vec![(0, 10)]);
        let (_, payers) = paid.groups().next().unwrap();
        let subjects: ArrayRef = Arc::new(StringArray::from(vec!["cat", "bot", "bots"]));
        let rows = RecordBatch::try_from_iter([("subject", Arc::clone(&subjects))]).unwrap();
        let subjects_of = |rows: RecordBatch| {
            let subjects = rows["subject"].as_string::<i32>().iter().flatten();
            subjects.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(subjects_of(payers.select(&rows).unwrap()), ["bot"]);
        let customers = payers.customers(&subjects);
        let customers: Vec<Option<&str>> = customers.as_string::<i32>().iter().collect();
        assert_eq!(customers, [None, Some("acme"), None]);
    }

    #[test]
    fn of_sorted_rows_each_of_a_subject_is_taken() {
        let mut paid = Paid::default();
        for subject in ["a", "bot", "c", "z"] {
            paid.add(subject, "acme", vec![(0, 10)]);
        }
        let (_, payers) = paid.groups().next().unwrap();
        let subjects = ["Bot", "bo", "bot", "bot", "bots", "c", "d", "z"];
        let subjects: ArrayRef = Arc::new(StringArray::from(subjects.to_vec()));
        let rows = RecordBatch::try_from_iter([("subject", subjects)]).unwrap();
        let taken = payers.take(&rows).unwrap();
        assert_eq!(taken, payers.select(&rows).unwrap());
        assert_eq!(taken.num_rows(), 4);
    }
}
