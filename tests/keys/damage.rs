//! Files that somebody or something has damaged: the index is made anew from the journal, and nobody's key changes.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use farebox::clock::Timestamp;
use farebox::ids::KeyId;
use farebox::keys::{Ended, FOLDER, PEPPER, Remedy, compare};
use farebox_rig::process::eventually;

use crate::desk::{ALICE, Desk, NOW, journal, random};

/// What a few keys must be, whatever happened to the files.
struct Expected {
    /// Texts and why they have ended, if they have.
    known: Vec<(String, KeyId, Option<Ended>)>,
    dropped: String,
}

const LATER: Timestamp = Timestamp::from_secs(NOW.secs() + 60);

/// Forty keys, some of them changed, rotated and revoked.
fn furnish(desk: &Desk) -> Expected {
    let mut known: Vec<_> = (0..40).map(|number| desk.mint(ALICE, number)).map(|(id, text)| (text, id, None)).collect();
    desk.revoke(known[0].1);
    known[0].2 = Some(Ended::Revoked);
    desk.change(known[1].1, |record| record.expires_at = Some(NOW));
    known[1].2 = Some(Ended::Expired);
    let id = known[2].1;
    let rotated = desk.rotate(id, 100, Some(LATER));
    known.push((rotated, id, None));
    let id = known[3].1;
    let rotated = desk.rotate(id, 101, None);
    let (dropped, ..) = std::mem::replace(&mut known[3], (rotated, id, None));
    for (_, id, _) in &known[4..40] {
        desk.change(*id, |record| record.name = "a name that is longer than the one before".into());
    }
    Expected { known, dropped }
}

impl Expected {
    fn hold(&self, desk: &Desk, what: &str) {
        for (text, id, ended) in &self.known {
            let key = desk.keys.find(text).unwrap().unwrap_or_else(|| panic!("{what}: {id} is gone"));
            assert_eq!((key.record.id, key.ended(NOW)), (*id, *ended), "{what}");
            assert_eq!(desk.keys.get(*id).unwrap().as_ref(), Some(&key.record), "{what}");
        }
        assert!(desk.keys.find(&self.dropped).unwrap().is_none(), "{what}: a dropped secret is back");
        assert_eq!(desk.keys.of(ALICE).unwrap().len(), 40, "{what}");
        let last = journal(&desk.folder).last().map(|(seq, _)| *seq);
        assert_eq!(Some(desk.keys.applied()), last, "{what}");
    }
}

fn problems(folder: &Path) -> Vec<String> {
    compare(&folder.join(FOLDER), &folder.join(PEPPER), &journal(folder)).unwrap()
}

/// The snapshot that sled wrote at its last start.
fn snapshot(index: &Path) -> PathBuf {
    let entries = fs::read_dir(index).unwrap().map(|entry| entry.unwrap().path());
    let mut snapshots = entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."));
    snapshots.next().expect("an index that was opened again has one")
}

fn cut(file: &Path, parts_of_ten: u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len() * parts_of_ten / 10).unwrap();
}

/// Opens sled as such, behind the back of the program.
fn behind_the_back(index: &Path, work: impl FnOnce(&sled::Db)) {
    // A thread of sled's own may hold the lock for a moment after the index was closed.
    let mut opened = None;
    eventually("the index is free", || {
        opened = sled::Config::new().path(index).flush_every_ms(None).open().ok();
        opened.is_some()
    });
    let db = opened.unwrap();
    work(&db);
    db.flush().unwrap();
}

/// The first row whose first byte is this.
fn row(db: &sled::Db, kind: u8) -> (sled::IVec, sled::IVec) {
    db.scan_prefix([kind]).next().unwrap().unwrap()
}

type Damage = fn(&Path);

/// Ways in which an index can be spoilt so that it cannot be believed.
const DAMAGES: [(&str, Damage); 15] = [
    ("the snapshot is empty", |index| fs::write(snapshot(index), "").unwrap()),
    ("the snapshot is torn", |index| cut(&snapshot(index), 5)),
    ("the snapshot is garbage", |index| fs::write(snapshot(index), random(3).repeat(20)).unwrap()),
    ("the file is empty", |index| cut(&index.join("db"), 0)),
    ("the file is garbage", |index| fs::write(index.join("db"), random(4).repeat(2000)).unwrap()),
    ("the file is zeros", |index| fs::write(index.join("db"), vec![0; 64_000]).unwrap()),
    ("the configuration is garbage", |index| fs::write(index.join("conf"), random(5)).unwrap()),
    ("the file is a folder", |index| {
        fs::remove_file(index.join("db")).unwrap();
        fs::create_dir(index.join("db")).unwrap();
    }),
    ("the folder is a file", |index| {
        fs::remove_dir_all(index).unwrap();
        fs::write(index, "not a folder").unwrap();
    }),
    ("a record is missing", |index| behind_the_back(index, |db| drop(db.remove(row(db, 1).0).unwrap()))),
    ("a MAC is missing", |index| behind_the_back(index, |db| drop(db.remove(row(db, 2).0).unwrap()))),
    ("an account's row is missing", |index| behind_the_back(index, |db| drop(db.remove(row(db, 3).0).unwrap()))),
    ("a revoked key is alive again", |index| {
        behind_the_back(index, |db| {
            let rows = db.scan_prefix([1]).map(Result::unwrap);
            let revoked =
                |value: &sled::IVec| String::from_utf8_lossy(value).contains(&format!("\"revoked_at\":{}", NOW.millis()));
            let (key, value) = rows.into_iter().find(|(_, value)| revoked(value)).unwrap();
            let alive =
                String::from_utf8_lossy(&value).replace(&format!("\"revoked_at\":{}", NOW.millis()), "\"revoked_at\":null");
            db.insert(key, alive.as_bytes()).unwrap();
        })
    }),
    ("one MAC leads to another key", |index| {
        behind_the_back(index, |db| {
            let macs: Vec<_> = db.scan_prefix([2]).map(Result::unwrap).collect();
            let other = macs.iter().find(|(_, id)| *id != macs[0].1).unwrap();
            db.insert(&macs[0].0, &other.1).unwrap();
        })
    }),
    ("it claims to be ahead of the journal", |index| {
        behind_the_back(index, |db| drop(db.insert([0], [&[1u8][..], &u64::MAX.to_be_bytes()].concat()).unwrap()))
    }),
];

#[test]
fn whatever_happens_to_the_index_it_is_made_anew_and_every_key_is_what_it_was() {
    for (what, damage) in DAMAGES {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::open(folder.path());
        let expected = furnish(&desk);
        // Opened again once, so that there is a snapshot.
        let desk = desk.reopen(|_| {});
        assert_eq!(desk.opened.rebuilt, None, "nothing was wrong yet");
        expected.hold(&desk, "before");
        let desk = desk.reopen(|folder| {
            damage(&folder.join(FOLDER));
            assert_eq!(problems(folder).len(), 1, "{what}: verify sees it");
        });
        assert!(desk.opened.rebuilt.is_some(), "{what}: it must not be believed");
        let moved_to = desk.opened.moved_to.clone().expect("what was there is kept for somebody to look at");
        assert_eq!(moved_to, folder.path().join("keys.damaged-1"));
        assert!(moved_to.exists());
        expected.hold(&desk, what);
        let desk = desk.reopen(|folder| assert!(problems(folder).is_empty(), "{what}"));
        assert_eq!((&desk.opened.rebuilt, desk.opened.caught_up), (&None, 0), "{what}: once is enough");
        expected.hold(&desk, what);
    }
}

#[test]
fn an_index_that_is_cut_anywhere_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let expected = furnish(&desk);
    drop(desk.reopen(|_| {}));
    let (good, index) = (folder.path().join("good"), folder.path().join(FOLDER));
    copy_tree(&index, &good);
    for (tenths, with_snapshot) in (0..10).flat_map(|tenths| [(tenths, true), (tenths, false)]) {
        fs::remove_dir_all(&index).unwrap();
        copy_tree(&good, &index);
        cut(&index.join("db"), tenths);
        if !with_snapshot {
            fs::remove_file(snapshot(&index)).unwrap();
        }
        // What is left may be what the journal said once, or even now: then it only has to catch up.
        expected.hold(&Desk::open(folder.path()), &format!("{tenths} tenths of it"));
        let _ = fs::remove_dir_all(folder.path().join("keys.damaged-1"));
    }
}

#[test]
fn an_index_that_is_gone_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    assert_eq!(desk.opened, Default::default(), "a first start has nothing to mend");
    let expected = furnish(&desk);
    let desk = desk.reopen(|folder| {
        fs::remove_dir_all(folder.join(FOLDER)).unwrap();
        assert!(problems(folder).is_empty(), "that it is missing is no problem of the books");
        assert!(!folder.join(FOLDER).exists(), "and a look does not make one");
    });
    assert_eq!((desk.opened.keys, &desk.opened.moved_to), (40, &None));
    assert!(desk.opened.rebuilt.is_some());
    expected.hold(&desk, "deleted");
    let desk = desk.reopen(|folder| {
        fs::remove_dir_all(folder.join(FOLDER)).unwrap();
        fs::create_dir(folder.join(FOLDER)).unwrap();
    });
    expected.hold(&desk, "all that was in it is deleted");
}

#[test]
fn a_copy_of_the_index_from_earlier_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let (early, _) = desk.mint(ALICE, 1000);
    desk.revoke(early);
    let copy = folder.path().join("copy");
    let desk = desk.reopen(|folder| copy_tree(&folder.join(FOLDER), &copy));
    let before = desk.events();
    desk.change(early, |record| record.name = "since".into());
    desk.mint(ALICE, 1001);
    let desk = desk.reopen(|folder| {
        fs::remove_dir_all(folder.join(FOLDER)).unwrap();
        copy_tree(&copy, &folder.join(FOLDER));
        assert!(problems(folder).is_empty(), "to be behind is no problem");
    });
    assert_eq!((&desk.opened.rebuilt, desk.opened.caught_up), (&None, desk.events() - before));
    assert_eq!(desk.keys.get(early).unwrap().unwrap().name, "since");
}

#[test]
fn an_index_of_other_books_is_not_believed() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let desk = Desk::open(ours.path());
    let expected = furnish(&desk);
    let other = Desk::open(theirs.path());
    let (_, stranger) = other.mint(ALICE, 5000);
    drop(other);
    let desk = desk.reopen(|folder| {
        fs::remove_dir_all(folder.join(FOLDER)).unwrap();
        copy_tree(&theirs.path().join(FOLDER), &folder.join(FOLDER));
        assert_eq!(problems(folder).len(), 1);
    });
    assert!(desk.opened.rebuilt.is_some());
    assert!(desk.keys.find(&stranger).unwrap().is_none(), "a key of theirs speaks for nobody here");
    expected.hold(&desk, "other books");
}

#[test]
fn an_index_that_breaks_every_time_does_not_fill_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut desk = Desk::open(folder.path());
    let expected = furnish(&desk);
    for time in 1..=7 {
        desk = desk.reopen(|folder| fs::write(folder.join(FOLDER).join("db"), random(time).repeat(100)).unwrap());
        assert_eq!(desk.opened.moved_to.is_some(), time <= 5, "the first five are kept");
    }
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("damaged")).count(), 5);
    expected.hold(&desk, "again and again");
}

#[test]
fn keys_are_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let expected = furnish(&desk);
    let refused = Desk::try_open(folder.path()).err().expect("somebody has them");
    assert_eq!(refused.remedy, Remedy::Change);
    assert!(refused.cause.contains("another farebox"), "{refused}");
    let looked = compare(&folder.path().join(FOLDER), &folder.path().join(PEPPER), &journal(folder.path())).unwrap_err();
    assert!(looked.cause.contains("another farebox"), "{looked}");
    expected.hold(&desk, "the first has them still");
    assert!(!folder.path().join("keys.damaged-1").exists(), "an index in use is not mistaken for a damaged one");
    drop(desk);
    expected.hold(&Desk::open(folder.path()), "and then the next");
}

#[test]
fn nobody_else_can_read_the_files_of_keys() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    furnish(&desk);
    drop(desk.reopen(|folder| fs::write(folder.join(FOLDER).join("db"), "").unwrap()));
    for name in [FOLDER, PEPPER, "keys.lock"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
}

#[test]
fn a_journal_that_is_damaged_is_said_and_nothing_is_made_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let expected = furnish(&desk);
    drop(desk);
    let good = fs::read_to_string(folder.path().join("journal")).unwrap();
    for (what, bad) in [
        ("a record", good.replacen("\"reset\"", "\"rezet\"", 1)),
        ("the order", good.lines().rev().map(|line| format!("{line}\n")).collect()),
        ("two keys with one secret", good.replacen("\n", &one_more(&good), 1)),
        ("a newer form", good.replacen("\"form\":1", "\"form\":9", 1)),
    ] {
        fs::write(folder.path().join("journal"), bad).unwrap();
        let refused = Desk::try_open(folder.path()).err().expect(what);
        assert_eq!(refused.remedy, Remedy::Examine, "{what}: {refused}");
        assert_eq!(problems(folder.path()).len(), 1, "{what}");
    }
    fs::write(folder.path().join("journal"), good).unwrap();
    let desk = Desk::open(folder.path());
    assert_eq!(desk.opened.rebuilt, None, "the index was not touched");
    expected.hold(&desk, "the journal is restored");
}

/// A second event: another key, with the secret of the first.
fn one_more(journal: &str) -> String {
    let first = journal.lines().next().unwrap();
    let (_, record) = first.split_once(' ').unwrap();
    let id = record.find("key_").unwrap();
    format!("\n2 {}key_{:032x}{}\n", &record[..id], u128::MAX, &record[id + 36..])
}

#[test]
fn no_file_holds_a_key_or_any_part_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let Expected { known, dropped } = furnish(&desk);
    let desk = desk.reopen(|folder| fs::write(folder.join(FOLDER).join("db"), "").unwrap());
    drop(desk);
    let secrets: Vec<_> = known.into_iter().map(|(text, ..)| text).chain([dropped]).collect();
    let mut looked_at = 0;
    each_file(folder.path(), &mut |path, bytes| {
        looked_at += 1;
        for secret in &secrets {
            // Of a key, its first characters are everybody's and its last four are shown on purpose.
            for part in [&secret[8..28], &secret[20..40]] {
                let found = bytes.windows(part.len()).any(|window| window == part.as_bytes());
                assert!(!found, "{} holds a part of a key", path.display());
            }
        }
    });
    assert!(looked_at >= 6, "the index, the damaged one, the pepper and the journal were read");
}

fn each_file(folder: &Path, look: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => each_file(&path, look),
            false => look(&path, &fs::read(&path).unwrap()),
        }
    }
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Every byte of the file in turn is a place where a disk may be wrong; so many of them are tried.
const FLIPS: u64 = 150;

#[test]
fn a_changed_byte_anywhere_in_the_index_changes_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let expected = furnish(&desk);
    drop(desk.reopen(|_| {}));
    let (good, index) = (folder.path().join("good"), folder.path().join(FOLDER));
    copy_tree(&index, &good);
    let size = fs::metadata(good.join("db")).unwrap().len();
    for flip in 0..FLIPS {
        fs::remove_dir_all(&index).unwrap();
        copy_tree(&good, &index);
        let file = OpenOptions::new().read(true).write(true).open(index.join("db")).unwrap();
        let at = u64::from_be_bytes(random(flip)[..8].try_into().unwrap()) % size;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        drop(file);
        expected.hold(&Desk::open(folder.path()), &format!("byte {at} of {size}"));
        let _ = fs::remove_dir_all(folder.path().join("keys.damaged-1"));
    }
}

#[test]
fn ten_thousand_keys_are_made_anew_while_somebody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let (id, text) = desk.mint(ALICE, 1_000_000);
    let record = desk.keys.get(id).unwrap().unwrap();
    for number in 0..10_000u64 {
        let (_, seal) = desk.keys.seal(random(number)).unwrap();
        desk.note(&farebox::keys::Record { id: KeyId(number.into()), seal, ..record.clone() });
    }
    let began = std::time::Instant::now();
    let desk = desk.reopen(|folder| fs::remove_dir_all(folder.join(FOLDER)).unwrap());
    let took = began.elapsed();
    println!("10,001 keys made anew in {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(desk.keys.find(&text).unwrap().is_some());
    let began = std::time::Instant::now();
    let desk = desk.reopen(|_| {});
    println!("and opened as they are in {:?}", began.elapsed());
    assert_eq!(desk.opened.rebuilt, None);
}
