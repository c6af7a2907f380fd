//! The snippets of docs/publishing.md, run as a reader would.

use crate::{
    guide::blocks,
    world::{TOKENS, World},
};
use std::env;
use tokio::process::Command;

const GUIDE: &str = include_str!("../../../docs/publishing.md");

#[tokio::test(flavor = "multi_thread")]
async fn the_python_snippet_publishes_events_that_count() {
    let python = env::var_os("TOLLGATE_PUBLISHERS").filter(|python| !python.is_empty());
    let Some(python) = python else {
        println!("skipped: TOLLGATE_PUBLISHERS names no python with nats-py");
        return;
    };
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    // The stream is there before a publisher is.
    cli.run_to_end().await;
    world.write("publish.py", blocks(GUIDE, "python")[0]);
    for counted in [101, 0] {
        let ran = Command::new(&python)
            .arg(world.path("publish.py"))
            .env("NATS_URL", world.url())
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{stderr}");
        let summary = cli.run_to_end().await;
        assert_eq!(summary.of("counted"), counted);
        assert_eq!(summary.of("repeats"), 101 - counted);
    }
    // 7 + 0 + 1 + … + 99.
    let total = "SELECT SUM(input) FROM tokens";
    assert_eq!(cli.query(total).await, [["4957"]]);
}
