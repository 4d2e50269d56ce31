//! Writes an answer as Anthropic's messages do: blocks one at a time up to `message_stop`, or one object.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::Asked;
use super::delta::{Part, Reason, Step, Written};
use super::tally::Used;

/// An answer that is being streamed.
#[derive(Debug, Default)]
pub(super) struct ToMessages {
    /// Which block is open, or comes next.
    index: usize,
    open: Option<Part>,
}

/// The start says how much was read as far as that is known, and never nothing: clients count their context with it.
pub(super) fn start(asked: &Asked, used: &Used, out: &mut String) {
    let mut used = *used;
    used.usage.output = used.usage.output.min(1);
    used.usage.input += u64::from(used.input() == 0);
    let message = message(asked, "", None, &used);
    event("message_start", &format!("{{\"type\":\"message_start\",\"message\":{message}}}"), out);
}

pub(super) fn end(reason: &Reason, used: &Used, out: &mut String) {
    let (reason, sequence) = stopped(reason);
    let delta = json!({ "stop_reason": reason, "stop_sequence": sequence });
    let delta = json!({ "type": "message_delta", "delta": delta, "usage": usage(used) });
    event("message_delta", &delta.to_string(), out);
    event("message_stop", r#"{"type":"message_stop"}"#, out);
}

impl ToMessages {
    pub fn step(&mut self, step: Step, asked: &Asked, out: &mut String) {
        match step {
            Step::Open(part) if is_shown(&part, asked) => {
                let block = block(&Written::new(part.clone()));
                self.event("content_block_start", "content_block", &block, out);
                self.open = Some(part);
            }
            Step::Piece(piece) => {
                let delta = match self.open {
                    Some(Part::Text | Part::Refusal) => json!({ "type": "text_delta", "text": piece }),
                    Some(Part::Thinking) => json!({ "type": "thinking_delta", "thinking": piece }),
                    Some(Part::Tool { .. }) => json!({ "type": "input_json_delta", "partial_json": piece }),
                    Some(Part::Redacted(_)) | None => return,
                };
                self.event("content_block_delta", "delta", &delta.to_string(), out);
            }
            Step::Signature(signature) if self.open.is_some() => {
                let delta = json!({ "type": "signature_delta", "signature": signature });
                self.event("content_block_delta", "delta", &delta.to_string(), out);
            }
            Step::Close if self.open.take().is_some() => {
                let stop = json!({ "type": "content_block_stop", "index": self.index });
                event("content_block_stop", &stop.to_string(), out);
                self.index += 1;
            }
            Step::Open(_) | Step::Signature(_) | Step::Close => {}
        }
    }

    fn event(&self, name: &str, member: &str, what: &str, out: &mut String) {
        let index = self.index;
        event(name, &format!("{{\"type\":\"{name}\",\"index\":{index},\"{member}\":{what}}}"), out);
    }
}

/// The answer as one object.
pub(super) fn whole(asked: &Asked, parts: &[Written], reason: &Reason, used: &Used) -> String {
    let blocks: Vec<String> = parts.iter().filter(|part| is_shown(&part.part, asked)).map(block).collect();
    message(asked, &blocks.join(","), Some(reason), used)
}

fn is_shown(part: &Part, asked: &Asked) -> bool {
    asked.wishes.thinking || !matches!(part, Part::Thinking | Part::Redacted(_))
}

/// `blocks` are JSON text with commas between them, so that what the model wrote for its tools stays as it wrote it.
fn message(asked: &Asked, blocks: &str, reason: Option<&Reason>, used: &Used) -> String {
    let (reason, sequence) = reason.map_or((None, None), |reason| {
        let (reason, sequence) = stopped(reason);
        (Some(reason), sequence)
    });
    let rest = json!({ "id": asked.id("msg", None), "type": "message", "role": "assistant", "model": asked.model,
        "stop_reason": reason, "stop_sequence": sequence, "usage": usage(used) });
    format!("{{\"content\":[{blocks}],{}", &rest.to_string()[1..])
}

fn block(part: &Written) -> String {
    let block = match &part.part {
        Part::Text | Part::Refusal => json!({ "type": "text", "text": part.text }),
        Part::Thinking => {
            let signature = part.signature.as_deref().unwrap_or_default();
            json!({ "type": "thinking", "thinking": part.text, "signature": signature })
        }
        Part::Redacted(data) => json!({ "type": "redacted_thinking", "data": data }),
        Part::Tool { id, name } => {
            let rest = json!({ "type": "tool_use", "id": id, "name": name }).to_string();
            return format!("{{\"input\":{},{}", input(&part.text), &rest[1..]);
        }
    };
    block.to_string()
}

/// The arguments of a call, which are an object here. What the model wrote without being one is kept in it.
fn input(arguments: &str) -> String {
    match serde_json::from_str::<&RawValue>(arguments) {
        Ok(object) if object.get().starts_with('{') => object.get().to_owned(),
        _ if arguments.is_empty() => "{}".to_owned(),
        _ => json!({ "_raw": arguments }).to_string(),
    }
}

/// One event; `data` is JSON text.
pub(super) fn event(name: &str, data: &str, out: &mut String) {
    for piece in ["event: ", name, "\ndata: ", data, "\n\n"] {
        out.push_str(piece);
    }
}

fn stopped(reason: &Reason) -> (&'static str, Option<&str>) {
    match reason {
        Reason::End => ("end_turn", None),
        Reason::StopSequence(sequence) => ("stop_sequence", Some(sequence)),
        Reason::Length => ("max_tokens", None),
        Reason::ContextFull => ("model_context_window_exceeded", None),
        Reason::Tools => ("tool_use", None),
        Reason::Filtered => ("refusal", None),
        Reason::Paused => ("pause_turn", None),
    }
}

/// Input tokens are those that came from no cache and went to none.
fn usage(used: &Used) -> Value {
    let mut usage = json!({
        "input_tokens": used.usage.input,
        "cache_creation_input_tokens": used.cache_write(),
        "cache_read_input_tokens": used.usage.cache_read,
        "output_tokens": used.usage.output,
    });
    if let Some(thinking) = used.thinking {
        usage["output_tokens_details"] = json!({ "thinking_tokens": thinking });
    }
    usage
}
