//! Responses with a key, through the unmodified OpenAI SDKs: whole, streamed, with tools, and charged to the micro.

use farebox_rig::http::Request;
use farebox_rig::sdk::Sdk;
use farebox_rig::server::UPSTREAM_MODEL;
use serde_json::{Value, json};

use crate::shop::{ANSWER, CANARY, CHARGE, Shop, USAGE, asked, asked_with, step, values};

#[test]
fn the_typescript_sdk_buys_responses_with_a_key() {
    buys_responses(Sdk::OpenAiNode);
}

#[test]
fn the_python_sdk_buys_responses_with_a_key() {
    buys_responses(Sdk::OpenAiPython);
}

const CITY: &str = r#"{"city":"Llanfairpwllgwyngyll"}"#;
const PATCH: &str = "*** Begin Patch";
/// 200 tokens in, of which 100 were read from the cache and 50 written to it.
const CACHED: &str = "<<fake in=200 out=7 cached=100 cw=50 text=hello+wallet>>";
/// 50 x 3 + 100 x 0.3 + 50 x 3.75 + 7 x 15, rounded up once.
const CACHED_CHARGE: i64 = 473;

/// The tools that Codex sends: its own, and one that runs at the upstream.
fn tools() -> Value {
    let schema = json!({
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"], "additionalProperties": false,
    });
    let weather = json!({ "type": "function", "name": "weather", "strict": true, "parameters": schema });
    json!([weather, { "type": "custom", "name": "patch", "description": "edits" }, { "type": "web_search" }])
}

fn with_tools(call: &str, fields: Value) -> Value {
    let mut params = asked_with(&format!("<<fake in=20 out=7>> CALL:{call}"), fields);
    params["tools"] = tools();
    params
}

/// The second turn: the tool has answered.
fn tool_answered() -> Value {
    let mut params = with_tools(&format!("weather {CITY}"), json!({}));
    let said = params["input"].take();
    params["input"] = json!([
        { "role": "user", "content": [{ "type": "input_text", "text": said }] },
        { "type": "function_call", "call_id": "call_1", "name": "weather", "arguments": CITY },
        { "type": "function_call_output", "call_id": "call_1", "output": "rain" },
    ]);
    params
}

fn buys_responses(sdk: Sdk) {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let stream = json!({ "stream": true });
    let weather = format!("weather {CITY}");
    let steps = [
        step("respond", asked(USAGE)),
        step("respond", asked_with(USAGE, stream.clone())),
        step("respond_helper", asked(USAGE)),
        step("respond", with_tools(&weather, json!({}))),
        step("respond_helper", with_tools(&weather, json!({}))),
        step("respond", with_tools(&format!("patch {PATCH}"), stream.clone())),
        step("respond", tool_answered()),
        step("respond", asked(CACHED)),
        step("respond", asked_with("<<fake in=20 out=7 think=1 finish=length text=hello+wallet>>", stream.clone())),
    ];
    let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
    let values = values(&bought);
    assert_answers(&values);
    assert_passed_on(&shop);
    let answered = shop.logged();
    assert_eq!(answered.iter().filter(|charge| **charge == CACHED_CHARGE).count(), 1, "{answered:?}");
    assert_eq!(answered.iter().filter(|charge| **charge == CHARGE).count(), 8, "{answered:?}");
    shop.close(&[]);
}

fn assert_answers(values: &[&Value]) {
    for whole in [values[0], values[2]] {
        assert_eq!((&whole["text"], &whole["status"]), (&ANSWER.into(), &"completed".into()), "{whole}");
        assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&20.into(), &7.into()), "{whole}");
    }
    assert!(values[0]["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{}", values[0]);
    assert!(values[0]["balance_remaining"].as_str().is_some_and(|left| left.starts_with("4.9")), "{}", values[0]);
    let streamed = values[1];
    assert_eq!((&streamed["heard"], &streamed["last"]), (&ANSWER.into(), &"response.completed".into()), "{streamed}");
    assert_eq!(streamed["usage"]["output_tokens"], 7, "{streamed}");
    for call in &values[3..5] {
        assert_eq!(call["calls"], json!([["weather", CITY]]), "{call}");
    }
    assert_eq!(values[5]["calls"][0][0], "patch", "{}", values[5]);
    assert_eq!(values[6]["text"], "TOOLRESULT:rain", "{}", values[6]);
    assert_eq!(values[7]["usage"]["input_tokens_details"]["cached_tokens"], 100, "{}", values[7]);
    let cut = values[8];
    assert_eq!((&cut["status"], &cut["reason"]), (&"incomplete".into(), &"max_output_tokens".into()), "{cut}");
    assert_eq!(cut["reasons"], json!(["thinking about it"]), "{cut}");
}

/// The upstream was asked what the SDK was asked, not by whom, to keep nothing, and for no tool that costs extra.
fn assert_passed_on(shop: &Shop) {
    let calls = shop.upstream.calls();
    assert_eq!(calls.len(), 9, "one call for each step");
    for call in &calls {
        let body = &call["body"];
        assert_eq!((&call["path"], &body["model"]), (&"/v1/responses".into(), &UPSTREAM_MODEL.into()), "the alias is ours alone");
        assert!(body.to_string().contains(CANARY), "{call}");
        assert_eq!((&body["store"], &body["max_output_tokens"]), (&json!(false), &json!(256)), "{body}");
        assert!(!body.to_string().contains("web_search"), "{body}");
        let headers = call["headers"].to_string().to_lowercase();
        assert!(!headers.contains("sk-x402-"), "the buyer's key stays here: {headers}");
    }
    let offered: Vec<_> = calls[3]["body"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(offered, ["weather", "patch"]);
    assert_eq!(calls[6]["body"]["input"].as_array().unwrap().len(), 3);
}

#[test]
fn under_the_prefix_of_wallet_clients_responses_are_sold_and_refused_as_everywhere_there() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let request = |body: Value| Request::post("/api/v1/responses", body.to_string()).header("x-api-key", &key.text);
    let answer = shop.server.send(&request(asked(USAGE)));
    assert_eq!((answer.status, &answer.json()["output"][0]["content"][0]["text"]), (200, &json!(ANSWER)), "{}", answer.text());
    let refused = shop.server.send(&request(json!({ "model": "test-model" })));
    assert_eq!((refused.status, refused.code().as_str()), (400, "INVALID_REQUEST"), "{}", refused.text());
    assert!(refused.json()["error"].as_str().unwrap().contains("input is required"), "{}", refused.text());
    assert_eq!(shop.upstream.calls().len(), 1);
    shop.close(&[]);
}
