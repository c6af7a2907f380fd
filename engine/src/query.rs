//! One SQL statement over everything that was committed, open windows included: what `tollgate query` and HTTP answer with.

use crate::{
    billing,
    catalog::Catalog,
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result, query_error},
    tables,
    view::{View, referenced, register_rows},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{common::plan_err, dataframe::DataFrame, error::Result as Planned};
use futures::TryStreamExt;
use std::sync::Arc;
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::TABLES,
    definitions::Definitions,
    session,
    unplanned::{Unplanned, unplanned},
};

/// How much one statement may take; nothing is bounded by default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// What sorting and grouping may take in memory before they spill, and then fail.
    pub(crate) bytes_max: Option<usize>,
    /// How many rows the answer may have.
    pub(crate) rows_max: Option<usize>,
}

/// The rows that a statement asks for, and the view that they are of.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) view: View,
}

/// Answers one statement, which may only read.
///
/// # Errors
/// The SQL is not a query, or names something that does not exist; with the place and what could have been meant. Its answer
/// goes beyond a bound.
pub(crate) async fn answer(
    settings: &Settings,
    sql: &str,
    (catalog, lake): (&Arc<Catalog>, &Lake),
    bounds: Bounds,
) -> Result<Answer> {
    let answered = answered(settings, sql, (catalog, lake), bounds).await;
    answered.map_err(|error| in_words(&catalog.definitions, sql, error))
}

async fn answered(
    settings: &Settings,
    sql: &str,
    (catalog, lake): (&Arc<Catalog>, &Lake),
    bounds: Bounds,
) -> Result<Answer> {
    let wanted = referenced(&session::context(), sql)?;
    let is_of_all = wanted.contains(tables::UNISSUED);
    let view = match View::open(Arc::clone(catalog), lake).await {
        Err(Error::Meter { .. }) if !is_of_all => of_others(Arc::clone(catalog), lake, sql).await?,
        opened => opened?,
    };
    let context = match bounds.bytes_max {
        Some(bytes) => session::spilling(bytes).map_err(query_error("the query"))?,
        None => session::context(),
    };
    view.register_in(&context, sql).await?;
    if is_of_all {
        let now_us = SystemClock.now_us();
        let rows = billing::unissued(&view, lake, &settings.billing, now_us).await?;
        register_rows(&context, tables::UNISSUED, rows)?;
    }
    if wanted.contains(tables::UNBILLED) {
        let rows = match billing::accounts::are_there(lake).await? {
            true => {
                let accounts = billing::accounts::load(lake).await?.indexed();
                let ever = billing::ever(&view, SystemClock.now_us()).await?;
                billing::unbilled(&view, lake, &settings.billing, &accounts, ever).await?
            }
            // Without accounts every subject is its own customer.
            false => Vec::new(),
        };
        register_rows(&context, tables::UNBILLED, billing::unbilled_batch(&rows)?)?;
    }
    if wanted.contains(tables::CREDIT_LEDGER) {
        let rows = billing::credit_ledger(lake, SystemClock.now_us()).await?;
        register_rows(&context, tables::CREDIT_LEDGER, rows)?;
    }
    for table in TABLES.into_iter().filter(|table| wanted.contains(*table)) {
        let rows = billing::accounts::relation(lake, table).await?;
        register_rows(&context, table, rows)?;
    }
    let doing = "the query";
    let frame = session::query(&context, sql)
        .await
        .map_err(query_error(doing))?;
    let schema = Arc::clone(frame.schema().inner());
    let rows = collect(frame, bounds).await.map_err(query_error(doing))?;
    Ok(Answer { schema, rows, view })
}

/// All rows; an error as soon as there are more than there may be.
async fn collect(frame: DataFrame, bounds: Bounds) -> Planned<Vec<RecordBatch>> {
    let Some(rows_max) = bounds.rows_max else {
        return frame.collect().await;
    };
    let mut stream = frame.execute_stream().await?;
    let (mut rows, mut count) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        count += batch.num_rows();
        if count > rows_max {
            return plan_err!(
                "the answer has more than {rows_max} rows; ask for fewer, with LIMIT or a condition"
            );
        }
        rows.push(batch);
    }
    Ok(rows)
}

/// What is wrong in the query, at its place and with what could have been meant; any other error as it is.
fn in_words(definitions: &Definitions, sql: &str, error: Error) -> Error {
    let Error::Query { source, .. } = &error else {
        return error;
    };
    let state = session::context().state();
    match unplanned(&state, sql, &definitions.relations(), source) {
        None => error,
        Some(Unplanned { problem, hint, at }) => Error::Statement {
            place: at.map_or(String::new(), |(line, column)| {
                format!(", line {line}, column {column}")
            }),
            problem,
            hint,
        },
    }
}

/// A view without the meters that the lake refuses; what asks for one of these is refused for the same reason.
async fn of_others(catalog: Arc<Catalog>, lake: &Lake, sql: &str) -> Result<View> {
    let (view, refused) = View::open_readable(catalog, lake).await?;
    let asked = referenced(&session::context(), sql)?;
    let is_of = |name: &str| ["", "_windows", "_panes"].map(|what| format!("{name}{what}"));
    let mut asked_for = refused.into_iter();
    let asked_for = asked_for.find(|(name, _)| is_of(name).iter().any(|name| asked.contains(name)));
    match asked_for {
        Some((_, error)) => Err(error),
        None => Ok(view),
    }
}
