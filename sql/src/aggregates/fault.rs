//! Why a group has no value: the fault that a meter keeps beside its other states.
//!
//! An event that cannot be measured puts its group in error, whatever else the group holds, and one whose group
//! cannot be told all groups of its subject. Of several faults the least is kept, by its text, so that it depends
//! on nothing but the events. No query calls this aggregate: a meter adds it.

use super::fold::{Aggregate, Kind, Rows};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    datatypes::DataType,
};
use datafusion::{
    common::{Result, internal_err},
    logical_expr::{AggregateUDF, function::AccumulatorArgs},
};
use std::sync::Arc;

/// Its name among a meter's aggregates.
pub(crate) const NAME: &str = "__fault";

/// How the text begins when an event's group cannot be told.
const OF_SUBJECT: &str = "the group of an event cannot be told: ";
/// How the text begins when an event cannot be measured in its group.
const OF_GROUP: &str = "an event cannot be measured: ";
/// How the text begins when the values of a group cannot be made of its events.
const OF_VALUE: &str = "the values cannot be made: ";

/// More of a cause, in bytes, is left out: it may repeat what an event says.
const CAUSE_MAX: usize = 400;

/// What a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// All groups of a subject.
    Subject,
    /// A group with whatever else it holds.
    Group,
    /// What is made of a group as it is now; more events may mend it.
    Value,
}

impl About {
    /// The fault as a text.
    pub(crate) fn text(self, cause: &str) -> String {
        let mut end = cause.len().min(CAUSE_MAX);
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        let dots = if end < cause.len() { "…" } else { "" };
        format!("{}{}{dots}", self.beginning(), &cause[..end])
    }

    /// What a text is about.
    pub(crate) fn of(text: &str) -> Self {
        let all = [About::Subject, About::Value];
        let found = all
            .into_iter()
            .find(|about| text.starts_with(about.beginning()));
        found.unwrap_or(About::Group)
    }

    fn beginning(self) -> &'static str {
        match self {
            About::Subject => OF_SUBJECT,
            About::Group => OF_GROUP,
            About::Value => OF_VALUE,
        }
    }
}

/// The aggregate that a meter adds to its own; of the time of each event, which it does not look at.
pub(crate) fn fault() -> AggregateUDF {
    super::udaf(Fault)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Fault;

impl Kind for Fault {
    type Aggregate = Faults;

    fn name(&self) -> &'static str {
        NAME
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arguments.to_vec())
    }

    fn result(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn state(&self, _arguments: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![DataType::Utf8])
    }

    fn aggregate(&self, _args: &AccumulatorArgs) -> Result<Faults> {
        Ok(Faults)
    }
}

#[derive(Debug, Clone)]
struct Faults;

impl Aggregate for Faults {
    type Group = Option<Box<str>>;

    /// An event that gets here was measured.
    fn update(&self, _: &mut [Self::Group], _: &[ArrayRef], _: Rows<'_>) -> Result<()> {
        Ok(())
    }

    fn merge(&self, groups: &mut [Self::Group], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let Some(faults) = states[0].as_string_opt::<i32>() else {
            return internal_err!("a fault is {}, not text", states[0].data_type());
        };
        if faults.null_count() == faults.len() {
            return Ok(());
        }
        let order = |text: &str| (About::of(text), text.to_owned());
        for (row, group) in rows.iter().filter(|(row, _)| faults.is_valid(*row)) {
            let fault = faults.value(row);
            let known = groups[group].as_deref();
            if known.is_none_or(|known| order(fault) < order(known)) {
                groups[group] = Some(fault.into());
            }
        }
        Ok(())
    }

    fn states(&self, groups: &[Self::Group]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(groups)?])
    }

    fn values(&self, groups: &[Self::Group]) -> Result<ArrayRef> {
        let texts: StringArray = groups.iter().map(Option::as_deref).collect();
        Ok(Arc::new(texts))
    }
}
