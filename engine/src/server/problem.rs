//! What a caller is told when a request fails: problem details as RFC 9457 has them, with a code that stays the same.

use super::turns::Stopping;
use crate::error::{Error, chain};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use std::fmt;
use tollgate_connectors::{Error as Edge, ErrorKind};

/// Why a request failed.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<Fault>,
    allow: Option<String>,
}

/// What is wrong with one element of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    /// Its place among the elements, from 0, where it is one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
    /// The table of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<String>,
    /// The field of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    /// The file of a definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// Its line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// Its column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<u64>,
    /// What is wrong, and what would be right.
    pub(super) reason: String,
}

/// What is wrong with the elements of a request: how many there are, and the first of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) count: usize,
    pub(super) first: Vec<Fault>,
}

/// So many are told of one request.
pub(super) const FAULTS_MAX: usize = 1_000;

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.count += 1;
        if self.first.len() < FAULTS_MAX {
            self.first.push(fault);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A caller that is refused for want of room or of a server may come back after so many seconds.
const RETRY_AFTER_S: &str = "1";

impl Fault {
    /// What is wrong with the element at a place.
    pub(super) fn at(index: usize, reason: String) -> Self {
        Fault {
            index: Some(index),
            reason,
            ..Fault::default()
        }
    }
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Problem {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            allow: None,
        }
    }

    /// A parameter that cannot be used.
    pub(super) fn parameter(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "parameter_invalid", detail)
    }

    /// There is nothing at this place.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// There is no such customer, or none that the caller may see.
    pub(super) fn no_customer(customer: &str) -> Self {
        Problem::not_found(format!("there is no customer `{customer}`"))
    }

    /// An answer with more than so many of something.
    pub(super) fn answer_too_large(most: usize, what: &str) -> Self {
        let detail = format!(
            "the answer would have more than {most} {what}; ask for less time, or group by less"
        );
        Problem::new(StatusCode::BAD_REQUEST, "answer_too_large", detail)
    }

    /// Elements that are refused, and with them the whole request.
    pub(super) fn refused(elements: usize, faults: Faults) -> Self {
        let Faults {
            count,
            first: errors,
        } = faults;
        let first = errors.first();
        let first = first.map_or(String::new(), |fault| {
            let index = fault.index.unwrap_or_default();
            format!("; event {index}: {}", fault.reason)
        });
        let detail = format!(
            "{count} of {elements} events were refused, and nothing of the request was stored{first}"
        );
        Problem {
            errors,
            ..Problem::new(StatusCode::BAD_REQUEST, "events_refused", detail)
        }
    }

    /// Rows of accounts that are refused, and with them the whole request.
    pub(super) fn rows_refused(errors: Vec<Fault>) -> Self {
        let count = errors.len();
        let first = errors.first().map_or(String::new(), |fault| {
            let field = fault.field.as_deref();
            let field = field.map_or(String::new(), |field| format!("`{field}`: "));
            format!(": {field}{}", fault.reason)
        });
        let problems = if count == 1 { "problem" } else { "problems" };
        let detail = format!("nothing was written, {count} {problems}{first}");
        Problem {
            errors,
            ..Problem::new(StatusCode::BAD_REQUEST, "accounts_invalid", detail)
        }
    }

    /// Definitions that are wrong; those before stay in force.
    pub(super) fn definitions_refused(errors: Vec<Fault>) -> Self {
        let first = errors.first();
        let first = first.map_or(String::new(), |fault| format!(": {}", fault.reason));
        let problems = if errors.len() == 1 {
            "problem"
        } else {
            "problems"
        };
        let detail = format!("the definitions have {} {problems}{first}", errors.len());
        Problem {
            errors,
            ..Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "definitions_invalid",
                detail,
            )
        }
    }

    /// A body that is not read.
    pub(super) fn body(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "body_invalid", detail)
    }

    /// The methods that there are instead.
    pub(super) fn with_allow(mut self, allow: String) -> Self {
        self.allow = Some(allow);
        self
    }

    /// The answer to a request for `instance`.
    pub(super) fn answer(&self, instance: &str) -> Response<Body> {
        #[derive(Serialize)]
        struct Details<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            instance: &'a str,
            code: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [Fault],
        }
        let details = Details {
            r#type: format!("urn:tollgate:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        ) {
            let seconds = HeaderValue::from_static(RETRY_AFTER_S);
            headers.insert(header::RETRY_AFTER, seconds);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| allow.parse().ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

/// The problem is rendered where the path of the request is known.
impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Stopping> for Problem {
    fn from(_: Stopping) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Problem::new(status, "task_ended", "the process stops")
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match (&error, error.kind()) {
            _ if is_full(&error) => StatusCode::TOO_MANY_REQUESTS,
            // The stream is not as the settings say: no caller can mend it, and it may be mended.
            (Error::Connector(_) | Error::Unpublished { .. }, ErrorKind::Invalid)
            | (_, ErrorKind::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            (Error::Query { .. } | Error::Statement { .. } | Error::Sql(_), ErrorKind::Invalid) => {
                StatusCode::BAD_REQUEST
            }
            // What is asked for has no answer until usage, a price or an account is mended.
            (
                Error::InError { .. }
                | Error::Billing { .. }
                | Error::Meter { .. }
                | Error::KeyReused,
                _,
            ) => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = chain(&error), "request failed");
        }
        let code = match &error {
            Error::Connector(Edge::Unpublished { cause, .. }) => cause.code(),
            _ => error.code(),
        };
        Problem::new(status, code, chain(&error))
    }
}

fn is_full(error: &Error) -> bool {
    match error {
        Error::Connector(Edge::Full { .. }) => true,
        Error::Connector(Edge::Unpublished { cause, .. }) => matches!(**cause, Edge::Full { .. }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn body_of(response: Response<Body>) -> serde_json::Value {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await;
        serde_json::from_slice(&bytes.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn refused_events_are_named_by_their_places() {
        let mut faults = Faults::default();
        faults.push(Fault::at(2, "`id` is missing".into()));
        let answer = Problem::refused(3, faults).answer("/api/v1/events");
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(
            body_of(answer).await,
            json!({
                "type": "urn:tollgate:problem:events_refused",
                "title": "Bad Request",
                "status": 400,
                "detail": "1 of 3 events were refused, and nothing of the request was stored; event 2: `id` is missing",
                "instance": "/api/v1/events",
                "code": "events_refused",
                "errors": [{"index": 2, "reason": "`id` is missing"}],
            })
        );
    }

    #[test]
    fn a_full_stream_is_429_a_server_that_is_gone_503_and_a_bug_500() {
        let unpublished = |cause: Edge| {
            Error::Connector(Edge::Unpublished {
                number: 1,
                cause: cause.into(),
            })
        };
        let full = Edge::Full {
            stream: "USAGE".into(),
            source: "maximum messages exceeded".into(),
        };
        let gone = Edge::Source {
            shard: "USAGE".into(),
            doing: "publishing",
            source: "no acknowledgement came in time".into(),
        };
        for (error, status, code) in [
            (unpublished(full), 429, "stream_full"),
            (unpublished(gone), 503, "source_failed"),
            (Error::NotRunning, 503, "no_shard_running"),
            (Error::TaskEnded { task: "reader" }, 500, "task_ended"),
        ] {
            let problem = Problem::from(error);
            assert_eq!((problem.status.as_u16(), problem.code), (status, code));
            let retries = problem.answer("/").headers().contains_key("retry-after");
            assert_eq!(retries, status != 500);
        }
    }
}
