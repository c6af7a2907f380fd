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
use std::sync::Arc;

/// A column of a meter or an event type in the session.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    relation: TableReference,
    column: String,
}

/// Notes customers whose quantities are more than their usage. Charges are in order of customer.
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
    let mut sums = billed(rated);
    if sums.is_empty() {
        return Ok(());
    }
    let used = add_used(context, &measure, rated, &mut sums).await;
    used.map_err(|source| Error::Price {
        price: price.name.clone(),
        at: price.at.clone(),
        source: Box::new(source),
    })?;
    for Sums {
        first,
        billed,
        used,
    } in sums
    {
        let is_more = match (billed, used) {
            (Some(billed), Some(used)) => billed > used,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if is_more {
            let customer = Arc::clone(&rated.charges[first].customer);
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

/// What one customer was billed and used.
struct Sums {
    /// The place of its first charge with a quantity.
    first: usize,
    billed: Sum,
    used: Sum,
}

/// What each customer is billed, in order of customer, as charges are.
fn billed(rated: &Rated) -> Vec<Sums> {
    let zero = Some(Exact::ZERO);
    let mut all: Vec<Sums> = Vec::new();
    for (place, charge) in rated.charges.iter().enumerate() {
        let Some(quantity) = charge.quantity.filter(|quantity| !quantity.is_negative()) else {
            continue;
        };
        let is_same = |sums: &Sums| rated.charges[sums.first].customer == charge.customer;
        if !all.last().is_some_and(is_same) {
            all.push(Sums {
                first: place,
                billed: zero,
                used: zero,
            });
        }
        if let Some(sums) = all.last_mut() {
            add(&mut sums.billed, quantity);
        }
    }
    all
}

/// Adds what each of these customers used of a measure.
async fn add_used(
    context: &SessionContext,
    measure: &Origin,
    rated: &Rated,
    sums: &mut [Sums],
) -> Planned<()> {
    let names = sums.iter().map(|sums| &*rated.charges[sums.first].customer);
    let names: Vec<&str> = names.collect();
    // Rows are mostly in the order of customers too: the next one is of the same or of the next.
    let mut at = 0;
    let mut place_of = |customer: &str| {
        let mut near = (at..names.len()).take(2);
        let near = near.find(|place| names[*place] == customer);
        let found = near.or_else(|| names.binary_search(&customer).ok());
        at = found.unwrap_or(at);
        found
    };
    let mut rows = context
        .table(measure.relation.clone())
        .await?
        .select_columns(&["customer", &measure.column])?
        .execute_stream()
        .await?;
    while let Some(batch) = rows.next().await.transpose()? {
        let customers = batch["customer"].as_string::<i32>();
        let values = &batch[measure.column.as_str()];
        for row in 0..batch.num_rows() {
            let value = Exact::from_array(values, row);
            let value = value.map_err(|error| DataFusionError::External(Box::new(error)))?;
            if let Some(value) = value.filter(|value| !value.is_negative())
                && let Some(place) = place_of(customers.value(row))
            {
                add(&mut sums[place].used, value);
            }
        }
    }
    Ok(())
}
