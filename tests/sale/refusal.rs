//! Refused before anything moves: bad requests are never priced, bad payments are never settled.

use farebox_rig::anvil::{BUYER, OTHER_BUYER, POOR_BUYER};
use farebox_rig::http::Request;
use farebox_rig::server::MODEL;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, MESSAGES, Shop, USAGE, body, now, paid};

#[test]
fn a_bad_request_is_refused_before_a_price_is_quoted_even_when_it_brings_money() {
    let mut shop = Shop::open();
    let good = body(USAGE, false);
    let payment = shop.pay(CHAT, &good);
    let unknown = good.replace(MODEL, "no-such-model");
    let cases = [
        (CHAT, "{".to_owned(), 400, "invalid_json"),
        (CHAT, String::new(), 400, "invalid_json"),
        (CHAT, "[]".to_owned(), 400, "invalid_request"),
        (CHAT, json!({ "model": MODEL }).to_string(), 400, "invalid_request"),
        (CHAT, good.replace(&format!("\"{MODEL}\""), "7"), 400, "invalid_request"),
        (CHAT, good.replace("256", "-1"), 400, "invalid_request"),
        (CHAT, unknown.clone(), 404, "model_not_found"),
        (MESSAGES, unknown, 404, "model_not_found"),
        (MESSAGES, good.replace("\"max_tokens\":256,", ""), 400, "invalid_request"),
        ("/v1/no/such/route", good.clone(), 404, "not_found"),
    ];
    for (route, body, status, code) in cases {
        for request in [Request::post(route, body.as_str()), paid(route, &body, &payment)] {
            let answer = shop.server.send(&request);
            let sent: String = body.chars().take(80).collect();
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{route} {sent}: {}", answer.text());
            assert_eq!(answer.header("payment-required"), None, "{route} {sent}: no price for what cannot be bought");
            assert_eq!(answer.header("payment-response"), None);
            assert!(answer.header("x-request-id").is_some());
        }
    }
    shop.assert_untouched();
    assert_eq!(shop.buy(CHAT, &good, &payment).status, 200, "the payment was not used up by the refusals");
    shop.close(CHARGE);
}

#[test]
fn a_payment_that_is_not_what_was_asked_is_refused_with_its_reason_and_never_settled() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let asked = shop.requirements(CHAT, &body);
    let with = |name: &str, value: Value| {
        let mut changed = asked.clone();
        changed[name] = value;
        changed
    };
    let amount: u64 = asked["amount"].as_str().unwrap().parse().unwrap();
    let mut bad = vec![
        ("too little", shop.sign(BUYER, with("amount", json!((amount - 1).to_string())))),
        ("to somebody else", shop.sign(BUYER, with("payTo", json!(OTHER_BUYER.address)))),
        ("another token", shop.sign(BUYER, with("asset", json!("0x0000000000000000000000000000000000000001")))),
        ("another chain", shop.sign(BUYER, with("network", json!("eip155:8453")))),
        ("another domain", shop.sign(BUYER, with("extra", json!({ "name": "USD Coin", "version": "2" })))),
        ("already expired", shop.sign_until(BUYER, asked.clone(), now() - 1)),
        ("a wallet without money", shop.sign(POOR_BUYER, asked.clone())),
    ];
    let mut forged = shop.sign(BUYER, asked.clone());
    let mut envelope = decode(forged.v2());
    envelope["payload"]["authorization"]["from"] = json!(OTHER_BUYER.address);
    forged.signed["v2"] = json!(encode(&envelope));
    bad.push(("signed by another wallet", forged));

    for (what, payment) in bad {
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{what}: {}", answer.text());
        let offer = answer.decoded("payment-required").expect("a fresh offer comes with the refusal");
        assert_eq!(offer["accepts"][0]["amount"], asked["amount"], "{what}");
        let reason = offer["error"].as_str().unwrap_or_default();
        assert!(!reason.is_empty() && reason != "payment_required", "{what}: the reason is named, not {reason:?}");
        assert_eq!(answer.json()["accepts"][0]["maxAmountRequired"], asked["amount"], "{what}");
    }
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn a_header_that_is_not_a_payment_is_a_bad_request_and_not_a_missing_payment() {
    let shop = Shop::open();
    let body = body(USAGE, false);
    for header in ["!!!", "bm90IGpzb24=", &encode(&json!([])), &encode(&json!({ "x402Version": 3 })), &"A".repeat(20_000)] {
        for name in ["payment-signature", "x-payment", "x-402-payment"] {
            let answer = shop.server.send(&Request::post(CHAT, body.as_str()).header(name, header));
            let shown: String = header.chars().take(20).collect();
            assert!(matches!(answer.status, 400 | 431), "{name}: {shown}: {} {}", answer.status, answer.text());
        }
    }
    shop.assert_untouched();
    shop.close(0);
}

fn decode(header: &str) -> Value {
    use base64::Engine as _;
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(header).unwrap()).unwrap()
}

fn encode(value: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(value.to_string())
}
