//! Traces of real services give the totals that their folder says, however they are published.

use crate::{
    real_data::{self, AZURE, MOONCAKE, add_up, as_rows},
    world::{Cli, TOKENS, World},
};
use std::path::Path;

const BY_MODEL: &str = "SELECT subject, model, SUM(input), SUM(cached), SUM(output), SUM(calls)
    FROM tokens GROUP BY subject, model ORDER BY subject, model";
const WINDOWS: &str = "SELECT * FROM tokens_windows ORDER BY window_start, subject, model, region";

/// Events, input tokens, output tokens, as README.md beside the files has them.
const AZURE_TOTALS: [&str; 3] = ["28185", "40421844", "4334561"];
const MOONCAKE_TOTALS: [&str; 3] = ["12031", "144793823", "4122048"];
const EVENTS: u64 = 40_216;

#[tokio::test(flavor = "multi_thread")]
async fn real_traces_are_counted_exactly_and_once() {
    let Some(folder) = real_data::folder() else {
        return;
    };
    let world = World::new(TOKENS).await;
    let one = world.cli().stream("one");
    let two = world.cli().stream("two");

    publish(&one, &folder, [(AZURE, 1), (MOONCAKE, 100)]).await;
    let summary = one.run_to_end().await;
    assert_eq!(summary.of("events"), EVENTS, "{summary:?}");
    assert_eq!(summary.of("counted"), EVENTS, "{summary:?}");
    check_totals(&one).await;
    let windows = one.query(WINDOWS).await;

    // Again: ids are remembered, though the first run's memory is gone.
    publish(&one, &folder, [(AZURE, 1), (MOONCAKE, 100)]).await;
    let summary = one.run_to_end().await;
    assert_eq!(summary.of("repeats"), EVENTS, "{summary:?}");
    assert_eq!(summary.of("counted"), 0, "{summary:?}");
    assert_eq!(one.query(WINDOWS).await, windows);
    one.audit().await;

    // The other way round, the trace of 2023 after that of 2026: all of it is late.
    publish(&two, &folder, [(MOONCAKE, 1), (AZURE, 100)]).await;
    let summary = two.run_to_end().await;
    assert_eq!(summary.of("counted"), EVENTS, "{summary:?}");
    assert_eq!(summary.late(), 28_185, "{summary:?}");
    check_totals(&two).await;
    assert_eq!(two.query(WINDOWS).await, windows);
    two.audit().await;
}

async fn publish(cli: &Cli, folder: &Path, files: [(&str, usize); 2]) {
    for (file, batch) in files {
        let events = if file == AZURE { 28_185 } else { 12_031_usize };
        let messages = events.div_ceil(batch);
        let said = cli.publish(&folder.join(file), batch).await;
        let expected =
            format!("{events} events published, {messages} messages acknowledged, 0 sent again\n");
        assert_eq!(said, expected);
    }
}

async fn check_totals(cli: &Cli) {
    let with_subjects = |[calls, input, output]: [&'static str; 3]| [[calls, input, output, "200"]];
    assert_eq!(
        totals(cli, "WHERE model LIKE 'azure-%'").await,
        with_subjects(AZURE_TOTALS)
    );
    assert_eq!(
        totals(cli, "WHERE model = 'kimi-k1'").await,
        with_subjects(MOONCAKE_TOTALS)
    );
    // Read and added up here, for each subject and model.
    assert_eq!(
        cli.query(BY_MODEL).await,
        as_rows(&add_up(&[AZURE, MOONCAKE]))
    );
}

async fn totals(cli: &Cli, condition: &str) -> Vec<Vec<String>> {
    let sql = format!(
        "SELECT SUM(calls), SUM(input), SUM(output), COUNT(DISTINCT subject) FROM tokens {condition}"
    );
    cli.query(&sql).await
}
