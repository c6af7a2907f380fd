//! `POST /api/v1/query`: SQL, as `tollgate query` answers it, within bounds.

use super::{
    Doors,
    keyring::Caller,
    problem::Problem,
    rendering::{accepted, raw},
    views::Truth,
};
use crate::{
    cli::output::{Format, encode_rows},
    query,
};
use axum::{
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The body of a question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
}

/// The rows in JSON.
#[derive(Serialize)]
struct InJson {
    data: Box<RawValue>,
}

/// Answers one statement that reads.
pub(super) async fn answer(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let bytes = doors.body(&headers, body).await?;
    if let Some(answer) = doors.handed_on("/api/v1/query", &headers, &bytes).await {
        return answer;
    }
    let Asked { sql } = serde_json::from_slice(&bytes).map_err(|error| {
        let detail = format!("the body: {error}; write {{\"sql\": \"SELECT …\"}}");
        Problem::new(StatusCode::BAD_REQUEST, "body_invalid", detail)
    })?;
    let defined = doors.defined();
    let of = (defined.catalog(), doors.lakes.to_read().await?);
    let own = caller.own(&doors).await?;
    let asked = query::Asked {
        sql: &sql,
        bounds: doors.bounds(),
        own: own.as_ref(),
    };
    let answering =
        async { Ok::<_, Problem>(Box::pin(query::answer(&doors.settings, asked, of)).await?) };
    let answered = doors.turns.of_statement(&sql, answering).await?;
    let truth = Truth::of(&answered.view).await?;
    let (format, media) = wanted(&headers);
    let bytes = encode_rows(&answered.rows.schema, &answered.rows.batches, format)?;
    if format == Format::Json {
        let data = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        return truth.answer(&InJson { data: raw(data)? });
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    truth.tag(&bytes, &mut headers);
    let mut response = Response::new(Body::from(bytes));
    *response.headers_mut() = headers;
    Ok(response)
}

/// The first format among those that the caller takes that there is; JSON when there is none.
fn wanted(headers: &HeaderMap) -> (Format, &'static str) {
    const FORMATS: [(Format, &str); 5] = [
        (Format::Json, "application/json"),
        (Format::Csv, "text/csv"),
        (Format::Ndjson, "application/x-ndjson"),
        (Format::Parquet, "application/vnd.apache.parquet"),
        (Format::Arrow, "application/vnd.apache.arrow.stream"),
    ];
    let format = |media: &str| FORMATS.into_iter().find(|(_, known)| *known == media);
    let known = accepted(headers).find_map(format);
    known.unwrap_or(FORMATS[0])
}
