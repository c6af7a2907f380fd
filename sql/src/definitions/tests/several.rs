//! All that is wrong in several files at once, and nothing of what only needs it.

use super::file;
use crate::definitions::{Checked, Definitions};

/// The first line of each error, in order.
fn wrong(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = files.iter().map(|(name, text)| file(name, text)).collect();
    let Checked { errors, .. } = Definitions::check(&files);
    let texts = errors.iter().map(ToString::to_string);
    texts
        .map(|text| text.lines().next().unwrap().to_owned())
        .collect()
}

#[test]
fn each_statement_that_is_wrong_is_said_in_the_order_of_files_and_lines() {
    let usage = "CREATE EVENT TYPE call (a VARCHAR NOT NULL b DATE) WITH (type = 'call');
CREATE EVENT TYPE task (a BIGINT) WITH (type = 'task');
CREATE METER tasks WITH (window = '1 hour', lateness = '1 weeek') AS SELECT subject, SUM(a) AS a FROM task GROUP BY subject;
CREATE METER spare WITH (window = '1 hour') AS SELECT subject, SUM(a) AS a FROM tasc GROUP BY subject;
CREAT METER x;
CREATE METER late WITH (window = '1 hour') AS SELECT subject SUM(a) AS a FROM task GROUP BY subject";
    let prices =
        "CREATE PRICE a WITH (currency = 'USD') AS SELECT customer, a AS amount FROM takss;
CREATE PRICE b WITH (currency = 'USDD') AS SELECT customer, a AS amount FROM tasks;
CREATE PLAN p WITH (currency = 'USD') AS (a, b);";
    assert_eq!(
        wrong(&[("b.sql", usage), ("a.sql", prices)]),
        [
            "a.sql:2:33: price `b`: currency `USDD` is not an ISO 4217 code",
            "b.sql:1:44: event type `call`: a comma is missing before `b`",
            "b.sql:3:56: meter `tasks`: option `lateness`: `1 weeek` is not a duration",
            "b.sql:5:1: expected CREATE, found `CREAT`",
            "b.sql:6:62: meter `late`: a comma is missing before `SUM`",
        ]
    );
    // With every name read, names that there are not are said too.
    let usage = usage.replace("CREAT METER x;", "");
    assert_eq!(
        wrong(&[("b.sql", &usage), ("a.sql", prices)])[0],
        "a.sql:1:77: price `a`: there is no relation `takss`"
    );
}

#[test]
fn what_needs_a_wrong_definition_is_not_said_to_be_wrong() {
    let text = "CREATE EVENT TYPE call (a BIGINNT) WITH (type = 'call');
CREATE METER calls WITH (window = '1 hour') AS SELECT subject, SUM(a) AS a FROM call GROUP BY subject;
CREATE PRICE now WITH (currency = 'USD') AS SELECT customer, a AS amount FROM calls;
CREATE PRICE early WITH (currency = 'USD') AS SELECT customer, a AS amount FROM calls_windows;
CREATE PRICE base WITH (currency = 'USD') AS SELECT customer, 1 AS amount FROM subscription;
CREATE PLAN p WITH (currency = 'USD') AS (now, early, base);
CREATE PLAN q WITH (currency = 'USD') AS (base);";
    let checked = Definitions::check(&[file("f.sql", text)]);
    assert_eq!(
        wrong(&[("f.sql", text)]),
        ["f.sql:1:27: event type `call`: column `a`: BIGINNT is not a type"]
    );
    let Checked { definitions, .. } = &checked;
    assert!(definitions.event_types.is_empty() && definitions.meters.is_empty());
    let prices: Vec<&str> = definitions
        .prices
        .iter()
        .map(|price| price.name.as_str())
        .collect();
    assert_eq!(prices, ["base"]);
    let plans: Vec<&str> = definitions
        .plans
        .iter()
        .map(|plan| plan.name.as_str())
        .collect();
    assert_eq!(plans, ["q"]);
    assert!(checked.may_be_broken("p") && !checked.may_be_broken("q"));
}

#[test]
fn a_quote_that_is_not_closed_takes_its_own_statement_alone() {
    let text = "CREATE EVENT TYPE call (a BIGINT) WITH (type = 'call);
CREATE METER calls WITH (window = '1 hour') AS SELECT subject, SUM(a) AS a FROM call GROUP BY subject;
CREATE PRICE p WITH (currency = 'USD') AS SELECT customer, a AS amount FROM callz;";
    assert_eq!(
        wrong(&[("f.sql", text)]),
        [
            "f.sql:1:48: event type `call`: the quote that is opened here is not closed",
            "f.sql:3:77: price `p`: there is no relation `callz`"
        ]
    );
}

#[test]
fn an_event_type_is_found_by_the_type_of_its_events() {
    let text = "CREATE EVENT TYPE call (a BIGINT) WITH (type = 'llm.call');
CREATE METER calls WITH (window = '1 hour') AS SELECT subject, SUM(a) AS a FROM llm_cal GROUP BY subject";
    let error = Definitions::parse(&[file("f.sql", text)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "f.sql:2:81: meter `calls`: `llm_cal` is not an event type\n  hint: did you mean `call`, whose events have the type \
         `llm.call`? known event types: `call`"
    );
}
