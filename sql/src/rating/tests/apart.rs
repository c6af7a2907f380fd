//! What one customer's rows make fail holds up that customer alone, where the price can be told by customer.

use super::*;

/// Meters `m` and `m_windows`, whose products overflow for `big` and whose rate is missing for `free`; a rate table
/// with rates by customer; and `subscription`.
async fn session_of_many() -> SessionContext {
    let context = session::context();
    let huge = "CAST(99999999999999999999 AS DECIMAL(38, 0))";
    let tables = [
        format!(
            "CREATE TABLE m AS SELECT customer, customer AS subject, model, CAST(n AS DECIMAL(38, 0)) AS n FROM (VALUES
             ('acme', 'a', 3), ('acme', 'b', 4), ('big', 'a', {huge}), ('cargo', 'b', 5), ('free', 'z', 6), ('zeta', 'a', 7)
             ) AS t(customer, model, n)"
        ),
        "CREATE TABLE m_windows AS SELECT * FROM m".into(),
        "CREATE TABLE rates AS SELECT model, CAST(rate AS DECIMAL(38, 2)) AS rate
         FROM (VALUES ('a', 0.5), ('b', 2)) AS t(model, rate)"
            .into(),
        "CREATE TABLE own AS SELECT customer, CAST(rate AS DECIMAL(38, 2)) AS rate
         FROM (VALUES ('acme', 10), (NULL, 1)) AS t(customer, rate)"
            .into(),
        "CREATE TABLE subscription AS SELECT customer, 1 AS seats FROM (VALUES
         ('acme'), ('big'), ('cargo'), ('free'), ('zeta')) AS t(customer)"
            .into(),
    ];
    for table in tables {
        context.sql(&table).await.unwrap().collect().await.unwrap();
    }
    context
}

/// `customer amount` of each charge, and `customer: problem` of each in error.
async fn rated(query: &str) -> Result<(Vec<String>, Vec<String>)> {
    let rated = rate(&session_of_many().await, &price(query), &[]).await?;
    let charges = rated.charges.iter();
    let in_error = rated.in_error.iter();
    Ok((
        charges
            .map(|c| format!("{} {}", c.customer, c.amount))
            .collect(),
        in_error
            .map(|u| format!("{}: {}", u.customer, u.problem))
            .collect(),
    ))
}

/// Whether one customer's charges can be made of that customer's usage.
async fn is_apart(query: &str) -> bool {
    let is_apart = is_by_customer(&session_of_many().await, &price(query)).await;
    is_apart.unwrap()
}

#[tokio::test]
async fn a_price_that_fails_for_one_customer_bills_the_others() {
    // n × n: 9 + 16, 25, 36, 49.
    let all = ["acme 25", "cargo 25", "free 36", "zeta 49"];
    for (query, expected) in [
        ("SELECT customer, SUM(n * n) AS amount FROM m GROUP BY customer", all),
        ("SELECT s.customer, SUM(m.n * m.n) AS amount FROM subscription s JOIN m ON m.customer = s.customer GROUP BY s.customer", all),
        ("WITH q AS (SELECT customer AS who, n FROM m) SELECT who AS customer, SUM(n * n) AS amount FROM q GROUP BY who", all),
        (
            "SELECT DISTINCT customer, SUM(n * n) OVER (PARTITION BY customer) AS amount FROM m",
            all,
        ),
        (
            "SELECT customer, SUM(n * n) AS amount FROM (SELECT customer, n FROM m UNION ALL SELECT customer, 0 * n FROM m_windows)
             AS u GROUP BY customer",
            all,
        ),
        // acme: 10 times; the others by the default beside it.
        (
            "SELECT m.customer, SUM(m.n * m.n * coalesce(o.rate, (SELECT MAX(rate) FROM own WHERE customer IS NULL))) AS amount
             FROM m LEFT JOIN own o ON o.customer = m.customer GROUP BY m.customer",
            ["acme 250", "cargo 25", "free 36", "zeta 49"],
        ),
    ] {
        assert!(is_apart(query).await, "{query}");
        let (charges, in_error) = rated(query).await.unwrap();
        assert_eq!(charges, expected, "{query}");
        assert_eq!(in_error.len(), 1, "{query}: {in_error:?}");
        assert!(in_error[0].starts_with(OVERFLOWS_OF_BIG), "{query}: {in_error:?}");
    }
}

/// The rest of the message is Arrow's.
const OVERFLOWS_OF_BIG: &str = "big: it fails for customer `big`: ";

#[tokio::test]
async fn a_price_that_compares_customers_fails_as_a_whole() {
    for query in [
        "SELECT customer, SUM(n * n) - (SELECT MIN(n) FROM m) AS amount FROM m GROUP BY customer",
        "SELECT customer, SUM(n * n) OVER () AS amount FROM m",
        "SELECT m.customer, SUM(m.n * o.n) AS amount FROM m JOIN m o ON o.model = m.model GROUP BY m.customer",
        "SELECT model AS customer, SUM(n * n) AS amount FROM m GROUP BY model",
        "SELECT customer, n * n AS amount FROM m WHERE customer IN (SELECT customer FROM m_windows WHERE n > 3)
         UNION ALL SELECT 'acme' AS customer, 1 AS amount",
        "SELECT customer, amount FROM (SELECT customer, n * n AS amount FROM m ORDER BY customer LIMIT 9) AS t",
        "SELECT coalesce(m.customer, o.customer) AS customer, m.n * m.n AS amount
         FROM m FULL JOIN m_windows o ON o.customer = m.customer",
    ] {
        assert!(!is_apart(query).await, "{query}");
        let error = rated(query).await.unwrap_err().to_string();
        let too_many = "` has 40 digits before the point and 0 after it, and a decimal has 38 in all";
        assert!(error.contains(too_many), "{query}: {error}");
    }
}

#[tokio::test]
async fn a_price_that_compares_customers_fails_as_a_whole_where_one_has_no_amount() {
    // Without `free`, the others would be compared with a smaller whole.
    let shares = "SELECT m.customer, m.n * r.rate AS quantity, CASE WHEN SUM(m.n) OVER () > 10 THEN m.n * r.rate END AS amount
                  FROM m LEFT JOIN rates r ON r.model = m.model WHERE m.customer IN ('cargo', 'free', 'zeta')";
    let failed = rated(shares).await.unwrap_err().to_string();
    assert!(failed.contains("`free`"), "{failed}");
    let alone = "SELECT m.customer, m.n * r.rate AS amount
                 FROM m LEFT JOIN rates r ON r.model = m.model WHERE m.customer IN ('cargo', 'free', 'zeta')";
    let (charges, in_error) = rated(alone).await.unwrap();
    assert_eq!(charges, ["cargo 10", "zeta 3.5"]);
    assert_eq!(in_error.len(), 1);
}

/// What is left out of a relation for a customer `sour`, of whom there are no rows.
fn left_out(relation: &str) -> [LeftOut; 1] {
    [LeftOut {
        relation: relation.into(),
        customer: "sour".into(),
        reason: "an event cannot be measured: why".into(),
    }]
}

#[tokio::test]
async fn a_price_that_compares_customers_is_refused_where_usage_of_one_is_left_out() {
    let context = session_of_many().await;
    for query in [
        "SELECT customer, n - SUM(n) OVER () AS amount FROM m",
        "SELECT customer, n, (SELECT MAX(n) FROM m) AS amount FROM m",
        "SELECT customer, n AS amount FROM m WHERE n > (SELECT MIN(n) FROM m AS o WHERE o.model = m.model)",
        "SELECT s.customer, o.n AS amount FROM subscription s CROSS JOIN (SELECT SUM(n) AS n FROM m) AS o",
        // Another pays for it.
        "SELECT model AS customer, n AS amount FROM m",
    ] {
        let refused = rate(&context, &price(query), &left_out("m")).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "prices.sql:7:1: price `tokens`: what it makes of one customer's usage depends on others', and `m` lacks usage \
             of customer `sour`, which is in error: an event cannot be measured: why\n  hint: mend that usage, which \
             `SELECT window_start, subject, error FROM m WHERE error IS NOT NULL` shows, or let each row of the price be \
             made of its own customer's usage",
            "{query}"
        );
        // It does not read the windows.
        let rated = rate(&context, &price(query), &left_out("m_windows")).await;
        assert!(!rated.unwrap().charges.is_empty(), "{query}");
    }
}

#[tokio::test]
async fn a_price_by_customer_goes_on_where_usage_of_one_is_left_out() {
    let context = session_of_many().await;
    for (query, expected) in [
        ("SELECT customer, n AS amount FROM m", "cargo 5"),
        ("SELECT m.customer, m.n * r.rate AS amount FROM m CROSS JOIN (SELECT MAX(rate) AS rate FROM rates) AS r", "cargo 10"),
        ("SELECT m.customer, m.n * v.x AS amount FROM m CROSS JOIN (VALUES (3)) AS v(x)", "cargo 15"),
        ("SELECT m.customer, m.n * r.rate AS amount FROM m JOIN rates r ON r.model = m.model", "cargo 10"),
        ("SELECT m.customer, m.n * r.rate AS amount FROM m, rates r WHERE r.rate > 1", "cargo 10"),
        ("SELECT customer, SUM(n) OVER (PARTITION BY customer ORDER BY model, n) AS amount FROM m", "cargo 5"),
        ("SELECT customer, amount FROM (SELECT customer, n AS amount, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY n, model) AS r
          FROM m) AS t WHERE r = 1", "cargo 5"),
        ("SELECT customer, SUM(n) - (SELECT COUNT(*) FROM rates) AS amount FROM m GROUP BY customer", "cargo 3"),
        ("SELECT customer, (SELECT SUM(o.n) FROM m o WHERE o.customer = m.customer) AS amount FROM m", "cargo 5"),
        ("SELECT s.customer, coalesce(SUM(m.n), 0) AS amount FROM subscription s LEFT JOIN m ON m.customer = s.customer
          GROUP BY s.customer", "cargo 5"),
        ("SELECT customer, n AS amount FROM m WHERE EXISTS (SELECT 1 FROM m o WHERE o.customer = m.customer AND o.n > 4)", "cargo 5"),
        ("SELECT DISTINCT ON (customer) customer, n AS amount FROM m ORDER BY customer, n, model", "cargo 5"),
        ("SELECT customer, SUM(n) AS amount FROM (SELECT customer, n, unnest(make_array(1, 2)) AS part FROM m) AS t
          GROUP BY customer", "cargo 10"),
        // A fee beside the usage.
        ("SELECT customer, SUM(n) AS amount FROM (SELECT customer, n FROM m UNION ALL SELECT 'cargo', 2 FROM (VALUES (1)) AS v(x))
          AS u GROUP BY customer", "cargo 7"),
    ] {
        let rated = rate(&context, &price(query), &left_out("m")).await;
        let charges = rated.unwrap_or_else(|error| panic!("{query}: {error}")).charges;
        let found = charges.iter().find(|charge| &*charge.customer == "cargo").unwrap_or_else(|| panic!("{query}: {charges:?}"));
        assert_eq!(format!("{} {}", found.customer, found.amount), expected, "{query}");
    }
}

#[tokio::test]
async fn a_customer_of_whom_usage_is_left_out_has_no_charge_and_no_other_reason() {
    let context = session_of_many().await;
    let [mut known] = left_out("m");
    known.customer = "free".into();
    let known = [known];
    let query =
        "SELECT m.customer, m.n * r.rate AS amount FROM m LEFT JOIN rates r ON r.model = m.model
                 WHERE m.customer IN ('cargo', 'free')";
    let rated = rate(&context, &price(query), &known).await.unwrap();
    assert_eq!(rated.charges.len(), 1);
    assert_eq!(rated.in_error, []);
    let query = "SELECT customer, seats AS amount FROM subscription";
    let rated = rate(&context, &price(query), &known).await.unwrap();
    assert_eq!(rated.charges.len(), 5);
}

#[tokio::test]
async fn a_price_of_a_rate_table_alone_fails_for_the_customer_without_a_rate() {
    let query = "SELECT model AS customer, nullif(rate, 2.00) AS amount FROM rates";
    let (charges, in_error) = rated(query).await.unwrap();
    assert_eq!(charges, ["a 0.5"]);
    assert_eq!(in_error, ["b: the amount is NULL for customer `b`"]);
}

#[tokio::test]
async fn a_customer_without_a_rate_is_in_error_alone() {
    let query = "SELECT m.customer, m.model, SUM(m.n * r.rate) AS amount FROM m LEFT JOIN rates r ON r.model = m.model
                 WHERE m.customer <> 'big' GROUP BY m.customer, m.model";
    let (charges, in_error) = rated(query).await.unwrap();
    // 3 × 0.5 and 4 × 2; 5 × 2; 7 × 0.5.
    assert_eq!(charges, ["acme 1.5", "acme 8", "cargo 10", "zeta 3.5"]);
    assert_eq!(
        in_error,
        ["free: the amount is NULL for customer `free` in the row of model `z`"]
    );
}

#[tokio::test]
async fn a_customer_that_two_faults_concern_has_one_reason_and_no_charge() {
    let query = "SELECT customer, model, CASE model WHEN 'a' THEN NULL ELSE n END AS amount FROM m";
    let (charges, in_error) = rated(query).await.unwrap();
    assert_eq!(charges, ["cargo 5", "free 6"]);
    let null = |customer| {
        format!("{customer}: the amount is NULL for customer `{customer}` in the row of model `a`")
    };
    assert_eq!(in_error, ["acme", "big", "zeta"].map(null));
}

#[tokio::test]
async fn where_every_customer_fails_each_is_named() {
    let tiers = "[{up_to: 2, unit_amount: 1}]";
    let query =
        format!("SELECT customer, volume(SUM(n), {tiers}) AS amount FROM m GROUP BY customer");
    let (charges, in_error) = rated(&query).await.unwrap();
    assert!(charges.is_empty());
    let names: Vec<&str> = in_error
        .iter()
        .filter_map(|e| e.split(':').next())
        .collect();
    assert_eq!(names, ["acme", "big", "cargo", "free", "zeta"]);
}
