//! Every construct that a meter cannot have: the whole of what is said, with its place and the way out.

use super::*;
use crate::definitions::{Definitions, SourceFile};

async fn refusal(query: &str) -> String {
    let planned = Meter::plan(&definition(query), &event_type()).await;
    let Err(error) = planned else {
        panic!("{query} is not refused");
    };
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.to_string()
}

/// Each query, from line 4 of its file on, with the place and what is said.
#[tokio::test]
async fn each_construct_is_refused_with_its_place_and_a_way_out() {
    let cases = [
        (
            "SELECT subject, SUM(input) AS i FROM llm JOIN llm AS l ON true GROUP BY subject",
            "4:47: meter `tokens`: a meter cannot have a join\n  hint: join in the price, where the meter is a table",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm, llm AS b GROUP BY subject",
            "4:1: meter `tokens`: a meter cannot have no table or several tables in FROM\n  hint: read one event type: FROM its name",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM (SELECT * FROM llm) GROUP BY subject",
            "4:39: meter `tokens`: a meter cannot have a sub-query in FROM\n  hint: read the event type itself and filter with WHERE",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM other GROUP BY subject",
            "4:38: meter `tokens`: a meter cannot have `other` in FROM\n  hint: read the event type itself",
        ),
        (
            "SELECT subject,\n SUM(input) AS i FROM llm\nWHERE input > (SELECT 1) GROUP BY subject",
            "6:16: meter `tokens`: a meter cannot have a sub-query\n  hint: a meter sees one event at a time: join in the price",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm WHERE model IN (SELECT 'x') GROUP BY subject",
            "4:48: meter `tokens`: a meter cannot have a sub-query\n  hint: a meter sees one event at a time: join in the price",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm WHERE EXISTS (SELECT 1) GROUP BY subject",
            "4:56: meter `tokens`: a meter cannot have a sub-query\n  hint: a meter sees one event at a time: join in the price",
        ),
        (
            "SELECT subject, SUM(SUM(input)) OVER () AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have a window function\n  hint: use a plain aggregate, or the window function in a query over the meter",
        ),
        (
            "SELECT DISTINCT subject, SUM(input) AS i FROM llm GROUP BY subject",
            "4:1: meter `tokens`: a meter cannot have DISTINCT\n  hint: GROUP BY already makes rows distinct",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject ORDER BY subject",
            "4:68: meter `tokens`: a meter cannot have ORDER BY\n  hint: sort when you query the meter",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject LIMIT 3",
            "4:1: meter `tokens`: a meter cannot have LIMIT\n  hint: limit when you query the meter",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject HAVING SUM(input) > 3",
            "4:66: meter `tokens`: a meter cannot have HAVING\n  hint: filter when you query the meter; a window's value may still grow",
        ),
        (
            "WITH x AS (SELECT 1) SELECT subject, SUM(input) AS i FROM llm GROUP BY subject",
            "4:1: meter `tokens`: a meter cannot have WITH\n  hint: put the expressions into the SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject UNION ALL SELECT 'a', 1",
            "4:1: meter `tokens`: a meter cannot have UNION or another set operation\n  hint: make one meter for each and add them in the price",
        ),
        (
            "SELECT * FROM llm GROUP BY subject",
            "4:8: meter `tokens`: a meter cannot have `*` in SELECT\n  hint: name `subject`, the dimensions and the measures",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY ALL",
            "4:1: meter `tokens`: a meter cannot have GROUP BY ALL, ROLLUP or CUBE\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY ROLLUP (subject)",
            "4:57: meter `tokens`: `ROLLUP (llm.subject)` groups in several ways\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY GROUPING SETS ((subject), ())",
            "4:65: meter `tokens`: `GROUPING SETS ((llm.subject), ())` groups in several ways\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, SUM(input) / 1000 AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `/`, which loses digits\n  hint: `package(x, 60, 1)` counts the 60s that are begun; a factor must be exact, as in `x * 0.001` for `x / 1000`",
        ),
        (
            "SELECT subject, SUM(input % 7) AS i FROM llm GROUP BY subject",
            "4:21: meter `tokens`: a meter cannot have `%`, which loses digits\n  hint: for a whole x of zero or more, `x % 60` is `x - 60 * package(x - 59, 60, 1)`",
        ),
        (
            "SELECT subject, SUM(input << 3) AS i FROM llm GROUP BY subject",
            "4:21: meter `tokens`: `<<` is not exact\n  hint: multiply by a power of two: `x * 8` for `x << 3`",
        ),
        (
            "SELECT subject, SUM(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: sum does not take floating-point numbers, whose sum depends on their order\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, MAX(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `max(llm.input) AS i` is floating point\n  hint: calculate with BIGINT and DECIMAL(p, s); leave casts to floating point, and functions such as sqrt, out",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE sqrt(input) > 3 GROUP BY subject",
            "4:46: meter `tokens`: `sqrt(CAST(llm.input AS Float64))` is floating point\n  hint: calculate with BIGINT and DECIMAL(p, s); leave casts to floating point, and functions such as sqrt, out",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE random() > 0.5 GROUP BY subject",
            "4:46: meter `tokens`: `random` does not always return the same\n  hint: use `event_time` for time, and columns of the event",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE event_time < now() GROUP BY subject",
            "4:59: meter `tokens`: `now` does not always return the same\n  hint: use `event_time` for time, and columns of the event",
        ),
        (
            "SELECT subject, approx_distinct(model) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the aggregate `approx_distinct` is not for meters\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject, first_value(input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the aggregate `first_value` is not for meters\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject,\n SUM(DISTINCT input) AS i FROM llm GROUP BY subject",
            "5:2: meter `tokens`: a meter cannot have DISTINCT in `sum`\n  hint: COUNT(DISTINCT x) counts distinct values; nothing else takes DISTINCT",
        ),
        (
            "SELECT subject, COUNT(DISTINCT model, input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have COUNT(DISTINCT …) of 2 values\n  hint: count one expression: COUNT(DISTINCT x)",
        ),
        (
            "SELECT subject, COUNT(DISTINCT CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: count_distinct does not take floating-point numbers\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, avg(CAST(input AS REAL)) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: avg does not take floating-point numbers\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, avg(model) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: avg does not take VARCHAR\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, latest(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: latest does not take floating-point numbers\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, latest(input, event_time) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `latest` of 2 values\n  hint: write latest(x)",
        ),
        (
            "SELECT subject, first(input ORDER BY output) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `first` has an order or a treatment of NULL\n  hint: leave the order out; the result does not depend on it",
        ),
        (
            "SELECT subject, percentile(input, 1.5) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `percentile` with `1.5`\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile_cont(input, -0.5) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `percentile_cont` with `-0.5`\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile(input, 0.0123456789) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `percentile` with `0.0123456789`\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile(input, output) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `percentile` with `output`\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile(input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `percentile` of 1 values\n  hint: write percentile(x, 0.95)",
        ),
        (
            "SELECT subject, median(DISTINCT input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have DISTINCT in `median`\n  hint: COUNT(DISTINCT x) counts distinct values; nothing else takes DISTINCT",
        ),
        (
            "SELECT subject, time_weighted_sum(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: time_weighted_sum does not take floating-point numbers\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, prorated_sum(model) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: prorated_sum does not take VARCHAR\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, time_weighted_sum(cost * cost * cost * 0.0000001) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: time_weighted_sum would have 40 digits after the point\n  hint: cast to fewer",
        ),
        (
            "SELECT subject, unique_count(model, input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: unique_count takes whether an event adds its value as TRUE or FALSE, not as Int64\n  hint: write a condition, such as operation IS DISTINCT FROM 'remove'",
        ),
        (
            "SELECT subject, unique_count(model) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `unique_count` of 1 values\n  hint: write unique_count(x, adds)",
        ),
        (
            "SELECT model, COUNT(*) AS i FROM llm GROUP BY model",
            "4:1: meter `tokens`: `subject` is not both selected and in GROUP BY\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT COUNT(*) AS i FROM llm",
            "4:1: meter `tokens`: `subject` is not both selected and in GROUP BY\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT subject AS who, COUNT(*) AS i FROM llm GROUP BY subject",
            "4:1: meter `tokens`: `subject` is not both selected and in GROUP BY\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT model AS subject, COUNT(*) AS i FROM llm GROUP BY model",
            "4:1: meter `tokens`: `subject` is not both selected and in GROUP BY\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "4:58: meter `tokens`: the group key `llm.model` is selected 0 times\n  hint: select each group key once: rows would not be told apart",
        ),
        (
            "SELECT subject, model AS a, model AS b, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "4:82: meter `tokens`: the group key `llm.model` is selected 2 times\n  hint: select each group key once: rows would not be told apart",
        ),
        (
            "SELECT subject, model, COUNT(*) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `llm.model` is neither in GROUP BY nor aggregated\n  hint: put it into GROUP BY, or aggregate it",
        ),
        (
            "SELECT subject, upper(model) AS m, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "4:17: meter `tokens`: `m` is neither a group key nor made of aggregates\n  hint: put the whole expression into GROUP BY, or aggregate it",
        ),
        (
            "SELECT subject, 1 AS one, COUNT(*) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `one` is neither a group key nor made of aggregates\n  hint: put the whole expression into GROUP BY, or aggregate it",
        ),
        (
            "SELECT subject FROM llm GROUP BY subject",
            "4:1: meter `tokens`: it has no measure\n  hint: add one, such as COUNT(*) AS events",
        ),
        (
            "SELECT subject, COUNT(*) FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `count(*)` needs a name\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS \"my count\" FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `my count` needs a name\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS i, SUM(input) AS \"I\" FROM llm GROUP BY subject",
            "4:32: meter `tokens`: the column name `I` is given twice\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS window_end FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the column name `window_end` is taken\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS meter_version FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the column name `meter_version` is taken\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS \"Closed_At\" FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the column name `Closed_At` is taken\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS a__state0 FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the column name `a__state0` is taken\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, SUM(inputs) AS i FROM llm GROUP BY subject",
            "4:21: meter `tokens`: there is no column `inputs`\n  hint: did you mean `input`? known columns: `cost`, `event_id`, `event_time`, `ingest_time`, `input`, `model`, `ordinal`, `output`, `sequence`, `shard`, `source`, `subject`",
        ),
        (
            "SELECT subject, SUM(model) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: sum does not take VARCHAR\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject, SUM(input) AS j, SUM(model) AS i FROM llm GROUP BY subject",
            "4:34: meter `tokens`: sum does not take VARCHAR\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject, SUM(input) + SUM(model) AS i FROM llm GROUP BY subject",
            "4:30: meter `tokens`: sum does not take VARCHAR\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject,\n  MAX(input) AS i,\n  MAX(CAST(output AS DOUBLE)) AS j FROM llm GROUP BY subject",
            "6:3: meter `tokens`: `max(llm.output) AS j` is floating point\n  hint: calculate with BIGINT and DECIMAL(p, s); leave casts to floating point, and functions such as sqrt, out",
        ),
        (
            "SELECT subject, COUNT(DISTINCT input) AS i, COUNT(DISTINCT CAST(output AS DOUBLE)) AS j FROM llm GROUP BY subject",
            "4:45: meter `tokens`: count_distinct does not take floating-point numbers\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, SUM(input * 2) AS i, SUM(cost * cost * cost * cost * cost) AS j FROM llm GROUP BY subject",
            "4:42: meter `tokens`: a product has more than 38 digits after the point\n  hint: declare a factor with fewer digits after the point; a cast to DECIMAL(p, s) rounds each value",
        ),
        (
            "SELECT subject, SUM(input) AS i, SUM(model) FILTER (WHERE input > 0) AS j FROM llm GROUP BY subject",
            "4:34: meter `tokens`: sum does not take VARCHAR\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm\nWHERE upper(model) = 'X' AND upper(input, 3) = 'Y'\nGROUP BY subject",
            "5:30: meter `tokens`: `upper` does not take what it is given\n  hint: check how many values it takes, and their types; docs/meters.md has the aggregates",
        ),
        (
            "SELECT subject, SUM(input) AS i,\n  SUM(CAST(input AS DECIMAL(20, 2))) AS j FROM llm GROUP BY subject",
            "5:3: meter `tokens`: two expressions, both `sum(llm.input)`, differ in a cast alone\n  hint: make another expression of one of them: cast(x …) + 0, or cast(x …) || '' for text",
        ),
        (
            "SELECT subject, cost, cost * SUM(input) AS x, SUM(cost * cost * cost * cost * cost) AS y FROM llm GROUP BY subject, cost",
            "4:51: meter `tokens`: a product has more than 38 digits after the point\n  hint: declare a factor with fewer digits after the point; a cast to DECIMAL(p, s) rounds each value",
        ),
        (
            "SELECT subject, SUM(abs(input) * 2) AS i, SUM(cost * cost * cost * cost * cost) AS j FROM llm GROUP BY subject",
            "4:47: meter `tokens`: a product has more than 38 digits after the point\n  hint: declare a factor with fewer digits after the point; a cast to DECIMAL(p, s) rounds each value",
        ),
        (
            "SELECT subject, SUM(input << 3) AS i, SUM(model) AS j FROM llm GROUP BY subject",
            "4:39: meter `tokens`: sum does not take VARCHAR\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject, SUM(input) AS a, SUM(CAST(input AS DECIMAL(20, 2))) AS b, SUM(output) AS c FROM llm GROUP BY subject",
            "4:34: meter `tokens`: two expressions, both `sum(llm.input)`, differ in a cast alone\n  hint: make another expression of one of them: cast(x …) + 0, or cast(x …) || '' for text",
        ),
        (
            "SELECT subject, SUM(input) AS i, SUM(output) AS i FROM llm GROUP BY subject",
            "4:34: meter `tokens`: a meter cannot have two columns called `i`\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*), COUNT(*) FROM llm GROUP BY subject",
            "4:27: meter `tokens`: a meter cannot have two columns called `COUNT(*)`\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, SUM(input) FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `sum(llm.input)` needs a name\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE SUM(input) > 3 GROUP BY subject",
            "4:46: meter `tokens`: a meter cannot have an aggregate in WHERE\n  hint: filter events there; filter totals when you query the meter",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE input GROUP BY subject",
            "4:46: meter `tokens`: the condition of WHERE is neither true nor false\n  hint: compare it with something",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY 1, 9",
            "4:52: meter `tokens`: there is no column 9 in SELECT\n  hint: group by a name",
        ),
        (
            "SELECT subject, model, COUNT(*) AS i FROM llm GROUP BY subject, model, model",
            "4:72: meter `tokens`: a meter cannot have `model` twice in GROUP BY\n  hint: name each key once",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject, SUM(input)",
            "4:58: meter `tokens`: a meter cannot have an aggregate in GROUP BY\n  hint: group by what each event has, and aggregate in SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE event_time < CURRENT_TIMESTAMP GROUP BY subject",
            "4:59: meter `tokens`: `now` does not always return the same\n  hint: use `event_time` for time, and columns of the event",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE output > 0 AND CEIL(input) > 3 GROUP BY subject",
            "4:66: meter `tokens`: `ceil(CAST(llm.input AS Float64))` is floating point\n  hint: calculate with BIGINT and DECIMAL(p, s); leave casts to floating point, and functions such as sqrt, out",
        ),
        (
            "SELECT subject, var_samp(input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the aggregate `var` is not for meters\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject, SUM(input * 9) AS i FROM llm GROUP BY 1, 9",
            "4:58: meter `tokens`: there is no column 9 in SELECT\n  hint: group by a name",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE input > (SELECT AVG(input) FROM llm) GROUP BY subject",
            "4:55: meter `tokens`: a meter cannot have a sub-query\n  hint: a meter sees one event at a time: join in the price",
        ),
        (
            "SELECT subject, abs(CAST(cost AS DOUBLE)) AS k, SUM(abs(input)) AS i FROM llm GROUP BY subject, abs(CAST(cost AS DOUBLE))",
            "4:17: meter `tokens`: `abs(llm.cost) AS k` is floating point\n  hint: calculate with BIGINT and DECIMAL(p, s); leave casts to floating point, and functions such as sqrt, out",
        ),
        (
            "SELECT subject, SUM(input, output) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: sum takes one argument, not 2\n  hint: docs/meters.md shows how it is called",
        ),
        (
            "SELECT subject, SUM(cost * cost * cost * cost * cost) AS i FROM llm GROUP BY subject",
            "4:21: meter `tokens`: a product has more than 38 digits after the point\n  hint: declare a factor with fewer digits after the point; a cast to DECIMAL(p, s) rounds each value",
        ),
        (
            "SELECT subject, SUM(input + model) AS i FROM llm GROUP BY subject",
            "4:21: meter `tokens`: expressions have incompatible types\n  hint: check the names and types in the query",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE input > $1 GROUP BY subject",
            "4:54: meter `tokens`: `$1` has no fixed value\n  hint: write the value itself",
        ),
        (
            "SELECT subject, COUNT(* AS i",
            "3:1: meter `tokens`: sql parser error: Expected: ), found: AS at Line: 1, Column: 25\n  hint: correct the query at this place",
        ),
        (
            "SELECT subject, MAX(input, output) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: `max` does not take what it is given\n  hint: check how many values it takes, and their types; docs/meters.md has the aggregates",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY CUBE (subject)",
            "4:55: meter `tokens`: `CUBE (llm.subject)` groups in several ways\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject WITH ROLLUP",
            "4:49: meter `tokens`: a meter cannot have GROUP BY ALL, ROLLUP or CUBE\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject QUALIFY i > 1",
            "4:65: meter `tokens`: a meter cannot have QUALIFY\n  hint: filter when you query the meter",
        ),
        (
            "SELECT TOP 3 subject, COUNT(*) AS i FROM llm GROUP BY subject",
            "4:1: meter `tokens`: a meter cannot have TOP\n  hint: limit when you query the meter",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject FETCH FIRST ROW ONLY",
            "4:1: meter `tokens`: a meter cannot have LIMIT\n  hint: limit when you query the meter",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject FOR UPDATE",
            "4:1: meter `tokens`: a meter cannot have pipes or locks\n  hint: write a plain SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm |> LIMIT 3",
            "4:1: meter `tokens`: a meter cannot have pipes or locks\n  hint: write a plain SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject WINDOW w AS (ORDER BY input)",
            "4:64: meter `tokens`: a meter cannot have a window function\n  hint: use a plain aggregate, or the window function in a query over the meter",
        ),
        (
            "SELECT llm.*, COUNT(*) AS i FROM llm GROUP BY subject",
            "4:8: meter `tokens`: a meter cannot have `*` in SELECT\n  hint: name `subject`, the dimensions and the measures",
        ),
        (
            "SELECT subject, COUNT(*) AS i",
            "4:1: meter `tokens`: a meter cannot have no table or several tables in FROM\n  hint: read one event type: FROM its name",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM generate_series(1, 3) GROUP BY subject",
            "4:36: meter `tokens`: a meter cannot have `generate_series(1, 3)` in FROM\n  hint: read the event type itself",
        ),
        (
            "VALUES (1)",
            "4:8: meter `tokens`: a meter cannot have anything but a SELECT\n  hint: write one SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE unnest([input]) > 1 GROUP BY subject",
            "4:46: meter `tokens`: a meter cannot have `unnest`\n  hint: publish an event for each element: an event is one row",
        ),
        (
            "SELECT subject, SUM(unnest([input])) AS i FROM llm GROUP BY subject",
            "4:21: meter `tokens`: a meter cannot have `unnest`\n  hint: publish an event for each element: an event is one row",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE @x > 1 GROUP BY subject",
            "4:46: meter `tokens`: a meter cannot have a variable\n  hint: write the value itself",
        ),
        (
            "SELECT subject, first(input) IGNORE NULLS AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have a treatment of NULL in `first`\n  hint: leave it out: NULL is no value, and counts for nothing",
        ),
        (
            "SELECT subject, array_agg(input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the aggregate `array_agg` is not for meters\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject, approx_percentile_cont(input, 0.5) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the aggregate `approx_percentile_cont` is not for meters\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject, nothing(input) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: Invalid function 'nothing'\n  hint: check the names and types in the query",
        ),
        (
            "SELECT subject, upper(model, input) AS m, COUNT(*) AS i FROM llm GROUP BY subject, upper(model, input)",
            "4:17: meter `tokens`: `upper` does not take what it is given\n  hint: check how many values it takes, and their types; docs/meters.md has the aggregates",
        ),
        (
            "SELECT subject, SUM(input >> 3) AS i FROM llm GROUP BY subject",
            "4:21: meter `tokens`: `>>` is not exact\n  hint: for a whole x of zero or more, `x >> 3` is `package(x - 7, 8, 1)`",
        ),
        (
            "SELECT subject, AVG(input) AS i, AVG(model) AS j FROM llm WHERE model > 'x' GROUP BY subject",
            "4:34: meter `tokens`: avg does not take VARCHAR\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, percentile_cont(model, 0.5) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: percentile_cont does not take VARCHAR\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, percentile_cont(cost * cost * cost * cost, 0.125) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: percentile_cont would have 39 digits after the point\n  hint: cast to fewer",
        ),
        (
            "SELECT subject, COUNT(DISTINCT [input]) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: count_distinct does not take List(Int64)\n  hint: it takes one value",
        ),
        (
            "SELECT subject, prorated_unique_count(model) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `prorated_unique_count` of 1 values\n  hint: write prorated_unique_count(x, adds)",
        ),
        (
            "SELECT subject, time_weighted_avg(input, event_time) AS i FROM llm GROUP BY subject",
            "4:17: meter `tokens`: a meter cannot have `time_weighted_avg` of 2 values\n  hint: write time_weighted_avg(x)",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE model = 3.5e0 * random() GROUP BY subject",
            "4:62: meter `tokens`: `random` does not always return the same\n  hint: use `event_time` for time, and columns of the event",
        ),
        (
            "SELECT subject, COUNT(*) AS late FROM llm GROUP BY subject",
            "4:17: meter `tokens`: the column name `late` is taken\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT 1; SELECT 2",
            "4:1: meter `tokens`: its query is not one statement\n  hint: write one SELECT",
        ),
        (
            "DROP TABLE llm",
            "4:1: meter `tokens`: a meter cannot have this statement\n  hint: write a SELECT",
        ),
    ];
    for (query, said) in cases {
        let text = refusal(query).await;
        assert_eq!(text, format!("meters.sql:{said}"), "{query}");
        assert!(text.contains("\n  hint: "), "{text}");
    }
}

#[tokio::test]
async fn a_list_is_read_and_is_no_group_key() {
    let mut with_tags = event_type();
    let mut tags = with_tags.columns[0].clone();
    tags.name = "tags".to_owned();
    tags.data_type = schema::list_of(DataType::Utf8);
    with_tags.columns.push(tags);
    let plan = async |query: &str| Meter::plan(&definition(query), &with_tags).await;
    let measured = "SELECT subject, array_to_string(tags, ',') AS tags, SUM(array_length(tags)) AS n, \
                    COUNT(*) FILTER (WHERE array_has(tags, 'x')) AS with_x FROM llm GROUP BY subject, array_to_string(tags, ',')";
    let grouped = "SELECT subject, tags, COUNT(*) AS n FROM llm GROUP BY subject, tags";
    let error = plan(grouped).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "meters.sql:4:64: meter `tokens`: the group key `llm.tags` is a list\n  hint: group by one of its elements, such as \
         tags[1]; array_to_string(tags, ',') is one text for two lists if an element has a comma or is missing"
    );
    let meter = plan(measured).await.unwrap();
    assert_eq!(meter.measures().len(), 2);
    let list = "List(Utf8, field: 'element')";
    let one_value = "it takes one value";
    for (call, said, hint) in [
        (
            "COUNT(DISTINCT tags)",
            format!("count_distinct does not take {list}"),
            one_value,
        ),
        (
            "LATEST(tags)",
            format!("latest does not take {list}"),
            one_value,
        ),
        (
            "MAX(tags)",
            "`max(llm.tags)` is a list".to_owned(),
            "measure its length or an element, such as MAX(array_length(tags))",
        ),
    ] {
        let query = format!("SELECT subject, {call} AS n FROM llm GROUP BY subject");
        let Err(error) = plan(&query).await else {
            panic!("{query} is no meter");
        };
        let said = format!("meters.sql:4:17: meter `tokens`: {said}\n  hint: {hint}");
        assert_eq!(error.to_string(), said);
    }
}

#[tokio::test]
async fn an_option_does_not_make_a_call_the_refused_one() {
    let query = "SELECT subject, AVG(input) AS i, AVG(model) AS j FROM llm GROUP BY subject";
    let late = MeterDefinition {
        late: LatePolicy::NextPeriod,
        frame: Frame::Session { gap_us: HOUR / 2 },
        ..definition(query)
    };
    let refused = Meter::plan(&late, &event_type()).await.unwrap_err();
    let said = "meters.sql:4:34: meter `tokens`: avg does not take VARCHAR\n";
    assert!(refused.to_string().starts_with(said), "{refused}");
}

#[tokio::test]
async fn a_refusal_is_placed_in_the_file() {
    let text = "\
CREATE EVENT TYPE llm (input BIGINT) WITH (type = 'llm');
CREATE METER a WITH (window = '1 hour') AS SELECT subject,
    SUM(input) AS i, AVG(subject) AS j FROM llm GROUP BY subject;
CREATE METER b WITH (window = '1 hour') AS SELECT subject, AVG(subject) AS i FROM llm GROUP BY subject;
CREATE METER c WITH (late = 'next_period',
    window = 'session 30 minutes') AS SELECT subject, SUM(input) AS i FROM llm GROUP BY subject;
";
    let file = SourceFile {
        name: "usage.sql".to_owned(),
        text: text.to_owned(),
    };
    let definitions = Definitions::parse(&[file]).unwrap();
    let mut said = Vec::new();
    for meter in &definitions.meters {
        let event_type = definitions.event_type("llm").unwrap();
        let refused = Meter::plan(meter, event_type).await.unwrap_err();
        said.push(refused.to_string());
    }
    assert!(
        said[0].starts_with("usage.sql:3:22: meter `a`: avg does not take VARCHAR\n"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("usage.sql:4:60: meter `b`: avg does not take VARCHAR\n"),
        "{said:?}"
    );
    assert!(
        said[2].starts_with("usage.sql:5:29: meter `c`: a session cannot have late"),
        "{said:?}"
    );
}
