//! Why a Solana payment is refused, in the words that x402 2.27 facilitators use, so that buyers' tools understand them.

pub const SCHEME: &str = "invalid_exact_svm_unsupported_scheme";
pub const NETWORK: &str = "invalid_exact_svm_network_mismatch";
/// Our own offer names nobody who pays the fee.
pub const NO_FEE_PAYER: &str = "invalid_exact_svm_payload_missing_fee_payer";
pub const FEE_PAYER: &str = "invalid_exact_svm_fee_payer_mismatch";
pub const SIGNERS: &str = "invalid_exact_svm_payload_excessive_signers";
pub const SIGNATURE: &str = "invalid_exact_svm_payload_signature_invalid";
pub const LOOK_UP_TABLE: &str = "invalid_exact_svm_smart_wallet_alt_resolution_not_available";
pub const INSTRUCTIONS: &str = "invalid_exact_svm_payload_transaction_instructions_length";
pub const COMPUTE_LIMIT: &str = "invalid_exact_svm_payload_transaction_instructions_compute_limit_instruction";
pub const COMPUTE_LIMIT_TOO_HIGH: &str = "invalid_exact_svm_payload_transaction_instructions_compute_limit_instruction_too_high";
pub const COMPUTE_PRICE: &str = "invalid_exact_svm_payload_transaction_instructions_compute_price_instruction";
pub const COMPUTE_PRICE_TOO_HIGH: &str = "invalid_exact_svm_payload_transaction_instructions_compute_price_instruction_too_high";
pub const NO_TRANSFER: &str = "invalid_exact_svm_payload_no_transfer_instruction";
/// The fee payer, which is us, is given to an instruction.
pub const FEE_PAYER_USED: &str = "invalid_exact_svm_payload_transaction_fee_payer_transferring_funds";
pub const MINT: &str = "invalid_exact_svm_payload_mint_mismatch";
pub const RECIPIENT: &str = "invalid_exact_svm_payload_recipient_mismatch";
/// The money does not come out of the token account that belongs to its payer. This word and the next are ours.
pub const SOURCE: &str = "invalid_exact_svm_payload_source_mismatch";
/// The payer is the recipient: nothing would come in for what is credited.
pub const PAYER: &str = "invalid_exact_svm_payload_payer_is_recipient";
pub const AMOUNT: &str = "invalid_exact_svm_payload_amount_mismatch";
/// An instruction behind the transfer that wallets do not add, by its place.
pub const UNKNOWN: [&str; 4] = [
    "invalid_exact_svm_payload_unknown_fourth_instruction",
    "invalid_exact_svm_payload_unknown_fifth_instruction",
    "invalid_exact_svm_payload_unknown_sixth_instruction",
    "invalid_exact_svm_payload_unknown_seventh_instruction",
];
pub const MEMO_COUNT: &str = "invalid_exact_svm_payload_memo_count";
pub const MEMO: &str = "invalid_exact_svm_payload_memo_mismatch";
pub const SIMULATION: &str = "invalid_exact_svm_transaction_simulation_failed";
/// The transaction landed and failed.
pub const TRANSACTION: &str = "invalid_exact_svm_transaction_failed";
/// The transaction is on the chain already, for an earlier sale.
pub const DUPLICATE: &str = "duplicate_settlement";
/// The blockhash that it names is too old, so it can land no more. This word is ours.
pub const EXPIRED: &str = "invalid_exact_svm_transaction_expired";

/// All of them.
pub const ALL: [&str; 29] = [
    SCHEME,
    NETWORK,
    NO_FEE_PAYER,
    FEE_PAYER,
    SIGNERS,
    SIGNATURE,
    LOOK_UP_TABLE,
    INSTRUCTIONS,
    COMPUTE_LIMIT,
    COMPUTE_LIMIT_TOO_HIGH,
    COMPUTE_PRICE,
    COMPUTE_PRICE_TOO_HIGH,
    NO_TRANSFER,
    FEE_PAYER_USED,
    MINT,
    RECIPIENT,
    SOURCE,
    PAYER,
    AMOUNT,
    UNKNOWN[0],
    UNKNOWN[1],
    UNKNOWN[2],
    UNKNOWN[3],
    MEMO_COUNT,
    MEMO,
    SIMULATION,
    TRANSACTION,
    DUPLICATE,
    EXPIRED,
];
