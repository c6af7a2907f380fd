//! The rows of a meter, of which some are in error: a statement fails that reads the values of such a row.
//!
//! What a statement asks of windows, subjects, dimensions and `error` is answered here, before a value is read, so that
//! `WHERE error IS NULL` leaves out what is in error, and so does any other condition on these columns.

use crate::{error::printable, metering::micros};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{
        Column, DFSchema,
        cast::as_boolean_array,
        exec_err,
        tree_node::{Transformed, TreeNode},
    },
    datasource::MemTable,
    error::Result as Planned,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};
use std::{collections::BTreeSet, sync::Arc};
use tollgate_sql::meter::{ERROR, Meter};

/// Rows of which some are in error.
#[derive(Debug)]
pub(super) struct Guarded {
    meter: Arc<Meter>,
    rows: Vec<RecordBatch>,
    schema: SchemaRef,
}

impl Guarded {
    /// `None` when no row is in error.
    pub(super) fn of(meter: &Arc<Meter>, rows: &[RecordBatch]) -> Option<Arc<Self>> {
        let in_error = |rows: &RecordBatch| rows[ERROR].null_count() < rows.num_rows();
        rows.iter().any(in_error).then(|| {
            Arc::new(Guarded {
                meter: Arc::clone(meter),
                schema: rows[0].schema(),
                rows: rows.to_vec(),
            })
        })
    }

    fn measures(&self) -> BTreeSet<&str> {
        let measures = self.meter.measures().iter();
        measures.map(|measure| measure.name().as_str()).collect()
    }

    fn passing(&self, state: &dyn Session, filters: &[Expr]) -> Planned<Vec<RecordBatch>> {
        let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        let mut passing = self.rows.clone();
        for filter in filters {
            let filter = unqualified(filter)?;
            let filter = state.create_physical_expr(filter, &schema)?;
            for rows in &mut passing {
                let passes = filter.evaluate(rows)?.into_array(rows.num_rows())?;
                *rows = filter_record_batch(rows, as_boolean_array(&passes)?)?;
            }
        }
        Ok(passing)
    }

    /// Fails on the first row that is in error.
    fn check(&self, rows: &[RecordBatch]) -> Planned<()> {
        for rows in rows {
            let faults = rows[ERROR].as_string::<i32>();
            if let Some(row) = (0..rows.num_rows()).find(|row| faults.is_valid(*row)) {
                let start = micros(rows, "window_start")[row];
                let start = jiff::Timestamp::from_microsecond(start).unwrap_or_default();
                return exec_err!(
                    "meter `{}`, window {start}, subject `{}` is in error: {}; leave it out with WHERE error IS \
                     NULL, or by its window or subject",
                    self.meter.definition().name,
                    printable(rows["subject"].as_string::<i32>().value(row)),
                    printable(faults.value(row))
                );
            }
        }
        Ok(())
    }
}

#[async_trait]
impl TableProvider for Guarded {
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
        let measures = self.measures();
        let supported = filters.iter().map(|filter| {
            let mut columns = filter.column_refs().into_iter();
            match columns.any(|column| measures.contains(column.name.as_str())) {
                true => TableProviderFilterPushDown::Unsupported,
                false => TableProviderFilterPushDown::Exact,
            }
        });
        Ok(supported.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Planned<Arc<dyn ExecutionPlan>> {
        let rows = self.passing(state, filters)?;
        let measures = self.measures();
        let is_measure =
            |index: &usize| measures.contains(self.schema.field(*index).name().as_str());
        if projection.is_none_or(|columns| columns.iter().any(is_measure)) {
            self.check(&rows)?;
        }
        let rows = MemTable::try_new(Arc::clone(&self.schema), vec![rows])?;
        rows.scan(state, projection, &[], limit).await
    }
}

/// An expression over the columns alone, however the statement calls the relation.
fn unqualified(expr: &Expr) -> Planned<Expr> {
    let unqualified = expr.clone().transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            other => Transformed::no(other),
        })
    });
    Ok(unqualified?.data)
}
