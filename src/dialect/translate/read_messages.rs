//! Reads a body of messages.

use super::super::fields::refused;
use super::conversation::{Conversation, Format, Speaker, Turn};
use super::parts;
use super::read_chat::{object, sampling};
use super::tools::{self, Choice};
use super::value::{Object, Value, Wrong, quoted};
use crate::error::Error;

/// What Claude Code puts before its instructions for the eyes of Anthropic: it differs in every call and instructs nobody.
const NOT_AN_INSTRUCTION: &str = "x-anthropic-billing-header:";

/// Says in no dialect what a messages body says. How to think and how to keep the context short is left to the other upstream,
/// and marks for the cache to its own ways: a model there may know none of them, and refuse them.
pub(super) fn read(body: Value<'_>) -> Result<Conversation<'_>, Error> {
    let body = object(body)?;
    let mut conversation = Conversation::default();
    let mut system = parts::content(body.get("system")).map_err(|wrong| wrong.at("system", "system"))?;
    system.retain(|part| part.text().is_none_or(|text| !text.starts_with(NOT_AN_INSTRUCTION)));
    let system = parts::turn(Speaker::System, system).map_err(|wrong| wrong.at("system", "system"))?;
    conversation.turns.push(system);
    for (n, message) in body.list("messages").map_err(|wrong| wrong.at("messages", "messages"))?.into_iter().enumerate() {
        let turn = turn(message).map_err(|wrong| wrong.at("messages", format_args!("messages[{n}]")))?;
        conversation.turns.push(turn);
    }
    let tools = body.list("tools").and_then(|list| tools::read(&list)).map_err(|wrong| wrong.at("tools", "tools"))?;
    conversation.tools = tools;
    read_choice(&body, &mut conversation).map_err(|wrong| wrong.at("tool_choice", "tool_choice"))?;
    let stops = body.list("stop_sequences").ok().and_then(|list| list.into_iter().map(Value::text).collect());
    conversation.stops = stops.ok_or_else(|| refused("stop_sequences", "stop_sequences must be an array of strings"))?;
    conversation.sampling = sampling(&body)?;
    conversation.format = format(&body)?;
    let metadata = body.object("metadata").map_err(|wrong| wrong.at("metadata", "body"))?.unwrap_or_default();
    conversation.user = metadata.text("user_id").map_err(|wrong| wrong.at("metadata", "metadata"))?;
    Ok(conversation)
}

fn turn(message: Value<'_>) -> Result<Turn<'_>, Wrong> {
    let message = message.object().ok_or_else(|| Wrong(" must be an object with a role and content".into()))?;
    let speaker = match &*message.needs_text("role")? {
        "user" => Speaker::User,
        "assistant" => Speaker::Assistant,
        "system" => Speaker::System,
        role => {
            let role = quoted(role);
            return Err(Wrong(format!(".role is {role}, which this model does not know; send user or assistant")));
        }
    };
    parts::turn(speaker, parts::content(message.get("content"))?)
}

fn read_choice<'a>(body: &Object<'a>, conversation: &mut Conversation<'a>) -> Result<(), Wrong> {
    conversation.choice = tools::choice(body.get("tool_choice"), &mut conversation.tools)?;
    let one_at_a_time =
        body.get("tool_choice").and_then(Value::object).and_then(|choice| choice.get("disable_parallel_tool_use"));
    if conversation.choice != Some(Choice::None) && one_at_a_time.is_some_and(Value::is_true) {
        conversation.parallel = Some(false);
    }
    Ok(())
}

/// The schema of the answer, by its newer name or the older one.
fn format<'a>(body: &Object<'a>) -> Result<Option<Format<'a>>, Error> {
    let config = body.object("output_config").map_err(|wrong| wrong.at("output_config", "body"))?.unwrap_or_default();
    let (param, said) = match config.get("format") {
        Some(format) => ("output_config", format),
        None => match body.get("output_format") {
            Some(format) => ("output_format", format),
            None => return Ok(None),
        },
    };
    let wrong = || refused(param, format!("{param} must have the type json_schema and a schema, which is an object"));
    let format = said.object().ok_or_else(wrong)?;
    let schema = format.get("schema").filter(|schema| schema.is_object()).ok_or_else(wrong)?.raw();
    Ok(Some(Format::Schema { name: None, description: None, schema, strict: None }))
}
