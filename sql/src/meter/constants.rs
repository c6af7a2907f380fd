//! Expressions that fail whatever an event says: a zone that does not exist, a cast of a literal.
//!
//! They are found when a definition is checked, or every event would be in error.

use crate::purity::Found;
use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array, timezone::Tz},
    datatypes::{DataType, Schema, SchemaRef, TimeUnit},
};
use datafusion::{
    common::{Column, DFSchema, ExprSchema, Result as PlanResult, ScalarValue},
    error::DataFusionError,
    execution::SessionState,
    logical_expr::{Expr, ExprSchemable, LogicalPlan, utils::merge_schema},
};
use std::sync::Arc;

/// 2026-01-01T00:00:00Z, as good as any other.
const SOME_TIME_US: i64 = 1_767_225_600_000_000;

/// An expression that fails both where an event has no values and where it has the least of each type, or at every
/// time; or a zone that does not exist.
pub(crate) fn failing(state: &SessionState, expr: &Expr, node: &LogicalPlan) -> PlanResult<Found> {
    match expr {
        Expr::Alias(_) | Expr::Column(_) | Expr::Literal(..) | Expr::AggregateFunction(_) => {
            return Ok(None);
        }
        _ => {}
    }
    let schema = merge_schema(&node.inputs());
    if let Ok(DataType::Timestamp(_, Some(zone))) = expr.get_type(&schema)
        && let Err(error) = zone.parse::<Tz>()
    {
        return Ok(Some(always(expr, &error.to_string())));
    }
    let fields = schema.iter().map(|(qualifier, field)| {
        let field = field.as_ref().clone().with_nullable(true);
        (qualifier.cloned(), Arc::new(field))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
    let columns: SchemaRef = Arc::new(Schema::new(schema.fields().clone()));
    // What has no physical form by itself is part of something that has.
    let Ok(physical) = state.create_physical_expr(expr.clone(), &schema) else {
        return Ok(None);
    };
    let with_the_least = with_the_least(&columns)?;
    let mut read = expr.column_refs().into_iter();
    let is_time = |column: &Column| {
        let data_type = schema.data_type(column);
        data_type.is_ok_and(|data_type| matches!(data_type, DataType::Timestamp(..)))
    };
    let of_time_alone = read.all(is_time);
    let events = match of_time_alone {
        true => vec![with_the_least],
        false => vec![without_values(&columns)?, with_the_least],
    };
    let mut cause = None;
    for event in events {
        match physical.evaluate(&event) {
            // What DataFusion would have made something else of before it is run.
            Ok(_) | Err(DataFusionError::Internal(_) | DataFusionError::NotImplemented(_)) => {
                return Ok(None);
            }
            Err(error) => cause = cause.or(Some(error)),
        }
    }
    Ok(cause.map(|cause| always(expr, &cause.find_root().strip_backtrace())))
}

fn always(expr: &Expr, cause: &str) -> (String, &'static str) {
    (
        format!("`{expr}` fails whatever an event says: {cause}"),
        "check what is written out in it: names of zones and units, and literals that are cast",
    )
}

fn without_values(columns: &SchemaRef) -> PlanResult<RecordBatch> {
    let nulls = columns.fields().iter();
    let nulls: Vec<ArrayRef> = nulls
        .map(|field| new_null_array(field.data_type(), 1))
        .collect();
    one_row(columns, nulls)
}

fn with_the_least(columns: &SchemaRef) -> PlanResult<RecordBatch> {
    let least = columns.fields().iter().map(|field| {
        let least = match field.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Ok(
                ScalarValue::TimestampMicrosecond(Some(SOME_TIME_US), zone.clone()),
            ),
            other => ScalarValue::new_default(other),
        };
        let least = least.and_then(|least| least.to_array());
        let typed = least
            .ok()
            .filter(|least| least.data_type() == field.data_type());
        Ok(typed.unwrap_or_else(|| new_null_array(field.data_type(), 1)))
    });
    let least = least.collect::<PlanResult<_>>()?;
    one_row(columns, least)
}

fn one_row(columns: &SchemaRef, values: Vec<ArrayRef>) -> PlanResult<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(columns),
        values,
        &options,
    )?)
}
