//! A table's state at one version: the newest whole checkpoint at or before it, and the entries since.

use super::{Log, Version, checkpoint, state::State};
use crate::error::{Cause, Result};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;

/// Entries that are asked for at once.
const READ_AHEAD: usize = 16;

impl Log {
    /// Reads the state at one version, or the newest; `None` when there is no table.
    pub(crate) async fn replay(&self, version: Option<Version>) -> Result<Option<State>> {
        let hint = self.last_checkpoint().await;
        let hint = hint.filter(|last| version.is_none_or(|version| *last <= version));
        let mut listed = self.list(hint.unwrap_or(0)).await?;
        if hint.is_some() && listed.checkpoint_at(version).is_none() {
            // The checkpoint that is said to be there is not, or not whole.
            listed = self.list(0).await?;
        }
        let checkpoint = listed.checkpoint_at(version);
        let newest = listed.entries.keys().next_back().copied();
        let newest = newest.max(checkpoint.map(|(version, _)| version));
        let Some(target) = version.or(newest) else {
            if hint.is_some() || listed.has_checkpoint_files {
                // Half of a copy: a new table in its place would count everything again.
                let problem =
                    "it has files of a checkpoint and no version that is whole; restore it";
                return Err(self.failed("reading the log", problem));
            }
            return Ok(None);
        };
        let mut state = State {
            version: target,
            ..State::default()
        };
        if let Some((version, parts)) = checkpoint {
            state.checkpoint = Some(version);
            state = self.read_checkpoint(parts, state).await?;
        }
        self.read_entries(&mut state).await?;
        let written = listed.entries.get(&target).copied();
        let written = written.or_else(|| checkpoint.and_then(|(_, parts)| modified_ms(parts)));
        state.written_ms = written.unwrap_or(i64::MIN);
        Ok(Some(state))
    }

    async fn read_checkpoint(&self, parts: &[ObjectMeta], mut state: State) -> Result<State> {
        let failed = |e: Cause| self.failed("reading a checkpoint", e);
        for part in parts {
            let bytes = self.get(&part.location).await;
            let bytes = bytes.map_err(|e| failed(e.into()))?;
            let decoding = tokio::task::spawn_blocking(move || {
                checkpoint::decode(bytes, &mut state).map(|()| state)
            });
            let decoded = decoding.await.map_err(|e| failed(e.into()))?;
            state = decoded.map_err(failed)?;
        }
        Ok(state)
    }

    /// Takes in the entries after the checkpoint, up to the version.
    async fn read_entries(&self, state: &mut State) -> Result<()> {
        let mut version = state.checkpoint.map_or(0, |version| version + 1);
        let entries = stream::iter(version..=state.version).map(|version| self.lines(version));
        let mut entries = entries.buffered(READ_AHEAD);
        while let Some(lines) = entries.try_next().await? {
            let lines = lines.ok_or_else(|| {
                self.failed("reading the log", format!("version {version} is missing"))
            })?;
            lines.into_iter().for_each(|line| state.take(line));
            version += 1;
        }
        Ok(())
    }
}

fn modified_ms(files: &[ObjectMeta]) -> Option<i64> {
    let times = files
        .iter()
        .map(|file| file.last_modified.timestamp_millis());
    times.max()
}
