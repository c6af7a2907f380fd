//! Ends a worker that takes too much: a thread beside those that answer, which none of them can hold up.

use crate::telemetry::memory_kib;
use std::{
    collections::BTreeMap,
    fs, io, process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What a worker that took too much ends with.
const TOOK_TOO_MUCH: i32 = 70;

/// So often it is looked.
const EVERY: Duration = Duration::from_millis(20);

/// So much of a statement is logged.
const SHOWN: usize = 500;

/// The statements that run.
#[derive(Debug, Default)]
pub(super) struct Watchdog(Mutex<BTreeMap<u64, (Instant, String)>>);

/// One that runs, until it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    watchdog: Arc<Watchdog>,
    number: u64,
}

impl Watchdog {
    /// A statement begins.
    pub(super) fn begin(self: &Arc<Self>, sql: &str) -> Running {
        let mut running = self.running();
        let number = running.last_key_value().map_or(0, |(last, _)| last + 1);
        let shown = sql.chars().take(SHOWN).collect();
        running.insert(number, (Instant::now(), shown));
        Running {
            watchdog: Arc::clone(self),
            number,
        }
    }

    /// Looks from now on, and ends the process when one statement runs for longer than it may, or all of them take more memory.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(self: &Arc<Self>, longest: Duration, kib_max: u64) -> io::Result<()> {
        // Where the machine runs out of memory first, the kernel is to choose this process. Where it cannot be told, it chooses the largest.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
        let watchdog = Arc::clone(self);
        let look = move || loop {
            thread::sleep(EVERY);
            watchdog.look(longest, kib_max);
        };
        thread::Builder::new().name("watchdog".into()).spawn(look)?;
        Ok(())
    }

    fn look(&self, longest: Duration, kib_max: u64) {
        let running = self.running();
        let mut began = running.values();
        if let Some((_, sql)) = began.find(|(began, _)| began.elapsed() > longest) {
            tracing::error!(
                sql,
                "statement does not end, so the process for statements does"
            );
            process::exit(TOOK_TOO_MUCH);
        }
        let resident = memory_kib(process::id(), "VmRSS");
        if let Some(kib) = resident.filter(|kib| *kib > kib_max) {
            let sql: Vec<&str> = running.values().map(|(_, sql)| sql.as_str()).collect();
            let sql = sql.join("; ");
            tracing::error!(
                sql,
                kib,
                kib_max,
                "statements take more memory than they may, so the process for statements ends"
            );
            process::exit(TOOK_TOO_MUCH);
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watchdog.running().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_runs_until_it_is_dropped() {
        let watchdog = Arc::new(Watchdog::default());
        let (first, second) = (watchdog.begin("SELECT 1"), watchdog.begin("SELECT 2"));
        drop(first);
        let left: Vec<String> = watchdog
            .running()
            .values()
            .map(|(_, sql)| sql.clone())
            .collect();
        assert_eq!(left, ["SELECT 2"]);
        drop(second);
        assert!(watchdog.running().is_empty());
    }
}
