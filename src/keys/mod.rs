//! API keys: each speaks for a wallet, is known by a MAC under the operator's pepper, and is found in microseconds.
//!
//! The truth about keys is the ledger's journal, in which every change stands before it has any effect. What is kept here
//! is an index of it in sled, which a start compares with the journal row by row, brings up to date, or makes anew:
//! sled may lose or break whatever it likes. Between the index and the callers stands a small cache; a change reaches it
//! before the change is answered, and whoever holds a secret that has ended hears of it at once.
//!
//! * `record`: what is kept of a key, and how it is written down
//! * `pepper`: the secret under which keys are known, and the making of a key
//! * `history`: what the journal says about every key
//! * `store`: the rows in sled
//! * `place`: the files, made beside their place and moved there when they are whole
//! * `cache`: keys in use, and the word that they have ended

mod cache;
mod history;
mod pepper;
mod place;
mod record;
mod store;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::fault;
use crate::ids::KeyId;

pub use cache::{Ended, Key};
pub use pepper::PlainKey;
pub use record::{Mac, Previous, Record, Seal, Unreadable};

use cache::Cache;
use history::History;
use pepper::Pepper;
use store::Store;

/// The name of the index in the data folder.
pub const FOLDER: &str = "keys";

/// The name of the pepper in the data folder.
pub const PEPPER: &str = "keys.pepper";

/// The index or the pepper cannot be used: in which step, why, and what helps.
#[derive(Debug, Clone, thiserror::Error)]
#[error("keys, {step}: {cause}")]
pub struct Broken {
    pub step: &'static str,
    pub cause: String,
    pub remedy: Remedy,
}

/// What helps against keys that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The disk failed; the next start makes the index anew from the journal.
    StartAgain,
    /// Something around the keys has to be changed first, and the cause says what.
    Change,
    /// The journal itself is not what it must be: somebody has to look.
    Examine,
}

impl Broken {
    fn new(step: &'static str, cause: impl ToString) -> Self {
        Broken { step, cause: cause.to_string(), remedy: Remedy::StartAgain }
    }

    fn change(step: &'static str, cause: impl ToString) -> Self {
        Broken { remedy: Remedy::Change, ..Broken::new(step, cause) }
    }

    fn examine(step: &'static str, cause: impl ToString) -> Self {
        Broken { remedy: Remedy::Examine, ..Broken::new(step, cause) }
    }

    /// A file or folder is closed to us: that does not mend itself.
    fn file(step: &'static str, path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
        let cause = format!("{}: {error}", path.display());
        match error.kind() {
            NotFound | PermissionDenied | ReadOnlyFilesystem | IsADirectory | NotADirectory => Broken::change(step, cause),
            _ => Broken::new(step, cause),
        }
    }
}

/// What a start found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Keys in the index, also revoked ones.
    pub keys: usize,
    /// Events of the journal that the index had not seen yet.
    pub caught_up: usize,
    /// Why the index was made anew from the journal, if it was.
    pub rebuilt: Option<String>,
    /// Where a damaged index was moved for somebody to look at.
    pub moved_to: Option<PathBuf>,
}

/// All keys. Every worker shares one of these.
pub struct Keys {
    pepper: Pepper,
    store: Store,
    cache: Cache,
    /// Held over a whole change, so that none is made from a record that another change has replaced.
    changing: Mutex<()>,
    stopped: AtomicBool,
    failure: watch::Sender<Option<String>>,
    /// Keeps other programs away from the files.
    _lock: File,
}

impl Keys {
    /// Opens the index in `folder` and brings it to where `journal` is: all key events from the first, as sequence number
    /// and [`Record::to_bytes`]. An index that is missing, damaged or of another journal is made anew. The pepper is made
    /// from `random` (fresh, from the edge) if there is neither a pepper nor a key.
    ///
    /// # Errors
    /// [`Remedy::Change`] when another program has the keys open, when a file is closed to us or open to others, and when
    /// the pepper is missing or not the one that the keys were made with; [`Remedy::Examine`] when the journal is damaged;
    /// [`Remedy::StartAgain`] when the disk fails.
    pub fn open<B: AsRef<[u8]>>(
        folder: &Path,
        pepper: &Path,
        random: [u8; 32],
        journal: &[(u64, B)],
    ) -> Result<(Keys, Opened), Broken> {
        let lock = place::lock(folder)?;
        let now = History::read(journal, u64::MAX)?;
        let pepper = Pepper::open(pepper, random, &now)?;
        let (store, opened) = place::open(folder, journal, &now)?;
        let keys = Keys {
            pepper,
            store,
            cache: Cache::default(),
            changing: Mutex::new(()),
            stopped: AtomicBool::new(false),
            failure: watch::Sender::new(None),
            _lock: lock,
        };
        Ok((keys, opened))
    }

    /// A new key: the text to show once, and what is kept of it. `random` must be fresh; the caller at the edge draws it.
    ///
    /// # Errors
    /// There is such a key already, so `random` was not random; or the index has failed.
    pub fn seal(&self, random: [u8; 32]) -> Result<(PlainKey, Seal), Broken> {
        self.working()?;
        let (plain, seal) = self.pepper.seal(random);
        match self.store.by_mac(&seal.mac).inspect_err(|broken| self.stop(broken))? {
            None => Ok((plain, seal)),
            Some(_) => Err(Broken::new("seal", "the machine's randomness has repeated itself")),
        }
    }

    /// The key that `text` is, whatever became of it: [`Key::ended`] says whether it still speaks for its wallet. Text that
    /// cannot be a key is not looked up.
    ///
    /// # Errors
    /// The index has failed: nobody can be told from anybody else.
    pub fn find(&self, text: &str) -> Result<Option<Arc<Key>>, Broken> {
        self.working()?;
        let Some(mac) = self.pepper.mac(text) else { return Ok(None) };
        let found = self.cache.find(mac, || self.store.by_mac(&mac));
        // A change that failed while we were looking has emptied the cache for a reason.
        self.working()?;
        found.inspect_err(|broken| self.stop(broken))
    }

    /// The key with this name, also a revoked one.
    ///
    /// # Errors
    /// The index has failed.
    pub fn get(&self, id: KeyId) -> Result<Option<Record>, Broken> {
        self.working()?;
        self.store.get(id).inspect_err(|broken| self.stop(broken))
    }

    /// The keys of an account, newest first, also revoked ones.
    ///
    /// # Errors
    /// The index has failed.
    pub fn of(&self, account: AccountId) -> Result<Vec<Record>, Broken> {
        self.working()?;
        self.store.of(account).inspect_err(|broken| self.stop(broken))
    }

    /// Makes one change. `journal` reads what it needs with [`Keys::get`], decides, makes the new record durable in the
    /// journal and hands back its sequence number there; then the record is put in the index, and keys in use hear of it.
    /// One change at a time: none is made from a record that another has replaced meanwhile, none overtakes another.
    ///
    /// It blocks (for the journal and for the disk), and once the journal has the record it must come to its end: call it
    /// where a caller who leaves does not cancel it, such as a thread for blocking work.
    ///
    /// # Errors
    /// What `journal` refuses; nothing was changed. [`Broken`]: the index has failed after the journal had the record, so
    /// the change is made and the next start shows it, but these keys answer nothing any more.
    pub fn change<E: From<Broken>>(&self, journal: impl FnOnce() -> Result<(u64, Record), E>) -> Result<Record, E> {
        let turn = self.changing.lock().map_err(|_| self.stop_because("a change panicked"))?;
        self.working()?;
        let (seq, record) = journal()?;
        self.apply(seq, &record).inspect_err(|broken| self.stop(broken))?;
        drop(turn);
        Ok(record)
    }

    fn apply(&self, seq: u64, record: &Record) -> Result<(), Broken> {
        fault::point("keys.apply.before");
        let before = self.store.get(record.id)?;
        // What has ended has ended, however long the disk takes; who looks it up meanwhile may still meet what was before.
        self.cache.changed(before.as_ref(), record);
        let stored = self.store.put(seq, before.as_ref(), record);
        self.cache.changed(before.as_ref(), record);
        stored?;
        fault::point("keys.apply.after");
        Ok(())
    }

    /// The last event of the journal that is durable in the index; 0 for none.
    pub fn applied(&self) -> u64 {
        self.store.applied()
    }

    /// Changes to `Some(cause)` when the index fails for good. The program must end then: the next start makes it anew.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    fn working(&self) -> Result<(), Broken> {
        match self.stopped.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Broken::new("use", "the index has failed; the next start makes it anew")),
        }
    }

    /// What sled says after a failure is not to be believed, so nothing is asked of it any more.
    fn stop(&self, broken: &Broken) {
        let first = !self.stopped.swap(true, Ordering::AcqRel);
        if first {
            tracing::error!(%broken, "the index of keys has failed; the program must end, and its next start makes it anew");
            self.failure.send_replace(Some(broken.to_string()));
        }
        self.cache.clear();
    }

    fn stop_because(&self, cause: &str) -> Broken {
        let broken = Broken::new("change", cause);
        self.stop(&broken);
        broken
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// The keys that are not revoked, as they are once they are, for when none can be checked any more: `journal` is all key events
/// from the first.
///
/// # Errors
/// [`Remedy::Examine`] when the journal is damaged.
pub fn revoked<B: AsRef<[u8]>>(journal: &[(u64, B)], now: Timestamp) -> Result<Vec<Record>, Broken> {
    let history = History::read(journal, u64::MAX)?;
    let mut revoked: Vec<_> =
        history.all_live().map(|record| Record { revoked_at: Some(now), previous: None, ..record.clone() }).collect();
    revoked.sort_by_key(|record| record.id);
    Ok(revoked)
}

/// Moves a pepper under which no key lives any more out of the way of a new one, and says where to; `None` if there is none.
///
/// # Errors
/// The folder is closed to us, or the disk fails.
pub fn set_pepper_aside(pepper: &Path) -> Result<Option<PathBuf>, Broken> {
    let aside = pepper.with_extension("pepper.old");
    match std::fs::rename(pepper, &aside).and_then(|()| place::sync_folder(pepper)) {
        Ok(()) => Ok(Some(aside)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Broken::file("set the pepper aside", pepper, &error)),
    }
}

/// What is wrong with the keys in a data folder, for `farebox verify`: whether the pepper is the one that the keys were
/// made with, and whether the index says what `journal` (all key events from the first) says up to where the index got.
/// An index that is missing or behind is no problem, because the next start mends it.
///
/// # Errors
/// The keys cannot be looked at: another program has them open, or the disk fails.
pub fn compare<B: AsRef<[u8]>>(folder: &Path, pepper: &Path, journal: &[(u64, B)]) -> Result<Vec<String>, Broken> {
    let _lock = place::lock(folder)?;
    let now = match History::read(journal, u64::MAX) {
        Ok(now) => now,
        Err(damaged) => return Ok(vec![damaged.cause]),
    };
    let mut problems = Vec::new();
    match Pepper::check(pepper, &now) {
        Ok(()) => {}
        Err(broken) if broken.remedy == Remedy::Change => problems.push(broken.cause),
        Err(broken) => return Err(broken),
    }
    problems.extend(place::examine(folder, journal, &now)?);
    Ok(problems)
}
