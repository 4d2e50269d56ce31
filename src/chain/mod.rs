//! Payments: verified against what we asked for, simulated on their chain, settled there and watched until final. And
//! sign-ins, which are judged by the same signatures.
//!
//! Nothing here knows a ledger: what must be durable before the next step is handed to a [`Journal`].
//!
//! ```text
//! header -> verify (pure) -> simulate (asks the chain) -> settle: signed -> sent -> confirmed -> final
//!                                                         every arrow after `settle` is journaled first
//! ```

mod audit;
pub mod buyer;
mod client;
pub mod evm;
mod facilitator;
mod handle;
mod judge;
mod open;
mod payment;
mod payout;
pub mod reason;
mod rounds;
mod rpc;
mod setup;
mod sign_in;
mod simulated;
pub mod solana;
mod stakes;
mod terms;
mod token;
mod treasury;
mod typed;
mod witness;
mod worker;

use std::future::Future;
use std::pin::Pin;

use crate::ids::PaymentId;

pub use audit::{Audit, Counted, audit};
pub use evm::verify::is_signed_for;
pub use handle::{Chains, NetworkStatus, Purse};
pub use judge::judge;
pub use payment::{Unreadable, VerifiedPayment, claimed_payer, identify, verify};
pub use payout::{Payable, check_payout, paid_from, payout_nonce};
pub use sign_in::{SignedIn, judge_sign_in, verify_sign_in};
pub use terms::Amounts;
pub use treasury::{Arrival, Arrivals, Treasury, Way, arrivals, treasury};
pub use typed::typed_account;

/// Why a payment is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Not a payment at all: 400 `invalid_payment`. The text says which part.
    Malformed(String),
    /// A payment that does not pay for this: 402 `payment_invalid`, with the x402 reason.
    Invalid { reason: &'static str, message: String },
    /// We cannot tell or cannot settle right now: 503, never a 402, because a buyer who is asked again pays twice.
    Unavailable(String),
    /// The chain's clock and ours disagree by minutes, so times cannot be judged: 503 `clock_skew`. The text
    /// says to the operator which way and by how much.
    ClockSkew(String),
}

/// One signed transaction that may land for a payment.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its name on its chain (EVM: `0x` and the hash; Solana: our signature in base58), known before it is sent. Empty for a request to a facilitator, whose hash is not known before.
    pub tx: String,
    /// The bytes to send, and to send again. Empty when somebody else signs.
    pub raw: Vec<u8>,
    /// What ties the bytes to their chain's course. EVM: the settler's transaction count that they use up. Solana: the last
    /// block height at which they can land.
    pub bound_to: u64,
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The raw bytes carry the payer's signature.
        f.debug_struct("Attempt").field("tx", &self.tx).field("bound_to", &self.bound_to).finish_non_exhaustive()
    }
}

/// Where a transfer was found on its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// Its name there; of somebody else's transaction if that one carried the payment.
    pub tx: String,
    /// EVM: the number of its block. Solana: its slot.
    pub block: u64,
}

/// How a settlement ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The money is at `pay_to`, deep enough.
    Confirmed(Confirmation),
    /// It is proven that our attempts did not and will not move it. Anything less than proof stays open and is watched.
    Failed { reason: &'static str, message: String },
}

/// The journal refuses or is gone: do nothing further for this payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal is closed")]
pub struct JournalClosed;

/// What a journal answers: `Ok` once the entry is durable.
pub type JournalFuture = Pin<Box<dyn Future<Output = Result<(), JournalClosed>> + Send>>;

/// The durable record of settlements. It is told before anybody outside is.
pub trait Journal: Send + Sync {
    /// Whether the fee of this payment's transfer would be risked now, or only when others are in their blocks: a transfer that
    /// fails in its block costs us its fee. Asked before the chain is.
    fn may_sign(&self, _: PaymentId) -> Result<bool, JournalClosed> {
        Ok(true)
    }
    /// The same, right before [`Journal::signed`]; if so, the fee is at risk from now on.
    fn risk(&self, _: PaymentId) -> Result<bool, JournalClosed> {
        Ok(true)
    }
    /// Whether it goes from us to a wallet. Such a payment has failed only once it can never land: until then anybody who has seen
    /// it may submit it, and its money must not be spent as a balance meanwhile.
    fn is_outgoing(&self, _: PaymentId) -> bool {
        false
    }
    /// `Ok` means that the bytes and the hash are durable. `Err` means that the claim was voided, or that the ledger is
    /// down: the bytes are never sent then.
    fn signed(&self, id: PaymentId, attempt: Attempt) -> JournalFuture;
    /// The bytes have left us, or may have. A note; nothing waits for it.
    fn sent(&self, id: PaymentId);
    /// A transaction of ours is in a block and moved the money, if only so far: its fee is not at risk any more. A note.
    fn landed(&self, _: PaymentId) {}
    /// A transaction of ours for this payment is in a block, deep enough, and the chain has taken a fee for it, whether or not
    /// it moved the money: so much, in the smallest unit of the chain's coin. It may be said again after a restart. A note.
    fn paid_fee(&self, _: PaymentId, _tx: &str, _amount: u64) {}
    /// A transaction of ours is in a block and moved nothing: we paid for it, and its payment has failed, if only so far. Once
    /// per payment and run, before whoever waits hears of the failure. A note; nothing waits for it.
    fn wasted(&self, id: PaymentId);
    /// Durable and applied to the books before the caller hears of it. After [`Journal::unconfirmed`] it is called again.
    fn settled(&self, id: PaymentId, outcome: Settlement) -> JournalFuture;
    /// Nobody may remember whether the transfer arrived: nobody waits for its money any more. A note, once per payment and run;
    /// the outcome may still turn up.
    fn forgotten(&self, id: PaymentId);
    /// A confirmed transfer vanished in a reorganisation; it is being sent again.
    fn unconfirmed(&self, id: PaymentId);
    /// The transfer cannot vanish any more; this payment is never looked at again.
    fn finalized(&self, id: PaymentId);
}

/// Why selling cannot start at all. Trouble that may pass is in [`NetworkStatus::sellable`] instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("network {network:?}, {field}: {why}")]
    Config { network: String, field: String, why: String },
    #[error("the settlement thread did not start: {0}")]
    Thread(String),
}
