//! Sessions of the dashboard: a wallet signs in once and holds a token for half a day; kept in memory only, as hashes.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::account::AccountId;
use crate::clock::Timestamp;

/// How long a session lasts, whatever is done with it.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions of one account; a further one ends its oldest.
const OF_ONE_ACCOUNT: usize = 16;
/// Sessions of all; a further one ends the oldest. Signing in is free, so somebody may try to fill this.
const OF_ALL: usize = 50_000;
/// What a token begins with, so that it is told from a key.
const PREFIX: &str = "session-";
/// The prefix and 32 bytes in base64 without padding.
const LENGTH: usize = PREFIX.len() + 43;

type Hash = [u8; 32];

/// The sessions that are open.
#[derive(Default)]
pub struct Sessions {
    shelf: Mutex<Shelf>,
}

/// A session that was just opened. Its token is shown by this one answer and kept nowhere.
pub struct Opened {
    token: Zeroizing<String>,
    pub expires_at: Timestamp,
}

impl Opened {
    pub fn reveal(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}

/// Each session stands in all three.
#[derive(Default)]
struct Shelf {
    by_token: HashMap<Hash, (AccountId, Timestamp)>,
    by_end: BTreeSet<(Timestamp, Hash)>,
    by_account: BTreeSet<(AccountId, Timestamp, Hash)>,
}

impl Sessions {
    /// Opens a session for a wallet that has signed in. `random` must be fresh; the caller at the edge draws it.
    pub fn open(&self, account: AccountId, random: [u8; 32], now: Timestamp) -> Opened {
        let random = Zeroizing::new(random);
        // As long as it gets, so that no part of it stays behind in memory that was given back.
        let mut token = Zeroizing::new(String::with_capacity(LENGTH));
        token.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(*random, &mut token);
        let expires_at = now.plus(LIFE);
        self.shelf().add(account, expires_at, hash(&token), now);
        Opened { token, expires_at }
    }

    /// The account that a token speaks for.
    pub fn find(&self, token: &str, now: Timestamp) -> Option<AccountId> {
        let hash = well_formed(token)?;
        let (account, expires_at) = self.shelf().by_token.get(&hash).copied()?;
        (now < expires_at).then_some(account)
    }

    /// Ends a session; false when there is none.
    pub fn close(&self, token: &str) -> bool {
        well_formed(token).is_some_and(|hash| self.shelf().remove(hash))
    }

    // Nothing that can panic is done under the lock.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

/// The hash of what can be a token; length first, so that nothing long is worked on.
fn well_formed(token: &str) -> Option<Hash> {
    (token.len() == LENGTH && token.starts_with(PREFIX)).then(|| hash(token))
}

fn hash(token: &str) -> Hash {
    Sha256::digest(token).into()
}

impl Shelf {
    fn add(&mut self, account: AccountId, expires_at: Timestamp, hash: Hash, now: Timestamp) {
        while let Some((_, over)) = self.by_end.first().copied().filter(|(end, _)| *end <= now) {
            self.remove(over);
        }
        let own = (account, Timestamp::default(), [0; 32])..=(account, Timestamp::from_millis(u64::MAX), [u8::MAX; 32]);
        while self.by_account.range(own.clone()).count() >= OF_ONE_ACCOUNT {
            let Some((_, _, oldest)) = self.by_account.range(own.clone()).next().copied() else { break };
            self.remove(oldest);
        }
        while self.by_token.len() >= OF_ALL {
            let Some((_, oldest)) = self.by_end.first().copied() else { break };
            self.remove(oldest);
        }
        self.by_token.insert(hash, (account, expires_at));
        self.by_end.insert((expires_at, hash));
        self.by_account.insert((account, expires_at, hash));
    }

    fn remove(&mut self, hash: Hash) -> bool {
        let Some((account, expires_at)) = self.by_token.remove(&hash) else { return false };
        self.by_end.remove(&(expires_at, hash));
        self.by_account.remove(&(account, expires_at, hash));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn account(number: usize) -> AccountId {
        let mut address = [0; 20];
        address[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        AccountId::Evm(address)
    }

    fn random(number: usize) -> [u8; 32] {
        let mut random = [7; 32];
        random[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        random
    }

    #[test]
    fn a_token_speaks_for_its_wallet_until_its_end() {
        let sessions = Sessions::default();
        let opened = sessions.open(account(1), random(1), NOW);
        let token = opened.reveal();
        assert_eq!(opened.expires_at, NOW.plus(LIFE));
        assert_eq!(sessions.find(token, NOW), Some(account(1)));
        assert_eq!(sessions.find(token, Timestamp::from_millis(opened.expires_at.millis() - 1)), Some(account(1)));
        assert_eq!(sessions.find(token, opened.expires_at), None, "its time is over");
        let changed = format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
        for other in ["", "session-", &changed, &token.to_uppercase(), &format!("{token}A"), &token[8..]] {
            assert_eq!(sessions.find(other, NOW), None, "{other}");
            assert!(!sessions.close(other), "{other}");
        }
        assert!(sessions.close(token), "it can be ended");
        assert!(!sessions.close(token), "once");
        assert_eq!(sessions.find(token, NOW), None);
    }

    #[test]
    fn a_further_session_ends_the_oldest_of_its_own_account_alone() {
        let sessions = Sessions::default();
        let other = sessions.open(account(2), random(1000), NOW);
        let later = |number: usize| NOW.plus(Duration::from_secs(u64::try_from(number).unwrap()));
        let opened: Vec<_> =
            (0..OF_ONE_ACCOUNT + 1).map(|number| sessions.open(account(1), random(number), later(number))).collect();
        let lives = |opened: &Opened| sessions.find(opened.reveal(), later(100)).is_some();
        assert!(!lives(&opened[0]) && opened[1..].iter().all(lives));
        assert!(lives(&other));
    }

    #[test]
    fn nobody_fills_the_memory_with_sessions() {
        let sessions = Sessions::default();
        for number in 0..OF_ALL + 5 {
            sessions.open(account(number), random(number), NOW);
        }
        let shelf = sessions.shelf();
        assert_eq!([shelf.by_token.len(), shelf.by_end.len(), shelf.by_account.len()], [OF_ALL; 3]);
        drop(shelf);
        let after = NOW.plus(LIFE);
        sessions.open(account(1), random(1), after);
        let shelf = sessions.shelf();
        assert_eq!([shelf.by_token.len(), shelf.by_end.len(), shelf.by_account.len()], [1; 3], "what is over is forgotten");
    }

    #[test]
    fn a_session_is_not_shown() {
        let sessions = Sessions::default();
        let opened = sessions.open(account(1), random(1), NOW);
        assert!(!format!("{opened:?}{sessions:?}").contains(opened.reveal()));
    }
}
