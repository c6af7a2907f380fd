//! One SQL statement over everything that was committed, open windows included: what `tollgate query` and every door answer with.

use crate::{
    billing,
    catalog::Catalog,
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result, chain, query_error},
    tables,
    view::{By, Own, View, is_told_apart, referenced, register_rows},
};
use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    common::{TableReference, plan_err},
    dataframe::DataFrame,
    error::Result as Planned,
    execution::context::SQLOptions,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
};
use futures::TryStreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::{ErrorKind, lake::Lake};
use tollgate_sql::{
    accounts::TABLES,
    definitions::Definitions,
    invoice::unissued::unissued_schema,
    schema::credits::credit_ledger_schema,
    session,
    unplanned::{Unplanned, unplanned},
};

/// How much one statement may take; nothing is bounded by default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// What sorting and grouping may take in memory before they spill, and then fail.
    pub(crate) bytes_max: Option<usize>,
    /// How many rows the answer may have.
    pub(crate) rows_max: Option<usize>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// One statement, which may only read.
    pub(crate) sql: &'a str,
    /// What it may take.
    pub(crate) bounds: Bounds,
    /// Whose rows it reads; everyone's when `None`.
    pub(crate) own: Option<&'a Own>,
}

/// The rows of an answer; there may be no batch.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

/// The rows that a statement asks for, and the view that they are of.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) rows: Rows,
    pub(crate) view: View,
}

/// Answers one statement.
///
/// # Errors
/// The SQL is not a query, or names something that does not exist; with the place and what could have been meant. Its answer
/// goes beyond a bound.
pub(crate) async fn answer(
    settings: &Settings,
    asked: Asked<'_>,
    (catalog, lake): (&Arc<Catalog>, &Lake),
) -> Result<Answer> {
    let answered = answered(settings, asked, (catalog, lake)).await;
    answered.map_err(|error| in_words(&catalog.definitions, asked, error))
}

async fn answered(
    settings: &Settings,
    asked: Asked<'_>,
    (catalog, lake): (&Arc<Catalog>, &Lake),
) -> Result<Answer> {
    let Asked { sql, bounds, own } = asked;
    let mut wanted = referenced(&session::context(), sql)?;
    if own.is_some() {
        wanted.retain(|name| is_told_apart(&catalog.definitions, name));
    }
    let is_of_all = wanted.contains(tables::UNISSUED);
    let view = match View::open(Arc::clone(catalog), lake).await {
        Err(Error::Meter { .. }) if !is_of_all => of_others(Arc::clone(catalog), lake, sql).await?,
        opened => opened?,
    };
    let context = match bounds.bytes_max {
        Some(bytes) => session::spilling(bytes).map_err(query_error(DOING))?,
        None => session::context(),
    };
    view.register_in(&context, sql, own).await?;
    let computed = register_computed(settings, &context, (&view, lake), &wanted, own).await;
    computed.map_err(|error| match own {
        Some(_) => untold(error),
        None => error,
    })?;
    let frame = session::query(&context, sql)
        .await
        .map_err(query_error(DOING))?;
    if own.is_some() && shows_plan(frame.logical_plan()) {
        return Err(Error::Statement {
            place: String::new(),
            problem: "EXPLAIN is refused".into(),
            hint: "a plan tells how much there is that is not yours".into(),
        });
    }
    let rows = collect(frame, bounds).await.map_err(query_error(DOING))?;
    Ok(Answer { rows, view })
}

const DOING: &str = "the query";

/// Registers the relations that are computed whole, each if it is named.
async fn register_computed(
    settings: &Settings,
    context: &SessionContext,
    (view, lake): (&View, &Lake),
    wanted: &BTreeSet<String>,
    own: Option<&Own>,
) -> Result<()> {
    let register = |name: &str, rows: RecordBatch| {
        let rows = match own {
            Some(own) => own.rows(By::Customer, &rows)?,
            None => rows,
        };
        register_rows(context, name, rows)
    };
    let billing = &settings.billing;
    if wanted.contains(tables::UNISSUED) {
        let now_us = SystemClock.now_us();
        let rows = billing::unissued(view, lake, billing, now_us).await?;
        register(tables::UNISSUED, rows)?;
    }
    if wanted.contains(tables::UNBILLED) {
        let rows = match billing::accounts::are_there(lake).await? {
            true => {
                let accounts = billing::accounts::ByRange::begin(lake, None).await?;
                let ever = billing::ever(view, SystemClock.now_us()).await?;
                billing::unbilled(view, lake, billing, &accounts, ever).await?
            }
            // Without accounts every subject is its own customer.
            false => Vec::new(),
        };
        register(tables::UNBILLED, billing::unbilled_batch(&rows)?)?;
    }
    if wanted.contains(tables::CREDIT_LEDGER) {
        let rows = billing::credit_ledger(lake, SystemClock.now_us()).await?;
        register(tables::CREDIT_LEDGER, rows)?;
    }
    for table in TABLES.into_iter().filter(|table| wanted.contains(*table)) {
        register(table, billing::accounts::relation(lake, table).await?)?;
    }
    Ok(())
}

/// What a customer is told when something fails that is computed for all customers together: the reason may name another.
fn untold(error: Error) -> Error {
    if error.kind() == ErrorKind::Unavailable {
        return error;
    }
    tracing::error!(error = chain(&error), "a customer's query failed");
    Error::Billing {
        problem: "what the query reads cannot be told now".into(),
        hint: "the log of the engine says why; ask who runs it".into(),
    }
}

/// Whether the answer is the plan itself.
fn shows_plan(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
}

/// Refuses a plan that does anything but read.
///
/// # Errors
/// It does.
pub(crate) fn check_reads(plan: &LogicalPlan) -> Planned<()> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
}

/// All rows; an error as soon as there are more than there may be.
pub(crate) async fn collect(frame: DataFrame, bounds: Bounds) -> Planned<Rows> {
    let most = bounds.rows_max.unwrap_or(usize::MAX);
    let mut stream = frame.execute_stream().await?;
    let schema = stream.schema();
    let (mut batches, mut count) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        count += batch.num_rows();
        if count > most {
            return plan_err!(
                "the answer has more than {most} rows; ask for fewer, with LIMIT or a condition"
            );
        }
        batches.push(batch);
    }
    Ok(Rows { schema, batches })
}

/// The columns of the rows that a plan gives.
///
/// # Errors
/// The plan cannot be made one that runs.
pub(crate) async fn physical_schema(
    context: &SessionContext,
    plan: LogicalPlan,
) -> Planned<SchemaRef> {
    let frame = context.execute_logical_plan(plan).await?;
    Ok(frame.create_physical_plan().await?.schema())
}

/// The types of parameters by their numbers, as far as a plan tells.
pub(crate) type Types = BTreeMap<usize, DataType>;

/// Those of a plan.
pub(crate) fn types_of(plan: &LogicalPlan) -> Types {
    let found = plan.get_parameter_types().unwrap_or_default().into_iter();
    let found = found.filter_map(|(name, kind)| {
        let number = name.strip_prefix('$')?.parse().ok()?;
        Some((number, kind?))
    });
    found.collect()
}

/// Relations without rows: what is asked of them can be planned, and described before it is run.
#[derive(Debug)]
pub(crate) struct Readable<'a> {
    view: View,
    own: Option<&'a Own>,
}

impl<'a> Readable<'a> {
    /// Those of a view, for whom it is read.
    pub(crate) fn of(view: &View, own: Option<&'a Own>) -> Self {
        let view = view.without_rows();
        Readable { view, own }
    }

    /// The columns of the answer to a statement.
    ///
    /// # Errors
    /// As [`answer`].
    pub(crate) async fn schema(&self, sql: &str) -> Result<SchemaRef> {
        let context = session::context();
        let schema = async {
            self.register_in(&context, sql).await?;
            let plan = session::plan(&context.state(), sql).await;
            let schema = match plan {
                Ok(plan) => match check_reads(&plan) {
                    Ok(()) => physical_schema(&context, plan).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            schema.map_err(query_error(DOING))
        };
        schema.await.map_err(|error| {
            let asked = Asked {
                sql,
                bounds: Bounds::default(),
                own: self.own,
            };
            in_words(&self.view.catalog().definitions, asked, error)
        })
    }

    /// The types of the parameters of a statement, as far as they can be told.
    pub(crate) async fn parameter_types(&self, sql: &str) -> Types {
        let context = session::context();
        if self.register_in(&context, sql).await.is_err() {
            return Types::new();
        }
        let plan = session::plan(&context.state(), sql).await;
        plan.map(|plan| types_of(&plan)).unwrap_or_default()
    }

    async fn register_in(&self, context: &SessionContext, sql: &str) -> Result<()> {
        let wanted = referenced(context, sql)?;
        self.view.register_in(context, sql, self.own).await?;
        let nothing = |name: &str, schema: SchemaRef| {
            let is_wanted = wanted.contains(name);
            is_wanted.then(|| register_rows(context, name, RecordBatch::new_empty(schema)))
        };
        let unbilled = billing::unbilled_batch(&[])?.schema();
        nothing(tables::UNISSUED, unissued_schema()).transpose()?;
        nothing(tables::UNBILLED, unbilled).transpose()?;
        nothing(tables::CREDIT_LEDGER, credit_ledger_schema()).transpose()?;
        for table in TABLES {
            nothing(table, billing::accounts::relation_schema(table)?).transpose()?;
        }
        Ok(())
    }

    /// Every relation with its columns, by name; for a customer those that it may read.
    ///
    /// # Errors
    /// A relation has no columns, which is a bug.
    pub(crate) async fn relations(&self, is_customer: bool) -> Result<Vec<(String, SchemaRef)>> {
        let own = Own::new("", Vec::new());
        let readable = Readable::of(&self.view, is_customer.then_some(&own));
        let definitions = &self.view.catalog().definitions;
        let mut relations = Vec::new();
        for name in names(definitions, readable.own) {
            let quoted = name.replace('"', "\"\"");
            let context = session::context();
            let sql = format!("SELECT 1 FROM \"{quoted}\"");
            readable.register_in(&context, &sql).await?;
            let table = context
                .table_provider(TableReference::bare(name.as_str()))
                .await;
            let table = table.map_err(query_error("listing relations"))?;
            relations.push((name, table.schema()));
        }
        Ok(relations)
    }
}

/// The relations that may be named.
fn names(definitions: &Definitions, own: Option<&Own>) -> Vec<String> {
    let mut names = definitions.relations();
    if own.is_some() {
        names.retain(|name| is_told_apart(definitions, name));
    }
    names
}

/// What is wrong in the query, at its place and with what could have been meant; any other error as it is.
fn in_words(definitions: &Definitions, asked: Asked<'_>, error: Error) -> Error {
    let Error::Query { source, .. } = &error else {
        return error;
    };
    let state = session::context().state();
    match unplanned(&state, asked.sql, &names(definitions, asked.own), source) {
        None => error,
        Some(Unplanned { problem, hint, at }) => Error::Statement {
            place: at.map_or(String::new(), |(line, column)| {
                format!(", line {line}, column {column}")
            }),
            problem,
            hint,
        },
    }
}

/// A view without the meters that the lake refuses; what asks for one of these is refused for the same reason.
async fn of_others(catalog: Arc<Catalog>, lake: &Lake, sql: &str) -> Result<View> {
    let (view, refused) = View::open_readable(catalog, lake).await?;
    let asked = referenced(&session::context(), sql)?;
    let is_of = |name: &str| ["", "_windows", "_panes"].map(|what| format!("{name}{what}"));
    let mut asked_for = refused.into_iter();
    let asked_for = asked_for.find(|(name, _)| is_of(name).iter().any(|name| asked.contains(name)));
    match asked_for {
        Some((_, error)) => Err(error),
        None => Ok(view),
    }
}
