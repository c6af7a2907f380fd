//! `tollgate init`: the files of a first product, which runs as it is.

use crate::{
    cli::output,
    error::{Error, Result},
};
use clap::Args;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Flags of `tollgate init`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder, made when it is missing.
    #[arg(default_value = ".", value_name = "DIR")]
    pub folder: PathBuf,
}

/// The files of `examples/first`, as they are there.
const FILES: [(&str, &str); 5] = [
    (
        "tollgate.toml",
        include_str!("../../../examples/first/tollgate.toml"),
    ),
    (
        "definitions/usage.sql",
        include_str!("../../../examples/first/definitions/usage.sql"),
    ),
    (
        "definitions/prices.sql",
        include_str!("../../../examples/first/definitions/prices.sql"),
    ),
    (
        "definitions/model_rates.csv",
        include_str!("../../../examples/first/definitions/model_rates.csv"),
    ),
    (
        "events.ndjson",
        include_str!("../../../examples/first/events.ndjson"),
    ),
];

/// Writes the files, and says what to do with them.
///
/// # Errors
/// One of the files is there, and then none is written; or the folder cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = &arguments.folder;
    if let Some(there) = first_that_is_there(folder) {
        return Err(Error::Usage(format!(
            "{} is there already, and init writes over nothing; name another folder: tollgate init DIR",
            there.display()
        )));
    }
    for (name, text) in FILES {
        write(&folder.join(name), text)?;
    }
    output::print(&next_steps(folder))
}

/// A file that is in the way: one of ours, or definitions that would be read beside ours.
fn first_that_is_there(folder: &Path) -> Option<PathBuf> {
    let ours = FILES.iter().map(|(name, _)| folder.join(name));
    let definitions = fs::read_dir(folder.join("definitions")).into_iter();
    let others = definitions
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let others = others.filter(|path| path.extension().is_some_and(|ending| ending == "sql"));
    ours.chain(others).find(|path| path.exists())
}

/// Writes a file that is not there yet.
fn write(path: &Path, text: &str) -> Result<()> {
    let written = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // A file that came meanwhile stays as it is.
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|source| Error::File {
        file: path.display().to_string(),
        doing: "writing a file of a first product",
        source,
    })
}

fn next_steps(folder: &Path) -> String {
    let mut text = String::new();
    for (name, _) in FILES {
        text.push_str(&format!("wrote {}\n", folder.join(name).display()));
    }
    let enter = match folder == Path::new(".") {
        true => String::new(),
        false => format!("  cd {}\n", folder.display()),
    };
    text + "\nNext:\n"
        + &enter
        + "  tollgate check                        what the definitions say\n  \
           tollgate run --until-end              reads events.ndjson into ./lake\n  \
           tollgate query \"SELECT event_id, status, reason FROM events WHERE status <> 'ok'\"\n  \
           tollgate invoice --period 2026-01     drafts; --finalize issues them\n\
           tollgate.toml says how to read a stream instead.\n"
}
