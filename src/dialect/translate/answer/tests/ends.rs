//! How answers end and what they are said to have used: reasons, reports and estimates.

use super::super::super::{Renamed, Sealed, Unreadable};
use super::model::{chunk, sse};
use super::*;

fn message(stop_reason: &str, stop_sequence: Option<&str>) -> String {
    let delta = json!({ "stop_reason": stop_reason, "stop_sequence": stop_sequence });
    let start = json!({ "type": "message_start", "message": { "usage": { "input_tokens": 3, "output_tokens": 1 } } });
    let block = json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "hi" } });
    let events = [start, block, json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": 5 } })];
    let events: String = events.iter().map(sse).collect();
    events + &sse(&json!({ "type": "message_stop" }))
}

#[test]
fn messages_stop_for_the_same_reason_elsewhere() {
    for (reason, chat, responses) in [
        ("end_turn", "stop", "completed"),
        ("stop_sequence", "stop", "completed"),
        ("max_tokens", "length", "max_output_tokens"),
        ("model_context_window_exceeded", "length", "max_output_tokens"),
        ("refusal", "content_filter", "content_filter"),
        ("pause_turn", "stop", "completed"),
        ("tool_use", "stop", "completed"),
        ("not_yet_invented", "stop", "completed"),
    ] {
        let stream = message(reason, None);
        assert_eq!(streamed(Dialect::Messages, Dialect::Chat, &stream).stop, chat, "{reason}");
        assert_eq!(streamed(Dialect::Messages, Dialect::Responses, &stream).stop, responses, "{reason}");
        let body = json!({ "content": [{ "type": "text", "text": "hi" }], "stop_reason": reason });
        assert_eq!(plain(Dialect::Messages, Dialect::Chat, &body).stop, chat, "{reason}");
        assert_eq!(plain(Dialect::Messages, Dialect::Responses, &body).stop, responses, "{reason}");
    }
}

#[test]
fn chats_stop_for_the_same_reason_elsewhere() {
    for (reason, messages, responses) in [
        ("stop", "end_turn", "completed"),
        ("length", "max_tokens", "max_output_tokens"),
        ("content_filter", "refusal", "content_filter"),
        ("tool_calls", "end_turn", "completed"),
        ("function_call", "end_turn", "completed"),
        ("eos", "end_turn", "completed"),
    ] {
        let stream = chunk(&json!({ "content": "hi" }), None) + &chunk(&json!({}), Some(reason)) + "data: [DONE]\n\n";
        assert_eq!(streamed(Dialect::Chat, Dialect::Messages, &stream).stop, messages, "{reason} without a call");
        assert_eq!(streamed(Dialect::Chat, Dialect::Responses, &stream).stop, responses, "{reason}");
    }
    for reason in ["tool_calls", "function_call", "stop", ""] {
        let call = json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{}" } }] });
        let stream = chunk(&call, None) + &chunk(&json!({}), Some(reason)) + "data: [DONE]\n\n";
        assert_eq!(streamed(Dialect::Chat, Dialect::Messages, &stream).stop, "tool_use", "{reason:?} with a call");
    }
}

#[test]
fn an_answer_that_broke_off_or_never_said_why_it_stopped_is_no_end_elsewhere() {
    let call = json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "f", "arguments": "{}" } }] });
    for delta in [json!({ "content": "hi" }), call] {
        for reason in [None, Some("error"), Some("abort"), Some("cancelled"), Some("insufficient_system_resource")] {
            let stream = chunk(&delta, None) + &chunk(&json!({}), reason) + "data: [DONE]\n\n";
            for caller in [Dialect::Messages, Dialect::Responses] {
                let mut answer = Answer::new(Dialect::Chat, caller, asked()).unwrap();
                let mut out = String::new();
                for event in Splitter::new().push(stream.clone().into()).map(Result::unwrap) {
                    out.push_str(std::str::from_utf8(&answer.event(&event)).unwrap());
                }
                assert_eq!(answer.end(), Err(Unreadable), "{reason:?}");
                assert!(answer.has_output() && !out.contains("end_turn") && !out.contains("message_stop"), "{out}");
                assert!(!out.contains("response.completed") && !out.contains("message_delta"), "{out}");
            }
            let mut meter = Meter::new(Dialect::Chat, true, true, 1);
            let ends: Vec<Pass> = Splitter::new().push(stream.into()).map(|event| meter.event(&event.unwrap())).collect();
            let broke = ends.iter().any(|end| matches!(end, Pass::Error(_)));
            assert_eq!(broke, reason.is_some(), "an untranslated stream is ended by the words of it, not by their absence");
            let message = json!({ "content": "hi", "tool_calls": delta["tool_calls"] });
            let body = json!({ "choices": [{ "message": message, "finish_reason": reason }] }).to_string();
            for caller in [Dialect::Messages, Dialect::Responses] {
                assert_eq!(Answer::plain(Dialect::Chat, caller, body.as_bytes(), &asked()), Err(Unreadable), "{reason:?}");
            }
        }
    }
}

#[test]
fn thinking_that_its_caller_does_not_see_is_no_output() {
    let thinking = chunk(&json!({ "reasoning_content": "hm" }), None);
    let said = |caller, thinking_is_shown: bool, stream: &str| {
        let asked = Asked { wishes: Wishes { thinking: thinking_is_shown, ..Wishes::default() }, ..asked() };
        let mut answer = Answer::new(Dialect::Chat, caller, asked).unwrap();
        Splitter::new().push(stream.to_owned().into()).for_each(|event| _ = answer.event(&event.unwrap()));
        answer.has_output()
    };
    assert!(!said(Dialect::Messages, false, &thinking), "nobody sees it");
    assert!(said(Dialect::Messages, true, &thinking) && said(Dialect::Responses, false, &thinking));
    assert!(said(Dialect::Messages, false, &(thinking.clone() + &chunk(&json!({ "content": "hi" }), None))));
    let call = json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "f" } }] });
    assert!(said(Dialect::Messages, false, &(thinking + &chunk(&call, None))));
    assert!(!said(Dialect::Messages, false, &chunk(&json!({ "role": "assistant", "content": "" }), None)));
}

#[test]
fn a_stop_sequence_is_named_where_it_is_known() {
    let choice = json!({ "index": 0, "delta": { "content": "a" }, "finish_reason": "stop", "stop_reason": "END" });
    let stream = sse(&json!({ "choices": [choice] })) + "data: [DONE]\n\n";
    let written = written(Dialect::Chat, Dialect::Messages, asked(), &stream, 999);
    assert!(written.contains(r#""stop_reason":"stop_sequence","stop_sequence":"END""#), "{written}");
}

#[test]
fn the_legacy_call_of_a_function_is_a_call() {
    let delta = |name: Value, arguments: &str| json!({ "function_call": { "name": name, "arguments": arguments } });
    let stream = chunk(&delta(json!("f"), "{\"x\""), None) + &chunk(&delta(json!(null), ":1}"), Some("function_call"));
    let seen = streamed(Dialect::Chat, Dialect::Messages, &(stream + "data: [DONE]\n\n"));
    assert_eq!((&seen.calls()[0][2], &seen.calls()[0][3], &seen.stop), (&json!("f"), &json!("{\"x\":1}"), &json!("tool_use")));
}

#[test]
fn a_refusal_is_said_in_every_dialect() {
    let stream =
        chunk(&json!({ "refusal": "I " }), None) + &chunk(&json!({ "refusal": "won't" }), Some("stop")) + "data: [DONE]\n\n";
    assert_eq!(streamed(Dialect::Chat, Dialect::Messages, &stream).parts, [json!(["text", "I won't"])]);
    assert_eq!(streamed(Dialect::Chat, Dialect::Responses, &stream).parts, [json!(["refusal", "I won't"])]);
}

#[test]
fn usage_is_told_wherever_the_upstream_reports_it() {
    let report = usage(Dialect::Chat);
    let text = |usage: &Value| json!({ "choices": [{ "index": 0, "delta": { "content": "hi" } }], "usage": usage });
    let finish = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let with = |mut chunk: Value, usage: &Value| {
        chunk["usage"] = usage.clone();
        chunk
    };
    let own = json!({ "choices": [], "usage": report });
    let groq = json!({ "choices": [], "x_groq": { "usage": report } });
    let early = json!({ "prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101 });
    for chunks in [
        vec![text(&Value::Null), finish.clone(), own],
        vec![text(&Value::Null), with(finish.clone(), &report)],
        vec![text(&early), with(finish.clone(), &report)],
        vec![text(&Value::Null), finish, groq],
    ] {
        let stream = chunks.iter().map(sse).collect::<String>() + "data: [DONE]\n\n";
        for caller in [Dialect::Messages, Dialect::Responses] {
            assert_eq!(streamed(Dialect::Chat, caller, &stream).usage, usage(caller), "{stream}");
        }
    }
}

#[test]
fn zeroes_at_the_end_do_not_undo_what_the_start_said() {
    let report = usage(Dialect::Messages);
    let zeroes = json!({ "input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 9 });
    let start = json!({ "type": "message_start", "message": { "usage": report } });
    let end = json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": zeroes });
    let stream: String = [start, end, json!({ "type": "message_stop" })].iter().map(sse).collect();
    assert_eq!(streamed(Dialect::Messages, Dialect::Chat, &stream).usage, usage(Dialect::Chat));
}

#[test]
fn usage_that_was_never_reported_is_estimated() {
    let stream = chunk(&json!({ "content": "12345678" }), None) + &chunk(&json!({}), Some("stop")) + "data: [DONE]\n\n";
    let seen = streamed(Dialect::Chat, Dialect::Messages, &stream);
    assert_eq!((&seen.usage["input_tokens"], &seen.usage["output_tokens"]), (&json!(41), &json!(2)));
    let body = json!({ "content": [{ "type": "text", "text": "12345678" }], "stop_reason": "end_turn" });
    let seen = plain(Dialect::Messages, Dialect::Chat, &body);
    assert_eq!((&seen.usage["prompt_tokens"], &seen.usage["total_tokens"]), (&json!(41), &json!(43)));
}

#[test]
fn a_message_starts_with_what_was_read_as_far_as_that_is_known() {
    let started = |stream: &str, asked: Asked| {
        let written = written(Dialect::Chat, Dialect::Messages, asked, stream, 999);
        seen::events(&written)[0].1["message"]["usage"].clone()
    };
    let silent = chunk(&json!({ "role": "assistant", "content": "" }), Some("stop")) + "data: [DONE]\n\n";
    assert_eq!(started(&silent, asked())["input_tokens"], 41);
    let unknown = Asked { input_estimate: 0, ..asked() };
    assert_eq!(started(&silent, unknown)["input_tokens"], 1, "clients take nothing for a broken count");
    let told = sse(
        &json!({ "choices": [{ "index": 0, "delta": { "content": "x" }, "finish_reason": "stop" }], "usage": usage(Dialect::Chat) }),
    );
    let told = started(&(told + "data: [DONE]\n\n"), asked());
    assert_eq!((&told["input_tokens"], &told["cache_read_input_tokens"]), (&json!(30), &json!(60)));
}

#[test]
fn a_caller_of_chat_that_did_not_ask_gets_no_usage_chunk() {
    let unasked = Asked { wants_usage: false, ..asked() };
    let stream = stream_of(Dialect::Messages, &sample(), 4, false);
    let written = written(Dialect::Messages, Dialect::Chat, unasked, &stream, 999);
    assert!(!written.contains("usage") && !written.contains("\"choices\":[]"));
    assert_eq!(seen::streamed(Dialect::Chat, &written).parts, expected(&sample()));
}

#[test]
fn calls_are_counted_among_calls_and_not_among_blocks() {
    let written = written(Dialect::Messages, Dialect::Chat, asked(), &stream_of(Dialect::Messages, &sample(), 99, false), 999);
    let events = seen::events(&written);
    let calls = events.iter().filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["tool_calls"].get(0));
    let indexes: Vec<u64> = calls.map(|call| call["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn thinking_goes_to_callers_of_responses_with_its_seal() {
    let block = |index, block: Value, deltas: &[Value]| {
        let start = json!({ "type": "content_block_start", "index": index, "content_block": block });
        let deltas = deltas.iter().map(|delta| json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        let stop = json!({ "type": "content_block_stop", "index": index });
        std::iter::once(start).chain(deltas).chain([stop]).map(|event| sse(&event)).collect::<String>()
    };
    let thinking = json!({ "type": "thinking", "thinking": "", "signature": "" });
    let (thought, signed) = (
        json!({ "type": "thinking_delta", "thinking": "hm" }),
        |text: &str| json!({ "type": "signature_delta", "signature": text }),
    );
    let stream = block(0, thinking.clone(), &[thought, signed("c2ln")])
        + &block(1, thinking, &[signed("aGlkZGVu")])
        + &block(2, json!({ "type": "redacted_thinking", "data": "ZGF0YQ==" }), &[])
        + &message("end_turn", None);
    let answer = |sealed_reasoning| {
        let wishes = Wishes { sealed_reasoning, ..Wishes::default() };
        let written = written(Dialect::Messages, Dialect::Responses, Asked { wishes, ..asked() }, &stream, 999);
        seen::streamed(Dialect::Responses, &written);
        seen::events(&written).pop().unwrap().1["response"]["output"].clone()
    };
    let items = answer(true);
    let seal = |n: usize| Sealed::read(items[n]["encrypted_content"].as_str().unwrap());
    assert_eq!((seal(0), &items[0]["summary"][0]["text"]), (Some(Sealed::Thinking("c2ln")), &json!("hm")));
    assert_eq!((seal(1), &items[1]["summary"]), (Some(Sealed::Thinking("aGlkZGVu")), &json!([])));
    assert_eq!((seal(2), &items[2]["summary"]), (Some(Sealed::Redacted("ZGF0YQ==")), &json!([])));
    assert_eq!(items[3]["content"][0]["text"], "hi");
    assert!(!answer(false).to_string().contains("encrypted_content"), "nobody asked for it");
    assert_eq!(Sealed::read("gAAAAABo"), None, "what another maker sealed");
}

#[test]
fn free_text_and_namespaces_come_back_as_the_caller_knows_them() {
    let tools = vec![
        Renamed { sent_as: "apply_patch".into(), name: "apply_patch".into(), namespace: None, custom: true },
        Renamed { sent_as: "mcp__fs__read".into(), name: "read".into(), namespace: Some("mcp__fs".into()), custom: false },
    ];
    let asked = || Asked { wishes: Wishes { tools: tools.clone(), ..Wishes::default() }, ..asked() };
    let patch = json!({ "input": "*** Begin \"Patch\"\n+é\n" }).to_string();
    let parts = [Say::Call("apply_patch".into(), patch), Say::Call("mcp__fs__read".into(), "{\"p\":1}".into())];
    for upstream in [Dialect::Chat, Dialect::Messages] {
        let stream = written(upstream, Dialect::Responses, asked(), &stream_of(upstream, &parts, 3, false), 999);
        seen::streamed(Dialect::Responses, &stream);
        let streamed = seen::events(&stream).pop().unwrap().1["response"]["output"].clone();
        let body = body_of(upstream, &parts).to_string();
        let whole = Answer::plain(upstream, Dialect::Responses, body.as_bytes(), &asked()).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(whole["output"], streamed);
        let [custom, function] = [0, 1].map(|n| &streamed[n]);
        assert_eq!((&custom["type"], &custom["input"]), (&json!("custom_tool_call"), &json!("*** Begin \"Patch\"\n+é\n")));
        assert_eq!((&custom["call_id"], &custom["name"]), (&json!("call_0"), &json!("apply_patch")));
        let named = (&function["type"], &function["name"], &function["namespace"], &function["arguments"]);
        assert_eq!(named, (&json!("function_call"), &json!("read"), &json!("mcp__fs"), &json!("{\"p\":1}")));
    }
}

#[test]
fn what_is_no_answer_is_not_translated() {
    for body in ["", "{}", "null", "[]", "<html>", r#"{"error":{"message":"secret"}}"#, r#"{"choices":[]}"#, r#"{"content":"x"}"#]
    {
        for (upstream, caller) in PAIRS {
            assert_eq!(Answer::plain(upstream, caller, body.as_bytes(), &asked()), Err(Unreadable), "{body}");
        }
    }
    assert!(Answer::new(Dialect::Responses, Dialect::Chat, asked()).is_none(), "nobody needs it");
}

#[test]
fn only_the_answer_that_was_asked_for_is_translated() {
    let choices = json!([{ "index": 1, "delta": { "content": "other" } }, { "index": 0, "delta": { "content": "mine" } }]);
    let stream = sse(&json!({ "choices": choices })) + &chunk(&json!({}), Some("stop")) + "data: [DONE]\n\n";
    assert_eq!(streamed(Dialect::Chat, Dialect::Messages, &stream).parts, [json!(["text", "mine"])]);
}
