//! Calls of aggregates, as they are written: what is refused, and what a meter supplies.
//!
//! `latest(x)` needs the place of each event, `time_weighted_sum(x)` its window. A meter knows both,
//! so they are added to the arguments before the query is planned.

use crate::aggregates::METERED;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, Spanned, Statement, Value, Visit,
    visit_expressions, visit_expressions_mut,
};
use std::{convert::Infallible, ops::ControlFlow};

/// What an aggregate is given beside its own arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Supplied {
    Nothing,
    /// `event_time, sequence, ordinal, shard`.
    Place,
    /// `event_time`, and the width of a window in microseconds.
    Window,
}

/// Name, own arguments as they are written, and what is supplied.
const CALLS: &[(&str, &[&str], Supplied)] = &[
    ("avg", &["x"], Supplied::Nothing),
    ("count_distinct", &["x"], Supplied::Nothing),
    ("first", &["x"], Supplied::Place),
    ("latest", &["x"], Supplied::Place),
    ("percentile", &["x", "0.95"], Supplied::Nothing),
    ("percentile_cont", &["x", "0.95"], Supplied::Nothing),
    ("median", &["x"], Supplied::Nothing),
    ("time_weighted_sum", &["x"], Supplied::Window),
    ("time_weighted_avg", &["x"], Supplied::Window),
    ("prorated_sum", &["x"], Supplied::Window),
    ("unique_count", &["x", "adds"], Supplied::Place),
    ("prorated_unique_count", &["x", "adds"], Supplied::Place),
];

/// The construct that a meter cannot have in this call, and what to write instead.
pub(super) fn check(function: &Function) -> Option<(String, String)> {
    let name = name_of(function);
    let arguments = arguments(function)?;
    let treats_null = |clause: &FunctionArgumentClause| {
        matches!(clause, FunctionArgumentClause::IgnoreOrRespectNulls(_))
    };
    if function.null_treatment.is_some() || arguments.clauses.iter().any(treats_null) {
        let hint = "leave it out: NULL is no value, and counts for nothing";
        return Some((format!("a treatment of NULL in `{name}`"), hint.to_owned()));
    }
    let distinct = is_distinct(function);
    if distinct && name != "count" {
        let hint = "COUNT(DISTINCT x) counts distinct values; nothing else takes DISTINCT";
        return Some((format!("DISTINCT in `{name}`"), hint.to_owned()));
    }
    if distinct && arguments.args.len() != 1 {
        let construct = format!("COUNT(DISTINCT …) of {} values", arguments.args.len());
        return Some((
            construct,
            "count one expression: COUNT(DISTINCT x)".to_owned(),
        ));
    }
    let (_, own, _) = CALLS.iter().find(|(known, _, _)| *known == name)?;
    if arguments.args.len() != own.len() {
        let construct = format!("`{name}` of {} values", arguments.args.len());
        return Some((construct, format!("write {name}({})", own.join(", "))));
    }
    if own.last() == Some(&"0.95") && !is_fraction(&arguments.args[1]) {
        let construct = format!("`{name}` with `{}`", arguments.args[1]);
        let hint = "write a number from 0 to 1 of at most 9 digits, such as 0.95";
        return Some((construct, hint.to_owned()));
    }
    None
}

/// An aggregate that refuses the types of its arguments: what it says, where the first call by that name
/// is, and the way out. `said` is the error of planning.
pub(super) fn refused(query: &Statement, said: &str) -> Option<(String, (u64, u64), String)> {
    let refusal_of = |name: &&str| {
        let refusals = ["does not take", "takes", "would have"].into_iter();
        let mut places = refusals.filter_map(|verb| said.find(&format!("{name} {verb} ")));
        places.next().map(|at| (name.len(), &said[at..]))
    };
    // The longest name: `sum does not take` is in `prorated_sum does not take` too.
    let (name_bytes, refusal) = METERED.iter().filter_map(refusal_of).max()?;
    let name = &refusal[..name_bytes];
    let refusal = refusal.split(". No function matches").next()?;
    let (problem, hint) = refusal
        .rsplit_once(": ")
        .unwrap_or((refusal, "docs/meters.md shows how it is called"));
    let mut place = None;
    each_expression(query, |expr| {
        if place.is_none() && name_in(expr).as_deref() == Some(name) {
            place = Some(expr.span().start);
        }
    });
    let place = place.map(|start| (start.line, start.column));
    Some((
        problem.to_owned(),
        place.unwrap_or_default(),
        hint.to_owned(),
    ))
}

/// Looks at each expression, outer ones before those within.
pub(crate) fn each_expression(node: &impl Visit, mut see: impl FnMut(&Expr)) {
    // The visitor is never told to stop.
    let ControlFlow::Continue(()) = visit_expressions(node, |expr| {
        see(expr);
        ControlFlow::<Infallible>::Continue(())
    });
}

/// Adds what each call needs besides its own arguments.
pub(super) fn supply(statement: &mut Statement, window_us: i64) {
    // The visitor is never told to stop.
    let ControlFlow::Continue(()) = visit_expressions_mut(statement, |expr| {
        if let Expr::Function(function) = expr {
            let name = name_of(function);
            let supplied = CALLS.iter().find(|(known, _, _)| *known == name);
            if let (Some((_, _, supplied)), FunctionArguments::List(arguments)) =
                (supplied, &mut function.args)
            {
                arguments.args.extend(supplied.arguments(window_us));
            }
        }
        ControlFlow::<Infallible>::Continue(())
    });
}

/// Writes `count(DISTINCT x)` as the aggregate that keeps its values as state.
pub(super) fn count_distinct(statement: &mut Statement) {
    let ControlFlow::Continue(()) = visit_expressions_mut(statement, |expr| {
        if let Expr::Function(function) = expr
            && let FunctionArguments::List(arguments) = &mut function.args
            && arguments.duplicate_treatment == Some(DuplicateTreatment::Distinct)
        {
            arguments.duplicate_treatment = None;
            function.name = ObjectName::from(vec![Ident::new("count_distinct")]);
        }
        ControlFlow::<Infallible>::Continue(())
    });
}

impl Supplied {
    fn arguments(self, window_us: i64) -> Vec<FunctionArg> {
        let column = |name| Expr::Identifier(Ident::new(name));
        let arguments = match self {
            Supplied::Nothing => Vec::new(),
            Supplied::Place => ["event_time", "sequence", "ordinal", "shard"]
                .map(column)
                .to_vec(),
            Supplied::Window => {
                let width = Value::Number(window_us.to_string(), false);
                vec![column("event_time"), Expr::value(width)]
            }
        };
        let unnamed = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
        arguments.into_iter().map(unnamed).collect()
    }
}

pub(super) fn is_distinct(function: &Function) -> bool {
    arguments(function).is_some_and(|arguments| {
        arguments.duplicate_treatment == Some(DuplicateTreatment::Distinct)
    })
}

pub(super) fn name_of(function: &Function) -> String {
    function.name.to_string().to_ascii_lowercase()
}

/// The name under which a call is planned.
pub(super) fn planned_name(function: &Function) -> String {
    match name_of(function) {
        name if name == "count" && is_distinct(function) => "count_distinct".to_owned(),
        name => name,
    }
}

/// The name of a function or operator, as planning has it.
pub(crate) fn name_in(expr: &Expr) -> Option<String> {
    let name = match expr {
        Expr::Function(call) => return Some(planned_name(call)),
        Expr::BinaryOp { op, .. } => return Some(op.to_string()),
        Expr::Ceil { .. } => "ceil",
        Expr::Floor { .. } => "floor",
        Expr::Substring { .. } => "substr",
        Expr::Trim { .. } => "btrim",
        Expr::Position { .. } => "strpos",
        Expr::Extract { .. } => "date_part",
        _ => return None,
    };
    Some(name.to_owned())
}

/// Whether it is an aggregate that a meter may use.
pub(super) fn is_aggregate(function: &Function) -> bool {
    METERED.contains(&planned_name(function).as_str())
}

fn arguments(function: &Function) -> Option<&FunctionArgumentList> {
    match &function.args {
        FunctionArguments::List(arguments) => Some(arguments),
        FunctionArguments::None | FunctionArguments::Subquery(_) => None,
    }
}

/// Whether it is a number from 0 to 1 with at most 9 digits after the point, written out.
fn is_fraction(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument else {
        return false;
    };
    let Value::Number(text, _) = &value.value else {
        return false;
    };
    let number = crate::money::Exact::parse(text);
    number.is_ok_and(|number| number.scale <= 9 && number <= 1_i64.into())
}
