//! The ledger's file: its tables, how a batch of rows is written, and how all of it is read back.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, StorageBackend,
    TableDefinition, WriteTransaction,
};

use super::book::{Book, Remembered, Write};
use super::rows::{Account, Hold, Payment, Posting};
use super::{Broken, Money};
use crate::fault;
use crate::ids::{PaymentId, RequestId};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const BALANCES: TableDefinition<&[u8], i64> = TableDefinition::new("balances");
const POSTINGS: TableDefinition<(u64, u8), &[u8]> = TableDefinition::new("postings");
/// (wallet, sequence) of each posting on a wallet's own account, for its list of transactions.
const BY_WALLET: TableDefinition<(&[u8], u64), u8> = TableDefinition::new("by_wallet");
const PAYMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("payments");
/// Payments the chain may still change, so that a start need not read all of them.
const PAY_OPEN: TableDefinition<&[u8; 32], ()> = TableDefinition::new("pay_open");
const HOLDS: TableDefinition<u128, &[u8]> = TableDefinition::new("holds");

/// Pages of the file that are kept in memory. What decides is in the book; the file is read for payments that are over and
/// by checks, and by default one check of a large ledger would keep a gigabyte.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The layout of the tables above. A file with a newer one is not opened.
const SCHEMA: u64 = 2;

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
        prepare(&tx).map_err(|error| Broken::new("prepare", error))?;
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

    pub fn read(&self) -> Result<ReadTransaction, Broken> {
        self.db.begin_read().map_err(|error| Broken::new("read", error))
    }

    /// One payment, open or not.
    pub fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Broken> {
        Snapshot(&self.read()?).payment(id)
    }

    /// Everything that decides: balances, holds, open payments, the end of the hash chain, the number of this run.
    pub fn load(&self) -> Result<Book, Broken> {
        let tx = self.read()?;
        let mut book = Book { boot: boot(&tx)?, ..Book::default() };
        for_each(&tx, BALANCES, |key, balance| {
            book.balances.insert(Account::from_key(key).ok_or_else(|| Broken::row("balances"))?, balance);
            Ok(())
        })?;
        for_each(&tx, HOLDS, |request, row| {
            book.holds.insert(RequestId(request), json::<Hold>(row)?);
            Ok(())
        })?;
        let payments = tx.open_table(PAYMENTS).map_err(|error| Broken::new("read payments", error))?;
        for_each(&tx, PAY_OPEN, |id, ()| {
            let row =
                payments.get(id).map_err(|error| Broken::new("read payments", error))?.ok_or_else(|| Broken::row("pay_open"))?;
            book.payments.insert(PaymentId(*id), Remembered { row: json(row.value())?, ticket: 0 });
            Ok(())
        })?;
        let postings = tx.open_table(POSTINGS).map_err(|error| Broken::new("read postings", error))?;
        if let Some((key, row)) = postings.last().map_err(|error| Broken::new("read postings", error))? {
            book.next_seq = key.value().0 + 1;
            book.head = Posting::from_bytes(row.value()).ok_or_else(|| Broken::row("postings"))?.hash;
        }
        Ok(book)
    }
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
    let tables = || -> Result<(), redb::Error> {
        copy_table(&read, &write, META)?;
        copy_table(&read, &write, BALANCES)?;
        copy_table(&read, &write, POSTINGS)?;
        copy_table(&read, &write, BY_WALLET)?;
        copy_table(&read, &write, PAYMENTS)?;
        copy_table(&read, &write, PAY_OPEN)?;
        copy_table(&read, &write, HOLDS)
    };
    tables().map_err(|error| Broken::new("copy", error))?;
    write.commit().map_err(|error| Broken::new("commit", error))
}

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    read: &ReadTransaction,
    write: &WriteTransaction,
    table: TableDefinition<K, V>,
) -> Result<(), redb::Error> {
    let mut to = write.open_table(table)?;
    let from = match read.open_table(table) {
        Ok(from) => from,
        // The first write of all had failed.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for row in from.iter()? {
        let (key, value) = row?;
        to.insert(key.value(), value.value())?;
    }
    Ok(())
}

/// Makes balances and the wallets' lists anew from the postings, which they must agree with.
pub(super) fn rebuild_derived(path: &Path) -> Result<(), Broken> {
    let db = existing(path)?;
    let mut sums: HashMap<Account, i64> = HashMap::new();
    let mut wallet_rows = Vec::new();
    let _ = Snapshot(&db.begin_read().map_err(|error| Broken::new("read", error))?).postings(|seq, leg, posting| {
        if let Account::Wallet(wallet) = &posting.account {
            wallet_rows.push((wallet.to_bytes(), seq, leg));
        }
        let sum = sums.entry(posting.account).or_default();
        *sum = sum.saturating_add(posting.amount);
        ControlFlow::Continue(())
    })?;
    let tx = db.begin_write().map_err(|error| Broken::new("begin", error))?;
    let tables = || -> Result<(), redb::Error> {
        tx.delete_table(BALANCES)?;
        tx.delete_table(BY_WALLET)?;
        let (mut balances, mut by_wallet) = (tx.open_table(BALANCES)?, tx.open_table(BY_WALLET)?);
        for (account, sum) in &sums {
            balances.insert(account.to_key().as_slice(), *sum)?;
        }
        for (wallet, seq, leg) in &wallet_rows {
            by_wallet.insert((wallet.as_slice(), *seq), *leg)?;
        }
        Ok(())
    };
    tables().map_err(|error| Broken::new("rebuild", error))?;
    tx.commit().map_err(|error| Broken::new("commit", error))
}

/// The tables of one snapshot, for the check of the books.
pub(super) struct Snapshot<'a>(pub &'a ReadTransaction);

impl Snapshot<'_> {
    pub fn balances(&self, mut visit: impl FnMut(Account, i64)) -> Result<(), Broken> {
        for_each(self.0, BALANCES, |key, balance| {
            visit(Account::from_key(key).ok_or_else(|| Broken::row("balances"))?, balance);
            Ok(())
        })
    }

    /// All postings in their order, until `visit` breaks off; says whether it did.
    pub fn postings(&self, mut visit: impl FnMut(u64, u8, Posting) -> ControlFlow<()>) -> Result<ControlFlow<()>, Broken> {
        let failed = |error: redb::Error| Broken::new("read postings", error);
        let rows = self.0.open_table(POSTINGS).map_err(|error| failed(error.into()))?;
        for row in rows.iter().map_err(|error| failed(error.into()))? {
            let (key, value) = row.map_err(|error| failed(error.into()))?;
            let (seq, leg) = key.value();
            let posting = Posting::from_bytes(value.value()).ok_or_else(|| Broken::row("postings"))?;
            if visit(seq, leg, posting).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    pub fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Broken> {
        let table = self.0.open_table(PAYMENTS).map_err(|error| Broken::new("read payments", error))?;
        let row = table.get(&id.0).map_err(|error| Broken::new("read payments", error))?;
        row.map(|row| json(row.value())).transpose()
    }

    /// Up to `limit` payments behind one in the order of their ids, without what was signed for them; whether each is listed
    /// as open.
    pub fn payments_after(&self, after: Option<PaymentId>, limit: usize) -> Result<Vec<(PaymentId, Payment, bool)>, Broken> {
        let failed = |error: redb::Error| Broken::new("read payments", error);
        let open = self.0.open_table(PAY_OPEN).map_err(|error| failed(error.into()))?;
        let table = self.0.open_table(PAYMENTS).map_err(|error| failed(error.into()))?;
        let begin = after.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(&id.0));
        let rows = table.range::<&[u8; 32]>((begin, Bound::Unbounded)).map_err(|error| failed(error.into()))?;
        rows.take(limit)
            .map(|row| {
                let (id, row) = row.map_err(|error| failed(error.into()))?;
                let listed = open.get(id.value()).map_err(|error| failed(error.into()))?.is_some();
                let payment: Payment = json(row.value())?;
                Ok((PaymentId(*id.value()), Payment { detail: Default::default(), attempts: Vec::new(), ..payment }, listed))
            })
            .collect()
    }

    pub fn payments(&self, mut visit: impl FnMut(PaymentId, Payment, bool)) -> Result<(), Broken> {
        let open = self.0.open_table(PAY_OPEN).map_err(|error| Broken::new("read pay_open", error))?;
        for_each(self.0, PAYMENTS, |id, row| {
            let listed = open.get(id).map_err(|error| Broken::new("read pay_open", error))?.is_some();
            visit(PaymentId(*id), json(row)?, listed);
            Ok(())
        })
    }

    pub fn holds(&self, mut visit: impl FnMut(RequestId, Hold)) -> Result<(), Broken> {
        for_each(self.0, HOLDS, |request, row| {
            visit(RequestId(request), json(row)?);
            Ok(())
        })
    }

    pub fn wallet_rows(&self) -> Result<u64, Broken> {
        let table = self.0.open_table(BY_WALLET).map_err(|error| Broken::new("read by_wallet", error))?;
        table.len().map_err(|error| Broken::new("read by_wallet", error))
    }
}

fn prepare(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(BALANCES)?;
    tx.open_table(POSTINGS)?;
    tx.open_table(BY_WALLET)?;
    tx.open_table(PAYMENTS)?;
    tx.open_table(PAY_OPEN)?;
    tx.open_table(HOLDS)?;
    let mut meta = tx.open_table(META)?;
    let boot = meta.get("boot")?.map_or(0, |boot| boot.value()) + 1;
    meta.insert("schema", SCHEMA)?;
    meta.insert("boot", boot)?;
    Ok(())
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
            Some(SCHEMA) => Ok(()),
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

fn boot(tx: &ReadTransaction) -> Result<u64, Broken> {
    let meta = tx.open_table(META).map_err(|error| Broken::new("read meta", error))?;
    let boot = meta.get("boot").map_err(|error| Broken::new("read meta", error))?;
    Ok(boot.map_or(0, |boot| boot.value()))
}

fn apply<'a>(tx: &WriteTransaction, writes: impl Iterator<Item = &'a Write>) -> Result<(), redb::Error> {
    let mut balances = tx.open_table(BALANCES)?;
    let mut postings = tx.open_table(POSTINGS)?;
    let mut by_wallet = tx.open_table(BY_WALLET)?;
    let mut payments = tx.open_table(PAYMENTS)?;
    let mut pay_open = tx.open_table(PAY_OPEN)?;
    let mut holds = tx.open_table(HOLDS)?;
    // Within one commit only the last of each row matters: a call that ends is written once, however many steps it took.
    let (mut last, mut last_payments, mut last_holds) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
    for write in writes {
        match write {
            Write::Balance(account, balance) => {
                last.insert(account, *balance);
            }
            Write::Posting(seq, leg, posting) => {
                postings.insert((*seq, *leg), posting.to_bytes().as_slice())?;
                if let Account::Wallet(wallet) = &posting.account {
                    by_wallet.insert((wallet.to_bytes().as_slice(), *seq), *leg)?;
                }
            }
            Write::Payment(id, row) => _ = last_payments.insert(id, row),
            Write::Hold(request, hold) => _ = last_holds.insert(request, hold),
        }
    }
    for (id, row) in last_payments {
        payments.insert(&id.0, to_json(row).as_slice())?;
        // Looking is cheaper than writing: most steps of a payment leave the list as it is.
        let is_listed = pay_open.get(&id.0)?.is_some();
        match row.is_open() {
            true if !is_listed => _ = pay_open.insert(&id.0, ())?,
            false if is_listed => _ = pay_open.remove(&id.0)?,
            _ => {}
        }
    }
    for (request, hold) in last_holds {
        match hold {
            Some(hold) => _ = holds.insert(request.0, to_json(hold).as_slice())?,
            None => _ = holds.remove(request.0)?,
        }
    }
    for (account, balance) in last {
        balances.insert(account.to_key().as_slice(), balance)?;
    }
    Ok(())
}

fn for_each<K: redb::Key + 'static, V: redb::Value + 'static>(
    tx: &ReadTransaction,
    table: TableDefinition<K, V>,
    mut visit: impl FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let rows = tx.open_table(table).map_err(|error| Broken::new("read", error))?;
    for row in rows.iter().map_err(|error| Broken::new("read", error))? {
        let (key, value) = row.map_err(|error| Broken::new("read", error))?;
        visit(key.value(), value.value())?;
    }
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Broken> {
    serde_json::from_slice(bytes).map_err(|error| Broken::examine("read a row", error))
}

fn to_json(row: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows have string keys and no failing serializers")
}
