//! What a wallet sees of itself: its balance, and rows that sum to it; and that nobody else sees any of it.

use farebox_rig::account::usd;
use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http::{Answer, Request};
use farebox_rig::server::Settings;
use farebox_rig::sign_in::sign_in;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, FIVE, Shop, USAGE, params};
use crate::topping::{TOP_UP, paying, sign};

const SIGN_IN: &str = "x-sign-in-with-x";

fn balance(prefix: &str, wallet: &str) -> String {
    format!("{prefix}/x402/balance/{wallet}")
}

fn transactions(query: &str) -> String {
    format!("/api/v1/x402/transactions/{}{query}", BUYER.address)
}

fn assert_refused(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{what}: {}", answer.text());
    assert!(answer.json()["error"].is_string(), "{what}: clients print it: {}", answer.text());
    assert_eq!(answer.header("x-balance-remaining"), None, "{what}");
}

#[test]
fn a_wallet_that_was_never_seen_has_nothing_and_is_told_how_to_change_that() {
    let shop = Shop::open();
    for (prefix, wallet) in [("/api/v1", BUYER.address.to_owned()), ("/v1", BUYER.address.to_lowercase())] {
        let answer = shop.account(BUYER).get(&balance(prefix, &wallet));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let expected = json!({
            "success": true,
            "data": {
                "walletAddress": BUYER.address.to_lowercase(), "balanceUsd": 0, "canConsume": false, "minimumTopUpUsd": 1,
                "suggestedTopUpUsd": 10, "diemBalanceUsd": 0,
            },
        });
        assert_eq!((answer.json(), answer.header("x-balance-remaining")), (expected, Some("0.000000")));
    }
    let statement = shop.account(BUYER).get(&transactions(""));
    let expected = json!({
        "success": true,
        "data": {
            "walletAddress": BUYER.address.to_lowercase(), "currentBalance": 0, "transactions": [],
            "pagination": { "limit": 50, "offset": 0, "hasMore": false },
        },
    });
    assert_eq!(statement.json(), expected);
    shop.assert_untouched();
    shop.close(&[]);
}

#[test]
fn whoever_asks_is_refused_in_this_order_path_nobody_bad_sign_in_somebody_else() {
    let shop = Shop::open();
    let (mine, theirs) = (shop.account(BUYER).sign_in(), balance("/api/v1", OTHER_BUYER.address));
    let get = |path: &str, header: &str| shop.server.send(&Request::get(path).header(SIGN_IN, header));
    for path in ["nobody", "0x1234", &BUYER.address[2..], "0x90F79bf6EB2c4f870365E785982E1f101E93b90g"] {
        for answer in [get(&balance("/api/v1", path), "garbage"), shop.server.send(&Request::get(&balance("/api/v1", path)))] {
            assert_refused(&answer, 400, "INVALID_REQUEST", path);
        }
    }
    for path in [theirs.clone(), balance("/v1", OTHER_BUYER.address), transactions("")] {
        let nobody = shop.server.send(&Request::get(&path));
        assert_refused(&nobody, 402, "PAYMENT_REQUIRED", &path);
        assert_eq!(nobody.json()["accepts"], json!([]), "nothing can be paid here");
        let invited = &nobody.json()["extensions"]["sign-in-with-x"];
        assert_eq!(invited["info"]["domain"], shop.server.address());
        assert_eq!(invited["info"]["uri"], format!("{}{path}", shop.server.url()));
        assert_eq!(invited["supportedChains"][0], json!({ "chainId": "eip155:8453", "type": "eip191" }));
        assert_eq!(&nobody.decoded("payment-required").unwrap()["extensions"]["sign-in-with-x"], invited, "in both places");
        assert_refused(&get(&path, "garbage"), 401, "X402_SIGN_IN_PARSE_ERROR", &path);
    }
    assert_refused(&get(&theirs, &mine), 403, "X402_WALLET_MISMATCH", "somebody else's");
    let solana = balance("/api/v1", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v");
    assert_refused(&get(&solana, &mine), 403, "X402_WALLET_MISMATCH", "a wallet of another family");
    // A payment on its chain can be copied by everybody.
    shop.top_up(BUYER, FIVE);
    let payment = sign(BUYER, &shop.asked_for(FIVE));
    assert_eq!(shop.pay_in(&payment).status, 200);
    let copied = shop.server.send(&Request::get(&balance("/api/v1", BUYER.address)).header("payment-signature", payment.v2()));
    assert_refused(&copied, 402, "PAYMENT_REQUIRED", "a settled payment is no credential");
    shop.close(&[]);
}

#[test]
fn a_page_that_cannot_be_is_refused_and_a_head_is_answered_without_a_body() {
    let shop = Shop::open();
    for query in [
        "?limit=0",
        "?limit=101",
        "?limit=1000000000",
        "?limit=ten",
        "?limit=1&limit=1000",
        "?offset=-1",
        "?offset=1e3",
        "?offset=1000001",
    ] {
        assert_refused(&shop.account(BUYER).get(&transactions(query)), 400, "INVALID_REQUEST", query);
    }
    let far = shop.account(BUYER).get(&transactions("?offset=1000000&limit=100"));
    assert_eq!((far.status, &far.json()["data"]["transactions"]), (200, &json!([])), "{}", far.text());
    let header = shop.account(BUYER).sign_in();
    let head = Request::new("HEAD", &balance("/api/v1", BUYER.address)).header(SIGN_IN, &header);
    let raw = farebox_rig::http::raw(shop.server.address(), &head.bytes(shop.server.address())).unwrap();
    let raw = String::from_utf8(raw).unwrap();
    assert!(raw.starts_with("HTTP/1.1 200") && raw.to_lowercase().contains("x-balance-remaining: 0.000000"), "{raw}");
    assert!(raw.ends_with("\r\n\r\n"), "no body: {raw}");
    let posted = shop.server.send(&Request::post(&transactions(""), "{}"));
    assert_eq!(posted.status, 405, "{}", posted.text());
    shop.assert_untouched();
    shop.close(&[]);
}

#[test]
fn each_row_continues_from_the_one_before_and_the_pages_sum_to_the_balance() {
    let shop = Shop::open();
    shop.top_up(BUYER, FIVE);
    for _ in 0..7 {
        let body = params(USAGE).to_string();
        let header = shop.account(BUYER).sign_in();
        let answer = shop.server.send(&Request::post(CHAT, body).header(SIGN_IN, &header));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    farebox_rig::process::eventually("every call is charged", || shop.account(BUYER).statement().of("CHARGE").len() == 7);
    shop.top_up(BUYER, 2 * FIVE - 7);
    let header = shop.account(BUYER).sign_in();
    let page = |limit: usize, offset: usize| -> Value {
        let path = transactions(&format!("?limit={limit}&offset={offset}"));
        let answer = shop.server.send(&Request::get(&path).header(SIGN_IN, &header));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["data"].clone()
    };
    let whole = page(100, 0);
    let rows = whole["transactions"].as_array().unwrap();
    assert_eq!((rows.len(), &whole["pagination"]["hasMore"]), (9, &json!(false)));
    for (newer, older) in rows.iter().zip(&rows[1..]) {
        assert_eq!(usd(&newer["balanceAfter"]), usd(&older["balanceAfter"]) + usd(&newer["amount"]), "{newer} after {older}");
        assert!(newer["createdAt"].as_str() >= older["createdAt"].as_str(), "{newer} after {older}");
    }
    let kinds: Vec<_> = rows.iter().map(|row| row["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, [&["TOP_UP"][..], &["CHARGE"; 7], &["TOP_UP"]].concat(), "the newest first");
    let sum: i64 = rows.iter().map(|row| usd(&row["amount"])).sum();
    assert_eq!((sum, sum), (usd(&whole["currentBalance"]), 15_000_000 - 7 - 7 * CHARGE));
    let mut paged = Vec::new();
    while paged.len() < 9 {
        let part = page(2, paged.len());
        paged.extend(part["transactions"].as_array().unwrap().clone());
        assert_eq!(part["pagination"], json!({ "limit": 2, "offset": (paged.len() - 1) / 2 * 2, "hasMore": paged.len() < 9 }));
    }
    assert_eq!(&paged, rows);
    shop.close(&[]);
}

#[test]
fn a_key_reads_what_it_may_spend_and_nothing_else() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    for header in [("authorization", format!("Bearer {}", key.text)), ("x-api-key", key.text.clone())] {
        let get = |path: &str| shop.server.send(&Request::get(path).header(header.0, &header.1));
        let own = get(&balance("/api/v1", BUYER.address));
        assert_eq!((own.status, own.header("x-balance-remaining")), (200, Some("5.000000")), "{}", own.text());
        assert_eq!((&own.json()["data"]["balanceUsd"], &own.json()["data"]["canConsume"]), (&json!(5), &json!(true)));
        let statement = get(&transactions(""));
        assert_refused(&statement, 403, "KEY_NOT_ENOUGH", "what its wallet did with other keys is not for this one");
        assert!(!statement.text().contains("TOP_UP"));
        assert_refused(&get(&balance("/api/v1", OTHER_BUYER.address)), 403, "X402_WALLET_MISMATCH", "somebody else's");
    }
    let unknown = Request::get(&balance("/api/v1", BUYER.address)).header("x-api-key", "sk-x402-no");
    assert_refused(&shop.server.send(&unknown), 401, "INVALID_KEY", "a key that is none");
    shop.close(&[]);
}

#[test]
fn a_wallet_that_asks_too_often_is_slowed_down_and_only_its_owner_can_do_that() {
    let limits =
        ["per_ip_per_second = 1000", "per_ip_burst = 1000", "balance_reads_per_minute = 3", "statement_reads_per_minute = 2"];
    let shop = Shop::with(8453, Settings { limits: limits.map(str::to_owned).to_vec(), ..Settings::default() });
    let headers = [BUYER, OTHER_BUYER].map(|wallet| sign_in(wallet, &shop.server.url()));
    let get = |path: &str, header: &str| shop.server.send(&Request::get(path).header(SIGN_IN, header));
    let own = balance("/api/v1", BUYER.address);
    for _ in 0..10 {
        assert_eq!(shop.server.send(&Request::get(&own)).status, 402);
        assert_eq!(get(&own, &headers[1]).status, 403, "a stranger does not use up the owner's looks");
    }
    for (path, times, wait) in [(own, 3, "20"), (transactions(""), 2, "30")] {
        for _ in 0..times {
            assert_eq!(get(&path, &headers[0]).status, 200);
        }
        let slowed = get(&path, &headers[0]);
        assert_refused(&slowed, 429, "RATE_LIMITED", &path);
        assert_eq!((slowed.header("retry-after"), slowed.header("x-should-retry")), (Some(wait), Some("true")));
    }
    assert_eq!(get(&balance("/api/v1", OTHER_BUYER.address), &headers[1]).status, 200, "others are not slowed down");
    assert_eq!(shop.server.send(&Request::post(TOP_UP, "")).status, 402);
    shop.assert_untouched();
}

#[test]
fn looking_uses_a_sign_in_up_only_where_the_operator_wants_it_so() {
    for (policy, second) in [("per_charge", 200), ("session", 200), ("strict", 401)] {
        let shop = Shop::with(8453, Settings { prepaid: vec![format!("sign_in_nonces = {policy:?}")], ..Settings::default() });
        let header = shop.account(BUYER).sign_in();
        let get = |path: &str| shop.server.send(&Request::get(path).header(SIGN_IN, &header));
        assert_eq!(get(&balance("/api/v1", BUYER.address)).status, 200, "{policy}");
        let again = get(&transactions(""));
        assert_eq!(again.status, second, "{policy}: {}", again.text());
        if second == 401 {
            assert_refused(&again, 401, "X402_SIGN_IN_NONCE_REUSED", policy);
        }
        shop.assert_untouched();
    }
}

#[test]
fn what_is_held_for_an_open_call_is_not_shown_as_spendable() {
    let shop = Shop::open();
    let payment = sign(BUYER, &shop.asked());
    assert_eq!(shop.server.send(&paying(&payment)).status, 200);
    shop.upstream.configure(&json!({ "ttfb": 60_000 }));
    let (body, header) = (params(USAGE).to_string(), shop.account(BUYER).sign_in());
    let call = Request::post(CHAT, body).header(SIGN_IN, &header);
    let address = shop.server.address().to_owned();
    std::thread::scope(|scope| {
        let call = scope.spawn(move || farebox_rig::http::send(&address, &call).unwrap());
        farebox_rig::process::eventually("the upstream is asked", || shop.upstream.calls().len() == 1);
        let get = |path: &str| shop.server.send(&Request::get(path).header(SIGN_IN, &header)).json()["data"].clone();
        let (during, statement) = (get(&balance("/api/v1", BUYER.address)), get(&transactions("")));
        assert!(!call.is_finished(), "both were read during the call");
        assert!(usd(&during["balanceUsd"]) < 1_000_000 - CHARGE, "{during}: the whole quote is held");
        assert_eq!(statement["currentBalance"], during["balanceUsd"]);
        assert_eq!(statement["transactions"].as_array().unwrap().len(), 1, "what is held is no row: {statement}");
        shop.upstream.hurry();
        assert_eq!(call.join().unwrap().status, 200);
    });
    shop.upstream.configure(&json!({}));
    farebox_rig::process::eventually("it is charged", || shop.account(BUYER).available() == 1_000_000 - CHARGE);
    shop.close(&[]);
}
