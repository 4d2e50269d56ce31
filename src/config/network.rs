//! The networks that payments are taken on, as the operator wrote them: who is paid, and who moves the money.

use std::path::{Path, PathBuf};

use super::secret::Secret;
use super::{ConfigError, bad, file, http_url, node_url};
use crate::money::Micros;
use crate::x402::names::{self, Family};

/// One network that payments are taken on.
#[derive(Debug, Clone)]
pub struct Network {
    /// CAIP-2.
    pub id: String,
    pub pay_to: String,
    pub settlement: Settlement,
    /// Overrides of the built-in token table.
    pub asset: Option<String>,
    pub asset_name: Option<String>,
    pub asset_version: Option<String>,
    /// Blocks that must confirm a transfer before its call is served.
    pub confirmations: u64,
    /// Above this a transfer is believed only once its block is `safe`, which takes minutes on a rollup, or `finalized` on
    /// Solana.
    pub safe_above: Micros,
    /// What one coin of the chain (ETH on Base, SOL on Solana) costs, for the warning about quotes below the gas; `None` when not told.
    pub coin_usd: Option<Micros>,
    /// Added to the price of every call that is paid for on this network by itself, for the gas; zero for none.
    pub surcharge: Micros,
    /// The most a settlement transaction may offer per gas, in wei. On EVM networks, as `confirmations` is.
    pub max_fee_per_gas: u128,
    /// Certificates that are believed beside the web's, for nodes and facilitators on a private network.
    pub ca_file: Option<PathBuf>,
}

/// Who moves the money on a network.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// Our own transaction over JSON-RPC; the second URL is asked when the first fails.
    Rpc { urls: Vec<String>, key: Secret },
    /// A remote x402 v2 facilitator. With `rpc_urls` the chain itself is asked whether it did what it says.
    Facilitator { url: String, authorization: Option<Secret>, rpc_urls: Vec<String> },
    /// An in-process chain that moves nothing; loopback only.
    Simulated,
}

/// Networks whose money is worth nothing.
pub(crate) fn is_test_network(caip2: &str) -> bool {
    const TEST: [&str; 11] = [
        "eip155:84532",
        "eip155:80002",
        "eip155:43113",
        "eip155:1328",
        "eip155:421614",
        "eip155:11142220",
        "eip155:51",
        "eip155:11155111",
        "eip155:31337",
        "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1",
        "solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z",
    ];
    TEST.contains(&caip2)
}

pub(super) fn networks(
    rows: &[file::Network],
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Network>, ConfigError> {
    rows.iter().map(|row| network(row, folder, env)).collect()
}

fn network(row: &file::Network, folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Network, ConfigError> {
    let key = |field: &str| format!("network {:?}, {field}", row.id);
    let id =
        names::caip2(&row.id).ok_or_else(|| bad(key("id"), "unknown network; write a built-in name such as base, or CAIP-2"))?;
    if Family::of_network(id) == Some(Family::Solana) {
        only_on_evm(row).map_err(|field| bad(key(field), "says nothing about Solana; leave it out"))?;
    }
    let settlement = match row.settlement {
        file::Settlement::Simulated => Settlement::Simulated,
        file::Settlement::Rpc => {
            let urls = row.rpc_urls.clone();
            if urls.is_empty() {
                return Err(bad(key("rpc_urls"), "settlement = \"rpc\" needs one URL, better two"));
            }
            urls.iter().try_for_each(|url| node_url(url).map_err(|why| bad(key("rpc_urls"), why)))?;
            let source = row
                .settler_key
                .as_deref()
                .ok_or_else(|| bad(key("settler_key"), "settlement = \"rpc\" needs the key that pays gas or fees"))?;
            Settlement::Rpc { urls, key: Secret::load(source, folder, env).map_err(|why| bad(key("settler_key"), why))? }
        }
        file::Settlement::Facilitator => {
            let url = row
                .facilitator_url
                .clone()
                .ok_or_else(|| bad(key("facilitator_url"), "settlement = \"facilitator\" needs it"))?;
            http_url(&url).map_err(|why| bad(key("facilitator_url"), why))?;
            let authorization = row.facilitator_authorization.as_deref();
            let authorization = authorization.map(|source| Secret::load(source, folder, env)).transpose();
            let authorization = authorization.map_err(|why| bad(key("facilitator_authorization"), why))?;
            row.rpc_urls.iter().try_for_each(|url| node_url(url).map_err(|why| bad(key("rpc_urls"), why)))?;
            let url = url.trim_end_matches('/').to_owned();
            Settlement::Facilitator { url, authorization, rpc_urls: row.rpc_urls.clone() }
        }
    };
    Ok(Network {
        id: id.to_owned(),
        pay_to: row.pay_to.clone(),
        settlement,
        asset: row.asset.clone(),
        asset_name: row.asset_name.clone(),
        asset_version: row.asset_version.clone(),
        confirmations: row.confirmations.max(1),
        safe_above: Micros::parse_usd(&row.safe_above).map_err(|why| bad(key("safe_above"), why))?,
        coin_usd: row.coin_usd.as_deref().map(Micros::parse_usd).transpose().map_err(|why| bad(key("coin_usd"), why))?,
        surcharge: row
            .surcharge
            .as_deref()
            .map_or(Ok(Micros::ZERO), Micros::parse_usd)
            .map_err(|why| bad(key("surcharge"), why))?,
        max_fee_per_gas: u128::from(row.max_fee_gwei.unwrap_or(MAX_FEE_GWEI)) * 1_000_000_000,
        ca_file: row.ca_file.as_ref().map(|path| folder.join(path)),
    })
}

/// What a settlement transaction may offer per gas when the operator says nothing, in gwei.
const MAX_FEE_GWEI: u32 = 500;

/// The first key that is written and means something on EVM networks alone: it must not seem to be heeded.
fn only_on_evm(row: &file::Network) -> Result<(), &'static str> {
    let written = [
        ("asset_name", row.asset_name.is_some()),
        ("asset_version", row.asset_version.is_some()),
        ("confirmations", row.confirmations != 0),
        ("max_fee_gwei", row.max_fee_gwei.is_some()),
    ];
    written.into_iter().find(|(_, written)| *written).map_or(Ok(()), |(field, _)| Err(field))
}
