//! `/api/v1/definitions`: what is in force, whether a folder's files would be, and the folder taken again.

use super::{
    Defined, Doors,
    problem::{Fault, Problem},
    rendering::{instant, json},
};
use crate::{
    billing,
    checking::{default_plan, describe, examine_given, unclear},
    error::{Error, chain, printable},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode},
};
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};
use tokio::time::timeout;
use tollgate_sql::{
    definitions::{Definitions, SourceFile},
    error::Location,
};

/// The definitions that are in force, by name.
#[derive(Serialize)]
struct Shown<'a> {
    /// Since when this process works by them.
    since: String,
    event_types: Vec<ShownType<'a>>,
    meters: Vec<Versioned<'a>>,
    rate_tables: Vec<ShownTable<'a>>,
    prices: Vec<Versioned<'a>>,
    plans: Vec<ShownPlan<'a>>,
    /// Why definitions that were wanted later could not be taken.
    refused: Option<&'a str>,
}

#[derive(Serialize)]
struct ShownType<'a> {
    name: &'a str,
    r#type: &'a str,
    columns: Vec<&'a str>,
    at: String,
}

#[derive(Serialize)]
struct Versioned<'a> {
    name: &'a str,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_from: Option<String>,
    at: String,
}

#[derive(Serialize)]
struct ShownTable<'a> {
    name: &'a str,
    rows: usize,
    at: String,
}

#[derive(Serialize)]
struct ShownPlan<'a> {
    name: &'a str,
    currency: &'a str,
    prices: &'a [String],
    at: String,
}

/// What became of a reload.
#[derive(Serialize)]
struct Reloaded<'a> {
    /// False while history is still filled in beside the shard: they come into force after that.
    is_in_force: bool,
    definitions: Shown<'a>,
}

/// The files of a folder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Folder {
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    text: String,
}

/// What is right.
#[derive(Serialize)]
struct Checked {
    /// What the definitions say, as `tollgate check` prints it.
    says: String,
    /// What is lawful and likely wrong.
    warnings: Vec<String>,
}

/// What is in force.
pub(super) async fn show(State(doors): State<Arc<Doors>>) -> Result<Response<Body>, Problem> {
    json(&shown(&doors.defined()))
}

/// Says whether the files in the body make sense as a folder of definitions. Nothing comes into force.
pub(super) async fn check(
    State(doors): State<Arc<Doors>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Problem> {
    let body = doors.body(&headers, body).await?;
    let path = "/api/v1/definitions/check";
    if let Some(answer) = doors.handed_on(path, &headers, &body).await {
        return answer;
    }
    let Folder { files } = serde_json::from_slice(&body).map_err(|error| {
        Problem::body(format!(
            "the body: {error}; write {{\"files\": [{{\"name\": \"usage.sql\", \"text\": \"…\"}}]}}"
        ))
    })?;
    let files = files.into_iter();
    let files: Vec<SourceFile> = files
        .map(|File { name, text }| SourceFile { name, text })
        .collect();
    let checking = Box::pin(checked(&doors, &files));
    doors.turns.of_statement(path, checking).await
}

async fn checked(doors: &Doors, files: &[SourceFile]) -> Result<Response<Body>, Problem> {
    let examined = Box::pin(examine_given(&doors.settings, files)).await;
    let (catalog, mut errors) = match examined {
        Err(Error::Usage(problem)) => return Err(Problem::body(problem)),
        examined => examined?,
    };
    errors.extend(unclear(&catalog));
    let mut plan = None;
    // While a plan is wrong, it may be that one.
    if errors.is_empty() {
        match default_plan(&doors.settings, &catalog) {
            Ok(warning) => plan = warning,
            Err(error) => errors.push(error),
        }
    }
    if let Err(error) = Error::all(errors) {
        return Err(refused(&error));
    }
    let warnings = Box::pin(billing::warnings(&catalog)).await?;
    let warnings = warnings.iter().map(ToString::to_string).chain(plan);
    json(&Checked {
        says: describe(&catalog),
        warnings: warnings.collect(),
    })
}

/// Takes the definitions folder again.
pub(super) async fn reload(State(doors): State<Arc<Doors>>) -> Result<Response<Body>, Problem> {
    let Some(reload) = &doors.reload else {
        let detail = "this run has an end, and keeps the definitions that it began with";
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "reload_unavailable",
            detail,
        ));
    };
    // What takes longer goes on; the answer must come before the request's time is over.
    let longest = doors.settings.http.timeout.duration() / 2;
    let before = doors.defined();
    let is_in_force = match timeout(longest, reload.ask()).await {
        Ok(Ok(())) => true,
        Ok(Err(error @ Error::NotRunning)) => return Err(error.into()),
        Ok(Err(error)) => return Err(refused(&error)),
        Err(_) => false,
    };
    let defined = match is_in_force {
        true => doors.defined_after(&before).await,
        false => before,
    };
    json(&Reloaded {
        is_in_force,
        definitions: shown(&defined),
    })
}

/// All that is wrong, each with its place.
fn refused(error: &Error) -> Problem {
    if !matches!(error.kind(), tollgate_connectors::ErrorKind::Invalid) {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Problem::new(status, error.code(), chain(error));
    }
    let errors = match error {
        Error::Several { errors } => errors.as_slice(),
        error => std::slice::from_ref(error),
    };
    Problem::definitions_refused(errors.iter().map(fault).collect())
}

fn fault(error: &Error) -> Fault {
    let (file, line, column) = error.place();
    let place = (line > 0).then_some((line, column));
    Fault {
        file: (!file.is_empty()).then(|| file_name(&file).to_owned()),
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column).filter(|column| *column > 0),
        reason: printable(&chain(error)),
        ..Fault::default()
    }
}

/// A file without the folders that lead to it.
fn file_name(file: &str) -> &str {
    let name = Path::new(file).file_name().and_then(|name| name.to_str());
    name.unwrap_or(file)
}

fn at(at: &Location) -> String {
    format!("{}:{}:{}", file_name(&at.file), at.line, at.column)
}

fn shown(defined: &Defined) -> Shown<'_> {
    let catalog = defined.catalog();
    let definitions = &catalog.definitions;
    let tables = definitions.rate_tables.iter().zip(&catalog.rate_tables);
    Shown {
        since: instant(defined.in_force.since_us),
        event_types: event_types(definitions),
        meters: meters(definitions),
        rate_tables: tables
            .map(|(table, rows)| ShownTable {
                name: &table.name,
                rows: rows.num_rows(),
                at: at(&table.at),
            })
            .collect(),
        prices: prices(definitions),
        plans: plans(definitions),
        refused: refused_since(defined),
    }
}

fn refused_since(defined: &Defined) -> Option<&str> {
    let refused = defined.in_force.refused.as_ref();
    refused.map(|(_, why)| why.as_str())
}

fn event_types(definitions: &Definitions) -> Vec<ShownType<'_>> {
    let types = definitions.event_types.iter();
    let types = types.map(|event_type| ShownType {
        name: &event_type.name,
        r#type: &event_type.cloud_event_type,
        columns: event_type
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect(),
        at: at(&event_type.at),
    });
    types.collect()
}

fn meters(definitions: &Definitions) -> Vec<Versioned<'_>> {
    let meters = definitions.meters.iter();
    let meters = meters.map(|meter| Versioned {
        name: &meter.name,
        version: meter.version,
        effective_from: meter.effective_from_us.map(instant),
        at: at(&meter.at),
    });
    meters.collect()
}

fn prices(definitions: &Definitions) -> Vec<Versioned<'_>> {
    let prices = definitions.prices.iter();
    let prices = prices.map(|price| Versioned {
        name: &price.name,
        version: price.version,
        effective_from: price.effective_from.map(|day| day.to_string()),
        at: at(&price.at),
    });
    prices.collect()
}

fn plans(definitions: &Definitions) -> Vec<ShownPlan<'_>> {
    let plans = definitions.plans.iter();
    let plans = plans.map(|plan| ShownPlan {
        name: &plan.name,
        currency: &plan.currency,
        prices: &plan.prices,
        at: at(&plan.at),
    });
    plans.collect()
}
