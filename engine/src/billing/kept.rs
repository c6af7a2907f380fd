//! What documents were rated by, kept in the lake by its hash, so that an edited price, plan or rate table changes nothing that
//! an issued document can be rated by again.
//!
//! ```text
//!  rated_by/plans/<name>/<hash>.json            what a plan says
//!  rated_by/prices/<name>/<hash>.json           the versions of a price that rated a billing period
//!  rated_by/rate_tables/<name>/<hash>.parquet   the rows of a rate table
//!
//!  issuing:   Inputs ──keep──▶ files that are not there yet ─▶ then the commit of the documents that name them
//!  later:     the basis of a document ──restore──▶ Kept ──catalog──▶ a catalog that rates as then
//! ```
//!
//! A file is created whole, before the first document that names its hash, and never changed. A crash in between leaves a file
//! that no document names; two jobs at once create the same file. It does not own what is in a basis, which is
//! [`tollgate_sql::invoice::basis`]'s, nor how definitions are written, which is [`tollgate_sql::invoice::kept`]'s.

use super::versions::Part;
use crate::{
    catalog::Catalog,
    error::{Error, Result, query_error},
};
use arrow::{array::RecordBatch, compute::concat_batches, datatypes::Schema};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
    file::metadata::KeyValue,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    definitions::{PlanDefinition, PriceDefinition, RateTable},
    invoice::{
        basis::{self, RatedBy},
        kept::{
            KeptPrice, KeptVersion, plan_from_json, plan_hash, plan_to_json, rate_table_from_json,
            rate_table_to_json,
        },
    },
};

/// The folder of the lake that has what documents were rated by.
pub const FOLDER: &str = "rated_by";

/// The key of a Parquet file's metadata that has what its rows do not say of a rate table.
const METADATA: &str = "tollgate.rate_table";

/// What some documents are rated by, by kind, name and hash.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs(BTreeMap<Input, Arc<Definition>>);

/// Names one thing that documents are rated by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Input {
    kind: Kind,
    name: String,
    hash: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Plan,
    Price,
    RateTable,
}

#[derive(Debug)]
enum Definition {
    Plan(PlanDefinition),
    Price(KeptPrice),
    RateTable(RateTable, RecordBatch),
}

impl Inputs {
    /// Notes a plan.
    pub(super) fn note_plan(&mut self, plan: &PlanDefinition, rated_by: &mut RatedBy) {
        let hash = plan_hash(plan);
        let hashes = rated_by.plans.entry(plan.name.clone()).or_default();
        hashes.insert(hash.clone());
        self.note(Kind::Plan, &plan.name, hash, || {
            Definition::Plan(plan.clone())
        });
    }

    /// Notes the parts of a period that the versions of a price rate on a plan.
    pub(super) fn note_price(
        &mut self,
        name: &str,
        parts: &[Part<'_>],
        plan: &PlanDefinition,
        rated_by: &mut RatedBy,
    ) {
        let versions = parts.iter().enumerate().map(|(place, part)| {
            let worth = plan.worth_of(&part.price.currency);
            KeptVersion {
                definition: part.price.clone(),
                from_us: (place > 0).then_some(part.from_us),
                worth: worth.filter(|_| part.price.currency != plan.currency),
            }
        });
        let price = KeptPrice {
            versions: versions.collect(),
        };
        let hash = price.hash();
        let hashes = rated_by.prices.entry(name.to_owned()).or_default();
        hashes.insert(hash.clone());
        self.note(Kind::Price, name, hash, || Definition::Price(price));
    }

    /// Notes a rate table.
    ///
    /// # Errors
    /// A column has no text.
    pub(super) fn note_rate_table(
        &mut self,
        (table, rows): (&RateTable, &RecordBatch),
        rated_by: &mut RatedBy,
    ) -> Result<()> {
        // One job has one set of rows.
        if !rated_by.rate_tables.contains_key(&table.name) {
            let hash = basis::rows_hash(rows)?;
            let hashes = BTreeSet::from([hash.clone()]);
            rated_by.rate_tables.insert(table.name.clone(), hashes);
            self.note(Kind::RateTable, &table.name, hash, || {
                Definition::RateTable(table.clone(), rows.clone())
            });
        }
        Ok(())
    }

    fn note(
        &mut self,
        kind: Kind,
        name: &str,
        hash: String,
        definition: impl FnOnce() -> Definition,
    ) {
        let name = name.to_owned();
        let input = Input { kind, name, hash };
        self.0
            .entry(input)
            .or_insert_with(|| Arc::new(definition()));
    }

    /// Adds what other documents are rated by.
    pub(super) fn extend(&mut self, other: Inputs) {
        self.0.extend(other.0);
    }
}

impl Input {
    /// The path of its file in the lake.
    fn path(&self) -> [String; 4] {
        let (folder, extension) = match self.kind {
            Kind::Plan => ("plans", "json"),
            Kind::Price => ("prices", "json"),
            Kind::RateTable => ("rate_tables", "parquet"),
        };
        let file = format!("{}.{extension}", self.hash);
        [
            FOLDER.to_owned(),
            folder.to_owned(),
            self.name.clone(),
            file,
        ]
    }

    /// That its file is not what was written there.
    fn damaged(&self, lake: &Lake) -> Error {
        Error::Billing {
            problem: format!(
                "{}{} is not what issued documents were rated by: its content does not have the hash of its name",
                lake.url(),
                self.path().join("/")
            ),
            hint: "put the file back from a copy of the lake".into(),
        }
    }
}

/// Writes what documents are rated by, each once. To be called before the documents are committed; repeating it changes nothing.
///
/// # Errors
/// The lake cannot be written.
pub(super) async fn keep(lake: &Lake, inputs: &Inputs) -> Result<()> {
    for (input, definition) in &inputs.0 {
        let path = input.path();
        let path = path.each_ref().map(String::as_str);
        if !lake.store().has(&path).await? {
            lake.store().create(&path, bytes_of(definition)?).await?;
        }
    }
    Ok(())
}

fn bytes_of(definition: &Definition) -> Result<Bytes> {
    match definition {
        Definition::Plan(plan) => Ok(plan_to_json(plan).into()),
        Definition::Price(price) => Ok(price.to_json().into()),
        Definition::RateTable(table, rows) => {
            let written = parquet_of(table, rows);
            written.map_err(query_error("writing what documents are rated by"))
        }
    }
}

fn parquet_of(table: &RateTable, rows: &RecordBatch) -> Result<Bytes, ParquetError> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None)?;
    writer.write(rows)?;
    writer.append_key_value_metadata(KeyValue::new(
        METADATA.to_owned(),
        rate_table_to_json(table),
    ));
    writer.close()?;
    Ok(bytes.into())
}

/// What a document was rated by, as it was then.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Its plans.
    pub plans: Vec<PlanDefinition>,
    /// The versions of its prices, by name and number.
    pub prices: Vec<PriceDefinition>,
    /// The rate tables that they read, with their rows.
    pub rate_tables: Vec<(RateTable, RecordBatch)>,
}

/// Reads what a document was rated by; `None` for one that was issued before that was kept.
///
/// # Errors
/// The lake cannot be read, or a file in it is not what was written.
pub async fn restore(lake: &Lake, rated_by: &RatedBy) -> Result<Option<Kept>> {
    let mut kept = Kept::default();
    let named = [
        (Kind::Plan, &rated_by.plans),
        (Kind::Price, &rated_by.prices),
        (Kind::RateTable, &rated_by.rate_tables),
    ];
    for (kind, named) in named {
        for (name, hashes) in named {
            for hash in hashes {
                let input = Input {
                    kind,
                    name: name.clone(),
                    hash: hash.clone(),
                };
                let path = input.path();
                let path = path.each_ref().map(String::as_str);
                let Some(bytes) = lake.store().read(&path).await? else {
                    return Ok(None);
                };
                let definition = definition_in(&input, &bytes);
                kept.take_in(definition.ok_or_else(|| input.damaged(lake))?)?;
            }
        }
    }
    Ok(Some(kept))
}

/// What a file has; `None` when it is not what its name says.
fn definition_in(input: &Input, bytes: &Bytes) -> Option<Definition> {
    let text = || std::str::from_utf8(bytes).ok();
    let (definition, hash) = match input.kind {
        Kind::Plan => {
            let plan = plan_from_json(text()?)?;
            let hash = plan_hash(&plan);
            (Definition::Plan(plan), hash)
        }
        Kind::Price => {
            let price = KeptPrice::from_json(text()?)?;
            let hash = price.hash();
            (Definition::Price(price), hash)
        }
        Kind::RateTable => {
            let (table, rows) = rate_table_in(bytes)?;
            let hash = basis::rows_hash(&rows).ok()?;
            (Definition::RateTable(table, rows), hash)
        }
    };
    (hash == input.hash).then_some(definition)
}

fn rate_table_in(bytes: &Bytes) -> Option<(RateTable, RecordBatch)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).ok()?;
    let metadata = reader.metadata().file_metadata().key_value_metadata()?;
    let described = metadata.iter().find(|entry| entry.key == METADATA)?;
    let described = described.value.clone()?;
    let schema = Arc::clone(reader.schema());
    let batches = reader.build().ok()?.collect::<Result<Vec<_>, _>>().ok()?;
    let rows = concat_batches(&schema, &batches).ok()?;
    // Without what only the reader of the file put there.
    let columns = Schema::new(schema.fields().clone());
    let table = rate_table_from_json(&described, &columns)?;
    let rows = RecordBatch::try_new(table.schema(), rows.columns().to_vec()).ok()?;
    Some((table, rows))
}

impl Kept {
    fn take_in(&mut self, definition: Definition) -> Result<()> {
        match definition {
            Definition::Plan(plan) => {
                let mut known = self.plans.iter();
                once(known.all(|known| known.name != plan.name))?;
                self.plans.push(plan);
            }
            Definition::RateTable(table, rows) => {
                let mut known = self.rate_tables.iter();
                once(known.all(|(known, _)| known.name != table.name))?;
                self.rate_tables.push((table, rows));
            }
            Definition::Price(price) => {
                for KeptVersion { definition, .. } in price.versions {
                    let mut known = self.prices.iter();
                    let known = known.find(|known| {
                        known.name == definition.name && known.version == definition.version
                    });
                    match known {
                        Some(known) => once(known.query == definition.query)?,
                        None => self.prices.push(definition),
                    }
                }
            }
        }
        Ok(())
    }

    /// A catalog that rates as then: plans, prices and rate tables of these names are those of then, and everything else is as
    /// it is now.
    pub fn catalog(&self, now: &Catalog) -> Catalog {
        let mut then = now.clone();
        let names: BTreeSet<&str> = self.plans.iter().map(|plan| plan.name.as_str()).collect();
        let plans = &mut then.definitions.plans;
        plans.retain(|plan| !names.contains(plan.name.as_str()));
        plans.extend(self.plans.iter().cloned());
        then.definitions.prices = self.prices_beside(&now.definitions.prices);
        let (tables, rows) = (&now.definitions.rate_tables, &now.rate_tables);
        let is_kept =
            |table: &RateTable| (self.rate_tables.iter()).any(|(kept, _)| kept.name == table.name);
        let others = tables.iter().zip(rows);
        let others = others.filter(|(table, _)| !is_kept(table));
        let kept = self.rate_tables.iter().map(|(table, rows)| (table, rows));
        let all = others.chain(kept);
        (then.definitions.rate_tables, then.rate_tables) = all
            .map(|(table, rows)| (table.clone(), rows.clone()))
            .unzip();
        then
    }

    /// The kept versions, and all versions of other prices. The first version that is kept of a price was there when the period
    /// began, whatever day it has been given since.
    fn prices_beside(&self, now: &[PriceDefinition]) -> Vec<PriceDefinition> {
        let names: BTreeSet<&str> = self
            .prices
            .iter()
            .map(|price| price.name.as_str())
            .collect();
        let others = now
            .iter()
            .filter(|price| !names.contains(price.name.as_str()));
        let mut all: Vec<PriceDefinition> = others.cloned().collect();
        for name in names {
            let versions = self.prices.iter().filter(|price| price.name == name);
            let mut versions: Vec<PriceDefinition> = versions.cloned().collect();
            versions.sort_by_key(|price| (price.effective_from, price.version));
            if let Some(first) = versions.first_mut() {
                first.effective_from = None;
            }
            all.extend(versions);
        }
        all
    }
}

/// Refuses what a document cannot have been rated by at once.
fn once(holds: bool) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::Contradiction {
            what: "a document was rated by one plan and one rate table of a name, and by one text of a price's version",
        }),
    }
}

#[cfg(test)]
mod tests;
