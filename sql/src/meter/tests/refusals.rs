//! Every construct that a meter cannot have: the whole of what is said, with its place and the way out.

use super::*;

async fn refusal(query: &str) -> String {
    let planned = Meter::plan(&definition(query), &event_type()).await;
    let Err(error) = planned else {
        panic!("{query} is not refused");
    };
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.to_string()
}

/// Each query with what is said after the meter's own place and name.
#[tokio::test]
async fn each_construct_is_refused_with_its_place_and_a_way_out() {
    let cases = [
        (
            "SELECT subject, SUM(input) AS i FROM llm JOIN llm AS l ON true GROUP BY subject",
            "a meter cannot have a join (line 1, column 47 of its query)\n  hint: join in the price, where the meter is a table",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm, llm AS b GROUP BY subject",
            "a meter cannot have no table or several tables in FROM (line 1, column 1 of its query)\n  hint: read one event type: FROM its name",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM (SELECT * FROM llm) GROUP BY subject",
            "a meter cannot have a sub-query in FROM (line 1, column 39 of its query)\n  hint: read the event type itself and filter with WHERE",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM other GROUP BY subject",
            "a meter cannot have `other` in FROM (line 1, column 38 of its query)\n  hint: read the event type itself",
        ),
        (
            "SELECT subject,\n SUM(input) AS i FROM llm\nWHERE input > (SELECT 1) GROUP BY subject",
            "a meter cannot have a sub-query (line 3, column 16 of its query)\n  hint: a meter sees one event at a time: join in the price",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm WHERE model IN (SELECT 'x') GROUP BY subject",
            "a meter cannot have a sub-query (line 1, column 48 of its query)\n  hint: a meter sees one event at a time: join in the price",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm WHERE EXISTS (SELECT 1) GROUP BY subject",
            "a meter cannot have a sub-query (line 1, column 56 of its query)\n  hint: a meter sees one event at a time: join in the price",
        ),
        (
            "SELECT subject, SUM(SUM(input)) OVER () AS i FROM llm GROUP BY subject",
            "a meter cannot have a window function (line 1, column 17 of its query)\n  hint: use a plain aggregate, or the window function in a query over the meter",
        ),
        (
            "SELECT DISTINCT subject, SUM(input) AS i FROM llm GROUP BY subject",
            "a meter cannot have DISTINCT (line 1, column 1 of its query)\n  hint: GROUP BY already makes rows distinct",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject ORDER BY subject",
            "a meter cannot have ORDER BY (line 1, column 68 of its query)\n  hint: sort when you query the meter",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject LIMIT 3",
            "a meter cannot have LIMIT (line 1, column 1 of its query)\n  hint: limit when you query the meter",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject HAVING SUM(input) > 3",
            "a meter cannot have HAVING (line 1, column 66 of its query)\n  hint: filter when you query the meter; a window's value may still grow",
        ),
        (
            "WITH x AS (SELECT 1) SELECT subject, SUM(input) AS i FROM llm GROUP BY subject",
            "a meter cannot have WITH (line 1, column 1 of its query)\n  hint: put the expressions into the SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject UNION ALL SELECT 'a', 1",
            "a meter cannot have UNION or another set operation (line 1, column 1 of its query)\n  hint: make one meter for each and add them in the price",
        ),
        (
            "SELECT * FROM llm GROUP BY subject",
            "a meter cannot have `*` in SELECT (line 1, column 8 of its query)\n  hint: name `subject`, the dimensions and the measures",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY ALL",
            "a meter cannot have GROUP BY ALL, ROLLUP or CUBE (line 1, column 1 of its query)\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY ROLLUP (subject)",
            "`ROLLUP (llm.subject)` groups in several ways (line 1, column 57 of its query)\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY GROUPING SETS ((subject), ())",
            "`GROUPING SETS ((llm.subject), ())` groups in several ways (line 1, column 65 of its query)\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, SUM(input) / 1000 AS i FROM llm GROUP BY subject",
            "a meter cannot have `/`, which loses digits (line 1, column 17 of its query)\n  hint: multiply by an exact decimal, such as `x * 0.001` for `x / 1000`",
        ),
        (
            "SELECT subject, SUM(input % 7) AS i FROM llm GROUP BY subject",
            "a meter cannot have `%`, which loses digits (line 1, column 21 of its query)\n  hint: multiply by an exact decimal, such as `x * 0.001` for `x / 1000`",
        ),
        (
            "SELECT subject, SUM(input << 3) AS i FROM llm GROUP BY subject",
            "`<<` is not exact (line 1, column 21 of its query)\n  hint: multiply by a power of two instead",
        ),
        (
            "SELECT subject, SUM(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "sum does not take floating-point numbers, whose sum depends on their order (line 1, column 17 of its query)\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, MAX(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "`max(llm.input) AS i` is floating point (line 1, column 17 of its query)\n  hint: declare the column, or cast it, as DECIMAL(p, s)",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE sqrt(input) > 3 GROUP BY subject",
            "`sqrt(CAST(llm.input AS Float64))` is floating point (line 1, column 46 of its query)\n  hint: declare the column, or cast it, as DECIMAL(p, s)",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE random() > 0.5 GROUP BY subject",
            "`random` does not always return the same (line 1, column 46 of its query)\n  hint: use `event_time` for time, and columns of the event",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE event_time < now() GROUP BY subject",
            "`now` does not always return the same (line 1, column 59 of its query)\n  hint: use `event_time` for time, and columns of the event",
        ),
        (
            "SELECT subject, approx_distinct(model) AS i FROM llm GROUP BY subject",
            "the aggregate `approx_distinct` is not for meters (line 1, column 17 of its query)\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject, first_value(input) AS i FROM llm GROUP BY subject",
            "the aggregate `first_value` is not for meters (line 1, column 17 of its query)\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject,\n SUM(DISTINCT input) AS i FROM llm GROUP BY subject",
            "a meter cannot have DISTINCT in `sum` (line 2, column 2 of its query)\n  hint: COUNT(DISTINCT x) counts distinct values; nothing else takes DISTINCT",
        ),
        (
            "SELECT subject, COUNT(DISTINCT model, input) AS i FROM llm GROUP BY subject",
            "a meter cannot have COUNT(DISTINCT …) of 2 values (line 1, column 17 of its query)\n  hint: count one expression: COUNT(DISTINCT x)",
        ),
        (
            "SELECT subject, COUNT(DISTINCT CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "count_distinct does not take floating-point numbers (line 1, column 17 of its query)\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, avg(CAST(input AS REAL)) AS i FROM llm GROUP BY subject",
            "avg does not take floating-point numbers (line 1, column 17 of its query)\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, avg(model) AS i FROM llm GROUP BY subject",
            "avg does not take Utf8 (line 1, column 17 of its query)\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, latest(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "latest does not take floating-point numbers (line 1, column 17 of its query)\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, latest(input, event_time) AS i FROM llm GROUP BY subject",
            "a meter cannot have `latest` of 2 values (line 1, column 17 of its query)\n  hint: write latest(x)",
        ),
        (
            "SELECT subject, first(input ORDER BY output) AS i FROM llm GROUP BY subject",
            "`first` has an order or a treatment of NULL (line 1, column 17 of its query)\n  hint: leave the order out; the result does not depend on it",
        ),
        (
            "SELECT subject, percentile(input, 1.5) AS i FROM llm GROUP BY subject",
            "a meter cannot have `percentile` with `1.5` (line 1, column 17 of its query)\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile_cont(input, -0.5) AS i FROM llm GROUP BY subject",
            "a meter cannot have `percentile_cont` with `-0.5` (line 1, column 17 of its query)\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile(input, 0.0123456789) AS i FROM llm GROUP BY subject",
            "a meter cannot have `percentile` with `0.0123456789` (line 1, column 17 of its query)\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile(input, output) AS i FROM llm GROUP BY subject",
            "a meter cannot have `percentile` with `output` (line 1, column 17 of its query)\n  hint: write a number from 0 to 1 of at most 9 digits, such as 0.95",
        ),
        (
            "SELECT subject, percentile(input) AS i FROM llm GROUP BY subject",
            "a meter cannot have `percentile` of 1 values (line 1, column 17 of its query)\n  hint: write percentile(x, 0.95)",
        ),
        (
            "SELECT subject, median(DISTINCT input) AS i FROM llm GROUP BY subject",
            "a meter cannot have DISTINCT in `median` (line 1, column 17 of its query)\n  hint: COUNT(DISTINCT x) counts distinct values; nothing else takes DISTINCT",
        ),
        (
            "SELECT subject, time_weighted_sum(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "time_weighted_sum does not take floating-point numbers (line 1, column 17 of its query)\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, prorated_sum(model) AS i FROM llm GROUP BY subject",
            "prorated_sum does not take Utf8 (line 1, column 17 of its query)\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, time_weighted_sum(cost * cost * cost * 0.0000001) AS i FROM llm GROUP BY subject",
            "time_weighted_sum would have 40 digits after the point (line 1, column 17 of its query)\n  hint: cast to fewer",
        ),
        (
            "SELECT subject, unique_count(model, input) AS i FROM llm GROUP BY subject",
            "unique_count takes whether an event adds its value as TRUE or FALSE, not as Int64 (line 1, column 17 of its query)\n  hint: write a condition, such as operation IS DISTINCT FROM 'remove'",
        ),
        (
            "SELECT subject, unique_count(model) AS i FROM llm GROUP BY subject",
            "a meter cannot have `unique_count` of 1 values (line 1, column 17 of its query)\n  hint: write unique_count(x, adds)",
        ),
        (
            "SELECT model, COUNT(*) AS i FROM llm GROUP BY model",
            "`subject` is not both selected and in GROUP BY (line 1, column 1 of its query)\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT COUNT(*) AS i FROM llm",
            "`subject` is not both selected and in GROUP BY (line 1, column 1 of its query)\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT subject AS who, COUNT(*) AS i FROM llm GROUP BY subject",
            "`subject` is not both selected and in GROUP BY (line 1, column 1 of its query)\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT model AS subject, COUNT(*) AS i FROM llm GROUP BY model",
            "`subject` is not both selected and in GROUP BY (line 1, column 1 of its query)\n  hint: write SELECT subject, … GROUP BY subject, …: usage belongs to someone",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "the group key `llm.model` is selected 0 times (line 1, column 58 of its query)\n  hint: select each group key once: rows would not be told apart",
        ),
        (
            "SELECT subject, model AS a, model AS b, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "the group key `llm.model` is selected 2 times (line 1, column 82 of its query)\n  hint: select each group key once: rows would not be told apart",
        ),
        (
            "SELECT subject, model, COUNT(*) AS i FROM llm GROUP BY subject",
            "'llm.model' must appear in GROUP BY clause because it's not an aggregate expression (line 1, column 17 of its query)\n  hint: put it into GROUP BY, or aggregate it",
        ),
        (
            "SELECT subject, upper(model) AS m, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "`m` is neither a group key nor made of aggregates (line 1, column 17 of its query)\n  hint: put the whole expression into GROUP BY, or aggregate it",
        ),
        (
            "SELECT subject, 1 AS one, COUNT(*) AS i FROM llm GROUP BY subject",
            "`one` is neither a group key nor made of aggregates (line 1, column 17 of its query)\n  hint: put the whole expression into GROUP BY, or aggregate it",
        ),
        (
            "SELECT subject FROM llm GROUP BY subject",
            "it has no measure (line 1, column 1 of its query)\n  hint: add one, such as COUNT(*) AS events",
        ),
        (
            "SELECT subject, COUNT(*) FROM llm GROUP BY subject",
            "`count(*)` needs a name (line 1, column 17 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS \"my count\" FROM llm GROUP BY subject",
            "`my count` needs a name (line 1, column 17 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS i, SUM(input) AS \"I\" FROM llm GROUP BY subject",
            "the column name `I` is given twice (line 1, column 32 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS window_end FROM llm GROUP BY subject",
            "the column name `window_end` is taken (line 1, column 17 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS meter_version FROM llm GROUP BY subject",
            "the column name `meter_version` is taken (line 1, column 17 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS \"Closed_At\" FROM llm GROUP BY subject",
            "the column name `Closed_At` is taken (line 1, column 17 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, COUNT(*) AS a__state0 FROM llm GROUP BY subject",
            "the column name `a__state0` is taken (line 1, column 17 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT subject, SUM(inputs) AS i FROM llm GROUP BY subject",
            "column 'inputs' not found (line 1, column 21 of its query)\n  hint: check the names and types in the query",
        ),
        (
            "SELECT subject, SUM(model) AS i FROM llm GROUP BY subject",
            "sum does not take Utf8 (line 1, column 17 of its query)\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject, SUM(input) AS j, SUM(model) AS i FROM llm GROUP BY subject",
            "sum does not take Utf8, in one of 2 calls from here on (line 1, column 17 of its query)\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject, SUM(input, output) AS i FROM llm GROUP BY subject",
            "sum takes one argument, not 2 (line 1, column 17 of its query)\n  hint: docs/meters.md shows how it is called",
        ),
        (
            "SELECT subject, SUM(cost * cost * cost * cost * cost) AS i FROM llm GROUP BY subject",
            "a product has more than 38 digits after the point (line 1, column 21 of its query)\n  hint: cast the factors to DECIMAL(p, s) with fewer digits after the point",
        ),
        (
            "SELECT subject, SUM(input + model) AS i FROM llm GROUP BY subject",
            "expressions have incompatible types (line 1, column 21 of its query)\n  hint: check the names and types in the query",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE input > $1 GROUP BY subject",
            "`$1` has no fixed value (line 1, column 54 of its query)\n  hint: write the value itself",
        ),
        (
            "SELECT subject, COUNT(* AS i",
            "sql parser error: Expected: ), found: AS at Line: 1, Column: 25\n  hint: correct the query at this place",
        ),
        (
            "SELECT subject, MAX(input, output) AS i FROM llm GROUP BY subject",
            "`max` does not take what it is given (line 1, column 17 of its query)\n  hint: check how many values it takes, and their types; docs/meters.md has the aggregates",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY CUBE (subject)",
            "`CUBE (llm.subject)` groups in several ways (line 1, column 55 of its query)\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject WITH ROLLUP",
            "a meter cannot have GROUP BY ALL, ROLLUP or CUBE (line 1, column 49 of its query)\n  hint: list the keys: GROUP BY subject, …",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject QUALIFY i > 1",
            "a meter cannot have QUALIFY (line 1, column 65 of its query)\n  hint: filter when you query the meter",
        ),
        (
            "SELECT TOP 3 subject, COUNT(*) AS i FROM llm GROUP BY subject",
            "a meter cannot have TOP (line 1, column 1 of its query)\n  hint: limit when you query the meter",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject FETCH FIRST ROW ONLY",
            "a meter cannot have LIMIT (line 1, column 1 of its query)\n  hint: limit when you query the meter",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject FOR UPDATE",
            "a meter cannot have pipes or locks (line 1, column 1 of its query)\n  hint: write a plain SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm |> LIMIT 3",
            "a meter cannot have pipes or locks (line 1, column 1 of its query)\n  hint: write a plain SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject WINDOW w AS (ORDER BY input)",
            "a meter cannot have a window function (line 1, column 64 of its query)\n  hint: use a plain aggregate, or the window function in a query over the meter",
        ),
        (
            "SELECT llm.*, COUNT(*) AS i FROM llm GROUP BY subject",
            "a meter cannot have `*` in SELECT (line 1, column 8 of its query)\n  hint: name `subject`, the dimensions and the measures",
        ),
        (
            "SELECT subject, COUNT(*) AS i",
            "a meter cannot have no table or several tables in FROM (line 1, column 1 of its query)\n  hint: read one event type: FROM its name",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM generate_series(1, 3) GROUP BY subject",
            "a meter cannot have `generate_series(1, 3)` in FROM (line 1, column 36 of its query)\n  hint: read the event type itself",
        ),
        (
            "VALUES (1)",
            "a meter cannot have anything but a SELECT (line 1, column 8 of its query)\n  hint: write one SELECT",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE unnest([input]) > 1 GROUP BY subject",
            "a meter cannot have `unnest` (line 1, column 46 of its query)\n  hint: publish an event for each element: an event is one row",
        ),
        (
            "SELECT subject, SUM(unnest([input])) AS i FROM llm GROUP BY subject",
            "a meter cannot have `unnest` (line 1, column 21 of its query)\n  hint: publish an event for each element: an event is one row",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE @x > 1 GROUP BY subject",
            "a meter cannot have a variable (line 1, column 46 of its query)\n  hint: write the value itself",
        ),
        (
            "SELECT subject, first(input) IGNORE NULLS AS i FROM llm GROUP BY subject",
            "a meter cannot have a treatment of NULL in `first` (line 1, column 17 of its query)\n  hint: leave it out: NULL is no value, and counts for nothing",
        ),
        (
            "SELECT subject, array_agg(input) AS i FROM llm GROUP BY subject",
            "the aggregate `array_agg` is not for meters (line 1, column 17 of its query)\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject, approx_percentile_cont(input, 0.5) AS i FROM llm GROUP BY subject",
            "the aggregate `approx_percentile_cont` is not for meters (line 1, column 17 of its query)\n  hint: docs/meters.md lists those that are: sum, count, min, max, avg, first, latest, …",
        ),
        (
            "SELECT subject, nothing(input) AS i FROM llm GROUP BY subject",
            "Invalid function 'nothing' (line 1, column 17 of its query)\n  hint: check the names and types in the query",
        ),
        (
            "SELECT subject, upper(model, input) AS m, COUNT(*) AS i FROM llm GROUP BY subject, upper(model, input)",
            "`upper` does not take what it is given (line 1, column 17 of its query)\n  hint: check how many values it takes, and their types; docs/meters.md has the aggregates",
        ),
        (
            "SELECT subject, SUM(input >> 3) AS i FROM llm GROUP BY subject",
            "`>>` is not exact (line 1, column 21 of its query)\n  hint: multiply by a power of two instead",
        ),
        (
            "SELECT subject, AVG(input) AS i, AVG(model) AS j FROM llm WHERE model > 'x' GROUP BY subject",
            "avg does not take Utf8, in one of 2 calls from here on (line 1, column 17 of its query)\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, percentile_cont(model, 0.5) AS i FROM llm GROUP BY subject",
            "percentile_cont does not take Utf8 (line 1, column 17 of its query)\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, percentile_cont(cost * cost * cost * cost, 0.125) AS i FROM llm GROUP BY subject",
            "percentile_cont would have 39 digits after the point (line 1, column 17 of its query)\n  hint: cast to fewer",
        ),
        (
            "SELECT subject, COUNT(DISTINCT [input]) AS i FROM llm GROUP BY subject",
            "count_distinct does not take List(Int64) (line 1, column 17 of its query)\n  hint: it takes one value",
        ),
        (
            "SELECT subject, prorated_unique_count(model) AS i FROM llm GROUP BY subject",
            "a meter cannot have `prorated_unique_count` of 1 values (line 1, column 17 of its query)\n  hint: write prorated_unique_count(x, adds)",
        ),
        (
            "SELECT subject, time_weighted_avg(input, event_time) AS i FROM llm GROUP BY subject",
            "a meter cannot have `time_weighted_avg` of 2 values (line 1, column 17 of its query)\n  hint: write time_weighted_avg(x)",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE model = 3.5e0 * random() GROUP BY subject",
            "`random` does not always return the same (line 1, column 62 of its query)\n  hint: use `event_time` for time, and columns of the event",
        ),
        (
            "SELECT subject, COUNT(*) AS late FROM llm GROUP BY subject",
            "the column name `late` is taken (line 1, column 17 of its query)\n  hint: name the column with AS: letters, digits and `_`",
        ),
        (
            "SELECT 1; SELECT 2",
            "its query is not one statement (line 1, column 1 of its query)\n  hint: write one SELECT",
        ),
        (
            "DROP TABLE llm",
            "a meter cannot have this statement (line 1, column 1 of its query)\n  hint: write a SELECT",
        ),
    ];
    for (query, said) in cases {
        let text = refusal(query).await;
        assert_eq!(
            text,
            format!("meters.sql:3:1: meter `tokens`: {said}"),
            "{query}"
        );
        assert!(text.contains("line ") || text.contains("Line: "), "{text}");
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
        "meters.sql:3:1: meter `tokens`: the group key `llm.tags` is a list (line 1, column 64 of its query)\n  hint: group by a text made of \
         it, such as array_to_string(tags, ','), or by one of its elements"
    );
    let meter = plan(measured).await.unwrap();
    assert_eq!(meter.measures().len(), 2);
    let list = "List(Utf8, field: 'element') (line 1, column 17 of its query)";
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
            "`max(llm.tags)` is a list (line 1, column 17 of its query)".to_owned(),
            "measure its length or an element, such as MAX(array_length(tags))",
        ),
    ] {
        let query = format!("SELECT subject, {call} AS n FROM llm GROUP BY subject");
        let Err(error) = plan(&query).await else {
            panic!("{query} is no meter");
        };
        let said = format!("meters.sql:3:1: meter `tokens`: {said}\n  hint: {hint}");
        assert_eq!(error.to_string(), said);
    }
}
