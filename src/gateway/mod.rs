//! The sale: one paid call from its request to the last byte of its answer and the last posting in the books.

pub mod account;
mod blocked;
mod early;
mod failures;
pub mod jobs;
mod journal;
mod keyring;
pub mod operator;
mod pace;
mod payer;
mod prepaid;
mod prices;
mod quote;
mod relay;
pub mod report;
mod reports;
mod serve;
mod sessions;
mod settle;
mod told;
mod topup;
pub mod trail;
mod trust;
mod waste;
mod watch;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::account::AccountId;
use crate::catalogue::Catalogue;
use crate::chain::{ChainError, Chains, typed_account};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Limits, Payments, Prepaid};
use crate::error::{Code, Error};
use crate::ids::RequestId;
use crate::keys::Keys;
use crate::ledger::Ledger;
use crate::money::Micros;
use crate::upstream::{Health, Upstreams};
use crate::webhooks::Notices;
use crate::x402::{Offer, Receipt, SignInRules, Version};

pub use failures::{Failure, Failures};
pub use keyring::{Change, Fresh, Keyring, Minted, Rotation, Whose, Wish};
pub use payer::{Credentials, Payer, Purpose};
pub use relay::{Piece, RelayBody, Shelf};
pub use reports::Reports;
pub use serve::{Call, Served, serve};
pub use sessions::{Opened, Sessions};
pub use topup::{TopUp, ToppedUp, top_up};
pub use watch::watch;

/// What a buyer is told while the ledger is not admitting.
const LEDGER_STOPPED: &str =
    "no calls are sold at the moment, because the gateway cannot write its books; send this one again later";

/// What all workers share: one edition of what is sold, and by which limits, which never changes, and what all editions have in
/// common. A reload makes [another one](Gateway::renewed); a call ends with the one it began with.
pub struct Gateway {
    pub catalogue: Catalogue,
    pub ledger: Ledger,
    pub keys: Arc<Keys>,
    /// Who is signed in for longer than one request.
    pub sessions: Arc<Sessions>,
    pub chains: Chains,
    pub limits: Limits,
    pub payments: Payments,
    pub prepaid: Prepaid,
    pub public_url: String,
    /// Wallets that may look at how the gateway does.
    pub operators: Vec<AccountId>,
    /// What they see of the money.
    pub reports: Arc<Reports>,
    /// What went wrong lately.
    pub failures: Arc<Failures>,
    /// How the upstreams do, as all workers know it.
    pub health: Health,
    /// Whom the operator wants told of what happens.
    pub notices: Notices,
    surcharges: Arc<prices::Surcharges>,
    sign_in_rules: SignInRules,
    early: Arc<early::Early>,
    keyring: Keyring,
    clock: Clock,
    /// Never jumps: what lasts a day or some minutes lasts as long, whatever happens to the machine's clock.
    steady: Clock,
    running: Arc<settle::Running>,
    trust: Arc<trust::Trust>,
    waste: Arc<waste::Waste>,
    earlier: prices::Earlier,
    pace: Arc<pace::Pace>,
    calls: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    looks: Arc<jobs::Looks>,
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
    /// What was asked for, once that is known; for the operator.
    pub model: Option<String>,
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

/// Why the gateway cannot start, or not go on with another configuration: what the operator must change.
#[derive(Debug, thiserror::Error)]
pub enum CannotStart {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Quotes that are out could not be honoured.
    #[error("prices.json in the data folder cannot be written: {0}")]
    Prices(std::io::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal { error, offer: None, receipt: None, remedy: None, model: None }
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
    pub fn start(config: &Config, ledger: Ledger, keys: Keys, notices: Notices, clock: Clock) -> Result<Gateway, CannotStart> {
        let sign_in_rules = payer::sign_in_rules(config)?;
        let operators = operators(&config.operators)?;
        let trust = trust::Trust::new(config.payments.failed_settlements_per_day);
        let steady = steady(&clock);
        let fees_are_ours = |network: &&config::Network| matches!(network.settlement, config::Settlement::Rpc { .. });
        let risky = config.networks.iter().filter(fees_are_ours).map(|network| network.id.as_str());
        let waste = Arc::new(waste::Waste::new(risky, config.payments.failed_transfers_per_day));
        let journal = Arc::new(journal::LedgerJournal::new(ledger.clone(), Arc::clone(&waste), notices.clone(), steady.clone()));
        let chains = Chains::start(&config.networks, journal, clock.clone())?;
        settle::resume(&ledger, &chains);
        let honour = Duration::from_secs(config.payments.max_timeout_seconds);
        let surcharges = Arc::new(prices::Surcharges::new(&config.networks));
        let on_sale = (config.catalogue.models(), &surcharges);
        let earlier = prices::Earlier::load(&config.data_dir, on_sale, honour, clock.now());
        let earlier = earlier.unwrap_or_else(|error| {
            tracing::warn!(%error, "prices.json cannot be used; quotes made before a change of price are not honoured");
            prices::Earlier::default()
        });
        let reports = Reports::new(ledger.clone(), &config.networks, clock.clone(), steady.clone());
        let keys = Arc::new(keys);
        let keyring = Keyring::new(config, ledger.clone(), Arc::clone(&keys), clock.clone());
        Ok(Gateway {
            catalogue: config.catalogue.clone(),
            ledger,
            keys,
            keyring,
            sessions: Arc::default(),
            chains,
            limits: config.limits.clone(),
            payments: config.payments.clone(),
            prepaid: config.prepaid.clone(),
            public_url: config.public_url.clone(),
            operators,
            reports: Arc::new(reports),
            failures: Arc::default(),
            health: Health::new(&config.upstreams, config.failover),
            notices,
            surcharges,
            sign_in_rules,
            early: Arc::default(),
            earlier,
            pace: Arc::new(pace::Pace::new(&config.limits)),
            trust: Arc::new(trust),
            waste,
            clock,
            steady,
            running: Arc::default(),
            calls: Arc::default(),
            stopping: Arc::default(),
            looks: Arc::default(),
        })
    }

    /// Whether another edition can be made for a configuration, as far as that can be told before anything of it counts.
    ///
    /// # Errors
    /// What the operator must change.
    pub fn check(config: &Config) -> Result<(), CannotStart> {
        payer::sign_in_rules(config)?;
        operators(&config.operators)?;
        Ok(())
    }

    /// Another edition, for a configuration that was [read again](Config::again). Quotes of this one stay good for as long as
    /// they may be paid.
    ///
    /// # Errors
    /// What the operator must change; nothing has changed then.
    pub fn renewed(&self, config: &Config) -> Result<Gateway, CannotStart> {
        let (sign_in_rules, operators) = (payer::sign_in_rules(config)?, operators(&config.operators)?);
        let honour = Duration::from_secs(config.payments.max_timeout_seconds);
        let prices = (config.catalogue.models(), &self.surcharges);
        // Last of what can fail, for it notes the prices as those of now.
        let earlier = prices::Earlier::load(&config.data_dir, prices, honour, self.steady.now()).map_err(CannotStart::Prices)?;
        let pace = match config.limits == self.limits {
            true => Arc::clone(&self.pace),
            false => Arc::new(pace::Pace::new(&config.limits)),
        };
        Ok(Gateway {
            catalogue: config.catalogue.clone(),
            limits: config.limits.clone(),
            pace,
            prepaid: config.prepaid.clone(),
            keyring: self.keyring.renewed(config),
            sign_in_rules,
            earlier,
            operators,
            reports: Arc::clone(&self.reports),
            failures: Arc::clone(&self.failures),
            payments: self.payments.clone(),
            public_url: self.public_url.clone(),
            surcharges: self.surcharges.clone(),
            ledger: self.ledger.clone(),
            keys: Arc::clone(&self.keys),
            sessions: Arc::clone(&self.sessions),
            chains: self.chains.clone(),
            early: Arc::clone(&self.early),
            clock: self.clock.clone(),
            steady: self.steady.clone(),
            running: Arc::clone(&self.running),
            trust: Arc::clone(&self.trust),
            waste: Arc::clone(&self.waste),
            calls: Arc::clone(&self.calls),
            stopping: Arc::clone(&self.stopping),
            health: self.health.renewed(&config.upstreams, config.failover),
            notices: self.notices.clone(),
            looks: Arc::clone(&self.looks),
        })
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What a call costs more that is paid for by itself on this network, for the gas.
    pub fn surcharge(&self, network: &str) -> Micros {
        self.surcharges.of(network).unwrap_or_default()
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

    /// Memory must not grow with the number of wallets ever seen.
    pub fn forget_quiet(&self) {
        self.pace.forget_quiet();
    }

    pub fn calls_in_flight(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// No new calls will come: the program is about to end.
    pub fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The wallets of the operators. A slip of the finger in an address must not let a stranger in.
///
/// # Errors
/// One of them is no address.
pub fn operators(typed: &[String]) -> Result<Vec<AccountId>, ConfigError> {
    let wallet = |text: &String| {
        typed_account(text).ok_or_else(|| ConfigError {
            key: "server.operators".into(),
            line: None,
            problem: format!(
                "{text:?} is no wallet's address: 0x and 40 digits of hex with the right checksum, or base58 of Solana"
            ),
        })
    };
    typed.iter().map(wallet).collect()
}

/// The clock as it is now, going on by itself from here.
fn steady(clock: &Clock) -> Clock {
    let (start, since) = (clock.now(), std::time::Instant::now());
    Clock::new(move || start.plus(since.elapsed()))
}

/// A place among the calls in flight.
struct Place(Arc<Gateway>);

impl Place {
    /// Remembers for the operator that an answer broke off.
    fn broke_off(&self, request: RequestId, error: &Error, of: (Option<&str>, Option<&str>)) {
        self.0.failures.broke_off(self.0.clock.now(), request, error, of);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
