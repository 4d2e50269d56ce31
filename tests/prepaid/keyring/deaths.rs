//! Death at each step of minting, revoking and rotating: a key that was shown works, one whose end was answered stays ended, also
//! when the index of keys is gone or torn.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use farebox_rig::http;
use serde_json::json;

use crate::owner::{DOLLAR, Owner, Shop};

/// Every point that a change of a key comes by, in their order.
const POINTS: [&str; 8] = [
    "key.before",
    "commit.before",
    "commit.after",
    "keys.apply.before",
    "keys.inserted",
    "keys.flushed",
    "keys.synced",
    "keys.apply.after",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Mint,
    Revoke,
    Rotate,
}

type Spoil = fn(&Path);

/// What becomes of the index between the death and the next start.
const SPOILT: [(&str, Spoil); 5] = [
    ("kept", |_| {}),
    ("deleted", |index| fs::remove_dir_all(index).unwrap()),
    ("without its snapshot's end", |index| snapshots(index, |length| length / 2)),
    ("with an empty snapshot", |index| snapshots(index, |_| 0)),
    ("cut in the middle", |index| cut(&index.join("db"), |length| length / 2)),
];

fn snapshots(index: &Path, length: fn(u64) -> u64) {
    for entry in fs::read_dir(index).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            cut(&path, length);
        }
    }
}

fn cut(file: &Path, length: fn(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(length(file.metadata().unwrap().len())).unwrap();
}

/// Tries each of `cases`, a few at a time: most of it is waiting.
fn for_each<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(case);
                }
            });
        }
    });
}

#[test]
fn a_death_at_any_step_leaves_every_key_as_it_was_answered() {
    let steps = [Step::Mint, Step::Revoke, Step::Rotate];
    let all = steps.iter().flat_map(|step| POINTS.iter().map(move |point| (*step, *point)));
    let cases: Vec<_> = all.enumerate().map(|(number, (step, point))| (step, point, SPOILT[number % SPOILT.len()])).collect();
    for_each(&cases, |(step, point, (what, spoil))| {
        die_and_look(*step, point, &format!("{step:?} at {point}, index {what}"), *spoil)
    });
}

/// Keys of one wallet before, and what is asked of them when the program dies.
fn die_and_look(step: Step, point: &str, what: &str, spoil: Spoil) {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (id, key) = shop.mint(&owner, &json!({ "name": "before" }));
    let (gone_id, gone) = shop.mint(&owner, &json!({ "name": "gone" }));
    assert_eq!(shop.ask("POST", &format!("/api/keys/{gone_id}/revoke"), &shop.sign_in(&owner), None).status, 200);
    shop.server.kill();
    // The session needs no commit, so that the points below are those of the change.
    shop.server.restart_armed(&armed(point));
    let proof = shop.sign_in(&owner);
    let (path, body) = match step {
        Step::Mint => ("/api/keys".to_owned(), Some(json!({ "name": "new" }))),
        Step::Revoke => (format!("/api/keys/{id}/revoke"), None),
        Step::Rotate => (format!("/api/keys/{id}/rotate"), Some(json!({ "grace_seconds": 0 }))),
    };
    let answer = http::send(shop.server.address(), &shop.request("POST", &path, &proof, body.as_ref()));
    let answered = answer.is_ok_and(|answer| answer.complete && answer.status == 200);
    assert!(!answered, "{what}: nothing is answered before its last step");
    shop.server.wait_death(point);
    spoil(&shop.server.data_dir().join("keys"));
    let mut seen = None;
    // What was true after the first start is true after every other.
    for start in 0..2 {
        shop.server.restart();
        assert_eq!(shop.knocks(&gone), (401, "key_revoked".into()), "{what}: it stays revoked, start {start}");
        let now = (shop.knocks(&key), shop.listed(&owner));
        let durable = point != "key.before" && point != "commit.before";
        let (expected, keys) = match (step, durable) {
            (_, false) => ((200, String::new()), 2),
            (Step::Mint, true) => ((200, String::new()), 3),
            (Step::Revoke, true) => ((401, "key_revoked".to_owned()), 2),
            (Step::Rotate, true) => ((401, "invalid_key".to_owned()), 2),
        };
        assert_eq!((&now.0, now.1.len()), (&expected, keys), "{what}, start {start}: {}", shop.server.output());
        assert!(seen.replace(now.clone()).is_none_or(|before| before == now), "{what}");
        shop.server.kill();
        if start == 0 {
            spoil(&shop.server.data_dir().join("keys"));
        }
    }
    // And what is asked now is done.
    shop.server.restart();
    let (_, fresh) = shop.mint(&owner, &json!({ "name": "after" }));
    assert_eq!(shop.knocks(&fresh).0, 200, "{what}");
    shop.close(&[(&owner, DOLLAR)]);
}

/// The sign-in of a change is written down first: that is one commit before its own.
fn armed(point: &str) -> String {
    let nth = if point.starts_with("commit.") { 2 } else { 1 };
    format!("{point}:{nth}")
}

#[test]
fn what_was_answered_is_true_after_a_kill_whatever_is_left_of_the_index() {
    for_each(&SPOILT, |(what, spoil)| {
        let (mut shop, owner) = (Shop::open(), Owner::new(1));
        shop.top_up(&owner, DOLLAR);
        let session = shop.session(&owner);
        let minted: Vec<_> = (0..12).map(|_| shop.ask("POST", "/api/keys", &session, Some(&json!({ "name": "k" })))).collect();
        let keys: Vec<_> = minted.iter().map(|answer| shop.minted(answer)).collect();
        let post = |id: &str, verb: &str, body| shop.ask("POST", &format!("/api/keys/{id}/{verb}"), &session, body);
        for (id, _) in &keys[..4] {
            assert_eq!(post(id, "revoke", None).status, 200);
        }
        let grace = json!({ "grace_seconds": 3600 });
        let rotated: Vec<_> = keys[4..8].iter().map(|(id, _)| shop.minted(&post(id, "rotate", Some(&grace))).1).collect();
        let replaced: Vec<_> = keys[8..10].iter().map(|(id, _)| shop.minted(&post(id, "rotate", None)).1).collect();
        for round in 0..2 {
            shop.server.kill();
            spoil(&shop.server.data_dir().join("keys"));
            shop.server.restart();
            let answers = |keys: &[(String, String)]| keys.iter().map(|(_, key)| shop.knocks(key).1).collect::<Vec<_>>();
            assert_eq!(answers(&keys[..4]), vec!["key_revoked"; 4], "{what}, round {round}");
            assert_eq!(answers(&keys[4..8]), vec![""; 4], "{what}: the grace goes on");
            assert_eq!(answers(&keys[8..10]), vec!["invalid_key"; 2], "{what}: what was replaced stays so");
            assert_eq!(answers(&keys[10..]), vec![""; 2], "{what}");
            assert!(rotated.iter().chain(&replaced).all(|key| shop.knocks(key).0 == 200), "{what}: what was shown works");
        }
        shop.close(&[(&owner, DOLLAR)]);
    });
}
