//! Reads a body of chat completions.

use super::super::fields::refused;
use super::conversation::{Arguments, Call, Content, Conversation, Effort, Format, Part, Sampling, Speaker, ToolResult, Turn};
use super::functions;
use super::parts;
use super::tools;
use super::value::{Object, Value, Wrong, quoted};
use crate::error::Error;

/// Says in no dialect what a chat body says. Penalties, seeds, logit biases and log probabilities have no counterpart elsewhere
/// and change no promise; they are left out.
pub(super) fn read(body: Value<'_>) -> Result<Conversation<'_>, Error> {
    let body = object(body)?;
    refuse_untranslatable(&body)?;
    let mut conversation = Conversation::default();
    let mut calls = functions::Calls::default();
    for (n, message) in body.list("messages").map_err(|wrong| wrong.at("messages", "messages"))?.into_iter().enumerate() {
        let turn = turn(message, &mut calls).map_err(|wrong| wrong.at("messages", format_args!("messages[{n}]")))?;
        conversation.turns.push(turn);
    }
    let found = body.list("tools").and_then(|list| tools::read(&list)).map_err(|wrong| wrong.at("tools", "tools"))?;
    conversation.tools = found;
    conversation.choice = tools::choice(body.get("tool_choice"), &mut conversation.tools)
        .map_err(|wrong| wrong.at("tool_choice", "tool_choice"))?;
    conversation.parallel = body.get("parallel_tool_calls").map(Value::is_true);
    functions::read(&body, &mut conversation)?;
    conversation.stops = stops(body.get("stop")).map_err(|wrong| wrong.at("stop", "stop"))?;
    conversation.sampling = sampling(&body)?;
    conversation.format = response_format(&body).map_err(|wrong| wrong.at("response_format", "response_format"))?;
    conversation.effort = effort(&body)?;
    conversation.thinking = body.get("thinking").filter(|thinking| thinking.is_object()).map(Value::raw);
    conversation.user = user(&body)?;
    Ok(conversation)
}

/// The body as an object; reading the request has seen to that already.
pub(super) fn object(body: Value<'_>) -> Result<Object<'_>, Error> {
    body.object().ok_or_else(|| refused("messages", "the body is not a JSON object; send one with model and messages"))
}

fn refuse_untranslatable(body: &Object<'_>) -> Result<(), Error> {
    if body.get("n").is_some_and(|n| n.raw() != "1") {
        return Err(refused("n", "n must be 1 with this model, which gives one answer; send several requests instead"));
    }
    Ok(())
}

fn turn<'a>(message: Value<'a>, calls: &mut functions::Calls<'a>) -> Result<Turn<'a>, Wrong> {
    let message = message.object().ok_or_else(|| Wrong(" must be an object with a role and content".into()))?;
    let content = parts::content(message.get("content"));
    let (speaker, mut said) = match &*message.needs_text("role")? {
        "system" | "developer" => (Speaker::System, content?),
        "user" => (Speaker::User, content?),
        "assistant" => {
            let mut said = assistant(&message, content?)?;
            said.extend(calls.made(&message)?);
            (Speaker::Assistant, said)
        }
        "function" => return calls.answered(&message),
        "tool" => {
            let id = message.needs_text("tool_call_id")?;
            let content = parts::result(message.get("content"))?;
            (Speaker::User, vec![Part::new(Content::Result(ToolResult { id, content, error: false }))])
        }
        role => {
            let role = quoted(role);
            return Err(Wrong(format!(".role is {role}, which this model does not know; send system, user, assistant or tool")));
        }
    };
    // Beside the content instead of on its last part: what some callers do whose content is a text.
    if let (Some(cache), Some(last)) = (message.get("cache_control"), said.last_mut()) {
        last.cache = last.cache.or(Some(cache.raw()));
    }
    parts::turn(speaker, said)
}

/// What the assistant said and which tools it called, in this order: chat has no other.
fn assistant<'a>(message: &Object<'a>, mut said: Vec<Part<'a>>) -> Result<Vec<Part<'a>>, Wrong> {
    for elsewhere in ["audio", "images"] {
        if message.get(elsewhere).is_some_and(|value| value.raw() != "[]") {
            return Err(Wrong(format!(".{elsewhere} is not known to this model; leave it out")));
        }
    }
    said.extend(message.text("refusal")?.map(Part::said));
    for call in message.list("tool_calls")? {
        let call = call.object().ok_or_else(|| Wrong(".tool_calls must be objects".into()))?;
        let id = call.text("id")?.unwrap_or_default();
        let (name, arguments) = match (call.object("function")?, call.object("custom")?) {
            (Some(function), _) => {
                (function.needs_text("name")?, Arguments::Text(function.text("arguments")?.unwrap_or_default()))
            }
            (None, Some(custom)) => (custom.needs_text("name")?, Arguments::Free(custom.needs_text("input")?)),
            (None, None) => return Err(Wrong(" has a tool call without a function; give it one with a name".into())),
        };
        said.push(Part::new(Content::Call(Call { id, name, arguments })));
    }
    Ok(said)
}

/// One sequence or several. Those of white space alone say nothing to the upstreams that take a list.
fn stops(value: Option<Value<'_>>) -> Result<Vec<std::borrow::Cow<'_, str>>, Wrong> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let all = match value.list() {
        None => value.text().map(|one| vec![one]),
        Some(list) => list.into_iter().map(Value::text).collect(),
    };
    let all = all.ok_or_else(|| Wrong(" must be a string or an array of strings".into()))?;
    Ok(all.into_iter().filter(|stop| !stop.trim().is_empty()).collect())
}

pub(super) fn sampling<'a>(body: &Object<'a>) -> Result<Sampling<'a>, Error> {
    let number = |name: &'static str| body.number(name).map_err(|wrong| refused(name, wrong.0.trim_start_matches('.')));
    Ok(Sampling { temperature: number("temperature")?, top_p: number("top_p")?, top_k: number("top_k")? })
}

fn response_format<'a>(body: &Object<'a>) -> Result<Option<Format<'a>>, Wrong> {
    let Some(format) = body.get("response_format") else { return Ok(None) };
    let format = format.object().ok_or_else(|| Wrong(" must be an object with a type".into()))?;
    let schema = format.object("json_schema")?;
    named_format(&format, schema.as_ref())
}

/// A format by its type, whose schema stands in `said`.
pub(super) fn named_format<'a>(format: &Object<'a>, said: Option<&Object<'a>>) -> Result<Option<Format<'a>>, Wrong> {
    match (&*format.needs_text("type")?, said) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some(Format::Json)),
        ("json_schema", Some(said)) => {
            let schema = said.get("schema").filter(|schema| schema.is_object());
            Ok(Some(Format::Schema {
                name: said.text("name")?,
                description: said.text("description")?,
                schema: schema.ok_or_else(|| Wrong(" has no schema; give it one, an object".into()))?.raw(),
                strict: said.get("strict").map(Value::is_true),
            }))
        }
        (kind, _) => {
            let kind = quoted(kind);
            Err(Wrong(format!(" is of type {kind}, which this model does not know; send text, json_object or json_schema")))
        }
    }
}

/// `reasoning_effort`, or `reasoning` as some upstreams have it.
fn effort(body: &Object<'_>) -> Result<Option<Effort>, Error> {
    let word = body.text("reasoning_effort").map_err(|wrong| refused("reasoning_effort", wrong.0.trim_start_matches('.')))?;
    if let Some(word) = word {
        return named_effort("reasoning_effort", &word).map(Some);
    }
    let reasoning = body.get("reasoning").and_then(Value::object).unwrap_or_default();
    if reasoning.get("enabled").is_some_and(|enabled| enabled.raw() == "false") {
        return Ok(Some(Effort::None));
    }
    let word = reasoning.text("effort").map_err(|wrong| wrong.at("reasoning", "reasoning"))?;
    word.map(|word| named_effort("reasoning", &word)).transpose()
}

pub(super) fn named_effort(param: &'static str, word: &str) -> Result<Effort, Error> {
    Effort::named(word).ok_or_else(|| {
        let word = quoted(word);
        refused(param, format!("{param} is {word}, which this model does not know; send none, low, medium or high"))
    })
}

/// Whom the caller serves, by the newer name or the older one.
pub(super) fn user<'a>(body: &Object<'a>) -> Result<Option<std::borrow::Cow<'a, str>>, Error> {
    let text = |name: &'static str| body.text(name).map_err(|wrong| refused(name, wrong.0.trim_start_matches('.')));
    Ok(text("user")?.or(text("safety_identifier")?))
}
