//! Death in the middle of a refund: what was answered stands, what was not can be asked for again, and nobody gets it twice.

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
    // In good order: a kill may cost us the last moment's charges, and here it is refunds that are counted.
    shop.server.signal();
    shop.server.wait_exit();
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
    let codes: Vec<_> = calls.iter().map(|call| refund(&shop, call).0).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), left, "{point}:{nth}: {codes:?}");
    assert_eq!(balance(&shop), PAID_IN, "{point}:{nth}");
    shop.close(&[(&owner, u64::try_from(PAID_IN).unwrap())]);
}
