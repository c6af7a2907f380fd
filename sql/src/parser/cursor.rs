//! The tokens of one file, read from left to right, and errors that point at them.

use crate::{
    definitions::model::SourceFile,
    error::{Error, Location, Result},
};
use datafusion::sql::sqlparser::tokenizer::{self, Token, TokenWithSpan, Word};

/// What to do about a comma after the last element of a list.
pub(super) const NO_COMMA: &str = "remove it: a comma stands between two of a list";

/// Longest name of a definition or column, in characters: names become folders and file names.
const NAME_CHARS_MAX: usize = 63;

/// Words that cannot be names unless quoted, because a query could not use them either.
const RESERVED_WORDS: &[&str] = &[
    "and", "as", "case", "create", "else", "end", "from", "group", "having", "join", "limit",
    "not", "null", "on", "options", "or", "order", "select", "then", "union", "when", "where",
    "with",
];

/// An identifier, folded to lower case unless it was quoted, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) at: Location,
}

impl Name {
    /// A part of this text, at the same place.
    pub(super) fn with_text(&self, text: &str) -> Self {
        Self {
            text: text.to_owned(),
            at: self.at.clone(),
        }
    }
}

/// Where a statement begins.
#[derive(Debug)]
pub(super) struct Begun(usize);

/// A position in the tokens of a file.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    file: &'a SourceFile,
    line_starts: Vec<usize>,
    tokens: Vec<TokenWithSpan>,
    /// Index into `tokens`; never on whitespace or a comment.
    next: usize,
    /// What is being defined, such as ``meter `tokens` ``; empty between statements.
    context: String,
    /// The name of what is being defined, once it was read.
    defining: Option<String>,
}

impl<'a> Cursor<'a> {
    /// Reads the tokens of a file, or of a part of it.
    pub(super) fn over(file: &'a SourceFile, tokens: Vec<TokenWithSpan>) -> Self {
        let mut cursor = Cursor {
            file,
            line_starts: line_starts(&file.text),
            tokens,
            next: 0,
            context: String::new(),
            defining: None,
        };
        cursor.skip_whitespace();
        cursor
    }

    /// All tokens, read or not.
    pub(super) fn tokens(&self) -> &[TokenWithSpan] {
        &self.tokens
    }

    /// Begins a statement, of which nothing is known yet.
    pub(super) fn begin(&mut self) -> Begun {
        self.context.clear();
        self.defining = None;
        Begun(self.next)
    }

    /// Goes from a statement that has an error to the next one: past its `;`, or to the next CREATE, which is a word of nothing else.
    pub(super) fn skip_statement(&mut self, begun: &Begun) {
        let after = begun.0 + 1;
        let rest = self.tokens.get(after..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|token| token.token == Token::SemiColon || is_word(&token.token, "CREATE"));
        self.next = after + end.unwrap_or(rest.len());
        self.accept(&Token::SemiColon);
    }

    /// Whether the last token that was read ends a statement; true before the first.
    pub(super) fn is_between_statements(&self) -> bool {
        let read = self.tokens.iter().take(self.next);
        read.rev()
            .find(|token| !is_space(token))
            .is_none_or(|token| token.token == Token::SemiColon)
    }

    /// Names what is being defined.
    pub(super) fn define(&mut self, noun: &str, name: &str) {
        self.context = format!("{noun} `{name}`");
        self.defining = Some(name.to_owned());
    }

    /// The name of what is being defined, once it was read.
    pub(super) fn defining(&self) -> Option<&str> {
        self.defining.as_deref()
    }

    /// Whether every token was read.
    pub(super) fn at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// Where the next token is; after the last one, where that ends.
    pub(super) fn here(&self) -> Location {
        match self.tokens.get(self.next) {
            Some(token) => self.location(token.span.start),
            None => self.end(),
        }
    }

    /// The next token as it reads in a message.
    pub(super) fn found(&self) -> String {
        match self.peek() {
            Some(token) => format!("`{token}`"),
            None => "the end of the file".to_owned(),
        }
    }

    /// The next token, if there is one.
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|token| &token.token)
    }

    /// Reads one token, whatever it is.
    pub(super) fn advance(&mut self) {
        self.next += 1;
        self.skip_whitespace();
    }

    /// Reads the next token if it is this one.
    pub(super) fn accept(&mut self, token: &Token) -> bool {
        let accepted = self.peek() == Some(token);
        if accepted {
            self.advance();
        }
        accepted
    }

    /// Reads the next token if it is this word, in any case and without quotes.
    pub(super) fn accept_keyword(&mut self, keyword: &str) -> bool {
        let accepted = self.peek().is_some_and(|token| is_word(token, keyword));
        if accepted {
            self.advance();
        }
        accepted
    }

    /// Whether the next two words are these.
    pub(super) fn at_words(&self, first: &str, second: &str) -> bool {
        let rest = self.tokens.get(self.next..).unwrap_or_default();
        let mut words = rest.iter().filter(|token| !is_space(token));
        let mut next = |word| {
            words
                .next()
                .is_some_and(|token| is_word(&token.token, word))
        };
        next(first) && next(second)
    }

    /// Reads this token, or says what is there instead.
    pub(super) fn expect(&mut self, token: &Token, hint: &str) -> Result<()> {
        if self.accept(token) {
            return Ok(());
        }
        Err(self.expected(&format!("`{token}`"), hint))
    }

    /// Reads this word, or says what is there instead.
    pub(super) fn expect_keyword(&mut self, keyword: &str, hint: &str) -> Result<()> {
        if self.accept_keyword(keyword) {
            return Ok(());
        }
        Err(self.expected(keyword, hint))
    }

    /// After an element of a list: true when a comma says that another one follows, false when the list is closed.
    ///
    /// # Errors
    /// Neither is there; it says whether a comma is missing, or stands before the end.
    pub(super) fn another(&mut self, close: &Token, hint: &str) -> Result<bool> {
        let comma = self.here();
        if self.accept(&Token::Comma) {
            return match self.peek() == Some(close) {
                true => {
                    Err(self.error(comma, format!("a comma stands before `{close}`"), NO_COMMA))
                }
                false => Ok(true),
            };
        }
        if self.accept(close) {
            return Ok(false);
        }
        Err(match self.peek().is_some_and(begins_element) {
            true => self.comma_missing(hint),
            false => self.expected(&format!("`{close}`"), hint),
        })
    }

    /// The error that the next token belongs to another element of a list.
    pub(super) fn comma_missing(&self, hint: &str) -> Error {
        let problem = format!("a comma is missing before {}", self.found());
        self.error(self.here(), problem, hint)
    }

    /// The token after the next one.
    pub(super) fn peek_second(&self) -> Option<&Token> {
        let rest = self.tokens.get(self.next..).unwrap_or_default();
        let mut rest = rest.iter().filter(|token| !is_space(token));
        rest.nth(1).map(|token| &token.token)
    }

    /// Reads a word, quoted or not, without judging it.
    pub(super) fn accept_word(&mut self) -> Option<(Word, Location)> {
        let at = self.here();
        let Some(Token::Word(word)) = self.peek() else {
            return None;
        };
        let word = word.clone();
        self.advance();
        Some((word, at))
    }

    /// Reads a string in single quotes; its text is unescaped.
    pub(super) fn accept_string(&mut self) -> Option<Name> {
        let at = self.here();
        let Some(Token::SingleQuotedString(text)) = self.peek() else {
            return None;
        };
        let text = text.clone();
        self.advance();
        Some(Name { text, at })
    }

    /// Reads a number; its text is as it is written.
    pub(super) fn accept_number(&mut self) -> Option<Name> {
        let at = self.here();
        let Some(Token::Number(text, _)) = self.peek() else {
            return None;
        };
        let text = text.clone();
        self.advance();
        Some(Name { text, at })
    }

    /// Reads a name: letters, digits and `_`, folded to lower case unless quoted.
    ///
    /// # Errors
    /// Names that could not be written without quotes in every query.
    pub(super) fn name(&mut self, what: &str) -> Result<Name> {
        let expected = self.expected(what, "names are letters, digits and `_`, such as `tokens`");
        let (word, at) = self.accept_word().ok_or(expected)?;
        let text = fold(&word.value, word.quote_style);
        if word.quote_style.is_none() && RESERVED_WORDS.contains(&text.as_str()) {
            let problem = format!("expected {what}, found the reserved word `{}`", word.value);
            return Err(self.error(at, problem, "choose a name that is not a word of SQL"));
        }
        if !is_plain(&text) {
            let problem = format!("`{text}` cannot be a name");
            let hint = format!(
                "use lower-case letters, digits and `_`, not a digit first, at most {NAME_CHARS_MAX} characters"
            );
            return Err(self.error(at, problem, &hint));
        }
        Ok(Name { text, at })
    }

    /// Reads everything up to the next `;` or the end of the file, whitespace included.
    pub(super) fn rest_of_statement(&mut self) -> Vec<TokenWithSpan> {
        let rest = self.tokens.get(self.next..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|token| token.token == Token::SemiColon)
            .unwrap_or(rest.len());
        let taken = rest.iter().take(length).cloned().collect();
        self.next += length;
        taken
    }

    /// Reads `(` and the tokens up to the `)` that closes it, whitespace included, and stops there.
    ///
    /// # Errors
    /// No `(` here, or none of the tokens that follow closes it.
    pub(super) fn parenthesised(&mut self, hint: &str) -> Result<Vec<TokenWithSpan>> {
        let open = self.here();
        self.expect(&Token::LParen, hint)?;
        let rest = self.tokens.get(self.next..).unwrap_or_default();
        let mut depth = 0_usize;
        let close = rest.iter().position(|token| {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => return true,
                Token::RParen => depth -= 1,
                _ => {}
            }
            false
        });
        let Some(close) = close else {
            return Err(self.error(open, "`(` is never closed".to_owned(), hint));
        };
        let taken = rest.iter().take(close).cloned().collect();
        self.next += close;
        self.skip_whitespace();
        Ok(taken)
    }

    /// The file's own text from the start of one token to the end of another.
    pub(super) fn source(&self, from: tokenizer::Location, to: tokenizer::Location) -> &'a str {
        let range = self.offset(from)..self.offset(to);
        self.file.text.get(range).unwrap_or_default()
    }

    /// An error about what is being defined.
    pub(super) fn error(&self, at: Location, problem: String, hint: &str) -> Error {
        let problem = match self.context.as_str() {
            "" => problem,
            context => format!("{context}: {problem}"),
        };
        Error::Definition {
            at,
            problem,
            hint: hint.to_owned(),
        }
    }

    /// An error about the next token.
    pub(super) fn expected(&self, what: &str, hint: &str) -> Error {
        let problem = format!("expected {what}, found {}", self.found());
        self.error(self.here(), problem, hint)
    }

    /// What is being defined.
    pub(super) fn context(&self) -> &str {
        &self.context
    }

    /// A place in this file.
    pub(super) fn location(&self, at: tokenizer::Location) -> Location {
        Location {
            file: self.file.name.clone(),
            line: at.line,
            column: at.column,
        }
    }

    fn end(&self) -> Location {
        let last = self.tokens.iter().rev().find(|token| !is_space(token));
        let end = last.map_or(tokenizer::Location::new(1, 1), |token| token.span.end);
        self.location(end)
    }

    fn skip_whitespace(&mut self) {
        while self.tokens.get(self.next).is_some_and(is_space) {
            self.next += 1;
        }
    }

    /// Byte offset of a place; the tokenizer counts columns in characters.
    fn offset(&self, at: tokenizer::Location) -> usize {
        let line = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
        let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let text = self.file.text.get(start..).unwrap_or_default();
        let within = text
            .char_indices()
            .nth(column)
            .map_or(text.len(), |(offset, _)| offset);
        start + within
    }
}

/// Folds an identifier as SQL does: to lower case, unless it is quoted.
pub(super) fn fold(value: &str, quote: Option<char>) -> String {
    match quote {
        None => value.to_lowercase(),
        Some(_) => value.to_owned(),
    }
}

/// Whether a token can be the first of an element of a list.
pub(super) fn begins_element(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            let mut reserved = RESERVED_WORDS.iter();
            let is_reserved = reserved.any(|reserved| word.value.eq_ignore_ascii_case(reserved));
            word.quote_style.is_some() || !is_reserved
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::LBracket | Token::LBrace => true,
        _ => false,
    }
}

/// Whether a token is this word, in any case and without quotes.
pub(super) fn is_word(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

fn is_plain(name: &str) -> bool {
    let start = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    start && name.chars().all(rest) && name.len() <= NAME_CHARS_MAX
}

pub(super) fn is_space(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_))
}

fn line_starts(text: &str) -> Vec<usize> {
    let after = text.match_indices('\n').map(|(offset, _)| offset + 1);
    std::iter::once(0).chain(after).collect()
}
