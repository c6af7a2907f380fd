//! `[http]`: whether HTTP is spoken, where, and how much one caller may ask for.

use super::{Length, Size};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// `[http]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Address and port to listen at, such as `127.0.0.1:8080`. Default none: `tollgate run` speaks no HTTP, and
    /// `tollgate serve` listens at `127.0.0.1:8080`.
    pub listen: String,
    /// A proxy that speaks TLS stands before `listen`, and nothing else reaches it. Default false: an address that other
    /// machines can reach is refused, since keys would be readable on the way.
    pub behind_tls: bool,
    /// Origins such as `https://app.example.com` whose pages may ask from a browser. Default none: browsers keep every page of another origin from
    /// reading answers.
    pub cors_origins: Vec<String>,
    /// The attribute of a span, or of its resource, that says who used what it tells of. Default `user.id`. With another one, spans without it are
    /// refused.
    pub traces_subject: String,
    /// A larger body is refused, as it is sent and as it is unpacked. Default 8MB. More lets one caller send more events at
    /// once, and takes as much memory for each request.
    pub body_bytes_max: Size,
    /// A request that takes longer ends with an error. Default 30s.
    pub timeout: Length,
    /// So many connections are open at once; one that comes then ends the one that has been without an answer for the longest time. Default 1000,
    /// and never more than half of the files that the process may open. Each takes some memory, up to 400 KB when its client sends a very long head.
    pub connections_max: Count,
    /// So many queries are answered at once; one that comes then waits, up to the timeout. Default 4, of which at most 3 are
    /// statements of SQL.
    pub queries_max: Count,
    /// What sorting and grouping for one SQL statement may take in memory before they spill to disk. Default 256MB.
    pub query_bytes_max: Size,
    /// An answer with more rows is an error. Default 100000.
    pub rows_max: Count,
}

impl Default for HttpSettings {
    fn default() -> Self {
        HttpSettings {
            listen: String::new(),
            behind_tls: false,
            cors_origins: Vec::new(),
            traces_subject: "user.id".to_owned(),
            body_bytes_max: Size(8_000_000),
            timeout: Length(30_000_000),
            connections_max: Count(1_000),
            queries_max: Count(4),
            query_bytes_max: Size(256_000_000),
            rows_max: Count(100_000),
        }
    }
}

/// A whole number above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Count(pub usize);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| *number > 0);
        number
            .map(Count)
            .ok_or_else(|| format!("`{text}` is not a whole number above zero"))
    }
}

impl TryFrom<String> for Count {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Count> for String {
    fn from(count: Count) -> String {
        count.0.to_string()
    }
}
