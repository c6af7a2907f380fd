use super::{LIMIT, hole, read_until, sequences, texts};
use async_nats::jetstream::{
    self,
    stream::{Config, RetentionPolicy},
};
use futures::{FutureExt, StreamExt};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tollgate_connectors::{
    Anchor, Error, ErrorKind, ReadLimit, Sequence, Source,
    nats::{NatsOptions, NatsSource, Publisher, Risk, connect, server::NatsServer},
};

const NO_WAIT: ReadLimit = ReadLimit {
    bytes: 1 << 20,
    wait_ms: 0,
};

/// A server of its own for each test, so that they may break it.
pub(super) struct Fixture {
    server: Option<NatsServer>,
    dir: TempDir,
    /// What its readers and publishers accept of the stream.
    pub(super) accept: Vec<Risk>,
}

pub(super) fn binary() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats-server");
    let found = NatsServer::find().or_else(|| ours.is_file().then_some(ours));
    found.expect(
        "these tests need a nats-server: run .ci/nats-server, or name one in TOLLGATE_NATS_SERVER",
    )
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::start_with(&binary(), "").await
    }

    /// Some other server, with settings of its own.
    pub(super) async fn start_with(binary: &Path, config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("server.conf");
        std::fs::write(&file, config).unwrap();
        let arguments = ["-c", file.to_str().unwrap()];
        let server = NatsServer::start_with(binary, dir.path(), None, &arguments).await;
        Fixture {
            server: Some(server.unwrap()),
            dir,
            accept: Vec::new(),
        }
    }

    pub(super) fn options(&self) -> NatsOptions {
        let mut options = NatsOptions::new(self.server.as_ref().unwrap().url(), "USAGE");
        options.subjects = vec!["usage.>".into()];
        options.create = true;
        options.accept.clone_from(&self.accept);
        options
    }

    /// Publishes as a client that checks nothing: a header block and a subject as they are.
    pub(super) async fn publish_raw(&self, subject: &[u8], block: &[u8], payload: &[u8]) {
        let port = self.server.as_ref().unwrap().port();
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut socket = BufReader::new(socket);
        let sizes = match block.is_empty() {
            true => format!("{}\r\n", payload.len()),
            false => format!("{} {}\r\n", block.len(), block.len() + payload.len()),
        };
        let command: &[u8] = if block.is_empty() { b"PUB " } else { b"HPUB " };
        let connect = br#"CONNECT {"verbose":false,"headers":true}"#;
        let parts: [&[u8]; 9] = [
            connect,
            b"\r\n",
            command,
            subject,
            b" ",
            sizes.as_bytes(),
            block,
            payload,
            b"\r\nPING\r\n",
        ];
        socket.write_all(&parts.concat()).await.unwrap();
        let mut line = String::new();
        while line != "PONG\r\n" {
            line.clear();
            assert_ne!(socket.read_line(&mut line).await.unwrap(), 0, "closed");
            assert!(!line.starts_with("-ERR"), "{line}");
        }
    }

    pub(super) async fn source(&self) -> NatsSource {
        NatsSource::connect(self.options()).await.unwrap()
    }

    pub(super) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(connect(&self.options()).await.unwrap())
    }

    /// Makes the stream otherwise than we would.
    pub(super) async fn make(&self, config: Config) {
        let config = Config {
            name: "USAGE".into(),
            subjects: vec!["usage.>".into()],
            ..config
        };
        self.jetstream().await.create_stream(config).await.unwrap();
    }

    pub(super) async fn stream(&self) -> jetstream::stream::Stream {
        self.jetstream().await.get_stream("USAGE").await.unwrap()
    }

    /// Publishes `from..=to`, each message's payload being its number.
    pub(super) async fn publish(&self, from: u64, to: u64) {
        let mut publisher = Publisher::connect(self.options()).await.unwrap();
        for number in from..=to {
            let payload = number.to_string().into();
            publisher.publish("usage.test", &[], payload).await.unwrap();
        }
        let counts = publisher.finish().await.unwrap();
        assert_eq!((counts.acknowledged, counts.duplicates), (to - from + 1, 0));
    }

    /// Stops the server, and starts it again on the same port and store.
    async fn restart(&mut self, gracefully: bool) {
        let port = self.stop(gracefully).await;
        self.start_again(port).await;
    }

    async fn stop(&mut self, gracefully: bool) -> u16 {
        let server = self.server.take().unwrap();
        let port = server.port();
        let stopped = if gracefully {
            server.stop().await
        } else {
            server.kill().await
        };
        stopped.unwrap();
        port
    }

    async fn start_again(&mut self, port: u16) {
        let server = NatsServer::start(&binary(), self.dir.path(), Some(port)).await;
        self.server = Some(server.unwrap());
    }
}

/// Reads until `last`, passing over errors that say "later".
async fn read_through(source: &mut NatsSource, last: u64) -> Vec<u64> {
    let mut all = Vec::new();
    while all.last() != Some(&last) {
        match source.read(LIMIT).await {
            Ok(messages) => all.extend(sequences(&messages)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    all
}

async fn read_error(source: &mut NatsSource) -> Error {
    source.read(LIMIT).await.expect_err("this must not be read")
}

#[tokio::test]
async fn every_message_comes_in_order_from_the_start_and_from_the_middle() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 10).await;
    let mut source = fixture.source().await;
    assert_eq!(source.shard(), "USAGE");
    let bounds = source.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (Sequence(1), Sequence(10)));

    let all = read_until(&mut source, 10).await;
    assert_eq!(sequences(&all), (1..=10).collect::<Vec<_>>());
    assert_eq!(
        texts(&all),
        (1..=10).map(|n| n.to_string()).collect::<Vec<_>>()
    );

    source.seek(Sequence(6), None).await.unwrap();
    assert_eq!(sequences(&read_until(&mut source, 10).await), [7, 8, 9, 10]);
    source.seek(Sequence(0), None).await.unwrap();
    assert_eq!(sequences(&read_until(&mut source, 10).await).len(), 10);
}

#[tokio::test]
async fn an_empty_stream_has_bounds_and_no_messages() {
    let fixture = Fixture::start().await;
    let mut source = fixture.source().await;
    let bounds = source.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (Sequence(1), Sequence(0)));
    assert!(source.read(NO_WAIT).await.unwrap().is_empty());
    fixture.publish(1, 1).await;
    assert_eq!(sequences(&read_until(&mut source, 1).await), [1]);
}

#[tokio::test]
async fn two_readers_get_the_same() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 50).await;
    let (mut one, mut other) = (fixture.source().await, fixture.source().await);
    let (first, second) = (
        read_until(&mut one, 50).await,
        read_until(&mut other, 50).await,
    );
    assert_eq!(sequences(&first), (1..=50).collect::<Vec<_>>());
    let anchors = |messages: &[_]| messages.iter().map(Anchor::of).collect::<Vec<_>>();
    assert_eq!(anchors(&first), anchors(&second));
}

#[tokio::test]
async fn a_hundred_thousand_messages_are_contiguous() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 100_000).await;
    let mut source = fixture.source().await;
    let all = read_until(&mut source, 100_000).await;
    assert_eq!(sequences(&all), (1..=100_000).collect::<Vec<_>>());
    assert!(source.holes().is_empty());
}

#[tokio::test]
async fn a_read_stops_at_its_limit_of_bytes() {
    let fixture = Fixture::start().await;
    fixture.publish(10, 29).await;
    let mut source = fixture.source().await;
    let limit = ReadLimit { bytes: 5, ..LIMIT };
    // Two bytes each: the third passes five. Fewer is allowed, as nothing waits for more.
    let mut all = Vec::new();
    while all.len() < 20 {
        let messages = source.read(limit).await.unwrap();
        assert!((1..=3).contains(&messages.len()), "{}", messages.len());
        all.extend(sequences(&messages));
    }
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    let fixture = Fixture::start().await;
    let mut source = fixture.source().await;
    source.bounds().await.unwrap();
    fixture.publish(1, 2_000).await;
    let mut all = Vec::new();
    while all.len() < 2_000 {
        // Poll once and drop, so that every kind of wait is cut short at times.
        for _ in 0..3 {
            if let Some(messages) = source.read(LIMIT).now_or_never() {
                all.extend(sequences(&messages.unwrap()));
            }
        }
        let small = ReadLimit {
            bytes: 50,
            wait_ms: 100,
        };
        all.extend(sequences(&source.read(small).await.unwrap()));
    }
    assert_eq!(all, (1..=2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn deleted_messages_in_the_middle_are_an_explained_hole() {
    let fixture = Fixture::start().await;
    fixture.make(Config::default()).await;
    fixture.publish(1, 10).await;
    let stream = fixture.stream().await;
    for sequence in [4, 5, 8] {
        stream.delete_message(sequence).await.unwrap();
    }
    let mut source = fixture.source().await;
    let (mut all, mut holes) = (Vec::new(), Vec::new());
    while all.last() != Some(&10) {
        all.extend(sequences(&source.read(LIMIT).await.unwrap()));
        holes.extend(source.holes());
    }
    assert_eq!(all, [1, 2, 3, 6, 7, 9, 10]);
    assert_eq!(holes, [hole(4, 5), hole(8, 8)]);
    assert!(source.holes().is_empty());
}

#[tokio::test]
async fn a_deleted_tail_is_explained_so_that_the_end_is_reached() {
    let fixture = Fixture::start().await;
    fixture.make(Config::default()).await;
    fixture.publish(1, 5).await;
    let stream = fixture.stream().await;
    for sequence in [4, 5] {
        stream.delete_message(sequence).await.unwrap();
    }
    let mut source = fixture.source().await;
    assert_eq!(source.bounds().await.unwrap().last, Sequence(5));
    assert_eq!(sequences(&read_until(&mut source, 3).await), [1, 2, 3]);
    let limit = ReadLimit {
        wait_ms: 300,
        ..LIMIT
    };
    let messages = source.read(limit).await.unwrap();
    assert!(messages.is_empty());
    assert_eq!(source.holes(), [hole(4, 5)]);
    fixture.publish(6, 6).await;
    assert_eq!(sequences(&read_until(&mut source, 6).await), [6]);
}

#[tokio::test]
async fn a_purge_before_the_position_was_reached_is_a_gap() {
    let fixture = Fixture::start().await;
    fixture.make(Config::default()).await;
    fixture.publish(1, 10).await;
    fixture.stream().await.purge().sequence(6).await.unwrap();
    let mut source = fixture.source().await;
    let bounds = source.bounds().await.unwrap();
    assert_eq!((bounds.first, bounds.last), (Sequence(6), Sequence(10)));
    let error = read_error(&mut source).await;
    let Error::Gap { expected, got, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*expected, *got), (Sequence(1), Sequence(6)));
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    source.seek(Sequence(5), None).await.unwrap();
    assert_eq!(
        sequences(&read_until(&mut source, 10).await),
        [6, 7, 8, 9, 10]
    );
}

#[tokio::test]
async fn a_purge_while_reading_is_a_gap_and_nothing_after_it_is_returned() {
    let fixture = Fixture::start().await;
    fixture.make(Config::default()).await;
    fixture.publish(1, 3).await;
    let mut source = fixture.source().await;
    assert_eq!(sequences(&read_until(&mut source, 3).await), [1, 2, 3]);
    // It has not subscribed yet when 3 and 4 are purged, so it must not begin at 5.
    let mut paused = fixture.source().await;
    paused.seek(Sequence(2), None).await.unwrap();
    fixture.publish(4, 4).await;
    fixture.stream().await.purge().await.unwrap();
    fixture.publish(5, 5).await;
    let error = read_error(&mut paused).await;
    assert!(matches!(error, Error::Gap { .. }), "{error}");
}

#[tokio::test]
async fn a_limit_that_overran_the_reader_is_a_gap() {
    let mut fixture = Fixture::start().await;
    fixture.accept = vec![Risk::DiscardOld];
    fixture
        .make(Config {
            max_messages: 5,
            ..Config::default()
        })
        .await;
    fixture.publish(1, 8).await;
    let mut source = fixture.source().await;
    let error = read_error(&mut source).await;
    assert!(
        matches!(
            error,
            Error::Gap {
                expected: Sequence(1),
                got: Sequence(4),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_work_queue_stream_is_refused_with_its_setting() {
    let fixture = Fixture::start().await;
    fixture
        .make(Config {
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        })
        .await;
    let error = fixture.source().await.bounds().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("retention is WorkQueue"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_stream_is_refused_unless_it_may_be_created() {
    let fixture = Fixture::start().await;
    let mut options = fixture.options();
    options.create = false;
    let mut source = NatsSource::connect(options.clone()).await.unwrap();
    let error = source.bounds().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains("nats stream add USAGE"),
        "{error}"
    );

    fixture.source().await.bounds().await.unwrap();
    let mut stream = fixture.stream().await;
    let config = &stream.info().await.unwrap().config;
    assert_eq!(config.subjects, ["usage.>"]);
    assert_eq!(config.retention, RetentionPolicy::Limits);
    assert!(source.bounds().await.is_ok());
}

#[tokio::test]
async fn an_unreachable_server_is_named_without_its_password() {
    let fixture = Fixture::start().await;
    let port = fixture.server.as_ref().unwrap().port();
    drop(fixture);
    let options = NatsOptions::new(format!("nats://me:secret@127.0.0.1:{port}"), "USAGE");
    let error = NatsSource::connect(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        error.to_string(),
        format!("could not reach NATS at nats://127.0.0.1:{port}")
    );
}

#[tokio::test]
async fn reading_resumes_when_the_consumer_was_deleted() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 5).await;
    let mut source = fixture.source().await;
    assert_eq!(sequences(&read_until(&mut source, 5).await).len(), 5);
    let stream = fixture.stream().await;
    let names: Vec<_> = stream
        .consumer_names()
        .map(|name| name.unwrap())
        .collect()
        .await;
    assert_eq!(names.len(), 1);
    stream.delete_consumer(&names[0]).await.unwrap();
    fixture.publish(6, 9).await;
    assert_eq!(sequences(&read_until(&mut source, 9).await), [6, 7, 8, 9]);
}

#[tokio::test]
async fn reading_resumes_when_the_server_was_stopped_or_killed() {
    let mut fixture = Fixture::start().await;
    let mut source = fixture.source().await;
    let mut all = Vec::new();
    for (from, gracefully) in [(1, true), (2_001, false)] {
        fixture.publish(from, from + 999).await;
        let small = ReadLimit {
            bytes: 400,
            ..LIMIT
        };
        all.extend(sequences(&source.read(small).await.unwrap()));
        fixture.restart(gracefully).await;
        fixture.publish(from + 1_000, from + 1_999).await;
        all.extend(read_through(&mut source, from + 1_999).await);
    }
    assert_eq!(all, (1..=4_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_is_down_is_an_error_within_the_wait_and_the_same_source_goes_on_later() {
    let mut fixture = Fixture::start().await;
    fixture.publish(1, 2).await;
    let mut source = fixture.source().await;
    assert_eq!(sequences(&read_until(&mut source, 2).await), [1, 2]);
    let port = fixture.stop(true).await;
    let limit = ReadLimit {
        wait_ms: 200,
        ..LIMIT
    };
    let error = loop {
        if let Err(error) = source.read(limit).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    fixture.start_again(port).await;
    fixture.publish(3, 4).await;
    assert_eq!(read_through(&mut source, 4).await, [3, 4]);
}

#[tokio::test]
async fn a_stream_that_was_made_anew_while_reading_is_not_read_on() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 5).await;
    let mut source = fixture.source().await;
    read_until(&mut source, 5).await;
    fixture
        .jetstream()
        .await
        .delete_stream("USAGE")
        .await
        .unwrap();
    // As many messages and more, under the same sequences.
    fixture.publish(101, 107).await;
    let error = read_error(&mut source).await;
    assert!(
        matches!(
            error,
            Error::Rewound {
                sequence: Sequence(5),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_stream_that_ends_before_what_was_read_is_noticed_by_whoever_asks_for_its_end() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 5).await;
    let mut source = fixture.source().await;
    read_until(&mut source, 5).await;
    fixture
        .jetstream()
        .await
        .delete_stream("USAGE")
        .await
        .unwrap();
    fixture.publish(1, 3).await;
    let error = source.bounds().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Rewound {
                sequence: Sequence(5),
                ..
            }
        ),
        "{error}"
    );
    // A reader that starts over reads what is there.
    source.seek(Sequence(0), None).await.unwrap();
    assert_eq!(source.bounds().await.unwrap().last, Sequence(3));
}

#[tokio::test]
async fn a_stream_that_changed_before_the_first_read_is_not_read_on() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 5).await;
    let mut source = fixture.source().await;
    let read = source.anchor(Sequence(5)).await.unwrap().unwrap();
    let jetstream = fixture.jetstream().await;
    jetstream.delete_stream("USAGE").await.unwrap();
    // Other messages, and more of them.
    fixture.publish(11, 20).await;
    let position = Sequence(5);
    source.seek(position, Some((position, read))).await.unwrap();
    let error = source.read(LIMIT).await.unwrap_err();
    assert!(
        matches!(error, Error::Rewound { sequence, .. } if sequence == position),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_that_lost_its_last_messages_is_not_read_on() {
    let mut fixture = Fixture::start().await;
    fixture.publish(1, 5).await;
    let mut source = fixture.source().await;
    read_until(&mut source, 5).await;
    fixture
        .jetstream()
        .await
        .delete_stream("USAGE")
        .await
        .unwrap();
    fixture.publish(1, 3).await;
    fixture.restart(true).await;
    let error = loop {
        match source.read(LIMIT).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            other => break other.expect_err("the stream ends before what was read"),
        }
    };
    assert!(
        matches!(
            error,
            Error::Rewound {
                sequence: Sequence(5),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn the_anchor_of_a_stored_message_equals_that_of_the_message_read() {
    let fixture = Fixture::start().await;
    fixture.make(Config::default()).await;
    fixture.publish(1, 20).await;
    let mut source = fixture.source().await;
    for message in read_until(&mut source, 20).await {
        let stored = source.anchor(message.sequence).await.unwrap();
        assert_eq!(stored, Some(Anchor::of(&message)));
    }
    assert_eq!(source.anchor(Sequence(0)).await.unwrap(), None);
    assert_eq!(source.anchor(Sequence(21)).await.unwrap(), None);
    fixture.stream().await.delete_message(7).await.unwrap();
    assert_eq!(source.anchor(Sequence(7)).await.unwrap(), None);
}

#[tokio::test]
async fn headers_pass_through_by_name() {
    let fixture = Fixture::start().await;
    let mut publisher = Publisher::connect(fixture.options()).await.unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let given = [
        header("ce-type", "llm.completion"),
        header("Ce-Id", "a%20b"),
        header("Nats-Msg-Id", "mine"),
        header("x", "1"),
        header("x", "2"),
    ];
    publisher
        .publish("usage.a", &given, "{}".into())
        .await
        .unwrap();
    publisher
        .publish("usage.a", &given, "{}".into())
        .await
        .unwrap();
    let counts = publisher.finish().await.unwrap();
    assert_eq!((counts.acknowledged, counts.duplicates), (2, 1));
    let mut plain = Publisher::connect(fixture.options())
        .await
        .unwrap()
        .without_ids();
    plain.publish("usage.a", &[], "bare".into()).await.unwrap();
    plain.finish().await.unwrap();

    let mut source = fixture.source().await;
    let all = read_until(&mut source, 2).await;
    let sorted = [
        header("Ce-Id", "a%20b"),
        header("Nats-Msg-Id", "mine"),
        header("ce-type", "llm.completion"),
        header("x", "1"),
        header("x", "2"),
    ];
    assert_eq!(all[0].headers, sorted);
    assert!(all[1].headers.is_empty());
}

#[tokio::test]
async fn an_acknowledgement_of_another_stream_is_none() {
    let fixture = Fixture::start().await;
    let mut publisher = Publisher::connect(fixture.options()).await.unwrap();
    publisher.publish("usage.a", &[], "1".into()).await.unwrap();
    publisher.flush().await.unwrap();
    // The subject goes to another stream after it was looked at.
    let mut config = fixture.stream().await.cached_info().config.clone();
    config.subjects = vec!["other.>".into()];
    let jetstream = fixture.jetstream().await;
    jetstream.update_stream(&config).await.unwrap();
    let other = Config {
        name: "OTHER".into(),
        subjects: vec!["usage.>".into()],
        ..Config::default()
    };
    jetstream.create_stream(other).await.unwrap();
    publisher.publish("usage.a", &[], "2".into()).await.unwrap();
    let error = publisher.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.to_string(),
        "message 2 was not published: stream `USAGE`: the subject `usage.a` belongs to the stream `OTHER`\n  hint: set \
         source.subjects to those of `USAGE`, or source.stream to `OTHER`"
    );
    assert_eq!(publisher.counts().acknowledged, 1);
}

#[tokio::test]
async fn publishing_where_no_stream_listens_says_so() {
    let fixture = Fixture::start().await;
    let mut publisher = Publisher::connect(fixture.options()).await.unwrap();
    publisher
        .publish("elsewhere", &[], "x".into())
        .await
        .unwrap();
    let error = publisher.finish().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .to_string()
            .contains("no stream takes the subject `elsewhere`"),
        "{error}"
    );
}

#[tokio::test]
async fn publishing_goes_on_when_the_server_comes_back() {
    let mut fixture = Fixture::start().await;
    let mut options = fixture.options();
    options.timeout = Duration::from_secs(2);
    let mut publisher = Publisher::connect(options).await.unwrap();
    for number in 1..=500 {
        publisher
            .publish("usage.a", &[], number.to_string().into())
            .await
            .unwrap();
    }
    fixture.restart(false).await;
    for number in 501..=1_000 {
        publisher
            .publish("usage.a", &[], number.to_string().into())
            .await
            .unwrap();
    }
    let counts = publisher.finish().await.unwrap();
    assert_eq!(counts.acknowledged, 1_000);
    let mut source = fixture.source().await;
    let last = source.bounds().await.unwrap().last.0;
    let mut payloads = texts(&read_until(&mut source, last).await);
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len(), 1_000);
}

#[tokio::test]
async fn a_missing_server_binary_is_named_with_a_way_out() {
    let dir = TempDir::new().unwrap();
    let error = NatsServer::start(Path::new("/nowhere/nats-server"), dir.path(), None).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .to_string()
            .starts_with("/nowhere/nats-server: no nats-server"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_the_end_of_its_log() {
    let fixture = Fixture::start().await;
    let port = fixture.server.as_ref().unwrap().port();
    let dir = TempDir::new().unwrap();
    let error = NatsServer::start(&binary(), dir.path(), Some(port))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("address already in use"),
        "{error}"
    );
}

/// Not a check but a measurement: `cargo test --release -- --ignored --nocapture reads_per_second`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn reads_per_second() {
    let fixture = Fixture::start().await;
    let payload = bytes::Bytes::from("x".repeat(260));
    let mut publisher = Publisher::connect(fixture.options())
        .await
        .unwrap()
        .without_ids();
    let count = 1_000_000;
    let started = std::time::Instant::now();
    for _ in 0..count {
        publisher
            .publish("usage.a", &[], payload.clone())
            .await
            .unwrap();
    }
    publisher.finish().await.unwrap();
    println!("published {count} in {:?}", started.elapsed());
    let mut source = fixture.source().await;
    let limit = ReadLimit {
        bytes: 4 << 20,
        ..LIMIT
    };
    let (started, mut read, mut reads) = (std::time::Instant::now(), 0, 0);
    while read < count {
        read += source.read(limit).await.unwrap().len();
        reads += 1;
    }
    println!("read {read} in {:?}, {reads} reads", started.elapsed());
    println!("bare read {count} in {:?}", bare(&fixture, count).await);
}

/// The same with nothing but the client, for comparison.
async fn bare(fixture: &Fixture, count: usize) -> Duration {
    use async_nats::jetstream::consumer::{AckPolicy, pull};
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = fixture
        .stream()
        .await
        .create_consumer(config)
        .await
        .unwrap();
    let builder = consumer.stream().max_messages_per_batch(10_000);
    let mut messages = builder.messages().await.unwrap();
    let started = std::time::Instant::now();
    for _ in 0..count {
        messages.next().await.unwrap().unwrap();
    }
    started.elapsed()
}
