//! What a statement is, by its first words (pure): a query, or a command of a session, which clients send whether or not there is
//! anything to do.

use super::refusal::Refusal;
use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use datafusion_pg_catalog::pg_catalog::PG_CATALOG_TABLES;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// Reads usage and documents.
    Query,
    /// Reads what there is: names, types, settings.
    Catalog,
    Begin,
    /// Ends a transaction: `COMMIT`, or `ROLLBACK`.
    End {
        is_commit: bool,
    },
    /// Sets something for the connection; `None` stands for the default.
    Set {
        name: String,
        value: Option<String>,
    },
    Show(String),
    ResetAll,
    DiscardAll,
    /// Forgets a prepared statement, or all.
    Deallocate(Option<String>),
    /// There is nothing to do; the tag says that it is done.
    Nothing(&'static str),
}

impl Statement {
    /// That of a statement's tokens.
    ///
    /// # Errors
    /// It is a command that is not done here.
    pub(super) fn of(tokens: &[Token]) -> Result<Self, Refusal> {
        let words: Vec<String> = tokens.iter().map(folded).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let statement = match words.as_slice() {
            ["begin", ..] | ["start", "transaction", ..] => Statement::Begin,
            ["commit" | "end", ..] => Statement::End { is_commit: true },
            ["rollback", .., "to", _] | ["rollback", .., "to", "savepoint", _] => {
                Statement::Nothing("ROLLBACK")
            }
            ["rollback" | "abort", ..] => Statement::End { is_commit: false },
            ["savepoint", ..] => Statement::Nothing("SAVEPOINT"),
            ["release", ..] => Statement::Nothing("RELEASE"),
            ["set", "transaction", ..] | ["set", "session", "characteristics", ..] => {
                Statement::Nothing("SET")
            }
            ["set", "constraints", ..] => Statement::Nothing("SET CONSTRAINTS"),
            ["set", "session" | "local", ..] => set(&tokens[2..], &words[2..])?,
            ["set", ..] => set(&tokens[1..], &words[1..])?,
            ["show", "all"] => {
                return Err(Refusal::unsupported(
                    "SHOW ALL is not there; name one setting",
                ));
            }
            ["show", name @ ..] if !name.is_empty() => Statement::Show(setting(name)),
            ["reset", "all"] => Statement::ResetAll,
            ["reset", name @ ..] if !name.is_empty() => Statement::Set {
                name: setting(name),
                value: None,
            },
            ["discard", "all"] => Statement::DiscardAll,
            ["discard", ..] => Statement::Nothing("DISCARD"),
            ["deallocate", "all"] | ["deallocate", "prepare", "all"] => Statement::Deallocate(None),
            ["deallocate", "prepare", _] | ["deallocate", _] => {
                Statement::Deallocate(tokens.last().map(name_of))
            }
            ["listen", ..] => Statement::Nothing("LISTEN"),
            ["unlisten", ..] => Statement::Nothing("UNLISTEN"),
            ["declare" | "fetch" | "move" | "close", ..] => {
                let message = "cursors of SQL are not there";
                let hint = "ask for rows in portions by the protocol, as setFetchSize of JDBC does, or with LIMIT";
                return Err(Refusal::unsupported(message).with_hint(hint));
            }
            ["prepare" | "execute", ..] => {
                let message = "PREPARE and EXECUTE are not there";
                let hint = "prepare by the protocol, as drivers do";
                return Err(Refusal::unsupported(message).with_hint(hint));
            }
            ["copy", ..] => {
                let hint = "send the SELECT itself, or ask for a format over HTTP";
                return Err(Refusal::unsupported("COPY is not there").with_hint(hint));
            }
            _ if tokens
                .iter()
                .enumerate()
                .any(|at| is_of_catalog(at, tokens)) =>
            {
                Statement::Catalog
            }
            _ => Statement::Query,
        };
        Ok(statement)
    }
}

/// A word as SQL folds it; what is quoted, or no word, as it stands.
fn folded(token: &Token) -> String {
    match token {
        Token::Word(Word {
            value,
            quote_style: None,
            ..
        }) => value.to_lowercase(),
        other => other.to_string(),
    }
}

/// A name or a text without its quotes.
fn name_of(token: &Token) -> String {
    match token {
        Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
        Token::SingleQuotedString(text) => text.clone(),
        other => folded(other),
    }
}

/// The name of a setting that may be written in several words.
fn setting(words: &[&str]) -> String {
    match words {
        ["time", "zone"] => "timezone".to_owned(),
        ["transaction", "isolation", "level"] => "transaction_isolation".to_owned(),
        ["session", "authorization"] => "session_authorization".to_owned(),
        words => words.concat().trim_matches('"').to_lowercase(),
    }
}

/// `name = value`, `name TO value`, `TIME ZONE value`, `NAMES value`.
fn set(tokens: &[Token], words: &[&str]) -> Result<Statement, Refusal> {
    let (name, from) = match words {
        ["time", "zone", ..] => ("timezone".to_owned(), 2),
        ["names", ..] => ("client_encoding".to_owned(), 1),
        ["role", ..] | ["authorization", ..] => {
            return Err(Refusal::new("42501", "one key has one role"));
        }
        words => {
            let at = words.iter().position(|word| matches!(*word, "=" | "to"));
            let at = at.filter(|at| *at > 0);
            let at = at.ok_or_else(|| Refusal::new("42601", "SET wants a name, TO and a value"))?;
            (setting(&words[..at]), at + 1)
        }
    };
    let values = tokens.get(from..).unwrap_or_default();
    let value = match values {
        [] => return Err(Refusal::new("42601", "SET wants a value")),
        [one] if matches!(folded(one).as_str(), "default" | "local") => None,
        several => Some(
            several
                .iter()
                .map(name_of)
                .collect::<String>()
                .replace(',', ", "),
        ),
    };
    Ok(Statement::Set { name, value })
}

/// Functions about the database and the session, which are not functions of usage.
const FUNCTIONS: &[&str] = &[
    "version",
    "current_setting",
    "current_database",
    "current_schema",
    "current_schemas",
    "format_type",
    "has_any_column_privilege",
    "has_database_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "parse_ident",
    "quote_ident",
    "obj_description",
    "col_description",
    "shobj_description",
    "to_regclass",
];

fn is_of_catalog((at, token): (usize, &Token), tokens: &[Token]) -> bool {
    let word = match token {
        Token::Word(_) => name_of(token),
        _ => return false,
    };
    let is_called = || tokens.get(at + 1) == Some(&Token::LParen);
    let is_qualified = at > 0 && tokens[at - 1] == Token::Period;
    let is_cast = || at > 0 && tokens[at - 1] == Token::DoubleColon;
    match word.as_str() {
        "pg_catalog" | "information_schema" => !is_qualified,
        "current_user" | "session_user" | "current_catalog" | "current_schema" => !is_qualified,
        "regclass" | "regtype" | "regproc" | "regnamespace" | "oid" => is_cast(),
        word if word.starts_with("pg_") => is_called() || PG_CATALOG_TABLES.contains(&word),
        word => is_called() && FUNCTIONS.contains(&word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_sql::statements::tokens;

    fn of(sql: &str) -> Result<Statement, Refusal> {
        Statement::of(&tokens(sql).unwrap())
    }

    fn to(name: &str, value: &str) -> Statement {
        Statement::Set {
            name: name.into(),
            value: Some(value.into()),
        }
    }

    #[test]
    fn what_clients_send_around_their_queries_is_known() {
        for (sql, statement) in [
            ("BEGIN", Statement::Begin),
            (
                "begin transaction isolation level read committed read only",
                Statement::Begin,
            ),
            ("START TRANSACTION READ ONLY", Statement::Begin),
            ("COMMIT", Statement::End { is_commit: true }),
            ("ROLLBACK", Statement::End { is_commit: false }),
            ("ROLLBACK TO SAVEPOINT a", Statement::Nothing("ROLLBACK")),
            ("SET extra_float_digits = 3", to("extra_float_digits", "3")),
            (
                "SET application_name TO 'a b'",
                to("application_name", "a b"),
            ),
            (
                "SET SESSION statement_timeout TO '5s'",
                to("statement_timeout", "5s"),
            ),
            (
                "SET TIME ZONE 'Europe/Berlin'",
                to("timezone", "Europe/Berlin"),
            ),
            ("SET timezone = UTC", to("timezone", "utc")),
            ("SET datestyle = ISO, MDY", to("datestyle", "iso, mdy")),
            ("SET NAMES 'UTF8'", to("client_encoding", "UTF8")),
            (
                "SET search_path TO public, \"A\"",
                to("search_path", "public, A"),
            ),
            (
                "RESET search_path",
                Statement::Set {
                    name: "search_path".into(),
                    value: None,
                },
            ),
            (
                "SET search_path TO DEFAULT",
                Statement::Set {
                    name: "search_path".into(),
                    value: None,
                },
            ),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                Statement::Nothing("SET"),
            ),
            (
                "SHOW TRANSACTION ISOLATION LEVEL",
                Statement::Show("transaction_isolation".into()),
            ),
            (
                "SHOW server_version",
                Statement::Show("server_version".into()),
            ),
            ("DISCARD ALL", Statement::DiscardAll),
            (
                "DEALLOCATE \"S_1\"",
                Statement::Deallocate(Some("S_1".into())),
            ),
            ("DEALLOCATE ALL", Statement::Deallocate(None)),
        ] {
            assert_eq!(of(sql), Ok(statement), "{sql}");
        }
        for sql in [
            "COPY events TO STDOUT",
            "DECLARE c CURSOR FOR SELECT 1",
            "PREPARE p AS SELECT 1",
        ] {
            assert_eq!(of(sql).unwrap_err().code, "0A000", "{sql}");
        }
        assert_eq!(of("SET ROLE admin").unwrap_err().code, "42501");
    }

    #[test]
    fn what_reads_the_catalog_is_told_from_what_reads_usage() {
        for sql in [
            "SELECT version()",
            "SELECT * FROM pg_class",
            "SELECT c.oid FROM pg_catalog.pg_class c",
            "SELECT table_name FROM information_schema.tables",
            "select current_schema()",
            "SELECT current_user",
            "SELECT 'events'::regclass",
            "SELECT pg_backend_pid()",
        ] {
            assert_eq!(of(sql), Ok(Statement::Catalog), "{sql}");
        }
        for sql in [
            "SELECT 1",
            "SELECT * FROM events WHERE subject = 'pg_catalog'",
            "SELECT version FROM releases",
            "SELECT e.pg_catalog, current_setting FROM events e",
            "WITH pg_mine AS (SELECT 1) SELECT * FROM pg_mine",
        ] {
            assert_eq!(of(sql), Ok(Statement::Query), "{sql}");
        }
    }
}
