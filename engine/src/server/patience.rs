//! Ends a worker that takes too much: a thread beside those that answer, which none of them can hold up.

use std::{
    collections::BTreeMap,
    fs,
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
pub(super) struct Watch(Mutex<BTreeMap<u64, (Instant, String)>>);

/// One that runs, until it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    watch: Arc<Watch>,
    number: u64,
}

impl Watch {
    /// A statement begins.
    pub(super) fn begin(self: &Arc<Self>, sql: &str) -> Running {
        let mut running = self.running();
        let number = running.last_key_value().map_or(0, |(last, _)| last + 1);
        let shown = sql.chars().take(SHOWN).collect();
        running.insert(number, (Instant::now(), shown));
        Running {
            watch: Arc::clone(self),
            number,
        }
    }

    /// Looks from now on, and ends the process when one statement runs for longer than it may, or all of them take more memory.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn look(self: &Arc<Self>, longest: Duration, bytes_max: u64) -> std::io::Result<()> {
        // Where the machine runs out of memory first, the kernel is to choose this process. Where it cannot be told, it chooses the largest.
        let _ = fs::write("/proc/self/oom_score_adj", "1000");
        let watch = Arc::clone(self);
        let look = move || loop {
            thread::sleep(EVERY);
            let resident = fs::read_to_string("/proc/self/status").ok();
            let resident = resident.as_deref().and_then(resident_bytes);
            let running = watch.running();
            let too_long = running
                .values()
                .find(|(began, _)| began.elapsed() > longest);
            if let Some((_, sql)) = too_long {
                tracing::error!(
                    sql,
                    "statement does not end, so the process for statements does"
                );
                std::process::exit(TOOK_TOO_MUCH);
            }
            if resident.is_some_and(|bytes| bytes > bytes_max) {
                let sql: Vec<&str> = running.values().map(|(_, sql)| sql.as_str()).collect();
                let (sql, bytes) = (sql.join("; "), resident.unwrap_or_default());
                tracing::error!(
                    sql,
                    bytes,
                    bytes_max,
                    "statements take more memory than they may, so the process for statements ends"
                );
                std::process::exit(TOOK_TOO_MUCH);
            }
        };
        thread::Builder::new().name("watch".into()).spawn(look)?;
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watch.running().remove(&self.number);
    }
}

/// What is in memory, of what Linux says of a process.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_resident_is_read_in_bytes() {
        let status = "VmHWM:\t  200 kB\nVmRSS:\t  12345 kB\nRssAnon: 1 kB\n";
        assert_eq!(resident_bytes(status), Some(12_345 * 1_024));
        assert_eq!(resident_bytes("VmRSS: much"), None);
    }

    #[test]
    fn a_statement_runs_until_it_is_dropped() {
        let watch = Arc::new(Watch::default());
        let (first, second) = (watch.begin("SELECT 1"), watch.begin("SELECT 2"));
        drop(first);
        let left: Vec<String> = watch
            .running()
            .values()
            .map(|(_, sql)| sql.clone())
            .collect();
        assert_eq!(left, ["SELECT 2"]);
        drop(second);
        assert!(watch.running().is_empty());
    }
}
