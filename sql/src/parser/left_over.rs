//! Why a query ends before its statement does: a comma, AND or a `;` that is missing, or a word of SQL that is misspelt and so was
//! taken for a name.

use super::{
    cursor::{NO_COMMA, is_space, is_word},
    suggest::nearest,
};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

/// What is wrong, where, and the way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOver {
    pub(super) at: Location,
    pub(super) problem: String,
    pub(super) hint: String,
}

impl LeftOver {
    fn new(at: &TokenWithSpan, problem: String, hint: &str) -> Self {
        let at = at.span.start;
        let hint = hint.to_owned();
        LeftOver { at, problem, hint }
    }
}

/// The words that begin a part of a SELECT. None can be a name, so each tells where the part before it ends.
const CLAUSES: &[&str] = &[
    "SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "JOIN", "ON",
];

/// Words that follow a complete element and are no element themselves.
const AFTER: &[&str] = &[
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CREATE",
    "CROSS",
    "DESC",
    "ELSE",
    "END",
    "EXCEPT",
    "FILTER",
    "FULL",
    "IN",
    "INNER",
    "INTERSECT",
    "IS",
    "LEFT",
    "LIKE",
    "NULLS",
    "OFFSET",
    "OR",
    "OVER",
    "RIGHT",
    "THEN",
    "USING",
    "WHEN",
    "WITHIN",
];

/// What stands after a query that is complete, at the first token that does not belong to it.
pub(super) fn left_over(tokens: &[TokenWithSpan], next: &TokenWithSpan) -> LeftOver {
    let (before, after) = around(tokens, next.span.start);
    if is_word(&next.token, "CREATE") {
        let problem = "a `;` is missing before `CREATE`".to_owned();
        return LeftOver::new(next, problem, "end each statement with `;`");
    }
    // What stands after AS is a name, whatever it is like.
    let last = match before.as_slice() {
        [.., word, _] if is_word(&word.token, "AS") => None,
        [.., last] => Some(*last),
        [] => None,
    };
    let mut here = last.into_iter().chain([next]);
    if let Some((word, meant)) = here.find_map(|token| Some((token, misspelt(tokens, token)?))) {
        let problem = format!("unexpected `{}`", word.token);
        return LeftOver::new(word, problem, &format!("did you mean {meant}?"));
    }
    // A function whose name was taken for the name of the column before it.
    let element = match (&next.token, before.last()) {
        (Token::LParen, Some(name)) if matches!(name.token, Token::Word(_)) => Some(*name),
        _ => begins(&next.token).then_some(next),
    };
    match (clause(&before), element) {
        (Some("SELECT" | "GROUP" | "ORDER"), Some(element)) => comma_missing(element),
        (Some("WHERE" | "HAVING" | "ON"), Some(element)) => {
            let problem = format!("AND or OR is missing before `{}`", element.token);
            LeftOver::new(element, problem, "conditions are joined by AND or OR")
        }
        _ => {
            let problem = format!("unexpected `{next}` after the query");
            let hint = match (&next.token, after.is_empty()) {
                (Token::RParen, _) => "remove it, or open it before: each `)` closes one `(`",
                (Token::Comma, true) => NO_COMMA,
                _ => "end the statement with `;`, or correct the query before this place",
            };
            LeftOver::new(next, problem, hint)
        }
    }
}

/// What sqlparser says at a place as a comma that is missing or one too many, if it is that.
pub(super) fn misplaced(tokens: &[TokenWithSpan], message: &str, at: Location) -> Option<LeftOver> {
    let (before, after) = around(tokens, at);
    let found = after.first()?;
    if let Some(comma) = before.last().filter(|token| token.token == Token::Comma)
        && !begins(&found.token)
    {
        let problem = format!("a comma stands before `{}`", found.token);
        return Some(LeftOver::new(comma, problem, NO_COMMA));
    }
    let (expected, _) = message
        .strip_prefix("Expected: ")?
        .split_once(", found: ")?;
    let is_list = matches!(expected, ")" | "]" | "}");
    (is_list && begins(&found.token)).then(|| comma_missing(found))
}

fn comma_missing(element: &TokenWithSpan) -> LeftOver {
    let problem = format!("a comma is missing before `{}`", element.token);
    LeftOver::new(element, problem, "separate what is listed with commas")
}

/// The tokens before a place, and those from it on, without white space.
fn around(tokens: &[TokenWithSpan], at: Location) -> (Vec<&TokenWithSpan>, Vec<&TokenWithSpan>) {
    let written = tokens.iter().filter(|token| !is_space(token));
    written
        .partition(|token| (token.span.start.line, token.span.start.column) < (at.line, at.column))
}

/// The part of the outermost SELECT that the last token is in.
fn clause(before: &[&TokenWithSpan]) -> Option<&'static str> {
    let mut depth = 0_usize;
    let mut clause = None;
    for token in before {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            word if depth == 0 => {
                let mut clauses = CLAUSES.iter();
                clause = clauses
                    .find(|clause| is_word(word, clause))
                    .or(clause.as_ref())
                    .copied();
            }
            _ => {}
        }
    }
    clause
}

/// Whether a token can begin an element of a list.
fn begins(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            let mut other = CLAUSES.iter().chain(AFTER);
            word.quote_style.is_some() || !other.any(|other| is_word(token, other))
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::LBracket | Token::LBrace => true,
        _ => false,
    }
}

/// The word of SQL that a word nearly is, if the query does not have it and cannot do without what follows.
fn misspelt(tokens: &[TokenWithSpan], token: &TokenWithSpan) -> Option<&'static str> {
    const MISSPELT: &[&str] = &["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "JOIN", "UNION"];
    let Token::Word(word) = &token.token else {
        return None;
    };
    let written = word.value.to_uppercase();
    let near = nearest(&written, MISSPELT)?;
    let is_there = tokens.iter().any(|token| is_word(&token.token, near));
    let meant = MISSPELT.iter().find(|known| **known == near)?;
    (word.quote_style.is_none() && !is_there).then_some(*meant)
}
