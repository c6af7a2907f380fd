//! What a machine asks that has read nothing but `/openapi.json`: no bug is found, and no answer that the document does not have.

use crate::{
    http::open_ready,
    world::{TOKENS, World},
};
use serde_json::json;
use std::path::Path;
use tokio::process::Command;

const PRICE: &str = "
CREATE PRICE by_token WITH (currency = 'USD') AS
SELECT customer, SUM(input) AS quantity, SUM(input * 0.01) AS amount FROM tokens GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (by_token);
";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_asks_what_the_document_says_finds_no_bug_and_stops_nothing() {
    let python = std::env::var_os("TOLLGATE_SCHEMATHESIS").filter(|python| !python.is_empty());
    let Some(python) = python else {
        println!("skipped: TOLLGATE_SCHEMATHESIS names no python with schemathesis");
        return;
    };
    let world = World::new(&format!("{TOKENS}{PRICE}")).await;
    // Beside other tests everything takes longer, and an answer that took too long is none.
    let cli = world.cli().with("TOLLGATE_HTTP_TIMEOUT", "5m");
    let (running, http) = open_ready(&cli, &["run"]).await;
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    let ran = Command::new(Path::new(&python).with_file_name("schemathesis"))
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
