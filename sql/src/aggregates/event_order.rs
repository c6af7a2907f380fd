//! Where an event stands among all others: by event time, then sequence, then its ordinal in a batch
//! message; then by shard, so that two shards cannot tie.

use super::values::{elements, lists};
use crate::schema;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int32Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType},
};
use datafusion::common::{Result, internal_err, plan_err};
use std::sync::Arc;

/// Event time in microseconds, sequence, ordinal and shard, in the order in which they decide.
pub(super) type Place<'a> = (i64, i64, i32, &'a str);

/// A place that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) time_us: i64,
    sequence: i64,
    ordinal: i32,
    shard: Box<str>,
}

impl Kept {
    pub(super) fn as_place(&self) -> Place<'_> {
        (self.time_us, self.sequence, self.ordinal, &self.shard)
    }
}

impl From<Place<'_>> for Kept {
    fn from((time_us, sequence, ordinal, shard): Place<'_>) -> Self {
        Self {
            time_us,
            sequence,
            ordinal,
            shard: shard.into(),
        }
    }
}

/// The types of the columns of a place.
pub(super) fn types() -> [DataType; 4] {
    [
        schema::timestamp(),
        DataType::Int64,
        DataType::Int32,
        DataType::Utf8,
    ]
}

/// Checks that the arguments after the first ones are a place, and returns the types to take them in.
pub(super) fn coerce(name: &str, own: &[&str], arguments: &[DataType]) -> Result<Vec<DataType>> {
    if arguments.len() != own.len() + types().len() {
        let own = own.join(", ");
        return plan_err!(
            "{name} does not know the order of events: write {name}({own}, event_time, sequence, \
             ordinal, shard); in a meter {name}({own}) is enough"
        );
    }
    Ok(types().into())
}

/// The columns of places.
pub(super) struct Places<'a> {
    times: &'a TimestampMicrosecondArray,
    sequences: &'a Int64Array,
    ordinals: &'a Int32Array,
    shards: &'a StringArray,
}

impl<'a> Places<'a> {
    pub(super) fn of(columns: &'a [ArrayRef]) -> Result<Self> {
        if let [times, sequences, ordinals, shards, ..] = columns
            && let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>()
            && let Some(sequences) = sequences.as_primitive_opt::<Int64Type>()
            && let Some(ordinals) = ordinals.as_primitive_opt::<Int32Type>()
            && let Some(shards) = shards.as_string_opt::<i32>()
        {
            return Ok(Self {
                times,
                sequences,
                ordinals,
                shards,
            });
        }
        internal_err!("the columns are not event time, sequence, ordinal and shard")
    }

    /// Whether a row has a place: one of a NULL event time is the state of no event.
    pub(super) fn has(&self, row: usize) -> bool {
        self.times.is_valid(row)
    }

    pub(super) fn at(&self, row: usize) -> Place<'a> {
        (
            self.times.value(row),
            self.sequences.value(row),
            self.ordinals.value(row),
            self.shards.value(row),
        )
    }
}

/// The columns of these places; `None` is NULL.
pub(super) fn columns<'a>(places: &[Option<Place<'a>>]) -> Vec<ArrayRef> {
    let places = || places.iter();
    let times: TimestampMicrosecondArray = places().map(|p| p.map(|p| p.0)).collect();
    vec![
        Arc::new(times.with_data_type(schema::timestamp())),
        Arc::new(places().map(|p| p.map(|p| p.1)).collect::<Int64Array>()),
        Arc::new(places().map(|p| p.map(|p| p.2)).collect::<Int32Array>()),
        Arc::new(places().map(|p| p.map(|p| p.3)).collect::<StringArray>()),
    ]
}

/// Lists of places of these lengths, one list column for each of their columns.
pub(super) fn list_columns(
    lengths: &[usize],
    places: &[Option<Place<'_>>],
) -> Result<Vec<ArrayRef>> {
    let columns = columns(places).into_iter();
    columns
        .map(|column| lists(lengths.to_vec(), column))
        .collect()
}

/// Where the lists of a row are in their columns; the lists of a state are as long as one another.
pub(super) fn parallel<const N: usize>(
    lists: [&ListArray; N],
    row: usize,
) -> Result<[std::ops::Range<usize>; N]> {
    let ranges = lists.map(|list| elements(list, row));
    if ranges.windows(2).any(|pair| pair[0].len() != pair[1].len()) {
        return internal_err!("the lists of a state have different lengths");
    }
    Ok(ranges)
}
