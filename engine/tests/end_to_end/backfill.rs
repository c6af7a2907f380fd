//! A meter that is defined when its events are in the lake already.

use crate::world::{Cli, World};

const EVENTS: &str =
    "CREATE EVENT TYPE task (kind VARCHAR, n BIGINT NOT NULL) WITH (type = 'task');";

fn meter(name: &str) -> String {
    format!(
        "CREATE METER {name} WITH (window = '1 hour', lateness = '5 minutes') AS
         SELECT subject, kind, SUM(n) AS n, COUNT(DISTINCT n) AS different, LATEST(n) AS last
         FROM task GROUP BY subject, kind;"
    )
}

/// A thousand events over ten days, most in order, every seventh a day back.
async fn history(world: &World) {
    let lines = (0..1_000_i64).map(|i| {
        let minutes = i * 15 - if i % 7 == 3 { 1_440 } else { 0 };
        let (day, hour, minute) = (10 + minutes.div_euclid(1_440), minutes.rem_euclid(1_440) / 60, minutes.rem_euclid(60));
        format!(
            r#"{{"specversion":"1.0","id":"{i}","source":"test","type":"task","subject":"s{}","time":"2026-01-{day:02}T{hour:02}:{minute:02}:00Z","data":{{"kind":"k{}","n":{}}}}}"#,
            i % 3,
            i % 5,
            i * i % 1_009
        )
    });
    let lines: Vec<String> = lines.collect();
    world.write("history.ndjson", &lines.join("\n"));
}

/// Meters the history live, and an event that is days late.
async fn lived(definitions: &str) -> (World, Cli) {
    let world = World::new(definitions).await;
    history(&world).await;
    let cli = world.cli();
    cli.publish(&world.path("history.ndjson"), 10).await;
    let late = r#"{"specversion":"1.0","id":"late","source":"test","type":"task","subject":"s0","time":"2026-01-12T00:30:00Z","data":{"kind":"k0","n":5}}"#;
    world.send(&[], late).await;
    assert_eq!(cli.run_to_end().await.of("counted"), 1_001);
    (world, cli)
}

/// Every window, and the panes of the close as they are in the table.
async fn rows(cli: &Cli, meter: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let windows = format!("SELECT * FROM {meter} ORDER BY window_start, subject, kind");
    let panes =
        format!("SELECT * FROM {meter}_panes WHERE pane = 0 ORDER BY window_start, subject, kind");
    (cli.query(&windows).await, cli.query(&panes).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfilled_meter_equals_the_one_that_was_always_there() {
    let (world, cli) = lived(&format!("{EVENTS}{}", meter("live"))).await;
    world.write(
        "definitions/all.sql",
        &format!("{EVENTS}{}{}", meter("live"), meter("later")),
    );
    let live = rows(&cli, "live").await;
    let dry = cli.succeed(&["backfill", "later", "--dry-run"]).await;
    assert!(
        dry.contains("panes would be written from sequences 1 to 101"),
        "{dry}"
    );
    assert!(!world.path("lake/meters/later").exists());

    let done = cli.succeed(&["backfill", "later"]).await;
    assert_eq!(done, dry.replace("would be ", ""));
    let later = rows(&cli, "later").await;
    assert_eq!(later, live);
    // No window was open, and the history has at least one pane for each group of the live meter.
    assert!(later.1.len() > 500, "{}", later.1.len());
    cli.audit().await;

    // The shard goes on from there with both.
    world
        .send(&[], r#"{"specversion":"1.0","id":"new","source":"test","type":"task","subject":"s9","time":"2026-01-30T00:30:00Z","data":{"n":5}}"#)
        .await;
    cli.run_to_end().await;
    assert_eq!(rows(&cli, "later").await, rows(&cli, "live").await);
    cli.audit().await;
    let again = cli.run(&["backfill", "later"]).await;
    assert_eq!(again.code, Some(2), "{again:#?}");
    assert!(
        again
            .stderr
            .contains("shard `USAGE`: `tollgate run` has it, up to sequence 102"),
        "{again:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_goes_on_where_another_stopped() {
    let (world, cli) = lived(&format!("{EVENTS}{}", meter("live"))).await;
    world.write(
        "definitions/all.sql",
        &format!("{EVENTS}{}{}", meter("live"), meter("later")),
    );
    let live = rows(&cli, "live").await;
    for to in ["2026-01-12", "2026-01-15T06:00:00Z"] {
        let part = cli.succeed(&["backfill", "later", "--to", to]).await;
        assert!(!part.contains(" 0 panes"), "{part}");
        // The rest is still there for a query.
        assert_eq!(rows(&cli, "later").await.0, live.0, "{to}");
    }
    cli.succeed(&["backfill", "later"]).await;
    let later = rows(&cli, "later").await;
    assert_eq!(later.0, live.0);
    for (later, live) in later.1.iter().zip(&live.1) {
        assert_eq!(later, live);
    }
    assert_eq!(later.1.len(), live.1.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_from_some_time_on_leaves_the_rest_out_and_says_so() {
    let prices = "CREATE PRICE p WITH (currency = 'USD') AS
        SELECT customer, SUM(n) AS quantity, per_unit(SUM(n), 1) AS amount FROM later GROUP BY customer;
        CREATE PLAN payg WITH (currency = 'USD') AS (p);";
    let (world, cli) = lived(&format!("{EVENTS}{}", meter("live"))).await;
    world.write(
        "definitions/all.sql",
        &format!("{EVENTS}{}{}{prices}", meter("live"), meter("later")),
    );
    for refused in ["2026-01-13T00:30:00Z", "January"] {
        let ran = cli.run(&["backfill", "later", "--from", refused]).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
    }
    cli.succeed(&["backfill", "later", "--from", "2026-01-13"])
        .await;
    let since = |meter: &str, filter: &str| {
        format!("SELECT * FROM {meter} {filter} ORDER BY window_start, subject, kind")
    };
    assert_eq!(
        cli.query(&since("later", "")).await,
        cli.query(&since(
            "live",
            "WHERE window_start >= TIMESTAMP '2026-01-13T00:00:00Z'"
        ))
        .await
    );
    cli.audit().await;
    let ran = cli.run(&["invoice", "--period", "2026-01"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    let refusal = "meter `later`: it was filled in from 2026-01-13T00:00:00Z on only, in shard `USAGE`, so \
                   earlier totals are unknown";
    assert!(ran.stderr.contains(refusal), "{ran:#?}");
    cli.succeed(&["invoice", "--period", "2026-02"]).await;
    // The shard keeps to it.
    cli.run_to_end().await;
    cli.audit().await;
    let ran = cli
        .run(&["backfill", "later", "--from", "2026-01-10"])
        .await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_writes_what_a_new_meter_closes_while_it_catches_up() {
    let (world, cli) = lived(EVENTS).await;
    world.write(
        "definitions/all.sql",
        &format!("{EVENTS}{}", meter("later")),
    );
    // So small that every batch read back is more, and what all windows may take is less than all of it.
    let cli = cli.with("TOLLGATE_FLUSH_MAX_BYTES", "1B");
    let ran = cli.run(&["run", "--until-end"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    cli.audit().await;
    // Beside the table's creation and the take-over, one commit on the way and one at the end.
    let log = std::fs::read_dir(world.path("lake/meters/later/_delta_log")).unwrap();
    assert!(log.count() >= 4);
    let cuts = cli
        .query("SELECT COUNT(DISTINCT window_start) FROM later")
        .await;
    // The hours of `history`, and of the event after it, counted by a script of three lines.
    assert_eq!(cuts, [["264"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_filled_in_is_refused() {
    let sessions = meter("sessions").replace("1 hour", "session 1 hour");
    let world = World::new(&format!("{EVENTS}{}{sessions}", meter("live"))).await;
    let ran = world
        .cli()
        .run(&["backfill", "sessions", "--from", "2026-01-01"])
        .await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("--from: it could cut a session in two; fill a meter of sessions in from its first event"),
        "{ran:#?}"
    );
    let ran = world.cli().run(&["backfill", "life"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(
        ran.stderr.contains(
            "there is no meter `life`\n  hint: did you mean `live`? known meters: `live`, `sessions`\n"
        ),
        "{ran:#?}"
    );
}
