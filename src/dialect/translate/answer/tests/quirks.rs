//! The manners of upstreams and the needs of clients that translators are known to trip over, one by one.

use super::model::{chunk, sse};
use super::*;

const DONE: &str = "data: [DONE]\n\n";

fn tool_delta(index: Option<u64>, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    let mut call = json!({ "function": { "arguments": arguments } });
    for (member, value) in [("index", json!(index)), ("id", json!(id)), ("type", json!(id.map(|_| "function")))] {
        if !value.is_null() {
            call[member] = value;
        }
    }
    if let Some(name) = name {
        call["function"]["name"] = name.into();
    }
    json!({ "tool_calls": [call] })
}

/// A chat stream of these deltas, seen by callers of messages and of responses.
fn from_chat(deltas: &[Value], finish: &str) -> [Seen; 2] {
    let chunks: String = deltas.iter().map(|delta| chunk(delta, None)).collect();
    let stream = chunks + &chunk(&json!({}), Some(finish)) + DONE;
    [Dialect::Messages, Dialect::Responses].map(|caller| streamed(Dialect::Chat, caller, &stream))
}

/// A messages stream of these events, seen by callers of chat and of responses.
fn from_messages(events: &[Value]) -> [Seen; 2] {
    let stream: String = events.iter().map(sse).collect();
    [Dialect::Chat, Dialect::Responses].map(|caller| streamed(Dialect::Messages, caller, &stream))
}

fn start(usage: &Value) -> Value {
    json!({ "type": "message_start", "message": { "id": "msg_up", "role": "assistant", "content": [], "usage": usage } })
}

fn block(index: u64, block: &Value, deltas: &[Value]) -> Vec<Value> {
    let mut events = vec![json!({ "type": "content_block_start", "index": index, "content_block": block })];
    let delta = |delta: &Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    events.extend(deltas.iter().map(delta));
    events.push(json!({ "type": "content_block_stop", "index": index }));
    events
}

fn stop(reason: &str, sequence: Option<&str>, usage: &Value) -> [Value; 2] {
    let delta = json!({ "stop_reason": reason, "stop_sequence": sequence });
    [json!({ "type": "message_delta", "delta": delta, "usage": usage }), json!({ "type": "message_stop" })]
}

fn text_delta(text: &str) -> Value {
    json!({ "type": "text_delta", "text": text })
}

#[test]
fn arguments_of_parallel_calls_may_be_mixed() {
    let deltas = [
        tool_delta(Some(0), Some("a"), Some("f"), ""),
        tool_delta(Some(1), Some("b"), Some("g"), ""),
        tool_delta(Some(1), None, None, "{\"x\":"),
        tool_delta(Some(0), None, None, "{\"y\":{}"),
        json!({ "content": "meanwhile" }),
        tool_delta(Some(1), None, None, "1}"),
        tool_delta(Some(0), None, None, "}"),
    ];
    for seen in from_chat(&deltas, "tool_calls") {
        let expected = json!([["tool", "a", "f", "{\"y\":{}}"], ["tool", "b", "g", "{\"x\":1}"], ["text", "meanwhile"]]);
        assert_eq!(json!(seen.parts), expected);
    }
}

#[test]
fn calls_are_told_apart_without_an_index_and_by_a_wrong_one() {
    let two = json!([["tool", "a", "f", "{\"x\":1}"], ["tool", "b", "g", "{\"y\":2}"]]);
    let in_pieces = |index| {
        [
            tool_delta(index, Some("a"), Some("f"), "{\"x\":"),
            tool_delta(index, None, None, "1}"),
            tool_delta(index, Some("b"), Some("g"), "{\"y\""),
            tool_delta(index, None, None, ":2}"),
        ]
    };
    let at_once = json!({ "tool_calls": [
        { "id": "a", "function": { "name": "f", "arguments": "{\"x\":1}" } },
        { "id": "b", "function": { "name": "g", "arguments": { "y": 2 } } },
    ] });
    for deltas in [&in_pieces(None)[..], &in_pieces(Some(0)), &[at_once]] {
        from_chat(deltas, "tool_calls").iter().for_each(|seen| assert_eq!(json!(seen.parts), two, "{deltas:?}"));
    }
}

#[test]
fn the_same_tool_called_again_under_the_same_index_is_another_call() {
    let call = |id, arguments| tool_delta(Some(0), Some(id), Some("f"), arguments);
    let deltas = [call("a", "{\"x\":1}"), call("b", "{\"x\":2}"), json!({ "content": "and" }), call("c", "{\"x\":3}")];
    for seen in from_chat(&deltas, "tool_calls") {
        let calls = json!([["a", "{\"x\":1}"], ["b", "{\"x\":2}"], ["c", "{\"x\":3}"]]);
        assert_eq!(json!(seen.calls().iter().map(|call| [&call[1], &call[3]]).collect::<Vec<_>>()), calls);
    }
}

#[test]
fn what_is_said_again_with_every_piece_counts_once() {
    let deltas = [
        tool_delta(Some(0), Some("a"), Some("f"), ""),
        tool_delta(Some(0), Some("a"), Some("f"), "{\"x\":"),
        tool_delta(Some(0), Some("a"), Some("f"), "1}"),
    ];
    for seen in from_chat(&deltas, "tool_calls") {
        assert_eq!(json!(seen.parts), json!([["tool", "a", "f", "{\"x\":1}"]]));
    }
    let ids = ["a", "b", "c", "d", "e"].into_iter().zip(["", "{\"x\":", "1", "}", "\n"]);
    let deltas: Vec<Value> = ids.map(|(id, piece)| tool_delta(Some(0), Some(id), Some("f"), piece)).collect();
    for seen in from_chat(&deltas, "stop") {
        assert_eq!(json!([seen.calls()[0][2], seen.calls()[0][3].as_str().unwrap().trim_end()]), json!(["f", "{\"x\":1}"]));
        assert_eq!(seen.parts.len(), 1, "an id made up for every piece");
    }
    let late = [tool_delta(Some(0), Some("a"), None, "{\"x\""), tool_delta(Some(0), None, Some("f"), ":1}")];
    for seen in from_chat(&late, "tool_calls") {
        assert_eq!(json!(seen.parts), json!([["tool", "a", "f", "{\"x\":1}"]]), "a name may come late");
    }
}

#[test]
fn calls_without_an_id_or_with_one_for_all_get_ids_of_their_own() {
    for id in [None, Some(""), Some("same")] {
        let deltas = [0, 1, 2].map(|index| tool_delta(Some(index), id, Some("f"), "{}"));
        for seen in from_chat(&deltas, "tool_calls") {
            let mut ids: Vec<&str> = seen.calls().iter().map(|call| call[1].as_str().unwrap()).collect();
            ids.dedup();
            assert!(ids.len() == 3 && ids.iter().all(|id| !id.is_empty()), "{ids:?} for {id:?}");
        }
    }
}

#[test]
fn a_call_without_arguments_has_the_empty_object() {
    for deltas in [vec![], vec![tool_delta(Some(0), None, None, "")], vec![tool_delta(Some(0), None, None, " \n")]] {
        let deltas: Vec<Value> = std::iter::once(tool_delta(Some(0), Some("a"), Some("f"), "")).chain(deltas).collect();
        for seen in from_chat(&deltas, "tool_calls") {
            assert_eq!(json!(seen.parts), json!([["tool", "a", "f", "{}"]]));
        }
    }
    let tool = json!({ "type": "tool_use", "id": "a", "name": "f", "input": {} });
    let empty = json!({ "type": "input_json_delta", "partial_json": "" });
    for deltas in [vec![], vec![empty]] {
        let events = [vec![start(&json!({}))], block(0, &tool, &deltas), stop("tool_use", None, &json!({})).to_vec()].concat();
        for seen in from_messages(&events) {
            assert_eq!(json!(seen.parts), json!([["tool", "a", "f", "{}"]]));
        }
    }
}

#[test]
fn arguments_in_the_start_of_a_block_count_once() {
    let tool = json!({ "type": "tool_use", "id": "a", "name": "f", "input": { "x": 1 } });
    let piece = json!({ "type": "input_json_delta", "partial_json": "{\"x\":1}" });
    for deltas in [vec![], vec![piece]] {
        let events = [vec![start(&json!({}))], block(0, &tool, &deltas), stop("tool_use", None, &json!({})).to_vec()].concat();
        for seen in from_messages(&events) {
            assert_eq!(json!(seen.parts), json!([["tool", "a", "f", "{\"x\":1}"]]));
        }
    }
}

#[test]
fn arguments_of_a_plain_call_stay_as_the_model_wrote_them() {
    let arguments = r#"{"z":12345678901234567890123,"a":1.10,"s":" {\" }","n":[ ]}"#;
    let body = r#"{"content":[{"type":"text","text":"t"},{"type":"tool_use","id":"a","name":"f","input":
        { "z": 12345678901234567890123, "a": 1.10, "s": " {\" }", "n": [ ] } }],"stop_reason":"tool_use"}"#;
    for caller in [Dialect::Chat, Dialect::Responses] {
        let written = Answer::plain(Dialect::Messages, caller, body.as_bytes(), &asked()).unwrap();
        let seen = seen::whole(caller, std::str::from_utf8(&written).unwrap());
        assert_eq!(*seen.calls()[0], json!(["tool", "a", "f", arguments.replace("[ ]", "[]")]));
    }
    let call = json!({ "id": "a", "type": "function", "function": { "name": "f", "arguments": arguments } });
    let body = json!({ "choices": [{ "message": { "content": null, "tool_calls": [call] }, "finish_reason": "stop" }] });
    let written = Answer::plain(Dialect::Chat, Dialect::Messages, body.to_string().as_bytes(), &asked()).unwrap();
    assert!(std::str::from_utf8(&written).unwrap().contains(arguments));
}

#[test]
fn arguments_that_are_no_object_are_kept() {
    for (arguments, input) in [("", json!({})), ("{\"x\":", json!({ "_raw": "{\"x\":" })), ("[1]", json!({ "_raw": "[1]" }))] {
        let call = json!({ "id": "a", "function": { "name": "f", "arguments": arguments } });
        let body = json!({ "choices": [{ "message": { "tool_calls": [call] }, "finish_reason": "length" }] });
        let written = Answer::plain(Dialect::Chat, Dialect::Messages, body.to_string().as_bytes(), &asked()).unwrap();
        let answer: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!((&answer["content"][0]["input"], &answer["stop_reason"]), (&input, &json!("max_tokens")));
    }
}

#[test]
fn text_without_a_word_is_no_part() {
    for seen in
        from_chat(&[json!({ "role": "assistant", "content": "" }), tool_delta(Some(0), Some("a"), Some("f"), "{}")], "stop")
    {
        assert_eq!(json!(seen.parts), json!([["tool", "a", "f", "{}"]]));
    }
    for seen in from_chat(&[json!({ "content": null, "reasoning_content": "", "refusal": null })], "stop") {
        assert_eq!(json!(seen.parts), json!([]));
    }
    let text = json!({ "type": "text", "text": "" });
    let tool = json!({ "type": "tool_use", "id": "a", "name": "f", "input": {} });
    let events =
        [vec![start(&json!({}))], block(0, &text, &[]), block(1, &tool, &[]), stop("tool_use", None, &json!({})).to_vec()];
    for seen in from_messages(&events.concat()) {
        assert_eq!(json!(seen.parts), json!([["tool", "a", "f", "{}"]]));
    }
}

#[test]
fn text_in_two_blocks_is_one_text_and_nothing_stands_between() {
    let text = json!({ "type": "text", "text": "a" });
    let events = [vec![start(&json!({}))], block(0, &text, &[text_delta("b")]), block(1, &text, &[text_delta("c")])];
    let events = [events.concat(), stop("end_turn", None, &json!({})).to_vec()].concat();
    for seen in from_messages(&events) {
        assert_eq!(json!(seen.parts), json!([["text", "abac"]]));
    }
}

#[test]
fn a_block_whose_start_or_index_was_left_out_still_says_what_it_says() {
    let events = [
        start(&json!({})),
        json!({ "type": "content_block_delta", "delta": { "type": "thinking_delta", "thinking": "hm" } }),
        json!({ "type": "content_block_delta", "delta": { "type": "text_delta", "text": "well" } }),
        json!({ "type": "unheard_of", "index": 3 }),
        json!({ "type": "content_block_start", "index": 9, "content_block": { "type": "server_tool_use", "id": "x", "name": "y" } }),
        json!({ "type": "content_block_delta", "index": 9, "delta": { "type": "input_json_delta", "partial_json": "{}" } }),
        json!({ "type": "content_block_stop", "index": 9 }),
    ];
    for seen in from_messages(&[events.to_vec(), stop("end_turn", None, &json!({})).to_vec()].concat()) {
        assert_eq!(json!(seen.parts), json!([["thinking", "hm"], ["text", "well"]]));
    }
}

#[test]
fn thinking_under_any_name_is_thinking_and_counts_once() {
    let both = json!({ "reasoning_content": "hm", "reasoning": "hm" });
    let list = json!({ "content": [{ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] }, { "type": "text", "text": "" }] });
    for delta in [json!({ "reasoning": "hm" }), both, list] {
        for seen in from_chat(&[delta, json!({ "content": "well" })], "stop") {
            assert_eq!(json!(seen.parts), json!([["thinking", "hm"], ["text", "well"]]));
        }
    }
}

#[test]
fn callers_of_messages_that_did_not_ask_see_no_thinking() {
    let unasked = || Asked { wishes: Wishes::default(), ..asked() };
    let stream = stream_of(Dialect::Chat, &sample(), 4, false);
    let seen = seen::streamed(Dialect::Messages, &written(Dialect::Chat, Dialect::Messages, unasked(), &stream, 999));
    assert_eq!(seen.parts, expected(&sample())[1..], "the first block is the text");
    let body = body_of(Dialect::Chat, &sample()).to_string();
    let whole = Answer::plain(Dialect::Chat, Dialect::Messages, body.as_bytes(), &unasked()).unwrap();
    assert_eq!(seen::whole(Dialect::Messages, std::str::from_utf8(&whole).unwrap()).said("thinking"), "");
}
