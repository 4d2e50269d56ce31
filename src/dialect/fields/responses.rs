//! The fields of responses: what is forwarded, what is refused because nothing is stored, and the choice among tools.

use std::borrow::Cow;

use serde::Deserialize;

use super::{must, refused};
use crate::dialect::weigh::is_caller_run;
use crate::error::Error;

/// Forwarded on responses. `store` is written by us: what an upstream stores would lie under the operator's account.
pub(super) const RESPONSES: [&str; 21] = [
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_tool_calls",
    "text",
    "reasoning",
    "include",
    "truncation",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
];

/// Refused, each with what to do instead.
pub(super) const REFUSED: [(&str, &str); 8] = [
    (
        "previous_response_id",
        "previous_response_id refers to a stored response, and nothing is stored here; send the whole conversation as input",
    ),
    ("conversation", "conversation refers to a stored one, and nothing is stored here; send the whole conversation as input"),
    ("prompt", "prompt refers to a stored template, and nothing is stored here; send its text as instructions and input"),
    (
        "background",
        "answers are not made in the background here, since nothing is stored; leave background out, and stream long answers",
    ),
    ("context_management", "context_management runs the model beyond its output limit and is not sold here; remove it"),
    ("messages", "this route takes input instead of messages; rename it, or call /v1/chat/completions"),
    ("max_tokens", "this route takes max_output_tokens instead of max_tokens; rename it"),
    ("max_completion_tokens", "this route takes max_output_tokens instead of max_completion_tokens; rename it"),
];

/// Refuses a field of [`REFUSED`] unless its value says that it is not used.
pub(in crate::dialect) fn check_refused(name: &'static str, why: &'static str, raw: &str) -> Result<(), Error> {
    let unused = match name {
        "background" => raw == "false",
        "context_management" => raw.strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]"),
        _ => false,
    };
    if unused || raw == "null" { Ok(()) } else { Err(refused(name, why)) }
}

/// What an upstream can be asked to tell beside the answer, as far as it tells nothing of tools that are not sold.
const INCLUDED: [&str; 2] = ["reasoning.encrypted_content", "message.output_text.logprobs"];

/// The list of `include` anew, where it asks for more than [`INCLUDED`].
pub(in crate::dialect) fn included(raw: &str) -> Result<Option<String>, Error> {
    let asked = serde_json::from_str::<Option<Vec<Cow<'_, str>>>>(raw)
        .map_err(|_| must("include", "an array of strings", raw))?
        .unwrap_or_default();
    if asked.iter().all(|name| INCLUDED.contains(&&**name)) {
        return Ok(None);
    }
    let kept = INCLUDED.iter().filter(|name| asked.iter().any(|asked| asked == *name));
    Ok(Some(format!("[{}]", kept.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(","))))
}

/// Refuses a choice that needs a tool which is not sold, or is left out of the request.
pub(super) fn check_tool_choice(raw: &str) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Choice<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow, default)]
        tools: Vec<Choice<'a>>,
    }
    if !raw.starts_with('{') {
        return Ok(());
    }
    let choice =
        serde_json::from_str::<Choice<'_>>(raw).map_err(|_| must("tool_choice", "a string, or an object with one type", raw))?;
    let chosen = if choice.kind == "allowed_tools" { choice.tools } else { vec![choice] };
    match chosen.iter().find(|tool| !is_caller_run(&tool.kind)) {
        None => Ok(()),
        Some(tool) => {
            let kind: String = tool.kind.chars().take(40).collect();
            let message =
                format!("tool_choice names a tool of type {kind:?}, which is not sold here; choose one that you run yourself");
            Err(refused("tool_choice", message))
        }
    }
}
