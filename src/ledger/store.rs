//! The ledger's file: its tables, how a batch of rows is written, and how all of it is read back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, StorageBackend};

use super::book::{Book, Write};
use super::commit::apply;
use super::rows::{Hold, Transfer};
use super::snapshot::{Snapshot, for_each, json};
use super::tables::{self, HOLDS, KEY_EVENTS, META, NONCES, OLDEST, PAY_OPEN, PAYMENTS, SCHEMA, TRANSFERS};
use super::{Broken, Money, adjust, blocked, payouts};
use crate::clock::Timestamp;
use crate::fault;
use crate::ids::{PaymentId, RequestId};

/// Pages of the file that are kept in memory. What decides is in the book; the file is read for payments that are over and
/// by checks, and by default one check of a large ledger would keep a gigabyte.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// An open ledger file.
pub(super) struct Store {
    // Before the lock: it is closed first.
    db: Database,
    /// Keeps other programs away from the folder, if there is one.
    _lock: Option<File>,
}

/// How a batch is made durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    /// One fsync; after a crash the next start repairs in milliseconds.
    Usual,
    /// Two fsyncs; the next start need not repair. For the last commit of a clean stop and once a minute.
    QuickRepair,
}

impl Store {
    /// Opens a ledger's file as it is, under the lock of its folder.
    pub fn open(path: &Path, lock: File) -> Result<Store, Broken> {
        let store = Store { db: database(path, false)?, _lock: Some(lock) };
        Layout::of(&store.read()?)?.known()?;
        store.prepared()
    }

    /// Makes a ledger with all its tables in a new file.
    pub fn make(path: &Path) -> Result<(), Broken> {
        Store { db: database(path, true)?, _lock: None }.prepared().map(drop)
    }

    /// Opens or makes a ledger on any storage; tests cut its power.
    pub fn open_on(backend: impl StorageBackend) -> Result<Store, Broken> {
        let db = Database::builder().create_with_backend(backend).map_err(Broken::open)?;
        let store = Store { db, _lock: None };
        match Layout::of(&store.read()?)? {
            Layout(None) => {}
            layout => layout.known()?,
        }
        store.prepared()
    }

    /// Creates the tables and counts this run.
    fn prepared(self) -> Result<Store, Broken> {
        let tx = self.db.begin_write().map_err(|error| Broken::new("begin", error))?;
        tables::prepare(&tx).map_err(|error| Broken::new("prepare", error))?;
        tx.commit().map_err(|error| Broken::new("commit", error))?;
        Ok(self)
    }

    /// Notes what the ledger's money is worth, the first time; refuses another kind ever after.
    pub fn keep(&self, money: Money) -> Result<(), Broken> {
        let tx = self.db.begin_write().map_err(|error| Broken::new("begin", error))?;
        let wanted = money as u64;
        let noted = || -> Result<u64, redb::Error> {
            let mut meta = tx.open_table(META)?;
            let known = meta.get("money")?.map(|value| value.value());
            if known.is_none() {
                meta.insert("money", wanted)?;
            }
            Ok(known.unwrap_or(wanted))
        };
        let known = noted().map_err(|error| Broken::new("write", error))?;
        fault::point("money.before");
        tx.commit().map_err(|error| Broken::new("commit", error))?;
        fault::point("money.after");
        match known == wanted {
            true => Ok(()),
            false => Err(Broken::change(
                "money",
                format!("this ledger was started with another kind of money than {money:?}; give it a data_dir of its own"),
            )),
        }
    }

    /// Writes batches in one transaction. After an error the outcome is unknown: the caller must stop (never retry).
    pub fn write<'a>(&self, writes: impl Iterator<Item = &'a Write>, commit: Commit) -> Result<(), Broken> {
        let mut tx = self.db.begin_write().map_err(|error| Broken::new("begin", error))?;
        tx.set_quick_repair(commit == Commit::QuickRepair);
        apply(&tx, writes).map_err(|error| Broken::new("write", error))?;
        tx.commit().map_err(|error| Broken::new("commit", error))
    }

    /// Writes all that is durable now into a new file.
    pub fn copy_to(&self, path: &Path) -> Result<(), Broken> {
        copy_tables(&self.db, &database(path, true)?)
    }

    pub fn read(&self) -> Result<ReadTransaction, Broken> {
        self.db.begin_read().map_err(|error| Broken::new("read", error))
    }

    /// Everything that decides: balances, holds, open payments, the end of the hash chain, the number of this run.
    pub fn load(&self) -> Result<Book, Broken> {
        let tx = self.read()?;
        let restored_at = Timestamp::from_millis(noted(&tx, RESTORED_AT)?);
        let mut book = Book { boot: noted(&tx, "boot")?, restored_at, ..Book::default() };
        Snapshot(&tx).balances(|account, balance| _ = book.balances.insert(account, balance))?;
        book.count_what_is_owed();
        load_limits(&tx, &mut book)?;
        for_each(&tx, HOLDS, |request, row| {
            book.count(RequestId(request), Hold::from_bytes(row).ok_or_else(|| Broken::row("holds"))?);
            Ok(())
        })?;
        let payments = tx.open_table(PAYMENTS).map_err(|error| Broken::new("read payments", error))?;
        for_each(&tx, PAY_OPEN, |id, ()| {
            let row =
                payments.get(id).map_err(|error| Broken::new("read payments", error))?.ok_or_else(|| Broken::row("pay_open"))?;
            book.remember(PaymentId(*id), json(row.value())?, 0);
            Ok(())
        })?;
        let transfers = tx.open_table(TRANSFERS).map_err(|error| Broken::new("read transfers", error))?;
        if let Some((key, row)) = transfers.last().map_err(|error| Broken::new("read transfers", error))? {
            book.next_seq = key.value() + 1;
            book.head = Transfer::from_bytes(row.value()).ok_or_else(|| Broken::row("transfers"))?.hash;
        }
        let events = tx.open_table(KEY_EVENTS).map_err(|error| Broken::new("read key_events", error))?;
        if let Some((key, _)) = events.last().map_err(|error| Broken::new("read key_events", error))? {
            book.next_key_event = key.value();
        }
        Ok(book)
    }
}

/// What was spent of limits, what was granted, and which sign-ins were used.
fn load_limits(tx: &ReadTransaction, book: &mut Book) -> Result<(), Broken> {
    let disk = Snapshot(tx);
    disk.key_spending(|key, day, spent| book.keys.entry(key).or_default().spend(day, spent))?;
    disk.allowance_spending(|wallet, day, spent| book.allowances.entry(wallet).or_default().spend(day, spent))?;
    adjust::each(tx, |id, row| _ = book.adjustments.insert(id.to_owned(), row))?;
    blocked::each(tx, |wallet, block| _ = book.blocked.insert(wallet, block))?;
    payouts::each(tx, |id, row| _ = book.payouts.insert(id.to_owned(), row))?;
    disk.grants(|wallet, grant| _ = book.grants.insert(wallet, grant))?;
    for_each(tx, NONCES, |(forget_at, id), ()| {
        book.nonces.insert(*id, Timestamp::from_millis(forget_at));
        Ok(())
    })
}

/// Opens a ledger's file as it is, or one that is new and empty.
pub(super) fn database(path: &Path, new: bool) -> Result<Database, Broken> {
    let step = if new { "create" } else { "open" };
    // Rows hold payers' signatures.
    let file = OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).open(path);
    let file = file.map_err(|error| Broken::file(step, &error))?;
    // The database would fill an empty file in, and nobody would know that there had been books.
    if !new && file.metadata().map_err(|error| Broken::new(step, error))?.len() == 0 {
        return Err(Broken::examine(
            step,
            "the books are empty: restore them from a copy, or move the file away to start anew with none",
        ));
    }
    let backend = FileBackend::new(file).map_err(Broken::open)?;
    #[cfg(feature = "fault-points")]
    let backend = super::faulty::Faulty(backend);
    let shown = path.to_path_buf();
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(move |session| {
        tracing::warn!(file = %shown.display(), progress = session.progress(), "the ledger was not closed cleanly; repairing");
    });
    builder.create_with_backend(backend).map_err(Broken::open)
}

/// Opens a ledger's file for a check or a repair; the caller holds the folder's lock.
pub(super) fn existing(path: &Path) -> Result<Database, Broken> {
    let db = database(path, false)?;
    Layout::of(&db.begin_read().map_err(|error| Broken::new("read", error))?)?.known()?;
    Ok(db)
}

/// Writes all tables of one ledger file into a new one: what can be read is what counts, and a new file holds nothing else.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), Broken> {
    copy_tables(&database(from, false)?, &database(to, true)?)
}

/// Writes all of one ledger to another storage, durably: what a start does after a failed write, on any storage.
///
/// # Errors
/// The step that failed; then the first storage still holds everything, and the second one is worth nothing.
pub fn copy_on(from: impl StorageBackend, to: impl StorageBackend) -> Result<(), Broken> {
    let source = Database::builder().create_with_backend(from).map_err(Broken::open)?;
    let target = Database::builder().create_with_backend(to).map_err(|error| Broken::new("create", error))?;
    copy_tables(&source, &target)
}

fn copy_tables(source: &Database, target: &Database) -> Result<(), Broken> {
    let (read, write) = (
        source.begin_read().map_err(|error| Broken::new("read", error))?,
        target.begin_write().map_err(|error| Broken::new("begin", error))?,
    );
    tables::copy(&read, &write).map_err(|error| Broken::new("copy", error))?;
    write.commit().map_err(|error| Broken::new("commit", error))
}

/// The layout that a database says it has; none if it never was a ledger.
struct Layout(Option<u64>);

impl Layout {
    fn of(tx: &ReadTransaction) -> Result<Layout, Broken> {
        let failed = |error: redb::Error| Broken::new("read meta", error);
        let meta = match tx.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Layout(None)),
            Err(error) => return Err(failed(error.into())),
        };
        let schema = meta.get("schema").map_err(|error| failed(error.into()))?;
        Ok(Layout(schema.map(|schema| schema.value())))
    }

    fn known(self) -> Result<(), Broken> {
        match self.0 {
            Some(OLDEST..=SCHEMA) => Ok(()),
            Some(other) => Err(Broken::change(
                "open",
                format!("the file has layout {other}, this program knows {SCHEMA}: start the version of farebox that wrote it"),
            )),
            None => {
                Err(Broken::examine("open", "the file holds no books: restore them, or move it away to start anew with none"))
            }
        }
    }
}

/// A number that was noted about the books; zero if none was.
fn noted(tx: &ReadTransaction, name: &str) -> Result<u64, Broken> {
    let meta = tx.open_table(META).map_err(|error| Broken::new("read meta", error))?;
    let number = meta.get(name).map_err(|error| Broken::new("read meta", error))?;
    Ok(number.map_or(0, |number| number.value()))
}

/// Under this name it is noted when books were put back from a copy, in milliseconds.
const RESTORED_AT: &str = "restored_at";

/// Notes in the books of a copy when they are put back, durably.
pub(super) fn note_restored(path: &Path, at: Timestamp) -> Result<(), Broken> {
    let db = existing(path)?;
    let tx = db.begin_write().map_err(|error| Broken::new("begin", error))?;
    let put = || -> Result<(), redb::Error> {
        tx.open_table(META)?.insert(RESTORED_AT, at.millis())?;
        Ok(())
    };
    put().map_err(|error| Broken::new("write", error))?;
    tx.commit().map_err(|error| Broken::new("commit", error))
}
