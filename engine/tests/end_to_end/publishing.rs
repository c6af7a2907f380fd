//! `tollgate publish`: what stops it, and what it says then; and users of the server who may not do what a command
//! needs.

use crate::world::{Cli, Ran, World, nats_binary};
use async_nats::jetstream::stream::Config;
use tollgate_connectors::nats::server::NatsServer;

const UNITS: &str = "
CREATE EVENT TYPE unit (n BIGINT NOT NULL, CHECK (n < 1000)) WITH (type = 'unit');
CREATE METER units WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM unit GROUP BY subject;
";

fn event(id: &str, kind: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"{kind}","subject":"acme","time":"2026-10-05T10:00:00Z","data":{data}}}"#
    )
}

fn unit(id: &str, n: i64) -> String {
    event(id, "unit", &format!(r#"{{"n":{n}}}"#))
}

/// An event of at least so many bytes.
fn padded(id: &str, bytes: usize) -> String {
    event(
        id,
        "unit",
        &format!(r#"{{"n":1,"pad":"{}"}}"#, "x".repeat(bytes)),
    )
}

async fn publish(world: &World, cli: &Cli, lines: &[String], arguments: &[&str]) -> Ran {
    world.write("events.ndjson", &(lines.join("\n") + "\n"));
    cli.run(&[&["publish", "events.ndjson"], arguments].concat())
        .await
}

/// It failed, and this is the whole error, after whatever was logged.
fn check(ran: &Ran, code: i32, error: &str) {
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(code), ""),
        "{ran:#?}"
    );
    let at = ran.stderr.find("error: ").unwrap();
    assert_eq!(&ran.stderr[at..], error, "{ran:#?}");
}

fn unpublished(place: &str, published: u64, cause: &str) -> String {
    format!(
        "error: events.ndjson: {place} was not published\n  published: {published} events before and beside it; what \
         follows was not sent\n  hint: mend it and publish the file again: events are counted once by their ids\n  \
         caused by: stream `USAGE`: {cause}\n"
    )
}

/// Makes a stream as it is not made by us.
async fn make(world: &World, config: Config) {
    world.jetstream().await.create_stream(config).await.unwrap();
}

fn usage() -> Config {
    Config {
        name: "USAGE".into(),
        subjects: vec!["usage.>".into()],
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_the_stream_does_not_take_is_named_and_the_others_are_counted() {
    let world = World::new(UNITS).await;
    let cli = world.cli();
    make(
        &world,
        Config {
            max_message_size: 500,
            ..usage()
        },
    )
    .await;
    let lines = [unit("1", 1), String::new(), padded("2", 500), unit("3", 4)];
    let large = lines[2].len();
    let ran = publish(&world, &cli, &lines, &[]).await;
    let cause = |bytes| {
        format!(
            "a message of {bytes} bytes is too large\n  hint: put fewer events into a message, or raise max_msg_size \
             of the stream"
        )
    };
    check(&ran, 1, &unpublished("line 3 (id \"2\")", 2, &cause(large)));
    // The whole message is named: the lines of the one before and the one after went out.
    let lines = [unit("1", 1), unit("3", 4), unit("4", 2), padded("5", 500)];
    let ran = publish(&world, &cli, &lines, &["--batch", "2"]).await;
    let bytes = lines[2].len() + 1 + lines[3].len();
    let place = "line 3 (id \"4\") to line 4 (id \"5\")";
    check(&ran, 1, &unpublished(place, 2, &cause(bytes)));
    // Mended and published again, each counts once: 1 + 4 + 2.
    let ran = publish(&world, &cli, &lines[..3], &[]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    cli.run_to_end().await;
    assert_eq!(cli.query("SELECT SUM(n) FROM units").await, [["7"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_the_server_takes_ends_at_its_line() {
    let world = World::new(UNITS).await;
    let cli = world.cli();
    // 1 MiB is what a server takes by default.
    let lines = [unit("1", 1), padded("2", 1 << 20), unit("3", 4)];
    let ran = publish(&world, &cli, &lines, &[]).await;
    let bytes = lines[1].len();
    let cause = format!(
        "a message of {bytes} bytes is too large\n  hint: put fewer events into a message, or raise max_payload of \
         the server"
    );
    check(&ran, 1, &unpublished("line 2 (id \"2\")", 1, &cause));
    // What cannot be named by an id has its line.
    let ran = publish(&world, &cli, &["x".repeat((1 << 20) + 1)], &[]).await;
    let cause = cause.replace(&bytes.to_string(), "1048577");
    check(&ran, 1, &unpublished("line 1", 0, &cause));
    cli.run_to_end().await;
    assert_eq!(cli.query("SELECT SUM(n) FROM units").await, [["1"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_of_another_stream_is_refused_before_anything_is_stored_there() {
    let world = World::new(UNITS).await;
    make(
        &world,
        Config {
            subjects: vec!["usage.unit".into()],
            ..usage()
        },
    )
    .await;
    make(
        &world,
        Config {
            name: "OTHER".into(),
            subjects: vec!["usage.*.*".into()],
            ..usage()
        },
    )
    .await;
    let cli = world.cli();
    let lines = [unit("1", 1), event("2", "unit.large", "{}"), unit("3", 4)];
    let ran = publish(&world, &cli, &lines, &[]).await;
    let cause = "the subject `usage.unit.large` belongs to the stream `OTHER`\n  hint: set source.subjects to those of \
                 `USAGE`, or source.stream to `OTHER`";
    check(&ran, 1, &unpublished("line 2 (id \"2\")", 1, cause));
    let stored = |name| {
        let world = &world;
        async move {
            let mut stream = world.jetstream().await.get_stream(name).await.unwrap();
            stream.info().await.unwrap().state.messages
        }
    };
    assert_eq!((stored("USAGE").await, stored("OTHER").await), (1, 0));
    // A subject that no stream takes.
    let ran = publish(&world, &cli, &[event("4", "call", "{}")], &[]).await;
    let cause = "no stream takes the subject `usage.call`\n  hint: add the subject to the stream, or create the stream \
                 first";
    check(&ran, 1, &unpublished("line 1 (id \"4\")", 0, cause));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_will_not_count_are_said_before_they_are_sent_and_refused_with_strict() {
    let world = World::new(UNITS).await;
    let cli = world.cli();
    // One kind of each: malformed, a missing field, a value of another type, a check, no event type.
    let bad = [
        ("{", "line 2"),
        (&event("b", "unit", "{}"), "line 3 (id \\\"b\\\")"),
        (
            &event("c", "unit", r#"{"n":"many"}"#),
            "line 4 (id \\\"c\\\")",
        ),
        (&unit("d", 1000), "line 5 (id \\\"d\\\")"),
        (&event("e", "call", "{}"), "line 6 (id \\\"e\\\")"),
    ];
    let mut lines = vec![unit("a", 1)];
    lines.extend(bad.iter().map(|(line, _)| (*line).to_owned()));
    lines.push(unit("f", 2));
    let strict = publish(&world, &cli, &lines, &["--strict"]).await;
    assert_eq!(strict.code, Some(1), "{strict:#?}");
    let error = strict
        .stderr
        .lines()
        .find(|line| line.starts_with("error: "));
    assert!(
        error.unwrap().starts_with("error: events.ndjson: line 2: "),
        "{strict:#?}"
    );
    let says = "\n  5 lines of the file would not be counted, and --strict published nothing\n  hint: mend them and publish the file \
                again\n";
    assert!(strict.stderr.ends_with(says), "{strict:#?}");
    // Nothing was sent, not even the stream was made.
    assert!(world.jetstream().await.get_stream("USAGE").await.is_err());

    // Without it they are warned of and sent, and the lake says the same of them.
    let ran = publish(&world, &cli, &lines, &[]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (
            Some(0),
            "7 events published, 7 messages acknowledged, 0 sent again\n"
        ),
        "{ran:#?}"
    );
    let warnings: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("this event will not be counted"))
        .collect();
    assert_eq!(warnings.len(), bad.len(), "{ran:#?}");
    cli.run_to_end().await;
    let reasons = cli
        .query("SELECT status, reason FROM events WHERE status <> 'ok' ORDER BY sequence")
        .await;
    assert_eq!(reasons.len(), bad.len());
    for ((warning, (_, place)), reason) in warnings.iter().zip(&bad).zip(&reasons) {
        assert!(warning.contains(place), "{warning}");
        let said = reason[1].replace('"', "\\\"");
        assert!(
            warning.contains(&reason[1]) || warning.contains(&said),
            "{warning} does not say {reason:?}"
        );
    }
    assert_eq!(cli.query("SELECT SUM(n) FROM units").await, [["3"]]);

    // From stdin the good lines before the first bad one go out, and nothing from it on.
    let mut run = cli.start(&["publish", "-", "--strict"]);
    let mut stdin = run.stdin();
    let text = [unit("g", 5), unit("h", 1000), unit("i", 7)].join("\n");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, text.as_bytes())
        .await
        .unwrap();
    drop(stdin);
    let ran = run.ended().await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let says = "error: -: line 2 (id \"h\"): check failed: n < 1000\n  it would not be counted: 1 events before it were \
                published, and nothing from it on\n  hint: mend it and publish everything again: events are counted once by their ids\n";
    assert!(ran.stderr.ends_with(says), "{ran:#?}");
    cli.run_to_end().await;
    assert_eq!(
        cli.query("SELECT event_id FROM events WHERE event_id = 'g'")
            .await,
        [["g"]]
    );
    let later = "SELECT event_id FROM events WHERE event_id IN ('h', 'i')";
    assert!(cli.query(later).await.is_empty());
}

/// A server whose users are each denied something, and settings for each of them.
async fn guarded(world: &World, users: &[(&str, &str)]) -> NatsServer {
    let user = |(name, denied): &(&str, &str)| {
        format!("{{ user: {name}, password: p, permissions {{ {denied} }} }}")
    };
    let users: Vec<String> = users.iter().map(user).collect();
    let users = users.join(", ");
    let config = format!("authorization {{ users = [ {{ user: admin, password: p }}, {users} ] }}");
    world.write("users.conf", &config);
    let file = world.path("users.conf");
    let arguments = ["-c", file.to_str().unwrap()];
    let dir = world.path("guarded");
    let server = NatsServer::start_with(&nats_binary(), &dir, None, &arguments).await;
    server.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_denied_ends_each_command_and_says_what_to_permit() {
    let world = World::new(UNITS).await;
    let server = guarded(
        &world,
        &[
            ("blind", "publish { deny: \"$JS.API.STREAM.INFO.USAGE\" }"),
            ("stuck", "publish { deny: \"$JS.API.CONSUMER.MSG.NEXT.>\" }"),
            ("deaf", "subscribe { deny: \"_INBOX.>\" }"),
            ("mute", "publish { deny: \"usage.call\" }"),
        ],
    )
    .await;
    let as_user = |user: &str| {
        let url = format!("nats://{user}:p@127.0.0.1:{}", server.port());
        world.cli().with("TOLLGATE_SOURCE_URL", &url)
    };
    let lines = [unit("1", 1), event("2", "call", "{}"), unit("3", 4)];
    let ran = publish(&world, &as_user("admin"), &lines[..1], &[]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let denies = |doing: &str| {
        format!(
            "the server does not permit us to {doing}\n  hint: permit this user to {doing}; docs/configuration.md \
             lists what a user needs"
        )
    };
    let info = denies("publish to `$JS.API.STREAM.INFO.USAGE`");
    for command in [
        &["run"][..],
        &["run", "--until-end"],
        &["publish", "events.ndjson"],
    ] {
        let ran = as_user("blind").run(command).await;
        check(&ran, 1, &format!("error: stream `USAGE`: {info}\n"));
    }
    // These names are new each time.
    for (user, denied, permit) in [
        (
            "stuck",
            "publish to `$JS.API.CONSUMER.MSG.NEXT.USAGE.tollgate-",
            "publish to `$JS.API.CONSUMER.MSG.NEXT.USAGE.>`",
        ),
        ("deaf", "subscribe to `_INBOX.", "subscribe to `_INBOX.>`"),
    ] {
        for command in [&["run"][..], &["run", "--until-end"]] {
            let ran = as_user(user).run(command).await;
            assert_eq!(ran.code, Some(1), "{ran:#?}");
            let says = format!("error: stream `USAGE`: the server does not permit us to {denied}");
            assert!(ran.stderr.contains(&says), "{ran:#?}");
            let hint = format!(
                "\n  hint: permit this user to {permit}; docs/configuration.md lists what a user needs\n"
            );
            assert!(ran.stderr.ends_with(&hint), "{ran:#?}");
        }
    }
    let ran = publish(&world, &as_user("mute"), &lines, &[]).await;
    let cause = denies("publish to `usage.call`");
    check(&ran, 1, &unpublished("line 2 (id \"2\")", 1, &cause));
}
