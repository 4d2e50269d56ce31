//! Death in the middle of what the operator asks for: what was answered stands, what was not can be asked for again, and nobody
//! gets anything twice.

use std::thread;

use serde_json::json;

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
        let (mut shop, place) = (Shop::open(), tempfile::TempDir::new().unwrap());
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
