//! Copies of the books: made while the gateway sells, whole, and put back where there are none.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use farebox_rig::process::{eventually, run};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::owner::{CHARGE, DOLLAR, MODEL, Owner, Shop};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Takes the data folder away; returns where it is now.
fn lose(shop: &Shop, name: &str) -> PathBuf {
    let away = shop.server.data_dir().with_extension(name);
    fs::rename(shop.server.data_dir(), &away).unwrap();
    away
}

fn restore(shop: &Shop, folder: &Path) -> (i32, Value, String) {
    shop.operator(&["restore", text(folder)])
}

/// A backup, and what was acknowledged before it.
struct Round {
    folder: PathBuf,
    key: String,
    paid_in: u64,
}

#[test]
fn a_backup_made_while_calls_run_has_everything_that_was_acknowledged_before_it() {
    let (mut shop, owner, place) = (Shop::open(), Owner::new(1), TempDir::new().unwrap());
    shop.top_up(&owner, DOLLAR);
    let (_, busy) = shop.mint(&owner, &json!({ "name": "busy" }));
    let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds: Vec<Round> = thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    served.fetch_add(u64::from(shop.call(&busy, MODEL).status == 200), Ordering::Relaxed);
                }
            });
        }
        let round = |number: u64| {
            shop.top_up(&owner, DOLLAR);
            let (_, key) = shop.mint(&owner, &json!({ "name": "new" }));
            let folder = place.path().join(number.to_string());
            let (code, printed, said) = shop.operator(&["backup", text(&folder)]);
            assert_eq!(code, 0, "{said}");
            assert_eq!(printed["files"], json!(["ledger.redb", "keys.pepper", "prices.json"]));
            Round { folder, key, paid_in: (number + 2) * DOLLAR }
        };
        let rounds = (0..3).map(round).collect();
        over.store(true, Ordering::Relaxed);
        rounds
    });
    shop.wait_settled(&owner);
    let left = fs::read_dir(shop.server.data_dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("copy-")).count(), 0, "no copy is left behind");
    shop.server.signal();
    shop.server.wait_exit();
    let kept = lose(&shop, "kept");
    for (number, round) in rounds.iter().enumerate() {
        let (code, printed, said) = restore(&shop, &round.folder);
        assert_eq!((code, &printed["not_in_the_books"]), (0, &json!([])), "{said}");
        let books = shop.server.verify(&[]);
        assert!(books.clean, "{:#}", books.json);
        let house = books.json["house"].as_object().unwrap().iter();
        let came_in: i64 =
            house.filter(|(name, _)| name.starts_with("external")).map(|(_, micros)| -micros.as_i64().unwrap()).sum();
        assert_eq!(came_in, round.paid_in as i64, "every top-up of before backup {number}, and none of after it");
        assert_eq!(fs::metadata(shop.server.data_dir().join("keys.pepper")).unwrap().permissions().mode() & 0o777, 0o600);
        shop.server.restart();
        let known: Vec<_> = rounds.iter().map(|round| shop.knocks(&round.key).0).collect();
        let expected: Vec<_> = (0..rounds.len()).map(|other| if other <= number { 200 } else { 401 }).collect();
        assert_eq!(known, expected, "keys work as they did then");
        shop.server.signal();
        shop.server.wait_exit();
        fs::remove_dir_all(shop.server.data_dir()).unwrap();
    }
    fs::rename(kept, shop.server.data_dir()).unwrap();
    shop.server.restart();
    let spent = served.load(Ordering::Relaxed) * CHARGE as u64;
    assert!(spent > 0);
    shop.close(&[(&owner, 4 * DOLLAR - spent)]);
}

#[test]
fn a_backup_writes_over_nothing_and_a_damaged_one_is_not_put_back() {
    let (mut shop, owner, place) = (Shop::open(), Owner::new(1), TempDir::new().unwrap());
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let folder = place.path().join("one");
    assert_eq!(shop.operator(&["backup", text(&folder)]).0, 0);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&folder), mode(&folder.join("ledger.redb")), mode(&folder.join("keys.pepper"))], [0o700, 0o600, 0o600]);
    let before = fs::read(folder.join("ledger.redb")).unwrap();
    let (code, _, said) = shop.operator(&["backup", text(&folder)]);
    assert!(code == 2 && said.contains("writes over nothing"), "{code} {said}");
    assert_eq!(fs::read(folder.join("ledger.redb")).unwrap(), before);
    // Neither a gateway that runs nor one that is stopped loses its books to a restore.
    for _ in 0..2 {
        let (code, _, said) = restore(&shop, &folder);
        assert!(code == 2 && said.contains("nothing is written over"), "{code} {said}");
        if shop.server.is_running() {
            shop.server.signal();
            shop.server.wait_exit();
        }
    }
    // Of one that is stopped a backup is the same.
    let stopped = place.path().join("two");
    assert_eq!(shop.operator(&["backup", text(&stopped)]).0, 0);
    let kept = lose(&shop, "kept");
    for (name, at) in [("ledger.redb", 5000), ("keys.pepper", 20)] {
        let path = stopped.join(name);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (code, _, said) = restore(&shop, &stopped);
        assert!(code == 1 && said.contains("is not what was backed up"), "{name}: {code} {said}");
        assert!(!shop.server.data_dir().join("ledger.redb").exists(), "nothing was put there");
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(restore(&shop, &stopped).0, 0);
    shop.server.restart();
    assert_eq!(shop.knocks(&key).0, 200, "the index of keys was made anew");
    fs::remove_dir_all(kept).unwrap();
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn a_backup_without_the_pepper_of_its_keys_is_none_and_leaves_nothing() {
    let (shop, owner, place) = (Shop::open(), Owner::new(1), TempDir::new().unwrap());
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let (pepper, aside) = (shop.server.data_dir().join("keys.pepper"), place.path().join("aside"));
    fs::rename(&pepper, &aside).unwrap();
    let folder = place.path().join("one");
    let (code, _, said) = shop.operator(&["backup", text(&folder)]);
    assert!(code == 1 && said.contains("no backup was made"), "{code} {said}");
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["aside"], "neither a backup nor half of one");
    fs::rename(&aside, &pepper).unwrap();
    assert_eq!(shop.operator(&["backup", text(&folder)]).0, 0);
    assert_eq!(shop.knocks(&key).0, 200);
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn a_copy_whose_asker_has_gone_is_taken_away() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let data = shop.server.data_dir();
    let folder_changed = || fs::metadata(&data).map(|metadata| (metadata.mtime(), metadata.mtime_nsec())).unwrap();
    let before = folder_changed();
    let mut asker = UnixStream::connect(data.join("operator.sock")).unwrap();
    asker.write_all(b"\"copy_books\"\n").unwrap();
    drop(asker);
    shop.server.has_said("the operator asked to copy the books: done");
    shop.server.has_said("a command of the operator broke off");
    assert_ne!(folder_changed(), before, "there was a copy");
    eventually("the copy is gone", || {
        let names = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.into_iter().all(|name| !name.starts_with("copy-"))
    });
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn the_books_are_exported_row_by_row_from_a_gateway_that_runs_and_from_one_that_does_not() {
    let (mut shop, owner, place) = (Shop::open(), Owner::new(1), TempDir::new().unwrap());
    shop.top_up(&owner, DOLLAR);
    let (id, key) = shop.mint(&owner, &json!({ "name": "k" }));
    assert_eq!([shop.call(&key, MODEL).status, shop.call(&key, MODEL).status], [200, 200]);
    shop.wait_settled(&owner);
    let export = |shop: &Shop, arguments: &[&str]| {
        let (code, printed, said) = run(shop.server.command(&[&["export", "--what"], arguments].concat()), "");
        assert_eq!(code, 0, "{arguments:?}: {said}");
        printed
    };
    let all = |shop: &Shop| {
        ["postings", "receipts", "payments", "accounts", "jobs"].map(|what| export(shop, &[what, "--format", "jsonl"]))
    };
    let running = all(&shop);
    let rows = |printed: &str| printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let [postings, receipts, payments, accounts, jobs] = [0, 1, 2, 3, 4].map(|what| rows(&running[what]));
    let kinds: Vec<_> = postings.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["payment", "credit", "charge", "charge"]);
    assert_eq!((receipts.len(), payments.len(), jobs.len()), (2, 1, 0));
    let told = ["key", "model", "upstream", "charge_micros", "cost_micros", "input"].map(|name| receipts[0][name].clone());
    assert_eq!(json!(told), json!([id, MODEL, "fake", CHARGE, null, 20]));
    assert_eq!((&payments[0]["top_up"], &payments[0]["amount_micros"]), (&json!("true"), &json!(DOLLAR)));
    assert_eq!(accounts.iter().map(|row| row["balance_micros"].as_i64().unwrap()).sum::<i64>(), 0, "of all accounts together");
    let csv = export(&shop, &["receipts"]);
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.starts_with("request,ended_at,account,key,"), "{csv}");
    assert_eq!(export(&shop, &["postings", "--until", "2020-01-01"]), "", "none are that old");
    shop.server.signal();
    shop.server.wait_exit();
    assert_eq!(all(&shop), running);
    let file = place.path().join("receipts.csv");
    assert_eq!(export(&shop, &["receipts", "-o", text(&file)]), "");
    assert_eq!(fs::read_to_string(&file).unwrap(), csv);
    let (code, _, said) = run(shop.server.command(&["export", "--what", "receipts", "-o", text(&file)]), "");
    assert!(code == 1 && said.contains("exists"), "{code} {said}");
    let (code, _, said) = run(shop.server.command(&["export", "--what", "jobs", "--from", "never"]), "");
    assert!(code == 2 && said.contains("is not a day such as"), "{code} {said}");
    shop.server.restart();
    shop.close(&[(&owner, DOLLAR - 2 * CHARGE as u64)]);
}
