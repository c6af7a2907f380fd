//! Whose usage each row of a price's answer is made of, and which customers a price fails for.
//!
//! A fault of one customer stays with that customer only where no row of the answer depends on two of them: every
//! relation that has usage is grouped, joined and numbered within a customer. A price that compares customers, such as
//! one with a share of everything used, has no answer when one of them has none ([`compares_customers`]).
//!
//! Where the evaluation over all customers fails, each half of the customers is evaluated by itself, and a half that
//! fails is halved again.

use super::{Rated, digits, execute, unplanned};
use crate::{
    definitions::PriceDefinition,
    error::{Result, is_of_values},
};
use arrow::array::{Array, AsArray, RecordBatch};
use datafusion::{
    common::{
        Column, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::{DataFusionError, Result as Planned},
    logical_expr::{
        Aggregate, Distinct, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, TableScan,
        Window,
    },
    prelude::{SessionContext, lit},
};
use std::{collections::BTreeSet, sync::Arc};

const CUSTOMER: &str = "customer";

/// The answer of a price for those customers that it does not fail for; the others are noted in `rated`.
///
/// `written` is the plan before it is optimized, `plan` the same after it, and `failed` what its evaluation over all
/// customers says. The price does not compare customers.
///
/// # Errors
/// `failed`, where the failure cannot be told by customer, or is not one of values.
pub(super) async fn evaluate(
    context: &SessionContext,
    price: &PriceDefinition,
    (written, plan): (&LogicalPlan, &LogicalPlan),
    failed: DataFusionError,
    rated: &mut Rated,
) -> Result<Vec<RecordBatch>> {
    let in_all = |source: DataFusionError| unplanned::failed(price, source);
    if !is_of_values(&failed) || repeats_common_rows(plan) {
        return Err(match digits::too_many(context, price, &failed).await {
            Some(fault) => digits::refusal(price, fault),
            None => in_all(failed),
        });
    }
    let customers = customers(context, plan).await.map_err(in_all)?;
    if customers.is_empty() {
        return Err(in_all(failed));
    }
    let mut answers = Vec::new();
    let mut parts = vec![customers.as_slice()];
    while let Some(part) = parts.pop() {
        match answer(context, written, part).await {
            Ok(batches) => answers.extend(batches),
            Err(error) if !is_of_values(&error) => return Err(in_all(error)),
            Err(error) => match part {
                [customer] => match digits::too_many(context, price, &error).await {
                    Some(fault) => rated.note_at(
                        price,
                        digits::place(price, &fault),
                        customer,
                        (
                            format!("it fails for customer `{customer}`: {}", fault.problem),
                            &fault.hint,
                        ),
                    ),
                    None => rated.note(
                        price,
                        customer,
                        format!("it fails for customer `{customer}`: {}", root(&error)),
                        "mend that customer's rates or usage, or say in the price what such usage costs",
                    ),
                },
                _ => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            },
        }
    }
    Ok(answers)
}

/// What failed in the end, without the words of those who passed it on.
fn root(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::External(own) => own.to_string(),
        other => other.strip_backtrace(),
    }
}

/// The answer for some customers alone, who are neighbours in the order of their names.
async fn answer(
    context: &SessionContext,
    written: &LogicalPlan,
    part: &[String],
) -> Planned<Vec<RecordBatch>> {
    let (Some(first), Some(last)) = (part.first(), part.last()) else {
        return Ok(Vec::new());
    };
    let narrowed = written.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else {
            return Ok(Transformed::no(node));
        };
        if !is_of_customers(scan) {
            return Ok(Transformed::no(node));
        }
        let customer = Expr::Column(Column::new(Some(scan.table_name.clone()), CUSTOMER));
        let is_in_part = customer
            .clone()
            .gt_eq(lit(first.as_str()))
            .and(customer.lt_eq(lit(last.as_str())));
        let narrowed = LogicalPlanBuilder::from(node).filter(is_in_part)?.build()?;
        Ok(Transformed::yes(narrowed))
    })?;
    let plan = context.state().optimize(&narrowed.data)?;
    execute(context, &plan).await
}

/// Every customer in the relations that a plan reads, in order.
async fn customers(context: &SessionContext, plan: &LogicalPlan) -> Planned<Vec<String>> {
    let mut relations = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && is_of_customers(scan)
        {
            relations.insert(scan.table_name.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut customers = BTreeSet::new();
    for relation in relations {
        let rows = context
            .table(relation)
            .await?
            .select_columns(&[CUSTOMER])?
            .distinct()?
            .collect()
            .await?;
        for batch in &rows {
            let names = batch[CUSTOMER].as_string::<i32>();
            let named = (0..names.len()).filter(|row| names.is_valid(*row));
            customers.extend(named.map(|row| names.value(row).to_owned()));
        }
    }
    Ok(customers.into_iter().collect())
}

/// Whether a relation has rows of customers: a meter has both who pays and who used it; a rate table that names
/// customers is read whole, so that a default beside their rates is found.
fn is_of_customers(scan: &TableScan) -> bool {
    let schema = scan.source.schema();
    let has = |name: &str| schema.index_of(name).is_ok();
    has(CUSTOMER) && (has("subject") || scan.table_name.table() == "subscription")
}

/// Whose rows the rows of a step are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rows {
    /// Rows of no customer: of rate tables and constants.
    Common,
    /// Each of one customer's, whom these columns name, or of none.
    Of(BTreeSet<usize>),
}

/// Whether what one customer pays may be made of the usage of another. It is not where every row of the answer is made
/// of the rows of the customer that it names, or of rate tables and constants alone.
pub(super) fn compares_customers(plan: &LogicalPlan) -> bool {
    let customer = plan.schema().index_of_column_by_name(None, CUSTOMER);
    match (rows_of(plan), customer) {
        (Some(Rows::Common), _) => false,
        (Some(Rows::Of(columns)), Some(customer)) => !columns.contains(&customer),
        _ => true,
    }
}

/// Whether an answer for a part of the customers has rows that are no customer's, so that the answers for all parts
/// would have them more than once.
pub(super) fn repeats_common_rows(plan: &LogicalPlan) -> bool {
    let mut repeats = false;
    // The walk cannot fail: its steps only look.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Union(union) = node {
            let is_common = |input: &&Arc<LogicalPlan>| rows_of(input) == Some(Rows::Common);
            let common = union.inputs.iter().filter(is_common).count();
            repeats |= common > 0 && common < union.inputs.len();
        }
        Ok(super::purity::stop_when(repeats))
    });
    repeats
}

/// Whether a plan's rows are of no customer.
pub(super) fn is_common(plan: &LogicalPlan) -> bool {
    rows_of(plan) == Some(Rows::Common)
}

/// The relations that a plan reads, by name.
pub(super) fn relations(plan: &LogicalPlan) -> BTreeSet<String> {
    let mut relations = BTreeSet::new();
    // The walk cannot fail: its steps only look.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            relations.insert(scan.table_name.table().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    relations
}

/// Whether a plan reads rows of customers.
pub(super) fn has_customers(plan: &LogicalPlan) -> bool {
    let has = plan
        .exists(|node| Ok(matches!(node, LogicalPlan::TableScan(scan) if is_of_customers(scan))));
    // The walk cannot fail: its steps only look.
    has.unwrap_or(false)
}

/// `None` when a row may be made of several customers' rows, or that cannot be told.
fn rows_of(plan: &LogicalPlan) -> Option<Rows> {
    if !has_common_subqueries(plan) {
        return None;
    }
    match plan {
        LogicalPlan::TableScan(scan) if is_of_customers(scan) => {
            let columns = scan.projected_schema.columns();
            Some(Rows::Of(
                positions(columns.iter(), |column| column.name == CUSTOMER).collect(),
            ))
        }
        LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
            Some(Rows::Common)
        }
        LogicalPlan::Projection(projection) => {
            let input = rows_of(&projection.input)?;
            Some(input.through(&projection.expr, projection.input.schema()))
        }
        LogicalPlan::Filter(filter) => rows_of(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => rows_of(&alias.input),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => rows_of(&sort.input),
        LogicalPlan::Distinct(Distinct::All(input)) => rows_of(input)?.if_named(),
        LogicalPlan::Aggregate(aggregate) => rows_of_groups(aggregate),
        LogicalPlan::Window(window) => rows_of_windows(window),
        LogicalPlan::Join(join) => rows_of_join(join),
        LogicalPlan::Unnest(unnest) => Some(match rows_of(&unnest.input)? {
            Rows::Common => Rows::Common,
            Rows::Of(columns) => {
                let from = unnest.dependency_indices.iter();
                Rows::Of(positions(from, |column| columns.contains(column)).collect())
            }
        }),
        LogicalPlan::Union(union) => {
            let mut inputs = union.inputs.iter().map(|input| rows_of(input));
            let first = inputs.next()??;
            inputs.try_fold(first, |all, next| match (all, next?) {
                (Rows::Common, Rows::Common) => Some(Rows::Common),
                (Rows::Of(all), Rows::Of(next)) => Some(Rows::Of(&all & &next)),
                (Rows::Of(all), Rows::Common) | (Rows::Common, Rows::Of(all)) => {
                    Some(Rows::Of(all))
                }
            })
        }
        // A part of the rows, a sample or a recursion: whose they are depends on the others.
        other => {
            let inputs = other.inputs();
            let is_common = |input: &&LogicalPlan| rows_of(input) == Some(Rows::Common);
            (!inputs.is_empty() && inputs.iter().all(is_common)).then_some(Rows::Common)
        }
    }
}

impl Rows {
    /// What expressions over these rows leave of them.
    fn through(self, exprs: &[Expr], input: &DFSchema) -> Self {
        match self {
            Rows::Common => Rows::Common,
            Rows::Of(columns) => {
                let names_customer = |expr: &Expr| {
                    let place = bare(expr).and_then(|column| input.maybe_index_of_column(column));
                    place.is_some_and(|place| columns.contains(&place))
                };
                Rows::Of(positions(exprs.iter(), names_customer).collect())
            }
        }
    }

    /// Groups of these rows: they are of one customer each, if a column of the group names the customer.
    fn if_named(self) -> Option<Self> {
        match self {
            Rows::Of(columns) if columns.is_empty() => None,
            rows => Some(rows),
        }
    }
}

fn positions<T>(
    items: impl Iterator<Item = T>,
    is_wanted: impl Fn(T) -> bool,
) -> impl Iterator<Item = usize> {
    let places = items.enumerate();
    places.filter_map(move |(place, item)| is_wanted(item).then_some(place))
}

fn rows_of_groups(aggregate: &Aggregate) -> Option<Rows> {
    let sets = |expr: &Expr| matches!(expr, Expr::GroupingSet(_));
    match rows_of(&aggregate.input)? {
        Rows::Common => Some(Rows::Common),
        Rows::Of(_) if aggregate.group_expr.iter().any(sets) => None,
        Rows::Of(columns) => {
            let input = aggregate.input.schema();
            let groups = Rows::Of(columns.clone()).through(&aggregate.group_expr, input);
            let Rows::Of(mut named) = groups.if_named()? else {
                return None;
            };
            // One of the names in a group of one customer's rows is that customer's: so does DISTINCT ON have it.
            let is_name = |call: &Expr| match unaliased(call) {
                Expr::AggregateFunction(call) if call.params.filter.is_none() => {
                    let is_one = matches!(
                        call.func.name(),
                        "first_value" | "last_value" | "min" | "max"
                    );
                    let arg = call.params.args.first().and_then(bare);
                    let place = arg.and_then(|column| input.maybe_index_of_column(column));
                    is_one && place.is_some_and(|place| columns.contains(&place))
                }
                _ => false,
            };
            let shift = aggregate.group_expr.len();
            named.extend(positions(aggregate.aggr_expr.iter(), is_name).map(|place| place + shift));
            Some(Rows::Of(named))
        }
    }
}

fn rows_of_windows(window: &Window) -> Option<Rows> {
    let rows = rows_of(&window.input)?;
    let is_within = |expr: &Expr| match unaliased(expr) {
        Expr::WindowFunction(call) => rows
            .clone()
            .through(&call.params.partition_by, window.input.schema())
            .if_named()
            .is_some(),
        _ => false,
    };
    let is_apart = window.window_expr.iter().all(is_within);
    is_apart.then(|| rows.clone())
}

fn rows_of_join(join: &Join) -> Option<Rows> {
    use JoinType::{
        Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi,
    };
    let (left, right) = (rows_of(&join.left)?, rows_of(&join.right)?);
    let keeps_left = matches!(join.join_type, Left | LeftSemi | LeftAnti | LeftMark);
    let keeps_right = matches!(join.join_type, Right | RightSemi | RightAnti | RightMark);
    let is_inner = join.join_type == Inner;
    // Columns of the right come after the left's, but where the right's alone are left.
    let shift = match join.join_type {
        RightSemi | RightAnti | RightMark => 0,
        _ => join.left.schema().fields().len(),
    };
    let pairs = || {
        join.on.iter().filter_map(|(l, r)| {
            let left = join.left.schema().maybe_index_of_column(bare(l)?)?;
            Some((left, join.right.schema().maybe_index_of_column(bare(r)?)?))
        })
    };
    let shifted = |columns: &BTreeSet<usize>| columns.iter().map(|c| c + shift).collect();
    match (left, right) {
        (Rows::Common, Rows::Common) => Some(Rows::Common),
        (Rows::Of(left), Rows::Common) if keeps_left => Some(Rows::Of(left)),
        (Rows::Common, Rows::Of(right)) if keeps_right => Some(Rows::Of(shifted(&right))),
        (Rows::Of(mut left), Rows::Common) if is_inner => {
            let equal = pairs().filter(|(l, _)| left.contains(l));
            let equal: Vec<usize> = equal.map(|(_, r)| r + shift).collect();
            left.extend(equal);
            Some(Rows::Of(left))
        }
        (Rows::Common, Rows::Of(right)) if is_inner => {
            let equal = pairs().filter(|(_, r)| right.contains(r)).map(|(l, _)| l);
            let mut all: BTreeSet<usize> = shifted(&right);
            all.extend(equal);
            Some(Rows::Of(all))
        }
        (Rows::Of(left), Rows::Of(right)) => {
            let same = pairs().any(|(l, r)| left.contains(&l) && right.contains(&r));
            match same {
                true if keeps_left => Some(Rows::Of(left)),
                true if keeps_right => Some(Rows::Of(shifted(&right))),
                true if is_inner => Some(Rows::Of(&left | &shifted(&right))),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether the sub-queries of a step's own expressions read nothing that customers have.
fn has_common_subqueries(plan: &LogicalPlan) -> bool {
    let mut is_common = true;
    // The walk cannot fail: its steps only look.
    let _ = plan.apply_expressions(|root| {
        root.apply(|expr| {
            let query = match expr {
                Expr::ScalarSubquery(query) => Some(query),
                Expr::InSubquery(within) => Some(&within.subquery),
                Expr::Exists(exists) => Some(&exists.subquery),
                _ => None,
            };
            is_common &= query.is_none_or(|query| rows_of(&query.subquery) == Some(Rows::Common));
            Ok(TreeNodeRecursion::Continue)
        })
    });
    is_common
}

fn unaliased(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

fn bare(expr: &Expr) -> Option<&Column> {
    match unaliased(expr) {
        Expr::Column(column) => Some(column),
        _ => None,
    }
}
