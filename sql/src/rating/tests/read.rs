//! What a person reads of a price: the tiers that a line passes, and a warning of tiers that begin anew.

use super::{
    super::{passed::tiers_passed, warnings::begun_anew},
    *,
};

/// Totals by subject, as a meter has them, and a table of rates.
async fn session() -> SessionContext {
    let context = session::context();
    for sql in [
        "CREATE TABLE calls AS SELECT customer, subject, CAST(n AS BIGINT) AS n
         FROM (VALUES ('acme', 'a', 7), ('acme', 'b', 5)) AS t(customer, subject, n)",
        "CREATE TABLE rates AS SELECT customer, CAST(rate AS DECIMAL(9, 4)) AS rate FROM (VALUES ('acme', 2)) AS t(customer, rate)",
    ] {
        context.sql(sql).await.unwrap().collect().await.unwrap();
    }
    context
}

const TIERS: &str =
    "[{up_to: 3, unit_amount: 0}, {up_to: 10, unit_amount: 0.50}, {unit_amount: 0.25}]";

async fn passed(amount_of: &str, quantity: &str, amount: &str) -> Vec<String> {
    let query = format!(
        "SELECT customer, SUM(n) AS quantity, {amount_of} AS amount FROM calls GROUP BY customer"
    );
    let exact = |text: &str| Exact::parse(text).unwrap();
    let (context, price) = (session().await, price(&query));
    let tiers = tiers_passed(&context, &price, exact(quantity), exact(amount)).await;
    let tiers = tiers.unwrap();
    let text = |tier: &crate::functions::explain::TierPart| {
        format!(
            "{} for {}",
            tier.quantity,
            tier.amount.without_trailing_zeros()
        )
    };
    tiers.iter().map(text).collect()
}

#[tokio::test]
async fn the_tiers_of_a_line_are_those_that_come_to_its_amount() {
    let graduated = format!("graduated(SUM(n), {TIERS})");
    // 3 are free, 7 cost 3.50, 2 cost 0.50.
    let all = passed(&graduated, "12", "4.00").await;
    assert_eq!(all, ["3 for 0", "7 for 3.5", "2 for 0.5"]);
    assert_eq!(passed(&graduated, "2", "0").await, ["2 for 0"]);
    // Another amount is made of something else too.
    assert_eq!(passed(&graduated, "12", "4.01").await, [""; 0]);
    assert_eq!(passed("SUM(n) * 0.5", "12", "6").await, [""; 0]);
    let volume = format!("volume(SUM(n), {TIERS})");
    assert_eq!(passed(&volume, "12", "3").await, ["12 for 3"]);
    // Of two functions, the one that explains it.
    let either = format!("CASE WHEN SUM(n) > 10 THEN {volume} ELSE {graduated} END");
    assert_eq!(passed(&either, "12", "3").await, ["12 for 3"]);
}

async fn warned(query: &str) -> Vec<String> {
    let warnings = begun_anew(&session().await, &price(query)).await.unwrap();
    warnings
        .into_iter()
        .map(|warning| warning.problem)
        .collect()
}

#[tokio::test]
async fn tiers_of_rows_that_a_customer_has_several_of_are_warned_of() {
    let begins = |function: &str| {
        [format!(
            "price `tokens`: its `{function}` begins anew for each subject of a customer"
        )]
    };
    let graduated = format!("graduated(n, {TIERS})");
    let of_rows = format!("SELECT customer, n AS quantity, {graduated} AS amount FROM calls");
    assert_eq!(warned(&of_rows).await, begins("graduated"));
    let aliased = format!(
        "SELECT c.customer, 1 + {graduated} AS amount FROM (SELECT customer, n FROM calls) c LEFT JOIN rates r ON r.customer = c.customer"
    );
    assert_eq!(warned(&aliased).await, begins("graduated"));
    let package = "SELECT customer, package(n, 10, 1) AS amount FROM calls";
    assert_eq!(warned(package).await, begins("package"));
    let free = "SELECT customer, per_unit(n, 0.5, 10) AS amount FROM calls";
    assert_eq!(warned(free).await, begins("per_unit"));
    for query in [
        // A unit costs the same wherever it is.
        "SELECT customer, per_unit(n, 0.5) AS amount FROM calls".to_owned(),
        format!(
            "SELECT customer, graduated(SUM(n), {TIERS}) AS amount FROM calls GROUP BY customer"
        ),
        format!(
            "SELECT customer, graduated(n, {TIERS}) AS amount FROM (SELECT customer, SUM(n) AS n FROM calls GROUP BY customer)"
        ),
        // It says that each subject has its own.
        format!("SELECT customer, subject, {graduated} AS amount FROM calls"),
    ] {
        assert_eq!(warned(&query).await, [""; 0], "{query}");
    }
}
