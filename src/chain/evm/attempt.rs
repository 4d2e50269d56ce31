//! Signing and sending: which fee, which nonce, journaled before a byte leaves, and replaced when it is stuck.

use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use super::gap::Place;
use super::hex;
use super::node::{self, Block};
use super::settle::{Halt, Holdings, Settler};
use super::transaction::{Signed, Transaction};
use super::verified::Verified;
use crate::chain::rpc::RpcError;
use crate::chain::stakes::Stake;
use crate::chain::{Attempt, JournalClosed};
use crate::fault;

/// A transaction without a receipt after this long is stuck.
const STUCK: Duration = Duration::from_secs(10);
/// A transaction that the node did not take is tried again after this long.
const NOT_TAKEN: Duration = Duration::from_secs(2);
/// How long, and for how many blocks, a used authorization may stay without the event that explains it.
const UNEXPLAINED: Duration = Duration::from_secs(10);
const UNEXPLAINED_BLOCKS: u64 = 8;
/// An answer that is younger than this serves everybody who asks the same.
const JUST_NOW: Duration = Duration::from_millis(100);
/// An eighth more, so many times, is ten times the first fee.
const MOST_BUMPS: usize = 20;
/// Below this a suggested tip is not worth the risk of being ignored, in wei per gas.
const SMALLEST_TIP: u128 = 1_000_000;

/// Fees in wei per gas (EIP-1559).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    pub tip: u128,
    pub max_fee: u128,
}

impl Transaction {
    fn fees(&self) -> Fees {
        Fees { tip: self.tip, max_fee: self.max_fee }
    }
}

impl Fees {
    /// Twice the base fee plus the tip, so that it stays valid through six full blocks; never above the operator's cap.
    /// `None` when the base fee alone is above the cap.
    pub fn suggest(base_fee: u128, tip: u128, cap: u128) -> Option<Fees> {
        if base_fee >= cap {
            return None;
        }
        let max_fee = base_fee.saturating_mul(2).saturating_add(tip.max(SMALLEST_TIP)).min(cap);
        Some(Fees { tip: tip.max(SMALLEST_TIP).min(max_fee), max_fee })
    }

    /// An eighth more of both, which every node takes for a replacement (they want a tenth), or what is suggested now if
    /// that is more. `None` when the cap, or the most we tip, does not leave room for that.
    pub fn bump(self, suggested: Option<Fees>, cap: u128, dearest_tip: u128) -> Option<Fees> {
        let more = |fee: u128| fee.saturating_add(fee.div_ceil(8)).saturating_add(1);
        let least = Fees { tip: more(self.tip), max_fee: more(self.max_fee) };
        if least.max_fee > cap || least.tip > least.max_fee.min(dearest_tip) {
            return None;
        }
        let now = suggested.unwrap_or(least);
        let max_fee = least.max_fee.max(now.max_fee).min(cap);
        Some(Fees { tip: least.tip.max(now.tip).min(max_fee), max_fee })
    }
}

/// How far the last transaction of a payment got.
pub struct Progress {
    /// Whether it waits until other transfers are in their blocks, with nothing signed.
    pub queued: bool,
    sent_at: Option<Instant>,
    taken: Taken,
    /// The latest block when the last transaction was signed.
    signed_at: Option<u64>,
    /// How often the chain had counted past our nonce without a receipt of ours.
    pub passed: u32,
    /// When, and at which block, the token first called the authorization used up without saying how.
    unexplained: Option<(Instant, u64)>,
    /// Whether the operator was told that a transfer of ours succeeded without a trace of it.
    pub contradicted: bool,
    /// What the transfer takes from its payer's wallet, from before it is signed until it is seen in a block.
    pub stake: Option<Stake<Holdings>>,
    /// Whether the buyer was told that the payment failed. Then nothing pushes the transfer any more; only its nonce is freed.
    pub told: bool,
    /// Whether our nonces for it were used up at the last look, so that nobody waits behind them.
    pub clear: bool,
    /// Whether one of our transactions was seen in a block where it reverted.
    pub reverted: bool,
    /// How long it was left alone after that.
    pub pause: Duration,
    /// The transaction whose fee was told last.
    pub charged: Option<[u8; 32]>,
}

/// What the node said to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// Taken, or nobody knows.
    Perhaps,
    Underpriced,
    No,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            queued: false,
            sent_at: None,
            taken: Taken::Perhaps,
            signed_at: None,
            passed: 0,
            unexplained: None,
            contradicted: false,
            stake: None,
            told: false,
            clear: false,
            reverted: false,
            pause: Duration::ZERO,
            charged: None,
        }
    }

    /// The transfer, or another use of its authorization, is in this block.
    pub fn seen_in(&mut self, block: u64, latest: &Block) {
        if block <= latest.number
            && let Some(stake) = self.stake.take()
        {
            stake.mined(block);
        }
    }

    /// The token called the authorization used up at this block, and no event up to there says how.
    pub fn unexplained(&mut self, latest: &Block) {
        self.unexplained.get_or_insert_with(|| (Instant::now(), latest.number));
    }

    /// The chain said something else.
    pub fn explained(&mut self) {
        self.unexplained = None;
    }

    /// The block at which this began, if that was a while and several blocks ago. Until then a node may just be behind with
    /// its events.
    pub fn unexplained_since(&self, latest: &Block) -> Option<u64> {
        let (at, first) = self.unexplained?;
        (at.elapsed() >= UNEXPLAINED && latest.number >= first.saturating_add(UNEXPLAINED_BLOCKS)).then_some(first)
    }

    /// A transaction is signed while this block is the latest.
    pub fn signing(&mut self, latest: &Block) {
        self.signed_at = Some(latest.number);
    }

    /// Whether there was a block since that could have taken the last transaction and did not.
    fn was_left_out(&mut self, latest: &Block) -> bool {
        latest.number > *self.signed_at.get_or_insert(latest.number)
    }

    /// Stored bytes that were not sent since the program started.
    pub fn is_new(&self) -> bool {
        self.sent_at.is_none()
    }

    /// Whether it is time to do something about the last transaction.
    pub fn is_stuck(&self) -> bool {
        let patience = if self.taken == Taken::Perhaps { STUCK } else { NOT_TAKEN };
        self.sent_at.is_none_or(|at| at.elapsed() >= patience)
    }
}

impl Settler {
    /// Signs the first transaction of a payment, or one with a new nonce when the last one's was used up by a stranger.
    pub(super) async fn send_first(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        transaction: Transaction,
        pending: u64,
        progress: &mut Progress,
    ) -> Result<(), JournalClosed> {
        let turn = self.lane.turn(pending).await;
        let signed = Transaction { nonce: turn.nonce(), ..transaction }.sign(&self.key);
        fault::point("sign.before");
        self.journal.signed(payment.id(), attempt(&signed)).await?;
        fault::point("sign.after");
        turn.taken();
        tries.push(signed);
        self.send_last(payment, tries, progress).await;
        Ok(())
    }

    /// Sends the newest transaction of a payment, once more if need be. The outcome is known from receipts only.
    pub(super) async fn send_last(&self, payment: &Verified, tries: &[Signed], progress: &mut Progress) {
        let Some(last) = tries.last() else { return };
        let id = payment.id();
        fault::point("broadcast.before");
        let answer = self.node.send(&last.raw).await;
        fault::point("broadcast.after");
        progress.taken = match answer {
            Ok(()) => Taken::Perhaps,
            Err(error) => {
                self.notice(&error);
                judge(&error)
            }
        };
        progress.sent_at = Some(Instant::now());
        match progress.taken {
            Taken::Perhaps => {
                info!(payment = %id, tx = %hex::encode(&last.hash), nonce = last.transaction.nonce, "settlement sent");
                self.journal.sent(id);
                fault::point("broadcast.noted");
            }
            Taken::Underpriced | Taken::No => {
                warn!(payment = %id, tx = %hex::encode(&last.hash), taken = ?progress.taken, "the node did not take it yet");
            }
        }
    }

    /// Sends the same call again, at a higher fee where the cap allows it.
    pub(super) async fn replace(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        place: Place,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<(), Halt> {
        let Some(last) = tries.last().filter(|last| last.from == self.address) else { return Ok(()) };
        let transaction = last.transaction.clone();
        let dearer = match may_bump(place, &transaction, tries, latest, progress) {
            true => self.bumped(transaction.fees(), latest).await?,
            false => None,
        };
        match dearer {
            Some(fees) => self.send_bumped(payment, tries, transaction, fees, latest, progress).await.map_err(Halt::from),
            None => {
                self.send_last(payment, tries, progress).await;
                Ok(())
            }
        }
    }

    /// Whether our nonces for this payment are used up, so that no transaction of another payment waits behind them. If
    /// not, the stuck transaction is replaced by one that moves nothing.
    pub(super) async fn clear_line(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<bool, Halt> {
        let Some(last) = tries.iter().rfind(|signed| signed.from == self.address) else { return Ok(true) };
        let place = self.place(last.transaction.nonce, latest).await?;
        if place == Place::Passed {
            return Ok(true);
        }
        if progress.is_new() {
            // A last chance for the bytes we have; a reverted transfer uses up the nonce as well.
            self.send_last(payment, tries, progress).await;
        }
        if !progress.is_stuck() {
            return Ok(false);
        }
        let mut transaction = last.transaction.clone();
        let useless = !transaction.data.is_empty();
        let dearer = match may_bump(place, &transaction, tries, latest, progress) || (useless && place == Place::Head) {
            true => self.bumped(transaction.fees(), latest).await?,
            false => None,
        };
        let Some(fees) = dearer else {
            self.send_last(payment, tries, progress).await;
            return Ok(false);
        };
        if useless {
            warn!(payment = %payment.id(), nonce = transaction.nonce, "freeing the nonce of a transaction that is of no use");
            let gas = self.node.call(node::estimate(self.address, self.address, &[])).await?;
            let gas = node::read_number(&gas)?;
            transaction = Transaction { to: self.address, data: Vec::new(), gas: gas.saturating_add(gas / 5), ..transaction };
        }
        self.send_bumped(payment, tries, transaction, fees, latest, progress).await?;
        Ok(false)
    }

    /// Without gas money nothing can be settled, so nothing more may be sold.
    pub(super) fn notice(&self, error: &RpcError) {
        if error.says(&["insufficient funds"]) {
            self.entry.close(format!("gas: the settler {} cannot pay for a settlement; send it some", self.address));
        }
    }

    /// How many of our transactions are mined, or were a moment ago.
    pub(super) async fn mined_count(&self) -> Result<u64, RpcError> {
        let ask = async { node::read_number(&self.node.call(node::count(self.address, "latest")).await?) };
        self.mined.get(JUST_NOW, ask).await
    }

    /// What the network asks now, within the operator's cap.
    pub(super) fn fees(&self, latest: &Block, tip: u128) -> Option<Fees> {
        let base_fee = latest.base_fee?;
        Fees::suggest(base_fee, tip.min(dearest_tip(self.chain_id(), base_fee)), self.max_fee)
    }

    /// What the node suggests as a tip; not every node does.
    pub(super) async fn suggested_tip(&self) -> u128 {
        self.node.call(node::tip()).await.and_then(|tip| node::read_quantity(&tip)).unwrap_or(SMALLEST_TIP)
    }

    /// Fees that replace `old`, within what we tip and the operator's cap.
    pub(super) async fn bumped(&self, old: Fees, latest: &Block) -> Result<Option<Fees>, RpcError> {
        let tip = self.suggested_tip().await;
        let dearest = dearest_tip(self.chain_id(), latest.base_fee.unwrap_or(0));
        Ok(old.bump(self.fees(latest, tip), self.max_fee, dearest))
    }

    async fn send_bumped(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        transaction: Transaction,
        fees: Fees,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<(), JournalClosed> {
        progress.signing(latest);
        let signed = Transaction { tip: fees.tip, max_fee: fees.max_fee, ..transaction }.sign(&self.key);
        fault::point("bump.before");
        self.journal.signed(payment.id(), attempt(&signed)).await?;
        fault::point("bump.signed");
        tries.push(signed);
        self.send_last(payment, tries, progress).await;
        fault::point("bump.after");
        Ok(())
    }
}

/// Whether a higher fee can help: only at the head of the line, after a block that left the transaction out, and not for
/// ever. Without gas money a higher fee is refused all the more.
fn may_bump(place: Place, transaction: &Transaction, tries: &[Signed], latest: &Block, progress: &mut Progress) -> bool {
    let same = |signed: &&Signed| signed.transaction.nonce == transaction.nonce && signed.transaction.data == transaction.data;
    let bumps = tries.iter().filter(same).count().saturating_sub(1);
    place == Place::Head && progress.taken != Taken::No && bumps < MOST_BUMPS && progress.was_left_out(latest)
}

/// The most we tip, whatever the node suggests: it learns from the last blocks, and a stranger who overpays in a quiet one
/// must not make us pay his price. Polygon alone has a floor (25 gwei and more) that is far above its base fee.
fn dearest_tip(chain_id: u64, base_fee: u128) -> u128 {
    const GWEI: u128 = 1_000_000_000;
    let floor = if matches!(chain_id, 137 | 80002) { 100 * GWEI } else { 2 * GWEI };
    base_fee.saturating_mul(2).max(floor)
}

/// The most gas a transfer may use. A plain one needs about 105,000, and 17,000 more when the recipient had nothing yet;
/// a wallet's own signature check comes on top.
pub(super) fn gas_cap(chain_id: u64, wallet: bool) -> u64 {
    const ARBITRUM: [u64; 2] = [42161, 421614];
    if ARBITRUM.contains(&chain_id) {
        // There the estimate includes what the parent chain charges.
        return 3_000_000;
    }
    if wallet { 300_000 } else { 150_000 }
}

fn attempt(signed: &Signed) -> Attempt {
    Attempt { tx: hex::encode(&signed.hash), raw: signed.raw.clone(), bound_to: signed.transaction.nonce }
}

/// Nodes agree on words, not on codes. Whatever is not clearly a refusal may have been taken.
fn judge(error: &RpcError) -> Taken {
    match error {
        _ if error.says(&["underpriced", "less than block base fee", "fee too low"]) => Taken::Underpriced,
        _ if error.says(&["insufficient funds", "intrinsic gas", "exceeds block gas limit", "exceeds the configured cap"]) => {
            warn!(%error, "the settler's transaction is refused");
            Taken::No
        }
        _ => Taken::Perhaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fee_never_passes_the_operators_cap() {
        let gwei = 1_000_000_000;
        assert_eq!(Fees::suggest(gwei, gwei, 100 * gwei), Some(Fees { tip: gwei, max_fee: 3 * gwei }));
        assert_eq!(Fees::suggest(60 * gwei, gwei, 100 * gwei), Some(Fees { tip: gwei, max_fee: 100 * gwei }));
        assert_eq!(Fees::suggest(100 * gwei, gwei, 100 * gwei), None, "then we wait");
        let stuck = Fees { tip: gwei, max_fee: 95 * gwei };
        assert_eq!(stuck.bump(None, 100 * gwei, u128::MAX), None);
        let cheap = Fees { tip: gwei, max_fee: 3 * gwei };
        assert_eq!(cheap.bump(None, 100 * gwei, gwei), None, "nor the most we tip");
    }

    #[test]
    fn a_replacement_pays_at_least_a_tenth_more_of_both_fees() {
        for fee in [1, 9, 1_000_000, 2_000_000_000] {
            let old = Fees { tip: fee, max_fee: 2 * fee };
            let new = old.bump(Some(Fees { tip: 1, max_fee: 1 }), u128::MAX, u128::MAX).unwrap();
            assert!(new.tip * 10 >= old.tip * 11 && new.max_fee * 10 >= old.max_fee * 11, "{fee}");
        }
    }

    #[test]
    fn a_stranger_who_overpays_does_not_set_our_tip() {
        let gwei = 1_000_000_000;
        assert_eq!(dearest_tip(8453, 5_000_000), 2 * gwei);
        assert_eq!(dearest_tip(1, 30 * gwei), 60 * gwei);
        assert_eq!(dearest_tip(80002, 15), 100 * gwei, "below its floor nothing is mined");
    }

    #[test]
    fn only_clear_refusals_count_as_not_sent() {
        let answered = |message: &str| RpcError::Answered { message: message.into(), data: serde_json::Value::Null };
        for unknown in ["already known", "transaction already imported", "nonce too low", "internal error"] {
            assert_eq!(judge(&answered(unknown)), Taken::Perhaps, "{unknown}");
        }
        assert_eq!(judge(&RpcError::Unreachable("timeout".into())), Taken::Perhaps);
        assert_eq!(judge(&answered("replacement transaction underpriced")), Taken::Underpriced);
        assert_eq!(judge(&answered("insufficient funds for gas * price + value")), Taken::No);
    }
}
