//! `tollgate run`: meters, until it is stopped or, with `--until-end`, until the stream's present end.

use crate::{
    billing,
    catalog::{Catalog, InForce},
    cli::{load, output},
    clock::{Clock, SystemClock},
    config::{Settings, SourceKind},
    error::{Error, Result},
    jobs::maintenance::Upkeep,
    live::live,
    reload::{Reload, Reloader, Taking},
    server::{Beside, Defining, Door},
    shard::Questions,
    supervisor::Supervisor,
    telemetry::{Progress, Report},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{io::IsTerminal, sync::Arc};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

/// Flags of `tollgate run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Stop at the stream's present end, with every window closed that is due. A file is always read so.
    #[arg(long)]
    pub until_end: bool,
}

/// Meters; prints what passed when it ends.
///
/// # Errors
/// The first start must succeed. After that, what is only unavailable is tried again with backoff.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let catalog = load(settings).await?;
    warn_of_default_plan(settings, &catalog);
    // A setting that is out of its bounds is found at the start.
    Upkeep::new(settings, &catalog)?;
    let door = Door::open(settings).await?;
    let stop = stop_on_signal()?;
    let (wanted, to_take) = watch::channel(Arc::clone(&catalog));
    let in_force = watch::Sender::new(InForce::new(catalog, SystemClock.now_us()));
    // A crash in the middle of it does no harm, so it is simply ended with the run.
    let upkeep = settings
        .maintenance
        .enabled
        .then(|| tokio::spawn(keep_up(settings.clone(), in_force.subscribe())));
    let taking = Taking::ByShard {
        wanted,
        in_force: in_force.subscribe(),
    };
    let (reload, reloading) = start_reloading(settings, arguments.until_end, taking)?.unzip();
    let supervisor = Supervisor {
        settings,
        wanted: to_take,
        in_force,
        until_end: arguments.until_end,
        progress: watch::Sender::new(Progress::default()),
    };
    let report = match door {
        None => shown(supervisor, stop, Questions::none()).await,
        Some(door) => beside_a_door(supervisor, stop, (door, reload)).await,
    };
    upkeep.iter().for_each(JoinHandle::abort);
    reloading.iter().for_each(JoinHandle::abort);
    if let Some(report) = report? {
        output::print(&summary(&report))?;
        if let Some(error) = report.stopped.into_iter().next() {
            return Err(Error::Stopped(error));
        }
    }
    Ok(())
}

/// It does not stop metering: only invoices need it.
fn warn_of_default_plan(settings: &Settings, catalog: &Catalog) {
    if settings.is_given("billing.default_plan")
        && let Some(error) = billing::no_default_plan(&catalog.definitions, settings)
    {
        tracing::warn!(
            error = error.to_string(),
            "the default plan is not defined, and invoices need it"
        );
    }
}

/// Takes changed definitions from now on, and how to ask for that. `None` of a run that ends by itself: it is over before others would
/// matter.
///
/// # Errors
/// The system does not let us listen for signals.
fn start_reloading(
    settings: &Settings,
    until_end: bool,
    taking: Taking,
) -> Result<Option<(Reload, JoinHandle<()>)>> {
    if until_end || settings.source.kind == SourceKind::Files {
        return Ok(None);
    }
    let (reload, reloader) = Reloader::new(settings, taking)?;
    Ok(Some((reload, tokio::spawn(reloader.keep_up()))))
}

/// Maintains the tables of the definitions that are in force, for ever.
async fn keep_up(settings: Settings, mut in_force: watch::Receiver<InForce>) {
    loop {
        let catalog = Arc::clone(&in_force.borrow_and_update().catalog);
        let Ok(upkeep) = Upkeep::new(&settings, &catalog) else {
            return;
        };
        tokio::select! {
            () = upkeep.keep_up(Arc::new(SystemClock)) => {}
            changed = in_force.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

/// Runs the shard, and answers over HTTP for as long as it runs; what had come by then is answered before the end.
///
/// # Errors
/// As [`supervise`], or of the door.
async fn beside_a_door(
    supervisor: Supervisor<'_>,
    stop: watch::Receiver<bool>,
    (door, reload): (Door, Option<Reload>),
) -> Result<Option<Report>> {
    let (live, questions) = live(Arc::clone(&supervisor.wanted.borrow()));
    let beside = Beside {
        live,
        progress: supervisor.progress.subscribe(),
    };
    let definitions = Defining {
        in_force: supervisor.in_force.subscribe(),
        reload,
    };
    // The door closes when a person stops the process, and when the shard has ended by itself.
    let (close, closed) = watch::channel(false);
    let answering =
        tokio::spawn(async move { door.answer(definitions, Some(beside), closed).await });
    let closing = {
        let (close, mut stop) = (close.clone(), stop.clone());
        tokio::spawn(async move {
            if stop.wait_for(|stop| *stop).await.is_ok() {
                close.send_replace(true);
            }
        })
    };
    let report = shown(supervisor, stop, questions).await;
    close.send_replace(true);
    closing.abort();
    let ended = answering
        .await
        .map_err(|_| Error::TaskEnded { task: "HTTP" })?;
    let report = report?;
    ended.map(|()| report)
}

/// Runs the shard until it ends, with its progress on a terminal: see [`Supervisor::supervise`].
///
/// # Errors
/// As the supervisor's.
pub async fn supervise(
    settings: &Settings,
    catalog: &Catalog,
    until_end: bool,
    stop: watch::Receiver<bool>,
    questions: Questions,
) -> Result<Option<Report>> {
    let catalog = Arc::new(catalog.clone());
    let supervisor = Supervisor {
        settings,
        // No other definitions are ever wanted.
        wanted: watch::channel(Arc::clone(&catalog)).1,
        in_force: watch::Sender::new(InForce::new(catalog, SystemClock.now_us())),
        until_end,
        progress: watch::Sender::new(Progress::default()),
    };
    shown(supervisor, stop, questions).await
}

async fn shown(
    supervisor: Supervisor<'_>,
    stop: watch::Receiver<bool>,
    questions: Questions,
) -> Result<Option<Report>> {
    tokio::spawn(show(supervisor.progress.subscribe()));
    supervisor.supervise(stop, questions).await
}

/// Becomes true at the first SIGINT or SIGTERM; a second one ends the process at once.
///
/// # Errors
/// The system does not let us listen for signals.
pub fn stop_on_signal() -> Result<watch::Receiver<bool>> {
    let failed = |source| Error::System {
        doing: "listening for signals",
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
    let in_error = match (report.flushes.panes_in_error, report.open_in_error) {
        (0, 0) => String::new(),
        (written, open) => format!(
            "{:>12} groups in error, {open} of them in open windows; the column `error` of the meter says why\n",
            written + open
        ),
    };
    let old = match counts.older_than_horizon {
        0 => String::new(),
        old => format!(
            ", {old} of them so old that an earlier copy may be forgotten (dedupe.horizon): was any sent before?"
        ),
    };
    format!(
        "shard {}: up to sequence {}\n\
         {:>12} messages\n{:>12} events\n{:>12} counted, {} of them late{old}\n{:>12} repeats\n\
         {:>12} rejected\n{:>12} unmatched\n{:>12} conflicts\n\
         {:>12} panes in {} flushes, {} bytes of events\n{in_error}",
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
        report.flushes.panes,
        report.flushes.durations.count,
        report.flushes.bytes,
    )
}
