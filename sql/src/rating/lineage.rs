//! Which column of which relation a column of a plan repeats.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, DFSchema},
    logical_expr::{Expr, ExprSchemable, LogicalPlan},
};

/// The input and its column that an output column repeats row by row; `None` where rows are not repeated, or another
/// value is calculated.
pub(super) fn repeated<'a>(
    plan: &'a LogicalPlan,
    column: &Column,
) -> Option<(&'a LogicalPlan, Column)> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let place = projection.schema.maybe_index_of_column(column)?;
            let column = bare_column(projection.expr.get(place)?, projection.input.schema())?;
            Some((&projection.input, column.clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let place = alias.schema.maybe_index_of_column(column)?;
            let column = alias.input.schema().columns().get(place)?.clone();
            Some((&alias.input, column))
        }
        LogicalPlan::Join(join) => match join.left.schema().has_column(column) {
            true => Some((&join.left, column.clone())),
            false => Some((&join.right, column.clone())),
        },
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Window(_) => {
            let input = plan.inputs().into_iter().next()?;
            let is_of_input = input.schema().has_column(column);
            is_of_input.then(|| (input, column.clone()))
        }
        _ => None,
    }
}

/// A column under any name, or cast to a type that keeps its digits.
pub(super) fn bare_column<'a>(expr: &'a Expr, input: &DFSchema) -> Option<&'a Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => bare_column(&alias.expr, input),
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(input).ok()?;
            let keeps = match (from, cast.field.data_type()) {
                (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => from <= *to,
                (from, to) => from.is_integer() && (to.is_integer() || to.is_decimal()),
            };
            keeps.then(|| bare_column(&cast.expr, input))?
        }
        _ => None,
    }
}
