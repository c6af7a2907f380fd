//! `sum`, exact: integers and decimals are added as 128-bit decimals of up to 38 digits, and a sum
//! that needs more is an error. It never wraps.

use super::{
    values::{overflow, scale_of, widest, within_38_digits},
    wide::{self, narrow},
};
use crate::schema::type_name;
use arrow::{
    array::{Array, ArrayRef},
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, i256},
};
use datafusion::{
    common::{Result, ScalarValue, plan_err},
    logical_expr::{
        Accumulator, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::{AggregateOrderSensitivity, format_state_name},
    },
};
use groups::GroupSums;
use std::sync::Arc;

mod groups;

const NAME: &str = "sum";

/// `sum(x)`: DECIMAL(38, 0) for integers, DECIMAL(38, s) for DECIMAL(p, s), NULL over no values.
///
/// Its state is one column of the result's type, and one for the digits of a wide sum: only the
/// whole decides whether it has too many digits, never the order of its values.
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
        NAME
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
            [DataType::Int64 | DataType::UInt64] => Ok(widest(0)),
            [DataType::Decimal128(_, scale)] => Ok(widest(*scale)),
            _ => plan_err!("sum does not take {arguments:?}"),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format_state_name(args.name, "sum");
        let field = Field::new(name, args.return_type().clone(), true);
        let wide = Field::new(format_state_name(args.name, "wide"), wide::DIGITS, true);
        Ok(vec![Arc::new(field), Arc::new(wide)])
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
        let scale = scale_of(args.return_field.data_type())?;
        Ok(Box::new(GroupSums::at_scale(scale)))
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
        other => {
            let other = type_name(other);
            plan_err!("sum does not take {other}: it adds integers and decimals")
        }
    }
}

/// One sum, for a query without GROUP BY and for window functions.
#[derive(Debug)]
struct Sum {
    sum: i256,
    /// Values that were not NULL.
    count: usize,
    scale: i8,
}

impl Sum {
    fn of(result: &DataType) -> Result<Self> {
        Ok(Self {
            sum: i256::ZERO,
            count: 0,
            scale: scale_of(result)?,
        })
    }

    /// The sum of one batch, added up as one group.
    fn batch_sum(&self, values: &ArrayRef) -> Result<i256> {
        let mut batch = GroupSums::at_scale(self.scale);
        batch.add(values, &vec![0; values.len()], None, 1)?;
        Ok(batch.sum_of(0))
    }

    fn apply(&mut self, sum: Option<i256>, count: Option<usize>) -> Result<()> {
        match (sum, count) {
            (Some(sum), Some(count)) => {
                self.sum = sum;
                self.count = count;
                Ok(())
            }
            _ => overflow(NAME),
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
        let sums = wide::Sums::of(&states[0], &states[1], self.scale)?;
        for row in 0..states[0].len() {
            if let Some(more) = sums.value(row)? {
                self.apply(self.sum.checked_add(more), self.count.checked_add(1))?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = match self.count {
            0 => None,
            _ => Some(within_38_digits(NAME, narrow(self.sum))?),
        };
        Ok(ScalarValue::Decimal128(
            sum,
            DECIMAL128_MAX_PRECISION,
            self.scale,
        ))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sum = (self.count > 0).then_some(self.sum);
        let (sum, wide) = wide::columns(&[sum], self.scale)?;
        Ok(vec![
            ScalarValue::try_from_array(&sum, 0)?,
            ScalarValue::try_from_array(&wide, 0)?,
        ])
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests;
