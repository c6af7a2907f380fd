//! Customers range by range: however large the ranges are, documents are the same to the byte, at any crash, and by two jobs at once.

use crate::world::{Cli, World};
use futures::{StreamExt, future, stream};
use std::{collections::BTreeSet, fmt::Write};

const DEFINITIONS: &str = "
CREATE EVENT TYPE used (n BIGINT NOT NULL, kind VARCHAR NOT NULL) WITH (type = 'used');
CREATE METER uses WITH (window = '1 hour') AS SELECT subject, kind, SUM(n) AS n FROM used GROUP BY subject, kind;
CREATE PRICE api WITH (currency = 'USD') AS
SELECT customer, kind, SUM(n) AS quantity, graduated(SUM(n), [{up_to: 10, unit_amount: 0.5}, {unit_amount: 0.125}]) AS amount
FROM uses GROUP BY customer, kind;
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (api);
CREATE PRICE base WITH (currency = 'USD') AS SELECT customer, prorate(9.99 * seats, active_days, period_days) AS amount FROM subscription;
CREATE PLAN pro WITH (currency = 'USD', billing_period = 'month', in_advance = 'base', minimum = '12.00') AS (base, api);
CREATE PRICE share WITH (currency = 'USD') AS
SELECT customer, n AS quantity, CASE WHEN n = MAX(n) OVER () THEN 100.00 ELSE 1.00 END AS amount
FROM (SELECT customer, SUM(n) AS n FROM uses GROUP BY customer) AS t;
CREATE PLAN compared WITH (currency = 'USD', billing_period = 'month') AS (share);
";

const CUSTOMERS: u64 = 12;
/// One customer in each range.
const SMALLEST: (&str, &str) = ("TOLLGATE_BILLING_MAX_BYTES", "1");
/// Three at first, and more when it is known how little they need.
const SMALL: (&str, &str) = ("TOLLGATE_BILLING_MAX_BYTES", "400kB");

/// All that is issued, but for when. A document of nothing but corrections is named by that time.
const DOCUMENTS: &str = "
SELECT number, CASE WHEN period_start < period_end THEN invoice END, customer, plan, currency,
       CASE WHEN period_start < period_end THEN period_start END, CASE WHEN period_start < period_end THEN document END,
       lines, total, cut, discount, promotional, tax, credits_applied, amount_due, document_kind, serial,
       CASE WHEN period_start < period_end THEN basis END, burns
FROM invoices ORDER BY serial";
const LINES: &str = "
SELECT i.serial, l.line, l.kind, l.customer, l.price, l.price_version, l.dimensions, l.quantity, l.amount_exact, l.amount, l.currency,
       l.period_start, l.period_end, l.cut, l.discount, l.promotional, l.subscription, l.text, l.corrects, l.corrects_kind
FROM line_items AS l JOIN invoices AS i ON i.invoice = l.invoice ORDER BY i.serial, l.line";

fn event(customer: u64, month: u64, n: u64) -> String {
    let kind = ["chat", "image"][usize::try_from((customer + n) % 2).unwrap()];
    format!(
        r#"{{"specversion":"1.0","id":"{customer}-{month}-{n}","source":"test","type":"used","subject":"c{customer:02}","time":"2026-0{month}-10T00:00:00Z","data":{{"n":{n},"kind":"{kind}"}}}}"#
    )
}

/// Every customer uses something in January and February.
async fn used() -> (World, Cli) {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli().with("TOLLGATE_BILLING_DEFAULT_PLAN", "payg");
    for customer in 0..CUSTOMERS {
        for (month, n) in [(1, 3 + customer), (1, 20), (2, 7 * customer)] {
            world.send(&[], &event(customer, month, n)).await;
        }
    }
    cli.run_to_end().await;
    (world, cli)
}

/// Customers whose subjects are called otherwise than in the order of their names; every third is on `pro` with seats that change.
async fn import(world: &World, cli: &Cli) {
    let mut customers = "customer\n".to_owned();
    let mut subjects = "subject,customer\n".to_owned();
    let mut subscriptions = "subscription,customer,plan,seats,starts_at\n".to_owned();
    for customer in 0..CUSTOMERS {
        let subject = (customer * 5) % CUSTOMERS;
        writeln!(customers, "c{customer:02}").unwrap();
        writeln!(subjects, "c{subject:02},c{customer:02}").unwrap();
        let plan = if customer % 3 == 0 { "pro" } else { "payg" };
        writeln!(
            subscriptions,
            "s{customer},c{customer:02},{plan},1,2026-01-01"
        )
        .unwrap();
        if customer % 3 == 0 {
            writeln!(
                subscriptions,
                "s{customer},c{customer:02},{plan},3,2026-01-16"
            )
            .unwrap();
        }
    }
    world.write("customers.csv", &customers);
    world.write("subjects.csv", &subjects);
    world.write("subscriptions.csv", &subscriptions);
    let files = ["customers.csv", "subjects.csv", "subscriptions.csv"];
    cli.succeed(&[&["accounts", "import"], &files[..]].concat())
        .await;
}

/// What commands issue from a copy of the lake with some setting.
async fn issued(
    (world, cli): (&World, &Cli),
    name: &str,
    setting: Option<(&str, &str)>,
    commands: &[&[&str]],
) -> (Vec<Vec<String>>, Vec<Vec<String>>, Vec<String>) {
    world.copy("lake", name);
    let cli = cli.lake(name);
    let cli = setting.map_or(cli.clone(), |(name, value)| cli.with(name, value));
    let mut said = Vec::new();
    for command in commands {
        said.push(cli.succeed(command).await);
    }
    (cli.query(DOCUMENTS).await, cli.query(LINES).await, said)
}

const MONTH: &[&str] = &[
    "invoice",
    "--period",
    "2026-01",
    "--finalize",
    "--by",
    "ann",
];
const DUE: &[&str] = &["invoice", "--due", "--finalize", "--by", "ann"];
const CORRECT: &[&str] = &["invoice", "--due", "--finalize", "--correct", "--by", "ann"];

#[tokio::test(flavor = "multi_thread")]
async fn documents_do_not_depend_on_the_size_of_ranges() {
    let (world, cli) = used().await;
    let of = (&world, &cli);
    // Without accounts, and again when all are issued.
    let commands = [MONTH, MONTH];
    let whole = issued(of, "whole", None, &commands).await;
    assert_eq!(whole.0.len(), 12);
    assert_eq!(
        issued(of, "one-by-one", Some(SMALLEST), &commands).await,
        whole
    );
    assert_eq!(issued(of, "some", Some(SMALL), &commands).await, whole);
    // A price that compares customers has one range.
    let compared = cli.with("TOLLGATE_BILLING_DEFAULT_PLAN", "compared");
    let of = (&world, &compared);
    let whole = issued(of, "compared", None, &commands[..1]).await;
    let hundreds = whole.1.iter().filter(|line| line[9] == "100.0000");
    assert_eq!(hundreds.count(), 1, "{:?}", whole.1);
    let small = issued(of, "compared-one-by-one", Some(SMALLEST), &commands[..1]).await;
    assert_eq!(small, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_subscriptions_do_not_depend_on_the_size_of_ranges() {
    let (world, cli) = used().await;
    let cli = cli.with("TOLLGATE_BILLING_DEFAULT_PLAN", "payg");
    import(&world, &cli).await;
    cli.succeed(&["invoice", "--period", "2026-01", "--finalize"])
        .await;
    // Late usage of a few, and seats of one that were changed for January.
    for customer in [2, 3, 9] {
        world.send(&[], &event(customer, 1, 40)).await;
    }
    cli.run_to_end().await;
    world.write(
        "subscriptions.csv",
        "subscription,customer,plan,seats,starts_at\ns6,c06,pro,2,2026-01-01\n",
    );
    cli.succeed(&["accounts", "import", "subscriptions.csv"])
        .await;
    let of = (&world, &cli);
    let commands = [DUE, CORRECT, CORRECT];
    let whole = issued(of, "whole", None, &commands).await;
    assert!(whole.0.len() > 24, "{whole:#?}");
    assert_eq!(
        issued(of, "one-by-one", Some(SMALLEST), &commands).await,
        whole
    );
    assert_eq!(issued(of, "some", Some(SMALL), &commands).await, whole);
    let unissued = cli.with(SMALLEST.0, SMALLEST.1);
    let sql = "SELECT * FROM unissued";
    assert_eq!(unissued.query(sql).await, cli.query(sql).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_any_range_issues_nothing_or_all() {
    let (world, cli) = used().await;
    import(&world, &cli).await;
    let cli = cli.with(SMALL.0, SMALL.1);
    let trace = world.path("trace");
    let tracing = cli.with("TOLLGATE_FAILPOINT_TRACE", trace.to_str().unwrap());
    let whole = issued((&world, &tracing), "traced", None, &[DUE]).await;
    let text = std::fs::read_to_string(&trace).unwrap();
    let steps = text.lines().filter(|step| !step.starts_with("disk/"));
    let mut passes = std::collections::BTreeMap::new();
    for step in steps {
        *passes.entry(step).or_insert(0) += 1;
    }
    assert!(passes["invoices/uploaded"] > 2, "{passes:?}");
    let crashes: BTreeSet<(&str, usize)> = passes
        .iter()
        .flat_map(|(step, passes)| [(*step, 1), (*step, passes / 2 + 1), (*step, *passes)])
        .collect();
    let crash = async |(step, pass): (&str, usize)| {
        let name = format!("crashed-{}-{pass}", step.replace('/', "-"));
        world.copy("lake", &name);
        let cli = cli.lake(&name);
        let fragile = cli.with("TOLLGATE_FAILPOINT", &format!("{step}:{pass}"));
        let ran = fragile.run(DUE).await;
        assert_eq!(ran.code, None, "{step}: {ran:#?}");
        let is_there = cli.query("SELECT COUNT(*) FROM invoices").await[0][0].clone();
        let all = whole.0.len().to_string();
        assert!(is_there == "0" || is_there == all, "{step}: {is_there}");
        cli.succeed(DUE).await;
        assert_eq!(cli.query(DOCUMENTS).await, whole.0, "{step}");
        assert_eq!(cli.query(LINES).await, whole.1, "{step}");
    };
    stream::iter(crashes).for_each_concurrent(2, crash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_at_once_issue_every_range_once() {
    let (world, cli) = used().await;
    import(&world, &cli).await;
    let whole = issued((&world, &cli), "whole", None, &[DUE]).await;
    let small = cli.with(SMALLEST.0, SMALLEST.1);
    let (one, other) = future::join(small.run(DUE), small.run(DUE)).await;
    for ran in [&one, &other] {
        let is_refused = ran.stderr.contains("another invoice job issued");
        assert!(ran.code == Some(0) || is_refused, "{ran:#?}");
    }
    small.succeed(DUE).await;
    assert_eq!(cli.query(DOCUMENTS).await, whole.0);
    assert_eq!(cli.query(LINES).await, whole.1);
}
