//! A meter's query as a logical plan: checked, and rebuilt with the window as its first key.

use super::{
    calls, constants,
    syntax::{self, Place, START, refused},
    window,
};
use crate::{
    aggregates::fault::fault,
    datafusion_messages::{self, Said},
    definitions::{Frame, MeterDefinition},
    error::{Error, Result},
    purity::{Found, first_found, inexact, nondeterministic},
    unplanned::of_schema,
};
use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column, Result as PlanResult, SchemaError, internal_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    execution::SessionState,
    functions_aggregate::expr_fn::max,
    logical_expr::{Aggregate, Expr, LogicalPlan, Projection},
};
use std::{cell::Cell, collections::BTreeSet, sync::Arc};

/// The window key inside a plan, where columns of events may have any name.
const WINDOW_KEY: &str = "__tollgate_window";

/// The end of a window or session, in a pane.
pub(super) const WINDOW_END: &str = "window_end";

/// The column of panes, rows and totals that says why a row has no values; NULL where it has.
pub const ERROR: &str = "error";

/// Columns that a pane has besides those of the query.
const RESERVED: &[&str] = &[
    "window_start",
    WINDOW_END,
    ERROR,
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
    /// What is made of base windows.
    pub(super) frame: Frame,
    /// The measures, as selected; then `error` and, for sessions, `window_end`.
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
    /// Its place among what is selected.
    item: usize,
    /// Which aggregates it is made of, by index.
    pub(super) aggregates: BTreeSet<usize>,
    /// Whether it is one aggregate and nothing else.
    pub(super) plain: bool,
    expr: Expr,
}

/// A column that is a group key.
struct Key {
    name: String,
    /// Its place among what is selected.
    item: usize,
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
    let finishing = finishing(aggregate, &measures).map_err(planning)?;
    let mut measures = measures;
    let of_fault = fault().call(vec![event_time(aggregate).map_err(planning)?]);
    let (mut aggregate, error) = with_hidden(aggregate, of_fault, ERROR).map_err(planning)?;
    measures.push(error);
    let window_us = match definition.frame {
        Frame::Tumbling | Frame::Hopping { .. } => definition.window_us,
        // Each instant by itself: which of them are one session is seen when they are put together.
        Frame::Session { gap_us } => {
            let (with_end, end) = session_end(&aggregate, gap_us).map_err(planning)?;
            aggregate = with_end;
            measures.push(end);
            1
        }
    };
    let per_window = rebuild(&aggregate, &keys, &measures, Some(window_us));
    Ok(Shape {
        finishing,
        per_window: per_window.map_err(planning)?,
        in_total: rebuild(&aggregate, &keys, &measures, None).map_err(planning)?,
        frame: definition.frame,
        keys: keys.into_iter().map(|key| key.name).collect(),
        measures,
    })
}

/// What DataFusion says about a query, with the place if it knows it.
pub(super) fn plan_error(definition: &MeterDefinition, source: DataFusionError) -> Error {
    match source.diagnostic() {
        Some(diagnostic) => {
            let start = match &diagnostic.span {
                Some(span) => (span.start.line, span.start.column),
                None => place_of_call_in(definition, &diagnostic.message),
            };
            if let DataFusionError::SchemaError(error, _) = source.find_root()
                && let Some((problem, hint)) = of_schema(&definition.query, error)
            {
                return refused(definition, &problem, start, &hint);
            }
            let (problem, hint) = problem_of(&diagnostic.message);
            refused(definition, &problem, start, hint)
        }
        None => refused_call(definition, &source)
            .or_else(|| refused_types(definition, &source))
            .or_else(|| refused_twin(definition, &source))
            .or_else(|| refused_query(definition, &source))
            .unwrap_or_else(|| Error::PlanMeter {
                meter: definition.name.clone(),
                at: definition.at.clone(),
                source: Box::new(source),
            }),
    }
}

/// What else DataFusion does not take, in its words.
fn refused_query(definition: &MeterDefinition, source: &DataFusionError) -> Option<Error> {
    let hint = "docs/meters.md shows what a meter may be";
    let message = match source.find_root() {
        DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => {
            message.clone()
        }
        DataFusionError::SchemaError(error, _) => error.to_string(),
        _ => return None,
    };
    match Said::of(&message) {
        Said::NoCondition => {
            let problem = "the condition of WHERE is neither true nor false";
            let place = syntax::place_of_where(definition);
            let hint = "compare it with something";
            Some(refused(definition, problem, place, hint))
        }
        Said::NoOrdinal(ordinal) => {
            let problem = format!("there is no column {ordinal} in SELECT");
            let place = syntax::place_of_written_key(definition, ordinal);
            Some(refused(definition, &problem, place, "group by a name"))
        }
        _ => Some(refused(definition, &message, START, hint)),
    }
}

/// A problem without what only DataFusion's authors understand, and the way out. Its own help names aggregates that are
/// not for meters.
fn problem_of(message: &str) -> (String, &'static str) {
    match Said::of(message) {
        Said::NoSuchCall(name) => (
            format!("`{name}` does not take what it is given"),
            "check how many values it takes, and their types; docs/meters.md has the aggregates",
        ),
        Said::NotGrouped => (
            format!(
                "`{}` is neither in GROUP BY nor aggregated",
                message.split('\'').nth(1).unwrap_or_default()
            ),
            "put it into GROUP BY, or aggregate it",
        ),
        _ => (message.to_owned(), "check the names and types in the query"),
    }
}

/// Where the function is that a message of DataFusion names.
fn place_of_call_in(definition: &MeterDefinition, message: &str) -> Place {
    let name = datafusion_messages::function_in(message);
    let place = name.and_then(|name| syntax::place_of(definition, &[name]));
    place.unwrap_or(START)
}

/// The error of an operator or a function that does not take what it is given.
fn refused_types(definition: &MeterDefinition, source: &DataFusionError) -> Option<Error> {
    let DataFusionError::Plan(message) = source.find_root() else {
        return None;
    };
    match Said::of(message) {
        Said::NoSuchCall(_) => {
            let (problem, hint) = problem_of(message);
            let place = place_of_call_in(definition, message);
            return Some(refused(definition, &problem, place, hint));
        }
        Said::TooFine => {
            let problem = "a product has more than 38 digits after the point";
            let hint = "declare a factor with fewer digits after the point; a cast to DECIMAL(p, s) rounds each value";
            let place = syntax::place_of(definition, &["*"]).unwrap_or(START);
            return Some(refused(definition, problem, place, hint));
        }
        _ => {}
    }
    // Ours: what is refused in backticks, and the way out.
    let (problem, hint) = message.split_once(": ")?;
    let operator = problem.strip_prefix('`')?.split('`').next()?;
    let place = syntax::place_of(definition, &[operator]).unwrap_or(START);
    Some(refused(definition, problem, place, hint))
}

/// The error of two aggregates of one name. DataFusion leaves casts out of names.
fn refused_twin(definition: &MeterDefinition, source: &DataFusionError) -> Option<Error> {
    let DataFusionError::SchemaError(error, _) = source.find_root() else {
        return None;
    };
    let SchemaError::DuplicateUnqualifiedField { name } = &**error else {
        return None;
    };
    let place = syntax::place_of_twin(definition)?;
    let problem = format!("two expressions, both `{name}`, differ in a cast alone");
    let hint = "make another expression of one of them: cast(x …) + 0, or cast(x …) || '' for text";
    Some(refused(definition, &problem, place, hint))
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
    Err(refused(definition, problem, START, hint))
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
            Err(refused(definition, &problem, START, hint))
        }
    }
}

/// Refuses whatever could make two evaluations of the same events differ.
fn check_determinism(definition: &MeterDefinition, plan: &LogicalPlan) -> Result<()> {
    check_each(definition, plan, |expr, _| Ok(nondeterministic(expr)))
}

/// Refuses floating-point values and inexact operators in a plan whose types are settled.
pub(super) fn check_types(definition: &MeterDefinition, analysed: &LogicalPlan) -> Result<()> {
    check_each(definition, analysed, inexact)
}

/// Refuses what fails whatever an event says, in a plan whose types are settled.
pub(super) fn check_constants(
    definition: &MeterDefinition,
    state: &SessionState,
    analysed: &LogicalPlan,
) -> Result<()> {
    check_each(definition, analysed, |expr, node| {
        constants::failing(state, expr, node)
    })
}

fn check_each(
    definition: &MeterDefinition,
    plan: &LogicalPlan,
    check: impl Fn(&Expr, &LogicalPlan) -> PlanResult<Found>,
) -> Result<()> {
    let place = Cell::new(START);
    let found = first_found(plan, |expr, node| {
        let found = check(expr, node)?;
        if found.is_some() {
            place.set(place_of(definition, expr));
        }
        Ok(found)
    });
    match found.map_err(|error| plan_error(definition, error))? {
        Some((problem, hint)) => Err(refused(definition, &problem, place.get(), hint)),
        None => Ok(()),
    }
}

/// Where an expression is in the query: its call, the first column in it, or the same text.
fn place_of(definition: &MeterDefinition, expr: &Expr) -> Place {
    let mut column = None;
    let walked = expr.apply(|part| {
        if let Expr::Column(part) = part {
            column = column.or(part.spans.first().map(|span| span.start));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let column = column.filter(|_| walked.is_ok());
    let column = column.map(|start| (start.line, start.column));
    let (name, aliases) = match expr {
        Expr::AggregateFunction(call) => (call.func.name(), call.func.aliases()),
        Expr::ScalarFunction(call) => (call.func.name(), call.func.aliases()),
        Expr::Alias(alias) => {
            let item = syntax::place_of_alias(definition, &alias.name);
            return item.unwrap_or_else(|| place_of(definition, &alias.expr));
        }
        _ => {
            let written = || syntax::place_of(definition, &[&expr.to_string()]);
            return column.or_else(written).unwrap_or(START);
        }
    };
    let aliases = aliases.iter().map(String::as_str);
    let names: Vec<&str> = aliases.chain([name]).collect();
    let called = syntax::place_of(definition, &names);
    called.or(column).unwrap_or(START)
}

fn classify(
    definition: &MeterDefinition,
    projection: &Projection,
    aggregate: &Aggregate,
) -> Result<(Vec<Key>, Vec<Measure>)> {
    let (mut keys, mut measures) = (Vec::new(), Vec::new());
    let selected = projection.expr.iter().zip(projection.schema.fields());
    for (item, (expr, field)) in selected.enumerate() {
        let name = field.name().clone();
        let inner = expr.clone().unalias_nested().data;
        match key_index(&inner, aggregate) {
            Some(index) => keys.push(Key {
                name,
                item,
                group_expr: aggregate.group_expr[index].clone(),
                column: Column::from(aggregate.schema.qualified_field(index)),
            }),
            None => measures.push(measure(definition, (item, name), inner, aggregate)?),
        }
    }
    check_keys(definition, &mut keys, aggregate)?;
    if measures.is_empty() {
        let hint = "add one, such as COUNT(*) AS events";
        return Err(refused(definition, "it has no measure", START, hint));
    }
    Ok((keys, measures))
}

/// Adds the end of a session as the last aggregate.
fn session_end(aggregate: &Aggregate, gap_us: i64) -> PlanResult<(Aggregate, Measure)> {
    let end = window::session_end(gap_us).call(vec![event_time(aggregate)?]);
    with_hidden(aggregate, max(end), WINDOW_END)
}

/// Adds an aggregate that the query did not select.
fn with_hidden(
    aggregate: &Aggregate,
    hidden: Expr,
    name: &str,
) -> PlanResult<(Aggregate, Measure)> {
    let mut aggregates = aggregate.aggr_expr.clone();
    aggregates.push(hidden);
    let place = aggregates.len() - 1;
    let groups = aggregate.group_expr.clone();
    let aggregate = Aggregate::try_new(Arc::clone(&aggregate.input), groups, aggregates)?;
    let column = aggregate.schema.fields().len() - 1;
    let column = Column::from(aggregate.schema.qualified_field(column));
    let measure = Measure {
        name: name.to_owned(),
        // The query did not select it.
        item: usize::MAX,
        aggregates: BTreeSet::from([place]),
        plain: true,
        expr: Expr::Column(column),
    };
    Ok((aggregate, measure))
}

fn event_time(aggregate: &Aggregate) -> PlanResult<Expr> {
    let time = aggregate.input.schema();
    let time = time.qualified_field_with_unqualified_name("event_time")?;
    Ok(Expr::Column(Column::from(time)))
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
    (item, name): (usize, String),
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
        let place = syntax::place_of_item(definition, item);
        return Err(refused(definition, &problem, place, hint));
    }
    Ok(Measure {
        item,
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
        return Err(refused(definition, problem, START, hint));
    };
    keys[..=place].rotate_right(1);
    for (index, group_expr) in aggregate.group_expr.iter().enumerate() {
        let column = Column::from(aggregate.schema.qualified_field(index));
        let (_, field) = aggregate.schema.qualified_field(index);
        if let DataType::List(_) = field.data_type() {
            let problem = format!("the group key `{group_expr}` is a list");
            let hint = "group by one of its elements, such as tags[1]; array_to_string(tags, ',') is one text for two lists if an element has a comma or is missing";
            let place = syntax::place_of_key(definition, index);
            return Err(refused(definition, &problem, place, hint));
        }
        let selected = keys.iter().filter(|key| key.column == column).count();
        if selected != 1 {
            let problem = format!("the group key `{group_expr}` is selected {selected} times");
            let hint = "select each group key once: rows would not be told apart";
            let place = syntax::place_of_key(definition, index);
            return Err(refused(definition, &problem, place, hint));
        }
    }
    Ok(())
}

fn check_names(definition: &MeterDefinition, keys: &[Key], measures: &[Measure]) -> Result<()> {
    let keys = keys.iter().map(|key| (key.item, &key.name));
    let names = keys.chain(measures.iter().map(|measure| (measure.item, &measure.name)));
    let mut seen = BTreeSet::new();
    for (item, name) in names {
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
        let place = syntax::place_of_item(definition, item);
        return Err(refused(definition, &problem, place, hint));
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
        let start = window::window_start(width_us).call(vec![event_time(aggregate)?]);
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
