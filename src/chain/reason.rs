//! Why a payment is refused, in the words that x402 2.27 facilitators use, so that buyers' tools understand them. Solana's own
//! words are in [`super::solana::reason`].

use super::solana;
use crate::x402::names::Family;

pub const INVALID_PAYLOAD: &str = "invalid_payload";
pub const REQUIREMENTS: &str = "invalid_payment_requirements";
pub const UNSUPPORTED_SCHEME: &str = "unsupported_scheme";
pub const SCHEME: &str = "invalid_exact_evm_scheme";
pub const MISSING_DOMAIN: &str = "invalid_exact_evm_missing_eip712_domain";
pub const NETWORK: &str = "invalid_exact_evm_network_mismatch";
pub const SIGNATURE: &str = "invalid_exact_evm_signature";
pub const UNDEPLOYED_WALLET: &str = "invalid_exact_evm_payload_undeployed_smart_wallet";
pub const RECIPIENT: &str = "invalid_exact_evm_recipient_mismatch";
/// The payer is the recipient: nothing would come in for what is credited. This word is ours.
pub const PAYER: &str = "invalid_exact_evm_payer_is_recipient";
pub const VALID_BEFORE: &str = "invalid_exact_evm_payload_authorization_valid_before";
pub const VALID_AFTER: &str = "invalid_exact_evm_payload_authorization_valid_after";
/// A value that is not the price, in a version 1 payment.
pub const VALUE_V1: &str = "invalid_exact_evm_authorization_value";
/// A value that is not the price, in a version 2 payment.
pub const VALUE_V2: &str = "invalid_exact_evm_payload_authorization_value_mismatch";
/// Less than is taken where the payer decides how much to pay. x402 knows no such offers; this word and the next are ours.
pub const TOO_LOW: &str = "amount_too_low";
/// More than is taken there.
pub const TOO_HIGH: &str = "amount_too_high";
pub const NOT_SUPPORTED: &str = "invalid_exact_evm_eip3009_not_supported";
pub const NONCE_USED: &str = "invalid_exact_evm_nonce_already_used";
pub const BALANCE: &str = "invalid_exact_evm_insufficient_balance";
pub const SIMULATION: &str = "invalid_exact_evm_transaction_simulation_failed";
/// The transaction was mined and reverted.
pub const TRANSACTION: &str = "invalid_exact_evm_transaction_failed";
/// The operator's side could not settle in time; nothing was moved.
pub const SETTLE: &str = "unexpected_settle_error";
/// A facilitator gave a reason that is not in this table; its own words are in the message.
pub const FACILITATOR: &str = "unexpected_verify_error";

/// The table's copy of a reason that somebody else sent, if it is one of ours.
pub fn known(text: &str) -> Option<&'static str> {
    const ALL: [&str; 20] = [
        INVALID_PAYLOAD,
        REQUIREMENTS,
        UNSUPPORTED_SCHEME,
        SCHEME,
        MISSING_DOMAIN,
        NETWORK,
        SIGNATURE,
        UNDEPLOYED_WALLET,
        RECIPIENT,
        VALID_BEFORE,
        VALID_AFTER,
        VALUE_V1,
        VALUE_V2,
        NOT_SUPPORTED,
        NONCE_USED,
        BALANCE,
        SIMULATION,
        TRANSACTION,
        SETTLE,
        FACILITATOR,
    ];
    ALL.into_iter().chain(solana::reason::ALL).find(|code| *code == text)
}

/// What a reason is about, whatever the family: a caller who can be helped is helped by this, not by the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Network,
    Scheme,
    /// What the buyer says it accepted is not what we asked.
    Requirements,
    /// Another token than ours is paid.
    Token,
    Recipient,
    Payer,
    TooLow,
    TooHigh,
    /// Another amount than the price.
    Amount,
    /// When the payment may settle, which hangs on clocks.
    Time,
    Signature,
    Other,
}

/// What a reason of the table is about.
pub fn about(reason: &str) -> About {
    use solana::reason as svm;
    match reason {
        NETWORK | svm::NETWORK => About::Network,
        SCHEME | UNSUPPORTED_SCHEME | svm::SCHEME => About::Scheme,
        REQUIREMENTS => About::Requirements,
        svm::MINT => About::Token,
        RECIPIENT | svm::RECIPIENT => About::Recipient,
        PAYER | svm::PAYER => About::Payer,
        TOO_LOW => About::TooLow,
        TOO_HIGH => About::TooHigh,
        VALUE_V1 | VALUE_V2 | svm::AMOUNT => About::Amount,
        VALID_BEFORE | VALID_AFTER => About::Time,
        SIGNATURE | svm::SIGNATURE => About::Signature,
        _ => About::Other,
    }
}

/// The word for a payment on a network that is not taken; of EVM where the family is not known.
pub fn network(caip2: &str) -> &'static str {
    match Family::of_network(caip2) {
        Some(Family::Solana) => solana::reason::NETWORK,
        Some(Family::Evm) | None => NETWORK,
    }
}
