//! `/api/v1/meters`: usage as OpenMeter's clients ask for it.

mod answer;
pub(super) mod offered;
mod question;

use super::{
    Defined, Doors,
    keyring::Caller,
    parameters::Parameters,
    problem::Problem,
    rendering::{accepted, instant, json, unwritten},
    views::Truth,
};
use crate::{
    billing::accounts,
    error::{Result as Done, query_error},
};
use answer::Row;
use axum::{
    body::Body,
    extract::{Extension, Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, Response, header},
};
use offered::{Offered, Shown};
use question::Question;
use serde::Serialize;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc};

/// Every meter, in order of definition.
pub(super) async fn list(
    State(doors): State<Arc<Doors>>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let mut parameters = Parameters::read(query.as_deref())?;
    let size = parameters.number("pageSize", 100)?;
    let page = parameters.number("page", 1)?;
    for ignored in ["order", "orderBy", "includeDeleted"] {
        parameters.all(ignored);
    }
    parameters.finish()?;
    let defined = doors.defined();
    let catalog = defined.catalog();
    let shown = defined
        .offered
        .iter()
        .skip((page - 1).saturating_mul(size))
        .take(size);
    let shown: Vec<Shown<'_>> = shown.map(|offered| offered.shown(catalog)).collect();
    json(&shown)
}

/// One meter by its slug or id.
pub(super) async fn get(
    State(doors): State<Arc<Doors>>,
    Path(name): Path<String>,
) -> Result<Response<Body>, Problem> {
    let defined = doors.defined();
    json(&named(&defined, &name)?.shown(defined.catalog()))
}

/// Who has usage of a meter.
pub(super) async fn subjects(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let question = Question::by_subject(query.as_deref())?.only(caller.subjects(&doors).await?);
    let answered = answered(&doors, &name, &question).await?;
    let content = serde_json::to_vec(&answer::first_keys(answered.rows));
    let content = content.map_err(|error| unwritten(&error))?;
    Ok(whole(content, "application/json", &answered.truth))
}

/// Answers a query that is in the URL.
pub(super) async fn query_url(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let question = Question::from_url(query.as_deref())?.only(caller.subjects(&doors).await?);
    respond(&doors, &name, &question, &headers).await
}

/// Answers a query that is in the body.
pub(super) async fn query_body(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let body = doors.body(&headers, body).await?;
    let question = Question::from_body(&body)?.only(caller.subjects(&doors).await?);
    respond(&doors, &name, &question, &headers).await
}

fn named<'a>(defined: &'a Defined, name: &str) -> Result<&'a Offered, Problem> {
    let all = &defined.offered;
    match offered::find(all, defined.catalog(), name) {
        Some(offered) => Ok(offered),
        None => {
            let slugs: Vec<&str> = all.iter().map(|offered| offered.slug.as_str()).collect();
            let detail = format!("there is no meter `{name}`; there are {}", slugs.join(", "));
            Err(Problem::not_found(detail))
        }
    }
}

struct Answered {
    slug: String,
    rows: Vec<Row>,
    truth: Truth,
}

async fn answered(doors: &Doors, name: &str, question: &Question) -> Result<Answered, Problem> {
    named(&doors.defined(), name)?;
    check_customers(doors, question).await?;
    let _turn = doors.turns.of_query().await?;
    let (defined, view) = doors.usage().await?;
    let offered = named(&defined, name)?;
    let rows_max = doors.settings.http.rows_max.0;
    let rows = answer::answer(&view, offered, question, rows_max);
    Ok(Answered {
        slug: offered.slug.clone(),
        rows: Box::pin(rows).await?,
        truth: Truth::of(&view).await?,
    })
}

/// Refuses to tell customers apart where accounts say who pays: a meter knows subjects, and whose each is changes with time.
async fn check_customers(doors: &Doors, question: &Question) -> Result<(), Problem> {
    let are_asked = question.group_by.iter().any(|key| key == "customer_id");
    if are_asked && accounts::are_there(doors.lakes.to_read().await?).await? {
        return Err(Problem::parameter(
            "with accounts a meter's usage is told by subject, not by customer; ask /api/v1/customers/{customer}/usage, or leave out \
             `filterCustomerId` and `groupBy=customer_id`",
        ));
    }
    Ok(())
}

async fn respond(
    doors: &Doors,
    name: &str,
    question: &Question,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let Answered { slug, rows, truth } = answered(doors, name, question).await?;
    if !wants_csv(headers) {
        let content = serde_json::to_vec(&in_json(question, &rows)?);
        let content = content.map_err(|error| unwritten(&error))?;
        return Ok(whole(content, "application/json", &truth));
    }
    let mut response = whole(csv(question, &rows)?, "text/csv", &truth);
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{slug}.csv\"")) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Whether a caller would rather have CSV than JSON.
fn wants_csv(headers: &HeaderMap) -> bool {
    let first = accepted(headers).find(|media| matches!(*media, "text/csv" | "application/json"));
    first == Some("text/csv")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_size: Option<&'static str>,
    data: Vec<RowInJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RowInJson {
    /// The shortest decimal that is the value: no digit passes through a float.
    value: Box<RawValue>,
    window_start: String,
    window_end: String,
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_id: Option<String>,
    group_by: BTreeMap<String, Option<String>>,
}

fn in_json(question: &Question, rows: &[Row]) -> Result<InJson, Problem> {
    let data = rows.iter().map(|row| {
        let mut keys: BTreeMap<String, Option<String>> = question
            .group_by
            .iter()
            .cloned()
            .zip(row.keys.clone())
            .collect();
        Ok(RowInJson {
            value: RawValue::from_string(row.value.to_string())
                .map_err(|error| unwritten(&error))?,
            window_start: instant(row.start_us),
            window_end: instant(row.end_us),
            subject: keys.remove("subject").flatten(),
            customer_id: keys.remove("customer_id").flatten(),
            group_by: keys,
        })
    });
    Ok(InJson {
        from: question.from_us.map(instant),
        to: question.to_us.map(instant),
        window_size: question.window.map(question::WindowSize::as_str),
        data: data.collect::<Result<_, Problem>>()?,
    })
}

/// An answer in a form of others, up to where it is true in its headers.
fn whole(content: Vec<u8>, media: &'static str, truth: &Truth) -> Response<Body> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    truth.tag(&content, &mut headers);
    let mut response = Response::new(Body::from(content));
    *response.headers_mut() = headers;
    response
}

fn csv(question: &Question, rows: &[Row]) -> Done<Vec<u8>> {
    let doing = "writing rows";
    let failed = |error: csv::Error| query_error(doing)(std::io::Error::other(error));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let keys = question.group_by.iter().map(String::as_str);
    let header = ["window_start", "window_end"]
        .into_iter()
        .chain(keys)
        .chain(["value"]);
    writer.write_record(header).map_err(failed)?;
    for row in rows {
        let time = [instant(row.start_us), instant(row.end_us)].into_iter();
        let keys = row.keys.iter().map(|key| key.clone().unwrap_or_default());
        let record = time.chain(keys).chain([row.value.to_string()]);
        writer.write_record(record).map_err(failed)?;
    }
    let bytes = writer.into_inner();
    bytes.map_err(|error| query_error(doing)(std::io::Error::other(error.to_string())))
}
