//! Keys as their owners have them: minted and shown once, listed, changed, revoked, given a new secret; each change is durable
//! before it is answered.

mod wish;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::settle::ledger_unavailable;
use crate::account::AccountId;
use crate::catalogue::Catalogue;
use crate::clock::{Clock, Day, Period, Timestamp};
use crate::config::Config;
use crate::error::{Code, Error};
use crate::ids::KeyId;
use crate::keys::{Broken, Keys, PlainKey, Previous, Record};
use crate::ledger::{Denied, Ledger};
use crate::money::Micros;

pub use wish::{Amendment, Change, Rotation, Terms, Wish};

/// For each key that an account may have, so many that it has revoked may stand in the index beside them: else somebody
/// could fill the disk by minting and revoking.
const REVOKED_FOR_EACH: usize = 20;
/// How often a key may be changed or rotated on one day (UTC): each change stays in the journal for ever, and every start
/// reads it: 100,000 of them in less than half a second.
const CHANGES_A_DAY: u32 = 100;
/// Revoked keys that a list shows, the newest.
const REVOKED_SHOWN: usize = 100;

/// Whose keys a caller may see and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The keys of this account; it does not hear whether others exist.
    Of(AccountId),
    /// All: the operator's own hand.
    Anybodys,
}

/// Randomness for one new secret, drawn at the edge.
pub struct Fresh {
    pub id: [u8; 16],
    pub secret: [u8; 32],
}

/// A secret that exists since this moment, for the one answer that shows it.
pub struct Minted {
    key: PlainKey,
    facts: Value,
}

impl Minted {
    /// What is known of the key, and the key.
    pub fn reveal(self) -> Value {
        let mut facts = self.facts;
        facts["key"] = self.key.reveal().into();
        facts
    }
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Minted")
    }
}

/// All that is needed to change keys; clones share it. Its functions read and write the disk: call them where blocking is
/// fine, and where a caller who leaves does not cancel them.
#[derive(Clone)]
pub struct Keyring {
    pub ledger: Ledger,
    pub clock: Clock,
    keys: Arc<Keys>,
    catalogue: Arc<Catalogue>,
    /// Keys that an account may have, revoked ones not counted.
    most: usize,
    today: Arc<Mutex<Today>>,
}

/// How often each key was changed today, by its owner. Kept in memory: a restart, which nobody outside can have, forgets it.
#[derive(Default)]
struct Today {
    day: Day,
    changes: HashMap<KeyId, u32>,
}

/// Why a change did not happen.
enum Failed {
    Refused(Error),
    /// There is nothing to change: the key is like this already.
    Same(Box<Record>),
    Broken(Broken),
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Self {
        Failed::Broken(broken)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Refused(error)
    }
}

/// The record as it is now, changed or like that before.
fn settled(changed: Result<Record, Failed>) -> Result<Record, Error> {
    match changed {
        Ok(record) => Ok(record),
        Err(Failed::Same(record)) => Ok(*record),
        Err(Failed::Refused(error)) => Err(error),
        Err(Failed::Broken(broken)) => Err(unusable(&broken)),
    }
}

/// Keys can be neither looked up nor changed: the program is about to end, and its next start mends that.
fn unusable(broken: &Broken) -> Error {
    let message = "API keys cannot be used or changed at the moment; wait a little, and list your keys before you ask again";
    Error::new(Code::LedgerUnavailable, message).retry_after(5).because(broken.to_string())
}

fn unknown_key() -> Error {
    Error::new(Code::NotFound, "you have no key with this id; GET /api/keys lists them")
}

impl Keyring {
    /// Over books and keys that are open.
    pub fn new(config: &Config, ledger: Ledger, keys: Arc<Keys>, clock: Clock) -> Keyring {
        let catalogue = Arc::new(config.catalogue.clone());
        Keyring { ledger, clock, keys, catalogue, most: config.prepaid.keys_per_account, today: Arc::default() }
    }

    /// The same for another catalogue and other limits.
    pub(super) fn renewed(&self, config: &Config) -> Keyring {
        let catalogue = Arc::new(config.catalogue.clone());
        Keyring { catalogue, most: config.prepaid.keys_per_account, ..self.clone() }
    }

    /// What a wish comes to here and now.
    ///
    /// # Errors
    /// `invalid_request` says which field is wrong, and how it is written.
    pub fn terms(&self, wish: &Wish) -> Result<Terms, Error> {
        wish.terms(&self.catalogue, self.clock.now())
    }

    /// What a change comes to now, whichever key it is for: [`Keyring::change`] looks at its models.
    ///
    /// # Errors
    /// As [`Keyring::terms`].
    pub fn amendment(&self, change: &Change) -> Result<Amendment, Error> {
        change.amendment(self.clock.now())
    }

    /// Makes a key for an account. It is durable when this returns, and shown by what is returned, and never again.
    ///
    /// # Errors
    /// `key_limit` when the account has as many keys as it may; `ledger_unavailable`.
    pub fn mint(&self, account: AccountId, terms: Terms, fresh: Fresh) -> Result<Minted, Error> {
        let now = self.clock.now();
        let (key, seal) = self.keys.seal(fresh.secret).map_err(|broken| unusable(&broken))?;
        let minted = self.keys.change(|| -> Result<_, Failed> {
            self.check_room(account)?;
            let record = Record {
                id: KeyId(u128::from_be_bytes(fresh.id)),
                account,
                name: terms.name,
                seal,
                limit: terms.limit,
                reset: terms.reset,
                models: terms.models,
                expires_at: terms.expires_at,
                created_at: now,
                revoked_at: None,
                previous: None,
            };
            // A second one of the same name would take the place of the first.
            if self.keys.get(record.id)?.is_some() {
                return Err(Error::new(Code::Internal, "no key was made, for want of randomness; ask again").into());
            }
            self.journal(record)
        });
        let record = settled(minted)?;
        tracing::info!(key.id = %record.id, account = %account, "a key was minted");
        Ok(Minted { facts: self.facts(&record)?, key })
    }

    fn check_room(&self, account: AccountId) -> Result<(), Failed> {
        let keys = self.keys.of(account)?;
        let live = keys.iter().filter(|record| record.revoked_at.is_none()).count();
        let full = |message: String| Err(Error::new(Code::TooManyKeys, message).into());
        if live >= self.most {
            return full(format!("this account has {live} keys, as many as it may; revoke one that is not used any more"));
        }
        let revoked = keys.len() - live;
        if revoked >= self.most.saturating_mul(REVOKED_FOR_EACH) {
            let message = format!("this account has revoked {revoked} keys and can mint no more; rotate one that it has instead");
            return full(message);
        }
        Ok(())
    }

    /// The keys of an account, newest first: all that are not revoked, and the newest of those that are.
    ///
    /// # Errors
    /// `ledger_unavailable`.
    pub fn list(&self, account: AccountId) -> Result<Vec<Value>, Error> {
        let keys = self.keys.of(account).map_err(|broken| unusable(&broken))?;
        let mut revoked = 0;
        let shown = keys.iter().filter(|record| {
            revoked += usize::from(record.revoked_at.is_some());
            record.revoked_at.is_none() || revoked <= REVOKED_SHOWN
        });
        shown.map(|record| self.facts(record)).collect()
    }

    /// How many keys an account has that are not revoked.
    ///
    /// # Errors
    /// `ledger_unavailable`.
    pub fn live(&self, account: AccountId) -> Result<usize, Error> {
        let keys = self.keys.of(account).map_err(|broken| unusable(&broken))?;
        Ok(keys.iter().filter(|record| record.revoked_at.is_none()).count())
    }

    /// Changes what a key may do from the next call on. What is like that already is not written again.
    ///
    /// # Errors
    /// `not_found`; `invalid_request` for a revoked key, or for a model that is neither sold here nor among the key's;
    /// `rate_limited` after too many changes; `ledger_unavailable`.
    pub fn change(&self, whose: Whose, id: KeyId, amendment: Amendment) -> Result<Value, Error> {
        let changed = self.keys.change(|| -> Result<_, Failed> {
            let record = usable(self.known(whose, id)?)?;
            let amended = amendment.of(record.clone(), &self.catalogue)?;
            if amended == record {
                return Err(Failed::Same(Box::new(record)));
            }
            self.count_change(whose, id)?;
            let changed = self.journal(amended)?;
            tracing::info!(key.id = %id, "a key was changed");
            Ok(changed)
        });
        self.facts(&settled(changed)?)
    }

    /// Ends a key at once, and the calls that run with it. A key that is revoked stays as it is.
    ///
    /// # Errors
    /// `not_found`, `ledger_unavailable`.
    pub fn revoke(&self, whose: Whose, id: KeyId) -> Result<Value, Error> {
        // Asked for twice, it waits for no turn. A key is never revived, so this look may be as old as it likes.
        if let Some(record) = Some(self.known(whose, id)?).filter(|record| record.revoked_at.is_some()) {
            return self.facts(&record);
        }
        let now = self.clock.now();
        let revoked = self.keys.change(|| -> Result<_, Failed> {
            let record = self.known(whose, id)?;
            if record.revoked_at.is_some() {
                return Err(Failed::Same(Box::new(record)));
            }
            let revoked = self.journal(Record { revoked_at: Some(now), ..record })?;
            tracing::info!(key.id = %id, "a key was revoked");
            Ok(revoked)
        });
        self.facts(&settled(revoked)?)
    }

    /// Gives a key a new secret. The old one is taken for the time that was chosen; without such a time every older one ends.
    /// There is room for one old secret, so a rotation that is asked for twice must not end the one that is in use.
    ///
    /// # Errors
    /// `not_found`; `invalid_request` for a revoked key; `rotation_pending` while an old secret is still taken, unless there is
    /// no `grace`; `rate_limited` after too many changes; `ledger_unavailable`.
    pub fn rotate(&self, whose: Whose, id: KeyId, grace: Duration, fresh: Fresh) -> Result<Minted, Error> {
        let now = self.clock.now();
        let (key, seal) = self.keys.seal(fresh.secret).map_err(|broken| unusable(&broken))?;
        let rotated = self.keys.change(|| -> Result<_, Failed> {
            let record = usable(self.known(whose, id)?)?;
            if let Some(previous) = record.previous.as_ref().filter(|previous| previous.until > now && !grace.is_zero()) {
                return Err(pending(previous).into());
            }
            self.count_change(whose, id)?;
            let old = Previous { seal: record.seal, until: now.plus(grace) };
            self.journal(Record { seal, previous: Some(old).filter(|_| !grace.is_zero()), ..record })
        });
        let record = settled(rotated)?;
        tracing::info!(key.id = %id, grace_seconds = grace.as_secs(), "a key was given a new secret");
        Ok(Minted { facts: self.facts(&record)?, key })
    }

    /// What is known of a key, its spending included. Times are RFC 3339, money is USD.
    ///
    /// # Errors
    /// `ledger_unavailable`.
    pub fn facts(&self, record: &Record) -> Result<Value, Error> {
        let now = self.clock.now();
        let spending = self.ledger.key_spending(record.id, record.reset).map_err(|denied| stopped(&denied))?;
        let usd = |micros| Micros::new(micros).as_usd();
        let previous = record.previous.as_ref().filter(|previous| previous.until > now);
        Ok(json!({
            "id": record.id,
            "account": record.account.to_string(),
            "name": record.name,
            "last4": record.seal.last4,
            "state": state(record, now),
            "spend_limit_usd": record.limit.map(Micros::as_usd),
            "reset": record.reset,
            "spent_usd": usd(spending.spent),
            "held_usd": usd(spending.held),
            "left_usd": record.limit.map(|limit| usd(spending.left(limit.get()))),
            "models": record.models,
            "created_at": record.created_at.to_rfc3339(),
            "expires_at": record.expires_at.map(Timestamp::to_rfc3339),
            "revoked_at": record.revoked_at.map(Timestamp::to_rfc3339),
            "previous": previous.map(|old| json!({ "last4": old.seal.last4, "valid_until": old.until.to_rfc3339() })),
        }))
    }

    /// Takes one of the changes that an owner may make of a key today. The operator's own are not counted.
    fn count_change(&self, whose: Whose, id: KeyId) -> Result<(), Error> {
        if whose == Whose::Anybodys {
            return Ok(());
        }
        let now = self.clock.now();
        // Nothing that can panic is done under the lock.
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        if today.day != now.day() {
            *today = Today { day: now.day(), changes: HashMap::new() };
        }
        let changes = today.changes.entry(id).or_default();
        if *changes >= CHANGES_A_DAY {
            let message = format!(
                "this key was changed {CHANGES_A_DAY} times today, which is the most; it can be changed again after midnight (UTC), \
                 and revoked at any time"
            );
            let wait = Period::Day.renews(now).map_or(u64::MAX, |midnight| midnight.secs().saturating_sub(now.secs()));
            return Err(Error::new(Code::RateLimited, message).retry_after(u32::try_from(wait).unwrap_or(u32::MAX).max(1)));
        }
        *changes += 1;
        Ok(())
    }

    /// The key with this name, if the caller may know of it.
    fn known(&self, whose: Whose, id: KeyId) -> Result<Record, Error> {
        let record = self.keys.get(id).map_err(|broken| unusable(&broken))?;
        let theirs = |record: &Record| whose == Whose::Anybodys || whose == Whose::Of(record.account);
        record.filter(theirs).ok_or_else(unknown_key)
    }

    /// Makes a record durable in the journal: from then on it is true, whatever becomes of the index.
    fn journal(&self, record: Record) -> Result<(u64, Record), Failed> {
        let (number, durable) = self.ledger.journal_key(record.to_bytes()).map_err(|denied| stopped(&denied))?;
        durable.wait_blocking().map_err(|why| ledger_unavailable(&why.to_string()))?;
        Ok((number, record))
    }
}

fn stopped(denied: &Denied) -> Error {
    ledger_unavailable(&denied.to_string())
}

fn pending(previous: &Previous) -> Error {
    let until = previous.until.to_rfc3339();
    let message = format!(
        "this key was rotated before, and its old secret …{} is taken until {until}; rotate it again after that, or with \
         grace_seconds 0, which ends every older secret at once",
        previous.seal.last4
    );
    Error::new(Code::RotationPending, message).detail("valid_until", until)
}

fn usable(record: Record) -> Result<Record, Error> {
    match record.revoked_at {
        None => Ok(record),
        Some(_) => Err(Error::new(Code::InvalidRequest, "this key is revoked and stays so; mint a new one")),
    }
}

fn state(record: &Record, now: Timestamp) -> &'static str {
    match (record.revoked_at, record.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now => "expired",
        (None, _) => "active",
    }
}
