//! How a client comes in: encryption, its first message, and the proof that it has a key.

use super::{
    Wire,
    answers::Answers,
    cancelling::Cancellable,
    messages::{self, Opening},
    refusal::Refusal,
    settings::Settings,
};
use crate::{
    clock::{Clock, SystemClock},
    error::Error,
    keys::{
        Known, Role, random_bytes,
        scram::{Exchange, MECHANISM, Verifier},
    },
    server::{
        incoming::AGREED_WITHIN,
        keyring::{Caller, Holder},
        stream::Stream,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{collections::BTreeMap, io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// The first messages of a connection are no longer than this.
const BYTES_MAX: usize = 10_000;

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) caller: Caller,
    /// The key that it came in with.
    pub(super) key: Option<String>,
    pub(super) settings: Settings,
    pub(super) cancellable: Cancellable,
}

/// Why a client does not come in.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is told why.
    Refused(Refusal),
    /// The connection broke off, or nothing more is wanted of it.
    Gone,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Ended::Gone
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Ended::Refused(refusal)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Refused(Refusal::from(error))
    }
}

/// Lets a client in, or tells it why it is not; `None` then, or when it only cancelled something, or went away.
pub(super) async fn let_in(wire: &Wire, socket: TcpStream) -> Option<Client> {
    let (mut stream, parameters) = begin(wire, Stream::Plain(socket)).await?;
    match admitted(wire, &mut stream, parameters).await {
        Ok((caller, key, settings, cancellable)) => Some(Client {
            stream,
            caller,
            key,
            settings,
            cancellable,
        }),
        Err(Ended::Refused(refusal)) => {
            refuse(stream, refusal).await;
            None
        }
        Err(Ended::Gone) => None,
    }
}

async fn refuse(mut stream: Stream, refusal: Refusal) {
    tracing::debug!(%refusal, "client was not let in");
    let mut answers = Answers::default();
    answers.refused(&refusal.fatal());
    // A client that is gone needs no reason.
    let _ = send(&mut stream, &answers).await;
    let _ = stream.shutdown().await;
}

async fn send(stream: &mut Stream, answers: &Answers) -> io::Result<()> {
    stream.write_all(&answers.0).await?;
    stream.flush().await
}

type Parameters = BTreeMap<String, String>;

/// Everything up to the message that says who comes; the connection is encrypted then, if the client asked for it.
async fn begin(wire: &Wire, mut stream: Stream) -> Option<(Stream, Parameters)> {
    // A client asks once for each kind of encryption.
    for _ in 0..3 {
        let body = read_untyped(&mut stream).await;
        match body.and_then(|body| Ok(messages::opening(&body)?)) {
            Ok(Opening::Tls) => stream = encrypted(wire, stream).await?,
            Ok(Opening::Gss) => stream.write_all(b"N").await.ok()?,
            Ok(Opening::Cancel { process, secret }) => {
                wire.cancels.cancel(process, &secret);
                return None;
            }
            Ok(Opening::Startup { minor, parameters }) => {
                return match greet(wire, &mut stream, minor, &parameters).await {
                    Ok(()) => Some((stream, parameters)),
                    Err(ended) => tell(stream, ended).await,
                };
            }
            Err(ended) => return tell(stream, ended).await,
        }
    }
    let message = "encryption was asked for again and again";
    tell(stream, Refusal::protocol(message).into()).await
}

async fn tell<T>(stream: Stream, ended: Ended) -> Option<T> {
    if let Ended::Refused(refusal) = ended {
        refuse(stream, refusal).await;
    }
    None
}

/// The same connection, encrypted if there is a certificate.
///
/// Nothing beyond the request was read, so what was sent in the clear behind it is not taken for what comes encrypted.
async fn encrypted(wire: &Wire, stream: Stream) -> Option<Stream> {
    let Stream::Plain(mut plain) = stream else {
        return None;
    };
    let Some(encryption) = &wire.encryption else {
        plain.write_all(b"N").await.ok()?;
        return Some(Stream::Plain(plain));
    };
    plain.write_all(b"S").await.ok()?;
    let encryption = TlsAcceptor::from(Arc::clone(encryption));
    let agreed = timeout(AGREED_WITHIN, encryption.accept(plain)).await;
    let stream = agreed.ok()?.ok()?;
    Some(Stream::Encrypted(Box::new(stream)))
}

/// Refuses what is not encrypted though it could be, and says which version of the protocol is spoken.
async fn greet(
    wire: &Wire,
    stream: &mut Stream,
    minor: u16,
    parameters: &Parameters,
) -> Result<(), Ended> {
    if wire.encryption.is_some() && matches!(stream, Stream::Plain(_)) {
        let refusal = Refusal::new("28000", "what is sent here must be encrypted");
        return Err(refusal.with_hint("set sslmode to require or more").into());
    }
    let unknown = parameters.keys().filter(|name| name.starts_with("_pq_."));
    let unknown: Vec<&String> = unknown.collect();
    if minor > 0 || !unknown.is_empty() {
        let mut answers = Answers::default();
        answers.version(&unknown);
        send(stream, &answers).await?;
    }
    Ok(())
}

/// Reads a message that has no kind.
async fn read_untyped(stream: &mut Stream) -> Result<Vec<u8>, Ended> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    read_body(stream, length).await
}

/// Reads the rest of a message of this length, which counts itself.
async fn read_body(stream: &mut Stream, length: usize) -> Result<Vec<u8>, Ended> {
    let refused = || Refusal::protocol("the bytes are no message of the protocol");
    let length = length.checked_sub(4).filter(|rest| *rest <= BYTES_MAX);
    let mut body = vec![0; length.ok_or_else(refused)?];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Who comes, with which key, what it sets, and by what it cancels.
type Admitted = (Caller, Option<String>, Settings, Cancellable);

async fn admitted(
    wire: &Wire,
    stream: &mut Stream,
    parameters: Parameters,
) -> Result<Admitted, Ended> {
    let user = parameters.get("user").map_or("", String::as_str);
    let (caller, key) = who(wire, stream, user).await?;
    let settings = settings_of(user, &parameters)?;
    Ok((caller, key, settings, wire.cancels.open()?))
}

async fn who(
    wire: &Wire,
    stream: &mut Stream,
    user: &str,
) -> Result<(Caller, Option<String>), Ended> {
    let doors = &wire.doors;
    let lake = doors.lakes.to_read().await.map_err(|error| {
        let refusal = Refusal::from(error);
        Refusal::new("57P03", refusal.message)
    })?;
    let known = match doors.keyring.holder(lake, user).await? {
        Holder::Anyone => return Ok((Caller::anyone(), None)),
        Holder::Key(known) => Some(known),
        Holder::Nobody => None,
    };
    let verifier = verifier_of(known.as_deref())?;
    let is_proven = prove(stream, verifier).await?;
    let now_us = SystemClock.now_us();
    let key = known.filter(|known| is_proven && known.is_valid(now_us));
    let Some(Known { key, .. }) = key.as_deref() else {
        let message = format!("the key `{user}` is not valid, or the password is not it");
        let hint = "the user is the key's id, and the password the whole key: tg_<id>_…";
        return Err(Refusal::new("28P01", message).with_hint(hint).into());
    };
    if key.role == Role::Ingest {
        let message = "a key of the role `ingest` may not do this";
        return Err(Refusal::new("42501", message).into());
    }
    doors.keyring.note_use(lake, key, now_us);
    Ok((Caller::of(key), Some(key.id.clone())))
}

/// What the proof is checked against. For a user that is no key there is one too, which nothing fulfils.
fn verifier_of(known: Option<&Known>) -> Result<Verifier, Ended> {
    match known.map(|known| known.key.verifier()) {
        Some(Some(verifier)) => Ok(verifier.clone()),
        Some(None) => {
            let message = "this key was made before keys could be passwords";
            let hint = "make another one with `tollgate keys create`";
            Err(Refusal::new("28000", message).with_hint(hint).into())
        }
        None => Ok(Verifier::of_nothing(&random_bytes::<16>()?)),
    }
}

/// Asks for the proof; whether it is one.
async fn prove(stream: &mut Stream, verifier: Verifier) -> Result<bool, Ended> {
    let mut answers = Answers::default();
    answers.ask_for_proof(MECHANISM);
    send(stream, &answers).await?;
    let body = read_proof(stream).await?;
    let (mechanism, first) = messages::sasl_initial(&body)?;
    if mechanism != MECHANISM {
        let message = format!("`{mechanism}` is not spoken, but {MECHANISM}");
        return Err(Refusal::new("28000", message).into());
    }
    let nonce = STANDARD.encode(random_bytes::<18>()?);
    let begun = Exchange::begin(verifier, first, &nonce).map_err(Refusal::protocol)?;
    let (answer, exchange) = begun;
    let mut answers = Answers::default();
    answers.step_of_proof(&answer, false);
    send(stream, &answers).await?;
    let last = read_proof(stream).await?;
    match exchange.finish(&last).map_err(Refusal::protocol)? {
        None => Ok(false),
        Some(own) => {
            let mut answers = Answers::default();
            answers.step_of_proof(&own, true);
            send(stream, &answers).await?;
            Ok(true)
        }
    }
}

async fn read_proof(stream: &mut Stream) -> Result<Vec<u8>, Ended> {
    let kind = stream.read_u8().await?;
    let body = read_untyped(stream).await?;
    messages::password(kind, &body)?;
    Ok(body)
}

/// What a client sets with its first message.
fn settings_of(user: &str, parameters: &Parameters) -> Result<Settings, Refusal> {
    let mut settings = Settings::new(user);
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => set_options(&mut settings, value)?,
            name if name.starts_with("_pq_.") => {}
            name => settings.set(&name.to_lowercase(), Some(value))?,
        }
    }
    Ok(settings)
}

/// `-c name=value`, as many as there are.
fn set_options(settings: &mut Settings, options: &str) -> Result<(), Refusal> {
    for option in options.split_whitespace() {
        let option = option.strip_prefix("-c").unwrap_or(option);
        let option = option.strip_prefix("--").unwrap_or(option);
        if let Some((name, value)) = option.split_once('=') {
            settings.set(&name.to_lowercase(), Some(value))?;
        }
    }
    Ok(())
}
