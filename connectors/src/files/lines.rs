//! The lines of a file, plain or gzipped, in bounded memory.

use super::{BYTE_ORDER_MARK, LINE_BYTES_MAX};
use flate2::bufread::MultiGzDecoder;
use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

const BUFFER_BYTES: usize = 256 * 1024;
/// Room for a line of full length and its `\r\n`; what does not fit is a longer line.
const LINE_LIMIT: u64 = LINE_BYTES_MAX as u64 + 2;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads one line after another and counts them.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    line: u64,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl Lines {
    /// Opens a file at its start; gzip is recognised by its first bytes.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        let gzipped = file.fill_buf()?.starts_with(&GZIP_MAGIC);
        if !gzipped && path.extension().is_some_and(|ending| ending == "gz") {
            // An empty `.gz` would otherwise pass for a file without events.
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is named .gz and is not gzip",
            ));
        }
        let reader: Box<dyn BufRead + Send> = if gzipped {
            let gunzip = MultiGzDecoder::new(file);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, gunzip))
        } else {
            Box::new(file)
        };
        Ok(Lines { reader, line: 0 })
    }

    /// The number of the last line read; 0 before the first.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Appends the next line to `buffer`, without its line break; `false` at the end of the file.
    ///
    /// A line longer than [`LINE_BYTES_MAX`] is [`io::ErrorKind::FileTooLarge`].
    pub(super) fn next_into(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let start = buffer.len();
        let read = (&mut self.reader)
            .take(LINE_LIMIT)
            .read_until(b'\n', buffer)?;
        if read == 0 {
            return Ok(false);
        }
        trim_line_break(buffer, start);
        if self.line == 0 && buffer[start..].starts_with(BYTE_ORDER_MARK) {
            buffer.drain(start..start + BYTE_ORDER_MARK.len());
        }
        if buffer.len() - start > LINE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.line += 1;
        Ok(true)
    }
}

fn trim_line_break(buffer: &mut Vec<u8>, start: usize) {
    for end in [b'\n', b'\r'] {
        if buffer.len() > start && buffer.last() == Some(&end) {
            buffer.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_start_of_a_file_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        std::fs::write(&path, "\u{feff}{\"a\":1}\r\n\u{feff}{}\n").unwrap();
        let mut lines = Lines::open(&path).unwrap();
        let mut line = b"before".to_vec();
        assert!(lines.next_into(&mut line).unwrap());
        assert_eq!(line, b"before{\"a\":1}");
        line.clear();
        assert!(lines.next_into(&mut line).unwrap());
        assert_eq!(line, "\u{feff}{}".as_bytes());
    }
}
