//! The unmodified OpenAI SDKs with a key: whole, streamed, with tools, and what was cached at its own price.

use farebox_rig::sdk::Sdk;
use farebox_rig::server::{MODEL, UPSTREAM_MODEL};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CANARY, CHARGE, Shop, USAGE, params, params_with, step, values};

#[test]
fn the_typescript_sdk_buys_with_a_key() {
    buys_everything(Sdk::OpenAiNode);
}

#[test]
fn the_python_sdk_buys_with_a_key() {
    buys_everything(Sdk::OpenAiPython);
}

pub const CITY: &str = r#"{"city":"Llanfairpwllgwyngyll"}"#;
/// 200 tokens in, of which 100 were read from the cache and 50 written to it.
const CACHED: &str = "<<fake in=200 out=7 cached=100 cw=50 text=hello+wallet>>";
/// 50 x 3 + 100 x 0.3 + 50 x 3.75 + 7 x 15, rounded up once.
const CACHED_CHARGE: i64 = 473;

fn tool() -> Value {
    let schema = json!({
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"], "additionalProperties": false,
    });
    json!([{ "type": "function", "function": { "name": "weather", "strict": true, "parameters": schema } }])
}

pub fn with_tool(fields: Value) -> Value {
    let mut params = params_with(&format!("<<fake in=20 out=7>> CALL:weather {CITY}"), fields);
    params["tools"] = tool();
    params
}

/// The second turn: the tool has answered.
pub fn tool_answered() -> Value {
    let mut params = with_tool(json!({}));
    let call = json!({ "id": "call_1", "type": "function", "function": { "name": "weather", "arguments": CITY } });
    let turns = params["messages"].as_array_mut().unwrap();
    turns.push(json!({ "role": "assistant", "content": null, "tool_calls": [call] }));
    turns.push(json!({ "role": "tool", "tool_call_id": "call_1", "content": "rain" }));
    params
}

fn buys_everything(sdk: Sdk) {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let stream = json!({ "stream": true });
    let asking = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let steps = [
        json!({ "do": "models" }),
        step("create", params(USAGE)),
        step("create", params_with(USAGE, stream.clone())),
        step("create", params_with(USAGE, asking)),
        step("create", with_tool(json!({}))),
        step("create", with_tool(stream)),
        step("helper", with_tool(json!({}))),
        step("create", tool_answered()),
        step("create", params(CACHED)),
    ];
    let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
    let values = values(&bought);
    assert_eq!(values[0], &json!([MODEL]));
    assert_texts(&values);
    assert_tools(&values);
    assert_eq!(values[8]["usage"]["prompt_tokens_details"]["cached_tokens"], 100, "{}", values[8]);
    assert_passed_on(&shop);
    let answered = shop.logged();
    assert_eq!(answered.iter().filter(|charge| **charge == CACHED_CHARGE).count(), 1, "{answered:?}");
    assert_eq!(answered.iter().filter(|charge| **charge == CHARGE).count(), 7, "{answered:?}");
    shop.close(&[]);
}

#[test]
fn under_the_prefix_of_wallet_clients_both_sdks_buy_and_hand_on_its_flat_refusals() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let streamed = params_with(USAGE, json!({ "stream": true }));
    let unknown = json!({ "do": "create", "key": format!("sk-x402-{}", "A".repeat(43)), "params": params(USAGE) });
    let steps = [step("create", params(USAGE)), step("create", streamed), unknown];
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython] {
        let base = shop.server.url() + "/api";
        let outcomes = sdk.perform(&[("BASE_URL", &base), ("API_KEY", &key.text)], &steps);
        for text in values(&outcomes[..2]) {
            assert_eq!(text["text"], ANSWER, "{sdk:?}: {text}");
        }
        let error = &outcomes[2]["error"];
        assert_eq!((&error["class"], &error["status"]), (&"AuthenticationError".into(), &401.into()), "{sdk:?}: {error}");
        // The one for Python keeps an error that is plain text out of its message.
        let told = &error[if sdk == Sdk::OpenAiPython { "body" } else { "message" }];
        assert!(told.as_str().is_some_and(|told| told.contains("key is not known")), "{sdk:?}: {error}");
    }
    assert_eq!(shop.logged(), [CHARGE; 4]);
    shop.close(&[]);
}

/// Whole, streamed, and streamed with usage.
pub fn assert_texts(values: &[&Value]) {
    for text in &values[1..4] {
        assert_eq!((&text["text"], &text["finish"]), (&ANSWER.into(), &"stop".into()), "{text}");
        assert!(text["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{text}");
        assert!(text["balance_remaining"].as_str().is_some_and(|left| left.starts_with("4.9")), "{text}");
    }
    let (unasked, asked) = (values[2], values[3]);
    assert_eq!((&unasked["without_choice"], &unasked["usage"]), (&0.into(), &Value::Null), "who did not ask for usage gets none");
    assert_eq!(asked["without_choice"], 1, "{asked}");
    for usage in [&values[1]["usage"], &asked["usage"]] {
        assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&20.into(), &7.into()), "{usage}");
    }
}

/// A call of a tool whole, streamed, and put together by the SDK; then the answer to its result.
pub fn assert_tools(values: &[&Value]) {
    for call in &values[4..7] {
        assert_eq!((&call["calls"], &call["finish"]), (&json!([["weather", CITY]]), &"tool_calls".into()), "{call}");
    }
    assert_eq!(values[7]["text"], "TOOLRESULT:rain", "{}", values[7]);
}

/// The upstream was asked what the SDK was asked, and not by whom.
fn assert_passed_on(shop: &Shop) {
    let calls = shop.upstream.calls();
    assert_eq!(calls.len(), 8, "one call for each step that buys");
    for call in &calls {
        assert_eq!(call["body"]["model"], UPSTREAM_MODEL, "the alias is ours alone");
        assert!(call["body"].to_string().contains(CANARY), "{call}");
        let headers = call["headers"].to_string().to_lowercase();
        assert!(!headers.contains("sk-x402-"), "the buyer's key stays here: {headers}");
    }
    assert_eq!(calls[3]["body"]["tools"], tool());
    assert_eq!(calls[6]["body"]["messages"].as_array().unwrap().len(), 3);
}
