//! Nodes that are down, behind, or lie: what one of them says is not yet money, and not yet a loss.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use farebox::chain::solana::reason;
use farebox::config;
use farebox_rig::process::eventually;
use farebox_rig::solana::{BUYER, SETTLER, Solana};
use farebox_rig::stub::{self, Stub};
use serde_json::{Value, json};
use tokio::sync::oneshot::error::TryRecvError;

use crate::shop::{PRICE, Shop, confirmed, failed, open, open_with, wait};

/// A shop whose first node lies; the honest one comes second, if there is one.
fn behind(liar: &Stub, node: Solana, honest: bool) -> Shop {
    let urls: Vec<_> = [liar.url()].into_iter().chain(honest.then(|| node.url())).collect();
    let shop = open_with(node, Arc::default(), |network| {
        network.settlement = config::Settlement::Rpc { urls: urls.clone(), key: SETTLER.key.to_owned().into() };
    });
    assert_eq!(shop.chains.networks()[0].sellable, Ok(()));
    shop
}

fn answer(call: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })
}

#[test]
fn a_node_that_is_down_for_a_while_only_makes_it_slower() {
    for status in [503, 429] {
        let shop = open();
        let payment = shop.pay(BUYER, PRICE);
        shop.node.fail_requests(6, status);
        confirmed(shop.settle(&payment));
        assert_eq!((shop.received(), shop.node.landed().len()), (PRICE, 1));
    }
}

#[test]
fn a_status_without_its_transaction_is_not_money() {
    let node = Solana::start();
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = looks.clone();
    let liar = Stub::before_node(node.address(), move |call, ask| match call["method"].as_str() {
        Some("getSignatureStatuses") => {
            seen.fetch_add(1, SeqCst);
            let status = json!({ "slot": 7, "confirmations": null, "err": null, "confirmationStatus": "finalized" });
            answer(call, json!({ "context": { "slot": 9 }, "value": [status] }))
        }
        _ => ask(call),
    });
    let shop = behind(&liar, node, false);
    let payment = shop.pay(BUYER, PRICE);
    shop.node.drop_sends(1000);
    let mut outcome = shop.chains.settle(payment);
    eventually("it is believed of nobody", || looks.load(SeqCst) >= 6);
    assert_eq!(outcome.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(shop.received(), 0);
}

#[test]
fn another_transaction_under_our_name_and_one_that_moved_nothing_are_not_money() {
    for lie in [
        |shown: &mut Value| shown["meta"]["postTokenBalances"] = shown["meta"]["preTokenBalances"].clone(),
        |shown: &mut Value| {
            let text = shown["transaction"][0].as_str().unwrap_or_default();
            // The version byte stands behind two signatures; the header behind it.
            let changed = format!("{}B{}", &text[..200], &text[201..]);
            shown["transaction"][0] = changed.into();
        },
    ] {
        let node = Solana::start();
        let looks = Arc::new(AtomicUsize::new(0));
        let seen = looks.clone();
        let liar = Stub::before_node(node.address(), move |call, ask| {
            let mut told = ask(call);
            if call["method"] == "getTransaction" && told["result"].is_object() {
                seen.fetch_add(1, SeqCst);
                lie(&mut told["result"]);
            }
            told
        });
        let shop = behind(&liar, node, false);
        let mut outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
        eventually("it is looked at again and again", || looks.load(SeqCst) >= 4);
        assert_eq!(outcome.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(shop.journal.attempts().len(), 1, "and nothing is signed anew");
    }
}

#[test]
fn a_node_that_hides_a_transfer_is_not_believed_against_another() {
    let node = Solana::start();
    // Where it is asked about a transaction it is ahead of everybody, and has never seen any.
    let liar = Stub::before_node(node.address(), |call, ask| match call["method"].as_str() {
        Some("getSignatureStatuses") => answer(call, json!({ "context": { "slot": 9 }, "value": [null] })),
        Some("getBlockHeight") => answer(call, json!(9_000)),
        Some("getEpochInfo") if call["params"][0]["commitment"] == "finalized" => {
            answer(call, json!({ "absoluteSlot": 9, "blockHeight": 9_000 }))
        }
        _ => ask(call),
    });
    let shop = behind(&liar, node, true);
    let confirmation = confirmed(wait(shop.chains.settle(shop.pay(BUYER, PRICE))));
    assert_eq!((shop.received(), shop.node.landed().len()), (PRICE, 1));
    assert_eq!(shop.node.landed()[0].signature, confirmation.tx);
}

#[test]
fn a_node_that_does_not_know_a_new_blockhash_yet_does_not_make_a_payment_bad() {
    let node = Solana::start();
    let liar = Stub::before_node(node.address(), |call, ask| match call["method"].as_str() {
        Some("simulateTransaction") => {
            let late = json!({ "err": "BlockhashNotFound", "logs": [], "unitsConsumed": 0 });
            answer(call, json!({ "context": { "slot": 9 }, "value": late }))
        }
        _ => ask(call),
    });
    let shop = behind(&liar, node, true);
    let payment = shop.pay(BUYER, PRICE);
    assert_eq!(shop.simulate(&payment), Ok(()), "the next node knows it");
    confirmed(shop.settle(&payment));
    assert_eq!((shop.received(), shop.node.landed().len()), (PRICE, 1));
}

#[test]
fn a_node_whose_clock_is_an_hour_away_closes_the_network() {
    let node = Solana::start();
    let liar = Stub::before_node(node.address(), |call, ask| {
        let mut told = ask(call);
        let clock = "SysvarC1ock11111111111111111111111111111111";
        let place = call["params"][0].as_array().and_then(|keys| keys.iter().position(|key| key == clock));
        if let (Some("getMultipleAccounts"), Some(place)) = (call["method"].as_str(), place) {
            // Slot, epoch start, epoch, leader epoch, and a second of 1970.
            told["result"]["value"][place]["data"][0] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAA==".into();
        }
        told
    });
    let shop = open_with(node, Arc::default(), |network| {
        network.settlement = config::Settlement::Rpc { urls: vec![liar.url()], key: SETTLER.key.to_owned().into() };
    });
    let why = shop.chains.networks()[0].sellable.clone().unwrap_err();
    assert!(why.starts_with("clock: this machine's clock is") && why.contains("ahead of that of solana:"), "{why}");
}

#[test]
fn a_node_that_takes_no_lists_of_calls_does_not_have_another_asked_one_by_one() {
    let node = Solana::start();
    let (behind, refusing) = (node.address().to_owned(), node.address().to_owned());
    let (down, singles) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (gone, count) = (down.clone(), singles.clone());
    let second = Stub::start(move |request| {
        if gone.load(SeqCst) {
            return None;
        }
        if request.contains(r#""getSignatureStatuses""#) && !request.contains("[{") {
            count.fetch_add(1, SeqCst);
        }
        Some((200, stub::forward(&behind, request)))
    });
    let first = Stub::start(move |request| {
        let list = request.split("\r\n\r\n").nth(1)?.starts_with('[');
        let refusal = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "no lists" } });
        Some((200, if list { refusal.to_string() } else { stub::forward(&refusing, request) }))
    });
    let urls = vec![first.url(), second.url()];
    let shop = open_with(node, Arc::default(), |network| {
        network.settlement = config::Settlement::Rpc { urls: urls.clone(), key: SETTLER.key.to_owned().into() };
    });
    assert_eq!(shop.chains.networks()[0].sellable, Ok(()), "the first alone can be asked");
    confirmed(shop.settle(&shop.pay(BUYER, PRICE)));
    down.store(false, SeqCst);
    // Nobody has it in a block, so both are asked before it is over.
    shop.node.drop_sends(1000);
    let sent = shop.node.sends();
    let outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
    eventually("it is sent", || shop.node.sends() > sent);
    shop.node.expire();
    assert_eq!(failed(wait(outcome)), reason::EXPIRED);
    assert_eq!((singles.load(SeqCst), shop.received()), (0, PRICE), "the second takes lists");
}
