//! Which columns a meter's states, panes and totals have.

use super::{
    faults::is_wide,
    shape::{ERROR, STATE_MARK, Shape},
};
use crate::{definitions::Frame, schema};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The columns of one meter. A state column has the name of the pane column that restores it.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of a state batch: `window_start`, keys, one column for each state.
    pub(super) state: SchemaRef,
    /// Of a pane: `window_start`, `window_end`, keys, measures, states that measures do not restore, `error`.
    pub(super) pane: SchemaRef,
    /// The same as it was before sums could be wide and groups in error: what a fingerprint is made of.
    pub(super) fingerprinted: SchemaRef,
    /// Of totals: keys, measures.
    pub(super) totals: SchemaRef,
    /// The states that hold digits of wide sums.
    pub(super) wide: BTreeSet<String>,
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
        // The last ones are `error` and, of a session, `window_end`, which are not the user's.
        let not_theirs = match shape.frame {
            Frame::Tumbling | Frame::Hopping { .. } => 1,
            Frame::Session { .. } => 2,
        };
        let own = &finished.fields()[1..finished.fields().len() - not_theirs];
        let keys_and_measures: Vec<FieldRef> = own.iter().map(|f| plain(f, f.name())).collect();
        let is_kept = |index: &usize| finished.index_of(&names[*index]).is_err();
        let kept: Vec<usize> = (1 + key_count..names.len()).filter(is_kept).collect();
        let wide = (0..names.len()).filter(|index| is_wide(states.field(*index)));
        let wide: BTreeSet<String> = wide.map(|index| names[index].clone()).collect();
        let with_kept = |mut pane: Vec<FieldRef>, kept: &[usize]| {
            pane.extend(kept.iter().map(|index| Arc::clone(&renamed[*index])));
            pane
        };
        let before: Vec<usize> = kept
            .iter()
            .copied()
            .filter(|i| !wide.contains(&names[*i]))
            .collect();
        let first = [window_fields(), keys_and_measures.clone()].concat();
        let fingerprinted = Schema::new(with_kept(first, &before));
        // Of a group in error only the subject is known for sure.
        let may_be_null = |field: &FieldRef| match field.name().as_str() {
            "subject" => Arc::clone(field),
            _ => Arc::new(field.as_ref().clone().with_nullable(true)),
        };
        let keys_and_measures: Vec<FieldRef> = keys_and_measures.iter().map(may_be_null).collect();
        let first = [window_fields(), keys_and_measures.clone()].concat();
        let mut pane = with_kept(first, &kept);
        pane.push(Arc::new(Field::new(ERROR, DataType::Utf8, true)));
        Self {
            state: Arc::new(Schema::new(renamed)),
            pane: Arc::new(Schema::new(pane)),
            fingerprinted: Arc::new(fingerprinted),
            totals: Arc::new(Schema::new(keys_and_measures)),
            wide,
            kept,
            key_count,
        }
    }

    /// Whether the measures restore all states, but for those of sums that are wide.
    pub(super) fn is_restored_by_measures(&self) -> bool {
        let mut kept = self.kept.iter();
        kept.all(|index| self.wide.contains(self.state.field(*index).name()))
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
/// measure that uses it, counted from 0. The digits of a wide sum have the name of the column that has the sum when it
/// fits: `<measure>__state_wide` or `<measure>__state<n>_wide`.
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
        let first = names.len();
        let of_aggregate = || first..first + count;
        let own = of_aggregate().filter(|index| !is_wide(states.field(*index)));
        let own = own.count();
        let restoring = restoring_measure(shape, aggregate, states.field(first), finished);
        match restoring.filter(|_| own == 1) {
            Some(name) => names.push(name.to_owned()),
            None => {
                let owner = owner(shape, aggregate);
                for _ in 0..own {
                    let number = counters.entry(owner).or_default();
                    names.push(format!("{owner}{STATE_MARK}{number}"));
                    *number += 1;
                }
            }
        }
        for wide in 0..count - own {
            let sum = &names[first + wide];
            let mark = if sum.contains(STATE_MARK) {
                ""
            } else {
                STATE_MARK
            };
            names.push(format!("{sum}{mark}_wide"));
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
