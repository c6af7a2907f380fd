//! Every construct that a meter cannot have: what is said, where, and the way out.

use super::*;

async fn refusal(query: &str) -> String {
    let planned = Meter::plan(&definition(query), &event_type()).await;
    let error = planned.expect_err("the query must be refused");
    let mut text = error.to_string();
    if let Error::PlanMeter { source, .. } = &error {
        text = format!("{text}: {source}");
    }
    assert_eq!(error.kind(), ErrorKind::Invalid);
    text
}

/// Each query with what its refusal must say.
#[tokio::test]
async fn each_construct_is_refused_with_its_place_and_a_way_out() {
    let cases = [
        (
            "SELECT subject, SUM(input) AS i FROM llm JOIN llm AS l ON true GROUP BY subject",
            "a meter cannot have a join (line 1, column 47 of its query)\n  hint: join in the price",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm, llm AS b GROUP BY subject",
            "several tables in FROM",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM (SELECT * FROM llm) GROUP BY subject",
            "a sub-query in FROM",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM other GROUP BY subject",
            "`other` in FROM",
        ),
        (
            "SELECT subject,\n SUM(input) AS i FROM llm\nWHERE input > (SELECT 1) GROUP BY subject",
            "a meter cannot have a sub-query (line 3, column",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm WHERE model IN (SELECT 'x') GROUP BY subject",
            "a sub-query",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm WHERE EXISTS (SELECT 1) GROUP BY subject",
            "a sub-query",
        ),
        (
            "SELECT subject, SUM(SUM(input)) OVER () AS i FROM llm GROUP BY subject",
            "a meter cannot have a window function (line 1, column 17",
        ),
        (
            "SELECT DISTINCT subject, SUM(input) AS i FROM llm GROUP BY subject",
            "DISTINCT",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject ORDER BY subject",
            "ORDER BY",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject LIMIT 3",
            "LIMIT",
        ),
        (
            "SELECT subject, SUM(input) AS i FROM llm GROUP BY subject HAVING SUM(input) > 3",
            "HAVING",
        ),
        (
            "WITH x AS (SELECT 1) SELECT subject, SUM(input) AS i FROM llm GROUP BY subject",
            "WITH",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject UNION ALL SELECT 'a', 1",
            "UNION",
        ),
        ("SELECT * FROM llm GROUP BY subject", "`*` in SELECT"),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY ALL",
            "GROUP BY ALL",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY ROLLUP (subject)",
            "hint: ",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY GROUPING SETS ((subject), ())",
            "hint: ",
        ),
        (
            "SELECT subject, SUM(input) / 1000 AS i FROM llm GROUP BY subject",
            "`/`, which loses digits (line 1, column 17 of its query)\n  hint: multiply by an exact decimal",
        ),
        (
            "SELECT subject, SUM(input % 7) AS i FROM llm GROUP BY subject",
            "`%`, which loses digits",
        ),
        (
            "SELECT subject, SUM(input << 3) AS i FROM llm GROUP BY subject",
            "`<<` is not exact",
        ),
        (
            "SELECT subject, SUM(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "floating-point",
        ),
        (
            "SELECT subject, MAX(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "is floating point\n  hint: ",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE sqrt(input) > 3 GROUP BY subject",
            "is floating point",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE random() > 0.5 GROUP BY subject",
            "`random` does not always return the same\n  hint: use `event_time`",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE event_time < now() GROUP BY subject",
            "`now` does not always",
        ),
        (
            "SELECT subject, approx_distinct(model) AS i FROM llm GROUP BY subject",
            "the aggregate `approx_distinct` is not for meters\n  hint: docs/meters.md lists those that are",
        ),
        (
            "SELECT subject, first_value(input) AS i FROM llm GROUP BY subject",
            "`first_value` is not for meters",
        ),
        (
            "SELECT subject,\n SUM(DISTINCT input) AS i FROM llm GROUP BY subject",
            "DISTINCT in `sum` (line 2, column 2 of its query)\n  hint: COUNT(DISTINCT x) counts",
        ),
        (
            "SELECT subject, COUNT(DISTINCT model, input) AS i FROM llm GROUP BY subject",
            "COUNT(DISTINCT …) of 2 values (line 1, column 17 of its query)\n  hint: count one",
        ),
        (
            "SELECT subject, COUNT(DISTINCT CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "count_distinct does not take floating-point numbers\n  hint: declare or cast the value as DECIMAL",
        ),
        (
            "SELECT subject, avg(CAST(input AS REAL)) AS i FROM llm GROUP BY subject",
            "avg does not take floating-point numbers (line 1, column 17 of its query)\n  hint: declare or cast",
        ),
        (
            "SELECT subject, avg(model) AS i FROM llm GROUP BY subject",
            "avg does not take Utf8 (line 1, column 17 of its query)\n  hint: it takes integers and decimals",
        ),
        (
            "SELECT subject, latest(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "latest does not take floating-point numbers (line 1, column 17 of its query)",
        ),
        (
            "SELECT subject, latest(input, event_time) AS i FROM llm GROUP BY subject",
            "`latest` of 2 values (line 1, column 17 of its query)\n  hint: write latest(x)",
        ),
        (
            "SELECT subject, first(input ORDER BY output) AS i FROM llm GROUP BY subject",
            "`first` has an order or a treatment of NULL",
        ),
        (
            "SELECT subject, percentile(input, 1.5) AS i FROM llm GROUP BY subject",
            "`percentile` with `1.5` (line 1, column 17 of its query)\n  hint: write a number from 0 to 1",
        ),
        (
            "SELECT subject, percentile_cont(input, -0.5) AS i FROM llm GROUP BY subject",
            "`percentile_cont` with `-0.5` (line 1, column 17 of its query)",
        ),
        (
            "SELECT subject, percentile(input, 0.0123456789) AS i FROM llm GROUP BY subject",
            "`percentile` with `0.0123456789`",
        ),
        (
            "SELECT subject, percentile(input, output) AS i FROM llm GROUP BY subject",
            "`percentile` with `output`",
        ),
        (
            "SELECT subject, percentile(input) AS i FROM llm GROUP BY subject",
            "`percentile` of 1 values (line 1, column 17 of its query)\n  hint: write percentile(x, 0.95)",
        ),
        (
            "SELECT subject, median(DISTINCT input) AS i FROM llm GROUP BY subject",
            "DISTINCT in `median`",
        ),
        (
            "SELECT subject, time_weighted_sum(CAST(input AS DOUBLE)) AS i FROM llm GROUP BY subject",
            "time_weighted_sum does not take floating-point numbers",
        ),
        (
            "SELECT subject, prorated_sum(model) AS i FROM llm GROUP BY subject",
            "`tokens`: prorated_sum does not take Utf8 (line 1, column 17 of its query)",
        ),
        (
            "SELECT subject, time_weighted_sum(cost * cost * cost * 0.0000001) AS i FROM llm GROUP BY subject",
            "time_weighted_sum would have 40 digits after the point (line 1, column 17 of its query)\n  hint: cast to fewer",
        ),
        (
            "SELECT subject, unique_count(model, input) AS i FROM llm GROUP BY subject",
            "TRUE or FALSE, not as Int64 (line 1, column 17 of its query)\n  hint: write a condition",
        ),
        (
            "SELECT subject, unique_count(model) AS i FROM llm GROUP BY subject",
            "`unique_count` of 1 values (line 1, column 17 of its query)\n  hint: write unique_count(x, adds)",
        ),
        (
            "SELECT model, COUNT(*) AS i FROM llm GROUP BY model",
            "`subject` is not both selected and in GROUP BY",
        ),
        (
            "SELECT COUNT(*) AS i FROM llm",
            "hint: write SELECT subject",
        ),
        (
            "SELECT subject AS who, COUNT(*) AS i FROM llm GROUP BY subject",
            "`subject` is not both",
        ),
        (
            "SELECT model AS subject, COUNT(*) AS i FROM llm GROUP BY model",
            "`subject` is not both",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "is selected 0 times",
        ),
        (
            "SELECT subject, model AS a, model AS b, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "is selected 2 times",
        ),
        (
            "SELECT subject, model, COUNT(*) AS i FROM llm GROUP BY subject",
            "(line 1, column 17 of its query)",
        ),
        (
            "SELECT subject, upper(model) AS m, COUNT(*) AS i FROM llm GROUP BY subject, model",
            "`m` is neither a group key nor made of aggregates",
        ),
        (
            "SELECT subject, 1 AS one, COUNT(*) AS i FROM llm GROUP BY subject",
            "`one` is neither",
        ),
        (
            "SELECT subject FROM llm GROUP BY subject",
            "it has no measure\n  hint: add one",
        ),
        (
            "SELECT subject, COUNT(*) FROM llm GROUP BY subject",
            "needs a name\n  hint: name the column with AS",
        ),
        (
            "SELECT subject, COUNT(*) AS \"my count\" FROM llm GROUP BY subject",
            "needs a name",
        ),
        (
            "SELECT subject, COUNT(*) AS i, SUM(input) AS \"I\" FROM llm GROUP BY subject",
            "is given twice",
        ),
        (
            "SELECT subject, COUNT(*) AS window_end FROM llm GROUP BY subject",
            "`window_end` is taken",
        ),
        (
            "SELECT subject, COUNT(*) AS meter_version FROM llm GROUP BY subject",
            "`meter_version` is taken",
        ),
        (
            "SELECT subject, COUNT(*) AS \"Closed_At\" FROM llm GROUP BY subject",
            "`Closed_At` is taken",
        ),
        (
            "SELECT subject, COUNT(*) AS a__state0 FROM llm GROUP BY subject",
            "`a__state0` is taken",
        ),
        (
            "SELECT subject, SUM(inputs) AS i FROM llm GROUP BY subject",
            "inputs",
        ),
        (
            "SELECT subject, SUM(model) AS i FROM llm GROUP BY subject",
            "sum does not take Utf8 (line 1, column 17 of its query)\n  hint: it adds",
        ),
        (
            "SELECT subject, SUM(input) AS j, SUM(model) AS i FROM llm GROUP BY subject",
            "`tokens`: sum does not take Utf8\n  hint: it adds integers and decimals",
        ),
        (
            "SELECT subject, SUM(input, output) AS i FROM llm GROUP BY subject",
            "one argument",
        ),
        (
            "SELECT subject, SUM(cost * cost * cost * cost * cost) AS i FROM llm GROUP BY subject",
            "would exceed max scale of 38",
        ),
        (
            "SELECT subject, SUM(input + model) AS i FROM llm GROUP BY subject",
            "incompatible types (line 1, column 21 of its query)\n  hint: ",
        ),
        (
            "SELECT subject, COUNT(*) AS i FROM llm WHERE input > $1 GROUP BY subject",
            "has no fixed value",
        ),
        ("SELECT subject, COUNT(* AS i", "hint: correct the query"),
        ("SELECT 1; SELECT 2", "not one statement"),
        ("DROP TABLE llm", "this statement"),
    ];
    let mut wrong = Vec::new();
    for (query, said) in cases {
        let text = refusal(query).await;
        if !text.contains(said)
            || !text.starts_with("meters.sql:3:1: ")
            || !text.contains("`tokens`")
        {
            wrong.push(format!("{query}\n    {text}\n    lacks: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
        "meters.sql:3:1: meter `tokens`: the group key `llm.tags` is a list\n  hint: group by a text made of \
         it, such as array_to_string(tags, ','), or by one of its elements"
    );
    let meter = plan(measured).await.unwrap();
    assert_eq!(meter.measures().len(), 2);
    for query in [
        "SELECT subject, COUNT(DISTINCT tags) AS n FROM llm GROUP BY subject",
        "SELECT subject, MAX(tags) AS n FROM llm GROUP BY subject",
        "SELECT subject, LATEST(tags) AS n FROM llm GROUP BY subject",
    ] {
        let Err(error) = plan(query).await else {
            panic!("{query} is no meter");
        };
        let error = error.to_string();
        let is_said =
            error.contains("does not take") || error.contains("`max(llm.tags)` is a list");
        assert!(is_said && error.contains("hint"), "{error}");
    }
}
