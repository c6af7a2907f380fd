//! Two processes on one shard: the newer wins, the older notices before it counts anything.

use crate::world::{TOKENS, World};
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

    let older = older.ended().await;
    assert_eq!(older.code, Some(1), "{older:#?}");
    let error = "error: shard `USAGE`: fenced, epoch 1 was taken over by epoch 2";
    assert!(older.stderr.contains(error), "{older:#?}");
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
    let older = older.ended().await;
    assert_eq!(older.code, Some(1), "{older:#?}");
    let error = "error: shard `USAGE`: fenced, epoch 1 was taken over by epoch 2";
    assert!(older.stderr.contains(error), "{older:#?}");
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
