//! What the definitions folder says, ready for use: parsed, checked, planned, and its rate tables read.

use crate::{
    config::Settings,
    error::{Error, Result},
    metering,
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};
use tollgate_connectors::{Error::OtherTable, Table, lake::Lake};
use tollgate_sql::{
    definitions::{Definitions, SourceFile},
    event_checks::EventChecks,
    meter::{Fingerprint, Meter},
    schema,
};

/// Definitions with everything that follows from them alone.
#[derive(Debug)]
pub struct Catalog {
    /// As parsed.
    pub definitions: Definitions,
    /// The checks of every event type that has any, planned.
    pub checks: Vec<Arc<EventChecks>>,
    /// Every meter, planned, in order of definition.
    pub meters: Vec<Arc<Meter>>,
    /// The rows of each rate table, in order of definition.
    pub rate_tables: Vec<RecordBatch>,
}

/// Names of tables in the lake.
pub mod table {
    /// Every event, counted or not.
    pub const EVENTS: &str = "events";
    /// Issued invoices.
    pub const INVOICES: &str = "invoices";
    /// Their lines.
    pub const LINE_ITEMS: &str = "line_items";
    /// What no invoice has billed: no table, but a relation.
    pub const UNISSUED: &str = "unissued";

    /// The table of a meter.
    pub fn meter(name: &str) -> String {
        format!("meters/{name}")
    }
}

/// Configuration key of a meter's table: the lateness its windows were closed with. Another one would
/// close other windows at the same watermark, so that events fall between panes or into two.
const LATENESS_KEY: &str = "tollgate.lateness_us";

/// Configuration key of a meter's table: which definition its panes were made by.
const FINGERPRINT_KEY: &str = "tollgate.fingerprint";

/// Configuration key of a meter's table: the rule of that fingerprint. It is missing beside one of the first rule.
const FINGERPRINT_RULE_KEY: &str = "tollgate.fingerprint_rule";

/// The column that `events` is partitioned by.
const EVENTS_PARTITION: &[&str] = &["ingest_day"];

impl Catalog {
    /// Reads, checks and plans the definitions folder.
    ///
    /// # Errors
    /// The folder or a rate table cannot be read, or a definition does not make sense.
    pub async fn load(settings: &Settings) -> Result<Self> {
        let folder = settings.resolve(&settings.definitions);
        let definitions = Definitions::parse(&read_folder(&folder)?)?;
        let checks = definitions.event_types.iter().map(EventChecks::plan);
        let checks = checks.collect::<Result<Vec<_>, _>>()?.into_iter();
        let checks = checks.filter(|checks| !checks.is_empty()).map(Arc::new);
        let mut meters = Vec::with_capacity(definitions.meters.len());
        for meter in &definitions.meters {
            let event_type = definitions
                .event_type(&meter.event_type)
                .ok_or(Error::Stage("definitions"))?;
            meters.push(Arc::new(Meter::plan(meter, event_type).await?));
        }
        let mut rate_tables = Vec::with_capacity(definitions.rate_tables.len());
        for rate_table in &definitions.rate_tables {
            let bytes = read(&folder.join(&rate_table.location), "the rate table")?;
            rate_tables.push(rate_table.read_csv(&bytes)?);
        }
        Ok(Catalog {
            checks: checks.collect(),
            definitions,
            meters,
            rate_tables,
        })
    }

    /// The schema of `events`, with what a decoder needs in the fields' metadata.
    pub fn events_schema(&self) -> SchemaRef {
        schema::usage_events(&self.definitions.event_types)
    }

    /// Opens `events` to write, creating it when it is missing.
    pub async fn create_events(&self, lake: &Lake) -> Result<Box<dyn Table>> {
        Ok(Box::new(
            lake.table(
                table::EVENTS,
                &self.events_schema(),
                EVENTS_PARTITION,
                &BTreeMap::new(),
            )
            .await?,
        ))
    }

    /// Opens `events` to read, if it is there.
    pub async fn existing_events(&self, lake: &Lake) -> Result<Option<Box<dyn Table>>> {
        let (schema, none) = (self.events_schema(), BTreeMap::new());
        let table = lake.existing_as(table::EVENTS, &schema, EVENTS_PARTITION, &none);
        Ok(table.await?.map(|table| Box::new(table) as Box<dyn Table>))
    }

    /// Opens a meter's table to read, if it is there; it must have been written for this definition.
    pub async fn existing_meter(
        &self,
        lake: &Lake,
        meter: &Meter,
    ) -> Result<Option<Box<dyn Table>>> {
        let name = table::meter(&meter.definition().name);
        let schema = metering::table_schema(meter);
        let wanted = configuration(meter);
        let table = match lake.existing_as(&name, &schema, &[], &wanted).await {
            Err(refused @ OtherTable { .. }) => {
                let before = configuration_by_rule_1(meter);
                let opened = lake.existing_as(&name, &schema, &[], &before).await;
                opened.map_err(|_| refused)?
            }
            opened => opened?,
        };
        Ok(table.map(|table| Box::new(table) as Box<dyn Table>))
    }

    /// Opens a meter's table to write, creating it when it is missing.
    pub async fn create_meter(&self, lake: &Lake, meter: &Meter) -> Result<Box<dyn Table>> {
        let name = table::meter(&meter.definition().name);
        let schema = metering::table_schema(meter);
        let wanted = configuration(meter);
        let table = match lake.table(&name, &schema, &[], &wanted).await {
            // It is there, so that it is not created with what it is compared with.
            Err(refused @ OtherTable { .. }) => {
                let before = configuration_by_rule_1(meter);
                let opened = lake.table(&name, &schema, &[], &before).await;
                opened.map_err(|_| refused)?
            }
            opened => opened?,
        };
        Ok(Box::new(table))
    }

    /// The meter with this name.
    pub fn meter(&self, name: &str) -> Option<&Arc<Meter>> {
        self.meters
            .iter()
            .find(|meter| meter.definition().name == name)
    }
}

/// What is stored with a meter's table.
fn configuration(meter: &Meter) -> BTreeMap<String, String> {
    let lateness_us = meter.definition().lateness_us;
    // A table's configuration stays as it was made: later versions are told by marks.
    let first = meter.versions()[0].fingerprint.value;
    BTreeMap::from([
        (FINGERPRINT_KEY.to_owned(), format!("{first:016x}")),
        (
            FINGERPRINT_RULE_KEY.to_owned(),
            Fingerprint::RULE.to_string(),
        ),
        (LATENESS_KEY.to_owned(), lateness_us.to_string()),
    ])
}

/// What is stored with a table from before fingerprints had a rule.
fn configuration_by_rule_1(meter: &Meter) -> BTreeMap<String, String> {
    let first = meter.versions()[0].fingerprint.by_rule_1;
    let mut configuration = configuration(meter);
    configuration.remove(FINGERPRINT_RULE_KEY);
    configuration.insert(FINGERPRINT_KEY.to_owned(), format!("{first:016x}"));
    configuration
}

/// The folder's `.sql` files by name, so that the order of definition does not depend on the disk.
fn read_folder(folder: &Path) -> Result<Vec<SourceFile>> {
    let failed = |error: io::Error| Error::Config {
        file: folder.display().to_string(),
        problem: format!("the definitions folder cannot be read: {error}"),
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(Error::Config {
            file: folder.display().to_string(),
            problem: "the definitions folder has no .sql file".into(),
        });
    }
    paths.sort();
    paths.iter().map(|path| source_file(path)).collect()
}

fn source_file(path: &Path) -> Result<SourceFile> {
    let bytes = read(path, "the file")?;
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| Error::Config {
        file: name.clone(),
        problem: format!(
            "is not UTF-8 from byte {} on",
            error.utf8_error().valid_up_to()
        ),
    })?;
    Ok(SourceFile { name, text })
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::Config {
        file: path.display().to_string(),
        problem: format!("{what} cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn catalog(query: &str) -> Catalog {
        let text = format!(
            "CREATE EVENT TYPE call (n BIGINT NOT NULL) WITH (type = 'call');
             CREATE METER calls WITH (window = '1 hour') AS {query};"
        );
        let file = SourceFile {
            name: "f.sql".into(),
            text,
        };
        let definitions = Definitions::parse(&[file]).unwrap();
        let meter = Meter::plan(&definitions.meters[0], &definitions.event_types[0]).await;
        Catalog {
            definitions,
            checks: Vec::new(),
            meters: vec![Arc::new(meter.unwrap())],
            rate_tables: Vec::new(),
        }
    }

    const QUERY: &str = "SELECT subject, SUM(n) AS n FROM call GROUP BY subject";

    /// What a table of the meter says of its definition.
    async fn stored(lake: &Lake) -> (String, Option<String>) {
        let table = lake.existing("meters/calls").await.unwrap().unwrap();
        let value = |key: &str| table.configuration().get(key).cloned();
        (value(FINGERPRINT_KEY).unwrap(), value(FINGERPRINT_RULE_KEY))
    }

    #[tokio::test]
    async fn a_table_from_before_fingerprints_had_a_rule_is_opened_and_stays_as_it_is() {
        for is_old in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("file://{}", folder.path().display());
            let lake = Lake::open(&url, folder.path()).await.unwrap();
            let catalog = catalog(QUERY).await;
            let meter = &catalog.meters[0];
            let schema = metering::table_schema(meter);
            let fingerprint = meter.versions()[0].fingerprint;
            let expected = match is_old {
                true => {
                    let before = BTreeMap::from([
                        (
                            FINGERPRINT_KEY.to_owned(),
                            format!("{:016x}", fingerprint.by_rule_1),
                        ),
                        (
                            LATENESS_KEY.to_owned(),
                            meter.definition().lateness_us.to_string(),
                        ),
                    ]);
                    lake.table("meters/calls", &schema, &[], &before)
                        .await
                        .unwrap();
                    (format!("{:016x}", fingerprint.by_rule_1), None)
                }
                false => (format!("{:016x}", fingerprint.value), Some("2".to_owned())),
            };
            catalog.create_meter(&lake, meter).await.unwrap();
            assert!(
                catalog
                    .existing_meter(&lake, meter)
                    .await
                    .unwrap()
                    .is_some()
            );
            assert_eq!(stored(&lake).await, expected);
            // Looks do not matter to either, meaning does to both.
            let looks = self::catalog(&QUERY.to_lowercase().replace(',', " /* and */ ,")).await;
            looks.create_meter(&lake, &looks.meters[0]).await.unwrap();
            let other = self::catalog(&QUERY.replace("SUM", "MAX")).await;
            let refused = other
                .create_meter(&lake, &other.meters[0])
                .await
                .unwrap_err();
            let (old, new) = (&expected.0, other.meters[0].versions()[0].fingerprint.value);
            assert_eq!(
                crate::error::chain(&refused),
                format!(
                    "table `meters/calls`: it was made with tollgate.fingerprint = `{old}`, not `{new:016x}`\n  hint: set \
                     another lake url, or use the definitions this lake was made with"
                )
            );
            assert_eq!(stored(&lake).await, expected);
        }
    }
}
