//! What is read of a request to write its answer.

use super::*;
use serde_json::json;

fn read(caller: Dialect, body: &Value) -> Wishes {
    Wishes::read(caller, body.to_string().as_bytes())
}

#[test]
fn thinking_is_shown_to_callers_of_messages_that_asked_for_it() {
    for (thinking, shown) in [("enabled", true), ("adaptive", true), ("disabled", false)] {
        let body = json!({ "thinking": { "type": thinking } });
        assert_eq!(read(Dialect::Messages, &body).thinking, shown, "{thinking}");
    }
    assert!(!read(Dialect::Messages, &json!({})).thinking);
}

#[test]
fn reasoning_is_sealed_for_callers_of_responses_that_include_it() {
    let body = json!({ "include": ["x", "reasoning.encrypted_content"], "store": false });
    assert!(read(Dialect::Responses, &body).sealed_reasoning);
    assert!(!read(Dialect::Responses, &json!({ "include": ["x"] })).sealed_reasoning);
    assert!(!read(Dialect::Responses, &json!({ "include": null })).sealed_reasoning);
}

#[test]
fn tools_of_codex_keep_their_names() {
    let tools = json!([
        { "type": "function", "name": "shell", "parameters": {} },
        { "type": "custom", "name": "apply_patch", "format": { "type": "grammar" } },
        { "type": "web_search" },
        { "type": "tool_search" },
        { "type": "namespace", "name": "mcp__files__", "tools": [
            { "type": "function", "name": "read" }, { "type": "custom", "name": "write" }, { "type": "namespace", "name": "no" },
        ] },
    ]);
    let wishes = read(Dialect::Responses, &json!({ "tools": tools }));
    let named = |sent_as: &str, name: &str, namespace: Option<&str>, custom| {
        let namespace = namespace.map(str::to_owned);
        Renamed { sent_as: sent_as.into(), name: name.into(), namespace, custom }
    };
    let space = Some("mcp__files__");
    let expected = [
        named("apply_patch", "apply_patch", None, true),
        named("mcp__files__read", "read", space, false),
        named("mcp__files__write", "write", space, true),
    ];
    assert_eq!(wishes.tools, expected);
    assert_eq!(wishes.tool("shell"), None, "a function is called as it is");
}

#[test]
fn a_strange_body_wishes_nothing() {
    for body in ["", "[]", "null", "{", r#"{"thinking":1,"include":{},"tools":"x"}"#, r#"{"tools":[1,{"type":"custom"},null]}"#] {
        for caller in Dialect::ALL {
            assert_eq!(Wishes::read(caller, body.as_bytes()), Wishes::default(), "{body}");
        }
    }
}

#[test]
fn free_text_is_what_the_model_meant() {
    assert_eq!(free_text(r#"{"input":"*** Begin \"Patch\"\n"}"#), "*** Begin \"Patch\"\n");
    for other in ["*** Begin Patch", "", r#"{"patch":"x"}"#, r#"{"input":1}"#] {
        assert_eq!(free_text(other), other);
    }
}
