//! `tollgate query`: SQL over everything that was committed, open windows included.

use crate::{
    billing,
    catalog::Catalog,
    cli::{open_to_read, output},
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result, query_error},
    tables,
    view::{View, referenced, register_rows},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use clap::Args;
use std::sync::Arc;
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::TABLES,
    definitions::Definitions,
    session,
    unplanned::{Unplanned, unplanned},
};

/// Arguments of `tollgate query`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One SELECT statement.
    pub sql: String,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t)]
    pub format: output::Format,
}

/// Answers one query and prints the rows to stdout.
///
/// # Errors
/// The SQL is not a query, or names something that does not exist.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let (catalog, lake) = open_to_read(settings).await?;
    let answered = answer(settings, arguments, (&catalog, &lake)).await;
    let (schema, rows) =
        answered.map_err(|error| in_words(&catalog.definitions, &arguments.sql, error))?;
    output::print_rows(&schema, &rows, arguments.format)
}

async fn answer(
    settings: &Settings,
    arguments: &Arguments,
    (catalog, lake): (&Arc<Catalog>, &Lake),
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let wanted = referenced(&session::context(), &arguments.sql)?;
    let is_of_all = wanted.contains(tables::UNISSUED);
    let view = match View::open(Arc::clone(catalog), lake).await {
        Err(Error::Meter { .. }) if !is_of_all => {
            of_others(Arc::clone(catalog), lake, &arguments.sql).await?
        }
        opened => opened?,
    };
    let context = view.session(&arguments.sql).await?;
    if is_of_all {
        let now_us = SystemClock.now_us();
        let rows = billing::unissued(&view, lake, &settings.billing, now_us).await?;
        register_rows(&context, tables::UNISSUED, rows)?;
    }
    if wanted.contains(tables::UNBILLED) {
        let accounts = billing::accounts::load(lake).await?.indexed();
        let ever = billing::ever(&view, SystemClock.now_us()).await?;
        let rows = match billing::accounts::are_there(lake).await? {
            true => billing::unbilled(&view, lake, &settings.billing, &accounts, ever).await?,
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
    let frame = session::query(&context, &arguments.sql)
        .await
        .map_err(query_error(doing))?;
    let schema = Arc::clone(frame.schema().inner());
    let rows = frame.collect().await.map_err(query_error(doing))?;
    Ok((schema, rows))
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
