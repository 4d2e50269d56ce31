//! The parts that messages are made of, in the words of all three dialects: callers mix them, and no word has two meanings.

use std::borrow::Cow;

use super::conversation::{Arguments, Call, Content, Part, Picture, Source, Speaker, Thinking, ToolResult, Turn};
use super::value::{Object, Value, Wrong, quoted};

/// One message as a turn.
pub(super) fn turn<'a>(speaker: Speaker, parts: Vec<Part<'a>>) -> Result<Turn<'a>, Wrong> {
    let may_say = |content: &Content<'a>| match speaker {
        Speaker::System => matches!(content, Content::Text(_)),
        Speaker::User => matches!(content, Content::Text(_) | Content::Picture(_) | Content::Result(_)),
        Speaker::Assistant => matches!(content, Content::Text(_) | Content::Call(_) | Content::Thinking(_)),
    };
    match parts.iter().find(|part| !may_say(&part.content)) {
        None => Ok(Turn { speaker, parts }),
        Some(part) => Err(Wrong(format!(
            " has {}, which a message of its role cannot have with this model; leave it out or send it as the user",
            part.content.noun()
        ))),
    }
}

impl Content<'_> {
    fn noun(&self) -> &'static str {
        match self {
            Content::Text(_) => "a text",
            Content::Picture(_) => "a picture",
            Content::Call(_) => "a call of a tool",
            Content::Result(_) => "the result of a tool",
            Content::Thinking(_) => "thinking",
        }
    }
}

/// Where content stands. What it may hold shrinks from one to the next, so that nothing nests without end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Within {
    Message,
    ToolResult,
    SearchResult,
}

/// The content of a message: nothing, a text, or parts.
pub(super) fn content<'a>(value: Option<Value<'a>>) -> Result<Vec<Part<'a>>, Wrong> {
    content_of(Within::Message, value)
}

/// What a tool gave back. It is text and pictures in every dialect.
pub(super) fn result<'a>(value: Option<Value<'a>>) -> Result<Vec<Part<'a>>, Wrong> {
    content_of(Within::ToolResult, value)
}

fn content_of<'a>(within: Within, value: Option<Value<'a>>) -> Result<Vec<Part<'a>>, Wrong> {
    let Some(value) = value else { return Ok(Vec::new()) };
    if let Some(text) = value.text() {
        return Ok(vec![Part::said(text)]);
    }
    let wrong = || Wrong(" must have a text or an array of parts as content".into());
    let mut parts: Vec<Part<'a>> = Vec::new();
    for part in value.list().ok_or_else(wrong)? {
        let part = part.object().ok_or_else(|| Wrong(" has a content part that is not an object with a type".into()))?;
        if let Some(content) = one(within, &part)? {
            parts.push(Part { content, cache: part.get("cache_control").map(Value::raw) });
        }
    }
    Ok(parts)
}

/// One part; `None` for thinking that nobody can take back.
fn one<'a>(within: Within, part: &Object<'a>) -> Result<Option<Content<'a>>, Wrong> {
    let kind = part.needs_text("type")?;
    let most = match &*kind {
        "text" | "input_text" | "output_text" | "refusal" => Within::SearchResult,
        "image_url" | "input_image" | "image" | "document" | "search_result" => Within::ToolResult,
        _ => Within::Message,
    };
    if within > most {
        return Err(Wrong(format!(" has content of type {} inside a result; send text or pictures there", quoted(&kind))));
    }
    let content = match &*kind {
        "text" | "input_text" | "output_text" => Content::Text(part.needs_text("text")?),
        "refusal" => Content::Text(part.needs_text("refusal")?),
        "image_url" | "input_image" | "image" => Content::Picture(picture(part)?),
        "document" => Content::Text(document(part)?),
        "search_result" => Content::Text(search_result(part)?),
        "tool_use" => Content::Call(Call {
            id: part.text("id")?.unwrap_or_default(),
            name: part.needs_text("name")?,
            arguments: Arguments::Object(input(part)?),
        }),
        "tool_result" => Content::Result(ToolResult {
            id: part.needs_text("tool_use_id")?,
            content: result(part.get("content"))?,
            error: part.get("is_error").is_some_and(Value::is_true),
        }),
        "thinking" => match part.text("signature")?.filter(|signature| !signature.is_empty()) {
            Some(signature) => Content::Thinking(Thinking::Signed { text: part.needs_text("thinking")?, signature }),
            None => return Ok(None),
        },
        "redacted_thinking" => Content::Thinking(Thinking::Redacted(part.needs_text("data")?)),
        kind => {
            let kind = quoted(kind);
            return Err(Wrong(format!(" has content of type {kind}, which this model does not take; send text or pictures")));
        }
    };
    Ok(Some(content))
}

fn input<'a>(part: &Object<'a>) -> Result<&'a str, Wrong> {
    match part.get("input") {
        None => Ok("{}"),
        Some(input) if input.is_object() => Ok(input.raw()),
        Some(_) => Err(Wrong(" has a tool_use whose input is not an object".into())),
    }
}

/// A picture: `image_url` (a URL, or an object with one) or `source`, which is Anthropic's.
fn picture<'a>(part: &Object<'a>) -> Result<Picture<'a>, Wrong> {
    let missing = || Wrong(" has a picture without a source; give it a URL or base64 data".into());
    if let Some(source) = part.object("source")? {
        let source = match source.text("data")? {
            Some(data) => Source::Data { media_type: media_type(source.needs_text("media_type")?)?, data },
            None => from_url(source.text("url")?.ok_or_else(missing)?)?,
        };
        return Ok(Picture { source, detail: None });
    }
    let value = part.get("image_url").ok_or_else(missing)?;
    let Some(object) = value.object() else {
        let url = value.text().ok_or_else(missing)?;
        return Ok(Picture { source: from_url(url)?, detail: part.text("detail")? });
    };
    let url = object.text("url")?.ok_or_else(missing)?;
    Ok(Picture { source: from_url(url)?, detail: object.text("detail")? })
}

fn from_url(url: Cow<'_, str>) -> Result<Source<'_>, Wrong> {
    let is_data = url.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:"));
    if !is_data {
        return Ok(Source::Url(url));
    }
    let wrong = || Wrong(" has a picture whose data: URL is not data:image/...;base64,...; encode it so".into());
    let comma = url.find(',').ok_or_else(wrong)?;
    let named = url[5..comma].strip_suffix(";base64").ok_or_else(wrong)?;
    let named = named.split(';').next().unwrap_or_default().len();
    let (media, data) = match url {
        Cow::Borrowed(url) => (Cow::Borrowed(&url[5..5 + named]), Cow::Borrowed(&url[comma + 1..])),
        Cow::Owned(url) => (Cow::Owned(url[5..5 + named].to_owned()), Cow::Owned(url[comma + 1..].to_owned())),
    };
    Ok(Source::Data { media_type: media_type(media)?, data })
}

/// Upstreams know one spelling of each.
fn media_type(named: Cow<'_, str>) -> Result<Cow<'_, str>, Wrong> {
    match &*named {
        "image/jpg" => Ok("image/jpeg".into()),
        name if name.starts_with("image/") => Ok(named),
        name => {
            let name = quoted(name);
            Err(Wrong(format!(" has a picture of the media type {name}; send image/png, image/jpeg, image/gif or image/webp")))
        }
    }
}

/// A document that is text, with its title. No others are sold.
fn document<'a>(part: &Object<'a>) -> Result<Cow<'a, str>, Wrong> {
    let source = part.object("source")?.unwrap_or_default();
    if source.text("type")?.as_deref() != Some("text") {
        return Err(Wrong(" has a document that is not plain text, which is not sold here; send its text".into()));
    }
    let text = source.needs_text("data")?;
    let before = [part.text("title")?, part.text("context")?];
    Ok(headed(before.into_iter().flatten(), text))
}

fn search_result<'a>(part: &Object<'a>) -> Result<Cow<'a, str>, Wrong> {
    let texts = content_of(Within::SearchResult, part.get("content"))?;
    let text = texts.iter().filter_map(Part::text).collect::<Vec<_>>().join("\n\n");
    let before = [part.text("title")?, part.text("source")?];
    Ok(headed(before.into_iter().flatten(), text.into()))
}

fn headed<'a>(before: impl Iterator<Item = Cow<'a, str>>, text: Cow<'a, str>) -> Cow<'a, str> {
    let head: String = before.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    if head.is_empty() { text } else { (head + &text).into() }
}
