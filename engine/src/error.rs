//! Everything that can stop the engine, and the exit code it ends in.

use crate::epoch::Epoch;
use datafusion::error::DataFusionError;
use std::{collections::BTreeSet, sync::Arc};
use tollgate_connectors::ErrorKind;
use tollgate_sql::rating::LeftOut;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used.
    #[error("{file}: {problem}")]
    Config {
        /// The configuration file.
        file: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Several things are wrong, in definitions or settings, in the order of their places; at least two.
    #[error("{}", each(.errors))]
    Several {
        /// All of them.
        errors: Vec<Error>,
    },
    /// A flag or argument cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The shard cannot go on from where the lake says it is.
    #[error("shard `{shard}`: {problem}\n  hint: {hint}")]
    Shard {
        /// The shard.
        shard: String,
        /// What contradicts what, with the sequences.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A newer process owns the shard.
    #[error(
        "shard `{shard}`: fenced, epoch {ours} was taken over by {}; this process stops", successor(*.theirs)
    )]
    Fenced {
        /// The shard.
        shard: String,
        /// Our epoch.
        ours: Epoch,
        /// The newer one, where it is known.
        theirs: Option<Epoch>,
    },
    /// Invoices cannot be made as asked.
    #[error("{problem}\n  hint: {hint}")]
    Billing {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Another import of accounts landed since this one's rows were checked.
    #[error(
        "another import of accounts landed at the same time\n  hint: run it again: it is checked against the rows of the other, and \
         what is there is not written twice"
    )]
    ImportedMeanwhile,
    /// A request has the key of another one that says something else.
    #[error(
        "`Idempotency-Key` was used by another request, which says something else\n  hint: choose a new key for each request"
    )]
    KeyReused,
    /// Customers got no invoice, because their usage or a price is in error for them; all others were dealt with.
    #[error(
        "no invoice for {}\n  hint: {}all other customers are invoiced", each_in_error(.in_error), where_to_look(.in_error)
    )]
    InError {
        /// Who, what is in error, and why.
        in_error: BTreeSet<InError>,
    },
    /// The lake does not go with the definitions or the settings; what differs was printed.
    #[error(
        "the lake does not go on with these definitions and settings: {problems} problems, named above"
    )]
    Unfit {
        /// How many.
        problems: usize,
    },
    /// A query that cannot be answered as it is written.
    #[error("the query{place}: {problem}\n  hint: {hint}")]
    Statement {
        /// `, line 1, column 8`, where that is known.
        place: String,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        hint: String,
    },
    /// The audit found differences; they were printed.
    #[error("{differences} differences between the meters and the events they come from")]
    Audit {
        /// How many rows differ.
        differences: usize,
    },
    /// The demo did not find what it had generated.
    #[error("the demo counted other than it generated:\n  {}", .differences.join("\n  "))]
    Demo {
        /// What differs, both numbers each.
        differences: Vec<String>,
    },
    /// A line of a file was not taken by the stream.
    #[error(
        "{place} was not published\n  published: {published} events before and beside it; what follows was not \
         sent\n  hint: mend it and publish the file again: events are counted once by their ids"
    )]
    Unpublished {
        /// File and line, or lines.
        place: String,
        /// Events that were acknowledged.
        published: u64,
        /// Why.
        source: Box<tollgate_connectors::Error>,
    },
    /// Lines would be set aside, and `--strict` was given.
    #[error("{first}\n  {}", strict(*.lines, *.published))]
    Strict {
        /// The first: file, line, reason.
        first: String,
        /// How many lines were found.
        lines: u64,
        /// Events before it that were published, where the input could not be read to its end first.
        published: Option<u64>,
    },
    /// A local file cannot be read or written.
    #[error("{file}: {doing} failed")]
    File {
        /// The file.
        file: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Event ids on the local disk are not what was written. They are a copy: the next start reads them from the lake.
    #[error(
        "{file}: event ids on disk are damaged, the shard starts again and reads them from the lake"
    )]
    DamagedIds {
        /// Where they are.
        file: String,
        /// What is damaged.
        source: std::io::Error,
    },
    /// A meter's table is not what its definition makes of the events.
    #[error("meter `{meter}`: {problem}\n  hint: {hint}")]
    Meter {
        /// The meter.
        meter: String,
        /// What contradicts what.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A meter was given up while the others went on; why.
    #[error(transparent)]
    Stopped(Arc<Error>),
    /// No shard runs that could be asked for live values, or it ended while it was asked.
    #[error(
        "no shard is running to be asked for live values\n  hint: open a view of the lake, or ask again when \
         the shard has started again"
    )]
    NotRunning,
    /// The definitions changed between a question and its answer.
    #[error("the definitions changed while the answer was made\n  hint: ask again")]
    Redefined,
    /// The system refused what a process needs.
    #[error("{doing} failed")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A task of the pipeline ended by itself, which is a bug.
    #[error("the task `{task}` ended without a reason")]
    TaskEnded {
        /// The task.
        task: &'static str,
    },
    /// What holds by construction does not hold, which is a bug.
    #[error("internal contradiction: {what}")]
    Contradiction {
        /// What should hold.
        what: &'static str,
    },
    /// From the edges.
    #[error(transparent)]
    Connector(#[from] tollgate_connectors::Error),
    /// From definitions, meters or prices.
    #[error(transparent)]
    Sql(#[from] tollgate_sql::Error),
    /// From Arrow or DataFusion, where neither of the two says more.
    #[error("{doing} failed")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Box<DataFusionError>,
    },
}

/// What keeps a customer from an invoice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InError {
    /// Who would pay.
    pub customer: String,
    /// What is in error.
    pub what: Faulty,
    /// Why.
    pub reason: String,
}

/// What is in error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Faulty {
    /// Usage that cannot be told; the reason is the meter's column `error`.
    Usage {
        /// The meter.
        meter: String,
        /// Whose usage it is.
        subject: String,
    },
    /// A price that has no answer for the customer; the reason names it.
    Price,
    /// Charges of which no invoice can be made.
    Invoice,
}

impl InError {
    /// The same as what a relation of a price's session lacks.
    pub(crate) fn left_out_of(&self, relation: &str) -> LeftOut {
        LeftOut {
            relation: relation.to_owned(),
            customer: self.customer.clone(),
            reason: self.reason.clone(),
        }
    }
}

impl Error {
    /// All of several errors as one, in the order of files and lines; nothing when there is none.
    ///
    /// # Errors
    /// There are any.
    pub fn all(mut errors: Vec<Error>) -> Result<()> {
        errors.sort_by_key(Error::place);
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several { errors }),
        }
    }

    /// The file, line and column; 0 where that is not known.
    pub(crate) fn place(&self) -> (String, u64, u64) {
        match self {
            Error::Sql(tollgate_sql::Error::RateTable { at, .. })
            | Error::Config { file: at, .. } => place_in(at),
            Error::Sql(error) => error
                .place()
                .map_or_else(Default::default, |at| (at.file.clone(), at.line, at.column)),
            _ => Default::default(),
        }
    }

    /// True when one meter failed on its data, which does not concern the others.
    pub(crate) fn is_of_meter(&self) -> bool {
        matches!(self, Error::Sql(tollgate_sql::Error::Measure { .. }))
    }

    /// What went wrong as a word that stays the same whatever the message says, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Connector(error) => error.code(),
            Error::Sql(error) => error.code(),
            Error::Stopped(error) => error.code(),
            Error::Several { errors } => errors.first().map_or("several", Error::code),
            Error::Config { .. } => "configuration_invalid",
            Error::Usage(_) => "usage_invalid",
            Error::Shard { .. } => "shard_contradicts_lake",
            Error::Fenced { .. } => "shard_fenced",
            Error::Billing { .. } => "billing_refused",
            Error::ImportedMeanwhile => "imported_meanwhile",
            Error::KeyReused => "idempotency_key_reused",
            Error::InError { .. } => "customers_in_error",
            Error::Unfit { .. } => "lake_unfit",
            Error::Audit { .. } => "audit_differs",
            Error::Demo { .. } => "demo_differs",
            Error::Unpublished { .. } => "line_unpublished",
            Error::Strict { .. } => "lines_refused",
            Error::File { .. } => "file_failed",
            Error::DamagedIds { .. } => "ids_damaged",
            Error::Meter { .. } => "meter_contradicts_table",
            Error::NotRunning => "no_shard_running",
            Error::Redefined => "definitions_changed",
            Error::System { .. } => "system_refused",
            Error::TaskEnded { .. } => "task_ended",
            Error::Contradiction { .. } => "internal_contradiction",
            Error::Query { .. } | Error::Statement { .. } => "query_failed",
        }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Connector(error) => error.kind(),
            Error::Sql(error) => match error.kind() {
                tollgate_sql::ErrorKind::Invalid => ErrorKind::Invalid,
                tollgate_sql::ErrorKind::Corrupt => ErrorKind::Corrupt,
            },
            Error::Stopped(error) => error.kind(),
            Error::Query { source, .. } if is_of_store(source) => ErrorKind::Unavailable,
            Error::NotRunning
            | Error::Redefined
            | Error::DamagedIds { .. }
            | Error::ImportedMeanwhile => ErrorKind::Unavailable,
            Error::Unpublished { source, .. } => source.kind(),
            Error::Fenced { .. } => ErrorKind::Fenced,
            Error::Shard { .. }
            | Error::Demo { .. }
            | Error::TaskEnded { .. }
            | Error::Contradiction { .. } => ErrorKind::Corrupt,
            Error::Several { .. }
            | Error::Config { .. }
            | Error::Usage(_)
            | Error::Strict { .. }
            | Error::Billing { .. }
            | Error::KeyReused
            | Error::Unfit { .. }
            | Error::Audit { .. }
            | Error::InError { .. }
            | Error::File { .. }
            | Error::Meter { .. }
            | Error::System { .. }
            | Error::Statement { .. }
            | Error::Query { .. } => ErrorKind::Invalid,
        }
    }

    /// The exit code: 2 for bad usage, configuration or definitions, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        use tollgate_sql::Error as Sql;
        match self {
            Error::Several { .. }
            | Error::Config { .. }
            | Error::Usage(_)
            | Error::Unfit { .. }
            | Error::Meter { .. }
            | Error::Sql(
                Sql::Definition { .. }
                | Sql::PlanMeter { .. }
                | Sql::RateTable { .. }
                | Sql::Price { .. }
                | Sql::PriceResult { .. }
                | Sql::Month { .. }
                | Sql::Zone { .. }
                | Sql::Accounts(_),
            ) => 2,
            _ => 1,
        }
    }
}

/// What came with an event, on one line and without what a terminal would obey: control characters, line breaks, and
/// marks that turn the direction of text, as escapes such as `\u{1b}`.
///
/// A subject is chosen by its publisher, and must not be able to draw a line of an invoice job's listing.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, is_obeyed)
}

/// Lines as a terminal shows them: what it would obey is escaped, but for the ends of lines. The last guard before a
/// terminal, for texts whose parts were not [`printable`] each.
pub(crate) fn printable_lines(text: &str) -> String {
    escaped(text, |character| character != '\n' && is_obeyed(character))
}

/// Whether a terminal obeys a character, or turns what follows: control characters, line breaks and marks of direction.
pub(crate) fn is_obeyed(character: char) -> bool {
    let turns = matches!(
        character,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    character.is_control() || turns
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match is_escaped(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

/// File, line and column of a place that is written `file`, `file:line` or `file:line:column`.
fn place_in(at: &str) -> (String, u64, u64) {
    let number = |at: &str| {
        let (before, number) = at.rsplit_once(':')?;
        Some((before.to_owned(), number.parse::<u64>().ok()?))
    };
    let Some((before, last)) = number(at) else {
        return (at.to_owned(), 0, 0);
    };
    match number(&before) {
        Some((file, line)) => (file, line, last),
        None => (before, last, 0),
    }
}

/// So many of several errors are shown.
pub(crate) const SHOWN_MAX: usize = 50;

/// What is wrong, as lines.
fn each(errors: &[Error]) -> String {
    let shown = errors.iter().take(SHOWN_MAX);
    let mut text: String = shown.map(|error| format!("{}\n", chain(error))).collect();
    text.push_str(&count_of(errors));
    text
}

/// How many errors there are, and how many of them are not shown.
pub(crate) fn count_of(errors: &[Error]) -> String {
    match errors.len().saturating_sub(SHOWN_MAX) {
        0 => format!("{} errors", errors.len()),
        more => format!("and {more} more: {} errors", errors.len()),
    }
}

/// What `--strict` did about lines that would not be counted.
fn strict(lines: u64, published: Option<u64>) -> String {
    match published {
        None => format!(
            "{lines} lines of the file would not be counted, and --strict published nothing\n  hint: mend them and publish the file again"
        ),
        Some(published) => format!(
            "it would not be counted: {published} events before it were published, and nothing from it on\n  hint: mend it and publish \
             everything again: events are counted once by their ids"
        ),
    }
}

/// The owner after a fenced one.
fn successor(theirs: Option<Epoch>) -> String {
    match theirs {
        Some(epoch) => format!("epoch {epoch}"),
        None => "another process".to_owned(),
    }
}

/// Each customer, what is in error and why, a line each.
fn each_in_error(in_error: &BTreeSet<InError>) -> String {
    let line = |known: &InError| {
        let customer = printable(&known.customer);
        let reason = printable(&known.reason);
        match &known.what {
            Faulty::Usage { meter, subject } => {
                let subject = printable(subject);
                format!("customer `{customer}`: meter `{meter}`, subject `{subject}`: {reason}")
            }
            Faulty::Price | Faulty::Invoice => format!("customer `{customer}`: {reason}"),
        }
    };
    let lines: Vec<String> = in_error.iter().map(line).collect();
    lines.join("\n  ")
}

/// How the windows are found that are in error, if usage is: a query for each meter.
fn where_to_look(in_error: &BTreeSet<InError>) -> String {
    let meters = in_error.iter().filter_map(|known| match &known.what {
        Faulty::Usage { meter, .. } => Some(meter),
        Faulty::Price | Faulty::Invoice => None,
    });
    let meters: BTreeSet<&String> = meters.collect();
    let queries = meters.iter().map(|meter| {
        format!("`SELECT window_start, subject, error FROM {meter} WHERE error IS NOT NULL` shows its windows; ")
    });
    queries.collect()
}

/// True when a query failed because the store could not be read, which may pass.
fn is_of_store(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ObjectStore(_))
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Names what was being done when Arrow or DataFusion failed.
pub(crate) fn query_error<E: Into<DataFusionError>>(
    doing: &'static str,
) -> impl FnOnce(E) -> Error {
    move |error| Error::Query {
        doing,
        source: Box::new(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(file: &str) -> Error {
        Error::Config {
            file: file.to_owned(),
            problem: "wrong".to_owned(),
        }
    }

    #[test]
    fn errors_stand_in_the_order_of_files_and_lines() {
        let places = [
            "b.sql:2:1",
            "a.sql:10:1",
            "t.toml",
            "a.sql:9:7",
            "a.sql:9:12",
        ];
        let all = Error::all(places.map(wrong).into()).unwrap_err();
        assert_eq!(
            all.to_string(),
            "a.sql:9:7: wrong\na.sql:9:12: wrong\na.sql:10:1: wrong\nb.sql:2:1: wrong\nt.toml: wrong\n5 errors"
        );
        assert_eq!(all.exit_code(), 2);
        let one = Error::all(vec![wrong("a.sql:1:1")]).unwrap_err();
        assert_eq!(one.to_string(), "a.sql:1:1: wrong");
        assert!(Error::all(Vec::new()).is_ok());
    }

    #[test]
    fn fifty_errors_are_shown_and_the_others_counted() {
        let places = (1..=52).rev().map(|line| format!("f.sql:{line}:1"));
        let all = Error::all(places.map(|place| wrong(&place)).collect()).unwrap_err();
        let text = all.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            (lines.len(), lines[0], lines[49], lines[50]),
            (
                51,
                "f.sql:1:1: wrong",
                "f.sql:50:1: wrong",
                "and 2 more: 52 errors"
            )
        );
    }
}
