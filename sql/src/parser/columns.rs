//! Declared columns: `name TYPE [NOT NULL] [DEFAULT literal] [CHECK (expression)] [OPTIONS (…)]`, and
//! the checks that stand among them.

use super::{
    cursor::{Cursor, Name, begins_element, fold},
    literal,
    options::Options,
    query, reserved_columns,
    suggest::{did_you_mean, list, nearest},
    types,
};
use crate::{
    definitions::{
        Step, json_path,
        model::{Check, Column, UnclearPath, Validity},
    },
    error::{Error, Result},
    schema::type_name,
};
use datafusion::{arrow::datatypes::DataType, sql::sqlparser::tokenizer::Token};

const COLUMNS_SHAPE: &str = "columns are `(name TYPE [NOT NULL], …)`, the type one of VARCHAR, BOOLEAN, BIGINT, DECIMAL(p, s), TIMESTAMP, DATE";
const KEY_SHAPE: &str = "a key is `PRIMARY KEY (column, …)`, or PRIMARY KEY after one column";
const PERIOD_SHAPE: &str = "a period is the last of a key and names two columns: PRIMARY KEY (model, PERIOD valid_from, valid_to)";
const CHECK_SHAPE: &str =
    "a check is `[CONSTRAINT name] CHECK (expression)`; a column of that name needs quotes";

/// What columns are declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    EventType,
    RateTable,
}

/// What stands between the parentheses.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) columns: Vec<Column>,
    /// Those of columns and of the whole, in order.
    pub(super) checks: Vec<Check>,
    /// Columns with capitals and no path.
    pub(super) unclear: Vec<UnclearPath>,
    /// The columns of a rate table's primary key.
    key: Vec<Name>,
    /// The columns of the key's period: its first instant, and the first after it.
    period: Option<[Name; 2]>,
}

/// The columns of an event type, at least one, and its checks.
///
/// # Errors
/// Names that every event or window has already, names declared twice, types that are not exact,
/// defaults that are no value of their column, checks that are no expression.
pub(super) fn event_columns(cursor: &mut Cursor<'_>) -> Result<Declared> {
    let reserved = reserved_columns();
    declared(cursor, Of::EventType, &reserved)
}

/// The columns of a rate table, at least one, and those of its key. Columns have no path: a CSV file has
/// headers.
pub(super) fn rate_columns(
    cursor: &mut Cursor<'_>,
) -> Result<(Vec<Column>, Vec<String>, Option<Validity>)> {
    let Declared {
        mut columns,
        key,
        period,
        ..
    } = declared(cursor, Of::RateTable, &[])?;
    let from = period.as_ref().map(|[from, _]| from);
    for name in key.iter().chain(from) {
        let place = place_of(cursor, &columns, name)?;
        // A value that is missing is no key.
        columns[place].nullable = false;
    }
    if let Some([from, to]) = &period {
        check_period(cursor, &columns, [from, to])?;
    }
    let key = key.into_iter().map(|name| name.text).collect();
    let period = period.map(|[from, to]| Validity {
        from: from.text,
        to: to.text,
    });
    Ok((columns, key, period))
}

/// Where a column of the key is.
fn place_of(cursor: &Cursor<'_>, columns: &[Column], name: &Name) -> Result<usize> {
    let place = columns.iter().position(|column| column.name == name.text);
    place.ok_or_else(|| {
        let known: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let problem = format!("PRIMARY KEY: there is no column `{}`", name.text);
        let hint = did_you_mean(&name.text, "columns", &known);
        cursor.error(name.at.clone(), problem, &hint)
    })
}

/// Refuses a period of other than two days or two instants.
fn check_period(cursor: &Cursor<'_>, columns: &[Column], period: [&Name; 2]) -> Result<()> {
    let [from, to] = period.map(|name| {
        let place = place_of(cursor, columns, name)?;
        let data_type = &columns[place].data_type;
        match data_type {
            DataType::Date32 | DataType::Timestamp(..) => Ok(data_type),
            other => {
                let problem = format!(
                    "PRIMARY KEY: `{}` of the PERIOD is {}",
                    name.text,
                    type_name(other)
                );
                let hint = "declare both columns of a period DATE, or both TIMESTAMP";
                Err(cursor.error(name.at.clone(), problem, hint))
            }
        }
    });
    let (from, to) = (from?, to?);
    if from != to {
        let [first, last] = period.map(|name| &name.text);
        let (from, to) = (type_name(from), type_name(to));
        let problem =
            format!("PRIMARY KEY: `{first}` of the PERIOD is {from} and `{last}` is {to}");
        let hint = "declare both columns of a period DATE, or both TIMESTAMP";
        return Err(cursor.error(period[1].at.clone(), problem, hint));
    }
    Ok(())
}

fn declared(cursor: &mut Cursor<'_>, of: Of, reserved: &[String]) -> Result<Declared> {
    cursor.expect(&Token::LParen, COLUMNS_SHAPE)?;
    let mut declared = Declared::default();
    loop {
        let is_constraint = match of {
            Of::EventType => declared.check(cursor)?,
            Of::RateTable => declared.primary_key(cursor)?,
        };
        if !is_constraint {
            let written = cursor.peek().and_then(with_capitals);
            let name = cursor.name("the name of a column")?;
            declared.unclear.extend(written.map(|written| UnclearPath {
                column: name.text.clone(),
                written,
                at: name.at.clone(),
            }));
            check_name(cursor, &name, &declared.columns, reserved)?;
            let column = column(cursor, name, of, &mut declared)?;
            declared.columns.push(column);
        }
        if !cursor.another(&Token::RParen, COLUMNS_SHAPE)? {
            break;
        }
    }
    if declared.columns.is_empty() {
        let problem = match of {
            Of::EventType => "it has checks and no column".to_owned(),
            Of::RateTable => "it has a key and no column".to_owned(),
        };
        return Err(cursor.error(cursor.here(), problem, COLUMNS_SHAPE));
    }
    Ok(declared)
}

impl Declared {
    /// Reads `PRIMARY KEY (column, …)`; false when something else follows.
    fn primary_key(&mut self, cursor: &mut Cursor<'_>) -> Result<bool> {
        if !cursor.at_words("PRIMARY", "KEY") {
            return Ok(false);
        }
        self.open_key(cursor)?;
        cursor.expect(&Token::LParen, KEY_SHAPE)?;
        loop {
            let name = cursor.name("a column of the key")?;
            if name.text == "period" && matches!(cursor.peek(), Some(Token::Word(_))) {
                self.period(cursor)?;
                cursor.expect(&Token::RParen, KEY_SHAPE)?;
                return Ok(true);
            }
            self.check_once(cursor, &name)?;
            self.key.push(name);
            if !cursor.another(&Token::RParen, KEY_SHAPE)? {
                return Ok(true);
            }
        }
    }

    /// Reads the two columns after `PERIOD`, which end a key.
    fn period(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let from = cursor.name("the column with the first day or instant of the period")?;
        self.check_once(cursor, &from)?;
        cursor.expect(&Token::Comma, PERIOD_SHAPE)?;
        let to = cursor.name("the column with the first day or instant after the period")?;
        self.check_once(cursor, &to)?;
        if from.text == to.text {
            let problem = format!("PRIMARY KEY: column `{}` is in it twice", to.text);
            return Err(cursor.error(to.at, problem, PERIOD_SHAPE));
        }
        if !matches!(cursor.peek(), Some(Token::RParen)) {
            return Err(cursor.expected("`)`", PERIOD_SHAPE));
        }
        self.period = Some([from, to]);
        Ok(())
    }

    fn check_once(&self, cursor: &Cursor<'_>, name: &Name) -> Result<()> {
        if self.key.iter().any(|known| known.text == name.text) {
            let problem = format!("PRIMARY KEY: column `{}` is in it twice", name.text);
            return Err(cursor.error(name.at.clone(), problem, "name each column once"));
        }
        Ok(())
    }

    /// Reads the words `PRIMARY KEY`, which stand once in a table.
    fn open_key(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let at = cursor.here();
        cursor.advance();
        cursor.advance();
        if self.key.is_empty() && self.period.is_none() {
            return Ok(());
        }
        let problem = "it has two primary keys".to_owned();
        let hint = "a key of several columns is one: PRIMARY KEY (model, region)";
        Err(cursor.error(at, problem, hint))
    }

    /// Reads `[CONSTRAINT name] CHECK (expression)`; false when something else follows.
    fn check(&mut self, cursor: &mut Cursor<'_>) -> Result<bool> {
        let name = match cursor.accept_keyword("CONSTRAINT") {
            true => Some(cursor.name("a name for the constraint")?),
            false => None,
        };
        if name.is_some() {
            cursor.expect_keyword("CHECK", CHECK_SHAPE)?;
        } else if !cursor.accept_keyword("CHECK") {
            return Ok(false);
        }
        if let Some(name) = &name
            && self
                .checks
                .iter()
                .any(|c| c.name.as_ref() == Some(&name.text))
        {
            let problem = format!("constraint `{}` is declared twice", name.text);
            return Err(cursor.error(name.at.clone(), problem, "rename one of them"));
        }
        let (expression, at) = query::in_parentheses(cursor, CHECK_SHAPE)?;
        self.checks.push(Check {
            name: name.map(|name| name.text),
            expression,
            at,
        });
        Ok(true)
    }
}

/// A name as it is written, if that is not how it reads.
fn with_capitals(token: &Token) -> Option<String> {
    let Token::Word(word) = token else {
        return None;
    };
    let folds = fold(&word.value, word.quote_style) != word.value;
    folds.then(|| word.value.clone())
}

fn check_name(
    cursor: &Cursor<'_>,
    name: &Name,
    before: &[Column],
    reserved: &[String],
) -> Result<()> {
    if reserved.contains(&name.text) {
        let problem = format!("column `{}` is there already", name.text);
        let hint = format!(
            "every event or window has {}; choose another name and read the field with OPTIONS (path = '$.{}')",
            list(reserved),
            name.text
        );
        return Err(cursor.error(name.at.clone(), problem, &hint));
    }
    if before.iter().any(|column| column.name == name.text) {
        let problem = format!("column `{}` is declared twice", name.text);
        return Err(cursor.error(name.at.clone(), problem, "remove or rename one of them"));
    }
    Ok(())
}

fn column(cursor: &mut Cursor<'_>, name: Name, of: Of, declared: &mut Declared) -> Result<Column> {
    let at = cursor.here();
    let data_type = types::data_type(cursor, &name)?;
    if of == Of::RateTable && matches!(data_type, DataType::List(_)) {
        let problem = format!("column `{}`: a rate table has no lists", name.text);
        let hint = "a cell of a CSV file is one value: give each its own column or row";
        return Err(cursor.error(at, problem, hint));
    }
    let mut column = Column {
        path: vec![Step::Key(name.text.clone())],
        name: name.text,
        data_type,
        nullable: true,
        default: None,
        strings: false,
    };
    while clause(cursor, &mut column, of, declared)? {}
    match cursor.peek() {
        Some(Token::Comma | Token::RParen) => Ok(column),
        _ => Err(unexpected_after(cursor, &column, of)),
    }
}

/// Reads one thing that is said of a column, in any order; false when nothing more is.
fn clause(
    cursor: &mut Cursor<'_>,
    column: &mut Column,
    of: Of,
    declared: &mut Declared,
) -> Result<bool> {
    let at = cursor.here();
    if cursor.accept_keyword("NOT") {
        cursor.expect_keyword("NULL", "write `NOT NULL`")?;
        column.nullable = false;
        return Ok(true);
    }
    // `NULL` is what a column is without saying so.
    if cursor.accept_keyword("NULL") {
        return Ok(true);
    }
    if of == Of::RateTable {
        let is_key = cursor.at_words("PRIMARY", "KEY");
        if is_key {
            declared.open_key(cursor)?;
            declared.key.push(Name {
                text: column.name.clone(),
                at,
            });
            column.nullable = false;
        }
        return Ok(is_key);
    }
    if cursor.accept_keyword("DEFAULT") {
        if column.default.is_some() {
            let problem = format!("column `{}` has two defaults", column.name);
            return Err(cursor.error(at, problem, "keep one of them"));
        }
        column.default = Some(literal::json(cursor, &column.name, &column.data_type)?);
        return Ok(true);
    }
    if cursor.accept_keyword("OPTIONS") {
        let options = Options::in_parentheses(cursor, &["path", "strings"])?;
        if let Some(path) = options.get("path") {
            column.path = steps(cursor, path)?;
            declared
                .unclear
                .retain(|unclear| unclear.column != column.name);
        }
        column.strings = strings(cursor, &options, column)?;
        return Ok(true);
    }
    declared.check(cursor)
}

/// Whether numbers may come in quotes, which only numbers can.
fn strings(cursor: &Cursor<'_>, options: &Options, column: &Column) -> Result<bool> {
    let element = match &column.data_type {
        DataType::List(element) => element.data_type(),
        scalar => scalar,
    };
    let is_number = matches!(element, DataType::Int64 | DataType::Decimal128(..));
    match options.get("strings") {
        Some(option) if !is_number => {
            let problem = format!(
                "column `{}`: option `strings` is for numbers, not for {}",
                column.name,
                type_name(&column.data_type)
            );
            let hint = "leave it out: it lets BIGINT and DECIMAL columns, and lists of them, take numbers in quotes";
            Err(cursor.error(option.at.clone(), problem, hint))
        }
        _ => options.boolean(cursor, "strings"),
    }
}

/// Words that say something of a column, here or in other databases.
const CLAUSES: [&str; 9] = [
    "NOT",
    "NULL",
    "DEFAULT",
    "CHECK",
    "CONSTRAINT",
    "OPTIONS",
    "PRIMARY",
    "UNIQUE",
    "REFERENCES",
];

fn unexpected_after(cursor: &Cursor<'_>, column: &Column, of: Of) -> Error {
    let (words, hint) = match of {
        Of::RateTable => (
            ["NOT", "NULL", "PRIMARY"].as_slice(),
            "a column is `name TYPE [NOT NULL | PRIMARY KEY]`; separate columns with `,` and end with `)`",
        ),
        Of::EventType => (
            ["NOT", "NULL", "DEFAULT", "CHECK", "CONSTRAINT", "OPTIONS"].as_slice(),
            "a column is `name TYPE [NOT NULL] [DEFAULT literal] [CHECK (expression)] [OPTIONS (path = '$.a.b')]`; separate columns with `,` and end with `)`",
        ),
    };
    let word = cursor.found().to_uppercase();
    let word = word.trim_matches('`');
    let near = nearest(word, words).filter(|near| *near != word);
    // A name and a type are another column.
    let is_column = cursor.peek().is_some_and(begins_element)
        && cursor.peek_second().is_some_and(begins_element);
    if is_column && near.is_none() && !CLAUSES.contains(&word) {
        return cursor.comma_missing(hint);
    }
    let problem = format!(
        "unexpected {} after column `{}`",
        cursor.found(),
        column.name
    );
    let meant = near.map_or(String::new(), |near| format!("did you mean {near}? "));
    cursor.error(cursor.here(), problem, &(meant + hint))
}

fn steps(cursor: &Cursor<'_>, path: &Name) -> Result<Vec<Step>> {
    json_path::parse(&path.text).map_err(|problem| {
        let problem = format!("path `{}`: {problem}", path.text);
        let hint =
            "a path is `$.billing.cost`, or `$['any key'].cost` for keys with other characters";
        cursor.error(path.at.clone(), problem, hint)
    })
}
