//! What lies at the addresses that are paid, and what came in there and left since a moment, as their chains have it.

use tokio::task::LocalSet;

use super::audit::witness;
use super::handle::Closed;
use super::witness::Witness;
use crate::clock::Timestamp;
use crate::config::{Network, Settlement};
use crate::money::Micros;

/// What one network's `pay_to` has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Treasury {
    /// CAIP-2.
    pub network: String,
    pub pay_to: String,
    /// Of the token that is sold for; else why no node could say.
    pub held: Result<Micros, String>,
}

/// One transfer to `pay_to`, or from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The name of its transaction.
    pub tx: String,
    /// Whose money it was, or whose it is now.
    pub other: String,
    /// Nothing for a transaction that a node names and does not show.
    pub amount: Micros,
    pub block: u64,
}

/// Which way money went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    In,
    Out,
}

/// What came in at one network's `pay_to`, and what left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrivals {
    /// CAIP-2.
    pub network: String,
    pub pay_to: String,
    /// The oldest first; else why nobody could say.
    pub found: Result<Vec<Arrival>, String>,
    /// The same of what left.
    pub left: Result<Vec<Arrival>, String>,
}

/// Asks a node of every network that has one what is there now. Blocks until all have answered.
pub fn treasury(networks: &[Network]) -> Vec<Treasury> {
    let held = networks.iter().filter_map(|network| {
        let held = ask(network, async |witness| witness.held().await).transpose()?;
        Some(Treasury { network: network.id.clone(), pay_to: network.pay_to.clone(), held })
    });
    held.collect()
}

/// Asks a node of every network what came in and left since a moment and until `now`; where there is none that can know, it says so.
/// What `is_known`, by its transaction, may be left out. Blocks until all have answered.
pub fn arrivals(networks: &[Network], (since, now): (Timestamp, Timestamp), is_known: impl Fn(&str) -> bool) -> Vec<Arrivals> {
    let real = networks.iter().filter(|network| !matches!(network.settlement, Settlement::Simulated));
    let look = |network: &Network| {
        let nobody = || Err("no node of it is named in rpc_urls".to_owned());
        let asked = ask(network, async |witness| {
            // One of another chain, or that is behind, knows of nothing.
            witness.check(now).await.map_err(Closed::into_text)?;
            Ok((witness.arrivals(since, &is_known).await, witness.departures(since, &is_known).await))
        });
        let (found, left) = match asked.transpose().unwrap_or_else(nobody) {
            Ok(moved) => moved,
            Err(why) => (Err(why.clone()), Err(why)),
        };
        Arrivals { network: network.id.clone(), pay_to: network.pay_to.clone(), found, left }
    };
    real.map(look).collect()
}

/// Asks a network's nodes; `None` where none are named.
fn ask<T>(network: &Network, question: impl AsyncFnOnce(Witness) -> Result<T, String>) -> Result<Option<T>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    LocalSet::new().block_on(&runtime, async {
        match witness(network)? {
            Some((_, witness)) => question(witness).await.map(Some),
            None => Ok(None),
        }
    })
}
