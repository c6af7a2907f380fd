//! `avg`, exact up to its one rounding: the sum and the count are its state.

use super::{
    fold::{Aggregate, Kind, Rows},
    values::{as_decimal, scale_of, widest, within_38_digits},
    wide,
};
use crate::money;
use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array},
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Int64Type, i256},
};
use datafusion::{
    common::{Result, exec_datafusion_err, plan_err},
    logical_expr::function::AccumulatorArgs,
};
use std::sync::Arc;

const NAME: &str = "avg";

/// The digits after the point of a quotient of numbers with `scale` of them: twelve more, but not
/// more than 24, so that 14 are left before the point; never fewer than the numbers have.
pub(super) fn quotient_scale(scale: i8) -> i8 {
    scale.saturating_add(12).min(24).max(scale)
}

/// Divides numbers of one scale, and rounds half away from zero to [`quotient_scale`] digits.
/// `divisor` is above zero.
pub(super) fn quotient(name: &str, digits: i256, scale: i8, divisor: i64) -> Result<i128> {
    let zeros = quotient_scale(scale).abs_diff(scale);
    within_38_digits(name, money::quotient(digits, zeros, divisor.into()))
}

/// Decimals of 38 digits.
pub(super) fn decimals(digits: impl Iterator<Item = Option<i128>>, scale: i8) -> Result<ArrayRef> {
    let decimals: Decimal128Array = digits.collect();
    let decimals = decimals.with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale)?;
    Ok(Arc::new(decimals))
}

/// `avg(x)`: DECIMAL(38, [`quotient_scale`] of x), the sum divided by the count of values that are
/// not NULL; NULL over none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Avg;

impl Kind for Avg {
    type Aggregate = Average;

    fn name(&self) -> &'static str {
        NAME
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [argument] => Ok(vec![as_decimal(NAME, argument)?]),
            _ => plan_err!("{NAME} takes one argument, not {}", arguments.len()),
        }
    }

    fn result(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(widest(quotient_scale(scale_of(&arguments[0])?)))
    }

    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let sum = widest(scale_of(&arguments[0])?);
        Ok(vec![sum, DataType::Int64, wide::DIGITS])
    }

    fn wide(&self) -> usize {
        1
    }

    fn aggregate(&self, args: &AccumulatorArgs) -> Result<Average> {
        let scale = scale_of(args.expr_fields[0].data_type())?;
        Ok(Average { scale })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Average {
    scale: i8,
}

/// Sum and count of the values.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum {
    digits: i256,
    count: i64,
}

impl Sum {
    fn add(&mut self, digits: i256, count: i64) -> Result<()> {
        wide::add(&mut self.digits, digits)?;
        let count = self.count.checked_add(count);
        self.count = count.ok_or_else(|| exec_datafusion_err!("too many values for avg"))?;
        Ok(())
    }
}

impl Aggregate for Average {
    type Group = Sum;

    fn update(&self, groups: &mut [Sum], arguments: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let values = arguments[0].as_primitive::<Decimal128Type>();
        for (row, group) in rows.iter().filter(|(row, _)| values.is_valid(*row)) {
            groups[group].add(i256::from_i128(values.value(row)), 1)?;
        }
        Ok(())
    }

    fn merge(&self, groups: &mut [Sum], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let sums = wide::Sums::of(&states[0], &states[2], self.scale)?;
        let counts = states[1].as_primitive::<Int64Type>();
        for (row, group) in rows.iter() {
            if let Some(sum) = sums.value(row)? {
                groups[group].add(sum, counts.value(row))?;
            }
        }
        Ok(())
    }

    fn states(&self, groups: &[Sum]) -> Result<Vec<ArrayRef>> {
        let sums = groups
            .iter()
            .map(|sum| (sum.count > 0).then_some(sum.digits));
        let (sums, wide) = wide::columns(&sums.collect::<Vec<_>>(), self.scale)?;
        let counts = groups.iter().map(|sum| sum.count);
        let counts = Arc::new(Int64Array::from_iter_values(counts));
        Ok(vec![sums, counts, wide])
    }

    fn values(&self, groups: &[Sum]) -> Result<ArrayRef> {
        let average = |sum: &Sum| match sum.count {
            0 => Ok(None),
            count => quotient(NAME, sum.digits, self.scale, count).map(Some),
        };
        let averages: Vec<Option<i128>> = groups.iter().map(average).collect::<Result<_>>()?;
        decimals(averages.into_iter(), quotient_scale(self.scale))
    }
}
