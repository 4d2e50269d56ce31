//! Settling one Solana payment: try, sign as its fee payer, journal, send the same bytes, and look until it is proven where the
//! money is.

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};
use tracing::{debug, error, info, warn};

use super::address::{Pubkey, SettlerKey};
use super::check;
use super::evidence::{self, BLOCKHASH_LIFE, Cosigned, SLACK};
use super::node::{Level, Node};
use super::reason;
use super::status::{Look, Status, name};
use super::token::Token;
use super::trial::{self, End, Passed, Trouble};
use super::verified::Verified;
use crate::chain::client::JsonClient;
use crate::chain::handle::{Closed, Entry};
use crate::chain::open::Hearing;
use crate::chain::rpc::{Asking, Rpc, RpcError, Source, Whom};
use crate::chain::stakes::{Stake, Stakes};
use crate::chain::{Attempt, Confirmation, Journal, JournalClosed, Refused, Settlement, reason as common};
use crate::clock::Clock;
use crate::fault;
use crate::money::Micros;

/// Between two sendings of the same bytes.
const RESEND: Duration = Duration::from_secs(2);
/// Between looks at a transaction that waits to be confirmed: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between questions whether other transfers are in their blocks; nobody else is asked.
const QUEUE: Duration = Duration::from_millis(200);
/// Between two looks for a payment that nobody waits for and for which nothing is signed.
const IDLE: Duration = Duration::from_secs(15);
/// How soon somebody who asks again is noticed.
const WAKE: Duration = Duration::from_millis(100);
/// Between looks at a confirmed transfer, and at one that failed, until either is final.
const WATCH: Duration = Duration::from_secs(5);
/// How often nodes must miss a confirmed transfer before it counts as gone: they may be apart for a moment.
const MISSES: u32 = 2;
/// For so many blocks (about two hours) after its last one a transaction that no node knows has never landed. Later it may have
/// been forgotten, unless the node shows that it keeps what is older.
const REMEMBERED: u64 = 18_000;
/// How much older than a payment what a node keeps must be, in seconds: the clocks of the chain and ours may be apart.
const MARGIN: u64 = 900;

/// Everything that settles payments on one Solana network with one key.
pub struct Settler {
    pub(super) node: Node,
    pub(super) entry: Arc<Entry>,
    pub(super) token: Token,
    pub(super) coin_usd: Option<Micros>,
    key: SettlerKey,
    stakes: Stakes<Pubkey>,
    journal: Arc<dyn Journal>,
    clock: Clock,
    safe_above: Micros,
}

/// What is needed to settle on a network.
pub struct Purse {
    pub token: Token,
    pub urls: Vec<String>,
    /// Pays the fees.
    pub key: SettlerKey,
    /// Above this a transfer is believed when it is final.
    pub safe_above: Micros,
    /// What one SOL costs, if the operator told.
    pub coin_usd: Option<Micros>,
}

/// What a step of a settlement led to.
enum Ended {
    /// Nothing can change it: it goes into the books.
    Proven(Settlement),
    /// It failed in a block that only a failure of the whole network replaces: its buyer is told, and the books wait.
    SoFar(Settlement),
}

/// Why a step was not finished.
enum Halt {
    /// The journal is closed: this payment is not touched again before a restart.
    Closed,
    /// The chain cannot be asked now, or cannot be paid: wait and go on. Never a verdict.
    Trouble(String),
}

impl From<JournalClosed> for Halt {
    fn from(_: JournalClosed) -> Halt {
        Halt::Closed
    }
}

impl From<RpcError> for Halt {
    fn from(error: RpcError) -> Halt {
        Halt::Trouble(error.to_string())
    }
}

/// How far a payment's transaction got.
#[derive(Default)]
struct Progress {
    sent_at: Option<Instant>,
    /// How often in a row a node said that its blockhash has ended.
    ended: u32,
    /// Who did not know the transaction when the chain was past its last block, unless somebody knew it since.
    missed_by: Option<Source>,
    /// Whether its end is so long ago that nobody is to wait for its money.
    old: bool,
    /// Whether the operator was told that nobody may remember it any more.
    forgotten: bool,
    /// What the transfer takes from its payer's account, from before it is signed until it is seen in a block.
    stake: Option<Stake<Pubkey>>,
    /// Whether it waits until other transfers are in their blocks, with nothing signed.
    queued: bool,
    /// Whether the operator was told that a node contradicts itself.
    contradicted: bool,
}

/// How a watch ended.
enum Watched {
    Final,
    /// A chain that answers does not have it any more.
    Vanished,
    /// So long ago that no node may remember it.
    Forgotten,
}

impl Settler {
    pub fn new(client: JsonClient, entry: Arc<Entry>, purse: Purse, journal: Arc<dyn Journal>, clock: Clock) -> Settler {
        Settler {
            node: Node::new(Rpc::new(client, purse.urls), &purse.token.network),
            entry,
            token: purse.token,
            coin_usd: purse.coin_usd,
            key: purse.key,
            stakes: Stakes::default(),
            journal,
            clock,
            safe_above: purse.safe_above,
        }
    }

    /// Who pays the fees.
    pub(super) fn fee_payer(&self) -> Pubkey {
        self.key.address()
    }

    pub async fn check(&self) -> Result<(), Closed> {
        self.node.any(|| check::check(self, self.clock.now())).await
    }

    /// Whether the chain's clock and ours agree.
    pub async fn agree_on_time(&self) -> Result<(), Closed> {
        self.node.any(|| check::agree_on_time(&self.node, &self.token, self.clock.now())).await
    }

    /// Asks for the blockhash that offers name.
    pub async fn freshen(&self) {
        match self.node.blockhash().await {
            Ok(blockhash) => self.entry.note_blockhash(blockhash),
            Err(error) => {
                self.entry.note_silence();
                debug!(network = self.token.network, "no blockhash for offers: {error}");
            }
        }
    }

    pub async fn simulate(&self, payment: &Verified) -> Result<(), Refused> {
        let refused = match self.attempt(payment, trial::ENOUGH).await {
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        if matches!(refused, Refused::Invalid { reason: reason::EXPIRED, .. }) {
            // It may have been our offer that was too old.
            self.freshen().await;
        }
        Err(refused)
    }

    /// Tries the payment, which must have this many blocks left, on each node until one knows enough. Trouble of our own closes
    /// the network.
    async fn attempt(&self, payment: &Verified, needed: u64) -> Result<Passed, Refused> {
        let end = End { last_valid: self.entry.last_valid(&payment.recent_blockhash()), needed };
        let tried = self.node.any(|| trial::attempt(&self.node, &self.token, self.fee_payer(), payment, end)).await;
        tried.map_err(|trouble| match trouble {
            Trouble::Refused(refused) => refused,
            Trouble::Ours(why) => {
                self.entry.close(why.clone());
                Refused::Unavailable(why)
            }
        })
    }

    /// Settles a payment, or goes on where the journal left it, and watches it until it is final. Those who wait hear the
    /// outcome after the journal does; nobody needs to be waiting.
    pub async fn run(
        &self,
        payment: &Verified,
        attempts: &[Attempt],
        mut confirmed: Option<Confirmation>,
        hearing: &Hearing,
    ) -> Result<(), JournalClosed> {
        let id = payment.id();
        let mut cosigned = attempts.iter().find_map(|attempt| Cosigned::read(attempt, payment));
        if cosigned.is_none() && !attempts.is_empty() && confirmed.is_none() {
            error!(
                payment = %id,
                "this payment was handed to somebody else, who may have settled it; it stays open: set the network's settlement \
                 back to what it was"
            );
            return Ok(());
        }
        loop {
            let (outcome, known) = match confirmed.take() {
                Some(confirmation) => (Settlement::Confirmed(confirmation), true),
                None => (self.land(payment, &mut cosigned, hearing).await?, false),
            };
            if !known {
                fault::point("solana.confirm.before");
                self.journal.settled(id, outcome.clone()).await?;
                fault::point("solana.confirm.after");
            }
            hearing.tell(&outcome);
            let confirmation = match outcome {
                Settlement::Confirmed(confirmation) => confirmation,
                Settlement::Failed { reason, message } => {
                    warn!(payment = %id, reason, "settlement failed: {message}");
                    return Ok(());
                }
            };
            info!(payment = %id, tx = %confirmation.tx, block = confirmation.block, "settlement confirmed");
            match self.watch(payment, &confirmation).await {
                Watched::Final => {
                    fault::point("solana.final.before");
                    self.journal.finalized(id);
                    fault::point("solana.final.after");
                    return Ok(());
                }
                Watched::Forgotten => {
                    error!(
                        payment = %payment.id(), tx = %confirmation.tx,
                        "the node may have forgotten whether this transfer became final; it stays counted: look its transaction up, or \
                         name in rpc_urls a node that keeps all of the past and start again"
                    );
                    return Ok(());
                }
                Watched::Vanished if cosigned.is_none() => {
                    error!(payment = %id, tx = %confirmation.tx, "a transfer that was not ours vanished; it stays open");
                    return Ok(());
                }
                Watched::Vanished => {
                    warn!(payment = %id, tx = %confirmation.tx, "a confirmed transfer vanished; sending it again");
                    fault::point("solana.reorg.before");
                    self.journal.unconfirmed(id);
                    fault::point("solana.reorg.after");
                    hearing.take_back();
                }
            }
        }
    }

    /// Goes on until there is proof. Trouble with the nodes only makes it slower.
    async fn land(
        &self,
        payment: &Verified,
        cosigned: &mut Option<Cosigned>,
        hearing: &Hearing,
    ) -> Result<Settlement, JournalClosed> {
        let stake = cosigned.is_some().then(|| self.stakes.hold(payment.source(), payment.amount()));
        let mut progress = Progress { stake, ..Progress::default() };
        let mut pause = FIRST_PAUSE;
        // What its buyer was told, while nothing is proven yet.
        let mut told = None;
        let mut counted = false;
        loop {
            let step = match cosigned {
                Some(ours) => self.follow(payment, ours, &mut progress).await,
                None => self.begin(payment, cosigned, &mut progress).await,
            };
            if is_waste(&step) && !std::mem::replace(&mut counted, true) {
                self.journal.wasted(payment.id());
            }
            match step {
                Ok(Some(Ended::Proven(Settlement::Failed { .. }))) if told.is_some() => {
                    return Ok(told.unwrap_or_else(evidence::expired));
                }
                Ok(Some(Ended::Proven(outcome))) => return Ok(outcome),
                Ok(Some(Ended::SoFar(outcome))) if told.is_none() => {
                    warn!(payment = %payment.id(), "settlement failed; it stays open until that is final: {outcome:?}");
                    hearing.tell(&outcome);
                    told = Some(outcome);
                }
                Ok(Some(Ended::SoFar(_)) | None) => {}
                Err(Halt::Closed) => return Err(JournalClosed),
                Err(Halt::Trouble(why)) => {
                    warn!(payment = %payment.id(), "settlement waits: {why}");
                    pause = LONGEST_PAUSE;
                }
            }
            if progress.queued {
                pause = QUEUE;
            }
            if told.is_some() || progress.forgotten {
                sleep(self.node.in_step(WATCH)).await;
                // The operator may have given it up meanwhile.
                self.journal.may_sign(payment.id())?;
            } else if cosigned.is_some() || hearing.is_waited() {
                sleep(self.node.in_step(pause)).await;
                pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            } else {
                idle(hearing).await;
                pause = FIRST_PAUSE;
            }
        }
    }

    /// Signs and sends, if the transfer would succeed now. What the chain refuses before anything is signed has failed, but for a
    /// payout: our signature is what it would need.
    async fn begin(
        &self,
        payment: &Verified,
        cosigned: &mut Option<Cosigned>,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        let is_outgoing = self.journal.is_outgoing(payment.id());
        progress.queued = !self.journal.may_sign(payment.id())?;
        if payment.fee_payer() != self.fee_payer() {
            let message = format!("the fee payer is {}, who does not settle here any more", payment.fee_payer());
            // Its key may have signed before books were put back.
            return match is_outgoing {
                true => Err(Halt::Trouble(format!("{message}; it goes on when that key is settler_key again"))),
                false => Ok(Some(failed(reason::FEE_PAYER, message))),
            };
        }
        if progress.queued {
            return Ok(None);
        }
        let last_height = match self.attempt(payment, trial::LEAST).await {
            Ok(passed) => {
                progress.stake = self.stakes.claim(payment.source(), payment.amount(), passed.balance, passed.slot);
                if progress.stake.is_none() {
                    debug!(payment = %payment.id(), "waits: the wallet's other transfers under way may leave nothing for this one");
                    return Ok(None);
                }
                passed.last_height
            }
            Err(Refused::Unavailable(why) | Refused::ClockSkew(why)) => return Err(Halt::Trouble(why)),
            // Books that were put back may be of before it was signed, and it may long be paid. It has one name on its chain,
            // whenever it is signed, and what became of that is what became of it.
            Err(Refused::Invalid { .. }) if is_outgoing => {
                self.node.note_height(0).saturating_add(trial::FAR + BLOCKHASH_LIFE + SLACK)
            }
            Err(Refused::Malformed(message)) => return Ok(Some(failed(common::INVALID_PAYLOAD, message))),
            Err(Refused::Invalid { reason, message }) => return Ok(Some(failed(reason, message))),
        };
        progress.queued = !self.journal.risk(payment.id())?;
        if progress.queued {
            progress.stake = None;
            return Ok(None);
        }
        let ours = Cosigned::sign(payment, &self.key, last_height);
        fault::point("solana.sign.before");
        self.journal.signed(payment.id(), ours.attempt()).await?;
        fault::point("solana.sign.after");
        let ours = cosigned.insert(ours);
        self.send(payment, ours, progress).await;
        Ok(None)
    }

    /// Hands the one transaction of a payment to the node, once more if need be. What came of it is known from the chain only.
    async fn send(&self, payment: &Verified, ours: &Cosigned, progress: &mut Progress) {
        progress.sent_at = Some(Instant::now());
        fault::point("solana.broadcast.before");
        let outcome = self.node.send(&ours.raw).await;
        fault::point("solana.broadcast.after");
        self.journal.sent(payment.id());
        match outcome {
            Ok(()) => debug!(payment = %payment.id(), tx = %name(&ours.signature), "sent"),
            Err(error) => debug!(payment = %payment.id(), tx = %name(&ours.signature), "not known to be taken: {error}"),
        }
    }

    /// Looks at what became of the transaction, and sends the same bytes again while it can still land.
    async fn follow(&self, payment: &Verified, ours: &Cosigned, progress: &mut Progress) -> Result<Option<Ended>, Halt> {
        let asking = self.node.asking();
        // If there is no answer from anybody else, the first is asked anew.
        let missed_by = progress.missed_by.take();
        let look = self.node.look(ours.signature, missed_by.map_or(Whom::Any, |source| self.node.others(source))).await?;
        let Some(status) = look.status else {
            if look.finalized > ours.last_height {
                return Ok(self.missing(payment, ours, &look, missed_by, progress, asking).await);
            }
            self.silent(payment, ours, &look, progress, asking).await;
            return Ok(None);
        };
        if let Some(stake) = progress.stake.take_if(|_| status.level >= Level::Confirmed) {
            stake.mined(status.slot);
            if status.succeeded {
                self.journal.landed(payment.id());
            }
        }
        if status.level < self.level(payment, &status) {
            return Ok(None);
        }
        // What a status says is believed when the transaction itself says so, too.
        let Some(landed) = self.node.transaction(&name(&ours.signature)).await? else {
            self.node.pass_over(asking);
            return Ok(None);
        };
        if landed.succeeded == status.succeeded && landed.transaction.message == payment.transaction().message {
            if let Some(fee) = landed.fee {
                self.journal.paid_fee(payment.id(), &name(&ours.signature), fee);
            }
            if !status.succeeded {
                let (reason, message) = (reason::TRANSACTION, evidence::FAILED.to_owned());
                let outcome = Settlement::Failed { reason, message };
                let is_final = status.level == Level::Finalized;
                return Ok(Some(if is_final { Ended::Proven(outcome) } else { Ended::SoFar(outcome) }));
            }
            if evidence::pays(&landed, payment) {
                let confirmation = Confirmation { tx: name(&ours.signature), block: landed.slot };
                return Ok(Some(Ended::Proven(Settlement::Confirmed(confirmation))));
            }
        }
        self.node.pass_over(asking);
        if !std::mem::replace(&mut progress.contradicted, true) {
            error!(
                payment = %payment.id(), tx = %name(&ours.signature),
                "a node says that our transfer is in a block and shows another one there, or none of the money; this payment stays open"
            );
        }
        Ok(None)
    }

    /// How sure the chain must be.
    fn level(&self, payment: &Verified, status: &Status) -> Level {
        match status.succeeded && payment.amount() > self.safe_above {
            true => Level::Finalized,
            false => Level::Confirmed,
        }
    }

    /// A node does not have the transaction in a block, and blocks that are final are past the last one in which it could have
    /// landed. It has failed once that was seen twice, the second time by another node if there is one, and where nodes remember.
    async fn missing(
        &self,
        payment: &Verified,
        ours: &Cosigned,
        look: &Look,
        missed_by: Option<Source>,
        progress: &mut Progress,
        asking: Asking,
    ) -> Option<Ended> {
        self.node.pass_over(asking);
        let by = look.by.filter(|_| !look.is_behind())?;
        // It takes nothing from here on: whatever it took, balances know of by now.
        progress.stake = None;
        let long_ago = look.finalized - ours.last_height > REMEMBERED;
        if long_ago && !std::mem::replace(&mut progress.old, true) {
            self.journal.forgotten(payment.id());
        }
        // What was paid out may be asked for again once it has failed, and no token keeps it from being paid twice: a node that
        // started anew a moment ago proves nothing.
        let ask = long_ago || self.journal.is_outgoing(payment.id());
        if ask && !self.node.remembers(by, payment.presented.verified_at.secs().saturating_sub(MARGIN)).await {
            if !std::mem::replace(&mut progress.forgotten, true) {
                error!(
                    payment = %payment.id(), payer = %payment.payer(), micros = payment.amount().get(),
                    tx = %name(&ours.signature), "{REMEMBERS_NOTHING}"
                );
            }
            return None;
        }
        if missed_by.is_some() {
            return Some(Ended::Proven(evidence::expired()));
        }
        progress.missed_by = Some(by);
        None
    }

    /// No node has the transaction in a block, and it may still land: the same bytes are sent again when it is time.
    async fn silent(&self, payment: &Verified, ours: &Cosigned, look: &Look, progress: &mut Progress, asking: Asking) {
        // Past its last block nobody takes it any more; until that is final it may still turn up.
        let due = progress.sent_at.is_none_or(|at| at.elapsed() >= RESEND);
        if due && progress.sent_at.is_some() {
            // It takes a second where all is well: perhaps this node passes nothing on, or does not hear what others have.
            self.node.pass_over(asking);
        }
        if !due || look.confirmed > ours.last_height {
            return;
        }
        if progress.sent_at.is_some() && self.has_ended(payment, progress).await {
            progress.sent_at = Some(Instant::now());
            return;
        }
        fault::point("solana.resend.before");
        self.send(payment, ours, progress).await;
        fault::point("solana.resend.after");
    }

    /// Whether no block takes the transaction any more, though heights do not say so yet: nodes say twice in a row that its
    /// blockhash has ended.
    async fn has_ended(&self, payment: &Verified, progress: &mut Progress) -> bool {
        match self.node.is_alive(&payment.recent_blockhash()).await {
            Ok(false) => progress.ended += 1,
            Ok(true) => progress.ended = 0,
            Err(_) => {}
        }
        progress.ended >= MISSES
    }

    /// Returns when the transfer is final or gone.
    async fn watch(&self, payment: &Verified, found: &Confirmation) -> Watched {
        let Some(signature) = super::signature(&found.tx) else { return Watched::Vanished };
        let mut missed = 0;
        loop {
            sleep(self.node.in_step(WATCH)).await;
            let asking = self.node.asking();
            let Ok(look) = self.node.look(signature, Whom::Any).await else { continue };
            match look.status {
                Some(status) if status.succeeded && status.level == Level::Finalized => {
                    debug!(payment = %payment.id(), "settlement is final");
                    return Watched::Final;
                }
                Some(status) if status.succeeded => missed = 0,
                // A node that is behind has not seen it yet.
                None if look.slot < found.block || look.is_behind() => self.node.pass_over(asking),
                None if look.final_slot.saturating_sub(found.block) > REMEMBERED => return Watched::Forgotten,
                // It is gone, or failed on the fork that won. Only a second look counts, by another node if there is one.
                Some(_) | None if missed + 1 >= MISSES => return Watched::Vanished,
                Some(_) | None => {
                    missed += 1;
                    self.node.pass_over(asking);
                }
            }
        }
    }
}

/// Said of a payment that nobody can vouch for, and nobody against.
const REMEMBERS_NOTHING: &str = "the node may have forgotten whether this payment arrived; it stays open: name in \
                                 rpc_urls a node that keeps all of the past, or look its transaction up, and close it with farebox \
                                 give-up, two days after it was brought, if it did not arrive";

fn failed(reason: &'static str, message: String) -> Ended {
    Ended::Proven(Settlement::Failed { reason, message })
}

/// Whether our transaction is in a block and failed there: we have paid for it.
fn is_waste(step: &Result<Option<Ended>, Halt>) -> bool {
    let Ok(Some(Ended::Proven(outcome) | Ended::SoFar(outcome))) = step else { return false };
    matches!(outcome, Settlement::Failed { reason: reason::TRANSACTION, .. })
}

/// Nobody waits and nothing is signed: look seldom, and at once when somebody asks again.
async fn idle(hearing: &Hearing) {
    let since = Instant::now();
    while since.elapsed() < IDLE && !hearing.is_waited() {
        sleep(WAKE).await;
    }
}
