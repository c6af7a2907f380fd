//! A text of SQL by its tokens: taken apart into statements, and with values in the place of parameters (pure).
//!
//! The tokens are those that the text is planned from, so a quote in a value cannot end where it stands.

use crate::parser::Sql;
use datafusion::{
    common::plan_err,
    error::{DataFusionError, Result},
    sql::sqlparser::{
        parser::ParserError,
        tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
    },
};
use std::{iter::Peekable, ops::Range, str::CharIndices};

/// The tokens of a text that mean something: no spaces, no comments.
///
/// # Errors
/// A quote or a comment is not closed, or there is a character that no token begins with.
pub fn tokens(text: &str) -> Result<Vec<Token>> {
    Ok(placed(text)?.into_iter().map(|(token, _)| token).collect())
}

/// The statements of a text, which `;` separates, without what is empty.
///
/// ```
/// use tollgate_sql::statements::statements;
///
/// let text = "SELECT ';' ; -- nothing;\n ;BEGIN";
/// assert_eq!(statements(text).unwrap(), ["SELECT ';'", "BEGIN"]);
/// assert!(statements("SELECT 'open").is_err());
/// ```
///
/// # Errors
/// As [`tokens`].
pub fn statements(text: &str) -> Result<Vec<&str>> {
    let placed = placed(text)?;
    let parts = placed.split(|(token, _)| *token == Token::SemiColon);
    let statement = |part: &[(Token, Range<usize>)]| match (part.first(), part.last()) {
        (Some((_, first)), Some((_, last))) => Some(&text[first.start..last.end]),
        _ => None,
    };
    Ok(parts.filter_map(statement).collect())
}

/// How many parameters a statement has: the highest number of `$1`, `$2`, ….
///
/// # Errors
/// As [`tokens`]; a parameter is named otherwise.
pub fn parameters(sql: &str) -> Result<usize> {
    let numbers = placed(sql)?.into_iter();
    let mut numbers = numbers.filter_map(|(token, _)| number_of(&token));
    numbers.try_fold(0, |most, number| Ok(most.max(number?)))
}

/// A statement with texts of SQL in the place of its parameters, the first being that of `$1`. One without a text stays.
///
/// ```
/// use tollgate_sql::statements::{text_literal, with_values};
///
/// let sql = "SELECT '$1', $1 -- $1";
/// let value = Some(text_literal("it's"));
/// assert_eq!(with_values(sql, &[value]).unwrap(), "SELECT '$1',  'it''s'  -- $1");
/// ```
///
/// # Errors
/// As [`parameters`]; there is no value of that number.
pub fn with_values(sql: &str, values: &[Option<String>]) -> Result<String> {
    let (mut filled, mut copied) = (String::with_capacity(sql.len()), 0);
    for (token, range) in placed(sql)? {
        let Some(number) = number_of(&token) else {
            continue;
        };
        let number = number?;
        let Some(value) = number.checked_sub(1).and_then(|index| values.get(index)) else {
            return plan_err!(
                "there is no parameter ${number}; {} are given",
                values.len()
            );
        };
        if let Some(value) = value {
            filled.push_str(&sql[copied..range.start]);
            // Two quoted texts side by side would be one.
            filled.push(' ');
            filled.push_str(value);
            filled.push(' ');
            copied = range.end;
        }
    }
    filled.push_str(&sql[copied..]);
    Ok(filled)
}

/// A text as SQL has it, whatever is in it.
pub fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The number of a parameter; `None` for any other token.
fn number_of(token: &Token) -> Option<Result<usize>> {
    /// PostgreSQL has no more of them either.
    const MOST: usize = 65_535;
    let Token::Placeholder(name) = token else {
        return None;
    };
    let number = name
        .strip_prefix('$')
        .and_then(|number| number.parse().ok());
    Some(match number {
        Some(number) if (1..=MOST).contains(&number) => Ok(number),
        _ => plan_err!("`{name}` is no parameter; parameters are written $1, $2 and so on"),
    })
}

/// Each token that means something with its place in bytes.
fn placed(text: &str) -> Result<Vec<(Token, Range<usize>)>> {
    let read = Tokenizer::new(&Sql, text).tokenize_with_location();
    let read = read.map_err(|error| {
        let error = ParserError::TokenizerError(error.to_string());
        DataFusionError::SQL(Box::new(error), None)
    })?;
    let mut walk = Walk::over(text);
    let mut placed = Vec::with_capacity(read.len());
    for TokenWithSpan { token, span } in read {
        if matches!(token, Token::Whitespace(_) | Token::EOF) {
            continue;
        }
        let start = walk.to(span.start);
        placed.push((token, start..walk.to(span.end)));
    }
    Ok(placed)
}

/// A text on the way from place to place, each behind the one before.
struct Walk<'a> {
    characters: Peekable<CharIndices<'a>>,
    at: Location,
    end: usize,
}

impl<'a> Walk<'a> {
    fn over(text: &'a str) -> Self {
        Walk {
            characters: text.char_indices().peekable(),
            at: Location::new(1, 1),
            end: text.len(),
        }
    }

    /// The byte at a place.
    fn to(&mut self, place: Location) -> usize {
        while self.at < place
            && let Some((_, character)) = self.characters.next()
        {
            self.at = match character {
                '\n' => Location::new(self.at.line + 1, 1),
                _ => Location::new(self.at.line, self.at.column + 1),
            };
        }
        self.characters.peek().map_or(self.end, |(byte, _)| *byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn statements_are_separated_by_what_is_a_token() {
        for (text, expected) in [
            ("", vec![]),
            (" ;; \n ; ", vec![]),
            ("SELECT 1", vec!["SELECT 1"]),
            ("SELECT 1; -- a; b", vec!["SELECT 1"]),
            (
                "/* a; */ SELECT \"b;\";SELECT 'ä;', 'it''s; '",
                vec!["SELECT \"b;\"", "SELECT 'ä;', 'it''s; '"],
            ),
            (
                "SELECT 1\n\r\n;\n\tSELECT\n2",
                vec!["SELECT 1", "SELECT\n2"],
            ),
        ] {
            assert_eq!(statements(text).unwrap(), expected, "{text}");
        }
        for text in ["SELECT 'a", "SELECT \"a", "/* a"] {
            assert!(statements(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_stand_where_parameters_stood_and_nowhere_else() {
        let values: Vec<_> = ["1", "(-2)"].map(|value| Some(value.to_owned())).into();
        let sql = "SELECT $2+$1, '$1', \"$1\", 'ä' -- $2\n, $1::text";
        let filled = "SELECT  (-2) + 1 , '$1', \"$1\", 'ä' -- $2\n,  1 ::text";
        assert_eq!(with_values(sql, &values).unwrap(), filled);
        assert_eq!(parameters(sql).unwrap(), 2);
        assert_eq!(parameters("SELECT 1").unwrap(), 0);
        let one = [None, values[1].clone()];
        assert_eq!(with_values("$1, $2", &one).unwrap(), "$1,  (-2) ");
        for wrong in ["SELECT $3", "SELECT $0", "SELECT $a", "SELECT $99999"] {
            assert!(with_values(wrong, &values).is_err(), "{wrong}");
        }
    }

    proptest! {
        /// Whatever a text holds, it is one token again that holds the same.
        #[test]
        fn a_text_is_one_token_and_nothing_of_it_is_sql(text in any::<String>()) {
            let filled = with_values("SELECT $1, $1", &[Some(text_literal(&text))]).unwrap();
            let read = tokens(&filled).unwrap();
            let expected = Token::SingleQuotedString(text);
            prop_assert_eq!(read.len(), 4);
            prop_assert_eq!(&read[1], &expected);
            prop_assert_eq!(&read[3], &expected);
        }
    }
}
