//! Reads a body of responses.

use super::super::fields::refused;
use super::conversation::{Arguments, Call, Content, Conversation, Effort, Format, Part, Speaker, Thinking, ToolResult, Turn};
use super::parts;
use super::read_chat::{named_effort, named_format, object, sampling, user};
use super::sealed::Sealed;
use super::tools::{self, sent_as};
use super::value::{Object, Value, Wrong, quoted};
use crate::error::Error;

/// Says in no dialect what a responses body says.
pub(super) fn read(body: Value<'_>) -> Result<Conversation<'_>, Error> {
    let body = object(body)?;
    refuse_stored(&body)?;
    let mut conversation = Conversation::default();
    let instructions = body.text("instructions").map_err(|wrong| wrong.at("instructions", "body"))?;
    let instructions = instructions.map(Part::said).into_iter().collect();
    conversation.turns.push(Turn { speaker: Speaker::System, parts: instructions });
    conversation.turns.extend(input(&body)?);
    let found = body.list("tools").and_then(|list| tools::read(&list)).map_err(|wrong| wrong.at("tools", "tools"))?;
    conversation.tools = found;
    conversation.choice = tools::choice(body.get("tool_choice"), &mut conversation.tools)
        .map_err(|wrong| wrong.at("tool_choice", "tool_choice"))?;
    conversation.parallel = body.get("parallel_tool_calls").map(Value::is_true);
    conversation.sampling = sampling(&body)?;
    conversation.sampling.top_k = None;
    let text = body.object("text").map_err(|wrong| wrong.at("text", "body"))?.unwrap_or_default();
    conversation.format = format(&text).map_err(|wrong| wrong.at("text", "text"))?;
    conversation.verbosity = text.text("verbosity").map_err(|wrong| wrong.at("text", "text"))?;
    conversation.effort = effort(&body)?;
    conversation.user = user(&body)?;
    conversation.cache_key = body.text("prompt_cache_key").map_err(|wrong| wrong.at("prompt_cache_key", "body"))?;
    // No field of this dialect marks anything for the cache, so nobody was quoted for it.
    conversation.unmark();
    Ok(conversation)
}

/// Nothing is stored here, and nobody works in the background.
fn refuse_stored(body: &Object<'_>) -> Result<(), Error> {
    for name in ["previous_response_id", "conversation", "prompt"] {
        if body.get(name).is_some() {
            return Err(refused(name, format!("{name} names what is stored, and nothing is stored here; send the whole input")));
        }
    }
    if body.get("background").is_some_and(Value::is_true) {
        return Err(refused("background", "background is not sold here; leave it out and read the answer as it comes"));
    }
    Ok(())
}

fn input<'a>(body: &Object<'a>) -> Result<Vec<Turn<'a>>, Error> {
    let missing = || refused("input", "input must be a text or an array of items");
    let input = body.get("input").ok_or_else(missing)?;
    if let Some(text) = input.text() {
        return Ok(vec![Turn { speaker: Speaker::User, parts: vec![Part::said(text)] }]);
    }
    let mut turns = Vec::new();
    for (n, value) in input.list().ok_or_else(missing)?.into_iter().enumerate() {
        let turn = value.object().ok_or_else(|| Wrong(" must be an object".into())).and_then(|object| item(&object));
        turns.extend(turn.map_err(|wrong| wrong.at("input", format_args!("input[{n}]")))?);
    }
    Ok(turns)
}

/// One item as a turn of its own; those that go together are joined later. `None` for what tools of another upstream left
/// behind: what the model made of it stands in its words.
fn item<'a>(item: &Object<'a>) -> Result<Option<Turn<'a>>, Wrong> {
    let one = |speaker, content| Ok(Some(Turn { speaker, parts: vec![Part::new(content)] }));
    match &*item.text("type")?.unwrap_or_else(|| "message".into()) {
        "message" => message(item).map(Some),
        "function_call" => {
            let arguments = Arguments::Text(item.text("arguments")?.unwrap_or_default());
            one(Speaker::Assistant, call(item, arguments)?)
        }
        "custom_tool_call" => one(Speaker::Assistant, call(item, Arguments::Free(item.needs_text("input")?))?),
        "function_call_output" | "custom_tool_call_output" => {
            let result =
                ToolResult { id: item.needs_text("call_id")?, content: parts::result(item.get("output"))?, error: false };
            one(Speaker::User, Content::Result(result))
        }
        "reasoning" => Ok(reasoning(item)?
            .map(|thinking| Turn { speaker: Speaker::Assistant, parts: vec![Part::new(Content::Thinking(thinking))] })),
        "web_search_call" | "tool_search_call" | "tool_search_output" => Ok(None),
        "item_reference" => Err(Wrong(" names an item that is stored, and nothing is stored here; send the item itself".into())),
        kind => {
            let kind = quoted(kind);
            Err(Wrong(format!(" is of type {kind}, which this model does not know; send messages, calls of tools and outputs")))
        }
    }
}

fn message<'a>(item: &Object<'a>) -> Result<Turn<'a>, Wrong> {
    let speaker = match &*item.needs_text("role")? {
        "system" | "developer" => Speaker::System,
        "user" => Speaker::User,
        "assistant" => Speaker::Assistant,
        role => {
            let role = quoted(role);
            return Err(Wrong(format!(".role is {role}, which this model does not know; send user, assistant or developer")));
        }
    };
    parts::turn(speaker, parts::content(item.get("content"))?)
}

fn call<'a>(item: &Object<'a>, arguments: Arguments<'a>) -> Result<Content<'a>, Wrong> {
    let name = sent_as(item.text("namespace")?.as_deref(), item.needs_text("name")?);
    Ok(Content::Call(Call { id: item.needs_text("call_id")?, name, arguments }))
}

/// Thinking that this kind of upstream sealed itself; what another maker sealed it could not read.
fn reasoning<'a>(item: &Object<'a>) -> Result<Option<Thinking<'a>>, Wrong> {
    let sealed = item.text("encrypted_content")?.unwrap_or_default();
    match Sealed::read(&sealed) {
        None => Ok(None),
        Some(Sealed::Redacted(data)) => Ok(Some(Thinking::Redacted(data.to_owned().into()))),
        Some(Sealed::Thinking(signature)) => {
            let mut text = String::new();
            for part in item.list("summary")? {
                let part = part.object().ok_or_else(|| Wrong(".summary must be objects with a text".into()))?;
                text.push_str(&part.needs_text("text")?);
            }
            Ok(Some(Thinking::Signed { text: text.into(), signature: signature.to_owned().into() }))
        }
    }
}

fn format<'a>(text: &Object<'a>) -> Result<Option<Format<'a>>, Wrong> {
    let format = text.object("format")?;
    format.map_or(Ok(None), |format| named_format(&format, Some(&format)))
}

fn effort(body: &Object<'_>) -> Result<Option<Effort>, Error> {
    let wrong = |wrong: Wrong| wrong.at("reasoning", "reasoning");
    let reasoning = body.object("reasoning").map_err(|wrong| wrong.at("reasoning", "body"))?.unwrap_or_default();
    let word = reasoning.text("effort").map_err(wrong)?;
    word.map(|word| named_effort("reasoning", &word)).transpose()
}
