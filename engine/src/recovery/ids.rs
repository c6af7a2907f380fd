//! The dedupe index at a start: from what was kept on local disk, and from `events`.

use crate::{
    commit::{Marks, Position},
    dedupe::{self, Dedupe, Proof, Whose, kept::Manifest, load::Load},
    error::{Result, query_error},
    metering::committed::{Committed, execute},
    standing::{self, Standings},
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion::prelude::{Expr, col, lit};
use futures::TryStreamExt;
use std::path::Path;
use tollgate_connectors::{Sequence, Table, event::event_key};
use tollgate_sql::{schema, window::EventTime};

/// Ids of one shard that are to be known.
#[derive(Debug, PartialEq, Eq)]
struct Known<'a> {
    shard: &'a str,
    /// Those stored at this time or later, in microseconds.
    since_us: i64,
    /// They count as stored at this time if they were stored before it, in microseconds.
    taken_us: i64,
}

/// Whose ids a shard knows: its own, and those that each shard whose place it has knew when the place was taken. There
/// they count as stored at that moment, so that they are known for a whole horizon from then, however the watermarks of
/// the shards lie to each other.
fn known_ids<'a>(
    standings: &'a Standings,
    shard: &str,
    horizon_us: i64,
    watermark: impl Fn(&str) -> Result<EventTime>,
) -> Result<Vec<Known<'a>>> {
    // Without a counted event there is no time to count back from, and nothing to remember.
    let oldest_us = |shard: &str| watermark(shard).map(|at| at.0.saturating_sub(horizon_us));
    let mut known = Vec::new();
    for from in standings.shards() {
        let Some(way) = standings.way(from, shard) else {
            continue;
        };
        let (mut since_us, mut taken_us) = (oldest_us(from)?, i64::MIN);
        for taken in way {
            taken_us = taken_us.max(taken.at_us);
            let oldest_us = oldest_us(&taken.by)?;
            if taken_us < oldest_us {
                since_us = since_us.max(oldest_us);
            }
        }
        known.push(Known {
            shard: from,
            since_us,
            taken_us,
        });
    }
    Ok(known)
}

/// The dedupe index of a shard: what the process before kept on local disk, where that is proven to be the shard's, and
/// what the lake has since; otherwise all counted events within the horizon, those of the shards that this one has the
/// place of included. `events` is at the version that acquired the shard, or later.
pub async fn dedupe(
    events: &dyn Table,
    shard: &str,
    position: &Position,
    options: dedupe::Options,
) -> Result<Dedupe> {
    let standings = Standings::of(events);
    let watermark = |name: &str| match name == shard {
        true => Ok(position.watermark),
        false => Position::load(events, &Marks::of(name)).map(|position| position.watermark),
    };
    let known = known_ids(&standings, shard, options.horizon_us, watermark)?;
    let whose = whose(events, shard, options.horizon_us, &known);
    let mut dedupe = Dedupe::keeping(options, whose.clone());
    let kept = take_kept(&mut dedupe, events, &whose, position).await;
    match kept {
        Some(sequence) if sequence == position.sequence => {}
        Some(sequence) => {
            let own = known.iter().filter(|known| known.shard == shard);
            let new = col("sequence").gt(lit(sequence.signed()));
            for own in own {
                read_back(&mut dedupe, events, own, new.clone(), position).await?;
            }
        }
        None => {
            dedupe.begins_at(oldest_us(position, &whose));
            for known in &known {
                read_back(&mut dedupe, events, known, lit(true), position).await?;
            }
        }
    }
    // A shard that has not begun stands where its stream does, and the lake does not say so yet.
    if standing::has_begun(events, shard)
        && let Some(proof) = Proof::newest(events).await
    {
        dedupe.committed(position, proof);
    }
    if kept.is_none() {
        // At once: a process that dies before its first flush has not read everything for nothing.
        dedupe.keep(position.sequence)?;
    }
    Ok(dedupe)
}

fn whose(events: &dyn Table, shard: &str, horizon_us: i64, known: &[Known<'_>]) -> Whose {
    let others = known.iter().filter(|known| known.shard != shard);
    Whose {
        table: events.id().to_owned(),
        shard: shard.to_owned(),
        horizon_us,
        taken: others
            .map(|known| (known.shard.to_owned(), known.taken_us))
            .collect(),
    }
}

fn oldest_us(position: &Position, whose: &Whose) -> i64 {
    position.watermark.0.saturating_sub(whose.horizon_us)
}

/// Takes the index that the process before kept, and returns up to which sequence it goes; one that is not proven to be
/// the shard's is removed.
async fn take_kept(
    dedupe: &mut Dedupe,
    events: &dyn Table,
    whose: &Whose,
    position: &Position,
) -> Option<Sequence> {
    let found = prove_kept(dedupe.folder(), events, whose, position).await;
    let taken = match found {
        Ok(None) => Ok(None),
        Ok(Some(manifest)) => {
            let adopted = dedupe.check_folder().and_then(|()| dedupe.adopt(&manifest));
            let sequence = Sequence(manifest.sequence);
            adopted.map(|()| Some(sequence)).map_err(|e| e.to_string())
        }
        Err(problem) => Err(problem),
    };
    let taken = taken.unwrap_or_else(|problem| {
        let folder = dedupe.folder().display().to_string();
        tracing::warn!(
            folder,
            problem,
            "event keys on disk were not used, they are read from the lake"
        );
        dedupe.discard();
        None
    });
    dedupe.sweep();
    if let Some(sequence) = taken {
        let (keys, sequence) = (dedupe.len(), sequence.0);
        tracing::info!(keys, sequence, "event keys were found on disk");
    }
    taken
}

/// The manifest of a folder, if there is one and it is proven to be the shard's.
async fn prove_kept(
    folder: &Path,
    events: &dyn Table,
    whose: &Whose,
    position: &Position,
) -> Result<Option<Manifest>, String> {
    let Some(manifest) = Manifest::read(folder)? else {
        return Ok(None);
    };
    manifest.check(whose, position.sequence, oldest_us(position, whose))?;
    match manifest.proof.holds(events).await {
        Ok(true) => Ok(Some(manifest)),
        Ok(false) => {
            Err("the lake's log does not have the commit that it was kept after".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Remembers counted events of a shard that a condition holds for.
async fn read_back(
    dedupe: &mut Dedupe,
    events: &dyn Table,
    known: &Known<'_>,
    which: Expr,
    position: &Position,
) -> Result<()> {
    let doing = "rebuilding the dedupe index";
    let since = col("ingest_time").gt_eq(schema::instant(known.since_us));
    let shard = known.shard;
    let frame = Committed { events, shard }
        .all()?
        .filter(since.and(which))
        .and_then(|frame| {
            frame.select_columns(&["source", "event_id", "content_hash", "ingest_time"])
        });
    let mut rows = execute(frame, doing).await?;
    let mut load = Load::new(dedupe);
    while let Some(batch) = rows.try_next().await.map_err(query_error(doing))? {
        remember(&mut load, &batch, known.taken_us);
        load.settle(position.watermark)?;
    }
    load.finish()
}

fn remember(load: &mut Load<'_>, batch: &RecordBatch, taken_us: i64) {
    let sources = batch["source"].as_string::<i32>();
    let ids = batch["event_id"].as_string::<i32>();
    let contents = batch["content_hash"].as_primitive::<Int64Type>();
    let ingest_times = batch["ingest_time"].as_primitive::<TimestampMicrosecondType>();
    for row in 0..batch.num_rows() {
        if ids.is_valid(row) && sources.is_valid(row) {
            let key = event_key(sources.value(row), ids.value(row));
            load.push(
                key,
                contents.value(row),
                ingest_times.value(row).max(taken_us),
            );
        }
    }
}

#[cfg(test)]
mod histories;

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, sync::Arc};
    use tollgate_connectors::{Attempt, CommitId, Staged, memory::MemoryTable};

    const DAY_US: i64 = 86_400_000_000;

    /// The marks of shards A, B, … that each replaced the one before, at days.
    fn chain(taken: &[i64]) -> Standings {
        let mut events = MemoryTable::new("events", Arc::new(arrow::datatypes::Schema::empty()));
        let mut marks = BTreeMap::from([("A/seq".to_owned(), 1)]);
        for (at, (old, new)) in taken.iter().zip([("A", "B"), ("B", "C")]) {
            marks.insert(format!("{new}/seq"), 1);
            marks.insert(format!("{new}/replaces/{old}"), at * DAY_US);
        }
        let attempt = Attempt {
            commit_id: CommitId("marks".into()),
            marks,
            info: BTreeMap::new(),
        };
        futures::executor::block_on(events.commit(&attempt, &Staged::default())).unwrap();
        Standings::of(&events)
    }

    /// Since when ids of each shard are known to the last one, and as when stored at least, in days.
    fn known(taken: &[i64], watermarks: &[i64]) -> Vec<(i64, i64)> {
        let names = ["A", "B", "C"];
        let watermark = |name: &str| {
            let at = names.iter().position(|n| *n == name).unwrap();
            Ok(EventTime(watermarks[at] * DAY_US))
        };
        let standings = chain(taken);
        let known = known_ids(&standings, names[taken.len()], 35 * DAY_US, watermark).unwrap();
        let days = |known: Known<'_>| {
            let taken = known.taken_us.max(0) / DAY_US;
            (known.since_us / DAY_US, taken)
        };
        known.into_iter().map(days).collect()
    }

    #[test]
    fn a_shard_knows_its_own_ids_by_its_own_watermark() {
        assert_eq!(known(&[], &[100]), [(65, 0)]);
        // The old stream was far ahead, by its clock: that makes nothing of the new one forgotten.
        assert_eq!(known(&[100], &[900, 100]), [(865, 100), (65, 0)]);
    }

    #[test]
    fn ids_of_a_replaced_shard_are_known_for_a_horizon_from_when_its_place_was_taken() {
        // All that the old one knew, though the new one was far ahead of it.
        assert_eq!(known(&[100], &[50, 100]), [(15, 100), (65, 0)]);
        assert_eq!(known(&[100], &[50, 135]), [(15, 100), (100, 0)]);
        // A day later those are forgotten that were stored before the horizon; here all that were stored by then.
        assert_eq!(known(&[100], &[50, 136]), [(101, 100), (101, 0)]);
    }

    #[test]
    fn a_chain_of_shards_hands_on_what_was_known_at_each_step() {
        // What B had of A on day 110 is known to C until day 145, and what B had forgotten by then is not.
        assert_eq!(
            known(&[100, 110], &[50, 110, 145]),
            [(15, 110), (75, 110), (110, 0)]
        );
        assert_eq!(
            known(&[100, 140], &[50, 136, 145]),
            [(101, 140), (101, 140), (110, 0)]
        );
        assert_eq!(
            known(&[100, 110], &[50, 110, 146]),
            [(111, 110), (111, 110), (111, 0)]
        );
    }
}
