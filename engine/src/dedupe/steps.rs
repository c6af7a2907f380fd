//! The steps of keeping ids: where a process can be made to die, and what a test sees of them.

use std::path::Path;
use tollgate_connectors::failpoint;

/// Says that a step of keeping ids is reached, of a file in the folder of ids.
pub(super) fn reached(file: &Path, step: &str) {
    failpoint::reached("ids", step);
    #[cfg(test)]
    watch::reached(file, step);
    #[cfg(not(test))]
    let _ = file;
}

/// What a test sees of the steps.
#[cfg(test)]
pub(crate) mod watch {
    use std::{
        collections::BTreeMap,
        path::{Path, PathBuf},
        sync::{Arc, Mutex, PoisonError},
    };

    /// Gets the folder and the step.
    pub(crate) type Watcher = Arc<dyn Fn(&Path, &str) + Send + Sync>;

    static WATCHERS: Mutex<BTreeMap<PathBuf, Watcher>> = Mutex::new(BTreeMap::new());

    /// Watches all folders below one, until `None` is set.
    pub(crate) fn set(below: &Path, watcher: Option<Watcher>) {
        let mut watchers = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
        match watcher {
            Some(watcher) => watchers.insert(below.to_owned(), watcher),
            None => watchers.remove(below),
        };
    }

    pub(super) fn reached(file: &Path, step: &str) {
        let watchers = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
        let above = |below: &&PathBuf| file.starts_with(below);
        let watcher = watchers.iter().find(|(below, _)| above(below));
        let watcher = watcher.map(|(_, watcher)| Arc::clone(watcher));
        drop(watchers);
        if let (Some(watcher), Some(folder)) = (watcher, file.parent()) {
            watcher(folder, step);
        }
    }
}
