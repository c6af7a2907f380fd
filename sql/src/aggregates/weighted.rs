//! Usage weighed by time: `time_weighted_sum`, `time_weighted_avg` and `prorated_sum`.
//!
//! The values are changes of a level. From its event on a change weighs until the end of the time
//! that is asked for, so over `[from, until)` the integral of the level is
//!
//! ```text
//! Σ change · (until − at)  =  until · Σ change  −  Σ change · at
//! ```
//!
//! Both sums on the right are plain sums: they need no order of events, and windows merge by
//! addition. The level that usage before `from` has left is a change at `from`
//! ([`crate::meter::Span`]). Time is counted in microseconds, or in days for `prorated_sum`, where
//! the day of an event counts in full.

use super::{
    average::{decimals, quotient, quotient_scale},
    fold::{Aggregate, Kind, Rows},
    values::{as_decimal, overflow, scale_of, widest, within_38_digits},
    wide::{self, narrow},
};
use crate::{
    schema,
    window::{self, DAY_US},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType, i256},
};
use datafusion::{
    common::{Result, exec_err, plan_err},
    logical_expr::function::AccumulatorArgs,
};
use std::sync::Arc;

/// How many digits a second has after the point.
const SECOND_SCALE: i8 = 6;

/// What the changes are weighed with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Weighted {
    /// `time_weighted_sum(x)`, DECIMAL(38, digits of x after the point + 6): the level in units times
    /// seconds, exactly.
    Seconds,
    /// `time_weighted_avg(x)`, DECIMAL(38, [`quotient_scale`] of x): the mean level.
    Level,
    /// `prorated_sum(x)`, DECIMAL(38, [`quotient_scale`] of x): each x times the days from its day to
    /// the last one, both counted, divided by the days of the whole.
    Days,
}

impl Weighted {
    /// A window as `[from, until)` in units of time, UTC.
    fn window(&self, time_us: i64, width_us: i64) -> Result<(i64, i64)> {
        let start = window::start_of(time_us, width_us);
        let end = start.and_then(|start| start.checked_add(width_us));
        match (start, end, self) {
            (Some(start), Some(end), Weighted::Days) => {
                Ok((start.div_euclid(DAY_US), (end - 1).div_euclid(DAY_US) + 1))
            }
            (Some(start), Some(end), _) => Ok((start, end)),
            _ => exec_err!("event time {time_us} µs has no window"),
        }
    }

    /// An instant in units of time.
    fn at(&self, time_us: i64) -> i64 {
        match self {
            Weighted::Days => time_us.div_euclid(DAY_US),
            Weighted::Seconds | Weighted::Level => time_us,
        }
    }
}

impl Kind for Weighted {
    type Aggregate = Weighing;

    fn name(&self) -> &'static str {
        match self {
            Weighted::Seconds => "time_weighted_sum",
            Weighted::Level => "time_weighted_avg",
            Weighted::Days => "prorated_sum",
        }
    }

    fn coerce(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        let [change, _, _] = arguments else {
            return plan_err!(
                "{name} does not know the window: write {name}(x, event_time, width in \
                 microseconds); in a meter {name}(x) is enough"
            );
        };
        let change = as_decimal(name, change)?;
        Ok(vec![change, schema::timestamp(), DataType::Int64])
    }

    fn result(&self, arguments: &[DataType]) -> Result<DataType> {
        let scale = scale_of(&arguments[0])?;
        let scale = match self {
            Weighted::Seconds => scale.saturating_add(SECOND_SCALE),
            Weighted::Level | Weighted::Days => quotient_scale(scale),
        };
        if scale > arrow::datatypes::DECIMAL128_MAX_SCALE {
            let name = self.name();
            return plan_err!("{name} would have {scale} digits after the point: cast to fewer");
        }
        Ok(widest(scale))
    }

    /// `change, moment, from, until, whole`: Σ change, Σ change · at, and the time that is asked for; then the
    /// digits of the two sums where they are wide.
    fn state(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let sum = widest(scale_of(&arguments[0])?);
        let bound = DataType::Int64;
        let [from, until, whole] = [(); 3].map(|()| bound.clone());
        let digits = wide::DIGITS;
        Ok(vec![
            sum.clone(),
            sum,
            from,
            until,
            whole,
            digits.clone(),
            digits,
        ])
    }

    fn wide(&self) -> usize {
        2
    }

    fn aggregate(&self, args: &AccumulatorArgs) -> Result<Weighing> {
        Ok(Weighing {
            scale: scale_of(args.expr_fields[0].data_type())?,
            kind: self.clone(),
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Weighing {
    kind: Weighted,
    scale: i8,
}

/// The sums of a group, and the time they are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    change: i256,
    moment: i256,
    from: i64,
    until: i64,
    whole: i64,
}

impl Weighing {
    fn add(&self, group: &mut Option<Sums>, more: Sums) -> Result<()> {
        let Some(sums) = group else {
            *group = Some(more);
            return Ok(());
        };
        wide::add(&mut sums.change, more.change)?;
        wide::add(&mut sums.moment, more.moment)?;
        sums.from = sums.from.min(more.from);
        sums.until = sums.until.max(more.until);
        sums.whole = sums.whole.max(more.whole);
        Ok(())
    }

    fn value(&self, sums: &Sums) -> Result<i128> {
        let name = self.kind.name();
        let integral = sums.change.checked_mul(i256::from(sums.until));
        let integral = integral.and_then(|whole| whole.checked_sub(sums.moment));
        let Some(integral) = integral else {
            return overflow(name);
        };
        match self.kind {
            // Microseconds are seconds with six digits after the point.
            Weighted::Seconds => within_38_digits(name, narrow(integral)),
            Weighted::Level | Weighted::Days => quotient(name, integral, self.scale, sums.whole),
        }
    }
}

impl Aggregate for Weighing {
    type Group = Option<Sums>;

    fn update(
        &self,
        groups: &mut [Self::Group],
        arguments: &[ArrayRef],
        rows: Rows<'_>,
    ) -> Result<()> {
        let changes = arguments[0].as_primitive::<Decimal128Type>();
        let times = arguments[1].as_primitive::<TimestampMicrosecondType>();
        let widths = arguments[2].as_primitive::<Int64Type>();
        for (row, group) in rows.iter().filter(|(row, _)| changes.is_valid(*row)) {
            if times.is_null(row) || widths.is_null(row) {
                return exec_err!("{} was given no time", self.kind.name());
            }
            let (change, time_us) = (changes.value(row), times.value(row));
            let (from, until) = self.kind.window(time_us, widths.value(row))?;
            let change = i256::from_i128(change);
            let event = Sums {
                change,
                moment: moment(self.kind.name(), change, self.kind.at(time_us))?,
                from,
                until,
                whole: until - from,
            };
            self.add(&mut groups[group], event)?;
        }
        Ok(())
    }

    fn merge(&self, groups: &mut [Self::Group], states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let changes = wide::Sums::of(&states[0], &states[5], self.scale)?;
        let moments = wide::Sums::of(&states[1], &states[6], self.scale)?;
        let [from, until, whole] =
            [2, 3, 4].map(|column: usize| states[column].as_primitive::<Int64Type>());
        for (row, group) in rows.iter() {
            let (Some(change), Some(moment)) = (changes.value(row)?, moments.value(row)?) else {
                continue;
            };
            let sums = Sums {
                change,
                moment,
                from: from.value(row),
                until: until.value(row),
                whole: whole.value(row),
            };
            self.add(&mut groups[group], sums)?;
        }
        Ok(())
    }

    fn states(&self, groups: &[Self::Group]) -> Result<Vec<ArrayRef>> {
        let bounds = |of: fn(&Sums) -> i64| -> ArrayRef {
            let bounds = groups.iter().map(|sums| sums.as_ref().map(of));
            Arc::new(bounds.collect::<Int64Array>())
        };
        let sums = |of: fn(&Sums) -> i256| {
            let sums: Vec<Option<i256>> = groups.iter().map(|sums| sums.as_ref().map(of)).collect();
            wide::columns(&sums, self.scale)
        };
        let (changes, wide_changes) = sums(|sums| sums.change)?;
        let (moments, wide_moments) = sums(|sums| sums.moment)?;
        Ok(vec![
            changes,
            moments,
            bounds(|sums| sums.from),
            bounds(|sums| sums.until),
            bounds(|sums| sums.whole),
            wide_changes,
            wide_moments,
        ])
    }

    fn values(&self, groups: &[Self::Group]) -> Result<ArrayRef> {
        let value = |sums: &Self::Group| sums.as_ref().map(|sums| self.value(sums)).transpose();
        let values: Vec<Option<i128>> = groups.iter().map(value).collect::<Result<_>>()?;
        let scale = match self.kind {
            Weighted::Seconds => self.scale.saturating_add(SECOND_SCALE),
            Weighted::Level | Weighted::Days => quotient_scale(self.scale),
        };
        decimals(values.into_iter(), scale)
    }
}

/// A change, weighed with when it happened.
fn moment(name: &str, change: i256, at: i64) -> Result<i256> {
    match change.checked_mul(i256::from(at)) {
        Some(moment) => Ok(moment),
        None => overflow(name),
    }
}

/// The columns of changes that all happened at one time each, NULL where there is none: `change, moment` and,
/// where they are wide, their digits.
pub(crate) fn moments(columns: &mut [ArrayRef], at: impl Fn(usize) -> i64) -> Result<()> {
    let scale = scale_of(columns[0].data_type())?;
    let changes = wide::Sums::of(&columns[0], &columns[5], scale)?;
    let moment = |row| match changes.value(row)? {
        Some(change) => moment("a level", change, at(row)).map(Some),
        None => Ok(None),
    };
    let moments: Vec<Option<i256>> = (0..columns[0].len()).map(moment).collect::<Result<_>>()?;
    (columns[1], columns[6]) = wide::columns(&moments, scale)?;
    Ok(())
}
