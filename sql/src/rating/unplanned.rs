//! Why a price cannot be planned, or a function of it has no answer: at the fault, in words of SQL.

use super::{
    refused_at,
    written::{self, Quoted},
};
use crate::{
    datafusion_messages::{Said, function_in, refusal_in},
    definitions::PriceDefinition,
    error::{Error, Location},
    functions::{FunctionError, TierError},
    meter::{each_expression, name_in},
    money::Exact,
    parser::Sql,
    schema::type_name,
    unplanned::{of_names, of_schema},
};
use datafusion::{
    arrow::datatypes::DataType,
    error::DataFusionError,
    execution::SessionState,
    sql::sqlparser::{ast::Spanned, parser::Parser},
};

/// What DataFusion says of a price that it does not take; `relations` are those that a price may read.
pub(super) fn unplanned(
    state: &SessionState,
    relations: impl IntoIterator<Item = String>,
    price: &PriceDefinition,
    source: DataFusionError,
) -> Error {
    let said = source.diagnostic();
    let span = said.and_then(|said| said.span);
    let place = span.map(|span| price.query_at.within(span.start.line, span.start.column));
    let found = match source.find_root() {
        DataFusionError::SchemaError(error, _) => of_schema(&price.query, error).map(Fault::of),
        DataFusionError::External(error) => of_function(price, error.as_ref()),
        DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => {
            let message = said.map_or(message.as_str(), |said| said.message.as_str());
            let relations: Vec<String> = relations.into_iter().collect();
            let of_names = of_names(state, &relations, message).map(Fault::of);
            of_names.or_else(|| Some(of_message(price, message)))
        }
        _ => None,
    };
    match found {
        Some(fault) => fault.error(price, place),
        None => failed(price, source),
    }
}

/// A column of the answer that is no exact number.
pub(super) fn inexact_column(
    price: &PriceDefinition,
    name: &str,
    data_type: &DataType,
    hint: &str,
) -> Error {
    if let Some(quoted) = written::quoted_column(&price.query, name) {
        return Fault::of_quoted(price, &format!("`{name}`"), quoted).error(price, None);
    }
    let at = written::column(&price.query, name);
    let at = at.map(|at| price.query_at.within(at.line, at.column));
    let problem = format!("`{name}` is {}, not an exact number", type_name(data_type));
    refused_at(price, at.unwrap_or_else(|| price.at.clone()), problem, hint)
}

/// What evaluating a price says: that of its functions at the call, all else as it is.
pub(super) fn failed(price: &PriceDefinition, source: DataFusionError) -> Error {
    let found = match source.find_root() {
        DataFusionError::External(error) => of_function(price, error.as_ref()),
        _ => None,
    };
    match found {
        Some(fault) => fault.error(price, None),
        None => Error::Price {
            price: price.name.clone(),
            at: price.at.clone(),
            source: Box::new(source),
        },
    }
}

/// What is wrong, the way out, and where it is when that can be found in the text.
struct Fault {
    problem: String,
    hint: String,
    at: Option<Location>,
}

impl Fault {
    fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Fault {
            problem: problem.into(),
            hint: hint.into(),
            at: None,
        }
    }

    /// A number that stands in quotes.
    fn of_quoted(price: &PriceDefinition, what: &str, quoted: Quoted) -> Self {
        let Quoted { number, at } = quoted;
        Fault {
            at: Some(price.query_at.within(at.line, at.column)),
            ..Fault::new(
                format!("{what} is the text '{number}', but must be a number"),
                format!("write it without quotes: {number}"),
            )
        }
    }

    fn of((problem, hint): (String, String)) -> Self {
        Fault::new(problem, hint)
    }

    /// At the place that was found, else the one that DataFusion told, else where the query begins.
    fn error(self, price: &PriceDefinition, told: Option<Location>) -> Error {
        let at = self.at.or(told).unwrap_or_else(|| price.query_at.clone());
        refused_at(price, at, self.problem, self.hint)
    }
}

fn of_message(price: &PriceDefinition, message: &str) -> Fault {
    let named = |name: Option<&str>| name.and_then(|name| place_of(price, name));
    match Said::of(message) {
        Said::NoSuchCall(name) => Fault {
            at: place_of(price, name),
            ..match refusal_in(message) {
                Some(refusal) => Fault::new(refusal, "docs/sql.md says what the function takes"),
                None => Fault::new(
                    format!("`{name}` does not take what it is given"),
                    "check how many values it takes, and their types; docs/sql.md has the functions of a price",
                ),
            }
        },
        Said::NotGrouped => Fault::new(
            format!(
                "`{}` is neither in GROUP BY nor aggregated",
                message.split('\'').nth(1).unwrap_or_default()
            ),
            "put it into GROUP BY, or aggregate it",
        ),
        Said::AggregateInWhere => {
            Fault::new("WHERE has an aggregate", "put that condition into HAVING")
        }
        Said::NoCondition => Fault::new(
            "the condition of WHERE is neither true nor false",
            "compare it with something",
        ),
        Said::NoOrdinal(ordinal) => Fault::new(
            format!("there is no column {ordinal} in SELECT"),
            "group by a name",
        ),
        Said::TooFine => Fault {
            at: place_of(price, "*"),
            ..Fault::new(
                "a product has more than 38 digits after the point",
                "declare a factor with fewer digits after the point; a cast to DECIMAL(p, s) rounds each value",
            )
        },
        Said::OtherTypes => match written::quoted_operand(&price.query) {
            Some(quoted) => Fault::of_quoted(price, "a value that is calculated with", quoted),
            None => Fault::new(
                "the two sides of an operator have types that do not go together",
                "calculate with numbers alone; CAST(x AS DECIMAL(38, 9)) makes a number of a text",
            ),
        },
        Said::NoSuchRelation(_) | Said::NoSuchFunction(_) | Said::Other => {
            // Ours: what is refused in backticks, and the way out.
            let ours = message
                .split_once(": ")
                .filter(|(problem, _)| problem.starts_with('`'));
            let (problem, hint) =
                ours.unwrap_or((message, "check the names and types in the query"));
            let operator = problem
                .strip_prefix('`')
                .and_then(|rest| rest.split('`').next());
            Fault {
                at: named(operator).or_else(|| named(function_in(message))),
                ..Fault::new(problem, hint)
            }
        }
    }
}

/// What a price function says of a call: where the first call of that function is.
fn of_function(
    price: &PriceDefinition,
    error: &(dyn std::error::Error + Send + Sync + 'static),
) -> Option<Fault> {
    if let Some(error) = error.downcast_ref::<TierError>() {
        return Some(of_tiers(price, None, error, error.to_string()));
    }
    let error = error.downcast_ref::<FunctionError>()?;
    let problem = error.to_string();
    let name = problem.split('`').nth(1);
    match error {
        FunctionError::Tiers { function, source } => {
            return Some(of_tiers(price, Some(function), source, problem));
        }
        FunctionError::Type {
            function,
            argument,
            given: DataType::Utf8 | DataType::Utf8View,
            ..
        } => {
            if let Some(quoted) = written::quoted_argument(&price.query, function) {
                let of = format!("`{function}`: `{argument}`");
                return Some(Fault::of_quoted(price, &of, quoted));
            }
        }
        _ => {}
    }
    Some(Fault {
        at: name.and_then(|name| place_of(price, name)),
        ..Fault::new(problem.as_str(), "docs/sql.md says what the function takes")
    })
}

/// What is wrong in a list of tiers: at the key that is wrong, or where its tier begins.
fn of_tiers(
    price: &PriceDefinition,
    function: Option<&str>,
    error: &TierError,
    problem: String,
) -> Fault {
    let entry = |tier, key, value| written::entry(&price.query, function, tier, key, value);
    let found = match error {
        TierError::Key { tier, key }
        | TierError::RepeatedKey { tier, key }
        | TierError::Value { tier, key, .. } => entry(*tier, Some(key), None),
        TierError::Foreign { tier, key, .. } => entry(*tier, Some(key), None),
        TierError::Order { tier, up_to, .. } => entry(*tier, Some("up_to"), Some(*up_to)),
        TierError::Outside {
            tier, key, value, ..
        } => entry(*tier, Some(key), Some(*value)),
        TierError::Unreachable { tier }
        | TierError::NoLimit { tier }
        | TierError::NoPrice { tier, .. }
        | TierError::Missing { tier, .. } => entry(*tier, None, None),
        TierError::Empty | TierError::Digits { .. } | TierError::Above { .. } => None,
    };
    let at = found
        .as_ref()
        .map(|found| price.query_at.within(found.at.line, found.at.column))
        .or_else(|| place_of(price, function?));
    if let (TierError::Value { tier, key, .. }, Some(found)) = (error, &found) {
        let problem = match &found.text {
            Some(text) => {
                format!("tier {tier}: `{key}` is the text '{text}', but must be a number or NULL")
            }
            None => format!(
                "tier {tier}: `{key}` is `{}`, but must be an exact number or NULL",
                found.value
            ),
        };
        let number = found
            .text
            .as_ref()
            .filter(|text| Exact::parse(text).is_ok());
        let hint = match number {
            Some(number) => format!("write it without quotes: {key}: {number}"),
            None => "write the number itself, or a column of a rate table, as in r.rate".to_owned(),
        };
        let fault = Fault::new(problem, hint);
        return Fault { at, ..fault };
    }
    Fault {
        at,
        ..Fault::new(problem, error.way_out())
    }
}

/// Where a function is called, or an operator used, for the first time.
fn place_of(price: &PriceDefinition, name: &str) -> Option<Location> {
    let statements = Parser::parse_sql(&Sql, &price.query).ok()?;
    let mut place = None;
    each_expression(&statements, |expr| {
        let start = expr.span().start;
        if place.is_none() && start.line > 0 && name_in(expr).as_deref() == Some(name) {
            place = Some(price.query_at.within(start.line, start.column));
        }
    });
    place
}
