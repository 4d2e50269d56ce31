//! Writes a conversation as a body of chat completions.

use bytes::Bytes;

use super::Terms;
use super::conversation::{Arguments, Call, Content, Conversation, Format, Part, Picture, Source, Speaker, ToolResult, Turn};
use super::tools::{Choice, Takes, Tool};
use super::value::Value;
use super::writer::Writer;

/// A longer name of a user is refused by OpenAI's.
const MAX_USER_CHARS: usize = 64;

/// Writes what was arranged. Thinking stays behind: chat has no field in which upstreams take it back.
pub(super) fn write(conversation: &Conversation<'_>, terms: &Terms<'_>, room: usize) -> Bytes {
    let mut writer = Writer::with_capacity(room);
    writer.object(|body| {
        body.key("model").text(terms.model);
        body.key(terms.limit_field.name()).json(&terms.output_limit);
        if terms.stream {
            body.key("stream").raw("true");
            body.key("stream_options").raw(r#"{"include_usage":true}"#);
        }
        body.key("messages").array(|messages| conversation.turns.iter().for_each(|said| turn(messages, said)));
        tools(body, conversation);
        for (name, number) in [("temperature", conversation.sampling.temperature), ("top_p", conversation.sampling.top_p)] {
            number.into_iter().for_each(|number| body.key(name).raw(number));
        }
        if !conversation.stops.is_empty() {
            body.key("stop").json(&conversation.stops);
        }
        conversation.format.iter().for_each(|said| format(body, said));
        conversation.effort.iter().for_each(|effort| body.key("reasoning_effort").text(effort.name()));
        for (name, word) in [
            ("verbosity", &conversation.verbosity),
            ("user", &conversation.user.clone().filter(|user| user.chars().count() <= MAX_USER_CHARS)),
            ("prompt_cache_key", &conversation.cache_key),
        ] {
            word.iter().for_each(|word| body.key(name).text(word));
        }
    });
    writer.finish()
}

fn turn(messages: &mut Writer, turn: &Turn<'_>) {
    match turn.speaker {
        Speaker::System => messages.object(|message| {
            message.key("role").text("system");
            message.key("content").joined(&texts(&turn.parts), "\n\n");
        }),
        Speaker::User => user(messages, &turn.parts),
        Speaker::Assistant => assistant(messages, &turn.parts),
    }
}

fn texts<'p>(parts: &'p [Part<'_>]) -> Vec<&'p str> {
    parts.iter().filter_map(Part::text).collect()
}

/// Results of tools, each a message of its own, and then what the user says. Pictures that tools gave back go there as well,
/// each under a line that says whose it is: the results of this dialect are text.
fn user(messages: &mut Writer, parts: &[Part<'_>]) {
    let results: Vec<&ToolResult<'_>> = parts.iter().filter_map(result).collect();
    results.iter().for_each(|result| tool(messages, result));
    let from_tools = || results.iter().flat_map(|result| pictures(&result.content).map(|picture| (&*result.id, picture)));
    let said: Vec<&Part<'_>> = parts.iter().filter(|part| result(part).is_none()).collect();
    if let ([Part { content: Content::Text(text), .. }], None) = (&said[..], from_tools().next()) {
        messages.object(|message| {
            message.key("role").text("user");
            message.key("content").text(text);
        });
        return;
    }
    if said.is_empty() && from_tools().next().is_none() {
        return;
    }
    messages.object(|message| {
        message.key("role").text("user");
        message.key("content").array(|content| {
            for (id, found) in from_tools() {
                text(content, &format!("Picture from the tool result of {id}:"));
                picture(content, found);
            }
            for part in said {
                match &part.content {
                    Content::Picture(found) => picture(content, found),
                    other => other.text().into_iter().for_each(|said| text(content, said)),
                }
            }
        });
    });
}

impl Content<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn result<'p, 'a>(part: &'p Part<'a>) -> Option<&'p ToolResult<'a>> {
    match &part.content {
        Content::Result(result) => Some(result),
        _ => None,
    }
}

fn pictures<'p, 'a>(parts: &'p [Part<'a>]) -> impl Iterator<Item = &'p Picture<'a>> {
    parts.iter().filter_map(|part| match &part.content {
        Content::Picture(picture) => Some(picture),
        _ => None,
    })
}

/// What a tool gave back. That it failed is said in words, unless its own words begin so.
fn tool(messages: &mut Writer, result: &ToolResult<'_>) {
    let mut said = texts(&result.content);
    let says_so = said.first().is_some_and(|text| {
        let start = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).get(..5);
        start.is_some_and(|start| start.eq_ignore_ascii_case("error"))
    });
    if result.error && !says_so {
        said.insert(0, "Error:");
    }
    messages.object(|message| {
        message.key("role").text("tool");
        message.key("tool_call_id").text(&result.id);
        message.key("content").joined(&said, "\n\n");
    });
}

fn text(content: &mut Writer, text: &str) {
    content.object(|part| {
        part.key("type").text("text");
        part.key("text").text(text);
    });
}

fn picture(content: &mut Writer, picture: &Picture<'_>) {
    content.object(|part| {
        part.key("type").text("image_url");
        part.key("image_url").object(|url| {
            url.key("url");
            match &picture.source {
                Source::Url(address) => url.text(address),
                Source::Data { media_type, data } => url.joined(&["data:", media_type, ";base64,", data], ""),
            }
            let known = picture.detail.iter().filter(|detail| matches!(&***detail, "low" | "high" | "auto"));
            known.for_each(|detail| url.key("detail").text(detail));
        });
    });
}

/// What the assistant said and, after it, what it called: chat has no other order.
fn assistant(messages: &mut Writer, parts: &[Part<'_>]) {
    let said = texts(parts);
    let calls: Vec<&Call<'_>> = parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::Call(call) => Some(call),
            _ => None,
        })
        .collect();
    messages.object(|message| {
        message.key("role").text("assistant");
        match &said[..] {
            [] => message.key("content").raw("null"),
            said => message.key("content").joined(said, "\n\n"),
        }
        if !calls.is_empty() {
            message.key("tool_calls").array(|list| calls.into_iter().for_each(|made| call(list, made)));
        }
    });
}

fn call(list: &mut Writer, call: &Call<'_>) {
    list.object(|item| {
        item.key("id").text(&call.id);
        item.key("type").text("function");
        item.key("function").object(|function| {
            function.key("name").text(&call.name);
            function.key("arguments");
            match &call.arguments {
                Arguments::Object(json) => function.text(json),
                Arguments::Text(text) if text.trim().is_empty() => function.text("{}"),
                Arguments::Text(text) => function.text(text),
                Arguments::Free(input) => function.text(&free(input)),
            }
        });
    });
}

/// The arguments of a tool that takes free text.
fn free(input: &str) -> String {
    serde_json::json!({ "input": input }).to_string()
}

fn tools(body: &mut Writer, conversation: &Conversation<'_>) {
    if conversation.tools.is_empty() {
        return;
    }
    body.key("tools").array(|list| {
        for tool in &conversation.tools {
            list.object(|item| {
                item.key("type").text("function");
                item.key("function").object(|function| declare(function, tool));
            });
        }
    });
    if let Some(choice) = &conversation.choice {
        body.key("tool_choice");
        match choice {
            Choice::Auto => body.text("auto"),
            Choice::None => body.text("none"),
            Choice::Required => body.text("required"),
            Choice::Tool(name) => body.object(|choice| {
                choice.key("type").text("function");
                choice.key("function").object(|function| function.key("name").text(name));
            }),
        }
    }
    conversation.parallel.iter().for_each(|parallel| body.key("parallel_tool_calls").json(parallel));
}

fn declare(function: &mut Writer, tool: &Tool<'_>) {
    function.key("name").text(&tool.sent_as);
    tool.description.iter().for_each(|text| function.key("description").text(text));
    function.key("parameters");
    schema(function, &tool.takes);
    tool.strict.iter().for_each(|strict| function.key("strict").json(strict));
}

/// The schema of what a tool takes. It is of type object and has properties, which OpenAI's and Anthropic's want said.
pub(super) fn schema(writer: &mut Writer, takes: &Takes<'_>) {
    match takes {
        Takes::Text => writer.raw(
            r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#,
        ),
        Takes::Object(said) => {
            let said = said.and_then(Value::object).unwrap_or_default();
            writer.object(|schema| {
                for (name, value) in [("type", r#""object""#), ("properties", "{}")] {
                    if said.get(name).is_none() {
                        schema.key(name).raw(value);
                    }
                }
                said.members().for_each(|(name, value)| schema.key(name).raw(value.raw()));
            });
        }
    }
}

fn format(body: &mut Writer, format: &Format<'_>) {
    body.key("response_format").object(|said| match format {
        Format::Json => said.key("type").text("json_object"),
        Format::Schema { name, description, schema, strict } => {
            said.key("type").text("json_schema");
            said.key("json_schema").object(|inner| {
                inner.key("name").text(name.as_deref().unwrap_or("answer"));
                description.iter().for_each(|text| inner.key("description").text(text));
                inner.key("schema").raw(schema);
                strict.iter().for_each(|strict| inner.key("strict").json(strict));
            });
        }
    });
}
