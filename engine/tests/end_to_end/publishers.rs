//! The snippets of docs/publishing.md, run as a reader would.

use crate::{
    guide::blocks,
    world::{TOKENS, World},
};
use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;

const GUIDE: &str = include_str!("../../../docs/publishing.md");

/// What a variable names; says that a test is skipped, and for want of what, where it is not set.
pub(crate) fn named(variable: &str, what: &str) -> Option<OsString> {
    let named = env::var_os(variable).filter(|named| !named.is_empty());
    if named.is_none() {
        println!("skipped: {variable} names no {what}");
    }
    named
}

/// Two rounds of a snippet that publishes one event and a hundred: each counts once.
async fn check(snippet: impl AsyncFn(&World)) {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    // The stream is there before a publisher is.
    cli.run_to_end().await;
    for counted in [101, 0] {
        snippet(&world).await;
        let summary = cli.run_to_end().await;
        assert_eq!(summary.of("counted"), counted);
        assert_eq!(summary.of("repeats"), 101 - counted);
    }
    // 7 + 0 + 1 + … + 99.
    let total = "SELECT SUM(input) FROM tokens";
    assert_eq!(cli.query(total).await, [["4957"]]);
}

async fn succeed(world: &World, command: &mut Command) {
    let ran = command.env("NATS_URL", world.url()).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_snippet_publishes_events_that_count() {
    let Some(python) = named("TOLLGATE_PUBLISHERS", "python with nats-py") else {
        return;
    };
    check(async |world| {
        world.write("publish.py", blocks(GUIDE, "python")[0]);
        let file = world.path("publish.py");
        succeed(world, Command::new(&python).arg(file)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_snippet_publishes_events_that_count() {
    let Some(folder) = named(
        "TOLLGATE_PUBLISHERS_NODE",
        "folder with @nats-io/transport-node",
    ) else {
        return;
    };
    check(async |world| {
        world.write("node/publish.mjs", blocks(GUIDE, "js")[0]);
        // Node looks for packages beside the file.
        let packages = world.path("node/node_modules");
        if !packages.exists() {
            std::os::unix::fs::symlink(Path::new(&folder).join("node_modules"), packages).unwrap();
        }
        let file = world.path("node/publish.mjs");
        succeed(world, Command::new("node").arg(file)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_snippet_publishes_events_that_count() {
    let what = "folder whose go.mod requires github.com/nats-io/nats.go; no package registry that our tools use has it";
    let Some(module) = named("TOLLGATE_PUBLISHERS_GO", what).map(PathBuf::from) else {
        return;
    };
    check(async |world| {
        world.write("go/main.go", blocks(GUIDE, "go")[0]);
        for file in ["go.mod", "go.sum"] {
            if module.join(file).exists() {
                fs::copy(module.join(file), world.path("go").join(file)).unwrap();
            }
        }
        let mut go = Command::new("go");
        succeed(world, go.args(["run", "."]).current_dir(world.path("go"))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snippet_of_the_nats_command_publishes_an_event_that_counts() {
    let what = "folder with the `nats` command; no package registry that our tools use has it";
    let Some(folder) = named("TOLLGATE_NATS_CLI", what) else {
        return;
    };
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    cli.run_to_end().await;
    let paths = [PathBuf::from(folder)].into_iter();
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(paths.chain(env::split_paths(&path))).unwrap();
    let snippet = blocks(GUIDE, "sh")[0];
    let mut shell = Command::new("sh");
    succeed(&world, shell.args(["-c", snippet]).env("PATH", path)).await;
    assert_eq!(cli.run_to_end().await.of("counted"), 1);
    assert_eq!(cli.query("SELECT SUM(input) FROM tokens").await, [["7"]]);
}
