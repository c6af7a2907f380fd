//! Publishing with every acknowledgement awaited.

use super::{NatsOptions, connect::Link, refusal, stream};
use crate::{
    Result,
    error::{Cause, Error},
};
use async_nats::{
    HeaderMap,
    connection::State as Connection,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, ErrorCode,
        context::{ContextBuilder, PublishAckFuture, PublishError, PublishErrorKind},
        message::PublishMessage,
        publish::PublishAck,
    },
};
use bytes::Bytes;
use std::{
    collections::{HashSet, VecDeque},
    fmt,
    future::IntoFuture,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// Messages sent but not yet acknowledged. A server refuses floods (error 10167), and more than some
/// thousands gains no speed.
const WINDOW: usize = 2_000;
/// How often one message is sent before it is an error.
const ATTEMPTS_MAX: u32 = 6;
/// So many subjects are remembered; beyond it they are asked for again.
const CHECKED_MAX: usize = 10_000;

/// Publishes to one stream, a window of messages at a time, and sends again what was not acknowledged.
///
/// A message keeps its `Nats-Msg-Id` when it is sent again, so the stream stores it once if the first
/// acknowledgement was merely lost. That memory is short (two minutes by default): it spares repeats
/// and is no guarantee, which the event's own id gives.
pub struct Publisher {
    link: Arc<Link>,
    /// JetStream with a window for acknowledgements.
    context: jetstream::Context,
    /// Makes ids unique to this publisher.
    id_prefix: Option<String>,
    sent: u64,
    counts: Published,
    in_flight: VecDeque<(Outgoing, InFlight)>,
    /// Subjects that no other stream takes; all publishers over one connection know them.
    checked: Arc<Mutex<HashSet<String>>>,
}

/// What became of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Messages the stream has acknowledged, repeats included.
    pub acknowledged: u64,
    /// Of these, messages the stream knew already by their `Nats-Msg-Id`.
    pub duplicates: u64,
    /// How many times a message had to be sent again.
    pub retries: u64,
}

struct Outgoing {
    number: u64,
    subject: String,
    headers: Option<HeaderMap>,
    payload: Bytes,
}

/// An acknowledgement that is due.
struct InFlight {
    ack: PublishAckFuture,
    /// Counted from the sending: the client's own clock starts when an acknowledgement is awaited, so
    /// a window of lost ones would take the timeout once each.
    deadline: Instant,
}

/// Why a message was not acknowledged.
enum Refusal {
    /// Nothing came in time.
    Silence,
    /// The server does not permit the message, or its acknowledgement.
    Denied(Error),
    /// The client or the server said no.
    Error(PublishError),
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("options", &self.link.options)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects and checks that the stream is there, or creates it if asked to.
    ///
    /// # Errors
    /// As [`connect()`](super::connect()); [`Error::Unsuitable`] when the stream is missing, or its
    /// settings can lose events before they are read.
    pub async fn connect(options: NatsOptions) -> Result<Self> {
        let link = Link::open(options).await?;
        stream::open(&link).await?;
        let context = ContextBuilder::new()
            .timeout(link.options.timeout)
            .api_prefix(link.options.api())
            // Above our own window, or publishing would wait for acknowledgements we hold ourselves.
            .max_ack_inflight(WINDOW * 2)
            .build(link.client.clone());
        Ok(Publisher {
            id_prefix: Some(id_prefix(&link)),
            link: Arc::new(link),
            context,
            sent: 0,
            counts: Published::default(),
            in_flight: VecDeque::with_capacity(WINDOW),
            checked: Arc::default(),
        })
    }

    /// Another publisher over the same connection, with messages and acknowledgements of its own.
    ///
    /// All of one connection together hold twice a window of acknowledgements. One that has more to send waits for the others,
    /// so their callers bound how much each sends before it flushes.
    #[must_use]
    pub fn another(&self) -> Self {
        Publisher {
            id_prefix: self.id_prefix.as_ref().map(|_| id_prefix(&self.link)),
            link: Arc::clone(&self.link),
            context: self.context.clone(),
            sent: 0,
            counts: Published::default(),
            in_flight: VecDeque::new(),
            checked: Arc::clone(&self.checked),
        }
    }

    /// Whether the server can be reached now, as far as the connection knows. The connection repairs itself.
    pub fn is_connected(&self) -> bool {
        self.link.client.connection_state() == Connection::Connected
    }

    /// Sends no `Nats-Msg-Id`: less work for everyone, but what is sent again may be stored twice.
    #[must_use]
    pub fn without_ids(mut self) -> Self {
        self.id_prefix = None;
        self
    }

    /// Sends one message; waits only while the window is full. A `Nats-Msg-Id` among `headers` is
    /// used as it is, else one is added.
    ///
    /// # Errors
    /// For this message or an earlier one that stayed unacknowledged: [`Error::Unsuitable`] when it is
    /// too large or no stream takes its subject, [`Error::Source`] otherwise.
    pub async fn publish(
        &mut self,
        subject: &str,
        headers: &[(String, String)],
        payload: Bytes,
    ) -> Result<()> {
        while self.in_flight.len() >= WINDOW {
            self.settle_oldest().await?;
        }
        self.check_taker(subject).await?;
        self.sent += 1;
        let outgoing = Outgoing {
            number: self.sent,
            subject: subject.to_owned(),
            headers: self.headers(headers)?,
            payload,
        };
        let sent = self.send(&outgoing).await;
        let in_flight = sent.map_err(|refusal| self.refused(&outgoing, refusal))?;
        self.in_flight.push_back((outgoing, in_flight));
        Ok(())
    }

    /// What became of the messages so far.
    pub fn counts(&self) -> Published {
        self.counts
    }

    /// Waits for every acknowledgement that is due after an error; returns the numbers of the messages that
    /// got none.
    pub async fn settle(&mut self) -> Vec<u64> {
        let mut failed = Vec::new();
        while let Some(number) = self.in_flight.front().map(|(outgoing, _)| outgoing.number) {
            if self.settle_oldest().await.is_err() {
                failed.push(number);
            }
        }
        failed
    }

    /// Waits for every acknowledgement.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn finish(mut self) -> Result<Published> {
        self.flush().await
    }

    /// Waits for every acknowledgement, and can publish more.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn flush(&mut self) -> Result<Published> {
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(self.counts)
    }

    async fn settle_oldest(&mut self) -> Result<()> {
        let Some((outgoing, in_flight)) = self.in_flight.pop_front() else {
            return Ok(());
        };
        let ack = match self.settled(&outgoing, in_flight).await {
            Ok(ack) => ack,
            Err(refusal) => self.send_again(&outgoing, refusal).await?,
        };
        if ack.stream != self.link.options.stream {
            let cause = self.other_stream(&outgoing.subject, &ack.stream);
            return Err(unpublished(&outgoing, cause));
        }
        self.counts.acknowledged += 1;
        self.counts.duplicates += u64::from(ack.duplicate);
        Ok(())
    }

    /// Waits for one acknowledgement.
    async fn settled(
        &self,
        outgoing: &Outgoing,
        in_flight: InFlight,
    ) -> Result<PublishAck, Refusal> {
        let settled = self.link.ask_for(&outgoing.subject, in_flight.settle());
        settled
            .await
            .unwrap_or_else(|denied| Err(Refusal::Denied(denied)))
    }

    /// Sends one message until it is acknowledged, waiting longer each time.
    async fn send_again(&mut self, outgoing: &Outgoing, refusal: Refusal) -> Result<PublishAck> {
        let mut refusal = refusal;
        for attempt in 1..ATTEMPTS_MAX {
            if !refusal.is_passing() {
                break;
            }
            debug!(subject = outgoing.subject, attempt, "message sent again");
            refusal.pause(attempt).await;
            self.counts.retries += 1;
            refusal = match self.send(outgoing).await {
                Err(refusal) => refusal,
                Ok(in_flight) => match self.settled(outgoing, in_flight).await {
                    Ok(ack) => return Ok(ack),
                    Err(refusal) => refusal,
                },
            };
        }
        Err(self.refused(outgoing, refusal))
    }

    /// Refuses a subject that another stream takes, before anything is sent to it. What cannot be found out
    /// is left to the acknowledgement.
    async fn check_taker(&mut self, subject: &str) -> Result<()> {
        let is_known = |checked: &HashSet<String>| checked.contains(subject);
        if is_known(&self.checked.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let options = &self.link.options;
        let problem = match stream::taker(&self.link, subject, options.timeout).await {
            Ok(Some(taker)) if taker != options.stream => Some(self.other_stream(subject, &taker)),
            Ok(_) => None,
            Err(denied) => Some(denied),
        };
        if let Some(cause) = problem {
            return Err(Error::Unpublished {
                number: self.sent + 1,
                cause: cause.into(),
            });
        }
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= CHECKED_MAX {
            checked.clear();
        }
        checked.insert(subject.to_owned());
        Ok(())
    }

    fn other_stream(&self, subject: &str, taker: &str) -> Error {
        self.link.options.unsuitable(
            format!("the subject `{subject}` belongs to the stream `{taker}`"),
            format!(
                "set source.subjects to those of `{}`, or source.stream to `{taker}`",
                self.link.options.stream
            ),
        )
    }

    async fn send(&self, outgoing: &Outgoing) -> Result<InFlight, Refusal> {
        let mut message = PublishMessage::build().payload(outgoing.payload.clone());
        if let Some(headers) = &outgoing.headers {
            message = message.headers(headers.clone());
        }
        let deadline = Instant::now() + self.link.options.timeout;
        let sent = self.context.send_publish(outgoing.subject.clone(), message);
        let ack = sent.await.map_err(Refusal::Error)?;
        Ok(InFlight { ack, deadline })
    }

    fn headers(&self, given: &[(String, String)]) -> Result<Option<HeaderMap>> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let (name, value) = header(name, value)
                .map_err(|cause| self.link.options.failed("reading a header", cause))?;
            headers.append(name, value);
        }
        if let Some(prefix) = &self.id_prefix
            && headers.get(NATS_MESSAGE_ID).is_none()
        {
            headers.insert(NATS_MESSAGE_ID, format!("{prefix}-{}", self.sent));
        }
        Ok((!headers.is_empty()).then_some(headers))
    }

    fn refused(&self, outgoing: &Outgoing, refusal: Refusal) -> Error {
        unpublished(outgoing, self.cause(outgoing, refusal))
    }

    fn cause(&self, outgoing: &Outgoing, refusal: Refusal) -> Error {
        let options = &self.link.options;
        let error = match refusal {
            Refusal::Error(error) => error,
            Refusal::Denied(denied) => return denied,
            Refusal::Silence => {
                let why = "no acknowledgement came in time".into();
                return options.failed("publishing", why);
            }
        };
        let bytes = outgoing.payload.len();
        let (problem, hint) = match (error.kind(), refusal::code(&error)) {
            (PublishErrorKind::StreamNotFound, _) => (
                format!("no stream takes the subject `{}`", outgoing.subject),
                "add the subject to the stream, or create the stream first",
            ),
            (PublishErrorKind::MaxPayloadExceeded, _) => (
                format!("a message of {bytes} bytes is too large"),
                "put fewer events into a message, or raise max_payload of the server",
            ),
            (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => (
                format!("a message of {bytes} bytes is too large"),
                "put fewer events into a message, or raise max_msg_size of the stream",
            ),
            _ if refusal::is_full(&error) => {
                return Error::Full {
                    stream: options.stream.clone(),
                    source: error.into(),
                };
            }
            _ => return options.failed("publishing", error.into()),
        };
        options.unsuitable(problem, hint.into())
    }
}

/// What makes the ids of one publisher its own.
fn id_prefix(link: &Link) -> String {
    link.client.new_inbox().replace("_INBOX.", "")
}

fn unpublished(outgoing: &Outgoing, cause: Error) -> Error {
    Error::Unpublished {
        number: outgoing.number,
        cause: cause.into(),
    }
}

impl InFlight {
    async fn settle(self) -> Result<PublishAck, Refusal> {
        // An acknowledgement that is already here is taken even after the deadline.
        match timeout_at(self.deadline, self.ack.into_future()).await {
            Ok(acknowledged) => acknowledged.map_err(Refusal::Error),
            Err(_) => Err(Refusal::Silence),
        }
    }
}

impl Refusal {
    /// Whether the same message may be taken later. Without a responder the server may only be
    /// starting.
    fn is_passing(&self) -> bool {
        let error = match self {
            Refusal::Silence => return true,
            Refusal::Denied(_) => return false,
            Refusal::Error(error) => error,
        };
        match error.kind() {
            PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::StreamNotFound => true,
            PublishErrorKind::Other => {
                refusal::code(error) == Some(ErrorCode::STREAM_TOO_MANY_REQUESTS)
            }
            PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence
            | PublishErrorKind::MaxPayloadExceeded => false,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "spares a busy server; nothing that is stored depends on it"
    )]
    async fn pause(&self, attempt: u32) {
        // After silence we have waited long enough already.
        if matches!(self, Refusal::Error(_)) {
            tokio::time::sleep(Duration::from_millis(50) * 2u32.pow(attempt)).await;
        }
    }
}

fn header(
    name: &str,
    value: &str,
) -> Result<(async_nats::HeaderName, async_nats::HeaderValue), Cause> {
    Ok((name.parse()?, value.parse()?))
}
