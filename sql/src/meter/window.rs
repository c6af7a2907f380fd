//! The base window of an event, as a column.

use crate::{schema, window};
use arrow::{
    array::{ArrayRef, AsArray, TimestampMicrosecondArray},
    datatypes::{DataType, TimestampMicrosecondType},
};
use datafusion::{
    common::{Result, exec_datafusion_err, plan_err},
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use std::{cell::Cell, sync::Arc};

/// The function from event times to the start of their windows of this width.
pub(super) fn window_start(width_us: i64) -> ScalarUDF {
    ScalarUDF::from(WindowStart {
        width_us,
        signature: Signature::exact(vec![schema::timestamp()], Volatility::Immutable),
    })
}

/// The function from event times to the end of the sessions that would be theirs alone.
pub(super) fn session_end(gap_us: i64) -> ScalarUDF {
    ScalarUDF::from(SessionEnd {
        gap_us,
        signature: Signature::exact(vec![schema::timestamp()], Volatility::Immutable),
    })
}

/// Starts of the windows that hold these instants. Windows are aligned to the Unix epoch and
/// half-open, before 1970 too; NULL stays NULL.
///
/// # Errors
/// When a window would start before the first instant that 64 bits of microseconds can tell.
pub(super) fn window_starts(
    event_times: &TimestampMicrosecondArray,
    width_us: i64,
) -> Result<TimestampMicrosecondArray> {
    // Most events lie in the window of the one before: spare them the division.
    let last_us = Cell::new(None);
    let start = |time_us: i64| match last_us.get() {
        Some(start) if holds(start, width_us, time_us) => Ok(start),
        _ => {
            let start = start_of(time_us, width_us)?;
            last_us.set(Some(start));
            Ok::<i64, DataFusionError>(start)
        }
    };
    let starts: TimestampMicrosecondArray = event_times.try_unary(start)?;
    Ok(starts.with_data_type(schema::timestamp()))
}

fn holds(start_us: i64, width_us: i64, time_us: i64) -> bool {
    time_us
        .checked_sub(start_us)
        .is_some_and(|into| (0..width_us).contains(&into))
}

fn start_of(time_us: i64, width_us: i64) -> Result<i64> {
    window::start_of(time_us, width_us)
        .ok_or_else(|| exec_datafusion_err!("event time {time_us} µs has no window"))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowStart {
    width_us: i64,
    signature: Signature,
}

impl ScalarUDFImpl for WindowStart {
    fn name(&self) -> &str {
        "window_start"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::Timestamp(..)] => Ok(schema::timestamp()),
            _ => plan_err!("a window is of one event time"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times: ArrayRef = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let starts = window_starts(times, self.width_us)?;
        Ok(ColumnarValue::Array(Arc::new(starts)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionEnd {
    gap_us: i64,
    signature: Signature,
}

impl ScalarUDFImpl for SessionEnd {
    fn name(&self) -> &str {
        "session_end"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(schema::timestamp())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let times: ArrayRef = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let end = |time_us: i64| {
            time_us
                .checked_add(self.gap_us)
                .ok_or_else(|| exec_datafusion_err!("a session at {time_us} µs has no end"))
        };
        let ends: TimestampMicrosecondArray = times.try_unary(end)?;
        Ok(ColumnarValue::Array(Arc::new(
            ends.with_data_type(schema::timestamp()),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn start(time_us: i64, width_us: i64) -> i64 {
        let times = TimestampMicrosecondArray::from(vec![time_us]).with_timezone("UTC");
        window_starts(&times, width_us).unwrap().value(0)
    }

    #[test]
    fn an_event_on_a_boundary_belongs_to_the_later_window() {
        assert_eq!(start(HOUR - 1, HOUR), 0);
        assert_eq!(start(HOUR, HOUR), HOUR);
    }

    #[test]
    fn windows_before_1970_start_before_their_events() {
        assert_eq!(start(-1, HOUR), -HOUR);
        assert_eq!(start(-HOUR, HOUR), -HOUR);
        assert_eq!(start(-HOUR - 1, HOUR), -2 * HOUR);
    }

    #[test]
    fn each_row_has_its_own_window_and_null_has_none() {
        let times = vec![Some(5), None, Some(HOUR + 5), Some(7), Some(-7)];
        let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        let expected = vec![Some(0), None, Some(HOUR), Some(0), Some(-HOUR)];
        let expected = TimestampMicrosecondArray::from(expected).with_timezone("UTC");
        assert_eq!(window_starts(&times, HOUR).unwrap(), expected);
    }

    #[test]
    fn a_window_that_cannot_be_told_is_an_error() {
        let times = TimestampMicrosecondArray::from(vec![i64::MIN]).with_timezone("UTC");
        assert!(window_starts(&times, 7 * HOUR).is_err());
        assert_eq!(start(i64::MAX, HOUR), i64::MAX - i64::MAX % HOUR);
    }
}
