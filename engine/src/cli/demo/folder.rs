//! The demo's folder: definitions, configuration, and what running leaves behind.

use crate::{
    config::Settings,
    error::{Error, Result},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The files of `examples/demo/definitions`, as they are there.
const DEFINITIONS: [(&str, &str); 5] = [
    (
        "events.sql",
        include_str!("../../../../examples/demo/definitions/events.sql"),
    ),
    (
        "meters.sql",
        include_str!("../../../../examples/demo/definitions/meters.sql"),
    ),
    (
        "prices.sql",
        include_str!("../../../../examples/demo/definitions/prices.sql"),
    ),
    (
        "model_rates.csv",
        include_str!("../../../../examples/demo/definitions/model_rates.csv"),
    ),
    (
        "tax_rates.csv",
        include_str!("../../../../examples/demo/definitions/tax_rates.csv"),
    ),
];

/// Says that a folder is a demo's own and may be emptied.
const MARKER: &str = ".tollgate-demo";
const CONFIGURATION: &str = "tollgate.toml";
const DEFINITIONS_FOLDER: &str = "definitions";
const ACCOUNTS: &str = "accounts";
const LAKE: &str = "lake";
const NATS: &str = "nats";
/// The files that stand for the stream when there is no nats-server, one for each of the two times at which events are sent: a file
/// that was read must not change.
pub(super) const EVENTS: [&str; 2] = ["usage.ndjson", "later.ndjson"];

/// A folder that is the demo's own.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// Makes the folder, or clears away what an earlier demo left in it. Anything else in it stays.
///
/// # Errors
/// It has something in it and is not a demo's; or it cannot be written.
pub(super) fn prepare(path: &Path) -> Result<Folder> {
    let failed = |source| file_error(path, "preparing the demo's folder", source);
    let is_ours = path.join(MARKER).is_file();
    if !is_ours && holds_something(path).map_err(failed)? {
        return Err(Error::Usage(format!(
            "{} is not empty and is no demo's folder; name another with --dir DIR",
            path.display()
        )));
    }
    fs::create_dir_all(path).map_err(failed)?;
    fs::write(
        path.join(MARKER),
        "Made by `tollgate demo`, which replaces what is here.\n",
    )
    .map_err(failed)?;
    for name in [DEFINITIONS_FOLDER, ACCOUNTS, LAKE, NATS] {
        absent_is_fine(fs::remove_dir_all(path.join(name))).map_err(failed)?;
    }
    for name in EVENTS.iter().chain([&CONFIGURATION]) {
        absent_is_fine(fs::remove_file(path.join(name))).map_err(failed)?;
    }
    Ok(Folder(path.to_owned()))
}

fn holds_something(path: &Path) -> io::Result<bool> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Folder {
    /// Writes definitions and configuration, and returns the settings that they give. `url` is that
    /// of the nats-server; without one the events come from a file of this name.
    pub(super) fn write(&self, url: Option<&str>, events: &str) -> Result<Settings> {
        let definitions = self.0.join(DEFINITIONS_FOLDER);
        let failed = |source| file_error(&definitions, "writing the demo's definitions", source);
        fs::create_dir_all(&definitions).map_err(failed)?;
        for (name, text) in DEFINITIONS {
            fs::write(definitions.join(name), text).map_err(failed)?;
        }
        let file = self.configuration();
        let failed = |source| file_error(&file, "writing the demo's configuration", source);
        fs::write(&file, configuration(url, events)).map_err(failed)?;
        // Without variables: a TOLLGATE_LAKE_URL in the environment is a real lake.
        Settings::load(&file, std::iter::empty())
    }

    /// Writes files of accounts, and returns their paths.
    pub(super) fn write_accounts(&self, files: &[(&str, String)]) -> Result<Vec<PathBuf>> {
        let accounts = self.0.join(ACCOUNTS);
        let failed = |source| file_error(&accounts, "writing the demo's accounts", source);
        fs::create_dir_all(&accounts).map_err(failed)?;
        let write = |(name, text): &(&str, String)| {
            let path = accounts.join(name);
            fs::write(&path, text).map_err(failed)?;
            Ok(path)
        };
        files.iter().map(write).collect()
    }

    /// The configuration file.
    pub(super) fn configuration(&self) -> PathBuf {
        self.0.join(CONFIGURATION)
    }

    /// Where nats-server keeps its streams.
    pub(super) fn nats(&self) -> PathBuf {
        self.0.join(NATS)
    }

    /// Where the tables are.
    pub(super) fn lake(&self) -> PathBuf {
        self.0.join(LAKE)
    }
}

fn configuration(url: Option<&str>, events: &str) -> String {
    let source = match url {
        Some(url) => format!(
            "kind = \"nats\"\nurl = \"{url}\"\nstream = \"USAGE\"\nsubjects = [\"usage.>\"]\ncreate = true"
        ),
        None => format!("kind = \"files\"\npath = \"{events}\""),
    };
    format!(
        "# Written by `tollgate demo`.\ndefinitions = \"{DEFINITIONS_FOLDER}/\"\n\n[source]\n{source}\n\n\
         [lake]\nurl = \"file://./{LAKE}\"\n\n[billing]\ndefault_plan = \"payg\"\ntime_zone = \"UTC\"\n"
    )
}

fn file_error(path: &Path, doing: &'static str, source: io::Error) -> Error {
    Error::File {
        file: path.display().to_string(),
        doing,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceKind;

    #[test]
    fn a_folder_with_other_things_in_it_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("lake");
        fs::create_dir(&precious).unwrap();
        let message = prepare(folder.path()).unwrap_err().to_string();
        assert!(message.contains("no demo's folder"), "{message}");
        assert!(precious.is_dir());
        assert!(!folder.path().join(MARKER).exists());
    }

    #[test]
    fn a_second_demo_replaces_the_first_and_keeps_what_others_put_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo");
        prepare(&path).unwrap().write(None, EVENTS[0]).unwrap();
        fs::create_dir(path.join(LAKE)).unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        prepare(&path).unwrap();
        assert!(!path.join(LAKE).exists());
        assert!(!path.join(CONFIGURATION).exists());
        assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "mine");
    }

    #[test]
    fn the_configuration_is_one_that_loads() {
        let folder = tempfile::tempdir().unwrap();
        let ours = prepare(folder.path()).unwrap();
        let settings = ours
            .write(Some("nats://127.0.0.1:4999"), EVENTS[0])
            .unwrap();
        assert_eq!(settings.source.kind, SourceKind::Nats);
        assert_eq!(settings.source.url, "nats://127.0.0.1:4999");
        assert!(settings.source.create);
        let settings = ours.write(None, EVENTS[0]).unwrap();
        assert_eq!(settings.source.kind, SourceKind::Files);
        assert_eq!(
            settings.resolve(&settings.source.path),
            folder.path().join(EVENTS[0])
        );
    }
}
