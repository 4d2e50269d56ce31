//! Writes a conversation as a body of messages.

use std::borrow::Cow;

use bytes::Bytes;

use super::Terms;
use super::claude::{Generation, Thinks};
use super::conversation::{Arguments, Call, Content, Conversation, Format, Part, Picture, Source, Speaker, Thinking, Turn};
use super::tools::{Choice, Tool};
use super::value::Value;
use super::write_chat::schema;
use super::writer::Writer;

/// Said first where the assistant would be: a conversation begins with the user.
const BEGINNING: &str = ".";
/// What chat's `json_object` promises, in words, for there is no field. Its tokens are fewer than the bytes of that field,
/// each of which was quoted as one.
const ASKS_FOR_JSON: &str = "Answer with one JSON object, without a code fence.";
/// A longer name of a user is refused; so is one that could be an address of mail.
const MAX_USER_CHARS: usize = 256;

/// Writes what was arranged: all instructions first, turns that alternate and begin with the user.
pub(super) fn write(mut conversation: Conversation<'_>, terms: &Terms<'_>, room: usize) -> Bytes {
    let system = hoist(&mut conversation);
    trim_prefill(&mut conversation.turns);
    let mut writer = Writer::with_capacity(room);
    writer.object(|body| {
        body.key("model").text(terms.model);
        body.key("max_tokens").json(&terms.output_limit);
        if terms.stream {
            body.key("stream").raw("true");
        }
        if !system.is_empty() {
            body.key("system").array(|blocks| instructions(blocks, &system));
        }
        body.key("messages").array(|messages| {
            if conversation.turns.first().is_some_and(|first| first.speaker == Speaker::Assistant) {
                turn(messages, &Turn { speaker: Speaker::User, parts: vec![Part::said(BEGINNING)] });
            }
            conversation.turns.iter().for_each(|said| turn(messages, said));
        });
        tools(body, &conversation);
        let thinks = thinking(body, &conversation, terms);
        sampling(body, &conversation, terms, thinks);
        if !conversation.stops.is_empty() {
            body.key("stop_sequences").json(&conversation.stops);
        }
        let user = conversation.user.as_ref().filter(|user| user.chars().count() <= MAX_USER_CHARS && !user.contains('@'));
        if let Some(user) = user {
            body.key("metadata").object(|metadata| metadata.key("user_id").text(user));
        }
    });
    writer.finish()
}

/// Takes all instructions out of the turns, wherever they stand. Where there are only instructions, the last of them is what
/// the user says.
fn hoist<'a>(conversation: &mut Conversation<'a>) -> Vec<Part<'a>> {
    let mut system = Vec::new();
    let mut turns: Vec<Turn<'a>> = Vec::with_capacity(conversation.turns.len());
    for mut turn in std::mem::take(&mut conversation.turns) {
        match turns.last_mut() {
            _ if turn.speaker == Speaker::System => system.append(&mut turn.parts),
            Some(last) if last.speaker == turn.speaker => last.parts.append(&mut turn.parts),
            _ => turns.push(turn),
        }
    }
    if turns.is_empty() {
        turns.push(Turn { speaker: Speaker::User, parts: system.pop().into_iter().collect() });
    }
    if matches!(conversation.format, Some(Format::Json)) {
        system.push(Part::said(ASKS_FOR_JSON));
    }
    conversation.turns = turns;
    system
}

/// Where the assistant's words come last, the answer goes on with them; they must not end in white space.
fn trim_prefill(turns: &mut [Turn<'_>]) {
    let last = turns.last_mut().filter(|turn| turn.speaker == Speaker::Assistant).and_then(|turn| turn.parts.last_mut());
    if let Some(Part { content: Content::Text(text), .. }) = last {
        let end = text.trim_end().len();
        match text {
            Cow::Borrowed(text) => *text = &text[..end],
            Cow::Owned(text) => text.truncate(end),
        }
    }
}

/// Instructions in as few blocks as their marks for the cache allow.
fn instructions(blocks: &mut Writer, parts: &[Part<'_>]) {
    for group in parts.split_inclusive(|part| part.cache.is_some()) {
        let texts: Vec<&str> = group.iter().filter_map(Part::text).collect();
        blocks.object(|block| {
            block.key("type").text("text");
            block.key("text").joined(&texts, "\n\n");
            mark(block, group.last().and_then(|part| part.cache));
        });
    }
}

fn mark(block: &mut Writer, cache: Option<&str>) {
    cache.iter().for_each(|cache| block.key("cache_control").raw(cache));
}

fn turn(messages: &mut Writer, turn: &Turn<'_>) {
    messages.object(|message| {
        message.key("role").text(if turn.speaker == Speaker::Assistant { "assistant" } else { "user" });
        message.key("content").array(|content| turn.parts.iter().for_each(|said| part(content, said)));
    });
}

fn part(content: &mut Writer, part: &Part<'_>) {
    content.object(|block| {
        match &part.content {
            Content::Text(text) => {
                block.key("type").text("text");
                block.key("text").text(text);
            }
            Content::Picture(found) => picture(block, found),
            Content::Call(made) => call(block, made),
            Content::Result(result) => {
                block.key("type").text("tool_result");
                block.key("tool_use_id").text(&result.id);
                if !result.content.is_empty() {
                    block.key("content").array(|inner| result.content.iter().for_each(|found| self::part(inner, found)));
                }
                if result.error {
                    block.key("is_error").raw("true");
                }
            }
            Content::Thinking(Thinking::Signed { text, signature }) => {
                block.key("type").text("thinking");
                block.key("thinking").text(text);
                block.key("signature").text(signature);
                return;
            }
            Content::Thinking(Thinking::Redacted(data)) => {
                block.key("type").text("redacted_thinking");
                block.key("data").text(data);
                return;
            }
        }
        mark(block, part.cache);
    });
}

fn picture(block: &mut Writer, picture: &Picture<'_>) {
    block.key("type").text("image");
    block.key("source").object(|source| match &picture.source {
        Source::Url(url) => {
            source.key("type").text("url");
            source.key("url").text(url);
        }
        Source::Data { media_type, data } => {
            source.key("type").text("base64");
            source.key("media_type").text(media_type);
            source.key("data").text(data);
        }
    });
}

/// A call. What a model wrote that is no JSON object stays readable as one: the conversation goes on, and with it the
/// tool's complaint.
fn call(block: &mut Writer, call: &Call<'_>) {
    block.key("type").text("tool_use");
    block.key("id").text(&call.id);
    block.key("name").text(&call.name);
    block.key("input");
    match &call.arguments {
        Arguments::Object(json) => block.raw(json),
        Arguments::Text(text) if text.trim().is_empty() => block.raw("{}"),
        Arguments::Text(text) => match Value::embedded_object(text) {
            Some(object) => block.raw(object.raw()),
            None => block.object(|input| input.key("_raw").text(text)),
        },
        Arguments::Free(text) => block.object(|input| input.key("input").text(text)),
    }
}

fn tools(body: &mut Writer, conversation: &Conversation<'_>) {
    if conversation.tools.is_empty() {
        return;
    }
    body.key("tools").array(|list| conversation.tools.iter().for_each(|tool| list.object(|item| declare(item, tool))));
    let one_at_a_time = conversation.parallel == Some(false);
    let choice = match &conversation.choice {
        None if one_at_a_time => &Choice::Auto,
        None => return,
        Some(choice) => choice,
    };
    body.key("tool_choice").object(|said| {
        said.key("type").text(match choice {
            Choice::Auto => "auto",
            Choice::None => "none",
            Choice::Required => "any",
            Choice::Tool(_) => "tool",
        });
        if let Choice::Tool(name) = choice {
            said.key("name").text(name);
        }
        if one_at_a_time && *choice != Choice::None {
            said.key("disable_parallel_tool_use").raw("true");
        }
    });
}

fn declare(item: &mut Writer, tool: &Tool<'_>) {
    item.key("name").text(&tool.sent_as);
    tool.description.iter().for_each(|text| item.key("description").text(text));
    item.key("input_schema");
    schema(item, &tool.takes);
    mark(item, tool.cache);
}

/// How to think, and the form of the answer, which share a field. Whether it thinks.
fn thinking(body: &mut Writer, conversation: &Conversation<'_>, terms: &Terms<'_>) -> bool {
    let asked = conversation.effort.map_or(Thinks::No, |effort| {
        let forced = matches!(conversation.choice, Some(Choice::Required | Choice::Tool(_))) && !conversation.tools.is_empty();
        let may_think = !forced && thinking_was_kept(&conversation.turns);
        Generation::of(terms.model).thinks(effort, terms.output_limit, forced, may_think)
    });
    let (thinks, effort) = match (conversation.thinking, asked) {
        (Some(said), _) => {
            body.key("thinking").raw(said);
            let kind = Value::read(said.as_bytes()).ok().and_then(Value::object).and_then(|said| said.get("type"));
            (kind.and_then(Value::text).as_deref() != Some("disabled"), None)
        }
        (None, Thinks::No) => (false, None),
        (None, Thinks::AsMuchAs(tokens)) => {
            body.key("thinking").object(|thinking| {
                thinking.key("type").text("enabled");
                thinking.key("budget_tokens").json(&tokens);
            });
            (true, None)
        }
        (None, Thinks::WithEffort { effort, adaptive }) => {
            if adaptive {
                body.key("thinking").raw(r#"{"type":"adaptive"}"#);
            }
            (adaptive, Some(effort))
        }
    };
    let schema = match &conversation.format {
        Some(Format::Schema { schema, .. }) => Some(schema),
        _ => None,
    };
    if effort.is_some() || schema.is_some() {
        body.key("output_config").object(|config| {
            effort.iter().for_each(|effort| config.key("effort").text(effort.name()));
            if let Some(schema) = schema {
                config.key("format").object(|format| {
                    format.key("type").text("json_schema");
                    format.key("schema").raw(schema);
                });
            }
        });
    }
    thinks
}

/// Whether the thinking that led to the last calls of tools is there, if their results come last.
fn thinking_was_kept(turns: &[Turn<'_>]) -> bool {
    match turns {
        [.., called, answered] if answered.parts.iter().any(|part| matches!(part.content, Content::Result(_))) => {
            called.parts.first().is_some_and(|part| matches!(part.content, Content::Thinking(_)))
        }
        _ => true,
    }
}

/// Upstreams refuse any of it beside thinking, two of it at once, and later models all of it.
fn sampling(body: &mut Writer, conversation: &Conversation<'_>, terms: &Terms<'_>, thinks: bool) {
    if thinks || !Generation::of(terms.model).takes_sampling() {
        return;
    }
    let said = &conversation.sampling;
    if let Some(temperature) = said.temperature {
        body.key("temperature").raw(within_one(temperature));
    } else if let Some(top_p) = said.top_p {
        body.key("top_p").raw(top_p);
    }
    said.top_k.iter().for_each(|top_k| body.key("top_k").raw(top_k));
}

/// Temperatures go up to 2 in chat, and up to 1 here.
fn within_one(temperature: &str) -> &str {
    let number = serde_json::from_str::<serde_json::Number>(temperature).ok().and_then(|number| number.as_f64());
    match number {
        Some(number) if number < 0.0 => "0",
        Some(number) if number <= 1.0 => temperature,
        _ => "1",
    }
}
