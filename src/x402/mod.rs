//! The x402 wire: what an offer, a payment and a receipt look like in versions 1 and 2, and how one is read as the other.

pub mod names;
mod offer;
mod payment;
mod receipt;
pub mod sign_in;

pub use offer::{Offer, Requirements, Resource};
pub use payment::{MAX_HEADER_BYTES, Payment, Version};
pub use receipt::Receipt;
pub use sign_in::{SIGN_IN_HEADERS, SignIn, SignInFault, SignInRules, only_sign_in};

use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _};

/// Request headers that may carry a payment; the first that is present and not empty counts.
pub const PAYMENT_HEADERS: [&str; 3] = ["payment-signature", "x-payment", "x-402-payment"];
/// The header of a version 2 offer.
pub const OFFER_HEADER: &str = "payment-required";
/// Response headers that carry the receipt: version 2's name and version 1's.
pub const RECEIPT_HEADERS: [&str; 2] = ["payment-response", "x-payment-response"];

/// Something that is not the JSON it should be; the text says which part, for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Reads a JSON object; serde alone would take an array of the same values for one, and two readers would disagree.
///
/// # Errors
/// Says about `what` which field is missing, unknown, repeated or of another type.
pub fn object<'a, T: serde::Deserialize<'a>>(json: &'a str, what: &str) -> Result<T, Malformed> {
    if !json.trim_start().starts_with('{') {
        return Err(Malformed(format!("{what} is not a JSON object")));
    }
    serde_json::from_str(json).map_err(|error| {
        // The position means nothing to somebody who sees only base64, and types have names that buyers know.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default().replace("expected u64", "expected a whole number");
        Malformed(format!("{what} cannot be read: {text}"))
    })
}

/// Base64 of JSON, standard alphabet with padding, as all known clients read it.
pub fn encode(json: &impl serde::Serialize) -> String {
    let bytes = serde_json::to_vec(json).expect("wire types have string keys and no failing serializers");
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Reads base64 in the standard or the URL-safe alphabet, padded or not.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, Malformed> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text.trim();
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, lenient).decode(text).map_err(|error| {
        Malformed(match error {
            DecodeError::InvalidByte(at, byte) => format!("not base64 at byte {at} ({:?})", char::from(byte)),
            _ => "not base64: its end is cut off or changed".into(),
        })
    })
}
