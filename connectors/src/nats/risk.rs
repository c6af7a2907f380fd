//! Which settings of a stream can lose an event before it is read. Pure.
//!
//! A stream that lost unread events by its own rules looks whole afterwards: what it dropped at its
//! beginning is a gap that stops the shard, but what it dropped from the middle is reported as deleted,
//! as if an operator had wanted that. So such settings are refused before anything is read.

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, Source, StorageType};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// A setting of a stream that can lose events before they are read. A stream with one is refused, unless
/// the risk is accepted by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum Risk {
    /// Storage in memory: a restart of the server loses every event.
    Memory,
    /// A stream that has a limit and drops its oldest messages to stay within it.
    DiscardOld,
    /// Messages go away by age sooner than [`NatsOptions::max_age_min`](super::NatsOptions::max_age_min).
    MaxAge,
    /// Each subject keeps only its newest messages.
    MaxMsgsPerSubject,
    /// A publisher may say when its message goes away.
    MsgTtl,
    /// A publisher may replace all earlier messages by one.
    Rollup,
    /// A copy of another stream, which skips what that one had dropped.
    Mirror,
    /// Acknowledged before it is written: a crash of the server loses events that were acknowledged.
    PersistAsync,
}

impl Risk {
    const ALL: [Risk; 8] = [
        Risk::Memory,
        Risk::DiscardOld,
        Risk::MaxAge,
        Risk::MaxMsgsPerSubject,
        Risk::MsgTtl,
        Risk::Rollup,
        Risk::Mirror,
        Risk::PersistAsync,
    ];

    fn name(self) -> &'static str {
        match self {
            Risk::Memory => "memory",
            Risk::DiscardOld => "discard_old",
            Risk::MaxAge => "max_age",
            Risk::MaxMsgsPerSubject => "max_msgs_per_subject",
            Risk::MsgTtl => "msg_ttl",
            Risk::Rollup => "rollup",
            Risk::Mirror => "mirror",
            Risk::PersistAsync => "persist_async",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Risk {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let found = Risk::ALL.into_iter().find(|risk| risk.name() == text);
        found.ok_or_else(|| {
            let names = Risk::ALL.map(Risk::name).join(", ");
            format!("`{text}` is not a risk; there are {names}")
        })
    }
}

/// One setting that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// `None` for what loses nothing by itself: it is only said.
    pub(super) risk: Option<Risk>,
    /// The setting, its value, what it must be, and what happens otherwise.
    pub(super) problem: String,
    pub(super) fix: Fix,
}

/// How to put a setting right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fix {
    /// Flags of `nats stream edit`.
    Edit(String),
    /// What else to do.
    Other(String),
}

/// Looks through a stream's settings, worst first; `max_age_min` is how long an event must be kept.
///
/// A setting that an older server does not know is absent from its answer, and so has its default here,
/// which is what that server does.
pub(super) fn find(config: &Config, max_age_min: Duration) -> Vec<Finding> {
    let checks = [
        memory(config),
        persist_async(config),
        discard_old(config),
        max_age(config, max_age_min),
        max_msgs_per_subject(config),
        msg_ttl(config),
        rollup(config),
        mirror(config),
        sources(config),
        no_ack(config),
        removable(config),
    ];
    checks.into_iter().flatten().collect()
}

/// What to do about some findings, in one line: one edit for all that can be edited.
pub(super) fn advice(stream: &str, findings: &[&Finding]) -> String {
    let edits: Vec<&str> = findings.iter().filter_map(|f| f.fix.flags()).collect();
    let edit =
        (!edits.is_empty()).then(|| format!("nats stream edit {stream} {}", edits.join(" ")));
    let others = findings.iter().filter_map(|f| f.fix.other());
    let all: Vec<String> = edit.into_iter().chain(others).collect();
    all.join("; ")
}

impl Fix {
    fn flags(&self) -> Option<&str> {
        match self {
            Fix::Edit(flags) => Some(flags),
            Fix::Other(_) => None,
        }
    }

    fn other(&self) -> Option<String> {
        match self {
            Fix::Edit(_) => None,
            Fix::Other(what) => Some(what.clone()),
        }
    }
}

fn refused(risk: Risk, problem: impl Into<String>, fix: Fix) -> Option<Finding> {
    Some(Finding {
        risk: Some(risk),
        problem: problem.into(),
        fix,
    })
}

fn said(problem: impl Into<String>, fix: Fix) -> Option<Finding> {
    Some(Finding {
        risk: None,
        problem: problem.into(),
        fix,
    })
}

fn edit(flags: impl Into<String>) -> Fix {
    Fix::Edit(flags.into())
}

/// For a setting that a stream keeps for life.
fn anew(setting: &str, how: &str) -> Fix {
    Fix::Other(format!(
        "{setting} cannot be edited: make a new stream {how} and publish to that"
    ))
}

fn memory(config: &Config) -> Option<Finding> {
    if config.storage == StorageType::File {
        return None;
    }
    refused(
        Risk::Memory,
        "storage is memory, it must be file: a restart of the server loses every event",
        anew("storage", "with file storage"),
    )
}

fn persist_async(config: &Config) -> Option<Finding> {
    if config.persist_mode != Some(PersistenceMode::Async) {
        return None;
    }
    refused(
        Risk::PersistAsync,
        "persist_mode is async, it must be default: events are acknowledged before they are written, \
         and a crash of the server loses them",
        anew("persist_mode", "without it"),
    )
}

fn discard_old(config: &Config) -> Option<Finding> {
    let limits = [
        ("max_bytes", config.max_bytes),
        ("max_msgs", config.max_messages),
    ];
    let limits: Vec<String> = limits
        .iter()
        .filter(|(_, limit)| *limit > 0)
        .map(|(name, limit)| format!("{name} {limit}"))
        .collect();
    if config.discard == DiscardPolicy::New || limits.is_empty() {
        return None;
    }
    refused(
        Risk::DiscardOld,
        format!(
            "discard is old with {}, it must be new: a full stream drops its oldest events, read or \
             not, where it should refuse the publisher",
            limits.join(" and ")
        ),
        edit("--discard new"),
    )
}

fn max_age(config: &Config, max_age_min: Duration) -> Option<Finding> {
    if config.max_age.is_zero() || config.max_age >= max_age_min {
        return None;
    }
    let (is, must) = (span(config.max_age), span(max_age_min));
    refused(
        Risk::MaxAge,
        format!(
            "max_age is {is}, it must be at least {must} (max_age_min) or unlimited: an event that \
             is not read by then is dropped"
        ),
        edit(format!("--max-age {must}")),
    )
}

fn max_msgs_per_subject(config: &Config) -> Option<Finding> {
    let limit = config.max_messages_per_subject;
    let is_refusing = config.discard == DiscardPolicy::New && config.discard_new_per_subject;
    if limit <= 0 || is_refusing {
        return None;
    }
    refused(
        Risk::MaxMsgsPerSubject,
        format!(
            "max_msgs_per_subject is {limit}, it must be unlimited: a subject drops its oldest \
             events, read or not, to make room"
        ),
        edit("--max-msgs-per-subject=-1"),
    )
}

fn msg_ttl(config: &Config) -> Option<Finding> {
    if !config.allow_message_ttl {
        return None;
    }
    refused(
        Risk::MsgTtl,
        "allow_msg_ttl is true, it must be false: a publisher can have its events dropped before \
         they are read",
        anew("allow_msg_ttl", "without it"),
    )
}

fn rollup(config: &Config) -> Option<Finding> {
    if !config.allow_rollup {
        return None;
    }
    refused(
        Risk::Rollup,
        "allow_rollup_hdrs is true, it must be false: a publisher can drop all earlier events of a \
         subject, read or not",
        edit("--no-allow-rollup"),
    )
}

fn mirror(config: &Config) -> Option<Finding> {
    let origin = &config.mirror.as_ref()?.name;
    refused(
        Risk::Mirror,
        format!(
            "it mirrors `{origin}`: what that stream dropped before it was copied looks deleted here"
        ),
        Fix::Other(format!("set stream = \"{origin}\" and read that one")),
    )
}

fn sources(config: &Config) -> Option<Finding> {
    let names = |sources: &Vec<Source>| -> Vec<String> {
        sources.iter().map(|source| source.name.clone()).collect()
    };
    let names = config.sources.as_ref().map(names)?;
    if names.is_empty() {
        return None;
    }
    said(
        format!(
            "it is fed by {}: what these drop before it is copied is never counted",
            names.join(", ")
        ),
        Fix::Other("see that they keep their events until they are copied".into()),
    )
}

fn no_ack(config: &Config) -> Option<Finding> {
    if !config.no_ack {
        return None;
    }
    said(
        "no_ack is true: no publisher learns whether its event was stored",
        edit("--ack"),
    )
}

fn removable(config: &Config) -> Option<Finding> {
    let flags = [
        ("deny_delete", "--deny-delete", config.deny_delete),
        ("deny_purge", "--deny-purge", config.deny_purge),
    ];
    let open = || flags.iter().filter(|(_, _, is_denied)| !is_denied);
    let names: Vec<&str> = open().map(|(name, _, _)| *name).collect();
    if names.is_empty() {
        return None;
    }
    let flags: Vec<&str> = open().map(|(_, flag, _)| *flag).collect();
    said(
        format!(
            "{} should be true: events can be removed by command before they are read",
            names.join(" and ")
        ),
        edit(flags.join(" ")),
    )
}

/// A length of time as the `nats` command takes it: `7d`, `36h`, `90s`; less than a second as `0.25s`.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    if time.subsec_nanos() > 0 {
        return format!(
            "{}s",
            format!("{}.{:09}", seconds, time.subsec_nanos()).trim_end_matches('0')
        );
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let (width, unit) = units
        .into_iter()
        .find(|(width, _)| seconds >= *width && seconds.is_multiple_of(*width))
        .unwrap_or((1, "s"));
    format!("{}{unit}", seconds / width)
}

#[cfg(test)]
mod tests;
