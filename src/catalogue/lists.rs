//! The lists of models that everybody may read: for OpenAI's clients, for Anthropic's, for wallet clients, and the prices.

use serde_json::{Map, Number, Value, json};

use super::{Catalogue, Kind, Model};
use crate::money::UnitPrice;
use crate::tariff::{Ceiling, Pieces, TokenPrices, Unit};

/// When every model was made, as clients want to know: fixed, because an alias outlives every upstream behind it, and
/// clients only sort by it.
const CREATED: u32 = 1_767_225_600;
const CREATED_AT: &str = "2026-01-01T00:00:00Z";

/// Which part of a long list is wanted, as Anthropic's clients ask for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries, at least one; so many as Anthropic shows where nobody says how many.
    pub limit: Option<usize>,
    /// Those behind this one.
    pub after: Option<String>,
    /// The last ones in front of this one.
    pub before: Option<String>,
}

/// A part of the list that cannot be shown: which parameter is at fault, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongPage {
    pub param: &'static str,
    pub why: &'static str,
}

impl Page {
    /// Entries that are shown when nobody says how many.
    pub const USUAL: usize = 20;
}

impl Kind {
    /// The kinds as wallet clients call them, in the order of their own list. Two of theirs are not kinds of ours: `all`, and
    /// `code`, which any model is that chats.
    pub const WALLET_NAMES: &str = "asr, embedding, image, music, text, tts, upscale, inpaint, video, all, code";

    const fn wallet_name(self) -> &'static str {
        match self {
            Kind::Chat => "text",
            Kind::Embedding => "embedding",
            Kind::Image => "image",
            Kind::Edit => "inpaint",
            Kind::Upscale => "upscale",
            Kind::Speech => "tts",
            Kind::Transcription => "asr",
            Kind::Video => "video",
            Kind::Music => "music",
        }
    }
}

impl Catalogue {
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

    /// The same exactly as Anthropic has it, a page at a time.
    ///
    /// # Errors
    /// A page that begins or ends at a model that is not on the list, or at two.
    pub fn anthropic_list(&self, page: &Page) -> Result<Value, WrongPage> {
        let wrong = |param: &'static str, why: &'static str| WrongPage { param, why };
        let place = |param: &'static str, id: &str| {
            let place = self.models.iter().position(|model| model.id == id);
            place.ok_or_else(|| wrong(param, "not the id of a model on this list"))
        };
        let limit = page.limit.unwrap_or(Page::USUAL);
        let (shown, has_more) = match (&page.after, &page.before) {
            (Some(_), Some(_)) => return Err(wrong("before_id", "not together with after_id; name one of them")),
            (None, Some(before)) => {
                let rest = &self.models[..place("before_id", before)?];
                (&rest[rest.len().saturating_sub(limit)..], rest.len() > limit)
            }
            (after, None) => {
                let start = after.as_ref().map(|after| place("after_id", after)).transpose()?.map_or(0, |place| place + 1);
                let rest = &self.models[start..];
                (&rest[..limit.min(rest.len())], rest.len() > limit)
            }
        };
        Ok(json!({
            "data": shown.iter().map(Model::anthropic_entry).collect::<Vec<_>>(),
            "has_more": has_more,
            "first_id": shown.first().map(|model| &model.id),
            "last_id": shown.last().map(|model| &model.id),
        }))
    }

    /// `GET /api/v1/models?type=`: as wallet clients know it. `None` for a type that there is not.
    pub fn wallet_list(&self, wanted: &str) -> Option<Value> {
        if !Kind::WALLET_NAMES.split(", ").any(|name| name == wanted) {
            return None;
        }
        let is_wanted = |model: &&Model| match wanted {
            "all" => true,
            "code" => model.kind == Kind::Chat,
            name => model.kind.wallet_name() == name,
        };
        let data: Vec<_> = self.models.iter().filter(is_wanted).map(Model::wallet_entry).collect();
        Some(json!({ "object": "list", "type": wanted, "data": data }))
    }

    /// `GET /v1/pricing`: USD as exact decimal strings.
    pub fn pricing(&self) -> Value {
        json!({ "object": "list", "currency": "USD", "data": self.models.iter().map(Model::price_entry).collect::<Vec<_>>() })
    }
}

impl Model {
    /// One entry of the list for everybody, and the whole of `GET /v1/models/{id}`.
    pub fn entry(&self) -> Value {
        let mut entry = json!({
            "id": self.id,
            "object": "model",
            "type": "model",
            "created": CREATED,
            "created_at": CREATED_AT,
            "owned_by": "farebox",
            "display_name": self.id,
            "max_output_tokens": self.max_output,
        });
        if let Some(context) = self.context {
            entry["context_length"] = context.into();
        }
        entry
    }

    /// The same exactly as Anthropic has it.
    pub fn anthropic_entry(&self) -> Value {
        json!({ "type": "model", "id": self.id, "display_name": self.id, "created_at": CREATED_AT })
    }

    /// The same as wallet clients know it. What is not known of a model, such as whether it can see, is not said.
    pub fn wallet_entry(&self) -> Value {
        let mut spec = json!({
            "name": self.id,
            "description": format!("{} model, paid in USDC", self.kind.name()),
            // The upstream sees what is asked, and not who asks.
            "privacy": "anonymized",
            "capabilities": {},
            "constraints": {},
            "traits": [],
            "offline": false,
        });
        if let Some(pricing) = self.wallet_pricing() {
            spec["pricing"] = pricing;
        }
        if self.kind == Kind::Chat {
            spec["maxCompletionTokens"] = self.max_output.into();
        }
        let mut entry = json!({
            "id": self.id,
            "object": "model",
            "created": CREATED,
            "owned_by": "farebox",
            "type": self.kind.wallet_name(),
            "model_spec": spec,
        });
        if let Some(context) = self.context {
            entry["context_length"] = context.into();
        }
        entry
    }

    /// What wallet clients read of a price: the one place where a kind says how it is counted. Nothing for a video, whose price
    /// they ask for, and for what is sold in another way than they know.
    fn wallet_pricing(&self) -> Option<Value> {
        let (tokens, pieces) = (&self.tariff.tokens, self.pieces.as_ref());
        match (self.kind, pieces) {
            (Kind::Video, _) => None,
            (Kind::Chat | Kind::Embedding, _) | (_, None) if !self.has_token_prices() => None,
            (Kind::Chat | Kind::Embedding, _) | (_, None) => {
                let mut pricing = wallet_tokens(tokens);
                if let Some(long) = &self.tariff.long {
                    pricing["extended"] = wallet_tokens(&long.tokens);
                    pricing["extended"]["context_token_threshold"] = long.above.into();
                }
                Some(pricing)
            }
            (Kind::Image, Some(pieces)) => Some(wallet_images(pieces)),
            (Kind::Upscale, Some(pieces)) => Some(json!({ "upscale": wallet_classes(pieces) })),
            (Kind::Edit, Some(pieces)) => Some(json!({ "inpaint": wallet_each(pieces.cheapest()?) })),
            (Kind::Speech, Some(pieces)) => {
                Some(json!({ "input": wallet_usd(&pieces.cheapest()?.as_per_million().to_string()) }))
            }
            (Kind::Transcription, Some(pieces)) => Some(json!({ "per_audio_second": wallet_each(pieces.cheapest()?) })),
            (Kind::Music, Some(pieces)) => Some(json!({ "per_second": wallet_each(pieces.cheapest()?) })),
        }
    }

    fn has_token_prices(&self) -> bool {
        !(self.tariff.tokens.input.is_zero() && self.tariff.tokens.output.is_zero())
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
            "context_tokens": self.context,
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
            let priced = classes(pieces).map(|(class, price)| (class.to_owned(), price.as_each().into()));
            entry[name] = priced.collect::<Map<_, _>>().into();
        }
        entry
    }
}

/// What has a price of its own, and the rest as `default`.
fn classes(pieces: &Pieces) -> impl Iterator<Item = (&str, UnitPrice)> {
    let own = pieces.classes.iter().map(|(class, price)| (class.as_str(), *price));
    own.chain(pieces.default.map(|price| ("default", price)))
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

fn wallet_tokens(tokens: &TokenPrices) -> Value {
    let usd = |price: UnitPrice| wallet_usd(&price.as_per_million().to_string());
    json!({
        "input": usd(tokens.input),
        "output": usd(tokens.output),
        "cache_input": usd(tokens.cache_read),
        "cache_write": usd(tokens.cache_write_5m),
    })
}

/// Images are sold by their resolution, by their quality, or all alike.
fn wallet_images(pieces: &Pieces) -> Value {
    let all_are = |known: &[&str]| pieces.classes.iter().all(|(class, _)| known.contains(&class.to_ascii_lowercase().as_str()));
    let mut pricing = Map::new();
    if !pieces.classes.is_empty() && all_are(&["1k", "2k", "4k"]) {
        pricing.insert("resolutions".into(), wallet_classes(pieces));
    } else if !pieces.classes.is_empty() && all_are(&["low", "medium", "high", "auto", "standard", "hd"]) {
        pricing.insert("quality".into(), wallet_classes(pieces));
    }
    if let Some(each) = pieces.default.or_else(|| pieces.cheapest()) {
        pricing.insert("generation".into(), wallet_each(each));
    }
    pricing.into()
}

fn wallet_classes(pieces: &Pieces) -> Value {
    classes(pieces).map(|(class, price)| (class.to_owned(), wallet_each(price))).collect::<Map<_, _>>().into()
}

fn wallet_each(price: UnitPrice) -> Value {
    wallet_usd(&price.as_each())
}

/// An amount of USD as a number, which wallet clients expect, and once more under the name of the other money that they know.
fn wallet_usd(decimal: &str) -> Value {
    let short = decimal.trim_end_matches('0').trim_end_matches('.');
    let number: Number = short.parse().unwrap_or_else(|_| 0.into());
    json!({ "usd": number, "diem": number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tariff::{LongPrompt, Tariff};

    fn model(id: &str, kind: Kind, pieces: Option<Pieces>) -> Model {
        let price = |text| UnitPrice::per_million(text).unwrap();
        let tokens = match pieces {
            None => {
                TokenPrices { input: price("3.00"), output: price("15.00"), cache_read: price("0.30"), ..TokenPrices::default() }
            }
            Some(_) => TokenPrices::default(),
        };
        Model { kind, tariff: Tariff { tokens, ..Tariff::default() }, pieces, ..Model::plain(id) }
    }

    fn chats(count: usize) -> Catalogue {
        Catalogue::new((0..count).map(|n| model(&format!("m/{n}"), Kind::Chat, None)).collect())
    }

    fn ids(list: &Value) -> Vec<&str> {
        list["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn pages_follow_each_other_in_both_directions_and_none_is_shown_twice() {
        let catalogue = chats(7);
        let (mut seen, mut page) = (Vec::new(), Page { limit: Some(3), ..Page::default() });
        loop {
            let list = catalogue.anthropic_list(&page).unwrap();
            seen.extend(ids(&list).into_iter().map(str::to_owned));
            assert_eq!((&list["first_id"], &list["last_id"]), (&list["data"][0]["id"], &seen[seen.len() - 1].clone().into()));
            if list["has_more"] == false {
                break;
            }
            page.after = list["last_id"].as_str().map(str::to_owned);
        }
        assert_eq!(seen, ["m/0", "m/1", "m/2", "m/3", "m/4", "m/5", "m/6"]);

        let before =
            |id: &str| catalogue.anthropic_list(&Page { limit: Some(2), before: Some(id.into()), ..Page::default() }).unwrap();
        assert_eq!((ids(&before("m/5")), &before("m/5")["has_more"]), (vec!["m/3", "m/4"], &true.into()));
        assert_eq!((ids(&before("m/2")), &before("m/2")["has_more"]), (vec!["m/0", "m/1"], &false.into()));
        assert_eq!((ids(&before("m/0")).len(), &before("m/0")["last_id"]), (0, &Value::Null));
    }

    #[test]
    fn a_page_without_bounds_is_the_first_twenty_and_one_at_an_unknown_model_is_none() {
        let catalogue = chats(21);
        let list = catalogue.anthropic_list(&Page::default()).unwrap();
        assert_eq!((ids(&list).len(), &list["has_more"]), (20, &true.into()));
        let list = chats(20).anthropic_list(&Page::default()).unwrap();
        assert_eq!((ids(&list).len(), &list["has_more"]), (20, &false.into()));
        let named = |after: Option<&str>, before: Option<&str>| {
            let page = Page { limit: None, after: after.map(str::to_owned), before: before.map(str::to_owned) };
            catalogue.anthropic_list(&page).map_err(|wrong| wrong.param)
        };
        assert_eq!(named(Some("gone"), None), Err("after_id"));
        assert_eq!(named(None, Some("gone")), Err("before_id"));
        assert_eq!(named(Some("m/1"), Some("m/5")), Err("before_id"));
    }

    #[test]
    fn wallet_clients_find_a_model_by_its_type_and_no_type_hides_one_from_all() {
        let kinds = [
            Kind::Chat,
            Kind::Embedding,
            Kind::Image,
            Kind::Edit,
            Kind::Upscale,
            Kind::Speech,
            Kind::Transcription,
            Kind::Video,
            Kind::Music,
        ];
        let catalogue = Catalogue::new(kinds.map(|kind| model(kind.name(), kind, None)).to_vec());
        assert_eq!(ids(&catalogue.wallet_list("all").unwrap()), kinds.map(Kind::name));
        for kind in kinds {
            let list = catalogue.wallet_list(kind.wallet_name()).expect("the name is one of the list");
            assert_eq!((ids(&list), &list["type"]), (vec![kind.name()], &kind.wallet_name().into()));
        }
        assert_eq!(ids(&catalogue.wallet_list("code").unwrap()), ["chat"]);
        assert_eq!(catalogue.wallet_list("chat"), None, "it is called text there");
    }

    #[test]
    fn every_kind_says_what_it_costs_in_the_words_of_wallet_clients() {
        let each = |text: &str| UnitPrice::each(text).unwrap();
        let table = |unit, rows: &[(&str, &str)]| {
            let row = |(class, price): &(&str, &str)| ((*class).to_owned(), each(price));
            Some(Pieces { unit, classes: rows.iter().map(row).collect(), default: None })
        };
        let one = |unit, price: &str| Some(Pieces::flat(unit, each(price)));
        let usd = |amount: &str| {
            let amount: Value = serde_json::from_str(amount).unwrap();
            json!({ "usd": amount, "diem": amount })
        };
        for (kind, pieces, expected) in [
            (Kind::Image, one(Unit::Image, "0.04"), json!({ "generation": usd("0.04") })),
            (
                Kind::Image,
                table(Unit::Image, &[("1K", "0.1"), ("4K", "0.25")]),
                json!({ "resolutions": { "1K": usd("0.1"), "4K": usd("0.25") }, "generation": usd("0.1") }),
            ),
            (
                Kind::Image,
                table(Unit::Image, &[("low", "0.01"), ("high", "0.2")]),
                json!({ "quality": { "low": usd("0.01"), "high": usd("0.2") }, "generation": usd("0.01") }),
            ),
            (
                Kind::Upscale,
                table(Unit::Image, &[("2x", "1"), ("4x", "2")]),
                json!({ "upscale": { "2x": usd("1"), "4x": usd("2") } }),
            ),
            (Kind::Edit, one(Unit::Image, "0.05"), json!({ "inpaint": usd("0.05") })),
            (Kind::Speech, one(Unit::Character, "0.0000035"), json!({ "input": usd("3.5") })),
            (Kind::Transcription, one(Unit::Second, "0.0001"), json!({ "per_audio_second": usd("0.0001") })),
            (Kind::Music, one(Unit::Second, "0.01"), json!({ "per_second": usd("0.01") })),
        ] {
            let shown = model("m", kind, pieces).wallet_entry();
            assert_eq!(shown["model_spec"]["pricing"], expected, "{kind:?}");
        }
        assert!(model("m", Kind::Video, one(Unit::Second, "0.4")).wallet_entry()["model_spec"].get("pricing").is_none());

        let mut chat = model("m", Kind::Chat, None);
        let tokens = TokenPrices { input: UnitPrice::per_million("6").unwrap(), ..chat.tariff.tokens };
        chat.tariff.long = Some(LongPrompt { above: 200_000, tokens });
        let pricing = &chat.wallet_entry()["model_spec"]["pricing"];
        assert_eq!((&pricing["input"], &pricing["output"], &pricing["cache_input"]), (&usd("3"), &usd("15"), &usd("0.3")));
        assert_eq!(
            (&pricing["extended"]["input"], &pricing["extended"]["context_token_threshold"]),
            (&usd("6"), &200_000.into())
        );
    }
}
