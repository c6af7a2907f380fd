//! The sums of many groups at once: the inner loop of every meter.

use super::{
    super::values::{fits, overflow, widest},
    NAME,
};
use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type},
};
use datafusion::{
    common::{Result, internal_err},
    logical_expr::{EmitTo, GroupsAccumulator},
};
use std::sync::Arc;

/// The sums of many groups, by group index.
#[derive(Debug)]
pub(super) struct GroupSums {
    sums: Vec<i128>,
    /// Which groups had a value that was not NULL; `None` while all had.
    seen: Option<Vec<bool>>,
    scale: i8,
}

impl GroupSums {
    pub(super) fn at_scale(scale: i8) -> Self {
        Self {
            sums: Vec::new(),
            seen: None,
            scale,
        }
    }

    /// What has been added to one group.
    pub(super) fn sum_of(&self, group: usize) -> i128 {
        self.sums[group]
    }

    /// Adds rows to their groups, where they are not NULL and the filter is true.
    pub(super) fn add(
        &mut self,
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        match values.data_type() {
            DataType::Int64 => self.add_as::<Int64Type>(values, groups, filter, group_count),
            DataType::UInt64 => self.add_as::<UInt64Type>(values, groups, filter, group_count),
            DataType::Decimal128(_, scale) if *scale == self.scale => {
                self.add_as::<Decimal128Type>(values, groups, filter, group_count)
            }
            other => internal_err!("sum at scale {} was given {other}", self.scale),
        }
    }

    fn add_as<T: ArrowPrimitiveType>(
        &mut self,
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()>
    where
        T::Native: Into<i128>,
    {
        let values = values.as_primitive::<T>();
        let counted = counted(values.nulls(), filter);
        self.grow(group_count, counted.is_some());
        let overflowed = match counted {
            None => self.add_all::<T>(values, groups),
            Some(counted) => self.add_counted::<T>(values, groups, &counted),
        };
        if overflowed { overflow(NAME) } else { Ok(()) }
    }

    /// Makes room for new groups. Every new group has at least one row in the batch, so as long as
    /// all rows are counted nothing has to be noted.
    fn grow(&mut self, group_count: usize, some_not_counted: bool) {
        let before = self.sums.len();
        self.sums.resize(group_count, 0);
        if some_not_counted && self.seen.is_none() {
            self.seen = Some(vec![true; before]);
        }
        if let Some(seen) = &mut self.seen {
            seen.resize(group_count, !some_not_counted);
        }
    }

    /// Adds rows of which every one counts; tells whether 128 bits were too few.
    fn add_all<T: ArrowPrimitiveType>(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[usize],
    ) -> bool
    where
        T::Native: Into<i128>,
    {
        let mut overflowed = false;
        for (&value, &group) in values.values().iter().zip(groups) {
            overflowed |= add_one(&mut self.sums[group], value.into());
        }
        if let Some(seen) = &mut self.seen {
            groups.iter().for_each(|group| seen[*group] = true);
        }
        overflowed
    }

    /// Adds the rows that count; tells whether 128 bits were too few.
    fn add_counted<T: ArrowPrimitiveType>(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[usize],
        counted: &NullBuffer,
    ) -> bool
    where
        T::Native: Into<i128>,
    {
        let mut overflowed = false;
        let Some(seen) = &mut self.seen else {
            return true;
        };
        for row in counted.valid_indices() {
            let group = groups[row];
            overflowed |= add_one(&mut self.sums[group], values.value(row).into());
            seen[group] = true;
        }
        overflowed
    }

    fn emit(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = emit_to.take_needed(&mut self.sums);
        let seen = self.seen.as_mut().map(|seen| emit_to.take_needed(seen));
        if !sums.iter().all(|sum| fits(*sum)) {
            return overflow(NAME);
        }
        let nulls = seen
            .map(NullBuffer::from)
            .filter(|nulls| nulls.null_count() > 0);
        decimals(sums, nulls, self.scale)
    }
}

/// Adds, and tells whether 128 bits were too few.
fn add_one(sum: &mut i128, value: i128) -> bool {
    let (total, overflowed) = sum.overflowing_add(value);
    *sum = total;
    overflowed
}

/// Which rows count: not NULL, and the filter is true. `None` when all do.
fn counted(nulls: Option<&NullBuffer>, filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let passed = filter.map(|filter| match filter.nulls() {
        None => NullBuffer::new(filter.values().clone()),
        Some(known) => NullBuffer::new(filter.values() & known.inner()),
    });
    NullBuffer::union(nulls, passed.as_ref()).filter(|counted| counted.null_count() > 0)
}

fn decimals(sums: Vec<i128>, nulls: Option<NullBuffer>, scale: i8) -> Result<ArrayRef> {
    let sums = Decimal128Array::new(sums.into(), nulls);
    Ok(Arc::new(sums.with_data_type(widest(scale))))
}

impl GroupsAccumulator for GroupSums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.add(&values[0], group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.add(&values[0], group_indices, None, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.emit(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.emit(emit_to)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut each = GroupSums::at_scale(self.scale);
        let rows = values[0].len();
        let groups: Vec<usize> = (0..rows).collect();
        each.add(&values[0], &groups, opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, Vec::capacity);
        self.sums.capacity() * size_of::<i128>() + seen
    }
}
