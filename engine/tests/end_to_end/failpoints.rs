//! The process dies at every durable step, once early, once midway and once late; then the same
//! commands are given again. What comes out is what comes out without any crash.

use crate::world::{Cli, World};
use futures::{StreamExt, stream};
use std::collections::BTreeMap;

const DEFINITIONS: &str = "
CREATE EVENT TYPE task (cost DECIMAL(18, 6) NOT NULL) WITH (type = 'task');

CREATE METER costs WITH (window = '1 hour', lateness = '1 minute') AS
SELECT subject, SUM(cost) AS cost, COUNT(*) AS tasks FROM task GROUP BY subject;

CREATE METER busiest WITH (window = '10 minutes', lateness = '0 seconds') AS
SELECT subject, MAX(cost) AS most FROM task GROUP BY subject;

CREATE PRICE tasks WITH (currency = 'USD') AS
SELECT customer, SUM(tasks) AS quantity, SUM(cost) AS amount FROM costs GROUP BY customer;

CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (tasks);
";

const EVENTS: u64 = 1_200;
const SUBJECTS: u64 = 3;
/// Every seventh event comes again; every fiftieth comes an hour late.
const REPEATED: u64 = 7;
const LATE: u64 = 50;

/// Minute by minute through the 5th of March 2026; costs are 1, 2, 3 … millionths.
fn event(number: u64) -> String {
    let minute = match number.is_multiple_of(LATE) {
        true => number.saturating_sub(70),
        false => number,
    };
    let (hour, minute) = (minute / 60, minute % 60);
    format!(
        r#"{{"specversion":"1.0","id":"t{number}","source":"test","type":"task","subject":"s{}","time":"2026-03-05T{hour:02}:{minute:02}:00Z","data":{{"cost":0.{number:06}}}}}"#,
        number % SUBJECTS
    )
}

/// Tasks and cost in millionths of each subject.
fn expected() -> Vec<Vec<String>> {
    let of = |subject: u64| {
        let numbers = (0..EVENTS).filter(move |n| n % SUBJECTS == subject);
        let cost: u64 = numbers.clone().sum();
        vec![
            format!("s{subject}"),
            numbers.count().to_string(),
            format!("{}.{:06}", cost / 1_000_000, cost % 1_000_000),
            format!("0.{:06}", EVENTS - SUBJECTS + subject),
        ]
    };
    (0..SUBJECTS).map(of).collect()
}

const TOTALS: &str = "
SELECT c.subject, c.tasks, c.cost, b.most
FROM (SELECT subject, SUM(tasks) AS tasks, SUM(cost) AS cost FROM costs GROUP BY subject) AS c
JOIN (SELECT subject, MAX(most) AS most FROM busiest GROUP BY subject) AS b ON b.subject = c.subject
ORDER BY c.subject";

const INVOICES: &str = "
SELECT i.number, i.customer, i.total, COUNT(*)
FROM invoices AS i JOIN line_items AS l ON l.invoice = i.invoice
GROUP BY i.number, i.customer, i.total ORDER BY i.number";

const RUN: &[&str] = &["run", "--until-end"];
const INVOICE: &[&str] = &["invoice", "--period", "2026-03", "--finalize"];

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_durable_step_changes_nothing() {
    let world = World::new(DEFINITIONS).await;
    let mut lines = String::new();
    for number in 0..EVENTS {
        lines += &event(number);
        lines.push('\n');
        if number.is_multiple_of(REPEATED) {
            lines += &event(number);
            lines.push('\n');
        }
    }
    world.write("events.ndjson", &lines);
    // Some sixty flushes, so that checkpoints are among the steps.
    let cli = world
        .cli()
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "3KB")
        .with("TOLLGATE_FLUSH_MAX_BYTES", "3KB");
    cli.publish(&world.path("events.ndjson"), 1).await;

    let trace = world.path("trace");
    let traced = cli
        .lake("traced")
        .with("TOLLGATE_FAILPOINT_TRACE", trace.to_str().unwrap());
    traced.succeed(RUN).await;
    traced.succeed(INVOICE).await;
    let invoices = traced.query(INVOICES).await;
    assert_eq!(invoices.len(), usize::try_from(SUBJECTS).unwrap());
    check(&traced, &invoices).await;

    let mut passes: BTreeMap<String, usize> = BTreeMap::new();
    for step in std::fs::read_to_string(&trace).unwrap().lines() {
        *passes.entry(step.to_owned()).or_default() += 1;
    }
    for step in [
        "disk/aside",
        "disk/linked",
        "ids/run",
        "ids/aside",
        "ids/renamed",
        "ids/removed",
        "events/uploaded",
        "events/committing",
        "events/committed",
        "events/checkpointed",
        "meters/costs/uploaded",
        "meters/costs/committed",
        "meters/busiest/committed",
        "rated_by/created",
        "invoices/uploaded",
        "invoices/committed",
    ] {
        assert!(
            passes.contains_key(step),
            "{step} was never reached: {passes:?}"
        );
    }
    let crashes = passes.iter().flat_map(|(step, passes)| {
        // How often a step is passed depends a little on how messages arrive.
        let mut at = vec![1, passes / 2 + 1, passes * 3 / 4 + 1];
        at.dedup();
        at.into_iter().map(move |pass| format!("{step}:{pass}"))
    });
    stream::iter(crashes)
        .for_each_concurrent(2, |crash| crash_and_go_on(&cli, crash, &invoices))
        .await;
}

/// Gives both commands until both succeed; the crash happens in one of them.
async fn crash_and_go_on(cli: &Cli, crash: String, invoices: &[Vec<String>]) {
    let cli = cli.lake(&format!("crashed/{}", crash.replace([':', '/'], "-")));
    let fragile = cli.with("TOLLGATE_FAILPOINT", &crash);
    let mut has_crashed = false;
    for command in [RUN, INVOICE] {
        let ran = fragile.run(command).await;
        if ran.code.is_none() {
            has_crashed = true;
            cli.succeed(command).await;
        } else {
            assert_eq!(ran.code, Some(0), "{crash}: {ran:#?}");
        }
    }
    assert!(has_crashed, "{crash} was not reached");
    check(&cli, invoices).await;
}

/// The totals are those of the input, and the invoices those that were issued without a crash.
async fn check(cli: &Cli, invoices: &[Vec<String>]) {
    assert_eq!(cli.query(TOTALS).await, expected());
    assert_eq!(cli.query(INVOICES).await, invoices);
    cli.audit().await;
}
