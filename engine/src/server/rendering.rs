//! How answers are written.

use super::problem::Problem;
use crate::{
    cli::output::{Format, encode_rows},
    error::{Result as Done, query_error},
};
use arrow::array::RecordBatch;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tollgate_sql::money::Exact;

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

/// A number in JSON, with every digit.
pub(super) fn number(number: Exact) -> Result<Box<RawValue>, Problem> {
    raw(number.without_trailing_zeros().to_string())
}

/// JSON text as it is.
pub(super) fn raw(text: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(text).map_err(|error| unwritten(&error))
}

/// Texts of JSON as an array.
pub(super) fn list(texts: Vec<String>) -> Result<Box<RawValue>, Problem> {
    raw(format!("[{}]", texts.join(",")))
}

/// Each row as JSON, decimals with every digit.
pub(super) fn texts(rows: &[RecordBatch]) -> Done<Vec<String>> {
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    let bytes = encode_rows(&first.schema(), rows, Format::Ndjson)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::to_owned).collect())
}

/// The same of some columns, in this order.
pub(super) fn texts_of(rows: &RecordBatch, columns: &[String]) -> Done<Vec<String>> {
    if columns.is_empty() {
        return Ok(vec!["{}".to_owned(); rows.num_rows()]);
    }
    let places = columns.iter().map(|name| rows.schema().index_of(name));
    let places = places.collect::<Result<Vec<_>, _>>();
    let rows = places.and_then(|places| rows.project(&places));
    texts(&[rows.map_err(query_error("writing rows"))?])
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
