//! What a server says no to, as an error: what a person must change, or a fault that may pass.
//!
//! Everything that is known only by the text or the code of a server's answer is here. Does no I/O.

use super::{NatsOptions, address};
use crate::error::Error;
use async_nats::{
    ConnectError, ConnectErrorKind,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamError, CreateStreamErrorKind, RequestError, RequestErrorKind},
        stream::{ConsumerError, ConsumerErrorKind},
    },
    rustls,
};
use std::{error::Error as _, io};

/// A permission that the server denied to our user.
///
/// The server answers nothing to what it denies: it says so apart, and the client waits in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied {
    action: Action,
    subject: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Publish,
    Subscribe,
    /// Naming a subject for the answer.
    Reply,
}

/// How nats-server begins to say what it denied, since 2.0; a quoted subject follows.
const DENIALS: [(&str, Action); 3] = [
    ("Permissions Violation for Publish to ", Action::Publish),
    (
        "Permissions Violation for Subscription to ",
        Action::Subscribe,
    ),
    (
        "Permissions Violation for Publish with Reply of ",
        Action::Reply,
    ),
];

impl Denied {
    /// What an error of the server denies; `None` when it is about something else.
    pub(super) fn read(error: &str) -> Option<Self> {
        let read = |(begin, action): &(&str, Action)| {
            let quoted = error.strip_prefix(begin)?.strip_prefix('"')?;
            let end = quoted.find("\" using queue ").or(quoted.rfind('"'))?;
            let subject = quoted[..end].to_owned();
            Some(Denied {
                action: *action,
                subject,
            })
        };
        DENIALS.iter().find_map(read)
    }

    /// Whether reading or publishing cannot go on. A consumer that is not deleted ends by itself.
    pub(super) fn matters(&self, options: &NatsOptions) -> bool {
        let deleting = format!("{}.CONSUMER.DELETE.", options.api());
        !self.subject.starts_with(&deleting)
    }

    /// Whether a message to this subject gets no acknowledgement.
    pub(super) fn concerns(&self, subject: &str) -> bool {
        self.action != Action::Publish || self.subject == subject
    }

    /// The error, with what to permit.
    pub(super) fn error(&self, options: &NatsOptions) -> Error {
        let doing = match self.action {
            Action::Publish => "publish to",
            Action::Subscribe => "subscribe to",
            Action::Reply => "ask for an answer at",
        };
        options.unsuitable(
            format!(
                "the server does not permit us to {doing} `{}`",
                self.subject
            ),
            format!(
                "permit this user to {doing} `{}`; docs/configuration.md lists what a user needs",
                self.to_permit(options)
            ),
        )
    }

    /// The subjects to permit: another name comes with each consumer and each inbox.
    fn to_permit(&self, options: &NatsOptions) -> String {
        let consumers = format!("{}.CONSUMER.", options.api());
        let stream = format!(".{}.", options.stream);
        if let Some(asked) = self.subject.strip_prefix(&consumers)
            && let Some((what, _)) = asked.split_once(&stream)
        {
            return format!("{consumers}{what}{stream}>");
        }
        match self.subject.split_once('.') {
            Some((inbox, _)) if self.action != Action::Publish => format!("{inbox}.>"),
            _ => self.subject.clone(),
        }
    }
}

/// A connection that was not made.
pub(super) fn of_connection(options: &NatsOptions, error: ConnectError) -> Error {
    let url = address::shown(&options.url);
    let credentials = [
        ConnectErrorKind::Authentication,
        ConnectErrorKind::AuthorizationViolation,
    ];
    if credentials.contains(&error.kind()) {
        return options.unsuitable(
            format!("{url} refused us: {error}"),
            "check source.user and source.password, source.token, source.nkey or source.credentials; the URL may \
             have a user and password, too".into(),
        );
    }
    if let Some(fault) = tls_fault(&error) {
        return options.unsuitable(
            format!("TLS with {url} failed: {fault}"),
            "check source.tls_ca, and source.tls_certificate and source.tls_key if the server wants to know \
             its clients"
                .into(),
        );
    }
    options.unreachable("NATS", error.into())
}

/// What TLS refused, which no second try changes.
fn tls_fault(error: &ConnectError) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(fault) = inner.or_else(|| error.downcast_ref::<rustls::Error>()) {
            return Some(fault.to_string());
        }
        cause = error.source();
    }
    None
}

/// A question to JetStream without an answer. Nothing at its subjects means that JetStream is off, or elsewhere.
pub(super) fn of_request(options: &NatsOptions, error: RequestError) -> Error {
    match error.kind() {
        RequestErrorKind::NoResponders => Error::Unanswered {
            stream: options.stream.clone(),
            api: options.api(),
        },
        _ => options.unreachable("JetStream", error.into()),
    }
}

/// A stream that was not created. The client has the answer in the kind of its error, not as its source.
pub(super) fn of_stream(options: &NatsOptions, error: CreateStreamError) -> Error {
    let doing = "creating the stream";
    match error.kind() {
        CreateStreamErrorKind::JetStream(answer) => of_answer(options, doing, &answer),
        _ => options.failed(doing, error.into()),
    }
}

/// A consumer that was not created; its answer is there as well.
pub(super) fn of_consumer(options: &NatsOptions, error: ConsumerError) -> Error {
    let doing = "creating a consumer";
    match error.kind() {
        ConsumerErrorKind::JetStream(answer) => of_answer(options, doing, &answer),
        _ => options.failed(doing, error.into()),
    }
}

/// JetStream's answer that is an error.
pub(super) fn of_answer(
    options: &NatsOptions,
    doing: &'static str,
    error: &jetstream::Error,
) -> Error {
    // A server that is busy or starts answers 500 or 503.
    let is_ours = error.code() == 400;
    let hint = remedy(error.error_code());
    let hint = hint.or(is_ours
        .then_some("look at the limits of the stream and the account, and at the server's log"));
    match hint {
        Some(hint) => options.unsuitable(format!("{doing} failed: {error}"), hint.into()),
        None => options.failed(doing, error.clone().into()),
    }
}

/// The JetStream error code behind a client's error, if there is one.
pub(super) fn code(error: &dyn std::error::Error) -> Option<ErrorCode> {
    api_error(error).map(jetstream::Error::error_code)
}

/// Whether a stream refused a message because there is no room: its own limits, or those of the account or the server.
pub(super) fn is_full(error: &dyn std::error::Error) -> bool {
    let Some(error) = api_error(error) else {
        return false;
    };
    match error.error_code() {
        // The same code stands for a disk that failed.
        ErrorCode::STREAM_STORE_FAILED => error.to_string().contains("maximum"),
        code => [
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ErrorCode::INSUFFICIENT_RESOURCES,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
            ErrorCode::MEMORY_RESOURCES_EXCEEDED,
        ]
        .contains(&code),
    }
}

/// What JetStream answered, behind a client's error, if it did.
fn api_error(error: &dyn std::error::Error) -> Option<&jetstream::Error> {
    error.source()?.downcast_ref::<jetstream::Error>()
}

/// What mends an answer of JetStream that will not change by itself.
fn remedy(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            "start nats-server with -js, and enable JetStream for this account"
        }
        ErrorCode::MAXIMUM_CONSUMERS_LIMIT => {
            "raise max_consumers of the stream and the account; a consumer of a process that was killed goes \
             after 60 s"
        }
        ErrorCode::MAXIMUM_STREAMS_LIMIT => {
            "raise max_streams of the account, or set source.stream to a stream that is there"
        }
        ErrorCode::STREAM_MAX_BYTES_REQUIRED | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => {
            "the account bounds its streams: make this one by `nats stream add` with --max-bytes and --discard new"
        }
        ErrorCode::STREAM_SUBJECT_OVERLAP => {
            "another stream takes these subjects: set source.stream to it, or source.subjects to others"
        }
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED => {
            "raise the account's JetStream limits, or those of the server"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn options() -> NatsOptions {
        NatsOptions::new("nats://h", "USAGE")
    }

    #[test]
    fn each_text_of_a_denial_names_its_subject_and_what_to_permit() {
        let asks = "permit this user to";
        let lists = "; docs/configuration.md lists what a user needs";
        for (text, denies, permit) in [
            (
                r#"Permissions Violation for Publish to "usage.a""#,
                "publish to `usage.a`",
                "publish to `usage.a`",
            ),
            (
                r#"Permissions Violation for Publish to "$JS.API.STREAM.INFO.USAGE""#,
                "publish to `$JS.API.STREAM.INFO.USAGE`",
                "publish to `$JS.API.STREAM.INFO.USAGE`",
            ),
            (
                r#"Permissions Violation for Publish to "$JS.API.CONSUMER.CREATE.USAGE.tollgate-1""#,
                "publish to `$JS.API.CONSUMER.CREATE.USAGE.tollgate-1`",
                "publish to `$JS.API.CONSUMER.CREATE.USAGE.>`",
            ),
            (
                r#"Permissions Violation for Publish to "$JS.API.CONSUMER.MSG.NEXT.USAGE.tollgate-1""#,
                "publish to `$JS.API.CONSUMER.MSG.NEXT.USAGE.tollgate-1`",
                "publish to `$JS.API.CONSUMER.MSG.NEXT.USAGE.>`",
            ),
            (
                r#"Permissions Violation for Subscription to "_INBOX.Ab1.*""#,
                "subscribe to `_INBOX.Ab1.*`",
                "subscribe to `_INBOX.>`",
            ),
            (
                r#"Permissions Violation for Subscription to "a.b" using queue "q""#,
                "subscribe to `a.b`",
                "subscribe to `a.>`",
            ),
            (
                r#"Permissions Violation for Publish with Reply of "_INBOX.Ab1.c""#,
                "ask for an answer at `_INBOX.Ab1.c`",
                "ask for an answer at `_INBOX.>`",
            ),
        ] {
            let error = Denied::read(text).unwrap().error(&options());
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert_eq!(
                error.to_string(),
                format!(
                    "stream `USAGE`: the server does not permit us to {denies}\n  hint: {asks} {permit}{lists}"
                )
            );
        }
        for other in [
            "Authorization Violation",
            "Permissions Violation",
            "Permissions Violation for Publish to nothing",
            "Maximum Connections Exceeded",
        ] {
            assert_eq!(Denied::read(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_consumer_that_cannot_be_deleted_does_not_matter() {
        let publish = |subject: &str| Denied {
            action: Action::Publish,
            subject: subject.to_owned(),
        };
        let mut hub = options();
        hub.domain = Some("hub".into());
        let deleting = publish("$JS.API.CONSUMER.DELETE.USAGE.tollgate-1");
        assert!(!deleting.matters(&options()) && deleting.matters(&hub));
        assert!(!publish("$JS.hub.API.CONSUMER.DELETE.USAGE.tollgate-1").matters(&hub));
        assert!(publish("$JS.API.CONSUMER.CREATE.USAGE.tollgate-1").matters(&options()));
    }

    #[test]
    fn an_answer_that_will_not_change_says_what_to_do() {
        let answer = |status: u64, code: u64| {
            let error = format!(r#"{{"code":{status},"err_code":{code},"description":"no"}}"#);
            let error: jetstream::Error = serde_json::from_str(&error).unwrap();
            of_answer(&options(), "asking", &error).kind()
        };
        for (status, code) in [
            (503, 10076),
            (503, 10039),
            (500, 10047),
            (500, 10028),
            (400, 10002),
            (400, 10026),
            (400, 10027),
            (400, 10065),
            (400, 10113),
            (400, 10122),
            // An invalid configuration, and what a later server may refuse.
            (400, 10052),
            (400, 99_999),
        ] {
            assert_eq!(answer(status, code), ErrorKind::Invalid, "{code}");
        }
        // Temporarily unavailable, insufficient resources, a server that shuts down.
        for (status, code) in [(503, 10008), (503, 10023), (500, 10077)] {
            assert_eq!(answer(status, code), ErrorKind::Unavailable, "{code}");
        }
    }
}
