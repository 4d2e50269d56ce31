//! Callers of responses, served by upstreams of chat completions and of messages.

use super::*;

fn responses(extra: Value) -> Value {
    let mut body = json!({"model": "m", "input": "hi"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn to_chat(extra: Value) -> Value {
    translated(Dialect::Responses, Dialect::Chat, &responses(extra))
}

fn to_messages(extra: Value) -> Value {
    translated(Dialect::Responses, Dialect::Messages, &responses(extra))
}

/// The shape of a later call of Codex.
fn codex() -> Value {
    let sealed = Sealed::Thinking("c2ln").write();
    json!({
        "instructions": "You are Codex.",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandbox: on."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<cwd>/</cwd>"}]},
            {"role": "user", "content": "List files."},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I should "},
                {"type": "summary_text", "text": "look."}], "content": null, "encrypted_content": sealed},
            {"type": "message", "role": "assistant", "id": "msg_1", "phase": "commentary", "content":
                [{"type": "output_text", "text": "Looking.", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_A", "name": "shell", "arguments": "{\"cmd\":\"ls\"}"},
            {"type": "custom_tool_call", "call_id": "call_B", "name": "apply_patch", "input": "*** Begin\n\"x\""},
            {"type": "function_call", "call_id": "call_C", "namespace": "mcp__files", "name": "read", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_C", "output": "text of c"},
            {"type": "custom_tool_call_output", "call_id": "call_B", "output": [{"type": "input_text", "text": "patched"}]},
            {"type": "function_call_output", "call_id": "call_A", "output": "a.txt"},
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAA-of-another-maker"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        ],
        "tools": [
            {"type": "function", "name": "shell", "description": "runs", "strict": false,
                "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}}},
            {"type": "custom", "name": "apply_patch", "description": "Edits.",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
            {"type": "web_search", "external_web_access": false},
            {"type": "tool_search", "execution": "client", "description": "d", "parameters": {}},
            {"type": "namespace", "name": "mcp__files", "description": "Files.", "tools":
                [{"type": "function", "name": "read", "parameters": {"type": "object", "properties": {}}}]},
        ],
        "tool_choice": "auto", "parallel_tool_calls": false, "reasoning": {"effort": "medium", "summary": "auto"},
        "store": false, "stream": true, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "thread",
        "text": {"verbosity": "low"}, "client_metadata": {"x": "y"}, "service_tier": "auto",
    })
}

#[test]
fn codex_is_understood_by_an_upstream_of_chat() {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let function = |name: &str, description: Value, parameters: Value| json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}});
    let mut tools = json!([
        function("shell", json!("runs"), json!({"type": "object", "properties": {"cmd": {"type": "string"}}})),
        function("apply_patch", json!("Edits.\n\nIts input follows this lark grammar:\nstart: x"), json!({"type": "object",
            "properties": {"input": {"type": "string"}}, "required": ["input"], "additionalProperties": false})),
        {"type": "function", "function": {"name": "mcp__files__read", "parameters": {"type": "object", "properties": {}}}},
    ]);
    tools[0]["function"]["strict"] = json!(false);
    assert_eq!(
        to_chat(codex()),
        json!({"model": "up/m", "max_completion_tokens": 500,
        "messages": [
            {"role": "system", "content": "You are Codex.\n\nSandbox: on."},
            {"role": "user", "content": [{"type": "text", "text": "<cwd>/</cwd>"}, {"type": "text", "text": "List files."}]},
            {"role": "assistant", "content": "Looking.", "tool_calls": [
                call("call_A", "shell", "{\"cmd\":\"ls\"}"),
                call("call_B", "apply_patch", "{\"input\":\"*** Begin\\n\\\"x\\\"\"}"),
                call("call_C", "mcp__files__read", "{}")]},
            {"role": "tool", "tool_call_id": "call_A", "content": "a.txt"},
            {"role": "tool", "tool_call_id": "call_B", "content": "patched"},
            {"role": "tool", "tool_call_id": "call_C", "content": "text of c"},
        ],
        "tools": tools, "tool_choice": "auto", "parallel_tool_calls": false, "reasoning_effort": "medium", "verbosity": "low",
        "prompt_cache_key": "thread"})
    );
}

#[test]
fn codex_is_understood_by_an_upstream_of_messages_which_gets_its_thinking_back() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let result = |id: &str, said: &str| json!({"type": "tool_result", "tool_use_id": id, "content": [text(said)]});
    let sent = to_messages(codex());
    assert_eq!(sent["system"], json!([text("You are Codex.\n\nSandbox: on.")]));
    assert_eq!(
        sent["messages"],
        json!([
            {"role": "user", "content": [text("<cwd>/</cwd>"), text("List files.")]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "I should look.", "signature": "c2ln"}, text("Looking."),
                {"type": "tool_use", "id": "call_A", "name": "shell", "input": {"cmd": "ls"}},
                {"type": "tool_use", "id": "call_B", "name": "apply_patch", "input": {"input": "*** Begin\n\"x\""}},
                {"type": "tool_use", "id": "call_C", "name": "mcp__files__read", "input": {}}]},
            {"role": "user", "content": [result("call_A", "a.txt"), result("call_B", "patched"), result("call_C", "text of c")]},
        ])
    );
    let names: Vec<_> = sent["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["shell", "apply_patch", "mcp__files__read"]);
    assert_eq!(sent["tool_choice"], json!({"type": "auto", "disable_parallel_tool_use": true}));
    for (model, thinking) in [
        ("claude-sonnet-4-6", json!({"type": "adaptive"})),
        ("claude-haiku-4-5", json!({"type": "enabled", "budget_tokens": 6000})),
    ] {
        let terms = Terms { model, output_limit: 8000, ..terms(false) };
        let body = responses(codex()).to_string();
        let sent = request(Dialect::Responses, Dialect::Messages, body.as_bytes(), &terms).unwrap();
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent["thinking"], thinking, "its last thinking is there, so that it may think on");
    }
}

#[test]
fn several_calls_with_their_results_in_turn_stay_in_their_order() {
    let step = |n: u32| {
        [
            json!({"type": "function_call", "call_id": format!("c{n}"), "name": "f", "arguments": ""}),
            json!({"type": "function_call_output", "call_id": format!("c{n}"), "output": format!("r{n}")}),
        ]
    };
    let mut input = vec![json!({"role": "user", "content": "go"})];
    input.extend([1, 2].into_iter().flat_map(step));
    let sent = to_chat(json!({"input": input}));
    let roles: Vec<_> = sent["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant", "tool"]);
    let sent = to_messages(json!({"input": input}));
    assert_eq!(sent["messages"][2]["content"][0]["tool_use_id"], "c1");
    assert_eq!(sent["messages"][4]["content"][0]["content"][0]["text"], "r2");
}

#[test]
fn redacted_thinking_comes_back_as_it_was_and_marks_nobody_was_quoted_for_do_not() {
    let input = json!([
        {"type": "reasoning", "summary": [], "encrypted_content": Sealed::Redacted("ZGF0YQ==").write()},
        {"role": "assistant", "content": [{"type": "output_text", "text": "ok", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": [{"type": "input_text", "text": "go", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "input_image", "image_url": "https://x/y", "detail": "original"}]},
    ]);
    assert_eq!(
        to_messages(json!({"input": input}))["messages"],
        json!([
            {"role": "user", "content": [{"type": "text", "text": "."}]},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "ZGF0YQ=="}, {"type": "text", "text": "ok"}]},
            {"role": "user", "content": [{"type": "text", "text": "go"}, {"type": "image", "source": {"type": "url", "url": "https://x/y"}}]},
        ])
    );
    let tools = json!([{"type": "function", "name": "f", "parameters": null, "cache_control": {"type": "ephemeral"}}]);
    let sent = to_messages(json!({"tools": tools}));
    assert_eq!(sent["tools"], json!([{"name": "f", "input_schema": {"type": "object", "properties": {}}}]));
}

#[test]
fn formats_choices_and_limits_are_said_in_the_upstreams_words() {
    let schema = json!({"type": "object", "properties": {}});
    let format = json!({"type": "json_schema", "name": "n", "description": "d", "schema": schema, "strict": true});
    let said = json!({"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": schema, "strict": true}});
    assert_eq!(to_chat(json!({"text": {"format": format}}))["response_format"], said);
    assert_eq!(to_chat(json!({"text": {"format": {"type": "json_object"}}}))["response_format"], json!({"type": "json_object"}));
    let said = json!({"format": {"type": "json_schema", "schema": schema}});
    assert_eq!(to_messages(json!({"text": {"format": format}}))["output_config"], said);
    let tools = json!([{"type": "function", "name": "f", "parameters": {}}, {"type": "custom", "name": "c"}]);
    let choice = |choice: Value| to_messages(json!({"tools": tools, "tool_choice": choice}))["tool_choice"].clone();
    assert_eq!(choice(json!({"type": "function", "name": "f"})), json!({"type": "tool", "name": "f"}));
    assert_eq!(choice(json!({"type": "custom", "name": "c"})), json!({"type": "tool", "name": "c"}));
    let some = json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "custom", "name": "c"}]});
    let sent = to_chat(json!({"tools": tools, "tool_choice": some}));
    assert_eq!((&sent["tool_choice"], sent["tools"].as_array().unwrap().len()), (&json!("auto"), 1));
}

#[test]
fn what_is_stored_or_runs_elsewhere_is_refused_by_name() {
    let item = |item: Value| responses(json!({"input": [item]}));
    let tool = |tool: Value| responses(json!({"tools": [tool]}));
    let twice = json!([{"type": "namespace", "name": "a", "tools": [{"type": "function", "name": "b"}]}, {"type": "function", "name": "a__b"}]);
    for to in [Dialect::Chat, Dialect::Messages] {
        refused_for(
            Dialect::Responses,
            to,
            vec![
                (responses(json!({"previous_response_id": "resp_1"})), "previous_response_id", "stored"),
                (responses(json!({"conversation": "conv_1"})), "conversation", "stored"),
                (responses(json!({"prompt": {"id": "p"}})), "prompt", "stored"),
                (responses(json!({"background": true})), "background", "not sold"),
                (responses(json!({"input": null})), "input", "must be"),
                (responses(json!({"input": []})), "input", "says nothing"),
                (responses(json!({"tools": twice.clone()})), "tools", "a__b"),
                (responses(json!({"reasoning": {"effort": "huge"}})), "reasoning", "huge"),
                (responses(json!({"tool_choice": {"type": "web_search"}})), "tool_choice", "web_search"),
                (item(json!({"type": "item_reference", "id": "x"})), "input", "input[0] names an item that is stored"),
                (item(json!({"type": "compaction", "encrypted_content": "x"})), "input", "compaction"),
                (item(json!({"role": "user", "content": [{"type": "input_file", "file_id": "f"}]})), "input", "input_file"),
                (item(json!({"type": "function_call", "name": "f", "arguments": "{}"})), "input", "call_id"),
                (item(json!({"type": "function_call_output", "call_id": "x", "output": "y"})), "input", "nothing before it made"),
                (tool(json!({"type": "code_interpreter"})), "tools", "code_interpreter"),
                (tool(json!({"type": "mcp", "server_url": "https://x"})), "tools", "mcp"),
                (tool(json!({"type": "image_generation"})), "tools", "image_generation"),
                (tool(json!({"type": "function"})), "tools", "tools[0] has no name"),
            ],
        );
    }
}

/// As many calls as a body may have, all in one turn: a look at each of them for each would take minutes.
#[test]
fn a_hundred_thousand_calls_in_a_row_are_read_in_one_go() {
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let mut items = vec![json!({"role": "user", "content": "go"})];
    items.extend(std::iter::repeat_n(call, 100_000));
    let body = json!({"model": "m", "input": items}).to_string();
    let refused = request(Dialect::Responses, Dialect::Chat, body.as_bytes(), &terms(false)).unwrap_err();
    assert!(refused.message.contains("never says what it gave back"), "{}", refused.message);
}
