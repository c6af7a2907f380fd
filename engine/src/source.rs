//! The source that the settings name.

use crate::{
    config::{Settings, SourceKind},
    error::Result,
};
use tollgate_connectors::{
    Source,
    files::FileSource,
    nats::{Auth, NatsOptions, NatsSource, Tls},
};

/// How to reach NATS.
pub fn nats_options(settings: &Settings) -> NatsOptions {
    let source = &settings.source;
    let file = |path: &str| (!path.is_empty()).then(|| settings.resolve(path.as_ref()));
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let user_and_password =
        text(&source.user).map(|user| (user, source.password.expose().to_owned()));
    NatsOptions {
        domain: text(&source.domain),
        api_prefix: text(&source.api_prefix),
        subjects: source.subjects.clone(),
        create: source.create,
        accept: source.accept.clone(),
        max_age_min: source.max_age_min.duration(),
        auth: Auth {
            credentials_file: file(&source.credentials),
            nkey: source.nkey.given(),
            token: source.token.given(),
            user_and_password,
        },
        tls: Tls {
            ca_file: file(&source.tls_ca),
            client_certificate: file(&source.tls_certificate).zip(file(&source.tls_key)),
            required: source.tls_required,
        },
        ..NatsOptions::new(source.url.expose(), &source.stream)
    }
}

/// Opens the configured source.
///
/// # Errors
/// It cannot be reached, is missing, or cannot be read exactly once.
pub async fn open(settings: &Settings) -> Result<Box<dyn Source>> {
    Ok(match settings.source.kind {
        SourceKind::Nats => Box::new(NatsSource::connect(nats_options(settings)).await?),
        SourceKind::Files => Box::new(FileSource::open(
            settings.resolve(&settings.source.path),
            None,
        )?),
    })
}
