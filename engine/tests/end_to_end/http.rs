//! A plain HTTP client, and the doors of a running command.

use crate::world::{Cli, Running};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};

/// A door.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) address: String,
    headers: Vec<(String, String)>,
}

/// What it answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Starts a command with a door at any port, and waits until it is open.
pub(crate) async fn open(cli: &Cli, arguments: &[&str]) -> (Running, Http) {
    let cli = cli.with("TOLLGATE_HTTP_LISTEN", "127.0.0.1:0");
    let mut running = cli.start(arguments);
    running.logged("HTTP opened", 1).await;
    let log = running.log();
    let (_, after) = log.split_once("HTTP opened address=").unwrap();
    let address = after.split_whitespace().next().unwrap();
    let http = Http::at(address.to_owned());
    (running, http)
}

/// The same, when it is ready.
pub(crate) async fn open_ready(cli: &Cli, arguments: &[&str]) -> (Running, Http) {
    let (running, http) = open(cli, arguments).await;
    http.until("/health/ready", |answer| answer.status == 200)
        .await;
    (running, http)
}

impl Http {
    pub(crate) fn at(address: String) -> Self {
        Http {
            address,
            headers: Vec::new(),
        }
    }

    /// The same with a key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        let mut http = self.clone();
        http.headers = vec![("Authorization".to_owned(), format!("Bearer {key}"))];
        http
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await.unwrap()
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send("GET", path, &[("Accept", accept)], b"")
            .await
            .unwrap()
    }

    pub(crate) async fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        let headers = [("Content-Type", content_type)];
        self.send("POST", path, &headers, body.as_bytes())
            .await
            .unwrap()
    }

    /// Sends one request over a connection of its own; `None` when it breaks off before the whole answer.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<Answer> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        let mine = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in headers.iter().copied().chain(mine) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let asked = async {
            let mut stream = TcpStream::connect(&self.address).await.ok()?;
            stream.write_all(request.as_bytes()).await.ok()?;
            // A door that has refused the head may not read the body.
            let _ = stream.write_all(body).await;
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            answer(&bytes, method == "HEAD")
        };
        let answered = timeout(Duration::from_secs(120), asked).await;
        answered.unwrap_or_else(|_| panic!("{method} {path} hangs"))
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, is_wanted: impl Fn(&Answer) -> bool) -> Answer {
        let mut last = None;
        let asking = async {
            let mut ticks = interval(Duration::from_millis(10));
            loop {
                ticks.tick().await;
                let answer = self.send("GET", path, &[], b"").await;
                match answer {
                    Some(answer) if is_wanted(&answer) => return answer,
                    other => last = other,
                }
            }
        };
        let wanted = timeout(Duration::from_secs(60), asking).await;
        wanted.unwrap_or_else(|_| panic!("{path} never is as wanted: {last:?}"))
    }
}

/// An answer whose length the door says, of which only the head may be wanted; `None` when it is not whole.
fn answer(bytes: &[u8], is_head: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = bytes[end + 4..].to_vec();
    if headers
        .get("transfer-encoding")
        .is_some_and(|how| how == "chunked")
    {
        let body = chunks(&body)?;
        return Some(Answer {
            status,
            headers,
            body,
        });
    }
    let length = headers
        .get("content-length")
        .map(|length| length.parse().unwrap());
    (is_head || length.unwrap_or(0) == body.len()).then_some(Answer {
        status,
        headers,
        body,
    })
}

/// A body that came in chunks; `None` when the last one is missing.
fn chunks(mut left: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = left.windows(2).position(|two| two == b"\r\n")?;
        let length = std::str::from_utf8(&left[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        left = &left[end + 2..];
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(left.get(..length)?);
        left = left.get(length + 2..)?;
    }
}
