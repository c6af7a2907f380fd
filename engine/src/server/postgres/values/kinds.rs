//! Which type of PostgreSQL a column has for a client (pure).

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use arrow_pg::datatypes::PG_OID_ALIAS_KEY;

/// A type that clients know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Bytea,
    Int8,
    Int2,
    Int4,
    Text,
    /// A number of the catalogs, without a sign.
    Oid,
    /// What has an inside: objects, and lists of lists.
    Json,
    Float4,
    Float8,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Numeric,
    Uuid,
    /// A list of values that have no inside.
    Array(&'static Kind),
}

/// Each type with its number, and the number of its array. Of two rows with one type the first is what is sent.
const OIDS: &[(Kind, u32, u32)] = &[
    (Kind::Bool, 16, 1000),
    (Kind::Bytea, 17, 1001),
    (Kind::Int8, 20, 1016),
    (Kind::Int2, 21, 1005),
    (Kind::Int4, 23, 1007),
    (Kind::Text, 25, 1009),
    (Kind::Text, 18, 1002),
    (Kind::Text, 19, 1003),
    (Kind::Text, 1042, 1014),
    (Kind::Text, 1043, 1015),
    (Kind::Oid, 26, 1028),
    (Kind::Json, 114, 199),
    (Kind::Float4, 700, 1021),
    (Kind::Float8, 701, 1022),
    (Kind::Date, 1082, 1182),
    (Kind::Time, 1083, 1183),
    (Kind::Timestamp, 1114, 1115),
    (Kind::TimestampTz, 1184, 1185),
    (Kind::Interval, 1186, 1187),
    (Kind::Numeric, 1700, 1231),
    (Kind::Uuid, 2950, 2951),
];

impl Kind {
    /// That of a column.
    pub(crate) fn of(field: &Field) -> Self {
        match field.data_type() {
            DataType::Int32 if field.metadata().contains_key(PG_OID_ALIAS_KEY) => Kind::Oid,
            other => Kind::of_type(other),
        }
    }

    /// That of values of an Arrow type. What clients have no type for is text.
    pub(crate) fn of_type(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Kind::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Kind::Int2,
            DataType::UInt16 | DataType::Int32 => Kind::Int4,
            DataType::UInt32 | DataType::Int64 => Kind::Int8,
            DataType::UInt64
            | DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Kind::Numeric,
            DataType::Float16 | DataType::Float32 => Kind::Float4,
            DataType::Float64 => Kind::Float8,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Kind::Bytea,
            DataType::Date32 | DataType::Date64 => Kind::Date,
            DataType::Time32(_) | DataType::Time64(_) => Kind::Time,
            DataType::Timestamp(_, None) => Kind::Timestamp,
            DataType::Timestamp(_, Some(_)) => Kind::TimestampTz,
            DataType::Interval(_) | DataType::Duration(_) => Kind::Interval,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                Kind::array_of(&Kind::of_type(item.data_type()))
            }
            DataType::Dictionary(_, values) => Kind::of_type(values),
            other if other.is_nested() => Kind::Json,
            _ => Kind::Text,
        }
    }

    fn array_of(item: &Kind) -> Kind {
        let item = OIDS.iter().find(|(kind, ..)| kind == item);
        match item {
            Some((Kind::Json, ..)) | None => Kind::Json,
            Some((item, ..)) => Kind::Array(item),
        }
    }

    /// The type of this number; `None` for what is not known, or not said.
    pub(crate) fn of_oid(oid: u32) -> Option<Self> {
        OIDS.iter().find_map(|(kind, of_one, of_array)| match oid {
            _ if oid == *of_one => Some(kind.clone()),
            _ if oid == *of_array => Some(Kind::Array(kind)),
            _ => None,
        })
    }

    /// Its number.
    pub(crate) fn oid(&self) -> u32 {
        let (wanted, is_array) = match self {
            Kind::Array(item) => (*item, true),
            one => (one, false),
        };
        let known = OIDS.iter().find(|(kind, ..)| kind == wanted);
        known.map_or(25, |(_, of_one, of_array)| match is_array {
            true => *of_array,
            false => *of_one,
        })
    }

    /// How many bytes a value has; -1 when they differ.
    pub(crate) fn size(&self) -> i16 {
        match self {
            Kind::Bool => 1,
            Kind::Int2 => 2,
            Kind::Int4 | Kind::Oid | Kind::Float4 | Kind::Date => 4,
            Kind::Int8 | Kind::Float8 | Kind::Time | Kind::Timestamp | Kind::TimestampTz => 8,
            Kind::Interval | Kind::Uuid => 16,
            Kind::Bytea | Kind::Text | Kind::Json | Kind::Numeric | Kind::Array(_) => -1,
        }
    }

    /// The Arrow type whose values are written: one for each type here, but for numbers, which keep their digits.
    pub(super) fn written_as(&self) -> Option<DataType> {
        Some(match self {
            Kind::Bool => DataType::Boolean,
            Kind::Bytea => DataType::Binary,
            Kind::Int8 | Kind::Oid => DataType::Int64,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Text | Kind::Uuid => DataType::Utf8,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::Json | Kind::Numeric | Kind::Array(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_type_is_found_again_by_its_number() {
        for (kind, ..) in OIDS {
            assert_eq!(Kind::of_oid(kind.oid()).as_ref(), Some(kind));
            let array = Kind::Array(kind);
            assert_eq!(Kind::of_oid(array.oid()), Some(array));
        }
        assert_eq!(Kind::of_oid(0), None);
        assert_eq!(Kind::of_oid(705), None);
        assert_eq!(Kind::of_oid(1043), Some(Kind::Text));
    }

    #[test]
    fn lists_of_what_has_an_inside_are_json() {
        let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
        let numbers = list(DataType::Decimal128(38, 9));
        assert_eq!(Kind::of_type(&numbers).oid(), 1231);
        assert_eq!(Kind::of_type(&list(numbers)), Kind::Json);
        assert_eq!(Kind::of_type(&DataType::UInt64), Kind::Numeric);
        assert_eq!(Kind::of_type(&DataType::Null), Kind::Text);
    }
}
