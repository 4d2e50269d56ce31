//! The edge: the routes, the one handler behind every paid route, and what every answer carries.

mod accounts;
mod acme;
mod certificate;
mod count;
mod credentials;
mod crowd;
mod discovery;
mod door;
mod edition;
mod h2;
mod health;
mod jobs;
mod limits;
mod numbers;
mod openapi;
mod operator;
mod orders;
mod pages;
mod paid;
mod payment_required;
mod public;
mod respond;
mod routes;
mod table;
mod topup;
mod wallet;
mod watched;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::{Server, Service as _};
use actix_web::{App, web};

use crate::config::Config;
use crate::gateway::Gateway;

pub use acme::looked_up;
pub use certificate::{Certificate, Standing};
use door::Door;
pub use edition::{CannotReload, Editions};
use edition::{Desk, Today};
use limits::{BodyMemory, RateLimits};
pub use numbers::start as start_numbers;

/// Sockets per worker thread; beyond them new connections wait.
const CONNECTIONS: usize = 25_000;
/// Open files beside those of calls and of callers: the ledger, listeners, idle connections to upstreams and nodes.
pub const SPARE_FILES: usize = 512;
/// Bytes of an answer that wait in here for a client that reads slowly.
const UNWRITTEN: usize = 8 * 1024;
/// How long a request head may take to arrive.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may be silent between two requests: longer than most clients keep one (Node 4 s, httpx 5 s, proxies a
/// minute). Whoever closes it crosses the other's next request, and a client whose request is lost so may not know it.
const IDLE: Duration = Duration::from_secs(75);
/// The same for newcomers while more than half of the places are taken that there are.
const CROWDED_IDLE: Duration = Duration::from_secs(5);
/// How long a closing connection may linger.
const LINGER: Duration = Duration::from_secs(5);
/// Changes of keys that are made at the same time, those that end one not counted. They are made one by one anyway.
const CHANGES_AT_ONCE: usize = 2;
/// How often quiet callers are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Starts to serve. The server runs until it is stopped; running calls may then finish within their time limit. What it sells
/// can be changed meanwhile. Callers take no more of the `files` that may be open than leaves every call its upstream.
///
/// # Errors
/// The listener cannot be used, or there is no TLS to speak.
pub fn start(
    config: &Config,
    gateway: Arc<Gateway>,
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    files: usize,
) -> std::io::Result<(Server, Editions)> {
    let tls = certificate.as_ref().map(|certificate| certificate.server()).transpose().map_err(std::io::Error::other)?;
    if let Some(certificate) = &certificate {
        actix_web::rt::spawn(Arc::clone(certificate).keep());
    }
    let clock = gateway.clock().clone();
    let editions = Editions::new(config, gateway, certificate, files);
    actix_web::rt::spawn(editions.clone().forget_quiet_callers());
    let (shared, crowd) = (editions.clone(), editions.crowd());
    let app = move |orders| {
        let desk = Desk::open(shared.clone(), orders).expect("the same list was checked before the server started");
        App::new().configure(routes::configure).default_service(web::to(public::not_found)).wrap_fn(
            move |mut request, service| {
                let Today { edge, container } = desk.today();
                request.add_data_container(container);
                routes::collapse_leading_slashes(&mut request);
                let begun = Instant::now();
                let passport = respond::enter(&edge, &mut request);
                let next = passport.is_ok().then(|| service.call(request));
                async move { respond::leave(passport, next, begun).await }
            },
        )
    };
    Ok((door::open(Door { tls, crowd, clock }, listener, app)?, editions))
}
