//! `local_time(instant, zone)`: what the clocks of a time zone show, for prices by hour, weekday or date.
//!
//! The answer is a TIMESTAMP without a zone: `date_part('hour', local_time(window_start, 'Europe/Berlin'))` is the hour there.
//! An instant without a zone is in UTC. Each instant has one local time; where clocks are set back, two instants an
//! hour apart have the same one. The zone is an IANA name, also from a column.

use super::{
    call::{evaluated, signature},
    error::FunctionError,
};
use arrow::{
    array::{Array, AsArray, TimestampMicrosecondArray},
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
};
use datafusion::{
    common::cast::as_string_array,
    error::Result as PlanResult,
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    },
};
use jiff::{Timestamp, tz::TimeZone};
use std::{collections::HashMap, sync::Arc};

const NAME: &str = "local_time";

/// The local time of an instant, both in microseconds since 1970.
///
/// # Errors
/// [`FunctionError::Choice`] for an instant beyond the calendar.
pub fn local_time(instant_us: i64, zone: &TimeZone) -> Result<i64, FunctionError> {
    let shifted = Timestamp::from_microsecond(instant_us).ok().and_then(|at| {
        let offset_us = i64::from(zone.to_offset(at).seconds()) * 1_000_000;
        instant_us.checked_add(offset_us)
    });
    shifted.ok_or_else(|| FunctionError::Choice {
        function: NAME,
        argument: "instant",
        value: format!("{instant_us} microseconds since 1970"),
        wanted: "from the year -9999 to 9999",
    })
}

fn zone(name: &str) -> Result<TimeZone, FunctionError> {
    TimeZone::get(name).map_err(|_| FunctionError::Choice {
        function: NAME,
        argument: "zone",
        value: format!("'{name}'"),
        wanted: "a name of the IANA database, such as 'Europe/Berlin'",
    })
}

pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(LocalTime {
        signature: signature(["instant", "zone"].into_iter()),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LocalTime {
    signature: Signature,
}

impl ScalarUDFImpl for LocalTime {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
    }

    fn coerce_types(&self, given: &[DataType]) -> PlanResult<Vec<DataType>> {
        let [instant, name] = given else {
            let (function, takes, given) = (NAME, "(instant, zone)".to_owned(), given.len());
            return Err(FunctionError::Count {
                function,
                takes,
                given,
            }
            .into());
        };
        let wrong = |argument, given: &DataType, wanted| FunctionError::Type {
            function: NAME,
            argument,
            given: given.clone(),
            wanted,
        };
        if !matches!(instant, DataType::Timestamp(..) | DataType::Null) {
            return Err(wrong("instant", instant, "a TIMESTAMP, such as `event_time`").into());
        }
        if !name.is_string() && !name.is_null() {
            return Err(wrong("zone", name, "text, such as 'Europe/Berlin'").into());
        }
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Ok(vec![utc, DataType::Utf8])
    }

    /// A zone that is written in the query is refused while it is planned.
    fn return_field_from_args(
        &self,
        call: ReturnFieldArgs<'_>,
    ) -> PlanResult<arrow::datatypes::FieldRef> {
        let written = call.scalar_arguments.get(1).copied().flatten();
        if let Some(name) = written.and_then(|value| value.try_as_str()).flatten() {
            zone(name)?;
        }
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, None);
        Ok(Arc::new(arrow::datatypes::Field::new(
            NAME, data_type, true,
        )))
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        evaluated(&call, |rows| {
            let (instants, names) = (call.args[0].to_array(rows)?, call.args[1].to_array(rows)?);
            let instants = instants.as_primitive::<TimestampMicrosecondType>();
            let names = as_string_array(&names)?;
            let mut zones: HashMap<&str, TimeZone> = HashMap::new();
            let mut local = Vec::with_capacity(rows);
            for row in 0..rows {
                if instants.is_null(row) || names.is_null(row) {
                    local.push(None);
                    continue;
                }
                let name = names.value(row);
                let found = match zones.get(name) {
                    Some(known) => known,
                    None => {
                        let read = zone(name)?;
                        zones.entry(name).or_insert(read)
                    }
                };
                local.push(Some(local_time(instants.value(row), found)?));
            }
            Ok(Arc::new(TimestampMicrosecondArray::from(local)))
        })
    }
}
