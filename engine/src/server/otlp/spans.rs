//! Spans of model calls as events (pure). `docs/http.md` has the mapping.

use crate::keys::hex;
use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use serde_json::{Map, json};

/// What becomes of the spans of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    /// The events, one a line.
    pub(super) lines: Vec<u8>,
    /// Why spans of model calls are no events.
    pub(super) rejected: Vec<String>,
}

/// The type of each event.
const KIND: &str = "gen_ai.usage";

/// Operations that call a model themselves. Those of agents and tools contain such calls, whose spans say what was used; and fetching a response
/// again uses nothing.
const OPERATIONS: [&str; 4] = ["chat", "generate_content", "text_completion", "embeddings"];

/// What is told of a call, as a field of `data`, by the attributes that may say it: of names that changed the newest first.
const TEXTS: [(&str, &[&str]); 3] = [
    ("operation", &["gen_ai.operation.name"]),
    ("provider", &["gen_ai.provider.name", "gen_ai.system"]),
    ("model", &["gen_ai.response.model", "gen_ai.request.model"]),
];

const INPUT: &[&str] = &["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"];
const OUTPUT: &[&str] = &[
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
];
const CACHE_READ: &[&str] = &["gen_ai.usage.cache_read.input_tokens"];
const CACHE_WRITE: &[&str] = &[
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
];
const REASONING: &[&str] = &["gen_ai.usage.reasoning.output_tokens"];

/// The events of all spans of model calls. `subject` is the attribute that says who used it, of the span or else of what it was made by.
pub(super) fn mapped(request: &ExportTraceServiceRequest, subject: &str) -> Mapped {
    let mut mapped = Mapped::default();
    for of_resource in &request.resource_spans {
        let resource = of_resource.resource.as_ref();
        let resource = resource.map_or(&[][..], |resource| &resource.attributes);
        let spans = of_resource.scope_spans.iter();
        for span in spans.flat_map(|scope| &scope.spans) {
            if !is_of_model(span) {
                continue;
            }
            match event(span, resource, subject) {
                Ok(event) => {
                    mapped.lines.extend_from_slice(event.as_bytes());
                    mapped.lines.push(b'\n');
                }
                Err(reason) => mapped
                    .rejected
                    .push(format!("span {}: {reason}", hex(&span.span_id))),
            }
        }
    }
    mapped
}

/// Whether a span is a call of a model.
fn is_of_model(span: &Span) -> bool {
    let operation = text_of(&span.attributes, &["gen_ai.operation.name"]);
    operation.is_some_and(|operation| OPERATIONS.contains(&operation))
}

/// The event of a span, on one line.
///
/// # Errors
/// What is missing, or makes no sense.
fn event(span: &Span, resource: &[KeyValue], subject: &str) -> Result<String, String> {
    let ids = (span.trace_id.len(), span.span_id.len());
    let is_zero = |id: &[u8]| id.iter().all(|byte| *byte == 0);
    if ids != (16, 8) || is_zero(&span.trace_id) || is_zero(&span.span_id) {
        return Err("it has no trace id of 16 bytes and span id of 8".into());
    }
    let who = text_of(&span.attributes, &[subject]).or_else(|| text_of(resource, &[subject]));
    let who = who.filter(|who| !who.is_empty()).ok_or_else(|| {
        format!("attribute `{subject}`, which says who used it, is missing (http.traces_subject)")
    })?;
    let nanoseconds = i128::from(span.end_time_unix_nano);
    let ended = Timestamp::from_nanosecond(nanoseconds / 1_000 * 1_000)
        .ok()
        .filter(|_| nanoseconds > 0)
        .ok_or("it does not say when it ended")?;
    let source = text_of(resource, &["service.name"]).unwrap_or("opentelemetry");
    let event = json!({
        "specversion": "1.0",
        "id": format!("{}{}", hex(&span.trace_id), hex(&span.span_id)),
        "source": source,
        "type": KIND,
        "subject": who,
        "time": ended.to_string(),
        "data": data(&span.attributes)?,
    });
    Ok(event.to_string())
}

fn data(attributes: &[KeyValue]) -> Result<Map<String, serde_json::Value>, String> {
    let mut data = Map::new();
    for (field, names) in TEXTS {
        if let Some(text) = text_of(attributes, names) {
            data.insert(field.to_owned(), text.into());
        }
    }
    let tokens = |names: &[&str]| count_of(attributes, names);
    let (input, output) = (tokens(INPUT)?, tokens(OUTPUT)?);
    let (read, written) = (tokens(CACHE_READ)?, tokens(CACHE_WRITE)?);
    let counts = [
        ("input_tokens", input),
        ("output_tokens", output),
        ("cache_read_tokens", read),
        ("cache_write_tokens", written),
        ("reasoning_tokens", tokens(REASONING)?),
        ("uncached_input_tokens", uncached(input, read, written)?),
    ];
    for (field, count) in counts {
        if let Some(count) = count {
            data.insert(field.to_owned(), count.into());
        }
    }
    Ok(data)
}

/// Input tokens that are at the price of input. Those of the cache are among the input: both at their own prices would be billed twice.
fn uncached(
    input: Option<i64>,
    read: Option<i64>,
    written: Option<i64>,
) -> Result<Option<i64>, String> {
    let Some(input) = input else {
        return Ok(None);
    };
    let cached = read.unwrap_or(0).checked_add(written.unwrap_or(0));
    let rest = cached.and_then(|cached| input.checked_sub(cached));
    match rest.filter(|rest| *rest >= 0) {
        Some(rest) => Ok(Some(rest)),
        None => Err("more tokens of the cache than input tokens, of which they are a part".into()),
    }
}

fn value_of<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match &found.value {
        Some(AnyValue { value }) => value.as_ref(),
        None => None,
    }
}

/// The text of the first attribute that is there and is a text.
fn text_of<'a>(attributes: &'a [KeyValue], names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| match value_of(attributes, name) {
            Some(Value::StringValue(text)) => Some(text.as_str()),
            _ => None,
        })
}

/// The number of the first attribute that is there.
///
/// # Errors
/// It is no whole number from 0 on.
fn count_of(attributes: &[KeyValue], names: &[&str]) -> Result<Option<i64>, String> {
    let found = names
        .iter()
        .find_map(|name| Some((name, value_of(attributes, name)?)));
    match found {
        None => Ok(None),
        Some((_, Value::IntValue(count))) if *count >= 0 => Ok(Some(*count)),
        Some((name, _)) => Err(format!("attribute `{name}` is no whole number from 0 on")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of one span with these attributes, as a collector writes it in JSON.
    fn request(attributes: &str, ended: &str) -> ExportTraceServiceRequest {
        let text = format!(
            r#"{{"resourceSpans": [{{"resource": {{"attributes": [
                {{"key": "service.name", "value": {{"stringValue": "agent"}}}}]}},
              "scopeSpans": [{{"spans": [{{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
                "name": "chat m", "kind": 3, "startTimeUnixNano": "1790848799000000000", "endTimeUnixNano": "{ended}",
                "attributes": [{attributes}]}}]}}]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn text(key: &str, value: &str) -> String {
        format!(r#"{{"key": "{key}", "value": {{"stringValue": "{value}"}}}}"#)
    }

    fn tokens(key: &str, value: i64) -> String {
        format!(r#"{{"key": "gen_ai.usage.{key}", "value": {{"intValue": "{value}"}}}}"#)
    }

    fn map(attributes: &[String]) -> Mapped {
        mapped(
            &request(&attributes.join(","), "1790848800123456789"),
            "user.id",
        )
    }

    #[test]
    fn a_call_of_a_model_is_an_event_and_tokens_of_the_cache_are_among_the_input() {
        let attributes = [
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.system", "old"),
            text("gen_ai.provider.name", "p"),
            text("gen_ai.request.model", "m"),
            text("gen_ai.response.model", "m-2026"),
            text("user.id", "acme"),
            tokens("input_tokens", 1_000),
            tokens("output_tokens", 50),
            tokens("cache_read.input_tokens", 700),
            tokens("cache_creation.input_tokens", 100),
            tokens("reasoning.output_tokens", 20),
        ];
        let Mapped { lines, rejected } = map(&attributes);
        assert!(rejected.is_empty(), "{rejected:?}");
        let event: serde_json::Value = serde_json::from_slice(&lines).unwrap();
        assert_eq!(
            event,
            json!({
                "specversion": "1.0", "id": "5b8efff798038103d269b633813fc60ceee19b7ec3c1b174", "source": "agent",
                "type": "gen_ai.usage", "subject": "acme", "time": "2026-10-01T10:00:00.123456Z",
                "data": {"operation": "chat", "provider": "p", "model": "m-2026", "input_tokens": 1000, "output_tokens": 50,
                    "cache_read_tokens": 700, "cache_write_tokens": 100, "reasoning_tokens": 20, "uncached_input_tokens": 200},
            })
        );
    }

    #[test]
    fn spans_that_call_no_model_are_none_and_those_that_make_no_sense_are_rejected() {
        for operation in ["invoke_agent", "execute_tool", "fetch_response", ""] {
            let attributes = [
                text("gen_ai.operation.name", operation),
                tokens("input_tokens", 5),
            ];
            assert_eq!(map(&attributes), Mapped::default(), "{operation}");
        }
        assert_eq!(map(&[]), Mapped::default());
        let chat = || vec![text("gen_ai.operation.name", "chat")];
        let of_user = || [chat(), vec![text("user.id", "a")]].concat();
        let with = |attribute: String| [of_user(), vec![attribute]].concat();
        for (attributes, says) in [
            (chat(), "`user.id`"),
            (with(tokens("input_tokens", -1)), "input_tokens"),
            (
                with(text("gen_ai.usage.output_tokens", "7")),
                "output_tokens",
            ),
            (
                [
                    with(tokens("input_tokens", 5)),
                    vec![tokens("cache_read.input_tokens", 6)],
                ]
                .concat(),
                "cache",
            ),
        ] {
            let mapped = map(&attributes);
            assert!(mapped.lines.is_empty());
            assert!(mapped.rejected[0].contains(says), "{mapped:?}");
        }
        let never = mapped(&request(&of_user().join(","), "0"), "user.id");
        assert!(never.rejected[0].contains("when it ended"), "{never:?}");
    }
}
