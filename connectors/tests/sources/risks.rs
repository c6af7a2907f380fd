//! What a real server says of a stream's settings, and what we make of it.

use super::nats::Fixture;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, Source as Origin, StorageType,
};
use std::time::Duration;
use tollgate_connectors::{ErrorKind, Source, nats::Risk};

fn aged(seconds: u64) -> Config {
    Config {
        max_age: Duration::from_secs(seconds),
        ..Config::default()
    }
}

/// Each risk: a stream that has it, and the settings that the advice ends in, if it can be edited.
fn risky() -> Vec<(Risk, Config, Option<Config>)> {
    let usual = Config::default;
    let full = |discard| Config {
        max_bytes: 1_000_000,
        discard,
        ..usual()
    };
    let limited = |limit| Config {
        max_messages_per_subject: limit,
        ..usual()
    };
    let rollup = |allow_rollup| Config {
        allow_rollup,
        ..usual()
    };
    let memory = Config {
        storage: StorageType::Memory,
        ..usual()
    };
    let ttl = Config {
        allow_message_ttl: true,
        ..usual()
    };
    let unwritten = Config {
        persist_mode: Some(PersistenceMode::Async),
        ..usual()
    };
    vec![
        (Risk::Memory, memory, None),
        (
            Risk::DiscardOld,
            full(DiscardPolicy::Old),
            Some(full(DiscardPolicy::New)),
        ),
        (Risk::MaxAge, aged(3_600), Some(aged(7 * 86_400))),
        (Risk::MaxMsgsPerSubject, limited(1), Some(limited(-1))),
        (Risk::MsgTtl, ttl, None),
        (Risk::Rollup, rollup(true), Some(rollup(false))),
        (Risk::PersistAsync, unwritten, None),
    ]
}

#[tokio::test]
async fn each_risk_is_refused_until_it_is_mended_or_accepted() {
    let mut fixture = Fixture::start().await;
    let jetstream = fixture.jetstream().await;
    for (risk, config, mended) in risky() {
        fixture.accept.clear();
        fixture.make(config).await;
        let mut source = fixture.source().await;
        let error = source.bounds().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{risk}");
        let name = format!("accept = [\"{risk}\"] in [source]");
        assert!(error.to_string().contains(&name), "{risk}: {error}");

        fixture.accept = vec![risk];
        fixture.source().await.bounds().await.unwrap();
        fixture.publish(1, 1).await;

        if let Some(mended) = mended {
            let mended = Config {
                name: "USAGE".into(),
                subjects: vec!["usage.>".into()],
                ..mended
            };
            jetstream.update_stream(mended).await.unwrap();
            source.bounds().await.unwrap();
        }
        jetstream.delete_stream("USAGE").await.unwrap();
    }
}

#[tokio::test]
async fn a_mirror_is_refused_and_its_origin_is_named() {
    let mut fixture = Fixture::start().await;
    let jetstream = fixture.jetstream().await;
    let origin = Config {
        name: "ORIGIN".into(),
        subjects: vec!["usage.>".into()],
        ..Config::default()
    };
    jetstream.create_stream(origin).await.unwrap();
    let mirror = Config {
        name: "USAGE".into(),
        mirror: Some(Origin {
            name: "ORIGIN".into(),
            ..Origin::default()
        }),
        ..Config::default()
    };
    jetstream.create_stream(mirror).await.unwrap();
    let error = fixture
        .source()
        .await
        .bounds()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("set stream = \"ORIGIN\""), "{error}");
    fixture.accept = vec![Risk::Mirror];
    fixture.source().await.bounds().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_we_create_leaves_nothing_to_say() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 2).await;
    let mut stream = fixture.stream().await;
    let config = stream.info().await.unwrap().config.clone();
    assert_eq!(config.discard, DiscardPolicy::New);
    assert_eq!(config.storage, StorageType::File);
    assert!(config.deny_delete && config.deny_purge);
    assert!(!config.allow_rollup && !config.allow_message_ttl && !config.no_ack);
    assert!(stream.delete_message(1).await.is_err());
    assert!(stream.purge().await.is_err());
}

#[tokio::test]
async fn a_setting_that_turns_bad_later_is_found_when_the_source_is_asked_again() {
    let fixture = Fixture::start().await;
    fixture.make(Config::default()).await;
    let mut source = fixture.source().await;
    source.bounds().await.unwrap();
    let worse = Config {
        name: "USAGE".into(),
        subjects: vec!["usage.>".into()],
        max_messages: 10,
        ..Config::default()
    };
    fixture
        .jetstream()
        .await
        .update_stream(worse)
        .await
        .unwrap();
    let error = source.bounds().await.unwrap_err().to_string();
    assert!(error.contains("discard is old with max_msgs 10"), "{error}");
}

#[tokio::test]
async fn a_server_says_what_time_it_is() {
    let fixture = Fixture::start().await;
    let mut source = fixture.source().await;
    source.bounds().await.unwrap();
    let before = jiff::Timestamp::now().as_microsecond();
    let asked_us = source.bounds().await.unwrap().asked_us.unwrap();
    let after = jiff::Timestamp::now().as_microsecond();
    // The same machine's clock: not after the answer, and at most one round trip before the question.
    assert!(asked_us <= after);
    assert!(asked_us >= before - (after - before) - 2);
}
