//! The stream: its settings, what it holds, what was deleted.

use super::{NatsOptions, connect};
use crate::{
    Anchor, Bounds, Message, Result, Sequence,
    error::{Cause, Error},
};
use async_nats::jetstream::{
    self, ErrorCode,
    context::{GetStreamErrorKind, RequestErrorKind},
    stream::{
        Config, DiscardPolicy, Info, RawMessageErrorKind, RetentionPolicy, State, StorageType,
    },
};

/// What a stream holds, with every sequence deleted from within it.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) bounds: Bounds,
    /// Rising.
    pub(super) deleted: Vec<u64>,
}

/// The stream, checked; created first when it is missing and `create` is set.
///
/// # Errors
/// [`Error::Unsuitable`] names the setting that makes exact reading impossible, or says that the
/// stream is missing; [`Error::Unreachable`] when nobody answers.
pub async fn open(context: &jetstream::Context, options: &NatsOptions) -> Result<Info> {
    let info = match context.get_stream(&options.stream).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                create(context, options).await?
            }
            GetStreamErrorKind::JetStream(e) => return Err(refused(options, &e)),
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                return Err(unsuitable(
                    options,
                    "this is not a stream's name".into(),
                    "a name has no spaces, dots, `*`, `>`, and is not empty".into(),
                ));
            }
            GetStreamErrorKind::Request => {
                return Err(connect::unreachable(
                    options,
                    "JetStream",
                    no_answer(error.into()),
                ));
            }
        },
    };
    check(options, &info.config)?;
    Ok(info)
}

/// The first and last sequences.
pub(super) fn bounds(state: &State) -> Bounds {
    let last = state.last_sequence;
    let first = if state.messages == 0 {
        last.saturating_add(1)
    } else {
        state.first_sequence
    };
    Bounds {
        first: Sequence(first),
        last: Sequence(last),
    }
}

/// What the stream holds, and what was deleted from it.
pub(super) async fn state(
    context: &jetstream::Context,
    options: &NatsOptions,
) -> Result<StreamState> {
    let stream = context
        .get_stream_no_info(&options.stream)
        .await
        .map_err(|e| failed(options, "finding the stream", e.into()))?;
    let info = stream
        .info_builder()
        .with_deleted(true)
        .fetch()
        .await
        .map_err(|e| match code(&e) {
            Some(ErrorCode::STREAM_NOT_FOUND) => missing(options),
            _ => failed(options, "asking what was deleted", e.into()),
        })?
        .info;
    let mut deleted = info.state.deleted.clone().unwrap_or_default();
    deleted.sort_unstable();
    Ok(StreamState {
        bounds: bounds(&info.state),
        deleted,
    })
}

/// The anchor of a stored message, if it is still there.
pub(super) async fn anchor(
    context: &jetstream::Context,
    options: &NatsOptions,
    sequence: Sequence,
) -> Result<Option<Anchor>> {
    if sequence.0 == 0 {
        return Ok(None);
    }
    let doing = "reading an anchor";
    let stream = context
        .get_stream_no_info(&options.stream)
        .await
        .map_err(|e| failed(options, doing, e.into()))?;
    let stored = match stream.get_raw_message(sequence.0).await {
        Ok(stored) => stored,
        Err(e) if e.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(e) => return Err(failed(options, doing, e.into())),
    };
    let ingest_time_us = micros(stored.time.unix_timestamp_nanos())
        .map_err(|cause| failed(options, doing, cause))?;
    Ok(Some(Anchor::of(&Message {
        sequence,
        ingest_time_us,
        headers: Vec::new(),
        payload: stored.payload,
    })))
}

/// Whole microseconds; the rest is cut off towards the past, the same way everywhere.
pub(super) fn micros(nanos: i128) -> Result<i64, Cause> {
    Ok(i64::try_from(nanos.div_euclid(1_000))?)
}

/// The JetStream error code behind a client's error, if there is one.
pub(super) fn code(error: &dyn std::error::Error) -> Option<ErrorCode> {
    let cause = error.source()?.downcast_ref::<jetstream::Error>()?;
    Some(cause.error_code())
}

pub(super) fn failed(options: &NatsOptions, doing: &'static str, source: Cause) -> Error {
    Error::Source {
        shard: options.stream.clone(),
        doing,
        source,
    }
}

pub(super) fn unsuitable(options: &NatsOptions, problem: String, hint: String) -> Error {
    Error::Unsuitable {
        stream: options.stream.clone(),
        problem,
        hint,
    }
}

/// Refuses what would make sequences go away by design.
fn check(options: &NatsOptions, config: &Config) -> Result<()> {
    if config.retention != RetentionPolicy::Limits {
        return Err(unsuitable(
            options,
            format!("retention is {:?}, it must be Limits", config.retention),
            "retention cannot be changed from or to work-queue: make a new stream with limits \
             retention, and let the old one feed it as a source"
                .into(),
        ));
    }
    if config.storage != StorageType::File && !options.allow_memory_storage {
        return Err(unsuitable(
            options,
            "storage is Memory, it must be File: a restart would lose events".into(),
            "make a new stream with file storage".into(),
        ));
    }
    Ok(())
}

async fn create(context: &jetstream::Context, options: &NatsOptions) -> Result<Info> {
    if !options.create {
        return Err(missing(options));
    }
    let config = Config {
        name: options.stream.clone(),
        subjects: options.subjects.clone(),
        retention: RetentionPolicy::Limits,
        storage: if options.allow_memory_storage {
            StorageType::Memory
        } else {
            StorageType::File
        },
        // Full means refused and seen by the publisher, rather than forgotten and seen by nobody.
        discard: DiscardPolicy::New,
        allow_direct: true,
        num_replicas: 1,
        ..Config::default()
    };
    let created = context.create_stream(config).await;
    let stream = created.map_err(|e| failed(options, "creating the stream", e.into()))?;
    Ok(stream.cached_info().clone())
}

fn missing(options: &NatsOptions) -> Error {
    let subjects = match options.subjects.join(",") {
        none if none.is_empty() => "SUBJECTS".into(),
        some => some,
    };
    unsuitable(
        options,
        "there is no such stream".into(),
        format!(
            "set `create = true`, or: nats stream add {} --subjects '{subjects}' --storage file \
             --retention limits --discard new --defaults",
            options.stream
        ),
    )
}

fn refused(options: &NatsOptions, error: &jetstream::Error) -> Error {
    let off = [
        ErrorCode::JETSTREAM_NOT_ENABLED,
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
    ];
    if off.contains(&error.error_code()) {
        return unsuitable(
            options,
            error.to_string(),
            "start nats-server with -js, and enable JetStream for this account".into(),
        );
    }
    failed(options, "finding the stream", error.clone().into())
}

/// Nobody answering on the JetStream subjects usually means that JetStream is off.
fn no_answer(error: Cause) -> Cause {
    let silent = error
        .source()
        .and_then(|e| e.downcast_ref::<jetstream::context::RequestError>())
        .is_some_and(|e| e.kind() == RequestErrorKind::NoResponders);
    if silent {
        "no responders: is JetStream on (nats-server -js)?".into()
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_epoch_is_cut_towards_the_past() {
        assert_eq!(micros(1_999).unwrap(), 1);
        assert_eq!(micros(-1).unwrap(), -1);
        assert_eq!(micros(-1_000).unwrap(), -1);
        assert!(micros(i128::MAX).is_err());
    }

    #[test]
    fn only_limits_retention_on_disk_is_accepted() {
        let options = NatsOptions::new("nats://localhost", "USAGE");
        let good = Config::default();
        assert!(check(&options, &good).is_ok());

        let queue = Config {
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        };
        let message = check(&options, &queue).unwrap_err().to_string();
        assert!(message.contains("retention is WorkQueue"), "{message}");

        let memory = Config {
            storage: StorageType::Memory,
            ..Config::default()
        };
        let message = check(&options, &memory).unwrap_err().to_string();
        assert!(message.contains("storage is Memory"), "{message}");
        let allowed = NatsOptions {
            allow_memory_storage: true,
            ..options
        };
        assert!(check(&allowed, &memory).is_ok());
    }

    #[test]
    fn a_missing_stream_is_answered_with_the_command_that_makes_it() {
        let mut options = NatsOptions::new("nats://localhost", "USAGE");
        options.subjects = vec!["usage.>".into()];
        assert_eq!(
            missing(&options).to_string(),
            "stream `USAGE`: there is no such stream\n  hint: set `create = true`, or: nats stream \
             add USAGE --subjects 'usage.>' --storage file --retention limits --discard new \
             --defaults"
        );
    }
}
