//! What is sold and what is refused on responses: nothing that is stored, nothing that runs at the upstream.

use super::*;

fn asked(extra: Value) -> Value {
    with(json!({"model": "m", "input": "hi"}), extra)
}

fn item(item: Value) -> Value {
    asked(json!({"input": [{"role": "user", "content": "hi"}, item]}))
}

fn said(part: Value) -> Value {
    asked(json!({"input": [{"role": "user", "content": [part]}]}))
}

fn refused(body: &Value) -> Error {
    refusal(Dialect::Responses, body.to_string())
}

fn sent(body: &Value) -> Value {
    forwarded(Dialect::Responses, body)
}

fn input(body: &Value) -> u64 {
    bound(Dialect::Responses, body).input
}

#[test]
fn a_field_that_is_not_sold_is_refused_by_name_with_what_to_do_instead() {
    for (extra, param, help) in [
        (json!({"input": null}), "input", "a text or an array"),
        (json!({"input": []}), "input", "at least one item"),
        (json!({"input": {}}), "input", "a text or an array"),
        (json!({"previous_response_id": "resp_1"}), "previous_response_id", "the whole conversation as input"),
        (json!({"conversation": {"id": "conv_1"}}), "conversation", "the whole conversation as input"),
        (json!({"prompt": {"id": "pmpt_1"}}), "prompt", "instructions"),
        (json!({"background": true}), "background", "leave background out"),
        (json!({"background": "false"}), "background", "leave background out"),
        (json!({"context_management": [{"type": "compaction"}]}), "context_management", "remove it"),
        (json!({"service_tier": "priority"}), "service_tier", "remove it"),
        (json!({"messages": [{"role": "user", "content": "hi"}]}), "messages", "input"),
        (json!({"max_tokens": 5}), "max_tokens", "max_output_tokens"),
        (json!({"max_completion_tokens": 5}), "max_completion_tokens", "max_output_tokens"),
        (json!({"max_output_tokens": 0}), "max_output_tokens", "whole number"),
        (json!({"max_output_tokens": "5"}), "max_output_tokens", "whole number"),
        (json!({"stream": "yes"}), "stream", "true or false"),
        (json!({"instructions": [{"type": "input_image"}]}), "instructions", "a text"),
        (json!({"include": "x"}), "include", "an array of strings"),
        (json!({"tools": {}}), "tools", "an array"),
        (json!({"tools": [{"name": "f"}]}), "tools", "a type"),
        (json!({"tools": [{"type": "function", "type ": 1}, {"type": "mcp"}]}), "tools", "\"mcp\""),
        (json!({"tools": [{"type": "file_search"}]}), "tools", "you run yourself"),
        (json!({"tools": [{"type": "code_interpreter", "container": {}}]}), "tools", "you run yourself"),
        (json!({"tools": [{"type": "image_generation"}]}), "tools", "you run yourself"),
        (json!({"tools": [{"type": "computer_use_preview"}]}), "tools", "you run yourself"),
        (json!({"tools": [{"type": "shell"}]}), "tools", "you run yourself"),
        (json!({"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]}), "tools", "you run yourself"),
        (json!({"tool_choice": {"type": "web_search"}}), "tool_choice", "you run yourself"),
        (json!({"tool_choice": {"type": "allowed_tools", "tools": [{"type": "mcp"}]}}), "tool_choice", "you run yourself"),
        (json!({"tool_choice": {"type": 1}}), "tool_choice", "one type"),
    ] {
        let error = refused(&asked(extra.clone()));
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some(param)), "{extra}: {}", error.message);
        assert!(error.message.contains(help), "{extra}: {}", error.message);
    }
    let error = refused(&json!({"model": "m"}));
    assert_eq!((error.param, error.message.as_str()), (Some("input"), "input is required; send at least one message"));
    let twice = r#"{"model":"m","input":"hi","tools":[{"type":"function","type":"mcp"}]}"#;
    assert_eq!(refusal(Dialect::Responses, twice).param, Some("tools"), "a type is said once");
}

#[test]
fn an_item_that_is_not_sold_is_refused_by_its_place() {
    for (wrong, help) in [
        (json!("hi"), "must be an object"),
        (json!({"content": "hi"}), "has no role"),
        (json!({"role": 1, "content": "hi"}), "one role"),
        (json!({"role": "user"}), "has no content"),
        (json!({"role": "user", "content": null}), "has no content"),
        (json!({"role": "user", "content": 5}), "a text or an array"),
        (json!({"type": 5}), "one type"),
        (json!({"type": "item_reference", "id": "msg_1"}), "nothing is stored here"),
        (json!({"id": "msg_1"}), "nothing is stored here"),
        (json!({"type": null, "id": "msg_1"}), "nothing is stored here"),
        (json!({"type": "compaction", "encrypted_content": "x"}), "\"compaction\""),
        (json!({"type": "computer_call_output", "call_id": "c"}), "\"computer_call_output\""),
        (json!({"type": "mcp_approval_response"}), "\"mcp_approval_response\""),
        (json!({"type": "function_call_output", "output": [{"type": "input_file"}]}), "\"input_file\""),
        (json!({"role": "user", "content": [{"type": "input_audio", "data": "x"}]}), "\"input_audio\""),
        (json!({"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}), "nothing is stored here"),
        (json!({"role": "user", "content": [{"type": "input_image", "image_url": "https://x", "file_id": "f"}]}), "stored file"),
        (json!({"type": "tool_search_output", "tools": [{"type": "web_search"}]}), "you run yourself"),
        (json!({"type": "additional_tools", "role": "developer", "tools": [{"type": "mcp"}]}), "you run yourself"),
    ] {
        let error = refused(&item(wrong.clone()));
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some("input")), "{wrong}: {}", error.message);
        assert!(error.message.contains(help), "{wrong}: {}", error.message);
        assert!(error.message.starts_with("input[1] ") || error.message.contains("tools"), "{}", error.message);
    }
    for picture in [json!({"type": "input_image", "image_url": "file:///x"}), json!({"type": "input_image", "file_id": null})] {
        let error = refused(&said(picture));
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some("input")), "{}", error.message);
    }
}

#[test]
fn what_codex_and_the_sdks_send_is_sold() {
    for extra in [
        json!({"input": "", "tools": null, "include": null, "instructions": null, "tool_choice": "auto", "background": false}),
        json!({"previous_response_id": null, "conversation": null, "prompt": null, "context_management": [], "store": true}),
        json!({"service_tier": "auto", "text": {"verbosity": "low"}, "truncation": "auto", "metadata": {"a": "b"}}),
        json!({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}}),
        json!({"tool_choice": {"type": "custom", "name": "patch"}, "parallel_tool_calls": false, "client_metadata": {}}),
        json!({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
            {"type": "tool_search"}, {"type": "local_shell"}, {"type": "apply_patch"}, {"type": "custom", "format": {"type": "text"}}]}),
    ] {
        assert!(Request::read(Dialect::Responses, asked(extra.clone()).to_string().as_bytes()).is_ok(), "{extra}");
    }
    for kind in [
        json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "x"}]}),
        json!({"type": null, "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "x", "annotations": []},
            {"type": "refusal", "refusal": "no"}]}),
        json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
        json!({"type": "function_call_output", "call_id": "c", "output": "rain"}),
        json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "https://x"}]}),
        json!({"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"}),
        json!({"type": "custom_tool_call_output", "call_id": "c", "output": "done"}),
        json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}], "encrypted_content": "gAAA",
            "content": [{"type": "reasoning_text", "text": "x"}]}),
        json!({"type": "tool_search_call", "call_id": "c", "arguments": {}, "execution": "client"}),
        json!({"type": "tool_search_output", "call_id": "c", "tools": [{"type": "function", "name": "f"}]}),
        json!({"type": "local_shell_call_output", "output": "x"}),
    ] {
        assert!(Request::read(Dialect::Responses, item(kind.clone()).to_string().as_bytes()).is_ok(), "{kind}");
    }
}

#[test]
fn nothing_is_stored_and_the_limit_is_written_once_whatever_was_asked() {
    for extra in [json!({}), json!({"store": true}), json!({"store": null, "max_output_tokens": null})] {
        assert_eq!(sent(&asked(extra)), json!({"model": "up/m", "input": "hi", "store": false, "max_output_tokens": 4096}));
    }
    let most = sent(&asked(json!({"max_output_tokens": 128_000, "venice_parameters": {"enable_web_search": "on"}})));
    assert_eq!(most, json!({"model": "up/m", "input": "hi", "store": false, "max_output_tokens": 64_000}));
    let options = json!({"stream": true, "stream_options": {"include_usage": true, "include_obfuscation": false}});
    assert_eq!(sent(&asked(options))["stream_options"], json!({"include_obfuscation": false}));
    assert_eq!(sent(&asked(json!({"stream": true}))).get("stream_options"), None);
}

#[test]
fn a_search_that_clients_offer_unasked_is_left_out_and_weighs_nothing() {
    let function = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
    let search = |kind| json!({"type": kind, "filters": {"allowed_domains": ["x".repeat(5000)]}});
    let with_search = asked(json!({"tools": [search("web_search"), function, search("web_search_preview_2025_03_11")]}));
    let without = asked(json!({"tools": [function]}));
    assert_eq!(sent(&with_search), sent(&without));
    assert_eq!(input(&with_search), input(&without));
    assert_eq!(sent(&asked(json!({"tools": [search("web_search")]})))["tools"], json!([]));
    let included =
        asked(json!({"include": ["web_search_call.action.sources", "reasoning.encrypted_content", "file_search_call.results"]}));
    assert_eq!(sent(&included)["include"], json!(["reasoning.encrypted_content"]));
    assert_eq!(sent(&asked(json!({"include": ["x"]})))["include"], json!([]));
}

#[test]
fn the_bound_covers_every_text_and_counts_pictures_apart() {
    let words = "word ".repeat(1000);
    let base = input(&asked(json!({})));
    assert_eq!(input(&asked(json!({"input": words}))) - base, 5000 - 2);
    for longer in [
        asked(json!({"instructions": words})),
        asked(json!({"text": {"format": {"type": "json_schema", "schema": {"description": words}}}})),
        asked(json!({"tools": [{"type": "custom", "name": "f", "description": words}]})),
        asked(json!({"tools": [{"type": "namespace", "tools": [{"type": "function", "description": words}]}]})),
        item(json!({"type": "function_call", "name": "f", "arguments": words})),
        item(json!({"type": "function_call_output", "output": words})),
        item(json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": words}]})),
        item(json!({"type": "reasoning", "summary": [], "encrypted_content": words})),
        item(json!({"type": "tool_search_output", "tools": [{"type": "function", "description": words}]})),
        said(json!({"type": "input_text", "text": words})),
        said(json!({"type": "input_text", "text": "x", "image_url": format!("data:image/png;base64,{words}")})),
    ] {
        assert!(input(&longer) >= base + 5000, "{}", &longer.to_string()[..80]);
    }
    let picture = json!({"type": "input_image", "detail": "high", "image_url": format!("data:image/png;base64,{words}")});
    for body in [said(picture.clone()), item(json!({"type": "function_call_output", "output": [picture]}))] {
        assert!((2048..2048 + 300).contains(&input(&body)), "{}", input(&body));
    }
    let metadata = asked(json!({"metadata": {"a": words}, "user": words}));
    assert_eq!(input(&metadata), base, "no model reads it");
}

#[test]
fn a_stream_repeats_what_it_was_asked_so_that_must_fit_into_an_event() {
    let asking = |stream: bool, field: &str, bytes: usize| asked(json!({"stream": stream, field: "\u{1F980}".repeat(bytes / 4)}));
    let error = refused(&asking(true, "instructions", 300_000));
    assert_eq!((error.code, error.param), (Code::InvalidRequest, Some("instructions")), "{}", error.message);
    for taken in [asking(false, "instructions", 300_000), asking(true, "input", 3_000_000), asking(true, "instructions", 200_000)]
    {
        assert!(Request::read(Dialect::Responses, taken.to_string().as_bytes()).is_ok());
    }
    let unlikely = |stream: bool, count: Value| asked(json!({"stream": stream, "top_logprobs": count}));
    assert_eq!(refused(&unlikely(true, json!(20))).param, Some("top_logprobs"));
    for taken in [unlikely(false, json!(20)), unlikely(true, json!(0)), unlikely(true, json!(null))] {
        assert!(Request::read(Dialect::Responses, taken.to_string().as_bytes()).is_ok(), "{taken}");
    }
}

#[test]
fn reasoning_is_hidden_unless_it_is_switched_off() {
    let hidden = |extra: Value| {
        let body = asked(extra).to_string();
        Request::read(Dialect::Responses, body.as_bytes()).unwrap().hidden_output(&model())
    };
    assert_eq!(hidden(json!({"max_output_tokens": 1000})), 0);
    assert_eq!(hidden(json!({"max_output_tokens": 1000, "reasoning": null})), 0);
    assert_eq!(hidden(json!({"max_output_tokens": 1000, "reasoning": {"effort": "none"}})), 0);
    assert_eq!(hidden(json!({"max_output_tokens": 1000, "reasoning": {"effort": "low", "summary": "auto"}})), 1000);
    assert_eq!(hidden(json!({"max_output_tokens": 1000, "reasoning": {}})), 1000);
}

#[test]
fn counting_needs_no_output_limit_and_nothing_else_less() {
    let count = |body: &Value| Request::read_to_count(body.to_string().as_bytes()).map(|request| request.estimate(&model()));
    let body = json!({"model": "m", "system": "x".repeat(400), "messages": [{"role": "user", "content": "hi"}]});
    let tokens = count(&body).unwrap();
    assert!((100..150).contains(&tokens), "{tokens}");
    assert_eq!(count(&with(body.clone(), json!({"max_tokens": 5}))).unwrap(), tokens);
    for (extra, param) in
        [(json!({"max_tokens": 0}), "max_tokens"), (json!({"messages": []}), "messages"), (json!({"model": ""}), "model")]
    {
        let error = count(&with(body.clone(), extra)).unwrap_err();
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some(param)));
    }
}

proptest! {
    #[test]
    fn a_damaged_body_of_responses_is_refused_or_forwarded_whole(at in 0usize..400, byte: u8, cut in 0usize..400) {
        let body = asked(json!({"stream": true, "instructions": "\u{e9} \\ \"x\"", "tools": [{"type": "web_search"}, {"type": "custom"}],
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}, {"type": "reasoning", "summary": []}]}));
        let mut bytes = body.to_string().into_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        for damaged in [&bytes[..], &bytes[..cut % length]] {
            let Ok(request) = Request::read(Dialect::Responses, damaged) else { continue };
            let sent: Value = serde_json::from_slice(&request.forward("up", 5, LimitField::MaxTokens)).unwrap();
            let original: Value = serde_json::from_slice(damaged).unwrap();
            prop_assert_eq!(&sent["input"], &original["input"]);
            prop_assert_eq!((&sent["model"], &sent["store"], &sent["max_output_tokens"]), (&json!("up"), &json!(false), &json!(5)));
            prop_assert!(!sent["tools"].to_string().contains("web_search"));
        }
    }

    #[test]
    fn no_input_makes_it_panic(text in r#"[\[\]{}:,"\\a-z0-9 u]{0,60}"#) {
        for name in ["input", "tools", "include", "tool_choice"] {
            _ = Request::read(Dialect::Responses, format!("{{\"model\":\"m\",\"{name}\":{text}}}").as_bytes());
        }
    }
}
