//! Expressions without parentheses mean in a meter, a check, a price and a query what they mean in
//! PostgreSQL, whose precedences DuckDB has too.

use super::super::*;
use crate::{
    definitions::{Definitions, SourceFile},
    event_checks::EventChecks,
    meter::Meter,
    rating::rate,
};
use datafusion::arrow::{
    array::{Array, AsArray, RecordBatch, StringArray},
    compute::{cast, concat_batches},
    datatypes::{DataType, Schema},
};
use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

/// The tree that an expression is read as, with parentheses around each part.
async fn tree(expression: &str) -> Result<String> {
    let text = "SELECT CAST(1 AS BIGINT) AS a, CAST(2 AS BIGINT) AS b, CAST(3 AS BIGINT) AS c,
                       true AS p, true AS q, true AS r, 's' AS s, 'u' AS u";
    let context = context();
    let row = query(&context, text).await?.into_view();
    context.register_table("t", row)?;
    let state = context.state();
    let reads = |text: String| {
        let state = state.clone();
        async move { plan(&state, &format!("SELECT {text} AS x FROM t")).await }
    };
    Ok(reads(expression.to_owned()).await?.to_string())
}

#[tokio::test]
async fn an_expression_is_read_as_with_these_parentheses() {
    for (without, with) in [
        ("p IS DISTINCT FROM q AND r", "(p IS DISTINCT FROM q) AND r"),
        (
            "p IS NOT DISTINCT FROM q OR r",
            "(p IS NOT DISTINCT FROM q) OR r",
        ),
        ("a IS DISTINCT FROM b + c", "a IS DISTINCT FROM (b + c)"),
        ("p IS DISTINCT FROM a < b", "p IS DISTINCT FROM (a < b)"),
        ("a < b IS DISTINCT FROM p", "(a < b) IS DISTINCT FROM p"),
        (
            "NOT p IS DISTINCT FROM q AND r",
            "(NOT (p IS DISTINCT FROM q)) AND r",
        ),
        ("p = s LIKE u", "p = (s LIKE u)"),
        ("s LIKE u = p", "(s LIKE u) = p"),
        ("p <> a IN (1, 2)", "p <> (a IN (1, 2))"),
        ("p = a BETWEEN b AND c", "p = (a BETWEEN b AND c)"),
        ("a BETWEEN b AND c = p", "(a BETWEEN b AND c) = p"),
        ("p = s SIMILAR TO u", "p = (s SIMILAR TO u)"),
        ("p = s ~ u", "p = (s ~ u)"),
        ("s ~ u IS NOT TRUE", "(s ~ u) IS NOT TRUE"),
        ("s || u ~ s", "(s || u) ~ s"),
        ("s || a + b", "s || (a + b)"),
        ("a | b & c", "(a | b) & c"),
        ("a & b + c", "a & (b + c)"),
        ("a & b = c", "(a & b) = c"),
        ("- a * b", "(- a) * b"),
        ("- a::DECIMAL(20, 0)", "- (a::DECIMAL(20, 0))"),
        ("p = q IS NULL", "(p = q) IS NULL"),
        ("NOT p = q", "NOT (p = q)"),
        ("NOT a IN (1)", "NOT (a IN (1))"),
        ("p OR q AND NOT r", "p OR (q AND (NOT r))"),
        ("a IS NULL = p", "(a IS NULL) = p"),
        (
            "a + b NOT BETWEEN b AND c * a AND p",
            "((a + b) NOT BETWEEN b AND (c * a)) AND p",
        ),
    ] {
        let (without, with) = (tree(without).await, tree(with).await);
        assert_eq!(without.unwrap(), with.unwrap());
    }
}

#[tokio::test]
async fn what_postgresql_refuses_or_reads_otherwise_is_refused() {
    let parentheses = "put parentheses around what comes first";
    for (expression, problem, column) in [
        (
            "a < b < c",
            format!("`<` cannot follow `a < b`: {parentheses}"),
            14,
        ),
        (
            "a = b = p",
            format!("`=` cannot follow `a = b`: {parentheses}"),
            14,
        ),
        (
            "s LIKE u LIKE s",
            format!("`LIKE` cannot follow `s LIKE u`: {parentheses}"),
            17,
        ),
        (
            "a BETWEEN 1 AND 2 IN (true)",
            format!("`IN` cannot follow `a BETWEEN 1 AND 2`: {parentheses}"),
            26,
        ),
        (
            "p IS DISTINCT FROM q IS NULL",
            format!("`IS` cannot follow `p IS DISTINCT FROM q`: {parentheses}"),
            29,
        ),
        (
            "a ^ b",
            "`^` is a power for some databases and XOR for others: write `x * x` for a power"
                .into(),
            10,
        ),
        (
            "p XOR q",
            "`XOR` is not in PostgreSQL: write `a <> b` for two booleans".into(),
            10,
        ),
    ] {
        let refusal = tree(expression).await.unwrap_err().strip_backtrace();
        let place = format!("{problem} at Line: 1, Column: {column}");
        assert_eq!(refusal, format!("SQL error: ParserError(\"{place}\")"));
    }
}

/// Rows that both systems see.
const ROWS: &str = "(VALUES
    ('r00', 0, 1, 2, true, false, CAST(NULL AS BOOLEAN), 'x', 'xy'),
    ('r01', 1, 0, NULL, false, false, true, 'y', 'x'),
    ('r02', 2, 2, 2, true, true, true, 'xy', NULL),
    ('r03', NULL, 3, 1, NULL, true, false, NULL, 'y'),
    ('r04', 3, NULL, 0, false, NULL, false, '', 'x%'),
    ('r05', 1, 1, 3, true, false, false, 'yx', '_'),
    ('r06', 0, 0, 0, false, true, NULL, 'x', 'x'),
    ('r07', 2, 3, 1, NULL, NULL, true, '1', '3'),
    ('r08', 3, 1, 2, true, NULL, true, 'x3', '%'),
    ('r09', NULL, NULL, NULL, false, true, true, 'y', 'y')
    ) AS v(subject, a, b, c, p, q, r, s, u)";

const COLUMNS: &str =
    "a BIGINT, b BIGINT, c BIGINT, p BOOLEAN, q BOOLEAN, r BOOLEAN, s VARCHAR, u VARCHAR";

/// Prints, for each expression on stdin, DuckDB's answer on each row, or what kind of error it is.
const SCRIPT: &str = "
import sys, duckdb
rows = sys.argv[1]
for line in sys.stdin:
    try:
        answers = duckdb.sql('SELECT ' + line + ' AS x FROM ' + rows + ' ORDER BY subject').fetchall()
        print(''.join('n' if x is None else 't' if x is True else 'f' if x is False else '?' for x, in answers))
    except duckdb.Error as error:
        print(type(error).__name__)
";

/// Makes expressions that lack most of their parentheses.
struct Writer(u64);

impl Writer {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn maybe_enclosed(&mut self, text: String) -> String {
        match self.below(5) {
            0 => format!("({text})"),
            _ => text,
        }
    }

    fn boolean(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.one(&["p", "q", "r", "TRUE", "NULL"]).to_owned();
        }
        let less = depth - 1;
        let text = match self.below(12) {
            0 | 1 => format!("{} AND {}", self.boolean(less), self.boolean(less)),
            2 => format!("{} OR {}", self.boolean(less), self.boolean(less)),
            3 => format!("NOT {}", self.boolean(less)),
            4 => {
                let compares = self.one(&["=", "<>", "<", "<=", ">", ">="]);
                format!("{} {compares} {}", self.integer(less), self.integer(less))
            }
            5 => {
                let compares = self.one(&["=", "<>"]);
                format!("{} {compares} {}", self.boolean(less), self.boolean(less))
            }
            6 | 7 => {
                let is = self.one(&["IS DISTINCT FROM", "IS NOT DISTINCT FROM"]);
                let (left, right) = match self.below(3) {
                    0 => (self.integer(less), self.integer(less)),
                    1 => (self.text(less), self.text(less)),
                    _ => (self.boolean(less), self.boolean(less)),
                };
                format!("{left} {is} {right}")
            }
            8 => {
                let is = self.one(&[
                    "IS TRUE",
                    "IS NOT TRUE",
                    "IS FALSE",
                    "IS NOT FALSE",
                    "IS NULL",
                    "IS NOT NULL",
                ]);
                format!("{} {is}", self.boolean(less))
            }
            9 => {
                let between = self.one(&["BETWEEN", "NOT BETWEEN"]);
                let [x, low, high] = [(); 3].map(|()| self.integer(less));
                format!("{x} {between} {low} AND {high}")
            }
            10 => {
                let among = self.one(&["IN", "NOT IN"]);
                let [x, one, two] = [(); 3].map(|()| self.integer(less));
                format!("{x} {among} ({one}, {two})")
            }
            _ => {
                let like = self.one(&["LIKE", "NOT LIKE", "ILIKE"]);
                format!("{} {like} {}", self.text(less), self.text(less))
            }
        };
        self.maybe_enclosed(text)
    }

    fn integer(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.one(&["a", "b", "c", "1", "2"]).to_owned();
        }
        let less = depth - 1;
        let text = match self.below(8) {
            0 => format!("- {}", self.integer(less)),
            1 => format!("{}::BIGINT", self.one(&["a", "b", "2"])),
            2 => self.one(&["a & b", "a | b & c", "a & b | c"]).to_owned(),
            _ => {
                let op = self.one(&["+", "-", "*"]);
                format!("{} {op} {}", self.integer(less), self.integer(less))
            }
        };
        self.maybe_enclosed(text)
    }

    fn text(&mut self, depth: usize) -> String {
        match (depth, self.below(3)) {
            (0, _) | (_, 0) => self.one(&["s", "u", "'x'", "'%'"]).to_owned(),
            (_, 1) => format!("{} || {}", self.text(depth - 1), self.text(depth - 1)),
            _ => format!("{} || {}", self.text(depth - 1), self.integer(depth - 1)),
        }
    }
}

fn duckdb(python: &std::ffi::OsStr, expressions: &[String]) -> Vec<String> {
    let mut duck = Command::new(python)
        .args(["-c", SCRIPT, ROWS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = duck.stdin.take().unwrap();
    let text = expressions.join("\n");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = duck.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// One letter a row.
fn letters(column: &dyn Array) -> String {
    let text = cast(column, &DataType::Utf8).unwrap();
    let letter = |value: Option<&str>| match value {
        None => 'n',
        Some("true" | "1") => 't',
        Some("false" | "0") => 'f',
        Some(_) => '?',
    };
    text.as_string::<i32>().iter().map(letter).collect()
}

/// The columns of a query's answer as letters, rows ordered by subject.
async fn answers(context: &SessionContext, expressions: &[String]) -> Result<Vec<String>> {
    let columns = numbered(expressions.iter().cloned());
    let frame = query(
        context,
        &format!("SELECT {columns} FROM rows ORDER BY subject"),
    )
    .await?;
    let schema = Arc::clone(frame.schema().inner());
    let rows = concat_batches(&schema, &frame.collect().await?)?;
    Ok(rows
        .columns()
        .iter()
        .map(|column| letters(column))
        .collect())
}

/// `expression AS x0, …`
fn numbered(expressions: impl Iterator<Item = String>) -> String {
    let named = expressions
        .enumerate()
        .map(|(place, text)| format!("{text} AS x{place}"));
    named.collect::<Vec<_>>().join(", ")
}

fn parsed(text: String) -> Definitions {
    let name = "f.sql".to_owned();
    Definitions::parse(&[SourceFile { name, text }]).unwrap()
}

fn select(rows: &RecordBatch, schema: &Schema) -> RecordBatch {
    let places = schema
        .fields()
        .iter()
        .map(|field| rows.schema().index_of(field.name()).unwrap());
    rows.project(&places.collect::<Vec<_>>()).unwrap()
}

async fn in_a_meter(events: &RecordBatch, expressions: &[String]) -> Vec<String> {
    let measures = expressions
        .iter()
        .map(|e| format!("MAX(CASE WHEN {e} THEN 1 WHEN NOT ({e}) THEN 0 END)"));
    let measures = numbered(measures);
    let definitions = parsed(format!(
        "CREATE EVENT TYPE e ({COLUMNS}) WITH (type = 'e');
         CREATE METER m WITH (window = '1 hour') AS SELECT subject, {measures} FROM e GROUP BY subject;"
    ));
    let meter = Meter::plan(&definitions.meters[0], &definitions.event_types[0])
        .await
        .unwrap();
    let states = meter
        .partial(select(events, meter.input_schema()))
        .await
        .unwrap();
    let totals = meter.totals(&[states]).await.unwrap();
    assert_eq!(totals.num_rows(), events.num_rows());
    totals.columns()[1..]
        .iter()
        .map(|column| letters(column))
        .collect()
}

/// `f` where a check refuses the row, `.` elsewhere.
fn in_a_check(events: &RecordBatch, expression: &str) -> String {
    let definitions = parsed(format!(
        "CREATE EVENT TYPE e ({COLUMNS}, CHECK ({expression})) WITH (type = 'e');"
    ));
    let checks = EventChecks::plan(&definitions.event_types[0]).unwrap();
    let refused = checks.refused(&select(events, checks.input_schema()));
    let rows = 0..events.num_rows();
    rows.map(|row| if refused.contains_key(&row) { 'f' } else { '.' })
        .collect()
}

async fn in_a_price(context: &SessionContext, expressions: &[String]) -> Vec<String> {
    let columns = numbered(expressions.iter().cloned());
    let definitions = parsed(format!(
        "CREATE EVENT TYPE e ({COLUMNS}) WITH (type = 'e');
         CREATE METER rows WITH (window = '1 hour') AS SELECT subject, COUNT(*) AS n FROM e GROUP BY subject;
         CREATE PRICE p WITH (currency = 'USD') AS
         SELECT subject AS customer, 1 AS amount, {columns} FROM rows;"
    ));
    let rated = rate(context, &definitions.prices[0], &[]).await.unwrap();
    let charges = rated.whole().unwrap();
    let column = |place: usize| {
        let texts: StringArray = charges
            .iter()
            .map(|charge| charge.dimensions[place].1.clone())
            .collect();
        letters(&texts)
    };
    (0..expressions.len()).map(column).collect()
}

#[tokio::test]
async fn a_thousand_expressions_mean_what_duckdb_reads() {
    let Some(python) = std::env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty())
    else {
        println!("skipped: TOLLGATE_READERS names no python with duckdb");
        return;
    };
    let mut writer = Writer(20_261_129);
    let expressions: BTreeSet<String> = (0..4_000)
        .map(|size| writer.boolean(1 + size % 3))
        .collect();
    let expressions: Vec<String> = expressions.into_iter().collect();
    let duck = duckdb(&python, &expressions);
    assert_eq!(duck.len(), expressions.len());

    let context = context();
    let text = format!(
        "SELECT *, TIMESTAMP '2026-10-01T10:00:00Z' AS event_time FROM {ROWS} ORDER BY subject"
    );
    let events = query(&context, &text).await.unwrap();
    let schema = Arc::clone(events.schema().inner());
    let events = concat_batches(&schema, &events.collect().await.unwrap()).unwrap();
    context.register_batch("rows", events.clone()).unwrap();
    let events = {
        let time = "SELECT subject, arrow_cast(event_time, 'Timestamp(Microsecond, Some(\"UTC\"))') AS event_time,
                    a, b, c, p, q, r, s, u FROM rows ORDER BY subject";
        let frame = query(&context, time).await.unwrap();
        let schema = Arc::clone(frame.schema().inner());
        concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
    };

    let mut read = Vec::new();
    let mut wrong = Vec::new();
    for (expression, duck) in expressions.iter().zip(&duck) {
        let text = format!("SELECT {expression} AS x FROM rows");
        let ours = statement(&context.state(), &text);
        let planned = match &ours {
            Ok(_) => plan(&context.state(), &text)
                .await
                .and_then(|plan| context.state().optimize(&plan)),
            Err(_) => Err(plan_datafusion_err!("not read")),
        };
        let answered = !duck.ends_with("Exception") && !duck.contains('?');
        match ours {
            // PostgreSQL refuses an IS after IS DISTINCT FROM too; DuckDB reads on from the left. After NOT,
            // sqlparser gives its own reason.
            Err(error)
                if ["cannot follow", "found: IS"]
                    .iter()
                    .any(|said| error.to_string().contains(said)) => {}
            Err(error) if answered => {
                wrong.push(format!("{expression}: DuckDB {duck}, ours {error}"));
            }
            // Which types may meet is not a question of precedence.
            Ok(_) if answered && planned.is_ok() => read.push((expression.clone(), duck)),
            Ok(_) | Err(_) => {}
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(
        read.len() >= 1_000,
        "only {} of {} are read by both",
        read.len(),
        expressions.len()
    );

    for chunk in read.chunks(20) {
        let (texts, duck): (Vec<String>, Vec<&String>) = chunk.iter().cloned().unzip();
        let query = answers(&context, &texts).await.unwrap();
        let meter = in_a_meter(&events, &texts).await;
        let price = in_a_price(&context, &texts).await;
        for (place, text) in texts.iter().enumerate() {
            let refused: String = duck[place]
                .chars()
                .map(|c| if c == 'f' { 'f' } else { '.' })
                .collect();
            let ours = [&query[place], &meter[place], &price[place]];
            if ours.iter().any(|ours| *ours != duck[place]) || in_a_check(&events, text) != refused
            {
                wrong.push(format!("{text}: DuckDB {}, ours {ours:?}", duck[place]));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}
