//! What lies at the addresses that are paid, as their chains have it at this moment.

use tokio::task::LocalSet;

use super::audit::witness;
use crate::config::Network;
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

/// Asks a node of every network that has one. Blocks until all have answered.
pub fn treasury(networks: &[Network]) -> Vec<Treasury> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string());
    let ask = |network: &Network| {
        let runtime = runtime.as_ref().map_err(Clone::clone)?;
        LocalSet::new().block_on(runtime, async {
            match witness(network)? {
                Some((_, witness)) => witness.held().await.map(Some),
                None => Ok(None),
            }
        })
    };
    let held = networks.iter().filter_map(|network| {
        let held = ask(network).transpose()?;
        Some(Treasury { network: network.id.clone(), pay_to: network.pay_to.clone(), held })
    });
    held.collect()
}
