//! What can happen to a stream and to its server: whatever it is, the run goes on with the right totals, or
//! stops and says what was lost.

use crate::world::{Cli, Ran, TOKENS, World, nats_binary, signal};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use std::path::{Path, PathBuf};

/// An event that counts `id` tokens.
fn event(id: u64) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"llm.completion","subject":"s","time":"2026-01-01T10:00:00Z","data":{{"model":"m","input_tokens":{id},"output_tokens":1}}}}"#
    )
}

async fn send(world: &World, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        world.send(&[], &event(id)).await;
    }
}

/// Tokens and calls, as far as they are counted.
async fn totals(cli: &Cli) -> [u64; 2] {
    let rows = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    [0, 1].map(|column| rows[0][column].parse().unwrap_or(0))
}

async fn run(cli: &Cli) -> Ran {
    cli.run(&["run", "--until-end"]).await
}

/// It ended with one error that says all of these.
fn check(ran: &Ran, says: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let errors = ran.stderr.lines().filter(|l| l.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{ran:#?}");
    for text in says {
        assert!(ran.stderr.contains(text), "`{text}` is not said: {ran:#?}");
    }
}

/// Flushes often, so that what happens to a running shard is seen soon.
fn quick(world: &World) -> Cli {
    world.cli().with("TOLLGATE_FLUSH_INTERVAL", "50ms")
}

/// The holes that the commits of `events` recorded.
fn holes(lake: &Path) -> u64 {
    let log = std::fs::read_dir(lake.join("events/_delta_log")).unwrap();
    let commits = log.map(|entry| entry.unwrap().path());
    let jsons = commits.filter(|path| path.extension().is_some_and(|e| e == "json"));
    let holes = |path: PathBuf| -> u64 {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let info = lines.find(|line| line.starts_with(r#"{"commitInfo""#));
        let info: serde_json::Value = serde_json::from_str(info.unwrap()).unwrap();
        let flush = &info["commitInfo"]["tollgate.flush"];
        flush["counts"]["holes"].as_u64().unwrap_or(0)
    };
    jsons.map(holes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_rolled_back_stops_the_shard() {
    let mut world = World::new(TOKENS).await;
    let cli = world.cli();
    send(&world, 1..=3).await;
    let port = world.stop_server().await;
    world.copy("nats/jetstream", "backup");
    world.start_server(Some(port)).await;
    send(&world, 4..=5).await;
    cli.run_to_end().await;
    // 1 + 2 + 3 + 4 + 5.
    assert_eq!(totals(&cli).await, [15, 5]);

    world.stop_server().await;
    world.copy("backup", "nats/jetstream");
    world.start_server(Some(port)).await;
    let fewer = "the lake holds everything up to sequence 5, but the stream ends at 3";
    check(&run(&cli).await, &["shard `USAGE`", fewer, "hint: "]);
    // Refilled up to the same sequence, and beyond it, with other messages.
    for ids in [6..=7, 8..=9] {
        send(&world, ids).await;
        let other = "message 5 is not the message that was committed";
        check(&run(&cli).await, &["shard `USAGE`", other, "hint: "]);
    }
    assert_eq!(totals(&cli).await, [15, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_shard_notices_that_its_stream_was_rolled_back_or_made_anew() {
    let mut world = World::new(TOKENS).await;
    let cli = quick(&world);
    send(&world, 1..=2).await;
    let port = world.stop_server().await;
    world.copy("nats/jetstream", "backup");
    world.start_server(Some(port)).await;
    send(&world, [3]).await;
    let mut shard = cli.start(&["run"]);
    shard.logged("sequence=3", 1).await;
    let port = world.kill_server().await;
    world.copy("backup", "nats/jetstream");
    world.start_server(Some(port)).await;
    send(&world, [30, 40]).await;
    check(&shard.ended().await, &["shard `USAGE`", "message 3 is no"]);
    assert_eq!(totals(&cli).await, [6, 3]);

    let cli = cli.lake("second");
    let mut shard = cli.start(&["run"]);
    shard.logged("sequence=4", 1).await;
    let jetstream = world.jetstream().await;
    // It may make the stream again, as it was asked to, but it does not take that for the old one.
    jetstream.delete_stream("USAGE").await.unwrap();
    check(&shard.ended().await, &["shard `USAGE`", "message 4 is no"]);
    // 1 + 2 + 30 + 40.
    assert_eq!(totals(&cli).await, [73, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_is_not_made_again_unless_that_was_asked_for() {
    let world = World::new(TOKENS).await;
    let cli = quick(&world).with("TOLLGATE_SOURCE_CREATE", "false");
    send(&world, [1]).await;
    let mut shard = cli.start(&["run"]);
    shard.logged("flush committed", 1).await;
    let jetstream = world.jetstream().await;
    jetstream.delete_stream("USAGE").await.unwrap();
    let says = [
        "stream `USAGE`: there is no such stream",
        "nats stream add USAGE",
    ];
    check(&shard.ended().await, &says);
    assert!(jetstream.get_stream("USAGE").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_what_was_read_is_harmless_and_of_what_was_not_is_not() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    send(&world, 1..=3).await;
    cli.run_to_end().await;
    let stream = world.jetstream().await.get_stream("USAGE").await.unwrap();
    stream.purge().await.unwrap();
    assert_eq!(cli.run_to_end().await.sequence(), 3);
    send(&world, 4..=5).await;
    cli.run_to_end().await;
    assert_eq!(totals(&cli).await, [15, 5]);

    send(&world, 6..=8).await;
    stream.purge().sequence(8).await.unwrap();
    let says = "sequences 6 to 7 are gone from the stream and were never read";
    check(&run(&cli).await, &["shard `USAGE`", says, "hint: "]);
    assert_eq!(totals(&cli).await, [15, 5]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_deleted_one_by_one_are_recorded_as_holes() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    send(&world, 1..=6).await;
    let stream = world.jetstream().await.get_stream("USAGE").await.unwrap();
    for sequence in [3, 4, 6] {
        assert!(stream.delete_message(sequence).await.unwrap());
    }
    let ran = run(&cli.with("TOLLGATE_LOG", "info")).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    for hole in ["first=3 last=4", "first=6 last=6"] {
        assert!(ran.stderr.contains(hole), "{ran:#?}");
    }
    assert_eq!(holes(&world.path("lake")), 3);
    // 1 + 2 + 5.
    assert_eq!(totals(&cli).await, [8, 3]);
    // One that was read and then deleted is no hole: the next run does not look for it.
    assert!(stream.delete_message(5).await.unwrap());
    send(&world, [7]).await;
    cli.run_to_end().await;
    assert_eq!(totals(&cli).await, [15, 4]);
    assert_eq!(holes(&world.path("lake")), 3);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_may_drop_unread_events_is_refused_and_says_how_to_mend_it() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    let jetstream = world.jetstream().await;
    let mut config = Config {
        name: "USAGE".into(),
        subjects: vec!["usage.>".into()],
        max_messages: 5,
        discard: DiscardPolicy::Old,
        ..Config::default()
    };
    jetstream.create_stream(config.clone()).await.unwrap();
    let says = [
        "discard is old with max_msgs 5, it must be new",
        "nats stream edit USAGE --discard new; or, to run the risk, accept = [\"discard_old\"] in [source]",
    ];
    check(&run(&cli).await, &says);
    assert!(!world.path("lake").exists() || holes(&world.path("lake")) == 0);

    // An operator who accepts the risk is told again at each start, and of the loss when it is one.
    let brave = cli.with("TOLLGATE_SOURCE_ACCEPT", "discard_old");
    send(&world, 1..=3).await;
    let ran = run(&brave).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let warnings = ran.stderr.matches("risk to lose events was accepted");
    assert_eq!(warnings.count(), 1, "{ran:#?}");
    assert!(ran.stderr.contains("risk=discard_old"), "{ran:#?}");
    send(&world, 4..=10).await;
    let says = "sequences 4 to 5 are gone from the stream and were never read";
    check(&run(&brave).await, &["shard `USAGE`", says, "hint: "]);
    assert_eq!(totals(&cli).await, [6, 3]);

    // Mended as advised; a full stream now refuses the publisher.
    let cli = cli.lake("second");
    jetstream.delete_stream("USAGE").await.unwrap();
    jetstream.create_stream(config.clone()).await.unwrap();
    config.discard = DiscardPolicy::New;
    jetstream.update_stream(config).await.unwrap();
    send(&world, 1..=5).await;
    let full = jetstream.publish("usage.test", event(6).into()).await;
    assert!(full.unwrap().await.is_err());
    cli.run_to_end().await;
    assert_eq!(totals(&cli).await, [15, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_up_yet_is_waited_for_and_said_once() {
    let mut world = World::new(TOKENS).await;
    send(&world, 1..=2).await;
    let port = world.stop_server().await;
    let cli = quick(&world).with("TOLLGATE_LOG", "tollgate=debug");
    let mut shard = cli.start(&["run"]);
    shard.logged("shard could not start yet", 2).await;
    assert_eq!(
        said(&shard.log(), "could not reach NATS"),
        1,
        "{}",
        shard.log()
    );
    world.start_server(Some(port)).await;
    shard.logged("flush committed", 1).await;
    let ran = shard.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(totals(&cli).await, [3, 2]);
}

/// How often a shard said that it stopped, and why.
fn said(log: &str, why: &str) -> usize {
    let lines = log
        .lines()
        .filter(|line| line.contains("shard stopped, will start again"));
    lines.filter(|line| line.contains(why)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_waited_for_and_nothing_is_lost_or_counted_twice() {
    let mut world = World::new(TOKENS).await;
    let cli = quick(&world).with("TOLLGATE_LOG", "tollgate=debug");
    send(&world, 1..=2).await;
    let mut shard = cli.start(&["run"]);
    shard.logged("flush committed", 1).await;
    let mut acquired = 1;
    for (killed, ids) in [(true, 3..=4), (false, 5..=6)] {
        let port = match killed {
            true => world.kill_server().await,
            false => world.stop_server().await,
        };
        let tries = shard.log().matches("shard could not start yet").count();
        shard.logged("shard could not start yet", tries + 1).await;
        world.start_server(Some(port)).await;
        let last = *ids.end();
        send(&world, ids).await;
        acquired += 1;
        shard.logged("shard acquired", acquired).await;
        shard.logged(&format!("sequence={last} "), 1).await;
    }
    let ran = shard.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    // Each time that the connection went and that no server answered, whatever it tried in between.
    let stops = said(&ran.stderr, "");
    assert!((2..=6).contains(&stops), "{stops}: {ran:#?}");
    assert_eq!(totals(&cli).await, [21, 6]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up_and_taken_up_again() {
    let world = World::new(TOKENS).await;
    let cli = quick(&world);
    send(&world, 1..=2).await;
    let mut shard = cli.start(&["run"]);
    shard.logged("flush committed", 1).await;
    signal(world.server_id(), "STOP").await;
    shard.logged("shard stopped, will start again", 1).await;
    signal(world.server_id(), "CONT").await;
    send(&world, 3..=4).await;
    shard.logged("shard acquired", 2).await;
    shard.logged("sequence=4 ", 1).await;
    let ran = shard.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(totals(&cli).await, [10, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_moved_is_found_where_the_configuration_says() {
    let mut world = World::new(TOKENS).await;
    let cli = quick(&world);
    send(&world, 1..=2).await;
    let mut shard = cli.start(&["run"]);
    shard.logged("flush committed", 1).await;
    world.kill_server().await;
    // Any other port; another process may have the old one by now.
    world.start_server(None).await;
    send(&world, 3..=4).await;
    let ran = shard.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(cli.run_to_end().await.of("counted"), 2);
    assert_eq!(totals(&cli).await, [10, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_deleted_again_and_again_loses_nothing() {
    use futures::TryStreamExt;
    let world = World::new(TOKENS).await;
    let cli = quick(&world);
    send(&world, [1]).await;
    let mut shard = cli.start(&["run"]);
    shard.logged("sequence=1 ", 1).await;
    let stream = world.jetstream().await.get_stream("USAGE").await.unwrap();
    for id in 2..=6 {
        let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
        for name in names {
            stream.delete_consumer(&name).await.unwrap();
        }
        send(&world, [id]).await;
        shard.logged(&format!("sequence={id} "), 1).await;
    }
    let ran = shard.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(said(&ran.stderr, ""), 0, "{ran:#?}");
    assert_eq!(totals(&cli).await, [21, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_under_load_loses_nothing() {
    const MESSAGES: u64 = 100_000;
    let world = World::new(TOKENS).await;
    let cli = quick(&world);
    send(&world, [1]).await;
    let mut shard = cli.start(&["run"]);
    shard.logged("sequence=1 ", 1).await;
    shard.signal("STOP").await;
    // More than the client holds and the sockets take: the server has to hold it back.
    let lines: String = (2..=MESSAGES).map(|id| event(id) + "\n").collect();
    world.write("load.ndjson", &lines);
    cli.publish(&world.path("load.ndjson"), 1).await;
    shard.signal("CONT").await;
    shard.logged(&format!("sequence={MESSAGES} "), 1).await;
    let ran = shard.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(
        totals(&cli).await,
        [MESSAGES * (MESSAGES + 1) / 2, MESSAGES]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_server_that_is_packaged_is_read_like_any_other() {
    let old = nats_binary().with_file_name("nats-server-2.9");
    if !old.is_file() {
        println!(
            "skipped: {} is not there; make tools brings it on Debian 12",
            old.display()
        );
        return;
    }
    let mut world = World::with_server(old, TOKENS).await;
    let cli = quick(&world);
    send(&world, 1..=3).await;
    let stream = world.jetstream().await.get_stream("USAGE").await.unwrap();
    assert!(stream.delete_message(2).await.unwrap());
    let mut shard = cli.start(&["run"]);
    shard.logged("sequence=3 ", 1).await;
    let port = world.kill_server().await;
    world.start_server(Some(port)).await;
    send(&world, 4..=5).await;
    shard.logged("sequence=5 ", 1).await;
    let ran = shard.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(holes(&world.path("lake")), 1);
    // 1 + 3 + 4 + 5.
    assert_eq!(totals(&cli).await, [13, 4]);
    cli.audit().await;
    let missing = cli.stream("OTHER").with("TOLLGATE_SOURCE_CREATE", "false");
    let says = "stream `OTHER`: there is no such stream";
    check(&run(&missing).await, &[says]);
}
