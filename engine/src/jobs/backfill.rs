//! A meter over the history that is in the lake already, as if it had always been there.
//!
//! The counted events of each shard are metered again, in order, and the panes of every window that closed
//! become visible in one commit, with the marks that `tollgate run` goes on from. It owns no shard: the commit
//! fails when an owner took the table over in the meantime, and then that owner fills it in.

use crate::{
    catalog::Catalog,
    clock::Clock,
    commit::{self, Cut, Marks, Owner, Position},
    error::{Error, Result, query_error},
    metering::{Lane, Metering, Written, micros, pane_writer},
    recovery::{self, cut_at},
    standing::Standings,
};
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::{Attempt, Sequence, Staged, Table, lake::Lake};
use tollgate_sql::{meter::Meter, parser::did_you_mean, window::EventTime};

/// What to fill in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    /// The start of the first window that the meter has, for good, in microseconds; `None` for all.
    pub from_us: Option<i64>,
    /// Stop when every window that ends by this is closed, in microseconds; `None` for all there is.
    pub to_us: Option<i64>,
}

/// What becomes of the panes that a fill makes.
#[derive(Debug, Clone, Copy)]
pub enum Panes<'a> {
    /// They are written, and a retry waits by this clock.
    Written(&'a dyn Clock),
    /// They are counted, and nothing is written.
    Counted,
}

/// What was filled in for one shard, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The shard.
    pub shard: String,
    /// The sequence that the meter had reached before.
    pub after: Sequence,
    /// The sequence that it has reached now.
    pub cut: Sequence,
    /// How many panes that makes.
    pub panes: u64,
    /// The start of the first of their windows and of the last, in microseconds.
    pub windows: Option<(i64, i64)>,
}

/// Fills a meter in, for every shard that has events.
///
/// # Errors
/// [`Error::Usage`] when there is no such meter, or a window does not begin at `from`; [`Error::Meter`] when it
/// begins elsewhere already, or `tollgate run` has it; [`Error::Fenced`] when an owner took it over meanwhile.
pub async fn backfill(
    catalog: &Catalog,
    lake: &Lake,
    name: &str,
    span: Span,
    flush_bytes: usize,
    panes: Panes<'_>,
) -> Result<Vec<Filled>> {
    let meter = catalog.meter(name).ok_or_else(|| unknown(catalog, name))?;
    check_start(meter, span)?;
    let Some(events) = catalog.existing_events(lake).await? else {
        return Ok(Vec::new());
    };
    let mut filled = Vec::new();
    for shard in Standings::of(events.as_ref()).shards() {
        let table = match panes {
            Panes::Written(_) => Some(catalog.create_meter(lake, meter).await?),
            Panes::Counted => catalog.existing_meter(lake, meter).await?,
        };
        let fill = Fill {
            catalog,
            meter,
            events: events.as_ref(),
            marks: Marks::of(shard),
            span,
            flush_bytes,
        };
        filled.push(fill.run(table, panes).await?);
    }
    Ok(filled)
}

fn unknown(catalog: &Catalog, name: &str) -> Error {
    let known = catalog
        .meters
        .iter()
        .map(|meter| meter.definition().name.as_str());
    let known: Vec<&str> = known.collect();
    let hint = did_you_mean(name, "meters", &known);
    Error::Usage(format!("there is no meter `{name}`\n  hint: {hint}"))
}

fn check_start(meter: &Meter, span: Span) -> Result<()> {
    let width_us = meter.definition().window_us;
    match span.from_us {
        Some(_) if meter.has_sessions() => Err(Error::Usage(
            "--from: it could cut a session in two; fill a meter of sessions in from its first event".into(),
        )),
        Some(from_us) if from_us.rem_euclid(width_us) != 0 => Err(Error::Usage(
            "--from: no window of the meter begins there; write the instant at which one does"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// One shard's part.
struct Fill<'a> {
    catalog: &'a Catalog,
    meter: &'a Arc<Meter>,
    events: &'a dyn Table,
    marks: Marks,
    span: Span,
    flush_bytes: usize,
}

impl Fill<'_> {
    async fn run(&self, table: Option<Box<dyn Table>>, panes: Panes<'_>) -> Result<Filled> {
        let position = Position::load(self.events, &self.marks)?;
        let lane = self.lane(table.as_deref(), &position).await?;
        let mut made = Made {
            fill: self,
            owner: self.owner(table.as_deref()),
            staged: Staged::default(),
            filled: Filled {
                shard: self.marks.shard().to_owned(),
                after: lane.written().cut,
                cut: lane.written().cut,
                panes: 0,
                windows: None,
            },
        };
        match (table, panes) {
            (Some(mut table), Panes::Written(clock)) => {
                let to = Some(table.as_ref());
                let reached = self.meter_again(lane, position, to, &mut made).await?;
                if made.filled.cut > made.filled.after || made.filled.panes > 0 {
                    self.commit(table.as_mut(), reached, &made, clock).await?;
                }
            }
            _ => {
                self.meter_again(lane, position, None, &mut made).await?;
            }
        }
        Ok(made.filled)
    }

    /// Who commits: it owns nothing, so it has the epoch of the last owner.
    fn owner(&self, table: Option<&dyn Table>) -> Owner {
        let epoch = table.and_then(|table| self.marks.epoch_in(table));
        Owner {
            marks: self.marks.clone(),
            shard: self.marks.shard().to_owned(),
            epoch: epoch.unwrap_or_default(),
            nonce: uuid::Uuid::now_v7().simple().to_string(),
        }
    }

    /// Makes the panes visible, with how far the meter came and where it begins.
    async fn commit(
        &self,
        table: &mut dyn Table,
        reached: Written,
        made: &Made<'_>,
        clock: &dyn Clock,
    ) -> Result<()> {
        let owner = &made.owner;
        let mut marks = pane_writer::marks(self.meter, &self.marks, reached, owner.epoch);
        let from_us = self.span.from_us;
        marks.extend(from_us.map(|from_us| (self.marks.from(), from_us)));
        let attempt = Attempt {
            commit_id: owner.commit_id(reached.cut, 0),
            marks,
            info: BTreeMap::new(),
        };
        commit::commit_once(table, &attempt, &made.staged, owner, clock).await?;
        Ok(())
    }

    /// Where the meter goes on, unless a shard's owner does that itself.
    async fn lane(&self, table: Option<&dyn Table>, position: &Position) -> Result<Lane> {
        let definitions = &self.catalog.definitions;
        let lane = recovery::lane(
            definitions,
            self.meter,
            table,
            &self.marks,
            position,
            recovery::For::Writing,
        )
        .await?;
        let refused = |problem: String, hint: &str| Error::Meter {
            meter: self.meter.definition().name.clone(),
            problem,
            hint: hint.to_owned(),
        };
        let theirs = table.and_then(|table| self.marks.epoch_in(table));
        // An owner that came after `events` was read has a larger one.
        if theirs.is_some() && theirs >= self.marks.epoch_in(self.events) {
            let problem = format!(
                "shard `{}`: `tollgate run` has it, up to sequence {}",
                self.marks.shard(),
                lane.written().cut.0
            );
            let hint = "there is nothing to fill in: it goes on from there when it runs";
            return Err(refused(problem, hint));
        }
        let begun = table.is_some_and(|table| table.mark(&self.marks.cut()).is_some());
        let from_us = self.span.from_us.unwrap_or(i64::MIN);
        match begun {
            true if self.span.from_us.is_some() && lane.range().start != from_us => Err(refused(
                "its panes begin elsewhere already".to_owned(),
                "leave --from out to go on, or create a meter under another name",
            )),
            true => Ok(lane),
            false => Ok(lane.within(from_us..i64::MAX)),
        }
    }

    /// Meters what the lane has not seen, and uploads its panes to a table if there is one; returns how far it came.
    async fn meter_again(
        &self,
        lane: Lane,
        position: Position,
        table: Option<&dyn Table>,
        made: &mut Made<'_>,
    ) -> Result<Written> {
        let doing = "reading committed events back";
        let shard = self.marks.shard();
        let to = self.span.to_us.map(EventTime);
        let mut metering = Metering::new(vec![lane], usize::MAX)?;
        recovery::restore(&mut metering, self.events, shard).await?;
        let lowest = metering.lowest_cut();
        let types = recovery::event_types(metering.lanes());
        let mut messages = recovery::messages_after(lowest, self.events, shard, &types).await?;
        let mut kept = metering.bytes();
        let mut reached = None;
        while let Some(batch) = messages.try_next().await.map_err(query_error(doing))? {
            metering.apply(&batch).await?;
            let cut = cut_at(&batch, metering.watermark());
            let is_done = to.is_some_and(|to| metering.lanes()[0].closed_end() >= to);
            if let Some(cut) = cut
                && (is_done || metering.bytes() > kept + self.flush_bytes)
            {
                made.take(&mut metering, table, cut).await?;
                kept = metering.bytes();
                reached = is_done.then_some(cut);
            }
            if is_done {
                break;
            }
        }
        let reached = match reached {
            Some(reached) => reached,
            None => {
                metering.settle(&position);
                made.take(&mut metering, table, position.cut()).await?;
                position.cut()
            }
        };
        made.filled.cut = reached.sequence;
        Ok(metering.lanes()[0].written_at(reached))
    }
}

/// What a fill has made so far.
struct Made<'a> {
    fill: &'a Fill<'a>,
    owner: Owner,
    staged: Staged,
    filled: Filled,
}

impl Made<'_> {
    /// Counts what closed, and uploads it to a table if there is one.
    async fn take(
        &mut self,
        metering: &mut Metering,
        table: Option<&dyn Table>,
        cut: Cut,
    ) -> Result<()> {
        if let Some(stopped) = metering.stopped().next() {
            return Err(Error::Stopped(stopped));
        }
        for pending in metering.take_pending(cut).await? {
            let rows = pending
                .panes(self.fill.meter, &self.owner.shard, cut)
                .await?;
            for batch in &rows {
                self.filled.add(batch);
            }
            if let Some(table) = table {
                let step = self.staged.files.len() as u64;
                let files_id = self.owner.commit_id(cut.sequence, 1 + step);
                self.staged.extend(table.stage(&files_id, &rows).await?);
            }
        }
        Ok(())
    }
}

impl Filled {
    fn add(&mut self, panes: &RecordBatch) {
        self.panes += panes.num_rows() as u64;
        for start in micros(panes, "window_start") {
            let (first, last) = self.windows.unwrap_or((*start, *start));
            self.windows = Some((first.min(*start), last.max(*start)));
        }
    }
}
