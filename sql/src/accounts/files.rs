//! Account rows from CSV files, and as CSV files.

use super::{
    Accounts, Customer, Index,
    problem::{Problem, from, shown},
    table::{Column, Empty, Kind, Sign, Table, Value, Values, names_in},
};
use crate::{
    definitions::{
        DecimalError,
        csv_file::{self, BadLine, Row as Line, Unread, is_separated_otherwise},
        parse_decimal,
        time::{instant_us, parse_date},
    },
    error::Result,
    money::{Currency, Exact},
    parser::{did_you_mean, parse_billing_period},
    period::{unknown_zone, zone_instead_of},
};
use jiff::{civil::Date, tz::TimeZone};
use std::{borrow::Cow, collections::BTreeSet, path::Path};

/// Digits of an amount, before and after the point together.
pub(crate) const AMOUNT_DIGITS: u8 = 38;
/// Digits of an amount after the point: as many as a price may have.
pub(crate) const AMOUNT_SCALE: u8 = 18;

/// A CSV file of one table, read by the caller.
#[derive(Debug, Clone)]
pub struct AccountsFile {
    /// Its path, as errors show it; the file's name without `.csv` is the table's.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Where a row was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Among the files.
    pub(super) file: usize,
    pub(super) line: u64,
}

/// What is wrong at a place.
pub(super) type Misplaced = (Place, Problem);

/// The rows of files, no two with one key and time, and what is wrong with them.
pub(super) struct Read<'a> {
    files: &'a [AccountsFile],
    zone: TimeZone,
    pub(super) customers: Vec<(Customer, Place)>,
    /// Customers in rows that could not be read; `None` when these are not known either.
    pub(super) unread_customers: Option<BTreeSet<String>>,
    pub(super) problems: Vec<Misplaced>,
    /// Rows in all files.
    pub(super) rows: usize,
}

impl<'a> Read<'a> {
    /// Reads the customers, whose zones say when a day begins. `zone` is that of a customer without one.
    ///
    /// # Errors
    /// It is no time zone.
    pub(super) fn customers(files: &'a [AccountsFile], zone: &str) -> Result<Self> {
        let mut read = Read {
            files,
            zone: zone_of(zone).map_err(|_| unknown_zone(zone))?,
            customers: Vec::new(),
            unread_customers: Some(BTreeSet::new()),
            problems: Vec::new(),
            rows: 0,
        };
        for (file, known) in files.iter().enumerate() {
            if !TABLES.contains(&table_of(known)) {
                let problem = format!(
                    "the file is named after no table of accounts: {}",
                    shown(table_of(known))
                );
                let hint = format!(
                    "name it after its table and `.csv`; {}",
                    did_you_mean(table_of(known), "tables", &TABLES)
                );
                read.problem(Place { file, line: 1 }, None, problem, hint);
            }
        }
        let rows = read.table::<Customer>(None);
        read.customers = rows;
        Ok(read)
    }

    /// The rows of all files of a table. A day begins by the zones that customers have, those of the files among them.
    pub(super) fn table<R: Table>(&mut self, customers: Option<&Index>) -> Vec<(R, Place)> {
        let mut rows = Vec::new();
        for (number, file) in self.files.iter().enumerate() {
            if table_of(file) == R::NAME {
                self.file(number, file, customers, &mut rows);
            }
        }
        self.one_for_each_key(rows)
    }

    fn file<R: Table>(
        &mut self,
        number: usize,
        file: &AccountsFile,
        customers: Option<&Index>,
        rows: &mut Vec<(R, Place)>,
    ) {
        let head = Place {
            file: number,
            line: 1,
        };
        let (header, lines) = match csv_file::read(&file.bytes) {
            Ok(read) => read,
            Err(bad) => {
                self.bad_line(head, bad);
                return self.forget_customers::<R>();
            }
        };
        let Some(places) = self.places::<R>(head, &header) else {
            return self.forget_customers::<R>();
        };
        for line in lines {
            self.rows += 1;
            match line {
                Ok(line) => {
                    let at = Place {
                        file: number,
                        line: line.line,
                    };
                    if let Some(row) = self.row::<R>(at, &places, &line, customers) {
                        rows.push((row, at));
                    }
                }
                Err(bad) => {
                    let at = Place {
                        file: number,
                        line: bad.line,
                    };
                    self.bad_line(at, bad);
                    self.forget_customers::<R>();
                }
            }
        }
    }

    /// The place of each column in a line; `None` where a column that there must be is not there.
    fn places<R: Table>(&mut self, head: Place, header: &[String]) -> Option<Vec<Option<usize>>> {
        let names: Vec<&str> = R::COLUMNS.iter().map(|column| column.name).collect();
        let mut is_whole = true;
        if let Some(hint) = is_separated_otherwise(header) {
            let problem = "the first line does not name the columns".to_owned();
            self.problem(head, None, problem, hint);
            return None;
        }
        for (place, name) in header.iter().enumerate() {
            if !names.contains(&name.as_str()) {
                let problem = format!("`{}` has no such column", R::NAME);
                let hint = did_you_mean(name, "columns", &names);
                self.problem(head, Some(name), problem, hint);
            } else if header[..place].contains(name) {
                let hint = "remove or rename one of the two".to_owned();
                self.problem(head, Some(name), "twice in the header".to_owned(), hint);
            }
        }
        for column in R::COLUMNS {
            if column.empty == Empty::Refused && !header.iter().any(|name| name == column.name) {
                is_whole = false;
                let hint = format!(
                    "name it there, in lower case; {}",
                    did_you_mean(column.name, "columns of the file", header)
                );
                self.problem(
                    head,
                    Some(column.name),
                    "not in the header".to_owned(),
                    hint,
                );
            }
        }
        let place = |column: &Column| header.iter().position(|name| name == column.name);
        is_whole.then(|| R::COLUMNS.iter().map(place).collect())
    }

    fn row<R: Table>(
        &mut self,
        at: Place,
        places: &[Option<usize>],
        line: &Line,
        customers: Option<&Index>,
    ) -> Option<R> {
        let cell = |name: &str| {
            let column = R::COLUMNS.iter().position(|column| column.name == name)?;
            line.cell(places[column]?).ok()
        };
        let zone = |day: Date| match customers {
            Some(customers) => {
                let customer = cell("customer").unwrap_or_default();
                zone_at(customers, customer, day).unwrap_or_else(|| self.zone.clone())
            }
            None => {
                let own = cell("time_zone").and_then(|name| zone_of(name).ok());
                own.unwrap_or_else(|| self.zone.clone())
            }
        };
        let mut values = Vec::with_capacity(R::COLUMNS.len());
        let mut unread = Vec::new();
        for (column, place) in R::COLUMNS.iter().zip(places) {
            let text = place.map_or(Ok(""), |place| line.cell(place));
            match text.and_then(|text| value(column, text, &zone)) {
                Ok(value) => values.push(value),
                Err(problem) => unread.push((column.name, problem)),
            }
        }
        if unread.is_empty() {
            let row = R::of(Values(values.into_iter()));
            let wrong = row.problems();
            for (column, problem, hint) in wrong {
                self.problem(at, Some(column), problem, hint);
            }
            return Some(row);
        }
        if R::NAME == Customer::NAME {
            let customer = cell("customer").unwrap_or_default().to_owned();
            self.unread_customers.iter_mut().for_each(|unread| {
                unread.insert(customer.clone());
            });
        }
        for (column, (problem, hint)) in unread {
            self.problem(at, Some(column), problem, hint);
        }
        None
    }

    /// One row for each key and time: the same row twice is one, and another one says what cannot be.
    fn one_for_each_key<R: Table>(&mut self, mut rows: Vec<(R, Place)>) -> Vec<(R, Place)> {
        // Stable: of two with one key and time the first stays.
        rows.sort_by(|(one, _), (other, _)| one.place().cmp(&other.place()));
        let mut kept: Vec<(R, Place)> = Vec::with_capacity(rows.len());
        for (row, at) in rows {
            match kept.last() {
                Some((same, _)) if *same == row => {}
                Some((other, first)) if other.place() == row.place() => {
                    let (problem, hint) = self.contradiction(&row, other, *first);
                    self.problem(at, Some(R::COLUMNS[0].name), problem, hint);
                }
                _ => kept.push((row, at)),
            }
        }
        kept
    }

    fn contradiction<R: Table>(&self, row: &R, other: &R, at: Place) -> (String, String) {
        let first = self.at(at);
        let key = shown(row.key());
        let when = from(row.since_us());
        let problem = match R::NAME {
            "subjects" => format!(
                "{key} has two payers{when}: {} in {first} and {} here",
                shown(other.customer()),
                shown(row.customer())
            ),
            _ => format!("{key} has two rows{when}, and the other in {first} says something else"),
        };
        let hint = "keep one of the two; a later import replaces a row with the same key and time";
        (problem, hint.to_owned())
    }

    /// Without a row there may be a customer that is not known.
    fn forget_customers<R: Table>(&mut self) {
        if R::NAME == Customer::NAME {
            self.unread_customers = None;
        }
    }

    pub(super) fn at(&self, place: Place) -> String {
        format!("{}:{}", self.files[place.file].name, place.line)
    }

    fn bad_line(&mut self, at: Place, bad: BadLine) {
        self.problem(at, bad.column.as_deref(), bad.problem, bad.hint);
    }

    pub(super) fn problem(
        &mut self,
        at: Place,
        column: Option<&str>,
        problem: String,
        hint: String,
    ) {
        let problem = Problem {
            at: self.at(at),
            column: column.map(str::to_owned),
            problem,
            hint,
        };
        self.problems.push((at, problem));
    }
}

/// The tables of accounts.
pub const TABLES: [&str; 6] = [
    "customers",
    "subjects",
    "subscriptions",
    "grants",
    "one_offs",
    "discounts",
];

/// The table that a file is named after, be there one or not.
fn table_of(file: &AccountsFile) -> &str {
    let name = Path::new(&file.name).file_name();
    let name = name.and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".csv").unwrap_or(name)
}

fn zone_of(name: &str) -> Result<TimeZone, jiff::Error> {
    TimeZone::get(name)
}

/// The zone that a customer has when a day begins somewhere; before the first row that of the first row.
fn zone_at(customers: &Index, customer: &str, day: Date) -> Option<TimeZone> {
    let midnight = TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()?;
    let row = customers.customer_at(customer, midnight.as_microsecond());
    let row = row.or(customers.customer(customer).first())?;
    zone_of(row.time_zone.as_deref()?).ok()
}

/// An instant, or the first one of a day in a zone, in microseconds; `None` for another text.
///
/// # Errors
/// The zone is none.
pub fn instant_in(text: &str, zone: &str) -> Result<Option<i64>> {
    let found = zone_of(zone).map_err(|_| unknown_zone(zone))?;
    Ok(instant(text, &|_| found.clone()).ok())
}

/// What a cell says.
fn value(column: &Column, cell: &str, zone: &impl Fn(Date) -> TimeZone) -> Result<Value, Unread> {
    match (cell, column.empty) {
        ("", Empty::Null) => Ok(Value::Null),
        ("", Empty::Says(default)) => read(column.kind, default, zone),
        ("", Empty::Refused) => Err(unread("empty", "write a value: each row has one here")),
        _ => read(column.kind, cell, zone).map_err(|(problem, hint)| {
            let problem = format!("{}: {problem}", shown(cell));
            (problem, hint)
        }),
    }
}

fn unread(problem: &str, hint: &str) -> Unread {
    (problem.to_owned(), hint.to_owned())
}

fn read(kind: Kind, cell: &str, zone: &impl Fn(Date) -> TimeZone) -> Result<Value, Unread> {
    Ok(match kind {
        Kind::Text => Value::Text(cell.to_owned()),
        Kind::Name => Value::Text(name(cell)?.to_owned()),
        Kind::Currency => Value::Text(currency(cell)?),
        // As the database spells it: a zone is found whatever its capitals, and SQL is not so kind.
        Kind::Zone => match zone_of(cell)
            .ok()
            .and_then(|zone| zone.iana_name().map(str::to_owned))
        {
            Some(name) => Value::Text(name),
            None => {
                let hint = format!(
                    "{}, or nothing for billing.time_zone",
                    zone_instead_of(cell)
                );
                return Err(unread("not a time zone", &hint));
            }
        },
        Kind::Prices => match names_in(cell).collect::<Vec<_>>().join(";") {
            names if names.is_empty() => Value::Null,
            names => Value::Text(names),
        },
        Kind::Length => match parse_billing_period(cell) {
            Some(_) => Value::Text(cell.to_owned()),
            None => {
                let hint = "write `day`, `week`, `month`, `quarter` or `year`, or several of one such as `2 weeks`";
                return Err(unread("not a length", hint));
            }
        },
        Kind::OneOf(words) => match words.contains(&cell) {
            true => Value::Text(cell.to_owned()),
            false => {
                let words = words.iter().map(|word| format!("`{word}`"));
                let hint = format!("write {}", words.collect::<Vec<_>>().join(" or "));
                return Err(("not known here".to_owned(), hint));
            }
        },
        Kind::Flag => match cell.to_ascii_lowercase().as_str() {
            "true" => Value::Flag(true),
            "false" => Value::Flag(false),
            _ => {
                let hint = "write `true` or `false`";
                return Err(unread("neither `true` nor `false`", hint));
            }
        },
        Kind::Whole(least) => Value::Whole(whole(cell, least)?),
        Kind::Instant => Value::Instant(instant(cell, zone)?),
        Kind::Amount(sign) => Value::Amount(amount(cell, sign)?),
    })
}

/// A name is compared letter by letter, so what nobody sees in it would make it another one.
fn name(cell: &str) -> Result<&str, Unread> {
    if cell.trim() != cell {
        return Err(unread("it begins or ends with a space", "remove the space"));
    }
    if cell.contains(char::is_control) {
        let problem = "there is a character in it that is not printed";
        return Err(unread(problem, "remove it, such as a tab"));
    }
    Ok(cell)
}

fn currency(cell: &str) -> Result<String, Unread> {
    if Currency::parse(cell).is_ok() {
        return Ok(cell.to_owned());
    }
    let upper = cell.trim().to_ascii_uppercase();
    let hint = match Currency::parse(&upper) {
        Ok(_) => format!("write {upper}"),
        Err(_) => "write a code of ISO 4217 such as USD".to_owned(),
    };
    Err(("not a currency".to_owned(), hint))
}

fn whole(cell: &str, least: i64) -> Result<i64, Unread> {
    let read: i64 = cell
        .parse()
        .map_err(|_| unread("not a whole number of 64 bits", "write digits alone"))?;
    match read < least {
        true => Err((format!("below {least}"), format!("write {least} or more"))),
        false => Ok(read),
    }
}

/// An instant, or the first one of a day.
fn instant(cell: &str, zone: &impl Fn(Date) -> TimeZone) -> Result<i64, Unread> {
    let hint = "write an instant with its offset and at most microseconds such as 2026-10-01T00:00:00Z, or a day such as \
                2026-10-01";
    match parse_date(cell) {
        Some(day) => {
            let start = day.to_zoned_datetime(zone(day));
            let start = start.map_err(|_| unread("beyond the calendar", hint))?;
            Ok(start.timestamp().as_microsecond())
        }
        None => instant_us(cell).map_err(|problem| (problem, hint.to_owned())),
    }
}

fn amount(cell: &str, sign: Sign) -> Result<Exact, Unread> {
    // 18 is below i8::MAX.
    let scale = i8::try_from(AMOUNT_SCALE).unwrap_or(i8::MAX);
    let digits = parse_decimal(cell, AMOUNT_DIGITS, scale).map_err(|error| {
        let hint = match error {
            DecimalError::TooFine { .. } => "write fewer digits after the point".to_owned(),
            DecimalError::TooLarge { .. } => format!(
                "write at most {} digits before the point",
                AMOUNT_DIGITS - AMOUNT_SCALE
            ),
            DecimalError::TooLong | DecimalError::NotANumber => {
                "write a number such as 12.50, without spaces, currency and marks between thousands"
                    .to_owned()
            }
        };
        (error.to_string(), hint)
    })?;
    let amount = Exact::new(digits, AMOUNT_SCALE)
        .map_err(|error| unread(&error.to_string(), "write fewer digits"))?
        .without_trailing_zeros();
    match sign {
        Sign::NotNegative if amount.is_negative() => Err(unread("below zero", "write 0 or more")),
        Sign::Positive if amount.is_negative() || amount.is_zero() => {
            Err(unread("not above zero", "write a number above zero"))
        }
        Sign::Any | Sign::NotNegative | Sign::Positive => Ok(amount),
    }
}

/// The rows of a table as a file that is read as the same rows; `None` when there is no such table.
pub fn csv_of(accounts: &Accounts, table: &str) -> Option<String> {
    super::with_table!(table, R => csv_of_rows::<R>(R::rows(accounts)))
}

fn csv_of_rows<R: Table>(rows: &[R]) -> String {
    let mut text = String::new();
    let names = R::COLUMNS.iter().map(|column| Cow::Borrowed(column.name));
    push_line(&mut text, names);
    for row in rows {
        push_line(&mut text, row.values().iter().map(cell_of));
    }
    text
}

fn push_line<'a>(text: &mut String, cells: impl Iterator<Item = Cow<'a, str>>) {
    for (number, cell) in cells.enumerate() {
        if number > 0 {
            text.push(',');
        }
        match cell.contains(['"', ',', '\n', '\r']) {
            true => {
                text.push('"');
                text.push_str(&cell.replace('"', "\"\""));
                text.push('"');
            }
            false => text.push_str(&cell),
        }
    }
    text.push('\n');
}

fn cell_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::Text(text) => Cow::Borrowed(text),
        Value::Whole(number) => Cow::Owned(number.to_string()),
        Value::Flag(flag) => Cow::Owned(flag.to_string()),
        Value::Instant(us) => {
            let at = jiff::Timestamp::from_microsecond(*us).unwrap_or_default();
            Cow::Owned(at.to_string())
        }
        Value::Amount(amount) => Cow::Owned(amount.to_string()),
    }
}
