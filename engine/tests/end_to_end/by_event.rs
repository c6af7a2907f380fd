//! Prices by the event: which events a billing period has, whom they are billed to, and what becomes of late ones.

use crate::world::{Cli, World};

/// The first payment is free; each other costs 1.5 % + 0.10, at least 0.25 and at most 20. No meter measures them.
const PAYMENTS: &str = "
CREATE EVENT TYPE payment (amount DECIMAL(18, 2) NOT NULL) WITH (type = 'payment');
CREATE PRICE base WITH (currency = 'USD') AS SELECT customer, 5.00 * seats AS amount FROM subscription;
CREATE PRICE payments WITH (currency = 'USD') AS
SELECT customer, COUNT(*) AS quantity,
       SUM(CASE WHEN n > 1 THEN percentage(amount, 1.5, 0.10, 0, 0.25, 20) ELSE 0 END) AS amount
FROM (SELECT customer, amount, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY event_time) AS n FROM payment)
GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (base, payments);
";

async fn pay(world: &World, id: &str, subject: &str, time: &str, amount: &str) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"shop","type":"payment","subject":"{subject}","time":"{time}","data":{{"amount":{amount}}}}}"#
    );
    world.send(&[], &event).await;
}

async fn finalize(cli: &Cli, period: &str) -> Vec<String> {
    let text = cli
        .succeed(&["invoice", "--period", period, "--finalize"])
        .await;
    text.lines().map(str::to_owned).collect()
}

/// September of acme: 1000 (free), 100 and 10 in one second (1.60 and 0.25), 2000 (20.00); of globex 50 (free). August and
/// October begin and end a microsecond away.
async fn paid() -> (World, Cli) {
    let world = World::new(PAYMENTS).await;
    let cli = world.cli();
    for (id, subject, time, amount) in [
        ("a", "acme", "2026-08-31T23:59:59.999999Z", "5"),
        ("b", "acme", "2026-09-01T00:00:00Z", "1000"),
        ("d", "acme", "2026-09-10T10:00:00Z", "100"),
        ("c", "acme", "2026-09-10T10:00:00Z", "10"),
        ("e", "acme", "2026-09-30T23:59:59.999999Z", "2000"),
        ("f", "acme", "2026-10-01T00:00:00Z", "40"),
        ("g", "globex", "2026-09-11T10:00:00Z", "50"),
        // A repeat, another event of the same id, and one that is none.
        ("d", "acme", "2026-09-10T10:00:00Z", "100"),
        ("d", "acme", "2026-09-10T10:00:00Z", "777"),
        ("h", "acme", "2026-09-12T10:00:00Z", "\"many\""),
    ] {
        pay(&world, id, subject, time, amount).await;
    }
    cli.run_to_end().await;
    (world, cli)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_has_the_counted_events_that_happened_in_it() {
    let (world, cli) = paid().await;
    let of_all = cli.succeed(&["invoice", "--period", "2026-09"]).await;
    // Of one customer it is the same, and so it is where the other is not read.
    let of_acme = ["invoice", "--period", "2026-09", "--customer", "acme"];
    let of_acme = cli.succeed(&of_acme).await;
    let line = of_acme.lines().find(|line| line.contains("acme")).unwrap();
    assert!(line.contains("26.85 USD"), "{of_acme}");
    assert!(
        of_all.lines().any(|known| known == line),
        "{of_all}\n{of_acme}"
    );
    for period in ["2026-08", "2026-09", "2026-10"] {
        finalize(&cli, period).await;
    }
    let lines = cli
        .query(
            "SELECT period_start, customer, quantity, CAST(amount AS VARCHAR) FROM line_items WHERE price = 'payments'
             ORDER BY period_start, customer",
        )
        .await;
    assert_eq!(
        lines,
        [
            ["2026-08-01T00:00:00Z", "acme", "1", "0.0000"],
            ["2026-09-01T00:00:00Z", "acme", "4", "21.8500"],
            ["2026-09-01T00:00:00Z", "globex", "1", "0.0000"],
            ["2026-10-01T00:00:00Z", "acme", "1", "0.0000"],
        ]
    );
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_is_reported_and_billed_nowhere_unasked() {
    let (world, cli) = paid().await;
    assert_eq!(
        finalize(&cli, "2026-09").await,
        [
            "2 invoices issued",
            "INV-000001   acme                                2 lines              26.85 USD",
            "INV-000002   globex                              2 lines               5.00 USD",
        ]
    );
    assert_eq!(
        finalize(&cli, "2026-09").await,
        ["0 invoices issued, 2 were issued before"]
    );
    // At the time of the first, but it came later: the first stays free, and this one costs 7.60.
    pay(&world, "i", "acme", "2026-09-01T00:00:00Z", "500").await;
    cli.run_to_end().await;
    assert_eq!(
        finalize(&cli, "2026-09").await,
        [
            "0 invoices issued, 2 were issued before; usage has changed since, and is not invoiced yet, for: acme",
            "changed      acme                             INV-000001 was 26.85, would be 34.45 now: 7.6 USD on no \
             invoice, because usage has changed",
        ]
    );
    let unissued = cli
        .query("SELECT customer, number, CAST(amount AS VARCHAR), cause FROM unissued WHERE number IS NOT NULL")
        .await;
    assert_eq!(
        unissued,
        [[
            "acme",
            "INV-000001",
            "7.6000",
            "usage has changed since it was issued"
        ]]
    );
    // An edited price is told from usage.
    let dearer = PAYMENTS.replace("0.10, 0, 0.25", "0.20, 0, 0.25");
    world.write("definitions/all.sql", &dearer);
    let changed = finalize(&cli, "2026-09").await;
    assert!(
        changed[0].contains(
            "usage, price `payments` has changed since, and is not invoiced yet, for: acme"
        ),
        "{changed:#?}"
    );
}
