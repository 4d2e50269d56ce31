//! How much goes into a call: an upper bound of the tokens that a request's text can be, and its pictures counted apart.

mod responses;

use std::borrow::Cow;

use serde::Deserialize;

use super::Dialect;
use super::cursor::{Cursor, Text};
use crate::error::{Code, Error};
use crate::tariff::CacheUse;

pub(super) use responses::is_caller_run;

/// What a request holds. A token is at least one byte of text, so `bytes` is an upper bound of its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Text and JSON structure, without the bytes of pictures.
    pub bytes: u64,
    pub pictures: u64,
    pub messages: u64,
    pub cache: CacheUse,
    /// Whether the conversation is `input`, as on responses, and not `messages`.
    in_input: bool,
}

/// Content parts of type text, and those whose JSON the upstream reads as text. What is not here (files, audio, video,
/// results of server-side tools) has a size that its bytes do not show, and is refused.
const TEXT_PARTS: [&str; 11] = [
    "text",
    "input_text",
    "output_text",
    "refusal",
    "thinking",
    "redacted_thinking",
    "reasoning_text",
    "summary_text",
    "tool_use",
    "tool_result",
    "search_result",
];
const PICTURE_PARTS: [&str; 3] = ["image_url", "image", "input_image"];
/// Tools that the caller runs. Those that the upstream runs cost per use, or call further models.
const CALLER_RUN_TOOLS: [&str; 6] = ["function", "custom", "bash_", "text_editor_", "computer_", "memory_"];

fn refused(param: &'static str, message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, message).param(param)
}

impl Weight {
    /// Adds any JSON value as text.
    pub fn add(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        match cursor.peek()? {
            b'"' => self.bytes += cursor.string()?.weight + 3,
            b'{' => {
                self.bytes += 2;
                return cursor.object(|key, cursor| self.member(key, &key.decode()?, cursor));
            }
            b'[' => {
                self.bytes += 2;
                return cursor.array(|cursor| self.add(cursor));
            }
            _ => self.bytes += cursor.scalar()?.len() as u64 + 1,
        }
        Ok(())
    }

    /// Adds a member whose value has no meaning of its own, except that any `cache_control` makes input dearer.
    pub fn member(&mut self, key: Text<'_>, name: &str, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        self.key(key);
        if name == "cache_control" { self.add_cache_control(cursor) } else { self.add(cursor) }
    }

    /// Adds the value of a `cache_control`, wherever it stands.
    pub fn add_cache_control(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        let (raw, ()) = cursor.slice(|cursor| self.add(cursor))?;
        self.cache = self.cache.max(cache_use(raw));
        Ok(())
    }

    /// A key with its quotes, colon and comma.
    fn key(&mut self, key: Text<'_>) {
        self.bytes += key.weight + 4;
    }

    /// The field in which the conversation stands.
    fn list(&self) -> &'static str {
        if self.in_input { "input" } else { "messages" }
    }

    /// What is wrong with the message or item that is being read.
    fn wrong(&self, what: &str) -> Error {
        refused(self.list(), format!("{}[{}] {what}", self.list(), self.messages.saturating_sub(1)))
    }

    /// Adds `messages`, and refuses what is not a conversation or cannot be weighed.
    pub fn add_messages(&mut self, dialect: Dialect, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        if cursor.peek()? != b'[' {
            return Err(refused("messages", "messages must be an array of messages, each with a role and content"));
        }
        cursor.array(|cursor| self.add_message(dialect, cursor))?;
        if self.messages == 0 {
            return Err(refused("messages", "messages is empty; send at least one message"));
        }
        Ok(())
    }

    fn add_message(&mut self, dialect: Dialect, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        self.messages += 1;
        if cursor.peek()? != b'{' {
            return Err(self.wrong("must be an object with a role and content"));
        }
        let (mut role, mut content) = (false, false);
        cursor.object(|key, cursor| match &*key.decode()? {
            "role" if !role && cursor.peek()? == b'"' => {
                role = true;
                self.key(key);
                self.add(cursor)
            }
            "role" => Err(self.wrong("must have one role, a string")),
            // Some upstreams take pictures of earlier answers beside their content.
            "images" => {
                self.key(key);
                self.add_content(cursor)
            }
            "content" => {
                content |= cursor.peek()? != b'n';
                self.key(key);
                self.add_content(cursor)
            }
            name => self.member(key, name, cursor),
        })?;
        if !role {
            return Err(self.wrong("has no role; give it one, such as \"user\""));
        }
        if !content && dialect == Dialect::Messages {
            return Err(self.wrong("has no content; give it a text"));
        }
        Ok(())
    }

    /// Adds the content of a message or of a tool's result: a text, parts, or (where a tool is called instead) nothing.
    fn add_content(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        match cursor.peek()? {
            b'"' | b'n' => self.add(cursor),
            b'[' => cursor.array(|cursor| self.add_part(cursor)),
            _ => Err(self.wrong("must have a text or an array of parts as content")),
        }
    }

    fn add_part(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        if cursor.peek()? != b'{' {
            return Err(self.wrong("has a content part that is not an object with a type"));
        }
        self.bytes += 2;
        let mut kind: Option<Cow<'_, str>> = None;
        let mut picture = Picture::default();
        cursor.object(|key, cursor| match &*key.decode()? {
            "type" if kind.is_none() && cursor.peek()? == b'"' => {
                self.key(key);
                let text = cursor.string()?;
                self.bytes += text.weight;
                kind = Some(text.decode()?);
                Ok(())
            }
            "type" => Err(self.wrong("has a content part whose type is not one string")),
            "image_url" | "source" => {
                self.key(key);
                self.add_picture(&mut picture, cursor)
            }
            // It would be read from the operator's account.
            "file_id" if self.in_input && cursor.peek()? != b'n' => {
                Err(self
                    .wrong("has a stored file as content, and nothing is stored here; send its text, or a picture as image_url"))
            }
            // Of a tool's result. Other parts have none, and an upstream reads none there.
            "content" => {
                self.key(key);
                self.add_content(cursor)
            }
            name => self.member(key, name, cursor),
        })?;
        let kind = kind.ok_or_else(|| self.wrong("has a content part without a type"))?;
        if PICTURE_PARTS.contains(&&*kind) {
            self.pictures += 1;
            return picture.check(self.list());
        }
        // Whatever would have been the bytes of a picture is text here.
        self.bytes += picture.bytes;
        if TEXT_PARTS.contains(&&*kind) || (kind == "document" && picture.source == Source::Text) {
            return Ok(());
        }
        let kind: String = kind.chars().take(40).collect();
        Err(self.wrong(&format!("has content of type {kind:?}, which is not sold here; send text or pictures")))
    }

    /// Reads `image_url` (a URL, or an object with one) or `source` (Anthropic's, with a URL or base64 data).
    fn add_picture(&mut self, picture: &mut Picture, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        match cursor.peek()? {
            b'"' => picture.url(cursor.string()?),
            b'{' => cursor.object(|key, cursor| {
                let name = key.decode()?;
                if !matches!(&*name, "url" | "data" | "type") || cursor.peek()? != b'"' {
                    return self.member(key, &name, cursor);
                }
                self.key(key);
                let text = cursor.string()?;
                match &*name {
                    "url" => picture.url(text),
                    "data" => picture.data(text),
                    _ => {
                        self.bytes += text.weight;
                        picture.source = picture.source.and(Source::named(&text.decode()?));
                    }
                }
                Ok(())
            })?,
            _ => self.add(cursor)?,
        }
        Ok(())
    }

    /// Adds `tools`, and refuses those that run at the upstream.
    pub fn add_tools(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        match cursor.peek()? {
            b'n' => return self.add(cursor),
            b'[' => {}
            _ => return Err(refused("tools", "tools must be an array of tools")),
        }
        cursor.array(|cursor| {
            if cursor.peek()? != b'{' {
                return Err(refused("tools", "each of the tools must be an object"));
            }
            self.bytes += 2;
            let mut named = false;
            cursor.object(|key, cursor| {
                let name = key.decode()?;
                if name == "type" && cursor.peek()? != b'n' {
                    let (raw, ()) = cursor.slice(|cursor| self.member(key, &name, cursor))?;
                    return if std::mem::replace(&mut named, true) {
                        Err(server_tool("tools", "(given twice)"))
                    } else {
                        check_tool(raw)
                    };
                }
                self.member(key, &name, cursor)
            })
        })
    }
}

fn check_tool(raw: &str) -> Result<(), Error> {
    let kind = serde_json::from_str::<Cow<'_, str>>(raw).map_err(|_| refused("tools", "the type of a tool must be a string"))?;
    let known = CALLER_RUN_TOOLS.iter().any(|tool| if tool.ends_with('_') { kind.starts_with(tool) } else { kind == *tool });
    if known { Ok(()) } else { Err(server_tool("tools", &kind.chars().take(40).collect::<String>())) }
}

fn server_tool(field: &'static str, kind: &str) -> Error {
    refused(field, format!("tools of type {kind:?} are not sold here; send only tools that you run yourself"))
}

/// Where the picture (or document) of a content part comes from.
#[derive(Default)]
struct Picture {
    /// Of URL and data, which are not text.
    bytes: u64,
    urls: u32,
    data: u32,
    foreign_scheme: bool,
    source: Source,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Source {
    #[default]
    Unnamed,
    Url,
    Base64,
    Text,
    /// Such as a file stored under the operator's account, which is not the caller's to read.
    Other,
}

impl Source {
    fn named(name: &str) -> Source {
        match name {
            "url" => Source::Url,
            "base64" => Source::Base64,
            "text" => Source::Text,
            _ => Source::Other,
        }
    }

    /// A source named twice is none that we know.
    fn and(self, other: Source) -> Source {
        if self == Source::Unnamed { other } else { Source::Other }
    }
}

impl Picture {
    fn url(&mut self, text: Text<'_>) {
        self.urls += 1;
        self.bytes += text.weight;
        // Some encoders write `https:\/\/`.
        let start: String = text.raw().chars().filter(|c| *c != '\\').take(8).collect::<String>().to_ascii_lowercase();
        self.foreign_scheme |= !["http://", "https://", "data:"].iter().any(|scheme| start.starts_with(scheme));
    }

    fn data(&mut self, text: Text<'_>) {
        self.data += 1;
        self.bytes += text.weight;
    }

    /// We never fetch a caller's URL; the upstream does, and only what the web serves.
    fn check(&self, list: &'static str) -> Result<(), Error> {
        if self.foreign_scheme {
            return Err(refused(list, "a picture's URL must start with https://, http:// or data:"));
        }
        if self.urls + self.data != 1 || matches!(self.source, Source::Text | Source::Other) {
            return Err(refused(list, "a picture must have one source: a URL or base64 data"));
        }
        Ok(())
    }
}

/// How long a `cache_control` keeps its prompt; what cannot be read is taken for the dearest.
fn cache_use(raw: &str) -> CacheUse {
    #[derive(Deserialize)]
    struct Control<'a> {
        #[serde(borrow)]
        ttl: Option<Cow<'a, str>>,
    }
    match serde_json::from_str::<Option<Control<'_>>>(raw) {
        Ok(None) => CacheUse::None,
        Ok(Some(control)) if control.ttl.as_deref().is_none_or(|ttl| ttl == "5m") => CacheUse::FiveMinutes,
        Ok(Some(_)) | Err(_) => CacheUse::OneHour,
    }
}
