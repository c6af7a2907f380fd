//! Clients that say nothing, too little, or more than there is room for, and statements that take all they can: each ends alone, and
//! metering does not notice.

use crate::{
    attacks::key,
    http::{Http, open_ready},
    world::{Cli, Running, TOKENS, World},
};
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// So many clients come, unless fewer files may be open here.
const CROWD: u64 = 10_000;

/// What the last of them may find taken.
const TAKEN: usize = 1_000;

fn event(number: u64) -> String {
    let event = json!({
        "specversion": "1.0", "id": number.to_string(), "source": "s", "type": "llm.completion", "subject": "a",
        "time": "2026-10-01T10:00:00Z", "data": {"model": "m", "input_tokens": number, "output_tokens": 1},
    });
    event.to_string()
}

/// What every client has in common.
struct Doors {
    http: Http,
    sent: u64,
}

impl Doors {
    /// Somebody else is served: an event is stored, and counted exactly.
    async fn serve(&mut self) {
        self.sent += 1;
        let event = event(self.sent);
        let stored = self.http.post("/api/v1/events", "application/json", &event);
        assert_eq!(stored.await.status, 204);
        let sum = self.sent * (self.sent + 1) / 2;
        let query = "/api/v1/meters/tokens_input/query";
        let is_counted = |answer: &crate::http::Answer| {
            answer.status == 200 && answer.json()["data"][0]["value"] == json!(sum)
        };
        self.http.until(query, is_counted).await;
    }
}

async fn connect(address: &str) -> TcpStream {
    let connecting = timeout(Duration::from_secs(60), TcpStream::connect(address));
    connecting.await.unwrap().unwrap()
}

/// What the engine says before it ends a connection.
async fn last_words(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let ending = timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes));
    // A reset is an end too.
    let _ = ending.await.expect("the connection stays open");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Many clients at a door: of three, one says nothing, one begins to speak, one never ends.
async fn crowd(address: &str, count: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::with_capacity(count);
    for number in 0..count {
        let mut client = connect(address).await;
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nX-Part: ",
            _ => b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[{\"\r\n",
        };
        // It may have had to go by now.
        let _ = client.write_all(said).await;
        crowd.push(client);
    }
    crowd
}

async fn opened(cli: &Cli) -> (Running, Doors) {
    let (running, http) = open_ready(cli, &["run"]).await;
    (running, Doors { http, sent: 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_says_nothing_keeps_nobody_from_being_served() {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let count = usize::try_from(CROWD.min(files / 2)).unwrap();
    let world = World::new(TOKENS).await;
    // So long that nobody ends for being slow.
    let cli = world.cli().with("TOLLGATE_HTTP_TIMEOUT", "10m");
    let (running, mut doors) = opened(&cli).await;
    doors.serve().await;
    let mut crowd = crowd(&doors.http.address, count).await;
    doors.serve().await;
    // Who came first had to make room.
    for client in crowd.drain(..count.saturating_sub(TAKEN)) {
        last_words(client).await;
    }
    doors.serve().await;
    drop(crowd);
    doors.serve().await;
    assert_eq!(running.terminate().await.code, Some(0));
    world.cli().audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_postgres_that_do_not_come_in_keep_nobody_out() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_POSTGRES_LISTEN", "127.0.0.1:0");
    let read = key(&cli, &["--role", "read"]).await;
    let (running, http) = open_ready(&cli, &["run"]).await;
    let log = running.log();
    let (_, after) = log.split_once("Postgres opened address=").unwrap();
    let address = after.split_whitespace().next().unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect(address).await);
    }
    // Somebody who comes in is asked for a password.
    let mut client = connect(address).await;
    let parameters = b"user\0tollgate\0\0";
    let length = u32::try_from(8 + parameters.len()).unwrap();
    client.write_all(&length.to_be_bytes()).await.unwrap();
    client.write_all(&196_608_u32.to_be_bytes()).await.unwrap();
    client.write_all(parameters).await.unwrap();
    let mut kind = [0];
    let asked = timeout(Duration::from_secs(60), client.read_exact(&mut kind));
    asked.await.unwrap().unwrap();
    assert_eq!(kind, *b"R");
    last_words(silent.remove(0)).await;
    let meters = http.with_key(&read).get("/api/v1/meters").await;
    assert_eq!(meters.status, 200);
    assert_eq!(running.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_slow_or_never_ends_is_told_so_or_disconnected() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    let cli = cli.with("TOLLGATE_HTTP_TIMEOUT", "1s");
    let cli = cli.with("TOLLGATE_HTTP_BODY_BYTES_MAX", "100KB");
    let (running, mut doors) = opened(&cli).await;
    let address = doors.http.address.clone();
    let says = |said: &'static str| {
        let address = address.clone();
        async move {
            let mut client = connect(&address).await;
            client.write_all(said.as_bytes()).await.unwrap();
            client
        }
    };
    // Nothing, half a head, half a body.
    assert_eq!(last_words(says("").await).await, "");
    assert_eq!(
        last_words(says("GET /livez HTTP/1.1\r\nHo").await).await,
        ""
    );
    let half = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n[{";
    let told = last_words(says(half).await).await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("\"code\":\"timed_out\""), "{told}");
    doors.serve().await;
    // A body without an end, and a head without one: how much of it is taken has a bound.
    let endless =
        "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    let told = flood(says(endless).await, &chunk).await;
    assert!(told.starts_with("HTTP/1.1 413 "), "{told}");
    let header = format!("X-Long: {}\r\n", "x".repeat(10_000));
    let told = flood(
        says("GET /livez HTTP/1.1\r\nHost: localhost\r\n").await,
        &header,
    )
    .await;
    assert!(told.starts_with("HTTP/1.1 431 "), "{told}");
    let many = format!(
        "GET /livez HTTP/1.1\r\n{}\r\n",
        "X-Many: 1\r\n".repeat(1_000)
    );
    let told = flood(connect(&address).await, &many).await;
    assert!(told.starts_with("HTTP/1.1 431 "), "{told}");
    doors.serve().await;
    assert_eq!(running.terminate().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_all_bodies_of_questions_keeps_nobody_from_publishing() {
    let world = World::new(TOKENS).await;
    let cli = world.cli().with("TOLLGATE_HTTP_BODY_BYTES_MAX", "100KB");
    let (running, mut doors) = opened(&cli).await;
    let head = "POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    let almost = format!("{head}{}", " ".repeat(99_999));
    let asked = format!("{{\"sql\": \"SELECT 1\"}}{}", " ".repeat(50_000));
    let mut holding = Vec::new();
    let refused = async {
        loop {
            let mut client = connect(&doors.http.address).await;
            client.write_all(almost.as_bytes()).await.unwrap();
            holding.push(client);
            let answer = doors.http.post("/api/v1/query", "application/json", &asked);
            let answer = answer.await;
            if answer.status == 503 {
                return answer.json()["code"].clone();
            }
        }
    };
    let refused = timeout(Duration::from_secs(60), refused).await;
    assert_eq!(refused.unwrap(), json!("bodies_too_many"));
    doors.serve().await;
    drop(holding);
    assert_eq!(running.terminate().await.code, Some(0));
}

/// Sends the same again and again until an answer comes; the answer.
async fn flood(stream: TcpStream, again: &str) -> String {
    let (mut reading, mut writing) = stream.into_split();
    let sending = async {
        while writing.write_all(again.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let answered = async {
        let mut bytes = [0; 64];
        let read = reading.read(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    };
    let answered = async {
        tokio::select! {
            answer = answered => answer,
            () = sending => unreachable!("it waits for ever"),
        }
    };
    timeout(Duration::from_secs(60), answered).await.unwrap()
}

/// Statements that would take all memory, or a processor for hours, and that nothing inside their process could end.
const GREEDY: [&str; 4] = [
    "SELECT array_length(generate_series(1, 2000000000))",
    "SELECT levenshtein(repeat('x', 400000), repeat('y', 400000))",
    // In a task of its own, which goes on when the answer is given up.
    "SELECT levenshtein(repeat('x', 400000), repeat(subject, 400000)) FROM events UNION ALL SELECT 1",
    "SELECT length(concat(repeat('x', 2000000000), repeat('y', 2000000000)))",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_nothing_ends_ends_the_process_that_answers_it_and_no_other() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    let cli = cli.with("TOLLGATE_HTTP_TIMEOUT", "4s");
    let cli = cli.with("TOLLGATE_HTTP_QUERY_BYTES_MAX", "1MB");
    let (mut running, mut doors) = opened(&cli).await;
    doors.serve().await;
    let json = "application/json";
    for (ended, sql) in GREEDY.into_iter().enumerate() {
        let asked = json!({ "sql": sql }).to_string();
        let answer = doors.http.post("/api/v1/query", json, &asked).await;
        assert!(matches!(answer.status, 422 | 503), "{sql}: {answer:?}");
        doors.serve().await;
        running
            .logged("ended, and is started again", ended + 1)
            .await;
    }
    // Another one answers what comes after it.
    let asked = json!({"sql": "SELECT 1 AS one"}).to_string();
    let answered = async {
        loop {
            let answer = doors.http.post("/api/v1/query", json, &asked).await;
            if answer.status == 200 {
                return answer.json()["data"].clone();
            }
        }
    };
    let answered = timeout(Duration::from_secs(60), answered).await;
    assert_eq!(answered.unwrap(), json!([{"one": 1}]));
    let log = running.log();
    assert!(log.contains("levenshtein"), "{log}");
    doors.serve().await;
    assert_eq!(running.terminate().await.code, Some(0));
    world.cli().audit().await;
}
