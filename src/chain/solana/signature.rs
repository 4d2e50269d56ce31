//! How Solana's wallets write a signature: in base58, or in base64 as some of their libraries do.

use crate::x402;

/// The longest base58 text of 64 bytes; the longest base64 is as long.
const LONGEST: usize = 88;

/// The 64 bytes that a text may stand for: read as base58, then as base64 in either alphabet. One in millions can be read as
/// both, and which is meant is told by which verifies.
pub fn readings(text: &str) -> impl Iterator<Item = [u8; 64]> {
    // Decoding base58 takes time that grows with the square of the length.
    let text = if text.len() <= LONGEST { text } else { "" };
    let mut bytes = [0; 64];
    let base58 = (bs58::decode(text).onto(&mut bytes) == Ok(bytes.len())).then_some(bytes);
    let base64 = x402::decode_base64(text).ok().and_then(|bytes| bytes.try_into().ok());
    base58.into_iter().chain(base64)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn a_signature_is_read_in_either_alphabet_and_is_64_bytes() {
        let bytes: [u8; 64] = std::array::from_fn(|at| u8::try_from(at).unwrap().wrapping_mul(37));
        for text in [bs58::encode(bytes).into_string(), STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)] {
            assert!(readings(&text).any(|read| read == bytes), "{text}");
        }
        for other in ["", "0OIl", &STANDARD.encode([1; 63]), &STANDARD.encode([1; 65]), &bs58::encode([1; 63]).into_string()] {
            assert_eq!(readings(other).count(), 0, "{other}");
        }
        assert_eq!(readings(&"1".repeat(1_000_000)).count(), 0);
        let both = format!("1111{}g", "2".repeat(81));
        assert_eq!(readings(&both).count(), 2, "it is base58 and base64 of 64 bytes each");
    }
}
