//! Keys in a local file, sorted, with a filter and a page index in memory.

use hashbrown::HashTable;
use parquet::bloom_filter::Sbbf;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// What is remembered of a key. Entries are in order of key, then age, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) key: u128,
    pub(super) ingest_us: i64,
    pub(super) content: i64,
}

const SEEN_BYTES: usize = 32;
const PAGE_SEEN: usize = 128;
const PAGE_BYTES: usize = PAGE_SEEN * SEEN_BYTES;

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

/// A sorted file of keys. It has no name in its folder, so it goes when the last handle goes.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<File>,
    len: usize,
    newest_us: i64,
    /// True when it was made of other runs.
    is_merged: bool,
    /// The first key of each page.
    pages: Arc<Vec<u128>>,
    filter: Option<Sbbf>,
}

impl Run {
    /// Sorts and writes a table of keys.
    pub(super) fn of_table(table: &HashTable<Seen>, directory: &Path) -> io::Result<Self> {
        let mut sorted: Vec<Seen> = table.iter().copied().collect();
        sorted.sort_unstable();
        let mut writer = Writer::new(sorted.len(), directory)?;
        for seen in &sorted {
            writer.push(*seen)?;
        }
        writer.finish(false)
    }

    /// Writes the keys of several runs as one, without those from before `oldest_us`.
    pub(super) fn merged(runs: &[Arc<Run>], oldest_us: i64, directory: &Path) -> io::Result<Self> {
        let len = runs.iter().map(|run| run.len).sum();
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
        writer.finish(true)
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
        self.len
    }

    /// True when it was made of other runs.
    pub(super) fn is_merged(&self) -> bool {
        self.is_merged
    }

    /// The ingest time of the youngest entry.
    pub(super) fn newest_us(&self) -> i64 {
        self.newest_us
    }

    /// What it takes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        const BLOCK_BYTES: usize = 32;
        let filter = self.filter.as_ref().map_or(0, Sbbf::num_blocks) * BLOCK_BYTES;
        filter + self.pages.len() * size_of::<u128>()
    }

    /// The same keys without a filter; `None` when it has none.
    pub(super) fn without_filter(&self) -> Option<Self> {
        self.filter.as_ref().map(|_| Run {
            file: Arc::clone(&self.file),
            len: self.len,
            newest_us: self.newest_us,
            is_merged: self.is_merged,
            pages: Arc::clone(&self.pages),
            filter: None,
        })
    }

    fn read<'a>(
        &self,
        page: usize,
        bytes: &'a mut [u8; PAGE_BYTES],
    ) -> io::Result<&'a [[u8; SEEN_BYTES]]> {
        let entries = PAGE_SEEN.min(self.len - page * PAGE_SEEN);
        let bytes = &mut bytes[..entries * SEEN_BYTES];
        self.file.read_exact_at(bytes, (page * PAGE_BYTES) as u64)?;
        Ok(bytes.as_chunks().0)
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
    file: BufWriter<File>,
    len: usize,
    newest_us: i64,
    pages: Vec<u128>,
    filter: Sbbf,
}

impl Writer {
    /// `len` is the most that will be pushed. The filter gets a byte for each, up to twice that by
    /// rounding: of the keys that are not here it lets 2 % pass at most.
    fn new(len: usize, directory: &Path) -> io::Result<Self> {
        Ok(Writer {
            file: BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(directory)?),
            len: 0,
            newest_us: i64::MIN,
            pages: Vec::with_capacity(len.div_ceil(PAGE_SEEN)),
            filter: Sbbf::new_with_num_of_bytes(len),
        })
    }

    fn push(&mut self, seen: Seen) -> io::Result<()> {
        if self.len.is_multiple_of(PAGE_SEEN) {
            self.pages.push(seen.key);
        }
        self.len += 1;
        self.newest_us = self.newest_us.max(seen.ingest_us);
        self.filter.insert(&seen.key.to_be_bytes()[..]);
        self.file.write_all(&seen.to_bytes())
    }

    fn finish(self, is_merged: bool) -> io::Result<Run> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(Run {
            file: Arc::new(file),
            len: self.len,
            newest_us: self.newest_us,
            is_merged,
            pages: Arc::new(self.pages),
            filter: Some(self.filter),
        })
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
        if self.at == self.run.len {
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
