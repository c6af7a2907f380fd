//! `tollgate watch`: the newest windows of a meter, as they move.

use crate::{
    catalog::Catalog,
    cli::{open_to_read, output, run::stop_on_signal},
    clock::{Clock, SystemClock},
    commit::Position,
    config::{Length, Settings},
    error::{Error, Result, query_error},
    view::View,
};
use arrow::array::Array;
use clap::Args;
use datafusion::{
    common::{Column, error::Result as Planned},
    dataframe::DataFrame,
    logical_expr::when,
    prelude::{Expr, col, lit},
};
use std::{
    io::{IsTerminal, stdout},
    sync::Arc,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    meter::{ERROR, Meter},
    parser::did_you_mean,
    session,
    window::EventTime,
};

/// Arguments of `tollgate watch`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The meter.
    pub meter: String,
    /// How often to look at the lake.
    #[arg(long, default_value = "1s", value_name = "TIME")]
    pub every: Length,
    /// How many rows to show: those of the newest windows, and in a window the largest first measure.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub top: usize,
    /// Only rows for which this holds, such as "subject = 'acme' AND NOT is_final".
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
    /// End after so many frames, not only at Ctrl-C.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Draws a frame at once and then one each time it has looked: in place on a terminal, one after the
/// other elsewhere. Returns at Ctrl-C, after `--count` frames, or when the output has no reader any more.
///
/// # Errors
/// There is no such meter, the condition is no SQL, or the lake cannot be read.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let (catalog, lake) = open_to_read(settings).await?;
    let mut watch = Watch {
        index: index_of(&catalog, &arguments.meter)?,
        catalog,
        lake,
        arguments,
        view: None,
        frame: String::new(),
    };
    let mut stop = stop_on_signal()?;
    let mut left = arguments.count;
    while left != Some(0) {
        left = left.map(|left| left - 1);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            drawn = watch.draw() => if !drawn? { return Ok(()) },
        }
        if left == Some(0) {
            break;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = SystemClock.sleep(arguments.every.duration()) => {}
        }
    }
    Ok(())
}

/// The place of the meter in the catalog.
fn index_of(catalog: &Catalog, name: &str) -> Result<usize> {
    let names = catalog.meters.iter().map(|meter| &meter.definition().name);
    let names: Vec<&String> = names.collect();
    let index = names.iter().position(|known| *known == name);
    index.ok_or_else(|| {
        let hint = did_you_mean(name, "meters", &names);
        Error::Usage(format!("there is no meter `{name}`\n  hint: {hint}"))
    })
}

struct Watch<'a> {
    catalog: Arc<Catalog>,
    index: usize,
    lake: Lake,
    arguments: &'a Arguments,
    /// What the last frame was drawn from.
    view: Option<View>,
    frame: String,
}

impl Watch<'_> {
    /// Looks whether anything was committed, and prints a frame; false when the output has no reader.
    async fn draw(&mut self) -> Result<bool> {
        // Opening says it better if the lake cannot be read.
        let is_newest = match &self.view {
            Some(view) => matches!(view.is_newest().await, Ok(true)),
            None => false,
        };
        if !is_newest {
            let view = View::open(Arc::clone(&self.catalog), &self.lake).await?;
            self.frame = self.frame_of(&view).await?;
            self.view = Some(view);
        }
        tracing::debug!("frame drawn");
        match stdout().is_terminal() {
            // To the first line, and nothing of the last frame stays.
            true => output::show_frame(&self.frame),
            false => output::show(&self.frame),
        }
    }

    async fn frame_of(&self, view: &View) -> Result<String> {
        let doing = "watching a meter";
        let meter = &self.catalog.meters[self.index];
        let windows = view.windows(self.index, None).await?;
        let has_faults = windows[ERROR].null_count() < windows.num_rows();
        let windows = session::context().read_batch(windows);
        let (all, rows) = windows
            .and_then(|windows| self.rows(meter, windows, has_faults))
            .map_err(query_error(doing))?;
        let schema = Arc::clone(rows.schema().inner());
        let all = all.count().await.map_err(query_error(doing))?;
        let rows = rows.collect().await.map_err(query_error(doing))?;
        let shown: usize = rows.iter().map(|rows| rows.num_rows()).sum();
        let table = output::encode_rows(&schema, &rows, output::Format::Table)?;
        Ok(format!(
            "{}: {shown} of {all} rows, {}\n{}\n",
            meter.definition().name,
            state_text(&view.cuts().await?, SystemClock.now_us()),
            String::from_utf8_lossy(&table),
        ))
    }

    /// All rows that are asked for, and the first of them as they are shown.
    fn rows(
        &self,
        meter: &Meter,
        windows: DataFrame,
        has_faults: bool,
    ) -> Planned<(DataFrame, DataFrame)> {
        let all = match &self.arguments.condition {
            Some(condition) => {
                let condition =
                    session::expression(&session::context().state(), condition, windows.schema())?;
                windows.filter(condition)?
            }
            None => windows,
        };
        let named = |name: &str| Expr::Column(Column::from_name(name));
        let keys = || meter.dimensions().iter().map(|field| named(field.name()));
        let measures = || meter.measures().iter().map(|field| named(field.name()));
        let order = [col("window_start").sort(false, true)]
            .into_iter()
            .chain(measures().take(1).map(|measure| measure.sort(false, false)))
            .chain([col("subject").sort(true, true)])
            .chain(keys().map(|key| key.sort(true, true)));
        let state = when(col("is_final"), lit("final")).otherwise(lit("open"))?;
        let columns = [
            col("window_start"),
            col("window_end"),
            // No column of a meter is called that.
            state.alias("window is"),
            col("subject"),
        ];
        let shown = all
            .clone()
            .sort(order.collect())?
            .limit(0, Some(self.arguments.top))?
            .select(
                columns
                    .into_iter()
                    .chain(keys())
                    .chain(measures())
                    .chain(has_faults.then(|| col(ERROR))),
            )?;
        Ok((all, shown))
    }
}

/// How far each shard is, and since when that was seen.
fn state_text(cuts: &[(String, Position)], seen_us: i64) -> String {
    if cuts.is_empty() {
        return "nothing committed yet".to_owned();
    }
    let each = cuts.iter().map(|(shard, position)| {
        let sequence = position.sequence.0;
        match position.watermark {
            EventTime::MIN => format!("{shard} up to {sequence}"),
            EventTime(us) => format!("{shard} up to {sequence}, watermark {}", time_text(us)),
        }
    });
    let each = each.collect::<Vec<_>>().join("; ");
    format!("{each}, changed {}", time_text(seen_us))
}

/// An instant to the second, UTC.
fn time_text(us: i64) -> String {
    match jiff::Timestamp::from_second(us.div_euclid(1_000_000)) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{us} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_connectors::Sequence;

    #[test]
    fn the_header_says_how_far_each_shard_is() {
        let at = |sequence, watermark| Position {
            sequence: Sequence(sequence),
            watermark,
            ..Position::START
        };
        assert_eq!(state_text(&[], 0), "nothing committed yet");
        let cuts = [
            ("A".to_owned(), at(7, EventTime::MIN)),
            ("B".to_owned(), at(9, EventTime(1_790_812_800_999_999))),
        ];
        assert_eq!(
            state_text(&cuts, 1_790_812_860_000_000),
            "A up to 7; B up to 9, watermark 2026-10-01T00:00:00Z, changed 2026-10-01T00:01:00Z"
        );
    }
}
