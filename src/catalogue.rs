//! The models the operator sells: found by their alias, listed for `/v1/models` and `/v1/pricing`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::error::{Code, Error};
use crate::money::Micros;
use crate::tariff::{Bound, Ceiling, Pieces, Tariff, TokenPrices, Unit};

/// One model on sale.
#[derive(Clone, Debug)]
pub struct Model {
    /// The alias buyers use; it survives a change of upstream.
    pub id: String,
    pub kind: Kind,
    /// Who serves it, in order of preference.
    pub upstreams: Vec<Serving>,
    pub tariff: Tariff,
    /// What it makes by the image, second or character, and what that costs.
    pub pieces: Option<Pieces>,
    pub ceiling: Ceiling,
    /// Tokens an answer may have when the caller does not say.
    pub default_output: u32,
    /// Tokens an answer may have at most.
    pub max_output: u32,
    /// Tokens reserved for each picture in a request, whose bytes say nothing about its tokens.
    pub image_tokens: u32,
    /// It may think unseen before its first word, whatever a request says.
    pub hidden_output: bool,
}

/// What a model makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Chat,
    Embedding,
    Image,
    /// Images changed by words: edits, several images into one, backgrounds removed.
    Edit,
    Upscale,
    Speech,
    Transcription,
    Video,
    Music,
}

impl Kind {
    /// As it is written in config.toml and the price list.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Chat => "chat",
            Kind::Embedding => "embedding",
            Kind::Image => "image",
            Kind::Edit => "edit",
            Kind::Upscale => "upscale",
            Kind::Speech => "speech",
            Kind::Transcription => "transcription",
            Kind::Video => "video",
            Kind::Music => "music",
        }
    }
}

/// One upstream that serves a model, and what it calls it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    pub upstream: String,
    pub model: String,
}

/// All models on sale, in the operator's order.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    models: Vec<Model>,
}

/// The prompt and answer for which the price list shows what a call reserves.
const TYPICAL_INPUT: u64 = 1000;
/// The same of what is sold by the second or the character.
const TYPICAL_SECONDS: u64 = 60;
const TYPICAL_CHARACTERS: u64 = 1000;

impl Catalogue {
    pub fn new(models: Vec<Model>) -> Self {
        Catalogue { models }
    }

    pub fn find(&self, id: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.id == id)
    }

    /// The model of this alias.
    ///
    /// # Errors
    /// [`Code::ModelNotFound`].
    pub fn sold(&self, id: &str) -> Result<&Model, Error> {
        self.find(id).ok_or_else(|| {
            let shown: String = id.chars().filter(|c| !c.is_control()).take(80).collect();
            let message = format!("there is no model {shown:?} here; GET /v1/models lists what is sold");
            Error::new(Code::ModelNotFound, message).param("model")
        })
    }

    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// `GET /v1/models`: one object that OpenAI's and Anthropic's clients both read.
    pub fn list(&self) -> Value {
        let id = |model: Option<&Model>| model.map(|model| model.id.clone());
        json!({
            "object": "list",
            "data": self.models.iter().map(Model::entry).collect::<Vec<_>>(),
            "has_more": false,
            "first_id": id(self.models.first()),
            "last_id": id(self.models.last()),
        })
    }

    /// `GET /v1/pricing`: USD as exact decimal strings.
    pub fn pricing(&self) -> Value {
        json!({ "object": "list", "currency": "USD", "data": self.models.iter().map(Model::price_entry).collect::<Vec<_>>() })
    }
}

impl Model {
    /// The ceiling promised for a request; for a call with a `TYPICAL_INPUT` this is what the price list shows.
    pub fn quote(&self, bound: &Bound) -> Micros {
        self.tariff.quote(self.ceiling, bound)
    }

    /// This model with the price of its pieces for a request that names these sizes and qualities.
    ///
    /// # Errors
    /// The classes that are sold, where none of those that were named is.
    pub fn priced(&self, named: &[String]) -> Result<Cow<'_, Model>, String> {
        let Some(pieces) = &self.pieces else { return Ok(Cow::Borrowed(self)) };
        let unit = pieces.price(named).ok_or_else(|| pieces.named())?;
        Ok(Cow::Owned(Model { tariff: Tariff { unit, ..self.tariff }, ..self.clone() }))
    }

    /// What an ordinary call is quoted, as the price list shows it: a prompt of a thousand tokens and the usual answer, or
    /// one image, a minute or a thousand characters, of the cheapest class.
    pub fn typical_quote(&self) -> Micros {
        let Some(pieces) = &self.pieces else {
            return self.quote(&Bound { input: TYPICAL_INPUT, output: u64::from(self.default_output), ..Bound::default() });
        };
        let unit = pieces.cheapest().unwrap_or_default();
        let units = match pieces.unit {
            Unit::Image => 1,
            Unit::Second => TYPICAL_SECONDS,
            Unit::Character => TYPICAL_CHARACTERS,
        };
        Tariff { unit, ..self.tariff }.quote(self.ceiling, &Bound { units, ..Bound::default() })
    }

    /// One entry of `GET /v1/models`, and the whole of `GET /v1/models/{id}`. `created` is fixed: the alias outlives
    /// every upstream behind it, and clients only sort by it.
    pub fn entry(&self) -> Value {
        json!({
            "id": self.id,
            "object": "model",
            "type": "model",
            "created": 1_767_225_600,
            "created_at": "2026-01-01T00:00:00Z",
            "owned_by": "farebox",
            "display_name": self.id,
            "max_output_tokens": self.max_output,
        })
    }

    fn price_entry(&self) -> Value {
        let tariff = &self.tariff;
        let ceiling = match self.ceiling {
            Ceiling::Computed => json!({ "kind": "computed", "typical_call": self.typical_quote().to_string() }),
            Ceiling::Flat(amount) => json!({ "kind": "flat", "per_call": amount.to_string() }),
        };
        let mut entry = json!({
            "id": self.id,
            "kind": self.kind.name(),
            "usd_per_million_tokens": per_million(&tariff.tokens),
            "usd_per_call": tariff.call.as_each(),
            "default_output_tokens": self.default_output,
            "max_output_tokens": self.max_output,
            "ceiling": ceiling,
        });
        if let Some(long) = &tariff.long {
            entry["long_prompt"] = json!({ "above_tokens": long.above, "usd_per_million_tokens": per_million(&long.tokens) });
        }
        if let Some(pieces) = &self.pieces {
            let name = match pieces.unit {
                Unit::Image => "usd_per_image",
                Unit::Second => "usd_per_second",
                Unit::Character => "usd_per_character",
            };
            let all = pieces.classes.iter().map(|(class, price)| (class.as_str(), *price));
            let all = all.chain(pieces.default.map(|price| ("default", price)));
            entry[name] = all.map(|(class, price)| (class.to_owned(), price.as_each().into())).collect::<Map<_, _>>().into();
        }
        entry
    }
}

fn per_million(tokens: &TokenPrices) -> Value {
    json!({
        "input": tokens.input.as_per_million().to_string(),
        "output": tokens.output.as_per_million().to_string(),
        "cache_read": tokens.cache_read.as_per_million().to_string(),
        "cache_write_5m": tokens.cache_write_5m.as_per_million().to_string(),
        "cache_write_1h": tokens.cache_write_1h.as_per_million().to_string(),
    })
}
