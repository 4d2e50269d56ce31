//! An older copy of the books, put back: what its chain has seen since is found there, and never sold twice.

use std::fs;
use std::thread;

use farebox_rig::http;
use farebox_rig::process::{eventually, run};
use serde_json::Value;
use tempfile::TempDir;

use crate::shop::{CHARGE, CHAT, Shop, USAGE, body, paid};

#[test]
fn what_was_paid_after_the_backup_buys_nothing_again_and_is_found_on_the_chain() {
    let (mut shop, place) = (Shop::open(), TempDir::new().unwrap());
    let body = body(USAGE, false);
    let before = shop.pay(CHAT, &body);
    assert_eq!(shop.buy(CHAT, &body, &before).status, 200);
    let operate = |shop: &Shop, arguments: &[&str]| {
        let (code, printed, said) = run(shop.server.command(arguments), "");
        assert_eq!(code, 0, "{arguments:?}: {said}");
        serde_json::from_str::<Value>(&printed).unwrap()
    };
    let folder = place.path().join("backup");
    operate(&shop, &["backup", folder.to_str().unwrap()]);
    let after = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &after);
    assert_eq!(answer.status, 200);
    let tx = answer.decoded("payment-response").unwrap()["transaction"].as_str().unwrap().to_lowercase();
    let (earned, served) = (shop.earned(), shop.served());
    shop.server.signal();
    shop.server.wait_exit();
    fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();

    let restored = operate(&shop, &["restore", folder.to_str().unwrap()]);
    let unknown = restored["not_in_the_books"].as_array().unwrap();
    assert_eq!(unknown.len(), 1, "the payment that the backup has is not told again: {restored:#}");
    assert_eq!(unknown[0]["tx"].as_str().unwrap().to_lowercase(), tx);
    assert_eq!((unknown[0]["amount_usd"].as_f64().unwrap() * 1e6).round() as u64, after.amount);
    shop.server.restart();
    for payment in [&after, &before] {
        let again = shop.buy(CHAT, &body, payment);
        assert!([402, 409].contains(&again.status), "{} {}", again.status, again.text());
    }
    assert_eq!((shop.earned(), shop.served()), (earned, served), "no transfer was made and no upstream asked");
    // The books do not know the second payment, nor what it bought.
    shop.close(after.amount + CHARGE);
}

#[test]
fn a_call_that_had_not_ended_in_the_backup_is_named_since_its_buyer_gets_the_money_back() {
    let (mut shop, place) = (Shop::open(), TempDir::new().unwrap());
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let (address, request) = (shop.server.address().to_owned(), paid(CHAT, &body, &payment));
    let call = thread::spawn(move || http::send(&address, &request));
    eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
    let folder = place.path().join("backup");
    let (code, _, said) = run(shop.server.command(&["backup", folder.to_str().unwrap()]), "");
    assert_eq!(code, 0, "{said}");
    shop.chain.mine(1);
    shop.chain.set_automine(true);
    assert_eq!(call.join().unwrap().unwrap().status, 200, "it is answered after the backup");
    let (earned, served) = (shop.earned(), shop.served());
    shop.server.signal();
    shop.server.wait_exit();
    fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();

    let (code, printed, said) = run(shop.server.command(&["restore", folder.to_str().unwrap()]), "");
    assert_eq!(code, 0, "{said}");
    let restored: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(restored["not_in_the_books"].as_array().map(Vec::len), Some(0), "{restored:#}");
    let [told] = &restored["calls_under_way"].as_array().unwrap()[..] else { panic!("{restored:#}") };
    assert_eq!((told["amount_usd"].as_f64().unwrap() * 1e6).round() as u64, payment.amount);
    let tx = shop.chain.transfers()[0].transaction.to_lowercase();
    assert_eq!(told["tx"].as_str().unwrap().to_lowercase(), tx);
    shop.server.restart();
    eventually("the payment is decided and buys nothing again", || {
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!(answer.status, 409, "{}", answer.text());
        answer.json()["error"]["outcome"] != "pending"
    });
    assert_eq!((shop.earned(), shop.served()), (earned, served), "no transfer was made and no upstream asked");
    shop.close(0);
}
