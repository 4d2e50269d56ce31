//! The place of a transaction in our line, and filling a nonce that nobody holds, behind which everything else waits.

use tokio::time::{Duration, Instant};
use tracing::{error, warn};

use super::attempt::Fees;
use super::node::{self, Block};
use super::settle::Settler;
use super::transaction::Transaction;
use crate::chain::rpc::RpcError;

/// A nonce that no node and none of our settlements knows is filled after this long.
const MISSING: Duration = Duration::from_secs(20);
/// One that a node knows, because the key was used by hand, gets longer: it is replaced then.
const NOT_OURS: Duration = Duration::from_secs(120);
/// Between two fillers of the same nonce.
const AGAIN: Duration = Duration::from_secs(10);

/// Where a nonce stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A transaction with this nonce is mined, ours or not.
    Passed,
    /// It is the next to be mined.
    Head,
    /// Others come first.
    Behind,
}

/// A nonce at the head of the line that no settlement of ours holds.
#[derive(Clone, Copy)]
pub struct Gap {
    nonce: u64,
    since: Instant,
    looks: u32,
    filled: Option<(Instant, Fees)>,
}

impl Settler {
    /// Where our nonce stands. When the line is blocked by a nonce that nobody holds, for example of a transaction that was
    /// sent by hand and forgotten by the nodes, it is filled.
    pub(super) async fn place(&self, nonce: u64, latest: &Block) -> Result<Place, RpcError> {
        let mined = self.mined_count().await?;
        self.lane.mined(mined);
        if mined > nonce {
            return Ok(Place::Passed);
        }
        if self.lane.holds(mined) {
            self.lane.gap.set(None);
        } else {
            self.fill(mined, latest).await?;
        }
        Ok(if mined == nonce { Place::Head } else { Place::Behind })
    }

    async fn fill(&self, nonce: u64, latest: &Block) -> Result<(), RpcError> {
        let fresh = Gap { nonce, since: Instant::now(), looks: 0, filled: None };
        let mut gap = self.lane.gap.get().filter(|gap| gap.nonce == nonce).unwrap_or(fresh);
        gap.looks += 1;
        self.lane.gap.set(Some(gap));
        if gap.since.elapsed() < MISSING || gap.looks < 2 || gap.filled.is_some_and(|(at, _)| at.elapsed() < AGAIN) {
            return Ok(());
        }
        let known = node::read_number(&self.node.call(node::count(self.address, "pending")).await?)? > nonce;
        if known && gap.since.elapsed() < NOT_OURS {
            warn!(nonce, "the line is blocked by a transaction that was sent by hand; waiting for it");
            return Ok(());
        }
        let gas = node::read_number(&self.node.call(node::estimate(self.address, self.address, &[])).await?)?;
        let fees = match gap.filled {
            Some((_, fees)) => self.bumped(fees, latest).await?.or(Some(fees)),
            None => self.fees(latest, self.suggested_tip().await),
        };
        let Some(fees) = fees else { return Ok(()) };
        gap.filled = Some((Instant::now(), fees));
        self.lane.gap.set(Some(gap));
        error!(nonce, "the line was blocked: no settlement holds this nonce; filling it with a transaction that moves nothing");
        let (chain_id, Fees { tip, max_fee }) = (self.chain_id(), fees);
        let gas = gas.saturating_add(gas / 5);
        // Not journaled: it moves nothing, and another one after a restart does the same.
        let filler = Transaction { chain_id, nonce, tip, max_fee, gas, to: self.address, data: Vec::new() }.sign(&self.key);
        if let Err(error) = self.node.send(&filler.raw).await {
            self.notice(&error);
            warn!(nonce, "the filler was not taken: {error}");
        }
        Ok(())
    }
}
