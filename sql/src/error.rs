//! Everything that can go wrong between a definition and an invoice.

use datafusion::error::DataFusionError;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A place in a definitions file; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Location {
    /// The file as the caller that read it named it.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl Location {
    /// A place in a text that starts here; its line and column count from 1.
    pub(crate) fn within(&self, line: u64, column: u64) -> Self {
        let column = match line {
            1 => self.column + column - 1,
            _ => column,
        };
        Location {
            file: self.file.clone(),
            line: self.line + line - 1,
            column,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What went wrong, with the names needed to find it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A definition that cannot be read or does not make sense.
    #[error("{at}: {problem}\n  hint: {hint}")]
    Definition {
        /// Where.
        at: Location,
        /// What is wrong, naming the construct.
        problem: String,
        /// What to write instead.
        hint: String,
    },
    /// DataFusion could not plan a meter's query.
    #[error("{at}: could not plan meter `{meter}`")]
    PlanMeter {
        /// The meter.
        meter: String,
        /// Where it is defined.
        at: Location,
        /// Why.
        source: Box<DataFusionError>,
    },
    /// A meter failed on its input; `window_start` is the first window for which it does.
    #[error("meter `{meter}` failed in the window that starts at {window_start}")]
    Measure {
        /// The meter.
        meter: String,
        /// RFC 3339, UTC; or `any` when no single window fails by itself.
        window_start: String,
        /// Why.
        source: Box<DataFusionError>,
    },
    /// A price could not be planned or evaluated.
    #[error("{at}: price `{price}` failed")]
    Price {
        /// The price.
        price: String,
        /// Where it is defined.
        at: Location,
        /// Why.
        source: Box<DataFusionError>,
    },
    /// A price's answer is not what a price must return.
    #[error("{at}: price `{price}`: {problem}\n  hint: {hint}")]
    PriceResult {
        /// The price.
        price: String,
        /// Where it is defined.
        at: Location,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        hint: String,
    },
    /// A rate table's file is not what the table declares.
    #[error("{at}: {of}: {problem}\n  hint: {hint}")]
    RateTable {
        /// The file, with the line or row where there is one: lines count from 1, which is the header.
        at: String,
        /// The rate table, and the column if there is one, as a message names them.
        of: String,
        /// What is wrong.
        problem: String,
        /// What to write instead.
        hint: String,
    },
    /// A charge that does not belong on the invoice it was given for.
    #[error("invoice of customer `{customer}` on plan `{plan}`: {problem}")]
    Invoice {
        /// Who pays.
        customer: String,
        /// The plan.
        plan: String,
        /// What is wrong.
        problem: String,
    },
    /// Not a calendar month.
    #[error("`{text}` is not a billing period such as 2026-10")]
    Month {
        /// What was given.
        text: String,
    },
    /// Not a time zone of the IANA database.
    #[error("`{zone}` is not a time zone\n  hint: {hint}")]
    Zone {
        /// What was given.
        zone: String,
        /// What to write instead.
        hint: String,
    },
    /// A grant whose rows do not add up, or that cannot be read.
    #[error("grant `{grant}`: {problem}")]
    Credits {
        /// The grant.
        grant: String,
        /// What is wrong.
        problem: String,
    },
    /// Rows of accounts that cannot be imported.
    #[error("{0}")]
    Accounts(crate::accounts::Problems),
    /// An amount or quantity that does not fit.
    #[error("{0}")]
    Money(#[from] crate::money::MoneyError),
    /// Anything else that Arrow or DataFusion refuses; `doing` says what was tried.
    #[error("{doing}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<DataFusionError>,
    },
}

/// Whether an error is one of the values that were given, and not of the machine.
pub(crate) fn is_of_values(error: &DataFusionError) -> bool {
    !matches!(
        error.find_root(),
        DataFusionError::ResourcesExhausted(_)
            | DataFusionError::IoError(_)
            | DataFusionError::ObjectStore(_)
    )
}

/// What the caller should do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A person must change something: a definition, a rate, an event type.
    Invalid,
    /// Stored state contradicts itself: stop and page someone.
    Corrupt,
}

impl Error {
    /// What went wrong as a word that stays the same whatever the message says, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Definition { .. } => "definition_invalid",
            Error::PlanMeter { .. } => "meter_unplannable",
            Error::Measure { .. } => "meter_failed",
            Error::Price { .. } => "price_failed",
            Error::PriceResult { .. } => "price_result_invalid",
            Error::RateTable { .. } => "rate_table_invalid",
            Error::Invoice { .. } => "charge_misplaced",
            Error::Month { .. } => "month_invalid",
            Error::Zone { .. } => "time_zone_unknown",
            Error::Credits { .. } => "credits_invalid",
            Error::Accounts(_) => "accounts_invalid",
            Error::Money(_) => "amount_invalid",
            Error::Engine { .. } => "evaluation_failed",
        }
    }

    /// Where in a definitions file it is, if it is in one.
    pub fn place(&self) -> Option<&Location> {
        match self {
            Error::Definition { at, .. }
            | Error::PlanMeter { at, .. }
            | Error::Price { at, .. }
            | Error::PriceResult { at, .. } => Some(at),
            Error::Measure { .. }
            | Error::RateTable { .. }
            | Error::Invoice { .. }
            | Error::Month { .. }
            | Error::Zone { .. }
            | Error::Credits { .. }
            | Error::Accounts(_)
            | Error::Money(_)
            | Error::Engine { .. } => None,
        }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Engine { .. } => ErrorKind::Corrupt,
            Error::Definition { .. }
            | Error::PlanMeter { .. }
            | Error::Measure { .. }
            | Error::Price { .. }
            | Error::PriceResult { .. }
            | Error::RateTable { .. }
            | Error::Invoice { .. }
            | Error::Month { .. }
            | Error::Zone { .. }
            | Error::Credits { .. }
            | Error::Accounts(_)
            | Error::Money(_) => ErrorKind::Invalid,
        }
    }
}
