//! How answers are written.

use super::problem::Problem;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;

/// An answer in JSON.
///
/// # Errors
/// The value cannot be written, which is a bug.
pub(super) fn json(value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| unwritten(&error))?;
    let mut response = Response::new(Body::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// An instant as RFC 3339 has it.
pub(super) fn instant(us: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(us);
    at.unwrap_or_default().to_string()
}

/// The media types that a caller takes, in its order.
pub(super) fn accepted(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let media = accepted.flat_map(|value| value.split(','));
    media.filter_map(|media| media.split(';').next().map(str::trim))
}

/// An answer that could not be written.
pub(super) fn unwritten(error: &dyn std::error::Error) -> Problem {
    let code = "internal_contradiction";
    let detail = format!("the answer could not be written: {error}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail)
}
