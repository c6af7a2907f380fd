//! Which columns a meter's states, panes and totals have.

use super::shape::{STATE_MARK, Shape};
use crate::{definitions::Frame, schema};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use std::{collections::BTreeMap, sync::Arc};

/// The columns of one meter. A state column has the name of the pane column that restores it.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of a state batch: `window_start`, keys, one column for each state.
    pub(super) state: SchemaRef,
    /// Of a pane: `window_start`, `window_end`, keys, measures, states that measures do not restore.
    pub(super) pane: SchemaRef,
    /// Of totals: keys, measures.
    pub(super) totals: SchemaRef,
    /// Of the states that a pane keeps beside its measures, where they are in a state batch.
    pub(super) kept: Vec<usize>,
    /// How many group keys there are, the window not counted.
    pub(super) key_count: usize,
}

impl Layout {
    /// `states` and `finished` are the columns of the planned stages; `state_counts` says how many
    /// of the state columns belong to each aggregate.
    pub(super) fn new(
        shape: &Shape,
        states: &Schema,
        state_counts: &[usize],
        finished: &Schema,
    ) -> Self {
        let key_count = shape.keys.len();
        let names = state_names(shape, states, state_counts, finished);
        let renamed = rename(states, &names);
        let own = match shape.frame {
            Frame::Tumbling | Frame::Hopping { .. } => &finished.fields()[1..],
            // The last one is `window_end`, which is not the user's.
            Frame::Session { .. } => &finished.fields()[1..finished.fields().len() - 1],
        };
        let keys_and_measures: Vec<FieldRef> = own.iter().map(|f| plain(f, f.name())).collect();
        let is_kept = |index: &usize| finished.index_of(&names[*index]).is_err();
        let kept: Vec<usize> = (1 + key_count..names.len()).filter(is_kept).collect();
        let mut pane = window_fields();
        pane.extend(keys_and_measures.iter().cloned());
        pane.extend(kept.iter().map(|index| Arc::clone(&renamed[*index])));
        Self {
            state: Arc::new(Schema::new(renamed)),
            pane: Arc::new(Schema::new(pane)),
            totals: Arc::new(Schema::new(keys_and_measures)),
            kept,
            key_count,
        }
    }
}

fn window_fields() -> Vec<FieldRef> {
    let field = |name| Arc::new(Field::new(name, schema::timestamp(), false));
    vec![field("window_start"), field("window_end")]
}

/// A field without metadata.
fn plain(field: &Field, name: &str) -> FieldRef {
    Arc::new(Field::new(
        name,
        field.data_type().clone(),
        field.is_nullable(),
    ))
}

fn rename(schema: &Schema, names: &[String]) -> Vec<FieldRef> {
    let fields = schema.fields().iter();
    fields
        .zip(names)
        .map(|(field, name)| plain(field, name))
        .collect()
}

/// Names the columns of a state batch. The state of an aggregate that some measure simply is, with
/// the same type, has that measure's name; any other is `<measure>__state<n>`, after the first
/// measure that uses it, counted from 0.
fn state_names(
    shape: &Shape,
    states: &Schema,
    state_counts: &[usize],
    finished: &Schema,
) -> Vec<String> {
    let mut names = vec!["window_start".to_owned()];
    names.extend(shape.keys.iter().cloned());
    let mut counters: BTreeMap<&str, usize> = BTreeMap::new();
    for (aggregate, count) in state_counts.iter().enumerate() {
        if *count == 1
            && let Some(name) =
                restoring_measure(shape, aggregate, states.field(names.len()), finished)
        {
            names.push(name.to_owned());
            continue;
        }
        let owner = owner(shape, aggregate);
        for _ in 0..*count {
            let number = counters.entry(owner).or_default();
            names.push(format!("{owner}{STATE_MARK}{number}"));
            *number += 1;
        }
    }
    names
}

/// The measure that is this aggregate and whose values are its states.
fn restoring_measure<'a>(
    shape: &'a Shape,
    aggregate: usize,
    state: &Field,
    finished: &Schema,
) -> Option<&'a str> {
    let is_it = |measure: &&super::shape::Measure| {
        measure.plain
            && measure.aggregates.contains(&aggregate)
            && finished
                .field_with_name(&measure.name)
                .is_ok_and(|field| field.data_type() == state.data_type())
    };
    shape.measures.iter().find(is_it).map(|m| m.name.as_str())
}

fn owner(shape: &Shape, aggregate: usize) -> &str {
    let uses = |measure: &&super::shape::Measure| measure.aggregates.contains(&aggregate);
    let owner = shape.measures.iter().find(uses);
    owner.map_or("unused", |measure| measure.name.as_str())
}
