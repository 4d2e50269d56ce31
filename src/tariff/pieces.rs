//! What an image, a second or a character of a model costs, by the size or quality that a request names.

use crate::money::UnitPrice;

/// What a model is sold by, beside its tokens and its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Image,
    /// Of audio or video.
    Second,
    Character,
}

/// The class of videos with sound, which comes beside their size.
pub const SOUND: &str = "audio";

/// Prices of one unit. An entry is for one class, such as `1024x1024` or `high`, or for several at once, such as
/// `1024x1536/high`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    pub unit: Unit,
    pub classes: Vec<(String, UnitPrice)>,
    /// Of every other class, and of a request that names none.
    pub default: Option<UnitPrice>,
}

impl Pieces {
    /// One price for everything.
    pub fn flat(unit: Unit, price: UnitPrice) -> Pieces {
        Pieces { unit, classes: Vec::new(), default: Some(price) }
    }

    /// What a unit costs in a request that names these classes: the entry that fits most of them, and of two that fit
    /// equally the dearer. A request that names none, where nothing is said of those, may get any class, and so costs as
    /// much as the dearest; that it has sound ([`SOUND`]) names no size. `None` is not sold.
    pub fn price(&self, named: &[String]) -> Option<UnitPrice> {
        let fitting = self.classes.iter().filter_map(|(entry, price)| {
            let parts: Vec<_> = entry.split('/').collect();
            let fits = parts.iter().all(|part| named.iter().any(|name| name.eq_ignore_ascii_case(part)));
            fits.then_some((parts.len(), *price))
        });
        let best = fitting.max().map(|(_, price)| price).or(self.default);
        best.or_else(|| self.dearest().filter(|_| named.iter().all(|name| name == SOUND)))
    }

    /// The most that a unit costs.
    pub fn dearest(&self) -> Option<UnitPrice> {
        self.classes.iter().map(|(_, price)| *price).chain(self.default).max()
    }

    /// The least.
    pub fn cheapest(&self) -> Option<UnitPrice> {
        self.classes.iter().map(|(_, price)| *price).chain(self.default).min()
    }

    /// The classes that have a price of their own, for a refusal.
    pub fn named(&self) -> String {
        self.classes.iter().map(|(entry, _)| entry.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(text: &str) -> UnitPrice {
        UnitPrice::each(text).unwrap()
    }

    fn pieces(default: Option<&str>) -> Pieces {
        let classes = [("1024x1024", "0.04"), ("high", "0.17"), ("1024x1536/high", "0.25"), ("4k", "0.24")];
        let classes = classes.map(|(entry, price)| (entry.to_owned(), each(price)));
        Pieces { unit: Unit::Image, classes: classes.to_vec(), default: default.map(each) }
    }

    #[test]
    fn the_entry_that_fits_best_is_the_price() {
        let table = pieces(None);
        let price = |named: &[&str]| table.price(&named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(price(&["1024x1024"]), Some(each("0.04")));
        assert_eq!(price(&["1024x1536", "high"]), Some(each("0.25")), "both at once before one of them");
        assert_eq!(price(&["1024x1024", "high"]), Some(each("0.17")), "of two that fit equally the dearer");
        assert_eq!(price(&["4K"]), Some(each("0.24")), "4K is 4k");
        assert_eq!(price(&["512x512"]), None, "what has no price is not sold");
        assert_eq!(price(&[]), Some(each("0.25")), "whatever the upstream chooses is covered");
    }

    #[test]
    fn sound_is_priced_where_a_table_names_it_and_refuses_nobody_where_it_does_not() {
        let classes =
            [("720p", "0.05"), ("720p/audio", "0.10"), ("1080p", "0.20")].map(|(entry, price)| (entry.to_owned(), each(price)));
        let table = Pieces { unit: Unit::Second, classes: classes.to_vec(), default: None };
        let price = |named: &[&str]| table.price(&named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(price(&["720p"]), Some(each("0.05")));
        assert_eq!(price(&["720p", SOUND]), Some(each("0.10")));
        assert_eq!(price(&["1080p", SOUND]), Some(each("0.20")));
        assert_eq!(price(&[SOUND]), Some(each("0.20")), "no size is named, so any may come");
        assert_eq!(price(&["480p", SOUND]), None);
    }

    #[test]
    fn a_default_is_for_all_that_is_not_named() {
        let table = pieces(Some("0.05"));
        assert_eq!(table.price(&["512x512".into()]), Some(each("0.05")));
        assert_eq!(table.price(&[]), Some(each("0.05")));
    }
}
