//! A request for media, read once where it lies: what it asks for, how much of it at most, and how it is forwarded.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::facts::{self, Facts, Value};
use super::form::{self, Part};
use super::{Form, Row, Task};
use crate::catalogue::{Catalogue, Kind, Model};
use crate::dialect::cursor::Cursor;
use crate::dialect::estimate_tokens;
use crate::dialect::fields::refused;
use crate::dialect::weigh::Weight;
use crate::error::{Code, Error};
use crate::tariff::{Bound, Unit};

/// A model's name in bytes.
const MAX_MODEL_BYTES: usize = 256;
/// Tokens of a second of sound, at most, where a model is sold by tokens.
const TOKENS_PER_SECOND: u64 = 32;

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
    Json(Vec<(String, &'a str)>),
    Form {
        boundary: String,
        parts: Vec<Part<'a>>,
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
                let mut parts = form::parts(body, boundary)?;
                parts.retain(|part| known(row, part.name));
                Body::Form { boundary: boundary.to_owned(), parts }
            }
            (None, Form::Multipart) => {
                let message = "this route takes a file; send multipart/form-data, as the SDKs do";
                return Err(Error::new(Code::UnsupportedMediaType, message));
            }
            _ => Body::Json(json(row, body)?),
        };
        let mut request = Request { row, model: None, stream: false, body, facts: Facts::default(), text: 0, files: 0 };
        request.once()?;
        request.model = request.named_model()?;
        request.needs()?;
        request.stream = request.asks_stream()?;
        request.measure()?;
        Ok(request)
    }

    /// A field that is there twice could be read differently by the upstream. Lists of files are the exception.
    fn once(&self) -> Result<(), Error> {
        let names: Vec<&str> = match &self.body {
            Body::Json(fields) => fields.iter().map(|(name, _)| name.as_str()).collect(),
            Body::Form { parts, .. } => parts.iter().map(|part| part.name).collect(),
        };
        let twice = names.iter().enumerate().find(|(at, name)| !is_list(name) && names[..*at].contains(name));
        match twice {
            Some((_, name)) => {
                let name: String = name.chars().take(40).collect();
                Err(Error::new(Code::InvalidRequest, format!("the field {name:?} stands there twice; send it once")))
            }
            None => Ok(()),
        }
    }

    fn field(&self, name: &str) -> Option<Value<'a>> {
        match &self.body {
            Body::Json(fields) => fields.iter().find(|(known, _)| known == name).map(|(_, raw)| Value(raw)),
            Body::Form { parts, .. } => {
                let part = parts.iter().find(|part| part.name == name && !part.is_file)?;
                part.text().ok().map(Value)
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        match &self.body {
            Body::Json(fields) => fields.iter().any(|(known, raw)| known == name && !matches!(*raw, "null" | "\"\"" | "[]")),
            Body::Form { parts, .. } => parts.iter().any(|part| part.name == name && !part.value.is_empty()),
        }
    }

    fn named_model(&self) -> Result<Option<Cow<'a, str>>, Error> {
        let Some(Value(raw)) = self.field("model").or_else(|| self.field("modelId")) else { return Ok(None) };
        let name: Cow<'a, str> = match &self.body {
            Body::Form { .. } => Cow::Borrowed(raw),
            Body::Json(_) if raw == "null" => return Ok(None),
            Body::Json(_) => {
                let name = serde_json::from_str::<Cow<'a, str>>(raw);
                name.map_err(|_| refused("model", "model must be a string with the name of a model (GET /v1/models lists them)"))?
            }
        };
        if name.is_empty() || name.len() > MAX_MODEL_BYTES {
            return Err(refused("model", "model is empty or too long; GET /v1/models lists what is sold"));
        }
        Ok(Some(name))
    }

    fn needs(&self) -> Result<(), Error> {
        let missing = self.row.needs.iter().find(|need| !need.split('|').any(|name| self.has(name)));
        match missing {
            None => Ok(()),
            Some(need) => {
                let name = need.split('|').next().unwrap_or(need);
                Err(refused(name, format!("{name} is required on this route")))
            }
        }
    }

    fn asks_stream(&self) -> Result<bool, Error> {
        if !self.row.fields.contains(&"stream") {
            let events = self.field("stream_format").and_then(Value::word);
            return Ok(events.as_deref() == Some("sse"));
        }
        match self.field("stream").map(|value| value.0) {
            None | Some("null" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(refused("stream", "stream must be true or false")),
        }
    }

    /// How much it asks for, and how much there is to read.
    fn measure(&mut self) -> Result<(), Error> {
        let sound = match &self.body {
            Body::Form { parts, .. } => parts.iter().find(|part| part.name == "file").map(|part| part.value),
            Body::Json(_) => None,
        };
        self.facts = facts::facts(self.row.task, |name| self.field(name), sound)?;
        match &self.body {
            Body::Json(fields) => {
                for (name, raw) in fields {
                    // A picture in the body is no text.
                    match matches!(name.as_str(), "image" | "images" | "mask" | "image_url") {
                        true => self.files += 1,
                        false => self.text = self.text.saturating_add(raw.len() as u64),
                    }
                }
            }
            Body::Form { parts, .. } => {
                self.files = parts.iter().filter(|part| part.is_file).count() as u64;
                let text = parts.iter().filter(|part| !part.is_file).map(|part| part.value.len() as u64);
                self.text = text.fold(0, u64::saturating_add);
            }
        }
        Ok(())
    }

    pub fn task(&self) -> Task {
        self.row.task
    }

    /// The model's alias, if the caller named one.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The model of the catalogue that is meant: the one that is named, else the first that does such things.
    ///
    /// # Errors
    /// [`Code::ModelNotFound`]; [`Code::InvalidRequest`] for a model that does something else.
    pub fn find<'c>(&self, catalogue: &'c Catalogue) -> Result<&'c Model, Error> {
        let fits = |kind: Kind| self.row.kinds.contains(&kind);
        let Some(name) = self.model() else {
            let first = catalogue.models().iter().find(|model| fits(model.kind));
            return first
                .ok_or_else(|| Error::new(Code::ModelNotFound, "no model here does this; GET /v1/models lists what is sold"));
        };
        let model = catalogue.sold(name)?;
        match fits(model.kind) {
            true => Ok(model),
            false => {
                let message = format!("{name} is a model of kind {}, which is not sold on this route", model.kind.name());
                Err(refused("model", message))
            }
        }
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
        let sound = if model.kind == Kind::Transcription { self.facts.units.saturating_mul(TOKENS_PER_SECOND) } else { 0 };
        let pictures = self.files.saturating_mul(u64::from(model.image_tokens));
        let input = self.text.saturating_add(pictures).saturating_add(sound);
        let answers = match model.kind {
            Kind::Embedding => 0,
            Kind::Image | Kind::Edit | Kind::Upscale => self.facts.units,
            _ => 1,
        };
        Bound { input, output: answers.saturating_mul(u64::from(model.max_output)), units: self.facts.units, ..Bound::default() }
    }

    /// The tokens its input is taken for when the upstream reports none.
    pub fn estimate(&self, model: &Model) -> u64 {
        estimate_tokens(self.text).saturating_add(self.files.saturating_mul(u64::from(model.image_tokens)))
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

    fn is_forwarded(name: &str) -> bool {
        !matches!(name, "model" | "modelId")
    }

    /// A length that the request leaves to the upstream is written into it, so that it cannot outgrow its quote.
    fn added(&self) -> Option<(&'static str, u64)> {
        let silent = self.row.task == Task::VideosGenerations && !self.has("seconds") && !self.has("duration");
        silent.then_some(("seconds", facts::USUAL_SECONDS))
    }

    fn forward_json(&self, fields: &[(String, &str)], upstream_model: &str) -> Bytes {
        let length: usize = fields.iter().map(|(name, raw)| name.len() + raw.len() + 4).sum();
        let mut body = BytesMut::with_capacity(length + upstream_model.len() + 96);
        body.put_slice(format!("{{\"{}\":{}", self.row.model_field, serde_json::Value::from(upstream_model)).as_bytes());
        for (name, raw) in fields.iter().filter(|(name, _)| Self::is_forwarded(name)) {
            body.put_slice(format!(",{}:", serde_json::Value::from(name.as_str())).as_bytes());
            body.put_slice(raw.as_bytes());
        }
        if let Some((name, value)) = self.added() {
            body.put_slice(format!(",\"{name}\":\"{value}\"").as_bytes());
        }
        body.put_u8(b'}');
        body.freeze()
    }

    fn forward_form(&self, boundary: &str, parts: &[Part<'_>], upstream_model: &str) -> Bytes {
        let length: usize = parts.iter().map(|part| part.head.len() + part.value.len() + boundary.len() + 12).sum();
        let mut body = BytesMut::with_capacity(length + upstream_model.len() + 2 * boundary.len() + 160);
        let field = |name: &str| format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.put_slice(field(self.row.model_field).as_bytes());
        body.put_slice(upstream_model.as_bytes());
        if let Some((name, value)) = self.added() {
            body.put_slice(format!("\r\n{}{value}", field(name)).as_bytes());
        }
        for part in parts.iter().filter(|part| Self::is_forwarded(part.name)) {
            body.put_slice(format!("\r\n--{boundary}\r\n{}\r\n\r\n", part.head).as_bytes());
            body.put_slice(part.value);
        }
        body.put_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        body.freeze()
    }
}

/// Whether a route reads this field.
fn known(row: &Row, name: &str) -> bool {
    matches!(name, "model" | "modelId")
        || row.fields.contains(&name)
        || row.needs.iter().any(|need| need.split('|').any(|known| known == name))
}

fn is_list(name: &str) -> bool {
    name.ends_with("[]") || matches!(name, "images" | "image")
}

/// The fields of a JSON object that the route reads.
fn json<'a>(row: &Row, body: &'a [u8]) -> Result<Vec<(String, &'a str)>, Error> {
    let text = crate::dialect::request::text(body)?;
    let mut cursor = Cursor::new(text);
    if cursor.peek()? != b'{' {
        Weight::default().add(&mut cursor)?;
        return Err(Error::new(Code::InvalidRequest, "the body is not a JSON object; send one"));
    }
    let mut fields = Vec::new();
    cursor.object(|key, cursor| {
        let name = key.decode()?;
        let (raw, ()) = cursor.slice(|cursor| Weight::default().add(cursor))?;
        if known(row, &name) {
            fields.push((name.into_owned(), raw));
        }
        Ok(())
    })?;
    Ok(fields)
}

#[cfg(test)]
pub(super) mod tests;
