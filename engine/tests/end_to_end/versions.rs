//! A meter that measures otherwise from some window on.

use crate::world::World;

const FIRST: &str = "
CREATE EVENT TYPE task (kind VARCHAR, n BIGINT NOT NULL) WITH (type = 'task');
CREATE METER tasks WITH (window = '1 hour') AS
SELECT subject, SUM(n) AS n FROM task WHERE kind = 'billable' GROUP BY subject;
CREATE PRICE per_task WITH (currency = 'USD') AS
SELECT customer, SUM(n) AS quantity, per_unit(SUM(n), 1) AS amount FROM tasks GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (per_task);
";

/// From here on everything counts, tenfold.
fn second(from: &str) -> String {
    format!(
        "{FIRST}
CREATE OR REPLACE METER tasks WITH (window = '1 hour', effective_from = '{from}') AS
SELECT subject, SUM(n * 10) AS n FROM task GROUP BY subject;"
    )
}

async fn send(world: &World, id: &str, time: &str, kind: &str, n: i64) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"task","subject":"acme","time":"{time}","data":{{"kind":"{kind}","n":{n}}}}}"#
    );
    world.send(&[], &event).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_window_keeps_the_version_that_was_effective_in_it() {
    let world = World::new(FIRST).await;
    let cli = world.cli();
    send(&world, "1", "2026-01-05T10:30:00Z", "billable", 1).await;
    send(&world, "2", "2026-01-05T10:31:00Z", "free", 2).await;
    cli.run_to_end().await;

    world.write("definitions/all.sql", &second("2026-01-10"));
    send(&world, "3", "2026-01-09T23:59:59.999999Z", "free", 3).await;
    send(&world, "4", "2026-01-09T23:00:00Z", "billable", 4).await;
    send(&world, "5", "2026-01-10T00:00:00Z", "free", 5).await;
    send(&world, "6", "2026-01-31T23:00:00Z", "free", 6).await;
    cli.run_to_end().await;
    // Late for windows of each version.
    send(&world, "7", "2026-01-05T10:40:00Z", "free", 1_000).await;
    send(&world, "8", "2026-01-05T10:41:00Z", "billable", 100).await;
    send(&world, "9", "2026-01-10T00:59:59Z", "free", 7).await;
    cli.run_to_end().await;

    let windows = "SELECT window_start, n FROM tasks ORDER BY window_start";
    assert_eq!(
        cli.query(windows).await,
        [
            ["2026-01-05T10:00:00Z", "101"],
            ["2026-01-09T23:00:00Z", "4"],
            ["2026-01-10T00:00:00Z", "120"],
            ["2026-01-31T23:00:00Z", "60"],
        ]
    );
    let by_version = "SELECT meter_version, SUM(n) FROM tasks_panes GROUP BY 1 ORDER BY 1";
    assert_eq!(cli.query(by_version).await, [["1", "105"], ["2", "180"]]);
    cli.audit().await;
    let draft = cli.succeed(&["invoice", "--period", "2026-01"]).await;
    assert!(draft.contains("285.00 USD"), "{draft}");
    // A zone whose month begins within a window: the edges keep their versions too.
    let kolkata = cli.with("TOLLGATE_BILLING_TIME_ZONE", "Asia/Kolkata");
    let draft = kolkata.succeed(&["invoice", "--period", "2026-01"]).await;
    assert!(draft.contains("225.00 USD"), "{draft}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_cannot_begin_where_windows_are_written() {
    let world = World::new(FIRST).await;
    let cli = world.cli();
    send(&world, "1", "2026-01-05T10:30:00Z", "billable", 1).await;
    cli.run_to_end().await;
    world.write("definitions/all.sql", &second("2026-01-05T10:00:00Z"));
    for command in [
        &["run", "--until-end"][..],
        &["query", "SELECT SUM(n) FROM tasks"],
    ] {
        let ran = cli.run(command).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        let refusal = "error: meter `tasks`: version 2 is effective from 2026-01-05T10:00:00Z, but windows up \
                       to 2026-01-05T11:00:00Z are closed by the version before it\n  hint: write \
                       effective_from = '2026-01-05T11:00:00Z' or later, or create a meter under another name";
        assert!(ran.stderr.contains(refusal), "{ran:#?}");
    }
    world.write("definitions/all.sql", &second("2026-01-05T11:00:00Z"));
    send(&world, "2", "2026-01-05T11:00:00Z", "free", 5).await;
    cli.run_to_end().await;
    assert_eq!(cli.query("SELECT SUM(n) FROM tasks").await, [["51"]]);

    // What was written by a version needs that version, and just as it was.
    for (definitions, refusal) in [
        (
            FIRST.to_owned(),
            "meter `tasks`: its table was written by version 2, which is not defined",
        ),
        (
            second("2026-01-05T11:00:00Z").replace("n * 10", "n * 11"),
            "meter `tasks`: version 2 is not the one that its table was written with",
        ),
        (
            second("2026-01-06T11:00:00Z"),
            "meter `tasks`: version 2 is not the one that its table was written with",
        ),
    ] {
        world.write("definitions/all.sql", &definitions);
        let ran = cli.run(&["run", "--until-end"]).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stderr.contains(refusal), "{ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_closed_without_usage_stays_without() {
    let world = World::new(FIRST).await;
    let cli = world.cli();
    send(&world, "1", "2026-01-05T10:30:00Z", "billable", 1).await;
    cli.run_to_end().await;
    // Nothing that the first version counts, so it has nothing to write.
    send(&world, "2", "2026-01-06T10:30:00Z", "free", 5).await;
    send(&world, "3", "2026-01-08T10:30:00Z", "free", 5).await;
    cli.run_to_end().await;
    world.write("definitions/all.sql", &second("2026-01-06"));
    for command in [
        &["run", "--until-end"][..],
        &["query", "SELECT SUM(n) FROM tasks"],
    ] {
        let ran = cli.run(command).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        let refusal = "windows up to 2026-01-08T10:00:00Z are closed by the version before it";
        assert!(ran.stderr.contains(refusal), "{ran:#?}");
    }
    // A version that was there in time stays, though nothing was written with it.
    world.write("definitions/all.sql", &second("2026-01-09"));
    cli.run_to_end().await;
    let other = r#"{"specversion":"1.0","id":"o","source":"test","type":"task","subject":"acme","time":"2026-01-01T00:00:00Z","data":{"kind":"free","n":1}}"#;
    world.send(&[], other).await;
    cli.run_to_end().await;
    send(&world, "4", "2026-01-12T10:30:00Z", "free", 7).await;
    cli.run_to_end().await;
    cli.run_to_end().await;
    assert_eq!(cli.query("SELECT SUM(n) FROM tasks").await, [["71"]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_has_measured_nothing_may_be_changed_and_taken_back() {
    let world = World::new(FIRST).await;
    let cli = world.cli();
    send(&world, "1", "2026-01-05T10:30:00Z", "billable", 1).await;
    cli.run_to_end().await;
    // Tenfold, elevenfold, later, and not at all: no window of it is closed.
    for definitions in [
        second("2026-02-01"),
        second("2026-02-01").replace("n * 10", "n * 11"),
        second("2026-03-01").replace("n * 10", "n * 11"),
        FIRST.to_owned(),
        second("2026-02-01").replace("n * 10", "n * 12"),
        FIRST.to_owned(),
    ] {
        world.write("definitions/all.sql", &definitions);
        cli.succeed(&["check", "--lake"]).await;
        assert_eq!(cli.query("SELECT SUM(n) FROM tasks").await, [["1"]]);
        cli.run_to_end().await;
    }
    // The first version measures what comes while no other is there, and closes its windows.
    send(&world, "2", "2026-02-10T10:30:00Z", "free", 2).await;
    send(&world, "3", "2026-02-10T10:30:00Z", "billable", 4).await;
    cli.run_to_end().await;
    assert_eq!(cli.query("SELECT SUM(n) FROM tasks").await, [["5"]]);
    world.write("definitions/all.sql", &second("2026-02-01"));
    let ran = cli.run(&["check", "--lake"]).await;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(2),
            "error: meter `tasks`: version 2 is effective from 2026-02-01T00:00:00Z, but windows up to \
             2026-02-10T11:00:00Z are closed by the version before it\n  hint: write effective_from = \
             '2026-02-10T11:00:00Z' or later, or create a meter under another name\n\
             error: the lake does not go on with these definitions and settings: 1 problems, named above\n"
        )
    );
    // From then on it measures, and stays as it is: also where a window of it closed without usage.
    let last = second("2026-03-01").replace("n * 10", "n * 11");
    world.write("definitions/all.sql", &last);
    send(&world, "4", "2026-03-02T10:30:00Z", "free", 3).await;
    cli.run_to_end().await;
    assert_eq!(cli.query("SELECT SUM(n) FROM tasks").await, [["38"]]);
    for (definitions, refusal) in [
        (
            last.replace("n * 11", "n * 12"),
            "version 2 is not the one that its table was written with",
        ),
        (
            FIRST.to_owned(),
            "its table was written by version 2, which is not defined",
        ),
    ] {
        world.write("definitions/all.sql", &definitions);
        let ran = cli.run(&["run", "--until-end"]).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stderr.contains(refusal), "{ran:#?}");
    }
    world.write("definitions/all.sql", &last);
    cli.audit().await;
}
