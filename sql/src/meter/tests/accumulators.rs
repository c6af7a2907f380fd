//! DataFusion has two accumulators of an aggregate, for one group and for many: they agree.

use super::{
    exact::{Reading, cells, events, readings},
    *,
};
use crate::session;
use datafusion::datasource::MemTable;
use proptest::prelude::*;

const PLACE: &str = "event_time, sequence, ordinal, shard";
const WINDOW: &str = "event_time, 3600000000";

/// Every aggregate, with and without a filter.
fn measures() -> String {
    let calls = [
        "sum(cost)".to_owned(),
        "sum(input)".to_owned(),
        "count(*)".to_owned(),
        "count(input)".to_owned(),
        "min(input)".to_owned(),
        "max(cost)".to_owned(),
        "min(model)".to_owned(),
        "avg(cost)".to_owned(),
        "count_distinct(model)".to_owned(),
        "count_distinct(cost)".to_owned(),
        format!("first(input, {PLACE})"),
        format!("latest(model, {PLACE})"),
        "percentile(cost, 0.95)".to_owned(),
        "percentile(model, 0.5)".to_owned(),
        "percentile_cont(cost, 0.25)".to_owned(),
        "median(input)".to_owned(),
        format!("time_weighted_sum(cost, {WINDOW})"),
        format!("time_weighted_avg(input, {WINDOW})"),
        format!("prorated_sum(input, {WINDOW})"),
        format!("unique_count(model, input > 0, {PLACE})"),
        format!("prorated_unique_count(model, input > 0, {PLACE})"),
    ];
    for name in aggregates::METERED {
        let is_called = calls
            .iter()
            .any(|call| call.starts_with(&format!("{name}(")));
        assert!(is_called, "{name} is not compared");
    }
    let filtered = calls
        .iter()
        .map(|call| format!("{call} FILTER (WHERE sequence <> 1)"));
    let all: Vec<String> = calls.iter().cloned().chain(filtered).collect();
    all.join(", ")
}

/// The rows of a query over the events, which come in two parts.
async fn rows(events: &[Reading], middle: usize, query: &str) -> Vec<Vec<String>> {
    let context = session::context();
    let (one, two) = events.split_at(middle.min(events.len()));
    let parts = vec![vec![readings(one)], vec![readings(two)]];
    let table = MemTable::try_new(parts[0][0].schema(), parts).unwrap();
    context.register_table("llm", Arc::new(table)).unwrap();
    let frame = context.sql(query).await.unwrap();
    let batches = frame.collect().await.unwrap();
    batches.iter().flat_map(cells).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_group_alone_is_what_it_is_among_others(events in events(2), middle in 0_usize..50) {
        let measures = measures();
        let grouped = format!("SELECT output, {measures} FROM llm GROUP BY output ORDER BY output");
        let alone = |output: &str| {
            format!("SELECT {measures} FROM llm WHERE output IS NOT DISTINCT FROM {output}")
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for row in rows(&events, middle, &grouped).await {
                let single = rows(&events, middle, &alone(&row[0])).await;
                prop_assert_eq!(&single, &[row[1..].to_vec()]);
            }
            Ok(())
        })?;
    }
}
