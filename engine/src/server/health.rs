//! Whether the process lives, and whether it can answer.

use super::Doors;
use crate::telemetry::Progress;
use axum::{extract::State, http::StatusCode};
use std::sync::Arc;
use tokio::sync::watch;

/// What must be so before requests are answered.
#[derive(Debug)]
pub(super) enum Readiness {
    /// The shard is acquired and recovered, and reads.
    Shard(watch::Receiver<Progress>),
    /// The lake can be opened.
    Lake,
}

/// The process answers.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// 200 when requests will be answered; 503, and what is missing, while the process starts or stops.
pub(super) async fn ready(State(doors): State<Arc<Doors>>) -> (StatusCode, &'static str) {
    match missing(&doors).await {
        None => (StatusCode::OK, "ready\n"),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing),
    }
}

async fn missing(doors: &Doors) -> Option<&'static str> {
    if *doors.stop.borrow() {
        return Some("stopping\n");
    }
    match &doors.readiness {
        Readiness::Shard(progress) if progress.borrow().is_reading => None,
        Readiness::Shard(_) => Some("the shard is not reading yet\n"),
        Readiness::Lake => match doors.defined().views.committed().await {
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(error = %error, "lake could not be opened");
                Some("the lake cannot be opened\n")
            }
        },
    }
}
