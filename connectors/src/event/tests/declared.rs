//! Lists, numbers in quotes and defaults: what a column's metadata asks for.

use super::*;
use arrow::array::ListArray;
use arrow::util::display::array_value_to_string;

fn list_of(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", data_type, true)))
}

fn with(field: Field, key: &str, value: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(key.to_owned(), value.to_owned());
    field.with_metadata(metadata)
}

fn declared() -> SchemaRef {
    let cost = || column("cost", DataType::Decimal128(5, 2), &["cost"], false);
    let columns = vec![
        column("tags", list_of(DataType::Utf8), &["tags"], false),
        column("days", list_of(DataType::Date32), &["days"], false),
        with(
            column("counts", list_of(DataType::Int64), &["counts"], false),
            STRINGS_KEY,
            "true",
        ),
        with(cost(), STRINGS_KEY, "true"),
        with(
            column("region", DataType::Utf8, &["at", "region"], true),
            DEFAULT_KEY,
            "\"eu\"",
        ),
        with(
            column("seats", list_of(DataType::Int64), &["seats"], false),
            DEFAULT_KEY,
            "[1,2]",
        ),
    ];
    schema_of(vec![event_type("d", "declared", columns)])
}

fn decode_all(data: &[&str]) -> Decoded {
    let lines: Vec<String> = data
        .iter()
        .enumerate()
        .map(|(i, data)| event(&i.to_string(), "declared", data))
        .collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    let mut decoder = Decoder::new(declared(), "s", DecodeOptions::default()).unwrap();
    decoder
        .decode(&[message(lines.join("\n"), &headers)])
        .unwrap()
}

fn refusal(data: &str) -> String {
    let decoded = decode_all(&[data]);
    assert_eq!(decoded.statuses, [Status::Rejected], "{data}");
    decoded.text("reason", 0).unwrap().to_owned()
}

/// The lists of a column as they print, one a row; `-` for NULL.
fn lists(decoded: &Decoded, name: &str) -> Vec<String> {
    let cells = decoded.cells("d");
    let lists: &ListArray = cells.column_by_name(name).unwrap().as_list();
    (0..lists.len())
        .map(|row| match lists.is_valid(row) {
            true => array_value_to_string(lists, row).unwrap(),
            false => "-".to_owned(),
        })
        .collect()
}

#[test]
fn a_list_is_an_array_of_values_of_its_type() {
    let decoded = decode_all(&[
        r#"{"tags":["a","\u00e9",""],"days":["2026-02-28"],"counts":[1,"2",3.0]}"#,
        "{}",
        r#"{"tags":[],"days":null}"#,
        r#"{"tags":[ "b" ]}"#,
    ]);
    assert_eq!(decoded.statuses, [Status::Ok; 4]);
    assert_eq!(lists(&decoded, "tags"), ["[a, é, ]", "-", "[]", "[b]"]);
    assert_eq!(lists(&decoded, "days"), ["[2026-02-28]", "-", "-", "-"]);
    assert_eq!(lists(&decoded, "counts"), ["[1, 2, 3]", "-", "-", "-"]);
}

#[test]
fn what_is_wrong_with_a_list_is_said_with_the_element() {
    for (data, reason) in [
        (
            r#"{"tags":"a"}"#,
            "field `tags`: expected VARCHAR[], got a string (\"a\")",
        ),
        (
            r#"{"tags":["a",5]}"#,
            "field `tags`: element 2: expected VARCHAR, got a number (5)",
        ),
        (
            r#"{"tags":["a",null]}"#,
            "field `tags`: element 2 is null; leave it out of the list",
        ),
        (
            r#"{"tags":[["a"]]}"#,
            "field `tags`: element 1: expected VARCHAR, got an array",
        ),
        (
            r#"{"days":["2026-02-30"]}"#,
            "field `days`: element 1: \"2026-02-30\" does not exist in the calendar (YYYY-MM-DD)",
        ),
        (
            r#"{"counts":[1,9223372036854775808]}"#,
            "field `counts`: element 2: 9223372036854775808 is out of range for BIGINT",
        ),
    ] {
        assert_eq!(refusal(data), reason);
    }
}

#[test]
fn a_number_in_quotes_is_exactly_one_json_number() {
    let decoded = decode_all(&[
        r#"{"cost":"12.50"}"#,
        r#"{"cost":"-1e2"}"#,
        r#"{"cost":7}"#,
        r#"{"cost":"1\u0032"}"#,
    ]);
    assert_eq!(decoded.statuses, [Status::Ok; 4]);
    let cost = Arc::clone(decoded.cells("d").column(3));
    let cost: &Decimal128Array = cost.as_primitive();
    assert_eq!(cost.values(), &[1250, -10_000, 700, 1200]);
    for text in [
        "", " 1", "1 ", "+1", "01", "1.", "0x1", "NaN", "true", "[1]", "1,2",
    ] {
        assert_eq!(
            refusal(&format!(r#"{{"cost":"{text}"}}"#)),
            format!(
                "field `cost`: expected DECIMAL(5, 2), got a string (\"{text}\"), which is not exactly one JSON number"
            )
        );
    }
    assert_eq!(
        refusal(r#"{"cost":"1.001"}"#),
        "field `cost`: 1.001 has more fraction digits than DECIMAL(5, 2)"
    );
    assert_eq!(
        refusal(&format!(r#"{{"cost":"{}"}}"#, "1".repeat(101))),
        "field `cost`: a number of 101 bytes, above the limit of 100"
    );
}

#[test]
fn a_default_stands_for_what_is_missing_and_not_for_null() {
    let decoded = decode_all(&[
        "{}",
        r#"{"at":null,"seats":null}"#,
        r#"{"at":{"zone":1}}"#,
        r#"{"at":{"region":"us"},"seats":[]}"#,
    ]);
    assert_eq!(decoded.statuses, [Status::Ok; 4]);
    let regions = Arc::clone(decoded.cells("d").column(4));
    let regions = regions.as_string::<i32>();
    let regions: Vec<&str> = regions.iter().map(Option::unwrap).collect();
    assert_eq!(regions, ["eu", "eu", "eu", "us"]);
    assert_eq!(lists(&decoded, "seats"), ["[1, 2]", "-", "[1, 2]", "[]"]);
    assert_eq!(
        refusal(r#"{"at":{"region":null}}"#),
        "field `region` at `$.at.region` is required but missing or null"
    );
}

#[test]
fn a_default_stands_also_when_there_is_no_data() {
    let text = r#"{"specversion":"1.0","id":"1","source":"s","type":"declared","subject":"u"}"#;
    let mut decoder = Decoder::new(declared(), "s", DecodeOptions::default()).unwrap();
    let decoded = decoder.decode(&[message(text, &[])]).unwrap();
    assert_eq!(decoded.statuses, [Status::Ok]);
    assert_eq!(lists(&decoded, "seats"), ["[1, 2]"]);
}

#[test]
fn a_default_that_does_not_fit_is_no_schema() {
    let bad = with(
        column("n", DataType::Int64, &["n"], false),
        DEFAULT_KEY,
        "1.5",
    );
    let schema = schema_of(vec![event_type("d", "declared", vec![bad])]);
    let error = Decoder::new(schema, "s", DecodeOptions::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("column `n`: the default 1.5: 1.5 has more fraction digits than BIGINT"),
        "{error}"
    );
}

#[test]
fn a_path_and_one_below_it_are_both_read() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let columns = [
            column("a", DataType::Utf8, &["a"], false),
            column("b", DataType::Int64, &["a", "b"], false),
            column("c", DataType::Int64, &["a", "b", "c"], false),
        ];
        let columns = order.map(|place| columns[place].clone()).to_vec();
        let schema = schema_of(vec![event_type("d", "declared", columns)]);
        let mut decoder = Decoder::new(schema, "s", DecodeOptions::default()).unwrap();
        for (data, expected) in [
            (r#"{"a":"x"}"#, ["x", "", ""]),
            (r#"{"a":{"b":5}}"#, ["", "5", ""]),
            (r#"{"a": {"b": {"c": 7}}}"#, ["", "", "7"]),
            (r#"{"a":null}"#, ["", "", ""]),
        ] {
            let headers = [("Content-Type", "application/x-ndjson")];
            let decoded = decoder
                .decode(&[message(event("1", "declared", data), &headers)])
                .unwrap();
            assert_eq!(decoded.statuses, [Status::Ok], "{data}");
            let read = decoded.cells("d");
            let cell =
                |name: &str| array_value_to_string(read.column_by_name(name).unwrap(), 0).unwrap();
            assert_eq!(["a", "b", "c"].map(cell), expected, "{data}");
        }
    }
}

/// A column at a path as the schema keeps it.
fn at_path(name: &str, data_type: DataType, path: &str) -> Field {
    with(column(name, data_type, &[name], false), PATH_KEY, path)
}

/// One event with columns of elements: its status, reason, columns and what is not declared.
fn of_elements(data: &str) -> (Status, String, Vec<String>, String) {
    let columns = vec![
        at_path(
            "text",
            DataType::Int64,
            r#"["details",["modality","TEXT"],"tokens"]"#,
        ),
        at_path(
            "cost",
            DataType::Decimal128(5, 2),
            r#"["details",["modality","TEXT"],"billing","cost"]"#,
        ),
        at_path(
            "first",
            DataType::Int64,
            r#"["details",["n","1"],"tokens"]"#,
        ),
        at_path("plain", list_of(DataType::Int64), r#"["details"]"#),
        at_path(
            "deep",
            DataType::Utf8,
            r#"["details",["modality","TEXT"],"parts",["ok","true"],"name"]"#,
        ),
    ];
    let schema = schema_of(vec![event_type("d", "declared", columns)]);
    let mut decoder = Decoder::new(schema, "s", DecodeOptions::default()).unwrap();
    let decoded = decoder
        .decode(&[message(event("1", "declared", data), &[])])
        .unwrap();
    let read = decoded.cells("d");
    let cells = read.columns().iter();
    let cells = cells.map(|cells| array_value_to_string(cells, 0).unwrap());
    let text = |column| decoded.text(column, 0).unwrap_or_default().to_owned();
    (
        decoded.statuses[0],
        text("reason"),
        cells.collect(),
        text("extra"),
    )
}

#[test]
fn an_element_is_found_by_the_value_of_a_key() {
    for (data, cells) in [
        (
            r#"{"details":[{"modality":"TEXT","tokens":9},{"modality":"DOCUMENT","tokens":774}]}"#,
            ["9", "", "", "", ""],
        ),
        // Wherever it is, whatever else it has, and whatever else is there.
        (
            r#"{"details":[{"n":1,"tokens":5},7,null,[{"modality":"TEXT"}],{"billing":{"cost":1.5},"tokens":9,"modality":"TEX\u0054"}]}"#,
            ["9", "1.50", "5", "", ""],
        ),
        // One element may be meant by two paths.
        (
            r#"{"details":[{"n":1,"modality":"TEXT","tokens":9}]}"#,
            ["9", "", "9", "", ""],
        ),
        (
            r#"{"details":[{"n":"1","tokens":5},{"n":1.0,"tokens":6}]}"#,
            ["", "", "5", "", ""],
        ),
        (
            r#"{"details":[{"modality":"TEXT","parts":[{"ok":"no"},{"ok":true,"name":"x"}]}]}"#,
            ["", "", "", "", "x"],
        ),
        (r#"{"details":[{"modality":"text","tokens":9}]}"#, [""; 5]),
        (r#"{"details":[{"tokens":9}]}"#, [""; 5]),
        (r#"{"details": [ ]}"#, ["", "", "", "[]", ""]),
        (r#"{"details":null}"#, [""; 5]),
        (r#"{}"#, [""; 5]),
        // A list may come in the place of the objects.
        (r#"{"details":[ 1, 2]}"#, ["", "", "", "[1, 2]", ""]),
    ] {
        let (status, reason, read, _) = of_elements(data);
        assert_eq!((status, reason.as_str()), (Status::Ok, ""), "{data}");
        assert_eq!(read, cells, "{data}");
    }
}

#[test]
fn an_array_with_elements_is_kept_whole() {
    let array = r#"[{"modality":"TEXT","tokens":9,"x":[1]},{"modality":"IMAGE"}]"#;
    let (_, _, read, extra) = of_elements(&format!(r#"{{"a":1,"details":{array},"b":2}}"#));
    assert_eq!(read[0], "9");
    assert_eq!(extra, format!(r#"{{"a":1,"details":{array},"b":2}}"#));
}

#[test]
fn an_element_that_is_not_clear_rejects_the_event() {
    for (details, reason) in [
        (
            r#"[{"modality":"TEXT","tokens":1},{"modality":"TEXT","tokens":1}]"#,
            "two elements are `$.details[modality='TEXT']`",
        ),
        (
            r#"[{"modality":"IMAGE","modality":"TEXT"}]"#,
            "key `modality` is given twice in `$.details[modality='TEXT']`",
        ),
        (
            r#"[{"modality":"TEXT","tokens":1,"tokens":2}]"#,
            "key `tokens` is given twice in `$.details[modality='TEXT']`",
        ),
        (
            r#"[{"modality":"TEXT","tokens":1.5}]"#,
            "field `text` at `$.details[modality='TEXT'].tokens`: 1.5 has more fraction digits than BIGINT",
        ),
        (
            r#"[{"modality":"TEXT","billing":[]}]"#,
            "`$.details[modality='TEXT'].billing` must be an object, got an array",
        ),
        (
            r#"[{"modality":"TEXT","parts":{}}]"#,
            "`$.details[modality='TEXT'].parts` must be an array, got an object",
        ),
    ] {
        let (status, said, _, _) = of_elements(&format!(r#"{{"details":{details}}}"#));
        assert_eq!(status, Status::Rejected, "{details}");
        assert_eq!(said, reason, "{details}");
    }
}
