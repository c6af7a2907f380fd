//! `tollgate run`: meters, until it is stopped or, with `--until-end`, until the stream's present end.

use crate::{
    catalog::Catalog,
    cli::{load, output, source},
    clock::{Clock, SystemClock},
    config::{Settings, SourceKind},
    dedupe,
    error::{Error, Result, chain},
    maintenance::Upkeep,
    shard::{self, Options, Parts},
    telemetry::{Progress, Report},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{io::IsTerminal, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tollgate_connectors::{
    ErrorKind,
    event::{DecodeOptions, Decoder},
    lake::Lake,
};

/// Flags of `tollgate run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Stop at the stream's present end, with every window closed. A file is always read so.
    #[arg(long)]
    pub until_end: bool,
}

/// Meters; prints what passed when it ends.
///
/// # Errors
/// The first start must succeed. After that, what is only unavailable is tried again with backoff.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let catalog = load(settings).await?;
    let upkeep = Upkeep::new(settings, &catalog)?;
    let stop = stop_on_signal()?;
    // A crash in the middle of it does no harm, so it is simply ended with the run.
    let upkeep = settings
        .maintenance
        .enabled
        .then(|| tokio::spawn(upkeep.keep_up(Arc::new(SystemClock))));
    let report = supervise(settings, &catalog, arguments.until_end, stop).await;
    upkeep.iter().for_each(JoinHandle::abort);
    if let Some(report) = report? {
        output::print(&summary(&report))?;
        if let Some(error) = report.stopped.into_iter().next() {
            return Err(Error::Stopped(error));
        }
    }
    Ok(())
}

/// Runs the shard, again after each passing fault; waits 1 s, then twice as long each time, at most
/// 30 s. Returns what the last run of the shard did, or `None` when it was stopped while waiting.
///
/// # Errors
/// Any error before the shard first ran, and any that retrying cannot mend.
pub async fn supervise(
    settings: &Settings,
    catalog: &Catalog,
    until_end: bool,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<Report>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let progress = watch::Sender::new(Progress::default());
    tokio::spawn(show(progress.subscribe()));
    let mut wait = Duration::from_secs(1);
    let mut opened = open(settings, catalog, &clock).await;
    let mut has_run = false;
    loop {
        let result = match opened {
            Ok(parts) => {
                has_run = true;
                let options = options(settings, until_end);
                shard::run(parts, options, stop.clone(), progress.clone()).await
            }
            Err(error) => Err(error),
        };
        let error = match result {
            Ok(report) => return Ok(Some(report)),
            Err(error) if has_run && error.kind() == ErrorKind::Unavailable => error,
            Err(error) => return Err(error),
        };
        tracing::warn!(error = %chain(&error), wait_s = wait.as_secs(), "shard stopped, will start again");
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = clock.sleep(wait) => {}
        }
        wait = (wait * 2).min(Duration::from_secs(30));
        opened = open(settings, catalog, &clock).await;
    }
}

/// Opens everything a shard is made of.
async fn open(settings: &Settings, catalog: &Catalog, clock: &Arc<dyn Clock>) -> Result<Parts> {
    let source = source::open(settings).await?;
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let events = catalog.create_events(&lake).await?;
    let mut tables = Vec::with_capacity(catalog.meters.len());
    for meter in &catalog.meters {
        tables.push(catalog.create_meter(&lake, meter).await?);
    }
    // From the definitions, not from the table: the fields' metadata tells where each value is.
    let schema = catalog.events_schema();
    let decoder = Decoder::new(schema, source.shard(), decode_options(settings))?;
    Ok(Parts {
        source,
        decoder,
        definitions: catalog.definitions.clone(),
        meters: catalog.meters.clone(),
        events,
        tables,
        clock: Arc::clone(clock),
    })
}

fn decode_options(settings: &Settings) -> DecodeOptions {
    DecodeOptions {
        max_future_skew_us: settings.ingest.max_future_skew.0,
        max_payload_bytes: settings.ingest.max_payload.0,
        max_event_bytes: settings.ingest.max_event.0,
        ..DecodeOptions::default()
    }
}

fn options(settings: &Settings, until_end: bool) -> Options {
    Options {
        batch_bytes: settings.source.batch_bytes.0,
        flush_interval_us: settings.flush.interval.0,
        flush_bytes: settings.flush.max_bytes.0,
        windows_bytes: settings.windows.max_bytes.0,
        dedupe: dedupe::Options {
            horizon_us: settings.dedupe.horizon.0,
            memory_bytes: settings.dedupe.memory.0,
            directory: settings.resolve(&settings.dedupe.directory),
        },
        // A file has an end, and nothing more will come.
        until_end: until_end || settings.source.kind == SourceKind::Files,
    }
}

/// Becomes true at the first SIGINT or SIGTERM; a second one ends the process at once.
///
/// # Errors
/// The system does not let us listen for signals.
pub fn stop_on_signal() -> Result<watch::Receiver<bool>> {
    let failed = |source| Error::File {
        file: "signals".into(),
        doing: "listening",
        source,
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stop was asked for");
        let _ = sender.send(true);
        tokio::select! {
            _ = interrupt.recv() => std::process::exit(130),
            _ = terminate.recv() => std::process::exit(143),
        }
    });
    Ok(receiver)
}

/// Shows progress on a terminal; says nothing elsewhere, where the log has a line a flush.
async fn show(mut progress: watch::Receiver<Progress>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{spinner} message {pos}/{len} {wide_bar} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        bar.set_length(now.end.0.max(now.position.0));
        bar.set_position(now.position.0);
        bar.set_message(format!("{} events counted", now.counts.counted));
    }
    bar.finish_and_clear();
}

/// What a run did, for people.
pub fn summary(report: &Report) -> String {
    let counts = &report.counts;
    let old = match counts.older_than_horizon {
        0 => String::new(),
        old => format!(", {old} older than the dedupe horizon"),
    };
    format!(
        "shard {}: up to sequence {}\n\
         {:>12} messages\n{:>12} events\n{:>12} counted, {} of them late{old}\n{:>12} repeats\n\
         {:>12} rejected\n{:>12} unmatched\n{:>12} conflicts\n\
         {:>12} panes in {} flushes, {} bytes of events\n",
        report.shard,
        report.position.sequence.0,
        counts.messages,
        counts.events,
        counts.counted,
        counts.late,
        counts.repeats,
        counts.rejected,
        counts.unmatched,
        counts.conflicts,
        report.panes,
        report.flushes,
        report.bytes,
    )
}
