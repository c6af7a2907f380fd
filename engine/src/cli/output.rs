//! Results to stdout or a file, in every format.

use crate::error::{Error, Result, is_obeyed, printable, printable_lines, query_error};
use arrow::{
    array::{Array, ArrayRef, RecordBatch, StringArray},
    csv,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json,
    util::display::{ArrayFormatter, FormatOptions},
};
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

/// How rows are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// With a header line. Lists and structs are JSON text.
    Csv,
    /// One array of objects; decimals keep every digit.
    Json,
    /// One object a line.
    Ndjson,
    /// A Parquet file.
    Parquet,
    /// A stream of Arrow IPC.
    Arrow,
}

/// Writes text to stdout. A reader that went away is not an error.
///
/// # Errors
/// Stdout cannot be written.
pub fn print(text: &str) -> Result<()> {
    show(text).map(drop)
}

/// Writes text to stdout; false when its reader went away.
///
/// # Errors
/// Stdout cannot be written.
pub fn show(text: &str) -> Result<bool> {
    print_bytes(printable_lines(text).as_bytes())
}

/// Writes a frame over the one before on a terminal; false when its reader went away.
///
/// # Errors
/// Stdout cannot be written.
pub fn show_frame(frame: &str) -> Result<bool> {
    let frame = printable_lines(frame);
    print_bytes(format!("\x1b[H\x1b[J{frame}").as_bytes())
}

/// Writes rows to stdout.
///
/// # Errors
/// Stdout cannot be written, or a column's type has no place in the format.
pub fn print_rows(schema: &SchemaRef, rows: &[RecordBatch], format: Format) -> Result<()> {
    let bytes = encode_rows(schema, rows, format)?;
    let bytes = match io::stdout().is_terminal() {
        true => for_terminal(&bytes, format),
        false => Cow::Borrowed(bytes.as_slice()),
    };
    print_bytes(&bytes).map(drop)
}

/// Rows as a terminal gets them. A file or a pipe gets every byte of CSV and Parquet as it is: escaped, a value would be
/// another one.
fn for_terminal(bytes: &[u8], format: Format) -> Cow<'_, [u8]> {
    match (format, std::str::from_utf8(bytes)) {
        (Format::Csv, Ok(text)) => Cow::Owned(printable_lines(text).into_bytes()),
        _ => Cow::Borrowed(bytes),
    }
}

/// JSON text in which every character that a terminal would obey is an escape, so that the values are the same.
fn escape_json(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return bytes;
    };
    // The writer escapes what JSON must; line feeds are between values alone.
    let is_escaped = |character| character != '\n' && is_obeyed(character);
    if !text.contains(is_escaped) {
        return bytes;
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped.into_bytes()
}

/// Rows in a format, as the bytes of a file.
///
/// # Errors
/// A column's type has no place in the format.
pub fn encode_rows(schema: &SchemaRef, rows: &[RecordBatch], format: Format) -> Result<Vec<u8>> {
    // Without rows there would be no header either.
    let empty = [RecordBatch::new_empty(SchemaRef::clone(schema))];
    let rows = if rows.is_empty() { &empty } else { rows };
    let bytes = encode(schema, rows, format).map_err(query_error("writing rows"))?;
    Ok(match format {
        Format::Json | Format::Ndjson => escape_json(bytes),
        Format::Table | Format::Csv | Format::Parquet | Format::Arrow => bytes,
    })
}

fn encode(schema: &SchemaRef, rows: &[RecordBatch], format: Format) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    match format {
        Format::Table => {
            writeln!(
                bytes,
                "{}",
                arrow::util::pretty::pretty_format_batches(
                    &rows.iter().map(shown).collect::<Result<Vec<_>, _>>()?
                )?
            )?;
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new()
                .with_header(true)
                .build(&mut bytes);
            rows.iter()
                .try_for_each(|batch| writer.write(&flat(batch)?))?;
        }
        Format::Json => {
            let mut writer = json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, json::writer::JsonArray>(&mut bytes);
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
            bytes.push(b'\n');
        }
        Format::Ndjson => {
            let mut writer = json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, json::writer::LineDelimited>(&mut bytes);
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
        Format::Parquet => {
            let mut writer = ArrowWriter::try_new(&mut bytes, SchemaRef::clone(schema), None)?;
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.close()?;
        }
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(&mut bytes, schema)?;
            rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
    }
    Ok(bytes)
}

/// Rows whose texts a terminal can show: what publishers chose is escaped where it is no text.
fn shown(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = FormatOptions::default();
    with_texts(batch, |column| {
        let kind = column.data_type();
        if !(kind.is_string() || kind.is_nested()) {
            return Ok(None);
        }
        let texts = ArrayFormatter::try_new(column, &options)?;
        let text = |row: usize| {
            column
                .is_valid(row)
                .then(|| printable(&texts.value(row).to_string()))
        };
        let texts: StringArray = (0..column.len()).map(text).collect();
        Ok(Some(Arc::new(texts)))
    })
}

/// Rows whose lists and structs are JSON text, since CSV has no such thing.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    with_texts(batch, |column| {
        let is_nested = column.data_type().is_nested();
        is_nested.then(|| json_texts(column)).transpose()
    })
}

/// Rows with text in the place of the columns for which `texts` has any.
fn with_texts(
    batch: &RecordBatch,
    texts: impl Fn(&ArrayRef) -> Result<Option<ArrayRef>, ArrowError>,
) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let parts = schema.fields().iter().zip(batch.columns());
    let parts = parts.map(|(field, column)| {
        Ok(match texts(column)? {
            Some(texts) => (
                Arc::new(Field::new(field.name(), DataType::Utf8, true)),
                texts,
            ),
            None => (Arc::clone(field), Arc::clone(column)),
        })
    });
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = parts
        .collect::<Result<Vec<_>, ArrowError>>()?
        .into_iter()
        .unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn json_texts(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let alone = RecordBatch::try_from_iter([("v", Arc::clone(column))])?;
    let mut bytes = Vec::new();
    let mut writer = json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, json::writer::LineDelimited>(&mut bytes);
    writer.write(&alone)?;
    writer.finish()?;
    let lines = String::from_utf8_lossy(&bytes);
    let value = |line: &str| {
        let value = line.strip_prefix(r#"{"v":"#)?.strip_suffix('}')?;
        (value != "null").then(|| value.to_owned())
    };
    Ok(Arc::new(lines.lines().map(value).collect::<StringArray>()))
}

fn print_bytes(bytes: &[u8]) -> Result<bool> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(Error::File {
            file: "stdout".into(),
            doing: "writing the result",
            source,
        }),
        Ok(()) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{AsArray, Decimal128Array, Int64Array, ListArray},
        buffer::OffsetBuffer,
    };
    use proptest::prelude::*;

    #[test]
    fn a_table_shows_what_a_publisher_chose_without_obeying_it() {
        let subject = "x\nINV-7 globex\u{1b}[8m\u{202e}\r";
        let tags = StringArray::from(vec!["a\nb"]);
        let field = Arc::new(Field::new("element", DataType::Utf8, true));
        let lists = ListArray::new(field, OffsetBuffer::from_lengths([1]), Arc::new(tags), None);
        let rows = RecordBatch::try_from_iter([
            (
                "subject",
                Arc::new(StringArray::from(vec![subject])) as ArrayRef,
            ),
            ("tags", Arc::new(lists)),
            ("n", Arc::new(Int64Array::from(vec![1]))),
        ]);
        let rows = rows.unwrap();
        let table = encode_rows(&rows.schema(), &[rows], Format::Table).unwrap();
        let table = String::from_utf8(table).unwrap();
        let shown = r"| x\nINV-7 globex\u{1b}[8m\u{202e}\r | [a\nb] | 1 |";
        assert_eq!(table.lines().nth(3), Some(shown));
        assert_eq!(table.lines().count(), 5);
    }

    #[test]
    fn lists_are_json_text_in_csv_with_every_digit() {
        let values = Decimal128Array::from(vec![Some(1_i128), None, Some(10_i128.pow(20))]);
        let values = values.with_precision_and_scale(38, 2).unwrap();
        let field = Arc::new(Field::new("element", values.data_type().clone(), true));
        let lists = ListArray::new(
            field,
            OffsetBuffer::from_lengths([3, 0, 0]),
            Arc::new(values),
            Some(vec![true, true, false].into()),
        );
        let rows = RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
            ("list", Arc::new(lists)),
        ]);
        let rows = rows.unwrap();
        let csv = encode_rows(&rows.schema(), &[rows], Format::Csv).unwrap();
        assert_eq!(
            String::from_utf8(csv).unwrap(),
            "n,list\n1,\"[0.01,null,1000000000000000000.00]\"\n2,[]\n3,\n"
        );
    }

    /// Texts with what terminals, spreadsheets and CSV readers obey.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "\u{1b}[2J",
                "\u{1b}]0;x\u{7}",
                "\u{9b}31m",
                "\r",
                "\n",
                "\r\n",
                "\t",
                "\0",
                "\u{7f}",
                "\u{85}",
                "\u{202e}",
                "\u{2066}",
                "\u{200f}",
                "\u{2028}",
                "\u{feff}",
                "=1+1",
                "@x",
                "\"",
                ",",
                "\\",
                "|",
                "+--",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn rows_of(texts: &[String]) -> RecordBatch {
        let subjects: StringArray = texts.iter().map(Some).collect();
        let field = Arc::new(Field::new("element", DataType::Utf8, true));
        let one_each = OffsetBuffer::from_lengths(texts.iter().map(|_| 1));
        let lists = ListArray::new(field, one_each, Arc::new(subjects.clone()), None);
        let columns = [
            ("subject", Arc::new(subjects) as ArrayRef),
            ("tags", Arc::new(lists)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn text_of(rows: &RecordBatch, format: Format) -> String {
        let bytes = encode_rows(&rows.schema(), std::slice::from_ref(rows), format).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn obeys_nothing(text: &str) -> bool {
        !text.contains(|character| character != '\n' && is_obeyed(character))
    }

    proptest! {
        /// Whatever a publisher chose, a terminal obeys nothing of it and a table has its lines alone; programs read
        /// the very text that was sent.
        #[test]
        fn what_publishers_choose_draws_nothing_and_is_not_changed(texts in prop::collection::vec(hostile(), 1..5)) {
            let rows = rows_of(&texts);
            let table = text_of(&rows, Format::Table);
            prop_assert!(obeys_nothing(&table), "{}", table);
            prop_assert_eq!(table.lines().count(), texts.len() + 4);

            let json: Vec<serde_json::Value> = serde_json::from_str(&text_of(&rows, Format::Json)).unwrap();
            let lines = text_of(&rows, Format::Ndjson);
            prop_assert!(obeys_nothing(&text_of(&rows, Format::Json)) && obeys_nothing(&lines));
            let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            prop_assert_eq!(&json, &lines);
            let subjects: Vec<&str> = json.iter().map(|row| row["subject"].as_str().unwrap()).collect();
            prop_assert_eq!(&subjects, &texts);

            let csv = text_of(&rows, Format::Csv);
            let schema = Schema::new(vec![
                Field::new("subject", DataType::Utf8, true),
                Field::new("tags", DataType::Utf8, true),
            ]);
            let reader = csv::ReaderBuilder::new(Arc::new(schema)).with_header(true);
            let reader = reader.build(csv.as_bytes()).unwrap();
            let read: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
            let read = read.iter().flat_map(|rows| rows["subject"].as_string::<i32>().iter());
            let read: Vec<&str> = read.map(Option::unwrap_or_default).collect();
            prop_assert_eq!(&read, &texts);
            let shown = for_terminal(csv.as_bytes(), Format::Csv);
            prop_assert!(obeys_nothing(std::str::from_utf8(&shown).unwrap()));
        }
    }
}
