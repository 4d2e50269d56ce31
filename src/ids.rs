//! The names of one call, one payment and one API key, and the proof that somebody stands for a call.

use std::fmt;

use crate::clock::Timestamp;
use crate::money::Micros;

/// The name of one HTTP request: 48 bits of time and 80 random bits, so that ids sort by arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// `random` must be fresh for each id; the caller at the edge draws it.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[6..].copy_from_slice(&random);
        RequestId(u128::from_be_bytes(bytes) | (u128::from(now.millis()) << 80))
    }

    /// When the request came, by the clock of this gateway.
    pub fn arrived(self) -> Timestamp {
        Timestamp::from_millis(u64::try_from(self.0 >> 80).unwrap_or(u64::MAX))
    }

    /// A part of its randomness, for a choice that is to fall differently for each request.
    pub fn lot(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0.to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Reads the form that [`fmt::Display`] writes, and no other.
    pub fn parse(text: &str) -> Option<RequestId> {
        thirty_two_digits(text.strip_prefix("req_")?).map(RequestId)
    }
}

/// A number as 32 digits of lower-case hex.
fn thirty_two_digits(hex: &str) -> Option<u128> {
    let plain = hex.len() == 32 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(hex, 16).ok())?
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The semantic identity of a payment: what was authorized, not how it was encoded or signed.
/// EVM: keccak256 of (chain id, token, from, nonce). Solana: SHA-256 of the message. It is claimed once and never sold twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentId(pub [u8; 32]);

impl PaymentId {
    /// Reads the form that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<PaymentId> {
        let hex = text.strip_prefix("pay_")?;
        let mut out = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(PaymentId(out))
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.0.split_at(16);
        let number = |half: &[u8]| half.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
        write!(f, "pay_{:032x}{:032x}", number(high), number(low))
    }
}

impl fmt::Debug for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of an API key, which is no secret: lists show it, and the key is changed and revoked by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u128);

impl KeyId {
    /// Reads the form that [`fmt::Display`] writes, and no other.
    pub fn parse(text: &str) -> Option<KeyId> {
        thirty_two_digits(text.strip_prefix("key_")?).map(KeyId)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key_{:032x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of one job by which its buyer asks for it: 48 bits of time and 80 random bits, so that names sort by arrival and
/// nobody guesses one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u128);

impl JobId {
    /// `random` must be fresh for each id and told to nobody; the caller at the edge draws it.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        JobId(RequestId::new(now, random).0)
    }

    /// Reads the form that [`fmt::Display`] writes, and no other.
    pub fn parse(text: &str) -> Option<JobId> {
        thirty_two_digits(text.strip_prefix("job_")?).map(JobId)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{:032x}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Ids stand in JSON as they are printed.
macro_rules! in_json_as_printed {
    ($($id:ident),*) => {$(
        impl serde::Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $id {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<str> as serde::Deserialize>::deserialize(from)?;
                $id::parse(&text).ok_or_else(|| serde::de::Error::custom(concat!("not a ", stringify!($id))))
            }
        }
    )*};
}

in_json_as_printed!(KeyId, PaymentId);

/// Proof that money stands for one call. Only the ledger's `Reservation` implements it (`tests/tidy.rs` holds that),
/// and the upstream asks for one: a call nobody pays for cannot be expressed.
pub trait Funds {
    /// The call that is paid for.
    fn request(&self) -> RequestId;
    /// The most it may cost.
    fn ceiling(&self) -> Micros;
}

/// Proof that a job was charged. Only the ledger's `Job` implements it (`tests/tidy.rs` holds that), and an upstream asks for
/// one before it is asked what became of a job: looking after a job is free because the job was paid for.
pub trait Bought {
    /// The call that was charged for it.
    fn request(&self) -> RequestId;
    /// Who has it, and what its model and the job are called there.
    fn upstream(&self) -> &str;
    fn upstream_model(&self) -> &str;
    fn upstream_job(&self) -> &str;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_print_in_one_form() {
        let early = RequestId::new(Timestamp::from_millis(1), [255; 10]);
        let late = RequestId::new(Timestamp::from_millis(2), [0; 10]);
        assert!(early < late);
        assert_eq!(late.to_string().len(), 36);
        assert_eq!(RequestId::parse(&late.to_string()), Some(late));
        assert_eq!(RequestId::parse(&late.to_string().replace("req_", "key_")), None);
    }

    #[test]
    fn a_payment_id_reads_back_what_it_prints() {
        let id = PaymentId([0xa5; 32]);
        assert_eq!(PaymentId::parse(&id.to_string()), Some(id));
        assert_eq!(PaymentId::parse("pay_zz"), None);
    }

    #[test]
    fn a_key_id_reads_back_what_it_prints_and_nothing_else() {
        for id in [KeyId(0), KeyId(0xa5), KeyId(u128::MAX)] {
            assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        }
        let upper = KeyId(0xa5).to_string().replace("a5", "A5");
        for other in ["", "key_", "key_a5", &upper, &"key_+".replace('+', &"+".repeat(32)), &format!("{}0", KeyId(1))] {
            assert_eq!(KeyId::parse(other), None, "{other}");
        }
    }
}
