//! What `--until-end` closes: for each meter by itself, what is due by the stream's clock.

use crate::world::{Cli, World};
use jiff::{Timestamp, ToSpan};

const HOURLY: &str = "
CREATE EVENT TYPE task (n BIGINT NOT NULL) WITH (type = 'task');
CREATE METER hourly WITH (window = '1 hour', lateness = '10 minutes', late = 'quarantine') AS
SELECT subject, SUM(n) AS n FROM task GROUP BY subject;
";

async fn send(world: &World, id: &str, time: &str, n: i64) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"task","subject":"acme","time":"{time}","data":{{"n":{n}}}}}"#
    );
    world.send(&[], &event).await;
}

async fn rows(cli: &Cli, sql: &str) -> Vec<String> {
    let rows = cli.query(sql).await;
    rows.iter().map(|row| row.join(" ")).collect()
}

#[tokio::test]
async fn a_meter_with_longer_windows_makes_no_event_late_for_another() {
    let beside = "
        CREATE METER daily WITH (window = '1 day', lateness = '3 days') AS
        SELECT subject, COUNT(*) AS n FROM task GROUP BY subject;
        CREATE METER sessions WITH (window = 'session 2 hours', lateness = '5 hours') AS
        SELECT subject, COUNT(*) AS n FROM task GROUP BY subject;";
    let world = World::new(&format!("{HOURLY}{beside}")).await;
    let cli = world.cli();
    let times = [
        "2026-10-15T10:05:00Z",
        "2026-10-15T12:05:00Z",
        "2026-10-16T09:00:00Z",
        "2026-10-17T09:00:00Z",
    ];
    for (id, time) in times.iter().enumerate() {
        send(&world, &id.to_string(), time, 1).await;
        cli.run_to_end().await;
    }
    // Each hour is on time, so nothing is quarantined; the day of the first two was over when the second came.
    let n = "SELECT window_start, n, is_final FROM hourly ORDER BY 1";
    assert_eq!(
        rows(&cli, n).await,
        [
            "2026-10-15T10:00:00Z 1 true",
            "2026-10-15T12:00:00Z 1 true",
            "2026-10-16T09:00:00Z 1 true",
            "2026-10-17T09:00:00Z 1 true",
        ]
    );
    let days = "SELECT window_start, n, is_final FROM daily ORDER BY 1";
    assert_eq!(
        rows(&cli, days).await,
        [
            "2026-10-15T00:00:00Z 2 true",
            "2026-10-16T00:00:00Z 1 true",
            "2026-10-17T00:00:00Z 1 true",
        ]
    );
    let sessions = "SELECT window_start, n, is_final FROM sessions ORDER BY 1";
    assert_eq!(
        rows(&cli, sessions).await,
        [
            "2026-10-15T10:05:00Z 1 true",
            "2026-10-15T12:05:00Z 1 true",
            "2026-10-16T09:00:00Z 1 true",
            "2026-10-17T09:00:00Z 1 true",
        ]
    );
    cli.audit().await;
}

#[tokio::test]
async fn a_window_that_is_still_running_stays_open() {
    let world = World::new(
        "CREATE EVENT TYPE task (n BIGINT NOT NULL) WITH (type = 'task');
         CREATE METER daily WITH (window = '1 day', lateness = '1 hour', late = 'quarantine') AS
         SELECT subject, SUM(n) AS n FROM task GROUP BY subject;",
    )
    .await;
    let cli = world.cli();
    let now = Timestamp::now();
    let long_ago = now.checked_sub(72.hours()).unwrap();
    send(&world, "old", &long_ago.to_string(), 1).await;
    send(&world, "first", &now.to_string(), 10).await;
    assert_eq!(cli.run_to_end().await.late(), 0);
    let final_n = "SELECT n, is_final FROM daily ORDER BY window_start";
    assert_eq!(rows(&cli, final_n).await, ["1 true", "10 false"]);
    // Its usage is still on time, in this process and the next.
    send(&world, "second", &now.to_string(), 100).await;
    send(&world, "third", &now.to_string(), 1_000).await;
    assert_eq!(cli.run_to_end().await.late(), 0);
    assert_eq!(rows(&cli, final_n).await, ["1 true", "1110 false"]);
    let panes = "SELECT n FROM daily_panes";
    assert_eq!(rows(&cli, panes).await, ["1"]);
    cli.audit().await;
}

#[tokio::test]
async fn what_the_clock_closed_for_a_meter_stays_closed_after_a_restart() {
    let world = World::new(HOURLY).await;
    let cli = world.cli();
    send(&world, "1", "2026-10-15T10:05:00Z", 1).await;
    assert_eq!(cli.run_to_end().await.late(), 0);
    // The watermark is at 10:05; the hour was closed by the clock alone.
    send(&world, "2", "2026-10-15T10:06:00Z", 10).await;
    send(&world, "3", "2026-10-15T11:06:00Z", 100).await;
    assert_eq!(cli.run_to_end().await.late(), 1);
    let n = "SELECT window_start, n FROM hourly ORDER BY 1";
    assert_eq!(
        rows(&cli, n).await,
        ["2026-10-15T10:00:00Z 1", "2026-10-15T11:00:00Z 100"]
    );
}
