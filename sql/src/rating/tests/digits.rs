//! What is said where a number of a price has more than 38 digits: which factor to cast, to what, and where it is.

use super::*;

/// Usage of `acme`, `big` and `sum`, and rates with 18 digits after the point.
async fn session_of_rates() -> SessionContext {
    let context = session::context();
    for table in [
        "CREATE TABLE used AS SELECT customer, customer AS subject, model, CAST(n AS DECIMAL(38, 0)) AS n FROM (VALUES
         ('acme', 'a', 1000000), ('big', 'a', 1000000000000), ('sum', 'a', 16000000), ('sum', 'b', 16000000)
         ) AS t(customer, model, n)",
        "CREATE TABLE rates AS SELECT model, CAST(0.000003 AS DECIMAL(38, 18)) AS rate, CAST(1.25 AS DECIMAL(38, 18)) AS factor,
         CAST(0.5 AS DECIMAL(38, 18)) AS share FROM (VALUES ('a'), ('b')) AS t(model)",
    ] {
        context.sql(table).await.unwrap().collect().await.unwrap();
    }
    context
}

const HINT: &str = "write CAST(r.factor AS DECIMAL(22, 2)), which leaves 18 digits before the point; a cast rounds: where these \
                    digits count, cast another factor";

fn by_customer(amount: &str, condition: &str) -> String {
    format!(
        "SELECT u.customer,\n       {amount} AS amount\nFROM used u JOIN rates r ON r.model = u.model {condition}GROUP BY u.customer"
    )
}

#[tokio::test]
async fn a_product_that_does_not_fit_names_the_factor_to_cast_for_its_customer() {
    let context = session_of_rates().await;
    // 10^6 × 0.000003 × 1.25 is 3.75; 10^12 of it is 3,750,000.
    let query = by_customer("SUM(u.n * r.rate * r.factor)", "WHERE u.customer <> 'sum' ");
    let rated = rate(&context, &price(&query), &[]).await.unwrap();
    let amounts = |rated: &Rated| -> Vec<String> {
        let charges = rated.charges.iter();
        charges
            .map(|charge| format!("{} {}", charge.customer, charge.amount))
            .collect()
    };
    assert_eq!(amounts(&rated), ["acme 3.75"]);
    let said: Vec<String> = rated.in_error.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [format!(
            "prices.sql:9:27: price `tokens`: it fails for customer `big`: `u.n * r.rate * r.factor` has 7 digits before the point \
             and 36 after it, and a decimal has 38 in all; {HINT}"
        )]
    );
    // As it says, there is room then, and the values have no more digits.
    let query = query.replace("r.factor", "CAST(r.factor AS DECIMAL(22, 2))");
    let rated = rate(&context, &price(&query), &[]).await.unwrap();
    assert_eq!(amounts(&rated), ["acme 3.75", "big 3750000"]);
    assert!(rated.in_error.is_empty());
}

#[tokio::test]
async fn a_sum_that_does_not_fit_names_the_factor_too() {
    // 60 and 60 are 120, and 36 digits after the point leave two before it.
    let query = by_customer("SUM(u.n * r.rate * r.factor)", "WHERE u.customer = 'sum' ");
    let rated = rate(&session_of_rates().await, &price(&query), &[]).await;
    let said: Vec<String> = rated
        .unwrap()
        .in_error
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        said,
        [format!(
            "prices.sql:9:27: price `tokens`: it fails for customer `sum`: a sum of `u.n * r.rate * r.factor` has more than 38 \
             digits, 36 of them after the point; {HINT}"
        )]
    );
}

#[tokio::test]
async fn a_product_that_can_never_fit_is_refused_at_the_factor() {
    let context = session_of_rates().await;
    let query = by_customer("SUM(u.n * r.rate * (r.factor * r.share))", "");
    let refused = rate(&context, &price(&query), &[]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "prices.sql:9:39: price `tokens`: `u.n * r.rate * r.factor * r.share` would have 54 digits after the point, and a decimal \
         has 38 in all\n  hint: write CAST(r.share AS DECIMAL(22, 2)), CAST(r.factor AS DECIMAL(22, 2)) and \
         CAST(r.rate AS DECIMAL(36, 16)), which leave 18 digits before the point; a cast rounds: where these digits count, cast \
         another factor"
    );
    let query = query
        .replace("r.share", "CAST(r.share AS DECIMAL(22, 2))")
        .replace("r.factor", "CAST(r.factor AS DECIMAL(22, 2))")
        .replace("r.rate", "CAST(r.rate AS DECIMAL(36, 16))");
    let rated = rate(&context, &price(&query), &[])
        .await
        .unwrap()
        .whole()
        .unwrap();
    // Half of 3.75, of 3,750,000 and of 120.
    let amounts: Vec<String> = rated.iter().map(|c| c.amount.to_string()).collect();
    assert_eq!(amounts, ["1.875", "1875000", "60"]);
}

#[tokio::test]
async fn a_price_that_compares_customers_is_refused_at_the_factor() {
    let query = "SELECT u.customer, u.n * r.rate * r.factor - (SELECT MIN(n) FROM used) AS amount FROM used u CROSS JOIN rates r";
    let refused = rate(&session_of_rates().await, &price(query), &[]).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(
            "prices.sql:8:39: price `tokens`: `u.n * r.rate * r.factor` has 7 digits before the point and 36 after it, and a \
             decimal has 38 in all\n  hint: {HINT}"
        )
    );
}

#[tokio::test]
async fn a_product_without_digits_after_the_point_has_nothing_to_cast() {
    let query = "SELECT customer, SUM(n * n * n * n) AS amount FROM used GROUP BY customer";
    let rated = rate(&session_of_rates().await, &price(query), &[]).await;
    let rated = rated.unwrap();
    let big = rated.in_error.iter().find(|known| known.customer == "big");
    assert_eq!(
        big.unwrap().to_string(),
        "prices.sql:8:26: price `tokens`: it fails for customer `big`: `used.n * used.n * used.n * used.n` has 49 digits before the \
         point and 0 after it, and a decimal has 38 in all; no amount has more digits: check the quantity and the rate"
    );
}
