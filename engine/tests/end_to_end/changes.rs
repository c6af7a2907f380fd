//! What a billing job says when what it issued would be another invoice now: every kind of change, both ways, with
//! the amounts and the cause; and that nothing is billed twice.

use crate::world::{Cli, World};
use std::{fs, sync::Arc};
use tollgate::{
    billing::{self, kept::restore},
    catalog::Catalog,
    view::View,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{invoice::basis::Basis, period::Period};

const UNITS: &str = "
CREATE EVENT TYPE unit (n BIGINT NOT NULL) WITH (type = 'unit');
CREATE METER units WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(n) AS n FROM unit GROUP BY subject;
CREATE RATE TABLE rates (rate DECIMAL(9, 4) NOT NULL) WITH (location = 'rates.csv');
CREATE PRICE used WITH (currency = 'USD') AS
SELECT u.customer, u.n AS quantity, u.n * r.rate AS amount FROM units u CROSS JOIN rates r WHERE u.n > 0;
CREATE PLAN payg WITH (currency = 'USD') AS (used);
";

async fn send(world: &World, id: &str, subject: &str, time: &str, n: i64) {
    let event = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"unit","subject":"{subject}","time":"{time}","data":{{"n":{n}}}}}"#
    );
    world.send(&[], &event).await;
}

/// September: acme used 100 and globex 7, at 1.00 each.
async fn issued(definitions: &str) -> (World, Cli) {
    let world = World::new(definitions).await;
    world.write("definitions/rates.csv", "rate\n1.0\n");
    let cli = world.cli();
    send(&world, "1", "acme", "2026-09-10T10:00:00Z", 100).await;
    send(&world, "2", "globex", "2026-09-11T10:00:00Z", 7).await;
    cli.run_to_end().await;
    assert_eq!(
        finalize(&cli, "2026-09").await,
        [
            "2 invoices issued",
            "INV-000001   acme                                1 lines             100.00 USD",
            "INV-000002   globex                              1 lines               7.00 USD",
        ]
    );
    (world, cli)
}

async fn finalize(cli: &Cli, period: &str) -> Vec<String> {
    let text = cli
        .succeed(&["invoice", "--period", period, "--finalize"])
        .await;
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_is_taken_back_is_reported_though_no_charge_is_left() {
    let (world, cli) = issued(UNITS).await;
    send(&world, "3", "acme", "2026-09-12T10:00:00Z", -100).await;
    cli.run_to_end().await;
    let changed = "changed      acme                             INV-000001 was 100, would be 0 now: -100 USD on no \
                   invoice, because usage has changed";
    assert_eq!(
        finalize(&cli, "2026-09").await,
        [
            "0 invoices issued, 2 were issued before; usage has changed since, and is not invoiced yet, for: acme",
            changed
        ]
    );
    // A draft says so too.
    let draft = cli.succeed(&["invoice", "--period", "2026-09"]).await;
    assert_eq!(draft.lines().last(), Some(changed));
    // Who is asked for alone is told of alone.
    let globex = [
        "invoice",
        "--period",
        "2026-09",
        "--finalize",
        "--customer",
        "globex",
    ];
    let globex = cli.succeed(&globex).await;
    assert_eq!(globex, "0 invoices issued, 1 were issued before\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_rate_or_price_is_not_called_usage() {
    let (world, cli) = issued(UNITS).await;
    world.write("definitions/rates.csv", "rate\n2\n");
    assert_eq!(
        finalize(&cli, "2026-09").await,
        [
            "0 invoices issued, 2 were issued before; rate table `rates` has changed since, and is not invoiced yet, \
             for: acme, globex",
            "changed      acme                             INV-000001 was 100, would be 200 now: 100 USD on no \
             invoice, because rate table `rates` has changed",
            "changed      globex                           INV-000002 was 7, would be 14 now: 7 USD on no invoice, \
             because rate table `rates` has changed",
        ]
    );
    world.write("definitions/rates.csv", "rate\n1.0000\n");
    assert_eq!(
        finalize(&cli, "2026-09").await,
        ["0 invoices issued, 2 were issued before"]
    );
    let dearer = UNITS.replace("u.n * r.rate AS", "u.n * r.rate * 3 AS");
    world.write("definitions/all.sql", &dearer);
    send(&world, "3", "globex", "2026-09-12T10:00:00Z", 1).await;
    cli.run_to_end().await;
    assert_eq!(
        finalize(&cli, "2026-09").await[0],
        "0 invoices issued, 2 were issued before; price `used` has changed since, and is not invoiced yet, for: acme; \
         usage, price `used` has changed since, and is not invoiced yet, for: globex"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issued_period_can_be_rated_again_by_definitions_that_are_gone() {
    let (world, cli) = issued(UNITS).await;
    send(&world, "3", "acme", "2026-09-12T10:00:00Z", 5).await;
    cli.run_to_end().await;
    let (measured, _) = UNITS.split_once("CREATE RATE TABLE").unwrap();
    let without_prices = format!("{measured}CREATE PLAN payg WITH (currency = 'USD') AS ();");
    world.write("definitions/all.sql", &without_prices);
    fs::remove_file(world.path("definitions/rates.csv")).unwrap();
    let settings = cli.settings();
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base);
    let lake = lake.await.unwrap();
    let now = Catalog::load(&settings).await.unwrap();
    assert!(now.definitions.prices.is_empty());
    let basis = cli.query("SELECT basis FROM invoices WHERE customer = 'acme'");
    let basis = Basis::from_json(&basis.await[0][0]).unwrap();
    let kept = restore(&lake, &basis.rated_by).await.unwrap().unwrap();
    let view = View::open(Arc::new(kept.catalog(&now)), &lake)
        .await
        .unwrap();
    let period = Period::month("2026-09", basis.zone.as_deref().unwrap()).unwrap();
    let drafts = billing::draft(&view, &settings.billing, &period).await;
    let totals = drafts.unwrap().invoices.into_iter();
    let totals: Vec<(String, String)> = totals
        .map(|invoice| (invoice.customer, invoice.total.amount_text()))
        .collect();
    // 100 and 5 units at 1.00, and 7.
    assert_eq!(
        totals,
        [
            ("acme".to_owned(), "105.00".to_owned()),
            ("globex".to_owned(), "7.00".to_owned())
        ]
    );
}

/// A customer without a rate cannot be told to be billed less: it may not stand in the way of another who is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_missing_stops_its_own_customer_alone_whichever_is_asked_for() {
    let fees = UNITS
        .replace("rate DECIMAL(9, 4) NOT NULL", "customer VARCHAR NOT NULL, amount DECIMAL(9, 4)")
        .replace(
            "SELECT u.customer, u.n AS quantity, u.n * r.rate AS amount FROM units u CROSS JOIN rates r WHERE u.n > 0",
            "SELECT customer, amount FROM rates",
        );
    let world = World::new(&fees).await;
    world.write("definitions/rates.csv", "customer,amount\nbig-corp,100\n");
    let cli = world.cli();
    send(&world, "1", "acme", "2026-09-10T10:00:00Z", 1).await;
    cli.run_to_end().await;
    let finalize = |customer| {
        [
            "invoice",
            "--period",
            "2026-09",
            "--finalize",
            "--customer",
            customer,
        ]
    };
    assert_eq!(
        cli.succeed(&finalize("big-corp")).await,
        "1 invoices issued\nINV-000001   big-corp                            1 lines             100.00 USD\n"
    );
    world.write(
        "definitions/rates.csv",
        "customer,amount\nbig-corp,\nother-corp,7\n",
    );
    assert_eq!(
        cli.succeed(&finalize("other-corp")).await,
        "1 invoices issued\nINV-000002   other-corp                          1 lines               7.00 USD\n"
    );
    // Who is asked for is told of, and all others are not.
    let ran = cli.run(&finalize("big-corp")).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(1), "0 invoices issued, 1 were issued before\n")
    );
    assert!(
        ran.stderr.contains("no invoice for customer `big-corp`: "),
        "{ran:#?}"
    );
    assert!(!ran.stderr.contains("other-corp"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_that_are_worth_something_else_are_a_changed_plan_and_price() {
    let credits = |worth: &str| {
        let used = "CREATE PRICE used WITH (currency = 'credits') AS SELECT customer, n AS quantity, n * 0.5 AS amount FROM units;";
        let before = UNITS.split("CREATE PRICE").next().unwrap();
        format!(
            "{before} CREATE CURRENCY credits WITH (digits = 2); {used}
             CREATE PLAN payg WITH (currency = 'USD', worth = '1 credits = {worth} USD') AS (used);"
        )
    };
    // acme 100 × 0.5 credits, globex 7 × 0.5, at two dollars.
    let (world, cli) = issued(&credits("2")).await;
    let lines = "SELECT customer, amount_exact, CAST(amount AS VARCHAR), currency FROM line_items ORDER BY customer";
    assert_eq!(
        cli.query(lines).await,
        [
            ["acme", "100", "100.0000", "USD"],
            ["globex", "7", "7.0000", "USD"]
        ]
    );
    world.write("definitions/all.sql", &credits("2.0"));
    assert_eq!(
        finalize(&cli, "2026-09").await,
        ["0 invoices issued, 2 were issued before"]
    );
    world.write("definitions/all.sql", &credits("3"));
    assert_eq!(
        finalize(&cli, "2026-09").await,
        [
            "0 invoices issued, 2 were issued before; plan `payg`, price `used` has changed since, and is not invoiced yet, for: acme, \
             globex",
            "changed      acme                             INV-000001 was 100, would be 150 now: 50 USD on no invoice, because \
             plan `payg`, price `used` has changed",
            "changed      globex                           INV-000002 was 7, would be 10.5 now: 3.5 USD on no invoice, because \
             plan `payg`, price `used` has changed",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_that_a_rate_table_moves_is_not_billed_under_another_name() {
    let payers = UNITS
        .replace("rate DECIMAL(9, 4) NOT NULL", "subject VARCHAR NOT NULL, payer VARCHAR NOT NULL")
        .replace("SELECT u.customer, u.n AS quantity, u.n * r.rate AS amount FROM units u CROSS JOIN rates r",
                 "SELECT r.payer AS customer, u.n AS quantity, u.n * 1.00 AS amount FROM units u \
                  JOIN rates r ON r.subject = u.subject");
    let world = World::new(&payers).await;
    world.write("definitions/rates.csv", "subject,payer\nacme,big-corp\n");
    let cli = world.cli();
    send(&world, "1", "acme", "2026-09-10T10:00:00Z", 100).await;
    cli.run_to_end().await;
    let first = "INV-000001   big-corp                            1 lines             100.00 USD";
    assert_eq!(
        finalize(&cli, "2026-09").await,
        ["1 invoices issued", first]
    );
    world.write("definitions/rates.csv", "subject,payer\nacme,other-corp\n");
    let ran = cli
        .run(&["invoice", "--period", "2026-09", "--finalize"])
        .await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains(
            "1 customers get no invoice, the others do:\n  `other-corp`: its 100.00 USD may be a part of what invoice \
             INV-000001 of `big-corp` billed: that was 100, and would be 0 now, because rate table `rates` has changed"
        ),
        "{ran:#?}"
    );
    assert_eq!(
        cli.query("SELECT SUM(total) FROM invoices").await,
        [["100.0000"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_billed_is_not_billed_again_where_it_ends_now() {
    let sessions = UNITS.replace("'1 hour', lateness = '10 minutes'", "'session 30 minutes'");
    let world = World::new(&sessions).await;
    world.write("definitions/rates.csv", "rate\n1.0\n");
    let cli = world.cli();
    send(&world, "1", "acme", "2026-09-30T23:20:00Z", 100).await;
    send(&world, "2", "globex", "2026-10-05T10:00:00Z", 5).await;
    cli.run_to_end().await;
    assert_eq!(finalize(&cli, "2026-09").await[0], "1 invoices issued");
    // Ten minutes later an event from before midnight arrives: the session ends in October now.
    send(&world, "3", "acme", "2026-09-30T23:45:00Z", 1).await;
    cli.run_to_end().await;
    assert_eq!(
        finalize(&cli, "2026-09").await[0],
        "0 invoices issued, 1 were issued before; usage has changed since, and is not invoiced yet, for: acme"
    );
    let ran = cli
        .run(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains(
            "1 customers get no invoice, the others do:\n  `acme`: a session that ends in this period began before it, \
             and invoice INV-000001 billed 100 for that time, which would be 0 now: an invoice of 101.00 USD would \
             bill a part of it twice"
        ),
        "{ran:#?}"
    );
    let billed = "SELECT customer, total FROM invoices ORDER BY serial";
    assert_eq!(
        cli.query(billed).await,
        [["acme", "100.0000"], ["globex", "5.0000"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_not_billed_while_what_was_billed_of_it_cannot_be_told() {
    let sessions = UNITS
        .replace("'1 hour', lateness = '10 minutes'", "'session 30 minutes'")
        .replace("n BIGINT NOT NULL", "n BIGINT NOT NULL, code VARCHAR");
    let codes = "CREATE METER codes WITH (window = '1 hour') AS
                 SELECT subject, SUM(CAST(code AS BIGINT)) AS code FROM unit WHERE code IS NOT NULL GROUP BY subject;";
    let world = World::new(&format!("{sessions}{codes}")).await;
    world.write("definitions/rates.csv", "rate\n1.0\n");
    let cli = world.cli();
    send(&world, "1", "acme", "2026-09-30T23:20:00Z", 100).await;
    cli.run_to_end().await;
    assert_eq!(finalize(&cli, "2026-09").await[0], "1 invoices issued");
    // The session moves into October, and an event of September cannot be measured.
    send(&world, "2", "acme", "2026-09-30T23:45:00Z", 1).await;
    let event = r#"{"specversion":"1.0","id":"3","source":"test","type":"unit","subject":"acme","time":"2026-09-12T10:00:00Z","data":{"n":0,"code":"x7"}}"#;
    world.send(&[], event).await;
    cli.run_to_end().await;
    let ran = cli
        .run(&["invoice", "--period", "2026-10", "--finalize"])
        .await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains(
            "1 customers get no invoice, the others do:\n  `acme`: a session that ends in this period began before it, \
             and it cannot be told whether invoice INV-000001 billed a part of it: an event cannot be measured"
        ),
        "{ran:#?}"
    );
    assert_eq!(
        cli.query("SELECT customer, total FROM invoices").await,
        [["acme", "100.0000"]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_always_ended_in_the_next_period_is_billed_there() {
    let sessions = UNITS.replace("'1 hour', lateness = '10 minutes'", "'session 30 minutes'");
    let world = World::new(&sessions).await;
    world.write("definitions/rates.csv", "rate\n1.0\n");
    let cli = world.cli();
    send(&world, "1", "acme", "2026-09-10T10:00:00Z", 3).await;
    send(&world, "2", "acme", "2026-09-30T23:50:00Z", 100).await;
    send(&world, "3", "acme", "2026-10-01T00:10:00Z", 1).await;
    cli.run_to_end().await;
    for (period, total) in [("2026-09", "3.00"), ("2026-10", "101.00")] {
        let text = finalize(&cli, period).await;
        assert!(text[1].ends_with(&format!("{total} USD")), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_change_of_the_billing_zone_leaves_between_two_periods_is_reported() {
    let (world, cli) = issued(UNITS).await;
    // September of UTC ends at midnight, October in New York begins four hours later.
    send(&world, "3", "acme", "2026-10-01T02:30:00Z", 40).await;
    send(&world, "4", "acme", "2026-10-20T00:00:00Z", 2).await;
    cli.run_to_end().await;
    let new_york = cli.with("TOLLGATE_BILLING_TIME_ZONE", "America/New_York");
    assert_eq!(
        finalize(&new_york, "2026-10").await,
        [
            "1 invoices issued",
            "INV-000003   acme                                1 lines               2.00 USD",
            "unbilled     acme                             40.00 USD from 2026-10-01T00:00:00Z to \
             2026-10-01T04:00:00Z, which is in no billing period",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_invoice_has_billed_is_a_relation() {
    let (world, cli) = issued(UNITS).await;
    let query = "SELECT customer, plan, CAST(period_start AS DATE), CAST(period_end AS DATE), number, currency,
                 CAST(amount AS DECIMAL(38, 2)), cause FROM unissued ORDER BY 1, 3";
    assert_eq!(cli.query(query).await, Vec::<Vec<String>>::new());
    // Less for acme in September, usage of globex in August and of a new customer in both.
    for (id, customer, time, n) in [
        ("3", "acme", "2026-09-12T10:00:00Z", -30),
        ("4", "globex", "2026-08-12T10:00:00Z", 4),
        ("5", "new", "2026-08-31T23:59:59Z", 5),
        ("6", "new", "2026-09-01T00:00:00Z", 6),
    ] {
        send(&world, id, customer, time, n).await;
    }
    cli.run_to_end().await;
    let row = |customer: &str, start: &str, end: &str, number: &str, amount: &str, cause: &str| {
        [customer, "payg", start, end, number, "USD", amount, cause]
            .map(str::to_owned)
            .to_vec()
    };
    let (august, september, october) = ("2026-08-01", "2026-09-01", "2026-10-01");
    let none = "no invoice was issued";
    assert_eq!(
        cli.query(query).await,
        [
            row(
                "acme",
                september,
                october,
                "INV-000001",
                "-30.00",
                "usage has changed since it was issued"
            ),
            row("globex", august, september, "", "4.00", none),
            row("new", august, september, "", "5.00", none),
            row("new", september, october, "", "6.00", none),
        ]
    );
    // All of it: 70, 7 + 4, 5 + 6.
    let whole = "SELECT CAST(SUM(amount) AS DECIMAL(38, 2)) FROM
                 (SELECT total AS amount FROM invoices UNION ALL SELECT amount FROM unissued) AS t";
    assert_eq!(cli.query(whole).await, [["92.00"]]);
    // What is issued is unissued no more.
    cli.succeed(&["invoice", "--period", "2026-08", "--finalize"])
        .await;
    assert_eq!(cli.query("SELECT COUNT(*) FROM unissued").await, [["2"]]);
    assert_eq!(cli.query(whole).await, [["92.00"]]);
}

/// Customer, plan, start, number, amount and cause of what is unissued.
const UNISSUED: &str = "SELECT customer, plan, CAST(period_start AS VARCHAR), number, CAST(amount AS DECIMAL(38, 2)), cause
                        FROM unissued ORDER BY 1, 3";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unissued_of_a_period_before_every_price_cannot_be_told_and_the_rest_can() {
    let world = World::new(&UNITS.replace(
        "currency = 'USD') AS\nSELECT",
        "currency = 'USD', effective_from = '2026-09-01') AS\nSELECT",
    ))
    .await;
    world.write("definitions/rates.csv", "rate\n1.0\n");
    let cli = world.cli();
    for (id, customer, time, n) in [
        ("1", "acme", "2026-08-10T10:00:00Z", 100),
        ("2", "acme", "2026-09-10T10:00:00Z", 5),
        ("3", "globex", "2026-09-10T10:00:00Z", 7),
    ] {
        send(&world, id, customer, time, n).await;
    }
    cli.run_to_end().await;
    let cause = "it cannot be told: no version of price `used` is effective on 2026-08-01; give it an earlier \
                 effective_from, or take it out of the plan";
    let (august, september) = ("2026-08-01T00:00:00Z", "2026-09-01T00:00:00Z");
    let none = "no invoice was issued";
    assert_eq!(
        cli.query(UNISSUED).await,
        [
            ["acme", "payg", august, "", "", cause],
            ["acme", "payg", september, "", "5.00", none],
            ["globex", "payg", september, "", "7.00", none],
        ]
    );
    // A job for that period says so and stops; one for the next is not concerned.
    let ran = cli.run(&["invoice", "--period", "2026-08"]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert_eq!(finalize(&cli, "2026-09").await[0], "2 invoices issued");
}

/// Two plans: a unit costs 1.00 in `payg` and 2.00 in `dear`.
fn two_plans() -> String {
    format!(
        "{UNITS}
         CREATE PRICE dear_used WITH (currency = 'USD') AS SELECT customer, n AS quantity, n * 2.00 AS amount FROM units;
         CREATE PLAN dear WITH (currency = 'USD') AS (dear_used);"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issued_invoice_is_compared_by_its_own_plan() {
    let (world, cli) = issued(&two_plans()).await;
    let dear = cli.with("TOLLGATE_BILLING_DEFAULT_PLAN", "dear");
    // Nothing has changed, on either plan.
    assert_eq!(dear.query(UNISSUED).await, Vec::<Vec<String>>::new());
    send(&world, "3", "new", "2026-09-12T10:00:00Z", 6).await;
    cli.run_to_end().await;
    // A customer on the other plan, in the same period.
    let all = dear.succeed(&["invoice", "--period", "2026-09"]).await;
    assert!(!all.contains("changed"), "{all}");
    let own = [
        "invoice",
        "--period",
        "2026-09",
        "--finalize",
        "--customer",
        "new",
    ];
    let own = dear.succeed(&own).await;
    assert_eq!(
        own.lines().collect::<Vec<_>>(),
        [
            "1 invoices issued",
            "INV-000003   new                                 1 lines              12.00 USD"
        ]
    );
    assert_eq!(dear.query(UNISSUED).await, Vec::<Vec<String>>::new());
    assert_eq!(cli.query(UNISSUED).await, Vec::<Vec<String>>::new());
    // Three more units of each: 3.00 on one plan, 6.00 on the other, whatever the default is.
    send(&world, "4", "acme", "2026-09-13T10:00:00Z", 3).await;
    send(&world, "5", "new", "2026-09-13T10:00:00Z", 3).await;
    cli.run_to_end().await;
    let cause = "usage has changed since it was issued";
    let start = "2026-09-01T00:00:00Z";
    for cli in [&cli, &dear] {
        assert_eq!(
            cli.query(UNISSUED).await,
            [
                ["acme", "payg", start, "INV-000001", "3.00", cause],
                ["new", "dear", start, "INV-000003", "6.00", cause],
            ]
        );
        let text = cli.succeed(&["invoice", "--period", "2026-09"]).await;
        let changed: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("changed"))
            .collect();
        assert_eq!(
            changed,
            [
                "changed      acme                             INV-000001 was 100, would be 103 now: 3 USD on no \
                 invoice, because usage has changed",
                "changed      new                              INV-000003 was 12, would be 18 now: 6 USD on no \
                 invoice, because usage has changed",
            ]
        );
    }
    // A plan that is gone tells nothing of its invoices.
    world.write("definitions/all.sql", UNITS);
    let gone = "it cannot be told: plan `dear` is not defined any more; define it again: what was issued on a plan is \
                compared by it";
    assert_eq!(
        cli.query(UNISSUED).await,
        [
            ["acme", "payg", start, "INV-000001", "3.00", cause],
            ["new", "dear", start, "INV-000003", "", gone],
        ]
    );
    let text = cli.succeed(&["invoice", "--period", "2026-09"]).await;
    assert_eq!(
        text.lines().last(),
        Some(
            "changed?     new                              INV-000003 was 12 USD; what it would be now cannot be told: \
             plan `dear` is not defined any more; define it again: what was issued on a plan is compared by it"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_billed_on_another_plan_is_compared_by_that_plan() {
    let sessions = two_plans().replace("'1 hour', lateness = '10 minutes'", "'session 30 minutes'");
    let world = World::new(&sessions).await;
    world.write("definitions/rates.csv", "rate\n1.0\n");
    let cli = world.cli();
    send(&world, "1", "acme", "2026-09-10T10:00:00Z", 3).await;
    send(&world, "2", "acme", "2026-09-30T23:50:00Z", 100).await;
    send(&world, "3", "acme", "2026-10-01T00:10:00Z", 1).await;
    cli.run_to_end().await;
    assert_eq!(finalize(&cli, "2026-09").await[0], "1 invoices issued");
    // The session ended in October always: the invoice of September is what it was, on its own plan.
    let dear = cli.with("TOLLGATE_BILLING_DEFAULT_PLAN", "dear");
    assert_eq!(
        finalize(&dear, "2026-10").await,
        [
            "1 invoices issued",
            "INV-000002   acme                                1 lines             202.00 USD"
        ]
    );
}

/// Units by the day: each costs 31.00 divided by the days of the period, so a wrong count of days is another amount.
const BY_DAY: &str = "
CREATE EVENT TYPE unit (n BIGINT NOT NULL) WITH (type = 'unit');
CREATE METER units WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(n) AS n FROM unit GROUP BY subject;
CREATE PRICE used WITH (currency = 'USD') AS
SELECT u.customer, u.n * s.period_days AS amount FROM units u JOIN subscription s ON s.customer = u.customer;
CREATE OR REPLACE PRICE used WITH (currency = 'USD', effective_from = '2026-10-01') AS
SELECT u.customer, u.n * s.period_days * 2 AS amount FROM units u JOIN subscription s ON s.customer = u.customer;
CREATE PLAN payg WITH (currency = 'USD') AS (used);
";

#[tokio::test(flavor = "multi_thread")]
async fn an_issued_invoice_is_compared_by_the_calendar_it_was_issued_by() {
    let world = World::new(BY_DAY).await;
    let berlin = world
        .cli()
        .with("TOLLGATE_BILLING_TIME_ZONE", "Europe/Berlin");
    send(&world, "1", "acme", "2026-10-20T10:00:00Z", 1).await;
    berlin.run_to_end().await;
    // October of Berlin: 31 days at the price of October, from 30 September, 22:00 UTC.
    assert_eq!(
        finalize(&berlin, "2026-10").await,
        [
            "1 invoices issued",
            "INV-000001   acme                                1 lines              62.00 USD"
        ]
    );
    let utc = berlin.with("TOLLGATE_BILLING_TIME_ZONE", "UTC");
    assert_eq!(utc.query(UNISSUED).await, Vec::<Vec<String>>::new());
    send(&world, "2", "acme", "2026-10-21T10:00:00Z", 1).await;
    berlin.run_to_end().await;
    let cause = "usage has changed since it was issued";
    assert_eq!(
        utc.query(UNISSUED).await,
        [[
            "acme",
            "payg",
            "2026-09-30T22:00:00Z",
            "INV-000001",
            "62.00",
            cause
        ]]
    );
}
