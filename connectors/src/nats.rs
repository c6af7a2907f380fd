//! A [`Source`] over a JetStream pull consumer, and what goes with it.
//!
//! ```text
//!  connect ──▶ stream::open (risk::find: its settings) Publisher ──▶ JetStream ──▶ NatsSource
//!                  │                                                    │
//!                  ▼                                                    ▼
//!  subscription: ephemeral, AckNone, from `position + 1` ──▶ contiguity::judge ──▶ messages, holes
//! ```
//!
//! Nothing on the server remembers how far we have read: the position belongs to the caller that commits it,
//! so a consumer is thrown away and made again whenever something is odd. That is always safe,
//! because the new one starts right after the last message that was returned.
//!
//! The message that comes next is fetched by itself before a consumer is made again (`stored`), for it may
//! be what ended the one before: the client cannot read every header block that a stream can hold. Such a
//! message is returned as [`Unread`](crate::Unread).

mod address;
mod connect;
mod contiguity;
mod credentials;
mod options;
mod publisher;
mod refusal;
mod risk;
pub mod server;
mod stored;
mod stream;
mod subscription;

pub use connect::connect;
pub use credentials::{Auth, Tls};
pub use options::NatsOptions;
pub use publisher::{Published, Publisher};
pub use risk::Risk;

use crate::{Anchor, Bounds, Message, ReadLimit, Result, Sequence, Source, error::Error};
use async_nats::{connection::State as Connection, jetstream::consumer::pull::MessagesError};
use async_trait::async_trait;
use connect::Link;
use contiguity::{Explained, Verdict};
use risk::Finding;
use std::{fmt, ops::RangeInclusive, time::Duration};
use subscription::{Arrived, Delivered, Subscription};
use tokio::{
    runtime::Handle,
    time::{Instant, interval, timeout_at},
};
use tracing::{debug, info, warn};

/// Look for a deleted tail after this much silence, when the stream is known to hold more.
const QUIET_TAIL: Duration = Duration::from_millis(200);
/// How long a read that has a message waits for more.
const LINGER: Duration = Duration::from_millis(2);
/// While waiting, look this often whether the connection was lost or made again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Ask the server whether we missed something after this much silence, in any case.
const QUIET_LONG: Duration = Duration::from_secs(5);
/// So many broken subscriptions in a row, with no message between, are reported as an error.
const FAULTS_MAX: u32 = 3;

/// One JetStream stream, read whole and in order.
pub struct NatsSource {
    link: Link,
    /// The last sequence returned, or explained as a hole.
    position: Sequence,
    /// The last message returned, to recognise the stream when we subscribe again.
    anchor: Option<(Sequence, Anchor)>,
    /// The stream's last sequence when we last asked.
    end: Sequence,
    /// About the stream's last sequence, as the messages that came say: deleted ones are not counted.
    told_end: Sequence,
    subscription: Option<Subscription>,
    /// A subscription ended without being asked to, perhaps by the message that comes next.
    is_cut_off: bool,
    /// The consumer of the last subscription.
    consumer: Option<String>,
    /// Received and contiguous, not yet returned. It lives here so that a dropped read loses nothing.
    ready: Vec<Message>,
    /// Received, but behind a hole that is not yet explained.
    ahead: Option<Message>,
    holes: Vec<RangeInclusive<Sequence>>,
    fault: Option<MessagesError>,
    faults: u32,
    /// What was already said of the stream's settings.
    said: Vec<String>,
    /// The first sequence that the stream was created with.
    origin: Sequence,
}

impl fmt::Debug for NatsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSource")
            .field("options", &self.link.options)
            .field("position", &self.position)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Drop for NatsSource {
    /// Deletes the consumer, which counts against limits until the server forgets it: the next source, made after a
    /// passing fault, may find no room.
    fn drop(&mut self) {
        let (Some(consumer), Ok(runtime)) = (self.consumer.take(), Handle::try_current()) else {
            return;
        };
        let (context, stream) = (self.link.context.clone(), self.link.options.stream.clone());
        runtime.spawn(async move {
            let _ = context
                .delete_consumer_from_stream(&consumer, &stream)
                .await;
        });
    }
}

impl NatsSource {
    /// Connects. The stream is looked at by [`Source::bounds`], which also creates it if asked to.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when no server answers, [`Error::Unsuitable`] when it refuses us.
    pub async fn connect(options: NatsOptions) -> Result<Self> {
        Ok(NatsSource {
            link: Link::open(options).await?,
            position: Sequence(0),
            anchor: None,
            end: Sequence(0),
            told_end: Sequence(0),
            subscription: None,
            is_cut_off: false,
            consumer: None,
            ready: Vec::new(),
            ahead: None,
            holes: Vec::new(),
            fault: None,
            faults: 0,
            said: Vec::new(),
            origin: Sequence(1),
        })
    }

    /// Gets closer to a message: one of them, or a repaired subscription, or the deadline.
    async fn advance(&mut self, deadline: Instant) -> Result<()> {
        if self.ahead.is_some() {
            return self.explain_hole().await;
        }
        if self.fault.is_some() {
            self.report_repeated_fault()?;
        }
        self.connected(deadline).await?;
        if !self.subscribed().await? {
            return Ok(());
        }
        let Some(subscription) = &mut self.subscription else {
            return Ok(());
        };
        let look = deadline.min(Instant::now() + LOOK_EVERY);
        match timeout_at(look, self.link.ask(subscription.next())).await {
            Ok(arrived) => self.take(arrived?),
            Err(_) => self.look_around().await,
        }
    }

    /// Takes what has already arrived, and what comes within a moment: the client hands messages over
    /// one by one, and without the moment a fast reader would get a handful at a time.
    async fn fill(&mut self, bytes: usize) -> Result<()> {
        let until = Instant::now() + LINGER;
        let mut taken: usize = self.ready.iter().map(Message::bytes).sum();
        while taken < bytes {
            let Some(subscription) = &mut self.subscription else {
                break;
            };
            let arrived = match subscription.next_now() {
                Some(arrived) => arrived,
                None => match timeout_at(until, subscription.next()).await {
                    Ok(arrived) => arrived,
                    Err(_) => break,
                },
            };
            let before = self.ready.len();
            self.take(arrived)?;
            match self.ready.get(before) {
                Some(message) => taken = taken.saturating_add(message.bytes()),
                None => break,
            }
        }
        Ok(())
    }

    /// Judges one arrival and moves it to where it belongs.
    fn take(&mut self, arrived: Arrived) -> Result<()> {
        match arrived {
            Arrived::Message(Ok(delivered)) => self.place(delivered),
            Arrived::Message(Err(cause)) => return Err(self.failed("reading a message", cause)),
            Arrived::Quiet => debug!(stream = self.link.options.stream, "heartbeat was missed"),
            Arrived::Ended(fault) => {
                self.cut_off();
                self.fault = fault;
            }
        }
        Ok(())
    }

    fn place(&mut self, delivered: Delivered) {
        let Delivered {
            message,
            place,
            pending,
            expected_place,
        } = delivered;
        let got = message.sequence;
        self.told_end = Sequence(got.0.saturating_add(pending));
        match contiguity::judge(self.position, got, expected_place, place) {
            Verdict::Next => {
                self.position = got;
                self.ready.push(message);
            }
            Verdict::Hole => self.ahead = Some(message),
            Verdict::Missed => {
                debug!(
                    stream = self.link.options.stream,
                    position = self.position.0,
                    got = got.0,
                    "consumer lost its place, made again"
                );
                self.cut_off();
            }
        }
    }

    /// Accepts the hole before `ahead` if the stream says its messages were deleted.
    async fn explain_hole(&mut self) -> Result<()> {
        let state = stream::state(&self.link).await?;
        let Some(message) = self.ahead.take() else {
            return Ok(());
        };
        let expected = Sequence(self.position.0.saturating_add(1));
        match contiguity::explain(
            &state.deleted,
            state.bounds.first,
            expected,
            message.sequence,
        ) {
            Explained::Deleted(hole) => {
                self.accept_hole(hole);
                self.position = message.sequence;
                self.ready.push(message);
                Ok(())
            }
            Explained::Not => Err(self.gap(expected, message.sequence)),
        }
    }

    fn accept_hole(&mut self, hole: RangeInclusive<Sequence>) {
        info!(
            stream = self.link.options.stream,
            first = hole.start().0,
            last = hole.end().0,
            "deleted messages skipped"
        );
        self.position = *hole.end();
        self.holes.push(hole);
    }

    /// Waits for the connection to be there: a request sent without one would only time out.
    async fn connected(&self, deadline: Instant) -> Result<()> {
        let mut look = interval(LOOK_EVERY);
        while self.link.client.connection_state() != Connection::Connected {
            if Instant::now() >= deadline {
                let why = "the connection is lost and is being made again".into();
                return Err(self.link.options.unreachable("NATS", why));
            }
            look.tick().await;
        }
        Ok(())
    }

    /// Makes the subscription (again) when there is none or the connection was lost since. Returns false when
    /// a message came in another way, or more must be done first.
    async fn subscribed(&mut self) -> Result<bool> {
        let connects = self.link.connects();
        if let Some(current) = &mut self.subscription
            && current.connects != connects
        {
            // What came before the connection was lost is good, and without it the same messages could come
            // and be dropped for ever.
            match current.next_now() {
                Some(arrived @ Arrived::Message(Ok(_))) => self.take(arrived)?,
                _ => self.cut_off(),
            }
            return Ok(false);
        }
        if self.subscription.is_none() {
            self.revive().await?;
            self.check_identity().await?;
            if self.is_cut_off && self.step().await? {
                return Ok(false);
            }
            self.delete_consumer().await;
            let started = Subscription::start(&self.link, self.position).await?;
            self.consumer = Some(started.name().to_owned());
            self.subscription = Some(started);
        }
        Ok(true)
    }

    fn cut_off(&mut self) {
        self.subscription = None;
        self.is_cut_off = true;
    }

    /// Connects anew when the client has ended: it never tries again by itself.
    async fn revive(&mut self) -> Result<()> {
        let flushed =
            tokio::time::timeout(self.link.options.timeout, self.link.client.flush()).await;
        if let Ok(Err(cause)) = flushed {
            debug!(stream = self.link.options.stream, %cause, "the client ended, connected anew");
            self.link = Link::open(self.link.options.clone()).await?;
        }
        Ok(())
    }

    /// Fetches the next message by itself, for it may have ended the last subscription. Returns whether there
    /// was one. After one that the client cannot read, the next is fetched so too: they come in series.
    async fn step(&mut self) -> Result<bool> {
        self.is_cut_off = false;
        let next = Sequence(self.position.0.saturating_add(1));
        let message = match stored::message(&self.link, next).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(false),
            Err(error) => {
                self.is_cut_off = true;
                return Err(error);
            }
        };
        if let Some(unread) = &message.unread {
            warn!(
                stream = self.link.options.stream,
                sequence = next.0,
                problem = unread.problem,
                "the connection was lost at a message whose headers cannot be read; it is set aside"
            );
            self.is_cut_off = true;
        }
        self.position = next;
        self.ready.push(message);
        Ok(true)
    }

    /// Deletes the consumer of the subscription before, which counts against the limits of stream and
    /// account. Nothing depends on it: the server forgets one that is not asked.
    async fn delete_consumer(&mut self) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        let stream = &self.link.options.stream;
        let deleted = self
            .link
            .context
            .delete_consumer_from_stream(&consumer, stream);
        // Without the permission no answer would come.
        let deleted = self.link.denials.or(deleted, |_| true).await;
        match deleted {
            Ok(Ok(_)) => {}
            Ok(Err(cause)) => debug!(stream, %cause, "the consumer before was not deleted"),
            Err(denied) => debug!(stream, ?denied, "the consumer before was not deleted"),
        }
    }

    /// Refuses to go on in a stream that is no longer the one that was read.
    ///
    /// A server that lost power can come back with fewer messages and give their sequences to others:
    /// a position that is only a number would silently miss those.
    async fn check_identity(&mut self) -> Result<()> {
        let bounds = self.bounds().await?;
        let next = Sequence(self.position.0.saturating_add(1));
        if next < bounds.first {
            return Err(self.gap(next, bounds.first));
        }
        let Some((sequence, anchor)) = self.anchor else {
            return Ok(());
        };
        match self.anchor(sequence).await? {
            // A message deleted since cannot be compared; the stream still covers its sequence.
            None => Ok(()),
            Some(stored) if stored == anchor => Ok(()),
            Some(_) => Err(self.rewound(sequence)),
        }
    }

    /// Refuses a stream that ends before what was read from it, though nobody cut us off.
    fn check_end(&self) -> Result<()> {
        if self.end < self.position {
            return Err(self.rewound(self.position));
        }
        Ok(())
    }

    /// Nothing came: was the tail deleted, or did we miss something?
    async fn look_around(&mut self) -> Result<()> {
        let quiet = self
            .subscription
            .as_ref()
            .map_or(Duration::ZERO, Subscription::quiet);
        let behind = self.end > self.position;
        if quiet < QUIET_TAIL || (!behind && quiet < QUIET_LONG) {
            return Ok(());
        }
        let state = stream::state(&self.link).await?;
        self.end = state.bounds.last;
        self.check_end()?;
        let (next, after) = (
            Sequence(self.position.0.saturating_add(1)),
            Sequence(self.end.0.saturating_add(1)),
        );
        if next < state.bounds.first {
            return Err(self.gap(next, state.bounds.first));
        }
        match contiguity::explain(&state.deleted, state.bounds.first, next, after) {
            Explained::Deleted(tail) => self.accept_hole(tail),
            // At the end there is nothing to miss.
            Explained::Not if self.end > self.position && quiet >= QUIET_LONG => {
                warn!(
                    stream = self.link.options.stream,
                    position = self.position.0,
                    last = self.end.0,
                    "stream went quiet before its end, subscribed again"
                );
                self.cut_off();
            }
            Explained::Not => {}
        }
        Ok(())
    }

    /// Passes over the first few faults in a row, each of which means a new subscription.
    fn report_repeated_fault(&mut self) -> Result<()> {
        let Some(fault) = self.fault.take() else {
            return Ok(());
        };
        self.faults += 1;
        if self.faults > FAULTS_MAX {
            self.faults = 0;
            return Err(self.failed("reading messages", fault.into()));
        }
        debug!(stream = self.link.options.stream, %fault, "subscription ended, made again");
        Ok(())
    }

    /// Warns of one setting, once.
    fn say(&mut self, found: &Finding) {
        if self.said.contains(&found.problem) {
            return;
        }
        let (stream, hint) = (
            &self.link.options.stream,
            risk::advice(&self.link.options.stream, &[found]),
        );
        let problem = &found.problem;
        match found.risk {
            Some(risk) => warn!(stream, %risk, problem, hint, "risk to lose events was accepted"),
            None => warn!(
                stream,
                problem, hint, "stream was found less safe than it can be"
            ),
        }
        self.said.push(found.problem.clone());
    }

    fn failed(&self, doing: &'static str, source: crate::error::Cause) -> Error {
        self.link.options.failed(doing, source)
    }

    fn gap(&self, expected: Sequence, got: Sequence) -> Error {
        Error::Gap {
            shard: self.link.options.stream.clone(),
            expected,
            got,
        }
    }

    fn rewound(&self, sequence: Sequence) -> Error {
        Error::Rewound {
            shard: self.link.options.stream.clone(),
            sequence,
        }
    }
}

#[async_trait]
impl Source for NatsSource {
    fn shard(&self) -> &str {
        &self.link.options.stream
    }

    fn origin(&self) -> Sequence {
        self.origin
    }

    fn stores_in_order(&self) -> bool {
        true
    }

    fn known_end(&self) -> Option<Sequence> {
        Some(self.told_end.max(self.end).max(self.position))
    }

    async fn bounds(&mut self) -> Result<Bounds> {
        let opened = stream::open(&self.link).await?;
        for found in opened.findings {
            self.say(&found);
        }
        self.end = opened.bounds.last;
        self.origin = opened.origin;
        self.check_end()?;
        Ok(opened.bounds)
    }

    async fn anchor(&mut self, sequence: Sequence) -> Result<Option<Anchor>> {
        stream::anchor(&self.link, sequence).await
    }

    async fn seek(&mut self, position: Sequence, read: Option<(Sequence, Anchor)>) -> Result<()> {
        self.position = position;
        self.anchor = read;
        self.subscription = None;
        self.is_cut_off = false;
        self.ready.clear();
        self.ahead = None;
        self.holes.clear();
        self.fault = None;
        Ok(())
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Message>> {
        let deadline = Instant::now() + Duration::from_millis(limit.wait_ms);
        loop {
            if self.ready.is_empty() {
                self.advance(deadline).await?;
            }
            if !self.ready.is_empty() || !self.holes.is_empty() || Instant::now() >= deadline {
                break;
            }
        }
        let drained = self.fill(limit.bytes).await;
        let Some(last) = self.ready.last() else {
            return drained.map(|()| Vec::new());
        };
        self.faults = 0;
        self.anchor = Some((last.sequence, Anchor::of(last)));
        if drained.is_err() {
            // The error belongs to a later message, which comes again to the next read.
            self.cut_off();
        }
        Ok(std::mem::take(&mut self.ready))
    }

    fn holes(&mut self) -> Vec<RangeInclusive<Sequence>> {
        std::mem::take(&mut self.holes)
    }
}
