//! How a commit lands: the race for the next version, and what may keep us from taking it.

use super::DeltaTable;
use crate::{
    error::{Error, Result},
    failpoint,
    lake::{
        Attempt, LoggedCommit, Table, Version,
        change::{Change, entry},
        load::{load, write_checkpoint},
        log::{Commit, VACUUMED, Written},
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// Commits to wait after a checkpoint failed.
const CHECKPOINT_RETRY_COMMITS: Version = 10;
/// How often a commit gives way to commits of others before it is reported as failed.
const TRIES: usize = 100;

impl DeltaTable {
    /// Commits a change, then writes a checkpoint if one is due.
    pub(crate) async fn make(&mut self, attempt: &Attempt, change: &Change<'_>) -> Result<Version> {
        let version = self.land(attempt, change).await?;
        self.last = Some((attempt.commit_id.clone(), version));
        self.checkpoint_if_due().await;
        Ok(version)
    }

    /// Creates the next version that is free, giving way to commits that do not concern us.
    async fn land(&mut self, attempt: &Attempt, change: &Change<'_>) -> Result<Version> {
        if let Some(version) = self.fenced {
            return Err(self.fenced_at(version));
        }
        if !self.log.has(self.version).await? {
            self.catch_up(attempt, change).await?;
        }
        self.tried = Some(attempt.commit_id.clone());
        let bytes = entry(attempt, change, &self.partition, self.version)
            .map_err(|e| self.log.failed("writing the commit down", e))?;
        for _ in 0..TRIES {
            self.check_not_vacuumed(change)?;
            let version = self.version + 1;
            if self.log.create(version, bytes.clone()).await? == Written::Created {
                // A writer that was suspended just here may have created a version that was cleaned up before.
                self.check_base().await?;
                self.apply(ours(version, attempt, change));
                return Ok(version);
            }
            let winner = self.log.read(version).await?.ok_or_else(|| {
                self.log
                    .failed("reading the log", format!("version {version} is gone"))
            })?;
            if winner.logged.commit_id.as_ref() == Some(&attempt.commit_id) {
                // An earlier try landed and its answer was lost.
                self.apply(winner);
                return Ok(version);
            }
            if collides(&winner, attempt, change) {
                return Err(self.fenced_at(version));
            }
            self.give_way(winner).await?;
        }
        Err(self
            .log
            .failed("the commit", "others kept committing first"))
    }

    /// Takes in a commit of someone else that does not concern our marks.
    async fn give_way(&mut self, winner: Commit) -> Result<()> {
        if !winner.redefined {
            self.apply(winner);
            return Ok(());
        }
        let version = winner.logged.version;
        let loaded = load(&self.log, Some(version)).await?;
        let loaded =
            loaded.ok_or_else(|| self.log.failed("loading the table", "its log is gone"))?;
        self.adopt(loaded)
    }

    fn apply(&mut self, commit: Commit) {
        self.version = commit.logged.version;
        self.removed = None;
        self.marks.extend(commit.logged.marks);
        let files = Arc::make_mut(&mut self.files);
        let mut replaced: BTreeSet<&str> = commit.removed.iter().map(String::as_str).collect();
        if commit.logged.commit_id.is_none() {
            // Another tool may add a file again, for its statistics: its rows count once all the
            // same. The names of our own files carry the commit's id, so they are new.
            replaced.extend(commit.added.iter().map(|file| file.path.as_str()));
        }
        if !replaced.is_empty() {
            files.retain(|file| !replaced.contains(file.path.as_str()));
        }
        files.extend(commit.added.into_iter().map(Arc::new));
    }

    /// The version we stand on must still be in the log: once it was cleaned up, the number after
    /// it may be free again, and a commit there would be lost.
    pub(super) async fn check_base(&self) -> Result<()> {
        match self.log.has(self.version).await? {
            true => Ok(()),
            false => Err(self.slept_too_long()),
        }
    }

    /// Goes on from the newest version, because the log of the one we stand on was cleaned up while
    /// this table had nothing to commit. No other writer may have moved the attempt's marks; and it must be one
    /// that was never tried, as whether another one landed can no longer be found out, and that
    /// replaces nothing, as those files may be gone.
    async fn catch_up(&mut self, attempt: &Attempt, change: &Change<'_>) -> Result<()> {
        if self.tried.as_ref() == Some(&attempt.commit_id) || !change.removed().is_empty() {
            return Err(self.slept_too_long());
        }
        let loaded = load(&self.log, None).await?;
        let loaded = loaded.ok_or_else(|| self.slept_too_long())?;
        let moved = |mark: &String| loaded.marks.get(mark) != self.marks.get(mark);
        if attempt.marks.keys().any(moved) {
            return Err(self.fenced_at(loaded.version));
        }
        self.adopt(loaded)
    }

    fn slept_too_long(&self) -> Error {
        Error::Data {
            table: self.log.table.clone(),
            problem: format!(
                "version {} is no longer in its log; this process slept too long, restart it",
                self.version
            ),
        }
    }

    /// A file that waited too long for its commit may be deleted already. Every vacuum first commits
    /// how far it goes, so no writer can miss it.
    fn check_not_vacuumed(&self, change: &Change<'_>) -> Result<()> {
        let vacuumed = self.mark(VACUUMED).unwrap_or(i64::MIN);
        match change.added().iter().find(|f| f.modified_ms < vacuumed) {
            None => Ok(()),
            Some(file) => Err(Error::Data {
                table: self.log.table.clone(),
                problem: format!(
                    "{} waited too long for its commit and was deleted as left over; this process \
                     slept too long, restart it",
                    file.path
                ),
            }),
        }
    }

    async fn checkpoint_if_due(&mut self) {
        if self.version >= self.checkpoint_due {
            self.try_checkpoint().await;
        }
    }

    /// Writes a checkpoint. Whatever happens here, the commit before it stands.
    pub(crate) async fn try_checkpoint(&mut self) {
        if let Err(error) = self.checkpoint().await {
            self.checkpoint_due = self.version + CHECKPOINT_RETRY_COMMITS;
            tracing::warn!(
                table = self.log.table,
                version = self.version,
                error = &error as &dyn std::error::Error,
                "checkpoint failed"
            );
        }
    }

    /// Writes a checkpoint of the loaded version and loads that same version from it. The version is
    /// pinned, so nothing of a newer owner can slip in.
    async fn checkpoint(&mut self) -> Result<()> {
        write_checkpoint(&self.log, self.version).await?;
        failpoint::reached(&self.log.table, "checkpointed");
        let loaded = load(&self.log, Some(self.version)).await?;
        let loaded =
            loaded.ok_or_else(|| self.log.failed("loading the table", "its log is gone"))?;
        if loaded.marks != self.marks || loaded.files.len() != self.files.len() {
            self.fenced = Some(self.version);
            return Err(self.fenced_at(self.version));
        }
        self.adopt(loaded)
    }

    fn fenced_at(&self, version: Version) -> Error {
        Error::Fenced {
            table: self.log.table.clone(),
            version,
        }
    }
}

/// What our own commit changes.
fn ours(version: Version, attempt: &Attempt, change: &Change<'_>) -> Commit {
    Commit {
        logged: LoggedCommit {
            version,
            commit_id: Some(attempt.commit_id.clone()),
            marks: attempt.marks.clone(),
            info: attempt.info.clone(),
        },
        added: change.added().to_vec(),
        removed: change.removed().iter().map(|f| f.path.clone()).collect(),
        redefined: false,
    }
}

/// Whether what won rules our commit out: it moved a mark of ours, or took a file that we replace,
/// whose rows would then be there twice.
fn collides(winner: &Commit, attempt: &Attempt, change: &Change<'_>) -> bool {
    let marks = &winner.logged.marks;
    attempt.marks.keys().any(|mark| marks.contains_key(mark))
        || change
            .removed()
            .iter()
            .any(|file| winner.removed.contains(&file.path))
}
