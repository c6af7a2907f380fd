//! What to do about a file that is not there: the one beside it that could have been meant.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};
use tollgate_sql::parser::did_you_mean;

/// So many files of a folder are named.
const SHOWN_MAX: usize = 20;

/// A hint for a file that is not there: the files of its folder with the same ending, or the folder that is missing too.
pub(crate) fn instead_of(file: &Path) -> String {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return match first_missing(folder) {
            Some(missing) => format!("there is no folder {}", missing.display()),
            None => format!("{} cannot be read as a folder", folder.display()),
        };
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let ending = file.extension();
    let mut names: Vec<String> = names
        .filter(|name| Path::new(name).extension() == ending)
        .collect();
    names.sort();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let ending = ending.map_or(String::new(), |ending| {
        format!(".{}", ending.to_string_lossy())
    });
    match names.len() {
        0 => format!("{} has no {ending} file", folder.display()),
        _ => {
            let meant = did_you_mean(&name, "files", &names);
            let known = match names.len() > SHOWN_MAX {
                true => meant.split(" known files").next().unwrap_or_default(),
                false => &meant,
            };
            format!("{known} in {}", folder.display())
        }
    }
}

/// The first folder of a path that is not there.
fn first_missing(folder: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in folder.components() {
        path.push(part);
        if !matches!(part, Component::CurDir | Component::ParentDir) && !path.is_dir() {
            return Some(path);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_could_have_been_meant_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["rates.csv", "other.csv", "notes.txt"] {
            fs::write(at(name), "").unwrap();
        }
        let shown = folder.path().display();
        assert_eq!(
            instead_of(&at("rate.csv")),
            format!("did you mean `rates.csv`? known files: `other.csv`, `rates.csv` in {shown}")
        );
        assert_eq!(
            instead_of(&at("x.parquet")),
            format!("{shown} has no .parquet file")
        );
        assert_eq!(
            instead_of(&at("data/rates.csv")),
            format!("there is no folder {}", at("data").display())
        );
    }
}
