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
    },
};
use std::{fmt, sync::Arc};

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
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    batches: Vec<RecordBatch>,
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
        }
    }

    /// The same leaf with these batches, under the names of its schema.
    pub(super) fn holding(&self, batches: Vec<RecordBatch>) -> Result<Self> {
        let renamed = batches.into_iter().map(|batch| {
            let (_, columns, _) = batch.into_parts();
            Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
        });
        Ok(Self {
            schema: Arc::clone(&self.schema),
            properties: Arc::clone(&self.properties),
            batches: renamed.collect::<Result<_>>()?,
        })
    }
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
        let schema = Arc::clone(&self.schema);
        let stream = MemoryStream::try_new(self.batches.clone(), schema, None)?;
        Ok(Box::pin(stream))
    }
}
