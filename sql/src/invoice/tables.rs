//! The tables `invoices` and `line_items`, as any Parquet reader sees them.
//!
//! * `total` and `amount` are DECIMAL(38, 4): four fraction digits hold the minor unit of every ISO 4217
//!   currency, so dollars read `12.3400`. Round them no further.
//! * `quantity` and `amount_exact` are text: exact decimals of up to 38 digits, whose point may stand
//!   anywhere, so that no one DECIMAL holds them all. Cast them to one that suits:
//!   `CAST(quantity AS DECIMAL(38, 9))`. They are printed without zeros at the end.
//! * `dimensions` is a JSON object of text and null, its keys in the price's order; `cut` is a JSON object
//!   from shard to sequence.
//! * `line` counts from 1 within an invoice.

use super::{Invoice, LineItem};
use crate::{
    error::{Error, Result},
    money::{DIGITS_MAX, MINOR_DIGITS_MAX, Money, MoneyError},
    schema::timestamp,
};
use arrow::{
    array::{
        ArrayRef, Decimal128Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use std::sync::Arc;

/// The type of an amount of money in a table.
pub fn money_type() -> DataType {
    // Four is far below i8::MAX.
    DataType::Decimal128(
        DIGITS_MAX,
        i8::try_from(MINOR_DIGITS_MAX).unwrap_or(i8::MAX),
    )
}

/// The schema of `invoices`: one row an invoice. `number` and `issued_at` are NULL until it is final.
pub fn invoices_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("invoice", DataType::Utf8, false),
        Field::new("number", DataType::Utf8, true),
        Field::new("customer", DataType::Utf8, false),
        Field::new("plan", DataType::Utf8, false),
        Field::new("currency", DataType::Utf8, false),
        Field::new("period_start", timestamp(), false),
        Field::new("period_end", timestamp(), false),
        Field::new("status", DataType::Utf8, false),
        Field::new("lines", DataType::Int32, false),
        Field::new("total", money_type(), false),
        Field::new("cut", DataType::Utf8, false),
        Field::new("issued_at", timestamp(), true),
    ]))
}

/// The schema of `line_items`: one row a line.
pub fn line_items_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("invoice", DataType::Utf8, false),
        Field::new("line", DataType::Int32, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("customer", DataType::Utf8, false),
        Field::new("price", DataType::Utf8, true),
        Field::new("price_version", DataType::Int32, true),
        Field::new("dimensions", DataType::Utf8, false),
        Field::new("quantity", DataType::Utf8, true),
        Field::new("amount_exact", DataType::Utf8, false),
        Field::new("amount", money_type(), false),
        Field::new("currency", DataType::Utf8, false),
        Field::new("period_start", timestamp(), false),
        Field::new("period_end", timestamp(), false),
        Field::new("cut", DataType::Utf8, false),
    ]))
}

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

fn text<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn instants(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
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

fn engine(error: ArrowError) -> Error {
    Error::Engine {
        doing: "could not write invoices as rows",
        source: Box::new(error.into()),
    }
}
