//! Writes an answer as OpenAI's responses do: items with all their events up to `response.completed`, or one object.

use serde_json::{Value, json};

use super::answer::Asked;
use super::delta::{Part, Reason, Step, Written};
use super::sealed::Sealed;
use super::tally::Used;
use super::to_messages::event;
use super::wishes::free_text;

/// An answer that is being streamed.
#[derive(Debug, Default)]
pub(super) struct ToResponses {
    /// Events so far, which are counted.
    events: u64,
    /// Items that are done; the last event says all of them again.
    items: Vec<Value>,
    open: Option<Item>,
}

/// One item of the output.
#[derive(Debug)]
struct Item {
    written: Written,
    kind: Kind,
    id: String,
}

/// What an item is called, and the events that make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
    Function,
    Custom,
}

impl ToResponses {
    pub fn start(&mut self, asked: &Asked, out: &mut String) {
        let response = response(asked, "in_progress", &[], None);
        self.event("response.created", json!({ "response": response }), out);
        self.event("response.in_progress", json!({ "response": response }), out);
    }

    pub fn step(&mut self, step: Step, asked: &Asked, out: &mut String) {
        match step {
            Step::Open(part) => self.open(part, asked, out),
            Step::Piece(piece) => self.piece(&piece, out),
            Step::Signature(_) => {
                if let Some(item) = &mut self.open {
                    item.written.take(&step);
                }
            }
            Step::Close => self.close(asked, out),
        }
    }

    pub fn end(&mut self, asked: &Asked, reason: &Reason, used: &Used, out: &mut String) {
        let response = ended(asked, &self.items, reason, used);
        let name = if response["status"] == "completed" { "response.completed" } else { "response.incomplete" };
        self.event(name, json!({ "response": response }), out);
    }

    /// Announces an item, and the part of it that its pieces belong to.
    fn open(&mut self, part: Part, asked: &Asked, out: &mut String) {
        let item = Item::new(part, self.items.len(), asked);
        let mut empty = item.value("in_progress", asked);
        if item.kind == Kind::Text || item.kind == Kind::Refusal {
            empty["content"] = json!([]);
        }
        let index = self.items.len();
        self.event("response.output_item.added", json!({ "output_index": index, "item": empty }), out);
        // Thinking may turn out to be sealed, without a word.
        if item.kind != Kind::Reasoning {
            self.begin(&item, out);
        }
        self.open = Some(item);
    }

    /// Announces what the text of an item stands in.
    fn begin(&mut self, item: &Item, out: &mut String) {
        if let Some((name, part)) = item.kind.part("") {
            self.event(&format!("response.{name}.added"), item.place(self.items.len(), json!({ "part": part })), out);
        }
    }

    fn piece(&mut self, piece: &str, out: &mut String) {
        let Some(mut item) = self.open.take() else { return };
        if item.kind == Kind::Reasoning && item.written.text.is_empty() {
            self.begin(&item, out);
        }
        item.written.text.push_str(piece);
        // Free text stands inside of arguments: it is known when they are whole.
        if item.kind != Kind::Custom {
            let delta = item.place(self.items.len(), json!({ "delta": piece }));
            self.event(&format!("response.{}.delta", item_event(item.kind)), delta, out);
        }
        self.open = Some(item);
    }

    fn close(&mut self, asked: &Asked, out: &mut String) {
        let Some(item) = self.open.take() else { return };
        let whole = item.value("completed", asked);
        if item.kind != Kind::Reasoning || !item.written.text.is_empty() {
            self.say_again(&item, &whole, out);
        }
        self.event("response.output_item.done", json!({ "output_index": self.items.len(), "item": whole }), out);
        self.items.push(whole);
    }

    /// Says the text of an item as a whole.
    fn say_again(&mut self, item: &Item, whole: &Value, out: &mut String) {
        let (index, text) = (self.items.len(), &item.written.text);
        let name = item_event(item.kind);
        if item.kind == Kind::Custom {
            self.event(&format!("response.{name}.delta"), item.place(index, json!({ "delta": whole["input"] })), out);
        }
        let done = match item.kind {
            Kind::Text | Kind::Reasoning => json!({ "text": text }),
            Kind::Refusal => json!({ "refusal": text }),
            Kind::Function => json!({ "arguments": text, "name": whole["name"] }),
            Kind::Custom => json!({ "input": whole["input"] }),
        };
        self.event(&format!("response.{name}.done"), item.place(index, done), out);
        if let Some((name, part)) = item.kind.part(text) {
            self.event(&format!("response.{name}.done"), item.place(index, json!({ "part": part })), out);
        }
    }

    fn event(&mut self, name: &str, mut data: Value, out: &mut String) {
        data["type"] = name.into();
        data["sequence_number"] = self.events.into();
        self.events += 1;
        event(name, &data.to_string(), out);
    }
}

impl Kind {
    /// What the text of an item stands in, and the name of the events about that.
    fn part(self, text: &str) -> Option<(&'static str, Value)> {
        match self {
            Kind::Text => {
                Some(("content_part", json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })))
            }
            Kind::Refusal => Some(("content_part", json!({ "type": "refusal", "refusal": text }))),
            Kind::Reasoning => Some(("reasoning_summary_part", json!({ "type": "summary_text", "text": text }))),
            Kind::Function | Kind::Custom => None,
        }
    }
}

/// The name of the events about the text of an item.
const fn item_event(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "output_text",
        Kind::Refusal => "refusal",
        Kind::Reasoning => "reasoning_summary_text",
        Kind::Function => "function_call_arguments",
        Kind::Custom => "custom_tool_call_input",
    }
}

impl Item {
    fn new(part: Part, n: usize, asked: &Asked) -> Item {
        let (kind, prefix) = match &part {
            Part::Text => (Kind::Text, "msg"),
            Part::Refusal => (Kind::Refusal, "msg"),
            Part::Thinking | Part::Redacted(_) => (Kind::Reasoning, "rs"),
            Part::Tool { name, .. } if asked.wishes.tool(name).is_some_and(|tool| tool.custom) => (Kind::Custom, "ctc"),
            Part::Tool { .. } => (Kind::Function, "fc"),
        };
        Item { written: Written::new(part), kind, id: asked.id(prefix, Some(n)) }
    }

    /// An event about the text of this item.
    fn place(&self, index: usize, mut data: Value) -> Value {
        data["item_id"] = self.id.as_str().into();
        data["output_index"] = index.into();
        match self.kind {
            Kind::Text | Kind::Refusal => data["content_index"] = 0.into(),
            Kind::Reasoning => data["summary_index"] = 0.into(),
            Kind::Function | Kind::Custom => {}
        }
        if self.kind == Kind::Text && data.get("part").is_none() {
            data["logprobs"] = json!([]);
        }
        data
    }

    fn value(&self, status: &str, asked: &Asked) -> Value {
        let Written { part, text, signature } = &self.written;
        let mut item = json!({ "id": self.id, "status": status });
        match part {
            Part::Text | Part::Refusal => {
                item["type"] = "message".into();
                item["role"] = "assistant".into();
                item["content"] = self.kind.part(text).map(|(_, part)| part).into_iter().collect();
            }
            Part::Thinking | Part::Redacted(_) => {
                item["type"] = "reasoning".into();
                let summary = self.kind.part(text).filter(|_| !text.is_empty());
                item["summary"] = summary.map(|(_, part)| part).into_iter().collect();
                if asked.wishes.sealed_reasoning {
                    item["encrypted_content"] = json!(sealed(part, signature.as_deref()));
                }
            }
            Part::Tool { id, name } => {
                let tool = asked.wishes.tool(name);
                item["call_id"] = id.as_str().into();
                item["name"] = tool.map_or(name, |tool| &tool.name).as_str().into();
                if let Some(namespace) = tool.and_then(|tool| tool.namespace.as_deref()) {
                    item["namespace"] = namespace.into();
                }
                let (kind, member, said) = match self.kind {
                    Kind::Custom => ("custom_tool_call", "input", free_text(text)),
                    _ => ("function_call", "arguments", text.clone()),
                };
                item["type"] = kind.into();
                item[member] = said.into();
            }
        }
        item
    }
}

/// What the caller can hand back, so that the upstream takes the thinking for its own.
fn sealed(part: &Part, signature: Option<&str>) -> Option<String> {
    match part {
        Part::Redacted(data) => Some(Sealed::Redacted(data).write()),
        _ => signature.map(|signature| Sealed::Thinking(signature).write()),
    }
}

/// The answer as one object.
pub(super) fn whole(asked: &Asked, parts: &[Written], reason: &Reason, used: &Used) -> String {
    let items = parts.iter().enumerate().map(|(n, written)| {
        let item = Item { written: written.clone(), ..Item::new(written.part.clone(), n, asked) };
        item.value("completed", asked)
    });
    let items: Vec<Value> = items.collect();
    ended(asked, &items, reason, used).to_string()
}

fn ended(asked: &Asked, items: &[Value], reason: &Reason, used: &Used) -> Value {
    let incomplete = match reason {
        Reason::Length | Reason::ContextFull => Some("max_output_tokens"),
        Reason::Filtered => Some("content_filter"),
        Reason::End | Reason::StopSequence(_) | Reason::Tools | Reason::Paused => None,
    };
    let status = if incomplete.is_some() { "incomplete" } else { "completed" };
    let mut response = response(asked, status, items, Some(used));
    if let Some(reason) = incomplete {
        response["incomplete_details"] = json!({ "reason": reason });
    }
    response
}

/// The response as far as it has come. It says of itself what the request may have said otherwise only where clients read it.
fn response(asked: &Asked, status: &str, items: &[Value], used: Option<&Used>) -> Value {
    json!({
        "id": asked.id("resp", None),
        "object": "response",
        "created_at": asked.created.secs(),
        "status": status,
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "max_output_tokens": null,
        "metadata": {},
        "model": asked.model,
        "output": items,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": { "effort": null, "summary": null },
        "store": false,
        "temperature": null,
        "text": { "format": { "type": "text" } },
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
        "truncation": "disabled",
        "usage": used.map(usage),
        "user": null,
    })
}

/// Input tokens are all that was read, those of the cache included.
fn usage(used: &Used) -> Value {
    json!({
        "input_tokens": used.input(),
        "input_tokens_details": { "cached_tokens": used.usage.cache_read, "cache_write_tokens": used.cache_write() },
        "output_tokens": used.usage.output,
        "output_tokens_details": { "reasoning_tokens": used.thinking.unwrap_or(0) },
        "total_tokens": used.total(),
    })
}
