//! The local disk on which a shard's owner keeps event ids for its successor, and what may happen to it in between.

use crate::Random;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder that lasts as long as a lake. In memory where there is such a place, since it is synced all the time.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// Copies a folder of ids; another process may be at work there.
pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = fs::create_dir_all(to);
    for file in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(file.file_name());
        match file.path().is_dir() {
            true => copy(&file.path(), &target),
            false => drop(fs::copy(file.path(), target)),
        }
    }
}

/// Removes, cuts off or changes one of the files, if there are any.
pub(crate) fn damage(random: &mut Random, folder: &Path) {
    let files = files(folder);
    if files.is_empty() {
        return;
    }
    let file = &files[random.size(u32::try_from(files.len()).unwrap())];
    let Ok(mut bytes) = fs::read(file) else {
        return;
    };
    let at = random.size(u32::try_from(bytes.len()).unwrap().max(1));
    let _ = match random.below(3) {
        0 => fs::remove_file(file),
        1 => fs::write(file, &bytes[..at]),
        _ => {
            bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 16);
            fs::write(file, bytes)
        }
    };
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(below).into_iter().flatten().flatten() {
        match file.path().is_dir() {
            true => found.extend(files(&file.path())),
            false => found.push(file.path()),
        }
    }
    found.sort();
    found
}
