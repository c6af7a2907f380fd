//! Where batches enter a planned query: a scan whose rows are given each time it runs.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result, internal_err, project_schema, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning,
        PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        memory::MemoryStream,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{Stream, StreamExt};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A table without rows, which plans to a [`Leaf`].
#[derive(Debug)]
pub(super) struct Events {
    schema: SchemaRef,
}

impl Events {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }
}

#[async_trait]
impl TableProvider for Events {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.map(Vec::as_slice);
        let schema = project_schema(&self.schema, columns.map(<[usize]>::to_vec).as_ref())?;
        Ok(Arc::new(Leaf::new(schema)))
    }
}

/// Yields the batches it was given, in order.
///
/// Leaves made from one another share their plan properties, so that the nodes above need not work
/// out theirs again for each batch.
#[derive(Clone)]
pub(super) struct Leaf {
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    batches: Vec<RecordBatch>,
    /// What it yields instead, once.
    stream: Arc<Mutex<Option<SendableRecordBatchStream>>>,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Leaf {
    pub(super) fn new(schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            schema,
            properties: Arc::new(properties),
            batches: Vec::new(),
            stream: Arc::default(),
        }
    }

    /// The same leaf with these batches, under the names of its schema.
    pub(super) fn holding(&self, batches: Vec<RecordBatch>) -> Result<Self> {
        let renamed = batches
            .into_iter()
            .map(|batch| renamed(batch, &self.schema));
        Ok(Self {
            schema: Arc::clone(&self.schema),
            properties: Arc::clone(&self.properties),
            batches: renamed.collect::<Result<_>>()?,
            stream: Arc::default(),
        })
    }

    /// The same leaf with the batches of a stream, as they come.
    pub(super) fn yielding(
        &self,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Self {
        let schema = Arc::clone(&self.schema);
        let renamed = batches.map(move |batch| renamed(batch?, &schema));
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), renamed);
        Self {
            schema: Arc::clone(&self.schema),
            properties: Arc::clone(&self.properties),
            batches: Vec::new(),
            stream: Arc::new(Mutex::new(Some(Box::pin(stream)))),
        }
    }
}

/// A batch under the names of a schema.
fn renamed(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let (_, columns, _) = batch.into_parts();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

impl DisplayAs for Leaf {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        write!(f, "Batches: {}", names.join(", "))
    }
}

impl ExecutionPlan for Leaf {
    fn name(&self) -> &'static str {
        "Leaf"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() {
            Ok(self)
        } else {
            internal_err!("a leaf has no children")
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = { stream }.take() {
            return Ok(stream);
        }
        let schema = Arc::clone(&self.schema);
        let stream = MemoryStream::try_new(self.batches.clone(), schema, None)?;
        Ok(Box::pin(stream))
    }
}
