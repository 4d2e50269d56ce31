//! An older copy of the books, put back: what came in on Solana since is found in the history of the token account.

use std::fs;

use farebox_rig::process::run;
use farebox_rig::solana::BUYER;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shop::{CHARGE, CHAT, Shop, USAGE, body};

fn operate(shop: &Shop, arguments: &[&str]) -> Value {
    let (code, printed, said) = run(shop.server.command(arguments), "");
    assert_eq!(code, 0, "{arguments:?}: {said}");
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn what_was_paid_after_the_backup_is_found_on_the_chain_and_buys_nothing_again() {
    let (mut shop, place) = (Shop::open(), TempDir::new().unwrap());
    let body = body(USAGE, false);
    let before = shop.pay(CHAT, &body);
    assert_eq!(shop.buy(CHAT, &body, &before).status, 200);
    let folder = place.path().join("backup");
    operate(&shop, &["backup", folder.to_str().unwrap()]);
    let mut after = Vec::new();
    for _ in 0..3 {
        let payment = shop.pay(CHAT, &body);
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tx = answer.decoded("payment-response").unwrap()["transaction"].as_str().unwrap().to_owned();
        after.push((payment, tx));
    }
    let (earned, served) = (shop.earned(), shop.served());
    shop.server.signal();
    shop.server.wait_exit();
    fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();

    let restored = operate(&shop, &["restore", folder.to_str().unwrap()]);
    assert_eq!(restored["not_asked"], json!([]), "{restored:#}");
    let unknown = restored["not_in_the_books"].as_array().unwrap();
    let told: Vec<_> = unknown.iter().map(|one| one["tx"].as_str().unwrap()).collect();
    let expected: Vec<_> = after.iter().map(|(_, tx)| tx.as_str()).collect();
    assert_eq!(told, expected, "the oldest first, and not the payment that the backup has: {restored:#}");
    for (one, (payment, _)) in unknown.iter().zip(&after) {
        assert_eq!((one["amount_usd"].as_f64().unwrap() * 1e6).round() as u64, payment.amount);
        assert_eq!((&one["from"], &one["network"]), (&json!(BUYER.address), &json!(shop.chain.network())));
    }
    shop.server.restart();
    let sends = shop.chain.sends();
    for payment in [&before, &after[0].0] {
        let again = shop.buy(CHAT, &body, payment);
        assert!([402, 409].contains(&again.status), "{} {}", again.status, again.text());
    }
    assert_eq!((shop.earned(), shop.served(), shop.chain.sends()), (earned, served, sends), "nobody paid and nothing was sold");
    // The books do not know the later payments, nor what they bought.
    let forgotten: u64 = after.iter().map(|(payment, _)| payment.amount).sum();
    shop.close(forgotten + CHARGE);
}

#[test]
fn where_no_node_keeps_the_past_since_the_backup_the_operator_is_told_to_look() {
    let (mut shop, place) = (Shop::open(), TempDir::new().unwrap());
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    let folder = place.path().join("backup");
    operate(&shop, &["backup", folder.to_str().unwrap()]);
    shop.server.signal();
    shop.server.wait_exit();
    let kept = place.path().join("kept");
    fs::rename(shop.server.data_dir(), &kept).unwrap();
    // A backup of yesterday, of which the chain's history, as this node has it, shows no beginning.
    let manifest = folder.join("backup.json");
    let mut told: Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    told["made_at"] = json!("2026-01-01T00:00:00.000Z");
    fs::write(&manifest, told.to_string()).unwrap();
    let restored = operate(&shop, &["restore", folder.to_str().unwrap()]);
    let unasked = restored["not_asked"].as_array().unwrap();
    let about: Vec<_> = unasked.iter().map(|one| one["about"].clone()).collect();
    assert_eq!(about, ["what left", "what came in"], "{restored:#}");
    assert!(unasked.iter().all(|one| one["why"].as_str().unwrap().contains("does not reach back")), "{restored:#}");
    assert_eq!(restored["not_in_the_books"], json!([]));
    fs::remove_dir_all(shop.server.data_dir()).unwrap();
    fs::rename(kept, shop.server.data_dir()).unwrap();
    shop.server.restart();
    shop.close(CHARGE);
}
