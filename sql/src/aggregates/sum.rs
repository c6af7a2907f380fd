//! `sum`, exact: integers and decimals are added as 128-bit decimals of up to 38 digits, and a sum
//! that needs more is an error. It never wraps.

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray,
    },
    buffer::NullBuffer,
    datatypes::{
        DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type,
    },
};
use datafusion::{
    common::{Result, ScalarValue, exec_err, internal_err, plan_err},
    logical_expr::{
        Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
        Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};
use std::sync::Arc;

/// The largest magnitude that fits 38 digits: 10^38 - 1.
const LARGEST: i128 = 10_i128.pow(38) - 1;

/// `sum(x)`: DECIMAL(38, 0) for integers, DECIMAL(38, s) for DECIMAL(p, s), NULL over no values.
///
/// Its state is one column of the result's type. A partial sum beyond 38 digits is an error even if
/// later values would bring the whole back within them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CheckedSum {
    signature: Signature,
}

impl CheckedSum {
    /// The aggregate, to be registered as `sum`.
    pub fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl Default for CheckedSum {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [argument] => Ok(vec![summed_as(argument)?]),
            _ => plan_err!("sum takes one argument, not {}", arguments.len()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::Int64 | DataType::UInt64] => {
                Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
            }
            [DataType::Decimal128(_, scale)] => {
                Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale))
            }
            _ => plan_err!("sum does not take {arguments:?}"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format_state_name(args.name, "sum");
        let field = Field::new(name, args.return_type().clone(), true);
        Ok(vec![Arc::new(field)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("sum(DISTINCT …) is not supported: sum a query of distinct rows");
        }
        Ok(Box::new(Sum::of(args.return_field.data_type())?))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(GroupSums::of(args.return_field.data_type())?))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The type in which an argument is added up.
fn summed_as(argument: &DataType) -> Result<DataType> {
    match argument {
        DataType::Null => Ok(DataType::Int64),
        DataType::UInt64 => Ok(DataType::UInt64),
        integer if integer.is_integer() => Ok(DataType::Int64),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => Ok(DataType::Decimal128(*precision, *scale)),
        float if float.is_floating() => plan_err!(
            "sum does not take floating-point numbers, whose sum depends on their order: \
             declare or cast the value as DECIMAL"
        ),
        other => plan_err!("sum does not take {other}: it adds integers and decimals"),
    }
}

/// Splits the result type into what an accumulator needs.
fn scale_of(result: &DataType) -> Result<i8> {
    match result {
        DataType::Decimal128(_, scale) => Ok(*scale),
        other => internal_err!("sum cannot return {other}"),
    }
}

/// The sum, if it fits the 38 digits of its type.
fn within_38_digits(sum: i128) -> Result<i128> {
    if (-LARGEST..=LARGEST).contains(&sum) {
        Ok(sum)
    } else {
        overflow()
    }
}

fn overflow<T>() -> Result<T> {
    exec_err!("sum overflow: the result needs more than 38 digits")
}

/// The sums of many groups, by group index.
#[derive(Debug)]
struct GroupSums {
    sums: Vec<i128>,
    /// Which groups had a value that was not NULL; `None` while all had.
    seen: Option<Vec<bool>>,
    scale: i8,
}

impl GroupSums {
    fn of(result: &DataType) -> Result<Self> {
        Ok(Self {
            sums: Vec::new(),
            seen: None,
            scale: scale_of(result)?,
        })
    }

    fn add(
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
        if overflowed { overflow() } else { Ok(()) }
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
        if !sums.iter().all(|sum| (-LARGEST..=LARGEST).contains(sum)) {
            return overflow();
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
    let sums = sums.with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale)?;
    Ok(Arc::new(sums))
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
        let mut each = GroupSums {
            sums: Vec::new(),
            seen: None,
            scale: self.scale,
        };
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

/// One sum, for a query without GROUP BY and for window functions.
#[derive(Debug)]
struct Sum {
    sum: i128,
    /// Values that were not NULL.
    count: usize,
    scale: i8,
}

impl Sum {
    fn of(result: &DataType) -> Result<Self> {
        Ok(Self {
            sum: 0,
            count: 0,
            scale: scale_of(result)?,
        })
    }

    /// The sum of one batch, added up as one group.
    fn batch_sum(&self, values: &ArrayRef) -> Result<i128> {
        let mut batch = GroupSums {
            sums: Vec::new(),
            seen: None,
            scale: self.scale,
        };
        batch.add(values, &vec![0; values.len()], None, 1)?;
        Ok(batch.sums[0])
    }

    fn apply(&mut self, sum: Option<i128>, count: Option<usize>) -> Result<()> {
        match (sum, count) {
            (Some(sum), Some(count)) => {
                self.sum = sum;
                self.count = count;
                Ok(())
            }
            _ => overflow(),
        }
    }
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let more = self.batch_sum(&values[0])?;
        let count = values[0].len() - values[0].null_count();
        self.apply(self.sum.checked_add(more), self.count.checked_add(count))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let less = self.batch_sum(&values[0])?;
        let count = values[0].len() - values[0].null_count();
        self.apply(self.sum.checked_sub(less), self.count.checked_sub(count))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = match self.count {
            0 => None,
            _ => Some(within_38_digits(self.sum)?),
        };
        Ok(ScalarValue::Decimal128(
            sum,
            DECIMAL128_MAX_PRECISION,
            self.scale,
        ))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
#[path = "sum_tests.rs"]
mod tests;
