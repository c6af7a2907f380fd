//! `/api/v1/invoices/{number}` and `/api/v1/customers/{customer}/invoices`: issued documents, as the lake has them.

use super::{
    Doors,
    keyring::Caller,
    parameters::Parameters,
    problem::Problem,
    rendering::{list, raw, texts, unwritten},
    views::Truth,
};
use crate::{
    error::{Result as Done, query_error},
    tables::{INVOICES, LINE_ITEMS},
    view::INNER,
};
use arrow::array::RecordBatch;
use axum::{
    body::Body,
    extract::{Extension, Path, RawQuery, State},
    http::Response,
};
use datafusion::prelude::{Expr, SessionContext, col, lit};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// So many documents are on a page, unless the caller asks for fewer.
const PAGE_MAX: usize = 100;

#[derive(Serialize)]
struct Document {
    invoice: Box<RawValue>,
    lines: Box<RawValue>,
}

#[derive(Serialize)]
struct Page {
    data: Box<RawValue>,
    /// What `cursor` is for the page after this one; `null` on the last.
    next: Option<String>,
}

/// One issued document with its lines.
pub(super) async fn one(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(number): Path<String>,
) -> Result<Response<Body>, Problem> {
    let _turn = doors.turns.of_query().await?;
    let view = doors.defined().views.documents().await?;
    let context = view.session("SELECT 1 FROM invoices, line_items").await?;
    let mut of_number = col("number").eq(lit(number.as_str()));
    if let Some(customer) = caller.customer() {
        of_number = of_number.and(col("customer").eq(lit(customer)));
    }
    let invoices = rows(&context, INVOICES, of_number, &["number"], 2).await?;
    if count(&invoices) == 0 {
        return Err(Problem::not_found(format!(
            "there is no document `{number}`"
        )));
    }
    let invoice = texts(&invoices)?.into_iter().next().unwrap_or_default();
    let head = head_of(&invoice)?;
    let of_document = col("invoice").eq(lit(head.invoice));
    let rows_max = doors.settings.http.rows_max.0;
    let lines = rows(&context, LINE_ITEMS, of_document, &["line"], rows_max).await?;
    Truth::of(&view).await?.answer(&Document {
        invoice: raw(invoice)?,
        lines: list(texts(&lines)?)?,
    })
}

/// The issued documents of a customer, by number, a page at a time.
pub(super) async fn of_customer(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(customer): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    caller.check_sees(&customer)?;
    let mut parameters = Parameters::read(query.as_deref())?;
    let cursor = parameters.one("cursor")?;
    let limit = parameters.number("limit", PAGE_MAX)?.min(PAGE_MAX);
    parameters.finish()?;
    let _turn = doors.turns.of_query().await?;
    let view = doors.defined().views.documents().await?;
    let context = view.session("SELECT 1 FROM invoices").await?;
    let mut wanted = col("customer").eq(lit(customer));
    if let Some(cursor) = &cursor {
        wanted = wanted.and(col("number").gt(lit(cursor.as_str())));
    }
    let page = rows(&context, INVOICES, wanted, &["number"], limit + 1).await?;
    let mut found = texts(&page)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = match (more, found.last()) {
        (true, Some(last)) => head_of(last)?.number,
        _ => None,
    };
    Truth::of(&view).await?.answer(&Page {
        data: list(found)?,
        next,
    })
}

/// What a document is known by.
#[derive(Deserialize)]
struct Head {
    invoice: String,
    number: Option<String>,
}

fn head_of(document: &str) -> Result<Head, Problem> {
    serde_json::from_str(document).map_err(|error| unwritten(&error))
}

async fn rows(
    context: &SessionContext,
    table: &str,
    wanted: Expr,
    order: &[&str],
    most: usize,
) -> Done<Vec<RecordBatch>> {
    let doing = "reading issued documents";
    let order = order
        .iter()
        .map(|name| col(*name).sort(true, false))
        .collect();
    let frame = context.table(table).await.map_err(query_error(doing))?;
    let frame = frame
        .filter(wanted)
        .and_then(|frame| frame.sort(order))
        .and_then(|frame| frame.limit(0, Some(most)))
        .and_then(|frame| frame.drop_columns(&INNER))
        .map_err(query_error(doing))?;
    frame.collect().await.map_err(query_error(doing))
}

fn count(rows: &[RecordBatch]) -> usize {
    rows.iter().map(RecordBatch::num_rows).sum()
}
