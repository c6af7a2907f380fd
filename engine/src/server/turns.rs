//! Whose turn it is: how many queries are answered at once, and which statements run.
//!
//! A statement runs until the last task that it has started ends, be its answer given up long before: a task that does not pause
//! cannot be stopped, and what it holds is not free.

use super::watchdog::{Running, Watchdog};
use crate::{
    config::HttpSettings,
    error::{Error, Result as Done},
};
use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::{FutureExt, future::BoxFuture};
use std::{any::Any, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task_local,
};

/// What the process for statements may have in memory besides what they take.
const BYTES_BESIDES: usize = 1_000_000_000;

/// How many of the queries at once may be statements of SQL: one fewer, so that the longest of these leave the questions of other routes a way.
fn statements_max(http: &HttpSettings) -> usize {
    http.queries_max.0.saturating_sub(1).max(1)
}

/// The turns of a process.
#[derive(Debug)]
pub(super) struct Turns {
    /// How many queries are answered at once.
    queries: Arc<Semaphore>,
    /// How many of them may be statements of SQL.
    statements: Arc<Semaphore>,
    watchdog: Arc<Watchdog>,
}

/// What a statement holds while it runs.
#[derive(Debug)]
struct Held {
    _permits: [OwnedSemaphorePermit; 2],
    _running: Running,
}

task_local! {
    /// Of the statement that a task works for.
    static HELD: Arc<Held>;
}

/// Nothing more is answered: the process stops.
#[derive(Debug)]
pub(super) struct Stopping;

impl Turns {
    /// As many as the settings say.
    pub(super) fn new(http: &HttpSettings) -> Self {
        Turns {
            queries: Arc::new(Semaphore::new(http.queries_max.0)),
            statements: Arc::new(Semaphore::new(statements_max(http))),
            watchdog: Arc::default(),
        }
    }

    /// Ends the process, from now on, when statements take more than they may: a quarter longer than a request and a second, or more memory than
    /// all of them together and what the process needs besides.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn guard(&self, http: &HttpSettings) -> Done<()> {
        // A second call in one process keeps the first, which is the same.
        let _ = set_join_set_tracer(&Tasks);
        let longest = http.timeout.duration();
        let longest = longest + longest / 4 + Duration::from_secs(1);
        let bytes = http.query_bytes_max.0.saturating_mul(statements_max(http));
        let kib_max =
            u64::try_from(bytes.saturating_add(BYTES_BESIDES)).unwrap_or(u64::MAX) / 1_024;
        let started = self.watchdog.start(longest, kib_max);
        started.map_err(|source| Error::System {
            doing: "starting a thread",
            source,
        })
    }

    /// Waits until a query may be answered; the time that it waits counts against the request's.
    pub(super) async fn of_query(&self) -> Result<SemaphorePermit<'_>, Stopping> {
        self.queries.acquire().await.map_err(|_| Stopping)
    }

    /// Waits until a statement of SQL may be answered, and answers it.
    ///
    /// # Errors
    /// Those of `work`, or the process stops.
    pub(super) async fn of_statement<T, E: From<Stopping>>(
        &self,
        sql: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let turn = async |turns: &Arc<Semaphore>| {
            let turn = Arc::clone(turns).acquire_owned().await;
            turn.map_err(|_| Stopping)
        };
        let held = Arc::new(Held {
            _permits: [turn(&self.statements).await?, turn(&self.queries).await?],
            _running: self.watchdog.begin(sql),
        });
        HELD.scope(held, work).await
    }
}

/// Lets each task that DataFusion starts hold what its statement does.
struct Tasks;

impl JoinSetTracer for Tasks {
    fn trace_future(
        &self,
        task: BoxFuture<'static, Box<dyn Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn Any + Send>> {
        match HELD.try_with(Arc::clone) {
            Ok(held) => HELD.scope(held, task).boxed(),
            Err(_) => task,
        }
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        match HELD.try_with(Arc::clone) {
            Ok(held) => Box::new(move || {
                let done = block();
                drop(held);
                done
            }),
            Err(_) => block,
        }
    }
}
