//! `POST /api/v1/events`: CloudEvents in every form that HTTP has for them.

use super::{
    Doors,
    inbox::{Judged, Refusal, message},
    parameters::Parameters,
    problem::Problem,
};
use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
};
use std::{sync::Arc, time::Instant};
use tollgate_connectors::Message;

/// Larger bodies are judged on a thread that may block.
const IN_PLACE_BYTES_MAX: usize = 64 * 1024;

/// Stores the events of a request; the answer comes when JetStream has acknowledged all of them.
pub(super) async fn publish(
    State(doors): State<Arc<Doors>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let mut parameters = Parameters::read(query.as_deref())?;
    let validate = parameters.flag("validate")?;
    parameters.finish()?;
    let bytes = doors.events(&headers, body).await?;
    let message = message(&headers, bytes).map_err(|refusal| match refusal {
        Refusal::ContentType(media) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type_unsupported",
            format!(
                "content type `{media}` is not read; send application/cloudevents+json for one event, \
                 application/cloudevents-batch+json for an array, application/json for either, application/x-ndjson for one \
                 event a line, or binary mode with ce- headers"
            ),
        ),
        Refusal::Header(reason) => {
            Problem::new(StatusCode::BAD_REQUEST, "header_invalid", reason)
        }
    })?;
    accept(&doors, message, validate).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Judges what a message holds, and publishes it unless something of it is refused.
pub(super) async fn accept(
    doors: &Arc<Doors>,
    message: Message,
    validate: bool,
) -> Result<(), Problem> {
    let judged = if message.payload.len() <= IN_PLACE_BYTES_MAX {
        doors.defined().inbox.judge(message, validate)?
    } else {
        let defined = doors.defined();
        let judging = tokio::task::spawn_blocking(move || defined.inbox.judge(message, validate));
        judging.await.map_err(|_| {
            let code = "task_ended";
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                code,
                "judging the events failed",
            )
        })??
    };
    match judged {
        Judged::Accepted(events) => {
            let count = events.len();
            let began = Instant::now();
            doors.outlet.publish(events).await?;
            doors.answered.stored(count, began.elapsed());
            Ok(())
        }
        Judged::Refused { elements, faults } => Err(Problem::refused(elements, faults)),
    }
}
