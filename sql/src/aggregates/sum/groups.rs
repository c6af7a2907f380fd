//! The sums of many groups at once: the inner loop of every meter.

use super::{
    super::{
        values::{fits, overflow, widest},
        wide::{self, narrow},
    },
    NAME,
};
use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array,
        PrimitiveArray, new_null_array,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Decimal128Type, Int64Type, UInt64Type, i256},
};
use datafusion::{
    common::{Result, internal_err},
    logical_expr::{EmitTo, GroupsAccumulator},
};
use std::{collections::BTreeMap, sync::Arc};

/// The sums of many groups, by group index.
#[derive(Debug)]
pub(super) struct GroupSums {
    sums: Vec<i128>,
    /// How often a sum has left 128 bits, above less below: so many times 2^128 are to be added.
    wraps: BTreeMap<usize, i64>,
    /// Which groups had a value that was not NULL; `None` while all had.
    seen: Option<Vec<bool>>,
    scale: i8,
}

impl GroupSums {
    pub(super) fn at_scale(scale: i8) -> Self {
        Self {
            sums: Vec::new(),
            wraps: BTreeMap::new(),
            seen: None,
            scale,
        }
    }

    /// What has been added to one group.
    pub(super) fn sum_of(&self, group: usize) -> i256 {
        let wraps = self.wraps.get(&group).copied().unwrap_or_default();
        whole(self.sums[group], wraps)
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
        match counted {
            None => self.add_all::<T>(values, groups),
            Some(counted) => self.add_counted::<T>(values, groups, &counted),
        }
        Ok(())
    }

    /// Adds states to their groups.
    fn add_states(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        let sums = wide::Sums::of(&states[0], &states[1], self.scale)?;
        if sums.all_fitting().is_some() {
            return self.add(&states[0], groups, None, count);
        }
        self.grow(count, true);
        for (row, group) in groups.iter().enumerate() {
            let Some(digits) = sums.value(row)? else {
                continue;
            };
            let (low, high) = digits.to_parts();
            let low = low.cast_signed();
            add_one(&mut self.sums[*group], &mut self.wraps, *group, low);
            // A negative half stands for itself plus one more 2^128.
            let high = high + i128::from(low < 0);
            let Ok(high) = i64::try_from(high) else {
                return overflow(NAME);
            };
            *self.wraps.entry(*group).or_default() += high;
            if let Some(seen) = &mut self.seen {
                seen[*group] = true;
            }
        }
        Ok(())
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

    /// Adds rows of which every one counts.
    fn add_all<T: ArrowPrimitiveType>(&mut self, values: &PrimitiveArray<T>, groups: &[usize])
    where
        T::Native: Into<i128>,
    {
        for (&value, &group) in values.values().iter().zip(groups) {
            add_one(&mut self.sums[group], &mut self.wraps, group, value.into());
        }
        if let Some(seen) = &mut self.seen {
            groups.iter().for_each(|group| seen[*group] = true);
        }
    }

    /// Adds the rows that count.
    fn add_counted<T: ArrowPrimitiveType>(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[usize],
        counted: &NullBuffer,
    ) where
        T::Native: Into<i128>,
    {
        for row in counted.valid_indices() {
            let group = groups[row];
            let value = values.value(row).into();
            add_one(&mut self.sums[group], &mut self.wraps, group, value);
            if let Some(seen) = &mut self.seen {
                seen[group] = true;
            }
        }
    }

    /// The sums that fit and, if there are any, those that do not.
    fn emit(&mut self, emit_to: EmitTo) -> Result<(ArrayRef, Option<ArrayRef>)> {
        let sums = emit_to.take_needed(&mut self.sums);
        let seen = self.seen.as_mut().map(|seen| emit_to.take_needed(seen));
        let later = self.wraps.split_off(&sums.len());
        let wraps = std::mem::take(&mut self.wraps);
        let later = later.into_iter();
        self.wraps = later.map(|(group, n)| (group - sums.len(), n)).collect();
        if wraps.values().all(|wraps| *wraps == 0) && sums.iter().all(|sum| fits(*sum)) {
            let nulls = seen
                .map(NullBuffer::from)
                .filter(|nulls| nulls.null_count() > 0);
            return Ok((decimals(sums, nulls, self.scale)?, None));
        }
        let value = |(group, sum): (usize, &i128)| {
            let is_seen = seen.as_ref().is_none_or(|seen| seen[group]);
            let wraps = wraps.get(&group).copied().unwrap_or_default();
            is_seen.then(|| whole(*sum, wraps))
        };
        let sums: Vec<Option<i256>> = sums.iter().enumerate().map(value).collect();
        let (fitting, others) = wide::columns(&sums, self.scale)?;
        let all_fit = sums.iter().flatten().all(|sum| narrow(*sum).is_some());
        Ok((fitting, (!all_fit).then_some(others)))
    }
}

/// Adds, and notes where 128 bits are left.
fn add_one(sum: &mut i128, wraps: &mut BTreeMap<usize, i64>, group: usize, value: i128) {
    let (total, has_wrapped) = sum.overflowing_add(value);
    *sum = total;
    if has_wrapped {
        *wraps.entry(group).or_default() += if value < 0 { -1 } else { 1 };
    }
}

/// The sum of which 128 bits are kept.
fn whole(sum: i128, wraps: i64) -> i256 {
    let sign = if sum < 0 { -1 } else { 0 };
    i256::from_parts(sum.cast_unsigned(), i128::from(wraps) + sign)
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
        self.add_states(values, group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        match self.emit(emit_to)? {
            (sums, None) => Ok(sums),
            (_, Some(_)) => overflow(NAME),
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, others) = self.emit(emit_to)?;
        let none = || new_null_array(&wide::DIGITS, sums.len());
        let others = others.unwrap_or_else(none);
        Ok(vec![sums, others])
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
        let wraps = self.wraps.len() * size_of::<(usize, i64)>();
        self.sums.capacity() * size_of::<i128>() + seen + wraps
    }
}
