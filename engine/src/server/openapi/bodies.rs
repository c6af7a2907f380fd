//! What requests carry.

use serde_json::{Map, Value, json};
use tollgate_sql::{accounts::TABLES, schema::accounts::accounts_schema};

/// What a body must look like, where that can be said of all of its forms.
pub(super) fn body_of(path: &str) -> Value {
    match path {
        "/api/v1/query" => json!({
            "type": "object",
            "required": ["sql"],
            "properties": {"sql": {"type": "string"}},
            "additionalProperties": false,
        }),
        "/api/v1/definitions/check" => json!({
            "type": "object",
            "required": ["files"],
            "properties": {"files": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "text"],
                "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
                "additionalProperties": false,
            }}},
            "additionalProperties": false,
        }),
        "/api/v1/accounts" => {
            let tables = TABLES.into_iter();
            let tables = tables.map(|table| {
                let rows = json!({"type": "array", "items": row_of(table)});
                (table.to_owned(), rows)
            });
            let tables: Map<String, Value> = tables.collect();
            json!({"type": "object", "properties": tables, "additionalProperties": false})
        }
        path => {
            let table = path.split('/').nth(3).unwrap_or_default();
            row_of(table)
        }
    }
}

/// A row of a table of accounts; anything where there is no such table.
fn row_of(table: &str) -> Value {
    let Some(schema) = accounts_schema(table) else {
        return json!({});
    };
    let fields = schema.fields().iter();
    let fields = fields.map(|field| {
        let types = match field.name().as_str() {
            "applies_to" => json!(["string", "array", "null"]),
            _ => json!(["string", "number", "boolean", "null"]),
        };
        let mut of_field = json!({"type": types});
        if field.name() == "applies_to" {
            of_field["items"] = json!({"type": "string"});
        }
        (field.name().clone(), of_field)
    });
    let fields: Map<String, Value> = fields.collect();
    json!({"type": "object", "properties": fields, "additionalProperties": false})
}
