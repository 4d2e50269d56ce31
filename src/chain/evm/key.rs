//! A private key that signs for us, kept in memory only and wiped when it is dropped.

use std::fmt;

use k256::ecdsa::SigningKey;
use zeroize::Zeroizing;

use super::address::Address;
use super::hex;

/// A secp256k1 private key. `Debug` shows whose it is, never what it is.
pub struct PrivateKey(SigningKey);

/// Why a text is no private key. Says nothing about the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a private key is 0x and 64 hex digits, above zero and below the order of the curve")]
pub struct BadKey;

impl PrivateKey {
    /// Reads 64 hex digits, with or without `0x`.
    pub fn parse(text: &str) -> Result<PrivateKey, BadKey> {
        let digits = Zeroizing::new(format!("0x{}", text.trim().trim_start_matches("0x")));
        let bytes = Zeroizing::new(hex::fixed::<32>(&digits).ok_or(BadKey)?);
        SigningKey::from_slice(&bytes[..]).map(PrivateKey).map_err(|_| BadKey)
    }

    /// The account this key speaks for.
    pub fn address(&self) -> Address {
        Address::of(self.0.verifying_key())
    }

    /// Signs a digest; always low-s, with the recovery parity 0 or 1. The nonce is derived from key and digest (RFC 6979).
    pub(super) fn sign(&self, digest: &[u8; 32]) -> ([u8; 32], [u8; 32], u8) {
        let (signature, parity) = self.0.sign_prehash_recoverable(digest);
        let (r, s) = signature.split_bytes();
        (r.into(), s.into(), parity.to_byte())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_only_by_its_address() {
        let text = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
        let key = PrivateKey::parse(&format!("0x{text}")).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(0x70997970C51812dc3A010C7d01b50e0d17dc79C8)");
        assert_eq!(PrivateKey::parse(text).unwrap().address(), key.address());
        for bad in ["", "0x", "0x00", &"0".repeat(64), &"f".repeat(64), &"g".repeat(64)] {
            assert!(PrivateKey::parse(bad).is_err(), "{bad}");
        }
    }
}
