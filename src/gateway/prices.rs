//! Prices and surcharges of an earlier configuration, honoured until the last quote that was made with them has run out.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalogue::Model;
use crate::clock::Timestamp;
use crate::config;
use crate::fault;
use crate::money::{BadAmount, Micros, UnitPrice};
use crate::tariff::{Ceiling, LongPrompt, Pieces, Tariff, TokenPrices};

/// The prices before each change, for as long as they count.
#[derive(Default)]
pub(super) struct Earlier {
    /// The oldest first.
    changes: Vec<Before>,
}

/// What a change has replaced.
struct Before {
    prices: Vec<Price>,
    surcharges: Arc<Surcharges>,
    /// The moment from which it counts no more.
    until: Timestamp,
}

/// What each network, as CAIP-2 names it, adds to the price of a call that is paid for on it by itself, in micros.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Surcharges(BTreeMap<String, u64>);

impl Surcharges {
    pub fn new(networks: &[config::Network]) -> Surcharges {
        Surcharges(networks.iter().map(|network| (network.id.clone(), network.surcharge.get())).collect())
    }

    /// `None` for a network that nothing was sold on.
    pub fn of(&self, network: &str) -> Option<Micros> {
        self.0.get(network).copied().map(Micros::new)
    }
}

/// What a quote of one model depends on, as it is written down.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Price {
    model: String,
    tokens: Tokens,
    /// From how many tokens of a prompt on there are other prices.
    long: Option<(u64, Tokens)>,
    /// USD, exact.
    call: String,
    /// USD of an image, second or character of each class, and of all others.
    pieces: Vec<(String, String)>,
    other_pieces: Option<String>,
    /// A flat ceiling in micros, if it is flat.
    flat: Option<u64>,
    default_output: u32,
    max_output: u32,
    image_tokens: u32,
}

/// USD per million tokens, exact: input, output, cache read, cache write 5m and 1h.
type Tokens = [String; 5];

/// The file next to the ledger.
#[derive(Default, Serialize, Deserialize)]
struct Noted {
    now: Vec<Price>,
    /// Not in a note of before there were any: then they were what they are.
    #[serde(default)]
    surcharges: Option<Surcharges>,
    earlier: Vec<Change>,
}

/// A change of prices.
#[derive(Serialize, Deserialize)]
struct Change {
    before: Vec<Price>,
    #[serde(default)]
    surcharges: Option<Surcharges>,
    at_ms: u64,
}

impl Earlier {
    /// Compares today's prices with those noted in `folder`; a change is noted, and the prices before it are honoured for
    /// `honour` from now.
    ///
    /// # Errors
    /// When the note cannot be read or written; then nothing earlier is honoured.
    pub fn load(
        folder: &Path,
        (models, surcharges): (&[Model], &Arc<Surcharges>),
        honour: Duration,
        now: Timestamp,
    ) -> io::Result<Earlier> {
        let path = folder.join("prices.json");
        let mut noted = match fs::read(&path) {
            // A note that cannot be read is replaced: it only ever helps for minutes.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Noted::default(),
            Err(error) => return Err(error),
        };
        let mut today: Vec<Price> = models.iter().map(Price::of).collect();
        // The order in which models are configured is no price.
        today.sort_by(|one, other| one.model.cmp(&other.model));
        // A clock that was set back since must not make earlier prices count for longer.
        let until = |change: &Change| Timestamp::from_millis(change.at_ms).min(now).plus(honour);
        let added = noted.surcharges.as_ref().is_some_and(|before| before != surcharges.as_ref());
        if noted.now != today || added {
            noted.earlier.retain(|change| now < until(change));
            let (before, surcharges) = (noted.now, noted.surcharges.take());
            noted.earlier.push(Change { before, surcharges, at_ms: now.millis() });
            noted.now = today;
        }
        if noted.surcharges.is_none() {
            noted.surcharges = Some(Surcharges::clone(surcharges));
            replace(&path, &serde_json::to_vec_pretty(&noted)?)?;
        }
        let before = |change: Change| Before {
            until: until(&change),
            prices: change.before,
            surcharges: change.surcharges.map_or_else(|| Arc::clone(surcharges), Arc::new),
        };
        Ok(Earlier { changes: noted.earlier.into_iter().map(before).collect() })
    }

    /// The model at each earlier price that still counts, with what the networks added then, the latest first.
    pub fn find(&self, model: &Model, now: Timestamp) -> Vec<(Model, Arc<Surcharges>)> {
        let counting = self.changes.iter().rev().filter(|change| now < change.until);
        let at = |change: &Before| {
            let price = change.prices.iter().find(|price| price.model == model.id)?;
            Some((price.apply(model).ok()?, Arc::clone(&change.surcharges)))
        };
        counting.filter_map(at).collect()
    }
}

impl Price {
    fn of(model: &Model) -> Price {
        let tariff = &model.tariff;
        let pieces = model.pieces.iter().flat_map(|pieces| &pieces.classes);
        let other = model.pieces.as_ref().and_then(|pieces| pieces.default);
        Price {
            model: model.id.clone(),
            tokens: written(&tariff.tokens),
            long: tariff.long.as_ref().map(|long| (long.above, written(&long.tokens))),
            call: tariff.call.as_each(),
            pieces: pieces.map(|(class, price)| (class.clone(), price.as_each())).collect(),
            other_pieces: other.map(UnitPrice::as_each),
            flat: match model.ceiling {
                Ceiling::Computed => None,
                Ceiling::Flat(amount) => Some(amount.get()),
            },
            default_output: model.default_output,
            max_output: model.max_output,
            image_tokens: model.image_tokens,
        }
    }

    fn apply(&self, model: &Model) -> Result<Model, BadAmount> {
        let long = self.long.as_ref().map(|(above, tokens)| Ok(LongPrompt { above: *above, tokens: read(tokens)? }));
        let call = UnitPrice::each(&self.call)?;
        let tariff = Tariff { tokens: read(&self.tokens)?, long: long.transpose()?, unit: UnitPrice::default(), call };
        let classes = self.pieces.iter().map(|(class, price)| Ok((class.clone(), UnitPrice::each(price)?)));
        let classes = classes.collect::<Result<Vec<_>, _>>()?;
        let default = self.other_pieces.as_deref().map(UnitPrice::each).transpose()?;
        // What a model was counted in is not written down: a price for another unit cannot be honoured.
        if model.pieces.is_none() != (self.pieces.is_empty() && self.other_pieces.is_none()) {
            return Err(BadAmount("counted in another unit".into()));
        }
        let pieces = model.pieces.as_ref().map(|pieces| Pieces { unit: pieces.unit, classes, default });
        let ceiling = self.flat.map_or(Ceiling::Computed, |amount| Ceiling::Flat(Micros::new(amount)));
        let (default_output, max_output, image_tokens) = (self.default_output, self.max_output, self.image_tokens);
        Ok(Model { tariff, pieces, ceiling, default_output, max_output, image_tokens, ..model.clone() })
    }
}

fn written(tokens: &TokenPrices) -> Tokens {
    let prices = [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write_5m, tokens.cache_write_1h];
    prices.map(|price| price.as_per_million().to_string())
}

fn read([input, output, cache_read, cache_write_5m, cache_write_1h]: &Tokens) -> Result<TokenPrices, BadAmount> {
    Ok(TokenPrices {
        input: UnitPrice::per_million(input)?,
        output: UnitPrice::per_million(output)?,
        cache_read: UnitPrice::per_million(cache_read)?,
        cache_write_5m: UnitPrice::per_million(cache_write_5m)?,
        cache_write_1h: UnitPrice::per_million(cache_write_1h)?,
    })
}

/// Writes a file so that a crash leaves the old one or the new one.
fn replace(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::File::open(&fresh)?.sync_all()?;
    fault::point("prices.before");
    fs::rename(fresh, path)?;
    fault::point("prices.after");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Kind;
    use crate::tariff::Bound;

    fn model(output: &str) -> Model {
        let output = UnitPrice::per_million(output).unwrap();
        Model {
            id: "m".into(),
            kind: Kind::Chat,
            upstreams: Vec::new(),
            tariff: Tariff {
                tokens: TokenPrices { output, ..TokenPrices::default() },
                call: UnitPrice::each("0.01").unwrap(),
                ..Tariff::default()
            },
            pieces: None,
            ceiling: Ceiling::Computed,
            default_output: 1000,
            max_output: 2000,
            image_tokens: 1,
            hidden_output: false,
            context: None,
        }
    }

    #[test]
    fn a_quote_survives_a_change_of_price_for_as_long_as_it_may_be_paid() {
        let folder = tempfile::tempdir().unwrap();
        let (honour, at) = (Duration::from_secs(300), Timestamp::from_secs);
        let none = Arc::default();
        let load = |models: &[Model], now| Earlier::load(folder.path(), (models, &none), honour, now).unwrap();
        let bound = Bound { output: 1000, ..Bound::default() };
        assert!(load(&[model("15")], at(0)).find(&model("15"), at(0)).is_empty(), "nothing came before");
        let changed = load(&[model("30")], at(1000));
        let old = changed.find(&model("30"), at(1299));
        assert_eq!(old[0].0.quote(&bound), model("15").quote(&bound));
        assert!(changed.find(&model("30"), at(1300)).is_empty());
        // Another start with the same prices neither forgets nor prolongs.
        let again = load(&[model("30")], at(1200));
        assert!(!again.find(&model("30"), at(1299)).is_empty() && again.find(&model("30"), at(1300)).is_empty());
        // Nor does one after the clock was set back by an hour.
        let set_back = load(&[model("30")], at(400));
        assert!(!set_back.find(&model("30"), at(699)).is_empty() && set_back.find(&model("30"), at(700)).is_empty());
    }

    #[test]
    fn a_second_change_of_price_does_not_forget_the_first_nor_does_another_order_of_models_prolong_it() {
        let folder = tempfile::tempdir().unwrap();
        let (honour, at) = (Duration::from_secs(300), Timestamp::from_secs);
        let other = || Model { id: "a".into(), ..model("7") };
        let none = Arc::default();
        let load = |models: &[Model], now| Earlier::load(folder.path(), (models, &none), honour, now).unwrap();
        let outputs = |earlier: &Earlier, now| -> Vec<_> {
            earlier
                .find(&model("60"), at(now))
                .iter()
                .map(|(model, _)| model.tariff.tokens.output.as_per_million().to_string())
                .collect()
        };
        load(&[model("15"), other()], at(0));
        load(&[model("30"), other()], at(1000));
        let twice = load(&[other(), model("60")], at(1100));
        assert_eq!(outputs(&twice, 1299), ["30.000000", "15.000000"]);
        assert_eq!(outputs(&twice, 1300), ["30.000000"]);
        let reordered = load(&[model("60"), other()], at(1350));
        assert_eq!(outputs(&reordered, 1399), ["30.000000"], "no price has changed");
        assert!(outputs(&reordered, 1400).is_empty());
    }

    fn surcharges(micros: u64) -> Arc<Surcharges> {
        Arc::new(Surcharges([("eip155:8453".to_owned(), micros)].into()))
    }

    #[test]
    fn a_surcharge_is_honoured_with_the_price_beside_which_it_stood_and_on_no_network_that_was_not_sold_on() {
        let folder = tempfile::tempdir().unwrap();
        let (honour, at) = (Duration::from_secs(300), Timestamp::from_secs);
        let load = |output: &str, micros: u64, now| {
            Earlier::load(folder.path(), (&[model(output)], &surcharges(micros)), honour, at(now)).unwrap()
        };
        let found = |earlier: &Earlier, now| -> Vec<_> {
            let at = |(model, surcharges): (Model, Arc<Surcharges>)| {
                (model.tariff.tokens.output.as_per_million().to_string(), surcharges.of("eip155:8453").map(Micros::get))
            };
            earlier.find(&model("99"), at_secs(now)).into_iter().map(at).collect()
        };
        load("15", 2000, 0);
        let dearer = load("15", 5000, 1000);
        assert_eq!(found(&dearer, 1299), [("15.000000".to_owned(), Some(2000))], "a surcharge that changed is a change of price");
        assert_eq!(found(&dearer, 1300), []);
        let both = load("30", 5000, 1100);
        let expected = [("15.000000".to_owned(), Some(5000)), ("15.000000".to_owned(), Some(2000))];
        assert_eq!(found(&both, 1299), expected);
        assert_eq!(found(&load("30", 5000, 1200), 1299), expected, "another start with the same changes nothing");
        assert_eq!(both.find(&model("30"), at(1200))[0].1.of("eip155:1"), None);
    }

    #[test]
    fn a_note_from_before_there_were_surcharges_in_it_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let load = |micros: u64, now| {
            let models = [model("15")];
            Earlier::load(folder.path(), (&models, &surcharges(micros)), Duration::from_secs(300), at_secs(now)).unwrap()
        };
        load(2000, 0);
        let path = folder.path().join("prices.json");
        let mut note: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        note.as_object_mut().unwrap().remove("surcharges");
        fs::write(&path, note.to_string()).unwrap();
        assert!(load(2000, 1000).find(&model("15"), at_secs(1001)).is_empty());
        let found = load(7000, 1100).find(&model("15"), at_secs(1101));
        assert_eq!(found[0].1.of("eip155:8453"), Some(Micros::new(2000)), "from then on it is noted");
    }

    fn at_secs(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }
}
