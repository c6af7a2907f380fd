//! What one customer reads: rows of its own, whatever its statement says.
//!
//! The rows are selected below everything that a statement asks for. To the planner such a relation is a stream that ends
//! there: no condition of the statement is evaluated on another's row, so neither a result, nor an error that shows a value,
//! nor a count from statistics can tell of one. What a relation cannot tell apart is not there for a customer.

use crate::{
    error::{Result, query_error},
    tables,
};
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::{cast, filter_record_batch},
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, project_schema},
    error::{DataFusionError, Result as Planned},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
    prelude::lit,
};
use futures::StreamExt;
use std::{collections::BTreeSet, sync::Arc};
use tollgate_sql::{accounts::TABLES, definitions::Definitions};

/// Whose rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    customers: Arc<BTreeSet<String>>,
    subjects: Arc<BTreeSet<String>>,
}

/// By which column the rows of a relation are a customer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Who pays.
    Customer,
    /// Who used.
    Subject,
}

/// Relations without a definition whose rows are a customer's each.
const BUILT_IN: [&str; 6] = [
    tables::EVENTS,
    tables::INVOICES,
    tables::LINE_ITEMS,
    tables::CREDIT_LEDGER,
    tables::UNISSUED,
    tables::UNBILLED,
];

/// Whether a relation tells the rows of customers apart. One that does not is not there for a customer, and neither is one that
/// is forgotten here.
pub(crate) fn is_told_apart(definitions: &Definitions, name: &str) -> bool {
    let is_event_type = || {
        definitions
            .event_types
            .iter()
            .any(|known| known.name == name)
    };
    let is_of_meter = || {
        let mut meters = definitions.meters.iter();
        meters.any(|meter| match name.strip_prefix(meter.name.as_str()) {
            Some(rest) => matches!(rest, "" | "_windows" | "_panes"),
            None => false,
        })
    };
    BUILT_IN.contains(&name) || TABLES.contains(&name) || is_event_type() || is_of_meter()
}

/// Columns of documents that are for rating them again, not for their readers.
pub(crate) const INNER: [&str; 4] = ["serial", "document", "basis", "burns"];

impl Own {
    /// Those of a customer, which pays for these subjects.
    pub(crate) fn new(customer: &str, subjects: Vec<String>) -> Self {
        Own {
            customers: Arc::new(BTreeSet::from([customer.to_owned()])),
            subjects: Arc::new(subjects.into_iter().collect()),
        }
    }

    fn names(&self, by: By) -> (&'static str, &Arc<BTreeSet<String>>) {
        match by {
            By::Customer => ("customer", &self.customers),
            By::Subject => ("subject", &self.subjects),
        }
    }

    /// The subjects that the customer pays for.
    pub(super) fn subjects(&self) -> Vec<&str> {
        self.subjects.iter().map(String::as_str).collect()
    }

    /// The rows of these that are its own.
    ///
    /// # Errors
    /// The rows have no such column.
    pub(crate) fn rows(&self, by: By, rows: &RecordBatch) -> Result<RecordBatch> {
        let doing = "selecting a customer's rows";
        let (column, names) = self.names(by);
        let place = rows.schema().index_of(column).map_err(query_error(doing))?;
        select(rows, place, names).map_err(query_error(doing))
    }

    /// A relation with these rows alone, and without what is no reader's.
    pub(super) fn table(&self, by: By, inner: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
        let fields = inner.schema();
        let fields = fields.fields().iter().enumerate();
        let shown = fields.filter(|(_, field)| !INNER.contains(&field.name().as_str()));
        let shown: Vec<usize> = shown.map(|(place, _)| place).collect();
        let schema = inner.schema().project(&shown);
        Arc::new(OwnTable {
            schema: Arc::new(schema.unwrap_or_else(|_| inner.schema().as_ref().clone())),
            shown,
            own: self.clone(),
            by,
            inner,
        })
    }
}

fn select(
    rows: &RecordBatch,
    place: usize,
    names: &BTreeSet<String>,
) -> Result<RecordBatch, ArrowError> {
    let column = cast(rows.column(place), &DataType::Utf8)?;
    let column = column.as_string::<i32>().iter();
    let is_own = |name: Option<&str>| Some(name.is_some_and(|name| names.contains(name)));
    filter_record_batch(rows, &column.map(is_own).collect::<BooleanArray>())
}

/// A relation of which a customer reads its own rows.
#[derive(Debug)]
struct OwnTable {
    inner: Arc<dyn TableProvider>,
    own: Own,
    by: By,
    /// The columns of `inner` that are shown.
    shown: Vec<usize>,
    schema: SchemaRef,
}

impl OwnTable {
    /// The condition on the inner relation; what passes it is judged again.
    fn condition(&self) -> Expr {
        let (column, names) = self.own.names(self.by);
        let names = names.iter().map(|name| lit(name.as_str())).collect();
        Expr::Column(Column::new_unqualified(column)).in_list(names, false)
    }

    /// What of a statement's conditions leaves out files of the inner relation.
    fn below(&self, filters: &[Expr]) -> Planned<Vec<Expr>> {
        let mut below = vec![self.condition()];
        below.extend(
            filters
                .iter()
                .filter(|filter| tells_nothing(filter))
                .cloned(),
        );
        let asked: Vec<&Expr> = below.iter().collect();
        let supported = self.inner.supports_filters_pushdown(&asked)?;
        let below = below.into_iter().zip(supported);
        let below = below.filter(|(_, taken)| *taken != TableProviderFilterPushDown::Unsupported);
        Ok(below.map(|(filter, _)| filter).collect())
    }
}

/// Whether a condition can be evaluated on another's row without a trace: a comparison with a constant, which cannot fail.
fn tells_nothing(condition: &Expr) -> bool {
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(_));
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            matches!(
                op,
                Operator::Eq
                    | Operator::NotEq
                    | Operator::Lt
                    | Operator::LtEq
                    | Operator::Gt
                    | Operator::GtEq
            ) && (is_column(left) && matches!(**right, Expr::Literal(..))
                || is_column(right) && matches!(**left, Expr::Literal(..)))
        }
        Expr::IsNotNull(inner) | Expr::IsNull(inner) => is_column(inner),
        _ => false,
    }
}

#[async_trait]
impl TableProvider for OwnTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Planned<Vec<TableProviderFilterPushDown>> {
        let supported = filters.iter().map(|filter| match tells_nothing(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        });
        Ok(supported.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Planned<Arc<dyn ExecutionPlan>> {
        let (column, names) = self.own.names(self.by);
        let key = self.inner.schema().index_of(column)?;
        let schema = project_schema(&self.schema, projection)?;
        let mut read: Vec<usize> = match projection {
            Some(wanted) => wanted.iter().map(|place| self.shown[*place]).collect(),
            None => self.shown.clone(),
        };
        let wanted = read.len();
        read.push(key);
        let filters = self.below(filters)?;
        let inner = self.inner.scan(state, Some(&read), &filters, None).await?;
        let partitions = 0..inner.output_partitioning().partition_count();
        let partitions = partitions.map(|partition| -> Arc<dyn PartitionStream> {
            Arc::new(OwnStream {
                inner: Arc::clone(&inner),
                partition,
                wanted,
                names: Arc::clone(names),
                schema: Arc::clone(&schema),
            })
        });
        let partitions = partitions.collect();
        let stream = StreamingTableExec::try_new(schema, partitions, None, [], false, None)?;
        Ok(Arc::new(stream))
    }
}

/// One part of the rows.
#[derive(Debug)]
struct OwnStream {
    inner: Arc<dyn ExecutionPlan>,
    partition: usize,
    /// So many columns are wanted; the one after them says whose the row is.
    wanted: usize,
    names: Arc<BTreeSet<String>>,
    schema: SchemaRef,
}

impl PartitionStream for OwnStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let (wanted, names) = (self.wanted, Arc::clone(&self.names));
        let own = {
            let schema = Arc::clone(&schema);
            move |rows: Planned<RecordBatch>| -> Planned<RecordBatch> {
                let rows = select(&rows?, wanted, &names)?;
                let columns = rows.columns()[..wanted].to_vec();
                let options = arrow::record_batch::RecordBatchOptions::new()
                    .with_row_count(Some(rows.num_rows()));
                let schema = Arc::clone(&schema);
                Ok(RecordBatch::try_new_with_options(
                    schema, columns, &options,
                )?)
            }
        };
        match self.inner.execute(self.partition, context) {
            Ok(rows) => Box::pin(RecordBatchStreamAdapter::new(schema, rows.map(own))),
            Err(error) => {
                let failed = futures::stream::iter([Err::<RecordBatch, DataFusionError>(error)]);
                Box::pin(RecordBatchStreamAdapter::new(schema, failed))
            }
        }
    }
}
