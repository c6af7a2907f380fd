//! What becomes of usage that comes when its window is closed, by each policy.

use crate::world::{Cli, World};

fn definitions(late: &str) -> String {
    format!(
        "CREATE EVENT TYPE task (n BIGINT NOT NULL) WITH (type = 'task');
         CREATE EVENT TYPE other (n BIGINT) WITH (type = 'other');
         CREATE METER tasks WITH (window = '1 hour', lateness = '10 minutes', late = '{late}') AS
         SELECT subject, SUM(n) AS n FROM task GROUP BY subject;
         CREATE METER latest WITH (window = '1 day', late = '{late}') AS
         SELECT subject, LATEST(n) AS n, COUNT(*) AS events FROM task GROUP BY subject;
         CREATE PRICE per_task WITH (currency = 'USD') AS
         SELECT customer, SUM(n) AS quantity, per_unit(SUM(n), 1) AS amount FROM tasks GROUP BY customer;
         CREATE PLAN payg WITH (currency = 'USD') AS (per_task);"
    )
}

async fn send(world: &World, id: &str, time: &str, n: i64) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"task","subject":"acme","time":"{time}","data":{{"n":{n}}}}}"#
    );
    world.send(&[], &event).await;
}

/// Two events in time, and the one of February closes January; then two that are late.
async fn metered(late: &str) -> (World, Cli) {
    let world = World::new(&definitions(late)).await;
    let cli = world.cli();
    // The window that holds the begin of January in Kolkata, 18:30 UTC, on its far side.
    send(&world, "1", "2025-12-31T18:45:00Z", 1).await;
    send(&world, "2", "2026-01-05T10:30:00Z", 10).await;
    send(&world, "3", "2026-02-01T00:30:00Z", 100).await;
    assert_eq!(cli.run_to_end().await.of("counted"), 3);
    send(&world, "4", "2026-01-05T10:40:00Z", 1_000).await;
    send(&world, "5", "2025-12-31T18:50:00Z", 10_000).await;
    let summary = cli.run_to_end().await;
    assert_eq!((summary.of("counted"), summary.late()), (2, 2));
    // Windows close, and the meters have nothing to write: what came in time before must not change.
    let other = r#"{"specversion":"1.0","id":"o","source":"test","type":"other","subject":"acme","time":"2026-02-20T00:00:00Z","data":{}}"#;
    world.send(&[], other).await;
    assert_eq!(cli.run_to_end().await.of("counted"), 1);
    cli.audit().await;
    (world, cli)
}

/// The billed quantity of a month in a zone; 0 without a line.
async fn billed(cli: &Cli, zone: &str, period: &str) -> i64 {
    let cli = cli.with("TOLLGATE_BILLING_TIME_ZONE", zone);
    let out = format!("draft-{period}-{}", zone.replace('/', "-"));
    cli.succeed(&["invoice", "--period", period, "--out", &out])
        .await;
    let mut reader = csv::Reader::from_path(cli.path(&out).join("line_items.csv")).unwrap();
    let lines: Vec<std::collections::BTreeMap<String, String>> =
        reader.deserialize().map(Result::unwrap).collect();
    lines
        .iter()
        .map(|line| line["quantity"].parse::<i64>().unwrap())
        .sum()
}

/// When the stream stored the late events, in a query's words.
const STORED: &str = "(SELECT MAX(ingest_time) FROM events WHERE status = 'late')";

async fn month_of_storing(cli: &Cli) -> String {
    let month = format!("SELECT to_char({STORED}, '%Y-%m')");
    cli.query(&month).await[0][0].clone()
}

const BY_WINDOW: &str = "SELECT window_start, n FROM tasks ORDER BY window_start";

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_counts_in_its_own_window() {
    let (_world, cli) = metered("correct").await;
    assert_eq!(
        cli.query(BY_WINDOW).await,
        [
            ["2025-12-31T18:00:00Z", "10001"],
            ["2026-01-05T10:00:00Z", "1010"],
            ["2026-02-01T00:00:00Z", "100"],
        ]
    );
    assert_eq!(billed(&cli, "UTC", "2026-01").await, 1_010);
    assert_eq!(billed(&cli, "Asia/Kolkata", "2026-01").await, 11_011);
    let panes = "SELECT pane, late, n FROM tasks_panes ORDER BY pane, n";
    assert_eq!(
        cli.query(panes).await,
        [
            ["0", "", "1"],
            ["0", "", "10"],
            ["0", "", "100"],
            ["1", "correct", "1000"],
            ["1", "correct", "10000"],
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_billed_in_the_next_period_counts_when_it_was_stored() {
    let (_world, cli) = metered("next_period").await;
    let stored = format!("SELECT date_trunc('hour', {STORED})");
    let stored = cli.query(&stored).await[0][0].clone();
    assert_eq!(
        cli.query(BY_WINDOW).await,
        [
            ["2025-12-31T18:00:00Z", "1"],
            ["2026-01-05T10:00:00Z", "10"],
            ["2026-02-01T00:00:00Z", "100"],
            [stored.as_str(), "11000"],
        ]
    );
    // A query of some time finds it there alone.
    for (condition, expected) in [
        (format!("= '{stored}'"), vec![["11000"]]),
        ("< '2026-02-01T00:00:00Z'".to_owned(), vec![["1"], ["10"]]),
    ] {
        let some = format!("SELECT n FROM tasks WHERE window_start {condition} ORDER BY n");
        assert_eq!(cli.query(&some).await, expected, "{condition}");
    }
    let month = month_of_storing(&cli).await;
    for (zone, january, february) in [("UTC", 10, 100), ("Asia/Kolkata", 11, 100)] {
        assert_eq!(billed(&cli, zone, "2026-01").await, january, "{zone}");
        assert_eq!(billed(&cli, zone, "2026-02").await, february, "{zone}");
    }
    assert_eq!(billed(&cli, "UTC", &month).await, 11_000);
    assert_eq!(
        cli.query("SELECT events, n FROM latest ORDER BY window_start")
            .await,
        [["1", "1"], ["1", "10"], ["1", "100"], ["2", "1000"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_quarantined_counts_nowhere_and_can_be_seen() {
    let (world, cli) = metered("quarantine").await;
    assert_eq!(
        cli.query(BY_WINDOW).await,
        [
            ["2025-12-31T18:00:00Z", "1"],
            ["2026-01-05T10:00:00Z", "10"],
            ["2026-02-01T00:00:00Z", "100"],
        ]
    );
    assert_eq!(billed(&cli, "UTC", "2026-01").await, 10);
    assert_eq!(billed(&cli, "Asia/Kolkata", "2026-01").await, 11);
    assert_eq!(billed(&cli, "UTC", &month_of_storing(&cli).await).await, 0);
    let kept = "SELECT window_start, n FROM tasks_panes WHERE late = 'quarantine' ORDER BY n";
    assert_eq!(
        cli.query(kept).await,
        [
            ["2026-01-05T10:00:00Z", "1000"],
            ["2025-12-31T18:00:00Z", "10000"]
        ]
    );
    world.write("definitions/all.sql", &definitions("correct"));
    for command in [&["run", "--until-end"][..], &["query", BY_WINDOW]] {
        let ran = cli.run(command).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        let refusal = "meter `tasks`: it is defined with late = 'correct', but its panes are written by 'quarantine'";
        assert!(ran.stderr.contains(refusal), "{ran:#?}");
        assert!(
            ran.stderr.contains("hint: write late = 'quarantine', or"),
            "{ran:#?}"
        );
    }
}
