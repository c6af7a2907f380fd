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
    let rated = rate(&session_of_many().await, &price(query)).await?;
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
        let error = rated(query).await.unwrap_err();
        assert_eq!(error.to_string(), "prices.sql:7:1: price `tokens` failed", "{query}");
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

#[tokio::test]
async fn a_customer_without_a_rate_is_in_error_alone() {
    let query = "SELECT m.customer, m.model, SUM(m.n * r.rate) AS amount FROM m LEFT JOIN rates r ON r.model = m.model
                 WHERE m.customer <> 'big' GROUP BY m.customer, m.model";
    let (charges, in_error) = rated(query).await.unwrap();
    // 3 × 0.5 and 4 × 2; 5 × 2; 7 × 0.5.
    assert_eq!(charges, ["acme 1.5", "acme 8", "cargo 10", "zeta 3.5"]);
    assert_eq!(in_error, ["free: the amount is NULL for customer `free`"]);
}

#[tokio::test]
async fn a_customer_that_two_faults_concern_has_one_reason_and_no_charge() {
    let query = "SELECT customer, model, CASE model WHEN 'a' THEN NULL ELSE n END AS amount FROM m";
    let (charges, in_error) = rated(query).await.unwrap();
    assert_eq!(charges, ["cargo 5", "free 6"]);
    let null = |customer| format!("{customer}: the amount is NULL for customer `{customer}`");
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
