//! The view of one running shard.

use super::{Committed, ShardCut, View, tables::memory};
use crate::{
    catalog::Catalog,
    error::{Result, query_error},
    shard::Pinned,
};
use arrow::array::RecordBatch;
use datafusion::{
    catalog::TableProvider,
    prelude::{DataFrame, SessionContext, col, lit},
};
use std::sync::Arc;
use tokio::sync::OnceCell;

impl View {
    /// A shard at `cut`: `rows` are its events that the pinned tables do not have, and its state is all
    /// that the panes do not have.
    pub(crate) fn live(
        catalog: Arc<Catalog>,
        cut: ShardCut,
        pinned: Pinned,
        rows: Vec<RecordBatch>,
    ) -> Result<Self> {
        let shard = cut.shard.as_str();
        let mut events = of_shard(pinned.events, shard)?;
        if !rows.is_empty() {
            let rows = SessionContext::new().read_table(memory(rows)?);
            events = rows
                .and_then(|rows| events.union_by_name(rows))
                .map_err(query_error("adding rows that are not committed yet"))?;
        }
        let mut panes = Vec::with_capacity(pinned.panes.len());
        for table in pinned.panes {
            panes.push(Some(of_shard(table, shard)?.into_view()));
        }
        Ok(View {
            catalog,
            events: Some(events.into_view()),
            panes,
            documents: None,
            committed: Committed::default(),
            shards: OnceCell::new_with(Some(vec![cut])),
        })
    }
}

/// What one shard has in a table. The others' panes and events are not pinned at one cut.
fn of_shard(table: Arc<dyn TableProvider>, shard: &str) -> Result<DataFrame> {
    SessionContext::new()
        .read_table(table)
        .and_then(|frame| frame.filter(col("shard").eq(lit(shard))))
        .map_err(query_error("selecting a shard's rows"))
}
