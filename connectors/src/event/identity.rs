//! The two hashes of an event: who it is, and what it says. Both are stored, so neither may ever
//! change: the same bytes, in the same order, under XXH3 with seed 0.

use super::envelope::Envelope;
use super::judge::Time;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Room to put the hashed bytes together, used again for each event.
#[derive(Debug, Default)]
pub(super) struct Identity {
    bytes: Vec<u8>,
}

impl Identity {
    /// Identifies an event by source and id; 0 when either is not known.
    pub(super) fn key(&mut self, envelope: &Envelope<'_>) -> u128 {
        match (envelope.source.text(), envelope.id.text()) {
            (Some(source), Some(id)) => self.pair(source, id),
            _ => 0,
        }
    }

    /// XXH3-128 of both texts, each after its length in eight bytes, little endian. 0 means none, so
    /// a pair that hashed to it would have the key 1.
    pub(super) fn pair(&mut self, source: &str, id: &str) -> u128 {
        self.bytes.clear();
        self.put(source.as_bytes());
        self.put(id.as_bytes());
        xxh3_128(&self.bytes).max(1)
    }

    /// Tells a repeat from a conflict: XXH3-64 of type, subject, time and the bytes of `data`.
    ///
    /// An event sent without a time has none here, so that the same event stored again is a repeat.
    pub(super) fn content(&mut self, envelope: &Envelope<'_>, time: &Time) -> i64 {
        self.bytes.clear();
        self.put(envelope.kind.text().unwrap_or_default().as_bytes());
        self.put(envelope.subject.text().unwrap_or_default().as_bytes());
        match time {
            Time::Sent(micros) => self.put(&micros.to_le_bytes()),
            Time::Ingest(_) | Time::Unknown => self.put(b""),
            // Not eight bytes long, so never the same as a time that was read.
            Time::Unreadable(_) => self.put(b"unreadable"),
        }
        self.put(envelope.data_bytes());
        xxh3_64(&self.bytes).cast_signed()
    }

    /// Appends a text with its length before it, so that no two lists of texts become the same bytes.
    fn put(&mut self, text: &[u8]) {
        self.bytes
            .extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(text);
    }
}
