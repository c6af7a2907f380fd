//! Events to the messages that carry them into the stream: how they are grouped, under which subject.
//!
//! It does not own how messages are sent, which is the publisher's, nor whether an event is one.

use crate::config::Settings;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use std::{borrow::Cow, num::NonZeroUsize};

/// Groups consecutive lines into messages, in the order of the file: events of a rare type that waited
/// for a batch of their own would arrive late.
pub(crate) struct Batches {
    prefix: String,
    size: usize,
    bytes_max: usize,
    headers: Vec<(String, String)>,
    waiting: BytesMut,
    events: usize,
    /// The subject of all that waits, or `<prefix>.batch` when the types differ.
    subject: String,
}

/// A message is sent before it grows past this, whatever `--batch` says: NATS refuses more than 1 MB
/// by default.
const MESSAGE_BYTES_MAX: usize = 900_000;

impl Batches {
    /// Messages of at most so many events, under the settings' first subject.
    pub(crate) fn new(settings: &Settings, size: NonZeroUsize) -> Self {
        let first = settings.source.subjects.first();
        let first = first.map_or("usage.>", String::as_str);
        let content_type = match size.get() {
            1 => "application/cloudevents+json",
            _ => "application/x-ndjson",
        };
        Batches {
            prefix: first.strip_suffix(".>").unwrap_or(first).to_owned(),
            size: size.get(),
            bytes_max: MESSAGE_BYTES_MAX.min(settings.ingest.max_payload.0),
            headers: vec![("Content-Type".into(), content_type.into())],
            waiting: BytesMut::new(),
            events: 0,
            subject: String::new(),
        }
    }

    /// The headers of every message.
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Adds a line; returns a message when one is full.
    pub(crate) fn add(&mut self, line: &[u8]) -> Option<(String, Bytes)> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
        }
        let head = serde_json::from_slice::<Head<'_>>(line).ok();
        self.add_of(head.as_ref().map(|head| head.r#type.as_ref()), line)
    }

    /// The same for an event whose type is known; `None` for one that has none.
    pub(crate) fn add_of(&mut self, kind: Option<&str>, line: &[u8]) -> Option<(String, Bytes)> {
        let too_large = self.waiting.len() + line.len() > self.bytes_max;
        let full = too_large.then(|| self.rest()).flatten();
        let subject = subject(&self.prefix, kind);
        if self.events == 0 {
            self.subject = subject;
        } else {
            self.waiting.put_u8(b'\n');
            if self.subject != subject {
                self.subject = format!("{}.batch", self.prefix);
            }
        }
        self.waiting.put_slice(line);
        self.events += 1;
        match full {
            // What was just added is one event: with a batch of one nothing ever waits.
            Some(full) => Some(full),
            None if self.events >= self.size => self.rest(),
            None => None,
        }
    }

    /// What waits, as a message.
    pub(crate) fn rest(&mut self) -> Option<(String, Bytes)> {
        if self.events == 0 {
            return None;
        }
        self.events = 0;
        Some((self.subject.clone(), self.waiting.split().freeze()))
    }
}

/// A longer type is in no subject: NATS ends a connection whose line of control is longer than 4096 bytes.
const TYPE_BYTES_MAX: usize = 1_000;

/// `usage.<type>`, or `usage.invalid` without a type that a subject can carry.
fn subject(prefix: &str, kind: Option<&str>) -> String {
    let is_token = |t: &str| {
        !t.is_empty()
            && t.bytes()
                .all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
    };
    let is_carried = |kind: &&str| kind.len() <= TYPE_BYTES_MAX && kind.split('.').all(is_token);
    match kind.filter(is_carried) {
        Some(kind) => format!("{prefix}.{kind}"),
        None => format!("{prefix}.invalid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(size: usize) -> Batches {
        Batches::new(&Settings::default(), NonZeroUsize::new(size).unwrap())
    }

    #[test]
    fn the_subject_is_the_type() {
        let subject = |line: &str| {
            let (subject, payload) = batches(1).add(line.as_bytes()).unwrap();
            assert_eq!(payload, line);
            subject
        };
        let line = r#"{"type":"llm.completion","id":"1"}"#;
        assert_eq!(subject(line), "usage.llm.completion");
        for line in [
            "{",
            "{}",
            r#"{"type":""}"#,
            r#"{"type":"a b"}"#,
            r#"{"type":"a.*"}"#,
            r#"{"type":"a..b"}"#,
        ] {
            assert_eq!(subject(line), "usage.invalid", "{line}");
        }
        let of_type = |length: usize| format!(r#"{{"type":"{}"}}"#, "y".repeat(length));
        assert_eq!(subject(&of_type(1_000)).len(), 1_006);
        assert_eq!(subject(&of_type(1_001)), "usage.invalid");
    }

    #[test]
    fn messages_keep_the_order_of_the_file_and_the_rest_is_not_lost() {
        let mut batches = batches(2);
        assert_eq!(batches.add(br#"{"type":"a","n":1}"#), None);
        let (subject, payload) = batches.add(br#"{"type":"a","n":2}"#).unwrap();
        assert_eq!(subject, "usage.a");
        assert_eq!(
            payload,
            "{\"type\":\"a\",\"n\":1}\n{\"type\":\"a\",\"n\":2}"
        );
        assert_eq!(batches.add(br#"{"type":"a","n":3}"#), None);
        let (subject, payload) = batches.add(br#"{"type":"b"}"#).unwrap();
        assert_eq!(subject, "usage.batch");
        assert_eq!(payload, "{\"type\":\"a\",\"n\":3}\n{\"type\":\"b\"}");
        assert_eq!(batches.rest(), None);
        assert_eq!(batches.add(br#"{"type":"b"}"#), None);
        let rest = Bytes::from_static(br#"{"type":"b"}"#);
        assert_eq!(batches.rest(), Some(("usage.b".to_owned(), rest)));
    }

    #[test]
    fn a_message_stays_below_what_nats_takes() {
        let mut batches = batches(1000);
        let line = format!(r#"{{"type":"a","x":"{}"}}"#, "x".repeat(400_000));
        assert_eq!(batches.add(line.as_bytes()), None);
        assert_eq!(batches.add(line.as_bytes()), None);
        let (_, payload) = batches.add(line.as_bytes()).unwrap();
        assert_eq!(payload.len(), 2 * line.len() + 1);
        assert_eq!(batches.rest().unwrap().1.len(), line.len());
    }
}
