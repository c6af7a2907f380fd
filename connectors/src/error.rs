//! Everything that can go wrong at the edges.

use crate::Sequence;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an [`Error`], from whatever library reported it.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, with what is needed to find it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source cannot be reached, or answered with a passing fault.
    #[error("could not reach {what} at {url}")]
    Unreachable {
        /// For example `NATS`.
        what: &'static str,
        /// Where; without credentials.
        url: String,
        /// Why.
        source: Cause,
    },
    /// The source is there but cannot be read exactly once as it is set up.
    #[error("stream `{stream}`: {problem}\n  hint: {hint}")]
    Unsuitable {
        /// The stream.
        stream: String,
        /// Which setting, and its value.
        problem: String,
        /// What to change.
        hint: String,
    },
    /// A server is there, and no JetStream behind it.
    #[error(
        "stream `{stream}`: nothing answers at `{api}`\n  hint: start nats-server with -js; if the stream is in \
         another JetStream domain, set source.domain; if it is in another account, source.api_prefix"
    )]
    Unanswered {
        /// The stream.
        stream: String,
        /// Where JetStream's API was asked for.
        api: String,
    },
    /// One message was not taken by the stream.
    #[error("message {number} was not published: {cause}")]
    Unpublished {
        /// Which one, in the order of publishing, from 1.
        number: u64,
        /// Why.
        #[source]
        cause: Box<Error>,
    },
    /// The stream, or the server behind it, has no room for a message.
    #[error(
        "stream `{stream}` is full, and refuses what is new\n  hint: raise its limits, or let what is metered age out \
         of it; what was refused can be published again"
    )]
    Full {
        /// The stream.
        stream: String,
        /// What the server said.
        source: Cause,
    },
    /// Sequences are missing and the source cannot say why.
    #[error("shard `{shard}`: expected sequence {}, got {}; the messages between are gone", expected.0, got.0)]
    Gap {
        /// The shard.
        shard: String,
        /// The next sequence that had to come.
        expected: Sequence,
        /// What came.
        got: Sequence,
    },
    /// The stream is no longer the one that was read: restored from an older copy, recreated, or its
    /// last messages were lost in a crash and their sequences given to others.
    #[error("shard `{shard}`: message {} is no longer the one that was read; the stream was lost or rolled back", sequence.0)]
    Rewound {
        /// The shard.
        shard: String,
        /// The last message that was read, which is gone or another.
        sequence: Sequence,
    },
    /// A passing fault of a source: retry.
    #[error("shard `{shard}`: {doing} failed")]
    Source {
        /// The shard.
        shard: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Cause,
    },
    /// An input file is not readable or not what it should be.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong, with the line if there is one.
        problem: String,
        /// Why, if a library reported it.
        source: Option<Cause>,
    },
    /// The URL or the access to an object store is not usable.
    #[error("lake {url}: {problem}")]
    Store {
        /// Where.
        url: String,
        /// What is wrong and what to do.
        problem: String,
        /// Why, if a library reported it.
        source: Option<Cause>,
    },
    /// Nothing more can be written to a local disk.
    #[error(
        "the disk is full: {path} could not be written\n  hint: make room there, or move the lake to a \
         larger disk and set its url, then start again; what was committed is safe, the rest is read \
         again from the source"
    )]
    DiskFull {
        /// The file that found no room.
        path: String,
        /// Why, as the system says it.
        source: Cause,
    },
    /// A table exists with another schema or for other definitions.
    #[error("table `{table}`: {problem}\n  hint: {hint}")]
    OtherTable {
        /// The table.
        table: String,
        /// The difference.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A newer owner has taken over.
    #[error("table `{table}`: fenced, another process owns it since version {version}")]
    Fenced {
        /// The table.
        table: String,
        /// Where in the log that was seen.
        version: i64,
    },
    /// Reading or writing a table failed; for a commit, whether it landed is not known.
    #[error("table `{table}`: {doing} failed")]
    Table {
        /// The table.
        table: String,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: Cause,
    },
    /// Data in memory does not fit the schema it is written under: a bug, or a corrupt lake.
    #[error("table `{table}`: {problem}")]
    Data {
        /// The table.
        table: String,
        /// What is wrong.
        problem: String,
    },
}

/// What the caller should do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A person must change something.
    Invalid,
    /// Retry with backoff.
    Unavailable,
    /// A newer process owns this shard: stop.
    Fenced,
    /// Stop and page someone.
    Corrupt,
}

impl Error {
    /// What went wrong as a word that stays the same whatever the message says, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unreachable { .. } => "source_unreachable",
            Error::Unsuitable { .. } => "stream_unsuitable",
            Error::Unanswered { .. } => "jetstream_unanswered",
            Error::Unpublished { .. } => "message_unpublished",
            Error::Full { .. } => "stream_full",
            Error::Gap { .. } => "messages_lost",
            Error::Rewound { .. } => "stream_rewound",
            Error::Source { .. } => "source_failed",
            Error::File { .. } => "file_unreadable",
            Error::Store { .. } => "store_unusable",
            Error::DiskFull { .. } => "disk_full",
            Error::OtherTable { .. } => "table_differs",
            Error::Fenced { .. } => "table_fenced",
            Error::Table { .. } => "table_failed",
            Error::Data { .. } => "table_corrupt",
        }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Unreachable { .. }
            | Error::Unanswered { .. }
            | Error::Full { .. }
            | Error::Source { .. }
            | Error::Table { .. } => ErrorKind::Unavailable,
            Error::Unpublished { cause, .. } => cause.kind(),
            Error::Unsuitable { .. }
            | Error::File { .. }
            | Error::Store { .. }
            | Error::DiskFull { .. }
            | Error::OtherTable { .. } => ErrorKind::Invalid,
            Error::Fenced { .. } => ErrorKind::Fenced,
            Error::Gap { .. } | Error::Rewound { .. } | Error::Data { .. } => ErrorKind::Corrupt,
        }
    }
}
