//! Death in the middle of what the operator asks for: what was answered stands, what was not can be asked for again, and nobody
//! gets anything twice.

use std::fs::{self, File};
use std::path::Path;
use std::thread;

use farebox_rig::process::run;
use serde_json::json;
use tempfile::TempDir;

use crate::owner::{CHARGE, MODEL, Owner, Shop};

const CALLS: usize = 5;
const PAID_IN: i64 = 1_000_000;

#[test]
fn a_death_during_a_refund_gives_back_once_or_not_at_all() {
    thread::scope(|scope| {
        for (point, given_back) in [("refund.before", false), ("refund.after", true)] {
            scope.spawn(move || (1..=CALLS).for_each(|nth| die_at(point, nth, given_back)));
        }
    });
}

/// Gives calls back until the gateway dies of the `nth` one.
fn die_at(point: &str, nth: usize, given_back: bool) {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, u64::try_from(PAID_IN).unwrap());
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let calls: Vec<_> = (0..CALLS).map(|_| shop.call(&key, MODEL).header("x-request-id").unwrap().to_owned()).collect();
    shop.wait_settled(&owner);
    // Whoever reads the statement waits for the disk: nothing that has ended is lost with the next kill.
    assert_eq!(shop.get("/api/transactions", &shop.session(&owner))["transactions"].as_array().map(Vec::len), Some(CALLS + 1));
    shop.server.restart_armed(&format!("{point}:{nth}"));
    let refund = |shop: &Shop, call: &str| shop.operator(&["refund", call]);
    for call in &calls[..nth - 1] {
        assert_eq!(refund(&shop, call).0, 0, "{point}:{nth}");
    }
    let (code, printed, said) = refund(&shop, &calls[nth - 1]);
    assert_eq!((code, printed), (1, json!(null)), "{point}:{nth}: nothing is claimed of what is not known: {said}");
    assert!(said.contains("look what came of it"), "{said}");
    shop.server.wait_death(point);
    shop.server.restart();
    let left = CALLS - (nth - 1) - usize::from(given_back);
    let balance = |shop: &Shop| (shop.wait_settled(&owner)["balance_usd"].as_f64().unwrap() * 1e6).round() as i64;
    assert_eq!(balance(&shop), PAID_IN - i64::try_from(left).unwrap() * CHARGE, "{point}:{nth}");
    // Asked for again, each is given back once.
    let again: Vec<_> = calls.iter().map(|call| refund(&shop, call)).collect();
    assert!(again.iter().all(|(code, printed, _)| (*code, &printed["refunded_usd"]) == (0, &json!(0.000_165))), "{again:?}");
    let given_back = again.iter().filter(|(_, printed, _)| printed["gave_back_usd"] == 0.000_165).count();
    assert_eq!(given_back, left, "{point}:{nth}: {again:?}");
    assert_eq!(balance(&shop), PAID_IN, "{point}:{nth}");
    shop.close(&[(&owner, u64::try_from(PAID_IN).unwrap())]);
}

#[test]
fn a_death_during_an_adjustment_makes_it_once_or_not_at_all() {
    for (point, nth, made) in
        [("adjust.before", 1, false), ("adjust.before", 2, false), ("adjust.after", 1, true), ("adjust.after", 2, true)]
    {
        let (mut shop, owner) = (Shop::open(), Owner::new(1));
        shop.server.restart_armed(&format!("{point}:{nth}"));
        let adjust = |shop: &Shop, number: usize| {
            shop.operator(&["adjust", &owner.address(), "0.5", "--reason", "a gift", "--id", &number.to_string()])
        };
        for number in 1..nth {
            assert_eq!(adjust(&shop, number).0, 0, "{point}:{nth}");
        }
        let (code, printed, said) = adjust(&shop, nth);
        assert!((code, &printed) == (1, &json!(null)) && said.contains("look what came of it"), "{point}:{nth}: {code} {said}");
        shop.server.wait_death(point);
        shop.server.restart();
        let again: Vec<_> = (1..=nth).map(|number| adjust(&shop, number).1["new"].clone()).collect();
        let expected: Vec<_> = (1..=nth).map(|number| json!(number == nth && !made)).collect();
        assert_eq!(again, expected, "{point}:{nth}: asked for again, each is made once");
        shop.close(&[(&owner, 500_000 * nth as u64)]);
    }
}

#[test]
fn a_death_while_a_wallet_is_barred_or_let_in_leaves_it_as_it_was_or_as_it_was_asked() {
    for (point, barred_before, barred) in [
        ("block.before", false, false),
        ("block.after", false, true),
        ("unblock.before", true, true),
        ("unblock.after", true, false),
    ] {
        let (mut shop, owner) = (Shop::open(), Owner::new(1));
        shop.top_up(&owner, 1_000_000);
        let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
        let block = |shop: &Shop| shop.operator(&["block", &owner.address(), "--reason", "spam"]);
        let unblock = |shop: &Shop| shop.operator(&["unblock", &owner.address()]);
        if barred_before {
            assert_eq!(block(&shop).0, 0, "{point}");
        }
        shop.server.restart_armed(point);
        let (code, printed, said) = if barred_before { unblock(&shop) } else { block(&shop) };
        assert!((code, &printed) == (1, &json!(null)) && said.contains("look what came of it"), "{point}: {code} {said}");
        shop.server.wait_death(point);
        shop.server.restart();
        let code = shop.call(&key, MODEL);
        assert_eq!(code.status, if barred { 403 } else { 200 }, "{point}: {}", code.text());
        assert_eq!(block(&shop).1["new"], json!(!barred), "{point}: asked for again it says so");
        shop.wait_settled(&owner);
        shop.close(&[(&owner, 1_000_000 - if barred { 0 } else { CHARGE as u64 })]);
    }
}

#[test]
fn a_death_while_the_books_are_copied_leaves_no_backup_and_no_copy() {
    for (point, left_behind) in [("copy.before", 0), ("copy.after", 1)] {
        let (mut shop, place) = (Shop::open(), TempDir::new().unwrap());
        shop.server.restart_armed(point);
        let folder = place.path().join("backup");
        let (code, printed, said) = shop.operator(&["backup", folder.to_str().unwrap()]);
        assert!((code, &printed) == (1, &json!(null)) && said.contains("look what came of it"), "{point}: {code} {said}");
        shop.server.wait_death(point);
        let copies = |shop: &Shop| {
            let names = std::fs::read_dir(shop.server.data_dir()).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("copy-"))).count()
        };
        assert_eq!((copies(&shop), std::fs::read_dir(place.path()).unwrap().count()), (left_behind, 0), "{point}");
        shop.server.restart();
        assert_eq!(copies(&shop), 0, "{point}: the next start takes it away");
        assert_eq!(shop.operator(&["backup", folder.to_str().unwrap()]).0, 0, "{point}");
        shop.close(&[]);
    }
}

#[test]
fn a_backup_that_is_killed_leaves_no_backup_and_is_in_nobodys_way() {
    for point in ["backup.copied", "backup.whole"] {
        let (mut shop, owner, place) = (Shop::open(), Owner::new(1), TempDir::new().unwrap());
        shop.top_up(&owner, u64::try_from(PAID_IN).unwrap());
        let (folder, partial, other) = (place.path().join("one"), place.path().join("one.partial"), place.path().join("two"));
        let backup = |folder: &Path| shop.operator(&["backup", folder.to_str().unwrap()]);
        let mut killed = shop.server.command(&["backup", folder.to_str().unwrap()]);
        killed.env("FAREBOX_FAULT", point);
        assert_eq!(run(killed, "").0, -1, "{point}: it died");
        assert!(partial.exists() && !folder.exists(), "{point}: what is not whole has no name of a backup");
        // The next one of the clock, to another name.
        let (code, printed, said) = backup(&other);
        assert_eq!((code, &printed["backup"]), (0, &json!(other)), "{point}: {said}");
        assert!(said.contains("one.partial was left by a backup that was broken off"), "{point}: the operator is told: {said}");
        assert!(partial.exists(), "{point}: and removes it by hand, or not");
        // One of the same name that is being made is not disturbed, and of no concern to others.
        let kept = File::open(&partial).unwrap();
        kept.lock().unwrap();
        let (code, _, said) = backup(&folder);
        assert!(code == 1 && said.contains("another backup of this name is being made"), "{point}: {code} {said}");
        let (_, _, said) = backup(&place.path().join("three"));
        assert!(!said.contains("broken off"), "{point}: {said}");
        drop(kept);
        // Somebody's own file is nobody's to take away.
        fs::write(partial.join("notes"), "mine").unwrap();
        let (code, _, said) = backup(&folder);
        assert!(code == 2 && said.contains("has notes, which is of no backup"), "{point}: {code} {said}");
        assert!(partial.join("notes").exists() && partial.join("ledger.redb").exists(), "{point}: nothing was taken away");
        fs::remove_file(partial.join("notes")).unwrap();
        let (code, _, said) = backup(&folder);
        assert!(code == 0 && said.contains("what was left of it is taken away"), "{point}: the same name again: {code} {said}");
        assert!(folder.join("backup.json").exists() && !partial.exists(), "{point}");
        shop.server.signal();
        shop.server.wait_exit();
        fs::remove_dir_all(shop.server.data_dir()).unwrap();
        assert_eq!(shop.operator(&["restore", folder.to_str().unwrap()]).0, 0, "{point}: it is whole");
        shop.server.restart();
        shop.close(&[(&owner, u64::try_from(PAID_IN).unwrap())]);
    }
}
