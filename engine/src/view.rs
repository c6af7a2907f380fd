//! The lake and the open windows as one consistent SQL session.
//!
//! A view is pinned: meters' tables are loaded before `events`, so every pane in them comes from
//! events that the pinned `events` has too. What the panes do not cover is metered again from
//! `events`, by the code that meters live. Each event is in a view exactly once.
//!
//! A [live view](crate::live::Live) has the open windows of a running shard instead, and its rows that
//! are not committed yet.

mod asked;
mod buffered;
mod conflicts;
mod guarded;
mod inside;
mod keys;
mod known;
mod one_shard;
mod own;
mod paid;
mod priced;
mod relations;
mod states;
mod stored;
mod unmerged;
mod wanted;

pub(crate) use own::{By, INNER, Own, is_told_apart};
pub(crate) use paid::Paid;
pub(crate) use relations::{referenced, register_rows};
pub(crate) use stored::Remembered;

use crate::{
    catalog::Catalog,
    commit::{Marks, Position},
    customers::Customers,
    error::{Error, Faulty, InError, Result, query_error},
    metering::{Metering, is_counted, micros},
    recovery,
    several::several,
    standing::{Standing, Standings},
    tables,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray},
    compute::{concat_batches, filter_record_batch, is_null},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
};
use asked::Asked;
use datafusion::{
    catalog::TableProvider,
    common::TableReference,
    datasource::provider_as_source,
    functions::core::expr_fn::get_field,
    logical_expr::{LogicalPlanBuilder, ident},
    prelude::{DataFrame, Expr, SessionContext, col, lit, not},
    scalar::ScalarValue,
};
use futures::FutureExt;
use guarded::Guarded;
use inside::Inside;
use keys::Keys;
use known::KnownTotals;
use one_shard::Live;
use paid::Payers;
use relations::{existing, memory, pinned, provider_or, register};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::OnceCell;
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::{
    definitions::EventType,
    functions,
    meter::{ERROR, Meter, Span},
    period::Period,
    rating::LeftOut,
    schema::{
        self,
        invoices::{issued_invoices_schema, line_items_schema},
    },
    session,
    window::EventTime,
};
use wanted::Wanted;

/// What sorting and grouping may take in memory while a price is rated.
const RATING_BYTES: usize = 1_000_000_000;

/// A pinned, read-only view of everything that was committed, or of what a running shard has processed.
#[derive(Debug, Clone)]
pub struct View {
    catalog: Arc<Catalog>,
    /// `events`, and each meter's panes, as they are read; `None` where there is no table yet.
    events: Option<Arc<dyn TableProvider>>,
    panes: Vec<Option<Arc<dyn TableProvider>>>,
    /// `None` in a live view, which is about usage alone.
    documents: Option<Documents>,
    live: Option<Arc<Live>>,
    committed: Arc<Committed>,
    /// The open windows of each shard. Those of a lake are metered again when a query asks for them:
    /// what a meter cannot measure must not hide the events.
    shards: Arc<OnceCell<Vec<ShardCut>>>,
    /// `None` where no job goes through customers range by range.
    known: Option<Arc<KnownTotals>>,
}

/// The tables of issued invoices.
#[derive(Debug, Clone, Default)]
struct Documents {
    invoices: Option<Arc<dyn TableProvider>>,
    line_items: Option<Arc<dyn TableProvider>>,
}

/// What the open windows are rebuilt from, in a view of the lake.
#[derive(Debug, Default)]
struct Committed {
    events: Option<Box<dyn Table>>,
    tables: Vec<Option<Box<dyn Table>>>,
}

/// A shard in which more usage of a period may still be on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The shard.
    pub shard: String,
    /// When it was last caught up with its source; `None` when it never was.
    pub caught_up: Option<EventTime>,
    /// When it must be: later, or just then with every window of the period closed.
    pub wanted: EventTime,
}

/// One shard in a view: how far it is, and its meters with everything that is in no pane.
#[derive(Debug)]
pub(crate) struct ShardCut {
    pub(crate) shard: String,
    pub(crate) position: Position,
    pub(crate) metering: Metering,
    /// It was retired or replaced: nothing more comes from it.
    pub(crate) is_over: bool,
}

impl View {
    /// Pins the newest committed state of the lake. A lake without tables is an empty view.
    pub async fn open(catalog: Arc<Catalog>, lake: &Lake) -> Result<Self> {
        let invoices = existing(lake, tables::INVOICES, &issued_invoices_schema()).await?;
        let line_items = existing(lake, tables::LINE_ITEMS, &line_items_schema()).await?;
        let meters = catalog.meters.iter();
        let tables = meters.map(|meter| catalog.existing_meter(lake, meter).boxed());
        let tables = several(tables.collect::<Vec<_>>()).await?;
        let events = catalog.existing_events(lake).await?;
        let view = View::of(catalog, events, tables)?;
        Ok(View {
            documents: Some(Documents {
                invoices: pinned(invoices.as_deref())?,
                line_items: pinned(line_items.as_deref())?,
            }),
            ..view
        })
    }

    /// The same without the meters whose tables refuse their definitions, and why each does: what is asked of others has
    /// its answer.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn open_readable(
        catalog: Arc<Catalog>,
        lake: &Lake,
    ) -> Result<(Self, Vec<(String, Error)>)> {
        let mut refused = Vec::new();
        for meter in &catalog.meters {
            match catalog.existing_meter(lake, meter).await {
                Err(error @ Error::Meter { .. }) => {
                    refused.push((meter.definition().name.clone(), error));
                }
                opened => drop(opened?),
            }
        }
        let is_read = |name: &str| refused.iter().all(|(refused, _)| refused != name);
        let mut catalog = Catalog::clone(&catalog);
        catalog
            .meters
            .retain(|meter| is_read(&meter.definition().name));
        catalog
            .definitions
            .meters
            .retain(|meter| is_read(&meter.name));
        let view = View::open(Arc::new(catalog), lake).await?;
        Ok((view, refused))
    }

    /// A view of tables as they are loaded, the meters' before `events`, and of no documents. `None` stands for a table that is
    /// not there yet.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn of(
        catalog: Arc<Catalog>,
        events: Option<Box<dyn Table>>,
        tables: Vec<Option<Box<dyn Table>>>,
    ) -> Result<Self> {
        let panes = tables.iter().map(|table| pinned(table.as_deref()));
        Ok(View {
            catalog,
            events: pinned(events.as_deref())?,
            panes: panes.collect::<Result<_>>()?,
            documents: Some(Documents::default()),
            live: None,
            committed: Arc::new(Committed { events, tables }),
            shards: Arc::default(),
            known: None,
        })
    }

    /// A view of a lake that holds nothing.
    pub fn empty(catalog: Arc<Catalog>) -> Self {
        let panes = catalog.meters.iter().map(|_| None).collect();
        View {
            catalog,
            events: None,
            panes,
            documents: Some(Documents::default()),
            live: None,
            committed: Arc::default(),
            shards: Arc::default(),
            known: None,
        }
    }

    /// The same view, which keeps the totals of many subjects for the next range of customers, in so many bytes.
    pub(crate) fn knowing(&self, bytes_max: usize) -> Self {
        View {
            known: Some(Arc::new(KnownTotals::new(bytes_max))),
            ..self.clone()
        }
    }

    /// The same relations without their rows.
    pub(crate) fn without_rows(&self) -> Self {
        let empty = |table: &Option<Arc<dyn TableProvider>>| {
            let schema = table.as_ref()?.schema();
            let rows = memory(vec![RecordBatch::new_empty(schema)]);
            rows.ok()
        };
        let documents = self.documents.as_ref();
        View {
            catalog: Arc::clone(&self.catalog),
            events: empty(&self.events),
            panes: self.panes.iter().map(empty).collect(),
            documents: documents.map(|documents| Documents {
                invoices: empty(&documents.invoices),
                line_items: empty(&documents.line_items),
            }),
            live: None,
            committed: Arc::default(),
            shards: Arc::default(),
            known: None,
        }
    }

    /// True when nothing was committed to `events` since this view of the lake was opened. False before
    /// there is such a table.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub async fn is_newest(&self) -> Result<bool> {
        match &self.committed.events {
            Some(events) => Ok(events.log_since().await?.is_empty()),
            None => Ok(false),
        }
    }

    async fn shards(&self) -> Result<&[ShardCut]> {
        let shards = self.shards.get_or_try_init(|| self.open_windows());
        Ok(shards.await?.as_slice())
    }

    /// The open windows of every shard, be it one of which nothing was read yet: its usage is on its way.
    async fn open_windows(&self) -> Result<Vec<ShardCut>> {
        let Some(events) = &self.committed.events else {
            return Ok(Vec::new());
        };
        let mut shards = Vec::new();
        let standings = Standings::of(events.as_ref());
        for (shard, position) in self.positions()? {
            let marks = Marks::of(&shard);
            let tables: Vec<Option<&dyn Table>> = self
                .committed
                .tables
                .iter()
                .map(|table| table.as_deref().map(|t| t as &dyn Table))
                .collect();
            let lanes = recovery::lanes(
                &self.catalog.definitions,
                &self.catalog.meters,
                &tables,
                &marks,
                &position,
                recovery::For::Reading,
            )
            .await?;
            let mut metering = recovery::open_windows(
                Metering::new(lanes, usize::MAX)?,
                events.as_ref(),
                &shard,
                &position,
                None,
            )
            .await?;
            let is_over = standings.standing(&shard) != Standing::Live;
            if is_over {
                // Nothing more comes from it.
                metering.close_due(EventTime(i64::MAX), position.cut());
            }
            shards.push(ShardCut {
                shard,
                is_over,
                position,
                metering,
            });
        }
        Ok(shards)
    }

    /// The position of each shard: what this view is a cut of.
    pub async fn cuts(&self) -> Result<Vec<(String, Position)>> {
        match self.shards.get() {
            Some(shards) => {
                let cuts = shards.iter();
                Ok(cuts.map(|cut| (cut.shard.clone(), cut.position)).collect())
            }
            // What is open there is not metered again only to say how far it is.
            None => self.positions(),
        }
    }

    /// The position of each shard in the lake.
    fn positions(&self) -> Result<Vec<(String, Position)>> {
        let Some(events) = &self.committed.events else {
            return Ok(Vec::new());
        };
        let standings = Standings::of(events.as_ref());
        let positions = standings.shards().map(|shard| {
            let position = Position::load(events.as_ref(), &Marks::of(shard))?;
            Ok((shard.to_owned(), position))
        });
        positions.collect()
    }

    /// The definitions that this view was opened with.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// A shard in which more usage of the period may still be on its way: it was not caught up with its source at the
    /// period's end plus the longest lateness of a meter, or has a window of the period that is open. A shard that is
    /// over has none. `None` when there is no such shard.
    pub async fn unfinished_shard(&self, period: &Period) -> Result<Option<Unfinished>> {
        for cut in self.shards().await?.iter().filter(|cut| !cut.is_over) {
            let lanes = cut.metering.lanes();
            let lateness_us = lanes.iter().map(|lane| lane.windowing().lateness_us).max();
            let caught_up = cut.position.caught_up.map(|caught_up| caught_up.time);
            let unfinished = Unfinished {
                shard: cut.shard.clone(),
                caught_up,
                wanted: EventTime(period.end_us.saturating_add(lateness_us.unwrap_or(0))),
            };
            let (start_us, end_us) = (period.start_us, period.end_us);
            let open = |lane| cut.metering.has_open_windows(lane, start_us, end_us);
            if caught_up < Some(unfinished.wanted) || (0..lanes.len()).any(open) {
                return Ok(Some(unfinished));
            }
        }
        Ok(None)
    }

    /// A session with every relation that `sql` names: `events`, event types, meters with all their
    /// windows (`<meter>` and `<meter>_windows` are the same here), their panes (`<meter>_panes`), rate tables, `conflicts`, `invoices`,
    /// `line_items`. Of a meter there may only be the windows that can matter to `sql`, by its conditions on
    /// `window_start`, and the groups, by its conditions on `customer`, `subject` and dimensions.
    pub async fn session(&self, sql: &str) -> Result<SessionContext> {
        let context = session::context();
        self.register_in(&context, sql, None).await?;
        Ok(context)
    }

    /// Registers the same relations in a session that there is; for a customer with rows of its own alone, and without
    /// relations that cannot tell them apart.
    pub(crate) async fn register_in(
        &self,
        context: &SessionContext,
        sql: &str,
        own: Option<&Own>,
    ) -> Result<()> {
        let mut wanted = referenced(context, sql)?;
        if own.is_some() {
            wanted.retain(|name| is_told_apart(&self.catalog.definitions, name));
        }
        self.register_common(context, &wanted, own).await?;
        let mut relations = Vec::new();
        for (index, meter) in self.catalog.meters.iter().enumerate() {
            let name = &meter.definition().name;
            let panes = format!("{name}_panes");
            if wanted.contains(&panes) {
                let empty = || meter.table_schema();
                let provider = provider_or(self.panes[index].as_ref(), empty)?;
                register(context, &panes, of_one(own, By::Subject, provider))?;
            }
            let rows = [name.clone(), format!("{name}_windows")].into_iter();
            let rows = rows.filter(|relation| wanted.contains(relation));
            relations.extend(rows.map(|relation| (index, relation)));
        }
        let asked = Box::pin(self.asked(context, sql, &relations)).await?;
        for ((index, relation), asked) in relations.iter().zip(asked) {
            let meter = &self.catalog.meters[*index];
            let starts = match &self.live {
                // Answers are remembered by time: a time that moves with each question helps no later question.
                Some(_) => asked.starts.since_midnight(),
                None => asked.starts,
            };
            let inside = Inside::around(starts, meter);
            let of_own = own.map(|own| Keys::subjects(&own.subjects()));
            let keys = match (asked.keys, of_own) {
                (Some(asked), Some(of_own)) => Some(asked.both(of_own)),
                (asked, of_own) => asked.or(of_own),
            };
            let wanted = Wanted {
                inside: inside.as_ref(),
                keys: keys.as_ref(),
            };
            let mut rows = self.rows_of(*index, wanted).await?;
            if let Some(own) = own {
                // What is left out by keys is left out whole or not at all.
                for rows in &mut rows {
                    *rows = own.rows(By::Subject, rows)?;
                }
            }
            let rows = match Guarded::of(meter, &rows) {
                Some(guarded) => guarded as Arc<dyn TableProvider>,
                None => memory(rows)?,
            };
            register(context, relation, rows)?;
        }
        Ok(())
    }

    /// What a statement may read of each of these relations, which are of meters and not registered yet.
    async fn asked(
        &self,
        context: &SessionContext,
        sql: &str,
        relations: &[(usize, String)],
    ) -> Result<Vec<Asked>> {
        if relations.is_empty() {
            return Ok(Vec::new());
        }
        for (index, relation) in relations {
            let schema = self.catalog.meters[*index].pane_schema();
            let nothing = RecordBatch::new_empty(Arc::clone(schema));
            let nothing = self.finished(*index, &[nothing], None).await?;
            register(context, relation, memory(nothing)?)?;
        }
        let planned = session::query(context, sql).await.and_then(|frame| {
            let (state, plan) = frame.into_parts();
            let fixed = asked::fixed(plan)?;
            fixed.map(|plan| state.optimize(&plan)).transpose()
        });
        let mut asked = Vec::with_capacity(relations.len());
        for (index, relation) in relations {
            let reference = TableReference::bare(relation.as_str());
            context
                .deregister_table(reference)
                .map_err(query_error("planning the query"))?;
            // What cannot be planned says so when it is run.
            let plan = planned.as_ref().ok().and_then(Option::as_ref);
            let keys = Keys::of(&self.catalog.meters[*index]);
            let of_relation = plan.and_then(|plan| Asked::of(plan, relation, &keys).ok());
            asked.push(of_relation.unwrap_or(Asked::ALL));
        }
        Ok(asked)
    }

    /// A session for the audit of a meter: its event type without the events before its first window.
    pub async fn audit_session(&self, index: usize, sql: &str) -> Result<SessionContext> {
        let context = self.session(sql).await?;
        let doing = "leaving out what a meter does not have";
        for ShardCut {
            shard, metering, ..
        } in self.shards().await?
        {
            let begun_us = metering.lanes()[index].range().start;
            if begun_us == i64::MIN {
                continue;
            }
            let name = &self.catalog.meters[index].definition().event_type;
            let left_out = col("shard")
                .eq(lit(shard.as_str()))
                .and(col("event_time").lt(schema::instant(begun_us)));
            let events = context
                .table(TableReference::bare(name.as_str()))
                .await
                .and_then(|frame| frame.filter(not(left_out)))
                .map_err(query_error(doing))?;
            context
                .deregister_table(TableReference::bare(name.as_str()))
                .map_err(query_error(doing))?;
            register(&context, name, events.into_view())?;
        }
        Ok(context)
    }

    /// The session that a price sees: each meter is its total for the period (from
    /// [`View::all_totals`]), `<meter>_windows` its windows in the period, an event type its counted events in the
    /// period, and `subscription` has one row a customer. What is in error is left out, and returned. What is read
    /// and sorted for a price spills to disk rather than grow.
    pub async fn period_session(
        &self,
        period: &Period,
        sql: &str,
        totals: &Totals,
        subscription: RecordBatch,
    ) -> Result<PeriodSession> {
        let mut windows_in_error = Vec::new();
        let mut left_out = Vec::new();
        let context = match totals.is_of_a_range() {
            true => session::spilling_in(RATING_BYTES, 1),
            false => session::spilling(RATING_BYTES),
        };
        let context = context.map_err(query_error("rating a price"))?;
        let wanted = referenced(&context, sql)?;
        functions::register_currencies(&context, &self.catalog.definitions.currencies);
        // A name that a price may not read is not there, whatever hides it in the text.
        self.register_rate_tables(&context, &wanted)?;
        self.register_priced_events(&context, &wanted, period, totals)?;
        register_rows(&context, "subscription", subscription)?;
        for (index, meter) in self.catalog.meters.iter().enumerate() {
            let name = &meter.definition().name;
            if wanted.contains(name) {
                register_rows(&context, name, totals.meters[index].clone())?;
                let of_meter = totals.in_error.iter().filter(
                    |known| matches!(&known.what, Faulty::Usage { meter, .. } if meter == name),
                );
                left_out.extend(of_meter.map(|known| known.left_out_of(name)));
            }
            let windows = format!("{name}_windows");
            if wanted.contains(&windows) {
                let rows = self.windows_of_same(index, period, totals).await?;
                let mut in_error = Vec::new();
                let rows = rows.iter().map(|rows| apart(meter, rows, &mut in_error));
                register(&context, &windows, memory(rows.collect::<Result<_>>()?)?)?;
                left_out.extend(in_error.iter().map(|known| known.left_out_of(&windows)));
                windows_in_error.extend(in_error);
            }
        }
        Ok(PeriodSession {
            context,
            left_out,
            windows_in_error,
        })
    }

    async fn register_common(
        &self,
        context: &SessionContext,
        wanted: &BTreeSet<String>,
        own: Option<&Own>,
    ) -> Result<()> {
        let definitions = &self.catalog.definitions;
        if wanted.contains(tables::EVENTS) {
            let empty = || schema::usage_events(&definitions.event_types);
            let provider = provider_or(self.events.as_ref(), empty)?;
            register(context, tables::EVENTS, of_one(own, By::Subject, provider))?;
        }
        if wanted.contains(tables::CONFLICTS) {
            let rows = conflicts::conflicts(self.events.as_ref(), &definitions.event_types);
            register_rows(context, tables::CONFLICTS, rows.await?)?;
        }
        if let Some(documents) = &self.documents {
            let Documents {
                invoices,
                line_items,
            } = documents;
            if wanted.contains(tables::INVOICES) {
                let provider = provider_or(invoices.as_ref(), issued_invoices_schema)?;
                register(
                    context,
                    tables::INVOICES,
                    of_one(own, By::Customer, provider),
                )?;
            }
            if wanted.contains(tables::LINE_ITEMS) {
                let provider = provider_or(line_items.as_ref(), line_items_schema)?;
                register(
                    context,
                    tables::LINE_ITEMS,
                    of_one(own, By::Customer, provider),
                )?;
            }
        }
        for event_type in definitions
            .event_types
            .iter()
            .filter(|t| wanted.contains(&t.name))
        {
            self.register_event_type(context, event_type, own)?;
        }
        self.register_rate_tables(context, wanted)
    }

    fn register_rate_tables(
        &self,
        context: &SessionContext,
        wanted: &BTreeSet<String>,
    ) -> Result<()> {
        let definitions = &self.catalog.definitions;
        for (definition, rows) in definitions
            .rate_tables
            .iter()
            .zip(&self.catalog.rate_tables)
        {
            if wanted.contains(&definition.name) {
                register(
                    context,
                    &definition.name,
                    definition.relation(rows.clone())?,
                )?;
            }
        }
        Ok(())
    }

    fn register_event_type(
        &self,
        context: &SessionContext,
        event_type: &EventType,
        own: Option<&Own>,
    ) -> Result<()> {
        let doing = "selecting the events of a type";
        match self.counted(event_type, own)? {
            Some(frame) => {
                let stored = frame.schema().field_with_unqualified_name(&event_type.name);
                let stored = Arc::clone(stored.map_err(query_error(doing))?);
                let columns = schema::event_relation(event_type);
                let columns = columns.fields().iter();
                let columns = columns.map(|field| relation_column(event_type, &stored, field));
                let columns: Vec<Expr> = columns.collect::<Result<_>>()?;
                let view = frame
                    .select(columns)
                    .map_err(query_error(doing))?
                    .into_view();
                register(context, &event_type.name, view)
            }
            None => {
                let empty = RecordBatch::new_empty(schema::event_relation(event_type));
                register_rows(context, &event_type.name, empty)
            }
        }
    }

    /// Counted events of a type, with the columns of `events` without the other types'; `None` when there is no table yet.
    fn counted(&self, event_type: &EventType, own: Option<&Own>) -> Result<Option<DataFrame>> {
        let Some(provider) = &self.events else {
            return Ok(None);
        };
        let provider = of_one(own, By::Subject, Arc::clone(provider));
        let doing = "selecting the events of a type";
        let schema = provider.schema();
        if schema.index_of(&event_type.name).is_err() {
            return Ok(None);
        }
        let is_read = |field: &&FieldRef| {
            *field.name() == event_type.name || !matches!(field.data_type(), DataType::Struct(_))
        };
        let read = schema.fields().iter().filter(is_read);
        let read: Vec<Expr> = read.map(|field| ident(field.name())).collect();
        let source = provider_as_source(provider);
        // Each of these rows has values of its type: files without them are not opened.
        let has_values = ident(&event_type.name).is_not_null();
        let of_type = col("type").eq(lit(event_type.cloud_event_type.as_str()));
        let plan = LogicalPlanBuilder::scan(tables::EVENTS, source, None)
            .and_then(|plan| plan.filter(of_type.and(has_values).and(is_counted())))
            .and_then(|plan| plan.project(read))
            .and_then(LogicalPlanBuilder::build)
            .map_err(query_error(doing))?;
        Ok(Some(DataFrame::new(session::context().state(), plan)))
    }

    /// A meter's windows, all or those that overlap a period, merged from panes and open windows:
    /// `window_start, window_end, is_final, customer, subject, dimensions…, measures…, error`, sorted by window,
    /// subject and dimensions, but in no particular order in a live view. Where a
    /// period begins or ends within a window, only its part of that window counts.
    pub async fn windows(&self, index: usize, period: Option<&Period>) -> Result<RecordBatch> {
        let rows = self.window_rows(index, period, None).await?;
        one_batch(&rows[0].schema(), &rows)
    }

    /// The same in batches, at least one, of some subjects; `None` stands for all.
    pub async fn windows_of(
        &self,
        index: usize,
        period: Option<&Period>,
        subjects: Option<&[&str]>,
    ) -> Result<Vec<RecordBatch>> {
        let keys = subjects.map(Keys::subjects);
        self.window_rows(index, period, keys.as_ref()).await
    }

    /// Windows of a period as [`View::windows`] has them, of some customers.
    pub(crate) async fn windows_of_customers(
        &self,
        index: usize,
        period: &Period,
        customers: &Customers,
    ) -> Result<RecordBatch> {
        let keys = Keys::customers(customers);
        let rows = self.window_rows(index, Some(period), keys.as_ref()).await?;
        one_batch(&rows[0].schema(), &rows)
    }

    /// One meter's totals for a period, of some subjects: `customer, subject, dimensions…, measures…, error`. `None` stands
    /// for all subjects.
    pub async fn totals_in(
        &self,
        index: usize,
        period: &Period,
        subjects: Option<&[&str]>,
    ) -> Result<RecordBatch> {
        let keys = subjects.map(Keys::subjects);
        self.totals(index, period, keys.as_ref()).await
    }

    /// Windows as [`View::windows`] has them, in batches, at least one.
    async fn window_rows(
        &self,
        index: usize,
        period: Option<&Period>,
        keys: Option<&Keys>,
    ) -> Result<Vec<RecordBatch>> {
        let width_us = self.catalog.meters[index].definition().window_us;
        let inside = period.map(|period| Inside::of(period.start_us, period.end_us, width_us));
        self.check_begun(index, inside.as_ref()).await?;
        let inside = inside.as_ref();
        self.rows_of(index, Wanted { inside, keys }).await
    }

    /// The windows of those that totals are of, each window cut to the time that its customer pays for.
    async fn windows_of_same(
        &self,
        index: usize,
        period: &Period,
        totals: &Totals,
    ) -> Result<Vec<RecordBatch>> {
        let Some(paid) = &totals.paid else {
            return self
                .window_rows(index, Some(period), totals.keys.as_ref())
                .await;
        };
        let paid = paid.within(period.start_us, period.end_us);
        let nothing = RecordBatch::new_empty(Arc::clone(self.catalog.meters[index].pane_schema()));
        let mut rows = self.finished(index, &[nothing], None).await?;
        for (times, payers) in paid.groups() {
            let keys = payers.keys();
            for (from_us, until_us) in times {
                let width_us = self.catalog.meters[index].definition().window_us;
                let inside = Inside::of(*from_us, *until_us, width_us);
                self.check_begun(index, Some(&inside)).await?;
                let wanted = Wanted {
                    inside: Some(&inside),
                    keys: keys.as_ref(),
                };
                let measured = self.measured_rows(index, wanted).await?;
                rows.extend(self.finished(index, &measured, Some(payers)).await?);
            }
        }
        Ok(rows)
    }

    /// Some windows and groups of a meter, as [`View::windows`] has them.
    async fn rows_of(&self, index: usize, wanted: Wanted<'_>) -> Result<Vec<RecordBatch>> {
        let rows = self.measured_rows(index, wanted).await?;
        self.finished(index, &rows, None).await
    }

    /// The same without customers.
    async fn measured_rows(&self, index: usize, wanted: Wanted<'_>) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        match &self.live {
            Some(live) => self.live_rows(live, index, wanted).await,
            None => Ok(vec![meter.rows(&self.states(index, wanted).await?).await?]),
        }
    }

    /// A meter's windows with everything that was measured in them, whether or when it counts; columns
    /// as in [`View::windows`].
    pub async fn measured_windows(&self, index: usize) -> Result<RecordBatch> {
        let meter = &self.catalog.meters[index];
        let states = self.measured_states(index).await?;
        let rows = self
            .finished(index, &[meter.rows(&states).await?], None)
            .await?;
        one_batch(&rows[0].schema(), &rows)
    }

    /// Rows as people see them, with the customer, and whether they are final. Those for which no one pays are left out.
    async fn finished(
        &self,
        index: usize,
        rows: &[RecordBatch],
        payers: Option<&Payers>,
    ) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        // Nothing more comes from a shard that is over, however early its last window is.
        let live = self.shards().await?.iter().filter(|cut| !cut.is_over);
        let closed_ends = live.map(|cut| cut.metering.lanes()[index].closed_end());
        let closed_end = closed_ends.min().unwrap_or(EventTime(i64::MAX));
        let finished = rows.iter().map(|rows| {
            let rows = match payers {
                Some(payers) => payers.select(rows)?,
                None => rows.clone(),
            };
            let ends = micros(&rows, "window_end").iter();
            let is_final: BooleanArray = ends
                .map(|end| Some(EventTime(*end) <= closed_end))
                .collect();
            let is_final = (
                Field::new("is_final", DataType::Boolean, false),
                Arc::new(is_final) as ArrayRef,
            );
            let first = ["window_start", "window_end"];
            with_customer(meter, &rows, payers, &first, Some(is_final))
        });
        finished.collect()
    }

    /// The totals of every meter for a period, in order of definition, and whose are in error.
    pub async fn all_totals(&self, period: &Period) -> Result<Totals> {
        self.totals_of_same(&Totals::default(), period).await
    }

    /// The same of some customers, without reading the others'.
    pub async fn customer_totals(&self, period: &Period, customers: &Customers) -> Result<Totals> {
        let of_some = Totals {
            keys: Keys::customers(customers),
            ..Totals::default()
        };
        self.totals_of_same(&of_some, period).await
    }

    /// The same of what is paid for, each subject by who pays for it.
    pub(crate) async fn paid_totals(&self, period: &Period, paid: Paid) -> Result<Totals> {
        let of_paid = Totals {
            paid: Some(paid),
            ..Totals::default()
        };
        self.totals_of_same(&of_paid, period).await
    }

    /// The same of those customers that other totals are of.
    pub(crate) async fn totals_of_same(&self, same: &Totals, period: &Period) -> Result<Totals> {
        let mut totals = Totals {
            keys: same.keys.clone(),
            paid: same.paid.clone(),
            ..Totals::default()
        };
        let paid = same.paid.as_ref();
        let paid = paid.map(|paid| paid.within(period.start_us, period.end_us));
        for (index, meter) in self.catalog.meters.iter().enumerate() {
            let rows = match &paid {
                Some(paid) => self.totals_by_payer(index, period, paid).await?,
                None => self.totals(index, period, totals.keys.as_ref()).await?,
            };
            let rows = apart(meter, &rows, &mut totals.in_error)?;
            totals.meters.push(rows);
        }
        Ok(totals)
    }

    /// A meter's totals for a period: `customer, subject, dimensions…, measures…, error`.
    async fn totals(
        &self,
        index: usize,
        period: &Period,
        keys: Option<&Keys>,
    ) -> Result<RecordBatch> {
        let meter = &self.catalog.meters[index];
        let times = [(period.start_us, period.end_us)];
        let span = period.span();
        let totals = self.totals_in_times(index, &times, &span, keys).await?;
        with_customer(meter, &totals, None, &[], None)
    }

    /// The totals of a meter by subject, over some times within a span.
    async fn totals_in_times(
        &self,
        index: usize,
        times: &[(i64, i64)],
        span: &Span,
        keys: Option<&Keys>,
    ) -> Result<RecordBatch> {
        let within = self.states_in(index, times, keys).await?;
        let from_us = times.first().map_or(span.from_us, |(from_us, _)| *from_us);
        let before = self.states_carried(index, from_us, keys).await?;
        let totals = self.catalog.meters[index].totals_over(&within, &before, span);
        Ok(totals.await?)
    }

    /// The same of what is paid for in the period.
    async fn totals_by_payer(
        &self,
        index: usize,
        period: &Period,
        paid: &Paid,
    ) -> Result<RecordBatch> {
        let meter = &self.catalog.meters[index];
        let nothing = meter.totals_over(&[], &[], &period.span()).await?;
        let nothing = with_customer(meter, &nothing, None, &[], None)?;
        let schema = nothing.schema();
        let mut rows = vec![nothing];
        for (times, payers) in paid.groups() {
            let (Some((from_us, _)), Some((_, until_us))) = (times.first(), times.last()) else {
                continue;
            };
            let span = period.span().part(*from_us, *until_us);
            let keys = payers.keys();
            let totals = match (&keys, &self.known) {
                (None, Some(known)) => {
                    let make = || self.totals_in_times(index, times, &span, None);
                    payers.take(&known.totals(index, (times, &span), make).await?)?
                }
                _ => {
                    let totals = self.totals_in_times(index, times, &span, keys.as_ref());
                    payers.take(&totals.await?)?
                }
            };
            rows.push(with_customer(meter, &totals, Some(payers), &[], None)?);
        }
        one_batch(&schema, &rows)
    }

    /// The states of some times.
    async fn states_in(
        &self,
        index: usize,
        times: &[(i64, i64)],
        keys: Option<&Keys>,
    ) -> Result<Vec<RecordBatch>> {
        let width_us = self.catalog.meters[index].definition().window_us;
        let mut states = Vec::new();
        for (from_us, until_us) in times {
            let inside = Inside::of(*from_us, *until_us, width_us);
            self.check_begun(index, Some(&inside)).await?;
            let wanted = Wanted {
                inside: Some(&inside),
                keys,
            };
            states.extend(self.states_of_totals(index, wanted).await?);
        }
        Ok(states)
    }

    /// The states of all time before an instant, of a meter that carries usage over.
    async fn states_carried(
        &self,
        index: usize,
        until_us: i64,
        keys: Option<&Keys>,
    ) -> Result<Vec<RecordBatch>> {
        let meter = &self.catalog.meters[index];
        if !meter.carries() {
            return Ok(Vec::new());
        }
        let before = Inside::before(until_us, meter.definition().window_us);
        self.check_begun(index, Some(&before)).await?;
        let wanted = Wanted {
            inside: Some(&before),
            keys,
        };
        self.states_of_totals(index, wanted).await
    }
}

/// A relation, or what of it is one customer's.
fn of_one(own: Option<&Own>, by: By, table: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
    match own {
        Some(own) => own.table(by, table),
        None => table,
    }
}

/// The totals of every meter for a period.
#[derive(Debug, Default)]
pub struct Totals {
    /// `customer, subject, dimensions…, measures…` of each meter, in order of definition, without what is in error.
    pub meters: Vec<RecordBatch>,
    /// Whose totals are in error, by meter.
    pub in_error: Vec<InError>,
    /// Whose they are; `None` when they are all customers'.
    keys: Option<Keys>,
    /// Whether no price that is rated by them compares customers, so that others' usage may be left out.
    are_apart: bool,
    /// Who pays for what; `None` when every subject is its own customer.
    paid: Option<Paid>,
}

impl Totals {
    /// Whether others' usage was left out, and a price may need it.
    pub(crate) fn may_lack_others(&self) -> bool {
        self.keys.is_some() && !self.are_apart
    }

    /// Whether they may be of one range of customers among others, which are rated at the same time.
    fn is_of_a_range(&self) -> bool {
        self.keys.is_some() || self.paid.is_some()
    }

    /// Who has usage of any meter, be it in error.
    pub fn customers(&self) -> BTreeSet<String> {
        let meters = self.meters.iter().map(|rows| rows["customer"].as_string());
        let names = meters.flat_map(|names: &StringArray| names.iter().flatten());
        let in_error = self.in_error.iter().map(|known| known.customer.as_str());
        names.chain(in_error).map(str::to_owned).collect()
    }
}

/// What a price sees of a period.
pub struct PeriodSession {
    /// The relations.
    pub context: SessionContext,
    /// Whose usage they lack, because it is in error.
    pub left_out: Vec<LeftOut>,
    /// Whose windows are in error.
    pub windows_in_error: Vec<InError>,
}

/// The rows that have values, without the column `error`; the others are noted.
fn apart(meter: &Meter, rows: &RecordBatch, in_error: &mut Vec<InError>) -> Result<RecordBatch> {
    let doing = "leaving out what is in error";
    let text = |name: &str| rows[name].as_string::<i32>();
    let faults = text(ERROR);
    for row in (0..rows.num_rows()).filter(|row| faults.is_valid(*row)) {
        in_error.push(InError {
            customer: text("customer").value(row).to_owned(),
            what: Faulty::Usage {
                meter: meter.definition().name.clone(),
                subject: text("subject").value(row).to_owned(),
            },
            reason: faults.value(row).to_owned(),
        });
    }
    let whole = is_null(&rows[ERROR]).map_err(query_error(doing))?;
    let mut rows = filter_record_batch(rows, &whole).map_err(query_error(doing))?;
    let error = rows.schema().index_of(ERROR).map_err(query_error(doing))?;
    rows.remove_column(error);
    Ok(rows)
}

/// Adds `customer`, who pays for the subject, and leaves out state columns. Without payers every subject is its own
/// customer; with them, rows are of their subjects.
fn with_customer(
    meter: &Meter,
    rows: &RecordBatch,
    payers: Option<&Payers>,
    first: &[&str],
    extra: Option<(Field, ArrayRef)>,
) -> Result<RecordBatch> {
    let subjects = &rows["subject"];
    let customers = match payers {
        None => Arc::clone(subjects),
        Some(payers) => payers.customers(subjects),
    };
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    let mut add = |field: Field, column: ArrayRef| {
        fields.push(field);
        columns.push(column);
    };
    let field = |name: &str| rows.schema().field_with_name(name).cloned();
    for name in first {
        add(
            field(name).map_err(query_error("reading a meter"))?,
            Arc::clone(&rows[*name]),
        );
    }
    if let Some((field, column)) = extra {
        add(field, column);
    }
    let subject = field("subject").map_err(query_error("reading a meter"))?;
    add(subject.clone().with_name("customer"), customers);
    add(subject, Arc::clone(&rows["subject"]));
    for column in meter.dimensions().iter().chain(meter.measures()) {
        add(
            column.as_ref().clone(),
            Arc::clone(&rows[column.name().as_str()]),
        );
    }
    let error = field(ERROR).map_err(query_error("reading a meter"))?;
    add(error, Arc::clone(&rows[ERROR]));
    let schema = Arc::new(Schema::new(fields));
    RecordBatch::try_new(schema, columns).map_err(query_error("reading a meter"))
}

/// A column of an event type: from the head, from the struct that is stored, or NULL where the lake does
/// not have it yet, because the event type was replaced since.
fn relation_column(event_type: &EventType, stored: &Field, field: &Field) -> Result<Expr> {
    let name = field.name().as_str();
    if !event_type.columns.iter().any(|column| column.name == name) {
        return Ok(Expr::Column(name.into()));
    }
    match stored.data_type() {
        DataType::Struct(children) if children.find(name).is_some() => {
            Ok(get_field(Expr::Column(stored.name().as_str().into()), name).alias(name))
        }
        _ => {
            let null = ScalarValue::try_from(field.data_type());
            let null = null.map_err(query_error("selecting the events of a type"))?;
            Ok(lit(null).alias(name))
        }
    }
}

/// All batches of one schema as one.
pub fn one_batch(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    concat_batches(schema, batches).map_err(query_error("collecting rows"))
}
