//! What the ledger remembers, row by row: accounts, postings, holds and payments, and how each is written down.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::ids::{PaymentId, RequestId};
use crate::money::Micros;

/// Who a posting belongs to. Every transfer takes from one account and gives to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// A wallet's money that it may spend.
    Wallet(AccountId),
    /// A wallet's money that stands for calls in flight.
    Held(AccountId),
    /// USDC that came in over a network (CAIP-2 and asset); negative by what came in.
    External(String),
    /// Payments whose call is still running.
    Transit,
    /// What the operator earned.
    Sales,
    /// What was lost to transfers that vanished from the chain; negative by the loss.
    BadDebt,
}

impl Account {
    /// Whether the account may go below zero: only the sources of money and the loss may.
    pub fn may_be_negative(&self) -> bool {
        matches!(self, Account::External(_) | Account::BadDebt)
    }

    /// The table key: one letter for the kind, then the rest.
    pub fn to_key(&self) -> Vec<u8> {
        match self {
            Account::Wallet(id) => [&b"W"[..], &id.to_bytes()].concat(),
            Account::Held(id) => [&b"H"[..], &id.to_bytes()].concat(),
            Account::External(name) => [b"X", name.as_bytes()].concat(),
            Account::Transit => b"T".to_vec(),
            Account::Sales => b"S".to_vec(),
            Account::BadDebt => b"B".to_vec(),
        }
    }

    /// The inverse of [`Account::to_key`].
    pub fn from_key(key: &[u8]) -> Option<Account> {
        let (kind, rest) = key.split_first()?;
        let wallet = || rest.try_into().ok().and_then(AccountId::from_bytes);
        match (kind, rest.is_empty()) {
            (b'W', _) => wallet().map(Account::Wallet),
            (b'H', _) => wallet().map(Account::Held),
            (b'X', false) => String::from_utf8(rest.to_vec()).ok().map(Account::External),
            (b'T', true) => Some(Account::Transit),
            (b'S', true) => Some(Account::Sales),
            (b'B', true) => Some(Account::BadDebt),
            _ => None,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Wallet(id) => write!(f, "wallet {id}"),
            Account::Held(id) => write!(f, "held {id}"),
            Account::External(name) => write!(f, "external {name}"),
            Account::Transit => f.write_str("transit"),
            Account::Sales => f.write_str("sales"),
            Account::BadDebt => f.write_str("bad debt"),
        }
    }
}

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A payment arrived on chain.
    Payment = 1,
    /// A call was charged.
    Charge = 2,
    /// The part of a payment that its call did not cost became balance.
    Credit = 3,
    /// Balance was set aside for a call.
    Hold = 4,
    /// Balance that a call did not need came back.
    Release = 5,
    /// A transfer vanished from the chain after it had been counted.
    Reversal = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Payment, Kind::Charge, Kind::Credit, Kind::Hold, Kind::Release, Kind::Reversal]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What a transfer was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Payment(PaymentId),
    Request(RequestId),
}

/// One leg of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    pub account: Account,
    /// Micros; negative on the debit leg.
    pub amount: i64,
    pub kind: Kind,
    pub reference: Reference,
    pub at: Timestamp,
    /// The hash chain: SHA-256 of the hash before and of this row, cut to eight bytes.
    pub hash: [u8; 8],
}

impl Posting {
    /// The hash this row must carry after `previous`.
    pub fn chained(&self, previous: [u8; 8]) -> [u8; 8] {
        let mut hasher = Sha256::new();
        hasher.update(previous);
        hasher.update(self.body());
        let digest = hasher.finalize();
        let mut out = [0; 8];
        out.copy_from_slice(&digest[..8]);
        out
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.hash.to_vec();
        out.extend(self.body());
        out
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.extend(self.amount.to_be_bytes());
        out.extend(self.at.millis().to_be_bytes());
        out.push(self.kind as u8);
        match self.reference {
            Reference::Payment(id) => {
                out.push(1);
                out.extend(id.0);
            }
            Reference::Request(id) => {
                out.push(2);
                out.extend(id.0.to_be_bytes());
            }
        }
        out.extend(self.account.to_key());
        out
    }

    /// The inverse of [`Posting::to_bytes`]; `None` for a row that is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Posting> {
        let hash = bytes.get(..8)?.try_into().ok()?;
        let amount = i64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
        let at = Timestamp::from_millis(u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?));
        let kind = Kind::from_byte(*bytes.get(24)?)?;
        let (reference, rest) = match bytes.get(25)? {
            1 => (Reference::Payment(PaymentId(bytes.get(26..58)?.try_into().ok()?)), 58),
            2 => (Reference::Request(RequestId(u128::from_be_bytes(bytes.get(26..42)?.try_into().ok()?))), 42),
            _ => return None,
        };
        Some(Posting { account: Account::from_key(bytes.get(rest..)?)?, amount, kind, reference, at, hash })
    }
}

/// Whose money stands for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fund {
    /// The wallet's balance: the amount stands on its held account.
    #[serde(with = "account_hex")]
    Wallet(AccountId),
    /// A payment of its own: the amount stands in transit once the chain has confirmed it.
    #[serde(with = "payment_hex")]
    Payment(PaymentId),
}

/// Funds held for one call in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub fund: Fund,
    /// The most the call may cost.
    pub amount: u64,
    pub model: String,
    /// The run of the program that made it; a hold of an older run is resolved on start.
    pub boot: u64,
    /// Whether bytes of the answer were relayed.
    pub started: bool,
    /// What the call owed at the last checkpoint.
    pub checkpoint: u64,
}

/// Where a payment is on its way from a signature to money that cannot be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Ours to settle; nothing is signed yet.
    Claimed,
    /// Our transaction is signed and durable; it may be on its way.
    Signed,
    /// It was handed to a node.
    Sent,
    /// The chain has it and the books count it.
    Confirmed,
    /// Nothing can undo it.
    Final,
    /// Given back before anything was signed; the same payment may be claimed again.
    Voided,
    /// Proven never to arrive.
    Failed,
}

/// One signed transaction of ours that would settle a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub tx: String,
    #[serde(with = "base64_bytes")]
    pub raw: Vec<u8>,
    pub gas_nonce: u64,
}

/// What became of a payment's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A call was served: what it cost, and what became balance.
    Served { charge: u64, credited: u64 },
    /// No call was served: all of it became balance.
    Credited { amount: u64 },
}

/// One payment, from its claim to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub state: State,
    /// CAIP-2.
    pub network: String,
    pub asset: String,
    #[serde(with = "account_hex")]
    pub payer: AccountId,
    pub amount: u64,
    /// The call it pays for.
    pub request: u128,
    pub route: String,
    /// What the chain module needs to go on after a restart; opaque here.
    #[serde(with = "base64_bytes")]
    pub detail: Bytes,
    pub attempts: Vec<Attempt>,
    /// Transaction and block of the transfer.
    pub confirmed: Option<(String, u64)>,
    /// The transfer was seen and then vanished; it is being sent again.
    pub reorged: bool,
    /// The chain will not take the transfer back; the row becomes final with the end of its call.
    pub irreversible: bool,
    pub outcome: Option<Outcome>,
    /// Why it failed.
    pub reason: Option<String>,
    pub claimed_at: u64,
}

impl Payment {
    pub fn amount(&self) -> Micros {
        Micros::new(self.amount)
    }

    /// Whether the chain may still change something about it.
    pub fn is_open(&self) -> bool {
        match self.state {
            State::Claimed | State::Signed | State::Sent | State::Confirmed => true,
            State::Final | State::Voided | State::Failed => false,
        }
    }

    pub fn external(&self) -> Account {
        Account::External(format!("{}/{}", self.network, self.asset))
    }
}

mod base64_bytes {
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

mod account_hex {
    //! An account in JSON: the hex of its table form.
    use super::{AccountId, hex};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(id: &AccountId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(&id.to_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AccountId, D::Error> {
        let text = String::deserialize(from)?;
        hex::decode::<33>(&text).and_then(|bytes| AccountId::from_bytes(&bytes)).ok_or_else(|| D::Error::custom("not an account"))
    }
}

mod payment_hex {
    //! A payment id in JSON: hex.
    use super::{PaymentId, hex};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(id: &PaymentId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(&id.0))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PaymentId, D::Error> {
        let text = String::deserialize(from)?;
        hex::decode::<32>(&text).map(PaymentId).ok_or_else(|| D::Error::custom("not a payment id"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_survives_its_key() {
        let wallet = AccountId::Evm([3; 20]);
        for account in [
            Account::Wallet(wallet),
            Account::Held(wallet),
            Account::External("eip155:1/0xabc".into()),
            Account::Transit,
            Account::Sales,
            Account::BadDebt,
        ] {
            assert_eq!(Account::from_key(&account.to_key()), Some(account));
        }
        assert_eq!(Account::from_key(b""), None);
        assert_eq!(Account::from_key(b"Wshort"), None);
    }

    #[test]
    fn a_posting_survives_its_bytes_and_a_changed_byte_breaks_its_hash() {
        let mut posting = Posting {
            account: Account::Sales,
            amount: -5,
            kind: Kind::Charge,
            reference: Reference::Request(RequestId(77)),
            at: Timestamp::from_millis(9),
            hash: [0; 8],
        };
        posting.hash = posting.chained([1; 8]);
        let read = Posting::from_bytes(&posting.to_bytes()).unwrap();
        assert_eq!(read, posting);
        let forged = Posting { amount: -4, ..read };
        assert_ne!(forged.chained([1; 8]), forged.hash);
    }
}
