//! An engine that takes over: what was billed before it, and before there were accounts, is billed no more.

use crate::world::{Cli, World};

const DEFINITIONS: &str = "
CREATE EVENT TYPE used (n BIGINT NOT NULL) WITH (type = 'used');
CREATE METER uses WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM used GROUP BY subject;
CREATE PRICE api WITH (currency = 'USD') AS SELECT customer, SUM(n) * 0.10 AS amount FROM uses GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (api);
";

const DOCUMENTS: &str =
    "SELECT number, customer, period_start, total FROM invoices ORDER BY serial";
const UNISSUED: &str = "SELECT customer, amount FROM unissued";
const UNBILLED: &str = "SELECT subject, quantity FROM unbilled";

/// `u` and `v` use 100 in January and 30 in February.
async fn used() -> (World, Cli) {
    let world = World::new(DEFINITIONS).await;
    let cli = world.cli().with("TOLLGATE_BILLING_DEFAULT_PLAN", "payg");
    for (subject, month, n) in [("u", 1, 100), ("v", 1, 100), ("u", 2, 30), ("v", 2, 30)] {
        send(&world, (subject, month, n)).await;
    }
    cli.run_to_end().await;
    (world, cli)
}

async fn send(world: &World, (subject, month, n): (&str, u32, u32)) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{subject}-{month}-{n}","source":"test","type":"used","subject":"{subject}","time":"2026-0{month}-10T00:00:00Z","data":{{"n":{n}}}}}"#
    );
    world.send(&[], &event).await;
}

/// `acme` pays for `u` since January; no row names `v`.
async fn import(world: &World, cli: &Cli) {
    world.write("customers.csv", "customer\nacme\n");
    world.write("subjects.csv", "subject,customer\nu,acme\n");
    world.write(
        "subscriptions.csv",
        "subscription,customer,plan,starts_at\ns,acme,payg,2026-01-01\n",
    );
    let files = ["customers.csv", "subjects.csv", "subscriptions.csv"];
    cli.succeed(&[&["accounts", "import"], &files[..]].concat())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invoices_from_before_there_were_accounts_count_as_issued() {
    let (world, cli) = used().await;
    cli.succeed(&["invoice", "--period", "2026-01", "--finalize"])
        .await;
    import(&world, &cli).await;
    // January of both subjects was billed; of February, no one pays for `v`.
    assert_eq!(cli.query(UNISSUED).await, [["acme", "3.0000"]]);
    assert_eq!(cli.query(UNBILLED).await, [["v", "30"]]);
    let one = cli
        .succeed(&["invoice", "--due", "--customer", "acme"])
        .await;
    assert!(one.contains("3.00") && !one.contains("10.00"), "{one}");
    for expected in ["1 invoices issued", "0 invoices issued"] {
        let issued = cli.succeed(&["invoice", "--due", "--finalize"]).await;
        assert!(issued.starts_with(expected), "{issued}");
    }
    // What comes late for January is on no document either.
    send(&world, ("u", 1, 7)).await;
    cli.run_to_end().await;
    let correct = ["invoice", "--due", "--finalize", "--correct"];
    let issued = cli.succeed(&correct).await;
    assert!(issued.starts_with("0 invoices issued"), "{issued}");
    assert_eq!(
        cli.query(DOCUMENTS).await,
        [
            ["INV-000001", "u", "2026-01-01T00:00:00Z", "10.0000"],
            ["INV-000002", "v", "2026-01-01T00:00:00Z", "10.0000"],
            ["INV-000003", "acme", "2026-02-01T00:00:00Z", "3.0000"],
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_before_the_start_is_on_no_document_without_accounts() {
    let (_world, cli) = used().await;
    let february = cli.with("TOLLGATE_BILLING_STARTS_AT", "2026-02-01");
    let refused = february
        .run(&["invoice", "--period", "2026-01", "--finalize"])
        .await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    let reason = "is over before billing.starts_at, 2026-02-01";
    assert!(refused.stderr.contains(reason), "{refused:#?}");
    let unissued = "SELECT customer, period_start, amount FROM unissued";
    let of_february =
        |from: &'static str, amount: &'static str| [["u", from, amount], ["v", from, amount]];
    let rows = february.query(unissued).await;
    assert_eq!(rows[..2], of_february("2026-02-01T00:00:00Z", "3.0000"));
    // The tenth at midnight is the last use of February.
    let within = cli.with("TOLLGATE_BILLING_STARTS_AT", "2026-02-10T00:00:00Z");
    within
        .succeed(&["invoice", "--period", "2026-02", "--finalize"])
        .await;
    assert_eq!(
        within.query(DOCUMENTS).await,
        [
            ["INV-000001", "u", "2026-02-10T00:00:00Z", "3.0000"],
            ["INV-000002", "v", "2026-02-10T00:00:00Z", "3.0000"],
        ]
    );
    assert_eq!(within.query(unissued).await, [[""; 3]; 0]);
    let wrong = cli.with("TOLLGATE_BILLING_STARTS_AT", "October");
    let refused = wrong.run(&["invoice", "--period", "2026-02"]).await;
    let reason = "`October` is not an instant such as 2026-10-01T00:00:00Z, nor a date";
    assert!(refused.stderr.contains(reason), "{refused:#?}");
}
