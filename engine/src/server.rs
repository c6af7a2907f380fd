//! Doors: what other programs ask, over HTTP and over the protocol of PostgreSQL.
//!
//! ```text
//!  POST /api/v1/events ─▶ body (bounded, unpacked) ─▶ inbox (judged whole) ─▶ outlet ─▶ JetStream ─▶ 204
//!  GET  /api/v1/meters/… ─▶ question ─▶ views (live, or what is committed) ─▶ answer ─▶ JSON, CSV
//! ```
//!
//! A door parses, calls and renders: what it calls is what the commands call. It owns forms, statuses and limits; it does
//! not own what an event is, what a meter's value is, or when anything happens.

mod accounts;
mod aside;
mod body;
mod customers;
mod definitions;
mod documents;
mod events;
mod health;
mod inbox;
mod incoming;
mod keyring;
mod lago;
mod meters;
mod metrics;
mod openapi;
mod otlp;
mod outlet;
mod parameters;
mod postgres;
mod problem;
mod rendering;
mod seats;
mod sql;
mod stream;
mod tls;
mod turns;
mod views;
mod watchdog;
mod worker;

use crate::{
    catalog::{Catalog, InForce},
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result, chain},
    live::Live,
    query::Bounds,
    reload::Reload,
    telemetry::{Progress, traces},
    view::View,
};
use aside::{Aside, aside};
use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    routing::{get, post},
};
use body::Bodies;
use bytes::Bytes;
use health::Readiness;
use inbox::Inbox;
use incoming::Incoming;
use keyring::{Keyring, admit};
use meters::offered::{Offered, offered};
use metrics::Answered;
use outlet::Outlet;
use problem::Problem;
use rustls::ServerConfig;
use std::{future::IntoFuture, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, lookup_host},
    runtime::Handle,
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tollgate_connectors::{ErrorKind, lake::Lake};
use tower_http::{compression::CompressionLayer, cors::CorsLayer};
use tracing::Instrument;
use turns::Turns;
use views::{Lakes, Views};
use worker::{Whole, Worker};

pub use worker::orders;

/// Where HTTP and the protocol of PostgreSQL are listened for, not answered yet.
#[derive(Debug)]
pub struct Door {
    http: Option<TcpListener>,
    postgres: Option<TcpListener>,
    statements: Statements,
    encryption: Option<Arc<ServerConfig>>,
    settings: Settings,
    /// Whether a request without a key is refused though there are no keys.
    needs_keys: bool,
}

/// Who answers statements of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statements {
    /// This process, which does nothing else.
    Here,
    /// Another one, which also speaks the protocol of PostgreSQL at this address.
    Worker(Option<SocketAddr>),
}

/// What is asked, and what requests have in common.
#[derive(Debug)]
struct Doors {
    settings: Settings,
    defined: watch::Receiver<Arc<Defined>>,
    lakes: Arc<Lakes>,
    outlet: Outlet,
    /// Takes the definitions folder again; `None` where that cannot be.
    reload: Option<Reload>,
    keyring: Keyring,
    /// The bodies of events, and all others: who asks much keeps nobody from publishing.
    events: Bodies,
    bodies: Bodies,
    answered: Answered,
    readiness: Readiness,
    stop: watch::Receiver<bool>,
    /// Where they are answered.
    aside: Handle,
    turns: Turns,
    /// Who answers statements; `None` when this process does.
    worker: Option<Worker>,
    /// Held while accounts are written.
    importing: Mutex<()>,
}

/// What follows from the definitions that are in force.
#[derive(Debug)]
struct Defined {
    in_force: InForce,
    views: Views,
    /// What can be asked of meters.
    offered: Vec<Offered>,
    inbox: Inbox,
}

/// The definitions that answers are made by.
#[derive(Debug)]
pub struct Defining {
    /// What is in force.
    pub in_force: watch::Receiver<InForce>,
    /// Takes the folder again; `None` where that cannot be.
    pub reload: Option<Reload>,
}

/// A shard that runs in this process.
#[derive(Debug)]
pub struct Beside {
    /// Asks it for live values.
    pub live: Live,
    /// How far it is.
    pub progress: watch::Receiver<Progress>,
}

impl Door {
    /// Listens where `http.listen` and `postgres.listen` say; `None` when both say nothing.
    ///
    /// # Errors
    /// An address is none, or another program has the port; or other machines can reach it, and there are no keys or is
    /// no TLS. The certificate cannot be used.
    pub async fn open(settings: &Settings) -> Result<Option<Self>> {
        let encryption = tls::encryption(settings)?;
        let is_encrypted = encryption.is_some();
        let http = ("http.listen", settings.http.listen.as_str());
        let postgres = ("postgres.listen", settings.postgres.listen.as_str());
        let (http, http_needs) = listen(settings, http, is_encrypted).await?;
        let (postgres, postgres_needs) = listen(settings, postgres, is_encrypted).await?;
        if http.is_none() && postgres.is_none() {
            return Ok(None);
        }
        // An origin that is none is found at the start.
        cors(&settings.http.cors_origins)?;
        let postgres = postgres.map(|listener| listener.local_addr()).transpose();
        let postgres = postgres.map_err(|source| Error::System {
            doing: "opening the door of PostgreSQL",
            source,
        })?;
        Ok(Some(Door {
            http,
            // It could be opened; who opens it is the worker.
            postgres: None,
            statements: Statements::Worker(postgres),
            encryption,
            settings: settings.clone(),
            needs_keys: http_needs || postgres_needs,
        }))
    }

    /// The doors of a process that answers statements for another one: HTTP in the clear, for that one alone, and the protocol of PostgreSQL.
    ///
    /// # Errors
    /// As [`Door::open`].
    pub async fn open_worker(settings: &Settings) -> Result<Self> {
        let encryption = tls::encryption(settings)?;
        let http = ("http.listen", settings.http.listen.as_str());
        let postgres = ("postgres.listen", settings.postgres.listen.as_str());
        let (http, _) = listen(settings, http, false).await?;
        let (postgres, needs_keys) = listen(settings, postgres, encryption.is_some()).await?;
        Ok(Door {
            http,
            postgres,
            statements: Statements::Here,
            encryption,
            settings: settings.clone(),
            needs_keys,
        })
    }

    /// Where HTTP is spoken; nothing where it is not.
    ///
    /// # Errors
    /// The system does not say.
    pub fn at(&self) -> Result<String> {
        let Some(listener) = &self.http else {
            return Ok(String::new());
        };
        let at = listener.local_addr().map_err(|source| Error::System {
            doing: "opening a door",
            source,
        })?;
        Ok(at.to_string())
    }

    /// Answers requests until `stop` becomes true and those that had come are answered. Without a shard beside it, answers
    /// come from the lake.
    ///
    /// # Errors
    /// The definitions make no decoder, or the system takes the listener away.
    pub async fn answer(
        self,
        definitions: Defining,
        beside: Option<Beside>,
        stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let Door {
            http,
            postgres,
            statements,
            encryption,
            settings,
            needs_keys,
        } = self;
        let (live, readiness) = match beside {
            Some(Beside { live, progress }) => (Some(live), Readiness::Shard(progress)),
            None => (None, Readiness::Lake),
        };
        let lakes = Arc::new(Lakes::new(&settings));
        let aside = Aside::start()?;
        let Defining { in_force, reload } = definitions;
        let turns = Turns::new(&settings.http);
        let (worker, encryption_of_http) = match statements {
            Statements::Here => {
                turns.guard(&settings.http)?;
                (None, None)
            }
            Statements::Worker(postgres) => {
                let worker = Worker::start(&settings, postgres, stop.clone());
                worker.answers().await;
                (Some(worker), encryption.clone())
            }
        };
        let following = Following {
            settings: settings.clone(),
            lakes: Arc::clone(&lakes),
            live,
            in_force,
            worker: worker.clone(),
        };
        let doors = Arc::new(Doors {
            defined: following.start()?,
            lakes,
            reload,
            outlet: Outlet::new(&settings),
            keyring: Keyring::new(needs_keys, &settings.http.cors_origins),
            events: Bodies::new(settings.http.body_bytes_max.0),
            bodies: Bodies::new(settings.http.body_bytes_max.0),
            answered: Answered::default(),
            readiness,
            stop: stop.clone(),
            aside: aside.handle().clone(),
            turns,
            worker,
            importing: Mutex::default(),
            settings,
        });
        let longest = doors.settings.http.timeout.duration();
        let answering = async {
            tokio::try_join!(
                answer_http(http, &doors, encryption_of_http),
                answer_postgres(postgres, &doors, encryption.clone()),
            )
        };
        tokio::select! {
            ended = answering => ended.map(|_| ()),
            () = async { stopped(stop).await; SystemClock.sleep(longest).await } => {
                tracing::warn!("doors closed with requests that did not end");
                Ok(())
            }
        }
    }
}

/// Makes what follows from definitions, each time that others come into force.
struct Following {
    settings: Settings,
    lakes: Arc<Lakes>,
    live: Option<Live>,
    in_force: watch::Receiver<InForce>,
    worker: Option<Worker>,
}

impl Following {
    /// What follows now, and later.
    ///
    /// # Errors
    /// The definitions make no decoder.
    fn start(mut self) -> Result<watch::Receiver<Arc<Defined>>> {
        let (sender, defined) = watch::channel(Arc::new(self.defined()?));
        tokio::spawn(async move {
            while self.in_force.changed().await.is_ok() {
                if let Some(worker) = &self.worker {
                    worker.reload().await;
                }
                match self.defined() {
                    Ok(defined) => drop(sender.send_replace(Arc::new(defined))),
                    Err(error) => {
                        let error = chain(&error);
                        tracing::error!(error, "definitions could not be answered by");
                    }
                }
            }
        });
        Ok(defined)
    }

    fn defined(&mut self) -> Result<Defined> {
        let in_force = self.in_force.borrow_and_update().clone();
        let catalog = &in_force.catalog;
        Ok(Defined {
            views: Views::new(&self.lakes, catalog, self.live.as_ref()),
            offered: offered(catalog),
            inbox: Inbox::new(&self.settings, catalog)?,
            in_force,
        })
    }
}

impl Defined {
    fn catalog(&self) -> &Arc<Catalog> {
        &self.in_force.catalog
    }
}

async fn answer_http(
    listener: Option<TcpListener>,
    doors: &Arc<Doors>,
    encryption: Option<Arc<ServerConfig>>,
) -> Result<()> {
    let failed = |source| Error::System {
        doing: "answering over HTTP",
        source,
    };
    let Some(listener) = listener else {
        return Ok(());
    };
    let address = listener.local_addr().map_err(failed)?;
    if doors.worker.is_some() {
        tracing::info!(%address, "HTTP opened");
    }
    // The head of a request, and the request itself.
    let patience = doors.settings.http.timeout.duration() * 2;
    let most = connections_max(doors.settings.http.connections_max.0, files_max()?);
    let incoming = Incoming::new(listener, encryption, patience, most);
    let router = router(Arc::clone(doors));
    let router = match cors(&doors.settings.http.cors_origins)? {
        Some(cors) => router.layer(cors),
        None => router,
    };
    axum::serve(incoming, router)
        .with_graceful_shutdown(stopped(doors.stop.clone()))
        .into_future()
        .await
        .map_err(failed)
}

/// How many files the process may open.
fn files_max() -> Result<usize> {
    let (soft, _) = rlimit::Resource::NOFILE
        .get()
        .map_err(|source| Error::System {
            doing: "asking how many files may be open",
            source,
        })?;
    Ok(usize::try_from(soft).unwrap_or(usize::MAX))
}

/// As many connections as are wanted, but never more than half of the files that may be open: the others are the lake's.
fn connections_max(wanted: usize, files_max: usize) -> usize {
    let most = files_max / 2;
    if most < wanted {
        tracing::warn!(
            files_max,
            "fewer connections are taken than http.connections_max, for want of files that may be open"
        );
    }
    wanted.min(most)
}

async fn answer_postgres(
    listener: Option<TcpListener>,
    doors: &Arc<Doors>,
    encryption: Option<Arc<ServerConfig>>,
) -> Result<()> {
    let Some(listener) = listener else {
        return Ok(());
    };
    // The process that started this one says where.
    postgres::answer(listener, Arc::clone(doors), encryption).await;
    Ok(())
}

/// Listens where a setting says, if it says something; and whether other machines can reach that.
async fn listen(
    settings: &Settings,
    (setting, listen): (&'static str, &str),
    is_encrypted: bool,
) -> Result<(Option<TcpListener>, bool)> {
    if listen.is_empty() {
        return Ok((None, false));
    }
    let address = address_of(setting, listen).await?;
    let is_reachable = !address.ip().is_loopback();
    if is_reachable {
        check_reachable(settings, (setting, listen), is_encrypted).await?;
    }
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let problem = format!(
            "`{listen}` could not be opened: {error}; if another program has the port, name another one"
        );
        unusable(setting, problem)
    })?;
    Ok((Some(listener), is_reachable))
}

/// Returns when the process stops.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone stands for the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Refuses an address that other machines can reach, unless callers have keys and send them where nobody reads along.
async fn check_reachable(
    settings: &Settings,
    (setting, listen): (&'static str, &str),
    is_encrypted: bool,
) -> Result<()> {
    let are_there = match Lake::open_to_read(&settings.lake.url, &settings.base).await {
        Ok(lake) => keyring::are_there(&lake).await?,
        // Where there is no lake yet, there are no keys.
        Err(error) if error.kind() == ErrorKind::Invalid => false,
        Err(error) => return Err(error.into()),
    };
    let missing = match are_there {
        false => "there are no keys that tell who asks; make one with `tollgate keys create`",
        true if !is_encrypted && !settings.http.behind_tls => {
            "what is sent there is not encrypted; name a certificate in [tls], or put a proxy that speaks TLS before it and set \
             http.behind_tls to true"
        }
        true => return Ok(()),
    };
    let problem = format!(
        "`{listen}` can be reached from other machines, and {missing}, or write a loopback address such as 127.0.0.1:8080"
    );
    Err(unusable(setting, problem))
}

async fn address_of(setting: &'static str, listen: &str) -> Result<SocketAddr> {
    let found = lookup_host(listen).await;
    let first = found.ok().and_then(|mut found| found.next());
    first.ok_or_else(|| {
        let problem =
            format!("`{listen}` is no address; write a host and a port, such as 127.0.0.1:8080");
        unusable(setting, problem)
    })
}

/// A setting with which no door opens.
fn unusable(setting: &str, problem: String) -> Error {
    Error::Config {
        file: setting.into(),
        problem,
    }
}

impl Doors {
    /// The body of a request, which has at most `http.body_bytes_max`.
    async fn body(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
        self.bodies.read(headers, body).await
    }

    /// The same of events.
    async fn events(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
        self.events.read(headers, body).await
    }

    /// What follows from the definitions that are in force.
    fn defined(&self) -> Arc<Defined> {
        Arc::clone(&self.defined.borrow())
    }

    /// What follows from the definitions that came into force after others.
    async fn defined_after(&self, before: &Arc<Defined>) -> Arc<Defined> {
        let mut defined = self.defined.clone();
        let later = defined.wait_for(|defined| !Arc::ptr_eq(defined, before));
        // The process stops when there is no later one.
        later
            .await
            .map_or_else(|_| Arc::clone(before), |later| Arc::clone(&later))
    }

    /// Usage as it is known now, with the definitions that it was measured by.
    ///
    /// # Errors
    /// The lake cannot be read, or no shard runs.
    async fn usage(&self) -> Result<(Arc<Defined>, Arc<View>)> {
        let mut following = self.defined.clone();
        loop {
            let defined = Arc::clone(&following.borrow_and_update());
            match defined.views.usage().await {
                // The shard has taken others, which are known here at once.
                Err(Error::Redefined) if following.changed().await.is_ok() => {}
                view => return Ok((defined, view?)),
            }
        }
    }

    /// What a statement may take.
    fn bounds(&self) -> Bounds {
        let http = &self.settings.http;
        Bounds {
            bytes_max: Some(http.query_bytes_max.0),
            rows_max: Some(http.rows_max.0),
        }
    }
}

fn router(doors: Arc<Doors>) -> Router {
    Router::new()
        .route("/health/live", get(health::live))
        .route("/livez", get(health::live))
        .route("/healthz", get(health::live))
        .route("/healthz/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/readyz", get(health::ready))
        .route("/healthz/ready", get(health::ready))
        .route("/api/v1/events", post(events::publish))
        .route("/api/v1/definitions/reload", post(definitions::reload))
        .route("/metrics", get(metrics::show))
        .route("/openapi.json", get(openapi::show))
        .route("/v1/traces", post(otlp::export))
        .route("/lago/api/v1/events", post(lago::one))
        .route("/lago/api/v1/events/batch", post(lago::batch))
        .merge(questions(&doors))
        .layer(from_fn_with_state(Arc::clone(&doors), admit))
        .layer(from_fn_with_state(Arc::clone(&doors), bounded))
        .layer(CompressionLayer::new())
        .with_state(doors)
}

/// What reads, plans or checks so much that it goes second to metering.
fn questions(doors: &Arc<Doors>) -> Router<Arc<Doors>> {
    Router::new()
        .route("/api/v1/meters", get(meters::list))
        .route("/api/v1/meters/{meter}", get(meters::get))
        .route("/api/v1/meters/{meter}/subjects", get(meters::subjects))
        .route(
            "/api/v1/meters/{meter}/query",
            get(meters::query_url).post(meters::query_body),
        )
        .route("/api/v1/invoices/{number}", get(documents::one))
        .route(
            "/api/v1/customers/{customer}/invoices",
            get(documents::of_customer),
        )
        .route("/api/v1/customers/{customer}/usage", get(customers::usage))
        .route("/api/v1/customers/{customer}/spend", get(customers::spend))
        .route(
            "/api/v1/customers/{customer}/balance",
            get(customers::balance),
        )
        .route("/api/v1/accounts", post(accounts::post))
        .route("/api/v1/customers", get(accounts::all))
        .route(
            "/api/v1/customers/{customer}",
            get(accounts::one).put(accounts::put),
        )
        .route("/api/v1/subjects", get(accounts::all))
        .route(
            "/api/v1/subjects/{subject}",
            get(accounts::one).put(accounts::put),
        )
        .route("/api/v1/subscriptions", get(accounts::all))
        .route(
            "/api/v1/subscriptions/{subscription}",
            get(accounts::one).put(accounts::put),
        )
        .route("/api/v1/grants", get(accounts::all))
        .route(
            "/api/v1/grants/{grant}",
            get(accounts::one).put(accounts::put),
        )
        .route("/api/v1/one_offs", get(accounts::all))
        .route(
            "/api/v1/one_offs/{one_off}",
            get(accounts::one).put(accounts::put),
        )
        .route("/api/v1/discounts", get(accounts::all))
        .route(
            "/api/v1/discounts/{discount}",
            get(accounts::one).put(accounts::put),
        )
        .route("/api/v1/definitions", get(definitions::show))
        .route("/api/v1/definitions/check", post(definitions::check))
        .route("/api/v1/query", post(sql::answer))
        .layer(from_fn_with_state(Arc::clone(doors), aside))
}

/// Ends what takes too long, says what is wrong in one form, and counts.
async fn bounded(State(doors): State<Arc<Doors>>, request: Request, next: Next) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let known = known(&request);
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("other", MatchedPath::as_str).to_owned();
    let began = Instant::now();
    let longest = doors.settings.http.timeout.duration();
    let span = traces::of_request(request.method(), &route, request.headers());
    let answering = timeout(longest, next.run(request)).instrument(span.clone());
    let mut response = match answering.await {
        Ok(response) => explained(response, &path, &route),
        Err(_) => {
            let detail = "the request took longer than http.timeout; what it wanted stored may be sent again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", detail).answer(&path)
        }
    };
    if is_known(&known, &response) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    let nosniff = HeaderValue::from_static("nosniff");
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    traces::answered(&span, response.status());
    doors
        .answered
        .count(&route, response.status().as_u16(), began.elapsed());
    response
}

/// The tags of answers that a caller has already, if it reads.
fn known(request: &Request) -> Vec<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Vec::new();
    }
    let given = request.headers().get_all(header::IF_NONE_MATCH).iter();
    let given = given.filter_map(|given| given.to_str().ok());
    let tags = given.flat_map(|given| given.split(','));
    tags.map(|tag| tag.trim().to_owned()).collect()
}

/// Whether a caller has this answer already.
fn is_known(known: &[String], response: &Response<Body>) -> bool {
    let tag = response.headers().get(header::ETAG);
    let Some(tag) = tag.and_then(|tag| tag.to_str().ok()) else {
        return false;
    };
    // As a weak tag: what is compared is the same content, not the same bytes.
    let opaque = |tag: &str| tag.trim_start_matches("W/").to_owned();
    let is_same = |known: &String| known == "*" || opaque(known) == opaque(tag);
    response.status() == StatusCode::OK && known.iter().any(is_same)
}

/// Which pages of other origins a browser lets ask.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let mut allowed = Vec::with_capacity(origins.len());
    for origin in origins {
        let is_origin = url::Url::parse(origin).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.origin().ascii_serialization() == *origin
        });
        let value = HeaderValue::from_str(origin).ok().filter(|_| is_origin);
        allowed.push(value.ok_or_else(|| Error::Config {
            file: "http.cors_origins".into(),
            problem: format!("`{origin}` is no origin such as https://app.example.com"),
        })?);
    }
    let sent = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        HeaderName::from_static("idempotency-key"),
    ];
    let read = [
        header::ETAG,
        header::RETRY_AFTER,
        HeaderName::from_static("tollgate-cut"),
        HeaderName::from_static("tollgate-cut-age-ms"),
        HeaderName::from_static("idempotency-replayed"),
    ];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers(sent)
        .expose_headers(read)
        .max_age(CORS_AGE);
    Ok(Some(layer))
}

/// So long a browser remembers what it may ask.
const CORS_AGE: Duration = Duration::from_secs(3_600);

/// An answer whose problem, if it is one, is written out.
fn explained(response: Response<Body>, path: &str, route: &str) -> Response<Body> {
    if response.extensions().get::<Whole>().is_some() {
        return response;
    }
    if let Some(problem) = response.extensions().get::<Problem>() {
        tracing::debug!(path, problem = %problem, "request was refused");
        return problem.answer(path);
    }
    let problem = match response.status() {
        StatusCode::NOT_FOUND => Problem::not_found(format!("there is nothing at `{path}`")),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allow = keyring::methods(route).join(", ");
            let detail = format!("`{path}` takes {allow}");
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
                .with_allow(allow)
        }
        // What the router itself refuses: a path that is not UTF-8.
        StatusCode::BAD_REQUEST => Problem::parameter("the request could not be read"),
        _ => return response,
    };
    problem.answer(path)
}
