//! What is sold, and by which limits, as one edition that never changes: a reload publishes the next one, and every request ends
//! with the one it began with.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::Extensions;
use tokio::sync::{Semaphore, watch};

use super::certificate::{Certificate, Standing};
use super::crowd::Crowd;
use super::discovery::Documents;
use super::limits::{BodyMemory, RateLimits};
use super::orders::Orders;
use super::pages::Pages;
use super::respond::Edge;
use super::{CHANGES_AT_ONCE, FORGET_EVERY};
use crate::clock::Timestamp;
use crate::config::{self, Cidr, Config};
use crate::gateway::{CannotStart, Gateway, Keyring, Shelf, Worker};
use crate::upstream::{UpstreamConfigError, Upstreams};

/// How long after a failure a thread tries again to take up an edition.
const AGAIN: Duration = Duration::from_secs(1);

/// One edition, as all threads share it.
struct Edition {
    gateway: Arc<Gateway>,
    limits: Arc<RateLimits>,
    proxies: Vec<Cidr>,
    pages: Arc<Pages>,
    upstreams: Vec<config::Upstream>,
}

/// The latest edition, and what all of them have in common. A clone is the same one.
#[derive(Clone)]
pub struct Editions {
    latest: watch::Sender<Arc<Edition>>,
    bodies: Arc<BodyMemory>,
    turns: Arc<Semaphore>,
    crowd: Arc<Crowd>,
    certificate: Option<Arc<Certificate>>,
    /// The longest that a call of any edition may last, in seconds.
    patience: Arc<AtomicU64>,
}

/// Why another edition cannot be published: what the operator must change.
#[derive(Debug, thiserror::Error)]
pub enum CannotReload {
    #[error(transparent)]
    Gateway(#[from] CannotStart),
    #[error(transparent)]
    Upstream(#[from] UpstreamConfigError),
    #[error("server.tls: {0}")]
    Certificate(String),
}

impl Editions {
    /// The first one. Its upstreams are known to work.
    pub(super) fn new(config: &Config, gateway: Arc<Gateway>, certificate: Option<Arc<Certificate>>, files: usize) -> Editions {
        let upstreams = Upstreams::sharing(&config.upstreams, gateway.health.clone());
        let upstreams = upstreams.expect("the same list was checked before the server started");
        let first = Edition {
            limits: Arc::new(RateLimits::new(&config.limits, config.trusted_proxies.clone())),
            proxies: config.trusted_proxies.clone(),
            pages: Arc::new(Pages::of(&gateway, &upstreams)),
            gateway,
            upstreams: config.upstreams.clone(),
        };
        Editions {
            latest: watch::Sender::new(Arc::new(first)),
            bodies: Arc::new(BodyMemory::new(config.limits.max_bodies)),
            turns: Arc::new(Semaphore::new(CHANGES_AT_ONCE)),
            crowd: Arc::new(Crowd::new(config, files)),
            certificate,
            patience: Arc::new(AtomicU64::new(config.limits.wall_clock.as_secs())),
        }
    }

    /// Publishes an edition for a configuration that was [read again](Config::again): requests that begin from now on have it.
    /// Buckets start anew only where their limits have changed.
    ///
    /// # Errors
    /// What is wrong with the configuration; the edition before stays then.
    pub fn publish(&self, config: &Config) -> Result<(), CannotReload> {
        let before = self.latest.borrow().clone();
        // All that can be refused comes before anything counts: also what the threads are about to prepare.
        Gateway::check(config)?;
        Upstreams::new(&config.upstreams)?;
        let certificate = self.certificate.as_ref().zip(config.tls.as_ref());
        certificate.map_or(Ok(()), |(certificate, place)| certificate.judge(place)).map_err(CannotReload::Certificate)?;
        let gateway = Arc::new(before.gateway.renewed(config)?);
        let upstreams = Upstreams::sharing(&config.upstreams, gateway.health.clone())?;
        match certificate.map_or(Ok(false), |(certificate, place)| certificate.renew(place)) {
            Ok(true) => tracing::info!("another certificate is shown from now on"),
            Ok(false) => {}
            // Its files have changed in between: the next look at them finds what they are now.
            Err(why) => tracing::warn!("the certificate stays for now: {why}"),
        }
        let pages = Arc::new(Pages::of(&gateway, &upstreams));
        let is_as_before = config.limits == before.gateway.limits && config.trusted_proxies == before.proxies;
        let limits = match is_as_before {
            true => Arc::clone(&before.limits),
            false => Arc::new(RateLimits::new(&config.limits, config.trusted_proxies.clone())),
        };
        self.crowd.follow(config);
        self.patience.fetch_max(config.limits.wall_clock.as_secs(), Ordering::Relaxed);
        self.bodies.set_limit(config.limits.max_bodies);
        let next =
            Edition { gateway, limits, proxies: config.trusted_proxies.clone(), pages, upstreams: config.upstreams.clone() };
        self.latest.send_replace(Arc::new(next));
        Ok(())
    }

    /// Why callers do not get in, and what to do: there should be a certificate, and there is none that is good now.
    pub fn closed(&self) -> Option<String> {
        match self.certificate.as_ref()?.standing() {
            (Standing::Good | Standing::EndsSoon, _) => None,
            (Standing::Untimely | Standing::Missing, why) => Some(why),
        }
    }

    /// When the certificate ends that callers are shown, if they are shown one.
    pub fn certificate_end(&self) -> Option<Timestamp> {
        self.certificate.as_ref()?.end()
    }

    /// The latest edition's gateway.
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.latest.borrow().gateway)
    }

    /// What changes keys, by the latest edition's limits.
    pub fn keyring(&self) -> Keyring {
        self.latest.borrow().gateway.keyring()
    }

    /// How long a call may last that is running: one of an edition before has the time that it began with.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience.load(Ordering::Relaxed))
    }

    pub(super) fn crowd(&self) -> Arc<Crowd> {
        Arc::clone(&self.crowd)
    }

    /// Memory must not grow with the number of callers ever seen.
    pub(super) async fn forget_quiet_callers(self) {
        loop {
            actix_web::rt::time::sleep(FORGET_EVERY).await;
            let latest = self.latest.borrow().clone();
            latest.limits.forget_quiet();
            latest.gateway.forget_quiet();
        }
    }
}

/// One worker thread's view of the latest edition: with its own connections to upstreams, which last as long as calls on them do.
pub struct Desk {
    editions: Editions,
    latest: RefCell<watch::Receiver<Arc<Edition>>>,
    shelf: Rc<Shelf>,
    orders: Rc<Orders>,
    today: RefCell<Today>,
    /// When the next edition could not be taken up.
    failed: Cell<Option<Instant>>,
}

/// An edition in use on one thread; what handlers find of it is in the container.
#[derive(Clone)]
pub struct Today {
    pub edge: Rc<Edge>,
    pub container: Rc<Extensions>,
}

impl Desk {
    /// # Errors
    /// An upstream whose connections cannot be prepared.
    pub fn open(editions: Editions, orders: Rc<Orders>) -> Result<Rc<Desk>, UpstreamConfigError> {
        let shelf = Rc::default();
        actix_web::rt::spawn(Shelf::look_after(Rc::downgrade(&shelf)));
        let mut latest = editions.latest.subscribe();
        let first = latest.borrow_and_update().clone();
        let today = RefCell::new(today(&editions, &first, &shelf, &orders)?);
        let desk =
            Rc::new(Desk { editions, latest: RefCell::new(latest.clone()), shelf, orders, today, failed: Cell::default() });
        actix_web::rt::spawn(keep_up(Rc::downgrade(&desk), latest));
        Ok(desk)
    }

    /// The edition for a request that begins now.
    pub fn today(&self) -> Today {
        let mut latest = self.latest.borrow_mut();
        let is_due = self.failed.get().is_none_or(|at| at.elapsed() >= AGAIN);
        if is_due && latest.has_changed().is_ok_and(|changed| changed) {
            let edition = latest.borrow_and_update().clone();
            match today(&self.editions, &edition, &self.shelf, &self.orders) {
                Ok(today) => {
                    *self.today.borrow_mut() = today;
                    self.failed.set(None);
                }
                // It could be prepared when it was published, so it may be again.
                Err(error) => {
                    latest.mark_changed();
                    self.failed.set(Some(Instant::now()));
                    tracing::error!(%error, "a thread goes on with the configuration of before for now, and tries again");
                }
            }
        }
        self.today.borrow().clone()
    }
}

/// Has a thread take up the next edition also when nobody asks it for anything: what that is made of may be gone later.
async fn keep_up(desk: std::rc::Weak<Desk>, mut latest: watch::Receiver<Arc<Edition>>) {
    while latest.changed().await.is_ok() {
        let Some(desk) = desk.upgrade() else { return };
        desk.today();
    }
}

fn today(editions: &Editions, edition: &Edition, shelf: &Rc<Shelf>, orders: &Rc<Orders>) -> Result<Today, UpstreamConfigError> {
    let upstreams = Upstreams::sharing(&edition.upstreams, edition.gateway.health.clone())?;
    let gateway = Arc::clone(&edition.gateway);
    let worker = Rc::new(Worker { gateway: Arc::clone(&gateway), upstreams, shelf: Rc::clone(shelf) });
    let edge = Rc::new(Edge {
        gateway,
        limits: Arc::clone(&edition.limits),
        bodies: Arc::clone(&editions.bodies),
        turns: Arc::clone(&editions.turns),
        pages: Arc::clone(&edition.pages),
        orders: Rc::clone(orders),
        lots: RefCell::default(),
        documents: Documents::default(),
    });
    let mut container = Extensions::new();
    container.insert(worker);
    container.insert(Rc::clone(&edge));
    Ok(Today { edge, container: Rc::new(container) })
}
