//! The query after `AS`: parsed by sqlparser, kept as its author wrote it.

use super::{
    cursor::{Cursor, Name, fold, is_space, is_word},
    dialect::Sql,
    left_over,
    limits::{self, Excess},
};
use crate::error::{Error, Location, Result};
use datafusion::sql::sqlparser::{
    ast::{Cte, ObjectName, ObjectNamePart, Query, TableFactor, Visit, Visitor},
    parser::{Parser, ParserError},
    tokenizer::{self, Span, Token, TokenWithSpan},
};
use std::{collections::VecDeque, ops::ControlFlow};

/// A query that is one well-formed statement.
#[derive(Debug)]
pub(super) struct ParsedQuery {
    pub(super) ast: Box<Query>,
    /// The source text, from the first token to the last, comments included.
    pub(super) text: String,
    /// Where it starts.
    pub(super) start: Location,
    tokens: Vec<TokenWithSpan>,
    context: String,
}

/// Reads `AS` and the query up to the end of the statement.
///
/// # Errors
/// What sqlparser refuses, at its place; anything after the query.
pub(super) fn after_as(cursor: &mut Cursor<'_>) -> Result<ParsedQuery> {
    cursor.expect_keyword("AS", "the query follows: `AS SELECT … FROM …`")?;
    let start = cursor.here();
    let tokens = cursor.rest_of_statement();
    check_limits(cursor, &tokens)?;
    let mut parser = Parser::new(&Sql).with_tokens_with_locations(tokens.clone());
    let ast = parser
        .parse_query()
        .map_err(|error| syntax_error(cursor, &tokens, &error, &start, QUERY_HINT))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let left = left_over::left_over(&tokens, &next);
        return Err(cursor.error(cursor.location(left.at), left.problem, &left.hint));
    }
    Ok(ParsedQuery {
        ast,
        text: source(cursor, &tokens),
        start,
        tokens,
        context: cursor.context().to_owned(),
    })
}

/// Reads `(expression)`; returns its text and where it starts.
///
/// # Errors
/// What sqlparser refuses, at its place.
pub(super) fn in_parentheses(cursor: &mut Cursor<'_>, hint: &str) -> Result<(String, Location)> {
    let tokens = cursor.parenthesised(hint)?;
    check_limits(cursor, &tokens)?;
    let first = tokens.iter().find(|token| !is_space(token));
    let start = first.map_or_else(|| cursor.here(), |token| cursor.location(token.span.start));
    let mut parser = Parser::new(&Sql).with_tokens_with_locations(tokens.clone());
    let expression = parser.parse_expr().and_then(|_| match parser.peek_token() {
        next if next.token == Token::EOF => Ok(()),
        next => parser.expected("the end of the expression", next),
    });
    expression.map_err(|error| syntax_error(cursor, &tokens, &error, &start, hint))?;
    cursor.expect(&Token::RParen, hint)?;
    Ok((source(cursor, &tokens), start))
}

impl ParsedQuery {
    /// An error about this query.
    pub(super) fn refuse(&self, at: Location, problem: &str, hint: &str) -> Error {
        Error::Definition {
            at,
            problem: format!("{}: {problem}", self.context),
            hint: hint.to_owned(),
        }
    }

    /// Where a part of the query is; its start for the parts that sqlparser does not place.
    pub(super) fn at(&self, span: Span) -> Location {
        match span.start.line {
            0 => self.start.clone(),
            _ => self.location(span.start),
        }
    }

    /// Where a word of the query is first written outside any parentheses, else where it is first
    /// written at all, else the query's start.
    pub(super) fn keyword(&self, keyword: &str) -> Location {
        let mut depth = 0_usize;
        let mut inner = None;
        for token in &self.tokens {
            match &token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                word if !is_word(word, keyword) => {}
                _ if depth == 0 => return self.location(token.span.start),
                _ => inner = inner.or(Some(token.span.start)),
            }
        }
        inner.map_or_else(|| self.start.clone(), |at| self.location(at))
    }

    /// Every relation the query reads, in order, except those it defines itself in WITH.
    pub(super) fn relations(&self) -> Vec<Name> {
        let mut relations = Relations::default();
        // It never breaks off.
        let _ = self.ast.visit(&mut relations);
        let read = relations.read.iter();
        read.map(|name| self.relation(name)).collect()
    }

    /// The name of a relation, folded; qualified names keep their dots.
    pub(super) fn relation(&self, name: &ObjectName) -> Name {
        let parts: Vec<_> = name.0.iter().map(part).collect();
        let first = name.0.first().and_then(ObjectNamePart::as_ident);
        Name {
            text: parts.join("."),
            at: first.map_or_else(|| self.start.clone(), |ident| self.at(ident.span)),
        }
    }

    fn location(&self, at: tokenizer::Location) -> Location {
        Location {
            file: self.start.file.clone(),
            line: at.line,
            column: at.column,
        }
    }
}

fn part(part: &ObjectNamePart) -> String {
    match part.as_ident() {
        Some(ident) => fold(&ident.value, ident.quote_style),
        None => part.to_string(),
    }
}

/// The relations that a query reads, as [`ParsedQuery::relations`] has them; none of what is no query.
pub(crate) fn relations_of(query: &str) -> Vec<String> {
    let parsed = Parser::new(&Sql)
        .try_with_sql(query)
        .and_then(|mut parser| parser.parse_query());
    let mut relations = Relations::default();
    if let Ok(parsed) = parsed {
        // It never breaks off.
        let _ = parsed.visit(&mut relations);
    }
    let folded = |name: &ObjectName| name.0.iter().map(part).collect::<Vec<_>>().join(".");
    relations.read.iter().map(folded).collect()
}

/// Collects the relations that are read. A name of WITH stands for its query in what follows it, and in
/// itself when the WITH is recursive; elsewhere it is the relation of that name.
#[derive(Debug, Default)]
struct Relations {
    read: Vec<ObjectName>,
    /// The queries that the visitor is within, outermost first.
    within: Vec<Scope>,
}

#[derive(Debug)]
struct Scope {
    /// Names of WITH that are defined so far.
    defined: Vec<String>,
    /// Those to come, in order, each with the query after which it is defined.
    to_come: VecDeque<(String, *const Query)>,
}

impl Relations {
    fn is_defined(&self, name: &str) -> bool {
        let scopes = self.within.iter();
        scopes
            .flat_map(|scope| &scope.defined)
            .any(|known| known == name)
    }
}
impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let name = |cte: &Cte| fold(&cte.alias.name.value, cte.alias.name.quote_style);
        let mut scope = Scope {
            defined: Vec::new(),
            to_come: VecDeque::new(),
        };
        if let Some(with) = &query.with {
            let tables = with.cte_tables.iter();
            match with.recursive {
                true => scope.defined = tables.map(name).collect(),
                false => {
                    let each = tables.map(|cte| (name(cte), std::ptr::from_ref(&*cte.query)));
                    scope.to_come = each.collect();
                }
            }
        }
        self.within.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.within.pop();
        if let Some(scope) = self.within.last_mut()
            && let Some((name, of)) = scope.to_come.front()
            && std::ptr::eq(*of, query)
        {
            scope.defined.push(name.clone());
            scope.to_come.pop_front();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        // A function in FROM is no relation that could be known.
        let (TableFactor::Table { name, .. } | TableFactor::Function { name, .. }) = factor else {
            return ControlFlow::Continue(());
        };
        let folded: Vec<String> = name.0.iter().map(part).collect();
        if !self.is_defined(&folded.join(".")) {
            self.read.push(name.clone());
        }
        ControlFlow::Continue(())
    }
}

const QUERY_HINT: &str = "after AS stands one SELECT; correct it at this place";

/// sqlparser puts the place at the end of its message.
fn syntax_error(
    cursor: &Cursor<'_>,
    tokens: &[TokenWithSpan],
    error: &ParserError,
    start: &Location,
    hint: &str,
) -> Error {
    let message = match error {
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
        ParserError::RecursionLimitExceeded => {
            let problem = "the query is nested too deeply".to_owned();
            return cursor.error(start.clone(), problem, "use fewer parentheses and CASEs");
        }
    };
    let placed = split_place(message);
    if let Some((message, place)) = placed
        && let Some(found) = left_over::misplaced(tokens, message, place)
    {
        return cursor.error(cursor.location(found.at), found.problem, &found.hint);
    }
    // Without a place, the statement ended where more was expected.
    let (message, at) = placed
        .map(|(message, place)| (message, cursor.location(place)))
        .unwrap_or((message, cursor.here()));
    let problem = message.replacen("Expected: ", "expected ", 1);
    let problem = problem.replacen(", found: ", ", found ", 1);
    cursor.error(at, problem.replace("found EOF", "found the end"), hint)
}

fn split_place(message: &str) -> Option<(&str, tokenizer::Location)> {
    let (text, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let place = tokenizer::Location::new(line.parse().ok()?, column.trim().parse().ok()?);
    Some((text, place))
}

fn source(cursor: &Cursor<'_>, tokens: &[TokenWithSpan]) -> String {
    let mut written = tokens.iter().filter(|token| !is_space(token));
    let first = written.next().map(|token| token.span);
    let last = written.next_back().map(|token| token.span).or(first);
    match (first, last) {
        (Some(first), Some(last)) => cursor.source(first.start, last.end).to_owned(),
        _ => String::new(),
    }
}

fn check_limits(cursor: &Cursor<'_>, tokens: &[TokenWithSpan]) -> Result<()> {
    match limits::excess(tokens) {
        None => Ok(()),
        Some(Excess { problem, hint, at }) => Err(cursor.error(cursor.location(at), problem, hint)),
    }
}
