//! Copies of the books: made while the gateway sells, whole, and put back where there are none.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use farebox_rig::http::Answer;
use farebox_rig::process::{eventually, free_port, run};
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

/// What many at once do to a shop for as long as somebody makes backups of it, and what was acknowledged to them.
#[derive(Default)]
struct Busy {
    over: AtomicBool,
    /// Calls of the one owner's keys, and calls that the other one's payments paid for.
    calls: Mutex<Vec<String>>,
    sales: Mutex<Vec<String>>,
    /// Texts of keys that were minted, and micros that the other owner paid for calls.
    keys: Mutex<Vec<String>>,
    paid: AtomicU64,
}

impl Busy {
    fn until_over(&self, mut work: impl FnMut()) {
        while !self.over.load(Ordering::Relaxed) {
            work();
        }
    }

    fn note(list: &Mutex<Vec<String>>, answer: &Answer) {
        assert!(answer.status == 200 && answer.complete, "{}", answer.text());
        list.lock().unwrap().push(answer.header("x-request-id").unwrap().to_owned());
    }

    /// The latest that were acknowledged by now.
    fn latest(list: &Mutex<Vec<String>>) -> Vec<String> {
        list.lock().unwrap().iter().rev().take(20).cloned().collect()
    }
}

/// A backup, and what was acknowledged before it.
struct Round {
    folder: PathBuf,
    paid_in: u64,
    keys: Vec<String>,
    calls: Vec<String>,
    sales: Vec<String>,
}

/// Whether the receipts of all these calls can be read by the owner, each over what such a call costs.
fn has_receipts(shop: &Shop, owner: &Owner, calls: &[String]) -> bool {
    let session = shop.session(owner);
    calls.iter().all(|call| {
        let answer = shop.ask("GET", &format!("/api/receipts/{call}"), &session, None);
        answer.status == 200 && (answer.json()["charge_usd"].as_f64().unwrap() * 1e6).round() as i64 == CHARGE
    })
}

/// What was topped up, in the books of a gateway that is stopped.
fn topped_up(shop: &Shop) -> u64 {
    let (code, printed, said) = run(shop.server.command(&["export", "--what", "payments", "--format", "jsonl"]), "");
    assert_eq!(code, 0, "{said}");
    let rows = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["top_up"] == "true").map(|row| row["amount_micros"].as_u64().unwrap()).sum()
}

/// Has everybody stop, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn back_up(shop: &Shop, (owner, payer): (&Owner, &Owner), busy: &Busy, (place, number): (&Path, u64)) -> Round {
    shop.top_up(owner, DOLLAR);
    let (calls, sales) = (Busy::latest(&busy.calls), Busy::latest(&busy.sales));
    // A charge is in the books a moment after the last byte of its answer.
    eventually("what was answered is in the books", || has_receipts(shop, owner, &calls) && has_receipts(shop, payer, &sales));
    let keys = busy.keys.lock().unwrap().clone();
    let folder = place.join(number.to_string());
    let (code, printed, said) = shop.operator(&["backup", text(&folder)]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(printed["files"], json!(["ledger.redb", "keys.pepper", "prices.json"]));
    Round { folder, paid_in: (number + 2) * DOLLAR, keys, calls, sales }
}

#[test]
fn a_backup_made_while_everybody_is_busy_has_everything_that_was_acknowledged_before_it() {
    let (mut shop, owner, payer, place) = (Shop::open(), Owner::new(1), Owner::new(2), TempDir::new().unwrap());
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "busy" }));
    let busy = Busy::default();
    let rounds: Vec<Round> = thread::scope(|scope| {
        let _over = Over(&busy.over);
        for _ in 0..2 {
            scope.spawn(|| busy.until_over(|| Busy::note(&busy.calls, &shop.call(&key, MODEL))));
        }
        scope.spawn(|| {
            busy.until_over(|| {
                let (answer, amount) = shop.buy(&payer);
                busy.paid.fetch_add(amount, Ordering::Relaxed);
                Busy::note(&busy.sales, &answer);
            })
        });
        scope.spawn(|| {
            busy.until_over(|| {
                let (id, key) = shop.mint(&owner, &json!({ "name": "new" }));
                if busy.keys.lock().unwrap().len() < 5 {
                    return busy.keys.lock().unwrap().push(key);
                }
                let revoked = shop.ask("POST", &format!("/api/keys/{id}/revoke"), &shop.sign_in(&owner), None);
                assert_eq!(revoked.status, 200, "{}", revoked.text());
            })
        });
        (0..4).map(|number| back_up(&shop, (&owner, &payer), &busy, (place.path(), number))).collect()
    });
    shop.wait_settled(&owner);
    shop.wait_settled(&payer);
    let left = fs::read_dir(shop.server.data_dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("copy-")).count(), 0, "no copy is left behind");
    shop.server.signal();
    shop.server.wait_exit();
    let kept = lose(&shop, "kept");
    rounds.iter().for_each(|round| has_all(&mut shop, (&owner, &payer), round));
    fs::rename(kept, shop.server.data_dir()).unwrap();
    shop.server.restart();
    let (calls, sales) = (busy.calls.lock().unwrap().len() as u64, busy.sales.lock().unwrap().len() as u64);
    assert!(calls > 0 && sales > 0 && rounds.iter().any(|round| !round.sales.is_empty()));
    let paid = busy.paid.load(Ordering::Relaxed);
    shop.close(&[(&owner, 5 * DOLLAR - calls * CHARGE as u64), (&payer, paid - sales * CHARGE as u64)]);
}

/// Puts a backup back, looks for all that was acknowledged before it was made, and takes it away again.
fn has_all(shop: &mut Shop, (owner, payer): (&Owner, &Owner), round: &Round) {
    let (code, printed, said) = restore(shop, &round.folder);
    assert_eq!((code, &printed["not_in_the_books"]), (0, &json!([])), "{said}");
    let books = shop.server.verify(&[]);
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(fs::metadata(shop.server.data_dir().join("keys.pepper")).unwrap().permissions().mode() & 0o777, 0o600);
    shop.server.restart();
    assert!(has_receipts(shop, owner, &round.calls) && has_receipts(shop, payer, &round.sales), "a call is forgotten");
    assert!(round.keys.iter().all(|key| shop.knocks(key).0 == 200), "keys work as they did then");
    shop.server.signal();
    shop.server.wait_exit();
    assert_eq!(topped_up(shop), round.paid_in, "every top-up of before, and none of after it");
    assert!(shop.server.verify(&[]).clean);
    fs::remove_dir_all(shop.server.data_dir()).unwrap();
}

#[test]
fn a_sign_in_that_was_used_after_the_backup_is_good_for_nothing_after_the_restore() {
    let (mut shop, owner, place) = (Shop::open(), Owner::new(1), TempDir::new().unwrap());
    // Sign-ins are for the address at which it is found again.
    shop.server.reconfigure(|text| text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port())));
    shop.server.restart();
    shop.top_up(&owner, DOLLAR);
    let folder = place.path().join("backup");
    assert_eq!(shop.operator(&["backup", text(&folder)]).0, 0);
    let (used, unused) = (shop.sign_in(&owner), shop.sign_in(&owner));
    let wish = json!({ "name": "k" });
    assert_eq!(shop.ask("POST", "/api/keys", &used, Some(&wish)).status, 200);
    assert_eq!(shop.ask("POST", "/api/keys", &used, Some(&wish)).status, 401, "it is good for once");
    shop.server.signal();
    shop.server.wait_exit();
    fs::remove_dir_all(shop.server.data_dir()).unwrap();
    // Wallets sign with a time in whole seconds.
    let signed = shop.now().secs();
    eventually("the clock goes on", || shop.now().secs() > signed);
    assert_eq!(restore(&shop, &folder).0, 0);
    shop.server.restart();
    for proof in [&used, &unused] {
        let answer = shop.ask("POST", "/api/keys", proof, Some(&wish));
        let answer = (answer.status, answer.json());
        assert_eq!((answer.0, &answer.1["error"]["code"]), (401, &json!("invalid_sign_in")), "{answer:?}");
        assert!(answer.1.to_string().contains("sign again"), "{answer:?}");
    }
    assert_eq!(shop.listed(&owner), [], "no key was made, and a new sign-in is taken");
    assert_eq!(shop.ask("POST", "/api/keys", &shop.sign_in(&owner), Some(&wish)).status, 200);
    shop.close(&[(&owner, DOLLAR)]);
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
