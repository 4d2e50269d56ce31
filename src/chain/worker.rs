//! The settlement thread: one small runtime on which every network is checked, simulated on, settled on and watched.

use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc as channel, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tracing::{error, info};

use super::client::JsonClient;
use super::evm::{self, Signed};
use super::facilitator::Facilitator;
use super::handle::Entry;
use super::open::{Asked, Hearing, Open};
use super::payment::Transfer;
use super::setup::{How, Setup};
use super::simulated::Simulated;
use super::witness::Witness;
use super::{Attempt, Confirmation, Journal, JournalClosed, Refused, Settlement, VerifiedPayment, reason, solana};
use crate::clock::Clock;

/// Between self-checks of a network that cannot be sold on.
const CHECK_FAILING: Duration = Duration::from_secs(15);
/// Between self-checks of one that can.
const CHECK_HEALTHY: Duration = Duration::from_secs(300);

/// What the handle asks for.
pub(super) enum Command {
    Simulate(VerifiedPayment, oneshot::Sender<Result<(), Refused>>),
    /// Whether the clock of this network (CAIP-2) and ours agree.
    Agree(String, oneshot::Sender<Result<(), Refused>>),
    /// To look for what offers on this network (CAIP-2) may name.
    Freshen(String, oneshot::Sender<()>),
    Settle {
        payment: VerifiedPayment,
        attempts: Vec<Attempt>,
        confirmed: Option<Confirmation>,
        tell: oneshot::Sender<Settlement>,
    },
}

#[derive(Clone)]
enum Back {
    Evm(Rc<evm::Settler>),
    Solana(Rc<solana::Settler>),
    Facilitator(Rc<Facilitator>),
    Simulated(Rc<Simulated>),
}

#[derive(Clone)]
struct Network {
    entry: Arc<Entry>,
    back: Back,
}

/// Said of a payment that is not of its network's family, which no configuration leads to.
const ANOTHER_FAMILY: &str = "this payment is of another family than its network";

/// The body of the thread. Ends when every handle is gone.
pub(super) fn run(
    setups: Vec<Setup>,
    inbox: channel::UnboundedReceiver<Command>,
    journal: Arc<dyn Journal>,
    clock: Clock,
    ready: mpsc::Sender<Result<(), String>>,
) {
    // Nobody waits for the answer any more only if start-up gave up waiting.
    let report = |outcome| drop(ready.send(outcome));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(Err(error.to_string())),
    };
    LocalSet::new().block_on(&runtime, async {
        let networks: Vec<_> = setups.into_iter().map(|setup| network(setup, &journal, &clock)).collect();
        let first = networks.iter().map(|network| network.check());
        futures_util::future::join_all(first).await;
        report(Ok(()));
        for network in networks.clone() {
            spawn_local(async move { network.keep_checking().await });
        }
        serve(&networks, inbox).await;
    });
}

fn network(setup: Setup, journal: &Arc<dyn Journal>, clock: &Clock) -> Network {
    let client = JsonClient::new(setup.tls);
    let (journal, clock, entry) = (journal.clone(), clock.clone(), setup.entry.clone());
    let back = match setup.how {
        How::Evm(purse) => Back::Evm(Rc::new(evm::Settler::new(client, entry, purse, journal, clock))),
        How::Solana(purse) => Back::Solana(Rc::new(solana::Settler::new(client, entry, purse, journal, clock))),
        How::Facilitator { token, url, authorization, rpc_urls, depth } => {
            let network = token.requirement().network.clone();
            let witness = Witness::new(client.clone(), rpc_urls, token);
            let facilitator = Facilitator { client, url, authorization, witness, depth, network, entry, journal, clock };
            Back::Facilitator(Rc::new(facilitator))
        }
        How::Simulated => Back::Simulated(Rc::new(Simulated::new(entry, journal))),
    };
    Network { entry: setup.entry, back }
}

async fn serve(networks: &[Network], mut inbox: channel::UnboundedReceiver<Command>) {
    let named = |name: &str| networks.iter().find(|network| network.entry.network() == name);
    let find = |payment: &VerifiedPayment| named(payment.network());
    let open = Open::default();
    while let Some(command) = inbox.recv().await {
        match command {
            // Every claim is preceded by this question, so no claim ever waits for another transfer's settlement.
            Command::Simulate(payment, tell) if open.is_taken(&payment) => {
                let is_payout = find(&payment).is_some_and(|network| network.entry.requirement.pay_to == payment.payer_address());
                drop(tell.send(Err(taken(is_payout))));
            }
            Command::Simulate(payment, tell) => {
                let Some(network) = find(&payment).cloned() else { continue };
                spawn_local(async move {
                    // A caller that went away needs no verdict.
                    let _ = tell.send(network.simulate(&payment).await);
                });
            }
            Command::Agree(name, tell) => {
                let Some(network) = named(&name).cloned() else { continue };
                spawn_local(async move {
                    let _ = tell.send(network.agree_on_time().await);
                });
            }
            Command::Freshen(name, tell) => {
                let Some(network) = named(&name).cloned() else { continue };
                spawn_local(async move {
                    network.freshen().await;
                    let _ = tell.send(());
                });
            }
            Command::Settle { payment, attempts, confirmed, tell } => match find(&payment) {
                Some(network) => network.settle(&open, payment, attempts, confirmed, tell),
                None => error!(
                    payment = %payment.id(), network = payment.network(),
                    "this payment's network is no longer configured; it stays open until it is"
                ),
            },
        }
    }
}

fn taken(is_payout: bool) -> Refused {
    if is_payout {
        return Refused::Unavailable("the try before this one is just ending; ask again in some minutes".into());
    }
    let message = "another transfer under this authorization's nonce is being settled; sign a new one with a new nonce";
    Refused::Invalid { reason: reason::NONCE_USED, message: message.into() }
}

impl Network {
    async fn simulate(&self, payment: &VerifiedPayment) -> Result<(), Refused> {
        match &self.back {
            Back::Evm(settler) => match payment.transfer() {
                Transfer::Evm(payment) => settler.simulate(payment).await,
                Transfer::Solana(_) => Err(Refused::Unavailable(ANOTHER_FAMILY.into())),
            },
            Back::Solana(settler) => match payment.transfer() {
                Transfer::Solana(payment) => settler.simulate(payment).await,
                Transfer::Evm(_) => Err(Refused::Unavailable(ANOTHER_FAMILY.into())),
            },
            Back::Facilitator(facilitator) => {
                let (clocks, verdict) = futures_util::future::join(self.agree_on_time(), facilitator.simulate(payment)).await;
                clocks.and(verdict)
            }
            Back::Simulated(simulated) => simulated.simulate(payment),
        }
    }

    /// A disagreement closes the network at once.
    async fn agree_on_time(&self) -> Result<(), Refused> {
        match &self.back {
            Back::Evm(settler) => settler.agree_on_time().await,
            Back::Solana(settler) => settler.agree_on_time().await,
            Back::Facilitator(facilitator) => facilitator.agree_on_time().await,
            Back::Simulated(_) => Ok(()),
        }
        .map_err(|why| self.entry.closing(why))
    }

    async fn freshen(&self) {
        match &self.back {
            Back::Evm(_) => {}
            Back::Solana(settler) => settler.freshen().await,
            Back::Facilitator(facilitator) => facilitator.freshen().await,
            Back::Simulated(simulated) => simulated.freshen(),
        }
    }

    fn settle(
        &self,
        open: &Open,
        payment: VerifiedPayment,
        attempts: Vec<Attempt>,
        confirmed: Option<Confirmation>,
        tell: oneshot::Sender<Settlement>,
    ) {
        match open.ask(&payment, tell) {
            Asked::Joined => info!(payment = %payment.id(), "this payment is being settled already; joining"),
            Asked::Taken => error!(payment = %payment.id(), "its nonce is being settled for another transfer; not started"),
            Asked::Start(hearing) => {
                // Read before the task starts: commands are in order, tasks are not.
                let tries = match &self.back {
                    Back::Evm(settler) => settler.restore(&attempts),
                    Back::Solana(_) | Back::Facilitator(_) | Back::Simulated(_) => Vec::new(),
                };
                spawn_local(self.clone().pursue(payment, attempts, tries, confirmed, hearing));
            }
        }
    }

    /// Settles, and once more for those who claimed the payment anew after an earlier claim was given back.
    async fn pursue(
        self,
        mut payment: VerifiedPayment,
        mut attempts: Vec<Attempt>,
        mut tries: Vec<Signed>,
        mut confirmed: Option<Confirmation>,
        hearing: Hearing,
    ) {
        loop {
            let (resumed, known) = (!attempts.is_empty(), confirmed.take());
            let end = match &self.back {
                Back::Evm(settler) => match payment.transfer() {
                    Transfer::Evm(payment) => settler.run(payment, std::mem::take(&mut tries), known, &hearing).await,
                    Transfer::Solana(_) => return error!(payment = %payment.id(), "{ANOTHER_FAMILY}; it stays open"),
                },
                Back::Solana(settler) => match payment.transfer() {
                    Transfer::Solana(payment) => settler.run(payment, &attempts, known, &hearing).await,
                    Transfer::Evm(_) => return error!(payment = %payment.id(), "{ANOTHER_FAMILY}; it stays open"),
                },
                Back::Facilitator(facilitator) => facilitator.run(&payment, resumed, known, &hearing).await,
                Back::Simulated(simulated) => simulated.run(&payment, &attempts, known, &hearing).await,
            };
            let Err(JournalClosed) = end else { return };
            info!(payment = %payment.id(), "settlement stops: its claim was given back, or the ledger has stopped");
            let Some(again) = hearing.refused() else { return };
            (payment, attempts) = (again, Vec::new());
        }
    }

    async fn check(&self) {
        let outcome = match &self.back {
            Back::Evm(settler) => settler.check().await,
            Back::Solana(settler) => settler.check().await,
            Back::Facilitator(facilitator) => facilitator.check().await,
            Back::Simulated(simulated) => {
                simulated.freshen();
                Ok(())
            }
        };
        match outcome {
            Ok(()) => self.entry.sell(),
            Err(why) => self.entry.close(why),
        }
    }

    async fn keep_checking(&self) {
        let mut checked = Instant::now();
        loop {
            tokio::time::sleep(CHECK_FAILING).await;
            // A settlement may have closed the network in between.
            if self.entry.sellable().is_err() || checked.elapsed() >= CHECK_HEALTHY {
                self.check().await;
                checked = Instant::now();
            }
        }
    }
}
