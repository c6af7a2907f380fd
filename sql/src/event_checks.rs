//! The checks of an event type: SQL over one event, planned once and evaluated on rows.
//!
//! As in SQL, an event passes where a check is true or NULL. What a check says of an event depends on that
//! event alone, never on the others of its batch: where an expression fails on some rows, such as by a
//! product of more than 38 digits, only these are refused.

use crate::{
    definitions::{Check, EventType},
    error::{Error, Result},
    meter::{constants, syntax},
    parser::Sql,
    purity,
    schema::{self, type_name},
    session,
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    common::{DFSchema, Result as PlanResult, TableReference, internal_err},
    error::DataFusionError,
    execution::{FunctionRegistry, SessionState},
    logical_expr::{EmptyRelation, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder},
    physical_plan::PhysicalExpr,
    sql::sqlparser::{
        ast::{self, Spanned, visit_expressions},
        parser::Parser,
        tokenizer::Span,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

/// The checks of one event type, planned. Cheap to share.
#[derive(Debug)]
pub struct EventChecks {
    event_type: String,
    input: SchemaRef,
    checks: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    /// What is said of an event for which it is false.
    failed: String,
    expression: Arc<dyn PhysicalExpr>,
}

/// What to do about a check that looks beyond one event.
const ONE_EVENT: &str =
    "a check sees one event at a time: its columns, and functions that always return the same";

impl EventChecks {
    /// Plans the checks of an event type; there may be none.
    ///
    /// # Errors
    /// [`Error::Definition`] for an expression that is not about one event, not deterministic, not
    /// exact or not true or false, with its place and a hint.
    pub fn plan(event_type: &EventType) -> Result<Self> {
        let relation = schema::event_relation(event_type);
        let planner = Planner {
            event_type,
            state: session::context().state(),
            events: source_of(event_type, &relation).map_err(planning)?,
        };
        let checks = event_type.checks.iter();
        let typed = checks.map(|check| planner.typed(check));
        let typed = typed.collect::<Result<Vec<_>>>()?;
        let input = columns_of(&typed, &relation);
        let columns = source_of(event_type, &input).map_err(planning)?;
        let planned = event_type.checks.iter().zip(typed).map(|(check, expr)| {
            let expression = planner.state.create_physical_expr(expr, columns.schema());
            Ok(Planned {
                failed: failed(check),
                expression: expression.map_err(|error| planner.unplanned(check, &error))?,
            })
        });
        Ok(EventChecks {
            event_type: event_type.name.clone(),
            checks: planned.collect::<Result<_>>()?,
            input,
        })
    }

    /// The SQL name of the event type.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    /// The columns that [`EventChecks::refused`] reads, a subset of [`schema::event_relation`] in its
    /// order.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The rows that do not pass, and the first check that each fails. `events` are events of the type,
    /// with exactly the columns of [`EventChecks::input_schema`].
    pub fn refused(&self, events: &RecordBatch) -> BTreeMap<usize, String> {
        let mut refused = BTreeMap::new();
        for check in &self.checks {
            check.judge(events, 0, &mut refused);
        }
        refused
    }
}

impl Planned {
    /// Judges rows whose first is the batch's `first`; where evaluation fails, half by half.
    fn judge(&self, events: &RecordBatch, first: usize, refused: &mut BTreeMap<usize, String>) {
        let rows = events.num_rows();
        match self.falses(events) {
            Ok(falses) => {
                for row in falses {
                    refused
                        .entry(first + row)
                        .or_insert_with(|| self.failed.clone());
                }
            }
            Err(error) if rows == 1 => {
                let cause = error.strip_backtrace();
                refused
                    .entry(first)
                    .or_insert_with(|| format!("{}: {cause}", self.failed));
            }
            Err(_) => {
                let half = rows / 2;
                self.judge(&events.slice(0, half), first, refused);
                self.judge(&events.slice(half, rows - half), first + half, refused);
            }
        }
    }

    fn falses(&self, events: &RecordBatch) -> PlanResult<Vec<usize>> {
        if events.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let value = self.expression.evaluate(events)?;
        let answers = value.into_array(events.num_rows())?;
        let answers = answers.as_boolean().iter().enumerate();
        let falses = answers.filter(|(_, answer)| *answer == Some(false));
        Ok(falses.map(|(row, _)| row).collect())
    }
}

/// Plans the checks of one event type.
struct Planner<'a> {
    event_type: &'a EventType,
    state: SessionState,
    /// Something that has the event type's columns.
    events: LogicalPlan,
}

impl Planner<'_> {
    /// A check as an expression with settled types, true or false.
    fn typed(&self, check: &Check) -> Result<Expr> {
        let parsed = Parser::new(&Sql)
            .try_with_sql(&check.expression)
            .and_then(|mut parser| parser.parse_expr());
        let parsed = parsed.map_err(|error| planning(error.into()))?;
        self.check_syntax(check, &parsed)?;
        let unplanned = |error: DataFusionError| self.unplanned(check, &error);
        let sql = ast::ExprWithAlias {
            expr: parsed,
            alias: None,
        };
        let expr = self
            .state
            .create_logical_expr_from_sql_expr(sql, self.events.schema());
        let plan = LogicalPlanBuilder::from(self.events.clone())
            .project([expr.map_err(unplanned)?])
            .and_then(LogicalPlanBuilder::build)
            .map_err(unplanned)?;
        let found = purity::first_found(&plan, |expr, _| Ok(purity::nondeterministic(expr)));
        self.refuse_found(check, found.map_err(unplanned)?)?;
        let analyzer = self.state.analyzer();
        let analysed = analyzer.execute_and_check(plan, self.state.config_options(), |_, _| {});
        let analysed = analysed.map_err(unplanned)?;
        let found = purity::first_found(&analysed, purity::inexact).map_err(unplanned)?;
        self.refuse_found(check, found)?;
        let fails = |expr: &Expr, node: &LogicalPlan| constants::failing(&self.state, expr, node);
        let found = purity::first_found(&analysed, fails).map_err(unplanned)?;
        self.refuse_found(check, found)?;
        let expr = only_expression(&analysed).map_err(unplanned)?;
        let data_type = expr.get_type(self.events.schema()).map_err(unplanned)?;
        if data_type != DataType::Boolean {
            let problem = format!("it is {}, not true or false", type_name(&data_type));
            let hint = "compare it with something, such as input_tokens > 0";
            return Err(self.refuse(check, Span::empty(), &problem, hint));
        }
        Ok(expr)
    }

    /// Refuses what is not about one event, where each construct still has a place.
    fn check_syntax(&self, check: &Check, parsed: &ast::Expr) -> Result<()> {
        if let Some((span, construct, hint)) = syntax::refusal_in(parsed) {
            let is_operator = construct.starts_with('`');
            let hint = if is_operator { &hint } else { ONE_EVENT };
            return Err(self.refuse(check, span, &format!("it has {construct}"), hint));
        }
        let visited = visit_expressions(parsed, |expr| match expr {
            ast::Expr::Function(function) => {
                let name = function.name.to_string().to_ascii_lowercase();
                match self.state.udaf(&name) {
                    Ok(_) => ControlFlow::Break((expr.span(), name)),
                    Err(_) => ControlFlow::Continue(()),
                }
            }
            _ => ControlFlow::Continue(()),
        });
        match visited {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break((span, name)) => {
                let problem = format!("it has the aggregate `{name}`");
                Err(self.refuse(check, span, &problem, ONE_EVENT))
            }
        }
    }

    fn refuse_found(&self, check: &Check, found: purity::Found) -> Result<()> {
        match found {
            None => Ok(()),
            Some((problem, hint)) => Err(self.refuse(check, Span::empty(), &problem, hint)),
        }
    }

    /// What DataFusion says about a check, with the place if it knows it.
    fn unplanned(&self, check: &Check, error: &DataFusionError) -> Error {
        let hint = "check the names and types in the expression";
        match error.diagnostic() {
            Some(said) => {
                let span = said.span.map_or_else(Span::empty, |span| {
                    let place = |at: datafusion::common::Location| {
                        datafusion::sql::sqlparser::tokenizer::Location::new(at.line, at.column)
                    };
                    Span::new(place(span.start), place(span.end))
                });
                let help = said.helps.first().map(|help| help.message.as_str());
                self.refuse(check, span, &said.message, help.unwrap_or(hint))
            }
            None => self.refuse(check, Span::empty(), &error.strip_backtrace(), hint),
        }
    }

    /// A refusal that names the check, at its construct if that is known, else at its start.
    fn refuse(&self, check: &Check, span: Span, problem: &str, hint: &str) -> Error {
        let at = match span.start {
            unknown if unknown.line == 0 => check.at.clone(),
            start => check.at.within(start.line, start.column),
        };
        Error::Definition {
            at,
            problem: format!(
                "event type `{}`: {}: {problem}",
                self.event_type.name,
                title(check)
            ),
            hint: hint.to_owned(),
        }
    }
}

/// ``check `positive` ``.
fn title(check: &Check) -> String {
    match &check.name {
        Some(name) => format!("check `{name}`"),
        None => "check".to_owned(),
    }
}

fn failed(check: &Check) -> String {
    let words: Vec<&str> = check.expression.split_whitespace().collect();
    format!("{} failed: {}", title(check), words.join(" "))
}

/// Something with these columns of an event type to plan over.
fn source_of(event_type: &EventType, columns: &SchemaRef) -> PlanResult<LogicalPlan> {
    let name = TableReference::bare(event_type.name.as_str());
    let schema = DFSchema::try_from_qualified_schema(name, columns)?;
    Ok(LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(schema),
    }))
}

fn only_expression(analysed: &LogicalPlan) -> PlanResult<Expr> {
    match analysed {
        LogicalPlan::Projection(projection) if projection.expr.len() == 1 => {
            Ok(projection.expr[0].clone().unalias_nested().data)
        }
        other => internal_err!("a check became {}", other.display()),
    }
}

/// The columns that are read, in the relation's order.
fn columns_of(checks: &[Expr], relation: &SchemaRef) -> SchemaRef {
    let read: BTreeSet<&str> = checks
        .iter()
        .flat_map(Expr::column_refs)
        .map(|column| column.name.as_str())
        .collect();
    let fields = relation.fields().iter();
    let fields: Vec<Arc<Field>> = fields
        .filter(|field| read.contains(field.name().as_str()))
        .map(Arc::clone)
        .collect();
    Arc::new(Schema::new(fields))
}

fn planning(source: DataFusionError) -> Error {
    Error::Engine {
        doing: "planning the checks of an event type",
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests;
