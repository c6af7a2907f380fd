//! `POST /v1/traces`: OpenTelemetry's traces over HTTP. Spans of model calls become events; other spans are none.

mod json;
mod spans;

use super::{Doors, events::accept, inbox, problem::Problem};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use spans::{Mapped, mapped};
use std::sync::Arc;

/// How a request is written, and its answer with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// Stores an event for each span of a model call; the answer comes when JetStream has acknowledged all of them. A span that can be no
/// event is counted in the answer, with the reason of the first.
pub(super) async fn export(
    State(doors): State<Arc<Doors>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let encoding = encoding(&headers)?;
    let body = doors.events(&headers, body).await?;
    let request = read(encoding, &body)?;
    let Mapped { lines, rejected } = mapped(&request, &doors.settings.http.traces_subject);
    if !lines.is_empty() {
        accept(&doors, inbox::lines(lines), false).await?;
    }
    let partial = rejected.first().map(|reason| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected.len()).unwrap_or(i64::MAX),
        error_message: reason.clone(),
    });
    answer(encoding, partial)
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|given| given.to_str().ok());
    let media = given.and_then(|given| given.split(';').next());
    let media = media.unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/x-protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type_unsupported",
            format!(
                "content type `{media}` is not read; send application/x-protobuf or application/json"
            ),
        )),
    }
}

fn read(encoding: Encoding, body: &[u8]) -> Result<ExportTraceServiceRequest, Problem> {
    let failed = |error: &dyn std::fmt::Display| {
        Problem::body(format!("the body is no ExportTraceServiceRequest: {error}"))
    };
    match encoding {
        Encoding::Protobuf => {
            ExportTraceServiceRequest::decode(body).map_err(|error| failed(&error))
        }
        Encoding::Json => serde_json::from_slice(body).or_else(|first| {
            let value = serde_json::from_slice(body).map_err(|error| failed(&error))?;
            // What is wrong is said of what was sent.
            serde_json::from_value(json::plain(value)).map_err(|_| failed(&first))
        }),
    }
}

fn answer(
    encoding: Encoding,
    partial: Option<ExportTracePartialSuccess>,
) -> Result<Response<Body>, Problem> {
    let (media, body) = match encoding {
        Encoding::Protobuf => {
            let answer = ExportTraceServiceResponse {
                partial_success: partial,
            };
            ("application/x-protobuf", answer.encode_to_vec())
        }
        Encoding::Json => {
            let answer = match partial {
                None => serde_json::json!({}),
                // In JSON a 64-bit number is a text.
                Some(partial) => serde_json::json!({"partialSuccess": {
                    "rejectedSpans": partial.rejected_spans.to_string(),
                    "errorMessage": partial.error_message,
                }}),
            };
            ("application/json", answer.to_string().into_bytes())
        }
    };
    let mut response = Response::new(Body::from(body));
    let media = HeaderValue::from_static(media);
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    Ok(response)
}
