//! Who we are and whom we trust: credentials and TLS.

use crate::{
    Result,
    error::{Cause, Error},
};
use async_nats::{
    ConnectOptions,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

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

/// Adds the credentials to the client's settings.
///
/// # Errors
/// [`Error::File`] when the credentials file cannot be used.
pub(super) async fn authenticate(settings: ConnectOptions, auth: &Auth) -> Result<ConnectOptions> {
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
pub(super) fn tls_config(tls: &Tls) -> Result<ClientConfig> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
