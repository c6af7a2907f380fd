//! Keys in a local file, sorted, with a filter and a page index in memory.
//!
//! ```text
//!  page of 127 entries and a checksum │ … │ first key of each page │ filter
//! ```
//!
//! A file has a name that is used once, and does not change after it was written. Its [`Label`], which is kept
//! apart, says what must be in it. A page is compared with its checksum each time it is read, the rest when the file is
//! opened: so opening a file costs what stays of it in memory, and no damaged byte decides anything.

use super::steps;
use parquet::bloom_filter::Sbbf;
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

/// What is remembered of a key. Entries are in order of key, then age, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) key: u128,
    pub(super) ingest_us: i64,
    pub(super) content: i64,
}

const SEEN_BYTES: usize = 32;
const PAGE_SEEN: usize = 127;
/// Where a page has its checksum; zeros follow.
const PAGE_SUM: usize = PAGE_SEEN * SEEN_BYTES;
const PAGE_BYTES: usize = 4096;
/// A block of the filter.
const BLOCK_BYTES: usize = 32;

impl Seen {
    fn to_bytes(self) -> [u8; SEEN_BYTES] {
        let mut bytes = [0; SEEN_BYTES];
        bytes[..16].copy_from_slice(&self.key.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.ingest_us.to_be_bytes());
        bytes[24..].copy_from_slice(&self.content.to_be_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; SEEN_BYTES]) -> Self {
        let word = |at: usize| -> [u8; 8] { std::array::from_fn(|i| bytes[at + i]) };
        Seen {
            key: u128::from_be_bytes(std::array::from_fn(|i| bytes[i])),
            ingest_us: i64::from_be_bytes(word(16)),
            content: i64::from_be_bytes(word(24)),
        }
    }
}

/// What must be in the file of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    name: String,
    len: usize,
    newest_us: i64,
    filter_bytes: usize,
    pages_hash: u64,
    filter_hash: u64,
}

impl Label {
    /// The name of its file in the folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn pages(&self) -> usize {
        self.len.div_ceil(PAGE_SEEN)
    }

    /// What it takes in memory with its filter.
    pub(super) fn memory_bytes(&self) -> usize {
        self.filter_bytes + self.pages() * size_of::<u128>()
    }

    fn file_bytes(&self) -> usize {
        self.pages() * PAGE_BYTES + self.memory_bytes()
    }
}

/// A file of keys. It goes with its last handle, unless it is kept for the next start.
#[derive(Debug)]
pub(super) struct RunFile {
    file: File,
    path: PathBuf,
    /// Makes a page's checksum tell it from the same page of another file.
    seed: u64,
    is_kept: AtomicBool,
}

impl RunFile {
    fn create(directory: &Path) -> io::Result<(String, Arc<Self>)> {
        let name = format!("{}.run", uuid::Uuid::now_v7().simple());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = RunFile::of(directory, &name, &options, false)?;
        Ok((name, file))
    }

    fn of(
        directory: &Path,
        name: &str,
        options: &OpenOptions,
        is_kept: bool,
    ) -> io::Result<Arc<Self>> {
        let path = directory.join(name);
        Ok(Arc::new(RunFile {
            file: options.open(&path)?,
            path,
            seed: xxh3_64(name.as_bytes()),
            is_kept: AtomicBool::new(is_kept),
        }))
    }

    /// Says whether the file is for the next start too.
    pub(super) fn keep(&self, is_kept: bool) {
        self.is_kept.store(is_kept, Ordering::SeqCst);
    }

    fn page_sum(&self, page: usize, entries: &[u8]) -> u64 {
        xxh3_64_with_seed(entries, self.seed ^ page as u64)
    }

    /// Bytes that were written with this hash.
    fn read_hashed(&self, bytes: usize, at: usize, hash: u64) -> io::Result<Vec<u8>> {
        let mut read = vec![0; bytes];
        self.file.read_exact_at(&mut read, at as u64)?;
        match xxh3_64(&read) == hash {
            true => Ok(read),
            false => Err(self.damaged()),
        }
    }

    fn damaged(&self) -> io::Error {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} is not what was written"),
        )
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        if !*self.is_kept.get_mut() {
            // It may be gone already; what stays is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A sorted file of keys.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<RunFile>,
    label: Label,
    /// The first key of each page.
    pages: Arc<Vec<u128>>,
    filter: Option<Sbbf>,
}

impl Run {
    /// Sorts and writes keys.
    pub(super) fn of_keys(mut keys: Vec<Seen>, directory: &Path) -> io::Result<Self> {
        keys.sort_unstable();
        let mut writer = Writer::new(keys.len(), directory)?;
        for seen in keys {
            writer.push(seen)?;
        }
        writer.finish()
    }

    /// Writes the keys of several runs as one, without those from before `oldest_us`.
    pub(super) fn merged(runs: &[Arc<Run>], oldest_us: i64, directory: &Path) -> io::Result<Self> {
        let len = runs.iter().map(|run| run.len()).sum();
        let mut writer = Writer::new(len, directory)?;
        let mut readers: Vec<Reader> = runs.iter().map(|run| Reader::new(run)).collect();
        let mut heads = BinaryHeap::new();
        for (at, reader) in readers.iter_mut().enumerate() {
            heads.extend(reader.next()?.map(|seen| Reverse((seen, at))));
        }
        while let Some(Reverse((seen, at))) = heads.pop() {
            if seen.ingest_us >= oldest_us {
                writer.push(seen)?;
            }
            heads.extend(readers[at].next()?.map(|seen| Reverse((seen, at))));
        }
        writer.finish()
    }

    /// Opens a run that was kept, with its filter or without.
    ///
    /// # Errors
    /// The file is missing, or is not what the label says.
    pub(super) fn open(label: &Label, directory: &Path, has_filter: bool) -> io::Result<Self> {
        let file = RunFile::of(directory, &label.name, OpenOptions::new().read(true), true)?;
        if file.file.metadata()?.len() != label.file_bytes() as u64 {
            return Err(file.damaged());
        }
        let (at, bytes) = (
            label.pages() * PAGE_BYTES,
            label.pages() * size_of::<u128>(),
        );
        let pages = file.read_hashed(bytes, at, label.pages_hash)?;
        let (pages, _) = pages.as_chunks();
        let pages = pages.iter().map(|key| u128::from_be_bytes(*key)).collect();
        let filter = match has_filter {
            true => {
                let bitset = file.read_hashed(label.filter_bytes, at + bytes, label.filter_hash)?;
                Some(Sbbf::new(&bitset))
            }
            false => None,
        };
        Ok(Run {
            file,
            label: label.clone(),
            pages: Arc::new(pages),
            filter,
        })
    }

    /// What must be in its file.
    pub(super) fn label(&self) -> &Label {
        &self.label
    }

    /// Its file.
    pub(super) fn file(&self) -> &Arc<RunFile> {
        &self.file
    }

    /// True for the same file, with or without its filter.
    pub(super) fn is_same(&self, other: &Run) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }

    /// The youngest entry of a key, if there is one.
    pub(super) fn find(&self, key: u128) -> io::Result<Option<Seen>> {
        let maybe = |filter: &Sbbf| filter.check(&key.to_be_bytes()[..]);
        if !self.filter.as_ref().is_none_or(maybe) {
            return Ok(None);
        }
        // Entries of one key are neighbours, oldest first: the last one may begin the next page.
        let Some(page) = self
            .pages
            .partition_point(|first| *first <= key)
            .checked_sub(1)
        else {
            return Ok(None);
        };
        let mut bytes = [0; PAGE_BYTES];
        let page = self.read(page, &mut bytes)?;
        let seen = |at: usize| Seen::of_bytes(&page[at]);
        let after = partition_point(page.len(), |at| seen(at).key <= key);
        Ok(after
            .checked_sub(1)
            .map(seen)
            .filter(|seen| seen.key == key))
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.label.len
    }

    /// The ingest time of the youngest entry.
    pub(super) fn newest_us(&self) -> i64 {
        self.label.newest_us
    }

    /// What it takes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, Sbbf::num_blocks) * BLOCK_BYTES;
        filter + self.pages.len() * size_of::<u128>()
    }

    /// The same keys without a filter; `None` when it has none.
    pub(super) fn without_filter(&self) -> Option<Self> {
        self.filter.as_ref().map(|_| Run {
            file: Arc::clone(&self.file),
            label: self.label.clone(),
            pages: Arc::clone(&self.pages),
            filter: None,
        })
    }

    fn read<'a>(
        &self,
        page: usize,
        bytes: &'a mut [u8; PAGE_BYTES],
    ) -> io::Result<&'a [[u8; SEEN_BYTES]]> {
        let entries = PAGE_SEEN.min(self.len() - page * PAGE_SEEN);
        let file = &self.file;
        file.file.read_exact_at(bytes, (page * PAGE_BYTES) as u64)?;
        let (seen, rest) = bytes.split_at(PAGE_SUM);
        match rest.starts_with(&file.page_sum(page, seen).to_be_bytes()) {
            true => Ok(&seen.as_chunks().0[..entries]),
            false => Err(file.damaged()),
        }
    }
}

/// The first place in `0..len` where `holds` is false; `holds` is true, then false.
fn partition_point(len: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut from, mut to) = (0, len);
    while from < to {
        let middle = from.midpoint(to);
        match holds(middle) {
            true => from = middle + 1,
            false => to = middle,
        }
    }
    from
}

/// Writes a run, entry by entry in order.
struct Writer {
    name: String,
    run: Arc<RunFile>,
    file: BufWriter<File>,
    page: [u8; PAGE_BYTES],
    len: usize,
    newest_us: i64,
    pages: Vec<u128>,
    filter: Sbbf,
}

impl Writer {
    /// `len` is the most that will be pushed. The filter gets a byte for each, up to twice that by
    /// rounding: of the keys that are not here it lets 2 % pass at most.
    fn new(len: usize, directory: &Path) -> io::Result<Self> {
        let (name, run) = RunFile::create(directory)?;
        Ok(Writer {
            name,
            file: BufWriter::with_capacity(1 << 20, run.file.try_clone()?),
            run,
            page: [0; PAGE_BYTES],
            len: 0,
            newest_us: i64::MIN,
            pages: Vec::with_capacity(len.div_ceil(PAGE_SEEN)),
            filter: Sbbf::new_with_num_of_bytes(len),
        })
    }

    fn push(&mut self, seen: Seen) -> io::Result<()> {
        let at = self.len % PAGE_SEEN;
        if at == 0 {
            self.pages.push(seen.key);
        }
        self.page[at * SEEN_BYTES..][..SEEN_BYTES].copy_from_slice(&seen.to_bytes());
        self.len += 1;
        self.newest_us = self.newest_us.max(seen.ingest_us);
        self.filter.insert(&seen.key.to_be_bytes()[..]);
        match at + 1 == PAGE_SEEN {
            true => self.end_page(),
            false => Ok(()),
        }
    }

    fn end_page(&mut self) -> io::Result<()> {
        let sum = self
            .run
            .page_sum(self.pages.len() - 1, &self.page[..PAGE_SUM]);
        self.page[PAGE_SUM..][..8].copy_from_slice(&sum.to_be_bytes());
        self.file.write_all(&self.page)?;
        self.page = [0; PAGE_BYTES];
        Ok(())
    }

    /// Ends the file and syncs it.
    fn finish(mut self) -> io::Result<Run> {
        if !self.len.is_multiple_of(PAGE_SEEN) {
            self.end_page()?;
        }
        let mut hash = Xxh3::new();
        for key in &self.pages {
            hash.update(&key.to_be_bytes());
            self.file.write_all(&key.to_be_bytes())?;
        }
        let mut filter = Hashed {
            file: &mut self.file,
            hash: Xxh3::new(),
        };
        let written = self.filter.write_bitset(&mut filter);
        written.map_err(io::Error::other)?;
        let label = Label {
            name: self.name,
            len: self.len,
            newest_us: self.newest_us,
            filter_bytes: self.filter.num_blocks() * BLOCK_BYTES,
            pages_hash: hash.digest(),
            filter_hash: filter.hash.digest(),
        };
        let file = self.file.into_inner();
        file.map_err(io::IntoInnerError::into_error)?.sync_all()?;
        steps::reached(&self.run.path, "run");
        Ok(Run {
            file: self.run,
            label,
            pages: Arc::new(self.pages),
            filter: Some(self.filter),
        })
    }
}

/// Hashes what it writes.
struct Hashed<'a> {
    file: &'a mut BufWriter<File>,
    hash: Xxh3,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a run from its beginning.
struct Reader<'a> {
    run: &'a Run,
    page: [u8; PAGE_BYTES],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(run: &'a Run) -> Self {
        Reader {
            run,
            page: [0; PAGE_BYTES],
            at: 0,
        }
    }

    fn next(&mut self) -> io::Result<Option<Seen>> {
        if self.at == self.run.len() {
            return Ok(None);
        }
        if self.at.is_multiple_of(PAGE_SEEN) {
            self.run.read(self.at / PAGE_SEEN, &mut self.page)?;
        }
        let (entries, _) = self.page.as_chunks();
        let seen = Seen::of_bytes(&entries[self.at % PAGE_SEEN]);
        self.at += 1;
        Ok(Some(seen))
    }
}
