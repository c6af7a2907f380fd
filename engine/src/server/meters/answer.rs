//! The values of a measure over time and groups, exactly.
//!
//! Where values of groups and windows merge (sums, counts, least and greatest values) and a row's time is made of whole
//! windows, a meter's windows are read once and merged here. Otherwise the meter's states are merged for each row's time by
//! itself, which is exact for every aggregate and every edge, and dearer.

use super::{
    super::problem::Problem,
    offered::Offered,
    question::{Question, WindowSize},
};
use crate::{
    error::{Result as Done, query_error},
    metering::micros,
    view::View,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    util::display::{ArrayFormatter, FormatOptions},
};
use axum::http::StatusCode;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use tollgate_sql::{
    meter::{Aggregation, ERROR, Meter},
    money::Exact,
    period::Period,
};

/// One row: some time, some group, one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    /// The values of what is grouped by, in the order of the question.
    pub(super) keys: Vec<Option<String>>,
    pub(super) value: Exact,
}

/// All time that events can have, by whole days: from 1970 to 9999.
const EVER: (i64, i64) = (0, 253_402_214_400_000_000);

/// So many rows of time are made one by one.
const APART_MAX: usize = 1_000;

/// Answers a question about one measure; rows are ordered by time, then by their keys.
///
/// # Errors
/// The question names what the meter does not have, or what it cannot merge; usage of it is in error; there are too many rows.
pub(super) async fn answer(
    view: &View,
    offered: &Offered,
    question: &Question,
    rows_max: usize,
) -> Result<Vec<Row>, Problem> {
    let meter = &view.catalog().meters[offered.index];
    check_keys(meter, question)?;
    check_merges(meter, offered, question)?;
    let asking = Asking {
        view,
        meter,
        offered,
        question,
        rows_max,
    };
    let merges = offered.by.is_mergeable() && meter.has_plain_windows() && !meter.carries();
    let windows = asking.windows().await?;
    if merges && let Some(rows) = asking.merged(&windows)? {
        return Ok(rows);
    }
    match asking.time(&windows) {
        None => Ok(Vec::new()),
        Some(time) => asking.apart(time).await,
    }
}

fn check_keys(meter: &Meter, question: &Question) -> Result<(), Problem> {
    let dimensions: Vec<&str> = meter
        .dimensions()
        .iter()
        .map(|d| d.name().as_str())
        .collect();
    let there_are = || match dimensions.as_slice() {
        [] => "the meter has no dimensions".to_owned(),
        some => format!("the meter has {}", some.join(", ")),
    };
    let is_known =
        |key: &str| matches!(key, "subject" | "customer_id") || dimensions.contains(&key);
    if let Some(key) = question.group_by.iter().find(|key| !is_known(key)) {
        let detail = format!(
            "invalid group by: {key}; {}, subject and customer_id",
            there_are()
        );
        return Err(Problem::parameter(detail));
    }
    match question
        .filters
        .keys()
        .find(|key| !dimensions.contains(&key.as_str()))
    {
        None => Ok(()),
        Some(key) => Err(Problem::parameter(format!(
            "invalid filter: {key}; {}",
            there_are()
        ))),
    }
}

/// Refuses to merge what is not the merge of its parts: who is in two groups would count twice.
fn check_merges(meter: &Meter, offered: &Offered, question: &Question) -> Result<(), Problem> {
    if offered.by.is_mergeable() {
        return Ok(());
    }
    let is_single = |key: &str| match key {
        "subject" => question.subjects.len() == 1 || question.customers.len() == 1,
        key => question
            .filters
            .get(key)
            .is_some_and(|values| values.len() == 1),
    };
    let dimensions = meter.dimensions().iter().map(|field| field.name().as_str());
    let left: Vec<&str> = ["subject"]
        .into_iter()
        .chain(dimensions)
        .filter(|key| !question.group_by.iter().any(|by| by == key) && !is_single(key))
        .collect();
    match left.as_slice() {
        [] => Ok(()),
        left => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "not_mergeable",
            format!(
                "`{}` cannot be merged over groups: group by {}, or filter by one value of each",
                offered.slug,
                left.join(", ")
            ),
        )),
    }
}

/// A question with what it is asked of.
struct Asking<'a> {
    view: &'a View,
    meter: &'a Meter,
    offered: &'a Offered,
    question: &'a Question,
    rows_max: usize,
}

/// The value of each group at each time.
type Values = BTreeMap<(i64, i64, Vec<Option<String>>), Exact>;

impl Asking<'_> {
    /// Whose usage is wanted and may be seen; `None` stands for all.
    fn subjects(&self) -> Option<Vec<&str>> {
        let Question {
            subjects,
            customers,
            visible,
            ..
        } = self.question;
        // Every subject is its own customer.
        let sets = [
            (!subjects.is_empty()).then_some(subjects),
            (!customers.is_empty()).then_some(customers),
            visible.as_ref(),
        ];
        let mut sets = sets.into_iter().flatten();
        let first = sets.next()?.iter();
        let others: Vec<&Vec<String>> = sets.collect();
        let in_all = first.filter(|subject| others.iter().all(|set| set.contains(subject)));
        Some(in_all.map(String::as_str).collect())
    }

    fn limits(&self) -> (i64, i64) {
        (
            self.question.from_us.unwrap_or(EVER.0).max(EVER.0),
            self.question.to_us.unwrap_or(EVER.1).min(EVER.1),
        )
    }

    /// The meter's windows in the time that is asked about.
    async fn windows(&self) -> Done<Vec<RecordBatch>> {
        let (from_us, to_us) = self.limits();
        let is_ever = self.question.from_us.is_none() && self.question.to_us.is_none();
        if from_us >= to_us {
            return Ok(Vec::new());
        }
        let period = Period::in_zone(&self.question.zone, from_us, to_us);
        let period = (!is_ever).then_some(&period);
        let subjects = self.subjects();
        let rows = self
            .view
            .windows_of(self.offered.index, period, subjects.as_deref());
        Box::pin(rows).await
    }

    /// The time of the answer: what was asked about, and else from the first window to the end of the last.
    fn time(&self, windows: &[RecordBatch]) -> Option<(i64, i64)> {
        let starts = windows.iter().flat_map(|rows| micros(rows, "window_start"));
        let first = starts.min();
        let ends = windows.iter().flat_map(|rows| micros(rows, "window_end"));
        let last = ends.max();
        let (from_us, to_us) = (self.question.from_us, self.question.to_us);
        let (first, last) = first.zip(last)?;
        Some((from_us.unwrap_or(*first), to_us.unwrap_or(*last)))
    }

    /// The windows merged; `None` when one of them is in two rows of time.
    fn merged(&self, windows: &[RecordBatch]) -> Result<Option<Vec<Row>>, Problem> {
        let Some(time) = self.time(windows) else {
            return Ok(Some(Vec::new()));
        };
        let (mut values, (from_us, to_us)) = (Values::new(), self.limits());
        for rows in windows {
            let (starts, ends) = (micros(rows, "window_start"), micros(rows, "window_end"));
            let reader = self.reader(rows)?;
            for row in 0..rows.num_rows() {
                let (start, end) = (starts[row].max(from_us), ends[row].min(to_us));
                let span = match self.question.window {
                    None => time,
                    Some(size) => self.around(size, start)?,
                };
                if end > span.1 {
                    return Ok(None);
                }
                self.add(&mut values, span, &reader, row)?;
            }
        }
        Ok(Some(rows_of(values)))
    }

    /// Each row of time by itself.
    async fn apart(&self, time: (i64, i64)) -> Result<Vec<Row>, Problem> {
        let (mut values, subjects) = (Values::new(), self.subjects());
        for span in self.spans(time)? {
            let period = Period::in_zone(&self.question.zone, span.0, span.1);
            let totals = self
                .view
                .totals_in(self.offered.index, &period, subjects.as_deref());
            let totals = Box::pin(totals).await?;
            let reader = self.reader(&totals)?;
            for row in 0..totals.num_rows() {
                self.add(&mut values, span, &reader, row)?;
            }
        }
        Ok(rows_of(values))
    }

    fn spans(&self, time: (i64, i64)) -> Result<Vec<(i64, i64)>, Problem> {
        let Some(size) = self.question.window else {
            return Ok(vec![time]);
        };
        let mut spans = Vec::new();
        let mut at = time.0;
        while at < time.1 {
            let span = self.around(size, at)?;
            spans.push(span);
            at = span.1;
            if spans.len() > APART_MAX {
                return Err(Problem::answer_too_large(APART_MAX, "windows of time"));
            }
        }
        Ok(spans)
    }

    /// The time of a row that holds an instant, as far as it is asked about.
    fn around(&self, size: WindowSize, at_us: i64) -> Result<(i64, i64), Problem> {
        let around = size.around(at_us, &self.question.zone);
        let (start, end) = around.ok_or_else(|| {
            Problem::parameter("the time that is asked about leaves the calendar")
        })?;
        let (from_us, to_us) = self.limits();
        Ok((start.max(from_us), end.min(to_us)))
    }

    fn reader<'r>(&self, rows: &'r RecordBatch) -> Done<Reader<'r>> {
        let doing = "reading a meter";
        const OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let mut texts = BTreeMap::new();
        let dimensions = self
            .meter
            .dimensions()
            .iter()
            .map(|field| field.name().as_str());
        for name in ["subject", "customer"].into_iter().chain(dimensions) {
            let column = &rows[name];
            let text = ArrayFormatter::try_new(column, &OPTIONS).map_err(query_error(doing))?;
            texts.insert(name.to_owned(), (column.as_ref(), text));
        }
        Ok(Reader {
            texts,
            values: rows[self.offered.measure.as_str()].as_ref(),
            errors: rows[ERROR].as_string::<i32>(),
        })
    }

    /// Adds the value of one row of a meter to that of its group.
    fn add(
        &self,
        values: &mut Values,
        span: (i64, i64),
        reader: &Reader<'_>,
        row: usize,
    ) -> Result<(), Problem> {
        // What is in error as a whole has no dimensions, and may be any.
        let is_wanted =
            self.question
                .filters
                .iter()
                .all(|(key, wanted)| match reader.text(key, row) {
                    Some(value) => wanted.contains(&value),
                    None => reader.errors.is_valid(row),
                });
        if !is_wanted {
            return Ok(());
        }
        if reader.errors.is_valid(row) {
            let subject = reader.text("subject", row).unwrap_or_default();
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "usage_in_error",
                format!(
                    "usage of subject `{subject}` cannot be told: {}; ask for other subjects, or mend it",
                    reader.errors.value(row)
                ),
            ));
        }
        let value = Exact::from_array(reader.values, row).map_err(unfit)?;
        let Some(value) = value else {
            return Ok(());
        };
        let keys = self.question.group_by.iter().map(|key| match key.as_str() {
            "customer_id" => reader.text("customer", row),
            key => reader.text(key, row),
        });
        match values.entry((span.0, span.1, keys.collect())) {
            Entry::Vacant(free) => {
                free.insert(value);
            }
            Entry::Occupied(mut known) => {
                let both = merge(self.offered.by, *known.get(), value)?;
                known.insert(both);
            }
        }
        match values.len() > self.rows_max {
            true => Err(Problem::answer_too_large(self.rows_max, "rows")),
            false => Ok(()),
        }
    }
}

/// The columns of one batch.
struct Reader<'r> {
    texts: BTreeMap<String, (&'r dyn Array, ArrayFormatter<'r>)>,
    values: &'r dyn Array,
    errors: &'r arrow::array::StringArray,
}

impl Reader<'_> {
    /// The text of a key; `None` where it is NULL.
    fn text(&self, key: &str, row: usize) -> Option<String> {
        let (column, text) = self.texts.get(key)?;
        column.is_valid(row).then(|| text.value(row).to_string())
    }
}

fn merge(by: Aggregation, one: Exact, other: Exact) -> Result<Exact, Problem> {
    match by {
        Aggregation::Sum | Aggregation::Count => one.checked_add(other).map_err(unfit),
        Aggregation::Min => Ok(one.min(other)),
        Aggregation::Max => Ok(one.max(other)),
        Aggregation::UniqueCount | Aggregation::Avg | Aggregation::Latest | Aggregation::Other => {
            Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "not_mergeable",
                "this measure cannot be merged over groups: group by every dimension",
            ))
        }
    }
}

fn unfit(error: impl std::fmt::Display) -> Problem {
    let code = "number_unfit";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string())
}

fn rows_of(values: Values) -> Vec<Row> {
    let rows = values
        .into_iter()
        .map(|((start_us, end_us, keys), value)| Row {
            start_us,
            end_us,
            keys,
            value,
        });
    rows.collect()
}

/// The subjects in some rows that are grouped by subject alone, each once.
pub(super) fn first_keys(rows: Vec<Row>) -> BTreeSet<String> {
    let keys = rows
        .into_iter()
        .filter_map(|row| row.keys.into_iter().next());
    keys.flatten().collect()
}
