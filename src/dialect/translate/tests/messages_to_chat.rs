//! Callers of messages, served by an upstream of chat completions.

use super::*;

/// Claude Code defers the tools of its servers where it can search for them; a chat upstream has no such search, and needs none.
#[test]
fn deferred_tools_are_offered_at_once_and_a_search_for_them_is_refused_by_name() {
    let tool = json!({ "name": "read", "input_schema": { "type": "object" }, "defer_loading": true });
    let body = |tools: Value, content: Value| json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": content }], "tools": tools });
    let told = translated(Dialect::Messages, Dialect::Chat, &body(json!([tool]), json!("hi")));
    assert_eq!(told["tools"][0]["function"]["name"], "read");
    assert!(!told.to_string().contains("defer_loading"), "{told}");
    for search in ["tool_search_tool_regex_20251119", "tool_search_tool_bm25_20251119"] {
        let searching = body(json!([tool, { "type": search, "name": "search" }]), json!("hi")).to_string();
        let error = Request::read(Dialect::Messages, searching.as_bytes()).err().expect("it runs at the upstream");
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some("tools")));
        assert!(error.message.contains(search) && error.message.contains("send only tools that you run yourself"), "{error}");
    }
    let found = json!([{ "type": "tool_reference", "tool_name": "read" }]);
    for part in [
        json!({ "type": "tool_result", "tool_use_id": "a", "content": found }),
        json!({ "type": "tool_search_tool_result", "tool_use_id": "a", "content": found }),
        json!({ "type": "server_tool_use", "id": "a", "name": "search", "input": {} }),
    ] {
        let body = body(json!([tool]), json!([part])).to_string();
        let error = Request::read(Dialect::Messages, body.as_bytes()).err().expect("its size is not in it");
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some("messages")), "{part}");
        assert!(error.message.contains("which is not sold here; send text or pictures"), "{error}");
    }
}

fn messages(extra: Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn sent(extra: Value) -> Value {
    translated(Dialect::Messages, Dialect::Chat, &messages(extra))
}

fn said(turns: Value) -> Value {
    sent(json!({"messages": turns}))["messages"].clone()
}

fn call(id: &str, name: &str, input: Value) -> Value {
    json!({"type": "tool_use", "id": id, "name": name, "input": input})
}

fn result(id: &str, content: Value) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": content})
}

/// The shape of the first call of Claude Code.
#[test]
fn what_only_anthropics_models_know_is_left_behind() {
    let cache = json!({"type": "ephemeral"});
    let sent = sent(json!({
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=1f3;"},
            {"type": "text", "text": "You are a tool.", "cache_control": cache},
            {"type": "text", "text": "Be brief."},
        ],
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "reminder"}, {"type": "text", "text": "hi", "cache_control": cache}]}],
        "tools": [{"name": "Read", "description": "reads", "input_schema": {"$schema": "x", "type": "object", "properties": {}},
            "cache_control": cache, "eager_input_streaming": true}],
        "thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "medium"}, "stream": true,
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": "{\"device_id\":\"0123456789012345678901234567890123456789\",\"session_id\":\"0123456789\"}"},
    }));
    assert_eq!(
        sent,
        json!({"model": "up/m", "max_completion_tokens": 500,
            "messages": [
                {"role": "system", "content": "You are a tool.\n\nBe brief."},
                {"role": "user", "content": [{"type": "text", "text": "reminder"}, {"type": "text", "text": "hi"}]},
            ],
            "tools": [{"type": "function", "function": {"name": "Read", "description": "reads",
                "parameters": {"$schema": "x", "type": "object", "properties": {}}}}],
        })
    );
}

#[test]
fn results_split_over_several_messages_and_out_of_order_come_right_after_their_calls() {
    assert_eq!(
        said(json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "I look."}, call("a", "f", json!({"x": 1})), call("b", "g", json!({})), call("c", "h", json!({}))]},
            {"role": "user", "content": [result("c", json!("three"))]},
            {"role": "user", "content": [{"type": "text", "text": "note"}, result("a", json!([{"type": "text", "text": "one"}]))]},
            {"role": "user", "content": [result("b", json!(null))]},
            {"role": "assistant", "content": "Done."},
        ])),
        json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                {"id": "c", "type": "function", "function": {"name": "h", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "one"},
            {"role": "tool", "tool_call_id": "b", "content": ""},
            {"role": "tool", "tool_call_id": "c", "content": "three"},
            {"role": "user", "content": "note"},
            {"role": "assistant", "content": "Done."},
        ])
    );
}

#[test]
fn a_late_result_is_brought_back_to_its_call() {
    assert_eq!(
        said(json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [call("a", "f", json!({})), call("b", "g", json!({}))]},
            {"role": "user", "content": [result("a", json!("one"))]},
            {"role": "assistant", "content": "Still waiting."},
            {"role": "user", "content": [result("b", json!("two"))]},
        ]))
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].clone())
        .collect::<Vec<_>>(),
        [json!("hi"), json!(null), json!("one"), json!("two"), json!("Still waiting.")]
    );
}

#[test]
fn a_call_without_words_has_null_content_and_thinking_alone_is_no_turn() {
    assert_eq!(
        said(json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
            {"role": "user", "content": "well?"},
        ])),
        json!([{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "well?"}]}])
    );
    let calls = said(
        json!([{"role": "assistant", "content": [call("a", "f", json!({}))]}, {"role": "user", "content": [result("a", json!("x"))]}]),
    );
    assert_eq!(calls[0]["content"], json!(null));
}

#[test]
fn pictures_documents_and_failures_of_tools_are_not_lost() {
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    let failed = json!({"type": "tool_result", "tool_use_id": "b", "is_error": true, "content": "no such file"});
    let calls = ["a", "b", "c"].map(|id| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}));
    let errors = json!({"type": "tool_result", "tool_use_id": "c", "is_error": true, "content": "<error>: gone"});
    assert_eq!(
        said(json!([
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
                {"type": "document", "title": "Plan", "source": {"type": "text", "media_type": "text/plain", "data": "step one"}},
                {"type": "search_result", "title": "T", "source": "https://s", "content": [{"type": "text", "text": "found"}]}]},
            {"role": "assistant", "content": [call("a", "f", json!({})), call("b", "f", json!({})), call("c", "f", json!({}))]},
            {"role": "user", "content": [
                result("a", json!([{"type": "text", "text": "shot"}, {"type": "image", "source": source}])), failed, errors,
                {"type": "text", "text": "look"}]},
        ])),
        json!([
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "https://x/y"}},
                {"type": "text", "text": "Plan\nstep one"}, {"type": "text", "text": "T\nhttps://s\nfound"}]},
            {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "shot"},
            {"role": "tool", "tool_call_id": "b", "content": "Error:\n\nno such file"},
            {"role": "tool", "tool_call_id": "c", "content": "<error>: gone"},
            {"role": "user", "content": [
                {"type": "text", "text": "Picture from the tool result of a:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "text", "text": "look"}]},
        ])
    );
}

#[test]
fn choices_stops_formats_and_users_are_said_in_the_upstreams_words() {
    let choice = |choice: Value| {
        let sent = sent(json!({"tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": choice}));
        (sent["tool_choice"].clone(), sent["parallel_tool_calls"].clone())
    };
    assert_eq!(choice(json!({"type": "any", "disable_parallel_tool_use": true})), (json!("required"), json!(false)));
    assert_eq!(choice(json!({"type": "auto"})), (json!("auto"), json!(null)));
    assert_eq!(choice(json!({"type": "none"})), (json!("none"), json!(null)));
    let named = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(choice(json!({"type": "tool", "name": "f", "disable_parallel_tool_use": false})), (named, json!(null)));
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "schema": schema});
    let said = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
    for extra in [json!({"output_config": {"format": format}}), json!({"output_format": format})] {
        assert_eq!(sent(extra)["response_format"], said);
    }
    let sent = sent(json!({"stop_sequences": ["a", "b"], "temperature": 0.30, "top_p": 0.9, "metadata": {"user_id": "u"}}));
    assert_eq!((&sent["stop"], &sent["temperature"], &sent["top_p"]), (&json!(["a", "b"]), &json!(0.30), &json!(0.9)));
    assert_eq!(sent["user"], "u");
}

#[test]
fn instructions_in_mid_conversation_stay_where_they_are() {
    let roles = |turns| {
        let said = said(turns);
        said.as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let turns = json!([{"role": "user", "content": "hi"}, {"role": "system", "content": "now be brief"}, {"role": "user", "content": "ok"}]);
    assert_eq!(roles(turns), ["user", "system", "user"]);
}

#[test]
fn what_the_upstream_cannot_be_told_is_refused_by_name() {
    let message = |message: Value| messages(json!({"messages": [message]}));
    let mixed = json!({"role": "user", "content": [call("a", "f", json!({}))]});
    refused_for(
        Dialect::Messages,
        Dialect::Chat,
        vec![
            (messages(json!({"tools": [{"type": "bash_20250124", "name": "bash"}]})), "tools", "bash_20250124"),
            (messages(json!({"tools": [{"name": "f", "input_schema": []}]})), "tools", "tools[0].input_schema"),
            (messages(json!({"tool_choice": "auto", "stop_sequences": "x"})), "stop_sequences", "array"),
            (messages(json!({"output_config": {"format": {"type": "json_schema"}}})), "output_config", "schema"),
            (message(json!({"role": "tool", "content": "x"})), "messages", "messages[0].role"),
            (message(mixed), "messages", "a call of a tool"),
            (message(json!({"role": "assistant", "content": [call("a", "f", json!([]))]})), "messages", "not an object"),
            (message(json!({"role": "assistant", "content": [call("a", "f", json!({}))]})), "messages", "never says"),
            (message(json!({"role": "user", "content": [result("a", json!("x"))]})), "messages", "nothing before it made"),
            (
                message(json!({"role": "user", "content": [result("a", json!([result("b", json!("x"))]))]})),
                "messages",
                "inside a result",
            ),
            (
                message(json!({"role": "user", "content": [{"type": "search_result", "content": [{"type": "search_result"}]}]})),
                "messages",
                "inside a result",
            ),
            (
                message(
                    json!({"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://x"}}]}),
                ),
                "messages",
                "plain text",
            ),
        ],
    );
}
