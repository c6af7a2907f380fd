//! Faults stay small: what fails puts a group or a subject in error, and nothing else.

use crate::world::{Cli, World};

const DEFINITIONS: &str = "
CREATE EVENT TYPE img (kind VARCHAR NOT NULL, w DECIMAL(38, 0) NOT NULL, h DECIMAL(38, 0) NOT NULL, day VARCHAR)
WITH (type = 'img');
CREATE METER area WITH (window = '1 hour', lateness = '0 seconds') AS
SELECT subject, kind, SUM(w * h) AS area, COUNT(*) AS images FROM img GROUP BY subject, kind;
CREATE METER days WITH (window = '1 hour', lateness = '0 seconds') AS
SELECT subject, CAST(day AS DATE) AS day, COUNT(*) AS images FROM img GROUP BY subject, CAST(day AS DATE);
CREATE METER images WITH (window = '1 hour', lateness = '0 seconds') AS
SELECT subject, COUNT(*) AS images FROM img GROUP BY subject;
CREATE PRICE by_area WITH (currency = 'USD') AS
SELECT customer, SUM(area) AS quantity, per_unit(SUM(area), 0.5) AS amount FROM area GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (by_area);
";

/// 10^20: its square has 41 digits.
const LARGE: &str = "100000000000000000000";

fn event(
    id: &str,
    subject: &str,
    kind: &str,
    hour: u32,
    (w, h): (&str, &str),
    day: &str,
) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"img","subject":"{subject}","time":"2026-01-15T{hour:02}:00:00Z","data":{{"kind":"{kind}","w":{w},"h":{h},"day":"{day}"}}}}"#
    )
}

/// Six events of which two fail: one in `area`, for a product of 41 digits, one in `days`, whose group cannot be told.
fn events() -> Vec<String> {
    let day = "2026-01-15";
    vec![
        event("1", "honest", "png", 10, ("2", "3"), day),
        event("2", "evil", "png", 10, (LARGE, LARGE), day),
        event("3", "evil", "gif", 10, ("5", "5"), day),
        event("4", "evil", "png", 10, ("1", "1"), "soon"),
        event("5", "evil", "png", 11, ("7", "7"), day),
        event("6", "honest", "png", 11, ("4", "5"), day),
    ]
}

/// A lake that has the events, sent together or each by itself with a restart in between.
async fn lake_of(world: &World, events: &[String], apart: bool) -> Cli {
    let cli = world.cli();
    for event in events {
        world.send(&[], event).await;
        if apart {
            cli.run_to_end().await;
        }
    }
    cli.run_to_end().await;
    cli
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_puts_its_group_in_error_or_its_subject_where_that_is_unknown() {
    for (events, apart) in [
        (events(), false),
        (events(), true),
        (events().into_iter().rev().collect(), false),
    ] {
        let world = World::new(DEFINITIONS).await;
        let cli = lake_of(&world, &events, apart).await;
        let statuses = "SELECT COUNT(*) FROM events WHERE status IN ('ok', 'late')";
        assert_eq!(cli.query(statuses).await, [["6"]]);
        let area = "SELECT date_part('hour', window_start), subject, kind, area, images FROM area WHERE error IS NULL
                    ORDER BY 1, 2, 3";
        assert_eq!(
            cli.query(area).await,
            [
                ["10", "evil", "gif", "25", "1"],
                ["10", "honest", "png", "6", "1"],
                ["11", "evil", "png", "49", "1"],
                ["11", "honest", "png", "20", "1"],
            ]
        );
        let faults = "SELECT date_part('hour', window_start), subject, kind, error FROM area WHERE error IS NOT NULL";
        let faults = cli.query(faults).await;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0][..3], ["10", "evil", "png"]);
        assert!(
            faults[0][3].starts_with("an event cannot be measured: "),
            "{faults:?}"
        );

        let days = "SELECT date_part('hour', window_start), subject, day, images FROM days WHERE error IS NULL
                    ORDER BY 1, 2, 3";
        assert_eq!(
            cli.query(days).await,
            [
                ["10", "honest", "2026-01-15", "1"],
                ["11", "evil", "2026-01-15", "1"],
                ["11", "honest", "2026-01-15", "1"],
            ]
        );
        let faults = "SELECT date_part('hour', window_start), subject, day IS NULL, error FROM days
                      WHERE error IS NOT NULL";
        let faults = cli.query(faults).await;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0][..3], ["10", "evil", "true"]);
        assert!(
            faults[0][3].starts_with("the group of an event cannot be told: "),
            "{faults:?}"
        );
        assert!(faults[0][3].contains("soon"), "{faults:?}");
        assert_eq!(cli.query("SELECT SUM(images) FROM images").await, [["6"]]);
        cli.audit().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_customer_in_error_gets_no_invoice() {
    let world = World::new(DEFINITIONS).await;
    let cli = lake_of(&world, &events(), false).await;
    for command in [
        &["invoice", "--period", "2026-01"][..],
        &["invoice", "--period", "2026-01", "--finalize"],
    ] {
        let ran = cli.run(command).await;
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        // (2 × 3 + 4 × 5) × 0.5.
        assert!(
            ran.stdout.contains("honest") && ran.stdout.contains("13.00 USD"),
            "{ran:#?}"
        );
        assert!(!ran.stdout.contains("evil"), "{ran:#?}");
        for line in [
            "customer `evil`: meter `area`, subject `evil`: an event cannot be measured: ",
            "customer `evil`: meter `days`, subject `evil`: the group of an event cannot be told: ",
        ] {
            assert!(ran.stderr.contains(line), "{ran:#?}");
        }
    }
    // The hint's queries show the windows.
    let ran = cli.run(&["invoice", "--period", "2026-01"]).await;
    let hint = ran.stderr.split("hint: ").nth(1).unwrap_or_default();
    let queries: Vec<&str> = hint.split('`').skip(1).step_by(2).collect();
    assert_eq!(queries.len(), 2, "{ran:#?}");
    for query in queries {
        let rows = cli.query(query).await;
        assert_eq!(rows.len(), 1, "{query}: {rows:?}");
        assert_eq!(rows[0][1], "evil");
    }
    let issued = cli
        .query("SELECT customer, CAST(total AS DECIMAL(38, 2)) FROM invoices")
        .await;
    assert_eq!(issued, [["honest", "13.00"]]);
    // Of one customer alone the others' faults are not said.
    cli.succeed(&["invoice", "--period", "2026-01", "--customer", "honest"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_in_error_is_read_only_where_no_value_of_it_is() {
    let world = World::new(DEFINITIONS).await;
    let cli = lake_of(&world, &events(), false).await;
    let error = "meter `area`, window 2026-01-15T10:00:00Z, subject `evil` is in error: an event cannot be measured: ";
    for sql in [
        "SELECT * FROM area",
        "SELECT SUM(area) FROM area",
        "SELECT 1 FROM area WHERE area > 5",
        "SELECT area FROM area_windows WHERE subject = 'evil'",
    ] {
        let ran = cli.run(&["query", sql]).await;
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.contains(error), "{ran:#?}");
        assert!(ran.stderr.contains("WHERE error IS NULL"), "{ran:#?}");
    }
    for (sql, sum) in [
        ("SELECT SUM(area) FROM area WHERE error IS NULL", "100"),
        (
            "SELECT SUM(area) FROM area WHERE error IS NULL AND area > 20",
            "74",
        ),
        (
            "SELECT SUM(a.area) FROM area a WHERE a.subject = 'honest'",
            "26",
        ),
        (
            "SELECT SUM(area) FROM area WHERE window_start > '2026-01-15T10:30:00Z'",
            "69",
        ),
        ("SELECT COUNT(*) FROM area WHERE subject = 'evil'", "3"),
    ] {
        assert_eq!(cli.query(sql).await, [[sum]], "{sql}");
    }
    let panes = "SELECT area IS NULL, images IS NULL FROM area_panes WHERE error IS NOT NULL";
    assert_eq!(cli.query(panes).await, [["true", "true"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_is_judged_by_its_whole_never_by_the_way_there() {
    // Three times 6·10^37 does not fit 38 digits; minus as much, it does.
    let six = format!("6{}", "0".repeat(37));
    let minus = format!("-{six}");
    let day = "2026-01-15";
    let sums = |ids: &[(&str, &str)]| -> Vec<String> {
        let events = ids
            .iter()
            .map(|(id, w)| event(id, "a", "png", 10, (w, "1"), day));
        events
            .chain([event("b", "b", "png", 10, ("2", "2"), day)])
            .collect()
    };
    let coming_back = [
        ("1", &*six),
        ("2", &*six),
        ("3", &*six),
        ("4", &*minus),
        ("5", &*minus),
    ];
    for apart in [false, true] {
        let world = World::new(DEFINITIONS).await;
        // Apart, each event but the first comes late, and makes a pane of its own.
        let cli = lake_of(&world, &sums(&coming_back[..3]), apart).await;
        let faults = cli
            .query("SELECT subject, error FROM area WHERE error IS NOT NULL")
            .await;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(
            faults[0],
            [
                "a",
                "the values cannot be made: Execution error: sum overflow: the result needs more than 38 digits"
            ]
        );
        assert_eq!(
            cli.query("SELECT area FROM area WHERE error IS NULL").await,
            [["4"]]
        );
        cli.audit().await;
        for (id, w) in &coming_back[3..] {
            world
                .send(&[], &event(id, "a", "png", 10, (w, "1"), day))
                .await;
            cli.run_to_end().await;
        }
        let whole = cli
            .query("SELECT subject, area, images FROM area ORDER BY subject")
            .await;
        assert_eq!(whole, [["a", &*six, "5"], ["b", "4", "1"]]);
        cli.audit().await;
    }
}

/// A rate table without a key has one model twice, and the price multiplies areas: three customers have a fault in a
/// price, each of another kind.
const PRICES_IN_ERROR: &str = "
CREATE EVENT TYPE img (kind VARCHAR NOT NULL, w DECIMAL(38, 0) NOT NULL, h DECIMAL(38, 0) NOT NULL, day VARCHAR)
WITH (type = 'img');
CREATE METER widths WITH (window = '1 hour', lateness = '0 seconds') AS
SELECT subject, kind, SUM(w) AS w, SUM(h) AS h FROM img GROUP BY subject, kind;
CREATE RATE TABLE rates (kind VARCHAR, rate DECIMAL(18, 6)) WITH (location = 'rates.csv');
CREATE PRICE by_width WITH (currency = 'USD') AS
SELECT w.customer, SUM(w.w) AS quantity, SUM(w.w * r.rate) AS amount
FROM widths w LEFT JOIN rates r ON r.kind = w.kind GROUP BY w.customer;
CREATE PRICE by_area WITH (currency = 'USD') AS
SELECT customer, SUM(w * h) AS amount FROM widths GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (by_width, by_area);
";

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_fails_for_a_customer_holds_up_that_invoice_alone() {
    let world = World::new(PRICES_IN_ERROR).await;
    std::fs::write(
        world.path("definitions/rates.csv"),
        "kind,rate\npng,0.5\ngif,1\ngif,2\n",
    )
    .unwrap();
    let day = "2026-01-15";
    let events = [
        event("1", "honest", "png", 10, ("2", "3"), day),
        event("2", "twice", "gif", 10, ("4", "5"), day),
        event("3", "wide", "png", 10, (LARGE, LARGE), day),
        event("4", "unknown", "svg", 10, ("6", "7"), day),
        event("5", "zealous", "png", 11, ("8", "9"), day),
    ];
    let cli = lake_of(&world, &events, false).await;
    for command in [
        &["invoice", "--period", "2026-01"][..],
        &["invoice", "--period", "2026-01", "--finalize"],
    ] {
        let ran = cli.run(command).await;
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        // 2 × 0.5 + 2 × 3, and 8 × 0.5 + 8 × 9.
        for line in [("honest", "7.00 USD"), ("zealous", "76.00 USD")] {
            assert!(
                ran.stdout.contains(line.0) && ran.stdout.contains(line.1),
                "{ran:#?}"
            );
        }
        for line in [
            "customer `twice`: ./definitions/all.sql:7:14: price `by_width`: the quantity of customer `twice` is 8, but `w` of \
             `widths` is 4 for that customer; a join finds several rows for one row of usage: ",
            "customer `unknown`: ./definitions/all.sql:7:14: price `by_width`: the amount is NULL for customer `unknown` in the row of \
             quantity 6; a rate \
             or quantity is missing: ",
            "customer `wide`: ./definitions/all.sql:11:22: price `by_area`: it fails for customer `wide`: `widths.w * widths.h` has ",
        ] {
            assert!(ran.stderr.contains(line), "{line}\n{ran:#?}");
        }
        assert!(
            ran.stderr
                .trim_end()
                .ends_with("hint: all other customers are invoiced"),
            "{ran:#?}"
        );
    }
    let issued = cli
        .query("SELECT customer, CAST(total AS DECIMAL(38, 2)) FROM invoices ORDER BY customer")
        .await;
    assert_eq!(issued, [["honest", "7.00"], ["zealous", "76.00"]]);
    // Of a customer alone the others' faults are not said; once the rates are mended, the rest is billed.
    cli.succeed(&["invoice", "--period", "2026-01", "--customer", "honest"])
        .await;
    std::fs::write(
        world.path("definitions/rates.csv"),
        "kind,rate\npng,0.5\ngif,2\nsvg,1\n",
    )
    .unwrap();
    let ran = cli
        .run(&["invoice", "--period", "2026-01", "--finalize"])
        .await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    let issued = cli
        .query("SELECT customer, CAST(total AS DECIMAL(38, 2)) FROM invoices ORDER BY customer")
        .await;
    // 4 × 2 + 4 × 5, and 6 × 1 + 6 × 7.
    let all = [
        ["honest", "7.00"],
        ["twice", "28.00"],
        ["unknown", "48.00"],
        ["zealous", "76.00"],
    ];
    assert_eq!(issued, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_how_many_groups_it_leaves_in_error_and_ends_well() {
    let world = World::new(DEFINITIONS).await;
    for event in events() {
        world.send(&[], &event).await;
    }
    let ran = world.cli().run(&["run", "--until-end"]).await;
    // `evil` with png in `area`, and `evil` as a whole in `days`.
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let said = "           2 groups in error, 0 of them in open windows; the column `error` of the meter says why\n";
    assert!(ran.stdout.ends_with(said), "{ran:#?}");
    // A run that has nothing to do says nothing.
    let ran = world.cli().run(&["run", "--until-end"]).await;
    assert!(!ran.stdout.contains("in error"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_a_meter_reads_and_no_event_fills_is_said_at_the_end() {
    let world = World::new(
        "CREATE EVENT TYPE img (kind VARCHAR, w BIGINT OPTIONS (path = '$.width'), h BIGINT) WITH (type = 'img');
         CREATE METER widths WITH (window = '1 hour') AS SELECT subject, kind, SUM(w) AS w FROM img GROUP BY subject, kind;",
    )
    .await;
    let day = "2026-01-15";
    for id in ["1", "2"] {
        world
            .send(&[], &event(id, "a", "png", 10, ("2", "3"), day))
            .await;
    }
    let ran = world.cli().run(&["run", "--until-end"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let lines: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("was NULL"))
        .collect();
    let [line] = lines.as_slice() else {
        panic!("{ran:#?}")
    };
    for part in [
        "WARN",
        "event_type=\"img\"",
        "column=\"w\"",
        "path=\"$.width\"",
        "meters=\"widths\"",
        "events=2",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

/// Ordinary prices, and one that divides a fee by what all customers used.
const SHARES: &str = "
CREATE PRICE every_image WITH (currency = 'USD') AS SELECT customer, images AS quantity, images * 1.00 AS amount FROM images;
CREATE PRICE seats WITH (currency = 'USD') AS SELECT customer, 10.00 - COUNT(*) OVER () AS amount FROM subscription;
CREATE PRICE share WITH (currency = 'USD') AS
SELECT customer, 100.00 - SUM(SUM(area)) OVER () AS amount FROM area GROUP BY customer;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_compares_customers_is_refused_where_the_usage_of_one_is_in_error() {
    let world = World::new(DEFINITIONS).await;
    let cli = lake_of(&world, &events(), false).await;
    let of_prices = |prices: &str| {
        let plan = format!("AS ({prices})");
        let definitions = format!("{DEFINITIONS}{SHARES}").replace("AS (by_area)", &plan);
        world.write("definitions/all.sql", &definitions);
    };
    for finalize in [&[][..], &["--finalize"]] {
        let command = [&["invoice", "--period", "2026-01"], finalize].concat();
        of_prices("by_area, share");
        let ran = cli.run(&command).await;
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert_eq!(ran.stdout, "", "{ran:#?}");
        assert!(
            ran.stderr.contains(
                "price `share`: what it makes of one customer's usage depends on others', and `area` lacks usage of \
                 customer `evil`, which is in error: an event cannot be measured: "
            ),
            "{ran:#?}"
        );
        assert!(
            ran.stderr.contains(
                "\n  hint: mend that usage, which `SELECT window_start, subject, error FROM area WHERE error IS NOT NULL` \
                 shows, or let each row of the price be made of its own customer's usage\n"
            ),
            "{ran:#?}"
        );
    }
    // Of two customers, one of them in error: (2 × 3 + 4 × 5) × 0.5, two images, and 10 less two.
    of_prices("by_area, every_image, seats");
    let ran = cli.run(&["invoice", "--period", "2026-01"]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stdout.contains("honest") && ran.stdout.contains("23.00 USD"),
        "{ran:#?}"
    );
    assert!(!ran.stdout.contains("evil"), "{ran:#?}");
    // A period of which nothing can be told has a row for each customer.
    of_prices("by_area, share");
    let unissued = cli
        .query("SELECT customer, amount IS NULL, number IS NULL FROM unissued ORDER BY 1")
        .await;
    assert_eq!(
        unissued,
        [["evil", "true", "true"], ["honest", "true", "true"]]
    );
}
