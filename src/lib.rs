//! Farebox sells AI inference for USDC: prepaid from a wallet's balance, or paid per call over x402.
//!
//! Money belongs to a wallet. Every paid call is the same sale: identify, quote, reserve, send, meter, post; a
//! reservation that is dropped is a refund.
//!
//! Layers, lowest first; arrows point down only (`tests/tidy.rs` holds that):
//!
//! ```text
//! money account clock buffer   what everything is counted in, and written to
//! ids error                    names of a call and a payment; the table of codes
//! x402 tariff catalogue        the wire of payments; quotes and charges; the models on sale
//! dialect                      what a request says, what an answer used, how an error reads
//! config fault tls metrics     what the operator typed; where a test build may be made to die; whom we believe; what is counted
//! ledger keys chain upstream webhooks   five strangers that do not know each other
//! gateway                      the sale
//! http cli                     the edge
//! main
//! ```

pub mod account;
pub mod buffer;
pub mod catalogue;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod error;
pub mod fault;
pub mod gateway;
pub mod http;
pub mod ids;
pub mod keys;
pub mod ledger;
pub mod metrics;
pub mod money;
pub mod tariff;
pub mod tls;
pub mod upstream;
pub mod webhooks;
pub mod x402;
