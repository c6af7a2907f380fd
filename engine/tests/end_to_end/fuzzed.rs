//! What a machine asks that has read nothing but `/openapi.json`: no bug is found, and no answer that the document does not have; and
//! answers with something in them, which it may not find, held against the document.

use crate::{
    customers,
    http::open_ready,
    publishers::named,
    world::{TOKENS, World},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};
use tokio::process::Command;

const PRICE: &str = "
CREATE PRICE by_token WITH (currency = 'USD') AS
SELECT customer, SUM(input) AS quantity, SUM(input * 0.01) AS amount FROM tokens GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (by_token);
";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_asks_what_the_document_says_finds_no_bug_and_stops_nothing() {
    let Some(python) = named("TOLLGATE_SCHEMATHESIS", "python with schemathesis") else {
        return;
    };
    let world = World::new(&format!("{TOKENS}{PRICE}")).await;
    // Beside other tests everything takes longer, and an answer that took too long is none.
    let cli = world.cli().with("TOLLGATE_HTTP_TIMEOUT", "5m");
    let (running, http) = open_ready(&cli, &["run"]).await;
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    // By this python: the script itself names the one that stood there when it was installed.
    let ran = Command::new(&python)
        .arg(Path::new(&python).with_file_name("schemathesis"))
        .current_dir(world.path("."))
        .args(["run", &format!("http://{}/openapi.json", http.address)])
        .args(["--request-timeout", "300"])
        .args(["--checks", checks, "--phases", "examples,coverage,fuzzing"])
        .args([
            "--max-examples",
            "20",
            "--seed",
            "1",
            "--continue-on-failure",
        ])
        .args([
            "--generation-database",
            "none",
            "--warnings",
            "off",
            "--no-color",
        ])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("Tested: "), "{said}");
    // It goes on: what comes after all of that is counted.
    let event = json!({
        "specversion": "1.0", "id": "after", "source": "s", "type": "llm.completion", "subject": "after",
        "time": "2026-10-01T10:00:00Z", "data": {"model": "m", "input_tokens": 7, "output_tokens": 1},
    });
    let stored = http
        .post("/api/v1/events", "application/json", &event.to_string())
        .await;
    assert_eq!(stored.status, 204, "{stored:?}");
    let query = "/api/v1/meters/tokens_input/query?subject=after";
    http.until(query, |answer| {
        answer.status == 200 && answer.json()["data"][0]["value"] == 7
    })
    .await;
    let ran = running.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    cli.audit().await;
}

/// What is asked of a lake that has usage, accounts and a document: method, route, path, body.
fn asked() -> Value {
    let get = |route: &str, path: &str| json!(["GET", route, path, null]);
    let query = "/api/v1/meters/tokens_input/query?groupBy=subject&groupBy=model&windowSize=DAY";
    let mut asked = vec![
        get("/api/v1/meters", "/api/v1/meters"),
        get("/api/v1/meters/{meter}", "/api/v1/meters/tokens_input"),
        get(
            "/api/v1/meters/{meter}/subjects",
            "/api/v1/meters/tokens_input/subjects",
        ),
        get("/api/v1/meters/{meter}/query", query),
        get("/api/v1/invoices/{number}", "/api/v1/invoices/INV-000001"),
        get("/api/v1/definitions", "/api/v1/definitions"),
        json!(["POST", "/api/v1/query", "/api/v1/query", {"sql": "SELECT * FROM tokens"}]),
        json!([
            "POST",
            "/api/v1/meters/{meter}/query",
            "/api/v1/meters/tokens_calls/query",
            {}
        ]),
        json!(["POST", "/api/v1/definitions/check", "/api/v1/definitions/check",
            {"files": [{"name": "a.sql", "text": customers::definitions()}]}]),
        json!(["PUT", "/api/v1/customers/{customer}", "/api/v1/customers/initech", {"name": "Initech"}]),
        json!(["POST", "/api/v1/accounts", "/api/v1/accounts", {"customers": [{"customer": "hooli"}]}]),
        json!(["POST", "/lago/api/v1/events", "/lago/api/v1/events", {"event":
            {"transaction_id": "1", "external_subscription_id": "a", "code": "llm.completion", "properties": {}}}]),
    ];
    for what in ["usage", "spend", "balance"] {
        let route = format!("/api/v1/customers/{{customer}}/{what}");
        asked.push(get(&route, &route.replace("{customer}", "acme")));
    }
    asked.push(get(
        "/api/v1/customers/{customer}/invoices",
        "/api/v1/customers/first/invoices",
    ));
    for (table, column, key) in [
        ("customers", "customer", "acme"),
        ("subjects", "subject", "b"),
        ("subscriptions", "subscription", "s1"),
        ("grants", "grant", "g"),
        ("one_offs", "one_off", "o1"),
    ] {
        let all = format!("/api/v1/{table}");
        asked.push(get(&all, &all));
        asked.push(get(&format!("{all}/{{{column}}}"), &format!("{all}/{key}")));
    }
    Value::Array(asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_with_something_in_them_are_as_the_document_says() {
    let Some(python) = named("TOLLGATE_SCHEMATHESIS", "python with a checker of schemas") else {
        return;
    };
    let world = World::new(&customers::definitions()).await;
    let cli = world.cli().with("TOLLGATE_BILLING_DEFAULT_PLAN", "payg");
    let (running, http) = open_ready(&cli, &["run"]).await;
    let recent = Timestamp::now() - SignedDuration::from_hours(3);
    let events = json!([
        customers::event("1", "first", "2026-09-01T10:00:00Z", 5),
        customers::event("2", "a", &recent.to_string(), 7),
    ]);
    customers::publish(&http, &events).await;
    let counted = "/api/v1/meters/tokens_calls/query";
    http.until(counted, |answer| answer.json()["data"][0]["value"] == 2)
        .await;
    assert_eq!(running.terminate().await.code, Some(0));
    cli.succeed(&["invoice", "--period", "2026-09", "--finalize"])
        .await;
    let files = customers::write_accounts(&world);
    let import: Vec<&str> = ["accounts", "import"].into_iter().chain(files).collect();
    cli.succeed(&import).await;
    let (serving, http) = open_ready(&cli, &["serve"]).await;
    let ran = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/with_openapi.py"))
        .args([format!("http://{}", http.address), asked().to_string()])
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    let filled: BTreeMap<String, bool> = serde_json::from_slice(&ran.stdout).unwrap();
    let empty: Vec<&String> = filled
        .iter()
        .filter(|(_, is)| !**is)
        .map(|(route, _)| route)
        .collect();
    assert_eq!(empty, Vec::<&String>::new(), "nothing is in them");
    assert_eq!(filled.len(), 26);
    assert_eq!(serving.terminate().await.code, Some(0));
}
