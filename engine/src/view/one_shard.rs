//! The view of one running shard.

use super::{Committed, ShardCut, View, buffered::Buffered, stored::Remembered};
use crate::{
    catalog::Catalog,
    error::{Result, query_error},
    shard::Pinned,
};
use datafusion::{
    catalog::{TableProvider, view::ViewTable},
    datasource::provider_as_source,
    error::Result as Planned,
    logical_expr::{LogicalPlan, LogicalPlanBuilder},
    prelude::{col, lit},
};
use std::sync::Arc;
use tokio::sync::OnceCell;
use tollgate_connectors::{Snapshot, event::EventBatch};

/// What a live view has that others have not.
#[derive(Debug)]
pub(super) struct Live {
    /// The tables of the meters, with the panes of all shards.
    pub(super) panes: Vec<Arc<dyn Snapshot>>,
    pub(super) remembered: Arc<Remembered>,
    shard: String,
}

impl Live {
    /// What the shard has in a table.
    pub(super) fn rows_of(&self, table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
        let plan = of_shard(table, &self.shard).and_then(LogicalPlanBuilder::build);
        Ok(provider(plan.map_err(query_error("pinning a live view"))?))
    }
}

impl View {
    /// A shard at `cut`: `rows` are its events that the pinned tables do not have, and its state is all
    /// that the panes do not have.
    pub(crate) fn live(
        catalog: Arc<Catalog>,
        cut: ShardCut,
        pinned: Pinned,
        rows: Vec<EventBatch>,
        remembered: Arc<Remembered>,
    ) -> Result<Self> {
        let doing = "pinning a live view";
        let shard = cut.shard.as_str();
        let events =
            events(pinned.events, Buffered::of(rows), shard).map_err(query_error(doing))?;
        let live = Live {
            panes: pinned.panes,
            remembered,
            shard: shard.to_owned(),
        };
        let mut panes = Vec::with_capacity(live.panes.len());
        for table in &live.panes {
            panes.push(Some(
                live.rows_of(Arc::clone(table) as Arc<dyn TableProvider>)?,
            ));
        }
        Ok(View {
            catalog,
            events: Some(events),
            panes,
            documents: None,
            live: Some(Arc::new(live)),
            committed: Arc::new(Committed::default()),
            shards: Arc::new(OnceCell::new_with(Some(vec![cut]))),
            known: None,
        })
    }
}

/// The shard's committed rows and those that are not.
fn events(
    committed: Arc<dyn TableProvider>,
    rows: Option<Arc<dyn TableProvider>>,
    shard: &str,
) -> Planned<Arc<dyn TableProvider>> {
    let mut plan = of_shard(committed, shard)?;
    if let Some(rows) = rows {
        plan = plan.union_by_name(scan(rows)?.build()?)?;
    }
    Ok(provider(plan.build()?))
}

/// What one shard has in a table. The others' panes and events are not pinned at one cut.
fn of_shard(table: Arc<dyn TableProvider>, shard: &str) -> Planned<LogicalPlanBuilder> {
    scan(table)?.filter(col("shard").eq(lit(shard)))
}

fn scan(table: Arc<dyn TableProvider>) -> Planned<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan("part", provider_as_source(table), None)
}

fn provider(plan: LogicalPlan) -> Arc<dyn TableProvider> {
    Arc::new(ViewTable::new(plan, None))
}
