//! The definition language: `CREATE EVENT TYPE / METER / RATE TABLE / PRICE / PLAN`.
//!
//! ```text
//!  file ──pieces──▶ tokens ──▶ CREATE … ──┬─ columns    name TYPE NOT NULL DEFAULT 0 CHECK (…)
//!                                         ├─ options    WITH (key = 'value', …)
//!                                         └─ query      AS SELECT …, parsed by sqlparser
//! ```
//!
//! This module knows one file at a time and what can be wrong within one statement. What statements
//! mean together is [`crate::definitions`]. Every error names its construct, its place and a way out.

mod columns;
mod cursor;
mod dialect;
mod left_over;
pub(crate) mod limits;
mod literal;
mod meter_query;
mod options;
mod pieces;
mod plan;
mod query;
pub(crate) mod suggest;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use cursor::Name;
pub(crate) use dialect::Sql;
pub(crate) use plan::parse_billing_period;
pub(crate) use query::relations_of;
pub(crate) use suggest::list;
pub use suggest::{did_you_mean, edits, nearest};

use crate::{
    definitions::model::{
        CurrencyDefinition, EventType, MeterDefinition, PlanDefinition, PriceDefinition, RateTable,
        SourceFile,
    },
    error::{Error, Location, Result},
    schema,
};
use cursor::{Cursor, is_word};
use datafusion::sql::sqlparser::tokenizer::Token;
use options::Options;
use pieces::Piece;

/// One `CREATE` statement.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// Whether it says `OR REPLACE`.
    pub(crate) or_replace: bool,
    /// What it defines.
    pub(crate) defines: Defines,
}

/// What a statement defines, with the places that only a check of the whole can judge.
#[derive(Debug, Clone)]
pub(crate) enum Defines {
    EventType(EventType),
    Meter(ParsedMeter),
    RateTable(RateTable),
    Price(ParsedPrice),
    Plan(ParsedPlan),
    Currency(CurrencyDefinition),
}

/// A meter, and where it names its event type.
#[derive(Debug, Clone)]
pub(crate) struct ParsedMeter {
    pub(crate) definition: MeterDefinition,
    pub(crate) from_at: Location,
}

/// A price, and the relations its query reads.
#[derive(Debug, Clone)]
pub(crate) struct ParsedPrice {
    pub(crate) definition: PriceDefinition,
    pub(crate) relations: Vec<Name>,
    /// Where its currency is.
    pub(crate) currency_at: Location,
    /// Where `effective_from` is, or the name when it has none.
    pub(crate) effective_at: Location,
}

/// A plan, and where it names each price.
#[derive(Debug, Clone)]
pub(crate) struct ParsedPlan {
    pub(crate) definition: PlanDefinition,
    pub(crate) prices: Vec<Name>,
}

/// The six things that can be defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    EventType,
    Meter,
    RateTable,
    Price,
    Plan,
    Currency,
}

/// A statement that cannot be read.
#[derive(Debug)]
pub(crate) struct Broken {
    /// What it would define; `None` when that was not read either.
    pub(crate) name: Option<String>,
    /// What is wrong.
    pub(crate) error: Error,
}

/// Reads every statement of one file, in order: each that can be read, and what is wrong with each of the others.
pub(crate) fn statements(file: &SourceFile) -> Vec<Result<Statement, Broken>> {
    let whole = pieces::whole(file).map(|piece| statements_of(file, piece));
    if let Ok(whole) = whole
        && whole.iter().all(Result::is_ok)
    {
        return whole;
    }
    let pieces = pieces::pieces(file).into_iter();
    pieces
        .flat_map(|piece| statements_of(file, piece))
        .collect()
}

fn statements_of(file: &SourceFile, piece: Piece) -> Vec<Result<Statement, Broken>> {
    let mut cursor = Cursor::over(file, piece.tokens);
    if let Err(error) = pieces::refuse_executable_comments(&cursor, file) {
        return vec![Err(Broken { name: None, error })];
    }
    let mut statements = Vec::new();
    while !cursor.at_end() {
        if cursor.accept(&Token::SemiColon) {
            continue;
        }
        let begun = cursor.begin();
        let read = statement(&mut cursor)
            .and_then(|statement| end_of_statement(&mut cursor).map(|()| statement));
        statements.push(read.map_err(|error| {
            cursor.skip_statement(&begun);
            let name = cursor.defining().map(str::to_owned);
            Broken { name, error }
        }));
    }
    if let Some(unread) = piece.ends {
        // What cannot be read is in the last statement, or between two.
        if cursor.is_between_statements() {
            cursor.begin();
        } else {
            statements.pop();
        }
        let name = cursor.defining().map(str::to_owned);
        let error = unread.error(&cursor);
        statements.push(Err(Broken { name, error }));
    }
    statements
}

fn statement(cursor: &mut Cursor<'_>) -> Result<Statement> {
    if !cursor.accept_keyword("CREATE") {
        return Err(expected_create(cursor));
    }
    let or_replace = cursor.accept_keyword("OR");
    if or_replace {
        cursor.expect_keyword("REPLACE", "write `CREATE OR REPLACE …`")?;
    }
    let kind = kind(cursor)?;
    let name = cursor.name(&format!("a name for the {}", kind.noun()))?;
    cursor.define(kind.noun(), &name.text);
    let defines = match kind {
        Kind::EventType => Defines::EventType(event_type(cursor, name)?),
        Kind::Meter => Defines::Meter(meter(cursor, name)?),
        Kind::RateTable => Defines::RateTable(rate_table(cursor, name)?),
        Kind::Price => Defines::Price(price(cursor, name)?),
        Kind::Plan => Defines::Plan(plan::plan(cursor, name)?),
        Kind::Currency => Defines::Currency(currency(cursor, name)?),
    };
    Ok(Statement {
        or_replace,
        defines,
    })
}

fn expected_create(cursor: &Cursor<'_>) -> Error {
    let problem = format!("expected CREATE, found {}", cursor.found());
    cursor.error(cursor.here(), problem, WHAT_CAN_BE_CREATED)
}

const WHAT_CAN_BE_CREATED: &str =
    "a definition is CREATE [OR REPLACE] EVENT TYPE, METER, RATE TABLE, PRICE, PLAN or CURRENCY";

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::EventType => "event type",
            Kind::Meter => "meter",
            Kind::RateTable => "rate table",
            Kind::Price => "price",
            Kind::Plan => "plan",
            Kind::Currency => "currency",
        }
    }
}

fn kind(cursor: &mut Cursor<'_>) -> Result<Kind> {
    if cursor.accept_keyword("EVENT") {
        cursor.expect_keyword("TYPE", "write `CREATE EVENT TYPE name (…)`")?;
        return Ok(Kind::EventType);
    }
    if cursor.accept_keyword("RATE") {
        cursor.expect_keyword("TABLE", "write `CREATE RATE TABLE name (…)`")?;
        return Ok(Kind::RateTable);
    }
    for (word, kind) in [
        ("METER", Kind::Meter),
        ("PRICE", Kind::Price),
        ("PLAN", Kind::Plan),
        ("CURRENCY", Kind::Currency),
    ] {
        if cursor.accept_keyword(word) {
            return Ok(kind);
        }
    }
    let problem = format!(
        "expected what to create, found {}; there is no such definition",
        cursor.found()
    );
    Err(cursor.error(cursor.here(), problem, WHAT_CAN_BE_CREATED))
}

fn end_of_statement(cursor: &mut Cursor<'_>) -> Result<()> {
    if cursor.at_end() || cursor.accept(&Token::SemiColon) {
        return Ok(());
    }
    if cursor.peek().is_some_and(|token| is_word(token, "CREATE")) {
        let problem = "a `;` is missing before `CREATE`".to_owned();
        return Err(cursor.error(cursor.here(), problem, "end each statement with `;`"));
    }
    let problem = format!("unexpected {} after the end", cursor.found());
    Err(cursor.error(
        cursor.here(),
        problem,
        "end each statement with `;` and remove what does not belong to it",
    ))
}

fn event_type(cursor: &mut Cursor<'_>, name: Name) -> Result<EventType> {
    let declared = columns::event_columns(cursor)?;
    let options = Options::parse(cursor, &["type"])?;
    let cloud_event_type = options.required(cursor, "type", "type = 'llm.completion'")?;
    Ok(EventType {
        name: name.text,
        cloud_event_type: cloud_event_type.text.clone(),
        columns: declared.columns,
        checks: declared.checks,
        unclear: declared.unclear,
        at: name.at,
    })
}

fn meter(cursor: &mut Cursor<'_>, name: Name) -> Result<ParsedMeter> {
    let options = Options::parse(
        cursor,
        &[
            "window",
            "lateness",
            "late",
            "carry_over",
            "unit",
            "effective_from",
        ],
    )?;
    let (window_us, frame) = options.window(cursor)?;
    let lateness_us = options.lateness_us(cursor)?;
    let late = options.late(cursor)?;
    let carry_over = options.boolean(cursor, "carry_over")?;
    let unit = options.get("unit").map(|unit| unit.text.clone());
    let effective_from_us = options.window_start_us(cursor, "effective_from", window_us)?;
    let query = query::after_as(cursor)?;
    let from = meter_query::event_type(&query)?;
    Ok(ParsedMeter {
        definition: MeterDefinition {
            name: name.text,
            window_us,
            frame,
            lateness_us,
            late,
            carry_over,
            unit,
            event_type: from.text,
            query: query.text,
            query_at: query.start,
            options_at: options.places(),
            version: 1,
            effective_from_us,
            earlier: Vec::new(),
            at: name.at,
        },
        from_at: from.at,
    })
}

fn rate_table(cursor: &mut Cursor<'_>, name: Name) -> Result<RateTable> {
    let (columns, key, period) = columns::rate_columns(cursor)?;
    let options = Options::parse(cursor, &["location"])?;
    let location = options.required(cursor, "location", "location = 'rates.csv'")?;
    Ok(RateTable {
        name: name.text,
        columns,
        key,
        period,
        location: location.text.clone(),
        location_at: location.at.clone(),
        at: name.at,
    })
}

fn price(cursor: &mut Cursor<'_>, name: Name) -> Result<ParsedPrice> {
    let options = Options::parse(cursor, &["currency", "effective_from", "on_change"])?;
    let currency = options.currency_or_own(cursor)?;
    let currency_at = place_of(&options, "currency", &name);
    let effective_from = options.date(cursor, "effective_from")?;
    let on_change = options.on_change(cursor)?;
    let effective_at = place_of(&options, "effective_from", &name);
    let query = query::after_as(cursor)?;
    let relations = query.relations();
    Ok(ParsedPrice {
        definition: PriceDefinition {
            name: name.text,
            currency,
            effective_from,
            on_change,
            query: query.text,
            query_at: query.start,
            version: 1,
            at: name.at,
        },
        relations,
        currency_at,
        effective_at,
    })
}

/// Where an option is, or the name of what is defined when it is not given.
fn place_of(options: &Options, key: &str, name: &Name) -> Location {
    options.get(key).unwrap_or(name).at.clone()
}

fn currency(cursor: &mut Cursor<'_>, name: Name) -> Result<CurrencyDefinition> {
    let options = Options::parse(cursor, &["digits"])?;
    let digits = options.digits(cursor)?;
    options::check_own_currency(cursor, &name)?;
    Ok(CurrencyDefinition {
        name: name.text,
        digits,
        at: name.at,
    })
}

/// Column names that an event has before any is declared, and those a meter adds to its windows.
fn reserved_columns() -> Vec<String> {
    let nothing = EventType {
        name: String::new(),
        cloud_event_type: String::new(),
        columns: Vec::new(),
        checks: Vec::new(),
        unclear: Vec::new(),
        at: Location::default(),
    };
    let relation = schema::event_relation(&nothing);
    let own = relation.fields().iter().map(|field| field.name().clone());
    own.chain(["window_start".to_owned(), "window_end".to_owned()])
        .collect()
}
