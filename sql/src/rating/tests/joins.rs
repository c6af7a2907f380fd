//! A rate table is joined by its whole key, and a quantity is never more than what was measured.

use super::*;
use crate::definitions::{Definitions, SourceFile};

const M: &str = "SELECT * FROM (VALUES
    ('acme', 'acme', 'sage-2', 'eu', CAST(100 AS BIGINT)), ('acme', 'acme', 'sage-2', 'us', 20),
    ('acme', 'acme', 'owl-1', 'eu', 3), ('globex', 'globex', 'sage-2', 'eu', 7), ('globex', 'globex', 'owl-1', 'us', -4)
    ) AS t(customer, subject, model, region, n)";

/// Windows at both sides of what the rates change at, and on it.
const W: &str = "SELECT customer, model, n, arrow_cast(arrow_cast(t, 'Timestamp(Microsecond, None)'), 'Timestamp(Microsecond, Some(\"UTC\"))') AS window_start
    FROM (VALUES ('acme', 'sage-2', CAST(100 AS BIGINT), '2026-10-04T23:00:00'), ('acme', 'sage-2', 20, '2026-10-05T00:00:00'),
                 ('acme', 'owl-1', 3, '2026-10-05T12:00:00'), ('globex', 'sage-2', 7, '2026-10-05T11:00:00')) AS t(customer, model, n, t)";

/// A session with meter `m`, table `keyed` with its key and `loose` without, where `sage-2` is twice.
async fn session() -> SessionContext {
    let context = session::context();
    let m = session::query(&context, M)
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    context.register_batch("m", m[0].clone()).unwrap();
    let w = session::query(&context, W).await.unwrap();
    let w = w.collect().await.unwrap();
    context.register_batch("w", w[0].clone()).unwrap();
    let text = "CREATE RATE TABLE keyed (model VARCHAR, region VARCHAR, rate DECIMAL(18, 12), PRIMARY KEY (model, region))
                    WITH (location = 'keyed.csv');
                CREATE RATE TABLE loose (model VARCHAR, rate DECIMAL(18, 12)) WITH (location = 'loose.csv');
                CREATE RATE TABLE one (model VARCHAR PRIMARY KEY, rate DECIMAL(18, 12)) WITH (location = 'one.csv');
                CREATE RATE TABLE dated (model VARCHAR, valid_from DATE, valid_to DATE, rate DECIMAL(18, 12),
                    PRIMARY KEY (model, PERIOD valid_from, valid_to)) WITH (location = 'dated.csv');
                CREATE RATE TABLE timed (since TIMESTAMP, until TIMESTAMP, rate DECIMAL(18, 12),
                    PRIMARY KEY (PERIOD since, until)) WITH (location = 'timed.csv');";
    let file = SourceFile {
        name: "f.sql".into(),
        text: text.into(),
    };
    let tables = Definitions::parse(&[file]).unwrap().rate_tables;
    let rows = [
        "model,region,rate\nsage-2,eu,0.5\nsage-2,us,0.25\nowl-1,eu,2\nowl-1,us,1\n",
        "model,rate\nsage-2,0.5\nsage-2,0.25\nowl-1,2\n",
        "model,rate\nsage-2,0.5\nowl-1,2\n",
        "model,valid_from,valid_to,rate\nsage-2,2026-01-01,2026-10-05,0.5\nsage-2,2026-10-05,,0.25\nowl-1,2026-01-01,,2\n",
        "since,until,rate\n2026-01-01T00:00:00Z,2026-10-05T12:00:00Z,1\n2026-10-05T12:00:00Z,,3\n",
    ];
    for (table, rows) in tables.iter().zip(rows) {
        let rows = table.read_csv("rates.csv", rows.as_bytes()).unwrap();
        let name = datafusion::common::TableReference::bare(table.name.as_str());
        context
            .register_table(name, table.relation(rows).unwrap())
            .unwrap();
    }
    context
}

/// `customer quantity amount` of each charge, or the refusal.
async fn rated(query: &str) -> Result<Vec<String>, String> {
    let charges = charged(&session().await, query).await.map_err(|error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    })?;
    let shown = charges.iter().map(|charge| {
        let quantity = charge
            .quantity
            .map_or("-".to_owned(), |quantity| quantity.to_string());
        format!("{} {quantity} {}", charge.customer, charge.amount)
    });
    Ok(shown.collect())
}

fn select(from: &str) -> String {
    format!(
        "SELECT m.customer, SUM(m.n) AS quantity, SUM(m.n * r.rate) AS amount FROM {from} GROUP BY m.customer"
    )
}

#[tokio::test]
async fn a_join_on_the_whole_key_is_billed() {
    // acme: 100 × 0.5 + 20 × 0.25 + 3 × 2; globex: 7 × 0.5 − 4 × 1.
    let both = ["acme 123 61", "globex 3 -0.5"];
    for from in [
        "m LEFT JOIN keyed r ON r.model = m.model AND r.region = m.region",
        "m JOIN keyed r ON m.region = r.region AND m.model = r.model",
        "m JOIN keyed r USING (model, region)",
        "m, keyed r WHERE r.model = m.model AND r.region = m.region",
        "m JOIN (SELECT model AS a, region AS b, rate FROM keyed) r ON r.a = m.model AND r.b = m.region",
        "keyed r JOIN m ON r.model = m.model AND r.region = m.region",
    ] {
        assert_eq!(rated(&select(from)).await.unwrap(), both, "{from}");
    }
    for from in [
        "m JOIN keyed r ON r.model = m.model AND r.region = 'eu'",
        "m JOIN keyed r ON r.model = m.model WHERE r.region = 'eu'",
        "m JOIN (SELECT * FROM keyed WHERE region = 'eu') r ON r.model = m.model",
        "m JOIN (SELECT model, MAX(rate) AS rate FROM keyed WHERE region = 'eu' GROUP BY model) r ON r.model = m.model",
    ] {
        // acme: 120 × 0.5 + 3 × 2; globex: 7 × 0.5 − 4 × 2.
        assert_eq!(
            rated(&select(from)).await.unwrap(),
            ["acme 123 66", "globex 3 -4.5"],
            "{from}"
        );
    }
    let scalar = "SELECT customer, SUM(n) AS quantity, SUM(n * (SELECT MAX(rate) FROM keyed)) AS amount FROM m GROUP BY customer";
    assert_eq!(rated(scalar).await.unwrap(), ["acme 123 246", "globex 3 6"]);
    let priced = "SELECT customer, SUM(n) AS quantity, SUM(n) AS amount FROM m
                  WHERE model IN (SELECT model FROM keyed) GROUP BY customer";
    assert_eq!(rated(priced).await.unwrap(), ["acme 123 123", "globex 3 3"]);
}

#[tokio::test]
async fn a_join_on_less_than_the_key_is_refused() {
    for (from, missing) in [
        ("m LEFT JOIN keyed r ON r.model = m.model", "`region`"),
        ("m JOIN keyed r ON r.region = m.region", "`model`"),
        ("m CROSS JOIN keyed r", "`model`, `region`"),
        (
            "m JOIN keyed r ON m.model LIKE r.model || '%' AND r.region = m.region",
            "`model`",
        ),
        (
            "m JOIN keyed r ON r.model = m.model AND (r.region = m.region OR r.region = 'eu')",
            "`region`",
        ),
        (
            "m JOIN keyed r ON r.model = m.model AND r.region >= m.region",
            "`region`",
        ),
        (
            "m JOIN keyed r ON r.model = m.model AND r.region = r.region",
            "`region`",
        ),
        (
            "m JOIN keyed r ON r.model = m.model AND lower(r.region) = m.region",
            "`region`",
        ),
        (
            "m JOIN (SELECT model, rate FROM keyed) r ON r.model = m.model",
            "`region`",
        ),
        (
            "m JOIN one a ON true JOIN one r ON r.model = a.model",
            "`model`",
        ),
    ] {
        let table = if from.contains("keyed") {
            "keyed"
        } else {
            "one"
        };
        let expected = format!(
            "prices.sql:7:1: price `tokens`: it joins rate table `{table}` without a value for {missing} of its key, so \
             one row of usage may be billed more than once\n  hint: compare every column of the key with `=` to \
             something outside the table, in ON or WHERE; where several rates are meant, add them up in a sub-query first"
        );
        assert_eq!(rated(&select(from)).await, Err(expected), "{from}");
    }
}

fn select_windows(from: &str) -> String {
    format!(
        "SELECT w.customer, SUM(w.n) AS quantity, SUM(w.n * r.rate) AS amount FROM w JOIN {from} GROUP BY w.customer"
    )
}

#[tokio::test]
async fn a_join_that_chooses_one_period_is_billed_by_it() {
    // Up to 5 October sage-2 costs 0.5, from its midnight on 0.25. acme: 100 × 0.5 + 20 × 0.25 + 3 × 2; globex: 7 × 0.25.
    for on in [
        "w.window_start >= r.valid_from AND (w.window_start < r.valid_to OR r.valid_to IS NULL)",
        "r.valid_from <= w.window_start AND (r.valid_to IS NULL OR r.valid_to > w.window_start)",
        "w.window_start >= r.valid_from AND w.window_start < COALESCE(r.valid_to, DATE '2200-01-01')",
        "CAST(local_time(w.window_start, 'UTC') AS DATE) >= r.valid_from
         AND (CAST(local_time(w.window_start, 'UTC') AS DATE) < r.valid_to OR r.valid_to IS NULL)",
    ] {
        let from = format!("dated r ON r.model = w.model AND {on}");
        let billed = rated(&select_windows(&from)).await;
        assert_eq!(billed.unwrap(), ["acme 123 61", "globex 7 1.75"], "{on}");
        // In WHERE, after another name was given in a sub-query.
        let from = format!(
            "(SELECT model AS m, valid_from, valid_to, rate FROM dated) r ON r.m = w.model WHERE {on}"
        );
        let billed = rated(&select_windows(&from)).await;
        assert_eq!(billed.unwrap(), ["acme 123 61", "globex 7 1.75"], "{on}");
    }
    // By noon of the 5th: acme (100 + 20) × 1 + 3 × 3, globex 7 × 1.
    let by_instant =
        "timed r ON w.window_start >= r.since AND (w.window_start < r.until OR r.until IS NULL)";
    let billed = rated(&select_windows(by_instant)).await;
    assert_eq!(billed.unwrap(), ["acme 123 129", "globex 7 7"]);
    // What was in force on a day, or the one that began on it: acme 120 × 0.5 + 3 × 2, and 120 × 0.25.
    for (on, billed) in [
        (
            "r.valid_from <= DATE '2026-10-01' AND (r.valid_to > DATE '2026-10-01' OR r.valid_to IS NULL)",
            ["acme 123 66", "globex 7 3.5"],
        ),
        (
            "r.valid_from = DATE '2026-10-05'",
            ["acme 120 30", "globex 7 1.75"],
        ),
    ] {
        let from = format!("dated r ON r.model = w.model AND {on}");
        assert_eq!(rated(&select_windows(&from)).await.unwrap(), billed, "{on}");
    }
}

#[tokio::test]
async fn a_join_that_may_find_several_periods_is_refused() {
    for on in [
        "true",
        "w.window_start >= r.valid_from",
        "w.window_start < r.valid_to",
        "w.window_start BETWEEN r.valid_from AND r.valid_to",
        "w.window_start >= r.valid_from AND (w.window_start <= r.valid_to OR r.valid_to IS NULL)",
        "w.window_start >= r.valid_from AND r.valid_to > DATE '2026-10-01'",
        "w.window_start >= r.valid_from AND (w.window_start < r.valid_to OR r.rate > 1)",
        "r.valid_to >= r.valid_from AND r.valid_from < r.valid_to",
        "(w.window_start >= r.valid_from OR w.window_start < r.valid_to)",
        "w.window_start >= r.valid_from AND w.window_start < COALESCE(r.valid_from, r.valid_to)",
        "CAST(w.window_start AS DATE) >= r.valid_from AND w.window_start < r.valid_to",
    ] {
        let from = format!("dated r ON r.model = w.model AND {on}");
        let expected = "prices.sql:7:1: price `tokens`: it joins rate table `dated` without choosing one of its periods, so one row \
             of usage may be billed more than once\n  hint: compare one time with both columns of the period, in ON or WHERE: \
             `time >= valid_from AND (time < valid_to OR valid_to IS NULL)`; a period does not hold its `valid_to`, so neither \
             `<=` nor BETWEEN will do";
        assert_eq!(
            rated(&select_windows(&from)).await,
            Err(expected.to_owned()),
            "{on}"
        );
    }
    // Its other columns are needed as before.
    let from = "dated r ON w.window_start >= r.valid_from AND w.window_start < r.valid_to";
    let refused = rated(&select_windows(from)).await.unwrap_err();
    assert!(
        refused.contains("`dated` without a value for `model` of its key"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_quantity_that_is_more_than_the_usage_is_refused() {
    let once = "m LEFT JOIN loose r ON r.model = m.model";
    for query in [
        select(once),
        format!("SELECT m.customer, m.model, SUM(m.n) AS quantity, 1 AS amount FROM {once} GROUP BY m.customer, m.model"),
        format!("SELECT m.customer, r.rate, SUM(m.n) AS quantity, 1 AS amount FROM {once} GROUP BY m.customer, r.rate"),
        format!("SELECT m.customer, m.n AS quantity, 1 AS amount FROM {once}"),
        format!(
            "WITH joined AS (SELECT m.customer AS customer, m.n AS used, r.rate FROM {once})
             SELECT customer, SUM(used) AS quantity, SUM(used * rate) AS amount FROM joined GROUP BY customer"
        ),
        format!(
            "SELECT customer, q AS quantity, 1 AS amount
             FROM (SELECT m.customer, SUM(m.n) AS q FROM {once} GROUP BY m.customer) AS s"
        ),
    ] {
        // 2 × 120 + 3, where 123 are used.
        let expected = "prices.sql:7:1: price `tokens`: the quantity of customer `acme` is 243, but `n` of `m` is 123 for that \
             customer\n  hint: a join finds several rows for one row of usage: give the rate table a PRIMARY KEY and \
             join on all of it; where usage is meant to be billed on several lines, leave `quantity` out of all but one";
        assert_eq!(rated(&query).await, Err(expected.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_quantity_may_be_less_than_the_usage_or_something_else() {
    for (query, expected) in [
        (
            "SELECT customer, SUM(n) AS quantity, 1 AS amount FROM m WHERE n > 0 GROUP BY customer",
            ["acme 123 1", "globex 7 1"],
        ),
        (
            "SELECT customer, SUM(n) AS quantity, 1 AS amount FROM m WHERE model = 'sage-2' GROUP BY customer",
            ["acme 120 1", "globex 7 1"],
        ),
        (
            "SELECT customer, SUM(n * 2) AS quantity, 1 AS amount FROM m GROUP BY customer",
            ["acme 246 1", "globex 6 1"],
        ),
        (
            "SELECT customer, 1000 AS quantity, 1 AS amount FROM m GROUP BY customer",
            ["acme 1000 1", "globex 1000 1"],
        ),
    ] {
        assert_eq!(rated(query).await.unwrap(), expected, "{query}");
    }
}

#[tokio::test]
async fn a_quantity_that_is_more_than_the_usage_holds_up_its_customer_alone() {
    // globex finds one rate for each of its rows.
    let once = "SELECT m.customer, SUM(m.n) AS quantity, SUM(m.n * r.rate) AS amount FROM m LEFT JOIN loose r
                ON r.model = m.model AND (m.customer = 'acme' OR r.rate > 0.25) GROUP BY m.customer";
    let rated = rate(&session().await, &price(once), &[]).await.unwrap();
    let charged: Vec<String> = rated
        .charges
        .iter()
        .map(|charge| format!("{} {}", charge.customer, charge.amount))
        .collect();
    // 7 × 0.5 − 4 × 2.
    assert_eq!(charged, ["globex -4.5"]);
    let [acme] = rated.in_error.as_slice() else {
        panic!("{:?}", rated.in_error)
    };
    assert_eq!(
        acme.to_string(),
        "prices.sql:7:1: price `tokens`: the quantity of customer `acme` is 243, but `n` of `m` is 123 for that customer; a \
         join finds several rows for one row of usage: give the rate table a PRIMARY KEY and join on all of it; where usage \
         is meant to be billed on several lines, leave `quantity` out of all but one"
    );
}
