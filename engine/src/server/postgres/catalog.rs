//! What there is, as clients of PostgreSQL look it up: `pg_catalog`, `information_schema`, and functions about the session.
//!
//! It is a session of its own, in which relations have names and columns and no rows: nothing of usage can be read by way of it, and
//! arithmetic in it is that of PostgreSQL. A customer has one in which only those relations are that it may read.

use super::{
    refusal::Refusal,
    settings::{Settings, VERSION},
};
use crate::{
    catalog::Catalog,
    query::{self, Bounds, Readable, Rows, Types, collect, physical_schema, types_of},
    view::View,
};
use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session as PlannedIn, TableProvider},
    common::{ScalarValue, TableReference, plan_err},
    error::{DataFusionError, Result as Planned},
    execution::{memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnvBuilder},
    logical_expr::{
        ColumnarValue, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        TableType, TypeSignature, Volatility,
    },
    physical_plan::ExecutionPlan,
    prelude::{SessionConfig, SessionContext},
};
use datafusion_pg_catalog::{
    pg_catalog::{context::EmptyContextProvider, setup_pg_catalog},
    sql::PostgresCompatibilityParser,
};
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::Mutex;

/// The name of the one database.
pub(super) const DATABASE: &str = "tollgate";

/// What a statement about the catalog may take in memory.
const BYTES: usize = 64_000_000;

/// Who looks something up.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) user: String,
    pub(super) settings: Settings,
    pub(super) is_customer: bool,
}

/// The catalogs, that of all and that of customers, each made when it is first needed and when definitions have changed.
#[derive(Default)]
pub(super) struct Catalogs {
    made: Mutex<BTreeMap<bool, Made>>,
    parser: std::sync::OnceLock<PostgresCompatibilityParser>,
}

/// A catalog, and the definitions that it shows.
struct Made {
    definitions: Arc<Catalog>,
    context: SessionContext,
}

impl fmt::Debug for Catalogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogs").finish_non_exhaustive()
    }
}

impl Catalogs {
    /// The rows that a statement asks for.
    pub(super) async fn rows(
        &self,
        definitions: &Arc<Catalog>,
        asker: &Asker,
        sql: &str,
        bounds: Bounds,
    ) -> Result<Rows, Refusal> {
        let context = self.context(definitions, asker).await?;
        let plan = self.plan(&context, sql).await?;
        let frame = context.execute_logical_plan(plan).await?;
        Ok(collect(frame, bounds).await?)
    }

    /// The columns of those rows.
    pub(super) async fn schema(
        &self,
        definitions: &Arc<Catalog>,
        asker: &Asker,
        sql: &str,
    ) -> Result<SchemaRef, Refusal> {
        let context = self.context(definitions, asker).await?;
        let plan = self.plan(&context, sql).await?;
        Ok(physical_schema(&context, plan).await?)
    }

    /// The types of the parameters of a statement, as far as they can be told.
    pub(super) async fn parameter_types(
        &self,
        definitions: &Arc<Catalog>,
        asker: &Asker,
        sql: &str,
    ) -> Types {
        let found = async {
            let context = self.context(definitions, asker).await?;
            self.plan(&context, sql).await
        };
        found.await.map(|plan| types_of(&plan)).unwrap_or_default()
    }

    async fn plan(&self, context: &SessionContext, sql: &str) -> Result<LogicalPlan, Refusal> {
        let parser = self.parser.get_or_init(PostgresCompatibilityParser::new);
        let parsed = parser.parse(sql);
        let parsed = parsed.map_err(|error| DataFusionError::SQL(Box::new(error), None))?;
        let [statement] = parsed.as_slice() else {
            return Err(Refusal::new(
                "42601",
                "one statement is asked for at a time",
            ));
        };
        let plan = context
            .state()
            .create_logical_plan(&statement.to_string())
            .await?;
        query::check_reads(&plan)?;
        Ok(plan)
    }

    /// The session of one statement, which knows what its client has set.
    async fn context(
        &self,
        definitions: &Arc<Catalog>,
        asker: &Asker,
    ) -> Result<SessionContext, Refusal> {
        let mut made = self.made.lock().await;
        let known = made.get(&asker.is_customer);
        let known = known.filter(|known| Arc::ptr_eq(&known.definitions, definitions));
        let state = match known {
            Some(known) => known.context.state(),
            None => {
                let context = catalog_of(definitions, asker.is_customer).await?;
                let state = context.state();
                let definitions = Arc::clone(definitions);
                made.insert(
                    asker.is_customer,
                    Made {
                        definitions,
                        context,
                    },
                );
                state
            }
        };
        drop(made);
        let context = SessionContext::new_with_state(state);
        let settings = Answer::Setting(asker.settings.all());
        context.register_udf(function("current_setting", settings));
        let user = Answer::Text(Some(asker.user.clone()));
        context.register_udf(function("session_user", user.clone()));
        context.register_udf(function("current_user", user));
        Ok(context)
    }
}

/// A catalog of what there is to read.
async fn catalog_of(
    definitions: &Arc<Catalog>,
    is_customer: bool,
) -> Result<SessionContext, Refusal> {
    let config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(1)
        .with_default_catalog_and_schema(DATABASE, "public");
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(BYTES)))
        .build_arc()?;
    let mut context = SessionContext::new_with_config_rt(config, runtime);
    let nothing = View::empty(Arc::clone(definitions));
    let readable = Readable::of(&nothing, None);
    for (name, schema) in readable.relations(is_customer).await? {
        let relation = Arc::new(NoRows { schema });
        context.register_table(TableReference::bare(name), relation)?;
    }
    setup_pg_catalog(&context, DATABASE, EmptyContextProvider).map_err(|error| *error)?;
    datafusion_pg_functions::register_all(&mut context);
    let version = format!("PostgreSQL {VERSION}");
    context.register_udf(function("version", Answer::Text(Some(version))));
    for name in ["obj_description", "col_description", "shobj_description"] {
        context.register_udf(function(name, Answer::Text(None)));
    }
    Ok(context)
}

/// A relation that has columns, and no rows here.
#[derive(Debug)]
struct NoRows {
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for NoRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn PlannedIn,
        _projection: Option<&Vec<usize>>,
        _filters: &[datafusion::logical_expr::Expr],
        _limit: Option<usize>,
    ) -> Planned<Arc<dyn ExecutionPlan>> {
        plan_err!(
            "a statement that reads the catalog reads no rows of other relations; ask in two statements"
        )
    }
}

/// A function that has one answer, or that of a setting.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Known {
    name: &'static str,
    signature: Signature,
    answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Answer {
    Text(Option<String>),
    Setting(BTreeMap<String, String>),
}

fn function(name: &'static str, answer: Answer) -> ScalarUDF {
    let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
    ScalarUDF::from(Known {
        name,
        signature: Signature::one_of(any, Volatility::Stable),
        answer,
    })
}

impl ScalarUDFImpl for Known {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Planned<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Planned<ColumnarValue> {
        let text = match &self.answer {
            Answer::Text(text) => text.clone(),
            Answer::Setting(settings) => match call.args.first() {
                Some(ColumnarValue::Scalar(name)) => {
                    let name = name.try_as_str().flatten().unwrap_or_default();
                    settings.get(&name.to_lowercase()).cloned()
                }
                _ => return plan_err!("current_setting wants the name of a setting"),
            },
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(text)))
    }
}

/// One row of one text.
///
/// # Errors
/// The columns do not make a batch.
pub(super) fn one_text(name: &str, value: &str) -> Result<RecordBatch, Refusal> {
    let schema = Schema::new(vec![Field::new(name, DataType::Utf8, false)]);
    let values: ArrayRef = Arc::new(StringArray::from(vec![value]));
    let rows = RecordBatch::try_new(Arc::new(schema), vec![values]);
    rows.map_err(|error| Refusal::of_value(&error))
}
