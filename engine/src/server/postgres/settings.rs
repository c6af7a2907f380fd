//! What a connection has set, and what clients ask of the server by name (pure).

use super::{refusal::Refusal, values::time::Zone};
use jiff::tz::TimeZone;
use std::{collections::BTreeMap, time::Duration};

/// What is set where nothing says otherwise. A name that is not here may be set all the same: clients set what they know of
/// PostgreSQL.
const DEFAULTS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "on"),
    ("extra_float_digits", "1"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", VERSION),
    ("server_version_num", "160006"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "UTC"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "on"),
];

/// The version of PostgreSQL whose clients and catalogs these are.
pub(super) const VERSION: &str = "16.6 (Tollgate)";

/// Those that a client is told of when it connects and when it changes them, as PostgreSQL writes their names.
const REPORTED: &[(&str, &str)] = &[
    ("application_name", "application_name"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    (
        "default_transaction_read_only",
        "default_transaction_read_only",
    ),
    ("in_hot_standby", "in_hot_standby"),
    ("integer_datetimes", "integer_datetimes"),
    ("intervalstyle", "IntervalStyle"),
    ("is_superuser", "is_superuser"),
    ("server_encoding", "server_encoding"),
    ("server_version", "server_version"),
    ("session_authorization", "session_authorization"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("timezone", "TimeZone"),
];

/// These are what they are.
const FIXED: &[&str] = &[
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
];

/// A client may not set more than this.
const MOST: usize = 200;

/// What a connection has set.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    set: BTreeMap<String, String>,
    zone: Zone,
    timeout: Option<Duration>,
}

impl Settings {
    pub(super) fn new(user: &str) -> Self {
        let user = ("session_authorization".to_owned(), user.to_owned());
        Settings {
            set: BTreeMap::from([user]),
            zone: Zone::UTC,
            timeout: None,
        }
    }

    /// What it is now; `None` for a name that is not known.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let default = || DEFAULTS.iter().find(|(known, _)| *known == name);
        let set = self.set.get(name).map(String::as_str);
        set.or_else(|| default().map(|(_, value)| *value))
    }

    /// Sets one, or gives it back its default.
    ///
    /// # Errors
    /// It cannot be set, or not to this.
    pub(super) fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), Refusal> {
        let refused = |what: &str| {
            let value = value.unwrap_or_default();
            Refusal::new("22023", format!("`{name}` cannot be `{value}`: {what}"))
        };
        if FIXED.contains(&name) {
            return Err(Refusal::new("55P02", format!("`{name}` cannot be changed")));
        }
        let value = value.unwrap_or_else(|| {
            let default = DEFAULTS.iter().find(|(known, _)| *known == name);
            default.map_or("", |(_, value)| *value)
        });
        match name {
            "timezone" => {
                let zone =
                    zone_of(value).ok_or_else(|| refused("write a zone such as Europe/Berlin"))?;
                self.zone = zone;
            }
            "statement_timeout" => {
                let length =
                    length_of(value).ok_or_else(|| refused("write a length such as 5s"))?;
                self.timeout = (!length.is_zero()).then_some(length);
            }
            "client_encoding" if !is_utf8(value) => return Err(refused("only UTF8 is spoken")),
            "datestyle" if !value.to_lowercase().starts_with("iso") => {
                return Err(refused("dates are written as ISO has them"));
            }
            "intervalstyle" if value != "postgres" => {
                return Err(refused("intervals are written as postgres has them"));
            }
            "bytea_output" if value != "hex" => return Err(refused("bytes are written as hex")),
            _ => {}
        }
        if self.set.len() >= MOST && !self.set.contains_key(name) {
            return Err(Refusal::new(
                "54000",
                format!("more than {MOST} settings are set"),
            ));
        }
        self.set.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Gives everything back its default.
    pub(super) fn reset(&mut self) {
        let user = self.get("session_authorization").unwrap_or_default();
        let user = user.to_owned();
        *self = Settings::new(&user);
    }

    /// The name by which a client is told of a setting, if it is.
    pub(super) fn reported(name: &str) -> Option<&'static str> {
        let known = REPORTED.iter().find(|(known, _)| *known == name);
        known.map(|(_, written)| *written)
    }

    /// Everything that a client is told when it connects.
    pub(super) fn all_reported(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let value = |name| self.get(name).unwrap_or_default();
        REPORTED
            .iter()
            .map(move |(name, written)| (*written, value(name)))
    }

    /// Everything that has a value.
    pub(super) fn all(&self) -> BTreeMap<String, String> {
        let defaults = DEFAULTS.iter();
        let defaults = defaults.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let set = self
            .set
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        defaults.chain(set).collect()
    }

    /// The zone in which instants are shown.
    pub(super) fn zone(&self) -> &Zone {
        &self.zone
    }

    /// After how long a statement ends, if that is set.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

fn zone_of(name: &str) -> Option<Zone> {
    match name.to_ascii_uppercase().as_str() {
        "UTC" | "GMT" | "Z" | "ETC/UTC" => Some(TimeZone::UTC),
        _ => TimeZone::get(name).ok(),
    }
}

fn is_utf8(encoding: &str) -> bool {
    let letters = encoding.chars().filter(char::is_ascii_alphanumeric);
    let letters = letters.collect::<String>().to_lowercase();
    matches!(letters.as_str(), "utf8" | "unicode" | "sqlascii")
}

/// A length as PostgreSQL writes it, in milliseconds without a unit.
fn length_of(text: &str) -> Option<Duration> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let milliseconds = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_remembered_checked_and_given_back() {
        let mut settings = Settings::new("ada");
        assert_eq!(settings.get("timezone"), Some("UTC"));
        assert_eq!(settings.get("session_authorization"), Some("ada"));
        assert_eq!(settings.get("nothing"), None);
        settings.set("timezone", Some("Europe/Berlin")).unwrap();
        assert_eq!(settings.zone().iana_name(), Some("Europe/Berlin"));
        settings.set("statement_timeout", Some("1500")).unwrap();
        assert_eq!(settings.timeout(), Some(Duration::from_millis(1_500)));
        settings.set("statement_timeout", Some("2 min")).unwrap();
        assert_eq!(settings.timeout(), Some(Duration::from_secs(120)));
        settings.set("statement_timeout", Some("0")).unwrap();
        assert_eq!(settings.timeout(), None);
        settings.set("my.own", Some("x")).unwrap();
        assert_eq!(settings.get("my.own"), Some("x"));
        for (name, value, code) in [
            ("timezone", "Mars", "22023"),
            ("client_encoding", "LATIN1", "22023"),
            ("statement_timeout", "soon", "22023"),
            ("datestyle", "German", "22023"),
            ("server_version", "9", "55P02"),
            ("session_authorization", "root", "55P02"),
        ] {
            assert_eq!(
                settings.set(name, Some(value)).unwrap_err().code,
                code,
                "{name}"
            );
        }
        settings.reset();
        assert_eq!(settings.get("timezone"), Some("UTC"));
        assert_eq!(settings.zone(), &Zone::UTC);
        assert_eq!(settings.get("session_authorization"), Some("ada"));
    }
}
