//! The upstream fails: before settlement nothing moves, after it the payment is the payer's balance.

use farebox_rig::anvil::{BUYER, SETTLER};
use farebox_rig::http;
use farebox_rig::server::{OUTPUT_PRICE, Settings};
use serde_json::json;

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, RESPONSES, Shop, USAGE, body, body_for, paid};

/// Responses as wallet clients buy them.
const FLAT: &str = "/api/v1/responses";

/// Settlement waits for the upstream's word, however busy the machine is.
fn patient() -> Settings {
    Settings { payments: vec!["settle_after_ms = 20000".into()], ..Settings::default() }
}

#[test]
fn an_upstream_that_refuses_at_once_costs_nobody_anything_and_the_payment_can_be_used_again() {
    let mut shop = Shop::with(84532, &patient());
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    for (upstream, expected) in [(400, 400), (401, 502), (500, 502), (529, 529)] {
        shop.upstream.configure(&json!({ "status": upstream }));
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!(answer.status, expected, "upstream said {upstream}: {}", answer.text());
        assert_eq!(answer.header("payment-response"), None, "nothing was settled, so there is no receipt");
        assert_eq!(answer.header("payment-required"), None, "paying would not mend it");
        assert!(!answer.text().contains(farebox_rig::upstream::UPSTREAM_KEY));
    }
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 0));

    shop.upstream.configure(&json!({}));
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains(ANSWER));
    assert_eq!(shop.earned(), payment.amount);
    shop.close(CHARGE);
}

#[test]
fn an_upstream_that_fails_after_settlement_leaves_the_whole_payment_as_the_payers_balance() {
    for (route, stream) in [(CHAT, false), (MESSAGES, true), (RESPONSES, true)] {
        let settings = Settings { payments: vec!["settle_after_ms = 50".into()], ..Settings::default() };
        let mut shop = Shop::with(84532, &settings);
        let body = body_for(route, USAGE, stream);
        let payment = shop.pay(route, &body);
        shop.upstream.configure(&json!({ "ttfb": 1500, "status": 500 }));
        let answer = shop.buy(route, &body, &payment);
        assert!((500..600).contains(&answer.status), "{} {}", answer.status, answer.text());
        let receipt = answer.decoded("payment-response").expect("the money moved, so there is a receipt");
        assert_eq!(receipt["success"], true);
        assert_eq!(shop.earned(), payment.amount);
        let again = shop.buy(route, &body, &payment);
        assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"));
        let books = shop.close(0);
        assert_eq!(books.balance(BUYER.address), payment.amount);
    }
}

#[test]
fn settle_first_never_opens_the_upstream_for_money_that_did_not_come() {
    let settings = Settings { payments: vec!["payg_order = \"settle-first\"".into()], ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let address = shop.server.address().to_owned();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| http::send(&address, &paid(CHAT, &body, &payment)).unwrap());
        farebox_rig::process::eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
        assert_eq!(shop.served(), 0, "unconfirmed money opens nothing");
        shop.chain.mine(1);
        let answer = answer.join().unwrap();
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    });
    assert_eq!(shop.served(), 1);
    shop.chain.set_automine(true);
    shop.close(CHARGE);
}

#[test]
fn a_stream_that_breaks_is_charged_for_what_passed_and_never_looks_complete() {
    let cases = [(CHAT, "[DONE]", false), (RESPONSES, "response.completed", true), (FLAT, "response.completed", false)];
    for (route, end, knows_the_event) in cases {
        let mut shop = Shop::open();
        let body = body_for(route, "<<fake words=40 cut=6>>", true);
        let payment = shop.pay(route, &body);
        let answer = shop.buy(route, &body, &payment);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.complete, knows_the_event, "else the connection is aborted, so that no client takes it for the end");
        assert!(!answer.text().contains(end), "{}", answer.text());
        assert!(answer.text().contains("\"error\""), "the reason stands in the stream: {}", answer.text());
        let earned = shop.earned();
        let mut server = shop.server;
        let books = server.audit();
        assert!(books.clean, "{:#}", books.json);
        let charge = earned - books.balance(BUYER.address);
        assert_eq!(earned, payment.amount);
        assert!(
            charge > 0 && charge < payment.amount && charge <= 40 * OUTPUT_PRICE + 1000 * 3,
            "charged {charge}, which is not what can have passed"
        );
    }
}

#[test]
fn a_buyer_who_hangs_up_stops_the_upstream_and_gets_the_rest_as_balance() {
    let mut shop = Shop::open();
    let body = body("<<fake words=200 gap=50>>", true);
    let payment = shop.pay(CHAT, &body);
    let mut stream = http::open(shop.server.address(), &paid(CHAT, &body, &payment)).unwrap();
    assert_eq!(stream.status, 200);
    assert!(stream.next_chunk().is_some());
    drop(stream);
    farebox_rig::process::eventually("the upstream call is cancelled", || shop.upstream.calls()[0]["outcome"] == "client_gone");
    assert_eq!(shop.earned(), payment.amount);
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    let balance = books.balance(BUYER.address);
    assert!(balance > 0 && balance <= payment.amount, "the unspent part of {} is the buyer's, not {balance}", payment.amount);
}
