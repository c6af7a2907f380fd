mod several;

use super::*;
use crate::Error;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
        Int8Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
        TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
    },
    datatypes::DataType,
};
use jiff::civil::date;
use std::sync::Arc;

/// The definitions of the design, as their author would write them.
const DESIGN: &str = "
-- What arrives: one CloudEvents `type`. Columns are read from `data`; a path may be given.
CREATE EVENT TYPE llm_completion (
    model         VARCHAR NOT NULL,
    region        VARCHAR,
    input_tokens  BIGINT  NOT NULL,
    output_tokens BIGINT  NOT NULL,
    cost          DECIMAL(18, 9) OPTIONS (path = '$.billing.cost')
) WITH (type = 'llm.completion');

-- What is measured: one aggregate query over one event type, per base window.
CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes', unit = 'token') AS
SELECT subject, model, region,
       SUM(input_tokens) AS input, SUM(output_tokens) AS output, COUNT(*) AS calls
FROM llm_completion
WHERE model <> 'internal-test'
GROUP BY subject, model, region;

-- Reference data that prices join with; rows may carry valid_from / valid_to.
CREATE RATE TABLE model_rates (model VARCHAR, input_rate DECIMAL(38, 18), output_rate DECIMAL(38, 18))
WITH (location = 'model_rates.csv');

-- What it costs: any deterministic query; in a price, a meter is its total for the billing period so far.
CREATE PRICE tokens_by_model WITH (currency = 'USD', effective_from = '2026-10-01') AS
SELECT t.customer, t.model, SUM(t.input + t.output) AS quantity,
       SUM(t.input * r.input_rate + t.output * r.output_rate) AS amount
FROM tokens t JOIN model_rates r ON r.model = t.model
GROUP BY t.customer, t.model;

CREATE PRICE calls_graduated WITH (currency = 'USD') AS
SELECT customer, SUM(calls) AS quantity,
       graduated(SUM(calls), [{up_to: 1000, unit_amount: 0}, {up_to: NULL, unit_amount: 0.002}]) AS amount
FROM tokens GROUP BY customer;

CREATE PRICE pro_base WITH (currency = 'USD') AS
SELECT customer, prorate(49.00, active_days, period_days) AS amount FROM subscription;

CREATE PLAN pro WITH (currency = 'USD', billing_period = 'month') AS (pro_base, tokens_by_model, calls_graduated);
";

mod replace;

const EVENT: &str = "CREATE EVENT TYPE call (n BIGINT) WITH (type = 'call');";
const METER: &str = "CREATE METER calls WITH (window = '1 hour') AS \
                     SELECT subject, SUM(n) AS n FROM call GROUP BY subject;";

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn read(text: &str) -> Result<Definitions> {
    Definitions::parse(&[file("a.sql", text)])
}

/// The whole message for definitions that must be refused.
fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    names.into_iter().map(String::as_str).collect()
}

#[test]
fn nothing_defines_nothing() {
    let none = Definitions::parse(&[]).unwrap();
    assert!(none.event_types.is_empty() && none.plans.is_empty());
    let only_comments = read("-- nothing\n/* here /* nested */ */ ;;").unwrap();
    assert!(only_comments.meters.is_empty());
}

#[test]
fn the_design_is_read_as_it_is_written() {
    let all = read(DESIGN).unwrap();

    let event = all.event_type("llm_completion").unwrap();
    assert_eq!(event.cloud_event_type, "llm.completion");
    assert_eq!((event.at.line, event.at.column), (3, 19));
    let columns: Vec<_> = event
        .columns
        .iter()
        .map(|c| {
            (
                c.name.as_str(),
                c.data_type.clone(),
                c.nullable,
                c.path_text(),
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("model", DataType::Utf8, false, "$.model".to_owned()),
            ("region", DataType::Utf8, true, "$.region".to_owned()),
            (
                "input_tokens",
                DataType::Int64,
                false,
                "$.input_tokens".to_owned()
            ),
            (
                "output_tokens",
                DataType::Int64,
                false,
                "$.output_tokens".to_owned()
            ),
            (
                "cost",
                DataType::Decimal128(18, 9),
                true,
                "$.billing.cost".to_owned()
            ),
        ]
    );

    let [tokens] = all.meters.as_slice() else {
        panic!("one meter")
    };
    assert_eq!(tokens.name, "tokens");
    assert_eq!(tokens.window_us, 3_600_000_000);
    assert_eq!(tokens.lateness_us, 600_000_000);
    assert_eq!(tokens.unit.as_deref(), Some("token"));
    assert_eq!(tokens.event_type, "llm_completion");
    assert_eq!(tokens.version, 1);
    assert!(
        tokens
            .query
            .starts_with("SELECT subject, model, region,\n       SUM")
    );
    assert!(tokens.query.ends_with("GROUP BY subject, model, region"));

    let [rates] = all.rate_tables.as_slice() else {
        panic!("one rate table")
    };
    assert_eq!(
        (rates.name.as_str(), rates.location.as_str()),
        ("model_rates", "model_rates.csv")
    );
    assert_eq!(rates.columns[1].data_type, DataType::Decimal128(38, 18));

    let prices: Vec<_> = all
        .prices
        .iter()
        .map(|p| (p.name.as_str(), p.effective_from))
        .collect();
    assert_eq!(
        prices,
        [
            ("tokens_by_model", Some(date(2026, 10, 1))),
            ("calls_graduated", None),
            ("pro_base", None),
        ]
    );
    assert!(
        all.prices[1]
            .query
            .contains("{up_to: NULL, unit_amount: 0.002}")
    );

    let [pro] = all.plans.as_slice() else {
        panic!("one plan")
    };
    assert_eq!(
        (pro.currency.as_str(), pro.terms.billing_period),
        ("USD", BillingPeriod::Months(1))
    );
    assert_eq!(
        names(&pro.prices),
        ["pro_base", "tokens_by_model", "calls_graduated"]
    );
}

#[test]
fn statements_and_files_may_come_in_any_order() {
    let mut statements: Vec<&str> = DESIGN.split_inclusive(";\n").collect();
    statements.reverse();
    let files: Vec<_> = (0..)
        .zip(&statements)
        .map(|(i, text)| file(&format!("{i}.sql"), text))
        .collect();
    let all = Definitions::parse(&files).unwrap();
    assert_eq!(all.prices.len(), 3);
    assert_eq!(all.meters[0].at.to_string(), "5.sql:3:14");
}

#[test]
fn names_fold_to_lower_case_unless_quoted() {
    let text = "create event type Call (N bigint) with (TYPE = 'Call');
                Create Meter CALLS With (Window = '1 Hour') As
                Select Subject, Sum(n) As n From CALL As c Group By C.SUBJECT;
                CREATE PLAN \"free\" WITH (currency = 'EUR') AS ();";
    let all = read(text).unwrap();
    assert_eq!(all.event_types[0].name, "call");
    assert_eq!(all.event_types[0].cloud_event_type, "Call");
    assert_eq!(all.meters[0].event_type, "call");
    assert_eq!(all.meters[0].lateness_us, 0);
    assert_eq!(all.plans[0].name, "free");
}

#[test]
fn every_type_and_alias_has_one_meaning() {
    let text =
        "CREATE EVENT TYPE t (a VARCHAR, b BOOLEAN NULL, c INT NOT NULL, d INTEGER, e NUMERIC(5),
                f TIMESTAMP, g DATE NOT NULL OPTIONS (path = '$[''a b''].c')) WITH (type = 't')";
    let all = read(text).unwrap();
    let columns = &all.event_types[0].columns;
    let types: Vec<_> = columns.iter().map(|c| c.data_type.clone()).collect();
    assert_eq!(
        types,
        [
            DataType::Utf8,
            DataType::Boolean,
            DataType::Int64,
            DataType::Int64,
            DataType::Decimal128(5, 0),
            crate::schema::timestamp(),
            DataType::Date32,
        ]
    );
    let nullable: Vec<_> = columns.iter().map(|c| c.nullable).collect();
    assert_eq!(nullable, [true, true, false, true, true, true, false]);
    assert_eq!(columns[6].path_text(), "$['a b'].c");
}

#[test]
fn a_replaced_meter_keeps_its_versions_and_a_replaced_plan_does_not() {
    let next = |since: &str, count: &str| {
        format!(
            "CREATE OR REPLACE METER calls WITH (window = '1 hour', effective_from = '{since}') AS
             SELECT subject, COUNT({count}) AS n FROM call GROUP BY subject;"
        )
    };
    let text = format!(
        "{EVENT} {METER} {} {} CREATE OR REPLACE PLAN p WITH (currency = 'EUR') AS ();",
        next("2026-10-01", "path"),
        next("2026-11-01T03:00:00+02:00", "subject"),
    );
    let all = read(&text).unwrap();
    assert_eq!((all.meters.len(), all.plans.len()), (1, 1));
    let newest = &all.meters[0];
    let versions: Vec<_> = newest
        .earlier
        .iter()
        .chain([newest])
        .map(|meter| (meter.version, meter.effective_from_us))
        .collect();
    // `date -u -d 2026-10-01 +%s` and `date -u -d 2026-11-01T01:00 +%s`.
    assert_eq!(
        versions,
        [
            (1, None),
            (2, Some(1_790_812_800_000_000)),
            (3, Some(1_793_494_800_000_000))
        ]
    );
}

#[test]
fn a_version_of_a_meter_must_stand_beside_the_one_before() {
    let refused = |options: &str| {
        let text = format!(
            "{EVENT}
CREATE METER calls WITH (window = '1 hour') AS SELECT subject, COUNT(*) AS n FROM call GROUP BY subject;
CREATE OR REPLACE METER calls WITH ({options}) AS SELECT subject, COUNT(*) AS n FROM call GROUP BY subject;"
        );
        refusal(&text)
    };
    assert_eq!(
        refused("window = '1 hour'"),
        "a.sql:3:25: meter `calls`: effective from always, but the version before it, at a.sql:2:14, from always\n  \
         hint: give the later version a later effective_from: old periods keep their version"
    );
    let hint = "hint: a version may change what is filtered and aggregated; for anything else create a meter \
                under another name";
    for (options, changed) in [
        ("window = '1 day'", "other windows"),
        ("window = '1 hour', lateness = '1 hour'", "another lateness"),
        ("window = '1 hour', late = 'quarantine'", "another `late`"),
        (
            "window = '1 hour', carry_over = 'true'",
            "another carry_over",
        ),
    ] {
        let options = format!("{options}, effective_from = '2026-10-01'");
        assert_eq!(
            refused(&options),
            format!(
                "a.sql:3:25: meter `calls`: it has {changed} than the version before it, at a.sql:2:14\n  {hint}"
            )
        );
    }
    assert_eq!(
        refused("window = '1 hour', effective_from = '2026-10-01T00:30:00Z'"),
        "a.sql:3:73: meter `calls`: option `effective_from`: no window begins at `2026-10-01T00:30:00Z`\n  \
         hint: a version measures whole windows: write the instant at which one begins"
    );
    assert_eq!(
        refused("window = '1 hour', effective_from = 'October'"),
        "a.sql:3:73: meter `calls`: option `effective_from`: `October` is neither a date nor an instant\n  \
         hint: write '2026-10-01', which is midnight UTC, or '2026-10-01T00:00:00+02:00'"
    );
    assert_eq!(
        refused("window = '1 hour', late = 'next-period'"),
        "a.sql:3:63: meter `calls`: option `late`: `next-period` is no policy\n  \
         hint: did you mean `next_period`? known policies: `correct`, `next_period`, `quarantine`"
    );
}

#[test]
fn a_price_keeps_every_version() {
    let text =
        "CREATE PRICE p WITH (currency = 'USD') AS SELECT customer, 1 AS amount FROM subscription;
        CREATE OR REPLACE PRICE p WITH (currency = 'USD', effective_from = '2026-10-01') AS
        SELECT customer, 2 AS amount FROM subscription;
        CREATE OR REPLACE PRICE p WITH (currency = 'USD', effective_from = '2027-01-01') AS
        SELECT customer, 3 AS amount FROM subscription;";
    let all = read(text).unwrap();
    let versions: Vec<_> = all
        .prices
        .iter()
        .map(|p| (p.version, p.effective_from))
        .collect();
    assert_eq!(
        versions,
        [
            (1, None),
            (2, Some(date(2026, 10, 1))),
            (3, Some(date(2027, 1, 1)))
        ]
    );
}

#[test]
fn a_price_cannot_replace_a_version_that_starts_later() {
    let text = "CREATE PRICE p WITH (currency = 'USD', effective_from = '2026-10-01') AS SELECT 1;
CREATE OR REPLACE PRICE p WITH (currency = 'USD', effective_from = '2026-10-01') AS SELECT 2;";
    assert_eq!(
        refusal(text),
        "a.sql:2:68: price `p`: effective from '2026-10-01', but the version before it, at a.sql:1:14, from '2026-10-01'\n  \
         hint: give the later version a later effective_from: old periods keep their version"
    );
    let text = "CREATE PRICE p WITH (currency = 'USD') AS SELECT 1;
CREATE OR REPLACE PRICE p WITH (currency = 'USD') AS SELECT 2;";
    assert_eq!(
        refusal(text).lines().next().unwrap(),
        "a.sql:2:25: price `p`: effective from always, but the version before it, at a.sql:1:14, from always"
    );
}

#[test]
fn a_name_defined_twice_points_at_both_places() {
    let files = [file("a.sql", EVENT), file("b.sql", &format!("\n  {EVENT}"))];
    assert_eq!(
        Definitions::parse(&files).unwrap_err().to_string(),
        "b.sql:2:21: event type `call` is already defined at a.sql:1:19\n  \
         hint: rename one of them, or write CREATE OR REPLACE EVENT TYPE for a later version"
    );
    for second in [
        METER,
        "CREATE RATE TABLE r (a DATE) WITH (location = 'r.csv');",
        "CREATE PRICE p WITH (currency = 'USD') AS SELECT 1;",
        "CREATE PLAN p WITH (currency = 'USD') AS ();",
    ] {
        let message = refusal(&format!("{EVENT}{second}{second}"));
        assert!(
            message.contains("` is already defined at a.sql:1:"),
            "{message}"
        );
    }
}

#[test]
fn relations_share_one_name_space() {
    let own = "hint: event types, meters, `<meter>_windows`, `<meter>_panes` and rate tables need names of their own";
    assert_eq!(
        refusal(&format!(
            "{EVENT}\nCREATE METER call WITH (window = '1 hour') AS SELECT subject FROM call GROUP BY subject"
        )),
        format!(
            "a.sql:2:14: meter `call`: the name is taken by event type `call` at a.sql:1:19\n  {own}"
        )
    );
    assert_eq!(
        refusal(&format!(
            "{EVENT}{METER}\nCREATE RATE TABLE calls_windows (a DATE) WITH (location = 'x')"
        )),
        format!(
            "a.sql:1:69: the windows of meter `calls`: the name is taken by rate table `calls_windows` at a.sql:2:19\n  {own}"
        )
    );
    assert_eq!(
        refusal("CREATE RATE TABLE invoices (a DATE) WITH (location = 'x')"),
        "a.sql:1:19: rate table `invoices`: the name is built in\n  \
         hint: choose another name; built in are `accounts`, `conflicts`, `credit_ledger`, `customers`, `discounts`, `events`, `grants`, \
         `information_schema`, `invoices`, `line_items`, `meters`, `one_offs`, `subscription`, `subjects`, `subscriptions`, `unbilled`, `unissued`"
    );
    let meter = METER.replace("METER calls", "METER _delta_log");
    assert_eq!(
        refusal(&format!("{EVENT}{meter}")),
        "a.sql:1:69: meter `_delta_log`: it is the name of a Delta table's log\n  \
         hint: choose another name: tools would take the folder around it for a table"
    );
    for name in ["events", "line_items", "accounts", "subscription"] {
        let meter = METER.replace("METER calls", &format!("METER {name}"));
        let message = refusal(&format!("{EVENT}{meter}"));
        assert!(
            message.contains(&format!("meter `{name}`: the name is built in")),
            "{message}"
        );
    }
}

#[test]
fn a_price_or_plan_may_have_the_name_of_a_relation() {
    let price =
        "CREATE PRICE calls WITH (currency = 'USD') AS SELECT customer, n AS amount FROM calls;";
    let plan = "CREATE PLAN calls WITH (currency = 'USD') AS (calls);";
    assert!(read(&format!("{EVENT}{METER}{price}{plan}")).is_ok());
}

#[test]
fn an_event_type_cannot_hide_a_column_of_events() {
    assert_eq!(
        refusal("CREATE EVENT TYPE extra (n BIGINT) WITH (type = 'x')"),
        "a.sql:1:19: event type `extra`: `events` has a column of that name\n  \
         hint: choose another name: each event type becomes a column of `events`"
    );
}

#[test]
fn two_event_types_cannot_read_one_type() {
    assert_eq!(
        refusal(&format!(
            "{EVENT}\nCREATE EVENT TYPE ring (n BIGINT) WITH (type = 'call')"
        )),
        "a.sql:2:19: event type `ring`: type 'call' is already event type `call` at a.sql:1:19\n  \
         hint: declare all columns of a type in one place"
    );
}

#[test]
fn a_meter_needs_an_event_type_that_exists() {
    assert_eq!(
        refusal(&format!(
            "{EVENT}\n{}",
            METER.replace("FROM call", "FROM calll")
        )),
        "a.sql:2:81: meter `calls`: `calll` is not an event type\n  \
         hint: did you mean `call`? known event types: `call`"
    );
    assert_eq!(
        refusal(METER).lines().last().unwrap(),
        "  hint: known event types: none"
    );
}

#[test]
fn an_event_type_that_a_price_reads_has_no_customer_of_its_own() {
    let text = |column: &str| {
        format!(
            "CREATE EVENT TYPE sale ({column}) WITH (type = 'sale');
CREATE PRICE p WITH (currency = 'USD') AS SELECT customer, COUNT(*) AS amount FROM sale GROUP BY customer;"
        )
    };
    assert_eq!(
        refusal(&text("n BIGINT, customer VARCHAR")),
        "a.sql:2:84: price `p`: event type `sale` has a column `customer`, which in a price says who pays\n  hint: declare \
         the column under another name: payer VARCHAR OPTIONS (path = '$.customer')"
    );
    assert!(
        read(&text(
            "n BIGINT, payer VARCHAR OPTIONS (path = '$.customer')"
        ))
        .is_ok()
    );
}

#[test]
fn a_price_reads_meters_events_rate_tables_and_subscription() {
    let price = |from: &str| {
        format!(
            "{EVENT}{METER}\nCREATE PRICE p WITH (currency = 'USD') AS SELECT customer, 1 AS amount FROM {from}"
        )
    };
    for from in [
        "calls",
        "calls_windows",
        "call",
        "subscription",
        "(SELECT * FROM calls) c",
        "calls a JOIN subscription USING (customer)",
        "(WITH x AS (SELECT * FROM calls) SELECT * FROM x) y",
        "(WITH calls AS (SELECT * FROM calls) SELECT * FROM calls) y",
        "(WITH a AS (SELECT * FROM calls), b AS (SELECT * FROM a) SELECT * FROM b) y",
        "(WITH RECURSIVE a AS (SELECT customer FROM calls UNION SELECT customer FROM a) SELECT * FROM a) y",
    ] {
        let answer = read(&price(from));
        assert!(answer.is_ok(), "{from}: {answer:?}");
    }
    let known = "known in a price: `calls`, `calls_windows`, `call`, `subscription`";
    // In its own query, before it and beside it, a name of WITH is the relation of that name.
    for (from, unknown) in [
        (
            "(WITH events AS (SELECT * FROM events) SELECT * FROM events) y",
            "events",
        ),
        (
            "(WITH a AS (SELECT * FROM b), b AS (SELECT * FROM calls) SELECT * FROM a) y",
            "b",
        ),
        (
            "(WITH a AS (SELECT * FROM calls) SELECT * FROM a) y JOIN a ON true",
            "a",
        ),
        (
            "(SELECT * FROM (WITH invoices AS (SELECT * FROM calls) SELECT * FROM invoices) z, invoices) y",
            "invoices",
        ),
        ("calls, generate_series(1, 2) g", "generate_series"),
        ("information_schema.tables", "information_schema.tables"),
        ("public.calls", "public.calls"),
    ] {
        let said = refusal(&price(from));
        let problem = format!("price `p`: there is no relation `{unknown}`\n");
        assert!(
            said.contains(&problem) && said.ends_with(known),
            "{from}: {said}"
        );
    }
    assert_eq!(
        refusal(&price("events")),
        format!("a.sql:2:77: price `p`: there is no relation `events`\n  hint: {known}")
    );
    assert_eq!(
        refusal(&price("calls JOIN (SELECT * FROM cals) ON true")),
        format!(
            "a.sql:2:103: price `p`: there is no relation `cals`\n  hint: did you mean `calls`? {known}"
        )
    );
}

#[test]
fn a_plan_needs_prices_that_exist_in_its_currency() {
    let price = "CREATE PRICE base WITH (currency = 'EUR') AS SELECT 1;";
    assert_eq!(
        refusal(&format!(
            "{price}\nCREATE PLAN p WITH (currency = 'EUR') AS (base, bse)"
        )),
        "a.sql:2:49: plan `p`: there is no price `bse`\n  hint: did you mean `base`? known prices: `base`"
    );
    assert_eq!(
        refusal(&format!(
            "{price}\nCREATE PLAN p WITH (currency = 'USD') AS (base)"
        )),
        "a.sql:2:43: plan `p`: price `base` is in EUR, the plan in USD\n  \
         hint: give both one currency; the price is at a.sql:1:14"
    );
    let later = "CREATE OR REPLACE PRICE base WITH (currency = 'USD', effective_from = '2027-01-01') AS SELECT 1;";
    assert_eq!(
        refusal(&format!(
            "{price}\n{later}\nCREATE PLAN p WITH (currency = 'EUR') AS (base)"
        ))
        .lines()
        .next()
        .unwrap(),
        "a.sql:3:43: plan `p`: price `base` is in USD, the plan in EUR"
    );
}

fn rates() -> RateTable {
    let text = "CREATE RATE TABLE rates (model VARCHAR NOT NULL, rate DECIMAL(38, 18), free BIGINT,
                active BOOLEAN, valid_from TIMESTAMP, day DATE) WITH (location = 'rates.csv')";
    read(text).unwrap().rate_tables.remove(0)
}

const HEADER: &str = "model,rate,free,active,valid_from,day\n";

fn csv(rows: &str) -> Result<RecordBatch> {
    rates().read_csv("rates.csv", format!("{HEADER}{rows}").as_bytes())
}

fn csv_refusal(rows: &str) -> String {
    csv(rows).unwrap_err().to_string()
}

#[test]
fn a_rate_file_is_read_exactly() {
    let batch = csv(
        "gpt,1.5e-07,-3,true,2026-10-01T02:00:00.000001+02:00,1970-01-02\n\"a,\"\"b\"\"\",,,,,\n",
    )
    .unwrap();
    assert_eq!(batch.schema(), rates().schema());
    let text = batch.column(0).as_string::<i32>();
    assert_eq!((text.value(0), text.value(1)), ("gpt", "a,\"b\""));
    let rates: &Decimal128Array = batch.column(1).as_primitive();
    assert_eq!(rates.value(0), 150_000_000_000);
    let free: &Int64Array = batch.column(2).as_primitive();
    assert_eq!(free.value(0), -3);
    let active: &BooleanArray = batch.column(3).as_boolean();
    assert!(active.value(0));
    let from: &TimestampMicrosecondArray = batch.column(4).as_primitive();
    // 2026-10-01 is day 20,727 of the Unix epoch: 56 years of which 14 leap, then 273 days.
    assert_eq!(from.value(0), 20_727 * 86_400_000_000 + 1);
    let day: &Date32Array = batch.column(5).as_primitive();
    assert_eq!(day.value(0), 1);
    assert!((1..6).all(|column| batch.column(column).is_null(1)));
}

#[test]
fn columns_are_found_by_name_and_others_are_not_read() {
    let bytes = b"\xef\xbb\xbfday,valid_from,note,active,free,rate,model\r\n,,\xff,,,0.5,m\r\n";
    let batch = rates().read_csv("rates.csv", bytes).unwrap();
    assert_eq!(batch.num_rows(), 1);
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "m");
    let rates: &Decimal128Array = batch.column(1).as_primitive();
    assert_eq!(rates.value(0), 500_000_000_000_000_000);
}

#[test]
fn a_file_with_a_header_only_is_an_empty_table() {
    assert_eq!(csv("").unwrap().num_rows(), 0);
}

#[test]
fn a_cell_that_does_not_fit_names_file_line_and_column_and_what_to_write() {
    let number = "write a number such as 0.0025 or 2.5e-3, without spaces, currency and marks between thousands";
    let whole = "write digits alone, or declare the column DECIMAL(p, s)";
    let instant = "write it with its offset and at most microseconds, or declare the column DATE";
    let cells =
        "write one cell for each name of the header; a cell with a comma stands in double quotes";
    let quote = "close the quote in this cell; a quote within a quoted cell is written twice";
    for (rows, at, message, hint) in [
        (
            "m,0.1,1,,,\n,1,1,,,",
            "3: rate table `rates`, column `model`",
            "empty, but the column is NOT NULL",
            "write a value, or take NOT NULL from the column",
        ),
        (
            "m,0.0000000000000000001,,,,",
            "2: rate table `rates`, column `rate`",
            "`0.0000000000000000001`: more than 18 digits after the point",
            "declare the column with more digits after the point, DECIMAL(38, 24), or write fewer",
        ),
        (
            "m,100000000000000000000,,,,",
            "2: rate table `rates`, column `rate`",
            "`100000000000000000000`: too large for DECIMAL(38, 18)",
            "declare the column DECIMAL(38, 18), or write a smaller number",
        ),
        (
            "m, 0.1,,,,",
            "2: rate table `rates`, column `rate`",
            "` 0.1`: not a decimal number",
            number,
        ),
        (
            "m,$0.1,,,,",
            "2: rate table `rates`, column `rate`",
            "`$0.1`: not a decimal number",
            number,
        ),
        (
            "m,,1.0,,,",
            "2: rate table `rates`, column `free`",
            "`1.0`: not a whole number of 64 bits",
            whole,
        ),
        (
            "m,,9223372036854775808,,,",
            "2: rate table `rates`, column `free`",
            "`9223372036854775808`: not a whole number of 64 bits",
            whole,
        ),
        (
            "m,,,yes,,",
            "2: rate table `rates`, column `active`",
            "`yes`: neither `true` nor `false`",
            "write `true`, `false`, or nothing for NULL",
        ),
        (
            "m,,,,2026-10-01,",
            "2: rate table `rates`, column `valid_from`",
            "`2026-10-01`: not an instant such as 2026-10-01T00:00:00Z",
            instant,
        ),
        (
            "m,,,,2026-10-01T00:00:00.0000001Z,",
            "2: rate table `rates`, column `valid_from`",
            "`2026-10-01T00:00:00.0000001Z`: finer than a microsecond",
            instant,
        ),
        (
            "m,,,,,2026-02-30",
            "2: rate table `rates`, column `day`",
            "`2026-02-30`: not a date such as 2026-10-01",
            "write the year, the month and the day, with a `-` between them",
        ),
        (
            "m,,,,",
            "2: rate table `rates`, column `day`",
            "the row has 5 cells, the header 6",
            cells,
        ),
        (
            "m,,,,,,",
            "2: rate table `rates`, column `day`",
            "the row has 7 cells, the header 6",
            cells,
        ),
        (
            "m,,,,,\n\n\nn,x,,,,",
            "5: rate table `rates`, column `rate`",
            "`x`: not a decimal number",
            number,
        ),
        (
            "\"m,,,,,\nn,,,,,\n",
            "2: rate table `rates`, column `model`",
            "a line break in the cell: is a closing quote missing?",
            quote,
        ),
        (
            "m,,,,,\"\nn,,,,,\n",
            "2: rate table `rates`, column `day`",
            "a line break in the cell: is a closing quote missing?",
            quote,
        ),
    ] {
        assert_eq!(
            csv_refusal(rows),
            format!("rates.csv:{at}: {message}\n  hint: {hint}"),
            "{rows}"
        );
    }
}

#[test]
fn lines_end_as_on_any_system() {
    let header = HEADER.trim_end();
    for end in ["\n", "\r\n"] {
        let text = [header, "m,,,,,", "", "n,,,,,", "o,x,,,,", ""].join(end);
        let message = rates()
            .read_csv("rates.csv", text.as_bytes())
            .unwrap_err()
            .to_string();
        assert_eq!(
            message.lines().next().unwrap(),
            "rates.csv:5: rate table `rates`, column `rate`: `x`: not a decimal number",
            "{end:?}"
        );
    }
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    let mut bytes = HEADER.as_bytes().to_vec();
    bytes.extend(b"\xff,,,,,\n");
    assert_eq!(
        rates()
            .read_csv("rates.csv", &bytes)
            .unwrap_err()
            .to_string(),
        "rates.csv:2: rate table `rates`, column `model`: not UTF-8\n  hint: save the file as UTF-8"
    );
}

#[test]
fn a_header_must_have_every_column_once() {
    for (header, problem, hint) in [
        (
            "model,Rate\n",
            "column `rate`: not in the header",
            "name it there as it is declared, in lower case; did you mean `Rate`? known columns of the file: `model`, `Rate`",
        ),
        (
            "",
            "column `model`: not in the header",
            "name it there as it is declared, in lower case; known columns of the file: none",
        ),
        (
            "gpt-4,0.01,,,,\n",
            "column `model`: not in the header",
            "name it there as it is declared, in lower case; known columns of the file: `gpt-4`, `0.01`, ``, ``, ``, ``",
        ),
        (
            "model,model\n",
            "column `model`: twice in the header",
            "remove or rename one of the two",
        ),
        (
            "model;rate;free;active;valid_from;day\n",
            "column `model`: not in the header",
            "the cells of `model;rate;free;active;valid_from;day` are not separated by commas: save the file as \
             comma-separated values",
        ),
    ] {
        let refusal = rates()
            .read_csv("rates.csv", header.as_bytes())
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("rates.csv:1: rate table `rates`, {problem}\n  hint: {hint}")
        );
    }
}

#[test]
fn refusals_are_for_a_person_to_change() {
    let error: Error = read("CREATE").unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Invalid);
}

fn keyed(columns: &str) -> Result<RateTable> {
    let text = format!("CREATE RATE TABLE rates ({columns}) WITH (location = 'rates.csv')");
    Ok(read(&text)?.rate_tables.remove(0))
}

#[test]
fn a_rate_table_may_have_a_key() {
    for (columns, key) in [
        ("model VARCHAR PRIMARY KEY, rate BIGINT", vec!["model"]),
        (
            "model VARCHAR NOT NULL PRIMARY KEY, rate BIGINT",
            vec!["model"],
        ),
        (
            "model VARCHAR, region VARCHAR, primary key (model, region)",
            vec!["model", "region"],
        ),
        ("PRIMARY KEY (period), period DATE", vec!["period"]),
        ("primary VARCHAR, rate BIGINT", vec![]),
    ] {
        let table = keyed(columns).unwrap();
        assert_eq!(table.key, key);
        // No value of a key is missing.
        let is_key = |column: &Column| table.key.contains(&column.name);
        assert!(
            table
                .columns
                .iter()
                .all(|column| column.nullable != is_key(column))
        );
    }
    for (columns, refusal) in [
        (
            "model VARCHAR PRIMARY KEY, PRIMARY KEY (model)",
            "a.sql:1:53: rate table `rates`: it has two primary keys\n  hint: a key of several columns is one: PRIMARY KEY (model, region)",
        ),
        (
            "model VARCHAR, PRIMARY KEY (modell)",
            "a.sql:1:54: rate table `rates`: PRIMARY KEY: there is no column `modell`\n  hint: did you mean `model`? known columns: `model`",
        ),
        (
            "model VARCHAR, PRIMARY KEY (model, model)",
            "a.sql:1:61: rate table `rates`: PRIMARY KEY: column `model` is in it twice\n  hint: name each column once",
        ),
        (
            "model VARCHAR, a DATE, b DATE, PRIMARY KEY (PERIOD a, b, model)",
            "a.sql:1:81: rate table `rates`: expected `)`, found `,`\n  hint: a period is the last of a key and names two columns: PRIMARY KEY (model, PERIOD valid_from, valid_to)",
        ),
        (
            "model VARCHAR, a DATE, b DATE, PRIMARY KEY (model, PERIOD a)",
            "a.sql:1:85: rate table `rates`: expected `,`, found `)`\n  hint: a period is the last of a key and names two columns: PRIMARY KEY (model, PERIOD valid_from, valid_to)",
        ),
        (
            "model VARCHAR, a DATE, b DATE, PRIMARY KEY (model, PERIOD a, a)",
            "a.sql:1:87: rate table `rates`: PRIMARY KEY: column `a` is in it twice\n  hint: a period is the last of a key and names two columns: PRIMARY KEY (model, PERIOD valid_from, valid_to)",
        ),
        (
            "model VARCHAR, a DATE, b DATE, PRIMARY KEY (a, PERIOD a, b)",
            "a.sql:1:80: rate table `rates`: PRIMARY KEY: column `a` is in it twice\n  hint: name each column once",
        ),
        (
            "model VARCHAR, a DATE, b DATE, PRIMARY KEY (model, PERIOD a, c)",
            "a.sql:1:87: rate table `rates`: PRIMARY KEY: there is no column `c`\n  hint: known columns: `model`, `a`, `b`",
        ),
        (
            "model VARCHAR, a BIGINT, b BIGINT, PRIMARY KEY (model, PERIOD a, b)",
            "a.sql:1:88: rate table `rates`: PRIMARY KEY: `a` of the PERIOD is BIGINT\n  hint: declare both columns of a period DATE, or both TIMESTAMP",
        ),
        (
            "model VARCHAR, a DATE, b TIMESTAMP, PRIMARY KEY (model, PERIOD a, b)",
            "a.sql:1:92: rate table `rates`: PRIMARY KEY: `a` of the PERIOD is DATE and `b` is TIMESTAMP\n  hint: declare both columns of a period DATE, or both TIMESTAMP",
        ),
        (
            "model VARCHAR PRIMARY KEY, a DATE, b DATE, PRIMARY KEY (PERIOD a, b)",
            "a.sql:1:69: rate table `rates`: it has two primary keys\n  hint: a key of several columns is one: PRIMARY KEY (model, region)",
        ),
    ] {
        assert_eq!(keyed(columns).unwrap_err().to_string(), refusal);
    }
}

#[test]
fn two_rows_with_one_key_are_refused_with_both_lines() {
    let table =
        keyed("model VARCHAR, since DECIMAL(4, 2), rate BIGINT, PRIMARY KEY (model, since)")
            .unwrap();
    let read =
        |rows: &str| table.read_csv("rates.csv", format!("model,since,rate\n{rows}").as_bytes());
    assert_eq!(read("a,1,5\na,2,5\nb,1,5\n").unwrap().num_rows(), 3);
    assert_eq!(
        read("a,1,5\nb,1.0,6\n\na,1.00,7\n")
            .unwrap_err()
            .to_string(),
        "rates.csv:5: rate table `rates`, column `model, since`: `a`, `1.00` is the key of line 2 already: a table has one row for each key\n  hint: keep one of the rows; rates that change with time have a key such as PRIMARY KEY (model, PERIOD valid_from, valid_to)"
    );
    assert_eq!(
        read("a,,5\n").unwrap_err().to_string(),
        "rates.csv:2: rate table `rates`, column `since`: empty, but the column is NOT NULL\n  hint: write a value: a column of the key has one in each row"
    );
}

#[test]
fn periods_of_one_key_do_not_overlap() {
    let dates =
        keyed("model VARCHAR, a DATE, b DATE, rate BIGINT, PRIMARY KEY (model, PERIOD a, b)")
            .unwrap();
    assert_eq!(dates.key, ["model"]);
    let period = dates.period.as_ref().unwrap();
    assert_eq!((period.from.as_str(), period.to.as_str()), ("a", "b"));
    let nullable: Vec<bool> = dates.columns.iter().map(|column| column.nullable).collect();
    assert_eq!(nullable, [false, false, true, true]);
    let read = |rows: &str| {
        let rows = dates.read_csv("rates.csv", format!("model,a,b,rate\n{rows}").as_bytes());
        rows.map(|rows| rows.num_rows())
            .map_err(|error| error.to_string())
    };
    // One ends where the next begins; other keys are by themselves; the order of rows says nothing.
    let fit =
        "m,2026-03-01,,3\nm,2026-01-01,2026-02-01,1\nm,2026-02-01,2026-03-01,2\nn,2026-01-15,,9\n";
    assert_eq!(read(fit), Ok(4));
    // A gap is no overlap: a price says what it means.
    assert_eq!(read("m,2026-01-01,2026-02-01,1\nm,2026-06-01,,2\n"), Ok(2));
    let overlap =
        "end the earlier period where the later one begins: `b` is the first day after a period";
    let empty = "`b` is the first day after the period: write a later one, or nothing where the row applies until further notice";
    for (rows, at, message, hint) in [
        (
            "m,2026-01-01,2026-02-02,1\nm,2026-02-01,2026-03-01,2\n",
            "3: rate table `rates`, column `a, b`",
            "`m` from 2026-02-01 to 2026-03-01 overlaps line 2, from 2026-01-01 to 2026-02-02: at each time one row of a key applies",
            overlap,
        ),
        (
            "m,2026-01-01,,1\nn,2026-01-01,,1\n\nm,2026-05-01,,2\n",
            "5: rate table `rates`, column `a, b`",
            "`m` from 2026-05-01 without end overlaps line 2, from 2026-01-01 without end: at each time one row of a key applies",
            overlap,
        ),
        // Within another one, with a row between them in the file.
        (
            "m,2026-01-01,2027-01-01,1\nm,2027-01-01,,2\nm,2026-05-01,2026-06-01,3\n",
            "4: rate table `rates`, column `a, b`",
            "`m` from 2026-05-01 to 2026-06-01 overlaps line 2, from 2026-01-01 to 2027-01-01: at each time one row of a key applies",
            overlap,
        ),
        (
            "m,2026-01-01,,1\nm,2026-01-01,,1\n",
            "3: rate table `rates`, column `a, b`",
            "`m` from 2026-01-01 without end overlaps line 2, from 2026-01-01 without end: at each time one row of a key applies",
            overlap,
        ),
        (
            "m,2026-02-01,2026-02-01,1\n",
            "2: rate table `rates`, column `b`",
            "from 2026-02-01 to 2026-02-01 is no time at all",
            empty,
        ),
        (
            "m,2026-02-01,2026-01-01,1\n",
            "2: rate table `rates`, column `b`",
            "from 2026-02-01 to 2026-01-01 is no time at all",
            empty,
        ),
        (
            "m,2026-02-01,9999-12-31,1\n",
            "2: rate table `rates`, column `b`",
            "9999-12-31 is not a day that can be compared with instants, which end on 2262-04-11",
            "leave it empty where the row applies until further notice",
        ),
        (
            "m,0001-01-01,2026-01-01,1\n",
            "2: rate table `rates`, column `a`",
            "0001-01-01 is not a day that can be compared with instants, which begin on 1677-09-22",
            "write a later day; 1970-01-01 is before all usage",
        ),
        (
            "m,,2026-01-01,1\n",
            "2: rate table `rates`, column `a`",
            "empty, but the column is NOT NULL",
            "write when the row begins to apply; 1970-01-01 is before all usage",
        ),
    ] {
        assert_eq!(
            read(rows),
            Err(format!("rates.csv:{at}: {message}\n  hint: {hint}")),
            "{rows}"
        );
    }
    // To the microsecond, and with no other column in the key.
    let instants = keyed("a TIMESTAMP, b TIMESTAMP, PRIMARY KEY (PERIOD a, b)").unwrap();
    let read = |rows: &str| {
        let rows = instants.read_csv("rates.csv", format!("a,b\n{rows}").as_bytes());
        rows.map(|rows| rows.num_rows())
            .map_err(|error| error.to_string())
    };
    let rows = |end: &str| {
        format!("2026-01-01T00:00:00Z,2026-01-01T12:00:00.{end}Z\n2026-01-01T12:00:00Z,\n")
    };
    assert_eq!(read(&rows("000000")), Ok(2));
    assert_eq!(
        read(&rows("000001")),
        Err("rates.csv:3: rate table `rates`, column `a, b`: from 2026-01-01T12:00:00Z without end overlaps line 2, from \
             2026-01-01T00:00:00Z to 2026-01-01T12:00:00.000001Z: at each time one row of a key applies\n  hint: end the \
             earlier period where the later one begins: `b` is the first instant after a period"
            .to_owned())
    );
}

/// The rows of a table from columns as other tools write them.
fn from_columns(table: &RateTable, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, String> {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let rows = table.read_columns("rates.parquet", &rows);
    rows.map_err(|error| error.to_string())
}

#[test]
fn columns_of_a_file_are_taken_exactly_and_are_the_same_rows_as_its_csv() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("note", Arc::new(Float64Array::from(vec![0.5, 1.5]))),
        ("day", Arc::new(Date32Array::from(vec![Some(1), None]))),
        (
            "model",
            Arc::new(LargeStringArray::from(vec!["gpt", "claude"])),
        ),
        (
            "rate",
            Arc::new(
                Decimal128Array::from(vec![Some(150), None])
                    .with_precision_and_scale(9, 9)
                    .unwrap(),
            ),
        ),
        ("free", Arc::new(Int8Array::from(vec![Some(-3), None]))),
        (
            "active",
            Arc::new(BooleanArray::from(vec![Some(true), None])),
        ),
        (
            "valid_from",
            Arc::new(
                TimestampNanosecondArray::from(vec![Some(1_000), None])
                    .with_timezone("Europe/Berlin"),
            ),
        ),
    ];
    let csv = csv("gpt,0.00000015,-3,true,1970-01-01T00:00:00.000001Z,1970-01-02\nclaude,,,,,\n")
        .unwrap();
    assert_eq!(from_columns(&rates(), columns), Ok(csv));
}

#[test]
fn a_column_that_is_not_exact_or_does_not_fit_is_refused() {
    let table =
        keyed("model VARCHAR NOT NULL, rate DECIMAL(9, 2), free BIGINT, at TIMESTAMP").unwrap();
    let with = |name: &str, column: ArrayRef| {
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("model", Arc::new(StringArray::from(vec!["m", "n"]))),
            ("rate", Arc::new(Int64Array::from(vec![1, 2]))),
            ("free", Arc::new(Int64Array::from(vec![1, 2]))),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![1, 2]).with_timezone("UTC")),
            ),
        ];
        columns
            .iter_mut()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1 = column;
        from_columns(&table, columns).unwrap_err()
    };
    let decimals = |values: Vec<i128>, precision, scale| -> ArrayRef {
        let array = Decimal128Array::from(values);
        Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
    };
    for (name, column, message) in [
        (
            "rate",
            Arc::new(Float64Array::from(vec![0.25, 0.5])) as ArrayRef,
            "rates.parquet: rate table `rates`, column `rate`: Float64 in the file, which is not exact; the column is \
             DECIMAL(9, 2)\n  hint: write it as DECIMAL, in DuckDB with `CAST(rate AS DECIMAL(38, 12))`",
        ),
        (
            "rate",
            Arc::new(StringArray::from(vec!["0.25", "0.5"])),
            "rates.parquet: rate table `rates`, column `rate`: Utf8 in the file; the column is DECIMAL(9, 2)\n  hint: write \
             it as DECIMAL(9, 2), or declare the column as what it is",
        ),
        (
            "rate",
            decimals(vec![1_000, 1_005], 9, 3),
            "rates.parquet, row 2: rate table `rates`, column `rate`: `1.005`: more than 2 digits after the point\n  hint: \
             declare the column with more digits after the point, DECIMAL(38, 8), or write fewer",
        ),
        (
            "rate",
            decimals(vec![999_999_999, 1_000_000_000], 18, 2),
            "rates.parquet, row 2: rate table `rates`, column `rate`: `10000000`: too large for DECIMAL(9, 2)\n  hint: \
             declare the column DECIMAL(38, 2), or write a smaller number",
        ),
        (
            "free",
            Arc::new(UInt64Array::from(vec![1, 1 << 63])),
            "rates.parquet, row 2: rate table `rates`, column `free`: `9223372036854775808`: not a whole number of 64 bits\n  \
             hint: write whole numbers of 64 bits, or declare the column DECIMAL(p, s)",
        ),
        (
            "free",
            decimals(vec![10, 15], 9, 1),
            "rates.parquet, row 2: rate table `rates`, column `free`: `1.5`: not a whole number of 64 bits\n  hint: write \
             whole numbers of 64 bits, or declare the column DECIMAL(p, s)",
        ),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![1, 2])),
            "rates.parquet: rate table `rates`, column `at`: a time without a zone in the file; the column is TIMESTAMP\n  \
             hint: write instants: TIMESTAMP WITH TIME ZONE in DuckDB, a time zone in pandas or Arrow",
        ),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001]).with_timezone("UTC")),
            "rates.parquet, row 2: rate table `rates`, column `at`: finer than a microsecond\n  hint: write TIMESTAMP of \
             microseconds",
        ),
        (
            "model",
            Arc::new(StringArray::from(vec![Some("m"), None])),
            "rates.parquet, row 2: rate table `rates`, column `model`: NULL, but the column is NOT NULL\n  hint: write a \
             value, or take NOT NULL from the column",
        ),
    ] {
        assert_eq!(with(name, column), message);
    }
    let lacks: Vec<(&str, ArrayRef)> = vec![("modell", Arc::new(StringArray::from(vec!["m"])))];
    assert_eq!(
        from_columns(&table, lacks).unwrap_err(),
        "rates.parquet: rate table `rates`, column `model`: not in the file\n  hint: name it there as it is declared, in \
         lower case; did you mean `modell`? known columns of the file: `modell`"
    );
    let twice = keyed("model VARCHAR PRIMARY KEY").unwrap();
    let rows: Vec<(&str, ArrayRef)> =
        vec![("model", Arc::new(StringArray::from(vec!["a", "b", "a"])))];
    assert_eq!(
        from_columns(&twice, rows).unwrap_err(),
        "rates.parquet, row 3: rate table `rates`, column `model`: `a` is the key of row 1 already: a table has one row for \
         each key\n  hint: keep one of the rows; rates that change with time have a key such as PRIMARY KEY (model, PERIOD \
         valid_from, valid_to)"
    );
}

#[test]
fn a_column_with_capitals_says_which_key_it_reads() {
    let columns = |columns: &str| {
        read(&format!(
            "CREATE EVENT TYPE u ({columns}) WITH (type = 'u')"
        ))
        .unwrap()
    };
    for clear in [
        "inputtokens BIGINT",
        "inputTokens BIGINT OPTIONS (path = '$.inputTokens')",
        "inputTokens BIGINT OPTIONS (path = '$.inputtokens')",
        "\"inputtokens\" BIGINT",
    ] {
        columns(clear).check_paths(|_, _| false).unwrap();
    }
    for (unclear, written) in [
        ("inputTokens BIGINT", "inputTokens"),
        (
            "inputTokens BIGINT NOT NULL OPTIONS (strings = 'true')",
            "inputTokens",
        ),
        ("INPUTTOKENS BIGINT", "INPUTTOKENS"),
    ] {
        let definitions = columns(unclear);
        let refusal = definitions.check_paths(|_, _| false).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!(
                "a.sql:1:22: event type `u`: column `{written}` would read `$.inputtokens`, since SQL folds names and JSON \
                 does not\n  hint: say which key is meant: OPTIONS (path = '$.{written}') or OPTIONS (path = '$.inputtokens')"
            )
        );
        // A lake that has the column goes on with it.
        assert_eq!(
            definitions.event_types[0].columns[0].path_text(),
            "$.inputtokens"
        );
        definitions
            .check_paths(|event_type, column| (event_type, column) == ("u", "inputtokens"))
            .unwrap();
    }
}

#[test]
fn a_currency_of_ones_own_has_digits_and_a_worth_in_a_plan() {
    let credits = "CREATE CURRENCY credits WITH (digits = 2);";
    let price = "CREATE PRICE p WITH (currency = 'credits') AS SELECT 1;";
    let plan = "CREATE PLAN pro WITH (currency = 'USD', worth = '1 credits = 0.0125 USD') AS (p);";
    let all = read(&format!("{plan} {price} {credits}")).unwrap();
    assert_eq!(
        (all.currencies[0].name.as_str(), all.currencies[0].digits),
        ("credits", 2)
    );
    assert_eq!(all.prices[0].currency, "credits");
    let worth = |currency: &str| {
        all.plans[0]
            .worth_of(currency)
            .map(|worth| worth.to_string())
    };
    assert_eq!(worth("credits").as_deref(), Some("0.0125"));
    assert_eq!((worth("USD").as_deref(), worth("EUR")), (Some("1"), None));
    // A number may stand in quotes; a plan may take several currencies.
    read(
        "CREATE CURRENCY a WITH (digits = '0'); CREATE CURRENCY b WITH (digits = 18);
          CREATE PLAN p WITH (currency = 'JPY', worth = '1 a = 3 JPY, 1  b  =  0.5  JPY') AS ();",
    )
    .unwrap();

    for (text, refusal) in [
        (
            "CREATE CURRENCY credits WITH (digits = 19);".to_owned(),
            "a.sql:1:40: currency `credits`: option `digits`: `19` is not a whole number from 0 to 18\n  hint: write how many digits \
             after the point people see of an amount: digits = 2",
        ),
        (
            "CREATE CURRENCY credits WITH (digits = 1.5);".to_owned(),
            "a.sql:1:40: currency `credits`: option `digits`: `1.5` is not a whole number from 0 to 18\n  hint: write how many \
             digits after the point people see of an amount: digits = 2",
        ),
        (
            "CREATE CURRENCY usd WITH (digits = 2);".to_owned(),
            "a.sql:1:17: currency `usd`: `USD` is a currency of ISO 4217\n  hint: name it in lower case and unlike the currencies of \
             ISO 4217: credits",
        ),
        (
            format!("{credits} {credits}"),
            "a.sql:1:60: currency `credits` is already defined at a.sql:1:17\n  hint: rename one of them, or write CREATE OR REPLACE \
             CURRENCY for a later version",
        ),
        (
            format!("{credits} CREATE PRICE p WITH (currency = 'credit') AS SELECT 1;"),
            "a.sql:1:76: price `p`: there is no currency `credit`\n  hint: did you mean `credits`? known currencies: `credits`; write \
             one of ISO 4217 as 'USD', or CREATE CURRENCY credit WITH (digits = 2)",
        ),
        (
            format!("{credits} {price} CREATE PLAN pro WITH (currency = 'USD') AS (p);"),
            "a.sql:1:144: plan `pro`: price `p` is in credits, and the plan does not say what one is worth\n  hint: add it to the plan: \
             WITH (currency = 'USD', worth = '1 credits = 0.01 USD')",
        ),
        (
            "CREATE PLAN pro WITH (currency = 'USD', worth = '1 credits = 0.01 USD') AS ();"
                .to_owned(),
            "a.sql:1:49: plan `pro`: there is no currency `credits`\n  hint: known currencies: none; write one of ISO 4217 as 'USD', or \
             CREATE CURRENCY credits WITH (digits = 2)",
        ),
    ] {
        assert_eq!(read(&text).unwrap_err().to_string(), refusal);
    }
    for (worth, problem) in [
        (
            "credits = 0.01 USD",
            "`credits = 0.01 USD` does not say what one is worth",
        ),
        (
            "100 credits = 1 USD",
            "`100 credits = 1 USD` does not say what one is worth",
        ),
        (
            "1 credits = 0.01 EUR",
            "`EUR` is not the plan's currency, USD",
        ),
        (
            "1 credits = 1c USD",
            "`1c` is not a number: only digits, one sign and one point are allowed",
        ),
        ("1 credits = 0 USD", "0 is not above zero"),
        (
            "1 credits = 1 USD, 1 credits = 2 USD",
            "`credits` is in it twice",
        ),
    ] {
        let text =
            format!("{credits} CREATE PLAN pro WITH (currency = 'USD', worth = '{worth}') AS ();");
        assert_eq!(
            read(&text).unwrap_err().to_string(),
            format!(
                "a.sql:1:92: plan `pro`: option `worth`: {problem}\n  hint: write '1 credits = 0.01 USD', several with commas"
            )
        );
    }
}
