//! A paid request, read once where it lies: what it asks for, how much it can use at most, and how it is forwarded.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::cursor::Cursor;
use super::fields::{self, Fate, StreamOptions, refused};
use super::weigh::Weight;
use super::{Dialect, LimitField, estimate_tokens};
use crate::buffer::Buffer;
use crate::catalogue::Model;
use crate::error::{Code, Error};
use crate::tariff::{Bound, CacheUse};

/// Top-level fields of one request; no client sends half as many.
const MAX_FIELDS: usize = 128;
/// A model's name in bytes.
const MAX_MODEL_BYTES: usize = 256;
/// What an upstream adds around each message.
const TOKENS_PER_MESSAGE: u64 = 16;
/// What an upstream adds around the whole: its own preamble, and instructions on how to call tools.
const TOKENS_AROUND: u64 = 32;
const TOKENS_FOR_TOOLS: u64 = 1024;
/// Bytes of a streamed request of responses beside its input: several events repeat them, each of which is held while its caller
/// reads slowly.
const MAX_ECHOED_BYTES: usize = 256 * 1024;

/// A request that was read and found sellable. It borrows the body, which is never copied or rebuilt until [`Request::forward`].
pub struct Request<'a> {
    dialect: Dialect,
    /// What is forwarded, in the caller's order.
    fields: Vec<(&'static str, Raw<'a>)>,
    model: Cow<'a, str>,
    stream: bool,
    stream_options: StreamOptions,
    /// Tokens that the caller allows each answer.
    asked: Option<u32>,
    choices: u32,
    tools: bool,
    weight: Weight,
    /// It is only counted, so it needs no output limit.
    only_counted: bool,
}

/// The JSON text of a value.
enum Raw<'a> {
    /// As it stands in the body.
    There(&'a str),
    /// The same, of a body that is kept with it. It is UTF-8.
    Kept(Bytes),
    /// A part of it is left out.
    Anew(String),
}

impl Raw<'_> {
    /// Of one that is kept it looks at every byte.
    fn text(&self) -> &str {
        match self {
            Raw::There(text) => text,
            Raw::Kept(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            Raw::Anew(text) => text,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Raw::There(text) => text.as_bytes(),
            Raw::Kept(bytes) => bytes,
            Raw::Anew(text) => text.as_bytes(),
        }
    }
}

/// How much goes into a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    weight: Weight,
    has_tools: bool,
}

impl Size {
    /// The most tokens that this can be: every byte of its text is taken for one, every picture for [`Model::image_tokens`].
    pub fn input(&self, model: &Model) -> u64 {
        let tools = if self.has_tools { TOKENS_FOR_TOOLS } else { 0 };
        let around = self.weight.messages.saturating_mul(TOKENS_PER_MESSAGE).saturating_add(TOKENS_AROUND + tools);
        self.weight.bytes.saturating_add(self.pictures(model)).saturating_add(around)
    }

    /// How much of it a cache is asked to keep.
    pub fn cache(&self) -> CacheUse {
        self.weight.cache
    }

    fn pictures(&self, model: &Model) -> u64 {
        self.weight.pictures.saturating_mul(u64::from(model.image_tokens))
    }
}

impl<'a> Request<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Code::InvalidJson`] for what is not one JSON text in UTF-8 (RFC 8259, without a byte order mark), has half a
    /// surrogate pair or is nested too deeply; [`Code::InvalidRequest`], naming the field, for what is not sold.
    pub fn read(dialect: Dialect, body: &'a [u8]) -> Result<Request<'a>, Error> {
        Request::empty(dialect).fill(body)
    }

    /// Reads a body of messages whose input is to be counted, and which needs no output limit for that.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn read_to_count(body: &'a [u8]) -> Result<Request<'a>, Error> {
        Request { only_counted: true, ..Request::empty(Dialect::Messages) }.fill(body)
    }

    /// The same, on its own: it keeps `body`, which it was read from, and copies nothing large of it.
    pub fn detached(self, body: &Bytes) -> Request<'static> {
        let kept = |(name, raw)| match raw {
            Raw::There(text) => (name, Raw::Kept(body.slice_ref(text.as_bytes()))),
            Raw::Kept(bytes) => (name, Raw::Kept(bytes)),
            Raw::Anew(text) => (name, Raw::Anew(text)),
        };
        let Request { dialect, fields, model, stream, stream_options, asked, choices, tools, weight, only_counted } = self;
        let (fields, model) = (fields.into_iter().map(kept).collect(), Cow::Owned(model.into_owned()));
        Request { dialect, fields, model, stream, stream_options, asked, choices, tools, weight, only_counted }
    }

    fn fill(mut self, body: &'a [u8]) -> Result<Request<'a>, Error> {
        let text = text(body)?;
        let mut cursor = Cursor::new(text);
        if cursor.peek()? != b'{' {
            Weight::default().add(&mut cursor)?;
            let list = self.dialect.conversation();
            return Err(Error::new(
                Code::InvalidRequest,
                format!("the body is not a JSON object; send one with model and {list}"),
            ));
        }
        let mut seen: Vec<Cow<'a, str>> = Vec::new();
        cursor.object(|key, cursor| {
            let name = key.decode()?;
            if seen.contains(&name) {
                let name: String = name.chars().take(40).collect();
                return Err(Error::new(Code::InvalidRequest, format!("the field {name:?} stands there twice; send it once")));
            }
            if seen.len() == MAX_FIELDS {
                return Err(Error::new(
                    Code::InvalidRequest,
                    format!("the body has more than {MAX_FIELDS} fields; leave out those that mean nothing here"),
                ));
            }
            seen.push(name.clone());
            self.take(&name, cursor)
        })?;
        self.finish()
    }

    fn empty(dialect: Dialect) -> Request<'a> {
        Request {
            dialect,
            fields: Vec::with_capacity(16),
            model: Cow::Borrowed(""),
            stream: false,
            stream_options: StreamOptions::default(),
            asked: None,
            choices: 1,
            tools: false,
            weight: Weight::default(),
            only_counted: false,
        }
    }

    /// Reads one top-level field and keeps it if it is sold.
    fn take(&mut self, name: &str, cursor: &mut Cursor<'a>) -> Result<(), Error> {
        let dialect = self.dialect;
        let name = match fields::fate(dialect, name) {
            Fate::Forward(name) => name,
            Fate::NotSold(name) => {
                let (raw, ()) = cursor.slice(|cursor| Weight::default().add(cursor))?;
                return fields::check_not_sold(name, raw);
            }
            Fate::Refused(name, why) => {
                let (raw, ()) = cursor.slice(|cursor| Weight::default().add(cursor))?;
                return fields::check_refused(name, why, raw);
            }
            Fate::Drop => return Weight::default().add(cursor),
        };
        let weight = &mut self.weight;
        let mut rest = None;
        let (raw, ()) = cursor.slice(|cursor| match name {
            "messages" => weight.add_messages(dialect, cursor),
            "input" => weight.add_input(cursor),
            "tools" if dialect == Dialect::Responses => {
                rest = weight.add_offered_tools(cursor)?;
                Ok(())
            }
            "tools" => weight.add_tools(cursor),
            "cache_control" => weight.add_cache_control(cursor),
            name if fields::is_read(name) => weight.add(cursor),
            _ => Weight::default().add(cursor),
        })?;
        fields::check(dialect, name, raw)?;
        if name == "include" {
            rest = fields::included(raw)?;
        }
        self.fields.push((name, rest.map_or(Raw::There(raw), Raw::Anew)));
        Ok(())
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, raw)| raw.text())
    }

    /// As [`Request::field`], of one that stands in the body as it came.
    fn as_it_came(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find_map(|(known, raw)| match raw {
            Raw::There(raw) if *known == name => Some(*raw),
            _ => None,
        })
    }

    fn count(&self, name: &'static str) -> Result<Option<u32>, Error> {
        self.field(name).map_or(Ok(None), |raw| fields::count(name, raw))
    }

    /// Reads what spans several fields.
    fn finish(mut self) -> Result<Request<'a>, Error> {
        let model =
            self.as_it_came("model").ok_or_else(|| refused("model", "model is required; GET /v1/models lists what is sold"))?;
        let mut cursor = Cursor::new(model);
        if cursor.peek()? != b'"' {
            return Err(fields::must("model", "a string with the name of a model (GET /v1/models lists them)", model));
        }
        self.model = cursor.string()?.decode()?;
        if self.model.is_empty() {
            return Err(refused("model", "model is empty; GET /v1/models lists what is sold"));
        }
        if self.model.len() > MAX_MODEL_BYTES {
            return Err(refused(
                "model",
                format!(
                    "model has {} bytes, and no name here has more than {MAX_MODEL_BYTES}; GET /v1/models lists what is sold",
                    self.model.len()
                ),
            ));
        }
        let list = self.dialect.conversation();
        if self.field(list).is_none() {
            return Err(refused(list, format!("{list} is required; send at least one message")));
        }
        self.stream = self.field("stream").map_or(Ok(false), |raw| fields::flag("stream", raw))?;
        self.check_echoed()?;
        if let Some(raw) = self.as_it_came("stream_options") {
            self.stream_options = StreamOptions::read(raw)?;
        }
        self.tools = ["tools", "functions"].iter().any(|name| self.field(name).is_some_and(|raw| raw != "null"));
        self.asked = self.output_asked()?;
        self.choices = self.count("n")?.unwrap_or(1);
        if self.choices > fields::MAX_CHOICES {
            return Err(refused(
                "n",
                format!(
                    "n is {}, and at most {} answers are sold at once; send several requests instead",
                    self.choices,
                    fields::MAX_CHOICES
                ),
            ));
        }
        if let (Some(raw), Some(limit)) = (self.field("thinking").filter(|raw| raw.starts_with('{')), self.asked)
            && let Some(budget) = fields::thinking_budget(raw)?.filter(|budget| *budget >= u64::from(limit))
        {
            let message =
                format!("thinking.budget_tokens is {budget} and comes out of max_tokens, which is {limit}; make it smaller");
            return Err(refused("thinking", message));
        }
        Ok(self)
    }

    /// An upstream of responses says in several events what it was asked, all but the input, and in the last ones all that it has
    /// said: none of them may become too long.
    fn check_echoed(&self) -> Result<(), Error> {
        if self.dialect != Dialect::Responses || !self.stream {
            return Ok(());
        }
        if self.field("top_logprobs").is_some_and(|raw| !matches!(raw, "0" | "null")) {
            return Err(refused(
                "top_logprobs",
                "top_logprobs is not sold on streams, whose last events repeat them all; leave out stream",
            ));
        }
        let echoed = || self.fields.iter().filter(|(name, _)| *name != "input");
        let bytes: usize = echoed().map(|(_, raw)| raw.bytes().len()).sum();
        match echoed().max_by_key(|(_, raw)| raw.bytes().len()) {
            Some((longest, _)) if bytes > MAX_ECHOED_BYTES => Err(refused(
                longest,
                format!("all fields beside input have {bytes} bytes, and a stream takes {MAX_ECHOED_BYTES}; shorten {longest}"),
            )),
            _ => Ok(()),
        }
    }

    fn output_asked(&self) -> Result<Option<u32>, Error> {
        let limit = self.count(match self.dialect {
            Dialect::Chat | Dialect::Messages => "max_tokens",
            Dialect::Responses => "max_output_tokens",
        })?;
        match self.dialect {
            Dialect::Messages if self.only_counted => Ok(limit),
            Dialect::Messages if limit.is_none() => {
                Err(refused("max_tokens", "max_tokens is required on this route: say how many tokens the answer may have"))
            }
            Dialect::Messages | Dialect::Responses => Ok(limit),
            Dialect::Chat => match (limit, self.count("max_completion_tokens")?) {
                (Some(old), Some(new)) if old != new => Err(refused(
                    "max_completion_tokens",
                    format!("max_tokens is {old} and max_completion_tokens is {new}; send one of them"),
                )),
                (old, new) => Ok(new.or(old)),
            },
        }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The model's alias, as the caller wrote it.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is asked for as an event stream.
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the caller of a chat stream asked for the usage chunk itself (`stream_options.include_usage`).
    pub fn wants_usage(&self) -> bool {
        self.stream_options.include_usage
    }

    /// Tokens each answer may have: what was asked, else the model's default, never above the model's maximum.
    pub fn output_limit(&self, model: &Model) -> u32 {
        self.asked.unwrap_or(model.default_output).min(model.max_output)
    }

    /// The most this request can use: every byte of its text is taken for a token, every picture for
    /// [`Model::image_tokens`], every answer for its whole output limit.
    pub fn bound(&self, model: &Model) -> Bound {
        let output = u64::from(self.output_limit(model)) * u64::from(self.choices);
        Bound { input: self.size().input(model), output, cache: self.weight.cache, units: 0 }
    }

    /// Of the output that it is bound by ([`Request::bound`]), the tokens that may be used before anybody sees any. A budget
    /// for thinking bounds them; all else may use all there is.
    pub fn hidden_output(&self, model: &Model) -> u64 {
        let all = self.bound(model).output;
        let asking = |(name, raw): &&(&'static str, Raw<'a>)| fields::may_hide(name) && fields::asks_hidden(name, raw.text());
        match (model.hidden_output, self.fields.iter().find(asking)) {
            (false, None) => 0,
            (false, Some(("thinking", raw))) if self.fields.iter().filter(asking).count() == 1 => {
                let budget = fields::thinking_budget(raw.text()).ok().flatten();
                budget.map_or(all, |budget| budget.saturating_mul(u64::from(self.choices)).min(all))
            }
            _ => all,
        }
    }

    /// How many answers it asks for.
    pub fn choices(&self) -> u32 {
        self.choices
    }

    /// The tokens its input is taken for when the upstream reports none.
    pub fn estimate(&self, model: &Model) -> u64 {
        let text = estimate_tokens(self.weight.bytes).saturating_add(self.weight.messages.saturating_mul(4));
        text.saturating_add(self.size().pictures(model))
    }

    /// How much goes into it.
    pub(super) fn size(&self) -> Size {
        Size { weight: self.weight, has_tools: self.tools }
    }

    /// The body for an upstream: the same fields in the same order with their values untouched, except that the model
    /// is named as the upstream names it, the output limit is written once, in the field the upstream takes it in,
    /// a chat stream asks for its usage, a response is not stored, and what is not sold is left out.
    pub fn forward(&self, upstream_model: &str, output_limit: u32, field: LimitField) -> Bytes {
        let length: usize = self.fields.iter().map(|(name, raw)| name.len() + raw.bytes().len() + 4).sum();
        let mut body = Buffer::with_capacity(length + upstream_model.len() + 96);
        let streamed_chat = self.dialect == Dialect::Chat && self.stream;
        let mut asks_usage = false;
        for (name, raw) in &self.fields {
            if matches!(*name, "max_tokens" | "max_completion_tokens" | "max_output_tokens") {
                continue;
            }
            put_name(&mut body, name);
            match *name {
                "model" => put_json(&mut body, upstream_model),
                "stream_options" if streamed_chat => {
                    asks_usage = true;
                    self.put_stream_options(&mut body);
                }
                "stream_options" if self.dialect == Dialect::Responses => self.put_other_stream_options(&mut body),
                _ => body.put_slice(raw.bytes()),
            }
        }
        let field = match self.dialect {
            Dialect::Chat => field.name(),
            Dialect::Messages => LimitField::MaxTokens.name(),
            Dialect::Responses => {
                put_name(&mut body, "store");
                body.put_slice(b"false");
                "max_output_tokens"
            }
        };
        put_name(&mut body, field);
        put_json(&mut body, &output_limit);
        if streamed_chat && !asks_usage {
            put_name(&mut body, "stream_options");
            self.put_stream_options(&mut body);
        }
        body.put_u8(b'}');
        body.freeze()
    }

    fn put_stream_options(&self, body: &mut Buffer) {
        body.put_u8(b'{');
        for (name, raw) in &self.stream_options.others {
            put_member(body, name, raw);
            body.put_u8(b',');
        }
        body.put_slice(b"\"include_usage\":true}");
    }

    /// Usage is always told on responses, where nobody knows the option to ask for it.
    fn put_other_stream_options(&self, body: &mut Buffer) {
        body.put_u8(b'{');
        for (place, (name, raw)) in self.stream_options.others.iter().enumerate() {
            body.put_slice(if place > 0 { b"," } else { b"" });
            put_member(body, name, raw);
        }
        body.put_u8(b'}');
    }
}

fn put_member(body: &mut Buffer, name: &str, raw: &RawValue) {
    put_json(body, name);
    body.put_u8(b':');
    body.put_slice(raw.get().as_bytes());
}

/// The text of a body that is one JSON value. Its grammar is checked without building anything; what follows relies on it.
///
/// # Errors
/// [`Code::InvalidJson`].
pub(super) fn text(body: &[u8]) -> Result<&str, Error> {
    if body.trim_ascii().is_empty() {
        return Err(invalid_json("the body is empty".into()));
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(invalid_json("the body starts with a byte order mark, which JSON does not have".into()));
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| invalid_json(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    serde_json::from_str::<&RawValue>(text)
        .map_err(|error| invalid_json(format!("the body is not JSON (line {}, column {})", error.line(), error.column())))?;
    Ok(text)
}

fn invalid_json(what: String) -> Error {
    Error::new(Code::InvalidJson, format!("{what}; send one JSON object in UTF-8"))
}

/// Starts the object or goes on with it. Names are ours and need no escaping.
fn put_name(body: &mut Buffer, name: &str) {
    body.put_u8(if body.is_empty() { b'{' } else { b',' });
    body.put_u8(b'"');
    body.put_slice(name.as_bytes());
    body.put_slice(b"\":");
}

fn put_json<T: serde::Serialize + ?Sized>(body: &mut Buffer, value: &T) {
    body.put_slice(&serde_json::to_vec(value).expect("a string or a number is always JSON"));
}

#[cfg(test)]
mod tests;
