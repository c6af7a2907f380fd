use super::{hours::weight, *};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// 2026-10-01 to 2026-11-01, UTC.
const OCTOBER: MonthSettings = MonthSettings {
    seed: 1,
    events: 60_000,
    start_us: 1_790_812_800_000_000,
    end_us: 1_793_491_200_000_000,
    batch: 100,
};

fn month(settings: MonthSettings) -> (Vec<Batch>, Expected) {
    let mut month = Month::new(settings);
    let batches = month.by_ref().collect();
    (batches, month.expected().clone())
}

fn lines(batches: &[Batch]) -> Vec<&str> {
    let text = batches
        .iter()
        .map(|batch| std::str::from_utf8(&batch.payload).unwrap());
    text.flat_map(str::lines).collect()
}

fn micros(event: &Value) -> i64 {
    let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
    time.as_microsecond()
}

/// Decimal text of seconds as whole microseconds.
fn gpu_us(event: &str) -> u64 {
    let (_, number) = event.split_once(r#""gpu_seconds":"#).unwrap();
    let number = number.trim_end_matches('}');
    let (whole, fraction) = number.split_once('.').unwrap();
    assert_eq!(fraction.len(), 6, "{event}");
    whole.parse::<u64>().unwrap() * 1_000_000 + fraction.parse::<u64>().unwrap()
}

/// An independent metering: parses every line, keeps ids, and adds up.
fn metered(batches: &[Batch]) -> Expected {
    let mut found = Expected::nothing(31);
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for line in lines(batches) {
        found.events += 1;
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            found.rejected += 1;
            continue;
        };
        let data = &event["data"];
        let number = |key: &str| data[key].as_u64();
        let is_sound = match event["type"].as_str().unwrap() {
            "image.generation" => {
                found.unmatched += 1;
                continue;
            }
            "llm.completion" => {
                let tokens = ["input_tokens", "cached_tokens", "output_tokens"].map(number);
                tokens
                    .iter()
                    .all(|n| n.is_some_and(|n| i64::try_from(n).is_ok()))
            }
            "gpu.usage" => line.len() - line.rfind('.').unwrap() == "..123456}}".len() - 1,
            _ => true,
        };
        if !is_sound || micros(&event) >= OCTOBER.end_us {
            found.rejected += 1;
            continue;
        }
        match known.get(event["id"].as_str().unwrap()) {
            Some(first) if *first == line => found.repeats += 1,
            Some(_) => found.conflicts += 1,
            None => {
                known.insert(event["id"].as_str().unwrap().to_owned(), line);
                found.counted += 1;
                let customer = CUSTOMERS
                    .iter()
                    .position(|c| event["subject"] == c.name)
                    .unwrap();
                let day = (micros(&event) - OCTOBER.start_us) / (24 * HOUR_US);
                let usage = &mut found.usage[customer][usize::try_from(day).unwrap()];
                match event["type"].as_str().unwrap() {
                    "llm.completion" => {
                        let model = data["model"].as_str().unwrap();
                        let model = MODELS.iter().position(|name| *name == model).unwrap();
                        usage.tokens[model] += Tokens {
                            calls: 1,
                            input: number("input_tokens").unwrap(),
                            cached: number("cached_tokens").unwrap(),
                            output: number("output_tokens").unwrap(),
                        };
                        assert!(number("cached_tokens") <= number("input_tokens"));
                    }
                    "agent.task" => {
                        usage.attempts += 1;
                        usage.resolved += u64::from(data["outcome"] == "resolved");
                    }
                    _ => usage.gpu_us += gpu_us(line),
                }
            }
        }
    }
    found
}

#[test]
fn what_is_expected_is_what_the_lines_say() {
    let (batches, expected) = month(OCTOBER);
    let mut found = metered(&batches);
    found.late = late(&batches);
    assert_eq!(found, expected);
    assert_eq!(expected.events, OCTOBER.events);
    for count in [
        expected.late,
        expected.repeats,
        expected.rejected,
        expected.unmatched,
        expected.conflicts,
    ] {
        assert!(count > 0, "{expected:?}");
    }
}

#[test]
fn stragglers_are_new_events_of_every_customer_and_all_late() {
    let (mut batches, expected) = month(OCTOBER);
    let (late_ones, of_late) = stragglers(&OCTOBER, 5);
    assert_eq!(of_late.counted, 5 * 40);
    let mut days = of_late.usage.iter();
    assert!(days.all(|days| days.iter().sum::<Usage>() != Usage::default()));
    let late_before = late(&batches);
    batches.extend(late_ones);
    assert_eq!(late(&batches), late_before + of_late.late);
    let mut both = expected;
    both.add(&of_late);
    let found = metered(&batches);
    assert_eq!(
        Expected {
            late: both.late,
            ..found
        },
        both
    );
}

/// Counts events whose hour had ended ten minutes before the latest event of the messages before.
fn late(batches: &[Batch]) -> u64 {
    let (mut late, mut watermark_us) = (0, i64::MIN);
    let mut known = BTreeSet::new();
    for batch in batches.iter().filter(|batch| !batch.is_single) {
        let mut reached_us = watermark_us;
        for line in lines(std::slice::from_ref(batch)) {
            let event: Value = serde_json::from_str(line).unwrap();
            if !known.insert(event["id"].as_str().unwrap().to_owned()) {
                continue;
            }
            let us = micros(&event);
            let end_us = (us.div_euclid(HOUR_US) + 1) * HOUR_US;
            late += u64::from(end_us + 600_000_000 <= watermark_us);
            reached_us = reached_us.max(us);
        }
        watermark_us = reached_us;
    }
    late
}

/// With enough events that some miss their window by minutes only.
#[test]
fn the_same_events_are_late_when_every_line_is_a_message() {
    let (batches, expected) = month(MonthSettings {
        events: 250_000,
        ..OCTOBER
    });
    assert_eq!(late(&batches), expected.late);
    let split: Vec<Batch> = batches
        .iter()
        .flat_map(|batch| {
            lines(std::slice::from_ref(batch))
                .into_iter()
                .map(|line| Batch {
                    payload: line.as_bytes().to_vec(),
                    events: 1,
                    is_single: batch.is_single,
                })
        })
        .collect();
    assert_eq!(late(&split), expected.late);
}

#[test]
fn few_events_are_no_reason_to_be_late() {
    for events in [0, 1, 50, 1_000] {
        let (batches, expected) = month(MonthSettings { events, ..OCTOBER });
        assert_eq!(late(&batches), expected.late, "{events}");
        assert_eq!(lines(&batches).len() as u64, events);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    assert_eq!(month(OCTOBER), month(OCTOBER));
    assert_ne!(
        month(OCTOBER).0,
        month(MonthSettings { seed: 2, ..OCTOBER }).0
    );
}

#[test]
fn every_counted_event_is_in_the_month() {
    for batch in month(OCTOBER).0.iter().filter(|batch| !batch.is_single) {
        for line in lines(std::slice::from_ref(batch)) {
            let us = micros(&serde_json::from_str(line).unwrap());
            assert!((OCTOBER.start_us..OCTOBER.end_us).contains(&us), "{line}");
        }
    }
}

#[test]
fn messages_have_at_most_a_hundred_events_and_bad_ones_go_alone() {
    let (batches, expected) = month(MonthSettings {
        events: 200_000,
        ..OCTOBER
    });
    assert!(
        batches
            .iter()
            .all(|batch| (1..=100).contains(&batch.events))
    );
    let singles = batches.iter().filter(|batch| batch.is_single).count() as u64;
    assert_eq!(singles, expected.rejected + expected.unmatched);
    assert!(batches.iter().any(|batch| batch.events == 100));
}

#[test]
fn nights_and_weekends_are_quiet() {
    // 2026-10-05 is a Monday, 2026-10-04 a Sunday.
    let monday_us = OCTOBER.start_us + 4 * 24 * HOUR_US;
    assert_eq!(weight(monday_us + 14 * HOUR_US), 1_000);
    assert_eq!(weight(monday_us + 3 * HOUR_US), 200);
    assert_eq!(weight(monday_us - 10 * HOUR_US), 400);
}
