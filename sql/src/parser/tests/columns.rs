//! Lists, defaults, numbers in quotes and checks: what is read, and what is refused.

use super::*;
use crate::definitions::EventType;
use arrow::datatypes::DataType;

fn event_type(columns: &str) -> EventType {
    let file = SourceFile {
        name: "f".to_owned(),
        text: format!("CREATE EVENT TYPE t ({columns}) WITH (type = 't')"),
    };
    Definitions::parse(&[file]).unwrap().event_types.remove(0)
}

/// Refused within the columns, which start at column 22.
#[track_caller]
fn refused_columns(columns: &str, first: &str, hint: &str) {
    let text = format!("CREATE EVENT TYPE t ({columns}) WITH (type = 't')");
    refused(&text, first, hint);
}

#[test]
fn a_list_is_written_in_two_ways() {
    let read = event_type("a VARCHAR[], b LIST(DECIMAL(5, 2)) NOT NULL, c DATE []");
    let element = |index: usize| match &read.columns[index].data_type {
        DataType::List(element) => element.data_type().clone(),
        other => panic!("{other}"),
    };
    assert_eq!(element(0), DataType::Utf8);
    assert_eq!(element(1), DataType::Decimal128(5, 2));
    assert_eq!(element(2), DataType::Date32);
    assert!(read.columns[0].nullable && !read.columns[1].nullable);
}

#[test]
fn a_list_holds_plain_values_and_is_in_no_rate_table() {
    let shape = "a list is `VARCHAR[]` or `LIST(VARCHAR)`, of any length";
    refused_columns(
        "a VARCHAR[3]",
        "1:32: event type `t`: expected `]`, found `3`",
        shape,
    );
    refused_columns(
        "a LIST VARCHAR",
        "1:29: event type `t`: expected `(`, found `VARCHAR`",
        shape,
    );
    refused_columns(
        "a VARCHAR[][]",
        "1:33: event type `t`: column `a`: a list of lists",
        "a list holds values of one plain type: VARCHAR[], BIGINT[], …",
    );
    refused(
        "CREATE RATE TABLE r (a BIGINT[]) WITH (location = 'r.csv')",
        "1:24: rate table `r`: column `a`: a rate table has no lists",
        "a cell of a CSV file is one value: give each its own column or row",
    );
}

#[test]
fn a_default_is_carried_as_json() {
    for (column, json) in [
        ("VARCHAR DEFAULT 'it''s \"so\"'", r#""it's \"so\"""#),
        ("VARCHAR NOT NULL DEFAULT ''", r#""""#),
        ("BOOLEAN DEFAULT TRUE", "true"),
        ("BOOLEAN DEFAULT false", "false"),
        (
            "BIGINT DEFAULT -9223372036854775808",
            "-9223372036854775808",
        ),
        ("BIGINT DEFAULT 007", "7"),
        ("DECIMAL(5, 2) DEFAULT 12.5", "1250e-2"),
        ("DECIMAL(5, 2) DEFAULT -.50", "-50e-2"),
        ("DATE DEFAULT '2026-02-28'", r#""2026-02-28""#),
        (
            "TIMESTAMP DEFAULT '2026-02-28T01:00:00.5+01:00'",
            r#""2026-02-28T00:00:00.5Z""#,
        ),
        ("BIGINT[] DEFAULT [1, -2]", "[1,-2]"),
        ("VARCHAR[] DEFAULT []", "[]"),
    ] {
        let read = event_type(&format!("a {column}"));
        assert_eq!(read.columns[0].default.as_deref(), Some(json), "{column}");
    }
}

#[test]
fn a_default_is_a_value_of_its_column() {
    let bigint = "write a whole number of 64 bits, such as DEFAULT 0; without DEFAULT a missing value is NULL";
    for (literal, shown) in [
        ("'x'", "`'x'`"),
        ("1.0", "`1.0`"),
        ("9223372036854775808", "`9223372036854775808`"),
        ("-'1'", "`-'1'`"),
        ("NULL", "`NULL`"),
        ("now()", "`now`"),
        (")", "`)`"),
    ] {
        refused_columns(
            &format!("a BIGINT DEFAULT {literal}"),
            &format!("1:39: event type `t`: column `a`: DEFAULT {shown} is not a value of BIGINT"),
            bigint,
        );
    }
    let decimal = "write a number of at most 5 digits, 2 of them after the point, such as DEFAULT 0; without DEFAULT a missing value is NULL";
    for literal in ["1000", "0.001", "'1'"] {
        refused_columns(
            &format!("a DECIMAL(5, 2) DEFAULT {literal}"),
            &format!(
                "1:46: event type `t`: column `a`: DEFAULT `{literal}` is not a value of DECIMAL(5, 2)"
            ),
            decimal,
        );
    }
    refused_columns(
        "a VARCHAR DEFAULT 5",
        "1:40: event type `t`: column `a`: DEFAULT `5` is not a value of VARCHAR",
        "write a string, such as DEFAULT 'none'; without DEFAULT a missing value is NULL",
    );
    refused_columns(
        "a BOOLEAN DEFAULT 'true'",
        "1:40: event type `t`: column `a`: DEFAULT `'true'` is not a value of BOOLEAN",
        "write DEFAULT TRUE or DEFAULT FALSE; without DEFAULT a missing value is NULL",
    );
    refused_columns(
        "a DATE DEFAULT '2026-02-29'",
        "1:37: event type `t`: column `a`: DEFAULT `'2026-02-29'` is not a value of DATE",
        "write a date, such as DEFAULT '2026-01-31'; without DEFAULT a missing value is NULL",
    );
    refused_columns(
        "a TIMESTAMP DEFAULT '2026-02-28'",
        "1:42: event type `t`: column `a`: DEFAULT `'2026-02-28'` is not a value of TIMESTAMP",
        "write an instant, such as DEFAULT '2026-01-31T00:00:00Z'; without DEFAULT a missing value is NULL",
    );
    refused_columns(
        "a BIGINT[] DEFAULT 1",
        "1:41: event type `t`: column `a`: DEFAULT `1` is not a value of BIGINT[]",
        "write a list of literals, such as DEFAULT []; without DEFAULT a missing value is NULL",
    );
    refused_columns(
        "a BIGINT[] DEFAULT [1, 'x']",
        "1:45: event type `t`: column `a`: DEFAULT `'x'` is not a value of BIGINT",
        bigint,
    );
    refused_columns(
        "a BIGINT DEFAULT 1 DEFAULT 2",
        "1:41: event type `t`: column `a` has two defaults",
        "keep one of them",
    );
}

#[test]
fn numbers_in_quotes_are_for_numbers() {
    let read = event_type(
        "a BIGINT OPTIONS (strings = 'true'), b DECIMAL(5, 2)[] OPTIONS (path = '$.x', strings = 'true'),
         c BIGINT OPTIONS (strings = 'false')",
    );
    let strings: Vec<bool> = read.columns.iter().map(|column| column.strings).collect();
    assert_eq!(strings, [true, true, false]);
    let hint = "leave it out: it lets BIGINT and DECIMAL columns, and lists of them, take numbers in quotes";
    refused_columns(
        "a VARCHAR OPTIONS (strings = 'true')",
        "1:51: event type `t`: column `a`: option `strings` is for numbers, not for VARCHAR",
        hint,
    );
    refused_columns(
        "a DATE[] OPTIONS (strings = 'true')",
        "1:50: event type `t`: column `a`: option `strings` is for numbers, not for DATE[]",
        hint,
    );
    refused_columns(
        "a BIGINT OPTIONS (strings = 'yes')",
        "1:50: event type `t`: option `strings`: `yes` is neither true nor false",
        "write strings = 'true' or leave it out",
    );
}

#[test]
fn checks_keep_their_text_and_place() {
    let read = event_type(
        "CHECK (a > 0), a BIGINT CHECK ( a < (1 + 2) ) NOT NULL,\n CONSTRAINT big CHECK (a\n <> 2)",
    );
    let checks: Vec<_> = read
        .checks
        .iter()
        .map(|check| {
            let (line, column) = (check.at.line, check.at.column);
            (
                check.name.as_deref(),
                check.expression.as_str(),
                line,
                column,
            )
        })
        .collect();
    assert_eq!(
        checks,
        [
            (None, "a > 0", 1, 29),
            (None, "a < (1 + 2)", 1, 54),
            (Some("big"), "a\n <> 2", 2, 24),
        ]
    );
    assert!(!read.columns[0].nullable);
}

#[test]
fn a_check_is_one_expression_in_parentheses() {
    let shape =
        "a check is `[CONSTRAINT name] CHECK (expression)`; a column of that name needs quotes";
    refused_columns(
        "check BIGINT",
        "1:28: event type `t`: expected `(`, found `BIGINT`",
        shape,
    );
    refused_columns(
        "a BIGINT, CONSTRAINT c a > 0",
        "1:45: event type `t`: expected CHECK, found `a`",
        shape,
    );
    refused_columns(
        "a BIGINT CHECK (a >)",
        "1:41: event type `t`: expected an expression, found the end",
        shape,
    );
    refused_columns(
        "a BIGINT CHECK (a > 0, a < 5)",
        "1:43: event type `t`: expected the end of the expression, found ,",
        shape,
    );
    refused(
        "CREATE EVENT TYPE t (a BIGINT CHECK (a > 0",
        "1:37: event type `t`: `(` is never closed",
        shape,
    );
    refused_columns(
        "a BIGINT CONSTRAINT c CHECK (a > 0), CONSTRAINT c CHECK (a < 5)",
        "1:70: event type `t`: constraint `c` is declared twice",
        "rename one of them",
    );
    refused_first(
        "CREATE EVENT TYPE t (CHECK (1 > 0)) WITH (type = 't')",
        "1:37: event type `t`: it has checks and no column",
    );
}

#[test]
fn a_rate_table_has_neither_defaults_nor_checks() {
    let hint = "a column is `name TYPE [NOT NULL | PRIMARY KEY]`; separate columns with `,` and end with `)`";
    refused(
        "CREATE RATE TABLE r (a BIGINT DEFAULT 1) WITH (location = 'r.csv')",
        "1:31: rate table `r`: unexpected `DEFAULT` after column `a`",
        hint,
    );
    refused(
        "CREATE RATE TABLE r (a BIGINT CHECK (a > 0)) WITH (location = 'r.csv')",
        "1:31: rate table `r`: unexpected `CHECK` after column `a`",
        hint,
    );
}
