//! What answers look like when all is well.

use super::routes::Described;
use arrow::datatypes::{DataType, Schema};
use serde_json::{Map, Value, json};
use tollgate_sql::schema::{
    accounts::accounts_schema,
    invoices::{issued_invoices_schema, line_items_schema},
};

/// What several answers have in common, by name.
pub(super) fn shared() -> Value {
    let fault = object(
        &[
            ("index", json!({"type": "integer"})),
            ("table", text()),
            ("field", text()),
            ("file", text()),
            ("line", json!({"type": "integer"})),
            ("column", json!({"type": "integer"})),
            ("reason", text()),
        ],
        &["reason"],
    );
    let problem = object(
        &[
            ("type", text()),
            ("title", text()),
            ("status", json!({"type": "integer"})),
            ("detail", text()),
            ("instance", text()),
            ("code", text()),
            ("errors", list(fault)),
        ],
        &["type", "title", "status", "detail", "instance", "code"],
    );
    let truth = object(
        &[
            (
                "cut",
                list(object(
                    &[("shard", text()), ("sequence", json!({"type": "integer"}))],
                    &["shard", "sequence"],
                )),
            ),
            ("age_ms", json!({"type": ["integer", "null"]})),
        ],
        &["cut", "age_ms"],
    );
    let definition = object(&[("name", text()), ("at", text())], &["name", "at"]);
    json!({
        "Problem": problem,
        "Truth": truth,
        "Meter": meter(),
        "Invoice": row(&issued_invoices_schema()),
        "Line": row(&line_items_schema()),
        "Definition": definition,
        "Definitions": definitions(),
        "LagoEvent": lago_event(),
    })
}

/// The answer of a route in a media type.
pub(super) fn answer_of(described: &Described, media: &str) -> Value {
    match media {
        "application/json" => of_json(described),
        "text/plain" | "text/csv" | "application/x-ndjson" => json!({"type": "string"}),
        // Bytes, of which a schema says nothing.
        _ => json!({}),
    }
}

fn of_json(described: &Described) -> Value {
    match described.path {
        "/api/v1/meters" => list(named("Meter")),
        "/api/v1/meters/{meter}" => named("Meter"),
        "/api/v1/meters/{meter}/subjects" => list(json!({"type": "string"})),
        "/api/v1/meters/{meter}/query" => usage_of_meter(),
        "/api/v1/query" => with_truth(&[("data", list(json!({"type": "object"})))], &["data"]),
        "/api/v1/invoices/{number}" => document(),
        "/api/v1/customers/{customer}/invoices" => with_truth(
            &[
                ("data", list(named("Invoice"))),
                ("next", or_null("string")),
            ],
            &["data", "next"],
        ),
        "/api/v1/customers/{customer}/usage" => of_customer(used(), &[]),
        "/api/v1/customers/{customer}/spend" => {
            let draft = object(
                &[
                    ("invoice", named("Invoice")),
                    ("lines", list(named("Line"))),
                ],
                &["invoice", "lines"],
            );
            of_customer(draft, &["total", "amount_due"])
        }
        "/api/v1/customers/{customer}/balance" => of_customer(left(), &["prepaid", "promotional"]),
        "/api/v1/definitions" => named("Definitions"),
        "/api/v1/definitions/check" => object(
            &[("says", text()), ("warnings", list(text()))],
            &["says", "warnings"],
        ),
        "/api/v1/definitions/reload" => object(
            &[
                ("is_in_force", json!({"type": "boolean"})),
                ("definitions", named("Definitions")),
            ],
            &["is_in_force", "definitions"],
        ),
        "/lago/api/v1/events" => object(&[("event", named("LagoEvent"))], &["event"]),
        "/lago/api/v1/events/batch" => object(&[("events", list(named("LagoEvent")))], &["events"]),
        path => match path.split('/').nth(3).and_then(accounts_schema) {
            Some(schema) if described.method == "GET" => rows_that_stand(row(&schema)),
            Some(_) => written(),
            None if path == "/api/v1/accounts" => written(),
            // This document, and what OpenTelemetry defines.
            None => json!({"type": "object"}),
        },
    }
}

fn text() -> Value {
    json!({"type": "string"})
}

fn or_null(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// An object with what must and what may be in it.
fn object(properties: &[(&str, Value)], required: &[&str]) -> Value {
    let properties = properties.iter().cloned();
    let properties = properties.map(|(name, schema)| (name.to_owned(), schema));
    let properties: Map<String, Value> = properties.collect();
    json!({"type": "object", "required": required, "properties": properties})
}

/// The same with up to where it is true.
fn with_truth(properties: &[(&str, Value)], required: &[&str]) -> Value {
    json!({"allOf": [named("Truth"), object(properties, required)]})
}

/// A row of a table, as far as columns say.
fn row(schema: &Schema) -> Value {
    let columns = schema.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Boolean => "boolean",
            DataType::List(_) => "array",
            kind if kind.is_numeric() => "number",
            _ => "string",
        };
        (field.name().clone(), or_null(kind))
    });
    let columns: Map<String, Value> = columns.collect();
    json!({"type": "object", "properties": columns})
}

fn meter() -> Value {
    let texts = || json!({"type": "object", "additionalProperties": {"type": "string"}});
    object(
        &[
            ("id", text()),
            ("slug", text()),
            ("name", text()),
            (
                "aggregation",
                json!({"enum": ["SUM", "COUNT", "UNIQUE_COUNT", "AVG", "MIN", "MAX", "LATEST"]}),
            ),
            ("eventType", text()),
            ("valueProperty", text()),
            ("groupBy", texts()),
            ("metadata", texts()),
            ("createdAt", text()),
            ("updatedAt", text()),
        ],
        &[
            "id",
            "slug",
            "name",
            "aggregation",
            "eventType",
            "groupBy",
            "metadata",
            "createdAt",
            "updatedAt",
        ],
    )
}

/// Usage as OpenMeter's clients know it: up to where it is true is in the headers.
fn usage_of_meter() -> Value {
    let groups = json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}});
    let row = object(
        &[
            ("value", json!({"type": "number"})),
            ("windowStart", text()),
            ("windowEnd", text()),
            ("subject", or_null("string")),
            ("customerId", text()),
            ("groupBy", groups),
        ],
        &["value", "windowStart", "windowEnd", "subject", "groupBy"],
    );
    object(
        &[
            ("from", text()),
            ("to", text()),
            ("windowSize", text()),
            ("data", list(row)),
        ],
        &["data"],
    )
}

fn document() -> Value {
    with_truth(
        &[
            ("invoice", named("Invoice")),
            ("lines", list(named("Line"))),
        ],
        &["invoice", "lines"],
    )
}

/// What is asked of one customer, and sums by currency if there are any.
fn of_customer(data: Value, sums: &[&str]) -> Value {
    let mut properties = vec![("customer", text()), ("data", list(data))];
    let mut required = vec!["customer", "data"];
    if !sums.is_empty() {
        let numbers = sums.iter().map(|sum| (*sum, json!({"type": "number"})));
        let total: Vec<_> = [("currency", text())].into_iter().chain(numbers).collect();
        let names: Vec<&str> = total.iter().map(|(name, _)| *name).collect();
        properties.push(("totals", list(object(&total, &names))));
        required.push("totals");
    }
    with_truth(&properties, &required)
}

fn used() -> Value {
    let values = || json!({"type": "object"});
    object(
        &[
            ("meter", text()),
            ("subject", text()),
            ("from", text()),
            ("to", text()),
            ("dimensions", values()),
            ("quantities", values()),
        ],
        &["meter", "subject", "from", "to", "dimensions", "quantities"],
    )
}

fn left() -> Value {
    object(
        &[
            ("grant", text()),
            ("kind", json!({"enum": ["prepaid", "promotional"]})),
            ("currency", text()),
            ("amount", json!({"type": "number"})),
            ("left", json!({"type": "number"})),
            ("priority", json!({"type": "integer"})),
            ("applies_to", list(text())),
            ("effective_at", text()),
            ("expires_at", or_null("string")),
            ("recurs_every", or_null("string")),
            ("voided_at", or_null("string")),
        ],
        &["grant", "kind", "currency", "amount", "left"],
    )
}

fn rows_that_stand(row: Value) -> Value {
    object(
        &[
            ("serial", json!({"type": "integer"})),
            ("data", list(row)),
            ("next", or_null("string")),
        ],
        &["serial", "data", "next"],
    )
}

fn written() -> Value {
    object(
        &[
            ("rows", json!({"type": "integer"})),
            ("written", json!({"type": "integer"})),
        ],
        &["rows", "written"],
    )
}

fn definitions() -> Value {
    let each = || list(named("Definition"));
    object(
        &[
            ("since", text()),
            ("event_types", each()),
            ("meters", each()),
            ("rate_tables", each()),
            ("prices", each()),
            ("plans", each()),
            ("refused", or_null("string")),
        ],
        &[
            "since",
            "event_types",
            "meters",
            "rate_tables",
            "prices",
            "plans",
            "refused",
        ],
    )
}

fn lago_event() -> Value {
    object(
        &[
            ("transaction_id", text()),
            ("external_subscription_id", text()),
            ("code", text()),
            ("timestamp", text()),
            ("properties", or_null("object")),
            ("created_at", text()),
        ],
        &[
            "transaction_id",
            "external_subscription_id",
            "code",
            "timestamp",
            "created_at",
        ],
    )
}
