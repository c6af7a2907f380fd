//! What is wrong in a query that cannot be planned, in words of SQL, with the name that could have been meant.

use crate::{
    datafusion_messages::Said,
    parser::suggest::{did_you_mean, nearest},
};
use datafusion::{
    common::SchemaError, error::DataFusionError, execution::SessionState,
    sql::sqlparser::parser::ParserError,
};

/// What is wrong, the way out, and where it is, if that is known: line and column of the query, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplanned {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub hint: String,
    /// Line and column.
    pub at: Option<(u64, u64)>,
}

/// What is wrong in a query over these relations; `None` for what only its own words tell.
///
/// ```
/// # use tollgate_sql::{session, unplanned::unplanned};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let context = session::context();
/// let query = "SELECT * FROM token";
/// let error = session::query(&context, query).await.unwrap_err();
/// let found = unplanned(&context.state(), query, &["tokens".to_owned()], &error).unwrap();
/// assert_eq!(found.problem, "there is no relation `token`");
/// assert_eq!(found.hint, "did you mean `tokens`? known relations: `tokens`");
/// assert_eq!(found.at, Some((1, 15)));
/// # });
/// ```
pub fn unplanned(
    state: &SessionState,
    query: &str,
    relations: &[String],
    error: &DataFusionError,
) -> Option<Unplanned> {
    let said = error.diagnostic();
    let span = said.and_then(|said| said.span);
    let at = span.map(|span| (span.start.line, span.start.column));
    let (problem, hint) = match error.find_root() {
        DataFusionError::SchemaError(error, _) => of_schema(query, error)?,
        DataFusionError::SQL(error, _) => return Some(of_syntax(error)),
        DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => {
            let message = said.map_or(message.as_str(), |said| said.message.as_str());
            let found = of_names(state, relations, message).or_else(|| of_message(query, message));
            // Ours says what to do, and DataFusion's has no better.
            found.unwrap_or((
                message.to_owned(),
                "check the names and types in the query".to_owned(),
            ))
        }
        _ => return None,
    };
    Some(Unplanned { problem, hint, at })
}

/// What is no SQL, or nests too deeply to be read.
fn of_syntax(error: &ParserError) -> Unplanned {
    let hint = "a query is one SELECT; docs/sql.md has examples".to_owned();
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return Unplanned {
                problem: "the query is nested too deeply".to_owned(),
                hint: "write it with fewer parentheses within one another, or in steps: WITH a AS (…) SELECT …".to_owned(),
                at: None,
            };
        }
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    // The place stands at the end, in words.
    let place = message.rsplit_once(" at Line: ").and_then(|(said, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((said, (line.parse().ok()?, column.trim().parse().ok()?)))
    });
    let (said, at) = match place {
        Some((said, at)) => (said, Some(at)),
        None => (message.as_str(), None),
    };
    let mut characters = said.chars();
    let first = characters
        .next()
        .map(|first| first.to_lowercase().to_string());
    let problem = first.unwrap_or_default() + characters.as_str();
    let problem = problem.replacen("expected: ", "expected ", 1);
    let problem = problem.replacen(", found: ", ", found ", 1);
    let problem = problem.replace("found EOF", "found the end");
    Unplanned { problem, hint, at }
}

/// What a message says of more than a name.
fn of_message(query: &str, message: &str) -> Option<(String, String)> {
    if ["DML", "DDL", "Statement"]
        .iter()
        .any(|kind| message.starts_with(&format!("{kind} not supported")))
    {
        let word = query.split_whitespace().next().unwrap_or_default();
        let problem = format!("{} is refused", word.to_uppercase());
        return Some((problem, "a query only reads".to_owned()));
    }
    let (problem, hint) = match Said::of(message) {
        Said::NoSuchCall(name) => (
            format!("`{name}` does not take what it is given"),
            "check how many values it takes, and their types",
        ),
        Said::NotGrouped => (
            format!(
                "`{}` is neither in GROUP BY nor aggregated",
                message.split('\'').nth(1)?
            ),
            "put it into GROUP BY, or aggregate it",
        ),
        Said::AggregateInWhere => (
            "WHERE has an aggregate".to_owned(),
            "put that condition into HAVING",
        ),
        Said::NoCondition => (
            "the condition of WHERE is neither true nor false".to_owned(),
            "compare it with something",
        ),
        Said::NoOrdinal(ordinal) => (
            format!("there is no column {ordinal} in SELECT"),
            "group by a name",
        ),
        Said::TooFine => (
            "a product has more than 38 digits after the point".to_owned(),
            "declare a factor with fewer digits after the point; a cast to DECIMAL(p, s) rounds each value",
        ),
        Said::OtherTypes => (
            "the two sides of an operator have types that do not go together".to_owned(),
            "calculate with numbers alone, and compare like with like: a number stands without quotes",
        ),
        Said::NoSuchRelation(_) | Said::NoSuchFunction(_) | Said::Other => return None,
    };
    Some((problem, hint.to_owned()))
}

/// A column that is not there, or not one.
pub(crate) fn of_schema(query: &str, error: &SchemaError) -> Option<(String, String)> {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let is_of_it =
                |relation: &Option<_>| field.relation.is_none() || *relation == field.relation;
            let of_it = valid_fields
                .iter()
                .filter(|known| is_of_it(&known.relation));
            let mut columns: Vec<&str> = of_it.map(|known| known.name.as_str()).collect();
            columns.sort_unstable();
            columns.dedup();
            let problem = match &field.relation {
                Some(relation) => format!("`{}` has no column `{}`", relation.table(), field.name),
                None => format!("there is no column `{}`", field.name),
            };
            let hint = match (columns.is_empty(), &field.relation) {
                (true, Some(relation)) => {
                    format!("no relation in FROM is called `{}`", relation.table())
                }
                _ if query.contains(&format!("\"{}\"", field.name)) => {
                    format!("a text stands in single quotes: '{}'", field.name)
                }
                _ if nearest(&field.name, &columns).is_none()
                    && is_compared(query, &field.name) =>
                {
                    let known = did_you_mean(&field.name, "columns", &columns);
                    format!("a text stands in single quotes: '{}'; {known}", field.name)
                }
                _ => did_you_mean(&field.name, "columns", &columns),
            };
            Some((problem, hint))
        }
        SchemaError::AmbiguousReference { field } => Some((
            format!("`{}` is a column of more than one relation", field.name),
            format!("write the relation before it, as in t.{}", field.name),
        )),
        SchemaError::DuplicateUnqualifiedField { name } => Some((
            format!("two columns are called `{name}`"),
            "give one of them another name with AS".to_owned(),
        )),
        SchemaError::DuplicateQualifiedField { .. } => None,
    }
}

/// Whether a name stands right of a comparison, where a text may be meant.
fn is_compared(query: &str, name: &str) -> bool {
    let mut found = query.match_indices(name);
    found.any(|(place, _)| query[..place].trim_end().ends_with(['=', '>', '<']))
}

/// A relation or a function that there is not.
pub(crate) fn of_names(
    state: &SessionState,
    relations: &[String],
    message: &str,
) -> Option<(String, String)> {
    match Said::of(message) {
        Said::NoSuchRelation(name) => {
            let mut known = relations.to_vec();
            known.sort();
            let hint = did_you_mean(name, "relations", &known);
            Some((format!("there is no relation `{name}`"), hint))
        }
        Said::NoSuchFunction(name) => {
            let names = state.scalar_functions().keys();
            let names = names.chain(state.aggregate_functions().keys());
            let mut known: Vec<&str> = names
                .chain(state.window_functions().keys())
                .map(String::as_str)
                .collect();
            known.sort_unstable();
            let guide = "docs/sql.md has the functions of a price";
            let hint = match nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`? {guide}"),
                None => guide.to_owned(),
            };
            Some((format!("there is no function `{name}`"), hint))
        }
        _ => None,
    }
}
