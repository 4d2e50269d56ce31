//! The models the operator sells: found by their alias, listed for everybody in the shapes that clients know.

mod lists;

use std::borrow::Cow;
use std::num::NonZeroU32;

use crate::error::{Code, Error};
use crate::money::Micros;
use crate::tariff::{Bound, Ceiling, Cost, Pieces, Tariff, Unit};

pub use lists::{Page, WrongPage};

/// One model on sale.
#[derive(Clone, Debug)]
pub struct Model {
    /// The alias buyers use; it survives a change of upstream.
    pub id: String,
    pub kind: Kind,
    /// Who serves it, in order of preference; those with a weight share their place.
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
    /// Tokens of prompt and answer together that it takes at most, for the lists; nothing where the operator does not say.
    pub context: Option<u32>,
}

impl Model {
    /// A chat model of this name with usual limits, free and served by nobody: to try rules on, with what they need changed.
    pub fn plain(id: &str) -> Model {
        Model {
            id: id.to_owned(),
            kind: Kind::Chat,
            upstreams: Vec::new(),
            tariff: Tariff::default(),
            pieces: None,
            ceiling: Ceiling::Computed,
            default_output: 4096,
            max_output: 64_000,
            image_tokens: 2048,
            hidden_output: false,
            context: None,
        }
    }
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
    /// With one it stands in a group with those next to it that have one, too; of these one is drawn by weight.
    pub weight: Option<NonZeroU32>,
    /// What it asks of the operator, where that is known.
    pub cost: Option<Cost>,
}

/// All models on sale, in the operator's order.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    models: Vec<Model>,
}

/// The prompt and answer for which the price list shows what a call reserves.
const TYPICAL_INPUT: u64 = 1000;
/// The same of what is sold by the second or the character.
const TYPICAL_VIDEO_SECONDS: u64 = 4;
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
        let costs_by_piece = |serving: &Serving| serving.cost.as_ref().is_some_and(|cost| cost.pieces.is_some());
        if self.pieces.is_none() && !self.upstreams.iter().any(costs_by_piece) {
            return Ok(Cow::Borrowed(self));
        }
        let unit = match &self.pieces {
            Some(pieces) => pieces.price(named).ok_or_else(|| pieces.named())?,
            None => self.tariff.unit,
        };
        let mut priced = Model { tariff: Tariff { unit, ..self.tariff }, ..self.clone() };
        for serving in &mut priced.upstreams {
            serving.cost = serving.cost.take().and_then(|cost| cost.priced(named));
        }
        Ok(Cow::Owned(priced))
    }

    /// What the upstream of this name asks for this model, as it calls it; `None` where that is not known.
    pub fn cost_at(&self, upstream: &str, name: &str) -> Option<&Cost> {
        self.upstreams.iter().find(|serving| serving.upstream == upstream && serving.model == name)?.cost.as_ref()
    }

    /// What an ordinary call is quoted, as the price list shows it: a prompt of a thousand tokens and the usual answer, or
    /// one image, a minute of sound, four seconds of video or a thousand characters, of the cheapest class.
    pub fn typical_quote(&self) -> Micros {
        let Some(pieces) = &self.pieces else {
            return self.quote(&Bound { input: TYPICAL_INPUT, output: u64::from(self.default_output), ..Bound::default() });
        };
        let unit = pieces.cheapest().unwrap_or_default();
        let units = match pieces.unit {
            Unit::Image => 1,
            Unit::Second if self.kind == Kind::Video => TYPICAL_VIDEO_SECONDS,
            Unit::Second => TYPICAL_SECONDS,
            Unit::Character => TYPICAL_CHARACTERS,
        };
        Tariff { unit, ..self.tariff }.quote(self.ceiling, &Bound { units, ..Bound::default() })
    }
}
