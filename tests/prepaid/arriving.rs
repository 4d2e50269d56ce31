//! Money that is on its way: who waits for a top-up to settle is told to wait, never to sign another one; and no top-up is asked for that does not help.

use farebox_rig::account::Key;
use farebox_rig::anvil::BUYER;
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::{Answer, Request};
use farebox_rig::server::Settings;
use serde_json::json;

use crate::shop::{CHAT, FIVE, Shop, USAGE, now, params, params_with};

const FLAT: &str = "/api/v1/chat/completions";

fn open(prepaid: &[&str]) -> Shop {
    let prepaid = prepaid.iter().map(|line| (*line).to_owned()).collect();
    let payments = vec!["settle_wait_ms = 10000".into()];
    Shop::with(84532, Settings { prepaid, payments, ..Settings::default() })
}

fn call(route: &str, key: &Key) -> Request {
    Request::post(route, params(USAGE).to_string()).header("x-api-key", &key.text)
}

/// Wait and send this one again; no payment is asked for, in whatever shape a client looks for one.
fn assert_told_to_wait(answer: &Answer) {
    let text = answer.text();
    assert_eq!((answer.status, answer.code().to_lowercase().as_str()), (409, "payment_in_progress"), "{text}");
    assert_eq!(answer.header("payment-required"), None, "{text}");
    assert!(answer.json().get("accepts").is_none() && !text.contains("suggested"), "{text}");
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    assert_eq!(answer.header("x-should-retry"), Some("true"));
}

#[test]
fn while_a_top_up_settles_its_wallet_is_told_to_wait_and_pays_once() {
    let mut shop = open(&["top_up_wait_ms = 4000"]);
    let key = shop.mint_by_hand(BUYER);
    assert_eq!(shop.server.send(&call(CHAT, &key)).status, 402, "nothing is on its way");
    let payment = shop.signed(FIVE);
    shop.chain.set_automine(false);
    shop.pay_in_amid(&payment, || {
        [CHAT, FLAT].iter().for_each(|route| assert_told_to_wait(&shop.server.send(&call(route, &key))))
    });
    for route in [CHAT, FLAT, "/v1/messages"] {
        assert_told_to_wait(&shop.server.send(&call(route, &key)));
    }
    // Five dollars do not pay for this one.
    let dear = params_with(USAGE, json!({ "max_tokens": 64_000, "n": 8 })).to_string();
    let dear = shop.server.send(&Request::post(CHAT, dear).header("x-api-key", &key.text));
    assert_eq!((dear.status, dear.code().as_str()), (402, "insufficient_balance"), "{}", dear.text());
    // Nor is it somebody else's.
    let other = shop.mint_by_hand(farebox_rig::anvil::OTHER_BUYER);
    assert_eq!(shop.server.send(&call(CHAT, &other)).status, 402);
    shop.server.restart();
    assert_told_to_wait(&shop.server.send(&call(CHAT, &key)));
    let sign_in = shop.account(BUYER).sign_in();
    let signed_in = || Request::post(FLAT, params(USAGE).to_string()).header("sign-in-with-x", &sign_in);
    assert_told_to_wait(&shop.server.send(&signed_in()));
    assert_eq!(shop.upstream.calls().len(), 0, "nobody worked for it yet");
    shop.chain.mine(1);
    shop.insist(&payment);
    shop.chain.set_automine(true);
    assert_eq!(shop.server.send(&call(CHAT, &key)).status, 200);
    assert_eq!(shop.server.send(&signed_in()).status, 200, "the sign-in was not used up by a refusal");
    assert_eq!(shop.chain.transfers().len(), 1, "one payment, and no other was asked for");
    shop.close(&[]);
}

#[test]
fn a_payment_for_a_call_that_is_gone_is_waited_for_as_well() {
    let mut shop = open(&[]);
    let key = shop.mint_by_hand(BUYER);
    let body = params_with(USAGE, json!({ "max_tokens": 4096 })).to_string();
    let offer = shop.server.send(&Request::post(CHAT, body.as_str())).decoded("payment-required").unwrap();
    let intent = Intent { wallet: BUYER, requirements: offer["accepts"][0].clone(), valid_before: now() + 300 };
    let payment = sign(&[intent]).remove(0)["v2"].as_str().unwrap().to_owned();
    shop.chain.set_automine(false);
    let late = shop.server.send(&Request::post(CHAT, body).header("payment-signature", &payment));
    assert_eq!((late.status, late.code().as_str()), (504, "settlement_pending"), "{}", late.text());
    assert_told_to_wait(&shop.server.send(&call(CHAT, &key)));
    shop.chain.set_automine(true);
    shop.chain.mine(1);
    farebox_rig::process::eventually("it has become balance", || shop.account(BUYER).available() > 0);
    assert_eq!(shop.server.send(&call(CHAT, &key)).status, 200);
    assert_eq!(shop.chain.transfers().len(), 1);
    shop.wait_charged(1);
    let statement = shop.account(BUYER).statement();
    assert_eq!(statement.of("CHARGE").len(), 1, "the call that was gone costs nothing");
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(i64::try_from(books.balance(BUYER.address)).unwrap(), statement.balance);
}

#[test]
fn what_no_top_up_can_pay_is_asked_to_be_smaller_and_not_to_be_paid() {
    let mut shop = open(&["top_up_suggested = \"1.00\"", "top_up_maximum = \"2.00\""]);
    shop.top_up(BUYER, 1_000_000);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let ask = |route: &str, choices: u32| {
        let body = params_with(USAGE, json!({ "max_tokens": 64_000, "n": choices })).to_string();
        shop.server.send(&Request::post(route, body).header("x-api-key", &key.text))
    };
    // A dollar is there and two can be added: three answers fit, four do not.
    let answer = ask(CHAT, 3);
    assert_eq!((answer.status, answer.code().as_str()), (402, "insufficient_balance"), "{}", answer.text());
    for route in [CHAT, FLAT] {
        let answer = ask(route, 4);
        let text = answer.text();
        assert_eq!((answer.status, answer.code().to_lowercase().as_str()), (400, "invalid_request"), "{text}");
        assert!(text.contains("max_tokens") && text.contains("2.000000"), "{text}");
        assert!(answer.header("payment-required").is_none() && answer.json().get("accepts").is_none(), "{text}");
    }
    assert_eq!(shop.upstream.calls().len(), 0);
    assert_eq!(shop.account(BUYER).available(), 1_000_000);
    shop.close(&[]);
}
