//! What a table's log says at one version.

use super::{
    Version,
    action::{Add, Line, Metadata, Protocol, Remove, Txn},
};
use std::collections::BTreeMap;

/// What a log says, up to one version. Of each mark and of each file the last word counts.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) version: Version,
    /// The checkpoint that was read.
    pub(crate) checkpoint: Option<Version>,
    /// When the store says that the version was written, in milliseconds since the Unix epoch.
    pub(crate) written_ms: i64,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) marks: BTreeMap<String, Txn>,
    pub(crate) files: BTreeMap<String, Add>,
    /// Files that were removed, as far back as the log remembers.
    pub(crate) removed: BTreeMap<String, Remove>,
}

impl State {
    pub(crate) fn take(&mut self, line: Line) {
        if let Some(protocol) = line.protocol {
            self.protocol = Some(protocol);
        }
        if let Some(metadata) = line.meta_data {
            self.metadata = Some(*metadata);
        }
        if let Some(txn) = line.txn {
            self.marks.insert(txn.app_id.clone(), txn);
        }
        if let Some(add) = line.add {
            self.removed.remove(&add.path);
            self.files.insert(add.path.clone(), *add);
        }
        if let Some(remove) = line.remove {
            self.files.remove(&remove.path);
            self.removed.insert(remove.path.clone(), *remove);
        }
    }
}
