//! Event keys seen within the horizon: which events are new, repeats, or conflicts.
//!
//! A key is the 128-bit hash of (source, event id), never of the time. First in sequence wins. The
//! horizon is measured in ingest time, the stream's own clock, so that the answer depends on the log
//! alone: an id comes back as new exactly when more than the horizon lies between the two messages.
//!
//! A remembered key costs 32 bytes, held in a table that is at most 7/8 full and doubles when it
//! grows: 37 to 74 bytes a key.

use hashbrown::HashTable;

/// What a key means to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen within the horizon: count it.
    New,
    /// The same event again: ignore it.
    Repeat,
    /// The same id with other content: keep it, do not count it.
    Conflict,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    key: u128,
    content: i64,
    ingest_us: i64,
}

/// The keys of a shard within the horizon.
#[derive(Debug)]
pub struct Dedupe {
    seen: HashTable<Seen>,
    horizon_us: i64,
    pruned_at_us: i64,
}

impl Dedupe {
    /// An empty index that remembers keys for `horizon_us` microseconds of ingest time.
    pub fn new(horizon_us: i64) -> Self {
        Dedupe {
            seen: HashTable::new(),
            horizon_us,
            pruned_at_us: i64::MIN,
        }
    }

    /// Judges one event and remembers it when it is new. Call in rising sequence.
    ///
    /// `content` is the event's content hash: it tells a repeat from a conflict.
    pub fn judge(&mut self, key: u128, content: i64, ingest_us: i64) -> Verdict {
        let entry = self
            .seen
            .entry(bucket(key), |seen| seen.key == key, |seen| bucket(seen.key));
        match entry {
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(Seen {
                    key,
                    content,
                    ingest_us,
                });
                Verdict::New
            }
            hashbrown::hash_table::Entry::Occupied(mut occupied) => {
                let seen = occupied.get_mut();
                if ingest_us.saturating_sub(seen.ingest_us) > self.horizon_us {
                    *seen = Seen {
                        key,
                        content,
                        ingest_us,
                    };
                    Verdict::New
                } else if seen.content == content {
                    Verdict::Repeat
                } else {
                    Verdict::Conflict
                }
            }
        }
    }

    /// Forgets a key whose event turned out not to count.
    pub fn forget(&mut self, key: u128) {
        if let Ok(seen) = self.seen.find_entry(bucket(key), |seen| seen.key == key) {
            seen.remove();
        }
    }

    /// Drops keys that no later message can meet within the horizon. Changes no verdict: `judge`
    /// looks at the age itself. Does something at most once per day of ingest time.
    pub fn prune(&mut self, ingest_us: i64) {
        const DAY_US: i64 = 86_400_000_000;
        if ingest_us.saturating_sub(self.pruned_at_us) < DAY_US {
            return;
        }
        self.pruned_at_us = ingest_us;
        let horizon_us = self.horizon_us;
        self.seen
            .retain(|seen| ingest_us.saturating_sub(seen.ingest_us) <= horizon_us);
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True when no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// The low half of a key; it is a hash already, so it is not hashed again.
#[expect(
    clippy::cast_possible_truncation,
    reason = "any 64 bits of a hash are a hash"
)]
fn bucket(key: u128) -> u64 {
    key as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_sequence_wins() {
        let mut dedupe = Dedupe::new(100);
        assert_eq!(dedupe.judge(1, 7, 0), Verdict::New);
        assert_eq!(dedupe.judge(1, 7, 1), Verdict::Repeat);
        assert_eq!(dedupe.judge(1, 8, 2), Verdict::Conflict);
        assert_eq!(dedupe.judge(1, 7, 3), Verdict::Repeat);
    }

    #[test]
    fn a_forgotten_key_is_new_again() {
        let mut dedupe = Dedupe::new(100);
        dedupe.judge(1, 7, 0);
        dedupe.forget(1);
        dedupe.forget(2);
        assert_eq!(dedupe.judge(1, 8, 1), Verdict::New);
    }

    #[test]
    fn keys_that_share_their_low_half_are_two_keys() {
        let mut dedupe = Dedupe::new(100);
        assert_eq!(dedupe.judge(1, 7, 0), Verdict::New);
        assert_eq!(dedupe.judge(1 | (1 << 64), 7, 0), Verdict::New);
    }

    #[test]
    fn the_horizon_is_inclusive_and_starts_at_the_counted_event() {
        let mut dedupe = Dedupe::new(100);
        dedupe.judge(1, 7, 0);
        assert_eq!(dedupe.judge(1, 7, 60), Verdict::Repeat);
        assert_eq!(dedupe.judge(1, 7, 100), Verdict::Repeat);
        assert_eq!(dedupe.judge(1, 7, 101), Verdict::New);
        assert_eq!(dedupe.judge(1, 7, 201), Verdict::Repeat);
    }

    #[test]
    fn pruning_changes_no_verdict() {
        const DAY_US: i64 = 86_400_000_000;
        let mut dedupe = Dedupe::new(2 * DAY_US);
        dedupe.judge(1, 7, 0);
        dedupe.judge(2, 7, DAY_US);
        dedupe.prune(2 * DAY_US);
        assert_eq!(dedupe.judge(1, 7, 2 * DAY_US), Verdict::Repeat);
        dedupe.prune(3 * DAY_US);
        assert_eq!(dedupe.len(), 1);
        assert_eq!(dedupe.judge(2, 7, 3 * DAY_US), Verdict::Repeat);
        assert_eq!(dedupe.judge(1, 7, 3 * DAY_US), Verdict::New);
    }
}
