//! A quantity that is one measure, or its sum, is at most what was measured: more means that a join counted
//! usage twice.

use super::{Charge, refused};
use crate::{
    definitions::PriceDefinition,
    error::{Error, Result},
    money::Exact,
};
use datafusion::{
    arrow::{array::AsArray, datatypes::DataType},
    common::{Column, DFSchema, ScalarValue, TableReference},
    error::{DataFusionError, Result as Planned},
    execution::FunctionRegistry,
    logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, when},
    prelude::{SessionContext, lit},
};
use std::collections::BTreeMap;

/// A column of a meter in the session.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    relation: TableReference,
    column: String,
}

/// Refuses charges whose quantities are more than their customer's usage.
///
/// What is used is added up from positive values alone: a price may leave out what was taken back.
pub(super) async fn check(
    context: &SessionContext,
    price: &PriceDefinition,
    plan: &LogicalPlan,
    charges: &[Charge],
) -> Result<()> {
    let Some(measure) = measure(plan) else {
        return Ok(());
    };
    let used = used(context, &measure).await;
    let used = used.map_err(|source| Error::Price {
        price: price.name.clone(),
        at: price.at.clone(),
        source: Box::new(source),
    })?;
    let mut billed: BTreeMap<&str, Exact> = BTreeMap::new();
    for charge in charges {
        let Some(quantity) = charge.quantity.filter(|quantity| !quantity.is_negative()) else {
            continue;
        };
        let so_far = billed
            .entry(&charge.customer)
            .or_insert_with(|| Exact::from(0_i64));
        *so_far = so_far.checked_add(quantity)?;
    }
    for (customer, billed) in billed {
        let used = used
            .get(customer)
            .copied()
            .unwrap_or_else(|| Exact::from(0_i64));
        if billed > used {
            let problem = format!(
                "the quantity of customer `{customer}` is {billed}, but `{}` of `{}` is {used} for that customer",
                measure.column, measure.relation
            );
            let hint = "a join finds several rows for one row of usage: give the rate table a PRIMARY KEY and join on \
                        all of it; where usage is meant to be billed on several lines, leave `quantity` out of all \
                        but one";
            return Err(refused(price, problem, hint));
        }
    }
    Ok(())
}

/// The measure that the quantity is made of, if that is all that it is made of and the customer is the
/// measure's own.
fn measure(plan: &LogicalPlan) -> Option<Origin> {
    let output = |name: &str| {
        let columns = plan.schema().columns();
        let column = columns.into_iter().find(|column| column.name == name)?;
        origin(plan, &column)
    };
    let (quantity, customer) = (output("quantity")?, output("customer")?);
    let own = customer.relation == quantity.relation && customer.column == "customer";
    own.then_some(quantity)
}

/// The column of a meter that an output column repeats, row by row or as sums.
fn origin(plan: &LogicalPlan, column: &Column) -> Option<Origin> {
    match plan {
        // A meter has both: who used it and who pays.
        LogicalPlan::TableScan(scan) => {
            let schema = scan.source.schema();
            let is_meter = ["customer", "subject"]
                .iter()
                .all(|name| schema.index_of(name).is_ok());
            is_meter.then(|| Origin {
                relation: scan.table_name.clone(),
                column: column.name.clone(),
            })
        }
        LogicalPlan::Projection(projection) => {
            let place = projection.schema.maybe_index_of_column(column)?;
            origin(
                &projection.input,
                bare_column(projection.expr.get(place)?, projection.input.schema())?,
            )
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let place = alias.schema.maybe_index_of_column(column)?;
            origin(&alias.input, alias.input.schema().columns().get(place)?)
        }
        LogicalPlan::Aggregate(aggregate) => origin(&aggregate.input, summed(aggregate, column)?),
        LogicalPlan::Join(join) => match join.left.schema().has_column(column) {
            true => origin(&join.left, column),
            false => origin(&join.right, column),
        },
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(_) => {
            let input = plan.inputs().into_iter().next()?;
            input
                .schema()
                .has_column(column)
                .then(|| origin(input, column))?
        }
        _ => None,
    }
}

/// The column that an aggregate groups by or adds up under this name.
fn summed<'a>(aggregate: &'a Aggregate, column: &Column) -> Option<&'a Column> {
    // With grouping sets a row is in several groups.
    if aggregate
        .group_expr
        .iter()
        .any(|group| matches!(group, Expr::GroupingSet(_)))
    {
        return None;
    }
    let input = aggregate.input.schema();
    let place = aggregate.schema.maybe_index_of_column(column)?;
    let groups = aggregate.group_expr.len();
    if let Some(group) = aggregate.group_expr.get(place) {
        return bare_column(group, input);
    }
    let mut call = aggregate.aggr_expr.get(place - groups)?;
    while let Expr::Alias(alias) = call {
        call = &alias.expr;
    }
    match call {
        Expr::AggregateFunction(sum) if sum.func.name() == "sum" => {
            bare_column(sum.params.args.first()?, input)
        }
        _ => None,
    }
}

/// A column under any name, or cast to a type that keeps its digits.
fn bare_column<'a>(expr: &'a Expr, input: &DFSchema) -> Option<&'a Column> {
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

/// What each customer used of a measure.
async fn used(context: &SessionContext, measure: &Origin) -> Planned<BTreeMap<String, Exact>> {
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let table = context.table(measure.relation.clone()).await?;
    let data_type = table
        .schema()
        .field_with_unqualified_name(&measure.column)?
        .data_type();
    let zero = lit(ScalarValue::new_zero(data_type)?);
    let value = column(&measure.column);
    let positive = when(value.clone().gt(zero.clone()), value).otherwise(zero)?;
    let sum = context
        .state()
        .udaf("sum")?
        .call(vec![positive])
        .alias("used");
    let rows = table
        .aggregate(vec![column("customer")], vec![sum])?
        .collect()
        .await?;
    let mut used = BTreeMap::new();
    for batch in &rows {
        let customers = batch["customer"].as_string::<i32>();
        for row in 0..batch.num_rows() {
            let sum = Exact::from_array(&batch["used"], row);
            let sum = sum.map_err(|error| DataFusionError::External(Box::new(error)))?;
            used.insert(
                customers.value(row).to_owned(),
                sum.unwrap_or_else(|| Exact::from(0_i64)),
            );
        }
    }
    Ok(used)
}
