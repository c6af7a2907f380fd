//! What is wrong with account rows, all of it at once.

use std::fmt;

/// How many problems are printed; of those beyond, their number.
pub(super) const PRINTED_MAX: usize = 100;

/// Longest value in a message, in characters.
const SHOWN_CHARS: usize = 60;

/// What is wrong with one row, or with the head of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File and line, or the table of the lake.
    pub at: String,
    /// The column, where it is one.
    pub column: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub hint: String,
}

/// Everything that is wrong; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            at,
            column,
            problem,
            hint,
        } = self;
        match column {
            Some(column) => write!(f, "{at}: column `{column}`: {problem}\n  hint: {hint}"),
            None => write!(f, "{at}: {problem}\n  hint: {hint}"),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.0.len();
        let are = if problems == 1 { "problem" } else { "problems" };
        write!(f, "nothing was imported: {problems} {are}")?;
        for problem in self.0.iter().take(PRINTED_MAX) {
            write!(f, "\n{problem}")?;
        }
        match problems.checked_sub(PRINTED_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\nand {more} more"),
        }
    }
}

/// A value as messages show it.
pub(super) fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARS) {
        None => format!("`{value}`"),
        Some((end, _)) => format!("`{}…`", &value[..end]),
    }
}

/// An instant as messages show it; nothing for since ever.
pub(super) fn from(us: Option<i64>) -> String {
    match us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok()) {
        Some(at) => format!(" from {at} on"),
        None => String::new(),
    }
}
