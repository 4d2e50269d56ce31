//! Callers who offer functions, as was done before there were tools: an upstream of messages knows them as tools, and its calls
//! come back as calls of functions.

use super::super::{Answer, Asked, Wishes};
use super::*;
use crate::clock::Timestamp;
use crate::dialect::Splitter;
use crate::ids::RequestId;

fn chat(extra: Value) -> Value {
    let function = json!({ "name": "weather", "description": "d", "parameters": { "type": "object", "properties": {} } });
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "functions": [function] });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn sent(body: &Value) -> Value {
    translated(Dialect::Chat, Dialect::Messages, body)
}

#[test]
fn functions_are_tools_of_which_one_is_called_at_a_time() {
    let told = sent(&chat(json!({})));
    let schema = json!({ "type": "object", "properties": {} });
    assert_eq!(told["tools"], json!([{ "name": "weather", "description": "d", "input_schema": schema }]));
    for (said, kind, name) in [
        (Value::Null, "auto", Value::Null),
        (json!("auto"), "auto", Value::Null),
        (json!({ "name": "weather" }), "tool", json!("weather")),
    ] {
        let choice = &sent(&chat(json!({ "function_call": said })))["tool_choice"];
        assert_eq!((&choice["type"], &choice["name"], &choice["disable_parallel_tool_use"]), (&json!(kind), &name, &json!(true)));
    }
    assert_eq!(sent(&chat(json!({ "function_call": "none" })))["tool_choice"], json!({ "type": "none" }));
    assert_eq!(sent(&chat(json!({ "functions": [] })))["tools"], Value::Null);
}

#[test]
fn calls_of_functions_find_their_results_by_name() {
    let call = |name: &str, arguments: &str| json!({ "role": "assistant", "content": null, "function_call": { "name": name, "arguments": arguments } });
    let result = |name: &str, content: &str| json!({ "role": "function", "name": name, "content": content });
    let told = sent(&chat(json!({ "messages": [
        { "role": "user", "content": "hi" },
        call("weather", "{\"city\":\"Rome\"}"), result("weather", "sun"),
        call("weather", "{\"city\":\"Oslo\"}"), result("weather", "snow"),
        call("other", ""), result("other", "x"),
        { "role": "user", "content": "thanks" },
    ] })));
    let said = told["messages"].as_array().unwrap();
    let pairs = [("Rome", "sun"), ("Oslo", "snow")].into_iter().zip(said[1..].chunks(2));
    for ((city, weather), pair) in pairs {
        let (call, result) = (&pair[0]["content"][0], &pair[1]["content"][0]);
        assert_eq!((&call["type"], &call["input"]["city"]), (&json!("tool_use"), &json!(city)));
        assert_eq!((&result["type"], &result["tool_use_id"]), (&json!("tool_result"), &call["id"]));
        assert_eq!(result["content"][0]["text"], weather);
    }
    assert_eq!(said[5]["content"][0]["input"], json!({}));
    assert_eq!(said.len(), 7, "{said:?}");
    assert_eq!(said[6]["content"][1]["text"], "thanks");
}

#[test]
fn what_could_be_meant_in_two_ways_is_refused_by_name() {
    let after = |message: Value| chat(json!({ "messages": [{ "role": "user", "content": "hi" }, message] }));
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    let call = json!({ "name": "weather", "arguments": "{}" });
    let both = json!({ "role": "assistant", "function_call": call, "tool_calls": [{ "id": "a", "function": { "name": "f" } }] });
    refused_for(
        Dialect::Chat,
        Dialect::Messages,
        vec![
            (chat(json!({ "tools": tools })), "functions", "send tools"),
            (chat(json!({ "tool_choice": "auto" })), "functions", "tool_choice"),
            (chat(json!({ "function_call": { "name": "no" } })), "function_call", "not among functions"),
            (chat(json!({ "function_call": {} })), "function_call", "name"),
            (chat(json!({ "function_call": "required" })), "function_call", "auto, none"),
            (chat(json!({ "functions": [{ "description": "nameless" }] })), "functions", "functions[0]"),
            (after(json!({ "role": "function", "name": "weather", "content": "x" })), "messages", "nothing before it called"),
            (after(json!({ "role": "function", "content": "x" })), "messages", "no name"),
            (after(both), "messages", "beside tool_calls"),
            (after(json!({ "role": "assistant", "function_call": call })), "messages", "never says what it gave back"),
        ],
    );
}

fn asked() -> Asked {
    let (created, id) = (Timestamp::from_secs(1_790_000_000), RequestId(7));
    let wishes = Wishes::read(Dialect::Chat, chat(json!({})).to_string().as_bytes());
    assert!(wishes.functions && !Wishes::read(Dialect::Chat, br#"{"functions":null,"tools":[]}"#).functions);
    Asked { model: "m".into(), wants_usage: false, input_estimate: 1, created, id, wishes }
}

#[test]
fn a_call_comes_back_as_a_call_of_a_function_and_there_is_place_for_one() {
    let tool = |id: &str, city: &str| json!({ "type": "tool_use", "id": id, "name": "weather", "input": { "city": city } });
    let body =
        json!({ "content": [{ "type": "text", "text": "so" }, tool("a", "Rome"), tool("b", "Oslo")], "stop_reason": "tool_use" });
    let whole = Answer::plain(Dialect::Messages, Dialect::Chat, body.to_string().as_bytes(), &asked()).unwrap();
    let choice = serde_json::from_slice::<Value>(&whole).unwrap()["choices"][0].clone();
    assert_eq!(choice["message"]["function_call"], json!({ "name": "weather", "arguments": "{\"city\":\"Rome\"}" }));
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("function_call"), &json!("so")));
    assert_eq!(choice["message"].get("tool_calls"), None);

    let block = |index: usize, block: &Value| {
        let events = [
            json!({ "type": "content_block_start", "index": index, "content_block": block }),
            json!({ "type": "content_block_stop", "index": index }),
        ];
        events.map(|event| format!("data: {event}\n\n")).concat()
    };
    let end = "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"}}\n\n";
    let stream = block(0, &tool("a", "Rome")) + &block(1, &tool("b", "Oslo")) + end;
    let mut answer = Answer::new(Dialect::Messages, Dialect::Chat, asked()).unwrap();
    let mut out = String::new();
    for event in Splitter::new().push(stream.into()).map(Result::unwrap) {
        out.push_str(std::str::from_utf8(&answer.event(&event)).unwrap());
    }
    out.push_str(std::str::from_utf8(&answer.end().unwrap()).unwrap());
    let chunks: Vec<Value> = out.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let said =
        |name: &str| chunks.iter().filter_map(|it| it["choices"][0]["delta"]["function_call"][name].as_str()).collect::<String>();
    assert_eq!((said("name").as_str(), said("arguments").as_str()), ("weather", "{\"city\":\"Rome\"}"));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "function_call");
    assert!(!out.contains("tool_calls"), "{out}");
}
