//! `tollgate publish FILE`: NDJSON CloudEvents to the stream, acknowledged.

use crate::{
    catalog::Catalog,
    cli::output,
    clock::{Clock, SystemClock},
    config::{Settings, SourceKind},
    error::{Error, Result, chain},
    outgoing::Batches,
    shard::refused,
    source::nats_options,
    supervisor::decode_options,
};
use arrow::array::AsArray;
use bytes::Bytes;
use clap::Args;
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tollgate_connectors::{
    Message, Sequence,
    event::{Decoder, Status},
    files::BYTE_ORDER_MARK,
    nats::{Published, Publisher},
};
use tollgate_sql::event_checks::EventChecks;

/// Arguments of `tollgate publish`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// NDJSON, one CloudEvent a line, plain or gzipped; `-` reads stdin.
    pub file: PathBuf,
    /// Events to a message. More is faster; a message is stored, or not, as a whole.
    #[arg(long, default_value = "1", value_name = "N")]
    pub batch: NonZeroUsize,
    /// Publish nothing when a line would be rejected or has no event type: the file is checked to its end first. Of stdin, which
    /// may have no end, what is before such a line is published, and nothing from it on.
    #[arg(long)]
    pub strict: bool,
}

/// Publishes every line and prints how many messages were acknowledged.
///
/// A line that would not count is published too, after a warning: it is found in the lake with the reason.
///
/// # Errors
/// The file cannot be read, or a message was not acknowledged after several tries. Publishing the
/// file again is safe: events are counted by their ids. With `--strict`, a line that would not count.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    if settings.source.kind == SourceKind::Files {
        return Err(Error::Config {
            file: "source.kind".into(),
            problem: "is `files`, and `publish` sends to a stream; set it to `nats`, with `url` and `stream`"
                .into(),
        });
    }
    let mut judge = Judge::load(settings, arguments).await?;
    if arguments.strict && arguments.file != Path::new("-") {
        judge.read_all(arguments)?;
    }
    let lines = open(&arguments.file)?;
    let bar = progress_bar();
    let (events, published) = publish(settings, arguments, lines, &mut judge, &bar).await?;
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
    judge: &mut Judge,
    bar: &ProgressBar,
) -> Result<(u64, Published)> {
    let mut batches = Batches::new(settings, arguments.batch);
    let mut publisher = Publisher::connect(nats_options(settings)).await?;
    let mut sent = Sent::default();
    let mut number = 0;
    loop {
        let chunk = read_chunk(&mut lines, &mut number, &arguments.file)?;
        if chunk.is_empty() {
            break;
        }
        let bad = judge.judge(&chunk)?;
        // What was read before a bad line is good and partly sent: it is sent as a whole.
        let is_last = arguments.strict && bad.is_some();
        let good = bad.filter(|_| arguments.strict).unwrap_or(chunk.len());
        for line in chunk.into_iter().take(good) {
            bar.inc(1);
            sent.wait(&line);
            if let Some((subject, payload)) = batches.add(&line.bytes) {
                sent.send(&mut publisher, &batches, &subject, payload, arguments)
                    .await?;
            }
        }
        if is_last {
            break;
        }
    }
    if let Some((subject, payload)) = batches.rest() {
        sent.send(&mut publisher, &batches, &subject, payload, arguments)
            .await?;
    }
    let published = sent.finish(&mut publisher, arguments).await?;
    match arguments.strict && judge.bad > 0 {
        true => Err(judge.refused(Some(sent.events))),
        false => Ok((sent.events, published)),
    }
}

/// A line of the file that is not blank.
struct Line {
    /// From 1.
    number: u64,
    bytes: Vec<u8>,
}

impl Line {
    /// How a person finds it.
    fn name(&self) -> Named {
        #[derive(Deserialize)]
        struct Head {
            id: String,
        }
        let head = serde_json::from_slice::<Head>(&self.bytes).ok();
        Named {
            line: self.number,
            id: head.map(|head| head.id),
        }
    }
}

/// A line by its number and, where it has one, its event's id.
#[derive(Debug, Clone)]
struct Named {
    line: u64,
    id: Option<String>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "line {} (id {id:?})", self.line),
            None => write!(f, "line {}", self.line),
        }
    }
}

/// The lines of a message that is on its way.
struct InFlight {
    number: u64,
    first: Named,
    last: Named,
    events: u64,
}

/// Which lines are in which message, for as long as its acknowledgement is due.
#[derive(Default)]
struct Sent {
    /// Read, and not yet in a message.
    waiting: VecDeque<Named>,
    in_flight: VecDeque<InFlight>,
    messages: u64,
    /// In messages.
    events: u64,
}

impl Sent {
    fn wait(&mut self, line: &Line) {
        self.waiting.push_back(line.name());
    }

    /// Publishes a message, which holds the lines that wait first.
    async fn send(
        &mut self,
        publisher: &mut Publisher,
        batches: &Batches,
        subject: &str,
        payload: Bytes,
        arguments: &Arguments,
    ) -> Result<()> {
        // A line holds no line feed, and a message a line feed between any two.
        let events = payload.iter().filter(|byte| **byte == b'\n').count() + 1;
        let lines = self.waiting.drain(..events.min(self.waiting.len()));
        let lines: Vec<Named> = lines.collect();
        if let (Some(first), Some(last)) = (lines.first().cloned(), lines.last().cloned()) {
            self.messages += 1;
            let number = self.messages;
            let events = u64::try_from(events).unwrap_or(u64::MAX);
            self.events += events;
            self.in_flight.push_back(InFlight {
                number,
                first,
                last,
                events,
            });
        }
        let published = publisher.publish(subject, batches.headers(), payload).await;
        if let Err(error) = published {
            return Err(self.failed(publisher, error, arguments).await);
        }
        // They are acknowledged in their order, as long as none failed.
        let acknowledged = publisher.counts().acknowledged;
        while self
            .in_flight
            .front()
            .is_some_and(|message| message.number <= acknowledged)
        {
            self.in_flight.pop_front();
        }
        Ok(())
    }

    /// Waits for all acknowledgements.
    async fn finish(
        &mut self,
        publisher: &mut Publisher,
        arguments: &Arguments,
    ) -> Result<Published> {
        match publisher.flush().await {
            Ok(published) => Ok(published),
            Err(error) => Err(self.failed(publisher, error, arguments).await),
        }
    }

    /// The error with the lines that it is about, and what became of the others.
    async fn failed(
        &mut self,
        publisher: &mut Publisher,
        error: tollgate_connectors::Error,
        arguments: &Arguments,
    ) -> Error {
        let tollgate_connectors::Error::Unpublished { number, cause } = error else {
            return error.into();
        };
        let mut failed = publisher.settle().await;
        failed.push(number);
        let lost = self
            .in_flight
            .iter()
            .filter(|message| failed.contains(&message.number));
        let published = self.events - lost.map(|message| message.events).sum::<u64>();
        let place = self
            .in_flight
            .iter()
            .find(|message| message.number == number);
        let place = place.map_or_else(String::new, |message| match message.events {
            1 => message.first.to_string(),
            _ => format!("{} to {}", message.first, message.last),
        });
        Error::Unpublished {
            place: format!("{}: {place}", arguments.file.display()),
            published,
            source: cause,
        }
    }
}

/// Says which lines will be set aside, before they are sent.
struct Judge {
    /// `None` when the definitions cannot be read.
    decoder: Option<Decoder>,
    checks: Vec<Arc<EventChecks>>,
    file: PathBuf,
    bad: u64,
    first: Option<String>,
}

/// So many lines are said one by one.
const SAID_MAX: u64 = 20;

impl Judge {
    async fn load(settings: &Settings, arguments: &Arguments) -> Result<Self> {
        let mut judge = Judge {
            decoder: None,
            checks: Vec::new(),
            file: arguments.file.clone(),
            bad: 0,
            first: None,
        };
        match Catalog::load(settings).await {
            Ok(catalog) => {
                let schema = catalog.events_schema();
                let options = decode_options(settings);
                judge.decoder = Some(Decoder::new(schema, &settings.source.stream, options)?);
                judge.checks.clone_from(&catalog.checks);
            }
            Err(error) if arguments.strict => return Err(error),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "definitions cannot be read, so no line is checked");
            }
        }
        Ok(judge)
    }

    /// Judges the whole file, then forgets it, so that it is not said twice.
    fn read_all(&mut self, arguments: &Arguments) -> Result<()> {
        let mut lines = open(&arguments.file)?;
        let mut number = 0;
        loop {
            let chunk = read_chunk(&mut lines, &mut number, &arguments.file)?;
            if chunk.is_empty() {
                break;
            }
            self.judge(&chunk)?;
        }
        if self.bad > 0 {
            return Err(self.refused(None));
        }
        // What was found good need not be judged again.
        self.decoder = None;
        Ok(())
    }

    /// Warns of lines that will be set aside; returns the place of the first.
    ///
    /// # Errors
    /// A check of an event type cannot be evaluated.
    fn judge(&mut self, chunk: &[Line]) -> Result<Option<usize>> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(None);
        };
        let mut found = None;
        let now_us = SystemClock.now_us();
        let content_type = (
            "Content-Type".to_owned(),
            "application/cloudevents+json".to_owned(),
        );
        let messages: Vec<Message> = chunk
            .iter()
            .map(|line| Message {
                sequence: Sequence(line.number),
                ingest_time_us: now_us,
                headers: vec![content_type.clone()],
                payload: line.bytes.clone().into(),
                unread: None,
            })
            .collect();
        let decoded = decoder.decode(&messages)?;
        let refused = refused(&self.checks, &decoded.events)?;
        let reasons = decoded.events.head()["reason"].as_string::<i32>();
        // A line of JSON makes one row.
        for (row, (line, status)) in chunk.iter().zip(&decoded.statuses).enumerate() {
            let reason = match (refused.get(&row), status) {
                (Some(reason), _) => reason.as_str(),
                (None, Status::Ok) => continue,
                (None, _) => reasons.value(row),
            };
            found = found.or(Some(row));
            self.bad += 1;
            let place = line.name().to_string();
            let file = self.file.display().to_string();
            if self.bad <= SAID_MAX {
                tracing::warn!(file, place, reason, "this event will not be counted");
            }
            self.first
                .get_or_insert_with(|| format!("{file}: {place}: {reason}"));
        }
        Ok(found)
    }

    fn refused(&self, published: Option<u64>) -> Error {
        Error::Strict {
            first: self.first.clone().unwrap_or_default(),
            lines: self.bad,
            published,
        }
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

/// So many lines, or bytes of them, are judged at once.
const CHUNK_LINES: usize = 1_000;
const CHUNK_BYTES: usize = 1 << 20;

/// The next lines that are not blank; `number` is the last line that was read. Empty at the end.
fn read_chunk(lines: &mut dyn BufRead, number: &mut u64, path: &Path) -> Result<Vec<Line>> {
    let mut chunk = Vec::new();
    let mut size = 0;
    let mut bytes = Vec::new();
    while chunk.len() < CHUNK_LINES && size < CHUNK_BYTES && read_line(lines, &mut bytes, path)? {
        *number += 1;
        if *number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        size += bytes.len();
        let (number, bytes) = (*number, std::mem::take(&mut bytes));
        chunk.push(Line { number, bytes });
    }
    Ok(chunk)
}

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
