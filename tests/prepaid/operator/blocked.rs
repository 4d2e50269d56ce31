//! Wallets that the operator bars: nothing is sold to them by any credential, what they have stays theirs, and they see it.

use farebox_rig::http::Request;
use serde_json::{Value, json};

use crate::owner::{CHARGE, DOLLAR, MODEL, OTHER_MODEL, Owner, Proof, Shop};

fn done(shop: &Shop, arguments: &[&str]) -> Value {
    let (code, printed, said) = shop.operator(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    printed
}

fn block(shop: &Shop, address: &str) -> Value {
    done(shop, &["block", address, "--reason", "spam"])
}

/// Barring, listing and letting in again, wherever it is done. The wallet is barred at the end.
fn a_day(shop: &Shop, owner: &Owner) {
    let address = owner.address();
    let first = block(shop, &address);
    let told = ["account", "reason", "new"].map(|name| first[name].clone());
    assert_eq!(json!(told), json!([owner.account(), "spam", true]));
    let again = done(shop, &["block", &address.to_lowercase(), "--reason", "another reason"]);
    let told = ["blocked_at", "reason", "new"].map(|name| again[name].clone());
    assert_eq!(json!(told), json!([first["blocked_at"], "spam", false]), "it says when it was barred first");
    let listed = json!({ "account": owner.account(), "blocked_at": first["blocked_at"], "reason": "spam" });
    assert_eq!(done(shop, &["blocked"])["blocked"], json!([listed]));
    assert_eq!(done(shop, &["account", &address])["blocked"], listed);
    let ended = done(shop, &["unblock", &address]);
    assert_eq!((&ended["unblocked"], &ended["was_blocked_at"]), (&json!(true), &first["blocked_at"]));
    assert_eq!(
        (&done(shop, &["blocked"])["blocked"], &done(shop, &["account", &address])["blocked"]),
        (&json!([]), &Value::Null)
    );
    for (arguments, code, words) in [
        (vec!["unblock", &address], 1, "is not blocked"),
        (vec!["block", &address, "--reason", " "], 2, "why"),
        (vec!["block", &address, "--reason", "two\nlines"], 2, "one line"),
        (vec!["block", &address], 2, "--reason"),
        (vec!["block", "0x1234", "--reason", "spam"], 2, "an account is"),
        (vec!["block", "0xAbCdEf0000000000000000000000000000000000", "--reason", "spam"], 2, "checksum"),
    ] {
        let (got, printed, said) = shop.operator(&arguments);
        assert!((got, &printed) == (code, &Value::Null) && said.contains(words), "{arguments:?}: {got} {said}");
    }
    // Not as it was written, but the wallet counts.
    block(shop, &format!("0x{}", address[2..].to_uppercase()));
}

#[test]
fn a_wallet_is_barred_and_let_in_on_a_gateway_that_runs_and_on_one_that_does_not() {
    let (mut shop, owner, other) = (Shop::open(), Owner::new(1), Owner::new(2));
    shop.top_up(&owner, DOLLAR);
    shop.top_up(&other, DOLLAR);
    let [key, of_other] = [&owner, &other].map(|owner| shop.mint(owner, &json!({ "name": "k" })).1);
    a_day(&shop, &owner);
    assert_eq!((shop.call(&key, MODEL).code(), shop.call(&of_other, MODEL).status), ("account_blocked".into(), 200));
    done(&shop, &["unblock", &owner.address()]);
    assert_eq!(shop.call(&key, MODEL).status, 200, "at once");
    shop.server.signal();
    shop.server.wait_exit();
    a_day(&shop, &owner);
    let exported = shop.operator_prints(&["export", "--what", "accounts"]);
    let line = exported.lines().find(|line| line.contains(&owner.account())).expect("it has a line");
    assert!(line.ends_with(",spam") && exported.starts_with("account,balance_micros,blocked_at,block_reason\n"), "{exported}");
    shop.server.restart();
    assert_eq!(shop.call(&key, MODEL).code(), "account_blocked");
    done(&shop, &["unblock", &owner.address()]);
    assert_eq!(shop.call(&key, MODEL).status, 200);
    shop.wait_settled(&owner);
    let left = |calls: u64| DOLLAR - calls * u64::try_from(CHARGE).unwrap();
    shop.wait_settled(&other);
    shop.close(&[(&owner, left(2)), (&other, left(1))]);
}

#[test]
fn a_wallet_that_is_barred_gets_nothing_by_any_credential_and_sees_what_it_has() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (id, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let session = shop.session(&owner);
    block(&shop, &owner.address());
    for route in ["/v1/chat/completions", "/v1/messages", "/api/v1/chat/completions"] {
        for stream in [false, true] {
            let body =
                json!({ "model": MODEL, "max_tokens": 100, "stream": stream, "messages": [{ "role": "user", "content": "hi" }] });
            for proof in [Proof::bearer(&key), shop.sign_in(&owner)] {
                let answer = shop.ask("POST", route, &proof, Some(&body));
                let (code, text) = (answer.code(), answer.text());
                assert_eq!((answer.status, code.to_lowercase().as_str()), (403, "account_blocked"), "{route}: {text}");
                assert_eq!(code == "ACCOUNT_BLOCKED", route.starts_with("/api/"), "in the dialect of the route: {text}");
                assert!(text.contains("its balance of 1.000000 USDC stays its own: write to the operator"), "{text}");
                assert_eq!(answer.header("payment-required"), None, "it is not invited to pay");
                assert!(!text.contains("spam"), "the reason is the operator's: {text}");
            }
        }
    }
    let messages = json!({ "model": MODEL, "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] });
    let nobody = shop.server.send(&Request::post("/v1/messages", messages.to_string()));
    assert_eq!(nobody.status, 402, "who does not say who it is gets the quote: {}", nobody.text());
    for (method, path, body) in [
        ("POST", "/api/keys".to_owned(), json!({ "name": "another" })),
        ("PATCH", format!("/api/keys/{id}"), json!({ "name": "renamed" })),
        ("POST", format!("/api/keys/{id}/rotate"), json!({})),
    ] {
        for proof in [&session, &shop.sign_in(&owner)] {
            let answer = shop.ask(method, &path, proof, Some(&body));
            assert_eq!((answer.status, answer.code()), (403, "account_blocked".into()), "{path}: {}", answer.text());
        }
    }
    sees_what_it_has(&shop, &owner, &key);
    assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &session, None).status, 200, "ending a key is possible");
    assert_eq!(shop.upstream.calls().len(), 0, "the upstream was not asked");
    shop.close(&[(&owner, DOLLAR)]);
}

/// What is its own, it may look at, by everything that it could before.
fn sees_what_it_has(shop: &Shop, owner: &Owner, key: &str) {
    let account = shop.get("/api/account", &shop.session(owner));
    assert_eq!((&account["balance_usd"], &account["held_usd"], &account["keys"]), (&json!(1), &json!(0), &json!(1)));
    let lines = shop.get("/api/transactions", &shop.sign_in(owner))["transactions"].take();
    assert_eq!((lines.as_array().unwrap().len(), &lines[0]["type"]), (1, &json!("TOP_UP")), "nothing moved: {lines}");
    let balance = shop.get(&format!("/api/v1/x402/balance/{}", owner.address()), &shop.sign_in(owner));
    assert_eq!((&balance["data"]["balanceUsd"], &balance["data"]["canConsume"]), (&json!(1), &json!(false)));
    assert_eq!(shop.knocks(key).0, 200);
    assert_eq!(shop.listed(owner).len(), 1, "no key was made");
    assert!(!account.to_string().contains("spam") && !balance.to_string().contains("spam"), "the reason is the operator's");
}

#[test]
fn a_barred_wallet_hears_of_nothing_else_that_it_could_mend() {
    let (shop, poor, owner) = (Shop::open(), Owner::new(1), Owner::new(2));
    shop.top_up(&owner, DOLLAR);
    let nothing_there = shop.mint_by_hand(&poor);
    let for_another = shop.mint(&owner, &json!({ "name": "k", "models": [OTHER_MODEL] })).1;
    let spent = shop.mint(&owner, &json!({ "name": "k", "spend_limit_usd": "0.000001" })).1;
    let keys = [(&nothing_there, "insufficient_balance"), (&for_another, "model_not_allowed"), (&spent, "spend_limit_exceeded")];
    for (key, code) in keys {
        assert_eq!(shop.call(key, MODEL).code(), code);
    }
    [&poor, &owner].iter().for_each(|owner| _ = block(&shop, &owner.address()));
    for (key, before) in keys {
        let answer = shop.call(key, MODEL);
        assert_eq!((answer.status, answer.code()), (403, "account_blocked".into()), "{before}: {}", answer.text());
    }
    assert_eq!(shop.upstream.calls().len(), 0);
    shop.close(&[(&poor, 0), (&owner, DOLLAR)]);
}

#[test]
fn what_was_answered_survives_a_kill() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    for _ in 0..5 {
        block(&shop, &owner.address());
        shop.server.kill();
        shop.server.restart();
        assert_eq!(shop.call(&key, MODEL).code(), "account_blocked");
        done(&shop, &["unblock", &owner.address()]);
        shop.server.kill();
        shop.server.restart();
        assert_eq!(done(&shop, &["blocked"])["blocked"], json!([]));
    }
    assert_eq!(shop.upstream.calls().len(), 0);
    shop.close(&[(&owner, DOLLAR)]);
}
