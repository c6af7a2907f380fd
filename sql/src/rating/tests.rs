use super::*;
use crate::{error::Location, session};
use std::error::Error as _;

fn price(query: &str) -> PriceDefinition {
    PriceDefinition {
        name: "tokens".into(),
        currency: "USD".into(),
        effective_from: None,
        on_change: crate::definitions::OnChange::NextPeriod,
        query: query.into(),
        query_at: Location {
            file: "prices.sql".into(),
            line: 8,
            column: 5,
        },
        version: 3,
        at: Location {
            file: "prices.sql".into(),
            line: 7,
            column: 1,
        },
    }
}

/// A session with one meter's totals.
async fn session() -> SessionContext {
    let context = session::context();
    let totals = "CREATE TABLE usage AS
        SELECT customer, model, CAST(input AS BIGINT) AS input, CAST(rate AS DECIMAL(38, 18)) AS rate
        FROM (VALUES ('globex', 'small', 1500, 0.0002), ('acme', 'large', 3, 0.01),
                     ('acme', NULL, 7, 0.02), ('acme', 'big', 11, 0.003)) AS t(customer, model, input, rate)";
    context.sql(totals).await.unwrap().collect().await.unwrap();
    context
}

/// The charges, when there is an answer for every customer.
async fn charged(context: &SessionContext, query: &str) -> Result<Vec<Charge>> {
    rate(context, &price(query), &[])
        .await
        .and_then(Rated::whole)
}

async fn charges(query: &str) -> Vec<Charge> {
    charged(&session().await, query).await.unwrap()
}

/// The message, and the innermost cause's where there is one.
async fn refusal(query: &str) -> String {
    let error = charged(&session().await, query).await.unwrap_err();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn rows_become_charges_ordered_by_customer_then_dimensions() {
    let charges = charges(
        "SELECT model, amount, customer, input AS quantity
         FROM (SELECT *, per_unit(input, rate) AS amount FROM usage)",
    )
    .await;
    let rows: Vec<_> = charges
        .iter()
        .map(|c| {
            let model = c.dimensions[0].1.as_deref().unwrap_or("-");
            format!(
                "{} {model} {} {}",
                c.customer,
                c.quantity.unwrap(),
                c.amount
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            "acme - 7 0.14",
            "acme big 11 0.033",
            "acme large 3 0.03",
            "globex small 1500 0.3"
        ]
    );
    assert_eq!(&*charges[0].dimensions[0].0, "model");
    assert_eq!(
        (
            &*charges[0].price,
            charges[0].price_version,
            &*charges[0].currency
        ),
        ("tokens", 3, "USD")
    );
}

#[tokio::test]
async fn a_tiered_price_over_a_total_is_rated_per_customer() {
    let charges = charges(
        "SELECT customer, SUM(input) AS quantity,
            graduated(SUM(input), [{up_to: 20, unit_amount: 0}, {up_to: NULL, unit_amount: 0.002}]) AS amount
         FROM usage GROUP BY customer",
    )
    .await;
    // acme: 21 units, one above 20; globex: 1480 above.
    let amounts: Vec<String> = charges.iter().map(|c| c.amount.to_string()).collect();
    assert_eq!(amounts, ["0.002", "2.96"]);
    assert_eq!(charges[0].quantity, Some(Exact::from(21_i64)));
}

#[tokio::test]
async fn a_price_needs_no_quantity_and_no_rows() {
    let flat = charges("SELECT DISTINCT customer, 49.00 AS amount FROM usage").await;
    assert_eq!(flat.len(), 2);
    assert_eq!(
        (flat[0].quantity, flat[0].amount),
        (
            None,
            Exact {
                digits: 49,
                scale: 0
            }
        )
    );
    assert!(
        charges("SELECT customer, 1 AS amount FROM usage WHERE input < 0")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn dimensions_are_exact_text() {
    let charges = charges(
        "SELECT 'a' AS customer, 1 AS amount, 1.50 AS size, TRUE AS flag, DATE '2026-10-01' AS day,
            CAST(9007199254740993 AS BIGINT) AS n",
    )
    .await;
    let text: Vec<_> = charges[0]
        .dimensions
        .iter()
        .map(|(_, value)| value.as_deref().unwrap())
        .collect();
    assert_eq!(text, ["1.50", "true", "2026-10-01", "9007199254740993"]);
}

#[tokio::test]
async fn the_answer_must_have_a_customer_and_an_exact_amount() {
    for (query, problem) in [
        (
            "SELECT 1 AS amount",
            "it returns no `customer`\n  hint: select the customer who pays",
        ),
        (
            "SELECT customer, input FROM usage",
            "it returns no `amount`",
        ),
        (
            "SELECT 5 AS customer, 1 AS amount",
            "`customer` is Int64, not text",
        ),
        (
            "SELECT customer, CAST(input AS DOUBLE) AS amount FROM usage",
            "`amount` is Float64, not an exact number\n  hint: floats are not exact",
        ),
        (
            "SELECT customer, '1' AS amount FROM usage",
            "`amount` is the text '1', but must be a number\n  hint: write it without quotes: 1",
        ),
        (
            "SELECT customer, 1 AS amount, CAST(1 AS REAL) AS quantity FROM usage",
            "`quantity` is Float32",
        ),
        (
            "SELECT customer, 1 AS amount, CAST(1 AS DOUBLE) AS share FROM usage",
            "the dimension `share` is Float64",
        ),
        (
            "SELECT a.customer, b.customer, 1 AS amount FROM usage a JOIN usage b ON a.input = b.input",
            "it returns `customer` twice",
        ),
    ] {
        let refusal = refusal(query).await;
        assert!(
            ["7:1", "8:22", "8:47", "8:54"]
                .iter()
                .any(|at| refusal.starts_with(&format!("prices.sql:{at}: price `tokens`: "))),
            "{refusal}"
        );
        assert!(refusal.contains(problem), "{refusal}");
    }
}

#[tokio::test]
async fn null_amounts_are_refused_naming_the_customer() {
    let query = "SELECT customer, per_unit(input, CASE WHEN model = 'small' THEN NULL ELSE rate END) AS amount FROM usage";
    assert!(
        refusal(query)
            .await
            .contains("the amount is NULL for customer `globex`")
    );
    assert!(
        refusal("SELECT 'acme' AS customer, NULL AS amount")
            .await
            .contains("NULL for customer `acme`")
    );
    let query = "SELECT CAST(NULL AS VARCHAR) AS customer, 1 AS amount";
    assert!(refusal(query).await.contains("a row has a NULL `customer`"));
}

#[tokio::test]
async fn a_null_quantity_is_kept_as_none() {
    let charges =
        charges("SELECT 'a' AS customer, 1 AS amount, CAST(NULL AS BIGINT) AS quantity").await;
    assert_eq!(charges[0].quantity, None);
}

#[tokio::test]
async fn clocks_and_random_numbers_are_refused_wherever_they_stand() {
    for (query, name) in [
        (
            "SELECT customer, 1 AS amount FROM usage WHERE random() < 0.5",
            "random",
        ),
        (
            "SELECT customer, 1 AS amount, uuid() AS u FROM usage",
            "uuid",
        ),
        ("SELECT customer, 1 AS amount, now() AS t FROM usage", "now"),
        (
            "SELECT customer, 1 AS amount FROM usage WHERE input > (SELECT CAST(random() AS BIGINT))",
            "random",
        ),
    ] {
        let refusal = refusal(query).await;
        assert!(
            refusal.contains(&format!(
                "`{name}` does not give the same answer every time"
            )),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn statements_that_change_something_are_refused() {
    for query in [
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE usage",
        "INSERT INTO usage VALUES ('a', 'b', 1, 1)",
        "COPY usage TO '/tmp/x.csv'",
        "SET datafusion.sql_parser.parse_float_as_decimal = false",
        "SELECT 1; SELECT 2",
    ] {
        assert!(refusal(query).await.contains("price `tokens`"), "{query}");
    }
}

#[tokio::test]
async fn failures_carry_the_price_its_place_and_the_tier() {
    let query = "SELECT customer, graduated(input, [{up_to: 9, unit_amount: 1}, {up_to: 5, unit_amount: 1}]) AS amount FROM usage";
    let broken = refusal(query).await;
    assert_eq!(
        broken,
        "prices.sql:8:69: price `tokens`: `graduated`: tier 2 ends at 5, not above 9\n  hint: list the tiers from the \
         lowest `up_to` to the highest, the one without a limit last: each begins where the one before ends"
    );
    let query = "SELECT customer, volume(input, [{up_to: 9, unit_amount: 1}]) AS amount FROM usage";
    assert!(
        refusal(query)
            .await
            .contains("is above 9, where the last tier ends (tier 1)")
    );
}

/// The fault's own place, also behind a line's end, in words of SQL, and what could have been meant.
#[tokio::test]
async fn a_price_that_cannot_be_planned_points_at_the_fault() {
    let columns = "known columns: `customer`, `input`, `model`, `rate`";
    for (query, said) in [
        (
            "SELECT customer, inptu AS amount FROM usage",
            format!("8:22: price `tokens`: there is no column `inptu`\n  hint: did you mean `input`? {columns}"),
        ),
        (
            "SELECT customer,\n  u.cost AS amount FROM usage u",
            format!("9:3: price `tokens`: `u` has no column `cost`\n  hint: {columns}"),
        ),
        (
            "SELECT customer, x.input AS amount FROM usage u",
            "8:22: price `tokens`: `x` has no column `input`\n  hint: no relation in FROM is called `x`".into(),
        ),
        (
            "SELECT customer, input AS amount\n FROM usge",
            "9:7: price `tokens`: there is no relation `usge`\n  hint: did you mean `usage`? known relations: `usage`"
                .into(),
        ),
        (
            "SELECT customer, gradutaed(input, 1) AS amount FROM usage",
            "8:22: price `tokens`: there is no function `gradutaed`\n  hint: did you mean `graduated`? docs/sql.md has \
             the functions of a price"
                .into(),
        ),
        (
            "SELECT customer, frobnicate(input) AS amount FROM usage",
            "8:22: price `tokens`: there is no function `frobnicate`\n  hint: docs/sql.md has the functions of a price"
                .into(),
        ),
        (
            "SELECT customer, graduated(input) AS amount FROM usage",
            "8:22: price `tokens`: `graduated` takes (quantity, tiers [, zero_usage_first_flat]), not 1 \
             arguments\n  hint: docs/sql.md says what the function takes"
                .into(),
        ),
        (
            "SELECT customer AS customer, 1 +\n package(model, 60, 1) AS amount FROM usage",
            "9:2: price `tokens`: `package`: `quantity` is VARCHAR, but must be an integer or DECIMAL: CAST it to DECIMAL(38, 9), \
             say\n  hint: docs/sql.md says what the function takes"
                .into(),
        ),
        (
            "SELECT customer, graduated(input, [{up_to: 2, unit_price: 0}]) AS amount FROM usage",
            "8:51: price `tokens`: tier 1 has the key `unit_price`; there are up_to, unit_amount, flat_amount, cap_amount, \
             rate_percent, block_size, block_amount, max_blocks\n  hint: did you mean `unit_amount`? docs/sql.md says what a tier \
             has"
                .into(),
        ),
        (
            "SELECT customer, volume(input, [{upto: 2, unit_amount: 0}]) AS amount FROM usage",
            "8:38: price `tokens`: tier 1 has the key `upto`; there are up_to, unit_amount, flat_amount, cap_amount, \
             rate_percent, block_size, block_amount, max_blocks\n  hint: did you mean `up_to`? docs/sql.md says what a tier has"
                .into(),
        ),
        (
            "SELECT customer, graduated(input, [{up_to: '1000', unit_amount: 1}]) AS amount FROM usage",
            "8:41: price `tokens`: tier 1: `up_to` is the text '1000', but must be a number or NULL\n  hint: write it without \
             quotes: up_to: 1000"
                .into(),
        ),
        (
            "SELECT customer, graduated(input, [{up_to: 9, unit_amount: 1}, {up_to: 2, unit_amount: 1}]) AS amount FROM usage",
            "8:69: price `tokens`: `graduated`: tier 2 ends at 2, not above 9\n  hint: list the tiers from the lowest `up_to` \
             to the highest, the one without a limit last: each begins where the one before ends"
                .into(),
        ),
        (
            "SELECT customer, graduated(input, [{up_to: NULL, unit_amount: 1}, {up_to: 2, unit_amount: 1}]) AS amount FROM usage",
            "8:41: price `tokens`: `graduated`: tier 1 has no `up_to`, so no quantity reaches tier 2\n  hint: put it last, or \
             give it an `up_to`"
                .into(),
        ),
        (
            "SELECT customer, per_unit(input, '0.1') AS amount FROM usage",
            "8:38: price `tokens`: `per_unit`: `unit_amount` is the text '0.1', but must be a number\n  hint: write it without \
             quotes: 0.1"
                .into(),
        ),
        (
            "SELECT customer, input * '0.1' AS amount FROM usage",
            "8:30: price `tokens`: a value that is calculated with is the text '0.1', but must be a number\n  hint: write it \
             without quotes: 0.1"
                .into(),
        ),
        (
            "SELECT customer, model, SUM(input) AS amount FROM usage GROUP BY customer",
            "8:22: price `tokens`: `usage.model` is neither in GROUP BY nor aggregated\n  hint: put it into GROUP BY, or \
             aggregate it"
                .into(),
        ),
        (
            "SELECT customer, input / 2 AS amount FROM usage",
            "8:22: price `tokens`: `/` is not exact\n  hint: `package(x, 60, 1)` counts the 60s that are begun; a factor must \
             be exact, as in `x * 0.001` for `x / 1000`"
                .into(),
        ),
        (
            "SELECT customer, SUM(input) AS amount FROM usage WHERE SUM(input) > 2 GROUP BY customer",
            "8:5: price `tokens`: WHERE has an aggregate\n  hint: put that condition into HAVING".into(),
        ),
        (
            "SELECT a.customer, customer AS c, 1 AS amount FROM usage a, usage b",
            "8:24: price `tokens`: `customer` is a column of more than one relation\n  hint: write the relation before \
             it, as in t.customer"
                .into(),
        ),
    ] {
        assert_eq!(refusal(query).await, format!("prices.sql:{said}"), "{query}");
    }
}

/// The plan decides what a name is, so no alias or WITH hides one.
#[tokio::test]
async fn only_relations_of_the_session_are_read() {
    for from in ["generate_series(1, 3)", "range(0, 3)"] {
        let text = refusal(&format!("SELECT 'a' AS customer, 1 AS amount FROM {from}")).await;
        assert!(text.contains("price `tokens`: it reads `"), "{text}");
        assert!(
            text.ends_with(
                "hint: read meters, `<meter>_windows`, event types, rate tables and `subscription`"
            ),
            "{text}"
        );
    }
    for from in ["information_schema.tables", "events", "line_items"] {
        let query = format!(
            "WITH events AS (SELECT * FROM {from}) SELECT 'a' AS customer, 1 AS amount FROM events"
        );
        let text = refusal(&query).await;
        assert!(text.contains("there is no relation"), "{text}");
    }
}

/// What depends on the order of rows is refused; `said` is the problem.
#[tokio::test]
async fn an_answer_that_depends_on_the_order_of_rows_is_refused() {
    for (query, said) in [
        (
            "SELECT customer, input AS amount FROM usage LIMIT 2",
            "LIMIT, OFFSET or FETCH without ORDER BY",
        ),
        (
            "SELECT customer, input AS amount FROM usage OFFSET 1",
            "LIMIT, OFFSET or FETCH without ORDER BY",
        ),
        (
            "SELECT customer, input AS amount FROM usage FETCH FIRST 1 ROWS ONLY",
            "FETCH clause is not supported yet",
        ),
        (
            "SELECT customer, input AS amount FROM (SELECT * FROM usage ORDER BY input) LIMIT 1",
            "LIMIT, OFFSET or FETCH without ORDER BY",
        ),
        (
            "SELECT DISTINCT ON (customer) customer, input AS amount FROM usage",
            "DISTINCT ON without ORDER BY",
        ),
        (
            "SELECT customer, 1 AS amount, string_agg(model, ',') AS models FROM usage GROUP BY customer",
            "the answer of `string_agg` depends",
        ),
        (
            "SELECT customer, 1 AS amount, string_agg(model, ',' ORDER BY input) AS models FROM usage GROUP BY customer",
            "the answer of `string_agg` depends",
        ),
        (
            "SELECT customer, first_value(input) AS amount FROM usage GROUP BY customer",
            "the answer of `first_value` depends",
        ),
        (
            "SELECT customer, last_value(input ORDER BY model) AS amount FROM usage GROUP BY customer",
            "the answer of `last_value` depends",
        ),
        (
            "SELECT customer, nth_value(input, 2 ORDER BY model) AS amount FROM usage GROUP BY customer",
            "the answer of `nth_value` depends",
        ),
        (
            "SELECT customer, array_length(array_agg(input)) AS amount FROM usage GROUP BY customer",
            "the answer of `array_agg` depends",
        ),
        (
            "SELECT customer, approx_distinct(model) AS amount FROM usage GROUP BY customer",
            "`approx_distinct` is not known to give one answer",
        ),
        (
            "SELECT customer, row_number() OVER (PARTITION BY customer) AS amount FROM usage",
            "the answer of `row_number` depends",
        ),
        (
            "SELECT customer, lag(input) OVER () AS amount FROM usage",
            "the answer of `lag` depends",
        ),
        (
            "SELECT customer, sum(input) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS amount FROM usage",
            "the answer of `sum` depends",
        ),
        (
            "SELECT customer, last_value(input) OVER (ORDER BY customer) AS amount FROM usage",
            "depends on the order of rows that tie",
        ),
        (
            "SELECT customer, 1 AS amount, version() AS v FROM usage",
            "`version` does not give the same answer",
        ),
        (
            "SELECT customer, 1 AS amount FROM usage WHERE input > (SELECT date_part('day', now()))",
            "`now` does not give the same answer",
        ),
    ] {
        let text = refusal(query).await;
        assert!(text.contains(said), "{query}: {text}");
    }
}

/// Ten rows tie by model; the other columns decide, whatever order the rows are in.
#[tokio::test]
async fn an_order_is_completed_by_all_columns() {
    let rows = |reversed: bool| {
        let mut inputs: Vec<i64> = (1..=10).collect();
        if reversed {
            inputs.reverse();
        }
        let values = inputs.iter().map(|n| format!("('acme', 'm', {n})"));
        values.collect::<Vec<_>>().join(", ")
    };
    for (query, expected) in [
        (
            "SELECT customer, input AS amount FROM (SELECT *, row_number() OVER (PARTITION BY customer ORDER BY model) AS place FROM usage) WHERE place <= 2",
            "1 2",
        ),
        (
            "SELECT customer, input AS amount FROM usage ORDER BY model DESC LIMIT 2",
            "1 2",
        ),
        (
            "SELECT DISTINCT ON (customer) customer, input AS amount FROM usage ORDER BY customer, model",
            "1",
        ),
        (
            "SELECT customer, input * 0 + sum(input) OVER (ORDER BY model ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS amount FROM usage ORDER BY input LIMIT 3",
            "1 3 5",
        ),
        (
            "SELECT DISTINCT customer, first_value(input) OVER (PARTITION BY customer ORDER BY model) AS amount FROM usage",
            "1",
        ),
        (
            "SELECT DISTINCT customer, sum(input) OVER (ORDER BY model) AS amount FROM usage",
            "55",
        ),
        (
            "SELECT DISTINCT customer, rank() OVER (ORDER BY model) AS amount FROM usage",
            "1",
        ),
    ] {
        for reversed in [false, true] {
            let context = session::context();
            let table = format!(
                "CREATE TABLE usage AS SELECT customer, model, CAST(input AS BIGINT) AS input FROM (VALUES {}) AS t(customer, model, input)",
                rows(reversed)
            );
            context.sql(&table).await.unwrap().collect().await.unwrap();
            let charges = charged(&context, query).await.unwrap();
            let mut amounts: Vec<Exact> = charges.iter().map(|charge| charge.amount).collect();
            amounts.sort();
            let amounts: Vec<String> = amounts.iter().map(ToString::to_string).collect();
            assert_eq!(amounts.join(" "), expected, "{query}");
        }
    }
}

/// What hints propose is accepted, and changes no value.
#[tokio::test]
async fn what_the_hints_propose_is_rated_exactly() {
    // acme's amounts are 7 × 0.02, 11 × 0.003 and 3 × 0.01, globex' 1500 × 0.0002.
    for (query, expected) in [
        // coalesce(…, 0) keeps every digit of what is there.
        (
            "SELECT customer, SUM(coalesce(input * rate, 0)) AS amount FROM usage GROUP BY customer",
            "acme 0.203, globex 0.3",
        ),
        (
            "SELECT customer, coalesce(CAST(0.000000000000000001 AS DECIMAL(38, 18)), 0) AS amount FROM usage WHERE input = 3",
            "acme 0.000000000000000001",
        ),
        (
            "SELECT customer, coalesce(99999999999999999999 * CAST(NULLIF(input, 3) AS DECIMAL(38, 18)), 0) AS amount
             FROM usage WHERE input = 3",
            "acme 0",
        ),
        ("SELECT CAST(input AS VARCHAR) AS customer, 1 AS amount FROM usage WHERE input = 3", "3 1"),
        (
            "SELECT customer, string_agg(model, ',' ORDER BY model) AS models, 1 AS amount FROM usage
             WHERE customer = 'globex' GROUP BY customer",
            "globex 1",
        ),
        (
            "SELECT customer, first_value(input ORDER BY rate, input) AS amount FROM usage GROUP BY customer",
            "acme 11, globex 1500",
        ),
        (
            "SELECT customer, MAX(n) AS amount FROM (SELECT customer, last_value(input) OVER (PARTITION BY customer ORDER BY input
             ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS n FROM usage) AS t GROUP BY customer",
            "acme 11, globex 1500",
        ),
        (
            "SELECT customer, input AS amount FROM (SELECT customer, input FROM usage ORDER BY input LIMIT 1) AS t",
            "acme 3",
        ),
    ] {
        let charges = charges(query).await;
        let shown: Vec<String> = charges.iter().map(|c| format!("{} {}", c.customer, c.amount)).collect();
        assert_eq!(shown.join(", "), expected, "{query}");
    }
}

mod apart;
mod digits;
mod events;
mod joins;
mod properties;
mod read;
mod tier_rows;
