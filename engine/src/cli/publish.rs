//! `tollgate publish FILE`: NDJSON CloudEvents to the stream, acknowledged.

use crate::{
    cli::{output, source::nats_options},
    config::Settings,
    error::{Error, Result},
};
use bytes::{BufMut, Bytes, BytesMut};
use clap::Args;
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};
use tollgate_connectors::nats::{Published, Publisher};

/// Arguments of `tollgate publish`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// NDJSON, one CloudEvent a line, plain or gzipped; `-` reads stdin.
    pub file: PathBuf,
    /// Events to a message. More is faster; a message is stored, or not, as a whole.
    #[arg(long, default_value = "1", value_name = "N")]
    pub batch: NonZeroUsize,
}

/// Publishes every line and prints how many messages were acknowledged.
///
/// Lines are not judged here: one that is no event is published too, and is found in the lake with
/// the reason why it does not count.
///
/// # Errors
/// The file cannot be read, or a message was not acknowledged after several tries. Publishing the
/// file again is safe: events are counted by their ids.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let lines = open(&arguments.file)?;
    let bar = progress_bar();
    let (events, published) = publish(settings, arguments, lines, &bar).await?;
    bar.finish_and_clear();
    output::print(&format!(
        "{events} events published, {} messages acknowledged, {} sent again\n",
        published.acknowledged, published.retries
    ))
}

/// Counts events as they are published.
pub(super) fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} events, {per_sec}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

async fn publish(
    settings: &Settings,
    arguments: &Arguments,
    mut lines: Box<dyn BufRead + Send>,
    bar: &ProgressBar,
) -> Result<(u64, Published)> {
    let mut batches = Batches::new(settings, arguments.batch);
    let mut publisher = Publisher::connect(nats_options(settings)).await?;
    let mut line = Vec::new();
    let mut events = 0;
    while read_line(&mut lines, &mut line, &arguments.file)? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        events += 1;
        bar.inc(1);
        if let Some((subject, payload)) = batches.add(&line) {
            publisher
                .publish(&subject, batches.headers(), payload)
                .await?;
        }
    }
    if let Some((subject, payload)) = batches.rest() {
        publisher
            .publish(&subject, batches.headers(), payload)
            .await?;
    }
    Ok((events, publisher.finish().await?))
}

/// Groups consecutive lines into messages, in the order of the file: events of a rare type that waited
/// for a batch of their own would arrive late.
pub(super) struct Batches {
    prefix: String,
    size: usize,
    headers: Vec<(String, String)>,
    waiting: BytesMut,
    events: usize,
    /// The subject of all that waits, or `<prefix>.batch` when the types differ.
    subject: String,
}

/// A message is sent before it grows past this, whatever `--batch` says: NATS refuses more than 1 MB
/// by default.
const MESSAGE_BYTES_MAX: usize = 900_000;

impl Batches {
    /// Messages of at most so many events, under the settings' first subject.
    pub(super) fn new(settings: &Settings, size: NonZeroUsize) -> Self {
        let first = settings.source.subjects.first();
        let first = first.map_or("usage.>", String::as_str);
        let content_type = match size.get() {
            1 => "application/cloudevents+json",
            _ => "application/x-ndjson",
        };
        Batches {
            prefix: first.strip_suffix(".>").unwrap_or(first).to_owned(),
            size: size.get(),
            headers: vec![("Content-Type".into(), content_type.into())],
            waiting: BytesMut::new(),
            events: 0,
            subject: String::new(),
        }
    }

    /// The headers of every message.
    pub(super) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// Adds a line; returns a message when one is full.
    pub(super) fn add(&mut self, line: &[u8]) -> Option<(String, Bytes)> {
        let too_large = self.waiting.len() + line.len() > MESSAGE_BYTES_MAX;
        let full = too_large.then(|| self.rest()).flatten();
        let subject = subject(&self.prefix, line);
        if self.events == 0 {
            self.subject = subject;
        } else {
            self.waiting.put_u8(b'\n');
            if self.subject != subject {
                self.subject = format!("{}.batch", self.prefix);
            }
        }
        self.waiting.put_slice(line);
        self.events += 1;
        match full {
            // What was just added is one event: with a batch of one nothing ever waits.
            Some(full) => Some(full),
            None if self.events >= self.size => self.rest(),
            None => None,
        }
    }

    /// What waits, as a message.
    fn rest(&mut self) -> Option<(String, Bytes)> {
        if self.events == 0 {
            return None;
        }
        self.events = 0;
        Some((self.subject.clone(), self.waiting.split().freeze()))
    }
}

/// `usage.<type>`, or `usage.invalid` when the line has no type that a subject can carry.
fn subject(prefix: &str, line: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
    }
    let is_token = |t: &str| {
        !t.is_empty()
            && t.bytes()
                .all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
    };
    let is_subject = |t: &str| t.split('.').all(is_token);
    match serde_json::from_slice::<Head<'_>>(line) {
        Ok(head) if is_subject(&head.r#type) => format!("{prefix}.{}", head.r#type),
        _ => format!("{prefix}.invalid"),
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let failed = |source| file_error(path, source);
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let is_gzip = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    Ok(match is_gzip {
        true => Box::new(BufReader::with_capacity(1 << 20, MultiGzDecoder::new(file))),
        false => Box::new(file),
    })
}

/// The longest line that is read; no event may be larger.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Reads the next line without its end; false at the end of the file.
fn read_line(lines: &mut dyn BufRead, line: &mut Vec<u8>, path: &Path) -> Result<bool> {
    line.clear();
    let read = lines.take(LINE_BYTES_MAX).read_until(b'\n', line);
    let read = read.map_err(|source| file_error(path, source))?;
    if read as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        let problem = io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} bytes"));
        return Err(file_error(path, problem));
    }
    while line
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        line.pop();
    }
    Ok(read > 0)
}

fn file_error(path: &Path, source: io::Error) -> Error {
    Error::File {
        file: path.display().to_string(),
        doing: "reading events",
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(size: usize) -> Batches {
        Batches::new(&Settings::default(), NonZeroUsize::new(size).unwrap())
    }

    #[test]
    fn the_subject_is_the_type() {
        assert_eq!(
            subject("usage", br#"{"type":"llm.completion","id":"1"}"#),
            "usage.llm.completion"
        );
        for line in [
            "{",
            "{}",
            r#"{"type":""}"#,
            r#"{"type":"a b"}"#,
            r#"{"type":"a.*"}"#,
            r#"{"type":"a..b"}"#,
        ] {
            assert_eq!(subject("usage", line.as_bytes()), "usage.invalid", "{line}");
        }
    }

    #[test]
    fn messages_keep_the_order_of_the_file_and_the_rest_is_not_lost() {
        let mut batches = batches(2);
        assert_eq!(batches.add(br#"{"type":"a","n":1}"#), None);
        let (subject, payload) = batches.add(br#"{"type":"a","n":2}"#).unwrap();
        assert_eq!(subject, "usage.a");
        assert_eq!(
            payload,
            "{\"type\":\"a\",\"n\":1}\n{\"type\":\"a\",\"n\":2}"
        );
        assert_eq!(batches.add(br#"{"type":"a","n":3}"#), None);
        let (subject, payload) = batches.add(br#"{"type":"b"}"#).unwrap();
        assert_eq!(subject, "usage.batch");
        assert_eq!(payload, "{\"type\":\"a\",\"n\":3}\n{\"type\":\"b\"}");
        assert_eq!(batches.rest(), None);
        assert_eq!(batches.add(br#"{"type":"b"}"#), None);
        let rest = Bytes::from_static(br#"{"type":"b"}"#);
        assert_eq!(batches.rest(), Some(("usage.b".to_owned(), rest)));
    }

    #[test]
    fn a_message_stays_below_what_nats_takes() {
        let mut batches = batches(1000);
        let line = format!(r#"{{"type":"a","x":"{}"}}"#, "x".repeat(400_000));
        assert_eq!(batches.add(line.as_bytes()), None);
        assert_eq!(batches.add(line.as_bytes()), None);
        let (_, payload) = batches.add(line.as_bytes()).unwrap();
        assert_eq!(payload.len(), 2 * line.len() + 1);
        assert_eq!(batches.rest().unwrap().1.len(), line.len());
    }
}
