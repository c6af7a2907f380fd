//! One ephemeral consumer and what it delivers.

use super::{NatsOptions, connect::Link, refusal, stored::micros};
use crate::{Message, Result, Sequence, error::Cause};
use async_nats::{
    HeaderMap, jetstream,
    jetstream::consumer::{
        AckPolicy, DeliverPolicy, ReplayPolicy,
        pull::{self, MessagesError, MessagesErrorKind},
    },
};
use futures::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::{task::unconstrained, time::Instant};

const HEARTBEAT: Duration = Duration::from_secs(5);
const EXPIRES: Duration = Duration::from_secs(30);
/// The server forgets a consumer that no client asks for this long.
const INACTIVE: Duration = Duration::from_secs(60);

/// A consumer that starts right after a position.
pub(super) struct Subscription {
    messages: pull::Stream,
    /// The consumer's name.
    name: String,
    /// How many messages it gave us.
    delivered: u64,
    /// When something last came, or when it started.
    active: Instant,
    /// How often the client had connected when it started.
    pub(super) connects: u64,
}

/// Something a subscription gave.
pub(super) enum Arrived {
    /// A message, or why it could not be understood.
    Message(Result<Delivered, Cause>),
    /// A heartbeat was missed; the subscription goes on.
    Quiet,
    /// The subscription is over. `None` when the consumer was deleted, which needs no report.
    Ended(Option<MessagesError>),
}

/// A message with its place in what the consumer gave out, counted from 1.
pub(super) struct Delivered {
    pub(super) message: Message,
    pub(super) place: u64,
    /// How many messages the stream had after it when it was sent.
    pub(super) pending: u64,
    pub(super) expected_place: u64,
}

/// Payload bytes on their way to us at once. The server cuts off a client that has more than 64 MB to
/// read, so large messages need a bound of their own; it must stay above one message's size.
const BATCH_BYTES_MAX: usize = 32 << 20;

impl Subscription {
    /// Creates the consumer and checks that the server took it as it was asked.
    pub(super) async fn start(link: &Link, position: Sequence) -> Result<Self> {
        let options = &link.options;
        // Counted before, so that a connection made anew in between is noticed.
        let connects = link.connects();
        let wanted = config(link, position);
        let made = link
            .context
            .create_consumer_on_stream(wanted.clone(), &options.stream);
        let consumer = link
            .ask(made)
            .await?
            .map_err(|e| refusal::of_consumer(options, e))?;
        check(options, &wanted, &consumer.cached_info().config)?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(options.batch())
            .max_bytes_per_batch(BATCH_BYTES_MAX)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await
            .map_err(|e| options.failed("subscribing", e.into()))?;
        Ok(Subscription {
            messages,
            name: consumer.cached_info().name.clone(),
            delivered: 0,
            active: Instant::now(),
            connects,
        })
    }

    /// The next arrival. May be dropped while it waits; nothing is lost.
    pub(super) async fn next(&mut self) -> Arrived {
        let item = self.messages.next().await;
        self.arrived(item)
    }

    /// The next arrival if it is already here.
    pub(super) fn next_now(&mut self) -> Option<Arrived> {
        // Without `unconstrained` the runtime's cooperative budget would end every read after some
        // hundred messages.
        let item = unconstrained(self.messages.next()).now_or_never()?;
        Some(self.arrived(item))
    }

    /// The consumer's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How long nothing has come.
    pub(super) fn quiet(&self) -> Duration {
        self.active.elapsed()
    }

    fn arrived(&mut self, item: Option<Result<jetstream::Message, MessagesError>>) -> Arrived {
        match item {
            Some(Ok(message)) => Arrived::Message(self.delivered(message)),
            Some(Err(error)) => fault(error),
            None => Arrived::Ended(None),
        }
    }

    fn delivered(&mut self, message: jetstream::Message) -> Result<Delivered, Cause> {
        let info = message.info()?;
        let (sequence, place) = (info.stream_sequence, info.consumer_sequence);
        let pending = info.pending;
        let ingest_time_us = micros(info.published.unix_timestamp_nanos())?;
        self.delivered += 1;
        self.active = Instant::now();
        let message = message.message;
        Ok(Delivered {
            message: Message {
                sequence: Sequence(sequence),
                ingest_time_us,
                headers: message.headers.as_ref().map(headers).unwrap_or_default(),
                payload: message.payload,
                unread: None,
            },
            place,
            pending,
            expected_place: self.delivered,
        })
    }
}

fn fault(error: MessagesError) -> Arrived {
    match error.kind() {
        MessagesErrorKind::MissingHeartbeat => Arrived::Quiet,
        MessagesErrorKind::ConsumerDeleted => Arrived::Ended(None),
        _ => Arrived::Ended(Some(error)),
    }
}

/// The client keeps headers in a hash map, so their order is lost: sort them, so that the same
/// message always looks the same.
fn headers(map: &HeaderMap) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = map
        .iter()
        .flat_map(|(name, values)| values.iter().map(|v| (name.to_string(), v.to_string())))
        .collect();
    // Stable: several values of one name stay in the order they came.
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

fn config(link: &Link, position: Sequence) -> pull::Config {
    let unique = link.client.new_inbox().replace(['.', '_'], "-");
    pull::Config {
        name: Some(format!("tollgate{unique}")),
        description: Some(format!("tollgate reads {}", link.options.stream)),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: position.0.saturating_add(1),
        },
        ack_policy: AckPolicy::None,
        replay_policy: ReplayPolicy::Instant,
        inactive_threshold: INACTIVE,
        // Its state is worth nothing to us, so the server need not write it to disk.
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    }
}

/// Servers before 2.12 ignore settings that they do not know, so read back what matters.
fn check(
    options: &NatsOptions,
    wanted: &pull::Config,
    got: &jetstream::consumer::Config,
) -> Result<()> {
    let same = got.deliver_policy == wanted.deliver_policy
        && got.ack_policy == wanted.ack_policy
        && got.filter_subject.is_empty()
        && got.filter_subjects.is_empty()
        && !got.headers_only;
    if same {
        return Ok(());
    }
    Err(options.unsuitable(
        format!(
            "the server made a consumer other than asked: {:?}, {:?}",
            got.deliver_policy, got.ack_policy
        ),
        "use nats-server 2.10 or later".into(),
    ))
}
