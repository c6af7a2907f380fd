//! `tollgate query`: SQL over everything that was committed, open windows included.

use crate::{
    cli::{open_to_read, output},
    config::Settings,
    error::Result,
    query::{Asked, Bounds, answer},
};
use clap::Args;

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
    let asked = Asked {
        sql: &arguments.sql,
        bounds: Bounds::default(),
        own: None,
    };
    let rows = answer(settings, asked, (&catalog, &lake)).await?.rows;
    output::print_rows(&rows.schema, &rows.batches, arguments.format)
}
