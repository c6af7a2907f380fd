//! The tokens of a file, up to where it cannot be read, and from the next statement on.
//!
//! A quote that is not closed ends at the next quote, which opens another text: from there on every text of the file is taken for
//! what stands between two, and the place that cannot be read at last is far below. So a text that runs over the end of its line and
//! straight into a word is taken for a quote that was not closed.

use super::{cursor::Cursor, dialect::Sql};
use crate::{
    definitions::model::SourceFile,
    error::{Error, Result},
};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// Tokens that follow one another in a file.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Why nothing of the statement is read after them.
    pub(super) ends: Option<Unread>,
}

/// What cannot be read.
#[derive(Debug)]
pub(super) struct Unread {
    at: Location,
    problem: String,
    hint: String,
}

impl Unread {
    /// The error, about what the cursor defines.
    pub(super) fn error(self, cursor: &Cursor<'_>) -> Error {
        cursor.error(cursor.location(self.at), self.problem, &self.hint)
    }
}

/// The whole file as one piece, as long as it can be read.
///
/// # Errors
/// It cannot be read to its end.
pub(super) fn whole(file: &SourceFile) -> Result<Piece, ()> {
    let mut tokens = Vec::new();
    let mut tokenizer = Tokenizer::new(&Sql, &file.text);
    let read = tokenizer.tokenize_with_location_into_buf(&mut tokens);
    let ends = None;
    read.map(|()| Piece { tokens, ends }).map_err(|_| ())
}

/// The pieces of a file in which something is wrong: each ends at what cannot be read or is not closed, and the next one begins with the
/// next line that begins with CREATE.
pub(super) fn pieces(file: &SourceFile) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = file.text.as_str();
    let mut lines_before = 0;
    loop {
        let (mut piece, unread_line) = piece(rest);
        for token in &mut piece.tokens {
            token.span.start.line += lines_before;
            token.span.end.line += lines_before;
        }
        if let Some(unread) = &mut piece.ends {
            unread.at.line += lines_before;
        }
        pieces.push(piece);
        let Some((skipped, next)) = unread_line.and_then(|line| next_statement(rest, line)) else {
            return pieces;
        };
        lines_before += skipped;
        rest = next;
    }
}

/// The first piece of a text, and the line in which it ends if that is not the last.
fn piece(text: &str) -> (Piece, Option<u64>) {
    let mut tokens = Vec::new();
    let read = Tokenizer::new(&Sql, text).tokenize_with_location_into_buf(&mut tokens);
    let open = tokens.iter().position(|token| runs_on(text, token));
    let unread = match (open, read) {
        (Some(open), _) => {
            let at = tokens[open].span.start;
            tokens.truncate(open);
            Some(unclosed(text, at))
        }
        (None, Err(error)) => {
            // The token that cannot be read begins where the last one ends.
            let at = tokens
                .last()
                .map_or(Location::new(1, 1), |last| last.span.end);
            Some(unreadable(text, at, error.message.trim()))
        }
        (None, Ok(())) => None,
    };
    let line = unread.as_ref().map(|unread| unread.at.line);
    let ends = unread;
    (Piece { tokens, ends }, line)
}

/// Whether a quoted text spans a line break, and what follows it stands at its closing quote as at an opening one.
fn runs_on(text: &str, token: &TokenWithSpan) -> bool {
    // Nothing else spans lines, but comments.
    let is_quoted = !matches!(token.token, Token::Whitespace(_));
    let follows = || from(text, token.span.end).chars().next();
    is_quoted
        && token.span.start.line < token.span.end.line
        && follows().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '%' | '/'))
}

fn unreadable(text: &str, at: Location, message: &str) -> Unread {
    let begins = from(text, at);
    let begins_quoted = begins.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    if begins_quoted.starts_with(['\'', '"']) {
        return unclosed(text, at);
    }
    let (problem, hint) = match begins.starts_with("/*") {
        true => (
            "the comment that begins here is never closed".to_owned(),
            "end it with `*/`",
        ),
        false => (
            format!("cannot be read: {message}"),
            "correct it at this place, or put it into a text or a comment",
        ),
    };
    Unread {
        at,
        problem,
        hint: hint.to_owned(),
    }
}

fn unclosed(text: &str, mut at: Location) -> Unread {
    // A letter before it makes another kind of text, such as x'00'.
    let prefix = from(text, at)
        .chars()
        .take_while(|c| !matches!(c, '\'' | '"'));
    at.column += prefix.count() as u64;
    let mut characters = from(text, at).chars();
    let quote = characters.next().unwrap_or('\'');
    let line = characters.as_str().lines().next().unwrap_or_default();
    // What was meant is not known: it ends before what would follow a text.
    let meant = line.split([',', ')', ';', quote]).next();
    let example = meant.map(str::trim).filter(|meant| !meant.is_empty());
    let example = example.map_or(String::new(), |meant| {
        format!(", as in {quote}{meant}{quote}")
    });
    Unread {
        at,
        problem: "the quote that is opened here is not closed".to_owned(),
        hint: format!("close it in its line{example}; a {quote} within quotes is written twice"),
    }
}

/// The text from a place on, which is at a character or at the end.
fn from(text: &str, at: Location) -> &str {
    let before = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let start: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let within = rest.char_indices().nth(column);
    within.map_or("", |(within, _)| rest.get(within..).unwrap_or_default())
}

/// The text from the first line on that begins with CREATE after the given one, which counts from 1, and how many lines are before it.
fn next_statement(text: &str, line: u64) -> Option<(u64, &str)> {
    let mut start = 0;
    for (number, content) in (1..).zip(text.split_inclusive('\n')) {
        let begins = content.trim_start().get(..6);
        if number > line && begins.is_some_and(|word| word.eq_ignore_ascii_case("CREATE")) {
            return Some((number - 1, text.get(start..)?));
        }
        start += content.len();
    }
    None
}

/// Refuses `/*! text */`, which the dialect reads as SQL and its author means as a comment.
///
/// # Errors
/// There is one, at its place.
pub(super) fn refuse_executable_comments(cursor: &Cursor<'_>, file: &SourceFile) -> Result<()> {
    if !file.text.contains("/*!") {
        return Ok(());
    }
    // Its first token carries the place of the comment, where no other token can start.
    let opens = |token: &&TokenWithSpan| from(&file.text, token.span.start).starts_with("/*!");
    match cursor.tokens().iter().find(opens) {
        None => Ok(()),
        Some(token) => Err(cursor.error(
            cursor.location(token.span.start),
            "a comment that starts with `/*!` would be run as SQL".to_owned(),
            "put a space after `/*`",
        )),
    }
}
