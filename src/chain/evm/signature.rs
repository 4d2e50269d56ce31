//! A payer's signature: which bytes we take for one, and whose it is.

use k256::ecdsa::{RecoveryId, Signature as Ecdsa, VerifyingKey};

use super::address::Address;
use super::keccak;

/// ERC-6492 marks a signature of a wallet that is not deployed yet with this suffix.
const UNDEPLOYED_SUFFIX: [u8; 32] = [
    0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64,
    0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92, 0x64, 0x92,
];

/// What the bytes of a signature can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `r`, `s` and `v`, within the bounds that the token enforces; `v` is 27 or 28.
    Plain { r: [u8; 32], s: [u8; 32], v: u8 },
    /// Bytes that only a wallet with code can judge (EIP-1271).
    Wallet,
}

/// Why bytes are no signature for anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    Empty,
    /// EIP-2098; the token does not read it.
    Compact,
    /// `s` above half the curve order: the twin of a good signature, which the token reverts on (EIP-2).
    HighS,
    /// `v` outside 0, 1, 27, 28.
    Parity,
    /// `r` or `s` zero or beyond the curve order.
    OutOfRange,
    /// ERC-6492.
    Undeployed,
}

/// Reads a signature strictly. `v` may be written 0 or 1 and is normalised.
pub fn classify(bytes: &[u8]) -> Result<Kind, Unusable> {
    if bytes.ends_with(&UNDEPLOYED_SUFFIX) {
        return Err(Unusable::Undeployed);
    }
    match bytes.len() {
        0 => Err(Unusable::Empty),
        64 => Err(Unusable::Compact),
        65 => plain(bytes),
        _ => Ok(Kind::Wallet),
    }
}

fn plain(bytes: &[u8]) -> Result<Kind, Unusable> {
    let v = match bytes[64] {
        low @ (0 | 1) => low + 27,
        v @ (27 | 28) => v,
        _ => return Err(Unusable::Parity),
    };
    let signature = Ecdsa::from_slice(&bytes[..64]).map_err(|_| Unusable::OutOfRange)?;
    // k256 recovers the high-s twin without complaint; the token does not.
    if signature.normalize_s() != signature {
        return Err(Unusable::HighS);
    }
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&bytes[..32]);
    s.copy_from_slice(&bytes[32..64]);
    Ok(Kind::Plain { r, s, v })
}

/// Who signed `digest`; `None` when nobody can have. `v` is 27 or 28.
pub fn recover(digest: &[u8; 32], r: &[u8; 32], s: &[u8; 32], v: u8) -> Option<Address> {
    let signature = Ecdsa::from_slice(&[&r[..], &s[..]].concat()).ok()?;
    let parity = RecoveryId::from_byte(v.checked_sub(27)?)?;
    let key = VerifyingKey::recover_from_prehash(digest, &signature, parity).ok()?;
    Some(Address::of(&key))
}

/// The digest of a text that a wallet signs for a person: EIP-191, version `E`.
pub fn text_digest(text: &str) -> [u8; 32] {
    keccak(format!("\x19Ethereum Signed Message:\n{}{text}", text.len()).as_bytes())
}

/// Who signed a text. The same strictness as for payments: one wallet has one signature of one text.
///
/// # Errors
/// What is wrong with the bytes, to be said after "the signature is".
pub fn signer_of_text(text: &str, bytes: &[u8]) -> Result<Address, &'static str> {
    match classify(bytes) {
        Ok(Kind::Plain { r, s, v }) => recover(&text_digest(text), &r, &s, v).ok_or("nobody's"),
        Ok(Kind::Wallet) => Err("not 65 bytes; wallets with code (EIP-1271) cannot sign in here, use the key of a plain wallet"),
        Err(Unusable::Undeployed) => {
            Err("of a wallet that is not deployed (ERC-6492), which cannot sign in here; use a plain wallet")
        }
        Err(Unusable::Empty) => Err("empty"),
        Err(Unusable::Compact) => Err("in the 64-byte form of EIP-2098; send r, s and v, 65 bytes"),
        Err(Unusable::HighS) => Err("the high-s twin of a good one (EIP-2)"),
        Err(Unusable::Parity) => Err("without a v of 0, 1, 27 or 28 at its end"),
        Err(Unusable::OutOfRange) => Err("out of the range of the curve"),
    }
}

#[cfg(test)]
pub(in crate::chain) mod tests {
    use k256::Scalar;
    use k256::elliptic_curve::PrimeField as _;

    use super::*;

    /// `r` and the other `s` that recovers, with the other parity, to the same wallet.
    pub(in crate::chain) fn high_s_twin(signature: [u8; 64]) -> [u8; 64] {
        let (r, s) = signature.split_at(32);
        let s = Scalar::from_repr(<[u8; 32]>::try_from(s).unwrap().into()).unwrap();
        [r, &(-s).to_bytes()[..]].concat().try_into().unwrap()
    }

    #[test]
    fn a_texts_length_is_counted_in_bytes() {
        assert_eq!(text_digest("caf\u{e9}"), keccak(b"\x19Ethereum Signed Message:\n5caf\xc3\xa9"));
    }

    #[test]
    fn the_twin_of_a_signature_is_refused_although_it_recovers() {
        let key = crate::chain::evm::key::PrivateKey::parse(&"11".repeat(32)).unwrap();
        let digest = text_digest("hello");
        let (r, s, parity) = key.sign(&digest);
        let twin = high_s_twin([r, s].concat().try_into().unwrap());
        let high: [u8; 32] = twin[32..].try_into().unwrap();
        assert_eq!(recover(&digest, &r, &s, 27 + parity), Some(key.address()));
        assert_eq!(recover(&digest, &r, &high, 28 - parity), Some(key.address()), "so it would be a second signature");
        let bytes = |s: &[u8; 32], v| [&r[..], s, &[v]].concat();
        assert_eq!(signer_of_text("hello", &bytes(&s, 27 + parity)), Ok(key.address()));
        assert_eq!(classify(&bytes(&high, 28 - parity)).err(), Some(Unusable::HighS));
        assert!(signer_of_text("hello", &bytes(&high, 28 - parity)).is_err());
    }

    #[test]
    fn only_what_the_token_would_take_is_a_plain_signature() {
        let mut good = [1u8; 65];
        good[64] = 27;
        assert!(matches!(classify(&good), Ok(Kind::Plain { v: 27, .. })));
        good[64] = 1;
        assert!(matches!(classify(&good), Ok(Kind::Plain { v: 28, .. })), "1 is written 28 on the chain");
        for v in [2, 26, 29, 37, 255] {
            good[64] = v;
            assert_eq!(classify(&good).err(), Some(Unusable::Parity));
        }
        assert_eq!(classify(&[0; 65]).err(), Some(Unusable::OutOfRange));
        assert_eq!(classify(&[255; 65]).err(), Some(Unusable::Parity));
        assert_eq!(classify(&[1; 64]).err(), Some(Unusable::Compact));
        assert_eq!(classify(&[]).err(), Some(Unusable::Empty));
        assert!(matches!(classify(&[1; 66]), Ok(Kind::Wallet)));
        assert_eq!(classify(&[&[0; 96][..], &UNDEPLOYED_SUFFIX].concat()).err(), Some(Unusable::Undeployed));
    }
}
