//! Opens one shard and keeps it running.
//!
//! It owns when a shard starts again, and what it is opened from. It does not own what a shard does, which is
//! [`crate::shard`], nor how a person sees its progress.

use crate::{
    catalog::{Catalog, InForce},
    clock::{Clock, SystemClock},
    commit::Marks,
    config::{Settings, SourceKind},
    dedupe,
    epoch::Epoch,
    error::{Error, Result, chain},
    several::several,
    shard::{self, Options, Parts, Questions},
    source, tables,
    telemetry::{Counts, Progress, Report},
};
use arrow::datatypes::{DataType, Field, Schema};
use futures::FutureExt;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tollgate_connectors::{
    ErrorKind, Source, Table,
    event::{DecodeOptions, Decoder, NearestType},
    lake::Lake,
};
use tollgate_sql::parser::nearest;

/// Runs one shard.
#[derive(Debug)]
pub struct Supervisor<'a> {
    /// What everything is opened by.
    pub settings: &'a Settings,
    /// What is measured: when it changes, the shard ends between two batches and starts with the new one.
    pub wanted: watch::Receiver<Arc<Catalog>>,
    /// Where it is said what is measured now.
    pub in_force: watch::Sender<InForce>,
    /// Whether the run ends at the source's present end.
    pub until_end: bool,
    /// Where it is said how far the shard is.
    pub progress: watch::Sender<Progress>,
}

impl Supervisor<'_> {
    /// Runs the shard, again after each passing fault, waiting longer each time (`Retry`), and at once when other definitions are
    /// wanted. Returns what the last run of the shard did, with those that ended for other definitions just before it, or `None` when it
    /// was stopped while waiting. Questions wait while the shard does.
    ///
    /// Definitions that the shard cannot start with are given up for those before.
    ///
    /// # Errors
    /// Any error that retrying cannot mend. Before everything was opened once, any error at all, but that a
    /// run without end waits for a NATS server that cannot be reached yet.
    pub async fn supervise(
        mut self,
        mut stop: watch::Receiver<bool>,
        mut questions: Questions,
    ) -> Result<Option<Report>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut acquired = self.progress.subscribe();
        let mut retry = Retry::default();
        let mut was_opened = false;
        let mut definitions = Taken {
            now: Arc::clone(&self.wanted.borrow_and_update()),
            before: None,
        };
        let mut done: Option<Report> = None;
        loop {
            self.take_wanted(&mut definitions);
            let began_us = clock.now_us();
            self.progress.send_modify(|p| p.counts = Counts::default());
            acquired.mark_unchanged();
            let stopping = match self.is_bounded() {
                true => stop.clone(),
                false => until(stop.clone(), self.wanted.clone()),
            };
            let shard = (&mut questions, &mut was_opened);
            let result = self.run(&definitions.now, &clock, stopping, shard).await;
            if self.progress.borrow().is_reading {
                definitions.before = None;
            }
            // Told to no one: a change says that the shard was acquired.
            self.progress.send_if_modified(|p| {
                p.is_reading = false;
                false
            });
            let error = match result {
                Ok(report) => {
                    let report = report.after(done.take());
                    if *stop.borrow() || !self.wants_others() {
                        return Ok(Some(report));
                    }
                    tracing::info!("shard ended for other definitions");
                    done = Some(report);
                    continue;
                }
                Err(error) if may_pass(&error, was_opened, self.until_end) => error,
                Err(error) => {
                    self.give_up(&mut definitions, error)?;
                    continue;
                }
            };
            done = None;
            let end = Ended {
                was_acquired: acquired.has_changed().unwrap_or(false),
                messages: self.progress.borrow().counts.messages,
                ran_us: clock.now_us().saturating_sub(began_us),
            };
            let wait = retry.after(chain(&error), end);
            if self.until_end && retry.is_enough() {
                return Err(error);
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
                () = clock.sleep(wait) => {}
            }
        }
    }
}

/// The definitions that a shard is run with.
struct Taken {
    now: Arc<Catalog>,
    /// Those that it last read with, until it reads with these.
    before: Option<Arc<Catalog>>,
}

impl Supervisor<'_> {
    /// Whether the run has an end of its own: it keeps the definitions that it began with.
    fn is_bounded(&self) -> bool {
        options(self.settings, self.until_end).until_end
    }

    /// Whether the shard is to run with other definitions.
    fn wants_others(&self) -> bool {
        !self.is_bounded() && self.wanted.has_changed().unwrap_or(false)
    }

    /// Takes the definitions that are wanted, if they are others.
    fn take_wanted(&mut self, taken: &mut Taken) {
        if self.wants_others() {
            let wanted = Arc::clone(&self.wanted.borrow_and_update());
            let last = std::mem::replace(&mut taken.now, wanted);
            taken.before.get_or_insert(last);
        }
    }

    /// Opens the shard and runs it until it ends.
    async fn run(
        &self,
        catalog: &Arc<Catalog>,
        clock: &Arc<dyn Clock>,
        stop: watch::Receiver<bool>,
        (questions, was_opened): (&mut Questions, &mut bool),
    ) -> Result<Report> {
        let parts = open(self.settings, catalog, clock).await?;
        *was_opened = true;
        still_ours(&parts, self.progress.borrow().epoch)?;
        let options = options(self.settings, self.until_end);
        let (progress, mut reading) = (self.progress.clone(), self.progress.subscribe());
        let mut running = Box::pin(shard::run(parts, options, stop, progress, questions));
        tokio::select! {
            biased;
            result = &mut running => result,
            () = async { drop(reading.wait_for(|said| said.is_reading).await) } => {
                self.come_into_force(catalog, clock.now_us());
                running.await
            }
        }
    }

    /// Goes back to the definitions before, when the shard never read with those that it was to start with.
    ///
    /// # Errors
    /// The error, when there are none before, or it is of something else.
    fn give_up(&self, taken: &mut Taken, error: Error) -> Result<()> {
        let before = taken.before.take();
        let Some(before) = before.filter(|_| error.kind() == ErrorKind::Invalid) else {
            return Err(error);
        };
        self.refuse(&taken.now, &error);
        taken.now = before;
        Ok(())
    }

    /// Says that the shard reads with definitions, if that is news.
    fn come_into_force(&self, catalog: &Arc<Catalog>, now_us: i64) {
        self.in_force.send_if_modified(|in_force| {
            let is_news = !Arc::ptr_eq(&in_force.catalog, catalog);
            if is_news {
                *in_force = InForce::new(Arc::clone(catalog), now_us);
            }
            is_news
        });
    }

    /// Says that the shard could not start with definitions, so that those before stay.
    fn refuse(&self, refused: &Arc<Catalog>, error: &Error) {
        let error = chain(error);
        tracing::error!(
            error,
            "shard did not start with the definitions, those before stay in force"
        );
        self.in_force.send_modify(|in_force| {
            in_force.refused = Some((Arc::clone(refused), error));
        });
    }
}

/// Becomes true when the process stops, and when other definitions are wanted.
fn until(
    mut stop: watch::Receiver<bool>,
    mut wanted: watch::Receiver<Arc<Catalog>>,
) -> watch::Receiver<bool> {
    let (ends, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let changed = async {
            // Where definitions cannot change any more, there is nothing to wait for.
            if wanted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = changed => {}
            () = ends.closed() => {}
        }
        ends.send_replace(true);
    });
    receiver
}

/// Refuses to take back a shard that another process took over while this one, its last owner as `epoch`,
/// waited. Two processes would do that to each other for ever.
fn still_ours(parts: &Parts, epoch: Epoch) -> Result<()> {
    let shard = parts.source.shard().to_owned();
    match Marks::of(&shard).epoch_in(parts.events.as_ref()) {
        Some(theirs) if epoch > Epoch::default() && theirs > epoch => Err(Error::Fenced {
            shard,
            ours: epoch,
            theirs: Some(theirs),
        }),
        _ => Ok(()),
    }
}

/// Whether to try again: a fault that may pass, once everything was there. A server that is not up yet is
/// waited for too, unless the run is a job with an end, whose caller wants to know at once.
fn may_pass(error: &Error, was_opened: bool, until_end: bool) -> bool {
    let is_unreachable = matches!(
        error,
        Error::Connector(tollgate_connectors::Error::Unreachable { .. })
    );
    error.kind() == ErrorKind::Unavailable && (was_opened || (is_unreachable && !until_end))
}

/// So many errors in a row end a run with an end, after some two minutes: its caller waits for the end.
const ERRORS_UNTIL_END: u32 = 9;

/// How a run of the shard ended that an error stopped.
#[derive(Debug, Clone, Copy)]
struct Ended {
    /// It got as far as owning the shard.
    was_acquired: bool,
    /// How many messages it read.
    messages: u64,
    /// How long it took, from opening everything on.
    ran_us: i64,
}

impl Ended {
    /// Whether it was at work: its next fault is a new story.
    fn was_well(&self) -> bool {
        self.messages > 0 || self.ran_us >= 60_000_000
    }
}

/// How long to wait before the shard starts again: 1 s, then twice as long each time, at most 30 s, until
/// it was at work again.
#[derive(Debug, Default)]
struct Retry {
    waited: Option<Duration>,
    /// How many errors came since the shard was at work.
    in_a_row: u32,
    /// The last error that was said.
    said: Option<String>,
}

impl Retry {
    /// The wait after an error. Says the error if it is news: another one than before, or one that
    /// stopped a shard that had been acquired.
    fn after(&mut self, error: String, end: Ended) -> Duration {
        let last = self.waited.filter(|_| !end.was_well());
        let wait = last.map_or(Duration::from_secs(1), |last| {
            (last * 2).min(Duration::from_secs(30))
        });
        self.waited = Some(wait);
        self.in_a_row = match end.was_well() {
            true => 1,
            false => self.in_a_row + 1,
        };
        let wait_s = wait.as_secs();
        if end.was_acquired || self.said.as_ref() != Some(&error) {
            tracing::warn!(error, wait_s, "shard stopped, will start again");
            self.said = Some(error);
        } else {
            tracing::debug!(wait_s, "shard could not start yet");
        }
        wait
    }

    /// Whether a run with an end has seen enough errors.
    fn is_enough(&self) -> bool {
        self.in_a_row >= ERRORS_UNTIL_END
    }
}

/// Opens everything a shard is made of.
async fn open(settings: &Settings, catalog: &Catalog, clock: &Arc<dyn Clock>) -> Result<Parts> {
    let source = source::open(settings).await?;
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    check_paths(catalog, &lake).await?;
    let options = decode_options(settings);
    parts(catalog, &lake, source, options, Arc::clone(clock)).await
}

/// What a shard is made of that reads a source by definitions into a lake. Tables that are missing are made.
///
/// # Errors
/// A table cannot be opened, or is another meter's; the definitions make no decoder.
pub async fn parts(
    catalog: &Catalog,
    lake: &Lake,
    source: Box<dyn Source>,
    options: DecodeOptions,
    clock: Arc<dyn Clock>,
) -> Result<Parts> {
    let events = catalog.create_events(lake).await?;
    let meters = catalog.meters.iter();
    let tables = meters.map(|meter| catalog.own_meter(lake, meter).boxed());
    let tables = several(tables.collect::<Vec<_>>()).await?;
    // From the definitions, not from the table: the fields' metadata tells where each value is.
    let decoder = Decoder::new(catalog.events_schema(), source.shard(), options)?;
    Ok(Parts {
        source,
        decoder,
        definitions: catalog.definitions.clone(),
        checks: catalog.checks.clone(),
        meters: catalog.meters.clone(),
        events,
        tables,
        clock,
    })
}

/// Refuses columns of which it is not clear what they read, unless the lake has them already.
pub(crate) async fn check_paths(catalog: &Catalog, lake: &Lake) -> Result<()> {
    let stored = match lake.existing(tables::EVENTS).await? {
        Some(events) => events.provider()?.schema(),
        None => Arc::new(Schema::empty()),
    };
    let is_stored = |event_type: &str, column: &str| {
        let of_type = stored.field_with_name(event_type).map(Field::data_type);
        matches!(of_type, Ok(DataType::Struct(columns)) if columns.find(column).is_some())
    };
    Ok(catalog.definitions.check_paths(is_stored)?)
}

pub(crate) fn decode_options(settings: &Settings) -> DecodeOptions {
    DecodeOptions {
        max_future_skew_us: settings.ingest.max_future_skew.0,
        max_payload_bytes: settings.ingest.max_payload.0,
        max_event_bytes: settings.ingest.max_event.0,
        nearest_type: NearestType(|name, known| {
            let near = nearest(name, known)?;
            known.iter().position(|known| *known == near)
        }),
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
        start: settings.source.start,
        replaces: settings.source.replaces.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_connectors::Error as Edge;

    #[test]
    fn the_wait_doubles_up_to_half_a_minute_and_starts_over_when_the_shard_was_at_work() {
        let mut retry = Retry::default();
        let mut wait = |messages, ran_us| {
            let end = Ended {
                was_acquired: true,
                messages,
                ran_us,
            };
            retry.after("down".into(), end).as_secs()
        };
        let waits: Vec<u64> = (0..7).map(|_| wait(0, 0)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(wait(0, 59_999_999), 30);
        assert_eq!([wait(0, 60_000_000), wait(0, 0)], [1, 2]);
        assert_eq!([wait(1, 0), wait(0, 0)], [1, 2]);
    }

    #[test]
    fn nine_errors_in_a_row_end_a_run_with_an_end_whatever_they_say() {
        let mut retry = Retry::default();
        let mut fails = |messages, ran_us| {
            let end = Ended {
                was_acquired: messages > 0,
                messages,
                ran_us,
            };
            retry.after(format!("down {messages} {ran_us}"), end);
            retry.is_enough()
        };
        for in_a_row in 1..9 {
            assert!(!fails(0, in_a_row), "{in_a_row}");
        }
        assert!(fails(0, 9));
        // Work in between, be it one message or a minute, makes the next error the first again.
        for work in [(1, 0), (0, 60_000_000)] {
            assert!(!fails(work.0, work.1));
            for in_a_row in 2..9 {
                assert!(!fails(0, 0), "{in_a_row}");
            }
            assert!(fails(0, 59_999_999));
        }
    }

    #[test]
    fn only_a_server_that_is_not_there_yet_is_waited_for_at_the_start() {
        let down = Error::from(Edge::Unreachable {
            what: "NATS",
            url: "nats://host".into(),
            source: "refused".into(),
        });
        let lake = Error::from(Edge::Table {
            table: "events".into(),
            doing: "reading",
            source: "odd".into(),
        });
        assert!(may_pass(&down, false, false) && !may_pass(&down, false, true));
        assert!(may_pass(&lake, true, true) && !may_pass(&lake, false, false));
        assert!(!may_pass(&Error::TaskEnded { task: "reader" }, true, false));
    }
}
