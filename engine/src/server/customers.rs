//! `/api/v1/customers/{customer}/usage`, `/spend` and `/balance`: what a customer has used, what its running billing periods come to so
//! far, and what is left of its grants.

use super::{
    Doors,
    keyring::Caller,
    parameters::Parameters,
    problem::Problem,
    rendering::{instant, list, number, raw, texts, texts_of},
    views::Truth,
};
use crate::{
    billing::{Left, OfCustomer, Used, accounts},
    clock::{Clock, SystemClock},
    view::View,
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::FieldRef,
};
use axum::{
    body::Body,
    extract::{Extension, Path, RawQuery, State},
    http::Response,
};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::{GrantKind, Index},
    invoice::{
        self, Invoice,
        tables::{invoices_batch, line_items_batch},
    },
    meter::Meter,
    money::{Exact, Money},
};

/// What is asked for of one customer.
#[derive(Serialize)]
struct Answer<'a, T> {
    customer: &'a str,
    data: Vec<T>,
    /// Sums of it by currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<Vec<Total>>,
}

/// What was used, by meter, subject and dimensions.
#[derive(Serialize)]
struct UsedInJson<'a> {
    meter: &'a str,
    subject: String,
    from: String,
    to: String,
    dimensions: Box<RawValue>,
    quantities: Box<RawValue>,
}

/// The draft of a document.
#[derive(Serialize)]
struct Draft {
    invoice: Box<RawValue>,
    lines: Box<RawValue>,
}

/// A sum in one currency.
#[derive(Serialize)]
struct Total {
    currency: String,
    #[serde(flatten)]
    sums: BTreeMap<&'static str, Box<RawValue>>,
}

/// What is left of a grant.
#[derive(Serialize)]
struct LeftInJson<'a> {
    grant: &'a str,
    kind: &'static str,
    currency: &'a str,
    amount: Box<RawValue>,
    left: Box<RawValue>,
    priority: i64,
    applies_to: &'a [String],
    effective_at: String,
    expires_at: Option<String>,
    recurs_every: Option<&'a str>,
    voided_at: Option<String>,
}

/// Who is asked about, with its rows of accounts.
struct Known {
    customer: String,
    /// `None` without accounts.
    accounts: Option<Index>,
}

impl Known {
    fn with<'a>(&'a self, doors: &'a Doors, view: &'a View, lake: &'a Lake) -> OfCustomer<'a> {
        OfCustomer {
            view,
            lake,
            settings: &doors.settings.billing,
            accounts: self.accounts.as_ref(),
            customer: &self.customer,
            now_us: SystemClock.now_us(),
        }
    }
}

/// What a customer used in some time, or in its running billing periods.
pub(super) async fn usage(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(customer): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let mut parameters = Parameters::read(query.as_deref())?;
    let (from_us, to_us) = (parameters.instant("from")?, parameters.instant("to")?);
    parameters.finish()?;
    let asked = asked_time(from_us, to_us)?;
    let _turn = doors.turns.of_query().await?;
    let known = known(&doors, &caller, customer).await?;
    let ((_, view), lake) = (doors.usage().await?, doors.lakes.to_read().await?);
    let used = known.with(&doors, &view, lake);
    let used = Box::pin(used.usage(asked)).await?;
    let count: usize = used.iter().map(|used| used.rows.num_rows()).sum();
    let rows_max = doors.settings.http.rows_max.0;
    if count > rows_max {
        return Err(Problem::answer_too_large(rows_max, "rows"));
    }
    let mut data = Vec::with_capacity(count);
    for used in &used {
        let meter = &view.catalog().meters[used.meter];
        data.extend(used_in_json(meter, used)?);
    }
    answer(&view, &known, data, None).await
}

/// Both ends, or neither: then it is the running billing period.
fn asked_time(
    from_us: Option<i64>,
    to_us: Option<i64>,
) -> Result<Option<invoice::Period>, Problem> {
    match (from_us, to_us) {
        (None, None) => Ok(None),
        (Some(start_us), Some(end_us)) if start_us < end_us => {
            Ok(Some(invoice::Period { start_us, end_us }))
        }
        (Some(_), Some(_)) => Err(Problem::parameter("`to` must be after `from`")),
        _ => Err(Problem::parameter(
            "`from` and `to` belong together; leave out both for the running billing period",
        )),
    }
}

/// What the running billing periods of a customer come to so far.
pub(super) async fn spend(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(customer): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    Parameters::read(query.as_deref())?.finish()?;
    let _turn = doors.turns.of_query().await?;
    let known = known(&doors, &caller, customer).await?;
    let ((_, view), lake) = (doors.usage().await?, doors.lakes.to_read().await?);
    let of_customer = known.with(&doors, &view, lake);
    let drafts = Box::pin(of_customer.spend()).await?;
    let totals = totals_of(&drafts)?;
    let drafts = drafts.iter().map(draft).collect::<Result<_, _>>()?;
    answer(&view, &known, drafts, Some(totals)).await
}

/// The grants of a customer, and what is left of each.
pub(super) async fn balance(
    State(doors): State<Arc<Doors>>,
    Extension(caller): Extension<Caller>,
    Path(customer): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    Parameters::read(query.as_deref())?.finish()?;
    let _turn = doors.turns.of_query().await?;
    let known = known(&doors, &caller, customer).await?;
    // Grants and documents are read as they are now, whatever usage is known.
    let view = doors.defined().views.committed().await?;
    let lake = doors.lakes.to_read().await?;
    let of_customer = known.with(&doors, &view, lake);
    let left = of_customer.balances().await?;
    let totals = left_by_currency(&left)?;
    let data = left.iter().map(left_in_json).collect::<Result<_, _>>()?;
    answer(&view, &known, data, Some(totals)).await
}

async fn answer<T: Serialize>(
    view: &View,
    known: &Known,
    data: Vec<T>,
    totals: Option<Vec<Total>>,
) -> Result<Response<Body>, Problem> {
    Truth::of(view).await?.answer(&Answer {
        customer: &known.customer,
        data,
        totals,
    })
}

/// Who is asked about, if the caller may know.
async fn known(doors: &Doors, caller: &Caller, customer: String) -> Result<Known, Problem> {
    caller.check_sees(&customer)?;
    let accounts = accounts::load_of(doors.lakes.to_read().await?, &customer).await?;
    let (is_there, is_known) = (
        accounts.serial > 0,
        !accounts.customers.is_empty() || !accounts.subscriptions.is_empty(),
    );
    match (is_there, is_known) {
        (true, false) => Err(Problem::no_customer(&customer)),
        (is_there, _) => Ok(Known {
            customer,
            accounts: is_there.then(|| accounts.indexed()),
        }),
    }
}

fn used_in_json<'a>(meter: &'a Meter, used: &Used) -> Result<Vec<UsedInJson<'a>>, Problem> {
    let names = |fields: &[FieldRef]| -> Vec<String> {
        fields.iter().map(|field| field.name().clone()).collect()
    };
    let subjects = used.rows["subject"].as_string::<i32>().iter();
    let dimensions = texts_of(&used.rows, &names(meter.dimensions()))?;
    let measures = texts_of(&used.rows, &names(meter.measures()))?;
    let mut rows: Vec<_> = subjects.zip(dimensions).zip(measures).collect();
    rows.sort();
    let rows = rows.into_iter().map(|((subject, dimensions), quantities)| {
        Ok(UsedInJson {
            meter: &meter.definition().name,
            subject: subject.unwrap_or_default().to_owned(),
            from: instant(used.time.start_us),
            to: instant(used.time.end_us),
            dimensions: raw(dimensions)?,
            quantities: raw(quantities)?,
        })
    });
    rows.collect()
}

/// Columns of a draft that say nothing before it is issued, or what stands beside it.
const UNISSUED: [&str; 7] = [
    "invoice",
    "number",
    "status",
    "cut",
    "issued_at",
    "voids",
    "issued_by",
];

/// Columns of its lines that it says itself.
const OF_DRAFT: [&str; 3] = ["invoice", "customer", "cut"];

fn draft(draft: &Invoice) -> Result<Draft, Problem> {
    let drafts = std::slice::from_ref(draft);
    let invoice = invoices_batch(drafts).map_err(crate::Error::from)?;
    let lines = line_items_batch(drafts).map_err(crate::Error::from)?;
    let invoice = texts(&[without(invoice, &UNISSUED)])?;
    Ok(Draft {
        invoice: raw(invoice.into_iter().next().unwrap_or_default())?,
        lines: list(texts(&[without(lines, &OF_DRAFT)])?)?,
    })
}

fn without(mut rows: RecordBatch, names: &[&str]) -> RecordBatch {
    for name in names {
        if let Ok(place) = rows.schema().index_of(name) {
            rows.remove_column(place);
        }
    }
    rows
}

/// What drafts come to, by currency.
fn totals_of(drafts: &[Invoice]) -> Result<Vec<Total>, Problem> {
    let mut totals: BTreeMap<&str, (Money, Money)> = BTreeMap::new();
    for draft in drafts {
        let currency = draft.total.currency();
        let zero = Money::zero(currency);
        let sums = totals.entry(currency.code()).or_insert((zero, zero));
        let total = sums.0.checked_add(draft.total);
        let due = sums.1.checked_add(draft.amount_due);
        *sums = total.and_then(|total| Ok((total, due?))).map_err(unfit)?;
    }
    let totals = totals.into_iter().map(|(currency, (total, due))| {
        let sums = [("total", total.to_exact()), ("amount_due", due.to_exact())];
        total_in(currency, sums)
    });
    totals.collect()
}

/// What is left of grants, by currency and kind.
fn left_by_currency(left: &[Left<'_>]) -> Result<Vec<Total>, Problem> {
    let mut totals: BTreeMap<&str, [Exact; 2]> = BTreeMap::new();
    for left in left {
        let sums = totals
            .entry(&left.grant.currency)
            .or_insert([Exact::ZERO; 2]);
        let sum = match left.grant.kind {
            GrantKind::Prepaid => &mut sums[0],
            GrantKind::Promotional => &mut sums[1],
        };
        *sum = sum.checked_add(left.amount).map_err(unfit)?;
    }
    let totals = totals
        .into_iter()
        .map(|(currency, [prepaid, promotional])| {
            total_in(
                currency,
                [("prepaid", prepaid), ("promotional", promotional)],
            )
        });
    totals.collect()
}

fn total_in(currency: &str, sums: [(&'static str, Exact); 2]) -> Result<Total, Problem> {
    let sums = sums.into_iter().map(|(name, sum)| Ok((name, number(sum)?)));
    Ok(Total {
        currency: currency.to_owned(),
        sums: sums.collect::<Result<_, Problem>>()?,
    })
}

fn unfit(error: tollgate_sql::money::MoneyError) -> Problem {
    Problem::from(crate::Error::from(tollgate_sql::Error::from(error)))
}

fn left_in_json<'a>(left: &Left<'a>) -> Result<LeftInJson<'a>, Problem> {
    let grant = left.grant;
    Ok(LeftInJson {
        grant: &grant.grant,
        kind: match grant.kind {
            GrantKind::Prepaid => "prepaid",
            GrantKind::Promotional => "promotional",
        },
        currency: &grant.currency,
        amount: number(grant.amount)?,
        left: number(left.amount)?,
        priority: grant.priority,
        applies_to: &grant.applies_to,
        effective_at: instant(grant.effective_at_us),
        expires_at: grant.expires_at_us.map(instant),
        recurs_every: grant.recurs_every.as_deref(),
        voided_at: grant.voided_at_us.map(instant),
    })
}
