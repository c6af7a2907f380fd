//! Every refusal within one statement: its place, its words, its way out.

use crate::{
    Error,
    definitions::{Definitions, SourceFile},
};

/// `line:column: problem` and the hint for a text that must be refused.
#[track_caller]
fn refused(text: &str, first: &str, hint: &str) {
    let file = SourceFile {
        name: "f".to_owned(),
        text: text.to_owned(),
    };
    match Definitions::parse(&[file]) {
        Err(Error::Definition {
            at,
            problem,
            hint: found,
        }) => {
            assert_eq!(
                format!("{}:{}: {problem}", at.line, at.column),
                first,
                "{text}"
            );
            assert_eq!(found, hint, "{text}");
        }
        other => panic!("{text}: {other:?}"),
    }
}

/// Refused with this first line; the hint is tested elsewhere.
#[track_caller]
fn refused_first(text: &str, first: &str) {
    let file = SourceFile {
        name: "f".to_owned(),
        text: text.to_owned(),
    };
    let message = Definitions::parse(&[file]).unwrap_err().to_string();
    assert_eq!(
        message.lines().next().unwrap(),
        format!("f:{first}"),
        "{text}"
    );
}

mod columns;

const CREATE: &str =
    "a definition is CREATE [OR REPLACE] EVENT TYPE, METER, RATE TABLE, PRICE, PLAN or CURRENCY";

#[test]
fn a_statement_starts_with_create_and_one_of_five_kinds() {
    refused(
        "\n SELECT 1",
        "2:2: expected CREATE, found `SELECT`",
        CREATE,
    );
    refused(
        "CREATE TABLE x (a INT)",
        "1:8: expected what to create, found `TABLE`; there is no such definition",
        CREATE,
    );
    refused(
        "CREATE",
        "1:7: expected what to create, found the end of the file; there is no such definition",
        CREATE,
    );
    refused(
        "CREATE OR METER x",
        "1:11: expected REPLACE, found `METER`",
        "write `CREATE OR REPLACE …`",
    );
    refused(
        "CREATE EVENT x",
        "1:14: expected TYPE, found `x`",
        "write `CREATE EVENT TYPE name (…)`",
    );
    refused(
        "CREATE RATE x",
        "1:13: expected TABLE, found `x`",
        "write `CREATE RATE TABLE name (…)`",
    );
}

#[test]
fn what_is_never_closed_is_placed_at_its_start() {
    refused(
        "CREATE PLAN p\n  WITH (currency = 'USD) AS ();",
        "2:20: plan `p`: the quote that is opened here is not closed",
        "close it in its line, as in 'USD'; a ' within quotes is written twice",
    );
    refused(
        "CREATE PLAN \"p",
        "1:13: the quote that is opened here is not closed",
        "close it in its line, as in \"p\"; a \" within quotes is written twice",
    );
    refused(
        ";\n/* never",
        "2:1: the comment that begins here is never closed",
        "end it with `*/`",
    );
}

#[test]
fn a_quote_that_is_not_closed_is_placed_where_it_was_opened_however_far_the_next_one_is() {
    // The quotes of the file are even: each text begins where one should end.
    let text = "CREATE EVENT TYPE e (a DATE) WITH (type = 'e);
CREATE METER m WITH (window = '1 hour', unit = 'it''s) AS SELECT subject, COUNT(*) AS n FROM e GROUP BY subject;";
    refused(
        text,
        "1:43: event type `e`: the quote that is opened here is not closed",
        "close it in its line, as in 'e'; a ' within quotes is written twice",
    );
    // They are odd, and so are those of names.
    for (quote, rest) in [('\'', "b = 'x'"), ('"', "b = \"x\"")] {
        let text = format!(
            "CREATE PRICE p WITH (currency = 'USD') AS\nSELECT customer FROM t WHERE a = {quote}x AND {rest};\n\
             -- The next.\nCREATE PLAN q WITH (currency = 'USD') AS (p);"
        );
        refused(
            &text,
            "2:47: price `p`: the quote that is opened here is not closed",
            &format!("close it in its line; a {quote} within quotes is written twice"),
        );
    }
    // A text may span lines.
    let text = "CREATE PRICE p WITH (currency = 'USD') AS
SELECT customer, 'one
two' AS text, 1 AS amount FROM t WHERE a = ;";
    refused_first(
        text,
        "3:44: price `p`: expected an expression, found the end",
    );
}

#[test]
fn a_comma_that_is_missing_is_named_with_what_follows_it() {
    let price = |select: &str| format!("CREATE PRICE p WITH (currency = 'USD') AS\n{select}");
    let commas = "separate what is listed with commas";
    let options = "options are `(name = 'value', …)`, the value in single quotes";
    for (text, first, hint) in [
        (
            "CREATE METER m WITH (window = '1 hour' lateness = '1 day')".to_owned(),
            "1:40: meter `m`: a comma is missing before `lateness`",
            options,
        ),
        (
            "CREATE METER m WITH (window = '1 hour',)".to_owned(),
            "1:39: meter `m`: a comma stands before `)`",
            "remove it: a comma stands between two of a list",
        ),
        (
            "CREATE METER m WITH (window = '1 hour' AS SELECT 1".to_owned(),
            "1:40: meter `m`: expected `)`, found `AS`",
            options,
        ),
        (
            "CREATE EVENT TYPE e (a VARCHAR NOT NULL b DATE)".to_owned(),
            "1:41: event type `e`: a comma is missing before `b`",
            "a column is `name TYPE [NOT NULL] [DEFAULT literal] [CHECK (expression)] [OPTIONS (path = '$.a.b')]`; \
             separate columns with `,` and end with `)`",
        ),
        (
            "CREATE EVENT TYPE e (a VARCHAR NT NULL)".to_owned(),
            "1:32: event type `e`: unexpected `NT` after column `a`",
            "did you mean NOT? a column is `name TYPE [NOT NULL] [DEFAULT literal] [CHECK (expression)] \
             [OPTIONS (path = '$.a.b')]`; separate columns with `,` and end with `)`",
        ),
        (
            "CREATE RATE TABLE r (a DATE b DATE) WITH (location = 'r.csv')".to_owned(),
            "1:29: rate table `r`: a comma is missing before `b`",
            "a column is `name TYPE [NOT NULL | PRIMARY KEY]`; separate columns with `,` and end with `)`",
        ),
        (
            price("SELECT customer, SUM(a) AS b SUM(c) AS amount FROM t"),
            "2:30: price `p`: a comma is missing before `SUM`",
            commas,
        ),
        (
            price("SELECT customer, SUM(a) SUM(c) AS amount FROM t"),
            "2:25: price `p`: a comma is missing before `SUM`",
            commas,
        ),
        (
            price("SELECT customer, 1 AS amount FROM t GROUP BY customer model"),
            "2:55: price `p`: a comma is missing before `model`",
            commas,
        ),
        (
            price("SELECT graduated(x, [{up_to: 1 unit_amount: 2}]) AS amount FROM t"),
            "2:32: price `p`: a comma is missing before `unit_amount`",
            commas,
        ),
        (
            price("SELECT prorate(1, 2 3) AS amount FROM t"),
            "2:21: price `p`: a comma is missing before `3`",
            commas,
        ),
        (
            price("SELECT customer, 1 AS amount FROM t WHERE a IN (1, )"),
            "2:50: price `p`: a comma stands before `)`",
            "remove it: a comma stands between two of a list",
        ),
        (
            price("SELECT customer, 1 AS amount FROM t WHERE a = 1 b = 2"),
            "2:49: price `p`: AND or OR is missing before `b`",
            "conditions are joined by AND or OR",
        ),
        (
            price("SELECT customer, 1 AS amount FORM t"),
            "2:30: price `p`: unexpected `FORM`",
            "did you mean FROM?",
        ),
        (
            price("SELECT customer, 1 AS amount FROM t WERE a = 1"),
            "2:37: price `p`: unexpected `WERE`",
            "did you mean WHERE?",
        ),
        (
            price("SELECT customer AS joint SUM(a) AS amount FROM t"),
            "2:26: price `p`: a comma is missing before `SUM`",
            commas,
        ),
        (
            price("SELECT customer, (1) + 2) AS amount FROM t"),
            "2:25: price `p`: unexpected `)` after the query",
            "remove it, or open it before: each `)` closes one `(`",
        ),
    ] {
        refused(&text, first, hint);
    }
}

#[test]
fn a_comment_cannot_be_run() {
    refused(
        "CREATE PLAN p\n/*! x */ WITH (currency = 'USD') AS ()",
        "2:1: a comment that starts with `/*!` would be run as SQL",
        "put a space after `/*`",
    );
}

#[test]
fn names_are_plain_identifiers() {
    let plain = "use lower-case letters, digits and `_`, not a digit first, at most 63 characters";
    refused(
        "CREATE PLAN \"Pro Plan\" WITH",
        "1:13: `Pro Plan` cannot be a name",
        plain,
    );
    refused(
        "CREATE PLAN \"Pro\" WITH",
        "1:13: `Pro` cannot be a name",
        plain,
    );
    refused(
        "CREATE PLAN prö WITH",
        "1:13: `prö` cannot be a name",
        plain,
    );
    refused(
        "CREATE PLAN a#b WITH",
        "1:13: `a#b` cannot be a name",
        plain,
    );
    let long = "a".repeat(64);
    refused(
        &format!("CREATE PLAN {long} WITH"),
        &format!("1:13: `{long}` cannot be a name"),
        plain,
    );
    refused(
        "CREATE METER WITH (window = '1 hour')",
        "1:14: expected a name for the meter, found the reserved word `WITH`",
        "choose a name that is not a word of SQL",
    );
    refused(
        "CREATE METER 'x'",
        "1:14: expected a name for the meter, found `'x'`",
        "names are letters, digits and `_`, such as `tokens`",
    );
}

#[test]
fn options_are_known_given_once_and_strings() {
    let shape = "options are `(name = 'value', …)`, the value in single quotes";
    refused(
        "CREATE METER m WITH (windw = '1 hour')",
        "1:22: meter `m`: unknown option `windw`",
        "did you mean `window`? known options: `window`, `lateness`, `late`, `carry_over`, `unit`, `effective_from`",
    );
    refused(
        "CREATE PLAN p WITH (currency = 'USD', currency = 'EUR')",
        "1:39: plan `p`: option `currency` is given twice",
        "keep one of them",
    );
    refused(
        "CREATE METER m WITH (window = 5)",
        "1:31: meter `m`: expected the value of `window`, found `5`",
        shape,
    );
    refused(
        "CREATE METER m WITH (window '5')",
        "1:29: meter `m`: expected `=`, found `'5'`",
        shape,
    );
    refused(
        "CREATE METER m WITH ()",
        "1:22: meter `m`: expected the name of an option, found `)`",
        shape,
    );
    refused(
        "CREATE METER m WITH window",
        "1:21: meter `m`: expected `(`, found `window`",
        shape,
    );
    refused(
        "CREATE METER m WITH (unit = 'x'",
        "1:32: meter `m`: expected `)`, found the end of the file",
        shape,
    );
    refused(
        "CREATE METER m WITH (unit = ' ')",
        "1:29: meter `m`: option `unit` is empty",
        "give it a value or leave it out",
    );
}

#[test]
fn options_that_are_needed_are_asked_for() {
    for (text, first, hint) in [
        (
            "CREATE EVENT TYPE e (a DATE);",
            "1:29: event type `e`: option `type` is missing",
            "add WITH (type = 'llm.completion')",
        ),
        (
            "CREATE METER m AS SELECT 1",
            "1:16: meter `m`: option `window` is missing",
            "add WITH (window = '1 hour')",
        ),
        (
            "CREATE RATE TABLE r (a DATE)",
            "1:29: rate table `r`: option `location` is missing",
            "add WITH (location = 'rates.csv')",
        ),
        (
            "CREATE PRICE p AS SELECT 1",
            "1:16: price `p`: option `currency` is missing",
            "add WITH (currency = 'USD')",
        ),
        (
            "CREATE PLAN p AS ()",
            "1:15: plan `p`: option `currency` is missing",
            "add WITH (currency = 'USD')",
        ),
    ] {
        refused(text, first, hint);
    }
}

#[test]
fn a_window_that_hops_or_a_session_has_a_base_window() {
    let every = "write a multiple of the step, up to 1440 of them: '1 hour every 15 minutes'";
    let session = "write how long a pause ends a session: 'session 30 minutes'";
    let divides = "windows are from 1 minute to 1 day and start at midnight UTC: '1 minute', '15 minutes', '1 hour', '6 hours', '1 day'";
    for (window, problem, hint) in [
        ("15 minutes every 15 minutes", "does not hop", every),
        ("20 minutes every 15 minutes", "does not hop", every),
        ("2 days every 1 minute", "does not hop", every),
    ] {
        let answer = format!("1:31: meter `m`: window `{window}` {problem}");
        refused(
            &format!("CREATE METER m WITH (window = '{window}') AS"),
            &answer,
            hint,
        );
    }
    refused(
        "CREATE METER m WITH (window = '1 hour every 7 minutes') AS",
        "1:31: meter `m`: window `7 minutes` does not divide a day",
        divides,
    );
    for gap in ["30 seconds", "2 days"] {
        refused(
            &format!("CREATE METER m WITH (window = 'session {gap}') AS"),
            &format!("1:31: meter `m`: the gap of `session {gap}` is not from 1 minute to 1 day"),
            session,
        );
    }
    refused(
        "CREATE METER m WITH (window = 'session soon') AS",
        "1:31: meter `m`: option `window`: `soon` is not a duration",
        "write a whole number and a unit: '30 seconds', '10 minutes', '1 hour', '1 day'",
    );
}

#[test]
fn a_window_divides_a_day_into_minutes_or_more() {
    let hint = "windows are from 1 minute to 1 day and start at midnight UTC: '1 minute', '15 minutes', '1 hour', '6 hours', '1 day'";
    for window in ["7 minutes", "30 seconds", "2 days", "0 hours", "25 hours"] {
        let answer = format!("1:31: meter `m`: window `{window}` does not divide a day");
        refused(
            &format!("CREATE METER m WITH (window = '{window}') AS"),
            &answer,
            hint,
        );
    }
    refused(
        "CREATE METER m WITH (window = 'hourly') AS",
        "1:31: meter `m`: option `window`: `hourly` is not a duration",
        "did you mean '1 hour'? write a whole number and a unit: '30 seconds', '10 minutes', '1 hour', '1 day'",
    );
    refused(
        "CREATE METER m WITH (window = '1 day', lateness = '367 days') AS",
        "1:51: meter `m`: lateness `367 days` is more than 366 days",
        "later events are counted too, in a later pane: wait only as long as most take",
    );
}

#[test]
fn usage_is_carried_over_where_it_is_said() {
    refused(
        "CREATE METER m WITH (window = '1 day', carry_over = 'yes') AS",
        "1:53: meter `m`: option `carry_over`: `yes` is neither true nor false",
        "write carry_over = 'true' or leave it out",
    );
}

#[test]
fn a_currency_is_one_that_is_paid_in() {
    let price = |code: &str| format!("CREATE PRICE p WITH (currency = '{code}') AS SELECT 1");
    refused(
        &price("BUCKS"),
        "1:33: price `p`: currency `BUCKS` is not an ISO 4217 code",
        "write one such as 'USD'",
    );
    refused(
        &price("usd"),
        "1:33: price `p`: currency `usd` is not an ISO 4217 code",
        "write 'USD'",
    );
    refused(
        &price("XAU"),
        "1:33: price `p`: currency `XAU` has no minor unit",
        "amounts are rounded to the minor unit: use a currency that is paid in",
    );
}

#[test]
fn dates_and_billing_periods_are_as_written() {
    refused(
        "CREATE PRICE p WITH (currency = 'USD', effective_from = '1 Oct 2026') AS SELECT 1",
        "1:57: price `p`: option `effective_from`: `1 Oct 2026` is not a date",
        "write '2026-10-01'",
    );
    refused(
        "CREATE PLAN p WITH (currency = 'USD', billing_period = 'hour') AS ()",
        "1:56: plan `p`: billing period `hour` is not known",
        "write 'day', 'week', 'month', 'quarter' or 'year', or up to 100 of them: '2 weeks'",
    );
}

#[test]
fn column_types_are_exact() {
    let event = |data_type: &str| format!("CREATE EVENT TYPE e (x {data_type}) WITH (type = 'e')");
    let float = "use DECIMAL(p, s), for example DECIMAL(18, 9)";
    let shape = "write DECIMAL(p, s): p digits in all, at most 38, s of them after the point";
    for (data_type, first, hint) in [
        (
            "FLOAT",
            "1:24: event type `e`: column `x`: FLOAT is not exact",
            float,
        ),
        (
            "double precision",
            "1:24: event type `e`: column `x`: DOUBLE is not exact",
            float,
        ),
        (
            "REAL",
            "1:24: event type `e`: column `x`: REAL is not exact",
            float,
        ),
        (
            "TEXT",
            "1:24: event type `e`: column `x`: TEXT is not a type",
            "use VARCHAR",
        ),
        (
            "BOOL",
            "1:24: event type `e`: column `x`: BOOL is not a type",
            "use BOOLEAN",
        ),
        (
            "SMALLINT",
            "1:24: event type `e`: column `x`: SMALLINT is not a type",
            "use BIGINT",
        ),
        (
            "TIMESTAMPTZ",
            "1:24: event type `e`: column `x`: TIMESTAMPTZ is not a type",
            "use TIMESTAMP, which is an instant in UTC",
        ),
        (
            "money",
            "1:24: event type `e`: column `x`: MONEY is not a type",
            "use DECIMAL(p, s), for example DECIMAL(18, 9)",
        ),
        (
            "VARCHAR(20)",
            "1:31: event type `e`: column `x`: VARCHAR takes no length",
            "write the type alone: lengths are not checked",
        ),
        (
            "DECIMAL",
            "1:24: event type `e`: column `x`: DECIMAL needs a precision",
            shape,
        ),
        (
            "DECIMAL(39, 2)",
            "1:32: event type `e`: column `x`: precision 39 is not between 1 and 38",
            shape,
        ),
        (
            "DECIMAL(0)",
            "1:32: event type `e`: column `x`: precision 0 is not between 1 and 38",
            shape,
        ),
        (
            "DECIMAL(4, 5)",
            "1:35: event type `e`: column `x`: scale 5 is not between 0 and 4",
            shape,
        ),
        (
            "DECIMAL(4, -1)",
            "1:35: event type `e`: expected the scale of DECIMAL, found `-`",
            shape,
        ),
        (
            "DECIMAL(4.0)",
            "1:32: event type `e`: column `x`: precision 4.0 is not between 1 and 38",
            shape,
        ),
        (
            "DECIMAL(4, 2, 1)",
            "1:36: event type `e`: expected `)`, found `,`",
            shape,
        ),
        (
            "",
            "1:24: event type `e`: expected the type of column `x`, found `)`",
            "a type is VARCHAR, BOOLEAN, BIGINT, DECIMAL(p, s), TIMESTAMP or DATE",
        ),
    ] {
        refused(&event(data_type), first, hint);
    }
}

#[test]
fn columns_are_declared_once_and_hide_nothing() {
    refused(
        "CREATE EVENT TYPE e (subject VARCHAR) WITH (type = 'e')",
        "1:22: event type `e`: column `subject` is there already",
        "every event or window has `event_id`, `source`, `subject`, `event_time`, `ingest_time`, `shard`, `sequence`, `ordinal`, `window_start`, `window_end`; choose another name and read the field with OPTIONS (path = '$.subject')",
    );
    for name in [
        "event_id",
        "Source",
        "event_time",
        "ingest_time",
        "shard",
        "sequence",
        "window_start",
        "window_end",
    ] {
        let text = format!("CREATE EVENT TYPE e (a DATE,\n {name} VARCHAR) WITH (type = 'e')");
        let name = name.to_lowercase();
        refused_first(
            &text,
            &format!("2:2: event type `e`: column `{name}` is there already"),
        );
    }
    refused(
        "CREATE RATE TABLE r (a DATE, A DATE) WITH (location = 'r')",
        "1:30: rate table `r`: column `a` is declared twice",
        "remove or rename one of them",
    );
    refused(
        "CREATE EVENT TYPE e () WITH (type = 'e')",
        "1:22: event type `e`: expected the name of a column, found `)`",
        "names are letters, digits and `_`, such as `tokens`",
    );
    refused(
        "CREATE EVENT TYPE e WITH (type = 'e')",
        "1:21: event type `e`: expected `(`, found `WITH`",
        "columns are `(name TYPE [NOT NULL], …)`, the type one of VARCHAR, BOOLEAN, BIGINT, DECIMAL(p, s), TIMESTAMP, DATE",
    );
}

#[test]
fn what_follows_a_column_is_not_null_and_options() {
    let event = "a column is `name TYPE [NOT NULL] [DEFAULT literal] [CHECK (expression)] [OPTIONS (path = '$.a.b')]`; separate columns with `,` and end with `)`";
    refused(
        "CREATE EVENT TYPE e (a DATE b DATE)",
        "1:29: event type `e`: a comma is missing before `b`",
        event,
    );
    refused(
        "CREATE EVENT TYPE e (a DATE NOT)",
        "1:32: event type `e`: expected NULL, found `)`",
        "write `NOT NULL`",
    );
    refused(
        "CREATE RATE TABLE r (a DATE OPTIONS (path = '$.a'))",
        "1:29: rate table `r`: unexpected `OPTIONS` after column `a`",
        "a column is `name TYPE [NOT NULL | PRIMARY KEY]`; separate columns with `,` and end with `)`",
    );
    refused(
        "CREATE EVENT TYPE e (a DATE OPTIONS (pth = '$.a'))",
        "1:38: event type `e`: unknown option `pth`",
        "did you mean `path`? known options: `path`, `strings`",
    );
    refused(
        "CREATE EVENT TYPE e (a DATE OPTIONS (path = 'a.b'))",
        "1:45: event type `e`: path `a.b`: it must start with `$`, which stands for `data`",
        "a path is `$.billing.cost`, or `$['any key'].cost` for keys with other characters",
    );
}

#[test]
fn a_statement_ends_where_it_ends() {
    let hint = "end each statement with `;` and remove what does not belong to it";
    refused(
        "CREATE PLAN p WITH (currency = 'USD') AS () CREATE PLAN q",
        "1:45: plan `p`: a `;` is missing before `CREATE`",
        "end each statement with `;`",
    );
    refused(
        "CREATE PLAN p WITH (currency = 'USD') AS () AS",
        "1:45: plan `p`: unexpected `AS` after the end",
        hint,
    );
    refused(
        "CREATE PRICE p WITH (currency = 'USD') AS\nSELECT 1 AS amount FROM subscription GROUP BY a\nCREATE PLAN q",
        "3:1: price `p`: a `;` is missing before `CREATE`",
        "end each statement with `;`",
    );
}

#[test]
fn a_plan_lists_its_prices() {
    let shape = "a plan lists its prices: `AS (price_one, price_two)`";
    let plan = |rest: &str| format!("CREATE PLAN p WITH (currency = 'USD') {rest}");
    refused(
        &plan("(a)"),
        "1:39: plan `p`: expected AS, found `(`",
        shape,
    );
    refused(
        &plan("AS a"),
        "1:42: plan `p`: expected `(`, found `a`",
        shape,
    );
    refused(
        &plan("AS (a b)"),
        "1:45: plan `p`: a comma is missing before `b`",
        shape,
    );
    refused(
        &plan("AS (a, a)"),
        "1:46: plan `p`: price `a` is listed twice",
        "list each price once",
    );
    refused_first(
        &plan("AS (a,)"),
        "1:44: plan `p`: a comma stands before `)`",
    );
}

#[test]
fn a_query_is_one_select_without_mistakes() {
    let price = |query: &str| format!("CREATE PRICE p WITH (currency = 'USD')\n{query}");
    let hint = "after AS stands one SELECT; correct it at this place";
    refused(
        &price("SELECT 1"),
        "2:1: price `p`: expected AS, found `SELECT`",
        "the query follows: `AS SELECT … FROM …`",
    );
    refused(
        &price("AS SELECT 1 +\n ) FROM t;"),
        "3:2: price `p`: expected an expression, found )",
        hint,
    );
    refused(
        &price("AS SELECT a FROM (t;"),
        "2:20: price `p`: expected ), found the end",
        hint,
    );
    refused_first(
        &price("AS ;"),
        "2:4: price `p`: expected SELECT, VALUES, or a subquery in the query body, found the end",
    );
    refused_first(
        &price("AS DROP TABLE x"),
        "2:4: price `p`: expected SELECT, VALUES, or a subquery in the query body, found DROP",
    );
}

#[test]
fn a_query_cannot_nest_without_end() {
    let price = |expr: &str| format!("CREATE PRICE p WITH (currency = 'USD') AS SELECT {expr}");
    let chain = "1+".repeat(100_000) + "1";
    refused(
        &price(&chain),
        "1:1049: price `p`: the query has more than 1000 words in a row",
        "put long lists into a rate table and join it",
    );
    refused(
        &price(&format!("{}1{}", "(".repeat(500), ")".repeat(500))),
        "1:43: price `p`: the query is nested too deeply",
        "use fewer parentheses and CASEs",
    );
    let tiers = vec!["{up_to: 1, unit_amount: (2)}"; 2_000].join(", ");
    let file = SourceFile {
        name: "f".to_owned(),
        text: price(&format!("[{tiers}]")),
    };
    assert!(Definitions::parse(&[file]).is_ok(), "a list is not nested");
}

/// A meter with this query, which starts at 1:42.
fn meter(query: &str) -> String {
    format!("CREATE METER m WITH (window = '1 hour') AS {query}")
}

#[test]
fn a_meter_is_one_aggregate_select_over_one_event_type() {
    let order =
        "a meter keeps every group of every window: order and limit when you query the meter";
    let join = "a meter reads one event type; join rates and customers in a price, where their history is known";
    let subquery =
        "a meter sees the events of one window only: use WHERE, CASE or FILTER on their columns";
    let one = "write one SELECT; combine meters in a price or a query";
    let over = "use an aggregate with GROUP BY; compare rows when you query the meter's windows";
    let plain = "write SELECT … FROM … WHERE … GROUP BY … only";
    for (query, first, hint) in [
        (
            "WITH x AS (SELECT 1) SELECT subject FROM x GROUP BY subject",
            "1:44: meter `m`: a meter cannot use WITH",
            "write one SELECT over one event type; combine meters in a price or a query",
        ),
        (
            "SELECT subject FROM e GROUP BY subject ORDER BY 1",
            "1:83: meter `m`: a meter cannot use ORDER BY",
            order,
        ),
        (
            "SELECT subject FROM e GROUP BY subject LIMIT 1",
            "1:83: meter `m`: a meter cannot use LIMIT or OFFSET",
            order,
        ),
        (
            "SELECT subject FROM e GROUP BY subject FETCH FIRST 1 ROW ONLY",
            "1:83: meter `m`: a meter cannot use FETCH",
            order,
        ),
        (
            "SELECT subject FROM e GROUP BY subject UNION ALL SELECT 1",
            "1:83: meter `m`: a meter cannot use UNION",
            one,
        ),
        ("VALUES (1)", "1:44: meter `m`: a meter is one SELECT", one),
        (
            "SELECT DISTINCT subject FROM e GROUP BY subject",
            "1:51: meter `m`: a meter cannot use SELECT DISTINCT",
            "GROUP BY already gives one row a group; to count distinct values, use COUNT(DISTINCT column)",
        ),
        (
            "SELECT subject FROM e GROUP BY subject HAVING COUNT(*) > 1",
            "1:83: meter `m`: a meter cannot use HAVING",
            "a group that fails it in one window may pass it over a month: filter events with WHERE, or totals in a price",
        ),
        (
            "SELECT subject FROM e GROUP BY ALL",
            "1:75: meter `m`: a meter cannot use GROUP BY ALL",
            "name the columns: GROUP BY subject, …",
        ),
        (
            "FROM e SELECT subject",
            "1:51: meter `m`: a meter cannot use this form of SELECT",
            plain,
        ),
        (
            "SELECT subject INTO t FROM e GROUP BY subject",
            "1:44: meter `m`: a meter cannot use this form of SELECT",
            plain,
        ),
        (
            "SELECT subject FROM e JOIN f ON true GROUP BY subject",
            "1:66: meter `m`: a meter cannot use JOIN",
            join,
        ),
        (
            "SELECT subject FROM e, f GROUP BY subject",
            "1:67: meter `m`: a meter cannot read a second relation",
            join,
        ),
        (
            "SELECT 1 AS subject",
            "1:44: meter `m`: a meter needs FROM",
            "add FROM and the name of an event type",
        ),
        (
            "SELECT subject FROM (SELECT * FROM e) GROUP BY subject",
            "1:65: meter `m`: a meter cannot use a sub-query",
            subquery,
        ),
        (
            "SELECT subject FROM lake.e GROUP BY subject",
            "1:64: meter `m`: `lake.e` is not the name of an event type",
            "write the event type's name alone, without a schema",
        ),
        (
            "SELECT subject FROM f(1) GROUP BY subject",
            "1:64: meter `m`: a meter reads an event type and nothing else",
            "write `FROM event_type`, with an alias if you like",
        ),
        (
            "SELECT subject FROM e WHERE n IN (SELECT 1) GROUP BY subject",
            "1:72: meter `m`: a meter cannot use a sub-query",
            subquery,
        ),
        (
            "SELECT subject, (SELECT 1) FROM e GROUP BY subject",
            "1:61: meter `m`: a meter cannot use a sub-query",
            subquery,
        ),
        (
            "SELECT subject FROM e WHERE EXISTS (SELECT 1) GROUP BY subject",
            "1:80: meter `m`: a meter cannot use a sub-query",
            subquery,
        ),
        (
            "SELECT subject, SUM(n) OVER () FROM e GROUP BY subject",
            "1:60: meter `m`: a meter cannot use window functions",
            over,
        ),
        (
            "SELECT subject, SUM(n) FROM e GROUP BY subject WINDOW w AS (ORDER BY n)",
            "1:91: meter `m`: a meter cannot use window functions",
            over,
        ),
        (
            "SELECT subject, SUM(CAST(n AS DOUBLE)) FROM e GROUP BY subject",
            "1:69: meter `m`: a meter cannot use floats: they are not exact",
            "cast to DECIMAL(p, s)",
        ),
        (
            "SELECT subject, SUM(n::real) FROM e GROUP BY subject",
            "1:64: meter `m`: a meter cannot use floats: they are not exact",
            "cast to DECIMAL(p, s)",
        ),
        (
            "SELECT subject FROM e GROUP BY ROLLUP (subject)",
            "1:83: meter `m`: a meter cannot use ROLLUP, CUBE or GROUPING SETS",
            "group by the finest columns; add groups up when you query the meter",
        ),
        (
            "SELECT subject FROM e GROUP BY CUBE (subject)",
            "1:81: meter `m`: a meter cannot use ROLLUP, CUBE or GROUPING SETS",
            "group by the finest columns; add groups up when you query the meter",
        ),
        (
            "SELECT subject FROM e GROUP BY GROUPING SETS ((subject), ())",
            "1:91: meter `m`: a meter cannot use ROLLUP, CUBE or GROUPING SETS",
            "group by the finest columns; add groups up when you query the meter",
        ),
        (
            "SELECT subject FROM e GROUP BY subject WITH ROLLUP",
            "1:66: meter `m`: a meter cannot use modifiers of GROUP BY",
            "name the columns only",
        ),
        (
            "SELECT subject FROM e GROUP BY subject QUALIFY true",
            "1:83: meter `m`: a meter cannot use QUALIFY",
            over,
        ),
        (
            "SELECT subject FROM e GROUP BY subject FOR UPDATE",
            "1:44: meter `m`: a meter cannot use clauses after the SELECT",
            plain,
        ),
        (
            "SELECT subject FROM e |> LIMIT 3",
            "1:44: meter `m`: a meter cannot use clauses after the SELECT",
            plain,
        ),
        (
            "SELECT TOP 3 subject FROM e GROUP BY subject",
            "1:44: meter `m`: a meter cannot use this form of SELECT",
            plain,
        ),
        (
            "SELECT subject FROM e TABLESAMPLE (10) GROUP BY subject",
            "1:64: meter `m`: a meter reads an event type and nothing else",
            "write `FROM event_type`, with an alias if you like",
        ),
        (
            "SELECT * FROM e GROUP BY subject",
            "1:51: meter `m`: a meter cannot select `*`",
            "name the columns that GROUP BY names, and the aggregates",
        ),
    ] {
        refused(&meter(query), first, hint);
    }
}

#[test]
fn a_meter_groups_by_its_subject_and_selects_it() {
    let group = "write GROUP BY subject, and any dimensions after it";
    refused(
        &meter("SELECT COUNT(*) FROM e"),
        "1:44: meter `m`: a meter must group by `subject`",
        group,
    );
    refused(
        &meter("SELECT subject, model\nFROM e\nGROUP BY model"),
        "3:1: meter `m`: a meter must group by `subject`",
        group,
    );
    refused(
        &meter("SELECT subject, model FROM e GROUP BY 2"),
        "1:73: meter `m`: a meter must group by `subject`",
        group,
    );
    refused(
        &meter("SELECT model FROM e GROUP BY model, \"Subject\""),
        "1:64: meter `m`: a meter must group by `subject`",
        group,
    );
    refused(
        &meter("SELECT subject AS s FROM e GROUP BY subject"),
        "1:44: meter `m`: a meter must select `subject`",
        "add `subject` to the SELECT list, under that name",
    );
}

#[test]
fn what_a_meter_may_be_is_accepted() {
    let event = "CREATE EVENT TYPE e (model VARCHAR, n BIGINT) WITH (type = 'e');";
    for query in [
        "SELECT subject, COUNT(*) AS n FROM e GROUP BY 1",
        "SELECT x.subject, upper(model) AS m, SUM(n) FILTER (WHERE n > 0) AS s FROM e x GROUP BY x.subject, upper(model)",
        "SELECT subject AS Subject, SUM(CASE WHEN model IS NULL THEN n ELSE 2 * n END) / 2 AS s FROM E GROUP BY subject",
        "SELECT subject, COUNT(DISTINCT model) AS models FROM e WHERE event_time >= '2026-01-01' GROUP BY subject",
    ] {
        let file = SourceFile {
            name: "f".to_owned(),
            text: format!("{event}{}", meter(query)),
        };
        let answer = Definitions::parse(&[file]);
        assert!(answer.is_ok(), "{query}: {answer:?}");
    }
}

#[test]
fn a_price_says_what_becomes_of_the_period_in_which_it_changes() {
    let price = |options: &str| {
        format!(
            "CREATE PRICE p WITH (currency = 'USD'{options}) AS SELECT customer, 1 AS amount FROM subscription"
        )
    };
    refused(
        &price(", effective_from = '2026-10-15', on_change = 'spilt'"),
        "1:83: price `p`: option `on_change`: `spilt` is not known",
        "did you mean `split`? known values: `next_period`, `split`",
    );
    refused(
        &price(", on_change = 'split'"),
        "1:52: price `p`: option `on_change`: there is no day at which a period is split",
        "add effective_from = '2026-10-15', the first day of this version",
    );
}
