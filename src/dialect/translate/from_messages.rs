//! Reads the answer of a messages upstream, streamed or plain, as steps.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::delta::{Heard, Key, Part, Reason};

/// What is known of an answer that is being read.
#[derive(Debug, Default)]
pub(super) struct FromMessages {
    /// Tool calls whose arguments stood in the start of their block, which are all if no pieces follow.
    whole: Vec<(Key, String)>,
}

/// The arguments of calls as they are written: numbers and the order of members stay.
#[derive(Deserialize)]
struct Inputs<'a> {
    #[serde(borrow, default)]
    content: Vec<Input<'a>>,
}

#[derive(Deserialize)]
struct Started<'a> {
    #[serde(borrow)]
    content_block: Input<'a>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

impl FromMessages {
    /// Reads one event of a stream.
    pub fn event(&mut self, data: &[u8], heard: &mut Heard) {
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return };
        // Absent where an upstream leaves it out: there is one block at a time.
        let key = event["index"].as_u64().unwrap_or(0);
        match event["type"].as_str() {
            Some("message_start") => heard.tally.report(&event["message"]["usage"]),
            Some("content_block_start") => {
                let input = serde_json::from_slice::<Started<'_>>(data).ok().and_then(|it| it.content_block.input);
                self.start(key, &event["content_block"], input, heard);
            }
            Some("content_block_delta") => piece(key, &event["delta"], heard),
            Some("content_block_stop") => self.stop(key, heard),
            Some("message_delta") => {
                heard.tally.report(&event["usage"]);
                stopped(&event["delta"], heard);
            }
            _ => {}
        }
        heard.tally.passed();
    }

    /// Reads a plain answer; `None` when it is none.
    pub fn plain(&mut self, text: &str, body: &Value, heard: &mut Heard) -> Option<()> {
        let inputs = serde_json::from_str::<Inputs<'_>>(text).ok()?.content;
        heard.tally.report(&body["usage"]);
        for (key, (block, input)) in (0..).zip(body["content"].as_array()?.iter().zip(inputs)) {
            self.start(key, block, input.input, heard);
            heard.parts.sign(key, block["signature"].as_str().unwrap_or_default());
            self.stop(key, heard);
        }
        stopped(body, heard);
        heard.tally.passed();
        Some(())
    }

    /// A block begins. What is no text, thinking or call of the caller's tools was not asked for and is left out.
    fn start(&mut self, key: Key, block: &Value, input: Option<&RawValue>, heard: &mut Heard) {
        let text = |name: &str| block[name].as_str().unwrap_or_default();
        match text("type") {
            "text" => {
                heard.parts.open(key, Part::Text);
                say(key, Part::Text, text("text"), heard);
            }
            "thinking" => {
                heard.parts.open(key, Part::Thinking);
                say(key, Part::Thinking, text("thinking"), heard);
            }
            "redacted_thinking" => heard.parts.open(key, Part::Redacted(text("data").to_owned())),
            "tool_use" => {
                heard.tally.count(text("name"));
                heard.parts.open(key, Part::Tool { id: text("id").to_owned(), name: text("name").to_owned() });
                let whole = input.map(|input| compact(input.get())).filter(|input| !matches!(&**input, "{}" | "null"));
                self.whole.extend(whole.map(|input| (key, input)));
            }
            _ => {}
        }
    }

    fn stop(&mut self, key: Key, heard: &mut Heard) {
        if let Some(at) = self.whole.iter().position(|(of, _)| *of == key) {
            let (_, input) = self.whole.swap_remove(at);
            if !heard.parts.has_arguments(key) {
                heard.tally.count(&input);
                heard.parts.piece(key, &input);
            }
        }
        heard.parts.close(key);
    }
}

/// A piece of a block, also of one whose start was left out.
fn piece(key: Key, delta: &Value, heard: &mut Heard) {
    let text = |name: &str| delta[name].as_str().unwrap_or_default();
    match text("type") {
        "text_delta" => say(key, Part::Text, text("text"), heard),
        "thinking_delta" => say(key, Part::Thinking, text("thinking"), heard),
        "signature_delta" => heard.parts.sign(key, text("signature")),
        "input_json_delta" => {
            heard.tally.count(text("partial_json"));
            heard.parts.piece(key, text("partial_json"));
        }
        _ => {}
    }
}

fn say(key: Key, part: Part, words: &str, heard: &mut Heard) {
    heard.tally.count(words);
    if !heard.parts.piece(key, words) {
        heard.parts.say(part, words);
    }
}

fn stopped(from: &Value, heard: &mut Heard) {
    let sequence = || from["stop_sequence"].as_str().unwrap_or_default().to_owned();
    heard.reason = match from["stop_reason"].as_str() {
        None | Some("") => return,
        Some("max_tokens") => Some(Reason::Length),
        Some("model_context_window_exceeded") => Some(Reason::ContextFull),
        Some("tool_use") => Some(Reason::Tools),
        Some("stop_sequence") => Some(Reason::StopSequence(sequence())),
        Some("refusal") => Some(Reason::Filtered),
        Some("pause_turn") => Some(Reason::Paused),
        Some(_) => Some(Reason::End),
    };
}

/// JSON without the white space between its tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        let kept = in_string || !matches!(c, ' ' | '\t' | '\n' | '\r');
        if !std::mem::take(&mut escaped) {
            in_string ^= *c == '"';
            escaped = in_string && *c == '\\';
        }
        kept
    };
    json.chars().filter(keep).collect()
}
