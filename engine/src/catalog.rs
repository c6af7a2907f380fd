//! What the definitions folder says, ready for use: parsed, checked, planned, and its rate tables read.

mod rates;

use crate::{
    config::Settings,
    error::{Error, Result},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::{fs, io, path::Path, sync::Arc};
use tollgate_sql::{
    definitions::{Definitions, SourceFile},
    event_checks::EventChecks,
    meter::Meter,
    schema,
};

/// Definitions with everything that follows from them alone.
#[derive(Debug, Clone)]
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
            let event_type =
                definitions
                    .event_type(&meter.event_type)
                    .ok_or(Error::Contradiction {
                        what: "every meter has an event type",
                    })?;
            meters.push(Arc::new(Meter::plan(meter, event_type).await?));
        }
        let mut rate_tables = Vec::with_capacity(definitions.rate_tables.len());
        for rate_table in &definitions.rate_tables {
            rate_tables.push(rates::load(&folder, rate_table).await?);
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

    /// The meter with this name.
    pub fn meter(&self, name: &str) -> Option<&Arc<Meter>> {
        self.meters
            .iter()
            .find(|meter| meter.definition().name == name)
    }
}

/// The folder's `.sql` files by name, so that the order of definition does not depend on the disk.
fn read_folder(folder: &Path) -> Result<Vec<SourceFile>> {
    let failed = |error: io::Error| Error::Config {
        file: folder.display().to_string(),
        problem: format!(
            "the definitions folder cannot be read: {error}; set `definitions` in the configuration to the folder of .sql files"
        ),
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
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    Ok(SourceFile { name, text })
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::Config {
        file: path.display().to_string(),
        problem: format!("{what} cannot be read: {error}"),
    })
}
