//! An Ethereum address: twenty bytes, printed with the EIP-55 checksum.

use std::fmt;

use k256::ecdsa::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{hex, keccak};

/// Twenty bytes. Upper and lower case in the text are the same address; a wrong EIP-55 checksum is tolerated, because
/// the bytes are what is signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address(pub [u8; 20]);

impl Address {
    /// Reads `0x` and exactly 40 hex digits.
    pub fn parse(text: &str) -> Option<Address> {
        hex::fixed(text).map(Address)
    }

    /// Reads an address that a person typed: in mixed case its EIP-55 checksum must be right, so that a slip of the finger is
    /// noticed before money goes there.
    pub fn typed(text: &str) -> Option<Address> {
        let address = Address::parse(text)?;
        let digits = &text[2..];
        let mixed = digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
        (!mixed || address.to_string() == text).then_some(address)
    }

    /// The account that a public key speaks for: the last twenty bytes of its hash.
    pub(super) fn of(key: &VerifyingKey) -> Address {
        let point = key.to_sec1_point(false);
        let hash = keccak(&point.as_bytes()[1..]);
        let mut address = [0; 20];
        address.copy_from_slice(&hash[12..]);
        Address(address)
    }

    /// The address left-padded to 32 bytes, as calldata, event topics and typed data carry it.
    pub fn to_word(self) -> [u8; 32] {
        let mut word = [0; 32];
        word[12..].copy_from_slice(&self.0);
        word
    }
}

impl fmt::Display for Address {
    /// EIP-55: a digit is upper-case where the hash of the lower-case text has a high nibble.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower = hex::encode(&self.0);
        let hash = keccak(&lower.as_bytes()[2..]);
        let checked = lower.char_indices().map(|(at, digit)| {
            // The hash covers the digits only.
            let Some(place) = at.checked_sub(2) else { return digit };
            let nibble = (hash[place / 2] >> (4 * (1 - place % 2))) & 0xf;
            if nibble >= 8 { digit.to_ascii_uppercase() } else { digit }
        });
        f.write_str(&checked.collect::<String>())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_with_its_checksum_however_it_was_typed() {
        // The examples of EIP-55.
        for text in ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
            assert_eq!(Address::parse(&text.to_ascii_lowercase()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_slip_in_a_typed_address_is_noticed() {
        let text = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        let (lower, upper) = (text.to_ascii_lowercase(), format!("0x{}", text[2..].to_ascii_uppercase()));
        for good in [text, &lower, &upper] {
            assert_eq!(Address::typed(good), Address::parse(text), "{good}");
        }
        for slip in ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAee", "0x12"] {
            assert_eq!(Address::typed(slip), None, "{slip}");
        }
    }

    #[test]
    fn what_is_not_twenty_bytes_of_hex_is_no_address() {
        let bare = "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        for bad in ["", "0x1234", bare, &format!("0X{bare}"), &format!("0x{bare}00")] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
