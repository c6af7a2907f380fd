//! Traces to a collector, by OTLP over HTTP, where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names one.
//!
//! What is sent is what the program does that takes time: requests over HTTP, and flushes. Other `OTEL_…` variables are read as the
//! specification of OpenTelemetry says: the service's name, headers, timeouts, sampling.

use crate::error::{Error, Result};
use async_trait::async_trait;
use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use std::{env, time::Duration};
use tokio::runtime::Handle;
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// Makes spans and sends them; `None` where no variable names a collector. Must be called on the runtime that sends.
///
/// # Errors
/// The variable holds no address.
pub(super) fn provider() -> Result<Option<SdkTracerProvider>> {
    let is_set = |variable: &&&str| env::var_os(variable).is_some_and(|value| !value.is_empty());
    let Some(variable) = ENDPOINTS.iter().find(is_set) else {
        return Ok(None);
    };
    let client = OnRuntime {
        runtime: Handle::current(),
        client: reqwest::Client::new(),
    };
    let exporter = SpanExporter::builder().with_http();
    let exporter = exporter.with_http_client(client).build();
    let exporter = exporter.map_err(|error| Error::Config {
        file: (*variable).to_owned(),
        problem: format!("{error}; write an address such as http://127.0.0.1:4318"),
    })?;
    let mut resource = Resource::builder();
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("tollgate");
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
    Ok(Some(provider.with_resource(resource.build()).build()))
}

/// The span of a request, within the caller's trace where its headers name one.
pub(crate) fn of_request(method: &Method, route: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        // Without a layer that takes it there is no trace to be in.
        let _ = span.set_parent(parent);
    }
    span
}

/// Says how a request was answered.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Sends what is left, which may take some seconds.
pub(super) async fn end(provider: SdkTracerProvider) {
    let ended =
        tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(Duration::from_secs(5)));
    if let Ok(Err(error)) = ended.await {
        tracing::warn!(%error, "the last traces were not sent");
    }
}

/// Spans are sent from a thread that has no runtime of its own.
#[derive(Debug)]
struct OnRuntime {
    runtime: Handle,
    client: reqwest::Client,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let answer = client.execute(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        });
        let (status, headers, body) = sending.await??;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}
