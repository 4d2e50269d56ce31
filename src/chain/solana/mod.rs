//! Solana: USDC transfers that the payer signs and we pay the fee of, read strictly, tried, co-signed, settled and watched.

pub mod address;
mod arrivals;
pub mod buyer;
mod check;
mod evidence;
mod ledger;
mod memo;
mod node;
mod offers;
pub mod order;
pub mod payload;
pub mod reason;
mod settle;
mod shown;
pub mod signature;
mod status;
pub mod token;
pub mod transaction;
mod trial;
mod verified;
pub mod verify;

pub(in crate::chain) use ledger::Ledger;
pub(in crate::chain) use node::Blockhash;
pub(in crate::chain) use offers::{Age, Offers};
pub(in crate::chain) use payload::identify;
pub(in crate::chain) use settle::{Purse, Settler};
pub(in crate::chain) use shown::show;
pub(in crate::chain) use token::is_program;
pub(in crate::chain) use verified::Verified;

/// The first signature of a transaction, by which it is named: base58 of 64 bytes. `None` for another text.
pub fn signature(text: &str) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    // Decoding takes time that grows with the square of the length.
    (text.len() <= 88 && bs58::decode(text).onto(&mut bytes) == Ok(64)).then_some(bytes)
}
