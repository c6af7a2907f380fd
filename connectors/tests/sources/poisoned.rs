//! Messages that end the client which reads them.

use super::{
    LIMIT,
    nats::{Fixture, binary},
    read_until, sequences, texts,
};
use async_nats::jetstream::stream::{Config, StorageType};
use tollgate_connectors::{Anchor, ErrorKind, Message, Sequence, Source};

/// Header blocks that the client cannot read, and what is said of each.
const BLOCKS: [(&[u8], &str); 5] = [
    (b"NATS/1.0\r\nX: \xff\r\n\r\n", "not valid UTF-8 at byte 13"),
    (b"NATS/1.0\r\nno colon\r\n\r\n", "line 2 has no colon"),
    (
        b"NATS/1.0\r\nce-id: 1\r\nX: a\rb\r\n\r\n",
        "line 3 has a carriage return in its value",
    ),
    (
        b"NATS/1.0\r\nbad name: 1\r\n\r\n",
        "line 2 has a name with characters that none may have",
    ),
    (b"X: 1\r\n\r\n", "the first line is not `NATS/1.0`"),
];

/// What is said of the messages that could not be read, by sequence.
fn unread(messages: &[Message]) -> Vec<(u64, &str)> {
    let unread = |message: &'_ Message| message.unread.is_some();
    let all = messages.iter().filter(|message| unread(message));
    all.map(|message| {
        let problem = message.unread.as_ref().map_or("", |unread| &unread.problem);
        (message.sequence.0, problem)
    })
    .collect()
}

/// Every reader sees the same, and a start at any message recognises it by its anchor.
async fn check_anchors(fixture: &Fixture, messages: &[Message]) {
    let mut source = fixture.source().await;
    for message in messages {
        let anchor = source.anchor(message.sequence).await.unwrap();
        assert_eq!(anchor, Some(Anchor::of(message)), "{}", message.sequence.0);
    }
}

#[tokio::test]
async fn each_kind_is_returned_with_its_bytes_and_reading_goes_on() {
    let fixture = Fixture::start().await;
    // Makes the stream.
    fixture.source().await.bounds().await.unwrap();
    // First, several in a row, between others, last.
    let mut expected = Vec::new();
    let mut sequence = 0;
    for (block, problem) in BLOCKS {
        fixture.publish_raw(b"usage.t", block, b"{\"a\":1}").await;
        sequence += 1;
        expected.push((sequence, problem));
    }
    for (block, problem) in BLOCKS {
        fixture.publish(sequence + 1, sequence + 3).await;
        fixture.publish_raw(b"usage.t", block, b"").await;
        sequence += 4;
        expected.push((sequence, problem));
    }
    let mut source = fixture.source().await;
    let all = read_until(&mut source, sequence).await;
    assert_eq!(sequences(&all), (1..=sequence).collect::<Vec<_>>());
    assert_eq!(unread(&all), expected);
    let raw = [BLOCKS[0].0, b"{\"a\":1}"].concat();
    assert_eq!(all[0].raw(), Some(raw));
    assert_eq!(all[5].raw(), None);
    check_anchors(&fixture, &all).await;

    // A start right before, at and after each of them.
    for position in [0, 1, 4, 5, 8, 9, 10, sequence - 1] {
        let read = all.iter().find(|message| message.sequence.0 == position);
        let anchor = read.map(|message| (Sequence(position), Anchor::of(message)));
        source.seek(Sequence(position), anchor).await.unwrap();
        let again = read_until(&mut source, sequence).await;
        let rest = (position + 1..=sequence).collect::<Vec<_>>();
        assert_eq!(sequences(&again), rest, "from {position}");
    }
    // The last one was not read twice, and what comes later is read.
    fixture.publish(sequence + 1, sequence + 1).await;
    assert_eq!(
        sequences(&read_until(&mut source, sequence + 1).await),
        [sequence + 1]
    );
}

#[tokio::test]
async fn one_behind_a_long_batch_costs_none_of_the_batch() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 30_000).await;
    fixture.publish_raw(b"usage.t", BLOCKS[0].0, b"").await;
    fixture.publish(30_002, 60_000).await;
    fixture.publish_raw(b"usage.t", BLOCKS[2].0, b"").await;
    let mut source = fixture.source().await;
    let all = read_until(&mut source, 60_001).await;
    assert_eq!(sequences(&all), (1..=60_001).collect::<Vec<_>>());
    assert_eq!(unread(&all), [(30_001, BLOCKS[0].1), (60_001, BLOCKS[2].1)]);
}

#[tokio::test]
async fn a_subject_that_the_client_cannot_read_hides_no_event() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 1).await;
    fixture.publish_raw(b"usage.\xff", b"", b"2").await;
    fixture
        .publish_raw(
            "usage.a\u{2003}b".as_bytes(),
            b"NATS/1.0\r\nx: 1\r\n\r\n",
            b"3",
        )
        .await;
    fixture.publish(4, 4).await;
    let mut source = fixture.source().await;
    let all = read_until(&mut source, 4).await;
    assert_eq!(texts(&all), ["1", "2", "3", "4"]);
    assert_eq!(unread(&all), []);
    assert_eq!(all[2].headers, [("x".to_owned(), "1".to_owned())]);
    check_anchors(&fixture, &all).await;
}

#[tokio::test]
async fn a_stream_with_one_consumer_at_a_time_is_read_past_them() {
    let fixture = Fixture::start().await;
    let config = Config {
        max_consumers: 1,
        storage: StorageType::File,
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        ..Config::default()
    };
    fixture.make(config).await;
    for number in [1, 3] {
        fixture.publish(number, number).await;
        fixture.publish_raw(b"usage.t", BLOCKS[1].0, b"").await;
    }
    let mut source = fixture.source().await;
    let all = read_until(&mut source, 4).await;
    assert_eq!(unread(&all), [(2, BLOCKS[1].1), (4, BLOCKS[1].1)]);
    fixture.publish(5, 5).await;
    assert_eq!(sequences(&read_until(&mut source, 5).await), [5]);

    // Beside it there is no room for another, which does not change by itself.
    let mut second = fixture.source().await;
    let error = second.read(LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(
        text.starts_with("stream `USAGE`: creating a consumer failed: maximum consumers limit reached")
            && text.ends_with(
                "\n  hint: raise max_consumers of the stream and the account; a consumer of a process that was killed \
                 goes after 60 s"
            ),
        "{text}"
    );
    // The first takes its consumer away.
    drop(source);
    let mut stream = fixture.stream().await;
    while stream.info().await.unwrap().state.consumer_count > 0 {}
    assert_eq!(
        sequences(&read_until(&mut second, 5).await),
        [1, 2, 3, 4, 5]
    );
}

/// What a server takes by default, header block and payload together.
const PAYLOAD_MAX: usize = 1 << 20;
/// A stream stores no longer header block.
const BLOCK_MAX: usize = 65_535;

/// Publishes good and bad messages that are as large as the server takes, and reads them.
async fn check_large(fixture: &Fixture) {
    fixture.source().await.bounds().await.unwrap();
    let bad = BLOCKS[0].0;
    // The largest header blocks: one long value, and many lines of which the last is bad.
    let end = b"\r\nno colon\r\n\r\n";
    let value = vec![b'a'; BLOCK_MAX - b"NATS/1.0\r\nX: ".len() - end.len()];
    let long = [b"NATS/1.0\r\nX: ", &value[..], end].concat();
    let lines: String = (1_000..7_000).map(|n| format!("X{n}: 1\r\n")).collect();
    let many = |last: &str| format!("NATS/1.0\r\n{lines}{last}\r\n\r\n").into_bytes();
    let payload = vec![b'p'; PAYLOAD_MAX - bad.len()];
    let messages: [(&[u8], &[u8], Option<&str>); 7] = [
        (&long, b"", Some("line 3 has no colon")),
        (bad, &payload, Some(BLOCKS[0].1)),
        (b"", &payload, None),
        (
            &many("bad name: 1"),
            b"{}",
            Some("line 6002 has a name with characters that none may have"),
        ),
        (&many("last: 1"), b"{}", None),
        (bad, b"", Some(BLOCKS[0].1)),
        (b"", b"{}", None),
    ];
    for (block, payload, _) in messages {
        fixture.publish_raw(b"usage.t", block, payload).await;
    }
    assert_eq!(fixture.stream().await.cached_info().state.last_sequence, 7);
    let mut source = fixture.source().await;
    let all = read_until(&mut source, 7).await;
    assert_eq!(sequences(&all), (1..=7).collect::<Vec<_>>());
    for (message, (block, payload, problem)) in all.iter().zip(messages) {
        let sequence = message.sequence.0;
        let unread = message
            .unread
            .as_ref()
            .map(|unread| unread.problem.as_str());
        assert_eq!(unread, problem, "{sequence}");
        assert!(message.payload == payload, "{sequence}");
        if problem.is_some() {
            assert!(
                message.raw() == Some([block, payload].concat()),
                "{sequence}"
            );
        }
    }
    assert_eq!(all[4].headers.len(), 6_001);
    check_anchors(fixture, &all).await;
}

#[tokio::test]
async fn one_as_large_as_the_server_takes_is_returned_whole() {
    check_large(&Fixture::start().await).await;
}

#[tokio::test]
async fn one_as_large_as_a_stream_stores_is_returned_whole() {
    // The largest record of a stream on disk is 32 MiB, which is also what a pull asks for.
    let config = "max_payload: 67108864, max_pending: 268435456";
    let fixture = Fixture::start_with(&binary(), config).await;
    fixture.source().await.bounds().await.unwrap();
    let payload = vec![b'p'; (32 << 20) - 100];
    fixture.publish(1, 1).await;
    fixture.publish_raw(b"usage.t", b"", &payload).await;
    fixture.publish(3, 3).await;
    fixture.publish_raw(b"usage.t", BLOCKS[0].0, &payload).await;
    fixture.publish(5, 5).await;
    assert_eq!(fixture.stream().await.cached_info().state.last_sequence, 5);
    let mut source = fixture.source().await;
    let all = read_until(&mut source, 5).await;
    assert_eq!(sequences(&all), [1, 2, 3, 4, 5]);
    assert!(all[1].payload == payload && all[3].payload == payload);
    assert_eq!(unread(&all), [(4, BLOCKS[0].1)]);
}

#[tokio::test]
async fn the_oldest_server_that_is_packaged_gives_them_out_as_well() {
    let old = binary().with_file_name("nats-server-2.9");
    if !old.is_file() {
        println!(
            "skipped: {} is not there; make tools brings it on Debian 12",
            old.display()
        );
        return;
    }
    let fixture = Fixture::start_with(&old, "").await;
    check_large(&fixture).await;
    let mut sequence = 7;
    let mut expected = Vec::new();
    for (block, problem) in BLOCKS {
        fixture.publish(sequence + 1, sequence + 1).await;
        fixture.publish_raw(b"usage.t", block, b"{}").await;
        sequence += 2;
        expected.push((sequence, problem));
    }
    let mut source = fixture.source().await;
    source.seek(Sequence(7), None).await.unwrap();
    let all = read_until(&mut source, sequence).await;
    assert_eq!(unread(&all), expected);
}
