//! Rows of accounts in JSON, as the CSV files that an import reads: so both are checked by the same rules (pure).

use super::super::problem::{Fault, Problem};
use crate::error::{Result as Done, query_error};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
};
use tollgate_sql::{
    accounts::{AccountsFile, Problems, TABLES},
    schema::accounts::accounts_schema,
};

/// One row: the text of each field that it has.
type Row = BTreeMap<String, String>;

/// A row as it is sent.
type Sent = Once<Box<RawValue>>;

/// An object of JSON in which no key stands twice: of two values one would be lost.
struct Once<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Once<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = Once<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once<T>, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if all.contains_key(&key) {
                        let problem = format!("`{key}` stands there twice");
                        return Err(A::Error::custom(problem));
                    }
                    all.insert(key, value);
                }
                Ok(Once(all))
            }
        }
        deserializer.deserialize_map(Keys(PhantomData))
    }
}

/// Rows by table, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rows(BTreeMap<String, Vec<Row>>);

impl Rows {
    /// One row of a table; its key may stand in the body too, and is the same then.
    ///
    /// # Errors
    /// The body is no object of values that fit a cell, or has another key.
    pub(super) fn of_one(table: &str, key: &str, body: &[u8]) -> Result<Self, Problem> {
        let sent: Sent = serde_json::from_slice(body).map_err(|error| {
            Problem::body(format!(
                "the body: {error}; write an object with the fields of the row"
            ))
        })?;
        let mut faults = Vec::new();
        let mut row = row_of(table, 0, sent, &mut faults);
        let name = key_of(table);
        match row.insert(name.to_owned(), key.to_owned()) {
            Some(other) if other != key => faults.push(Fault {
                field: Some(name.to_owned()),
                table: Some(table.to_owned()),
                ..Fault::at(0, format!("`{other}` is not `{key}`, which the path names"))
            }),
            _ => {}
        }
        if key.contains(['\n', '\r']) {
            faults.push(fault(table, 0, name, BREAK));
        }
        match faults.is_empty() {
            true => Ok(Rows(BTreeMap::from([(table.to_owned(), vec![row])]))),
            false => Err(Problem::rows_refused(faults)),
        }
    }

    /// Rows of tables by their names.
    ///
    /// # Errors
    /// The body is no object of lists of such objects, or names no table.
    pub(super) fn of_tables(body: &[u8]) -> Result<Self, Problem> {
        let sent: Once<Vec<Sent>> = serde_json::from_slice(body).map_err(|error| {
            Problem::body(format!(
                "the body: {error}; write {{\"customers\": [{{\"customer\": \"acme\"}}], …}}"
            ))
        })?;
        let (mut faults, mut all) = (Vec::new(), BTreeMap::new());
        for (table, sent) in sent.0 {
            if !TABLES.contains(&table.as_str()) {
                let tables = TABLES.join(", ");
                let reason = format!("there is no table `{table}`; there are {tables}");
                faults.push(Fault {
                    index: None,
                    table: Some(table),
                    ..Fault::at(0, reason)
                });
                continue;
            }
            let rows = sent.into_iter().enumerate();
            let rows = rows.map(|(index, sent)| row_of(&table, index, sent, &mut faults));
            let rows: Vec<Row> = rows.collect();
            all.insert(table, rows);
        }
        match faults.is_empty() {
            true => Ok(Rows(all)),
            false => Err(Problem::rows_refused(faults)),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The files that say the same, one a table. A row is on one line, the first on the second.
    pub(super) fn files(&self) -> Done<Vec<AccountsFile>> {
        let named = self.0.iter().filter(|(_, rows)| !rows.is_empty());
        let files = named.map(|(table, rows)| {
            Ok(AccountsFile {
                name: format!("{table}.csv"),
                bytes: csv_of(table, rows)?,
            })
        });
        files.collect()
    }

    /// All that they say, to be compared with another request.
    pub(super) fn content(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec(&self.0).map_err(|error| super::super::rendering::unwritten(&error))
    }
}

/// The key of a table, as its first column is called.
fn key_of(table: &str) -> &str {
    table.strip_suffix('s').unwrap_or(table)
}

const BREAK: &str = "a line break has no place in it; write it on one line";

/// The texts of a row as it is sent; what has none is among the faults.
fn row_of(table: &str, index: usize, sent: Sent, faults: &mut Vec<Fault>) -> Row {
    let mut row = Row::new();
    for (field, value) in sent.0 {
        match cell_of(&field, &value) {
            Ok(cell) => {
                row.insert(field, cell);
            }
            Err(reason) => faults.push(fault(table, index, &field, reason)),
        }
    }
    row
}

fn fault(table: &str, index: usize, field: &str, reason: &str) -> Fault {
    Fault {
        table: Some(table.to_owned()),
        field: Some(field.to_owned()),
        ..Fault::at(index, reason.to_owned())
    }
}

/// What a cell says: a text as it is, a number with the digits that were sent, nothing for null.
fn cell_of(field: &str, value: &RawValue) -> Result<String, &'static str> {
    let text = value.get().trim();
    let cell = match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map_err(|_| "the text is not UTF-8")?,
        Some(b'[') if field == "applies_to" => {
            let names: Result<Vec<String>, _> = serde_json::from_str(text);
            names
                .map_err(|_| "write a list of texts, the names of prices")?
                .join(";")
        }
        Some(b'[' | b'{') => return Err("write a text or a number, no list and no object"),
        Some(b'n') => String::new(),
        _ => text.to_owned(),
    };
    match cell.contains(['\n', '\r']) {
        true => Err(BREAK),
        false => Ok(cell),
    }
}

/// A file with every column of its table, so that a row which lacks one is told of the row, and those that rows have beside them.
fn csv_of(table: &str, rows: &[Row]) -> Done<Vec<u8>> {
    let doing = "writing rows of accounts";
    let failed = |error: csv::Error| query_error(doing)(std::io::Error::other(error));
    let known = accounts_schema(table);
    let known = known.iter().flat_map(|schema| schema.fields().iter());
    let mut columns: BTreeSet<&str> = known.map(|field| field.name().as_str()).collect();
    columns.extend(rows.iter().flat_map(BTreeMap::keys).map(String::as_str));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns).map_err(failed)?;
    for row in rows {
        let cell = |column: &&str| row.get(*column).map_or("", String::as_str);
        writer
            .write_record(columns.iter().map(cell))
            .map_err(failed)?;
    }
    let bytes = writer.into_inner();
    bytes.map_err(|error| query_error(doing)(std::io::Error::other(error.to_string())))
}

/// What an import refuses, by row and field.
pub(super) fn refused(problems: &Problems) -> Problem {
    let faults = problems.0.iter().map(|problem| {
        let (file, line) = problem.at.rsplit_once(':').unwrap_or((&problem.at, ""));
        let line: Option<usize> = line.parse().ok();
        Fault {
            // The first line names the columns.
            index: line.and_then(|line| line.checked_sub(2)),
            table: Some(file.trim_end_matches(".csv").to_owned()),
            field: problem.column.clone(),
            ..Fault::at(0, format!("{}; {}", problem.problem, problem.hint))
        }
    });
    Problem::rows_refused(faults.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(rows: &Rows) -> Vec<(String, String)> {
        let files = rows.files().unwrap().into_iter();
        files
            .map(|file| (file.name, String::from_utf8(file.bytes).unwrap()))
            .collect()
    }

    #[test]
    fn values_are_the_cells_that_a_file_would_have() {
        let body = br#"{"amount": 12.500000000000000001, "customer": "a \"b\", c", "applies_to": ["x", "y"],
            "expires_at": null, "priority": -3, "currency": "USD"}"#;
        let rows = Rows::of_one("grants", "g1", body).unwrap();
        let csv = "amount,applies_to,currency,customer,effective_at,expires_at,grant,kind,priority,recurs_every,rollover_max,\
                   rollover_min,voided_at\n12.500000000000000001,x;y,USD,\"a \"\"b\"\", c\",,,g1,,-3,,,,\n";
        assert_eq!(files(&rows), [("grants.csv".to_owned(), csv.to_owned())]);
        let body = br#"{"subjects": [{"subject": "s", "customer": "a"}, {"subject": "t", "customer": "a", "valid_from": "2026-10-01"}],
            "customers": [{"customer": "a", "tax_exempt": true, "colour": "red"}], "grants": []}"#;
        let rows = Rows::of_tables(body).unwrap();
        assert_eq!(rows.count(), 3);
        assert_eq!(
            files(&rows),
            [
                (
                    "customers.csv".to_owned(),
                    "colour,currency,customer,email,name,tax_exempt,tax_region,time_zone,valid_from\nred,,a,,,true,,,\n"
                        .to_owned()
                ),
                (
                    "subjects.csv".to_owned(),
                    "customer,subject,valid_from\na,s,\na,t,2026-10-01\n".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn what_fits_no_cell_is_refused_with_its_field() {
        for (body, says) in [
            (r#"{"name": {"a": 1}}"#, "`name`: write a text"),
            (r#"{"name": ["a"]}"#, "`name`: write a text"),
            (r#"{"applies_to": [1]}"#, "`applies_to`: write a list"),
            (r#"{"name": "a\nb"}"#, "`name`: a line break"),
            (
                r#"{"customer": "other"}"#,
                "`customer`: `other` is not `acme`",
            ),
            ("[]", "the body"),
            ("{", "the body"),
        ] {
            let problem = Rows::of_one("customers", "acme", body.as_bytes()).unwrap_err();
            assert!(problem.to_string().contains(says), "{body}: {problem}");
        }
        let problem = Rows::of_tables(br#"{"clients": []}"#).unwrap_err();
        assert!(
            problem.to_string().contains("no table `clients`"),
            "{problem}"
        );
    }
}
