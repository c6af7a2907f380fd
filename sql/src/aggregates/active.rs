//! Distinct values that events add and remove: `unique_count` and `prorated_unique_count`.
//!
//! Every addition and removal is kept, with its place: a late event may come between two others, and
//! then what they meant changes.

use super::{
    average::{decimals, quotient, quotient_scale},
    event_order::{self, Kept, Places, parallel},
    fold::{Aggregate, Kind, Rows},
    values::{Values, as_exact, as_lists, list_of, lists, widest},
};
use crate::window::DAY_US;
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    common::{Result, exec_datafusion_err, plan_err},
    logical_expr::function::AccumulatorArgs,
};
use std::{collections::BTreeSet, sync::Arc};

/// How the active values count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Active {
    /// `unique_count(x, adds)`, BIGINT: the values that are active after the last event.
    AtEnd,
    /// `prorated_unique_count(x, adds)`, DECIMAL(38, 12): the days on which each value is active, the
    /// day it is added and the day it is removed counted in full, divided by the days of the whole.
    Days,
}

impl Kind for Active {
    type Aggregate = Counting;

    fn name(&self) -> &'static str {
        match self {
            Active::AtEnd => "unique_count",
            Active::Days => "prorated_unique_count",
        }
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        let places = event_order::coerce(name, &["x", "adds"], arguments)?;
        let own = match &arguments[1] {
            DataType::Boolean | DataType::Null => {
                [as_exact(name, &arguments[0])?, DataType::Boolean]
            }
            other => {
                return plan_err!(
                    "{name} takes whether an event adds its value as TRUE or FALSE, not as {other}: \
                     write a condition, such as operation IS DISTINCT FROM 'remove'"
                );
            }
        };
        Ok([own.to_vec(), places].concat())
    }

    fn result(&self, _arguments: &[DataType]) -> Result<DataType> {
        match self {
            Active::AtEnd => Ok(DataType::Int64),
            Active::Days => Ok(widest(quotient_scale(0))),
        }
    }

    /// Lists of `value, adds, event_time, sequence, ordinal, shard, day`, one element for each event,
    /// then the days that are asked for: `from, until, whole`.
    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let mut types: Vec<DataType> = arguments.iter().cloned().map(list_of).collect();
        types.push(list_of(DataType::Int64));
        types.extend([DataType::Int64, DataType::Int64, DataType::Int64]);
        Ok(types)
    }

    fn aggregate(&self, args: &AccumulatorArgs) -> Result<Counting> {
        Ok(Counting {
            kind: self.clone(),
            values: Values::of(args.expr_fields[0].data_type())?,
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Counting {
    kind: Active,
    values: Values,
}

/// One addition or removal; they sort by value, then place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Operation {
    value: Box<[u8]>,
    place: Kept,
    adds: bool,
    /// Days since 1970-01-01.
    day: i64,
}

/// The operations of a group, and the days they are asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Operations {
    all: BTreeSet<Operation>,
    days: Option<Days>,
}

#[derive(Debug, Clone, Copy)]
struct Days {
    from: i64,
    until: i64,
    whole: i64,
}

impl Operations {
    fn extend_days(&mut self, more: Days) {
        let days = self.days.get_or_insert(more);
        days.from = days.from.min(more.from);
        days.until = days.until.max(more.until);
        days.whole = days.whole.max(more.whole);
    }

    fn by_value(&self) -> impl Iterator<Item = Vec<&Operation>> {
        let all: Vec<&Operation> = self.all.iter().collect();
        let runs = all.chunk_by(|a, b| a.value == b.value);
        runs.map(<[_]>::to_vec).collect::<Vec<_>>().into_iter()
    }

    /// The values whose last operation adds them.
    fn active_at_end(&self) -> usize {
        let is_active = |run: &Vec<&Operation>| run.last().is_some_and(|last| last.adds);
        self.by_value().filter(is_active).count()
    }
}

impl Days {
    /// The days on which the value of these operations, in their order, is active.
    fn active(&self, operations: &[&Operation]) -> i64 {
        let (mut count, mut counted_until) = (0, self.from);
        let mut add = |first: i64, last: i64| {
            let (first, end) = (first.max(counted_until), (last + 1).min(self.until));
            if first < end {
                count += end - first;
                counted_until = end;
            }
        };
        let mut since = None;
        for operation in operations {
            match (operation.adds, since) {
                (true, None) => since = Some(operation.day),
                (false, Some(first)) => {
                    add(first, operation.day);
                    since = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
        if let Some(first) = since {
            add(first, self.until - 1);
        }
        count
    }
}

impl Counting {
    fn prorated(&self, operations: &Operations) -> Result<i128> {
        let Some(days) = operations.days else {
            return Ok(0);
        };
        let active: i64 = operations.by_value().map(|run| days.active(&run)).sum();
        quotient(self.kind.name(), active.into(), 0, days.whole)
    }
}

impl Aggregate for Counting {
    type Group = Operations;

    fn update(
        &self,
        groups: &mut [Operations],
        arguments: &[ArrayRef],
        rows: Rows<'_>,
    ) -> Result<()> {
        let values = self.values.rows(&arguments[0])?;
        let adds = arguments[1].as_boolean();
        let places = Places::of(&arguments[2..])?;
        for (row, group) in rows.iter().filter(|(row, _)| arguments[0].is_valid(*row)) {
            let place = places.at(row);
            let day = place.0.div_euclid(DAY_US);
            groups[group].extend_days(Days {
                from: day,
                until: day + 1,
                whole: 1,
            });
            groups[group].all.insert(Operation {
                value: values.row(row).data().into(),
                place: place.into(),
                // What is not said to remove, adds.
                adds: adds.is_null(row) || adds.value(row),
                day,
            });
        }
        Ok(())
    }

    fn merge(&self, groups: &mut [Operations], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let lists: Vec<_> = states[..7].iter().map(as_lists).collect::<Result<_>>()?;
        let values = self.values.rows(lists[0].values())?;
        let adds = lists[1].values().as_boolean();
        let columns: Vec<ArrayRef> = lists[2..6].iter().map(|l| Arc::clone(l.values())).collect();
        let places = Places::of(&columns)?;
        let days = lists[6].values().as_primitive::<Int64Type>();
        let bounds = [7, 8, 9].map(|column: usize| states[column].as_primitive::<Int64Type>());
        for (row, group) in rows.iter().filter(|(row, _)| bounds[0].is_valid(*row)) {
            let [from, until, whole] = bounds.map(|bound| bound.value(row));
            groups[group].extend_days(Days { from, until, whole });
            let [value_at, adds_at, place_at, day_at] =
                parallel([lists[0], lists[1], lists[2], lists[6]], row)?;
            for (((value, add), place), day) in value_at.zip(adds_at).zip(place_at).zip(day_at) {
                groups[group].all.insert(Operation {
                    value: values.row(value).data().into(),
                    place: places.at(place).into(),
                    adds: adds.value(add),
                    day: days.value(day),
                });
            }
        }
        Ok(())
    }

    fn states(&self, groups: &[Operations]) -> Result<Vec<ArrayRef>> {
        let lengths: Vec<usize> = groups.iter().map(|group| group.all.len()).collect();
        let all = || groups.iter().flat_map(|group| &group.all);
        let values = self.values.column(all().map(|o| Some(&*o.value)))?;
        let adds: BooleanArray = all().map(|o| Some(o.adds)).collect();
        let places: Vec<_> = all().map(|o| Some(o.place.as_place())).collect();
        let days = Int64Array::from_iter_values(all().map(|o| o.day));
        let mut columns = vec![
            lists(lengths.clone(), values)?,
            lists(lengths.clone(), Arc::new(adds))?,
        ];
        columns.extend(event_order::list_columns(&lengths, &places)?);
        columns.push(lists(lengths, Arc::new(days))?);
        let bounds: [fn(Days) -> i64; 3] = [|d| d.from, |d| d.until, |d| d.whole];
        columns.extend(bounds.map(|bound| {
            let bounds = groups.iter().map(|group| group.days.map(bound));
            Arc::new(bounds.collect::<Int64Array>()) as ArrayRef
        }));
        Ok(columns)
    }

    fn values(&self, groups: &[Operations]) -> Result<ArrayRef> {
        match self.kind {
            Active::AtEnd => {
                let counts = groups.iter().map(|g| i64::try_from(g.active_at_end()));
                let counts: Result<Vec<i64>, _> = counts.collect();
                let counts =
                    counts.map_err(|_| exec_datafusion_err!("too many values to count"))?;
                Ok(Arc::new(Int64Array::from(counts)))
            }
            Active::Days => {
                let values = groups.iter().map(|group| self.prorated(group).map(Some));
                let values: Vec<Option<i128>> = values.collect::<Result<_>>()?;
                decimals(values.into_iter(), quotient_scale(0))
            }
        }
    }
}
