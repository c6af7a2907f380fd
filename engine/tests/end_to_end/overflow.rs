//! Sums beyond 64 bits are exact; sums beyond 38 digits are in error, never wrapped.

use crate::world::{Cli, World};

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

/// Groups of one subject, groups of many subjects, meters that are measured together with a filter and without, hops,
/// sessions, and one that is small.
const WIDE: &str = "
CREATE EVENT TYPE task (name VARCHAR NOT NULL, n BIGINT NOT NULL) WITH (type = 'task');
CREATE METER wide WITH (window = '1 day') AS
SELECT subject, name, COUNT(*) AS tasks, SUM(n) AS n FROM task GROUP BY subject, name;
CREATE METER even WITH (window = '1 day') AS
SELECT subject, name, SUM(n) AS n, MAX(n) AS top FROM task WHERE n >= 2500 GROUP BY subject, name;
CREATE METER numbers WITH (window = '1 day') AS
SELECT subject, n, MEDIAN(n) AS middle, COUNT(DISTINCT name) AS names FROM task GROUP BY subject, n;
CREATE METER hops WITH (window = '2 days every 1 day') AS
SELECT subject, name, SUM(n) AS n FROM task GROUP BY subject, name;
CREATE METER visits WITH (window = 'session 30 minutes') AS
SELECT subject, name, SUM(n) AS n FROM task GROUP BY subject, name;
CREATE METER narrow WITH (window = '1 day') AS
SELECT subject, COUNT(*) AS tasks FROM task GROUP BY subject;
";

fn task(id: u64, time: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"task","subject":"s","time":"{time}","data":{{"name":"task {}","n":{}}}}}"#,
        id % 5_000,
        id % 5_000
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_do_not_fit_into_memory_are_metered_again_and_exact() {
    let world = World::new(WIDE).await;
    let cli = world.cli();
    let tight = cli
        .with("TOLLGATE_WINDOWS_MAX_BYTES", "100KB")
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "100KB")
        .with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    // Each group twice.
    let lines: Vec<String> = (0..10_000)
        .map(|id| task(id, "2026-01-01T10:00:00Z"))
        .collect();
    world.write("tasks.ndjson", &lines.join("\n"));
    cli.publish(&world.path("tasks.ndjson"), 100).await;
    // Every event is in `events`, and no pane of the large meters is in its table: so a start finds windows that do
    // not fit.
    let crashed = tight.crash("meters/wide/uploaded:1", &["run"]).await;
    assert!(
        crashed.stderr.contains("open windows took too much memory"),
        "{crashed:#?}"
    );
    let ran = tight.run(&["run", "--until-end"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("they are metered again from `events` when they close"),
        "{ran:#?}"
    );
    let panes = "SELECT COUNT(*), SUM(tasks), MAX(pane) FROM wide_panes";
    assert_eq!(cli.query(panes).await, [["5000", "10000", "0"]]);
    check_tasks(&cli, 2).await;
    cli.audit().await;
    // What comes late is added to it.
    world.send(&[], &task(14_999, "2026-01-01T10:00:00Z")).await;
    assert_eq!(tight.run(&["run", "--until-end"]).await.code, Some(0));
    let last = "SELECT tasks, n FROM wide WHERE name = 'task 4999' AND window_start = '2026-01-01T00:00:00Z'";
    assert_eq!(cli.query(last).await, [["3", "14997"]]);
    cli.audit().await;
}

/// Each of 5,000 tasks was done so many times on the first day.
async fn check_tasks(cli: &Cli, times: u64) {
    let first = "window_start = '2026-01-01T00:00:00Z'";
    let all: u64 = (0..5_000).sum();
    let upper: u64 = (2_500..5_000).sum();
    let text = |number: u64| number.to_string();
    let wide = format!(
        "SELECT COUNT(*), SUM(tasks), MIN(tasks), MAX(tasks), SUM(n) FROM wide WHERE {first}"
    );
    let expected = [
        "5000".into(),
        text(5_000 * times),
        text(times),
        text(times),
        text(times * all),
    ];
    assert_eq!(cli.query(&wide).await, [expected]);
    let even = format!("SELECT COUNT(*), SUM(n), SUM(top) FROM even WHERE {first}");
    assert_eq!(
        cli.query(&even).await,
        [["2500".into(), text(times * upper), text(upper)]]
    );
    let numbers = format!("SELECT COUNT(*), SUM(middle), SUM(names) FROM numbers WHERE {first}");
    let found = cli.query(&numbers).await;
    assert_eq!((&found[0][0], &found[0][2]), (&text(5_000), &text(5_000)));
    assert_eq!(found[0][1].split('.').next(), Some(text(all).as_str()));
    let hops = "SELECT COUNT(*), SUM(n) FROM hops WHERE window_start < '2026-01-02T00:00:00Z'";
    assert_eq!(
        cli.query(hops).await,
        [[text(10_000), text(2 * times * all)]]
    );
    let visits = "SELECT COUNT(*), SUM(n) FROM visits WHERE window_start < '2026-01-02T00:00:00Z'";
    assert_eq!(cli.query(visits).await, [[text(5_000), text(times * all)]]);
    let narrow = format!("SELECT SUM(tasks) FROM narrow WHERE {first}");
    assert_eq!(cli.query(&narrow).await, [[text(5_000 * times)]]);
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
