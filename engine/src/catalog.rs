//! What the definitions folder says, ready for use: parsed, checked, planned, and its rate tables read.

mod rates;

use crate::{
    config::Settings,
    error::{Error, Result},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::{fs, io, path::Path, sync::Arc};
use tollgate_sql::{
    definitions::{Checked, Definitions, SourceFile},
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

/// The definitions that a process works by, which may change while it runs.
#[derive(Debug, Clone)]
pub struct InForce {
    /// What they say.
    pub catalog: Arc<Catalog>,
    /// Since when, in microseconds since the Unix epoch.
    pub since_us: i64,
    /// Others that were to come into force since then and could not, and why.
    pub refused: Option<(Arc<Catalog>, String)>,
}

impl InForce {
    /// In force from some time on.
    pub fn new(catalog: Arc<Catalog>, since_us: i64) -> Self {
        InForce {
            catalog,
            since_us,
            refused: None,
        }
    }
}

/// Where the files are that rate tables name.
#[derive(Debug, Clone, Copy)]
enum Files<'a> {
    /// In this folder, or where a location leads from it.
    Folder(&'a Path),
    /// Only these, by name.
    Given(&'a [SourceFile]),
}

/// A folder of definitions in which something may be wrong.
#[derive(Debug)]
pub struct Examined {
    /// What is right and needs nothing that is wrong.
    pub catalog: Catalog,
    /// All that is wrong.
    pub errors: Vec<Error>,
    checked: Checked,
}

impl Examined {
    /// Whether there may be a definition of this name that is wrong.
    pub fn may_be_broken(&self, name: &str) -> bool {
        self.checked.may_be_broken(name)
    }
}

impl Catalog {
    /// Reads, checks and plans the definitions folder.
    ///
    /// # Errors
    /// The folder or a rate table cannot be read, or a definition does not make sense; all of these at once.
    pub async fn load(settings: &Settings) -> Result<Self> {
        let Examined {
            catalog, errors, ..
        } = Self::examine(settings).await?;
        Error::all(errors).map(|()| catalog)
    }

    /// Reads, checks and plans the definitions folder, as far as it is right, and says everything that is wrong in it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn examine(settings: &Settings) -> Result<Examined> {
        let folder = settings.resolve(&settings.definitions);
        let files = read_folder(&folder)?;
        Self::examine_files(&files, Files::Folder(&folder)).await
    }

    /// The same of files that are given, and not read: those that end in `.sql`, with the CSV files of their rate tables beside them.
    ///
    /// # Errors
    /// None of them ends in `.sql`.
    pub async fn examine_given(files: &[SourceFile]) -> Result<Examined> {
        let is_sql = |file: &&SourceFile| file.name.ends_with(".sql");
        let mut definitions: Vec<SourceFile> = files.iter().filter(is_sql).cloned().collect();
        definitions.sort_by(|a, b| a.name.cmp(&b.name));
        if definitions.is_empty() {
            return Err(Error::Usage(
                "there is no file whose name ends in `.sql`".into(),
            ));
        }
        Self::examine_files(&definitions, Files::Given(files)).await
    }

    async fn examine_files(files: &[SourceFile], beside: Files<'_>) -> Result<Examined> {
        let mut checked = Definitions::check(files);
        let mut errors: Vec<Error> = checked.errors.drain(..).map(Error::from).collect();
        let mut wrong = |checked: &mut Checked, name: &str, error: Error| {
            checked.leave_out(name);
            errors.push(error);
        };
        let mut checks = Vec::new();
        for event_type in checked.definitions.event_types.clone() {
            match EventChecks::plan(&event_type) {
                Ok(planned) => checks.extend((!planned.is_empty()).then(|| Arc::new(planned))),
                Err(error) => wrong(&mut checked, &event_type.name, error.into()),
            }
        }
        let mut meters = Vec::new();
        for meter in checked.definitions.meters.clone() {
            let event_type = checked.definitions.event_type(&meter.event_type);
            let event_type = event_type.ok_or(Error::Contradiction {
                what: "every meter has an event type",
            })?;
            match Meter::plan(&meter, event_type).await {
                Ok(planned) => meters.push(Arc::new(planned)),
                Err(error) => wrong(&mut checked, &meter.name, error.into()),
            }
        }
        let mut rate_tables = Vec::new();
        for rate_table in checked.definitions.rate_tables.clone() {
            match rates::load(beside, &rate_table).await {
                Ok(rows) => rate_tables.push(rows),
                Err(error) => wrong(&mut checked, &rate_table.name, error),
            }
        }
        let catalog = Catalog {
            checks,
            definitions: checked.definitions.clone(),
            meters,
            rate_tables,
        };
        Ok(Examined {
            catalog,
            errors,
            checked,
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
