use super::*;
use crate::definitions::{Definitions, SourceFile};
use arrow::array::{ArrayRef, Int64Array, StringArray};

fn definitions(columns: &str) -> Definitions {
    let text = format!("CREATE EVENT TYPE call (\n{columns}\n) WITH (type = 'call')");
    let name = "f.sql".to_owned();
    Definitions::parse(&[SourceFile { name, text }]).unwrap()
}

fn plan(columns: &str) -> Result<EventChecks> {
    EventChecks::plan(&definitions(columns).event_types[0])
}

#[track_caller]
fn refused(columns: &str, problem: &str, hint: &str) {
    let message = plan(columns).unwrap_err().to_string();
    assert_eq!(message, format!("f.sql:{problem}\n  hint: {hint}"));
}

fn batch(checks: &EventChecks, columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let names: Vec<&str> = checks
        .input_schema()
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let given: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, given);
    RecordBatch::try_from_iter_with_nullable(
        columns
            .iter()
            .map(|(name, array)| (*name, Arc::clone(array), true)),
    )
    .unwrap()
}

fn integers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

#[test]
fn true_and_null_pass_and_false_is_refused_by_the_first_check() {
    let checks = plan(
        "a BIGINT CONSTRAINT positive CHECK (a > 0),\n b BIGINT,\n
         CHECK (a\n  <= b), CONSTRAINT small CHECK (b < 100)",
    )
    .unwrap();
    let a = integers(&[Some(1), Some(0), None, Some(3), Some(-1), Some(200)]);
    let b = integers(&[Some(1), Some(5), None, Some(2), Some(-2), None]);
    let refused = checks.refused(&batch(&checks, &[("a", a), ("b", b)]));
    let wanted = [
        (1, "check `positive` failed: a > 0"),
        (3, "check failed: a <= b"),
        (4, "check `positive` failed: a > 0"),
    ];
    assert_eq!(
        refused,
        wanted.map(|(row, says)| (row, says.to_owned())).into()
    );
}

#[test]
fn an_expression_that_fails_on_a_row_refuses_that_row_alone() {
    let checks = plan("a BIGINT, b DECIMAL(38, 0), CONSTRAINT product CHECK (a * b > 0)").unwrap();
    let b = arrow::array::Decimal128Array::from(vec![10_i128.pow(37); 5]);
    let b: ArrayRef = Arc::new(b.with_precision_and_scale(38, 0).unwrap());
    let a = integers(&[Some(1), Some(10), Some(9), Some(-1), Some(100)]);
    let rows = batch(&checks, &[("a", a), ("b", b)]);
    let refused = checks.refused(&rows);
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(refused[&3], "check `product` failed: a * b > 0");
    for row in [1, 4] {
        let start = "check `product` failed: a * b > 0: ";
        assert!(refused[&row].starts_with(start), "{refused:?}");
        assert!(refused[&row].len() > start.len());
        // What is said of an event does not depend on its batch.
        let alone = checks.refused(&rows.slice(row, 1));
        assert_eq!(alone[&0], refused[&row]);
    }
}

#[test]
fn checks_read_the_columns_of_every_event_and_lists() {
    let checks = plan(
        "tags VARCHAR[], \"check\" BIGINT NOT NULL,
         CHECK (array_length(tags) <= 2 AND NOT array_has(tags, 'x')), CHECK (subject <> source)",
    )
    .unwrap();
    let subject: ArrayRef = Arc::new(StringArray::from(vec!["u", "u", "s", "u"]));
    let source: ArrayRef = Arc::new(StringArray::from(vec!["s"; 4]));
    let mut tags = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new())
        .with_field(Field::new("element", DataType::Utf8, true));
    for list in [vec!["a", "b"], vec!["x"], vec![], vec!["a", "b", "c"]] {
        tags.append_value(list.into_iter().map(Some));
    }
    let tags: ArrayRef = Arc::new(tags.finish());
    let columns = [("source", source), ("subject", subject), ("tags", tags)];
    let refused = checks.refused(&batch(&checks, &columns));
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(refused[&2], "check failed: subject <> source");
}

#[test]
fn no_checks_refuse_nothing() {
    let checks = plan("a BIGINT").unwrap();
    assert!(checks.is_empty() && checks.input_schema().fields().is_empty());
}

#[test]
fn a_check_is_about_one_event() {
    let one_event =
        "a check sees one event at a time: its columns, and functions that always return the same";
    refused(
        "a BIGINT, CHECK (a > 0 AND\n  a < SUM(a))",
        "3:7: event type `call`: check: it has the aggregate `sum`",
        one_event,
    );
    refused(
        "a BIGINT, CONSTRAINT c CHECK (a IN (SELECT 1))",
        "2:31: event type `call`: check `c`: it has a sub-query",
        one_event,
    );
    refused(
        "a BIGINT, CHECK (row_number() OVER () > 1)",
        "2:18: event type `call`: check: it has a window function",
        one_event,
    );
}

#[test]
fn a_check_always_says_the_same() {
    refused(
        "a BIGINT, CHECK (event_time <= now())",
        "2:18: event type `call`: check: `now` does not always return the same",
        "use `event_time` for time, and columns of the event",
    );
    refused(
        "a BIGINT, CHECK (random() < 1)",
        "2:18: event type `call`: check: `random` does not always return the same",
        "use `event_time` for time, and columns of the event",
    );
}

#[test]
fn a_check_is_exact() {
    refused(
        "a BIGINT CHECK (1 < a / 2)",
        "2:21: event type `call`: check: it has `/`, which loses digits",
        "`package(x, 60, 1)` counts the 60s that are begun; a factor must be exact, as in `x * 0.001` for `x / 1000`",
    );
    refused(
        "a BIGINT CHECK (CAST(a AS DOUBLE) > 0)",
        "2:17: event type `call`: check: `CAST(call.a AS Float64)` is floating point",
        "calculate with BIGINT and DECIMAL(p, s); leave casts to floating point, and functions such as sqrt, out",
    );
}

#[test]
fn a_check_is_true_or_false_and_of_known_columns() {
    refused(
        "a BIGINT CHECK (a + 1)",
        "2:17: event type `call`: check: it is DECIMAL(20, 0), not true or false",
        "compare it with something, such as input_tokens > 0",
    );
    let message = plan("a BIGINT CHECK (a > 0 AND tokens > 0)")
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("f.sql:2:27: event type `call`: check: ") && message.contains("tokens"),
        "{message}"
    );
    let message = plan("a BIGINT CHECK (shorten(a) > 0)")
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("f.sql:2:17: event type `call`: check: ")
            && message.contains("shorten"),
        "{message}"
    );
}
