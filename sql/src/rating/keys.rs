//! A rate table with a key is joined by the whole key: a join by less bills a row of usage once for each
//! rate it finds.

use super::refused;
use crate::{
    definitions::{PriceDefinition, rates::Bound},
    error::Result,
    parser::list,
};
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
    /// The period of the key, while no condition chooses one of the periods.
    period: Option<Period>,
    /// Whether it stands beside another relation.
    joined: bool,
}

/// The period of a key: one row has a value in it, the others do not.
#[derive(Debug, Clone, Default)]
struct Period {
    /// The columns at this step, if they are there.
    from: Option<Column>,
    to: Option<Column>,
    /// What is compared as `value >= from`.
    since: Vec<Compared>,
    /// What is compared as `value < to`.
    until: Vec<Compared>,
}

/// A value, and the type as which a bound is compared with it: both bounds cast to days, in the order of time, stay apart; one
/// of them alone does not.
#[derive(Debug, Clone, PartialEq)]
struct Compared {
    value: Expr,
    cast_to: Option<DataType>,
}

impl Period {
    /// Whether one value lies between the bounds, which chooses one period.
    fn is_chosen(&self) -> bool {
        self.since
            .iter()
            .any(|compared| self.until.contains(compared))
    }
}

impl Keyed {
    fn of(scan: &TableScan) -> Option<Self> {
        let constraints = scan.source.constraints()?;
        let key = constraints.iter().find_map(|constraint| match constraint {
            Constraint::PrimaryKey(key) => Some(key),
            Constraint::Unique(_) => None,
        })?;
        let schema = scan.source.schema();
        let column = |name: &str| Column::new(Some(scan.table_name.clone()), name);
        let mut period = None;
        for field in schema.fields() {
            if let Some(bound) = Bound::of_field(field) {
                let period = period.get_or_insert_with(Period::default);
                *period.column(bound) = Some(column(field.name()));
            }
        }
        // That a period begins is a part of the constraint, and of the period here.
        let free = key.iter().map(|place| schema.field(*place));
        let free = free
            .filter(|field| Bound::of_field(field).is_none())
            .map(|field| {
                (
                    field.name().clone(),
                    field.data_type().clone(),
                    Some(column(field.name())),
                )
            });
        Some(Keyed {
            table: scan.table_name.table().to_owned(),
            free: free.collect(),
            period,
            joined: false,
        })
    }

    /// Whether at most one row is found.
    fn is_settled(&self) -> bool {
        self.free.is_empty() && self.period.as_ref().is_none_or(Period::is_chosen)
    }

    /// Every column of the key at this step.
    fn columns(&mut self) -> impl Iterator<Item = &mut Option<Column>> {
        let free = self.free.iter_mut().map(|(_, _, column)| column);
        let period = self.period.iter_mut();
        free.chain(period.flat_map(|period| [&mut period.from, &mut period.to]))
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
        Some(keyed) if keyed.free.is_empty() => {
            let problem = format!(
                "it joins rate table `{}` without choosing one of its periods, so one row of usage may be billed more \
                 than once",
                keyed.table
            );
            let hint = "compare one time with both columns of the period, in ON or WHERE: `time >= valid_from AND (time < valid_to \
                        OR valid_to IS NULL)`; a period does not hold its `valid_to`, so neither `<=` nor BETWEEN will do";
            Err(refused(price, problem, hint))
        }
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
        if table.joined && !table.is_settled() {
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
        } else {
            keyed.iter_mut().for_each(|table| table.compare(part));
        }
    }
}

impl Period {
    fn column(&mut self, bound: Bound) -> &mut Option<Column> {
        match bound {
            Bound::From => &mut self.from,
            Bound::To => &mut self.to,
        }
    }

    /// What a bound is compared as, where an expression is one.
    fn bound(&self, expr: &Expr) -> Option<(Bound, Option<DataType>)> {
        match bare(expr) {
            Expr::Column(column) if self.from.as_ref() == Some(column) => Some((Bound::From, None)),
            Expr::Column(column) if self.to.as_ref() == Some(column) => Some((Bound::To, None)),
            Expr::Cast(cast) if cast.field.data_type().is_temporal() => {
                let (bound, _) = self.bound(&cast.expr)?;
                Some((bound, Some(cast.field.data_type().clone())))
            }
            // A value in the place of NULL, which is no end: it only makes the period shorter.
            Expr::ScalarFunction(call) if call.name() == "coalesce" => match call.args.as_slice() {
                [end, Expr::Literal(..)] => {
                    self.bound(end).filter(|(bound, _)| *bound == Bound::To)
                }
                _ => None,
            },
            Expr::Case(case) => match (&case.expr, case.when_then_expr.as_slice(), &case.else_expr)
            {
                (None, [(when, then)], Some(other)) => {
                    let is_end = matches!(when.as_ref(), Expr::IsNotNull(end) if end == then);
                    let is_literal = matches!(other.as_ref(), Expr::Literal(..));
                    let end = self.bound(then).filter(|(bound, _)| *bound == Bound::To);
                    end.filter(|_| is_end && is_literal)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a value comes from the table itself.
    fn is_in(&self, value: &Expr) -> bool {
        let mut columns = self.from.iter().chain(&self.to);
        let own = columns.find_map(|column| column.relation.as_ref());
        // Without a relation of its own it could be any column that has none either.
        let mut read = value.column_refs().into_iter();
        read.any(|column| column.relation.as_ref() == own)
    }

    /// `condition`, where it is `condition OR valid_to IS NULL`: a row without an end has no other after it.
    fn until_further_notice<'a>(&self, condition: &'a Expr) -> &'a Expr {
        let Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) = condition
        else {
            return condition;
        };
        let is_endless = |expr: &Expr| match expr {
            Expr::IsNull(end) => self.bound(end).is_some_and(|(bound, _)| bound == Bound::To),
            _ => false,
        };
        match (is_endless(left), is_endless(right)) {
            (true, false) => right,
            (false, true) => left,
            _ => condition,
        }
    }
}

impl Keyed {
    /// Notes that a condition compares a value from outside the table with a bound of its period.
    fn compare(&mut self, condition: &Expr) {
        let Some(period) = &mut self.period else {
            return;
        };
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) =
            period.until_further_notice(condition)
        else {
            return;
        };
        // As `value op bound`.
        let sides = [(left, right, Some(*op)), (right, left, op.swap())];
        for (value, bound, op) in sides {
            let Some((bound, cast_to)) = period.bound(bound) else {
                continue;
            };
            if period.is_in(value) {
                continue;
            }
            let compared = Compared {
                value: bare(value).clone(),
                cast_to,
            };
            match (bound, op) {
                (Bound::From, Some(Operator::GtEq | Operator::Gt)) => period.since.push(compared),
                (Bound::To, Some(Operator::Lt)) => period.until.push(compared),
                _ => {}
            }
        }
    }
}

/// Of two keys that are equal only one is given by the other: the one that comes last.
fn equate(keyed: &mut [Keyed], one: &Expr, other: &Expr) {
    for table in keyed.iter_mut().rev() {
        for (side, value) in [(one, other), (other, one)] {
            // No two periods of a key begin at one time.
            if let Some(period) = &table.period
                && let Some((Bound::From, None)) = period.bound(side)
                && !period.is_in(value)
            {
                table.period = None;
                return;
            }
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
    for column in keyed.iter_mut().flat_map(Keyed::columns) {
        *column = column.as_ref().and_then(&renamed);
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}
