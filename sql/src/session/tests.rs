//! What numbers in SQL are worth, and what SQL may not do.

use super::*;
use datafusion::{arrow::util::display::array_value_to_string, error::DataFusionError};

/// The one value that a query returns, as text.
async fn value(sql: &str) -> Result<String, DataFusionError> {
    let context = context();
    let query = query(&context, sql).await?;
    let batches = query.collect().await?;
    let batch = batches.iter().find(|batch| batch.num_rows() > 0);
    let batch = batch.expect("the query returns a row");
    Ok(array_value_to_string(batch.column(0), 0)?)
}

async fn refused(sql: &str) -> String {
    match value(sql).await {
        Ok(value) => panic!("{sql} gave {value}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn arithmetic_is_exact() {
    for (sql, expected) in [
        ("SELECT 0.1 + 0.2", "0.3"),
        ("SELECT 9223372036854775807 + 1", "9223372036854775808"),
        ("SELECT -9223372036854775807 - 9", "-9223372036854775816"),
        (
            "SELECT 9223372036854775807 * 9223372036854775807",
            "85070591730234615847396907784232501249",
        ),
        (
            "SELECT -x FROM (VALUES (CAST('-9223372036854775808' AS BIGINT))) AS t(x)",
            "9223372036854775808",
        ),
        (
            "SELECT x + y FROM (VALUES (9223372036854775807, 2.5)) AS t(x, y)",
            "9223372036854775809.5",
        ),
        (
            "SELECT SUM(x) FROM (VALUES (9223372036854775807), (9223372036854775807)) AS t(x)",
            "18446744073709551614",
        ),
        (
            "SELECT SUM(x) * 0.000001 FROM (VALUES (3), (4)) AS t(x)",
            "0.000007",
        ),
        (
            "SELECT a + 1 FROM (SELECT x * 2 AS a FROM (VALUES (21)) AS t(x))",
            "43",
        ),
        ("SELECT x + NULL IS NULL FROM (VALUES (1)) AS t(x)", "true"),
        (
            "SELECT x - y - 2 * x + y - -3 FROM (VALUES (7, 2.5)) AS t(x, y)",
            "-4.0",
        ),
        (
            "SELECT arrow_typeof(x + x - x) FROM (VALUES (1)) AS t(x)",
            "Decimal128(21, 0)",
        ),
        (
            "SELECT arrow_typeof(x * x * x * x) FROM (VALUES (1)) AS t(x)",
            "Decimal128(38, 0)",
        ),
        (
            "SELECT arrow_typeof(x + y * y - 1) FROM (VALUES (1, CAST(1 AS DECIMAL(5, 2)))) AS t(x, y)",
            "Decimal128(25, 4)",
        ),
        ("SELECT SUM(x) FROM (VALUES (1)) AS t(x) WHERE x > 1", ""),
        (
            "SELECT CAST(18446744073709551615 AS BIGINT UNSIGNED) + 1",
            "18446744073709551616",
        ),
    ] {
        assert_eq!(value(sql).await.unwrap(), expected, "{sql}");
    }
}

#[tokio::test]
async fn a_result_of_more_than_38_digits_is_an_error() {
    let nines = "9".repeat(38);
    for sql in [
        format!("SELECT {nines} + 1"),
        format!("SELECT {nines} * 2"),
        // Each step from left to right must fit.
        format!("SELECT x + 1 - 1 FROM (VALUES ({nines})) AS t(x)"),
        format!("SELECT x - 1 * 1 + 2 FROM (VALUES ({nines})) AS t(x)"),
        format!("SELECT x - y FROM (VALUES (-{nines}, {nines})) AS t(x, y)"),
        format!("SELECT x * y FROM (VALUES ({nines}, 1.1)) AS t(x, y)"),
        "SELECT x * x FROM (VALUES (CAST('11000000000000000000' AS DECIMAL(20, 0)))) AS t(x)"
            .to_owned(),
        format!("SELECT SUM(x) FROM (VALUES ({nines}), (1)) AS t(x)"),
        format!("SELECT SUM(x) OVER () FROM (VALUES ({nines}), (1)) AS t(x)"),
    ] {
        refused(&sql).await;
    }
}

#[tokio::test]
async fn the_last_value_of_38_digits_is_not_an_error() {
    let nines = "9".repeat(38);
    let sql = format!("SELECT x + 0 FROM (VALUES ({nines})) AS t(x)");
    assert_eq!(value(&sql).await.unwrap(), nines);
}

/// Quotient, remainder and shift as the hints write them, for every x that a boundary can meet.
#[tokio::test]
async fn what_the_hints_say_is_exact() {
    for x in 0_i64..=250 {
        for (text, expected) in [
            (format!("SELECT package({x}, 60, 1)"), (x + 59) / 60),
            (
                format!("SELECT {x} - 60 * package({x} - 59, 60, 1)"),
                x % 60,
            ),
            (format!("SELECT package({x} - 7, 8, 1)"), x >> 3),
            (format!("SELECT {x} * 8"), x << 3),
            (format!("SELECT ({x} * 1000) * 0.001"), x),
        ] {
            let found = value(&text).await.unwrap();
            let found = found.split('.').next().unwrap();
            assert_eq!(found, expected.to_string(), "{text}");
        }
    }
}

#[tokio::test]
async fn operators_that_lose_digits_are_refused_with_a_way_out() {
    for (sql, said) in [
        ("SELECT 1 / 3", "package(x, 60, 1)"),
        (
            "SELECT x / 1000 FROM (VALUES (1.5)) AS t(x)",
            "package(x, 60, 1)",
        ),
        ("SELECT 7 % 3", "x - 60 * package(x - 59, 60, 1)"),
        ("SELECT 1 << 63", "power of two"),
        ("SELECT '1' + 2", "Cannot coerce arithmetic"),
        ("SELECT true + 2", "Cannot coerce arithmetic"),
    ] {
        let error = refused(sql).await;
        assert!(error.contains(said), "{sql}: {error}");
    }
}

#[tokio::test]
async fn aggregates_that_truncate_or_depend_on_order_are_not_there() {
    for sql in [
        "SELECT avg(x) FROM (VALUES (CAST(1 AS DOUBLE))) AS t(x)",
        "SELECT mean(x) FROM (VALUES (1), (2)) AS t(x)",
        "SELECT quantile_cont(x, 0.5) FROM (VALUES (1), (2)) AS t(x)",
        "SELECT median(x) FROM (VALUES (CAST(1 AS DOUBLE))) AS t(x)",
        "SELECT SUM(x) FROM (VALUES (CAST(1 AS DOUBLE))) AS t(x)",
    ] {
        refused(sql).await;
    }
}

#[tokio::test]
async fn absolute_values_do_not_wrap() {
    refused("SELECT abs(x) FROM (VALUES (CAST('-9223372036854775808' AS BIGINT))) AS t(x)").await;
}

#[tokio::test]
async fn calendar_and_estimates_are_left_alone() {
    for (sql, expected) in [
        (
            "SELECT DATE '2026-01-31' + INTERVAL '1 month'",
            "2026-02-28",
        ),
        ("SELECT CAST(1 AS DOUBLE) / 4", "0.25"),
        (
            "SELECT CAST(sum(x) AS DOUBLE) / count(*) FROM (VALUES (1), (2)) AS t(x)",
            "1.5",
        ),
    ] {
        assert_eq!(value(sql).await.unwrap(), expected, "{sql}");
    }
}

#[tokio::test]
async fn user_sql_can_only_read() {
    for sql in [
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "INSERT INTO t VALUES (1)",
        "COPY (SELECT 1) TO '/tmp/stolen.csv'",
        "SET datafusion.sql_parser.parse_float_as_decimal = false",
        "DROP TABLE t",
        "BEGIN",
    ] {
        refused(sql).await;
    }
}

mod precedence;

/// In every session, an aggregate's argument is evaluated only where its FILTER lets a row through, and a branch of CASE
/// only where it is taken. The texts that are no numbers fail when they are cast.
#[tokio::test]
async fn a_filter_and_a_case_shield_what_they_leave_out() {
    let table =
        "(VALUES ('number', '7', 1), ('text', 'seven', 2), ('number', '5', 3)) AS t(kind, v, at)";
    for (select, expected) in [
        (
            "SUM(CAST(v AS BIGINT)) FILTER (WHERE kind = 'number')",
            "12",
        ),
        (
            "SUM(CAST(v AS BIGINT) * 2) FILTER (WHERE kind = 'number') + SUM(CAST(v AS BIGINT)) FILTER (WHERE kind = 'number')",
            "36",
        ),
        (
            "COUNT(DISTINCT CAST(v AS BIGINT)) FILTER (WHERE kind = 'number')",
            "2",
        ),
        (
            "CAST(AVG(CAST(v AS DECIMAL(9, 2))) FILTER (WHERE kind = 'number') AS BIGINT)",
            "6",
        ),
        (
            "array_to_string(array_agg(v ORDER BY CAST(v AS BIGINT)) FILTER (WHERE kind = 'number'), ',')",
            "5,7",
        ),
        (
            "SUM(CASE kind WHEN 'number' THEN CAST(v AS BIGINT) ELSE 0 END)",
            "12",
        ),
        (
            "MAX(coalesce(CASE WHEN kind = 'text' THEN 9 END, CAST(v AS BIGINT)))",
            "9",
        ),
    ] {
        let query = format!("SELECT CAST({select} AS VARCHAR) FROM {table}");
        assert_eq!(value(&query).await.unwrap(), expected, "{query}");
    }
    let window = format!(
        "SELECT CAST(MAX(s) AS VARCHAR) FROM (SELECT SUM(CAST(v AS BIGINT)) FILTER (WHERE kind = 'number') OVER (ORDER BY at)
         AS s FROM {table}) AS w"
    );
    assert_eq!(value(&window).await.unwrap(), "12");
    let unshielded = format!(
        "SELECT CAST(SUM(CAST(v AS BIGINT)) FILTER (WHERE at < 3) AS VARCHAR) FROM {table}"
    );
    assert!(refused(&unshielded).await.contains("Cannot cast string"));
}

#[tokio::test]
async fn a_statement_that_nests_too_deeply_is_refused_before_it_is_read() {
    let state = context().state();
    let refused = |sql: String| {
        let state = state.clone();
        async move { plan(&state, &sql).await.unwrap_err().strip_backtrace() }
    };
    let ors = "1 = 2 OR\n".repeat(8_000);
    // Four words a line, after the two of SELECT 1 and that of WHERE: the 1,001st is the second of line 250.
    assert_eq!(
        refused(format!("SELECT 1 WHERE\n{ors} true")).await,
        "Error during planning: line 251, column 3: the query has more than 1000 words in a row; put long lists into a rate \
         table and join it"
    );
    let parens = format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000));
    assert!(
        refused(parens)
            .await
            .contains("more than 1000 words in a row")
    );
    let nested = format!("SELECT {}1", "- ".repeat(50_000));
    assert!(
        refused(nested)
            .await
            .contains("more than 1000 words in a row")
    );
    let long = format!("SELECT {}1", "1, ".repeat(60_000));
    assert!(
        refused(long)
            .await
            .contains("the statement has more than 100000 words")
    );
    let names = vec!["'a'"; 20_000].join(", ");
    plan(&state, &format!("SELECT 1 WHERE 'b' IN ({names})"))
        .await
        .unwrap();
}

#[test]
fn what_sorts_set_aside_is_less_than_their_share_on_any_number_of_cores() {
    for (bytes, cores, expected) in [
        (32_000_000, 64, (1, 10_666_666)),
        (128_000_000, 64, (2, 21_333_333)),
        (1_000_000_000, 2, (2, 166_666_666)),
        (1_000_000_000, 64, (15, 22_222_222)),
        (0, 0, (1, 0)),
    ] {
        assert_eq!(shares(bytes, cores), expected);
    }
    let config = spilling(32_000_000).unwrap().copied_config();
    assert_eq!(config.target_partitions(), 1);
    let execution = &config.options().execution;
    assert_eq!(execution.sort_in_place_threshold_bytes, 32_000_000);
    // No more than DataFusion itself sets aside.
    assert_eq!(
        execution.sort_spill_reservation_bytes,
        SessionConfig::new()
            .options()
            .execution
            .sort_spill_reservation_bytes
    );
}
