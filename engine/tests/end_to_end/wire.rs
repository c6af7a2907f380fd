//! The protocol of PostgreSQL: psql and psycopg as people use them, keys as passwords, TLS, and bytes that are no protocol.

use crate::{
    attacks::key,
    http::{Http, open},
    world::{Cli, Ran, Running, World},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use std::process::Output;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

const DEFINITIONS: &str = "
CREATE EVENT TYPE llm_completion (model VARCHAR, input_tokens BIGINT NOT NULL, cost DECIMAL(38, 9))
    WITH (type = 'llm.completion');
CREATE METER tokens WITH (window = '1 hour', lateness = '1 minute') AS
SELECT subject, model, SUM(input_tokens) AS input, COUNT(*) AS calls, SUM(cost) AS cost
FROM llm_completion GROUP BY subject, model;
";

/// 38 digits.
const COST: &str = "12345678901234567890123456789.123456789";

/// Three events of two subjects, all metered.
async fn metered() -> World {
    let world = World::new(DEFINITIONS).await;
    for (id, subject, model, input, cost) in [
        ("1", "a", "\"m\"", 5, COST),
        ("2", "b", "\"n\"", 700, "1.5"),
        ("3", "a", "null", 6, "-0.000000001"),
    ] {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"llm.completion","subject":"{subject}",
               "time":"2026-10-01T10:0{id}:00Z","data":{{"model":{model},"input_tokens":{input},"cost":{cost}}}}}"#
        );
        world.send(&[], &event).await;
    }
    world.cli().run_to_end().await;
    world
}

/// Starts `serve` with both doors; returns the port of the wire.
async fn served(cli: &Cli) -> (Running, Http, String) {
    let cli = cli.with("TOLLGATE_POSTGRES_LISTEN", "127.0.0.1:0");
    let (mut running, http) = open(&cli, &["serve"]).await;
    running.logged("Postgres opened", 1).await;
    let log = running.log();
    let (_, after) = log
        .split_once("Postgres opened address=127.0.0.1:")
        .unwrap();
    let port = after.split_whitespace().next().unwrap().to_owned();
    (running, http, port)
}

/// Asks with psql as a user, of files those that begin with `/`; `None` where there is no psql.
async fn psql(
    port: &str,
    options: &str,
    (user, password): (&str, &str),
    asks: &[&str],
) -> Option<Output> {
    let commands = asks.iter().flat_map(|ask| match ask.starts_with('/') {
        true => ["-f", ask],
        false => ["-c", ask],
    });
    let address =
        format!("host=127.0.0.1 port={port} dbname=tollgate connect_timeout=20 {options}");
    let ran = Command::new("psql")
        .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", &address])
        .args(commands)
        .env("PGUSER", user)
        .env("PGPASSWORD", password)
        .env("LC_ALL", "C.UTF-8")
        .kill_on_drop(true)
        .output()
        .await;
    match ran {
        Ok(output) => Some(output),
        Err(_) => {
            println!("skipped: there is no psql here");
            None
        }
    }
}

/// What psql printed, which must have succeeded.
fn printed(output: &Output) -> String {
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    String::from_utf8(out.clone()).unwrap()
}

const ANYONE: (&str, &str) = ("ada", "");

#[tokio::test(flavor = "multi_thread")]
async fn psql_reads_usage_exactly_and_shows_what_there_is() {
    let world = metered().await;
    let (running, _, port) = served(&world.cli()).await;
    for (ask, expected) in [
        (
            "SELECT subject, model, input, cost, window_start FROM tokens ORDER BY input",
            format!(
                "a|m|5|{COST}|2026-10-01 10:00:00+00\na||6|-0.000000001|2026-10-01 10:00:00+00\n\
                 b|n|700|1.500000000|2026-10-01 10:00:00+00\n"
            ),
        ),
        (
            "SELECT e.event_id, t.calls FROM events e JOIN tokens t ON e.subject = t.subject AND t.model = 'm' ORDER BY 1",
            "1|1\n3|1\n".to_owned(),
        ),
        ("SELECT 1 AS a; SELECT 'x;' AS b;;", "1\nx;\n".to_owned()),
        (
            "BEGIN; SET TIME ZONE 'Europe/Berlin'; SELECT MIN(window_start) FROM tokens; COMMIT",
            "BEGIN\nSET\n2026-10-01 12:00:00+02\nCOMMIT\n".to_owned(),
        ),
        ("SHOW server_version_num", "160006\n".to_owned()),
        (
            "SELECT llm_completion FROM events WHERE event_id = '2'",
            "{\"model\":\"n\",\"input_tokens\":700,\"cost\":1.500000000}\n".to_owned(),
        ),
    ] {
        let Some(output) = psql(&port, "", ANYONE, &[ask]).await else {
            return;
        };
        assert_eq!(printed(&output), expected, "{ask}");
    }
    let shown = psql(
        &port,
        "",
        ANYONE,
        &["\\d", "\\dt", "\\d tokens", "\\d events", "\\l", "\\dn"],
    )
    .await;
    let shown = printed(&shown.unwrap());
    for line in [
        "public|tokens|table|postgres",
        "public|invoices|table|postgres",
        "window_start|timestamp with time zone||not null|",
        "cost|numeric|||",
        "event_id|text|||",
        "public|postgres",
    ] {
        assert!(
            shown.lines().any(|known| known == line),
            "{line} in {shown}"
        );
    }
    running.terminate().await;
}

/// What Grafana's data source of PostgreSQL sends: what there is, and panels with its macros written out.
const OF_GRAFANA: &[(&str, &str)] = &[
    (
        "SELECT current_setting('server_version_num')::int/100 as version",
        "1600\n",
    ),
    (
        "SELECT quote_ident(table_name) as \"table\" FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN \
         ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog', '_timescaledb_internal', \
         '_timescaledb_config', 'timescaledb_information', 'timescaledb_experimental') AND table_type = 'BASE TABLE' \
         AND quote_ident(table_name) LIKE 'tokens%' ORDER BY 1",
        "tokens\ntokens_panes\n",
    ),
    (
        "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns \
         WHERE quote_ident(table_name) = 'tokens' AND column_name IN ('input', 'window_start') ORDER BY 1",
        "input|Decimal128(38, 0)\nwindow_start|Timestamp(µs, \"UTC\")\n",
    ),
    // $__timeFilter(window_start), $__timeGroup(window_start, '1h')
    (
        "SELECT floor(extract(epoch from window_start)/3600)*3600 AS \"time\", subject AS metric, SUM(input) AS \"input\" \
         FROM tokens WHERE window_start BETWEEN '2026-10-01T00:00:00Z' AND '2026-10-02T00:00:00Z' GROUP BY 1, 2 ORDER BY 1, 2",
        "1790848800|a|11\n1790848800|b|700\n",
    ),
    // $__time(event_time)
    (
        "SELECT event_time AS \"time\", input_tokens FROM llm_completion WHERE event_time >= '2026-10-01T10:02:00Z' ORDER BY 1 LIMIT 1",
        "2026-10-01 10:02:00+00|700\n",
    ),
    ("SELECT 1 AS x", "1\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn grafanas_queries_have_their_answers() {
    let world = metered().await;
    let (running, _, port) = served(&world.cli()).await;
    for (ask, expected) in OF_GRAFANA {
        let Some(output) = psql(&port, "", ANYONE, &[ask]).await else {
            return;
        };
        assert_eq!(printed(&output), *expected, "{ask}");
    }
    running.terminate().await;
}

/// What a script of ours prints with psycopg; `None` where there is none.
async fn with_psycopg(script: &str, arguments: &[&str]) -> Option<Value> {
    let python = std::env::var_os("TOLLGATE_PUBLISHERS").filter(|python| !python.is_empty());
    let Some(python) = python else {
        println!("skipped: TOLLGATE_PUBLISHERS names no python with psycopg");
        return None;
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/");
    let ran = Command::new(python)
        .arg(format!("{folder}{script}"))
        .args(arguments)
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{script}: {stderr}");
    Some(serde_json::from_slice(&ran.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_prepares_binds_and_reads_every_type_exactly() {
    let world = metered().await;
    let (running, _, port) = served(&world.cli()).await;
    let Some(told) = with_psycopg("with_psycopg.py", &[&port]).await else {
        return;
    };
    let asked = json!({
        "costs": ["-1E-9", "1.500000000", COST],
        "of_cost": [["a"]],
        "from": [3, 0],
        "any": true,
        "limit": [[null]],
        "injected": 0,
        "at": "2026-10-01T10:01:00+00:00",
        "catalog": [["tokens"]],
    });
    assert_eq!(told["text"], asked);
    assert_eq!(told["binary"], asked);
    let states = json!([
        "42P01", "42703", "42883", "42601", "25006", "25006", "0A000", "42704", "22023", "22P02",
        "0A000", "42000"
    ]);
    assert_eq!(told["states"], states);
    assert_eq!(told["failed"], true);
    assert_eq!(told["again"], 1);
    let shown = json!(["Asia/Kolkata", "2026-10-01T15:30:00+05:30"]);
    assert_eq!(told["zone"], shown);
    assert_eq!(
        (&told["cancelled"], &told["timed_out"]),
        (&json!("57014"), &json!("57014"))
    );
    running.terminate().await;
}

/// A key's id.
fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

fn refused(output: &Output, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains(says),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_passwords_by_their_roles_and_as_long_as_they_are_valid() {
    let world = metered().await;
    let cli = world.cli();
    let read = key(&cli, &["--role", "read"]).await;
    let ingest = key(&cli, &["--role", "ingest"]).await;
    let customer = key(&cli, &["--role", "customer", "--customer", "a"]).await;
    let expired = key(&cli, &["--role", "read", "--expires", "1us"]).await;
    let old = key(&cli, &["--role", "read"]).await;
    // A key as they were made before keys could be passwords.
    let file = cli.path(&format!("lake/keys/{}/key.json", id_of(&old)));
    let mut made: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    made.as_object_mut().unwrap().remove("verifier").unwrap();
    std::fs::write(&file, made.to_string()).unwrap();
    let (running, _, port) = served(&cli).await;
    let count = "SELECT COUNT(*) FROM events";
    let Some(output) = psql(&port, "", (id_of(&read), &read), &[count]).await else {
        return;
    };
    assert_eq!(printed(&output), "3\n");
    let output = psql(&port, "", (id_of(&customer), &customer), &[count]).await;
    assert_eq!(printed(&output.unwrap()), "2\n");
    // What a customer may not read is in no catalog either, and a plan tells nothing.
    let owner = (id_of(&customer), customer.as_str());
    for (ask, expected) in [
        ("SELECT SUM(input) FROM tokens", "11\n"),
        (
            "SELECT COUNT(*) FROM pg_class WHERE relname IN ('conflicts', 'events')",
            "1\n",
        ),
        (
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = 'conflicts'",
            "0\n",
        ),
        (
            "SELECT COUNT(*) FROM pg_attribute WHERE attname IN ('counted_value', 'basis')",
            "0\n",
        ),
        ("SELECT current_user", &format!("{}\n", id_of(&customer))),
    ] {
        let output = psql(&port, "", owner, &[ask]).await.unwrap();
        assert_eq!(printed(&output), expected, "{ask}");
    }
    for (ask, says) in [
        ("EXPLAIN SELECT * FROM events", "EXPLAIN is refused"),
        ("COPY events TO STDOUT", "COPY is not there"),
        (
            "DECLARE c CURSOR FOR SELECT * FROM events",
            "cursors of SQL are not there",
        ),
        ("SELECT * FROM conflicts", "there is no relation"),
        (
            "SELECT COUNT(*) FROM pg_class, events",
            "ask in two statements",
        ),
    ] {
        let output = psql(&port, "", owner, &[ask]).await.unwrap();
        refused(&output, says);
    }
    let wrong = format!("{read}0");
    for (user, password, says) in [
        (
            id_of(&read),
            wrong.as_str(),
            "is not valid, or the password is not it",
        ),
        (
            id_of(&read),
            customer.as_str(),
            "is not valid, or the password is not it",
        ),
        (
            "ada",
            read.as_str(),
            "is not valid, or the password is not it",
        ),
        (
            id_of(&expired),
            expired.as_str(),
            "is not valid, or the password is not it",
        ),
        (
            id_of(&ingest),
            ingest.as_str(),
            "a key of the role `ingest` may not do this",
        ),
        (
            id_of(&old),
            old.as_str(),
            "made before keys could be passwords",
        ),
        (id_of(&read), "", "no password supplied"),
    ] {
        let output = psql(&port, "", (user, password), &[count]).await.unwrap();
        refused(&output, says);
    }
    // A key that is revoked ends what it had begun, too.
    world.write("again.sql", "SELECT COUNT(*) FROM events \\watch 0.1\n");
    let again = cli.path("again.sql");
    let again = [again.to_str().unwrap()];
    let asked = psql(&port, "", (id_of(&read), &read), &again);
    let revoke = ["keys", "revoke", id_of(&read)];
    let (asked, _) = tokio::join!(asked, cli.succeed(&revoke));
    refused(&asked.unwrap(), "not valid any more");
    let log = running.log();
    running.terminate().await;
    for key in [&read, &ingest, &customer, &expired] {
        let (_, secret) = key.rsplit_once('_').unwrap();
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

/// The same command with a certificate of its own.
fn encrypted(cli: &Cli) -> Cli {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    std::fs::write(cli.path("cert.pem"), cert.pem()).unwrap();
    std::fs::write(cli.path("key.pem"), signing_key.serialize_pem()).unwrap();
    cli.with("TOLLGATE_TLS_CERTIFICATE", "cert.pem")
        .with("TOLLGATE_TLS_KEY", "key.pem")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_encrypts_with_the_certificate_and_takes_nothing_in_the_clear() {
    let world = metered().await;
    let cli = encrypted(&world.cli());
    let (running, http, port) = served(&cli).await;
    // What is no TLS ends its own connection, and no other.
    assert!(http.send("GET", "/health/live", &[], b"").await.is_none());
    let ask = ["SELECT COUNT(*) FROM events"];
    if let Some(output) = psql(&port, "sslmode=disable", ANYONE, &ask).await {
        refused(&output, "must be encrypted");
        let root = cli.path("cert.pem");
        let verified = format!("sslmode=verify-full sslrootcert={}", root.display());
        for options in ["sslmode=require", &verified] {
            let output = psql(&port, options, ANYONE, &ask).await.unwrap();
            assert_eq!(printed(&output), "3\n", "{options}");
        }
    }
    assert_eq!(over_tls(&cli, &http.address).await, "live\n");
    running.terminate().await;
    // With a certificate an address that others reach may be opened; without one it may not.
    key(&cli, &["--role", "read"]).await;
    let everywhere = world.cli().with("TOLLGATE_POSTGRES_LISTEN", "0.0.0.0:0");
    let ran: Ran = everywhere.run(&["serve"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(
        ran.stderr.contains("postgres.listen") && ran.stderr.contains("[tls]"),
        "{ran:#?}"
    );
    let mut running = cli
        .with("TOLLGATE_POSTGRES_LISTEN", "0.0.0.0:0")
        .start(&["serve"]);
    running.logged("Postgres opened", 1).await;
    running.terminate().await;
    let wrong = cli.with("TOLLGATE_TLS_KEY", "none.pem");
    let ran = wrong
        .with("TOLLGATE_HTTP_LISTEN", "127.0.0.1:0")
        .run(&["serve"])
        .await;
    assert!(
        ran.stderr.contains("tls.key: `none.pem` cannot be read"),
        "{ran:#?}"
    );
}

/// The body of the answer to a question about health, asked encrypted.
async fn over_tls(cli: &Cli, address: &str) -> String {
    use rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(cli.path("cert.pem")).unwrap();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let ask = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A message with its length; the first of a connection has no kind.
fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    kind.into_iter()
        .chain(length)
        .chain(body.iter().copied())
        .collect()
}

/// Sends bytes and reads until the door ends the connection.
async fn end_of(port: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))
        .await
        .unwrap();
    // The door may end the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), read).await;
    let _ = ended.expect("the door ends what is no protocol");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_protocol_end_their_own_connection_alone() {
    let world = metered().await;
    let cli = world.cli().with("TOLLGATE_HTTP_TIMEOUT", "2s");
    let (running, _, port) = served(&cli).await;
    let startup = framed(None, b"\0\x03\0\0user\0ada\0\0");
    // A client that stays, to see that nothing else ends it.
    let mut stays = TcpStream::connect(format!("127.0.0.1:{port}"))
        .await
        .unwrap();
    stays.write_all(&startup).await.unwrap();
    until_ready(&mut stays).await;
    let begun = |rest: &[u8]| [startup.as_slice(), rest].concat();
    for (what, bytes) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
        ("zeros", vec![0; 64]),
        ("no length", 3_u32.to_be_bytes().to_vec()),
        (
            "too long a first message",
            framed(None, &vec![b'x'; 20_000]),
        ),
        ("version 2", framed(None, b"\0\x02\0\0")),
        (
            "startup that does not end",
            framed(None, b"\0\x03\0\0user\0ada"),
        ),
        ("an unknown message", begun(&framed(Some(b'?'), b""))),
        ("a length below four", begun(b"Q\0\0\0\x03")),
        ("a length of 2 GB", begun(b"Q\x7f\xff\xff\xff")),
        ("a length below zero", begun(b"Q\xff\xff\xff\xff")),
        ("a message that stops", begun(b"Q\0\0\x10\0SELECT")),
        (
            "a text that does not end",
            begun(&framed(Some(b'Q'), b"SELECT 1")),
        ),
        ("no UTF-8", begun(&framed(Some(b'Q'), b"SELECT '\xff'\0"))),
        (
            "values that are not there",
            begun(&framed(Some(b'B'), b"\0\0\0\0\xff\xff")),
        ),
        (
            "a value without an end",
            begun(&framed(Some(b'B'), b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0")),
        ),
    ] {
        let answer = end_of(&port, &bytes).await;
        let is_silent = answer.is_empty() || answer.ends_with(b"Z\0\0\0\x05I");
        let says_why = answer.windows(5).any(|five| five == b"FATAL");
        assert!(is_silent || says_why, "{what}: {}", answer.escape_ascii());
    }
    // So many rows that no room could be made for them are only a bound; a format for each of two columns of one is none.
    let parse = framed(Some(b'P'), b"\0SELECT 1 AS a\0\0\0");
    let bind = framed(Some(b'B'), b"\0\0\0\0\0\0\0\0");
    let execute = framed(Some(b'E'), b"\0\x7f\xff\xff\xff");
    let two = framed(Some(b'B'), b"\0\0\0\0\0\0\0\x02\0\x01\0\x01");
    let sync = framed(Some(b'S'), b"");
    let steps = [parse.as_slice(), &bind, &execute, &two, &sync].concat();
    stays.write_all(&steps).await.unwrap();
    let answer = until_ready(&mut stays).await;
    let row = b"D\0\0\0\x0b\0\x01\0\0\0\x011";
    assert!(
        answer.windows(row.len()).any(|part| part == row),
        "{}",
        answer.escape_ascii()
    );
    assert!(
        answer.windows(5).any(|five| five == b"08P01"),
        "{}",
        answer.escape_ascii()
    );
    // The type of a parameter is described by the number that the client gave it: 1043, and not 25, for the same texts.
    let parse = framed(Some(b'P'), b"v\0SELECT $1 AS a\0\0\x01\0\0\x04\x13");
    let describe = framed(Some(b'D'), b"Sv\0");
    let steps = [parse.as_slice(), &describe, &sync].concat();
    stays.write_all(&steps).await.unwrap();
    let answer = until_ready(&mut stays).await;
    let described = b"t\0\0\0\x0a\0\x01\0\0\x04\x13";
    assert!(
        answer
            .windows(described.len())
            .any(|part| part == described),
        "{}",
        answer.escape_ascii()
    );
    let log = running.log();
    assert!(!log.contains("panicked"), "{log}");
    running.terminate().await;
}

/// Everything up to the message that says that the door is ready; or to the end.
async fn until_ready(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"Z\0\0\0\x05I") {
        let mut some = [0; 4096];
        match stream.read(&mut some).await.unwrap() {
            0 => return answer,
            count => answer.extend_from_slice(&some[..count]),
        }
    }
    answer
}
