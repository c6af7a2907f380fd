//! The rows of a checkpoint that say which files there are, column by column: a year has thousands of them, and as JSON each
//! takes ten times as long.

use crate::{
    error::Cause,
    lake::log::action::{Add, Remove, Values, path_of_uri},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray},
    datatypes::Int64Type,
};
use serde::de::IgnoredAny;

/// Every row's `add` or `remove`.
pub(super) struct Files<'a> {
    add: Option<Group<'a>>,
    remove: Option<Group<'a>>,
}

impl<'a> Files<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        let group = |name: &'static str| {
            let fields = batch.column_by_name(name)?.as_struct_opt()?;
            Some(Group { name, fields })
        };
        Files {
            add: group("add"),
            remove: group("remove"),
        }
    }

    /// The rows that say something else.
    pub(super) fn others(&self, rows: usize) -> BooleanArray {
        let is_set = |group: &Option<Group<'_>>, row| {
            let mut group = group.iter();
            group.any(|group| group.fields.is_valid(row))
        };
        let others =
            (0..rows).map(|row| Some(!is_set(&self.add, row) && !is_set(&self.remove, row)));
        others.collect()
    }

    /// The file that a row adds.
    pub(super) fn added(&self, row: usize) -> Result<Option<Add>, Cause> {
        let Some(add) = self.add.as_ref().filter(|add| add.fields.is_valid(row)) else {
            return Ok(None);
        };
        let vector = add.fields.column_by_name("deletionVector");
        let has_vector = vector.is_some_and(|vector| vector.is_valid(row));
        Ok(Some(Add {
            path: add.path(row)?,
            partition_values: add.values("partitionValues", row)?.unwrap_or_default(),
            size: add.set("size", add.long("size", row)?)?,
            modification_time: add.set("modificationTime", add.long("modificationTime", row)?)?,
            data_change: add.set("dataChange", add.flag("dataChange", row)?)?,
            stats: add.text("stats", row)?.map(str::to_owned),
            tags: add.values("tags", row)?,
            deletion_vector: has_vector.then_some(IgnoredAny),
        }))
    }

    /// The file that a row removes.
    pub(super) fn removed(&self, row: usize) -> Result<Option<Remove>, Cause> {
        let remove = self.remove.as_ref();
        let Some(remove) = remove.filter(|remove| remove.fields.is_valid(row)) else {
            return Ok(None);
        };
        Ok(Some(Remove {
            path: remove.path(row)?,
            data_change: remove.set("dataChange", remove.flag("dataChange", row)?)?,
            deletion_timestamp: remove.long("deletionTimestamp", row)?,
            extended_file_metadata: remove.flag("extendedFileMetadata", row)?,
            partition_values: remove.values("partitionValues", row)?,
            size: remove.long("size", row)?,
            tags: remove.values("tags", row)?,
        }))
    }
}

/// The fields of one kind of action. A field that is not there is NULL.
struct Group<'a> {
    name: &'static str,
    fields: &'a StructArray,
}

impl<'a> Group<'a> {
    fn path(&self, row: usize) -> Result<String, Cause> {
        let written = self.set("path", self.text("path", row)?)?;
        Ok(path_of_uri(written)?)
    }

    fn text(&self, field: &str, row: usize) -> Result<Option<&'a str>, Cause> {
        let texts = self.field(field, row, |array| array.as_string_opt::<i32>())?;
        Ok(texts.map(|texts| texts.value(row)))
    }

    fn long(&self, field: &str, row: usize) -> Result<Option<i64>, Cause> {
        let numbers = self.field(field, row, |array| array.as_primitive_opt::<Int64Type>())?;
        Ok(numbers.map(|numbers| numbers.value(row)))
    }

    fn flag(&self, field: &str, row: usize) -> Result<Option<bool>, Cause> {
        let flags = self.field(field, row, |array| array.as_boolean_opt())?;
        Ok(flags.map(|flags| flags.value(row)))
    }

    fn values(&self, field: &str, row: usize) -> Result<Option<Values>, Cause> {
        let Some(maps) = self.field(field, row, |array| array.as_map_opt())? else {
            return Ok(None);
        };
        let entries = maps.value(row);
        let texts = |place: usize| {
            let texts = entries.column(place).as_string_opt::<i32>();
            texts.ok_or_else(|| self.other_type(field, entries.column(place)))
        };
        let keys = texts(0)?.iter().flatten().map(str::to_owned);
        let values = texts(1)?.iter().map(|value| value.map(str::to_owned));
        Ok(Some(keys.zip(values).collect()))
    }

    /// A field that is set in a row, as what it must be.
    fn field<T>(
        &self,
        field: &str,
        row: usize,
        typed: impl Fn(&'a ArrayRef) -> Option<T>,
    ) -> Result<Option<T>, Cause> {
        let array = self.fields.column_by_name(field);
        let Some(array) = array.filter(|array| array.is_valid(row)) else {
            return Ok(None);
        };
        match typed(array) {
            Some(typed) => Ok(Some(typed)),
            None => Err(self.other_type(field, array)),
        }
    }

    fn other_type(&self, field: &str, array: &ArrayRef) -> Cause {
        let (action, data_type) = (self.name, array.data_type());
        format!("{action}.{field} is of type {data_type}, which the protocol does not have there")
            .into()
    }

    fn set<T>(&self, field: &str, value: Option<T>) -> Result<T, Cause> {
        value.ok_or_else(|| format!("a row says nothing of {}.{field}", self.name).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{BinaryArray, Int64Array, StringArray},
        datatypes::{Field, Fields},
    };
    use std::sync::Arc;

    /// What is said of a file whose action has one field.
    fn said(field: &str, array: ArrayRef) -> String {
        let fields = Fields::from(vec![Field::new(field, array.data_type().clone(), true)]);
        let adds = StructArray::new(fields, vec![array], None);
        let batch = RecordBatch::try_from_iter([("add", Arc::new(adds) as ArrayRef)]).unwrap();
        let files = Files::of(&batch);
        assert_eq!(files.others(1).true_count(), 0);
        assert!(files.removed(0).unwrap().is_none());
        files.added(0).unwrap_err().to_string()
    }

    #[test]
    fn a_field_that_lacks_or_has_another_type_is_named() {
        let path = || Arc::new(StringArray::from(vec!["day=1/a.parquet"]));
        assert_eq!(said("path", path()), "a row says nothing of add.size");
        let size = Arc::new(Int64Array::from(vec![1]));
        assert_eq!(said("size", size), "a row says nothing of add.path");
        let bytes = Arc::new(BinaryArray::from(vec![b"a".as_slice()]));
        assert_eq!(
            said("path", bytes),
            "add.path is of type Binary, which the protocol does not have there"
        );
    }
}
