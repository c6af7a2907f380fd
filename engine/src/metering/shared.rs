//! Meters that are measured together, and their open windows.

use super::{
    States,
    lane::{Counted, Lane, Sifted, select},
    relation::relation,
};
use crate::error::{Result, query_error};
use arrow::{array::RecordBatch, buffer::BooleanBuffer};
use std::{ops::Range, sync::Arc};
use tollgate_sql::{
    meter::{Alike, Bundle, Meter},
    window::EventTime,
};

/// A bundle of lanes and the states that they share. A clone shares the state batches.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    bundle: Arc<Bundle>,
    open: States,
}

/// So many groups tell whether it pays to measure meters together.
const GROUPS_MIN: usize = 1_000;

/// Which of these meters are measured together.
pub(super) fn bundles(meters: &[(usize, &Meter)], alike: Alike) -> Result<Vec<Shared>> {
    let bundles = Bundle::of(meters, alike)?.into_iter();
    let shared = bundles.map(|bundle| Shared {
        bundle: Arc::new(bundle),
        open: States::default(),
    });
    Ok(shared.collect())
}

impl Shared {
    /// The places of its lanes.
    pub(super) fn lanes(&self) -> &[usize] {
        self.bundle.meters()
    }

    /// Each member with its lane, but for those that measure no more.
    fn members<'a>(&'a self, lanes: &'a [Lane]) -> impl Iterator<Item = (usize, &'a Lane)> {
        let members = self.lanes().iter().map(|lane| &lanes[*lane]).enumerate();
        members.filter(|(_, lane)| lane.stopped.is_none())
    }

    pub(super) fn bytes(&self) -> usize {
        self.open.bytes
    }

    pub(super) fn asked(&mut self) {
        self.open.asked();
    }

    /// Measures the events that are open for all its lanes, and takes them from what is sifted for each. `None` when
    /// there is none, or one on which something fails: then each lane measures by itself.
    pub(super) async fn measure(
        &self,
        lanes: &[Lane],
        counted: &Counted<'_>,
        sifted: &mut [Option<Sifted>],
    ) -> Result<Option<RecordBatch>> {
        let Some((_, first)) = self.members(lanes).next() else {
            return Ok(None);
        };
        let event_type = &first.meter().definition().event_type;
        let Some(typed) = counted.events.of_type(event_type) else {
            return Ok(None);
        };
        let is_active = |lane: &&usize| lanes[**lane].stopped.is_none();
        let active: Vec<usize> = self.lanes().iter().filter(is_active).copied().collect();
        let open = |lane: usize, sifted: &[Option<Sifted>]| {
            sifted[lane].as_ref().and_then(|sifted| sifted.open.clone())
        };
        let masks = active.iter().filter_map(|lane| open(*lane, sifted));
        let common = masks.reduce(|some, more| &some & &more);
        if common
            .as_ref()
            .is_some_and(|rows| rows.count_set_bits() == 0)
        {
            return Ok(None);
        }
        let doing = "selecting the columns of meters";
        let rows = relation(counted.events.head(), typed, self.bundle.input_schema())
            .map_err(query_error(doing))?;
        let rows = match &common {
            None => rows,
            Some(common) => select(&rows, common.clone())?,
        };
        let Some(states) = self.bundle.partial(&rows).await? else {
            return Ok(None);
        };
        let places = typed.places().len();
        let others = match &common {
            None => BooleanBuffer::new_unset(places),
            Some(common) => !common,
        };
        for lane in active {
            let left = match open(lane, sifted) {
                None => others.clone(),
                Some(open) => &open & &others,
            };
            if let Some(sifted) = &mut sifted[lane] {
                sifted.open = Some(left);
            }
        }
        Ok(Some(states))
    }

    /// Keeps what was measured. False when its lanes are to keep their states by themselves from now on.
    pub(super) async fn keep(&mut self, states: RecordBatch) -> Result<bool> {
        let is_sparse = states.num_rows() >= GROUPS_MIN && self.bundle.is_sparse(&states);
        if self.open.add(states)? {
            match self.bundle.reduce(self.open.batches()).await {
                Some(merged) => self.open.become_merged(merged),
                None => return Ok(false),
            }
        }
        Ok(!is_sparse)
    }

    /// Gives each lane its states as its own.
    pub(super) async fn give_back(self, lanes: &mut [Lane]) -> Result<()> {
        for (member, place) in self.lanes().iter().enumerate() {
            let states = self.states(member, &lanes[*place])?;
            lanes[*place].take_over(states).await?;
        }
        Ok(())
    }

    /// The member of a lane.
    pub(super) fn member(&self, lane: usize) -> Option<usize> {
        self.lanes().iter().position(|place| *place == lane)
    }

    /// The states of a lane that were not taken out.
    pub(super) fn states(&self, member: usize, lane: &Lane) -> Result<Vec<RecordBatch>> {
        self.states_within(self.open.batches(), member, &(lane.open_from.0..i64::MAX))
    }

    fn states_within(
        &self,
        batches: &[RecordBatch],
        member: usize,
        within: &Range<i64>,
    ) -> Result<Vec<RecordBatch>> {
        let mut all = Vec::with_capacity(batches.len());
        for batch in batches {
            let states = self.bundle.states_of(member, batch, within)?;
            if states.num_rows() > 0 {
                all.push(states);
            }
        }
        Ok(all)
    }

    /// The starts of a lane's windows that were not taken out, some of them many times.
    pub(super) fn starts<'a>(
        &'a self,
        member: usize,
        lane: &'a Lane,
    ) -> impl Iterator<Item = EventTime> + 'a {
        let batches = self.open.batches().iter();
        let starts = batches.flat_map(move |batch| self.bundle.starts_of(member, batch));
        let starts = starts.filter(|start| *start >= lane.open_from.0);
        starts.map(EventTime)
    }

    /// Takes out the states of windows that are closed, of each member by itself.
    pub(super) async fn take_closed(
        &mut self,
        lanes: &[Lane],
    ) -> Result<Vec<(usize, Vec<RecordBatch>)>> {
        let ends = self.members(lanes).map(|(_, lane)| lane.closed_end());
        let Some(least) = ends.min() else {
            self.open = States::default();
            return Ok(Vec::new());
        };
        let mut closed = self.open.split_off_before(least)?;
        if !closed.is_empty()
            && let Some(merged) = self.bundle.reduce_sorted(&closed).await
        {
            // Merged once for all: each meter would do it by itself.
            closed = vec![merged];
        }
        let mut taken = Vec::new();
        for (member, place) in self.lanes().iter().enumerate() {
            let lane = &lanes[*place];
            let within = lane.open_from.0..lane.closed_end().0;
            if lane.stopped.is_some() || within.is_empty() {
                continue;
            }
            let mut states = self.states_within(&closed, member, &within)?;
            if lane.closed_end() > least {
                states.extend(self.states_within(self.open.batches(), member, &within)?);
            }
            taken.push((*place, states));
        }
        Ok(taken)
    }

    /// Drops the states.
    pub(super) fn forget(&mut self) {
        self.open = States::default();
    }
}
