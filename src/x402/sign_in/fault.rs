//! Why a sign-in is refused: the codes that buyers' tools know, and a sentence that says what to do.

/// The header is too long, no base64 or no JSON object.
pub const PARSE_ERROR: &str = "X402_SIGN_IN_PARSE_ERROR";
/// A field is missing or of another type.
pub const INVALID_PAYLOAD: &str = "X402_SIGN_IN_INVALID_PAYLOAD";
/// The signed text does not follow its grammar.
pub const INVALID_MESSAGE: &str = "X402_SIGN_IN_INVALID_MESSAGE";
/// No chain has such a name.
pub const INVALID_CHAIN_ID: &str = "X402_SIGN_IN_INVALID_CHAIN_ID";
/// The signed chain is not the one that is named beside it.
pub const CHAIN_MISMATCH: &str = "X402_SIGN_IN_CHAIN_MISMATCH";
/// This gateway takes no sign-ins for that chain.
pub const UNSUPPORTED_CHAIN: &str = "X402_SIGN_IN_UNSUPPORTED_CHAIN";
/// The signed address is not the one that is named beside it.
pub const ADDRESS_MISMATCH: &str = "X402_SIGN_IN_ADDRESS_MISMATCH";
/// The signed address is none.
pub const INVALID_WALLET: &str = "X402_SIGN_IN_INVALID_WALLET";
/// Signed for somebody else's domain.
pub const DOMAIN_MISMATCH: &str = "X402_SIGN_IN_DOMAIN_MISMATCH";
/// Signed for a URI elsewhere.
pub const URI_MISMATCH: &str = "X402_SIGN_IN_URI_MISMATCH";
/// There is no nonce.
pub const MISSING_NONCE: &str = "X402_SIGN_IN_MISSING_NONCE";
/// Signed too long ago, or past its own end.
pub const EXPIRED: &str = "X402_SIGN_IN_EXPIRED";
/// Signed in the future.
pub const FUTURE_TIMESTAMP: &str = "X402_SIGN_IN_FUTURE_TIMESTAMP";
/// Its own beginning is still to come.
pub const NOT_BEFORE: &str = "X402_SIGN_IN_NOT_BEFORE";
/// The unsigned `timestamp` contradicts the signed time.
pub const TIMESTAMP_MISMATCH: &str = "X402_SIGN_IN_TIMESTAMP_MISMATCH";
/// The address did not sign this.
pub const INVALID_SIGNATURE: &str = "X402_SIGN_IN_INVALID_SIGNATURE";
/// The nonce was used for a charge already.
pub const NONCE_REUSED: &str = "X402_SIGN_IN_NONCE_REUSED";

/// A sign-in that is refused: 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct SignInFault {
    /// One of the codes of this module.
    pub code: &'static str,
    /// What the caller should do. It never repeats the signature.
    pub message: String,
}

impl SignInFault {
    pub fn new(code: &'static str, message: impl Into<String>) -> SignInFault {
        SignInFault { code, message: message.into() }
    }
}

/// What a caller said, in quotes and cut to a length that a message can bear.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", cut(text))
}

/// The same without quotes.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
