//! Solana: USDC transfers that the payer signs and we pay the fee of, read strictly and judged without asking the chain.

pub mod address;
pub mod transaction;
