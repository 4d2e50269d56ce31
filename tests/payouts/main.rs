//! Payouts: balance goes back to its wallet on a real chain, once for each id, whoever asks how often and whatever dies meanwhile.

#[cfg(feature = "fault-points")]
mod deaths;
mod evm;
mod forged;
mod refused;
mod shop;
mod simulated;
mod solana;
#[cfg(feature = "fault-points")]
mod trouble;
