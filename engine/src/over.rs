//! What a shard that is over leaves open: windows that hold events, and into which no event can come any more. They are
//! closed with the last message that was read, and written to the meters' tables by the process that ended the shard,
//! so that every reader of those tables sees what an invoice is made from.

use crate::{
    clock::Clock,
    commit::{self, Marks, Owner, Position},
    error::{Error, Result},
    metering::{
        Metering,
        pane_writer::{PaneSink, PaneWriter},
    },
    recovery::{self, Sink},
    standing::Standings,
};
use std::sync::Arc;
use tollgate_connectors::Table;
use tollgate_sql::{definitions::Definitions, meter::Meter, window::EventTime};

/// Where shards end.
#[derive(Debug)]
pub struct Over<'a> {
    /// `events`, after the commit by which the shard is over.
    pub events: &'a dyn Table,
    /// What is measured.
    pub definitions: &'a Definitions,
    /// Its meters, planned.
    pub meters: &'a [Arc<Meter>],
    /// What a retry waits by.
    pub clock: Arc<dyn Clock>,
    /// How much windows may take in memory before what closed is written.
    pub bytes: usize,
}

/// Closes the windows that a shard left open, and those of the shards whose place it has, and writes their panes; does
/// nothing where that was done before. `tables` are those of the meters, in the same order, and are returned as they are
/// then.
///
/// # Errors
/// A table cannot be read or written, or a meter's definition may not go on from its table.
pub async fn close(
    over: &Over<'_>,
    shard: &str,
    tables: Vec<Box<dyn Table>>,
) -> Result<Vec<Box<dyn Table>>> {
    // Its owner may have died before it closed them.
    let tables = close_replaced(over, shard, tables).await?;
    close_one(over, shard, tables).await
}

/// The same for the shards whose place one has, but not for itself.
///
/// # Errors
/// Those of [`close`].
pub(crate) async fn close_replaced(
    over: &Over<'_>,
    shard: &str,
    mut tables: Vec<Box<dyn Table>>,
) -> Result<Vec<Box<dyn Table>>> {
    for replaced in Standings::of(over.events).behind(shard) {
        tables = close_one(over, replaced, tables).await?;
    }
    Ok(tables)
}

/// Closes one shard.
///
/// A write of its last owner may still be on its way. Both write the same panes, since panes are a function of the
/// committed events, and each commit moves the marks of the other: the second of them is refused, and looks again.
async fn close_one(
    over: &Over<'_>,
    shard: &str,
    tables: Vec<Box<dyn Table>>,
) -> Result<Vec<Box<dyn Table>>> {
    let marks = Marks::of(shard);
    let position = Position::load(over.events, &marks)?;
    let mut panes = PaneWriter {
        owner: Owner {
            epoch: marks.epoch_in(over.events).unwrap_or_default(),
            marks,
            shard: shard.to_owned(),
            nonce: uuid::Uuid::now_v7().simple().to_string(),
        },
        meters: over.meters.to_vec(),
        tables,
        clock: Arc::clone(&over.clock),
        again_bytes: over.bytes,
        rows: 0,
        in_error: 0,
    };
    for tried in 1.. {
        for table in &mut panes.tables {
            table.refresh().await?;
        }
        match write(over, &position, &mut panes).await {
            Err(Error::Fenced { .. }) if tried < commit::TAKE_OVER_TRIES => {}
            written => {
                written?;
                break;
            }
        }
    }
    if panes.rows > 0 {
        tracing::info!(
            shard,
            panes = panes.rows,
            "windows closed that a shard left open"
        );
    }
    Ok(panes.tables)
}

async fn write(over: &Over<'_>, position: &Position, panes: &mut PaneWriter) -> Result<()> {
    let shard = panes.owner.shard.clone();
    let known: Vec<Option<&dyn Table>> = panes.tables.iter().map(|t| Some(t.as_ref())).collect();
    let marks = &panes.owner.marks;
    let lanes = recovery::lanes(
        over.definitions,
        over.meters,
        &known,
        marks,
        position,
        recovery::For::Writing,
    )
    .await?;
    panes.register_versions().await?;
    let sink = Sink {
        panes,
        bytes: over.bytes,
    };
    let metering = Metering::new(lanes, usize::MAX)?;
    let mut metering =
        recovery::open_windows(metering, over.events, &shard, position, Some(sink)).await?;
    metering.close_due(EventTime(i64::MAX), position.cut());
    let pending = metering.take_pending(position.cut()).await?;
    for (lane, error) in panes.take(&pending, position.cut(), over.events).await? {
        metering.stop(lane, error);
    }
    Ok(())
}
