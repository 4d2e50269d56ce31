//! Writes an answer as OpenAI's chat completions do: chunks up to `[DONE]`, or one object.

use serde_json::{Value, json};

use super::answer::Asked;
use super::delta::{Part, Reason, Step, Written};
use super::tally::Used;

/// An answer that is being streamed.
#[derive(Debug)]
pub(super) struct ToChat {
    /// What every chunk begins with, up to its choices.
    head: String,
    open: Option<Part>,
    calls: u64,
    /// The caller knows functions, and one call of them.
    functions: bool,
}

impl ToChat {
    pub fn new(asked: &Asked) -> ToChat {
        let head = json!({ "id": asked.id("chatcmpl", None), "object": "chat.completion.chunk",
            "created": asked.created.secs(), "model": asked.model });
        let head = head.to_string();
        ToChat { head: head.trim_end_matches('}').to_owned(), open: None, calls: 0, functions: asked.wishes.functions }
    }

    pub fn start(&mut self, out: &mut String) {
        self.delta(&json!({ "role": "assistant", "content": "" }), out);
    }

    pub fn step(&mut self, step: Step, out: &mut String) {
        match step {
            Step::Open(part) => self.open(part, out),
            Step::Piece(piece) => self.piece(&piece, out),
            Step::Signature(_) => {}
            Step::Close => self.calls += u64::from(matches!(self.open.take(), Some(Part::Tool { .. }))),
        }
    }

    pub fn end(&mut self, asked: &Asked, reason: &Reason, used: &Used, out: &mut String) {
        let choice = json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": finish_reason(reason, asked) }]);
        self.chunk(&choice, None, out);
        if asked.wants_usage {
            self.chunk(&json!([]), Some(usage(used)), out);
        }
        out.push_str("data: [DONE]\n\n");
    }

    /// Calls are counted among calls: what else the answer has does not move their index.
    fn open(&mut self, part: Part, out: &mut String) {
        if let Part::Tool { id, name } = &part {
            let function = json!({ "name": name, "arguments": "" });
            match self.functions {
                true => self.function(&function, out),
                false => self.call(json!({ "id": id, "type": "function", "function": function }), out),
            }
        }
        self.open = Some(part);
    }

    fn piece(&self, piece: &str, out: &mut String) {
        match &self.open {
            Some(Part::Text) => self.delta(&json!({ "content": piece }), out),
            Some(Part::Refusal) => self.delta(&json!({ "refusal": piece }), out),
            Some(Part::Thinking) => self.delta(&json!({ "reasoning_content": piece }), out),
            Some(Part::Tool { .. }) if self.functions => self.function(&json!({ "arguments": piece }), out),
            Some(Part::Tool { .. }) => self.call(json!({ "function": { "arguments": piece } }), out),
            Some(Part::Redacted(_)) | None => {}
        }
    }

    /// There is place for one call, and the upstream was told so: one that makes more all the same is heard once.
    fn function(&self, function: &Value, out: &mut String) {
        if self.calls == 0 {
            self.delta(&json!({ "function_call": function }), out);
        }
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
            let function = json!({ "name": name, "arguments": part.text });
            Some(json!({ "id": id, "type": "function", "function": function }))
        }
        _ => None,
    });
    let calls: Vec<Value> = calls.collect();
    let mut message = json!({ "role": "assistant", "content": said(&Part::Text), "refusal": said(&Part::Refusal) });
    if let Some(thinking) = said(&Part::Thinking) {
        message["reasoning_content"] = thinking.into();
    }
    match (calls.is_empty(), asked.wishes.functions) {
        (true, _) => {}
        (false, true) => message["function_call"] = calls[0]["function"].clone(),
        (false, false) => message["tool_calls"] = calls.into(),
    }
    let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(reason, asked) });
    let answer = json!({ "id": asked.id("chatcmpl", None), "object": "chat.completion", "created": asked.created.secs(),
        "model": asked.model, "choices": [choice], "usage": usage(used) });
    answer.to_string()
}

fn finish_reason(reason: &Reason, asked: &Asked) -> &'static str {
    match reason {
        Reason::End | Reason::StopSequence(_) | Reason::Paused => "stop",
        Reason::Length | Reason::ContextFull => "length",
        Reason::Tools if asked.wishes.functions => "function_call",
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
