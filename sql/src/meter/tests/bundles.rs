//! Meters that are measured together have the states that each has alone.

use super::*;
use crate::meter::{Part, bundle::Alike};
use proptest::prelude::*;

/// Meters of one grouping: with filters and without, with arguments that fail on a model that is no number, keys in
/// another order and under other names.
const GROUPED_ALIKE: [&str; 9] = [
    "SELECT subject, output, SUM(input) AS x, COUNT(*) AS calls FROM llm GROUP BY subject, output",
    "SELECT subject, output AS o, COUNT(*) AS calls FROM llm WHERE input > 1 GROUP BY subject, output",
    "SELECT subject, output, SUM(input) AS x, SUM(input) AS y FROM llm WHERE input > 1 GROUP BY output, subject",
    "SELECT subject, output, MAX(input) AS top, MIN(model) AS least FROM llm WHERE model IS NOT NULL GROUP BY subject, output",
    "SELECT subject, output, SUM(CAST(model AS BIGINT)) AS x FROM llm WHERE model <> 'x' GROUP BY subject, output",
    "SELECT subject, output, SUM(CAST(model AS BIGINT)) FILTER (WHERE input = 1) AS x FROM llm GROUP BY subject, output",
    "SELECT subject, output, LATEST(model) AS last, COUNT(DISTINCT model) AS models, AVG(input) AS mean FROM llm
     WHERE input < 3 GROUP BY subject, output",
    "SELECT subject, output, MEDIAN(input) AS middle, SUM(input + output) FILTER (WHERE model = '1') AS x FROM llm
     WHERE output = 0 GROUP BY subject, output",
    "SELECT subject, output, SUM(input) AS x FROM llm WHERE CAST(model AS BIGINT) > 1 GROUP BY subject, output",
];

async fn meters() -> Vec<Meter> {
    let mut meters = Vec::new();
    for query in GROUPED_ALIKE {
        meters.push(meter(query).await);
    }
    meters
}

fn bundles(meters: &[Meter], alike: Alike) -> Vec<Bundle> {
    let meters: Vec<(usize, &Meter)> = meters.iter().enumerate().collect();
    Bundle::of(&meters, alike).unwrap()
}

#[tokio::test]
async fn meters_are_bundled_by_type_window_and_keys_whatever_their_filters() {
    let mut meters = meters().await;
    assert_eq!(
        bundles(&meters, Alike::ByGroups)[0].meters(),
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
    );
    let same_filter = bundles(&meters, Alike::ByGroupsAndFilter);
    let same_filter: Vec<&[usize]> = same_filter.iter().map(Bundle::meters).collect();
    assert_eq!(same_filter, [[0, 5], [1, 2]]);

    let others = [
        "SELECT subject, SUM(input) AS x FROM llm GROUP BY subject",
        "SELECT subject, model AS output, SUM(input) AS x FROM llm GROUP BY subject, model",
        "SELECT subject, output, model, SUM(input) AS x FROM llm GROUP BY subject, output, model",
    ];
    for query in others {
        meters.push(meter(query).await);
    }
    let mut daily = definition(GROUPED_ALIKE[0]);
    daily.window_us = 24 * HOUR;
    meters.push(Meter::plan(&daily, &event_type()).await.unwrap());
    let all = bundles(&meters, Alike::ByGroups);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].meters(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let models = prop::sample::select(vec![None, Some("1"), Some("2"), Some("x")]);
    let one = (0_i64..2 * HOUR, 0_usize..3, models, 0_i64..4, 0_i64..2);
    let one = one.prop_map(|(time, subject, model, input, output)| {
        let mut event = event(time, ["a", "b", "c"][subject], model, input);
        event.4 = Some(output);
        event
    });
    prop::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn together_or_alone_is_the_same(events in events(), size in 1_usize..20) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let meters = meters().await;
            for alike in [Alike::ByGroups, Alike::ByGroupsAndFilter] {
                for bundle in bundles(&meters, alike) {
                    let mut together = Vec::new();
                    let mut apart = vec![Vec::new(); meters.len()];
                    for part in events.chunks(size) {
                        match bundle.partial(&batch(part)).await.unwrap() {
                            Some(states) => together.push(states),
                            None => for place in bundle.meters() {
                                apart[*place].push(meters[*place].partial(batch(part)).await.unwrap());
                            },
                        }
                    }
                    let merged: Vec<RecordBatch> = match together.is_empty() {
                        true => Vec::new(),
                        false => vec![bundle.reduce(&together).await.unwrap()],
                    };
                    let in_order: Vec<RecordBatch> = match together.is_empty() {
                        true => Vec::new(),
                        false => vec![bundle.reduce_sorted(&together).await.unwrap()],
                    };
                    for (member, place) in bundle.meters().iter().enumerate() {
                        let whole = meters[*place].partial(batch(&events)).await.unwrap();
                        let expected = meters[*place].finish(&[whole]).await.unwrap();
                        for together in [&together, &merged, &in_order] {
                            let mut states = apart[*place].clone();
                            for (from, until) in [(i64::MIN, HOUR), (HOUR, i64::MAX)] {
                                for shared in together {
                                    states.push(bundle.states_of(member, shared, &(from..until)).unwrap());
                                }
                            }
                            let found = meters[*place].finish(&states).await.unwrap();
                            prop_assert_eq!(&found, &expected, "{}", GROUPED_ALIKE[*place]);
                            let mut starts: Vec<i64> = Vec::new();
                            for shared in together {
                                starts.extend(bundle.starts_of(member, shared));
                            }
                            let alone = apart[*place].iter().all(|states| states.num_rows() == 0);
                            starts.sort_unstable();
                            starts.dedup();
                            let mut windows: Vec<i64> = expected["window_start"]
                                .as_primitive::<TimestampMicrosecondType>().values().to_vec();
                            windows.dedup();
                            prop_assert!(!alone || starts == windows);
                        }
                    }
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn parts_of_the_groups_are_together_the_whole(events in events(), splits in 1_usize..4) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for meter in meters().await {
                let whole = meter.partial(batch(&events)).await.unwrap();
                let expected = meter.finish(std::slice::from_ref(&whole)).await.unwrap();
                let mut parts = vec![Part::WHOLE];
                for _ in 0..splits {
                    parts = parts.into_iter().flat_map(|part| <[Part; 2]>::from(part.halves())).collect();
                }
                let in_error = meter.subjects_in_error(&whole).unwrap();
                let mut panes = Vec::new();
                for part in parts {
                    let states = meter.reduce(&[meter.part_of(&whole, part).unwrap()]).await.unwrap();
                    let states = meter.without_taken_along(&states, &in_error).unwrap();
                    panes.push(meter.finish(&[states]).await.unwrap());
                }
                let panes = concat_batches(meter.pane_schema(), &panes).unwrap();
                // By window, start and end, then keys.
                let panes = sorted(&panes, 2 + meter.layout.key_count).unwrap();
                prop_assert_eq!(shown(&panes), shown(&expected));
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn what_a_filter_leaves_out_fails_for_none() {
    let meters = [
        meter("SELECT subject, SUM(CAST(model AS BIGINT)) AS x FROM llm WHERE input > 0 GROUP BY subject").await,
        meter("SELECT subject, COUNT(*) AS x FROM llm GROUP BY subject").await,
    ];
    let bundle = &bundles(&meters, Alike::ByGroups)[0];
    let shielded = batch(&[event(0, "a", Some("7"), 1), event(1, "b", Some("seven"), 0)]);
    let states = bundle
        .partial(&shielded)
        .await
        .unwrap()
        .expect("nothing fails");
    let own = |member| {
        bundle
            .states_of(member, &states, &(i64::MIN..i64::MAX))
            .unwrap()
    };
    assert_eq!((own(0).num_rows(), own(1).num_rows()), (1, 2));
    let failing = batch(&[event(1, "b", Some("seven"), 1)]);
    assert!(bundle.partial(&failing).await.unwrap().is_none());
}

#[tokio::test]
async fn meters_of_few_groups_each_are_told() {
    let meters = [
        meter("SELECT subject, SUM(input) AS x FROM llm WHERE model = '0' GROUP BY subject").await,
        meter("SELECT subject, SUM(input) AS x FROM llm WHERE model = '1' GROUP BY subject").await,
    ];
    let bundle = &bundles(&meters, Alike::ByGroups)[0];
    let events = |models: i64| -> Vec<Event> {
        let event = |n: i64| event(n, &format!("s{n}"), Some(&(n % models).to_string()), 1);
        (0..100).map(event).collect()
    };
    for (models, is_sparse) in [(2, false), (4, false), (5, true), (50, true)] {
        let states = bundle
            .partial(&batch(&events(models)))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(bundle.is_sparse(&states), is_sparse, "{models}");
    }
}
