//! What counts as proof on the chain that a payment arrived, or never will.

use super::abi;
use super::hex;
use super::node::{self, Asked, Block, Log, Node, Receipt};
use super::verified::Verified;
use crate::chain::rpc::RpcError;
use crate::chain::{Confirmation, Settlement, reason};
use crate::money::Micros;

/// How far apart the clocks of a chain and ours may be, in seconds.
pub const CLOCK_TOLERANCE: u64 = 120;
/// Blocks per log query; many providers refuse more, and some allow only very few.
const LOG_WINDOW: u64 = 1000;
const SMALLEST_LOG_WINDOW: u64 = 8;
/// Queries before giving up for now; with the narrowest windows this is more than an hour of 2 s blocks.
const LOG_WINDOWS: u64 = 300;
/// Queries for what came after an authorization's end.
const LATER_WINDOWS: u64 = 30;

/// How deep a transfer must be before it is believed.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Blocks that must confirm it, itself included.
    pub confirmations: u64,
    /// Above this its block must be `safe` as well: what one reorganisation can cost stays small.
    pub safe_above: Micros,
}

impl Depth {
    /// Whether what happened to `payment` in `block` is deep enough at `latest`.
    pub async fn reached(self, node: &Node, payment: &Verified, block: u64, latest: &Block) -> Asked<bool> {
        let confirmed = (latest.number + 1).saturating_sub(block) >= self.confirmations.max(1);
        Ok(confirmed && (payment.amount() <= self.safe_above || node.safe().await?.number >= block))
    }
}

/// Where an authorization went that our own transaction did not use.
#[derive(Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Nobody used or cancelled it.
    Unused,
    /// Somebody else submitted it: the money is ours all the same.
    Paid(Confirmation),
    /// Its signer cancelled it, used its nonce for another transfer, or spent it before it was shown to us.
    Spent { tx: [u8; 32], block: u64 },
    /// The token says it is used up, and no event since the payment was verified says how.
    Unexplained,
}

/// Whether this receipt moved exactly this payment.
pub fn pays(receipt: &Receipt, payment: &Verified) -> bool {
    transfer(receipt, payment).is_some()
}

/// The position among the events of its transaction of the `Transfer` that carried this payment. The token emits it directly
/// after the `AuthorizationUsed` of the same authorization (EIP-3009, as USDC does it), and only this pair counts: somebody
/// may put one honest transfer into a transaction in which the nonces of his other payments are used for transfers to
/// himself. A receipt lists every event of its transaction in order, so neighbours in the list are neighbours on the chain,
/// however a node numbers them.
pub fn transfer(receipt: &Receipt, payment: &Verified) -> Option<usize> {
    let authorization = &payment.authorization;
    let (from, to) = (authorization.from.to_word(), authorization.to.to_word());
    let is = |log: &Log, event: &str, topics: &[[u8; 32]], data: &[u8]| {
        log.address == payment.asset
            && log.tx == receipt.tx
            && log.topics.split_first().is_some_and(|(first, rest)| hex::encode(first) == event && rest == topics)
            && log.data == data
    };
    let carries = |pair: &[Log]| match pair {
        [used, transfer] => {
            is(used, abi::USED_EVENT, &[from, authorization.nonce], &[])
                && is(transfer, abi::TRANSFER_EVENT, &[from, to], &authorization.value.0)
        }
        _ => false,
    };
    let before = receipt.logs.windows(2).position(carries).filter(|_| receipt.succeeded)?;
    Some(before + 1)
}

/// Whether this receipt used the payment's authorization, for whatever transfer.
fn uses(receipt: &Receipt, payment: &Verified) -> bool {
    let topics = [payment.authorization.from.to_word(), payment.authorization.nonce];
    let used = |log: &Log| log.address == payment.asset && log.topics.len() == 3 && log.topics[1..] == topics;
    receipt.succeeded && receipt.logs.iter().any(used)
}

/// Looks for the authorization in the token's own books as they stand at block `latest`: its state first, then the event
/// that explains it. A node that does not have that block has no say. An authorization never becomes unused again, so
/// "unused" at `latest` holds for every block before it. Only events since the payment was verified count as payment, so
/// that an authorization spent elsewhere before buys nothing here.
pub async fn elsewhere(node: &Node, payment: &Verified, latest: &Block) -> Asked<Elsewhere> {
    let state = node.view_at(payment.asset, &abi::authorization_state(&payment.authorization), latest.number).await?;
    match abi::word(&state) {
        None => return Err(RpcError::Unreachable("the token's answer is not a word".into())),
        Some(used) if used.is_zero() => return Ok(Elsewhere::Unused),
        Some(_) => {}
    }
    let Some((log, since_verified)) = find(node, payment, latest).await? else { return Ok(Elsewhere::Unexplained) };
    let spent = Elsewhere::Spent { tx: log.tx, block: log.block };
    if !since_verified || log.topics.first().map(|event| hex::encode(event)).as_deref() == Some(abi::CANCELED_EVENT) {
        return Ok(spent);
    }
    let receipt = node.call(node::receipt(&log.tx)).await?;
    match node::read_receipt(&receipt, &log.tx)? {
        Some(receipt) if pays(&receipt, payment) => {
            Ok(Elsewhere::Paid(Confirmation { tx: hex::encode(&receipt.tx), block: receipt.block }))
        }
        Some(receipt) if uses(&receipt, payment) => Ok(spent),
        _ => Err(RpcError::Unreachable("the node does not have the transaction of an event it told".into())),
    }
}

/// From this second of the chain's clock on the transfer cannot be mined.
pub fn end(payment: &Verified) -> u64 {
    payment.authorization.valid_before.as_u64().unwrap_or(u64::MAX)
}

/// Whether an authorization that was unused at `latest` can never be used any more: a block before `latest` that cannot be
/// replaced is past its end, so every block that may still be replaced is, too.
pub async fn is_over(node: &Node, payment: &Verified, latest: &Block) -> Asked<bool> {
    let horizon = node.finalized().await?;
    Ok(horizon.number <= latest.number && horizon.timestamp >= end(payment))
}

/// Looks for the event that explains a used authorization, from its end (or `latest`, if that is before it) back to the time
/// at which the payment was verified. Also says whether the event is younger than that.
async fn find(node: &Node, payment: &Verified, latest: &Block) -> Asked<Option<(Log, bool)>> {
    let since = payment.presented.verified_at.secs().saturating_sub(CLOCK_TOLERANCE);
    let over = latest.timestamp >= end(payment);
    let top = if over { last_before(node, end(payment), latest.number).await? } else { latest.number };
    let found = match walk(node, payment, top, since, LOG_WINDOWS).await? {
        Walk::Found(log) => Some(log),
        Walk::TooFar => {
            return Err(RpcError::Unreachable("the events since the payment was verified are too many blocks".into()));
        }
        // This transfer can only be before the end; what came later is a cancellation, or another use of the same nonce. How
        // far one looks for that decides nothing about the money.
        Walk::Nothing if over => match walk(node, payment, latest.number, end(payment), LATER_WINDOWS).await? {
            Walk::Found(log) => Some(log),
            Walk::Nothing | Walk::TooFar => None,
        },
        Walk::Nothing => None,
    };
    let Some(log) = found else { return Ok(None) };
    let block = node.numbered(log.block).await?;
    Ok(Some((log, block.timestamp >= since)))
}

/// The last block before `time`. Block `above` is not before it.
pub async fn last_before(node: &Node, time: u64, mut above: u64) -> Asked<u64> {
    let mut step = 1;
    let mut below = loop {
        let probe = above.saturating_sub(step);
        if probe == 0 || node.numbered(probe).await?.timestamp < time {
            break probe;
        }
        above = probe;
        step = step.saturating_mul(2);
    };
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if node.numbered(middle).await?.timestamp < time {
            below = middle;
        } else {
            above = middle;
        }
    }
    Ok(below)
}

/// How a walk through the events ended.
enum Walk {
    Found(Log),
    /// Every block was looked at.
    Nothing,
    /// There are more blocks than may be looked at.
    TooFar,
}

/// Walks back from block `to`, newest first, to the last block before the time `since`, in at most so many queries.
async fn walk(node: &Node, payment: &Verified, mut to: u64, since: u64, queries: u64) -> Asked<Walk> {
    let events = [abi::USED_EVENT, abi::CANCELED_EVENT];
    let topics = [payment.authorization.from.to_word(), payment.authorization.nonce];
    let matches = |log: &Log| log.address == payment.asset && log.topics.len() == 3 && log.topics[1..] == topics;
    let mut window = LOG_WINDOW;
    for _ in 0..queries {
        let from = to.saturating_sub(window - 1);
        let found = match node.logs(payment.asset, &events, topics, from, to).await {
            Err(RpcError::Answered { .. }) if window > SMALLEST_LOG_WINDOW => {
                window /= 5;
                continue;
            }
            answer => answer?,
        };
        if let Some(log) = found.into_iter().find(matches) {
            return Ok(Walk::Found(log));
        }
        if from == 0 || node.numbered(from).await?.timestamp < since {
            return Ok(Walk::Nothing);
        }
        to = from - 1;
    }
    Ok(Walk::TooFar)
}

/// What a payment ended with whose authorization is used up.
pub fn spent() -> Settlement {
    let message = "the payer cancelled this authorization or used it for another transfer".to_owned();
    Settlement::Failed { reason: reason::NONCE_USED, message }
}

/// What a payment ended with whose time is over.
pub fn expired() -> Settlement {
    let message = "the authorization ended before its transfer was mined".to_owned();
    Settlement::Failed { reason: reason::VALID_BEFORE, message }
}
