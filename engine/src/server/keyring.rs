//! Who asks, and whether that is allowed: one table of routes and roles.

use super::{Doors, problem::Problem};
use crate::{
    billing::accounts,
    clock::{Clock, SystemClock},
    error::Result as Done,
    keys::{self, Key, Known, Role},
    view::Own,
};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, Response, StatusCode, header},
    middleware::Next,
    response::IntoResponse,
};
use jiff::Timestamp;
use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};
use tokio::sync::Mutex;
use tollgate_connectors::lake::Lake;
use url::{Host, Url};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever reaches the address.
    Open,
    /// Holders of keys with these roles.
    To(&'static [Role]),
}

const PUBLISHERS: Access = Access::To(&[Role::Ingest, Role::Admin]);
const ADMINS: Access = Access::To(&[Role::Admin]);
const READERS: Access = Access::To(&[Role::Read, Role::Admin]);
/// A customer sees its own.
const CUSTOMERS: Access = Access::To(&[Role::Read, Role::Customer, Role::Admin]);

/// Every route, and who may use it. A route that is not here is closed to everyone.
pub(super) const ROUTES: &[(&str, &str, Access)] = &[
    ("GET", "/health/live", Access::Open),
    ("GET", "/livez", Access::Open),
    ("GET", "/healthz", Access::Open),
    ("GET", "/healthz/live", Access::Open),
    ("GET", "/health/ready", Access::Open),
    ("GET", "/readyz", Access::Open),
    ("GET", "/healthz/ready", Access::Open),
    ("GET", "/openapi.json", Access::Open),
    ("POST", "/api/v1/events", PUBLISHERS),
    ("POST", "/lago/api/v1/events", PUBLISHERS),
    ("POST", "/lago/api/v1/events/batch", PUBLISHERS),
    ("POST", "/v1/traces", PUBLISHERS),
    ("GET", "/api/v1/meters", CUSTOMERS),
    ("GET", "/api/v1/meters/{meter}", CUSTOMERS),
    ("GET", "/api/v1/meters/{meter}/subjects", CUSTOMERS),
    ("GET", "/api/v1/meters/{meter}/query", CUSTOMERS),
    ("POST", "/api/v1/meters/{meter}/query", CUSTOMERS),
    ("GET", "/api/v1/invoices/{number}", CUSTOMERS),
    ("GET", "/api/v1/customers/{customer}/invoices", CUSTOMERS),
    ("GET", "/api/v1/customers/{customer}/usage", CUSTOMERS),
    ("GET", "/api/v1/customers/{customer}/spend", CUSTOMERS),
    ("GET", "/api/v1/customers/{customer}/balance", CUSTOMERS),
    ("POST", "/api/v1/accounts", ADMINS),
    ("GET", "/api/v1/customers", CUSTOMERS),
    ("GET", "/api/v1/customers/{customer}", CUSTOMERS),
    ("PUT", "/api/v1/customers/{customer}", ADMINS),
    ("GET", "/api/v1/subjects", CUSTOMERS),
    ("GET", "/api/v1/subjects/{subject}", CUSTOMERS),
    ("PUT", "/api/v1/subjects/{subject}", ADMINS),
    ("GET", "/api/v1/subscriptions", CUSTOMERS),
    ("GET", "/api/v1/subscriptions/{subscription}", CUSTOMERS),
    ("PUT", "/api/v1/subscriptions/{subscription}", ADMINS),
    ("GET", "/api/v1/grants", CUSTOMERS),
    ("GET", "/api/v1/grants/{grant}", CUSTOMERS),
    ("PUT", "/api/v1/grants/{grant}", ADMINS),
    ("GET", "/api/v1/one_offs", CUSTOMERS),
    ("GET", "/api/v1/one_offs/{one_off}", CUSTOMERS),
    ("PUT", "/api/v1/one_offs/{one_off}", ADMINS),
    ("GET", "/api/v1/discounts", CUSTOMERS),
    ("GET", "/api/v1/discounts/{discount}", CUSTOMERS),
    ("PUT", "/api/v1/discounts/{discount}", ADMINS),
    ("GET", "/api/v1/definitions", READERS),
    ("POST", "/api/v1/definitions/check", ADMINS),
    ("POST", "/api/v1/definitions/reload", ADMINS),
    ("POST", "/api/v1/query", CUSTOMERS),
    ("GET", "/metrics", READERS),
];

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    role: Role,
    customer: Option<String>,
}

/// Keys as they were last read, and what was noted of their use.
#[derive(Debug)]
pub(super) struct Keyring {
    /// Whether a request without a key is refused though there are no keys.
    is_needed: bool,
    /// Origins whose pages may ask.
    origins: Vec<String>,
    read: Mutex<Option<(i64, Arc<Vec<Known>>)>>,
    noted: std::sync::Mutex<BTreeSet<(String, String)>>,
}

/// Keys are read again after this long, so a revoked one is refused by then.
const READ_EVERY_US: i64 = 5_000_000;

/// A key that is not known may be new: they are read again for it, at most this often.
const READ_AGAIN_US: i64 = 1_000_000;

/// Whether there is a key, be it revoked: from the first one on, requests need one.
///
/// # Errors
/// The lake cannot be read.
pub(super) async fn are_there(lake: &Lake) -> Done<bool> {
    Ok(!keys::list(lake).await?.is_empty())
}

impl Keyring {
    pub(super) fn new(is_needed: bool, origins: &[String]) -> Self {
        Keyring {
            is_needed,
            origins: origins.to_vec(),
            read: Mutex::default(),
            noted: std::sync::Mutex::default(),
        }
    }

    /// Who sent a request.
    ///
    /// # Errors
    /// There are keys, and the request has none that is valid.
    async fn caller(&self, lake: &Lake, headers: &HeaderMap) -> Result<Caller, Problem> {
        let now_us = SystemClock.now_us();
        let known = self.known(lake, now_us, READ_EVERY_US).await?;
        if known.is_empty() && !self.is_needed {
            check_is_here(headers, &self.origins)?;
            return Ok(Caller::anyone());
        }
        let token = token(headers).ok_or_else(|| {
            unauthorized(
                "send a key as `Authorization: Bearer …`; `tollgate keys create` makes one",
            )
        })?;
        let key = match keys::admitted(&known, token, now_us) {
            Some(key) => key.clone(),
            None => {
                let known = self.known(lake, now_us, READ_AGAIN_US).await?;
                let key = keys::admitted(&known, token, now_us).cloned();
                key.ok_or_else(|| {
                    unauthorized("the key is not valid: it is unknown, has expired, or was revoked")
                })?
            }
        };
        self.note_use(lake, &key, now_us);
        Ok(Caller::of(&key))
    }

    async fn known(&self, lake: &Lake, now_us: i64, age_max_us: i64) -> Done<Arc<Vec<Known>>> {
        let mut read = self.read.lock().await;
        if let Some((read_us, known)) = &*read {
            // The first key closes the doors.
            let age_max_us = match known.is_empty() {
                true => age_max_us.min(READ_AGAIN_US),
                false => age_max_us,
            };
            if now_us.saturating_sub(*read_us) < age_max_us {
                return Ok(Arc::clone(known));
            }
        }
        let known = Arc::new(keys::list(lake).await?);
        *read = Some((now_us, Arc::clone(&known)));
        Ok(known)
    }

    /// Who comes with the id of a key as its name, without having proven anything.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(super) async fn holder(&self, lake: &Lake, id: &str) -> Done<Holder> {
        let now_us = SystemClock.now_us();
        let of_id = |known: &Vec<Known>| known.iter().find(|known| known.key.id == id).cloned();
        let known = self.known(lake, now_us, READ_EVERY_US).await?;
        if known.is_empty() && !self.is_needed {
            return Ok(Holder::Anyone);
        }
        let found = match of_id(&known) {
            Some(found) => Some(found),
            None => of_id(&*self.known(lake, now_us, READ_AGAIN_US).await?),
        };
        Ok(found.map_or(Holder::Nobody, |known| Holder::Key(Box::new(known))))
    }

    /// Whether a key that somebody came in with is still valid.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub(super) async fn is_valid(&self, lake: &Lake, id: &str) -> Done<bool> {
        let now_us = SystemClock.now_us();
        let known = self.known(lake, now_us, READ_EVERY_US).await?;
        let known = known.iter().find(|known| known.key.id == id);
        Ok(known.is_some_and(|known| known.is_valid(now_us)))
    }

    /// Notes the day, once for each key in each process; no request waits for it.
    pub(super) fn note_use(&self, lake: &Lake, key: &Key, now_us: i64) {
        let day = Timestamp::from_microsecond(now_us).unwrap_or_default();
        let day = day.strftime("%Y-%m-%d").to_string();
        let use_of = (key.id.clone(), day);
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if !noted.insert(use_of.clone()) {
            return;
        }
        let store = Lake::of(lake.store().clone());
        tokio::spawn(async move {
            let (id, day) = use_of;
            if let Err(error) = keys::note_use(&store, &id, &day).await {
                tracing::warn!(key = id, error = %error, "use of a key could not be noted");
            }
        });
    }
}

/// Refuses what a page in a browser on this machine asks for somebody else. Without keys only this machine may ask, and a browser asks for every
/// page that it shows: such a request has the page's origin, or the name by which the page calls this address.
fn check_is_here(headers: &HeaderMap, origins: &[String]) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let refused = |what: &str| {
        let detail = format!(
            "{what}; without keys only programs of this machine may ask: make a key with `tollgate keys create`, or name the page's origin in \
             http.cors_origins"
        );
        Err(forbidden(detail))
    };
    if let Some(host) = text(header::HOST)
        && !is_here(host)
    {
        return refused(&format!("`Host` is `{host}`, which is not this machine's"));
    }
    match text(header::ORIGIN) {
        Some(origin) if !origins.iter().any(|known| known == origin) && !is_local(origin) => {
            refused(&format!("the request comes from a page of `{origin}`"))
        }
        _ => Ok(()),
    }
}

/// Whether an authority is this machine: `localhost` or a loopback address, with any port.
fn is_here(authority: &str) -> bool {
    let url = Url::parse(&format!("http://{authority}/"));
    match url.as_ref().map(Url::host) {
        Ok(Some(Host::Domain(name))) => name == "localhost" || name.ends_with(".localhost"),
        Ok(Some(Host::Ipv4(address))) => address.is_loopback(),
        Ok(Some(Host::Ipv6(address))) => address.is_loopback(),
        Ok(None) | Err(_) => false,
    }
}

/// Whether an origin is a page that this machine serves.
fn is_local(origin: &str) -> bool {
    let authority = ["http://", "https://"].iter();
    let mut authority = authority.filter_map(|scheme| origin.strip_prefix(scheme));
    authority.any(is_here)
}

/// Whom a name belongs to.
#[derive(Debug)]
pub(super) enum Holder {
    /// There are no keys, and none is needed.
    Anyone,
    /// A key, valid or not.
    Key(Box<Known>),
    /// No key.
    Nobody,
}

impl Caller {
    /// Whoever comes where no key is needed.
    pub(super) fn anyone() -> Self {
        Caller {
            role: Role::Admin,
            customer: None,
        }
    }

    /// Who has a key.
    pub(super) fn of(key: &Key) -> Self {
        Caller {
            role: key.role,
            customer: key.customer.clone(),
        }
    }

    /// Whose rows the caller may read; everyone's when `None`.
    pub(super) async fn own(&self, doors: &Doors) -> Done<Option<Own>> {
        let subjects = self.subjects(doors).await?;
        let customer = self.customer().unwrap_or_default();
        Ok(subjects.map(|subjects| Own::new(customer, subjects)))
    }

    /// Whose data the caller may see; `None` stands for everyone's.
    pub(super) fn customer(&self) -> Option<&str> {
        match self.role {
            // A key without a customer sees nothing.
            Role::Customer => Some(self.customer.as_deref().unwrap_or_default()),
            Role::Ingest | Role::Read | Role::Admin => None,
        }
    }

    /// Refuses what is asked about another customer than the caller may see, as one that is not there.
    pub(super) fn check_sees(&self, customer: &str) -> Result<(), Problem> {
        match self.customer() {
            Some(mine) if mine != customer => Err(Problem::no_customer(customer)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whose usage the caller may see; `None` stands for everyone's.
    ///
    /// With accounts these are the subjects for which the caller's customer alone ever pays: of one that another customer paid
    /// for at some time, no usage is shown.
    pub(super) async fn subjects(&self, doors: &Doors) -> Done<Option<Vec<String>>> {
        let customer = match (self.role, &self.customer) {
            (Role::Customer, Some(customer)) => customer,
            (Role::Customer, None) => return Ok(Some(Vec::new())),
            (Role::Ingest | Role::Read | Role::Admin, _) => return Ok(None),
        };
        let lake = doors.lakes.to_read().await?;
        if !accounts::are_there(lake).await? {
            // Every subject is its own customer.
            return Ok(Some(vec![customer.clone()]));
        }
        let rows = accounts::load_of(lake, customer).await?.subjects;
        let others = rows.iter().filter(|row| row.customer != *customer);
        let others: BTreeSet<&String> = others.map(|row| &row.subject).collect();
        let all: BTreeSet<&String> = rows.iter().map(|row| &row.subject).collect();
        Ok(Some(
            all.difference(&others)
                .map(|subject| (*subject).clone())
                .collect(),
        ))
    }
}

/// Lets a request in that may use its route, and tells the route who asks.
pub(super) async fn admit(
    State(doors): State<Arc<Doors>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // There is no such route, which is said to everyone.
        return next.run(request).await;
    };
    let roles = match access(request.method(), path.as_str()) {
        Found::At(Access::Open) | Found::OtherMethod => return next.run(request).await,
        Found::At(Access::To(roles)) => roles,
        Found::Nothing => return forbidden("no role may use this route").into_response(),
    };
    // A body cannot be shared between threads, and a request has one.
    let headers = request.headers().clone();
    let caller = async {
        let lake = doors.lakes.to_read().await?;
        doors.keyring.caller(lake, &headers).await
    };
    match caller.await {
        Ok(caller) if roles.contains(&caller.role) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Ok(Caller { role, .. }) => {
            forbidden(format!("a key of the role `{role}` may not do this")).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// The methods that a route takes.
pub(super) fn methods(route: &str) -> Vec<&'static str> {
    let of_route = ROUTES.iter().filter(|(_, known, _)| *known == route);
    of_route.map(|(method, _, _)| *method).collect()
}

/// What the table says of a request.
enum Found {
    At(Access),
    /// The path takes other methods.
    OtherMethod,
    Nothing,
}

fn access(method: &Method, path: &str) -> Found {
    // What can be asked with GET can be asked with HEAD.
    let method = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let at_path = || ROUTES.iter().filter(|(_, known, _)| *known == path);
    match at_path().find(|(known, _, _)| known == method) {
        Some((_, _, access)) => Found::At(*access),
        None if at_path().next().is_some() => Found::OtherMethod,
        None => Found::Nothing,
    }
}

/// The token that a request brings; the word before it is compared without case.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (given.next(), given.next()) else {
        return None;
    };
    let (scheme, token) = one.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_a_page_of_somebody_else_asks_nothing() {
        let asks = |host: &str, origin: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("host", host), ("origin", origin)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            check_is_here(&headers, &["https://app.example.com".to_owned()]).is_ok()
        };
        for host in [
            "",
            "localhost",
            "127.0.0.1:8080",
            "[::1]:8080",
            "api.localhost:1",
        ] {
            assert!(asks(host, ""), "{host}");
            assert!(asks(host, "https://app.example.com"), "{host}");
            assert!(asks(host, "http://localhost:3000"), "{host}");
            for origin in [
                "https://evil.example",
                "null",
                "http://localhost.evil.example",
            ] {
                assert!(!asks(host, origin), "{host} {origin}");
            }
        }
        for host in [
            "evil.example",
            "10.0.0.1:8080",
            "localhost.evil.example",
            "?",
        ] {
            assert!(!asks(host, ""), "{host}");
        }
    }
}
