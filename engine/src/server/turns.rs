//! Whose turn it is: how many queries are answered at once, and which statements run.

use super::worker::{Running, Watch};
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The turns of a process.
#[derive(Debug)]
pub(super) struct Turns {
    /// How many queries are answered at once.
    queries: Semaphore,
    /// How many of them may be statements of SQL: one fewer, so that the longest of these leave the questions of other routes a way.
    statements: Semaphore,
    watch: Arc<Watch>,
}

/// The turn of a statement, which runs for as long as this is kept.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _permits: [SemaphorePermit<'a>; 2],
    _running: Running,
}

/// Nothing more is answered: the process stops.
#[derive(Debug)]
pub(super) struct Stopping;

impl Turns {
    /// Turns for so many queries at once.
    pub(super) fn new(queries_max: usize) -> Self {
        Turns {
            queries: Semaphore::new(queries_max),
            statements: Semaphore::new(queries_max.saturating_sub(1).max(1)),
            watch: Arc::default(),
        }
    }

    /// The statements that run.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Waits until a query may be answered; the time that it waits counts against the request's.
    pub(super) async fn of_query(&self) -> Result<SemaphorePermit<'_>, Stopping> {
        self.queries.acquire().await.map_err(|_| Stopping)
    }

    /// The same for a statement of SQL.
    pub(super) async fn of_statement(&self, sql: &str) -> Result<Turn<'_>, Stopping> {
        let statement = self.statements.acquire().await.map_err(|_| Stopping)?;
        Ok(Turn {
            _permits: [statement, self.of_query().await?],
            _running: self.watch.begin(sql),
        })
    }
}
