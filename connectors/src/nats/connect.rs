//! A connection to NATS, and what the server denies it.

use super::{
    NatsOptions, address,
    credentials::{Auth, authenticate, tls_config},
    refusal::{self, Denied},
};
use crate::Result;
use async_nats::{Client, ConnectOptions, Event, ServerError, jetstream};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, sync::atomic::Ordering};
use tokio::sync::watch;

/// A connection with the settings that it was made from.
pub(super) struct Link {
    pub(super) options: NatsOptions,
    pub(super) client: Client,
    /// JetStream over this connection.
    pub(super) context: jetstream::Context,
    pub(super) denials: Denials,
}

impl Link {
    /// Opens a connection that repairs itself for as long as it is used.
    ///
    /// # Errors
    /// As [`connect`].
    pub(super) async fn open(options: NatsOptions) -> Result<Self> {
        let (seen, denials) = watch::channel(Vec::new());
        let client = open(&options, seen).await?;
        let mut context = jetstream::with_prefix(client.clone(), &options.api());
        context.set_timeout(options.timeout);
        Ok(Link {
            options,
            client,
            context,
            denials: Denials(denials),
        })
    }

    /// How often the client has connected so far; it rises with every reconnect.
    pub(super) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Asks JetStream's API.
    ///
    /// # Errors
    /// Nothing answers, or the server denies the question.
    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        subject: String,
        question: &(impl Serialize + Sync),
    ) -> Result<T> {
        let answer = self.ask(self.context.request(subject, question)).await?;
        answer.map_err(|error| refusal::of_request(&self.options, error))
    }

    /// Waits for an answer, or until the server says that it denies something: then none comes.
    ///
    /// # Errors
    /// Something was denied.
    pub(super) async fn ask<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        let answer = self
            .denials
            .or(answer, |denied| denied.matters(&self.options));
        answer.await.map_err(|denied| denied.error(&self.options))
    }

    /// As [`Link::ask`], for the acknowledgement of a message to this subject.
    ///
    /// # Errors
    /// The subject was denied, or what the acknowledgement needs.
    pub(super) async fn ask_for<T>(
        &self,
        subject: &str,
        answer: impl Future<Output = T>,
    ) -> Result<T> {
        let answer = self.denials.or(answer, |denied| denied.concerns(subject));
        answer.await.map_err(|denied| denied.error(&self.options))
    }
}

/// What the server has denied since the connection was made.
#[derive(Clone)]
pub(super) struct Denials(watch::Receiver<Vec<Denied>>);

/// So many are remembered: the first stops what we do.
const DENIALS_MAX: usize = 100;

impl Denials {
    /// Waits for something, or for a denial that concerns it.
    pub(super) async fn or<T>(
        &self,
        answer: impl Future<Output = T>,
        concerns: impl Fn(&Denied) -> bool,
    ) -> Result<T, Denied> {
        let mut seen = self.0.clone();
        let denied = async {
            let found = seen.wait_for(|all| all.iter().any(&concerns)).await;
            found
                .ok()
                .and_then(|all| all.iter().find(|denied| concerns(denied)).cloned())
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => Ok(answer),
            denied = denied => match denied {
                Some(denied) => Err(denied),
                // The client has ended, and says so itself.
                None => Ok(answer.await),
            }
        }
    }
}

/// Opens a connection that repairs itself for as long as it is used.
///
/// # Errors
/// [`Error::Unreachable`](crate::Error::Unreachable) when no server answers;
/// [`Error::Unsuitable`](crate::Error::Unsuitable) when one refuses the credentials or an address makes no
/// sense; [`Error::File`](crate::Error::File) for certificate and credential files.
pub async fn connect(options: &NatsOptions) -> Result<Client> {
    let (seen, _) = watch::channel(Vec::new());
    open(options, seen).await
}

async fn open(options: &NatsOptions, seen: watch::Sender<Vec<Denied>>) -> Result<Client> {
    let (servers, from_url) = address::servers(&options.url).map_err(|problem| {
        let hint = "write it as nats://HOST:PORT or tls://HOST:PORT; in a user or password write `/` as %2F, `?` \
                    as %3F, `#` as %23, `@` as %40, `%` as %25 and `,` as %2C";
        options.unsuitable(problem, hint.into())
    })?;
    let auth = match options.auth == Auth::default() {
        true => from_url,
        false => options.auth.clone(),
    };
    let settings = authenticate(ConnectOptions::new(), &auth)
        .await?
        .name("tollgate")
        .require_tls(options.tls.required)
        .tls_client_config(tls_config(&options.tls)?)
        .request_timeout(Some(options.timeout))
        .event_callback(move |event| {
            note(&seen, &event);
            async {}
        });
    settings
        .connect(servers)
        .await
        .map_err(|e| refusal::of_connection(options, e))
}

/// Keeps what is a denial.
fn note(seen: &watch::Sender<Vec<Denied>>, event: &Event) {
    let Event::ServerError(ServerError::Other(error)) = event else {
        return;
    };
    let Some(denied) = Denied::read(error) else {
        return;
    };
    seen.send_if_modified(|all| {
        let is_new = all.len() < DENIALS_MAX && !all.contains(&denied);
        if is_new {
            all.push(denied);
        }
        is_new
    });
}
