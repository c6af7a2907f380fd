//! Keeping the lake's tables small and quick while they are written: what `tollgate maintain` does, and
//! `tollgate run` every now and then. How a table is maintained is in
//! [`tollgate_connectors::lake::maintenance`].

use crate::{
    catalog::Catalog,
    clock::Clock,
    config::{Length, MaintenanceSettings, Settings},
    error::{Error, Result},
    tables,
};
use std::sync::Arc;
use tollgate_connectors::{
    ErrorKind,
    lake::{
        Lake,
        maintenance::{Done, Limits, plan},
    },
};
use tollgate_sql::window::DAY_US;

const HOUR: Length = Length(3_600_000_000);
/// Delta's checkpoints remember removed files for this long, and vacuum needs to know when.
const WEEK: Length = Length(7 * DAY_US);

/// What to maintain, and how.
#[derive(Debug)]
pub struct Upkeep {
    settings: Settings,
    limits: Limits,
    /// Names of tables: of `events` and of every meter.
    pub tables: Vec<String>,
}

impl Upkeep {
    /// The tables of these definitions.
    ///
    /// # Errors
    /// A setting is out of its bounds.
    pub fn new(settings: &Settings, catalog: &Catalog) -> Result<Self> {
        let meters = catalog.meters.iter();
        let meters = meters.map(|meter| tables::meter_table(&meter.definition().name));
        Ok(Upkeep {
            settings: settings.clone(),
            limits: limits(&settings.maintenance)?,
            tables: [tables::EVENTS.to_owned()]
                .into_iter()
                .chain(meters)
                .collect(),
        })
    }

    /// Opens the lake to maintain it.
    ///
    /// # Errors
    /// Those of [`Lake::open`].
    pub async fn open(&self) -> Result<Lake> {
        Ok(Lake::open(&self.settings.lake.url, &self.settings.base).await?)
    }

    /// Maintains one table, or with `dry_run` only says what there is to do; `None` when there is no
    /// such table yet.
    ///
    /// # Errors
    /// The table cannot be read or written; [`ErrorKind::Fenced`] when another process maintains it.
    pub async fn maintain(
        &self,
        lake: &Lake,
        name: &str,
        clock: &dyn Clock,
        dry_run: bool,
    ) -> Result<Option<Done>> {
        let Some(mut table) = tables::existing(lake, name).await? else {
            return Ok(None);
        };
        let now_ms = clock.now_us().div_euclid(1_000);
        let seen = table.look(order_of(name), &self.limits, now_ms).await?;
        let plan = plan(&seen, &self.limits);
        Ok(Some(match dry_run {
            true => Done::planned(&plan),
            false => table.carry_out(&plan, now_ms).await?,
        }))
    }

    /// Maintains every table at each interval, for ever. What fails is logged and tried again.
    pub async fn keep_up(self, clock: Arc<dyn Clock>) {
        loop {
            clock
                .sleep(self.settings.maintenance.interval.duration())
                .await;
            if let Err(error) = self.round(clock.as_ref()).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "maintenance failed"
                );
            }
        }
    }

    async fn round(&self, clock: &dyn Clock) -> Result<()> {
        let lake = self.open().await?;
        for table in &self.tables {
            match self.maintain(&lake, table, clock, false).await {
                Ok(None) => {}
                Ok(Some(done)) if done == Done::default() => {}
                Ok(Some(done)) => tracing::info!(
                    table,
                    merged = done.merged,
                    into = done.into,
                    vacuumed = done.vacuumed,
                    log = done.log,
                    "table maintained"
                ),
                // Another process is at it.
                Err(error) if error.kind() == ErrorKind::Fenced => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The columns that a table's rows are sorted by, as they are written.
fn order_of(name: &str) -> &'static [&'static str] {
    match name {
        tables::EVENTS => &["shard", "sequence", "ordinal"],
        _ => &["shard", "cut"],
    }
}

fn limits(settings: &MaintenanceSettings) -> Result<Limits> {
    check("vacuum_after", settings.vacuum_after, WEEK)?;
    check("log_after", settings.log_after, Length(i64::MAX))?;
    Ok(Limits {
        file_bytes: settings.file_bytes.0 as u64,
        vacuum_after_ms: settings.vacuum_after.0.div_euclid(1_000),
        log_after_ms: settings.log_after.0.div_euclid(1_000),
    })
}

fn check(setting: &str, value: Length, most: Length) -> Result<()> {
    let problem = match value {
        value if value.0 < HOUR.0 => "is below 1 hour: a query may still read what it deletes",
        value if value.0 > most.0 => "is above 7 days: the log forgets removed files after that",
        _ => return Ok(()),
    };
    Err(Error::Config {
        file: format!("maintenance.{setting}"),
        problem: problem.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_have_bounds() {
        let with = |vacuum_after: &str, log_after: &str| {
            limits(&MaintenanceSettings {
                vacuum_after: vacuum_after.parse().unwrap(),
                log_after: log_after.parse().unwrap(),
                ..MaintenanceSettings::default()
            })
        };
        assert_eq!(
            with("7 days", "90 days").unwrap().vacuum_after_ms,
            604_800_000
        );
        assert_eq!(with("1 hour", "1 hour").unwrap().log_after_ms, 3_600_000);
        for (vacuum_after, log_after, says) in [
            (
                "59 minutes",
                "1 hour",
                "maintenance.vacuum_after: is below 1 hour",
            ),
            (
                "8 days",
                "1 hour",
                "maintenance.vacuum_after: is above 7 days",
            ),
            (
                "7 days",
                "59 minutes",
                "maintenance.log_after: is below 1 hour",
            ),
        ] {
            let error = with(vacuum_after, log_after).unwrap_err();
            assert!(error.to_string().starts_with(says), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
