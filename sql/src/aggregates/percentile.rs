//! Exact percentiles: every value is kept, with how often it came.

use super::{
    average::decimals,
    fold::{Aggregate, Kind, Rows},
    values::{
        Values, as_decimal, as_exact, as_lists, list_of, lists, scale_of, widest, within_38_digits,
    },
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    datatypes::{DataType, Decimal128Type, Int64Type},
};
use datafusion::{
    common::{Result, ScalarValue, exec_datafusion_err, plan_err},
    logical_expr::function::AccumulatorArgs,
    physical_expr::expressions::Literal,
};
use std::{collections::BTreeMap, sync::Arc};

/// The most digits after the point that a fraction may have.
const FRACTION_SCALE_MAX: i8 = 9;

/// Which value stands for a percentile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Percentile {
    /// `percentile(x, p)`, of x's type: the nearest rank. That is the smallest value such that at
    /// least p of all values are not above it; the least value for p = 0.
    Rank,
    /// `percentile_cont(x, p)`, DECIMAL(38, digits of x + digits of p after the point): the value at
    /// place p · (n − 1) of the sorted n values, on the line between its neighbours.
    Line,
    /// `median(x)`: `percentile_cont(x, 0.5)`.
    Median,
}

impl Kind for Percentile {
    type Aggregate = Ranked;

    fn name(&self) -> &'static str {
        match self {
            Percentile::Rank => "percentile",
            Percentile::Line => "percentile_cont",
            Percentile::Median => "median",
        }
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        match (self, arguments) {
            (Percentile::Rank, [value, p]) => Ok(vec![as_exact(name, value)?, p.clone()]),
            (Percentile::Line, [value, p]) => Ok(vec![as_decimal(name, value)?, p.clone()]),
            (Percentile::Median, [value]) => Ok(vec![as_decimal(name, value)?]),
            (Percentile::Median, _) => plan_err!("{name} takes one argument, {name}(x)"),
            _ => plan_err!("{name} takes two arguments, such as {name}(x, 0.95)"),
        }
    }

    fn result(&self, arguments: &[DataType]) -> Result<DataType> {
        let places = match (self, arguments) {
            (Percentile::Rank, [value, ..]) => return Ok(value.clone()),
            (Percentile::Line, [_, DataType::Decimal128(_, scale)]) => *scale,
            (Percentile::Median, _) => 1,
            _ => 0,
        };
        let scale = scale_of(&arguments[0])?.saturating_add(places);
        if scale > arrow::datatypes::DECIMAL128_MAX_SCALE {
            let name = self.name();
            return plan_err!("{name} would have {scale} digits after the point: cast to fewer");
        }
        Ok(widest(scale))
    }

    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![
            list_of(arguments[0].clone()),
            list_of(DataType::Int64),
        ])
    }

    fn aggregate(&self, args: &AccumulatorArgs) -> Result<Ranked> {
        Ok(Ranked {
            kind: self.clone(),
            p: match self {
                Percentile::Median => Fraction {
                    digits: 5,
                    unit: 10,
                },
                Percentile::Rank | Percentile::Line => self.fraction(args)?,
            },
            result: args.return_type().clone(),
            values: Values::of(args.expr_fields[0].data_type())?,
        })
    }
}

impl Percentile {
    fn fraction(&self, args: &AccumulatorArgs) -> Result<Fraction> {
        let name = self.name();
        let literal = args.exprs[1].downcast_ref::<Literal>().map(Literal::value);
        let (digits, scale) = match literal {
            Some(ScalarValue::Decimal128(Some(digits), _, scale)) => (*digits, *scale),
            Some(ScalarValue::Int64(Some(whole))) => (i128::from(*whole), 0),
            _ => return plan_err!("{name} takes a number such as 0.95, written out"),
        };
        let Some(unit) = u32::try_from(scale).ok().map(|scale| 10_i128.pow(scale)) else {
            return plan_err!("{name} takes a number such as 0.95, written out");
        };
        if scale > FRACTION_SCALE_MAX || !(0..=unit).contains(&digits) {
            return plan_err!("{name} takes a number from 0 to 1, of at most 9 digits");
        }
        Ok(Fraction { digits, unit })
    }
}

/// A number from 0 to 1: `digits / unit`.
#[derive(Debug, Clone, Copy)]
struct Fraction {
    digits: i128,
    unit: i128,
}

#[derive(Debug, Clone)]
pub(super) struct Ranked {
    kind: Percentile,
    p: Fraction,
    result: DataType,
    values: Values,
}

/// Values in their order, with how often each came.
type Counts = BTreeMap<Box<[u8]>, i64>;

impl Ranked {
    /// The values at the nearest rank.
    fn at_rank(&self, groups: &[Counts]) -> Result<ArrayRef> {
        let value = |counts| {
            let share = self.p.digits * total(counts);
            // Up to the next whole: rank 1 is the first.
            let rank = (share + self.p.unit - 1) / self.p.unit;
            nth(counts, rank.max(1) - 1)
        };
        self.values.column(groups.iter().map(value))
    }

    /// The values on the line between the neighbours of a place.
    fn on_line(&self, groups: &[Counts]) -> Result<ArrayRef> {
        let place = |counts| self.p.digits * (total(counts) - 1).max(0);
        let neighbours = |up: i128| {
            let values = groups
                .iter()
                .map(|counts| nth(counts, place(counts) / self.p.unit + up));
            self.values.column(values)
        };
        let (below, above) = (neighbours(0)?, neighbours(1)?);
        let below = below.as_primitive::<Decimal128Type>();
        let above = above.as_primitive::<Decimal128Type>();
        let line = |(row, counts)| {
            if below.is_null(row) {
                return Ok(None);
            }
            let low = below.value(row);
            // There is no neighbour above the last value, and no way to it.
            let high = if above.is_valid(row) {
                above.value(row)
            } else {
                low
            };
            let part = place(counts) % self.p.unit;
            let way = high.checked_sub(low).and_then(|way| way.checked_mul(part));
            let start = low.checked_mul(self.p.unit);
            let digits = start
                .zip(way)
                .and_then(|(start, way)| start.checked_add(way));
            within_38_digits(self.kind.name(), digits).map(Some)
        };
        let values: Vec<Option<i128>> = (0..).zip(groups).map(line).collect::<Result<_>>()?;
        decimals(values.into_iter(), scale_of(&self.result)?)
    }
}

fn total(counts: &Counts) -> i128 {
    counts.values().map(|count| i128::from(*count)).sum()
}

/// The value at an index from 0 of the sorted values; `None` beyond the last.
fn nth(counts: &Counts, index: i128) -> Option<&[u8]> {
    let mut before = 0;
    let mut values = counts.iter();
    let found = values.find(|(_, count)| {
        before += i128::from(**count);
        index < before
    });
    found.map(|(value, _)| &**value)
}

fn add(counts: &mut Counts, value: &[u8], more: i64) -> Result<()> {
    match counts.get_mut(value) {
        Some(count) => {
            let total = count.checked_add(more);
            *count = total.ok_or_else(|| exec_datafusion_err!("too many values to rank"))?;
        }
        None => drop(counts.insert(value.into(), more)),
    }
    Ok(())
}

impl Aggregate for Ranked {
    type Group = Counts;

    fn update(&self, groups: &mut [Counts], arguments: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let values = self.values.rows(&arguments[0])?;
        for (row, group) in rows.iter().filter(|(row, _)| arguments[0].is_valid(*row)) {
            add(&mut groups[group], values.row(row).data(), 1)?;
        }
        Ok(())
    }

    fn merge(&self, groups: &mut [Counts], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let (lists, counts) = (as_lists(&states[0])?, as_lists(&states[1])?);
        let values = self.values.rows(lists.values())?;
        let numbers = counts.values().as_primitive::<Int64Type>();
        for (row, group) in rows.iter() {
            let [values_at, numbers_at] = super::event_order::parallel([lists, counts], row)?;
            for (value, number) in values_at.zip(numbers_at) {
                let value = values.row(value);
                add(&mut groups[group], value.data(), numbers.value(number))?;
            }
        }
        Ok(())
    }

    fn states(&self, groups: &[Counts]) -> Result<Vec<ArrayRef>> {
        let lengths = || groups.iter().map(BTreeMap::len).collect();
        let values = groups.iter().flat_map(BTreeMap::keys);
        let values = self.values.column(values.map(|value| Some(&**value)))?;
        let counts = groups.iter().flat_map(BTreeMap::values).copied();
        let counts = Arc::new(Int64Array::from_iter_values(counts));
        Ok(vec![lists(lengths(), values)?, lists(lengths(), counts)?])
    }

    fn values(&self, groups: &[Counts]) -> Result<ArrayRef> {
        match self.kind {
            Percentile::Rank => self.at_rank(groups),
            Percentile::Line | Percentile::Median => self.on_line(groups),
        }
    }
}
