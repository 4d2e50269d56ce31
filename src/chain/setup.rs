//! From what the operator wrote to what settles: each network's token, its keys, and who moves the money.

use std::sync::Arc;

use super::ChainError;
use super::evm::key::PrivateKey;
use super::evm::{self, Depth};
use super::handle::Entry;
use super::solana::address::SettlerKey;
use super::solana::{self, Offers};
use super::token::Token;
use crate::clock::Timestamp;
use crate::config::{self, Secret};
use crate::tls;

/// What a settler's key signs to make a secret of its own. It is no transaction, and never leaves.
const MEMOS: &[u8] = b"farebox: the secret of the memos of offers";

/// One network before its client exists, which cannot leave the thread.
pub(super) struct Setup {
    pub entry: Arc<Entry>,
    pub how: How,
    /// Whom to believe over TLS.
    pub tls: rustls::ClientConfig,
}

/// Who settles.
pub(super) enum How {
    /// Our own transactions, on an EVM network.
    Evm(evm::Purse),
    /// Our signature beside the payer's, on a Solana network.
    Solana(solana::Purse),
    Facilitator {
        token: Token,
        url: String,
        authorization: Option<Secret>,
        rpc_urls: Vec<String>,
        depth: Depth,
    },
    Simulated,
}

/// Puts a network together.
///
/// # Errors
/// For what the operator must change, by its key.
pub(super) fn setup(network: &config::Network, now: Timestamp) -> Result<Setup, ChainError> {
    let token = Token::resolve(network)?;
    let requirement = token.requirement().clone();
    let is_solana = matches!(token, Token::Solana(_));
    let offers = |secret: &[u8], fee_payer| is_solana.then(|| Offers::new(secret, fee_payer, now));
    let (settlement, how, offers) = match &network.settlement {
        config::Settlement::Rpc { urls, .. } if urls.is_empty() => return Err(bad(network, "rpc_urls", "is empty")),
        config::Settlement::Rpc { urls, key } => match token {
            Token::Evm(token) => ("rpc", How::Evm(evm_purse(network, token, urls, key)?), None),
            Token::Solana(token) => {
                let purse = solana_purse(network, token, urls, key)?;
                let offers = offers(&purse.key.sign(MEMOS), Some(purse.key.address()));
                ("rpc", How::Solana(purse), offers)
            }
        },
        config::Settlement::Facilitator { url, authorization, rpc_urls } => {
            // Who has no secret with its facilitator has none with its buyers: then a memo only makes a message its own.
            let offers = offers(authorization.as_ref().map_or(url.as_str(), Secret::expose).as_bytes(), None);
            let (url, authorization, rpc_urls) = (url.clone(), authorization.clone(), rpc_urls.clone());
            ("facilitator", How::Facilitator { token, url, authorization, rpc_urls, depth: depth(network) }, offers)
        }
        config::Settlement::Simulated => ("simulated", How::Simulated, offers(b"simulated", Some(super::simulated::FEE_PAYER))),
    };
    let tls = tls::client(network.ca_file.as_deref()).map_err(|why| bad(network, "ca_file", &why))?;
    let entry = Arc::new(Entry::new(requirement, offers, settlement, network.safe_above));
    Ok(Setup { entry, how, tls })
}

fn bad(network: &config::Network, field: &str, why: &str) -> ChainError {
    ChainError::Config { network: network.id.clone(), field: field.into(), why: why.into() }
}

const OWN_ADDRESS: &str = "is the settler's own address; let the money go where no program holds the key";

fn depth(network: &config::Network) -> Depth {
    Depth { confirmations: network.confirmations, safe_above: network.safe_above }
}

/// What is needed to settle on an EVM network.
fn evm_purse(
    network: &config::Network,
    token: evm::token::Token,
    urls: &[String],
    key: &Secret,
) -> Result<evm::Purse, ChainError> {
    let key = PrivateKey::parse(key.expose()).map_err(|why| bad(network, "settler_key", &why.to_string()))?;
    if key.address() == token.pay_to {
        return Err(bad(network, "pay_to", OWN_ADDRESS));
    }
    let (coin_usd, max_fee) = (network.coin_usd, network.max_fee_per_gas);
    Ok(evm::Purse { token, urls: urls.to_vec(), key, depth: depth(network), coin_usd, max_fee })
}

/// What is needed to settle on a Solana network.
fn solana_purse(
    network: &config::Network,
    token: solana::token::Token,
    urls: &[String],
    key: &Secret,
) -> Result<solana::Purse, ChainError> {
    let key = SettlerKey::parse(key.expose()).map_err(|why| bad(network, "settler_key", &why.to_string()))?;
    if key.address() == token.pay_to {
        return Err(bad(network, "pay_to", OWN_ADDRESS));
    }
    Ok(solana::Purse { token, urls: urls.to_vec(), key, safe_above: network.safe_above, coin_usd: network.coin_usd })
}
