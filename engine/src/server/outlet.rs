//! Events of requests into the stream: one connection, opened when it is first needed, and an answer only when JetStream
//! has acknowledged everything.

use super::inbox::Accepted;
use crate::{
    config::Settings,
    error::{Error, Result},
    keys::hex,
    outgoing::Batches,
    source::nats_options,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{num::NonZeroUsize, time::Duration};
use tokio::sync::{Mutex, Semaphore};
use tollgate_connectors::{
    Error as Edge,
    nats::{NatsOptions, Publisher},
};

/// So many requests publish at once. Their messages together stay below the acknowledgements that one connection can wait
/// for: a body of the largest size is some ten messages.
const REQUESTS_MAX: usize = 128;

/// A server that does not acknowledge for so long is taken for gone.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// The way into the stream.
#[derive(Debug)]
pub(super) struct Outlet {
    settings: Settings,
    /// `None` until the first request, and again when it failed to open.
    publisher: Mutex<Option<Publisher>>,
    room: Semaphore,
}

impl Outlet {
    pub(super) fn new(settings: &Settings) -> Self {
        Outlet {
            settings: settings.clone(),
            publisher: Mutex::default(),
            room: Semaphore::new(REQUESTS_MAX),
        }
    }

    /// Publishes events, and returns when all of them are acknowledged. After an error some of them may be stored; sent
    /// again, they count once.
    ///
    /// # Errors
    /// NATS cannot be reached, or the stream refuses a message.
    pub(super) async fn publish(&self, events: Vec<Accepted>) -> Result<()> {
        let Some(count) = NonZeroUsize::new(events.len()) else {
            return Ok(());
        };
        let _room = self.room.acquire().await;
        let mut publisher = self.publisher().await?;
        let mut batches = Batches::new(&self.settings, count);
        let mut messages = Vec::new();
        for event in &events {
            messages.extend(batches.add_of(Some(&event.kind), &event.line));
        }
        messages.extend(batches.rest());
        for (subject, payload) in messages {
            let headers = with_id(batches.headers(), &payload);
            publisher.publish(&subject, &headers, payload).await?;
        }
        publisher.flush().await?;
        Ok(())
    }

    /// A publisher over the connection, if it stands.
    async fn publisher(&self) -> Result<Publisher> {
        let mut known = self.publisher.lock().await;
        let publisher = match &*known {
            Some(publisher) => publisher,
            None => {
                let options = NatsOptions {
                    timeout: ACKNOWLEDGED_WITHIN,
                    ..nats_options(&self.settings)
                };
                known.insert(Publisher::connect(options).await?)
            }
        };
        if !publisher.is_connected() {
            return Err(Error::Connector(Edge::Source {
                shard: self.settings.source.stream.clone(),
                doing: "publishing",
                source: "the connection to NATS is lost, and is being made again".into(),
            }));
        }
        Ok(publisher.another())
    }
}

/// The headers with an id that the same events have again: sent twice, the stream stores them once, for as long as it
/// remembers the id. After that they are repeats by their own ids.
fn with_id(headers: &[(String, String)], payload: &Bytes) -> Vec<(String, String)> {
    let id = ("Nats-Msg-Id".to_owned(), hex(&Sha256::digest(payload)));
    headers.iter().cloned().chain([id]).collect()
}
