//! Who pays: a payment before a sign-in before a key, the first that is there, good or not; and one path for both key headers.

use farebox_rig::account::Key;
use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::{Answer, Request};
use serde_json::json;

use crate::shop::{ANSWER, CHARGE, CHAT, FIVE, RESPONSES, Shop, USAGE, now, params, params_on};

const MESSAGES: &str = "/v1/messages";

fn ask(route: &str) -> Request {
    Request::post(route, params_on(route, USAGE).to_string())
}

fn bearer(request: Request, key: &Key) -> Request {
    request.header("authorization", &format!("Bearer {}", key.text))
}

fn assert_bought(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert!(answer.text().contains(ANSWER), "{what}: {}", answer.text());
}

#[test]
fn a_key_buys_in_either_header_on_every_route_under_either_prefix_and_the_answer_says_what_is_left() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let mut spent = 0;
    for route in
        [CHAT, MESSAGES, RESPONSES].into_iter().chain(["/api/v1/chat/completions", "/api/v1/messages", "/api/v1/responses"])
    {
        let shapes = [
            bearer(ask(route), &key),
            ask(route).header("authorization", &format!("bearer {}", key.text)),
            ask(route).header("x-api-key", &key.text),
            bearer(ask(route), &key).header("x-api-key", &key.text),
        ];
        for (number, request) in shapes.iter().enumerate() {
            let answer = shop.server.send(request);
            assert_bought(&answer, &format!("{route}, {number}"));
            assert_eq!(answer.header("payment-response"), None, "no payment was made");
            let left: i64 = answer.header("x-balance-remaining").unwrap().replace('.', "").parse().unwrap();
            let before = i64::try_from(FIVE).unwrap() - spent;
            assert!(left < before && left > before - 10_000, "{left} after the hold of a call, {before} before it");
            assert_eq!(answer.header("x-allowance-remaining"), None, "there is no allowance");
            spent += CHARGE;
            shop.wait_charged(usize::try_from(spent / CHARGE).unwrap());
        }
    }
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap() - spent);
    shop.close(&[]);
}

#[test]
fn what_is_no_good_key_is_told_so_and_never_gets_a_quote_or_the_operators_own_key() {
    let mut shop = Shop::open();
    let (good, other) = (shop.buyer_with_key(), shop.mint(BUYER, &json!({ "name": "other" })));
    let unknown = format!("Bearer sk-x402-{}", "A".repeat(43));
    let (lower, upper) = (format!("Bearer {} x", good.text), format!("Bearer {}", good.text.to_uppercase()));
    let both = format!("Bearer {}", good.text);
    let cases: [&[(&str, &str)]; 15] = [
        &[("authorization", &unknown)],
        &[("authorization", &lower)],
        &[("authorization", &upper)],
        &[("authorization", &good.text)],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer")],
        &[("authorization", "")],
        &[("authorization", "Basic dXNlcjpwYXNz")],
        &[("authorization", "Bearer sk-ant-api03-xxxx")],
        &[("authorization", "Bearer sk-x402-é")],
        &[("x-api-key", "")],
        &[("x-api-key", "sk-proj-xxxx")],
        &[("authorization", &both), ("x-api-key", &other.text)],
        &[("authorization", &both), ("authorization", &unknown)],
        &[("authorization", &both), ("x-api-key", "")],
    ];
    for headers in cases {
        for (route, code) in [(CHAT, "invalid_key"), (MESSAGES, "invalid_key"), ("/api/v1/chat/completions", "INVALID_KEY")] {
            let request = headers.iter().fold(ask(route), |request, (name, value)| request.header(name, value));
            let answer = shop.server.send(&request);
            assert_eq!((answer.status, answer.code().as_str()), (401, code), "{headers:?} {route}: {}", answer.text());
            assert_eq!(answer.header("payment-required"), None, "{headers:?}: no price for who has a key");
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{headers:?}");
            assert!(!answer.text().contains(&good.text), "{}", answer.text());
        }
    }
    let in_query = Request::post(&format!("{CHAT}?api_key={}", good.text), params(USAGE).to_string());
    assert_eq!(shop.server.send(&in_query).status, 402, "a key in a URL is none");
    assert_eq!(shop.upstream.calls().len(), 0);
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap(), "nothing is held");
    shop.close(&[]);
}

#[test]
fn a_payment_comes_first_then_a_sign_in_then_a_key_and_only_one_of_them_pays() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    shop.top_up(OTHER_BUYER, FIVE);
    let balances = |shop: &Shop| [BUYER, OTHER_BUYER].map(|wallet| shop.account(wallet).available());
    let five = i64::try_from(FIVE).unwrap();

    // A sign-in wins over a key, also over one that is none.
    for (paid, authorization) in [(1, format!("Bearer {}", key.text)), (2, "Bearer sk-dummy".to_owned())] {
        let request = ask(CHAT).header("authorization", &authorization);
        let answer = shop.server.send(&request.header("x-sign-in-with-x", &shop.account(OTHER_BUYER).sign_in()));
        assert_bought(&answer, "signed in");
        shop.wait_charged(paid);
        assert_eq!(balances(&shop), [five, five - CHARGE * i64::try_from(paid).unwrap()]);
    }
    // And a bad one is not passed over.
    for name in ["x-sign-in-with-x", "sign-in-with-x"] {
        let answer = shop.server.send(&bearer(ask(CHAT), &key).header(name, "bm90IGpzb24="));
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_sign_in"), "{}", answer.text());
        assert_eq!(answer.json()["error"]["reason"], "X402_SIGN_IN_PARSE_ERROR");
        let flat = Request::post("/api/v1/chat/completions", params(USAGE).to_string()).header(name, "bm90IGpzb24=");
        assert_eq!(shop.server.send(&flat).code(), "X402_SIGN_IN_PARSE_ERROR");
    }
    let two = bearer(ask(CHAT), &key).header("x-sign-in-with-x", &shop.account(BUYER).sign_in());
    let two = two.header("sign-in-with-x", &shop.account(OTHER_BUYER).sign_in());
    assert_eq!(shop.server.send(&two).status, 401, "whose balance?");

    // A payment brings its own money, whatever else comes with it.
    let requirements = shop.server.send(&ask(CHAT)).decoded("payment-required").unwrap()["accepts"][0].clone();
    let amount: i64 = requirements["amount"].as_str().unwrap().parse().unwrap();
    let payment = sign(&[Intent { wallet: BUYER, requirements, valid_before: now() + 300 }]).remove(0);
    let request = bearer(ask(CHAT), &key).header("payment-signature", payment["v2"].as_str().unwrap());
    let answer = shop.server.send(&request.header("x-sign-in-with-x", &shop.account(OTHER_BUYER).sign_in()));
    assert_bought(&answer, "paid");
    assert_eq!(answer.header("x-balance-remaining"), None, "a payment is no credential");
    shop.wait_charged(3);
    assert_eq!(balances(&shop), [five + amount - CHARGE, five - 2 * CHARGE], "its rest is the payer's balance");
    let bad = bearer(ask(CHAT), &key).header("payment-signature", "bm90IGpzb24=");
    assert_eq!(shop.server.send(&bad).code(), "invalid_payment", "a bad payment is not passed over for a key");
    assert_eq!(shop.upstream.calls().len(), 3);
    assert_eq!(shop.server.audit().balance(BUYER.address), u64::try_from(five + amount - CHARGE).unwrap());
}
