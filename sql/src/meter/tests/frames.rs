//! Rows that are made of base windows: windows that hop, and sessions.

use super::*;
use datafusion::prelude::col;
use proptest::prelude::*;

const MINUTE: i64 = 60_000_000;
const QUERY: &str = "SELECT subject, model, SUM(input) AS tokens, COUNT(DISTINCT input) AS kinds
                     FROM llm GROUP BY subject, model";

fn framed(query: &str, window_us: i64, frame: Frame) -> MeterDefinition {
    MeterDefinition {
        window_us,
        frame,
        ..definition(query)
    }
}

/// Sessions that a pause of half an hour ends.
fn sessions(query: &str) -> MeterDefinition {
    let gap_us = 30 * MINUTE;
    framed(query, 30 * MINUTE, Frame::Session { gap_us })
}

/// Windows of an hour, one every 15 minutes.
fn hopping(query: &str) -> MeterDefinition {
    framed(query, 15 * MINUTE, Frame::Hopping { size_us: HOUR })
}

async fn plan(definition: &MeterDefinition) -> Meter {
    Meter::plan(definition, &event_type()).await.unwrap()
}

/// Start, end, keys and measures of each row.
async fn rows(meter: &Meter, states: &[RecordBatch]) -> Vec<String> {
    let rows = meter.rows(states).await.unwrap();
    let columns: Vec<usize> = (0..2 + meter.totals_schema().fields().len()).collect();
    shown(&rows.project(&columns).unwrap())
}

#[tokio::test]
async fn events_closer_than_the_gap_are_one_session() {
    let meter = plan(&sessions(QUERY)).await;
    let events = [
        event(10 * MINUTE, "a", Some("m"), 1),
        // Exactly the gap later: the next session.
        event(40 * MINUTE, "a", Some("m"), 2),
        event(70 * MINUTE - 1, "a", Some("m"), 4),
        // Other dimensions, NULL among them, and subjects have sessions of their own.
        event(41 * MINUTE, "a", None, 8),
        event(42 * MINUTE, "b", Some("m"), 16),
    ];
    let states = meter.partial(batch(&events)).await.unwrap();
    assert_eq!(
        rows(&meter, &[states]).await,
        [
            "1970-01-01T00:10:00Z 1970-01-01T00:40:00Z a m 1 1",
            "1970-01-01T00:40:00Z 1970-01-01T01:39:59.999999Z a m 6 2",
            "1970-01-01T00:41:00Z 1970-01-01T01:11:00Z a  8 1",
            "1970-01-01T00:42:00Z 1970-01-01T01:12:00Z b m 16 1",
        ]
    );
    assert_eq!(meter.measures().len(), 2);
    assert_eq!(meter.totals_schema().fields().len(), 4);
}

#[tokio::test]
async fn a_late_event_joins_two_sessions_that_were_written_already() {
    let meter = plan(&sessions(QUERY)).await;
    let mut panes = Vec::new();
    for at in [10 * MINUTE, 60 * MINUTE, 35 * MINUTE] {
        let states = meter.partial(batch(&[event(at, "a", None, at / MINUTE)]));
        let pane = meter.finish(&[states.await.unwrap()]).await.unwrap();
        assert_eq!(pane.schema_ref(), meter.pane_schema());
        panes.push(meter.states_of(&pane).unwrap());
    }
    assert_eq!(rows(&meter, &panes[..2]).await.len(), 2);
    let expected = ["1970-01-01T00:10:00Z 1970-01-01T01:30:00Z a  105 3"];
    assert_eq!(rows(&meter, &panes).await, expected);
    panes.reverse();
    assert_eq!(rows(&meter, &panes).await, expected);
}

#[tokio::test]
async fn a_session_belongs_to_the_time_in_which_it_ends() {
    let meter = plan(&sessions(QUERY)).await;
    // Sessions that end at 1:30, at 2:00, and at 2:00 and a microsecond.
    let events = [
        event(HOUR, "a", None, 1),
        event(HOUR + 30 * MINUTE, "b", None, 2),
        event(HOUR + 30 * MINUTE + 1, "c", None, 4),
    ];
    let states = meter.partial(batch(&events)).await.unwrap();
    let total = async |from_us, until_us| {
        let ending = meter.sessions_ending(vec![states.clone()], (from_us, until_us));
        let totals = meter.totals(&ending.await.unwrap()).await.unwrap();
        shown(&totals)
    };
    assert_eq!(total(HOUR, 2 * HOUR).await, ["a  1 1", "b  2 1"]);
    assert_eq!(total(2 * HOUR, 3 * HOUR).await, ["c  4 1"]);
    assert_eq!(
        total(i64::MIN, i64::MAX).await,
        ["a  1 1", "b  2 1", "c  4 1"]
    );
}

#[tokio::test]
async fn an_instant_lies_in_every_window_that_hops_over_it() {
    let meter = plan(&hopping(
        "SELECT subject, SUM(input) AS tokens FROM llm GROUP BY subject",
    ))
    .await;
    let events = [
        event(HOUR, "a", None, 1),
        event(HOUR + 20 * MINUTE, "a", None, 2),
    ];
    let states = meter.partial(batch(&events)).await.unwrap();
    assert_eq!(
        rows(&meter, std::slice::from_ref(&states)).await,
        [
            "1970-01-01T00:15:00Z 1970-01-01T01:15:00Z a 1",
            "1970-01-01T00:30:00Z 1970-01-01T01:30:00Z a 3",
            "1970-01-01T00:45:00Z 1970-01-01T01:45:00Z a 3",
            "1970-01-01T01:00:00Z 1970-01-01T02:00:00Z a 3",
            "1970-01-01T01:15:00Z 1970-01-01T02:15:00Z a 2",
        ]
    );
    // A total counts every event once all the same.
    assert_eq!(shown(&meter.totals(&[states]).await.unwrap()), ["a 3"]);
}

#[tokio::test]
async fn what_has_no_meaning_in_such_windows_is_refused() {
    let refusal = async |definition: MeterDefinition| {
        let planned = Meter::plan(&definition, &event_type()).await;
        planned.unwrap_err().to_string()
    };
    let timed = "SELECT subject, TIME_WEIGHTED_SUM(input) AS n FROM llm GROUP BY subject";
    let weighs = "meters.sql:10:5: meter `tokens`: usage that weighs by time needs windows of a fixed length \
                  side by side\n  hint: write a window such as '1 hour'";
    assert_eq!(refusal(sessions(timed)).await, weighs);
    assert_eq!(refusal(hopping(timed)).await, weighs);
    let late = LatePolicy::NextPeriod;
    assert_eq!(
        refusal(MeterDefinition {
            late,
            ..sessions(QUERY)
        })
        .await,
        "meters.sql:11:5: meter `tokens`: a session cannot have late = 'next_period', for it belongs to the \
         period in which it ends\n  hint: write late = 'correct' or 'quarantine'"
    );
    assert_eq!(
        refusal(MeterDefinition {
            late,
            ..definition(timed)
        })
        .await,
        "meters.sql:11:5: meter `tokens`: usage that weighs by time cannot have late = 'next_period', for it \
         weighs from when it happened\n  hint: write late = 'correct' or 'quarantine'"
    );
    for definition in [sessions(QUERY), hopping(QUERY)] {
        let version = MeterDefinition {
            effective_from_us: Some(0),
            ..definition
        };
        assert_eq!(
            refusal(version).await,
            "meters.sql:12:5: meter `tokens`: a session, or a window that hops, could be of two versions\n  \
             hint: create a meter under another name"
        );
    }
}

#[tokio::test]
async fn a_frame_changes_the_fingerprint() {
    let mut prints = Vec::new();
    for definition in [
        framed(QUERY, 15 * MINUTE, Frame::Tumbling),
        hopping(QUERY),
        framed(QUERY, 15 * MINUTE, Frame::Hopping { size_us: 2 * HOUR }),
        framed(
            QUERY,
            15 * MINUTE,
            Frame::Session {
                gap_us: 15 * MINUTE,
            },
        ),
        framed(
            QUERY,
            15 * MINUTE,
            Frame::Session {
                gap_us: 16 * MINUTE,
            },
        ),
    ] {
        prints.push(plan(&definition).await.versions()[0].fingerprint);
    }
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), 5);
}

/// The rows that the audit's SQL makes of the events, as [`shown`] shows those of the meter without ends.
async fn recomputed(meter: &Meter, events: &[Event]) -> Vec<String> {
    let context = crate::session::context();
    context.register_batch("llm", batch(events)).unwrap();
    let frame = context.sql(&meter.batch_query().unwrap()).await.unwrap();
    let order = ["window_start", "subject", "model"].map(|key| col(key).sort(true, true));
    let rows = frame.sort(order.to_vec()).unwrap().collect().await.unwrap();
    rows.iter().flat_map(shown).collect()
}

fn without_end(rows: &RecordBatch) -> Vec<String> {
    let columns: Vec<usize> = (0..rows.num_columns())
        .filter(|column| *column != 1)
        .collect();
    let columns = &columns[..1 + 4];
    shown(&rows.project(columns).unwrap())
}

/// Sessions by the definition, one event after the other: start, end, subject, tokens.
fn naive(events: &[Event], gap_us: i64) -> Vec<(i64, i64, String, i64)> {
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| (event.1.clone(), event.0));
    let mut sessions: Vec<(i64, i64, String, i64)> = Vec::new();
    for event in sorted {
        let tokens = event.3.unwrap_or_default();
        match sessions.last_mut() {
            Some(last) if last.2 == event.1 && event.0 < last.1 => {
                last.1 = event.0 + gap_us;
                last.3 += tokens;
            }
            _ => sessions.push((event.0, event.0 + gap_us, event.1.clone(), tokens)),
        }
    }
    sessions.sort_by_key(|session| (session.0, session.2.clone()));
    sessions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sessions_are_the_same_in_any_split_and_order(
        times in prop::collection::vec((0_i64..600, 0_usize..2), 1..60),
        cuts in prop::collection::vec(0_usize..60, 0..6),
        through_panes in any::<bool>(),
    ) {
        let subjects = ["a", "b"];
        let events: Vec<Event> = times
            .iter()
            .map(|(minute, subject)| event(minute * MINUTE, subjects[*subject], Some("m"), minute % 7))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let meter = plan(&sessions(QUERY)).await;
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (events.len() + 1)).collect();
            cuts.extend([0, events.len()]);
            cuts.sort_unstable();
            let mut states = Vec::new();
            for part in cuts.windows(2) {
                let part = meter.partial(batch(&events[part[0]..part[1]])).await.unwrap();
                states.push(match through_panes {
                    true => meter.states_of(&meter.finish(&[part]).await.unwrap()).unwrap(),
                    false => part,
                });
            }
            let found = meter.rows(&states).await.unwrap();
            let starts = found.column(0).as_primitive::<TimestampMicrosecondType>().values();
            let ends = found.column(1).as_primitive::<TimestampMicrosecondType>().values();
            let tokens = found["tokens"].as_primitive::<arrow::datatypes::Decimal128Type>();
            let subjects = found["subject"].as_string::<i32>();
            let found_rows: Vec<(i64, i64, String, i64)> = (0..found.num_rows())
                .map(|row| {
                    let tokens = i64::try_from(tokens.value(row)).unwrap();
                    (starts[row], ends[row], subjects.value(row).to_owned(), tokens)
                })
                .collect();
            assert_eq!(found_rows, naive(&events, 30 * MINUTE));
            assert_eq!(without_end(&found), recomputed(&meter, &events).await);
        });
    }

    #[test]
    fn windows_that_hop_are_those_of_plain_sql(
        times in prop::collection::vec((0_i64..300, 0_usize..2), 1..40),
        cut in 0_usize..40,
    ) {
        let subjects = ["a", "b"];
        let events: Vec<Event> = times
            .iter()
            .map(|(minute, subject)| event(minute * MINUTE, subjects[*subject], Some("m"), minute % 7))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let meter = plan(&hopping(QUERY)).await;
            let cut = cut % (events.len() + 1);
            let mut states = Vec::new();
            for part in [&events[..cut], &events[cut..]] {
                states.push(meter.partial(batch(part)).await.unwrap());
            }
            let found = meter.rows(&states).await.unwrap();
            assert_eq!(without_end(&found), recomputed(&meter, &events).await);
        });
    }
}

#[tokio::test]
async fn an_audit_resolves_keys_that_are_places_or_names() {
    let query = "SELECT subject, COALESCE(model, 'none') AS m, SUM(input) AS tokens
                 FROM llm AS l WHERE l.input > 0 OR l.input < -5 GROUP BY 1, m";
    let events = [
        event(0, "a", None, 1),
        event(0, "a", Some("none"), 2),
        event(HOUR, "a", Some("x"), 0),
        event(HOUR, "a", Some("x"), 4),
    ];
    for definition in [definition(query), sessions(query), hopping(query)] {
        let meter = plan(&definition).await;
        let states = meter.partial(batch(&events)).await.unwrap();
        let found = meter.rows(&[states]).await.unwrap();
        let columns: Vec<usize> = [0, 2, 3, 4].to_vec();
        let context = crate::session::context();
        context.register_batch("llm", batch(&events)).unwrap();
        let frame = context.sql(&meter.batch_query().unwrap()).await.unwrap();
        let frame = frame
            .sort(vec![col("window_start").sort(true, true)])
            .unwrap();
        let rows = frame.collect().await.unwrap();
        let rows: Vec<String> = rows.iter().flat_map(shown).collect();
        assert_eq!(shown(&found.project(&columns).unwrap()), rows);
    }
}
