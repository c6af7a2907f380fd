//! The source that the settings name.

use crate::{
    config::{Settings, SourceKind},
    error::Result,
};
use tollgate_connectors::{
    Source,
    files::FileSource,
    nats::{Auth, NatsOptions, NatsSource},
};

/// How to reach NATS.
pub fn nats_options(settings: &Settings) -> NatsOptions {
    let source = &settings.source;
    let credentials_file =
        (!source.credentials.is_empty()).then(|| settings.resolve(source.credentials.as_ref()));
    NatsOptions {
        subjects: source.subjects.clone(),
        create: source.create,
        accept: source.accept.clone(),
        max_age_min: source.max_age_min.duration(),
        auth: Auth {
            credentials_file,
            ..Auth::default()
        },
        ..NatsOptions::new(&source.url, &source.stream)
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
