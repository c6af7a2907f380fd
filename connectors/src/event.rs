//! CloudEvents to typed Arrow columns, and what is set aside, with its reason.
//!
//! ```text
//!  Message ─▶ headers: which form? ─▶ structured │ batch │ NDJSON │ binary
//!                                          └── one event each ──▶ envelope ─▶ shape ─▶ columns
//!                                                 a fault at any step: a row with status and reason
//! ```
//!
//! [`Decoder`] makes one row of every event, in order of (sequence, ordinal), whatever is wrong with
//! it. Every message makes at least one row, so nothing is silent.
//!
//! # What is accepted
//!
//! * **Forms.** The content type decides, without its parameters and without regard to case:
//!   `application/cloudevents+json` is one event, `application/cloudevents-batch+json` an array,
//!   `application/x-ndjson` one event a line (blank lines are passed over). Any `ce-` header makes it
//!   binary mode. With none of these, or `application/json`, the payload is one event.
//! * **Attributes.** `specversion` is `1.0`; `id`, `source`, `type` and `subject` are strings that are not
//!   empty. Extension attributes are allowed and not stored. `null` is the same as not sent.
//! * **`time`** is RFC 3339 with any offset, from 1970 on, with up to nine fraction digits; below the
//!   microsecond it is rounded down, for publishers do send nanoseconds and no window is finer. Without
//!   `time` the event happened when it was stored. A second numbered 60 is refused.
//! * **Numbers** go by their exact value, from their text: for BIGINT `5.0` and `1e3` are whole numbers;
//!   for DECIMAL every digit must fit. A number in quotes is a string and refused, unless the column
//!   takes strings ([`STRINGS_KEY`]) and the string is exactly one JSON number.
//! * **Lists** are arrays whose every element is read as a value of the element's type. `null` is no
//!   element: what it would count as differs from function to function.
//! * **TIMESTAMP** columns are RFC 3339 strings and refused when finer than a microsecond (they are data);
//!   DATE is `YYYY-MM-DD`; VARCHAR takes only strings, BOOLEAN only `true` and `false`.
//! * **Missing or `null`** is NULL, and refused for a NOT NULL column. Where a default is given
//!   ([`DEFAULT_KEY`]) it stands for a missing value, also when an object on the way is missing or
//!   `null`; an explicit `null` stays NULL.
//! * **A key given twice** in the event or in `data` is refused. Values that are not declared are
//!   checked as JSON and not looked into.
//! * **`extra`** is a JSON object of the fields of `data` that are not declared, as they were written. Of
//!   an object that holds a declared path, what else is in it stays below its key.
//!
//! # What is kept of the others
//!
//! `raw` is the event's own bytes: the line, the element or the payload; in binary mode the structured
//! event it stands for; of a message whose headers cannot be read, the header block and the payload, and no
//! event is looked for in either. Where a JSON array is broken, the elements before the place are taken (the same
//! message is always cut at the same place, so a repeat stays a repeat), and the rest is one row. An
//! element that is JSON but a bad event is refused alone, also when a string in it is not UTF-8. A
//! message with more events than 64 and one for every eight bytes cannot be honest: the rest is one row.

mod again;
mod base64;
mod batch;
mod columns;
mod difference;
mod envelope;
mod headers;
mod identity;
mod judge;
mod packed;
mod rows;
mod scan;
mod shape;
mod text;
mod time;
mod value_hash;

#[cfg(test)]
mod tests;

pub use again::with_time;
pub use difference::{Difference, json_differences};
pub(crate) use headers::percent_decode;
pub use packed::Packer;
pub use rows::{EventBatch, TypedRows};

use crate::{Error, Message, Result};
use arrow::array::{Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use batch::Run;
use columns::Layout;
use envelope::Envelope;
use identity::Identity;
use judge::Time;
use shape::Shape;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use text::trim;

// These keys are also in the crate that makes the schema, which this one does not see.

/// Metadata key on a struct field of `events`: the CloudEvents `type` whose data it holds.
pub const TYPE_KEY: &str = "tollgate.type";
/// Metadata key on a child of such a struct: where in `data` the value is, as a JSON array of keys.
pub const PATH_KEY: &str = "tollgate.path";
/// Metadata key on a child of such a struct: present and `true` when it must be there.
pub const REQUIRED_KEY: &str = "tollgate.required";
/// Metadata key on a child of such a struct: present and `true` when numbers may come in quotes.
pub const STRINGS_KEY: &str = "tollgate.strings";
/// Metadata key on a child of such a struct: the JSON value that stands for one that is missing.
pub const DEFAULT_KEY: &str = "tollgate.default";

/// The rule by which content hashes are made now: the column `content_version`. Version 1, the bytes of `data`, has NULL
/// there; version 2 is what `data` says as JSON.
pub const CONTENT_VERSION: u8 = 2;

/// Arrow's offsets are 32 bits, so one batch cannot hold 2 GiB of text. Half of it is for the input,
/// half for what is written about it.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// The limits a decoder enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeOptions {
    /// How far an event's time may be after its ingest time, in microseconds. Default: 5 minutes. A
    /// larger value lets a wrong clock put usage into a later window.
    pub max_future_skew_us: i64,
    /// The largest payload in bytes. Default: 64 MiB, which is also the largest NATS can carry.
    pub max_payload_bytes: usize,
    /// The largest event in bytes. Default: 1 MiB.
    pub max_event_bytes: usize,
    /// The longest number of a declared column, in bytes. Default: 100. 38 digits need 40.
    pub max_number_len: usize,
    /// Finds which of the types that are defined an unknown one nearly is, by its place. Default: none is found.
    pub nearest_type: NearestType,
}

/// A function that finds a name nearly among others, by its place. All such functions are equal: they only choose words.
#[derive(Debug, Clone, Copy)]
pub struct NearestType(pub fn(&str, &[&str]) -> Option<usize>);

impl PartialEq for NearestType {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for NearestType {}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            max_future_skew_us: 300_000_000,
            max_payload_bytes: 64 << 20,
            max_event_bytes: 1 << 20,
            max_number_len: 100,
            nearest_type: NearestType(|_, _| None),
        }
    }
}

/// What became of an event: the column `status`.
///
/// A decoder gives the first three; the other two need to know other events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Counted.
    Ok,
    /// Malformed, of a wrong type, with a field missing or out of range, or too far in the future.
    Rejected,
    /// Well formed, but no event type of this name is defined.
    Unmatched,
    /// Counted, in a later pane.
    Late,
    /// An id seen before with other content.
    Conflict,
}

impl Status {
    /// The text in the column.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Rejected => "rejected",
            Status::Unmatched => "unmatched",
            Status::Late => "late",
            Status::Conflict => "conflict",
        }
    }

    /// The column of these, to put in the place of the one in a batch.
    pub fn column(all: &[Status]) -> StringArray {
        StringArray::from_iter_values(all.iter().map(|status| status.as_str()))
    }
}

/// The bytes of one event in its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// This part of the payload.
    Part { message: usize, bytes: Range<usize> },
    /// A whole message in binary mode.
    Binary { message: usize },
    /// A whole message whose headers cannot be read.
    Unread { message: usize },
}

impl Origin {
    fn raw<'m>(&self, messages: &'m [Message]) -> Option<Cow<'m, [u8]>> {
        match self {
            Origin::Part { message, bytes } => {
                let payload = &messages.get(*message)?.payload;
                payload.get(bytes.clone()).map(Cow::Borrowed)
            }
            Origin::Binary { message } => {
                let message = messages.get(*message)?;
                Some(Cow::Owned(headers::as_structured(message)))
            }
            Origin::Unread { message } => messages.get(*message)?.raw().map(Cow::Owned),
        }
    }
}

/// The events of some messages, one row each, in order of (sequence, ordinal).
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The rows, of the decoder's schema.
    pub events: EventBatch,
    /// For each row XXH3-128 of its length-prefixed source and event id; 0 when it has not both.
    pub keys: Vec<u128>,
    /// For each row the same as the column `status`.
    pub statuses: Vec<Status>,
    origins: Vec<Origin>,
}

impl Decoded {
    /// The column `event_time`: microseconds; null where no time could be read. Empty when the schema
    /// was changed since.
    pub fn event_times(&self) -> TimestampMicrosecondArray {
        let column = self.events.head().column_by_name("event_time");
        let times = column.and_then(|c| c.as_any().downcast_ref::<TimestampMicrosecondArray>());
        times
            .cloned()
            .unwrap_or_else(|| TimestampMicrosecondArray::from(Vec::<i64>::new()))
    }

    /// The bytes to keep of one row, when it turns out later that it is set aside.
    ///
    /// `messages` must be those that were decoded. `None` when there is no such row.
    pub fn raw<'m>(&self, messages: &'m [Message], row: usize) -> Option<Cow<'m, [u8]>> {
        self.origins.get(row)?.raw(messages)
    }

    /// The content hash of one row by the rule of version 1, which ids in older lakes have.
    ///
    /// `messages` must be those that were decoded. `None` when there is no such row, or it is no event.
    pub fn first_content(&self, messages: &[Message], row: usize) -> Option<i64> {
        let mut envelope = Envelope::default();
        match self.origins.get(row)? {
            Origin::Part { message, bytes } => {
                let payload = &messages.get(*message)?.payload;
                let text = std::str::from_utf8(trim(payload.get(bytes.clone())?)).ok()?;
                envelope.read_json(text, &mut Vec::new()).ok()?;
            }
            Origin::Binary { message } => envelope.read_binary(messages.get(*message)?).ok()?,
            Origin::Unread { .. } => return None,
        }
        // The time of a row that was sent without one is not part of its content.
        let time = Time::of(&envelope, false, 0);
        Some(Identity::default().first_content(&envelope, &time))
    }
}

/// Turns messages into rows of `events`.
#[derive(Debug)]
pub struct Decoder {
    layout: Layout,
    shard: String,
    options: DecodeOptions,
    shapes: Vec<Shape>,
    by_type: HashMap<String, usize>,
    /// Rows of the last batch: the room made for the next.
    expected_rows: usize,
}

impl Decoder {
    /// A decoder for this schema of `events`; field metadata under the keys above says what to read.
    ///
    /// # Errors
    /// [`Error::Data`] when the schema has a column that cannot be decoded, lacks one that every event
    /// has, or has two structs for one type.
    pub fn new(schema: SchemaRef, shard: &str, options: DecodeOptions) -> Result<Self> {
        let mut shapes = Vec::new();
        let mut by_type = HashMap::new();
        for field in schema.fields() {
            if let DataType::Struct(children) = field.data_type() {
                let shape = Shape::new(field, children)?;
                if by_type.insert(shape.kind.clone(), shapes.len()).is_some() {
                    return Err(unfit(format!("two columns for the type `{}`", shape.kind)));
                }
                shapes.push(shape);
            }
        }
        Ok(Decoder {
            layout: Layout::new(schema)?,
            shard: shard.to_owned(),
            options,
            shapes,
            by_type,
            expected_rows: 0,
        })
    }

    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.layout.schema
    }

    /// Decodes messages into one batch: at least one row a message.
    ///
    /// # Errors
    /// [`Error::Data`] when the messages are too large for one batch (1 GiB of input, or of reasons and
    /// raw bytes: decode fewer at a time), or when a sequence or ingest time is beyond what a column
    /// can hold. Never for anything in a payload.
    pub fn decode(&mut self, messages: &[Message]) -> Result<Decoded> {
        check_size(messages)?;
        let rows = self.expected_rows.max(messages.len());
        let decoded = Run::new(self, messages, rows).decode()?;
        self.expected_rows = decoded.keys.len();
        Ok(decoded)
    }
}

/// The key of an event: XXH3-128 of its source and id, each after its length, so that no two pairs
/// become one by joining. It is stored, so it never changes, and it is never 0.
///
/// ```
/// # use tollgate_connectors::event::event_key;
/// assert_ne!(event_key("a", "bc"), event_key("ab", "c"));
/// ```
pub fn event_key(source: &str, event_id: &str) -> u128 {
    Identity::default().pair(source, event_id)
}

/// The input of one batch must fit the offsets of one column.
fn check_size(messages: &[Message]) -> Result<()> {
    let bytes: usize = messages.iter().map(Message::bytes).sum();
    if bytes > MAX_BATCH_BYTES {
        return Err(unfit(format!(
            "{bytes} bytes of messages in one batch, above {MAX_BATCH_BYTES}"
        )));
    }
    Ok(())
}

/// An error of the schema or the batch, not of an event.
fn unfit(problem: String) -> Error {
    Error::Data {
        table: "events".to_owned(),
        problem,
    }
}
