//! Keys in use: found without the index, never staler than the last change, and told when their secret has ended.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use tokio::sync::watch;

use super::Broken;
use super::record::{Mac, Record};
use crate::clock::Timestamp;

/// Secrets that are kept in memory. A larger shop looks the others up in the index.
const KEPT: usize = 10_000;

/// So many are forgotten at once when there is no room.
const FORGOTTEN_AT_ONCE: usize = KEPT / 4;

/// Why a secret does not speak for its wallet any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody revoked the key.
    Revoked,
    /// The time that the key was given is over.
    Expired,
    /// The key has a new secret, and the time that the old one was given is over.
    Replaced,
}

/// What one secret stands for. Whoever serves a call holds one for as long as the call runs.
pub struct Key {
    /// As it was when the key was looked up; a later change shows at the next look-up.
    pub record: Record,
    mac: Mac,
    end: Arc<End>,
}

/// Why a secret has ended, once it has, unless by the clock. All calls with one secret share it, also when they hold records of different
/// age, so that each of them hears.
struct End(watch::Sender<Option<Ended>>);

impl Key {
    /// Why it does not speak for its wallet at `now`; `None` when it does.
    pub fn ended(&self, now: Timestamp) -> Option<Ended> {
        let record = &self.record;
        let replaced = record.previous.as_ref().filter(|previous| previous.seal.mac == self.mac);
        if record.revoked_at.is_some() {
            return Some(Ended::Revoked);
        }
        if let Some(ended) = *self.end.0.borrow() {
            return Some(ended);
        }
        if record.expires_at.is_some_and(|at| at <= now) {
            return Some(Ended::Expired);
        }
        replaced.filter(|previous| previous.until <= now).map(|_| Ended::Replaced)
    }

    /// Resolves when the key is revoked, or this secret of it is dropped by a rotation; at once if it was. It does not watch
    /// the clock: a secret whose time ends while a call runs ends that call no sooner.
    pub async fn until_revoked(&self) {
        // The sender lives as long as we do.
        let _ = self.end.0.subscribe().wait_for(Option::is_some).await;
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.record.id)
    }
}

#[derive(Default)]
pub(super) struct Cache {
    shelf: RwLock<Shelf>,
}

#[derive(Default)]
struct Shelf {
    keys: HashMap<Mac, Arc<Key>>,
    /// The ends of all secrets that anybody holds, also of those that were forgotten above.
    ends: HashMap<Mac, Weak<End>>,
    /// How many changes there were, so that nothing is kept that was read before one and arrives after it.
    changes: u64,
}

impl Cache {
    /// The key with this MAC, from memory or by `read`. What is not found is not remembered.
    pub fn find(&self, mac: Mac, read: impl Fn() -> Result<Option<Record>, Broken>) -> Result<Option<Arc<Key>>, Broken> {
        loop {
            let changes = {
                let shelf = self.reading();
                if let Some(key) = shelf.keys.get(&mac) {
                    return Ok(Some(Arc::clone(key)));
                }
                shelf.changes
            };
            let Some(record) = read()? else { return Ok(None) };
            if let Some(key) = self.writing().keep(mac, record, changes) {
                return Ok(Some(key));
            }
        }
    }

    /// Forgets what a change has made stale, and tells whoever holds a secret that it has ended.
    pub fn changed(&self, before: Option<&Record>, now: &Record) {
        let mut shelf = self.writing();
        shelf.changes += 1;
        for seal in before.into_iter().chain([now]).flat_map(Record::seals) {
            shelf.keys.remove(&seal.mac);
            let ended = match now.revoked_at {
                Some(_) => Ended::Revoked,
                None if !now.has(&seal.mac) => Ended::Replaced,
                None => continue,
            };
            if let Some(end) = shelf.ends.remove(&seal.mac).and_then(|end| end.upgrade()) {
                end.0.send_replace(Some(ended));
            }
        }
    }

    /// Forgets everything; nobody is told that anything has ended.
    pub fn clear(&self) {
        let mut shelf = self.writing();
        shelf.changes += 1;
        shelf.keys.clear();
    }

    // Nothing that can panic is done under the lock, and a shelf is right between any two of its steps.
    fn reading(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Keeps a record that was read when there were `changes`; `None` when there was one since.
    fn keep(&mut self, mac: Mac, record: Record, changes: u64) -> Option<Arc<Key>> {
        if self.changes != changes {
            return None;
        }
        if let Some(key) = self.keys.get(&mac) {
            // Somebody else has read the same.
            return Some(Arc::clone(key));
        }
        if self.keys.len() >= KEPT {
            self.forget();
        }
        let held = self.ends.get(&mac).and_then(Weak::upgrade);
        let end = held.unwrap_or_else(|| Arc::new(End(watch::Sender::new(None))));
        self.ends.insert(mac, Arc::downgrade(&end));
        let key = Arc::new(Key { record, mac, end });
        self.keys.insert(mac, Arc::clone(&key));
        Some(key)
    }

    /// Makes room: any will do. Ends stay for as long as somebody holds them.
    fn forget(&mut self) {
        let mut left = FORGOTTEN_AT_ONCE;
        self.keys.retain(|_, _| {
            let forgotten = left > 0;
            left = left.saturating_sub(1);
            !forgotten
        });
        self.ends.retain(|_, end| end.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::record::{Fingerprint, Seal};
    use super::*;
    use crate::account::AccountId;
    use crate::clock::Period;
    use crate::ids::KeyId;

    const MAC: Mac = Mac([1; 32]);

    fn record() -> Record {
        Record {
            id: KeyId(1),
            account: AccountId::Evm([1; 20]),
            name: String::new(),
            seal: Seal { mac: MAC, last4: String::new(), pepper: Fingerprint([0; 8]) },
            limit: None,
            reset: Period::Ever,
            models: Vec::new(),
            expires_at: None,
            created_at: Timestamp::default(),
            revoked_at: None,
            previous: None,
        }
    }

    #[test]
    fn what_was_read_before_a_change_and_arrives_after_it_is_read_again() {
        let cache = Cache::default();
        let revoked = Record { revoked_at: Some(Timestamp::default()), ..record() };
        let index = RefCell::new(record());
        let read = || {
            // The first read is slow: while its answer is on its way, the key is revoked.
            let found = index.replace(revoked.clone());
            if found.revoked_at.is_none() {
                cache.changed(Some(&found), &revoked);
            }
            Ok(Some(found))
        };
        let found = cache.find(MAC, read).unwrap().unwrap();
        assert_eq!(found.ended(Timestamp::default()), Some(Ended::Revoked));
        let again = cache.find(MAC, || unreachable!("it is kept in memory")).unwrap().unwrap();
        assert!(Arc::ptr_eq(&found, &again));
    }

    #[test]
    fn what_is_not_found_is_not_kept() {
        let cache = Cache::default();
        assert!(cache.find(MAC, || Ok(None)).unwrap().is_none());
        assert!(cache.find(MAC, || Ok(Some(record()))).unwrap().is_some(), "it was minted since");
        assert!(cache.find(Mac([2; 32]), || Err(Broken::new("read", "sled panicked"))).is_err());
    }
}
