//! Ethereum and its relatives: EIP-3009 payments in USDC, checked, simulated, settled and watched over JSON-RPC.

pub mod abi;
pub mod address;
mod arrivals;
mod attempt;
pub mod buyer;
mod check;
mod doubt;
pub mod eip712;
mod evidence;
mod gap;
pub mod hex;
pub mod key;
mod lane;
mod ledger;
mod node;
pub mod payload;
mod round;
mod settle;
mod shown;
pub mod signature;
mod simulate;
pub mod token;
pub mod transaction;
mod verified;
pub mod verify;
mod watch;
pub mod word;

pub use node::{read_block, read_bytes, read_number, read_quantity, read_receipt};

use sha3::{Digest, Keccak256};

pub(in crate::chain) use evidence::Depth;
pub(in crate::chain) use ledger::Ledger;
pub(in crate::chain) use settle::{Purse, Settler};
pub(in crate::chain) use shown::show;
pub(in crate::chain) use transaction::Signed;
pub(in crate::chain) use verified::{Proof, Verified, identify};

/// keccak256, the hash of Ethereum.
pub fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}
