//! Two processes on one shard: the newer wins, the older notices before it counts anything.

use crate::{
    crashes::files,
    world::{Ran, TOKENS, World},
};
use std::path::{Path, PathBuf};

fn event(id: u32) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"llm.completion","subject":"s","time":"2026-01-01T10:00:00Z","data":{{"model":"m","input_tokens":{id},"output_tokens":1}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_processes_wins_and_the_older_ends() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    world.send(&[], &event(1)).await;
    let mut older = cli.start(&["run"]);
    older.logged("flush committed", 1).await;
    let mut newer = cli.start(&["run"]);
    newer.logged("shard acquired", 1).await;
    // Taking over is enough: the newer one need not write anything, nor even be awake.
    newer.signal("STOP").await;
    world.send(&[], &event(2)).await;

    check_fenced(&older.ended().await);
    let kept = cli.query("SELECT MAX(sequence) FROM events").await;
    assert_eq!(kept, [["1"]]);
    newer.signal("CONT").await;
    newer.logged("flush committed", 1).await;
    let newer = newer.terminate().await;
    assert_eq!(newer.code, Some(0), "{newer:#?}");

    world.send(&[], &event(4)).await;
    assert_eq!(cli.run_to_end().await.of("counted"), 1);
    let totals = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    assert_eq!(totals, [["7", "3"]]);
    cli.audit().await;
}

fn check_fenced(older: &Ran) {
    assert_eq!(older.code, Some(1), "{older:#?}");
    let error = "error: shard `USAGE`: fenced, epoch 1 was taken over by epoch 2";
    assert!(older.stderr.contains(error), "{older:#?}");
}

/// The epochs that a table's commits carry, from the first commit to the last.
fn epochs(table: &Path) -> Vec<i64> {
    let log = std::fs::read_dir(table.join("_delta_log")).unwrap();
    let mut commits: Vec<PathBuf> = log.map(|entry| entry.unwrap().path()).collect();
    commits.retain(|path| path.extension().is_some_and(|e| e == "json"));
    commits.sort();
    let mut epochs = Vec::new();
    for commit in commits {
        for line in std::fs::read_to_string(commit).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            if action["txn"]["appId"] == "USAGE/epoch" {
                epochs.push(action["txn"]["version"].as_i64().unwrap());
            }
        }
    }
    epochs
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_wakes_up_after_a_take_over_writes_nothing_more() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    world.send(&[], &event(1)).await;
    let mut older = cli.start(&["run"]);
    older.logged("flush committed", 1).await;
    older.signal("STOP").await;
    // They are on their way to both.
    for id in [2, 4] {
        world.send(&[], &event(id)).await;
    }
    let mut newer = cli.start(&["run"]);
    newer.logged("sequence=3 ", 1).await;
    older.signal("CONT").await;
    check_fenced(&older.ended().await);
    world.send(&[], &event(8)).await;
    newer.logged("sequence=4 ", 1).await;
    let newer = newer.terminate().await;
    assert_eq!(newer.code, Some(0), "{newer:#?}");

    for table in ["lake/events", "lake/meters/tokens"] {
        let epochs = epochs(&world.path(table));
        assert!(
            epochs.is_sorted() && epochs.contains(&2),
            "{table}: {epochs:?}"
        );
    }
    cli.run_to_end().await;
    let totals = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    assert_eq!(totals, [["15", "4"]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_uploaded_before_a_take_over_are_never_committed() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    world.send(&[], &event(1)).await;
    // It stands still between the upload and the commit of its second flush.
    let still = cli.with("TOLLGATE_FAILPOINT", "events/uploaded:2:stop");
    let mut older = still.start(&["run"]);
    older.logged("sequence=1 ", 1).await;
    world.send(&[], &event(2)).await;
    let events = world.path("lake/events");
    older
        .seen("a second file", || files(&events, "parquet") == 2)
        .await;
    let mut newer = cli.start(&["run"]);
    newer.logged("sequence=2 ", 1).await;
    check_fenced(&older.wake().await);
    let newer = newer.terminate().await;
    assert_eq!(newer.code, Some(0), "{newer:#?}");

    assert_eq!(files(&events, "parquet"), 3);
    assert!(epochs(&events).is_sorted());
    cli.run_to_end().await;
    let totals = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    assert_eq!(totals, [["3", "2"]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_waits_for_its_server_does_not_take_the_shard_back() {
    let mut world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms");
    world.send(&[], &event(1)).await;
    let mut older = cli.start(&["run"]);
    older.logged("flush committed", 1).await;
    let port = world.kill_server().await;
    older.logged("shard stopped, will start again", 1).await;
    older.signal("STOP").await;
    world.start_server(Some(port)).await;
    let mut newer = cli.start(&["run"]);
    newer.logged("shard acquired", 1).await;
    check_fenced(&older.wake().await);
    world.send(&[], &event(2)).await;
    newer.logged("sequence=2 ", 1).await;
    let newer = newer.terminate().await;
    assert_eq!(newer.code, Some(0), "{newer:#?}");
}
