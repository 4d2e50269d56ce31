//! Reads what an answer used as its bytes pass: the upstream's own report, and an estimate until (or in case) it never comes.

mod responses;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::json;
use serde_json::value::RawValue;

use super::failure::{Failure, failed, is_failure, is_there};
use super::sse::Event;
use super::unstreamed::Unstreamed;
use super::usage::{Metered, Reports};
use super::{Dialect, estimate_tokens};
use crate::error::Error;

/// What becomes of an event.
#[derive(Debug, Clone)]
pub enum Pass {
    /// It goes to the caller.
    Forward,
    /// It does not: a usage chunk the caller did not ask for, what comes after the end, or what no client can parse.
    Drop,
    /// The upstream failed in the middle. The caller gets this error (see [`super::broken_stream`]) instead of the
    /// upstream's words, and nothing after it.
    Error(Error),
    /// It goes to the caller, and the answer is complete.
    Done,
}

/// Meters one answer. Streamed answers are shown to it event by event, others chunk by chunk.
#[derive(Debug)]
pub struct Meter {
    dialect: Dialect,
    wants_usage: bool,
    input_estimate: u64,
    reports: Reports,
    unstreamed: Option<Unstreamed>,
    /// UTF-8 bytes of the answer: text, reasoning, refusals, tool calls.
    text_bytes: u64,
    /// Events that brought any of it. Each is at least one token.
    text_events: u64,
    /// The same bytes as the finished items of a response repeat them.
    item_bytes: u64,
    done: bool,
}

impl Meter {
    /// `wants_usage`: the caller of a chat stream asked for the usage chunk itself.
    /// `input_estimate`: the tokens of the request, see [`super::Request::estimate`].
    pub fn new(dialect: Dialect, stream: bool, wants_usage: bool, input_estimate: u64) -> Meter {
        let unstreamed = (!stream).then(|| Unstreamed::new(dialect));
        Meter {
            dialect,
            wants_usage,
            input_estimate,
            reports: Reports::default(),
            unstreamed,
            text_bytes: 0,
            text_events: 0,
            item_bytes: 0,
            done: false,
        }
    }

    /// Reads one event of a streamed answer.
    pub fn event(&mut self, event: &Event) -> Pass {
        if self.done {
            return Pass::Drop;
        }
        match self.dialect {
            Dialect::Responses => self.responses_event(event.name(), event.data()),
            _ if event.name() == b"error" => {
                let error = serde_json::from_slice::<Failing<'_>>(event.data()).ok().and_then(|it| it.error);
                Pass::Error(failed(error.map(Failure::read).unwrap_or_default()))
            }
            Dialect::Chat => self.chat_event(event.data()),
            Dialect::Messages => self.messages_event(event.data()),
        }
    }

    /// The usage chunk that the caller of a chat stream asked for, if the upstream never sent one: it belongs before
    /// `[DONE]`, and says what is charged.
    pub fn owed_usage(&self) -> Option<Bytes> {
        if self.dialect != Dialect::Chat || !self.wants_usage || self.reports != Reports::default() {
            return None;
        }
        let usage = self.usage().usage;
        let total = usage.input.saturating_add(usage.output);
        let usage = json!({ "prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": total });
        let chunk =
            json!({ "id": "", "object": "chat.completion.chunk", "created": 0, "model": "", "choices": [], "usage": usage });
        Some(format!("data: {chunk}\n\n").into())
    }

    /// Reads the next bytes of an answer that is not streamed.
    pub fn chunk(&mut self, bytes: &[u8]) {
        if let Some(scanner) = &mut self.unstreamed {
            scanner.chunk(bytes);
        }
    }

    /// What was used so far. It may be asked at any time; it never falls below what was reported.
    pub fn usage(&self) -> Metered {
        let mut reports = self.reports;
        if let Some(usage) = self.unstreamed.as_ref().and_then(Unstreamed::usage) {
            reports.take(self.dialect, usage);
        }
        reports.settle(self.dialect, self.complete(), self.input_estimate, self.output_estimate())
    }

    /// Whether the whole answer has passed: `[DONE]`, `message_stop`, or the end of the JSON value. The end of the
    /// connection says nothing: a cut stream ends just like a whole one.
    pub fn complete(&self) -> bool {
        self.unstreamed.as_ref().map_or(self.done, Unstreamed::complete)
    }

    /// Whether any of the answer itself has passed.
    pub fn has_output(&self) -> bool {
        self.answer_bytes() > 0
    }

    /// UTF-8 bytes of the answer itself that have passed.
    pub fn answer_bytes(&self) -> u64 {
        self.unstreamed.as_ref().map_or(self.text_bytes.max(self.item_bytes), Unstreamed::text_bytes)
    }

    fn output_estimate(&self) -> u64 {
        estimate_tokens(self.answer_bytes()).max(self.text_events)
    }

    fn count(&mut self, text: u64) {
        self.text_bytes = self.text_bytes.saturating_add(text);
        self.text_events += u64::from(text > 0);
    }

    fn chat_event(&mut self, data: &[u8]) -> Pass {
        if data == b"[DONE]" {
            self.done = true;
            return Pass::Done;
        }
        let chunk: ChatChunk<'_> = match serde_json::from_slice(data) {
            Ok(chunk) => chunk,
            Err(error) => return self.unreadable(data, &error),
        };
        let error = chunk.error.filter(|error| is_there(error));
        if error.is_some() || chunk.object.as_deref() == Some("error") {
            return Pass::Error(failed(error.map(Failure::read).unwrap_or_default()));
        }
        if let Some(failure) = chunk.choices.failure {
            self.reports.take_raw(Dialect::Chat, chunk.usage);
            return Pass::Error(failed(failure));
        }
        self.count(chunk.choices.text);
        self.reports.take_raw(Dialect::Chat, chunk.usage);
        if let Some(groq) = chunk.x_groq {
            let groq = serde_json::from_str::<Groq<'_>>(groq.get()).unwrap_or_default();
            self.reports.take_raw(Dialect::Chat, groq.usage);
        }
        let only_usage = chunk.usage.is_some() && chunk.choices.len == 0;
        if only_usage && !self.wants_usage { Pass::Drop } else { Pass::Forward }
    }

    fn messages_event(&mut self, data: &[u8]) -> Pass {
        let event: MessagesEvent<'_> = match serde_json::from_slice(data) {
            Ok(event) => event,
            Err(error) => return self.unreadable(data, &error),
        };
        let error = event.error.filter(|error| is_there(error));
        if error.is_some() || event.kind.as_deref() == Some("error") {
            return Pass::Error(failed(error.map(Failure::read).unwrap_or_default()));
        }
        match event.kind.as_deref() {
            Some("message_start") => self.reports.take_raw(Dialect::Messages, event.message.and_then(|message| message.usage)),
            Some("message_delta") => self.reports.take_raw(Dialect::Messages, event.usage),
            Some("message_stop") => {
                self.done = true;
                return Pass::Done;
            }
            _ => self.count(event.delta.text().saturating_add(event.content_block.text())),
        }
        Pass::Forward
    }

    /// What is not JSON, no client can use. What is JSON of a shape that we do not know may be an answer: it passes,
    /// and all of it counts.
    fn unreadable(&mut self, data: &[u8], error: &serde_json::Error) -> Pass {
        if !error.is_data() {
            return Pass::Drop;
        }
        self.count(data.len() as u64);
        Pass::Forward
    }
}

/// A chunk of a chat stream, as far as it is read.
#[derive(Deserialize)]
struct ChatChunk<'a> {
    #[serde(borrow, default)]
    choices: Choices<'a>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    x_groq: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    object: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Failing<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Groq<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// An event of a messages stream, as far as it is read.
#[derive(Deserialize)]
struct MessagesEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(default)]
    delta: Block,
    #[serde(default)]
    content_block: Block,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// The start of a content block, or a piece of one.
#[derive(Deserialize, Default)]
struct Block {
    #[serde(default)]
    text: TextBytes,
    #[serde(default)]
    thinking: TextBytes,
    #[serde(default)]
    partial_json: TextBytes,
    #[serde(default)]
    name: TextBytes,
}

impl Block {
    fn text(&self) -> u64 {
        [&self.text, &self.thinking, &self.partial_json, &self.name].iter().fold(0, |sum, text| sum.saturating_add(text.0))
    }
}

/// The choices of one chunk: how many, the bytes of text that they bring, and whether one of them has failed.
#[derive(Default)]
struct Choices<'a> {
    len: usize,
    text: u64,
    failure: Option<Failure<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

/// A piece of an answer. Some upstreams send the same reasoning under two names.
#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: TextBytes,
    #[serde(default)]
    reasoning_content: TextBytes,
    #[serde(default)]
    reasoning: TextBytes,
    #[serde(default)]
    refusal: TextBytes,
    #[serde(default)]
    tool_calls: ToolCalls,
    #[serde(default)]
    function_call: ToolCalls,
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sum;
        impl<'de> Visitor<'de> for Sum {
            type Value = Choices<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }

            fn visit_unit<E>(self) -> Result<Choices<'de>, E> {
                Ok(Choices::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choices<'de>, A::Error> {
                let mut sum = Choices::default();
                while let Some(choice) = seq.next_element::<Choice<'de>>()? {
                    sum.len += 1;
                    let error = choice.error.filter(|error| is_there(error));
                    if error.is_some() || choice.finish_reason.is_some_and(is_failure) {
                        sum.failure = Some(error.map(Failure::read).unwrap_or_default());
                    }
                    let Some(delta) = choice.delta else { continue };
                    let reasoning = delta.reasoning.0.max(delta.reasoning_content.0);
                    let calls = delta.tool_calls.0.saturating_add(delta.function_call.0);
                    let parts = [delta.content.0, delta.refusal.0, reasoning, calls];
                    sum.text = parts.iter().fold(sum.text, |sum, part| sum.saturating_add(*part));
                }
                Ok(sum)
            }
        }
        deserializer.deserialize_any(Sum)
    }
}

/// The UTF-8 bytes of a string, or of all strings in a value; other values have none.
#[derive(Default)]
struct TextBytes(u64);

/// As [`TextBytes`], but only names and arguments of calls: ids are not what a model writes.
#[derive(Default)]
struct ToolCalls(u64);

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SumText { skip: &[] }.deserialize(deserializer).map(TextBytes)
    }
}

impl<'de> Deserialize<'de> for ToolCalls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SumText { skip: &["id", "type"] }.deserialize(deserializer).map(ToolCalls)
    }
}

/// Sums the lengths of strings without keeping any of them.
#[derive(Clone, Copy)]
struct SumText {
    /// Members that do not count.
    skip: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for SumText {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SumText {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        Ok(text.len() as u64)
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<u64, A::Error> {
        let mut sum = 0u64;
        while let Some(text) = seq.next_element_seed(self)? {
            sum = sum.saturating_add(text);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut sum = 0u64;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if self.skip.contains(&&*name) {
                map.next_value::<IgnoredAny>()?;
            } else {
                sum = sum.saturating_add(map.next_value_seed(self)?);
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests;
