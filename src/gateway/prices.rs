//! Prices of an earlier configuration, honoured until the last quote that was made with them has run out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalogue::Model;
use crate::clock::Timestamp;
use crate::fault;
use crate::money::{BadAmount, Micros, UnitPrice};
use crate::tariff::{Ceiling, Tariff};

/// The prices before the last change, for as long as they count.
#[derive(Default)]
pub(super) struct Earlier {
    prices: Vec<Price>,
    until: Timestamp,
}

/// What a quote of one model depends on, as it is written down.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Price {
    model: String,
    /// Prices in USD per million units, exact; input, output, cache read, cache write 5m and 1h, call.
    units: [String; 6],
    /// A flat ceiling in micros, if it is flat.
    flat: Option<u64>,
    default_output: u32,
    max_output: u32,
    image_tokens: u32,
}

/// The file next to the ledger.
#[derive(Default, Serialize, Deserialize)]
struct Noted {
    now: Vec<Price>,
    earlier: Vec<Price>,
    changed_at_ms: u64,
}

impl Earlier {
    /// Compares today's prices with those noted in `folder`; a change is noted, and the prices before it are honoured for
    /// `honour` from now.
    ///
    /// # Errors
    /// When the note cannot be read or written; then nothing earlier is honoured.
    pub fn load(folder: &Path, models: &[Model], honour: Duration, now: Timestamp) -> io::Result<Earlier> {
        let path = folder.join("prices.json");
        let mut noted = match fs::read(&path) {
            // A note that cannot be read is replaced: it only ever helps for minutes.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Noted::default(),
            Err(error) => return Err(error),
        };
        let today: Vec<Price> = models.iter().map(Price::of).collect();
        if noted.now != today {
            noted = Noted { earlier: noted.now, now: today, changed_at_ms: now.millis() };
            replace(&path, &serde_json::to_vec_pretty(&noted)?)?;
        }
        // A clock that was set back since must not make the earlier prices count for longer.
        let changed = Timestamp::from_millis(noted.changed_at_ms).min(now);
        Ok(Earlier { prices: noted.earlier, until: changed.plus(honour) })
    }

    /// The model at its earlier price, if that differed and still counts.
    pub fn find(&self, model: &Model, now: Timestamp) -> Option<Model> {
        let price = self.prices.iter().filter(|_| now < self.until).find(|price| price.model == model.id)?;
        price.apply(model).ok()
    }
}

impl Price {
    fn of(model: &Model) -> Price {
        let tariff = &model.tariff;
        let units = [tariff.input, tariff.output, tariff.cache_read, tariff.cache_write_5m, tariff.cache_write_1h, tariff.call];
        Price {
            model: model.id.clone(),
            units: units.map(|price| price.as_per_million().to_string()),
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
        let [input, output, cache_read, cache_write_5m, cache_write_1h, call] = &self.units;
        let tariff = Tariff {
            input: UnitPrice::per_million(input)?,
            output: UnitPrice::per_million(output)?,
            cache_read: UnitPrice::per_million(cache_read)?,
            cache_write_5m: UnitPrice::per_million(cache_write_5m)?,
            cache_write_1h: UnitPrice::per_million(cache_write_1h)?,
            call: UnitPrice::per_million(call)?,
        };
        let ceiling = self.flat.map_or(Ceiling::Computed, |amount| Ceiling::Flat(Micros::new(amount)));
        let (default_output, max_output, image_tokens) = (self.default_output, self.max_output, self.image_tokens);
        Ok(Model { tariff, ceiling, default_output, max_output, image_tokens, ..model.clone() })
    }
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
            tariff: Tariff { output, call: UnitPrice::each("0.01").unwrap(), ..Tariff::default() },
            ceiling: Ceiling::Computed,
            default_output: 1000,
            max_output: 2000,
            image_tokens: 1,
        }
    }

    #[test]
    fn a_quote_survives_a_change_of_price_for_as_long_as_it_may_be_paid() {
        let folder = tempfile::tempdir().unwrap();
        let (honour, at) = (Duration::from_secs(300), Timestamp::from_secs);
        let load = |models: &[Model], now| Earlier::load(folder.path(), models, honour, now).unwrap();
        let bound = Bound { output: 1000, ..Bound::default() };
        assert!(load(&[model("15")], at(0)).find(&model("15"), at(0)).is_none(), "nothing came before");
        let changed = load(&[model("30")], at(1000));
        let old = changed.find(&model("30"), at(1299)).unwrap();
        assert_eq!(old.quote(&bound), model("15").quote(&bound));
        assert!(changed.find(&model("30"), at(1300)).is_none());
        // Another start with the same prices neither forgets nor prolongs.
        let again = load(&[model("30")], at(1200));
        assert!(again.find(&model("30"), at(1299)).is_some() && again.find(&model("30"), at(1300)).is_none());
        // Nor does one after the clock was set back by an hour.
        let set_back = load(&[model("30")], at(400));
        assert!(set_back.find(&model("30"), at(699)).is_some() && set_back.find(&model("30"), at(700)).is_none());
    }
}
