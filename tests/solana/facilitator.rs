//! Settlement by the official facilitator: it takes and settles what we take, and who signs for the fee is its business.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::buyer::{Client, Order};
use farebox_rig::facilitator::Facilitator;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::solana::{BUYER, POOR_BUYER, SETTLER, Solana};
use farebox_rig::stub::Stub;
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, Shop, USAGE, body, paid};

/// A shop whose money moves through the official facilitator; with `asked`, we look at the chain ourselves as well.
fn open(asked: bool) -> (Shop, Facilitator) {
    let chain = Solana::start();
    let facilitator = Facilitator::start(&chain);
    let network = asked.then(|| format!("rpc_urls = [{:?}]", chain.url())).into_iter().collect();
    let settings = Settings { facilitator_url: Some(facilitator.url()), network, ..Settings::default() };
    (Shop::on(chain, &settings), facilitator)
}

#[test]
fn what_we_take_the_official_facilitator_takes_and_settles() {
    for asked in [false, true] {
        let (mut shop, _facilitator) = open(asked);
        let body = body(USAGE, true);
        let offer = shop.requirements(CHAT, &body);
        assert_eq!(offer["extra"]["feePayer"], SETTLER.address, "whom the facilitator says");
        assert_eq!(offer["extra"]["recentBlockhash"].is_string(), asked, "where a node is named, buyers need none");
        for (number, route) in [CHAT, MESSAGES].into_iter().enumerate() {
            let payment = shop.pay(route, &body);
            let before = shop.earned();
            let answer = shop.buy(route, &body, &payment);
            assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
            assert_eq!(shop.earned() - before, payment.amount);
            let signature = answer.decoded("payment-response").unwrap()["transaction"].as_str().unwrap().to_owned();
            assert_eq!(shop.chain.landed()[number].signature, signature);
            let again = shop.server.send_again(&paid(route, &body, &payment));
            assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"));
        }
        for (number, client) in Client::ALL.into_iter().enumerate() {
            let order = Order { base_url: &shop.server.url(), route: CHAT, body: &body, wallet: BUYER, max_value_usd: "0.5" };
            let bought = client.buy_on(&shop.chain, &order);
            assert_eq!((&bought["status"], &bought["text"]), (&200.into(), &ANSWER.into()), "{client:?}: {bought}");
            assert_eq!(bought["receipt"]["transaction"], shop.chain.landed()[2 + number].signature);
        }
        assert_eq!((shop.served(), shop.chain.landed().len()), (5, 5), "each purchase is one transaction");
        shop.close(5 * CHARGE);
    }
}

#[test]
fn a_wallet_without_money_is_refused_by_the_facilitator_and_nothing_is_sent() {
    let (mut shop, _facilitator) = open(false);
    let body = body(USAGE, false);
    let requirements = shop.requirements(CHAT, &body);
    let payment = shop.sign(POOR_BUYER, requirements);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["reason"], "invalid_exact_svm_transaction_simulation_failed", "its own word");
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn a_facilitator_that_answers_nothing_leaves_the_payment_to_the_chain() {
    let chain = Solana::start();
    let facilitator = Facilitator::start(&chain);
    let behind = facilitator.address().to_owned();
    // It settles, and its answer is lost.
    let stub = Stub::start(move |request| match request.split(' ').nth(1) {
        Some("/supported") => Some((200, get(&behind, "/supported"))),
        Some("/verify") => Some((200, post(&behind, "/verify", request))),
        _ => {
            post(&behind, "/settle", request);
            None
        }
    });
    let network = vec![format!("rpc_urls = [{:?}]", chain.url())];
    let mut shop = Shop::on(chain, &Settings { facilitator_url: Some(stub.url()), network, ..Settings::default() });
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "the chain says what the facilitator did not: {}", answer.text());
    assert_eq!((shop.served(), shop.earned(), shop.chain.landed().len()), (1, payment.amount, 1));
    let receipt = answer.decoded("payment-response").unwrap();
    assert_eq!(receipt["transaction"], shop.chain.landed()[0].signature);
    shop.close(CHARGE);
}

#[test]
fn a_payment_is_found_behind_a_thousand_others_and_among_some_that_cannot_be_read() {
    let chain = Solana::start();
    let facilitator = Facilitator::start(&chain);
    let behind = facilitator.address().to_owned();
    let stub = Stub::start(move |request| match request.split(' ').nth(1) {
        Some("/supported") => Some((200, get(&behind, "/supported"))),
        Some("/verify") => Some((200, post(&behind, "/verify", request))),
        _ => {
            post(&behind, "/settle", request);
            None
        }
    });
    let useless = Arc::new(AtomicUsize::new(0));
    let fetched = useless.clone();
    let unread = Arc::new(AtomicUsize::new(0));
    let strangers = unread.clone();
    let busy = Stub::before_node(chain.address(), move |call, ask| match (call["method"].as_str(), call["params"][0].as_str()) {
        (Some("getSignaturesForAddress"), _) if call["params"][1]["before"].is_null() => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let entry = |(kind, number, memo): (_, _, Option<&str>)| json!({ "signature": format!("{kind}{number}"), "slot": 7, "err": null, "blockTime": now, "memo": memo });
            let other = (0..990).map(|number| ("other", number, Some("[5] other")));
            let strange = (0..10).map(|number| ("strange", number, None));
            let page: Vec<_> = other.chain(strange).map(entry).collect();
            told(call, "result", page.into())
        }
        (Some("getTransaction"), Some(name)) if name.starts_with("strange") => {
            strangers.fetch_add(1, SeqCst);
            let message = "Transaction version (1) is not supported by the requesting client.";
            told(call, "error", json!({ "code": -32015, "message": message }))
        }
        (Some("getTransaction"), Some(name)) if name.starts_with("other") => {
            fetched.fetch_add(1, SeqCst);
            told(call, "result", Value::Null)
        }
        _ => ask(call),
    });
    let network = vec![format!("rpc_urls = [{:?}]", busy.url())];
    let mut shop = Shop::on(chain, &Settings { facilitator_url: Some(stub.url()), network, ..Settings::default() });
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "it is there: {}", answer.text());
    assert_eq!((shop.served(), shop.earned(), shop.chain.landed().len()), (1, payment.amount, 1));
    assert_eq!(useless.load(SeqCst), 0, "what says something else is not looked at");
    assert_eq!(unread.load(SeqCst), 10, "and the rest once each, however often it is searched");
    shop.close(CHARGE);
}

/// A node that, when it is `turned`, is one of another chain; and how often it was asked for a transaction since.
fn turncoat(chain: &Solana, turned: Arc<AtomicBool>) -> (Stub, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let stub = Stub::before_node(chain.address(), move |call, ask| {
        let honest = ask(call);
        if !turned.load(SeqCst) {
            return honest;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        match call["method"].as_str() {
            Some("getGenesisHash") => told(call, "result", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d".into()),
            Some("getTransaction") => {
                count.fetch_add(1, SeqCst);
                told(call, "result", Value::Null)
            }
            Some("getSignaturesForAddress") => told(call, "result", json!([])),
            Some("isBlockhashValid") => {
                count.fetch_add(1, SeqCst);
                told(call, "result", json!({ "context": { "slot": 9 }, "value": false }))
            }
            Some("getMultipleAccounts") => {
                let mut clock = vec![0; 32];
                clock.extend((now + 1000).to_le_bytes());
                let account = json!({ "lamports": 1, "owner": "11111111111111111111111111111111", "data": [STANDARD.encode(clock), "base64"] });
                told(call, "result", json!({ "context": { "slot": 9 }, "value": [account] }))
            }
            _ => honest,
        }
    });
    (stub, asked)
}

#[test]
fn a_node_of_another_chain_neither_takes_a_settled_payment_back_nor_ends_one_that_may_settle() {
    for settles in [true, false] {
        let chain = Solana::start();
        let facilitator = Facilitator::start(&chain);
        let behind = facilitator.address().to_owned();
        let stub = Stub::start(move |request| match request.split(' ').nth(1) {
            Some("/supported") => Some((200, get(&behind, "/supported"))),
            Some("/verify") => Some((200, post(&behind, "/verify", request))),
            _ if settles => Some((200, post(&behind, "/settle", request))),
            _ => None,
        });
        let turned = Arc::<AtomicBool>::default();
        let (node, asked) = turncoat(&chain, turned.clone());
        let network = vec![format!("rpc_urls = [{:?}]", node.url())];
        let payments = vec!["settle_wait_ms = 3000".into()];
        let settings = Settings { facilitator_url: Some(stub.url()), network, payments, ..Settings::default() };
        let mut shop = Shop::on(chain, &settings);
        let body = body(USAGE, false);
        let payment = shop.pay(CHAT, &body);
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!(answer.status, if settles { 200 } else { 504 }, "{}", answer.text());
        turned.store(true, SeqCst);
        eventually("it is asked again and again", || asked.load(SeqCst) >= 3);
        let outcome = shop.buy(CHAT, &body, &payment).json()["error"]["outcome"].clone();
        assert_eq!(outcome, if settles { "served" } else { "pending" });
        assert!(!shop.server.output().contains("vanished"), "{}", shop.server.output());
        turned.store(false, SeqCst);
        shop.close(if settles { CHARGE } else { 0 });
    }
}

fn told(call: &Value, field: &str, what: Value) -> Value {
    let mut answer = json!({ "jsonrpc": "2.0", "id": call["id"] });
    answer[field] = what;
    answer
}

fn get(address: &str, path: &str) -> String {
    farebox_rig::http::send(address, &farebox_rig::http::Request::get(path)).expect("the facilitator answers").text()
}

fn post(address: &str, path: &str, request: &str) -> String {
    let body = request.split("\r\n\r\n").nth(1).unwrap_or_default();
    farebox_rig::http::send(address, &farebox_rig::http::Request::post(path, body)).expect("the facilitator answers").text()
}

#[test]
fn a_facilitator_that_names_nobody_for_the_fee_sells_nothing() {
    let chain = Solana::start();
    let kinds = json!({ "kinds": [{ "x402Version": 2, "scheme": "exact", "network": chain.network() }] }).to_string();
    let stub = Stub::start(move |_| Some((200, kinds.clone())));
    let shop = Shop::on(chain, &Settings { facilitator_url: Some(stub.url()), ..Settings::default() });
    let answer = shop.server.send(&farebox_rig::http::Request::post(CHAT, body(USAGE, false)));
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    eventually("the operator is told", || shop.server.output().contains("names no feePayer"));
    shop.assert_untouched();
}

#[cfg(feature = "fault-points")]
#[test]
fn a_payment_that_nobody_can_tell_of_is_closed_by_the_operators_hand_and_no_sooner_than_it_may_still_arrive() {
    let chain = Solana::start();
    let facilitator = Facilitator::start(&chain);
    let behind = facilitator.address().to_owned();
    let stub = Stub::start(move |request| match request.split(' ').nth(1) {
        Some("/supported") => Some((200, get(&behind, "/supported"))),
        Some("/verify") => Some((200, post(&behind, "/verify", request))),
        _ => None,
    });
    let payments = vec!["settle_wait_ms = 1000".into()];
    let mut shop = Shop::on(chain, &Settings { facilitator_url: Some(stub.url()), payments, ..Settings::default() });
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (504, "settlement_pending"), "{}", answer.text());
    let id = answer.json()["error"]["payment_id"].as_str().unwrap().to_owned();
    let give_up = |shop: &Shop, id: &str, reason: &str| {
        let (code, _, said) = farebox_rig::process::run(shop.server.command(&["give-up", id, "--reason", reason]), "");
        (code, said)
    };
    let outcome = |shop: &Shop| shop.buy(CHAT, &body, &payment).json()["error"]["outcome"].clone();
    let (code, said) = give_up(&shop, &id, "looked it up");
    assert!(code == 2 && said.contains("may still arrive"), "{code} {said}");
    shop.server.move_clock(49 * 3600);
    let nobodys = format!("pay_{}", "0".repeat(64));
    assert_eq!([give_up(&shop, &nobodys, "x").0, give_up(&shop, "pay_1", "x").0, give_up(&shop, &id, " ").0], [1, 2, 2]);
    assert_eq!(outcome(&shop), "pending");
    assert_eq!(give_up(&shop, &id, "looked it up").0, 0);
    assert_eq!(outcome(&shop), "failed");
    assert_eq!(give_up(&shop, &id, "again").0, 2, "it is closed");
    shop.server.restart();
    assert_eq!((outcome(&shop), shop.earned()), ("failed".into(), 0));
    let books = shop.close(0);
    assert_eq!(books.json["open_payments"], json!([]));
}
