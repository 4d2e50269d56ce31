//! Books that an earlier version wrote are read, checked and carried on; what it did not write down is unknown, not nothing.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use farebox::clock::Timestamp;
use farebox::ids::{JobId, RequestId};
use farebox::ledger::{FILE, Ledger, Options, Report, Service, Span};
use farebox::money::Micros;
use farebox::tariff::Usage;
use redb::{Database, ReadableDatabase as _, TableDefinition};
use tempfile::TempDir;

use super::{NOON, clock, draw, payment, wait, wallet};

/// The ledger of a gateway of layout 5, as its file was: a top-up and a paid call, a call by key and allowance of which a part
/// was given back, a job, a call that was cut off when it owed 33, and a payment that nobody signed. Runs of bytes that are not
/// nothing, each behind its place and length.
const LAYOUT_5: &[u8] = include_bytes!("layout-5.runs");

fn books(folder: &TempDir) -> PathBuf {
    let (length, mut rest) = LAYOUT_5.split_at(4);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    let mut file = vec![0; number(length)];
    while !rest.is_empty() {
        let (place, run) = (number(rest), number(&rest[4..]));
        file[place..place + run].copy_from_slice(&rest[8..8 + run]);
        rest = &rest[8 + run..];
    }
    let path = folder.path().join(FILE);
    fs::write(&path, file).unwrap();
    path
}

fn layout(path: &Path) -> u64 {
    let db = Database::open(path).unwrap();
    let meta = db.begin_read().unwrap().open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
    meta.get("schema").unwrap().unwrap().value()
}

#[test]
fn books_of_layout_5_are_checked_as_they_are_and_carried_on() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let report = Report::of_file(&path, |_| ()).unwrap();
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!((report.receipts, report.postings, layout(&path)), (3, 16, 5), "a check changes no layout");
    let before = fs::read(&path).unwrap();
    assert!(Report::of_file(&path, |_| ()).unwrap().ok);
    assert_eq!(fs::read(&path).unwrap().len(), before.len());

    let (ledger, recovered) = Ledger::open(&path, clock(), Options::default()).unwrap();
    assert_eq!((recovered.voided, recovered.charged), (1, 1));
    // 2,000 paid in; 500 of 800 and 100 of it back; 150 for the job; 33 of the call that was cut off.
    assert_eq!(ledger.standing(wallet(1)).unwrap().posted, Micros::new(2_000 - 500 + 100 - 150 - 33));
    assert_eq!(ledger.available(wallet(2)), Micros::new(600));
    assert!(ledger.payment(payment(2)).unwrap().is_some() && ledger.job(JobId(77)).unwrap().is_some());
    let old = ledger.receipt(RequestId(2)).unwrap().unwrap();
    assert_eq!((old.charge, old.refunded, old.input, old.upstream.as_str(), old.cost), (800, 100, 10, "", None));
    // Something more is given back of it, and a new call says of whom it was.
    wait(ledger.refund(RequestId(2), Some(Micros::new(150)))).unwrap();
    let call = wait(ledger.reserve(draw(wallet(1), 90, 9))).unwrap().paid().ok().unwrap();
    let usage = Usage { input: 4, ..Usage::default() };
    let _ = call.post(Micros::new(80), Service { usage, upstream: "one".into(), cost: Some(Micros::new(60)) });
    ledger.flush().unwrap().wait_blocking().unwrap();
    let new = ledger.receipt(RequestId(9)).unwrap().unwrap();
    assert_eq!((new.upstream.as_str(), new.cost, new.input), ("one", Some(60), 4));
    ledger.close();
    drop(ledger);
    let report = Report::of_file(&path, |_| ()).unwrap();
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!((report.receipts, layout(&path)), (5, 7));
}

#[test]
fn books_of_layout_6_have_nobody_barred_and_bar_a_wallet_from_the_next_start_on() {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    let open = || Ledger::open(&path, clock(), Options::default()).unwrap().0;
    let shut = |ledger: Ledger| {
        ledger.close();
        drop(ledger);
        let report = Report::of_file(&path, |_| ()).unwrap();
        assert!(report.ok, "{:?}", report.problems);
        report.blocked
    };
    assert_eq!(shut(open()), 0);
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    assert!(tx.delete_table(TableDefinition::<&[u8], &[u8]>::new("blocked")).unwrap(), "layout 6 had none");
    tx.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("schema", 6).unwrap();
    tx.commit().unwrap();
    drop(db);
    let report = Report::of_file(&path, |_| ()).unwrap();
    assert!(report.ok && report.blocked == 0 && layout(&path) == 6, "{:?}", report.problems);
    let ledger = open();
    assert_eq!(ledger.blocked().unwrap(), []);
    let (block, is_new) = wait(ledger.block(wallet(1), "spam")).unwrap();
    assert!(is_new && ledger.is_blocked(wallet(1)));
    assert_eq!(shut(ledger), 1);
    let ledger = open();
    assert_eq!((ledger.block_of(wallet(1)).unwrap(), blocked_in_a_copy(&ledger, &folder)), (Some(block), 1));
    assert_eq!(shut(ledger), 1);
}

/// How many wallets are barred in a copy of the books, as a backup has it.
fn blocked_in_a_copy(ledger: &Ledger, folder: &TempDir) -> usize {
    let copy = ledger.copy_beside(7).unwrap();
    assert_eq!(copy.parent(), Some(folder.path()));
    let mut count = 0;
    farebox::ledger::History::of_copy(&copy).unwrap().blocked(|_, _| count += 1).unwrap();
    count
}

#[test]
fn history_shows_the_days_that_were_asked_for_and_counts_a_fee_once() {
    let folder = TempDir::new().unwrap();
    let (ledger, _) = Ledger::open(&books(&folder), clock(), Options::default()).unwrap();
    let today = Timestamp::from_millis(NOON).day();
    let span =
        |from: u32, until: u32| Span { from: farebox::clock::Day(today.0 - from), until: farebox::clock::Day(today.0 - until) };
    for _ in 0..3 {
        ledger.paid_fee(payment(1), "0xaa", 21_000).unwrap();
    }
    ledger.paid_fee(payment(2), "0xbb", 5).unwrap();
    assert!(ledger.paid_fee(payment(9), "0xcc", 5).is_err(), "of no payment");
    ledger.flush().unwrap().wait_blocking().unwrap();
    let history = ledger.history().unwrap();
    let seen = |span| {
        let (mut transfers, mut fees) = (Vec::new(), Vec::new());
        let _ = history.transfers_back(span, |number, _| {
            transfers.push(number);
            ControlFlow::Continue(())
        });
        history.fees(span, |_, network, tx, amount| fees.push((network.to_owned(), tx.to_owned(), amount))).unwrap();
        (transfers, fees)
    };
    let (transfers, fees) = seen(span(1, 0));
    assert_eq!(transfers, (0..9).rev().collect::<Vec<_>>(), "the latest first");
    let network = || "eip155:84532".to_owned();
    assert_eq!(fees, [(network(), "0xaa".to_owned(), 21_000), (network(), "0xbb".to_owned(), 5)]);
    for empty in [span(9, 1), Span { from: farebox::clock::Day(today.0 + 1), until: farebox::clock::Day(today.0 + 9) }] {
        assert_eq!(seen(empty), (Vec::new(), Vec::new()), "{empty:?}");
    }
    drop(history);
    ledger.close();
}
