//! The one SessionContext recipe: exact decimals, our functions, limits on what SQL may do.
//!
//! Three rules make a number in SQL exact or an error:
//! * a literal such as `0.10` is a decimal;
//! * `+ - *` over integers and decimals give a decimal and never wrap; `/`, `%` and `<<`, which lose
//!   digits, are refused (see [`arithmetic`]);
//! * the aggregates are those of [`crate::aggregates`].
//!
//! What a FILTER or a CASE leaves out is not evaluated (`filters`).

use crate::{
    aggregates, functions,
    parser::{
        Sql,
        limits::{Excess, excess},
    },
};
use datafusion::{
    common::{DFSchema, plan_datafusion_err, plan_err},
    dataframe::DataFrame,
    error::Result,
    execution::{
        FunctionRegistry, SessionState,
        context::SQLOptions,
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::{Expr, LogicalPlan},
    prelude::{SessionConfig, SessionContext},
    sql::{
        parser::{DFParser, DFParserBuilder, Statement},
        sqlparser::tokenizer::Tokenizer,
    },
};
use std::sync::Arc;

pub mod arithmetic;
mod filters;
pub(crate) mod products;

/// A session in which `0.10` is exact and every aggregate and pricing function is ours.
pub fn context() -> SessionContext {
    context_with(SessionConfig::new())
}

/// The same, in which sorting and grouping take at most so many bytes of memory and spill what is more to disk.
///
/// # Errors
/// There is no place for temporary files.
pub fn spilling(bytes: usize) -> Result<SessionContext> {
    spilling_in(bytes, usize::MAX)
}

/// The same in so many parts at most at once, for callers that run several of them.
///
/// # Errors
/// There is no place for temporary files.
pub fn spilling_in(bytes: usize, parts_max: usize) -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(bytes)))
        .build_arc()?;
    let mut config = SessionConfig::new();
    let (partitions, set_aside) = shares(bytes, config.target_partitions().min(parts_max));
    config = config.with_target_partitions(partitions);
    let execution = &mut config.options_mut().execution;
    execution.sort_spill_reservation_bytes = set_aside.min(execution.sort_spill_reservation_bytes);
    // What is in memory is sorted where it is: to merge it takes as much memory again, which a full pool does not have.
    execution.sort_in_place_threshold_bytes = bytes;
    Ok(context_on(config, runtime))
}

/// In how many parts rows are sorted and grouped at once, and how many bytes the sort of one part may set aside for merging what it
/// has spilled.
///
/// A sort sets these bytes aside when its first rows come. Where other parts have their whole shares by then, the share of this one must
/// be more than that: with many parts of little memory each, a part whose rows came late found too little and failed.
fn shares(bytes: usize, cores: usize) -> (usize, usize) {
    let partitions = (bytes / PART_BYTES_MIN).clamp(1, cores.max(1));
    (partitions, bytes / partitions / 3)
}

/// A part has at least so much memory, unless it is the only one.
const PART_BYTES_MIN: usize = 64_000_000;

/// The same with other settings, except those that exactness depends on.
pub(crate) fn context_with(config: SessionConfig) -> SessionContext {
    context_on(config, Arc::default())
}

fn context_on(mut config: SessionConfig, runtime: Arc<RuntimeEnv>) -> SessionContext {
    let parser = &mut config.options_mut().sql_parser;
    parser.parse_float_as_decimal = true;
    parser.map_string_types_to_utf8view = false;
    parser.collect_spans = true;
    let mut context = SessionContext::new_with_config_rt(config, runtime);
    context
        .register_function_rewrite(Arc::new(arithmetic::ExactArithmetic))
        .expect("a session's analyzer takes function rewrites");
    context
        .register_function_rewrite(Arc::new(filters::FilterFirst))
        .expect("a session's analyzer takes function rewrites");
    aggregates::register(&context);
    functions::register(&context);
    context
}

/// One statement as a tree. Every session reads SQL here and not by `SessionContext::sql`, whose own
/// parser has other precedences than PostgreSQL.
///
/// # Errors
/// There is not exactly one statement, or it cannot be read.
pub fn statement(state: &SessionState, sql: &str) -> Result<Statement> {
    let mut statements = parser(state, sql)?.parse_statements()?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => plan_err!("the query is more than one statement"),
        (None, _) => Err(plan_datafusion_err!("the query is empty")),
    }
}

/// What a statement means over a session's tables, as it is written.
///
/// # Errors
/// The statement cannot be read, or names what the session does not know.
pub async fn plan(state: &SessionState, sql: &str) -> Result<LogicalPlan> {
    state.statement_to_plan(statement(state, sql)?).await
}

/// The answer to a query, which may only read: DDL, DML, COPY, SET and the like are refused.
///
/// # Errors
/// Those of [`plan`], and what is no query.
pub async fn query(context: &SessionContext, sql: &str) -> Result<DataFrame> {
    let plan = plan(&context.state(), sql).await?;
    read_only_options().verify_plan(&plan)?;
    context.execute_logical_plan(plan).await
}

/// What an expression means over rows of a schema.
///
/// # Errors
/// The expression cannot be read, or names what the schema does not have.
pub fn expression(state: &SessionState, sql: &str, schema: &DFSchema) -> Result<Expr> {
    let parsed = parser(state, sql)?.parse_into_expr()?;
    state.create_logical_expr_from_sql_expr(parsed, schema)
}

fn parser<'a>(state: &SessionState, sql: &'a str) -> Result<DFParser<'a>> {
    check_limits(sql)?;
    let options = &state.config().options().sql_parser;
    DFParserBuilder::new(sql)
        .with_dialect(&Sql)
        .with_recursion_limit(options.recursion_limit.get())
        .build()
}

/// Refuses what would need more stack or time than there is. What is no SQL is refused by the parser.
fn check_limits(sql: &str) -> Result<()> {
    let tokens = Tokenizer::new(&Sql, sql).tokenize_with_location();
    match excess(tokens.iter().flatten()) {
        None => Ok(()),
        Some(Excess { problem, hint, at }) => {
            plan_err!("line {}, column {}: {problem}; {hint}", at.line, at.column)
        }
    }
}

/// What a user's SQL may do: read. DDL, DML, COPY, SET and the like are refused.
pub(crate) fn read_only_options() -> SQLOptions {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
}

#[cfg(test)]
mod tests;
