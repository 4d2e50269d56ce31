//! Death while keys are opened or changed. The ledger's part is a journal of lines; the keys are driven by a process of their own.

#[path = "../../keys/desk.rs"]
mod desk;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use farebox::fault;
use farebox::keys::{Ended, FOLDER, PEPPER, Record, compare};
use farebox_rig::process::eventually;

use super::{TIMES, for_each};
use desk::{ALICE, Desk, NOW, journal, random};

/// What the process finds when it starts.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// An empty folder.
    Nothing,
    /// Keys in good order.
    Keys,
    /// All keys revoked, and no pepper.
    NoPepper,
    /// As if it had died before, in the middle of making one.
    HalfAPepper,
    /// No index.
    NoIndex,
    /// One that sled cannot open.
    Garbage,
    /// One that opens and does not say what the journal says.
    Holes,
    /// As if it had died before, in the middle of making one anew.
    HalfAnIndex,
    /// So many events are in the journal and not in the index.
    Behind(u64),
}

use Found::{Behind, Garbage, HalfAPepper, HalfAnIndex, Holes, NoIndex, NoPepper, Nothing};

/// Points that a start comes by once, and what makes it come by.
const AT_THE_START: [(&str, [Found; TIMES]); 6] = [
    ("keys.pepper.made", [Nothing, NoPepper, HalfAPepper, Nothing, NoPepper]),
    ("keys.pepper.placed", [Nothing, NoPepper, HalfAPepper, Nothing, NoPepper]),
    ("keys.index.made", [Nothing, NoIndex, Garbage, Holes, HalfAnIndex]),
    ("keys.index.aside", [Nothing, NoIndex, Garbage, Holes, HalfAnIndex]),
    ("keys.index.placed", [Nothing, NoIndex, Garbage, Holes, HalfAnIndex]),
    ("keys.index.caught", [Behind(1), Behind(2), Behind(3), Behind(20), Behind(200)]),
];

/// Points that every change comes by; the last two also a start that has something to write.
const AT_A_CHANGE: [&str; 5] = ["keys.apply.before", "keys.apply.after", "keys.inserted", "keys.flushed", "keys.synced"];

/// A test starts itself again with the fault and the folder in here.
const CHILD: &str = "TEST_CHANGE_KEYS_AND_DIE";

pub fn points() -> Vec<&'static str> {
    AT_THE_START.iter().map(|(point, _)| *point).chain(AT_A_CHANGE).collect()
}

#[test]
fn a_death_at_any_step_of_keys_leaves_every_key_as_the_journal_has_it() {
    if let Ok(order) = std::env::var(CHILD) {
        return change_and_die(&order);
    }
    let starts = AT_THE_START.iter().flat_map(|(point, founds)| founds.map(|found| (format!("{point}:1"), found)));
    let changes = AT_A_CHANGE.iter().flat_map(|point| (1..=TIMES).map(move |nth| (format!("{point}:{nth}"), Found::Keys)));
    // A start writes as well when it makes an index or brings one up to date.
    let writes = ["keys.flushed:1", "keys.synced:1"]
        .into_iter()
        .flat_map(|fault| [Nothing, NoIndex, Garbage, Behind(2)].map(|found| (fault.to_owned(), found)));
    for_each(&starts.chain(changes).chain(writes).collect::<Vec<_>>(), |(fault, found)| {
        let folder = tempfile::tempdir().unwrap();
        let what = format!("{fault} at a start that finds {found:?}");
        leave(folder.path(), *found);
        let acknowledged = die(folder.path(), fault, &what);
        // Dying there again is the same as dying there once, except where the first start has left nothing to do.
        if !["keys.pepper.placed", "keys.index.placed"].iter().any(|point| fault.starts_with(point)) && acknowledged.is_empty() {
            die(folder.path(), fault, &what);
        }
        recover(folder.path(), &acknowledged, &what);
    });
}

/// Brings the files into a state.
fn leave(folder: &Path, found: Found) {
    if let Nothing = found {
        return;
    }
    let desk = Desk::open(folder);
    let (id, _) = desk.mint(ALICE, 1000);
    desk.mint(ALICE, 1001);
    desk.revoke(id);
    if let NoPepper | HalfAPepper = found {
        let alive: Vec<_> = desk.keys.of(ALICE).unwrap();
        alive.iter().filter(|record| record.revoked_at.is_none()).for_each(|record| desk.revoke(record.id));
    }
    // Opened again once, so that it is as a stop in good order leaves it.
    let desk = desk.reopen(|_| {});
    if let Behind(events) = found {
        let record = desk.keys.get(id).unwrap().unwrap();
        for event in 0..events {
            desk.note(&Record { name: format!("event {event}"), ..record.clone() });
        }
    }
    drop(desk);
    spoil(folder, found);
}

fn spoil(folder: &Path, found: Found) {
    let (index, pepper) = (folder.join(FOLDER), folder.join(PEPPER));
    match found {
        Nothing | Found::Keys | Behind(_) => {}
        NoPepper => fs::remove_file(pepper).unwrap(),
        HalfAPepper => {
            fs::remove_file(pepper).unwrap();
            fs::write(folder.join("keys.pepper.new"), "farebox-pepper-1 AQEB").unwrap();
        }
        NoIndex => fs::remove_dir_all(index).unwrap(),
        Garbage => fs::write(index.join("db"), random(1).repeat(300)).unwrap(),
        Holes => {
            // What had it open lets go of it in its own time.
            let mut db = None;
            eventually("the index is free", || {
                db = sled::Config::new().path(&index).flush_every_ms(None).open().ok();
                db.is_some()
            });
            let db = db.unwrap();
            db.remove(db.scan_prefix([2]).keys().next().unwrap().unwrap()).unwrap();
            db.flush().unwrap();
        }
        HalfAnIndex => {
            fs::rename(index, folder.join("keys.new")).unwrap();
            fs::write(folder.join("keys.new").join("db"), "half").unwrap();
        }
    }
}

/// Runs the child until it dies at the point, and returns what it had acknowledged by then: keys, and whether they are alive.
fn die(folder: &Path, fault: &str, what: &str) -> BTreeMap<String, bool> {
    let (signal, acknowledged, said) = run(folder, fault);
    assert_eq!(signal, Some(6), "{what} was not reached: {said}");
    acknowledged
}

fn run(folder: &Path, fault: &str) -> (Option<i32>, BTreeMap<String, bool>, String) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "faults::keys::a_death_at_any_step_of_keys_leaves_every_key_as_the_journal_has_it", "--nocapture"]);
    let output = child.env(CHILD, format!("{fault} {}", folder.display())).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut acknowledged = BTreeMap::new();
    for line in printed.lines() {
        if let Some((state, text)) = line.split_once(" sk-x402-") {
            acknowledged.insert(format!("sk-x402-{text}"), state.ends_with("alive"));
        }
    }
    (output.status.signal(), acknowledged, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Starts twice: what the journal says is there, what was acknowledged is in it, and nothing more is set aside.
fn recover(folder: &Path, acknowledged: &BTreeMap<String, bool>, what: &str) {
    let events = journal(folder);
    let expected: BTreeMap<_, _> =
        events.iter().map(|(_, bytes)| Record::from_bytes(bytes).unwrap()).map(|record| (record.id, record)).collect();
    for start in 0..2 {
        let desk = Desk::open(folder);
        for (id, record) in &expected {
            assert_eq!(desk.keys.get(*id).unwrap().as_ref(), Some(record), "{what}, start {start}");
        }
        assert_eq!(desk.keys.of(ALICE).unwrap().len(), expected.len(), "{what}, start {start}: no key that nobody minted");
        for (text, alive) in acknowledged {
            let key = desk.keys.find(text).unwrap().unwrap_or_else(|| panic!("{what}, start {start}: a shown key is gone"));
            // The last may have been revoked without anybody having been told; none comes back to life.
            assert!(*alive || key.ended(NOW) == Some(Ended::Revoked), "{what}, start {start}: a revoked key is alive");
        }
        assert_eq!(Some(desk.keys.applied()), events.last().map(|(seq, _)| *seq).or(Some(0)), "{what}, start {start}");
        assert!(start == 0 || desk.opened.rebuilt.is_none(), "{what}: the second start has nothing to mend");
        drop(desk);
        let problems = compare(&folder.join(FOLDER), &folder.join(PEPPER), &events).unwrap();
        assert!(problems.is_empty(), "{what}, start {start}: {problems:?}");
    }
    for name in ["keys.new", "keys.damaged-2"] {
        assert!(!folder.join(name).exists(), "{what} left {name} behind");
    }
}

/// The child: opens the keys, mints, rotates and revokes, and says what it did once it is done, until it dies.
fn change_and_die(order: &str) {
    let (fault, folder) = order.split_once(' ').unwrap();
    fault::arm(fault).unwrap();
    let desk = Desk::open(Path::new(folder));
    // None that an earlier child has drawn.
    let first = 10 * desk.events() as u64;
    for number in first..first + 4 {
        let (id, text) = desk.mint(ALICE, 2 * number);
        println!("alive {text}");
        let second = desk.rotate(id, 2 * number + 1, Some(NOW.plus(Duration::from_secs(60))));
        println!("alive {second}");
        if number % 2 == 0 {
            desk.revoke(id);
            println!("revoked {text}\nrevoked {second}");
        }
    }
}
