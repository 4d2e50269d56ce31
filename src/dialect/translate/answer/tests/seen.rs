//! What a caller sees of a translated answer: a strict reader of each dialect, which complains of what a client could trip over.

use serde_json::{Value, json};

use super::super::super::super::{Dialect, Event, Splitter};

/// An answer as its caller has it in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// What was said, in order: `["text", …]`, `["thinking", …]`, `["refusal", …]`, `["tool", id, name, arguments]`.
    pub parts: Vec<Value>,
    pub stop: Value,
    pub usage: Value,
}

impl Seen {
    pub fn calls(&self) -> Vec<&Value> {
        self.parts.iter().filter(|part| part[0] == "tool").collect()
    }

    pub fn said(&self, kind: &str) -> String {
        self.parts.iter().filter(|part| part[0] == kind).map(|part| part[1].as_str().unwrap()).collect()
    }

    fn add(&mut self, kind: &str, piece: &str) {
        match self.parts.last_mut().filter(|last| last[0] == kind) {
            Some(last) => last[1] = format!("{}{piece}", last[1].as_str().unwrap()).into(),
            None => self.parts.push(json!([kind, piece])),
        }
    }
}

/// Cuts what was written for a caller into events, and finds them framed as they have to be.
pub fn events(written: &str) -> Vec<(String, Value)> {
    let mut splitter = Splitter::new();
    let events: Vec<Event> = splitter.push(written.to_owned().into()).map(Result::unwrap).collect();
    assert!(splitter.finish().is_none(), "every event is whole");
    let again: String = events.iter().map(|event| String::from_utf8(event.bytes.to_vec()).unwrap()).collect();
    assert_eq!(again, written, "framed as our own splitter frames");
    let read = |event: &Event| {
        let data = serde_json::from_slice(event.data()).unwrap_or_else(|_| String::from_utf8_lossy(event.data()).into());
        (String::from_utf8(event.name().to_vec()).unwrap(), data)
    };
    events.iter().map(read).collect()
}

/// Reads a whole stream.
pub fn streamed(caller: Dialect, written: &str) -> Seen {
    let events = events(written);
    match caller {
        Dialect::Chat => chat(&events),
        Dialect::Messages => messages(&events),
        Dialect::Responses => responses(&events),
    }
}

fn chat(events: &[(String, Value)]) -> Seen {
    let mut seen = Seen::default();
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(last.1, "[DONE]");
    let mut calls: Vec<Value> = Vec::new();
    for (number, (name, chunk)) in chunks.iter().enumerate() {
        assert!(name.is_empty() && chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0].1["id"], "{chunk}");
        assert!(seen.usage.is_null(), "usage comes last: {chunk}");
        seen.usage = chunk["usage"].clone();
        let Some(choice) = chunk["choices"].get(0) else {
            assert!(seen.usage.is_object() && !seen.stop.is_null(), "only usage comes without a choice: {chunk}");
            continue;
        };
        assert!(seen.stop.is_null(), "nothing comes after the reason: {chunk}");
        seen.stop = choice["finish_reason"].clone();
        let delta = &choice["delta"];
        assert_eq!(delta["role"] == "assistant", number == 0, "{chunk}");
        let piece = |name: &str| delta[name].as_str().filter(|piece| !piece.is_empty());
        for (name, kind) in [("content", "text"), ("reasoning_content", "thinking"), ("refusal", "refusal")] {
            piece(name).into_iter().for_each(|piece| seen.add(kind, piece));
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if index == calls.len() {
                assert!(!call["id"].as_str().unwrap().is_empty() && call["type"] == "function", "{call}");
                calls.push(json!(["tool", call["id"], call["function"]["name"], ""]));
                seen.parts.push(Value::Null);
            }
            let so_far = calls[index][3].as_str().unwrap().to_owned();
            calls[index][3] = (so_far + call["function"]["arguments"].as_str().unwrap()).into();
        }
    }
    assert!(!seen.stop.is_null(), "every answer ends for a reason");
    let mut calls = calls.into_iter();
    seen.parts.iter_mut().filter(|part| part.is_null()).for_each(|part| *part = calls.next().unwrap());
    seen
}

fn messages(events: &[(String, Value)]) -> Seen {
    let mut seen = Seen::default();
    let mut open = None;
    let mut blocks = 0;
    let [(first, start), between @ .., (_, delta), (last, _)] = events else { panic!("too short: {events:?}") };
    assert_eq!((first.as_str(), last.as_str()), ("message_start", "message_stop"));
    assert!(start["message"]["usage"]["input_tokens"].as_u64() > Some(0), "clients count their context with it: {start}");
    assert_eq!(start["message"]["content"], json!([]));
    for (name, event) in between {
        assert_eq!((name.as_str(), &event["index"]), (event["type"].as_str().unwrap(), &json!(blocks)), "{event}");
        match (name.as_str(), open.is_some()) {
            ("content_block_start", false) => {
                let block = &event["content_block"];
                match block["type"].as_str().unwrap() {
                    "tool_use" => {
                        assert_eq!(block["input"], json!({}));
                        seen.parts.push(json!(["tool", block["id"], block["name"], ""]));
                    }
                    kind => seen.parts.push(json!([kind, block[kind]])),
                }
                open = Some(block["type"].clone());
            }
            ("content_block_delta", true) => {
                let (at, name) = match event["delta"]["type"].as_str().unwrap() {
                    "text_delta" => (1, "text"),
                    "thinking_delta" => (1, "thinking"),
                    "input_json_delta" => (3, "partial_json"),
                    other => panic!("no chat upstream makes {other}"),
                };
                let part = &mut seen.parts.last_mut().unwrap()[at];
                let piece = event["delta"][name].as_str().unwrap();
                assert!(!piece.is_empty(), "{event}");
                *part = (part.as_str().unwrap().to_owned() + piece).into();
            }
            ("content_block_stop", true) => {
                assert!(!seen.parts.last().unwrap()[1].as_str().unwrap().is_empty(), "no block is empty");
                open = None;
                blocks += 1;
            }
            _ => panic!("out of order: {event}, after {open:?}"),
        }
    }
    assert_eq!((open, &delta["type"]), (None, &json!("message_delta")));
    (seen.stop, seen.usage) = (delta["delta"]["stop_reason"].clone(), delta["usage"].clone());
    seen
}

/// Every word stands in three places: in deltas, in the item, in the response. All have to agree.
fn responses(events: &[(String, Value)]) -> Seen {
    let mut deltas: Vec<String> = Vec::new();
    let mut items: Vec<Value> = Vec::new();
    for (number, (name, event)) in events.iter().enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)), "{event}");
        if let Some(index) = event["output_index"].as_u64() {
            let open = usize::try_from(index).unwrap() == items.len();
            assert!(open, "one item at a time: {event}");
        }
        match name.as_str() {
            "response.output_item.added" => {
                assert_eq!((deltas.len(), &event["item"]["status"]), (items.len(), &json!("in_progress")));
                deltas.push(String::new());
            }
            "response.output_item.done" => {
                assert_eq!(deltas.last().unwrap(), &item_text(&event["item"]), "{event}");
                items.push(event["item"].clone());
            }
            name if name.ends_with(".delta") => deltas.last_mut().unwrap().push_str(event["delta"].as_str().unwrap()),
            _ => {}
        }
    }
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["response.created", "response.in_progress"]);
    let last = &events.last().unwrap().1;
    assert_eq!(last["type"].as_str().unwrap().strip_prefix("response."), last["response"]["status"].as_str());
    assert_eq!(last["response"]["output"], json!(items));
    whole(Dialect::Responses, &last["response"].to_string())
}

fn item_text(item: &Value) -> String {
    let text = match item["type"].as_str().unwrap() {
        "message" if item["content"][0]["type"] == "refusal" => &item["content"][0]["refusal"],
        "message" => &item["content"][0]["text"],
        "reasoning" => &item["summary"][0]["text"],
        "function_call" => &item["arguments"],
        _ => &item["input"],
    };
    text.as_str().unwrap_or_default().to_owned()
}

/// Reads an answer that came as one object.
pub fn whole(caller: Dialect, written: &str) -> Seen {
    let answer: Value = serde_json::from_str(written).unwrap();
    let mut seen = Seen { usage: answer["usage"].clone(), ..Seen::default() };
    match caller {
        Dialect::Chat => {
            let (choice, message) = (&answer["choices"][0], &answer["choices"][0]["message"]);
            for (name, kind) in [("reasoning_content", "thinking"), ("content", "text"), ("refusal", "refusal")] {
                message[name].as_str().into_iter().for_each(|words| seen.add(kind, words));
            }
            let calls = message["tool_calls"].as_array().into_iter().flatten();
            seen.parts
                .extend(calls.map(|call| json!(["tool", call["id"], call["function"]["name"], call["function"]["arguments"]])));
            seen.stop = choice["finish_reason"].clone();
        }
        Dialect::Messages => {
            let part = |block: &Value| match block["type"].as_str().unwrap() {
                "tool_use" => json!(["tool", block["id"], block["name"], block["input"].to_string()]),
                kind => json!([kind, block[kind]]),
            };
            seen.parts = answer["content"].as_array().unwrap().iter().map(part).collect();
            seen.stop = answer["stop_reason"].clone();
        }
        Dialect::Responses => {
            let part = |item: &Value| match item["type"].as_str().unwrap() {
                "message" if item["content"][0]["type"] == "refusal" => json!(["refusal", item_text(item)]),
                "message" => json!(["text", item_text(item)]),
                "reasoning" => json!(["thinking", item_text(item)]),
                _ => json!(["tool", item["call_id"], item["name"], item_text(item)]),
            };
            seen.parts = answer["output"].as_array().unwrap().iter().map(part).collect();
            let incomplete = &answer["incomplete_details"]["reason"];
            seen.stop = if incomplete.is_null() { answer["status"].clone() } else { incomplete.clone() };
        }
    }
    seen
}
