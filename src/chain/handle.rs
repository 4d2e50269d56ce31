//! Chains, the handle through which a sale offers, simulates and settles; the work happens on one thread of its own.

use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::time::Duration;

use tokio::sync::{mpsc as channel, oneshot};
use tracing::{info, warn};

use super::payment::Transfer;
use super::setup::setup;
use super::solana::{Age, Blockhash, Offers};
use super::worker::{self, Command};
use super::{Attempt, ChainError, Confirmation, Journal, Refused, Settlement, VerifiedPayment};
use crate::clock::Clock;
use crate::config;
use crate::money::Micros;
use crate::x402::{self, Requirements, names};

/// How long start-up waits for the first self-checks; a slow node is caught up with later.
const FIRST_CHECK: Duration = Duration::from_secs(15);
/// How long an offer waits for what it may as well leave out: a buyer can ask the chain for it, too.
const FRESHENING: Duration = Duration::from_millis(1500);

/// All networks that money is taken on. Cheap to clone. When the last clone is dropped the settlement thread ends, and
/// what was open goes on from the journal at the next start.
#[derive(Clone)]
pub struct Chains {
    networks: Arc<[Arc<Entry>]>,
    commands: channel::UnboundedSender<Command>,
}

/// One network, as both threads see it.
pub(super) struct Entry {
    /// What every requirement on this network says; amount and timeout are left to the quote.
    pub requirement: Requirements,
    /// What they say beside it, where that changes from offer to offer.
    pub offers: Option<Offers>,
    pub settlement: &'static str,
    safe_above: Micros,
    gas: RwLock<Option<Micros>>,
    purse: RwLock<Option<Purse>>,
    sellable: RwLock<Result<(), Closed>>,
}

/// Why nothing is sold on a network now, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chain) enum Closed {
    /// The chain's clock and ours disagree.
    Clock(String),
    Trouble(String),
}

impl Closed {
    pub fn into_text(self) -> String {
        match self {
            Closed::Clock(why) | Closed::Trouble(why) => why,
        }
    }
}

impl From<String> for Closed {
    fn from(why: String) -> Closed {
        Closed::Trouble(why)
    }
}

impl From<&str> for Closed {
    fn from(why: &str) -> Closed {
        Closed::Trouble(why.to_owned())
    }
}

/// A payment that is presented meanwhile is not judged.
impl From<Closed> for Refused {
    fn from(closed: Closed) -> Refused {
        match closed {
            Closed::Clock(why) => Refused::ClockSkew(why),
            Closed::Trouble(why) => Refused::Unavailable(why),
        }
    }
}

/// What start-up prints and `/healthz` says about one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// CAIP-2.
    pub id: String,
    /// The short name, or the CAIP-2 identifier where there is none.
    pub name: String,
    /// `rpc`, `facilitator` or `simulated`.
    pub settlement: &'static str,
    /// On EVM with its EIP-55 checksum.
    pub pay_to: String,
    /// What a settlement costs in gas, as it was when that was last looked at; `None` where that is not known.
    pub gas: Option<Micros>,
    /// What our settler has for gas, as it was when that was last looked at; `None` where nobody of ours pays any.
    pub purse: Option<Purse>,
    /// `Err` says to the operator why nothing is sold on it now.
    pub sellable: Result<(), String>,
}

/// What pays for the gas of settlements, in the smallest unit of the chain's own coin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purse {
    /// Whose it is.
    pub address: String,
    pub has: u128,
    /// With less nothing is sold.
    pub needs: u128,
    /// A coin is ten to this power of units.
    pub digits: u32,
}

/// So many times what is needed is little.
const LITTLE: u128 = 10;

impl Purse {
    /// Whether it should be filled soon.
    pub fn is_low(&self) -> bool {
        self.has < self.needs.saturating_mul(LITTLE)
    }
}

impl Entry {
    pub fn new(requirement: Requirements, offers: Option<Offers>, settlement: &'static str, safe_above: Micros) -> Entry {
        let sellable = RwLock::new(Err("not checked yet".into()));
        Entry { requirement, offers, settlement, safe_above, gas: RwLock::default(), purse: RwLock::default(), sellable }
    }

    /// CAIP-2.
    pub fn network(&self) -> &str {
        &self.requirement.network
    }

    /// What is asked for on this network.
    pub fn requirement_of(&self, amount: Micros, max_timeout_seconds: u64) -> Requirements {
        Requirements { amount: amount.get().to_string(), max_timeout_seconds, ..self.requirement.clone() }
    }

    pub fn sellable(&self) -> Result<(), Closed> {
        self.sellable.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The self-check found nothing wrong.
    pub fn sell(&self) {
        if self.note(Ok(())).is_err() {
            info!(network = self.network(), "payments are taken on {}", self.network());
        }
    }

    /// A settlement costs so much gas now.
    pub fn note_gas(&self, gas: Option<Micros>) {
        *self.gas.write().unwrap_or_else(PoisonError::into_inner) = gas;
    }

    /// The settler has so much now.
    pub fn note_purse(&self, purse: Purse) {
        *self.purse.write().unwrap_or_else(PoisonError::into_inner) = Some(purse);
    }

    /// There was no blockhash to be had just now.
    pub fn note_silence(&self) {
        if let Some(offers) = &self.offers {
            offers.note_silence();
        }
    }

    /// Offers may name this blockhash.
    pub fn note_blockhash(&self, blockhash: Blockhash) {
        if let Some(offers) = &self.offers {
            offers.note_blockhash(blockhash);
        }
    }

    /// Nothing is sold until the next self-check that finds nothing wrong: a settlement or the self-check met `why`.
    pub fn close(&self, why: impl Into<Closed>) {
        let why = why.into();
        let before = self.note(Err(why.clone()));
        // How far apart clocks are changes from look to look, and is told once.
        let same_clocks = matches!((&before, &why), (Err(Closed::Clock(_)), Closed::Clock(_)));
        if before.as_ref() != Err(&why) && !same_clocks {
            let why = why.into_text();
            warn!(network = self.network(), "nothing is sold on {}: {why}", self.network());
        }
    }

    /// The last block height at which a transaction may name this blockhash, if it is one that was offered here.
    pub fn last_valid(&self, hash: &[u8; 32]) -> Option<u64> {
        self.offers.as_ref().and_then(|offers| offers.last_valid(hash))
    }

    /// Clocks that disagree close the network; what a payment is told that met them, or other trouble.
    pub fn closing(&self, why: Closed) -> Refused {
        if let Closed::Clock(_) = &why {
            self.close(why.clone());
        }
        why.into()
    }

    /// Returns what was noted before.
    fn note(&self, outcome: Result<(), Closed>) -> Result<(), Closed> {
        std::mem::replace(&mut *self.sellable.write().unwrap_or_else(PoisonError::into_inner), outcome)
    }
}

impl Chains {
    /// Checks the configuration, starts the settlement thread and waits (blocking, some seconds at most) for the first
    /// self-check of every network.
    ///
    /// # Errors
    /// Only for what the operator must change; a network that fails its self-check is not offered and checked again.
    pub fn start(networks: &[config::Network], journal: Arc<dyn Journal>, clock: Clock) -> Result<Chains, ChainError> {
        let setups = networks.iter().map(|network| setup(network, clock.now())).collect::<Result<Vec<_>, _>>()?;
        let networks: Arc<[_]> = setups.iter().map(|setup| setup.entry.clone()).collect();
        // Unbounded: a settlement that is owed is never refused; how many there are is bounded by the sales in flight.
        let (commands, inbox) = channel::unbounded_channel();
        let (ready, checked) = mpsc::channel();
        std::thread::Builder::new()
            .name("settlement".into())
            .spawn(move || worker::run(setups, inbox, journal, clock, ready))
            .map_err(|error| ChainError::Thread(error.to_string()))?;
        match checked.recv_timeout(FIRST_CHECK) {
            Ok(Err(why)) => Err(ChainError::Thread(why)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ChainError::Thread("it ended at once".into())),
            Ok(Ok(())) | Err(mpsc::RecvTimeoutError::Timeout) => Ok(Chains { networks, commands }),
        }
    }

    /// The entry of a network, if it is configured.
    pub(super) fn entry(&self, network: &str) -> Option<&Entry> {
        self.networks.iter().map(Arc::as_ref).find(|entry| entry.network() == network)
    }

    /// Every configured network, sellable or not, in the order of the configuration.
    pub fn networks(&self) -> Vec<NetworkStatus> {
        let status = |entry: &Arc<Entry>| NetworkStatus {
            id: entry.network().to_owned(),
            name: names::short(entry.network()).unwrap_or(entry.network()).to_owned(),
            settlement: entry.settlement,
            pay_to: entry.requirement.pay_to.clone(),
            purse: entry.purse.read().unwrap_or_else(PoisonError::into_inner).clone(),
            gas: *entry.gas.read().unwrap_or_else(PoisonError::into_inner),
            sellable: entry.sellable().map_err(Closed::into_text),
        };
        self.networks.iter().map(status).collect()
    }

    /// Sees to it that the next offers name what a buyer would else have to ask the chain for. To be awaited before
    /// [`Chains::offer`]; costs a round trip where nobody was offered anything for a while.
    pub async fn freshen(&self) {
        let ask = |entry: &Arc<Entry>| {
            let age = entry.offers.as_ref().map(Offers::age).filter(|_| entry.sellable().is_ok())?;
            let (tell, told) = oneshot::channel();
            if matches!(age, Age::Used | Age::Stale) {
                // Without the thread nothing is sold.
                let _ = self.commands.send(Command::Freshen(entry.network().to_owned(), tell));
            }
            (age == Age::Stale).then_some(told)
        };
        let awaited: Vec<_> = self.networks.iter().filter_map(ask).collect();
        // What does not come in time is left out of the offer.
        let _ = tokio::time::timeout(FRESHENING, futures_util::future::join_all(awaited)).await;
    }

    /// The ways to pay `amount` now for `subject`, in the order of the configuration: one per sellable network. Empty when there
    /// is none. The subject is what a payment buys, in the same words whenever the same is offered.
    pub fn offer(&self, amount: Micros, max_timeout_seconds: u64, subject: &str) -> Vec<Requirements> {
        let sellable = self.networks.iter().filter(|entry| entry.sellable().is_ok());
        let offered = sellable.map(|entry| {
            let requirement = entry.requirement_of(amount, max_timeout_seconds);
            match &entry.offers {
                Some(offers) => Requirements { extra: Some(offers.extra(subject)), ..requirement },
                None => requirement,
            }
        });
        offered.collect()
    }

    /// What offers of `amount` have in common, one per sellable network: for lists that nobody signs from. What is fresh in each
    /// offer is not in them.
    pub fn templates(&self, amount: Micros, max_timeout_seconds: u64) -> Vec<Requirements> {
        let sellable = self.networks.iter().filter(|entry| entry.sellable().is_ok());
        sellable.map(|entry| entry.requirement_of(amount, max_timeout_seconds)).collect()
    }

    /// What a payment of `amount` for `subject` must look like on its network, whether or not it can be sold on right now;
    /// `None` for a network that is not configured. A copy of a known payment must be known while its network has trouble, too.
    pub fn requirement(
        &self,
        payment: &x402::Payment,
        amount: Micros,
        max_timeout_seconds: u64,
        subject: &str,
    ) -> Option<Requirements> {
        let entry = self.networks.iter().find(|entry| entry.network() == payment.network)?;
        let requirement = entry.requirement_of(amount, max_timeout_seconds);
        Some(match &entry.offers {
            Some(offers) => Requirements { extra: Some(offers.answered(payment, subject)), ..requirement },
            None => requirement,
        })
    }

    /// Asks the chain whether the payment would settle now.
    ///
    /// # Errors
    /// [`Refused::Invalid`] when the chain says no; [`Refused::Unavailable`] when it cannot be asked;
    /// [`Refused::ClockSkew`] when its clock and ours are more than 120 s apart.
    pub async fn simulate(&self, payment: &VerifiedPayment) -> Result<(), Refused> {
        self.ask(payment.network(), |tell| Command::Simulate(payment.clone(), tell)).await
    }

    /// Whether the clock of a chain and ours agree. To be asked before a payment is refused for its times: they may be right,
    /// and our clock wrong.
    ///
    /// # Errors
    /// As [`Chains::simulate`], without a verdict on a payment.
    pub async fn agree_on_time(&self, network: &str) -> Result<(), Refused> {
        self.ask(network, |tell| Command::Agree(network.to_owned(), tell)).await
    }

    async fn ask(
        &self,
        network: &str,
        question: impl FnOnce(oneshot::Sender<Result<(), Refused>>) -> Command,
    ) -> Result<(), Refused> {
        let unavailable = || Refused::Unavailable(format!("payments on {network} cannot be taken right now; try again"));
        let entry = self.networks.iter().find(|entry| entry.network() == network).ok_or_else(unavailable)?;
        entry.sellable()?;
        let (tell, verdict) = oneshot::channel();
        self.commands.send(question(tell)).map_err(|_| unavailable())?;
        verdict.await.unwrap_or_else(|_| Err(unavailable()))
    }

    /// Whether the transfer will be believed after a few blocks and has the time for them, so that its buyer can wait for it.
    /// Above the network's `safe_above` it takes minutes; and of a blockhash that was not offered here nobody knows how soon it
    /// ends.
    pub fn is_quick(&self, payment: &VerifiedPayment) -> bool {
        let Some(entry) = self.networks.iter().find(|entry| entry.network() == payment.network()) else { return false };
        let has_time = match payment.transfer() {
            Transfer::Evm(_) => true,
            Transfer::Solana(payment) => entry.last_valid(&payment.recent_blockhash()).is_some(),
        };
        has_time && payment.amount() <= entry.safe_above
    }

    /// Settles a claimed payment. It runs to its end whether or not anybody waits; the journal hears of each step before
    /// the receiver does. A closed receiver means that the journal is closed, never that the payment failed.
    pub fn settle(&self, payment: VerifiedPayment) -> oneshot::Receiver<Settlement> {
        self.resume(payment, Vec::new(), None)
    }

    /// Goes on with a payment after a restart: receipts first, then the stored bytes are sent again. With `confirmed` it is
    /// only watched until it is final. Call it for every open payment before the first [`Chains::settle`], so that no gas
    /// nonce of a stored transaction is handed out again.
    pub fn resume(
        &self,
        payment: VerifiedPayment,
        attempts: Vec<Attempt>,
        confirmed: Option<Confirmation>,
    ) -> oneshot::Receiver<Settlement> {
        let (tell, outcome) = oneshot::channel();
        // If the thread is gone, so is `tell`, and the receiver says so.
        let _ = self.commands.send(Command::Settle { payment, attempts, confirmed, tell });
        outcome
    }
}
