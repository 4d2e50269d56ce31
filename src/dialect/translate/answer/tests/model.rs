//! Upstreams that say what a test wants them to say, in pieces of any size and, where their dialect allows it, mixed.

use proptest::prelude::*;
use serde_json::{Value, json};

/// One part of what a model says.
#[derive(Clone, Debug, PartialEq)]
pub enum Say {
    Text(String),
    Thinking(String),
    /// A call: its name and the JSON text of its arguments.
    Call(String, String),
}

/// Parts of which no two texts or thoughts stand beside each other, since nobody can tell these from one.
pub fn anything() -> impl Strategy<Value = Vec<Say>> {
    let words = "[a-z \"\\\\\n{}é中🦀]{1,12}";
    let arguments = prop::collection::btree_map("[a-z\"]{1,3}", words, 0..3).prop_map(|map| json!(map).to_string());
    let part = prop_oneof![
        words.prop_map(Say::Text),
        words.prop_map(Say::Thinking),
        ("[a-z_]{1,8}", arguments).prop_map(|(name, arguments)| Say::Call(name, arguments)),
    ];
    prop::collection::vec(part, 0..6).prop_map(|mut parts| {
        parts
            .dedup_by(|one, other| std::mem::discriminant(one) == std::mem::discriminant(other) && !matches!(one, Say::Call(..)));
        parts
    })
}

fn pieces(text: &str, size: usize) -> Vec<String> {
    text.chars().collect::<Vec<_>>().chunks(size).map(|piece| piece.iter().collect()).collect()
}

pub fn sse(event: &Value) -> String {
    let name = event["type"].as_str().map_or(String::new(), |name| format!("event: {name}\n"));
    format!("{name}data: {event}\n\n")
}

pub fn chunk(delta: &Value, finish: Option<&str>) -> String {
    let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
    sse(
        &json!({ "id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice], "usage": null }),
    )
}

/// A chat stream. With `mixed`, the arguments of calls that follow each other come a piece of each in turn.
pub fn chat_stream(parts: &[Say], size: usize, mixed: bool, finish: &str, usage: &Value) -> String {
    let mut written = chunk(&json!({ "role": "assistant", "content": "", "refusal": null }), None);
    let mut waiting: Vec<Vec<String>> = Vec::new();
    let flush = |waiting: &mut Vec<Vec<String>>, written: &mut String| {
        for turn in 0..waiting.iter().map(Vec::len).max().unwrap_or(0) {
            let turn = waiting.iter().filter_map(|pieces| pieces.get(turn));
            turn.for_each(|piece| written.push_str(piece));
        }
        waiting.clear();
    };
    let mut calls = 0;
    for part in parts {
        let mut all = Vec::new();
        match part {
            Say::Text(text) => all.extend(pieces(text, size).iter().map(|piece| chunk(&json!({ "content": piece }), None))),
            Say::Thinking(text) => {
                all.extend(pieces(text, size).iter().map(|piece| chunk(&json!({ "reasoning_content": piece }), None)));
            }
            Say::Call(name, arguments) => {
                let head = json!({ "index": calls, "id": format!("call_{calls}"), "type": "function",
                    "function": { "name": name, "arguments": "" } });
                written.push_str(&chunk(&json!({ "tool_calls": [head] }), None));
                let piece = |piece: &String| json!([{ "index": calls, "function": { "arguments": piece } }]);
                all.extend(pieces(arguments, size).iter().map(|text| chunk(&json!({ "tool_calls": piece(text) }), None)));
                calls += 1;
            }
        }
        waiting.push(all);
        if !mixed || !matches!(part, Say::Call(..)) {
            flush(&mut waiting, &mut written);
        }
    }
    flush(&mut waiting, &mut written);
    written.push_str(&chunk(&json!({}), Some(finish)));
    written.push_str(&sse(&json!({ "id": "chatcmpl-up", "object": "chat.completion.chunk", "choices": [], "usage": usage })));
    written + "data: [DONE]\n\n"
}

pub fn messages_stream(parts: &[Say], size: usize, stop: &str, usage: &Value) -> String {
    let message = json!({ "id": "msg_up", "type": "message", "role": "assistant", "content": [], "model": "up",
        "stop_reason": null, "stop_sequence": null, "usage": usage });
    let mut written = sse(&json!({ "type": "message_start", "message": message })) + &sse(&json!({ "type": "ping" }));
    for (index, part) in parts.iter().enumerate() {
        let (block, kind, member, text) = match part {
            Say::Text(text) => (json!({ "type": "text", "text": "" }), "text_delta", "text", text),
            Say::Thinking(text) => {
                (json!({ "type": "thinking", "thinking": "", "signature": "" }), "thinking_delta", "thinking", text)
            }
            Say::Call(name, arguments) => {
                let block = json!({ "type": "tool_use", "id": format!("call_{}", calls_before(parts, index)), "name": name, "input": {} });
                (block, "input_json_delta", "partial_json", arguments)
            }
        };
        written.push_str(&sse(&json!({ "type": "content_block_start", "index": index, "content_block": block })));
        for piece in pieces(text, size) {
            let delta = json!({ "type": kind, member: piece });
            written.push_str(&sse(&json!({ "type": "content_block_delta", "index": index, "delta": delta })));
        }
        written.push_str(&sse(&json!({ "type": "content_block_stop", "index": index })));
    }
    let delta = json!({ "stop_reason": stop, "stop_sequence": null });
    written.push_str(&sse(&json!({ "type": "message_delta", "delta": delta, "usage": usage })));
    written + &sse(&json!({ "type": "message_stop" }))
}

fn calls_before(parts: &[Say], index: usize) -> usize {
    parts[..index].iter().filter(|part| matches!(part, Say::Call(..))).count()
}

/// What a caller is to see of it.
pub fn expected(parts: &[Say]) -> Vec<Value> {
    let seen = |(index, part): (usize, &Say)| match part {
        Say::Text(text) => json!(["text", text]),
        Say::Thinking(text) => json!(["thinking", text]),
        Say::Call(name, arguments) => json!(["tool", format!("call_{}", calls_before(parts, index)), name, arguments]),
    };
    parts.iter().enumerate().map(seen).collect()
}

pub fn chat_plain(parts: &[Say], finish: &str, usage: &Value) -> Value {
    let said = |kind: fn(&Say) -> Option<&String>| {
        let words: String = parts.iter().filter_map(kind).map(String::as_str).collect();
        Some(words).filter(|words| !words.is_empty())
    };
    let calls = expected(parts).into_iter().filter(|part| part[0] == "tool");
    let calls: Vec<Value> = calls
        .map(|part| json!({ "id": part[1], "type": "function", "function": { "name": part[2], "arguments": part[3] } }))
        .collect();
    let text = said(|part| if let Say::Text(text) = part { Some(text) } else { None });
    let thinking = said(|part| if let Say::Thinking(text) = part { Some(text) } else { None });
    let message =
        json!({ "role": "assistant", "content": text, "reasoning_content": thinking, "refusal": null, "tool_calls": calls });
    json!({ "id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": "up", "usage": usage,
        "choices": [{ "index": 0, "message": message, "finish_reason": finish }] })
}

pub fn messages_plain(parts: &[Say], stop: &str, usage: &Value) -> Value {
    let block = |part: &Value| match part[0].as_str().unwrap() {
        "text" => json!({ "type": "text", "text": part[1] }),
        "thinking" => json!({ "type": "thinking", "thinking": part[1], "signature": "" }),
        _ => {
            let input: Value = serde_json::from_str(part[3].as_str().unwrap()).unwrap();
            json!({ "type": "tool_use", "id": part[1], "name": part[2], "input": input })
        }
    };
    let content: Vec<Value> = expected(parts).iter().map(block).collect();
    json!({ "id": "msg_up", "type": "message", "role": "assistant", "model": "up", "content": content, "stop_reason": stop,
        "stop_sequence": null, "usage": usage })
}
