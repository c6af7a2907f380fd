//! Which windows of a meter a statement asks for (pure).
//!
//! The statement is planned and optimised over tables without rows; the conditions that end up on a meter's
//! scan bound its windows. What is found may be more than what is asked for, never less: the statement's
//! conditions are evaluated on the rows all the same. They must be the same then, so nothing is bounded by what
//! changes from one planning to the next, such as `now()`.

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::Result as Planned,
    logical_expr::{
        BinaryExpr, Expr, LogicalPlan, Operator, TableScan, Volatility, utils::split_conjunction,
    },
    scalar::ScalarValue,
};
use tollgate_sql::window::DAY_US;

/// Starts of windows, as `[from, to)` in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Starts {
    pub(super) from_us: i64,
    pub(super) to_us: i64,
}

impl Starts {
    pub(super) const EVER: Starts = Starts {
        from_us: i64::MIN,
        to_us: i64::MAX,
    };

    /// All windows of a relation that any part of an optimised plan may read.
    pub(super) fn asked(plan: &LogicalPlan, relation: &str) -> Planned<Self> {
        let mut asked = None;
        visit(plan, relation, &mut asked)?;
        // A plan without the relation may have lost it to the optimizer; then the query does not read it.
        Ok(asked.unwrap_or(Starts::EVER))
    }

    /// These and all later ones, from a midnight on.
    pub(super) fn since_midnight(self) -> Self {
        Starts {
            from_us: self.from_us.saturating_sub(self.from_us.rem_euclid(DAY_US)),
            ..Starts::EVER
        }
    }

    /// Those that pass a condition, as far as it bounds them.
    fn within(self, condition: &Expr) -> Self {
        split_conjunction(condition)
            .into_iter()
            .filter_map(bound)
            .fold(self, Self::both)
    }

    fn both(self, other: Self) -> Self {
        Starts {
            from_us: self.from_us.max(other.from_us),
            to_us: self.to_us.min(other.to_us),
        }
    }

    fn either(self, other: Self) -> Self {
        Starts {
            from_us: self.from_us.min(other.from_us),
            to_us: self.to_us.max(other.to_us),
        }
    }
}

/// Whether a plan, before it is optimised, says the same whenever it is planned.
pub(super) fn is_fixed(plan: &LogicalPlan) -> Planned<bool> {
    let mut fixed = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|root| {
            root.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr {
                    fixed &= call.func.signature().volatility == Volatility::Immutable;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(fixed)
}

fn visit(plan: &LogicalPlan, relation: &str, asked: &mut Option<Starts>) -> Planned<()> {
    plan.apply_subqueries(|query| {
        visit(query, relation, asked)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    let scanned = match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan, relation),
        LogicalPlan::Filter(filter) => match &*filter.input {
            LogicalPlan::TableScan(scan) if scan.filters.is_empty() => {
                of_scan(scan, relation).map(|starts| starts.within(&filter.predicate))
            }
            other => return visit(other, relation, asked),
        },
        other => {
            let mut inputs = other.inputs().into_iter();
            return inputs.try_for_each(|input| visit(input, relation, asked));
        }
    };
    if let Some(starts) = scanned {
        *asked = Some(asked.map_or(starts, |asked| asked.either(starts)));
    }
    Ok(())
}

fn of_scan(scan: &TableScan, relation: &str) -> Option<Starts> {
    (scan.table_name.table() == relation).then_some(Starts::EVER)
}

/// What one condition says of `window_start`; `None` if it bounds nothing.
fn bound(condition: &Expr) -> Option<Starts> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else {
        return None;
    };
    let (op, value) = match (&**left, &**right) {
        (Expr::Column(column), Expr::Literal(value, _)) if column.name == "window_start" => {
            (*op, value)
        }
        (Expr::Literal(value, _), Expr::Column(column)) if column.name == "window_start" => {
            (op.swap()?, value)
        }
        _ => return None,
    };
    let ScalarValue::TimestampMicrosecond(Some(us), _) = value else {
        return None;
    };
    let (from_us, after_us) = (*us, us.saturating_add(1));
    let from = |from_us| Starts {
        from_us,
        ..Starts::EVER
    };
    let to = |to_us| Starts {
        to_us,
        ..Starts::EVER
    };
    match op {
        Operator::GtEq | Operator::Gt => Some(from(from_us)),
        Operator::LtEq => Some(to(after_us)),
        Operator::Lt => Some(to(from_us)),
        Operator::Eq => Some(from(from_us).both(to(after_us))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::relations::{memory, register};
    use arrow::{
        array::RecordBatch,
        datatypes::{DataType, Field, Schema},
    };
    use datafusion::prelude::SessionContext;
    use std::sync::Arc;
    use tollgate_sql::{schema, session};

    fn context() -> SessionContext {
        let context = session::context();
        let columns = vec![
            Field::new("window_start", schema::timestamp(), false),
            Field::new("subject", DataType::Utf8, false),
            Field::new("calls", DataType::Int64, false),
        ];
        let rows = RecordBatch::new_empty(Arc::new(Schema::new(columns)));
        for name in ["tokens", "others"] {
            register(&context, name, memory(vec![rows.clone()]).unwrap()).unwrap();
        }
        context
    }

    /// The days of 1970 that a statement asks for, from 0; an open end is `None`.
    async fn asked(sql: &str) -> (Option<i64>, Option<i64>) {
        let frame = context().sql(sql).await.unwrap();
        let plan = frame.into_optimized_plan().unwrap();
        let Starts { from_us, to_us } = Starts::asked(&plan, "tokens").unwrap();
        let day = |us: i64| (us != i64::MIN && us != i64::MAX).then_some(us.div_euclid(DAY_US));
        (day(from_us), day(to_us))
    }

    #[tokio::test]
    async fn conditions_on_the_start_bound_it() {
        let ever = (None, None);
        for (condition, expected) in [
            ("window_start >= '1970-01-03T00:00:00Z'", (Some(2), None)),
            (
                "window_start > TIMESTAMP '1970-01-03T00:00:00Z'",
                (Some(2), None),
            ),
            ("'1970-01-03T00:00:00Z' <= window_start", (Some(2), None)),
            (
                "window_start < '1970-01-03T00:00:00Z' AND calls > 1",
                (None, Some(2)),
            ),
            ("window_start <= '1970-01-03T00:00:00Z'", (None, Some(2))),
            ("window_start = '1970-01-03T00:00:00Z'", (Some(2), Some(2))),
            (
                "window_start BETWEEN '1970-01-03T00:00:00Z' AND '1970-01-05T00:00:00Z'",
                (Some(2), Some(4)),
            ),
            (
                "window_start >= '1970-01-03T00:00:00Z' AND window_start >= '1970-01-05T00:00:00Z'",
                (Some(4), None),
            ),
            ("window_start >= '1970-01-03T00:00:00Z' OR calls > 1", ever),
            (
                "NOT window_start >= '1970-01-03T00:00:00Z'",
                (None, Some(2)),
            ),
            ("window_start <> '1970-01-03T00:00:00Z'", ever),
            ("calls > 1", ever),
        ] {
            let sql = format!("SELECT SUM(calls) FROM tokens t WHERE {condition}");
            assert_eq!(asked(&sql).await, expected, "{condition}");
        }
    }

    #[tokio::test]
    async fn what_changes_between_two_plannings_is_not_fixed() {
        for (condition, fixed) in [
            ("window_start >= '1970-01-03T00:00:00Z'", true),
            (
                "window_start >= date_trunc('day', TIMESTAMP '1970-01-03T00:00:00Z')",
                true,
            ),
            ("window_start < date_trunc('day', now())", false),
            ("window_start < current_date", false),
            ("window_start < current_timestamp", false),
            (
                "calls > (SELECT MAX(calls) FROM tokens WHERE window_start < now())",
                false,
            ),
            ("calls > random()", false),
        ] {
            let sql = format!("SELECT * FROM tokens WHERE {condition}");
            let plan = context().sql(&sql).await.unwrap().into_unoptimized_plan();
            assert_eq!(is_fixed(&plan).unwrap(), fixed, "{condition}");
        }
    }

    #[tokio::test]
    async fn every_part_of_a_statement_counts() {
        let late = "window_start >= '1970-01-11T00:00:00Z'";
        for (sql, expected) in [
            (
                format!(
                    "SELECT * FROM tokens WHERE {late} UNION ALL SELECT * FROM tokens WHERE window_start < '1970-01-03T00:00:00Z'"
                ),
                (None, None),
            ),
            (
                format!("SELECT * FROM tokens a JOIN tokens b USING (subject) WHERE a.{late}"),
                (None, None),
            ),
            (
                format!(
                    "SELECT * FROM tokens WHERE {late} AND calls > (SELECT MAX(calls) FROM tokens)"
                ),
                (None, None),
            ),
            (
                format!(
                    "SELECT * FROM tokens WHERE {late} AND subject IN (SELECT subject FROM tokens WHERE window_start >= '1970-01-04T00:00:00Z')"
                ),
                (Some(3), None),
            ),
            (
                format!(
                    "WITH t AS (SELECT * FROM tokens WHERE {late}) SELECT * FROM t WHERE window_start < '1970-01-21T00:00:00Z'"
                ),
                (Some(10), Some(20)),
            ),
            (
                format!(
                    "SELECT * FROM others WHERE {late} AND calls > (SELECT SUM(calls) FROM tokens)"
                ),
                (None, None),
            ),
            (
                format!("SELECT SUM(calls) OVER (PARTITION BY subject) FROM tokens WHERE {late}"),
                (Some(10), None),
            ),
            (
                format!(
                    "SELECT * FROM (SELECT *, SUM(calls) OVER (PARTITION BY subject) AS s FROM tokens) WHERE {late}"
                ),
                (None, None),
            ),
        ] {
            assert_eq!(asked(&sql).await, expected, "{sql}");
        }
    }
}
