//! What came to light after documents were issued: each difference is billed once, at any crash, by whichever of two jobs.

use crate::world::{Cli, World};
use futures::{StreamExt, stream};
use std::collections::BTreeSet;

const DEFINITIONS: &str = "
CREATE EVENT TYPE used (n BIGINT NOT NULL) WITH (type = 'used');
CREATE METER uses WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM used GROUP BY subject;
CREATE PRICE api WITH (currency = 'USD') AS
SELECT customer, SUM(n) AS quantity, SUM(n) * 0.10 AS amount FROM uses GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (api);
";

/// A subscription that has ended, so that what comes late is on a document at once.
const SUBSCRIPTION: &str =
    "subscription,customer,plan,starts_at,ends_at\nb,acme,payg,2026-01-01,2026-02-01\n";

async fn used(world: &World, id: u64, n: i64) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"used","subject":"u","time":"2026-01-10T00:00:00Z","data":{{"n":{n}}}}}"#
    );
    world.send(&[], &event).await;
}

/// 100 uses are billed at 0.10, then more come.
pub(crate) async fn issued_with_late(late: &[i64]) -> (World, Cli) {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli().with("TOLLGATE_BILLING_DEFAULT_PLAN", "payg");
    world.write("subjects.csv", "subject,customer\nu,acme\n");
    world.write("customers.csv", "customer\nacme\n");
    world.write("subscriptions.csv", SUBSCRIPTION);
    let import = [
        "accounts",
        "import",
        "customers.csv",
        "subjects.csv",
        "subscriptions.csv",
    ];
    cli.succeed(&import).await;
    used(&world, 0, 100).await;
    cli.run_to_end().await;
    let issued = cli.succeed(DUE).await;
    assert!(issued.starts_with("1 invoices issued\n"), "{issued}");
    for (id, n) in (1..).zip(late) {
        used(&world, id, *n).await;
    }
    assert_eq!(
        cli.run_to_end().await.of("counted"),
        u64::try_from(late.len()).unwrap()
    );
    (world, cli)
}

pub(crate) const DUE: &[&str] = &["invoice", "--due", "--finalize"];
const CORRECT: &[&str] = &["invoice", "--due", "--finalize", "--correct"];

pub(crate) const LINES: &str = "
SELECT i.number, i.document_kind AS document, l.kind, l.amount, l.quantity, l.corrects, l.corrects_kind, l.period_start
FROM line_items AS l JOIN invoices AS i ON i.invoice = l.invoice ORDER BY i.serial, l.line";
const UNISSUED: &str = "SELECT number, amount, cause FROM unissued";

fn adjustment<'a>(
    number: &'a str,
    document: &'a str,
    amount: &'a str,
    quantity: &'a str,
) -> [&'a str; 8] {
    [
        number,
        document,
        "adjustment",
        amount,
        quantity,
        "INV-000001",
        "usage",
        "2026-01-01T00:00:00Z",
    ]
}

pub(crate) const FIRST: [&str; 8] = [
    "INV-000001",
    "invoice",
    "usage",
    "10.0000",
    "100",
    "",
    "",
    "2026-01-01T00:00:00Z",
];

#[tokio::test(flavor = "multi_thread")]
async fn late_usage_and_edits_are_billed_once_each() {
    let (world, cli) = issued_with_late(&[50]).await;
    let missing = [
        "INV-000001",
        "5.0000",
        "usage has changed since it was issued",
    ];
    assert_eq!(cli.query(UNISSUED).await, [missing]);
    let draft = cli.succeed(&["invoice", "--due"]).await;
    let line = "adjustment  api, of INV-000001, 50  2026-01-01 to 2026-02-01  5.00";
    assert!(draft.contains(line), "{draft}");
    for expected in ["1 invoices issued", "0 invoices issued"] {
        let issued = cli.succeed(DUE).await;
        assert!(issued.starts_with(expected), "{issued}");
    }
    let second = adjustment("INV-000002", "invoice", "5.0000", "50");
    assert_eq!(cli.query(LINES).await, [FIRST, second]);
    assert_eq!(cli.query(UNISSUED).await, [[""; 3]; 0]);
    // Nobody's edit bills history unasked.
    world.write(
        "definitions/all.sql",
        &DEFINITIONS.replace("* 0.10", "* 0.20"),
    );
    let edited = [
        "INV-000001",
        "15.0000",
        "price `api` has changed since it was issued",
    ];
    assert_eq!(cli.query(UNISSUED).await, [edited]);
    let issued = cli.succeed(DUE).await;
    assert!(issued.starts_with("0 invoices issued"), "{issued}");
    // What comes late all the same costs what it cost then, and less than nothing is a credit note.
    used(&world, 2, -30).await;
    cli.run_to_end().await;
    cli.succeed(DUE).await;
    let third = adjustment("CN-000001", "credit_note", "-3.0000", "-30");
    assert_eq!(cli.query(LINES).await, [FIRST, second, third]);
    for expected in ["1 invoices issued", "0 invoices issued"] {
        let issued = cli.succeed(CORRECT).await;
        assert!(issued.starts_with(expected), "{issued}");
    }
    // 120 at 0.20 are 24, of which 12 were billed.
    let fourth = adjustment("INV-000003", "invoice", "12.0000", "0");
    assert_eq!(cli.query(LINES).await, [FIRST, second, third, fourth]);
    assert_eq!(cli.query(UNISSUED).await, [[""; 3]; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_corrects_once() {
    let (world, cli) = issued_with_late(&[50]).await;
    let trace = world.path("trace");
    world.copy("lake", "traced");
    let traced = cli.lake("traced");
    traced
        .with("TOLLGATE_FAILPOINT_TRACE", trace.to_str().unwrap())
        .succeed(DUE)
        .await;
    let expected = [FIRST, adjustment("INV-000002", "invoice", "5.0000", "50")];
    assert_eq!(traced.query(LINES).await, expected);
    let text = std::fs::read_to_string(&trace).unwrap();
    let steps: BTreeSet<&str> = text.lines().collect();
    for step in [
        "invoices/uploaded",
        "invoices/committed",
        "line_items/committed",
    ] {
        assert!(steps.contains(step), "{step} was never reached: {steps:?}");
    }
    let crash = async |(number, step): (usize, &str)| {
        let name = format!("crashed-{number}");
        world.copy("lake", &name);
        let cli = cli.lake(&name);
        let ran = cli
            .with("TOLLGATE_FAILPOINT", &format!("{step}:1"))
            .run(DUE)
            .await;
        assert_eq!(ran.code, None, "{step}: {ran:#?}");
        cli.succeed(DUE).await;
        assert_eq!(cli.query(LINES).await, expected, "{step}");
    };
    stream::iter(steps.into_iter().enumerate())
        .for_each_concurrent(2, crash)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_corrected_by_the_clock_of_its_customer() {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli().with("TOLLGATE_BILLING_DEFAULT_PLAN", "payg");
    world.write("subjects.csv", "subject,customer\nu,acme\n");
    world.write(
        "customers.csv",
        "customer,time_zone\nacme,America/Los_Angeles\n",
    );
    // January is over at 08:00 UTC on the first of February.
    world.write(
        "subscriptions.csv",
        "subscription,customer,plan,starts_at,ends_at\nb,acme,payg,2026-01-01T08:00:00Z,2026-02-01T08:00:00Z\n",
    );
    let files = ["customers.csv", "subjects.csv", "subscriptions.csv"];
    cli.succeed(&[&["accounts", "import"], &files[..]].concat())
        .await;
    used(&world, 0, 100).await;
    cli.run_to_end().await;
    cli.succeed(DUE).await;
    world.write(
        "definitions/all.sql",
        &DEFINITIONS.replace("* 0.10", "* 0.20"),
    );
    for (month, expected) in [
        ("2026-02", "0 invoices issued"),
        ("2026-01", "1 invoices issued"),
    ] {
        let correct = ["invoice", "--period", month, "--finalize", "--correct"];
        let issued = cli.succeed(&correct).await;
        assert!(issued.starts_with(expected), "{month}: {issued}");
    }
    assert_eq!(cli.query(UNISSUED).await, [[""; 3]; 0]);
}
