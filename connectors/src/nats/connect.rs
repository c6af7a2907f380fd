//! Connecting: addresses, credentials, TLS.

use super::{risk::Risk, stream::unsuitable};
use crate::{
    Result,
    error::{Cause, Error},
    event::percent_decode,
};
use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr,
    jetstream::{
        self,
        context::{RequestError, RequestErrorKind},
    },
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use std::{
    borrow::Cow,
    error::Error as _,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use url::Url;

/// JetStream's API as a server without a domain has it.
const API: &str = "$JS.API";

/// Which stream, where, and how to get at it.
#[derive(Clone)]
pub struct NatsOptions {
    /// One or more server addresses, separated by commas, such as `nats://127.0.0.1:4222` or
    /// `tls://nats.example.com`. A user and password may be part of it; errors leave them out.
    pub url: String,
    /// The stream's name, which is also the shard's.
    pub stream: String,
    /// The JetStream domain that has the stream, such as the hub's behind a leaf node.
    pub domain: Option<String>,
    /// Where JetStream's API is, such as `$JS.hub.API`, for an account that imports it; instead of a domain.
    pub api_prefix: Option<String>,
    /// What the stream captures, if it is created.
    pub subjects: Vec<String>,
    /// Create the stream when it is missing: limits retention, file storage, full means refused, and
    /// nothing can be deleted or purged.
    pub create: bool,
    /// Read a stream although its settings can lose events in these ways before they are read.
    pub accept: Vec<Risk>,
    /// How long the stream must keep an event. Less means that a shorter stop loses events.
    pub max_age_min: Duration,
    /// How to prove who we are.
    pub auth: Auth,
    /// Whom to trust, and our own certificate.
    pub tls: Tls,
    /// Messages to a pull request; 1.5 times as many can be on their way to us. More is faster until
    /// about 10,000 and costs memory: it is capped at 40,000 so that the client never drops any.
    pub batch_messages: usize,
    /// How long to wait for the server's answer to any one request.
    pub timeout: Duration,
}

/// Credentials; the first that is set is used, in the order of the fields, and those in the URL last.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// A `.creds` file: JWT and NKey seed.
    pub credentials_file: Option<PathBuf>,
    /// An NKey seed (`SU…`).
    pub nkey: Option<String>,
    /// A token.
    pub token: Option<String>,
    /// User and password.
    pub user_and_password: Option<(String, String)>,
}

/// TLS settings. With none, `tls://` and servers that require TLS are trusted by the system's roots.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of the only authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of our certificate chain and its private key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Refuse to talk without TLS, whatever the URL says.
    pub required: bool,
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("url", &self.shown_url())
            .field("stream", &self.stream)
            .field("create", &self.create)
            .field("auth", &self.auth)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Auth {
                credentials_file: Some(_),
                ..
            } => "Auth(credentials file)",
            Auth { nkey: Some(_), .. } => "Auth(nkey)",
            Auth { token: Some(_), .. } => "Auth(token)",
            Auth {
                user_and_password: Some(_),
                ..
            } => "Auth(user and password)",
            _ => "Auth(none)",
        })
    }
}

/// 1.5 batches stay below the 65,536 messages that the client holds before it drops any.
const BATCH_MESSAGES_MAX: usize = 40_000;

impl NatsOptions {
    /// The stream `stream` at `url`, everything else at its default: no credentials, the stream must
    /// exist, no risk is accepted, events are kept for 7 days, batches of 10,000 messages, 10 seconds
    /// for an answer.
    pub fn new(url: impl Into<String>, stream: impl Into<String>) -> Self {
        NatsOptions {
            url: url.into(),
            stream: stream.into(),
            subjects: Vec::new(),
            create: false,
            accept: Vec::new(),
            max_age_min: Duration::from_secs(7 * 86_400),
            domain: None,
            api_prefix: None,
            auth: Auth::default(),
            tls: Tls::default(),
            batch_messages: 10_000,
            timeout: Duration::from_secs(10),
        }
    }

    /// The batch size within its bounds.
    pub(super) fn batch(&self) -> usize {
        self.batch_messages.clamp(1, BATCH_MESSAGES_MAX)
    }

    /// The URL as it may be shown: without user and password.
    pub(super) fn shown_url(&self) -> String {
        let shown: Vec<String> = split(&self.url).iter().map(|url| hide_user(url)).collect();
        shown.join(",")
    }

    /// Where JetStream's API is.
    pub(super) fn api(&self) -> String {
        match (&self.api_prefix, &self.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => API.to_owned(),
        }
    }
}

/// Opens a connection that repairs itself for as long as it is used.
///
/// # Errors
/// [`Error::Unreachable`] when no server answers; [`Error::Unsuitable`] when one refuses the
/// credentials or an address makes no sense; [`Error::File`] for certificate and credential files.
pub async fn connect(options: &NatsOptions) -> Result<Client> {
    let (addresses, from_url) = addresses(options)?;
    let auth = match options.auth == Auth::default() {
        true => from_url,
        false => options.auth.clone(),
    };
    let settings = authenticate(ConnectOptions::new(), &auth)
        .await?
        .name("tollgate")
        .require_tls(options.tls.required)
        .tls_client_config(tls_config(&options.tls)?)
        .request_timeout(Some(options.timeout));
    settings
        .connect(addresses)
        .await
        .map_err(|e| refused(options, e))
}

/// JetStream over this connection.
pub(super) fn context(client: &Client, options: &NatsOptions) -> jetstream::Context {
    let mut context = jetstream::with_prefix(client.clone(), &options.api());
    context.set_timeout(options.timeout);
    context
}

/// How often the client has connected so far; it rises with every reconnect.
pub(super) fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

pub(super) fn unreachable(options: &NatsOptions, what: &'static str, source: Cause) -> Error {
    Error::Unreachable {
        what,
        url: options.shown_url(),
        source,
    }
}

/// Nobody answering on the JetStream subjects means that JetStream is off, or elsewhere.
pub(super) fn unanswered(options: &NatsOptions, error: RequestError) -> Error {
    match error.kind() {
        RequestErrorKind::NoResponders => Error::Unanswered {
            stream: options.stream.clone(),
            api: options.api(),
        },
        _ => unreachable(options, "JetStream", error.into()),
    }
}

/// The servers, and the credentials in their URLs. The client gets the first without the second: it ignores
/// them, and shows them in its log.
fn addresses(options: &NatsOptions) -> Result<(Vec<ServerAddr>, Auth)> {
    let mut servers = Vec::new();
    let mut auth = Auth::default();
    for text in split(&options.url) {
        let refused = |why: String| {
            unsuitable(
                options,
                format!("`{}` is not a server address: {why}", hide_user(&text)),
                "write it as nats://HOST:PORT or tls://HOST:PORT; in a user or password write `/` as %2F, `?` \
                 as %3F, `#` as %23, `@` as %40, `%` as %25 and `,` as %2C"
                    .into(),
            )
        };
        let (server, own) = address(&text).map_err(refused)?;
        if own != Auth::default() && auth != Auth::default() && own != auth {
            return Err(refused("it names another user than the one before".into()));
        }
        if own != Auth::default() {
            auth = own;
        }
        servers.push(server);
    }
    Ok((servers, auth))
}

/// One address and its credentials: user and password, or a token where there is only one.
fn address(text: &str) -> Result<(ServerAddr, Auth), String> {
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("nats://{text}"),
    };
    let mut url: Url = full
        .parse()
        .map_err(|error: url::ParseError| error.to_string())?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("something follows the port".into());
    }
    let decode = |text: &str| {
        let decoded = percent_decode(text).map(Cow::into_owned);
        decoded.ok_or_else(|| "user or password is not valid percent-encoded UTF-8".to_owned())
    };
    let user = decode(url.username())?;
    // A URL has no empty password: it counts as none there, and a user without one would be a token.
    let is_pair = full
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'));
    let password = match url.password() {
        Some(password) => Some(decode(password)?),
        None => is_pair.then(String::new),
    };
    let auth = match password {
        Some(password) => Auth {
            user_and_password: Some((user, password)),
            ..Auth::default()
        },
        None => Auth {
            token: Some(user).filter(|token| !token.is_empty()),
            ..Auth::default()
        },
    };
    // Neither can fail for a URL with a host.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    let server = ServerAddr::from_url(url).map_err(|error| error.to_string())?;
    Ok((server, auth))
}

/// The servers of a list. A comma that a password holds as it is does not end an address: what follows it has
/// an `@` and no scheme.
fn split(urls: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for part in urls.split(',') {
        match all.last_mut() {
            Some(last) if part.contains('@') && !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => all.push(part.to_owned()),
        }
    }
    all.iter().map(|url| url.trim().to_owned()).collect()
}

async fn authenticate(settings: ConnectOptions, auth: &Auth) -> Result<ConnectOptions> {
    if let Some(file) = &auth.credentials_file {
        let settings = settings.credentials_file(file).await;
        return settings
            .map_err(|e| unreadable(file, "these are not usable credentials", e.into()));
    }
    if let Some(seed) = &auth.nkey {
        return Ok(settings.nkey(seed.clone()));
    }
    if let Some(token) = &auth.token {
        return Ok(settings.token(token.clone()));
    }
    if let Some((user, password)) = &auth.user_and_password {
        return Ok(settings.user_and_password(user.clone(), password.clone()));
    }
    Ok(settings)
}

/// Our own TLS settings with a named provider: the build holds two, so the process has no default
/// and rustls would panic when it looked for one.
fn tls_config(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Unreachable {
            what: "TLS",
            url: "this process".into(),
            source: e.into(),
        })?
        .with_root_certificates(roots(tls)?);
    let Some((certificate_file, key_file)) = &tls.client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|e| unreadable(key_file, "there is no usable private key here", e.into()))?;
    builder
        .with_client_auth_cert(certificates(certificate_file)?, key)
        .map_err(|e| unreadable(certificate_file, "certificate and key do not fit", e.into()))
}

fn roots(tls: &Tls) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        // A machine without roots can still speak plain NATS; TLS then fails with its own message.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(file) => {
            for certificate in certificates(file)? {
                roots
                    .add(certificate)
                    .map_err(|e| unreadable(file, "not an authority's certificate", e.into()))?;
            }
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let problem = "there is no usable certificate here";
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable(file, problem, e.into()))?;
    if found.is_empty() {
        return Err(unreadable(file, problem, "no PEM block".into()));
    }
    Ok(found)
}

fn unreadable(file: &Path, problem: &str, cause: Cause) -> Error {
    Error::File {
        file: file.display().to_string(),
        problem: problem.into(),
        source: Some(cause),
    }
}

fn refused(options: &NatsOptions, error: ConnectError) -> Error {
    let credentials = [
        ConnectErrorKind::Authentication,
        ConnectErrorKind::AuthorizationViolation,
    ];
    if credentials.contains(&error.kind()) {
        return unsuitable(
            options,
            format!("{} refused us: {error}", options.shown_url()),
            "check source.user and source.password, source.token, source.nkey or source.credentials; the URL may \
             have a user and password, too".into(),
        );
    }
    if let Some(fault) = tls_fault(&error) {
        return unsuitable(
            options,
            format!("TLS with {} failed: {fault}", options.shown_url()),
            "check source.tls_ca, and source.tls_certificate and source.tls_key if the server wants to know \
             its clients"
                .into(),
        );
    }
    unreachable(options, "NATS", error.into())
}

/// What TLS refused, which no second try changes.
fn tls_fault(error: &ConnectError) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(fault) = inner.or_else(|| error.downcast_ref::<rustls::Error>()) {
            return Some(fault.to_string());
        }
        cause = error.source();
    }
    None
}

/// `nats://user:password@host` as `nats://host`.
fn hide_user(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_error_never_shows_the_password() {
        assert_eq!(hide_user("nats://u:p@ss@host:4222"), "nats://host:4222");
        assert_eq!(hide_user("token@host"), "host");
        assert_eq!(hide_user("nats://host"), "nats://host");
        let options = NatsOptions::new("nats://a:b@one, tls://two", "S");
        assert_eq!(options.shown_url(), "nats://one,tls://two");
        // A comma in a password, as it is.
        let options = NatsOptions::new("nats://u:S3cret,x@one:1,tls://u:S3cret@two", "S");
        assert_eq!(options.shown_url(), "nats://one:1,tls://two");
        let mut options = options;
        options.auth.token = Some("secret".into());
        assert!(!format!("{:?}", options.auth).contains("secret"));
    }

    #[test]
    fn a_batch_stays_below_what_the_client_can_hold() {
        let mut options = NatsOptions::new("nats://host", "S");
        options.batch_messages = 1_000_000;
        assert!(options.batch() + options.batch() / 2 < 65_536);
        options.batch_messages = 0;
        assert_eq!(options.batch(), 1);
    }

    #[test]
    fn tls_settings_need_no_process_default() {
        assert!(tls_config(&Tls::default()).is_ok());
        let missing = Tls {
            ca_file: Some("/nowhere/ca.pem".into()),
            ..Tls::default()
        };
        let error = tls_config(&missing).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/ca.pem: "), "{error}");
    }

    #[test]
    fn a_url_gives_the_address_and_apart_from_it_the_credentials() {
        let pair = |user: &str, password: &str| Auth {
            user_and_password: Some((user.into(), password.into())),
            ..Auth::default()
        };
        let token = |token: &str| Auth {
            token: Some(token.into()),
            ..Auth::default()
        };
        for (url, host, port, auth) in [
            ("nats://h:1", "h", 1, Auth::default()),
            ("h", "h", 4222, Auth::default()),
            ("tls://u:p@h:1", "h", 1, pair("u", "p")),
            ("u:@h", "h", 4222, pair("u", "")),
            ("nats://a%40b:p%2C%2f%25@h:1", "h", 1, pair("a@b", "p,/%")),
            ("nats://u:p@ss,w@h:1", "h", 1, pair("u", "p@ss,w")),
            ("nats://t%20k@h:1", "h", 1, token("t k")),
        ] {
            let (server, found) = address(url).unwrap();
            assert_eq!((server.host(), server.port()), (host, port), "{url}");
            assert!(found == auth, "{url}");
            assert!(!server.has_user_pass(), "{url}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_secrets() {
        for url in [
            "nats://u:S3cret/x@h:1",
            "nats://u:12/S3cret@h:1",
            "nats://u:S3cret#x@h",
            "nats://u:12?S3cret@h",
            "nats://u:S3cret%zz@h",
            "http://u:S3cret@h",
            "nats://u:S3cret@one,nats://u:S3cret2@two",
        ] {
            let error = addresses(&NatsOptions::new(url, "S")).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("S3cret"), "{shown}");
        }
    }
}
