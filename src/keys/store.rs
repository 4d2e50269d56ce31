//! The index in sled: what a row is, how a record is put in, and whether all rows say what the journal says.
//!
//! sled 0.34 reports much of what goes wrong by a panic, so each call into it is one whose panic becomes an error. Its
//! `flush` writes without an fsync on Linux, so the file is synced after it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sled::{Batch, Db, IVec};

use super::history::History;
use super::record::{Mac, Record};
use super::{Broken, Remedy};
use crate::account::AccountId;
use crate::fault;
use crate::ids::KeyId;

/// The one row about the index itself: its form, and the last event of the journal that it has.
const APPLIED: u8 = 0;
/// (key) -> its record.
const RECORDS: u8 = 1;
/// (MAC) -> the key whose secret it is.
const MACS: u8 = 2;
/// (account, when it was made, key) -> nothing.
const ACCOUNTS: u8 = 3;

/// The form of the rows. An index of another form is made anew.
const FORM: u8 = 1;

/// Pages that sled keeps in memory: keys in use are in our own cache.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Rows that are put in at once when all of them are.
const ROWS_AT_ONCE: usize = 1000;

/// The name that sled gives its file.
const FILE: &str = "db";

/// An open index.
pub(super) struct Store {
    db: Db,
    /// The same file, to be synced.
    file: File,
    applied: AtomicU64,
}

/// What sled said, or that it panicked.
fn guarded<T>(step: &'static str, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, Broken> {
    // Nothing of ours is changed inside, and after an error nothing is asked of sled again.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(sled::Error::Io(error))) if is_closed_to_us(&error) => Err(Broken::change(step, error)),
        Ok(Err(error)) => Err(Broken::new(step, error)),
        Err(_) => Err(Broken::new(step, "sled panicked")),
    }
}

fn is_closed_to_us(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// How often it is tried to open a file that is locked. No other program has it: we hold the lock of the place. It is what
/// one of sled's threads still holds of an index that we have just closed.
const TRIES: u32 = 200;

fn open_free(config: &sled::Config) -> Result<Db, Broken> {
    let locked = |opened: &Result<Db, sled::Error>| matches!(opened, Err(sled::Error::Io(error)) if error.to_string().starts_with("could not acquire lock"));
    guarded("open", || {
        let mut opened = config.open();
        for _ in 0..TRIES {
            if !locked(&opened) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            opened = config.open();
        }
        opened
    })
}

impl Store {
    /// Opens or makes the index in `folder`, without a look at what it says.
    pub fn open(folder: &Path) -> Result<Store, Broken> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            // Its own thread would sync the file twice a second for nothing: each change is flushed and synced as it is made.
            .flush_every_ms(None);
        let db = open_free(&config)?;
        let path = folder.join(FILE);
        let file = File::open(&path).map_err(|error| Broken::file("open", &path, &error))?;
        let applied = guarded("read", || db.get([APPLIED]))?;
        let applied = match applied.as_deref().map(<[u8; 9]>::try_from) {
            None => 0,
            Some(Ok([FORM, seq @ ..])) => u64::from_be_bytes(seq),
            Some(_) => return Err(Broken::new("read", "its first row is not one of ours")),
        };
        Ok(Store { db, file, applied: AtomicU64::new(applied) })
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Puts the record of event `seq` in place of `before`, all of its rows at once, and makes that durable.
    pub fn put(&self, seq: u64, before: Option<&Record>, record: &Record) -> Result<(), Broken> {
        if seq <= self.applied() {
            return Err(Broken::examine("put", format!("event {seq} of keys comes after event {}", self.applied())));
        }
        let mut batch = Batch::default();
        replace(&mut batch, before, record);
        self.write(batch, Some(seq))?;
        fault::point("keys.inserted");
        self.flush(seq)
    }

    /// Puts all keys into an index that is empty.
    pub fn fill(&self, history: &History) -> Result<(), Broken> {
        // In the order of the rows: sled fills its pages one after the other, and its file is half of what it would be.
        let mut records: Vec<&Record> = history.records.values().map(|(_, record)| record).collect();
        records.sort_by_key(|record| record.id);
        let id = |record: &Record| record.id.0.to_be_bytes().to_vec();
        let seals = records.iter().flat_map(|record| record.seals().map(|seal| (mac_row(&seal.mac), id(record))));
        let macs: BTreeMap<_, _> = seals.collect();
        let accounts: BTreeMap<_, _> = records.iter().map(|record| (account_row(record), Vec::new())).collect();
        let mut rows =
            records.iter().map(|record| (record_row(record.id), record.to_bytes())).chain(macs).chain(accounts).peekable();
        while rows.peek().is_some() {
            let mut batch = Batch::default();
            rows.by_ref().take(ROWS_AT_ONCE).for_each(|(row, value)| batch.insert(row, value));
            self.write(batch, None)?;
        }
        self.write(Batch::default(), Some(history.last))?;
        self.flush(history.last)
    }

    /// Puts in the events after the last one that the index has, and says how many.
    pub fn catch_up<B: AsRef<[u8]>>(&self, journal: &[(u64, B)]) -> Result<usize, Broken> {
        let (mut last, mut count) = (0, 0);
        for (seq, bytes) in journal.iter().filter(|(seq, _)| *seq > self.applied()) {
            let record = Record::from_bytes(bytes.as_ref()).map_err(|error| Broken::examine("journal", error))?;
            let mut batch = Batch::default();
            replace(&mut batch, self.get(record.id)?.as_ref(), &record);
            self.write(batch, Some(*seq))?;
            (last, count) = (*seq, count + 1);
        }
        if count > 0 {
            fault::point("keys.index.caught");
            self.flush(last)?;
        }
        Ok(count)
    }

    /// The key with this MAC.
    pub fn by_mac(&self, mac: &Mac) -> Result<Option<Record>, Broken> {
        let mut seen = None;
        loop {
            let Some(row) = guarded("read", || self.db.get(mac_row(mac)))? else { return Ok(None) };
            let record = self.get(KeyId(u128::from_be_bytes(number(&row).ok_or_else(torn)?)))?;
            if let Some(record) = record.filter(|record| record.has(mac)) {
                return Ok(Some(record));
            }
            // A rotation between the two reads takes the row away with the secret; one that is still there is torn.
            if seen.replace(row.clone()) == Some(row) {
                return Err(torn());
            }
        }
    }

    pub fn get(&self, id: KeyId) -> Result<Option<Record>, Broken> {
        let row = guarded("read", || self.db.get(record_row(id)))?;
        row.map(|row| Record::from_bytes(&row).map_err(|error| Broken::new("read", error))).transpose()
    }

    /// The keys of an account, newest first.
    pub fn of(&self, account: AccountId) -> Result<Vec<Record>, Broken> {
        let start = [&[ACCOUNTS][..], &account.to_bytes()].concat();
        let rows = guarded("read", || self.db.scan_prefix(start).keys().collect::<Result<Vec<IVec>, _>>())?;
        let read = |row: &IVec| {
            let id = row.len().checked_sub(16).and_then(|at| number(row.get(at..)?)).ok_or_else(torn)?;
            self.get(KeyId(u128::from_be_bytes(id)))?.ok_or_else(torn)
        };
        rows.iter().rev().map(read).collect()
    }

    /// In what the index differs from what the journal said up to the same event; empty when it does not.
    pub fn differences(&self, then: &History) -> Result<Vec<String>, Broken> {
        let mut problems = Vec::new();
        if then.last != self.applied() {
            let (applied, last) = (self.applied(), then.last);
            problems.push(format!("the index has event {applied} of keys, and the journal's last one up to there is {last}"));
        }
        let expected: usize = then.records.values().map(|(_, record)| 2 + record.seals().count()).sum();
        let mut found = 0;
        guarded("read", || {
            for row in self.db.iter() {
                let (key, value) = row?;
                match key.first() {
                    Some(&APPLIED) => {}
                    _ if is_of(then, &key, &value) => found += 1,
                    kind => problems.push(format!("the index has a row of kind {kind:?} that the journal does not have")),
                }
            }
            Ok(())
        })?;
        if found < expected {
            problems.push(format!("the index lacks {} of {expected} rows", expected - found));
        }
        Ok(problems)
    }

    fn write(&self, mut batch: Batch, applied: Option<u64>) -> Result<(), Broken> {
        if let Some(seq) = applied {
            batch.insert(&[APPLIED], [&[FORM][..], &seq.to_be_bytes()].concat());
        }
        guarded("write", || self.db.apply_batch(batch))
    }

    /// Makes durable what was written, up to this event.
    fn flush(&self, applied: u64) -> Result<(), Broken> {
        guarded("flush", || self.db.flush())?;
        fault::point("keys.flushed");
        fault::disk("keys.sync", || self.file.sync_all()).map_err(|error| Broken::new("sync", error))?;
        fault::point("keys.synced");
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }
}

fn torn() -> Broken {
    Broken { remedy: Remedy::StartAgain, ..Broken::new("read", "rows do not fit each other") }
}

/// The rows of a record.
fn rows(record: &Record) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::from([(record_row(record.id), record.to_bytes()), (account_row(record), Vec::new())]);
    rows.extend(record.seals().map(|seal| (mac_row(&seal.mac), record.id.0.to_be_bytes().to_vec())));
    rows
}

fn account_row(record: &Record) -> Vec<u8> {
    let made = record.created_at.millis().to_be_bytes();
    [&[ACCOUNTS][..], &record.account.to_bytes(), &made, &record.id.0.to_be_bytes()].concat()
}

fn record_row(id: KeyId) -> Vec<u8> {
    [&[RECORDS][..], &id.0.to_be_bytes()].concat()
}

fn mac_row(mac: &Mac) -> Vec<u8> {
    [&[MACS][..], &mac.0].concat()
}

fn replace(batch: &mut Batch, before: Option<&Record>, record: &Record) {
    let now = rows(record);
    for row in before.map(rows).unwrap_or_default().into_keys().filter(|row| !now.contains_key(row)) {
        batch.remove(row);
    }
    for (row, value) in now {
        batch.insert(row, value);
    }
}

/// Whether a row is one of a record that the journal has.
fn is_of(history: &History, key: &[u8], value: &[u8]) -> bool {
    let record = |id: &[u8]| history.records.get(&KeyId(u128::from_be_bytes(number(id)?))).map(|(_, record)| record);
    match key {
        [RECORDS, id @ ..] => record(id).is_some_and(|record| record.to_bytes() == value),
        [MACS, mac @ ..] => record(value).is_some_and(|record| record.seals().any(|seal| seal.mac.0 == mac)),
        [ACCOUNTS, ..] => {
            let id = key.len().checked_sub(16).and_then(|at| key.get(at..)).unwrap_or_default();
            value.is_empty() && record(id).is_some_and(|record| account_row(record) == key)
        }
        _ => false,
    }
}

fn number(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}
