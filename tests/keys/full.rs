//! A disk that takes no more: keys stop at the first change that cannot be kept, tell the program, and answer nothing after it.

use std::path::Path;
use std::process::{Command, Stdio};

use farebox::ids::KeyId;
use farebox::keys::{Broken, Ended, FOLDER, Key, Record};

use crate::desk::{ALICE, Desk, NOW, random};

/// A test starts itself again with the folder in here, where no file may grow beyond a limit.
const CHILD: &str = "TEST_CHANGE_KEYS_UNTIL_THE_DISK_IS_FULL";

#[test]
fn keys_on_a_full_disk_stop_and_are_right_again_when_there_is_room() {
    if let Ok(folder) = std::env::var(CHILD) {
        change_until_full(Path::new(&folder));
        return;
    }
    for kilobytes in [600, 1000, 1100] {
        let folder = tempfile::tempdir().unwrap();
        drop(Desk::open(folder.path()));
        let said = in_a_small_folder(folder.path(), kilobytes);
        let lines = |what: &str| said.lines().filter_map(|line| line.split_once(what)).map(|(_, text)| text.to_owned()).collect();
        let (minted, revoked): (Vec<String>, Vec<String>) = (lines("minted "), lines("revoked "));
        assert!(minted.len() > 5 && said.contains("stopped after"), "{kilobytes} kB: {said}");

        let desk = Desk::open(folder.path());
        for text in &minted {
            let key = desk.keys.find(text).unwrap().expect("what was acknowledged is there");
            let expected = revoked.contains(text).then_some(Ended::Revoked);
            // The change that could not be kept in the index is in the journal.
            assert!(key.ended(NOW) == expected || text == minted.last().unwrap(), "{kilobytes} kB");
        }
        // Beside them the child's first, and the one that only the journal has.
        assert!(desk.keys.of(ALICE).unwrap().len() <= minted.len() + 2);
    }
}

#[test]
fn an_index_that_cannot_be_made_anew_for_want_of_room_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    let (_, text) = desk.mint(ALICE, 1_000_000);
    let record = desk.keys.of(ALICE).unwrap().remove(0);
    for number in 0..500u64 {
        let (_, seal) = desk.keys.seal(random(number)).unwrap();
        desk.note(&Record { id: KeyId(number.into()), seal, name: "n".repeat(100), ..record.clone() });
    }
    drop(desk);
    std::fs::remove_dir_all(folder.path().join(FOLDER)).unwrap();
    for _ in 0..2 {
        let said = in_a_small_folder(folder.path(), 400);
        assert!(said.contains("not opened: StartAgain"), "{said}");
        assert!(!folder.path().join("keys.new").exists(), "what does not fit is not left behind");
    }
    let desk = Desk::open(folder.path());
    assert_eq!(desk.keys.of(ALICE).unwrap().len(), 501);
    assert!(desk.keys.find(&text).unwrap().is_some());
}

/// Runs the child, for which every file ends at so many kilobytes; what it printed.
fn in_a_small_folder(folder: &Path, kilobytes: u32) -> String {
    let mut shell = Command::new("bash");
    // Ignored, so that a write fails instead of ending the process.
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$@\"")).arg("bash");
    shell.arg(std::env::current_exe().unwrap());
    shell.args(["--exact", "full::keys_on_a_full_disk_stop_and_are_right_again_when_there_is_room", "--nocapture"]);
    let output = shell.env(CHILD, folder).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn change_until_full(folder: &Path) {
    let desk = match Desk::try_open(folder) {
        Ok(desk) => desk,
        Err(broken) => return println!("not opened: {:?}", broken.remedy),
    };
    let (_, first) = desk.mint(ALICE, 100_000);
    for number in 0..10_000u64 {
        let held = desk.keys.find(&first).unwrap().unwrap();
        let Ok((id, text)) = desk.try_mint(ALICE, number) else { return stopped(&desk, &first, &held, number) };
        println!("minted {text}");
        if number % 4 == 0 {
            if desk.try_change(id, |record| record.revoked_at = Some(NOW)).is_err() {
                return stopped(&desk, &first, &held, number);
            }
            println!("revoked {text}");
        }
    }
}

/// From the first failure on nobody is told anything about a key, and the program is told to end.
fn stopped(desk: &Desk, known: &str, held: &Key, number: u64) {
    assert!(desk.keys.failure().borrow().is_some());
    assert!(desk.keys.find(known).is_err() && desk.keys.get(held.record.id).is_err() && desk.keys.of(ALICE).is_err());
    assert!(desk.keys.seal(random(1_000_001)).is_err());
    let refused: Result<Record, Broken> = desk.keys.change(|| panic!("nothing is put in the journal any more"));
    refused.unwrap_err();
    assert_eq!(held.ended(NOW), None, "a call that runs is not ended by it");
    println!("stopped after {number}");
}
