//! The unmodified Anthropic SDKs with a key: whole, streamed, with tools, and prompts that are cached.

use farebox_rig::sdk::Sdk;
use farebox_rig::server::{MODEL, UPSTREAM_MODEL};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, Shop, USAGE, owed, params, params_with, step, values};

#[test]
fn the_typescript_sdk_buys_with_a_key() {
    buys_everything(Sdk::AnthropicNode);
}

#[test]
fn the_python_sdk_buys_with_a_key() {
    buys_everything(Sdk::AnthropicPython);
}

#[test]
fn a_prompt_that_the_typescript_sdk_marks_is_cached_and_charged_at_the_prices_of_the_cache() {
    caches(Sdk::AnthropicNode);
}

#[test]
fn a_prompt_that_the_python_sdk_marks_is_cached_and_charged_at_the_prices_of_the_cache() {
    caches(Sdk::AnthropicPython);
}

pub const CITY: &str = r#"{"city":"Llanfairpwllgwyngyll"}"#;

pub fn with_tool(fields: Value) -> Value {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let mut params = params_with(&format!("<<fake in=20 out=7>> CALL:weather {CITY}"), fields);
    params["tools"] = json!([{ "name": "weather", "input_schema": schema }]);
    params
}

/// The second turn: the tool has answered.
pub fn tool_answered() -> Value {
    let mut params = with_tool(json!({}));
    let call = json!({ "type": "tool_use", "id": "toolu_1", "name": "weather", "input": { "city": "Llanfairpwllgwyngyll" } });
    let result = json!({ "type": "tool_result", "tool_use_id": "toolu_1", "content": "rain" });
    let turns = params["messages"].as_array_mut().unwrap();
    turns.push(json!({ "role": "assistant", "content": [call] }));
    turns.push(json!({ "role": "user", "content": [result] }));
    params
}

fn buys_everything(sdk: Sdk) {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let stream = json!({ "stream": true });
    let steps = [
        json!({ "do": "models" }),
        step("create", params(USAGE)),
        step("create", params_with(USAGE, stream.clone())),
        step("helper", params(USAGE)),
        step("create", with_tool(json!({}))),
        step("create", with_tool(stream)),
        step("helper", with_tool(json!({}))),
        step("create", tool_answered()),
    ];
    let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
    let values = values(&bought);
    assert_eq!(values[0], &json!([MODEL]));
    for text in &values[1..4] {
        assert_eq!((&text["text"], &text["finish"]), (&ANSWER.into(), &"end_turn".into()), "{text}");
        assert_eq!((&text["usage"]["input_tokens"], &text["usage"]["output_tokens"]), (&20.into(), &7.into()), "{text}");
    }
    for text in &values[1..3] {
        assert!(text["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{text}");
        assert!(text["balance_remaining"].as_str().is_some_and(|left| left.starts_with("4.9")), "{text}");
    }
    for call in &values[4..7] {
        assert_eq!((&call["calls"], &call["finish"]), (&json!([["weather", CITY]]), &"tool_use".into()), "{call}");
    }
    assert_eq!(values[7]["text"], "TOOLRESULT:rain", "{}", values[7]);
    let calls = shop.upstream.calls();
    assert_eq!(calls.len(), 7, "one call for each step that buys");
    for call in &calls {
        assert_eq!(call["body"]["model"], UPSTREAM_MODEL, "the alias is ours alone");
        let headers = call["headers"].to_string().to_lowercase();
        assert!(!headers.contains("sk-x402-"), "the buyer's key stays here: {headers}");
    }
    assert_eq!(shop.logged().iter().filter(|charge| **charge == CHARGE).count(), 7, "{:?}", shop.logged());
    shop.close(&[]);
}

/// Marks a long system prompt for five minutes, another for an hour; buys twice, whole and streamed.
fn caches(sdk: Sdk) {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let marked = |text: &str, ttl: &str| json!({ "type": "text", "text": text.repeat(300), "cache_control": { "type": "ephemeral", "ttl": ttl } });
    let system = json!([marked("five minutes ", "5m"), marked("an hour ", "1h")]);
    let prompt = "<<fake in=20 out=7 text=hello+wallet>>";
    let steps = [
        step("create", params_with(prompt, json!({ "system": system.clone() }))),
        step("create", params_with(prompt, json!({ "system": system.clone(), "stream": true }))),
    ];
    let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
    let values = values(&bought);
    let calls = shop.upstream.calls();
    for (call, value) in calls.iter().zip(&values) {
        assert_eq!(call["body"]["system"], system, "the marks are passed on as they came");
        let (seen, counted) = (&value["usage"], &call["usage"]);
        assert_eq!((&seen["input_tokens"], &seen["cache_read_input_tokens"]), (&counted["input"], &counted["cached"]), "{value}");
        assert_eq!(seen["cache_creation"]["ephemeral_5m_input_tokens"], counted["cache_write_5m"], "{value}");
        assert_eq!(seen["cache_creation"]["ephemeral_1h_input_tokens"], counted["cache_write_1h"], "{value}");
    }
    let (wrote, read) = (&calls[0]["usage"], &calls[1]["usage"]);
    for lifetime in ["cache_write_5m", "cache_write_1h"] {
        assert!(wrote[lifetime].as_u64() > Some(500) && read[lifetime] == 0, "written once: {wrote} {read}");
    }
    assert!(read["cached"].as_u64() > Some(1000), "then read: {read}");
    assert!(owed(wrote) > 10 * owed(read), "which is what it is good for: {} {}", owed(wrote), owed(read));
    shop.close(&[]);
}
