//! How ids, accounts and bytes are written inside rows that are JSON.

pub(super) mod base64_bytes {
    //! Bytes in JSON: base64, a third of what a list of numbers takes.
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, B: From<Vec<u8>>>(from: D) -> Result<B, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD_NO_PAD.decode(text).map(B::from).map_err(|_| D::Error::custom("not base64"))
    }
}

pub(super) mod account_hex {
    //! An account in JSON: the hex of its table form.
    use super::hex;
    use crate::account::AccountId;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(id: &AccountId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(&id.to_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AccountId, D::Error> {
        let text = String::deserialize(from)?;
        hex::decode::<33>(&text).and_then(|bytes| AccountId::from_bytes(&bytes)).ok_or_else(|| D::Error::custom("not an account"))
    }
}

pub(super) mod payment_hex {
    //! The id of a payment in JSON: its hex.
    use super::hex;
    use crate::ids::PaymentId;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(id: &PaymentId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(&id.0))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PaymentId, D::Error> {
        let text = String::deserialize(from)?;
        hex::decode::<32>(&text).map(PaymentId).ok_or_else(|| D::Error::custom("not a payment"))
    }
}

mod hex {
    //! Fixed-width hex for ids inside JSON rows.
    pub fn encode(bytes: &[u8]) -> String {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
    }

    pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
        let mut out = [0; N];
        if text.len() != 2 * N || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(out)
    }
}
