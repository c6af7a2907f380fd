//! `/api/v1/customers`, `/subjects`, `/subscriptions`, `/grants`, `/one_offs`, `/discounts` and `/accounts`: rows of accounts, written as
//! `tollgate accounts import` writes them, and read as they stand.

mod rows;

use super::{
    Doors,
    keyring::Caller,
    parameters::Parameters,
    problem::Problem,
    rendering::{json, list, texts},
};
use crate::{
    billing::accounts::{self, Imported, Request},
    clock::{Clock, SystemClock},
    error::{Error, Result as Done},
};
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use axum::{
    body::Body,
    extract::{Extension, MatchedPath, Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode},
};
use rows::{Rows, refused};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{collections::BTreeSet, sync::Arc};
use tollgate_sql::accounts::{Accounts, TABLES, rows_of};

/// So many keys are on a page, unless the caller asks for fewer.
const PAGE_MAX: usize = 1_000;

/// What became of rows that were sent.
#[derive(Serialize)]
struct Written {
    /// How many were sent.
    rows: usize,
    /// How many say something else than what stood.
    written: usize,
}

/// Rows that stand.
#[derive(Serialize)]
struct Page {
    /// The number of the last import whose rows these are.
    serial: i64,
    data: Box<RawValue>,
    /// What `cursor` is for the page after this one; `null` on the last.
    next: Option<String>,
}

/// Writes one row of a table, whose key is in the path.
pub(super) async fn put(
    State(doors): State<Arc<Doors>>,
    matched: MatchedPath,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let body = doors.body(&headers, body).await?;
    let table = table_of(matched.as_str())?;
    let rows = Rows::of_one(table, &key, &body)?;
    import(&doors, &headers, &rows, (table, &key)).await
}

/// Writes rows of any tables, all of them or none.
pub(super) async fn post(
    State(doors): State<Arc<Doors>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let body = doors.body(&headers, body).await?;
    import(&doors, &headers, &Rows::of_tables(&body)?, ("", "")).await
}

/// Rows of a table that stand, by key, a page at a time: all, or those of a customer.
pub(super) async fn all(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    matched: MatchedPath,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let table = table_of(matched.as_str())?;
    let mut parameters = Parameters::read(query.as_deref())?;
    let cursor = parameters.one("cursor")?;
    let limit = parameters.number("limit", PAGE_MAX)?.min(PAGE_MAX);
    let customer = parameters.one("customer")?;
    parameters.finish()?;
    if let Some(customer) = &customer {
        caller.check_sees(customer)?;
    }
    let customer = customer.or_else(|| caller.customer().map(str::to_owned));
    let _turn = doors.turns.of_query().await?;
    let (accounts, rows) = standing(&doors, table, customer.as_deref()).await?;
    let after = |key: &str| cursor.as_deref().is_none_or(|cursor| cursor < key);
    let rows = keyed(&rows, table, after)?;
    let keys: BTreeSet<&str> = keys_of(&rows, table).collect();
    let last = keys.iter().nth(limit - 1).copied();
    let next = last.filter(|_| keys.len() > limit).map(str::to_owned);
    let rows = keyed(&rows, table, |key| last.is_none_or(|last| key <= last))?;
    page(&accounts, &rows, next)
}

/// The rows of a table with one key that stand.
pub(super) async fn one(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    matched: MatchedPath,
    Path(key): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let table = table_of(matched.as_str())?;
    Parameters::read(query.as_deref())?.finish()?;
    let _turn = doors.turns.of_query().await?;
    // A customer's own rows are those that are in its name.
    let customer = match table {
        "customers" => Some(key.as_str()),
        _ => caller.customer(),
    };
    if let Some(customer) = customer {
        caller.check_sees(customer)?;
    }
    let (accounts, rows) = standing(&doors, table, customer).await?;
    let rows = keyed(&rows, table, |known| known == key)?;
    match rows.num_rows() {
        0 => Err(Problem::not_found(format!(
            "`{table}` has no row of `{key}`"
        ))),
        _ => page(&accounts, &rows, None),
    }
}

fn page(
    accounts: &Accounts,
    rows: &RecordBatch,
    next: Option<String>,
) -> Result<Response<Body>, Problem> {
    json(&Page {
        serial: accounts.serial,
        data: list(texts(std::slice::from_ref(rows))?)?,
        next,
    })
}

/// The table that a route is of.
fn table_of(route: &str) -> Result<&'static str, Problem> {
    let named = route.split('/').nth(3).unwrap_or_default();
    let mut tables = TABLES.into_iter();
    tables
        .find(|table| *table == named)
        .ok_or_else(|| Problem::not_found(format!("there is no table `{named}` of accounts")))
}

/// The rows of a table that stand, of a customer or of all, by key and time.
async fn standing(
    doors: &Doors,
    table: &str,
    customer: Option<&str>,
) -> Done<(Accounts, RecordBatch)> {
    let lake = doors.lakes.to_read().await?;
    let rows = match customer {
        Some(customer) => accounts::load_of(lake, customer).await?,
        None => accounts::load(lake).await?,
    };
    let accounts = rows.indexed().into_accounts();
    let rows = rows_of(&accounts, table).ok_or(Error::Contradiction {
        what: "every table of accounts has rows",
    })??;
    // With whom a customer's subjects are before and after is not of the customer.
    let rows = match customer {
        Some(customer) => {
            let names = rows["customer"].as_string::<i32>().iter();
            let is_own: BooleanArray = names.map(|name| Some(name == Some(customer))).collect();
            filtered(&rows, &is_own)?
        }
        None => rows,
    };
    Ok((accounts, rows))
}

/// The keys of rows: the first column of a table.
fn keys_of<'r>(rows: &'r RecordBatch, table: &str) -> impl Iterator<Item = &'r str> {
    debug_assert!(TABLES.contains(&table), "only tables of accounts have keys");
    rows.column(0).as_string::<i32>().iter().flatten()
}

fn keyed(rows: &RecordBatch, table: &str, is_wanted: impl Fn(&str) -> bool) -> Done<RecordBatch> {
    let wanted: BooleanArray = keys_of(rows, table)
        .map(|key| Some(is_wanted(key)))
        .collect();
    filtered(rows, &wanted)
}

fn filtered(rows: &RecordBatch, wanted: &BooleanArray) -> Done<RecordBatch> {
    filter_record_batch(rows, wanted).map_err(crate::error::query_error("reading accounts"))
}

/// Writes rows as an import does. A request with an `Idempotency-Key` that was made before is answered as then.
async fn import(
    doors: &Doors,
    headers: &HeaderMap,
    rows: &Rows,
    at: (&str, &str),
) -> Result<Response<Body>, Problem> {
    let request = request_of(headers, rows, at)?;
    // Two at once in one process would only be told to try again.
    let _turn = doors.importing.lock().await;
    let lake = doors.lakes.to_write().await?;
    let defined = doors.defined();
    let definitions = &defined.catalog().definitions;
    let zone = &doors.settings.billing.time_zone;
    let files = rows.files()?;
    let by = (request.as_ref(), &SystemClock as &dyn Clock);
    let imported = accounts::import_as(lake, &files, definitions, zone, by);
    match Box::pin(imported).await {
        Ok(imported) => written(&imported, rows.count()),
        Err(Error::Sql(tollgate_sql::Error::Accounts(problems))) => Err(refused(&problems)),
        Err(error) => Err(error.into()),
    }
}

fn written(imported: &Imported, rows: usize) -> Result<Response<Body>, Problem> {
    let written = match imported.again {
        Some(written) => written,
        None => imported.written.values().sum(),
    };
    let mut response = json(&Written { rows, written })?;
    if imported.again.is_some() {
        let replayed = HeaderValue::from_static("true");
        response
            .headers_mut()
            .insert("idempotency-replayed", replayed);
    }
    Ok(response)
}

/// What a request is known by when it comes again: its key, and all that it says.
fn request_of(
    headers: &HeaderMap,
    rows: &Rows,
    (table, key): (&str, &str),
) -> Result<Option<Request>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(first) = given.next() else {
        return Ok(None);
    };
    let is_one = given.next().is_none() && (1..=255).contains(&first.len());
    if !is_one {
        let detail = "`Idempotency-Key` is one text of 1 to 255 characters";
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "header_invalid",
            detail,
        ));
    }
    Ok(Some(Request::new(
        first.as_bytes(),
        &[table.as_bytes(), key.as_bytes(), &rows.content()?],
    )))
}
