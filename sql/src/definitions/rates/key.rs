//! That a rate table has one row for each key, and for each instant where the key has a period.

use super::{Place, not_a_batch};
use crate::{definitions::model::RateTable, error::Result};
use datafusion::arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Date32Type, Field, TimestampMicrosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use std::collections::{BTreeMap, HashMap};

/// The key of a field's metadata that says which end of the table's period a column is. It reaches the plan of a
/// price, where only schemas and constraints do.
const METADATA: &str = "tollgate.period";

/// An end of a period, which holds its first instant and not its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The first instant of it.
    From,
    /// The first instant after it; NULL where there is none.
    To,
}

impl Bound {
    /// Which end of a table's period a column is.
    pub(super) fn of(table: &RateTable, column: &str) -> Option<Self> {
        let period = table.period.as_ref()?;
        match column {
            _ if column == period.from => Some(Bound::From),
            _ if column == period.to => Some(Bound::To),
            _ => None,
        }
    }

    /// Which end of a period a column of a relation is.
    pub(crate) fn of_field(field: &Field) -> Option<Self> {
        let written = field.metadata().get(METADATA)?;
        [Bound::From, Bound::To]
            .into_iter()
            .find(|bound| bound.as_str() == written)
    }

    pub(super) fn metadata(self) -> HashMap<String, String> {
        HashMap::from([(METADATA.to_owned(), self.as_str().to_owned())])
    }

    fn as_str(self) -> &'static str {
        match self {
            Bound::From => "from",
            Bound::To => "to",
        }
    }
}

/// The period of one row.
#[derive(Debug, Clone, Copy)]
struct Valid {
    row: usize,
    from: i64,
    /// `i64::MAX` without an end.
    to: i64,
}

impl RateTable {
    /// Refuses two rows with one key, at one instant where the key has a period. Values are compared and not texts: `1.0`
    /// and `1.00` are one key.
    pub(super) fn check_key(
        &self,
        file: &str,
        table: &RecordBatch,
        place: impl Fn(usize) -> Place,
    ) -> Result<()> {
        if self.key.is_empty() && self.period.is_none() {
            return Ok(());
        }
        let options = FormatOptions::default();
        let cells = self.places_of(self.key.iter()).map(|column| {
            let column = table.column(column).as_ref() as &dyn Array;
            ArrayFormatter::try_new(column, &options).map_err(not_a_batch)
        });
        let cells = cells.collect::<Result<Vec<_>>>()?;
        let key = |row: usize| -> Vec<String> {
            cells
                .iter()
                .map(|cells| cells.value(row).to_string())
                .collect()
        };
        match &self.period {
            None => self.check_unique(file, table.num_rows(), key, place),
            Some(_) => self.check_apart(file, table, key, place),
        }
    }

    fn check_unique(
        &self,
        file: &str,
        rows: usize,
        key: impl Fn(usize) -> Vec<String>,
        place: impl Fn(usize) -> Place,
    ) -> Result<()> {
        let mut known = HashMap::new();
        for row in 0..rows {
            let key = key(row);
            let shown = shown(&key);
            if let Some(before) = known.insert(key, row) {
                let problem = format!(
                    "{shown} is the key of {} already: a table has one row for each key",
                    place(before)
                );
                let hint = "keep one of the rows; rates that change with time have a key such as PRIMARY KEY (model, PERIOD \
                            valid_from, valid_to)";
                let column = self.key.join(", ");
                return Err(self.error(file, &place(row), Some(&column), &problem, hint));
            }
        }
        Ok(())
    }

    /// Refuses a period that holds nothing, and two of one key that overlap.
    fn check_apart(
        &self,
        file: &str,
        table: &RecordBatch,
        key: impl Fn(usize) -> Vec<String>,
        place: impl Fn(usize) -> Place,
    ) -> Result<()> {
        let Some(period) = &self.period else {
            return Ok(());
        };
        let (from, to) = (
            table[period.from.as_str()].as_ref(),
            table[period.to.as_str()].as_ref(),
        );
        let options = FormatOptions::default();
        let texts = [from, to].map(|column| ArrayFormatter::try_new(column, &options));
        let [from_text, to_text] = texts;
        let (from_text, to_text) = (
            from_text.map_err(not_a_batch)?,
            to_text.map_err(not_a_batch)?,
        );
        let span = |row: usize| match to.is_null(row) {
            true => format!("from {} without end", from_text.value(row)),
            false => format!("from {} to {}", from_text.value(row), to_text.value(row)),
        };
        let mut by_key: BTreeMap<Vec<String>, Vec<Valid>> = BTreeMap::new();
        for row in 0..table.num_rows() {
            let valid = Valid {
                row,
                from: instant(from, row).unwrap_or(i64::MIN),
                to: instant(to, row).unwrap_or(i64::MAX),
            };
            if valid.to <= valid.from {
                let problem = format!("{} is no time at all", span(row));
                let hint = format!(
                    "`{}` is the first {} after the period: write a later one, or nothing where the row applies until further notice",
                    period.to,
                    unit(to)
                );
                return Err(self.error(file, &place(row), Some(&period.to), &problem, &hint));
            }
            for (column, bound) in [(from, &period.from), (to, &period.to)] {
                if let Some((problem, hint)) = out_of_reach(column, row) {
                    return Err(self.error(file, &place(row), Some(bound), &problem, hint));
                }
            }
            by_key.entry(key(row)).or_default().push(valid);
        }
        // The first row of the file that overlaps one before it.
        let mut wrong: Option<(Valid, Valid, String)> = None;
        for (key, mut periods) in by_key {
            periods.sort_by_key(|valid| (valid.from, valid.to, valid.row));
            // Of neighbours in time, if any two overlap, these do.
            for pair in periods.windows(2) {
                let [one, next] = [pair[0], pair[1]];
                if next.from < one.to {
                    let (before, after) = (one.row.min(next.row), one.row.max(next.row));
                    if wrong.as_ref().is_none_or(|(_, known, _)| after < known.row) {
                        let of = |row| if one.row == row { one } else { next };
                        wrong = Some((of(before), of(after), shown(&key)));
                    }
                }
            }
        }
        let Some((before, after, key)) = wrong else {
            return Ok(());
        };
        let of_key = if self.key.is_empty() {
            String::new()
        } else {
            format!("{key} ")
        };
        let problem = format!(
            "{of_key}{} overlaps {}, {}: at each time one row of a key applies",
            span(after.row),
            place(before.row),
            span(before.row)
        );
        let hint = format!(
            "end the earlier period where the later one begins: `{}` is the first {} after a period",
            period.to,
            unit(to)
        );
        let column = format!("{}, {}", period.from, period.to);
        Err(self.error(file, &place(after.row), Some(&column), &problem, &hint))
    }
}

fn shown(key: &[String]) -> String {
    format!("`{}`", key.join("`, `"))
}

/// A day or an instant as a number that orders as time does.
fn instant(column: &dyn Array, row: usize) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Date32 => column.as_primitive::<Date32Type>().value(row).into(),
        _ => column.as_primitive::<TimestampMicrosecondType>().value(row),
    })
}

fn unit(column: &dyn Array) -> &'static str {
    match column.data_type() {
        DataType::Date32 => "day",
        _ => "instant",
    }
}

/// Why a day cannot be compared with an instant, if it cannot, and what to write. SQL makes an instant of nanoseconds of it for that.
fn out_of_reach(column: &dyn Array, row: usize) -> Option<(String, &'static str)> {
    /// How far from 1970 the days are whose instants in nanoseconds have 64 bits.
    const DAYS: i64 = 106_751;
    let day = instant(column, row).filter(|_| column.data_type() == &DataType::Date32)?;
    let text = Date32Type::to_naive_date_opt(column.as_primitive::<Date32Type>().value(row));
    let text = text.map_or(String::new(), |date| date.to_string());
    let (which, hint) = if day > DAYS {
        (
            "end on 2262-04-11",
            "leave it empty where the row applies until further notice",
        )
    } else if day < -DAYS {
        (
            "begin on 1677-09-22",
            "write a later day; 1970-01-01 is before all usage",
        )
    } else {
        return None;
    };
    Some((
        format!("{text} is not a day that can be compared with instants, which {which}"),
        hint,
    ))
}
