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
//!   for DECIMAL every digit must fit. A number in quotes is a string and refused.
//! * **TIMESTAMP** columns are RFC 3339 strings and refused when finer than a microsecond (they are data);
//!   DATE is `YYYY-MM-DD`; VARCHAR takes only strings, BOOLEAN only `true` and `false`.
//! * **Missing or `null`** is NULL, and refused for a NOT NULL column.
//! * **A key given twice** in the event or in `data` is refused. Values that are not declared are
//!   checked as JSON and not looked into.
//! * **`extra`** is a JSON object of the fields of `data` that are not declared, as they were written. Of
//!   an object that holds a declared path, what else is in it stays below its key.
//!
//! # What is kept of the others
//!
//! `raw` is the event's own bytes: the line, the element or the payload; in binary mode the structured
//! event it stands for. Where a JSON array is broken, the elements before the place are taken (the same
//! message is always cut at the same place, so a repeat stays a repeat), and the rest is one row. An
//! element that is JSON but a bad event is refused alone, also when a string in it is not UTF-8. A
//! message with more events than 64 and one for every eight bytes cannot be honest: the rest is one row.

mod columns;
mod envelope;
mod headers;
mod number;
mod scan;
mod shape;
mod text;
mod time;

#[cfg(test)]
mod tests;

use crate::{Error, Message, Result};
use arrow::array::{Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use columns::{Columns, Head, Place, check_head};
use envelope::Envelope;
use headers::{Form, as_structured};
use scan::{Scanner, Token};
use shape::{Scratch, Shape};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use text::{describe, shorten, trim};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

// The three keys are also in the crate that makes the schema, which this one does not see.

/// Metadata key on a struct field of `events`: the CloudEvents `type` whose data it holds.
pub const TYPE_KEY: &str = "tollgate.type";
/// Metadata key on a child of such a struct: where in `data` the value is, as a JSON array of keys.
pub const PATH_KEY: &str = "tollgate.path";
/// Metadata key on a child of such a struct: present and `true` when it must be there.
pub const REQUIRED_KEY: &str = "tollgate.required";

const DAY_US: i64 = 86_400_000_000;

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
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            max_future_skew_us: 300_000_000,
            max_payload_bytes: 64 << 20,
            max_event_bytes: 1 << 20,
            max_number_len: 100,
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
}

/// The events of some messages, one row each, in order of (sequence, ordinal).
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The rows, with exactly the decoder's schema.
    pub batch: RecordBatch,
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
        let column = self.batch.column_by_name("event_time");
        let times = column.and_then(|c| c.as_any().downcast_ref::<TimestampMicrosecondArray>());
        times
            .cloned()
            .unwrap_or_else(|| TimestampMicrosecondArray::from(Vec::<i64>::new()))
    }

    /// The bytes to keep of one row, when it turns out later that it is set aside.
    ///
    /// `messages` must be those that were decoded. `None` when there is no such row.
    pub fn raw<'m>(&self, messages: &'m [Message], row: usize) -> Option<Cow<'m, [u8]>> {
        match self.origins.get(row)? {
            Origin::Part { message, bytes } => {
                let payload = &messages.get(*message)?.payload;
                payload.get(bytes.clone()).map(Cow::Borrowed)
            }
            Origin::Binary { message } => {
                messages.get(*message).map(|m| Cow::Owned(as_structured(m)))
            }
        }
    }
}

/// Turns messages into rows of `events`.
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
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
        check_head(&schema, &shapes)?;
        Ok(Decoder {
            schema,
            shard: shard.to_owned(),
            options,
            shapes,
            by_type,
            expected_rows: 0,
        })
    }

    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
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
        let mut run = Run {
            decoder: self,
            columns: Columns::new(&self.shapes, rows),
            keys: Vec::with_capacity(rows),
            origins: Vec::with_capacity(rows),
            scratch: Scratch::default(),
            extensions: Vec::new(),
            hashed: Vec::with_capacity(512),
            last_shape: 0,
            written_bytes: 0,
        };
        for (index, message) in messages.iter().enumerate() {
            run.message(index, message)?;
        }
        let decoded = run.finish()?;
        self.expected_rows = decoded.keys.len();
        Ok(decoded)
    }
}

/// The input of one batch must fit the offsets of one column.
fn check_size(messages: &[Message]) -> Result<()> {
    let headers = |m: &Message| {
        m.headers
            .iter()
            .map(|(n, v)| n.len() + v.len())
            .sum::<usize>()
    };
    let bytes: usize = messages.iter().map(|m| m.payload.len() + headers(m)).sum();
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

/// One message while its events are read.
struct Current<'a> {
    message: &'a Message,
    index: usize,
    place: Place,
}

impl<'a> Current<'a> {
    fn new(index: usize, message: &'a Message) -> Result<Self> {
        let sequence = message.sequence.0;
        let day = message.ingest_time_us.div_euclid(DAY_US);
        let place = Place {
            sequence: i64::try_from(sequence)
                .map_err(|_| unfit(format!("sequence {sequence} is too large")))?,
            ordinal: 0,
            ingest_time_us: message.ingest_time_us,
            ingest_day: i32::try_from(day)
                .map_err(|_| unfit(format!("ingest day {day} is out of range")))?,
        };
        Ok(Current {
            message,
            index,
            place,
        })
    }

    /// Whether another event may follow: a message of so few bytes cannot hold more.
    fn has_room(&self) -> bool {
        let most = 64 + self.message.payload.len() / 8;
        usize::try_from(self.place.ordinal).is_ok_and(|ordinal| ordinal < most)
    }

    fn part(&self, bytes: Range<usize>) -> Origin {
        Origin::Part {
            message: self.index,
            bytes,
        }
    }

    fn whole(&self) -> Origin {
        self.part(0..self.message.payload.len())
    }

    fn too_many(&self) -> String {
        format!(
            "more than {} events in {} bytes",
            self.place.ordinal,
            self.message.payload.len()
        )
    }
}

/// What was decided about one event.
enum Verdict {
    /// Its values are in the scratch.
    Ok {
        shape: usize,
    },
    Unmatched(String),
    Rejected(String),
}

/// One call of [`Decoder::decode`].
struct Run<'d, 'a> {
    decoder: &'d Decoder,
    columns: Columns,
    keys: Vec<u128>,
    origins: Vec<Origin>,
    scratch: Scratch<'a>,
    extensions: Vec<Token>,
    hashed: Vec<u8>,
    last_shape: usize,
    /// Bytes of reasons, raw and shard names, which are not bounded by the input.
    written_bytes: usize,
}

impl<'a> Run<'_, 'a> {
    fn message(&mut self, index: usize, message: &'a Message) -> Result<()> {
        let mut current = Current::new(index, message)?;
        let length = message.payload.len();
        let limit = self.decoder.options.max_payload_bytes;
        if length > limit {
            let reason = format!("payload of {length} bytes, above the limit of {limit}");
            return self.refuse(&mut current, 0..length, reason);
        }
        match Form::of(message) {
            Err(reason) => self.refuse(&mut current, 0..length, reason)?,
            Ok(Form::Structured) => self.single(&mut current)?,
            Ok(Form::Batch) => self.array(&mut current)?,
            Ok(Form::Lines) => self.lines(&mut current)?,
            Ok(Form::Binary) => self.binary(&mut current)?,
        }
        if current.place.ordinal == 0 {
            self.refuse(
                &mut current,
                0..length,
                "no event in the payload".to_owned(),
            )?;
        }
        Ok(())
    }

    fn single(&mut self, current: &mut Current<'a>) -> Result<()> {
        let payload: &'a [u8] = &current.message.payload;
        match payload.first() {
            None => self.refuse(current, 0..0, "the payload is empty".to_owned()),
            Some(_) => self.json(current, 0..payload.len()),
        }
    }

    fn lines(&mut self, current: &mut Current<'a>) -> Result<()> {
        let payload: &'a [u8] = &current.message.payload;
        let mut start = 0;
        for line in payload.split(|byte| *byte == b'\n') {
            if !trim(line).is_empty() {
                if !current.has_room() {
                    let reason = current.too_many();
                    return self.refuse(current, start..payload.len(), reason);
                }
                self.json(current, start..start + line.len())?;
            }
            start += line.len() + 1;
        }
        Ok(())
    }

    fn array(&mut self, current: &mut Current<'a>) -> Result<()> {
        let payload: &'a [u8] = &current.message.payload;
        let mut scanner = Scanner::new(payload);
        let mut rest = 0;
        let mut after = scanner.enter(b'[', b']');
        while let Ok(true) = after {
            if !current.has_room() {
                let reason = current.too_many();
                return self.refuse(current, scanner.at()..payload.len(), reason);
            }
            rest = scanner.at();
            after = match scanner.value() {
                Ok(element) => {
                    self.json(current, element.start..element.end)?;
                    rest = element.end;
                    scanner.more(b']')
                }
                Err(fault) => Err(fault),
            };
        }
        match after.and_then(|_| scanner.finish()) {
            Ok(()) => Ok(()),
            Err(fault) => self.refuse(current, rest..payload.len(), format!("batch: {fault}")),
        }
    }

    fn binary(&mut self, current: &mut Current<'a>) -> Result<()> {
        let mut envelope = Envelope::default();
        let problem = envelope.read_binary(current.message).err();
        let origin = Origin::Binary {
            message: current.index,
        };
        self.event(current, &envelope, problem, origin)
    }

    /// One structured event in this part of the payload.
    fn json(&mut self, current: &mut Current<'a>, bytes: Range<usize>) -> Result<()> {
        let message: &'a Message = current.message;
        let text = trim(message.payload.get(bytes.clone()).unwrap_or_default());
        let limit = self.decoder.options.max_event_bytes;
        if text.len() > limit {
            let reason = format!("event of {} bytes, above the limit of {limit}", text.len());
            return self.refuse(current, bytes, reason);
        }
        let mut envelope = Envelope::default();
        let problem = match std::str::from_utf8(text) {
            Ok(text) => self.read_object(&mut envelope, text).err(),
            Err(error) => {
                // What stands before the bad byte still tells whose event it was.
                let (before, _) = text.split_at(error.valid_up_to());
                let before = std::str::from_utf8(before).unwrap_or_default();
                let _ = self.read_object(&mut envelope, before);
                Some(format!("not valid UTF-8 at byte {}", error.valid_up_to()))
            }
        };
        let origin = current.part(bytes);
        self.event(current, &envelope, problem, origin)
    }

    fn read_object(&mut self, envelope: &mut Envelope<'a>, text: &'a str) -> Result<(), String> {
        match text.bytes().next() {
            Some(b'{') => envelope.read_json(text, &mut self.extensions),
            Some(b'"' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => Err(format!(
                "an event must be a JSON object, got {}",
                describe(text)
            )),
            Some(_) => Err("not valid JSON at byte 0: expected an object".to_owned()),
            None => Err("nothing but blanks".to_owned()),
        }
    }

    /// Sets aside bytes in which no event was looked for.
    fn refuse(
        &mut self,
        current: &mut Current<'a>,
        bytes: Range<usize>,
        reason: String,
    ) -> Result<()> {
        let origin = if bytes.end == 0 {
            current.whole()
        } else {
            current.part(bytes)
        };
        self.event(current, &Envelope::default(), Some(reason), origin)
    }

    /// Judges one event and adds its row.
    fn event(
        &mut self,
        current: &mut Current<'a>,
        envelope: &Envelope<'a>,
        problem: Option<String>,
        origin: Origin,
    ) -> Result<()> {
        let ingest_time = current.place.ingest_time_us;
        let time = event_time(envelope, problem.is_some(), ingest_time);
        let judged = match problem {
            Some(reason) => Err(reason),
            None => self.judge(envelope, &time, ingest_time),
        };
        let verdict = judged.unwrap_or_else(Verdict::Rejected);
        let key = self.key(envelope);
        let content_hash = (key != 0).then(|| self.content_hash(envelope, &time));
        let (status, reason, shape) = match &verdict {
            Verdict::Ok { shape } => (Status::Ok, None, Some(*shape)),
            Verdict::Unmatched(reason) => (Status::Unmatched, Some(reason.as_str()), None),
            Verdict::Rejected(reason) => (Status::Rejected, Some(reason.as_str()), None),
        };
        let raw = match (status, &origin) {
            (Status::Ok, _) => None,
            (_, Origin::Binary { .. }) => Some(Cow::Owned(as_structured(current.message))),
            (_, Origin::Part { bytes, .. }) => current
                .message
                .payload
                .get(bytes.clone())
                .map(Cow::Borrowed),
        };
        self.written_bytes += self.decoder.shard.len()
            + reason.map_or(0, str::len)
            + raw.as_ref().map_or(0, |r| r.len());
        if self.written_bytes > MAX_BATCH_BYTES {
            return Err(unfit(format!(
                "more than {MAX_BATCH_BYTES} bytes set aside in one batch"
            )));
        }
        if let Some(shape) = shape {
            self.columns.push_values(shape, &self.scratch.values);
        }
        let head = Head {
            id: envelope.id.text(),
            source: envelope.source.text(),
            kind: envelope.kind.text(),
            subject: envelope.subject.text(),
            event_time: time.micros(),
            status,
            reason,
            raw: raw.as_deref(),
            content_hash,
            extra: shape.and_then(|_| self.scratch.extra()),
        };
        self.columns.push(current.place, &head);
        self.keys.push(key);
        self.origins.push(origin);
        current.place.ordinal += 1;
        Ok(())
    }

    /// # Errors
    /// The reason to reject it.
    fn judge(
        &mut self,
        envelope: &Envelope<'a>,
        time: &Time,
        ingest_time: i64,
    ) -> Result<Verdict, String> {
        let version = envelope.specversion.required("specversion")?;
        if version != "1.0" {
            return Err(format!(
                "`specversion` must be \"1.0\", got \"{}\"",
                shorten(version)
            ));
        }
        envelope.id.required("id")?;
        envelope.source.required("source")?;
        let kind = envelope.kind.required("type")?;
        envelope.subject.required("subject")?;
        self.check_time(time, ingest_time)?;
        let Some(shape) = self.shape(kind) else {
            return Ok(Verdict::Unmatched(format!(
                "no event type is defined for `{}`",
                shorten(kind)
            )));
        };
        let data = envelope.json_data()?;
        let max_number_len = self.decoder.options.max_number_len;
        self.decoder.shapes[shape].read(data, max_number_len, &mut self.scratch)?;
        Ok(Verdict::Ok { shape })
    }

    fn check_time(&self, time: &Time, ingest_time: i64) -> Result<(), String> {
        let micros = match time {
            Time::Sent(micros) | Time::Ingest(micros) => *micros,
            Time::Unreadable(reason) => return Err(reason.clone()),
            Time::Unknown => return Ok(()),
        };
        if micros < 0 && matches!(time, Time::Sent(_)) {
            return Err("`time` is before 1970".to_owned());
        }
        let ahead = micros.saturating_sub(ingest_time);
        let limit = self.decoder.options.max_future_skew_us;
        if ahead > limit {
            let (ahead, limit) = (seconds(ahead), seconds(limit));
            return Err(format!(
                "`time` is {ahead} s after the ingest time, above the limit of {limit} s"
            ));
        }
        Ok(())
    }

    /// The shape of a type; most often it is that of the event before.
    fn shape(&mut self, kind: &str) -> Option<usize> {
        let last = self.decoder.shapes.get(self.last_shape);
        if last.is_some_and(|shape| shape.kind == kind) {
            return Some(self.last_shape);
        }
        self.last_shape = *self.decoder.by_type.get(kind)?;
        Some(self.last_shape)
    }

    /// Identifies an event; 0 when its source or id is not known.
    fn key(&mut self, envelope: &Envelope<'a>) -> u128 {
        let (Some(source), Some(id)) = (envelope.source.text(), envelope.id.text()) else {
            return 0;
        };
        self.hashed.clear();
        put(&mut self.hashed, source.as_bytes());
        put(&mut self.hashed, id.as_bytes());
        // 0 means none, so the one pair in 2^128 that hashes to it shares the key 1.
        xxh3_128(&self.hashed).max(1)
    }

    /// Tells a repeat from a conflict. An event that was sent without a time has none here, so that
    /// the same event stored again is a repeat.
    fn content_hash(&mut self, envelope: &Envelope<'a>, time: &Time) -> i64 {
        self.hashed.clear();
        put(
            &mut self.hashed,
            envelope.kind.text().unwrap_or_default().as_bytes(),
        );
        put(
            &mut self.hashed,
            envelope.subject.text().unwrap_or_default().as_bytes(),
        );
        match time {
            Time::Sent(micros) => put(&mut self.hashed, &micros.to_le_bytes()),
            Time::Ingest(_) | Time::Unknown => put(&mut self.hashed, b""),
            Time::Unreadable(reason) => put(&mut self.hashed, reason.as_bytes()),
        }
        put(&mut self.hashed, envelope.data_bytes());
        xxh3_64(&self.hashed).cast_signed()
    }

    fn finish(self) -> Result<Decoded> {
        let (batch, statuses) = self
            .columns
            .finish(&self.decoder.schema, &self.decoder.shard)?;
        Ok(Decoded {
            batch,
            keys: self.keys,
            statuses,
            origins: self.origins,
        })
    }
}

/// When an event happened, as far as is known.
enum Time {
    /// The event says so.
    Sent(i64),
    /// It does not say, so when it was stored.
    Ingest(i64),
    /// What it says cannot be read.
    Unreadable(String),
    /// The event could not be read far enough.
    Unknown,
}

impl Time {
    fn micros(&self) -> Option<i64> {
        match self {
            Time::Sent(micros) | Time::Ingest(micros) => Some(*micros),
            Time::Unreadable(_) | Time::Unknown => None,
        }
    }
}

fn event_time(envelope: &Envelope<'_>, is_broken: bool, ingest_time: i64) -> Time {
    match envelope.time.optional("time") {
        Ok(None) if is_broken => Time::Unknown,
        Ok(None) => Time::Ingest(ingest_time),
        Err(reason) => Time::Unreadable(reason),
        Ok(Some(text)) => match time::instant(text) {
            Ok(instant) => Time::Sent(instant.micros),
            Err(fault) => Time::Unreadable(format!(
                "`time` \"{}\" {fault} (RFC 3339 with an offset)",
                shorten(text)
            )),
        },
    }
}

/// Seconds with six digits, of microseconds.
fn seconds(micros: i64) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros.unsigned_abs() % 1_000_000);
    match fraction {
        0 => whole.to_string(),
        _ => format!("{whole}.{fraction:06}"),
    }
}

/// Appends a text with its length before it, so that no two lists of texts become the same bytes.
fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text);
}
