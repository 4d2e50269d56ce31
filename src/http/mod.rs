//! The edge: the routes, the one handler behind every paid route, and what every answer carries.

mod accounts;
mod caller;
mod count;
mod credentials;
mod discovery;
mod jobs;
mod limits;
mod openapi;
mod paid;
mod payment_required;
mod public;
mod respond;
mod routes;
mod table;
mod topup;
mod wallet;

use std::cell::RefCell;
use std::future::ready;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::dev::{AppConfig, Server, Service as _};
use actix_web::rt::net::TcpStream;
use actix_web::{App, web};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::gateway::{Gateway, Shelf, Worker};
use crate::upstream::{Health, Upstreams};

use caller::Caller;
use discovery::Documents;
use limits::{BodyMemory, RateLimits};

/// Sockets per worker thread; beyond them new connections wait. There is no bound per address: behind a proxy all callers
/// have the same one, and a socket that asks for nothing, or takes none of its answers, is closed after a while anyway.
const CONNECTIONS: usize = 25_000;
/// Bytes of an answer that wait in here for a client that reads slowly.
const UNWRITTEN: usize = 8 * 1024;
/// How long a request head may take to arrive.
const HEAD: Duration = Duration::from_secs(10);
/// The part of [`Limits::body_time`](crate::config::Limits::body_time) after which a caller that takes nothing of its
/// answers is cut. Longer than a paid answer waits for its client, which has a limit of its own.
const UNREAD: u32 = 2;
/// How long a closing connection may linger.
const LINGER: Duration = Duration::from_secs(5);
/// Changes of keys that are made at the same time, those that end one not counted. They are made one by one anyway.
const CHANGES_AT_ONCE: usize = 2;
/// How often quiet callers are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Starts to serve. The server runs until it is stopped; running calls may then finish within their time limit.
pub fn start(config: &Config, gateway: Arc<Gateway>, listener: TcpListener) -> std::io::Result<Server> {
    let limits = Arc::new(RateLimits::new(&config.limits, config.trusted_proxies.clone()));
    actix_web::rt::spawn(forget_quiet_callers(Arc::clone(&limits)));
    let bodies = Arc::new(BodyMemory::new(config.limits.max_bodies));
    let turns = Arc::new(Semaphore::new(CHANGES_AT_ONCE));
    let upstreams = config.upstreams.clone();
    let health = Health::new(&upstreams, config.failover);
    let unread = config.limits.body_time / UNREAD;
    let address = listener.local_addr()?;
    let server = Server::build().max_concurrent_connections(CONNECTIONS).disable_signals();
    let server = server.shutdown_timeout(config.limits.wall_clock.as_secs() + LINGER.as_secs());
    let stopping = server.graceful_shutdown_signal();
    let server = server.listen("farebox", listener, move || {
        let connections = Upstreams::sharing(&upstreams, health.clone());
        let connections = connections.expect("the same list was checked before the server started");
        let shelf = Rc::default();
        actix_web::rt::spawn(Shelf::look_after(Rc::downgrade(&shelf)));
        let worker = Rc::new(Worker { gateway: Arc::clone(&gateway), upstreams: connections, shelf });
        let edge = Rc::new(respond::Edge {
            gateway: Arc::clone(&gateway),
            limits: Arc::clone(&limits),
            bodies: Arc::clone(&bodies),
            turns: Arc::clone(&turns),
            lots: RefCell::default(),
            documents: Documents::default(),
        });
        let wrap = Rc::clone(&edge);
        let app = App::new()
            .app_data(worker)
            .app_data(edge)
            .configure(routes::configure)
            .default_service(web::to(public::not_found))
            .wrap_fn(move |mut request, service| {
                routes::collapse_leading_slashes(&mut request);
                let passport = respond::enter(&wrap, &mut request);
                let next = passport.is_ok().then(|| service.call(request));
                async move { respond::leave(passport, next).await }
            });
        let app = app.into_factory().map_err(|error| error.error_response());
        let stopping = stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(KeepAlive::default())
            .client_request_timeout(HEAD)
            .client_disconnect_timeout(LINGER)
            // A client that closes its side has left: without this it would go unnoticed while the upstream is silent.
            .h1_allow_half_closed(false)
            .h1_write_buffer_size(UNWRITTEN)
            .local_addr(address)
            .h1(map_config(app, |()| AppConfig::default()));
        fn_service(move |tcp: TcpStream| ready(Ok(Caller::accept(tcp, unread)))).and_then(http)
    })?;
    Ok(server.run())
}

/// Memory must not grow with the number of callers ever seen.
async fn forget_quiet_callers(limits: Arc<RateLimits>) {
    loop {
        actix_web::rt::time::sleep(FORGET_EVERY).await;
        limits.forget_quiet();
    }
}
