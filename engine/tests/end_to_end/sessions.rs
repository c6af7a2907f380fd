//! Sessions of an agent, and windows that hop, from events to invoices.

use crate::world::{Cli, World};

const DEFINITIONS: &str = "
CREATE EVENT TYPE step (agent VARCHAR, tokens BIGINT NOT NULL) WITH (type = 'step');

CREATE METER agent_sessions WITH (window = 'session 30 minutes', lateness = '10 minutes') AS
SELECT subject, agent, SUM(tokens) AS tokens, COUNT(*) AS steps FROM step GROUP BY subject, agent;

CREATE METER busy WITH (window = '1 hour every 30 minutes') AS
SELECT subject, SUM(tokens) AS tokens FROM step GROUP BY subject;

CREATE PRICE per_session WITH (currency = 'USD') AS
SELECT customer, COUNT(*) AS quantity, per_unit(COUNT(*), 0.25) AS amount
FROM agent_sessions_windows GROUP BY customer;
CREATE PRICE per_token WITH (currency = 'USD') AS
SELECT customer, SUM(tokens) AS quantity, per_unit(SUM(tokens), 1) AS amount
FROM agent_sessions GROUP BY customer;
CREATE PRICE peak WITH (currency = 'USD') AS
SELECT customer, MAX(tokens) AS quantity, per_unit(MAX(tokens), 1) AS amount
FROM busy_windows GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (per_session, per_token, peak);
";

async fn send(world: &World, id: &str, time: &str, agent: &str, tokens: i64) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"step","subject":"acme","time":"{time}","data":{{"agent":"{agent}","tokens":{tokens}}}}}"#
    );
    world.send(&[], &event).await;
}

/// The quantities of a month: sessions, tokens, the busiest hour.
async fn billed(cli: &Cli, zone: &str, period: &str) -> Vec<String> {
    let cli = cli.with("TOLLGATE_BILLING_TIME_ZONE", zone);
    let out = cli.path("draft");
    let out = out.to_str().unwrap();
    cli.succeed(&["invoice", "--period", period, "--out", out])
        .await;
    let mut reader = csv::Reader::from_path(cli.path("draft/line_items.csv")).unwrap();
    let lines: Vec<std::collections::BTreeMap<String, String>> =
        reader.deserialize().map(Result::unwrap).collect();
    lines.iter().map(|line| line["quantity"].clone()).collect()
}

const SESSIONS: &str = "SELECT agent, window_start, window_end, is_final, tokens, steps
                        FROM agent_sessions ORDER BY agent, window_start";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_billed_once_in_the_month_in_which_it_ends() {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli();
    for (id, time, agent, tokens) in [
        ("1", "2026-01-31T12:29:59.999999Z", "a", 8),
        ("2", "2026-01-31T12:00:00Z", "a", 4),
        ("3", "2026-01-31T12:10:00Z", "b", 32),
        // At the very end of the session before, so another one.
        ("4", "2026-01-31T12:59:59.999999Z", "a", 16),
        ("5", "2026-01-31T23:20:00Z", "a", 1),
    ] {
        send(&world, id, time, agent, tokens).await;
    }
    cli.run_to_end().await;
    // Another run, and a session that goes on in the next month.
    send(&world, "6", "2026-01-31T23:40:00Z", "a", 2).await;
    send(&world, "7", "2026-02-02T08:00:00Z", "a", 64).await;
    cli.run_to_end().await;
    let before = [
        [
            "a",
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:59:59.999999Z",
            "true",
            "12",
            "2",
        ],
        [
            "a",
            "2026-01-31T12:59:59.999999Z",
            "2026-01-31T13:29:59.999999Z",
            "true",
            "16",
            "1",
        ],
        [
            "a",
            "2026-01-31T23:20:00Z",
            "2026-02-01T00:10:00Z",
            "true",
            "3",
            "2",
        ],
        [
            "a",
            "2026-02-02T08:00:00Z",
            "2026-02-02T08:30:00Z",
            "true",
            "64",
            "1",
        ],
        [
            "b",
            "2026-01-31T12:10:00Z",
            "2026-01-31T12:40:00Z",
            "true",
            "32",
            "1",
        ],
    ];
    assert_eq!(cli.query(SESSIONS).await, before);
    // The last of the three began before midnight, so what it has after that is no session.
    let february = "SELECT window_start, tokens FROM agent_sessions WHERE window_start >= '2026-02-01T00:00:00Z'";
    assert_eq!(cli.query(february).await, [["2026-02-02T08:00:00Z", "64"]]);
    // Both hops over the last half hour of January, whole.
    let hops = "SELECT window_start, tokens FROM busy WHERE window_start >= '2026-01-31T22:30:00Z'
                AND window_start <= '2026-01-31T23:00:00Z' ORDER BY window_start";
    assert_eq!(
        cli.query(hops).await,
        [["2026-01-31T22:30:00Z", "1"], ["2026-01-31T23:00:00Z", "3"]]
    );
    cli.audit().await;
    assert_eq!(billed(&cli, "UTC", "2026-01").await, ["3", "60", "60"]);
    assert_eq!(billed(&cli, "UTC", "2026-02").await, ["2", "67", "64"]);
    // In New York the month ends five hours later.
    assert_eq!(
        billed(&cli, "America/New_York", "2026-01").await,
        ["4", "63", "60"]
    );
    assert_eq!(
        billed(&cli, "America/New_York", "2026-02").await,
        ["1", "64", "64"]
    );

    // Late, and in both sessions: they become one.
    send(&world, "8", "2026-01-31T12:45:00Z", "a", 128).await;
    assert_eq!(cli.run_to_end().await.late(), 1);
    let mut after = before.map(|row| row.map(str::to_owned).to_vec()).to_vec();
    after.remove(1);
    after[0][2] = "2026-01-31T13:29:59.999999Z".to_owned();
    after[0][4] = "156".to_owned();
    after[0][5] = "4".to_owned();
    assert_eq!(cli.query(SESSIONS).await, after);
    cli.audit().await;
    assert_eq!(billed(&cli, "UTC", "2026-01").await, ["2", "188", "188"]);
    assert_eq!(
        billed(&cli, "Asia/Kolkata", "2026-01").await,
        ["2", "188", "188"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_go_on_is_not_final() {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli();
    let now = jiff::Timestamp::now();
    let earlier = now - jiff::SignedDuration::from_mins(20);
    send(&world, "1", &earlier.to_string(), "a", 1).await;
    send(&world, "2", &now.to_string(), "a", 2).await;
    let mut run = cli.start(&["run"]);
    run.logged("flush committed sequence=2 ", 1).await;
    run.terminate().await;
    let open = "SELECT is_final, tokens, window_end - window_start = INTERVAL '50 minutes' FROM agent_sessions";
    assert_eq!(cli.query(open).await, [["false", "3", "true"]]);
    cli.audit().await;
    // The input's end does not end the session: by the clock it may still go on.
    cli.run_to_end().await;
    assert_eq!(cli.query(open).await, [["false", "3", "true"]]);
    // Each event is in two windows, whether they share them or not, and the newest is still running.
    let hops = "SELECT SUM(tokens), BOOL_AND(is_final) FROM busy";
    assert_eq!(cli.query(hops).await, [["6", "false"]]);
    // Nothing to close: everything stays where it is.
    let position = "SELECT MAX(window_end) FROM busy";
    let before = cli.query(position).await;
    cli.run_to_end().await;
    assert_eq!(cli.query(position).await, before);
}
