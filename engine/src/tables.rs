//! The lake's tables: their names, their keys, and how each is opened as what the definitions make it.
//!
//! It owns what is stored beside a table's columns. It does not own the columns, which are
//! [`tollgate_sql::schema`]'s, nor what is in the tables.

use crate::{
    catalog::Catalog,
    error::{Error, Result},
};
use std::collections::BTreeMap;
use tollgate_connectors::{
    Error as ConnectorError,
    Error::OtherTable,
    Table,
    lake::{DeltaTable, Lake},
};
use tollgate_sql::meter::{Fingerprint, Meter};

/// Every event, counted or not.
pub const EVENTS: &str = "events";
/// Issued invoices.
pub const INVOICES: &str = "invoices";
/// Their lines.
pub const LINE_ITEMS: &str = "line_items";

/// Which imports of accounts count: an import is there when its row is.
pub const IMPORTS: &str = "accounts/imports";

/// What conflicts say otherwise than the events that were counted: no table, but a relation.
pub const CONFLICTS: &str = "conflicts";

/// What no invoice has billed: no table, but a relation.
pub const UNISSUED: &str = "unissued";

/// What happened to each grant: no table, but a relation.
pub const CREDIT_LEDGER: &str = "credit_ledger";

/// The relation of usage that no subscription pays for.
pub const UNBILLED: &str = "unbilled";

/// A table of accounts.
pub fn accounts_table(name: &str) -> String {
    format!("accounts/{name}")
}

/// The table of a meter.
pub fn meter_table(name: &str) -> String {
    format!("meters/{name}")
}

/// Configuration key of a meter's table: the lateness its windows were closed with. Another one would
/// close other windows at the same watermark, so that events fall between panes or into two.
const LATENESS_KEY: &str = "tollgate.lateness_us";

/// Configuration key of a meter's table: which definition its panes were made by.
const FINGERPRINT_KEY: &str = "tollgate.fingerprint";

/// Configuration key of a meter's table: the rule of that fingerprint. It is missing beside one of the first rule.
const FINGERPRINT_RULE_KEY: &str = "tollgate.fingerprint_rule";

/// The column by which the rows of a meter's files stand together: what one subject used is read without the others'.
const METER_TOGETHER: &str = "subject";

/// Opens a table as it is, to maintain it; `None` when it is not there.
pub(crate) async fn existing(lake: &Lake, name: &str) -> Result<Option<DeltaTable>> {
    let table = lake.existing(name).await?;
    Ok(table.map(|table| match name {
        EVENTS | INVOICES | LINE_ITEMS => table,
        _ => table.keeping_together(METER_TOGETHER),
    }))
}

/// The column that `events` is partitioned by.
const EVENTS_PARTITION: &[&str] = &["ingest_day"];

impl Catalog {
    /// Opens `events` to write, creating it when it is missing.
    pub async fn create_events(&self, lake: &Lake) -> Result<Box<dyn Table>> {
        Ok(Box::new(
            lake.table(
                EVENTS,
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
        let table = lake.existing_as(EVENTS, &schema, EVENTS_PARTITION, &none);
        Ok(table.await?.map(|table| Box::new(table) as Box<dyn Table>))
    }

    /// Opens a meter's table to read, if it is there; it must have been written for this definition. One that holds nothing
    /// of another definition is not there: the next run makes it anew.
    pub async fn existing_meter(
        &self,
        lake: &Lake,
        meter: &Meter,
    ) -> Result<Option<Box<dyn Table>>> {
        let name = meter_table(&meter.definition().name);
        let schema = meter.table_schema();
        let wanted = configuration(meter);
        let table = match lake.existing_as(&name, &schema, &[], &wanted).await {
            Err(refused @ OtherTable { .. }) => {
                let before = configuration_by_rule_1(meter);
                match lake.existing_as(&name, &schema, &[], &before).await {
                    Err(_) if holds_nothing(lake, &name).await? => None,
                    opened => opened.map_err(|_| changed(meter, refused))?,
                }
            }
            opened => opened?,
        };
        Ok(table.map(|table| Box::new(table) as Box<dyn Table>))
    }

    /// Opens a meter's table to own it, creating it when it is missing, and making it anew when it holds nothing of another
    /// definition: by that one nothing was measured.
    pub async fn own_meter(&self, lake: &Lake, meter: &Meter) -> Result<Box<dyn Table>> {
        match self.create_meter(lake, meter).await {
            Err(refused @ Error::Meter { .. }) => {
                let name = meter_table(&meter.definition().name);
                let (schema, wanted) = (meter.table_schema(), configuration(meter));
                match lake.renew(&name, &schema, &wanted, are_unused).await? {
                    true => self.create_meter(lake, meter).await,
                    false => Err(refused),
                }
            }
            opened => opened,
        }
    }

    /// Opens a meter's table to write, creating it when it is missing.
    pub async fn create_meter(&self, lake: &Lake, meter: &Meter) -> Result<Box<dyn Table>> {
        let name = meter_table(&meter.definition().name);
        let schema = meter.table_schema();
        let wanted = configuration(meter);
        let table = match lake.table(&name, &schema, &[], &wanted).await {
            // It is there, so that it is not created with what it is compared with.
            Err(refused @ OtherTable { .. }) => {
                let before = configuration_by_rule_1(meter);
                let opened = lake.table(&name, &schema, &[], &before).await;
                opened.map_err(|_| changed(meter, refused))?
            }
            opened => opened?,
        };
        Ok(Box::new(table.keeping_together(METER_TOGETHER)))
    }
}

/// True when a meter's table has no panes, and says of no message that they are written.
async fn holds_nothing(lake: &Lake, name: &str) -> Result<bool> {
    let table = lake.existing(name).await?;
    Ok(table.is_some_and(|table| table.files().is_empty() && are_unused(table.marks())))
}

/// True for the marks of a table in which no shard says how far it is written: they name owners and versions.
fn are_unused(marks: &BTreeMap<String, i64>) -> bool {
    let ends = ["/cut", "/closed", "/watermark"];
    let says = |mark: &String| ends.iter().any(|end| mark.ends_with(end));
    !marks.keys().any(says)
}

/// Why a meter cannot go on with its table, and the ways out: the lake stays, for all other meters are well.
fn changed(meter: &Meter, refused: ConnectorError) -> Error {
    let OtherTable { problem, .. } = refused else {
        return refused.into();
    };
    let definition = meter.definition();
    let problem = match problem.split_once(" = ") {
        Some((before, _)) if before.ends_with(FINGERPRINT_KEY) => {
            "its window or its query was changed since this lake began to measure by it".to_owned()
        }
        Some((before, stored)) if before.ends_with(LATENESS_KEY) => format!(
            "its lateness was changed since this lake began to measure by it (microseconds: {stored})"
        ),
        _ => format!("it is not the one that this lake began to measure by: {problem}"),
    };
    Error::Meter {
        meter: definition.name.clone(),
        problem: format!("{}: {problem}", definition.at),
        hint: format!(
            "put it back as it was; for a change from some window on, write CREATE OR REPLACE METER {0} WITH (…, effective_from = \
             '…') AS … after it; or give the changed one another name, and `tollgate backfill` fills it in",
            definition.name
        ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tollgate_sql::definitions::{Definitions, SourceFile};

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
            let schema = meter.table_schema();
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
            assert_eq!(
                crate::error::chain(&refused),
                "meter `calls`: f.sql:2:27: its window or its query was changed since this lake began to measure by it\n  hint: \
                 put it back as it was; for a change from some window on, write CREATE OR REPLACE METER calls WITH (…, \
                 effective_from = '…') AS … after it; or give the changed one another name, and `tollgate backfill` fills it in"
            );
            assert_eq!(stored(&lake).await, expected);
        }
    }
}
