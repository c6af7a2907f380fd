//! The certificate of every door, read once when the process starts.

use super::unusable;
use crate::{
    config::{Settings, TlsSettings},
    error::Result,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{fs, path::Path, sync::Arc};

/// How doors encrypt; `None` when `[tls]` names no certificate.
///
/// # Errors
/// One file is named without the other, cannot be read, is not PEM, or the key is another certificate's.
pub(super) fn encryption(settings: &Settings) -> Result<Option<Arc<ServerConfig>>> {
    let TlsSettings { certificate, key } = &settings.tls;
    if certificate.is_empty() && key.is_empty() {
        return Ok(None);
    }
    let named = [("tls.certificate", certificate), ("tls.key", key)];
    if let Some((missing, _)) = named.into_iter().find(|(_, file)| file.is_empty()) {
        let problem = "names no file; a certificate and its key go together".to_owned();
        return Err(unusable(missing, problem));
    }
    let chain = certificates(&settings.base, certificate)?;
    let key = private_key(&settings.base, key)?;
    // More than one provider is built in: there is no default that all agree on.
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            let builder = builder.with_no_client_auth();
            builder.with_single_cert(chain, key)
        });
    let config = config.map_err(|error| {
        let problem = format!("the key does not go with the certificate: {error}");
        unusable("tls.key", problem)
    })?;
    Ok(Some(Arc::new(config)))
}

fn certificates(base: &Path, file: &str) -> Result<Vec<CertificateDer<'static>>> {
    let setting = "tls.certificate";
    let pem = read(setting, base, file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(unusable(
            setting,
            format!("`{file}` has no certificate in PEM: -----BEGIN CERTIFICATE-----"),
        )),
        Err(error) => Err(unusable(setting, format!("`{file}` is not PEM: {error}"))),
    }
}

fn private_key(base: &Path, file: &str) -> Result<PrivateKeyDer<'static>> {
    let setting = "tls.key";
    let pem = read(setting, base, file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let problem = format!(
            "`{file}` has no private key in PEM, such as -----BEGIN PRIVATE KEY-----: {error}"
        );
        unusable(setting, problem)
    })
}

fn read(setting: &str, base: &Path, file: &str) -> Result<Vec<u8>> {
    fs::read(base.join(file))
        .map_err(|error| unusable(setting, format!("`{file}` cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    fn outcome(certificate: &str, key: &str) -> Result<bool, String> {
        let folder = tempfile::tempdir().unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let other = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("cert.pem", &cert.pem());
        write("key.pem", &signing_key.serialize_pem());
        write("other.pem", &other.signing_key.serialize_pem());
        write("empty.pem", "");
        let settings = Settings {
            base: folder.path().to_owned(),
            tls: TlsSettings {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
            ..Settings::default()
        };
        let encryption = encryption(&settings);
        encryption
            .map(|config| config.is_some())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_and_its_key_encrypt_and_anything_else_is_said() {
        assert_eq!(outcome("", ""), Ok(false));
        assert_eq!(outcome("cert.pem", "key.pem"), Ok(true));
        for (certificate, key, said) in [
            ("cert.pem", "", "tls.key: names no file"),
            ("", "key.pem", "tls.certificate: names no file"),
            (
                "none.pem",
                "key.pem",
                "tls.certificate: `none.pem` cannot be read",
            ),
            ("cert.pem", "none.pem", "tls.key: `none.pem` cannot be read"),
            (
                "empty.pem",
                "key.pem",
                "tls.certificate: `empty.pem` has no certificate",
            ),
            (
                "cert.pem",
                "empty.pem",
                "tls.key: `empty.pem` has no private key",
            ),
            (
                "cert.pem",
                "cert.pem",
                "tls.key: `cert.pem` has no private key",
            ),
            (
                "cert.pem",
                "other.pem",
                "tls.key: the key does not go with the certificate",
            ),
        ] {
            let error = outcome(certificate, key).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
