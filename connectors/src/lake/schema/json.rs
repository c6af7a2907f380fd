//! Columns as the Delta log writes them.

use crate::error::{Error, Result};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The metadata of a column with a rule that every writer must check.
const INVARIANTS: &str = "delta.invariants";
const HINT: &str = "another tool changed it; restore it, or set another lake url";

/// A column as the log has it.
#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    r#type: Type,
    nullable: bool,
    #[serde(default)]
    metadata: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Type {
    Plain(String),
    Nested(Nested),
}

#[derive(Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum Nested {
    Struct {
        fields: Vec<Column>,
    },
    Array {
        element_type: Box<Type>,
        contains_null: bool,
    },
    Map {},
}

/// The columns in the log's form.
///
/// # Errors
/// [`Error::Data`] names the first column of a type that not every reader of Delta tables has, or that
/// would lose something.
pub(crate) fn to_delta(table: &str, schema: &Schema) -> Result<Value> {
    struct_to_delta("", schema.fields()).map_err(|problem| Error::Data {
        table: table.to_owned(),
        problem,
    })
}

fn struct_to_delta(under: &str, fields: &Fields) -> Result<Value, String> {
    let fields = fields.iter().map(|field| field_to_delta(under, field));
    let fields = fields.collect::<Result<Vec<Value>, String>>()?;
    Ok(json!({"type": "struct", "fields": fields}))
}

fn field_to_delta(under: &str, field: &Field) -> Result<Value, String> {
    let path = format!("{under}{}", field.name());
    Ok(json!({
        "name": field.name(),
        "type": type_to_delta(&path, field.data_type())?,
        "nullable": field.is_nullable(),
        "metadata": {},
    }))
}

fn type_to_delta(path: &str, data_type: &DataType) -> Result<Value, String> {
    Ok(match data_type {
        DataType::Utf8 => "string".into(),
        DataType::Int64 => "long".into(),
        DataType::Int32 => "integer".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Binary => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => {
            "timestamp".into()
        }
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            format!("decimal({precision},{scale})").into()
        }
        DataType::Struct(fields) => struct_to_delta(&format!("{path}."), fields)?,
        DataType::List(item) => json!({
            "type": "array",
            "elementType": type_to_delta(path, item.data_type())?,
            "containsNull": item.is_nullable(),
        }),
        other => {
            return Err(format!(
                "column `{path}` is {other}, which a table cannot keep"
            ));
        }
    })
}

/// The columns that the log's form says.
pub(crate) fn from_delta(table: &str, text: &str) -> Result<Schema> {
    let other = |problem: String| Error::OtherTable {
        table: table.to_owned(),
        problem,
        hint: HINT.to_owned(),
    };
    match serde_json::from_str(text) {
        Ok(Nested::Struct { fields }) => fields_of("", fields).map(Schema::new).map_err(other),
        Ok(_) => Err(other("its columns are not a struct".to_owned())),
        Err(error) => Err(other(format!("its columns cannot be read: {error}"))),
    }
}

fn fields_of(under: &str, columns: Vec<Column>) -> Result<Fields, String> {
    let fields = columns.into_iter().map(|column| {
        let path = format!("{under}{}", column.name);
        if column.metadata.contains_key(INVARIANTS) {
            return Err(format!("its column `{path}` has an invariant"));
        }
        let data_type = type_of(&path, column.r#type)?;
        Ok(Field::new(column.name, data_type, column.nullable))
    });
    fields.collect()
}

fn type_of(path: &str, r#type: Type) -> Result<DataType, String> {
    match r#type {
        Type::Plain(name) => {
            let unknown = || format!("its column `{path}` is {name}, which is not known");
            plain_type(&name).ok_or_else(unknown)
        }
        Type::Nested(Nested::Struct { fields }) => {
            fields_of(&format!("{path}."), fields).map(DataType::Struct)
        }
        Type::Nested(Nested::Array {
            element_type,
            contains_null,
        }) => {
            let element = type_of(path, *element_type)?;
            let element = Field::new("element", element, contains_null);
            Ok(DataType::List(Arc::new(element)))
        }
        Type::Nested(Nested::Map {}) => Err(format!("its column `{path}` is a map")),
    }
}

/// Types that a table does not keep are read too, so that a refusal can name them.
fn plain_type(name: &str) -> Option<DataType> {
    let decimal = || {
        let inner = name.strip_prefix("decimal(")?.strip_suffix(')')?;
        let (precision, scale) = inner.split_once(',')?;
        let (precision, scale): (u8, i8) =
            (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
        let fits = (1..=38).contains(&precision) && (0..=38).contains(&scale);
        fits.then_some(DataType::Decimal128(precision, scale))
    };
    Some(match name {
        "string" => DataType::Utf8,
        "long" => DataType::Int64,
        "integer" => DataType::Int32,
        "short" => DataType::Int16,
        "byte" => DataType::Int8,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return decimal(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(r#type: &Value, metadata: &Value) -> String {
        let field = json!({"name": "x", "type": r#type, "nullable": true, "metadata": metadata});
        json!({"type": "struct", "fields": [field]}).to_string()
    }

    #[test]
    fn every_type_that_is_kept_comes_back() {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let inner = Fields::from(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("at", instant.clone(), false),
        ]);
        let list = |item: DataType| DataType::List(Arc::new(Field::new("element", item, true)));
        let cases = [
            (DataType::Utf8, json!("string")),
            (DataType::Int64, json!("long")),
            (DataType::Int32, json!("integer")),
            (DataType::Boolean, json!("boolean")),
            (DataType::Binary, json!("binary")),
            (DataType::Date32, json!("date")),
            (instant, json!("timestamp")),
            (DataType::Decimal128(38, 18), json!("decimal(38,18)")),
            (
                DataType::Struct(inner),
                json!({"type": "struct", "fields": [
                    {"name": "n", "type": "long", "nullable": true, "metadata": {}},
                    {"name": "at", "type": "timestamp", "nullable": false, "metadata": {}},
                ]}),
            ),
            (
                list(DataType::Utf8),
                json!({"type": "array", "elementType": "string", "containsNull": true}),
            ),
        ];
        for (data_type, written) in cases {
            let schema = Schema::new(vec![Field::new("x", data_type, true)]);
            let text = to_delta("t", &schema).unwrap().to_string();
            let expected: Value = serde_json::from_str(&column(&written, &json!({}))).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
            assert_eq!(from_delta("t", &text).unwrap(), schema);
        }
    }

    #[test]
    fn columns_that_are_not_known_or_have_rules_are_refused() {
        let cases = [
            (
                json!("variant"),
                json!({}),
                "its column `x` is variant, which is not known",
            ),
            (
                json!("timestamp_ntz"),
                json!({}),
                "its column `x` is timestamp_ntz, which is not known",
            ),
            (
                json!("decimal(39,2)"),
                json!({}),
                "its column `x` is decimal(39,2), which is not known",
            ),
            (
                json!({"type": "map", "keyType": "string", "valueType": "long", "valueContainsNull": true}),
                json!({}),
                "its column `x` is a map",
            ),
            (
                json!("long"),
                json!({"delta.invariants": "{\"expression\":{\"expression\":\"x > 3\"}}"}),
                "its column `x` has an invariant",
            ),
        ];
        for (r#type, metadata, problem) in cases {
            let error = from_delta("t", &column(&r#type, &metadata)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("table `t`: {problem}\n  hint: {HINT}")
            );
        }
    }
}
