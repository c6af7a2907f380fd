//! Customers range by range: a job rates, assembles and writes the documents of one range and drops them before it goes on, so that what
//! it takes in memory does not grow with the number of customers.
//!
//! Two ranges are made at once. They are handed on in the order of the customers' names, whatever their sizes, and what is made of one
//! customer does not depend on who else is in the range: a job whose prices compare customers has one range.

use super::subscription;
use crate::{
    catalog::Catalog,
    customers::Customers,
    error::{Error, Result},
    view::View,
};
use arrow::array::{Array, StringArray};
use futures::future::BoxFuture;
use std::{collections::VecDeque, panic::resume_unwind, sync::Arc};
use tokio::task::JoinHandle;
use tollgate_sql::{period::Period, rating::is_by_customer};

/// So many ranges are in memory at once: one for each of two processors.
const AT_ONCE: usize = 2;

/// What a customer is taken to need before any range was made.
const BYTES_AT_FIRST: usize = 65_536;

/// By how much the next range may have more customers than was found right for the one before.
const GROWTH_MAX: usize = 4;

/// What is made of a range.
pub(super) trait Weighed: Send + 'static {
    /// What making it took in memory, nearly.
    fn bytes(&self) -> usize;
}

/// What making a line takes in memory from the totals to the files, nearly, beside what its document does.
pub(super) const LINE_BYTES: usize = 3_700;

/// What making a document takes beside its lines, nearly.
pub(super) const DOCUMENT_BYTES: usize = 6_000;

/// Ranges of customers, and what is made of each.
pub(super) struct InRanges<T> {
    /// Customers in the order of their names. Others may be there too: each has its place between two of these.
    names: StringArray,
    /// The first that is in no range yet; `None` when all are.
    next: Option<usize>,
    bytes_max: usize,
    /// What one customer needs, by the ranges that were made.
    bytes_each: usize,
    running: VecDeque<(usize, JoinHandle<Result<T>>)>,
    done: usize,
    make: Box<dyn Fn(Customers) -> BoxFuture<'static, Result<T>> + Send>,
}

impl<T: Weighed> InRanges<T> {
    /// Ranges that together take about so many bytes at once. `make` says what is made of one.
    pub(super) fn new(
        names: StringArray,
        bytes_max: usize,
        make: impl Fn(Customers) -> BoxFuture<'static, Result<T>> + Send + 'static,
    ) -> Self {
        InRanges {
            names,
            next: Some(0),
            bytes_max,
            bytes_each: BYTES_AT_FIRST,
            running: VecDeque::new(),
            done: 0,
            make: Box::new(make),
        }
    }

    /// The next range, when it is made; `None` when all are.
    pub(super) async fn next(&mut self) -> Result<Option<T>> {
        while self.running.len() < AT_ONCE
            && let Some((count, customers)) = self.next_range()
        {
            let made = tokio::spawn((self.make)(customers));
            self.running.push_back((count, made));
        }
        let Some((count, made)) = self.running.pop_front() else {
            return Ok(None);
        };
        let made = match made.await {
            Ok(made) => made?,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => {
                    return Err(Error::Contradiction {
                        what: "a range of customers that is waited for is not cancelled",
                    });
                }
            },
        };
        let each = made.bytes().div_ceil(count.max(1)).max(1);
        self.bytes_each = each.max(self.bytes_each / GROWTH_MAX);
        self.done += count;
        Ok(Some(made))
    }

    /// How many customers are done, and of how many.
    pub(super) fn progress(&self) -> (usize, usize) {
        (self.done, self.names.len())
    }

    /// The next range of customers, and how many of the known ones it has.
    fn next_range(&mut self) -> Option<(usize, Customers)> {
        let from = self.next?;
        let count = (self.bytes_max / AT_ONCE / self.bytes_each).max(1);
        let until = from.saturating_add(count);
        // The first range begins with any name, and the last one ends with any.
        let name = |place: usize| self.names.value(place).to_owned();
        let first = (from > 0).then(|| name(from));
        let last = (until < self.names.len()).then(|| name(until));
        self.next = last.is_some().then_some(until);
        let count = until.min(self.names.len()).saturating_sub(from);
        Some((count, Customers::between(first, last)))
    }
}

impl<T> Drop for InRanges<T> {
    fn drop(&mut self) {
        for (_, made) in &self.running {
            made.abort();
        }
    }
}

/// Whether a version of some prices makes rows of the usage of several customers, so that ranges would be other amounts. A price that
/// cannot be planned says so when it is rated.
///
/// # Errors
/// The definitions cannot be evaluated.
pub(super) async fn compares_customers(
    catalog: &Arc<Catalog>,
    is_asked_for: impl Fn(&str) -> bool,
) -> Result<bool> {
    let view = View::empty(Arc::clone(catalog));
    let period = Period::month("2026-01", "UTC")?;
    let totals = view.all_totals(&period).await?;
    let prices = catalog.definitions.prices.iter();
    for price in prices.filter(|price| is_asked_for(&price.name)) {
        let no_rows = subscription(&[], &period)?;
        let session = view
            .period_session(&period, &price.query, &totals, no_rows)
            .await;
        let by_customer = match session {
            Ok(session) => is_by_customer(&session.context, price).await,
            Err(_) => continue,
        };
        if matches!(by_customer, Ok(false)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    struct Range(Customers, usize);

    impl Weighed for Range {
        fn bytes(&self) -> usize {
            self.1
        }
    }

    /// The ranges of a..j where each customer needs so many bytes.
    async fn ranges(bytes_max: usize, bytes_each: usize) -> Vec<Customers> {
        let names: Vec<String> = ('a'..='j').map(String::from).collect();
        let known = names.clone();
        let make = move |customers: Customers| {
            let count = known.iter().filter(|name| customers.has(name)).count();
            async move { Ok(Range(customers, count * bytes_each)) }.boxed()
        };
        let mut ranges = InRanges::new(StringArray::from(names), bytes_max, make);
        let mut all = Vec::new();
        while let Some(Range(customers, _)) = ranges.next().await.unwrap() {
            all.push(customers);
        }
        assert_eq!(ranges.progress(), (10, 10));
        all
    }

    fn between(from: Option<&str>, until: Option<&str>) -> Customers {
        Customers::between(from.map(str::to_owned), until.map(str::to_owned))
    }

    #[tokio::test]
    async fn ranges_are_all_names_once_and_as_large_as_what_was_found_to_fit() {
        assert_eq!(ranges(usize::MAX, 1).await, [Customers::All]);
        // Two customers at first, for it is not known what they need: four times as many when the first range is made, and then the rest.
        let found = ranges(4 * BYTES_AT_FIRST, 1).await;
        let expected = [
            between(None, Some("c")),
            between(Some("c"), Some("e")),
            between(Some("e"), None),
        ];
        assert_eq!(found, expected);
        // Of more bytes than there are each range has one.
        let found = ranges(1, 1_000).await;
        assert_eq!(found.len(), 10);
        assert_eq!(found[0], between(None, Some("b")));
        assert_eq!(found[9], between(Some("j"), None));
        for name in ["", "a", "cc", "j", "zz", "ä"] {
            let having = found.iter().filter(|range| range.has(name));
            assert_eq!(having.count(), 1, "{name}");
        }
    }
}
