//! What came in at `pay_to` since a moment, and what left it, whoever sent it and for whatever: the token's own events.

use super::address::Address;
use super::evidence;
use super::hex;
use super::ledger::Ledger;
use super::node::Asked;
use super::word::Word;
use crate::chain::rpc::RpcError;
use crate::chain::treasury::{Arrival, Way};
use crate::clock::Timestamp;
use crate::money::Micros;

/// Blocks per query, and how narrow a query gets for a node that refuses more.
const WINDOW: u64 = 1000;
const NARROWEST: u64 = 8;
/// Queries before giving up: more than two weeks of 2 s blocks.
const QUERIES: u32 = 1000;

impl Ledger {
    /// Every transfer to `pay_to` in a block of `since` or later, the oldest first.
    ///
    /// # Errors
    /// Why no node could say, or that there are too many blocks to look at.
    pub async fn arrivals(&self, since: Timestamp) -> Result<Vec<Arrival>, String> {
        self.look_for(Way::In, since).await.map_err(|error| error.to_string())
    }

    /// Every transfer from `pay_to` in a block of `since` or later, the oldest first.
    ///
    /// # Errors
    /// As [`Ledger::arrivals`].
    pub async fn departures(&self, since: Timestamp) -> Result<Vec<Arrival>, String> {
        self.look_for(Way::Out, since).await.map_err(|error| error.to_string())
    }

    async fn look_for(&self, way: Way, since: Timestamp) -> Asked<Vec<Arrival>> {
        let latest = self.node.block("latest").await?;
        if latest.timestamp < since.secs() {
            return Ok(Vec::new());
        }
        let mut from = evidence::last_before(&self.node, since.secs(), latest.number).await?;
        let (mut window, mut found) = (WINDOW, Vec::new());
        for _ in 0..QUERIES {
            if from > latest.number {
                break;
            }
            let to = from.saturating_add(window - 1).min(latest.number);
            let (asset, pay_to) = (self.token.asset, self.token.pay_to);
            let answer = match way {
                Way::In => self.node.arrivals(asset, pay_to, from, to).await,
                Way::Out => self.node.departures(asset, pay_to, from, to).await,
            };
            match answer {
                Err(RpcError::Answered { .. }) if window > NARROWEST => window /= 5,
                answer => {
                    let logs = answer?;
                    found.extend(logs.iter().filter(|log| log.address == self.token.asset).filter_map(|log| {
                        let other = Address(log.topics.get(other_side(way))?[12..].try_into().ok()?);
                        // Anybody can have the token say that nothing was moved, in the name of anybody.
                        let amount = Word(log.data.as_slice().try_into().ok()?).as_u64().filter(|amount| *amount > 0)?;
                        let (tx, amount) = (hex::encode(&log.tx), Micros::new(amount));
                        Some(Arrival { tx, other: other.to_string(), amount, block: log.block })
                    }));
                    from = to.saturating_add(1);
                }
            }
        }
        match latest.number.saturating_add(1).saturating_sub(from) {
            0 => Ok(found),
            left => Err(RpcError::Unreachable(format!("the backup is too old: {left} blocks are left to look at"))),
        }
    }
}

/// Where the event of a transfer names the other side.
fn other_side(way: Way) -> usize {
    match way {
        Way::In => 1,
        Way::Out => 2,
    }
}
