//! What each meter's table already holds, and whether its definition may go on from there.

use crate::{
    commit::{Marks, Position},
    error::{Error, Result, query_error},
    metering::{Lane, Written, last_panes},
    several::several,
};
use datafusion::{
    functions_aggregate::expr_fn::max,
    prelude::{DataFrame, SessionContext, col, lit},
};
use futures::FutureExt;
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::{Sequence, Table};
use tollgate_sql::{
    definitions::{Definitions, Frame, LatePolicy},
    meter::Meter,
    window::{EventTime, Windowing},
};

/// What becomes of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// They are looked at, and no pane is made of them.
    Reading,
    /// Their panes are written: late ones go on from the numbers that their table has, which are read of all late panes.
    Writing,
}

/// Builds the lane of each meter from its table, `None` for a meter that has no table yet.
pub async fn lanes(
    definitions: &Definitions,
    meters: &[Arc<Meter>],
    tables: &[Option<&dyn Table>],
    marks: &Marks,
    position: &Position,
    purpose: For,
) -> Result<Vec<Lane>> {
    let lanes = meters.iter().zip(tables);
    let lanes = lanes
        .map(|(meter, table)| lane(definitions, meter, *table, marks, position, purpose).boxed());
    several(lanes.collect::<Vec<_>>()).await
}

/// Builds the lane of one meter from its table, if it has one, as of a position of its shard.
///
/// # Errors
/// [`Error::Meter`] when the table was written by other versions, or by another policy for late events.
pub async fn lane(
    definitions: &Definitions,
    meter: &Arc<Meter>,
    table: Option<&dyn Table>,
    marks: &Marks,
    position: &Position,
    purpose: For,
) -> Result<Lane> {
    let event_type = definitions
        .event_type(&meter.definition().event_type)
        .ok_or(Error::Contradiction {
            what: "every meter has an event type",
        })?;
    let Some(table) = table else {
        let panes = BTreeMap::new();
        let lane = Lane::new(
            Arc::clone(meter),
            event_type.clone(),
            Written::NOTHING,
            panes,
        );
        return Ok(lane);
    };
    let written = written(table, marks);
    let closed = position.watermark.max(written.closed);
    check(meter, table, marks, written, closed)?;
    let of_shard = of_shard(table, marks.shard())?;
    let last_end_us = last_end_us(meter, &of_shard).await?;
    let panes = match purpose {
        For::Reading => BTreeMap::new(),
        For::Writing => late_numbers(of_shard).await?,
    };
    let from_us = table.mark(&marks.from()).unwrap_or(i64::MIN);
    let lane = Lane::new(Arc::clone(meter), event_type.clone(), written, panes);
    Ok(lane.within(from_us..i64::MAX).seen_until(last_end_us))
}

/// What a meter's table already holds, from its marks.
fn written(table: &dyn Table, marks: &Marks) -> Written {
    let cut = table
        .mark(&marks.cut())
        .and_then(|cut| u64::try_from(cut).ok());
    let closed = table.mark(&marks.closed());
    match cut.zip(closed) {
        Some((cut, closed)) => Written {
            cut: Sequence(cut),
            // Until the clock closed windows for each meter by itself, there was one watermark for both.
            watermark: EventTime(table.mark(&marks.watermark()).unwrap_or(closed)),
            closed: EventTime(closed),
        },
        None => Written::NOTHING,
    }
}

const READING: &str = "reading what a meter's table holds";

/// The panes of one shard.
fn of_shard(table: &dyn Table, shard: &str) -> Result<DataFrame> {
    SessionContext::new()
        .read_table(table.provider()?)
        .and_then(|frame| frame.filter(col("shard").eq(lit(shard))))
        .map_err(query_error(READING))
}

/// The number of the last late pane of each window start that has any.
async fn late_numbers(of_shard: DataFrame) -> Result<BTreeMap<i64, i32>> {
    let late = of_shard
        .filter(col("pane").gt(lit(0)))
        .and_then(|frame| {
            let last = max(col("pane")).alias("pane");
            frame.aggregate(vec![col("window_start")], vec![last])
        })
        .map_err(query_error(READING))?;
    let late = late.collect().await.map_err(query_error(READING))?;
    Ok(last_panes(&late))
}

/// When the last row ends that is made of several base windows, in microseconds.
async fn last_end_us(meter: &Meter, of_shard: &DataFrame) -> Result<Option<i64>> {
    match meter.definition().frame {
        Frame::Tumbling => Ok(None),
        Frame::Hopping { .. } | Frame::Session { .. } => {
            let ends = ["window_start", "window_end"].map(|name| max(col(name)).alias(name));
            let last = of_shard.clone().aggregate(Vec::new(), ends.to_vec());
            let last = last.map_err(query_error(READING))?;
            let last = last.collect().await.map_err(query_error(READING))?;
            Ok(last.iter().filter_map(|row| meter.last_end_us(row)).max())
        }
    }
}

/// Refuses a definition that would go on otherwise than its table was begun.
fn check(
    meter: &Meter,
    table: &dyn Table,
    marks: &Marks,
    written: Written,
    watermark: EventTime,
) -> Result<()> {
    if written == Written::NOTHING {
        return Ok(());
    }
    let refused = |problem: String, hint: String| Error::Meter {
        meter: meter.definition().name.clone(),
        problem,
        hint,
    };
    let ours = meter.definition().late;
    let stored = table.mark(&marks.late()).unwrap_or_default();
    if let Some(stored) = LatePolicy::ALL
        .iter()
        .find(|policy| policy.number() == stored)
        && *stored != ours
    {
        let (stored, ours) = (stored.as_str(), ours.as_str());
        return Err(refused(
            format!("it is defined with late = '{ours}', but its panes are written by '{stored}'"),
            format!("write late = '{stored}', or create a meter under another name"),
        ));
    }
    let registered = |number| {
        Some(Registered {
            fingerprint: table.mark(&marks.version(number))?.cast_unsigned(),
            rule: table.mark(&marks.version_rule(number)),
            from_us: table.mark(&marks.version_from(number)),
        })
    };
    check_versions(meter, registered, watermark).map_err(|(problem, hint)| refused(problem, hint))
}

/// A later version of a meter as its table knows it.
struct Registered {
    fingerprint: u64,
    rule: Option<i64>,
    /// The start of its first window, in microseconds, if the table says so.
    from_us: Option<i64>,
}

impl Registered {
    /// True when none of its windows is closed, be it one without usage: what is open is measured anew at each start.
    fn has_measured_nothing(&self, closed_end_us: i64) -> bool {
        self.from_us.is_some_and(|from_us| from_us >= closed_end_us)
    }
}

/// Decides whether a meter's versions are those that its table knows, and new ones begin where no window is
/// closed, be it one without usage. A version that has measured nothing may be changed, and taken back. Does no I/O.
fn check_versions(
    meter: &Meter,
    registered: impl Fn(u32) -> Option<Registered>,
    watermark: EventTime,
) -> Result<(), (String, String)> {
    let windowing = Windowing {
        width_us: meter.definition().window_us,
        lateness_us: meter.definition().lateness_us,
    };
    let closed_end = windowing.closed_end(watermark).0;
    for version in &meter.versions()[1..] {
        let known = registered(version.number);
        match known.filter(|known| !known.has_measured_nothing(closed_end)) {
            Some(known) if version.fingerprint.is(known.fingerprint, known.rule) => {}
            Some(_) => {
                let problem = format!(
                    "version {} is not the one that its table was written with",
                    version.number
                );
                let hint = "put it back as it was, and add a version for the change";
                return Err((problem, hint.to_owned()));
            }
            None if version.from_us < closed_end => {
                let closed = instant(closed_end);
                let problem = format!(
                    "version {} is effective from {}, but windows up to {closed} are closed by the \
                     version before it",
                    version.number,
                    instant(version.from_us),
                );
                let hint = format!(
                    "write effective_from = '{closed}' or later, or create a meter under another name"
                );
                return Err((problem, hint));
            }
            None => {}
        }
    }
    let after = meter.definition().version + 1..;
    let mut after = after.map_while(|number| Some((number, registered(number)?)));
    match after.find(|(_, known)| !known.has_measured_nothing(closed_end)) {
        None => Ok(()),
        Some((number, _)) => {
            let problem =
                format!("its table was written by version {number}, which is not defined");
            let hint = "put the CREATE OR REPLACE METER back that made it";
            Err((problem, hint.to_owned()))
        }
    }
}

fn instant(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or_default()
}
