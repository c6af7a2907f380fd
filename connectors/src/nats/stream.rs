//! The stream: its settings, what it holds, what was deleted.

use super::{
    NatsOptions,
    connect::Link,
    refusal,
    risk::{self, Finding},
    stored,
};
use crate::{Anchor, Bounds, Result, Sequence, error::Error};
use async_nats::{
    HeaderMap, Request,
    header::NATS_EXPECTED_STREAM,
    jetstream::{
        self, ErrorCode,
        response::Response,
        stream::{Config, DiscardPolicy, Info, RetentionPolicy, State, StorageType},
    },
};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// What a stream holds, with every sequence deleted from within it.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) bounds: Bounds,
    /// Rising.
    pub(super) deleted: Vec<u64>,
}

/// A stream that may be read.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) bounds: Bounds,
    /// The first sequence that it was created with.
    pub(super) origin: Sequence,
    /// What could be safer: risks that were accepted, and what loses nothing by itself.
    pub(super) findings: Vec<Finding>,
}

/// A stream as the server describes it.
#[derive(Debug, Deserialize)]
struct Described {
    #[serde(flatten)]
    info: Info,
    /// The server's clock when it answered; servers before 2.10 do not say.
    ts: Option<String>,
}

/// The stream, checked; created first when it is missing and `create` is set.
///
/// # Errors
/// [`Error::Unsuitable`] names the settings that can lose events, or says that the stream is missing;
/// [`Error::Unreachable`] when no server answers.
pub(super) async fn open(link: &Link) -> Result<Opened> {
    let asked = Instant::now();
    let described = match describe(link).await? {
        Some(described) => described,
        None => {
            create(link).await?;
            let described = describe(link).await?;
            described.ok_or_else(|| missing(&link.options))?
        }
    };
    let findings = check(&link.options, &described.info.config)?;
    Ok(Opened {
        bounds: Bounds {
            asked_us: asked_us(described.ts.as_deref(), asked.elapsed()),
            ..bounds(&described.info.state)
        },
        origin: Sequence(described.info.config.first_sequence.unwrap_or(1).max(1)),
        findings,
    })
}

/// What the server says of the stream; `None` when there is none of this name.
async fn describe(link: &Link) -> Result<Option<Described>> {
    let options = &link.options;
    if link
        .context
        .get_stream_no_info(&options.stream)
        .await
        .is_err()
    {
        return Err(options.unsuitable(
            "this is not a stream's name".into(),
            "a name has no spaces, dots, `*`, `>`, and is not empty".into(),
        ));
    }
    let subject = format!("STREAM.INFO.{}", options.stream);
    let answer: Response<Described> = link.request(subject, &()).await?;
    match answer {
        Response::Ok(described) => Ok(Some(described)),
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
        Response::Err { error } => Err(refusal::of_answer(options, "finding the stream", &error)),
    }
}

/// A time on the server's clock, in microseconds, before which everything was stored that its answer
/// does not show. The server looks at its clock last, so what the whole request took is taken off.
fn asked_us(ts: Option<&str>, took: Duration) -> Option<i64> {
    let answered: jiff::Timestamp = ts?.parse().ok()?;
    let took = i64::try_from(took.as_micros()).ok()?.checked_add(1)?;
    answered.as_microsecond().checked_sub(took)
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
        asked_us: None,
    }
}

/// What the stream holds, and what was deleted from it.
pub(super) async fn state(link: &Link) -> Result<StreamState> {
    let options = &link.options;
    let stream = link
        .context
        .get_stream_no_info(&options.stream)
        .await
        .map_err(|e| options.failed("finding the stream", e.into()))?;
    let asked = stream.info_builder().with_deleted(true).fetch();
    let info = link
        .ask(asked)
        .await?
        .map_err(|e| match refusal::code(&e) {
            Some(ErrorCode::STREAM_NOT_FOUND) => missing(options),
            _ => options.failed("asking what was deleted", e.into()),
        })?;
    let state = &info.info.state;
    let mut deleted = state.deleted.clone().unwrap_or_default();
    deleted.sort_unstable();
    Ok(StreamState {
        bounds: bounds(state),
        deleted,
    })
}

/// The anchor of a stored message, if it is still there.
pub(super) async fn anchor(link: &Link, sequence: Sequence) -> Result<Option<Anchor>> {
    if sequence.0 == 0 {
        return Ok(None);
    }
    let stored = stored::message(link, sequence).await?;
    Ok(stored.as_ref().map(Anchor::of))
}

/// Refuses what can lose events before they are read; returns what else there is to say.
fn check(options: &NatsOptions, config: &Config) -> Result<Vec<Finding>> {
    let how = match config.retention {
        RetentionPolicy::Limits => None,
        RetentionPolicy::Interest => Some(format!(
            "nats stream edit {} --retention limits (nats-server 2.10 or later)",
            options.stream
        )),
        RetentionPolicy::WorkQueue => Some(
            "this cannot be edited: make a new stream with limits retention, and let the old one \
             feed it as a source"
                .into(),
        ),
    };
    if let Some(how) = how {
        let problem = format!("retention is {:?}, it must be Limits", config.retention);
        return Err(options.unsuitable(problem, how));
    }
    let findings = risk::find(config, options.max_age_min);
    let is_refused = |found: &&Finding| {
        found
            .risk
            .is_some_and(|risk| !options.accept.contains(&risk))
    };
    let refused: Vec<&Finding> = findings.iter().filter(is_refused).collect();
    if refused.is_empty() {
        return Ok(findings);
    }
    let problems: Vec<&str> = refused.iter().map(|found| found.problem.as_str()).collect();
    let names = refused.iter().filter_map(|found| found.risk);
    let names = options.accept.iter().copied().chain(names);
    let names: Vec<String> = names.map(|risk| format!("\"{risk}\"")).collect();
    let hint = format!(
        "{}; or, to run the risk, accept = [{}] in [source]",
        risk::advice(&options.stream, &refused),
        names.join(", ")
    );
    Err(options.unsuitable(problems.join("; "), hint))
}

/// The stream that takes a subject, in whatever domain or account it is; `None` when none answers.
///
/// The question is a message that expects to be stored in a stream of no possible name, so that each stream
/// refuses it and says its own.
///
/// # Errors
/// The server does not permit the question.
pub(super) async fn taker(link: &Link, subject: &str, wait: Duration) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Refused {
        stream: Option<String>,
        error: jetstream::Error,
    }
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_STREAM, "no stream: asked by tollgate");
    let request = Request::new().headers(headers).timeout(Some(wait));
    let asked = link.client.send_request(subject.to_owned(), request);
    let Ok(answer) = link.ask(asked).await? else {
        return Ok(None);
    };
    let refused = serde_json::from_slice::<Refused>(&answer.payload).ok();
    let of_stream =
        refused.filter(|refused| refused.error.error_code() == ErrorCode::STREAM_NOT_MATCH);
    Ok(of_stream.and_then(|refused| refused.stream))
}

/// Refuses to make a second stream beside one that has these subjects elsewhere.
async fn check_alone(link: &Link) -> Result<()> {
    let options = &link.options;
    for pattern in &options.subjects {
        let tokens = pattern.split('.').map(|token| match token {
            "*" | ">" => "tollgate-asks",
            token => token,
        });
        let subject = tokens.collect::<Vec<_>>().join(".");
        let wait = options.timeout.min(Duration::from_secs(2));
        if let Some(taker) = taker(link, &subject, wait).await? {
            return Err(options.unsuitable(
                format!(
                    "it is not at `{}`, and the stream `{taker}` takes `{pattern}` already",
                    options.api()
                ),
                format!(
                    "to read `{taker}`, set source.stream to it, and source.domain or source.api_prefix to where \
                     it is; for a stream of its own give other source.subjects"
                ),
            ));
        }
    }
    Ok(())
}

async fn create(link: &Link) -> Result<()> {
    let options = &link.options;
    if !options.create {
        return Err(missing(options));
    }
    check_alone(link).await?;
    let config = Config {
        name: options.stream.clone(),
        subjects: options.subjects.clone(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // Full means refused and seen by the publisher, rather than forgotten unseen.
        discard: DiscardPolicy::New,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        num_replicas: 1,
        ..Config::default()
    };
    let created = link.ask(link.context.create_stream(config)).await?;
    created.map_err(|e| refusal::of_stream(options, e))?;
    Ok(())
}

fn missing(options: &NatsOptions) -> Error {
    let subjects = match options.subjects.join(",") {
        none if none.is_empty() => "SUBJECTS".into(),
        some => some,
    };
    options.unsuitable(
        "there is no such stream".into(),
        format!(
            "set `create = true`, or: nats stream add {} --subjects '{subjects}' --storage file \
             --retention limits --discard new --deny-delete --deny-purge --defaults",
            options.stream
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::Risk;

    #[test]
    fn only_limits_retention_is_accepted() {
        let options = NatsOptions::new("nats://localhost", "USAGE");
        let config = |retention| Config {
            retention,
            ..Config::default()
        };
        assert!(check(&options, &config(RetentionPolicy::Limits)).is_ok());
        for (other, says) in [
            (RetentionPolicy::WorkQueue, "retention is WorkQueue"),
            (RetentionPolicy::Interest, "--retention limits"),
        ] {
            let message = check(&options, &config(other)).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn a_risk_is_refused_by_all_its_names_until_it_is_accepted() {
        let mut options = NatsOptions::new("nats://localhost", "USAGE");
        let config = Config {
            max_bytes: 1_000,
            allow_rollup: true,
            ..Config::default()
        };
        let message = check(&options, &config).unwrap_err().to_string();
        for says in [
            "discard is old with max_bytes 1000",
            "; allow_rollup_hdrs is true",
            "nats stream edit USAGE --discard new --no-allow-rollup",
            r#"to run the risk, accept = ["discard_old", "rollup"] in [source]"#,
        ] {
            assert!(message.contains(says), "{message}");
        }
        options.accept = vec![Risk::Rollup];
        let message = check(&options, &config).unwrap_err().to_string();
        assert!(
            message.ends_with(r#"accept = ["rollup", "discard_old"] in [source]"#),
            "{message}"
        );
        options.accept.push(Risk::DiscardOld);
        let findings = check(&options, &config).unwrap();
        let risks: Vec<_> = findings.iter().filter_map(|found| found.risk).collect();
        assert_eq!(risks, [Risk::DiscardOld, Risk::Rollup]);
    }

    #[test]
    fn the_time_of_an_answer_is_before_the_request_was_seen() {
        let took = Duration::from_micros(300);
        let asked = asked_us(Some("2026-10-01T00:00:00.000500999Z"), took);
        // 2026-10-01 is 1,790,812,800 s; 500 µs − 300 µs, and one for what was cut off.
        assert_eq!(asked, Some(1_790_812_800_000_199));
        assert_eq!(asked_us(None, took), None);
        assert_eq!(asked_us(Some("soon"), took), None);
    }

    #[test]
    fn a_missing_stream_is_answered_with_the_command_that_makes_it() {
        let mut options = NatsOptions::new("nats://localhost", "USAGE");
        options.subjects = vec!["usage.>".into()];
        assert_eq!(
            missing(&options).to_string(),
            "stream `USAGE`: there is no such stream\n  hint: set `create = true`, or: nats stream \
             add USAGE --subjects 'usage.>' --storage file --retention limits --discard new \
             --deny-delete --deny-purge --defaults"
        );
    }
}
