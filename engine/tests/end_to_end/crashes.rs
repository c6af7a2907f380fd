//! Kill it, stop it, start it again: the totals are exact.

use crate::world::{Cli, TOKENS, World};
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tollgate::cli::demo::generator::{Load, Workload};

/// A hundred events to a message.
const LOAD: Load = Load {
    seed: 9,
    events: 1_000_000,
    start_us: 1_760_000_000_000_000,
    events_per_second: 500,
};
const MESSAGES: u64 = 10_000;

const RUN: &[&str] = &["run", "--until-end"];

const BY_MODEL: &str = "SELECT subject, model, SUM(calls), SUM(input), SUM(output)
    FROM tokens GROUP BY subject, model ORDER BY subject, model";

#[tokio::test(flavor = "multi_thread")]
async fn a_million_events_are_exact_after_every_kind_of_end() {
    let world = World::new(TOKENS).await;
    publish(&world.cli()).await;
    let expected = expected();
    // Small flushes, so that there are many moments to die in.
    let cli = world.cli().with("TOLLGATE_FLUSH_MAX_BYTES", "16MB");

    // Killed when something was committed, and again when more was.
    let first = cli.lake("first");
    let run = first.start_and_halt(1, RUN).await;
    run.kill().await;
    in_the_middle(&first).await;
    let run = first.start_and_halt(3, RUN).await;
    run.kill().await;
    in_the_middle(&first).await;
    finish(&first, &expected).await;

    // Died when files were uploaded, before they were committed.
    let second = cli.lake("second");
    second.crash("events/uploaded:6", RUN).await;
    in_the_middle(&second).await;
    finish(&second, &expected).await;

    // Died when `events` was committed, before the panes that it closes.
    let third = cli.lake("third");
    third.crash("meters/tokens/uploaded:2", RUN).await;
    in_the_middle(&third).await;
    finish(&third, &expected).await;

    // Stopped in good order: what was read is committed, and the exit code says so.
    let fourth = cli.lake("fourth");
    let run = fourth.start_and_halt(2, &["run"]).await;
    let ran = run.terminate_halted().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.stderr.contains("stop was asked for"), "{ran:#?}");
    let summary = crate::world::Summary(ran.stdout);
    let reached = in_the_middle(&fourth).await;
    assert_eq!(summary.sequence(), reached);
    finish(&fourth, &expected).await;
}

/// Publishes the load through the command's stdin.
async fn publish(cli: &Cli) {
    let mut publish = cli.start(&["publish", "-", "--batch", "100"]);
    let mut stdin = publish.stdin();
    let mut workload = Workload::new(LOAD);
    let mut lines = Vec::new();
    while workload.write(10_000, &mut lines) > 0 {
        lines.push(b'\n');
        stdin.write_all(&lines).await.unwrap();
        lines.clear();
    }
    drop(stdin);
    let ran = publish.ended().await;
    assert_eq!(
        ran.stdout, "1000000 events published, 10000 messages acknowledged, 0 sent again\n",
        "{ran:#?}"
    );
}

/// What the generator knows of every subject and model, as the query prints it.
fn expected() -> Vec<Vec<String>> {
    let by_model = Workload::totals_by_subject_and_model(LOAD);
    assert_eq!(
        by_model.values().map(|t| t.events + t.repeats).sum::<u64>(),
        LOAD.events
    );
    let row =
        |((subject, model), totals): ((String, String), tollgate::cli::demo::generator::Totals)| {
            let numbers = [totals.events, totals.input_tokens, totals.output_tokens];
            [subject, model]
                .into_iter()
                .chain(numbers.map(|n| n.to_string()))
                .collect()
        };
    by_model.into_iter().map(row).collect()
}

/// Something was committed, and not everything; returns the last sequence that was.
async fn in_the_middle(cli: &Cli) -> u64 {
    let rows = cli.query("SELECT MAX(sequence) FROM events").await;
    let sequence = rows[0][0].parse().unwrap_or(0);
    assert!((1..MESSAGES).contains(&sequence), "it ended at {sequence}");
    sequence
}

/// Runs to the end and compares every subject and model, here and as the audit does.
async fn finish(cli: &Cli, expected: &[Vec<String>]) {
    let summary = cli.run_to_end().await;
    assert_eq!(summary.sequence(), MESSAGES);
    assert!(cli.query(BY_MODEL).await == expected, "totals differ");
    cli.audit().await;
}

/// How many files with this extension there are below a folder.
pub(crate) fn files(folder: &Path, extension: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let count = |path: &Path| match path.is_dir() {
        true => files(path, extension),
        false => usize::from(path.extension().is_some_and(|e| e == extension)),
    };
    entries.flatten().map(|entry| count(&entry.path())).sum()
}
