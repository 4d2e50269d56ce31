//! The echo as a response: one message, whole or in the events by which OpenAI streams it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{CREATED, Reply, event};

const MESSAGE_ID: &str = "msg_echo";

impl Reply {
    pub(super) fn response(&self, request: &Value) -> Bytes {
        self.response_as(self.final_status(), request).to_string().into()
    }

    pub(super) fn response_events(&self, request: &Value) -> Vec<Bytes> {
        let mut events = Vec::new();
        let mut say = |kind: &str, mut body: Value| {
            body["type"] = kind.into();
            body["sequence_number"] = events.len().into();
            events.push(event(Some(kind), &body));
        };
        let begun = self.response_as("in_progress", request);
        say("response.created", json!({ "response": begun }));
        say("response.in_progress", json!({ "response": begun }));
        say("response.output_item.added", json!({ "output_index": 0, "item": self.item("in_progress") }));
        let of_part = |mut body: Value| {
            body["item_id"] = MESSAGE_ID.into();
            body["output_index"] = 0.into();
            body["content_index"] = 0.into();
            body
        };
        say("response.content_part.added", of_part(json!({ "part": part("") })));
        for word in &self.words {
            say("response.output_text.delta", of_part(json!({ "delta": word, "logprobs": [] })));
        }
        say("response.output_text.done", of_part(json!({ "text": self.text(), "logprobs": [] })));
        say("response.content_part.done", of_part(json!({ "part": part(&self.text()) })));
        say("response.output_item.done", json!({ "output_index": 0, "item": self.item(self.final_status()) }));
        let last = self.final_status();
        say(&format!("response.{last}"), json!({ "response": self.response_as(last, request) }));
        events
    }

    fn final_status(&self) -> &'static str {
        if self.cut { "incomplete" } else { "completed" }
    }

    fn item(&self, status: &str) -> Value {
        let content = if status == "in_progress" { json!([]) } else { json!([part(&self.text())]) };
        json!({ "id": MESSAGE_ID, "type": "message", "status": status, "role": "assistant", "content": content })
    }

    fn response_as(&self, status: &str, request: &Value) -> Value {
        let begun = status == "in_progress";
        let (input, output) = (self.input_tokens, self.output_tokens());
        let usage = json!({
            "input_tokens": input,
            "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": output,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": input + output,
        });
        let asked = |name: &str, usual: Value| request.get(name).cloned().unwrap_or(usual);
        json!({
            "id": "resp_echo",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": if self.cut && !begun { json!({ "reason": "max_output_tokens" }) } else { Value::Null },
            "instructions": asked("instructions", Value::Null),
            "max_output_tokens": asked("max_output_tokens", Value::Null),
            "metadata": asked("metadata", json!({})),
            "model": self.model,
            "output": if begun { json!([]) } else { json!([self.item(status)]) },
            "parallel_tool_calls": asked("parallel_tool_calls", true.into()),
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "store": false,
            "temperature": asked("temperature", 1.0.into()),
            "text": asked("text", json!({ "format": { "type": "text" } })),
            "tool_choice": asked("tool_choice", "auto".into()),
            "tools": asked("tools", json!([])),
            "top_p": asked("top_p", 1.0.into()),
            "truncation": "disabled",
            "usage": if begun { Value::Null } else { usage },
        })
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "annotations": [], "logprobs": [], "text": text })
}
