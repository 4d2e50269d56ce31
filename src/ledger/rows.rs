//! What the ledger remembers, row by row: accounts, postings, holds and payments, and how each is written down.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::account::AccountId;
use crate::clock::{Period, Timestamp};
use crate::ids::{KeyId, PaymentId, RequestId};
use crate::money::Micros;
use crate::tariff::Usage;

use super::written::{account_hex, base64_bytes};

/// Who a posting belongs to. Every transfer takes from one account and gives to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// A wallet's money; what stands for its calls in flight is in it.
    Wallet(AccountId),
    /// USDC that came in over a network (CAIP-2 and asset); negative by what came in and was not paid out again.
    External(String),
    /// Payments whose call is still running.
    Transit,
    /// What the operator earned.
    Sales,
    /// What was lost to transfers that vanished from the chain; negative by the loss.
    BadDebt,
    /// What the operator gave and took by hand; negative by what wallets got.
    Adjustments,
    /// Balance that is on its way back to its wallet on a chain.
    Outgoing,
}

impl Account {
    /// Whether the account may go below zero: only the sources of money, the loss and the operator's hand may.
    pub fn may_be_negative(&self) -> bool {
        matches!(self, Account::External(_) | Account::BadDebt | Account::Adjustments)
    }

    /// The table key: one letter for the kind, then the rest.
    pub fn to_key(&self) -> Vec<u8> {
        match self {
            Account::Wallet(id) => [&b"W"[..], &id.to_bytes()].concat(),
            Account::External(name) => [b"X", name.as_bytes()].concat(),
            Account::Transit => b"T".to_vec(),
            Account::Sales => b"S".to_vec(),
            Account::BadDebt => b"B".to_vec(),
            Account::Adjustments => b"A".to_vec(),
            Account::Outgoing => b"O".to_vec(),
        }
    }

    /// The inverse of [`Account::to_key`].
    pub fn from_key(key: &[u8]) -> Option<Account> {
        let (kind, rest) = key.split_first()?;
        let wallet = || rest.try_into().ok().and_then(AccountId::from_bytes);
        match (kind, rest.is_empty()) {
            (b'W', _) => wallet().map(Account::Wallet),
            (b'X', false) => String::from_utf8(rest.to_vec()).ok().map(Account::External),
            (b'T', true) => Some(Account::Transit),
            (b'S', true) => Some(Account::Sales),
            (b'B', true) => Some(Account::BadDebt),
            (b'A', true) => Some(Account::Adjustments),
            (b'O', true) => Some(Account::Outgoing),
            _ => None,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Wallet(id) => write!(f, "wallet {id}"),
            Account::External(name) => write!(f, "external {name}"),
            Account::Transit => f.write_str("transit"),
            Account::Sales => f.write_str("sales"),
            Account::BadDebt => f.write_str("bad debt"),
            Account::Adjustments => f.write_str("adjustments"),
            Account::Outgoing => f.write_str("outgoing"),
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
    /// A payment vanished from the chain after it had been counted.
    Reversal = 6,
    /// The operator, or a job that failed, gave a charge back.
    Refund = 7,
    /// The operator gave or took by hand.
    Adjustment = 8,
    /// Balance left for its wallet on a chain, arrived there, or came back because it did not.
    Payout = 9,
}

impl Kind {
    /// In a word, for who counts them.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Payment => "payment",
            Kind::Charge => "charge",
            Kind::Credit => "credit",
            Kind::Reversal => "reversal",
            Kind::Refund => "refund",
            Kind::Adjustment => "adjustment",
            Kind::Payout => "payout",
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Adjustment, Charge, Credit, Payment, Payout, Refund, Reversal};
        [Payment, Charge, Credit, Reversal, Refund, Adjustment, Payout].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a transfer was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Payment(PaymentId),
    Request(RequestId),
    /// The first half of the SHA-256 of the id that the operator gave it.
    Adjustment([u8; 16]),
}

/// One movement of money: a debit and a credit of the same amount, so that the sum of all postings is zero by its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub debit: Account,
    pub credit: Account,
    pub amount: Micros,
    pub kind: Kind,
    pub reference: Reference,
    pub at: Timestamp,
    /// Its line in the statement of the wallet that it is about, if it is about one.
    pub line: Option<Line>,
    /// The hash chain: SHA-256 of the hash before and of this row, cut to eight bytes.
    pub hash: [u8; 8],
}

/// A line of a wallet's statement. Each knows the one before, so that a statement needs no table of its own, which every
/// call would have to write to in another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What the wallet had after it, in micros.
    pub after: i64,
    /// The transfer before this one that was about the same wallet.
    pub previous: Option<u64>,
}

/// What an account has, and the last transfer about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub amount: i64,
    pub last: u64,
}

impl Transfer {
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

    /// What it does to each account, in micros; the amount fits i64 because every account does.
    pub fn postings(&self) -> [(&Account, i64); 2] {
        let amount = i64::try_from(self.amount.get()).unwrap_or(i64::MAX);
        [(&self.debit, -amount), (&self.credit, amount)]
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.hash.to_vec();
        out.extend(self.body());
        out
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend(self.amount.get().to_be_bytes());
        out.extend(self.at.millis().to_be_bytes());
        out.push(self.kind as u8);
        out.push(u8::from(self.line.is_some()));
        if let Some(line) = self.line {
            out.extend(line.after.to_be_bytes());
            out.extend(line.previous.unwrap_or(NONE).to_be_bytes());
        }
        match self.reference {
            Reference::Payment(id) => {
                out.push(1);
                out.extend(id.0);
            }
            Reference::Request(id) => {
                out.push(2);
                out.extend(id.0.to_be_bytes());
            }
            Reference::Adjustment(name) => {
                out.push(3);
                out.extend(name);
            }
        }
        let debit = self.debit.to_key();
        // Account names are short: a wallet has 34 bytes, a network and its token fewer than a hundred.
        out.push(u8::try_from(debit.len()).unwrap_or(u8::MAX));
        out.extend(debit);
        out.extend(self.credit.to_key());
        out
    }

    /// The inverse of [`Transfer::to_bytes`]; `None` for a row that is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Transfer> {
        let hash = bytes.get(..8)?.try_into().ok()?;
        let amount = Micros::new(u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?));
        let at = Timestamp::from_millis(u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?));
        let kind = Kind::from_byte(*bytes.get(24)?)?;
        let (line, rest) = match bytes.get(25)? {
            0 => (None, bytes.get(26..)?),
            1 => {
                let (line, rest) = bytes.get(26..)?.split_at_checked(16)?;
                let after = i64::from_be_bytes(line.get(..8)?.try_into().ok()?);
                let previous = u64::from_be_bytes(line.get(8..)?.try_into().ok()?);
                (Some(Line { after, previous: Some(previous).filter(|previous| *previous != NONE) }), rest)
            }
            _ => return None,
        };
        let (reference, rest) = match rest.first()? {
            1 => (Reference::Payment(PaymentId(rest.get(1..33)?.try_into().ok()?)), rest.get(33..)?),
            2 => (Reference::Request(RequestId(u128::from_be_bytes(rest.get(1..17)?.try_into().ok()?))), rest.get(17..)?),
            3 => (Reference::Adjustment(rest.get(1..17)?.try_into().ok()?), rest.get(17..)?),
            _ => return None,
        };
        let (length, accounts) = rest.split_first()?;
        let (debit, credit) = accounts.split_at_checked(usize::from(*length))?;
        let (debit, credit) = (Account::from_key(debit)?, Account::from_key(credit)?);
        Some(Transfer { debit, credit, amount, kind, reference, at, line, hash })
    }
}

/// No transfer has this number.
const NONE: u64 = u64::MAX;

/// Whose money stands for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fund {
    /// The wallet's balance, and its allowance first.
    Wallet(AccountId),
    /// A payment of its own: the amount stands in transit once the chain has confirmed it.
    Payment(PaymentId),
}

/// Funds held for one call in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub fund: Fund,
    /// The most the call may take of its fund.
    pub amount: u64,
    /// What it may take of its wallet's allowance before that, and when the day of that allowance began.
    pub allowance: u64,
    pub allowance_began: u64,
    pub key: Option<KeyHold>,
    pub model: String,
    pub path: String,
    /// The run of the program that made it; a hold of an older run is resolved on start.
    pub boot: u64,
    /// Whether bytes of the answer were relayed.
    pub started: bool,
    /// What the call owed at the last checkpoint.
    pub checkpoint: u64,
}

impl Hold {
    /// The most the call may cost.
    pub fn ceiling(&self) -> Micros {
        Micros::new(self.amount.saturating_add(self.allowance))
    }
}

/// The key behind a call, and the limit that it counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHold {
    pub id: KeyId,
    pub period: Period,
    /// When the day began that it counts for, in milliseconds since 1970.
    pub began: u64,
    pub limit: Option<u64>,
}

/// What one call cost, for whoever paid it. Written once, when the call has ended and something of it was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub account: AccountId,
    /// The key that asked, if one did, and when the day began that it counted for.
    pub key: Option<KeyId>,
    pub key_began: u64,
    /// The payment that paid for it, if one did, and its transaction.
    pub payment: Option<PaymentId>,
    pub tx: Option<String>,
    pub model: String,
    pub path: String,
    /// When it ended, in milliseconds since 1970.
    pub at: u64,
    /// The most it might have cost, in micros.
    pub ceiling: u64,
    /// What it cost, and the part of that which the allowance paid.
    pub charge: u64,
    pub allowance: u64,
    /// When the day of that allowance began.
    pub allowance_began: u64,
    /// What of its payment became balance.
    pub credited: u64,
    /// What was given back later, in all: of the money first, then of the allowance.
    pub refunded: u64,
    /// Whether all of the answer was served.
    pub whole: bool,
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    /// Images, seconds or characters.
    pub units: u64,
    /// Which upstream served it; empty where that was not written down.
    pub upstream: String,
    /// What that one asks the operator for it, in micros, if it is known.
    pub cost: Option<u64>,
}

/// What was delivered for a call: what it used, of whom, and what that one asks the operator for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub usage: Usage,
    /// The name of the upstream; empty where nobody knows it any more.
    pub upstream: String,
    /// `None` where it is not known, which is no cost of nothing.
    pub cost: Option<Micros>,
}

impl From<Usage> for Service {
    /// By nobody knows whom.
    fn from(usage: Usage) -> Service {
        Service { usage, ..Service::default() }
    }
}

impl Receipt {
    /// What was taken of a balance or a payment.
    pub fn paid(&self) -> u64 {
        self.charge.saturating_sub(self.allowance)
    }

    /// What of that was given back.
    pub fn money_back(&self) -> u64 {
        self.refunded.min(self.paid())
    }

    /// What was given back of the allowance.
    pub fn allowance_back(&self) -> u64 {
        self.refunded.saturating_sub(self.paid())
    }
}

/// Money per day that the operator grants a wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Micros for each UTC day.
    pub per_day: u64,
    /// From when and until when, in milliseconds since 1970.
    pub from: Option<u64>,
    pub until: Option<u64>,
    pub note: String,
}

impl Grant {
    /// What it gives on the day of `at`.
    pub fn of(&self, at: Timestamp) -> Micros {
        let begun = self.from.is_none_or(|from| from <= at.millis());
        let over = self.until.is_some_and(|until| until <= at.millis());
        if begun && !over { Micros::new(self.per_day) } else { Micros::ZERO }
    }
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
    /// What ties the bytes to their chain's course, in the chain's own terms.
    #[serde(alias = "gas_nonce")]
    pub bound_to: u64,
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
    /// Whose it is: who signed it, or of a payout the wallet that it goes to.
    #[serde(with = "account_hex")]
    pub payer: AccountId,
    pub amount: u64,
    /// The call it pays for, or the request that brought it as a top-up.
    pub request: u128,
    /// It pays for no call: all of it is balance of its payer as soon as the chain has confirmed it.
    #[serde(default)]
    pub top_up: bool,
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
    /// The id of the payout that it carries: then it goes from us to the wallet, and takes of its balance instead of adding to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout: Option<String>,
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

    /// What is left of it to compare with its postings: numbers, and who paid.
    pub fn without_text(self) -> Payment {
        Payment {
            network: String::new(),
            asset: String::new(),
            route: String::new(),
            detail: Bytes::default(),
            attempts: Vec::new(),
            confirmed: None,
            reason: None,
            ..self
        }
    }

    pub fn external(&self) -> Account {
        Account::External(format!("{}/{}", self.network, self.asset))
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
            Account::External("eip155:1/0xabc".into()),
            Account::Transit,
            Account::Sales,
            Account::BadDebt,
            Account::Adjustments,
            Account::Outgoing,
        ] {
            assert_eq!(Account::from_key(&account.to_key()), Some(account));
        }
        assert_eq!(Account::from_key(b""), None);
        assert_eq!(Account::from_key(b"Wshort"), None);
    }

    #[test]
    fn a_transfer_survives_its_bytes_and_a_changed_byte_breaks_its_hash() {
        let mut transfer = Transfer {
            debit: Account::Wallet(AccountId::Evm([3; 20])),
            credit: Account::Sales,
            amount: Micros::new(5),
            kind: Kind::Charge,
            reference: Reference::Request(RequestId(77)),
            at: Timestamp::from_millis(9),
            line: None,
            hash: [0; 8],
        };
        for line in [None, Some(Line { after: 7, previous: None }), Some(Line { after: -1, previous: Some(3) })] {
            transfer.line = line;
            transfer.hash = transfer.chained([1; 8]);
            let read = Transfer::from_bytes(&transfer.to_bytes()).unwrap();
            assert_eq!(read, transfer);
            let other = Some(Line { after: 8, previous: Some(0) });
            for forged in [Transfer { amount: Micros::new(4), ..read.clone() }, Transfer { line: other, ..read }] {
                assert_ne!(forged.chained([1; 8]), forged.hash);
            }
        }
    }
}
