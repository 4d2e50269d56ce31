//! Callers of chat completions, served by an upstream of messages.

use super::*;

fn sent(extra: Value) -> Value {
    translated(Dialect::Chat, Dialect::Messages, &chat(extra))
}

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn said(messages: Value) -> Value {
    sent(json!({"messages": messages}))["messages"].clone()
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

#[test]
fn instructions_are_taken_out_of_the_conversation_and_joined() {
    let sent = sent(json!({"messages": [
        {"role": "system", "content": "one"},
        {"role": "user", "content": "hi"},
        {"role": "developer", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": ""}]},
        {"role": "user", "content": "there"},
        {"role": "assistant", "content": "yes"},
        {"role": "system", "content": "three"},
        {"role": "user", "content": "go on"},
    ]}));
    assert_eq!(sent["system"], json!([text("one\n\ntwo\n\nthree")]));
    assert_eq!(
        sent["messages"],
        json!([
            {"role": "user", "content": [text("hi"), text("there")]},
            {"role": "assistant", "content": [text("yes")]},
            {"role": "user", "content": [text("go on")]},
        ])
    );
}

#[test]
fn a_conversation_begins_with_the_user() {
    assert_eq!(
        said(json!([{"role": "assistant", "content": "hello"}, {"role": "user", "content": "hi"}])),
        json!([
            {"role": "user", "content": [text(".")]},
            {"role": "assistant", "content": [text("hello")]},
            {"role": "user", "content": [text("hi")]},
        ])
    );
    let only = sent(json!({"messages": [{"role": "system", "content": "Say hi."}]}));
    assert_eq!((&only["messages"], only.get("system")), (&json!([{"role": "user", "content": [text("Say hi.")]}]), None));
}

#[test]
fn empty_texts_are_dropped_and_a_prefill_does_not_end_in_white_space() {
    assert_eq!(
        said(json!([
            {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": " x "}]},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "\n"},
            {"role": "assistant", "content": "The answer is \n"},
        ])),
        json!([{"role": "user", "content": [text(" x ")]}, {"role": "assistant", "content": [text("The answer is")]}])
    );
    refused_for(
        Dialect::Chat,
        Dialect::Messages,
        vec![(chat(json!({"messages": [{"role": "user", "content": " "}]})), "messages", "says nothing")],
    );
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn tool(id: &str, content: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": content})
}

#[test]
fn results_of_tools_stand_first_in_one_message_in_the_order_of_the_calls() {
    let calls = json!([call("a", "f", r#"{"x": 1.50}"#), call("b", "g", "")]);
    assert_eq!(
        said(json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "user", "content": "wait"},
            tool("b", "two"),
            tool("a", ""),
            {"role": "user", "content": "and?"},
        ])),
        json!([
            {"role": "user", "content": [text("hi")]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1.50}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a"},
                {"type": "tool_result", "tool_use_id": "b", "content": [text("two")]},
                text("wait"), text("and?"),
            ]},
        ])
    );
}

#[test]
fn arguments_keep_their_digits_and_what_is_no_object_stays_readable() {
    let input = |arguments: &str| {
        let body = chat(json!({"messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "ok", "tool_calls": [call("a", "f", arguments)]},
            tool("a", "x"),
        ]}));
        let sent = request(Dialect::Chat, Dialect::Messages, body.to_string().as_bytes(), &terms(false)).unwrap();
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        sent.split_once("\"input\":").unwrap().1.split_once("}]}").unwrap().0.to_owned()
    };
    assert_eq!(input(r#"{"n":123456789012345678901234567890.10}"#), r#"{"n":123456789012345678901234567890.10}"#);
    assert_eq!(input("  "), "{}");
    assert_eq!(input("{\"a\":"), r#"{"_raw":"{\"a\":"}"#);
    assert_eq!(input("[1]"), r#"{"_raw":"[1]"}"#);
    assert_eq!(input(r#"{"a":"\ud800"}"#), r#"{"_raw":"{\"a\":\"\\ud800\"}"}"#);
    let deep = format!("{}1{}", "{\"a\":".repeat(120), "}".repeat(120));
    assert!(input(&deep).starts_with(r#"{"_raw":"#), "nested deeper than a body may be");
}

#[test]
fn ids_are_spelt_as_the_upstream_wants_them_and_stay_unique() {
    let ids = ["functions.read:0", "", "same", &"x".repeat(200)];
    let calls: Vec<_> = ids.iter().map(|id| call(id, "f", "{}")).collect();
    let mut messages = vec![json!({"role": "user", "content": "hi"}), json!({"role": "assistant", "tool_calls": calls})];
    messages.extend(ids.iter().map(|id| tool(id, &format!("result of {id}"))));
    messages.push(json!({"role": "assistant", "tool_calls": [call("same", "f", "{}"), call("call_0", "f", "{}")]}));
    messages.extend([tool("call_0", "last"), tool("same", "again")]);
    let sent = said(json!(messages));
    let made: Vec<&str> =
        [1, 3].iter().flat_map(|n| sent[*n]["content"].as_array().unwrap()).map(|c| c["id"].as_str().unwrap()).collect();
    let unique: std::collections::HashSet<_> = made.iter().collect();
    assert_eq!((unique.len(), made[2]), (6, "same"));
    assert!(
        made.iter().all(|id| (1..=40).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)))
    );
    let results: Vec<_> = [2, 4].iter().flat_map(|n| sent[*n]["content"].as_array().unwrap()).collect();
    assert!(results.iter().zip(&made).all(|(result, id)| result["tool_use_id"] == *id), "{results:?}");
    let says: Vec<_> = results.iter().map(|result| result["content"][0]["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(says, ids.iter().map(|id| format!("result of {id}")).chain(["again".into(), "last".into()]).collect::<Vec<_>>());
}

/// As some local models do it.
#[test]
fn calls_without_an_id_get_their_results_in_order() {
    let sent = said(json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call("", "f", "{}"), call("", "g", "{}")]},
        tool("", "of f"), tool("", "of g"),
    ]));
    let (calls, results) = (&sent[1]["content"], &sent[2]["content"]);
    for (n, says) in ["of f", "of g"].into_iter().enumerate() {
        assert_eq!(calls[n]["id"], results[n]["tool_use_id"]);
        assert_eq!(results[n]["content"], json!([text(says)]));
    }
    assert_ne!(calls[0]["id"], calls[1]["id"]);
}

#[test]
fn tools_keep_their_schema_which_is_an_object_with_properties() {
    let tools = json!([
        {"type": "function", "function": {"name": "f", "description": "does", "strict": true, "parameters":
            {"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"]}}, "cache_control": {"type": "ephemeral"}},
        {"type": "function", "function": {"name": "g"}},
        {"type": "function", "function": {"name": "h", "parameters": {"properties": null, "$defs": {"x": {}}}}},
        {"name": "cursor", "input_schema": {"type": "object", "properties": {}}},
        {"type": "custom", "custom": {"name": "free", "format":
            {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}}}},
    ]);
    assert_eq!(
        sent(json!({"tools": tools}))["tools"],
        json!([
            {"name": "f", "description": "does", "cache_control": {"type": "ephemeral"},
                "input_schema": {"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"]}},
            {"name": "g", "input_schema": {"type": "object", "properties": {}}},
            {"name": "h", "input_schema": {"type": "object", "properties": {}, "$defs": {"x": {}}}},
            {"name": "cursor", "input_schema": {"type": "object", "properties": {}}},
            {"name": "free", "description": "Its input follows this regex grammar:\na+", "input_schema": {"type": "object",
                "properties": {"input": {"type": "string"}}, "required": ["input"], "additionalProperties": false}},
        ])
    );
}

#[test]
fn a_choice_of_tool_is_said_in_the_upstreams_words() {
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let choice = |choice: Value, parallel: Value| {
        let body = json!({"tools": [function("f"), function("g")], "tool_choice": choice, "parallel_tool_calls": parallel});
        let sent = sent(body);
        (sent["tool_choice"].clone(), sent["tools"].as_array().unwrap().len())
    };
    assert_eq!(choice(json!(null), json!(true)), (json!(null), 2));
    assert_eq!(choice(json!("auto"), json!(null)), (json!({"type": "auto"}), 2));
    assert_eq!(choice(json!("none"), json!(false)), (json!({"type": "none"}), 2));
    assert_eq!(choice(json!("required"), json!(true)), (json!({"type": "any"}), 2));
    assert_eq!(choice(function("g"), json!(null)), (json!({"type": "tool", "name": "g"}), 2));
    assert_eq!(choice(json!(null), json!(false)), (json!({"type": "auto", "disable_parallel_tool_use": true}), 2));
    let one = json!({"type": "tool", "name": "f", "disable_parallel_tool_use": true});
    assert_eq!(choice(function("f"), json!(false)), (one, 2));
    let some = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [function("g")]}});
    assert_eq!(choice(some, json!(null)), (json!({"type": "any"}), 1));
    assert_eq!(sent(json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": false})).get("tool_choice"), None);
}

#[test]
fn pictures_are_urls_or_data_and_marks_for_the_cache_stay() {
    let cache = json!({"type": "ephemeral", "ttl": "1h"});
    let escaped = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image\/png;base64,AA\/A"}}]}]}"#;
    let sent = request(Dialect::Chat, Dialect::Messages, escaped.as_bytes(), &terms(false)).unwrap();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent["messages"][0]["content"][0]["source"], json!({"type": "base64", "media_type": "image/png", "data": "AA/A"}));
    assert_eq!(
        said(json!([
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}, "cache_control": cache},
                {"type": "image_url", "image_url": {"url": "DATA:image/jpg;charset=x;base64,QUJD"}},
                {"type": "text", "text": "see", "cache_control": cache},
            ]},
            {"role": "assistant", "tool_calls": [call("a", "f", "{}")]},
            {"role": "tool", "tool_call_id": "a", "content": "x", "cache_control": cache},
        ])),
        json!([
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}, "cache_control": cache},
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}},
                {"type": "text", "text": "see", "cache_control": cache},
            ]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [text("x")], "cache_control": cache}]},
        ])
    );
    let system = super::translated(
        Dialect::Chat,
        Dialect::Messages,
        &chat(json!({"messages": [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": cache}]},
        {"role": "system", "content": "c"}, {"role": "user", "content": "hi"}]})),
    );
    assert_eq!(system["system"], json!([{"type": "text", "text": "a\n\nb", "cache_control": cache}, text("c")]));
}

#[test]
fn sampling_stops_and_users_fit_the_upstream() {
    let fields = |extra: Value| {
        let mut sent = sent(extra);
        ["model", "messages", "max_tokens"].iter().for_each(|name| drop(sent.as_object_mut().unwrap().remove(*name)));
        sent
    };
    assert_eq!(fields(json!({"temperature": 0.70, "top_p": 0.9, "top_k": 5})), json!({"temperature": 0.70, "top_k": 5}));
    assert_eq!(fields(json!({"temperature": 1.5})), json!({"temperature": 1}));
    assert_eq!(fields(json!({"temperature": -1})), json!({"temperature": 0}));
    assert_eq!(fields(json!({"temperature": null, "top_p": 1e-1})), json!({"top_p": 0.1}));
    assert_eq!(fields(json!({"stop": "x"})), json!({"stop_sequences": ["x"]}));
    assert_eq!(fields(json!({"stop": ["\n", "a\"", ""]})), json!({"stop_sequences": ["a\""]}));
    assert_eq!(fields(json!({"stop": [" "], "n": 1, "seed": 3})), json!({}));
    assert_eq!(fields(json!({"user": "u1"})), json!({"metadata": {"user_id": "u1"}}));
    assert_eq!(fields(json!({"safety_identifier": "s"})), json!({"metadata": {"user_id": "s"}}));
    assert_eq!(fields(json!({"user": "a@b.example"})), json!({}));
}

#[test]
fn a_format_is_said_in_the_upstreams_words() {
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": true}});
    let config = json!({"format": {"type": "json_schema", "schema": schema}});
    assert_eq!(sent(json!({"response_format": format}))["output_config"], config);
    assert_eq!(sent(json!({"response_format": {"type": "text"}})).get("output_config"), None);
    let json = sent(json!({"response_format": {"type": "json_object"}, "messages": [
        {"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}));
    assert_eq!(json["system"], json!([text("s\n\nAnswer with one JSON object, without a code fence.")]));
}

/// What `extra` becomes for a model: its thinking, its output config, its temperature.
fn thinking(model: &str, extra: Value) -> (Value, Value, Value) {
    let terms = Terms { model, output_limit: 8000, ..terms(false) };
    let sent = request(Dialect::Chat, Dialect::Messages, chat(extra).to_string().as_bytes(), &terms).unwrap();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    (sent["thinking"].clone(), sent["output_config"].clone(), sent["temperature"].clone())
}

#[test]
fn an_effort_is_asked_for_as_each_generation_of_models_takes_it() {
    let none = json!(null);
    let adaptive = json!({"type": "adaptive"});
    let later = |extra: Value| thinking("claude-sonnet-4-6", extra);
    let high = json!({"reasoning_effort": "high", "temperature": 0.5});
    assert_eq!(later(high.clone()), (adaptive.clone(), json!({"effort": "high"}), none.clone()));
    assert_eq!(later(json!({"reasoning_effort": "minimal"})), (adaptive.clone(), json!({"effort": "low"}), none.clone()));
    assert_eq!(later(json!({"reasoning_effort": "none", "temperature": 0.5})), (none.clone(), none.clone(), json!(0.5)));
    assert_eq!(later(json!({"reasoning": {"effort": "xhigh"}})), (adaptive, json!({"effort": "xhigh"}), none.clone()));
    assert_eq!(later(json!({"reasoning": {"enabled": false}})), (none.clone(), none.clone(), none.clone()));
    let forced =
        json!({"reasoning_effort": "low", "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"});
    assert_eq!(later(forced.clone()), (none.clone(), json!({"effort": "low"}), none.clone()), "forced to call, it cannot think");
    let budget = json!({"type": "enabled", "budget_tokens": 6000});
    for model in ["claude-haiku-4-5", "another-makers"] {
        assert_eq!(thinking(model, high.clone()), (budget.clone(), none.clone(), none.clone()), "{model}");
        assert_eq!(thinking(model, forced.clone()), (none.clone(), none.clone(), none.clone()), "{model}");
        assert_eq!(thinking(model, json!({"temperature": 0.5})).2, json!(0.5), "{model}");
    }
    assert_eq!(thinking("claude-opus-4-7", json!({"temperature": 0.5})).2, none, "it takes no temperature");
    let own = json!({"type": "enabled", "budget_tokens": 1500});
    assert_eq!(
        later(json!({"thinking": own, "temperature": 0.5, "reasoning_effort": "high"})),
        (own, none.clone(), none.clone())
    );
    let off = json!({"type": "disabled"});
    assert_eq!(later(json!({"thinking": off, "temperature": 0.5})), (off, none, json!(0.5)));
}

#[test]
fn a_model_with_a_budget_does_not_think_where_its_last_thinking_is_gone() {
    let after = |last: Value| {
        let messages = json!([{"role": "user", "content": "hi"},
            {"role": "assistant", "tool_calls": [call("a", "f", "{}")]}, tool("a", "x"), last]);
        thinking("claude-haiku-4-5", json!({"reasoning_effort": "low", "messages": messages})).0
    };
    assert_eq!(after(json!({"role": "user", "content": "go on"})), json!(null));
    assert_eq!(after(json!({"role": "assistant", "content": "done"})), json!({"type": "enabled", "budget_tokens": 2048}));
}

#[test]
fn what_the_upstream_cannot_be_told_is_refused_by_name() {
    let message = |message: Value| chat(json!({"messages": [{"role": "user", "content": "hi"}, message]}));
    let calls = json!({"role": "assistant", "tool_calls": [call("a", "f", "{}")]});
    refused_for(
        Dialect::Chat,
        Dialect::Messages,
        vec![
            (chat(json!({"n": 2})), "n", "must be 1"),
            (chat(json!({"functions": [], "tools": []})), "functions", "tools"),
            (chat(json!({"function_call": {"name": "f"}})), "function_call", "not among functions"),
            (chat(json!({"reasoning_effort": "extreme"})), "reasoning_effort", "extreme"),
            (chat(json!({"response_format": {"type": "grammar"}})), "response_format", "grammar"),
            (
                chat(json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]})),
                "tools",
                "tools[0]",
            ),
            (chat(json!({"tools": [{"name": "f"}, {"name": "f"}]})), "tools", "two tools"),
            (chat(json!({"tools": [{"name": "f"}], "tool_choice": {"type": "mcp"}})), "tool_choice", "mcp"),
            (chat(json!({"thinking": {"type": "enabled", "budget_tokens": 5000}})), "thinking", "500"),
            (
                message(json!({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A"}}]})),
                "messages",
                "messages[1] has content of type \"input_audio\"",
            ),
            (
                message(json!({"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]})),
                "messages",
                "a picture",
            ),
            (
                message(json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]})),
                "messages",
                "base64",
            ),
            (
                message(
                    json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:application/pdf;base64,x"}}]}),
                ),
                "messages",
                "pdf",
            ),
            (message(json!({"role": "assistant", "audio": {"id": "a"}})), "messages", "audio"),
            (message(json!({"role": "function", "name": "f", "content": "x"})), "messages", "function"),
            (message(json!({"role": "tool", "content": "x"})), "messages", "tool_call_id"),
            (message(tool("nobody", "x")), "messages", "nobody"),
            (message(calls.clone()), "messages", "never says what it gave back"),
            (chat(json!({"messages": [calls, tool("a", "x"), tool("a", "y")]})), "messages", "already"),
        ],
    );
}
