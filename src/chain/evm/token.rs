//! The token that is money on each EVM network: USDC, its address and its EIP-712 name.

use super::address::Address;
use super::eip712;
use crate::chain::ChainError;
use crate::config;
use crate::x402::Requirements;

/// A token as an offer names it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub chain_id: u64,
    pub asset: Address,
    pub name: &'static str,
    pub version: &'static str,
}

const USD_COIN: &str = "USD Coin";
const USDC: &str = "USDC";

/// Chain id, address, EIP-712 name. All have 6 decimals and EIP-712 version "2".
const TABLE: [(u64, &str, &str); 16] = [
    (8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", USD_COIN),
    (84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e", USDC),
    (1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", USD_COIN),
    (137, "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", USD_COIN),
    (80002, "0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582", USDC),
    (42161, "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", USD_COIN),
    (421614, "0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d", USD_COIN),
    (43114, "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", USD_COIN),
    (43113, "0x5425890298aed601595a70AB815c96711a31Bc65", USD_COIN),
    (42220, "0xcebA9300f2b948710d2653dD7B07f33A8B32118C", USDC),
    (11142220, "0x01C5C0122039549AD1493B8220cABEdD739BC44E", USDC),
    (1329, "0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392", USDC),
    (1328, "0x4fCF1784B31630811181f670Aea7A7bEF803eaED", USDC),
    (143, "0x754704Bc059F8C67012fEd69BC8A327a5aafb603", USDC),
    (50, "0xfA2958CB79b0491CC627c1557F441eF849Ca8eb1", USDC),
    (51, "0xb5AB69F7bBada22B28e79C8FFAECe55eF1c771D4", USDC),
];

/// The chain id of a CAIP-2 name of the `eip155` family.
pub fn chain_id(caip2: &str) -> Option<u64> {
    caip2.strip_prefix("eip155:")?.parse().ok()
}

/// USDC on a network given in CAIP-2, if we know it.
pub fn known(caip2: &str) -> Option<Known> {
    let chain_id = chain_id(caip2)?;
    let (_, asset, name) = TABLE.iter().find(|row| row.0 == chain_id)?;
    Some(Known { chain_id, asset: Address::parse(asset)?, name, version: "2" })
}

/// What is sold for on one configured network.
#[derive(Clone, Debug)]
pub struct Token {
    /// CAIP-2.
    pub network: String,
    pub chain_id: u64,
    pub asset: Address,
    pub name: String,
    pub version: String,
    pub domain: [u8; 32],
    pub pay_to: Address,
    /// Whether it is a test network, which makes blocks when it is asked to and may be idle for long.
    pub may_idle: bool,
    /// What every requirement on this network says; amount and timeout are left to the quote.
    pub requirement: Requirements,
}

impl Token {
    /// The table, overridden by what the operator wrote. A network that is not in the table needs all three of `asset`,
    /// `asset_name` and `asset_version`.
    pub fn resolve(network: &config::Network) -> Result<Token, ChainError> {
        let bad = |field: &str, why: String| ChainError::Config { network: network.id.clone(), field: field.to_owned(), why };
        let chain_id = chain_id(&network.id).ok_or_else(|| bad("id", "only eip155 networks can be sold on".into()))?;
        let known = known(&network.id);
        let asset = match (&network.asset, known) {
            (Some(text), _) => {
                Address::typed(text).ok_or_else(|| bad("asset", format!("{text:?} is not an address, or mistyped")))?
            }
            (None, Some(known)) => known.asset,
            (None, None) => return Err(bad("asset", "this network is not built in; write the token's address".into())),
        };
        let named = |field: &str, written: &Option<String>, built_in: Option<&str>| {
            let missing = || bad(field, "this token is not built in; write what the token itself answers (EIP-712)".into());
            written.clone().or(built_in.map(str::to_owned)).ok_or_else(missing)
        };
        // Another asset than the built-in one has its own domain.
        let same = known.filter(|known| known.asset == asset);
        let name = named("asset_name", &network.asset_name, same.map(|known| known.name))?;
        let version = named("asset_version", &network.asset_version, same.map(|known| known.version))?;
        let pay_to = Address::typed(&network.pay_to)
            .filter(|address| *address != Address([0; 20]) && *address != asset)
            .ok_or_else(|| {
                bad(
                    "pay_to",
                    format!(
                        "{:?} is not an address that can receive, or mistyped (its EIP-55 checksum is wrong)",
                        network.pay_to
                    ),
                )
            })?;
        let domain = eip712::domain_separator(&name, &version, chain_id, asset);
        let may_idle = config::is_test_network(&network.id);
        let extra = [("name", &name), ("version", &version)];
        let requirement = Requirements {
            scheme: "exact".into(),
            network: network.id.clone(),
            amount: String::new(),
            asset: asset.to_string(),
            pay_to: pay_to.to_string(),
            max_timeout_seconds: 0,
            extra: Some(extra.into_iter().map(|(key, value)| (key.to_owned(), value.clone().into())).collect()),
        };
        Ok(Token { network: network.id.clone(), chain_id, asset, name, version, domain, pay_to, may_idle, requirement })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Network, Settlement};

    fn network(id: &str) -> Network {
        Network {
            id: id.into(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            settlement: Settlement::Simulated,
            asset: None,
            asset_name: None,
            asset_version: None,
            confirmations: 1,
            safe_above: crate::money::Micros::new(5_000_000),
            coin_usd: None,
            surcharge: crate::money::Micros::ZERO,
            max_fee_per_gas: 1,
            ca_file: None,
        }
    }

    #[test]
    fn every_address_of_the_table_is_written_with_its_checksum() {
        for (chain_id, asset, _) in TABLE {
            assert_eq!(Address::parse(asset).unwrap().to_string(), asset, "{chain_id}");
        }
    }

    #[test]
    fn an_unknown_network_is_sold_on_only_when_its_token_is_described() {
        assert!(Token::resolve(&network("eip155:8453")).is_ok());
        let mut unknown = network("eip155:31337");
        assert!(Token::resolve(&unknown).unwrap_err().to_string().contains("asset"));
        unknown.asset = Some("0x036CbD53842c5426634e7929541eC2318f3dCF7e".into());
        assert!(Token::resolve(&unknown).unwrap_err().to_string().contains("asset_name"));
        unknown.asset_name = Some("X".into());
        unknown.asset_version = Some("1".into());
        assert_eq!(Token::resolve(&unknown).unwrap().name, "X");
    }

    #[test]
    fn money_is_never_sent_to_nobody() {
        for bad in ["", "0x0000000000000000000000000000000000000000", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"] {
            let network = Network { pay_to: bad.into(), ..network("eip155:8453") };
            assert!(Token::resolve(&network).is_err(), "{bad}");
        }
    }
}
