//! Which stream, where, and how it is read: the settings, and the errors that name them.

use super::{
    address,
    credentials::{Auth, Tls},
    risk::Risk,
};
use crate::error::{Cause, Error};
use std::{fmt, time::Duration};

/// JetStream's API as a server without a domain has it.
const API: &str = "$JS.API";

/// Which stream, where, and how to get at it.
#[derive(Clone)]
pub struct NatsOptions {
    /// One or more server addresses, separated by commas, such as `nats://127.0.0.1:4222` or
    /// `tls://nats.example.com`. A user and password may be part of it; errors leave them out.
    pub url: String,
    /// The stream's name, which is also the shard's.
    pub stream: String,
    /// The JetStream domain that has the stream, such as the hub's behind a leaf node.
    pub domain: Option<String>,
    /// Where JetStream's API is, such as `$JS.hub.API`, for an account that imports it; instead of a domain.
    pub api_prefix: Option<String>,
    /// What the stream captures, if it is created.
    pub subjects: Vec<String>,
    /// Create the stream when it is missing: limits retention, file storage, full means refused, and
    /// nothing can be deleted or purged.
    pub create: bool,
    /// Read a stream although its settings can lose events in these ways before they are read.
    pub accept: Vec<Risk>,
    /// How long the stream must keep an event. Less means that a shorter stop loses events.
    pub max_age_min: Duration,
    /// How to prove who we are.
    pub auth: Auth,
    /// Whom to trust, and our own certificate.
    pub tls: Tls,
    /// Messages to a pull request; 1.5 times as many can be on their way to us. More is faster until
    /// about 10,000 and costs memory: it is capped at 40,000 so that the client never drops any.
    pub batch_messages: usize,
    /// How long to wait for the server's answer to any one request.
    pub timeout: Duration,
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("url", &address::shown(&self.url))
            .field("stream", &self.stream)
            .field("create", &self.create)
            .field("auth", &self.auth)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// 1.5 batches stay below the 65,536 messages that the client holds before it drops any.
const BATCH_MESSAGES_MAX: usize = 40_000;

impl NatsOptions {
    /// The stream `stream` at `url`, everything else at its default: no credentials, the stream must
    /// exist, no risk is accepted, events are kept for 7 days, batches of 10,000 messages, 10 seconds
    /// for an answer.
    pub fn new(url: impl Into<String>, stream: impl Into<String>) -> Self {
        NatsOptions {
            url: url.into(),
            stream: stream.into(),
            subjects: Vec::new(),
            create: false,
            accept: Vec::new(),
            max_age_min: Duration::from_secs(7 * 86_400),
            domain: None,
            api_prefix: None,
            auth: Auth::default(),
            tls: Tls::default(),
            batch_messages: 10_000,
            timeout: Duration::from_secs(10),
        }
    }

    /// The batch size within its bounds.
    pub(super) fn batch(&self) -> usize {
        self.batch_messages.clamp(1, BATCH_MESSAGES_MAX)
    }

    /// Where JetStream's API is.
    pub(super) fn api(&self) -> String {
        match (&self.api_prefix, &self.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => API.to_owned(),
        }
    }
    /// A person must change something.
    pub(super) fn unsuitable(&self, problem: String, hint: String) -> Error {
        Error::Unsuitable {
            stream: self.stream.clone(),
            problem,
            hint,
        }
    }

    /// A fault that may pass.
    pub(super) fn failed(&self, doing: &'static str, source: Cause) -> Error {
        Error::Source {
            shard: self.stream.clone(),
            doing,
            source,
        }
    }

    /// A server that does not answer.
    pub(super) fn unreachable(&self, what: &'static str, source: Cause) -> Error {
        Error::Unreachable {
            what,
            url: address::shown(&self.url),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_stays_below_what_the_client_can_hold() {
        let mut options = NatsOptions::new("nats://host", "S");
        options.batch_messages = 1_000_000;
        assert!(options.batch() + options.batch() / 2 < 65_536);
        options.batch_messages = 0;
        assert_eq!(options.batch(), 1);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let mut options = NatsOptions::new("nats://u:S3cret@one,tls://S3cret@two", "S");
        options.auth.token = Some("S3cret".into());
        options.auth.nkey = Some("S3cret".into());
        options.auth.user_and_password = Some(("u".into(), "S3cret".into()));
        let shown = format!("{options:?}");
        assert!(!shown.contains("S3cret"), "{shown}");
    }
}
