//! The protocol of PostgreSQL: psql, drivers and BI tools read what `tollgate query` reads.
//!
//! ```text
//!  socket ─▶ opening (TLS, SCRAM) ─▶ connection (messages) ─▶ session ─┬▶ query     usage, documents
//!                                                                     └▶ catalog   names, types, settings
//! ```
//!
//! It owns the protocol: messages, types, what a session has set. It does not own what a statement means or may take, which
//! is what [`crate::query`] and HTTP have, nor who may ask, which is the [`keyring`](super::keyring)'s.

mod answers;
mod cancelling;
mod catalog;
mod connection;
mod messages;
mod opening;
mod refusal;
mod session;
mod settings;
mod statement;
mod values;

use super::{
    Doors,
    incoming::is_of_client,
    seats::{Seat, Seats},
    stopped,
};
use crate::clock::{Clock, SystemClock};
use answers::Answers;
use cancelling::Cancels;
use catalog::Catalogs;
use connection::Connection;
use opening::let_in;
use refusal::Refusal;
use rustls::ServerConfig;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

/// A client must have come in within this time.
const IN_WITHIN: Duration = Duration::from_secs(30);

/// After this the system is asked again for a connection that it could not give.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// So many clients may be coming in, or cancelling, beside those that are in; one more ends the one that has been at it for the longest time.
const COMING_MAX: usize = 64;

/// What connections have in common.
#[derive(Debug)]
struct Wire {
    doors: Arc<Doors>,
    catalogs: Catalogs,
    cancels: Arc<Cancels>,
    encryption: Option<Arc<ServerConfig>>,
    /// For as many clients as may be connected.
    room: Semaphore,
    /// For those that are not in yet.
    coming: Arc<Seats>,
}

/// Answers clients until the process stops, and what they had asked by then.
pub(super) async fn answer(
    listener: TcpListener,
    doors: Arc<Doors>,
    encryption: Option<Arc<ServerConfig>>,
) {
    let most = doors.settings.postgres.connections_max.0;
    let stop = doors.stop.clone();
    let wire = Arc::new(Wire {
        doors,
        catalogs: Catalogs::default(),
        cancels: Arc::default(),
        encryption,
        room: Semaphore::new(most),
        coming: Seats::new(COMING_MAX),
    });
    let mut clients = JoinSet::new();
    let stopping = stopped(stop);
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => break,
            Some(_) = clients.join_next() => {}
            // What cancels comes over a connection of its own, so one that is not in yet is always taken.
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => {
                    let seat = wire.coming.take();
                    let serving = serve(Arc::clone(&wire), socket, address, seat);
                    clients.spawn_on(serving, &wire.doors.aside);
                }
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "connection could not be taken");
                    SystemClock.sleep(AGAIN_AFTER).await;
                }
            }
        }
    }
    while clients.join_next().await.is_some() {}
}

async fn serve(wire: Arc<Wire>, socket: TcpStream, address: SocketAddr, seat: Seat) {
    // It only makes answers come sooner.
    let _ = socket.set_nodelay(true);
    let client = tokio::select! {
        client = timeout(IN_WITHIN, let_in(&wire, socket)) => client,
        () = seat.given_away() => return,
    };
    let Ok(Some(mut client)) = client else {
        return;
    };
    drop(seat);
    let Ok(_room) = wire.room.try_acquire() else {
        let most = wire.doors.settings.postgres.connections_max.0;
        let message = format!("{most} clients are connected already (postgres.connections_max)");
        let mut answers = Answers::default();
        answers.refused(&Refusal::new("53300", message).fatal());
        // A client that does not listen needs no reason.
        let _ = timeout(IN_WITHIN, client.stream.write_all(&answers.0)).await;
        return;
    };
    let served = Connection::of(&wire, client).serve().await;
    if let Err(error) = served {
        tracing::debug!(%address, %error, "client is gone");
    }
}
