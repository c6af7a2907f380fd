//! The snippets of docs/publishing.md, run as a reader would.

use crate::{
    guide::blocks,
    http::{Http, open_ready},
    world::{TOKENS, World},
};
use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_service_in_node_meters_each_of_its_answers() {
    if named("TOLLGATE_PUBLISHERS_NODE", "folder of packages for node").is_none() {
        return;
    }
    let world = World::new(TOKENS).await;
    let (running, http) = open_ready(&world.cli(), &["run"]).await;
    let mut service = Command::new("node")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/services/node_service.mjs"
        ))
        .env("TOLLGATE", format!("http://{}", http.address))
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let said = lines.next_line().await.unwrap().unwrap();
    let port = said.strip_prefix("listening on ").unwrap();
    let service_http = Http::at(format!("127.0.0.1:{port}"));
    for customer in ["acme", "acme", "globex"] {
        let asked = format!(r#"{{"customer": "{customer}", "prompt": "how much is it?"}}"#);
        let answer = service_http.post("/", "application/json", &asked).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // What waits is sent before it ends.
    crate::world::signal(service.id().unwrap(), "TERM").await;
    assert!(service.wait().await.unwrap().success());
    running.terminate().await;
    world.cli().run_to_end().await;
    // Four words are asked, six answered.
    let total =
        "SELECT subject, SUM(input), SUM(output) FROM tokens GROUP BY subject ORDER BY subject";
    assert_eq!(
        world.cli().query(total).await,
        [["acme", "8", "12"], ["globex", "4", "6"]]
    );
}
