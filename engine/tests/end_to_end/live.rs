//! A shard that runs on: its open windows can be asked for, and go by the clock when nothing comes.

use crate::world::{TOKENS, World};

fn event(id: u32, time: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"llm.completion","subject":"s"{time},"data":{{"model":"m","input_tokens":{id},"output_tokens":1}}}}"#
    )
}

const TOTALS: &str = "SELECT input, calls, is_final FROM tokens_windows ORDER BY window_start";

#[tokio::test(flavor = "multi_thread")]
async fn open_windows_are_seen_while_it_runs() {
    let long = TOKENS
        .replace("'10 minutes'", "'1 day'")
        .replace("'1 minute'", "'1 day'");
    let world = World::new(&long).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    // Without a time an event happened when it came.
    world.send(&[], &event(1, "")).await;
    let mut run = cli.start(&["run"]);
    run.logged("flush committed", 1).await;
    assert_eq!(cli.query(TOTALS).await, [["1", "1", "false"]]);
    cli.audit().await;
    let ran = run.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    // Nothing is lost and nothing is closed by a restart.
    assert_eq!(cli.query(TOTALS).await, [["1", "1", "false"]]);
    // The day is still running, so reading to the end closes nothing either.
    cli.run_to_end().await;
    assert_eq!(cli.query(TOTALS).await, [["1", "1", "false"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_shard_closes_its_windows_by_the_clock() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    world
        .send(&[], &event(1, r#","time":"2026-01-01T12:00:00Z""#))
        .await;
    let mut run = cli.start(&["run"]);
    run.logged("panes=1", 1).await;
    assert_eq!(cli.query(TOTALS).await, [["1", "1", "true"]]);
    // Closed is closed, though no event has brought the watermark that far.
    world
        .send(&[], &event(2, r#","time":"2026-01-01T12:00:00Z""#))
        .await;
    run.logged("panes=1", 2).await;
    assert_eq!(cli.query(TOTALS).await, [["3", "2", "true"]]);
    let ran = run.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let late = cli
        .query("SELECT event_id FROM events WHERE status = 'late'")
        .await;
    assert_eq!(late, [["2"]]);
    cli.audit().await;
}
