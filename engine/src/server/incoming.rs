//! The connections that HTTP is spoken over: encrypted where there is a certificate, and ended when a client is too slow.

use super::{
    seats::{Seat, Seats},
    stream::Stream,
};
use crate::clock::{Clock, SystemClock};
use axum::serve::Listener;
use rustls::ServerConfig;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

/// A client must have agreed on keys within this time.
pub(super) const AGREED_WITHIN: Duration = Duration::from_secs(10);

/// So many clients may be agreeing on keys; one that comes then waits.
const AGREEING_MAX: usize = 256;

/// After this the system is asked again for a connection that it could not give.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A connection and where it comes from; none where the client did not agree on keys.
type Agreed = Option<(Stream, SocketAddr)>;

/// Where connections come in.
#[derive(Debug)]
pub(super) struct Incoming {
    listener: TcpListener,
    encryption: Option<Arc<ServerConfig>>,
    agreeing: JoinSet<Agreed>,
    patience: Duration,
    seats: Arc<Seats>,
}

impl Incoming {
    /// A client that is waited for longer than `patience` since the last answer is disconnected: one that does not end the
    /// head of its request, sends its body a byte at a time, or asks nothing more. When so many connections are open, one that
    /// comes then ends the one that has been without an answer for the longest time.
    pub(super) fn new(
        listener: TcpListener,
        encryption: Option<Arc<ServerConfig>>,
        patience: Duration,
        connections_max: usize,
    ) -> Self {
        Incoming {
            listener,
            encryption,
            agreeing: JoinSet::new(),
            patience,
            seats: Seats::new(connections_max),
        }
    }

    async fn next(&mut self) -> (Stream, SocketAddr) {
        loop {
            let has_room = self.agreeing.len() < AGREEING_MAX;
            tokio::select! {
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, address)) => match &self.encryption {
                        None => return (Stream::Plain(stream), address),
                        Some(encryption) => {
                            let encryption = TlsAcceptor::from(Arc::clone(encryption));
                            self.agreeing.spawn(agree(encryption, stream, address));
                        }
                    },
                    Err(error) if is_of_client(&error) => {}
                    Err(error) => {
                        tracing::error!(%error, "connection could not be taken");
                        SystemClock.sleep(AGAIN_AFTER).await;
                    }
                },
                Some(agreed) = self.agreeing.join_next() => {
                    if let Ok(Some(agreed)) = agreed {
                        return agreed;
                    }
                }
            }
        }
    }
}

/// Whether a connection was gone before it was taken.
pub(super) fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Agrees with a client on keys; what it sends instead, such as plain HTTP, ends the connection.
async fn agree(encryption: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Agreed {
    match timeout(AGREED_WITHIN, encryption.accept(stream)).await {
        Ok(Ok(stream)) => Some((Stream::Encrypted(Box::new(stream)), address)),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS was not agreed on");
            None
        }
        Err(_) => None,
    }
}

impl Listener for Incoming {
    type Io = Patient;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Patient, SocketAddr) {
        let (stream, address) = self.next().await;
        if let Stream::Plain(stream) = &stream {
            // It only makes answers come sooner.
            let _ = stream.set_nodelay(true);
        }
        let seat = self.seats.take();
        (Patient::new(stream, self.patience, seat), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when the client is waited for too long, or another needs its place.
#[derive(Debug)]
pub(super) struct Patient {
    stream: Stream,
    patience: Duration,
    until: Pin<Box<Sleep>>,
    seat: Seat,
}

impl Patient {
    fn new(stream: Stream, patience: Duration, seat: Seat) -> Self {
        Patient {
            stream,
            patience,
            until: Box::pin(sleep_until(Instant::now() + patience)),
            seat,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let patient = self.get_mut();
        if patient.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if patient.seat.is_given_away(context.waker()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut patient.stream).poll_read(context, bytes)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let patient = self.get_mut();
        let written = Pin::new(&mut patient.stream).poll_write(context, bytes);
        if written.is_ready() {
            // The client has an answer, and may ask again.
            patient.seat.answered();
            patient
                .until
                .as_mut()
                .reset(Instant::now() + patient.patience);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
