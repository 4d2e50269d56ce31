//! The self-check of a network before anything is sold on it: is this the chain, the token and the purse we think it is?

use super::attempt::gas_cap;
use super::evidence::CLOCK_TOLERANCE;
use super::node::{self, Block, Node};
use super::settle::Settler;
use super::token::Token;
use super::{abi, hex};
use crate::chain::evm::address::Address;
use crate::chain::handle::{Closed, Purse};
use crate::chain::rpc::{Asking, RpcError};
use crate::clock::Timestamp;
use crate::money::Micros;

/// Settlements that the settler must be able to pay for before we sell another call.
const SETTLEMENTS: u128 = 3;

/// What a transfer by authorization uses (USDC on Base).
const ORDINARY_GAS: u128 = 105_000;

/// Whether we can settle there ourselves. `Err` says what is wrong, for the operator.
pub async fn check(settler: &Settler, now: Timestamp) -> Result<(), Closed> {
    let (node, address) = (&settler.node, settler.address);
    let block = check_token(node, &settler.token, now).await?;
    room_for(block.base_fee, settler.max_fee)?;
    let text = |error: RpcError| error.to_string();
    let [balance, tip] = node.batch([node::balance(address), node::tip()]).await.map_err(text)?;
    let balance = balance.and_then(|answer| node::read_quantity(&answer)).map_err(text)?;
    // A node takes a transaction only from a purse that can pay its gas limit at its highest fee, so that is what counts.
    let fees = settler.fees(&block, node::read_tip(tip)).ok_or("fee: max_fee_gwei is below the base fee")?;
    let price = block.base_fee.unwrap_or(0).saturating_add(fees.tip);
    settler.entry.note_gas(settler.coin_usd.map(|coin| cost(price, coin)));
    let needed = SETTLEMENTS.saturating_mul(gas_cap(settler.chain_id(), false).into()).saturating_mul(fees.max_fee);
    settler.entry.note_purse(Purse { address: address.to_string(), has: balance, needs: needed, digits: 18 });
    if balance <= needed {
        return Err(format!("gas: the settler {address} has {balance} wei and needs more than {needed}; send it some").into());
    }
    Ok(())
}

/// What a settlement costs at this price, in wei per gas, when one coin costs so much; rounded up.
fn cost(price: u128, coin: Micros) -> Micros {
    const WEI: u128 = 1_000_000_000_000_000_000;
    let wei = price.saturating_mul(ORDINARY_GAS);
    Micros::new(u64::try_from(wei.saturating_mul(coin.get().into()).div_ceil(WEI)).unwrap_or(u64::MAX))
}

/// Whether the nodes are those of this chain and the token is the one we quote, in one round of questions. Returns the
/// latest block.
pub async fn check_token(node: &Node, token: &Token, now: Timestamp) -> Result<Block, Closed> {
    let (nobody, asking) = (Address([0; 20]), node.asking());
    let answers = node
        .batch([
            node::chain_id(),
            node::code(token.asset),
            node::view(nobody, token.asset, &abi::DECIMALS),
            node::view(nobody, token.asset, &abi::DOMAIN_SEPARATOR),
            node::block("latest"),
        ])
        .await
        .map_err(|error| error.to_string())?;
    let [chain_id, code, decimals, domain, block] = answers;
    let text = |error: RpcError| error.to_string();
    node.on_chain(chain_id, token.chain_id, asking).map_err(|error| match error {
        RpcError::Unreachable(why) => why,
        answered => answered.to_string(),
    })?;
    if node::read_bytes(&code.map_err(text)?).map_err(text)?.is_empty() {
        return Err(format!("there is no contract at the asset's address {}", token.asset).into());
    }
    let decimals = decimals.ok().and_then(|answer| abi::word(&node::read_bytes(&answer).ok()?)?.as_u64());
    if decimals != Some(6) {
        return Err(format!("the asset has {decimals:?} decimals; only tokens with 6 are sold for").into());
    }
    let domain = domain.ok().and_then(|answer| abi::word(&node::read_bytes(&answer).ok()?));
    if domain.map(|word| word.0) != Some(token.domain) {
        let (name, version) = (&token.name, &token.version);
        let theirs = domain.map_or_else(|| "nothing".to_owned(), |word| hex::encode(&word.0));
        return Err(format!(
            "the token's DOMAIN_SEPARATOR() is {theirs}, which is not name {name:?}, version {version:?}; set asset_name"
        )
        .into());
    }
    let block = node::read_block(block.map_err(text)?).map_err(text)?;
    agree_on_time(node, token, (&block, asking), now).await?;
    Ok(block)
}

/// Whether blocks keep coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Live,
    /// The latest block is old because nobody sent anything, and the next one would be of now.
    Idle,
}

/// Whether the chain's clock and ours agree, to two minutes. A block of the future says no. So does an old one where blocks
/// always come, whether it is our clock that is ahead or the node that is behind. A test chain makes blocks only when it is
/// asked to, so there the block that it would make next has the last word; a node that is behind would date that one old, too.
/// A node that disagrees is passed over; it was asked for its `latest` block after `asking`.
pub async fn agree_on_time(
    node: &Node,
    token: &Token,
    (latest, asking): (&Block, Asking),
    now: Timestamp,
) -> Result<Pace, Closed> {
    let skew = |theirs: u64| {
        let apart = theirs.abs_diff(now.secs());
        let way = if theirs > now.secs() { "behind" } else { "ahead of" };
        let why = format!(
            "clock: this machine's clock is {apart} s {way} the latest block of {}; set the clock, or the node is wrong",
            token.network
        );
        if apart > CLOCK_TOLERANCE { Err(Closed::Clock(why)) } else { Ok(()) }
    };
    let pace = match skew(latest.timestamp) {
        Ok(()) => Ok(Pace::Live),
        Err(why) if latest.timestamp > now.secs() || !token.may_idle => Err(why),
        Err(_) => {
            let next = node.block("pending").await.map_err(|error| error.to_string())?;
            skew(next.timestamp).map(|()| Pace::Idle)
        }
    };
    if pace.is_err() {
        node.pass_over(asking);
    }
    pace
}

/// The same of the latest block, or one that was it a few seconds ago.
pub async fn recent_agrees(node: &Node, token: &Token, now: Timestamp) -> Result<(), Closed> {
    let asking = node.asking();
    let latest = node.recent().await.map_err(|error| error.to_string())?;
    agree_on_time(node, token, (&latest, asking), now).await.map(|_| ())
}

/// Whether settlements can outlive a doubling of the base fee within the operator's cap; both in wei per gas.
pub fn room_for(base_fee: Option<u128>, max_fee: u128) -> Result<(), String> {
    let base_fee = base_fee.ok_or("the chain has no base fee; EIP-1559 transactions are needed")?;
    if base_fee.saturating_mul(2) > max_fee {
        return Err(format!("fee: the base fee is {base_fee} wei, and max_fee_gwei allows {max_fee} wei, less than twice that"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settlement_costs_its_gas_rounded_up() {
        let (gwei, ether) = (1_000_000_000, Micros::new(2_500_000_000));
        assert_eq!(cost(10 * gwei, ether), Micros::new(2_625_000));
        assert_eq!(cost(5_000_000, ether), Micros::new(1313), "a base fee of 0.005 gwei");
        assert_eq!(cost(1, Micros::new(1)), Micros::new(1));
        assert_eq!(cost(u128::MAX, ether), Micros::new(u64::MAX));
    }
}
