//! Calls that a balance pays for, or not: what a 402 says to whom, that what it asks for suffices, and prices that are flat.

use farebox_rig::anvil::{BUYER, PAY_TO};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::Request;
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, FIVE, RESPONSES, Shop, USAGE, now, params, params_on, params_with};

const FLAT: &str = "/api/v1/chat/completions";

fn usd(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

#[test]
fn who_brings_nothing_is_told_every_way_to_pay() {
    let shop = Shop::open();
    let routes = [(CHAT, false), ("/v1/messages", false), (RESPONSES, false)];
    for (route, flat) in routes.into_iter().chain([(FLAT, true), ("/api/v1/messages", true), ("/api/v1/responses", true)]) {
        let body = params_on(route, USAGE).to_string();
        let answer = shop.server.send(&Request::post(route, body.as_str()));
        assert_eq!(answer.status, 402, "{route}: {}", answer.text());
        let (json, offer) = (answer.json(), answer.decoded("payment-required").unwrap());
        let invitation = &offer["extensions"]["sign-in-with-x"];
        let info = &invitation["info"];
        assert_eq!(info["domain"], shop.server.address(), "{route}: {offer}");
        assert_eq!(info["uri"], format!("{}{route}", shop.server.url()));
        assert_eq!(info["uri"], offer["resource"]["url"]);
        assert!(invitation["supportedChains"].as_array().unwrap().iter().any(|chain| chain["chainId"] == "eip155:8453"));
        assert!(invitation["schema"].is_object());
        let again = shop.server.send(&Request::post(route, body.as_str())).decoded("payment-required").unwrap();
        assert_eq!(again["accepts"], offer["accepts"], "the quote stays");
        assert_ne!(again["extensions"]["sign-in-with-x"]["info"]["nonce"], info["nonce"], "the nonce does not");
        let size: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        assert!(size < 3500, "{size} bytes of headers do not pass a default reverse proxy");
        if flat {
            assert_eq!((&json["error"], &json["code"]), (&"Authentication required".into(), &"PAYMENT_REQUIRED".into()));
            assert_eq!((&json["extensions"], &json["accepts"]), (&offer["extensions"], &offer["accepts"]));
            for (way, fields) in
                [("apiKey", &["header", "getKey", "docs"][..]), ("x402Wallet", &["header", "legacyHeader", "topUp", "docs"])]
            {
                assert!(fields.iter().all(|field| json["authOptions"][way][field].is_string()), "{json}");
            }
        }
    }
    shop.assert_untouched();
}

#[test]
fn a_wallet_with_too_little_is_told_what_suffices() {
    let prepaid = vec!["top_up_suggested = \"2.00\"".into()];
    let mut shop = Shop::with(8453, Settings { prepaid, ..Settings::default() });
    shop.top_up(BUYER, 1_000_000);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let body = params_with(USAGE, json!({ "max_tokens": 64_000, "n": 4 })).to_string();
    let quote = shop.server.send(&Request::post(CHAT, body.as_str())).json()["required_micro"].as_u64().unwrap();
    assert!(quote > 3_500_000, "{quote}");

    let answer = shop.server.send(&Request::post(CHAT, body.as_str()).header("x-api-key", &key.text));
    let json = answer.json();
    assert_eq!((answer.status, answer.code().as_str()), (402, "insufficient_balance"), "{json}");
    assert_eq!((&json["required_micro"], &json["error"]["available_micro"]), (&quote.into(), &1_000_000.into()));
    assert_eq!((&json["x402Version"], &json["error"]["type"]), (&1.into(), &"insufficient_quota".into()));
    assert_eq!(answer.header("x-should-retry"), Some("false"));

    let sign_in = shop.account(BUYER).sign_in();
    let answer = shop.server.send(&Request::post(FLAT, body.as_str()).header("sign-in-with-x", &sign_in));
    let json = answer.json();
    assert_eq!((&json["error"], &json["code"]), (&"Payment required".into(), &"PAYMENT_REQUIRED".into()), "{json}");
    assert_eq!(json["reason"], "insufficient_balance");
    let micro = |name: &str| (usd(&json[name]) * 1e6).round();
    assert_eq!((micro("currentBalanceUsd"), micro("minimumBalanceUsd")), (1e6, quote as f64));
    assert_eq!((micro("minimumTopUpUsd"), &json["required_micro"]), (1e6, &quote.into()));
    let suggested = micro("suggestedTopUpUsd") as u64;
    assert!((quote - 1_000_000..quote - 1_000_000 + 10_000).contains(&suggested), "what is missing, in cents: {suggested}");
    let how = &json["topUpInstructions"];
    assert!(how["receiverWallet"].as_str().unwrap().eq_ignore_ascii_case(PAY_TO.address), "{how}");
    assert_eq!((&how["tokenAddress"], &how["tokenDecimals"]), (&shop.chain.usdc().into(), &6.into()));
    assert_eq!((&how["network"], &json["supportedChains"][0]), (&"eip155:8453".into(), &"base".into()));
    assert_eq!(json["siwxChallenge"]["info"]["domain"], shop.server.address());
    let offer = answer.decoded("payment-required").unwrap();
    assert_eq!(offer["accepts"][0]["amount"], quote.to_string(), "the offer is for this call alone");
    assert_eq!(shop.upstream.calls().len(), 0, "nobody was asked");
    assert_eq!(shop.account(BUYER).available(), 1_000_000, "nothing is held");

    shop.top_up(BUYER, suggested);
    let answer = shop.server.send(&Request::post(FLAT, body.as_str()).header("sign-in-with-x", &sign_in));
    assert_eq!(answer.status, 200, "what was suggested suffices: {}", answer.text());
    shop.close(&[]);
}

#[test]
fn the_offer_beside_too_little_balance_buys_the_one_call() {
    let mut shop = Shop::open();
    let body = params(USAGE).to_string();
    let key = shop.mint_by_hand(BUYER);
    let request = Request::post(CHAT, body.as_str()).header("x-api-key", &key.text);
    let refused = shop.server.send(&request);
    assert_eq!(refused.code(), "insufficient_balance");
    let requirements = refused.decoded("payment-required").unwrap()["accepts"][0].clone();
    let paid: u64 = requirements["amount"].as_str().unwrap().parse().unwrap();
    let payment = sign(&[Intent { wallet: BUYER, requirements, valid_before: now() + 300 }]).remove(0);
    let answer = shop.server.send(&request.header("payment-signature", payment["v2"].as_str().unwrap()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    shop.wait_charged(1);
    assert_eq!(shop.account(BUYER).available(), i64::try_from(paid).unwrap() - CHARGE);
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
}

#[test]
fn too_little_is_no_402_while_nothing_can_be_paid_in() {
    let mut shop = Shop::open();
    shop.top_up(BUYER, FIVE);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    // The node is gone; the next start finds no network to pay on.
    shop.server.reconfigure(|text| text.replace(&shop.chain.url(), "http://127.0.0.1:1"));
    shop.server.restart();
    let dear = params_with(USAGE, json!({ "max_tokens": 64_000, "n": 8 })).to_string();
    let answer = shop.server.send(&Request::post(FLAT, dear).header("x-api-key", &key.text));
    assert_eq!((answer.status, answer.code().as_str()), (503, "NETWORK_UNAVAILABLE"), "{}", answer.text());
    let answer = shop.server.send(&Request::post(CHAT, params(USAGE).to_string()).header("x-api-key", &key.text));
    assert_eq!(answer.status, 200, "a balance buys without any network: {}", answer.text());
    shop.wait_charged(1);
    let mut server = shop.server;
    server.reconfigure(|text| text.replace("http://127.0.0.1:1", &shop.chain.url()));
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(BUYER.address), FIVE - u64::try_from(CHARGE).unwrap());
}

#[test]
fn a_flat_price_that_the_operator_keeps_is_what_a_whole_answer_costs_from_a_balance_too() {
    let settings = Settings { payments: vec!["payg_remainder = \"keep\"".into()], ..Settings::default() };
    let mut shop = Shop::with(8453, settings);
    shop.server.reconfigure(|text| text.replace("price = { input", "ceiling = \"0.01\"\nprice = { input"));
    shop.server.restart();
    shop.top_up(BUYER, FIVE);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let send = |directive: &str, stream: bool| {
        let body = params_with(directive, json!({ "stream": stream })).to_string();
        shop.server.send(&Request::post(CHAT, body).header("x-api-key", &key.text))
    };
    for stream in [false, true] {
        assert_eq!(send(USAGE, stream).status, 200);
    }
    assert_eq!(send("<<fake status=500>>", false).status, 502, "what is not served costs nothing");
    let broken = send("<<fake words=30 in=20 cut=9>>", true);
    assert!(!broken.complete, "{}", broken.text());
    shop.wait_charged(3);
    let charges = shop.account(BUYER).statement().of("CHARGE");
    assert_eq!(charges[..2], [-10_000, -10_000]);
    assert!(charges.len() == 3 && (-1000..0).contains(&charges[2]), "a part costs what passed: {charges:?}");
    let spent: i64 = charges.iter().sum();
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(i64::try_from(books.balance(BUYER.address)).unwrap(), i64::try_from(FIVE).unwrap() + spent);
}
