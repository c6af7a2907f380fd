//! One batch: from messages to their events, and from each event to its row.

use super::columns::{Columns, Head, Place};
use super::envelope::Envelope;
use super::headers::Form;
use super::identity::Identity;
use super::judge::{Judge, Time, Verdict};
use super::scan::{Scanner, Token, json_text};
use super::shape::Scratch;
use super::text::{describe, trim};
use super::{Decoded, Decoder, MAX_BATCH_BYTES, Origin, Status, unfit};
use crate::files::BYTE_ORDER_MARK;
use crate::{Message, Result};
use std::ops::Range;

const DAY_US: i64 = 86_400_000_000;

/// One message while its events are read.
struct Current<'a> {
    message: &'a Message,
    index: usize,
    /// The place of the next event.
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

    fn payload(&self) -> &'a [u8] {
        &self.message.payload
    }

    /// Where the payload begins, after a byte order mark if it has one.
    fn start(&self) -> usize {
        match self.payload().starts_with(BYTE_ORDER_MARK) {
            true => BYTE_ORDER_MARK.len(),
            false => 0,
        }
    }

    /// The payload from here to its end.
    fn rest(&self, start: usize) -> Range<usize> {
        start..self.payload().len()
    }

    /// Whether another event may follow.
    ///
    /// # Errors
    /// The reason why not: no message of so few bytes holds more events.
    fn room(&self) -> Result<(), String> {
        let bytes = self.payload().len();
        let most = 64 + bytes / 8;
        if usize::try_from(self.place.ordinal).is_ok_and(|ordinal| ordinal < most) {
            Ok(())
        } else {
            Err(format!("more than {most} events in {bytes} bytes"))
        }
    }

    fn part(&self, bytes: Range<usize>) -> Origin {
        Origin::Part {
            message: self.index,
            bytes,
        }
    }
}

/// One call of [`Decoder::decode`].
pub(super) struct Run<'d, 'a> {
    decoder: &'d Decoder,
    messages: &'a [Message],
    judge: Judge<'d>,
    identity: Identity,
    scratch: Scratch<'a>,
    extensions: Vec<Token>,
    columns: Columns,
    keys: Vec<u128>,
    origins: Vec<Origin>,
    /// Bytes of reasons, raw and shard names, which the size of the input does not bound.
    written_bytes: usize,
}

impl<'d, 'a> Run<'d, 'a> {
    /// Nothing decoded yet, with room for so many rows.
    pub(super) fn new(decoder: &'d Decoder, messages: &'a [Message], rows: usize) -> Self {
        Run {
            decoder,
            messages,
            judge: Judge::new(decoder),
            identity: Identity::default(),
            scratch: Scratch::default(),
            extensions: Vec::new(),
            columns: Columns::new(&decoder.shapes, rows),
            keys: Vec::with_capacity(rows),
            origins: Vec::with_capacity(rows),
            written_bytes: 0,
        }
    }

    /// Decodes all messages.
    pub(super) fn decode(mut self) -> Result<Decoded> {
        for (index, message) in self.messages.iter().enumerate() {
            self.message(&mut Current::new(index, message)?)?;
        }
        let (events, statuses) = self
            .columns
            .finish(&self.decoder.layout, &self.decoder.shard)?;
        Ok(Decoded {
            events,
            keys: self.keys,
            statuses,
            origins: self.origins,
        })
    }

    fn message(&mut self, current: &mut Current<'a>) -> Result<()> {
        if let Some(unread) = &current.message.unread {
            let reason = format!("headers: {}", unread.problem);
            let message = current.index;
            let origin = Origin::Unread { message };
            return self.event(current, &Envelope::default(), Some(reason), origin);
        }
        match self.form(current.message) {
            Err(reason) => self.refuse(current, current.rest(0), reason)?,
            Ok(Form::Structured) => self.json(current, current.rest(current.start()))?,
            Ok(Form::Batch) => self.array(current)?,
            Ok(Form::Lines) => self.lines(current)?,
            Ok(Form::Binary) => self.binary(current)?,
        }
        if current.place.ordinal == 0 {
            let reason = "the payload holds no event".to_owned();
            self.refuse(current, current.rest(0), reason)?;
        }
        Ok(())
    }

    fn form(&self, message: &Message) -> Result<Form, String> {
        let length = message.payload.len();
        let limit = self.decoder.options.max_payload_bytes;
        if length > limit {
            return Err(format!(
                "payload of {length} bytes, above the limit of {limit}"
            ));
        }
        Form::of(message)
    }

    fn lines(&mut self, current: &mut Current<'a>) -> Result<()> {
        let mut start = current.start();
        let lines = current.payload().get(start..).unwrap_or_default();
        for line in lines.split(|byte| *byte == b'\n') {
            if !trim(line).is_empty() {
                if let Err(reason) = current.room() {
                    return self.refuse(current, current.rest(start), reason);
                }
                self.json(current, start..start + line.len())?;
            }
            start += line.len() + 1;
        }
        Ok(())
    }

    fn array(&mut self, current: &mut Current<'a>) -> Result<()> {
        let mut start = current.start();
        let mut scanner = Scanner::new(current.payload());
        scanner.skip(start);
        let mut more = scanner.enter(b'[', b']');
        while let Ok(true) = more {
            start = scanner.at();
            if let Err(reason) = current.room() {
                return self.refuse(current, current.rest(start), reason);
            }
            more = match scanner.value() {
                Ok(element) => {
                    self.json(current, element.range())?;
                    start = element.range().end;
                    scanner.more(b']')
                }
                Err(broken) => Err(broken),
            };
        }
        if more.and_then(|_| scanner.finish()).is_ok() {
            return Ok(());
        }
        let fault = scanner.fault().map(|fault| fault.to_string());
        let reason = format!("batch: {}", fault.unwrap_or_default());
        self.refuse(current, current.rest(start), reason)
    }

    fn binary(&mut self, current: &mut Current<'a>) -> Result<()> {
        let mut envelope = Envelope::default();
        let problem = envelope.read_binary(current.message).err();
        let message = current.index;
        self.event(current, &envelope, problem, Origin::Binary { message })
    }

    /// One structured event in this part of the payload.
    fn json(&mut self, current: &mut Current<'a>, bytes: Range<usize>) -> Result<()> {
        let text = trim(current.payload().get(bytes.clone()).unwrap_or_default());
        let limit = self.decoder.options.max_event_bytes;
        if text.len() > limit {
            let reason = format!("event of {} bytes, above the limit of {limit}", text.len());
            return self.refuse(current, bytes, reason);
        }
        let mut envelope = Envelope::default();
        let problem = self.read_bytes(&mut envelope, text).err();
        let origin = current.part(bytes);
        match envelope.encoded_json().filter(|_| problem.is_none()) {
            None => self.event(current, &envelope, problem, origin),
            Some(json) => self.encoded(current, envelope, &json, origin),
        }
    }

    /// An event whose data came as `data_base64`.
    fn encoded<'e>(
        &mut self,
        current: &mut Current<'a>,
        mut envelope: Envelope<'e>,
        json: &'e str,
        origin: Origin,
    ) -> Result<()> {
        (envelope.data, envelope.opaque) = (Some(json), None);
        // What is read of it borrows from `json`, which does not live as long as the messages.
        self.judged(current, &envelope, None, origin, &mut Scratch::default())
    }

    fn read_bytes(&mut self, envelope: &mut Envelope<'a>, text: &'a [u8]) -> Result<(), String> {
        match std::str::from_utf8(text) {
            Ok(text) => self.read_text(envelope, text),
            Err(error) => {
                // What stands before the bad byte still tells whose event it was.
                let (before, _) = text.split_at(error.valid_up_to());
                let before = std::str::from_utf8(before).unwrap_or_default();
                let _ = self.read_text(envelope, before);
                Err(format!("not valid UTF-8 at byte {}", before.len()))
            }
        }
    }

    fn read_text(&mut self, envelope: &mut Envelope<'a>, text: &'a str) -> Result<(), String> {
        match text.bytes().next() {
            Some(b'{') => envelope.read_json(text, &mut self.extensions),
            Some(b'"' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
                // What begins like a value may be none: `nonsense` is no null.
                let value = json_text(text.as_bytes())?;
                let hint = match value.starts_with('[') {
                    true => {
                        "; an array of events needs the header `content-type: application/cloudevents-batch+json`"
                    }
                    false => "",
                };
                let value = describe(value);
                Err(format!("an event must be a JSON object, got {value}{hint}"))
            }
            Some(_) => Err("not valid JSON at byte 0: expected an object".to_owned()),
            None => Err("the payload is empty".to_owned()),
        }
    }

    /// Sets aside bytes in which no event was looked for.
    fn refuse(
        &mut self,
        current: &mut Current<'a>,
        bytes: Range<usize>,
        reason: String,
    ) -> Result<()> {
        let origin = current.part(bytes);
        self.event(current, &Envelope::default(), Some(reason), origin)
    }

    /// Judges one event of the messages' own bytes and adds its row.
    fn event(
        &mut self,
        current: &mut Current<'a>,
        envelope: &Envelope<'a>,
        problem: Option<String>,
        origin: Origin,
    ) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let judged = self.judged(current, envelope, problem, origin, &mut scratch);
        self.scratch = scratch;
        judged
    }

    /// Judges one event and adds its row.
    fn judged<'e>(
        &mut self,
        current: &mut Current<'a>,
        envelope: &Envelope<'e>,
        problem: Option<String>,
        origin: Origin,
        scratch: &mut Scratch<'e>,
    ) -> Result<()> {
        let ingest_time = current.place.ingest_time_us;
        let time = Time::of(envelope, problem.is_some(), ingest_time);
        let verdict = match problem {
            Some(reason) => Verdict::Rejected(reason),
            None => self.judge.judge(envelope, &time, ingest_time, scratch),
        };
        let (status, reason) = match verdict {
            Verdict::Ok { shape } => {
                let read = &self.decoder.shapes[shape];
                self.columns.push_values(shape, read, &scratch.values);
                (Status::Ok, None)
            }
            Verdict::Unmatched(reason) => (Status::Unmatched, Some(reason)),
            Verdict::Rejected(reason) => (Status::Rejected, Some(reason)),
        };
        let is_counted = status == Status::Ok;
        let raw = match is_counted {
            true => None,
            false => origin.raw(self.messages),
        };
        let key = self.identity.key(envelope);
        let head = Head {
            id: envelope.id.text(),
            source: envelope.source.text(),
            kind: envelope.kind.text(),
            subject: envelope.subject.text(),
            event_time: time.micros(),
            status,
            reason: reason.as_deref(),
            raw: raw.as_deref(),
            content_hash: (key != 0).then(|| self.identity.content(envelope, &time)),
            extra: scratch.extra().filter(|_| is_counted),
        };
        self.written_bytes += self.decoder.shard.len() + head.written_bytes();
        if self.written_bytes > MAX_BATCH_BYTES {
            let problem = format!("more than {MAX_BATCH_BYTES} bytes set aside in one batch");
            return Err(unfit(problem));
        }
        self.columns.push(current.place, &head);
        self.keys.push(key);
        self.origins.push(origin);
        current.place.ordinal += 1;
        Ok(())
    }
}
