//! How one bound on memory is shared out.

/// Recent keys by number, older ones by what their filters take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Recent keys in memory before they become a run.
    pub(super) recent_keys: usize,
    /// Runs of about one size that are merged into one.
    pub(super) merged_runs: usize,
    /// Bytes of all filters and page indexes.
    pub(super) filter_bytes: usize,
}

/// What a slot of the table of recent keys takes at its peak: an entry and its tag in the table that
/// fills up, as much in the table that is being written, and an entry in the sorted copy of that one.
const SLOT_BYTES: usize = 2 * (32 + 1) + 32;
/// A table is at most 7/8 full.
const SLOTS_MIN: usize = 64;
/// 16 runs of 3.7 million keys make one of 59 million, whose filter has 64 MB; a filter has at most
/// 128 MB.
const MERGED_RUNS: usize = 16;
const SLOTS_MAX: usize = 1 << 22;
/// So many sizes of runs that are still merged. 16 tables, half full, make a run of 29 million keys, and a run is less
/// than two tables when it is merged again: a filter is for 117 million keys at most.
pub(super) const SIZE_CLASSES: u32 = 3;

impl Limits {
    /// Half of the memory for recent keys, rounded down to what a table can have.
    pub(super) fn of(memory_bytes: usize) -> Self {
        let slots = (memory_bytes / 2 / SLOT_BYTES).clamp(SLOTS_MIN, SLOTS_MAX);
        let slots = 1 << slots.ilog2();
        Limits {
            recent_keys: slots / 8 * 7,
            merged_runs: MERGED_RUNS,
            filter_bytes: memory_bytes.saturating_sub(slots * SLOT_BYTES),
        }
    }

    /// Which runs a run of so many keys is merged with: those of its size, from 0 for about a table of recent keys
    /// down to the smallest, which a short process leaves. `None` when it is large enough to stay as it is.
    pub(super) fn size_class(&self, len: usize) -> Option<u32> {
        let tables = self.recent_keys / len.max(1);
        let class = || tables.max(1).ilog(self.merged_runs).min(SIZE_CLASSES - 1);
        (len < 2 * self.recent_keys).then(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_stay_within_the_bound() {
        for memory_bytes in [1 << 20, 100 << 20, 1 << 30, 5 << 30] {
            let limits = Limits::of(memory_bytes);
            let recent = limits.recent_keys / 7 * 8 * SLOT_BYTES;
            assert!(recent + limits.filter_bytes <= memory_bytes);
            assert!(limits.filter_bytes >= memory_bytes / 2);
        }
        assert_eq!(Limits::of(1 << 30).recent_keys, 3_670_016);
        assert_eq!(Limits::of(0).recent_keys, 56);
    }

    #[test]
    fn runs_are_merged_with_those_of_their_size_until_they_are_two_tables() {
        let limits = Limits {
            recent_keys: 4_096,
            merged_runs: 16,
            filter_bytes: 0,
        };
        let classes = [
            (0, Some(2)),
            (16, Some(2)),
            (17, Some(1)),
            (256, Some(1)),
            (257, Some(0)),
            (4_096, Some(0)),
            (8_191, Some(0)),
            (8_192, None),
            (usize::MAX, None),
        ];
        for (len, class) in classes {
            assert_eq!(limits.size_class(len), class, "{len}");
        }
    }
}
