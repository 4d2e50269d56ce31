//! What the SDKs' users catch when a key may not buy: their own exception class, our words, and nothing moves.

use farebox_rig::account::Key;
use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http::{self, Request};
use farebox_rig::sdk::Sdk;
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHAT, FIVE, Shop, USAGE, params, params_with};

#[test]
fn the_openai_sdk_for_typescript_throws_its_own_exceptions_with_our_words() {
    refuses(Sdk::OpenAiNode, "APIError");
}

#[test]
fn the_openai_sdk_for_python_throws_its_own_exceptions_with_our_words() {
    refuses(Sdk::OpenAiPython, "APIStatusError");
}

#[test]
fn the_anthropic_sdk_for_typescript_throws_its_own_exceptions_with_our_words() {
    refuses(Sdk::AnthropicNode, "PaymentRequiredError");
}

#[test]
fn the_anthropic_sdk_for_python_throws_its_own_exceptions_with_our_words() {
    refuses(Sdk::AnthropicPython, "PaymentRequiredError");
}

/// A key, and what its user is told.
struct Refused {
    key: String,
    class: &'static str,
    status: u16,
    code: &'static str,
    /// Stands in the message, for somebody who has never read about us.
    hint: &'static str,
}

/// `unpaid` is the class with which the SDK answers 402.
fn refuses(sdk: Sdk, unpaid: &'static str) {
    let mut shop = Shop::with(8453, Settings { models: vec!["other-model".into()], ..Settings::default() });
    shop.top_up(BUYER, FIVE);
    let revoked = shop.mint(BUYER, &json!({ "name": "revoked" }));
    shop.account(BUYER).revoke(&revoked);
    let limited = shop.mint(BUYER, &json!({ "name": "limited", "spend_limit_usd": "0.0001" }));
    let narrow = shop.mint(BUYER, &json!({ "name": "narrow", "models": ["other-model"] }));
    let poor = shop.mint_by_hand(OTHER_BUYER);
    let refused = |key: &Key, class, status, code, hint| Refused { key: key.text.clone(), class, status, code, hint };
    let unknown = Key { id: String::new(), text: format!("sk-x402-{}", "A".repeat(43)) };
    let cases = [
        refused(&unknown, "AuthenticationError", 401, "invalid_key", "key"),
        refused(&revoked, "AuthenticationError", 401, "key_revoked", "revoked"),
        refused(&poor, unpaid, 402, "insufficient_balance", "top up"),
        refused(&narrow, "PermissionDeniedError", 403, "model_not_allowed", "other-model"),
        refused(&limited, "PermissionDeniedError", 403, "spend_limit_exceeded", "is left"),
    ];
    let streamed = params_with(USAGE, json!({ "stream": true }));
    for params in [params(USAGE), streamed] {
        let steps: Vec<_> = cases.iter().map(|case| json!({ "do": "create", "key": case.key, "params": params })).collect();
        let outcomes = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", "unused")], &steps);
        for (case, outcome) in cases.iter().zip(&outcomes) {
            assert_refused(case, outcome);
        }
    }
    assert_eq!(shop.upstream.calls().len(), 0, "the upstream was not asked");
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap(), "nothing is held, nothing was charged");
    // A limit that was never used up still buys nothing, and a wallet that pays in is served by the key it had before.
    shop.top_up(OTHER_BUYER, FIVE);
    let step = json!({ "do": "create", "key": poor.text, "params": params(USAGE) });
    let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", "unused")], &[step]);
    assert_eq!(bought[0]["value"]["text"], "hello wallet", "{bought:?}");
    shop.close(&[]);
}

fn assert_refused(case: &Refused, outcome: &Value) {
    let error = &outcome["error"];
    let message = error["message"].as_str().unwrap_or_default();
    assert_eq!((&error["class"], &error["status"]), (&case.class.into(), &case.status.into()), "{}: {outcome}", case.code);
    assert!(error["code"] == case.code || message.contains(case.code), "a program can tell {} apart: {outcome}", case.code);
    assert!(message.contains(case.hint), "{} is explained: {outcome}", case.code);
    assert!(!message.contains("[object Object]") && !message.contains(&case.key), "{outcome}");
    assert!(error["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{outcome}");
}

#[test]
fn one_call_too_many_at_once_is_a_rate_limit_error_and_waits_in_no_queue() {
    let limits =
        ["per_ip_per_second = 100000", "per_ip_burst = 100000", "payments_per_ip_per_minute = 100000", "streams_per_account = 1"];
    let mut shop = Shop::with(8453, Settings { limits: limits.map(str::to_owned).to_vec(), ..Settings::default() });
    let key = shop.buyer_with_key();
    let held = params_with("<<fake words=5 in=20 hang=3 flush=1>>", json!({ "stream": true })).to_string();
    let request = Request::post(CHAT, held).header("authorization", &format!("Bearer {}", key.text));
    let mut first = http::open(shop.server.address(), &request).unwrap();
    assert_eq!(first.status, 200);
    let id = first.header("x-request-id").unwrap().to_owned();
    first.next_chunk().expect("the first call is under way");
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython, Sdk::AnthropicNode, Sdk::AnthropicPython] {
        let step = json!({ "do": "create", "retries": 0, "params": params(USAGE) });
        let outcome = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &[step]).remove(0);
        let error = &outcome["error"];
        assert_eq!((&error["class"], &error["status"]), (&"RateLimitError".into(), &429.into()), "{sdk:?}: {outcome}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("running")), "{sdk:?}: {outcome}");
    }
    assert_eq!(shop.upstream.calls().len(), 1, "only the first call was served");
    drop(first);
    shop.server.has_said("the client left; charged");
    let charge = shop.account(BUYER).statement().charge(&id);
    assert!(charge > 0 && charge < 256 * 15, "what passed is a few words: {charge}");
    // The place is free again.
    let step = json!({ "do": "create", "retries": 0, "params": params(USAGE) });
    let bought = Sdk::OpenAiNode.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &[step]);
    assert_eq!(bought[0]["value"]["text"], "hello wallet", "{bought:?}");
    shop.close(&[charge]);
}
