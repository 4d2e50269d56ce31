//! The rig itself: a test that trusts it must know that the chain pays, the fake upstream counts, and hanging up is seen.

use std::time::{SystemTime, UNIX_EPOCH};

use farebox_rig::anvil::{Anvil, BUYER, MINTER, PAY_TO, SETTLER, Wallet};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::{self, Request};
use farebox_rig::process::eventually;
use farebox_rig::sign_in::{SignIn, Signature};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

fn payment(chain: &Anvil, wallet: Wallet, amount: u64) -> Value {
    let name = if chain.chain_id == 8453 { "USD Coin" } else { "USDC" };
    let requirements = json!({
        "scheme": "exact", "network": chain.network(), "amount": amount.to_string(), "asset": chain.usdc(),
        "payTo": PAY_TO.address, "maxTimeoutSeconds": 300, "extra": { "name": name, "version": "2" },
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    sign(&[Intent { wallet, requirements, valid_before: now + 300 }]).remove(0)
}

#[test]
fn a_signed_payment_moves_exactly_its_amount_once_on_both_chains() {
    for chain_id in [84532, 8453] {
        let chain = Anvil::start(chain_id);
        let payment = payment(&chain, BUYER, 12_345);
        let hash = chain.submit(MINTER, &payment);
        assert_eq!(chain.wait_receipt(&hash)["status"], "0x1");
        assert_eq!(chain.usdc_balance(PAY_TO.address), 12_345);
        assert_eq!(chain.usdc_balance(BUYER.address), 1_000_000_000 - 12_345);
        let transfers = chain.transfers();
        assert_eq!(transfers.len(), 1);
        assert_eq!((transfers[0].value, &transfers[0].transaction), (12_345, &hash));
        assert_eq!(transfers[0].from, BUYER.address.to_ascii_lowercase());
        assert_eq!(transfers[0].to, PAY_TO.address.to_ascii_lowercase());

        let replay = chain.submit(SETTLER, &payment);
        assert_eq!(chain.wait_receipt(&replay)["status"], "0x0");
        assert_eq!(chain.usdc_balance(PAY_TO.address), 12_345);
        assert_eq!((chain.transactions_of(MINTER.address), chain.transactions_of(SETTLER.address)), (1, 1));
    }
}

#[test]
fn blocks_come_only_when_asked_for_and_a_reorg_takes_a_payment_back() {
    let chain = Anvil::start(84532);
    chain.set_automine(false);
    let payment = payment(&chain, BUYER, 7);
    let hash = chain.submit(MINTER, &payment);
    assert_eq!((chain.receipt(&hash), chain.pending_transactions()), (None, 1));
    let block = chain.block_number();
    chain.mine(1);
    assert_eq!((chain.block_number(), chain.usdc_balance(PAY_TO.address)), (block + 1, 7));
    chain.reorg(1);
    assert_eq!((chain.receipt(&hash), chain.usdc_balance(PAY_TO.address)), (None, 0));
}

#[test]
fn the_fake_upstream_tells_what_it_used_and_refuses_strangers() {
    let upstream = Upstream::start();
    let address = upstream.url().trim_start_matches("http://").to_owned();
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi <<fake in=20 out=7 text=a+b>>"}]}"#;
    let call = Request::post("/v1/chat/completions", body);
    assert_eq!(http::send(&address, &call).unwrap().status, 401);
    let answer = http::send(&address, &call.header("authorization", &format!("Bearer {UPSTREAM_KEY}"))).unwrap();
    assert!(answer.complete && answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    let calls = upstream.calls();
    assert_eq!((calls[0]["status"].as_u64(), calls[1]["status"].as_u64()), (Some(401), Some(200)));
    assert_eq!((calls[1]["usage"]["input"].as_u64(), calls[1]["usage"]["output"].as_u64()), (Some(20), Some(7)));
    upstream.reset();
    assert!(upstream.calls().is_empty());
}

#[test]
fn an_upstream_that_thinks_or_pauses_goes_on_at_once_when_a_test_is_in_a_hurry() {
    let upstream = Upstream::start();
    let address = upstream.url().trim_start_matches("http://").to_owned();
    for waits in ["ttfb=600000", "ttfb=600000 hdr_first=1", "words=50 gap=3000"] {
        let body = format!(r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"<<fake {waits}>>"}}]}}"#);
        let call = Request::post("/v1/chat/completions", body).header("x-api-key", UPSTREAM_KEY);
        std::thread::scope(|scope| {
            let calling = scope.spawn(|| http::send(&address, &call).unwrap());
            eventually("the call has arrived", || upstream.calls().len() == 1);
            assert!(upstream.calls()[0]["outcome"].is_null(), "{waits}: it is not at its end");
            upstream.hurry();
            let answer = calling.join().unwrap();
            assert!(answer.complete && answer.text().ends_with("data: [DONE]\n\n"), "{waits}: {}", answer.text());
        });
        upstream.reset();
    }
}

#[test]
fn a_broken_answer_is_seen_as_broken_and_hanging_up_is_felt_upstream() {
    let upstream = Upstream::start();
    let address = upstream.url().trim_start_matches("http://").to_owned();
    let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let call = Request::post("/v1/chat/completions", body).header("x-api-key", UPSTREAM_KEY);
    upstream.script(&[json!({ "cut": 1, "words": 9 }), json!({ "gap": 50, "words": 900 })]);
    assert!(!http::send(&address, &call).unwrap().complete);
    let mut stream = http::open(&address, &call).unwrap();
    assert!(stream.next_chunk().is_some());
    drop(stream);
    eventually("the upstream notices that its caller is gone", || upstream.calls()[1]["outcome"] == "client_gone");
}

#[test]
fn a_sign_in_of_the_rig_is_what_the_real_wallet_client_signs() {
    let file = std::fs::read_to_string(farebox_rig::tests_dir().join("vectors/wallet-client.json")).unwrap();
    let real: Value = serde_json::from_str(&file).unwrap();
    let real = &real["evm"];
    // The key of the vector; signatures follow from key and text.
    let sign_in = SignIn::new(SETTLER, "http://127.0.0.1:8402").set("nonce", "0123456789abcdef");
    let sign_in = sign_in.set("issuedAt", "2026-01-02T03:04:05.678Z").set("expirationTime", "2026-01-02T03:09:05.678Z");
    assert_eq!(sign_in.text(), real["message"].as_str().unwrap());
    assert_eq!(sign_in.signed(), real["signature"].as_str().unwrap());
    let bare = sign_in.clone().set("statement", Value::Null).set("expirationTime", Value::Null);
    assert_eq!(bare.text(), real["messageWithoutStatementOrExpiry"].as_str().unwrap());
    assert_eq!(bare.signed(), real["signatureWithoutStatementOrExpiry"].as_str().unwrap());
    for other in [Signature::HighS, Signature::Zero, Signature::Of(BUYER)] {
        assert_ne!(sign_in.clone().signature(other).signed(), sign_in.signed());
    }
    assert_ne!(SignIn::new(BUYER, "http://x").nonce(), SignIn::new(BUYER, "http://x").nonce());
}
