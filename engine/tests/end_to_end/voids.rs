//! Documents that are taken back: once, whole, at any crash, by whichever of two commands; and issued again.

use crate::{
    corrections::{DUE, FIRST, LINES, issued_with_late},
    world::World,
};
use futures::{StreamExt, future, stream};
use std::collections::BTreeSet;

const VOID: &[&str] = &["invoice", "--void", "INV-000001"];
const DOCUMENTS: &str =
    "SELECT number, document_kind, voids, issued_by, total FROM invoices ORDER BY serial";

/// The lines of the first document, its void, and the document that is issued again.
fn taken_back_and_again() -> [[&'static str; 8]; 3] {
    let [_, _, kind, amount, quantity, _, _, start] = FIRST;
    let back = [
        "CN-000001",
        "void",
        "adjustment",
        "-10.0000",
        "-100",
        "INV-000001",
        kind,
        start,
    ];
    let again = [
        "INV-000002",
        "invoice",
        kind,
        amount,
        quantity,
        "",
        "",
        start,
    ];
    [FIRST, back, again]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_takes_back_and_issues_again_once() {
    let (world, cli) = issued_with_late(&[]).await;
    let trace = world.path("trace");
    world.copy("lake", "traced");
    let traced = cli.lake("traced");
    let tracing = traced.with("TOLLGATE_FAILPOINT_TRACE", trace.to_str().unwrap());
    tracing.succeed(VOID).await;
    let of_void = std::fs::read_to_string(&trace).unwrap().lines().count();
    tracing.succeed(DUE).await;
    let expected = taken_back_and_again();
    assert_eq!(traced.query(LINES).await, expected);
    let text = std::fs::read_to_string(&trace).unwrap();
    let steps: Vec<&str> = text.lines().collect();
    let crash = async |(command, step): (&[&str], &str)| {
        let name = format!("crashed-{}-{}", command.len(), step.replace('/', "-"));
        world.copy("lake", &name);
        let cli = cli.lake(&name);
        let fragile = cli.with("TOLLGATE_FAILPOINT", &format!("{step}:1"));
        if command == DUE {
            cli.succeed(VOID).await;
        }
        let ran = fragile.run(command).await;
        assert_eq!(ran.code, None, "{step}: {ran:#?}");
        // It may have been committed before the crash.
        let again = cli.run(VOID).await;
        let is_done = again.code == Some(0) || again.stderr.contains("was voided before");
        assert!(is_done, "{step}: {again:#?}");
        cli.succeed(DUE).await;
        assert_eq!(cli.query(LINES).await, expected, "{step}");
        assert_eq!(cli.query("SELECT number FROM unissued").await, [[""; 1]; 0]);
    };
    let (void, due) = steps.split_at(of_void);
    let void: BTreeSet<&str> = void.iter().copied().collect();
    let due: BTreeSet<&str> = due.iter().copied().collect();
    for steps in [&void, &due] {
        assert!(steps.contains("invoices/committed"), "{steps:?}");
        assert!(steps.contains("line_items/committed"), "{steps:?}");
    }
    let void = void.into_iter().map(|step| (VOID, step));
    let due = due.into_iter().map(|step| (DUE, step));
    stream::iter(void.chain(due))
        .for_each_concurrent(2, crash)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_back_is_refused_with_a_way_out() {
    let (_world, cli) = issued_with_late(&[50]).await;
    cli.succeed(DUE).await;
    let refused = async |number: &str, reason: &str| {
        let ran = cli.run(&["invoice", "--void", number]).await;
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.contains(reason), "{ran:#?}");
    };
    refused(
        "INV-000001",
        "INV-000001 cannot be void: INV-000002 bills what it lacked, or its rest\n  hint: void INV-000002 first",
    )
    .await;
    refused("INV-7", "there is no document `INV-7`").await;
    let void = ["invoice", "--void", "INV-000002", "--by", "ann"];
    let text = cli.succeed(&void).await;
    assert!(
        text.starts_with("INV-000002 is void by CN-000001;"),
        "{text}"
    );
    refused("INV-000002", "INV-000002 was voided before, by CN-000001").await;
    refused("CN-000001", "CN-000001 is itself a void, of INV-000002").await;
    // What was taken back is unissued: the adjustment, then the whole month.
    let unissued = "SELECT number, amount FROM unissued";
    assert_eq!(cli.query(unissued).await, [["INV-000001", "5.0000"]]);
    cli.succeed(&["invoice", "--void", "INV-000001", "--by", "ann"])
        .await;
    assert_eq!(cli.query(unissued).await, [["", "15.0000"]]);
    cli.succeed(&["invoice", "--due", "--finalize", "--by", "bob"])
        .await;
    let mut documents = cli.query(DOCUMENTS).await;
    // Whoever runs the test issued the first two.
    let users: BTreeSet<String> = documents[..2].iter().map(|row| row[3].clone()).collect();
    assert!(users.len() == 1 && !users.contains(""), "{users:?}");
    for row in &mut documents[..2] {
        row[3] = "user".to_owned();
    }
    assert_eq!(
        documents,
        [
            ["INV-000001", "invoice", "", "user", "10.0000"],
            ["INV-000002", "invoice", "", "user", "5.0000"],
            ["CN-000001", "void", "INV-000002", "ann", "-5.0000"],
            ["CN-000002", "void", "INV-000001", "ann", "-10.0000"],
            ["INV-000003", "invoice", "", "bob", "15.0000"],
        ]
    );
    assert_eq!(cli.query(unissued).await, [[""; 2]; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_voids_at_once_one_counts() {
    let (_world, cli) = issued_with_late(&[]).await;
    let (one, other) = future::join(cli.run(VOID), cli.run(VOID)).await;
    let done = [&one, &other]
        .iter()
        .filter(|ran| ran.code == Some(0))
        .count();
    assert_eq!(done, 1, "{one:#?} {other:#?}");
    cli.succeed(DUE).await;
    assert_eq!(cli.query(LINES).await, taken_back_and_again());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_without_accounts_is_taken_back_and_issued_again() {
    let world = World::new(
        "CREATE EVENT TYPE used (n BIGINT NOT NULL) WITH (type = 'used');
         CREATE METER uses WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM used GROUP BY subject;
         CREATE PRICE api WITH (currency = 'USD') AS SELECT customer, SUM(n) * 0.10 AS amount FROM uses GROUP BY customer;
         CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (api);",
    )
    .await;
    let cli = world.cli().with("TOLLGATE_BILLING_DEFAULT_PLAN", "payg");
    let used = async |id: u32, n: u32| {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"used","subject":"u","time":"2026-01-10T00:00:00Z","data":{{"n":{n}}}}}"#
        );
        world.send(&[], &event).await;
        cli.run_to_end().await;
    };
    used(0, 100).await;
    let issue = [
        "invoice",
        "--period",
        "2026-01",
        "--finalize",
        "--by",
        "ann",
    ];
    cli.succeed(&issue).await;
    used(1, 20).await;
    cli.succeed(&["invoice", "--void", "INV-000001", "--by", "ann"])
        .await;
    let unissued = "SELECT customer, number, amount FROM unissued";
    assert_eq!(cli.query(unissued).await[0], ["u", "", "12.0000"]);
    for _twice in 0..2 {
        cli.succeed(&issue).await;
    }
    assert_eq!(
        cli.query(DOCUMENTS).await,
        [
            ["INV-000001", "invoice", "", "ann", "10.0000"],
            ["CN-000001", "void", "INV-000001", "ann", "-10.0000"],
            ["INV-000002", "invoice", "", "ann", "12.0000"],
        ]
    );
    assert_eq!(cli.query(unissued).await, [[""; 3]; 0]);
}
