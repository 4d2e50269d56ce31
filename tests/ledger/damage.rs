//! Books that somebody or something has damaged: noticed, never sold on, and mended only where that is honest.

use std::path::{Path, PathBuf};

use farebox::ledger::{FILE, Ledger, Options, Remedy, Report, repair_derived};
use farebox::money::Micros;
use farebox::tariff::Usage;
use redb::{Database, ReadableTable as _, TableDefinition};
use tempfile::TempDir;

use super::{attempt, claim, clock, payment, wait, wallet};

const BALANCES: TableDefinition<&[u8], (i64, u64)> = TableDefinition::new("balances");
const PAYMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("payments");
const TRANSFERS: TableDefinition<u64, &[u8]> = TableDefinition::new("transfers");

/// A ledger with one served call, closed.
fn books(folder: &TempDir) -> PathBuf {
    let path = folder.path().join(FILE);
    let (ledger, _) = Ledger::open(&path, clock(), Options::default()).unwrap();
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap();
    ledger.signed(payment(1), attempt()).unwrap().wait_blocking().unwrap();
    ledger.confirmed(payment(1), "0xaa", 7).unwrap().wait_blocking().unwrap();
    let _ = reservation.paid().ok().unwrap().post(Micros::new(300), Usage::default());
    ledger.close();
    path
}

fn problems(path: &Path) -> Vec<String> {
    Report::of_file(path, |_| {}).unwrap().problems
}

fn is_refused(path: &Path) -> bool {
    Ledger::open(path, clock(), Options::default()).is_err()
}

#[test]
fn a_changed_balance_is_noticed_never_sold_on_and_made_anew_from_the_postings() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    assert_eq!(problems(&path), Vec::<String>::new());
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    let sales = tx.open_table(BALANCES).unwrap().insert(&b"S"[..], (1_000_000, 1)).unwrap().map(|old| old.value());
    assert_eq!(sales, Some((300, 1)));
    tx.commit().unwrap();
    drop(db);
    assert!(problems(&path).iter().any(|problem| problem.contains("sales has 1000000 micros, its postings sum to 300")));
    assert!(is_refused(&path));
    repair_derived(&path).unwrap();
    assert_eq!(problems(&path), Vec::<String>::new());
    assert!(!is_refused(&path));
}

#[test]
fn a_changed_transfer_breaks_the_hash_chain_and_no_repair_hides_it() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    {
        let mut transfers = tx.open_table(TRANSFERS).unwrap();
        let mut row = transfers.get(1).unwrap().unwrap().value().to_vec();
        // The last byte of the time: no sum notices.
        row[23] ^= 1;
        transfers.insert(1, row.as_slice()).unwrap();
    }
    tx.commit().unwrap();
    drop(db);
    repair_derived(&path).unwrap();
    assert!(problems(&path).iter().any(|problem| problem.contains("transfer 1 does not continue the hash chain")));
    assert!(is_refused(&path));
}

#[test]
fn a_missing_transfer_is_noticed() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(TRANSFERS).unwrap().remove(1).unwrap().unwrap();
    tx.commit().unwrap();
    drop(db);
    assert!(problems(&path).iter().any(|problem| problem.contains("transfer 1 is missing")));
    assert!(is_refused(&path));
}

#[test]
fn after_a_failed_write_the_next_start_reads_everything_into_a_new_file() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let mark = path.with_extension("suspect");
    std::fs::write(&mark, "fsync failed").unwrap();
    let (ledger, _) = Ledger::open(&path, clock(), Options::default()).unwrap();
    assert_eq!(ledger.available(wallet(1)), Micros::new(700));
    assert!(ledger.payment(payment(1)).unwrap().is_some(), "a used payment stays used");
    assert!(!mark.exists(), "mended once");
    ledger.close();
    drop(ledger);
    assert_eq!(problems(&path), Vec::<String>::new());
}

#[test]
fn an_empty_ledger_is_not_taken_for_a_new_one_and_nothing_writes_into_it() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    std::fs::write(&path, "").unwrap();
    let opened = Ledger::open(&path, clock(), Options::default()).err();
    let refused = [opened, Report::of_file(&path, |_| {}).err(), repair_derived(&path).err()];
    for broken in refused.map(|broken| broken.expect("it is refused")) {
        assert_eq!(broken.remedy, Remedy::Examine, "{broken}");
        assert!(broken.cause.contains("the books are empty: restore them"), "{broken}");
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    std::fs::remove_file(&path).unwrap();
    let (ledger, _) = Ledger::open(&path, clock(), Options::default()).expect("moved away, it starts anew");
    assert_eq!(ledger.available(wallet(1)), Micros::ZERO);
}

#[test]
fn a_database_without_books_is_not_taken_for_a_new_ledger() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    drop(Database::create(&path).unwrap());
    let opened = Ledger::open(&path, clock(), Options::default()).err();
    let refused = [opened, Report::of_file(&path, |_| {}).err(), repair_derived(&path).err()];
    for broken in refused.map(|broken| broken.expect("it is refused")) {
        assert_eq!(broken.remedy, Remedy::Examine, "{broken}");
    }
    let db = Database::open(&path).unwrap();
    assert_eq!(redb::ReadableDatabase::begin_read(&db).unwrap().list_tables().unwrap().count(), 0, "no table was made in it");
}

#[test]
fn a_second_program_neither_rewrites_nor_makes_books_while_the_folder_is_in_use() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let (mark, rewrite) = (path.with_extension("suspect"), path.with_extension("rewrite"));
    std::fs::write(&mark, "fsync failed").unwrap();
    std::fs::write(&rewrite, "half a copy of another program").unwrap();
    let before = std::fs::read(&path).unwrap();
    let lock = std::fs::File::open(folder.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let refused = || {
        let opened = Ledger::open(&path, clock(), Options::default()).err();
        for broken in [opened, Report::of_file(&path, |_| {}).err(), repair_derived(&path).err()] {
            let broken = broken.expect("it is refused");
            assert_eq!(broken.remedy, Remedy::Change, "{broken}");
            assert!(broken.cause.contains("another farebox has these books open"), "{broken}");
        }
    };
    refused();
    assert_eq!(std::fs::read(&rewrite).unwrap(), b"half a copy of another program");
    assert!(mark.exists() && std::fs::read(&path).unwrap() == before, "the books stay as they are");
    std::fs::remove_file(&path).unwrap();
    refused();
    assert!(!path.exists() && !path.with_extension("new").exists(), "nor are new ones made");
    std::fs::write(&path, before).unwrap();
    drop(lock);
    let (ledger, _) = Ledger::open(&path, clock(), Options::default()).unwrap();
    assert_eq!(ledger.available(wallet(1)), Micros::new(700));
    assert!(!mark.exists() && !rewrite.exists());
}

#[test]
fn what_a_death_left_of_making_a_ledger_is_removed_and_nobody_else_reads_the_books() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    std::fs::hard_link(&path, path.with_extension("new")).unwrap();
    drop(Ledger::open(&path, clock(), Options::default()).unwrap());
    assert!(!path.with_extension("new").exists(), "a second name would keep the file of a rewrite alive");
    for name in [FILE, "lock"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn money_that_was_counted_for_a_payment_nobody_knows_is_noticed() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(PAYMENTS).unwrap().remove(&payment(1).0).unwrap().unwrap();
    tx.commit().unwrap();
    drop(db);
    let served = "payments do not say of the calls that they paid for what the receipts say".to_owned();
    assert_eq!(problems(&path), [served, format!("money was counted for {}, which nobody knows", payment(1))]);
    assert!(is_refused(&path));
}

#[test]
fn the_check_of_a_gateway_at_work_ends_with_its_ledger() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let (ledger, _) = Ledger::open(&path, clock(), Options::default()).unwrap();
    let report = ledger.check_totals().unwrap().expect("it is open");
    assert!(report.ok && report.postings > 0, "{:?}", report.problems);
    assert_eq!(report.wallets.len(), 1);
    ledger.close();
    assert!(ledger.check_totals().unwrap().is_none(), "nobody waits for a check of closed books");
}
