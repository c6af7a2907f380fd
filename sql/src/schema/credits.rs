//! The table `credit_ledger`: what happened to each grant. The rows of a grant up to an instant add up to its balance.
//!
//! * `kind` is `grant`, `burn`, `return`, `expire`, `rollover`, `recur` or `void`; see [`crate::credits::Entry`].
//! * `amount` is what the row adds to the balance, DECIMAL(38, 4): `burn`, `expire` and `void` are below zero.
//! * `at` of a burn is the last instant of the service period that it paid, whenever its document was issued.
//! * `document` is the number of the document that burnt or gave back; NULL of all other rows.

use super::{invoices::money_type, timestamp};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The schema of `credit_ledger`.
pub fn credit_ledger_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("grant", DataType::Utf8, false),
        Field::new("customer", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("amount", money_type(), false),
        Field::new("currency", DataType::Utf8, false),
        Field::new("at", timestamp(), false),
        Field::new("document", DataType::Utf8, true),
    ]))
}
