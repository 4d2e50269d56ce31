//! `kill -9` in the middle of changes: what was acknowledged is there, what was revoked stays revoked, and nothing is damaged.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use farebox::keys::{Ended, FOLDER, PEPPER, compare};

use crate::desk::{ALICE, Desk, NOW, journal};

/// A test starts itself again with the folder in here.
const CHILD: &str = "TEST_CHANGE_KEYS_UNTIL_KILLED";

const KILLS: usize = 30;

#[test]
fn a_kill_at_any_moment_loses_no_change_that_was_acknowledged() {
    if let Ok(folder) = std::env::var(CHILD) {
        change_until_killed(Path::new(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    let (mut alive, mut revoked) = (Vec::new(), Vec::new());
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "kill::a_kill_at_any_moment_loses_no_change_that_was_acknowledged", "--nocapture"]);
        let mut child = child.env(CHILD, folder.path()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Each time after another number of acknowledged changes, and at whatever it is doing then.
        let mut patience = 3 + kill * 7;
        for line in lines {
            if let Some(text) = line.strip_prefix("minted ") {
                alive.push(text.to_owned());
            } else if let Some(text) = line.strip_prefix("revoked ") {
                alive.retain(|other| other != text);
                revoked.push(text.to_owned());
            } else {
                continue;
            }
            acknowledged += 1;
            patience = patience.saturating_sub(1);
            if patience == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(problems(folder.path()).is_empty(), "kill {kill}");
        let desk = Desk::open(folder.path());
        assert_eq!(desk.opened.rebuilt, None, "kill {kill}: a kill damages nothing");
        assert!(desk.opened.caught_up <= 1, "kill {kill}: every change but the last was in the index");
        check(&desk, &mut alive, &mut revoked);
    }
    assert!(acknowledged > KILLS * 20, "{acknowledged} changes were acknowledged");
    // The same from the journal alone.
    let desk = Desk::open(folder.path()).reopen(|folder| std::fs::remove_dir_all(folder.join(FOLDER)).unwrap());
    check(&desk, &mut alive, &mut revoked);
}

fn problems(folder: &Path) -> Vec<String> {
    compare(&folder.join(FOLDER), &folder.join(PEPPER), &journal(folder)).unwrap()
}

fn check(desk: &Desk, alive: &mut Vec<String>, revoked: &mut Vec<String>) {
    let ended = |text: &String| desk.keys.find(text).unwrap().expect("it was acknowledged").ended(NOW);
    assert!(revoked.iter().all(|text| ended(text) == Some(Ended::Revoked)), "a revoked key is alive again");
    // The last one may have been revoked in the journal without anybody having been told.
    let untold: Vec<_> = alive.extract_if(.., |text| ended(text).is_some()).collect();
    assert!(untold.len() <= 1, "{} keys were revoked by nobody", untold.len());
    revoked.extend(untold);
}

/// The child: mints keys and revokes two of three, and says what it did once it is done.
fn change_until_killed(folder: &Path) {
    let desk = Desk::open(folder);
    let mut kept = Vec::new();
    for number in (desk.events() as u64).. {
        let (id, text) = desk.mint(ALICE, number);
        println!("minted {text}");
        kept.push((id, text));
        if number % 3 > 0 {
            let (id, text) = kept.swap_remove(usize::try_from(number).unwrap() % kept.len());
            desk.revoke(id);
            println!("revoked {text}");
        }
    }
}
