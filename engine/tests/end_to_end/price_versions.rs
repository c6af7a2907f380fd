//! Prices that change in mid-period: from the next period on, or on the day itself, by the calendar of Berlin over a change
//! of clocks.

use crate::world::{Cli, World};

/// October 2026 in Berlin is from 30 September, 22:00 UTC to 31 October, 23:00 UTC: clocks go back on the 25th. The
/// 26th begins at 23:00 UTC on the 25th, within a window of the meter.
fn definitions(on_change: &str) -> String {
    let versions = [
        ("", "0.10", "0.05", "31.00", "1.00"),
        (on_change, "0.20", "0.01", "62.00", "3.00"),
    ];
    let mut text = "
CREATE EVENT TYPE call (n BIGINT NOT NULL) WITH (type = 'call');
CREATE METER calls WITH (window = '1 day', lateness = '10 minutes') AS SELECT subject, SUM(n) AS n FROM call GROUP BY subject;
CREATE PLAN payg WITH (currency = 'USD') AS (base, used, by_call);
"
    .to_owned();
    for (from, first, rest, fee, each) in versions {
        let create = match from.is_empty() {
            true => "CREATE PRICE",
            false => "CREATE OR REPLACE PRICE",
        };
        text += &format!(
            "{create} base WITH (currency = 'USD'{from}) AS
SELECT customer, prorate({fee}, active_days, period_days) AS amount FROM subscription;
{create} used WITH (currency = 'USD'{from}) AS
SELECT customer, n AS quantity, graduated(n, [{{up_to: 100, unit_amount: {first}}}, {{unit_amount: {rest}}}]) AS amount FROM calls;
-- The first two calls are free.
{create} by_call WITH (currency = 'USD'{from}) AS
SELECT customer, COUNT(*) AS quantity, SUM(CASE WHEN k > 2 THEN {each} ELSE 0 END) AS amount
FROM (SELECT customer, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY event_time) AS k FROM call) GROUP BY customer;
"
        );
    }
    text
}

const SPLIT: &str = ", effective_from = '2026-10-26', on_change = 'split'";
const NEXT: &str = ", effective_from = '2026-10-26'";

async fn call(world: &World, id: &str, subject: &str, time: &str, n: i64) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"call","subject":"{subject}","time":"{time}","data":{{"n":{n}}}}}"#
    );
    world.send(&[], &event).await;
}

/// acme uses 60 and 20 until the 26th begins, then 30 and 40; globex 5 after it.
async fn used(on_change: &str) -> (World, Cli) {
    let world = World::new(&definitions(on_change)).await;
    let cli = world
        .cli()
        .with("TOLLGATE_BILLING_TIME_ZONE", "Europe/Berlin");
    for (id, subject, time, n) in [
        ("a", "acme", "2026-09-30T22:00:00Z", 60),
        ("b", "acme", "2026-10-25T22:59:59.999999Z", 20),
        ("c", "acme", "2026-10-25T23:00:00Z", 30),
        ("d", "acme", "2026-10-31T22:59:59.999999Z", 40),
        ("e", "acme", "2026-10-31T23:00:00Z", 1000),
        ("f", "globex", "2026-10-28T10:00:00Z", 5),
    ] {
        call(&world, id, subject, time, n).await;
    }
    cli.run_to_end().await;
    (world, cli)
}

async fn finalize(cli: &Cli) -> Vec<String> {
    let text = cli
        .succeed(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    text.lines().map(str::to_owned).collect()
}

const LINES: &str = "SELECT customer, price, price_version, coalesce(quantity, '-'), CAST(amount AS VARCHAR), period_start, \
                     period_end FROM line_items ORDER BY customer, line";

#[tokio::test(flavor = "multi_thread")]
async fn a_version_applies_from_the_next_period_on() {
    let (world, cli) = used(NEXT).await;
    finalize(&cli).await;
    // 31; 100 × 0.10 + 50 × 0.05; two calls at 1.
    let whole = ["2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"];
    let expected: Vec<Vec<&str>> = [
        ["acme", "base", "1", "-", "31.0000"],
        ["acme", "used", "1", "150", "12.5000"],
        ["acme", "by_call", "1", "4", "2.0000"],
        ["globex", "base", "1", "-", "31.0000"],
        ["globex", "used", "1", "5", "0.5000"],
        ["globex", "by_call", "1", "1", "0.0000"],
    ]
    .map(|line| [&line[..], &whole].concat())
    .into();
    assert_eq!(cli.query(LINES).await, expected);
    // November begins with the new one: 62, and 100 × 0.20 + 900 × 0.01.
    let november = cli.succeed(&["invoice", "--period", "2026-11"]).await;
    assert!(november.contains("91.00 USD"), "{november}");
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_split_has_its_own_version_and_tiers_go_on() {
    let (world, cli) = used(SPLIT).await;
    assert_eq!(
        finalize(&cli).await,
        [
            "2 invoices issued",
            "INV-000001   acme                                6 lines              55.50 USD",
            "INV-000002   globex                              4 lines              38.00 USD",
        ]
    );
    let (first, second) = (
        ["2026-09-30T22:00:00Z", "2026-10-25T23:00:00Z"],
        ["2026-10-25T23:00:00Z", "2026-10-31T23:00:00Z"],
    );
    // The fee is for 25 and 6 of 31 days. Of 80 units each costs 0.10; of the next 70, 20 cost 0.20 and 50 cost 0.01. The two
    // calls of the first part were free, so the next two cost 3 each.
    let expected: Vec<Vec<&str>> = [
        (["acme", "base", "1", "-", "25.0000"], first),
        (["acme", "base", "2", "-", "12.0000"], second),
        (["acme", "used", "1", "80", "8.0000"], first),
        (["acme", "used", "2", "70", "4.5000"], second),
        (["acme", "by_call", "1", "2", "0.0000"], first),
        (["acme", "by_call", "2", "2", "6.0000"], second),
        (["globex", "base", "1", "-", "25.0000"], first),
        (["globex", "base", "2", "-", "12.0000"], second),
        (["globex", "used", "2", "5", "1.0000"], second),
        (["globex", "by_call", "2", "1", "0.0000"], second),
    ]
    .map(|(line, part)| [&line[..], &part].concat())
    .into();
    assert_eq!(cli.query(LINES).await, expected);
    // One customer's draft is made of that customer's usage alone.
    let draft = ["invoice", "--period", "2026-10", "--customer", "globex"];
    let draft = cli.succeed(&draft).await;
    assert!(draft.contains("38.00 USD"), "{draft}");

    // Late usage of the first part moves the second's tiers: 130 are 11.50, and from 130 to 200 is 0.70; three calls
    // are 1.00, and the next two 6.00.
    assert_eq!(
        finalize(&cli).await,
        ["0 invoices issued, 2 were issued before"]
    );
    call(&world, "g", "acme", "2026-10-10T10:00:00Z", 50).await;
    cli.run_to_end().await;
    assert_eq!(
        finalize(&cli).await,
        [
            "0 invoices issued, 2 were issued before; usage has changed since, and is not invoiced yet, for: acme",
            "changed      acme                             INV-000001 was 55.5, would be 56.2 now: 0.7 USD on no \
             invoice, because usage has changed",
        ]
    );
    // A split that is taken back is an edit of the prices.
    world.write("definitions/all.sql", &definitions(NEXT));
    let edited = finalize(&cli).await;
    assert!(
        edited[0].ends_with(
            "price `base`, price `by_call`, price `used` has changed since, and is not invoiced yet, for: globex; usage, \
             price `base`, price `by_call`, price `used` has changed since, and is not invoiced yet, for: acme"
        ) || edited[0].contains("price `base`, price `by_call`, price `used` has changed since"),
        "{edited:#?}"
    );
}

/// Two versions in one month, the second on the last day; a version between them that does not split applies nowhere here.
#[tokio::test(flavor = "multi_thread")]
async fn several_versions_may_split_one_period() {
    let more = "
CREATE OR REPLACE PRICE used WITH (currency = 'USD', effective_from = '2026-10-28') AS SELECT customer, n AS quantity, n * 1000.00 AS amount FROM calls;
CREATE OR REPLACE PRICE used WITH (currency = 'USD', effective_from = '2026-10-31', on_change = 'split') AS
SELECT customer, n AS quantity, n * 2.00 AS amount FROM calls;
";
    let world = World::new(&(definitions(SPLIT) + more)).await;
    let cli = world
        .cli()
        .with("TOLLGATE_BILLING_TIME_ZONE", "Europe/Berlin");
    for (id, time, n) in [
        ("a", "2026-10-02T10:00:00Z", 80),
        ("b", "2026-10-30T22:59:59.999999Z", 30),
        ("c", "2026-10-30T23:00:00Z", 7),
    ] {
        call(&world, id, "acme", time, n).await;
    }
    cli.run_to_end().await;
    finalize(&cli).await;
    let used = cli
        .query("SELECT price_version, quantity, CAST(amount AS VARCHAR) FROM line_items WHERE price = 'used' ORDER BY line")
        .await;
    // 80 × 0.10; 20 × 0.20 + 10 × 0.01; 7 × 2.
    assert_eq!(
        used,
        [
            ["1", "80", "8.0000"],
            ["2", "30", "4.1000"],
            ["4", "7", "14.0000"]
        ]
    );
}
