//! Selling to Solana wallets: the real clients, the official facilitator, trouble, floods of copies, and a wallet of each family.

mod blocked;
mod both;
mod clients;
#[cfg(feature = "fault-points")]
mod deaths;
mod facilitator;
mod fees;
mod made;
mod offer;
mod races;
mod report;
mod restore;
mod shop;
mod simulated;
mod trouble;
mod wallet;
