//! Settling one payment on its chain: sign, journal, send, and look until it is proven where the money is.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};
use tracing::{debug, info, warn};

use super::address::Address;
use super::attempt::{Progress, gas_cap};
use super::check::Pace;
use super::doubt::{carries, contradiction};
use super::evidence::{self, CLOCK_TOLERANCE, Depth, Elsewhere};
use super::gap::Place;
use super::key::PrivateKey;
use super::lane::Lane;
use super::node::{self, Block, Node, Receipt};
use super::token::Token;
use super::transaction::{Signed, Transaction};
use super::verified::{Proof, Verified};
use super::watch::Watched;
use super::{abi, check, hex, simulate};
use crate::chain::client::JsonClient;
use crate::chain::handle::{Closed, Entry};
use crate::chain::open::Hearing;
use crate::chain::rounds::Shared;
use crate::chain::rpc::{Call, Rpc, RpcError};
use crate::chain::stakes::Stakes;
use crate::chain::{Attempt, Confirmation, Journal, JournalClosed, Refused, Settlement, reason};
use crate::clock::Clock;
use crate::fault;
use crate::money::Micros;

/// A transaction sent later than this before the end of its authorization would be mined too late.
const SETTLE_MARGIN_SECONDS: u64 = 6;
/// Between questions whether other transfers are in their blocks; nobody else is asked.
const QUEUE: Duration = Duration::from_millis(200);
/// Between two looks for a payment that nobody waits for and for which nothing is signed.
const IDLE: Duration = Duration::from_secs(15);
/// How soon somebody who asks again is noticed.
const WAKE: Duration = Duration::from_millis(100);
/// Between the first two looks for a payment whose buyer was told that it failed. Its end, which its buyer chose, may be a day
/// away.
const AFTERCARE: Duration = Duration::from_secs(5);
/// Between later ones.
const LONGEST_AFTERCARE: Duration = Duration::from_secs(160);

/// Everything that settles payments on one network with one key.
pub struct Settler {
    pub(super) node: Node,
    pub(super) entry: Arc<Entry>,
    pub(super) token: Token,
    pub(super) key: PrivateKey,
    pub(super) address: Address,
    pub(super) lane: Lane,
    stakes: Stakes<Holdings>,
    /// How many of our transactions are mined.
    pub(super) mined: Shared<u64>,
    pub(super) journal: Arc<dyn Journal>,
    clock: Clock,
    depth: Depth,
    pub(super) coin_usd: Option<Micros>,
    pub(super) max_fee: u128,
}

/// What a step of a settlement led to.
pub enum Ended {
    /// Nothing can change it: it goes into the books.
    Proven(Settlement),
    /// It did not move the money, as deep as we believe a transfer that did. What we signed is public, so until its end
    /// anybody may still submit it, and a reorganisation may still let ours succeed: its buyer is told, and the books wait.
    SoFar(Settlement),
}

/// Why a step was not finished.
pub enum Halt {
    /// The journal is closed: this payment is not touched again before a restart.
    Closed,
    /// The chain cannot be asked now: wait and go on. Never a verdict.
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

/// A payer's holdings of one token.
pub type Holdings = (Address, Address);

fn holdings(payment: &Verified) -> Holdings {
    (payment.asset, payment.authorization.from)
}

/// Why a transfer was not tried.
enum Untried {
    Clock(Closed),
    Trouble(Refused),
}

/// What is needed to settle on a network.
pub struct Purse {
    pub token: Token,
    pub urls: Vec<String>,
    pub key: PrivateKey,
    pub depth: Depth,
    /// What one coin of the chain costs, if the operator told.
    pub coin_usd: Option<Micros>,
    pub max_fee: u128,
}

impl Settler {
    pub fn new(client: JsonClient, entry: Arc<Entry>, purse: Purse, journal: Arc<dyn Journal>, clock: Clock) -> Settler {
        Settler {
            node: Node::new(Rpc::new(client, purse.urls)),
            entry,
            token: purse.token,
            address: purse.key.address(),
            key: purse.key,
            lane: Lane::default(),
            stakes: Stakes::default(),
            mined: Shared::default(),
            journal,
            clock,
            depth: purse.depth,
            coin_usd: purse.coin_usd,
            max_fee: purse.max_fee,
        }
    }

    pub async fn check(&self) -> Result<(), Closed> {
        self.node.any(|| check::check(self, self.clock.now())).await
    }

    pub async fn simulate(&self, payment: &Verified) -> Result<(), Refused> {
        if payment.authorization.from == self.token.pay_to {
            return self.node.any(|| simulate::unsigned(&self.node, payment)).await;
        }
        let (trial, pace) = self.node.any(|| self.tried(payment)).await.map_err(|why| match why {
            Untried::Clock(why) => self.entry.closing(why),
            Untried::Trouble(why) => why,
        })?;
        let trial = match pace {
            Pace::Live => trial,
            // The token compares times with those of the block it is asked in.
            Pace::Idle => simulate::attempt(&self.node, self.address, payment, "pending").await?,
        };
        trial.judge(&self.node, self.address, payment).await.map(|_| ())
    }

    /// Tries the transfer on a node that is of this chain and of now.
    async fn tried(&self, payment: &Verified) -> Result<(simulate::Trial, Pace), Untried> {
        let trial = simulate::attempt(&self.node, self.address, payment, "latest").await.map_err(Untried::Trouble)?;
        // The time that was noted with the payment is what its transfer is looked for by.
        let pace =
            check::agree_on_time(&self.node, &self.token, (&trial.latest, trial.asking), payment.presented.verified_at).await;
        pace.map(|pace| (trial, pace)).map_err(Untried::Clock)
    }

    /// Whether the chain's clock and ours agree.
    pub async fn agree_on_time(&self) -> Result<(), Closed> {
        self.node.any(|| check::recent_agrees(&self.node, &self.token, self.clock.now())).await
    }

    /// Reads journaled attempts back. Must happen before any new settlement starts, so that no nonce is used twice.
    pub fn restore(&self, attempts: &[Attempt]) -> Vec<Signed> {
        let tries: Vec<_> = attempts.iter().filter_map(|attempt| Signed::read(&attempt.raw)).collect();
        for signed in tries.iter().filter(|signed| signed.from == self.address) {
            self.lane.occupied(signed.transaction.nonce);
        }
        tries
    }

    /// Settles a payment, or goes on where the journal left it, and watches it until it is final. Those who wait hear the
    /// outcome after the journal does; nobody needs to be waiting.
    pub async fn run(
        &self,
        payment: &Verified,
        mut tries: Vec<Signed>,
        confirmed: Option<Confirmation>,
        hearing: &Hearing,
    ) -> Result<(), JournalClosed> {
        self.pursue(payment, &mut tries, confirmed, hearing).await?;
        // If the journal is closed instead, the payment goes on after a restart, and its nonces stay its own until then.
        let ours = tries.iter().filter(|signed| signed.from == self.address);
        ours.for_each(|signed| self.lane.release(signed.transaction.nonce));
        Ok(())
    }

    async fn pursue(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        mut confirmed: Option<Confirmation>,
        hearing: &Hearing,
    ) -> Result<(), JournalClosed> {
        let id = payment.id();
        loop {
            let (outcome, known) = match confirmed.take() {
                Some(confirmation) => (Settlement::Confirmed(confirmation), true),
                None => (self.land(payment, tries, hearing).await?, false),
            };
            if !known {
                fault::point("confirm.before");
                self.journal.settled(id, outcome.clone()).await?;
                fault::point("confirm.after");
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
            match self.watch(payment, &confirmation, tries).await {
                Watched::Final => {
                    fault::point("final.before");
                    self.journal.finalized(id);
                    fault::point("final.after");
                    return Ok(());
                }
                Watched::Vanished => {
                    warn!(payment = %id, tx = %confirmation.tx, "a confirmed transfer vanished; sending it again");
                    fault::point("reorg.before");
                    self.journal.unconfirmed(id);
                    fault::point("reorg.after");
                    hearing.take_back();
                }
            }
        }
    }

    /// Goes on until there is proof. Trouble with the nodes only makes it slower.
    async fn land(&self, payment: &Verified, tries: &mut Vec<Signed>, hearing: &Hearing) -> Result<Settlement, JournalClosed> {
        let mut progress = Progress::new();
        progress.stake = (!tries.is_empty()).then(|| self.stakes.hold(holdings(payment), payment.amount()));
        let mut pause = Duration::from_millis(100);
        // What its buyer was told, while nothing is proven yet.
        let mut told = None;
        let mut counted = false;
        loop {
            // Of what its buyer was told that it failed, nothing is signed any more.
            let step = if tries.is_empty() && told.is_none() {
                self.begin(payment, tries, &mut progress).await.map(|ended| self.while_it_may_land(payment, ended))
            } else {
                self.follow(payment, tries, &mut progress).await
            };
            // Of one that reverted because somebody else carried the payment, we have the money.
            let failed = matches!(step, Ok(Some(Ended::Proven(Settlement::Failed { .. }) | Ended::SoFar(_))));
            if failed && progress.reverted && !std::mem::replace(&mut counted, true) {
                self.journal.wasted(payment.id());
            }
            match step {
                Ok(Some(Ended::Proven(Settlement::Confirmed(confirmation)))) => {
                    progress.stake.take().into_iter().for_each(|stake| stake.mined(confirmation.block));
                    return Ok(Settlement::Confirmed(confirmation));
                }
                Ok(Some(Ended::Proven(outcome))) => return Ok(told.unwrap_or(outcome)),
                Ok(Some(Ended::SoFar(outcome))) if told.is_none() => {
                    warn!(payment = %payment.id(), "settlement failed; it stays open until that is final: {outcome:?}");
                    hearing.tell(&outcome);
                    (told, progress.told, progress.stake) = (Some(outcome), true, None);
                }
                Ok(Some(Ended::SoFar(_)) | None) => {}
                Err(Halt::Closed) => return Err(JournalClosed),
                Err(Halt::Trouble(why)) => {
                    warn!(payment = %payment.id(), "settlement waits: {why}");
                    pause = pause.max(Duration::from_secs(1));
                }
            }
            if progress.queued {
                pause = QUEUE;
            }
            if told.is_some() {
                sleep(self.node.in_step(self.aftercare(payment, &mut progress))).await;
                if tries.is_empty() || progress.clear {
                    // The operator may have given it up meanwhile.
                    self.journal.may_sign(payment.id())?;
                }
                continue;
            }
            if !tries.is_empty() || hearing.is_waited() {
                sleep(self.node.in_step(pause)).await;
                pause = (pause * 3 / 2).min(Duration::from_secs(2));
                continue;
            }
            // Nobody waits and nothing is signed: look seldom, and at once when somebody asks again.
            let since = Instant::now();
            while since.elapsed() < IDLE && !hearing.is_waited() {
                sleep(WAKE).await;
            }
            pause = WAKE;
        }
    }

    /// How long a payment is left alone whose buyer was told that it failed: not for long while a nonce of ours holds up others,
    /// else twice as long each time, but not past its end.
    fn aftercare(&self, payment: &Verified, progress: &mut Progress) -> Duration {
        let longest = if progress.clear { LONGEST_AFTERCARE } else { AFTERCARE };
        progress.pause = (progress.pause * 2).clamp(AFTERCARE, longest);
        let left = self.seconds_left(payment);
        if left > 0 {
            progress.pause = progress.pause.min(Duration::from_secs(left));
        }
        progress.pause
    }

    /// Signs and sends, if the transfer would succeed now. What would revert before anything is signed has failed.
    async fn begin(&self, payment: &Verified, tries: &mut Vec<Signed>, progress: &mut Progress) -> Result<Option<Ended>, Halt> {
        progress.queued = false;
        if self.seconds_left(payment) < SETTLE_MARGIN_SECONDS {
            let latest = self.node.block("latest").await?;
            return self.after_expiry(payment, tries, &latest, progress).await;
        }
        progress.queued = !self.journal.may_sign(payment.id())?;
        if progress.queued {
            return Ok(None);
        }
        let mut data = match payment.proof {
            Proof::Recovered => abi::transfer_plain(&payment.authorization, &payment.signature),
            Proof::NeedsCode => None,
        }
        .unwrap_or_else(|| abi::transfer_wallet(&payment.authorization, &payment.signature));
        let asking = self.node.asking();
        let [gas, code, latest, balance, tip, pending, chain_id] = self.node.batch(self.questions(payment, &data)).await?;
        // A nonce of another chain would leave a gap before everything that follows.
        self.node.on_chain(chain_id, payment.chain_id, asking)?;
        let latest = node::read_block(latest?)?;
        let mut wallet = !node::read_bytes(&code?)?.is_empty();
        let gas = match gas {
            Ok(gas) => node::read_number(&gas)?,
            Err(error) if node::is_revert(&error) => match simulate::simulate(&self.node, self.address, payment).await {
                Ok(plan) => {
                    (data, wallet) = (plan.data, plan.wallet);
                    node::read_number(&self.node.call(node::estimate(self.address, payment.asset, &data)).await?)?
                }
                Err(refused) => return self.refused(payment, refused, &latest, progress).await,
            },
            Err(error) => {
                self.notice(&error);
                return Err(error.into());
            }
        };
        let cap = gas_cap(payment.chain_id, wallet);
        if gas > cap {
            let message = format!("this wallet's transfer needs {gas} gas, and at most {cap} is paid for here");
            return Ok(Some(Ended::Proven(Settlement::Failed { reason: reason::SIMULATION, message })));
        }
        let Some(fees) = self.fees(&latest, node::read_tip(tip)) else {
            let why = check::room_for(latest.base_fee, self.max_fee).err().unwrap_or_default();
            self.entry.close(why.clone());
            return Err(Halt::Trouble(why));
        };
        let transaction = Transaction {
            chain_id: payment.chain_id,
            nonce: 0,
            tip: fees.tip,
            max_fee: fees.max_fee,
            gas: gas.saturating_add(gas / 5).min(cap),
            to: payment.asset,
            data,
        };
        if !self.has_stake(payment, &balance?, &latest, progress)? {
            return Ok(None);
        }
        progress.queued = !self.journal.risk(payment.id())?;
        if progress.queued {
            progress.stake = None;
            return Ok(None);
        }
        progress.explained();
        progress.signing(&latest);
        self.send_first(payment, tries, transaction, node::read_number(&pending?)?, progress).await?;
        Ok(None)
    }

    /// What must be known before a transfer is signed.
    fn questions(&self, payment: &Verified, data: &[u8]) -> [Call; 7] {
        let payer = payment.authorization.from;
        [
            node::estimate(self.address, payment.asset, data),
            node::code(payer),
            node::block("latest"),
            // Not older than the block before it in this list.
            node::view(payment.asset, payment.asset, &abi::balance_of(payer)),
            node::tip(),
            node::count(self.address, "pending"),
            node::chain_id(),
        ]
    }

    /// Whether the payer's balance pays for this transfer beside its others that are under way.
    fn has_stake(&self, payment: &Verified, balance: &Value, latest: &Block, progress: &mut Progress) -> Result<bool, RpcError> {
        if progress.stake.is_none() {
            let unreadable = || RpcError::Unreachable("the token's balance of the payer is not a word".into());
            let balance = abi::word(&node::read_bytes(balance)?).ok_or_else(unreadable)?;
            progress.stake =
                self.stakes.claim(holdings(payment), payment.amount(), balance.as_u64().unwrap_or(u64::MAX), latest.number);
        }
        if progress.stake.is_none() {
            debug!(payment = %payment.id(), "waits: the wallet's other transfers under way may leave nothing for this one");
        }
        Ok(progress.stake.is_some())
    }

    /// The chain refuses the transfer and nothing is signed: either somebody else carried it, or it failed.
    async fn refused(
        &self,
        payment: &Verified,
        refused: Refused,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        let (reason, message) = match refused {
            Refused::Unavailable(why) | Refused::ClockSkew(why) => return Err(Halt::Trouble(why)),
            Refused::Malformed(message) => (reason::INVALID_PAYLOAD, message),
            Refused::Invalid { reason, message } => (reason, message),
        };
        // EIP-3009 lets anyone submit this; a stranger's earlier submit is still our payment, whatever reason a node names
        // that is a block behind the one that refused.
        let failed = match self.elsewhere(payment, latest, progress).await? {
            Elsewhere::Paid(confirmation) => return self.deep(payment, confirmation, latest).await,
            Elsewhere::Spent { block, .. } => self.is_deep(payment, block, latest).await?,
            Elsewhere::Unexplained => self.stays_unexplained(latest, progress).await?,
            Elsewhere::Unused => reason != reason::NONCE_USED,
        };
        Ok(failed.then_some(Ended::Proven(Settlement::Failed { reason, message })))
    }

    /// Looks at what became of the transactions, and pushes the last one if it is stuck.
    async fn follow(&self, payment: &Verified, tries: &mut Vec<Signed>, progress: &mut Progress) -> Result<Option<Ended>, Halt> {
        let hashes: Vec<_> = tries.iter().map(|signed| signed.hash).collect();
        let asking = self.node.asking();
        let (receipts, latest) = self.node.our_receipts(&hashes).await?;
        if latest.timestamp.saturating_add(CLOCK_TOLERANCE) < self.clock.now().secs() {
            // Behind, or a chain without traffic: another node sees as much or more.
            self.node.pass_over(asking);
        }
        let mut mined: Vec<_> = receipts.into_iter().flatten().collect();
        // Not even beside the receipt of a newer nonce may such a transaction be overlooked.
        let odd = mined.iter().find(|receipt| receipt.succeeded && carries(tries, &receipt.tx));
        if let Some(odd) = odd.filter(|_| !mined.iter().any(|receipt| evidence::pays(receipt, payment))) {
            return Ok(contradiction(payment, &odd.tx, progress));
        }
        // A receipt that pays outweighs all others; of those, only the newest nonce's says anything.
        let newest = tries.last().map(|signed| signed.transaction.nonce);
        let is_newest = |tx| tries.iter().any(|signed| signed.hash == tx && Some(signed.transaction.nonce) == newest);
        mined.retain(|receipt| evidence::pays(receipt, payment) || is_newest(receipt.tx));
        mined.sort_by_key(|receipt| evidence::pays(receipt, payment));
        if let Some(receipt) = mined.pop() {
            return self.mined(payment, &receipt, tries, &latest, progress).await;
        }
        if progress.told || latest.timestamp >= evidence::end(payment) {
            return self.after_expiry(payment, tries, &latest, progress).await;
        }
        if progress.is_new() {
            fault::point("resend.before");
            self.send_last(payment, tries, progress).await;
            fault::point("resend.after");
        } else if progress.is_stuck() {
            return self.unstick(payment, tries, &latest, progress).await;
        }
        Ok(None)
    }

    /// A transaction of ours is in a block, and it is none that succeeded without paying.
    async fn mined(
        &self,
        payment: &Verified,
        receipt: &Receipt,
        tries: &mut Vec<Signed>,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        progress.seen_in(receipt.block, latest);
        progress.clear = true;
        progress.reverted |= !receipt.succeeded;
        if evidence::pays(receipt, payment) {
            self.journal.landed(payment.id());
        }
        let place = Confirmation { tx: hex::encode(&receipt.tx), block: receipt.block };
        let Some(deep) = self.deep(payment, place, latest).await? else { return Ok(None) };
        self.note_fee(payment, receipt, progress);
        if evidence::pays(receipt, payment) {
            return Ok(Some(deep));
        }
        // At least as new as the receipt's block, because that is deep.
        let elsewhere = self.elsewhere(payment, latest, progress).await?;
        if receipt.succeeded {
            // The transaction that frees a nonce, so the authorization was at its end or carried by somebody else. If a
            // reorganisation undid the latter, there may be time left for a transfer of ours.
            return match elsewhere {
                Elsewhere::Unused if !progress.told && self.seconds_left(payment) >= SETTLE_MARGIN_SECONDS => {
                    self.begin_again(payment, tries, progress).await
                }
                _ => self.after_expiry(payment, tries, latest, progress).await,
            };
        }
        match elsewhere {
            Elsewhere::Paid(confirmation) => self.deep(payment, confirmation, latest).await,
            Elsewhere::Spent { tx, .. } if carries(tries, &tx) => Ok(contradiction(payment, &tx, progress)),
            Elsewhere::Spent { block, .. } => self.spent(payment, block, latest).await,
            Elsewhere::Unexplained => self.after_unexplained(payment, tries, latest, progress).await,
            Elsewhere::Unused if progress.told && latest.timestamp >= evidence::end(payment) => {
                self.after_expiry(payment, tries, latest, progress).await
            }
            Elsewhere::Unused if progress.told => Ok(None),
            Elsewhere::Unused => {
                let why = simulate::simulate(&self.node, self.address, payment).await;
                let (reason, message) = match why {
                    Err(Refused::Unavailable(why) | Refused::ClockSkew(why)) => return Err(Halt::Trouble(why)),
                    Err(Refused::Invalid { reason, message }) => (reason, message),
                    Ok(_) | Err(Refused::Malformed(_)) => (reason::TRANSACTION, "the transfer reverted".to_owned()),
                };
                Ok(Some(Ended::SoFar(Settlement::Failed { reason, message })))
            }
        }
    }

    /// The last transaction waits too long: was it overtaken, or does it need a higher fee?
    async fn unstick(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        match self.elsewhere(payment, latest, progress).await? {
            Elsewhere::Paid(confirmation) => return self.deep(payment, confirmation, latest).await,
            Elsewhere::Spent { tx, block } => return self.after_spent(payment, tries, (tx, block), latest, progress).await,
            Elsewhere::Unexplained => return self.after_unexplained(payment, tries, latest, progress).await,
            Elsewhere::Unused => {}
        }
        let Some(last) = tries.last() else { return Ok(None) };
        let ours = last.from == self.address;
        let late = self.seconds_left(payment) < SETTLE_MARGIN_SECONDS;
        let place = if ours { self.place(last.transaction.nonce, latest).await? } else { Place::Behind };
        let overtaken = place == Place::Passed;
        if overtaken {
            // Receipts and counts may come from nodes that are apart; only a second look counts.
            progress.passed += 1;
        }
        if !late && (!ours || progress.passed > 1) {
            progress.passed = 0;
            warn!(payment = %payment.id(), "the last transaction cannot land any more; signing one with a new nonce");
            return self.begin_again(payment, tries, progress).await;
        }
        if !overtaken {
            if late {
                self.send_last(payment, tries, progress).await;
            } else {
                self.replace(payment, tries, place, latest, progress).await?;
            }
        }
        Ok(None)
    }

    /// Signs one with a new nonce beside older ones, which may still land, so that a refusal proves nothing before the
    /// authorization's end.
    async fn begin_again(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        Ok(match self.begin(payment, tries, progress).await? {
            Some(Ended::Proven(Settlement::Failed { .. }) | Ended::SoFar(_)) | None => None,
            Some(confirmed) => Some(confirmed),
        })
    }

    pub(super) fn chain_id(&self) -> u64 {
        self.token.chain_id
    }

    /// The confirmation as an outcome, once enough blocks stand on it.
    pub(super) async fn deep(&self, payment: &Verified, found: Confirmation, latest: &Block) -> Result<Option<Ended>, Halt> {
        let deep = self.is_deep(payment, found.block, latest).await?;
        Ok(deep.then_some(Ended::Proven(Settlement::Confirmed(found))))
    }

    pub(super) async fn is_deep(&self, payment: &Verified, block: u64, latest: &Block) -> Result<bool, Halt> {
        Ok(self.depth.reached(&self.node, payment, block, latest).await?)
    }

    fn seconds_left(&self, payment: &Verified) -> u64 {
        payment.valid_before().secs().saturating_sub(self.clock.now().secs())
    }
}
