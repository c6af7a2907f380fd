//! The tables that a running shard answers from.

use datafusion::catalog::TableProvider;
use std::sync::Arc;
use tollgate_connectors::Snapshot;

/// The tables as a writer at rest has them: what a flush that has begun adds is in none of them.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    pub(crate) events: Arc<dyn TableProvider>,
    /// One for each meter.
    pub(crate) panes: Vec<Arc<dyn Snapshot>>,
}
