//! What to merge, which files to delete and which log to forget: decided from what was read. No I/O.

use crate::lake::{
    StagedFile, Version,
    log::{checkpoint_version, log_version, whole_checkpoints},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Small files of about one size that make a merge worth it in a day that is still written.
const MERGE_FILES: usize = 16;
/// In such a day the largest file of a merge is at most one in this many of its bytes, so that a byte
/// is written again a few times only, however often more files come.
const LARGEST_PART: u64 = 4;
/// What nobody committed is looked for again after this part of `vacuum_after`.
const SWEEPS: i64 = 8;

/// What maintenance may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files are merged to about this size, in bytes; one of at least half of it stays as it is.
    pub file_bytes: u64,
    /// A file that no longer belongs to the table is deleted this long after, in milliseconds.
    pub vacuum_after_ms: i64,
    /// The log before a checkpoint is deleted when the checkpoint is this old, in milliseconds.
    pub log_after_ms: i64,
}

impl Limits {
    /// Files written later than this stay.
    pub(super) fn vacuum_before_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.vacuum_after_ms)
    }

    /// Whether everything that is stored is to be looked through, when that was done up to files of `swept_ms`. It finds
    /// what was uploaded and never committed, and costs a listing of all days. A clock that was ahead keeps none away.
    pub(super) fn sweep_is_due(&self, swept_ms: Option<i64>, now_ms: i64) -> bool {
        let since = |swept_ms| self.vacuum_before_ms(now_ms).saturating_sub(swept_ms);
        let is_recent = |swept_ms| (0..self.vacuum_after_ms / SWEEPS).contains(&since(swept_ms));
        !swept_ms.is_some_and(is_recent)
    }
}

/// A file that was removed from the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// When, in milliseconds since the Unix epoch; 0 when the log does not say when.
    pub at_ms: i64,
    /// Its size; 0 when the log does not say it.
    pub bytes: u64,
}

/// A file in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its path relative to the table; for a file of the log, its name.
    pub path: String,
    /// When it was written, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Its size.
    pub bytes: u64,
}

/// What a table looks like.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The loaded version.
    pub version: Version,
    /// Its files, in the order that their rows shall have.
    pub files: Vec<Arc<StagedFile>>,
    /// The group of event types that a file holds, by its path. Files of different groups are not merged, so that each keeps
    /// few columns. Of a file that may have any there is none.
    pub groups: BTreeMap<String, usize>,
    /// Files that were removed from the table.
    pub removed: BTreeMap<String, Removed>,
    /// Files that were removed earlier are deleted, in milliseconds since the Unix epoch.
    pub vacuumed_ms: Option<i64>,
    /// Everything that is stored below the table except its log, when it was looked through.
    pub stored: Option<Vec<Stored>>,
    /// The files of the log.
    pub log: Vec<Stored>,
    /// The present, in milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Files to put into one, in this order; each list becomes one file.
    pub merges: Vec<Vec<Arc<StagedFile>>>,
    /// Files to delete that belong to no version since `vacuum_before_ms`, with their sizes.
    pub vacuum: Vec<Stored>,
    /// Files written later than this stay, in milliseconds since the Unix epoch.
    pub vacuum_before_ms: i64,
    /// Whether everything that is stored was looked through, and nothing is left over but what the log names.
    pub is_swept: bool,
    /// Names of the log's files to delete, oldest first.
    pub log: Vec<String>,
}

/// Decides what a table needs.
pub fn plan(seen: &Seen, limits: &Limits) -> Plan {
    let vacuum_before_ms = limits.vacuum_before_ms(seen.now_ms);
    let named = removed_since(seen, vacuum_before_ms);
    let left = seen.stored.as_ref();
    let left = left.map(|stored| left_over(seen, stored, vacuum_before_ms));
    Plan {
        merges: merges(seen, limits.file_bytes),
        is_swept: left.as_ref().is_some_and(|left| is_named(left, &named)),
        vacuum: left.unwrap_or(named),
        vacuum_before_ms,
        log: forgotten(seen, seen.now_ms.saturating_sub(limits.log_after_ms)),
    }
}

/// Every partition but the last is a day that is over, and is merged as far as it goes. The last one,
/// which is the whole of a table without partitions, is merged by size.
fn merges(seen: &Seen, file_bytes: u64) -> Vec<Vec<Arc<StagedFile>>> {
    let mut partitions: BTreeMap<_, BTreeMap<_, Vec<Arc<StagedFile>>>> = BTreeMap::new();
    for file in &seen.files {
        let groups = partitions.entry(&file.partition).or_default();
        let group = groups.entry(seen.groups.get(&file.path)).or_default();
        group.push(Arc::clone(file));
    }
    let Some((_, written)) = partitions.pop_last() else {
        return Vec::new();
    };
    let closed = partitions.values().flat_map(BTreeMap::values);
    let closed = closed.flat_map(|files| {
        let runs = runs(files, |file| file.bytes < file_bytes / 2);
        runs.into_iter().flat_map(|run| packed(run, file_bytes))
    });
    let written = written.values();
    let written = written.flat_map(|files| by_size(files, file_bytes));
    closed.chain(written).collect()
}

/// Merges neighbours of about one size, the smallest first, as soon as there are enough of them.
fn by_size(files: &[Arc<StagedFile>], file_bytes: u64) -> Vec<Vec<Arc<StagedFile>>> {
    let small = files.iter().filter(|file| file.bytes < file_bytes / 2);
    let classes: BTreeSet<u32> = small.map(|file| class(file)).collect();
    for largest in classes {
        let runs = runs(files, |file| {
            file.bytes < file_bytes / 2 && class(file) <= largest
        });
        let worth_it = runs.into_iter().filter(|run| is_worth_it(run));
        let merges: Vec<_> = worth_it.flat_map(|run| packed(run, file_bytes)).collect();
        if !merges.is_empty() {
            return merges;
        }
    }
    Vec::new()
}

/// Sizes within a factor of 16 are about one size.
fn class(file: &StagedFile) -> u32 {
    file.bytes.max(1).ilog2() / 4
}

fn is_worth_it(run: &[Arc<StagedFile>]) -> bool {
    let bytes: u64 = run.iter().map(|file| file.bytes).sum();
    let largest = run.iter().map(|file| file.bytes).max().unwrap_or(0);
    run.len() >= MERGE_FILES && largest <= bytes / LARGEST_PART
}

/// The longest runs of neighbours that all pass.
fn runs(
    files: &[Arc<StagedFile>],
    passes: impl Fn(&StagedFile) -> bool,
) -> Vec<&[Arc<StagedFile>]> {
    files
        .split(|file| !passes(file))
        .filter(|run| !run.is_empty())
        .collect()
}

/// Cuts a run so that each part has the bytes of one file; a part of one file is left out.
fn packed(run: &[Arc<StagedFile>], file_bytes: u64) -> Vec<Vec<Arc<StagedFile>>> {
    let mut parts: Vec<Vec<Arc<StagedFile>>> = Vec::new();
    let mut bytes = 0;
    for file in run {
        match parts.last_mut() {
            Some(part) if bytes + file.bytes <= file_bytes => {
                part.push(Arc::clone(file));
                bytes += file.bytes;
            }
            _ => {
                parts.push(vec![Arc::clone(file)]);
                bytes = file.bytes;
            }
        }
    }
    parts.retain(|part| part.len() > 1);
    parts
}

/// Data files that no version since `before_ms` holds: removed earlier, or uploaded earlier and never committed. Files that
/// are not named like ours are another program's.
fn left_over(seen: &Seen, stored: &[Stored], before_ms: i64) -> Vec<Stored> {
    let live: BTreeSet<&str> = seen.files.iter().map(|file| file.path.as_str()).collect();
    let is_left = |file: &&Stored| {
        let removed = seen.removed.get(&file.path);
        is_data_file(&file.path)
            && !live.contains(file.path.as_str())
            && file.modified_ms < before_ms
            && removed.is_none_or(|removed| removed.at_ms < before_ms)
    };
    stored.iter().filter(is_left).cloned().collect()
}

/// Data files that the log says were removed earlier, and after those that are deleted already. What a process that died in
/// between did not delete is left over. The log does not name a file as removed that was added again.
fn removed_since(seen: &Seen, before_ms: i64) -> Vec<Stored> {
    let since_ms = seen.vacuumed_ms.unwrap_or(i64::MIN);
    let removed = seen.removed.iter();
    let removed = removed
        .filter(|(path, file)| is_data_file(path) && (since_ms..before_ms).contains(&file.at_ms));
    let stored = removed.map(|(path, file)| Stored {
        path: path.clone(),
        modified_ms: file.at_ms,
        bytes: file.bytes,
    });
    stored.collect()
}

/// Whether the log names each file of these.
fn is_named(left: &[Stored], named: &[Stored]) -> bool {
    let named: BTreeSet<&str> = named.iter().map(|file| file.path.as_str()).collect();
    left.iter().all(|file| named.contains(file.path.as_str()))
}

fn is_data_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("part-") && name.ends_with(".parquet")
}

/// The log's files before the newest whole checkpoint that is older than `before_ms`. The version of
/// the checkpoint itself stays, as a commit checks that the version it stands on is there.
fn forgotten(seen: &Seen, before_ms: i64) -> Vec<String> {
    let checkpoints = whole_checkpoints(seen.log.iter().map(|file| (&file.path, file)));
    let is_old = |parts: &[&Stored]| parts.iter().all(|part| part.modified_ms < before_ms);
    let kept = checkpoints
        .range(..=seen.version)
        .rev()
        .find(|(_, parts)| is_old(parts));
    let Some((kept, _)) = kept else {
        return Vec::new();
    };
    let version = |file: &Stored| log_version(&file.path).or(checkpoint_version(&file.path));
    let mut old: Vec<(Version, &String)> = seen
        .log
        .iter()
        .filter(|file| file.modified_ms < before_ms)
        .filter_map(|file| Some((version(file)?, &file.path)))
        .filter(|(version, _)| version < kept)
        .collect();
    old.sort();
    old.into_iter().map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        file_bytes: 1_000,
        vacuum_after_ms: 100,
        log_after_ms: 200,
    };

    /// Files of a day, named by their places.
    fn day(day: Option<&str>, sizes: &[u64]) -> Vec<Arc<StagedFile>> {
        let file = |(place, bytes): (usize, &u64)| {
            Arc::new(StagedFile {
                path: format!("{}/part-{place}.parquet", day.unwrap_or_default()),
                bytes: *bytes,
                partition: day
                    .map(|day| ("ingest_day".to_owned(), Some(day.to_owned())))
                    .into_iter()
                    .collect(),
                modified_ms: 0,
                statistics: None,
                structs: None,
            })
        };
        sizes.iter().enumerate().map(file).collect()
    }

    /// The sizes of the files of each merge.
    fn merged(files: Vec<Arc<StagedFile>>) -> Vec<Vec<u64>> {
        let seen = Seen {
            files,
            ..Seen::default()
        };
        let sizes = |part: &Vec<Arc<StagedFile>>| part.iter().map(|f| f.bytes).collect();
        plan(&seen, &LIMITS).merges.iter().map(sizes).collect()
    }

    #[test]
    fn a_day_that_is_over_is_merged_as_far_as_it_goes() {
        let cases: [(&[u64], &[&[u64]]); 7] = [
            (&[], &[]),
            (&[10], &[]),
            (&[10, 20], &[&[10, 20]]),
            (&[499, 499, 499], &[&[499, 499]]),
            // 500 is half of a file: it stays, and is not reached over.
            (&[1, 2, 500, 3, 4], &[&[1, 2], &[3, 4]]),
            (&[1, 500, 2], &[]),
            (&[400, 400, 200, 400, 1], &[&[400, 400, 200], &[400, 1]]),
        ];
        for (sizes, expected) in cases {
            let mut files = day(Some("2026-07-30"), sizes);
            files.extend(day(Some("2026-07-31"), &[1, 1, 1]));
            assert_eq!(merged(files), expected, "{sizes:?}");
        }
    }

    #[test]
    fn a_day_that_is_written_is_merged_when_sixteen_of_a_size_are_there() {
        for partition in [Some("2026-07-31"), None] {
            assert_eq!(merged(day(partition, &[9; 15])), Vec::<Vec<u64>>::new());
            assert_eq!(merged(day(partition, &[9; 16])), vec![vec![9; 16]]);
            // 15 and 16 are of two classes, and still neighbours of about one size.
            let mixed = [15, 16].repeat(8);
            assert_eq!(merged(day(partition, &mixed)), vec![mixed]);
        }
    }

    #[test]
    fn a_merged_file_waits_for_more_of_its_size() {
        // 15 small ones do not move the 144 bytes beside them: 144 is more than a quarter of 279.
        let mut sizes = vec![144];
        sizes.extend([9; 15]);
        assert_eq!(merged(day(None, &sizes)), Vec::<Vec<u64>>::new());
        // With a 16th the small ones are merged alone.
        sizes.push(9);
        assert_eq!(merged(day(None, &sizes)), vec![vec![9; 16]]);
        // 4 times 40 and 12 times 9: 40 is less than a quarter of 268, so all go together.
        let mut sizes = vec![40; 4];
        sizes.extend([9; 12]);
        assert_eq!(merged(day(None, &sizes)), vec![sizes]);
    }

    #[test]
    fn files_that_keep_coming_stay_few_and_are_seldom_rewritten() {
        let (mut files, mut written) = (Vec::new(), 0_u64);
        let mut most = 0;
        for _ in 0..20_000 {
            files.push(1);
            for merge in by_size_of(&files) {
                let bytes: u64 = merge.iter().sum();
                written += bytes;
                let found = files.windows(merge.len()).position(|run| run == merge);
                let place = found.unwrap();
                files.splice(place..place + merge.len(), [bytes]);
            }
            most = most.max(files.len());
        }
        assert_eq!(files.iter().sum::<u64>(), 20_000);
        assert!(most < 100, "{most} files at once");
        // The logarithm of 20,000 to the base 4 is 7.1.
        assert!(written < 20_000 * 8, "{written} bytes written again");
    }

    fn by_size_of(sizes: &[u64]) -> Vec<Vec<u64>> {
        let bytes = |part: &Vec<Arc<StagedFile>>| part.iter().map(|f| f.bytes).collect();
        let merges = by_size(&day(None, sizes), 1_000_000);
        merges.iter().map(bytes).collect()
    }

    fn stored(path: &str, modified_ms: i64) -> Stored {
        Stored {
            path: path.to_owned(),
            modified_ms,
            bytes: 1,
        }
    }

    #[test]
    fn only_old_files_of_ours_that_belong_to_nothing_are_deleted() {
        let name = "d/part-0-x.parquet";
        // Path, written, removed from the table, deleted; the bound is 900.
        let cases = [
            (name, 899, None, true),
            (name, 900, None, false),
            (name, 1, Some(899), true),
            (name, 1, Some(900), false),
            ("d/part-0.parquet", 1, None, false), // it is live
            ("d/other.parquet", 1, None, false),
            ("d/part-0.csv", 1, None, false),
        ];
        for (path, modified_ms, removed_ms, deleted) in cases {
            let seen = Seen {
                files: day(Some("d"), &[1]),
                removed: removed_ms
                    .map(|at_ms| (path.to_owned(), Removed { at_ms, bytes: 7 }))
                    .into_iter()
                    .collect(),
                stored: Some(vec![stored(path, modified_ms)]),
                now_ms: 1_000,
                ..Seen::default()
            };
            let plan = plan(&seen, &LIMITS);
            assert_eq!(plan.vacuum_before_ms, 900);
            // What nothing names is looked for again, until it is gone.
            let named = !deleted || removed_ms.is_some();
            assert_eq!(plan.is_swept, named, "{path} {removed_ms:?}");
            assert_eq!(
                plan.vacuum.len(),
                usize::from(deleted),
                "{path} {removed_ms:?}"
            );
        }
    }

    #[test]
    fn between_two_sweeps_only_what_the_log_names_is_deleted() {
        let name = "d/part-0-x.parquet";
        // Path, removed from the table, deleted; files of before 500 are deleted already, and the bound is 900.
        let cases = [
            (name, 499, false),
            (name, 500, true),
            (name, 899, true),
            (name, 900, false),
            ("d/other.parquet", 600, false),
        ];
        for (path, at_ms, deleted) in cases {
            let seen = Seen {
                files: day(Some("d"), &[1]),
                removed: BTreeMap::from([(path.to_owned(), Removed { at_ms, bytes: 7 })]),
                vacuumed_ms: Some(500),
                now_ms: 1_000,
                ..Seen::default()
            };
            let plan = plan(&seen, &LIMITS);
            assert!(!plan.is_swept);
            let bytes: Vec<_> = plan.vacuum.iter().map(|file| file.bytes).collect();
            assert_eq!(bytes, [7].repeat(usize::from(deleted)), "{path} {at_ms}");
        }
    }

    #[test]
    fn a_sweep_is_due_after_an_eighth_of_the_time_that_files_are_kept() {
        let limits = Limits {
            vacuum_after_ms: 80,
            ..LIMITS
        };
        // It went up to files of 920 at 1,000: the next one is due 10 later.
        for (swept_ms, now_ms, due) in [
            (None, 1_000, true),
            (Some(920), 999, true),
            (Some(920), 1_000, false),
            (Some(920), 1_009, false),
            (Some(920), 1_010, true),
        ] {
            assert_eq!(limits.sweep_is_due(swept_ms, now_ms), due, "{now_ms}");
        }
    }

    #[test]
    fn the_log_before_an_old_whole_checkpoint_is_forgotten() {
        let commit = |version: Version| format!("{version:020}.json");
        let checkpoint = |version: Version| format!("{version:020}.checkpoint.parquet");
        let part = |version: Version, part: u32| {
            format!("{version:020}.checkpoint.{part:010}.0000000002.parquet")
        };
        let forgotten = |files: Vec<(String, i64)>, version: Version| {
            let seen = Seen {
                version,
                log: files.iter().map(|(name, at)| stored(name, *at)).collect(),
                now_ms: 1_000,
                ..Seen::default()
            };
            plan(&seen, &LIMITS).log
        };
        let log = |checkpoints: &[(String, i64)]| {
            let commits = (0..6).map(|v| (commit(v), v));
            let last = ("_last_checkpoint".to_owned(), 1);
            commits
                .chain([last])
                .chain(checkpoints.to_vec())
                .collect::<Vec<_>>()
        };
        // No checkpoint, or too young a one.
        assert!(forgotten(log(&[]), 5).is_empty());
        assert!(forgotten(log(&[(checkpoint(2), 800)]), 5).is_empty());
        // An old one; its own version stays.
        let expected = vec![commit(0), commit(1)];
        assert_eq!(forgotten(log(&[(checkpoint(2), 799)]), 5), expected);
        // Of two old ones the newer counts, and the older goes; a young one changes nothing.
        let two = [(checkpoint(2), 2), (checkpoint(4), 4), (checkpoint(5), 900)];
        let expected = vec![commit(0), commit(1), checkpoint(2), commit(2), commit(3)];
        assert_eq!(forgotten(log(&two), 5), expected);
        // Half of a checkpoint is none, and one that we have not seen the version of neither.
        assert!(forgotten(log(&[(part(3, 1), 3)]), 5).is_empty());
        assert!(forgotten(log(&[(checkpoint(3), 3)]), 2).is_empty());
        let whole = [(part(3, 1), 3), (part(3, 2), 3)];
        assert_eq!(forgotten(log(&whole), 5).len(), 3);
    }
}
