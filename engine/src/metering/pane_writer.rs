//! Panes on their way into the meters' tables.

use crate::{
    clock::Clock,
    commit::{self, Cut, Marks, Owner},
    epoch::Epoch,
    error::{Error, Result},
    metering::{Pending, Written, committed},
    several::several,
};
use arrow::array::{Array, RecordBatch};
use async_trait::async_trait;
use futures::FutureExt;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::{Attempt, CommitId, Sequence, Staged, Table};
use tollgate_sql::meter::{ERROR, Fingerprint, Meter};

/// Takes panes that are ready.
#[async_trait]
pub(crate) trait PaneSink: Send {
    /// Takes the panes of everything up to a cut, of which all is in `events`; returns the lanes whose panes cannot be
    /// finished.
    async fn take(
        &mut self,
        pending: &[Pending],
        cut: Cut,
        events: &dyn Table,
    ) -> Result<Vec<(usize, Error)>>;
}

/// Commits panes to the tables of all meters, as the shard's owner.
#[derive(Debug)]
pub(crate) struct PaneWriter {
    pub(crate) owner: Owner,
    pub(crate) meters: Vec<Arc<Meter>>,
    pub(crate) tables: Vec<Box<dyn Table>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// What the states of windows may take that are metered again.
    pub(crate) again_bytes: usize,
    /// How many rows were written so far.
    pub(crate) rows: u64,
    /// How many of them are in error.
    pub(crate) in_error: u64,
}

#[async_trait]
impl PaneSink for PaneWriter {
    async fn take(
        &mut self,
        pending: &[Pending],
        cut: Cut,
        events: &dyn Table,
    ) -> Result<Vec<(usize, Error)>> {
        let (small, large): (Vec<&Pending>, Vec<&Pending>) =
            pending.iter().partition(|pending| pending.is_small());
        let mut failed = self.commit(small, cut, events).await?;
        // One at a time, for what it takes in memory.
        for pending in large {
            failed.extend(self.commit(vec![pending], cut, events).await?);
        }
        Ok(failed)
    }
}

/// What one commit of panes wrote.
struct Committed {
    rows: u64,
    in_error: u64,
}

impl PaneWriter {
    /// Says in each table which versions of its meter there are, before any window closes by them.
    pub(crate) async fn register_versions(&mut self) -> Result<()> {
        for (meter, table) in self.meters.iter().zip(&mut self.tables) {
            let mut marks = versions(meter, &self.owner.marks);
            marks.extend(taken_back(meter, &self.owner.marks, table.as_ref()));
            if marks
                .iter()
                .all(|(mark, value)| table.mark(mark) == Some(*value))
            {
                continue;
            }
            marks.insert(self.owner.marks.epoch(), self.owner.epoch.0);
            let step = table.version().unsigned_abs();
            let attempt = Attempt {
                commit_id: self.owner.commit_id(Sequence(0), step),
                marks,
                info: BTreeMap::new(),
            };
            let (table, clock) = (table.as_mut(), self.clock.as_ref());
            commit::commit_once(table, &attempt, &Staged::default(), &self.owner, clock).await?;
        }
        Ok(())
    }

    /// Commits panes of several meters at once; returns the lanes whose panes cannot be finished.
    async fn commit(
        &mut self,
        pending: Vec<&Pending>,
        cut: Cut,
        events: &dyn Table,
    ) -> Result<Vec<(usize, Error)>> {
        let (owner, clock) = (&self.owner, self.clock.as_ref());
        let mut tables: BTreeMap<usize, &mut Box<dyn Table>> =
            self.tables.iter_mut().enumerate().collect();
        let mut work = Vec::with_capacity(pending.len());
        for pending in pending {
            let table = tables.remove(&pending.lane).ok_or(Error::Contradiction {
                what: "a meter's panes are committed once at each cut",
            })?;
            let panes = Panes {
                pending,
                meter: &self.meters[pending.lane],
                cut,
                events: committed::Committed {
                    events,
                    shard: &owner.shard,
                },
                again_bytes: self.again_bytes,
            };
            let commit = async move {
                match panes.commit(table.as_mut(), owner, clock).await {
                    Err(error) if error.is_of_meter() => Ok(Err((pending.lane, error))),
                    committed => committed.map(Ok),
                }
            };
            work.push(commit.boxed());
        }
        let mut failed = Vec::new();
        for committed in several(work).await? {
            match committed {
                Ok(Committed { rows, in_error }) => {
                    self.rows += rows;
                    self.in_error += in_error;
                }
                Err(of_meter) => failed.push(of_meter),
            }
        }
        Ok(failed)
    }
}

/// The panes of one meter up to a cut.
struct Panes<'a> {
    pending: &'a Pending,
    meter: &'a Meter,
    cut: Cut,
    events: committed::Committed<'a>,
    again_bytes: usize,
}

impl Panes<'_> {
    async fn commit(
        self,
        table: &mut dyn Table,
        owner: &Owner,
        clock: &dyn Clock,
    ) -> Result<Committed> {
        let (pending, meter, cut) = (self.pending, self.meter, self.cut);
        let panes = pending.panes(meter, &owner.shard, cut).await?;
        let mut in_error = count_in_error(&panes);
        let commit_id = owner.commit_id(cut.sequence, table.version().unsigned_abs());
        let mut staged = table.stage(&commit_id, &panes).await?;
        let mut again = pending.again.parts(meter, self.events, self.again_bytes);
        let mut parts = 0_u32;
        while let Some(states) = again.next().await? {
            let panes = [pending
                .closed_panes(meter, &[states], &owner.shard, cut)
                .await?];
            in_error += count_in_error(&panes);
            // Files of one commit are named by it, and by their number in what is staged together.
            parts += 1;
            let part = CommitId(format!("{}-{parts}", commit_id.0));
            staged.extend(table.stage(&part, &panes).await?);
        }
        warn_of_faults(meter, in_error);
        let attempt = Attempt {
            commit_id,
            marks: marks(meter, &owner.marks, pending.written, owner.epoch),
            info: BTreeMap::new(),
        };
        commit::commit_once(table, &attempt, &staged, owner, clock).await?;
        Ok(Committed {
            rows: staged.rows,
            in_error,
        })
    }
}

/// How many rows have no values.
pub(crate) fn count_in_error(rows: &[RecordBatch]) -> u64 {
    let in_error = |rows: &RecordBatch| (rows.num_rows() - rows[ERROR].null_count()) as u64;
    rows.iter().map(in_error).sum()
}

/// Says that some panes have no values, and where to see why.
fn warn_of_faults(meter: &Meter, panes: u64) {
    if panes > 0 {
        let meter = &meter.definition().name;
        tracing::warn!(
            meter,
            panes,
            "panes are in error, see the column `error` of the meter"
        );
    }
}

/// What a meter's table says with its panes: how far they reach, who wrote them, and by which definition.
pub(crate) fn marks(
    meter: &Meter,
    marks: &Marks,
    written: Written,
    epoch: Epoch,
) -> BTreeMap<String, i64> {
    let mut values = BTreeMap::from([
        (marks.cut(), written.cut.signed()),
        (marks.watermark(), written.watermark.0),
        (marks.closed(), written.closed.0),
        (marks.epoch(), epoch.0),
        (marks.late(), meter.definition().late.number()),
    ]);
    values.extend(versions(meter, marks));
    values
}

/// The versions that a table knows and that are not defined any more: recovery has seen that they measured nothing.
fn taken_back(meter: &Meter, marks: &Marks, table: &dyn Table) -> BTreeMap<String, i64> {
    let after = meter.definition().version + 1..;
    let known = after.take_while(|number| table.mark(&marks.version(*number)).is_some());
    known
        .map(|number| (marks.version_from(number), i64::MAX))
        .collect()
}

/// The later versions of a meter.
fn versions(meter: &Meter, marks: &Marks) -> BTreeMap<String, i64> {
    let later = meter.versions()[1..].iter();
    let versions = later.flat_map(|version| {
        let fingerprint = version.fingerprint.value.cast_signed();
        [
            (marks.version(version.number), fingerprint),
            (marks.version_rule(version.number), Fingerprint::RULE),
            (marks.version_from(version.number), version.from_us),
        ]
    });
    versions.collect()
}
