//! Keys that the lake has, on their way into the index.
//!
//! Nothing is asked about them: they were judged when they were counted. So each becomes an entry of a run, sorted and
//! written by a thread, without a look at the runs before. A key that was counted twice, more than a horizon apart, has
//! two entries then, and the index takes the one that is within the horizon.

use super::{Dedupe, run::Run, run::Seen};
use crate::error::Result;
use std::{io, thread::JoinHandle};
use tollgate_sql::window::EventTime;

/// Keys of counted events, in any order. They are part of the index once [`Load::finish`] was called.
///
/// Until then it takes what the table of recent keys would take at its peak, or less.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    dedupe: &'a mut Dedupe,
    keys: Vec<Seen>,
    writing: Option<JoinHandle<io::Result<Run>>>,
}

impl<'a> Load<'a> {
    /// Nothing yet.
    pub(crate) fn new(dedupe: &'a mut Dedupe) -> Self {
        Load {
            dedupe,
            keys: Vec::new(),
            writing: None,
        }
    }

    /// Takes the key of a counted event with its content hash, and when it was stored.
    pub(crate) fn push(&mut self, key: u128, content: i64, ingest_us: i64) {
        self.keys.push(Seen {
            key,
            content,
            ingest_us,
        });
    }

    /// Keeps memory within its bound: call it after each batch.
    ///
    /// # Errors
    /// [`crate::error::Error::File`] when keys cannot be written, as on a full disk.
    pub(crate) fn settle(&mut self, watermark: EventTime) -> Result<()> {
        let most = self.dedupe.limits.recent_keys;
        if self.keys.len() >= most {
            self.finish_writing()?;
            self.dedupe.make_folder()?;
            let keys = std::mem::replace(&mut self.keys, Vec::with_capacity(most));
            let directory = self.dedupe.directory.clone();
            self.writing = Some(std::thread::spawn(move || Run::of_keys(keys, &directory)));
        }
        self.dedupe.settle(watermark, None)
    }

    /// Makes all of them part of the index.
    ///
    /// # Errors
    /// [`crate::error::Error::File`] when keys that there was no room for in memory could not be written.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.finish_writing()?;
        for seen in std::mem::take(&mut self.keys) {
            self.dedupe.put(seen);
        }
        Ok(())
    }

    fn finish_writing(&mut self) -> Result<()> {
        let Some(writing) = self.writing.take() else {
            return Ok(());
        };
        let run = self.dedupe.join(writing)?;
        self.dedupe.add(run);
        Ok(())
    }
}
