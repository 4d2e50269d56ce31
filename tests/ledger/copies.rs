//! Copies and histories of the books: none is left behind, none takes the ledger's room, and no receipt is missing from its day.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use farebox::clock::Timestamp;
use farebox::ids::RequestId;
use farebox::ledger::{History, Ledger, Options, Receipt, Span, room_for};
use farebox::money::Micros;
use tempfile::TempDir;

use super::disk::Disk;
use super::prepaid::{DAY, HOUR, new, open, post, top_up};
use super::{Hands, NOON, draw, wait, wallet};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_takes_forgotten_ones_away_and_leaves_nothing_once_it_is_open() {
    let (folder, hands) = (TempDir::new().unwrap(), Hands::at(NOON));
    let (ledger, _) = Ledger::open(&folder.path().join("ledger.redb"), hands.clock(), Options::default()).unwrap();
    top_up(&ledger, 1000);
    for (name, age) in [("copy-old.redb", 2 * HOUR), ("copy-new.redb", HOUR / 2), ("copy-old.txt", 2 * HOUR)] {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_millis(NOON - age)).unwrap();
    }
    let copy = ledger.copy_beside(7).unwrap();
    let rest = ["copy-new.redb", "copy-old.txt", "ledger.redb", "lock"];
    let all = [&[copy.file_name().unwrap().to_str().unwrap()][..], &rest].concat();
    assert_eq!(names(folder.path()), all, "one that somebody may be about to open stays");
    let history = History::of_copy(&copy).unwrap();
    assert_eq!(names(folder.path()), rest, "whoever reads the copy may die now");
    let mut sum = 0;
    history.balances(|_, micros| sum += micros.max(0)).unwrap();
    assert_eq!(sum, 1000, "and it is still read");
    drop(history);
    ledger.close();
}

#[test]
fn a_copy_that_would_fill_the_disk_is_refused() {
    let folder = TempDir::new().unwrap();
    assert_eq!(room_for(folder.path(), 1).map_err(|broken| broken.to_string()), Ok(()));
    let said = room_for(folder.path(), 1 << 60).unwrap_err().to_string();
    assert!(said.contains("make room on the disk"), "{said}");
}

#[test]
fn a_call_that_was_charged_after_days_of_standstill_is_in_the_history_of_that_day() {
    let (ledger, disk, hands): (Ledger, Disk, Hands) = new();
    top_up(&ledger, 1000);
    let came = |at: u64, n: u8| RequestId::new(Timestamp::from_millis(at), [n; 10]).0;
    let take = |ledger: &Ledger, at: u64, n: u8| {
        let held = wait(ledger.reserve(draw(wallet(1), 100, came(at, n)))).unwrap();
        held.paid().ok().expect("a balance is there")
    };
    // A long one, and one that came and ended while it ran.
    let crashed = take(&ledger, NOON, 1);
    crashed.checkpoint(Micros::new(60));
    hands.set(NOON + HOUR);
    assert_eq!(post(take(&ledger, NOON + HOUR, 2), 5), 5);
    ledger.flush().unwrap().wait_blocking().unwrap();
    std::mem::forget(crashed);
    ledger.close();

    hands.set(NOON + 9 * DAY);
    let ledger = open(&disk.reopened(), &hands);
    assert_eq!(post(take(&ledger, NOON + 9 * DAY, 3), 7), 7);
    ledger.flush().unwrap().wait_blocking().unwrap();
    let charges = |day: u64| {
        let day = Timestamp::from_millis(day).day();
        let mut found = Vec::new();
        let visit = |_, receipt: Receipt| {
            found.push(receipt.charge);
            ControlFlow::Continue(())
        };
        assert!(ledger.history().unwrap().receipts(Span { from: day, until: day }, visit).unwrap().is_continue());
        found
    };
    assert_eq!([charges(NOON), charges(NOON + 5 * DAY), charges(NOON + 9 * DAY)], [vec![5], vec![], vec![60, 7]]);
    assert!(ledger.verify().unwrap().ok);
    assert_eq!(ledger.available(wallet(1)), Micros::new(1000 - 5 - 60 - 7));
}

#[test]
fn no_start_makes_books_where_others_are_being_put_back() {
    let folder = TempDir::new().unwrap();
    let (books, half) = (folder.path().join("ledger.redb"), folder.path().join("ledger.restored"));
    fs::write(&half, "half of them").unwrap();
    let start = || Ledger::open(&books, Hands::at(NOON).clock(), Options::default()).map(|(ledger, _)| ledger.close());
    let said = start().unwrap_err().to_string();
    assert!(said.contains("run farebox restore with its backup again"), "{said}");
    assert!(!books.exists(), "nothing was made");
    fs::remove_file(&half).unwrap();
    start().unwrap();
}
