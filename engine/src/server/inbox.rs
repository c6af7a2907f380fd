//! Whether the events of a request are events: judged whole, by the decoder that reads the stream, before any is published.
//!
//! At the door is refused what no definition could make an event: what is no CloudEvent, has no type or is too large. An
//! event of a type that is not defined yet, or that fails a check, is stored and set aside with its reason, as on NATS; a
//! caller that asks for validation is told instead.

use super::problem::{Fault, Faults};
use crate::{
    catalog::Catalog,
    clock::{Clock, SystemClock},
    config::Settings,
    error::Result,
    shard::refused,
    supervisor::decode_options,
};
use arrow::{array::AsArray, datatypes::SchemaRef};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tollgate_connectors::{
    Message, Sequence,
    event::{DecodeOptions, Decoder, Status},
};
use tollgate_sql::{event_checks::EventChecks, schema};

/// Judges what comes in.
#[derive(Debug)]
pub(super) struct Inbox {
    any: Decoders,
    defined: Decoders,
    checks: Vec<Arc<EventChecks>>,
}

/// One event that may be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Its CloudEvents type.
    pub(super) kind: String,
    /// The event as one line of JSON.
    pub(super) line: Vec<u8>,
}

/// What was found of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Every event may be published.
    Accepted(Vec<Accepted>),
    /// Some may not, so none is.
    Refused {
        /// How many there are.
        elements: usize,
        /// What is wrong with which.
        faults: Faults,
    },
}

impl Inbox {
    pub(super) fn new(settings: &Settings, catalog: &Catalog) -> Result<Self> {
        let options = DecodeOptions {
            // The body was bounded already.
            max_payload_bytes: usize::MAX,
            ..decode_options(settings)
        };
        let shard = &settings.source.stream;
        let any = DecodeOptions {
            max_future_skew_us: i64::MAX,
            ..options.clone()
        };
        Ok(Inbox {
            any: Decoders::new(schema::usage_events(&[]), shard, any)?,
            defined: Decoders::new(catalog.events_schema(), shard, options)?,
            checks: catalog.checks.clone(),
        })
    }

    /// Judges a request; with `validate` by the definitions too.
    pub(super) fn judge(&self, message: Message, validate: bool) -> Result<Judged> {
        let decoders = match validate {
            true => &self.defined,
            false => &self.any,
        };
        let messages = [message];
        let mut decoder = decoders.take()?;
        let decoded = decoder.decode(&messages)?;
        decoders.put_back(decoder);
        let failed = match validate {
            true => refused(&self.checks, &decoded.events)?,
            false => BTreeMap::new(),
        };
        let head = decoded.events.head();
        let text = |name: &str| head[name].as_string::<i32>();
        let (reasons, kinds) = (text("reason"), text("type"));
        let mut accepted = Vec::with_capacity(decoded.statuses.len());
        let mut faults = Faults::default();
        for (index, status) in decoded.statuses.iter().enumerate() {
            let reason = match (failed.get(&index), status) {
                (Some(reason), _) => Some(reason.clone()),
                (None, Status::Ok) => None,
                (None, Status::Unmatched) if !validate => None,
                (None, _) => Some(reasons.value(index).to_owned()),
            };
            match reason {
                Some(reason) => faults.push(Fault::at(index, reason)),
                None => accepted.push(Accepted {
                    kind: kinds.value(index).to_owned(),
                    line: one_line(&decoded.raw(&messages, index).unwrap_or_default()),
                }),
            }
        }
        Ok(match faults.is_empty() {
            true => Judged::Accepted(accepted),
            false => Judged::Refused {
                elements: decoded.statuses.len(),
                faults,
            },
        })
    }
}

/// JSON on one line: an end of line in it is white space, for in a string JSON writes it otherwise.
fn one_line(json: &[u8]) -> Vec<u8> {
    let is_end = |byte: u8| matches!(byte, b'\n' | b'\r');
    let line = json.trim_ascii().iter();
    let line = line.map(|byte| if is_end(*byte) { b' ' } else { *byte });
    line.collect()
}

/// A request as the message that it stands for: of its headers, those that say what it holds.
///
/// # Errors
/// The content type is none that events come in, or a header is no text; the reason.
pub(super) fn message(headers: &HeaderMap, body: Bytes) -> Result<Message, Refusal> {
    let mut kept = Vec::new();
    let mut is_binary = false;
    for (name, value) in headers {
        let is_attribute = name.as_str().starts_with("ce-");
        if !is_attribute && name != header::CONTENT_TYPE {
            continue;
        }
        is_binary |= is_attribute;
        let value = std::str::from_utf8(value.as_bytes());
        let value = value.map_err(|_| Refusal::Header(format!("header `{name}` is not UTF-8")))?;
        kept.push((name.as_str().to_owned(), value.to_owned()));
    }
    let mut types = kept.iter_mut().filter(|(name, _)| name == "content-type");
    if let Some((_, content_type)) = types.next() {
        let media = content_type.split(';').next().unwrap_or_default();
        let media = media.trim().to_ascii_lowercase();
        match media.as_str() {
            "application/cloudevents+json"
            | "application/cloudevents-batch+json"
            | "application/x-ndjson" => {}
            "application/ndjson" | "application/jsonl" => {
                "application/x-ndjson".clone_into(content_type);
            }
            "application/json" if !is_binary && begins_an_array(&body) => {
                "application/cloudevents-batch+json".clone_into(content_type);
            }
            "application/json" => {}
            _ if is_binary && !media.starts_with("application/cloudevents") => {}
            _ => return Err(Refusal::ContentType(media)),
        }
    } else if !is_binary && begins_an_array(&body) {
        let batch = "application/cloudevents-batch+json";
        kept.push(("content-type".to_owned(), batch.to_owned()));
    }
    Ok(of_payload(kept, body))
}

/// Why a request is not looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its content type is none of ours.
    ContentType(String),
    /// A header is no text; the reason.
    Header(String),
}

/// Events, one a line, as a message.
pub(super) fn lines(body: Vec<u8>) -> Message {
    let content_type = ("content-type".to_owned(), "application/x-ndjson".to_owned());
    of_payload(vec![content_type], body.into())
}

fn of_payload(headers: Vec<(String, String)>, payload: Bytes) -> Message {
    Message {
        sequence: Sequence(1),
        ingest_time_us: SystemClock.now_us(),
        headers,
        payload,
        unread: None,
    }
}

fn begins_an_array(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().starts_with(b"[")
}

/// Decoders that wait for a request. Making one takes longer than most requests.
#[derive(Debug)]
struct Decoders {
    schema: SchemaRef,
    shard: String,
    options: DecodeOptions,
    idle: Mutex<Vec<Decoder>>,
}

/// So many are kept.
const IDLE_MAX: usize = 16;

impl Decoders {
    fn new(schema: SchemaRef, shard: &str, options: DecodeOptions) -> Result<Self> {
        let decoders = Decoders {
            schema,
            shard: shard.to_owned(),
            options,
            idle: Mutex::default(),
        };
        // A schema that cannot be decoded is found at the start.
        decoders.put_back(decoders.take()?);
        Ok(decoders)
    }

    fn take(&self) -> Result<Decoder> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(decoder) => Ok(decoder),
            None => Ok(Decoder::new(
                Arc::clone(&self.schema),
                &self.shard,
                self.options.clone(),
            )?),
        }
    }

    fn put_back(&self, decoder: Decoder) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(decoder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::problem::FAULTS_MAX;
    use tollgate_sql::definitions::{Definitions, SourceFile};

    const CALLS: &str =
        "CREATE EVENT TYPE calls (n BIGINT NOT NULL CHECK (n > 0)) WITH (type = 'call');";

    fn inbox() -> Inbox {
        let file = SourceFile {
            name: "calls.sql".into(),
            text: CALLS.into(),
        };
        let definitions = Definitions::parse(&[file]).unwrap();
        let checks = definitions.event_types.iter().map(EventChecks::plan);
        let checks = checks.map(|checks| Arc::new(checks.unwrap())).collect();
        let catalog = Catalog {
            definitions,
            checks,
            meters: Vec::new(),
            rate_tables: Vec::new(),
        };
        Inbox::new(&Settings::default(), &catalog).unwrap()
    }

    fn judge(headers: &[(&str, &str)], body: &str, validate: bool) -> Judged {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let message = message(&map, body.to_owned().into()).unwrap();
        inbox().judge(message, validate).unwrap()
    }

    fn event(id: &str, kind: &str, rest: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"{kind}","subject":"a"{rest}}}"#
        )
    }

    fn accepted(events: &[(&str, String)]) -> Judged {
        let events = events.iter().map(|(kind, line)| Accepted {
            kind: (*kind).to_owned(),
            line: line.clone().into_bytes(),
        });
        Judged::Accepted(events.collect())
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn json_is_one_event_or_an_array_of_them_each_on_one_line() {
        let (one, two) = (event("1", "call", ""), event("2", "other", ""));
        assert_eq!(
            judge(&[JSON], &one, false),
            accepted(&[("call", one.clone())])
        );
        let spread = one.replace(",\"id\"", "\r\n,\"id\"");
        let both = format!(" [\n{spread},\n{two}\n]");
        let on_one_line = one.replace(",\"id\"", "  ,\"id\"");
        let expected = accepted(&[("call", on_one_line), ("other", two.clone())]);
        assert_eq!(judge(&[JSON], &both, false), expected);
        // Without a content type too.
        assert_eq!(judge(&[], &both, false), expected);
        let lines = format!("{one}\n\n{two}\n");
        let ndjson = [("content-type", "application/jsonl")];
        let expected = accepted(&[("call", one), ("other", two)]);
        assert_eq!(judge(&ndjson, &lines, false), expected);
    }

    #[test]
    fn binary_mode_becomes_the_event_that_it_stands_for() {
        let headers = [
            JSON,
            ("ce-specversion", "1.0"),
            ("ce-id", "%C3%A9"),
            ("ce-source", "s"),
            ("ce-type", "call"),
            ("ce-subject", "a"),
        ];
        let Judged::Accepted(events) = judge(&headers, "{\n\"n\": 1.50}", false) else {
            panic!("it is an event");
        };
        let line: serde_json::Value = serde_json::from_slice(&events[0].line).unwrap();
        assert_eq!(line["id"], "é");
        let text = String::from_utf8(events[0].line.clone()).unwrap();
        // The data is as it was sent, to the last digit.
        assert!(text.contains(r#""data":{ "n": 1.50}"#), "{text}");
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_place_and_the_others_with_it() {
        let body = format!(
            "[{},{{}},{},{}]",
            event("1", "call", ""),
            event("", "call", ""),
            event("3", "call", r#","time":"yesterday""#)
        );
        let Judged::Refused { elements, faults } = judge(&[JSON], &body, false) else {
            panic!("three of them are no events");
        };
        let faults = faults.first;
        let places: Vec<usize> = faults.iter().filter_map(|fault| fault.index).collect();
        assert_eq!((elements, places), (4, vec![1, 2, 3]));
        assert!(faults[0].reason.contains("specversion"), "{faults:?}");
        assert!(faults[1].reason.contains("`id`"), "{faults:?}");
        assert!(faults[2].reason.contains("`time`"), "{faults:?}");
        assert!(matches!(
            judge(&[JSON], "[]", false),
            Judged::Refused { .. }
        ));
        let many = format!("[{}{{}}]", "{},".repeat(2_999));
        let Judged::Refused { faults, .. } = judge(&[JSON], &many, false) else {
            panic!("none of them is an event");
        };
        // Of what is far too short to be an event, the decoder sets the rest aside as one.
        assert!(faults.count > FAULTS_MAX, "{}", faults.count);
        assert_eq!(faults.first.len(), FAULTS_MAX);
        let broken = format!("[{},", event("1", "call", ""));
        assert!(matches!(
            judge(&[JSON], &broken, false),
            Judged::Refused { .. }
        ));
    }

    #[test]
    fn definitions_refuse_only_who_asks_for_it() {
        let far = event(
            "1",
            "call",
            r#","time":"2999-01-01T00:00:00Z","data":{"n":1}"#,
        );
        let none = event("2", "call", r#","data":{"n":0}"#);
        let text = event("3", "call", r#","data":{"n":"1"}"#);
        let unknown = event("4", "other", "");
        for refused in [far, none, text, unknown] {
            assert!(matches!(
                judge(&[JSON], &refused, false),
                Judged::Accepted(_)
            ));
            let judged = judge(&[JSON], &refused, true);
            assert!(matches!(judged, Judged::Refused { .. }), "{refused}");
        }
        let good = event("5", "call", r#","data":{"n":1}"#);
        assert!(matches!(judge(&[JSON], &good, true), Judged::Accepted(_)));
    }

    #[test]
    fn another_content_type_is_refused() {
        let mut map = HeaderMap::new();
        map.insert("content-type", "text/plain".parse().unwrap());
        let refused = message(&map, Bytes::new());
        assert_eq!(
            refused.unwrap_err(),
            Refusal::ContentType("text/plain".into())
        );
        // In binary mode the content type is that of the data.
        map.insert("ce-id", "1".parse().unwrap());
        assert!(message(&map, Bytes::new()).is_ok());
    }
}
