use super::*;
use crate::Sequence;
use arrow::array::{
    AsArray, BooleanArray, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch,
    StructArray,
};
use arrow::datatypes::{Field, Fields, Schema, TimeUnit};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

mod declared;

/// 2026-07-31T23:55:00Z in microseconds: 20,665 days after the epoch, and 86,100 seconds.
const INGEST: i64 = (20_665 * 86_400 + 86_100) * 1_000_000;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn column(name: &str, data_type: DataType, path: &[&str], required: bool) -> Field {
    let path = serde_json::Value::from(path.to_vec()).to_string();
    let mut metadata = HashMap::from([(PATH_KEY.to_owned(), path)]);
    if required {
        metadata.insert(REQUIRED_KEY.to_owned(), "true".to_owned());
    }
    Field::new(name, data_type, true).with_metadata(metadata)
}

fn event_type(name: &str, kind: &str, columns: Vec<Field>) -> Field {
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), kind.to_owned())]);
    Field::new(name, DataType::Struct(Fields::from(columns)), true).with_metadata(metadata)
}

fn schema_of(types: Vec<Field>) -> SchemaRef {
    let mut fields = vec![
        Field::new("shard", DataType::Utf8, false),
        Field::new("sequence", DataType::Int64, false),
        Field::new("ordinal", DataType::Int32, false),
        Field::new("event_id", DataType::Utf8, true),
        Field::new("source", DataType::Utf8, true),
        Field::new("type", DataType::Utf8, true),
        Field::new("subject", DataType::Utf8, true),
        Field::new("event_time", timestamp(), true),
        Field::new("ingest_time", timestamp(), false),
        Field::new("status", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("content_hash", DataType::Int64, true),
        Field::new("content_version", DataType::Int32, true),
    ];
    fields.extend(types);
    fields.push(Field::new("extra", DataType::Utf8, true));
    fields.push(Field::new("ingest_day", DataType::Date32, false));
    Arc::new(Schema::new(fields))
}

fn schema() -> SchemaRef {
    let completion = vec![
        column("model", DataType::Utf8, &["model"], true),
        column("region", DataType::Utf8, &["region"], false),
        column("tokens", DataType::Int64, &["tokens"], true),
        column(
            "cost",
            DataType::Decimal128(18, 9),
            &["billing", "cost"],
            false,
        ),
        column("payer", DataType::Utf8, &["billing", "who", "payer"], false),
    ];
    let every = vec![
        column("flag", DataType::Boolean, &["flag"], false),
        column("day", DataType::Date32, &["day"], false),
        column("at", timestamp(), &["at"], false),
        column("wide", DataType::Decimal128(38, 0), &["wide"], false),
    ];
    schema_of(vec![
        event_type("completion", "llm.completion", completion),
        event_type("every", "every", every),
        event_type("nothing", "nothing", vec![]),
    ])
}

fn decoder(options: DecodeOptions) -> Decoder {
    Decoder::new(schema(), "USAGE", options).unwrap()
}

fn message(payload: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Message {
    Message {
        sequence: Sequence(7),
        ingest_time_us: INGEST,
        headers: headers
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect(),
        payload: Bytes::copy_from_slice(payload.as_ref()),
        unread: None,
    }
}

const LINES: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
const BATCH: &[(&str, &str)] = &[("content-type", "application/cloudevents-batch+json")];
const BINARY: &[(&str, &str)] = &[
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-source", "api"),
    ("ce-type", "llm.completion"),
    ("ce-subject", "cust"),
    ("ce-time", "2026-07-31T23:54:00Z"),
];

fn decode(message: Message) -> Decoded {
    decoder(DecodeOptions::default())
        .decode(&[message])
        .unwrap()
}

fn one(payload: impl AsRef<[u8]>) -> Decoded {
    let decoded = decode(message(payload, &[]));
    assert_eq!(decoded.events.num_rows(), 1);
    decoded
}

/// A good event of the first type with this `data`.
fn with_data(data: &str) -> String {
    event("1", "llm.completion", data)
}

fn event(id: &str, kind: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"api","type":"{kind}","subject":"cust","time":"2026-07-31T23:54:00Z","data":{data}}}"#
    )
}

const DATA: &str = r#"{"model":"m","tokens":5}"#;

impl Decoded {
    fn text(&self, column: &str, row: usize) -> Option<&str> {
        let array = self
            .events
            .head()
            .column_by_name(column)
            .unwrap()
            .as_string::<i32>();
        array.is_valid(row).then(|| array.value(row))
    }

    fn kept(&self, row: usize) -> Option<&[u8]> {
        let array = self.events.head()["raw"].as_binary::<i32>();
        array.is_valid(row).then(|| array.value(row))
    }

    fn hash(&self, row: usize) -> Option<i64> {
        let array: &Int64Array = self
            .events
            .head()
            .column_by_name("content_hash")
            .unwrap()
            .as_primitive();
        array.is_valid(row).then(|| array.value(row))
    }

    fn time(&self, row: usize) -> Option<i64> {
        let times = self.event_times();
        times.is_valid(row).then(|| times.value(row))
    }

    fn statuses_and_ids(&self) -> Vec<(&str, Option<&str>)> {
        (0..self.keys.len())
            .map(|row| {
                (
                    self.text("status", row).unwrap(),
                    self.text("event_id", row),
                )
            })
            .collect()
    }

    /// All rows as one batch.
    fn batch(&self) -> RecordBatch {
        self.events.whole().unwrap()
    }

    fn cells(&self, name: &str) -> StructArray {
        self.batch()[name].as_struct().clone()
    }
}

/// The reason for which one payload without headers is rejected.
fn reason(payload: impl AsRef<[u8]>) -> String {
    rejection(message(payload, &[]))
}

fn rejection(message: Message) -> String {
    let payload = message.payload.clone();
    let is_binary = message
        .headers
        .iter()
        .any(|(name, _)| name.starts_with("ce-"));
    let decoded = decode(message);
    assert_eq!(decoded.statuses, [Status::Rejected]);
    assert_eq!(decoded.text("status", 0), Some("rejected"));
    if !is_binary {
        assert_eq!(decoded.kept(0), Some(payload.as_ref()));
    }
    assert!(decoded.text("extra", 0).is_none());
    decoded.text("reason", 0).unwrap().to_owned()
}

fn data_reason(data: &str) -> String {
    reason(with_data(data))
}

fn every_reason(data: &str) -> String {
    reason(event("1", "every", data))
}

#[test]
fn a_good_event_fills_every_column() {
    let decoded = one(
        r#" {"specversion":"1.0","id":"a4","source":"api-gateway","type":"llm.completion","subject":"cust_04441","time":"2026-07-31T23:54:59.000001Z","data":{"model":"model-7","region":"us-west-2","tokens":4950,"billing":{"cost":0.000000001}}} "#,
    );
    assert_eq!(decoded.batch().schema(), schema());
    assert_eq!(decoded.statuses, [Status::Ok]);
    let texts = [
        "shard", "event_id", "source", "type", "subject", "status", "reason", "extra",
    ];
    let texts = texts.map(|name| decoded.text(name, 0));
    let expected = [
        Some("USAGE"),
        Some("a4"),
        Some("api-gateway"),
        Some("llm.completion"),
        Some("cust_04441"),
        Some("ok"),
        None,
        None,
    ];
    assert_eq!(texts, expected);
    assert_eq!(decoded.time(0), Some(INGEST - 1_000_000 + 1));
    assert_eq!(decoded.kept(0), None);
    let cells = decoded.cells("completion");
    assert_eq!(cells.column(0).as_string::<i32>().value(0), "model-7");
    assert_eq!(cells.column(1).as_string::<i32>().value(0), "us-west-2");
    let tokens: &Int64Array = cells.column(2).as_primitive();
    assert_eq!(tokens.value(0), 4950);
    let cost: &Decimal128Array = cells.column(3).as_primitive();
    assert_eq!(cost.value(0), 1);
    assert!(cells.column(4).is_null(0));
    let sequence: &Int64Array = decoded
        .events
        .head()
        .column_by_name("sequence")
        .unwrap()
        .as_primitive();
    let ordinal: &Int32Array = decoded
        .events
        .head()
        .column_by_name("ordinal")
        .unwrap()
        .as_primitive();
    let day: &Date32Array = decoded
        .events
        .head()
        .column_by_name("ingest_day")
        .unwrap()
        .as_primitive();
    assert_eq!(
        (sequence.value(0), ordinal.value(0), day.value(0)),
        (7, 0, 20_665)
    );
}

#[test]
fn every_type_of_column_is_read_exactly() {
    let nines = "9".repeat(38);
    let data = format!(
        r#"{{"flag":false,"day":"2026-07-31","at":"2026-07-31T01:00:00.000001+01:00","wide":-{nines}}}"#
    );
    let decoded = one(event("1", "every", &data));
    let cells = decoded.cells("every");
    let flag: &BooleanArray = cells.column(0).as_boolean();
    let day: &Date32Array = cells.column(1).as_primitive();
    let at: &TimestampMicrosecondArray = cells.column(2).as_primitive();
    let wide: &Decimal128Array = cells.column(3).as_primitive();
    assert!(!flag.value(0));
    assert_eq!(day.value(0), 20_665);
    assert_eq!(at.value(0), 20_665 * 86_400_000_000 + 1);
    assert_eq!(wide.value(0), 1 - 10i128.pow(38));
}

#[test]
fn rows_of_other_types_are_null_in_a_struct() {
    let lines = [
        event("1", "every", "{}"),
        event("2", "llm.completion", DATA),
        event("3", "unknown", DATA),
        event("4", "llm.completion", r#"{"model":"n","tokens":6}"#),
        event("5", "nothing", "{}"),
    ];
    let decoded = decode(message(lines.join("\n"), LINES));
    let valid = |name: &str| {
        (0..5)
            .map(|row| decoded.cells(name).is_valid(row))
            .collect::<Vec<_>>()
    };
    assert_eq!(valid("completion"), [false, true, false, true, false]);
    assert_eq!(valid("every"), [true, false, false, false, false]);
    assert_eq!(valid("nothing"), [false, false, false, false, true]);
    let tokens = Arc::clone(decoded.cells("completion").column(2));
    let tokens: &Int64Array = tokens.as_primitive();
    assert_eq!(
        tokens.iter().collect::<Vec<_>>(),
        [None, Some(5), None, Some(6), None]
    );
}

#[test]
fn the_four_forms_of_one_event_have_the_same_identity() {
    let object = with_data(DATA);
    let messages = [
        message(&object, &[]),
        message(
            &object,
            &[(
                "Content-Type",
                "Application/CloudEvents+JSON; charset=utf-8",
            )],
        ),
        message(
            &object,
            &[("content-type", "application/json"), ("Nats-Msg-Id", "x")],
        ),
        message(format!("[ {object} ]"), BATCH),
        message(format!("\n\r\n{object}\r\n\n"), LINES),
        message(format!(" {DATA}\n"), BINARY),
        message(
            DATA,
            &[
                ("CE-Type", "llm%2Ecompletion"),
                ("Ce-ID", "%31"),
                ("ce-source", "api"),
                ("ce-subject", "cust"),
                ("ce-specversion", "1.0"),
                ("ce-time", "2026-08-01T00:54:00+01:00"),
                ("ce-traceparent", "00-1"),
                ("Content-Type", "application/json; charset=utf-8"),
            ],
        ),
        message(
            object.replace(
                "\"data\":{",
                "\"datacontenttype\":\"application/vnd.x+json\",\"x\":[{}],\"data\" : {",
            ),
            &[],
        ),
    ];
    let decoded = decoder(DecodeOptions::default()).decode(&messages).unwrap();
    assert_eq!(
        decoded.statuses,
        [Status::Ok; 8],
        "{:?}",
        decoded.text("reason", 0)
    );
    assert!(decoded.keys.iter().all(|key| *key == event_key("api", "1")));
    let hash = decoded.hash(0).unwrap();
    assert!((0..8).all(|row| decoded.hash(row) == Some(hash)));
    assert_eq!(
        decoded.raw(&messages, 4).as_deref(),
        Some(format!("{object}\r").as_bytes())
    );
    assert_eq!(
        decoded.raw(&messages, 3).as_deref(),
        Some(object.as_bytes())
    );
    assert_eq!(decoded.raw(&messages, 8), None);
}

fn part(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// Type, subject and time of [`with_data`], as they are hashed.
fn attributes() -> Vec<u8> {
    let time = (INGEST - 60_000_000).to_le_bytes();
    [part(b"llm.completion"), part(b"cust"), part(&time)].concat()
}

#[test]
fn identity_and_content_are_the_documented_hashes() {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};
    let messages = [message(with_data(DATA), &[])];
    let decoded = decoder(DecodeOptions::default()).decode(&messages).unwrap();
    let key = [part(b"api"), part(b"1")].concat();
    assert_eq!(decoded.keys, [xxh3_128(&key)]);
    let number = [b"5".as_slice(), &0i128.to_le_bytes(), b"+"].concat();
    let mut members = [
        (xxh3_64(b"model"), xxh3_64_with_seed(b"m", 3)),
        (xxh3_64(b"tokens"), xxh3_64_with_seed(&number, 4)),
    ];
    members.sort_unstable();
    let members = members.map(|(key, value)| [key.to_be_bytes(), value.to_be_bytes()].concat());
    let data = xxh3_64_with_seed(&members.concat(), 1);
    let content = [attributes(), part(&data.to_le_bytes())].concat();
    let content = xxh3_64_with_seed(&content, 2).cast_signed();
    assert_eq!(decoded.hash(0), Some(content));
    let batch = decoded.batch();
    let versions: &Int32Array = batch["content_version"].as_primitive();
    assert_eq!(versions, &Int32Array::from(vec![2]));

    let first = [attributes(), part(DATA.as_bytes())].concat();
    let first = Some(xxh3_64(&first).cast_signed());
    assert_eq!(decoded.first_content(&messages, 0), first);
    assert_eq!(decoded.first_content(&messages, 1), None);
}

#[test]
fn every_form_of_an_event_has_the_hash_of_the_first_version_that_it_had() {
    let first = [attributes(), part(DATA.as_bytes())].concat();
    let first = Some(xxhash_rust::xxh3::xxh3_64(&first).cast_signed());
    let text = with_data(DATA);
    for message in [
        message(format!(" {text}\n"), LINES),
        message(format!("[ {text} ]"), BATCH),
        message(format!(" {DATA} "), BINARY),
    ] {
        let messages = [message];
        let decoded = decoder(DecodeOptions::default()).decode(&messages).unwrap();
        assert_eq!(decoded.first_content(&messages, 0), first);
    }
}

#[test]
fn an_event_that_is_serialised_anew_says_the_same() {
    let first = one(with_data(
        r#"{"model":"m/é","tokens":40000000,"billing":{"cost":1.50},"a":[1,null]}"#,
    ));
    for again in [
        r#"{"a":[1,null],"billing":{"cost":1.5},"tokens":4e7,"model":"m/é"}"#,
        "{ \"model\": \"m\\/\\u00e9\",\n\t\"tokens\": 40000000.0, \"billing\": { \"cost\": 15E-1 }, \"a\": [ 1.0, null ] }",
    ] {
        assert_eq!(one(with_data(again)).hash(0), first.hash(0), "{again}");
        // The attributes may have another order too, and the time another offset.
        let text = format!(
            r#"{{"data":{again},"time":"2026-08-01T01:54:00.000+02:00","subject":"\u0063ust","type":"llm.completion","source":"api","id":"1","specversion":"1.0","traceparent":"00"}}"#
        );
        assert_eq!(one(&text).hash(0), first.hash(0), "{text}");
        assert_eq!(one(&text).keys, first.keys);
    }
    for other in [
        r#"{"model":"m/é","tokens":40000001,"billing":{"cost":1.50},"a":[1,null]}"#,
        r#"{"model":"m/é","tokens":"40000000","billing":{"cost":1.50},"a":[1,null]}"#,
        r#"{"model":"m/é","tokens":40000000,"billing":{"cost":1.50},"a":[null,1]}"#,
        r#"{"model":"m/é","tokens":40000000,"billing":{"cost":1.50},"a":[1]}"#,
        r#"{"model":"m/é","tokens":40000000,"billing":{"cost":1.50,"a":[1,null]}}"#,
    ] {
        assert_ne!(one(with_data(other)).hash(0), first.hash(0), "{other}");
    }
}

#[test]
fn pairs_that_join_to_the_same_text_have_different_keys() {
    assert_ne!(event_key("a", "bc"), event_key("ab", "c"));
    assert_ne!(event_key("a-b", "c"), event_key("a", "b-c"));
    assert_eq!(event_key("a", "bc"), event_key("a", "bc"));
}

#[test]
fn any_change_of_content_changes_its_hash() {
    let base = with_data(DATA);
    let changed = [
        base.replace("cust", "cusu"),
        base.replace("llm.completion", "every"),
        base.replace("23:54:00Z", "23:54:00.000001Z"),
        base.replace("\"tokens\":5", "\"tokens\":6"),
        base.replace(r#","data""#, r#","x""#),
        base.replace(r#""time""#, r#""x""#),
        base.replace("23:54:00Z", "x"),
    ];
    let mut hashes: Vec<_> = changed
        .iter()
        .map(|text| one(text).hash(0).unwrap())
        .collect();
    hashes.push(one(&base).hash(0).unwrap());
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 8);
}

#[test]
fn without_a_time_the_event_happened_when_it_was_stored_and_a_repeat_is_a_repeat() {
    let text = with_data(DATA).replace(r#""time":"2026-07-31T23:54:00Z""#, r#""time":null"#);
    let mut again = message(&text, &[]);
    again.ingest_time_us += 5;
    let decoded = decoder(DecodeOptions::default())
        .decode(&[message(&text, &[]), again])
        .unwrap();
    assert_eq!(
        (decoded.time(0), decoded.time(1)),
        (Some(INGEST), Some(INGEST + 5))
    );
    assert_eq!(decoded.hash(0), decoded.hash(1));
    assert_eq!(decoded.statuses, [Status::Ok; 2]);
}

#[test]
fn escapes_are_undone_in_keys_and_values() {
    let text = r#"{"specversion":"1.0","\u0069d":"a\"\u00e9","source":"api","type":"llm.\u0063ompletion","subject":"\ud83d\ude00","data":{"mod\u0065l":"x\ny","tokens":1}}"#;
    let decoded = one(text);
    assert_eq!(decoded.statuses, [Status::Ok]);
    assert_eq!(decoded.text("event_id", 0), Some("a\"é"));
    assert_eq!(decoded.text("subject", 0), Some("\u{1F600}"));
    assert_eq!(decoded.keys, [event_key("api", "a\"é")]);
    assert_eq!(
        decoded
            .cells("completion")
            .column(0)
            .as_string::<i32>()
            .value(0),
        "x\ny"
    );
}

#[test]
fn what_is_not_declared_goes_to_extra_as_it_was_written() {
    let extra = |data: &str| one(with_data(data)).text("extra", 0).map(str::to_owned);
    assert_eq!(extra(DATA), None);
    assert_eq!(
        extra(r#"{"a": 1.50 , "model":"m","b\u0062":{"x":[1, 2]},"tokens":1}"#).as_deref(),
        Some(r#"{"a":1.50,"b\u0062":{"x":[1, 2]}}"#)
    );
    assert_eq!(
        extra(r#"{"billing":{"cost":1},"model":"m","tokens":1}"#),
        None
    );
    assert_eq!(extra(r#"{"billing":{},"model":"m","tokens":1}"#), None);
    assert_eq!(
        extra(r#"{"z":0,"billing":{"tax":1,"cost":1,"who":{"payer":"p","x":{}},"y":2},"model":"m","tokens":1}"#).as_deref(),
        Some(r#"{"z":0,"billing":{"tax":1,"who":{"x":{}},"y":2}}"#)
    );
}

#[test]
fn null_and_missing_are_null_where_that_is_allowed() {
    for data in [
        r#"{"model":"m","tokens":5,"region":null,"billing":null}"#,
        DATA,
    ] {
        let decoded = one(with_data(data));
        assert_eq!(decoded.statuses, [Status::Ok]);
        assert!(
            [1, 3, 4]
                .iter()
                .all(|c| decoded.cells("completion").column(*c).is_null(0))
        );
    }
    let required = "field `model` is required but missing or null";
    assert_eq!(data_reason(r#"{"tokens":5}"#), required);
    assert_eq!(data_reason(r#"{"tokens":5,"model":null}"#), required);
    let no_data = "field `model` is required but missing or null; the event has no `data`";
    assert_eq!(data_reason("null"), no_data);
    assert_eq!(
        reason(with_data(DATA).replace(r#","data""#, r#","x""#)),
        no_data
    );
    assert_eq!(one(event("1", "every", "null")).statuses, [Status::Ok]);
}

#[test]
fn a_missing_or_wrong_attribute_is_named() {
    let good = with_data(DATA);
    let cases = [
        (r#""id":"1","#, "", "`id` is missing"),
        (r#""id":"1""#, r#""id":null"#, "`id` is missing"),
        (r#""id":"1""#, r#""id":"""#, "`id` is empty"),
        (
            r#""id":"1""#,
            r#""id":17"#,
            "`id` must be a string, got a number (17)",
        ),
        (r#""source":"api","#, "", "`source` is missing"),
        (
            r#""source":"api""#,
            r#""source":["a"]"#,
            "`source` must be a string, got an array",
        ),
        (r#""type":"llm.completion","#, "", "`type` is missing"),
        (
            r#""type":"llm.completion""#,
            r#""type":{}"#,
            "`type` must be a string, got an object",
        ),
        (r#""subject":"cust","#, "", "`subject` is missing"),
        (
            r#""subject":"cust""#,
            r#""subject":true"#,
            "`subject` must be a string, got a boolean (true)",
        ),
        (r#""specversion":"1.0","#, "", "`specversion` is missing"),
        (
            r#""1.0""#,
            r#""0.3""#,
            "`specversion` must be \"1.0\", got \"0.3\"",
        ),
        (
            r#""1.0""#,
            "1.0",
            "`specversion` must be a string, got a number (1.0)",
        ),
        (
            r#""id":"1""#,
            r#""id":"1","id":"1""#,
            "key `id` is given twice",
        ),
        (
            r#""id":"1""#,
            r#""id":"1","i\u0064":"2""#,
            "key `id` is given twice",
        ),
        (
            r#""id":"1""#,
            r#""id":"1","x":1,"y":1,"x":2"#,
            "key `x` is given twice",
        ),
        (r#"}}"#, r#"},"data":{}}"#, "key `data` is given twice"),
        (
            r#""id":"1""#,
            r#""id":"1","datacontenttype":"text/xml""#,
            "data of content type `text/xml` is not JSON",
        ),
        (
            r#""data":{"#,
            r#""data_base64":"eA==","data":{"#,
            "`data` and `data_base64` are both given",
        ),
    ];
    for (from, to, expected) in cases {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        assert_eq!(reason(&text), expected, "{text}");
    }
}

#[test]
fn data_in_base64_is_read_as_the_json_that_it_is() {
    let good = with_data(DATA);
    // {"model":"m","tokens":5}, as base64(1) encodes it.
    let encoded = "eyJtb2RlbCI6Im0iLCJ0b2tlbnMiOjV9";
    let with_base64 = |value: &str| {
        good.replace(
            &format!(r#""data":{DATA}"#),
            &format!(r#""data_base64":{value}"#),
        )
    };
    let (plain, decoded) = (one(&good), one(with_base64(&format!("\"{encoded}\""))));
    assert_eq!(decoded.statuses, [Status::Ok]);
    assert_eq!(decoded.cells("completion"), plain.cells("completion"));
    // The same event, in either form.
    assert_eq!(
        (decoded.hash(0), &decoded.keys),
        (plain.hash(0), &plain.keys)
    );
    let lines = format!("{}\n{good}", with_base64(&format!("\"{encoded}\"")));
    assert_eq!(decode(message(lines, LINES)).statuses, [Status::Ok; 2]);
    // An escape in the text, blanks around the JSON, and `null` beside data.
    let spaced = "IHsibW9kZWwiOiJtIiwidG9rZW5zIjo1fQo\\u003d";
    assert_eq!(
        one(with_base64(&format!("\"{spaced}\""))).hash(0),
        plain.hash(0)
    );
    let beside = good.replacen(r#""data""#, r#""data_base64":null,"data""#, 1);
    assert_eq!(one(beside).statuses, [Status::Ok]);
    assert_eq!(
        reason(with_base64("null")),
        "field `model` is required but missing or null; the event has no `data`"
    );
    for (value, said) in [
        ("5", "`data_base64`: expected a string, got a number (5)"),
        (r#""e*A=""#, "`data_base64`: it is not base64"),
        (
            r#""eA==""#,
            "`data_base64`: not valid JSON at byte 0: expected a value",
        ),
        (r#""/w==""#, "`data_base64`: not valid UTF-8 at byte 0"),
        (r#""Wzdd""#, "`data` must be an object, got an array"),
    ] {
        assert_eq!(reason(with_base64(value)), said);
    }
    let of_xml =
        with_base64("\"PGEvPg==\"").replacen(r#""id""#, r#""datacontenttype":"text/xml","id""#, 1);
    assert_eq!(
        reason(of_xml),
        "data of content type `text/xml` is not JSON"
    );
}

#[test]
fn a_byte_order_mark_before_a_payload_is_skipped() {
    let good = with_data(DATA);
    assert_eq!(one(format!("\u{feff}{good}")).statuses, [Status::Ok]);
    let lines = format!("\u{feff}{good}\n{good}\n");
    assert_eq!(decode(message(lines, LINES)).statuses, [Status::Ok; 2]);
    let array = format!("\u{feff}[{good}]");
    assert_eq!(decode(message(array, BATCH)).statuses, [Status::Ok]);
    assert_eq!(
        decode(message(format!("\u{feff}{DATA}"), BINARY)).statuses,
        [Status::Ok]
    );
    // Anywhere else it is no JSON.
    let lines = format!("{good}\n\u{feff}{good}");
    assert_eq!(
        decode(message(lines, LINES)).statuses,
        [Status::Ok, Status::Rejected]
    );
}

#[test]
fn events_without_their_content_type_are_told_of_the_header() {
    let good = with_data(DATA);
    let bytes = good.len() + 1;
    assert_eq!(
        reason(format!("{good}\n{good}\n")),
        format!(
            "another JSON object follows at byte {bytes}: one event a line needs the header `content-type: \
             application/x-ndjson`"
        )
    );
    assert_eq!(
        reason(format!("[{good}]")),
        "an event must be a JSON object, got an array; an array of events needs the header `content-type: \
         application/cloudevents-batch+json`"
    );
    for (text, said) in [
        ("nonsense", "not valid JSON at byte 0: expected a value"),
        (
            "trueish",
            "not valid JSON at byte 4: something follows the end of the value",
        ),
        ("[1,", "not valid JSON at byte 3: the text ends too early"),
        (
            "\"open",
            "not valid JSON at byte 5: the text ends too early",
        ),
        ("-", "not valid JSON at byte 1: the text ends too early"),
        ("7", "an event must be a JSON object, got a number (7)"),
    ] {
        assert_eq!(reason(text), said, "{text}");
    }
}

#[test]
fn a_rejected_event_keeps_what_could_be_read() {
    let decoded = one(
        r#"{"id":"9","id":"8","source":"api","type":"t","subject":"s","time":"2026-07-31T23:54:00Z"}"#,
    );
    assert_eq!(decoded.statuses, [Status::Rejected]);
    assert_eq!(decoded.text("event_id", 0), Some("9"));
    assert_eq!(decoded.text("subject", 0), Some("s"));
    assert_eq!(decoded.time(0), Some(INGEST - 60_000_000));
    assert_eq!(decoded.keys, [event_key("api", "9")]);

    let broken = one(r#"{"id":"9","source":"api","data":{"a":}"#);
    assert_eq!(broken.text("event_id", 0), Some("9"));
    assert_eq!((broken.text("subject", 0), broken.time(0)), (None, None));
    assert_eq!(broken.keys, [event_key("api", "9")]);

    let bad_bytes = one(b"{\"id\":\"9\",\"source\":\"api\",\"subject\":\"\xff\"}");
    assert_eq!(
        bad_bytes.text("reason", 0),
        Some("not valid UTF-8 at byte 36")
    );
    assert_eq!(bad_bytes.text("source", 0), Some("api"));

    let unknown = one(r#"{"id":"9","data":{}}"#);
    assert_eq!((unknown.keys[0], unknown.hash(0)), (0, None));
}

#[test]
fn an_unknown_type_is_unmatched_and_kept() {
    let text = event("1", "gpu.seconds", r#"{"n":1}"#);
    let decoded = one(&text);
    assert_eq!(decoded.statuses, [Status::Unmatched]);
    assert_eq!(decoded.text("status", 0), Some("unmatched"));
    assert_eq!(
        decoded.text("reason", 0),
        Some("no event type is defined for `gpu.seconds`")
    );
    assert_eq!(decoded.kept(0), Some(text.as_bytes()));
    assert!(decoded.keys[0] != 0 && decoded.hash(0).is_some());
    // The type that its publisher may have meant is found by whom the caller names.
    let nearest_type = NearestType(|kind, known| {
        let begins = kind.get(..5)?;
        known.iter().position(|known| known.starts_with(begins))
    });
    let options = DecodeOptions {
        nearest_type,
        ..DecodeOptions::default()
    };
    let said = |kind: &str| {
        let message = message(event("1", kind, r#"{"n":1}"#), &[]);
        let decoded = decoder(options.clone()).decode(&[message]).unwrap();
        decoded.text("reason", 0).map(str::to_owned)
    };
    assert_eq!(
        said("llm.compl").as_deref(),
        Some("no event type is defined for `llm.compl`; did you mean `llm.completion`?")
    );
    assert_eq!(
        said("gpu.seconds").as_deref(),
        Some("no event type is defined for `gpu.seconds`")
    );
}

#[test]
fn numbers_are_exact_or_refused_with_the_field() {
    let tokens = |number: &str| {
        let decoded = one(with_data(&format!(r#"{{"model":"m","tokens":{number}}}"#)));
        let tokens = Arc::clone(decoded.cells("completion").column(2));
        let tokens: &Int64Array = tokens.as_primitive();
        match decoded.text("reason", 0) {
            None => Ok(tokens.value(0)),
            Some(reason) => Err(reason.to_owned()),
        }
    };
    let refused = |text: &str| Err(text.to_owned());
    assert_eq!(tokens("9007199254740993"), Ok(9_007_199_254_740_993));
    assert_eq!(tokens("9223372036854775807"), Ok(i64::MAX));
    assert_eq!(tokens("5.0"), Ok(5));
    assert_eq!(tokens("1e3"), Ok(1000));
    assert_eq!(tokens("-0"), Ok(0));
    assert_eq!(
        tokens("9223372036854775808"),
        refused("field `tokens`: 9223372036854775808 is out of range for BIGINT")
    );
    assert_eq!(
        tokens("1.5"),
        refused("field `tokens`: 1.5 has more fraction digits than BIGINT")
    );
    assert_eq!(
        tokens("1e400"),
        refused("field `tokens`: 1e400 is out of range for BIGINT")
    );
    assert_eq!(
        tokens("\"5\""),
        refused(
            "field `tokens`: expected BIGINT, got a string (\"5\"); send a number without quotes, or \
             declare the column with OPTIONS (strings = 'true')"
        )
    );
    assert_eq!(
        tokens("true"),
        refused("field `tokens`: expected BIGINT, got a boolean (true)")
    );
    assert_eq!(
        tokens("[5]"),
        refused("field `tokens`: expected BIGINT, got an array")
    );
    assert_eq!(
        tokens(&"1".repeat(101)),
        refused("field `tokens`: a number of 101 bytes, above the limit of 100")
    );
    let shown = "1".repeat(40);
    assert_eq!(
        tokens(&"1".repeat(100)),
        refused(&format!(
            "field `tokens`: {shown}… is out of range for BIGINT"
        ))
    );
    for bad in ["NaN", "007", "+1", ".5", "0x1F", "Infinity", "1_000"] {
        assert!(
            tokens(bad)
                .unwrap_err()
                .starts_with("not valid JSON at byte "),
            "{bad}"
        );
    }
    assert_eq!(
        data_reason(r#"{"model":"m","tokens":1,"billing":{"cost":1.0000000001}}"#),
        "field `cost` at `$.billing.cost`: 1.0000000001 has more fraction digits than DECIMAL(18, 9)"
    );
    assert_eq!(
        data_reason(r#"{"model":"m","tokens":1,"billing":{"cost":1e9}}"#),
        "field `cost` at `$.billing.cost`: 1e9 is out of range for DECIMAL(18, 9)"
    );
}

#[test]
fn other_types_take_only_their_own_form() {
    let cases = [
        (
            r#"{"flag":"true"}"#,
            "field `flag`: expected BOOLEAN, got a string (\"true\")",
        ),
        (
            r#"{"flag":1}"#,
            "field `flag`: expected BOOLEAN, got a number (1)",
        ),
        (
            r#"{"day":20665}"#,
            "field `day`: expected DATE, got a number (20665)",
        ),
        (
            r#"{"day":"2026-7-31"}"#,
            "field `day`: \"2026-7-31\" is not in the right form (YYYY-MM-DD)",
        ),
        (
            r#"{"day":"2026-02-30"}"#,
            "field `day`: \"2026-02-30\" does not exist in the calendar (YYYY-MM-DD)",
        ),
        (
            r#"{"at":1785542100}"#,
            "field `at`: expected TIMESTAMP, got a number (1785542100)",
        ),
        (
            r#"{"at":"2026-07-31"}"#,
            "field `at`: \"2026-07-31\" is not in the right form (RFC 3339 with an offset)",
        ),
        (
            r#"{"at":"2026-07-31T00:00:00.000000001Z"}"#,
            "field `at`: \"2026-07-31T00:00:00.000000001Z\" is finer than a microsecond",
        ),
        (
            r#"{"flag":true,"flag":true}"#,
            "key `flag` is given twice in `data`",
        ),
        (
            r#"{"flag":true,"fl\u0061g":true}"#,
            "key `flag` is given twice in `data`",
        ),
        (r#"{"x":1,"y":2,"x":1}"#, "key `x` is given twice in `data`"),
        ("[]", "`data` must be an object, got an array"),
        (r#""{}""#, "`data` must be an object, got a string (\"{}\")"),
    ];
    for (data, expected) in cases {
        assert_eq!(every_reason(data), expected, "{data}");
    }
    assert_eq!(
        data_reason(r#"{"model":5,"tokens":1}"#),
        "field `model`: expected VARCHAR, got a number (5)"
    );
    assert_eq!(
        data_reason(r#"{"model":"m","tokens":1,"billing":5}"#),
        "`$.billing` must be an object, got a number (5)"
    );
    assert_eq!(
        data_reason(r#"{"model":"m","tokens":1,"billing":{"who":{"a":1,"a":2}}}"#),
        "key `a` is given twice in `$.billing.who`"
    );
}

#[test]
fn many_undeclared_keys_are_still_compared() {
    let keys = |last: &str| {
        let members: Vec<_> = (0..5000).map(|i| format!("\"k{i}\":1")).collect();
        format!("{{{},\"{last}\":1}}", members.join(","))
    };
    assert_eq!(
        every_reason(&keys("k77")),
        "key `k77` is given twice in `data`"
    );
    assert_eq!(
        one(event("1", "every", &keys("other"))).statuses,
        [Status::Ok]
    );
}

#[test]
fn an_event_may_be_five_minutes_ahead_and_no_more() {
    let at = |time: &str| one(with_data(DATA).replace("2026-07-31T23:54:00Z", time));
    assert_eq!(at("2026-08-01T00:00:00Z").statuses, [Status::Ok]);
    let ahead = at("2026-08-01T00:00:00.000001Z");
    let expected =
        "`time` is 5 minutes 0.000001 seconds after the ingest time, above the limit of 5 minutes";
    assert_eq!(ahead.text("reason", 0), Some(expected));
    assert_eq!(ahead.time(0), Some(INGEST + 300_000_001));
    assert_eq!(at("9999-12-31T23:59:59Z").statuses, [Status::Rejected]);
    assert_eq!(at("2026-08-01T00:00:00.000000999Z").statuses, [Status::Ok]);
}

#[test]
fn a_time_that_cannot_be_read_is_refused() {
    let at = |time: &str| reason(with_data(DATA).replace("\"2026-07-31T23:54:00Z\"", time));
    assert_eq!(
        at("\"yesterday\""),
        "`time` \"yesterday\" is not in the right form (RFC 3339 with an offset, such as 2026-01-15T10:00:00Z)"
    );
    assert_eq!(
        at("1785542100"),
        "`time` must be a string, got a number (1785542100)"
    );
    assert_eq!(at("\"\""), "`time` is empty");
    assert_eq!(at("\"0001-01-01T00:00:00Z\""), "`time` is before 1970");
    assert_eq!(
        at("\"2016-12-31T23:59:60Z\""),
        "`time` \"2016-12-31T23:59:60Z\" is a leap second, which cannot be stored (RFC 3339 with an offset, such as 2026-01-15T10:00:00Z)"
    );
}

#[test]
fn a_payload_that_is_no_event_is_one_rejected_row() {
    let cases: [(&[u8], &str); 11] = [
        (b"", "the payload is empty"),
        (b" \n ", "the payload is empty"),
        (b"hello", "not valid JSON at byte 0: expected an object"),
        (b"null", "an event must be a JSON object, got null"),
        (b"17", "an event must be a JSON object, got a number (17)"),
        (
            b"[]",
            "an event must be a JSON object, got an array; an array of events needs the header `content-type: \
             application/cloudevents-batch+json`",
        ),
        (b"{}", "`specversion` is missing"),
        (b"{", "not valid JSON at byte 1: the text ends too early"),
        (
            b"{\"a\":1",
            "not valid JSON at byte 6: the text ends too early",
        ),
        (
            b"{\"a\":1} x",
            "not valid JSON at byte 8: something follows the end of the value",
        ),
        (b"\xff\xfe", "not valid UTF-8 at byte 0"),
    ];
    for (payload, expected) in cases {
        assert_eq!(reason(payload), expected, "{payload:?}");
    }
    for headers in [LINES, BATCH] {
        assert_eq!(decode(message("", headers)).statuses, [Status::Rejected]);
    }
    assert_eq!(
        rejection(message(" \n\n", LINES)),
        "the payload holds no event"
    );
    assert_eq!(
        rejection(message(" [ ] ", BATCH)),
        "the payload holds no event"
    );
    assert_eq!(
        rejection(message("{}", BATCH)),
        "batch: not valid JSON at byte 0: expected an array"
    );
    let odd = [("Content-Type", "text/plain")];
    assert_eq!(
        rejection(message(with_data(DATA), &odd)),
        "content type `text/plain` is not read"
    );
    let avro = [
        ("Content-Type", "application/cloudevents+avro"),
        ("ce-id", "1"),
    ];
    assert!(
        rejection(message("x", &avro)).starts_with("content type `application/cloudevents+avro`")
    );
    let twice = [
        ("Content-Type", "application/json"),
        ("content-type", "application/x-ndjson"),
    ];
    assert_eq!(
        rejection(message("x", &twice)),
        "header `content-type` is given twice"
    );
}

#[test]
fn a_bad_line_harms_no_other_line() {
    let good = |id: &str| event(id, "llm.completion", DATA).into_bytes();
    let mut bad: Vec<Vec<u8>> = vec![
        b"{".to_vec(),
        b"garbage".to_vec(),
        b"\xff\xff".to_vec(),
        b"[1,2]".to_vec(),
        b"{\"specversion\":\"1.0\"".to_vec(),
        b"\"".to_vec(),
        b"{\"a\":\"\\ud800\"}".to_vec(),
        "[".repeat(100_000).into_bytes(),
    ];
    bad.push(good("x")[..50].to_vec());
    let mut payload = Vec::new();
    for (number, line) in bad.iter().enumerate() {
        payload.extend(
            [
                good(&number.to_string()),
                b"\n".to_vec(),
                line.clone(),
                b"\n".to_vec(),
            ]
            .concat(),
        );
    }
    let decoded = decode(message(&payload, LINES));
    assert_eq!(decoded.keys.len(), 2 * bad.len());
    for (number, line) in bad.iter().enumerate() {
        let id = number.to_string();
        assert_eq!(decoded.statuses[2 * number], Status::Ok);
        assert_eq!(decoded.text("event_id", 2 * number), Some(id.as_str()));
        assert_eq!(decoded.statuses[2 * number + 1], Status::Rejected);
        assert_eq!(decoded.kept(2 * number + 1), Some(line.as_slice()));
    }
    let ordinal: &Int32Array = decoded
        .events
        .head()
        .column_by_name("ordinal")
        .unwrap()
        .as_primitive();
    assert!(ordinal.values().iter().copied().eq(0..18));
}

#[test]
fn a_bad_element_of_an_array_is_refused_alone() {
    let good = |id: &str| event(id, "llm.completion", DATA);
    let mut payload = format!("[{}, 5 ,{}", good("1"), good("2")).into_bytes();
    payload.extend(b", {\"id\":\"\xff\"} , {\"id\":\"\\udc00\"}, ");
    payload.extend("[".repeat(200).bytes().chain("]".repeat(200).bytes()));
    payload.extend(format!(", {{}} ,{}]", good("3")).bytes());
    let decoded = decode(message(&payload, BATCH));
    let expected = [
        ("ok", Some("1")),
        ("rejected", None),
        ("ok", Some("2")),
        ("rejected", None),
        ("rejected", None),
        ("rejected", None),
        ("rejected", None),
        ("ok", Some("3")),
    ];
    assert_eq!(decoded.statuses_and_ids(), expected);
    assert_eq!(decoded.kept(1), Some(b"5".as_slice()));
    assert_eq!(decoded.kept(3), Some(b"{\"id\":\"\xff\"}".as_slice()));
    assert_eq!(
        decoded.text("reason", 4),
        Some("not valid JSON at byte 7: a lone surrogate in a string")
    );
}

#[test]
fn a_broken_array_keeps_the_elements_before_the_break() {
    let good = |id: &str| event(id, "llm.completion", DATA);
    let two = format!("[{},{}", good("1"), good("2"));
    for (tail, kept) in [
        ("", ""),
        (",", ""),
        (",{\"id\":\"3\"", "{\"id\":\"3\""),
        (" x", " x"),
        ("] x", "] x"),
        ("}", "}"),
        (", nope, {}]", " nope, {}]"),
        (" {}]", " {}]"),
    ] {
        let decoded = decode(message(format!("{two}{tail}"), BATCH));
        let expected = [("ok", Some("1")), ("ok", Some("2")), ("rejected", None)];
        assert_eq!(decoded.statuses_and_ids(), expected, "{tail}");
        assert!(
            decoded
                .text("reason", 2)
                .unwrap()
                .starts_with("batch: not valid JSON at byte "),
            "{tail}"
        );
        assert_eq!(decoded.kept(2), Some(kept.as_bytes()), "{tail}");
    }
    // After a quote that is missing, strings and structure change places: nothing after it is taken.
    let inside_out = format!("[{},{{\"id\":\"1}},{}]", good("1"), good("2"));
    let decoded = decode(message(inside_out, BATCH));
    assert_eq!(decoded.statuses, [Status::Ok, Status::Rejected]);
}

#[test]
fn binary_mode_is_kept_so_that_it_can_be_decoded_again() {
    let unknown = |payload: &[u8], more: &[(&str, &str)]| {
        let mut headers = BINARY.to_vec();
        headers[1] = ("Ce-Id", "a%22%C3%A9");
        headers[3] = ("ce-type", "gpu");
        headers.extend(more);
        let message = message(payload, &headers);
        let decoded = decode(message.clone());
        let raw = decoded.kept(0).map(<[u8]>::to_vec);
        assert_eq!(decoded.raw(&[message], 0).as_deref(), raw.as_deref());
        (decoded, String::from_utf8(raw.unwrap()).unwrap())
    };
    let head = r#"{"specversion":"1.0","id":"a\"é","source":"api","type":"gpu","subject":"cust","time":"2026-07-31T23:54:00Z""#;
    let (first, raw) = unknown(b" {\"n\": 1.50}\n", &[]);
    assert_eq!(raw, format!("{head},\"data\":{{\"n\": 1.50}}}}"));
    let again = one(&raw);
    assert_eq!(again.statuses, [Status::Unmatched]);
    assert_eq!(
        (again.keys[0], again.hash(0)),
        (first.keys[0], first.hash(0))
    );

    let (xml, raw) = unknown(b"<a/>", &[("Content-Type", "text/xml"), ("ce-Ext", "x")]);
    assert_eq!(xml.statuses, [Status::Unmatched]);
    assert_eq!(
        raw,
        format!(
            "{head},\"ext\":\"x\",\"datacontenttype\":\"text/xml\",\"data_base64\":\"PGEvPg==\"}}"
        )
    );
    assert_eq!(unknown(b"", &[]).1, format!("{head}}}"));
}

#[test]
fn binary_mode_refuses_what_it_cannot_read() {
    let with = |payload: &[u8], change: &[(&str, &str)]| {
        let mut headers = BINARY.to_vec();
        headers.extend(change);
        rejection(message(payload, &headers))
    };
    let data = DATA.as_bytes();
    assert_eq!(
        with(data, &[("CE-ID", "2")]),
        "header `ce-id` is given twice"
    );
    assert_eq!(
        with(b"{", &[]),
        "payload: not valid JSON at byte 1: the text ends too early"
    );
    assert_eq!(
        with(b"{\"a\":\"\xff\"}", &[]),
        "payload: not valid UTF-8 at byte 6"
    );
    assert_eq!(
        with(b"{\"a\":\"\\ud800\"}", &[]),
        "payload: not valid JSON at byte 6: a lone surrogate in a string"
    );
    assert_eq!(
        with(b"5", &[]),
        "`data` must be an object, got a number (5)"
    );
    assert_eq!(
        with(b"", &[]),
        "field `model` is required but missing or null; the event has no `data`"
    );
    assert_eq!(
        with(b"<a/>", &[("content-type", "text/xml")]),
        "data of content type `text/xml` is not JSON"
    );
    let mut headers = BINARY.to_vec();
    headers[4] = ("ce-subject", "%ff");
    assert_eq!(
        rejection(message(data, &headers)),
        "header `ce-subject` is not valid percent-encoded UTF-8"
    );
    let kept = decode(message(data, &headers));
    assert_eq!(kept.text("event_id", 0), Some("1"));
    assert_eq!(
        rejection(message(data, &BINARY[1..])),
        "`specversion` is missing"
    );
}

#[test]
fn sizes_have_limits() {
    let text = with_data(DATA);
    let limited = |max_event_bytes, max_payload_bytes, message: &Message| {
        let options = DecodeOptions {
            max_event_bytes,
            max_payload_bytes,
            ..DecodeOptions::default()
        };
        let decoded = decoder(options)
            .decode(std::slice::from_ref(message))
            .unwrap();
        let last = decoded.keys.len() - 1;
        decoded.text("reason", last).map(str::to_owned)
    };
    let (length, single) = (text.len(), message(&text, &[]));
    assert_eq!(limited(length, length, &single), None);
    let event = format!("event of {length} bytes, above the limit of {}", length - 1);
    assert_eq!(limited(length - 1, length, &single), Some(event.clone()));
    assert_eq!(
        limited(
            length - 1,
            2 * length + 1,
            &message(format!("{text}\n{text}"), LINES)
        ),
        Some(event)
    );
    let payload = format!(
        "payload of {length} bytes, above the limit of {}",
        length - 1
    );
    assert_eq!(limited(length, length - 1, &single), Some(payload));
}

#[test]
fn a_message_of_nothing_but_tiny_lines_makes_a_bounded_number_of_rows() {
    let payload = "x\n".repeat(50_000);
    let decoded = decode(message(&payload, LINES));
    assert_eq!(decoded.keys.len(), 64 + 12_500 + 1);
    assert_eq!(
        decoded.text("reason", 12_564),
        Some("more than 12564 events in 100000 bytes")
    );
    assert_eq!(
        decoded.kept(12_564).map(<[u8]>::len),
        Some(100_000 - 2 * 12_564)
    );
    let decoded = decode(message(format!("[{}1]", "1,".repeat(50_000)), BATCH));
    assert!(decoded.keys.len() < 13_000);
}

#[test]
fn rows_are_in_order_of_sequence_and_ordinal() {
    let mut messages = vec![
        message(format!("{}\n{}", with_data(DATA), with_data(DATA)), LINES),
        message("", &[]),
        message(with_data(DATA), &[]),
    ];
    for (message, sequence) in messages.iter_mut().zip([3, 9, 10]) {
        message.sequence = Sequence(sequence);
    }
    let mut decoder = decoder(DecodeOptions::default());
    for _ in 0..2 {
        let decoded = decoder.decode(&messages).unwrap();
        let sequence: &Int64Array = decoded
            .events
            .head()
            .column_by_name("sequence")
            .unwrap()
            .as_primitive();
        let ordinal: &Int32Array = decoded
            .events
            .head()
            .column_by_name("ordinal")
            .unwrap()
            .as_primitive();
        assert_eq!(sequence.values(), &[3, 3, 9, 10]);
        assert_eq!(ordinal.values(), &[0, 1, 0, 0]);
    }
    let nothing = decoder.decode(&[]).unwrap();
    assert_eq!(
        (nothing.events.num_rows(), nothing.batch().schema()),
        (0, schema())
    );
}

#[test]
fn a_sequence_that_no_column_can_hold_is_an_error() {
    let mut message = message("", &[]);
    message.sequence = Sequence(u64::MAX);
    assert!(
        decoder(DecodeOptions::default())
            .decode(&[message])
            .is_err()
    );
}

#[test]
fn a_schema_that_cannot_be_filled_is_refused() {
    let problem = |schema: SchemaRef| match Decoder::new(schema, "s", DecodeOptions::default()) {
        Err(Error::Data { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    let of = |data_type| {
        schema_of(vec![event_type(
            "t",
            "t",
            vec![column("c", data_type, &["c"], false)],
        )])
    };
    assert_eq!(
        problem(of(DataType::Float64)),
        "column `c`: Float64 cannot be decoded"
    );
    assert_eq!(
        problem(of(DataType::Decimal128(5, -2))),
        "column `c` has a negative scale"
    );
    let pathless = schema_of(vec![event_type(
        "t",
        "t",
        vec![column("c", DataType::Utf8, &[], false)],
    )]);
    assert_eq!(problem(pathless), "column `c`: `[]` is no path");
    let twice = schema_of(vec![
        event_type("a", "t", vec![]),
        event_type("b", "t", vec![]),
    ]);
    assert_eq!(problem(twice), "two columns for the type `t`");
    let strange = Arc::new(Schema::new(vec![Field::new(
        "strange",
        DataType::Utf8,
        true,
    )]));
    assert_eq!(problem(strange), "no such column: `strange`");
    let keyless = schema_of(vec![Field::new(
        "t",
        DataType::Struct(Fields::empty()),
        true,
    )]);
    assert_eq!(problem(keyless), "column `t` has no `tollgate.type`");
}

#[test]
fn status_columns_can_be_made_anew() {
    let all = [
        Status::Ok,
        Status::Rejected,
        Status::Unmatched,
        Status::Late,
        Status::Conflict,
    ];
    let column = Status::column(&all);
    assert!(
        column
            .iter()
            .flatten()
            .eq(["ok", "rejected", "unmatched", "late", "conflict"])
    );
}

/// Texts near an event: a good one with some bytes changed, dropped or doubled.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let good = event(
        "1",
        "llm.completion",
        r#"{"model":"mé\n","tokens":5,"billing":{"cost":1.5e1,"x":[true]},"y":null}"#,
    );
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..4);
    edits.prop_map(move |edits| {
        let mut bytes = good.clone().into_bytes();
        for (index, byte, what) in edits {
            let at = index.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_in_any_form_make_at_least_one_row(payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), 0..4usize), 1..4)) {
        let forms = [&[], LINES, BATCH, BINARY];
        let messages: Vec<_> = payloads.iter().map(|(payload, form)| message(payload, forms[*form])).collect();
        let decoded = decoder(DecodeOptions::default()).decode(&messages).unwrap();
        prop_assert!(decoded.events.head().num_rows() >= messages.len());
        prop_assert_eq!(decoded.events.head().num_rows(), decoded.keys.len());
    }

    #[test]
    fn a_damaged_event_is_taken_only_if_it_is_json(bytes in damaged()) {
        let decoded = one(&bytes);
        let oracle = serde_json::from_slice::<serde_json::Value>(&bytes);
        if decoded.statuses[0] == Status::Ok {
            prop_assert!(oracle.is_ok());
            prop_assert!(decoded.text("extra", 0).is_none_or(|extra| serde_json::from_str::<serde_json::Value>(extra).is_ok()));
        } else {
            prop_assert_eq!(decoded.kept(0), Some(bytes.as_slice()));
        }
        if oracle.is_err() {
            prop_assert_eq!(decoded.statuses[0], Status::Rejected);
        }
    }

    #[test]
    fn damage_in_one_line_or_element_leaves_the_next_message_alone(bytes in damaged()) {
        let bytes: Vec<u8> = bytes.into_iter().filter(|b| *b != b'\n').collect();
        let good = event("good", "llm.completion", DATA).into_bytes();
        let lines = decode(message([&good[..], b"\n", &bytes, b"\n", &good].concat(), LINES));
        prop_assert_eq!(lines.statuses[0], Status::Ok);
        prop_assert_eq!(*lines.statuses.last().unwrap(), Status::Ok);
        let array = decode(message([b"[", &good[..], b",", &bytes, b"]"].concat(), BATCH));
        prop_assert_eq!(array.statuses[0], Status::Ok);
        prop_assert!(array.keys.len() > 1 || bytes.is_empty());
    }

    #[test]
    fn whole_numbers_and_decimals_come_back_as_they_were_written(whole in any::<i64>(), micro in -999_999_999_999_999_999i64..=999_999_999_999_999_999) {
        let sign = if micro < 0 { "-" } else { "" };
        let cost = format!("{sign}{}.{:09}", micro.unsigned_abs() / 1_000_000_000, micro.unsigned_abs() % 1_000_000_000);
        let decoded = one(with_data(&format!(r#"{{"model":"m","tokens":{whole},"billing":{{"cost":{cost}}}}}"#)));
        let tokens = Arc::clone(decoded.cells("completion").column(2));
        let tokens: &Int64Array = tokens.as_primitive();
        let costs = Arc::clone(decoded.cells("completion").column(3));
        let costs: &Decimal128Array = costs.as_primitive();
        prop_assert_eq!((tokens.value(0), costs.value(0)), (whole, i128::from(micro)));
    }
}

/// Prints the rate on the kind of event the documents measure; run it by hand with `--ignored`.
#[test]
#[ignore = "a measurement, not a check"]
fn rate_of_decoding() {
    let columns =
        ["model", "region"].map(|name| column(name, DataType::Utf8, &[name], name == "model"));
    let counts =
        ["input_tokens", "output_tokens"].map(|name| column(name, DataType::Int64, &[name], true));
    let schema = schema_of(vec![event_type(
        "c",
        "llm.completion",
        columns.into_iter().chain(counts).collect(),
    )]);
    let mut decoder = Decoder::new(schema, "USAGE", DecodeOptions::default()).unwrap();
    let text = |id: u128| {
        format!(
            r#"{{"specversion":"1.0","id":"{id:032x}","source":"api-gateway","type":"llm.completion","subject":"cust_04441","time":"2026-07-31T23:55:00.000000Z","data":{{"model":"model-7","region":"us-west-2","input_tokens":4950,"output_tokens":1375}}}}"#
        )
    };
    for (form, size) in [(LINES, 100), (BATCH, 100), (&[] as &[_], 1)] {
        let payload = |m: u128| (0..size).map(|i| text(m * size + i)).collect::<Vec<_>>();
        let messages: Vec<_> = (0..20_000 / size)
            .map(|m| match form {
                BATCH => message(format!("[{}]", payload(m).join(",")), form),
                _ => message(payload(m).join("\n"), form),
            })
            .collect();
        let best = (0..30).map(|_| {
            let start = std::time::Instant::now();
            let decoded = decoder.decode(&messages).unwrap();
            assert!(decoded.statuses.iter().all(|s| *s == Status::Ok));
            start.elapsed()
        });
        let best = best.min().unwrap();
        println!(
            "{form:?} {size} a message: {} events/s",
            20_000 * 1_000_000_000 / best.as_nanos()
        );
    }
}

#[test]
fn a_message_whose_headers_cannot_be_read_is_one_rejected_row_with_all_its_bytes() {
    let block = b"NATS/1.0\r\nce-id: 1\r\nX: \xff\r\n\r\n";
    let payload = with_data(DATA);
    let mut poisoned = message(&payload, &[]);
    poisoned.unread = Some(crate::Unread {
        block: Bytes::from_static(block),
        problem: "not valid UTF-8 at byte 25".into(),
    });
    let messages = [poisoned, message(&payload, &[])];
    let decoded = decoder(DecodeOptions::default()).decode(&messages).unwrap();
    assert_eq!(decoded.statuses, [Status::Rejected, Status::Ok]);
    let text = |name: &str| {
        decoded
            .events
            .head()
            .column_by_name(name)
            .unwrap()
            .as_string::<i32>()
    };
    assert_eq!(
        text("reason").value(0),
        "headers: not valid UTF-8 at byte 25"
    );
    assert!(text("event_id").is_null(0) && text("subject").is_null(0));
    let raw = decoded.events.head().column_by_name("raw").unwrap();
    let expected = [&block[..], payload.as_bytes()].concat();
    assert_eq!(raw.as_binary::<i32>().value(0), expected);
    assert_eq!(decoded.raw(&messages, 0).unwrap(), expected);
    assert_eq!(decoded.keys[0], 0);
}
