//! `tollgate query`: SQL over everything that was committed, open windows included.

use crate::{
    billing,
    cli::{open_to_read, output},
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Result, query_error},
    tables,
    view::{View, referenced, register_rows},
};
use clap::Args;
use std::sync::Arc;
use tollgate_sql::session;

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
    let view = View::open(catalog, &lake).await?;
    let context = view.session(&arguments.sql).await?;
    if referenced(&context, &arguments.sql)?.contains(tables::UNISSUED) {
        let now_us = SystemClock.now_us();
        let rows = billing::unissued(&view, &lake, &settings.billing, now_us).await?;
        register_rows(&context, tables::UNISSUED, rows)?;
    }
    let doing = "the query";
    let frame = session::query(&context, &arguments.sql)
        .await
        .map_err(query_error(doing))?;
    let schema = Arc::clone(frame.schema().inner());
    let rows = frame.collect().await.map_err(query_error(doing))?;
    output::print_rows(&schema, &rows, arguments.format)
}
