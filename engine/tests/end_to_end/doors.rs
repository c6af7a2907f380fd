//! The doors: what programs in other languages publish and ask over HTTP.

use crate::{
    guide::blocks,
    http::{Http, open, open_ready},
    publishers::named,
    world::{TOKENS, World},
};
use async_nats::jetstream;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::{ffi::OsString, fs, io::Write, path::Path};

const EVENTS: &str = "/api/v1/events";
const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// One call of a model in the hour from 2026-10-01T10:00.
fn event(id: &str, subject: &str, model: &str, minute: u32, input: u64) -> String {
    json!({
        "specversion": "1.0", "id": id, "source": "test", "type": "llm.completion", "subject": subject,
        "time": format!("2026-10-01T10:{minute:02}:00Z"),
        "data": {"model": model, "region": "eu", "input_tokens": input, "output_tokens": 1},
    })
    .to_string()
}

/// How many messages the stream has taken.
async fn messages(world: &World) -> u64 {
    let stream = world.jetstream().await.get_stream("USAGE").await;
    stream.unwrap().cached_info().state.last_sequence
}

/// The answer to a query of a meter, once so many messages are in it.
async fn asked(http: &Http, path: &str, messages: u64) -> Value {
    let is_there = |answer: &crate::http::Answer| {
        let cut = answer.headers.get("tollgate-cut").map(String::as_str);
        cut == Some(format!("USAGE={messages}").as_str())
    };
    http.until(path, is_there).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_an_event_is_stored_once_and_counted_exactly() {
    let world = World::new(TOKENS).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let structured = event("1", "a", "m", 0, 1);
    let batch = format!(
        "[\n{},\r\n {}]",
        event("2", "a", "m", 1, 20),
        event("3", "b", "n", 11, 300)
    );
    let lines = format!(
        "{}\n\n{}\n",
        event("4", "b", "m", 12, 4_000),
        event("5", "a", "m", 20, 50_000)
    );
    for (content_type, body) in [
        (ONE, &structured),
        (BATCH, &batch),
        ("application/x-ndjson", &lines),
        ("application/json", &event("6", "a", "m", 20, 600_000)),
        (
            "application/json",
            &format!("[{}]", event("7", "a", "m", 21, 7_000_000)),
        ),
    ] {
        let answer = http.post(EVENTS, content_type, body).await;
        assert_eq!((answer.status, answer.text()), (204, ""), "{content_type}");
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    let eighth = event("8", "b", "n", 22, 80_000_000);
    packed.write_all(eighth.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let gzip = [("Content-Type", ONE), ("Content-Encoding", "gzip")];
    let answer = http.send("POST", EVENTS, &gzip, &packed).await.unwrap();
    assert_eq!(answer.status, 204);
    let binary = [
        ("Content-Type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "9"),
        ("ce-source", "test"),
        ("ce-type", "llm.completion"),
        ("ce-subject", "b"),
        ("ce-time", "2026-10-01T10:23:00Z"),
    ];
    let data = br#"{"model":"n","input_tokens":900000000,"output_tokens":1}"#;
    let answer = http.send("POST", EVENTS, &binary, data).await.unwrap();
    assert_eq!(answer.status, 204);
    // A repeat is success, and stored once.
    let stored = messages(&world).await;
    assert_eq!(stored, 7);
    assert_eq!(http.post(EVENTS, BATCH, &batch).await.status, 204);
    assert_eq!(messages(&world).await, stored);

    let query = "/api/v1/meters/tokens_input/query";
    let all = asked(&http, query, stored).await;
    assert_eq!(all["data"][0]["value"], 987_654_321);
    assert_eq!(all["data"][0]["subject"], json!(null));
    let by_subject = asked(&http, &format!("{query}?groupBy=subject"), stored).await;
    let of = |row: usize| {
        (
            &by_subject["data"][row]["subject"],
            &by_subject["data"][row]["value"],
        )
    };
    assert_eq!(of(0), (&json!("a"), &json!(7_650_021)));
    assert_eq!(of(1), (&json!("b"), &json!(980_004_300)));
    let calls = asked(&http, "/api/v1/meters/tokens_calls/query?subject=a", stored).await;
    assert_eq!(calls["data"][0]["value"], 5);

    let ran = running.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let total = "SELECT SUM(input), SUM(calls) FROM tokens";
    assert_eq!(world.cli().query(total).await, [["987654321", "9"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused_with_every_reason_and_nothing_of_it_is_stored() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_HTTP_BODY_BYTES_MAX", "100KB");
    let (running, http) = open_ready(&cli, &["run"]).await;
    let body = format!(
        r#"[{},{{"id":"x"}},{},[1]]"#,
        event("1", "a", "m", 0, 1),
        event("", "a", "m", 0, 1)
    );
    let answer = http.post(EVENTS, BATCH, &body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["code"], "events_refused");
    assert_eq!(problem["instance"], EVENTS);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("3 of 4 events were refused"), "{detail}");
    let places: Vec<u64> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["index"].as_u64().unwrap())
        .collect();
    assert_eq!(places, [1, 2, 3]);
    // Too large, of another kind, at no place, by another method.
    let large = format!("[{}]", " ".repeat(100_000));
    for (status, code, answer) in [
        (
            413,
            "body_too_large",
            http.post(EVENTS, BATCH, &large).await,
        ),
        (
            415,
            "content_type_unsupported",
            http.post(EVENTS, "text/plain", "x").await,
        ),
        (404, "not_found", http.get("/api/v1/nothing").await),
        (405, "method_not_allowed", http.get(EVENTS).await),
        (
            400,
            "parameter_invalid",
            http.post("/api/v1/events?valid=true", ONE, "{}").await,
        ),
    ] {
        let problem = answer.json();
        assert_eq!(
            (answer.status, problem["code"].as_str()),
            (status, Some(code)),
            "{problem}"
        );
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:tollgate:problem:{code}"));
    }
    assert_eq!(messages(&world).await, 0);
    // What the definitions refuse is kept with its reason, unless the caller asks to be told.
    let odd =
        json!({"specversion": "1.0", "id": "9", "source": "s", "type": "unknown", "subject": "a"});
    let odd = odd.to_string();
    let strict = http.post("/api/v1/events?validate=true", ONE, &odd).await;
    assert_eq!(strict.status, 400);
    assert!(
        strict.text().contains("no event type is defined"),
        "{}",
        strict.text()
    );
    assert_eq!(messages(&world).await, 0);
    assert_eq!(http.post(EVENTS, ONE, &odd).await.status, 204);
    assert_eq!(messages(&world).await, 1);
    running.terminate().await;
    let kept = cli.query("SELECT status FROM events").await;
    assert_eq!(kept, [["unmatched"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_503_and_a_full_stream_429() {
    let mut world = World::new(TOKENS).await;
    let full = jetstream::stream::Config {
        name: "USAGE".into(),
        subjects: vec!["usage.>".into()],
        max_messages: 2,
        discard: jetstream::stream::DiscardPolicy::New,
        ..Default::default()
    };
    world.jetstream().await.create_stream(full).await.unwrap();
    // The lake is where keys would be.
    world.cli().run_to_end().await;
    let (running, http) = open_ready(&world.cli(), &["serve"]).await;
    for (id, status) in [("1", 204), ("2", 204), ("3", 429), ("1", 204)] {
        let answer = http.post(EVENTS, ONE, &event(id, "a", "m", 0, 1)).await;
        assert_eq!(answer.status, status, "{id}: {answer:?}");
        if status == 429 {
            assert_eq!(answer.json()["code"], "stream_full");
            assert!(answer.headers.contains_key("retry-after"));
        }
    }
    world.stop_server().await;
    let gone = http.post(EVENTS, ONE, &event("4", "a", "m", 0, 1)).await;
    assert_eq!(gone.status, 503, "{gone:?}");
    assert!(gone.headers.contains_key("retry-after"));
    let ran = running.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_asked_for_by_time_and_group_over_live_values_and_over_the_lake() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "1h");
    let (running, http) = open_ready(&cli, &["run"]).await;
    let events = [
        event("1", "a", "m", 0, 1),
        event("2", "a", "n", 9, 20),
        event("3", "b", "m", 59, 300),
        event("4", "b", "m", 59, 4_000).replace("T10:59", "T23:30"),
    ];
    assert_eq!(
        http.post(EVENTS, BATCH, &format!("[{}]", events.join(",")))
            .await
            .status,
        204
    );
    let query = "/api/v1/meters/tokens_input/query";
    let checks: &[(&str, &[&str])] = &[
        (
            "windowSize=DAY",
            &["2026-10-01T00:00:00Z 2026-10-02T00:00:00Z - {} 4321"],
        ),
        // In Berlin it is the next day already at 23:30 UTC.
        (
            "windowSize=DAY&windowTimeZone=Europe/Berlin&from=2026-10-01T00:00:00Z&to=2026-10-03T00:00:00Z",
            &[
                "2026-10-01T00:00:00Z 2026-10-01T22:00:00Z - {} 321",
                "2026-10-01T22:00:00Z 2026-10-02T22:00:00Z - {} 4000",
            ],
        ),
        // Minutes are finer than the meter's windows of ten.
        (
            "windowSize=MINUTE&from=2026-10-01T10:00:00Z&to=2026-10-01T10:10:00Z&groupBy=model",
            &[
                r#"2026-10-01T10:00:00Z 2026-10-01T10:01:00Z - {"model":"m"} 1"#,
                r#"2026-10-01T10:09:00Z 2026-10-01T10:10:00Z - {"model":"n"} 20"#,
            ],
        ),
        // The end is no part of the time.
        (
            "from=2026-10-01T10:00:00Z&to=2026-10-01T10:09:00Z",
            &["2026-10-01T10:00:00Z 2026-10-01T10:09:00Z - {} 1"],
        ),
        (
            "windowSize=HOUR&subject=b&from=2026-10-01T10:00:00Z&to=2026-10-01T11:00:00Z",
            &["2026-10-01T10:00:00Z 2026-10-01T11:00:00Z b {} 300"],
        ),
        (
            "from=2026-10-01T00:00:00Z&to=2026-10-02T00:00:00Z&filterGroupBy[model]=n&groupBy=subject",
            &["2026-10-01T00:00:00Z 2026-10-02T00:00:00Z a {} 20"],
        ),
        (
            "from=2026-10-01T00:00:00Z&to=2026-10-02T00:00:00Z&filterGroupBy=%7B%27model%27%3A%20%27n%27%7D",
            &["2026-10-01T00:00:00Z 2026-10-02T00:00:00Z - {} 20"],
        ),
        ("subject=nobody", &[]),
        ("from=2031-01-01T00:00:00Z", &[]),
    ];
    let check = async |http: &Http| {
        for (asked_for, rows) in checks {
            let answer = asked(http, &format!("{query}?{asked_for}"), 1).await;
            let shown: Vec<String> = answer["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| {
                    format!(
                        "{} {} {} {} {}",
                        row["windowStart"].as_str().unwrap(),
                        row["windowEnd"].as_str().unwrap(),
                        row["subject"].as_str().unwrap_or("-"),
                        row["groupBy"],
                        row["value"]
                    )
                })
                .collect();
            assert_eq!(shown, *rows, "{asked_for}");
        }
        let csv = http
            .get_as(
                &format!("{query}?groupBy=subject&groupBy=model"),
                "text/csv",
            )
            .await;
        assert_eq!(
            csv.text(),
            "window_start,window_end,subject,model,value\n\
             2026-10-01T10:00:00Z,2026-10-01T23:40:00Z,a,m,1\n\
             2026-10-01T10:00:00Z,2026-10-01T23:40:00Z,a,n,20\n\
             2026-10-01T10:00:00Z,2026-10-01T23:40:00Z,b,m,4300\n"
        );
        let body = r#"{"subject":["a"],"groupBy":["model"]}"#;
        let posted = http.post(query, "application/json", body).await;
        assert_eq!(posted.json()["data"][1]["value"], 20);
        for wrong in [
            "groupBy=color",
            "filterGroupBy[color]=red",
            "windowSize=WEEK",
        ] {
            assert_eq!(
                http.get(&format!("{query}?{wrong}")).await.status,
                400,
                "{wrong}"
            );
        }
        let none = http.get("/api/v1/meters/none/query").await;
        assert_eq!(
            (none.status, none.json()["code"].clone()),
            (404, json!("not_found"))
        );
        let subjects = http.get("/api/v1/meters/tokens_calls/subjects").await;
        assert_eq!(subjects.json(), json!(["a", "b"]));
    };
    check(&http).await;
    // Nothing was flushed until now.
    running.terminate().await;
    let (serving, http) = open_ready(&world.cli(), &["serve"]).await;
    check(&http).await;
    // It follows the lake as that grows.
    let fifth = event("5", "a", "m", 1, 50_000);
    assert_eq!(http.post(EVENTS, ONE, &fifth).await.status, 204);
    world.cli().run_to_end().await;
    let all = asked(&http, query, 2).await;
    assert_eq!(all["data"][0]["value"], 54_321);
    assert_eq!(serving.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn meters_are_listed_as_openmeters_clients_know_them() {
    let definitions = format!(
        "{TOKENS}\nCREATE METER users WITH (window = '1 hour') AS
         SELECT subject, COUNT(DISTINCT model) AS models FROM llm_completion GROUP BY subject;"
    );
    let world = World::new(&definitions).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let meters = http.get("/api/v1/meters").await.json();
    let slugs: Vec<&str> = meters
        .as_array()
        .unwrap()
        .iter()
        .map(|meter| meter["slug"].as_str().unwrap())
        .collect();
    let all = [
        "tokens_input",
        "tokens_cached",
        "tokens_output",
        "tokens_calls",
        "users",
    ];
    assert_eq!(slugs, all);
    let input = &meters[0];
    assert_eq!(input["aggregation"], "SUM");
    assert_eq!(input["eventType"], "llm.completion");
    assert_eq!(input["valueProperty"], "$.input_tokens");
    assert_eq!(
        input["groupBy"],
        json!({"model": "$.model", "region": "$.region"})
    );
    assert_eq!(meters[4]["aggregation"], "UNIQUE_COUNT");
    let id = input["id"].as_str().unwrap();
    let by_id = http.get(&format!("/api/v1/meters/{id}")).await.json();
    assert_eq!(by_id, *input);
    // Whoever uses a model in two groups would count twice.
    let merged = http.get("/api/v1/meters/users/query").await;
    assert_eq!(
        (merged.status, merged.json()["code"].clone()),
        (400, json!("not_mergeable"))
    );
    let both = format!(
        "[{},{}]",
        event("1", "a", "m", 0, 1),
        event("2", "a", "m", 59, 1).replace("T10", "T12")
    );
    assert_eq!(http.post(EVENTS, BATCH, &both).await.status, 204);
    let models = asked(&http, "/api/v1/meters/users/query?subject=a", 1).await;
    assert_eq!(models["data"][0]["value"], 1);
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_opened_is_refused_at_the_start_by_its_setting() {
    let world = World::new(TOKENS).await;
    let keep = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = keep.local_addr().unwrap().to_string();
    for (listen, says) in [
        ("0.0.0.0:0", "can be reached from other machines"),
        (taken.as_str(), "could not be opened"),
        ("nonsense", "is no address"),
    ] {
        for command in ["run", "serve"] {
            let ran = world
                .cli()
                .with("TOLLGATE_HTTP_LISTEN", listen)
                .run(&[command])
                .await;
            assert_eq!(ran.code, Some(2), "{ran:#?}");
            assert!(ran.stderr.contains("http.listen"), "{ran:#?}");
            assert!(ran.stderr.contains(says), "{ran:#?}");
        }
    }
    drop(keep);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_says_when_it_is_ready() {
    let mut world = World::new(TOKENS).await;
    let port = world.stop_server().await;
    let (running, http) = open(&world.cli(), &["run"]).await;
    for path in ["/health/live", "/livez", "/healthz"] {
        assert_eq!(http.get(path).await.status, 200, "{path}");
    }
    // It waits for a server that is not up yet, and is not ready meanwhile.
    for path in ["/health/ready", "/readyz"] {
        assert_eq!(http.get(path).await.status, 503, "{path}");
    }
    world.start_server(Some(port)).await;
    http.until("/readyz", |answer| answer.status == 200).await;
    assert_eq!(running.terminate().await.code, Some(0));
}

/// What a script of a client prints, run against a door.
async fn printed(runner: OsString, script: &Path, http: &Http) -> Value {
    let door = format!("http://{}", http.address);
    let mut command = tokio::process::Command::new(runner);
    let ran = command.arg(script).arg(door).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}: {stderr}", script.display());
    serde_json::from_slice(&ran.stdout).unwrap()
}

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end");

/// What a script in Python prints; `None` where there is no python that has the client.
async fn said_by(script: &str, http: &Http) -> Option<Value> {
    let python = named("TOLLGATE_PUBLISHERS", "python with the clients")?;
    Some(printed(python, &Path::new(SCRIPTS).join(script), http).await)
}

/// What OpenMeter's clients are told in each language of what they published; `start` is how it writes the first instant.
fn told_by_openmeter(start: &str, refused: Value) -> Value {
    json!({
        "slugs": ["tokens_input", "tokens_cached", "tokens_output", "tokens_calls"],
        "aggregation": "COUNT",
        "all": [[4321, start, null, {}]],
        "by_subject": [[21, start, "a", {}], [4300, start, "b", {}]],
        "day": [[4300, start, "b", {}]],
        "filtered": [[20, start, null, {"model": "n"}]],
        "refused": refused,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn openmeters_client_publishes_and_reads_back_exact_totals() {
    let world = World::new(TOKENS).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let Some(said) = said_by("with_openmeter.py", &http).await else {
        return;
    };
    let start = "2026-10-01T00:00:00+00:00";
    assert_eq!(said, told_by_openmeter(start, json!(400)));
    running.terminate().await;
    let total = "SELECT SUM(input), SUM(calls) FROM tokens";
    assert_eq!(world.cli().query(total).await, [["4321", "4"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn openmeters_client_for_node_publishes_and_reads_back_exact_totals() {
    let Some(folder) = named("TOLLGATE_PUBLISHERS_NODE", "folder with @openmeter/sdk") else {
        return;
    };
    let world = World::new(TOKENS).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    // Node looks for packages beside the file.
    let script = world.path("with_openmeter.mjs");
    fs::copy(Path::new(SCRIPTS).join("with_openmeter.mjs"), &script).unwrap();
    let packages = Path::new(&folder).join("node_modules");
    std::os::unix::fs::symlink(packages, world.path("node_modules")).unwrap();
    let mut said = printed("node".into(), &script, &http).await;
    // Its errors are texts, which have what the answer says.
    let refused = said["refused"].take();
    let refused = refused.as_str().unwrap();
    assert!(
        refused.contains("[400]") && refused.contains("color"),
        "{refused}"
    );
    let start = "2026-10-01T00:00:00.000Z";
    assert_eq!(said, told_by_openmeter(start, Value::Null));
    running.terminate().await;
    let total = "SELECT SUM(input), SUM(calls) FROM tokens";
    assert_eq!(world.cli().query(total).await, [["4321", "4"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lagos_client_publishes_events_that_count_once() {
    let world = World::new(TOKENS).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let Some(said) = said_by("with_lago.py", &http).await else {
        return;
    };
    let time = "2026-10-01T10:00:00.123Z";
    assert_eq!(
        said,
        json!({"transaction_id": "l1", "timestamp": time, "refused": 400})
    );
    running.terminate().await;
    world.cli().run_to_end().await;
    let total = "SELECT subject, SUM(input) FROM tokens GROUP BY subject ORDER BY subject";
    assert_eq!(world.cli().query(total).await, [["a", "21"], ["b", "300"]]);
    let times = "SELECT MIN(event_time) = TIMESTAMP '2026-10-01T10:00:00.123Z' FROM llm_completion";
    assert_eq!(world.cli().query(times).await, [["true"]]);
}

/// Publishes events one by one until one is not answered; says which were.
async fn publish_until_it_breaks(http: Http, publisher: u64) -> (Vec<u64>, u64) {
    let mut answered = Vec::new();
    for number in 0.. {
        let id = format!("{publisher}-{number}");
        let body = event(&id, &format!("s{publisher}"), "m", 1, 1 + number);
        let headers = [("Content-Type", ONE)];
        match http.send("POST", EVENTS, &headers, body.as_bytes()).await {
            Some(answer) if answer.status == 204 => answered.push(number),
            _ => return (answered, number),
        }
    }
    (answered, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_kill_is_counted_once_and_the_rest_can_be_sent_again() {
    let world = World::new(TOKENS).await;
    let rounds = std::env::var("TOLLGATE_KILL_ROUNDS").ok();
    let rounds: u64 = rounds.map_or(1, |rounds| rounds.parse().unwrap());
    let mut sent: Vec<(u64, u64)> = Vec::new();
    for round in 0..rounds {
        let (running, http) = open_ready(&world.cli(), &["run"]).await;
        let publishers: Vec<_> = (0..4)
            .map(|n| tokio::spawn(publish_until_it_breaks(http.clone(), round * 4 + n)))
            .collect();
        // Some are flushed by then, some are not.
        let query = "/api/v1/meters/tokens_calls/query";
        let before = 200 * (round + 1);
        http.until(query, |answer| {
            answer.status == 200 && answer.json()["data"][0]["value"].as_u64() >= Some(before)
        })
        .await;
        running.kill().await;
        for (n, publisher) in (0..).zip(publishers) {
            let (answered, broken) = publisher.await.unwrap();
            assert!(answered.len() > 1);
            let publisher = round * 4 + n;
            sent.extend(answered.iter().map(|number| (publisher, *number)));
            // What was not answered may be stored or not: it is sent again, with one that was.
            let (running, http) = open_ready(&world.cli(), &["serve"]).await;
            for number in [broken, answered[0]] {
                let id = format!("{publisher}-{number}");
                let again = event(&id, &format!("s{publisher}"), "m", 1, 1 + number);
                assert_eq!(http.post(EVENTS, ONE, &again).await.status, 204);
            }
            sent.push((publisher, broken));
            running.terminate().await;
        }
    }
    world.cli().run_to_end().await;
    let total: u64 = sent.iter().map(|(_, number)| 1 + number).sum();
    let sql = "SELECT SUM(input), SUM(calls) FROM tokens";
    let counted = world.cli().query(sql).await;
    assert_eq!(counted, [[total.to_string(), sent.len().to_string()]]);
    world.cli().audit().await;
}

/// Publishes events one by one, each until it is answered, until it is told to stop; how many.
async fn publish_each_until_answered(
    http: Http,
    publisher: u64,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> u64 {
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
    for number in 0.. {
        if *stop.borrow_and_update() {
            return number;
        }
        let body = event(
            &format!("{publisher}-{number}"),
            &format!("s{publisher}"),
            "m",
            1,
            1,
        );
        let headers = [("Content-Type", ONE)];
        loop {
            let answer = http.send("POST", EVENTS, &headers, body.as_bytes()).await;
            match answer.map(|answer| answer.status) {
                Some(204) => break,
                // The server is gone, or full of others' events.
                Some(503 | 429) => {}
                other => panic!("{other:?}"),
            }
            ticks.tick().await;
        }
    }
    0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_the_server_is_killed_is_counted_once() {
    let mut world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "100ms");
    let rounds = std::env::var("TOLLGATE_KILL_ROUNDS").ok();
    let rounds: u64 = rounds.map_or(1, |rounds| rounds.parse().unwrap());
    let (running, http) = open_ready(&cli, &["run"]).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publishers: Vec<_> = (0..4)
        .map(|n| {
            tokio::spawn(publish_each_until_answered(
                http.clone(),
                n,
                stopped.clone(),
            ))
        })
        .collect();
    let query = "/api/v1/meters/tokens_calls/query";
    let mut counted = 0;
    for _ in 0..rounds {
        // Events come before each kill, and after it.
        let at_least = counted + 100;
        let there = http.until(query, |answer| {
            answer.status == 200 && answer.json()["data"][0]["value"].as_u64() >= Some(at_least)
        });
        counted = there.await.json()["data"][0]["value"].as_u64().unwrap();
        let port = world.kill_server().await;
        world.start_server(Some(port)).await;
    }
    let at_least = counted + 100;
    let there = http.until(query, |answer| {
        answer.status == 200 && answer.json()["data"][0]["value"].as_u64() >= Some(at_least)
    });
    there.await;
    stop.send_replace(true);
    let mut sent = 0;
    for publisher in publishers {
        sent += publisher.await.unwrap();
    }
    running.terminate().await;
    cli.run_to_end().await;
    let counted = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    assert_eq!(counted, [[sent.to_string(), sent.to_string()]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_the_caller_has_is_not_sent_again_and_one_may_be_packed() {
    let world = World::new(TOKENS).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let first = event("1", "a", "m", 0, 1);
    assert_eq!(http.post(EVENTS, ONE, &first).await.status, 204);
    for path in [
        "/api/v1/meters/tokens_input/query",
        "/api/v1/meters/tokens_input/subjects",
        "/api/v1/customers/a/usage?from=2026-10-01T00:00:00Z&to=2026-11-01T00:00:00Z",
    ] {
        asked(&http, path, 1).await;
        let whole = http.get(path).await;
        let tag = whole.headers["etag"].clone();
        for known in [tag.clone(), format!("\"x\", {tag}"), "*".to_owned()] {
            let known = [("If-None-Match", known.as_str())];
            let same = http.send("GET", path, &known, b"").await.unwrap();
            assert_eq!((same.status, same.text()), (304, ""), "{path}");
            assert_eq!(
                (&same.headers["etag"], same.headers["tollgate-cut"].as_str()),
                (&tag, "USAGE=1")
            );
        }
        let other = [("If-None-Match", "\"x\"")];
        assert_eq!(
            http.send("GET", path, &other, b"").await.unwrap().status,
            200
        );
    }
    let query = "/api/v1/meters/tokens_input/query";
    let tag = http.get(query).await.headers["etag"].clone();
    let second = event("2", "a", "m", 0, 1);
    assert_eq!(http.post(EVENTS, ONE, &second).await.status, 204);
    asked(&http, query, 2).await;
    let known = [("If-None-Match", tag.as_str())];
    let later = http.send("GET", query, &known, b"").await.unwrap();
    assert_eq!(
        (later.status, &later.json()["data"][0]["value"]),
        (200, &json!(2))
    );

    let plain = http.get("/openapi.json").await;
    let packed = [("Accept-Encoding", "gzip")];
    let packed = http
        .send("GET", "/openapi.json", &packed, b"")
        .await
        .unwrap();
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() < plain.body.len() / 4);
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(packed.body.as_slice());
    std::io::Read::read_to_end(&mut reader, &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    let arrow = [
        ("Accept", "application/vnd.apache.arrow.stream"),
        ("Content-Type", "application/json"),
    ];
    let sql =
        br#"{"sql":"SELECT CAST(12345678901234567890123456789012345678 AS DECIMAL(38, 0)) AS n"}"#;
    let answer = http
        .send("POST", "/api/v1/query", &arrow, sql)
        .await
        .unwrap();
    assert_eq!(answer.headers["content-type"], arrow[0].1);
    let mut rows = arrow::ipc::reader::StreamReader::try_new(answer.body.as_slice(), None).unwrap();
    let rows = rows.next().unwrap().unwrap();
    let n = arrow::array::AsArray::as_primitive::<arrow::datatypes::Decimal128Type>(&rows["n"]);
    assert_eq!(
        n.value(0),
        12_345_678_901_234_567_890_123_456_789_012_345_678
    );
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_ask_when_they_are_named() {
    let world = World::new(TOKENS).await;
    let (app, other) = ("https://app.example.com", "https://other.example.com");
    let preflight = async |http: &Http, origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization"),
        ];
        let answer = http.send("OPTIONS", "/api/v1/meters", &headers, b"").await;
        let headers = answer.unwrap().headers;
        headers.get("access-control-allow-origin").cloned()
    };
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    assert_eq!(preflight(&http, app).await, None);
    running.terminate().await;
    let cli = world.cli().with("TOLLGATE_HTTP_CORS_ORIGINS", app);
    let (running, http) = open_ready(&cli, &["run"]).await;
    assert_eq!(preflight(&http, app).await.as_deref(), Some(app));
    assert_eq!(preflight(&http, other).await, None);
    running.terminate().await;
    for wrong in ["*", "app.example.com", "https://app.example.com/path"] {
        let cli = world
            .cli()
            .with("TOLLGATE_HTTP_CORS_ORIGINS", wrong)
            .with("TOLLGATE_HTTP_LISTEN", "127.0.0.1:0");
        let ran = cli.run(&["serve"]).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stderr.contains("http.cors_origins"), "{ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_model_calls_are_events_that_count_once() {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use prost::Message;
    let definitions = "
CREATE EVENT TYPE model_call (
    model VARCHAR, output_tokens BIGINT, uncached_input_tokens BIGINT, cache_read_tokens BIGINT
) WITH (type = 'gen_ai.usage');
CREATE METER calls WITH (window = '1 hour') AS
SELECT subject, model, SUM(uncached_input_tokens) AS input, SUM(cache_read_tokens) AS cached, SUM(output_tokens) AS output
FROM model_call GROUP BY subject, model;";
    let world = World::new(definitions).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let span = |id: &str, who: &str| {
        json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": id, "name": "chat",
        "endTimeUnixNano": "1790848800000000000", "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.request.model", "value": {"stringValue": "m"}},
            {"key": who, "value": {"stringValue": "acme"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "100"}},
            {"key": "gen_ai.usage.cache_read.input_tokens", "value": {"intValue": 70}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "5"}},
        ]})
    };
    let of = |spans: Value| json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    let two = of(json!([
        span("0000000000000001", "user.id"),
        span("0000000000000002", "nobody")
    ]));
    // As the JSON of protocol buffers may also be: an enum by its name, a double that is no number.
    let text = two.to_string();
    let text = text.replace(
        r#""name":"chat""#,
        r#""name":"chat","kind":"SPAN_KIND_CLIENT""#,
    );
    let odd = r#""attributes":[{"key":"score","value":{"doubleValue":"NaN"}},"#;
    let text = text.replace(r#""attributes":["#, odd);
    assert!(text.contains("SPAN_KIND_CLIENT") && text.contains("NaN"));
    let answer = http.post("/v1/traces", "application/json", &text).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], "1");
    // The same again in protobuf, with another one.
    let three = of(json!([
        span("0000000000000001", "user.id"),
        span("0000000000000003", "user.id")
    ]));
    let request: ExportTraceServiceRequest = serde_json::from_value(three).unwrap();
    let headers = [("Content-Type", "application/x-protobuf")];
    let bytes = request.encode_to_vec();
    let answer = http
        .send("POST", "/v1/traces", &headers, &bytes)
        .await
        .unwrap();
    assert_eq!(answer.headers["content-type"], "application/x-protobuf");
    let whole = ExportTraceServiceResponse::decode(answer.body.as_slice()).unwrap();
    assert_eq!(whole.partial_success, None);
    for (content_type, body, status) in [
        ("application/x-protobuf", "x", 400),
        ("application/json", "x", 400),
        ("text/plain", "", 415),
        ("application/json", "{}", 200),
    ] {
        assert_eq!(
            http.post("/v1/traces", content_type, body).await.status,
            status,
            "{content_type} {body}"
        );
    }
    running.terminate().await;
    world.cli().run_to_end().await;
    let sums = "SELECT subject, model, SUM(input), SUM(cached), SUM(output) FROM calls GROUP BY subject, model";
    assert_eq!(
        world.cli().query(sums).await,
        [["acme", "m", "60", "140", "10"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_guide_do_what_it_says() {
    let world = World::new("").await;
    world.bring(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/first/definitions"),
        "definitions",
    );
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let mut said = Vec::new();
    for (number, line) in blocks(include_str!("../../../docs/http.md"), "sh")
        .iter()
        .enumerate()
    {
        if number == 2 {
            let all = "/api/v1/meters/tokens_input/query";
            http.until(all, |answer| answer.text().contains("1200"))
                .await;
        }
        let mut shell = tokio::process::Command::new("sh");
        shell
            .args(["-c", line])
            .env("TOLLGATE", format!("http://{}", http.address));
        let ran = shell.output().await.unwrap();
        let stdout = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success(), "{line}: {stdout}");
        said.push(stdout);
    }
    assert_eq!(said.len(), 13);
    assert_eq!(said[0], "");
    assert!(said[1].contains(r#""slug":"tokens_input""#), "{}", said[1]);
    let usage: Value = serde_json::from_str(&said[2]).unwrap();
    assert_eq!(usage["data"][0]["value"], 1200);
    assert_eq!(usage["data"][0]["windowStart"], "2026-01-15T00:00:00Z");
    let used: Value = serde_json::from_str(&said[3]).unwrap();
    assert_eq!(used["data"][0]["quantities"]["input"], 1200);
    assert!(said[4].contains(r#""totals":["#), "{}", said[4]);
    assert!(said[5].contains(r#""data":[]"#), "{}", said[5]);
    assert!(said[6].contains(r#""data":["#), "{}", said[6]);
    assert_eq!(said[7], r#"{"rows":3,"written":3}"#);
    assert_eq!(said[8], r#"{"rows":1,"written":1}"#);
    assert!(said[9].contains("event type seat"), "{}", said[9]);
    assert!(said[10].contains(r#""is_in_force":true"#), "{}", said[10]);
    assert!(
        said[11].contains(r#""transaction_id":"call-2""#),
        "{}",
        said[11]
    );
    assert_eq!(said[12], "{}");
    running.terminate().await;
    world.cli().run_to_end().await;
    let total = "SELECT SUM(input) FROM tokens";
    assert_eq!(world.cli().query(total).await, [["1500"]]);
}
