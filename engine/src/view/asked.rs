//! Which windows and groups of a meter a statement asks for (pure).
//!
//! The statement is planned and optimised over tables without rows; the conditions that end up on a meter's
//! scan bound its windows and select its groups. What is found may be more than what is asked for, never less: the
//! statement's conditions are evaluated on the rows all the same. They must be the same then, so nothing is bounded by what
//! changes from one planning to the next, such as `now()`: it is planned as a value that is not known.

use super::keys::Keys;
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::Result as Planned,
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, TableScan, Volatility,
        expr::Placeholder, utils::split_conjunction,
    },
    scalar::ScalarValue,
};
use std::collections::BTreeSet;
use tollgate_sql::window::DAY_US;

/// What of a meter a statement may read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) starts: Starts,
    /// `None` when all groups are.
    pub(super) keys: Option<Keys>,
}

impl Asked {
    pub(super) const ALL: Asked = Asked {
        starts: Starts::EVER,
        keys: None,
    };

    /// What any part of an optimised plan may read of a relation, whose rows have these keys.
    pub(super) fn of(plan: &LogicalPlan, relation: &str, keys: &BTreeSet<String>) -> Planned<Self> {
        let mut asked = None;
        visit(plan, (relation, keys), &mut asked)?;
        // A plan without the relation may have lost it to the optimizer; then the query does not read it.
        Ok(asked.unwrap_or(Asked::ALL))
    }

    /// What passes a condition, as far as it says so.
    fn within(self, condition: &Expr, keys: &BTreeSet<String>) -> Self {
        let conditions = split_conjunction(condition).into_iter();
        conditions.fold(self, |asked, condition| match bound(condition) {
            Some(starts) => Asked {
                starts: asked.starts.both(starts),
                ..asked
            },
            None => {
                let of_keys = Keys::asked(condition, keys);
                Asked {
                    keys: match (asked.keys, of_keys) {
                        (Some(one), Some(other)) => Some(one.both(other)),
                        (one, other) => one.or(other),
                    },
                    ..asked
                }
            }
        })
    }

    fn either(self, other: Self) -> Self {
        Asked {
            starts: self.starts.either(other.starts),
            keys: match (self.keys, other.keys) {
                (Some(one), Some(other)) => one.either(other),
                _ => None,
            },
        }
    }
}

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

    /// These and all later ones, from a midnight on.
    pub(super) fn since_midnight(self) -> Self {
        Starts {
            from_us: self.from_us.saturating_sub(self.from_us.rem_euclid(DAY_US)),
            ..Starts::EVER
        }
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

/// A plan, before it is optimised, that says the same whenever it is planned: what changes in between is not known in
/// its conditions. `None` when that is found elsewhere too.
pub(super) fn fixed(plan: LogicalPlan) -> Planned<Option<LogicalPlan>> {
    let mut unknown = 0;
    let plan = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::Filter(filter) = node else {
            return Ok(Transformed::no(node));
        };
        let schema = filter.input.schema();
        let predicate = filter.predicate.transform_up(|expr| {
            if !changes(&expr) {
                return Ok(Transformed::no(expr));
            }
            let (_, field) = expr.to_field(schema)?;
            // Each by itself: two calls of `random()` are two values.
            unknown += 1;
            let id = format!("$unknown{unknown}");
            let placeholder = Placeholder::new_with_field(id, Some(field));
            Ok(Transformed::yes(Expr::Placeholder(placeholder)))
        })?;
        let filter = Filter::try_new(predicate.data, filter.input)?;
        Ok(Transformed::new_transformed(
            LogicalPlan::Filter(filter),
            predicate.transformed,
        ))
    })?;
    Ok(is_fixed(&plan.data)?.then_some(plan.data))
}

fn is_fixed(plan: &LogicalPlan) -> Planned<bool> {
    let mut fixed = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|root| {
            root.apply(|expr| {
                fixed &= !changes(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(fixed)
}

/// Whether an expression itself may have another value the next time.
fn changes(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
        _ => false,
    }
}

fn visit(
    plan: &LogicalPlan,
    relation: (&str, &BTreeSet<String>),
    asked: &mut Option<Asked>,
) -> Planned<()> {
    plan.apply_subqueries(|query| {
        visit(query, relation, asked)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    let scanned = match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan, relation.0),
        LogicalPlan::Filter(filter) => match &*filter.input {
            LogicalPlan::TableScan(scan) if scan.filters.is_empty() => {
                let scanned = of_scan(scan, relation.0);
                scanned.map(|all| all.within(&filter.predicate, relation.1))
            }
            other => return visit(other, relation, asked),
        },
        other => {
            let mut inputs = other.inputs().into_iter();
            return inputs.try_for_each(|input| visit(input, relation, asked));
        }
    };
    if let Some(scanned) = scanned {
        *asked = Some(match asked.take() {
            Some(asked) => asked.either(scanned),
            None => scanned,
        });
    }
    Ok(())
}

fn of_scan(scan: &TableScan, relation: &str) -> Option<Asked> {
    (scan.table_name.table() == relation).then_some(Asked::ALL)
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
            Field::new("customer", DataType::Utf8, false),
            Field::new("subject", DataType::Utf8, false),
            Field::new("region", DataType::Utf8, true),
            Field::new("calls", DataType::Int64, false),
        ];
        let rows = RecordBatch::new_empty(Arc::new(Schema::new(columns)));
        for name in ["tokens", "others"] {
            register(&context, name, memory(vec![rows.clone()]).unwrap()).unwrap();
        }
        context
    }

    fn of(plan: &LogicalPlan) -> Asked {
        let keys = ["customer", "subject", "region"].map(str::to_owned);
        Asked::of(plan, "tokens", &BTreeSet::from(keys)).unwrap()
    }

    /// The conditions on panes that a statement comes to; `all` when there are none.
    async fn groups(sql: &str) -> String {
        let context = context();
        let plan = context.sql(sql).await.unwrap().into_unoptimized_plan();
        let Some(plan) = fixed(plan).unwrap() else {
            return "all".to_owned();
        };
        let plan = context.state().optimize(&plan).unwrap();
        let keys = of(&plan).keys;
        keys.map_or("all".to_owned(), |keys| {
            keys.on_panes().unwrap().to_string()
        })
    }

    /// The days of 1970 that a statement asks for, from 0; an open end is `None`.
    async fn asked(sql: &str) -> (Option<i64>, Option<i64>) {
        let frame = context().sql(sql).await.unwrap();
        let plan = frame.into_optimized_plan().unwrap();
        let Starts { from_us, to_us } = of(&plan).starts;
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
    async fn what_changes_between_two_plannings_bounds_nothing() {
        let subject = "subject = Utf8(\"a\")";
        for (condition, expected) in [
            ("window_start >= '1970-01-03T00:00:00Z'", subject),
            (
                "window_start >= date_trunc('day', TIMESTAMP '1970-01-03T00:00:00Z')",
                subject,
            ),
            ("window_start < date_trunc('day', now())", subject),
            ("window_start < current_date", subject),
            ("window_start >= now() - INTERVAL '1 day'", subject),
            ("calls > random()", subject),
            ("random() = random()", subject),
            (
                "calls > (SELECT MAX(calls) FROM tokens WHERE window_start < now())",
                "all",
            ),
            (
                "region = CASE WHEN now() > '2026-01-01T00:00:00Z' THEN 'eu' ELSE 'us' END",
                subject,
            ),
        ] {
            let sql = format!("SELECT * FROM tokens WHERE {condition} AND subject = 'a'");
            assert_eq!(groups(&sql).await, expected, "{condition}");
            let plan = context().sql(&sql).await.unwrap().into_unoptimized_plan();
            let plan = fixed(plan).unwrap().unwrap();
            let plan = context().state().optimize(&plan).unwrap();
            let bounded = of(&plan).starts != Starts::EVER;
            assert_eq!(bounded, condition.contains("1970"), "{condition}");
        }
        // What is known by name of a column may become a condition.
        let sql = "SELECT * FROM (SELECT subject, CASE WHEN now() > '2026-01-01T00:00:00Z' THEN 'a' END AS who FROM tokens)
                   WHERE subject = who";
        assert_eq!(groups(sql).await, "all");
    }

    #[tokio::test]
    async fn conditions_on_keys_select_groups() {
        let a = "subject = Utf8(\"a\")";
        let in_region = |condition: &str| format!("{condition} OR error IS NOT NULL");
        for (condition, expected) in [
            ("subject = 'a'", a.to_owned()),
            ("'a' = subject", a.to_owned()),
            ("customer = 'a'", a.to_owned()),
            ("t.customer = 'a' AND calls > 1", a.to_owned()),
            (
                "subject IN ('a', 'b', 'c', 'd')",
                "subject IN ([Utf8(\"a\"), Utf8(\"b\"), Utf8(\"c\"), Utf8(\"d\")])".to_owned(),
            ),
            (
                "subject LIKE 'a%' AND NOT subject = 'ab'",
                "subject != Utf8(\"ab\") AND subject LIKE Utf8(\"a%\")".to_owned(),
            ),
            // A subject in error as a whole has no region, and hides what it used in any.
            ("region = 'eu'", in_region("region = Utf8(\"eu\")")),
            ("region IS NULL", in_region("region IS NULL")),
            (
                "region = 'eu' AND subject = 'a'",
                format!("({}) AND {a}", in_region("region = Utf8(\"eu\")")),
            ),
            (
                "(region = 'eu' OR subject = 'a')",
                in_region("region = Utf8(\"eu\") OR subject = Utf8(\"a\")"),
            ),
            // What says something else, or could fail on what another subject is called.
            ("subject = 'a' OR calls > 1", "all".to_owned()),
            ("CAST(subject AS BIGINT) = 1", "all".to_owned()),
            ("upper(subject) = 'A'", "all".to_owned()),
            ("subject ~ 'a.b'", "all".to_owned()),
            ("calls > 1", "all".to_owned()),
        ] {
            let sql = format!("SELECT SUM(calls) FROM tokens t WHERE {condition}");
            assert_eq!(groups(&sql).await, expected, "{condition}");
        }
    }

    #[tokio::test]
    async fn groups_that_any_part_of_a_statement_reads_are_selected() {
        let (a, b) = ("subject = Utf8(\"a\")", "subject = Utf8(\"b\")");
        let of_a = "SELECT * FROM tokens WHERE subject = 'a'";
        for (sql, expected) in [
            (format!("{of_a} UNION ALL {of_a}"), a.to_owned()),
            (
                format!("{of_a} UNION ALL SELECT * FROM tokens WHERE customer = 'b'"),
                format!("{a} OR {b}"),
            ),
            (format!("{of_a} UNION ALL SELECT * FROM tokens"), "all".into()),
            (
                "SELECT * FROM tokens a JOIN tokens b USING (subject) WHERE a.subject = 'a'".into(),
                a.to_owned(),
            ),
            (
                "SELECT * FROM tokens a JOIN tokens b ON a.region = b.region WHERE a.subject = 'a'".into(),
                "all".to_owned(),
            ),
            (
                "SELECT * FROM tokens a LEFT JOIN tokens b ON a.region = b.region AND b.subject = 'a'".into(),
                "all".into(),
            ),
            (
                format!("{of_a} AND calls > (SELECT SUM(calls) FROM tokens)"),
                "all".into(),
            ),
            (
                format!("{of_a} AND calls > (SELECT SUM(calls) FROM others)"),
                a.to_owned(),
            ),
            (
                "SELECT subject, SUM(calls) FROM tokens GROUP BY subject HAVING subject = 'a'".into(),
                a.to_owned(),
            ),
            (
                "SELECT * FROM (SELECT subject, rank() OVER (ORDER BY calls) AS r FROM tokens) WHERE subject = 'a'".into(),
                "all".into(),
            ),
            (
                "SELECT * FROM (SELECT subject, SUM(calls) OVER (PARTITION BY subject) AS s FROM tokens) WHERE subject = 'a'"
                    .into(),
                a.to_owned(),
            ),
            ("SELECT * FROM (SELECT * FROM tokens LIMIT 1) WHERE subject = 'a'".into(), "all".into()),
            ("SELECT region AS subject FROM tokens".into(), "all".into()),
            (
                "SELECT * FROM (SELECT region AS subject, calls FROM tokens) WHERE subject = 'a'".into(),
                "region = Utf8(\"a\") OR error IS NOT NULL".into(),
            ),
            ("SELECT * FROM others WHERE subject = 'a'".into(), "all".into()),
        ] {
            assert_eq!(groups(&sql).await, expected, "{sql}");
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
