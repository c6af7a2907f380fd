//! A rate table with a key is joined by the whole key: a join by less bills a row of usage once for each
//! rate it finds.

use super::refused;
use crate::{definitions::PriceDefinition, error::Result, parser::list};
use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, Constraint, tree_node::TreeNodeRecursion},
    logical_expr::{
        BinaryExpr, Expr, Join, JoinType, LogicalPlan, Operator, TableScan,
        utils::split_conjunction,
    },
};

/// A rate table with a key, as it stands at some step of a plan.
#[derive(Debug, Clone)]
struct Keyed {
    table: String,
    /// Name and type of each key column that no condition gives one value yet, with the column that it is at
    /// this step, if any.
    free: Vec<(String, DataType, Option<Column>)>,
    /// Whether it stands beside another relation.
    joined: bool,
}

impl Keyed {
    fn of(scan: &TableScan) -> Option<Self> {
        let constraints = scan.source.constraints()?;
        let key = constraints.iter().find_map(|constraint| match constraint {
            Constraint::PrimaryKey(key) => Some(key),
            Constraint::Unique(_) => None,
        })?;
        let schema = scan.source.schema();
        let free = key.iter().map(|place| {
            let field = schema.field(*place);
            let column = Column::new(Some(scan.table_name.clone()), field.name());
            (
                field.name().clone(),
                field.data_type().clone(),
                Some(column),
            )
        });
        Some(Keyed {
            table: scan.table_name.table().to_owned(),
            free: free.collect(),
            joined: false,
        })
    }

    fn free_at(&self, expr: &Expr) -> Option<usize> {
        self.free
            .iter()
            .position(|(_, data_type, column)| match expr {
                Expr::Column(found) => column.as_ref() == Some(found),
                // A cast that keeps different values apart.
                Expr::Cast(cast) => match (&*cast.expr, data_type, cast.field.data_type()) {
                    (
                        Expr::Column(found),
                        DataType::Utf8,
                        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8,
                    )
                    | (Expr::Column(found), DataType::Int64, DataType::Decimal128(19.., 0..)) => {
                        column.as_ref() == Some(found)
                    }
                    _ => false,
                },
                _ => false,
            })
    }
}

/// Refuses a join that can find several rows of a table with a key.
pub(super) fn check(price: &PriceDefinition, plan: &LogicalPlan) -> Result<()> {
    match found(plan) {
        None => Ok(()),
        Some(keyed) => {
            let columns: Vec<&String> = keyed.free.iter().map(|(name, ..)| name).collect();
            let problem = format!(
                "it joins rate table `{}` without a value for {} of its key, so one row of usage may be billed more \
                 than once",
                keyed.table,
                list(&columns)
            );
            let hint = "compare every column of the key with `=` to something outside the table, in ON or WHERE; \
                        where several rates are meant, add them up in a sub-query first";
            Err(refused(price, problem, hint))
        }
    }
}

/// A table that some part of a plan joins by less than its key.
fn found(plan: &LogicalPlan) -> Option<Keyed> {
    let mut wrong = None;
    let mut keyed = Vec::new();
    visit(plan, &mut keyed, &mut wrong);
    settle(&mut keyed, &mut wrong);
    wrong
}

/// What a step makes of rows ends here: none may be there twice.
fn settle(keyed: &mut Vec<Keyed>, wrong: &mut Option<Keyed>) {
    for table in keyed.drain(..) {
        if table.joined && !table.free.is_empty() {
            wrong.get_or_insert(table);
        }
    }
}

/// Adds the tables that a step's rows are made of.
fn visit(plan: &LogicalPlan, keyed: &mut Vec<Keyed>, wrong: &mut Option<Keyed>) {
    // The walk cannot fail: its steps only look.
    let _ = plan.apply_subqueries(|query| {
        if let Some(table) = found(query) {
            wrong.get_or_insert(table);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match plan {
        LogicalPlan::TableScan(scan) => {
            let mut own: Vec<Keyed> = Keyed::of(scan).into_iter().collect();
            scan.filters.iter().for_each(|filter| pin(&mut own, filter));
            keyed.append(&mut own);
        }
        LogicalPlan::Filter(filter) => {
            let mut own = Vec::new();
            visit(&filter.input, &mut own, wrong);
            pin(&mut own, &filter.predicate);
            keyed.append(&mut own);
        }
        LogicalPlan::Projection(projection) => {
            let mut own = Vec::new();
            visit(&projection.input, &mut own, wrong);
            let outputs = projection.schema.columns();
            let renamed = |column: &Column| {
                let mut named = projection.expr.iter().zip(&outputs);
                let found = named
                    .find(|(expr, _)| matches!(bare(expr), Expr::Column(from) if from == column));
                found.map(|(_, output)| output.clone())
            };
            rename(&mut own, renamed);
            keyed.append(&mut own);
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let mut own = Vec::new();
            visit(&alias.input, &mut own, wrong);
            let (inner, outer) = (alias.input.schema().columns(), alias.schema.columns());
            rename(&mut own, |column| {
                let place = inner.iter().position(|known| known == column)?;
                outer.get(place).cloned()
            });
            keyed.append(&mut own);
        }
        LogicalPlan::Join(join) => keyed.append(&mut joined(join, wrong)),
        LogicalPlan::Sort(_) | LogicalPlan::Repartition(_) => {
            let mut inputs = plan.inputs().into_iter();
            inputs.by_ref().for_each(|input| visit(input, keyed, wrong));
        }
        _ => {
            for input in plan.inputs() {
                let mut own = Vec::new();
                visit(input, &mut own, wrong);
                settle(&mut own, wrong);
            }
        }
    }
}

fn joined(join: &Join, wrong: &mut Option<Keyed>) -> Vec<Keyed> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    visit(&join.left, &mut left, wrong);
    visit(&join.right, &mut right, wrong);
    // The other side only says whether a row stays.
    match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
            settle(&mut right, wrong);
            return left;
        }
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            settle(&mut left, wrong);
            return right;
        }
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {}
    }
    left.append(&mut right);
    left.iter_mut().for_each(|table| table.joined = true);
    for (one, other) in &join.on {
        equate(&mut left, one, other);
    }
    if let Some(filter) = &join.filter {
        pin(&mut left, filter);
    }
    left
}

/// Takes away the key columns to which a condition gives one value.
fn pin(keyed: &mut [Keyed], condition: &Expr) {
    for part in split_conjunction(condition) {
        if let Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) = part
        {
            equate(keyed, left, right);
        }
    }
}

/// Of two keys that are equal only one is given by the other: the one that comes last.
fn equate(keyed: &mut [Keyed], one: &Expr, other: &Expr) {
    for table in keyed.iter_mut().rev() {
        for (side, value) in [(one, other), (other, one)] {
            let Some(place) = table.free_at(side) else {
                continue;
            };
            // A value from the same table gives nothing.
            let own = table.free[place]
                .2
                .as_ref()
                .and_then(|column| column.relation.clone());
            let from_itself = value
                .column_refs()
                .iter()
                .any(|column| own.is_some() && column.relation == own);
            if !from_itself {
                table.free.remove(place);
                return;
            }
        }
    }
}

fn rename(keyed: &mut [Keyed], renamed: impl Fn(&Column) -> Option<Column>) {
    for (_, _, column) in keyed.iter_mut().flat_map(|table| &mut table.free) {
        *column = column.as_ref().and_then(&renamed);
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}
