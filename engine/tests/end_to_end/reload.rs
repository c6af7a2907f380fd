//! Definitions that change on a running engine: nothing is lost or counted twice, and what is refused changes nothing.

use crate::{
    http::{Http, open_ready},
    world::{Cli, TOKENS, World},
};
use serde_json::json;
use tokio::sync::watch;

const PRICE: &str = "
CREATE PRICE by_token WITH (currency = 'USD') AS
SELECT customer, SUM(input) AS quantity, SUM(input * 0.01) AS amount FROM tokens GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (by_token);
";

/// Twice the price from November on.
const LATER: &str = "
CREATE OR REPLACE PRICE by_token WITH (currency = 'USD', effective_from = '2026-11-01') AS
SELECT customer, SUM(input) AS quantity, SUM(input * 0.02) AS amount FROM tokens GROUP BY customer;
";

/// In a file that comes before the other, so that the places of all meters change.
const CALLS: &str = "
CREATE METER calls WITH (window = '1 hour', lateness = '1 minute') AS
SELECT subject, region, COUNT(*) AS calls, SUM(input_tokens) AS input FROM llm_completion GROUP BY subject, region;
";

fn event(id: &str, month: u32, input: u64) -> String {
    json!({
        "specversion": "1.0", "id": id, "source": "s", "type": "llm.completion", "subject": "a",
        "time": format!("2026-{month}-15T10:00:00Z"),
        "data": {"model": "m", "region": "eu", "input_tokens": input, "output_tokens": 1},
    })
    .to_string()
}

async fn send(http: &Http, event: &str) {
    let answer = http.post("/api/v1/events", "application/json", event).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// Publishes events of November until it is told to stop; how many, which all were answered.
async fn publish(http: Http, publisher: u64, mut stop: watch::Receiver<bool>) -> u64 {
    let mut sent = 0;
    while !*stop.borrow_and_update() {
        send(&http, &event(&format!("{publisher}-{sent}"), 11, 3)).await;
        sent += 1;
    }
    sent
}

/// Waits until at least so many events are counted.
async fn counted(http: &Http, at_least: u64) -> u64 {
    let path = "/api/v1/meters/tokens_calls/query";
    let is_there = |answer: &crate::http::Answer| {
        answer.status == 200 && answer.json()["data"][0]["value"].as_u64() >= Some(at_least)
    };
    let answer = http.until(path, is_there).await.json();
    answer["data"][0]["value"].as_u64().unwrap()
}

/// Asks for usage until it is told to stop: each answer is of whole events, and of no fewer than the one before.
async fn ask(http: Http, mut stop: watch::Receiver<bool>) {
    let mut last = 1_000;
    while !*stop.borrow_and_update() {
        let answer = http.get("/api/v1/meters/tokens_input/query").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let input = answer.json()["data"][0]["value"].as_u64().unwrap();
        assert!(
            input >= last && (input - 1_000) % 3 == 0,
            "{input} after {last}"
        );
        last = input;
    }
}

async fn draft(cli: &Cli, month: &str) -> String {
    cli.succeed(&["invoice", "--period", month]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_and_a_meter_come_into_force_under_load_and_no_event_is_lost_or_doubled() {
    let world = World::new(&format!("{TOKENS}{PRICE}")).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    let (mut running, http) = open_ready(&cli, &["run"]).await;
    send(&http, &event("october", 10, 1_000)).await;
    counted(&http, 1).await;
    let (stop, stopped) = watch::channel(false);
    let publishers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(publish(http.clone(), n, stopped.clone())))
        .collect();
    let asking = tokio::spawn(ask(http.clone(), stopped.clone()));
    let before = counted(&http, 100).await;
    world.write("definitions/all.sql", &format!("{TOKENS}{PRICE}{LATER}"));
    world.write("definitions/a.sql", CALLS);
    running.signal("HUP").await;
    running.logged("definitions were taken anew", 1).await;
    let meters = http
        .until("/api/v1/meters/calls_calls", |answer| answer.status == 200)
        .await;
    assert_eq!(meters.json()["eventType"], "llm.completion");
    let before = counted(&http, before + 100).await;
    // A shard that is still starting would be given up for the next one.
    running.logged("shard acquired", 2).await;

    // What makes no sense changes nothing, and says where it does not.
    world.write(
        "definitions/all.sql",
        &format!("{TOKENS}CREATE METER broken AS SELECT 1;"),
    );
    let refused = http
        .post("/api/v1/definitions/reload", "application/json", "")
        .await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (422, json!("definitions_invalid"))
    );
    let error = &refused.json()["errors"][0];
    assert_eq!(
        (&error["file"], &error["line"]),
        (&json!("all.sql"), &json!(16)),
        "{refused:?}"
    );
    running.logged("those before stay in force", 1).await;
    assert_eq!(http.get("/api/v1/meters/calls_calls").await.status, 200);
    world.write("definitions/all.sql", &format!("{TOKENS}{PRICE}{LATER}"));
    let taken = http
        .post("/api/v1/definitions/reload", "application/json", "")
        .await;
    assert_eq!(taken.json()["is_in_force"], true, "{taken:?}");
    counted(&http, before + 100).await;

    stop.send_replace(true);
    asking.await.unwrap();
    let mut sent = 0;
    for publisher in publishers {
        sent += publisher.await.unwrap();
    }
    counted(&http, sent + 1).await;
    let acquired = running.log().matches("shard acquired").count();
    assert_eq!(acquired, 3, "the shard starts anew for each that was taken");
    let ran = running.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let summary = crate::world::Summary(ran.stdout);
    assert_eq!(
        (summary.of("counted"), summary.of("repeats")),
        (sent + 1, 0)
    );

    let input = 1_000 + 3 * sent;
    for meter in ["tokens", "calls"] {
        let totals = cli
            .query(&format!("SELECT SUM(input), SUM(calls) FROM {meter}"))
            .await;
        assert_eq!(
            totals,
            [[input.to_string(), (sent + 1).to_string()]],
            "{meter}"
        );
    }
    cli.audit().await;
    // The meter that came later is what it would be if it had always been there.
    let windows =
        "SELECT window_start, subject, region, calls, input FROM calls ORDER BY window_start";
    let anew = cli.lake("anew");
    anew.run_to_end().await;
    assert_eq!(cli.query(windows).await, anew.query(windows).await);
    // October is at a cent a token, November at two.
    for (month, amount) in [("2026-10", 1_000), ("2026-11", 6 * sent)] {
        let draft = draft(&cli, month).await;
        let amount = format!("{}.{:02}", amount / 100, amount % 100);
        assert!(draft.contains(&amount), "{amount}: {draft}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_checked_without_coming_into_force_and_what_serves_takes_its_folder_again() {
    let world = World::new(&format!("{TOKENS}{PRICE}")).await;
    let cli = world.cli();
    cli.run_to_end().await;
    let (serving, http) = open_ready(&cli, &["serve"]).await;
    let check = async |files: serde_json::Value| {
        let body = json!({"files": files}).to_string();
        http.post("/api/v1/definitions/check", "application/json", &body)
            .await
    };
    let rates = "CREATE RATE TABLE rates (model VARCHAR NOT NULL PRIMARY KEY, rate DECIMAL(9, 6) NOT NULL) WITH (location = 'rates.csv');";
    let sql = json!({"name": "all.sql", "text": format!("{TOKENS}{rates}")});
    let good = check(json!([sql, {"name": "rates.csv", "text": "model,rate\nm,0.5\n"}])).await;
    assert_eq!(good.status, 200, "{good:?}");
    assert!(
        good.json()["says"]
            .as_str()
            .unwrap()
            .contains("rate table rates: 1 rows")
    );
    // A file is read from the request, and from nowhere else.
    for (text, says) in [
        (format!("{TOKENS}{rates}"), "not among the files"),
        (
            rates.replace("rates.csv", "/etc/passwd"),
            "not among the files",
        ),
        ("CREATE METER x".to_owned(), "x"),
    ] {
        let refused = check(json!([{"name": "all.sql", "text": text}])).await;
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(refused.text().contains(says), "{}", refused.text());
        assert_eq!(refused.json()["errors"][0]["file"], "all.sql");
    }
    assert_eq!(check(json!([])).await.status, 400);
    let shown = http.get("/api/v1/definitions").await.json();
    assert_eq!(shown["meters"][0]["name"], "tokens");
    assert_eq!(shown["plans"][0]["prices"], json!(["by_token"]));
    world.write("definitions/all.sql", &format!("{TOKENS}{PRICE}{LATER}"));
    world.write("definitions/a.sql", CALLS);
    let taken = http
        .post("/api/v1/definitions/reload", "application/json", "")
        .await;
    assert_eq!(
        taken.json()["definitions"]["meters"][0]["name"],
        "calls",
        "{taken:?}"
    );
    assert_eq!(http.get("/api/v1/meters/calls_calls").await.status, 200);
    serving.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_the_shard_cannot_start_with_are_given_up_for_those_before() {
    let world = World::new(TOKENS).await;
    // Nothing is committed when the folder is checked, and windows are closed in memory.
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "1h");
    let (mut running, http) = open_ready(&cli, &["run"]).await;
    send(&http, &event("1", 10, 5)).await;
    send(&http, &event("2", 11, 70)).await;
    counted(&http, 2).await;
    // A version that begins before windows of October were closed by the one before.
    let version = "CREATE OR REPLACE METER tokens WITH (window = '10 minutes', lateness = '1 minute', unit = 'token',
            effective_from = '2026-10-01') AS
        SELECT subject, model, region, SUM(input_tokens * 10) AS input, SUM(COALESCE(cached_tokens, 0)) AS cached,
               SUM(output_tokens) AS output, COUNT(*) AS calls
        FROM llm_completion GROUP BY subject, model, region;";
    world.write("definitions/all.sql", &format!("{TOKENS}{version}"));
    let refused = http
        .post("/api/v1/definitions/reload", "application/json", "")
        .await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (422, json!("definitions_invalid")),
        "{refused:?}"
    );
    running
        .logged("shard did not start with the definitions", 1)
        .await;
    let says_why = |answer: &crate::http::Answer| {
        let why = &answer.json()["refused"];
        why.as_str().is_some_and(|why| why.contains("tokens"))
    };
    let shown = http.until("/api/v1/definitions", says_why).await.json();
    assert_eq!(shown["meters"][0]["version"], 1, "{shown}");
    // It goes on as before.
    send(&http, &event("3", 11, 900)).await;
    counted(&http, 3).await;
    let ran = running.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    world.write("definitions/all.sql", TOKENS);
    assert_eq!(cli.query("SELECT SUM(input) FROM tokens").await, [["975"]]);
    cli.audit().await;
}
