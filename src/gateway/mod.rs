//! The sale: one paid call from its request to the last byte of its answer and the last posting in the books.

pub mod account;
mod early;
pub mod jobs;
mod journal;
mod keyring;
pub mod operator;
mod payer;
mod prepaid;
mod prices;
mod quote;
mod relay;
pub mod report;
mod serve;
mod sessions;
mod settle;
mod topup;
mod trust;
mod waste;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::catalogue::Catalogue;
use crate::chain::{ChainError, Chains};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Limits, Payments, Prepaid};
use crate::error::{Code, Error};
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::money::Micros;
use crate::upstream::Upstreams;
use crate::x402::{Offer, Receipt, SignInRules, Version};

pub use keyring::{Change, Fresh, Keyring, Minted, Rotation, Whose, Wish};
pub use payer::{Credentials, Payer, Purpose};
pub use relay::{Piece, RelayBody, Shelf};
pub use serve::{Call, Served, serve};
pub use sessions::{Opened, Sessions};
pub use topup::{TopUp, ToppedUp, top_up};

/// What a buyer is told while the ledger is not admitting.
const LEDGER_STOPPED: &str =
    "no calls are sold at the moment, because the gateway cannot write its books; send this one again later";

/// What all workers share.
pub struct Gateway {
    pub catalogue: Catalogue,
    pub ledger: Ledger,
    pub keys: Arc<Keys>,
    /// Who is signed in for longer than one request.
    pub sessions: Sessions,
    pub chains: Chains,
    pub limits: Limits,
    pub payments: Payments,
    pub prepaid: Prepaid,
    pub public_url: String,
    /// What each network, as CAIP-2 names it, adds to the price of a call that is paid for on it by itself.
    surcharges: Vec<(String, Micros)>,
    sign_in_rules: SignInRules,
    early: early::Early,
    keyring: Keyring,
    clock: Clock,
    /// Never jumps: what lasts a day or some minutes lasts as long, whatever happens to the machine's clock.
    steady: Clock,
    running: settle::Running,
    trust: trust::Trust,
    waste: Arc<waste::Waste>,
    earlier: prices::Earlier,
    calls: AtomicUsize,
    looks: jobs::Looks,
}

/// One worker thread's view: the shared gateway and its own connections to upstreams.
pub struct Worker {
    pub gateway: Arc<Gateway>,
    pub upstreams: Upstreams,
    /// Its answers that came whole.
    pub shelf: Rc<Shelf>,
}

/// Why a call was not served, and what goes with the answer.
#[derive(Debug)]
pub struct Refusal {
    pub error: Error,
    /// The offer, when paying would fix the problem.
    pub offer: Option<Offer>,
    /// What became of a payment that was settled, or that failed to settle.
    pub receipt: Option<(Receipt, Version)>,
    /// What would help beside another payment.
    pub remedy: Option<Remedy>,
}

/// What a caller of a 402 can do, beside paying for this one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Say who it is: its wallet may have a balance.
    Identify,
    /// Top its balance up.
    TopUp(Shortage),
}

/// How much a wallet has too little for a call. Micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What it can spend.
    pub available: Micros,
    /// What it must be able to spend for the call to begin.
    pub needed: Micros,
    /// A top-up after which it can pay the whole quote, within what the operator takes at once.
    pub suggested: Micros,
}

/// Why the gateway cannot start: what the operator must change.
#[derive(Debug, thiserror::Error)]
pub enum CannotStart {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal { error, offer: None, receipt: None, remedy: None }
    }
}

impl Refusal {
    /// The same, whose cause is another error.
    fn because(self, error: Error) -> Refusal {
        Refusal { error: self.error.because(error.cause.unwrap_or(error.message)), ..self }
    }
}

impl Gateway {
    /// Starts settlement on every network and takes up what an earlier run left unsettled.
    pub fn start(config: &Config, ledger: Ledger, keys: Keys, clock: Clock) -> Result<Gateway, CannotStart> {
        let sign_in_rules = payer::sign_in_rules(config)?;
        let trust = trust::Trust::new(config.payments.failed_settlements_per_day);
        let steady = steady(&clock);
        let fees_are_ours = |network: &&config::Network| matches!(network.settlement, config::Settlement::Rpc { .. });
        let risky = config.networks.iter().filter(fees_are_ours).map(|network| network.id.as_str());
        let waste = Arc::new(waste::Waste::new(risky, config.payments.failed_transfers_per_day));
        let journal = Arc::new(journal::LedgerJournal::new(ledger.clone(), Arc::clone(&waste), steady.clone()));
        let chains = Chains::start(&config.networks, journal, clock.clone())?;
        settle::resume(&ledger, &chains);
        let honour = Duration::from_secs(config.payments.max_timeout_seconds);
        let earlier = prices::Earlier::load(&config.data_dir, config.catalogue.models(), honour, clock.now());
        let earlier = earlier.unwrap_or_else(|error| {
            tracing::warn!(%error, "prices.json cannot be used; quotes made before a change of price are not honoured");
            prices::Earlier::default()
        });
        let keys = Arc::new(keys);
        let keyring = Keyring::new(config, ledger.clone(), Arc::clone(&keys), clock.clone());
        Ok(Gateway {
            catalogue: config.catalogue.clone(),
            ledger,
            keys,
            keyring,
            sessions: Sessions::default(),
            chains,
            limits: config.limits.clone(),
            payments: config.payments.clone(),
            prepaid: config.prepaid.clone(),
            public_url: config.public_url.clone(),
            surcharges: config.networks.iter().map(|network| (network.id.clone(), network.surcharge)).collect(),
            sign_in_rules,
            early: early::Early::default(),
            earlier,
            trust,
            waste,
            clock,
            steady,
            running: settle::Running::default(),
            calls: AtomicUsize::new(0),
            looks: jobs::Looks::default(),
        })
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What a call costs more that is paid for by itself on this network, for the gas.
    pub fn surcharge(&self, network: &str) -> Micros {
        self.surcharges.iter().find(|(id, _)| id == network).map_or(Micros::ZERO, |(_, surcharge)| *surcharge)
    }

    /// What a sign-in must say.
    pub fn sign_in_rules(&self) -> &SignInRules {
        &self.sign_in_rules
    }

    /// What changes keys; a handle that may be taken to another thread.
    pub fn keyring(&self) -> Keyring {
        self.keyring.clone()
    }

    /// Takes one of the places for calls in flight; given back when the guard is dropped.
    fn admit(self: &Arc<Self>) -> Result<Place, Error> {
        if !self.ledger.is_admitting() {
            let error = Error::new(Code::LedgerUnavailable, LEDGER_STOPPED);
            return Err(error.retry_after(5));
        }
        let place = Place(Arc::clone(self));
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.limits.streams {
            return Err(Error::new(
                Code::Busy,
                "too many calls are running at the moment; nothing was charged, send this one again in 1 s",
            )
            .retry_after(1));
        }
        Ok(place)
    }

    pub fn calls_in_flight(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// The clock as it is now, going on by itself from here.
fn steady(clock: &Clock) -> Clock {
    let (start, since) = (clock.now(), std::time::Instant::now());
    Clock::new(move || start.plus(since.elapsed()))
}

/// A place among the calls in flight.
struct Place(Arc<Gateway>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
