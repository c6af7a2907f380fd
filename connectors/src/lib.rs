//! How data gets in and out.
//!
//! ```text
//!  JetStream ─┐                                             ┌─▶ stage (Parquet) ─▶ commit (Delta log)
//!  NDJSON    ─┴▶ Source ─▶ Message ─▶ event::Decoder ─▶ … ──┤
//!                                                           └◀─ provider (DataFusion), marks, log
//! ```
//!
//! [`Source`] and [`Table`] are the two seams. This crate knows nothing of meters or prices: a decoder
//! works from an Arrow schema whose field metadata says where each value is in the payload.

use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt::Debug, ops::RangeInclusive};

pub mod contract;
pub mod error;
pub mod event;
pub mod failpoint;
pub mod fault;
pub mod files;
pub mod lake;
pub mod memory;
pub mod nats;
mod number;
pub mod store;

pub use error::{Error, ErrorKind, Result};
pub use lake::{Attempt, CommitId, LoggedCommit, Snapshot, Staged, StagedFile, Table, Version};

/// JetStream's number for a message, from 1; for a file, the line. 0 means "before the first".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The same as the signed number that Delta and Arrow keep. No stream comes near the 2^63 where the
    /// two differ; what is beyond is the largest there is.
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// One message as the source stored it, payload untouched.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its place in the shard.
    pub sequence: Sequence,
    /// When the source stored it, in microseconds since the Unix epoch, UTC.
    pub ingest_time_us: i64,
    /// Header names and values, by name; several values of one name stay in the order they came.
    /// Names are not folded here.
    pub headers: Vec<(String, String)>,
    /// The payload as it came.
    pub payload: Bytes,
    /// Set when the header block cannot be read; then there are no headers, and no event is looked for in
    /// the payload.
    pub unread: Option<Unread>,
}

/// A header block that is no list of headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The whole block, as the source stored it.
    pub block: Bytes,
    /// What is wrong with it.
    pub problem: String,
}

impl Message {
    /// About what it takes in memory: payload, headers, and what holds them.
    pub fn bytes(&self) -> usize {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>());
        let block = self.unread.as_ref().map_or(0, |unread| unread.block.len());
        size_of::<Message>() + self.payload.len() + headers.sum::<usize>() + block
    }

    /// The message as it is stored, where its headers cannot be read: the header block, then the payload.
    pub fn raw(&self) -> Option<Vec<u8>> {
        let unread = self.unread.as_ref()?;
        Some([&unread.block[..], &self.payload[..]].concat())
    }
}

/// What makes a message recognisable: if sequence S no longer has this anchor, the stream was lost
/// or rolled back and its sequences mean something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// XXH3-64 of the payload, as a signed number so that it fits a Delta `txn`.
    pub hash: i64,
    /// The server's timestamp in microseconds.
    pub ingest_time_us: i64,
}

impl Anchor {
    /// The anchor of a message.
    pub fn of(message: &Message) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(&message.payload);
        Anchor {
            hash: hash.cast_signed(),
            ingest_time_us: message.ingest_time_us,
        }
    }
}

/// What a source holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first sequence still there; `last + 1` when nothing is there.
    pub first: Sequence,
    /// The last sequence ever stored; 0 when none was.
    pub last: Sequence,
    /// A time on the source's own clock, in microseconds since the Unix epoch: all that was stored
    /// before it is within these bounds. `None` when the source has no clock.
    pub asked_us: Option<i64>,
}

/// How much to read at once. Reading returns at the first limit reached, or when nothing more is
/// there right now.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// Bytes of messages ([`Message::bytes`]), checked after each, so one large message always passes.
    pub bytes: usize,
    /// How long to wait for the first message, in milliseconds.
    pub wait_ms: u64,
}

/// One shard, read whole and in order.
///
/// * Messages come in strictly rising sequence without a gap that the source cannot explain; a gap
///   it cannot explain is [`Error::Gap`], and nothing after it is returned.
/// * Reading has no side effect on the source: a second reader from the same sequence gets the same.
/// * [`Source::read`] may be dropped while it waits, and nothing is lost (cancellation safe).
#[async_trait]
pub trait Source: Debug + Send {
    /// The shard's name: the stream's name, or the file's stem.
    fn shard(&self) -> &str;

    /// The sequence of the first message that the source ever had, as far as [`Source::bounds`] has seen: 1, unless its
    /// numbers were made to begin later.
    fn origin(&self) -> Sequence {
        Sequence(1)
    }

    /// The last message that the source is known to hold, without asking it; `None` when that is not known.
    fn known_end(&self) -> Option<Sequence> {
        None
    }

    /// True when messages are stored one after the other, so that one that is read says that all from before its
    /// time are. A file is stored at one time as a whole.
    fn stores_in_order(&self) -> bool {
        false
    }

    /// Checks that the source can be read exactly once (for JetStream: limits retention, file
    /// storage, …) and returns what it holds now.
    ///
    /// # Errors
    /// Names the setting that is wrong and what to do.
    async fn bounds(&mut self) -> Result<Bounds>;

    /// The anchor of one stored message, or `None` if there is no such message.
    async fn anchor(&mut self, sequence: Sequence) -> Result<Option<Anchor>>;

    /// Starts (again) so that the next message read is the first after `position`.
    ///
    /// `read` is the last message that was read before, if any: a source whose messages can change under
    /// us compares it before it reads on, for the stream may have been lost since it was last looked at.
    async fn seek(&mut self, position: Sequence, read: Option<(Sequence, Anchor)>) -> Result<()>;

    /// The next messages in order; empty when none came within the wait. A bounded source answers at
    /// once when it is at its end.
    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Message>>;

    /// Sequences that hold no message and never will, with an explanation (deleted one by one; a
    /// blank line), found since the last call, in order. A hole at the very end is reported too, so the
    /// position is the larger of the last message's sequence and the last hole's end.
    fn holes(&mut self) -> Vec<RangeInclusive<Sequence>>;
}
