//! `/openapi.json`: what there is over HTTP, as OpenAPI 3.1 describes it, made of the table of routes.

use super::{
    keyring::{Access, ROUTES},
    problem::Problem,
    rendering::json,
};
use axum::{body::Body, http::Response};
use serde_json::{Map, Value, json};
use tollgate_sql::{accounts::TABLES, schema::accounts::accounts_schema};

/// What a route does, the parameters of its URL that may be left out, and its answer when all is well.
struct Described {
    path: &'static str,
    method: &'static str,
    does: &'static str,
    parameters: &'static [&'static str],
    takes: &'static [&'static str],
    answer: (u16, &'static [&'static str]),
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const QUERY: &[&str] = &[
    "from",
    "to",
    "windowSize",
    "windowTimeZone",
    "subject",
    "filterCustomerId",
    "groupBy",
    "filterGroupBy",
    "advancedMeterGroupByFilters",
    "clientId",
];

const fn get(
    path: &'static str,
    does: &'static str,
    parameters: &'static [&'static str],
    answer: &'static [&'static str],
) -> Described {
    Described {
        path,
        method: "GET",
        does,
        parameters,
        takes: &[],
        answer: (200, answer),
    }
}

const fn post(
    path: &'static str,
    does: &'static str,
    takes: &'static [&'static str],
    answer: (u16, &'static [&'static str]),
) -> Described {
    Described {
        path,
        method: "POST",
        does,
        parameters: &[],
        takes,
        answer,
    }
}

const fn put(path: &'static str, does: &'static str) -> Described {
    Described {
        method: "PUT",
        ..post(path, does, &[JSON], (200, &[JSON]))
    }
}

const DESCRIBED: &[Described] = &[
    get("/health/live", "Says that the process lives.", &[], &[TEXT]),
    get("/livez", "Says that the process lives.", &[], &[TEXT]),
    get("/healthz", "Says that the process lives.", &[], &[TEXT]),
    get(
        "/healthz/live",
        "Says that the process lives.",
        &[],
        &[TEXT],
    ),
    get(
        "/health/ready",
        "Says whether requests will be answered.",
        &[],
        &[TEXT],
    ),
    get(
        "/readyz",
        "Says whether requests will be answered.",
        &[],
        &[TEXT],
    ),
    get(
        "/healthz/ready",
        "Says whether requests will be answered.",
        &[],
        &[TEXT],
    ),
    get("/openapi.json", "This document.", &[], &[JSON]),
    get(
        "/metrics",
        "What the process counts, for Prometheus.",
        &[],
        &[TEXT],
    ),
    Described {
        parameters: &["validate"],
        ..post(
            "/api/v1/events",
            "Stores CloudEvents; answers when JetStream has acknowledged all of them.",
            &[
                "application/cloudevents+json",
                "application/cloudevents-batch+json",
                JSON,
                "application/x-ndjson",
            ],
            (204, &[]),
        )
    },
    post(
        "/lago/api/v1/events",
        "Stores an event as Lago's clients send it.",
        &[JSON],
        (200, &[JSON]),
    ),
    post(
        "/lago/api/v1/events/batch",
        "Stores events as Lago's clients send them.",
        &[JSON],
        (200, &[JSON]),
    ),
    post(
        "/v1/traces",
        "Stores an event for each span of a model call, as OpenTelemetry exports traces.",
        &["application/x-protobuf", JSON],
        (200, &["application/x-protobuf", JSON]),
    ),
    get(
        "/api/v1/meters",
        "Lists the meters.",
        &["page", "pageSize", "order", "orderBy", "includeDeleted"],
        &[JSON],
    ),
    get("/api/v1/meters/{meter}", "Describes a meter.", &[], &[JSON]),
    get(
        "/api/v1/meters/{meter}/subjects",
        "Lists who has usage.",
        &["from", "to"],
        &[JSON],
    ),
    get(
        "/api/v1/meters/{meter}/query",
        "Answers with usage by time and group.",
        QUERY,
        &[JSON, "text/csv"],
    ),
    post(
        "/api/v1/meters/{meter}/query",
        "Answers with usage by time and group.",
        &[JSON],
        (200, &[JSON, "text/csv"]),
    ),
    post(
        "/api/v1/query",
        "Answers one SQL statement that reads.",
        &[JSON],
        (
            200,
            &[
                JSON,
                "text/csv",
                "application/x-ndjson",
                "application/vnd.apache.parquet",
                "application/vnd.apache.arrow.stream",
            ],
        ),
    ),
    get(
        "/api/v1/invoices/{number}",
        "Answers with an issued document and its lines.",
        &[],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/invoices",
        "Lists the issued documents of a customer.",
        &["limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/usage",
        "Answers with what a customer used, by meter, subject and dimensions.",
        &["from", "to"],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/spend",
        "Answers with what the running billing periods of a customer come to so far.",
        &[],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}/balance",
        "Answers with the grants of a customer and what is left of each.",
        &[],
        &[JSON],
    ),
    post(
        "/api/v1/accounts",
        "Writes rows of accounts, all of them or none.",
        &[JSON],
        (200, &[JSON]),
    ),
    get(
        "/api/v1/customers",
        "Lists the rows of `customers` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/customers/{customer}",
        "Answers with the rows of one customer that stand.",
        &[],
        &[JSON],
    ),
    put(
        "/api/v1/customers/{customer}",
        "Writes a row of `customers`.",
    ),
    get(
        "/api/v1/subjects",
        "Lists the rows of `subjects` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/subjects/{subject}",
        "Answers with the rows of one subject that stand.",
        &[],
        &[JSON],
    ),
    put("/api/v1/subjects/{subject}", "Writes a row of `subjects`."),
    get(
        "/api/v1/subscriptions",
        "Lists the rows of `subscriptions` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/subscriptions/{subscription}",
        "Answers with the rows of one subscription that stand.",
        &[],
        &[JSON],
    ),
    put(
        "/api/v1/subscriptions/{subscription}",
        "Writes a row of `subscriptions`.",
    ),
    get(
        "/api/v1/grants",
        "Lists the rows of `grants` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/grants/{grant}",
        "Answers with the rows of one grant that stand.",
        &[],
        &[JSON],
    ),
    put("/api/v1/grants/{grant}", "Writes a row of `grants`."),
    get(
        "/api/v1/one_offs",
        "Lists the rows of `one_offs` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/one_offs/{one_off}",
        "Answers with the rows of one one_off that stand.",
        &[],
        &[JSON],
    ),
    put("/api/v1/one_offs/{one_off}", "Writes a row of `one_offs`."),
    get(
        "/api/v1/discounts",
        "Lists the rows of `discounts` that stand.",
        &["customer", "limit", "cursor"],
        &[JSON],
    ),
    get(
        "/api/v1/discounts/{discount}",
        "Answers with the rows of one discount that stand.",
        &[],
        &[JSON],
    ),
    put(
        "/api/v1/discounts/{discount}",
        "Writes a row of `discounts`.",
    ),
    get(
        "/api/v1/definitions",
        "Says which definitions are in force.",
        &[],
        &[JSON],
    ),
    post(
        "/api/v1/definitions/check",
        "Checks the files of a folder of definitions; nothing comes into force.",
        &[JSON],
        (200, &[JSON]),
    ),
    post(
        "/api/v1/definitions/reload",
        "Takes the definitions folder again.",
        &[],
        (200, &[JSON]),
    ),
];

/// The document.
pub(super) async fn show() -> Result<Response<Body>, Problem> {
    json(&document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for described in DESCRIBED {
        let path = paths.entry(described.path).or_insert_with(|| json!({}));
        path[described.method.to_lowercase()] = operation(described);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Tollgate", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "instance", "code"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "instance": {"type": "string"},
                    "code": {"type": "string"},
                    "errors": {"type": "array", "items": {
                        "type": "object",
                        "required": ["reason"],
                        "properties": {
                            "index": {"type": "integer"},
                            "table": {"type": "string"},
                            "field": {"type": "string"},
                            "file": {"type": "string"},
                            "line": {"type": "integer"},
                            "column": {"type": "integer"},
                            "reason": {"type": "string"},
                        },
                    }},
                },
            }},
        },
    })
}

fn operation(described: &Described) -> Value {
    let mut parameters: Vec<Value> = described
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let optional = described.parameters.iter();
    parameters.extend(optional.map(|name| {
        let schema = match *name {
            "subject" | "filterCustomerId" | "groupBy" => {
                json!({"type": "array", "items": {"type": "string"}})
            }
            "filterGroupBy" => {
                json!({"type": "object", "additionalProperties": {"type": "string"}})
            }
            _ => json!({"type": "string"}),
        };
        let style = if *name == "filterGroupBy" {
            "deepObject"
        } else {
            "form"
        };
        json!({"name": name, "in": "query", "style": style, "explode": true, "schema": schema})
    }));
    let content = |media: &[&str], schema: Value| -> Map<String, Value> {
        let media = media
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": schema})));
        media.collect()
    };
    let (status, media) = described.answer;
    let mut answers = Map::new();
    let mut good = json!({"description": "Done."});
    if !media.is_empty() {
        good["content"] = Value::Object(content(media, json!({})));
    }
    answers.insert(status.to_string(), good);
    if described.method == "GET" && is_closed(described) {
        let same = json!({"description": "The answer that the caller names in `If-None-Match`."});
        answers.insert("304".into(), same);
    }
    let problem = content(
        &["application/problem+json"],
        json!({"$ref": "#/components/schemas/Problem"}),
    );
    answers.insert(
        "default".into(),
        json!({"description": "What is wrong.", "content": problem}),
    );
    let mut operation = json!({
        "summary": described.does,
        "parameters": parameters,
        "responses": answers,
    });
    if !described.takes.is_empty() {
        let body = content(described.takes, body_of(described.path));
        operation["requestBody"] = json!({"required": true, "content": body});
    }
    if is_closed(described) {
        operation["security"] = json!([{"key": []}]);
    }
    operation
}

/// What a body must look like, where that can be said of all of its forms.
fn body_of(path: &str) -> Value {
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

fn is_closed(described: &Described) -> bool {
    let mut routes = ROUTES.iter();
    let route =
        routes.find(|(method, path, _)| (*method, *path) == (described.method, described.path));
    !matches!(route, Some((_, _, Access::Open)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_route_is_described_once_and_nothing_else() {
        let described: Vec<(&str, &str)> = DESCRIBED.iter().map(|d| (d.method, d.path)).collect();
        let routes: BTreeSet<(&str, &str)> = ROUTES.iter().map(|(m, p, _)| (*m, *p)).collect();
        assert_eq!(described.len(), routes.len());
        assert_eq!(described.into_iter().collect::<BTreeSet<_>>(), routes);
        let document = document();
        assert_eq!(
            document["paths"]["/api/v1/events"]["post"]["responses"]["204"]["description"],
            "Done."
        );
        assert_eq!(document["paths"]["/livez"]["get"].get("security"), None);
        let security = &document["paths"]["/api/v1/meters/{meter}/query"]["get"]["security"];
        assert_eq!(*security, json!([{"key": []}]));
    }
}
