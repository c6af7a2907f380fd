//! What a client is told when something cannot be done: SQLSTATE, message and hint (pure).

use crate::{
    error::{Error, chain},
    server::turns::Stopping,
};
use arrow::error::ArrowError;
use datafusion::{common::SchemaError, error::DataFusionError};
use std::fmt;
use tollgate_connectors::ErrorKind;

/// Why a message or a statement is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Whether the connection ends.
    pub(super) is_fatal: bool,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            is_fatal: false,
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Refusal {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same, and the connection ends.
    pub(super) fn fatal(self) -> Self {
        Refusal {
            is_fatal: true,
            ..self
        }
    }

    /// Bytes that are not as the protocol has them.
    pub(super) fn protocol(message: impl Into<String>) -> Self {
        Refusal::new("08P01", message).fatal()
    }

    /// What is not done here.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Refusal::new("0A000", message)
    }

    pub(super) fn of_parameter(message: &str) -> Self {
        Refusal::new("22P02", message)
    }

    pub(super) fn of_value(error: &dyn fmt::Display) -> Self {
        Refusal::new("22000", format!("a value cannot be sent: {error}"))
    }

    pub(super) fn too_long() -> Self {
        Refusal::new("54000", "a value is too long for the protocol")
    }

    pub(super) fn out_of_calendar() -> Self {
        Refusal::new(
            "22008",
            "an instant is outside the years that a calendar has here",
        )
    }

    pub(super) fn cancelled() -> Self {
        Refusal::new("57014", "canceling statement due to user request")
    }

    pub(super) fn timed_out() -> Self {
        let message = "the statement took longer than http.timeout, or than statement_timeout";
        Refusal::new("57014", message)
    }

    pub(super) fn stopping() -> Self {
        Refusal::new("57P01", "the process stops").fatal()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<Stopping> for Refusal {
    fn from(_: Stopping) -> Self {
        Refusal::stopping()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = state_of(&error);
        if code == INTERNAL {
            tracing::error!(error = chain(&error), "statement failed");
        }
        match error {
            Error::Statement {
                place,
                problem,
                hint,
            } => Refusal::new(code, format!("the query{place}: {problem}")).with_hint(hint),
            error => Refusal::new(code, chain(&error)),
        }
    }
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        let root = error.find_root();
        let message = match root {
            DataFusionError::Plan(message) | DataFusionError::Execution(message) => message.clone(),
            other => other.strip_backtrace(),
        };
        Refusal::new(state_of_source(root), message)
    }
}

const INTERNAL: &str = "XX000";

fn state_of(error: &Error) -> &'static str {
    match (error, error.kind()) {
        (Error::Statement { problem, .. }, _) => state_in_words(problem),
        (_, ErrorKind::Unavailable) => "58030",
        (Error::Query { source, .. }, _) => state_of_source(source),
        (Error::Sql(_) | Error::Usage(_) | Error::Billing { .. }, ErrorKind::Invalid) => "22023",
        _ => INTERNAL,
    }
}

/// That of what is said of a statement by [`tollgate_sql::unplanned`].
fn state_in_words(problem: &str) -> &'static str {
    let known = [
        ("there is no relation", "42P01"),
        ("no column `", "42703"),
        ("there is no function", "42883"),
        ("does not take", "42883"),
        ("of more than one relation", "42702"),
        ("is refused", "25006"),
        ("is not exact", "0A000"),
    ];
    let found = known.iter().find(|(words, _)| problem.contains(words));
    found.map_or("42601", |(_, state)| state)
}

fn state_of_source(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::SQL(..) => "42601",
        DataFusionError::SchemaError(error, _) => match &**error {
            SchemaError::AmbiguousReference { .. } => "42702",
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::DuplicateQualifiedField { .. }
            | SchemaError::DuplicateUnqualifiedField { .. } => "42701",
        },
        DataFusionError::Plan(message) if message.contains("not supported") => "25006",
        DataFusionError::Plan(message) if message.contains("more than") => "54000",
        DataFusionError::Plan(_) => "42000",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::ArrowError(error, _) => match &**error {
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            ArrowError::ArithmeticOverflow(_) => "22003",
            _ => "22000",
        },
        DataFusionError::Execution(_) => "22000",
        DataFusionError::Configuration(_) => "22023",
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => "58030",
        _ => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_state_that_clients_know() {
        let statement = |problem: &str| Error::Statement {
            place: ", line 1, column 15".into(),
            problem: problem.into(),
            hint: "did you mean `events`?".into(),
        };
        for (error, code) in [
            (statement("there is no relation `event`"), "42P01"),
            (statement("there is no column `x`"), "42703"),
            (statement("`e` has no column `x`"), "42703"),
            (statement("there is no function `f`"), "42883"),
            (statement("INSERT is refused"), "25006"),
            (statement("expected an expression, found the end"), "42601"),
            (Error::NotRunning, "58030"),
            (Error::TaskEnded { task: "t" }, "XX000"),
        ] {
            assert_eq!(Refusal::from(error).code, code);
        }
        let refusal = Refusal::from(statement("there is no relation `event`"));
        assert_eq!(
            refusal.message,
            "the query, line 1, column 15: there is no relation `event`"
        );
        assert_eq!(refusal.hint.as_deref(), Some("did you mean `events`?"));
        let full = DataFusionError::ResourcesExhausted("no more".into()).context("sorting");
        assert_eq!(Refusal::from(full).code, "53200");
    }
}
