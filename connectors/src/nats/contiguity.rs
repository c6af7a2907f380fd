//! Whether a message is the next one, and whether a hole has an explanation. Pure.

use crate::Sequence;
use std::ops::RangeInclusive;

/// What one arrival means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next message.
    Next,
    /// The consumer lost nothing, yet the stream's sequence jumps: the stream must explain it.
    Hole,
    /// The consumer gave out messages that never reached us, or began again: ask anew.
    Missed,
}

/// Judges an arrival by both of its sequences: `got` is its place in the stream, `place` its place in
/// what this consumer gave out, counted from 1.
pub(super) fn judge(position: Sequence, got: Sequence, expected_place: u64, place: u64) -> Verdict {
    if place != expected_place || got <= position {
        return Verdict::Missed;
    }
    if got.0 - position.0 == 1 {
        Verdict::Next
    } else {
        Verdict::Hole
    }
}

/// What the stream says about a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Explained {
    /// Every sequence of it was deleted one by one.
    Deleted(RangeInclusive<Sequence>),
    /// At least one of them is unaccounted for; an empty hole has nothing to explain.
    Not,
}

/// Looks for every sequence of `[expected, got)` in the stream's deleted set, which rises and lies
/// above `first`, the first sequence still stored.
///
/// What is below `first` was purged, or ran into a limit: no command deleted exactly that, so nothing
/// there is explained.
pub(super) fn explain(
    deleted: &[u64],
    first: Sequence,
    expected: Sequence,
    got: Sequence,
) -> Explained {
    if expected >= got || expected < first {
        return Explained::Not;
    }
    let from = deleted.partition_point(|&sequence| sequence < expected.0);
    let to = deleted.partition_point(|&sequence| sequence < got.0);
    let found = u64::try_from(to - from).unwrap_or(u64::MAX);
    if found == got.0 - expected.0 {
        Explained::Deleted(expected..=Sequence(got.0 - 1))
    } else {
        Explained::Not
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(position: u64, got: u64, expected_place: u64, place: u64) -> Verdict {
        judge(Sequence(position), Sequence(got), expected_place, place)
    }

    fn explained(deleted: &[u64], first: u64, expected: u64, got: u64) -> Explained {
        explain(deleted, Sequence(first), Sequence(expected), Sequence(got))
    }

    #[test]
    fn the_next_sequence_in_the_next_place_is_next() {
        assert_eq!(judged(0, 1, 1, 1), Verdict::Next);
        assert_eq!(judged(41, 42, 7, 7), Verdict::Next);
    }

    #[test]
    fn a_jump_in_the_stream_alone_is_a_hole() {
        assert_eq!(judged(41, 43, 7, 7), Verdict::Hole);
    }

    #[test]
    fn a_jump_in_what_the_consumer_gave_out_was_missed() {
        assert_eq!(judged(41, 44, 7, 9), Verdict::Missed);
        assert_eq!(judged(41, 42, 7, 8), Verdict::Missed);
    }

    #[test]
    fn a_consumer_that_goes_back_is_not_trusted() {
        assert_eq!(judged(41, 41, 7, 7), Verdict::Missed);
        assert_eq!(judged(41, 3, 7, 3), Verdict::Missed);
    }

    #[test]
    fn a_hole_is_explained_only_when_all_of_it_was_deleted() {
        let all = Explained::Deleted(Sequence(5)..=Sequence(7));
        assert_eq!(explained(&[2, 5, 6, 7, 11], 1, 5, 8), all);
        assert_eq!(explained(&[2, 5, 7, 11], 1, 5, 8), Explained::Not);
        assert_eq!(explained(&[], 1, 5, 8), Explained::Not);
    }

    #[test]
    fn what_lies_below_the_first_stored_message_is_never_explained() {
        assert_eq!(explained(&[], 8, 5, 8), Explained::Not);
        assert_eq!(explained(&[5, 6, 7], 6, 5, 8), Explained::Not);
    }

    #[test]
    fn an_empty_hole_has_nothing_to_explain() {
        assert_eq!(explained(&[5], 1, 5, 5), Explained::Not);
        assert_eq!(explained(&[5], 1, 6, 5), Explained::Not);
    }
}
