//! What is kept of an API key: whose it is, what it may do, and the MAC by which its secret is recognised.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::account::AccountId;
use crate::clock::{Period, Timestamp};
use crate::ids::KeyId;
use crate::money::Micros;

/// The form in which records are written. One of a newer form is not read.
const FORM: u8 = 1;

/// HMAC-SHA256 of a whole key under the pepper.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub(super) [u8; 32]);

impl fmt::Debug for Mac {
    /// Blind: with the pepper, a MAC is what a guess is tried against.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac")
    }
}

/// Eight bytes by which a pepper is told from another; they say nothing about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(pub [u8; 8]);

/// What is kept of the secret of a key. Only `Keys::seal` makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Seal {
    pub(super) mac: Mac,
    /// The last four characters, for people to tell their keys apart.
    pub last4: String,
    /// The pepper that the MAC was made under.
    pub(super) pepper: Fingerprint,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal(…{})", self.last4)
    }
}

/// The secret that a key had before its rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    pub seal: Seal,
    /// From then on it is not taken any more.
    pub until: Timestamp,
}

/// One API key. Its journal is a list of these, each the whole of what is true from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: KeyId,
    /// Whose money it spends.
    pub account: AccountId,
    pub name: String,
    pub seal: Seal,
    /// The most it may spend in each period, allowance included.
    pub limit: Option<Micros>,
    pub reset: Period,
    /// The models it may use; empty for all of them.
    pub models: Vec<String>,
    /// From then on it is not taken any more.
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub previous: Option<Previous>,
}

/// A record that nobody wrote like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record of a key cannot be read: {0}")]
pub struct Unreadable(String);

impl Record {
    /// The form for the journal and the index. The same record has the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&Stored::from(self)).expect("string keys and no failing serializers")
    }

    /// Reads what [`Record::to_bytes`] wrote.
    ///
    /// # Errors
    /// It did not write this, or a newer program did.
    pub fn from_bytes(bytes: &[u8]) -> Result<Record, Unreadable> {
        // Without the text of the error, which may quote what it read.
        let form: Form = serde_json::from_slice(bytes).map_err(|_| Unreadable("it is damaged".into()))?;
        if form.form != FORM {
            return Err(Unreadable(format!("it has form {} and this program reads form {FORM}", form.form)));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| Unreadable("it is damaged".into()))?;
        stored.record().ok_or_else(|| Unreadable("it is damaged".into()))
    }

    /// Its secrets: the one of today, and the one before it, which is another one.
    pub(super) fn seals(&self) -> impl Iterator<Item = &Seal> {
        let previous = self.previous.as_ref().map(|previous| &previous.seal);
        std::iter::once(&self.seal).chain(previous.filter(|previous| previous.mac != self.seal.mac))
    }

    /// Whether one of its secrets has this MAC.
    pub(super) fn has(&self, mac: &Mac) -> bool {
        self.seals().any(|seal| seal.mac == *mac)
    }
}

#[derive(Deserialize)]
struct Form {
    form: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSeal {
    mac: String,
    last4: String,
    pepper: String,
}

impl StoredSeal {
    fn from(seal: &Seal) -> StoredSeal {
        StoredSeal { mac: encode(&seal.mac.0), last4: seal.last4.clone(), pepper: encode(&seal.pepper.0) }
    }

    fn seal(self) -> Option<Seal> {
        Some(Seal { mac: Mac(decode(&self.mac)?), last4: self.last4, pepper: Fingerprint(decode(&self.pepper)?) })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPrevious {
    seal: StoredSeal,
    until: u64,
}

/// A record as JSON: times in milliseconds, money in millionths of a USDC, bytes in base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    form: u8,
    id: String,
    account: String,
    name: String,
    seal: StoredSeal,
    limit: Option<u64>,
    reset: Period,
    models: Vec<String>,
    expires_at: Option<u64>,
    created_at: u64,
    revoked_at: Option<u64>,
    previous: Option<StoredPrevious>,
}

impl From<&Record> for Stored {
    fn from(record: &Record) -> Stored {
        let previous = record.previous.as_ref();
        Stored {
            form: FORM,
            id: record.id.to_string(),
            account: encode(&record.account.to_bytes()),
            name: record.name.clone(),
            seal: StoredSeal::from(&record.seal),
            limit: record.limit.map(Micros::get),
            reset: record.reset,
            models: record.models.clone(),
            expires_at: record.expires_at.map(Timestamp::millis),
            created_at: record.created_at.millis(),
            revoked_at: record.revoked_at.map(Timestamp::millis),
            previous: previous
                .map(|previous| StoredPrevious { seal: StoredSeal::from(&previous.seal), until: previous.until.millis() }),
        }
    }
}

impl Stored {
    fn record(self) -> Option<Record> {
        let previous = match self.previous {
            Some(StoredPrevious { seal, until }) => Some(Previous { seal: seal.seal()?, until: Timestamp::from_millis(until) }),
            None => None,
        };
        Some(Record {
            id: KeyId::parse(&self.id)?,
            account: AccountId::from_bytes(&decode(&self.account)?)?,
            name: self.name,
            seal: self.seal.seal()?,
            limit: self.limit.map(Micros::new),
            reset: self.reset,
            models: self.models,
            expires_at: self.expires_at.map(Timestamp::from_millis),
            created_at: Timestamp::from_millis(self.created_at),
            revoked_at: self.revoked_at.map(Timestamp::from_millis),
            previous,
        })
    }
}

fn encode(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(byte: u8) -> Seal {
        Seal { mac: Mac([byte; 32]), last4: "ab_-".into(), pepper: Fingerprint([7; 8]) }
    }

    fn record() -> Record {
        Record {
            id: KeyId(5),
            account: AccountId::Solana([9; 32]),
            name: "Zoë's \"agent\"\n".into(),
            seal: seal(1),
            limit: Some(Micros::new(u64::MAX)),
            reset: Period::Week,
            models: vec!["claude-sonnet-4-6".into(), "m".into()],
            expires_at: Some(Timestamp::from_millis(3)),
            created_at: Timestamp::from_millis(1),
            revoked_at: Some(Timestamp::from_millis(2)),
            previous: Some(Previous { seal: seal(2), until: Timestamp::from_millis(u64::MAX) }),
        }
    }

    #[test]
    fn a_record_survives_its_bytes() {
        let full = record();
        let bare = Record { limit: None, expires_at: None, revoked_at: None, previous: None, models: vec![], ..full.clone() };
        for record in [full, bare] {
            assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
        }
    }

    #[test]
    fn a_record_that_is_cut_changed_or_newer_is_refused() {
        let bytes = record().to_bytes();
        let text = String::from_utf8(bytes.clone()).unwrap();
        for cut in 0..bytes.len() {
            assert!(Record::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for (from, to) in [("\"form\":1", "\"form\":2"), ("\"name\"", "\"nome\""), ("key_", "kez_"), ("\"week\"", "\"year\"")] {
            assert!(text.contains(from));
            assert!(Record::from_bytes(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
        let newer = Record::from_bytes(br#"{"form":2,"shape":"round"}"#).unwrap_err();
        assert!(newer.to_string().contains("form 2"), "{newer}");
    }

    #[test]
    fn a_record_says_nothing_of_its_macs() {
        let shown = format!("{:?}", record());
        assert!(shown.contains("Seal(…ab_-)") && !shown.contains("1, 1, 1"), "{shown}");
    }
}
