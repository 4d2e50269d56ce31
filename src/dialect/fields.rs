//! The top-level fields of a request that are sold: what is forwarded, what is refused, what must have which type.

mod responses;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Dialect;
use crate::error::{Code, Error};

pub(super) use responses::{check_refused, included};

/// Answers to one request at most; each is priced.
pub(super) const MAX_CHOICES: u32 = 8;
/// Stop sequences in one request, and the bytes of their JSON.
const MAX_STOPS: usize = 64;
const MAX_STOP_BYTES: usize = 8 * 1024;

/// Forwarded on chat completions. A field that is not here is dropped: it may cost what is not in the tariff, or point
/// the upstream at somebody else's server.
const CHAT: [&str; 36] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_a",
    "typical_p",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "user",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "reasoning_effort",
    "reasoning",
    "include_reasoning",
    "verbosity",
    "thinking",
    "chat_template_kwargs",
    "prompt_cache_key",
    "safety_identifier",
];

/// Forwarded on messages.
const MESSAGES: [&str; 17] = [
    "model",
    "messages",
    "system",
    "max_tokens",
    "stream",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "thinking",
    "metadata",
    "output_config",
    "output_format",
    "context_management",
    "cache_control",
];

/// Forwarded for the upstream's own use: a model never reads it.
const UNREAD: [&str; 6] = ["model", "user", "metadata", "safety_identifier", "prompt_cache_key", "stream_options"];

/// Whether what the field says can become input of the model.
pub(super) fn is_read(name: &str) -> bool {
    !UNREAD.contains(&name)
}

/// What a field costs that no tariff covers; dropping it silently would sell something else than was asked for.
const NOT_SOLD: [&str; 11] = [
    "web_search_options",
    "plugins",
    "mcp_servers",
    "container",
    "audio",
    "prediction",
    "best_of",
    "modalities",
    "service_tier",
    "speed",
    "inference_geo",
];

/// What becomes of a field.
pub(super) enum Fate {
    Forward(&'static str),
    /// Forwarded to nobody, but its value decides whether the request is refused.
    NotSold(&'static str),
    /// The same of what only this route refuses, and why it does.
    Refused(&'static str, &'static str),
    Drop,
}

pub(super) fn fate(dialect: Dialect, name: &str) -> Fate {
    let sold: &[&'static str] = match dialect {
        Dialect::Chat => &CHAT,
        Dialect::Messages => &MESSAGES,
        Dialect::Responses => &responses::RESPONSES,
    };
    if let Some(name) = sold.iter().find(|known| **known == name) {
        return Fate::Forward(name);
    }
    let here: &[_] = if dialect == Dialect::Responses { &responses::REFUSED } else { &[] };
    if let Some((name, why)) = here.iter().find(|(known, _)| *known == name) {
        return Fate::Refused(name, why);
    }
    match NOT_SOLD.iter().find(|known| **known == name) {
        Some(name) => Fate::NotSold(name),
        None => Fate::Drop,
    }
}

pub(super) fn refused(param: &'static str, message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, message).param(param)
}

/// A value of the wrong type, said back as far as it is short.
pub(super) fn must(name: &'static str, what: &str, raw: &str) -> Error {
    let said: String = raw.chars().take(40).map(|c| if c.is_ascii() && !c.is_control() { c } else { '?' }).collect();
    let rest = if raw.chars().nth(40).is_some() { "..." } else { "" };
    refused(name, format!("{name} must be {what}, not {said}{rest}"))
}

/// Refuses a field that costs more than the tariff says, unless its value asks for what is normal anyway.
pub(super) fn check_not_sold(name: &'static str, raw: &str) -> Result<(), Error> {
    // What is normal is short.
    let value = if raw.len() <= 256 { serde_json::from_str::<Value>(raw).unwrap_or_default() } else { Value::Null };
    let normal = match name {
        "service_tier" => matches!(value.as_str(), Some("auto" | "default" | "standard_only")),
        "speed" => value.as_str() == Some("standard"),
        "best_of" => value.as_u64() == Some(1),
        "modalities" => value.as_array().is_some_and(|list| list.iter().all(|kind| kind == "text")),
        "plugins" | "mcp_servers" => value.as_array().is_some_and(Vec::is_empty),
        _ => false,
    };
    if normal || raw == "null" {
        return Ok(());
    }
    Err(refused(name, format!("{name} costs extra and is not sold here; remove it")))
}

/// Checks the type of a field that is forwarded, where a wrong one would be sold as something else.
pub(super) fn check(dialect: Dialect, name: &'static str, raw: &str) -> Result<(), Error> {
    match name {
        "temperature" | "top_p" | "frequency_penalty" | "presence_penalty" => number(name, raw),
        "stop" | "stop_sequences" => stops(name, raw),
        "functions" if !raw.starts_with(['[', 'n']) => Err(must(name, "an array of functions", raw)),
        "context_management" => edits(raw),
        // Anything else may hold pictures, whose bytes say nothing about their tokens.
        "instructions" if !raw.starts_with(['"', 'n']) => Err(must(name, "a text", raw)),
        "tool_choice" if dialect == Dialect::Responses => responses::check_tool_choice(raw),
        _ => Ok(()),
    }
}

fn number(name: &'static str, raw: &str) -> Result<(), Error> {
    let first = raw.as_bytes().first().copied().unwrap_or_default();
    if first == b'-' || first.is_ascii_digit() || raw == "null" {
        return Ok(());
    }
    Err(must(name, "a number", raw))
}

fn stops(name: &'static str, raw: &str) -> Result<(), Error> {
    if raw.len() > MAX_STOP_BYTES {
        return Err(refused(
            name,
            format!("{name} has {} bytes, and {MAX_STOP_BYTES} are taken; send fewer or shorter sequences", raw.len()),
        ));
    }
    let many = match raw.as_bytes().first() {
        Some(b'"' | b'n') => return Ok(()),
        _ => serde_json::from_str::<Vec<Cow<'_, str>>>(raw),
    };
    match many {
        Ok(list) if list.len() <= MAX_STOPS => Ok(()),
        Ok(list) => Err(refused(name, format!("{name} has {} sequences, and {MAX_STOPS} are taken; send fewer", list.len()))),
        Err(_) => Err(must(name, "a string or an array of strings", raw)),
    }
}

/// Edits that clear old content make a call cheaper; others (compaction) run the model again beyond `max_tokens`.
fn edits(raw: &str) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Management<'a> {
        #[serde(borrow, default)]
        edits: Option<Vec<Edit<'a>>>,
    }
    #[derive(Deserialize)]
    struct Edit<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let management = serde_json::from_str::<Option<Management<'_>>>(raw)
        .map_err(|_| must("context_management", "an object with edits, each of one type", raw))?;
    let edits = management.and_then(|management| management.edits).unwrap_or_default();
    if edits.iter().all(|edit| edit.kind.starts_with("clear_")) {
        return Ok(());
    }
    Err(refused("context_management", "only edits that clear content are sold here; remove the others"))
}

/// A count of tokens or answers: a positive whole number, or `None` for null. A fraction, a string or a bool is refused.
pub(super) fn count(name: &'static str, raw: &str) -> Result<Option<u32>, Error> {
    if raw == "null" {
        return Ok(None);
    }
    match raw.parse::<u32>() {
        Ok(0) | Err(_) => Err(must(name, &format!("a whole number from 1 to {}", u32::MAX), raw)),
        Ok(count) => Ok(Some(count)),
    }
}

/// `true`, `false` or null.
pub(super) fn flag(name: &'static str, raw: &str) -> Result<bool, Error> {
    match raw {
        "true" => Ok(true),
        "false" | "null" => Ok(false),
        _ => Err(must(name, "true or false", raw)),
    }
}

/// What `stream_options` says.
#[derive(Default)]
pub(super) struct StreamOptions {
    pub include_usage: bool,
    /// The other members, in order.
    pub others: Vec<(String, Box<RawValue>)>,
}

impl StreamOptions {
    pub fn read(raw: &str) -> Result<StreamOptions, Error> {
        let wrong = || must("stream_options", "an object whose include_usage is true or false", raw);
        let members = serde_json::from_str::<Option<Members<'_>>>(raw).map_err(|_| wrong())?;
        let mut others = members.map(|members| members.0).unwrap_or_default();
        let usage: Vec<_> = others.extract_if(.., |(name, _)| name == "include_usage").collect();
        let include_usage = match usage.as_slice() {
            [] => false,
            [(_, raw)] => flag("stream_options", raw.get()).map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        Ok(StreamOptions { include_usage, others: others.into_iter().map(|(name, raw)| (name, raw.to_owned())).collect() })
    }
}

/// The members of a small object, in order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Fields that can ask for output which may not be seen while it is made.
pub(super) fn may_hide(name: &str) -> bool {
    matches!(name, "include_reasoning" | "reasoning_effort" | "reasoning" | "thinking")
}

/// Whether a field asks for output that is paid for and may not be seen while it is made. What is not known to be harmless
/// does.
pub(super) fn asks_hidden(name: &str, raw: &str) -> bool {
    if raw == "null" {
        return false;
    }
    let says_no = |value: &Value, name: &str, no: &Value| value.get(name) == Some(no);
    match name {
        "include_reasoning" => true,
        "reasoning_effort" => raw != "\"none\"",
        "reasoning" => !serde_json::from_str::<Value>(raw)
            .is_ok_and(|value| says_no(&value, "enabled", &false.into()) || says_no(&value, "effort", &"none".into())),
        "thinking" => !serde_json::from_str::<Value>(raw).is_ok_and(|value| says_no(&value, "type", &"disabled".into())),
        _ => false,
    }
}

/// The budget of `thinking`, which comes out of `max_tokens`.
pub(super) fn thinking_budget(raw: &str) -> Result<Option<u64>, Error> {
    #[derive(Deserialize)]
    struct Thinking {
        budget_tokens: Option<u64>,
    }
    serde_json::from_str::<Option<Thinking>>(raw)
        .map(|thinking| thinking.and_then(|thinking| thinking.budget_tokens))
        .map_err(|_| must("thinking", "an object whose budget_tokens is a whole number", raw))
}
