//! `/openapi.json`: what there is over HTTP, as OpenAPI 3.1 describes it, made of the table of routes.

mod answers;
mod bodies;
mod routes;

use super::{
    keyring::{Access, ROUTES},
    problem::Problem,
    rendering::json,
};
use answers::{answer_of, shared};
use axum::{body::Body, http::Response};
use bodies::body_of;
use routes::{DESCRIBED, Described};
use serde_json::{Map, Value, json};

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
            "schemas": shared(),
        },
    })
}

fn operation(described: &Described) -> Value {
    let mut operation = json!({
        "summary": described.does,
        "parameters": parameters(described),
        "responses": answers(described),
    });
    if !described.takes.is_empty() {
        let body = content(described.takes, |_| body_of(described.path));
        operation["requestBody"] = json!({"required": true, "content": body});
    }
    if is_closed(described) {
        operation["security"] = json!([{"key": []}]);
    }
    operation
}

/// The parts of a path that vary, the parameters of the URL, and the headers that are read.
fn parameters(described: &Described) -> Vec<Value> {
    let path = described.path.split('/');
    let path = path.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = path.map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    );
    let query = described.parameters.iter().map(|name| {
        let (style, schema) = match *name {
            "subject" | "filterCustomerId" | "groupBy" => {
                let schema = json!({"type": "array", "items": {"type": "string"}});
                ("form", schema)
            }
            "filterGroupBy" => {
                let schema = json!({"type": "object", "additionalProperties": {"type": "string"}});
                ("deepObject", schema)
            }
            _ => ("form", json!({"type": "string"})),
        };
        json!({"name": name, "in": "query", "style": style, "explode": true, "schema": schema})
    });
    let header = |name: &str, does: &str| {
        let schema = json!({"type": "string", "minLength": 1, "maxLength": 255});
        json!({"name": name, "in": "header", "description": does, "schema": schema})
    };
    let mut headers = Vec::new();
    if is_conditional(described) {
        let does = "Tags of answers that the caller has: 304 if it is one of them.";
        headers.push(header("If-None-Match", does));
    }
    if writes_accounts(described) {
        let does =
            "A request with a key that was used before is answered as then, and writes nothing.";
        headers.push(header("Idempotency-Key", does));
    }
    path.chain(query).chain(headers).collect()
}

fn answers(described: &Described) -> Value {
    let (status, media) = described.answer;
    let mut good = json!({"description": "Done."});
    if !media.is_empty() {
        let content = content(media, |media| answer_of(described, media));
        good["content"] = Value::Object(content);
    }
    let header = |does: &str| json!({"description": does, "schema": {"type": "string"}});
    let mut answers = Map::new();
    if has_cut(described) {
        good["headers"] = json!({
            "ETag": header("An answer with the same content, true at the same cut, has it again."),
            "Tollgate-Cut": header("Each shard and its last message that is included, such as `USAGE=123`."),
            "Tollgate-Cut-Age-Ms": header("How long ago that was, in milliseconds."),
        });
    }
    if is_conditional(described) {
        let same = json!({"description": "The answer that the caller names in `If-None-Match`."});
        answers.insert("304".into(), same);
    }
    if writes_accounts(described) {
        let replayed = header(
            "`true` when the answer is that of an earlier request with the same `Idempotency-Key`.",
        );
        good["headers"] = json!({"Idempotency-Replayed": replayed});
    }
    answers.insert(status.to_string(), good);
    let problem = content(
        &["application/problem+json"],
        |_| json!({"$ref": "#/components/schemas/Problem"}),
    );
    answers.insert(
        "default".into(),
        json!({"description": "What is wrong.", "content": problem}),
    );
    Value::Object(answers)
}

fn content(media: &[&str], schema: impl Fn(&str) -> Value) -> Map<String, Value> {
    let media = media.iter();
    let media = media.map(|media| ((*media).to_owned(), json!({"schema": schema(media)})));
    media.collect()
}

/// Whether an answer says up to where it is true, and has an `ETag`.
fn has_cut(described: &Described) -> bool {
    let path = described.path;
    let is_of_meter = path.starts_with("/api/v1/meters/{meter}/");
    let is_of_customer = path.starts_with("/api/v1/customers/{customer}/");
    is_of_meter || is_of_customer || matches!(path, "/api/v1/query" | "/api/v1/invoices/{number}")
}

/// Whether a caller that has the answer need not be sent it again.
fn is_conditional(described: &Described) -> bool {
    described.method == "GET" && has_cut(described)
}

fn writes_accounts(described: &Described) -> bool {
    described.method == "PUT" || described.path == "/api/v1/accounts"
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
