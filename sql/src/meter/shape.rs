//! A meter's query as a logical plan: checked, and rebuilt with the window as its first key.

use super::{
    calls,
    syntax::{self, refused},
    window,
};
use crate::{
    aggregates,
    definitions::MeterDefinition,
    error::{Error, Result},
    session::arithmetic,
};
use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column, Result as PlanResult, internal_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Projection, Volatility,
        expr::{AggregateFunction, ScalarFunction},
        utils::merge_schema,
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// The window key inside a plan, where columns of events may have any name.
const WINDOW_KEY: &str = "__tollgate_window";

/// Columns that a pane has besides those of the query.
const RESERVED: &[&str] = &[
    "window_start",
    "window_end",
    "pane",
    "shard",
    "cut",
    "meter_version",
    "closed_at",
    "late",
    "customer",
];

/// What separates a measure's name from the number of a state column.
pub(super) const STATE_MARK: &str = "__state";

/// A checked query: what its columns are, and the two plans that are made of it.
#[derive(Debug)]
pub(super) struct Shape {
    /// Output names of the group keys: `subject`, then the dimensions as selected.
    pub(super) keys: Vec<String>,
    /// The measures, as selected.
    pub(super) measures: Vec<Measure>,
    /// How states become the measures.
    pub(super) finishing: Finishing,
    /// Grouped by window, then the keys; returns `window_start`, the keys and the measures.
    pub(super) per_window: LogicalPlan,
    /// Grouped by the keys alone; returns the keys and the measures.
    pub(super) in_total: LogicalPlan,
}

/// How states become measures: each aggregate apart from the values that it takes, then what is made of
/// them. Queries that agree in this differ only in what they aggregate.
pub(super) type Finishing = Vec<String>;

/// A column made of aggregates.
#[derive(Debug)]
pub(super) struct Measure {
    /// Its name.
    pub(super) name: String,
    /// Which aggregates it is made of, by index.
    pub(super) aggregates: BTreeSet<usize>,
    /// Whether it is one aggregate and nothing else.
    pub(super) plain: bool,
    expr: Expr,
}

/// A column that is a group key.
struct Key {
    name: String,
    group_expr: Expr,
    column: Column,
}

/// Checks a planned query and rebuilds it.
///
/// # Errors
/// [`Error::Definition`] with the construct that a meter cannot have.
pub(super) fn shape(definition: &MeterDefinition, plan: &LogicalPlan) -> Result<Shape> {
    let (projection, aggregate) = take_apart(definition, plan)?;
    check_source(definition, &aggregate.input)?;
    check_determinism(definition, plan)?;
    let (keys, measures) = classify(definition, projection, aggregate)?;
    check_names(definition, &keys, &measures)?;
    let planning = |source: DataFusionError| plan_error(definition, source);
    let per_window = rebuild(aggregate, &keys, &measures, Some(definition.window_us));
    Ok(Shape {
        finishing: finishing(aggregate, &measures).map_err(planning)?,
        per_window: per_window.map_err(planning)?,
        in_total: rebuild(aggregate, &keys, &measures, None).map_err(planning)?,
        keys: keys.into_iter().map(|key| key.name).collect(),
        measures,
    })
}

/// What DataFusion says about a query, with the place if it knows it.
pub(super) fn plan_error(definition: &MeterDefinition, source: DataFusionError) -> Error {
    match source.diagnostic() {
        Some(diagnostic) => {
            let start = diagnostic
                .span
                .map_or((0, 0), |span| (span.start.line, span.start.column));
            let help = diagnostic.helps.first().map(|help| help.message.as_str());
            let hint = help.unwrap_or("check the names and types in the query");
            refused(definition, &diagnostic.message, start, hint)
        }
        None => refused_call(definition, &source).unwrap_or_else(|| Error::PlanMeter {
            meter: definition.name.clone(),
            at: definition.at.clone(),
            source: Box::new(source),
        }),
    }
}

/// The error of an aggregate that does not take what it is given.
fn refused_call(definition: &MeterDefinition, source: &DataFusionError) -> Option<Error> {
    let query = syntax::parse(definition).ok()?;
    let (problem, place, hint) = calls::refused(&query, &source.to_string())?;
    Some(refused(definition, &problem, place, &hint))
}

fn take_apart<'a>(
    definition: &MeterDefinition,
    plan: &'a LogicalPlan,
) -> Result<(&'a Projection, &'a Aggregate)> {
    if let LogicalPlan::Projection(projection) = plan
        && let LogicalPlan::Aggregate(aggregate) = &*projection.input
    {
        return Ok((projection, aggregate));
    }
    let problem = "the query is not one SELECT with GROUP BY";
    let hint = "write SELECT subject, …, SUM(…) AS … FROM … GROUP BY subject, …";
    Err(refused(definition, problem, (0, 0), hint))
}

/// Below the aggregate there may be filters and the events, nothing else.
fn check_source(definition: &MeterDefinition, input: &LogicalPlan) -> Result<()> {
    match input {
        LogicalPlan::TableScan(_) => Ok(()),
        LogicalPlan::Filter(filter) => check_source(definition, &filter.input),
        LogicalPlan::SubqueryAlias(alias) => check_source(definition, &alias.input),
        other => {
            let problem = format!("the query needs `{}`", other.display());
            let hint = "aggregate one event type, with WHERE at most";
            Err(refused(definition, &problem, (0, 0), hint))
        }
    }
}

/// A construct and what to write instead.
pub(crate) type Found = Option<(String, &'static str)>;

/// Refuses whatever could make two evaluations of the same events differ.
fn check_determinism(definition: &MeterDefinition, plan: &LogicalPlan) -> Result<()> {
    check_each(definition, plan, |expr, _| Ok(nondeterministic(expr)))
}

/// Refuses floating-point values and inexact operators in a plan whose types are settled.
pub(super) fn check_types(definition: &MeterDefinition, analysed: &LogicalPlan) -> Result<()> {
    check_each(definition, analysed, inexact)
}

/// A floating-point value, an inexact operator, or an aggregate that is a list.
pub(crate) fn inexact(expr: &Expr, node: &LogicalPlan) -> PlanResult<Found> {
    let schema = merge_schema(&node.inputs());
    let data_type = expr.get_type(&schema)?;
    if data_type.is_floating() {
        let hint = "declare the column, or cast it, as DECIMAL(p, s)";
        return Ok(Some((format!("`{expr}` is floating point"), hint)));
    }
    match expr {
        Expr::AggregateFunction(_) if data_type.is_list() => {
            let hint = "measure its length or an element, such as MAX(array_length(tags))";
            Ok(Some((format!("`{expr}` is a list"), hint)))
        }
        Expr::BinaryExpr(BinaryExpr { op, .. })
            if arithmetic::is_arithmetic(*op) && arithmetic::is_exact(&data_type) =>
        {
            let hint = "cast both sides to DECIMAL(p, s)";
            Ok(Some((format!("`{expr}` is not exact"), hint)))
        }
        _ => Ok(None),
    }
}

fn check_each(
    definition: &MeterDefinition,
    plan: &LogicalPlan,
    check: impl Fn(&Expr, &LogicalPlan) -> PlanResult<Found>,
) -> Result<()> {
    match first_found(plan, check).map_err(|error| plan_error(definition, error))? {
        Some((problem, hint)) => Err(refused(definition, &problem, (0, 0), hint)),
        None => Ok(()),
    }
}

/// What a check finds first among all expressions of a plan.
pub(crate) fn first_found(
    plan: &LogicalPlan,
    check: impl Fn(&Expr, &LogicalPlan) -> PlanResult<Found>,
) -> PlanResult<Found> {
    let mut found: Found = None;
    plan.apply(|node| {
        node.apply_expressions(|root| {
            root.apply(|expr| {
                found = check(expr, node)?;
                Ok(match found {
                    Some(_) => TreeNodeRecursion::Stop,
                    None => TreeNodeRecursion::Continue,
                })
            })
        })
    })?;
    Ok(found)
}

/// Whatever could make two evaluations of the same events differ.
pub(crate) fn nondeterministic(expr: &Expr) -> Found {
    match expr {
        Expr::AggregateFunction(function) => unmetered(function),
        Expr::ScalarFunction(function) => changing(function),
        Expr::WindowFunction(_) => Some((
            format!("`{expr}` is a window function"),
            "use a plain aggregate",
        )),
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
            Some(("it has a sub-query".to_owned(), "join in the price"))
        }
        Expr::GroupingSet(_) => Some((
            format!("`{expr}` groups in several ways"),
            "list the keys: GROUP BY subject, …",
        )),
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => Some((
            format!("`{expr}` has no fixed value"),
            "write the value itself",
        )),
        _ => None,
    }
}

fn unmetered(function: &AggregateFunction) -> Found {
    let name = function.func.name();
    let params = &function.params;
    if !aggregates::METERED.contains(&name) {
        let hint =
            "docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …";
        return Some((format!("the aggregate `{name}` is not for meters"), hint));
    }
    if params.distinct {
        let hint = "count or sum all values";
        return Some((format!("`{name}` has DISTINCT"), hint));
    }
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        let hint = "leave the order out; the result does not depend on it";
        return Some((
            format!("`{name}` has an order or a treatment of NULL"),
            hint,
        ));
    }
    None
}

fn changing(function: &ScalarFunction) -> Found {
    let signature = function.func.signature();
    (signature.volatility != Volatility::Immutable).then(|| {
        let problem = format!("`{}` does not always return the same", function.name());
        (
            problem,
            "use `event_time` for time, and columns of the event",
        )
    })
}

fn classify(
    definition: &MeterDefinition,
    projection: &Projection,
    aggregate: &Aggregate,
) -> Result<(Vec<Key>, Vec<Measure>)> {
    let (mut keys, mut measures) = (Vec::new(), Vec::new());
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let name = field.name().clone();
        let inner = expr.clone().unalias_nested().data;
        match key_index(&inner, aggregate) {
            Some(index) => keys.push(Key {
                name,
                group_expr: aggregate.group_expr[index].clone(),
                column: Column::from(aggregate.schema.qualified_field(index)),
            }),
            None => measures.push(measure(definition, name, inner, aggregate)?),
        }
    }
    check_keys(definition, &mut keys, aggregate)?;
    if measures.is_empty() {
        let hint = "add one, such as COUNT(*) AS events";
        return Err(refused(definition, "it has no measure", (0, 0), hint));
    }
    Ok((keys, measures))
}

fn finishing(aggregate: &Aggregate, measures: &[Measure]) -> PlanResult<Finishing> {
    let mut lines = Vec::new();
    for expr in &aggregate.aggr_expr {
        let Expr::AggregateFunction(function) = expr.clone().unalias_nested().data else {
            return internal_err!("`{expr}` is no aggregate");
        };
        let arguments = function.params.args.iter();
        let fixed = arguments.filter(|argument| matches!(argument, Expr::Literal(..)));
        let fixed: Vec<String> = fixed.map(ToString::to_string).collect();
        lines.push(format!("{} {}", function.func.name(), fixed.join(" ")));
    }
    for measure in measures {
        let expr = measure.expr.clone().transform(|expr| {
            Ok(match column_index(&expr, aggregate) {
                Some(index) => {
                    let place = Column::new_unqualified(format!("#{index}"));
                    Transformed::yes(Expr::Column(place))
                }
                None => Transformed::no(expr),
            })
        });
        lines.push(format!("{} = {}", measure.name, expr?.data));
    }
    Ok(lines)
}

fn column_index(expr: &Expr, aggregate: &Aggregate) -> Option<usize> {
    match expr {
        Expr::Column(column) => aggregate.schema.maybe_index_of_column(column),
        _ => None,
    }
}

fn key_index(expr: &Expr, aggregate: &Aggregate) -> Option<usize> {
    column_index(expr, aggregate).filter(|index| *index < aggregate.group_expr.len())
}

fn measure(
    definition: &MeterDefinition,
    name: String,
    expr: Expr,
    aggregate: &Aggregate,
) -> Result<Measure> {
    let key_count = aggregate.group_expr.len();
    let columns = expr.column_refs().into_iter();
    let aggregates: BTreeSet<usize> = columns
        .filter_map(|column| aggregate.schema.maybe_index_of_column(column))
        .filter_map(|index| index.checked_sub(key_count))
        .collect();
    if aggregates.is_empty() {
        let problem = format!("`{name}` is neither a group key nor made of aggregates");
        let hint = "put the whole expression into GROUP BY, or aggregate it";
        return Err(refused(definition, &problem, (0, 0), hint));
    }
    Ok(Measure {
        plain: matches!(expr, Expr::Column(_)),
        name,
        aggregates,
        expr,
    })
}

/// Every key is selected once, and `subject` is one of them; it comes first.
fn check_keys(definition: &MeterDefinition, keys: &mut [Key], aggregate: &Aggregate) -> Result<()> {
    let is_subject = |key: &Key| {
        key.name == "subject"
            && matches!(&key.group_expr, Expr::Column(column) if column.name == "subject")
    };
    let Some(place) = keys.iter().position(is_subject) else {
        let problem = "`subject` is not both selected and in GROUP BY";
        let hint = "write SELECT subject, … GROUP BY subject, …: usage belongs to someone";
        return Err(refused(definition, problem, (0, 0), hint));
    };
    keys[..=place].rotate_right(1);
    for (index, group_expr) in aggregate.group_expr.iter().enumerate() {
        let column = Column::from(aggregate.schema.qualified_field(index));
        let (_, field) = aggregate.schema.qualified_field(index);
        if let DataType::List(_) = field.data_type() {
            let problem = format!("the group key `{group_expr}` is a list");
            let hint = "group by a text made of it, such as array_to_string(tags, ','), or by one of its elements";
            return Err(refused(definition, &problem, (0, 0), hint));
        }
        let selected = keys.iter().filter(|key| key.column == column).count();
        if selected != 1 {
            let problem = format!("the group key `{group_expr}` is selected {selected} times");
            let hint = "select each group key once: rows would not be told apart";
            return Err(refused(definition, &problem, (0, 0), hint));
        }
    }
    Ok(())
}

fn check_names(definition: &MeterDefinition, keys: &[Key], measures: &[Measure]) -> Result<()> {
    let keys = keys.iter().map(|key| &key.name);
    let names = keys.chain(measures.iter().map(|measure| &measure.name));
    let mut seen = BTreeSet::new();
    for name in names {
        let folded = name.to_ascii_lowercase();
        let problem = if RESERVED.contains(&folded.as_str()) || folded.contains(STATE_MARK) {
            format!("the column name `{name}` is taken")
        } else if !is_plain_name(name) {
            format!("`{name}` needs a name")
        } else if !seen.insert(folded) {
            format!("the column name `{name}` is given twice")
        } else {
            continue;
        };
        let hint = "name the column with AS: letters, digits and `_`";
        return Err(refused(definition, &problem, (0, 0), hint));
    }
    Ok(())
}

fn is_plain_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The query with its keys in our order, after the window if there is one.
fn rebuild(
    aggregate: &Aggregate,
    keys: &[Key],
    measures: &[Measure],
    window_us: Option<i64>,
) -> PlanResult<LogicalPlan> {
    let mut group_exprs = Vec::new();
    let mut columns = Vec::new();
    if let Some(width_us) = window_us {
        let time = aggregate.input.schema();
        let time = time.qualified_field_with_unqualified_name("event_time")?;
        let start = window::window_start(width_us).call(vec![Expr::Column(Column::from(time))]);
        group_exprs.push(start.alias(WINDOW_KEY));
        columns.push(Expr::Column(Column::new_unqualified(WINDOW_KEY)).alias("window_start"));
    }
    group_exprs.extend(keys.iter().map(|key| key.group_expr.clone()));
    columns.extend(
        keys.iter()
            .map(|key| Expr::Column(key.column.clone()).alias(&key.name)),
    );
    columns.extend(measures.iter().map(|m| m.expr.clone().alias(&m.name)));
    let input = Arc::clone(&aggregate.input);
    let grouped = Aggregate::try_new(input, group_exprs, aggregate.aggr_expr.clone())?;
    let grouped = Arc::new(LogicalPlan::Aggregate(grouped));
    Ok(LogicalPlan::Projection(Projection::try_new(
        columns, grouped,
    )?))
}
