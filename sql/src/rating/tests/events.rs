//! Prices by the event: events in the order in which `LATEST` has them.

use super::*;
use std::sync::Arc;

/// Three payments of acme in one second, which came as 5, 7, 9 and are written as 7, 9, 5; and one before them, one after.
/// The two of shard `b` and sequence 7 differ in their ordinal alone.
const PAYMENTS: &str = "SELECT customer, event_id, 'web' AS source, customer AS subject,
        CAST(at AS TIMESTAMP) AS event_time, CAST(at AS TIMESTAMP) AS ingest_time, shard,
        CAST(sequence AS BIGINT) AS sequence, CAST(ordinal AS INT) AS ordinal, CAST(amount AS DECIMAL(18, 2)) AS amount
    FROM (VALUES
        ('acme', 'z', '2026-10-02 10:00:00', 'b', 7, 0, 300.00),
        ('acme', 'c', '2026-10-02 10:00:00', 'b', 7, 1, 100.00),
        ('acme', 'x', '2026-10-02 10:00:00', 'b', 5, 0, 200.00),
        ('acme', 'y', '2026-10-01 10:00:00', 'b', 9, 0, 50.00),
        ('acme', 'a', '2026-10-03 10:00:00', 'a', 1, 0, 400.00),
        ('globex', 'g', '2026-10-01 10:00:00', 'b', 1, 0, 10.00)
    ) AS t(customer, event_id, at, shard, sequence, ordinal, amount)";

async fn session() -> SessionContext {
    let context = session::context();
    let rows = session::query(&context, PAYMENTS).await.unwrap();
    let rows = rows.collect().await.unwrap();
    context.register_batch("payment", rows[0].clone()).unwrap();
    let rates = "SELECT * FROM (VALUES ('acme', 2), ('acme', 3)) AS t(who, factor)";
    let rates = session::query(&context, rates).await.unwrap();
    let rates = rates.collect().await.unwrap();
    context.register_batch("rates", rates[0].clone()).unwrap();
    context
}

async fn lines(query: &str) -> String {
    let charges = charged(&session().await, query).await;
    let charges = charges.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let line = |charge: &Charge| {
        let dimensions = charge.dimensions.iter();
        let dimensions: Vec<&str> = dimensions.filter_map(|(_, text)| text.as_deref()).collect();
        format!(
            "{} {} {}",
            charge.customer,
            dimensions.join(" "),
            charge.amount
        )
    };
    let lines: Vec<String> = charges.iter().map(line).collect();
    lines.join(", ")
}

async fn refused_as(query: &str) -> String {
    let error = charged(&session().await, query).await.unwrap_err();
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// In order: y 50, x 200, z 300, c 100, a 400.
#[tokio::test]
async fn events_of_one_time_are_told_apart_by_their_place() {
    for (call, expected) in [
        ("ROW_NUMBER() OVER o", "a 5, c 4, x 2, y 1, z 3"),
        ("SUM(amount) OVER o", "a 1050, c 650, x 250, y 50, z 550"),
        ("COUNT(*) OVER o", "a 5, c 4, x 2, y 1, z 3"),
        ("MAX(amount) OVER o", "a 400, c 300, x 200, y 50, z 300"),
        (
            "AVG(amount) OVER o",
            "a 210, c 162.5, x 125, y 50, z 183.33333333333333",
        ),
        (
            "coalesce(LAG(amount) OVER o, 0)",
            "a 100, c 300, x 50, y 0, z 200",
        ),
        (
            "coalesce(LEAD(amount) OVER o, 0)",
            "a 0, c 400, x 300, y 200, z 100",
        ),
        (
            "LAST_VALUE(amount) OVER o",
            "a 400, c 100, x 200, y 50, z 300",
        ),
        ("RANK() OVER o", "a 5, c 4, x 2, y 1, z 3"),
        ("NTILE(2) OVER o", "a 2, c 2, x 1, y 1, z 1"),
        // By event time descending the place descends too.
        (
            "ROW_NUMBER() OVER (PARTITION BY customer ORDER BY event_time DESC)",
            "a 1, c 2, x 4, y 5, z 3",
        ),
        // Written out it is the same.
        (
            "SUM(amount) OVER (PARTITION BY customer ORDER BY event_time, sequence, ordinal, shard)",
            "a 1050, c 650, x 250, y 50, z 550",
        ),
        (
            "SUM(amount) OVER (PARTITION BY customer ORDER BY event_time, amount)",
            "a 1050, c 650, x 250, y 50, z 550",
        ),
        // The two before.
        (
            "coalesce(SUM(amount) OVER (PARTITION BY customer ORDER BY event_time ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING), 0)",
            "a 400, c 500, x 50, y 0, z 250",
        ),
        // A span of time has all events of its times.
        (
            "SUM(amount) OVER (PARTITION BY customer ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)",
            "a 1000, c 650, x 650, y 50, z 650",
        ),
        (
            "SUM(amount) OVER (PARTITION BY customer)",
            "a 1050, c 1050, x 1050, y 1050, z 1050",
        ),
        // Another order is as it is written: dearest first.
        (
            "ROW_NUMBER() OVER (PARTITION BY customer ORDER BY amount DESC)",
            "a 1, c 4, x 3, y 5, z 2",
        ),
    ] {
        let window = match call.contains("OVER o") {
            true => " WINDOW o AS (PARTITION BY customer ORDER BY event_time)",
            false => "",
        };
        let query = format!("SELECT customer, event_id, {call} AS amount FROM payment{window}");
        let lines = lines(&query).await;
        let of_acme: Vec<&str> = lines
            .split(", ")
            .filter_map(|line| line.strip_prefix("acme "))
            .collect();
        assert_eq!(of_acme.join(", "), expected, "{call}");
    }
}

#[tokio::test]
async fn the_place_is_found_under_other_names_and_beside_joins() {
    for (from, expected) in [
        // By the CTE's own names.
        (
            "(WITH p AS (SELECT customer, event_id, event_time AS at, sequence AS s, ordinal AS o, shard AS h, amount FROM payment)
              SELECT customer, event_id, SUM(amount) OVER (PARTITION BY customer ORDER BY at) AS amount FROM p)",
            "a 1050, c 650, x 250, y 50, z 550",
        ),
        // Each event twice: its two rows tie, and have one sum.
        (
            "(SELECT customer, event_id, factor, SUM(amount) OVER (PARTITION BY customer ORDER BY event_time) AS amount
              FROM payment JOIN rates ON who = customer)",
            "a 2 2100, a 3 2100, c 2 1300, c 3 1300, x 2 500, x 3 500, y 2 100, y 3 100, z 2 1100, z 3 1100",
        ),
        // One that numbers them goes on by all columns.
        (
            "(SELECT customer, event_id, factor, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY event_time) AS amount
              FROM payment JOIN rates ON who = customer)",
            "a 2 9, a 3 10, c 2 7, c 3 8, x 2 3, x 3 4, y 2 1, y 3 2, z 2 5, z 3 6",
        ),
        // Of two relations of the same events each has its own place.
        (
            "(SELECT a.customer, a.event_id, ROW_NUMBER() OVER (PARTITION BY a.customer ORDER BY b.event_time) AS amount
              FROM payment a JOIN payment b ON a.event_id = b.event_id AND a.customer = b.customer)",
            "a 5, c 4, x 2, y 1, z 3",
        ),
        (
            "(WITH p AS (SELECT * FROM payment) SELECT a.customer, a.event_id,
                 ROW_NUMBER() OVER (PARTITION BY a.customer ORDER BY b.event_time) AS amount
              FROM p a JOIN p b ON a.event_id = b.event_id AND a.customer = b.customer)",
            "a 5, c 4, x 2, y 1, z 3",
        ),
        // The first in order is DISTINCT ON's.
        (
            "(SELECT DISTINCT ON (customer) customer, event_id, amount FROM payment WHERE amount > 50
              ORDER BY customer, event_time)",
            "x 200",
        ),
    ] {
        let lines = lines(&format!("SELECT * FROM {from} AS t WHERE customer = 'acme'")).await;
        let of_acme: Vec<&str> = lines
            .split(", ")
            .filter_map(|line| line.strip_prefix("acme "))
            .collect();
        assert_eq!(of_acme.join(", "), expected, "{from}");
    }
}

#[tokio::test]
async fn what_does_not_tell_events_of_one_time_apart_is_refused() {
    let from = "prices.sql:7:1: price `tokens`: ";
    for (query, said) in [
        (
            "SELECT customer, SUM(amount) OVER (PARTITION BY customer ORDER BY event_time) AS amount
             FROM (SELECT customer, event_time, amount FROM payment) AS t",
            "it orders events of `payment` by `event_time`, but not by what tells events of one time apart\n  hint: \
             select `sequence`, `ordinal` and `shard` too in the sub-query, beside `event_time`",
        ),
        (
            "SELECT DISTINCT ON (customer) customer, amount FROM (SELECT customer, event_time, sequence, amount FROM payment) AS t
             ORDER BY customer, event_time",
            "it orders events of `payment` by `event_time`, but not by what tells events of one time apart\n  hint: \
             select `sequence`, `ordinal` and `shard` too in the sub-query, beside `event_time`",
        ),
        (
            "SELECT customer, ROW_NUMBER() OVER (PARTITION BY customer) AS amount FROM payment",
            "the answer of `row_number` depends on the order of rows\n  hint: add ORDER BY in OVER (…)",
        ),
        (
            "SELECT customer, CAST(PERCENT_RANK() OVER (PARTITION BY customer ORDER BY event_time) AS DECIMAL(9, 2)) AS amount
             FROM payment",
            "`percent_rank() PARTITION BY [payment.customer] ORDER BY [payment.event_time ASC NULLS LAST] RANGE BETWEEN UNBOUNDED \
             PRECEDING AND CURRENT ROW` is a float, which is not exact\n  hint: calculate with DECIMAL; \
             `package(x, 60, 1)` counts begun 60s exactly, and `x * 0.001` is exact for `x / 1000`",
        ),
        (
            "SELECT customer, amount FROM payment LIMIT 1",
            "it has LIMIT, OFFSET or FETCH without ORDER BY beside it\n  hint: add ORDER BY in the same SELECT: rows come \
             in any order",
        ),
    ] {
        assert_eq!(refused_as(query).await, format!("{from}{said}"), "{query}");
    }
}

/// "The first two payments are free, then 1.5 % + 0.10, at least 0.25 and at most 5 for each."
#[tokio::test]
async fn a_price_of_payments_is_plain_sql() {
    let query = "SELECT customer, COUNT(*) AS quantity,
            SUM(CASE WHEN n > 2 THEN percentage(amount, 1.5, 0.10, 0, 0.25, 5) ELSE 0 END) AS amount
        FROM (SELECT customer, amount, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY event_time) AS n FROM payment) AS t
        GROUP BY customer";
    // z 300: 4.60; c 100: 1.60; a 400: 6.10, at most 5.
    assert_eq!(lines(query).await, "acme  11.2, globex  0");
}

/// What a customer pays is told without the others where windows are within a customer, and only there.
#[tokio::test]
async fn events_of_one_customer_are_that_customers() {
    for (call, is_by_customer) in [
        (
            "ROW_NUMBER() OVER (PARTITION BY customer ORDER BY event_time)",
            true,
        ),
        ("ROW_NUMBER() OVER (ORDER BY event_time)", false),
        ("SUM(amount) OVER ()", false),
    ] {
        let query = format!("SELECT customer, {call} AS amount FROM payment");
        let found = super::is_by_customer(&session().await, &price(&query)).await;
        assert_eq!(found.unwrap(), is_by_customer, "{call}");
    }
}

/// A quantity is at most the sum of the events' amounts, whatever a join makes of it.
#[tokio::test]
async fn events_that_a_join_repeats_are_too_much_quantity() {
    let query = "SELECT customer, SUM(amount) AS quantity, 1 AS amount FROM payment JOIN rates ON who = customer GROUP BY customer";
    let said = refused_as(query).await;
    assert!(
        said.contains("the quantity of customer `acme` is 2100, but `amount` of `payment` is 1050 for that customer"),
        "{said}"
    );
}

/// Sorting what does not fit spills: 600,000 events in 32 MB.
#[tokio::test(flavor = "multi_thread")]
async fn a_price_by_the_event_spills_rather_than_grows() {
    let context = session::spilling(32_000_000).unwrap();
    let events = "SELECT 'customer-' || CAST(v % 7 AS VARCHAR) AS customer, 'event-' || CAST(v AS VARCHAR) AS event_id,
            'web' AS source, 'customer-' || CAST(v % 7 AS VARCHAR) AS subject,
            CAST(1790000000 - v AS TIMESTAMP) AS event_time, 'shard' AS shard, v AS sequence, CAST(0 AS INT) AS ordinal
        FROM (SELECT value AS v FROM generate_series(1, 600000))"
        .replace("v % 7", "v - 7 * package(v - 6, 7, 1)");
    let rows = session::query(&context, &events).await.unwrap();
    let rows = rows.collect().await.unwrap();
    let provider = datafusion::datasource::MemTable::try_new(rows[0].schema(), vec![rows]).unwrap();
    context
        .register_table("payment", Arc::new(provider))
        .unwrap();
    // Of the 85,714 or 85,715 events of each customer all but ten cost 1.
    let query = "SELECT customer, SUM(CASE WHEN n > 10 THEN 1 ELSE 0 END) AS amount
        FROM (SELECT customer, ROW_NUMBER() OVER (PARTITION BY customer ORDER BY event_time) AS n FROM payment) AS t
        GROUP BY customer";
    let charges = charged(&context, query).await.unwrap();
    let total: i128 = charges.iter().map(|charge| charge.amount.digits).sum();
    assert_eq!((charges.len(), total), (7, 600_000 - 70));
    let (_, plan) = planned(&context, &price(query)).await.unwrap();
    let state = context.state();
    let physical = state
        .query_planner()
        .create_physical_plan(&plan, &state)
        .await
        .unwrap();
    collect(Arc::clone(&physical), context.task_ctx())
        .await
        .unwrap();
    assert!(spills(physical.as_ref()) > 0);
}

fn spills(plan: &dyn datafusion::physical_plan::ExecutionPlan) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.spill_count());
    let inputs = plan
        .children()
        .into_iter()
        .map(|input| spills(input.as_ref()));
    own.unwrap_or(0) + inputs.sum::<usize>()
}
