//! The states whose merge is a meter, over everything or over exactly some time.
//!
//! A late event counts by the policy of its meter: in its own window, in the one in which it was stored, or
//! nowhere. Its pane says so, and so does the lane that has not written it yet.

use super::{
    ShardCut, View, inside::Inside, keys::Keys, one_shard::Live, stored::Stored, wanted::Wanted,
};
use crate::{
    error::{Error, Result, chain, query_error},
    metering::{States, Unwritten, micros, relation},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::Int64Type,
};
use datafusion::{
    catalog::TableProvider,
    common::runtime::SpawnedTask,
    error::DataFusionError,
    functions_aggregate::expr_fn::max,
    prelude::{DataFrame, Expr, col, lit},
};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::event::EventBatch;
use tollgate_sql::{
    definitions::{EventType, LatePolicy},
    schema, session,
    window::{EventTime, window_start},
};
use tracing::debug;

impl View {
    /// The states of what counts.
    pub(super) async fn states(
        &self,
        index: usize,
        wanted: Wanted<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        if meter.has_sessions() {
            // A session that ends in a period may have begun long before it.
            let before = wanted
                .inside
                .map(|inside| Inside::before(inside.time().1, 1));
            let before = Wanted {
                inside: before.as_ref(),
                ..wanted
            };
            let mut states = self.stored_states(index, before).await?;
            states.extend(self.unwritten_states(index, before).await?);
            let ending = wanted.inside.map_or((i64::MIN, i64::MAX), Inside::time);
            return Ok(meter.sessions_ending(states, ending).await?);
        }
        let mut states = self.stored_states(index, wanted).await?;
        states.extend(self.moving_states(index, wanted).await?);
        Ok(states)
    }

    /// The same for totals, which do not ask for the window of usage where neither sessions nor the time of usage count: merged as panes
    /// are read, so that they take memory by groups and not by windows.
    pub(super) async fn states_of_totals(
        &self,
        index: usize,
        wanted: Wanted<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        let panes = match (&self.live, &self.panes[index]) {
            (None, Some(panes)) if !meter.has_sessions() && !meter.is_timed() => Arc::clone(panes),
            _ => return self.states(index, wanted).await,
        };
        let columns = panes.schema();
        let columns = columns.fields().iter().map(|field| field.name().as_str());
        // The others say when panes were written and by whom.
        let columns = columns.filter(|name| meter.state_schema().index_of(name).is_ok());
        let columns: Vec<&str> = columns.collect();
        let panes = read(panes, Some(counting_of(wanted)))?;
        let panes = panes.select_columns(&columns);
        let panes = panes.map_err(query_error("reading a meter's panes"))?;
        let mut states = match self.merged_in_parts(index, panes.clone()).await {
            Ok(states) => states,
            // Merged one after the other, they tell in which window they fail.
            Err(error) => {
                debug!(meter = %meter.definition().name, "merging panes once more: {}", chain(&error));
                self.merged_in_turn(index, panes).await?
            }
        };
        states.extend(self.moving_states(index, wanted).await?);
        Ok(states)
    }

    /// The states of panes without their windows, merged as they are read, in as many parts as there are processors.
    async fn merged_in_parts(&self, index: usize, panes: DataFrame) -> Result<Vec<RecordBatch>> {
        let doing = "reading a meter's panes";
        let parts = panes.execute_stream_partitioned().await;
        let parts = parts.map_err(query_error(doing))?.into_iter().map(|panes| {
            let (of_panes, of_part) = (Arc::clone(&self.catalog), Arc::clone(&self.catalog));
            let states = panes.map(move |panes| {
                let states = of_panes.meters[index].states_of(&panes?);
                states.map_err(|error| DataFusionError::External(Box::new(error)))
            });
            SpawnedTask::spawn(async move {
                let meter = &of_part.meters[index];
                meter.reduce_without_windows(states).await
            })
        });
        let mut states = Vec::new();
        for part in parts.collect::<Vec<_>>() {
            let part = part.join_unwind().await;
            let part = part.map_err(|error| DataFusionError::External(Box::new(error)));
            states.push(part.map_err(query_error(doing))??);
        }
        Ok(states)
    }

    /// The same, merged batch by batch.
    async fn merged_in_turn(&self, index: usize, panes: DataFrame) -> Result<Vec<RecordBatch>> {
        let doing = "reading a meter's panes";
        let meter = &self.catalog.meters[index];
        let mut panes = panes.execute_stream().await.map_err(query_error(doing))?;
        let mut merged = States::default();
        while let Some(panes) = panes.try_next().await.map_err(query_error(doing))? {
            let states = meter.without_windows(&meter.states_of(&panes)?)?;
            merged.push(meter, states).await?;
        }
        Ok(merged.batches().to_vec())
    }

    /// The rows of what counts, in a live view: as [`View::states`] make them, in no particular order.
    pub(super) async fn live_rows(
        &self,
        live: &Live,
        index: usize,
        wanted: Wanted<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        if !meter.has_plain_windows() {
            return Ok(vec![meter.rows(&self.states(index, wanted).await?).await?]);
        }
        let stored = self.remembered(live, index, wanted).await?;
        let moving = self.moving_states(index, wanted).await?;
        stored.rows_with(meter, moving).await
    }

    /// The states of panes.
    async fn stored_states(&self, index: usize, wanted: Wanted<'_>) -> Result<Vec<RecordBatch>> {
        if let Some(live) = &self.live {
            let stored = self.remembered(live, index, wanted).await?;
            return stored.states(&self.catalog.meters[index]);
        }
        match &self.panes[index] {
            Some(panes) => self.counting_states(index, Arc::clone(panes), wanted).await,
            None => Ok(Vec::new()),
        }
    }

    /// The panes of a live view, merged, by what was merged before.
    async fn remembered(
        &self,
        live: &Live,
        index: usize,
        wanted: Wanted<'_>,
    ) -> Result<Arc<Stored>> {
        let meter = &self.catalog.meters[index];
        let recalled = live
            .remembered
            .recall(index, live.panes[index].as_ref(), wanted);
        let unread = match &recalled.unread {
            Some(panes) => {
                let panes = live.rows_of(Arc::clone(panes))?;
                self.counting_states(index, panes, wanted).await?
            }
            None => Vec::new(),
        };
        live.remembered.complete(recalled, meter, unread).await
    }

    /// The states of those panes that count, where they do.
    async fn counting_states(
        &self,
        index: usize,
        panes: Arc<dyn TableProvider>,
        wanted: Wanted<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        let panes = collected(panes, Some(counting_of(wanted))).await?;
        let states = panes.iter().map(|panes| {
            let placed = placed(panes, meter.definition().window_us)?;
            Ok(meter.states_of(&placed)?)
        });
        states.collect()
    }

    /// The states that are in no pane, and those of a period's edges.
    async fn moving_states(&self, index: usize, wanted: Wanted<'_>) -> Result<Vec<RecordBatch>> {
        let mut states = self.unwritten_states(index, wanted).await?;
        for edge in wanted.inside.into_iter().flat_map(Inside::edges) {
            states.extend(self.edge(index, edge, wanted.keys).await?);
        }
        Ok(states)
    }

    /// The states that are in no pane.
    async fn unwritten_states(&self, index: usize, wanted: Wanted<'_>) -> Result<Vec<RecordBatch>> {
        let definition = self.catalog.meters[index].definition();
        let mut states = Vec::new();
        for cut in self.shards().await? {
            let again = self.metered_again(index, cut, wanted.keys).await?;
            for mut unwritten in cut.metering.unwritten(index)?.into_iter().chain(again) {
                if let Some(keys) = wanted.keys {
                    unwritten.states = keys.select(&unwritten.states)?;
                }
                states.extend(counted(
                    &unwritten,
                    definition.late,
                    definition.window_us,
                    wanted.inside,
                )?);
            }
        }
        Ok(states)
    }

    /// The states of windows that a running shard does not keep, from its events.
    async fn metered_again(
        &self,
        index: usize,
        cut: &ShardCut,
        keys: Option<&Keys>,
    ) -> Result<Vec<Unwritten>> {
        let doing = "metering events again";
        let meter = &self.catalog.meters[index];
        let again = cut.metering.again(index);
        if again.is_empty() {
            return Ok(Vec::new());
        }
        let Some(events) = self.counted(self.event_type_of(index)?, None)? else {
            return Ok(Vec::new());
        };
        let of_shard = col("shard").eq(lit(cut.shard.as_str()));
        let wanted = again.filter().and(of_shard);
        let wanted = match keys.and_then(Keys::on_events) {
            Some(of_subjects) => wanted.and(of_subjects),
            None => wanted,
        };
        let events = events.filter(wanted).map_err(query_error(doing))?;
        let mut events = events.execute_stream().await.map_err(query_error(doing))?;
        let mut states = States::default();
        while let Some(batch) = events.try_next().await.map_err(query_error(doing))? {
            let batch = EventBatch::split(&batch).map_err(query_error(doing))?;
            if let Some(measured) = again.measure(meter, &batch).await? {
                states.push(meter, measured).await?;
            }
        }
        let states = states.batches().iter().map(|states| Unwritten {
            states: states.clone(),
            late_stored_us: None,
        });
        Ok(states.collect())
    }

    /// Refuses some time of which a part is left out of the meter for good.
    pub(super) async fn check_begun(&self, index: usize, inside: Option<&Inside>) -> Result<()> {
        let Some((from_us, _)) = inside.map(Inside::time) else {
            return Ok(());
        };
        for ShardCut {
            shard, metering, ..
        } in self.shards().await?
        {
            let begun_us = metering.lanes()[index].range().start;
            if from_us < begun_us {
                let begun = Timestamp::from_microsecond(begun_us).unwrap_or_default();
                return Err(Error::Meter {
                    meter: self.catalog.meters[index].definition().name.clone(),
                    problem: format!(
                        "it was filled in from {begun} on only, in shard `{shard}`, so earlier totals \
                         are unknown"
                    ),
                    hint: "ask for a later time, or make a meter under another name of all usage"
                        .into(),
                });
            }
        }
        Ok(())
    }

    /// The states of everything that was measured, in the windows in which it happened.
    pub(super) async fn measured_states(&self, index: usize) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        let mut states = Vec::new();
        if let Some(panes) = &self.panes[index] {
            for panes in collected(Arc::clone(panes), None).await? {
                states.push(meter.states_of(&panes)?);
            }
        }
        for cut in self.shards().await? {
            let again = self.metered_again(index, cut, None).await?;
            let unwritten = cut.metering.unwritten(index)?.into_iter().chain(again);
            states.extend(unwritten.map(|unwritten| unwritten.states));
        }
        Ok(states)
    }

    /// The states of the events in `[from, to)`, a part of one window, straight from `events`.
    async fn edge(
        &self,
        index: usize,
        (from_us, to_us): (i64, i64),
        keys: Option<&Keys>,
    ) -> Result<Vec<RecordBatch>> {
        let doing = "reading the events at a period's edge";
        let meter = &self.catalog.meters[index];
        let event_type = self.event_type_of(index)?;
        let Some(frame) = self.counted(event_type, None)? else {
            return Ok(Vec::new());
        };
        let time = col("event_time");
        let within = time
            .clone()
            .gt_eq(schema::instant(from_us))
            .and(time.lt(schema::instant(to_us)));
        let within = match keys.and_then(Keys::on_events) {
            Some(of_subjects) => within.and(of_subjects),
            None => within,
        };
        let frame: DataFrame = frame.filter(within).map_err(query_error(doing))?;
        let frame = match meter.definition().late {
            LatePolicy::Correct => frame,
            LatePolicy::NextPeriod | LatePolicy::Quarantine => {
                let on_time = self.on_time(index, from_us).await?;
                frame.filter(on_time).map_err(query_error(doing))?
            }
        };
        let mut states = Vec::new();
        for batch in frame.collect().await.map_err(query_error(doing))? {
            let events = EventBatch::split(&batch).map_err(query_error(doing))?;
            let Some(rows) = events.of_type(&event_type.name) else {
                continue;
            };
            let rows = relation(events.head(), rows, meter.input_schema());
            let measured = meter.partial(rows.map_err(query_error(doing))?).await?;
            states.push(match keys {
                Some(keys) => keys.select(&measured)?,
                None => measured,
            });
        }
        Ok(states)
    }

    fn event_type_of(&self, index: usize) -> Result<&EventType> {
        let definitions = &self.catalog.definitions;
        let name = &self.catalog.meters[index].definition().event_type;
        definitions.event_type(name).ok_or(Error::Contradiction {
            what: "every meter has an event type",
        })
    }

    /// Which events of the window that holds an instant came before it closed: in each shard those up to the
    /// message that closed it.
    async fn on_time(&self, index: usize, time_us: i64) -> Result<Expr> {
        let width_us = self.catalog.meters[index].definition().window_us;
        let start = window_start(EventTime(time_us), width_us);
        let written = self.closing_cuts(index, start).await?;
        let mut on_time = lit(false);
        for ShardCut {
            shard, metering, ..
        } in self.shards().await?
        {
            let lane = &metering.lanes()[index];
            let end = lane.windowing().end(start);
            let mut in_shard = col("shard").eq(lit(shard.as_str()));
            if end <= lane.closed_end() {
                let unwritten = lane.closing_cut(end).map(|cut| cut.signed());
                // A window that closed without a pane had no event in time.
                let cut = unwritten.or(written.get(shard).copied()).unwrap_or(0);
                in_shard = in_shard.and(col("sequence").lt_eq(lit(cut)));
            }
            on_time = on_time.or(in_shard);
        }
        Ok(on_time)
    }

    /// The message that closed a window, by shard, from the panes of the close.
    async fn closing_cuts(&self, index: usize, start: EventTime) -> Result<BTreeMap<String, i64>> {
        let Some(panes) = &self.panes[index] else {
            return Ok(BTreeMap::new());
        };
        let doing = "reading when a window closed";
        let of_close = col("pane").eq(lit(0));
        let of_window = col("window_start").eq(schema::instant(start.0));
        let cuts = session::context()
            .read_table(Arc::clone(panes))
            .and_then(|frame| frame.filter(of_window.and(of_close)))
            .and_then(|frame| {
                frame.aggregate(vec![col("shard")], vec![max(col("cut")).alias("cut")])
            })
            .map_err(query_error(doing))?;
        let mut found = BTreeMap::new();
        for batch in cuts.collect().await.map_err(query_error(doing))? {
            let shards = batch["shard"].as_string::<i32>();
            let cuts = batch["cut"].as_primitive::<Int64Type>();
            found.extend(
                (0..batch.num_rows()).map(|row| (shards.value(row).to_owned(), cuts.value(row))),
            );
        }
        Ok(found)
    }
}

/// Panes, all or those that pass a filter.
fn read(panes: Arc<dyn TableProvider>, filter: Option<Expr>) -> Result<DataFrame> {
    let frame = session::context().read_table(panes);
    let frame = match filter {
        Some(filter) => frame.and_then(|frame| frame.filter(filter)),
        None => frame,
    };
    frame.map_err(query_error("reading a meter's panes"))
}

async fn collected(
    panes: Arc<dyn TableProvider>,
    filter: Option<Expr>,
) -> Result<Vec<RecordBatch>> {
    let rows = read(panes, filter)?.collect().await;
    rows.map_err(query_error("reading a meter's panes"))
}

/// The panes that count in some time, of some groups.
fn counting_of(wanted: Wanted<'_>) -> Expr {
    let counting = counting(wanted.inside);
    match wanted.keys.and_then(Keys::on_panes) {
        Some(of_groups) => counting.and(of_groups),
        None => counting,
    }
}

/// The panes that count in some time, or ever.
fn counting(inside: Option<&Inside>) -> Expr {
    let late = || col("late");
    let in_place = late()
        .is_null()
        .or(late().eq(lit(LatePolicy::Correct.as_str())));
    let when_stored = late().eq(lit(LatePolicy::NextPeriod.as_str()));
    let Some(inside) = inside else {
        return in_place.or(when_stored);
    };
    let between = |column: &str, (from_us, to_us): (i64, i64)| {
        let from = col(column).gt_eq(schema::instant(from_us));
        from.and(col(column).lt(schema::instant(to_us)))
    };
    let in_place = in_place.and(between("window_start", inside.windows()));
    in_place.or(when_stored.and(between("closed_at", inside.time())))
}

/// Panes in the windows in which they count.
fn placed(panes: &RecordBatch, width_us: i64) -> Result<RecordBatch> {
    let late: &StringArray = panes["late"].as_string();
    let moves =
        |row: usize| late.is_valid(row) && late.value(row) == LatePolicy::NextPeriod.as_str();
    if !(0..panes.num_rows()).any(moves) {
        return Ok(panes.clone());
    }
    let stored = micros(panes, "closed_at");
    let starts = micros(panes, "window_start").iter().enumerate();
    let starts = starts.map(|(row, start)| match moves(row) {
        true => window_start(EventTime(stored[row]), width_us).0,
        false => *start,
    });
    with_starts(panes, starts)
}

/// Unwritten states as they count in some time, or ever; `None` when they do not.
fn counted(
    unwritten: &Unwritten,
    policy: LatePolicy,
    width_us: i64,
    inside: Option<&Inside>,
) -> Result<Option<RecordBatch>> {
    let states = &unwritten.states;
    match (unwritten.late_stored_us, policy) {
        (Some(_), LatePolicy::Quarantine) => Ok(None),
        (Some(stored_us), LatePolicy::NextPeriod) => {
            let (from_us, to_us) = inside.map_or((i64::MIN, i64::MAX), Inside::time);
            if !(from_us..to_us).contains(&stored_us) {
                return Ok(None);
            }
            let start = window_start(EventTime(stored_us), width_us).0;
            with_starts(states, std::iter::repeat_n(start, states.num_rows())).map(Some)
        }
        (Some(_), LatePolicy::Correct) | (None, _) => match inside {
            Some(inside) => inside.select(states).map(Some),
            None => Ok(Some(states.clone())),
        },
    }
}

fn with_starts(rows: &RecordBatch, starts: impl Iterator<Item = i64>) -> Result<RecordBatch> {
    let doing = "moving late usage to where it counts";
    let at = rows
        .schema()
        .index_of("window_start")
        .map_err(query_error(doing))?;
    let starts = TimestampMicrosecondArray::from_iter_values(starts).with_timezone("UTC");
    let mut columns = rows.columns().to_vec();
    columns[at] = Arc::new(starts) as ArrayRef;
    RecordBatch::try_new(rows.schema(), columns).map_err(query_error(doing))
}
