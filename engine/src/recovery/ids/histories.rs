//! Verdicts against a plain map, through starts with every kind of index on disk: the one that the process before kept,
//! none, an older one, one of another lake, one that is cut off or damaged, and what is there after a process was killed
//! at any step of writing it. The lake may have been restored to an older version, and begun anew.

use super::*;
use crate::{
    commit::Marks,
    dedupe::{Verdict, steps::watch},
    epoch::Epoch,
};
use arrow::{
    array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tollgate_connectors::{Anchor, Attempt, CommitId, Staged, memory::MemoryTable};

const DAY_US: i64 = 86_400_000_000;
const HORIZON_US: i64 = 3 * DAY_US;
const SHARD: &str = "s";
const SEEDS: u64 = 60;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn place(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }
}

/// A counted event.
#[derive(Debug, Clone)]
struct Counted {
    sequence: u64,
    id: u64,
    content: i64,
    ingest_us: i64,
}

fn columns() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("shard", DataType::Utf8, false),
        Field::new("sequence", DataType::Int64, false),
        Field::new("event_id", DataType::Utf8, true),
        Field::new("source", DataType::Utf8, true),
        Field::new("status", DataType::Utf8, false),
        Field::new("content_hash", DataType::Int64, false),
        Field::new("ingest_time", time, false),
    ]))
}

fn rows(counted: &[Counted]) -> RecordBatch {
    let texts = |text: &dyn Fn(&Counted) -> String| -> ArrayRef {
        let texts: StringArray = counted.iter().map(|c| Some(text(c))).collect();
        Arc::new(texts)
    };
    let sequences = counted.iter().map(|c| i64::try_from(c.sequence).unwrap());
    let times: TimestampMicrosecondArray = counted.iter().map(|c| Some(c.ingest_us)).collect();
    let columns_of: Vec<ArrayRef> = vec![
        texts(&|_| SHARD.to_owned()),
        Arc::new(Int64Array::from_iter_values(sequences)),
        texts(&|c| c.id.to_string()),
        texts(&|_| "source".to_owned()),
        texts(&|_| "ok".to_owned()),
        Arc::new(Int64Array::from_iter_values(
            counted.iter().map(|c| c.content),
        )),
        Arc::new(times.with_timezone("UTC")),
    ];
    RecordBatch::try_new(columns(), columns_of).unwrap()
}

/// An `events` table and what was committed to it.
struct Lake {
    table: MemoryTable,
    commits: Vec<(Attempt, Vec<Counted>)>,
}

impl Lake {
    fn new() -> Self {
        Lake {
            table: MemoryTable::new("events", columns()),
            commits: Vec::new(),
        }
    }

    /// The same lake as of its first commits.
    async fn restored(&self, commits: usize) -> Self {
        let mut lake = Lake::new();
        for (attempt, counted) in &self.commits[..commits] {
            lake.make(attempt.clone(), counted.clone()).await;
        }
        lake
    }

    async fn make(&mut self, attempt: Attempt, counted: Vec<Counted>) -> i64 {
        let staged = match counted.is_empty() {
            true => Staged::default(),
            false => {
                let rows = rows(&counted);
                self.table.stage(&attempt.commit_id, &[rows]).await.unwrap()
            }
        };
        let version = self.table.commit(&attempt, &staged).await.unwrap();
        self.commits.push((attempt, counted));
        version
    }

    async fn commit(&mut self, position: &Position, counted: Vec<Counted>) -> Proof {
        let commit_id = CommitId(uuid::Uuid::now_v7().simple().to_string());
        let attempt = Attempt {
            commit_id: commit_id.clone(),
            marks: position.marks(&Marks::of(SHARD), Epoch(1)),
            info: BTreeMap::new(),
        };
        let version = self.make(attempt, counted).await;
        Proof::new(version, &commit_id)
    }

    fn position(&self) -> Position {
        Position::load(&self.table, &Marks::of(SHARD)).unwrap()
    }

    /// What was counted last under each id: when, and with which content.
    fn plain_map(&self) -> HashMap<u64, (i64, i64)> {
        let counted = self.commits.iter().flat_map(|(_, counted)| counted);
        counted.map(|c| (c.id, (c.ingest_us, c.content))).collect()
    }
}

/// A step of writing ids: which one, what the folder was then, and how many commits the lake had.
type Steps = Arc<Mutex<Vec<(String, PathBuf, usize)>>>;

/// What the starts found.
#[derive(Debug, Default)]
struct Totals {
    found: BTreeMap<String, u64>,
    damaged: u64,
    killed: BTreeMap<String, u64>,
}

struct World {
    random: Random,
    lake: Lake,
    /// Where ids are kept, below a folder for all of this.
    directory: PathBuf,
    /// Copies of that from earlier, of this lake and others.
    older: Vec<PathBuf>,
    /// Copies from the steps of the process that runs.
    steps: Steps,
    commits: Arc<AtomicUsize>,
    now_us: i64,
    totals: Totals,
    base: tempfile::TempDir,
}

fn base() -> tempfile::TempDir {
    tempfile::tempdir_in(dedupe::tests::directory()).unwrap()
}

/// Copies what is there; a file may go meanwhile.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(file.file_name());
        match file.path().is_dir() {
            true => copy(&file.path(), &target),
            false => drop(fs::copy(file.path(), target)),
        }
    }
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

impl World {
    fn new(seed: u64) -> Self {
        let base = base();
        let directory = base.path().join("kept");
        fs::create_dir(&directory).unwrap();
        let (steps, commits) = (Steps::default(), Arc::new(AtomicUsize::new(0)));
        let (copies, counter) = (Arc::clone(&steps), Arc::clone(&commits));
        let (kept, beside) = (directory.clone(), base.path().to_owned());
        let watcher = move |_: &Path, step: &str| {
            let commits = counter.load(Ordering::SeqCst);
            let to = beside.join(uuid::Uuid::now_v7().simple().to_string());
            copy(&kept, &to);
            copies.lock().unwrap().push((step.to_owned(), to, commits));
        };
        watch::set(&directory, Some(Arc::new(watcher)));
        World {
            random: Random(seed),
            lake: Lake::new(),
            directory,
            older: Vec::new(),
            steps,
            commits,
            now_us: 100 * DAY_US,
            totals: Totals::default(),
            base,
        }
    }

    fn options(&mut self) -> dedupe::Options {
        dedupe::Options {
            horizon_us: HORIZON_US,
            // 56 recent keys, with filters or without.
            memory_bytes: [0, 8_000, 12_000][self.random.place(3)],
            directory: self.directory.clone(),
        }
    }

    /// Keeps a copy of the folder for later.
    fn remember(&mut self) {
        let to = self.base.path().join(format!("older-{}", self.older.len()));
        copy(&self.directory, &to);
        self.older.push(to);
    }

    fn replace_directory(&self, from: &Path) {
        let _ = fs::remove_dir_all(&self.directory);
        copy(from, &self.directory);
    }

    /// What may happen to a folder between two processes. The one before may still be at work.
    fn damage(&mut self) {
        let files = files(&self.directory);
        if self.random.one_in(16) {
            fs::remove_dir_all(&self.directory).unwrap_or_default();
            return fs::create_dir_all(&self.directory).unwrap();
        }
        if self.random.one_in(8) && !self.older.is_empty() {
            let at = self.random.place(self.older.len());
            return self.replace_directory(&self.older[at]);
        }
        if files.is_empty() {
            return;
        }
        let file = &files[self.random.place(files.len())];
        let other = &files[self.random.place(files.len())];
        let (Ok(mut bytes), Ok(theirs)) = (fs::read(file), fs::read(other)) else {
            return;
        };
        let at = self.random.place(bytes.len().max(1));
        let _ = match self.random.below(10) {
            0 => fs::remove_file(file),
            1 => fs::write(file, &bytes[..at]),
            2..5 => {
                let bit = 1 << self.random.below(8);
                bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= bit);
                fs::write(file, bytes)
            }
            5 => fs::write(file, theirs).and_then(|()| fs::write(other, bytes)),
            _ => Ok(()),
        };
    }

    /// What may happen to a lake between two processes.
    async fn move_lake(&mut self) {
        match self.random.below(12) {
            0 => {
                self.remember();
                self.lake = Lake::new();
            }
            1 => {
                let commits = self.random.place(self.lake.commits.len() + 1);
                self.lake = self.lake.restored(commits).await;
            }
            _ => {}
        }
    }

    /// Other machines have the shard for a while, which do not have this folder.
    async fn process_elsewhere(&mut self) {
        let parked = self.base.path().join("parked");
        let _ = fs::remove_dir_all(&parked);
        copy(&self.directory, &parked);
        for _ in 0..=self.random.below(2) {
            self.replace_directory(Path::new("no folder"));
            self.move_lake().await;
            self.process().await;
        }
        self.replace_directory(&parked);
    }

    /// One process: starts, judges events, and ends somehow.
    async fn process(&mut self) {
        let commits = &self.commits;
        // A take-over changes nothing but that the log has it.
        let position = self.lake.position();
        // What is not in the lake is read again, from the same time on.
        self.now_us = position.watermark.0.max(100 * DAY_US);
        self.lake.commit(&position, Vec::new()).await;
        commits.store(self.lake.commits.len(), Ordering::SeqCst);
        self.steps.lock().unwrap().clear();
        let options = self.options();
        self.look(&options, &position).await;
        let mut dedupe = match dedupe(&self.lake.table, SHARD, &position, options).await {
            Ok(dedupe) => dedupe,
            Err(error) => return self.is_damaged(&error),
        };
        if let Err(error) = self.judge_some(&mut dedupe, position).await {
            return self.is_damaged(&error);
        }
        match self.random.below(4) {
            // It goes without a word, and its threads with it.
            0 => std::mem::forget(dedupe),
            1 => drop(dedupe),
            2 => self.kill(dedupe).await,
            _ => {}
        }
    }

    /// Counts what a start will find.
    async fn look(&mut self, options: &dedupe::Options, position: &Position) {
        let whose = whose(&self.lake.table, SHARD, HORIZON_US, &[]);
        let folder = Dedupe::keeping(options.clone(), whose.clone())
            .folder()
            .to_owned();
        let found = prove_kept(&folder, &self.lake.table, &whose, position).await;
        let found = match found {
            Ok(None) => "none".to_owned(),
            Ok(Some(kept)) if kept.sequence == position.sequence.0 => "newest".to_owned(),
            Ok(Some(_)) => "older".to_owned(),
            Err(problem) => problem,
        };
        *self.totals.found.entry(found).or_default() += 1;
    }

    fn is_damaged(&mut self, error: &crate::Error) {
        assert!(
            matches!(error, crate::Error::DamagedIds { .. }),
            "{error:?}"
        );
        self.totals.damaged += 1;
        // The next start takes nothing of it.
        let manifests = files(&self.directory);
        assert!(!manifests.iter().any(|file| file.ends_with("manifest")));
    }

    /// The process was killed at one of its steps, when the lake had what it had.
    async fn kill(&mut self, dedupe: Dedupe) {
        drop(dedupe);
        let steps = std::mem::take(&mut *self.steps.lock().unwrap());
        if steps.is_empty() {
            return;
        }
        let (step, folder, commits) = &steps[self.random.place(steps.len())];
        self.replace_directory(folder);
        // A thread of the process before may still have been at work, over another lake.
        let commits = self.lake.commits.len().min(*commits);
        self.lake = self.lake.restored(commits).await;
        *self.totals.killed.entry(step.clone()).or_default() += 1;
    }

    async fn judge_some(&mut self, dedupe: &mut Dedupe, start: Position) -> Result<()> {
        let mut map = self.lake.plain_map();
        let mut position = start;
        let mut waiting = Vec::new();
        for _ in 0..self.random.below(400) {
            position.sequence = Sequence(position.sequence.0 + 1);
            self.now_us += match self.random.below(60) {
                0 => DAY_US,
                _ => i64::try_from(self.random.below(1_000)).unwrap(),
            };
            let event = Counted {
                sequence: position.sequence.0,
                id: self.random.below(400),
                content: i64::from(self.random.one_in(4)),
                ingest_us: self.now_us,
            };
            let before = position.watermark;
            let is_known = |at_us: i64| before == EventTime::MIN || before.0 - at_us <= HORIZON_US;
            let expected = match map.get(&event.id) {
                Some((at_us, content)) if is_known(*at_us) => match *content == event.content {
                    true => Verdict::Repeat,
                    false => Verdict::Conflict,
                },
                _ => Verdict::New,
            };
            let key = event_key("source", &event.id.to_string());
            let verdict = dedupe.judge(key, event.content, event.ingest_us, before)?;
            assert_eq!(verdict, expected, "{event:?}");
            if verdict == Verdict::New {
                map.insert(event.id, (event.ingest_us, event.content));
                position.watermark = position.watermark.max(EventTime(event.ingest_us));
                waiting.push(event);
            }
            if self.random.one_in(4) {
                dedupe.settle(position.watermark, Some(position.sequence))?;
            }
            if self.random.one_in(40) {
                dedupe.keep(position.sequence)?;
            }
            if self.random.one_in(25) {
                self.flush(dedupe, &mut position, std::mem::take(&mut waiting))
                    .await;
            }
        }
        if self.random.one_in(2) {
            self.flush(dedupe, &mut position, waiting).await;
            dedupe.finish(position.sequence);
        }
        Ok(())
    }

    async fn flush(&mut self, dedupe: &mut Dedupe, position: &mut Position, rows: Vec<Counted>) {
        position.anchor = Some((
            position.sequence,
            Anchor {
                hash: 0,
                ingest_time_us: self.now_us,
            },
        ));
        let proof = self.lake.commit(position, rows).await;
        self.commits
            .store(self.lake.commits.len(), Ordering::SeqCst);
        dedupe.committed(position, proof);
    }
}

#[tokio::test]
async fn every_verdict_is_the_plain_map_s_whatever_is_on_disk() {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let mut killed: BTreeMap<String, u64> = BTreeMap::new();
    let mut damaged = 0;
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..12 {
            if world.random.one_in(3) {
                world.remember();
            }
            world.damage();
            world.move_lake().await;
            world.process().await;
            if world.random.one_in(3) {
                world.process_elsewhere().await;
            }
        }
        watch::set(&world.directory, None);
        for (what, times) in world.totals.found {
            *found.entry(what).or_default() += times;
        }
        damaged += world.totals.damaged;
        for (step, times) in world.totals.killed {
            *killed.entry(step).or_default() += times;
        }
    }
    println!("{found:#?}, {damaged} damaged, killed {killed:?}");
    for what in [
        "none",
        "newest",
        "older",
        "it is newer than the lake",
        "its manifest is damaged",
        "the lake's log does not have the commit that it was kept after",
    ] {
        assert!(found.contains_key(what), "{what} was never found");
    }
    assert!(damaged > 0);
    let steps: Vec<&str> = killed.keys().map(String::as_str).collect();
    assert_eq!(steps, ["aside", "removed", "renamed", "run"]);
}

fn seen(event: &Counted) -> (u128, i64, i64) {
    let key = event_key("source", &event.id.to_string());
    (key, event.content, event.ingest_us)
}

#[tokio::test]
async fn a_start_reads_only_what_is_new() {
    let base = base();
    let options = |folder: &str| dedupe::Options {
        horizon_us: HORIZON_US,
        memory_bytes: 0,
        directory: base.path().join(folder),
    };
    let event = |sequence: u64| Counted {
        sequence,
        id: sequence,
        content: 7,
        ingest_us: DAY_US,
    };
    let position = |sequence| Position {
        sequence: Sequence(sequence),
        watermark: EventTime(DAY_US),
        ..Position::START
    };
    let mut lake = Lake::new();
    lake.commit(&position(300), (1..=300).map(event).collect())
        .await;
    let start = async |lake: &Lake, folder: &str| {
        dedupe(&lake.table, SHARD, &lake.position(), options(folder))
            .await
            .unwrap()
    };
    start(&lake, "kept").await.finish(Sequence(300));
    // The same lake, but that the rows of its first commit cannot be read any more.
    lake.commits[0].1.clear();
    let mut lake = lake.restored(1).await;
    lake.commit(&position(310), (301..=310).map(event).collect())
        .await;
    for (folder, first) in [("kept", Verdict::Repeat), ("another", Verdict::New)] {
        let mut dedupe = start(&lake, folder).await;
        for sequence in 1..=310 {
            let (key, content, ingest_us) = seen(&event(sequence));
            let verdict = dedupe
                .judge(key, content, ingest_us, EventTime(DAY_US))
                .unwrap();
            let expected = if sequence <= 300 {
                first
            } else {
                Verdict::Repeat
            };
            assert_eq!(verdict, expected, "{folder} {sequence}");
        }
    }
}

#[tokio::test]
async fn nothing_is_forgotten_by_a_watermark_that_the_lake_does_not_have() {
    let base = base();
    let options = dedupe::Options {
        horizon_us: HORIZON_US,
        memory_bytes: 0,
        directory: base.path().to_owned(),
    };
    let event = |sequence: u64, day: i64| Counted {
        sequence,
        id: sequence,
        content: 7,
        ingest_us: day * DAY_US,
    };
    let position = |sequence, day: i64| Position {
        sequence: Sequence(sequence),
        watermark: EventTime(day * DAY_US),
        ..Position::START
    };
    let mut lake = Lake::new();
    lake.commit(&position(1, 10), vec![event(1, 10)]).await;
    let start = async |lake: &Lake| {
        dedupe(&lake.table, SHARD, &lake.position(), options.clone())
            .await
            .unwrap()
    };
    start(&lake).await.finish(Sequence(1));
    let mut dedupe = start(&lake).await;
    let judge = |dedupe: &mut Dedupe, event: &Counted, day: i64| {
        let (key, content, ingest_us) = seen(event);
        dedupe
            .judge(key, content, ingest_us, EventTime(day * DAY_US))
            .unwrap()
    };
    assert_eq!(judge(&mut dedupe, &event(2, 12), 10), Verdict::New);
    dedupe.keep(Sequence(2)).unwrap();
    let proof = lake.commit(&position(2, 12), vec![event(2, 12)]).await;
    dedupe.committed(&position(2, 12), proof);
    // On day 14 the first id is forgotten, and the second may be written; but the lake has not come to day 14.
    assert_eq!(judge(&mut dedupe, &event(3, 14), 12), Verdict::New);
    dedupe
        .settle(EventTime(14 * DAY_US), Some(Sequence(3)))
        .unwrap();
    dedupe.keep(Sequence(3)).unwrap();
    drop(dedupe);
    let mut dedupe = start(&lake).await;
    assert_eq!(judge(&mut dedupe, &event(1, 10), 12), Verdict::Repeat);
    assert_eq!(judge(&mut dedupe, &event(2, 12), 12), Verdict::Repeat);
    assert_eq!(judge(&mut dedupe, &event(3, 14), 12), Verdict::New);
}
