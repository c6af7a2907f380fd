//! What a price may say and is likely a mistake: joins that give usage away without a word, tiers that begin anew for each
//! subject. And at which quantities an amount may jump.

use super::{apart, planned};
use crate::{
    definitions::PriceDefinition,
    error::{Location, Result},
    money::Exact,
    parser::list,
};
use arrow::array::{Array, AsArray};
use datafusion::{
    common::{
        Column, ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Aggregate, Expr, Join, JoinType, LogicalPlan, utils::grouping_set_to_exprlist},
    prelude::SessionContext,
};
use std::{collections::BTreeSet, fmt};

/// Something that may be meant and is likely not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where what is spoken of is defined.
    pub at: Location,
    /// What is likely wrong, naming the definition.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  hint: {}", self.at, self.problem, self.hint)
    }
}

/// The joins of a price that may leave usage out, which is free then.
///
/// # Errors
/// [`Error::Price`](crate::Error::Price) when the query cannot be planned.
pub async fn silent_joins(
    context: &SessionContext,
    price: &PriceDefinition,
) -> Result<Vec<Warning>> {
    let (_, plan) = planned(context, price).await?;
    let mut found = BTreeSet::new();
    // The walk cannot fail: its steps only look.
    let _ = plan.apply_with_subqueries(|node| {
        found.extend(match node {
            LogicalPlan::Join(join) => dropped_by(join),
            LogicalPlan::Aggregate(aggregate) => passed_over_by(aggregate),
            _ => None,
        });
        Ok(TreeNodeRecursion::Continue)
    });
    let warning = |(problem, hint): (String, String)| Warning {
        at: price.at.clone(),
        problem: format!("price `{}`: {problem}", price.name),
        hint,
    };
    Ok(found.into_iter().map(warning).collect())
}

/// The functions of a price whose tiers, packages or free units begin anew for each subject of a customer: they are given rows of a
/// meter's totals, and a customer has such a row for each of its subjects. A price that returns `subject` means it.
///
/// # Errors
/// [`Error::Price`](crate::Error::Price) when the query cannot be planned.
pub async fn begun_anew(context: &SessionContext, price: &PriceDefinition) -> Result<Vec<Warning>> {
    let (written, _) = planned(context, price).await?;
    let mut found = BTreeSet::new();
    if written.schema().has_column_with_unqualified_name(SUBJECT) {
        return Ok(Vec::new());
    }
    // The walk cannot fail: its steps only look.
    let _ = written.apply_with_subqueries(|node| {
        if let LogicalPlan::Projection(projection) = node
            && is_by_subject(&projection.input)
        {
            for expr in &projection.expr {
                found.extend(that_begin(expr));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let warning = |function: String| {
        Warning {
        at: price.at.clone(),
        problem: format!(
            "price `{}`: its `{function}` begins anew for each subject of a customer",
            price.name
        ),
        hint: "GROUP BY customer and give it SUM of the measure; or return `subject` too, if each subject has its own".into(),
    }
    };
    Ok(found.into_iter().map(warning).collect())
}

/// The column of those who use, in the totals of a meter.
const SUBJECT: &str = "subject";

/// Whether the rows of a plan are those of a meter's totals, not gathered.
fn is_by_subject(plan: &LogicalPlan) -> bool {
    let (mut is_of_meter, mut gathers) = (false, false);
    let _ = plan.apply(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let schema = scan.source.schema();
                let has = |name: &str| schema.column_with_name(name).is_some();
                is_of_meter |= has(SUBJECT) && !has("event_id") && !has("window_start");
            }
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_) => {
                gathers = true;
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    is_of_meter && !gathers
}

/// The functions in an expression for which two parts of a quantity cost something else than the whole.
fn that_begin(expr: &Expr) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let _ = expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr {
            let begins = match call.name() {
                "graduated" | "graduated_percentage" | "volume" | "package" | "blocks" => true,
                // With free units, or with a part for each.
                "per_unit" | "percentage" => call.args.len() > 2,
                _ => false,
            };
            found.extend(begins.then(|| call.name().to_owned()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Every number that a price has in its text, tiers included: the quantities at which an amount may jump are among them.
///
/// # Errors
/// [`Error::Price`](crate::Error::Price) when the query cannot be planned.
pub async fn numbers(context: &SessionContext, price: &PriceDefinition) -> Result<BTreeSet<Exact>> {
    let (written, _) = planned(context, price).await?;
    let mut found = BTreeSet::new();
    let _ = written.apply_with_subqueries(|node| {
        node.apply_expressions(|root| {
            root.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    found.extend(numbers_in(value));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    Ok(found)
}

fn numbers_in(value: &ScalarValue) -> Vec<Exact> {
    let exact = |column: &dyn Array| -> Vec<Exact> {
        let rows = 0..column.len();
        rows.filter_map(|row| Exact::from_array(column, row).ok().flatten())
            .collect()
    };
    match value {
        ScalarValue::List(tiers) if tiers.len() == 1 && tiers.is_valid(0) => {
            let tiers = tiers.value(0);
            let columns = tiers.as_struct_opt().map(|tiers| tiers.columns().to_vec());
            let columns = columns.unwrap_or_default();
            columns
                .iter()
                .flat_map(|column| exact(column.as_ref()))
                .collect()
        }
        other => other
            .to_array()
            .map_or(Vec::new(), |column| exact(column.as_ref())),
    }
}

/// What a join that keeps only rows with a partner leaves out.
fn dropped_by(join: &Join) -> Option<(String, String)> {
    if join.join_type != JoinType::Inner || (join.on.is_empty() && join.filter.is_none()) {
        return None;
    }
    let sides = [&join.left, &join.right];
    let [left, right] = sides.map(|side| (apart::relations(side), apart::has_customers(side)));
    match (left, right) {
        ((_, true), (rates, false)) | ((rates, false), (_, true)) if !rates.is_empty() => Some((
            format!(
                "its JOIN with {} leaves out usage for which there is no row, and that usage is free",
                names(&rates)
            ),
            "write LEFT JOIN: a rate that is missing then makes the amount NULL, which stops that customer's invoice and no \
             other"
                .to_owned(),
        )),
        ((one, true), (other, true)) => {
            let is_subscription = |side: &BTreeSet<String>| side.iter().eq(["subscription"]);
            if is_subscription(&one) || is_subscription(&other) || !one.is_disjoint(&other) {
                return None;
            }
            Some((
                format!(
                    "its JOIN of {} with {} leaves out who has usage in one of them alone, and that usage is free",
                    names(&one),
                    names(&other)
                ),
                "write FULL JOIN and COALESCE, or price each of them by itself".to_owned(),
            ))
        }
        _ => None,
    }
}

fn names(relations: &BTreeSet<String>) -> String {
    list(&relations.iter().collect::<Vec<_>>())
}

/// Columns that are NULL where a rate table has no row, as they stand at some step of a plan.
#[derive(Debug, Default)]
struct Loose {
    tables: BTreeSet<String>,
    columns: BTreeSet<Column>,
    /// By what the table was joined: the name, and the column; `None` where it is gone.
    keys: Vec<(String, Option<Column>)>,
}

impl Loose {
    fn is_read_by(&self, expr: &Expr) -> bool {
        let mut columns = expr.column_refs().into_iter();
        columns.any(|column| self.columns.contains(column)) && !says_what_null_is(expr)
    }

    /// What a rate that is missing makes NULL in the rows of a plan.
    fn of(plan: &LogicalPlan) -> Self {
        match plan {
            LogicalPlan::Join(join) => Self::of_join(join),
            LogicalPlan::Filter(filter) => Self::of(&filter.input),
            LogicalPlan::Sort(sort) => Self::of(&sort.input),
            LogicalPlan::SubqueryAlias(alias) => {
                let (inner, outer) = (alias.input.schema().columns(), alias.schema.columns());
                let renamed = |column: &Column| {
                    let place = inner.iter().position(|known| known == column)?;
                    outer.get(place).cloned()
                };
                let below = Self::of(&alias.input);
                Loose {
                    columns: below.columns.iter().filter_map(renamed).collect(),
                    keys: below.keys_as(renamed),
                    tables: below.tables,
                }
            }
            LogicalPlan::Projection(projection) => {
                let below = Self::of(&projection.input);
                let outputs = projection.schema.columns();
                let named = || projection.expr.iter().zip(&outputs);
                let columns = named().filter(|(expr, _)| below.is_read_by(expr));
                let kept = |key: &Column| {
                    let mut kept = named().filter(|(expr, _)| is_column(expr, key));
                    kept.next().map(|(_, output)| output.clone())
                };
                Loose {
                    columns: columns.map(|(_, output)| output.clone()).collect(),
                    keys: below.keys_as(kept),
                    tables: below.tables,
                }
            }
            _ => Self::default(),
        }
    }

    fn keys_as(
        &self,
        renamed: impl Fn(&Column) -> Option<Column>,
    ) -> Vec<(String, Option<Column>)> {
        let keys = self.keys.iter();
        keys.map(|(name, key)| (name.clone(), key.as_ref().and_then(&renamed)))
            .collect()
    }

    fn of_join(join: &Join) -> Self {
        let (kept, loose) = match join.join_type {
            JoinType::Left => (&join.left, &join.right),
            JoinType::Right => (&join.right, &join.left),
            _ => return Self::default(),
        };
        let mut below = Self::of(kept);
        if apart::has_customers(loose) {
            return below;
        }
        below.tables.extend(apart::relations(loose));
        let columns = loose.schema().columns();
        let is_kept = |column: &&Column| !columns.contains(column);
        let on = join.on.iter().flat_map(|(one, other)| [one, other]);
        for expr in on.chain(&join.filter) {
            let refs = expr.column_refs();
            let kept = refs.into_iter().filter(is_kept);
            let named = kept.map(|key| (key.name.clone(), Some(key.clone())));
            below.keys.extend(named);
        }
        below.columns.extend(columns);
        below
    }
}

/// What a sum passes over because its rate is missing.
fn passed_over_by(aggregate: &Aggregate) -> Option<(String, String)> {
    let loose = Loose::of(&aggregate.input);
    let groups = grouping_set_to_exprlist(&aggregate.group_expr).ok()?;
    let calls = |name: &'static str| {
        aggregate
            .aggr_expr
            .iter()
            .filter_map(move |expr| match bare(expr) {
                Expr::AggregateFunction(call) if call.func.name() == name => {
                    Some(&call.params.args)
                }
                _ => None,
            })
    };
    let reads = |arguments: &Vec<Expr>| arguments.iter().any(|argument| loose.is_read_by(argument));
    let is_grouped = |key: &Column| groups.iter().any(|group| is_column(group, key));
    let settled = loose
        .keys
        .iter()
        .all(|(_, key)| key.as_ref().is_some_and(is_grouped))
        || groups.iter().any(|group| loose.is_read_by(group));
    if settled || calls("count").any(reads) || !calls("sum").any(reads) {
        return None;
    }
    let keys: BTreeSet<&String> = loose.keys.iter().map(|(name, _)| name).collect();
    let hint = format!(
        "group by {} too, or compare COUNT of the rate with COUNT(*) in a CASE, so that the amount is NULL then",
        list(&keys.into_iter().collect::<Vec<_>>())
    );
    Some((
        format!(
            "its SUM passes over usage for which {} has no row, and that usage is free where others in the group have a rate",
            names(&loose.tables)
        ),
        hint,
    ))
}

/// Whether an expression puts something in the place of NULL, or asks for it.
fn says_what_null_is(expr: &Expr) -> bool {
    let mut says = false;
    let _ = expr.apply(|expr| {
        says |= match expr {
            Expr::ScalarFunction(call) => matches!(call.name(), "coalesce" | "nvl" | "ifnull"),
            Expr::IsNull(_) | Expr::IsNotNull(_) => true,
            _ => false,
        };
        Ok(TreeNodeRecursion::Continue)
    });
    says
}

fn is_column(expr: &Expr, column: &Column) -> bool {
    matches!(bare(expr), Expr::Column(found) if found == column)
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}
