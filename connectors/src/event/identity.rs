//! The two hashes of an event: who it is, and what it says. Both are stored, so neither may ever
//! change: a new rule for what an event says is a new [`CONTENT_VERSION`].

use super::CONTENT_VERSION;
use super::envelope::{Content, Envelope};
use super::judge::Time;
use super::value_hash::ValueHasher;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

/// Room to put the hashed bytes together, used again for each event.
#[derive(Debug, Default)]
pub(super) struct Identity {
    bytes: Vec<u8>,
    values: ValueHasher,
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

    /// Tells a repeat from a conflict: XXH3-64, with [`CONTENT_VERSION`] as its seed, of type, subject, time and what
    /// `data` says as JSON, so that an event that a retry serialised anew has the same.
    ///
    /// An event sent without a time has none here, so that the same event stored again is a repeat.
    pub(super) fn content(&mut self, envelope: &Envelope<'_>, time: &Time) -> i64 {
        self.put_attributes(envelope, time);
        match envelope.content() {
            Content::Nothing => self.put(b""),
            Content::Json(text) => {
                let hash = self.values.hash(text);
                self.put(&hash.to_le_bytes());
            }
            Content::Opaque(bytes) => {
                let hash = xxh3_64(bytes);
                // Nine bytes, so never the same as those of a JSON value.
                self.put(&[b"b".as_slice(), &hash.to_le_bytes()].concat());
            }
        }
        xxh3_64_with_seed(&self.bytes, CONTENT_VERSION.into()).cast_signed()
    }

    /// The hash of the first version, which ids in older lakes have: XXH3-64 of type, subject, time and the bytes of
    /// `data`.
    pub(super) fn first_content(&mut self, envelope: &Envelope<'_>, time: &Time) -> i64 {
        self.put_attributes(envelope, time);
        self.put(match envelope.content() {
            Content::Nothing => b"",
            Content::Json(text) => text.as_bytes(),
            Content::Opaque(bytes) => bytes,
        });
        xxh3_64(&self.bytes).cast_signed()
    }

    fn put_attributes(&mut self, envelope: &Envelope<'_>, time: &Time) {
        self.bytes.clear();
        self.put(envelope.kind.text().unwrap_or_default().as_bytes());
        self.put(envelope.subject.text().unwrap_or_default().as_bytes());
        match time {
            Time::Sent(micros) => self.put(&micros.to_le_bytes()),
            Time::Ingest(_) | Time::Unknown => self.put(b""),
            // Not eight bytes long, so never the same as a time that was read.
            Time::Unreadable(_) => self.put(b"unreadable"),
        }
    }

    /// Appends a text with its length before it, so that no two lists of texts become the same bytes.
    fn put(&mut self, text: &[u8]) {
        self.bytes
            .extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Prints what each rule takes an event; run it by hand with `--ignored`.
    #[test]
    #[ignore = "a measurement, not a check"]
    fn cost_of_both_rules() {
        let envelope = Envelope {
            data: Some(
                r#"{"model":"model-7","region":"us-west-2","input_tokens":4950,"output_tokens":1375}"#,
            ),
            ..Envelope::default()
        };
        let mut identity = Identity::default();
        let mut cost = |hash: fn(&mut Identity, &Envelope<'_>, &Time) -> i64| {
            let rounds = (0..50).map(|_| {
                let started = Instant::now();
                for _ in 0..10_000 {
                    std::hint::black_box(hash(&mut identity, &envelope, &Time::Sent(5)));
                }
                started.elapsed().as_nanos() / 10_000
            });
            rounds.min().unwrap_or_default()
        };
        let (bytes, values) = (cost(Identity::first_content), cost(Identity::content));
        println!("bytes {bytes} ns, values {values} ns an event");
    }
}
