//! The physical plan of a meter, taken apart into stages that run by themselves.
//!
//! DataFusion plans `Final` over `Partial`. Each becomes a [`Stage`]: a chain of operators over a
//! [`Leaf`], so that partial aggregates of one batch, merges of states and the final values are
//! computed whenever they are wanted, without planning again.

use super::leaf::Leaf;
use arrow::{
    array::RecordBatch,
    compute::concat_batches,
    datatypes::{Schema, SchemaRef},
};
use datafusion::{
    common::{Result, internal_err},
    execution::TaskContext,
    physical_expr::{PhysicalExpr, aggregate::AggregateFunctionExpr},
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        common, displayable,
        execution_plan::replace_children_if_necessary,
        filter::FilterExec,
    },
};
use futures::Stream;
use std::sync::Arc;

/// A chain of operators, each with one input, over a leaf that is filled for each run.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    leaf: Leaf,
    /// From the leaf upwards. Each node's child in this template is the one before it, so that plan
    /// properties are shared and a run need not compute them.
    nodes: Vec<Arc<dyn ExecutionPlan>>,
    context: Arc<TaskContext>,
    schema: SchemaRef,
}

/// The two halves of a planned aggregate query.
pub(super) struct Halves {
    /// From `Partial` down to the scan, topmost first, without the scan.
    below: Vec<Arc<dyn ExecutionPlan>>,
    /// The scan's schema: the columns that the query uses.
    pub(super) input: SchemaRef,
    /// From the top down to `Final`.
    above: Vec<Arc<dyn ExecutionPlan>>,
    partial: AggregateExec,
    context: Arc<TaskContext>,
}

/// An aggregate, and the rows that it is over; all of them without a filter.
type Filtered = (Arc<AggregateFunctionExpr>, Option<Arc<dyn PhysicalExpr>>);

impl Halves {
    /// Takes a plan apart at its `Final`-over-`Partial` pair.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<Self> {
        let mut chain = chain_of(plan)?;
        let Some(scan) = chain.pop() else {
            return internal_err!("an empty plan");
        };
        let is_partial =
            |node: &Arc<dyn ExecutionPlan>| mode_of(node) == Some(AggregateMode::Partial);
        let Some(split) = chain.iter().position(is_partial) else {
            return internal_err!("the plan has no partial aggregate");
        };
        let below = chain.split_off(split);
        if chain.last().and_then(mode_of) != Some(AggregateMode::Final) {
            return internal_err!("the partial aggregate is not finished by the node above it");
        }
        let Some(partial) = below[0].downcast_ref::<AggregateExec>() else {
            return internal_err!("the partial aggregate is none");
        };
        Ok(Self {
            partial: partial.clone(),
            below,
            input: scan.schema(),
            above: chain,
            context,
        })
    }

    /// How many group keys there are.
    pub(super) fn key_count(&self) -> usize {
        self.partial.group_expr().num_group_exprs()
    }

    /// How many state columns each aggregate has, in the order of the state.
    pub(super) fn state_counts(&self) -> Result<Vec<usize>> {
        let aggregates = self.partial.aggr_expr().iter();
        aggregates.map(|a| Ok(a.state_fields()?.len())).collect()
    }

    /// The SQL name of each aggregate, in the order of the state.
    pub(super) fn aggregate_names(&self) -> impl Iterator<Item = &str> {
        self.partial.aggr_expr().iter().map(|a| a.fun().name())
    }

    /// Group keys, then state columns, as DataFusion names them.
    pub(super) fn state_schema(&self) -> SchemaRef {
        self.partial.schema()
    }

    /// Events to states.
    pub(super) fn partial(&self) -> Result<Stage> {
        self.stage(&self.below, &self.input)
    }

    /// Events to the keys of their groups, through the filter: what must not fail for an event to have a group.
    pub(super) fn keys(&self) -> Result<Stage> {
        let keys = AggregateExec::try_new(
            AggregateMode::Partial,
            self.partial.group_expr().clone(),
            Vec::new(),
            Vec::new(),
            Arc::clone(self.partial.input()),
            self.partial.input_schema(),
        )?;
        let mut below = self.below.clone();
        below[0] = Arc::new(keys);
        self.stage(&below, &self.input)
    }

    /// States to fewer states.
    pub(super) fn reduce(&self) -> Result<Stage> {
        let states = self.state_schema();
        let aggregates = self.partial.aggr_expr().to_vec();
        let filters = vec![None; aggregates.len()];
        let reduce = AggregateExec::try_new(
            AggregateMode::PartialReduce,
            self.partial.group_expr().as_final(),
            aggregates,
            filters,
            Arc::new(Leaf::new(Arc::clone(&states))),
            self.partial.input_schema(),
        )?;
        self.stage(&[Arc::new(reduce)], &states)
    }

    /// States to final values, through the projection.
    pub(super) fn finish(&self) -> Result<Stage> {
        self.stage(&self.above, &self.state_schema())
    }

    fn stage(&self, top_down: &[Arc<dyn ExecutionPlan>], input: &SchemaRef) -> Result<Stage> {
        let leaf = Leaf::new(Arc::clone(input));
        let mut top: Arc<dyn ExecutionPlan> = Arc::new(leaf.clone());
        let mut nodes = Vec::with_capacity(top_down.len());
        for node in top_down.iter().rev() {
            top = replace_children_if_necessary(Arc::clone(node), vec![top])?;
            nodes.push(Arc::clone(&top));
        }
        Ok(Stage {
            leaf,
            nodes,
            context: Arc::clone(&self.context),
            schema: top.schema(),
        })
    }
}

/// A plan in which every node has one input, from the top to the scan.
fn chain_of(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
    let mut chain = vec![Arc::clone(plan)];
    let mut node = Arc::clone(plan);
    loop {
        let next = match node.children()[..] {
            [] => return Ok(chain),
            [child] => Arc::clone(child),
            _ => return internal_err!("{} has several inputs", node.name()),
        };
        chain.push(Arc::clone(&next));
        node = next;
    }
}

fn mode_of(node: &Arc<dyn ExecutionPlan>) -> Option<AggregateMode> {
    node.downcast_ref::<AggregateExec>().map(|a| *a.mode())
}

impl Stage {
    /// The aggregate that is its top, and what is below it, from the leaf upwards; `None` when the top is another.
    pub(super) fn apart(&self) -> Option<(&AggregateExec, &[Arc<dyn ExecutionPlan>])> {
        let (top, below) = self.nodes.split_last()?;
        Some((top.downcast_ref::<AggregateExec>()?, below))
    }

    /// Two stages that are planned as this one is: from rows that pass a filter to states by these keys, and from states
    /// to fewer.
    pub(super) fn aggregates(
        &self,
        input: &SchemaRef,
        filter: Option<Arc<dyn PhysicalExpr>>,
        keys: Vec<(Arc<dyn PhysicalExpr>, String)>,
        aggregates: Vec<Filtered>,
    ) -> Result<(Self, Self)> {
        let keys = PhysicalGroupBy::new_single(keys);
        let merged = keys.as_final();
        let (aggregates, filters): (Vec<_>, Vec<_>) = aggregates.into_iter().unzip();
        let leaf = Leaf::new(Arc::clone(input));
        let mut nodes: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let mut below: Arc<dyn ExecutionPlan> = Arc::new(leaf.clone());
        if let Some(filter) = filter {
            below = Arc::new(FilterExec::try_new(filter, below)?);
            nodes.push(Arc::clone(&below));
        }
        let partial = AggregateExec::try_new(
            AggregateMode::Partial,
            keys,
            aggregates.clone(),
            filters,
            below,
            Arc::clone(input),
        )?;
        let states = partial.schema();
        nodes.push(Arc::new(partial));
        let of_states = Leaf::new(Arc::clone(&states));
        let reduce = AggregateExec::try_new(
            AggregateMode::PartialReduce,
            merged,
            aggregates.clone(),
            vec![None; aggregates.len()],
            Arc::new(of_states.clone()),
            Arc::clone(input),
        )?;
        let stage = |leaf, nodes| Self {
            leaf,
            nodes,
            context: Arc::clone(&self.context),
            schema: Arc::clone(&states),
        };
        let reduce: Vec<Arc<dyn ExecutionPlan>> = vec![Arc::new(reduce)];
        Ok((stage(leaf, nodes), stage(of_states, reduce)))
    }

    /// What a run returns.
    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Runs the stage over these batches and returns one batch. Their columns are those of its input
    /// in order and type; their names do not matter.
    ///
    /// The operators are made anew for each run, because their metrics would otherwise grow for ever;
    /// their properties are shared, so that costs next to nothing.
    pub(super) async fn run(&self, batches: Vec<RecordBatch>) -> Result<RecordBatch> {
        self.run_over(self.leaf.holding(batches)?).await
    }

    /// The same over batches as they come, which are not kept.
    pub(super) async fn run_stream(
        &self,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Result<RecordBatch> {
        self.run_over(self.leaf.yielding(batches)).await
    }

    async fn run_over(&self, leaf: Leaf) -> Result<RecordBatch> {
        let mut top: Arc<dyn ExecutionPlan> = Arc::new(leaf);
        for node in &self.nodes {
            top = replace_children_if_necessary(Arc::clone(node), vec![top])?;
        }
        let stream = top.execute(0, Arc::clone(&self.context))?;
        let mut results = common::collect(stream).await?;
        match results.len() {
            1 => Ok(results.swap_remove(0)),
            _ => Ok(concat_batches(&self.schema, &results)?),
        }
    }

    /// The operators, topmost first, one a line.
    pub(super) fn describe(&self) -> String {
        let top = self.nodes.last();
        top.map(|top| displayable(top.as_ref()).indent(false).to_string())
            .unwrap_or_default()
    }
}
