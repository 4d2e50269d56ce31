//! Reads what a streamed response used and brought, event by event.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed as _, Deserializer};
use serde_json::value::RawValue;

use super::super::Dialect;
use super::{Meter, Pass, SumText, TextBytes};
use crate::dialect::failure::{Failure, failed, is_there};

/// An event of a responses stream, as far as it is read.
#[derive(Deserialize)]
struct ResponsesEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    delta: TextBytes,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Response<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

/// An item of the answer: a message, a call of a tool, or what is shown of the reasoning. What only an upstream can read, such
/// as encrypted reasoning, does not count.
#[derive(Deserialize, Default)]
struct Item {
    #[serde(default)]
    content: PartBytes,
    #[serde(default)]
    summary: PartBytes,
    #[serde(default)]
    name: TextBytes,
    #[serde(default)]
    arguments: TextBytes,
    #[serde(default)]
    input: TextBytes,
}

/// As [`TextBytes`], of parts of a content, whose notes are not what a model writes.
#[derive(Default)]
struct PartBytes(u64);

impl<'de> Deserialize<'de> for PartBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SumText { skip: &["type", "annotations", "logprobs"] }.deserialize(deserializer).map(PartBytes)
    }
}

impl Item {
    /// What cannot be read is none.
    fn read(raw: Option<&RawValue>) -> Item {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    fn text(&self) -> u64 {
        let parts = [self.content.0, self.summary.0, self.name.0, self.arguments.0, self.input.0];
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }
}

impl Meter {
    pub(super) fn responses_event(&mut self, name: &[u8], data: &[u8]) -> Pass {
        // Of other dialects. The last event here is a response that says how it ended.
        if data == b"[DONE]" {
            return Pass::Drop;
        }
        let event: ResponsesEvent<'_> = match serde_json::from_slice(data) {
            Ok(event) => event,
            Err(_) if name == b"error" => return Pass::Error(failed(Failure::default())),
            Err(error) => return self.unreadable(data, &error),
        };
        let kind = event.kind.as_deref().map_or(name, str::as_bytes);
        let error = event.error.filter(|error| is_there(error));
        if error.is_some() || kind == b"error" {
            return Pass::Error(failed(error.map(Failure::read).unwrap_or_else(|| Failure::coded(event.code))));
        }
        let response = event.response.unwrap_or_default();
        match kind {
            b"response.completed" | b"response.incomplete" => {
                self.reports.take_raw(Dialect::Responses, response.usage);
                let items = response.output.and_then(|raw| serde_json::from_str::<Vec<Item>>(raw.get()).ok());
                let text = items.unwrap_or_default().iter().fold(0u64, |sum, item| sum.saturating_add(item.text()));
                self.item_bytes = self.item_bytes.max(text);
                self.done = true;
                return Pass::Done;
            }
            b"response.failed" | b"response.cancelled" => {
                self.reports.take_raw(Dialect::Responses, response.usage);
                return Pass::Error(failed(response.error.map(Failure::read).unwrap_or_default()));
            }
            // What a call of a tool is named stands in no delta.
            b"response.output_item.added" => self.count(Item::read(event.item).name.0),
            // Some upstreams send no deltas of some items.
            b"response.output_item.done" => self.item_bytes = self.item_bytes.saturating_add(Item::read(event.item).text()),
            kind if kind.ends_with(b".delta") => self.count(event.delta.0),
            _ => {}
        }
        Pass::Forward
    }
}
