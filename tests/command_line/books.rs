//! `farebox verify`: clean books are said to be clean, changed ones are not, and nobody opens the books of somebody else.

use std::fs::{self, File};
use std::path::Path;

use farebox_rig::http::Request;
use farebox_rig::process::run;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::shipped;

const TRANSFERS: TableDefinition<u64, &[u8]> = TableDefinition::new("transfers");
const BALANCES: TableDefinition<&[u8], (i64, u64)> = TableDefinition::new("balances");

fn sold_one() -> farebox_rig::server::Server {
    let server = shipped();
    let (code, _, stderr) = run(server.command(&["pay", "--url", &server.url(), "hi"]), "");
    assert_eq!(code, 0, "{stderr}");
    server
}

#[test]
fn a_second_gateway_on_the_same_books_is_refused_and_the_first_goes_on() {
    let server = sold_one();
    let (code, stdout, stderr) = run(server.command(&["serve"]), "");
    assert_eq!(code, 70, "another start helps once the first has ended: {stderr}");
    assert!(!stdout.contains("listening"), "{stdout}");
    assert!(stderr.contains("another farebox has these books open"), "{stderr}");
    let (code, stdout, stderr) = run(server.command(&["verify"]), "");
    assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
    assert!(stderr.contains("stop it first"), "{stderr}");
    assert_eq!(server.send(&Request::get("/healthz")).status, 200);
    let (code, _, stderr) = run(server.command(&["pay", "--url", &server.url(), "hi"]), "");
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn books_that_somebody_changed_are_not_clean() {
    for (what, change, complaint) in [
        ("an amount in the journal", change_a_transfer as fn(&Path), "hash chain"),
        ("a balance", change_a_balance as fn(&Path), "its postings sum to"),
        ("a row is gone", remove_a_transfer as fn(&Path), "missing"),
    ] {
        let mut server = sold_one();
        assert!(server.audit().clean);
        change(&server.data_dir().join("ledger.redb"));
        let books = server.verify(&[]);
        assert!(!books.clean, "{what}: {:#}", books.json);
        assert_eq!(books.json["ok"], false);
        assert!(books.json["problems"].to_string().contains(complaint), "{what}: {:#}", books.json);
        let (code, stdout, stderr) = run(server.command(&["serve"]), "");
        assert_eq!(code, 1, "{what}: no restart helps: {stderr}");
        assert!(!stdout.contains("listening") && stderr.contains("run farebox verify"), "{what}: {stdout}{stderr}");
    }
}

#[test]
fn empty_books_are_neither_sold_on_nor_checked_nor_filled_in() {
    let mut server = sold_one();
    assert!(server.audit().clean);
    let file = server.data_dir().join("ledger.redb");
    std::fs::write(&file, "").unwrap();
    for command in [&["serve"][..], &["verify"], &["verify", "--repair-derived"]] {
        let (code, stdout, stderr) = run(server.command(command), "");
        assert_eq!((code, stdout.as_str()), (1, ""), "{command:?}: {stderr}");
        assert!(stderr.contains("the books are empty: restore them"), "{command:?}: {stderr}");
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "{command:?} wrote into it");
    }
}

/// A backup of books in which one call was sold, and the gateway of them stopped, with nothing in its data folder.
fn lost(server: &mut farebox_rig::server::Server, backup: &Path) {
    let (code, _, stderr) = run(server.command(&["backup", backup.to_str().unwrap()]), "");
    assert_eq!(code, 0, "{stderr}");
    assert!(server.audit().clean);
    fs::rename(server.data_dir(), server.data_dir().with_extension("lost")).unwrap();
    fs::create_dir(server.data_dir()).unwrap();
}

#[test]
fn a_restore_that_was_cut_off_is_repeated_and_no_start_makes_empty_books_before() {
    let (mut server, place) = (sold_one(), tempfile::TempDir::new().unwrap());
    let backup = place.path().join("backup");
    lost(&mut server, &backup);
    let data = |name: &str| server.data_dir().join(name);
    let bytes = fs::read(backup.join("ledger.redb")).unwrap();
    fs::write(data("ledger.restored"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(data("keys.pepper"), "of another backup").unwrap();
    for command in [&["serve"][..], &["account", "0x0000000000000000000000000000000000000001"]] {
        let (code, stdout, stderr) = run(server.command(command), "");
        assert_eq!((code, stdout.as_str()), (78, ""), "{command:?}: {stderr}");
        assert!(stderr.contains("run farebox restore with its backup again"), "{command:?}: {stderr}");
    }
    assert!(!data("ledger.redb").exists(), "no books were made");
    let (code, stdout, stderr) = run(server.command(&["restore", backup.to_str().unwrap()]), "");
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(r#""calls_under_way": []"#), "{stdout}");
    assert!(!data("ledger.restored").exists(), "the next start makes nothing of it");
    assert_eq!(fs::read(data("keys.pepper")).unwrap(), fs::read(backup.join("keys.pepper")).unwrap());
    assert!(server.verify(&[]).clean);
    server.restart();
    assert!(server.audit().clean);
}

#[test]
fn a_restore_puts_nothing_where_another_program_keeps_the_folder() {
    let (mut server, place) = (sold_one(), tempfile::TempDir::new().unwrap());
    let backup = place.path().join("backup");
    lost(&mut server, &backup);
    let lock = File::create(server.data_dir().join("lock")).unwrap();
    lock.lock().unwrap();
    let restore = || run(server.command(&["restore", backup.to_str().unwrap()]), "");
    let (code, stdout, stderr) = restore();
    assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
    assert!(stderr.contains("another farebox has these books open"), "{stderr}");
    assert_eq!(fs::read_dir(server.data_dir()).unwrap().count(), 1, "only the lock is there");
    drop(lock);
    let (code, _, stderr) = restore();
    assert_eq!(code, 0, "{stderr}");
    assert!(server.verify(&[]).clean);
}

/// One micro more or less; the amount stands after the eight bytes of the row's hash.
fn change_a_transfer(file: &Path) {
    let (key, mut row) = first_transfer(file);
    row[15] ^= 1;
    edit(file, |tx| {
        tx.open_table(TRANSFERS).unwrap().insert(key, row.as_slice()).unwrap();
    });
}

fn remove_a_transfer(file: &Path) {
    let (key, _) = first_transfer(file);
    edit(file, |tx| {
        tx.open_table(TRANSFERS).unwrap().remove(key).unwrap();
    });
}

fn change_a_balance(file: &Path) {
    edit(file, |tx| {
        let mut table = tx.open_table(BALANCES).unwrap();
        let first = table.first().unwrap().map(|(key, balance)| (key.value().to_vec(), balance.value()));
        let (key, balance) = first.unwrap();
        table.insert(key.as_slice(), (balance.0 + 1, balance.1)).unwrap();
    });
}

fn first_transfer(file: &Path) -> (u64, Vec<u8>) {
    let db = Database::open(file).unwrap();
    let table = db.begin_read().unwrap().open_table(TRANSFERS).unwrap();
    let (key, row) = table.first().unwrap().unwrap();
    (key.value(), row.value().to_vec())
}

fn edit(file: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let tx = Database::open(file).unwrap();
    let tx = tx.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
}
