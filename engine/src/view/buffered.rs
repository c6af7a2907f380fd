//! Events in memory that wait for the next flush, as a relation with the columns of `events`.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::project_schema,
    datasource::{TableType, memory::MemorySourceConfig},
    error::Result,
    logical_expr::Expr,
    physical_plan::ExecutionPlan,
};
use std::sync::Arc;
use tollgate_connectors::event::EventBatch;

/// A column of an event type is made when it is read, so that no question pays for all types.
#[derive(Debug)]
pub(super) struct Buffered {
    schema: SchemaRef,
    rows: Vec<EventBatch>,
}

impl Buffered {
    /// `None` when there are no rows. All batches are of one schema.
    pub(super) fn of(rows: Vec<EventBatch>) -> Option<Arc<dyn TableProvider>> {
        let schema = Arc::clone(rows.first()?.schema());
        Some(Arc::new(Buffered { schema, rows }))
    }
}

#[async_trait]
impl TableProvider for Buffered {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = project_schema(&self.schema, projection)?;
        let rows = self.rows.iter().map(|events| events.columns(&wanted));
        let rows = rows.collect::<Result<_, _>>()?;
        Ok(MemorySourceConfig::try_new_exec(&[rows], wanted, None)?)
    }
}
