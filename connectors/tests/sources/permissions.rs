//! Users who lack a permission. The server never answers what it denies, so with an hour for each answer these
//! tests end only when the denial is heard.

use super::{LIMIT, nats::binary, sequences};
use std::time::Duration;
use tempfile::TempDir;
use tollgate_connectors::{
    Error, ErrorKind, Message, Result, Sequence, Source,
    nats::{NatsOptions, NatsSource, Publisher, server::NatsServer},
};

const FOR_READING: [&str; 4] = [
    "$JS.API.STREAM.INFO.USAGE",
    "$JS.API.STREAM.MSG.GET.USAGE",
    "$JS.API.CONSUMER.CREATE.USAGE.>",
    "$JS.API.CONSUMER.MSG.NEXT.USAGE.>",
];

/// One user for each permission that is taken away from all there are, and `admin`, who has all.
struct Guarded {
    server: NatsServer,
    _dir: TempDir,
}

impl Guarded {
    /// Users by name, and what each is denied.
    async fn start(users: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let user = |(name, denied): &(&str, &str)| {
            format!("{{ user: {name}, password: p, permissions {{ {denied} }} }}")
        };
        let users: Vec<String> = users.iter().map(user).collect();
        let config = format!(
            "authorization {{ users = [ {{ user: admin, password: p }}, {} ] }}",
            users.join(", ")
        );
        let file = dir.path().join("users.conf");
        std::fs::write(&file, config).unwrap();
        let arguments = ["-c", file.to_str().unwrap()];
        let server = NatsServer::start_with(&binary(), dir.path(), None, &arguments).await;
        Guarded {
            server: server.unwrap(),
            _dir: dir,
        }
    }

    fn options(&self, user: &str) -> NatsOptions {
        let url = format!("nats://{user}:p@127.0.0.1:{}", self.server.port());
        let mut options = NatsOptions::new(url, "USAGE");
        options.subjects = vec!["usage.>".into()];
        options.timeout = Duration::from_secs(3_600);
        options
    }

    /// Makes the stream with three messages.
    async fn fill(&self) {
        let mut options = self.options("admin");
        options.create = true;
        let mut publisher = Publisher::connect(options).await.unwrap();
        for number in 1..=3 {
            let payload = number.to_string().into();
            publisher.publish("usage.a", &[], payload).await.unwrap();
        }
        publisher.finish().await.unwrap();
    }
}

/// Reads as a shard does: from the start, then from the last message again.
async fn read(options: NatsOptions) -> Result<Vec<Message>> {
    let mut source = NatsSource::connect(options).await?;
    let bounds = source.bounds().await?;
    source.seek(Sequence(0), None).await?;
    let mut all = Vec::new();
    while all.len() < 3 {
        all.extend(source.read(LIMIT).await?);
    }
    source.anchor(bounds.last).await?;
    Ok(all)
}

/// An error that says once for all what to permit.
fn check(error: &Error, denied: &str, permit: &str) {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let text = error.to_string();
    let begins = format!("stream `USAGE`: the server does not permit us to {denied}");
    let ends = format!(
        "\n  hint: permit this user to {permit}; docs/configuration.md lists what a user needs"
    );
    assert!(text.starts_with(&begins) && text.ends_with(&ends), "{text}");
}

#[tokio::test]
async fn reading_ends_with_the_permission_that_is_missing() {
    let denials: Vec<(String, String)> = FOR_READING
        .iter()
        .enumerate()
        .map(|(n, subject)| {
            (
                format!("u{n}"),
                format!("publish {{ deny: \"{subject}\" }}"),
            )
        })
        .collect();
    let mut users: Vec<(&str, &str)> = denials
        .iter()
        .map(|(user, denied)| (user.as_str(), denied.as_str()))
        .collect();
    users.push(("deaf", "subscribe { deny: \"_INBOX.>\" }"));
    let guarded = Guarded::start(&users).await;
    guarded.fill().await;
    assert_eq!(
        sequences(&read(guarded.options("admin")).await.unwrap()),
        [1, 2, 3]
    );
    for (subject, (user, _)) in FOR_READING.iter().zip(&denials) {
        let error = read(guarded.options(user)).await.unwrap_err();
        let known = subject.strip_suffix('>').unwrap_or(subject);
        check(
            &error,
            &format!("publish to `{known}"),
            &format!("publish to `{subject}`"),
        );
    }
    let error = read(guarded.options("deaf")).await.unwrap_err();
    check(&error, "subscribe to `_INBOX.", "subscribe to `_INBOX.>`");
}

#[tokio::test]
async fn what_the_documentation_lists_is_enough() {
    let reader = format!(
        "publish {{ allow: [ {} ] }}, subscribe {{ allow: \"_INBOX.>\" }}",
        FOR_READING
            .map(|subject| format!("\"{subject}\""))
            .join(", ")
    );
    let publisher = "publish { allow: [ \"$JS.API.STREAM.INFO.USAGE\", \"usage.>\" ] }, \
                     subscribe { allow: \"_INBOX.>\" }";
    let guarded = Guarded::start(&[("reader", &reader), ("publisher", publisher)]).await;
    guarded.fill().await;
    let all = read(guarded.options("reader")).await.unwrap();
    assert_eq!(sequences(&all), [1, 2, 3]);
    let mut publisher = Publisher::connect(guarded.options("publisher"))
        .await
        .unwrap();
    publisher.publish("usage.a", &[], "4".into()).await.unwrap();
    assert_eq!(publisher.finish().await.unwrap().acknowledged, 1);
}

#[tokio::test]
async fn a_consumer_that_must_not_be_deleted_holds_up_nothing() {
    let guarded =
        Guarded::start(&[("keeper", "publish { deny: \"$JS.API.CONSUMER.DELETE.>\" }")]).await;
    guarded.fill().await;
    let mut source = NatsSource::connect(guarded.options("keeper"))
        .await
        .unwrap();
    // Each consumer is made after the one before would have been deleted.
    for _ in 0..3 {
        source.seek(Sequence(0), None).await.unwrap();
        let mut all = Vec::new();
        while all.len() < 3 {
            all.extend(source.read(LIMIT).await.unwrap());
        }
    }
}

#[tokio::test]
async fn publishing_ends_with_the_subject_that_is_denied_and_says_what_was_stored() {
    let guarded = Guarded::start(&[
        ("half", "publish { deny: \"usage.b\" }"),
        ("deaf", "subscribe { deny: \"_INBOX.>\" }"),
        ("blind", "publish { deny: \"$JS.API.STREAM.INFO.USAGE\" }"),
    ])
    .await;
    guarded.fill().await;
    let mut publisher = Publisher::connect(guarded.options("half")).await.unwrap();
    publisher.publish("usage.a", &[], "4".into()).await.unwrap();
    let denied = publisher.publish("usage.b", &[], "5".into()).await;
    let Err(Error::Unpublished { number, cause }) = denied else {
        panic!("{denied:?}");
    };
    assert_eq!(number, 2);
    check(&cause, "publish to `usage.b`", "publish to `usage.b`");
    assert!(publisher.settle().await.is_empty());
    assert_eq!(publisher.counts().acknowledged, 1);
    for (user, denied, permit) in [
        ("deaf", "subscribe to `_INBOX.", "subscribe to `_INBOX.>`"),
        (
            "blind",
            "publish to `$JS.API.STREAM.INFO.USAGE`",
            "publish to `$JS.API.STREAM.INFO.USAGE`",
        ),
    ] {
        let error = Publisher::connect(guarded.options(user)).await.unwrap_err();
        check(&error, denied, permit);
    }
}

#[tokio::test]
async fn a_stream_is_not_made_where_it_cannot_be_seen_that_it_is_the_only_one() {
    let guarded = Guarded::start(&[
        ("reader", "publish { allow: \"$JS.API.>\" }"),
        ("user", "publish { deny: \"$JS.API.STREAM.CREATE.>\" }"),
    ])
    .await;
    for (user, subject) in [
        ("reader", "usage.tollgate-asks"),
        ("user", "$JS.API.STREAM.CREATE.USAGE"),
    ] {
        let mut options = guarded.options(user);
        options.create = true;
        let mut source = NatsSource::connect(options).await.unwrap();
        let error = source.bounds().await.unwrap_err();
        let publish = format!("publish to `{subject}`");
        check(&error, &publish, &publish);
    }
}
