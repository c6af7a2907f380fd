//! Servers that want to know who we are, and to be known.

use super::nats::binary;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tollgate_connectors::{
    ErrorKind, Source,
    nats::{Auth, NatsOptions, NatsSource, Tls, server::NatsServer},
};

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sources/tls")
        .join(name)
}

async fn start(dir: &TempDir, arguments: &[&str]) -> NatsServer {
    let started = NatsServer::start_with(&binary(), dir.path(), None, arguments).await;
    started.unwrap()
}

/// The URL with these credentials in it.
fn url(server: &NatsServer, credentials: &str) -> String {
    format!("nats://{credentials}127.0.0.1:{}", server.port())
}

fn options(url: String) -> NatsOptions {
    let mut options = NatsOptions::new(url, "USAGE");
    options.subjects = vec!["usage.>".into()];
    options.create = true;
    options
}

async fn works(options: NatsOptions) {
    let mut source = NatsSource::connect(options).await.unwrap();
    source.bounds().await.unwrap();
}

async fn is_refused(options: NatsOptions) -> String {
    let error = NatsSource::connect(options)
        .await
        .expect_err("these are wrong");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("S3cret"), "{shown}");
    error.to_string()
}

#[tokio::test]
async fn a_user_and_password_are_sent_from_settings_and_from_the_url() {
    let dir = TempDir::new().unwrap();
    let server = start(&dir, &["--user", "a@b", "--pass", "S3cret,/%"]).await;
    works(options(url(&server, "a%40b:S3cret%2C%2F%25@"))).await;
    let mut given = options(url(&server, ""));
    given.auth.user_and_password = Some(("a@b".into(), "S3cret,/%".into()));
    works(given.clone()).await;
    // Settings stand above the URL.
    given.url = url(&server, "other:S3cret@");
    works(given).await;
    let message = is_refused(options(url(&server, "a%40b:S3cret,x@"))).await;
    let says = format!("nats://127.0.0.1:{} refused us", server.port());
    assert!(message.contains(&says), "{message}");
    is_refused(options(url(&server, ""))).await;
}

#[tokio::test]
async fn a_token_is_sent_from_settings_and_from_the_url() {
    let dir = TempDir::new().unwrap();
    let server = start(&dir, &["--auth", "S3cret token"]).await;
    works(options(url(&server, "S3cret%20token@"))).await;
    let mut given = options(url(&server, ""));
    given.auth.token = Some("S3cret token".into());
    works(given).await;
    is_refused(options(url(&server, "S3cret@"))).await;
}

#[tokio::test]
async fn an_nkey_signs() {
    const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("nkey.conf");
    std::fs::write(
        &file,
        format!("authorization {{ users = [ {{ nkey: {PUBLIC} }} ] }}"),
    )
    .unwrap();
    let server = start(&dir, &["-c", file.to_str().unwrap()]).await;
    let with = |seed: &str| {
        let mut given = options(url(&server, ""));
        given.auth = Auth {
            nkey: Some(seed.into()),
            ..Auth::default()
        };
        given
    };
    works(with(SEED)).await;
    is_refused(with("S3cret")).await;
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| pem(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
    let arguments = [
        "--tls",
        "--tlsverify",
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
        "--tlscacert",
        &ca,
    ];
    let server = start(&dir, &arguments).await;
    let with = |ca_file, client_certificate| {
        let mut given = options(format!("tls://127.0.0.1:{}", server.port()));
        given.tls = Tls {
            ca_file,
            client_certificate,
            required: true,
        };
        given
    };
    let ours = || Some((pem("client.pem"), pem("client.key")));
    works(with(Some(pem("ca.pem")), ours())).await;
    // The system's authorities did not sign the server's certificate.
    let message = is_refused(with(None, ours())).await;
    assert!(message.contains("source.tls_ca"), "{message}");
    let message = is_refused(with(
        Some(pem("ca.pem")),
        Some((pem("client.pem"), pem("server.key"))),
    ))
    .await;
    assert!(
        message.contains("certificate and key do not fit"),
        "{message}"
    );
}

#[tokio::test]
async fn a_domain_is_asked_for_by_name_and_no_second_stream_is_made_beside_one() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("domain.conf");
    std::fs::write(&file, "jetstream { domain: hub }").unwrap();
    let server = start(&dir, &["-c", file.to_str().unwrap()]).await;
    let mut hub = options(url(&server, ""));
    hub.domain = Some("hub".into());
    works(hub.clone()).await;
    // Another name for the same subjects.
    let mut other = hub.clone();
    other.stream = "OTHER".into();
    let mut source = NatsSource::connect(other).await.unwrap();
    let error = source.bounds().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream `OTHER`: it is not at `$JS.hub.API`, and the stream `USAGE` takes `usage.>` already\n  \
         hint: to read `USAGE`, set source.stream to it, and source.domain or source.api_prefix to where it \
         is; for a stream of its own give other source.subjects"
    );
    let mut elsewhere = hub;
    elsewhere.domain = Some("nowhere".into());
    let mut source = NatsSource::connect(elsewhere).await.unwrap();
    let error = source.bounds().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream `USAGE`: nothing answers at `$JS.nowhere.API`\n  hint: start nats-server with -js; if the \
         stream is in another JetStream domain, set source.domain; if it is in another account, \
         source.api_prefix"
    );
}
