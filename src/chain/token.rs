//! Token, what is sold for on one configured network, whatever its family: USDC, and where it goes.

use super::{ChainError, evm, solana};
use crate::config;
use crate::x402::Requirements;
use crate::x402::names::Family;

/// A further family is one more arm.
#[derive(Clone, Debug)]
pub(super) enum Token {
    Evm(evm::token::Token),
    Solana(solana::token::Token),
}

impl Token {
    /// # Errors
    /// For what the operator must change, by its key.
    pub fn resolve(network: &config::Network) -> Result<Token, ChainError> {
        match Family::of_network(&network.id) {
            Some(Family::Evm) => evm::token::Token::resolve(network).map(Token::Evm),
            Some(Family::Solana) => solana::token::Token::resolve(network).map(Token::Solana),
            None => Err(ChainError::Config {
                network: network.id.clone(),
                field: "id".into(),
                why: "only EVM networks (eip155:…) and Solana (solana:…) can be sold on".into(),
            }),
        }
    }

    /// What every requirement on this network says; amount and timeout are left to the quote.
    pub fn requirement(&self) -> &Requirements {
        match self {
            Token::Evm(token) => &token.requirement,
            Token::Solana(token) => &token.requirement,
        }
    }
}
