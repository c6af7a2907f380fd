//! The nullable structs of a table, which are the event types of `events`: a file has those of its rows alone.

use super::StagedFile;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Columns of structs of one file, about: each is a part of the file, whether or not a row has a value in it.
const FILE_COLUMNS: usize = 512;

/// The nullable structs of a table by name.
#[derive(Debug, Clone)]
pub(crate) struct Structs(HashMap<String, Struct>);

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Struct {
    /// Its place among the table's columns.
    pub(crate) index: usize,
    /// Structs of one group go to one file, and files of one group are merged.
    pub(crate) group: usize,
}

impl Structs {
    pub(crate) fn of(schema: &Schema) -> Self {
        let mut structs = HashMap::new();
        let mut columns = 0;
        for (index, field) in schema.fields().iter().enumerate() {
            if let Some(children) = children(field) {
                let group = columns / FILE_COLUMNS;
                columns += children.len();
                structs.insert(field.name().clone(), Struct { index, group });
            }
        }
        Structs(structs)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Struct> {
        self.0.get(name)
    }

    /// The group of a file; `None` when it may have any struct.
    pub(crate) fn group(&self, file: &StagedFile) -> Option<usize> {
        let structs = file.structs.as_deref()?.iter();
        let groups = structs.filter_map(|name| self.get(name)).map(|of| of.group);
        // Rows without a struct are with others where there are others.
        Some(groups.min().unwrap_or(0))
    }
}

/// A table's columns without the structs that none of some files has.
pub(crate) fn schema_of(schema: &SchemaRef, files: &[Arc<StagedFile>]) -> SchemaRef {
    let structs: Option<Vec<_>> = files.iter().map(|file| file.structs.as_deref()).collect();
    let Some(structs) = structs else {
        return Arc::clone(schema);
    };
    let structs: BTreeSet<&String> = structs.into_iter().flatten().collect();
    let fields = schema.fields().iter();
    let fields = fields.filter(|field| children(field).is_none() || structs.contains(field.name()));
    Arc::new(Schema::new(fields.cloned().collect::<Fields>()))
}

/// Whether a file has no such struct, for all that is known.
pub(crate) fn lacks(file: &StagedFile, field: &Field) -> bool {
    let structs = file.structs.as_deref();
    children(field).is_some() && structs.is_some_and(|structs| !structs.contains(field.name()))
}

fn children(field: &Field) -> Option<&Fields> {
    match field.data_type() {
        DataType::Struct(children) if field.is_nullable() => Some(children),
        _ => None,
    }
}
