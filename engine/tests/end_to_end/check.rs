//! `tollgate check --lake`: what a lake would refuse is said before anything runs; what it refuses stops that alone.

use crate::world::{Cli, World};

const CALLS: &str = "
CREATE EVENT TYPE call (n BIGINT NOT NULL, seats BIGINT) WITH (type = 'call');
CREATE METER calls WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(n) AS n FROM call GROUP BY subject;
CREATE METER seats WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(seats) AS seats FROM call GROUP BY subject;
CREATE PRICE used WITH (currency = 'USD') AS SELECT customer, n * 1.00 AS amount FROM calls;
CREATE PLAN payg WITH (currency = 'USD') AS (used);
";

async fn metered() -> (World, Cli) {
    let world = World::new(CALLS).await;
    let cli = world.cli();
    let event = r#"{"specversion":"1.0","id":"1","source":"test","type":"call","subject":"acme","time":"2026-09-10T10:00:00Z","data":{"n":3,"seats":2}}"#;
    world.send(&[], event).await;
    cli.run_to_end().await;
    (world, cli)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_lake_would_refuse_is_said_at_once_and_all_of_it() {
    let fits = "file://./lake: goes on with these definitions\n";
    let (world, cli) = metered().await;
    assert!(cli.succeed(&["check", "--lake"]).await.ends_with(fits));
    let changed = CALLS
        .replace(", seats BIGINT)", ")")
        .replace("SUM(seats) AS seats", "SUM(n) AS seats")
        .replace(
            "lateness = '10 minutes') AS\nSELECT subject, SUM(n) AS n",
            "lateness = '1 hour') AS\nSELECT subject, SUM(n) AS n",
        );
    world.write("definitions/all.sql", &changed);
    let other = cli.with("TOLLGATE_BILLING_DEFAULT_PLAN", "pro");
    let ran = other.run(&["check", "--lake"]).await;
    let ways_out = |meter: &str| {
        format!(
            "hint: put it back as it was; for a change from some window on, write CREATE OR REPLACE METER {meter} WITH (…, \
             effective_from = '…') AS … after it; or give the changed one another name, and `tollgate backfill` fills it in"
        )
    };
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert_eq!(
        ran.stderr,
        format!(
            "error: TOLLGATE_BILLING_DEFAULT_PLAN: there is no plan `pro`\n  hint: set billing.default_plan; known plans: `payg`\n\
             error: table `events`: it has a column `call.seats` that the definitions do not have\n  hint: put it back: what \
             is stored stays readable, and it is NULL where it is not sent; or set another lake url\n\
             error: meter `calls`: ./definitions/all.sql:3:14: its lateness was changed since this lake began to measure by \
             it (microseconds: `600000000`, not `3600000000`)\n  {}\n\
             error: meter `seats`: ./definitions/all.sql:5:14: its window or its query was changed since this lake began to \
             measure by it\n  {}\n\
             error: the lake does not go on with these definitions and settings: 4 problems, named above\n",
            ways_out("calls"),
            ways_out("seats"),
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_that_was_changed_stops_what_asks_for_it_and_no_other_query() {
    let (world, cli) = metered().await;
    world.write(
        "definitions/all.sql",
        &CALLS.replace("SUM(seats) AS", "MAX(seats) AS"),
    );
    assert_eq!(
        cli.query("SELECT subject, n FROM calls").await,
        [["acme", "3"]]
    );
    assert_eq!(cli.query("SELECT COUNT(*) FROM events").await, [["1"]]);
    for relation in ["seats", "seats_windows", "seats_panes"] {
        let ran = cli
            .run(&["query", &format!("SELECT * FROM {relation}")])
            .await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        let said = "error: meter `seats`: ./definitions/all.sql:5:14: its window or its query was changed since";
        assert!(ran.stderr.starts_with(said), "{ran:#?}");
    }
    // Money needs all meters.
    let ran = cli.run(&["query", "SELECT * FROM unissued"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let ran = cli.run(&["invoice", "--period", "2026-09"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_that_has_measured_nothing_may_be_changed() {
    const IDLE: &str = "
CREATE EVENT TYPE ping (n BIGINT NOT NULL) WITH (type = 'ping');
CREATE METER pings WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM ping GROUP BY subject;
";
    let (world, cli) = metered().await;
    world.write("definitions/idle.sql", IDLE);
    cli.run_to_end().await;
    // Another aggregate, other columns, another lateness, another window.
    let by_day = IDLE.replace("'1 hour'", "'1 day'");
    for changed in [
        IDLE.replace("SUM(n)", "MAX(n)"),
        IDLE.replace("SUM(n) AS n", "COUNT(*) AS pings"),
        IDLE.replace("'1 hour'", "'1 hour', lateness = '1 day'"),
        by_day.clone(),
    ] {
        world.write("definitions/idle.sql", &changed);
        cli.succeed(&["check", "--lake"]).await;
        assert_eq!(cli.query("SELECT COUNT(*) FROM pings").await, [["0"]]);
        cli.run_to_end().await;
    }
    for (id, hour, n) in [("p1", "10", 3), ("p2", "22", 4)] {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"ping","subject":"acme","time":"2026-09-10T{hour}:00:00Z","data":{{"n":{n}}}}}"#
        );
        world.send(&[], &event).await;
    }
    cli.run_to_end().await;
    let days = "SELECT window_start, n FROM pings";
    assert_eq!(cli.query(days).await, [["2026-09-10T00:00:00Z", "7"]]);
    cli.audit().await;
    // Now it has.
    world.write("definitions/idle.sql", IDLE);
    let ran = cli.run(&["check", "--lake"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let said = "error: meter `pings`: ./definitions/idle.sql:3:14: its window or its query was changed since";
    assert!(ran.stderr.starts_with(said), "{ran:#?}");
    let ran = cli.run(&["run", "--until-end"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    world.write("definitions/idle.sql", &by_day);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_version_for_a_time_that_was_issued_is_warned_of() {
    let (world, cli) = metered().await;
    let issue = ["invoice", "--period", "2026-09", "--finalize"];
    cli.succeed(&issue).await;
    for (from, warned) in [
        ("2026-09-01", true),
        ("2026-09-02", false),
        ("2026-10-01", false),
    ] {
        let later = format!(
            "CREATE OR REPLACE PRICE used WITH (currency = 'USD', effective_from = '{from}') AS \
             SELECT customer, n * 2.00 AS amount FROM calls;"
        );
        world.write("definitions/later.sql", &later);
        let ran = cli.run(&["check", "--lake"]).await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        let warning = format!(
            "warning: ./definitions/later.sql:1:25: price `used`: version 2 is effective from {from}, and 1 invoices of periods \
             since then were issued by an earlier version, the first INV-000001\n  hint: they stand; the relation `unissued` has \
             what they would be otherwise\n"
        );
        let expected = if warned { warning } else { String::new() };
        assert_eq!(ran.stderr, expected, "{from}");
    }
}
