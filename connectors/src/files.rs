//! A [`Source`] over a file of NDJSON: one CloudEvent a line, plain or gzipped.
//!
//! A line's number is its sequence, counted from 1. The file's own modification time stands for the
//! ingest time of every line, because it is a fact of the file: reading it again gives the same
//! messages. So do not touch, rewrite or append to a file that is partly read; its anchors change, and
//! a shard that compares them refuses to go on.

mod lines;

use crate::{
    Anchor, Bounds, Message, ReadLimit, Result, Sequence, Source,
    error::{Cause, Error},
};
use async_trait::async_trait;
use lines::Lines;
use std::{
    io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

/// What some editors write at the start of a UTF-8 file. It belongs to no line, and RFC 8259 lets a reader skip it.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The longest line that is read, in bytes without its line break.
pub const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One file, read from its first line to its last.
#[derive(Debug)]
pub struct FileSource {
    file: Arc<Identity>,
    shard: String,
    position: Sequence,
    /// Open right after `position`; `None` means it has to be opened again.
    reader: Option<Lines>,
    holes: Vec<RangeInclusive<Sequence>>,
    /// The number of lines, once they are counted.
    last: Option<Sequence>,
}

/// Which file, and what it looked like when it was first opened.
#[derive(Debug)]
struct Identity {
    path: PathBuf,
    bytes: u64,
    modified_us: i64,
}

/// What one read found.
#[derive(Default)]
struct Found {
    messages: Vec<Message>,
    holes: Vec<RangeInclusive<Sequence>>,
}

impl FileSource {
    /// Opens a file; its shard is `shard`, or the file's name without `.ndjson`, `.jsonl`, `.json` and
    /// `.gz`. Gzip is recognised by its first bytes, whatever the name.
    ///
    /// # Errors
    /// [`Error::File`] when it is missing, unreadable or a folder.
    pub fn open(path: impl Into<PathBuf>, shard: Option<String>) -> Result<Self> {
        let path = path.into();
        let file = Identity::of(path)?;
        let shard = shard.unwrap_or_else(|| stem(&file.path));
        Ok(FileSource {
            file: Arc::new(file),
            shard,
            position: Sequence(0),
            reader: None,
            holes: Vec::new(),
            last: None,
        })
    }

    /// The reader right after `position`, if it is still there.
    fn take_reader(&mut self) -> Option<Lines> {
        let position = self.position;
        self.reader
            .take()
            .filter(|reader| reader.line() == position.0)
    }
}

#[async_trait]
impl Source for FileSource {
    fn shard(&self) -> &str {
        &self.shard
    }

    /// Counts the lines the first time, which reads the whole file.
    async fn bounds(&mut self) -> Result<Bounds> {
        let last = match self.last {
            Some(last) => last,
            None => {
                let file = Arc::clone(&self.file);
                blocking(move || file.count()).await?
            }
        };
        self.last = Some(last);
        Ok(Bounds {
            first: Sequence(1),
            last,
            asked_us: None,
        })
    }

    /// Reads up to that line. `None` for a blank line and past the end.
    async fn anchor(&mut self, sequence: Sequence) -> Result<Option<Anchor>> {
        let Some(before) = sequence.0.checked_sub(1) else {
            return Ok(None);
        };
        let file = Arc::clone(&self.file);
        blocking(move || {
            let mut lines = file.open_after(Sequence(before))?;
            let found = read_some(&file, &mut lines, 1)?;
            let message = found.messages.first().filter(|m| m.sequence == sequence);
            Ok(message.map(Anchor::of))
        })
        .await
    }

    async fn seek(&mut self, position: Sequence, _: Option<(Sequence, Anchor)>) -> Result<()> {
        self.position = position;
        self.holes.clear();
        Ok(())
    }

    /// Never waits: past the last line there is nothing, at once.
    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Message>> {
        // The reader leaves `self` while it works. If this read is dropped, the next one opens the
        // file again right after `position`, which moves only at the end.
        let (reader, position, file) = (self.take_reader(), self.position, Arc::clone(&self.file));
        let (reader, found) = blocking(move || {
            let mut reader = match reader {
                Some(reader) => reader,
                None => file.open_after(position)?,
            };
            let found = read_some(&file, &mut reader, limit.bytes)?;
            Ok((reader, found))
        })
        .await?;
        self.position = self.position.max(Sequence(reader.line()));
        self.reader = Some(reader);
        self.holes.extend(found.holes);
        Ok(found.messages)
    }

    fn holes(&mut self) -> Vec<RangeInclusive<Sequence>> {
        std::mem::take(&mut self.holes)
    }
}

impl Identity {
    fn of(path: PathBuf) -> Result<Self> {
        let problem = |what: &str, cause| file_error(&path, what, cause);
        let about =
            std::fs::metadata(&path).map_err(|e| problem("cannot be opened", Some(e.into())))?;
        if about.is_dir() {
            return Err(problem("is a folder; name one file of events", None));
        }
        let modified_us =
            modified_us(&about).map_err(|e| problem("has no usable modification time", Some(e)))?;
        Ok(Identity {
            bytes: about.len(),
            modified_us,
            path,
        })
    }

    /// Opens the file right after a line, counted from 1.
    fn open_after(&self, position: Sequence) -> Result<Lines> {
        let now = Identity::of(self.path.clone())?;
        if (now.bytes, now.modified_us) != (self.bytes, self.modified_us) {
            return Err(file_error(
                &self.path,
                "changed while it was being read",
                None,
            ));
        }
        let mut lines = Lines::open(&self.path).map_err(|e| self.unreadable(0, e))?;
        let mut skipped = Vec::new();
        while lines.line() < position.0 {
            skipped.clear();
            let more = lines.next_into(&mut skipped);
            if !more.map_err(|e| self.unreadable(lines.line(), e))? {
                break;
            }
        }
        Ok(lines)
    }

    fn count(&self) -> Result<Sequence> {
        let end = self.open_after(Sequence(u64::MAX))?;
        Ok(Sequence(end.line()))
    }

    /// An error behind `line`, the last that was read whole.
    fn unreadable(&self, line: u64, error: io::Error) -> Error {
        let at = line.saturating_add(1);
        let problem = match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("line {at}: the gzip data ends too early"),
            io::ErrorKind::FileTooLarge => {
                format!("line {at} is longer than {LINE_BYTES_MAX} bytes")
            }
            _ => format!("line {at} cannot be read"),
        };
        file_error(&self.path, &problem, Some(error.into()))
    }
}

/// Reads lines until `bytes` of payload are there. All payloads share one buffer.
fn read_some(file: &Identity, lines: &mut Lines, bytes: usize) -> Result<Found> {
    let mut found = Found::default();
    let mut buffer = Vec::new();
    let mut ends: Vec<(Sequence, usize, usize)> = Vec::new();
    while buffer.len() < bytes.max(1) {
        let start = buffer.len();
        let before = lines.line();
        if !lines
            .next_into(&mut buffer)
            .map_err(|e| file.unreadable(before, e))?
        {
            break;
        }
        let sequence = Sequence(lines.line());
        if buffer.iter().skip(start).all(u8::is_ascii_whitespace) {
            buffer.truncate(start);
            add_hole(&mut found.holes, sequence);
        } else {
            ends.push((sequence, start, buffer.len()));
        }
    }
    let buffer = bytes::Bytes::from(buffer);
    found.messages = ends
        .into_iter()
        .map(|(sequence, start, end)| Message {
            sequence,
            ingest_time_us: file.modified_us,
            headers: Vec::new(),
            payload: buffer.slice(start..end),
            unread: None,
        })
        .collect();
    Ok(found)
}

/// Adds one blank line to the holes, joining it to the one right before it.
fn add_hole(holes: &mut Vec<RangeInclusive<Sequence>>, line: Sequence) {
    match holes.last_mut() {
        Some(hole) if hole.end().0.checked_add(1) == Some(line.0) => *hole = *hole.start()..=line,
        _ => holes.push(line..=line),
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::File {
        file: "files".into(),
        problem: "the reading task was stopped".into(),
        source: Some(e.into()),
    })?
}

/// `usage.ndjson.gz` → `usage`.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let endings = [".ndjson", ".jsonl", ".json"];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending));
    stem.unwrap_or(name).to_owned()
}

fn modified_us(about: &std::fs::Metadata) -> Result<i64, Cause> {
    let modified = about.modified()?;
    Ok(match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros())?,
        Err(before) => -i64::try_from(before.duration().as_micros())?,
    })
}

fn file_error(path: &Path, problem: &str, source: Option<Cause>) -> Error {
    Error::File {
        file: path.display().to_string(),
        problem: problem.to_owned(),
        source,
    }
}
