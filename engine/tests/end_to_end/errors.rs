//! What a person can get wrong: one clear error, the right exit code, and never a panic.

use crate::world::{Cli, Ran, TOKENS, World, nats_binary};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use std::net::TcpListener;
use tollgate_connectors::nats::server::NatsServer;

/// One error on stderr that says all of these, nothing on stdout.
fn check(ran: &Ran, code: i32, says: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:#?}");
    assert_eq!(ran.stdout, "", "{ran:#?}");
    let errors = ran.stderr.lines().filter(|l| l.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{ran:#?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:#?}");
    for text in says {
        assert!(ran.stderr.contains(text), "`{text}` is not said: {ran:#?}");
    }
}

async fn run(cli: &Cli) -> Ran {
    cli.run(&["run", "--until-end"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_definition_is_named_with_file_line_and_column() {
    let world = World::new(TOKENS).await;
    let described = world.cli().succeed(&["check"]).await;
    assert!(described.contains("meter tokens") && described.ends_with("ok\n"));
    world.write(
        "definitions/broken.sql",
        "-- A meter of an event type that is not there.\n\
         CREATE METER broken WITH (window = '1 hour') AS\n\
         SELECT subject, COUNT(*) AS n FROM missing GROUP BY subject;\n",
    );
    for command in [&["check"][..], &["run"], &["query", "SELECT 1"]] {
        let ran = world.cli().run(command).await;
        check(
            &ran,
            2,
            &["definitions/broken.sql:3:36: ", "`missing`", "hint: "],
        );
    }
    world.write("definitions/broken.sql", "CREATE METRE x;\n");
    let ran = world.cli().run(&["check"]).await;
    check(
        &ran,
        2,
        &["definitions/broken.sql:1:8: ", "METRE", "hint: "],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_is_named() {
    let world = World::new(TOKENS).await;
    let missing = world.cli().run(&["run", "--config", "nowhere.toml"]).await;
    check(&missing, 2, &["nowhere.toml", "no such file", "--config"]);

    world.write("tollgate.toml", "[source]\nstraem = \"USAGE\"\n");
    let typo = world.cli().run(&["run"]).await;
    check(&typo, 2, &["tollgate.toml", "straem"]);

    world.write("tollgate.toml", "[flush]\ninterval = \"soon\"\n");
    let value = world.cli().run(&["run"]).await;
    check(
        &value,
        2,
        &["tollgate.toml", "`soon` is not a length of time"],
    );

    world.write(
        "tollgate.toml",
        "[source]\nkind = \"files\"\npath = \"none.ndjson\"\n",
    );
    world.write("none.ndjson", "");
    world.cli().run_to_end().await;
    let no_plan = world.cli().run(&["invoice", "--period", "2026-01"]).await;
    check(&no_plan, 1, &["no plan `payg`", "CREATE PLAN"]);
    let no_month = world.cli().run(&["invoice", "--period", "January"]).await;
    check(&no_month, 2, &["`January`", "2026-10"]);

    world.write("tollgate.toml", "definitions = \"elsewhere\"\n");
    let folder = world.cli().run(&["check"]).await;
    check(&folder, 2, &["elsewhere"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_read_exactly_is_refused() {
    let world = World::new(TOKENS).await;
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("nats://127.0.0.1:{port}");
    let nobody = world.cli().with("TOLLGATE_SOURCE_URL", &url);
    check(&run(&nobody).await, 1, &["could not reach NATS", &url]);
    world.write("one.ndjson", "{}\n");
    let file = world.path("one.ndjson");
    let ran = nobody.run(&["publish", file.to_str().unwrap()]).await;
    check(&ran, 1, &["could not reach NATS", &url]);

    let missing = world.cli().with("TOLLGATE_SOURCE_CREATE", "false");
    check(&run(&missing).await, 1, &["stream `USAGE`", "hint: "]);

    let jetstream = world.jetstream().await;
    let queue = Config {
        name: "QUEUE".into(),
        subjects: vec!["queue.>".into()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    jetstream.create_stream(queue).await.unwrap();
    let queue = world.cli().with("TOLLGATE_SOURCE_STREAM", "QUEUE");
    let says = ["stream `QUEUE`", "WorkQueue", "Limits", "hint: "];
    check(&run(&queue).await, 1, &says);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_or_reused_sequences_stops_the_shard() {
    let world = World::new(TOKENS).await;
    let jetstream = world.jetstream().await;
    for payload in ["one", "two"] {
        world.send(&[], payload).await;
    }
    assert_eq!(world.cli().run_to_end().await.sequence(), 2);
    let windows = "SELECT COUNT(*) FROM events";
    let kept = world.cli().query(windows).await;

    jetstream.delete_stream("USAGE").await.unwrap();
    world.send(&[], "other").await;
    let says = "the lake holds everything up to sequence 2, but the stream ends at 1";
    check(
        &run(&world.cli()).await,
        1,
        &["shard `USAGE`", says, "hint: "],
    );
    world.send(&[], "than before").await;
    world.send(&[], "and more").await;
    let says = "message 2 is not the message that was committed";
    check(
        &run(&world.cli()).await,
        1,
        &["shard `USAGE`", says, "hint: "],
    );
    let stream = jetstream.get_stream("USAGE").await.unwrap();
    stream.purge().sequence(4).await.unwrap();
    world.send(&[], "still more").await;
    stream.purge().sequence(4).await.unwrap();
    let says = "sequences 3 to 3 are gone from the stream and were never read";
    check(
        &run(&world.cli()).await,
        1,
        &["shard `USAGE`", says, "hint: "],
    );
    assert_eq!(world.cli().query(windows).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_cannot_be_used_is_named() {
    let world = World::new(TOKENS).await;
    world.write("occupied", "a file, no folder");
    let unwritable = world.cli().lake("occupied/lake");
    check(
        &run(&unwritable).await,
        1,
        &["lake file://", "occupied/lake"],
    );
    let unread = world
        .cli()
        .lake("nowhere")
        .run(&["query", "SELECT 1"])
        .await;
    check(&unread, 1, &["nowhere"]);

    // A meter that has measured nothing may be changed: this one has.
    let event = r#"{"specversion":"1.0","id":"1","source":"test","type":"llm.completion","subject":"s","time":"2026-01-05T10:00:00Z","data":{"model":"m","input_tokens":1,"output_tokens":1}}"#;
    world.send(&[], event).await;
    world.cli().run_to_end().await;
    let other = TOKENS.replace(
        "SUM(output_tokens) AS output",
        "MAX(output_tokens) AS output",
    );
    assert_ne!(other, TOKENS);
    world.write("definitions/all.sql", &other);
    let says = ["meter `tokens`: ", "hint: "];
    check(&run(&world.cli()).await, 2, &says);
    // Reading with other definitions would mix the two, so that is refused too.
    for command in [&["query", "SELECT * FROM tokens"][..], &["audit"]] {
        check(&world.cli().run(command).await, 2, &says);
    }

    world.write(
        "definitions/all.sql",
        &TOKENS.replace("BIGINT NOT NULL", "DECIMAL(18, 2) NOT NULL"),
    );
    check(&run(&world.cli()).await, 1, &["table `events`", "hint: "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_none_is_refused() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    cli.run_to_end().await;
    for (sql, says) in [
        ("SELEC 1", "SELEC"),
        ("SELECT nothing FROM tokens", "nothing"),
        ("SELECT * FROM elsewhere", "elsewhere"),
        ("CREATE TABLE t (a INT)", "CREATE is refused"),
        ("COPY events TO 'stolen.csv'", "COPY is refused"),
        ("SET datafusion.execution.batch_size = 1", "SET is refused"),
    ] {
        check(&cli.run(&["query", sql]).await, 1, &[says]);
    }
    assert!(!world.path("stolen.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_or_logs_a_secret_whatever_is_logged() {
    const SECRET: &str = "S3cret,%/";
    const IN_URL: &str = "S3cret%2C%25%2F";
    let world = World::new(TOKENS).await;
    world.write("events.ndjson", "{}\n");
    for (name, login, setting, in_url) in [
        (
            "password",
            &["--user", "alice", "--pass", SECRET][..],
            "TOLLGATE_SOURCE_PASSWORD",
            format!("alice:{IN_URL}@"),
        ),
        (
            "token",
            &["--auth", SECRET][..],
            "TOLLGATE_SOURCE_TOKEN",
            format!("{IN_URL}@"),
        ),
    ] {
        let dir = world.path(name);
        let server = NatsServer::start_with(&nats_binary(), &dir, None, login).await;
        let server = server.unwrap();
        let url = |login: &str| format!("nats://{login}127.0.0.1:{}", server.port());
        let cli = world.cli().lake(name);
        let from_url = cli.with("TOLLGATE_SOURCE_URL", &url(&in_url));
        let mut from_setting = cli
            .with("TOLLGATE_SOURCE_URL", &url(""))
            .with(setting, SECRET);
        let mut wrong = cli
            .with("TOLLGATE_SOURCE_URL", &url(""))
            .with(setting, "S3cret");
        if name == "password" {
            from_setting = from_setting.with("TOLLGATE_SOURCE_USER", "alice");
            wrong = wrong.with("TOLLGATE_SOURCE_USER", "alice");
        }
        for (cli, code) in [(from_url, 0), (from_setting, 0), (wrong, 1)] {
            for command in [
                &["publish", "events.ndjson"][..],
                &["run", "--until-end"],
                &["check"],
            ] {
                let logged = [&["--log", "trace"], command].concat();
                let ran = cli.run(&logged).await;
                let code = if command == ["check"] { 0 } else { code };
                assert_eq!(ran.code, Some(code), "{name} {command:?}");
                let shown = format!("{}{}", ran.stdout, ran.stderr);
                let line = shown.lines().find(|line| line.contains("S3cret"));
                assert_eq!(line, None, "{name} {command:?}");
            }
        }
    }
}
