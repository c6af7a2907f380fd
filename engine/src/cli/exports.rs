//! Files of `invoices`, `line_items` and pages, written part by part: they have their names when all is there.

use super::output::{self, Format};
use crate::error::{Error, Result, query_error};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::arrow::ArrowWriter;
use std::{
    fs::{self, File},
    io::{self, Write},
    mem,
    path::{Path, PathBuf},
};
use tollgate_sql::schema::invoices::{invoices_schema, line_items_schema};

/// Files of a folder that are being written. Without [`Exports::finish`] none of them is left.
pub(super) struct Exports {
    folder: PathBuf,
    invoices: Vec<RowsFile>,
    line_items: Vec<RowsFile>,
    has_pages: bool,
    /// Files that are written, whose names are to be without [`UNFINISHED`].
    unfinished: Vec<PathBuf>,
}

/// What a file's name ends with until all are written.
const UNFINISHED: &str = ".unfinished";

impl Exports {
    /// Begins the files of two tables in some formats, each with its extension, and pages if there are to be any; the folder is created.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn begin(
        folder: &Path,
        formats: &[(&str, Format)],
        has_pages: bool,
    ) -> Result<Self> {
        fs::create_dir_all(folder).map_err(failed(folder, "creating the folder"))?;
        let mut exports = Exports {
            folder: folder.to_owned(),
            invoices: Vec::new(),
            line_items: Vec::new(),
            has_pages,
            unfinished: Vec::new(),
        };
        for (extension, format) in formats {
            let path = exports.unfinished_path(&format!("invoices.{extension}"));
            let file = RowsFile::create(&path, invoices_schema(), *format)?;
            exports.invoices.push(file);
            let path = exports.unfinished_path(&format!("line_items.{extension}"));
            let file = RowsFile::create(&path, line_items_schema(), *format)?;
            exports.line_items.push(file);
        }
        Ok(exports)
    }

    /// Adds rows of both tables.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn add(&mut self, invoices: &RecordBatch, line_items: &RecordBatch) -> Result<()> {
        for file in &mut self.invoices {
            file.add(invoices)?;
        }
        for file in &mut self.line_items {
            file.add(line_items)?;
        }
        Ok(())
    }

    /// Whether there is to be a page for each document.
    pub(super) fn has_pages(&self) -> bool {
        self.has_pages
    }

    /// Adds a page by the name of its file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn add_page(&mut self, name: &str, page: &str) -> Result<()> {
        let path = self.unfinished_path(name);
        fs::write(&path, page).map_err(failed(&path, "writing a document"))
    }

    /// Gives all files their names.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(super) fn finish(mut self) -> Result<()> {
        for file in self.invoices.drain(..).chain(self.line_items.drain(..)) {
            file.finish()?;
        }
        for unfinished in mem::take(&mut self.unfinished) {
            let path = unfinished.with_extension("");
            fs::rename(&unfinished, &path).map_err(failed(&path, "writing an export"))?;
        }
        Ok(())
    }

    fn unfinished_path(&mut self, name: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}{UNFINISHED}"));
        self.unfinished.push(path.clone());
        path
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        for path in &self.unfinished {
            // What cannot be removed is seen to be unfinished by its name.
            let _ = fs::remove_file(path);
        }
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    let file = path.display().to_string();
    move |source| Error::File {
        file,
        doing,
        source,
    }
}

/// Rows on their way into a file.
struct RowsFile {
    path: PathBuf,
    schema: SchemaRef,
    format: Format,
    file: Rows,
    is_empty: bool,
}

enum Rows {
    Text(io::BufWriter<File>),
    Parquet(Box<ArrowWriter<File>>),
}

impl RowsFile {
    fn create(path: &Path, schema: SchemaRef, format: Format) -> Result<Self> {
        let file = File::create(path).map_err(failed(path, "writing an export"))?;
        let file = match format {
            Format::Parquet => {
                let writer = ArrowWriter::try_new(file, SchemaRef::clone(&schema), None);
                Rows::Parquet(Box::new(writer.map_err(query_error("writing rows"))?))
            }
            // Exports have no other formats than CSV, JSON and Parquet.
            Format::Table | Format::Csv | Format::Json | Format::Ndjson | Format::Arrow => {
                Rows::Text(io::BufWriter::new(file))
            }
        };
        Ok(RowsFile {
            path: path.to_owned(),
            schema,
            format,
            file,
            is_empty: true,
        })
    }

    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let is_first = mem::replace(&mut self.is_empty, false);
        match &mut self.file {
            Rows::Parquet(writer) => writer.write(rows).map_err(query_error("writing rows")),
            Rows::Text(file) => {
                let rows = std::slice::from_ref(rows);
                let bytes = output::encode_rows(&self.schema, rows, self.format)?;
                let part = continued(&bytes, self.format, is_first);
                let written = part.iter().try_for_each(|part| file.write_all(part));
                written.map_err(failed(&self.path, "writing an export"))
            }
        }
    }

    fn finish(self) -> Result<()> {
        let mut file = match self.file {
            Rows::Parquet(writer) => {
                let closed = writer.close();
                return closed.map(drop).map_err(query_error("writing rows"));
            }
            Rows::Text(file) => file,
        };
        let end = match (self.is_empty, self.format) {
            (true, format) => output::encode_rows(&self.schema, &[], format)?,
            (false, Format::Json) => b"]\n".to_vec(),
            (false, _) => Vec::new(),
        };
        let written = file.write_all(&end).and_then(|()| file.flush());
        written.map_err(failed(&self.path, "writing an export"))
    }
}

/// What of the bytes of a whole file goes behind what is there: no second header, and one array.
fn continued(bytes: &[u8], format: Format, is_first: bool) -> [&[u8]; 2] {
    match format {
        Format::Csv if !is_first => {
            let header = bytes.iter().position(|byte| *byte == b'\n');
            [b"", &bytes[header.map_or(0, |end| end + 1)..]]
        }
        Format::Json => {
            let rows = bytes.strip_prefix(b"[").unwrap_or(bytes);
            let rows = rows.strip_suffix(b"]\n").unwrap_or(rows);
            [if is_first { b"[" } else { b"," }, rows]
        }
        _ => [b"", bytes],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::one_batch;
    use arrow::array::new_null_array;

    /// Rows that are nothing but NULL, in a schema that allows it.
    fn rows(count: usize) -> RecordBatch {
        let schema = invoices_schema();
        let fields = schema.fields().iter();
        let fields: Vec<_> = fields
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let columns = fields.iter();
        let columns = columns.map(|field| new_null_array(field.data_type(), count));
        let columns = columns.collect();
        let schema = arrow::datatypes::Schema::new(fields);
        RecordBatch::try_new(schema.into(), columns).unwrap()
    }

    #[test]
    fn parts_are_the_file_that_all_rows_at_once_are() {
        let folder = tempfile::tempdir().unwrap();
        for format in [Format::Csv, Format::Json, Format::Ndjson] {
            for parts in [&[][..], &[2], &[1, 0, 2, 1]] {
                let path = folder.path().join("file");
                let schema = rows(0).schema();
                let mut file = RowsFile::create(&path, SchemaRef::clone(&schema), format).unwrap();
                let parts: Vec<RecordBatch> = parts.iter().map(|count| rows(*count)).collect();
                for part in &parts {
                    file.add(part).unwrap();
                }
                file.finish().unwrap();
                let all = one_batch(&schema, &parts).unwrap();
                let expected = match all.num_rows() {
                    0 => output::encode_rows(&schema, &[], format),
                    _ => output::encode_rows(&schema, &[all], format),
                };
                assert_eq!(fs::read(&path).unwrap(), expected.unwrap(), "{format:?}");
            }
        }
    }

    #[test]
    fn what_is_not_finished_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let formats = [("csv", Format::Csv), ("parquet", Format::Parquet)];
        let names = || {
            let files = fs::read_dir(folder.path()).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let mut exports = Exports::begin(folder.path(), &formats, true).unwrap();
        exports.add_page("a.html", "x").unwrap();
        assert_eq!(names().len(), 5);
        drop(exports);
        assert!(names().is_empty());
        let mut exports = Exports::begin(folder.path(), &formats, true).unwrap();
        exports.add_page("a.html", "x").unwrap();
        exports.finish().unwrap();
        let expected = [
            "a.html",
            "invoices.csv",
            "invoices.parquet",
            "line_items.csv",
            "line_items.parquet",
        ];
        assert_eq!(names(), expected);
    }
}
