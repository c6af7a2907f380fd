//! The counted events of a shard, read back from `events`.

use super::relation::is_counted;
use crate::error::{Result, query_error};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::{
    catalog::TableProvider,
    error::Result as Planned,
    execution::{
        SendableRecordBatchStream, memory_pool::FairSpillPool, runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::ident,
    physical_plan::stream::RecordBatchStreamAdapter,
    prelude::{DataFrame, Expr, SessionConfig, SessionContext, col, lit},
};
use futures::{StreamExt, stream};
use std::{collections::BTreeSet, sync::Arc};
use tollgate_connectors::Table;

const DOING: &str = "reading committed events back";

/// What sorting committed events may take in memory; the rest goes to disk.
const SORT_BYTES: usize = 256 << 20;

/// The counted events of one shard as they are committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed<'a> {
    pub(crate) events: &'a dyn Table,
    pub(crate) shard: &'a str,
}

impl Committed<'_> {
    /// All of them.
    pub(crate) fn all(&self) -> Result<DataFrame> {
        let snapshot = self.events.provider()?;
        let counted = session().and_then(|session| counted_of(&session, snapshot, self.shard));
        counted.map_err(query_error(DOING))
    }

    /// The same in parts that have some of `types` alone, so that each costs what its rows have.
    pub(crate) fn parts(&self, types: &BTreeSet<String>) -> Result<Vec<DataFrame>> {
        let session = session().map_err(query_error(DOING))?;
        let parts = self.events.provider()?.parts().into_iter();
        let parts = parts.map(|part| {
            let is_read = |field: &&FieldRef| {
                types.contains(field.name()) || !matches!(field.data_type(), DataType::Struct(_))
            };
            let schema = part.schema();
            let read = schema.fields().iter().filter(is_read);
            let read: Vec<Expr> = read.map(|field| ident(field.name())).collect();
            counted_of(&session, part, self.shard)?.select(read)
        });
        parts.collect::<Planned<_>>().map_err(query_error(DOING))
    }

    /// Those of one type that pass a filter, in no particular order. One batch is in memory at a time.
    pub(crate) async fn of_type(
        &self,
        event_type: &str,
        filter: Expr,
    ) -> Result<SendableRecordBatchStream> {
        let mut streams = Vec::new();
        for part in self.parts(&BTreeSet::from([event_type.to_owned()]))? {
            if part
                .schema()
                .index_of_column_by_name(None, event_type)
                .is_some()
            {
                streams.push(execute(part.filter(filter.clone()), DOING).await?);
            }
        }
        let schema = match streams.first() {
            Some(stream) => stream.schema(),
            None => self.events.schema(),
        };
        let all = stream::iter(streams).flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, all)))
    }
}

fn counted_of(
    session: &SessionContext,
    events: Arc<dyn TableProvider>,
    shard: &str,
) -> Planned<DataFrame> {
    let of_shard = col("shard").eq(lit(shard)).and(is_counted());
    session.read_table(events)?.filter(of_shard)
}

/// A session that spills.
pub(crate) fn session() -> Planned<SessionContext> {
    let pool = Arc::new(FairSpillPool::new(SORT_BYTES));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .build_arc()?;
    Ok(SessionContext::new_with_config_rt(
        SessionConfig::new(),
        runtime,
    ))
}

/// Starts a query of committed events.
pub(crate) async fn execute(
    frame: Planned<DataFrame>,
    doing: &'static str,
) -> Result<SendableRecordBatchStream> {
    frame
        .map_err(query_error(doing))?
        .execute_stream()
        .await
        .map_err(query_error(doing))
}
