//! The token that is money on each Solana network: USDC, and the token account in which ours arrives.

use super::address::{Pubkey, associated_token_account};
use crate::chain::ChainError;
use crate::config;
use crate::x402::Requirements;

const DEVNET_MINT: &str = "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU";

/// CAIP-2 and the mint of USDC, which has 6 decimals and is kept by the old token program.
const TABLE: [(&str, &str); 3] = [
    ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"),
    ("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", DEVNET_MINT),
    ("solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z", DEVNET_MINT),
];

/// The mint of USDC on a network given in CAIP-2, if we know it.
pub fn usdc(network: &str) -> Option<&'static str> {
    TABLE.iter().find(|row| row.0 == network).map(|row| row.1)
}

/// What is sold for on one configured network.
#[derive(Clone, Debug)]
pub struct Token {
    /// CAIP-2.
    pub network: String,
    pub mint: Pubkey,
    /// The wallet that is paid.
    pub pay_to: Pubkey,
    /// Its token account for this mint, which must exist before anybody can pay into it.
    pub account: Pubkey,
    /// What every requirement on this network says; amount and timeout are left to the quote, and so is `extra`, of which
    /// nothing stays the same.
    pub requirement: Requirements,
}

impl Token {
    /// The table, overridden by what the operator wrote.
    ///
    /// # Errors
    /// For what the operator must change, by its key.
    pub fn resolve(network: &config::Network) -> Result<Token, ChainError> {
        let bad = |field: &str, why: String| ChainError::Config { network: network.id.clone(), field: field.to_owned(), why };
        let mint = network.asset.as_deref().or(usdc(&network.id));
        let mint = mint.ok_or_else(|| bad("asset", "this network is not built in; write the token's mint".into()))?;
        let mint: Pubkey = mint.parse().map_err(|why| bad("asset", format!("{mint:?} is no mint: {why}")))?;
        for (field, written) in [("asset_name", &network.asset_name), ("asset_version", &network.asset_version)] {
            if written.is_some() {
                return Err(bad(field, "only tokens on EVM networks have one; leave it out".into()));
            }
        }
        let pay_to: Pubkey = network.pay_to.parse().map_err(|why| bad("pay_to", format!("{:?}: {why}", network.pay_to)))?;
        let account = associated_token_account(&pay_to, &mint, &Pubkey::TOKEN);
        let account = account.filter(|_| pay_to != mint && !is_program(&pay_to));
        let account = account.ok_or_else(|| bad("pay_to", format!("{pay_to} is not a wallet that can receive")))?;
        let requirement = Requirements {
            scheme: "exact".into(),
            network: network.id.clone(),
            amount: String::new(),
            asset: mint.to_string(),
            pay_to: pay_to.to_string(),
            max_timeout_seconds: 0,
            extra: None,
        };
        Ok(Token { network: network.id.clone(), mint, pay_to, account, requirement })
    }
}

/// Whether money that goes there belongs to nobody.
pub fn is_program(address: &Pubkey) -> bool {
    [
        Pubkey::SYSTEM,
        Pubkey::TOKEN,
        Pubkey::TOKEN_2022,
        Pubkey::ASSOCIATED_TOKEN,
        Pubkey::COMPUTE_BUDGET,
        Pubkey::MEMO,
        Pubkey::LIGHTHOUSE,
    ]
    .contains(address)
}
