//! One message by its sequence, asked from the stream and read without the client's parser of headers.
//!
//! The client drops its connection, or its task ends, at a message whose header block or subject it cannot
//! read, and does so again at every redelivery. Here the server wraps the message into JSON, so nothing in it
//! can do that.

use super::{connect::Link, refusal};
use crate::{Message, Result, Sequence, Unread, error::Cause};
use async_nats::{
    HeaderName,
    jetstream::{ErrorCode, response::Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;

/// What the server answers.
#[derive(Debug, Deserialize)]
struct Answer {
    message: Stored,
}

/// A message as JetStream's API shows it.
#[derive(Debug, Deserialize)]
struct Stored {
    seq: u64,
    time: String,
    /// The header block, in base64.
    hdrs: Option<String>,
    /// The payload, in base64.
    #[serde(default)]
    data: String,
}

/// The stored message with this sequence; `None` when there is none.
///
/// # Errors
/// [`crate::Error::Unreachable`] when no server answers, [`crate::Error::Source`] when the answer is an error.
pub(super) async fn message(link: &Link, sequence: Sequence) -> Result<Option<Message>> {
    let options = &link.options;
    let subject = format!("STREAM.MSG.GET.{}", options.stream);
    let request = serde_json::json!({ "seq": sequence.0 });
    let answer: Response<Answer> = link.request(subject, &request).await?;
    let doing = "reading one message";
    match answer {
        Response::Ok(answer) => {
            let message = answer.message.read();
            message
                .map(Some)
                .map_err(|cause| options.failed(doing, cause))
        }
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(refusal::of_answer(options, doing, &error)),
    }
}

impl Stored {
    fn read(self) -> Result<Message, Cause> {
        let time: jiff::Timestamp = self.time.parse()?;
        let block = self.hdrs.map(|text| BASE64_STANDARD.decode(text));
        let block = block.transpose()?.unwrap_or_default();
        let read = match block.is_empty() {
            true => Ok(Vec::new()),
            false => read_headers(&block),
        };
        let (headers, unread) = match read {
            Ok(headers) => (headers, None),
            Err(problem) => {
                let block = Bytes::from(block);
                (Vec::new(), Some(Unread { block, problem }))
            }
        };
        Ok(Message {
            sequence: Sequence(self.seq),
            ingest_time_us: micros(time.as_nanosecond())?,
            headers,
            payload: BASE64_STANDARD.decode(self.data)?.into(),
            unread,
        })
    }
}

/// Whole microseconds; the rest is cut off towards the past, the same way everywhere.
pub(super) fn micros(nanos: i128) -> Result<i64, Cause> {
    Ok(i64::try_from(nanos.div_euclid(1_000))?)
}

/// Reads a header block by the client's own rules, so that a message is the same whichever way it comes:
/// names and values by name, several values of one name in their order.
///
/// # Errors
/// Why the client cannot read it.
fn read_headers(block: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(block)
        .map_err(|error| format!("not valid UTF-8 at byte {}", error.valid_up_to()))?;
    let mut lines = text.lines().peekable();
    let version = lines.next().and_then(|line| line.strip_prefix("NATS/1.0"));
    match version.map(str::trim) {
        None => return Err("the first line is not `NATS/1.0`".to_owned()),
        Some("") => {}
        // A client takes these for messages of the server itself, such as heartbeats.
        Some(_) => return Err("the first line has a status after `NATS/1.0`".to_owned()),
    }
    let mut headers = Vec::new();
    let mut number = 1;
    while let Some(line) = lines.next() {
        number += 1;
        if line.is_empty() {
            continue;
        }
        let place = number;
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("line {place} has no colon"))?;
        if name.parse::<HeaderName>().is_err() {
            return Err(format!(
                "line {place} has a name with characters that none may have"
            ));
        }
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            number += 1;
            value.push_str(more);
        }
        value.truncate(value.trim_end().len());
        if value.contains(['\r', '\n']) {
            return Err(format!("line {place} has a carriage return in its value"));
        }
        headers.push((name.to_owned(), value));
    }
    // Stable: several values of one name stay in the order they came.
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_epoch_is_cut_towards_the_past() {
        assert_eq!(micros(1_999).unwrap(), 1);
        assert_eq!(micros(-1).unwrap(), -1);
        assert_eq!(micros(-1_000).unwrap(), -1);
        assert!(micros(i128::MAX).is_err());
    }

    #[test]
    fn a_block_is_read_as_the_client_reads_it() {
        let block = b"NATS/1.0\r\nx: 2\r\nCe-Id:  a \r\n b\r\nx:1\r\n\r\n";
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [owned("Ce-Id", "a  b"), owned("x", "2"), owned("x", "1")];
        assert_eq!(read_headers(block).unwrap(), expected);
        assert!(read_headers(b"NATS/1.0\r\n\r\n").unwrap().is_empty());
    }

    #[test]
    fn what_the_client_cannot_read_is_named() {
        for (block, problem) in [
            (
                &b"NATS/1.0\r\nX: \xff\r\n\r\n"[..],
                "not valid UTF-8 at byte 13",
            ),
            (
                b"NATS/1.0\r\na: 1\r\nno colon\r\n\r\n",
                "line 3 has no colon",
            ),
            (
                b"NATS/1.0\r\na: 1\rb: 2\r\n\r\n",
                "line 2 has a carriage return in its value",
            ),
            (
                b"NATS/1.0\r\na b: 1\r\n\r\n",
                "line 2 has a name with characters that none may have",
            ),
            (
                b"NATS/1.0\r\n: 1\r\nwith\ttab: 1\r\n\r\n",
                "line 3 has a name with characters that none may have",
            ),
            (b"a: 1\r\n\r\n", "the first line is not `NATS/1.0`"),
            (
                b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
                "the first line has a status after `NATS/1.0`",
            ),
        ] {
            assert_eq!(read_headers(block), Err(problem.to_owned()));
        }
    }

    #[test]
    fn a_message_whose_headers_cannot_be_read_keeps_its_block_and_payload() {
        let stored = Stored {
            seq: 7,
            time: "2026-10-01T00:00:00.000001999Z".into(),
            hdrs: Some(BASE64_STANDARD.encode(b"NATS/1.0\r\nno\r\n\r\n")),
            data: BASE64_STANDARD.encode(b"{}"),
        };
        let message = stored.read().unwrap();
        assert_eq!(message.ingest_time_us, 1_790_812_800_000_001);
        assert_eq!(message.payload, "{}");
        assert_eq!(message.raw().unwrap(), b"NATS/1.0\r\nno\r\n\r\n{}");
    }
}
