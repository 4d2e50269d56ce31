//! Writes an answer as OpenAI's chat completions do: chunks up to `[DONE]`, or one object.

use serde_json::{Value, json};

use super::answer::Asked;
use super::delta::{Part, Reason, Step, Written};
use super::tally::Used;
use super::wishes::{Renamed, free_text};

/// An answer that is being streamed.
#[derive(Debug)]
pub(super) struct ToChat {
    /// What every chunk begins with, up to its choices.
    head: String,
    open: Option<Written>,
    calls: usize,
}

impl ToChat {
    pub fn new(asked: &Asked) -> ToChat {
        let head = json!({ "id": asked.id("chatcmpl", None), "object": "chat.completion.chunk",
            "created": asked.created.secs(), "model": asked.model });
        let head = head.to_string();
        ToChat { head: head.trim_end_matches('}').to_owned(), open: None, calls: 0 }
    }

    pub fn start(&mut self, out: &mut String) {
        self.delta(&json!({ "role": "assistant", "content": "" }), out);
    }

    pub fn step(&mut self, step: Step, asked: &Asked, out: &mut String) {
        match step {
            Step::Open(part) => self.open(part, asked, out),
            Step::Piece(piece) => self.piece(piece, asked, out),
            Step::Signature(_) => {}
            Step::Close => self.close(asked, out),
        }
    }

    pub fn end(&mut self, asked: &Asked, reason: &Reason, used: &Used, out: &mut String) {
        let choice = json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": finish_reason(reason) }]);
        self.chunk(&choice, None, out);
        if asked.wants_usage {
            self.chunk(&json!([]), Some(usage(used)), out);
        }
        out.push_str("data: [DONE]\n\n");
    }

    /// Calls are counted among calls: what else the answer has does not move their index.
    fn open(&mut self, part: Part, asked: &Asked, out: &mut String) {
        if let Part::Tool { id, name } = &part {
            let (kind, called) = called(asked.wishes.tool(name), name, "");
            self.call(json!({ "id": id, "type": kind, kind: called }), out);
        }
        self.open = Some(Written::new(part));
    }

    fn piece(&mut self, piece: String, asked: &Asked, out: &mut String) {
        let Some(open) = &mut self.open else { return };
        match &open.part {
            Part::Text => self.delta(&json!({ "content": piece }), out),
            Part::Refusal => self.delta(&json!({ "refusal": piece }), out),
            Part::Thinking => self.delta(&json!({ "reasoning_content": piece }), out),
            Part::Redacted(_) => {}
            Part::Tool { name, .. } if is_custom(asked, name) => open.text.push_str(&piece),
            Part::Tool { .. } => self.call(json!({ "function": { "arguments": piece } }), out),
        }
    }

    fn close(&mut self, asked: &Asked, out: &mut String) {
        let Some(Written { part: Part::Tool { name, .. }, text, .. }) = self.open.take() else { return };
        if is_custom(asked, &name) {
            self.call(json!({ "custom": { "input": free_text(&text) } }), out);
        }
        self.calls += 1;
    }

    fn call(&self, mut call: Value, out: &mut String) {
        call["index"] = self.calls.into();
        self.delta(&json!({ "tool_calls": [call] }), out);
    }

    fn delta(&self, delta: &Value, out: &mut String) {
        self.chunk(&json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }]), None, out);
    }

    fn chunk(&self, choices: &Value, usage: Option<Value>, out: &mut String) {
        out.push_str("data: ");
        out.push_str(&self.head);
        out.push_str(",\"choices\":");
        out.push_str(&choices.to_string());
        if let Some(usage) = usage {
            out.push_str(",\"usage\":");
            out.push_str(&usage.to_string());
        }
        out.push_str("}\n\n");
    }
}

/// The answer as one object.
pub(super) fn whole(asked: &Asked, parts: &[Written], reason: &Reason, used: &Used) -> String {
    let said = |kind: &Part| {
        let words: String = parts.iter().filter(|part| part.part == *kind).map(|part| part.text.as_str()).collect();
        Some(words).filter(|words| !words.is_empty())
    };
    let calls = parts.iter().filter_map(|part| match &part.part {
        Part::Tool { id, name } => {
            let (kind, called) = called(asked.wishes.tool(name), name, &part.text);
            Some(json!({ "id": id, "type": kind, kind: called }))
        }
        _ => None,
    });
    let calls: Vec<Value> = calls.collect();
    let mut message = json!({ "role": "assistant", "content": said(&Part::Text), "refusal": said(&Part::Refusal) });
    if let Some(thinking) = said(&Part::Thinking) {
        message["reasoning_content"] = thinking.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(reason) });
    let answer = json!({ "id": asked.id("chatcmpl", None), "object": "chat.completion", "created": asked.created.secs(),
        "model": asked.model, "choices": [choice], "usage": usage(used) });
    answer.to_string()
}

fn is_custom(asked: &Asked, name: &str) -> bool {
    asked.wishes.tool(name).is_some_and(|tool| tool.custom)
}

/// The kind of a call, and the call in the words of that kind.
fn called(tool: Option<&Renamed>, name: &str, arguments: &str) -> (&'static str, Value) {
    let name = tool.map_or(name, |tool| &tool.name);
    match tool.filter(|tool| tool.custom) {
        Some(_) => ("custom", json!({ "name": name, "input": free_text(arguments) })),
        None => ("function", json!({ "name": name, "arguments": arguments })),
    }
}

const fn finish_reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::End | Reason::StopSequence(_) | Reason::Paused => "stop",
        Reason::Length | Reason::ContextFull => "length",
        Reason::Tools => "tool_calls",
        Reason::Filtered => "content_filter",
    }
}

/// Prompt tokens are all that was read, those of the cache included.
fn usage(used: &Used) -> Value {
    json!({
        "prompt_tokens": used.input(),
        "completion_tokens": used.usage.output,
        "total_tokens": used.total(),
        "prompt_tokens_details": { "cached_tokens": used.usage.cache_read, "cache_write_tokens": used.cache_write() },
        "completion_tokens_details": { "reasoning_tokens": used.thinking.unwrap_or(0) },
    })
}
