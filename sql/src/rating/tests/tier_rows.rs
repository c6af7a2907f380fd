//! Tiers that are made of the rows of a table.

use super::*;
use std::sync::Arc;

/// What is wrong for each customer in error.
fn problems(rated: &Rated) -> Vec<&str> {
    let in_error = rated.in_error.iter();
    in_error.map(|known| known.problem.as_str()).collect()
}

const USAGE: &str = "SELECT customer, customer AS subject, model, CAST(n AS BIGINT) AS n FROM (VALUES
    ('acme', 'large', 100), ('acme', 'small', 101), ('globex', 'large', 250), ('globex', 'small', 7)) AS t(customer, model, n)";

/// Rows in no order; the dearest first of `large`.
const TIERS: &str = "SELECT model, CAST(up_to AS DECIMAL(18, 2)) AS up_to, CAST(unit AS DECIMAL(18, 9)) AS unit, flat, who, day FROM (VALUES
    ('large', NULL, 0.002, 0, 'globex', DATE '2026-10-01'), ('small', 100, 0, 0, 'acme', DATE '2026-01-01'),
    ('large', 100, 0.01, 1, 'globex', DATE '2026-10-01'), ('small', NULL, 0.5, 0, 'acme', DATE '2026-01-01'),
    ('large', 200, 0.005, 0, 'globex', DATE '2026-10-01')) AS t(model, up_to, unit, flat, who, day)";

async fn session(tables: &[(&str, &str)]) -> SessionContext {
    let context = session::context();
    for (name, sql) in [("usage", USAGE), ("model_tiers", TIERS)]
        .iter()
        .chain(tables)
    {
        let rows = session::query(&context, sql).await.unwrap();
        let rows = rows.collect().await.unwrap();
        let table =
            datafusion::datasource::MemTable::try_new(rows[0].schema(), vec![rows]).unwrap();
        context.register_table(*name, Arc::new(table)).unwrap();
    }
    context
}

async fn lines(tables: &[(&str, &str)], query: &str) -> String {
    let charges = charged(&session(tables).await, query).await;
    let charges = charges.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let line = |charge: &Charge| {
        let dimensions = charge.dimensions.iter();
        let dimensions: Vec<&str> = dimensions.filter_map(|(_, text)| text.as_deref()).collect();
        format!(
            "{} {} {}",
            charge.customer,
            dimensions.join(" "),
            charge.amount.without_trailing_zeros()
        )
    };
    let lines: Vec<String> = charges.iter().map(line).collect();
    lines.join(", ")
}

fn by_model(function: &str, tier: &str) -> String {
    format!(
        "SELECT u.customer, u.model, u.n AS quantity, {function}(u.n, r.list) AS amount FROM usage u
         LEFT JOIN (SELECT model, tiers({tier}) AS list FROM model_tiers GROUP BY model) r ON r.model = u.model"
    )
}

/// 100 of large: 1.00 + 1; 250: 1.00 + 1 + 0.50 + 0.10. 101 of small: 0 + 0.50.
#[tokio::test]
async fn rows_are_tiers_in_any_order() {
    let rows = by_model(
        "graduated",
        "{up_to: up_to, unit_amount: unit, flat_amount: flat}",
    );
    let expected = "acme large 2, acme small 0.5, globex large 2.6, globex small 0";
    assert_eq!(lines(&[], &rows).await, expected);
    // Volume: 100 in the first, 250 in the last at 0.002, 101 in the last at 0.5.
    let volume = by_model("volume", "{up_to: up_to, unit_amount: unit}");
    assert_eq!(
        lines(&[], &volume).await,
        "acme large 1, acme small 50.5, globex large 0.5, globex small 0"
    );
    let rates = by_model("graduated_percentage", "{up_to: up_to, rate_percent: unit}");
    assert_eq!(
        lines(&[], &rates).await,
        "acme large 0.01, acme small 0.005, globex large 0.016, globex small 0"
    );
    // A cap of 0.40 for each tier.
    let capped = by_model(
        "graduated",
        "{up_to: up_to, unit_amount: unit, cap_amount: CAST(0.40 AS DECIMAL(9, 2))}",
    );
    assert_eq!(
        lines(&[], &capped).await,
        "acme large 0.4, acme small 0.4, globex large 0.9, globex small 0"
    );
    // DataFusion's own ordered list is one too.
    let ordered = rows.replace(
        "tiers({up_to: up_to, unit_amount: unit, flat_amount: flat})",
        "array_agg({up_to: up_to, unit_amount: unit, flat_amount: flat} ORDER BY up_to, {up_to: up_to, unit_amount: unit, \
         flat_amount: flat})",
    );
    assert_eq!(lines(&[], &ordered).await, expected);
}

#[tokio::test]
async fn tiers_may_be_a_customers_or_a_days() {
    let by_customer = "SELECT u.customer, u.model, graduated(u.n, coalesce(own.list, usual.list)) AS amount FROM usage u
        LEFT JOIN (SELECT who, model, tiers({up_to: up_to, unit_amount: unit}) AS list FROM model_tiers GROUP BY who, model) own
            ON own.who = u.customer AND own.model = u.model
        CROSS JOIN (SELECT tiers({up_to: up_to, unit_amount: unit}) AS list FROM usual) usual";
    let usual = [(
        "usual",
        "SELECT CAST(NULL AS DECIMAL(18, 2)) AS up_to, CAST(3 AS DECIMAL(18, 9)) AS unit",
    )];
    assert_eq!(
        lines(&usual, by_customer).await,
        "acme large 300, acme small 0.5, globex large 1.6, globex small 21"
    );
    let by_day = "SELECT u.customer, u.model, graduated(u.n, r.list) AS amount FROM usage u JOIN (
            SELECT model, tiers({up_to: up_to, unit_amount: unit}) AS list FROM model_tiers
            WHERE day <= DATE '2026-09-30' GROUP BY model
        ) r ON r.model = u.model";
    assert_eq!(lines(&[], by_day).await, "acme small 0.5, globex small 0");
}

#[tokio::test]
async fn blocks_follow_each_other_by_their_number() {
    let blocks = [(
        "size_tiers",
        "SELECT * FROM (VALUES (2, 50, 8, NULL), (1, 10, 1.5, 2)) AS t(place, size, price, most)",
    )];
    let query = "SELECT u.customer, u.model, blocks(u.n, r.list, 'ALL_TIERS') AS amount FROM usage u CROSS JOIN (
            SELECT tiers({tier: place, block_size: size, block_amount: price, max_blocks: most}) AS list FROM size_tiers) r";
    // 100: 2 × 1.5 + 2 × 8 (80 units); 101: the same; 250: 3 + 5 × 8; 7: 1.5.
    assert_eq!(
        lines(&blocks, query).await,
        "acme large 19, acme small 19, globex large 43, globex small 1.5"
    );
}

/// A rate table with a column for each tier is a list with columns in it.
#[tokio::test]
async fn a_list_may_name_columns() {
    let wide = [(
        "wide",
        "SELECT * FROM (VALUES ('large', 100, 0.01, 0.002), ('small', 5, 1, 0.5)) AS t(model, included, inside, above)",
    )];
    let query = "SELECT u.customer, u.model,
            graduated(u.n, [{up_to: w.included, unit_amount: w.inside}, {unit_amount: w.above, flat_amount: 3}]) AS amount
        FROM usage u JOIN wide w ON w.model = u.model";
    // large 100: 1; 250: 1 + 0.3 + 3. small 101: 5 + 48 + 3; 7: 5 + 1 + 3.
    assert_eq!(
        lines(&wide, query).await,
        "acme large 1, acme small 56, globex large 4.3, globex small 9"
    );
    // What is wrong with a row's list stays with the customers that it is for.
    let wrong = [(
        "wide",
        "SELECT * FROM (VALUES ('large', 100, 0.01, 0.002), ('small', 0, 1, 0.5)) AS t(model, included, inside, above)",
    )];
    let rated = rate(&session(&wrong).await, &price(query), &[])
        .await
        .unwrap();
    assert_eq!(
        problems(&rated),
        [
            "it fails for customer `acme`: `graduated`: tier 1 ends at 0, not above 0",
            "it fails for customer `globex`: `graduated`: tier 1 ends at 0, not above 0",
        ]
    );
}

#[tokio::test]
async fn rows_are_checked_as_literals_are_and_the_error_names_them() {
    let hint = "\n  hint: mend these rows of the rate table: `up_to` ends each tier, is NULL in the last alone, and every tier \
                has a price";
    for (rows, said) in [
        (
            "('large', 100, 1), ('large', 100, 2), ('large', NULL, 3), ('small', NULL, 1)",
            "tier 2 ends at 100, not above 100, where `model` is `large`",
        ),
        (
            "('large', 100, 1), ('small', NULL, 1), ('small', NULL, 2)",
            "tier 1 has no `up_to`, so no quantity reaches tier 2, where `model` is `small`",
        ),
        (
            "('large', 100, 1), ('small', 10, 1), ('small', NULL, NULL)",
            "tier 2 has neither `unit_amount` nor `flat_amount`, where `model` is `small`",
        ),
        (
            "('large', 0, 1), ('large', NULL, 1)",
            "tier 1 ends at 0, not above 0, where `model` is `large`",
        ),
        (
            "(NULL, -5, 1), ('large', NULL, 1)",
            "tier 1 ends at -5, not above 0, where `model` is NULL",
        ),
    ] {
        let table = format!(
            "SELECT model, CAST(up_to AS BIGINT) AS up_to, CAST(unit AS BIGINT) AS unit FROM (VALUES {rows}) AS t(model, up_to, unit)"
        );
        let tables = [("own", table.as_str())];
        // Who uses nothing of the broken model is refused too: the table is wrong.
        let query = "SELECT u.customer, graduated(u.n, r.list) AS amount FROM usage u
            JOIN (SELECT model, tiers({up_to: up_to, unit_amount: unit}) AS list FROM own GROUP BY model) r
            ON r.model = u.model WHERE u.customer = 'nobody'";
        let error = charged(&session(&tables).await, query).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("prices.sql:7:1: price `tokens`: `tiers`: {said}{hint}")
                .replace("`tiers`: `tiers`", "`tiers`"),
            "{rows}"
        );
    }
}

#[tokio::test]
async fn what_is_no_tier_is_refused_when_it_is_planned() {
    for (tier, said) in [
        (
            "{upto: up_to, unit_amount: unit}",
            "`tiers`: tier 1 has the key `upto`; there are up_to, unit_amount, flat_amount, cap_amount, rate_percent, block_size, block_amount, max_blocks",
        ),
        (
            "{up_to: up_to, unit_amount: CAST(unit AS DOUBLE)}",
            "`tiers`: `unit_amount` is Float64, but must be an integer or DECIMAL: CAST it to DECIMAL(38, 9), say",
        ),
        (
            "{up_to: up_to, unit_amount: model}",
            "`tiers`: `unit_amount` is VARCHAR, but must be an integer or DECIMAL: CAST it to DECIMAL(38, 9), say",
        ),
        (
            "{block_size: flat, block_amount: unit}",
            "`tiers`: tier 1 has no `tier`",
        ),
        (
            "{up_to: up_to, rate_percent: unit}",
            "`graduated`: tier 1 has `rate_percent`, which this function does not read; it reads up_to, unit_amount, flat_amount, cap_amount",
        ),
        (
            "{up_to: up_to}",
            "`graduated`: tier 1 has neither `unit_amount` nor `flat_amount`",
        ),
        (
            "unit",
            "tiers takes one tier: write tiers({up_to: up_to, unit_amount: unit_amount}), the keys of a tier with columns as their values",
        ),
    ] {
        let error = charged(&session(&[]).await, &by_model("graduated", tier))
            .await
            .unwrap_err();
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        assert!(text.contains(said), "{tier}: {text}");
    }
}

#[tokio::test]
async fn usage_without_tiers_is_never_free() {
    let query = by_model("graduated", "{up_to: up_to, unit_amount: unit}")
        .replace("FROM model_tiers", "FROM model_tiers WHERE model = 'large'");
    let rated = rate(&session(&[]).await, &price(&query), &[])
        .await
        .unwrap();
    assert_eq!(
        problems(&rated),
        [
            "the amount is NULL for customer `acme` in the row of model `small`, quantity 101",
            "the amount is NULL for customer `globex` in the row of model `small`, quantity 7"
        ]
    );
    // Above the last tier there is no answer for those who are there.
    let limited = by_model("graduated", "{up_to: up_to, unit_amount: unit}").replace(
        "FROM model_tiers",
        "FROM model_tiers WHERE up_to IS NOT NULL",
    );
    let rated = rate(&session(&[]).await, &price(&limited), &[])
        .await
        .unwrap();
    assert_eq!(
        problems(&rated),
        [
            "it fails for customer `acme`: `graduated`: quantity 101 is above 100, where the last tier ends (tier 1)",
            "it fails for customer `globex`: `graduated`: quantity 250 is above 200, where the last tier ends (tier 2)",
        ]
    );
}

/// Model i has tiers up to 10 at i, up to 20 at 2 i, and 3 i above; of each 25 were used.
#[tokio::test]
async fn two_thousand_models_have_their_own_tiers() {
    let tables = [
        (
            "used",
            "SELECT 'acme' AS customer, 'acme' AS subject, value AS model, CAST(25 AS BIGINT) AS n FROM generate_series(1, 2000)",
        ),
        (
            "many",
            "SELECT m.value AS model, CASE t.value WHEN 3 THEN NULL ELSE 10 * t.value END AS up_to, m.value * t.value AS unit
             FROM generate_series(1, 2000) m CROSS JOIN generate_series(1, 3) t",
        ),
    ];
    let query = "SELECT u.customer, SUM(u.n) AS quantity, SUM(graduated(u.n, r.list)) AS amount FROM used u
        JOIN (SELECT model, tiers({up_to: up_to, unit_amount: unit}) AS list FROM many GROUP BY model) r ON r.model = u.model
        GROUP BY u.customer";
    // 10 i + 20 i + 15 i, over all i.
    assert_eq!(
        lines(&tables, query).await,
        format!("acme  {}", 45 * 2000 * 2001 / 2)
    );
}
