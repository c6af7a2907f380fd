//! Invoices and their lines as rows of `invoices` and `line_items`, whose columns [`crate::schema::invoices`] defines.

use super::{Invoice, LineItem};
use crate::{
    error::{Error, Result},
    money::{MINOR_DIGITS_MAX, Money, MoneyError},
    schema::invoices::{invoices_schema, line_items_schema, money_type},
};
use arrow::{
    array::{
        ArrayRef, Decimal128Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    error::ArrowError,
};
use std::sync::Arc;

/// The invoices as rows of `invoices`, in their order.
///
/// # Errors
/// [`Error::Money`] for a total that has more than 34 digits before the point.
pub fn invoices_batch(invoices: &[Invoice]) -> Result<RecordBatch> {
    let lines = invoices.iter().map(|invoice| number(invoice.lines.len()));
    let columns: Vec<ArrayRef> = vec![
        text(invoices.iter().map(|i| Some(i.id.as_str()))),
        text(invoices.iter().map(|i| i.number.as_deref())),
        text(invoices.iter().map(|i| Some(i.customer.as_str()))),
        text(invoices.iter().map(|i| Some(i.plan.as_str()))),
        text(invoices.iter().map(|i| Some(i.total.currency().code()))),
        instants(invoices.iter().map(|i| Some(i.period.start_us))),
        instants(invoices.iter().map(|i| Some(i.period.end_us))),
        text(invoices.iter().map(|i| Some(i.status.as_str()))),
        Arc::new(lines.collect::<Result<Int32Array>>()?),
        amounts(invoices.iter().map(|i| i.total))?,
        text(invoices.iter().map(|i| Some(i.cut.as_str()))),
        instants(invoices.iter().map(|i| i.issued_at_us)),
        amounts(invoices.iter().map(|i| i.discount))?,
        amounts(invoices.iter().map(|i| i.promotional))?,
        amounts(invoices.iter().map(|i| i.tax))?,
        amounts(invoices.iter().map(|i| i.credits))?,
        amounts(invoices.iter().map(|i| i.amount_due))?,
    ];
    RecordBatch::try_new(invoices_schema(), columns).map_err(engine)
}

/// All lines of the invoices as rows of `line_items`, in their order.
///
/// # Errors
/// [`Error::Money`] for an amount that has more than 34 digits before the point.
pub fn line_items_batch(invoices: &[Invoice]) -> Result<RecordBatch> {
    let rows: Vec<(&Invoice, usize, &LineItem)> = invoices
        .iter()
        .flat_map(|invoice| {
            (1..)
                .zip(&invoice.lines)
                .map(move |(n, line)| (invoice, n, line))
        })
        .collect();
    let invoice = || rows.iter().map(|(invoice, ..)| *invoice);
    let line = || rows.iter().map(|(.., line)| *line);
    let lines = rows.iter().map(|(_, n, _)| number(*n));
    let versions = line().map(|l| l.price_version.map(number).transpose());
    let columns: Vec<ArrayRef> = vec![
        text(invoice().map(|i| Some(i.id.as_str()))),
        Arc::new(lines.collect::<Result<Int32Array>>()?),
        text(line().map(|l| Some(l.kind.as_str()))),
        text(invoice().map(|i| Some(i.customer.as_str()))),
        text(line().map(|l| l.price.as_deref())),
        Arc::new(versions.collect::<Result<Int32Array>>()?),
        text(line().map(|l| Some(dimensions_json(&l.dimensions)))),
        text(line().map(|l| l.quantity.map(|quantity| quantity.to_string()))),
        text(line().map(|l| Some(l.amount_exact.to_string()))),
        amounts(line().map(|l| l.amount))?,
        text(line().map(|l| Some(l.amount.currency().code()))),
        instants(line().map(|l| Some(l.period.start_us))),
        instants(line().map(|l| Some(l.period.end_us))),
        text(invoice().map(|i| Some(i.cut.as_str()))),
        amounts(line().map(|l| l.discount))?,
        amounts(line().map(|l| l.promotional))?,
        text(line().map(|l| l.subscription.as_deref())),
        text(line().map(|l| l.text.as_deref())),
    ];
    RecordBatch::try_new(line_items_schema(), columns).map_err(engine)
}

/// A JSON object with the keys in this order; a map would sort them, or not, by a build's features.
pub fn dimensions_json(dimensions: &[(String, Option<String>)]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let pairs: Vec<String> = dimensions
        .iter()
        .map(|(name, value)| {
            let value = value.as_deref().map_or_else(|| "null".to_owned(), quote);
            format!("{}:{value}", quote(name))
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

pub(crate) fn text<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(crate) fn instants(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(
        values
            .collect::<TimestampMicrosecondArray>()
            .with_timezone("UTC"),
    )
}

fn amounts(values: impl Iterator<Item = Money>) -> Result<ArrayRef> {
    let digits = values.map(|money| money.to_exact().digits_at(MINOR_DIGITS_MAX));
    let digits: Vec<i128> = digits.collect::<Result<_, MoneyError>>()?;
    Ok(Arc::new(
        Decimal128Array::from(digits).with_data_type(money_type()),
    ))
}

/// A count that fits the column; no invoice has two thousand million lines.
fn number<N: TryInto<i32>>(count: N) -> Result<i32> {
    count.try_into().map_err(|_| {
        engine(ArrowError::InvalidArgumentError(
            "a count exceeds 32 bits".to_owned(),
        ))
    })
}

pub(crate) fn engine(error: ArrowError) -> Error {
    Error::Engine {
        doing: "could not write invoices as rows",
        source: Box::new(error.into()),
    }
}
