//! Two processes on one shard: the newer wins, the older notices before it counts anything.

use crate::world::{TOKENS, World};

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
