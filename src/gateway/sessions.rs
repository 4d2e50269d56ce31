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
/// Sessions of all. A further one ends the oldest of a wallet that nobody knows: signing in is free, so somebody may try to
/// fill this, and must not end the sessions of those who keep money here.
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

#[derive(Clone, Copy)]
struct Session {
    account: AccountId,
    expires_at: Timestamp,
    /// Whether the wallet had ever had money here when it signed in.
    known: bool,
}

/// Each session stands in all three.
#[derive(Default)]
struct Shelf {
    by_token: HashMap<Hash, Session>,
    /// Those of wallets that nobody knows, and those of known ones.
    by_end: [BTreeSet<(Timestamp, Hash)>; 2],
    by_account: BTreeSet<(AccountId, Timestamp, Hash)>,
}

impl Sessions {
    /// Opens a session for a wallet that has signed in; `known` says whether it ever had money here. `random` must be fresh; the
    /// caller at the edge draws it. `None` when there is no room for a stranger.
    pub fn open(&self, account: AccountId, known: bool, random: [u8; 32], now: Timestamp) -> Option<Opened> {
        let random = Zeroizing::new(random);
        // As long as it gets, so that no part of it stays behind in memory that was given back.
        let mut token = Zeroizing::new(String::with_capacity(LENGTH));
        token.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(*random, &mut token);
        let expires_at = now.plus(LIFE);
        let added = self.shelf().add(Session { account, expires_at, known }, hash(&token), now);
        added.then_some(Opened { token, expires_at })
    }

    /// The account that a token speaks for.
    pub fn find(&self, token: &str, now: Timestamp) -> Option<AccountId> {
        let hash = well_formed(token)?;
        let session = self.shelf().by_token.get(&hash).copied()?;
        (now < session.expires_at).then_some(session.account)
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
    fn add(&mut self, session: Session, hash: Hash, now: Timestamp) -> bool {
        let Session { account, expires_at, known } = session;
        while let Some((_, over)) = self.by_end.iter().filter_map(BTreeSet::first).copied().find(|(end, _)| *end <= now) {
            self.remove(over);
        }
        let own = (account, Timestamp::default(), [0; 32])..=(account, Timestamp::from_millis(u64::MAX), [u8::MAX; 32]);
        while self.by_account.range(own.clone()).count() >= OF_ONE_ACCOUNT {
            let Some((_, _, oldest)) = self.by_account.range(own.clone()).next().copied() else { break };
            self.remove(oldest);
        }
        while self.by_token.len() >= OF_ALL {
            let [strangers, others] = &self.by_end;
            let oldest = strangers.first().or_else(|| others.first().filter(|_| known)).copied();
            let Some((_, oldest)) = oldest else { return false };
            self.remove(oldest);
        }
        self.by_token.insert(hash, session);
        self.ends(known).insert((expires_at, hash));
        self.by_account.insert((account, expires_at, hash));
        true
    }

    fn remove(&mut self, hash: Hash) -> bool {
        let Some(Session { account, expires_at, known }) = self.by_token.remove(&hash) else { return false };
        self.ends(known).remove(&(expires_at, hash));
        self.by_account.remove(&(account, expires_at, hash));
        true
    }

    fn ends(&mut self, known: bool) -> &mut BTreeSet<(Timestamp, Hash)> {
        let [strangers, others] = &mut self.by_end;
        if known { others } else { strangers }
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
        let opened = sessions.open(account(1), true, random(1), NOW).unwrap();
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
        let other = sessions.open(account(2), false, random(1000), NOW).unwrap();
        let later = |number: usize| NOW.plus(Duration::from_secs(u64::try_from(number).unwrap()));
        let opened: Vec<_> = (0..OF_ONE_ACCOUNT + 1)
            .map(|number| sessions.open(account(1), true, random(number), later(number)).unwrap())
            .collect();
        let lives = |opened: &Opened| sessions.find(opened.reveal(), later(100)).is_some();
        assert!(!lives(&opened[0]) && opened[1..].iter().all(lives));
        assert!(lives(&other));
    }

    fn sizes(sessions: &Sessions) -> [usize; 3] {
        let shelf = sessions.shelf();
        [shelf.by_token.len(), shelf.by_end.iter().map(BTreeSet::len).sum(), shelf.by_account.len()]
    }

    #[test]
    fn nobody_fills_the_memory_with_sessions_nor_ends_those_of_wallets_with_money() {
        let sessions = Sessions::default();
        let honest = sessions.open(account(1_000_000), true, random(1_000_000), NOW).unwrap();
        let first = sessions.open(account(0), false, random(0), NOW).unwrap();
        let later = NOW.plus(Duration::from_secs(1));
        for number in 1..OF_ALL + 5 {
            assert!(sessions.open(account(number), false, random(number), later).is_some(), "the oldest stranger goes");
        }
        assert_eq!(sizes(&sessions), [OF_ALL; 3]);
        assert_eq!(sessions.find(first.reveal(), later), None);
        assert_eq!(sessions.find(honest.reveal(), later), Some(account(1_000_000)), "it is the oldest, and known");
        for number in 0..OF_ALL - 1 {
            assert!(sessions.open(account(number), true, random(number + OF_ALL * 2), later).is_some());
        }
        assert_eq!(sizes(&sessions), [OF_ALL; 3], "strangers made room");
        assert!(sessions.open(account(7), false, random(9), later).is_none(), "no room for a stranger among them");
        assert!(sessions.find(honest.reveal(), later).is_some());
        let after = later.plus(LIFE);
        assert!(sessions.open(account(1), false, random(1), after).is_some());
        assert_eq!(sizes(&sessions), [1; 3], "what is over is forgotten");
    }

    #[test]
    fn a_session_is_not_shown() {
        let sessions = Sessions::default();
        let opened = sessions.open(account(1), true, random(1), NOW).unwrap();
        assert!(!format!("{opened:?}{sessions:?}").contains(opened.reveal()));
    }
}
