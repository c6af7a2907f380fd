//! Prices before they are published: what `tollgate price` says that some usage costs, and what `tollgate check` warns of.

use crate::world::{Cli, World};
use std::{fs, path::Path};

/// A definitions folder of files of the cookbook.
fn cookbook(files: &[&str]) -> (World, Cli) {
    let world = World::offline();
    for file in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../examples/prices")
            .join(file);
        world.write(
            &format!("definitions/{file}"),
            &fs::read_to_string(path).unwrap(),
        );
    }
    let cli = world.cli();
    (world, cli)
}

async fn price(cli: &Cli, arguments: &[&str]) -> Vec<String> {
    let said = cli.succeed(&[&["price"], arguments].concat()).await;
    said.lines().map(str::to_owned).collect()
}

async fn refused(cli: &Cli, arguments: &[&str]) -> String {
    let ran = cli.run(&[&["price"], arguments].concat()).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:#?}");
    ran.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_says_what_some_usage_costs_with_its_rate_table() {
    let (world, cli) = cookbook(&["tokens_per_million.sql", "tokens_per_million.csv"]);
    let usage = "model=sage-2, batch=false, fresh=400000, cached=800000, output=50000";
    // 0.4 × 3 + 0.8 × 0.30 + 0.05 × 15
    let expected = [
        "price tokens_per_million, version 1, ./definitions/tokens_per_million.sql:26:14",
        "  acme, model sage-2, batch false: quantity 1250000, amount 2.19, on the invoice 2.19 USD",
        "total 2.19 USD",
    ];
    for name in ["tokens_per_million", "payg"] {
        let said = price(&cli, &[name, "--subject", "acme", "--input", usage]).await;
        assert_eq!(said, expected);
    }
    // Two rows, the same subject paid by another customer; a batch costs half of 2 × 3.
    let batch = "tokens: model=sage-2, batch=true, fresh=2000000";
    let arguments = [
        "payg",
        "--subject",
        "robot",
        "--customer",
        "acme",
        "--input",
        usage,
        "--input",
        batch,
    ];
    assert_eq!(
        price(&cli, &arguments).await[1..],
        [
            "  acme, model sage-2, batch false: quantity 1250000, amount 2.19, on the invoice 2.19 USD",
            "  acme, model sage-2, batch true: quantity 2000000, amount 3, on the invoice 3.00 USD",
            "total 5.19 USD",
        ]
    );
    // A model without a rate has no price, as on an invoice.
    let unknown = refused(
        &cli,
        &["payg", "--input", "model=sage-9, batch=false, fresh=1"],
    )
    .await;
    assert!(
        unknown.contains("price `tokens_per_million`: the amount is NULL for customer `example`"),
        "{unknown}"
    );
    // Nothing was written.
    assert!(!world.path("lake").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_are_shown_one_by_one() {
    let (_world, cli) = cookbook(&["storage.sql"]);
    assert_eq!(
        price(&cli, &["storage", "--input", "gb_months=210"]).await,
        [
            "price storage, version 1, ./definitions/storage.sql:8:14",
            "  example: quantity 210, amount 4.61, on the invoice 4.61 USD",
            "    graduated(210, tiers) is 4.61",
            // 100 × 0.023 and 110 × 0.021
            "      up to 100: 100 for 2.3",
            "      above 100: 110 for 2.31",
            "total 4.61 USD",
        ]
    );
    // The boundary is in the first tier.
    assert_eq!(
        price(&cli, &["storage", "--input", "gb_months=100"]).await[2..],
        [
            "    graduated(100, tiers) is 2.3",
            "      up to 100: 100 for 2.3",
            "total 2.30 USD",
        ]
    );
    let (_world, cli) = cookbook(&["messages.sql"]);
    assert_eq!(
        price(&cli, &["messages", "--input", "segments=1001"]).await[1..],
        [
            // 1,001 × 0.0075
            "  example: quantity 1001, amount 7.5075, on the invoice 7.51 USD",
            "    volume(1001, tiers) is 7.5075",
            "      above 1000 up to 10000: 1001 for 7.5075",
            "total 7.51 USD",
        ]
    );
    let (_world, cli) = cookbook(&["premium_requests.sql", "premium_requests.csv"]);
    assert_eq!(
        price(
            &cli,
            &[
                "developer",
                "--input",
                "model=sage-max, requests=40",
                "--input",
                "model=owl-1, requests=9"
            ]
        )
        .await[1..],
        [
            // 40 × 10 + 9 × 0, of which 300 are free: 100 × 0.04
            "  example: quantity 400, amount 4, on the invoice 4.00 USD",
            "    per_unit(400, 0.04, 300) is 4",
            "total 4.00 USD",
        ]
    );
    assert_eq!(
        price(&cli, &["developer"]).await[1..],
        [
            "  no usage is given of `requests`",
            "  no line: the price returns no row for this usage"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_are_worth_what_the_plan_says_and_rounded_there() {
    let (_world, cli) = cookbook(&["credits.sql"]);
    let usage = "kind=text, tasks=1, tokens=13000";
    let said = async |name: &str| price(&cli, &[name, "--input", usage]).await[1..].to_vec();
    // 1 + 13,000 × 0.000333 = 5.329 credits: 0.0666125 dollars, 0.063948 euros.
    assert_eq!(
        said("tasks").await,
        ["  example, kind text: quantity 1, amount 5.329, in all 5.33 credits"]
    );
    assert_eq!(
        said("pro").await,
        [
            "  example, kind text: quantity 1, amount 5.329, on the invoice 0.07 USD",
            "total 0.07 USD",
        ]
    );
    assert_eq!(
        said("pro_eu").await,
        [
            "  example, kind text: quantity 1, amount 5.329, on the invoice 0.06 EUR",
            "total 0.06 EUR",
        ]
    );
    let checked = cli.succeed(&["check"]).await;
    assert!(
        checked.contains(
            "\ncurrency credits: 2 digits\nprice tasks in credits\nplan pro in USD: tasks\n"
        ),
        "{checked}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_price_is_rounded_to_the_digits_of_credits() {
    let (world, cli) = cookbook(&["credits.sql"]);
    let rounded = |currency: &str| {
        format!(
            "CREATE PRICE rounded WITH (currency = 'credits') AS
             SELECT customer, round_money(SUM(tokens) * 0.000333, '{currency}') * 3 AS amount FROM tasks GROUP BY customer;"
        )
    };
    world.write("definitions/rounded.sql", &rounded("credits"));
    let usage = "kind=text, tasks=1, tokens=13000";
    // 13,000 × 0.000333 is 4.329: three times 4.33, and not 12.987.
    let said = price(&cli, &["rounded", "--input", usage]).await;
    assert_eq!(said[1], "  example: amount 12.99, in all 12.99 credits");
    world.write("definitions/rounded.sql", &rounded("credit"));
    let said = refused(&cli, &["rounded", "--input", usage]).await;
    assert!(
        said.contains(
            "definitions/rounded.sql:2:31: price `rounded`: `round_money`: `currency` is credit, but must be a code of ISO 4217 such \
             as USD, or a name of CREATE CURRENCY"
        ),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_events_and_subscriptions_can_be_given() {
    let (_world, cli) = cookbook(&["gpu_surge.sql"]);
    // 16:00 and 17:00 of a Friday in Berlin.
    let arguments = [
        "gpus",
        "--period",
        "2026-10",
        "--input",
        "seconds=1000, window_start=2026-10-23T14:00:00Z",
        "--input",
        "seconds=200, window_start=2026-10-23T15:00:00Z",
    ];
    assert_eq!(
        price(&cli, &arguments).await[1..],
        [
            "  example, surge false: quantity 200, amount 0.16, on the invoice 0.16 USD",
            "  example, surge true: quantity 1000, amount 1.2, on the invoice 1.20 USD",
            "    per_unit(1000, 0.0012) is 1.2",
            "    per_unit(200, 0.0008) is 0.16",
            "total 1.36 USD",
        ]
    );
    let world = World::offline();
    world.write(
        "definitions/all.sql",
        "CREATE EVENT TYPE payment (amount DECIMAL(18, 2) NOT NULL) WITH (type = 'payment');
         CREATE PRICE each WITH (currency = 'EUR') AS
         SELECT customer, COUNT(*) AS payments, SUM(percentage(amount, 1.5, 0.10, 0, 0.25, 20)) AS amount FROM payment GROUP BY customer;
         CREATE PRICE base WITH (currency = 'EUR') AS
         SELECT customer, seats AS quantity, prorate(seats * 30.00, active_days, period_days) AS amount FROM subscription;
         CREATE PLAN shop WITH (currency = 'EUR') AS (each, base);",
    );
    let arguments = [
        "shop",
        "--period",
        "2026-11",
        "--input",
        "amount=5",
        "--input",
        "payment: amount=200",
        "--input",
        "subscription: seats=3, active_days=10",
    ];
    assert_eq!(
        price(&world.cli(), &arguments).await,
        [
            "price each, version 1, ./definitions/all.sql:2:23",
            // 5 × 1.5 % + 0.10 = 0.175, at least 0.25; 200 × 1.5 % + 0.10 = 3.10
            "  example, payments 2: amount 3.35, on the invoice 3.35 EUR",
            "    percentage(200, 1.5, 0.1, 0, 0.25, 20) is 3.1",
            "    percentage(5, 1.5, 0.1, 0, 0.25, 20) is 0.25",
            "price base, version 1, ./definitions/all.sql:4:23",
            // 3 × 30 × 10 / 30
            "  example: quantity 3, amount 30, on the invoice 30.00 EUR",
            "    prorate(90, 10, 30) is 30",
            "total 33.35 EUR",
        ]
    );
    assert_eq!(
        refused(&world.cli(), &["each", "--input", "event_id=7"]).await,
        "error: `payment` has a value of `amount` in every row: add amount=… to the input\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_a_period_is_tried_or_the_newest() {
    let world = World::offline();
    world.write(
        "definitions/all.sql",
        "CREATE EVENT TYPE call (n BIGINT) WITH (type = 'call');
         CREATE METER calls WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM call GROUP BY subject;
         CREATE PRICE calls WITH (currency = 'USD', effective_from = '2026-01-01') AS
         SELECT customer, SUM(n) * 2 AS amount FROM calls GROUP BY customer;
         CREATE OR REPLACE PRICE calls WITH (currency = 'USD', effective_from = '2099-01-01') AS
         SELECT customer, SUM(n) * 3 AS amount FROM calls GROUP BY customer;
         CREATE PLAN payg WITH (currency = 'USD') AS (calls);",
    );
    let cli = world.cli();
    let total = async |arguments: &[&str]| {
        let common = ["payg", "--input", "n=10"];
        price(&cli, &[&common, arguments].concat()).await.pop()
    };
    assert_eq!(total(&[]).await.as_deref(), Some("total 30.00 USD"));
    assert_eq!(
        total(&["--period", "2026-10"]).await.as_deref(),
        Some("total 20.00 USD")
    );
    let early = ["price", "calls", "--period", "2025-12", "--input", "n=1"];
    let early = cli.run(&early).await;
    assert_eq!(early.code, Some(1), "{early:#?}");
    assert_eq!(
        early.stderr,
        "error: no version of price `calls` is effective on 2025-12-01\n  hint: give it an earlier effective_from, or take it out of \
         the plan\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_is_not_what_the_price_reads_is_refused() {
    let (_world, cli) = cookbook(&["tokens_per_million.sql", "tokens_per_million.csv"]);
    for (name, input, message) in [
        (
            "tokens_per_milion",
            "fresh=1",
            "there is no price or plan `tokens_per_milion`; did you mean `tokens_per_million`? known prices and plans: \
             `tokens_per_million`, `payg`",
        ),
        (
            "payg",
            "frsh=1",
            "`tokens` has no column `frsh`; did you mean `fresh`? known columns: `batch`, `cached`, `fresh`, `model`, `output`",
        ),
        (
            "payg",
            "token: fresh=1",
            "no usage of `token` is read here; did you mean `tokens`? known relations: `tokens`",
        ),
        (
            "payg",
            "model=sage-2, batch=false, fresh=1.5",
            "`tokens`, column `fresh`: `1.5`: more than 0 digits after the point",
        ),
        (
            "payg",
            "model=sage-2, batch=maybe, fresh=1",
            "`tokens`, column `batch`: `maybe`: neither true nor false",
        ),
        (
            "payg",
            "fresh",
            "--input 'fresh': `fresh` has no `=`; write columns and values, such as 'model=sage-2, input=1200000'",
        ),
    ] {
        assert_eq!(
            refused(&cli, &[name, "--input", input]).await,
            format!("error: {message}\n")
        );
    }
    let same = [
        "payg",
        "--input",
        "model=a, batch=false, fresh=1",
        "--input",
        "model=a, batch=false, fresh=2",
    ];
    assert_eq!(
        refused(&cli, &same).await,
        "error: `tokens` is the total of the period, one row for each subject and `model`, `batch`: add the two inputs up\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_warns_of_what_is_lawful_and_likely_wrong() {
    let world = World::offline();
    world.write(
        "definitions/all.sql",
        "CREATE EVENT TYPE call (model VARCHAR NOT NULL, n BIGINT NOT NULL) WITH (type = 'call');
CREATE METER calls WITH (window = '1 hour') AS SELECT subject, model, SUM(n) AS n FROM call GROUP BY subject, model;
CREATE METER answers WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM call GROUP BY subject;
CREATE RATE TABLE rates (model VARCHAR PRIMARY KEY, rate DECIMAL(9, 4) NOT NULL) WITH (location = 'rates.csv');
CREATE PRICE free_when_unknown WITH (currency = 'USD') AS
SELECT c.customer, c.model, c.n * r.rate AS amount FROM calls c JOIN rates r ON r.model = c.model;
CREATE PRICE kept WITH (currency = 'USD') AS
SELECT c.customer, c.model, c.n * r.rate AS amount FROM calls c LEFT JOIN rates r ON r.model = c.model;
CREATE PRICE filtered WITH (currency = 'USD') AS
SELECT c.customer, c.model, c.n * r.rate AS amount FROM calls c LEFT JOIN rates r ON r.model = c.model WHERE r.rate > 0;
CREATE PRICE summed WITH (currency = 'USD') AS
SELECT c.customer, SUM(c.n * r.rate) AS amount FROM calls c LEFT JOIN rates r ON r.model = c.model GROUP BY c.customer;
CREATE PRICE defaulted WITH (currency = 'USD') AS
SELECT c.customer, SUM(c.n * COALESCE(r.rate, 1)) AS amount FROM calls c LEFT JOIN rates r ON r.model = c.model GROUP BY c.customer;
CREATE PRICE both WITH (currency = 'USD') AS
SELECT c.customer, SUM(c.n + a.n) AS amount FROM calls c JOIN answers a ON a.customer = c.customer GROUP BY c.customer;
CREATE PRICE subscribed WITH (currency = 'USD') AS
SELECT s.customer, SUM(a.n) AS amount FROM subscription s JOIN answers a ON a.customer = s.customer GROUP BY s.customer;
CREATE PRICE credit WITH (currency = 'USD') AS
SELECT customer, SUM(n) * 0.1 - 5 AS amount FROM answers GROUP BY customer;
CREATE PRICE dip WITH (currency = 'USD') AS
SELECT customer, volume(SUM(n), [{up_to: 100, unit_amount: 2}, {unit_amount: 1}]) AS amount FROM answers GROUP BY customer;
CREATE PRICE steps WITH (currency = 'USD') AS
SELECT customer, graduated(SUM(n), [{up_to: 100, unit_amount: 2}, {unit_amount: 1}]) AS amount FROM answers GROUP BY customer;
CREATE PRICE unused WITH (currency = 'USD') AS SELECT customer, SUM(n) AS amount FROM answers GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (free_when_unknown, kept, filtered, summed, defaulted, both, subscribed, credit, dip, steps);
CREATE PLAN trial WITH (currency = 'USD') AS ();
",
    );
    world.write("definitions/rates.csv", "model,rate\nowl,0.5\nsage,2\n");
    let ran = world.cli().run(&["check"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.stdout.lines().last(), Some("ok"));
    let left_out = "its JOIN with `rates` leaves out usage for which there is no row, and that usage is free\n  hint: write LEFT \
                    JOIN: a rate that is missing then makes the amount NULL, which stops that customer's invoice and no other";
    let expected = [
        format!("5:14: price `free_when_unknown`: {left_out}"),
        format!("9:14: price `filtered`: {left_out}"),
        "11:14: price `summed`: its SUM passes over usage for which `rates` has no row, and that usage is free where others in \
         the group have a rate\n  hint: group by `model` too, or compare COUNT of the rate with COUNT(*) in a CASE, so that the \
         amount is NULL then"
            .to_owned(),
        "15:14: price `both`: its JOIN of `calls` with `answers` leaves out who has usage in one of them alone, and that usage is \
         free\n  hint: write FULL JOIN and COALESCE, or price each of them by itself"
            .to_owned(),
        "19:14: price `credit`: its amount can be below zero: -5 USD where every measure is 0\n  hint: a credit may be meant; if it \
         is not, write GREATEST(…, 0) around the amount"
            .to_owned(),
        // 100 × 2 and 101 × 1
        "21:14: price `dip`: more usage costs less: 200 USD where every measure is 100, 101 USD where it is 101\n  hint: a volume \
         price does that at each tier; if it is not meant, use graduated, or a cap_amount for each tier"
            .to_owned(),
        "25:14: price `unused`: no plan has it, so it is never charged\n  hint: add it to a plan: CREATE PLAN … AS (…, unused)"
            .to_owned(),
        "27:13: plan `trial`: it has no price, so all usage on it is free\n  hint: list its prices: AS (price_one, price_two)"
            .to_owned(),
    ];
    let expected = expected.map(|warning| format!("warning: ./definitions/all.sql:{warning}\n"));
    assert_eq!(ran.stderr, expected.concat());
}
