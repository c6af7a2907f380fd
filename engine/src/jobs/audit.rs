//! The auditor: recomputes a meter from `events` in plain batch SQL and compares, row by row.

use crate::{
    error::{Result, query_error},
    metering::micros,
    view::{View, register_rows},
};
use arrow::{
    array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray},
    compute::{concat_batches, filter_record_batch, is_not_null},
};
use datafusion::{
    common::{Column, JoinType, TableReference},
    dataframe::DataFrame,
    error::{DataFusionError, Result as Planned},
    prelude::{Expr, SessionContext, col, lit},
};
use std::sync::Arc;
use tollgate_sql::{
    meter::{ERROR, Meter},
    session,
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
    let stored = view.measured_windows(index).await?;
    let rows = stored.num_rows();
    let totals = meter.totals_schema();
    let columns = totals.fields().iter().map(|field| field.name().as_str());
    let columns: Vec<&str> = ["window_start"].into_iter().chain(columns).collect();
    let mut differences = Vec::new();
    let stored = match in_error(meter, &stored).map_err(query_error(doing))? {
        None => stored,
        // One statement over events of which some fail would fail as a whole: what they put in error is recomputed by
        // itself.
        Some(faults) => {
            register_rows(&context, FAULTS, faults)?;
            let parts = parts(&context, meter, stored).await;
            let Parts {
                whole,
                apart,
                events,
            } = parts.map_err(query_error(doing))?;
            let recomputed = meter.rows(&[meter.partial(events).await?]).await?;
            let with_error: Vec<&str> = columns.iter().copied().chain([ERROR]).collect();
            let found = compared(
                context.read_batch(recomputed),
                context.read_batch(apart),
                &with_error,
            );
            differences.extend(found.await.map_err(query_error(doing))?);
            whole
        }
    };
    let recomputed = session::query(&context, &query).await;
    let found = compared(recomputed, context.read_batch(stored), &columns);
    differences.extend(found.await.map_err(query_error(doing))?);
    Ok(Finding {
        meter: meter.definition().name.clone(),
        rows,
        differences,
    })
}

/// Whose usage is recomputed apart, and when: `__start, __end, __subject`.
const FAULTS: &str = "__faults";

/// A meter's rows and events, where none is in error and where some are.
struct Parts {
    whole: RecordBatch,
    apart: RecordBatch,
    events: RecordBatch,
}

/// The subjects of rows in error, with the time of the rows; `None` when there are none. Sessions, and windows that hop,
/// share events with others, so of them it is all time.
fn in_error(meter: &Meter, rows: &RecordBatch) -> Planned<Option<RecordBatch>> {
    if rows[ERROR].null_count() == rows.num_rows() {
        return Ok(None);
    }
    let faulty = filter_record_batch(rows, &is_not_null(&rows[ERROR])?)?;
    let time = |name: &str, ever: i64| -> ArrayRef {
        let times = match meter.has_plain_windows() {
            true => micros(&faulty, name).to_vec(),
            false => vec![ever; faulty.num_rows()],
        };
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
    };
    // Years that an event's time can have.
    let columns = [
        ("__start", time("window_start", -100_000_000_000_000_000)),
        ("__end", time("window_end", 300_000_000_000_000_000)),
        ("__subject", Arc::clone(&faulty["subject"])),
    ];
    Ok(Some(RecordBatch::try_from_iter(columns)?))
}

/// Takes rows in error, and those that share events with them, apart; and their events, which the session then does not
/// have any more.
async fn parts(context: &SessionContext, meter: &Meter, stored: RecordBatch) -> Planned<Parts> {
    let event_type = TableReference::bare(meter.definition().event_type.as_str());
    let within = |time: &str| {
        let time = || Expr::Column(Column::from_name(time));
        vec![
            col("subject").eq(col("__subject")),
            time().gt_eq(col("__start")),
            time().lt(col("__end")),
        ]
    };
    let side = async |frame: DataFrame, kept: JoinType, time: &str| {
        let faults = context.table(FAULTS).await?;
        frame.join_on(faults, kept, within(time))
    };
    let one = async |frame: DataFrame| {
        let schema = Arc::clone(frame.schema().inner());
        Ok::<_, DataFusionError>(concat_batches(&schema, &frame.collect().await?)?)
    };
    let rows = context.read_batch(stored)?;
    let events = context.table(event_type.clone()).await?;
    let whole = one(side(rows.clone(), JoinType::LeftAnti, "window_start").await?).await?;
    let apart = one(side(rows, JoinType::LeftSemi, "window_start").await?).await?;
    let of_faults = one(side(events.clone(), JoinType::LeftSemi, "event_time").await?).await?;
    let others = side(events, JoinType::LeftAnti, "event_time").await?;
    context.deregister_table(event_type.clone())?;
    context.register_table(event_type, others.into_view())?;
    Ok(Parts {
        whole,
        apart,
        events: of_faults,
    })
}

async fn compared(
    recomputed: Planned<DataFrame>,
    stored: Planned<DataFrame>,
    names: &[&str],
) -> Planned<Vec<RecordBatch>> {
    let columns = || {
        let columns = names
            .iter()
            .map(|name| Expr::Column(Column::from_name(*name)));
        columns.collect::<Vec<_>>()
    };
    let recomputed = recomputed?.select(columns())?;
    let stored = stored?.select(columns())?;
    differing(&recomputed, &stored, names.to_vec())?
        .collect()
        .await
}

/// The rows that only one side has, marked with the side, by window and group.
fn differing(recomputed: &DataFrame, stored: &DataFrame, names: Vec<&str>) -> Planned<DataFrame> {
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
