//! What a process leaves of its index for the next start, and the proof that it belongs to the lake.
//!
//! ```text
//!  <directory>/ids/<hash of table and shard>/manifest     which runs hold the ids up to which sequence; replaced whole
//!                                            <name>.run   keys; written once, never changed
//! ```
//!
//! A run has a name that no other process uses, and a manifest names only runs that are written and synced. So two
//! processes over one folder cannot change what the other one reads: at worst, one deletes a run that the other's
//! manifest names, and then that manifest is not used.
//!
//! It owns when the manifest is written and what makes it valid. What is done with an index that is not valid is the
//! matter of [`crate::recovery`].

use super::{
    run::{Label, Run, RunFile},
    steps::reached,
};
use crate::{commit::Position, error::Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tollgate_connectors::{CommitId, LoggedCommit, Sequence, Table, Version};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The first word of a manifest; another layout of manifest or runs has another one.
const FORMAT: &str = "tollgate-ids-1";
const MANIFEST: &str = "manifest";

/// Whose ids an index has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    /// The identity of the `events` table.
    pub table: String,
    /// The shard.
    pub shard: String,
    /// How far back they are known, in microseconds.
    pub horizon_us: i64,
    /// The shards whose ids are known too, and when their places were taken, in microseconds.
    pub taken: BTreeMap<String, i64>,
}

/// A commit of `events`: its version and its commit id.
///
/// A version of a log is written once and a commit id is used once. So a log that has this commit at this version has
/// everything that came before it too, whatever was copied, restored or begun anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    version: Version,
    commit: String,
}

impl Proof {
    /// The proof that a commit makes that was just made.
    pub(crate) fn new(version: Version, commit: &CommitId) -> Self {
        Proof {
            version,
            commit: commit.0.clone(),
        }
    }

    /// The proof that a logged commit makes; `None` when it is not one of ours.
    pub fn of(commit: &LoggedCommit) -> Option<Self> {
        let id = commit.commit_id.as_ref()?;
        Some(Proof::new(commit.version, id))
    }

    /// The newest commit of the loaded snapshot; `None` when it is not one of ours, or cannot be read.
    pub async fn newest(events: &dyn Table) -> Option<Self> {
        let newest = events.logged(events.version()).await;
        Proof::of(&newest.ok().flatten()?)
    }

    /// Whether the commit is in a log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) async fn holds(&self, events: &dyn Table) -> Result<bool> {
        if self.version > events.version() {
            return Ok(false);
        }
        let there = events.logged(self.version).await?;
        Ok(there.as_ref().and_then(Proof::of).as_ref() == Some(self))
    }
}

/// What an index that was kept holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    whose: Whose,
    /// Every counted event up to here is in it.
    pub(crate) sequence: u64,
    /// But for ids that were stored before this, in microseconds.
    pub(crate) forgotten_us: i64,
    /// A commit that has this sequence.
    pub(crate) proof: Proof,
    /// Oldest first.
    pub(super) runs: Vec<Label>,
}

impl Manifest {
    /// Reads the manifest of a folder, if it has one.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, String> {
        match fs::read_to_string(folder.join(MANIFEST)) {
            Ok(text) => Manifest::parse(&text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let Some((head, body)) = text.split_once('\n') else {
            return Err("its manifest is cut off".to_owned());
        };
        let Some(hash) = head.strip_prefix(FORMAT) else {
            return Err("its manifest has another format".to_owned());
        };
        if hash != sum(body) {
            return Err("its manifest is damaged".to_owned());
        }
        serde_json::from_str(body).map_err(|error| format!("its manifest: {error}"))
    }

    fn text(&self) -> io::Result<String> {
        let body = serde_json::to_string(self)?;
        Ok(format!("{FORMAT}{}\n{body}", sum(&body)))
    }

    /// Decides whether an index is the one of a shard at a position, as far as it says itself: [`Proof::holds`] says
    /// the rest. `oldest_us` is the time before which the shard needs no id, in microseconds. Does no I/O.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn check(
        &self,
        whose: &Whose,
        sequence: Sequence,
        oldest_us: i64,
    ) -> Result<(), String> {
        let problem = if (&self.whose.table, &self.whose.shard) != (&whose.table, &whose.shard) {
            "it is another shard's"
        } else if self.whose.taken != whose.taken {
            "the shard has taken the place of another one since"
        } else if self.whose.horizon_us != whose.horizon_us {
            "dedupe.horizon is another one now"
        } else if self.sequence > sequence.0 {
            "it is newer than the lake"
        } else if self.forgotten_us > oldest_us {
            "ids are to be known that it has forgotten"
        } else {
            return Ok(());
        };
        Err(problem.to_owned())
    }
}

fn sum(body: &str) -> String {
    format!(" {:016x}", xxh3_64(body.as_bytes()))
}

/// What the lake has for sure.
#[derive(Debug)]
struct Committed {
    sequence: Sequence,
    /// Ids that were stored before this are not needed any more, in microseconds.
    oldest_us: i64,
    proof: Proof,
}

/// What is on disk and waits until the lake has it too.
#[derive(Debug)]
struct Ready {
    sequence: Sequence,
    forgotten_us: i64,
    runs: Vec<Arc<Run>>,
}

/// Writes the manifest of one folder.
#[derive(Debug)]
pub(super) struct Keeper {
    folder: PathBuf,
    whose: Whose,
    ready: Option<Ready>,
    committed: Option<Committed>,
    /// The files that the manifest names.
    named: Vec<Arc<RunFile>>,
}

impl Keeper {
    pub(super) fn new(directory: &Path, whose: Whose) -> Self {
        let key = format!("{} {} {}", whose.table.len(), whose.table, whose.shard);
        let name = format!("{:032x}", xxh3_128(key.as_bytes()));
        Keeper {
            folder: directory.join("ids").join(name),
            whose,
            ready: None,
            committed: None,
            named: Vec::new(),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes over the runs that a manifest names.
    pub(super) fn adopt(&mut self, runs: &[Arc<Run>]) {
        self.named = runs.iter().map(|run| Arc::clone(run.file())).collect();
    }

    /// Removes the files of the folder that no manifest names: those of a process that was killed.
    pub(super) fn sweep(&self) {
        let Ok(files) = fs::read_dir(&self.folder) else {
            return;
        };
        let manifest = Manifest::read(&self.folder).ok().flatten();
        let runs = manifest.iter().flat_map(|manifest| &manifest.runs);
        let named: BTreeSet<&str> = runs.map(Label::name).chain([MANIFEST]).collect();
        for file in files.flatten() {
            if !named.contains(&*file.file_name().to_string_lossy()) {
                // What cannot be removed takes room and does no harm.
                let _ = fs::remove_file(file.path());
            }
        }
    }

    /// Makes the next start read all ids from the lake.
    pub(super) fn discard(&mut self) {
        // First, so that no manifest names a run that is gone; the check of each run would find that too.
        let _ = fs::remove_file(self.folder.join(MANIFEST));
        self.named.drain(..).for_each(|file| file.keep(false));
        self.ready = None;
    }

    /// Notes that every id up to a sequence is in these runs, but for those from before `forgotten_us`. What was noted
    /// before and is not in the lake yet goes first: else an index that grows faster than the lake is never written.
    pub(super) fn note(&mut self, sequence: Sequence, forgotten_us: i64, runs: &[Arc<Run>]) {
        self.ready.get_or_insert_with(|| Ready {
            sequence,
            forgotten_us,
            runs: runs.to_vec(),
        });
    }

    /// Notes what the lake has now.
    pub(super) fn committed(&mut self, position: &Position, oldest_us: i64, proof: Proof) {
        self.committed = Some(Committed {
            sequence: position.sequence,
            oldest_us,
            proof,
        });
    }

    /// Writes the manifest, if there is something to write that the lake has too: an id that the lake does not have is
    /// read again after a crash, and must be new then. The same holds for ids that were forgotten by the watermark of
    /// events that are not in the lake: they come again before that watermark does.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let (Some(ready), Some(committed)) = (&self.ready, &self.committed) else {
            return Ok(());
        };
        if ready.sequence > committed.sequence || ready.forgotten_us > committed.oldest_us {
            return Ok(());
        }
        let manifest = Manifest {
            whose: self.whose.clone(),
            sequence: ready.sequence.0,
            forgotten_us: ready.forgotten_us,
            proof: committed.proof.clone(),
            runs: ready.runs.iter().map(|run| run.label().clone()).collect(),
        };
        let files: Vec<Arc<RunFile>> = ready.runs.iter().map(|r| Arc::clone(r.file())).collect();
        self.ready = None;
        fs::create_dir_all(&self.folder)?;
        // The names of the runs, before the name that needs them.
        sync_folder(&self.folder)?;
        files.iter().for_each(|file| file.keep(true));
        if let Err(error) = replace(&self.folder, &manifest.text()?) {
            // Whether the new one is there is unknown; the old one is not worth finding out.
            self.named.extend(files);
            self.discard();
            return Err(error);
        }
        let is_named = |old: &Arc<RunFile>| files.iter().any(|file| Arc::ptr_eq(file, old));
        for old in std::mem::take(&mut self.named) {
            old.keep(is_named(&old));
        }
        self.named = files;
        reached(&self.folder.join(MANIFEST), "removed");
        Ok(())
    }
}

/// Gives the manifest a new content, which is there whole or not at all.
fn replace(folder: &Path, text: &str) -> io::Result<()> {
    let aside = folder.join(format!("{}.aside", uuid::Uuid::now_v7().simple()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    reached(&aside, "aside");
    fs::rename(&aside, folder.join(MANIFEST))?;
    reached(&aside, "renamed");
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
