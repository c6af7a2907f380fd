//! Writes one flush at a time: `events` first, then the panes it closes.

use super::{Buffer, Pinned, set_aside};
use crate::{
    commit::{self, Position},
    dedupe::Proof,
    error::{Error, Result, query_error},
    metering::{
        Again, Pending,
        committed::Committed,
        pane_writer::{PaneSink, PaneWriter, count_in_error},
    },
    telemetry::{Flushed, Report},
};
use arrow::{array::RecordBatch, error::ArrowError};
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinHandle;
use tollgate_connectors::{Attempt, Staged, Table, event::EventBatch};
use tollgate_sql::meter::Meter;
use tracing::Instrument;

/// Everything one commit of `events`, and the panes it closes, is made from.
#[derive(Debug)]
pub(super) struct Flush {
    pub(super) buffer: Buffer,
    pub(super) position: Position,
    pub(super) pending: Vec<Pending>,
}

/// Owns the tables and writes one flush at a time.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) events: Box<dyn Table>,
    pub(super) panes: PaneWriter,
}

/// What one flush wrote.
#[derive(Debug)]
pub(super) struct Written {
    position: Position,
    /// The commit of `events`.
    proof: Proof,
    flushed: Flushed,
    /// Lanes whose panes could not be finished. They write no more.
    failed: Vec<(usize, Error)>,
}

impl Writer {
    fn pin(&self) -> Result<Pinned> {
        let panes = self.panes.tables.iter().map(|table| table.provider());
        Ok(Pinned {
            events: self.events.provider()?,
            panes: panes.collect::<Result<_, _>>()?,
        })
    }

    async fn write(&mut self, flush: &Arc<Flush>) -> Result<Written> {
        let clock = Arc::clone(&self.panes.clock);
        let started_us = clock.now_us();
        let (staged, proof) = self.commit_events(flush).await?;
        let before = (self.panes.rows, self.panes.in_error);
        let failed = self
            .panes
            .take(&flush.pending, flush.position.cut(), self.events.as_ref())
            .await?;
        let panes = self.panes.rows - before.0;
        let elapsed_us = clock.now_us() - started_us;
        tracing::info!(
            sequence = flush.position.sequence.0,
            events = flush.buffer.counts.counted,
            bytes = staged.bytes,
            panes,
            elapsed_us,
            "flush committed"
        );
        set_aside::log(
            &self.panes.owner.shard,
            flush.buffer.batches.iter().map(EventBatch::head),
            &flush.buffer.counts,
        );
        Ok(Written {
            position: flush.position,
            proof,
            flushed: Flushed {
                bytes: staged.bytes,
                panes,
                in_error: self.panes.in_error - before.1,
                elapsed_us,
            },
            failed,
        })
    }

    /// How many groups of windows are in error that are not kept, by what is committed.
    async fn in_error(&self, meter: &Meter, again: &Again) -> Result<u64> {
        let events = Committed {
            events: self.events.as_ref(),
            shard: &self.panes.owner.shard,
        };
        let mut parts = again.parts(meter, events, self.panes.again_bytes);
        let mut in_error = 0;
        while let Some(states) = parts.next().await? {
            in_error += count_in_error(&[meter.finish(&[states]).await?]);
        }
        Ok(in_error)
    }

    async fn commit_events(&mut self, flush: &Arc<Flush>) -> Result<(Staged, Proof)> {
        let position = &flush.position;
        let owner = &self.panes.owner;
        let step = self.events.version().unsigned_abs();
        let commit_id = owner.commit_id(position.sequence, step);
        let staged = self
            .events
            .stage(&commit_id, &rows(Arc::clone(flush)).await?)
            .await?;
        let info = serde_json::json!({
            "sequence": position.sequence.0,
            "watermark_us": position.watermark.0,
            "counts": flush.buffer.counts,
        });
        let attempt = Attempt {
            commit_id,
            marks: position.marks(&owner.marks, owner.epoch),
            info: BTreeMap::from([("flush".to_owned(), info)]),
        };
        let clock = self.panes.clock.as_ref();
        let committed =
            commit::commit_once(self.events.as_mut(), &attempt, &staged, owner, clock).await?;
        Ok((staged, Proof::new(committed, &attempt.commit_id)))
    }
}

/// The events of a flush, those of one type together: a file is written type by type.
async fn rows(flush: Arc<Flush>) -> Result<Vec<RecordBatch>> {
    let parts = move || {
        let parts = flush.buffer.batches.iter().map(EventBatch::parts);
        let parts: Vec<_> = parts.collect::<Result<_, _>>()?;
        Ok(parts.into_iter().flatten().collect())
    };
    let parts = tokio::task::spawn_blocking(parts).await;
    let parts = parts.map_err(|_| Error::TaskEnded { task: "writer" })?;
    parts.map_err(|error: ArrowError| query_error("sorting events by type")(error))
}

/// The writer, at rest or at work, and what its last flush could not do.
#[derive(Debug)]
pub(super) struct WriterSlot {
    state: State,
    failed: Vec<(usize, Error)>,
    committed: Option<(Position, Proof)>,
    pinned: Pinned,
}

#[derive(Debug)]
enum State {
    Free(Box<Writer>),
    Busy {
        task: JoinHandle<(Box<Writer>, Result<Written>)>,
        flush: Arc<Flush>,
    },
    Lost,
}

impl WriterSlot {
    pub(super) fn new(writer: Writer) -> Result<Self> {
        Ok(WriterSlot {
            pinned: writer.pin()?,
            state: State::Free(Box::new(writer)),
            failed: Vec::new(),
            committed: None,
        })
    }

    /// Begins a flush. The one before must have been waited for.
    pub(super) fn begin(&mut self, flush: Flush) {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Free(mut writer) => {
                let flush = Arc::new(flush);
                let writing = Arc::clone(&flush);
                let span = tracing::info_span!(
                    "flush",
                    shard = writer.panes.owner.shard,
                    sequence = flush.position.sequence.0,
                    events = flush.buffer.counts.events,
                );
                let write = async move {
                    let written = writer.write(&writing).await;
                    (writer, written)
                };
                let task = tokio::spawn(write.instrument(span));
                State::Busy { task, flush }
            }
            other => other,
        };
    }

    /// The tables, and the flush whose result was not collected: committed or not, it is not in them.
    pub(super) fn pinned(&self) -> (&Pinned, Option<&Arc<Flush>>) {
        let flush = match &self.state {
            State::Busy { flush, .. } => Some(flush),
            State::Free(_) | State::Lost => None,
        };
        (&self.pinned, flush)
    }

    /// How many groups of windows are in error that are not kept, by what is committed. The writer must be free.
    pub(super) async fn in_error(&self, meter: &Meter, again: &Again) -> Result<u64> {
        match &self.state {
            State::Free(writer) => writer.in_error(meter, again).await,
            State::Busy { .. } | State::Lost => Ok(0),
        }
    }

    /// Takes the result of a finished flush without waiting.
    pub(super) async fn collect(&mut self, report: &mut Report) -> Result<()> {
        match &self.state {
            State::Busy { task, .. } if task.is_finished() => self.wait(report).await,
            State::Busy { .. } | State::Free(_) | State::Lost => Ok(()),
        }
    }

    /// Waits until the writer is free. May be dropped while it waits, and asked again.
    pub(super) async fn wait(&mut self, report: &mut Report) -> Result<()> {
        let finished = match &mut self.state {
            State::Free(_) => return Ok(()),
            State::Busy { task, .. } => task.await,
            State::Lost => return Err(Error::TaskEnded { task: "writer" }),
        };
        self.state = State::Lost;
        let (writer, written) = finished.map_err(|_| Error::TaskEnded { task: "writer" })?;
        let written = written?;
        self.pinned = writer.pin()?;
        self.state = State::Free(writer);
        self.failed.extend(written.failed);
        self.committed = Some((written.position, written.proof));
        report.committed(written.position, written.flushed);
        Ok(())
    }

    /// The newest commit of `events`, if one was made since the last call.
    pub(super) fn take_committed(&mut self) -> Option<(Position, Proof)> {
        self.committed.take()
    }

    /// Lanes whose panes could not be finished since the last call.
    pub(super) fn take_failed(&mut self) -> Vec<(usize, Error)> {
        std::mem::take(&mut self.failed)
    }
}
