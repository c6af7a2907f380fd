//! What tells whether two lots of rows are the same, in whatever order, files and
//! batches they come.

use arrow::{
    array::RecordBatch,
    datatypes::Schema,
    error::ArrowError,
    row::{RowConverter, SortField},
};
use xxhash_rust::xxh3::xxh3_128;

/// Rows, and the sum of a hash of each: the same for the same rows in any order, since a file may sort them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) rows: u64,
    hash: u128,
}

/// Takes rows in.
pub(crate) struct Digester {
    converter: RowConverter,
    sum: u128,
    rows: u64,
}

impl Digester {
    pub(crate) fn new(schema: &Schema) -> Result<Self, ArrowError> {
        let fields = schema.fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone()));
        Ok(Digester {
            converter: RowConverter::new(fields.collect())?,
            sum: 0,
            rows: 0,
        })
    }

    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let rows = self.converter.convert_columns(batch.columns())?;
        for row in &rows {
            // Adding, unlike XOR, tells a row that is there twice from one that is not there.
            self.sum = self.sum.wrapping_add(xxh3_128(row.data()));
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    pub(crate) fn finish(self) -> Digest {
        Digest {
            rows: self.rows,
            hash: self.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{ArrayRef, Int64Array, StringArray, StructArray},
        datatypes::{DataType, Field},
    };
    use std::sync::Arc;

    fn batch(numbers: &[Option<i64>], texts: &[Option<&str>]) -> RecordBatch {
        let n: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        let text: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let inner = Arc::new(Field::new("text", DataType::Utf8, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(inner, text)]));
        RecordBatch::try_from_iter_with_nullable([("n", n, true), ("s", nested, true)]).unwrap()
    }

    fn digest(batches: &[RecordBatch]) -> Digest {
        let mut digester = Digester::new(&batches[0].schema()).unwrap();
        for batch in batches {
            digester.add(batch).unwrap();
        }
        digester.finish()
    }

    #[test]
    fn it_depends_on_every_value_and_on_nothing_else() {
        let whole = batch(&[Some(1), None, Some(3)], &[Some("a"), None, Some("")]);
        let digest_of_whole = digest(std::slice::from_ref(&whole));
        assert_eq!(digest_of_whole.rows, 3);
        let parts = [whole.slice(0, 1), whole.slice(1, 0), whole.slice(1, 2)];
        assert_eq!(digest(&parts), digest_of_whole);
        let turned = [whole.slice(2, 1), whole.slice(0, 2)];
        assert_eq!(digest(&turned), digest_of_whole);
        let others = [
            batch(&[Some(1), Some(0), Some(3)], &[Some("a"), None, Some("")]),
            batch(&[Some(1), None, Some(3)], &[Some("a"), Some(""), None]),
            batch(&[None, Some(1), Some(3)], &[Some("a"), None, Some("")]),
            whole.slice(0, 2),
            // One row twice, another not at all.
            batch(&[Some(1), None, None], &[Some("a"), None, None]),
        ];
        for other in others {
            assert_ne!(digest(&[other]), digest_of_whole);
        }
    }
}
