//! Sums beyond 64 bits are exact; sums beyond 38 digits are in error, never wrapped.

use crate::world::World;

const DEFINITIONS: &str = "
CREATE EVENT TYPE measured (
    small BIGINT NOT NULL,
    large DECIMAL(38, 0) NOT NULL
) WITH (type = 'measured');

CREATE METER smalls WITH (window = '1 hour', lateness = '0 seconds') AS
SELECT subject, SUM(small) AS total FROM measured GROUP BY subject;

CREATE METER larges WITH (window = '1 hour', lateness = '0 seconds') AS
SELECT subject, SUM(large) AS total FROM measured GROUP BY subject;
";

fn event(id: u32, hour: u32, small: &str, large: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"measured","subject":"s","time":"2026-01-01T{hour:02}:00:00Z","data":{{"small":{small},"large":{large}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_of_bigints_beyond_64_bits_is_exact() {
    let world = World::new(DEFINITIONS).await;
    for id in 1..=3 {
        let event = event(
            id,
            10,
            "9223372036854775807",
            &format!("4{}", "0".repeat(37)),
        );
        // Two large ones fit; the third brings it to 12 with 37 zeros, which does not: it is negative.
        let event = if id == 3 {
            event.replace("\"large\":4", "\"large\":-4")
        } else {
            event
        };
        world.send(&[], &event).await;
    }
    let cli = world.cli();
    assert_eq!(cli.run_to_end().await.of("counted"), 3);
    let totals = cli.query("SELECT total FROM smalls").await;
    // 3 × (2^63 - 1).
    assert_eq!(totals, [["27670116110564327421"]]);
    let totals = cli.query("SELECT total FROM larges").await;
    assert_eq!(totals, [[format!("4{}", "0".repeat(37))]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_beyond_38_digits_is_in_error_by_meter_and_window_and_all_goes_on() {
    let world = World::new(DEFINITIONS).await;
    let nines = "9".repeat(38);
    world.send(&[], &event(1, 10, "1", &nines)).await;
    world.send(&[], &event(2, 11, "1", &nines)).await;
    world.send(&[], &event(3, 11, "1", "1")).await;
    let cli = world.cli();
    let error = "meter `larges`, window 2026-01-01T11:00:00Z, subject `s` is in error: the values cannot be made: ";
    // Every event counts, and both meters go on, also when it is all started again.
    for (counted, expected) in [(3, "2"), (1, "6")] {
        assert_eq!(cli.run_to_end().await.of("counted"), counted);
        let total = "SELECT total FROM smalls WHERE window_start = '2026-01-01T11:00:00Z'";
        assert_eq!(cli.query(total).await, [[expected]]);
        let ran = cli.run(&["query", "SELECT * FROM larges"]).await;
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.contains(error), "{ran:#?}");
        let whole = "SELECT total FROM larges WHERE error IS NULL";
        assert_eq!(cli.query(whole).await, [[nines.as_str()]]);
        cli.audit().await;
        world.send(&[], &event(4, 11, "4", "1")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_whose_windows_do_not_fit_into_memory_is_stopped_alone() {
    const TASKS: u64 = 5_000;
    let world = World::new(
        "
CREATE EVENT TYPE task (name VARCHAR NOT NULL) WITH (type = 'task');
CREATE METER wide WITH (window = '1 day') AS
SELECT subject, name, COUNT(*) AS tasks FROM task GROUP BY subject, name;
CREATE METER narrow WITH (window = '1 day') AS
SELECT subject, COUNT(*) AS tasks FROM task GROUP BY subject;
",
    )
    .await;
    let lines: Vec<String> = (0..TASKS)
        .map(|n| {
            format!(
                r#"{{"specversion":"1.0","id":"{n}","source":"test","type":"task","subject":"s","time":"2026-01-01T10:00:00Z","data":{{"name":"task {n}"}}}}"#
            )
        })
        .collect();
    world.write("tasks.ndjson", &lines.join("\n"));
    let cli = world.cli();
    cli.publish(&world.path("tasks.ndjson"), 100).await;

    let tight = cli.with("TOLLGATE_WINDOWS_MAX_BYTES", "100KB");
    let ran = tight.run(&["run", "--until-end"]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("error: meter `wide`: its open windows take"),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("or raise windows.max_bytes"),
        "{ran:#?}"
    );
    assert_eq!(cli.query("SELECT SUM(tasks) FROM narrow").await, [["5000"]]);

    assert_eq!(cli.run_to_end().await.of("counted"), 0);
    let wide = "SELECT COUNT(*), SUM(tasks), MIN(tasks), MAX(tasks) FROM wide";
    assert_eq!(cli.query(wide).await, [["5000", "5000", "1", "1"]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panes_that_fit_alone_but_not_together_are_in_error() {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli();
    for id in [1, 2] {
        world.send(&[], &event(id, 10, "4", &"9".repeat(38))).await;
        assert_eq!(cli.run_to_end().await.of("counted"), 1);
    }
    let error = "meter `larges`, window 2026-01-01T10:00:00Z, subject `s` is in error: the values cannot be made: ";
    let ran = cli.run(&["query", "SELECT * FROM larges"]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains(error), "{ran:#?}");
    cli.audit().await;
    // The other meter is not harmed.
    assert_eq!(cli.query("SELECT total FROM smalls").await, [["8"]]);
}
