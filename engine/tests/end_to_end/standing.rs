//! Shards that are over, replaced, or begin elsewhere than at the first message: what `tollgate shard` and the
//! settings `source.start` and `source.replaces` do, as docs/reliability.md says it.

use crate::world::{Cli, World};
use async_nats::jetstream::stream::Config;

const UNITS: &str = "
CREATE EVENT TYPE unit (n BIGINT NOT NULL) WITH (type = 'unit');
CREATE METER units WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(n) AS n, COUNT(*) AS events FROM unit GROUP BY subject;
CREATE PRICE used WITH (currency = 'USD') AS SELECT customer, n AS quantity, n * 1.00 AS amount FROM units;
CREATE PLAN payg WITH (currency = 'USD') AS (used);
";

fn event(id: &str, time: &str, n: i64) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"unit","subject":"acme","time":"{time}","data":{{"n":{n}}}}}"#
    )
}

fn lines(events: &[String]) -> String {
    events.join("\n") + "\n"
}

async fn total(cli: &Cli) -> Vec<Vec<String>> {
    cli.query("SELECT SUM(n), SUM(events) FROM units").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_moved_is_replaced_with_its_ids_and_its_owner_is_out() {
    let world = World::new(UNITS).await;
    let old = world.cli();
    let ids = ["1", "2", "3"].map(|id| event(id, "2026-10-05T10:00:00Z", 10));
    world.write("ids.ndjson", &lines(&ids));
    old.publish(&world.path("ids.ndjson"), 1).await;
    old.run_to_end().await;
    // The old engine is still at work when the new one starts.
    let mut still = old.start(&["run"]);
    still.logged("shard acquired", 1).await;
    let new = old
        .with("TOLLGATE_SOURCE_STREAM", "MOVED")
        .with("TOLLGATE_SOURCE_SUBJECTS", "moved.>")
        .with("TOLLGATE_SOURCE_REPLACES", "USAGE");
    let more = event("4", "2026-10-05T11:00:00Z", 1);
    let all = [ids.to_vec(), vec![more]].concat();
    world.write("all.ndjson", &lines(&all));
    new.publish(&world.path("all.ndjson"), 1).await;
    let summary = new.run_to_end().await;
    assert_eq!((summary.of("counted"), summary.of("repeats")), (1, 3));
    assert_eq!(total(&new).await, [["31", "4"]]);
    // The same id with other content is a conflict across the two as well.
    world.write(
        "other.ndjson",
        &lines(&[event("1", "2026-10-05T10:00:00Z", 99)]),
    );
    new.publish(&world.path("other.ndjson"), 1).await;
    // Without the setting, what is replaced stays so.
    let later = new.with("TOLLGATE_SOURCE_REPLACES", "");
    assert_eq!(later.run_to_end().await.of("conflicts"), 1);
    // The old owner notices at its next commit.
    world
        .send(&[], &event("5", "2026-10-05T12:00:00Z", 1_000))
        .await;
    let ended = still.ended().await;
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let refused = old.run(&["run", "--until-end"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.ends_with(
            "error: shard `USAGE`: it was replaced by shard `MOVED`\n  hint: read that one: set source.stream = \
             'MOVED'\n"
        ),
        "{refused:#?}"
    );
    assert_eq!(total(&new).await, [["31", "4"]]);
    new.audit().await;
    let list = new.succeed(&["shard", "list"]).await;
    assert!(
        list.contains("USAGE                    replaced by MOVED up to 3"),
        "{list}"
    );
    // It holds up no invoice.
    let issued = new
        .succeed(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    assert!(issued.starts_with("1 invoices issued\n"), "{issued}");
    // It moves once more: all names that it had may be given.
    let third = old
        .with("TOLLGATE_SOURCE_STREAM", "THIRD")
        .with("TOLLGATE_SOURCE_SUBJECTS", "third.>")
        .with("TOLLGATE_SOURCE_REPLACES", "USAGE,MOVED");
    third.publish(&world.path("all.ndjson"), 1).await;
    let summary = third.run_to_end().await;
    assert_eq!((summary.of("counted"), summary.of("repeats")), (0, 4));
    assert_eq!(total(&third).await, [["31", "4"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_began_with_what_is_new_skips_nothing_that_came_afterwards() {
    let world = World::new(UNITS).await;
    let config = Config {
        name: "USAGE".into(),
        subjects: vec!["usage.>".into()],
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Config::default()
    };
    world.jetstream().await.create_stream(config).await.unwrap();
    let cli = world.cli().with("TOLLGATE_SOURCE_START", "new");
    assert_eq!(cli.run_to_end().await.of("counted"), 0);
    let list = cli.succeed(&["shard", "list"]).await;
    assert!(list.contains("up to 0, begun after 0, "), "{list}");
    world
        .send(&[], &event("1", "2026-10-05T10:00:00Z", 1))
        .await;
    assert_eq!(cli.run_to_end().await.of("counted"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_of_which_nothing_was_read_yet_holds_up_invoices() {
    let world = World::new(UNITS).await;
    let cli = world.cli();
    world.write(
        "one.ndjson",
        &lines(&[event("1", "2026-10-05T10:00:00Z", 1)]),
    );
    cli.publish(&world.path("one.ndjson"), 1).await;
    cli.run_to_end().await;
    // Another shard begins, and cannot read: its first message is gone.
    let config = Config {
        name: "OTHER".into(),
        subjects: vec!["other.>".into()],
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Config::default()
    };
    let stream = world.jetstream().await.create_stream(config).await.unwrap();
    let other = cli
        .with("TOLLGATE_SOURCE_STREAM", "OTHER")
        .with("TOLLGATE_SOURCE_SUBJECTS", "other.>");
    other.publish(&world.path("one.ndjson"), 1).await;
    stream.purge().await.unwrap();
    let failed = other.run(&["run", "--until-end"]).await;
    assert_eq!(failed.code, Some(1), "{failed:#?}");
    let invoice = ["invoice", "--period", "2026-10", "--finalize"];
    let refused = cli.run(&invoice).await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(
        refused.stderr.ends_with(
            "error: shard `OTHER` was not read to its end since billing period 2026-10 ended, or has windows of it \
             that are still open: it was last caught up never, and must be at 2026-11-01T00:10:00Z or later\n  hint: \
             let `tollgate run` catch up, or run `tollgate run --until-end`; if nothing more comes from it, `tollgate \
             shard retire OTHER`\n"
        ),
        "{refused:#?}"
    );
    assert_eq!(total(&cli).await, [["1", "1"]]);
    cli.audit().await;
    // Read, or retired, it holds up no more.
    let other = other.with("TOLLGATE_SOURCE_START", "first");
    assert_eq!(other.run_to_end().await.of("counted"), 0);
    let issued = cli.succeed(&invoice).await;
    assert!(issued.starts_with("1 invoices issued\n"), "{issued}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_holds_up_no_invoice_once_it_is_retired() {
    let world = World::new(UNITS).await;
    let gone = world
        .cli()
        .with("TOLLGATE_SOURCE_STREAM", "GONE")
        .with("TOLLGATE_SOURCE_SUBJECTS", "gone.>");
    // Its hour is still running when it goes away, so only the retirement closes it.
    let now = jiff::Timestamp::now().to_string();
    let events = [event("1", "2026-10-05T10:00:00Z", 100), event("2", &now, 5)];
    world.write("gone.ndjson", &lines(&events));
    gone.publish(&world.path("gone.ndjson"), 1).await;
    let mut run = gone.start(&["run"]);
    run.logged("flush committed sequence=2 ", 1).await;
    run.kill().await;
    let cli = world.cli();
    world.write(
        "rest.ndjson",
        &lines(&[event("3", "2026-10-06T10:00:00Z", 7)]),
    );
    cli.publish(&world.path("rest.ndjson"), 1).await;
    cli.run_to_end().await;
    let is_final = "SELECT n, is_final FROM units ORDER BY n";
    let unknown = cli.run(&["shard", "retire", "GONNE"]).await;
    assert_eq!(
        unknown.stderr,
        "error: there is no shard `GONNE` in this lake\n  hint: did you mean `GONE`? known shards: `GONE`, `USAGE`\n"
    );
    cli.succeed(&["shard", "retire", "GONE"]).await;
    // What it left open is in the meter's table, where other tools see it.
    let panes = "SELECT SUM(n), COUNT(*) FROM units_panes WHERE shard = 'GONE' AND pane = 0";
    assert_eq!(cli.query(panes).await, [["105", "2"]]);
    // The running hour is closed there, and still open in the other shard.
    assert_eq!(
        cli.query(is_final).await,
        [["5", "false"], ["7", "true"], ["100", "true"]]
    );
    cli.audit().await;
    let refused = gone.run(&["run", "--until-end"]).await;
    assert!(
        refused.stderr.ends_with(
            "error: shard `GONE`: it was retired\n  hint: `tollgate shard resume GONE` brings it back\n"
        ),
        "{refused:#?}"
    );
    let issued = cli
        .succeed(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    assert_eq!(
        issued,
        "1 invoices issued\nINV-000001   acme                                1 lines             107.00 USD\n"
    );
    // Resumed, it goes on where it was.
    cli.succeed(&["shard", "resume", "GONE"]).await;
    assert_eq!(gone.run_to_end().await.of("counted"), 0);
    assert_eq!(total(&cli).await, [["112", "3"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_first_messages_are_gone_begins_where_that_is_said() {
    let world = World::new(UNITS).await;
    let cli = world.cli();
    let events: Vec<String> = (1..=20)
        .map(|id| event(&id.to_string(), "2026-10-05T10:00:00Z", 1))
        .collect();
    world.write("events.ndjson", &lines(&events));
    cli.publish(&world.path("events.ndjson"), 1).await;
    let stream = world.jetstream().await.get_stream("USAGE").await.unwrap();
    let purged = stream.purge().sequence(11).await;
    let cli = match purged {
        Ok(_) => cli,
        // A stream that we made denies purges; one that does not is made by hand.
        Err(_) => {
            let config = Config {
                name: "OLD".into(),
                subjects: vec!["old.>".into()],
                discard: async_nats::jetstream::stream::DiscardPolicy::New,
                ..Config::default()
            };
            world.jetstream().await.create_stream(config).await.unwrap();
            let cli = cli
                .with("TOLLGATE_SOURCE_STREAM", "OLD")
                .with("TOLLGATE_SOURCE_SUBJECTS", "old.>");
            cli.publish(&world.path("events.ndjson"), 1).await;
            let stream = world.jetstream().await.get_stream("OLD").await.unwrap();
            stream.purge().sequence(11).await.unwrap();
            cli
        }
    };
    let refused = cli.run(&["run", "--until-end"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains(
            "sequences 1 to 10 are gone from the stream and were never read\n  hint: if they were never meant to be \
             metered, set source.start = 'first'; "
        ),
        "{refused:#?}"
    );
    let summary = cli
        .with("TOLLGATE_SOURCE_START", "first")
        .run_to_end()
        .await;
    assert_eq!(summary.of("counted"), 10);
    // It has a position now: the setting is not looked at again.
    let again = cli.with("TOLLGATE_SOURCE_START", "new").run_to_end().await;
    assert_eq!((again.of("counted"), again.sequence()), (0, 20));
    let list = cli.succeed(&["shard", "list"]).await;
    assert!(list.contains("up to 20, begun after 10, "), "{list}");
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_numbers_were_made_to_begin_later_has_lost_nothing() {
    let world = World::new(UNITS).await;
    let config = Config {
        name: "LATER".into(),
        subjects: vec!["later.>".into()],
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        first_sequence: Some(1_000),
        ..Config::default()
    };
    world.jetstream().await.create_stream(config).await.unwrap();
    let cli = world
        .cli()
        .with("TOLLGATE_SOURCE_STREAM", "LATER")
        .with("TOLLGATE_SOURCE_SUBJECTS", "later.>");
    world.write(
        "one.ndjson",
        &lines(&[event("1", "2026-10-05T10:00:00Z", 1)]),
    );
    cli.publish(&world.path("one.ndjson"), 1).await;
    let summary = cli.run_to_end().await;
    assert_eq!((summary.of("counted"), summary.sequence()), (1, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_waits_until_every_shard_is_caught_up_after_the_lateness() {
    let world = World::new(&UNITS.replace("'10 minutes'", "'2000 hours'")).await;
    let cli = world.cli();
    world.write(
        "one.ndjson",
        &lines(&[event("1", "2026-10-05T10:00:00Z", 1)]),
    );
    cli.publish(&world.path("one.ndjson"), 1).await;
    cli.run_to_end().await;
    let refused = cli
        .run(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    // 2,000 hours are 83 days and 8 hours.
    assert!(
        refused.stderr.contains(
            "error: shard `USAGE` was not read to its end since billing period 2026-10 ended, or has windows of it \
             that are still open: it was last caught up at "
        ) && refused.stderr.contains(
            ", and must be at 2027-01-23T08:00:00Z or later\n  hint: let `tollgate run` catch up, or run `tollgate \
             run --until-end`; if nothing more comes from it, `tollgate shard retire USAGE`\n"
        ),
        "{refused:#?}"
    );
}
