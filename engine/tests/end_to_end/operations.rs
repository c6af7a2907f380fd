//! What docs/operations.md and examples/operations say: the settings they name are read, the metrics are there, and a lake is
//! backed up while it is written.

use crate::{
    guide::blocks,
    http::open_ready,
    world::{TOKENS, World},
};
use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tokio::{net::TcpListener, process::Command, sync::mpsc};

const GUIDE: &str = include_str!("../../../docs/operations.md");
const SERVICE: &str = include_str!("../../../examples/operations/tollgate.service");
const JOB: &str = include_str!("../../../examples/operations/tollgate-invoice.service");
const IMAGE: &str = include_str!("../../../examples/operations/Dockerfile");
const CLUSTER: &str = include_str!("../../../examples/operations/kubernetes.yaml");
const DASHBOARD: &str = include_str!("../../../examples/grafana/tollgate.json");

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"llm.completion","subject":"a",
    "data":{"model":"m","input_tokens":1,"output_tokens":1}}"#;

/// Every word of a text that begins with one of these, up to what no name has.
fn names(text: &str, beginnings: &[&str]) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let known = |word: &&str| beginnings.iter().any(|begins| word.starts_with(begins));
    words.filter(known).map(str::to_owned).collect()
}

/// Variables and their values, as a service, an image and a cluster write them.
fn variables(text: &str) -> BTreeMap<String, String> {
    let of_line = |line: &str| {
        let line = line.trim().trim_end_matches('\\').trim();
        let line = line.trim_start_matches("Environment=");
        let line = line.trim_start_matches("ENV ");
        let (name, value) = line.split_once('=').or_else(|| line.split_once(": "))?;
        let value = value.trim_matches('"');
        name.starts_with("TOLLGATE_")
            .then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(of_line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_service_image_and_cluster_are_read() {
    let world = World::offline();
    world.write("definitions/usage.sql", TOKENS);
    for (text, count) in [(SERVICE, 4), (JOB, 3), (IMAGE, 2), (CLUSTER, 7)] {
        let variables = variables(text);
        assert_eq!(variables.len(), count, "{variables:?}");
        let mut cli = world.cli();
        for (name, value) in &variables {
            let value = match name.as_str() {
                "TOLLGATE_DEFINITIONS" => "definitions/",
                _ => value,
            };
            cli = cli.with(name, value);
        }
        cli.succeed(&["check"]).await;
        // The same check finds a name that is none.
        let (name, value) = variables.iter().next().unwrap();
        let misspelt = cli.with(&format!("{name}S"), value);
        assert_eq!(misspelt.run(&["check"]).await.code, Some(2), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_ask_for_what_metrics_has() {
    let world = World::new(TOKENS).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let media = [("Content-Type", "application/cloudevents+json")];
    let posted = http.send("POST", "/api/v1/events", &media, EVENT.as_bytes());
    assert_eq!(posted.await.unwrap().status, 204);
    let is_read = |answer: &crate::http::Answer| {
        answer
            .text()
            .contains("tollgate_watermark_timestamp_seconds ")
    };
    http.until("/metrics", is_read).await;
    let metrics = http.get("/metrics").await;
    let there = names(metrics.text(), &["tollgate_", "process_"]);
    let asked = names(DASHBOARD, &["tollgate_", "process_"]);
    let alerts = names(GUIDE, &["tollgate_"]);
    assert!(asked.len() > 10 && alerts.len() > 5, "{asked:?} {alerts:?}");
    let missing: Vec<_> = asked
        .union(&alerts)
        .filter(|name| !there.contains(*name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}\n{}", metrics.text());
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_alone_suffice() {
    let world = World::new(TOKENS).await;
    std::fs::create_dir(world.path("empty")).unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["run", "--until-end"])
        .current_dir(world.path("empty"))
        .env("TOLLGATE_DEFINITIONS", world.path("definitions"))
        .env("TOLLGATE_SOURCE_URL", world.url())
        .env("TOLLGATE_SOURCE_CREATE", "true")
        .env("TOLLGATE_LAKE_URL", world.path("lake"))
        .env("TOLLGATE_DEDUPE_DIRECTORY", world.path("ids"))
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    assert!(world.path("lake/events/_delta_log").exists());
}

/// A collector of traces: what is sent to it comes out of the receiver.
async fn collector() -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
    type Sender = mpsc::Sender<ExportTraceServiceRequest>;
    async fn take(State(sender): State<Sender>, body: Bytes) {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        sender.try_send(request).unwrap();
    }
    let (sender, receiver) = mpsc::channel(1_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/v1/traces", post(take))
        .with_state(sender);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_flushes_are_traced_where_a_collector_is_named() {
    let world = World::new(TOKENS).await;
    let (collector, mut sent) = collector().await;
    let cli = world.cli().with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector);
    let (running, http) = open_ready(&cli, &["run"]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers = [
        ("traceparent", parent.as_str()),
        ("Content-Type", "application/json"),
    ];
    let refused = http.send("POST", "/api/v1/events", &headers, b"[7]").await;
    assert_eq!(refused.unwrap().status, 400);
    let stored = http
        .send("POST", "/api/v1/events", &headers, EVENT.as_bytes())
        .await;
    assert_eq!(stored.unwrap().status, 204);
    let is_read = |answer: &crate::http::Answer| answer.text().contains("{status=\"counted\"} 1");
    http.until("/metrics", is_read).await;
    // What is left is sent when the process ends.
    assert_eq!(running.terminate().await.code, Some(0));
    let mut spans: Vec<Span> = Vec::new();
    while let Ok(request) = sent.try_recv() {
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap().attributes;
            let name = resource.iter().find(|pair| pair.key == "service.name");
            let name = name.and_then(|pair| pair.value.clone()?.value);
            assert_eq!(name, Some(Value::StringValue("tollgate".to_owned())));
            let scopes = of_resource.scope_spans.into_iter();
            spans.extend(scopes.flat_map(|scope| scope.spans));
        }
    }
    let posted = spans
        .iter()
        .filter(|span| span.name == "POST /api/v1/events");
    let statuses: Vec<_> = posted
        .map(|span| {
            let id: String = span
                .trace_id
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(id, trace, "{span:?}");
            let status = span.attributes.iter();
            let mut status = status.filter(|pair| pair.key == "http.response.status_code");
            status.next().and_then(|pair| pair.value.clone()?.value)
        })
        .collect();
    assert_eq!(
        statuses,
        [400, 204].map(|status| Some(Value::IntValue(status)))
    );
    let flushed = spans.iter().filter(|span| span.name == "flush");
    assert!(flushed.count() >= 1, "{spans:?}");
}

/// The newest version of each table of a lake, by its folder.
fn tables(lake: &std::path::Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![lake.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("_delta_log") {
                found.insert(folder.strip_prefix(lake).unwrap().display().to_string());
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_while_the_lake_is_written_is_read_on_from_the_stream() {
    const EVENTS: usize = 4_000;
    let definitions = format!(
        "{TOKENS}
        CREATE PRICE input WITH (currency = 'USD') AS
        SELECT customer, SUM(input) AS quantity, SUM(input) * 0.01 AS amount FROM tokens GROUP BY customer;
        CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (input);"
    );
    let world = World::new(&definitions).await;
    let lines = |from: usize| -> String {
        let line = |n: usize| {
            let (hour, minute) = (n / 60 % 24, n % 60);
            format!(
                "{{\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"s\",\"type\":\"llm.completion\",\"subject\":\"a\",\
                 \"time\":\"2026-01-02T{hour:02}:{minute:02}:00Z\",\
                 \"data\":{{\"model\":\"m\",\"input_tokens\":1,\"output_tokens\":1}}}}\n"
            )
        };
        (from..from + EVENTS).map(line).collect()
    };
    world.write("first.ndjson", &lines(0));
    world.write("second.ndjson", &lines(EVENTS));
    let cli = world.cli().with("TOLLGATE_FLUSH_MAX_BYTES", "20kB");
    let cli = cli.with("TOLLGATE_SOURCE_BATCH_BYTES", "10kB");
    cli.publish(&world.path("first.ndjson"), 10).await;
    cli.run_to_end().await;
    cli.succeed(&["invoice", "--period", "2026-01", "--finalize"])
        .await;
    // The copy is made while more is read.
    let mut running = cli.start(&["run"]);
    running.logged("shard acquired", 1).await;
    cli.publish(&world.path("second.ndjson"), 10).await;
    running.logged("flush committed", 3).await;
    let backup = blocks(GUIDE, "sh")[0];
    let copied = Command::new("sh")
        .args(["-ec", backup])
        .env("LAKE", world.path("lake"))
        .env("BACKUP", world.path("backup"))
        .output()
        .await
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    running.terminate().await;
    assert_eq!(tables(&world.path("backup")), tables(&world.path("lake")));

    // What was committed after the copy comes from the stream again.
    let restored = cli.lake("backup");
    let before = restored.query("SELECT SUM(calls) FROM tokens").await[0][0].clone();
    let before: usize = before.parse().unwrap();
    assert!((EVENTS..=2 * EVENTS).contains(&before), "{before}");
    restored.run_to_end().await;
    let total = restored
        .query("SELECT SUM(calls), SUM(input) FROM tokens")
        .await;
    assert_eq!(total, [["8000", "8000"]]);
    restored.audit().await;
    let issued = "SELECT number, amount_due FROM invoices";
    assert_eq!(restored.query(issued).await, cli.query(issued).await);
}
