//! The models on sale as config.toml has them: who serves them, and what they cost.

use std::collections::HashSet;

use super::file::{self, ModelKind};
use super::{ConfigError, Remainder, Upstream, bad};
use crate::catalogue::{Catalogue, Kind, Model, Serving};
use crate::money::{BadAmount, Micros, UnitPrice};
use crate::tariff::{Ceiling, Cost, LongPrompt, Pieces, Tariff, TokenPrices, Unit};

pub(super) fn catalogue(rows: &[file::Model], upstreams: &[Upstream], remainder: Remainder) -> Result<Catalogue, ConfigError> {
    let mut ids = HashSet::new();
    let mut models = Vec::new();
    for row in rows {
        if row.id.is_empty() || !ids.insert(&row.id) {
            return Err(bad(format!("model {:?}, id", row.id), "empty, or there twice"));
        }
        models.push(model(row, upstreams, remainder)?);
    }
    Ok(Catalogue::new(models))
}

fn model(row: &file::Model, upstreams: &[Upstream], remainder: Remainder) -> Result<Model, ConfigError> {
    let key = |field: &str| format!("model {:?}, {field}", row.id);
    if let Some(serving) = row.upstreams.iter().find(|serving| !upstreams.iter().any(|upstream| upstream.name == serving.name)) {
        return Err(bad(key("upstreams"), format!("there is no [[upstream]] named {:?}", serving.name)));
    }
    if row.upstreams.is_empty() {
        return Err(bad(key("upstreams"), "name at least one upstream that serves it"));
    }
    let kind = kind(row.kind);
    let price = Table { place: key("price"), written: &row.price, kind };
    let pieces = price.pieces()?;
    // A flat price that is kept is one.
    let flat = row.ceiling != "computed" && remainder == Remainder::Keep;
    if let Some(missing) = price.missing().filter(|_| !flat) {
        return Err(bad(key("price"), missing));
    }
    let tariff = price.tariff()?;
    let everywhere = row.cost.as_ref().map(|cost| self::cost(key("cost"), cost, kind)).transpose()?;
    let ceiling = match row.ceiling.as_str() {
        "computed" => Ceiling::Computed,
        amount => Ceiling::Flat(
            Micros::parse_usd(amount).map_err(|why| bad(key("ceiling"), format!("\"computed\", or USD per call: {why}")))?,
        ),
    };
    let max_output = row.max_output.unwrap_or(usual_output(kind));
    if max_output == 0 || row.default_output == 0 {
        return Err(bad(key("max_output"), "an answer has at least one token"));
    }
    let upstreams_of = row.upstreams.iter().map(|serving| self::serving(serving, &row.id, kind, everywhere.as_ref()));
    Ok(Model {
        id: row.id.clone(),
        kind,
        upstreams: upstreams_of.collect::<Result<_, _>>()?,
        tariff,
        pieces,
        ceiling,
        default_output: row.default_output.min(max_output),
        max_output,
        image_tokens: row.image_tokens,
        hidden_output: row.hidden_output,
        context: row.context,
    })
}

fn serving(row: &file::Serving, id: &str, kind: Kind, everywhere: Option<&Cost>) -> Result<Serving, ConfigError> {
    let own = row.cost.as_ref().map(|cost| self::cost(format!("model {id:?}, upstreams, {:?}, cost", row.name), cost, kind));
    let cost = own.transpose()?.or_else(|| everywhere.cloned());
    Ok(Serving { upstream: row.name.clone(), model: row.model.clone(), weight: row.weight, cost })
}

/// What an upstream asks. A part of it that is left out would make every margin look better than it is.
fn cost(place: String, written: &file::Price, kind: Kind) -> Result<Cost, ConfigError> {
    let table = Table { place, written, kind };
    match table.missing() {
        Some(missing) => Err(bad(table.place, missing)),
        None => Ok(Cost { tariff: table.tariff()?, pieces: table.pieces()? }),
    }
}

fn kind(kind: ModelKind) -> Kind {
    match kind {
        ModelKind::Chat => Kind::Chat,
        ModelKind::Embedding => Kind::Embedding,
        ModelKind::Image => Kind::Image,
        ModelKind::Edit => Kind::Edit,
        ModelKind::Upscale => Kind::Upscale,
        ModelKind::Speech => Kind::Speech,
        ModelKind::Transcription => Kind::Transcription,
        ModelKind::Video => Kind::Video,
        ModelKind::Music => Kind::Music,
    }
}

/// Tokens that an answer may have where the operator does not say: of a picture those of the finest ones, of sound those of
/// an hour.
const fn usual_output(kind: Kind) -> u32 {
    match kind {
        Kind::Chat => 64_000,
        Kind::Image | Kind::Edit | Kind::Upscale => 8192,
        Kind::Embedding | Kind::Speech | Kind::Transcription | Kind::Video | Kind::Music => 16_384,
    }
}

/// What the tokens of one kind of prompt cost, as it is written.
struct Written<'a> {
    /// Such as `price` or `price.long`.
    place: String,
    input: &'a Option<String>,
    output: &'a Option<String>,
    cache_read: &'a Option<String>,
    cache_write_5m: &'a Option<String>,
    cache_write_1h: &'a Option<String>,
}

impl Written<'_> {
    /// What is not written costs what it costs in `others`, or else what plain input does.
    fn tokens(&self, others: Option<&TokenPrices>) -> Result<TokenPrices, ConfigError> {
        let price = |field: &str, text: &Option<String>, fallback: UnitPrice| match text {
            Some(text) => UnitPrice::per_million(text).map_err(|why| bad(format!("{}.{field}", self.place), why)),
            None => Ok(fallback),
        };
        let input = price("input", self.input, others.map_or(UnitPrice::default(), |others| others.input))?;
        let output = price("output", self.output, others.map_or(UnitPrice::default(), |others| others.output))?;
        let cache_read = price("cache_read", self.cache_read, input)?;
        let cache_write_5m = price("cache_write_5m", self.cache_write_5m, input)?;
        let cache_write_1h = price("cache_write_1h", self.cache_write_1h, cache_write_5m)?;
        Ok(TokenPrices { input, output, cache_read, cache_write_5m, cache_write_1h })
    }
}

/// One table of prices or of costs, as it is written for a model of some kind.
struct Table<'a> {
    /// Such as `model "m", price`.
    place: String,
    written: &'a file::Price,
    kind: Kind,
}

impl Table<'_> {
    fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.place)
    }

    /// What is missing for all that a call of this kind can use to have a price. One that is left out would be taken for
    /// nothing; a price of "0" says so.
    fn missing(&self) -> Option<&'static str> {
        let written = self.written;
        let has_pieces = written.image.is_some() || written.second.is_some() || written.character.is_some();
        let has_tokens = written.input.is_some() && (written.output.is_some() || self.kind == Kind::Embedding);
        if written.call.is_some() || has_tokens || has_pieces {
            return None;
        }
        Some(match self.kind {
            Kind::Chat => "name input and output (\"0\" gives them away), or a price per call",
            Kind::Embedding => "name input (\"0\" gives it away), or a price per call",
            Kind::Image | Kind::Edit | Kind::Upscale => "name a price per image or per call, or of input and output tokens",
            Kind::Speech => "name a price per character or per call, or of input and output tokens",
            Kind::Transcription => "name a price per second or per call, or of input and output tokens",
            Kind::Video | Kind::Music => "name a price per second or per call",
        })
    }

    fn tariff(&self) -> Result<Tariff, ConfigError> {
        let price = self.written;
        let written = Written {
            place: self.place.clone(),
            input: &price.input,
            output: &price.output,
            cache_read: &price.cache_read,
            cache_write_5m: &price.cache_write_5m,
            cache_write_1h: &price.cache_write_1h,
        };
        let tokens = written.tokens(None)?;
        let long = price.long.as_ref().map(|long| {
            let written = Written {
                place: self.key("long"),
                input: &long.input,
                output: &long.output,
                cache_read: &long.cache_read,
                cache_write_5m: &long.cache_write_5m,
                cache_write_1h: &long.cache_write_1h,
            };
            written.tokens(Some(&tokens)).map(|tokens| LongPrompt { above: long.above, tokens })
        });
        let call = price.call.as_deref().map(UnitPrice::each).transpose().map_err(|why| bad(self.key("call"), why))?;
        Ok(Tariff { tokens, long: long.transpose()?, unit: UnitPrice::default(), call: call.unwrap_or_default() })
    }

    /// The prices by the image, second or character. Each kind is counted in its own units.
    fn pieces(&self) -> Result<Option<Pieces>, ConfigError> {
        let (price, kind) = (self.written, self.kind);
        let tables = [
            ("image", &price.image, Unit::Image),
            ("second", &price.second, Unit::Second),
            ("character", &price.character, Unit::Character),
        ];
        let mut written = tables.into_iter().filter_map(|(name, table, unit)| Some((name, table.as_ref()?, unit)));
        let Some((name, table, unit)) = written.next() else { return Ok(None) };
        if let Some((other, ..)) = written.next() {
            return Err(bad(self.key(other), format!("there is a price per {name} already, and a call is counted in one unit")));
        }
        let fits = match unit {
            Unit::Image => matches!(kind, Kind::Image | Kind::Edit | Kind::Upscale),
            Unit::Second => matches!(kind, Kind::Transcription | Kind::Video | Kind::Music),
            Unit::Character => matches!(kind, Kind::Speech),
        };
        if !fits {
            return Err(bad(self.key(name), format!("a model of kind {:?} is not counted in these", kind.name())));
        }
        let wrong = |why: BadAmount| bad(self.key(name), why);
        match table {
            file::Pieces::One(text) => Ok(Some(Pieces::flat(unit, UnitPrice::each(text).map_err(wrong)?))),
            file::Pieces::Table(rows) => {
                let mut pieces = Pieces { unit, classes: Vec::new(), default: None };
                for (class, text) in rows {
                    let price = UnitPrice::each(text).map_err(wrong)?;
                    match class.as_str() {
                        "default" => pieces.default = Some(price),
                        class => pieces.classes.push((class.to_owned(), price)),
                    }
                }
                match pieces.dearest() {
                    Some(_) => Ok(Some(pieces)),
                    None => Err(bad(self.key(name), "the table is empty; name a default, or sizes and qualities")),
                }
            }
        }
    }
}
