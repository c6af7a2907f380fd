//! Whatever publishers choose, a terminal obeys nothing of it, in any command; and programs read what was sent.
//!
//! `TOLLGATE_HOSTILE_SEED=S` chooses other texts.

use crate::world::{Cli, Ran, World};
use std::{env, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};
use tollgate::cli::demo::generator::Random;

const DEFINITIONS: &str = "
CREATE EVENT TYPE task (name VARCHAR NOT NULL, n BIGINT NOT NULL, price VARCHAR) WITH (type = 'task');
CREATE METER tasks WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, name, SUM(n) AS n, COUNT(*) AS tasks FROM task GROUP BY subject, name;
CREATE METER prices WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(CAST(price AS DECIMAL(18, 6))) AS price FROM task WHERE price IS NOT NULL GROUP BY subject;
CREATE PRICE used WITH (currency = 'USD') AS
SELECT customer, name, SUM(n) AS quantity, SUM(n) * 0.50 AS amount FROM tasks GROUP BY customer, name;
CREATE PRICE priced WITH (currency = 'USD') AS SELECT customer, price AS amount FROM prices;
CREATE PLAN payg WITH (currency = 'USD') AS (used, priced);
";

/// What terminals, spreadsheets, readers of CSV and our own notations obey.
const PIECES: &[&str] = &[
    "a",
    "ü",
    "😀",
    "\u{1b}[2J",
    "\u{1b}]0;owned\u{7}",
    "\u{1b}[8m",
    "\u{9b}31m",
    "\u{90}q",
    "\r",
    "\n",
    "\r\n",
    "\t",
    "\u{0}",
    "\u{8}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{61c}",
    "\u{200e}",
    "\u{200f}",
    "\u{202a}",
    "\u{202d}",
    "\u{202e}",
    "\u{2066}",
    "\u{2069}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "=1+1",
    "@x",
    "+1",
    "-1",
    "\"",
    "'",
    "`",
    ",",
    ";",
    "\\",
    "\\u001b",
    "|",
    "{",
    "%1b",
    "\nerror: all is lost",
    "INV-000001",
];

/// Characters that no command may print as they are. This is on purpose not the list that the commands go by.
fn is_harmful(character: char) -> bool {
    let point = u32::from(character);
    let is_control = point < 0x20 || (0x7f..0xa0).contains(&point);
    let is_direction = matches!(point, 0x61c | 0x200e | 0x200f | 0x202a..=0x202e | 0x2066..=0x2069);
    let ends_a_line = matches!(point, 0x2028 | 0x2029);
    is_control || is_direction || ends_a_line
}

fn texts() -> Vec<String> {
    let seed = env::var("TOLLGATE_HOSTILE_SEED").map_or(22, |seed| seed.parse().unwrap());
    let mut random = Random::new(seed);
    let mut texts: Vec<String> = PIECES.iter().map(|piece| format!("x{piece}y")).collect();
    for _ in 0..40 {
        let pieces = (0..=random.index(5)).map(|_| PIECES[random.index(PIECES.len())]);
        texts.push(pieces.collect());
    }
    texts
}

fn event(id: &str, kind: &str, subject: &str, data: &serde_json::Value) -> String {
    let event = serde_json::json!({
        "specversion": "1.0", "id": id, "source": format!("from {id}"), "type": kind, "subject": subject,
        "time": "2026-01-05T10:00:00Z", "data": data,
    });
    event.to_string()
}

/// An event that counts; one of its id that is a conflict; one without an event type; one that is rejected; and one that
/// a meter cannot measure.
fn events(number: usize, text: &str) -> [String; 5] {
    let counts = |name: &str| serde_json::json!({"name": name, "n": number, text: [text]});
    let id = |what: &str| format!("{text} {what} {number}");
    let [counted, unmatched, rejected, unmeasured] =
        ["counted", "unmatched", "rejected", "unmeasured"].map(id);
    [
        event(&counted, "task", text, &counts(text)),
        event(&counted, "task", text, &counts(&format!("{text}{text}"))),
        event(&unmatched, text, text, &counts(text)),
        event(
            &rejected,
            "task",
            text,
            &serde_json::json!({"name": text, "n": text}),
        ),
        event(
            &unmeasured,
            "task",
            &unmeasured,
            &serde_json::json!({"name": "m", "n": 1, "price": text}),
        ),
    ]
}

/// Says what a command printed that a terminal would obey.
fn check(ran: &Ran) {
    for (stream, text) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
        let mut lines = text.lines();
        // `lines` ends them at `\r\n` too, which only a text of a publisher can have brought.
        assert!(
            !text.contains('\r'),
            "{stream} has a carriage return: {ran:#?}"
        );
        let harmful = lines.find(|line| line.contains(is_harmful));
        assert_eq!(harmful, None, "{stream} of {ran:#?}");
    }
}

async fn run(cli: &Cli, arguments: &[&str]) -> Ran {
    let ran = cli.run(arguments).await;
    assert_ne!(ran.code, Some(101), "{ran:#?}");
    check(&ran);
    ran
}

/// Publishes as a client that writes the header block itself.
async fn send_block(world: &World, block: &[u8], payload: &str) {
    let socket = TcpStream::connect(("127.0.0.1", world.port()))
        .await
        .unwrap();
    let mut socket = BufReader::new(socket);
    let (head, all) = (block.len(), block.len() + payload.len());
    let connect = r#"CONNECT {"verbose":false,"headers":true}"#;
    let command = format!("{connect}\r\nHPUB usage.test {head} {all}\r\n");
    let parts = [
        command.as_bytes(),
        block,
        payload.as_bytes(),
        b"\r\nPING\r\n",
    ];
    socket.write_all(&parts.concat()).await.unwrap();
    let mut line = String::new();
    while line != "PONG\r\n" {
        line.clear();
        assert_ne!(socket.read_line(&mut line).await.unwrap(), 0, "closed");
    }
}

/// A message in binary mode whose attributes and names of headers have a text that is percent-encoded, and as it is.
async fn send_headers(world: &World, text: &str) {
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    for (name, value) in [
        ("ce-note", &encoded),
        (&format!("ce-{plain}"), &encoded),
        ("ce-note", &plain),
    ] {
        let block = format!(
            "NATS/1.0\r\nce-specversion: 1.0\r\nce-id: {encoded}\r\nce-source: headers\r\nce-type: {encoded}\r\n\
             ce-subject: {encoded}\r\n{name}: {value}\r\nContent-Type: {plain}\r\n\r\n"
        );
        send_block(
            world,
            block.as_bytes(),
            &serde_json::json!({ text: text }).to_string(),
        )
        .await;
    }
}

const TEXTS: &str =
    "SELECT event_id, source, type, subject, status, reason, CAST(raw AS VARCHAR) AS raw, extra
                     FROM events ORDER BY sequence, ordinal";

#[tokio::test(flavor = "multi_thread")]
async fn no_command_prints_what_a_terminal_obeys() {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli();
    let texts = texts();
    let lines = texts
        .iter()
        .enumerate()
        .flat_map(|(number, text)| events(number, text));
    let lines: Vec<String> = lines.collect();
    world.write("events.ndjson", &lines.join("\n"));
    run(&cli, &["publish", "events.ndjson"]).await;
    run(&cli, &["publish", "events.ndjson", "--strict"]).await;
    for text in &texts {
        send_headers(&world, text).await;
    }
    let logged = cli.with("TOLLGATE_LOG", "debug");
    let ran = run(&logged, &["run", "--until-end"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.stdout.contains("conflicts"), "{ran:#?}");

    for sql in [
        TEXTS,
        "SELECT * FROM task",
        "SELECT * FROM tasks",
        "SELECT * FROM tasks_panes",
        "SELECT * FROM prices",
        "SELECT * FROM prices WHERE error IS NULL",
        "SELECT subject, error FROM prices",
        "SELECT * FROM conflicts",
        "SELECT * FROM unissued",
        "SELECT CAST(name AS BIGINT) FROM task",
        "SELECT status, reason, COUNT(*) FROM events GROUP BY status, reason",
    ] {
        for format in ["table", "json", "ndjson"] {
            run(&cli, &["query", "--format", format, sql]).await;
        }
    }
    for arguments in [
        &["invoice", "--period", "2026-01"][..],
        &["invoice", "--period", "2026-01", "--finalize"],
        &["invoice", "--period", "2026-01"],
        &["invoice", "--period", "2026-01", "--customer", &texts[3]],
        &["query", "SELECT * FROM invoices"],
        &["query", "SELECT * FROM line_items"],
        &["watch", "tasks", "--count", "1", "--top", "1000"],
        &["watch", "prices", "--count", "1"],
        &["audit"],
        &["replay", "--unmatched", "--dry-run"],
        &["replay", "--unmatched", "--type", &texts[3], "--dry-run"],
        &["replay", "--rejected", "--dry-run"],
        &["shard", "list"],
        &["maintain", "--dry-run"],
        &["check", "--lake"],
        &["query", &texts[3]],
        &["watch", &texts[3]],
    ] {
        run(&cli, arguments).await;
    }
}

/// JSON and CSV give back each text as it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn programs_read_what_was_sent() {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli();
    let texts = texts();
    let event = |(number, text): (usize, &String)| events(number, text)[0].clone();
    let lines: Vec<String> = texts.iter().enumerate().map(event).collect();
    world.write("events.ndjson", &lines.join("\n"));
    cli.publish(&world.path("events.ndjson"), 10).await;
    assert_eq!(cli.run_to_end().await.of("counted"), texts.len() as u64);
    let sql = "SELECT subject, name FROM task ORDER BY sequence, ordinal";
    let expected: Vec<[&str; 2]> = texts.iter().map(|text| [text.as_str(); 2]).collect();
    assert_eq!(cli.query(sql).await, expected);
    let json = cli.succeed(&["query", "--format", "json", sql]).await;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let rows = rows
        .iter()
        .map(|row| ["subject", "name"].map(|name| row[name].as_str().unwrap()));
    assert_eq!(rows.collect::<Vec<_>>(), expected);

    // On a terminal CSV is escaped too.
    let command = format!(
        "{} query --format csv '{sql}'",
        env!("CARGO_BIN_EXE_tollgate")
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &command, "/dev/null"])
        .current_dir(world.path(""))
        .stdin(Stdio::null());
    let Ok(ran) = script.output().await else {
        println!("skipped: there is no `script`, which runs a command on a terminal");
        return;
    };
    let shown = String::from_utf8(ran.stdout).unwrap();
    assert!(shown.contains(r"x\u{1b}[2Jy"), "{shown}");
    // A terminal's lines end with both.
    let mut lines = shown.split("\r\n");
    assert_eq!(
        lines.find(|line| line.contains(is_harmful)),
        None,
        "{shown}"
    );
}
