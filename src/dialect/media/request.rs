//! A request for media, read once where it lies: what it asks for, how much of it at most, and how it is forwarded.

use std::borrow::Cow;

use bytes::Bytes;

use super::facts::{self, Facts, Value};
use super::form::{self, Part};
use super::{Form, Row, Task};
use crate::buffer::Buffer;
use crate::catalogue::{Catalogue, Kind, Model};
use crate::dialect::Goods;
use crate::dialect::cursor::Cursor;
use crate::dialect::estimate_tokens;
use crate::dialect::fields::refused;
use crate::dialect::weigh::Weight;
use crate::error::{Code, Error};
use crate::money::UnitPrice;
use crate::tariff::{Bound, Unit};

/// A model's name in bytes.
const MAX_MODEL_BYTES: usize = 256;
/// Texts that are embedded at once.
const MAX_INPUTS: u64 = 2048;
/// Tokens of a second of sound, at most, where a model is sold by tokens.
const TOKENS_PER_SECOND: u64 = 32;
/// And as they are taken for.
const USUAL_TOKENS_PER_SECOND: u64 = 10;
/// Tokens of the words that are said in a second, and of the sound of a character, about.
const TOKENS_SAID_PER_SECOND: u64 = 4;
const TOKENS_PER_CHARACTER: u64 = 2;

/// A request for media that was read and found sellable. It borrows the body.
pub struct Request<'a> {
    row: &'static Row,
    model: Option<Cow<'a, str>>,
    stream: bool,
    body: Body<'a>,
    facts: Facts,
    /// Bytes of what the model reads, and files beside them.
    text: u64,
    files: u64,
}

enum Body<'a> {
    /// Fields in the caller's order, each as it stands in the body.
    Json(Vec<(&'static str, &'a str)>),
    Form {
        /// Of what is forwarded.
        boundary: String,
        parts: Vec<(&'static str, Part<'a>)>,
    },
}

impl<'a> Request<'a> {
    /// Reads a body of this `Content-Type`.
    ///
    /// # Errors
    /// [`Code::InvalidJson`], [`Code::UnsupportedMediaType`] for what cannot be read; [`Code::InvalidRequest`], naming the
    /// field, for what is not sold.
    pub fn read(task: Task, content_type: &str, body: &'a [u8]) -> Result<Request<'a>, Error> {
        let row = task.row();
        let body = match (form::boundary(content_type), row.form) {
            (Some(boundary), Form::Either | Form::Multipart) => {
                let parts = form::parts(body, boundary)?;
                let boundary = form::fresh_boundary(&parts)?;
                let parts = parts.into_iter().filter_map(|part| Some((known(row, part.name)?, part))).collect();
                Body::Form { boundary, parts }
            }
            (None, Form::Either | Form::Multipart) if form::is_form(content_type) => {
                let message = "Content-Type names no boundary of the form; let the library that makes the form write that header";
                return Err(Error::new(Code::InvalidRequest, message));
            }
            (None, Form::Multipart) => {
                let message = "this route takes a file; send multipart/form-data, as the SDKs do";
                return Err(Error::new(Code::UnsupportedMediaType, message));
            }
            _ => Body::Json(json(row, body)?),
        };
        Request { row, model: None, stream: false, body, facts: Facts::default(), text: 0, files: 0 }.checked(row.needs)
    }

    /// Reads a body of which only the price is asked for: its prompt may be left out.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn read_to_quote(task: Task, body: &'a [u8]) -> Result<Request<'a>, Error> {
        let row = task.row();
        let body = Body::Json(json(row, body)?);
        let needs: Vec<_> = row.needs.iter().copied().filter(|need| *need != "prompt").collect();
        Request { row, model: None, stream: false, body, facts: Facts::default(), text: 0, files: 0 }.checked(&needs)
    }

    fn checked(mut self, needs: &[&'static str]) -> Result<Request<'a>, Error> {
        self.check_form()?;
        self.model = self.named_model()?;
        self.needs(needs)?;
        self.check_inputs()?;
        self.stream = self.asks_stream()?;
        self.measure()?;
        Ok(self)
    }

    /// A field that is there twice, comes as a file where a text is meant, or is no UTF-8, could be read differently by the
    /// upstream.
    fn check_form(&self) -> Result<(), Error> {
        let Body::Form { parts, .. } = &self.body else { return Ok(()) };
        for (at, (name, part)) in parts.iter().enumerate() {
            if !is_list(name) && parts[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(twice(name));
            }
            if part.file_name.is_some() != (*name == "file") && !is_picture(name) {
                let message = match *name {
                    "file" => "file must come as a file, with a file name",
                    _ => "this field comes as a file; send it as a text, without a file name",
                };
                return Err(refused(name, message));
            }
            if part.file_name.is_none() && !is_picture(name) {
                part.text()?;
            }
        }
        Ok(())
    }

    fn field(&self, name: &str) -> Option<Value<'a>> {
        match &self.body {
            Body::Json(fields) => Value::of_json(fields.iter().find(|(known, _)| *known == name)?.1),
            Body::Form { parts, .. } => {
                let (_, part) = parts.iter().find(|(known, part)| *known == name && part.file_name.is_none())?;
                part.text().ok().map(|text| Value::Text(Cow::Borrowed(text)))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        match &self.body {
            Body::Json(fields) => {
                fields.iter().any(|(known, raw)| *known == name && !matches!(*raw, "null" | "\"\"" | "[]" | "{}"))
            }
            Body::Form { parts, .. } => parts.iter().any(|(known, part)| *known == name && !part.value.is_empty()),
        }
    }

    fn named_model(&self) -> Result<Option<Cow<'a, str>>, Error> {
        match self.field("model").or_else(|| self.field("modelId")) {
            None => Ok(None),
            Some(Value::Text(name)) if name.is_empty() || name.len() > MAX_MODEL_BYTES => {
                Err(refused("model", "model is empty or too long; GET /v1/models lists what is sold"))
            }
            Some(Value::Text(name)) => Ok(Some(name)),
            Some(_) => Err(refused("model", "model must be a string with the name of a model (GET /v1/models lists them)")),
        }
    }

    fn needs(&self, needs: &[&'static str]) -> Result<(), Error> {
        let missing = needs.iter().find(|need| !need.split('|').any(|name| self.has(name)));
        match missing {
            None => Ok(()),
            Some(need) => {
                let name = need.split('|').next().unwrap_or(need);
                Err(refused(name, format!("{name} is required on this route")))
            }
        }
    }

    /// Texts to be embedded at once are as many as the providers take; a list of numbers is one text in tokens.
    fn check_inputs(&self) -> Result<(), Error> {
        let (Task::Embeddings, Body::Json(fields)) = (self.row.task, &self.body) else { return Ok(()) };
        let texts = fields.iter().filter(|(name, _)| *name == "input").map(|(_, raw)| texts(raw)).sum::<Result<u64, Error>>()?;
        match texts <= MAX_INPUTS {
            true => Ok(()),
            false => Err(refused("input", format!("input has {texts} texts; send at most {MAX_INPUTS} at once"))),
        }
    }

    fn asks_stream(&self) -> Result<bool, Error> {
        if !self.row.fields.contains(&"stream") {
            let format = self.field("stream_format").map(|value| value.word("stream_format")).transpose()?.flatten();
            return Ok(format.as_deref() == Some("sse"));
        }
        let is_form = matches!(self.body, Body::Form { .. });
        match self.field("stream") {
            None | Some(Value::Bare("false")) => Ok(false),
            Some(Value::Bare("true")) => Ok(true),
            // A form has nothing but texts.
            Some(Value::Text(text)) if is_form && text == "false" => Ok(false),
            Some(Value::Text(text)) if is_form && text == "true" => Ok(true),
            Some(_) => Err(refused("stream", "stream must be true or false")),
        }
    }

    /// How much it asks for, and how much there is to read.
    fn measure(&mut self) -> Result<(), Error> {
        let sound = match &self.body {
            Body::Form { parts, .. } => parts.iter().find(|(name, _)| *name == "file").map(|(_, part)| part.value),
            Body::Json(_) => None,
        };
        self.facts = facts::facts(self.row.task, |name| self.field(name), sound)?;
        // A picture is no text, wherever it lies: in the body, in a file, or at an address.
        let sizes: Vec<(bool, u64, u64)> = match &self.body {
            Body::Json(fields) => {
                let sizes = fields.iter().map(|(name, raw)| Ok((is_picture(name), things(raw)?, raw.len() as u64)));
                sizes.collect::<Result<_, Error>>()?
            }
            Body::Form { parts, .. } => {
                let is_file = |name| name == "file" || is_picture(name);
                parts.iter().map(|(name, part)| (is_file(*name), 1, part.value.len() as u64)).collect()
            }
        };
        let sum = |counted: bool, size: fn(&(bool, u64, u64)) -> u64| {
            sizes.iter().filter(|(picture, ..)| *picture == counted).map(size).fold(0, u64::saturating_add)
        };
        (self.files, self.text) = (sum(true, |(_, things, _)| *things), sum(false, |(_, _, bytes)| *bytes));
        Ok(())
    }

    pub fn task(&self) -> Task {
        self.row.task
    }

    /// The model's alias, if the caller named one.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The model of the catalogue that is meant: the one that is named, else the first that does such things and is `served`.
    ///
    /// # Errors
    /// [`Code::ModelNotFound`]; [`Code::InvalidRequest`] for a model that does something else.
    pub fn find<'c>(&self, catalogue: &'c Catalogue, served: impl Fn(&Model) -> bool) -> Result<&'c Model, Error> {
        let fits = |kind: Kind| self.row.kinds.contains(&kind);
        let Some(name) = self.model() else {
            let first = catalogue.models().iter().find(|model| fits(model.kind) && self.is_priced(model) && served(model));
            return first
                .ok_or_else(|| Error::new(Code::ModelNotFound, "no model here does this; GET /v1/models lists what is sold"));
        };
        let model = catalogue.sold(name)?;
        if !fits(model.kind) {
            let (kind, path) = (model.kind.name(), Goods::usual(model.kind).path());
            let message = format!("{name} is a model of kind {kind}, which is not sold on this route; call it on /v1{path}");
            return Err(refused("model", message));
        }
        match self.is_priced(model) {
            true => Ok(model),
            false => {
                let message = format!("{name} has no price per call, and nobody knows beforehand how long what you name is");
                Err(refused("model", message))
            }
        }
    }

    /// Whether what it asks for can be bounded by the model's prices: of what lies at an address nothing is known.
    fn is_priced(&self, model: &Model) -> bool {
        self.row.task != Task::VideoTranscriptions || (model.pieces.is_none() && model.tariff.call > UnitPrice::default())
    }

    /// Whether the answer is asked for as an event stream.
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// Sizes and qualities that it names, by which its pieces are priced.
    pub fn named(&self) -> &[String] {
        &self.facts.named
    }

    /// Whether nobody knows how long what it asks for will be, of a model that is sold by the second.
    pub fn lacks_length(&self, model: &Model) -> bool {
        let by_the_second = model.pieces.as_ref().is_some_and(|pieces| pieces.unit == Unit::Second);
        self.row.task.is_job() && by_the_second && self.facts.units == 0
    }

    /// The most it can use: of text every byte is taken for a token, of every picture the model's measure, of sound so many
    /// tokens a second; of output, for each picture or the whole, all that the model may make.
    pub fn bound(&self, model: &Model) -> Bound {
        let input = self.text.saturating_add(self.seen_and_heard(model, (self.facts.units, TOKENS_PER_SECOND)));
        let answers = match model.kind {
            Kind::Embedding => 0,
            Kind::Image | Kind::Edit | Kind::Upscale => self.facts.units,
            _ => 1,
        };
        Bound { input, output: answers.saturating_mul(u64::from(model.max_output)), units: self.facts.units, ..Bound::default() }
    }

    /// Tokens of pictures, or of so many seconds of sound.
    fn seen_and_heard(&self, model: &Model, (seconds, tokens): (u64, u64)) -> u64 {
        match self.row.task {
            Task::Transcriptions => seconds.saturating_mul(tokens),
            _ => self.files.saturating_mul(u64::from(model.image_tokens)),
        }
    }

    /// The tokens its input is taken for when the upstream reports none.
    pub fn estimate(&self, model: &Model) -> u64 {
        let others = self.seen_and_heard(model, (self.facts.estimate, USUAL_TOKENS_PER_SECOND));
        estimate_tokens(self.text).saturating_add(others)
    }

    /// The tokens that each picture, or all of what is no picture, is taken for when the upstream reports none.
    pub fn output_estimate(&self, model: &Model) -> u64 {
        match model.kind {
            Kind::Embedding => 0,
            Kind::Speech => self.facts.estimate.saturating_mul(TOKENS_PER_CHARACTER),
            Kind::Transcription => self.facts.estimate.saturating_mul(TOKENS_SAID_PER_SECOND),
            _ => u64::from(model.default_output),
        }
    }

    /// The pieces it is taken for when nobody counts them.
    pub fn pieces(&self) -> u64 {
        self.facts.estimate
    }

    /// The `Content-Type` of what is forwarded.
    pub fn content_type(&self) -> Cow<'static, str> {
        match &self.body {
            Body::Json(_) => Cow::Borrowed("application/json"),
            Body::Form { boundary, .. } => Cow::Owned(format!("multipart/form-data; boundary=\"{boundary}\"")),
        }
    }

    /// The body for an upstream that knows the model by this name: what is sold, untouched, and what was left to us.
    pub fn forward(&self, upstream_model: &str) -> Bytes {
        match &self.body {
            Body::Json(fields) => self.forward_json(fields, upstream_model),
            Body::Form { boundary, parts } => self.forward_form(boundary, parts, upstream_model),
        }
    }

    fn is_forwarded(&self, name: &str) -> bool {
        !matches!(name, "model" | "modelId") && (name != "n" || self.row.task != Task::ImageGenerate)
    }

    /// What is written into it: a length that the request leaves to the upstream, so that it cannot outgrow its quote, and
    /// the number of pictures under the name that the route has for it.
    fn added(&self) -> Option<(&'static str, String)> {
        match self.row.task {
            task if task.has_address() && !self.has("seconds") && !self.has("duration") => {
                Some(("seconds", format!("\"{}\"", facts::USUAL_SECONDS)))
            }
            Task::ImageGenerate if self.has("n") && !self.has("variants") => Some(("variants", self.facts.units.to_string())),
            _ => None,
        }
    }

    fn forward_json(&self, fields: &[(&str, &str)], upstream_model: &str) -> Bytes {
        let length: usize = fields.iter().map(|(name, raw)| name.len() + raw.len() + 4).sum();
        let mut body = Buffer::with_capacity(length + upstream_model.len() + 96);
        let mut before = "{";
        let mut put = |name: &str, raw: &str| {
            body.put_slice(format!("{before}\"{name}\":").as_bytes());
            body.put_slice(raw.as_bytes());
            before = ",";
        };
        if !self.row.model_field.is_empty() {
            put(self.row.model_field, &serde_json::Value::from(upstream_model).to_string());
        }
        fields.iter().filter(|(name, _)| self.is_forwarded(name)).for_each(|(name, raw)| put(name, raw));
        self.added().iter().for_each(|(name, value)| put(name, value));
        body.put_u8(b'}');
        body.freeze()
    }

    fn forward_form(&self, boundary: &str, parts: &[(&str, Part<'_>)], upstream_model: &str) -> Bytes {
        let room = |(_, part): &(&str, Part<'_>)| part.value.len() + boundary.len() + FORM_HEAD;
        let length: usize = parts.iter().map(room).sum();
        let mut body = Buffer::with_capacity(length + upstream_model.len() + 2 * (boundary.len() + FORM_HEAD));
        let mut put = |head: &str, value: &[u8]| {
            body.put_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
            body.put_slice(value);
            body.put_slice(b"\r\n");
        };
        let field = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"");
        if !self.row.model_field.is_empty() {
            put(&field(self.row.model_field), upstream_model.as_bytes());
        }
        self.added().iter().for_each(|(name, value)| put(&field(name), value.trim_matches('"').as_bytes()));
        parts.iter().filter(|(name, _)| self.is_forwarded(name)).for_each(|(_, part)| put(&part.head(), part.value));
        body.put_slice(format!("--{boundary}--\r\n").as_bytes());
        body.freeze()
    }
}

/// About what the head of a part of a form takes.
const FORM_HEAD: usize = 128;

/// The field of this name, if the route reads it.
fn known(row: &Row, name: &str) -> Option<&'static str> {
    let needs = row.needs.iter().flat_map(|need| need.split('|'));
    ["model", "modelId"].into_iter().chain(row.fields.iter().copied()).chain(needs).find(|known| *known == name)
}

/// Whether a field of a form may be there several times.
fn is_list(name: &str) -> bool {
    name.ends_with("[]") || matches!(name, "images" | "image")
}

/// Whether a field holds a picture or several: as files, as base64, or as addresses.
fn is_picture(name: &str) -> bool {
    matches!(name.trim_end_matches("[]"), "image" | "images" | "mask" | "image_url" | "input_reference")
}

/// How many of the things in a list are no numbers.
fn texts(raw: &str) -> Result<u64, Error> {
    let mut count = 0;
    if raw.starts_with('[') {
        Cursor::new(raw).array(|cursor| {
            count += u64::from(matches!(cursor.peek()?, b'"' | b'[' | b'{'));
            Weight::default().add(cursor)
        })?;
    }
    Ok(count)
}

/// How many things a value is: those that are in a list, or one.
fn things(raw: &str) -> Result<u64, Error> {
    let mut count = 0;
    match raw.as_bytes().first() {
        Some(b'[') => Cursor::new(raw).array(|cursor| {
            count += 1;
            Weight::default().add(cursor)
        })?,
        Some(b'n') => {}
        _ => count = 1,
    }
    Ok(count)
}

fn twice(name: &'static str) -> Error {
    refused(name, format!("{name} stands there twice; send it once"))
}

/// The fields of a JSON object that the route reads.
fn json<'a>(row: &Row, body: &'a [u8]) -> Result<Vec<(&'static str, &'a str)>, Error> {
    let text = crate::dialect::request::text(body)?;
    let mut cursor = Cursor::new(text);
    if cursor.peek()? != b'{' {
        Weight::default().add(&mut cursor)?;
        return Err(Error::new(Code::InvalidRequest, "the body is not a JSON object; send one"));
    }
    let mut fields: Vec<(&'static str, &'a str)> = Vec::new();
    cursor.object(|key, cursor| {
        let name = known(row, &key.decode()?);
        let (raw, ()) = cursor.slice(|cursor| Weight::default().add(cursor))?;
        match name {
            Some(name) if fields.iter().any(|(earlier, _)| *earlier == name) => return Err(twice(name)),
            Some(name) => fields.push((name, raw)),
            None => {}
        }
        Ok(())
    })?;
    Ok(fields)
}

#[cfg(test)]
pub(super) mod tests;
