//! The pepper: made once, kept for ourselves, and never replaced under keys that were made with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use farebox::keys::{Broken, FOLDER, PEPPER, Remedy, compare};

use crate::desk::{ALICE, Desk, NOW, journal};

/// Tries to open the keys, which must be refused in words that name the file.
fn refused(folder: &Path) -> Broken {
    let broken = Desk::try_open(folder).err().expect("it must be refused");
    assert_eq!(broken.remedy, Remedy::Change, "{broken}");
    assert!(broken.cause.contains(PEPPER), "{broken}");
    let problems = compare(&folder.join(FOLDER), &folder.join(PEPPER), &journal(folder)).unwrap();
    assert_eq!(problems, [broken.cause.as_str()], "verify says the same");
    broken
}

#[test]
fn a_pepper_is_made_once_and_for_ourselves() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let file = folder.path().join(PEPPER);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let made = fs::read(&file).unwrap();
    assert!(made.starts_with(b"farebox-pepper-1 "));
    let (_, text) = desk.mint(ALICE, 1);
    let desk = desk.reopen(|_| {});
    assert_eq!(fs::read(&file).unwrap(), made, "a start does not make another");
    assert!(desk.keys.find(&text).unwrap().is_some());
    assert!(!folder.path().join("keys.pepper.new").exists());
}

#[test]
fn a_pepper_that_is_gone_is_missed_and_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let (id, text) = desk.mint(ALICE, 1);
    drop(desk);
    let file = folder.path().join(PEPPER);
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    for _ in 0..2 {
        let broken = refused(folder.path());
        assert!(broken.cause.contains("1 key was made") && broken.cause.contains("restore it"), "{broken}");
        assert!(!file.exists(), "no key would ever be found under another one");
    }
    write_private(&file, &kept);
    let desk = Desk::open(folder.path());
    assert_eq!(desk.keys.find(&text).unwrap().unwrap().record.id, id, "the old one is put back, and all is well");
}

#[test]
fn another_pepper_is_refused_for_as_long_as_a_live_key_needs_the_old_one() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let desk = Desk::open(ours.path());
    let (id, text) = desk.mint(ALICE, 1);
    desk.mint(ALICE, 2);
    let other = theirs.path().join(PEPPER);
    fs::write(&other, "farebox-pepper-1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n").unwrap();
    let file = ours.path().join(PEPPER);
    let kept = fs::read(&file).unwrap();
    drop(desk);
    write_private(&file, &fs::read(&other).unwrap());
    let broken = refused(ours.path());
    assert!(broken.cause.contains("2 keys were made with another pepper"), "{broken}");
    // Also when the index is gone: the keys themselves say what they were made with.
    fs::remove_dir_all(ours.path().join(FOLDER)).unwrap();
    refused(ours.path());

    write_private(&file, &kept);
    let desk = Desk::open(ours.path());
    for record in desk.keys.of(ALICE).unwrap() {
        desk.revoke(record.id);
    }
    let desk = desk.reopen(|_| write_private(&file, &fs::read(&other).unwrap()));
    assert!(desk.keys.get(id).unwrap().unwrap().revoked_at == Some(NOW), "revoked keys are remembered");
    assert!(desk.keys.find(&text).unwrap().is_none(), "and not found under another pepper");
    let (_, fresh) = desk.mint(ALICE, 3);
    assert!(desk.keys.find(&fresh).unwrap().is_some(), "new keys can be made with it");
}

#[test]
fn a_pepper_that_others_can_read_or_that_is_damaged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Desk::open(folder.path()));
    let file = folder.path().join(PEPPER);
    let kept = fs::read(&file).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o644, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert!(refused(folder.path()).cause.contains("chmod 600"));
    }
    // As a service manager hands out credentials.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    drop(Desk::open(folder.path()));
    let whole = String::from_utf8(kept).unwrap();
    for damaged in ["", "farebox-pepper-1 ", &whole[..40], &whole.replace("-1 ", "-2 "), &format!("{whole}more"), "\u{0}\u{1}"] {
        write_private(&file, damaged.as_bytes());
        let broken = refused(folder.path());
        assert!(broken.cause.contains("is damaged") && !broken.cause.contains(whole[17..40].trim()), "{broken}");
        assert_eq!(fs::read(&file).unwrap(), damaged.as_bytes(), "it is left as it is");
    }
}

fn write_private(file: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(file);
    fs::write(file, bytes).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}
