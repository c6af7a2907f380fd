//! The auditor: recomputes a meter from `events` in plain batch SQL and compares, row by row.

use crate::{
    error::{Result, query_error},
    view::{View, register_rows},
};
use arrow::array::RecordBatch;
use datafusion::{
    common::Column,
    dataframe::DataFrame,
    prelude::{Expr, lit},
};

/// What an audit of one meter found.
#[derive(Debug)]
pub struct Finding {
    /// The meter.
    pub meter: String,
    /// Windows and groups that were compared.
    pub rows: usize,
    /// Rows that differ: column `side` is `recomputed` or `stored`, then the meter's columns. A row
    /// with another value is there twice, once from each side.
    pub differences: Vec<RecordBatch>,
}

impl Finding {
    /// How many rows differ.
    pub fn count(&self) -> usize {
        self.differences.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Audits every meter of a view: panes and open windows against the events they come from.
///
/// # Errors
/// The lake cannot be read, or a meter's query fails over all events at once.
pub async fn audit(view: &View) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for index in 0..view.catalog().meters.len() {
        findings.push(audit_meter(view, index).await?);
    }
    Ok(findings)
}

async fn audit_meter(view: &View, index: usize) -> Result<Finding> {
    let doing = "auditing a meter";
    let meter = &view.catalog().meters[index];
    let query = meter.batch_query()?;
    let context = view.audit_session(index, &query).await?;
    let windows = view.measured_windows(index).await?;
    let rows = windows.num_rows();
    register_rows(&context, "stored_windows", windows)?;
    let totals = meter.totals_schema();
    let names = || {
        let columns = totals.fields().iter().map(|field| field.name().as_str());
        std::iter::once("window_start").chain(columns)
    };
    let columns = || {
        names()
            .map(|name| Expr::Column(Column::from_name(name)))
            .collect::<Vec<_>>()
    };
    let recomputed = context
        .sql(&query)
        .await
        .and_then(|frame| frame.select(columns()));
    let recomputed = recomputed.map_err(query_error(doing))?;
    let stored = context
        .table("stored_windows")
        .await
        .and_then(|frame| frame.select(columns()));
    let stored = stored.map_err(query_error(doing))?;
    let differences = differing(&recomputed, &stored, names().collect())
        .map_err(query_error(doing))?
        .collect()
        .await
        .map_err(query_error(doing))?;
    let meter = meter.definition().name.clone();
    Ok(Finding {
        meter,
        rows,
        differences,
    })
}

/// The rows that only one side has, marked with the side, by window and group.
fn differing(
    recomputed: &DataFrame,
    stored: &DataFrame,
    names: Vec<&str>,
) -> datafusion::error::Result<DataFrame> {
    let only = |side: &str, these: &DataFrame, those: &DataFrame| {
        let columns = names
            .iter()
            .map(|name| Expr::Column(Column::from_name(*name)));
        let marked = std::iter::once(lit(side).alias("side"))
            .chain(columns)
            .collect::<Vec<_>>();
        these.clone().except(those.clone())?.select(marked)
    };
    let order = names
        .iter()
        .map(|name| Expr::Column(Column::from_name(*name)).sort(true, true));
    only("recomputed", recomputed, stored)?
        .union(only("stored", stored, recomputed)?)?
        .sort(order.collect())
}
