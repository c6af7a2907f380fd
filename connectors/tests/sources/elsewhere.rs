//! Streams that are not in the server or the account that we are connected to.

use super::{nats::binary, read_until, texts};
use async_nats::jetstream;
use std::path::Path;
use tempfile::TempDir;
use tollgate_connectors::{
    Error, ErrorKind, Source,
    nats::{NatsOptions, NatsSource, Publisher, server::NatsServer},
};

async fn start(dir: &Path, config: &str) -> NatsServer {
    std::fs::create_dir_all(dir).unwrap();
    let file = dir.join("server.conf");
    std::fs::write(&file, config).unwrap();
    let arguments = ["-c", file.to_str().unwrap()];
    let server = NatsServer::start_with(&binary(), dir, None, &arguments).await;
    server.unwrap()
}

fn options(server: &NatsServer, credentials: &str) -> NatsOptions {
    let url = format!("nats://{credentials}127.0.0.1:{}", server.port());
    let mut options = NatsOptions::new(url, "USAGE");
    options.subjects = vec!["usage.>".into()];
    options
}

/// Creates the stream and publishes these.
async fn fill(mut options: NatsOptions, payloads: &[&str]) {
    options.create = true;
    let mut publisher = Publisher::connect(options).await.unwrap();
    for payload in payloads {
        let payload = (*payload).to_owned().into();
        publisher.publish("usage.t", &[], payload).await.unwrap();
    }
    let counts = publisher.finish().await.unwrap();
    assert_eq!(counts.acknowledged, payloads.len() as u64);
}

/// Where a hub listens for leaf nodes, which only its log says.
fn leafs(dir: &Path) -> String {
    let log = std::fs::read_to_string(dir.join("nats-server.log")).unwrap();
    let says = "Listening for leafnode connections on ";
    let line = log.lines().find_map(|line| line.split_once(says)).unwrap();
    line.1.to_owned()
}

async fn bounds(options: NatsOptions) -> Result<(), Error> {
    let mut source = NatsSource::connect(options).await.unwrap();
    source.bounds().await.map(drop)
}

async fn read(options: NatsOptions, last: u64) -> Vec<String> {
    let mut source = NatsSource::connect(options).await.unwrap();
    source.bounds().await.unwrap();
    texts(&read_until(&mut source, last).await)
}

/// The names of the streams there are.
async fn streams(options: &NatsOptions) -> Vec<String> {
    use futures::TryStreamExt;
    let client = tollgate_connectors::nats::connect(options).await.unwrap();
    let context = jetstream::new(client);
    context.stream_names().try_collect().await.unwrap()
}

#[tokio::test]
async fn a_leaf_node_reads_and_fills_the_stream_of_its_hub_and_makes_none_beside_it() {
    let dir = TempDir::new().unwrap();
    let hub = start(
        &dir.path().join("hub"),
        "jetstream { domain: hub }\nleafnodes { listen: \"127.0.0.1:-1\" }",
    )
    .await;
    let leafs = leafs(&dir.path().join("hub"));
    let leaf = start(
        &dir.path().join("leaf"),
        &format!(
            "jetstream {{ domain: leaf }}\nleafnodes {{ remotes = [ {{ url: \"nats://{leafs}\" }} ] }}"
        ),
    )
    .await;
    fill(options(&hub, ""), &["1", "2"]).await;
    let mut at_leaf = options(&leaf, "");
    at_leaf.domain = Some("hub".into());
    // The leaf connects to its hub after it has begun to listen.
    while let Err(error) = bounds(at_leaf.clone()).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    fill(at_leaf.clone(), &["3"]).await;
    assert_eq!(read(at_leaf.clone(), 3).await, ["1", "2", "3"]);
    // The same with the whole prefix.
    let mut prefix = options(&leaf, "");
    prefix.api_prefix = Some("$JS.hub.API".into());
    assert_eq!(read(prefix, 3).await, ["1", "2", "3"]);

    // Without the domain the leaf answers, which has no such stream and must get none.
    let mut own = options(&leaf, "");
    let error = bounds(own.clone()).await.unwrap_err().to_string();
    assert!(
        error.starts_with("stream `USAGE`: there is no such stream\n"),
        "{error}"
    );
    own.create = true;
    for stream in ["USAGE", "OTHER"] {
        own.stream = stream.into();
        assert_eq!(
            bounds(own.clone()).await.unwrap_err().to_string(),
            format!(
                "stream `{stream}`: it is not at `$JS.API`, and the stream `USAGE` takes `usage.>` already\n  hint: to \
                 read `USAGE`, set source.stream to it, and source.domain or source.api_prefix to where it is; for a \
                 stream of its own give other source.subjects"
            )
        );
    }
    assert_eq!(streams(&own).await, Vec::<String>::new());
    // Other subjects are its own.
    own.subjects = vec!["own.>".into()];
    bounds(own.clone()).await.unwrap();
    assert_eq!(streams(&own).await, ["OTHER"]);
}

/// Account OWNER has the stream. ASKER, with JetStream of its own, imports the subjects and the API.
const ACCOUNTS: &str = r#"
jetstream {}
accounts {
  OWNER {
    jetstream: enabled
    users = [ { user: owner, password: p } ]
    exports = [
      { service: "usage.>" }
      { service: "$JS.API.>", response: stream }
    ]
  }
  ASKER {
    jetstream: enabled
    users = [ { user: asker, password: p } ]
    imports = [
      { service: { account: OWNER, subject: "usage.>" } }
      { service: { account: OWNER, subject: "$JS.API.>" }, to: "JS.owner.API.>" }
    ]
  }
  STRANGER {
    jetstream: enabled
    users = [ { user: stranger, password: p } ]
  }
}
"#;

#[tokio::test]
async fn an_account_that_imports_reads_the_owners_stream_and_makes_none_beside_it() {
    let dir = TempDir::new().unwrap();
    let server = start(dir.path(), ACCOUNTS).await;
    let owner = options(&server, "owner:p@");
    fill(owner.clone(), &["1", "2"]).await;
    let mut asker = options(&server, "asker:p@");
    asker.create = true;
    assert_eq!(
        bounds(asker.clone()).await.unwrap_err().to_string(),
        "stream `USAGE`: it is not at `$JS.API`, and the stream `USAGE` takes `usage.>` already\n  hint: to read \
         `USAGE`, set source.stream to it, and source.domain or source.api_prefix to where it is; for a stream of \
         its own give other source.subjects"
    );
    assert_eq!(streams(&asker).await, Vec::<String>::new());
    asker.api_prefix = Some("JS.owner.API".into());
    fill(asker.clone(), &["3"]).await;
    assert_eq!(read(asker.clone(), 3).await, ["1", "2", "3"]);
    assert_eq!(read(owner, 3).await, ["1", "2", "3"]);
    // An account with which nothing is shared has subjects of its own under the same names.
    let mut stranger = options(&server, "stranger:p@");
    stranger.create = true;
    fill(stranger.clone(), &["a"]).await;
    assert_eq!(read(stranger, 1).await, ["a"]);
}

#[tokio::test]
async fn a_stream_that_the_account_has_no_room_for_is_refused_for_good() {
    let dir = TempDir::new().unwrap();
    let account = |name: &str, limits: &str| {
        format!(
            "{name} {{ jetstream: {{ {limits} }}, users = [ {{ user: {name}, password: p }} ] }}"
        )
    };
    let accounts = [
        account("few", "max_streams: 1"),
        account("bounded", "max_bytes_required: true"),
    ];
    let config = format!("jetstream {{}}\naccounts {{ {} }}", accounts.join(", "));
    let server = start(dir.path(), &config).await;
    fill(options(&server, "few:p@"), &["1"]).await;
    for (user, says, hint) in [
        (
            "few",
            "creating the stream failed: maximum number of streams reached",
            "raise max_streams of the account, or set source.stream to a stream that is there",
        ),
        (
            "bounded",
            "creating the stream failed: account requires a stream config to have max bytes set",
            "the account bounds its streams: make this one by `nats stream add` with --max-bytes and --discard new",
        ),
    ] {
        let mut more = options(&server, &format!("{user}:p@"));
        more.create = true;
        more.stream = "MORE".into();
        more.subjects = vec!["more.>".into()];
        let error = bounds(more).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("stream `MORE`: {says}")),
            "{text}"
        );
        assert!(text.ends_with(&format!("\n  hint: {hint}")), "{text}");
    }
}
