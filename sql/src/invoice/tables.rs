//! Invoices and their lines as rows of `invoices` and `line_items`, whose columns [`crate::schema::invoices`] defines.

use super::{Invoice, LineItem, LineKind, Period, adjustments::Corrects};
use crate::{
    error::{Error, Result},
    money::{Currency, Exact, MINOR_DIGITS_MAX, Money, MoneyError},
    rating::Dimensions,
    schema::invoices::{invoices_schema, line_items_schema, money_type},
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, Decimal128Array, Int32Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{Int32Type, TimestampMicrosecondType},
    error::ArrowError,
};
use serde::{
    Serialize, Serializer,
    de::{Deserializer, MapAccess, Visitor},
};
use std::{fmt, sync::Arc};

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
        text(invoices.iter().map(|i| Some(i.kind()))),
        text(invoices.iter().map(|i| i.voids.as_deref())),
        text(invoices.iter().map(|i| i.issued_by.as_deref())),
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
        text(line().map(|l| l.corrects.as_ref().map(|of| of.number.as_str()))),
        text(line().map(|l| l.corrects.as_ref().map(|of| of.kind.as_str()))),
    ];
    RecordBatch::try_new(line_items_schema(), columns).map_err(engine)
}

/// The lines that rows of `line_items` are, in their order.
///
/// # Errors
/// [`Error::Invoice`] for a row that is not as [`line_items_batch`] writes it, [`Error::Money`] for a number that is none.
pub fn line_items_of(rows: &RecordBatch) -> Result<Vec<LineItem>> {
    (0..rows.num_rows())
        .map(|row| line_item_of(rows, row))
        .collect()
}

fn line_item_of(rows: &RecordBatch, row: usize) -> Result<LineItem> {
    let text = |name: &str| {
        let column = rows[name].as_string::<i32>();
        column.is_valid(row).then(|| column.value(row))
    };
    let refused = |column: &str| Error::Invoice {
        customer: text("customer").unwrap_or_default().to_owned(),
        plan: String::new(),
        problem: format!("column `{column}` of an issued line is not as it was written"),
    };
    let currency = Currency::parse(text("currency").unwrap_or_default())?;
    let money = |name: &str| -> Result<Money> {
        let amount = Exact::from_array(rows[name].as_ref(), row)?;
        Ok(Money::round(amount.unwrap_or(Exact::ZERO), currency)?)
    };
    let kind = |name: &str| {
        let kind = text(name).map(|kind| LineKind::parse(kind).ok_or_else(|| refused(name)));
        kind.transpose()
    };
    let instant = |name: &str| {
        rows[name]
            .as_primitive::<TimestampMicrosecondType>()
            .value(row)
    };
    let versions = rows["price_version"].as_primitive::<Int32Type>();
    let version = versions.is_valid(row).then(|| versions.value(row));
    let version =
        version.map(|version| u32::try_from(version).map_err(|_| refused("price_version")));
    let corrects = text("corrects")
        .map(str::to_owned)
        .zip(kind("corrects_kind")?);
    Ok(LineItem {
        kind: kind("kind")?.ok_or_else(|| refused("kind"))?,
        price: text("price").map(Arc::from),
        price_version: version.transpose()?,
        dimensions: dimensions_of(text("dimensions").unwrap_or("{}"))
            .ok_or_else(|| refused("dimensions"))?,
        quantity: text("quantity").map(Exact::parse).transpose()?,
        amount_exact: Exact::parse(text("amount_exact").unwrap_or("0"))?,
        amount: money("amount")?,
        discount: money("discount")?,
        promotional: money("promotional")?,
        period: Period {
            start_us: instant("period_start"),
            end_us: instant("period_end"),
        },
        subscription: text("subscription").map(Arc::from),
        text: text("text").map(str::to_owned),
        corrects: corrects.map(|(number, kind)| Corrects { number, kind }),
    })
}

/// Reads [`dimensions_json`], in its order.
fn dimensions_of(json: &str) -> Option<Dimensions> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Dimensions;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of text and null")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, _>()? {
                pairs.push((name.into(), value));
            }
            Ok(pairs.into())
        }
    }
    serde_json::Deserializer::from_str(json)
        .deserialize_map(Pairs)
        .ok()
}

/// A JSON object with the keys in this order; a map would sort them, or not, by a build's features.
pub fn dimensions_json(dimensions: &[(Arc<str>, Option<String>)]) -> String {
    struct Object<'a>(&'a [(Arc<str>, Option<String>)]);
    impl Serialize for Object<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(name, value)| (&**name, value)))
        }
    }
    serde_json::to_string(&Object(dimensions)).expect("a map whose keys are texts is JSON")
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
