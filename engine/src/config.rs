//! Settings: plain data with units and defaults. Components are passed apart.
//!
//! They come from `tollgate.toml`, then from `TOLLGATE_…` variables (`TOLLGATE_SOURCE_URL` overrides
//! `url` in `[source]`), then from flags. An unknown key is an error, so that a typo is not a default.

mod http;
mod postgres;
mod tls;
mod written;

pub use http::{Count, HttpSettings};
pub use postgres::PostgresSettings;
pub use tls::TlsSettings;

use crate::error::{Error, Result};
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};
use tollgate_connectors::nats::Risk;
use tollgate_sql::{
    period::{Period, zone_of},
    window::DAY_US,
};
pub use written::Places;
use written::Written;

/// The configuration where none is named.
pub const USUAL_FILE: &str = "tollgate.toml";
/// Where this is set, the usual file may be missing.
const DEFINITIONS_VARIABLE: &str = "TOLLGATE_DEFINITIONS";

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The folder of `.sql` files, relative to the configuration file. Default `definitions/`.
    pub definitions: PathBuf,
    /// Where events come from.
    pub source: SourceSettings,
    /// Where tables go.
    pub lake: LakeSettings,
    /// When what is new is written.
    pub flush: FlushSettings,
    /// How much open windows may take.
    pub windows: WindowsSettings,
    /// What is accepted.
    pub ingest: IngestSettings,
    /// How repeats are recognised.
    pub dedupe: DedupeSettings,
    /// How customers are billed.
    pub billing: BillingSettings,
    /// How the tables are kept small and quick.
    pub maintenance: MaintenanceSettings,
    /// Whether and how HTTP is spoken.
    pub http: HttpSettings,
    /// Whether and how the protocol of PostgreSQL is spoken.
    pub postgres: PostgresSettings,
    /// How doors encrypt.
    pub tls: TlsSettings,
    /// The folder that relative paths start from: the configuration file's. Not a setting.
    #[serde(skip)]
    pub base: PathBuf,
    /// The configuration file, which may be missing where variables alone do. Not a setting.
    #[serde(skip)]
    pub file: PathBuf,
    /// Where each setting is that is given. Not a setting.
    #[serde(skip)]
    pub places: Places,
}

/// `[source]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// `nats` (default), or `files` for a bounded replay.
    pub kind: SourceKind,
    /// NATS server, `nats://host:port`. Default `nats://127.0.0.1:4222`. It may hold a user and password.
    pub url: Secret,
    /// The JetStream stream, which is the shard. Default `USAGE`.
    pub stream: String,
    /// The stream's subjects, used when it is created. Default `["usage.>"]`.
    pub subjects: Vec<String>,
    /// Creates the stream when it is missing. Default false: a missing stream is an error.
    pub create: bool,
    /// Ways in which the stream's settings may lose events before they are read, by name: `memory`,
    /// `discard_old`, `max_age`, `max_msgs_per_subject`, `msg_ttl`, `rollup`, `mirror`,
    /// `persist_async`. Default none: such a stream is refused.
    pub accept: Vec<Risk>,
    /// Where a shard begins that has no position yet, when that is not the stream's first message: `first` (that the
    /// stream still has), `new`, a sequence, or a time. Default none: a stream whose first messages are gone is
    /// refused.
    pub start: Option<Start>,
    /// Shards whose place this one takes, because the stream moved: they are fenced for good, and their ids are
    /// known here. Default none.
    pub replaces: Vec<String>,
    /// The least `max_age` of the stream. Default 7 days. Less lets a shorter stop of Tollgate lose
    /// events; more asks for a larger stream.
    pub max_age_min: Length,
    /// The JetStream domain that has the stream. Default none: the server's own.
    pub domain: String,
    /// Where JetStream's API is, instead of `domain`, such as `$JS.hub.API`. Default none.
    pub api_prefix: String,
    /// A NATS credentials file (`.creds`). Default none.
    pub credentials: String,
    /// An NKey seed (`SU…`). Default none.
    pub nkey: Secret,
    /// A token. Default none.
    pub token: Secret,
    /// A user, with `password`. Default none.
    pub user: String,
    /// The user's password. Default none.
    pub password: Secret,
    /// A PEM file of the only authorities to trust. Default none: the system's.
    pub tls_ca: String,
    /// A PEM file of our certificate, with `tls_key`. Default none.
    pub tls_certificate: String,
    /// A PEM file of the certificate's private key. Default none.
    pub tls_key: String,
    /// Refuses to talk without TLS, whatever the URL says. Default false.
    pub tls_required: bool,
    /// For `files`: an NDJSON file, plain or gzipped, relative to the configuration file.
    pub path: PathBuf,
    /// Bytes of messages handled together. Default 8 MB. More is faster up to a point and costs memory;
    /// less lowers the time until an event is visible under load.
    pub batch_bytes: Size,
}

/// Where events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum SourceKind {
    /// A JetStream stream.
    Nats,
    /// An NDJSON file.
    Files,
}

impl TryFrom<String> for SourceKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "nats" => Ok(SourceKind::Nats),
            "files" => Ok(SourceKind::Files),
            _ => Err(format!(
                "`{text}` is no kind of source: write \"nats\" or \"files\""
            )),
        }
    }
}

/// `[lake]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LakeSettings {
    /// `file://`, `s3://`, `gs://` or `az://`; `file://./lake`, the default, is relative to the
    /// configuration file.
    pub url: String,
}

/// `[flush]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlushSettings {
    /// How long an event may wait in memory before it is committed. Default 5s. Shorter makes results
    /// visible sooner and writes more, smaller files.
    pub interval: Length,
    /// Commits sooner when this many bytes of decoded events are waiting. Default 64MB. More makes larger
    /// files and takes more memory.
    pub max_bytes: Size,
}

/// `[windows]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowsSettings {
    /// The most that the open windows of all meters may take in memory. Default 1GB. Beyond it the
    /// largest meter is stopped and the others go on.
    pub max_bytes: Size,
}

/// `[ingest]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestSettings {
    /// An event further than this ahead of the stream's clock is rejected. Default 5m.
    pub max_future_skew: Length,
    /// A larger message is one rejected row. Default 8MB.
    pub max_payload: Size,
    /// A larger event is rejected. Default 1MB.
    pub max_event: Size,
}

/// `[dedupe]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupeSettings {
    /// How long an id is remembered, in the stream's time. Default 35 days. Each remembered id costs
    /// 32 bytes of disk and 1.3 bytes of memory, once it is no longer among the recent ones.
    pub horizon: Length,
    /// The most that remembered ids take in memory. Default 1GB: the 3.6 million most recent, and all
    /// that is needed to find 500 million older ones at full speed. Less is exact too, and reads more
    /// from disk.
    pub memory: Size,
    /// Where older ids are kept while the process runs, relative to the configuration file. Default
    /// `.tollgate/`. The files have no name and go with the process.
    pub directory: PathBuf,
}

/// `[billing]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BillingSettings {
    /// The plan of subjects with no account. Default `payg`.
    pub default_plan: String,
    /// IANA name of the zone in which billing periods begin. Default `UTC`.
    pub time_zone: String,
    /// The rate table that has the tax rates of regions: columns `region` and `rate_percent`. Default `tax_rates`.
    pub tax_rates: String,
    /// From when on this engine bills: an instant, or a date for its midnight in `time_zone`. Nothing earlier is issued, adjusted
    /// or unbilled. Default empty: everything is billed.
    pub starts_at: String,
    /// What the documents that are made at once may take in memory: a job goes through customers range by range. Default 1 GB. Less
    /// makes smaller ranges, each of which plans its prices anew.
    pub max_bytes: Size,
    /// Who is on documents that print.
    pub seller: SellerSettings,
}

/// `[billing.seller]`: each a text, of several lines where that is needed; none by default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SellerSettings {
    /// The name.
    pub name: String,
    /// The address.
    pub address: String,
    /// The number by which tax authorities know the seller.
    pub tax_id: String,
    /// What stands below the amount due, such as how to pay.
    pub notes: String,
}

impl BillingSettings {
    /// `starts_at` in microseconds since the Unix epoch, if it is set.
    ///
    /// # Errors
    /// It is neither an instant nor a date, or `time_zone` names no time zone.
    pub fn starts_us(&self) -> Result<Option<i64>> {
        if self.starts_at.is_empty() {
            return Ok(None);
        }
        let refused = || Error::Config {
            file: "billing.starts_at".into(),
            problem: format!(
                "`{}` is not an instant such as 2026-10-01T00:00:00Z, nor a date such as 2026-10-01",
                self.starts_at
            ),
        };
        let date = self.starts_at.parse::<Date>().ok();
        let instant = match date.filter(|_| self.starts_at.len() == "2026-10-01".len()) {
            Some(date) => {
                let zone = zone_of(&self.time_zone).map_err(of_zone)?;
                zone.to_timestamp(date.at(0, 0, 0, 0)).ok()
            }
            None => self.starts_at.parse().ok(),
        };
        let instant: jiff::Timestamp = instant.ok_or_else(refused)?;
        Ok(Some(instant.as_microsecond()))
    }

    /// What of a billing period is billed: from `starts_at` on.
    ///
    /// # Errors
    /// Nothing of it is; those of [`BillingSettings::starts_us`].
    pub fn since_start(&self, period: &Period) -> Result<Period> {
        match self.starts_us()? {
            Some(starts_us) if starts_us >= period.end_us => Err(Error::Billing {
                problem: format!(
                    "billing period {period} is over before billing.starts_at, {}",
                    self.starts_at
                ),
                hint: "what is earlier was billed elsewhere; set billing.starts_at to an earlier time if it was not"
                    .into(),
            }),
            Some(starts_us) if starts_us > period.start_us => {
                Ok(period.between(starts_us, period.end_us))
            }
            _ => Ok(period.clone()),
        }
    }
}

fn of_zone(error: tollgate_sql::Error) -> Error {
    match error {
        tollgate_sql::Error::Zone { .. } => Error::Config {
            file: "billing.time_zone".into(),
            problem: error.to_string(),
        },
        error => error.into(),
    }
}

/// `[maintenance]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenanceSettings {
    /// Whether `tollgate run` maintains the tables that it writes. Default true. Without it, files and
    /// log grow until the operator calls `tollgate maintain`.
    pub enabled: bool,
    /// Time between two rounds. Default 10 minutes. Shorter keeps fewer small files and reads the
    /// tables' logs more often.
    pub interval: Length,
    /// Files are merged to about this size. Default 128MB. Larger ones are fewer to open; one file and
    /// one row group are in memory while they are written.
    pub file_bytes: Size,
    /// A file that no longer belongs to the table is deleted after this time, from 1 hour to 7 days.
    /// Default 7 days. Shorter saves room, and ends queries that take longer than this.
    pub vacuum_after: Length,
    /// The log before a checkpoint is deleted when the checkpoint is older than this, from 1 hour on.
    /// Default 7 days. Shorter saves room; older versions of a table can no longer be read.
    pub log_after: Length,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            definitions: "definitions/".into(),
            source: SourceSettings::default(),
            lake: LakeSettings::default(),
            flush: FlushSettings::default(),
            windows: WindowsSettings::default(),
            ingest: IngestSettings::default(),
            dedupe: DedupeSettings::default(),
            billing: BillingSettings::default(),
            maintenance: MaintenanceSettings::default(),
            http: HttpSettings::default(),
            postgres: PostgresSettings::default(),
            tls: TlsSettings::default(),
            base: PathBuf::from("."),
            file: PathBuf::new(),
            places: Places::new(),
        }
    }
}

impl Default for SourceSettings {
    fn default() -> Self {
        SourceSettings {
            kind: SourceKind::Nats,
            url: "nats://127.0.0.1:4222".into(),
            stream: "USAGE".into(),
            subjects: vec!["usage.>".into()],
            create: false,
            accept: Vec::new(),
            start: None,
            replaces: Vec::new(),
            max_age_min: Length(7 * DAY_US),
            domain: String::new(),
            api_prefix: String::new(),
            credentials: String::new(),
            nkey: Secret::default(),
            token: Secret::default(),
            user: String::new(),
            password: Secret::default(),
            tls_ca: String::new(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            tls_required: false,
            path: PathBuf::new(),
            batch_bytes: Size(8_000_000),
        }
    }
}

impl Default for LakeSettings {
    fn default() -> Self {
        LakeSettings {
            url: "file://./lake".into(),
        }
    }
}

impl Default for FlushSettings {
    fn default() -> Self {
        FlushSettings {
            interval: Length(5_000_000),
            max_bytes: Size(64_000_000),
        }
    }
}

impl Default for WindowsSettings {
    fn default() -> Self {
        WindowsSettings {
            max_bytes: Size(1_000_000_000),
        }
    }
}

impl Default for IngestSettings {
    fn default() -> Self {
        IngestSettings {
            max_future_skew: Length(300_000_000),
            max_payload: Size(8_000_000),
            max_event: Size(1_000_000),
        }
    }
}

impl Default for DedupeSettings {
    fn default() -> Self {
        DedupeSettings {
            horizon: Length(35 * DAY_US),
            memory: Size(1_000_000_000),
            directory: ".tollgate/".into(),
        }
    }
}

impl Default for BillingSettings {
    fn default() -> Self {
        BillingSettings {
            default_plan: "payg".into(),
            time_zone: "UTC".into(),
            tax_rates: "tax_rates".into(),
            starts_at: String::new(),
            max_bytes: Size(1_000_000_000),
            seller: SellerSettings::default(),
        }
    }
}

impl Default for MaintenanceSettings {
    fn default() -> Self {
        MaintenanceSettings {
            enabled: true,
            interval: Length(600_000_000),
            file_bytes: Size(128_000_000),
            vacuum_after: Length(7 * DAY_US),
            log_after: Length(7 * DAY_US),
        }
    }
}

impl SourceSettings {
    /// Refuses half of a pair, which would be left out without a word, and two ways to say who we are, of which
    /// one would be.
    fn check_login(&self) -> Result<(), (&'static str, String)> {
        let password = self.password.given().is_some();
        for (one, is_there, other, is_other_there) in [
            (
                "source.user",
                !self.user.is_empty(),
                "source.password",
                password,
            ),
            (
                "source.tls_certificate",
                !self.tls_certificate.is_empty(),
                "source.tls_key",
                !self.tls_key.is_empty(),
            ),
        ] {
            let (given, missing) = match (is_there, is_other_there) {
                (true, false) => (one, other),
                (false, true) => (other, one),
                _ => continue,
            };
            let problem = format!("{given} is set and {missing} is not; set both, or neither");
            return Err((given, problem));
        }
        let ways = [
            ("source.credentials", !self.credentials.is_empty()),
            ("source.nkey", self.nkey.given().is_some()),
            ("source.token", self.token.given().is_some()),
            ("source.user", !self.user.is_empty()),
        ];
        let mut given = ways.iter().filter(|(_, is_there)| *is_there);
        match (given.next(), given.next()) {
            (Some((one, _)), Some((other, _))) => Err((
                other,
                format!("{one} and {other} are both set, and a server takes one; set one of them"),
            )),
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// Reads a configuration file, then the `TOLLGATE_…` variables among `variables`. The usual file may be missing where one of
    /// them says where the definitions are.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has an unknown key, or a value that does not parse; one of two
    /// settings that belong together is missing, or two contradict each other; a variable is named after a
    /// section and none of its settings; the message names the file or the variable.
    pub fn load(file: &Path, variables: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let invalid = |problem: String| Error::Config {
            file: file.display().to_string(),
            problem,
        };
        let variables: Vec<_> = variables.collect();
        let read = fs::read_to_string(file).or_else(|error| {
            let may_be_missing = file == Path::new(USUAL_FILE)
                && variables.iter().any(|(name, _)| name == DEFINITIONS_VARIABLE);
            match error.kind() {
                io::ErrorKind::NotFound if may_be_missing => Ok(String::new()),
                io::ErrorKind::NotFound => Err(format!(
                    "there is no such file; `tollgate init` writes a first one, or name yours with --config FILE; \
                     where {DEFINITIONS_VARIABLE} is set, variables alone do"
                )),
                _ => Err(format!("could not be read: {error}")),
            }
        });
        let text = read.map_err(invalid)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let is_right = |value: Value| {
            let read = Settings::deserialize(value);
            read.map(|_| ()).map_err(|error| error.to_string())
        };
        let mut written = Written::of_file(&file.display().to_string(), text, &is_right);
        for (name, value) in variables {
            written.add_variable(&name, &value, &is_right);
        }
        let wrong = written.wrong.into_iter().map(|wrong| Error::Config {
            file: wrong.at,
            problem: wrong.problem,
        });
        Error::all(wrong.collect())?;
        let settings = Settings::deserialize(Value::Object(written.values));
        let mut settings = settings.map_err(|error| invalid(error.to_string()))?;
        settings.places = written.places;
        file.clone_into(&mut settings.file);
        settings
            .source
            .check_login()
            .map_err(|(key, problem)| Error::Config {
                file: settings.place_of(key),
                problem,
            })?;
        settings.base = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(settings)
    }

    /// Whether a setting such as `source.url` is in the file or has a variable.
    pub fn is_given(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// The billing period `YYYY-MM`.
    ///
    /// # Errors
    /// The text is not a month, or the setting names no time zone.
    pub fn month(&self, text: &str) -> Result<Period> {
        let month = Period::month(text, &self.billing.time_zone);
        month.map_err(|error| self.placed(of_zone(error)))
    }

    /// An error of a setting, with the place where that is given.
    pub fn placed(&self, error: Error) -> Error {
        match error {
            Error::Config { file, problem } => Error::Config {
                file: self.place_of(&file),
                problem,
            },
            error => error,
        }
    }

    /// Where a setting such as `source.url` is given: a place in the file, or its variable; its own name when it has its default.
    pub fn place_of(&self, key: &str) -> String {
        self.places
            .get(key)
            .cloned()
            .unwrap_or_else(|| key.to_owned())
    }

    /// A path of the configuration, seen from the working directory.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }
}

/// A text that no message, log or debug output shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, to use it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text, if there is any.
    pub fn given(&self) -> Option<String> {
        Some(self.0.clone()).filter(|text| !text.is_empty())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(text.to_owned())
    }
}

impl PartialEq<&str> for Secret {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

/// A number of bytes, written `64MB`, `8MiB` or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let factor = match unit.trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(format!("`{text}` is not a size such as 64MB or 8MiB")),
        };
        digits
            .parse::<usize>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .filter(|bytes| *bytes > 0)
            .map(Size)
            .ok_or_else(|| format!("`{text}` is not a size above zero such as 64MB or 8MiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

/// A length of time in microseconds, written `5s`, `10 minutes` or `35 days`; a day is 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length(pub i64);

impl Length {
    /// As a duration to wait.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.unsigned_abs())
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Span>()
            .and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()))
            .ok()
            .and_then(|duration| i64::try_from(duration.as_micros()).ok())
            .filter(|micros| *micros > 0)
            .map(Length)
            .ok_or_else(|| format!("`{text}` is not a length of time such as 5s or 35 days"))
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// Serde for types that are text in the configuration file.
macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(D::Error::custom)
            }
        }
    };
}

as_text!(Size);
as_text!(Length);

/// Where to begin in a stream whose first messages are gone, or are not wanted: `source.start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Start {
    /// At the first message that the stream still has.
    First,
    /// After the last message that it has when the shard starts.
    New,
    /// At a sequence.
    Sequence(u64),
    /// At the first message that was stored at this time or later, in microseconds.
    Time(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|sequence| *sequence > 0);
        let time = || text.parse::<jiff::Timestamp>().ok();
        match text {
            "first" => Ok(Start::First),
            "new" => Ok(Start::New),
            _ => number
                .map(Start::Sequence)
                .or_else(|| time().map(|time| Start::Time(time.as_microsecond())))
                .ok_or_else(|| {
                    format!(
                        "`{text}` is no place to start; write 'first', 'new', a sequence from 1, or a time such as \
                         2026-10-01T00:00:00Z"
                    )
                }),
        }
    }
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Start> for String {
    fn from(start: Start) -> String {
        match start {
            Start::First => "first".to_owned(),
            Start::New => "new".to_owned(),
            Start::Sequence(sequence) => sequence.to_string(),
            Start::Time(us) => jiff::Timestamp::from_microsecond(us)
                .unwrap_or_default()
                .to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tollgate.toml");
        fs::write(&file, text).unwrap();
        let owned = variables
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Settings::load(&file, owned)
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        let settings = load("", &[]).unwrap();
        assert_eq!(settings.source.stream, "USAGE");
        assert_eq!(settings.flush.interval, Length(5_000_000));
        assert_eq!(settings.dedupe.horizon, Length(3_024_000_000_000));
    }

    #[test]
    fn a_variable_overrides_the_file() {
        let settings = load(
            "[source]\nurl = 'nats://a:1'\n[flush]\nmax_bytes = '1MB'",
            &[
                ("TOLLGATE_SOURCE_URL", "nats://b:2"),
                ("TOLLGATE_FLUSH_MAX_BYTES", "2MiB"),
            ],
        )
        .unwrap();
        assert_eq!(settings.source.url, "nats://b:2");
        assert_eq!(settings.flush.max_bytes, Size(2_097_152));
    }

    #[test]
    fn variables_can_be_lists_and_flags() {
        let variables = [
            ("TOLLGATE_SOURCE_SUBJECTS", "a.>,b"),
            ("TOLLGATE_SOURCE_CREATE", "true"),
            ("TOLLGATE_SOURCE_ACCEPT", "discard_old,max_age"),
        ];
        let settings = load("", &variables).unwrap();
        assert_eq!(settings.source.subjects, ["a.>", "b"]);
        assert!(settings.source.create);
        assert_eq!(settings.source.accept, [Risk::DiscardOld, Risk::MaxAge]);
        let none = load(
            "[source]\naccept = ['mirror']",
            &[("TOLLGATE_SOURCE_ACCEPT", "")],
        );
        assert!(none.unwrap().source.accept.is_empty());
    }

    #[test]
    fn a_risk_that_is_none_is_an_error_that_names_it() {
        let message = load("[source]\naccept = ['everything']", &[])
            .unwrap_err()
            .to_string();
        let says = "`everything` is not a risk; there are memory, discard_old";
        assert!(message.contains(says), "{message}");
    }

    #[test]
    fn a_typo_is_an_error_that_names_the_key() {
        let message = load("[source]\nurll = 'x'", &[]).unwrap_err().to_string();
        assert!(message.contains("urll"), "{message}");
    }

    #[test]
    fn a_variable_of_a_section_must_be_a_setting_of_it() {
        let message = load("", &[("TOLLGATE_FLUSH_INTERVALL", "1s")])
            .unwrap_err()
            .to_string();
        assert!(message.contains("TOLLGATE_FLUSH_INTERVALL"), "{message}");
        assert!(load("", &[("TOLLGATE_LOG", "debug"), ("FLUSH_X", "1")]).is_ok());
    }

    #[test]
    fn a_bad_length_of_time_is_an_error() {
        let message = load("[flush]\ninterval = 'soon'", &[])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`soon` is not a length of time"),
            "{message}"
        );
    }

    #[test]
    fn sizes_and_periods_read_as_people_write_them() {
        assert_eq!("64MB".parse(), Ok(Size(64_000_000)));
        assert!("0".parse::<Size>().is_err());
        assert!("12 parsecs".parse::<Size>().is_err());
        assert_eq!("10 minutes".parse(), Ok(Length(600_000_000)));
        assert!("-5s".parse::<Length>().is_err());
    }

    #[test]
    fn no_message_and_no_debug_output_shows_a_secret() {
        for text in [
            "[source]\npassword = 's3cret",
            "[source]\npassword = \"s3cret\\q\"",
            "[source]\ntoken = s3cret",
            "[source]\nurl = 'nats://u:s3cret@host' x",
            "source = 'nats://u:s3cret@host'",
            "[source]\ntls_required = 's3cret'",
            "[source]\nnkey = ['s3cret']",
            "[source]\npasword = 's3cret'",
        ] {
            let error = load(text, &[]).unwrap_err();
            let shown = format!("{error}\n{error:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        let message = load("[source]\ntoken = s3cret", &[])
            .unwrap_err()
            .to_string();
        assert!(message.contains("tollgate.toml:2:9: "), "{message}");
        for login in [
            "user = 'u'\npassword = 's3cret'",
            "token = 's3cret'",
            "nkey = 's3cret'",
        ] {
            let text = format!("[source]\nurl = 'nats://u:s3cret@host'\n{login}");
            let settings = load(&text, &[]).unwrap();
            let shown = format!("{settings:?} {}", serde_json::to_string(&settings).unwrap());
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        let settings = load("[source]\nuser = 'u'\npassword = 's3cret'", &[]).unwrap();
        assert_eq!(settings.source.password, "s3cret");
    }

    #[test]
    fn half_a_pair_and_two_logins_are_refused_by_their_settings() {
        let refused = |text: &str| {
            let error = load(&format!("[source]\n{text}"), &[]).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
            let message = error.to_string();
            message.split_once(": ").unwrap().1.to_owned()
        };
        for (text, given, missing) in [
            ("user = 'u'", "user", "password"),
            ("user = 'u'\npassword = ''", "user", "password"),
            ("password = 's3cret'", "password", "user"),
            (
                "url = 'nats://u@h'\npassword = 's3cret'",
                "password",
                "user",
            ),
            ("tls_certificate = 'c.pem'", "tls_certificate", "tls_key"),
            ("tls_key = 'k.pem'", "tls_key", "tls_certificate"),
        ] {
            assert_eq!(
                refused(text),
                format!("source.{given} is set and source.{missing} is not; set both, or neither")
            );
        }
        let ways = [
            ("credentials", "credentials = 'a.creds'"),
            ("nkey", "nkey = 's3cret'"),
            ("token", "token = 's3cret'"),
            ("user", "user = 'u'\npassword = 's3cret'"),
        ];
        for (n, (one, first)) in ways.iter().enumerate() {
            assert!(load(&format!("[source]\n{first}"), &[]).is_ok(), "{one}");
            for (other, second) in &ways[n + 1..] {
                assert_eq!(
                    refused(&format!("{second}\n{first}")),
                    format!(
                        "source.{one} and source.{other} are both set, and a server takes one; set one of them"
                    )
                );
            }
        }
        // A variable completes what the file has, or contradicts it.
        let user = "[source]\nuser = 'u'";
        assert!(load(user, &[("TOLLGATE_SOURCE_PASSWORD", "s3cret")]).is_ok());
        let both = "[source]\nuser = 'u'\npassword = 's3cret'";
        let error = load(both, &[("TOLLGATE_SOURCE_TOKEN", "s3cret")]).unwrap_err();
        let says = "source.token and source.user are both set";
        assert!(error.to_string().contains(says), "{error}");
        // Settings stand above the URL, as they always did.
        assert!(load(both, &[("TOLLGATE_SOURCE_URL", "nats://x:y@h")]).is_ok());
    }

    #[test]
    fn whatever_is_wrong_with_a_line_its_secret_is_not_shown() {
        let lines = [
            // Quotes that are missing, do not close, or are of another kind.
            "KEY = s3cret",
            "KEY = 's3cret",
            "KEY = s3cret'",
            "KEY = \"s3cret",
            "KEY = \"s3cret'",
            "KEY = \"\"\"s3cret",
            "KEY = '''s3cret",
            "KEY = '''\ns3cret\n\"\"\"",
            "KEY = 's3cret' # 's3cret",
            "KEY = 's3cret'x",
            "KEY = 's3cret' 's3cret'",
            "KEY = \"s3cret\\x\"",
            "KEY = \"\\us3cret\"",
            "KEY = \"s3\u{1}cret s3cret\"",
            // No equals sign, or another.
            "KEY 's3cret'",
            "KEY: 's3cret'",
            "KEY == 's3cret'",
            "KEY = = 's3cret'",
            // Other types.
            "KEY = ['s3cret']",
            "KEY = ['s3cret'",
            "KEY = { text = 's3cret' }",
            "KEY = { 's3cret' }",
            "KEY.x = 's3cret'",
            // Twice, and after or before something that is wrong.
            "KEY = 's3cret'\nKEY = 's3cret'",
            "create = 's3cret'\nKEY = 's3cret'",
            "create = maybe\nKEY = 's3cret'",
            "batch_bytes = \nKEY = 's3cret'",
            "KEY = 's3cret'\nbatch_bytes = 'many'",
            "KEY = 's3cret'\nunknown = 's3cret'",
            "[KEY = 's3cret'",
            "[[KEY]]\nx = 's3cret'",
        ];
        for setting in ["url", "password", "token", "nkey"] {
            for line in lines {
                for end in ["\n", "\r\n", ""] {
                    let line = line.replace("KEY", setting);
                    let text = format!("[source]\n{line}{end}");
                    // Some of these are no mistake.
                    let shown = match load(&text, &[]) {
                        Err(error) => format!("{error}\n{error:?}"),
                        Ok(settings) => format!("{settings:?}"),
                    };
                    assert!(!shown.contains("s3cret"), "{text}: {shown}");
                }
            }
        }
        // The variables of the same settings, and what is nearly one.
        for variable in ["URL", "PASSWORD", "TOKEN", "NKEY", "PASWORD", "CREATE"] {
            let variable = format!("TOLLGATE_SOURCE_{variable}");
            let shown = match load("", &[(&variable, "s3cret")]) {
                Err(error) => format!("{error}\n{error:?}"),
                Ok(settings) => format!("{settings:?}"),
            };
            assert!(!shown.contains("s3cret"), "{variable}: {shown}");
        }
    }

    #[test]
    fn every_setting_has_its_variable() {
        fn leaves_of(above: &str, value: &Value) -> Vec<String> {
            match value.as_object() {
                Some(section) => section
                    .iter()
                    .flat_map(|(key, value)| leaves_of(&format!("{above}.{key}"), value))
                    .collect(),
                None => vec![above.trim_start_matches('.').to_owned()],
            }
        }
        let value = serde_json::to_value(Settings::default()).unwrap();
        let mut leaves = leaves_of("", &value);
        leaves.sort();
        let mut known: Vec<_> = written::keys().map(str::to_owned).collect();
        known.sort();
        assert_eq!(known, leaves);
    }

    #[test]
    fn billing_starts_at_an_instant_or_at_midnight_of_a_date() {
        let starts = |starts_at: &str| {
            let settings = BillingSettings {
                starts_at: starts_at.to_owned(),
                time_zone: "Europe/Berlin".to_owned(),
                ..BillingSettings::default()
            };
            settings.starts_us().map_err(|error| error.to_string())
        };
        assert_eq!(starts(""), Ok(None));
        assert_eq!(
            starts("2026-10-01T00:00:00Z"),
            Ok(Some(1_790_812_800_000_000))
        );
        // Two hours earlier by the clocks of summer.
        assert_eq!(starts("2026-10-01"), Ok(Some(1_790_805_600_000_000)));
        for text in ["2026-10", "October", "2026-10-01T00:00:00", "20261001"] {
            let error = starts(text).unwrap_err();
            assert!(error.contains("is not an instant such as"), "{error}");
        }
    }

    #[test]
    fn a_start_is_a_word_a_sequence_or_a_time() {
        let start = |text: &str| text.parse::<Start>();
        assert_eq!(start("first"), Ok(Start::First));
        assert_eq!(start("new"), Ok(Start::New));
        assert_eq!(start("11"), Ok(Start::Sequence(11)));
        assert_eq!(start("1970-01-01T00:00:02Z"), Ok(Start::Time(2_000_000)));
        for wrong in ["0", "-1", "", "last", "2026-10-01"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }
}
