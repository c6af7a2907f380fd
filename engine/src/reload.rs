//! Definitions that change while a process runs: read and checked whole, new meters filled in over history beside the shard, then taken.
//!
//! ```text
//!  SIGHUP, POST …/reload ─▶ check: folder, prices, lake ─▶ fill new meters in ─▶ wanted
//!                                   supervisor: the shard ends between two batches, starts with them ─▶ in force ─▶ doors
//! ```
//!
//! It owns the order of these steps. It does not own what a check is, which is [`crate::checking`] and [`crate::jobs::fit`], nor how a shard
//! starts with other definitions, which is [`crate::supervisor`].

use crate::{
    catalog::{Catalog, InForce},
    checking::load,
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result, chain},
    jobs::{
        backfill::{Panes, Span, backfill},
        fit,
    },
    supervisor::check_paths,
};
use std::sync::Arc;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
};
use tollgate_connectors::lake::Lake;

/// One that asks waits for what became of it.
type Request = oneshot::Sender<Result<()>>;

/// Asks a process to take its definitions folder again.
#[derive(Debug, Clone)]
pub struct Reload(mpsc::Sender<Request>);

/// Takes the definitions folder again when it is asked to.
#[derive(Debug)]
pub struct Reloader {
    settings: Settings,
    taking: Taking,
    requests: mpsc::Receiver<Request>,
    hangup: Signal,
}

/// Who takes definitions.
#[derive(Debug)]
pub enum Taking {
    /// A shard, when it starts next.
    ByShard {
        /// What it is to take.
        wanted: watch::Sender<Arc<Catalog>>,
        /// What it works by.
        in_force: watch::Receiver<InForce>,
    },
    /// What answers from the lake alone, at once.
    AtOnce(watch::Sender<InForce>),
}

impl Reload {
    /// Returns when the folder's definitions are in force.
    ///
    /// # Errors
    /// They are refused, with all that is wrong, and those before stay in force; [`Error::NotRunning`] when the process stops.
    pub async fn ask(&self) -> Result<()> {
        let (request, answer) = oneshot::channel();
        if self.0.send(request).await.is_err() {
            return Err(Error::NotRunning);
        }
        answer.await.map_err(|_| Error::NotRunning)?
    }
}

impl Reloader {
    /// A handle to ask with, and what answers SIGHUP too, from now on.
    ///
    /// # Errors
    /// The system does not let us listen for signals.
    pub fn new(settings: &Settings, taking: Taking) -> Result<(Reload, Self)> {
        let hangup = signal(SignalKind::hangup()).map_err(|source| Error::System {
            doing: "listening for signals",
            source,
        })?;
        // Those that come while one is dealt with wait to ask.
        let (sender, requests) = mpsc::channel(1);
        let reloader = Reloader {
            settings: settings.clone(),
            taking,
            requests,
            hangup,
        };
        Ok((Reload(sender), reloader))
    }

    /// Takes the folder each time that it is asked to, for ever. What is refused is logged, and said to the one that asked.
    pub async fn keep_up(mut self) {
        loop {
            let request = tokio::select! {
                hung_up = self.hangup.recv() => match hung_up {
                    Some(()) => None,
                    None => return,
                },
                Some(request) = self.requests.recv() => Some(request),
            };
            let taken = Box::pin(self.take()).await;
            match &taken {
                Ok(()) => tracing::info!("definitions were taken anew"),
                Err(error) => {
                    let error = chain(error);
                    tracing::error!(
                        error,
                        "definitions were refused, those before stay in force"
                    );
                }
            }
            if let Some(request) = request {
                // One that went away is told nothing.
                let _ = request.send(taken);
            }
        }
    }

    async fn take(&mut self) -> Result<()> {
        let catalog = load(&self.settings).await?;
        self.check_lake(&catalog).await?;
        let settings = &self.settings;
        match &mut self.taking {
            Taking::AtOnce(in_force) => {
                in_force.send_replace(InForce::new(catalog, SystemClock.now_us()));
                Ok(())
            }
            Taking::ByShard { wanted, in_force } => {
                let before = Arc::clone(&in_force.borrow().catalog);
                fill_in(settings, &catalog, &before).await;
                wanted.send_replace(Arc::clone(&catalog));
                is_taken(in_force, &catalog).await
            }
        }
    }

    /// Refuses definitions that a shard or a query could not go on with in this lake. What only invoices need is told.
    async fn check_lake(&self, catalog: &Catalog) -> Result<()> {
        let lake = Lake::open_to_read(&self.settings.lake.url, &self.settings.base).await?;
        check_paths(catalog, &lake).await?;
        let now_us = SystemClock.now_us();
        let problems = fit::problems(catalog, &self.settings, &lake, now_us).await?;
        let is_of_invoices =
            |error: &Error| matches!(error, Error::Config { .. } | Error::Billing { .. });
        let (of_invoices, problems): (Vec<Error>, Vec<Error>) =
            problems.into_iter().partition(is_of_invoices);
        for error in of_invoices {
            let error = chain(&error);
            tracing::warn!(error, "invoices cannot be made by the definitions");
        }
        Error::all(problems)
    }
}

/// Fills meters in that there were not before. What fails here, the shard does when it starts.
async fn fill_in(settings: &Settings, catalog: &Catalog, before: &Catalog) {
    let new = catalog.meters.iter().map(|meter| &meter.definition().name);
    for name in new.filter(|name| before.meter(name).is_none()) {
        match fill_in_one(settings, catalog, name).await {
            Ok(panes) => tracing::info!(meter = name, panes, "new meter was filled in"),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    meter = name,
                    error,
                    "new meter was not filled in beside the shard"
                );
            }
        }
    }
}

async fn fill_in_one(settings: &Settings, catalog: &Catalog, name: &str) -> Result<u64> {
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let (span, bytes) = (Span::default(), settings.flush.max_bytes.0);
    let panes = Panes::Written(&SystemClock);
    let filled = backfill(catalog, &lake, name, span, bytes, panes).await?;
    Ok(filled.iter().map(|filled| filled.panes).sum())
}

/// Returns when the shard works by definitions.
async fn is_taken(in_force: &mut watch::Receiver<InForce>, catalog: &Arc<Catalog>) -> Result<()> {
    let is_told = |in_force: &InForce| {
        let refused = in_force.refused.as_ref();
        Arc::ptr_eq(&in_force.catalog, catalog)
            || refused.is_some_and(|(refused, _)| Arc::ptr_eq(refused, catalog))
    };
    let told = in_force.wait_for(is_told).await;
    let told = told.map_err(|_| Error::NotRunning)?;
    match &told.refused {
        Some((refused, why)) if Arc::ptr_eq(refused, catalog) => Err(Error::Config {
            file: "definitions".into(),
            problem: why.clone(),
        }),
        _ => Ok(()),
    }
}
