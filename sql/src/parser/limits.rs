//! How large a statement may be, by its tokens, before anything is made of it: reading and planning a statement take stack
//! with its depth, and time with its size.

use super::cursor::is_space;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

/// Most tokens on the way from the top of a statement to its innermost expression. It bounds how deep
/// `a + a + …` nests.
const DEPTH_TOKENS_MAX: usize = 1_000;

/// Most tokens of a statement.
const TOKENS_MAX: usize = 100_000;

/// What is too much in a statement, what to do, and the token from which on it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) problem: String,
    pub(crate) hint: &'static str,
    pub(crate) at: Location,
}

/// Whether the tokens of a statement, or of an expression in it, are too many or nest too deeply. Within each pair of
/// parentheses, a comma ends what could nest.
pub(crate) fn excess<'t>(tokens: impl IntoIterator<Item = &'t TokenWithSpan>) -> Option<Excess> {
    let mut open = vec![0_usize];
    let mut depth = 0;
    let words = tokens.into_iter().filter(|token| !is_space(token));
    for (count, token) in words.enumerate() {
        match token.token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push(0),
            Token::RParen | Token::RBracket | Token::RBrace if open.len() > 1 => {
                depth -= open.pop().unwrap_or(0);
            }
            Token::Comma => depth -= open.last_mut().map_or(0, std::mem::take),
            _ => {
                depth += 1;
                if let Some(innermost) = open.last_mut() {
                    *innermost += 1;
                }
            }
        }
        let at = token.span.start;
        if depth > DEPTH_TOKENS_MAX || open.len() > DEPTH_TOKENS_MAX {
            return Some(Excess {
                problem: format!("the query has more than {DEPTH_TOKENS_MAX} words in a row"),
                hint: "put long lists into a rate table and join it",
                at,
            });
        }
        if count >= TOKENS_MAX {
            return Some(Excess {
                problem: format!("the statement has more than {TOKENS_MAX} words"),
                hint: "put long lists into a rate table and join it",
                at,
            });
        }
    }
    None
}
