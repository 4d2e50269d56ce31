//! The models the operator sells: found by their alias, listed for `/v1/models` and `/v1/pricing`.

use std::num::NonZeroU32;

use serde_json::{Value, json};

use crate::money::Micros;
use crate::tariff::{Bound, Ceiling, Tariff};

/// One model on sale.
#[derive(Clone, Debug)]
pub struct Model {
    /// The alias buyers use; it survives a change of upstream.
    pub id: String,
    pub kind: Kind,
    /// Who serves it, in order of preference; those with a weight share their place.
    pub upstreams: Vec<Serving>,
    pub tariff: Tariff,
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

/// What a model makes. More kinds arrive with their routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
}

/// One upstream that serves a model, and what it calls it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    pub upstream: String,
    pub model: String,
    /// With one it stands in a group with those next to it that have one, too; of these one is drawn by weight.
    pub weight: Option<NonZeroU32>,
}

/// All models on sale, in the operator's order.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    models: Vec<Model>,
}

/// The prompt and answer for which the price list shows what a call reserves.
const TYPICAL_INPUT: u64 = 1000;

impl Catalogue {
    pub fn new(models: Vec<Model>) -> Self {
        Catalogue { models }
    }

    pub fn find(&self, id: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.id == id)
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

    /// What an ordinary call is quoted, as the price list shows it.
    pub fn typical_quote(&self) -> Micros {
        self.quote(&Bound { input: TYPICAL_INPUT, output: u64::from(self.default_output), ..Bound::default() })
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
        let per_million = json!({
            "input": tariff.input.as_per_million().to_string(),
            "output": tariff.output.as_per_million().to_string(),
            "cache_read": tariff.cache_read.as_per_million().to_string(),
            "cache_write_5m": tariff.cache_write_5m.as_per_million().to_string(),
            "cache_write_1h": tariff.cache_write_1h.as_per_million().to_string(),
        });
        let ceiling = match self.ceiling {
            Ceiling::Computed => json!({ "kind": "computed", "typical_call": self.typical_quote().to_string() }),
            Ceiling::Flat(amount) => json!({ "kind": "flat", "per_call": amount.to_string() }),
        };
        json!({
            "id": self.id,
            "kind": "chat",
            "usd_per_million_tokens": per_million,
            "usd_per_call": Micros::new(tariff.call.as_per_million().get().div_ceil(1_000_000)).to_string(),
            "default_output_tokens": self.default_output,
            "max_output_tokens": self.max_output,
            "ceiling": ceiling,
        })
    }
}
