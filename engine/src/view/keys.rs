//! What a statement asks of a meter's keys (pure).
//!
//! A condition on subjects and dimensions leaves out groups before their states are read and merged. A group is whole or
//! left out, so no value changes. A subject in error as a whole has no dimensions, and takes its groups along: what is
//! in error is never left out for a dimension.

use crate::{
    customers::Customers,
    error::{Result, query_error},
};
use arrow::{array::RecordBatch, compute::filter_record_batch};
use datafusion::{
    common::{
        Column, DFSchema,
        cast::as_boolean_array,
        tree_node::{Transformed, TreeNode},
    },
    error::Result as Planned,
    logical_expr::{
        BinaryExpr, Expr, Operator, execution_props::ExecutionProps,
        physical_planning_context::PhysicalPlanningContext, utils::conjunction,
    },
    physical_expr::create_physical_expr,
    prelude::lit,
};
use std::collections::BTreeSet;
use tollgate_sql::meter::{ERROR, Meter};

/// Who uses.
const SUBJECT: &str = "subject";
/// Who pays: without accounts every subject is its own customer.
const CUSTOMER: &str = "customer";

/// Conditions that the subject and dimensions of a group must pass, over columns of panes and states; all of them, and none
/// can fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys(Vec<Expr>);

impl Keys {
    /// The group keys of a meter, as its relation calls them, that states and panes have alike.
    pub(super) fn of(meter: &Meter) -> BTreeSet<String> {
        let (panes, states) = (meter.pane_schema(), meter.state_schema());
        let type_in = |schema: &arrow::datatypes::Schema, name: &str| {
            let field = schema.field_with_name(name);
            field.map(|field| field.data_type().clone()).ok()
        };
        let dimensions = meter.dimensions().iter().map(|field| field.name().as_str());
        let mut names: BTreeSet<String> = [SUBJECT]
            .into_iter()
            .chain(dimensions)
            .filter(|name| type_in(panes, name) == type_in(states, name))
            .map(str::to_owned)
            .collect();
        names.insert(CUSTOMER.to_owned());
        names
    }

    /// What one condition asks of these keys; `None` when it is about anything else, or could fail on a value.
    pub(super) fn asked(condition: &Expr, names: &BTreeSet<String>) -> Option<Self> {
        let columns = condition.column_refs();
        let are_keys = columns.iter().all(|column| names.contains(&column.name));
        if columns.is_empty() || !are_keys || !never_fails(condition) {
            return None;
        }
        Some(Keys(vec![in_panes(condition).ok()?]))
    }

    /// Those of customers, where every subject is its own; `None` of all.
    pub(super) fn customers(customers: &Customers) -> Option<Self> {
        let subject = Expr::Column(Column::new_unqualified(SUBJECT));
        customers
            .condition(&subject)
            .map(|condition| Keys(vec![condition]))
    }

    /// Those of some subjects; of none, when there are none.
    pub(super) fn subjects(names: &[&str]) -> Self {
        let names = names.iter().map(|name| lit(*name)).collect();
        let subject = Expr::Column(Column::new_unqualified(SUBJECT));
        Keys(vec![subject.in_list(names, false)])
    }

    /// What passes both.
    pub(super) fn both(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// What passes one of them.
    pub(super) fn either(self, other: Self) -> Option<Self> {
        if self == other {
            return Some(self);
        }
        let either = conjunction(self.0)?.or(conjunction(other.0)?);
        Some(Keys(vec![either]))
    }

    /// The condition on rows of panes.
    pub(super) fn on_panes(&self) -> Option<Expr> {
        conjunction(self.0.iter().map(with_errors))
    }

    /// The condition on events: what is said of their subjects alone.
    pub(super) fn on_events(&self) -> Option<Expr> {
        conjunction(self.0.iter().filter(|part| is_of_subject(part)).cloned())
    }

    /// Those of some states, or panes, that may belong to the groups.
    pub(super) fn select(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let doing = "selecting a meter's groups";
        let Some(condition) = self.on_panes() else {
            return Ok(rows.clone());
        };
        let passing = || -> Planned<RecordBatch> {
            let schema = DFSchema::try_from(rows.schema())?;
            let (props, planning) = (ExecutionProps::new(), PhysicalPlanningContext::default());
            let passes = create_physical_expr(&condition, &schema, &props, &planning)?;
            let passes = passes.evaluate(rows)?.into_array(rows.num_rows())?;
            Ok(filter_record_batch(rows, as_boolean_array(&passes)?)?)
        };
        passing().map_err(query_error(doing))
    }
}

/// A condition over the columns of panes, however the statement calls the relation.
fn in_panes(condition: &Expr) -> Planned<Expr> {
    let named = condition.clone().transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => {
                let name = match column.name.as_str() {
                    CUSTOMER => SUBJECT.to_owned(),
                    _ => column.name,
                };
                Transformed::yes(Expr::Column(Column::new_unqualified(name)))
            }
            other => Transformed::no(other),
        })
    });
    Ok(named?.data)
}

fn with_errors(condition: &Expr) -> Expr {
    match is_of_subject(condition) {
        true => condition.clone(),
        false => {
            let error = Expr::Column(Column::new_unqualified(ERROR));
            condition.clone().or(error.is_not_null())
        }
    }
}

fn is_of_subject(condition: &Expr) -> bool {
    let mut columns = condition.column_refs().into_iter();
    columns.all(|column| column.name == SUBJECT)
}

/// Whether a condition has an answer for every value. It is evaluated on rows that the statement does not see, such as
/// late usage that does not count, on which nothing may fail.
fn never_fails(condition: &Expr) -> bool {
    let is_value = |expr: &Expr| matches!(expr, Expr::Column(_) | Expr::Literal(..));
    match condition {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And | Operator::Or => never_fails(left) && never_fails(right),
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => is_value(left) && is_value(right),
            _ => false,
        },
        Expr::InList(list) => is_value(&list.expr) && list.list.iter().all(is_value),
        Expr::Like(like) => {
            let is_plain = like.escape_char.is_none() && matches!(*like.pattern, Expr::Literal(..));
            is_plain && is_value(&like.expr)
        }
        Expr::Not(of)
        | Expr::IsNull(of)
        | Expr::IsNotNull(of)
        | Expr::IsTrue(of)
        | Expr::IsFalse(of)
        | Expr::IsUnknown(of)
        | Expr::IsNotTrue(of)
        | Expr::IsNotFalse(of)
        | Expr::IsNotUnknown(of) => never_fails(of),
        _ => false,
    }
}
