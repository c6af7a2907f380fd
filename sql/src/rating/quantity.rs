//! A quantity that is one measure, or its sum, is at most what was measured: more means that a join counted
//! usage twice.

use super::{
    Rated,
    lineage::{bare_column, repeated},
};
use crate::{
    definitions::PriceDefinition,
    error::{Error, Result},
    money::Exact,
};
use datafusion::{
    arrow::array::AsArray,
    common::{Column, TableReference},
    error::{DataFusionError, Result as Planned},
    logical_expr::{Aggregate, Expr, LogicalPlan},
    prelude::SessionContext,
};
use futures::StreamExt;
use std::collections::BTreeMap;

/// A column of a meter or an event type in the session.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    relation: TableReference,
    column: String,
}

/// Notes customers whose quantities are more than their usage.
///
/// What is used is added up from positive values alone: a price may leave out what was taken back.
pub(super) async fn check(
    context: &SessionContext,
    price: &PriceDefinition,
    plan: &LogicalPlan,
    rated: &mut Rated,
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
    let zero = Exact::from(0_i64);
    let mut billed: BTreeMap<String, Sum> = BTreeMap::new();
    for charge in &rated.charges {
        if let Some(quantity) = charge.quantity.filter(|quantity| !quantity.is_negative()) {
            let so_far = billed.entry(charge.customer.clone());
            add(so_far.or_insert(Some(zero)), quantity);
        }
    }
    for (customer, billed) in billed {
        let used = used.get(&customer).copied().unwrap_or(Some(zero));
        let is_more = match (billed, used) {
            (Some(billed), Some(used)) => billed > used,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if is_more {
            let number = |sum: Sum| sum.map_or("a number of 39 digits".into(), |s| s.to_string());
            let problem = format!(
                "the quantity of customer `{customer}` is {}, but `{}` of `{}` is {} for that customer",
                number(billed),
                measure.column,
                measure.relation,
                number(used)
            );
            let hint = "a join finds several rows for one row of usage: give the rate table a PRIMARY KEY and join on \
                        all of it; where usage is meant to be billed on several lines, leave `quantity` out of all \
                        but one";
            rated.note(price, &customer, problem, hint);
        }
    }
    Ok(())
}

/// A sum, or `None` when it has more digits than a number can have.
type Sum = Option<Exact>;

fn add(sum: &mut Sum, value: Exact) {
    *sum = sum.and_then(|sum| sum.checked_add(value).ok());
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

/// The column of a meter or an event type that an output column repeats, row by row or as sums.
fn origin(plan: &LogicalPlan, column: &Column) -> Option<Origin> {
    match plan {
        // A meter and an event type have both: who used it and who pays.
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
        LogicalPlan::Aggregate(aggregate) => origin(&aggregate.input, summed(aggregate, column)?),
        LogicalPlan::Distinct(_) => {
            let input = plan.inputs().into_iter().next()?;
            let is_of_input = input.schema().has_column(column);
            is_of_input.then(|| origin(input, column))?
        }
        _ => {
            let (input, column) = repeated(plan, column)?;
            origin(input, &column)
        }
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

/// What each customer used of a measure.
async fn used(context: &SessionContext, measure: &Origin) -> Planned<BTreeMap<String, Sum>> {
    let mut rows = context
        .table(measure.relation.clone())
        .await?
        .select_columns(&["customer", &measure.column])?
        .execute_stream()
        .await?;
    let mut used = BTreeMap::new();
    while let Some(batch) = rows.next().await.transpose()? {
        let customers = batch["customer"].as_string::<i32>();
        for row in 0..batch.num_rows() {
            let value = Exact::from_array(&batch[measure.column.as_str()], row);
            let value = value.map_err(|error| DataFusionError::External(Box::new(error)))?;
            let sum = used.entry(customers.value(row).to_owned());
            let sum = sum.or_insert(Some(Exact::from(0_i64)));
            if let Some(value) = value.filter(|value| !value.is_negative()) {
                add(sum, value);
            }
        }
    }
    Ok(used)
}
