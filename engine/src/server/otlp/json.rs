//! What the JSON of protocol buffers allows and a reader of plain JSON does not know (pure).
//!
//! Source: <https://protobuf.dev/programming-guides/json/>: a double may be one of the texts `NaN`, `Infinity` and `-Infinity`, and an enum may be its
//! name.

use serde_json::{Map, Value};

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// The same with enums as numbers, and without doubles that are no numbers: an attribute with one has no value.
pub(super) fn plain(mut value: Value) -> Value {
    simplify(&mut value);
    value
}

fn simplify(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Object(fields) => {
            let is_none =
                |value: &Value| matches!(value.as_str(), Some("NaN" | "Infinity" | "-Infinity"));
            if fields.get("doubleValue").is_some_and(is_none) {
                fields.remove("doubleValue");
            }
            number(fields, "kind", &KINDS);
            number(fields, "code", &CODES);
            fields.values_mut().for_each(simplify);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn number(fields: &mut Map<String, Value>, field: &str, names: &[&str]) {
    let named = fields.get(field).and_then(Value::as_str);
    if let Some(number) = named.and_then(|named| names.iter().position(|name| *name == named)) {
        fields.insert(field.to_owned(), Value::from(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_numbers_and_what_is_no_number_has_no_value() {
        let sent = json!({"spans": [{
            "kind": "SPAN_KIND_CLIENT", "status": {"code": "STATUS_CODE_ERROR", "message": "SPAN_KIND_CLIENT"},
            "attributes": [
                {"key": "a", "value": {"doubleValue": "NaN"}}, {"key": "b", "value": {"doubleValue": 0.5}},
                {"key": "c", "value": {"stringValue": "NaN"}}, {"key": "d", "value": {"doubleValue": "-Infinity"}},
            ],
        }]});
        let expected = json!({"spans": [{
            "kind": 3, "status": {"code": 2, "message": "SPAN_KIND_CLIENT"},
            "attributes": [
                {"key": "a", "value": {}}, {"key": "b", "value": {"doubleValue": 0.5}},
                {"key": "c", "value": {"stringValue": "NaN"}}, {"key": "d", "value": {}},
            ],
        }]});
        assert_eq!(plain(sent), expected);
    }
}
