//! How a meter's query becomes the two halves of a physical plan.

use super::{leaf, pipeline::Halves, shape};
use crate::{
    definitions::{EventType, MeterDefinition},
    error::Result,
    schema, session,
};
use arrow::datatypes::DataType;
use datafusion::{
    common::{TableReference, internal_err},
    error::DataFusionError,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::LogicalPlan,
    optimizer::{
        optimize_projections::OptimizeProjections, simplify_expressions::SimplifyExpressions,
    },
    prelude::{SessionConfig, SessionContext},
};
use std::sync::Arc;

/// A session state that plans without anything that would merge, split or reorder the two halves.
pub(super) fn planner(
    event_type: &EventType,
    mut config: SessionConfig,
) -> Result<SessionState, DataFusionError> {
    config = config.with_target_partitions(1);
    // States of a batch are always grouped, however many groups there are.
    let execution = &mut config.options_mut().execution;
    execution.skip_partial_aggregation_probe_rows_threshold = usize::MAX;
    let context: SessionContext = session::context_with(config);
    let events = leaf::Events::new(schema::event_relation(event_type));
    // A bare reference keeps the name as it is; text would be folded to lower case.
    context.register_table(
        TableReference::bare(event_type.name.as_str()),
        Arc::new(events),
    )?;
    Ok(SessionStateBuilder::new_from_existing(context.state())
        .with_optimizer_rules(vec![
            Arc::new(SimplifyExpressions::new()),
            Arc::new(OptimizeProjections::new()),
        ])
        .with_physical_optimizer_rules(Vec::new())
        .build())
}

/// Refuses types that are not exact, once the analyzer has settled them, and what fails on every event.
pub(super) fn check_types(
    definition: &MeterDefinition,
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<()> {
    let analyzer = state.analyzer();
    let analysed = analyzer.execute_and_check(plan.clone(), state.config_options(), |_, _| {});
    let analysed = analysed.map_err(|source| shape::plan_error(definition, source))?;
    shape::check_types(definition, &analysed)?;
    shape::check_constants(definition, state, &analysed)
}

pub(super) async fn halves(
    state: &SessionState,
    plan: &LogicalPlan,
) -> Result<Halves, DataFusionError> {
    let physical = state.create_physical_plan(plan).await?;
    Halves::of(&physical, state.task_ctx())
}

/// Both plans must keep the same states, or totals could not be made of windows.
pub(super) fn check_alike(
    shape: &shape::Shape,
    per_window: &Halves,
    in_total: &Halves,
) -> Result<(), DataFusionError> {
    let types = |halves: &Halves, from: usize| -> Vec<DataType> {
        let states = halves.state_schema();
        let fields = states.fields().iter().skip(from);
        fields.map(|field| field.data_type().clone()).collect()
    };
    let key_count = shape.keys.len();
    let alike = per_window.key_count() == 1 + key_count
        && in_total.key_count() == key_count
        && types(per_window, 1) == types(in_total, 0)
        && per_window.state_counts()? == in_total.state_counts()?;
    if alike {
        Ok(())
    } else {
        internal_err!("the plans by window and in total keep different states")
    }
}
