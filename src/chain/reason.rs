//! Why a payment is refused, in the words that x402 2.27 facilitators use, so that buyers' tools understand them.

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
    ALL.into_iter().chain(super::solana::reason::ALL).find(|code| *code == text)
}
