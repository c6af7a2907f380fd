//! Whether a lake goes on with these definitions: all that `run`, a query or an invoice would refuse, before any of them does.

use crate::{
    billing::{accounts, no_default_plan},
    catalog::Catalog,
    commit::{Marks, Position},
    config::{BillingSettings, Settings},
    error::{Error, Result, query_error},
    recovery,
    standing::Standings,
    view::{View, one_batch},
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use jiff::{Timestamp, civil::Date};
use std::sync::Arc;
use tollgate_connectors::{Error as ConnectorError, Table, lake::Lake};
use tollgate_sql::{meter::Meter, period::unknown_zone, session};

/// Everything in which the definitions and the settings do not go with a lake, in order of definition. Changes nothing. What is
/// over at `now_us` in accounts may be of plans and prices that are not defined any more.
///
/// # Errors
/// The lake cannot be read.
pub async fn problems(
    catalog: &Catalog,
    settings: &Settings,
    lake: &Lake,
    now_us: i64,
) -> Result<Vec<Error>> {
    let mut found = Vec::new();
    if settings.is_given("billing.default_plan") || !accounts::are_there(lake).await? {
        found.extend(no_default_plan(&catalog.definitions, settings));
    }
    found.extend(of_accounts(catalog, lake, now_us).await?);
    let events = match catalog.existing_events(lake).await {
        Ok(events) => events,
        Err(error) => {
            found.push(of_definitions(error)?);
            None
        }
    };
    for meter in &catalog.meters {
        let fits = match catalog.existing_meter(lake, meter).await {
            Ok(Some(table)) => goes_on(catalog, meter, events.as_deref(), table.as_ref()).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = fits {
            found.push(of_definitions(error)?);
        }
    }
    Ok(found)
}

/// Prices whose version would be in force in a period that was issued by an earlier one: a line for each. It is lawful, and what
/// differs is on no document.
///
/// # Errors
/// The lake cannot be read.
pub async fn issued_by_earlier_versions(
    catalog: &Arc<Catalog>,
    billing: &BillingSettings,
    lake: &Lake,
) -> Result<Vec<String>> {
    let later = catalog.definitions.prices.iter();
    let later: Vec<_> = later.filter(|price| price.version > 1).collect();
    if later.is_empty() {
        return Ok(Vec::new());
    }
    let view = View::open(Arc::clone(catalog), lake).await?;
    let mut found = Vec::new();
    for price in later {
        let Some(from) = price.effective_from else {
            continue;
        };
        let start = start_of_day(from, &billing.time_zone)?;
        let sql = format!(
            "SELECT COUNT(DISTINCT i.number), MIN(i.number) FROM line_items l JOIN invoices i ON i.invoice = l.invoice
             WHERE l.price = '{}' AND l.price_version < {} AND l.period_start >= '{start}'",
            price.name, price.version
        );
        let rows = rows_of(&view, &sql).await?;
        let (count, first) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1));
        if count.value(0) > 0 {
            found.push(format!(
                "{}: price `{}`: version {} is effective from {from}, and {} invoices of periods since then were issued by an \
                 earlier version, the first {}\n  hint: they stand; the relation `unissued` has what they would be otherwise",
                price.at,
                price.name,
                price.version,
                count.value(0),
                first.as_string::<i32>().value(0),
            ));
        }
    }
    Ok(found)
}

fn start_of_day(date: Date, zone: &str) -> Result<Timestamp> {
    let start = date.in_tz(zone);
    let start = start.map_err(|_| unknown_zone(zone))?;
    Ok(start.timestamp())
}

async fn rows_of(view: &View, sql: &str) -> Result<RecordBatch> {
    let doing = "reading what was issued";
    let context = view.session(sql).await?;
    let frame = session::query(&context, sql)
        .await
        .map_err(query_error(doing))?;
    let schema = Arc::clone(frame.schema().inner());
    let rows = frame.collect().await.map_err(query_error(doing))?;
    one_batch(&schema, &rows)
}

/// What accounts name that is not defined any more, and what came to contradict them.
async fn of_accounts(
    catalog: &Catalog,
    lake: &Lake,
    now_us: i64,
) -> Result<impl Iterator<Item = Error>> {
    let accounts = accounts::load(lake).await?.indexed();
    let problems = tollgate_sql::accounts::problems(&accounts, &catalog.definitions, now_us)?;
    Ok(problems.into_iter().map(|problem| Error::Billing {
        problem: match problem.column {
            Some(column) => format!("{}: column `{column}`: {}", problem.at, problem.problem),
            None => format!("{}: {}", problem.at, problem.problem),
        },
        hint: problem.hint,
    }))
}

/// Whether every shard's panes of a meter can be gone on with by its definition.
async fn goes_on(
    catalog: &Catalog,
    meter: &Arc<Meter>,
    events: Option<&dyn Table>,
    table: &dyn Table,
) -> Result<()> {
    let Some(events) = events else {
        return Ok(());
    };
    for shard in Standings::of(events).shards() {
        let marks = Marks::of(shard);
        let position = Position::load(events, &marks)?;
        let purpose = recovery::For::Reading;
        recovery::lane(
            &catalog.definitions,
            meter,
            Some(table),
            &marks,
            &position,
            purpose,
        )
        .await?;
    }
    Ok(())
}

/// The error, when it is one of the definitions.
///
/// # Errors
/// The error, when it is another.
fn of_definitions(error: Error) -> Result<Error> {
    match error {
        Error::Meter { .. }
        | Error::Connector(ConnectorError::OtherTable { .. })
        | Error::Sql(_) => Ok(error),
        other => Err(other),
    }
}
