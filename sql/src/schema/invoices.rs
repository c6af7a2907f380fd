//! The tables `invoices` and `line_items`, as any Parquet reader sees them.
//!
//! * `total` and `amount` are DECIMAL(38, 4): four fraction digits hold the minor unit of every ISO 4217
//!   currency, so dollars read `12.3400`. Round them no further.
//! * `quantity` and `amount_exact` are text: exact decimals of up to 38 digits, whose point may stand
//!   anywhere, so that no one DECIMAL holds them all. Cast them to one that suits:
//!   `CAST(quantity AS DECIMAL(38, 9))`. They are printed without zeros at the end.
//! * `dimensions` is a JSON object of text and null, its keys in the price's order; `cut` is a JSON object
//!   from shard to sequence.
//! * `amount` is before discounts and promotional credits, of which the line's shares are `discount` and `promotional`. `total` is
//!   after both and with taxes, `credits_applied` is what prepaid credits pay of it, `amount_due` what is left. These, `tax`,
//!   `subscription` and `text` are NULL in rows that were written before they were kept.
//! * `corrects` is the number of the earlier document that a line corrects, and `corrects_kind` the kind of its line; both are NULL
//!   in a document's own lines. `period_start` and `period_end` are those of the line that is corrected.
//! * `document_kind` is `invoice`, `credit_note` of a document whose total is below zero, or `void` of one that takes another back
//!   whole, whose number is in `voids`; NULL is an invoice. `issued_by` is who issued it, NULL where that is not known.
//! * `line` counts from 1 within an invoice.

use super::timestamp;
use crate::money::{DIGITS_MAX, MINOR_DIGITS_MAX};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
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
        Field::new("discount", money_type(), true),
        Field::new("promotional", money_type(), true),
        Field::new("tax", money_type(), true),
        Field::new("credits_applied", money_type(), true),
        Field::new("amount_due", money_type(), true),
        Field::new("document_kind", DataType::Utf8, true),
        Field::new("voids", DataType::Utf8, true),
        Field::new("issued_by", DataType::Utf8, true),
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
        Field::new("discount", money_type(), true),
        Field::new("promotional", money_type(), true),
        Field::new("subscription", DataType::Utf8, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("corrects", DataType::Utf8, true),
        Field::new("corrects_kind", DataType::Utf8, true),
    ]))
}

/// The schema of the lake's table `invoices`: what an invoice says, its serial number, and its lines as it was issued
/// (rows of `line_items`, one JSON object a line), what it was made from ([`crate::invoice::basis::Basis`]), and what it burnt
/// of grants (JSON: grant, instant in microseconds, amount). The last two are NULL in those that were issued before they were kept.
pub fn issued_invoices_schema() -> SchemaRef {
    let schema = invoices_schema();
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("serial", DataType::Int64, false));
    fields.push(Field::new("document", DataType::Utf8, false));
    fields.push(Field::new("basis", DataType::Utf8, true));
    fields.push(Field::new("burns", DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}
