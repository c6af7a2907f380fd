//! Settings as they are written: keys and values of the file and of variables, each with its place, before anything is made of them.
//! No message shows a value of a wrong type, which may be a password at the wrong key.

use serde_json::{Map, Value};
use std::{collections::BTreeMap, ops::Range};
use tollgate_sql::parser::{did_you_mean, edits};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What a setting is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A text in quotes.
    Text,
    /// The same, or a plain number, date or time.
    Number,
    /// `true` or `false`.
    Flag,
    /// Texts in brackets.
    List,
}

/// Every setting, in the order of the guide.
const SETTINGS: [(&str, Kind); 62] = [
    ("definitions", Kind::Text),
    ("source.kind", Kind::Text),
    ("source.url", Kind::Text),
    ("source.stream", Kind::Text),
    ("source.subjects", Kind::List),
    ("source.create", Kind::Flag),
    ("source.accept", Kind::List),
    ("source.start", Kind::Number),
    ("source.replaces", Kind::List),
    ("source.max_age_min", Kind::Number),
    ("source.domain", Kind::Text),
    ("source.api_prefix", Kind::Text),
    ("source.credentials", Kind::Text),
    ("source.nkey", Kind::Text),
    ("source.token", Kind::Text),
    ("source.user", Kind::Text),
    ("source.password", Kind::Text),
    ("source.tls_ca", Kind::Text),
    ("source.tls_certificate", Kind::Text),
    ("source.tls_key", Kind::Text),
    ("source.tls_required", Kind::Flag),
    ("source.path", Kind::Text),
    ("source.batch_bytes", Kind::Number),
    ("lake.url", Kind::Text),
    ("flush.interval", Kind::Number),
    ("flush.max_bytes", Kind::Number),
    ("windows.max_bytes", Kind::Number),
    ("ingest.max_future_skew", Kind::Number),
    ("ingest.max_payload", Kind::Number),
    ("ingest.max_event", Kind::Number),
    ("dedupe.horizon", Kind::Number),
    ("dedupe.memory", Kind::Number),
    ("dedupe.directory", Kind::Text),
    ("billing.default_plan", Kind::Text),
    ("billing.time_zone", Kind::Text),
    ("billing.tax_rates", Kind::Text),
    ("billing.starts_at", Kind::Number),
    ("billing.max_bytes", Kind::Number),
    ("billing.seller.name", Kind::Text),
    ("billing.seller.address", Kind::Text),
    ("billing.seller.tax_id", Kind::Text),
    ("billing.seller.notes", Kind::Text),
    ("maintenance.enabled", Kind::Flag),
    ("maintenance.interval", Kind::Number),
    ("maintenance.file_bytes", Kind::Number),
    ("maintenance.vacuum_after", Kind::Number),
    ("maintenance.log_after", Kind::Number),
    ("http.listen", Kind::Text),
    ("http.behind_tls", Kind::Flag),
    ("http.cors_origins", Kind::List),
    ("http.traces_subject", Kind::Text),
    ("http.body_bytes_max", Kind::Number),
    ("http.timeout", Kind::Number),
    ("http.connections_max", Kind::Number),
    ("http.queries_max", Kind::Number),
    ("http.query_bytes_max", Kind::Number),
    ("http.rows_max", Kind::Number),
    ("postgres.listen", Kind::Text),
    ("postgres.connections_max", Kind::Number),
    ("postgres.idle", Kind::Number),
    ("tls.certificate", Kind::Text),
    ("tls.key", Kind::Text),
];

/// The name of every setting.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.into_iter().map(|(key, _)| key)
}

/// Where a setting is given: a place in the file, or a variable.
pub type Places = BTreeMap<&'static str, String>;

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: String,
    pub(super) problem: String,
}

/// Whether a value of one setting, with the sections around it, can be read; why not, if it cannot.
pub(super) type IsRight<'a> = &'a dyn Fn(Value) -> Result<(), String>;

/// The settings that are given.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By section and key.
    pub(super) values: Map<String, Value>,
    /// By setting.
    pub(super) places: Places,
    /// All that is wrong, in the order of the file.
    pub(super) wrong: Vec<Wrong>,
}

impl Written {
    /// Reads the text of a file.
    pub(super) fn of_file(file: &str, text: &str, is_right: IsRight<'_>) -> Self {
        let mut reader = Reader {
            file,
            text,
            is_right,
            written: Written::default(),
        };
        match DeTable::parse(text) {
            Ok(table) => reader.section("", table.get_ref()),
            Err(error) => {
                let at = reader.place(error.span().unwrap_or_default());
                let start = error.span().unwrap_or_default().start;
                reader.refuse(at, not_toml(text, start, error.message()));
            }
        }
        reader.written
    }

    /// Puts the value of a variable over what the file has, if it is one of ours.
    pub(super) fn add_variable(&mut self, name: &str, text: &str, is_right: IsRight<'_>) {
        let Some((key, kind)) = SETTINGS.into_iter().find(|(key, _)| variable(key) == name) else {
            self.wrong.extend(unknown_variable(name));
            return;
        };
        let value = match (kind, text) {
            (Kind::Flag, "true") => Ok(Value::Bool(true)),
            (Kind::Flag, "false") => Ok(Value::Bool(false)),
            (Kind::Flag, _) => Err("neither true nor false".to_owned()),
            (Kind::List, _) => {
                let values = text.split(',').filter(|value| !value.is_empty());
                Ok(values.map(Value::from).collect())
            }
            (Kind::Text | Kind::Number, _) => Ok(Value::from(text)),
        };
        let value = value.and_then(|value| is_right(alone(key, value.clone())).map(|()| value));
        match value {
            Ok(value) => self.set(key, value, name.to_owned()),
            Err(problem) => self.wrong.push(Wrong {
                at: name.to_owned(),
                problem,
            }),
        }
    }

    fn set(&mut self, key: &'static str, value: Value, place: String) {
        let (sections, leaf) = match key.rsplit_once('.') {
            Some((sections, leaf)) => (sections, leaf),
            None => ("", key),
        };
        let mut within = &mut self.values;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let section = within
                .entry(section)
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(section) = section else {
                return;
            };
            within = section;
        }
        within.insert(leaf.to_owned(), value);
        self.places.insert(key, place);
    }
}

/// Reads the tables of one file.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    is_right: IsRight<'a>,
    written: Written,
}

impl Reader<'_> {
    /// Reads the keys of a section; the top of the file has no name.
    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = match section {
                "" => key.get_ref().to_string(),
                section => format!("{section}.{}", key.get_ref()),
            };
            let setting = SETTINGS.into_iter().find(|(known, _)| *known == name);
            let is_section = SETTINGS.iter().any(|(known, _)| is_within(known, &name));
            match (setting, is_section, value.get_ref()) {
                (Some((known, kind)), ..) => self.setting(known, kind, value),
                (None, true, DeValue::Table(inner)) => self.section(&name, inner),
                (None, true, _) => {
                    let at = self.place(key.span());
                    self.refuse(at, format!("`{name}` is a section\n  hint: write [{name}] in a line of its own, and its settings below"));
                }
                (None, false, _) => {
                    let at = self.place(key.span());
                    self.refuse(at, unknown(section, key.get_ref()));
                }
            }
        }
    }

    fn setting(&mut self, key: &'static str, kind: Kind, value: &Spanned<DeValue<'_>>) {
        let at = self.place(value.span());
        let read = read(key, kind, value.get_ref());
        let read =
            read.and_then(|value| (self.is_right)(alone(key, value.clone())).map(|()| value));
        match read {
            Ok(value) => self.written.set(key, value, at),
            Err(problem) => self.refuse(at, problem),
        }
    }

    fn refuse(&mut self, at: String, problem: String) {
        self.written.wrong.push(Wrong { at, problem });
    }

    /// `file:line:column` of a range of bytes.
    fn place(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{}:{line}:{column}", self.file)
    }
}

/// A value of the file; never a part of the problem, for a text at the wrong key may be a password.
fn read(key: &str, kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    match (kind, value) {
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Bool(*flag)),
        (Kind::Text | Kind::Number, DeValue::String(text)) => Ok(Value::from(text.as_ref())),
        (Kind::Number, DeValue::Integer(number)) => Ok(Value::from(number.as_str())),
        (Kind::Number, DeValue::Datetime(time)) => Ok(Value::from(time.to_string())),
        (Kind::List, DeValue::Array(texts)) => {
            let texts = texts
                .iter()
                .map(|text| text.get_ref().as_str().map(Value::from));
            texts
                .collect::<Option<Value>>()
                .ok_or_else(|| wanted(leaf, "a list of texts", "[\"…\", \"…\"]"))
        }
        (Kind::Flag, _) => Err(wanted(leaf, "true or false, without quotes", "true")),
        (Kind::Text | Kind::Number, _) => Err(wanted(leaf, "a text in quotes", "\"…\"")),
        (Kind::List, _) => Err(wanted(leaf, "a list of texts in brackets", "[\"…\"]")),
    }
}

/// What the parser says at a place, which is never a part of the text.
fn not_toml(text: &str, at: usize, message: &str) -> String {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let is_value = before.trim_end_matches([' ', '\t']).ends_with('=');
    match is_value && after.starts_with(|c: char| c.is_alphabetic()) {
        true => {
            "a text has no quotes\n  hint: write it in double quotes: stream = \"USAGE\"".to_owned()
        }
        false => format!(
            "{}\n  hint: a setting is `key = value` in a line of its own; docs/configuration.md has them all",
            message.trim().replace('\n', "; ")
        ),
    }
}

fn wanted(leaf: &str, wanted: &str, example: &str) -> String {
    format!("`{leaf}` is not {wanted}\n  hint: write {leaf} = {example}")
}

/// One value with the sections around it.
fn alone(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, name| {
        Value::Object(Map::from_iter([(name.to_owned(), inner)]))
    })
}

fn is_within(setting: &str, section: &str) -> bool {
    let rest = setting.strip_prefix(section);
    section.is_empty() || rest.is_some_and(|rest| rest.starts_with('.'))
}

fn unknown(section: &str, key: &str) -> String {
    let within = SETTINGS.iter().map(|(known, _)| *known);
    let within = within.filter(|known| is_within(known, section));
    let mut known: Vec<&str> = within
        .filter_map(|known| {
            let rest = known.strip_prefix(section)?.trim_start_matches('.');
            rest.split('.').next()
        })
        .collect();
    known.dedup();
    let mut elsewhere = SETTINGS.iter().filter_map(|(known, _)| {
        let (section, leaf) = known.rsplit_once('.')?;
        (leaf == key).then(|| format!("[{section}]"))
    });
    let of = match section {
        "" => String::new(),
        section => format!(" in [{section}]"),
    };
    let hint = match elsewhere.next() {
        Some(elsewhere) => format!("`{key}` is a setting of {elsewhere}"),
        None => did_you_mean(key, "settings", &known),
    };
    format!("there is no setting `{key}`{of}\n  hint: {hint}")
}

/// The variable of a setting.
fn variable(key: &str) -> String {
    format!("TOLLGATE_{}", key.replace('.', "_").to_uppercase())
}

/// A variable that is named after a section and none of its settings, or nearly as a setting. Others are not ours.
fn unknown_variable(name: &str) -> Option<Wrong> {
    let known = SETTINGS.map(|(key, _)| variable(key));
    let is_of_section = SETTINGS.iter().any(|(key, _)| {
        let section = key.split_once('.').map(|(section, _)| variable(section));
        section.is_some_and(|section| {
            let rest = name.strip_prefix(&section);
            rest.is_some_and(|rest| rest.starts_with('_'))
        })
    });
    let near = name
        .strip_prefix("TOLLGATE_")
        .and_then(|_| nearest_variable(name, &known));
    let hint = match &near {
        Some(near) => format!("did you mean {near}?"),
        None => "docs/configuration.md has every setting; its variable is TOLLGATE_SECTION_KEY"
            .to_owned(),
    };
    (is_of_section || near.is_some()).then(|| Wrong {
        at: name.to_owned(),
        problem: format!("there is no setting for this variable\n  hint: {hint}"),
    })
}

/// The variable that is at most two edits away: others that begin as ours do are those of other programs.
fn nearest_variable<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let near = known.iter().map(|known| (edits(name, known), known));
    let near = near.min_by_key(|(edits, _)| *edits);
    near.filter(|(edits, _)| *edits <= 2)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a file and variables, a line each.
    fn wrong(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let is_right = |_: Value| Ok(());
        let mut written = Written::of_file("f.toml", text, &is_right);
        for (name, value) in variables {
            written.add_variable(name, value, &is_right);
        }
        let wrong = written.wrong.into_iter();
        wrong
            .map(|wrong| format!("{}: {}", wrong.at, wrong.problem))
            .collect()
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place() {
        let text = "lake = 'x'\n[source]\n  create = \"yes\"\nstream = 5\nsubjects = 'a'\naccept = [1]\n\
                    [flush]\nintervall = '5s'\ncreate = true\n[biling]\nx = 1\n[billing.seller]\nnames = ''\n";
        assert_eq!(
            wrong(text, &[]),
            [
                "f.toml:1:1: `lake` is a section\n  hint: write [lake] in a line of its own, and its settings below",
                "f.toml:3:12: `create` is not true or false, without quotes\n  hint: write create = true",
                "f.toml:4:10: `stream` is not a text in quotes\n  hint: write stream = \"…\"",
                "f.toml:5:12: `subjects` is not a list of texts in brackets\n  hint: write subjects = [\"…\"]",
                "f.toml:6:10: `accept` is not a list of texts\n  hint: write accept = [\"…\", \"…\"]",
                "f.toml:8:1: there is no setting `intervall` in [flush]\n  hint: did you mean `interval`? known settings: `interval`, `max_bytes`",
                "f.toml:9:1: there is no setting `create` in [flush]\n  hint: `create` is a setting of [source]",
                "f.toml:10:2: there is no setting `biling`\n  hint: did you mean `billing`? known settings: `definitions`, `source`, `lake`, `flush`, \
                 `windows`, `ingest`, `dedupe`, `billing`, `maintenance`, `http`, \
                 `postgres`, `tls`",
                "f.toml:13:1: there is no setting `names` in [billing.seller]\n  hint: did you mean `name`? known settings: `name`, `address`, `tax_id`, `notes`",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_said_at_its_place() {
        for text in ["[source]\nkind = files\n", "[source]\nkind = nats\n"] {
            assert_eq!(
                wrong(text, &[]),
                [
                    "f.toml:2:8: a text has no quotes\n  hint: write it in double quotes: stream = \"USAGE\""
                ]
            );
        }
        let hint =
            "a setting is `key = value` in a line of its own; docs/configuration.md has them all";
        assert_eq!(
            wrong("[source\nkind = 'nats'\n", &[]),
            [format!(
                "f.toml:1:8: unclosed table, expected `]`\n  hint: {hint}"
            )]
        );
    }

    #[test]
    fn a_variable_is_named_with_the_one_that_could_have_been_meant() {
        let guide = "docs/configuration.md has every setting; its variable is TOLLGATE_SECTION_KEY";
        assert_eq!(
            wrong(
                "",
                &[
                    ("TOLLGATE_FLUSH_INTERVALL", "5s"),
                    ("TOLLGATE_FLSH_INTERVAL", "5s"),
                    ("TOLLGATE_SOURCE_CREATE", "1"),
                    ("TOLLGATE_FLUSH_NOTHING", "1"),
                ]
            ),
            [
                "TOLLGATE_FLUSH_INTERVALL: there is no setting for this variable\n  hint: did you mean TOLLGATE_FLUSH_INTERVAL?".to_owned(),
                "TOLLGATE_FLSH_INTERVAL: there is no setting for this variable\n  hint: did you mean TOLLGATE_FLUSH_INTERVAL?".to_owned(),
                "TOLLGATE_SOURCE_CREATE: neither true nor false".to_owned(),
                format!("TOLLGATE_FLUSH_NOTHING: there is no setting for this variable\n  hint: {guide}"),
            ]
        );
        // Variables of others, as of a service of that name.
        let others = [
            ("TOLLGATE_LOG", "debug"),
            ("TOLLGATE_SERVICE_PORT", "80"),
            ("TOLLGATE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("FLUSH_INTERVAL", "1"),
        ];
        assert_eq!(wrong("", &others), [""; 0]);
    }
}
