//! Generated events on their way into the stream, or into the file that stands for it.

use crate::{
    cli::demo::generator::Batch,
    config::{Settings, SourceKind},
    error::{Error, Result},
    source::nats_options,
};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};
use tollgate_connectors::nats::Publisher;

/// Events in one message, for the bulk of them.
pub(super) const EVENTS_PER_MESSAGE: usize = 100;

/// What was sent, and where to.
#[derive(Debug)]
pub(super) enum Sent {
    /// To the stream.
    Messages {
        events: u64,
        messages: u64,
        stream: String,
    },
    /// To a file.
    Lines { events: u64, file: PathBuf },
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sent::Messages {
                events,
                messages,
                stream,
            } => {
                write!(
                    f,
                    "published {events} events in {messages} messages to the stream {stream}, all acknowledged"
                )
            }
            Sent::Lines { events, file } => {
                write!(f, "wrote {events} events to {}", file.display())
            }
        }
    }
}

/// Sends messages to where the settings read from.
///
/// # Errors
/// A message was not acknowledged, or the file cannot be written.
pub(super) async fn send(
    messages: impl Iterator<Item = Batch>,
    settings: &Settings,
    events: u64,
) -> Result<Sent> {
    let bar = progress_bar(events);
    let messages = messages.inspect(|message| bar.inc(message.events));
    let sent = match settings.source.kind {
        SourceKind::Nats => publish(messages, settings).await,
        SourceKind::Files => write(messages, settings),
    };
    bar.finish_and_clear();
    sent
}

/// Shown on a terminal only.
fn progress_bar(events: u64) -> ProgressBar {
    let bar = ProgressBar::new(events);
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} event {pos}/{len} {wide_bar} {per_sec}")
    {
        bar.set_style(style);
    }
    bar
}

async fn publish(messages: impl Iterator<Item = Batch>, settings: &Settings) -> Result<Sent> {
    let mut publisher = Publisher::connect(nats_options(settings)).await?;
    let mut events = 0;
    for batch in messages {
        let (subject, content_type) = route(&batch);
        let headers = [("Content-Type".to_owned(), content_type.to_owned())];
        events += batch.events;
        publisher
            .publish(subject, &headers, Bytes::from(batch.payload))
            .await?;
    }
    let published = publisher.finish().await?;
    Ok(Sent::Messages {
        events,
        messages: published.acknowledged,
        stream: settings.source.stream.clone(),
    })
}

/// All kinds of events share a message: apart, the rarer ones would be sent long after the others of
/// their time, and would be late.
fn route(batch: &Batch) -> (&'static str, &'static str) {
    if batch.is_single {
        ("usage.single", "application/cloudevents+json")
    } else {
        ("usage.batch", "application/x-ndjson")
    }
}

fn write(messages: impl Iterator<Item = Batch>, settings: &Settings) -> Result<Sent> {
    let path = settings.resolve(&settings.source.path);
    let failed = |source: io::Error| Error::File {
        file: path.display().to_string(),
        doing: "writing the demo's events",
        source,
    };
    let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
    let mut events = 0;
    for batch in messages {
        events += batch.events;
        file.write_all(&batch.payload)
            .and_then(|()| file.write_all(b"\n"))
            .map_err(failed)?;
    }
    file.flush().map_err(failed)?;
    Ok(Sent::Lines { events, file: path })
}
