//! Verdicts against a plain map, with limits so small that keys go through every stage.

use super::{load::Load, *};
use proptest::prelude::*;
use std::collections::HashMap;

const DAY_US: i64 = 86_400_000_000;

/// Memory is quicker to sync than a disk.
pub(crate) fn directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

/// An index that writes a run of every few keys.
fn tiny(horizon_us: i64, filter_bytes: usize) -> Dedupe {
    let limits = Limits {
        recent_keys: 4,
        merged_runs: 3,
        filter_bytes,
    };
    Dedupe::with_limits(horizon_us, limits, directory(), None)
}

/// One that never leaves memory.
fn roomy(horizon_us: i64) -> Dedupe {
    Dedupe::new(Options {
        horizon_us,
        memory_bytes: 1 << 20,
        directory: directory(),
    })
}

impl Dedupe {
    /// Judges where the watermark goes with the ingest time.
    fn judge_at(&mut self, key: u128, content: i64, at_us: i64) -> Result<Verdict> {
        self.judge(key, content, at_us, EventTime(at_us))
    }

    /// Waits until nothing is on its way to disk.
    fn rest(&mut self) {
        self.finish_sealing().unwrap();
        self.finish_merging().unwrap();
    }
}

#[test]
fn first_in_sequence_wins() {
    for mut dedupe in [roomy(100), tiny(100, 0)] {
        assert_eq!(dedupe.judge_at(1, 7, 0).unwrap(), Verdict::New);
        assert_eq!(dedupe.judge_at(1, 7, 1).unwrap(), Verdict::Repeat);
        assert_eq!(dedupe.judge_at(1, 8, 2).unwrap(), Verdict::Conflict);
        assert_eq!(dedupe.judge_at(1, 7, 3).unwrap(), Verdict::Repeat);
    }
}

#[test]
fn a_server_whose_clock_jumps_ahead_and_back_makes_nothing_forgotten() {
    let mut dedupe = roomy(35 * DAY_US);
    let second = |n: i64| n * 1_000_000;
    // Events say their own time, so the watermark goes by seconds, whatever the server stores.
    assert_eq!(
        dedupe.judge(1, 7, second(1), EventTime(second(0))).unwrap(),
        Verdict::New
    );
    let ahead = second(2) + 40 * DAY_US;
    assert_eq!(
        dedupe.judge(2, 7, ahead, EventTime(second(1))).unwrap(),
        Verdict::New
    );
    dedupe.settle(EventTime(second(2)), None).unwrap();
    assert_eq!(
        dedupe.judge(1, 7, ahead, EventTime(second(2))).unwrap(),
        Verdict::Repeat
    );
    assert_eq!(
        dedupe.judge(1, 7, second(3), EventTime(second(2))).unwrap(),
        Verdict::Repeat
    );
    assert_eq!(
        dedupe.judge(2, 7, second(3), EventTime(second(2))).unwrap(),
        Verdict::Repeat
    );
}

#[test]
fn keys_that_share_half_of_their_bits_are_two_keys() {
    let mut dedupe = tiny(1_000, usize::MAX);
    let keys: Vec<u128> = (0..64)
        .flat_map(|high| [high << 64 | 1, 1 << 64 | high << 3])
        .collect();
    let distinct: std::collections::BTreeSet<u128> = keys.iter().copied().collect();
    let mut new = 0;
    for key in &keys {
        new += usize::from(dedupe.judge_at(*key, 7, 0).unwrap() == Verdict::New);
        dedupe.settle(EventTime(0), None).unwrap();
    }
    assert_eq!(new, distinct.len());
    dedupe.rest();
    assert!(
        keys.iter()
            .all(|key| dedupe.judge_at(*key, 7, 1).unwrap() == Verdict::Repeat)
    );
}

#[test]
fn the_horizon_is_inclusive_and_starts_at_the_counted_event() {
    let mut dedupe = roomy(100);
    dedupe.judge_at(1, 7, 0).unwrap();
    assert_eq!(dedupe.judge_at(1, 7, 60).unwrap(), Verdict::Repeat);
    assert_eq!(dedupe.judge_at(1, 7, 100).unwrap(), Verdict::Repeat);
    assert_eq!(dedupe.judge_at(1, 7, 101).unwrap(), Verdict::New);
    assert_eq!(dedupe.judge_at(1, 7, 201).unwrap(), Verdict::Repeat);
}

#[test]
fn expired_keys_are_dropped_and_no_verdict_changes() {
    let mut dedupe = roomy(2 * DAY_US);
    dedupe.judge_at(1, 7, 0).unwrap();
    dedupe.judge_at(2, 7, DAY_US).unwrap();
    dedupe.settle(EventTime(2 * DAY_US), None).unwrap();
    assert_eq!(dedupe.judge_at(1, 7, 2 * DAY_US).unwrap(), Verdict::Repeat);
    dedupe.settle(EventTime(3 * DAY_US), None).unwrap();
    assert_eq!(dedupe.len(), 1);
    assert_eq!(dedupe.judge_at(2, 7, 3 * DAY_US).unwrap(), Verdict::Repeat);
    assert_eq!(dedupe.judge_at(1, 7, 3 * DAY_US).unwrap(), Verdict::New);
}

#[test]
fn runs_are_merged_and_expired_runs_are_dropped() {
    let mut dedupe = tiny(10 * DAY_US, usize::MAX);
    for key in 0..400 {
        dedupe.judge_at(key, 7, 0).unwrap();
        dedupe.settle(EventTime(0), None).unwrap();
    }
    dedupe.rest();
    assert_eq!(dedupe.len(), 400);
    assert!(dedupe.runs.iter().any(|run| run.len() > 8));
    dedupe.settle(EventTime(11 * DAY_US), None).unwrap();
    dedupe.rest();
    assert!(dedupe.is_empty());
}

#[test]
fn a_run_that_loses_its_filter_while_it_is_merged_is_replaced_all_the_same() {
    // Three runs of four keys have their filters, 32 bytes and a page each; a fourth is too much.
    let mut dedupe = tiny(1_000, 3 * 48);
    for key in 0..16 {
        dedupe.judge_at(key, 7, 0).unwrap();
        if key % 4 == 3 {
            dedupe.seal(None, false);
            dedupe.finish_sealing().unwrap();
        }
        if key == 11 {
            dedupe.merge(EventTime(0));
            assert!(dedupe.merging.is_some());
        }
    }
    dedupe.finish_merging().unwrap();
    assert_eq!((dedupe.len(), dedupe.runs.len()), (16, 2));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let limits = Limits {
        recent_keys: 1,
        merged_runs: 2,
        filter_bytes: 0,
    };
    let mut dedupe = Dedupe::with_limits(100, limits, file.path().join("keys"), None);
    dedupe.judge_at(1, 7, 0).unwrap();
    let error = dedupe.settle(EventTime(0), None).unwrap_err().to_string();
    assert!(
        error.contains(&file.path().display().to_string()),
        "{error}"
    );
}

/// Microseconds between two events: none, a few, or days.
fn gaps() -> impl Strategy<Value = i64> {
    prop_oneof![
        Just(0),
        1_i64..1_000,
        (0_i64..3).prop_map(|days| days * DAY_US)
    ]
}

#[test]
fn of_a_key_that_was_counted_twice_the_younger_is_known_in_whatever_order_they_are_loaded() {
    let (older, younger) = ((1, 7, 0), (1, 8, 200));
    for order in [[older, younger], [younger, older]] {
        for mut dedupe in [roomy(100), tiny(100, 0)] {
            let mut load = Load::new(&mut dedupe);
            // Three other keys between them, so that a small index has them in two runs.
            let others = (2..5).map(|key| (key, 7, 190));
            for (key, content, ingest_us) in [order[0]].into_iter().chain(others).chain([order[1]])
            {
                load.push(key, content, ingest_us);
                load.settle(EventTime(200)).unwrap();
            }
            load.finish().unwrap();
            assert_eq!(dedupe.judge_at(1, 8, 250).unwrap(), Verdict::Repeat);
            assert_eq!(dedupe.judge_at(1, 7, 250).unwrap(), Verdict::Conflict);
            assert_eq!(dedupe.judge_at(4, 7, 250).unwrap(), Verdict::Repeat);
        }
    }
}

/// An index that is given all that was counted, in an order that is not the one of counting.
fn loaded(log: &[(u128, i64, i64)], mut dedupe: Dedupe, watermark: EventTime) -> Dedupe {
    let mut load = Load::new(&mut dedupe);
    let (odd, even): (Vec<_>, Vec<_>) = log.iter().enumerate().partition(|(at, _)| at % 2 == 1);
    for (at, (key, content, ingest_us)) in odd.into_iter().rev().chain(even) {
        load.push(*key, *content, *ingest_us);
        if at % 3 == 0 {
            load.settle(watermark).unwrap();
        }
    }
    load.finish().unwrap();
    dedupe
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Any keys, contents and gaps, any filters, any moments at which the disk is slow or fast, and starts at which all that
    /// was counted is loaded in another order.
    #[test]
    fn every_verdict_is_the_plain_map_s(
        events in prop::collection::vec((0_u128..40, 0_i64..3, gaps(), any::<bool>(), any::<bool>(), 0_usize..50), 1..400),
        filter_bytes in prop_oneof![Just(0), Just(200), Just(usize::MAX)],
    ) {
        const HORIZON_US: i64 = 3 * DAY_US;
        let mut dedupe = tiny(HORIZON_US, filter_bytes);
        let mut counted: HashMap<u128, (i64, i64)> = HashMap::new();
        let mut log: Vec<(u128, i64, i64)> = Vec::new();
        let mut now_us = 0;
        for (key, content, gap_us, is_batch_end, is_slow, start) in events {
            if start == 0 {
                dedupe = loaded(&log, tiny(HORIZON_US, filter_bytes), EventTime(now_us));
            }
            now_us += gap_us;
            let expected = match counted.get(&key) {
                Some((at_us, _)) if now_us - at_us > HORIZON_US => Verdict::New,
                Some((_, first)) if *first == content => Verdict::Repeat,
                Some(_) => Verdict::Conflict,
                None => Verdict::New,
            };
            if expected == Verdict::New {
                counted.insert(key, (now_us, content));
                log.push((key << 70 | key, content, now_us));
            }
            prop_assert_eq!(dedupe.judge_at(key << 70 | key, content, now_us).unwrap(), expected);
            if is_batch_end {
                dedupe.settle(EventTime(now_us), None).unwrap();
            }
            if !is_slow {
                dedupe.rest();
            }
        }
    }
}

#[test]
fn a_merge_that_cannot_be_written_changes_no_verdict() {
    let mut dedupe = tiny(1_000, usize::MAX);
    dedupe.merges = false;
    for key in 0..64 {
        assert_eq!(dedupe.judge_at(key, 7, 0).unwrap(), Verdict::New);
        dedupe.settle(EventTime(0), None).unwrap();
        dedupe.rest();
    }
    let runs = dedupe.runs.len();
    assert!(runs >= 3, "{runs} runs");
    dedupe.merges = true;
    dedupe.directory = directory().join("there is no such folder");
    dedupe.merge(EventTime(0));
    assert!(dedupe.merging.is_some());
    dedupe.finish_merging().unwrap();
    assert_eq!(dedupe.runs.len(), runs);
    for key in 0..64 {
        assert_eq!(dedupe.judge_at(key, 7, 1).unwrap(), Verdict::Repeat);
        assert_eq!(dedupe.judge_at(key, 8, 1).unwrap(), Verdict::Conflict);
    }
    // It is not tried again at each batch.
    dedupe.merge(EventTime(0));
    assert!(dedupe.merging.is_none());
}

#[test]
fn an_earlier_copy_may_be_forgotten_only_where_there_was_an_event_before_the_horizon() {
    // A replay of old events, stored at 1,000: the watermark goes with their times.
    let mut dedupe = roomy(100);
    assert!(!dedupe.may_have_forgotten(0, EventTime(500)));
    dedupe.judge(1, 7, 1_000, EventTime(500)).unwrap();
    assert!(!dedupe.may_have_forgotten(0, EventTime(500)));
    assert!(!dedupe.may_have_forgotten(999, EventTime(1_100)));
    // From then on the first event is forgotten, and what happened before the horizon may be known to nothing.
    assert!(dedupe.may_have_forgotten(1_000, EventTime(1_101)));
    assert!(!dedupe.may_have_forgotten(1_001, EventTime(1_101)));
    // A shard that goes on with what a lake has.
    let mut dedupe = roomy(100);
    dedupe.begins_at(400);
    assert!(dedupe.may_have_forgotten(399, EventTime(500)));
    assert!(!dedupe.may_have_forgotten(400, EventTime(500)));
}
