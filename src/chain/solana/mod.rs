//! Solana: USDC transfers that the payer signs and we pay the fee of, read strictly and judged without asking the chain.

pub mod address;
pub mod order;
pub mod payload;
pub mod reason;
mod shown;
pub mod token;
pub mod transaction;
mod verified;
pub mod verify;

pub(in crate::chain) use payload::identify;
pub(in crate::chain) use shown::show;
pub(in crate::chain) use verified::Verified;
