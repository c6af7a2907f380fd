//! Panes on their way into the meters' tables.

use crate::{
    clock::Clock,
    commit::{self, Cut, Marks, Owner},
    epoch::Epoch,
    error::{Error, Result},
    metering::{Pending, Written},
};
use arrow::array::{Array, RecordBatch};
use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::{Attempt, Sequence, Staged, Table};
use tollgate_sql::meter::{ERROR, Fingerprint, Meter};

/// Takes panes that are ready.
#[async_trait]
pub(crate) trait PaneSink: Send {
    /// Takes the panes of everything up to a cut; returns the lanes whose panes cannot be finished.
    async fn take(&mut self, pending: &[Pending], cut: Cut) -> Result<Vec<(usize, Error)>>;
}

/// Commits panes to the tables of all meters, as the shard's owner.
#[derive(Debug)]
pub(crate) struct PaneWriter {
    pub(crate) owner: Owner,
    pub(crate) meters: Vec<Arc<Meter>>,
    pub(crate) tables: Vec<Box<dyn Table>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How many rows were written so far.
    pub(crate) rows: u64,
    /// How many of them are in error.
    pub(crate) in_error: u64,
}

#[async_trait]
impl PaneSink for PaneWriter {
    async fn take(&mut self, pending: &[Pending], cut: Cut) -> Result<Vec<(usize, Error)>> {
        let mut failed = Vec::new();
        for pending in pending {
            match self.commit(pending, cut).await {
                Err(error) if error.is_of_meter() => failed.push((pending.lane, error)),
                committed => self.rows += committed?,
            }
        }
        Ok(failed)
    }
}

impl PaneWriter {
    /// Says in each table which versions of its meter there are, before any window closes by them.
    pub(crate) async fn register_versions(&mut self) -> Result<()> {
        for (meter, table) in self.meters.iter().zip(&mut self.tables) {
            let mut marks = versions(meter, &self.owner.marks);
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

    async fn commit(&mut self, pending: &Pending, cut: Cut) -> Result<u64> {
        let meter = &self.meters[pending.lane];
        let table = self.tables[pending.lane].as_mut();
        let panes = pending.panes(meter, &self.owner.shard, cut).await?;
        let in_error = count_in_error(&panes);
        warn_of_faults(meter, in_error);
        let commit_id = self
            .owner
            .commit_id(cut.sequence, table.version().unsigned_abs());
        let staged = table.stage(&commit_id, &panes).await?;
        let attempt = Attempt {
            commit_id,
            marks: marks(meter, &self.owner.marks, pending.written, self.owner.epoch),
            info: BTreeMap::new(),
        };
        commit::commit_once(table, &attempt, &staged, &self.owner, self.clock.as_ref()).await?;
        self.in_error += in_error;
        Ok(staged.rows)
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

/// The later versions of a meter.
fn versions(meter: &Meter, marks: &Marks) -> BTreeMap<String, i64> {
    let later = meter.versions()[1..].iter();
    let versions = later.flat_map(|version| {
        let fingerprint = version.fingerprint.value.cast_signed();
        [
            (marks.version(version.number), fingerprint),
            (marks.version_rule(version.number), Fingerprint::RULE),
        ]
    });
    versions.collect()
}
